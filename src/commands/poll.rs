//! `bitdash poll`: probes all nodes of a list (see [`super::visit`]) and prints one table, the
//! worst first.

use std::cmp::Reverse;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::ValueHint;

use crate::commands::probe;
use crate::commands::probe::facts::Facts;
use crate::commands::screen::Screen;
use crate::commands::table::{Table, hanging, safe};
use crate::commands::visit::{Purpose, Row, Visitor, judge};
use crate::commands::{Failure, note, print, print_on};
use crate::config::{Config, ConfigSource};
use crate::db::timestamp::Timestamp;
use crate::net::nodes_file::NodesFile;
use crate::sys::clock::Clock;
use crate::sys::signal::Hangup;
use crate::sys::text_file;
use bitdash_core::vocabulary::outcome::Outcome;

/// The arguments.
#[derive(Clone, PartialEq, Eq, Debug, Default, clap::Args)]
pub struct Options {
    /// The nodes file; `None` for the configured one.
    #[arg(
        value_name = "FILE",
        value_hint = ValueHint::FilePath,
        help = "The nodes file: one HOST [PORT] [NAME] or HOST:PORT [NAME] per line; - is standard input [default: crawl.nodes_file]"
    )]
    pub file: Option<PathBuf>,
    /// Poll repeatedly at this interval, at least 60s: nodes ban peers that connect more often
    #[arg(long, value_name = "TIME", value_parser = interval, value_hint = ValueHint::Other)]
    pub watch: Option<Duration>,
    /// Print JSON instead of the table: one line per address
    #[arg(long)]
    pub json: bool,
}

/// Interval between two looks for SIGHUP.
const HANGUP_INTERVAL: Duration = Duration::from_millis(250);
/// The name of standard input.
const STDIN: &str = "-";
/// Some nodes ban peers that connect more often: Bitcoin Unlimited above four times a minute.
const MIN_INTERVAL: Duration = Duration::from_secs(60);
const MAX_INTERVAL: Duration = Duration::from_secs(7 * 86_400);

fn interval(text: &str) -> Result<Duration, String> {
    let interval = humantime::parse_duration(text).ok();
    interval
        .filter(|interval| (MIN_INTERVAL..=MAX_INTERVAL).contains(interval))
        .ok_or_else(|| "must be a duration with a unit, from 60s to 7d".to_owned())
}

/// Polls the nodes of the list, once or until interrupted.
///
/// # Errors
/// The configuration or nodes file is invalid; or, after everything is printed, a node is down.
pub fn run(source: &ConfigSource, options: &Options, screen: &Screen) -> Result<(), Failure> {
    // First: SIGHUP reloads a watch, even one that has not begun.
    let hangup = options.watch.map(|_| Hangup::new()).transpose();
    let hangup = hangup.map_err(|error| {
        Failure::Failed(format!("installing the signal handler failed: {error}"))
    })?;
    let mut config = source.load()?;
    let path =
        |config: &Config| options.file.clone().unwrap_or_else(|| config.crawl.nodes_file.clone());
    let mut nodes = read(&path(&config), &config).map_err(|error| match options.file {
        Some(_) => error,
        None => Failure::of_nodes_file(&error, source, &config),
    })?;
    nodes.complaints.iter().chain(&nodes.repetitions).for_each(|message| note(message));
    let mut visitor = Visitor::new(&config, source.load_species()?.rules, Purpose::Poll)?;
    let Some(interval) = options.watch else {
        let rows = sorted(visitor.visit(nodes.lines)?);
        print(&text(&rows, options.json, screen))?;
        let refused = nodes.complaints.len();
        return judge(&rows).and_then(|()| match refused {
            0 => Ok(()),
            1 => Err(Failure::Failed("1 line was refused".to_owned())),
            _ => Err(Failure::Failed(format!("{refused} lines were refused"))),
        });
    };
    loop {
        let started = visitor.clock().now();
        // The file may be edited meanwhile; an invalid one leaves the old lines.
        let path = path(&config);
        if path != Path::new(STDIN) && !text_file::is_pipe(&path) {
            nodes = read(&path, &config).unwrap_or(nodes);
        }
        let rows = sorted(visitor.visit(nodes.lines.clone())?);
        let page = if options.json {
            text(&rows, true, screen)
        } else {
            let page = page(&rows, Timestamp(started.wall), interval, screen);
            // Still to be seen once the first page has scrolled the messages away.
            let complaints = nodes.complaints.iter().map(|message| safe(message) + "\n");
            page + &hanging(&complaints.collect::<String>(), screen.width)
        };
        if !print_on(&page)? {
            return Ok(());
        }
        if wait(visitor.clock(), started.mono + interval, hangup.as_ref()) {
            match reloaded(source) {
                Ok(new) => (config, visitor) = new,
                Err(error) => note(&format!("reload: {error}")),
            }
        }
    }
}

/// The settings of the next pages, after SIGHUP.
fn reloaded(source: &ConfigSource) -> Result<(Config, Visitor), Failure> {
    if text_file::is_pipe(source.path().unwrap_or(Path::new(""))) {
        return Err(Failure::Usage(
            "the configuration is a pipe, which cannot be read again".into(),
        ));
    }
    let config = source.load()?;
    let visitor = Visitor::new(&config, source.load_species()?.rules, Purpose::Poll)?;
    Ok((config, visitor))
}

fn read(path: &Path, config: &Config) -> Result<NodesFile, Failure> {
    let port = config.network.port;
    let is_stdin = path == Path::new(STDIN);
    let nodes = if is_stdin { NodesFile::read_stdin(port)? } else { NodesFile::read(path, port)? };
    if nodes.lines.is_empty() {
        return Err(Failure::Usage(format!("{}: contains no node", path.display())));
    }
    Ok(nodes)
}

/// Waits for the next page; returns early, with `true`, after SIGHUP.
fn wait(clock: &Clock, until: Duration, hangup: Option<&Hangup>) -> bool {
    loop {
        if hangup.is_some_and(Hangup::take) {
            return true;
        }
        let left = until.saturating_sub(clock.now().mono);
        if left.is_zero() {
            return false;
        }
        std::thread::park_timeout(left.min(HANGUP_INTERVAL));
    }
}

/// The worst first: nodes that were not dialled, nodes that did not respond, then the lowest
/// height, then the highest latency.
fn sorted(mut rows: Vec<Row>) -> Vec<Row> {
    rows.sort_by_key(|row| {
        let result = row.found.as_ref().ok().map(|found| &found.result);
        let height = result.and_then(|result| result.version.as_ref()).and_then(|v| v.start_height);
        let latency = result.and_then(|result| result.connect_ms);
        let severity = row.outcome().map_or(u8::MAX, Outcome::severity);
        (Reverse(severity), height, Reverse(latency), row.address)
    });
    rows
}

fn text(rows: &[Row], is_json: bool, screen: &Screen) -> String {
    if is_json {
        let options = probe::Options::default();
        return rows.iter().map(|row| Facts::of(row, &options).to_line()).collect();
    }
    let up = rows.iter().filter(|row| row.has_responded()).count();
    let mut out = table(rows).to_text(screen, 0);
    for row in rows {
        if let Err(why) = &row.found {
            let why = format!("{}: {}", row.endpoint(), safe(why));
            out.push_str(&hanging(&why, screen.width));
        }
    }
    out + &format!("{up} of {} up\n", rows.len())
}

/// One page of `--watch`: on a terminal it replaces the previous one.
fn page(rows: &[Row], at: Timestamp, interval: Duration, screen: &Screen) -> String {
    let clear = if io::stdout().is_terminal() { "\x1b[H\x1b[2J" } else { "" };
    let every = humantime::format_duration(interval);
    format!("{clear}{}, every {every}\n\n{}\n", at.to_text(), text(rows, false, screen))
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
    ])
    .fitted_by(&["user agent", "name"], &["version", "user agent", "species", "latency", "height"]);
    for row in rows {
        let found = row.found.as_ref().ok();
        let result = found.map(|found| &found.result);
        let lineage = found.and_then(|found| found.lineage.as_ref());
        let info = result.and_then(|result| result.version.as_ref());
        let dash = || "-".to_owned();
        table.row([
            row.label().unwrap_or_else(dash),
            row.endpoint(),
            row.outcome().map_or("not_dialled", |outcome| outcome.as_str()).to_owned(),
            lineage.map_or("-", |lineage| &lineage.species).to_owned(),
            info.map_or_else(dash, |info| info.protocol_version.to_string()),
            info.and_then(|info| info.user_agent.as_deref()).unwrap_or("-").to_owned(),
            info.and_then(|info| info.start_height).map_or_else(dash, |height| height.to_string()),
            result.and_then(|result| result.connect_ms).map_or_else(dash, |ms| format!("{ms} ms")),
        ]);
    }
    table
}
