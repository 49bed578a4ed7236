//! `bitdash poll`: all nodes of a list at a glance, the worst first.
//!
//! Layer 4. The probing is `visit`'s; this orders and renders.

use std::cmp::Reverse;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::commands::probe::facts::{Facts, species_of};
use crate::commands::table::{Table, cut, safe};
use crate::commands::visit::{Row, Visitor, judge};
use crate::commands::{Failure, note, print, print_on};
use crate::crawl::outcome::Outcome;
use crate::io::clock::Clock;
use crate::io::config::{Config, ConfigSource};
use crate::io::nodes_file::{Line, NodesFile};
use crate::io::query::Time;

/// What the arguments ask for.
#[derive(Clone, PartialEq, Eq, Debug, Default, clap::Args)]
pub struct Options {
    /// The nodes file, if not the configured one.
    #[arg(
        value_name = "FILE",
        help = "The nodes file: HOST [PORT] [NAME] a line [default: crawl.nodes_file]"
    )]
    pub file: Option<PathBuf>,
    /// Poll again and again, this long from one start to the next; at least 60s: nodes ban for more
    #[arg(long, value_name = "TIME", value_parser = interval)]
    pub watch: Option<Duration>,
    /// Print JSON, one object per line and address, instead of the table
    #[arg(long)]
    pub json: bool,
}

/// Some nodes ban who comes more often: Bitcoin Unlimited above four times in a minute.
const SHORTEST: Duration = Duration::from_secs(60);
const LONGEST: Duration = Duration::from_secs(7 * 86_400);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).ok();
    interval
        .filter(|interval| (SHORTEST..=LONGEST).contains(interval))
        .ok_or_else(|| "must be a time with a unit, from 60s to 7d".to_owned())
}

/// Polls the nodes of the list, once or until interrupted.
///
/// # Errors
/// The configuration or the nodes file is wrong; or a node is down, after all is printed.
pub fn run(source: &ConfigSource, options: &Options) -> Result<(), Failure> {
    let config = source.load()?;
    let path = options.file.as_deref().unwrap_or(&config.crawl.nodes_file);
    let lines = read(path, &config, true)?;
    let mut visitor = Visitor::new(&config, false)?;
    let Some(interval) = options.watch else {
        let rows = sorted(visitor.visit(lines, "poll")?);
        print(&text(&rows, options.json))?;
        return judge(&rows);
    };
    let mut last = lines;
    loop {
        let started = visitor.clock().now();
        // The file may be edited meanwhile; while it is wrong the old lines stay.
        last = read(path, &config, false).unwrap_or(last);
        let rows = sorted(visitor.visit(last.clone(), "poll")?);
        let text = match options.json {
            true => text(&rows, true),
            false => page(&rows, Time(started.wall), interval, io::stdout().is_terminal()),
        };
        if !print_on(&text)? {
            return Ok(());
        }
        wait(visitor.clock(), started.mono + interval);
    }
}

fn read(path: &Path, config: &Config, has_notes: bool) -> Result<Vec<Line>, Failure> {
    let nodes = NodesFile::read(path, config.network.port)?;
    if has_notes {
        nodes.complaints.iter().for_each(|complaint| note(complaint));
    }
    match nodes.lines.is_empty() {
        true => Err(Failure::Usage(format!("{}: names no node", path.display()))),
        false => Ok(nodes.lines),
    }
}

fn wait(clock: &Clock, until: Duration) {
    loop {
        let left = until.saturating_sub(clock.now().mono);
        if left.is_zero() {
            return;
        }
        std::thread::park_timeout(left);
    }
}

/// The worst first: those that were not dialled, those that did not respond, then by height, the lowest first,
/// and by latency.
fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| {
        let result = row.found.as_ref().ok().map(|found| &found.result);
        let height = result.and_then(|result| result.version.as_ref()).and_then(|v| v.start_height);
        let latency = result.and_then(|result| result.connect_ms);
        (badness(row), height, Reverse(latency), row.address)
    });
    rows
}

fn badness(row: &Row) -> u8 {
    match row.outcome() {
        None => 0,
        Some(Outcome::Unreachable) => 1,
        Some(Outcome::ConnectTimeout) => 2,
        Some(Outcome::Refused) => 3,
        Some(Outcome::NotBitcoin) => 4,
        Some(Outcome::Malformed) => 5,
        Some(Outcome::HandshakeTimeout) => 6,
        Some(Outcome::Closed) => 7,
        Some(Outcome::Responded) => 8,
    }
}

fn text(rows: &[Row], is_json: bool) -> String {
    if is_json {
        return rows.iter().map(|row| Facts::of(row, false, false).to_line()).collect();
    }
    let up = rows.iter().filter(|row| row.has_responded()).count();
    let mut out = table(rows).to_text();
    for row in rows {
        if let Err(why) = &row.found {
            out.push_str(&format!("{}: {}\n", row.place(), safe(why)));
        }
    }
    out + &format!("{up} of {} up\n", rows.len())
}

/// One round of `--watch`: on a terminal it replaces the one before.
fn page(rows: &[Row], at: Time, interval: Duration, is_terminal: bool) -> String {
    let clear = if is_terminal { "\x1b[H\x1b[2J" } else { "" };
    let every = humantime::format_duration(interval);
    format!("{clear}{}, every {every}\n\n{}\n", at.to_text(), text(rows, false))
}

fn table(rows: &[Row]) -> Table {
    let mut table = Table::new(&[
        "name",
        "address",
        "outcome",
        "species",
        ">version",
        "user agent",
        ">height",
        ">latency",
    ]);
    for row in rows {
        let result = row.found.as_ref().ok().map(|found| &found.result);
        let info = result.and_then(|result| result.version.as_ref());
        let dash = || "-".to_owned();
        table.row([
            cut(&row.label().unwrap_or_else(dash), 24),
            row.place(),
            row.outcome().map_or("not_dialled", |outcome| outcome.as_str()).to_owned(),
            info.map_or("-", species_of).to_owned(),
            info.map_or_else(dash, |info| info.protocol_version.to_string()),
            cut(info.and_then(|info| info.user_agent.as_deref()).unwrap_or("-"), 40),
            info.and_then(|info| info.start_height).map_or_else(dash, |height| height.to_string()),
            result.and_then(|result| result.connect_ms).map_or_else(dash, |ms| format!("{ms} ms")),
        ]);
    }
    table
}
