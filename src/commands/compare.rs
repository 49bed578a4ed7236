//! `bitdash compare`: holds a list from elsewhere against the map, and explains each difference.
//!
//! Memory is a few bytes per address of the list; the map is streamed.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::hash::{DefaultHasher, Hash, Hasher};
use std::io::Read;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueEnum;
use serde_json::{Value, json};

use crate::commands::import::{
    Skipped, check, counts, figure, hanging, name_of, number, open, told,
};
use crate::commands::screen::Screen;
use crate::commands::table::{safe_json, span};
use crate::commands::{Failure, print, print_on};
use crate::config::ConfigSource;
use crate::db::compare::{Comparison, OurMap, OurNode};
use crate::db::reader::Reader;
use crate::db::timestamp::Timestamp;
use crate::snapshot::{self, Entry, Summary};
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::time::UnixTime;

/// The arguments.
#[derive(Clone, PartialEq, Eq, Debug, clap::Args)]
pub struct Options {
    /// A snapshot of Bitnodes, CSV, a dump of bitcoin-seeder or a plain list, also compressed with
    /// gzip; - is standard input
    #[arg(value_name = "FILE")]
    pub file: PathBuf,
    /// Print the addresses of one category, one a line
    #[arg(long, value_name = "CATEGORY", value_enum)]
    pub list: Option<Category>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// What an address is in a comparison.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug, ValueEnum)]
pub enum Category {
    /// In the list, and up here
    Both,
    /// Of these, with another user agent
    Agent,
    /// Of these, with a height that differs by more than 2
    Height,
    /// In the list, and not up here
    OnlyTheirs,
    /// Of these, full here
    Full,
    /// Down here
    Down,
    /// Heard of, and never answered
    Candidate,
    /// Known with other ports only
    OtherPort,
    /// Excluded by the filter
    Excluded,
    /// Never heard of
    Unheard,
    /// Up here, and not in the list
    OnlyOurs,
}

/// Maximum difference between two heights that are called equal.
const MAX_HEIGHT_DIFFERENCE: u32 = 2;
/// What crawlers of the public network ask for at least: older nodes are in no other list.
const MIN_VERSION: i32 = 70_001;
/// No hash of a user agent.
const UNKNOWN_AGENT: u32 = 2;
/// Maximum number of excluding ranges that are shown.
const MAX_RANGES: usize = 3;

/// What is known of an address of the list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Theirs {
    /// A hash of the user agent; [`UNKNOWN_AGENT`] where the list has none.
    agent: u32,
    /// `i32::MIN` for none.
    height: i32,
    /// Never one of the sums, and none of those of `Both`.
    category: Category,
    differs_in_agent: bool,
    differs_in_height: bool,
}

impl Theirs {
    fn is(&self, category: Category) -> bool {
        let is_both = self.category == Category::Both;
        match category {
            Category::Agent => is_both && self.differs_in_agent,
            Category::Height => is_both && self.differs_in_height,
            Category::OnlyTheirs => !is_both,
            category => self.category == category,
        }
    }
}

/// Nodes up that are not in the list, by the first reason that applies.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct OnlyOurs {
    old: u64,
    old_trb: u64,
    other_port: u64,
    later: u64,
    others: u64,
}

/// A comparison in the making.
struct Comparing<'a> {
    theirs: BTreeMap<Address, Theirs>,
    at: Option<UnixTime>,
    network_port: u16,
    map: Option<OurMap>,
    up: u64,
    full: u64,
    only_ours: OnlyOurs,
    /// Outcomes of the nodes of the list that are down, and when they last answered.
    down: BTreeMap<String, u64>,
    answered: Option<(Timestamp, Timestamp)>,
    candidates: BTreeMap<String, u64>,
    /// Takes the addresses of `OnlyOurs`.
    list: &'a mut dyn FnMut(Address),
}

/// Compares a file with the database.
///
/// # Errors
/// The configuration is invalid, the file or the database cannot be read, or a part of the file is
/// unreadable.
pub fn run(source: &ConfigSource, options: &Options, screen: &Screen) -> Result<(), Failure> {
    let config = source.load()?;
    let filter = config.load_filter()?;
    let name = name_of(&options.file);
    let max = usize::try_from(config.crawl.max_addresses).unwrap_or(usize::MAX);
    let port = config.network.port;
    let list = read(open(&options.file)?, port, &filter, max);
    let (mut summary, theirs, skipped) =
        list.map_err(|fault| Failure::Failed(format!("{name}: {}", told(&fault))))?;
    summary.at = time_of(&options.file).or(summary.at);
    let reader = Reader::open(config.database.url.expose());
    let of_store = |error| Failure::of_store(&error, source, &config);
    let mut reader = reader.map_err(of_store)?;
    let mut printer = Printer::new(options.list, options.json);
    let mut list = |address| printer.add(address, Category::OnlyOurs);
    let mut comparing = Comparing::new(theirs, summary.at, port, &mut list);
    reader.compare(&mut comparing).map_err(of_store)?;
    let figures = comparing.finish(&filter);
    match options.list {
        Some(category) => {
            for (address, theirs) in &figures.theirs {
                if theirs.is(category) {
                    printer.add(*address, category);
                }
            }
            printer.finish()?;
        }
        None if options.json => {
            let json = figures.to_json(&name, &summary, &skipped);
            let json = serde_json::to_string_pretty(&json).expect("all keys are strings");
            print(&(safe_json(&json) + "\n"))?;
        }
        None => print(&figures.to_text(&name, &summary, &skipped, port, screen))?,
    }
    check(&name, &summary)
}

type List = (Summary, BTreeMap<Address, Theirs>, Skipped);

/// The addresses of a list, at most `max`.
fn read(
    input: impl Read,
    default_port: u16,
    filter: &Filter,
    max: usize,
) -> Result<List, snapshot::Fault> {
    let mut all = BTreeMap::new();
    let mut skipped = Skipped::default();
    let summary = snapshot::read(input, default_port, &mut |entry| {
        let address = entry.address;
        let is_excluded = filter.check_named(address).is_err();
        if !is_excluded && !filter.admits(address) {
            skipped.reserved += 1;
        } else if all.contains_key(&address) {
            skipped.doubles += 1;
        } else if all.len() == max {
            skipped.surplus += 1;
        } else {
            let category = if is_excluded { Category::Excluded } else { Category::Unheard };
            all.insert(address, theirs(&entry, category));
        }
    })?;
    skipped.list = summary.left_out;
    Ok((summary, all, skipped))
}

fn theirs(entry: &Entry<'_>, category: Category) -> Theirs {
    Theirs {
        agent: entry.agent.map_or(UNKNOWN_AGENT, |agent| agent_hash(Some(agent))),
        height: entry.height.unwrap_or(i32::MIN),
        category,
        differs_in_agent: false,
        differs_in_height: false,
    }
}

/// Alike for the bytes of a user agent and for its stored text, with spaces around it or without:
/// lists pad their cells. 0 for none or an empty one.
fn agent_hash(agent: Option<&str>) -> u32 {
    let Some(agent) = agent.map(|agent| agent.trim_matches(' ')).filter(|agent| !agent.is_empty())
    else {
        return 0;
    };
    let mut text = String::with_capacity(agent.len());
    for byte in agent.replace("\\\\", "\\").bytes() {
        match byte {
            b' '..=b'~' => text.push(char::from(byte)),
            _ => drop(write!(text, "\\x{byte:02x}")),
        }
    }
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    hasher.finish() as u32 | 1
}

/// The time that Bitnodes names its snapshots by.
fn time_of(file: &Path) -> Option<UnixTime> {
    let name = file.file_name()?.to_str()?;
    let digits = name.split('.').next().filter(|digits| digits.len() == 10)?;
    digits.parse().ok().map(UnixTime::from_secs)
}

impl<'a> Comparing<'a> {
    fn new(
        theirs: BTreeMap<Address, Theirs>,
        at: Option<UnixTime>,
        network_port: u16,
        list: &'a mut dyn FnMut(Address),
    ) -> Self {
        Self {
            theirs,
            at,
            network_port,
            map: None,
            up: 0,
            full: 0,
            only_ours: OnlyOurs::default(),
            down: BTreeMap::new(),
            answered: None,
            candidates: BTreeMap::new(),
            list,
        }
    }

    /// An address of the host is known: this explains those with other ports.
    fn explain_host(&mut self, known: Address) {
        let [first, last] = [0, u16::MAX].map(|port| Address::new(known.ip(), port));
        for theirs in self.theirs.range_mut(first..=last).map(|(_, theirs)| theirs) {
            if theirs.category == Category::Unheard {
                theirs.category = Category::OtherPort;
            }
        }
    }

    fn only_ours(&mut self, node: &OurNode) {
        let counts = &mut self.only_ours;
        if node.protocol_version < MIN_VERSION {
            counts.old += 1;
            counts.old_trb += u64::from(node.species == "TRB");
        } else if node.address.port() != self.network_port {
            counts.other_port += 1;
        } else if self.at.is_some_and(|at| node.first_seen.0 > at) {
            counts.later += 1;
        } else {
            counts.others += 1;
        }
        (self.list)(node.address);
    }

    fn finish(self, filter: &Filter) -> Figures {
        let mut ranges = BTreeMap::new();
        let mut by_category = BTreeMap::new();
        for (address, theirs) in &self.theirs {
            *by_category.entry(theirs.category).or_insert(0_u64) += 1;
            if theirs.is(Category::Excluded) {
                *ranges.entry(filter.excluding_range(address.ip())).or_insert(0_u64) += 1;
            }
        }
        let count =
            |category| self.theirs.values().filter(|theirs| theirs.is(category)).count() as u64;
        Figures {
            agent_differs: count(Category::Agent),
            height_differs: count(Category::Height),
            by_category,
            ranges,
            map: self.map.expect("the map comes first"),
            up: self.up,
            full: self.full,
            only_ours: self.only_ours,
            down: sorted(self.down),
            answered: self.answered,
            candidates: sorted(self.candidates),
            theirs: self.theirs,
        }
    }
}

/// The most common first.
fn sorted(counts: BTreeMap<String, u64>) -> Vec<(String, u64)> {
    let mut counts: Vec<_> = counts.into_iter().collect();
    counts.sort_by_key(|(_, count)| std::cmp::Reverse(*count));
    counts
}

impl Comparison for Comparing<'_> {
    fn map(&mut self, map: OurMap) {
        self.map = Some(map);
    }

    fn node(&mut self, node: &OurNode) {
        let is_up = node.status == "up";
        self.up += u64::from(is_up);
        self.full += u64::from(node.status == "full");
        self.explain_host(node.address);
        let Some(theirs) = self.theirs.get_mut(&node.address) else {
            if is_up {
                self.only_ours(node);
            }
            return;
        };
        match node.status {
            "up" => {
                theirs.category = Category::Both;
                let agent = agent_hash(node.user_agent);
                theirs.differs_in_agent = ![agent, UNKNOWN_AGENT].contains(&theirs.agent);
                let height = node.start_height.filter(|_| theirs.height != i32::MIN);
                theirs.differs_in_height = height
                    .is_some_and(|height| height.abs_diff(theirs.height) > MAX_HEIGHT_DIFFERENCE);
            }
            _ if theirs.category == Category::Excluded => {}
            "full" => theirs.category = Category::Full,
            _ => {
                theirs.category = Category::Down;
                *self.down.entry(node.last_outcome.to_owned()).or_default() += 1;
                let (oldest, newest) = self.answered.unwrap_or((node.last_seen, node.last_seen));
                self.answered = Some((oldest.min(node.last_seen), newest.max(node.last_seen)));
            }
        }
    }

    fn hosts(&mut self) -> Vec<i64> {
        let open =
            |theirs: &Theirs| matches!(theirs.category, Category::Unheard | Category::OtherPort);
        let open = self.theirs.iter().filter(|(_, theirs)| open(theirs));
        let mut hosts: Vec<i64> =
            open.map(|(address, _)| i64::from(u32::from(address.ip()))).collect();
        hosts.dedup();
        hosts
    }

    fn address(&mut self, address: Address, last_outcome: Option<&str>) {
        self.explain_host(address);
        if let Some(theirs) = self.theirs.get_mut(&address)
            && theirs.category == Category::OtherPort
        {
            theirs.category = Category::Candidate;
            let outcome = last_outcome.unwrap_or("not probed yet").to_owned();
            *self.candidates.entry(outcome).or_default() += 1;
        }
    }
}

/// The result of a comparison.
struct Figures {
    theirs: BTreeMap<Address, Theirs>,
    by_category: BTreeMap<Category, u64>,
    agent_differs: u64,
    height_differs: u64,
    map: OurMap,
    up: u64,
    full: u64,
    down: Vec<(String, u64)>,
    answered: Option<(Timestamp, Timestamp)>,
    candidates: Vec<(String, u64)>,
    /// What excludes how many; `None` for `filter.only`.
    ranges: BTreeMap<Option<(Ipv4Addr, Ipv4Addr)>, u64>,
    only_ours: OnlyOurs,
}

impl Figures {
    fn count(&self, category: Category) -> u64 {
        self.by_category.get(&category).copied().unwrap_or(0)
    }

    fn only_theirs(&self) -> u64 {
        self.theirs.len() as u64 - self.count(Category::Both)
    }

    fn to_text(
        &self,
        name: &str,
        summary: &Summary,
        skipped: &Skipped,
        network_port: u16,
        screen: &Screen,
    ) -> String {
        let compared = self.theirs.len() as u64;
        let time = summary.at.map_or("time unknown".to_owned(), |at| minute(Timestamp(at)));
        let name = name.rsplit('/').next().unwrap_or(name);
        let theirs = format!(
            "{} {name}, {time}: {} nodes, {} of them IPv4",
            summary.format.as_str(),
            number(summary.entries),
            number(compared)
        );
        let pass = match self.map.pass {
            Some((pass, at)) => format!("pass {}, {}", number(pass.unsigned_abs()), minute(at)),
            None => "no pass has finished yet".to_owned(),
        };
        let apart =
            self.apart(summary).map_or(String::new(), |apart| format!(".   {}", distance(apart)));
        let ours = format!("{pass}: {} up, {} full{apart}", number(self.up), number(self.full));
        let mut text = hanging("theirs", 8, &theirs, screen) + &hanging("ours", 8, &ours, screen);
        let mut line = |title: &str, count: u64, note: &str| {
            text += &figure(title, 33, count, note, screen);
        };
        let both = self.count(Category::Both);
        line("both", both, &self.both_note(compared));
        line("only theirs", self.only_theirs(), if self.only_theirs() > 0 { "why:" } else { "" });
        for (title, category, note) in self.why_theirs() {
            if self.count(category) > 0 {
                line(&format!("  {title}"), self.count(category), &note);
            }
        }
        line("only ours", self.up - both, &self.why_ours(network_port));
        let (kinds, sum) = skipped.kinds();
        line("not compared", sum, &counts(kinds));
        text
    }

    fn both_note(&self, compared: u64) -> String {
        // Rounded down: only a list of which all nodes are up shows 100 %.
        let permille = (1_000 * self.count(Category::Both)).checked_div(compared).unwrap_or(0);
        let mut note = format!("{}.{} % of theirs", permille / 10, permille % 10);
        let differ = [
            ("agent differs", self.agent_differs),
            ("height differs by > 2:", self.height_differs),
        ];
        let differ: Vec<_> = differ.into_iter().filter(|(_, count)| *count > 0).collect();
        if !differ.is_empty() {
            note += &format!("   {}", counts(differ));
        }
        note
    }

    fn why_theirs(&self) -> [(&'static str, Category, String); 6] {
        let at = self.map.at;
        let age = |time: Timestamp| unit(at.0.since(time.0));
        let answered = self.answered.map_or(String::new(), |(oldest, newest)| {
            format!(" (last answered {} ago)", between(&age(newest), &age(oldest)))
        });
        let down = counts(self.down.iter().map(|(word, count)| (word, *count))) + &answered;
        let candidate = counts(self.candidates.iter().map(|(word, count)| (word, *count)));
        let full = "accepted and closed; answered within 7 days".to_owned();
        let unheard = "none of our nodes named them".to_owned();
        [
            ("full here", Category::Full, full),
            ("down here", Category::Down, down),
            ("candidate, never answered", Category::Candidate, candidate),
            ("other port of a known host", Category::OtherPort, String::new()),
            ("excluded by our filter", Category::Excluded, self.excluding().join(", ")),
            ("never heard of", Category::Unheard, unheard),
        ]
    }

    /// What excludes addresses of the list, the most of them first.
    fn excluding(&self) -> Vec<String> {
        let mut ranges: Vec<_> = self.ranges.iter().collect();
        ranges.sort_by_key(|(_, count)| std::cmp::Reverse(**count));
        let mut texts: Vec<String> =
            ranges.iter().take(MAX_RANGES).map(|(range, _)| range_text(**range)).collect();
        let others = ranges.len().saturating_sub(MAX_RANGES);
        if others > 0 {
            texts.push(format!("and {others} more"));
        }
        texts
    }

    fn why_ours(&self, network_port: u16) -> String {
        let OnlyOurs { old, old_trb, other_port, later, others } = self.only_ours;
        let mut reasons = Vec::new();
        let mut reason = |count: u64, text: String| {
            if count > 0 {
                reasons.push(text);
            }
        };
        let trb = if old_trb > 0 { format!(" (TRB {})", number(old_trb)) } else { String::new() };
        reason(old, format!("version < {MIN_VERSION} {}{trb}", number(old)));
        reason(other_port, format!("not {network_port} {}", number(other_port)));
        reason(later, format!("first answered after their time {}", number(later)));
        reason(others, format!("else {}", number(others)));
        if reasons.is_empty() { String::new() } else { format!("why: {}", reasons.join("; ")) }
    }

    /// Time between the two.
    fn apart(&self, summary: &Summary) -> Option<Duration> {
        let (ours, theirs) = (self.map.pass?.1.0, summary.at?);
        Some(ours.max(theirs).since(ours.min(theirs)))
    }

    fn to_json(&self, name: &str, summary: &Summary, skipped: &Skipped) -> Value {
        let outcomes = |counts: &[(String, u64)]| -> BTreeMap<String, u64> {
            counts.iter().map(|(word, count)| (word.replace(' ', "_"), *count)).collect()
        };
        let (kinds, sum) = skipped.kinds();
        let kinds: BTreeMap<String, u64> = kinds
            .into_iter()
            .map(|(kind, count)| (kind.to_lowercase().replace(' ', "_"), count))
            .collect();
        let OnlyOurs { old, old_trb, other_port, later, others } = self.only_ours;
        let down = self.count(Category::Down);
        let candidate = self.count(Category::Candidate);
        json!({
            "theirs": {
                "file": name,
                "format": summary.format.as_str(),
                "at": summary.at.map(Timestamp),
                "nodes": summary.entries,
                "ipv4": self.theirs.len(),
            },
            "ours": {
                "pass": self.map.pass.map(|(pass, _)| pass),
                "at": self.map.pass.map(|(_, at)| at),
                "up": self.up,
                "full": self.full,
            },
            "seconds_apart": self.apart(summary).map(|apart| apart.as_secs()),
            "both": {
                "nodes": self.count(Category::Both),
                "agent_differs": self.agent_differs,
                "height_differs": self.height_differs,
            },
            "only_theirs": {
                "nodes": self.only_theirs(),
                "full": self.count(Category::Full),
                "down": { "nodes": down, "outcomes": outcomes(&self.down),
                    "last_answered": self.answered.map(|(oldest, newest)| [oldest, newest]) },
                "candidate": { "nodes": candidate, "outcomes": outcomes(&self.candidates) },
                "other_port": self.count(Category::OtherPort),
                "excluded": { "nodes": self.count(Category::Excluded), "by": self.excluding() },
                "unheard": self.count(Category::Unheard),
            },
            "only_ours": {
                "nodes": self.up - self.count(Category::Both),
                "old_version": old,
                "old_version_trb": old_trb,
                "other_port": other_port,
                "first_answered_later": later,
                "else": others,
            },
            "not_compared": { "nodes": sum, "kinds": kinds },
        })
    }
}

/// `2026-04-28 01:27 UTC`.
fn minute(at: Timestamp) -> String {
    let text = at.to_text();
    format!("{} UTC", text.get(..16).unwrap_or(&text).replace('T', " "))
}

fn distance(apart: Duration) -> String {
    let days = apart.as_secs() / 86_400;
    match days {
        0 => format!("{} apart", span(apart)),
        _ => {
            let days =
                if days == 1 { "1 day".to_owned() } else { format!("{} days", number(days)) };
            format!("{days} apart: the differences below are mostly time")
        }
    }
}

/// A duration in its largest unit.
fn unit(duration: Duration) -> String {
    match duration.as_secs() {
        seconds @ 0..60 => format!("{seconds} s"),
        seconds @ 60..3_600 => format!("{} min", seconds / 60),
        seconds @ 3_600..86_400 => format!("{} h", seconds / 3_600),
        seconds => format!("{} d", seconds / 86_400),
    }
}

fn between(first: &str, last: &str) -> String {
    if first == last { first.to_owned() } else { format!("{first} to {last}") }
}

/// `203.0.113.0/24`, or the first and last address of several adjacent ranges.
fn range_text(range: Option<(Ipv4Addr, Ipv4Addr)>) -> String {
    let Some((first, last)) = range else { return "not in filter.only".to_owned() };
    let host_bits = (u32::from(first) ^ u32::from(last)).checked_add(1);
    let is_net = |size: u32| size.is_power_of_two() && u32::from(first).is_multiple_of(size);
    match host_bits.filter(|size| is_net(*size)) {
        Some(size) => format!("{first}/{}", 32 - size.trailing_zeros()),
        None => format!("{first} to {last}"),
    }
}

/// Prints addresses of the wanted category in pieces.
struct Printer {
    wanted: Option<Category>,
    is_json: bool,
    text: String,
    result: Result<bool, Failure>,
}

/// Text that is printed at once.
const PIECE_BYTES: usize = 64 << 10;

impl Printer {
    fn new(wanted: Option<Category>, is_json: bool) -> Self {
        Self { wanted, is_json, text: String::new(), result: Ok(true) }
    }

    fn add(&mut self, address: Address, category: Category) {
        if self.wanted != Some(category) || self.result != Ok(true) {
            return;
        }
        let (host, port) = (address.ip(), address.port());
        let _ = if self.is_json {
            writeln!(self.text, "{{\"host\":\"{host}\",\"port\":{port}}}")
        } else {
            writeln!(self.text, "{address}")
        };
        if self.text.len() >= PIECE_BYTES {
            self.result = print_on(&std::mem::take(&mut self.text));
        }
    }

    fn finish(self) -> Result<(), Failure> {
        match self.result? {
            true => print(&self.text),
            false => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_agent_is_the_same_as_bytes_and_as_stored_text() {
        let stored = |bytes: &[u8]| agent_hash(Some(&watchglass::text::from_bytes(bytes)));
        for agent in ["/Satoshi:28.0.0/", "a\\b", "a\tb\u{e9}", "\\x41"] {
            assert_eq!(agent_hash(Some(agent)), stored(agent.as_bytes()), "{agent}");
        }
        assert_eq!((agent_hash(None), agent_hash(Some(""))), (0, 0));
        assert_eq!(agent_hash(Some(" /Satoshi:28.0.0/ ")), agent_hash(Some("/Satoshi:28.0.0/")));
        assert_ne!(agent_hash(Some("/Satoshi:28.0.0/")), agent_hash(Some("/Satoshi:28.1.0/")));
    }

    #[test]
    fn times_and_ranges_are_short() {
        let seconds = Duration::from_secs;
        for (duration, text) in
            [(59, "59 s"), (61, "1 min"), (3 * 3_600, "3 h"), (6 * 86_400 + 5, "6 d")]
        {
            assert_eq!(unit(seconds(duration)), text);
        }
        assert_eq!(distance(seconds(3_700)), "1h 1m apart");
        let long = "214 days apart: the differences below are mostly time";
        assert_eq!(distance(seconds(214 * 86_400 + 7)), long);
        assert!(distance(seconds(86_400)).starts_with("1 day apart: "));
        let range = |first: [u8; 4], last: [u8; 4]| range_text(Some((first.into(), last.into())));
        assert_eq!(range([203, 0, 113, 0], [203, 0, 113, 255]), "203.0.113.0/24");
        assert_eq!(range([9, 9, 9, 9], [9, 9, 9, 9]), "9.9.9.9/32");
        assert_eq!(range([8, 8, 9, 0], [8, 8, 10, 255]), "8.8.9.0 to 8.8.10.255");
        assert_eq!(range([0, 0, 0, 0], [255, 255, 255, 255]), "0.0.0.0 to 255.255.255.255");
        assert_eq!(
            time_of(Path::new("x/1777339673.json.gz")),
            Some(UnixTime::from_secs(1_777_339_673))
        );
        assert_eq!(time_of(Path::new("nodes.csv")), None);
    }
}
