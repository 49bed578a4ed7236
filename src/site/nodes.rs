//! Pages of nodes: the table, TRB and named nodes, and lists by species.

use askama::Template;

use crate::commands::explain::{Standing, advice, listing, next_pass};
use crate::config::Publish;
use crate::db::reader::{NodeFacts, ProbeLine, Reader};
use crate::db::site::{STRIP_DAYS, SiteNode, WatchedFacts};
use crate::db::timestamp::Timestamp;
use crate::site::SiteError;
use crate::site::events::{Event, shown};
use crate::site::frame::{Context, Frame, rendered};
use crate::site::svg::strip;
use crate::site::text::{count, day, grouped, minute};
use crate::site::writer::{Directory, WriteError};
use bitdash_core::lookup::services;
use bitdash_core::lookup::species::TRB;

const DAY: i64 = 86_400;
const WEEK: i64 = 7 * DAY;
/// What stands for a whole day in the rolls.
const WHOLE: u16 = 250;
/// Number of days in the strip of a list.
const LIST_DAYS: usize = 30;
/// Maximum number of nodes of a species that is listed without a script.
const MAX_LISTED: usize = 2_000;
/// Maximum number of events on the page of a node.
const MAX_EVENTS: usize = 10;
/// Rows of a page of such a list.
const PAGE_ROWS: usize = 500;

/// HOST:PORT
pub fn address(node: &NodeFacts) -> String {
    format!("{}:{}", node.host, node.port)
}

/// The name of a node's page.
pub fn slug(address: &str) -> String {
    address.replace(':', "-")
}

/// A row of a list of TRB and named nodes.
pub struct WatchedRow {
    pub name: String,
    pub address: String,
    pub slug: String,
    pub status: String,
    pub agent: String,
    pub height: String,
    pub since: String,
    pub strip: String,
    pub uptime: String,
}

/// A row of a list of TRB and named nodes.
pub fn watched_row(context: &Context, node: &SiteNode) -> WatchedRow {
    let facts = &node.facts;
    let cells = days(context, node);
    WatchedRow {
        name: facts.name.clone().unwrap_or_default(),
        address: address(facts),
        slug: slug(&address(facts)),
        status: facts.status.clone(),
        agent: agent(facts),
        height: height(facts.start_height),
        since: since(context, node),
        strip: strip(&cells[STRIP_DAYS - LIST_DAYS..], "days"),
        uptime: share(context, node, 2)
            .map_or("–".to_owned(), |share| format!("{share}\u{202f}%")),
    }
}

/// A height, and a dash for none. Only hostile nodes say one below zero.
fn height(height: Option<i32>) -> String {
    let height = height.filter(|height| *height >= 0);
    height.map_or("–".to_owned(), |height| grouped(height.into()))
}

fn said_height(height: i32) -> String {
    let text = grouped(height.into());
    if height < 0 { format!("{text}, which is no height") } else { text }
}

/// The day since which it has answered, or that of its last answer.
fn since(context: &Context, node: &SiteNode) -> String {
    let last = || format!("last {}", day(node.facts.last_seen.0.as_secs()));
    run_start(context, node).map_or_else(last, |run| day(run.0.as_secs()))
}

/// Its user agent, or a word for none.
fn agent(facts: &NodeFacts) -> String {
    match facts.user_agent.as_deref() {
        None => "not sent".to_owned(),
        Some("") => "(empty)".to_owned(),
        Some(agent) => agent.to_owned(),
    }
}

/// Its share of the passes of a period in whole per cent, rounded down: only what always answered
/// has 100.
pub fn share(context: &Context, node: &SiteNode, period: usize) -> Option<u32> {
    let (answered, passes) = passes(context, node, period)?;
    (100 * answered).checked_div(passes)
}

fn passes(context: &Context, node: &SiteNode, period: usize) -> Option<(u32, u32)> {
    context.facts.uptime[period].get(node.ordinal?).copied()
}

fn percent(share: u8) -> Option<u8> {
    let share = u16::from(share);
    (share <= WHOLE).then(|| u8::try_from(share * 100 / WHOLE).unwrap_or(100))
}

/// Its share of each of the last [`STRIP_DAYS`] days in per cent, the oldest first.
pub fn days(context: &Context, node: &SiteNode) -> Vec<Option<u8>> {
    let mut cells = vec![None; STRIP_DAYS];
    let newest = newest_day(context);
    for day in &context.facts.days {
        let age = usize::try_from((newest - day.at) / DAY).unwrap_or(usize::MAX);
        let share = node.ordinal.and_then(|ordinal| day.shares.get(ordinal).copied());
        if let (Some(place), Some(share)) = ((STRIP_DAYS - 1).checked_sub(age), share) {
            cells[place] = percent(share);
        }
    }
    cells
}

/// The beginning of the newest day of the strips; today before the first pass has ended.
pub fn newest_day(context: &Context) -> i64 {
    let today = || context.at().div_euclid(DAY) * DAY;
    context.facts.days.last().map_or_else(today, |day| day.at)
}

/// Its weeks since it is known, with the beginning of the last one, if they are more than the strip
/// of days shows.
fn weeks(facts: &WatchedFacts) -> Option<(Vec<Option<u8>>, i64)> {
    let ((first, _), (last, _)) = (facts.days.first()?, facts.days.last()?);
    let number = usize::try_from((last - first) / WEEK + 1).unwrap_or(0);
    if number * 7 <= STRIP_DAYS {
        return None;
    }
    let mut sums = vec![(0_u32, 0_u32); number];
    for (at, share) in &facts.days {
        let week = usize::try_from((at - first) / WEEK).unwrap_or(0);
        if let Some((sum, days)) = sums.get_mut(week) {
            (*sum, *days) = (*sum + u32::from(*share), *days + 1);
        }
    }
    let cell = |(sum, days): &(u32, u32)| {
        let mean = sum.checked_div(*days)?;
        percent(u8::try_from(mean).unwrap_or(u8::MAX))
    };
    let last_week = first + (last - first) / WEEK * WEEK;
    Some((sums.iter().map(cell).collect(), last_week))
}

struct ListedSpecies {
    name: String,
    count: String,
}

#[derive(Template)]
#[template(path = "site/nodes.html")]
struct Index<'a> {
    f: Frame<'a>,
    is_whole: bool,
    species: Vec<ListedSpecies>,
    watched: Vec<WatchedRow>,
}

/// The page of the table. Without a script it lists TRB and named nodes.
pub fn index(context: &Context) -> String {
    let rows = context.watched.iter().map(|node| watched_row(context, node));
    let is_whole = context.config.site.publish == Publish::All;
    let species = by_species(context)
        .into_iter()
        .map(|(name, nodes)| ListedSpecies { name: name.to_owned(), count: count(nodes.len()) });
    rendered(&Index {
        f: context.frame("../", "Nodes"),
        is_whole,
        species: if is_whole { species.collect() } else { Vec::new() },
        watched: rows.collect(),
    })
}

/// The species that are listed without a script: TRB first, then those with most nodes.
fn by_species<'a>(context: &Context<'a>) -> Vec<(&'a str, Vec<&'a SiteNode>)> {
    let mut all = std::collections::BTreeMap::<&str, Vec<&SiteNode>>::new();
    for node in &context.facts.nodes {
        all.entry(&node.facts.species).or_default().push(node);
    }
    // The name becomes a part of a path.
    let is_plain = |name: &str| name.chars().all(|c| c.is_ascii_alphanumeric() || c == '_');
    let mut listed: Vec<_> = all
        .into_iter()
        .filter(|(name, nodes)| is_plain(name) && nodes.len() <= MAX_LISTED)
        .collect();
    listed.sort_by_key(|(name, nodes)| (*name != TRB, std::cmp::Reverse(nodes.len())));
    listed
}

struct ListedRow {
    name: String,
    address: String,
    slug: String,
    has_page: bool,
    status: String,
    agent: String,
    height: String,
    uptime: String,
    last_seen: String,
    outcome: String,
}

#[derive(Template)]
#[template(path = "site/species.html")]
struct SpeciesPage<'a> {
    f: Frame<'a>,
    species: &'a str,
    count: String,
    up: String,
    page: usize,
    pages: usize,
    rows: Vec<ListedRow>,
}

/// Writes the lists by species.
pub fn write_species(context: &Context, directory: &mut Directory) -> Result<(), WriteError> {
    for (species, mut nodes) in by_species(context) {
        let place = |node: &SiteNode| {
            ["up", "full", "down"].iter().position(|word| *word == node.facts.status)
        };
        nodes.sort_by_key(|node| (place(node), node.facts.host, node.facts.port));
        let up = nodes.iter().filter(|node| node.facts.status == "up").count();
        let pages = nodes.len().div_ceil(PAGE_ROWS);
        for (index, rows) in nodes.chunks(PAGE_ROWS).enumerate() {
            let page = SpeciesPage {
                f: context.frame("../../../", "Nodes"),
                species,
                count: count(nodes.len()),
                up: count(up),
                page: index + 1,
                pages,
                rows: rows.iter().map(|node| listed_row(context, node)).collect(),
            };
            let name = if index == 0 { "index".to_owned() } else { (index + 1).to_string() };
            let path = format!("nodes/species/{species}/{name}.html");
            directory.put(&path, rendered(&page).as_bytes())?;
        }
    }
    Ok(())
}

fn listed_row(context: &Context, node: &SiteNode) -> ListedRow {
    let row = watched_row(context, node);
    ListedRow {
        has_page: has_page(context, node),
        last_seen: minute(node.facts.last_seen),
        outcome: node.facts.last_outcome.clone(),
        name: row.name,
        address: row.address,
        slug: row.slug,
        status: row.status,
        agent: row.agent,
        height: row.height,
        uptime: row.uptime,
    }
}

/// Whether a node has a page of its own.
pub fn has_page(context: &Context, node: &SiteNode) -> bool {
    let is_watched = node.facts.species == TRB || node.facts.name.is_some();
    is_watched && context.watched.iter().any(|watched| std::ptr::eq(*watched, node))
}

struct ResultRow {
    at: String,
    outcome: String,
    connect: String,
    version: String,
    height: String,
    peers: String,
}

/// A strip with its times.
struct Strip {
    svg: String,
    number: usize,
    step: i64,
    /// The beginning of its last day or week.
    last: i64,
    /// The first, middle and last day or week.
    marks: [String; 3],
}

impl Strip {
    fn of(cells: &[Option<u8>], last: i64, step: i64) -> Self {
        let number = cells.len();
        let at = |ago: usize| last - step * i64::try_from(ago).unwrap_or(0);
        Self {
            svg: strip(cells, if step == DAY { "days" } else { "weeks" }),
            number,
            step,
            last,
            marks: [number - 1, number / 2, 0].map(|ago| day(at(ago))),
        }
    }
}

#[derive(Template)]
#[template(path = "site/node.html")]
struct NodePage<'a> {
    f: Frame<'a>,
    n: WatchedRow,
    why: String,
    advice: &'a str,
    days: Strip,
    weeks: Option<Strip>,
    facts: Vec<(&'static str, String)>,
    uptime: Vec<(&'static str, String)>,
    events: Vec<Event>,
    results: Vec<ResultRow>,
}

/// Writes a page for each TRB and named node.
pub fn write_pages(
    reader: &mut Reader,
    context: &Context,
    directory: &mut Directory,
) -> Result<(), SiteError> {
    let all = reader.watched(&context.watched)?;
    for (node, facts) in context.watched.iter().zip(&all) {
        let weeks = weeks(facts);
        let weeks = weeks.map(|(cells, last)| Strip::of(&cells, last, WEEK));
        let (why, advice) = sentences(context, &node.facts);
        let page = NodePage {
            f: context.frame("../", "Nodes"),
            n: watched_row(context, node),
            why,
            advice,
            days: Strip::of(&days(context, node), newest_day(context), DAY),
            weeks,
            facts: claims(&node.facts),
            uptime: uptime(context, node),
            events: events(context, &node.facts),
            results: facts.results.iter().map(result_row).collect(),
        };
        let path = format!("node/{}.html", page.n.slug);
        directory.put(&path, rendered(&page).as_bytes())?;
    }
    Ok(())
}

/// The newest events of a node.
fn events(context: &Context, node: &NodeFacts) -> Vec<Event> {
    let events = context.facts.events.iter();
    let own = events.filter(|event| event.address == Some((node.host, node.port)));
    own.take(MAX_EVENTS).map(|event| shown(context, event)).collect()
}

/// Why a node is or is not listed as up and when it is tried next; what its owner can do.
pub fn sentences(context: &Context, node: &NodeFacts) -> (String, &'static str) {
    let when = |at: Timestamp| format!("on {} UTC", minute(at));
    let standing = Standing::from(node);
    let why = listing(context.config, standing, &when);
    // Its pass may still be running.
    let next = next_pass(context.config, context.facts.at, standing, &|at| minute(at) + " UTC");
    let advice = if node.status == "up" { None } else { advice(standing) };
    (format!("{why} {next}"), advice.unwrap_or_default())
}

/// What a node says of itself.
pub fn claims(node: &NodeFacts) -> Vec<(&'static str, String)> {
    let not_sent = || "not sent".to_owned();
    let names = services::names(node.services.cast_unsigned());
    let services = if names.is_empty() { "none".to_owned() } else { names.join(" ") };
    let relay = |relay| if relay { "yes" } else { "no" }.to_owned();
    let mut rows = vec![
        ("User agent", agent(node)),
        ("Species", node.species.clone()),
        ("Version", node.release.clone().unwrap_or_else(|| "not recognised".to_owned())),
        ("Protocol version", node.protocol_version.to_string()),
        ("Services", services),
        ("Height", node.start_height.map_or_else(not_sent, said_height)),
        ("Relay", node.relay.map_or_else(not_sent, relay)),
    ];
    if let Some(country) = &node.country {
        rows.push(("Country", crate::site::shares::country(country)));
    }
    if let Some(asn) = node.asn {
        rows.push(("Network", format!("AS{asn} {}", node.as_name.as_deref().unwrap_or(""))));
    }
    let peers = match (node.peers_asked_at, node.peers_sent) {
        (Some(at), Some(sent)) => format!("{} on {} UTC", grouped(sent.into()), minute(at)),
        _ => "no complete reply yet".to_owned(),
    };
    rows.push(("Peers sent", peers));
    rows.push(("First answer", minute(node.first_seen) + " UTC"));
    rows.push(("Last answer", minute(node.last_seen) + " UTC"));
    rows
}

/// Since when a node has answered or was full in every pass; `None` if it is down.
fn run_start(context: &Context, node: &SiteNode) -> Option<Timestamp> {
    // It may have gone down since the last pass ended.
    let is_down = node.facts.status == "down";
    let run = context.facts.runs.get(node.ordinal?).copied().flatten().filter(|_| !is_down)?;
    // By days, a run seems to begin with the day on which the node was first seen.
    Some(run.max(node.facts.first_seen))
}

/// In how many passes a node answered or was full.
pub fn uptime(context: &Context, node: &SiteNode) -> Vec<(&'static str, String)> {
    let names = ["Last day", "Last week", "Last 30 days", "Since it is known"];
    let mut rows = Vec::new();
    for (period, name) in names.into_iter().enumerate() {
        let Some((answered, passes)) = passes(context, node, period).filter(|of| of.1 > 0) else {
            continue;
        };
        let share = 1_000 * u64::from(answered) / u64::from(passes);
        let (answered, passes) = (grouped(answered.into()), grouped(passes.into()));
        let text = format!("{}.{}\u{202f}%, {answered} of {passes} passes", share / 10, share % 10);
        rows.push((name, text));
    }
    if let Some(since) = run_start(context, node) {
        rows.push(("Up since", minute(since) + " UTC"));
    }
    rows
}

fn result_row(line: &ProbeLine) -> ResultRow {
    let ms = |ms: Option<i32>| ms.map_or("–".to_owned(), |ms| format!("{ms} ms"));
    ResultRow {
        at: minute(line.probed_at),
        outcome: line.outcome.clone(),
        connect: ms(line.connect_ms),
        version: ms(line.version_ms),
        height: height(line.start_height),
        peers: line.peers_sent.map_or(String::new(), |sent| grouped(sent.into())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weeks_are_the_mean_of_their_days_and_need_a_long_history() {
        let days = |number: i64, share| (0..number).map(|day| (day * DAY, share)).collect();
        let short = WatchedFacts { results: Vec::new(), days: days(80, 250) };
        assert_eq!(weeks(&short), None);
        let mut long = WatchedFacts { results: Vec::new(), days: days(100, 250) };
        long.days.retain(|(at, _)| !(14 * DAY..21 * DAY).contains(at));
        long.days[0].1 = 0;
        let (cells, last) = weeks(&long).unwrap();
        assert_eq!(cells[..4], [Some(85), Some(100), None, Some(100)]);
        assert_eq!((cells.len(), last), (15, 14 * WEEK));
    }
}
