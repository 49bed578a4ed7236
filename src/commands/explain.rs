//! Why an address is or is not listed as up, when it is tried next, and what its owner can do, in a
//! sentence each. `status` and the website share them.

use std::time::Duration;

use crate::commands::table::span;
use crate::config::Config;
use crate::db::reader::{AddressFacts, Moment, NodeFacts};
use crate::db::timestamp::Timestamp;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::outcome::Outcome;

/// What the sentences depend on.
#[derive(Clone, Copy, Debug)]
pub struct Standing<'a> {
    /// Status and last response of a node; `None` if it never responded.
    pub node: Option<(&'a str, Timestamp)>,
    /// When it was first heard of.
    pub first_heard: Timestamp,
    /// When it was last probed.
    pub last_probed: Option<Timestamp>,
    /// How that probe ended.
    pub last_outcome: Option<&'a str>,
    /// When it is due.
    pub next_probe: Timestamp,
}

impl<'a> From<&'a AddressFacts> for Standing<'a> {
    fn from(facts: &'a AddressFacts) -> Self {
        Self {
            node: facts.node.as_ref().map(|node| (node.status.as_str(), node.last_seen)),
            first_heard: facts.first_heard,
            last_probed: facts.last_probed,
            last_outcome: facts.last_outcome.as_deref(),
            next_probe: facts.next_probe,
        }
    }
}

impl<'a> From<&'a NodeFacts> for Standing<'a> {
    fn from(node: &'a NodeFacts) -> Self {
        Self {
            node: Some((&node.status, node.last_seen)),
            first_heard: node.first_seen,
            last_probed: Some(node.last_probed),
            last_outcome: Some(&node.last_outcome),
            next_probe: node.next_probe,
        }
    }
}

impl Standing<'_> {
    fn outcome(&self) -> Option<Outcome> {
        self.last_outcome.and_then(|word| word.parse().ok())
    }
}

/// Why the address is or is not listed as up. `when` is the text of a time, such as "5m ago".
pub fn listing(config: &Config, standing: Standing, when: &dyn Fn(Timestamp) -> String) -> String {
    let why = match (standing.outcome(), standing.last_probed) {
        (Some(outcome), Some(time)) => {
            let waited = waited(config, outcome, standing.node.is_some());
            format!("at the last probe, {}, {}", when(time), outcome.explanation(waited))
        }
        _ => "it was not probed since".to_owned(),
    };
    let Some((status, seen)) = standing.node else {
        return match standing.last_probed {
            Some(_) => format!("Not listed, since it never responded: {why}."),
            None => {
                format!("Not tried yet: it was first heard of {}.", when(standing.first_heard))
            }
        };
    };
    let seen = when(seen);
    match status {
        "up" => format!("Listed as up: it responded {seen}."),
        "full" => format!(
            "Listed as full, which is not down: it responded {seen}, and {why}. Most full \
             nodes have reached their limit of connections."
        ),
        _ => format!("Listed as down: it responded {seen}, but {why}."),
    }
}

/// When the address is tried next, for one who waits at a terminal.
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

/// When the address is tried next, for one who reads it later.
pub fn next_pass(
    config: &Config,
    at: Timestamp,
    standing: Standing,
    when: &dyn Fn(Timestamp) -> String,
) -> String {
    let due = standing.next_probe;
    if due.0 <= at.0.plus(config.crawl.pass_interval) {
        return "It is tried again in the next pass.".to_owned();
    }
    format!("It is tried again in the first pass after {}.", when(due))
}

/// What the owner of a node that is not up can do.
pub fn advice(standing: Standing) -> Option<&'static str> {
    Some(match standing.outcome()? {
        Outcome::Responded => return None,
        Outcome::Refused => {
            "If it is yours: is it running, and does it listen on this port? Bitcoin Core needs listen=1."
        }
        Outcome::Unreachable | Outcome::ConnectTimeout => {
            "If it is yours: check from another network that the port accepts connections. Behind a \
             router forward the port; in a firewall open it."
        }
        Outcome::HandshakeTimeout => {
            "If it is yours: it accepts connections, but does not speak. Is it still starting, or out \
             of memory?"
        }
        Outcome::Closed => {
            "If it is yours: more maxconnections help if it is full; if not, see whether it bans \
             this crawler."
        }
        Outcome::NotBitcoin | Outcome::Malformed => {
            "If it is yours: what listens on this port does not speak this network's protocol."
        }
    })
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
