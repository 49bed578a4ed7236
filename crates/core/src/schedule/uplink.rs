//! `UplinkMonitor`: tells a silent network from a dead uplink.
//!
//! Sans-I/O, driven by the `Crawler`, which passes in every result and takes out those that can be
//! trusted.
//!
//! ```text
//! Up ──a long run of silence──▶ Suspected ──every reference node silent──▶ Down
//! ▲                                │ anything heard                  │ anything heard
//! └────────────────────────────────┴─────────────────────────────────┘
//! ```
//!
//! A wave of spam looks like a dead uplink, so a run of failures without any answer only raises
//! suspicion. Then up to eight nodes that responded within the last hour, the reference nodes, get
//! a handshake-only probe; the uplink is down only if all of them are silent too. A result of
//! silence is held until something arrives that is newer than its end. This catches long outages.
//! An outage of seconds shows in the times: while a node that was up did not answer, nothing else
//! arrived either. Such a node is probed again. Invariants: 1. a result of silence is released only
//! after something newer arrived, or where no reference node is known; 2. every result comes out
//! once, as it is or as a target put back; 3. the number of results held is bounded by
//! [`MAX_HELD_RESULTS`] and the sockets; 4. a target is put back out of doubt at most three times a
//! pass.

use std::collections::{BTreeSet, VecDeque};
use std::time::Duration;

use crate::vocabulary::address::Address;
use crate::vocabulary::target::{ProbeResult, Target};

/// Length of a run of silent results, of [`MIN_GAP`] at least, that raises suspicion; every false
/// alarm doubles it.
const MIN_ALARM_THRESHOLD: usize = 128;
const MAX_ALARM_THRESHOLD: usize = 2_048;
/// Maximum number of results held; no probe starts beyond it.
pub const MAX_HELD_RESULTS: usize = 4_096;
/// Maximum number of reference nodes to probe.
const MAX_REFERENCES: usize = 8;
/// Minimum number needed for a verdict.
const MIN_REFERENCES: usize = 2;
/// Maximum age of a reference node's last response, where enough nodes are that fresh.
const MAX_REFERENCE_AGE: Duration = Duration::from_secs(3_600);
/// Minimum time between two probes of a reference node, where [`MIN_RESTED`] others are known:
/// nodes ban for less.
const MIN_REFERENCE_INTERVAL: Duration = Duration::from_secs(60);
const MIN_RESTED: usize = MAX_REFERENCES / 2;
/// Maximum number of recent responses remembered: the first [`MIN_RECENT`] at once, then one per
/// [`RECENT_INTERVAL`].
const MAX_RECENT: usize = 128;
const MIN_RECENT: usize = 64;
const RECENT_INTERVAL: Duration = Duration::from_secs(20);
/// Length of a silence during which the uplink may have been down.
const MIN_GAP: Duration = Duration::from_secs(3);
/// Minimum distance between two remembered arrivals.
const ARRIVAL_INTERVAL: Duration = Duration::from_millis(200);
/// Maximum number of remembered arrivals: a minute and a half at least.
const MAX_ARRIVALS: usize = 512;
/// Number of consecutive targets without a route that means a dead uplink.
const UNROUTABLE_THRESHOLD: usize = 8;
/// Number of silent results at the end of a pass that raises suspicion.
const END_OF_PASS_THRESHOLD: usize = 512;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Suspected { since: Duration },
    Down { since: Duration },
}

/// What the operator is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkEvent {
    /// It is down: all reference nodes are silent too.
    Silent {
        /// Number of reference nodes probed.
        references: usize,
    },
    /// It is down: the kernel has no route.
    Unroutable,
    /// Something arrived again.
    Up {
        /// Length of the outage.
        after: Duration,
    },
}

/// The machine.
#[derive(Debug)]
pub struct UplinkMonitor {
    state: State,
    /// Silent results, ordered by their ends.
    held: VecDeque<(Duration, ProbeResult)>,
    alarm: usize,
    arrivals: Arrivals,
    /// Some nodes that responded lately, the newest last.
    recent: VecDeque<(Duration, Address)>,
    /// Nodes that are up by the database: candidates for reference nodes before any has responded.
    loaded: Vec<Address>,
    offered: usize,
    /// Reference nodes of the current suspicion; those from `next` on are not probed yet.
    references: Vec<Address>,
    next: usize,
    /// Reference nodes whose probe has not ended.
    waiting: BTreeSet<Address>,
    /// Nodes chosen as reference nodes within [`MIN_REFERENCE_INTERVAL`], and when.
    chosen: Vec<(Duration, Address)>,
    unroutable: Vec<Target>,
    /// Start and end of the last outage.
    last_down: (Duration, Duration),
    accepted: VecDeque<ProbeResult>,
    put_back: VecDeque<Target>,
    events: VecDeque<UplinkEvent>,
}

impl Default for UplinkMonitor {
    fn default() -> Self {
        Self {
            state: State::Up,
            held: VecDeque::new(),
            alarm: MIN_ALARM_THRESHOLD,
            arrivals: Arrivals::default(),
            recent: VecDeque::new(),
            loaded: Vec::new(),
            offered: 0,
            references: Vec::new(),
            next: 0,
            waiting: BTreeSet::new(),
            chosen: Vec::new(),
            unroutable: Vec::new(),
            last_down: (Duration::ZERO, Duration::ZERO),
            accepted: VecDeque::new(),
            put_back: VecDeque::new(),
            events: VecDeque::new(),
        }
    }
}

impl UplinkMonitor {
    /// Offers a target of this pass: it may serve as a reference node if it was up at its last
    /// probe.
    pub fn offer(&mut self, target: Target, rng: &mut fastrand::Rng) {
        if self.recent.len() >= MAX_REFERENCES || !target.is_up() {
            return;
        }
        // Reservoir sampling: each with the same chance, in any order.
        self.offered += 1;
        if self.loaded.len() < MAX_RECENT {
            self.loaded.push(target.address());
        } else if let Some(place) = self.loaded.get_mut(rng.usize(..self.offered)) {
            *place = target.address();
        }
    }

    /// Handles the result of a probe.
    pub fn handle_result(
        &mut self,
        mut result: ProbeResult,
        now: Duration,
        rng: &mut fastrand::Rng,
    ) {
        let is_reference = result.target.is_reference();
        if let Some(heard_at) = result.heard_at {
            let (_, up) = self.last_down;
            if result.peers_sent == Some(0) && (self.is_down() || heard_at < up) {
                // It waited for a reply while the uplink was down: it is asked again.
                result.peers_sent = None;
            }
            if result.version.is_some() && !is_reference {
                self.remember(result.target.address(), heard_at);
            }
            self.note_arrival(heard_at, now);
        }
        if is_reference {
            return self.reference_ended(result.target.address(), now);
        }
        match self.state {
            _ if !result.outcome.is_silence() => self.accepted.push_back(result),
            State::Down { .. } => self.put_back.push_back(result.target),
            State::Up | State::Suspected { .. } => {
                self.held.push_back((now, result));
                // Probes of dead addresses that started together end together: that alone is no
                // run.
                let is_run = self.held.len() >= self.alarm && self.arrivals.is_silent(now);
                if self.state == State::Up && is_run {
                    self.suspect(now, rng);
                }
            }
        }
    }

    /// Handles a granted target to which the kernel has no route.
    pub fn handle_unroutable(&mut self, target: Target, now: Duration, rng: &mut fastrand::Rng) {
        if target.is_reference() {
            return self.reference_ended(target.address(), now);
        }
        self.unroutable.push(target);
        if matches!(self.state, State::Down { .. }) {
            self.put_back.extend(self.unroutable.drain(..));
        } else if self.unroutable.len() >= UNROUTABLE_THRESHOLD {
            self.choose_references(now, rng);
            self.go_down(UplinkEvent::Unroutable, now);
        }
    }

    /// Handles a granted target to which the kernel has a route. Returns how many before it had
    /// none: only rules or routes of this host forbid those.
    pub fn handle_routable(&mut self) -> u64 {
        self.unroutable.drain(..).count() as u64
    }

    /// Handles a reference node that was not dialled for lack of descriptors or ports: it is still
    /// to be probed.
    pub fn handle_reference_undialed(&mut self, address: Address) {
        if self.waiting.remove(&address) && matches!(self.state, State::Suspected { .. }) {
            self.references.push(address);
        }
    }

    /// Handles a reference node that must not be probed any more: it counts as silent.
    pub fn handle_unasked(&mut self, address: Address, now: Duration) {
        self.reference_ended(address, now);
    }

    /// Judges the last results of a pass that has nothing else left.
    pub fn question(&mut self, now: Duration, rng: &mut fastrand::Rng) {
        let matters = self.held.iter().any(|(_, result)| result.target.is_up());
        if self.state != State::Up {
            return;
        }
        if matters || self.held.len() >= END_OF_PASS_THRESHOLD {
            self.suspect(now, rng);
        } else {
            self.accept_held(Duration::MAX);
        }
    }

    /// Stops: targets of doubtful results stay due for the next start.
    pub fn handle_stop(&mut self) {
        if self.state == State::Up {
            self.accept_held(Duration::MAX);
        }
        self.forget();
    }

    /// Drops what is held and all reference nodes: they belong to another address book.
    pub fn forget(&mut self) {
        self.held.clear();
        self.loaded.clear();
        self.offered = 0;
        self.unroutable.clear();
        self.put_back.clear();
        self.references.clear();
        self.next = 0;
        if matches!(self.state, State::Suspected { .. }) {
            self.state = State::Up;
        }
    }

    /// Returns the next reference node to probe during a suspicion.
    pub fn poll_reference(&mut self) -> Option<Address> {
        if !matches!(self.state, State::Suspected { .. }) {
            return None;
        }
        let address = *self.references.get(self.next)?;
        self.next += 1;
        self.waiting.insert(address);
        Some(address)
    }

    /// Returns the next reference node to try while the uplink is down; every other time none,
    /// since all of them may have gone meanwhile.
    pub fn poll_trickle(&mut self) -> Option<Address> {
        self.next = self.next.wrapping_add(1);
        let turn = self.next / 2;
        let references = self.references.len().max(1);
        let address =
            self.references.get(turn % references).filter(|_| self.next.is_multiple_of(2));
        address.copied()
    }

    /// Returns the next result that can be trusted.
    pub fn poll_accepted(&mut self) -> Option<ProbeResult> {
        self.accepted.pop_front()
    }

    /// Returns the next target whose result does not count: it is probed again.
    pub fn poll_put_back(&mut self) -> Option<Target> {
        self.put_back.pop_front()
    }

    /// Returns the next event for the operator.
    pub fn poll_event(&mut self) -> Option<UplinkEvent> {
        self.events.pop_front()
    }

    /// Whether results wait for a verdict.
    pub fn is_holding(&self) -> bool {
        !self.held.is_empty()
    }

    /// Whether the bound of held results is reached.
    pub fn is_full(&self) -> bool {
        self.held.len() >= MAX_HELD_RESULTS
    }

    /// Whether reference nodes wait to be probed.
    pub fn has_reference_to_probe(&self) -> bool {
        matches!(self.state, State::Suspected { .. }) && self.next < self.references.len()
    }

    /// Whether the uplink is considered down.
    pub fn is_down(&self) -> bool {
        matches!(self.state, State::Down { .. })
    }

    /// Notes that something arrived at `at`.
    fn note_arrival(&mut self, at: Duration, now: Duration) {
        self.arrivals.insert(at);
        match self.state {
            State::Suspected { since } if at > since => {
                self.state = State::Up;
                self.alarm = (self.alarm * 2).min(MAX_ALARM_THRESHOLD);
            }
            State::Down { since } if at > since => {
                self.state = State::Up;
                self.alarm = MIN_ALARM_THRESHOLD;
                self.last_down = (since, now);
                let after = now.saturating_sub(since);
                self.events.push_back(UplinkEvent::Up { after });
            }
            State::Up | State::Suspected { .. } | State::Down { .. } => {}
        }
        self.accept_held(at);
    }

    /// Accepts the results that ended up to `end`, except doubtful ones.
    fn accept_held(&mut self, end: Duration) {
        while self.held.front().is_some_and(|(ended, _)| *ended <= end) {
            let (ended, result) = self.held.pop_front().expect("it was looked at");
            let target = result.target;
            let (down, up) = self.last_down;
            if result.dialled_at < up && ended > down {
                // It started during the outage, or before it, and could not end otherwise.
                self.put_back.push_back(target);
                continue;
            }
            let is_doubtful = target.is_up() && self.arrivals.has_gap(result.dialled_at, ended);
            match target.retried().filter(|_| is_doubtful) {
                Some(again) => self.put_back.push_back(again),
                None => self.accepted.push_back(result),
            }
        }
    }

    fn suspect(&mut self, now: Duration, rng: &mut fastrand::Rng) {
        self.choose_references(now, rng);
        if self.references.len() < MIN_REFERENCES {
            // No verdict is possible. A node marked down too soon is better than a crawl that
            // stands still.
            return self.accept_held(Duration::MAX);
        }
        self.next = 0;
        self.waiting.clear();
        self.state = State::Suspected { since: now };
    }

    /// Chooses nodes of the last hour, those that have not just failed first. If they are too few,
    /// older ones and nodes that are up by the database follow: an unneeded probe is better than an
    /// outage that is not noticed.
    fn choose_references(&mut self, now: Duration, rng: &mut fastrand::Rng) {
        let failed: BTreeSet<Address> =
            self.held.iter().map(|(_, result)| result.target.address()).collect();
        self.chosen.retain(|(at, _)| now < *at + MIN_REFERENCE_INTERVAL);
        let oldest = now.saturating_sub(MAX_REFERENCE_AGE);
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
        // Among those of the hour only: a node that may be long gone does not replace one that just
        // answered.
        let is_rested = |address: &Address| !self.chosen.iter().any(|(_, other)| other == address);
        if chosen.iter().filter(|address| is_rested(address)).count() >= MIN_RESTED {
            chosen.retain(is_rested);
        }
        older.retain(|address| seen.insert(*address));
        chosen.append(&mut older);
        chosen.truncate(MAX_REFERENCES);
        self.chosen.extend(chosen.iter().map(|address| (now, *address)));
        self.references = chosen;
    }

    fn reference_ended(&mut self, address: Address, now: Duration) {
        let was_waited_for = self.waiting.remove(&address);
        let is_over = self.waiting.is_empty() && self.next >= self.references.len();
        let is_over = is_over && was_waited_for;
        if matches!(self.state, State::Suspected { .. }) && is_over {
            let references = self.references.len();
            self.go_down(UplinkEvent::Silent { references }, now);
        }
    }

    fn go_down(&mut self, why: UplinkEvent, now: Duration) {
        self.state = State::Down { since: now };
        self.events.push_back(why);
        let held = std::mem::take(&mut self.held);
        self.put_back.extend(held.into_iter().map(|(_, result)| result.target));
        self.put_back.extend(self.unroutable.drain(..));
    }

    fn remember(&mut self, address: Address, at: Duration) {
        let oldest = at.saturating_sub(MAX_REFERENCE_AGE);
        let stale = self.recent.partition_point(|(at, _)| *at < oldest);
        let is_few = self.recent.len() - stale < MIN_RECENT;
        let newest = self.recent.back().map(|(at, _)| *at + RECENT_INTERVAL);
        if is_few || newest.is_none_or(|next| at >= next) {
            self.recent.push_back((at, address));
        }
        if self.recent.len() > MAX_RECENT {
            self.recent.pop_front();
        }
        if self.recent.len() >= MAX_REFERENCES {
            self.loaded = Vec::new();
        }
    }
}

/// Times at which something arrived, over the last minutes.
#[derive(Debug, Default)]
struct Arrivals {
    /// Sorted; none closer than [`ARRIVAL_INTERVAL`] to the one before.
    times: VecDeque<Duration>,
}

impl Arrivals {
    fn insert(&mut self, at: Duration) {
        let place = self.times.partition_point(|time| *time <= at);
        let before = place.checked_sub(1).and_then(|place| self.times.get(place));
        let is_known = before.is_some_and(|before| at < *before + ARRIVAL_INTERVAL);
        if !is_known {
            self.times.insert(place, at);
        }
        if self.times.len() > MAX_ARRIVALS {
            self.times.pop_front();
        }
    }

    /// Whether nothing has arrived for [`MIN_GAP`].
    fn is_silent(&self, now: Duration) -> bool {
        self.times.back().is_none_or(|last| now >= *last + MIN_GAP)
    }

    /// Whether nothing arrived for [`MIN_GAP`] at some time between `from` and `to`.
    fn has_gap(&self, from: Duration, to: Duration) -> bool {
        let place = self.times.partition_point(|time| *time <= from);
        let mut last = from;
        for time in self.times.range(place..).copied().take_while(|time| *time < to) {
            if time >= last + MIN_GAP {
                return true;
            }
            last = time;
        }
        to >= last + MIN_GAP
    }
}

#[cfg(test)]
mod tests;
