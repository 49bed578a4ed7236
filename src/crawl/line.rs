//! `LineWatch`: is it them who are silent, or our own line?
//!
//! Layer 2: a pure machine inside the `Crawler`, which hands it every result and takes out what may be believed.
//!
//! ```text
//! Up ──a long run of silence──▶ Suspected ──every witness silent──▶ Down
//! ▲                                │ anything heard                  │ anything heard
//! └────────────────────────────────┴─────────────────────────────────┘
//! ```
//!
//! A wave of spam looks just like a dead line: so a run of failures without any answer only raises suspicion. Then
//! up to eight nodes that responded within the last hour, the witnesses, are greeted; only if all of them are silent
//! too is the line down. A result of silence is held until something was heard that came later than it ended.
//! That catches a line that is away for long. One that is away for seconds is told from the times: while a node
//! that was up was being waited for in vain, nobody else was heard either. Such a node is tried again.
//! Invariants: 1. a result of silence goes out only after something was heard behind it, or where nobody can be
//! asked; 2. every result comes out once, as it is or as a target put back; 3. what is held is bounded by
//! [`MAX_HELD_RESULTS`] and the sockets; 4. a target is put back for a mere doubt at most three times a pass.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::crawl::address::Address;
use crate::crawl::outcome::Outcome;
use crate::crawl::target::{ProbeResult, Target};

/// A run of so many silent results, of [`GAP`] at least, raises suspicion at first; every false alarm doubles it.
const ALARM: usize = 128;
const MAX_ALARM: usize = 2_048;
/// So many results are held before no new probe begins.
pub const MAX_HELD_RESULTS: usize = 4_096;
/// So many nodes are greeted at most,
const WITNESSES: usize = 8;
/// and with fewer than this to ask there is no telling.
const LEAST_WITNESSES: usize = 2;
/// Witnesses have responded within this time, where there are enough of those.
const WITNESS_AGE: Duration = Duration::from_secs(3_600);
/// Nobody is greeted again so soon, if as many others as [`ENOUGH_RESTED`] can be asked: nodes ban for less.
const WITNESS_REST: Duration = Duration::from_secs(60);
const ENOUGH_RESTED: usize = WITNESSES / 2;
/// So many are remembered: the first ones at once, then one every [`WITNESS_EVERY`].
const MAX_RECENT: usize = 128;
const FIRST_RECENT: usize = 64;
const WITNESS_EVERY: Duration = Duration::from_secs(20);
/// While nothing was heard for so long the line may have been down, just when an answer was due.
const GAP: Duration = Duration::from_secs(3);
/// Times of hearing are kept this far apart,
const HEARD_EVERY: Duration = Duration::from_millis(200);
/// and so many of them: a minute and a half at least.
const MAX_HEARD: usize = 512;
/// So many targets in a row that the kernel knows no way to mean that the line is down.
const UNROUTABLE: usize = 8;
/// The end of a pass is questioned if so many of its last results were silent.
const MANY: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Suspected { since: Duration },
    Down { since: Duration },
}

/// What the keeper should hear of the line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum LineEvent {
    /// It is down: so many witnesses are as silent as everybody else.
    Silent {
        /// How many were greeted.
        witnesses: usize,
    },
    /// It is down: the kernel knows no way to the world.
    Unroutable,
    /// Somebody was heard again.
    Up {
        /// After so long.
        after: Duration,
    },
}

/// The watch.
#[derive(Debug)]
pub struct LineWatch {
    state: State,
    /// Silent results, in the order of their ends.
    held: VecDeque<(Duration, ProbeResult)>,
    alarm: usize,
    heard: Heard,
    /// Some of those who responded lately, the newest last.
    recent: VecDeque<(Duration, Address)>,
    /// Nodes that are up by the database: who is asked before anybody has responded to this process.
    loaded: Vec<Address>,
    offered: usize,
    /// The witnesses of the present suspicion; those from `next` on are not greeted yet.
    witnesses: Vec<Address>,
    next: usize,
    /// Those whose greeting has not ended.
    waiting: BTreeSet<Address>,
    /// Who was chosen as a witness, and when, within [`WITNESS_REST`].
    greeted: Vec<(Duration, Address)>,
    unroutable: Vec<Target>,
    /// From when to when the line was down last.
    last_down: (Duration, Duration),
    accepted: VecDeque<ProbeResult>,
    put_back: VecDeque<Target>,
    events: VecDeque<LineEvent>,
}

impl Default for LineWatch {
    fn default() -> Self {
        Self {
            state: State::Up,
            held: VecDeque::new(),
            alarm: ALARM,
            heard: Heard::default(),
            recent: VecDeque::new(),
            loaded: Vec::new(),
            offered: 0,
            witnesses: Vec::new(),
            next: 0,
            waiting: BTreeSet::new(),
            greeted: Vec::new(),
            unroutable: Vec::new(),
            last_down: (Duration::ZERO, Duration::ZERO),
            accepted: VecDeque::new(),
            put_back: VecDeque::new(),
            events: VecDeque::new(),
        }
    }
}

impl LineWatch {
    /// A target of this pass that was up when it was probed last: it may serve as a witness.
    pub fn offer(&mut self, target: Target, rng: &mut fastrand::Rng) {
        if self.recent.len() >= WITNESSES || !target.is_up() {
            return;
        }
        // Every one with the same chance, whatever their order.
        self.offered += 1;
        if self.loaded.len() < MAX_RECENT {
            self.loaded.push(target.address());
        } else if let Some(place) = self.loaded.get_mut(rng.usize(..self.offered)) {
            *place = target.address();
        }
    }

    /// A probe ended.
    pub fn handle_result(&mut self, result: ProbeResult, now: Duration, rng: &mut fastrand::Rng) {
        let is_witness = result.target.is_witness();
        if let Some(heard_at) = result.heard_at {
            if result.version.is_some() && !is_witness {
                self.remember(result.target.address(), heard_at);
            }
            self.hear(heard_at, now);
        }
        if is_witness {
            return self.witness_ended(result.target.address(), now);
        }
        match self.state {
            _ if !is_silence(result.outcome) => self.accepted.push_back(result),
            State::Down { .. } => self.put_back.push_back(result.target),
            State::Up | State::Suspected { .. } => {
                self.held.push_back((now, result));
                // Sockets that were dialled together at dead addresses give up together: that alone is no run.
                let is_run = self.held.len() >= self.alarm && self.heard.is_over(now);
                if self.state == State::Up && is_run {
                    self.suspect(now, rng);
                }
            }
        }
    }

    /// The kernel knows no way to a target that was granted last.
    pub fn handle_unroutable(&mut self, target: Target, now: Duration, rng: &mut fastrand::Rng) {
        if target.is_witness() {
            return self.witness_ended(target.address(), now);
        }
        self.unroutable.push(target);
        if matches!(self.state, State::Down { .. }) {
            self.put_back.extend(self.unroutable.drain(..));
        } else if self.unroutable.len() >= UNROUTABLE {
            self.choose_witnesses(now, rng);
            self.go_down(LineEvent::Unroutable, now);
        }
    }

    /// The kernel knew a way to the target that was granted last. Gives how many before it had none: what
    /// our own host's rules or routes forbid is nobody's fault.
    pub fn handle_routable(&mut self) -> u64 {
        self.unroutable.drain(..).count() as u64
    }

    /// A witness could not be greeted for want of descriptors or ports: it is still to be greeted.
    pub fn handle_ungreeted(&mut self, address: Address) {
        if self.waiting.remove(&address) && matches!(self.state, State::Suspected { .. }) {
            self.witnesses.push(address);
        }
    }

    /// A witness may not be greeted any more: it counts as silent.
    pub fn handle_unasked(&mut self, address: Address, now: Duration) {
        self.witness_ended(address, now);
    }

    /// The pass has nothing else left: were its last results true?
    pub fn question(&mut self, now: Duration, rng: &mut fastrand::Rng) {
        let matters = self.held.iter().any(|(_, result)| result.target.is_up());
        if self.state != State::Up {
            return;
        }
        if matters || self.held.len() >= MANY {
            self.suspect(now, rng);
        } else {
            self.accept_held(Duration::MAX);
        }
    }

    /// The crawl stops: what is doubtful is due again at the next start.
    pub fn handle_stop(&mut self) {
        if self.state == State::Up {
            self.accept_held(Duration::MAX);
        }
        self.forget();
    }

    /// Drops what is held and whom to ask: it belongs to another book.
    pub fn forget(&mut self) {
        self.held.clear();
        self.loaded.clear();
        self.offered = 0;
        self.unroutable.clear();
        self.put_back.clear();
        self.witnesses.clear();
        self.next = 0;
        if matches!(self.state, State::Suspected { .. }) {
            self.state = State::Up;
        }
    }

    /// The next witness to greet while the line is suspected.
    pub fn poll_witness(&mut self) -> Option<Address> {
        if !matches!(self.state, State::Suspected { .. }) {
            return None;
        }
        let address = *self.witnesses.get(self.next)?;
        self.next += 1;
        self.waiting.insert(address);
        Some(address)
    }

    /// While the line is down: who is tried next of those who are known to answer; every other time nobody, since
    /// all of them may have gone meanwhile.
    pub fn poll_trickle(&mut self) -> Option<Address> {
        self.next = self.next.wrapping_add(1);
        let turn = self.next / 2;
        let witnesses = self.witnesses.len().max(1);
        let address = self.witnesses.get(turn % witnesses).filter(|_| self.next.is_multiple_of(2));
        address.copied()
    }

    /// A result that may be believed.
    pub fn poll_accepted(&mut self) -> Option<ProbeResult> {
        self.accepted.pop_front()
    }

    /// A target whose result counts for nothing: it is to be probed again.
    pub fn poll_put_back(&mut self) -> Option<Target> {
        self.put_back.pop_front()
    }

    /// What the keeper should hear.
    pub fn poll_event(&mut self) -> Option<LineEvent> {
        self.events.pop_front()
    }

    /// Whether results wait for a verdict.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether so many results wait for a verdict that no more should be made.
    pub fn is_full(&self) -> bool {
        self.held.len() >= MAX_HELD_RESULTS
    }

    /// Whether witnesses are to be greeted.
    pub fn has_witnesses_to_greet(&self) -> bool {
        matches!(self.state, State::Suspected { .. }) && self.next < self.witnesses.len()
    }

    /// Whether the line is believed to be down.
    pub fn is_down(&self) -> bool {
        matches!(self.state, State::Down { .. })
    }

    /// Something came from the world at `at`.
    fn hear(&mut self, at: Duration, now: Duration) {
        self.heard.insert(at);
        match self.state {
            State::Suspected { since } if at > since => {
                self.state = State::Up;
                self.alarm = (self.alarm * 2).min(MAX_ALARM);
            }
            State::Down { since } if at > since => {
                self.state = State::Up;
                self.alarm = ALARM;
                self.last_down = (since, now);
                let after = now.saturating_sub(since);
                self.events.push_back(LineEvent::Up { after });
            }
            State::Up | State::Suspected { .. } | State::Down { .. } => {}
        }
        self.accept_held(at);
    }

    /// Believes what ended up to `end`, but for what is doubtful.
    fn accept_held(&mut self, end: Duration) {
        while self.held.front().is_some_and(|(ended, _)| *ended <= end) {
            let Some((ended, result)) = self.held.pop_front() else { return };
            let target = result.target;
            let (down, up) = self.last_down;
            if result.dialled_at < up && ended > down {
                // It began while the line was down, or before, and could end no other way.
                self.put_back.push_back(target);
                continue;
            }
            let is_doubtful = target.is_up() && self.heard.has_gap(result.dialled_at, ended);
            match target.retried().filter(|_| is_doubtful) {
                Some(again) => self.put_back.push_back(again),
                None => self.accepted.push_back(result),
            }
        }
    }

    fn suspect(&mut self, now: Duration, rng: &mut fastrand::Rng) {
        self.choose_witnesses(now, rng);
        if self.witnesses.len() < LEAST_WITNESSES {
            // Nobody can be asked: better a node marked down too soon than a crawl that never goes on.
            return self.accept_held(Duration::MAX);
        }
        self.next = 0;
        self.waiting.clear();
        self.state = State::Suspected { since: now };
    }

    /// Those of the last hour, first who has not just failed. Where they are too few, those before them and those
    /// who are up by the database: better a greeting in vain than a night's fault that nobody can tell of.
    fn choose_witnesses(&mut self, now: Duration, rng: &mut fastrand::Rng) {
        let failed: BTreeSet<Address> =
            self.held.iter().map(|(_, result)| result.target.address()).collect();
        self.greeted.retain(|(at, _)| now < *at + WITNESS_REST);
        let oldest = now.saturating_sub(WITNESS_AGE);
        let fresh = self.recent.partition_point(|(at, _)| *at < oldest);
        let mut chosen: Vec<Address> = Vec::new();
        let mut older: Vec<Address> = Vec::new();
        let addresses = |range: &(Duration, Address)| range.1;
        chosen.extend(self.recent.range(fresh..).map(addresses));
        older.extend(self.recent.range(..fresh).rev().map(addresses));
        rng.shuffle(&mut chosen);
        rng.shuffle(&mut self.loaded);
        older.extend(&self.loaded);
        chosen.sort_by_key(|address| failed.contains(address));
        older.sort_by_key(|address| failed.contains(address));
        let mut seen = BTreeSet::new();
        chosen.retain(|address| seen.insert(*address));
        // Of those of the hour only: who may be long gone is no stand-in for who has just answered.
        let is_rested = |address: &Address| !self.greeted.iter().any(|(_, other)| other == address);
        if chosen.iter().filter(|address| is_rested(address)).count() >= ENOUGH_RESTED {
            chosen.retain(is_rested);
        }
        older.retain(|address| seen.insert(*address));
        chosen.append(&mut older);
        chosen.truncate(WITNESSES);
        self.greeted.extend(chosen.iter().map(|address| (now, *address)));
        self.witnesses = chosen;
    }

    fn witness_ended(&mut self, address: Address, now: Duration) {
        let was_waited_for = self.waiting.remove(&address);
        let is_over = self.waiting.is_empty() && self.next >= self.witnesses.len();
        let is_over = is_over && was_waited_for;
        if matches!(self.state, State::Suspected { .. }) && is_over {
            let witnesses = self.witnesses.len();
            self.go_down(LineEvent::Silent { witnesses }, now);
        }
    }

    fn go_down(&mut self, why: LineEvent, now: Duration) {
        self.state = State::Down { since: now };
        self.events.push_back(why);
        let held = std::mem::take(&mut self.held);
        self.put_back.extend(held.into_iter().map(|(_, result)| result.target));
        self.put_back.extend(self.unroutable.drain(..));
    }

    fn remember(&mut self, address: Address, at: Duration) {
        let oldest = at.saturating_sub(WITNESS_AGE);
        let stale = self.recent.partition_point(|(at, _)| *at < oldest);
        let is_few = self.recent.len() - stale < FIRST_RECENT;
        let newest = self.recent.back().map(|(at, _)| *at + WITNESS_EVERY);
        if is_few || newest.is_none_or(|next| at >= next) {
            self.recent.push_back((at, address));
        }
        if self.recent.len() > MAX_RECENT {
            self.recent.pop_front();
        }
        if self.recent.len() >= WITNESSES {
            self.loaded = Vec::new();
        }
    }
}

/// When something came from the world, over the last while.
#[derive(Debug, Default)]
struct Heard {
    /// In their order, none closer than [`HEARD_EVERY`] to the one before.
    times: VecDeque<Duration>,
}

impl Heard {
    fn insert(&mut self, at: Duration) {
        let place = self.times.partition_point(|time| *time <= at);
        let before = place.checked_sub(1).and_then(|place| self.times.get(place));
        let is_told = before.is_some_and(|before| at < *before + HEARD_EVERY);
        if !is_told {
            self.times.insert(place, at);
        }
        if self.times.len() > MAX_HEARD {
            self.times.pop_front();
        }
    }

    /// Whether nothing was heard for the length of [`GAP`] by now.
    fn is_over(&self, now: Duration) -> bool {
        self.times.back().is_none_or(|last| now >= *last + GAP)
    }

    /// Whether for the length of [`GAP`] between `from` and `to` nothing was heard.
    fn has_gap(&self, from: Duration, to: Duration) -> bool {
        let place = self.times.partition_point(|time| *time <= from);
        let mut last = from;
        for time in self.times.range(place..).copied().take_while(|time| *time < to) {
            if time >= last + GAP {
                return true;
            }
            last = time;
        }
        to >= last + GAP
    }
}

/// Whether a dead line ends a probe in this way.
fn is_silence(outcome: Outcome) -> bool {
    matches!(outcome, Outcome::ConnectTimeout | Outcome::Unreachable | Outcome::HandshakeTimeout)
}

#[cfg(test)]
mod tests;
