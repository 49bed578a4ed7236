//! `Simulation`: a whole crawl in virtual time.
//!
//! Layer 2: no socket, thread or clock. The very machines of the crawl (crawler, recorder, address book, probe,
//! decoder) run against the simulated network's conversations, with the real bytes of every message; only the
//! wires between them, the writer's shell and the clock are made here. A crawl of an hour takes a second, and one
//! seed decides all. With [`Simulation::with_faults`] anything may fail, with [`Simulation::with_ledger`] books
//! are kept of what may not.
//!
//! Invariants, checked at every step: 1. no more sessions than `max_sockets`; 2. an address is met at most once
//! in a pass: no dial while it is open or after its result went to the writer; 3. time goes forward with every step
//! that does nothing else: no deadline lies in the past; 4. every probe gives one result; 5. the crawler's count of
//! what is not acknowledged is right; 6. (on demand, by [`Tally::check`]) what the far ends say they sent is what the
//! results hold.

pub mod faults;
pub mod ledger;
mod met;
mod sessions;
pub mod store;
mod wire;
mod writer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::crawl::address::Address;
use crate::crawl::batch::{Batch, LastPass};
use crate::crawl::crawler::{Crawler, CrawlerParams, Event};
use crate::crawl::exchange::ToWriter;
use crate::crawl::probe::ProbeParams;
use crate::crawl::recorder::{Recorder, RecorderParams};
use crate::crawl::stats::Limit;
use crate::crawl::time::{Now, UnixTime};
use crate::crawl::timer::Timers;
use crate::simnet::network::Network;
use crate::simnet::tally::Tally;
use crate::simnet::world::World;
use faults::{Faults, Kind};
use ledger::Ledger;
use met::Met;
use sessions::Session;
use writer::{Around, Writer, WriterSettings};

/// What the crawl goes by.
#[derive(Clone, Debug)]
pub struct SimulationParams {
    /// The seed of everything that the crawl draws; the world has its own.
    pub seed: u64,
    /// The crawler's part.
    pub crawler: CrawlerParams,
    /// The recorder's part.
    pub recorder: RecorderParams,
    /// The probes' part.
    pub probe: Arc<ProbeParams>,
    /// A batch is taken out so often.
    pub flush_interval: Duration,
    /// Every stretch of bytes arrives in pieces of random length.
    pub splits_bytes: bool,
}

/// How our own line to the world is.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum LineState {
    /// It works.
    #[default]
    Up,
    /// Whatever is sent or comes is lost; open conversations go on once it works again.
    Silent,
    /// The same, and the kernel knows it: dialling fails at once.
    Unreachable,
}

/// The crawl and its world.
#[derive(Debug)]
pub struct Simulation<N: Network = World> {
    network: Arc<N>,
    params: SimulationParams,
    /// What the nodes file names.
    named: Vec<(Address, String)>,
    crawler: Crawler,
    writer: Writer,
    faults: Option<Faults>,
    ledger: Option<Ledger>,
    /// The most sockets that were ever allowed.
    most_sockets: usize,
    /// Names are being looked up until then; whether seeds are wanted, and whether anything will be found.
    look_up: Option<(Duration, bool, bool)>,
    is_stopped: bool,
    sessions: Slab<Session<N>>,
    timers: Timers,
    ready: Vec<usize>,
    rng: fastrand::Rng,
    now: Now,
    line: LineState,
    events: Vec<Event>,
    finished_passes: usize,
    met: Met,
    /// The addresses of the open sessions.
    dialled: BTreeSet<Address>,
    tally: Tally,
    /// Every address that was dialled though the world knows nothing of it.
    pub strays: Vec<Address>,
    /// How often nodes banned the crawler.
    pub bans: u64,
    /// How often nodes complained of the crawler.
    pub complaints: u64,
    /// The most sessions at once.
    pub most_open: usize,
    /// Sessions begun.
    pub dials: u64,
    /// A digest of everything that happened, in its order: the same for the same seeds.
    pub trace: u64,
}

impl<N: Network> Simulation<N> {
    /// Makes a crawl that begins with an empty book and the world's seeds.
    pub fn new(network: Arc<N>, params: SimulationParams) -> Self {
        Self::resumed(network, params, |_| {}, LastPass::default())
    }

    /// Makes a crawl that begins with what a database knows: `load` hands it to the recorder.
    pub fn resumed(
        network: Arc<N>,
        params: SimulationParams,
        load: impl FnOnce(&mut Recorder),
        last_pass: LastPass,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(params.seed);
        let wall = UnixTime::from_secs(i64::from(network.wall(Duration::ZERO)));
        let mut recorder = Recorder::new(&params.recorder, rng.u64(..));
        load(&mut recorder);
        recorder.handle_loaded(last_pass);
        Self {
            network,
            named: Vec::new(),
            crawler: Crawler::new(params.crawler.clone(), None, rng.u64(..)),
            writer: Writer::new(recorder, WriterSettings::new(params.flush_interval)),
            faults: None,
            ledger: None,
            most_sockets: params.crawler.max_sockets,
            look_up: None,
            is_stopped: false,
            sessions: Slab::new(),
            timers: Timers::new(),
            ready: Vec::new(),
            rng,
            now: Now { mono: Duration::ZERO, wall },
            line: LineState::Up,
            params,
            events: Vec::new(),
            finished_passes: 0,
            met: Met::default(),
            dialled: BTreeSet::new(),
            tally: Tally::default(),
            strays: Vec::new(),
            bans: 0,
            complaints: 0,
            most_open: 0,
            dials: 0,
            trace: 0,
        }
    }

    /// The same with a writer thread that is no part of the loop: its answers take `delay`, and it writes at
    /// `batch_rows` rows.
    pub fn with_writer(mut self, delay: Duration, batch_rows: usize) -> Self {
        self.writer.delay = delay;
        self.writer.settings.batch_rows = batch_rows;
        self
    }

    /// The same with a writer that takes nothing while it holds `rows` rows.
    pub fn with_most_held(mut self, rows: usize) -> Self {
        self.writer.settings.most_held = rows;
        self
    }

    /// The same with named nodes.
    pub fn with_named(mut self, named: Vec<(Address, String)>) -> Self {
        self.named = named;
        self
    }

    /// The same with faults.
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = Some(faults);
        self
    }

    /// The same with its books kept.
    pub fn with_ledger(mut self, mut ledger: Ledger) -> Self {
        ledger.restarted();
        ledger.filtered(&self.params.crawler.filter);
        self.ledger = Some(ledger);
        self
    }

    /// Runs until `passes` more passes have ended. `false` if virtual time passes `limit` before.
    pub fn run_passes(&mut self, passes: usize, limit: Duration) -> bool {
        let end = self.now.mono + limit;
        let wanted = self.finished_passes + passes;
        while self.finished_passes < wanted {
            if self.now.mono >= end {
                return false;
            }
            self.step();
        }
        true
    }

    /// The rows that came out so far, in the order of their transactions.
    pub fn take_batches(&mut self) -> Vec<Batch> {
        self.writer.take_all()
    }

    /// What the keeper would have heard.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The virtual time.
    pub fn now(&self) -> Now {
        self.now
    }

    /// The crawler.
    pub fn crawler(&self) -> &Crawler {
        &self.crawler
    }

    /// Changes the crawler's parameters, as SIGHUP does.
    pub fn reload(&mut self, crawler: CrawlerParams) {
        self.reload_all(SimulationParams { crawler, ..self.params.clone() });
    }

    /// Changes all parameters but the seed, as SIGHUP does.
    pub fn reload_all(&mut self, params: SimulationParams) {
        self.most_sockets = self.most_sockets.max(params.crawler.max_sockets);
        self.writer.settings.flush_interval = params.flush_interval;
        self.params = params;
        if let Some(ledger) = &mut self.ledger {
            ledger.filtered(&self.params.crawler.filter);
        }
        let (crawler, recorder) = (self.params.crawler.clone(), self.params.recorder.clone());
        self.crawler.handle_params(crawler, recorder);
    }

    /// Stops, as SIGTERM does: open sessions are cut off, what is in hand is written.
    pub fn stop(&mut self) {
        self.crawler.handle_stop();
        self.writer.hurry();
    }

    /// Lets everything go well from now on; gives the faults, for the simulation that comes after this one.
    pub fn take_faults(&mut self) -> Option<Faults> {
        self.faults.take()
    }

    /// The faults, to ask for more of them.
    pub fn faults(&mut self) -> Option<&mut Faults> {
        self.faults.as_mut()
    }

    /// The books, for the simulation that comes after this one.
    pub fn take_ledger(&mut self) -> Option<Ledger> {
        self.ledger.take()
    }

    /// Checks that nothing is left anywhere: no session, timer, target, message or row.
    pub fn check_empty(&mut self) {
        assert_eq!(self.sessions.len(), 0, "sessions are left");
        assert!(self.timers.is_empty() && self.dialled.is_empty(), "timers are left");
        assert_eq!(self.crawler.queue_len(), 0, "targets are left in the queue");
        assert_eq!((self.crawler.unacked(), self.crawler.open()), (0, 0), "left at the crawler");
        assert!(self.writer.is_idle(), "rows or messages are left at the writer");
    }

    /// The calendar jumps; the monotonic clock, and the calendar of everybody else, do not.
    pub fn jump_wall(&mut self, seconds: i64) {
        let micros = seconds.saturating_mul(1_000_000);
        let wall = self.now.wall.as_micros().saturating_add(micros);
        self.set_wall(UnixTime::from_micros(wall));
    }

    /// The calendar is set.
    pub fn set_wall(&mut self, wall: UnixTime) {
        self.now.wall = wall;
        if let Some(ledger) = &mut self.ledger {
            ledger.calendar_jumped();
        }
    }

    /// From now on the line is so.
    pub fn set_line(&mut self, line: LineState) {
        self.line = line;
        let keys: Vec<usize> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            if line == LineState::Up {
                self.repeat_lost(key);
            }
            self.arm(key);
        }
    }

    /// The batches that the writer has written since the last call; one whose reply was lost comes again.
    pub fn drain_batches(&mut self) -> Vec<Batch> {
        self.writer.drain_committed()
    }

    /// The events since the last call; `events` begins anew.
    pub fn drain_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// What was counted since the start.
    pub fn tally(&self) -> &Tally {
        &self.tally
    }

    /// Lets the next thing happen: one turn of the loop.
    pub fn step(&mut self) {
        self.settle();
        let now = self.now.mono;
        let crawler = self.crawler.poll_timeout(self.now);
        assert!(crawler.is_none_or(|at| at > now), "the crawler's deadline is not later than now");
        let writer = self.writer.poll_timeout(now);
        assert!(writer.is_none_or(|at| at > now), "the writer's deadline is not later than now");
        let look_up = self.look_up.map(|(at, ..)| at);
        let next = [self.timers.earliest(), crawler, writer, look_up];
        let next = next.into_iter().flatten().min();
        let phase = self.crawler.phase();
        let is_alive = next.is_some() || self.crawler.is_over();
        assert!(is_alive, "nothing will ever happen any more: {phase:?}");
        let step = self.skewed(next.unwrap_or_default().saturating_sub(now));
        self.count_turn(step);
        self.now = Now { mono: now + step, wall: self.now.wall.plus(step) };
        while let Some(key) = self.timers.pop_due(self.now.mono) {
            self.ready.push(key);
        }
        let mut ready = std::mem::take(&mut self.ready);
        if let Some(faults) = &mut self.faults {
            faults.rng().shuffle(&mut ready);
        }
        for key in ready.drain(..) {
            self.pump(key);
        }
        self.ready = ready;
        self.check();
    }

    /// The time that passes where the loop wakes too early or too late.
    fn skewed(&mut self, step: Duration) -> Duration {
        let Some(faults) = &mut self.faults else { return step };
        if faults.hits(Kind::Early) {
            return step.mul_f64(faults.rng().f64());
        }
        match faults.hits(Kind::Late) {
            true => step + faults.time(Duration::from_secs(30)),
            false => step,
        }
    }

    /// The invariants that hold whenever nothing is under way.
    fn check(&self) {
        let open = self.sessions.len();
        assert_eq!(open, self.crawler.open(), "open sessions, and what the crawler thinks");
        assert!(open <= self.most_sockets, "{open} sessions, {} at most", self.most_sockets);
        assert_eq!(self.timers.len(), open, "every session has a deadline");
        let Some(ledger) = &self.ledger else { return };
        ledger.balance(open);
        // What the crawler has not handed over yet counts too; after `settle` that is nothing but what ended since.
        assert!(
            self.crawler.unacked() >= self.writer.unacked(),
            "{} results unacknowledged, the crawler thinks {}",
            self.writer.unacked(),
            self.crawler.unacked()
        );
    }

    /// Everything that needs no time: crawler, writer and dials.
    fn settle(&mut self) {
        let mut idle_turns = 0;
        loop {
            self.hear_writer();
            self.find_names();
            self.crawler.tick(self.now);
            if let Some(wants_seeds) = self.crawler.poll_need() {
                self.look_names_up(wants_seeds);
            }
            let mut is_settled = self.look_up.is_none_or(|(at, ..)| at > self.now.mono);
            while let Some(event) = self.crawler.poll_event() {
                self.note(event);
            }
            while let Some(target) = self.crawler.poll_dial(self.now) {
                is_settled = false;
                self.dial(target);
            }
            if self.crawler.is_stopping() && !std::mem::replace(&mut self.is_stopped, true) {
                is_settled = false;
                self.cut();
            }
            while let Some(message) = self.crawler.poll_writer() {
                is_settled = false;
                self.tell(message);
            }
            // A tick may lead to a state that wants the next one at once; more than a few of them would be a spin.
            let is_due = self.crawler.poll_timeout(self.now).is_some_and(|at| at <= self.now.mono);
            idle_turns += usize::from(is_settled);
            if is_settled && (!is_due || idle_turns > 3) {
                break;
            }
        }
        let (ours, theirs) = (self.crawler.unacked(), self.writer.unacked());
        assert_eq!(ours, theirs, "unacknowledged results: the crawler's count, and the true one");
    }

    fn tell(&mut self, message: ToWriter) {
        match &message {
            ToWriter::Finished(result) => {
                let address = result.target.address();
                let is_first = self.met.insert(self.network.place(address), address);
                assert!(is_first, "{address} has two results in a pass");
            }
            ToWriter::EndPass { .. } => {
                assert_eq!(self.sessions.len(), 0, "a pass ends with sessions open");
                assert_eq!(
                    self.writer.unacked(),
                    0,
                    "a pass ends before all results are acknowledged"
                );
                if let Some(ledger) = &mut self.ledger {
                    ledger.pass_ends();
                }
            }
            _ => {}
        }
        self.writer.send(message, self.most_sockets);
    }

    fn hear_writer(&mut self) {
        let (faults, ledger) = (self.faults.as_mut(), self.ledger.as_mut());
        self.writer.turn(self.now, &mut Around { faults, ledger });
        while let Some(message) = self.writer.receive(self.now.mono) {
            self.crawler.handle_writer(message, self.now);
        }
    }

    fn look_names_up(&mut self, wants_seeds: bool) {
        let (mut takes, mut finds) = (Duration::ZERO, true);
        if let Some(faults) = &mut self.faults
            && faults.hits(Kind::NoNames)
        {
            takes = faults.time(Duration::from_secs(30));
            finds = faults.rng().bool();
        }
        self.look_up = Some((self.now.mono + takes, wants_seeds, finds));
    }

    fn find_names(&mut self) {
        let Some((at, wants_seeds, finds)) = self.look_up else { return };
        if at > self.now.mono {
            return;
        }
        self.look_up = None;
        let wanted = wants_seeds && finds;
        let seeds = if wanted { self.network.seed_addresses() } else { Vec::new() };
        let named = if finds { self.named.clone() } else { Vec::new() };
        self.crawler.handle_names(named, seeds, !finds, self.now);
    }

    /// Whether this turn, and the time up to the next one, is used as far as it is allowed.
    fn count_turn(&mut self, step: Duration) {
        if self.crawler.queue_len() == 0 {
            return;
        }
        let is_used = matches!(self.crawler.limit(self.now), Limit::Sockets | Limit::Rate);
        self.tally.turns += 1;
        self.tally.queued += step;
        if is_used {
            self.tally.used_turns += 1;
            self.tally.used += step;
        }
    }

    fn note(&mut self, event: Event) {
        match event {
            Event::PassStarted { .. } => self.met.clear(),
            Event::PassFinished { .. } => self.finished_passes += 1,
            _ => {}
        }
        self.events.push(event);
    }

    fn digest(&mut self, value: u64) {
        let mixed = self.trace ^ value ^ self.now.mono.as_nanos() as u64;
        self.trace = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}
