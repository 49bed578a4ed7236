//! `Store`: what a database holds after some batches, and what it gives back at the next start.
//!
//! Layer 2: plain data. It follows the views of the schema (`address_state`, `node_state`, `probe_state`,
//! `source_state`) row by row. Invariant: 1. a batch that is applied twice in a row changes nothing the second time.

use std::collections::BTreeMap;

use crate::crawl::address::Address;
use crate::crawl::batch::{
    Batch, FailedRow, HeardRow, Known, KnownNode, LastPass, NodeRow, PassRow, ProbeRow, Seen,
    SourceRow,
};
use crate::crawl::outcome::Outcome;
use crate::crawl::recorder::Recorder;
use crate::crawl::time::UnixTime;

/// What the database holds.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Store {
    candidates: BTreeMap<Address, Candidate>,
    nodes: BTreeMap<Address, NodeRow>,
    /// The first result of each node in each pass.
    probes: BTreeMap<(Address, u64), ProbeRow>,
    passes: BTreeMap<u64, PassRow>,
    sources: BTreeMap<u16, SourceRow>,
    names: BTreeMap<Address, String>,
}

/// What is known of an address, nodes included, from its time as a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// When it was heard of last.
    pub last_heard: UnixTime,
    /// The /16 of the only source that named it; 0 for several.
    pub source: u16,
    /// When it is due.
    pub next_probe: UnixTime,
    /// Failures in a row.
    pub failures: u32,
    /// The newest probe: when it was, and how it ended.
    pub probe: Option<(UnixTime, Outcome)>,
}

impl Store {
    /// Commits a batch.
    pub fn apply(&mut self, batch: &Batch) {
        for (address, row) in &batch.heard {
            self.hear(*address, row);
        }
        for (address, row) in &batch.failed {
            self.fail(*address, row);
        }
        for address in &batch.forgotten {
            self.candidates.remove(address);
        }
        for row in &batch.probes {
            self.probes.entry((row.address, row.pass)).or_insert_with(|| row.clone());
        }
        for (address, row) in &batch.nodes {
            let old = self.nodes.remove(address);
            let (old_seen, old_peers) = old.map_or((None, None), |old| (old.seen, old.peers));
            let mut row = row.clone();
            row.seen = row.seen.or(old_seen);
            row.peers = row.peers.or(old_peers);
            self.nodes.insert(*address, row);
        }
        self.passes.extend(&batch.passes);
        self.sources.extend(&batch.sources);
        if let Some(names) = &batch.names {
            self.names.clone_from(names);
        }
    }

    fn hear(&mut self, address: Address, row: &HeardRow) {
        let (at, next_probe) = (whole(row.at), whole(row.next_probe));
        let new = Candidate { last_heard: at, source: 0, next_probe, failures: 0, probe: None };
        let known = self.candidates.entry(address).or_insert(new);
        // The greatest of all: it does not go back with the calendar.
        known.last_heard = known.last_heard.max(at);
        known.source = row.source;
    }

    fn fail(&mut self, address: Address, row: &FailedRow) {
        // One that was forgotten since it was handed out has no row that says when it was heard of.
        let Some(known) = self.candidates.get_mut(&address) else { return };
        known.failures = row.failures.min(MOST_FAILURES);
        known.probe = Some((whole(row.last_probed), row.last_outcome));
        known.next_probe = whole(row.next_probe);
    }

    /// Everything that is known of addresses.
    pub fn known(&self) -> Vec<Known> {
        let seen = |row: &NodeRow| row.seen.clone();
        let nodes = self.nodes.iter().filter_map(|(address, row)| {
            let seen = seen(row)?;
            let heard = self.candidates.get(address).map(|candidate| candidate.last_heard);
            Some(Known {
                address: *address,
                last_heard: heard.unwrap_or(seen.at),
                failures: row.failures,
                last_probed: Some(row.last_probed),
                last_outcome: Some(row.last_outcome),
                next_probe: row.next_probe,
                source: 0,
                node: Some(KnownNode {
                    last_seen: seen.at,
                    peers_asked_at: row.peers.map(|(at, _)| at),
                    peers_sent: row.peers.map(|(_, sent)| sent),
                    is_trb: seen.species == "TRB",
                }),
            })
        });
        let is_node = |address| self.nodes.get(address).is_some_and(|row| row.seen.is_some());
        let candidates = self.candidates.iter().filter(|(address, _)| !is_node(address));
        let candidates = candidates.map(|(address, known)| Known {
            address: *address,
            last_heard: known.last_heard,
            failures: known.failures,
            last_probed: known.probe.map(|(at, _)| at),
            last_outcome: known.probe.map(|(_, outcome)| outcome),
            next_probe: known.next_probe,
            source: known.source,
            node: None,
        });
        nodes.chain(candidates).collect()
    }

    /// Hands everything to a recorder in a random order, and `tries` times the beginning of it before: loading breaks
    /// off and is begun anew.
    pub fn load(&self, recorder: &mut Recorder, rng: &mut fastrand::Rng, tries: usize) {
        for attempt in 0..=tries {
            for (group, row) in &self.sources {
                recorder.load_source(*group, *row);
            }
            let mut known = self.known();
            rng.shuffle(&mut known);
            if attempt < tries {
                known.truncate(rng.usize(..=known.len()));
            }
            for known in &known {
                recorder.load(known);
            }
        }
    }

    /// The newest pass.
    pub fn last_pass(&self) -> LastPass {
        let newest = self.passes.last_key_value();
        newest.map_or_else(LastPass::default, |(pass, row)| LastPass { pass: *pass, row: *row })
    }

    /// The nodes: all that ever responded.
    pub fn nodes(&self) -> impl Iterator<Item = (Address, &NodeRow, &Seen)> {
        let with_seen = |(address, row): (&Address, _)| (*address, row);
        let nodes = self.nodes.iter().map(with_seen);
        nodes.filter_map(|(address, row): (_, &NodeRow)| Some((address, row, row.seen.as_ref()?)))
    }

    /// What is known of an address from its time as a candidate.
    pub fn candidate(&self, address: Address) -> Option<&Candidate> {
        self.candidates.get(&address)
    }

    /// The results of nodes in a pass.
    pub fn probes(&self, pass: u64) -> impl Iterator<Item = &ProbeRow> {
        self.probes.values().filter(move |row| row.pass == pass)
    }

    /// The passes.
    pub fn passes(&self) -> &BTreeMap<u64, PassRow> {
        &self.passes
    }
}

/// Times of candidates are whole seconds.
fn whole(time: UnixTime) -> UnixTime {
    UnixTime::from_secs(time.as_secs())
}

/// The database keeps them as a `smallint`.
const MOST_FAILURES: u32 = 32_767;
