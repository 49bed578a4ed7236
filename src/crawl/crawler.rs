//! `Crawler`: which address is dialled next, and when a pass begins and ends.
//!
//! Layer 2: no socket, clock, thread or logger. The shell tells it what happened (`handle_*`), then lets it
//! think (`tick`) and takes what comes out: `poll_dial`, `poll_writer`, `poll_need`, `poll_event`, `poll_timeout`.
//!
//! ```text
//! Opening ──ready──▶ Clockless ──calendar right──▶ Waiting ──time──▶ Naming ──names──▶ Starting
//!                                                     ▲                                   │ started
//!                                                     └──ended── Ending ◀──nothing left── Running
//! any ──stop──▶ Stopping ──stopped──▶ Stopped
//! ```
//!
//! Invariants: 1. no dial while as many sockets are open as are allowed now; 2. no dial without room for its
//! result at the writer; 3. granted = ended + open + given back; 4. a pass ends only when the queue is empty, no
//! session open, the last of the due here, and every result acknowledged: its peers may be new.

mod anew;
mod clock;
mod line;
mod parts;

pub use parts::{Counters, Event, Phase};

use std::collections::VecDeque;
use std::sync::Arc;
use std::time::Duration;

use self::anew::Before;
use crate::crawl::address::Address;
use crate::crawl::exchange::{Database, FromWriter, ToWriter, Totals};
use crate::crawl::filter::Filter;
use crate::crawl::limiter::Limiter;
use crate::crawl::line::LineWatch;
use crate::crawl::outcome::Fault;
use crate::crawl::queue::Queue;
use crate::crawl::recorder::RecorderParams;
use crate::crawl::stats::Limit;
use crate::crawl::target::{ProbeResult, Target};
use crate::crawl::time::{Now, UnixTime};

/// What the crawl goes by.
#[derive(Clone, Debug)]
pub struct CrawlerParams {
    /// Sockets open at once.
    pub max_sockets: usize,
    /// The most connections begun in a second; 0 for no limit.
    pub connects_per_second: u32,
    /// The least time from one pass's start to the next one's.
    pub pass_interval: Duration,
    /// The share of a pass's time for addresses over their source's quota.
    pub spam_share: f64,
    /// What is never dialled.
    pub filter: Arc<Filter>,
    /// When the program was built: a calendar that shows less is wrong.
    pub built_at: UnixTime,
}

/// So many results may wait for the writer before no new probe begins.
pub const MAX_UNACKED: usize = 1_000;
/// And so many peers in them: 24 bytes each.
pub const MAX_UNACKED_PEERS: usize = 200_000;
/// Below so many waiting targets the writer is asked for more of the due.
const LOW_QUEUE: usize = 4_096;
/// Passes with nothing to do must not follow each other without a breath.
const LEAST_WAIT: Duration = Duration::from_secs(1);
/// While our own line is down one target is tried in this time.
const TRICKLE: Duration = Duration::from_secs(1);
/// After a fault of our own side nothing is dialled for so long.
const FAULT_PAUSE: Duration = Duration::from_secs(1);

/// Nothing is known and no seed's name gave an address: they are looked up again after so long.
const SEEDS_AGAIN_AFTER: Duration = Duration::from_secs(60);

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
    is_last_due_here: bool,
    is_due_asked: bool,
    /// How many wait at the writer because their source has named too many.
    held_back: u64,
    /// When the time for those began: everything else of the pass had been dialled.
    overtime: Option<Duration>,
    /// No more sockets than this, for want of descriptors or ports.
    allowance: usize,
    allowance_grows_at: Duration,
    paused_until: Duration,
    line: LineWatch,
    /// Whether the target granted last was dialled: nobody said otherwise.
    is_granted_dialled: bool,
    is_db_up: bool,
    is_opened: bool,
    forbidden: u64,
    counters: Counters,
    totals: Totals,
    pass_started: Duration,
    /// How long ago the pass had begun when it was gone on with.
    pass_age: Duration,
    passes_left: Option<u64>,
    needs_names: Option<bool>,
    before: Before,
    to_writer: VecDeque<ToWriter>,
    events: VecDeque<Event>,
}

impl Crawler {
    /// Makes a crawler that waits for the writer. With `passes` it stops by itself after so many.
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
            is_last_due_here: false,
            is_due_asked: false,
            held_back: 0,
            overtime: None,
            allowance: usize::MAX,
            allowance_grows_at: Duration::ZERO,
            paused_until: Duration::ZERO,
            line: LineWatch::default(),
            is_granted_dialled: true,
            is_db_up: false,
            is_opened: false,
            forbidden: 0,
            counters: Counters::default(),
            totals: Totals::default(),
            pass_started: Duration::ZERO,
            pass_age: Duration::ZERO,
            passes_left: passes,
            needs_names: None,
            before: Before::default(),
            to_writer: VecDeque::new(),
            events: VecDeque::new(),
        }
    }

    /// The writer says something.
    pub fn handle_writer(&mut self, message: FromWriter, now: Now) {
        match message {
            FromWriter::Ready(opened) if self.phase == Phase::Opening => self.opened(opened, now),
            FromWriter::Ready(_) => {}
            FromWriter::Reset(opened) => self.begin_anew(opened, now),
            FromWriter::Started { .. } if self.before.has_start => self.before.has_start = false,
            FromWriter::Started { pass, row, resumed, due } => {
                if self.phase == Phase::Starting {
                    self.phase = Phase::Running;
                }
                let (probed, responded, failed) = (row.probed, row.responded, row.failed);
                self.counters = Counters { pass, probed, responded, failed };
                self.pass_started = now.mono;
                let age = now.wall.since(row.started_at);
                self.pass_age = if resumed { age } else { Duration::ZERO };
                self.events.push_back(Event::PassStarted { pass, resumed, due });
            }
            FromWriter::Due { .. } if self.phase != Phase::Running => {}
            FromWriter::Due { targets, last, held_back } => {
                self.is_due_asked = false;
                self.held_back = held_back;
                self.is_last_due_here |= last;
                self.queue_all(targets);
            }
            FromWriter::Heard { targets, acked, acked_peers, held_back } => {
                self.held_back = held_back;
                self.unacked = self.unacked.saturating_sub(acked);
                self.unacked_peers = self.unacked_peers.saturating_sub(acked_peers);
                self.queue_all(targets);
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
    }

    /// The nodes file's names are looked up: the named nodes and the addresses to begin with. `is_partial` if
    /// some names gave no address.
    pub fn handle_names(
        &mut self,
        named: Vec<(Address, String)>,
        seeds: Vec<Address>,
        is_partial: bool,
        now: Now,
    ) {
        self.before.has_names = false;
        if self.phase == Phase::Naming {
            let knows_none = self.totals.nodes + self.totals.candidates == 0;
            if knows_none && is_partial && named.is_empty() && seeds.is_empty() {
                // A pass without a single address would only make the next one wait for its interval.
                self.events.push_back(Event::NoSeeds);
                self.phase = Phase::Waiting { until: now.mono + SEEDS_AGAIN_AFTER };
                return;
            }
            let at = now.wall;
            self.phase = Phase::Starting;
            self.is_last_due_here = false;
            self.is_due_asked = true;
            self.held_back = 0;
            self.overtime = None;
            self.to_writer.push_back(ToWriter::StartPass { at, named, seeds });
        }
    }

    /// A session ended; `None` if it was cut off by a stop and says nothing of its target.
    pub fn handle_ended(&mut self, result: Option<ProbeResult>, now: Now) {
        debug_assert!(self.open > 0, "more sessions ended than were dialled");
        self.open = self.open.saturating_sub(1);
        if let Some(result) = result {
            self.line.handle_result(result, now.mono, &mut self.rng);
            self.take_from_line();
        }
    }

    /// A granted target could not be dialled, for a fault of our own side.
    pub fn handle_undialled(&mut self, target: Target, fault: Fault, now: Now) {
        self.open = self.open.saturating_sub(1);
        self.is_granted_dialled = false;
        match fault {
            Fault::Descriptors | Fault::Ports => {
                self.squeeze(fault, now.mono);
                match target.is_witness() {
                    true => self.line.handle_ungreeted(target.address()),
                    false => self.queue.push(target),
                }
            }
            Fault::Line => {
                self.line.handle_unroutable(target, now.mono, &mut self.rng);
                if self.line.is_down() {
                    self.paused_until = now.mono + FAULT_PAUSE;
                }
                self.take_from_line();
            }
            // A rule or route of our own host concerns this address alone (the broadcast address of our own net
            // is such a one): it stays due, for a later pass.
            Fault::Forbidden if target.is_witness() => {
                self.line.handle_unasked(target.address(), now.mono);
                self.take_from_line();
            }
            Fault::Forbidden => self.forbidden += 1,
        }
    }

    /// The configuration changed: sessions that run are not touched.
    pub fn handle_params(&mut self, params: CrawlerParams, recorder: RecorderParams) {
        self.limiter.set(params.connects_per_second);
        if let Phase::Waiting { until } = &mut self.phase {
            *until = self.pass_started + params.pass_interval.saturating_sub(self.pass_age);
        }
        self.params = params;
        self.to_writer.push_back(ToWriter::Reconfigure(Arc::new(recorder)));
    }

    /// Stop: nothing is dialled any more. The shell ends its sessions, then ticks on until `Stopped`.
    pub fn handle_stop(&mut self) {
        if !self.is_over() && !self.is_stopping() {
            self.line.handle_stop();
            self.take_from_line();
            self.phase = Phase::Stopping { told: false };
            self.queue.clear();
        }
    }

    /// Lets time pass: whatever is due now happens.
    pub fn tick(&mut self, now: Now) {
        match self.phase {
            Phase::Clockless(wait) => self.tick_clockless(wait, now),
            Phase::Waiting { until } if now.mono >= until && self.is_still() => {
                self.ask_for_names();
            }
            Phase::Running => self.tick_running(now),
            Phase::Stopping { told: false } if self.open == 0 => {
                self.line.handle_stop();
                self.take_from_line();
                self.to_writer.push_back(ToWriter::Stop);
                self.phase = Phase::Stopping { told: true };
            }
            _ => {}
        }
    }

    /// The next target to dial, if one may be dialled now. The shell must answer with `handle_ended` or
    /// `handle_undialled`, once.
    pub fn poll_dial(&mut self, now: Now) -> Option<Target> {
        while self.held_back(now.mono).is_none() {
            let target = self.next_target()?;
            let admitted = match target.is_named() {
                true => self.params.filter.admits_named(target.address()),
                false => self.params.filter.admits(target.address()),
            };
            // The filter may have changed since the target was queued.
            if admitted {
                if self.is_granted_dialled {
                    self.forbidden += self.line.handle_routable();
                }
                self.is_granted_dialled = true;
                if self.line.is_down() {
                    self.paused_until = now.mono + TRICKLE;
                }
                self.limiter.start(now.mono);
                self.open += 1;
                debug_assert!(self.open <= self.params.max_sockets);
                return Some(target);
            }
            if target.is_witness() {
                self.line.handle_unasked(target.address(), now.mono);
                self.take_from_line();
            }
        }
        None
    }

    /// What the writer is to be told.
    pub fn poll_writer(&mut self) -> Option<ToWriter> {
        self.to_writer.pop_front()
    }

    /// Whether names are to be looked up, and if so whether seeds are wanted beside the named nodes.
    pub fn poll_need(&mut self) -> Option<bool> {
        self.needs_names.take()
    }

    /// What the keeper should hear.
    pub fn poll_event(&mut self) -> Option<Event> {
        self.events.pop_front()
    }

    /// When `tick` and `poll_dial` should be called again, if nothing happens before.
    pub fn poll_timeout(&self, now: Now) -> Option<Duration> {
        match self.phase {
            Phase::Clockless(wait) => Some(wait.look_at),
            // What is under way wakes the shell.
            Phase::Waiting { until } => self.is_still().then_some(until),
            Phase::Running if !self.queue.is_empty() || self.line.has_witnesses_to_greet() => {
                let resumes = match self.held_back(now.mono) {
                    Some(Limit::Rate) => Some(self.limiter.next(now.mono)),
                    // Where too much is held, those who are open wake the shell; without any, `tick` asks.
                    Some(Limit::Line) if now.mono < self.paused_until => Some(self.paused_until),
                    Some(Limit::Line) => (self.open == 0).then_some(now.mono),
                    _ => None,
                };
                let grows = (self.allowance != usize::MAX).then_some(self.allowance_grows_at);
                resumes.into_iter().chain(grows).min()
            }
            // The last targets were given up: `tick` knows what comes next.
            Phase::Running if self.has_nothing_under_way() => Some(now.mono),
            _ => None,
        }
    }

    /// What holds the crawl back now.
    pub fn limit(&self, now: Now) -> Limit {
        if self.queue.is_empty() {
            return Limit::None;
        }
        self.held_back(now.mono).unwrap_or(Limit::None)
    }

    /// Where the crawl stands.
    pub fn phase(&self) -> &Phase {
        &self.phase
    }

    /// Whether it is over, for better or worse.
    pub fn is_over(&self) -> bool {
        matches!(self.phase, Phase::Stopped { .. } | Phase::Failed(_))
    }

    /// Whether it is asked to stop.
    pub fn is_stopping(&self) -> bool {
        matches!(self.phase, Phase::Stopping { .. })
    }

    /// The counters of the running pass.
    pub fn counters(&self) -> Counters {
        self.counters
    }

    /// The writer's figures.
    pub fn totals(&self) -> Totals {
        self.totals
    }

    /// Targets that wait for a socket.
    pub fn queue_len(&self) -> usize {
        self.queue.len()
    }

    /// Sockets open.
    pub fn open(&self) -> usize {
        self.open
    }

    /// Results that the writer has not acknowledged.
    pub fn unacked(&self) -> usize {
        self.unacked
    }

    /// Whether the database took what it was given last.
    pub fn is_db_up(&self) -> bool {
        self.is_db_up
    }

    /// Whether the database was ever open: before that nothing can be in hand.
    pub fn is_opened(&self) -> bool {
        self.is_opened
    }

    /// Whether our own line is believed to work.
    pub fn is_line_up(&self) -> bool {
        !self.line.is_down()
    }

    /// How long the pass has been running, or ran.
    pub fn elapsed(&self, now: Now) -> Duration {
        now.mono.saturating_sub(self.pass_started)
    }

    fn wait(&mut self, wait: Duration, now: Now) {
        self.phase = Phase::Waiting { until: now.mono + wait };
        if wait > Duration::from_secs(1) {
            self.events.push_back(Event::Waits(wait));
        }
    }

    fn tick_running(&mut self, now: Now) {
        if self.allowance != usize::MAX && now.mono >= self.allowance_grows_at {
            self.allowance += self.allowance.div_ceil(10).max(1);
            self.allowance_grows_at = now.mono + FAULT_PAUSE;
            if self.allowance >= self.params.max_sockets {
                self.allowance = usize::MAX;
                self.events.push_back(Event::Unsqueezed);
            }
        }
        let most = (MAX_UNACKED, MAX_UNACKED_PEERS);
        self.is_writer_full = match self.is_writer_full {
            false => self.unacked >= most.0 || self.unacked_peers >= most.1,
            true => self.unacked * 10 > most.0 * 9 || self.unacked_peers * 10 > most.1 * 9,
        };
        self.want_more(now.mono);
        let is_at_an_end = self.queue.is_empty() || self.line.is_full();
        if is_at_an_end && self.open == 0 && self.line.is_holding() {
            self.line.question(now.mono, &mut self.rng);
            self.take_from_line();
        }
        let is_idle = self.has_nothing_under_way() && !self.line.is_holding();
        if is_idle && self.is_last_due_here {
            self.phase = Phase::Ending;
            self.to_writer.push_back(ToWriter::EndPass { at: now.wall });
        }
    }

    /// Whether nothing is queued, open, or awaited from the writer.
    fn has_nothing_under_way(&self) -> bool {
        let is_idle = self.queue.is_empty() && self.open == 0 && self.unacked == 0;
        is_idle && !self.is_due_asked
    }

    /// Asks the writer for more where the queue runs low: first for those who are due, then, for their share of
    /// the pass's time, for those over their source's quota.
    fn want_more(&mut self, now: Duration) {
        if self.is_last_due_here && self.overtime.is_none() && self.queue.is_in_quota_empty() {
            self.overtime = Some(now);
        }
        if self.is_overtime_over(now) {
            self.queue.drop_over_quota();
            self.held_back = 0;
        }
        let is_there_more = !self.is_last_due_here || self.held_back > 0;
        if is_there_more && !self.is_due_asked && self.queue.len() < LOW_QUEUE {
            self.is_due_asked = true;
            self.to_writer.push_back(ToWriter::MoreDue { over_quota: self.is_last_due_here });
        }
    }

    fn is_overtime_over(&self, now: Duration) -> bool {
        let Some(began) = self.overtime else { return false };
        let share = self.params.spam_share.clamp(0.0, 0.99);
        let main = began.saturating_sub(self.pass_started);
        now > began + main.mul_f64(share / (1.0 - share))
    }

    fn ended(&mut self, now: Now) {
        if self.phase != Phase::Ending {
            return;
        }
        let (pass, elapsed) = (self.counters.pass, self.elapsed(now));
        self.forbidden += self.line.handle_routable();
        if self.forbidden > 0 {
            self.events.push_back(Event::Forbidden(std::mem::take(&mut self.forbidden)));
        }
        self.events.push_back(Event::PassFinished { pass, elapsed });
        if let Some(left) = &mut self.passes_left {
            *left = left.saturating_sub(1);
            if *left == 0 {
                return self.handle_stop();
            }
        }
        let since = elapsed.saturating_add(self.pass_age);
        let wait = self.params.pass_interval.saturating_sub(since);
        self.wait(wait.max(LEAST_WAIT), now);
    }

    fn queue_all(&mut self, targets: Vec<Target>) {
        if self.phase == Phase::Running {
            for target in targets {
                self.line.offer(target, &mut self.rng);
                self.queue.push(target);
            }
        }
    }

    fn squeeze(&mut self, fault: Fault, now: Duration) {
        // Some are left for the database, the log and look-ups: they would never get one of those that end.
        let left = if fault == Fault::Descriptors { (self.open / 10).max(2) } else { 0 };
        let sockets = self.open.saturating_sub(left).max(1);
        if self.allowance == usize::MAX {
            self.events.push_back(Event::Squeezed { fault, sockets });
        }
        self.allowance = self.allowance.min(sockets);
        self.allowance_grows_at = now + FAULT_PAUSE;
        if self.open == 0 {
            // Nothing of ours will end and make room: somebody else must.
            self.paused_until = now + FAULT_PAUSE;
        }
    }

    /// What forbids a dial now.
    fn held_back(&self, now: Duration) -> Option<Limit> {
        if self.phase != Phase::Running {
            return Some(Limit::None);
        }
        if now < self.paused_until {
            return Some(Limit::Line);
        }
        if self.open >= self.params.max_sockets.min(self.allowance) {
            return Some(Limit::Sockets);
        }
        // The sessions that are open may all end before the writer takes anything.
        let has_room = self.unacked + self.open < MAX_UNACKED + self.params.max_sockets;
        if self.is_writer_full || !has_room {
            return Some(Limit::Writer);
        }
        if self.limiter.next(now) > now {
            return Some(Limit::Rate);
        }
        let is_waiting = self.line.is_full() && !self.line.has_witnesses_to_greet();
        is_waiting.then_some(Limit::Line)
    }
}

#[cfg(test)]
mod tests;
