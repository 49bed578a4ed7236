//! Why an address is or is not listed as up, and when it is tried next, in a sentence each.

use std::time::Duration;

use crate::commands::table::span;
use crate::config::Config;
use crate::db::reader::{AddressFacts, Moment};
use crate::db::timestamp::Timestamp;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::outcome::Outcome;

/// Why the address is or is not listed as up.
pub fn listing(config: &Config, at: Timestamp, facts: &AddressFacts) -> String {
    let outcome = facts.last_outcome.as_deref().and_then(|word| word.parse().ok());
    let why = match (outcome, facts.last_probed) {
        (Some(outcome), Some(time)) => {
            let waited = waited(config, outcome, facts.node.is_some());
            format!("at the last probe, {} ago, {}", age(at, time), outcome.explanation(waited))
        }
        _ => "it was not probed since".to_owned(),
    };
    let Some(node) = &facts.node else {
        return match facts.last_probed {
            Some(_) => format!("Not listed, since it never responded: {why}."),
            None => {
                format!("Not tried yet: it was first heard of {} ago.", age(at, facts.first_heard))
            }
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
pub fn next_probe(filter: &Filter, moment: &Moment, facts: &AddressFacts) -> String {
    let at = moment.at;
    let address = Address::new(facts.host, u16::try_from(facts.port).unwrap_or_default());
    if let Err(why) = filter.check_named(address) {
        return format!("It is not tried any more: it is {why}.");
    }
    if facts.next_probe > at {
        let wait = span(facts.next_probe.0.since(at.0));
        return format!(
            "It is due in {wait} and is tried in the first pass that starts after that."
        );
    }
    let due = age(at, facts.next_probe);
    let pass = match (moment.is_running, moment.unfinished_since) {
        (true, Some(start)) if facts.next_probe <= start => "in the pass that is running",
        (true, _) => "in the next pass",
        (false, _) => "once a crawl runs: none does",
    };
    format!("It is due for {due} and is tried {pass}.")
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
