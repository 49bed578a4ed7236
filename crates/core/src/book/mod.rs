//! `AddressBook`: every known address, and when it is due.
//!
//! Sans-I/O, driven by the recorder. Whether an address is new is decided here, in memory, so that
//! peers return to the crawl at once, and the crawl continues while the database is down.
//!
//! Invariants:
//! 1. An address is handed out at most once per pass.
//! 2. A node is never evicted to make room.
//! 3. Every node is in the table, and at most that many nodes are up.
//! 4. A candidate within its source's quota that is due for as long as its back-off was, or for
//!    [`MAX_FRESH_CARRY_SECS`] if it was never probed, is not carried over.

pub mod backoff;
mod clock;
mod evict;
pub mod rank;
pub mod sources;
pub mod table;

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::quality::FixedState;

use crate::book::backoff::{BackoffParams, delay, spread};
use crate::record::messages::Waits;
use crate::vocabulary::address::Address;
use crate::vocabulary::clock_jump::CLOCK_STEP_THRESHOLD;
use crate::vocabulary::filter::Filter;
use crate::vocabulary::outcome::Outcome;
use crate::vocabulary::rows::{Known, KnownNode, SourceRow, Status};
use crate::vocabulary::target::Target;
use crate::vocabulary::time::UnixTime;
use rank::{Pick, RankingParams, Ranks};
use sources::{IMPORTS, Sources};
use table::{Entry, MAX_EPOCH, SHARDS, Table};

/// Settings of the address book.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BookParams {
    /// The keys `backoff.*`.
    pub backoff: BackoffParams,
    /// The key `crawl.getaddr_interval`.
    pub getaddr_interval: Duration,
    /// The key `crawl.max_addresses`.
    pub max_addresses: usize,
    /// The parts of the ranking that are in use.
    pub ranking: RankingParams,
}

/// `getaddr_interval` of TRB at most: it sends only addresses seen within the last 3 hours.
const TRB_GETADDR_INTERVAL: Duration = Duration::from_secs(3 * 3_600);
/// `getaddr_interval` at most of software that composes a new reply for each `getaddr`.
const FRESH_GETADDR_INTERVAL: Duration = Duration::from_secs(3 * 3_600);
/// Bitcoin Core replaces its cached reply between these times (net.cpp, `GetAddresses`: 21 to 27
/// hours); half of the nodes have done so after the mean.
const MEAN_CACHE_TIME: Duration = Duration::from_secs(24 * 3_600);
const MAX_CACHE_TIME: Duration = Duration::from_secs(27 * 3_600);
/// Minimum time between two `getaddr` to a node that caches, as a share of `getaddr_interval`.
const MIN_GETADDR_SHARE: u32 = 8;
/// `getaddr_interval` of a node that sent nothing at most: it may know more soon.
const EMPTY_GETADDR_INTERVAL: Duration = Duration::from_secs(6 * 3_600);
/// Minimum time between probes of a node that responded: Bitcoin Unlimited bans for more.
const MIN_PROBE_INTERVAL: Duration = Duration::from_secs(60);
/// A node that closes the connection counts as full for this long after its last response.
const FULL_STATUS_TIMEOUT: Duration = Duration::from_secs(7 * 86_400);
/// Minimum time between writes of `last_heard`: most of the six million entries per pass are known.
const MIN_LAST_HEARD_INTERVAL_SECS: u32 = 86_400;

/// Maximum number of ports stored per IP.
const MAX_PORTS_PER_IP: usize = 16;
/// Maximum number of ports of other services among them.
const MAX_AVOIDED_PORTS_PER_IP: usize = 2;
/// Source quotas are not enforced until this many nodes are known.
const QUOTA_NODES_THRESHOLD: usize = 100;
/// A candidate that no source has named for this long is deleted, as Bitcoin Core does.
const MAX_UNHEARD_SECS: u32 = 30 * 86_400;
/// A node that has been silent for this long is dropped from memory; the database keeps it.
const MAX_NODE_SILENCE: Duration = Duration::from_secs(180 * 86_400);
/// Candidates are not carried over to a later pass unless this many more wait.
const MIN_CARRIED: usize = 10_000;
/// A pass that finds more nodes than were known carries none over until it is this old: nodes that
/// few others know stand in poor cells.
const MIN_FIRST_PASS_SECS: u32 = 8 * 60;
/// A candidate that was never probed is carried over for this long at most.
pub const MAX_FRESH_CARRY_SECS: u32 = 12 * 3_600;
/// Minimum time between searches for expired addresses.
const FORGET_INTERVAL_SECS: u32 = 86_400;

/// The effect of [`AddressBook::hear`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// The address was unknown.
    pub is_new: bool,
    /// To be written to the database: it is new or newly confirmed, or `last_heard` is a day old.
    pub wants_row: bool,
    /// The /16 of the only source that named it; 0 if confirmed.
    pub only_source: u16,
    /// From now on it waits to be probed in this pass.
    pub waits: bool,
}

/// Where an address comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The nodes file: the operator vouches for it.
    NodesFile,
    /// A list that the operator imported: it adds addresses and changes none.
    Import,
    /// An `addr` message.
    Node {
        /// The /16 of the sender.
        group: u16,
        /// Whether the sender claims to have seen the address last a long time ago.
        is_stale: bool,
        /// When it was last seen, as the sender claims, in seconds since 1970.
        seen: u32,
    },
}

/// The effect of [`AddressBook::record`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Whether the address is a node now.
    pub is_node: bool,
    /// Whether it became one with this result.
    pub is_new_node: bool,
    /// Consecutive failures.
    pub failures: u32,
    /// When it is due again.
    pub next_probe: UnixTime,
    /// Its status, if it is a node.
    pub status: Status,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    known: KnownNode,
    failures: u32,
    /// Whether its software composes a new reply for each `getaddr`.
    caches_no_reply: bool,
    /// When its last reply was composed, as the times in it suggest.
    composed_at: Option<UnixTime>,
}

impl Node {
    fn new(known: KnownNode, failures: u32) -> Self {
        Self { known, failures, caches_no_reply: false, composed_at: None }
    }
}

/// All known addresses; see the module.
#[derive(Debug)]
pub struct AddressBook {
    table: Table,
    nodes: BTreeMap<Address, Node>,
    jitter: FixedState,
    params: BookParams,
    /// Number of the pass of this process, from 1; it starts over before [`MAX_EPOCH`].
    epoch: u16,
    pass_started: u32,
    /// Whether nodes were handed out and the candidates that are due wait.
    has_begun: bool,
    /// Number of candidates that wait.
    waiting: usize,
    ranks: Ranks,
    /// Candidates of poor cells are carried over when this many wait.
    carries_at: usize,
    /// Number of nodes when the pass began.
    known_before: usize,
    /// Whether a likely candidate was listed when the last ones were handed out.
    has_likely: bool,
    rng: fastrand::Rng,
    /// The next shard of candidates over their source's quota.
    over_quota_cursor: usize,
    /// Number of candidates deferred in this pass because their source exceeded its quota.
    deferred: u64,
    sources: Sources,
    forgotten_at: u32,
    evictions: u64,
    /// Number of entries when nothing more could be evicted; 0 if there was room.
    full_at: usize,
    prefetched: u32,
    up: usize,
}

impl AddressBook {
    /// Creates an empty book.
    pub fn new(params: BookParams, seed: u64) -> Self {
        let jitter = FixedState::with_seed(seed ^ 0x6a69_7474_6572);
        let mut ranks = Ranks::default();
        ranks.set_params(params.ranking);
        Self {
            table: Table::new(seed),
            nodes: BTreeMap::new(),
            jitter,
            params,
            epoch: 1,
            pass_started: 0,
            has_begun: true,
            waiting: 0,
            ranks,
            carries_at: MIN_CARRIED,
            known_before: 0,
            has_likely: false,
            rng: fastrand::Rng::with_seed(seed ^ 0x7261_6e6b),
            over_quota_cursor: SHARDS,
            deferred: 0,
            sources: Sources::default(),
            forgotten_at: 0,
            evictions: 0,
            full_at: 0,
            prefetched: 0,
            up: 0,
        }
    }

    /// Its settings.
    pub fn params(&self) -> BookParams {
        self.params
    }

    /// Replaces its settings.
    pub fn set_params(&mut self, params: BookParams) {
        self.params = params;
        self.ranks.set_params(params.ranking);
        self.full_at = 0;
    }

    /// Loads an address from the database.
    pub fn load(&mut self, known: &Known, is_admitted: bool) {
        if known.node.is_none()
            && known.address.has_avoided_port()
            && self.has_enough_ports(known.address)
        {
            // Stored by an earlier version. Not renewed, it expires in the database too.
            return;
        }
        let mut entry = Entry::new(known.address);
        entry.next_probe = ceil_secs(known.next_probe);
        entry.last_heard = secs(known.last_heard);
        entry.failures = u8::try_from(known.failures).unwrap_or(u8::MAX);
        entry.source = known.source;
        if known.source == 0 {
            entry.set_confirmed();
        }
        match known.last_outcome {
            Some(outcome) => entry.set_result(outcome, known.last_probed.map_or(0, secs)),
            None => entry.vote(self.kind(known.source), entry.last_heard),
        }
        if let Some(node) = known.node {
            entry.set_node();
            let node = Node::new(node, known.failures);
            if self.nodes.insert(known.address, node).is_none() {
                // A node that is now excluded must not prevent the use of seeds.
                let is_up = is_admitted && known.last_outcome == Some(Outcome::Responded);
                self.up += usize::from(is_up);
            }
        }
        self.table.insert(entry);
    }

    /// Loads a source from the database.
    pub fn load_source(&mut self, group: u16, row: SourceRow) {
        self.sources.load(group, row);
    }

    /// Sets when addresses may expire next, at the earliest.
    pub fn set_forgets_from(&mut self, at: UnixTime) {
        self.forgotten_at = secs(at).saturating_sub(FORGET_INTERVAL_SECS);
    }

    /// Begins a pass; afterwards [`AddressBook::poll_due`] hands out the addresses that are due.
    pub fn start_pass(&mut self, started_at: UnixTime) {
        // 0 is that of entries which were never handed out.
        self.epoch = self.epoch % (MAX_EPOCH - 1) + 1;
        self.pass_started = secs(started_at);
        self.has_begun = false;
        self.waiting = 0;
        self.ranks.clear();
        self.carries_at = MIN_CARRIED;
        self.known_before = self.nodes.len();
        self.over_quota_cursor = 0;
        self.deferred = 0;
        self.full_at = 0;
        let age = i64::from(self.pass_started) - i64::from(self.forgotten_at);
        // A time far ahead was stored by a clock that ran ahead.
        if age.unsigned_abs() >= u64::from(FORGET_INTERVAL_SECS) {
            self.forget(started_at);
        }
        self.check_invariants();
    }

    /// Deletes candidates that no source names any more and nodes that have long been silent.
    fn forget(&mut self, now: UnixTime) {
        self.forgotten_at = secs(now);
        // Relative to the newest known time: neither a clock ahead nor a long downtime empties the
        // book.
        let newest = self.table.iter().map(|entry| entry.last_heard).max().unwrap_or(0);
        let seen = self.nodes.values().map(|node| node.known.last_seen).max().unwrap_or_default();
        let nodes_before = now.min(seen).minus(MAX_NODE_SILENCE);
        let heard_before = secs(now).min(newest).saturating_sub(MAX_UNHEARD_SECS);
        let mut up = self.up;
        let table = &self.table;
        self.nodes.retain(|address, node| {
            let stays = node.known.last_seen >= nodes_before;
            let was_up =
                table.get(*address).and_then(Entry::last_outcome) == Some(Outcome::Responded);
            up = up.saturating_sub(usize::from(!stays && was_up));
            stays
        });
        self.up = up;
        let nodes = &self.nodes;
        self.table.retain(|entry| {
            let is_recent = entry.last_heard >= heard_before;
            if entry.is_node() { nodes.contains_key(&entry.address()) } else { is_recent }
        });
    }

    /// Number of addresses that are due in this pass and admitted by `filter`.
    pub fn count_due(&self, filter: &Filter) -> u64 {
        let due = |e: &&Entry| e.is_due(self.pass_started) && filter.admits(e.address());
        self.table.iter().filter(due).count() as u64
    }

    /// Hands out an address, due or not, unless this pass has handed it out already.
    pub fn hand_out(&mut self, address: Address, now: UnixTime) -> Option<Target> {
        let epoch = self.epoch;
        let entry = self.table.get_mut(address)?;
        if entry.is_handed_out(epoch) {
            return None;
        }
        self.waiting -= usize::from(entry.is_waiting(epoch));
        entry.set_handed_out(epoch);
        Some(self.target(address, now))
    }

    /// Whether the address was probed since the pass began, for named nodes of a resumed pass.
    pub fn was_probed_in_pass(&self, address: Address) -> bool {
        self.table.get(address).is_some_and(|entry| entry.last_probed() >= self.pass_started.max(1))
    }

    /// Hands out the nodes that are due, at the first call of a pass, and the next few candidates.
    /// Returns `true` at the end; only candidates over their source's quota are left then.
    pub fn poll_due(&mut self, filter: &Filter, now: UnixTime, due: &mut Vec<Target>) -> bool {
        if !std::mem::replace(&mut self.has_begun, true) {
            self.begin_handing_out(filter, now, due);
        }
        let (epoch, started) = (self.epoch, self.pass_started);
        let mut left = MAX_CANDIDATE_CHUNK;
        if self.waiting > self.carries_at && self.may_carry_over(now) && self.ranks.has_only_poor()
        {
            self.carry_over();
        }
        while left > 0 && self.waiting > 0 {
            match self.ranks.pop(&mut self.rng) {
                Pick::Candidate { cell, address } => {
                    let Some(entry) = self.table.get_mut(Address::from_bits(address)) else {
                        continue;
                    };
                    // It may have moved to a better cell, or been handed out as a named node.
                    if entry.is_waiting(epoch) && entry.cell(started) == cell {
                        entry.set_handed_out(epoch);
                        self.waiting -= 1;
                        left -= 1;
                        due.push(candidate(entry));
                    }
                }
                Pick::Refill | Pick::None => self.refill_ranks(),
            }
        }
        self.has_likely = self.ranks.has_likely();
        self.check_invariants();
        self.waiting == 0
    }

    /// Hands out the nodes that are due, and lets the candidates wait, except for those over their
    /// source's quota.
    fn begin_handing_out(&mut self, filter: &Filter, now: UnixTime, due: &mut Vec<Target>) {
        let (epoch, started) = (self.epoch, self.pass_started);
        let void_after = secs(now.plus(CLOCK_STEP_THRESHOLD));
        let is_due = |entry: &Entry| {
            // A probe in the future comes from a clock that ran ahead: its back-off is void.
            let is_time = entry.is_due(started) || entry.last_probed() > void_after;
            !entry.is_handed_out(epoch) && is_time && filter.admits(entry.address())
        };
        let nodes: Vec<Address> = self.nodes.keys().copied().collect();
        for address in nodes {
            if self.table.get(address).is_some_and(is_due) {
                due.extend(self.hand_out(address, now));
            }
        }
        let ignores_quotas = self.nodes.len() < QUOTA_NODES_THRESHOLD;
        for shard in 0..SHARDS {
            for entry in self.table.shard_mut(shard) {
                if entry.is_node() || entry.is_waiting(epoch) || !is_due(entry) {
                    continue;
                }
                // One failed probe does not vouch for an address of a poor source.
                let is_trusted = entry.is_confirmed() || ignores_quotas;
                let is_invented =
                    !is_trusted && entry.is_probed() && self.sources.is_poor(entry.source);
                let is_proven = is_trusted || (entry.is_probed() && !is_invented);
                if is_proven || self.sources.admit(entry.source, epoch) {
                    entry.set_waiting(epoch);
                    self.waiting += 1;
                } else {
                    entry.set_idle();
                    self.deferred += 1;
                }
            }
        }
        self.refill_ranks();
    }

    fn may_carry_over(&self, now: UnixTime) -> bool {
        let is_first = self.nodes.len() > 2 * self.known_before;
        !is_first || secs(now).saturating_sub(self.pass_started) >= MIN_FIRST_PASS_SECS
    }

    /// Lets the candidates of poor cells wait for a later pass, or for the deferred ones' share of
    /// this one, but for those that have waited long enough.
    fn carry_over(&mut self) {
        if self.params.ranking.carries_over {
            let (epoch, started) = (self.epoch, self.pass_started);
            let (ranks, jitter) = (&self.ranks, &self.jitter);
            let mut carried = 0;
            for entry in self.table.iter_mut().filter(|entry| entry.is_waiting(epoch)) {
                let place = jitter.hash_one(entry.address().to_bits()) >> 32;
                let may_wait = (u64::from(entry.max_carry()) * place) >> 32;
                let has_waited = u64::from(started.saturating_sub(entry.next_probe)) >= may_wait;
                if ranks.is_poor(entry.cell(started)) && !has_waited {
                    entry.set_carried();
                    carried += 1;
                }
            }
            self.waiting -= carried;
            self.deferred += carried as u64;
            self.refill_ranks();
        }
        self.carries_at = self.waiting + MIN_CARRIED;
    }

    /// Lists the candidates that wait, as far as there is room.
    fn refill_ranks(&mut self) {
        self.ranks.clear();
        let (epoch, started) = (self.epoch, self.pass_started);
        // From a random shard on, so that all candidates of a crowded cell have a chance.
        let first = self.rng.usize(..SHARDS);
        for shard in (first..SHARDS).chain(0..first) {
            for entry in self.table.shard_mut(shard) {
                if entry.is_waiting(epoch) {
                    self.ranks.push(entry.cell(started), entry.address().to_bits());
                }
            }
        }
    }

    /// The candidates that wait in this pass.
    pub fn waits(&self) -> Waits {
        let has_likely = self.waiting > 0 && self.has_likely;
        Waits { candidates: self.waiting as u64, has_likely, deferred: self.deferred() }
    }

    /// What was learned of the cells of candidates.
    pub fn ranks(&self) -> &Ranks {
        &self.ranks
    }

    /// Restores what was learned of the cells by a former process.
    pub fn load_learned(&mut self, learned: &[i32]) {
        self.ranks.restore(learned);
    }

    /// Hands out a chunk of the deferred candidates.
    pub fn poll_over_quota(&mut self, filter: &Filter, due: &mut Vec<Target>) {
        let (epoch, started) = (self.epoch, self.pass_started);
        while self.over_quota_cursor < SHARDS && due.len() < MIN_DUE_CHUNK {
            for entry in self.table.shard_mut(self.over_quota_cursor) {
                let is_free = !entry.is_handed_out(epoch) && !entry.is_waiting(epoch);
                let is_deferred = !entry.is_node() && is_free && entry.is_due(started);
                if is_deferred && filter.admits(entry.address()) {
                    entry.set_handed_out(epoch);
                    due.push(candidate(entry).over_quota());
                }
            }
            self.over_quota_cursor += 1;
        }
        self.check_invariants();
    }

    /// Number of candidates deferred in this pass, or a few more: some may have been handed out
    /// since. 0 once [`AddressBook::poll_over_quota`] has reached the end.
    pub fn deferred(&self) -> u64 {
        if self.over_quota_cursor < SHARDS { self.deferred } else { 0 }
    }

    /// Prefetches the table slots of these addresses, so that the cache misses overlap.
    pub fn prefetch(&mut self, addresses: impl Iterator<Item = Address>) {
        let touched = addresses.map(|address| self.table.touch(address));
        // The sum is unused, but keeps the reads from being optimised away.
        self.prefetched = touched.fold(0, u32::wrapping_add);
    }

    /// Handles that `source` names an address.
    pub fn hear(&mut self, address: Address, source: Source, now: UnixTime) -> Heard {
        let wall = secs(now);
        let (group, is_stale, seen) = match source {
            Source::NodesFile => (0, false, wall),
            Source::Import => (IMPORTS, false, wall),
            Source::Node { group, is_stale, seen } => (group, is_stale, seen),
        };
        let (epoch, started) = (self.epoch, self.pass_started);
        let may_vote = !is_stale && source != Source::Import;
        let vote = if may_vote { self.vote_of(group) } else { None };
        if let Some(entry) = self.table.get_mut(address) {
            if source == Source::Import {
                let only_source = only_source(entry);
                return Heard { is_new: false, wants_row: false, only_source, waits: false };
            }
            // `abs_diff`: a clock that jumped back must not suppress rows for years.
            let mut wants_row =
                !is_stale && wall.abs_diff(entry.last_heard) >= MIN_LAST_HEARD_INTERVAL_SECS;
            let was_waiting = entry.is_waiting(epoch);
            let former_cell = was_waiting.then(|| entry.cell(started));
            let is_unconfirmed = !entry.is_node() && !entry.is_confirmed();
            if is_unconfirmed && entry.source != group && !is_stale && !self.sources.is_poor(group)
            {
                wants_row = true;
                if entry.is_probed() {
                    self.sources.credit(entry.source);
                } else if !was_waiting && !entry.is_handed_out(epoch) {
                    entry.set_waiting(epoch);
                    self.waiting += 1;
                }
                entry.set_confirmed();
            }
            if let Some(kind) = vote {
                entry.vote(kind, seen);
            }
            if entry.is_carried() && !self.ranks.is_poor(entry.cell(started)) {
                entry.set_waiting(epoch);
                self.waiting += 1;
            }
            if entry.is_waiting(epoch) && former_cell != Some(entry.cell(started)) {
                self.ranks.push(entry.cell(started), address.to_bits());
            }
            if wants_row {
                entry.last_heard = wall;
            }
            let waits = entry.is_waiting(epoch) && !was_waiting;
            return Heard { is_new: false, wants_row, only_source: only_source(entry), waits };
        }
        if source != Source::NodesFile && self.has_enough_ports(address) {
            return Heard { is_new: false, wants_row: false, only_source: group, waits: false };
        }
        let mut entry = Entry::new(address);
        (entry.last_heard, entry.next_probe, entry.source) = (wall, started, group);
        if source == Source::NodesFile {
            entry.set_confirmed();
        }
        vote.into_iter().for_each(|kind| entry.vote(kind, seen));
        let is_trusted = source == Source::NodesFile || self.nodes.len() < QUOTA_NODES_THRESHOLD;
        let waits = !is_stale && (is_trusted || self.sources.admit(group, epoch));
        if waits {
            entry.set_waiting(epoch);
            self.waiting += 1;
            self.ranks.push(entry.cell(started), address.to_bits());
        } else {
            self.deferred += 1;
        }
        self.table.insert(entry);
        self.check_invariants();
        Heard { is_new: true, wants_row: true, only_source: only_source(&entry), waits }
    }

    /// The kind of a source, if one more of its words counts in this pass.
    fn vote_of(&mut self, group: u16) -> Option<u32> {
        let ranking = self.params.ranking;
        let may_vote = !ranking.rations_votes || self.sources.may_vote(group, self.epoch);
        may_vote.then(|| if ranking.counts_votes { self.kind(group) } else { 0 })
    }

    /// The kind of a source, from 0 to 15.
    fn kind(&self, group: u16) -> u32 {
        (self.jitter.hash_one(group) >> 60) as u32
    }

    /// Whether no further port of this IP is stored: a host that answers on every port is one host,
    /// and a flood of ports of other services is an attempt to have them dialled.
    fn has_enough_ports(&self, address: Address) -> bool {
        let avoided = || self.table.same_ip(address).filter(|other| other.has_avoided_port());
        self.table.same_ip(address).count() >= MAX_PORTS_PER_IP
            || (address.has_avoided_port() && avoided().count() >= MAX_AVOIDED_PORTS_PER_IP)
    }

    /// Evicts the worst candidates if there are more than `max_addresses`, and returns them.
    pub fn evict(&mut self, now: UnixTime) -> Vec<Address> {
        let bound = self.params.max_addresses;
        if self.table.len() <= bound.max(self.full_at) {
            return Vec::new();
        }
        // A fiftieth more than needed, so that not every new address walks the table.
        let surplus = self.table.len() - bound + bound / 50;
        self.evictions += 1;
        let (epoch, salt) = (self.epoch, self.evictions);
        let gone =
            evict::evict_worst(&mut self.table, &self.sources, epoch, surplus, secs(now), salt);
        // If this pass alone fills the book, little can be evicted: do not retry for every result.
        self.waiting = self.table.iter().filter(|entry| entry.is_waiting(epoch)).count();
        let is_still_full = self.table.len() > bound;
        self.full_at = if is_still_full { self.table.len() + bound / 50 } else { 0 };
        debug_assert!(gone.iter().all(|address| !self.nodes.contains_key(address)), "2.");
        self.check_invariants();
        gone
    }

    /// The sources whose figures changed since the last call.
    pub fn take_changed_sources(&mut self) -> BTreeMap<u16, SourceRow> {
        self.sources.take_changed()
    }

    /// When an address that is heard of now is due.
    pub fn due_when_heard(&self) -> UnixTime {
        UnixTime::from_secs(i64::from(self.pass_started))
    }

    /// Handles the result of a probe. `jitter` lies between 0 and 1.
    pub fn record(&mut self, result: &ResultFacts, jitter: f64) -> Recorded {
        let ResultFacts { address, outcome, probed_at, .. } = *result;
        let responded = outcome == Outcome::Responded;
        if responded {
            // A late result, after the book was cleared: no entry exists yet.
            self.table.insert(Entry::new(address));
        }
        let is_new_node = responded && !self.nodes.contains_key(&address);
        let (failures, status, silent) = self.record_node(result, is_new_node);
        // A late result may be of an address that is not in the table.
        let failures = match (self.table.get(address), silent) {
            _ if responded => 0,
            (_, Some(_)) => failures,
            (Some(entry), None) => u32::from(entry.failures) + 1,
            (None, None) => 1,
        };
        let wait = if responded {
            MIN_PROBE_INTERVAL
        } else {
            delay(&self.params.backoff, failures, silent, jitter)
        };
        let next_probe = probed_at.plus(wait);
        let (epoch, started) = (self.epoch, self.pass_started);
        if let Some(entry) = self.table.get_mut(address) {
            if !entry.is_node() {
                self.ranks.learn(entry.cell(started), responded);
            }
            // A result of a former pass: it is not probed twice.
            self.waiting -= usize::from(entry.is_waiting(epoch));
            entry.set_handed_out(epoch);
            if !entry.is_probed() && entry.source != 0 {
                self.sources.record(entry.source, responded || entry.is_confirmed());
            }
            entry.failures = u8::try_from(failures).unwrap_or(u8::MAX);
            entry.next_probe = ceil_secs(next_probe);
            entry.set_result(outcome, secs(probed_at));
            if responded {
                entry.set_node();
            }
        }
        self.check_invariants();
        let is_node = responded || silent.is_some();
        Recorded { is_node, is_new_node, failures, next_probe, status }
    }

    /// The node's part of [`AddressBook::record`]: failures, status, and time since its response.
    fn record_node(
        &mut self,
        result: &ResultFacts,
        is_new: bool,
    ) -> (u32, Status, Option<Duration>) {
        let responded = result.outcome == Outcome::Responded;
        if is_new {
            let known = KnownNode {
                last_seen: result.probed_at,
                peers_asked_at: None,
                peers_sent: None,
                is_trb: result.is_trb,
            };
            self.nodes.insert(result.address, Node::new(known, 0));
        }
        let was_up = !is_new
            && self.table.get(result.address).and_then(Entry::last_outcome)
                == Some(Outcome::Responded);
        let Some(node) = self.nodes.get_mut(&result.address) else {
            return (0, Status::Down, None);
        };
        self.up = (self.up + usize::from(responded)).saturating_sub(usize::from(was_up));
        if responded {
            node.known.last_seen = result.probed_at;
            node.known.is_trb = result.is_trb;
            node.failures = 0;
            if let Some(sent) = result.peers_sent {
                node.known.peers_asked_at = Some(result.probed_at);
                node.known.peers_sent = Some(sent);
                node.composed_at = result.composed_at;
            }
            node.caches_no_reply = result.caches_no_reply;
            return (0, Status::Up, Some(Duration::ZERO));
        }
        node.failures = node.failures.saturating_add(1);
        let silent = result.probed_at.since(node.known.last_seen);
        let is_full = result.outcome == Outcome::Closed && silent < FULL_STATUS_TIMEOUT;
        (node.failures, if is_full { Status::Full } else { Status::Down }, Some(silent))
    }

    /// Number of addresses, nodes included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether it contains no address.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// Number of nodes.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// Number of nodes whose last probe responded.
    pub fn up(&self) -> usize {
        self.up
    }

    fn check_invariants(&self) {
        debug_assert!(self.nodes.len() <= self.table.len(), "3. a node is not in the table");
        debug_assert!(self.up <= self.nodes.len(), "3. more nodes are up than exist");
        debug_assert!(self.over_quota_cursor <= SHARDS);
        debug_assert!(self.waiting <= self.table.len(), "more candidates wait than exist");
    }

    fn target(&self, address: Address, now: UnixTime) -> Target {
        match self.nodes.get(&address) {
            Some(node) => {
                let target = Target::node(address, self.wants_peers(address, node, now));
                let outcome = self.table.get(address).and_then(Entry::last_outcome);
                if outcome == Some(Outcome::Responded) { target.up() } else { target }
            }
            None => Target::candidate(address),
        }
    }

    fn wants_peers(&self, address: Address, node: &Node, now: UnixTime) -> bool {
        let Some(asked_at) = node.known.peers_asked_at else { return true };
        let longest = self.params.getaddr_interval;
        let follows = self.params.ranking.follows_caches;
        let interval = match (node.known.is_trb, node.known.peers_sent) {
            (true, _) => longest.min(TRB_GETADDR_INTERVAL),
            (_, None | Some(0)) => longest.min(EMPTY_GETADDR_INTERVAL),
            _ if node.caches_no_reply && follows => longest.min(FRESH_GETADDR_INTERVAL),
            _ => longest,
        };
        // Drawn once per `getaddr`, not once per call: else the shortest of many draws would win.
        let draw = self.jitter.hash_one((address.to_bits(), asked_at.as_micros()));
        let place = (draw >> 11) as f64 / (1_u64 << 53) as f64;
        let drawn = asked_at.plus(spread(interval, place));
        let at = match node.replaces_reply_at(asked_at) {
            Some(at) if follows && interval == longest && longest <= MAX_CACHE_TIME => {
                let latest = asked_at.plus(spread(interval, 1.0));
                at.max(asked_at.plus(longest / MIN_GETADDR_SHARE)).min(latest)
            }
            _ => drawn,
        };
        // A time in the future comes from a clock that jumped: ask.
        asked_at > now || at <= now
    }
}

impl Node {
    /// When a node that caches its reply has a new one, most likely: half of them after the mean
    /// time, the others, which sent the same reply again, after the longest. `None` if the times in
    /// the reply make no sense.
    fn replaces_reply_at(&self, asked_at: UnixTime) -> Option<UnixTime> {
        let composed_at = self.composed_at.filter(|at| at.plus(MAX_CACHE_TIME) > asked_at)?;
        let mean = composed_at.plus(MEAN_CACHE_TIME);
        Some(if asked_at < mean { mean } else { composed_at.plus(MAX_CACHE_TIME) })
    }
}

/// The part of a result that the book needs.
#[derive(Clone, Copy, Debug)]
pub struct ResultFacts {
    /// The address that was probed.
    pub address: Address,
    /// How it ended.
    pub outcome: Outcome,
    /// When the outcome was known.
    pub probed_at: UnixTime,
    /// Number of entries sent in reply to `getaddr`; `None` if it was not sent.
    pub peers_sent: Option<u32>,
    /// Whether its species is TRB.
    pub is_trb: bool,
    /// Whether its software composes a new reply for each `getaddr`.
    pub caches_no_reply: bool,
    /// When its reply was composed, as the times in it suggest.
    pub composed_at: Option<UnixTime>,
}

fn only_source(entry: &Entry) -> u16 {
    if entry.is_confirmed() { 0 } else { entry.source }
}

fn candidate(entry: &Entry) -> Target {
    let target = Target::candidate(entry.address());
    if entry.is_probed() { target.failed() } else { target }
}

/// Maximum number of candidates per chunk: those that follow may be ranked better a second later.
const MAX_CANDIDATE_CHUNK: usize = 64;
/// Deferred candidates per chunk, rounded up to whole shards.
const MIN_DUE_CHUNK: usize = 4_096;

fn secs(time: UnixTime) -> u32 {
    u32::try_from(time.as_secs().max(0)).unwrap_or(u32::MAX)
}

/// Rounds up, so that no address is due too soon.
fn ceil_secs(time: UnixTime) -> u32 {
    secs(UnixTime::from_micros(time.as_micros().saturating_add(999_999)))
}

#[cfg(test)]
mod tests;
