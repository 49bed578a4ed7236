//! Compares a map with the network that was crawled: the only implementation of that comparison.
//!
//! [`truth`] is what must be recorded, [`map`] is what was recorded, [`compare`] returns the
//! differences and [`check`] does all of it for a database and the directory of `serve`.
//! [`accuracy`] and [`conservation`] judge a crawl in virtual time while it runs.

pub mod accuracy;
pub mod conservation;
pub mod map;
pub mod truth;

use std::collections::{BTreeMap, BTreeSet};
use std::error::Error;
use std::fmt;
use std::path::Path;

use map::{Entry, Map};
use truth::{Kind, NodeFields, Row};

use crate::network::gossip::INVENTED_PORT;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::outcome::Outcome;

/// The result of a comparison.
#[derive(Clone, Default, Debug)]
pub struct Comparison {
    /// Nodes that are recorded as served.
    pub nodes: Share,
    /// Misbehaving addresses that are recorded as stated.
    pub zoo: Share,
    /// Dead addresses that are recorded as candidates which failed as they must.
    pub dead: Share,
    /// Dead addresses that were not probed, or never heard of: no difference, since a source over
    /// its quota waits for later passes.
    pub unprobed: usize,
    /// Everything that is not recorded as it must be.
    pub differences: Vec<Difference>,
}

/// How many of all.
#[derive(Clone, Copy, PartialEq, Eq, Default, Debug)]
pub struct Share {
    /// Those that are right.
    pub right: usize,
    /// Those that there are.
    pub all: usize,
}

/// An address that is not recorded as it must be.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Difference {
    /// The address.
    pub address: Address,
    /// What it is in the network: a [`Row::label`].
    pub label: String,
    /// What is wrong.
    pub problem: Problem,
}

/// What can be wrong with the record of an address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Problem {
    /// There is no record, or none with the fields of a node.
    Missing,
    /// The last probe ended differently, or was not followed by the right number of failures.
    Outcome {
        /// How it must end.
        expected: Outcome,
        /// How it ended, and the failures in a row.
        found: (Option<Outcome>, u32),
    },
    /// The fields of a node differ.
    Fields {
        /// As served.
        expected: Box<NodeFields>,
        /// As recorded.
        found: Box<NodeFields>,
    },
    /// It never sent a `version` and is recorded as a node.
    NoNode,
    /// There is no such address in the network.
    Unknown,
    /// More addresses of its host are recorded than the crawler may remember.
    TooMany,
}

impl Problem {
    /// Whether time cannot mend it: what is recorded was never true.
    pub fn is_contradiction(&self) -> bool {
        !matches!(self, Self::Missing | Self::Outcome { .. })
    }
}

/// Compares the database at `url` with the network whose files are in `dir`.
///
/// # Errors
///
/// If the file or the database cannot be read.
pub fn check(url: &str, dir: &Path) -> Result<Comparison, Box<dyn Error>> {
    let truth = truth::read(dir)?;
    Ok(compare(&truth, &Map::read(url)?))
}

/// Compares what was recorded with what must be recorded.
pub fn compare(truth: &[Row], map: &Map) -> Comparison {
    let mut result = Comparison::default();
    let mut hosts: BTreeMap<_, Vec<&Row>> = BTreeMap::new();
    for row in truth {
        match row.kind {
            Kind::Node => result.nodes.count(judge(row, map), &mut result.differences),
            Kind::Zoo => hosts.entry((row.address.ip(), &row.label)).or_default().push(row),
            Kind::Dead => match map.get(row.address) {
                None | Some(Entry { fields: None, outcome: None, .. }) => {
                    result.dead.all += 1;
                    result.unprobed += 1;
                }
                Some(_) => result.dead.count(judge(row, map), &mut result.differences),
            },
        }
    }
    for rows in hosts.values() {
        result.compare_host(rows, map);
    }
    let known: BTreeSet<Address> = truth.iter().map(|row| row.address).collect();
    let unknown = map.entries.iter().filter(|(address, _)| !known.contains(address));
    for (address, _) in unknown.filter(|(address, entry)| !may_be_invented(**address, entry)) {
        let (label, problem) = ("none".to_owned(), Problem::Unknown);
        result.differences.push(Difference { address: *address, label, problem });
    }
    result
}

impl Comparison {
    /// Compares the addresses of a misbehaving host, of which only some are recorded.
    fn compare_host(&mut self, rows: &[&Row], map: &Map) {
        let max = rows[0].max_recorded.min(rows.len());
        let (recorded, others): (Vec<&Row>, Vec<&Row>) =
            rows.iter().partition(|row| map.get(row.address).is_some());
        for (at, row) in recorded.iter().chain(&others).enumerate() {
            let verdict = if at < max {
                judge(row, map)
            } else if at < recorded.len() {
                Err(Difference::new(row, Problem::TooMany))
            } else {
                Ok(())
            };
            self.zoo.count(verdict, &mut self.differences);
        }
    }
}

impl Share {
    fn count(&mut self, verdict: Result<(), Difference>, differences: &mut Vec<Difference>) {
        self.all += 1;
        match verdict {
            Ok(()) => self.right += 1,
            Err(difference) => differences.push(difference),
        }
    }
}

impl Difference {
    fn new(row: &Row, problem: Problem) -> Self {
        Self { address: row.address, label: row.label.clone(), problem }
    }
}

/// Whether an address is recorded as it must be.
fn judge(row: &Row, map: &Map) -> Result<(), Difference> {
    let problem = match (map.get(row.address), &row.fields) {
        (None, _) => Problem::Missing,
        (Some(Entry { fields: Some(_), .. }), None) => Problem::NoNode,
        (Some(Entry { fields: Some(found), .. }), Some(expected)) if found != expected => {
            let (expected, found) = (Box::new(expected.clone()), Box::new(found.clone()));
            Problem::Fields { expected, found }
        }
        (Some(entry), expected) => {
            let has_failed = row.outcome != Outcome::Responded;
            if entry.outcome != Some(row.outcome) || (entry.failures > 0) != has_failed {
                let found = (entry.outcome, entry.failures);
                Problem::Outcome { expected: row.outcome, found }
            } else if expected.is_some() && entry.fields.is_none() {
                Problem::Missing
            } else {
                return Ok(());
            }
        }
    };
    Err(Difference::new(row, problem))
}

/// Whether a record may be of an address that a flooding node invented: those refuse.
fn may_be_invented(address: Address, entry: &Entry) -> bool {
    let has_refused = entry.outcome.is_none_or(|outcome| outcome == Outcome::Refused);
    address.port() >= INVENTED_PORT && entry.fields.is_none() && has_refused
}

impl fmt::Display for Comparison {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for difference in self.differences.iter().take(MAX_PRINTED) {
            writeln!(f, "{difference}")?;
        }
        if let Some(more @ 1..) = self.differences.len().checked_sub(MAX_PRINTED) {
            writeln!(f, "... and {more} more")?;
        }
        write!(
            f,
            "{} nodes recorded as served, {} misbehaving addresses as stated, {} dead addresses as failed \
             ({} not probed); {} differences",
            self.nodes,
            self.zoo,
            self.dead,
            self.unprobed,
            self.differences.len()
        )
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {}", self.right, self.all)
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}): {}", self.address, self.label, self.problem)
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Missing => write!(f, "not recorded"),
            Self::Outcome { expected, found: (outcome, failures) } => {
                let outcome = outcome.map_or("none", Outcome::as_str);
                write!(f, "last outcome {outcome} with {failures} failures, expected {expected}")
            }
            Self::Fields { expected, found } => write!(
                f,
                "recorded with {found}, species {} {:?}; served {expected}, species {} {:?}",
                found.species, found.release, expected.species, expected.release
            ),
            Self::NoNode => write!(f, "recorded as a node, but it never sent a valid version"),
            Self::Unknown => write!(f, "recorded, but not in the network"),
            Self::TooMany => write!(f, "recorded beyond the limit for one host"),
        }
    }
}

/// Maximum number of differences that are printed.
const MAX_PRINTED: usize = 20;

#[cfg(test)]
mod tests;
