//! `Recorder`: turns results into entries of the address book, rows for the database and new
//! targets.
//!
//! Sans-I/O, driven by the writer thread, which feeds it the event loop's messages, writes its
//! batches and returns its replies.
//!
//! Invariants:
//! 1. Every `Finished` is acknowledged exactly once.
//! 2. The rows of a batch belong to the caller of `take_batch` until they are committed.
//! 3. Outside a running pass no target is handed out.
//! 4. Of an address, a batch has either a row of a candidate or a row of a node.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::book::{AddressBook, BookParams, Recorded, ResultFacts, Source};
use crate::lookup::species::{Lineage, Rules, TRB, caches_no_reply};
use crate::record::messages::{FromWriter, Names, Opened, ToWriter, Totals};
use crate::vocabulary::address::Address;
use crate::vocabulary::clock_jump::ClockWatch;
use crate::vocabulary::filter::{Asked, Filter};
use crate::vocabulary::rows::{
    Batch, FailedRow, HeardRow, Known, LastPass, NodeRow, PassRow, ProbeRow, Seen, SourceRow,
};
use crate::vocabulary::target::{Peer, ProbeResult, Target};
use crate::vocabulary::time::{Now, UnixTime};

/// Settings of the recorder.
#[derive(Clone, Debug)]
pub struct RecorderParams {
    /// Settings of the address book.
    pub book: BookParams,
    /// Addresses that it refuses are never stored.
    pub filter: Arc<Filter>,
    /// The rules that tell the species of a node.
    pub rules: Arc<Rules>,
}

/// Delay after a step of the wall clock before candidates expire: most are named again meanwhile.
const FORGET_DELAY: Duration = Duration::from_secs(86_400);

/// Maximum number of pending rows while the database is down; no result is accepted beyond it.
pub const MAX_PENDING_ROWS: usize = 100_000;

#[derive(Debug)]
struct Pass {
    number: u64,
    row: PassRow,
}

/// Owns the address book and the rows that are not yet written; see the module.
#[derive(Debug)]
pub struct Recorder {
    book: AddressBook,
    filter: Arc<Filter>,
    rules: Arc<Rules>,
    rng: fastrand::Rng,
    batch: Batch,
    pass: Option<Pass>,
    last_pass: LastPass,
    names: BTreeMap<Address, String>,
    /// The newest time loaded from the database.
    newest: UnixTime,
    /// Present from the first pass on: before, no time depends on the wall clock.
    clock_watch: Option<ClockWatch>,
    /// No candidate expires before this time on the monotonic clock, after a clock step.
    forgets_from: Duration,
    /// The same on the wall clock, as loaded from the database.
    loaded_forgets_from: UnixTime,
    outbox: VecDeque<FromWriter>,
}

impl Recorder {
    /// Creates a recorder with an empty book.
    pub fn new(params: &RecorderParams, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        Self {
            book: AddressBook::new(params.book, rng.u64(..)),
            filter: Arc::clone(&params.filter),
            rules: Arc::clone(&params.rules),
            rng,
            batch: Batch::default(),
            pass: None,
            last_pass: LastPass::default(),
            names: BTreeMap::new(),
            newest: UnixTime::default(),
            clock_watch: None,
            forgets_from: Duration::ZERO,
            loaded_forgets_from: UnixTime::default(),
            outbox: VecDeque::new(),
        }
    }

    /// The address book.
    pub fn book(&self) -> &AddressBook {
        &self.book
    }

    /// Loads an address from the database.
    pub fn load(&mut self, known: &Known) {
        // Not `last_heard`: a time from a clock that ran ahead would stay there forever.
        self.newest = self.newest.max(known.last_probed.unwrap_or_default());
        self.book.load(known, self.filter.admits(known.address));
    }

    /// Loads a source from the database.
    pub fn load_source(&mut self, group: u16, row: SourceRow) {
        self.book.load_source(group, row);
    }

    /// Loads the name of an address from the database.
    pub fn load_name(&mut self, address: Address, name: String) {
        self.names.insert(address, name);
    }

    /// Loads the time before which nothing expires, because the wall clock was set.
    pub fn load_forgets_from(&mut self, at: UnixTime) {
        self.loaded_forgets_from = at;
        self.book.set_forgets_from(at);
    }

    /// Loads what a former process learned of the ranks of candidates.
    pub fn load_learned(&mut self, learned: &[i32]) {
        self.book.load_learned(learned);
    }

    /// Handles the end of loading.
    pub fn handle_loaded(&mut self, last_pass: LastPass) {
        let opened = self.opened(last_pass);
        self.outbox.push_back(FromWriter::Ready(opened));
    }

    /// Discards everything, pending rows and the pass included, before `load` is called again
    /// because the database was emptied or replaced. Replies that are queued for the event loop
    /// stay.
    pub fn forget_all(&mut self) {
        self.book = AddressBook::new(self.book.params(), self.rng.u64(..));
        self.batch = Batch::default();
        self.pass = None;
        self.last_pass = LastPass::default();
        self.newest = UnixTime::default();
        self.loaded_forgets_from = UnixTime::default();
        self.names.clear();
    }

    /// Handles the end of loading after [`Recorder::forget_all`].
    pub fn handle_reloaded(&mut self, last_pass: LastPass) {
        let opened = self.opened(last_pass);
        self.outbox.push_back(FromWriter::Reset(opened));
    }

    fn opened(&mut self, last_pass: LastPass) -> Opened {
        self.last_pass = last_pass;
        let unfinished = last_pass.pass > 0 && last_pass.row.finished_at.is_none();
        let last_started = (last_pass.pass > 0).then_some(last_pass.row.started_at);
        let newest = self.newest.max(last_pass.row.started_at);
        let newest = newest.max(last_pass.row.finished_at.unwrap_or_default());
        Opened { last_started, unfinished, newest, totals: self.totals() }
    }

    /// Handles a message of the event loop.
    pub fn handle(&mut self, message: ToWriter, now: Now) {
        if matches!(message, ToWriter::StartPass { .. }) {
            self.clock_watch.get_or_insert_default();
        }
        let acks = self.acks_waiting();
        let result_of = match &message {
            ToWriter::Finished(result) => Some(result.target.address()),
            _ => None,
        };
        let has_stepped = self.watch_clock(now);
        let now = now.wall;
        // The event loop may have read the wall clock before a step that is detected only now.
        let time = |at| if has_stepped { now } else { at };
        match message {
            ToWriter::StartPass { at, names } => self.start_pass(time(at), names),
            ToWriter::MoreDue { over_quota } => self.more_due(over_quota, now),
            ToWriter::Finished(result) => self.finished(*result, now),
            ToWriter::EndPass { at } => self.end_pass(time(at)),
            ToWriter::UplinkDown => {
                if let Some(pass) = &mut self.pass {
                    pass.row.uplink_was_down = true;
                }
                self.push_pass();
            }
            ToWriter::Reconfigure(params) => {
                self.book.set_params(params.recorder.book);
                self.filter = Arc::clone(&params.recorder.filter);
                self.rules = Arc::clone(&params.recorder.rules);
            }
            // For the writer machine.
            ToWriter::Hurry | ToWriter::Stop => {}
        }
        debug_assert_eq!(
            self.acks_waiting(),
            acks + usize::from(result_of.is_some()),
            "1. a result is acknowledged once"
        );
        self.check_invariants(result_of);
    }

    /// Whether candidates may expire: not within a day after a step of the wall clock, since older
    /// times were read from another clock.
    pub fn may_forget(&self, now: Now) -> bool {
        // More than a day ahead, it was stored by a clock that ran ahead.
        let is_kept = now.wall < self.loaded_forgets_from
            && self.loaded_forgets_from <= now.wall.plus(FORGET_DELAY);
        now.mono >= self.forgets_from && !is_kept
    }

    /// Detects a step of the wall clock and shifts all due times. Returns whether there was one.
    fn watch_clock(&mut self, now: Now) -> bool {
        let Some(step) = self.clock_watch.as_mut().and_then(|watch| watch.observe(now)) else {
            return false;
        };
        self.forgets_from = now.mono + FORGET_DELAY;
        self.loaded_forgets_from = UnixTime::default();
        self.batch.forgets_from = Some(now.wall.plus(FORGET_DELAY));
        self.book.rebase(step, now.wall);
        if let Some(pass) = &mut self.pass {
            pass.row.started_at = pass.row.started_at.shifted(step.as_micros());
        }
        self.outbox.push_back(FromWriter::ClockStepped(step));
        true
    }

    /// The next reply to the event loop.
    pub fn poll_output(&mut self) -> Option<FromWriter> {
        self.outbox.pop_front()
    }

    /// Number of rows that are not yet written.
    pub fn pending_rows(&self) -> usize {
        self.batch.rows()
    }

    /// Whether anything is to be written.
    pub fn has_rows(&self) -> bool {
        !self.batch.is_empty()
    }

    /// Takes the rows of the next transaction.
    pub fn take_batch(&mut self) -> Batch {
        std::mem::take(&mut self.batch)
    }

    /// The figures for the stats line.
    pub fn totals(&self) -> Totals {
        let row = self.pass.as_ref().map_or(self.last_pass.row, |pass| pass.row);
        let nodes = self.book.nodes();
        Totals {
            new_nodes: row.new_nodes,
            new_addresses: row.new_addresses,
            candidates: (self.book.len().saturating_sub(nodes)) as u64,
            nodes: nodes as u64,
            up: self.book.up() as u64,
        }
    }

    fn start_pass(&mut self, at: UnixTime, names: Names) {
        let resumed = self.last_pass.pass > 0 && self.last_pass.row.finished_at.is_none();
        let pass = if resumed {
            Pass { number: self.last_pass.pass, row: self.last_pass.row }
        } else {
            let row = PassRow { started_at: at, ..PassRow::default() };
            Pass { number: self.last_pass.pass.saturating_add(1), row }
        };
        let started_at = pass.row.started_at;
        self.book.start_pass(started_at);
        let number = pass.number;
        self.pass = Some(pass);
        let stored = std::mem::take(&mut self.names);
        let is_kept = |(address, name): &(Address, String)| {
            let is_checked = self.filter.check_answer(*address, Asked::Named).is_ok();
            is_checked && names.unresolved.contains(name)
        };
        let kept: Vec<(Address, String)> = stored.into_iter().filter(is_kept).collect();
        let mut targets = Vec::new();
        for (address, name) in names.named.into_iter().chain(kept) {
            let target = self.hand_out_named(address, resumed, at);
            targets.extend(target.map(Target::named));
            if self.filter.admits_named(address) {
                // The first name of an address wins, as in `poll`.
                self.names.entry(address).or_insert(name);
            }
        }
        for address in &names.seeds {
            // The operator vouches for seeds too, and the shell checked what name servers answered.
            let target = self.hand_out_named(*address, resumed, at);
            targets.extend(target.map(Target::named));
        }
        self.batch.names = Some(self.names.clone());
        let due = self.book.count_due(&self.filter).max(targets.len() as u64);
        let pass = self.pass.as_mut().expect("it was set above");
        pass.row.due = pass.row.probed + due;
        let row = pass.row;
        // The row counts the named nodes: this batch may be the last before a crash.
        self.push_pass();
        self.outbox.push_back(FromWriter::Started { pass: number, row, resumed, due });
        self.due(targets, at);
    }

    /// Hands out a named address, due or not, unless it was probed before the pass was interrupted.
    fn hand_out_named(&mut self, address: Address, resumed: bool, at: UnixTime) -> Option<Target> {
        if !self.filter.admits_named(address) {
            return None;
        }
        self.hear(address, Source::NodesFile, at);
        if resumed && self.book.was_probed_in_pass(address) {
            return None;
        }
        self.book.hand_out(address, at)
    }

    fn more_due(&mut self, over_quota: bool, now: UnixTime) {
        if self.pass.is_none() {
            return;
        }
        if !over_quota {
            return self.due(Vec::new(), now);
        }
        let mut targets = Vec::new();
        self.book.poll_over_quota(&self.filter, &mut targets);
        let waits = self.book.waits();
        self.outbox.push_back(FromWriter::Due { targets, last: true, waits });
    }

    fn due(&mut self, mut targets: Vec<Target>, now: UnixTime) {
        let last = self.book.poll_due(&self.filter, now, &mut targets);
        let waits = self.book.waits();
        self.outbox.push_back(FromWriter::Due { targets, last, waits });
    }

    fn finished(&mut self, result: ProbeResult, now: UnixTime) {
        let group = result.target.address().group();
        let acked_peers = result.peers.len();
        self.book.prefetch(result.peers.iter().map(|peer| peer.address));
        for peer in &result.peers {
            let seen = seen(peer, now);
            let is_stale = now.as_secs() - seen > MAX_PEER_AGE_SECS;
            let seen = u32::try_from(seen).unwrap_or(0);
            if self.filter.admits(peer.address) {
                self.hear(peer.address, Source::Node { group, is_stale, seen }, now);
            }
        }
        self.batch.forgotten.extend(self.book.evict(now));
        // An address that was excluded during its probe is not stored.
        let address = result.target.address();
        let is_admitted = if result.target.is_named() {
            self.filter.admits_named(address)
        } else {
            self.filter.admits(address)
        };
        if is_admitted {
            self.record(result);
        }
        let waits = self.book.waits();
        self.outbox.push_back(FromWriter::Heard { acked: 1, acked_peers, waits });
    }

    /// Takes in addresses that wait in the database, imported by the operator. The next batch has
    /// them, those that the filter refuses included, so that they wait no longer.
    pub fn take_imported(&mut self, offered: &[Address], now: Now) {
        let (mut addresses, mut new) = (0, 0);
        for address in offered {
            // They are offered again until the batch is written.
            if self.batch.imported.insert(*address) {
                addresses += 1;
                let is_admitted = self.filter.admits(*address);
                new += u64::from(is_admitted && self.hear(*address, Source::Import, now.wall));
            }
        }
        if addresses == 0 {
            return;
        }
        self.batch.forgotten.extend(self.book.evict(now.wall));
        self.push_pass();
        let waits = self.book.waits();
        self.outbox.push_back(FromWriter::Imported { addresses, new });
        self.outbox.push_back(FromWriter::Heard { acked: 0, acked_peers: 0, waits });
        self.check_invariants(None);
    }

    /// Handles an address that `source` names. Returns whether it is new.
    fn hear(&mut self, address: Address, source: Source, now: UnixTime) -> bool {
        let heard = self.book.hear(address, source, now);
        if heard.wants_row {
            let source = heard.only_source;
            let next_probe = self.book.due_when_heard();
            let row = HeardRow { at: now, next_probe, source };
            let merged = |old: &mut HeardRow| (old.at, old.source) = (now, source);
            self.batch.heard.entry(address).and_modify(merged).or_insert(row);
            self.batch.forgotten.remove(&address);
        }
        if heard.is_new
            && let Some(pass) = &mut self.pass
        {
            pass.row.new_addresses += 1;
            pass.row.due += 1;
        }
        heard.is_new
    }

    fn record(&mut self, result: ProbeResult) {
        let address = result.target.address();
        let version = result.version.as_ref();
        let lineage = version.map(|version| {
            let agent = version.user_agent.as_deref();
            self.rules.classify(agent, version.protocol_version, version.services)
        });
        let facts = ResultFacts {
            address,
            outcome: result.outcome,
            probed_at: result.probed_at,
            peers_sent: result.peers_sent,
            is_trb: lineage.as_ref().is_some_and(|lineage| *lineage.species == *TRB),
            caches_no_reply: version
                .is_some_and(|v| caches_no_reply(v.user_agent.as_deref(), v.protocol_version)),
            composed_at: composed_at(&result),
        };
        let recorded = self.book.record(&facts, self.rng.f64());
        let number = self.count(&result, &recorded);
        if recorded.is_node {
            self.push_node(result, &recorded, lineage, number);
        } else if !self.batch.nodes.contains_key(&address) {
            // 4. Else the book dropped a node whose row is pending: in the database it is a node.
            let row = FailedRow {
                failures: recorded.failures,
                last_probed: result.probed_at,
                last_outcome: result.outcome,
                next_probe: recorded.next_probe,
            };
            self.batch.failed.insert(address, row);
        }
    }

    /// Counts the result in its pass and returns the number of the pass. A follow-up is of an
    /// address that was counted.
    fn count(&mut self, result: &ProbeResult, recorded: &Recorded) -> u64 {
        let Some(pass) = &mut self.pass else { return self.last_pass.pass };
        if !result.target.is_follow_up() {
            pass.row.probed += 1;
            pass.row.responded += u64::from(result.version.is_some());
            pass.row.failed += u64::from(result.version.is_none());
        }
        pass.row.new_nodes += u64::from(recorded.is_new_node);
        let number = pass.number;
        self.push_pass();
        number
    }

    /// Puts the row of the running pass into the batch.
    fn push_pass(&mut self) {
        let candidates = self.totals().candidates;
        if let Some(pass) = &mut self.pass {
            pass.row.candidates = candidates;
            self.batch.passes.insert(pass.number, pass.row);
        }
    }

    fn push_node(
        &mut self,
        result: ProbeResult,
        recorded: &Recorded,
        lineage: Option<Lineage>,
        pass: u64,
    ) {
        let address = result.target.address();
        let seen = result.version.clone().zip(lineage).map(|(version, lineage)| Seen {
            at: result.probed_at,
            version,
            lineage,
            connect_ms: result.connect_ms,
            version_ms: result.version_ms,
        });
        let peers = result.peers_sent.map(|sent| (result.probed_at, sent));
        let row = NodeRow {
            status: recorded.status,
            last_probed: result.probed_at,
            last_outcome: result.outcome,
            failures: recorded.failures,
            next_probe: recorded.next_probe,
            seen,
            peers,
        };
        // 4. A candidate that failed earlier in this batch has responded now.
        self.batch.failed.remove(&address);
        let old = self.batch.nodes.remove(&address);
        let (old_seen, old_peers) = old.map_or((None, None), |old| (old.seen, old.peers));
        let row = NodeRow { seen: row.seen.or(old_seen), peers: row.peers.or(old_peers), ..row };
        self.batch.nodes.insert(address, row);
        if pass == 0 {
            // A late result, from a database that was replaced: no pass exists yet.
            return;
        }
        self.batch.probes.push(ProbeRow {
            address,
            pass,
            probed_at: result.probed_at,
            outcome: result.outcome,
            version: result.version,
            connect_ms: result.connect_ms,
            version_ms: result.version_ms,
            peers_sent: result.peers_sent,
        });
    }

    fn end_pass(&mut self, at: UnixTime) {
        if let Some(pass) = &mut self.pass {
            pass.row.finished_at = Some(at);
        }
        self.push_pass();
        if let Some(pass) = self.pass.take() {
            self.batch.sources.extend(self.book.take_changed_sources());
            self.batch.learned = Some(self.book.ranks().learned());
            self.last_pass = LastPass { pass: pass.number, row: pass.row };
        }
        self.outbox.push_back(FromWriter::Ended);
    }

    /// Number of results acknowledged by replies that the event loop has not taken yet.
    fn acks_waiting(&self) -> usize {
        let acked = |reply: &FromWriter| match reply {
            FromWriter::Heard { acked, .. } => *acked,
            _ => 0,
        };
        self.outbox.iter().map(acked).sum()
    }

    /// Checks the pass, the last reply, and the rows of the address whose result came in.
    fn check_invariants(&self, changed: Option<Address>) {
        if !cfg!(debug_assertions) {
            return;
        }
        if let Some(pass) = &self.pass {
            debug_assert!(pass.number > 0 && pass.number >= self.last_pass.pass);
            debug_assert!(pass.row.finished_at.is_none(), "a finished pass runs");
        } else if let Some(FromWriter::Due { targets, .. }) = self.outbox.back() {
            debug_assert!(targets.is_empty(), "3. a target is handed out outside a pass");
        }
        let Some(address) = changed else { return };
        let batch = &self.batch;
        let is_failed = batch.failed.contains_key(&address);
        let is_node = batch.nodes.contains_key(&address);
        debug_assert!(!is_failed || !is_node, "4. {address} has two rows");
    }
}

/// When a reply was composed, as the times in it suggest: Bitcoin Core adds two hours to the age of
/// every address that is relayed, so that those seen last are as old. A few may be newer: they
/// announced themselves to the node.
fn composed_at(result: &ProbeResult) -> Option<UnixTime> {
    let now = u32::try_from(result.probed_at.as_secs()).unwrap_or(0);
    let own = result.target.address();
    let mut newest = [0_u32; 5];
    for peer in &result.peers {
        if peer.time > newest[4] && peer.time <= now && peer.address != own {
            newest[4] = peer.time;
            newest.sort_unstable_by(|a, b| b.cmp(a));
        }
    }
    let composed_at = UnixTime::from_secs(i64::from(newest[4])).plus(RELAY_PENALTY);
    (newest[4] > 0).then(|| composed_at.min(result.probed_at))
}

/// What Bitcoin Core subtracts from the time of a relayed address (net_processing.cpp).
const RELAY_PENALTY: Duration = Duration::from_secs(2 * 3_600);

/// When the peer was last seen, as the sender claims, in seconds since 1970. Times are clamped as
/// in Bitcoin Core (`ProcessMessage`, ADDR): impossible ones count as five days old.
fn seen(peer: &Peer, now: UnixTime) -> i64 {
    let wall = now.as_secs();
    let time = i64::from(peer.time);
    let is_impossible = time <= 100_000_000 || time > wall + 10 * 60;
    if is_impossible { wall - 5 * 86_400 } else { time }
}

/// Maximum age of the addresses that Bitcoin Core relays (addrman.cpp, `IsTerrible`).
const MAX_PEER_AGE_SECS: i64 = 30 * 86_400;
