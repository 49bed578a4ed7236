//! `UplinkMonitor`: tells a silent network from a dead uplink.
//!
//! Sans-I/O, driven by the `Crawler`, which passes in every result and takes out those that can be
//! trusted.
//!
//! ```text
//! Up ──a long run of silence, refusals, no routes──▶ Suspected ──no reference node answers──▶ Down
//! ▲                                                     │ an answer                   │ an answer
//! └─────────────────────────────────────────────────────┴─────────────────────────────┘
//! ```
//!
//! A wave of spam looks like a dead uplink, so a run of failures without any answer only raises
//! suspicion. Then up to eight nodes that responded lately, the reference nodes, get a
//! handshake-only probe; the uplink is down only if none of them sends its `version`. A result of
//! silence is held until something arrives that is newer than its end. This catches long outages.
//! An outage of seconds shows in the times: while a node that was up did not answer, nothing else
//! arrived either. Such a node is probed again.
//!
//! A router may answer for the whole network, with resets. So the refusal of a node that was up is
//! held until a `version` arrives that is newer. A kernel may have routes to a part of the network
//! only. So targets without a route are skipped while a reference node answers.
//!
//! Invariants: 1. a result of silence is released only after something newer arrived, where no
//! reference node is known, or as one of a few at the end of a pass; 2. every result comes out
//! once, as it is or as a target put back; 3. the number of results held is bounded by
//! [`MAX_HELD_RESULTS`] and the sockets; 4. a target is put back out of doubt at most three times a
//! pass; 5. while the uplink is down nothing is held.

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
/// Age at which a response no longer counts as one of the [`MIN_RECENT`].
const MAX_REFERENCE_AGE: Duration = Duration::from_secs(3_600);
/// Minimum time between two probes of a reference node, where [`MIN_RESTED`] others are known:
/// nodes ban for less. An answer proves for this long that the kernel has routes.
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
/// Length of a run of refusals without a `version` that raises suspicion, as a share of the length
/// of a run of silence.
const REFUSALS_DIVISOR: usize = 4;
/// Number of consecutive targets without a route that raises suspicion.
const UNROUTABLE_THRESHOLD: usize = 8;
/// Number of silent results at the end of a pass that raises suspicion.
const END_OF_PASS_THRESHOLD: usize = 512;
/// Number of nodes that were up and failed at the end of a pass that raises no suspicion.
const MAX_UNDOUBTED: usize = 5;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum State {
    Up,
    Suspected { since: Duration, cause: Cause },
    Down { since: Duration, cause: Cause },
}

/// What raised the suspicion. It decides what ends it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Cause {
    /// Nothing arrives: ended by anything that does.
    Silence,
    /// No node sends a `version`: ended by one.
    Refusals,
    /// The kernel has no route: ended by an answer to a later dial. What arrived on older
    /// connections may have waited in a buffer.
    Routes,
}

/// What the operator is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum UplinkEvent {
    /// It is down: all reference nodes are silent too.
    Silent {
        /// Number of reference nodes probed.
        references: usize,
    },
    /// It is down: every reference node refuses or is silent, as behind a router that answers for
    /// the whole network.
    Refusing {
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
    /// Nodes that were up and answered without a `version`, ordered by their ends.
    refused: VecDeque<(Duration, ProbeResult)>,
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
    /// Whether a reference node of the current suspicion answered without a `version`.
    has_refusing_reference: bool,
    /// Nodes chosen as reference nodes within [`MIN_REFERENCE_INTERVAL`], and when.
    chosen: Vec<(Duration, Address)>,
    /// The last targets granted, as far as the kernel has no route to them.
    unroutable: Vec<Target>,
    /// Until then targets without a route are skipped: others have one.
    routes_proven_until: Duration,
    /// Number of targets skipped since the last call of [`UplinkMonitor::take_skipped`].
    skipped: u64,
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
            refused: VecDeque::new(),
            alarm: MIN_ALARM_THRESHOLD,
            arrivals: Arrivals::default(),
            recent: VecDeque::new(),
            loaded: Vec::new(),
            offered: 0,
            references: Vec::new(),
            next: 0,
            waiting: BTreeSet::new(),
            has_refusing_reference: false,
            chosen: Vec::new(),
            unroutable: Vec::new(),
            routes_proven_until: Duration::ZERO,
            skipped: 0,
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
        let (target, is_reference) = (result.target, result.target.is_reference());
        let (has_version, is_silence) = (result.version.is_some(), result.outcome.is_silence());
        if !has_version && !is_silence && (is_reference || target.is_up()) {
            self.remove_reference(target.address());
        }
        if let Some(heard_at) = result.heard_at {
            let (_, up) = self.last_down;
            if result.peers_sent == Some(0) && (self.is_down() || heard_at < up) {
                // It waited for a reply while the uplink was down: it is asked again.
                result.peers_sent = None;
            }
            if has_version && !is_reference {
                self.remember(target.address(), heard_at);
            }
            if is_reference && !has_version && matches!(self.state, State::Suspected { .. }) {
                self.has_refusing_reference |= self.waiting.contains(&target.address());
            } else {
                self.note_arrival(heard_at, result.dialled_at, has_version, now);
            }
        }
        match self.state {
            _ if is_reference => self.reference_ended(target.address(), now),
            _ if has_version => self.accepted.push_back(result),
            State::Down { cause, .. }
                if is_silence || target.is_up() || cause == Cause::Refusals =>
            {
                self.put_back.push_back(target);
            }
            State::Up | State::Suspected { .. } if is_silence => {
                self.held.push_back((now, result));
                // Probes of dead addresses that started together end together: that alone is no
                // run.
                if self.held.len() >= self.alarm && self.arrivals.is_silent(now) {
                    self.suspect(Cause::Silence, now, rng);
                }
            }
            State::Suspected { cause, .. } if cause == Cause::Refusals || target.is_up() => {
                self.refused.push_back((now, result));
            }
            State::Up if target.is_up() => {
                self.refused.push_back((now, result));
                if self.refused.len() >= self.alarm / REFUSALS_DIVISOR {
                    self.suspect(Cause::Refusals, now, rng);
                }
            }
            State::Up | State::Suspected { .. } | State::Down { .. } => {
                self.accepted.push_back(result);
            }
        }
        self.check_invariants();
    }

    /// Handles a granted target to which the kernel has no route.
    pub fn handle_unroutable(&mut self, target: Target, now: Duration, rng: &mut fastrand::Rng) {
        match self.state {
            _ if target.is_reference() => self.reference_ended(target.address(), now),
            State::Down { .. } => self.put_back.push_back(target),
            State::Up if now < self.routes_proven_until => self.skipped += 1,
            State::Up | State::Suspected { .. } => {
                self.unroutable.push(target);
                if self.unroutable.len() >= UNROUTABLE_THRESHOLD {
                    self.suspect_routes(now, rng);
                }
            }
        }
        self.check_invariants();
    }

    /// Handles a granted target to which the kernel has a route: those before it that had none are
    /// skipped, unless a reference node decides it.
    pub fn handle_routable(&mut self) {
        if !matches!(self.state, State::Suspected { cause: Cause::Routes, .. }) {
            self.skipped += self.unroutable.drain(..).count() as u64;
        }
    }

    /// Returns how many targets were skipped since the last call: only rules or routes of this host
    /// forbid them.
    pub fn take_skipped(&mut self) -> u64 {
        std::mem::take(&mut self.skipped)
    }

    /// Handles a reference node that was not dialled for lack of descriptors or ports: it is still
    /// to be probed.
    pub fn handle_reference_undialed(&mut self, address: Address) {
        if self.waiting.remove(&address)
            && matches!(self.state, State::Suspected { .. })
            && let Some(place) = self.references.iter().position(|other| *other == address)
        {
            self.references.remove(place);
            self.references.push(address);
            self.next -= 1;
        }
        self.check_invariants();
    }

    /// Handles a reference node that must not be probed any more: it counts as silent.
    pub fn handle_unasked(&mut self, address: Address, now: Duration) {
        self.reference_ended(address, now);
        self.check_invariants();
    }

    /// Judges the last results of a pass that has nothing else left. A few failures are accepted as
    /// they are: waiting for a verdict would take longer than they are worth.
    pub fn question(&mut self, now: Duration, rng: &mut fastrand::Rng) {
        if self.state != State::Up {
            return;
        }
        let were_up = self.held.iter().filter(|(_, result)| result.target.is_up()).count();
        let is_doubtful = were_up + self.refused.len() > MAX_UNDOUBTED;
        if is_doubtful || self.held.len() >= END_OF_PASS_THRESHOLD {
            let is_refusing = !self.refused.is_empty();
            self.suspect(if is_refusing { Cause::Refusals } else { Cause::Silence }, now, rng);
        } else {
            self.accept_held(Duration::MAX, false);
            self.accept_refused(Duration::MAX);
        }
        self.check_invariants();
    }

    /// Stops: targets of doubtful results stay due for the next start.
    pub fn handle_stop(&mut self) {
        if self.state == State::Up {
            self.accept_held(Duration::MAX, true);
            self.accept_refused(Duration::MAX);
        }
        self.forget();
    }

    /// Drops what is held and all reference nodes: they belong to another address book.
    pub fn forget(&mut self) {
        self.held.clear();
        self.refused.clear();
        self.loaded.clear();
        self.offered = 0;
        self.unroutable.clear();
        self.put_back.clear();
        self.references.clear();
        self.waiting.clear();
        self.next = 0;
        if matches!(self.state, State::Suspected { .. }) {
            self.state = State::Up;
        }
        self.check_invariants();
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

    /// Whether results, or targets without a route, wait for a verdict.
    pub fn is_holding(&self) -> bool {
        let waits_for_routes = matches!(self.state, State::Suspected { cause: Cause::Routes, .. });
        !self.held.is_empty() || !self.refused.is_empty() || waits_for_routes
    }

    /// Whether the bound of held results is reached.
    pub fn is_full(&self) -> bool {
        self.held.len() + self.refused.len() + self.unroutable.len() >= MAX_HELD_RESULTS
    }

    /// Whether reference nodes wait to be probed.
    pub fn has_reference_to_probe(&self) -> bool {
        matches!(self.state, State::Suspected { .. }) && self.next < self.references.len()
    }

    /// Whether the uplink is considered down.
    pub fn is_down(&self) -> bool {
        matches!(self.state, State::Down { .. })
    }

    /// Notes that something arrived at `at` from a peer that was dialled at `dialled_at`.
    fn note_arrival(
        &mut self,
        at: Duration,
        dialled_at: Duration,
        has_version: bool,
        now: Duration,
    ) {
        self.arrivals.insert(at);
        let is_answer = |since: Duration, cause: Cause| match cause {
            Cause::Silence => at > since,
            Cause::Refusals => at > since && has_version,
            Cause::Routes => dialled_at >= since,
        };
        match self.state {
            State::Suspected { since, cause } if is_answer(since, cause) => {
                self.state = State::Up;
                if cause == Cause::Routes {
                    self.prove_routes(now);
                } else {
                    self.alarm = (self.alarm * 2).min(MAX_ALARM_THRESHOLD);
                }
            }
            State::Down { since, cause } if is_answer(since, cause) => {
                self.state = State::Up;
                self.alarm = MIN_ALARM_THRESHOLD;
                self.last_down = (since, now);
                let after = now.saturating_sub(since);
                self.events.push_back(UplinkEvent::Up { after });
            }
            State::Suspected { cause: Cause::Refusals, .. } => return,
            State::Up | State::Suspected { .. } | State::Down { .. } => {}
        }
        self.accept_held(at, true);
        if has_version {
            self.accept_refused(at);
        }
    }

    /// Accepts the results of silence that ended up to `end`, except doubtful ones.
    fn accept_held(&mut self, end: Duration, doubts_gaps: bool) {
        while self.held.front().is_some_and(|(ended, _)| *ended <= end) {
            let (ended, result) = self.held.pop_front().expect("it was looked at");
            let target = result.target;
            if self.was_down(&result, ended) {
                self.put_back.push_back(target);
                continue;
            }
            let is_gap = || self.arrivals.has_gap(result.dialled_at, ended);
            let is_doubtful = doubts_gaps && target.is_up() && is_gap();
            match target.retried().filter(|_| is_doubtful) {
                Some(again) => self.put_back.push_back(again),
                None => self.accepted.push_back(result),
            }
        }
    }

    /// Accepts the refusals that ended up to `end`.
    fn accept_refused(&mut self, end: Duration) {
        while self.refused.front().is_some_and(|(ended, _)| *ended <= end) {
            let (ended, result) = self.refused.pop_front().expect("it was looked at");
            if self.was_down(&result, ended) {
                self.put_back.push_back(result.target);
            } else {
                self.accepted.push_back(result);
            }
        }
    }

    /// Whether a probe started during the last outage, or before it, and could not end otherwise.
    fn was_down(&self, result: &ProbeResult, ended: Duration) -> bool {
        let (down, up) = self.last_down;
        result.dialled_at < up && ended > down
    }

    fn suspect(&mut self, cause: Cause, now: Duration, rng: &mut fastrand::Rng) {
        if self.state != State::Up {
            return;
        }
        self.choose_references(true, now, rng);
        if self.references.len() < MIN_REFERENCES {
            // No verdict is possible. A node marked down too soon is better than a crawl that
            // stands still.
            self.accept_held(Duration::MAX, true);
            return self.accept_refused(Duration::MAX);
        }
        self.begin_suspicion(cause, now);
    }

    /// Handles a run of targets without a route.
    // radicle-upstream#2676: where most of what is due has no route, the rest is reachable.
    fn suspect_routes(&mut self, now: Duration, rng: &mut fastrand::Rng) {
        if self.state != State::Up {
            return;
        }
        self.choose_references(false, now, rng);
        if !self.references.is_empty() {
            self.begin_suspicion(Cause::Routes, now);
        } else if self.arrivals.latest().is_some_and(|at| now < at + MIN_REFERENCE_INTERVAL) {
            // All reference nodes were asked a moment ago, and something answered.
            self.prove_routes(now);
        } else {
            self.choose_references(true, now, rng);
            self.go_down(Cause::Routes, now);
        }
    }

    fn begin_suspicion(&mut self, cause: Cause, now: Duration) {
        self.next = 0;
        self.waiting.clear();
        self.has_refusing_reference = false;
        self.state = State::Suspected { since: now, cause };
    }

    fn prove_routes(&mut self, now: Duration) {
        self.skipped += self.unroutable.drain(..).count() as u64;
        self.routes_proven_until = now + MIN_REFERENCE_INTERVAL;
    }

    /// Chooses the nodes that sent a `version` last, then nodes that are up by the database, and
    /// none that was chosen a moment ago or has just failed. If they are too few and `may_repeat`,
    /// those follow: an unneeded probe is better than an outage that is not noticed.
    fn choose_references(&mut self, may_repeat: bool, now: Duration, rng: &mut fastrand::Rng) {
        self.chosen.retain(|(at, _)| now < *at + MIN_REFERENCE_INTERVAL);
        rng.shuffle(&mut self.loaded);
        let failed: BTreeSet<Address> = self
            .held
            .iter()
            .chain(&self.refused)
            .map(|(_, result)| result.target.address())
            .collect();
        let probed: BTreeSet<Address> = self.chosen.iter().map(|(_, address)| *address).collect();
        let refused = self.refused.iter().map(|(_, result)| result.target.address());
        let known = self.recent.iter().rev().map(|(_, address)| *address);
        let known = known.chain(self.loaded.iter().copied()).chain(refused);
        let mut seen = BTreeSet::new();
        let known: Vec<Address> = known.filter(|address| seen.insert(*address)).collect();
        let is_rested = |address: &Address| !failed.contains(address) && !probed.contains(address);
        let (mut chosen, mut others): (Vec<Address>, Vec<Address>) =
            known.into_iter().partition(is_rested);
        if may_repeat && chosen.len() < MIN_RESTED {
            others.sort_by_key(|address| failed.contains(address));
            chosen.append(&mut others);
        }
        chosen.truncate(MAX_REFERENCES);
        self.chosen.extend(chosen.iter().map(|address| (now, *address)));
        self.references = chosen;
    }

    fn reference_ended(&mut self, address: Address, now: Duration) {
        let was_waited_for = self.waiting.remove(&address);
        let is_over = self.waiting.is_empty() && self.next >= self.references.len();
        let State::Suspected { cause, .. } = self.state else { return };
        if was_waited_for && is_over {
            // clboss#346: a router that refuses in the name of all nodes.
            self.go_down(if self.has_refusing_reference { Cause::Refusals } else { cause }, now);
        }
    }

    fn go_down(&mut self, cause: Cause, now: Duration) {
        self.state = State::Down { since: now, cause };
        let references = self.references.len();
        self.events.push_back(match cause {
            Cause::Silence => UplinkEvent::Silent { references },
            Cause::Refusals => UplinkEvent::Refusing { references },
            Cause::Routes => UplinkEvent::Unroutable,
        });
        let held = self.held.drain(..).chain(self.refused.drain(..));
        self.put_back.extend(held.map(|(_, result)| result.target));
        self.put_back.extend(self.unroutable.drain(..));
    }

    /// Removes a node that answered without a `version`.
    fn remove_reference(&mut self, address: Address) {
        self.recent.retain(|(_, other)| *other != address);
        self.loaded.retain(|other| *other != address);
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

impl UplinkMonitor {
    fn check_invariants(&self) {
        if !cfg!(debug_assertions) {
            return;
        }
        for held in [&self.held, &self.refused] {
            let mut last_two = held.iter().rev().map(|(ended, _)| *ended);
            let (last, before) = (last_two.next(), last_two.next());
            debug_assert!(before <= last, "held results are out of order");
        }
        let is_down = matches!(self.state, State::Down { .. });
        let is_holding = !self.held.is_empty() || !self.refused.is_empty();
        debug_assert!(!is_down || !is_holding, "5. a result is held while the uplink is down");
        debug_assert!(!is_down || self.unroutable.is_empty(), "5. a target is held while down");
        debug_assert!(self.references.len() <= MAX_REFERENCES, "too many reference nodes");
        debug_assert!(self.recent.len() <= MAX_RECENT && self.loaded.len() <= MAX_RECENT);
        if matches!(self.state, State::Suspected { .. }) {
            debug_assert!(self.next <= self.references.len(), "a reference node is skipped");
            let is_undecided = !self.waiting.is_empty() || self.next < self.references.len();
            debug_assert!(is_undecided, "no reference node is left to end the suspicion");
            let is_asked = |address| self.references.contains(address);
            debug_assert!(
                self.waiting.iter().all(is_asked),
                "it waits for a former reference node"
            );
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

    fn latest(&self) -> Option<Duration> {
        self.times.back().copied()
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
