//! What all pages share: header, footer, assets, and the context that they are made from.

use askama::Template;
use sha2::{Digest, Sha256};

use crate::config::{Config, Publish};
use crate::db::places::PlaceSource;
use crate::db::site::{SiteFacts, SiteNode};
use crate::site::text::{day, grouped, interval, minute};
use crate::site::writer::{Directory, WriteError};
use bitdash_core::lookup::species::TRB;
use bitdash_core::vocabulary::outcome::Outcome;

/// Maximum number of TRB and named nodes with a page: anyone can claim to be TRB.
const MAX_WATCHED: usize = 1_000;

/// Bytes of the first half of a hash, in hexadecimal.
pub fn hash(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes)[..8])
}

/// Bytes in hexadecimal.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

struct Asset {
    name: &'static str,
    ending: &'static str,
    bytes: &'static [u8],
}

macro_rules! asset {
    ($name:literal, $ending:literal) => {
        Asset {
            name: $name,
            ending: $ending,
            bytes: include_bytes!(concat!("assets/", $name, ".", $ending)),
        }
    };
}

const ASSETS: &[Asset] = &[
    asset!("style", "css"),
    asset!("page", "js"),
    asset!("nodes", "js"),
    asset!("node", "js"),
    asset!("history", "js"),
    asset!("icon", "svg"),
];

impl Asset {
    /// Its path contains a hash: a browser may keep it forever.
    fn path(&self) -> String {
        format!("assets/{}.{}.{}", self.name, hash(self.bytes), self.ending)
    }
}

/// Writes style, scripts and icon. Those of an earlier version stay for a page that is open.
pub fn write_assets(directory: &mut Directory) -> Result<(), WriteError> {
    ASSETS.iter().try_for_each(|asset| directory.put(&asset.path(), asset.bytes))
}

fn path_of(name: &str) -> String {
    ASSETS.iter().find(|asset| asset.name == name).map(Asset::path).unwrap_or_default()
}

/// How the operator can be reached.
pub struct Contact {
    pub text: String,
    pub url: String,
    pub is_link: bool,
}

impl Contact {
    fn of(text: &str) -> Option<Self> {
        let text = text.strip_prefix("mailto:").unwrap_or(text);
        let is_web = text.starts_with("https://") || text.starts_with("http://");
        let is_mail = text.contains('@') && !text.contains([' ', ':', '/']);
        let url = if is_mail { format!("mailto:{text}") } else { text.to_owned() };
        let contact = Self { text: text.to_owned(), url, is_link: is_web || is_mail };
        (!text.is_empty()).then_some(contact)
    }
}

/// The newest finished pass.
pub struct Pass {
    pub number: String,
    pub iso: String,
    pub at: String,
    pub secs: i64,
}

/// What the frame of every page shows.
pub struct Site {
    pub title: String,
    pub style: String,
    pub icon: String,
    pub page_js: String,
    pub nodes_js: String,
    pub node_js: String,
    pub history_js: String,
    pub nav: Vec<(&'static str, &'static str)>,
    pub has_feed: bool,
    pub has_data: bool,
    pub has_places: bool,
    pub attribution: String,
    pub contact: Option<Contact>,
    pub pass: Option<Pass>,
    pub banners: Vec<String>,
}

/// The frame of one page.
pub struct Frame<'a> {
    pub site: &'a Site,
    /// The path from the page to the home page.
    pub root: &'static str,
    /// The page's name in the navigation.
    pub here: &'static str,
    /// Whether it names the pass.
    pub is_dated: bool,
}

/// What pages are made from.
pub struct Context<'a> {
    pub config: &'a Config,
    pub facts: &'a SiteFacts,
    pub site: Site,
    /// TRB and named nodes with a page of their own.
    pub watched: Vec<&'a SiteNode>,
    /// The most common height of nodes up.
    pub tip: Option<i32>,
}

impl<'a> Context<'a> {
    pub fn new(config: &'a Config, facts: &'a SiteFacts) -> Self {
        let has_places = facts.nodes.iter().any(|node| node.facts.country.is_some());
        Self {
            config,
            facts,
            site: Site::new(config, facts, has_places),
            watched: watched(facts),
            tip: tip(facts),
        }
    }

    pub fn frame(&self, root: &'static str, here: &'static str) -> Frame<'_> {
        Frame { site: &self.site, root, here, is_dated: true }
    }

    /// The nodes whose addresses are published.
    pub fn listed(&self) -> Vec<&'a SiteNode> {
        match self.config.site.publish {
            Publish::All => self.facts.nodes.iter().collect(),
            Publish::Trb => {
                let mut listed = self.watched.clone();
                listed.sort_by_key(|node| (node.facts.host, node.facts.port));
                listed
            }
            Publish::Counts => Vec::new(),
        }
    }

    pub fn up(&self) -> impl Iterator<Item = &'a SiteNode> {
        self.facts.nodes.iter().filter(|node| node.facts.status == "up")
    }

    /// The end of the last pass, in seconds since 1970.
    pub fn at(&self) -> i64 {
        self.site.pass.as_ref().map_or(self.facts.at.0.as_secs(), |pass| pass.secs)
    }
}

impl Site {
    fn new(config: &Config, facts: &SiteFacts, has_places: bool) -> Self {
        let publish = config.site.publish;
        let mut nav = vec![("Home", "."), ("Nodes", "nodes/"), ("History", "history/")];
        nav.extend([("Software", "software/"), ("Places", "places/"), ("Events", "events/")]);
        nav.extend([("Data", "data/"), ("About", "about/")]);
        nav.retain(|(name, _)| match *name {
            "Nodes" | "Events" => publish != Publish::Counts,
            "Places" => has_places,
            _ => true,
        });
        Self {
            title: config.site.title.clone(),
            style: path_of("style"),
            icon: path_of("icon"),
            page_js: path_of("page"),
            nodes_js: path_of("nodes"),
            node_js: path_of("node"),
            history_js: path_of("history"),
            nav,
            has_feed: !config.site.url.is_empty() && publish != Publish::Counts,
            has_data: true,
            has_places,
            attribution: attribution(facts),
            contact: Contact::of(&config.network.contact),
            pass: pass(facts),
            banners: banners(facts),
        }
    }
}

/// Where the places come from, as the licences ask for.
fn attribution(facts: &SiteFacts) -> String {
    let text = |source: &PlaceSource| {
        let licence = source.licence.as_ref().map_or(String::new(), |text| format!(", {text}"));
        format!("Places: {} of {}{licence}.", source.name, source.built_at.to_date())
    };
    let mut texts: Vec<String> = facts.place_sources.iter().map(text).collect();
    texts.dedup();
    texts.join(" ")
}

fn pass(facts: &SiteFacts) -> Option<Pass> {
    let pass = facts.passes.first()?;
    let at = pass.finished_at?;
    Some(Pass {
        number: grouped(pass.pass),
        iso: at.to_text(),
        at: minute(at),
        secs: at.0.as_secs(),
    })
}

fn banners(facts: &SiteFacts) -> Vec<String> {
    let mut banners = Vec::new();
    if !facts.nodes.is_empty() && facts.nodes.iter().all(|node| node.facts.host.is_loopback()) {
        banners.push("A simulated network: none of these nodes exists.".to_owned());
    }
    let invented = facts.notes.iter().filter(|(_, text)| text.starts_with(INVENTED));
    for (at, _) in invented {
        let day = day(at.0.as_secs());
        banners.push(format!("The history before {day} is invented."));
    }
    banners
}

/// How a note about an invented past begins: `bitdash_simnet::past::MARK`.
const INVENTED: &str = "Invented: ";

/// TRB nodes first, then named nodes; those that are up, then full, then down.
fn watched(facts: &SiteFacts) -> Vec<&SiteNode> {
    let is_watched = |node: &&SiteNode| node.facts.species == TRB || node.facts.name.is_some();
    let mut nodes: Vec<&SiteNode> = facts.nodes.iter().filter(is_watched).collect();
    if nodes.len() > MAX_WATCHED {
        nodes.sort_by_key(|node| (node.facts.name.is_none(), node.facts.first_seen));
        nodes.truncate(MAX_WATCHED);
    }
    nodes.sort_by(|a, b| {
        let key = |node: &'_ SiteNode| {
            let place = ["up", "full", "down"].iter().position(|word| *word == node.facts.status);
            (node.facts.species != TRB, place, node.facts.name.is_none())
        };
        let place = |node: &SiteNode| (node.facts.host, node.facts.port);
        key(a)
            .cmp(&key(b))
            .then_with(|| a.facts.name.cmp(&b.facts.name))
            .then_with(|| place(a).cmp(&place(b)))
    });
    nodes
}

fn tip(facts: &SiteFacts) -> Option<i32> {
    let mut counts = std::collections::HashMap::<i32, usize>::new();
    let up = facts.nodes.iter().filter(|node| node.facts.status == "up");
    for height in up.filter_map(|node| node.facts.start_height) {
        *counts.entry(height).or_default() += 1;
    }
    counts.into_iter().max_by_key(|(height, count)| (*count, *height)).map(|(height, _)| height)
}

#[derive(Template)]
#[template(path = "site/about.html")]
struct About<'a> {
    f: Frame<'a>,
    interval: String,
    user_agent: String,
    outcomes: Vec<(&'static str, String)>,
    has_lookup: bool,
    queries: &'a [(&'a str, &'a str)],
    version: &'a str,
}

const QUERIES: &[(&str, &str)] = &[
    ("nodes up", "SELECT count(*) FROM nodes WHERE status = 'up'"),
    (
        "by species",
        "SELECT species, count(*) FROM nodes WHERE status = 'up' GROUP BY 1 ORDER BY 2 DESC",
    ),
    (
        "by version",
        "SELECT release, count(*) FROM nodes WHERE status = 'up' GROUP BY 1 ORDER BY 2 DESC",
    ),
    (
        "by user agent",
        "SELECT user_agent, count(*) FROM nodes WHERE status = 'up' GROUP BY 1 ORDER BY 2 DESC",
    ),
    (
        "change in a day",
        "SELECT at, nodes FROM history_of('species', 'TRB', 'pass') ORDER BY at DESC LIMIT 49",
    ),
    (
        "TRB over the years",
        "SELECT at, nodes, lowest, highest FROM history_of('species', 'TRB', 'day')",
    ),
    (
        "all nodes over the years",
        "SELECT at, nodes, lowest, highest FROM history_of('status', 'up', 'day')",
    ),
    ("how often a node answers", "SELECT * FROM uptime('203.0.113.7', 8333)"),
    ("its last results", "SELECT * FROM probes WHERE host = '203.0.113.7' ORDER BY pass DESC"),
    (
        "at the tip",
        "SELECT count(*) FROM nodes WHERE status = 'up' AND abs(start_height::bigint - \
         (SELECT mode() WITHIN GROUP (ORDER BY start_height DESC) FROM nodes WHERE status = 'up')) <= 2",
    ),
    (
        "new since yesterday",
        "SELECT count(*) FROM nodes WHERE status = 'up' AND first_seen > \
         (SELECT max(finished_at) FROM passes) - interval '1 day'",
    ),
    ("return peers", "SELECT count(*) FROM nodes WHERE status = 'up' AND peers_sent > 0"),
    (
        "median answer",
        "SELECT percentile_disc(0.5) WITHIN GROUP (ORDER BY version_ms) FROM nodes WHERE status = 'up'",
    ),
    ("events", "SELECT * FROM events ORDER BY id DESC LIMIT 500"),
];

/// The page about the figures. It names no pass, so that it changes only when it must.
pub fn about(context: &Context) -> String {
    let config = context.config;
    let waited = config.crawl.connect_timeout;
    let text = |outcome: Outcome| match outcome {
        Outcome::HandshakeTimeout => outcome.explanation(config.crawl.handshake_timeout),
        _ => outcome.explanation(waited),
    };
    let page = About {
        f: Frame { is_dated: false, ..context.frame("../", "About") },
        interval: interval(config.crawl.pass_interval),
        user_agent: config.sent_user_agent(),
        outcomes: Outcome::ALL.map(|outcome| (outcome.as_str(), text(outcome))).to_vec(),
        has_lookup: config.site.publish == Publish::All,
        queries: QUERIES,
        version: env!("BITDASH_VERSION").split(' ').next().unwrap_or_default(),
    };
    rendered(&page)
}

/// A page as text.
pub fn rendered(page: &impl Template) -> String {
    page.render().expect("templates write into memory")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_contact_is_a_link_if_it_is_an_address() {
        let shown = |text| Contact::of(text).map(|contact| (contact.text, contact.url));
        let mail = Some(("a@example.org".to_owned(), "mailto:a@example.org".to_owned()));
        assert_eq!((shown("a@example.org"), shown("mailto:a@example.org")), (mail.clone(), mail));
        assert!(Contact::of("https://example.org/").unwrap().is_link);
        assert!(!Contact::of("ask in #bitdash").unwrap().is_link);
        assert!(Contact::of("").is_none());
    }
}
