//! `Simulation`: a whole crawl in virtual time.
//!
//! Layer 2: no socket, thread or clock. The very machines of the crawl (crawler, recorder, address book, probe,
//! decoder) run against the simulated network's conversations, with the real bytes of every message; only the
//! wires between them and the clock are made here. A crawl of an hour takes a second, and one seed decides all.
//!
//! Invariants, checked at every step: 1. no more sessions than `max_sockets`; 2. an address is met at most once
//! in a pass: no dial while it is open or after its result went to the writer; 3. time goes forward with every step that does nothing else; 4. every probe gives one result;
//! 5. (on demand, by [`Tally::check`]) what the far ends say they sent is what the results hold.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use slab::Slab;

use crate::crawl::address::Address;
use crate::crawl::batch::{Batch, LastPass};
use crate::crawl::crawler::{Crawler, CrawlerParams, Event};
use crate::crawl::exchange::{FromWriter, ToWriter};
use crate::crawl::outcome::Fault;
use crate::crawl::probe::{Probe, ProbeParams};
use crate::crawl::recorder::{Recorder, RecorderParams};
use crate::crawl::stats::Limit;
use crate::crawl::target::Target;
use crate::crawl::time::{Now, UnixTime};
use crate::crawl::timer::Timers;
use crate::simnet::network::{Answer, Network};
use crate::simnet::talk::Talk;
use crate::simnet::tally::Tally;
use crate::simnet::world::World;

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

/// The far end of a connection.
#[derive(Debug)]
enum Link<N: Network> {
    /// Nobody will ever answer.
    Silent,
    /// The attempt was lost on our own line; it is repeated, as Linux does it.
    Lost,
    /// The refusal arrives then.
    Refusing(Duration),
    /// The node accepts then.
    Accepting(Duration, usize),
    /// Connected.
    Open(Talk<N>),
}

#[derive(Debug)]
struct Session<N: Network> {
    probe: Probe,
    link: Link<N>,
    dialled_at: Duration,
}

/// The crawl and its world.
#[derive(Debug)]
pub struct Simulation<N: Network = World> {
    network: Arc<N>,
    params: SimulationParams,
    /// So long the writer's answers are on their way.
    writer_delay: Duration,
    /// A batch is taken out at so many rows, whatever the interval.
    batch_rows: usize,
    crawler: Crawler,
    recorder: Recorder,
    answers: VecDeque<(Duration, FromWriter)>,
    sessions: Slab<Session<N>>,
    timers: Timers,
    ready: Vec<usize>,
    rng: fastrand::Rng,
    now: Now,
    line: LineState,
    flush_at: Duration,
    batches: Vec<Batch>,
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
    pub faults: u64,
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
            writer_delay: Duration::ZERO,
            batch_rows: usize::MAX,
            crawler: Crawler::new(params.crawler.clone(), None, rng.u64(..)),
            recorder,
            answers: VecDeque::new(),
            sessions: Slab::new(),
            timers: Timers::new(),
            ready: Vec::new(),
            rng,
            now: Now { mono: Duration::ZERO, wall },
            line: LineState::Up,
            flush_at: params.flush_interval,
            params,
            batches: Vec::new(),
            events: Vec::new(),
            finished_passes: 0,
            met: Met::default(),
            dialled: BTreeSet::new(),
            tally: Tally::default(),
            strays: Vec::new(),
            bans: 0,
            faults: 0,
            most_open: 0,
            dials: 0,
            trace: 0,
        }
    }

    /// The same with a writer thread that is no part of the loop: its answers take `delay`, and it writes at
    /// `batch_rows` rows.
    pub fn with_writer(mut self, delay: Duration, batch_rows: usize) -> Self {
        self.writer_delay = delay;
        self.batch_rows = batch_rows;
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

    /// The calendar jumps; the monotonic clock, and the calendar of everybody else, do not.
    pub fn jump_wall(&mut self, seconds: i64) {
        let micros = seconds.saturating_mul(1_000_000);
        let wall = self.now.wall.as_micros().saturating_add(micros);
        self.now.wall = UnixTime::from_micros(wall);
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

    /// The kernel's next attempt on a session whose first ones were lost, if the line is up by then.
    fn repeat_lost(&mut self, key: usize) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if !matches!(session.link, Link::Lost) {
            return;
        }
        let times = [1, 3, 7].map(|second| session.dialled_at + Duration::from_secs(second));
        let Some(at) = times.into_iter().find(|at| *at >= self.now.mono) else { return };
        let address = session.probe.target().address();
        session.link = match self.network.dial(address, at, &mut self.rng) {
            Answer::Silence => Link::Silent,
            Answer::Refusal(wait) => Link::Refusing(at + wait),
            Answer::Accepted(wait, node) => Link::Accepting(at + wait, node),
        };
    }

    /// The batches that the writer would have written since the last call.
    pub fn drain_batches(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.batches)
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
        let crawler = self.crawler.poll_timeout(self.now);
        let answer = self.answers.front().map(|(at, _)| *at);
        let next = [self.timers.earliest(), crawler, answer, Some(self.flush_at)];
        let next = next.into_iter().flatten().min();
        let step = next.unwrap_or_default().saturating_sub(self.now.mono);
        self.count_turn(step);
        self.now = Now { mono: self.now.mono + step, wall: self.now.wall.plus(step) };
        if self.now.mono >= self.flush_at || self.recorder.held() >= self.batch_rows {
            self.flush_at = self.now.mono + self.params.flush_interval;
            if self.recorder.has_rows() {
                self.batches.push(self.recorder.take_batch());
            }
        }
        while let Some(key) = self.timers.pop_due(self.now.mono) {
            self.ready.push(key);
        }
        let mut ready = std::mem::take(&mut self.ready);
        for key in ready.drain(..) {
            self.pump(key);
        }
        self.ready = ready;
    }

    /// Everything that needs no time: crawler, recorder and dials.
    fn settle(&mut self) {
        loop {
            self.hear_writer();
            self.crawler.tick(self.now);
            if let Some(wants_seeds) = self.crawler.poll_need() {
                let seeds = if wants_seeds { self.network.seed_addresses() } else { Vec::new() };
                self.crawler.handle_names(Vec::new(), seeds, false, self.now);
            }
            let mut is_settled = true;
            while let Some(event) = self.crawler.poll_event() {
                self.note(event);
            }
            while let Some(target) = self.crawler.poll_dial(self.now) {
                is_settled = false;
                self.dial(target);
            }
            while let Some(message) = self.crawler.poll_writer() {
                is_settled = false;
                if let ToWriter::Finished(result) = &message {
                    let address = result.target.address();
                    let is_first = self.met.insert(self.network.place(address), address);
                    assert!(is_first, "{address} has two results in a pass");
                }
                self.recorder.handle(message, self.now);
            }
            if is_settled {
                return;
            }
        }
    }

    fn hear_writer(&mut self) {
        while let Some(message) = self.recorder.poll_output() {
            self.answers.push_back((self.now.mono + self.writer_delay, message));
        }
        while self.answers.front().is_some_and(|(at, _)| *at <= self.now.mono) {
            if let Some((_, message)) = self.answers.pop_front() {
                self.crawler.handle_writer(message, self.now);
            }
        }
        let totals = FromWriter::Totals(self.recorder.totals());
        self.crawler.handle_writer(totals, self.now);
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

    fn dial(&mut self, target: Target) {
        let address = target.address();
        if self.line == LineState::Unreachable {
            self.digest(!address.to_bits());
            return self.crawler.handle_undialled(target, Fault::Line, self.now);
        }
        let place = self.network.place(address);
        // What the crawler put back was not met: only a result that went to the writer counts.
        // Nor does a greeting that only asks whether the line works.
        if !target.is_witness() {
            assert!(!self.met.contains(place, address), "{address} is met twice in a pass");
            assert!(self.dialled.insert(address), "{address} is dialled while it is open");
        }
        if place.is_none() {
            self.strays.push(address);
        }
        self.dials += 1;
        self.digest(address.to_bits());
        let link = match self.network.dial(address, self.now.mono, &mut self.rng) {
            _ if self.line == LineState::Silent => Link::Lost,
            Answer::Silence => Link::Silent,
            Answer::Refusal(wait) => Link::Refusing(self.now.mono + wait),
            Answer::Accepted(wait, node) => Link::Accepting(self.now.mono + wait, node),
        };
        let nonce = self.rng.u64(1..);
        let probe = Probe::new(target, Arc::clone(&self.params.probe), nonce, self.now);
        let dialled_at = self.now.mono;
        let key = self.sessions.insert(Session { probe, link, dialled_at });
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
            _ if self.line != LineState::Up => {}
            Link::Refusing(at) if at <= now.mono => {
                let error = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
                session.probe.handle_error(&error, now);
            }
            Link::Accepting(at, node) if at <= now.mono && !session.probe.is_done() => {
                let rng = fastrand::Rng::with_seed(self.rng.u64(..));
                let home = Arc::clone(&self.network);
                let conversation = Talk::new(home, node, false, now.mono, rng);
                session.link = Link::Open(conversation);
                session.probe.handle_connected(now);
            }
            _ => {}
        }
        let mut rng = self.params.splits_bytes.then(|| self.rng.fork());
        if let Link::Open(conversation) = &mut session.link
            && self.line == LineState::Up
        {
            converse(&mut session.probe, conversation, now, rng.as_mut(), &mut self.tally);
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
            _ if self.line != LineState::Up => None,
            Link::Silent | Link::Lost => None,
            Link::Refusing(at) | Link::Accepting(at, _) => Some(*at),
            Link::Open(conversation) => conversation.poll_timeout(),
        };
        let deadline = [session.probe.poll_timeout(), link].into_iter().flatten().min();
        self.timers.set(key, deadline);
    }

    fn end(&mut self, key: usize) {
        self.timers.set(key, None);
        let Some(mut session) = self.sessions.try_remove(key) else { return };
        if !session.probe.target().is_witness() {
            self.dialled.remove(&session.probe.target().address());
        }
        self.tally.busy += self.now.mono - session.dialled_at;
        if let Link::Open(conversation) = &session.link {
            let seen = conversation.observations();
            self.tally.count_far_end(seen);
            self.bans += u64::from(seen.banned);
            self.faults += seen.faults.len() as u64;
        }
        let result = session.probe.finished();
        assert!(result.is_some(), "a probe ended without a result");
        if let Some(result) = &result {
            self.tally.count_result(result);
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

/// The addresses that this pass has met: a bit for each of the world's, and a set for strangers.
#[derive(Debug, Default)]
struct Met {
    places: Vec<u64>,
    strangers: BTreeSet<Address>,
}

impl Met {
    fn contains(&self, place: Option<usize>, address: Address) -> bool {
        let Some(place) = place else { return self.strangers.contains(&address) };
        self.places.get(place / 64).is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    /// Gives `false` if it was met before.
    fn insert(&mut self, place: Option<usize>, address: Address) -> bool {
        let Some(place) = place else { return self.strangers.insert(address) };
        let (word, bit) = (place / 64, 1 << (place % 64));
        if word >= self.places.len() {
            self.places.resize(word + 1, 0);
        }
        let is_new = self.places[word] & bit == 0;
        self.places[word] |= bit;
        is_new
    }

    fn clear(&mut self) {
        self.places.fill(0);
        self.strangers.clear();
    }
}

/// Carries bytes between the two ends; with `rng`, in pieces of random length.
fn converse<N: Network>(
    probe: &mut Probe,
    conversation: &mut Talk<N>,
    now: Now,
    mut rng: Option<&mut fastrand::Rng>,
    tally: &mut Tally,
) {
    conversation.handle_timeout(now.mono);
    loop {
        let mut is_quiet = true;
        if let Some(bytes) = probe.poll_transmit() {
            is_quiet = false;
            tally.bytes_out += bytes.len() as u64;
            pieces(&bytes, &mut rng, |piece| conversation.handle_bytes(piece, now.mono));
        }
        while !probe.is_done()
            && let Some(bytes) = conversation.poll_transmit(now.mono)
        {
            is_quiet = false;
            tally.bytes_in += bytes.len() as u64;
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
