//! `ShadowModel`: an independent model of a simulated crawl that every step is checked against.
//!
//! It sees the messages between event loop, writer and database. It survives a crash of the
//! process; then only what was committed counts. A failed check panics.
//!
//! Checked:
//! 1. Every target that was handed out in a pass has a result in it, or a reason for having none.
//! 2. An address has one result per pass, across crashes too, and one more if it was not asked for
//!    its peers.
//! 3. Every result that the writer accepted is in the next batch exactly once, unless the filter
//!    excludes the address by then; the state of a node has the fields of its newest response. A
//!    batch is dropped only after it was committed.
//! 4. The counts of a pass are those of its committed results.
//! 5. granted = returned + ended + open.
//! 6. The rate limit holds in every second.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitdash_core::record::messages::FromWriter;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::outcome::{Fault, Outcome};
use bitdash_core::vocabulary::rows::Batch;
use bitdash_core::vocabulary::target::{ProbeResult, Target};
use bitdash_core::vocabulary::time::UnixTime;

/// The model.
#[derive(Clone, Debug, Default)]
pub struct ShadowModel {
    process: Process,
    database: Database,
}

/// State that a crash loses.
#[derive(Clone, Debug, Default)]
struct Process {
    granted: u64,
    returned: u64,
    ended: u64,
    pass: u64,
    /// Targets that the writer handed out in the running pass.
    handed_out: BTreeMap<Address, Target>,
    /// Addresses with a result in it.
    with_result: BTreeSet<Address>,
    /// Nodes among them that were not asked for their peers.
    greeted: BTreeSet<Address>,
    /// Addresses that may have no result in it.
    excused: BTreeSet<Address>,
    /// Filters that were in force in it, the newest last: an address that one of them excludes may
    /// have no result either.
    filters: Vec<Arc<Filter>>,
    /// The writer's filter.
    writers_filter: Option<Arc<Filter>>,
    is_last_due_here: bool,
    /// Times of the dials within the last second.
    dials: VecDeque<Duration>,
    /// Accepted results since the last batch.
    taken: Vec<Taken>,
    in_hand: Option<InHand>,
}

/// State that survives a crash.
#[derive(Clone, Debug, Default)]
struct Database {
    /// Counts of each pass.
    passes: BTreeMap<u64, Figures>,
    pass: u64,
    /// Addresses with a result in the newest pass.
    written: BTreeSet<Address>,
    /// Whether the wall clock jumped: then an address may be due again in the same pass after a
    /// crash.
    is_wall_clock_askew: bool,
    /// Whether addresses are evicted: after a crash they may be probed again in the same pass.
    is_forgetful: bool,
    results: u64,
    batches: u64,
    repeats: u64,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Figures {
    probed: u64,
    responded: u64,
}

#[derive(Clone, Copy, Debug)]
struct Taken {
    address: Address,
    pass: u64,
    probed_at: UnixTime,
    outcome: Outcome,
    is_follow_up: bool,
}

#[derive(Clone, Debug)]
struct InHand {
    taken: Vec<Taken>,
    is_committed: bool,
}

impl ShadowModel {
    /// Creates a model; `is_forgetful`: the crawl remembers fewer addresses than there are.
    pub fn new(is_forgetful: bool) -> Self {
        let database = Database { is_forgetful, ..Database::default() };
        Self { database, ..Self::default() }
    }

    /// The process died or was restarted: its state is lost.
    pub fn restarted(&mut self) {
        self.process = Process::default();
    }

    /// The wall clock was set.
    pub fn wall_clock_jumped(&mut self) {
        self.database.is_wall_clock_askew = true;
    }

    /// Number of committed results, committed batches, and batches committed again.
    pub fn figures(&self) -> (u64, u64, u64) {
        (self.database.results, self.database.batches, self.database.repeats)
    }

    /// A target was granted with `open` sessions of `allowed`.
    pub(super) fn granted(&mut self, target: Target, open: usize, allowed: usize) {
        self.process.granted += 1;
        let address = target.address();
        assert!(open < allowed, "{address} is granted with {open} open of {allowed} sockets");
    }

    /// A target was not dialled.
    pub(super) fn returned(&mut self, address: Address, fault: Fault) {
        self.process.returned += 1;
        if matches!(fault, Fault::Uplink | Fault::Forbidden) {
            self.process.excused.insert(address);
        }
    }

    /// A connection was started; `per_second` is the limit, 0 for none.
    pub(super) fn dialled(&mut self, now: Duration, per_second: u32) {
        let dials = &mut self.process.dials;
        while dials.front().is_some_and(|at| *at + Duration::from_secs(1) <= now) {
            dials.pop_front();
        }
        dials.push_back(now);
        let is_unlimited = per_second == 0;
        assert!(
            is_unlimited || dials.len() <= per_second as usize,
            "{} connections in a second where {per_second} are allowed",
            dials.len()
        );
    }

    /// A session ended.
    pub(super) fn ended(&mut self) {
        self.process.ended += 1;
    }

    /// Checks the sum of targets.
    pub(super) fn balance(&self, open: usize) {
        let Process { granted, returned, ended, .. } = self.process;
        assert_eq!(granted, returned + ended + open as u64, "granted = returned + ended + open");
    }

    /// A filter is in force.
    pub(super) fn filtered(&mut self, filter: &Arc<Filter>) {
        self.process.filters.push(Arc::clone(filter));
        self.process.writers_filter.get_or_insert_with(|| Arc::clone(filter));
    }

    /// The writer uses a filter.
    pub(super) fn reconfigured(&mut self, filter: &Arc<Filter>) {
        self.process.writers_filter = Some(Arc::clone(filter));
    }

    /// The writer answered.
    pub(super) fn answered(&mut self, message: &FromWriter) {
        let process = &mut self.process;
        match message {
            FromWriter::Started { pass, resumed, .. } => {
                // While the database is unreachable its contents are older than what the process
                // knows.
                let newest = self.database.pass.max(process.pass);
                process.pass = *pass;
                process.handed_out.clear();
                process.with_result.clear();
                process.greeted.clear();
                process.excused.clear();
                let newest_filter = process.filters.len().saturating_sub(1);
                process.filters.drain(..newest_filter);
                process.is_last_due_here = false;
                assert_eq!(*resumed, *pass == newest && newest > 0, "{pass} after {newest}");
                assert!(*resumed || *pass == newest + 1, "pass {pass} begins after pass {newest}");
            }
            FromWriter::Due { targets, last, .. } => {
                process.is_last_due_here |= last;
                self.hand_out(targets);
            }
            _ => {}
        }
    }

    fn hand_out(&mut self, targets: &[Target]) {
        for target in targets {
            let former = self.process.handed_out.insert(target.address(), *target);
            assert!(former.is_none(), "{} is handed out twice in a pass", target.address());
        }
    }

    /// The writer accepted a result.
    pub(super) fn taken(&mut self, result: &ProbeResult) {
        let address = result.target.address();
        let process = &mut self.process;
        assert!(
            process.handed_out.contains_key(&address),
            "{address} has a result and was not handed out"
        );
        let is_follow_up = result.target.is_follow_up();
        let is_first = if is_follow_up {
            process.greeted.remove(&address)
        } else {
            process.with_result.insert(address)
        };
        assert!(is_first, "{address} has two results in a pass");
        if result.target.is_unasked() {
            process.greeted.insert(address);
        }
        let is_admitted = process.writers_filter.as_ref().is_none_or(|filter| {
            let is_named = result.target.is_named();
            if is_named { filter.admits_named(address) } else { filter.admits(address) }
        });
        if !is_admitted {
            // It must not be in the batch.
            return;
        }
        process.taken.push(Taken {
            address,
            pass: process.pass,
            probed_at: result.probed_at,
            outcome: result.outcome,
            is_follow_up,
        });
    }

    /// The crawler ends the pass.
    pub(super) fn pass_ends(&mut self) {
        let process = &self.process;
        assert!(process.is_last_due_here, "a pass ends before all due targets were handed out");
        for (address, target) in &process.handed_out {
            let is_spam = target.tier() == Target::OVER_QUOTA_TIER;
            let is_refused = process.filters.iter().any(|filter| !filter.admits(*address));
            let is_excused = process.excused.contains(address) || is_refused;
            let is_settled = process.with_result.contains(address) || is_excused;
            assert!(is_settled || is_spam, "a pass ends without a result of {address}");
        }
        for address in &process.greeted {
            let is_refused = process.filters.iter().any(|filter| !filter.admits(*address));
            let is_excused = process.excused.contains(address) || is_refused;
            assert!(is_excused, "a pass ends and {address} was not asked for its peers");
        }
    }

    /// The writer took a batch.
    pub(super) fn taken_out(&mut self) {
        let taken = std::mem::take(&mut self.process.taken);
        let former = self.process.in_hand.replace(InHand { taken, is_committed: false });
        let is_safe = former.is_none_or(|former| former.is_committed);
        assert!(is_safe, "a batch was dropped before it was committed");
    }

    /// The database committed the writer's batch, for the first time or again.
    pub(super) fn committed(&mut self, batch: &Batch) {
        let Some(in_hand) = &mut self.process.in_hand else { panic!("a commit without a batch") };
        self.database.batches += 1;
        if std::mem::replace(&mut in_hand.is_committed, true) {
            self.database.repeats += 1;
            return;
        }
        let taken = std::mem::take(&mut in_hand.taken);
        for result in &taken {
            self.count(result);
        }
        check_rows(batch, &taken);
        check_states(batch);
        for (pass, row) in &batch.passes {
            self.begin(*pass);
            let figures = self.database.passes.get(pass).copied().unwrap_or_default();
            assert_eq!(
                (row.probed, row.responded, row.failed),
                (figures.probed, figures.responded, figures.probed - figures.responded),
                "pass {pass}: its counts (left) and its committed results (right)"
            );
        }
    }

    /// A pass has reached the database.
    fn begin(&mut self, pass: u64) {
        let database = &mut self.database;
        if pass > database.pass {
            database.pass = pass;
            database.written.clear();
        }
    }

    fn count(&mut self, result: &Taken) {
        self.begin(result.pass);
        let database = &mut self.database;
        database.results += 1;
        let figures = database.passes.entry(result.pass).or_default();
        if result.is_follow_up {
            return;
        }
        figures.probed += 1;
        figures.responded += u64::from(result.outcome == Outcome::Responded);
        if result.pass == database.pass {
            let is_first = database.written.insert(result.address);
            let (address, pass) = (result.address, result.pass);
            let is_excused = database.is_wall_clock_askew || database.is_forgetful;
            assert!(
                is_first || is_excused,
                "{address} has two results in pass {pass}, across a crash"
            );
        }
    }
}

/// Checks that the rows contain every result exactly once and nothing else.
fn check_rows(batch: &Batch, taken: &[Taken]) {
    let mut missing: BTreeMap<Address, Vec<&Taken>> = BTreeMap::new();
    for result in taken {
        missing.entry(result.address).or_default().push(result);
    }
    for row in &batch.probes {
        let address = row.address;
        let results = missing.get_mut(&address);
        let found = results.and_then(|results| {
            let place = results.iter().position(|result| result.pass == row.pass)?;
            Some(results.remove(place))
        });
        let Some(result) = found else {
            panic!("{address} of pass {}: written, but not accepted", row.pass)
        };
        assert_eq!((row.outcome, row.probed_at), (result.outcome, result.probed_at), "{address}");
        assert!(batch.nodes.contains_key(&address), "{address} has a result and no state");
    }
    for (address, results) in &missing {
        let Some(newest) = results.last() else { continue };
        match batch.failed.get(address) {
            Some(row) => {
                let written = (row.last_outcome, row.last_probed);
                assert_eq!(written, (newest.outcome, newest.probed_at), "{address}");
            }
            // A candidate that failed and has responded since, before it was written.
            None if batch.nodes.contains_key(address) => {}
            None => panic!("the result of {address} in pass {} is lost", newest.pass),
        }
    }
    for address in batch.failed.keys() {
        assert!(!batch.nodes.contains_key(address), "{address} is a failed candidate and a node");
        let is_taken = missing.get(address).is_some_and(|results| !results.is_empty());
        assert!(is_taken, "{address} failed, but no such result was accepted");
    }
}

/// Checks that the state of each node has its newest `version` and reply of the batch.
fn check_states(batch: &Batch) {
    let (mut versions, mut replies) = (BTreeMap::new(), BTreeMap::new());
    for row in &batch.probes {
        if row.version.is_some() {
            versions.insert(row.address, row.probed_at);
        }
        if let Some(peers) = row.peers_sent {
            replies.insert(row.address, (row.probed_at, peers));
        }
    }
    for (address, node) in &batch.nodes {
        let seen_at = node.seen.as_ref().map(|seen| seen.at);
        assert_eq!(seen_at, versions.get(address).copied(), "{address}: its newest version");
        assert_eq!(node.peers, replies.get(address).copied(), "{address}: its newest reply");
    }
}
