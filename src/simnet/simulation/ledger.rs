//! `Ledger`: the accounts of a simulated crawl, against which every step is checked.
//!
//! Layer 2: plain data. It hears what passes between loop, writer and database, and outlives a crash: then only
//! what was committed counts. Every check panics with what is wrong.
//!
//! Checked: 1. every target that was handed out in a pass has a result in it, or a reason why not; 2. an address
//! has one result in a pass, over crashes too; 3. every result that the writer took is in the batch that is taken
//! out next, once, with all that a node said last in its state, but of whom the filter excludes by then, and a batch is
//! let go only when it is committed;
//! 4. a pass's figures are those of its results that are committed; 5. granted = given back + ended + open; 6. no
//! more dials in a second than allowed.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::crawl::address::Address;
use crate::crawl::batch::Batch;
use crate::crawl::exchange::FromWriter;
use crate::crawl::filter::Filter;
use crate::crawl::outcome::{Fault, Outcome};
use crate::crawl::target::{ProbeResult, Target};
use crate::crawl::time::UnixTime;

/// The accounts.
#[derive(Clone, Debug, Default)]
pub struct Ledger {
    process: Process,
    database: Database,
}

/// What a crash wipes out.
#[derive(Clone, Debug, Default)]
struct Process {
    granted: u64,
    given_back: u64,
    ended: u64,
    pass: u64,
    /// What the writer handed out in the running pass.
    handed: BTreeMap<Address, Target>,
    /// Whose result was taken in it.
    met: BTreeSet<Address>,
    /// Who may be left out of it.
    excused: BTreeSet<Address>,
    /// The filters that were in force in it, the newest last: whom one of them refuses may be left out too.
    filters: Vec<Arc<Filter>>,
    /// The one that the writer goes by.
    writers_filter: Option<Arc<Filter>>,
    is_last_due_here: bool,
    /// Dials of the last second.
    dials: VecDeque<Duration>,
    /// Results taken since the last batch was taken out.
    taken: Vec<Taken>,
    in_hand: Option<InHand>,
}

/// What a crash leaves.
#[derive(Clone, Debug, Default)]
struct Database {
    /// The results of each pass.
    passes: BTreeMap<u64, Figures>,
    /// Who has a result in the newest pass.
    pass: u64,
    written: BTreeSet<Address>,
    /// The calendar jumped: the times that the database holds are of several calendars now, and who was met may be
    /// due again after a crash.
    is_calendar_askew: bool,
    /// More addresses are met than may be remembered: after a crash who is forgotten may be met again.
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
}

#[derive(Clone, Debug)]
struct InHand {
    taken: Vec<Taken>,
    is_committed: bool,
}

impl Ledger {
    /// Books of a crawl that may remember fewer addresses than there are.
    pub fn of_forgetful(is_forgetful: bool) -> Self {
        let database = Database { is_forgetful, ..Database::default() };
        Self { database, ..Self::default() }
    }

    /// The process died, or a new one begins: what was in memory is gone.
    pub fn restarted(&mut self) {
        self.process = Process::default();
    }

    /// The calendar was set.
    pub fn calendar_jumped(&mut self) {
        self.database.is_calendar_askew = true;
    }

    /// Results committed, batches committed, and batches committed again.
    pub fn figures(&self) -> (u64, u64, u64) {
        (self.database.results, self.database.batches, self.database.repeats)
    }

    /// A target was granted while so many sessions were open, and so many are allowed.
    pub(super) fn granted(&mut self, target: Target, open: usize, allowed: usize) {
        self.process.granted += 1;
        let address = target.address();
        assert!(open < allowed, "{address} is granted with {open} open of {allowed} sockets");
    }

    /// A target was not dialled.
    pub(super) fn given_back(&mut self, address: Address, fault: Fault) {
        self.process.given_back += 1;
        if matches!(fault, Fault::Line | Fault::Forbidden) {
            self.process.excused.insert(address);
        }
    }

    /// A connection was begun, of at most so many in a second; 0 for no limit.
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

    /// After every step.
    pub(super) fn balance(&self, open: usize) {
        let Process { granted, given_back, ended, .. } = self.process;
        assert_eq!(
            granted,
            given_back + ended + open as u64,
            "granted = given back + ended + open"
        );
    }

    /// From now on this filter is in force.
    pub(super) fn filtered(&mut self, filter: &Arc<Filter>) {
        self.process.filters.push(Arc::clone(filter));
        self.process.writers_filter.get_or_insert_with(|| Arc::clone(filter));
    }

    /// And from now on by the writer.
    pub(super) fn reconfigured(&mut self, filter: &Arc<Filter>) {
        self.process.writers_filter = Some(Arc::clone(filter));
    }

    /// The writer answered.
    pub(super) fn answered(&mut self, message: &FromWriter) {
        let process = &mut self.process;
        match message {
            FromWriter::Started { pass, resumed, .. } => {
                // The database may be away: then what it holds is older than what this process knows.
                let newest = self.database.pass.max(process.pass);
                process.pass = *pass;
                process.handed.clear();
                process.met.clear();
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
            FromWriter::Heard { targets, .. } => self.hand_out(targets),
            _ => {}
        }
    }

    fn hand_out(&mut self, targets: &[Target]) {
        for target in targets {
            let former = self.process.handed.insert(target.address(), *target);
            assert!(former.is_none(), "{} is handed out twice in a pass", target.address());
        }
    }

    /// The writer took a result.
    pub(super) fn taken(&mut self, result: &ProbeResult) {
        let address = result.target.address();
        let process = &mut self.process;
        assert!(
            process.handed.contains_key(&address),
            "{address} has a result and was not asked for"
        );
        assert!(process.met.insert(address), "{address} has two results in a pass");
        let is_admitted = process.writers_filter.as_ref().is_none_or(|filter| {
            let is_named = result.target.is_named();
            if is_named { filter.admits_named(address) } else { filter.admits(address) }
        });
        if !is_admitted {
            // Not to be stored: it must not be found in the batch.
            return;
        }
        process.taken.push(Taken {
            address,
            pass: process.pass,
            probed_at: result.probed_at,
            outcome: result.outcome,
        });
    }

    /// The crawler says that the pass is over.
    pub(super) fn pass_ends(&mut self) {
        let process = &self.process;
        assert!(process.is_last_due_here, "a pass ends before all who are due were handed out");
        for (address, target) in &process.handed {
            let is_spam = target.tier() == Target::OVER_QUOTA_TIER;
            let is_refused = process.filters.iter().any(|filter| !filter.admits(*address));
            let is_excused = process.excused.contains(address) || is_refused;
            let is_settled = process.met.contains(address) || is_excused;
            assert!(is_settled || is_spam, "a pass ends without a result of {address}");
        }
    }

    /// The writer took a batch out of the recorder.
    pub(super) fn taken_out(&mut self) {
        let taken = std::mem::take(&mut self.process.taken);
        let former = self.process.in_hand.replace(InHand { taken, is_committed: false });
        let is_safe = former.is_none_or(|former| former.is_committed);
        assert!(is_safe, "a batch was let go before it was committed");
    }

    /// The database committed what is in hand: for the first time, or again.
    pub(super) fn committed(&mut self, batch: &Batch) {
        let Some(in_hand) = &mut self.process.in_hand else { panic!("nothing is in hand") };
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
                "pass {pass}: figures (left) and results that are committed (right)"
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
        figures.probed += 1;
        figures.responded += u64::from(result.outcome == Outcome::Responded);
        if result.pass == database.pass {
            let is_first = database.written.insert(result.address);
            let (address, pass) = (result.address, result.pass);
            let is_excused = database.is_calendar_askew || database.is_forgetful;
            assert!(
                is_first || is_excused,
                "{address} has two results in pass {pass}, over a crash"
            );
        }
    }
}

/// Every result is in the rows, once, and nothing else is.
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
            panic!("{address} of pass {}: written, and not taken", row.pass)
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
            // A candidate that failed and has answered since, before anything was written.
            None if batch.nodes.contains_key(address) => {}
            None => panic!("the result of {address} in pass {} is lost", newest.pass),
        }
    }
    for address in batch.failed.keys() {
        assert!(
            !batch.nodes.contains_key(address),
            "{address} is a candidate that failed and a node"
        );
        let is_taken = missing.get(address).is_some_and(|results| !results.is_empty());
        assert!(is_taken, "{address} failed, and no such result was taken");
    }
}

/// What a node said last, and what it sent last, is in its state, whatever came after it in the same batch.
fn check_states(batch: &Batch) {
    let (mut said, mut sent) = (BTreeMap::new(), BTreeMap::new());
    for row in &batch.probes {
        if row.version.is_some() {
            said.insert(row.address, row.probed_at);
        }
        if let Some(peers) = row.peers_sent {
            sent.insert(row.address, (row.probed_at, peers));
        }
    }
    for (address, node) in &batch.nodes {
        let seen_at = node.seen.as_ref().map(|seen| seen.at);
        assert_eq!(seen_at, said.get(address).copied(), "{address}: what it said last");
        assert_eq!(node.peers, sent.get(address).copied(), "{address}: what it sent last");
    }
}
