//! `bitdash probe`: probes single nodes (see [`super::visit`]) and prints their replies as tables
//! or JSON.

pub mod facts;
pub mod steps;

use std::time::Duration;

use clap::ValueHint;

use self::facts::{Facts, age, host_text, offset};
use crate::commands::screen::Screen;
use crate::commands::table::{Table, hanging, safe, span};
use crate::commands::visit::{Found, Purpose, Row, Visitor, judge};
use crate::commands::{Failure, HostPort, print, species_text};
use crate::config::{Config, ConfigSource};
use crate::db::timestamp::Timestamp;
use crate::net::nodes_file::{Host, Line, NodesFile};
use crate::sys::text_file;
use bitdash_core::lookup::services;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::target::{ProbeResult, VersionInfo};
use bitdash_core::vocabulary::time::UnixTime;
use watchglass::{NetworkAddress, Version};

/// The arguments.
#[derive(Clone, PartialEq, Eq, Debug, Default, clap::Args)]
pub struct Options {
    /// Also ask for peers and list their ages and services; takes up to crawl.addr_timeout
    #[arg(long)]
    pub peers: bool,
    /// Print JSON instead of tables: one line per address
    #[arg(long)]
    pub json: bool,
    /// Show every message of the conversation; with --peers until the end of the reply
    #[arg(long)]
    pub trace: bool,
    /// Claim this protocol version instead of network.protocol_version
    #[arg(long, value_name = "N", allow_negative_numbers = true, value_hint = ValueHint::Other)]
    pub protocol_version: Option<i32>,
    /// Claim this user agent instead of network.user_agent
    #[arg(long, value_name = "S", value_parser = agent, value_hint = ValueHint::Other)]
    pub user_agent: Option<String>,
}

fn agent(text: &str) -> Result<String, String> {
    let fits = text.len() <= 256 && text.bytes().all(|byte| matches!(byte, b' '..=b'~'));
    fits.then(|| text.to_owned())
        .ok_or_else(|| "must be at most 256 printable ASCII characters".to_owned())
}

/// Probes all `places` in parallel and prints the results. A name of the nodes file is the nodes on
/// its lines, as in `status`.
///
/// # Errors
/// The configuration is invalid; or, after everything is printed, a node has not responded.
pub fn run(
    source: &ConfigSource,
    places: Vec<HostPort>,
    options: &Options,
    screen: &Screen,
) -> Result<(), Failure> {
    let config = source.load()?;
    let lines = lines(&config, &places)?;
    let rules = source.load_species()?.rules;
    let mut visitor = Visitor::new(&config, rules, Purpose::Probe { wants_peers: options.peers })?;
    visitor.set_claims(options.protocol_version, options.user_agent.as_deref());
    let rows = visitor.visit(lines)?;
    print(&text(&rows, options, screen))?;
    judge(&rows)
}

/// The hosts to visit. Without a readable nodes file no node has a name.
fn lines(config: &Config, places: &[HostPort]) -> Result<Vec<Line>, Failure> {
    let has_name = places.iter().any(|place| matches!(place.host, Host::Name(_)));
    let file = &config.crawl.nodes_file;
    let known = match has_name && !text_file::is_pipe(file) {
        true => NodesFile::read(file, config.network.port).unwrap_or_default().lines,
        false => Vec::new(),
    };
    let mut lines = Vec::new();
    for (index, place) in places.iter().enumerate() {
        let is_meant = |line: &&Line| match (&place.host, &line.name) {
            (Host::Name(name), Some(known)) => known.to_lowercase() == *name,
            _ => false,
        };
        let before = lines.len();
        lines.extend(known.iter().filter(is_meant).map(|line| Line {
            number: index + 1,
            port: place.port.unwrap_or(line.port),
            ..line.clone()
        }));
        if lines.len() == before && place.is_no_host() {
            let (name, file) = (safe(&place.to_string()), file.display());
            return Err(Failure::Failed(format!("no node of {file} has the name {name}")));
        }
        if lines.len() == before {
            lines.push(Line {
                number: index + 1,
                host: place.host.clone(),
                port: place.port.unwrap_or(config.network.port),
                name: None,
            });
        }
    }
    Ok(lines)
}

fn text(rows: &[Row], options: &Options, screen: &Screen) -> String {
    if options.json {
        return rows.iter().map(|row| Facts::of(row, options).to_line()).collect();
    }
    let blocks: Vec<String> = rows.iter().map(|row| block(row, options, screen)).collect();
    blocks.join("\n")
}

/// The output for one address.
fn block(row: &Row, options: &Options, screen: &Screen) -> String {
    let title = match row.label() {
        Some(name) => format!("{} ({})", row.endpoint(), safe(&name)),
        None => row.endpoint(),
    };
    let found = match &row.found {
        Ok(found) => found,
        // The reason contains the host.
        Err(why) if row.address.is_none() => return hanging(&safe(why), screen.width),
        Err(why) => return hanging(&format!("{title}: {}", safe(why)), screen.width),
    };
    let result = &found.result;
    let outcome = match result.outcome {
        Outcome::Responded => format!("{title}: {}", result.outcome),
        failed => {
            let waited = found.trace.steps.last().map_or(Duration::ZERO, |step| step.at);
            format!("{title}: {failed}: {}", failed.explanation(waited))
        }
    };
    let mut out = hanging(&outcome, screen.width);
    if result.connect_ms.is_some() {
        out.push_str(&fields(found, options.peers).without_headings(screen, 2));
    }
    if options.trace {
        out.push_str(&format!("\n  Conversation\n{}", steps::lines(&found.trace, screen, 2)));
    }
    if options.peers && !result.peers.is_empty() {
        out.push_str(&format!("\n  Peers\n{}", peers(result).to_text(screen, 2)));
    }
    out
}

fn fields(found: &Found, asks_peers: bool) -> Table {
    let result = &found.result;
    let ms = |value: Option<u32>| value.map_or("-".to_owned(), |ms| format!("{ms} ms"));
    let mut table = Table::new(&["", ""]);
    table.row(["connected after", &ms(result.connect_ms)]);
    let Some(info) = &result.version else { return table };
    table.row(["version after", &format!("{} more", ms(result.version_ms))]);
    if let Some(lineage) = &found.lineage {
        table.row(["species", &species_text(&lineage.species, lineage.release.as_deref())]);
    }
    table.row(["protocol version", &info.protocol_version.to_string()]);
    table.row(["user agent", &agent_text(info, found.trace.version())]);
    table.row(["services", &services_text(info.services)]);
    table.row(["time", &time_text(info, result.probed_at)]);
    table.row(["height", &info.start_height.map_or("not sent".to_owned(), |h| h.to_string())]);
    let relay =
        info.relay.map_or("not sent, which means yes", |yes| if yes { "yes" } else { "no" });
    table.row(["relay", relay]);
    if let Some(version) = found.trace.version() {
        more_fields(version, &mut table);
    }
    if asks_peers {
        table.row(["peers", &peers_text(result)]);
    }
    table
}

/// The fields that the crawl does not store.
fn more_fields(version: &Version, table: &mut Table) {
    let place = |address: &NetworkAddress| {
        let services = services_text(address.services);
        if address.ip == [0; 16] {
            format!("unspecified, services {services}")
        } else {
            format!("{} port {}, services {services}", host_text(address), address.port)
        }
    };
    table.row(["sees us as", &place(&version.addr_recv)]);
    let own = version.addr_from.as_ref().map_or("not sent".to_owned(), place);
    table.row(["sees itself as", &own]);
    let nonce = version.nonce.map_or("not sent".to_owned(), |nonce| format!("{nonce:016x}"));
    table.row(["nonce", &nonce]);
    if version.trailing > 0 {
        table.row(["unknown bytes", &format!("{} after the last known field", version.trailing)]);
    }
}

fn agent_text(info: &VersionInfo, version: Option<&Version>) -> String {
    let Some(agent) = &info.user_agent else { return "not sent".to_owned() };
    let length = version.map_or(0, |version| version.user_agent_length);
    match agent.as_str() {
        "" => "empty".to_owned(),
        agent if length > 256 => format!("{agent} (the first 256 of {length} bytes)"),
        agent => agent.to_owned(),
    }
}

fn services_text(bits: u64) -> String {
    match services::names(bits).join(" ") {
        names if names.is_empty() => "none".to_owned(),
        names => format!("{names} ({bits:#x})"),
    }
}

fn time_text(info: &VersionInfo, at: UnixTime) -> String {
    let theirs = Timestamp(UnixTime::from_secs(info.timestamp)).to_text();
    let offset = offset(info, at);
    let far = span(Duration::from_secs(offset.unsigned_abs()));
    match offset {
        0 => format!("{theirs}, as ours"),
        1.. => format!("{theirs}, {far} ahead of ours"),
        _ => format!("{theirs}, {far} behind ours"),
    }
}

fn peers_text(result: &ProbeResult) -> String {
    match result.peers_sent {
        None if result.target.wants_peers() => {
            "asked, and cut off before the reply was complete".to_owned()
        }
        None => "not asked".to_owned(),
        Some(0) if result.peers.is_empty() => "none sent".to_owned(),
        Some(0) => "none sent except its own address".to_owned(),
        Some(sent) => format!("{sent} sent, {} IPv4 addresses in all", result.peers.len()),
    }
}

fn peers(result: &ProbeResult) -> Table {
    let mut table = Table::new(&["address", ">last seen", "services"]);
    for peer in &result.peers {
        let seen = match age(peer, result.probed_at) {
            None => "-".to_owned(),
            Some(age @ 0..) => format!("{} ago", span(Duration::from_secs(age.unsigned_abs()))),
            Some(age) => format!("in {}", span(Duration::from_secs(age.unsigned_abs()))),
        };
        table.row([peer.address.to_string(), seen, services_text(peer.services)]);
    }
    table
}
