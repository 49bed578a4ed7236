//! `Batch`: the rows that go to the database in one transaction, always as absolute values.
//!
//! Layer 1: plain data. A batch that is written twice changes nothing the second time. Several results of
//! one address in one batch fold into its newest state; its rows of `probes` stay apart.

use std::collections::{BTreeMap, BTreeSet};

use crate::crawl::address::Address;
use crate::crawl::outcome::Outcome;
use crate::crawl::target::VersionInfo;
use crate::crawl::time::UnixTime;

/// An address that was heard of: newly, or again after a while.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeardRow {
    /// When it was heard of now. Becomes `first_heard` of a new address, `last_heard` of every one.
    pub at: UnixTime,
    /// When a new address is due; has no effect on one that the database holds already.
    pub next_probe: UnixTime,
    /// The /16 of the only source that has named it; 0 once several unrelated ones or a person have.
    pub source: u16,
}

/// A candidate that failed: all that changes of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FailedRow {
    /// Failures in a row.
    pub failures: u32,
    /// When it was probed.
    pub last_probed: UnixTime,
    /// How that ended.
    pub last_outcome: Outcome,
    /// When it is due again.
    pub next_probe: UnixTime,
}

/// Whether a node is up, as the relation `nodes` says it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Status {
    /// The last probe responded.
    Up,
    /// The last probe ended `closed`, and the node responded within the last 7 days.
    Full,
    /// Anything else.
    Down,
}

impl Status {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Full => "full",
            Self::Down => "down",
        }
    }
}

/// What a response tells of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// When it responded.
    pub at: UnixTime,
    /// What it said.
    pub version: VersionInfo,
    /// The lineage of its software.
    pub species: &'static str,
    /// From dialling to connected.
    pub connect_ms: Option<u32>,
    /// From connected to `version`.
    pub version_ms: Option<u32>,
}

/// A node that was probed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRow {
    /// Whether it is up.
    pub status: Status,
    /// When it was probed.
    pub last_probed: UnixTime,
    /// How that ended.
    pub last_outcome: Outcome,
    /// Failures in a row.
    pub failures: u32,
    /// When it is due again.
    pub next_probe: UnixTime,
    /// The newest response of this batch; `None` leaves what the database holds.
    pub seen: Option<Seen>,
    /// When it was asked for its peers and how many entries it sent; `None` leaves what the database holds.
    pub peers: Option<(UnixTime, u32)>,
}

/// A row of `probes`: a result of a node. Fields that are `None` are null.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeRow {
    /// The node.
    pub address: Address,
    /// The pass; with the address it is the row's key.
    pub pass: u64,
    /// When the outcome was known.
    pub probed_at: UnixTime,
    /// How it ended.
    pub outcome: Outcome,
    /// What the node said, where it responded.
    pub version: Option<VersionInfo>,
    /// From dialling to connected.
    pub connect_ms: Option<u32>,
    /// From connected to `version`.
    pub version_ms: Option<u32>,
    /// Entries sent in reply to `getaddr`.
    pub peers_sent: Option<u32>,
}

/// What became of the addresses that a source (a /16) was the first to name.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SourceRow {
    /// How many of them were probed; halved from time to time together with `answered`.
    pub tried: u32,
    /// How many of these responded, or were named by an unrelated source as well.
    pub answered: u32,
}

/// A row of `passes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PassRow {
    /// When it began.
    pub started_at: UnixTime,
    /// When it ended; `None` while it runs.
    pub finished_at: Option<UnixTime>,
    /// Probes ended.
    pub probed: u64,
    /// Those that responded.
    pub responded: u64,
    /// Those that failed.
    pub failed: u64,
    /// Addresses that answered for the first time.
    pub new_nodes: u64,
    /// Addresses heard of for the first time.
    pub new_addresses: u64,
}

/// What goes to the database in one transaction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    /// Addresses heard of.
    pub heard: BTreeMap<Address, HeardRow>,
    /// Candidates that failed; none of them is in `nodes`.
    pub failed: BTreeMap<Address, FailedRow>,
    /// Nodes that were probed.
    pub nodes: BTreeMap<Address, NodeRow>,
    /// Results of nodes.
    pub probes: Vec<ProbeRow>,
    /// Passes; one that carries `finished_at` gets its rows of `history` in the same transaction.
    pub passes: BTreeMap<u64, PassRow>,
    /// Sources whose figures changed, by the upper 16 bits of their addresses.
    pub sources: BTreeMap<u16, SourceRow>,
    /// Candidates that are no longer remembered.
    pub forgotten: BTreeSet<Address>,
    /// If present, all named nodes: every other node loses its name.
    pub names: Option<BTreeMap<Address, String>>,
}

impl Batch {
    /// How many rows it holds.
    pub fn rows(&self) -> usize {
        let probed = self.failed.len() + self.nodes.len() + self.probes.len();
        let others = self.sources.len() + self.forgotten.len() + self.passes.len();
        self.heard.len() + probed + others
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        self.rows() == 0 && self.names.is_none()
    }
}

/// An address as the database knows it: what is read at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// The address.
    pub address: Address,
    /// When it was heard of last.
    pub last_heard: UnixTime,
    /// Failures in a row.
    pub failures: u32,
    /// When it was probed last; `None` if never.
    pub last_probed: Option<UnixTime>,
    /// How its last probe ended; `None` if it never had one.
    pub last_outcome: Option<Outcome>,
    /// When it is due.
    pub next_probe: UnixTime,
    /// The /16 of the only source that has named it; 0 for several, or unknown.
    pub source: u16,
    /// Present if it is a node.
    pub node: Option<KnownNode>,
}

/// What the crawler needs to remember of a node beside its address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownNode {
    /// When it responded last.
    pub last_seen: UnixTime,
    /// When it was last asked for its peers.
    pub peers_asked_at: Option<UnixTime>,
    /// How many entries it sent then.
    pub peers_sent: Option<u32>,
    /// Whether its species is TRB, which is asked more often.
    pub is_trb: bool,
}

/// What the database tells of the passes at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LastPass {
    /// The newest pass's number; 0 if there was none.
    pub pass: u64,
    /// Its row; gone on with if `finished_at` is `None`.
    pub row: PassRow,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_of_a_pass_counts_as_one_that_can_be_lost() {
        let mut batch = Batch::default();
        assert!(batch.is_empty());
        batch.passes.insert(7, PassRow::default());
        assert_eq!((batch.rows(), batch.is_empty()), (1, false));
    }
}
