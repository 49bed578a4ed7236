//! `bitdash nodes`: lists nodes, one a line, as a table, JSON lines or CSV.
//!
//! Rows are streamed: memory does not grow with their number. Only the widths of the table's
//! columns are those of its first rows.

use std::time::Duration;

use clap::{ValueEnum, ValueHint};

use crate::commands::screen::Screen;
use crate::commands::status::{ago, or_dash};
use crate::commands::table::{Table, csv_text, grouped, safe_json};
use crate::commands::{Failure, note, print_on};
use crate::config::ConfigSource;
use crate::db::reader::{NodeFacts, NodeFilter, Reader};
use crate::db::timestamp::Timestamp;

/// The arguments.
#[derive(Clone, PartialEq, Eq, Debug, Default, clap::Args)]
pub struct Options {
    /// Only nodes with this status
    #[arg(long, value_name = "STATUS", value_delimiter = ',', ignore_case = true,
        value_parser = ["up", "full", "down"])]
    pub status: Vec<String>,
    /// Only nodes of this species, such as TRB, or of one of several: TRB,Core
    #[arg(long, value_name = "SPECIES", value_delimiter = ',', value_hint = ValueHint::Other)]
    pub species: Vec<String>,
    /// Only nodes of this release, such as "Core 28"
    #[arg(long, value_name = "RELEASE", value_delimiter = ',', value_hint = ValueHint::Other)]
    pub release: Vec<String>,
    /// Only nodes whose user agent contains this text, ignoring case
    #[arg(long, value_name = "TEXT", value_hint = ValueHint::Other)]
    pub agent: Option<String>,
    /// Only nodes in this country, such as DE
    #[arg(long, value_name = "CODE", value_delimiter = ',', value_parser = country, value_hint = ValueHint::Other)]
    pub country: Vec<String>,
    /// Only nodes in this autonomous system, such as 24940
    #[arg(long, value_name = "NUMBER", value_parser = asn, value_hint = ValueHint::Other)]
    pub asn: Option<u32>,
    /// Only nodes on this port
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..),
        value_hint = ValueHint::Other)]
    pub port: Option<u16>,
    /// Only nodes that were first seen within this time, such as 1h or 7d
    #[arg(long, value_name = "TIME", value_parser = time, value_hint = ValueHint::Other)]
    pub since: Option<Duration>,
    /// The order
    #[arg(long, value_name = "KEY", value_enum, default_value_t)]
    pub sort: Sort,
    /// Reverse the order
    #[arg(long)]
    pub reverse: bool,
    /// Print at most this many
    #[arg(long, value_name = "N", value_hint = ValueHint::Other)]
    pub limit: Option<u32>,
    /// Print JSON, one object per line
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
    /// Print CSV with a heading
    #[arg(long)]
    pub csv: bool,
}

/// The value of `--sort`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Sort {
    /// Address and port
    #[default]
    Address,
    /// Name, those without one last
    Name,
    /// Status: up, full, down
    Status,
    /// Species and release
    Species,
    /// User agent
    Agent,
    /// Country and network
    Country,
    /// Height, the highest first
    Height,
    /// Time to connect, the shortest first
    Latency,
    /// First seen, the newest first
    FirstSeen,
    /// Last seen, the newest first
    LastSeen,
}

impl Sort {
    /// The terms of `ORDER BY`. Address and port make the order total.
    fn terms(self) -> &'static [(&'static str, bool)] {
        match self {
            Self::Address => &[],
            Self::Name => &[("name", true)],
            Self::Status => &[("array_position('{up,full,down}', status)", true)],
            Self::Species => &[("species", true), ("release", true)],
            Self::Agent => &[("user_agent", true)],
            Self::Country => &[("country", true), ("asn", true)],
            Self::Height => &[("start_height", false)],
            Self::Latency => &[("connect_ms", true)],
            Self::FirstSeen => &[("first_seen", false)],
            Self::LastSeen => &[("last_seen", false)],
        }
    }
}

impl Sort {
    /// The column of the table that shows the order.
    fn column(self) -> &'static str {
        match self {
            Self::Address | Self::Status | Self::Species | Self::Agent => "",
            Self::Name => "name",
            Self::Country => "where",
            Self::Height => "height",
            Self::Latency => "latency",
            Self::FirstSeen => "first seen",
            Self::LastSeen => "last seen",
        }
    }
}

fn country(text: &str) -> Result<String, String> {
    let is_code = text.len() == 2 && text.bytes().all(|byte| byte.is_ascii_alphabetic());
    let code = is_code.then(|| text.to_ascii_uppercase());
    code.ok_or_else(|| "must be a code of two letters, such as DE".to_owned())
}

fn asn(text: &str) -> Result<u32, String> {
    let digits = text.strip_prefix("AS").unwrap_or(text);
    digits.parse().map_err(|_| "must be the number of an autonomous system, such as 24940".into())
}

fn time(text: &str) -> Result<Duration, String> {
    let time = humantime::parse_duration(text).ok().filter(|time| *time <= MAX_SINCE);
    time.ok_or_else(|| "must be a duration with a unit, such as 90m or 7d".to_owned())
}

const MAX_SINCE: Duration = Duration::from_secs(100 * 366 * 86_400);
/// Rows that decide about the widths of the table.
const PAGE: usize = 1_000;

/// Lists nodes on standard output.
///
/// # Errors
/// The configuration is invalid, or the database cannot be read.
pub fn run(source: &ConfigSource, options: &Options, screen: &Screen) -> Result<(), Failure> {
    let config = source.load()?;
    let reader = Reader::open(config.database.url.expose());
    let mut reader = reader.map_err(|error| Failure::of_store(&error, source, &config))?;
    list(&mut reader, options, screen, &mut print_on)
}

/// Lists nodes; `write` returns whether to go on.
///
/// # Errors
/// The database cannot be read, or the output cannot be written.
pub fn list(
    reader: &mut Reader,
    options: &Options,
    screen: &Screen,
    write: &mut dyn FnMut(&str) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let (mut is_first, mut count) = (true, 0);
    let mut failure = None;
    let result = reader.nodes(&filter(options), PAGE, &mut |at, nodes| {
        count += nodes.len();
        let text = if options.json {
            nodes.iter().map(json_line).collect()
        } else if options.csv {
            csv_lines(nodes, is_first)
        } else {
            page(at, nodes, is_first, options.sort, screen)
        };
        is_first = false;
        write(&text).unwrap_or_else(|error| {
            failure = Some(error);
            false
        })
    });
    result.map_err(|error| Failure::failed(&error))?;
    if let Some(failure) = failure {
        return Err(failure);
    }
    // Not on standard output, which may be counted or processed.
    if count == 0 {
        note("no node matches");
    } else if screen.width.is_some() && !options.json && !options.csv {
        note(&format!("{} nodes", grouped(i64::try_from(count).unwrap_or(i64::MAX))));
    }
    Ok(())
}

fn filter(options: &Options) -> NodeFilter {
    NodeFilter {
        status: any_of(&options.status),
        species: any_of(&options.species),
        release: any_of(&options.release),
        agent: options.agent.clone(),
        country: any_of(&options.country),
        asn: options.asn.map(i64::from),
        port: options.port.map(i32::from),
        since: options.since.map(|since| since.as_secs_f64()),
        limit: options.limit.map(i64::from),
        order: order(options),
    }
}

/// Words in lower case; none is any.
fn any_of(words: &[String]) -> Option<Vec<String>> {
    (!words.is_empty()).then(|| words.iter().map(|word| word.to_lowercase()).collect())
}

fn order(options: &Options) -> String {
    let terms = options.sort.terms().iter().map(|(term, is_ascending)| {
        let direction = if *is_ascending == options.reverse { "DESC" } else { "ASC" };
        format!("{term} {direction} NULLS LAST")
    });
    let last = if options.reverse && options.sort == Sort::Address { "DESC" } else { "ASC" };
    let address = ["host", "port"].map(|column| format!("{column} {last}"));
    terms.chain(address).collect::<Vec<_>>().join(", ")
}

fn json_line(node: &NodeFacts) -> String {
    safe_json(&serde_json::to_string(node).expect("all keys are strings")) + "\n"
}

/// RFC 4180, with the columns of the relation `nodes`.
fn csv_lines(nodes: &[NodeFacts], has_heading: bool) -> String {
    let mut writer = csv::WriterBuilder::new().has_headers(has_heading).from_writer(Vec::new());
    for node in nodes {
        writer.serialize(for_csv(node)).expect("a Vec takes every row");
    }
    let bytes = writer.into_inner().expect("a Vec takes every row");
    String::from_utf8(bytes).expect("csv writes what it got")
}

fn for_csv(node: &NodeFacts) -> NodeFacts {
    let text = |text: &Option<String>| text.as_deref().map(csv_text);
    NodeFacts {
        name: text(&node.name),
        species: csv_text(&node.species),
        release: text(&node.release),
        user_agent: text(&node.user_agent),
        country: text(&node.country),
        as_name: text(&node.as_name),
        ..node.clone()
    }
}

fn page(
    at: Timestamp,
    nodes: &[NodeFacts],
    has_heading: bool,
    sort: Sort,
    screen: &Screen,
) -> String {
    let mut table = table(at, nodes, sort).to_text(screen, 0);
    if !has_heading {
        let heading = table.find('\n').map_or(0, |end| end + 1);
        table.drain(..heading);
    }
    table
}

/// A table of nodes for a screen.
pub fn table<'n>(
    at: Timestamp,
    nodes: impl IntoIterator<Item = &'n NodeFacts>,
    sort: Sort,
) -> Table {
    // The column that the rows are sorted by goes last.
    let dropped = ["where", "latency", "first seen", "height", "last seen", "name"];
    let sorted_by = sort.column();
    let dropped: Vec<&str> = dropped.into_iter().filter(|title| *title != sorted_by).collect();
    let mut table = Table::new(&[
        "address",
        "name",
        "status",
        "release",
        ">height",
        ">latency",
        "last seen",
        "first seen",
        "where",
        "user agent",
    ])
    .fitted_by(&["user agent", "name"], &dropped);
    for node in nodes {
        let place = [node.country.clone(), node.asn.map(|asn| format!("AS{asn}"))];
        let place: Vec<String> = place.into_iter().flatten().collect();
        table.row([
            format!("{}:{}", node.host, node.port),
            node.name.clone().unwrap_or_else(|| "-".to_owned()),
            node.status.clone(),
            node.release.clone().unwrap_or_else(|| node.species.clone()),
            or_dash(node.start_height),
            node.connect_ms.map_or_else(|| "-".to_owned(), |ms| format!("{ms} ms")),
            ago(at, node.last_seen),
            ago(at, node.first_seen),
            if place.is_empty() { "-".to_owned() } else { place.join(" ") },
            node.user_agent.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_order_is_total_and_reversible() {
        for sort in Sort::value_variants() {
            let order = |reverse| order(&Options { sort: *sort, reverse, ..Options::default() });
            assert_ne!(order(false), order(true));
            assert!(order(true).contains("host ") && order(true).contains("port "));
        }
        assert_eq!(order(&Options::default()), "host ASC, port ASC");
        let newest = Options { sort: Sort::LastSeen, ..Options::default() };
        assert_eq!(order(&newest), "last_seen DESC NULLS LAST, host ASC, port ASC");
    }

    #[test]
    fn networks_and_times_are_read_as_people_write_them() {
        assert_eq!((asn("AS24940"), asn("24940")), (Ok(24940), Ok(24940)));
        assert!(asn("Hetzner").is_err() && time("soon").is_err());
        assert_eq!(time("7d"), Ok(Duration::from_secs(7 * 86_400)));
    }
}
