//! `bitdash status`: one screen about the crawl and its map, or everything known of an address.
//!
//! Read-only; gives up if the database is unreachable.

use std::net::Ipv4Addr;
use std::sync::mpsc;
use std::time::Duration;

use serde_json::json;
use unicode_width::UnicodeWidthStr;

use crate::commands::explain::{listing, next_probe};
use crate::commands::nodes;
use crate::commands::screen::{Paint, Screen};
use crate::commands::table::{Table, cut, grouped, safe, safe_json, span, spark_line, wrapped};
use crate::commands::{Failure, HostPort, print, species_text};
use crate::config::{Config, ConfigSource};
use crate::db::StoreError;
use crate::db::reader::{
    AddressFacts, DayLine, EventLine, Moment, NodeFacts, Overview, PassLine, ProbeLine, Reader,
    ShareLine, SpeciesLine, Wanted,
};
use crate::db::timestamp::Timestamp;
use crate::net::nodes_file::{Host, Line};
use crate::net::resolve::{RESOLVE_TIMEOUT, resolve};
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::{Filter, Refused};

/// Maximum age of a note that is shown: the table compares with a week ago.
const NOTE_AGE: Duration = Duration::from_secs(7 * 86_400);
/// Maximum number of lines: with the prompt below, a screen of 24.
const MAX_LINES: usize = 23;
/// Maximum numbers of rows; of nodes and events fewer where the lines do not suffice.
const MAX_SPECIES: usize = 5;
const MAX_NODES: usize = 5;
const MAX_EVENTS: usize = 5;
/// Width of the titles of shares and days, with the gap.
const TITLE: usize = 11;
/// Maximum width of a release or of the name of a network.
const MAX_VALUE: usize = 24;
/// Days of a sparkline, and minimum number of values for one.
const DAYS: i64 = 30;
const MIN_DAYS: usize = 3;

/// Prints the state of the crawl, or everything known about `places`.
///
/// # Errors
/// The configuration is invalid, the database cannot be read, or a place is unknown.
pub fn run(
    source: &ConfigSource,
    places: &[HostPort],
    is_json: bool,
    screen: &Screen,
) -> Result<(), Failure> {
    let config = source.load()?;
    let answer = text(&config, places, is_json, screen);
    let (text, unknown) = answer.map_err(|error| Failure::of_store(&error, source, &config))?;
    print(&text)?;
    if unknown.is_empty() {
        return Ok(());
    }
    let filter = config.load_filter().ok();
    let lines: Vec<_> = unknown.iter().map(|place| why_unknown(place, filter.as_ref())).collect();
    Err(Failure::Failed(lines.join("\nbitdash: ")))
}

fn why_unknown(place: &HostPort, filter: Option<&Filter>) -> String {
    let name = safe(&place.to_string());
    let Host::Ip(ip) = place.host else {
        return format!("{name} is unknown: no node has this name, and none was found by it");
    };
    let address = Address::new(ip, place.port.unwrap_or(1));
    let refused = filter.and_then(|filter| {
        let is_special = || (!filter.admits(address)).then_some(Refused::Special);
        filter.check_named(address).err().or_else(is_special)
    });
    match refused {
        Some(refused) => format!("{name} is unknown, and not crawled: {refused}"),
        None => {
            format!(
                "{name} is unknown: no node has named it (\"bitdash probe {name}\" asks it now)"
            )
        }
    }
}

/// The output of [`run`], and the places that are unknown to the database.
///
/// # Errors
/// The database cannot be read.
pub fn text(
    config: &Config,
    places: &[HostPort],
    is_json: bool,
    screen: &Screen,
) -> Result<(String, Vec<HostPort>), StoreError> {
    let mut reader = Reader::open(config.database.url.expose())?;
    if places.is_empty() {
        let overview = reader.overview()?;
        let text = if is_json { json_text(&overview) } else { overview_text(&overview, screen) };
        return Ok((text, Vec::new()));
    }
    let (mut texts, mut unknown, mut known, mut at) = (Vec::new(), Vec::new(), Vec::new(), None);
    for place in places {
        let (moment, found) = find(&mut reader, place)?;
        at = Some(moment.at);
        if found.is_empty() {
            unknown.push(place.clone());
        }
        texts.extend(found.iter().map(|facts| address_text(config, &moment, facts, screen)));
        known.extend(found);
    }
    let text = match is_json {
        true => json_text(&json!({ "at": at, "addresses": known })),
        false => texts.join("\n"),
    };
    Ok((text, unknown))
}

/// What is known of a place: the nodes of this name, else the addresses that the name has in the
/// DNS, as in `probe`.
fn find(reader: &mut Reader, place: &HostPort) -> Result<(Moment, Vec<AddressFacts>), StoreError> {
    let of_ip = |ip, port: Option<u16>| match port {
        Some(port) => Wanted::Address(ip, port),
        None => Wanted::Host(ip),
    };
    let name = match &place.host {
        Host::Ip(ip) => return reader.addresses(&of_ip(*ip, place.port)),
        Host::Name(name) => name,
    };
    let (moment, mut found) = reader.addresses(&Wanted::Name(name.clone()))?;
    if found.is_empty() && !place.is_no_host() {
        for ip in look_up(place) {
            found.extend(reader.addresses(&of_ip(ip, place.port))?.1);
        }
    }
    Ok((moment, found))
}

/// The addresses of a host name; none if the look-up fails.
fn look_up(place: &HostPort) -> Vec<Ipv4Addr> {
    let line = Line { number: 1, host: place.host.clone(), port: 1, name: None };
    let (sender, answer) = mpsc::channel();
    resolve(vec![line], RESOLVE_TIMEOUT, move |lines| drop(sender.send(lines)));
    let lines = answer.recv().unwrap_or_default();
    let addresses = lines.into_iter().filter_map(|line| line.addresses.ok()).flatten();
    addresses.map(|address| address.ip()).collect()
}

fn json_text(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_string_pretty(value).expect("all keys are strings");
    safe_json(&json) + "\n"
}

fn overview_text(overview: &Overview, screen: &Screen) -> String {
    let (at, mut species) = (overview.at, species(overview).to_text(screen, 0));
    if let Some(note) = note(overview) {
        species += &(cut(&safe(&note), screen.width.unwrap_or(usize::MAX), screen) + "\n");
    }
    let mut parts = vec![crawl_and_database(overview).without_headings(screen, 0), species];
    let shares = shares_and_days(overview, screen);
    if !shares.is_empty() {
        parts.push(shares.without_headings(screen, 0));
    }
    // The rest of the screen is for nodes and events.
    let lines = parts.iter().map(|part| part.lines().count() + 1).sum::<usize>();
    let others = overview.kept.iter().filter(|node| node.status != "up").count();
    let (mut nodes, mut events) = (others.min(MAX_NODES), overview.events.len().min(MAX_EVENTS));
    let height = |rows: usize| if rows > 0 { rows + 1 } else { 0 };
    while lines + 1 + height(nodes) + height(events) > MAX_LINES && nodes + events > 0 {
        let has_more_nodes = nodes > events.max(1) || events == 0;
        *(if has_more_nodes { &mut nodes } else { &mut events }) -= 1;
    }
    let mut last = kept(at, &overview.kept, nodes, screen);
    if events > 0 {
        let has_room = lines + 1 + height(nodes) + height(events) < MAX_LINES;
        last += if has_room { "\n" } else { "" };
        last += &self::events(at, &overview.events[..events]).to_text(screen, 0);
    }
    parts.push(last);
    parts.join("\n")
}

fn crawl_and_database(overview: &Overview) -> Table {
    let mut table = Table::new(&["", ""]);
    table.row(["crawl", &crawl(overview)]);
    let database = &overview.database;
    let mut text = format!("{}, {} MB", database.name, grouped(database.bytes / 1_000_000));
    if let Some(candidates) = overview.passes.first().and_then(|pass| pass.candidates) {
        text += &format!(", {} candidates that never responded", grouped(candidates));
    }
    table.row(["database", &text]);
    table
}

/// What is most common among the nodes up, and the last 30 days.
fn shares_and_days(overview: &Overview, screen: &Screen) -> Table {
    let mut table = Table::new(&["", ""]);
    let up: i64 = overview.species.iter().map(|line| line.up).sum();
    let shares = [
        ("releases", &overview.releases),
        ("countries", &overview.countries),
        ("networks", &overview.networks),
    ];
    for (title, lines) in shares.into_iter().filter(|(_, lines)| !lines.is_empty()) {
        let shares = lines.iter().map(|line| share(line, up, screen));
        table.row([title, &fitted(shares, screen.width.map(|width| width.saturating_sub(TITLE)))]);
    }
    for (title, days) in [("TRB", &overview.trb_days), ("all nodes", &overview.up_days)] {
        if days.len() >= MIN_DAYS {
            let values = by_day(overview.at, days);
            table.row([title, &format!("{} {}", spark_line(&values, screen), range(days))]);
        }
    }
    table
}

fn share(line: &ShareLine, all: i64, screen: &Screen) -> String {
    // Rounded down, as everywhere.
    let text = match 100 * line.up / all.max(1) {
        0 => "< 1 %".to_owned(),
        percent => format!("{percent} %"),
    };
    format!("{text} {}", cut(&safe(&line.value), MAX_VALUE, screen))
}

/// As many items as the width has room for, at least one.
fn fitted(items: impl Iterator<Item = String>, width: Option<usize>) -> String {
    let mut text = String::new();
    for item in items {
        let longer = if text.is_empty() { item } else { format!("{text}, {item}") };
        if !text.is_empty() && width.is_some_and(|width| longer.width() > width) {
            break;
        }
        text = longer;
    }
    text
}

/// What changed how nodes are counted since the times that the table compares with.
fn note(overview: &Overview) -> Option<String> {
    let (at, note) = (overview.at, overview.notes.first()?);
    let is_recent = at.0.since(note.at.0) <= NOTE_AGE;
    is_recent.then(|| format!("Counted otherwise since {}: {}", ago(at, note.at), note.text))
}

/// The values of the last 30 days (UTC), today last; `None` for a day without a pass.
fn by_day(at: Timestamp, days: &[DayLine]) -> Vec<Option<f32>> {
    let number = |time: Timestamp| time.0.as_secs().div_euclid(86_400);
    let today = number(at);
    let of_day = |ago| days.iter().rev().find(|day| number(day.at) == today - ago);
    (0..DAYS).rev().map(|ago| of_day(ago).map(|day| day.nodes)).collect()
}

/// The lowest and the highest value.
fn range(days: &[DayLine]) -> String {
    let values = || days.iter().map(|day| day.nodes.round() as i64);
    let (lowest, highest) = (values().min().unwrap_or(0), values().max().unwrap_or(0));
    match lowest == highest {
        true => format!("{} up in 30 days", grouped(lowest)),
        false => format!("{} to {} up in 30 days", grouped(lowest), grouped(highest)),
    }
}

/// Events of TRB and named nodes.
fn events(at: Timestamp, events: &[EventLine]) -> Table {
    let mut table = Table::new(&["event", "", "node", "before", "after"])
        .fitted_by(&["after", "before", "node"], &["before"]);
    for event in events {
        let address = match (event.host, event.port) {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            _ => "-".to_owned(),
        };
        let text = |text: &Option<String>| text.clone().unwrap_or_else(|| "-".to_owned());
        table.row([
            ago(at, event.at),
            event.kind.clone(),
            event.name.clone().unwrap_or(address),
            text(&event.before),
            text(&event.after),
        ]);
    }
    table
}

/// Whether a crawl is running, and how far it is.
fn crawl(overview: &Overview) -> String {
    let at = overview.at;
    let Some(pass) = overview.passes.first() else {
        let is_running = overview.is_running;
        return if is_running { "starting its first pass" } else { "has not started yet" }
            .to_owned();
    };
    let number = pass.pass;
    match (overview.is_running, pass.finished_at) {
        (true, None) => {
            let since = ago(at, pass.started_at);
            format!("running: pass {number} started {since}{}", progress(pass))
        }
        (true, Some(end)) => format!("running: pass {number} finished {}", ago(at, end)),
        (false, None) => format!(
            "not running: pass {number} was interrupted{}; the next start resumes it",
            progress(pass)
        ),
        (false, Some(end)) => format!("not running: pass {number} finished {}", ago(at, end)),
    }
}

/// The share of a pass that is done.
fn progress(pass: &PassLine) -> String {
    let all = pass.due.max(pass.probed);
    // Rounded down: only a finished pass shows 100 %.
    let share = if all == 0 { 0 } else { 100 * pass.probed / all };
    let uplink = if pass.uplink_was_down { "; our uplink was down" } else { "" };
    format!(", {share} % of {} probed, {} responded{uplink}", grouped(all), grouped(pass.responded))
}

fn species(overview: &Overview) -> Table {
    let mut table =
        Table::new(&["species", ">up", ">full", ">down", ">since yesterday", ">last week"])
            .fitted_by(&[], &["last week", "since yesterday"]);
    let mut row = |name: &str, lines: &[SpeciesLine]| {
        let sum = |figure: fn(&SpeciesLine) -> i64| lines.iter().map(figure).sum::<i64>();
        let up = sum(|line| line.up);
        let change = |then: fn(&SpeciesLine) -> Option<i64>| {
            let then: Option<i64> = lines.iter().map(then).sum();
            let then = then.filter(|_| !lines.is_empty());
            then.map_or_else(|| "-".to_owned(), |then| signed(up - then))
        };
        table.row([
            name.to_owned(),
            grouped(up),
            grouped(sum(|line| line.full)),
            grouped(sum(|line| line.down)),
            change(|line| line.up_yesterday),
            change(|line| line.up_last_week),
        ]);
    };
    let lines = &overview.species;
    let shown = if lines.len() > MAX_SPECIES { MAX_SPECIES - 1 } else { lines.len() };
    for line in &lines[..shown] {
        row(&line.species, std::slice::from_ref(line));
    }
    if shown < lines.len() {
        row(&format!("{} more species", lines.len() - shown), &lines[shown..]);
    }
    row("all", lines);
    table
}

fn signed(change: i64) -> String {
    if change > 0 { format!("+{}", grouped(change)) } else { grouped(change) }
}

/// TRB and named nodes: how many are up, and the first `shown` of the others.
fn kept(at: Timestamp, kept: &[NodeFacts], shown: usize, screen: &Screen) -> String {
    if kept.is_empty() {
        return "No TRB node and no named node is known yet.\n".to_owned();
    }
    let (up, others): (Vec<&NodeFacts>, Vec<&NodeFacts>) =
        kept.iter().partition(|node| node.status == "up");
    let title = format!("TRB and named nodes: {} of {} up", up.len(), kept.len());
    let mut text = screen.paint(Paint::Heading, &title).into_owned();
    if shown < others.len() {
        text += &format!("; {shown} of the other {}:", others.len());
    }
    text.push('\n');
    if shown > 0 {
        text += &nodes::table(at, others[..shown].iter().copied(), nodes::Sort::Status)
            .to_text(screen, 0);
    }
    text
}

fn address_text(config: &Config, moment: &Moment, facts: &AddressFacts, screen: &Screen) -> String {
    let at = moment.at;
    let title = format!("{}:{}", facts.host, facts.port);
    let mut text = screen.paint(Paint::Heading, &title).into_owned() + "\n";
    // Without the exclude files, the keys count.
    let filter = config.load_filter();
    let filter =
        filter.unwrap_or_else(|_| Filter::new(&config.filter.exclude, &config.filter.only));
    let age = |time: Timestamp| format!("{} ago", span(at.0.since(time.0)));
    let why = listing(config, facts.into(), &age);
    for sentence in [why, next_probe(&filter, moment, facts)] {
        text += &(wrapped(&safe(&sentence), screen.width).join("\n") + "\n");
    }
    text.push('\n');
    let mut table = Table::new(&["", ""]);
    table.row(["first heard of", &when(at, facts.first_heard)]);
    table.row(["last heard of", &when(at, facts.last_heard)]);
    let probed = match (facts.last_probed, &facts.last_outcome) {
        (Some(time), Some(outcome)) => format!("{}, {outcome}", when(at, time)),
        _ => "never".to_owned(),
    };
    table.row(["last probed", &probed]);
    table.row(["failures in a row", &facts.failures.to_string()]);
    table.row(["next probe", &when(at, facts.next_probe)]);
    if let Some(node) = &facts.node {
        node_rows(at, node, &mut table);
        uptime_rows(at, facts, &mut table);
    }
    text += &table.without_headings(screen, 0);
    if !facts.probes.is_empty() {
        text += &format!("\n{}\n", screen.paint(Paint::Heading, "Last results"));
        text += &probes(at, &facts.probes).to_text(screen, 0);
    }
    text
}

fn node_rows(at: Timestamp, node: &NodeFacts, table: &mut Table) {
    if let Some(name) = &node.name {
        table.row(["name", name]);
    }
    table.row(["status", &node.status]);
    table.row(["first seen", &when(at, node.first_seen)]);
    table.row(["last seen", &when(at, node.last_seen)]);
    table.row(["species", &species_text(&node.species, node.release.as_deref())]);
    table.row(["protocol version", &node.protocol_version.to_string()]);
    table.row(["user agent", node.user_agent.as_deref().unwrap_or("not sent")]);
    let services = node.services.cast_unsigned();
    let names = bitdash_core::lookup::services::names(services).join(" ");
    table.row(["services", format!("{services:#x} {names}").trim_end()]);
    table.row(["height", &node.start_height.map_or("not sent".to_owned(), |h| h.to_string())]);
    let relay = node.relay.map_or("not sent", |relay| if relay { "yes" } else { "no" });
    table.row(["relay", relay]);
    table.row([
        "connect, version",
        &format!("{}, {} ms", or_dash(node.connect_ms), or_dash(node.version_ms)),
    ]);
    if let Some(country) = &node.country {
        table.row(["country", country]);
    }
    if let Some(asn) = node.asn {
        table.row(["network", &format!("AS{asn} {}", node.as_name.as_deref().unwrap_or(""))]);
    }
    let peers = match (node.peers_asked_at, node.peers_sent) {
        (Some(time), Some(sent)) => {
            format!("{} sent, asked {}", grouped(sent.into()), when(at, time))
        }
        _ => "no complete reply yet".to_owned(),
    };
    table.row(["peers", &peers]);
}

/// In how many passes it answered or was full.
fn uptime_rows(at: Timestamp, facts: &AddressFacts, table: &mut Table) {
    for line in facts.uptime.iter().filter(|line| line.passes > 0) {
        let heading = match line.period.as_str() {
            "all" => "uptime, in all".to_owned(),
            period => format!("uptime, last {period}"),
        };
        // Rounded down: only a node that always answered shows 100 %.
        let permille = 1_000 * line.answered / line.passes;
        let (answered, passes) = (grouped(line.answered), grouped(line.passes));
        let text = format!("{}.{} %, {answered} of {passes} passes", permille / 10, permille % 10);
        table.row([heading.as_str(), &text]);
    }
    if let Some(since) = facts.up_since {
        table.row(["without a gap since", &when(at, since)]);
    }
    if !facts.strip.is_empty() {
        table.row(["last passes", &format!("{} (# up, o full, . down)", facts.strip)]);
    }
}

fn probes(at: Timestamp, probes: &[ProbeLine]) -> Table {
    let mut table = Table::new(&[
        ">pass",
        "probed",
        "outcome",
        ">version",
        ">height",
        ">connect ms",
        ">version ms",
        ">peers",
        "user agent",
    ])
    .fitted_by(&["user agent"], &["version ms", "version", "peers", "height", "connect ms"]);
    for probe in probes {
        table.row([
            probe.pass.to_string(),
            ago(at, probe.probed_at),
            probe.outcome.clone(),
            or_dash(probe.protocol_version),
            or_dash(probe.start_height),
            or_dash(probe.connect_ms),
            or_dash(probe.version_ms),
            or_dash(probe.peers_sent),
            probe.user_agent.clone().unwrap_or_else(|| "-".to_owned()),
        ]);
    }
    table
}

/// A number, or a dash for none.
pub fn or_dash(value: Option<i32>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A time relative to now.
pub fn ago(at: Timestamp, time: Timestamp) -> String {
    if time.0 > at.0 {
        return format!("in {}", span(time.0.since(at.0)));
    }
    match at.0.since(time.0) {
        age if age < Duration::from_secs(1) => "just now".to_owned(),
        age => format!("{} ago", span(age)),
    }
}

/// A time as a date and relative to now.
fn when(at: Timestamp, time: Timestamp) -> String {
    format!("{} ({})", time.to_text(), ago(at, time))
}

#[cfg(test)]
mod tests {
    use super::*;
    use bitdash_core::vocabulary::time::UnixTime;

    #[test]
    fn times_before_and_after_now_are_shown_relative_to_it() {
        let now = Timestamp(UnixTime::from_secs(1_000_000));
        let at = |offset: i64| Timestamp(UnixTime::from_secs(1_000_000 + offset));
        assert_eq!(ago(now, at(0)), "just now");
        assert_eq!(ago(now, at(-90)), "1m 30s ago");
        assert_eq!(ago(now, at(3600)), "in 1h 0m");
    }
}
