//! The zoo: named bad behaviours, each with a statement of what a crawler must record of it.
//!
//! Layer 2: pure data, and [`Antics`], the machine that plays it. A beast is a list of [`Act`]s; the tables
//! that follow are sorted by what is bad about them.
//!
//! Invariants:
//! 1. Names are unique, and say what happens.
//! 2. No beast names an address that anybody could answer at: its `addr` entries are private, IPv6, or have
//!    port 0.
//! 3. What a beast does depends on nothing but its acts, what it heard, and the time.

use std::collections::BTreeSet;

use crate::crawl::outcome::Outcome;
use crate::lookup::species::species;
use crate::watchglass::{MAX_SUBVERSION_LENGTH, text};

pub use act::Act;
pub use act::Flow;
pub use antics::Antics;

mod act;
mod agents;
mod antics;
mod endings;
mod frames;
mod layouts;
mod peers;
mod silence;
mod strangers;
mod streams;

/// A bad behaviour.
#[derive(Clone, Debug)]
pub struct Beast {
    /// Its name in `zoo.tsv`.
    pub name: &'static str,
    /// What it does, in one sentence.
    pub does: &'static str,
    /// What must be recorded of it.
    pub record: Record,
    /// What it does, one after the other; afterwards it keeps the connection and stays silent.
    pub acts: Vec<Act>,
    /// On how many ports of its host it answers.
    pub ports: usize,
    /// How many of these addresses may be recorded at most, the host being one.
    pub recorded: usize,
}

/// What must be recorded of a beast.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Record {
    /// A failure of this kind, and no node.
    Fails(Outcome),
    /// A node that responded and said this.
    Responds(Said),
}

/// What a node says of itself, as far as it is stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Said {
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

impl Said {
    /// What a beast says whose `version` is not what is bad about it.
    pub fn plain() -> Self {
        Self {
            protocol_version: 70_016,
            services: 1033,
            user_agent: Some(b"/zoo:1.0/".to_vec()),
            start_height: Some(946_947),
            relay: Some(true),
        }
    }

    /// The same with another user agent.
    pub fn agent(user_agent: &[u8]) -> Self {
        Self { user_agent: Some(user_agent.to_vec()), ..Self::plain() }
    }

    /// The user agent as it must be stored: the text of its first 256 bytes.
    pub fn text(&self) -> Option<String> {
        let bytes = self.user_agent.as_deref()?;
        Some(text::from_bytes(&bytes[..bytes.len().min(MAX_SUBVERSION_LENGTH)]))
    }

    /// The species as it must be stored.
    pub fn species(&self) -> &'static str {
        species(self.text().as_deref(), self.protocol_version, self.services)
    }
}

impl Beast {
    fn new(name: &'static str, does: &'static str, record: Record, acts: Vec<Act>) -> Self {
        Self { name, does, record, acts, ports: 1, recorded: 1 }
    }

    /// A beast that never gets to be a node.
    fn fails(name: &'static str, does: &'static str, outcome: Outcome, acts: Vec<Act>) -> Self {
        Self::new(name, does, Record::Fails(outcome), acts)
    }

    /// A beast that is a node all the same.
    fn responds(name: &'static str, does: &'static str, said: Said, acts: Vec<Act>) -> Self {
        Self::new(name, does, Record::Responds(said), acts)
    }

    /// How a probe of it must end.
    pub fn outcome(&self) -> Outcome {
        match self.record {
            Record::Fails(outcome) => outcome,
            Record::Responds(_) => Outcome::Responded,
        }
    }

    /// What it says of itself, where that must be recorded.
    pub fn said(&self) -> Option<&Said> {
        match &self.record {
            Record::Fails(_) => None,
            Record::Responds(said) => Some(said),
        }
    }

    /// What it does and what must be recorded of it, in one sentence.
    pub fn statement(&self) -> String {
        let record = match self.said() {
            None => format!("{}, and as no node", self.outcome()),
            Some(said) => {
                let or_nothing = |value: Option<String>| value.unwrap_or("not sent".to_owned());
                let mut agent = said.text();
                if let Some(text) = agent.as_mut().filter(|text| text.len() > 60) {
                    text.truncate(57);
                    text.push_str("...");
                }
                let relay = said.relay.map(|relay| if relay { "yes" } else { "no" }.to_owned());
                format!(
                    "responded, protocol version {}, user agent {}, services {}, height {}, relay {}",
                    said.protocol_version,
                    or_nothing(agent.map(|text| format!("\"{text}\""))),
                    said.services as i64,
                    or_nothing(said.start_height.map(|height| height.to_string())),
                    or_nothing(relay),
                )
            }
        };
        format!("{}; it must be recorded as {record}", self.does)
    }
}

/// All beasts, in the order of their tables.
pub fn all() -> Vec<Beast> {
    let tables = [
        silence::beasts(),
        strangers::beasts(),
        frames::beasts(),
        streams::beasts(),
        layouts::beasts(),
        agents::beasts(),
        endings::beasts(),
        peers::beasts(),
    ];
    let all: Vec<Beast> = tables.into_iter().flatten().collect();
    let names: BTreeSet<&str> = all.iter().map(|beast| beast.name).collect();
    debug_assert_eq!(names.len(), all.len(), "a name is used twice");
    all
}

#[cfg(test)]
mod tests;
