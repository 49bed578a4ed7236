//! Why an address is or is not listed as up, and when it is tried next, in a sentence each.

use std::time::Duration;

use crate::commands::table::span;
use crate::config::Config;
use crate::db::reader::AddressFacts;
use crate::db::timestamp::Timestamp;
use bitdash_core::vocabulary::outcome::Outcome;

/// Why the address is or is not listed as up.
pub fn listing(config: &Config, at: Timestamp, facts: &AddressFacts) -> String {
    let outcome = facts.last_outcome.as_deref().and_then(|word| word.parse().ok());
    let why = match (outcome, facts.last_probed) {
        (Some(outcome), Some(time)) => {
            let waited = waited(config, outcome, facts.node.is_some());
            format!("at the last probe, {} ago, {}", age(at, time), outcome.explanation(waited))
        }
        _ => "it has not been probed yet".to_owned(),
    };
    let Some(node) = &facts.node else {
        return match facts.last_probed {
            Some(_) => format!("Not listed, since it never responded: {why}."),
            None => format!("Not listed: {why}."),
        };
    };
    let seen = age(at, node.last_seen);
    match node.status.as_str() {
        "up" => format!("Listed as up: it responded {seen} ago."),
        "full" => format!(
            "Listed as full, which is not down: it responded {seen} ago, and {why}. Most full \
             nodes have reached their limit of connections."
        ),
        _ => format!("Listed as down: it responded {seen} ago, but {why}."),
    }
}

/// When the address is tried next.
pub fn next_probe(at: Timestamp, facts: &AddressFacts) -> String {
    if facts.next_probe.0 > at.0 {
        return format!("It is tried again in {}.", span(facts.next_probe.0.since(at.0)));
    }
    format!("It is due for {} and is tried in the next pass.", age(at, facts.next_probe))
}

fn age(at: Timestamp, time: Timestamp) -> String {
    span(at.0.since(time.0))
}

/// How long a probe with this outcome waits.
fn waited(config: &Config, outcome: Outcome, is_node: bool) -> Duration {
    match outcome {
        Outcome::HandshakeTimeout => config.crawl.handshake_timeout,
        _ if is_node => config.crawl.connect_timeout,
        _ => config.crawl.candidate_connect_timeout,
    }
}
