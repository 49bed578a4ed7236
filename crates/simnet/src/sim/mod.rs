//! `Simulation`: a whole crawl in virtual time. Sans-I/O.
//!
//! The crawl's own machines (crawler, writer machine, probe, decoder) run against the peers of a
//! simulated network with the real bytes of every message; only the wires, the writer's shell and
//! the clock are simulated. An hour of crawling takes a second, and one seed determines the run.
//! With [`Simulation::with_faults`] anything may fail; [`Simulation::with_shadow_model`] checks
//! what must hold nevertheless.
//!
//! Invariants, checked at every step:
//! 1. There are at most `max_sockets` sessions.
//! 2. An address is dialled at most once per pass: not while it is open, and not after its result
//!    went to the writer; once more if it responded and was not asked for its peers.
//! 3. Every step either does something or advances the time: no deadline lies in the past.
//! 4. Every probe has one result.
//! 5. The crawler's count of unacknowledged results is right.
//! 6. On demand ([`Conservation::check`]): what peers sent is what the results contain.

pub mod faults;
mod probed;
mod sessions;
pub mod shadow_model;
pub mod store;
mod wire;
mod writer;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::network::Network;
use crate::network::world::World;
use crate::verify::conservation::Conservation;
use bitdash_core::probe::ProbeParams;
use bitdash_core::record::messages::{Names, ToWriter, WriterParams};
use bitdash_core::record::writer_machine::WriterMachine;
use bitdash_core::schedule::crawler::{Crawler, CrawlerParams, Event, NameRequest, StopReason};
use bitdash_core::schedule::stats::Limit;
use bitdash_core::schedule::timers::Timers;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::rows::{Batch, LastPass};
use bitdash_core::vocabulary::time::{Now, UnixTime};
use faults::{Faults, Kind};
use probed::Probed;
use sessions::Session;
use shadow_model::ShadowModel;
use writer::{Around, Writer};

/// Parameters of a simulated crawl.
#[derive(Clone, Debug)]
pub struct SimulationParams {
    /// Seed of the crawl; the network has its own.
    pub seed: u64,
    /// Parameters of the crawler.
    pub crawler: CrawlerParams,
    /// Parameters of the writer.
    pub writer: WriterParams,
    /// Parameters of the probes.
    pub probe: Arc<ProbeParams>,
    /// Whether bytes arrive in pieces of random length.
    pub splits_bytes: bool,
}

/// State of our uplink.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub enum UplinkState {
    /// It works.
    #[default]
    Up,
    /// All packets are lost; open connections continue once it works again.
    Silent,
    /// The same, and the kernel knows: dialling fails at once.
    Unreachable,
}

/// A crawl in virtual time.
#[derive(Debug)]
pub struct Simulation<N: Network = World> {
    network: Arc<N>,
    params: SimulationParams,
    /// The named nodes of the nodes file.
    named: Vec<(Address, String)>,
    crawler: Crawler,
    writer: Writer,
    faults: Option<Faults>,
    shadow: Option<ShadowModel>,
    /// Largest `max_sockets` that was ever in force.
    max_sockets_ever: usize,
    /// End of the running lookup of names, whether seeds are needed, and whether it succeeds.
    look_up: Option<(Duration, bool, bool)>,
    is_stopped: bool,
    sessions: Slab<Session>,
    /// Number of sessions that await peers.
    asking: usize,
    timers: Timers,
    ready: Vec<usize>,
    rng: fastrand::Rng,
    now: Now,
    uplink: UplinkState,
    events: Vec<Event>,
    finished_passes: usize,
    probed: Probed,
    /// Nodes of the running pass that responded and were not asked for their peers.
    greeted: BTreeSet<Address>,
    /// Addresses of the open sessions.
    dialled: BTreeSet<Address>,
    conservation: Conservation,
    /// Dialled addresses that are not in the network.
    pub strays: Vec<Address>,
    /// Number of bans of the crawler.
    pub bans: u64,
    /// Number of protocol faults of the crawler.
    pub protocol_faults: u64,
    /// Maximum number of open sessions.
    pub max_open: usize,
    /// Number of dials.
    pub dials: u64,
    /// Digest of everything that happened, in order: equal seeds give equal digests.
    pub trace: u64,
}

impl<N: Network> Simulation<N> {
    /// Creates a crawl with an empty database.
    pub fn new(network: Arc<N>, params: SimulationParams) -> Self {
        Self::resumed(network, params, |_| {}, LastPass::default())
    }

    /// Creates a crawl with the database that `load` delivers.
    pub fn resumed(
        network: Arc<N>,
        params: SimulationParams,
        load: impl FnOnce(&mut WriterMachine),
        last_pass: LastPass,
    ) -> Self {
        let mut rng = fastrand::Rng::with_seed(params.seed);
        let wall = UnixTime::from_secs(i64::from(network.wall(Duration::ZERO)));
        let now = Now { mono: Duration::ZERO, wall };
        let writer = Writer::new(params.writer.clone(), rng.u64(..), load, last_pass, now);
        Self {
            network,
            named: Vec::new(),
            crawler: Crawler::new(params.crawler.clone(), None, rng.u64(..)),
            writer,
            faults: None,
            shadow: None,
            max_sockets_ever: params.crawler.max_sockets,
            look_up: None,
            is_stopped: false,
            sessions: Slab::new(),
            asking: 0,
            timers: Timers::new(),
            ready: Vec::new(),
            rng,
            now,
            uplink: UplinkState::Up,
            params,
            events: Vec::new(),
            finished_passes: 0,
            probed: Probed::default(),
            greeted: BTreeSet::new(),
            dialled: BTreeSet::new(),
            conservation: Conservation::default(),
            strays: Vec::new(),
            bans: 0,
            protocol_faults: 0,
            max_open: 0,
            dials: 0,
            trace: 0,
        }
    }

    /// Delays the writer's answers by `delay` and makes it write at `batch_rows` rows.
    pub fn with_writer(mut self, delay: Duration, batch_rows: usize) -> Self {
        self.writer.delay = delay;
        let params = WriterParams { batch_rows, ..self.writer.params().clone() };
        self.writer.set_params(params, self.now);
        self
    }

    /// Makes the writer accept nothing while it has `rows` pending rows.
    pub fn with_max_pending_rows(mut self, rows: usize) -> Self {
        let params = WriterParams { max_pending_rows: rows, ..self.writer.params().clone() };
        self.writer.set_params(params, self.now);
        self
    }

    /// Adds named nodes.
    pub fn with_named(mut self, named: Vec<(Address, String)>) -> Self {
        self.named = named;
        self
    }

    /// Adds faults.
    pub fn with_faults(mut self, faults: Faults) -> Self {
        self.faults = Some(faults);
        self
    }

    /// Adds a shadow model that checks the crawl.
    pub fn with_shadow_model(mut self, mut shadow: ShadowModel) -> Self {
        shadow.restarted();
        shadow.filtered(&self.params.crawler.filter);
        self.shadow = Some(shadow);
        self
    }

    /// Runs until `passes` more passes have ended; returns `false` if that takes longer than
    /// `limit`.
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

    /// All rows since the last call, in the order of their transactions.
    pub fn take_batches(&mut self) -> Vec<Batch> {
        let (faults, shadow) = (self.faults.as_mut(), self.shadow.as_mut());
        self.writer.write_all(self.now, &mut Around { faults, shadow })
    }

    /// Events of the crawler.
    pub fn events(&self) -> &[Event] {
        &self.events
    }

    /// The current virtual time.
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
        self.max_sockets_ever = self.max_sockets_ever.max(params.crawler.max_sockets);
        let old = self.writer.params();
        let writer = WriterParams {
            batch_rows: old.batch_rows,
            max_pending_rows: old.max_pending_rows,
            ..params.writer.clone()
        };
        self.params = params;
        if let Some(shadow) = &mut self.shadow {
            shadow.filtered(&self.params.crawler.filter);
        }
        self.crawler.handle_params(self.params.crawler.clone(), writer);
    }

    /// Stops, as SIGTERM does: open sessions are aborted, pending rows are written.
    pub fn stop(&mut self) {
        self.crawler.handle_stop(StopReason::Operator, self.now);
    }

    /// Removes the faults, for the simulation that follows this one.
    pub fn take_faults(&mut self) -> Option<Faults> {
        self.faults.take()
    }

    /// The faults.
    pub fn faults(&mut self) -> Option<&mut Faults> {
        self.faults.as_mut()
    }

    /// Removes the shadow model, for the simulation that follows this one.
    pub fn take_shadow_model(&mut self) -> Option<ShadowModel> {
        self.shadow.take()
    }

    /// Checks that no session, timer, target, message or row is left.
    pub fn check_empty(&mut self) {
        assert_eq!(self.sessions.len(), 0, "sessions are left");
        assert!(self.timers.is_empty() && self.dialled.is_empty(), "timers are left");
        assert_eq!(self.crawler.queue_len(), 0, "targets are left in the queue");
        assert_eq!((self.crawler.unacked(), self.crawler.open()), (0, 0), "left at the crawler");
        assert!(self.writer.is_idle(), "rows or messages are left at the writer");
    }

    /// Steps the crawler's wall clock; the monotonic clock and the peers' clocks do not change.
    pub fn jump_wall(&mut self, seconds: i64) {
        let micros = seconds.saturating_mul(1_000_000);
        let wall = self.now.wall.as_micros().saturating_add(micros);
        self.set_wall(UnixTime::from_micros(wall));
    }

    /// Sets the crawler's wall clock.
    pub fn set_wall(&mut self, wall: UnixTime) {
        self.now.wall = wall;
        if let Some(shadow) = &mut self.shadow {
            shadow.wall_clock_jumped();
        }
    }

    /// Changes the state of the uplink.
    pub fn set_uplink(&mut self, uplink: UplinkState) {
        self.uplink = uplink;
        let keys: Vec<usize> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            if uplink == UplinkState::Up {
                self.repeat_lost(key);
            }
            self.arm(key);
        }
    }

    /// The batches committed since the last call; one whose reply was lost appears again.
    pub fn drain_batches(&mut self) -> Vec<Batch> {
        self.writer.drain_committed()
    }

    /// Removes and returns the events.
    pub fn drain_events(&mut self) -> Vec<Event> {
        std::mem::take(&mut self.events)
    }

    /// Number of nodes of the running pass that wait to be asked for their peers.
    pub fn greeted(&self) -> usize {
        self.greeted.len()
    }

    /// The counts of both ends.
    pub fn conservation(&self) -> &Conservation {
        &self.conservation
    }

    /// Runs one turn of the event loop.
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
        assert!(is_alive, "deadlock: nothing is scheduled in {phase:?}");
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

    /// The time until the loop wakes, which faults make too early or too late.
    fn skewed(&mut self, step: Duration) -> Duration {
        let Some(faults) = &mut self.faults else { return step };
        if faults.hits(Kind::Early) {
            return step.mul_f64(faults.rng().f64());
        }
        if faults.hits(Kind::Late) { step + faults.time(Duration::from_secs(30)) } else { step }
    }

    /// Checks the invariants that hold between two turns.
    fn check(&self) {
        let open = self.sessions.len();
        assert_eq!(
            open,
            self.crawler.open(),
            "open sessions: the simulation's count, and the crawler's"
        );
        assert!(
            open <= self.max_sockets_ever,
            "{open} sessions, {} at most",
            self.max_sockets_ever
        );
        assert_eq!(self.timers.len(), open, "every session has a deadline");
        let Some(shadow) = &self.shadow else { return };
        shadow.balance(open);
        // Results that the crawler has not sent yet count too: those that ended since `settle`.
        assert!(
            self.crawler.unacked() >= self.writer.unacked(),
            "{} unacknowledged results, {} by the crawler's count",
            self.writer.unacked(),
            self.crawler.unacked()
        );
    }

    /// Does everything that takes no time: crawler, writer and dials.
    fn settle(&mut self) {
        let mut idle_turns = 0;
        loop {
            self.receive_from_writer();
            self.finish_lookup();
            self.crawler.tick(self.now);
            if let Some(request) = self.crawler.poll_name_request() {
                self.start_lookup(request == NameRequest::NamedAndSeeds);
            }
            let mut is_settled = self.look_up.is_none_or(|(at, ..)| at > self.now.mono);
            while let Some(event) = self.crawler.poll_event() {
                self.record_event(event);
            }
            while let Some(target) = self.crawler.poll_dial(self.now) {
                is_settled = false;
                self.dial(target);
            }
            if self.crawler.is_stopping() && !std::mem::replace(&mut self.is_stopped, true) {
                is_settled = false;
                self.abort_all();
            }
            while let Some(message) = self.crawler.poll_writer() {
                is_settled = false;
                self.send_to_writer(message);
            }
            // A tick may require the next one at once; more than a few of them are a busy loop.
            let is_due = self.crawler.poll_timeout(self.now).is_some_and(|at| at <= self.now.mono);
            idle_turns += usize::from(is_settled);
            if is_settled && (!is_due || idle_turns > 3) {
                break;
            }
        }
        let (ours, theirs) = (self.crawler.unacked(), self.writer.unacked());
        assert_eq!(ours, theirs, "unacknowledged results: the crawler's count, and the writer's");
    }

    fn send_to_writer(&mut self, message: ToWriter) {
        match &message {
            ToWriter::Finished(result) => {
                let (target, address) = (result.target, result.target.address());
                let is_first = if target.is_follow_up() {
                    self.greeted.remove(&address)
                } else {
                    self.probed.insert(self.network.place(address), address)
                };
                assert!(is_first, "{address} has two results in a pass");
                if target.is_unasked() {
                    self.greeted.insert(address);
                }
            }
            ToWriter::EndPass { .. } => {
                assert_eq!(self.sessions.len(), 0, "a pass ends with sessions open");
                assert_eq!(
                    self.writer.unacked(),
                    0,
                    "a pass ends before all results are acknowledged"
                );
                if let Some(shadow) = &mut self.shadow {
                    shadow.pass_ends();
                }
            }
            _ => {}
        }
        self.writer.send(message, self.max_sockets_ever);
    }

    fn receive_from_writer(&mut self) {
        let (faults, shadow) = (self.faults.as_mut(), self.shadow.as_mut());
        self.writer.turn(self.now, &mut Around { faults, shadow });
        while let Some(message) = self.writer.receive(self.now.mono) {
            self.crawler.handle_writer(message, self.now);
        }
    }

    fn start_lookup(&mut self, wants_seeds: bool) {
        let (mut takes, mut finds) = (Duration::ZERO, true);
        if let Some(faults) = &mut self.faults
            && faults.hits(Kind::NoNames)
        {
            takes = faults.time(Duration::from_secs(30));
            finds = faults.rng().bool();
        }
        self.look_up = Some((self.now.mono + takes, wants_seeds, finds));
    }

    fn finish_lookup(&mut self) {
        let Some((at, wants_seeds, finds)) = self.look_up else { return };
        if at > self.now.mono {
            return;
        }
        self.look_up = None;
        let wanted = wants_seeds && finds;
        let seeds = if wanted { self.network.seed_addresses() } else { Vec::new() };
        let named = if finds { self.named.clone() } else { Vec::new() };
        let unresolved = if finds { &[] } else { self.named.as_slice() };
        let unresolved = unresolved.iter().map(|(_, name)| name.clone()).collect();
        let names = Names { named, unresolved, seeds, is_partial: !finds };
        self.crawler.handle_names(names, self.now);
    }

    /// Counts whether sockets or rate are exhausted in this turn and until the next one.
    fn count_turn(&mut self, step: Duration) {
        if self.crawler.queue_len() == 0 {
            return;
        }
        let is_used = matches!(self.crawler.limit(self.now), Limit::Sockets | Limit::Rate);
        self.conservation.turns += 1;
        self.conservation.queued += step;
        if is_used {
            self.conservation.used_turns += 1;
            self.conservation.used += step;
        }
    }

    fn record_event(&mut self, event: Event) {
        match event {
            Event::PassStarted { .. } => {
                self.probed.clear();
                self.greeted.clear();
            }
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
