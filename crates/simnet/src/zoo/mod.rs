//! The zoo: named misbehaviours, each with what a crawler must record of it. Sans-I/O.
//!
//! A misbehaviour is a list of [`Step`]s that [`ScriptedPeer`] runs. The modules group them by what
//! is bad about them.
//!
//! Invariants:
//! 1. Names are unique.
//! 2. No `addr` entry of a misbehaviour can be dialled: all are private, IPv6, or have port 0.
//! 3. A peer's behaviour depends only on its steps, the bytes that it received, and the time.

use std::collections::BTreeSet;

use crate::verify::truth::NodeFields;
use bitdash_core::vocabulary::outcome::Outcome;
use watchglass::{MAX_SUBVERSION_LENGTH, NetworkAddress, Version, text};

/// A table of misbehaviours, one a row. A macro, so that rustfmt keeps the rows.
macro_rules! table {
    ($($row:expr;)*) => { vec![$($row),*] };
}

pub use scripted_peer::ScriptedPeer;
pub use step::Flow;
pub use step::Step;

mod agents;
mod endings;
mod frames;
mod layouts;
mod peers;
mod scripted_peer;
mod silence;
mod step;
mod strangers;
mod streams;

/// A misbehaviour.
#[derive(Clone, Debug)]
pub struct Misbehaviour {
    /// Its name in `truth.tsv`.
    pub name: &'static str,
    /// What it does, in one sentence without a full stop.
    pub does: &'static str,
    /// What must be recorded of it.
    pub expected: Expected,
    /// Its steps; afterwards it keeps the connection open and stays silent.
    pub steps: Vec<Step>,
    /// Number of ports of its host that answer.
    pub ports: usize,
    /// Maximum number of these addresses that the crawler records, since they share a host.
    pub max_recorded: usize,
}

/// What must be recorded of a misbehaviour.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Expected {
    /// A failure with this outcome, and no node.
    Fails(Outcome),
    /// A node that responded with these fields.
    Responds(Claimed),
}

/// The fields of a `version` that are stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Claimed {
    /// The protocol version.
    pub protocol_version: i32,
    /// The services.
    pub services: u64,
    /// The user agent's bytes, as sent; `None`: its `version` ends before it.
    pub user_agent: Option<Vec<u8>>,
    /// The height; `None`: its `version` ends before it.
    pub start_height: Option<i32>,
    /// The relay byte; `None`: its `version` ends before it.
    pub relay: Option<bool>,
}

impl Claimed {
    /// The clock of peers with these fields.
    pub const TIMESTAMP: i64 = 1_790_000_000;

    /// The `version` of a peer that misbehaves elsewhere.
    pub fn plain() -> Self {
        Self {
            protocol_version: 70_016,
            services: 1033,
            user_agent: Some(b"/zoo:1.0/".to_vec()),
            start_height: Some(946_947),
            relay: Some(true),
        }
    }

    /// The same with this user agent.
    pub fn agent(user_agent: &[u8]) -> Self {
        Self { user_agent: Some(user_agent.to_vec()), ..Self::plain() }
    }

    /// The whole `version`.
    pub fn version(&self) -> Version {
        Version {
            version: self.protocol_version,
            services: self.services,
            timestamp: Self::TIMESTAMP,
            addr_recv: NetworkAddress::UNSPECIFIED,
            addr_from: Some(NetworkAddress::UNSPECIFIED),
            nonce: Some(7),
            user_agent: self.user_agent.clone(),
            user_agent_length: self.user_agent.as_ref().map_or(0, |agent| agent.len() as u64),
            start_height: self.start_height,
            relay: self.relay,
            trailing: 0,
        }
    }

    /// The `version` message.
    pub fn message(&self) -> Vec<u8> {
        step::version(self)
    }

    /// The user agent as it must be stored: its first 256 bytes as text.
    pub fn text(&self) -> Option<String> {
        let bytes = self.user_agent.as_deref()?;
        Some(text::from_bytes(&bytes[..bytes.len().min(MAX_SUBVERSION_LENGTH)]))
    }
}

impl Misbehaviour {
    fn new(name: &'static str, does: &'static str, expected: Expected, steps: Vec<Step>) -> Self {
        Self { name, does, expected, steps, ports: 1, max_recorded: 1 }
    }

    /// How a probe of it must end.
    pub fn outcome(&self) -> Outcome {
        match self.expected {
            Expected::Fails(outcome) => outcome,
            Expected::Responds(_) => Outcome::Responded,
        }
    }

    /// The fields that must be recorded, if any.
    pub fn claimed(&self) -> Option<&Claimed> {
        match &self.expected {
            Expected::Fails(_) => None,
            Expected::Responds(claimed) => Some(claimed),
        }
    }

    /// What it does and how it must be recorded, in one sentence.
    pub fn statement(&self) -> String {
        let expected = match self.claimed() {
            None => format!("{}, and as no node", self.outcome()),
            Some(claimed) => format!("responded, {}", NodeFields::of_claimed(claimed)),
        };
        format!("{}; it must be recorded as {expected}", self.does)
    }
}

/// A misbehaviour that never becomes a node.
fn fails(
    name: &'static str,
    does: &'static str,
    outcome: Outcome,
    steps: Vec<Step>,
) -> Misbehaviour {
    Misbehaviour::new(name, does, Expected::Fails(outcome), steps)
}

/// A misbehaviour that is a node nevertheless.
fn responds(name: &'static str, does: &'static str, steps: Vec<Step>) -> Misbehaviour {
    responds_with(name, does, Claimed::plain(), steps)
}

/// The same with these fields.
fn responds_with(
    name: &'static str,
    does: &'static str,
    claimed: Claimed,
    steps: Vec<Step>,
) -> Misbehaviour {
    Misbehaviour::new(name, does, Expected::Responds(claimed), steps)
}

/// All misbehaviours.
pub fn all() -> Vec<Misbehaviour> {
    let tables = [
        silence::misbehaviours(),
        strangers::misbehaviours(),
        frames::misbehaviours(),
        streams::misbehaviours(),
        layouts::misbehaviours(),
        agents::misbehaviours(),
        endings::misbehaviours(),
        peers::misbehaviours(),
    ];
    let all: Vec<Misbehaviour> = tables.into_iter().flatten().collect();
    let names: BTreeSet<&str> = all.iter().map(|misbehaviour| misbehaviour.name).collect();
    debug_assert_eq!(names.len(), all.len(), "a name is used twice");
    all
}

#[cfg(test)]
mod tests;
