//! `bitdash status`: what the database contains, as tables or JSON.
//!
//! Read-only; gives up if the database is unreachable.

use std::time::Duration;

use serde_json::json;

use crate::commands::table::{Table, cut, grouped, safe, safe_json, span};
use crate::commands::{Failure, HostPort, print};
use crate::config::ConfigSource;
use crate::db::StoreError;
use crate::db::reader::{
    AddressFacts, NodeFacts, NodeLine, Overview, PassLine, ProbeLine, Reader, SpeciesLine, Wanted,
};
use crate::db::timestamp::Timestamp;
use crate::net::nodes_file::Host;

/// Prints the state of the map, or everything known about `place`: an address, every port of a
/// host, or the nodes of a name.
///
/// # Errors
/// The configuration is invalid, or the database cannot be read.
pub fn run(source: &ConfigSource, place: Option<&HostPort>, is_json: bool) -> Result<(), Failure> {
    let config = source.load()?;
    let text = text(config.database.url.expose(), place, is_json);
    print(&text.map_err(|error| Failure::failed(&error))?)
}

/// The output of [`run`] for the database at `url`.
///
/// # Errors
/// The database cannot be read.
pub fn text(url: &str, place: Option<&HostPort>, is_json: bool) -> Result<String, StoreError> {
    let mut reader = Reader::open(url)?;
    let Some(wanted) = place.map(wanted_of) else {
        let overview = reader.overview()?;
        return Ok(if is_json { json_text(&overview) } else { overview_text(&overview) });
    };
    let (at, found) = reader.addresses(&wanted)?;
    Ok(if is_json {
        json_text(&json!({ "at": at, "addresses": found }))
    } else {
        addresses_text(at, &wanted, &found)
    })
}

fn wanted_of(place: &HostPort) -> Wanted {
    match (&place.host, place.port) {
        (Host::Ip(ip), None) => Wanted::Host(*ip),
        (Host::Ip(ip), Some(port)) => Wanted::Address(*ip, port),
        (Host::Name(name), _) => Wanted::Name(name.clone()),
    }
}

fn json_text(value: &impl serde::Serialize) -> String {
    let json = serde_json::to_string_pretty(value).expect("all keys are strings");
    safe_json(&json) + "\n"
}

fn overview_text(overview: &Overview) -> String {
    let at = overview.at;
    let mut sections = vec![
        section(
            "Passes, the newest first",
            passes(at, &overview.passes),
            "no pass has started yet",
        ),
        section("Nodes by species", species(&overview.species), "no address has responded yet"),
        candidates(overview),
    ];
    if !overview.kept.is_empty() {
        sections.push(section("TRB and named nodes", nodes(at, &overview.kept), ""));
    }
    sections.push(section("Newest nodes", nodes(at, &overview.newest), "none"));
    sections.join("\n")
}

fn section(title: &str, table: Table, if_empty: &str) -> String {
    if table.is_empty() {
        format!("{title}: {if_empty}\n")
    } else {
        format!("{title}\n{}", indented(&table.to_text()))
    }
}

fn passes(at: Timestamp, passes: &[PassLine]) -> Table {
    let mut table = Table::new(&[
        ">pass",
        "started",
        "state",
        ">probed",
        ">responded",
        ">failed",
        ">new nodes",
        ">new addresses",
    ]);
    for pass in passes {
        let state = match pass.finished_at {
            Some(end) => format!("took {}", span(end.0.since(pass.started_at.0))),
            None => "not finished".to_owned(),
        };
        table.row([
            pass.pass.to_string(),
            ago(at, pass.started_at),
            state,
            grouped(pass.probed),
            grouped(pass.responded),
            grouped(pass.failed),
            grouped(pass.new_nodes),
            grouped(pass.new_addresses),
        ]);
    }
    table
}

fn species(species: &[SpeciesLine]) -> Table {
    let mut table = Table::new(&["species", ">up", ">full", ">down", ">known"]);
    let mut row = |name: &str, up: i64, full: i64, down: i64| {
        let known = up.saturating_add(full).saturating_add(down);
        let cells = [up, full, down, known].map(grouped);
        table.row(std::iter::once(name.to_owned()).chain(cells));
    };
    for line in species {
        row(&line.species, line.up, line.full, line.down);
    }
    if !species.is_empty() {
        let sum = |figure: fn(&SpeciesLine) -> i64| species.iter().map(figure).sum();
        row("all", sum(|line| line.up), sum(|line| line.full), sum(|line| line.down));
    }
    table
}

fn candidates(overview: &Overview) -> String {
    let count = &overview.candidates;
    format!(
        "Candidates: {} addresses that never responded, {} of them not probed yet, {} due now\n",
        grouped(count.all),
        grouped(count.never_probed),
        grouped(count.due)
    )
}

fn nodes(at: Timestamp, nodes: &[NodeLine]) -> Table {
    let mut table = Table::new(&[
        "address",
        "name",
        "status",
        "species",
        ">version",
        ">height",
        "last seen",
        "first seen",
        "user agent",
    ]);
    for node in nodes {
        table.row([
            format!("{}:{}", node.host, node.port),
            cut(node.name.as_deref().unwrap_or("-"), 24),
            node.status.clone(),
            node.species.clone(),
            node.protocol_version.to_string(),
            or_dash(node.start_height),
            ago(at, node.last_seen),
            ago(at, node.first_seen),
            cut(node.user_agent.as_deref().unwrap_or("-"), 48),
        ]);
    }
    table
}

fn addresses_text(at: Timestamp, wanted: &Wanted, found: &[AddressFacts]) -> String {
    if found.is_empty() {
        return match wanted {
            Wanted::Host(host) => format!("{host}: unknown\n"),
            Wanted::Address(host, port) => format!("{host}:{port}: unknown\n"),
            Wanted::Name(name) => format!("{}: no node has this name\n", safe(name)),
        };
    }
    let texts: Vec<String> = found.iter().map(|facts| address_text(at, facts)).collect();
    texts.join("\n")
}

fn address_text(at: Timestamp, facts: &AddressFacts) -> String {
    let kind = match &facts.node {
        Some(node) => format!("node, {}", node.line.status),
        None => "candidate, never responded".to_owned(),
    };
    let mut table = Table::new(&[&format!("{}:{}", facts.host, facts.port), &safe(&kind)]);
    let probed = match (facts.last_probed, &facts.last_outcome) {
        (Some(time), Some(outcome)) => format!("{}, {outcome}", when(at, time)),
        _ => "never".to_owned(),
    };
    table.row(["first heard of", &when(at, facts.first_heard)]);
    table.row(["last heard of", &when(at, facts.last_heard)]);
    table.row(["last probed", &probed]);
    table.row(["failures in a row", &facts.failures.to_string()]);
    table.row(["next probe", &when(at, facts.next_probe)]);
    if let Some(node) = &facts.node {
        node_rows(at, node, &mut table);
    }
    let mut text = table.to_text();
    if !facts.probes.is_empty() {
        text.push_str("\nLast results\n");
        text.push_str(&indented(&probes(at, &facts.probes).to_text()));
    }
    text
}

fn node_rows(at: Timestamp, node: &NodeFacts, table: &mut Table) {
    let line = &node.line;
    if let Some(name) = &line.name {
        table.row(["name", name]);
    }
    table.row(["first seen", &when(at, line.first_seen)]);
    table.row(["last seen", &when(at, line.last_seen)]);
    table.row(["species", &line.species]);
    table.row(["protocol version", &line.protocol_version.to_string()]);
    table.row(["user agent", line.user_agent.as_deref().unwrap_or("not sent")]);
    table.row(["services", &format!("{:#x}", node.services)]);
    table.row(["height", &line.start_height.map_or("not sent".to_owned(), |h| h.to_string())]);
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
        (Some(time), Some(sent)) => format!("{sent} sent, asked {}", when(at, time)),
        _ => "no complete reply yet".to_owned(),
    };
    table.row(["peers", &peers]);
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
    ]);
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
            cut(probe.user_agent.as_deref().unwrap_or("-"), 48),
        ]);
    }
    table
}

fn or_dash(value: Option<i32>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// A time relative to now.
fn ago(at: Timestamp, time: Timestamp) -> String {
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

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
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
