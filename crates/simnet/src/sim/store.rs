//! `Store`: the contents of the database after some batches, and what the next start loads.
//!
//! It follows the schema row by row.
//!
//! Invariant: 1. Applying a batch twice in a row changes nothing the second time.

use std::collections::BTreeMap;

use crate::verify::map::Map;
use bitdash_core::lookup::species::TRB;
use bitdash_core::record::writer_machine::WriterMachine;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::rows::{
    Batch, FailedRow, HeardRow, Known, KnownNode, LastPass, NodeRow, PassRow, ProbeRow, Seen,
    SourceRow,
};
use bitdash_core::vocabulary::time::UnixTime;

/// The contents of a database.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Store {
    candidates: BTreeMap<Address, Candidate>,
    nodes: BTreeMap<Address, NodeRow>,
    /// The first result of each node in each pass.
    probes: BTreeMap<(Address, u64), ProbeRow>,
    passes: BTreeMap<u64, PassRow>,
    sources: BTreeMap<u16, SourceRow>,
    names: BTreeMap<Address, String>,
    forgets_from: Option<UnixTime>,
    learned: Option<Vec<i32>>,
}

/// What is stored of an address, nodes included, from its time as a candidate.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Candidate {
    /// When it was last heard of.
    pub last_heard: UnixTime,
    /// The /16 of its only source; 0 for several.
    pub source: u16,
    /// When it is due.
    pub next_probe: UnixTime,
    /// Failures in a row.
    pub failures: u32,
    /// Time and outcome of the newest probe.
    pub probe: Option<(UnixTime, Outcome)>,
}

impl Store {
    /// Applies a batch.
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
        self.forgets_from = batch.forgets_from.or(self.forgets_from);
        if batch.learned.is_some() {
            self.learned.clone_from(&batch.learned);
        }
    }

    fn hear(&mut self, address: Address, row: &HeardRow) {
        let (at, next_probe) = (whole(row.at), whole(row.next_probe));
        let new = Candidate { last_heard: at, source: 0, next_probe, failures: 0, probe: None };
        let known = self.candidates.entry(address).or_insert(new);
        // The maximum: it does not go back with the wall clock.
        known.last_heard = known.last_heard.max(at);
        known.source = row.source;
    }

    fn fail(&mut self, address: Address, row: &FailedRow) {
        // An address that was evicted since it was handed out has no row.
        let Some(known) = self.candidates.get_mut(&address) else { return };
        known.failures = row.failures.min(MAX_FAILURES);
        known.probe = Some((whole(row.last_probed), row.last_outcome));
        known.next_probe = whole(row.next_probe);
    }

    /// Everything that is stored of addresses.
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
                    is_trb: *seen.lineage.species == *TRB,
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

    /// Loads everything in random order, after `tries` attempts that break off.
    pub fn load(&self, recorder: &mut WriterMachine, rng: &mut fastrand::Rng, tries: usize) {
        for attempt in 0..=tries {
            for (group, row) in &self.sources {
                recorder.load_source(*group, *row);
            }
            for (address, name) in &self.names {
                recorder.load_name(*address, name.clone());
            }
            if let Some(at) = self.forgets_from {
                recorder.load_forgets_from(at);
            }
            if let Some(learned) = &self.learned {
                recorder.load_learned(learned);
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

    /// What the relations `nodes` and `candidates` show; candidates that were not probed are left
    /// out.
    pub fn map(&self) -> Map {
        let mut map = Map::default();
        for (address, candidate) in &self.candidates {
            if let Some((_, outcome)) = candidate.probe {
                map.record_failure(*address, outcome, candidate.failures);
            }
        }
        for (address, row) in &self.nodes {
            map.record_node(*address, row);
        }
        map
    }

    /// What is stored of an address from its time as a candidate.
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

/// Maximum of the column's type, `smallint`.
const MAX_FAILURES: u32 = 32_767;
