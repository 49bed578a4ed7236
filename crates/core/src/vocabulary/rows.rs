//! `Batch`: the rows of one database transaction, always absolute values.
//!
//! Sans-I/O: plain data. Writing a batch is idempotent. Several results of one address in a batch
//! merge into its newest state; its rows of `probes` stay separate.

use std::collections::{BTreeMap, BTreeSet};

use crate::lookup::species::Lineage;
use crate::vocabulary::address::Address;
use crate::vocabulary::outcome::Outcome;
use crate::vocabulary::target::VersionInfo;
use crate::vocabulary::time::UnixTime;

/// An address that was heard of, for the first time or again after a day.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct HeardRow {
    /// When it was heard of: `last_heard`, and `first_heard` of a new address.
    pub at: UnixTime,
    /// When it is due; has no effect on an address that the database knows already.
    pub next_probe: UnixTime,
    /// The /16 of the only source that named it; 0 if confirmed.
    pub source: u16,
}

/// The new state of a candidate that failed.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FailedRow {
    /// Consecutive failures.
    pub failures: u32,
    /// When it was last probed.
    pub last_probed: UnixTime,
    /// How that probe ended.
    pub last_outcome: Outcome,
    /// When it is due again.
    pub next_probe: UnixTime,
}

/// The status of a node in the relation `nodes`.
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
    /// Its name in the database, in logs and in output.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Up => "up",
            Self::Full => "full",
            Self::Down => "down",
        }
    }
}

/// A response of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Seen {
    /// When it responded.
    pub at: UnixTime,
    /// What it claims.
    pub version: VersionInfo,
    /// The lineage of its software.
    pub lineage: Lineage,
    /// Time from dialling to connected.
    pub connect_ms: Option<u32>,
    /// Time from connected to `version`.
    pub version_ms: Option<u32>,
}

/// The new state of a node that was probed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodeRow {
    /// Its status.
    pub status: Status,
    /// When it was last probed.
    pub last_probed: UnixTime,
    /// How that probe ended.
    pub last_outcome: Outcome,
    /// Consecutive failures.
    pub failures: u32,
    /// When it is due again.
    pub next_probe: UnixTime,
    /// The newest response of this batch; `None` keeps the database's.
    pub seen: Option<Seen>,
    /// When `getaddr` was sent and how many entries came back; `None` keeps the database's.
    pub peers: Option<(UnixTime, u32)>,
}

/// A row of `probes`: a result of a node. `None` is stored as null.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeRow {
    /// The node.
    pub address: Address,
    /// The pass; the row's key together with the address.
    pub pass: u64,
    /// When the outcome was known.
    pub probed_at: UnixTime,
    /// How it ended.
    pub outcome: Outcome,
    /// What the node claims, if it responded.
    pub version: Option<VersionInfo>,
    /// Time from dialling to connected.
    pub connect_ms: Option<u32>,
    /// Time from connected to `version`.
    pub version_ms: Option<u32>,
    /// Number of entries sent in reply to `getaddr`.
    pub peers_sent: Option<u32>,
}

/// The track record of a source: a /16 that was the first to name some addresses.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct SourceRow {
    /// Number of them that were probed; halved from time to time together with `answered`.
    pub tried: u32,
    /// Number of those that responded or that an unrelated source named as well.
    pub answered: u32,
}

/// A row of `passes`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct PassRow {
    /// When it began.
    pub started_at: UnixTime,
    /// When it ended; `None` while it runs.
    pub finished_at: Option<UnixTime>,
    /// Number of finished probes.
    pub probed: u64,
    /// Number of probes that responded.
    pub responded: u64,
    /// Number of probes that failed.
    pub failed: u64,
    /// Number of addresses that responded for the first time.
    pub new_nodes: u64,
    /// Number of addresses heard of for the first time.
    pub new_addresses: u64,
    /// Number of addresses that were due at its start or were heard of since.
    pub due: u64,
    /// Number of candidates.
    pub candidates: u64,
    /// Whether our own uplink was down during it: then it tells nothing about a node's uptime.
    pub uplink_was_down: bool,
}

/// The rows of one transaction.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Batch {
    /// Addresses that were heard of.
    pub heard: BTreeMap<Address, HeardRow>,
    /// Candidates that failed; disjoint from `nodes`.
    pub failed: BTreeMap<Address, FailedRow>,
    /// Nodes that were probed.
    pub nodes: BTreeMap<Address, NodeRow>,
    /// Results of nodes.
    pub probes: Vec<ProbeRow>,
    /// Passes; history and rolls are written in the transaction that sets `finished_at`.
    pub passes: BTreeMap<u64, PassRow>,
    /// Sources that changed, by /16.
    pub sources: BTreeMap<u16, SourceRow>,
    /// Evicted candidates.
    pub forgotten: BTreeSet<Address>,
    /// Imported addresses that the book has taken in: they no longer wait in the database.
    pub imported: BTreeSet<Address>,
    /// If present, the names of all named nodes: every other node loses its name.
    pub names: Option<BTreeMap<Address, String>>,
    /// If present, no address expires before this time, also after a restart.
    pub forgets_from: Option<UnixTime>,
    /// If present, what was learned of the ranks of candidates.
    pub learned: Option<Vec<i32>>,
}

impl Batch {
    /// Number of rows, `names` excluded.
    pub fn rows(&self) -> usize {
        let probed = self.failed.len() + self.nodes.len() + self.probes.len();
        let others = self.sources.len() + self.forgotten.len() + self.passes.len();
        self.heard.len() + self.imported.len() + probed + others
    }

    /// Whether a pass ends with it.
    pub fn ends_pass(&self) -> bool {
        self.passes.values().any(|row| row.finished_at.is_some())
    }

    /// Whether there is nothing to write.
    pub fn is_empty(&self) -> bool {
        let is_unnamed = self.names.is_none() && self.forgets_from.is_none();
        self.rows() == 0 && is_unnamed && self.learned.is_none()
    }
}

/// An address as loaded from the database at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Known {
    /// The address.
    pub address: Address,
    /// When it was last heard of.
    pub last_heard: UnixTime,
    /// Consecutive failures.
    pub failures: u32,
    /// When it was last probed; `None` if never.
    pub last_probed: Option<UnixTime>,
    /// How its last probe ended; `None` if it was never probed.
    pub last_outcome: Option<Outcome>,
    /// When it is due.
    pub next_probe: UnixTime,
    /// The /16 of the only source that named it; 0 if confirmed or unknown.
    pub source: u16,
    /// Present if it is a node.
    pub node: Option<KnownNode>,
}

/// What the address book keeps of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct KnownNode {
    /// When it last responded.
    pub last_seen: UnixTime,
    /// When it was last sent a `getaddr`.
    pub peers_asked_at: Option<UnixTime>,
    /// Number of entries that it sent then.
    pub peers_sent: Option<u32>,
    /// Whether its species is TRB, which gets `getaddr` more often.
    pub is_trb: bool,
}

/// The newest pass in the database at start.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LastPass {
    /// Its number; 0 if there was none.
    pub pass: u64,
    /// Its row; resumed if `finished_at` is `None`.
    pub row: PassRow,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_row_of_a_pass_counts_as_a_row() {
        let mut batch = Batch::default();
        assert!(batch.is_empty());
        batch.passes.insert(7, PassRow::default());
        assert_eq!((batch.rows(), batch.is_empty()), (1, false));
    }
}
