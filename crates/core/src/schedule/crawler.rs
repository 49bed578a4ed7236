//! `Crawler`: which address is dialled next, and when a pass begins and ends.
//!
//! Sans-I/O. The shell (the event loop, or the simulation) passes in what happened (`handle_*`),
//! calls `tick`, then drains `poll_dial`, `poll_writer`, `poll_name_request`, `poll_event` and
//! sleeps until `poll_timeout`.
//!
//! ```text
//! Opening ──ready──▶ AwaitingClock ──set──▶ Waiting ──time──▶ ResolvingNames ──names──▶ Starting
//!                                              ▲                                         │started
//!                                              └─ended── Ending ◀──nothing left── Running◀┘
//! any ──stop──▶ Stopping ──stopped──▶ Stopped
//! ```
//!
//! While likely candidates wait, most sockets are theirs: a node that responds is not asked for its
//! peers, which may take a minute, but followed up in the same pass, a minute later.
//!
//! Invariants: 1. no dial while as many sockets are open as are allowed now; 2. no dial without
//! room for its result at the writer; 3. granted = ended + open + given back; 4. a pass ends only
//! when the queue is empty, no session is open, everything due was handed out, every node that was
//! not asked for its peers was followed up, and every result is acknowledged, since its peers may
//! be new; 5. every result goes to the writer once, or its target back into the queue; 6. after the
//! database was replaced, the next pass begins when nothing of the former one is in flight; 7. no
//! pass begins at a wall clock before the program's build, and a database from the future delays a
//! start by `CLOCK_TIMEOUT` at most.

mod state;

pub use state::{Counters, Event, NameRequest, Pass, Phase, StopReason};

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use self::state::{ClockWait, Leftovers};
use crate::probe::AskBounds;
use crate::record::messages::{
    Database, FromWriter, Names, Opened, ToWriter, Totals, WriterParams,
};
use crate::schedule::limiter::Limiter;
use crate::schedule::patience::Patience;
use crate::schedule::queue::Queue;
use crate::schedule::stats::Limit;
use crate::schedule::uplink::UplinkMonitor;
use crate::vocabulary::address::Address;
use crate::vocabulary::filter::Filter;
use crate::vocabulary::outcome::{Fault, Outcome};
use crate::vocabulary::target::{ProbeResult, Target};
use crate::vocabulary::time::{Now, UnixTime};

/// Settings of the crawl.
#[derive(Clone, Debug)]
pub struct CrawlerParams {
    /// Maximum number of open sockets.
    pub max_sockets: usize,
    /// Maximum number of new connections per second; 0 for no limit.
    pub connects_per_second: u32,
    /// Minimum time between the starts of two passes.
    pub pass_interval: Duration,
    /// Share of a pass's time for addresses over their source's quota.
    pub spam_share: f64,
    /// While likely candidates wait and sockets are short, one socket in this many may await the
    /// peers of any node, and one more those of nodes that reply at once; 0: all may.
    pub ask_share: usize,
    /// Whether the first probe of a candidate is given up as early as was learned.
    pub learns_patience: bool,
    /// Addresses that are never dialled.
    pub filter: Arc<Filter>,
    /// Build time of the program: a wall clock that shows less is wrong.
    pub built_at: UnixTime,
}

/// Maximum number of unacknowledged results; no probe starts beyond it.
pub const MAX_UNACKED: usize = 1_000;
/// Maximum number of peers in unacknowledged results: 24 bytes each.
pub const MAX_UNACKED_PEERS: usize = 200_000;
/// Number of queued candidates below which the writer is asked for more: those that are queued are
/// ranked no more.
const MIN_QUEUE: usize = 256;
/// Minimum time between two passes, for passes with nothing to do.
const MIN_WAIT: Duration = Duration::from_secs(1);
/// Minimum time between the two probes of a node that was not asked for its peers at once: Bitcoin
/// Unlimited bans for more.
const FOLLOW_UP_DELAY: Duration = Duration::from_secs(60);
/// Sockets are short only if this many times as many candidates wait: a small network is asked at
/// once, since a follow-up would make its pass a minute longer.
const MIN_WAITING_PER_SOCKET: u64 = 8;
/// One socket in this many may be a follow-up's while unlikely candidates wait.
const FOLLOW_UP_SHARE: usize = 2;
/// Interval between two dials while the uplink is down.
const TRICKLE_INTERVAL: Duration = Duration::from_secs(1);
/// Pause of dialling after a fault of our own side.
const FAULT_PAUSE: Duration = Duration::from_secs(1);
/// Delay before retrying DNS when no address is known and no seed resolved.
const SEED_RETRY_DELAY: Duration = Duration::from_secs(60);
/// NTP corrects a clock within minutes. If nothing has corrected ours by then, trust it.
const CLOCK_TIMEOUT: Duration = Duration::from_secs(3_600);
/// Interval between two looks at a wrong wall clock.
const CLOCK_CHECK_INTERVAL: Duration = Duration::from_secs(1);
/// Maximum duration of an operator's stop, whatever the database does. The status line (0.2 s), the
/// log (1 s) and the last message on stderr (0.5 s) come after it: together less than the ten
/// seconds that are promised.
const STOP_TIMEOUT: Duration = Duration::from_secs(8);

/// The machine.
#[derive(Debug)]
pub struct Crawler {
    params: CrawlerParams,
    phase: Phase,
    queue: Queue,
    limiter: Limiter,
    rng: fastrand::Rng,
    open: usize,
    unacked: usize,
    unacked_peers: usize,
    is_writer_full: bool,
    /// Maximum number of sockets for lack of descriptors or ports.
    socket_cap: usize,
    socket_cap_grows_at: Duration,
    paused_until: Duration,
    uplink: UplinkMonitor,
    patience: Patience,
    /// Nodes that responded in this pass and were not asked for their peers, and when they may be.
    greeted: VecDeque<(Duration, Address)>,
    /// Number of follow-ups that are queued or open.
    following_up: usize,
    /// Whether the target granted last was dialled: the shell reported no fault.
    is_granted_dialled: bool,
    is_db_up: bool,
    /// Whether the database was ever open.
    is_opened: bool,
    forbidden: u64,
    counters: Counters,
    /// Number of accepted results by the code of their outcome, of all passes.
    outcomes: [u64; Outcome::ALL.len()],
    totals: Totals,
    pass_started: Duration,
    /// Age of the pass when it was resumed.
    pass_age: Duration,
    passes_left: Option<u64>,
    name_request: Option<NameRequest>,
    leftovers: Leftovers,
    to_writer: VecDeque<ToWriter>,
    events: VecDeque<Event>,
}

impl Crawler {
    /// Makes a crawler that waits for the writer. With `passes` it stops after that many.
    pub fn new(params: CrawlerParams, passes: Option<u64>, seed: u64) -> Self {
        Self {
            limiter: Limiter::new(params.connects_per_second),
            params,
            phase: Phase::Opening,
            queue: Queue::default(),
            rng: fastrand::Rng::with_seed(seed),
            open: 0,
            unacked: 0,
            unacked_peers: 0,
            is_writer_full: false,
            socket_cap: usize::MAX,
            socket_cap_grows_at: Duration::ZERO,
            paused_until: Duration::ZERO,
            uplink: UplinkMonitor::default(),
            patience: Patience::default(),
            greeted: VecDeque::new(),
            following_up: 0,
            is_granted_dialled: true,
            is_db_up: false,
            is_opened: false,
            forbidden: 0,
            counters: Counters::default(),
            outcomes: [0; Outcome::ALL.len()],
            totals: Totals::default(),
            pass_started: Duration::ZERO,
            pass_age: Duration::ZERO,
            passes_left: passes,
            name_request: None,
            leftovers: Leftovers::default(),
            to_writer: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// Handles a message of the writer.
    pub fn handle_writer(&mut self, message: FromWriter, now: Now) {
        match message {
            FromWriter::Ready(opened) if self.phase == Phase::Opening => self.opened(opened, now),
            FromWriter::Ready(_) => {}
            FromWriter::Reset(opened) => self.restart(opened, now),
            FromWriter::Started { .. } if self.leftovers.has_start => {
                self.leftovers.has_start = false;
            }
            FromWriter::Started { pass, row, resumed, due } => {
                (self.greeted, self.following_up) = (VecDeque::new(), 0);
                if self.phase == Phase::Starting {
                    // The first targets follow unasked.
                    self.phase = Phase::Running(Pass { is_due_requested: true, ..Pass::default() });
                }
                let (probed, responded, failed) = (row.probed, row.responded, row.failed);
                self.counters = Counters { pass, probed, responded, failed };
                // What is due contains the addresses that are new by now.
                self.totals.new_addresses = row.new_addresses;
                self.pass_started = now.mono;
                let age = now.wall.since(row.started_at);
                self.pass_age = if resumed { age } else { Duration::ZERO };
                self.events.push_back(Event::PassStarted { pass, resumed, due });
            }
            FromWriter::Due { targets, last, waits } => {
                if let Phase::Running(pass) = &mut self.phase {
                    pass.is_due_requested = false;
                    pass.waits = waits;
                    pass.has_all_due |= last;
                    self.queue_all(targets);
                }
            }
            FromWriter::Heard { acked, acked_peers, waits } => {
                self.unacked =
                    self.unacked.checked_sub(acked).expect("a result is acknowledged once");
                self.unacked_peers = self
                    .unacked_peers
                    .checked_sub(acked_peers)
                    .expect("a result's peers are acknowledged once");
                if let Phase::Running(pass) = &mut self.phase {
                    pass.waits = waits;
                }
            }
            FromWriter::Imported { addresses, new } => {
                self.events.push_back(Event::Imported { addresses, new });
            }
            FromWriter::Totals(totals) => self.totals = totals,
            FromWriter::ClockStepped(step) => self.events.push_back(Event::ClockStepped(step)),
            FromWriter::Database(database) => {
                self.is_db_up = database == Database::Up;
                self.events.push_back(Event::Database(database));
            }
            FromWriter::Ended => self.ended(now),
            FromWriter::Stopped { lost } => self.phase = Phase::Stopped { lost },
            FromWriter::Failed(why) => self.phase = Phase::Failed(why),
        }
        self.check_invariants();
    }

    /// Handles the resolved nodes file.
    pub fn handle_names(&mut self, names: Names, now: Now) {
        self.leftovers.has_names = false;
        if self.phase != Phase::ResolvingNames {
            return;
        }
        let knows_none = self.totals.nodes + self.totals.candidates == 0;
        let has_none = names.named.is_empty() && names.seeds.is_empty();
        if knows_none && names.is_partial && has_none {
            // A pass without any address would only delay the next one by its interval.
            self.events.push_back(Event::NoSeeds);
            self.phase = Phase::Waiting { until: now.mono + SEED_RETRY_DELAY };
            return;
        }
        self.phase = Phase::Starting;
        self.to_writer.push_back(ToWriter::StartPass { at: now.wall, names });
    }

    /// Handles the end of a session; `None` if a stop cut it, which reveals nothing about its
    /// target.
    pub fn handle_ended(&mut self, result: Option<ProbeResult>, now: Now) {
        self.open = self.open.checked_sub(1).expect("a session that ends was dialled");
        if let Some(result) = result {
            if let Some(ms) = result.connect_ms {
                self.patience.learn(ms);
            }
            self.uplink.handle_result(result, now.mono, &mut self.rng);
            self.take_from_uplink();
        }
        self.check_invariants();
    }

    /// Whether the filter admits a target.
    pub fn admits(&self, target: Target) -> bool {
        let (filter, address) = (&self.params.filter, target.address());
        if target.is_named() { filter.admits_named(address) } else { filter.admits(address) }
    }

    /// Handles that a session was cut because the filter excludes its target by now.
    pub fn handle_excluded(&mut self, target: Target, now: Now) {
        self.open = self.open.checked_sub(1).expect("a session that is cut was dialled");
        self.drop_follow_up(target);
        if target.is_reference() {
            self.uplink.handle_unasked(target.address(), now.mono);
            self.take_from_uplink();
        }
        self.check_invariants();
    }

    /// Handles a granted target that could not be dialled because of a fault of our own side.
    pub fn handle_undialled(&mut self, target: Target, fault: Fault, now: Now) {
        self.open = self.open.checked_sub(1).expect("a target that comes back was granted");
        self.is_granted_dialled = false;
        match fault {
            Fault::Descriptors | Fault::Ports => {
                self.limit_sockets(fault, now.mono);
                if target.is_reference() {
                    self.uplink.handle_reference_undialed(target.address());
                } else {
                    self.queue.push(target);
                }
            }
            Fault::Uplink => {
                self.uplink.handle_unroutable(target, now.mono, &mut self.rng);
                if self.uplink.is_down() {
                    self.paused_until = now.mono + FAULT_PAUSE;
                }
                self.take_from_uplink();
            }
            // A rule or route of this host concerns this address alone, such as the broadcast
            // address of our own network: it stays due for a later pass.
            Fault::Forbidden if target.is_reference() => {
                self.uplink.handle_unasked(target.address(), now.mono);
                self.take_from_uplink();
            }
            Fault::Forbidden => {
                self.forbidden += 1;
                self.drop_follow_up(target);
            }
        }
        self.check_invariants();
    }

    /// Changes the settings; open sessions keep theirs.
    pub fn handle_params(&mut self, params: CrawlerParams, writer: WriterParams) {
        self.limiter.set(params.connects_per_second);
        if let Phase::Waiting { until } = &mut self.phase {
            *until = self.pass_started + params.pass_interval.saturating_sub(self.pass_age);
        }
        self.params = params;
        self.to_writer.push_back(ToWriter::Reconfigure(Arc::new(writer)));
    }

    /// Stops: nothing is dialled any more. The shell ends its sessions, then ticks until `is_over`.
    /// An operator's stop has a deadline, also where the passes are done already.
    pub fn handle_stop(&mut self, reason: StopReason, now: Now) {
        if self.is_over() {
            return;
        }
        if !self.is_stopping() {
            self.events.push_back(Event::Stopping);
            self.uplink.handle_stop();
            self.take_from_uplink();
            self.phase = Phase::Stopping { is_writer_told: false, deadline: None };
            self.clear_targets();
        }
        if let Phase::Stopping { deadline, .. } = &mut self.phase
            && reason == StopReason::Operator
        {
            deadline.get_or_insert(now.mono + STOP_TIMEOUT);
            self.to_writer.push_back(ToWriter::Hurry);
        }
        self.check_invariants();
    }

    /// Lets time pass: does what is due.
    pub fn tick(&mut self, now: Now) {
        match &self.phase {
            Phase::AwaitingClock(wait) => self.tick_awaiting_clock(*wait, now),
            Phase::Waiting { until } if now.mono >= *until && self.is_quiescent() => {
                self.request_names();
            }
            Phase::Running(_) => self.tick_running(now),
            Phase::Stopping { deadline, .. } if deadline.is_some_and(|at| now.mono >= at) => {
                self.phase = if self.is_opened {
                    let why =
                        "the database did not take the pending rows: their addresses stay due";
                    Phase::Failed(why.to_owned())
                } else {
                    // The writer hangs on a database that never opened: nothing is pending.
                    Phase::Stopped { lost: 0 }
                };
            }
            Phase::Stopping { is_writer_told: false, deadline } if self.open == 0 => {
                let deadline = *deadline;
                self.uplink.handle_stop();
                self.take_from_uplink();
                self.to_writer.push_back(ToWriter::Stop);
                self.phase = Phase::Stopping { is_writer_told: true, deadline };
            }
            _ => {}
        }
        self.check_invariants();
    }

    /// Returns the next target to dial, if one may be dialled now. The shell must answer once, with
    /// `handle_ended` or `handle_undialled`.
    pub fn poll_dial(&mut self, now: Now) -> Option<Target> {
        while self.dial_block(now.mono).is_none() {
            let target = self.next_target()?;
            // The filter may have changed since the target was queued.
            if self.admits(target) {
                if self.is_granted_dialled {
                    self.uplink.handle_routable();
                }
                self.is_granted_dialled = true;
                if self.uplink.is_down() {
                    self.paused_until = now.mono + TRICKLE_INTERVAL;
                }
                self.limiter.start(now.mono);
                self.open += 1;
                debug_assert!(self.open <= self.params.max_sockets);
                return Some(self.with_patience(target));
            }
            self.drop_follow_up(target);
            if target.is_reference() {
                self.uplink.handle_unasked(target.address(), now.mono);
                self.take_from_uplink();
            }
        }
        None
    }

    fn with_patience(&self, target: Target) -> Target {
        match self.patience.first() {
            Some(patience) if self.params.learns_patience && target.is_first_probe() => {
                target.with_patience(patience)
            }
            _ => target,
        }
    }

    /// Maximum number of sockets that may await peers. A node of old software replies after up to
    /// 75 s: while likely candidates wait, most sockets are needed for them.
    pub fn ask_bounds(&self) -> AskBounds {
        let Phase::Running(pass) = &self.phase else { return AskBounds::NONE };
        let (share, sockets) = (self.params.ask_share, self.allowed_sockets());
        let is_short = 2 * self.open >= sockets
            && pass.waits.candidates >= MIN_WAITING_PER_SOCKET * sockets as u64;
        if share == 0 || !pass.waits.has_likely || !is_short {
            return AskBounds::NONE;
        }
        let any = sockets.div_ceil(share);
        AskBounds { any, prompt: (2 * any).min(sockets) }
    }

    /// Maximum number of follow-ups at a time.
    fn max_follow_ups(&self, pass: &Pass) -> usize {
        let sockets = self.allowed_sockets();
        match &pass.waits {
            waits if waits.has_likely => sockets.div_ceil(self.params.ask_share.max(1)),
            waits if waits.candidates > 0 => sockets.div_ceil(FOLLOW_UP_SHARE),
            _ => usize::MAX,
        }
    }

    /// When the next follow-up may be queued, unless too many are.
    fn follow_up_at(&self) -> Option<Duration> {
        let Phase::Running(pass) = &self.phase else { return None };
        let (at, _) = self.greeted.front()?;
        (self.following_up < self.max_follow_ups(pass)).then_some(*at)
    }

    /// Queues the follow-ups that are due.
    fn queue_follow_ups(&mut self, now: Duration) {
        while self.follow_up_at().is_some_and(|at| at <= now) {
            let Some((_, address)) = self.greeted.pop_front() else { return };
            self.following_up += 1;
            self.queue.push(Target::follow_up(address));
        }
    }

    /// Notes that a target ended or was dropped.
    fn drop_follow_up(&mut self, target: Target) {
        // Those of a former database are counted no more.
        self.following_up = self.following_up.saturating_sub(usize::from(target.is_follow_up()));
    }

    fn clear_targets(&mut self) {
        self.queue.clear();
        (self.greeted, self.following_up) = (VecDeque::new(), 0);
    }

    /// Returns the next message for the writer.
    pub fn poll_writer(&mut self) -> Option<ToWriter> {
        self.to_writer.pop_front()
    }

    /// Returns a request to resolve the nodes file.
    pub fn poll_name_request(&mut self) -> Option<NameRequest> {
        self.name_request.take()
    }

    /// Returns the next event for the operator.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// Returns when `tick` and `poll_dial` should be called again if nothing happens before.
    pub fn poll_timeout(&self, now: Now) -> Option<Duration> {
        match &self.phase {
            Phase::AwaitingClock(wait) => Some(wait.check_at),
            // What is in flight wakes the shell.
            Phase::Waiting { until } => self.is_quiescent().then_some(*until),
            Phase::Stopping { deadline, .. } => *deadline,
            Phase::Running(pass) => {
                let work = if !self.queue.is_empty() || self.uplink.has_reference_to_probe() {
                    self.dial_at(now.mono)
                } else {
                    // The last targets were given up: `tick` goes on.
                    self.has_nothing_in_flight(pass).then_some(now.mono)
                };
                work.into_iter().chain(self.follow_up_at()).min()
            }
            _ => None,
        }
    }

    /// When a target that waits may be dialled, unless the end of a session tells.
    fn dial_at(&self, now: Duration) -> Option<Duration> {
        let resumes = match self.dial_block(now) {
            Some(Limit::Rate) => Some(self.limiter.next(now)),
            // Where too many results are held, open sessions wake the shell; without any, `tick`
            // goes on.
            Some(Limit::Uplink) if now < self.paused_until => Some(self.paused_until),
            Some(Limit::Uplink) => (self.open == 0).then_some(now),
            _ => None,
        };
        let grows = (self.socket_cap != usize::MAX).then_some(self.socket_cap_grows_at);
        resumes.into_iter().chain(grows).min()
    }

    /// What limits the crawl now.
    pub fn limit(&self, now: Now) -> Limit {
        if self.queue.is_empty() {
            return Limit::None;
        }
        self.dial_block(now.mono).unwrap_or(Limit::None)
    }

    /// The current phase.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether the crawl has ended.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Stopped { .. } | Phase::Failed(_))
    }

    /// Whether a stop is in progress.
    pub fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. })
    }

    /// Counters of the current pass.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// Number of probes that ended with each outcome since the start of the process.
    pub fn outcomes(&self) -> impl Iterator<Item = (Outcome, u64)> {
        Outcome::ALL.into_iter().zip(self.outcomes)
    }

    /// The writer's figures.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Number of targets waiting for a socket.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Number of open sockets.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Number of results that the writer has not acknowledged.
    pub fn unacked(&self) -> usize {
        self.unacked
    }

    /// Whether the database took the last batch.
    pub fn is_db_up(&self) -> bool {
        self.is_db_up
    }

    /// Whether the uplink is considered up.
    pub fn is_uplink_up(&self) -> bool {
        !self.uplink.is_down()
    }

    /// Time since the current or last pass began.
    pub fn elapsed(&self, now: Now) -> Duration {
        now.mono.saturating_sub(self.pass_started)
    }

    /// Handles an open database: waits for a plausible wall clock first.
    fn opened(&mut self, opened: Opened, now: Now) {
        self.is_db_up = true;
        self.is_opened = true;
        self.totals = opened.totals;
        let needs = self.params.built_at.max(opened.newest);
        if now.wall < needs {
            let by_database = opened.newest > self.params.built_at;
            self.events.push_back(Event::ClockBehind { shows: now.wall, needs, by_database });
            let check_at = now.mono + CLOCK_CHECK_INTERVAL;
            self.phase = Phase::AwaitingClock(ClockWait { opened, began: now.mono, check_at });
        } else {
            self.begin(opened, now);
        }
    }

    fn tick_awaiting_clock(&mut self, wait: ClockWait, now: Now) {
        if now.mono < wait.check_at {
            return;
        }
        let is_after_build = now.wall >= self.params.built_at;
        if is_after_build && now.wall >= wait.opened.newest {
            self.events.push_back(Event::ClockRight);
            self.begin(wait.opened, now);
        } else if is_after_build && now.mono >= wait.began + CLOCK_TIMEOUT {
            self.events.push_back(Event::ClockTrusted);
            self.begin(wait.opened, now);
        } else {
            let check_at = now.mono + CLOCK_CHECK_INTERVAL;
            self.phase = Phase::AwaitingClock(ClockWait { check_at, ..wait });
        }
    }

    /// Schedules the first pass. From here on the wall clock is right.
    fn begin(&mut self, opened: Opened, now: Now) {
        // A start in the future was stored by a clock that had jumped: it costs one interval at
        // most.
        let age = opened.last_started.map(|at| now.wall.since(at));
        let wait = match age {
            // An operator who asks for a number of passes wants the first one now.
            Some(age) if !opened.unfinished && self.passes_left.is_none() => {
                self.params.pass_interval.saturating_sub(age)
            }
            _ => Duration::ZERO,
        };
        self.pass_started = now.mono;
        self.pass_age = age.unwrap_or(self.params.pass_interval);
        self.wait(wait, now);
    }

    /// Restarts the crawl after the database was emptied or replaced underneath it. Open sessions
    /// end as they would.
    fn restart(&mut self, opened: Opened, now: Now) {
        if self.is_stopping() || self.is_over() {
            return;
        }
        let is_requested =
            self.phase == Phase::ResolvingNames && self.name_request.take().is_none();
        self.leftovers.has_names |= is_requested;
        self.leftovers.has_start |= self.phase == Phase::Starting;
        self.leftovers.wants_seeds = opened.totals.up == 0;
        self.counters = Counters::default();
        self.clear_targets();
        self.uplink.forget();
        self.opened(opened, now);
    }

    /// Whether nothing of a former pass is in flight.
    fn is_quiescent(&self) -> bool {
        let is_answered = !self.leftovers.has_names && !self.leftovers.has_start;
        self.open == 0 && self.unacked == 0 && is_answered
    }

    fn request_names(&mut self) {
        let leftovers = std::mem::take(&mut self.leftovers);
        if leftovers.wants_seeds {
            // Results in doubt from the last sessions of the former database.
            self.uplink.forget();
        }
        self.phase = Phase::ResolvingNames;
        let wants_seeds = self.totals.up == 0 || leftovers.wants_seeds;
        self.name_request =
            Some(if wants_seeds { NameRequest::NamedAndSeeds } else { NameRequest::NamedOnly });
    }

    fn wait(&mut self, wait: Duration, now: Now) {
        self.phase = Phase::Waiting { until: now.mono + wait };
        if wait > Duration::from_secs(1) {
            self.events.push_back(Event::Waits(wait));
        }
    }

    fn tick_running(&mut self, now: Now) {
        if self.socket_cap != usize::MAX && now.mono >= self.socket_cap_grows_at {
            self.socket_cap += self.socket_cap.div_ceil(10).max(1);
            self.socket_cap_grows_at = now.mono + FAULT_PAUSE;
            if self.socket_cap >= self.params.max_sockets {
                self.socket_cap = usize::MAX;
                self.events.push_back(Event::ResourcesRecovered);
            }
        }
        self.is_writer_full = if self.is_writer_full {
            self.unacked * 10 > MAX_UNACKED * 9 || self.unacked_peers * 10 > MAX_UNACKED_PEERS * 9
        } else {
            self.unacked >= MAX_UNACKED || self.unacked_peers >= MAX_UNACKED_PEERS
        };
        self.queue_follow_ups(now.mono);
        self.request_more(now.mono);
        let is_at_end = self.queue.is_empty() || self.uplink.is_full();
        if is_at_end && self.open == 0 && self.uplink.is_holding() {
            self.uplink.question(now.mono, &mut self.rng);
            self.take_from_uplink();
        }
        let Phase::Running(pass) = &self.phase else { return };
        let is_idle = self.has_nothing_in_flight(pass) && !self.uplink.is_holding();
        if is_idle && pass.has_all_due && pass.waits.candidates == 0 {
            self.phase = Phase::Ending;
            self.to_writer.push_back(ToWriter::EndPass { at: now.wall });
        }
    }

    /// Whether nothing is queued, open, to be followed up, or expected from the writer.
    fn has_nothing_in_flight(&self, pass: &Pass) -> bool {
        let is_idle = self.queue.is_empty() && self.open == 0 && self.unacked == 0;
        is_idle && self.greeted.is_empty() && !pass.is_due_requested
    }

    /// Requests more targets where the queue runs low: first those due, then, for their share of
    /// the pass's time, those over their source's quota.
    fn request_more(&mut self, now: Duration) {
        let pass_started = self.pass_started;
        let Phase::Running(pass) = &mut self.phase else { return };
        let has_all_due = pass.has_all_due && pass.waits.candidates == 0;
        if has_all_due && self.queue.is_in_quota_empty() {
            pass.overtime.get_or_insert(now);
        } else if let Some(began) = pass.overtime.take() {
            pass.former_overtime += now.saturating_sub(began);
        }
        let share = self.params.spam_share.clamp(0.0, 0.99);
        let overtime = pass.overtime.map_or(Duration::ZERO, |began| now.saturating_sub(began));
        let overtime = pass.former_overtime + overtime;
        let main = now.saturating_sub(pass_started).saturating_sub(overtime);
        if overtime > main.mul_f64(share / (1.0 - share)) {
            self.queue.drop_over_quota();
            pass.waits.deferred = 0;
        }
        let is_there_more = !has_all_due || pass.waits.deferred > 0;
        if is_there_more && !pass.is_due_requested && self.queue.candidates() < MIN_QUEUE {
            pass.is_due_requested = true;
            self.to_writer.push_back(ToWriter::MoreDue { over_quota: has_all_due });
        }
    }

    fn ended(&mut self, now: Now) {
        if self.phase != Phase::Ending {
            return;
        }
        let (pass, elapsed) = (self.counters.pass, self.elapsed(now));
        self.uplink.handle_routable();
        self.forbidden += self.uplink.take_skipped();
        if self.forbidden > 0 {
            self.events.push_back(Event::Forbidden(std::mem::take(&mut self.forbidden)));
        }
        self.events.push_back(Event::PassFinished { pass, elapsed });
        if let Some(left) = &mut self.passes_left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return self.handle_stop(StopReason::PassesDone, now);
            }
        }
        let since = elapsed.saturating_add(self.pass_age);
        let wait = self.params.pass_interval.saturating_sub(since);
        self.wait(wait.max(MIN_WAIT), now);
    }

    fn queue_all(&mut self, targets: Vec<Target>) {
        for target in targets {
            self.uplink.offer(target, &mut self.rng);
            self.queue.push(target);
        }
    }

    /// Takes what the uplink monitor has judged.
    fn take_from_uplink(&mut self) {
        while let Some(result) = self.uplink.poll_accepted() {
            self.accept(result);
        }
        while let Some(target) = self.uplink.poll_put_back() {
            // Outside a pass nothing is queued: the target stays due.
            if matches!(self.phase, Phase::Running(_)) {
                self.queue.push(target);
            }
        }
        while let Some(event) = self.uplink.poll_event() {
            if let Phase::Running(pass) = &mut self.phase
                && !std::mem::replace(&mut pass.uplink_was_down, true)
            {
                self.to_writer.push_back(ToWriter::UplinkDown);
            }
            self.events.push_back(Event::Uplink(event));
        }
    }

    fn accept(&mut self, result: ProbeResult) {
        self.outcomes[result.outcome as usize] += 1;
        let target = result.target;
        if target.is_follow_up() {
            self.drop_follow_up(target);
        } else {
            self.counters.probed += 1;
            let responded = result.version.is_some();
            self.counters.responded += u64::from(responded);
            self.counters.failed += u64::from(!responded);
        }
        if target.is_unasked() && matches!(self.phase, Phase::Running(_)) {
            let at = result.heard_at.unwrap_or(result.dialled_at) + FOLLOW_UP_DELAY;
            self.greeted.push_back((at, target.address()));
        }
        self.unacked += 1;
        self.unacked_peers += result.peers.len();
        self.to_writer.push_back(ToWriter::Finished(Box::new(result)));
    }

    /// Picks the next target: during a suspicion the reference nodes first; while the uplink is
    /// down a reference node now and then; else the queue's.
    fn next_target(&mut self) -> Option<Target> {
        let reference = if !self.uplink.is_down() {
            self.uplink.poll_reference()
        } else if self.queue.is_empty() {
            None
        } else {
            self.uplink.poll_trickle()
        };
        reference.map(Target::reference).or_else(|| self.queue.pop(&mut self.rng))
    }

    fn limit_sockets(&mut self, fault: Fault, now: Duration) {
        // Some descriptors are left for the database, the log and look-ups, which would never get a
        // freed one.
        let left = if fault == Fault::Descriptors { (self.open / 10).max(2) } else { 0 };
        let sockets = self.open.saturating_sub(left).max(1);
        if self.socket_cap == usize::MAX {
            self.events.push_back(Event::ResourceLimited { fault, sockets });
        }
        self.socket_cap = self.socket_cap.min(sockets);
        self.socket_cap_grows_at = now + FAULT_PAUSE;
        if self.open == 0 {
            // No session of ours will end and make room: another program must.
            self.paused_until = now + FAULT_PAUSE;
        }
    }

    /// Number of sockets that may be open now.
    fn allowed_sockets(&self) -> usize {
        self.params.max_sockets.min(self.socket_cap)
    }

    /// What forbids a dial now.
    fn dial_block(&self, now: Duration) -> Option<Limit> {
        if !matches!(self.phase, Phase::Running(_)) {
            return Some(Limit::None);
        }
        if now < self.paused_until {
            return Some(Limit::Uplink);
        }
        if self.open >= self.allowed_sockets() {
            return Some(Limit::Sockets);
        }
        // All open sessions may end before the writer takes anything.
        let has_room = self.unacked + self.open < MAX_UNACKED + self.params.max_sockets;
        if self.is_writer_full || !has_room {
            return Some(Limit::Writer);
        }
        if self.limiter.next(now) > now {
            return Some(Limit::Rate);
        }
        let is_waiting = self.uplink.is_full() && !self.uplink.has_reference_to_probe();
        is_waiting.then_some(Limit::Uplink)
    }

    fn check_invariants(&self) {
        debug_assert!(
            self.phase != Phase::Ending
                || (self.queue.is_empty() && self.open == 0 && self.unacked == 0),
            "a pass ends with something in flight"
        );
        debug_assert!(
            matches!(self.phase, Phase::Running(_))
                || (self.queue.is_empty() && self.greeted.is_empty()),
            "targets wait outside a pass"
        );
        debug_assert!(
            self.unacked > 0 || self.unacked_peers == 0,
            "peers without a result are unacknowledged"
        );
    }
}

#[cfg(test)]
mod tests;
