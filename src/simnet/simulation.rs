//! `Simulation`: a whole crawl in virtual time.
//!
//! Layer 2: no socket, thread or clock. The very machines of the crawl (crawler, recorder, address book, probe,
//! decoder) run against the simulated network's conversations, with the real bytes of every message; only the
//! wires between them and the clock are made here. A crawl of an hour takes a second, and one seed decides all.
//!
//! Invariants, checked at every step: 1. no more sessions than `max_sockets`; 2. an address is met at most once
//! in a pass; 3. time goes forward with every step that does nothing else; 4. every probe gives one result.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::crawl::address::Address;
use crate::crawl::batch::Batch;
use crate::crawl::crawler::{Crawler, CrawlerParams, Event};
use crate::crawl::probe::{Probe, ProbeParams};
use crate::crawl::recorder::{Recorder, RecorderParams};
use crate::crawl::target::Target;
use crate::crawl::time::{Now, UnixTime};
use crate::crawl::timer::Timers;
use crate::simnet::behaviour::Conversation;
use crate::simnet::world::{DeadKind, World};

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

/// The far end of a connection.
#[derive(Debug)]
enum Link {
    /// Nobody will ever answer.
    Silent,
    /// The refusal arrives then.
    Refusing(Duration),
    /// The node accepts then.
    Accepting(Duration, usize),
    /// Connected.
    Open(Box<Conversation>),
}

#[derive(Debug)]
struct Session {
    probe: Probe,
    link: Link,
}

/// The crawl and its world.
#[derive(Debug)]
pub struct Simulation {
    world: Arc<World>,
    dead: BTreeMap<Address, DeadKind>,
    params: SimulationParams,
    crawler: Crawler,
    recorder: Recorder,
    sessions: Slab<Session>,
    timers: Timers,
    ready: Vec<usize>,
    rng: fastrand::Rng,
    now: Now,
    flush_at: Duration,
    batches: Vec<Batch>,
    events: Vec<Event>,
    met: BTreeSet<Address>,
    /// Every address that was dialled though the world knows nothing of it.
    pub strays: Vec<Address>,
    /// How often nodes banned the crawler.
    pub bans: u64,
    /// How often nodes complained of the crawler.
    pub faults: u64,
    /// The most sessions at once.
    pub most_open: usize,
    /// Sessions begun.
    pub dials: u64,
    /// A digest of everything that happened, in its order: the same for the same seeds.
    pub trace: u64,
}

impl Simulation {
    /// Makes a crawl that begins with an empty book and the world's seeds.
    pub fn new(world: Arc<World>, params: SimulationParams) -> Self {
        let mut rng = fastrand::Rng::with_seed(params.seed);
        let wall = UnixTime::from_secs(i64::from(world.params().wall));
        let mut recorder = Recorder::new(&params.recorder, rng.u64(..));
        recorder.handle_loaded(crate::crawl::batch::LastPass::default());
        Self {
            dead: world.dead().iter().map(|dead| (dead.address, dead.kind)).collect(),
            world,
            crawler: Crawler::new(params.crawler.clone(), None, rng.u64(..)),
            recorder,
            sessions: Slab::new(),
            timers: Timers::new(),
            ready: Vec::new(),
            rng,
            now: Now { mono: Duration::ZERO, wall },
            flush_at: params.flush_interval,
            params,
            batches: Vec::new(),
            events: Vec::new(),
            met: BTreeSet::new(),
            strays: Vec::new(),
            bans: 0,
            faults: 0,
            most_open: 0,
            dials: 0,
            trace: 0,
        }
    }

    /// Runs until `passes` more passes have ended. `false` if virtual time passes `limit` before.
    pub fn run_passes(&mut self, passes: usize, limit: Duration) -> bool {
        let end = self.now.mono + limit;
        let wanted = self.finished_passes() + passes;
        while self.finished_passes() < wanted {
            if self.now.mono >= end {
                return false;
            }
            self.step();
        }
        true
    }

    /// The rows that came out so far, in the order of their transactions.
    pub fn take_batches(&mut self) -> Vec<Batch> {
        if self.recorder.has_rows() {
            self.batches.push(self.recorder.take_batch());
        }
        std::mem::take(&mut self.batches)
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
        self.params.crawler = crawler.clone();
        self.crawler.handle_params(crawler, self.params.recorder.clone());
    }

    fn finished_passes(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::PassFinished { .. })).count()
    }

    /// Lets the next thing happen.
    fn step(&mut self) {
        self.settle();
        let crawler = self.crawler.poll_timeout(self.now);
        let next =
            [self.timers.earliest(), crawler, Some(self.flush_at)].into_iter().flatten().min();
        let step = next.unwrap_or_default().saturating_sub(self.now.mono);
        self.now = Now { mono: self.now.mono + step, wall: self.now.wall.plus(step) };
        if self.now.mono >= self.flush_at {
            self.flush_at = self.now.mono + self.params.flush_interval;
            if self.recorder.has_rows() {
                self.batches.push(self.recorder.take_batch());
            }
        }
        while let Some(key) = self.timers.pop_due(self.now.mono) {
            self.ready.push(key);
        }
        for key in std::mem::take(&mut self.ready) {
            self.pump(key);
        }
    }

    /// Everything that needs no time: crawler, recorder and dials.
    fn settle(&mut self) {
        loop {
            while let Some(message) = self.recorder.poll_output() {
                self.crawler.handle_writer(message, self.now);
            }
            let totals = self.recorder.totals();
            let message = crate::crawl::exchange::FromWriter::Totals(totals);
            self.crawler.handle_writer(message, self.now);
            self.crawler.tick(self.now);
            if let Some(wants_seeds) = self.crawler.poll_need() {
                let nodes = self.world.nodes();
                let seed = |index: &usize| nodes.get(*index).map(|node| node.address);
                let seeds = self.world.seeds().iter().filter_map(seed);
                let seeds = if wants_seeds { seeds.collect() } else { Vec::new() };
                self.crawler.handle_names(Vec::new(), seeds, false, self.now);
            }
            let mut is_settled = true;
            while let Some(event) = self.crawler.poll_event() {
                self.note(&event);
            }
            while let Some(target) = self.crawler.poll_dial(self.now) {
                is_settled = false;
                self.dial(target);
            }
            while let Some(message) = self.crawler.poll_writer() {
                is_settled = false;
                self.recorder.handle(message, self.now.wall);
            }
            if is_settled {
                return;
            }
        }
    }

    fn note(&mut self, event: &Event) {
        if let Event::PassStarted { .. } = event {
            self.met.clear();
        }
        self.events.push(event.clone());
    }

    fn dial(&mut self, target: Target) {
        let address = target.address();
        assert!(self.met.insert(address), "{address} is met twice in a pass");
        self.dials += 1;
        self.digest(address.to_bits());
        let link = match (self.world.find(address), self.dead.get(&address)) {
            (Some(node), _) => {
                let rtt = self.world.nodes().get(node).map(|node| node.rtt).unwrap_or_default();
                let rtt = rtt.mul_f64(self.world.params().latency);
                Link::Accepting(self.now.mono + rtt, node)
            }
            (None, Some(DeadKind::Refusing)) => {
                Link::Refusing(self.now.mono + Duration::from_millis(self.rng.u64(100..700)))
            }
            (None, Some(DeadKind::Silent)) => Link::Silent,
            (None, None) => {
                self.strays.push(address);
                Link::Silent
            }
        };
        let nonce = self.rng.u64(1..);
        let probe = Probe::new(target, Arc::clone(&self.params.probe), nonce, self.now);
        let key = self.sessions.insert(Session { probe, link });
        self.most_open = self.most_open.max(self.sessions.len());
        assert_eq!(self.sessions.len(), self.crawler.open(), "the crawler lost count");
        self.arm(key);
    }

    /// Lets both ends of a session talk until neither has anything to say now.
    fn pump(&mut self, key: usize) {
        let now = self.now;
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.probe.handle_timeout(now);
        match session.link {
            Link::Refusing(at) if at <= now.mono => {
                let error = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                session.probe.handle_error(&error, now);
            }
            Link::Accepting(at, node) if at <= now.mono && !session.probe.is_done() => {
                let rng = fastrand::Rng::with_seed(self.rng.u64(..));
                let world = Arc::clone(&self.world);
                let conversation = Conversation::new(world, node, false, now.mono, rng);
                session.link = Link::Open(Box::new(conversation));
                session.probe.handle_connected(now);
            }
            _ => {}
        }
        let mut rng = self.params.splits_bytes.then(|| self.rng.fork());
        if let Link::Open(conversation) = &mut session.link {
            converse(&mut session.probe, conversation, now, rng.as_mut());
        }
        if session.probe.is_done() {
            self.end(key);
        } else {
            self.arm(key);
        }
    }

    fn arm(&mut self, key: usize) {
        let Some(session) = self.sessions.get(key) else { return };
        let link = match &session.link {
            Link::Silent => None,
            Link::Refusing(at) | Link::Accepting(at, _) => Some(*at),
            Link::Open(conversation) => conversation.poll_timeout(),
        };
        let deadline = [session.probe.poll_timeout(), link].into_iter().flatten().min();
        self.timers.set(key, deadline);
    }

    fn end(&mut self, key: usize) {
        self.timers.set(key, None);
        let Some(mut session) = self.sessions.try_remove(key) else { return };
        if let Link::Open(conversation) = &session.link {
            let seen = conversation.observations();
            self.bans += u64::from(seen.banned);
            self.faults += seen.faults.len() as u64;
        }
        let result = session.probe.finished();
        assert!(result.is_some(), "a probe ended without a result");
        if let Some(result) = &result {
            self.digest(result.target.address().to_bits() ^ (result.outcome as u64) << 56);
            self.digest(result.peers.len() as u64);
        }
        self.crawler.handle_ended(result, self.now);
    }

    fn digest(&mut self, value: u64) {
        let mixed = self.trace ^ value ^ self.now.mono.as_nanos() as u64;
        self.trace = mixed.wrapping_mul(0x9e37_79b9_7f4a_7c15).rotate_left(29);
    }
}

/// Carries bytes between the two ends; with `rng`, in pieces of random length.
fn converse(
    probe: &mut Probe,
    conversation: &mut Conversation,
    now: Now,
    mut rng: Option<&mut fastrand::Rng>,
) {
    conversation.handle_timeout(now.mono);
    loop {
        let mut is_quiet = true;
        if let Some(bytes) = probe.poll_transmit() {
            is_quiet = false;
            pieces(&bytes, &mut rng, |piece| conversation.handle_bytes(piece, now.mono));
        }
        while let Some(bytes) = conversation.poll_transmit(now.mono) {
            is_quiet = false;
            pieces(&bytes, &mut rng, |piece| probe.handle_bytes(piece, now));
        }
        if is_quiet {
            break;
        }
    }
    if conversation.wants_close().is_some() {
        probe.handle_closed(now);
    }
}

fn pieces(bytes: &[u8], rng: &mut Option<&mut fastrand::Rng>, mut take: impl FnMut(&[u8])) {
    let Some(rng) = rng else { return take(bytes) };
    let mut rest = bytes;
    while !rest.is_empty() {
        let length = rng.usize(1..=rest.len().min(1_500));
        let (piece, later) = rest.split_at(length);
        take(piece);
        rest = later;
    }
}
