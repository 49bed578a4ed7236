//! `Recorder`: what becomes of a result: the address book's entry, the rows for the database, new targets.
//!
//! Layer 2: a pure machine. The writer thread is its shell: it hands in what the loop says, writes the batches
//! that come out and passes the answers back.
//! Invariants: 1. every `Finished` is acknowledged exactly once; 2. a row that was taken out by `take_batch`
//! is the shell's to keep until the database has it; 3. outside a running pass nothing is handed out.

use std::collections::{BTreeMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use crate::crawl::address::Address;
use crate::crawl::batch::{
    Batch, FailedRow, HeardRow, Known, LastPass, NodeRow, PassRow, ProbeRow, Seen, SourceRow,
};
use crate::crawl::book::{AddressBook, BookParams, Recorded, ResultFacts, Source};
use crate::crawl::clock_watch::ClockWatch;
use crate::crawl::exchange::{FromWriter, Opened, ToWriter, Totals};
use crate::crawl::filter::Filter;
use crate::crawl::target::{Peer, ProbeResult, Target};
use crate::crawl::time::{Now, UnixTime};
use crate::lookup::species::species;

/// What the recorder goes by.
#[derive(Clone, Debug)]
pub struct RecorderParams {
    /// The address book's part.
    pub book: BookParams,
    /// What is never stored.
    pub filter: Arc<Filter>,
}

/// So long after a step of the calendar nobody is forgotten: most are named again meanwhile.
const REMEMBERS_FOR: Duration = Duration::from_secs(86_400);

/// So many rows are held at most while the database is away; then no more results are taken.
pub const MAX_HELD_ROWS: usize = 100_000;

#[derive(Debug)]
struct Pass {
    number: u64,
    row: PassRow,
}

/// The machine.
#[derive(Debug)]
pub struct Recorder {
    book: AddressBook,
    filter: Arc<Filter>,
    rng: fastrand::Rng,
    batch: Batch,
    pass: Option<Pass>,
    last_pass: LastPass,
    names: BTreeMap<Address, String>,
    /// The newest time that the database holds, as far as it was loaded.
    newest: UnixTime,
    /// From the first pass on: before that the calendar may be about to be set, and nothing was reckoned by it.
    clock_watch: Option<ClockWatch>,
    /// Until then, on the monotonic clock, nobody is forgotten: the calendar was set.
    remembers_until: Duration,
    outbox: VecDeque<FromWriter>,
}

impl Recorder {
    /// Makes a recorder with an empty book.
    pub fn new(params: &RecorderParams, seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        Self {
            book: AddressBook::new(params.book, rng.u64(..)),
            filter: Arc::clone(&params.filter),
            rng,
            batch: Batch::default(),
            pass: None,
            last_pass: LastPass::default(),
            names: BTreeMap::new(),
            newest: UnixTime::default(),
            clock_watch: None,
            remembers_until: Duration::ZERO,
            outbox: VecDeque::new(),
        }
    }

    /// Takes in an address that the database knows.
    pub fn load(&mut self, known: &Known) {
        // Not when it was heard of: what a calendar that ran ahead for a while has put there stays for ever.
        self.newest = self.newest.max(known.last_probed.unwrap_or_default());
        self.book.load(known, self.filter.admits(known.address));
    }

    /// Takes in what the database knows of a source.
    pub fn load_source(&mut self, group: u16, row: SourceRow) {
        self.book.load_source(group, row);
    }

    /// Everything is loaded.
    pub fn handle_loaded(&mut self, last_pass: LastPass) {
        let opened = self.opened(last_pass);
        self.outbox.push_back(FromWriter::Ready(opened));
    }

    /// Everything is forgotten, rows that wait and the pass included: `load` comes anew, for the first time or
    /// because the database is not the one any more that was loaded. What was said to the loop stands.
    pub fn forget_all(&mut self) {
        self.book = AddressBook::new(self.book.params(), self.rng.u64(..));
        self.batch = Batch::default();
        self.pass = None;
        self.last_pass = LastPass::default();
        self.newest = UnixTime::default();
        self.names.clear();
    }

    /// Everything is loaded again, after [`Recorder::forget_all`].
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

    /// The loop says something.
    pub fn handle(&mut self, message: ToWriter, now: Now) {
        if matches!(message, ToWriter::StartPass { .. }) {
            self.clock_watch.get_or_insert_default();
        }
        let has_stepped = self.watch_clock(now);
        let now = now.wall;
        // The loop may have read the calendar before a step that is seen only now.
        let time = |at| if has_stepped { now } else { at };
        match message {
            ToWriter::StartPass { at, named, seeds } => {
                self.start_pass(time(at), named, &seeds);
            }
            ToWriter::MoreDue { over_quota } => self.more_due(over_quota, now),
            ToWriter::Finished(result) => self.finished(*result, now),
            ToWriter::EndPass { at } => self.end_pass(time(at)),
            ToWriter::Reconfigure(params) => {
                self.book.set_params(params.book);
                self.filter = Arc::clone(&params.filter);
            }
            // The shell stops by itself; all that is left to do here is to hand over the rows.
            ToWriter::Stop => {}
        }
    }

    /// Whether what nobody names any more may be forgotten: not within a day after the calendar was set, since
    /// what was heard before bears times of another calendar.
    pub fn may_forget(&self, now: Now) -> bool {
        now.mono >= self.remembers_until
    }

    /// After a step of the calendar, who is due is reckoned anew: everybody waits as long as before. Gives
    /// whether there was one.
    fn watch_clock(&mut self, now: Now) -> bool {
        let Some(step) = self.clock_watch.as_mut().and_then(|watch| watch.observe(now)) else {
            return false;
        };
        self.remembers_until = now.mono + REMEMBERS_FOR;
        self.book.rebase(step, now.wall);
        if let Some(pass) = &mut self.pass {
            pass.row.started_at = pass.row.started_at.shifted(step.as_micros());
        }
        self.outbox.push_back(FromWriter::ClockStepped(step));
        true
    }

    /// What goes back to the loop.
    pub fn poll_output(&mut self) -> Option<FromWriter> {
        self.outbox.pop_front()
    }

    /// How many rows wait to be written.
    pub fn held(&self) -> usize {
        self.batch.rows()
    }

    /// Whether rows of a pass wait that should be written even if there are few.
    pub fn has_rows(&self) -> bool {
        !self.batch.is_empty()
    }

    /// The rows for the next transaction.
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

    fn start_pass(&mut self, at: UnixTime, named: Vec<(Address, String)>, seeds: &[Address]) {
        let resumed = self.last_pass.pass > 0 && self.last_pass.row.finished_at.is_none();
        let pass = match resumed {
            true => Pass { number: self.last_pass.pass, row: self.last_pass.row },
            false => Pass {
                number: self.last_pass.pass.saturating_add(1),
                row: PassRow { started_at: at, ..PassRow::default() },
            },
        };
        let started_at = pass.row.started_at;
        self.book.start_pass(started_at);
        let (number, row) = (pass.number, pass.row);
        self.pass = Some(pass);
        self.names.clear();
        let mut targets = Vec::new();
        for (address, name) in named {
            let target = self.hand_out_named(address, resumed, at);
            targets.extend(target.map(Target::named));
            if self.filter.admits_named(address) {
                self.names.insert(address, name);
            }
        }
        for address in seeds {
            // A seed is named by a person too: `filter.only` alone binds it.
            let target = self.hand_out_named(*address, resumed, at);
            targets.extend(target.map(Target::named));
        }
        self.batch.names = Some(self.names.clone());
        // With what was counted of them: this batch may be the last before a crash.
        if let Some(pass) = &self.pass {
            self.batch.passes.insert(pass.number, pass.row);
        }
        let due = self.book.count_due(&self.filter).max(targets.len() as u64);
        self.outbox.push_back(FromWriter::Started { pass: number, row, resumed, due });
        self.due(targets, at);
    }

    /// Hands out what a person named, due or not, unless it was probed before the pass was cut short.
    fn hand_out_named(&mut self, address: Address, resumed: bool, at: UnixTime) -> Option<Target> {
        if !self.filter.admits_named(address) {
            return None;
        }
        let heard = self.hear(address, Source::Person, at);
        if resumed && self.book.was_probed_in_pass(address) {
            return None;
        }
        heard.or_else(|| self.book.hand_out(address, at))
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
        let held_back = self.book.held_back();
        self.outbox.push_back(FromWriter::Due { targets, last: true, held_back });
    }

    fn due(&mut self, mut targets: Vec<Target>, now: UnixTime) {
        let last = self.book.poll_due(&self.filter, now, &mut targets);
        let held_back = self.book.held_back();
        self.outbox.push_back(FromWriter::Due { targets, last, held_back });
    }

    fn finished(&mut self, result: ProbeResult, now: UnixTime) {
        let group = result.target.address().group();
        let mut targets = Vec::new();
        let acked_peers = result.peers.len();
        self.book.warm(result.peers.iter().map(|peer| peer.address));
        for peer in &result.peers {
            let source = Source::Node { group, is_stale: is_stale(peer, now) };
            if self.filter.admits(peer.address) {
                targets.extend(self.hear(peer.address, source, now));
            }
        }
        self.batch.forgotten.extend(self.book.evict(now));
        // Who was excluded while it was being probed is not stored any more.
        let address = result.target.address();
        let is_admitted = match result.target.is_named() {
            true => self.filter.admits_named(address),
            false => self.filter.admits(address),
        };
        if is_admitted {
            self.record(result);
        }
        let held_back = self.book.held_back();
        self.outbox.push_back(FromWriter::Heard { targets, acked: 1, acked_peers, held_back });
    }

    /// Gives the target if the address is to be probed in this pass.
    fn hear(&mut self, address: Address, source: Source, now: UnixTime) -> Option<Target> {
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
        }
        heard.target
    }

    fn record(&mut self, result: ProbeResult) {
        let address = result.target.address();
        let version = result.version.as_ref();
        let species = version
            .map(|v| species(v.user_agent.as_deref(), v.protocol_version, v.services))
            .unwrap_or_default();
        let facts = ResultFacts {
            address,
            outcome: result.outcome,
            probed_at: result.probed_at,
            peers_sent: result.peers_sent,
            is_trb: species == "TRB",
        };
        let recorded = self.book.record(&facts, self.rng.f64());
        let number = self.count(&result, &recorded);
        if recorded.is_node {
            self.push_node(result, &recorded, species, number);
        } else {
            let row = FailedRow {
                failures: recorded.failures,
                last_probed: result.probed_at,
                last_outcome: result.outcome,
                next_probe: recorded.next_probe,
            };
            self.batch.failed.insert(address, row);
        }
    }

    /// Counts the result in its pass and gives the pass's number.
    fn count(&mut self, result: &ProbeResult, recorded: &Recorded) -> u64 {
        let Some(pass) = &mut self.pass else { return self.last_pass.pass };
        pass.row.probed += 1;
        match result.version {
            Some(_) => pass.row.responded += 1,
            None => pass.row.failed += 1,
        }
        pass.row.new_nodes += u64::from(recorded.is_new_node);
        self.batch.passes.insert(pass.number, pass.row);
        pass.number
    }

    fn push_node(
        &mut self,
        result: ProbeResult,
        recorded: &Recorded,
        species: &'static str,
        pass: u64,
    ) {
        let address = result.target.address();
        let seen = result.version.clone().map(|version| Seen {
            at: result.probed_at,
            version,
            species,
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
        // A candidate that failed earlier in this batch has answered now.
        self.batch.failed.remove(&address);
        let old = self.batch.nodes.remove(&address);
        let (old_seen, old_peers) = old.map_or((None, None), |old| (old.seen, old.peers));
        let row = NodeRow { seen: row.seen.or(old_seen), peers: row.peers.or(old_peers), ..row };
        self.batch.nodes.insert(address, row);
        if pass == 0 {
            // It came late, from a pass of a database that is gone: there is none yet that it could belong to.
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
        if let Some(mut pass) = self.pass.take() {
            pass.row.finished_at = Some(at);
            self.batch.sources.extend(self.book.take_changed_sources());
            self.batch.passes.insert(pass.number, pass.row);
            self.last_pass = LastPass { pass: pass.number, row: pass.row };
        }
        self.outbox.push_back(FromWriter::Ended);
    }
}

/// Whether a peer is old news by the sender's own words. Times are clamped as Bitcoin Core does it
/// (`ProcessMessage`, ADDR): impossible ones count as five days old.
fn is_stale(peer: &Peer, now: UnixTime) -> bool {
    let wall = now.as_secs();
    let time = i64::from(peer.time);
    let is_impossible = time <= 100_000_000 || time > wall + 10 * 60;
    let time = if is_impossible { wall - 5 * 86_400 } else { time };
    wall - time > STALE_AFTER
}

/// Bitcoin Core hands out nothing older (addrman.cpp, `IsTerrible`).
const STALE_AFTER: i64 = 30 * 86_400;
