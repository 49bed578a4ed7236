//! `AddressBook`: every address ever heard of, and when it is due.
//!
//! Layer 2: a pure machine over [`table::Table`]; the writer thread owns the only one. Newness is decided here,
//! in memory, so that peers go back to the crawl at once and it goes on while the database is away.
//! Invariants: 1. an address is handed out at most once a pass; 2. a node is never forgotten for want of room;
//! 3. what is not handed out in a pass is unchanged by it.

mod clock;
mod evict;
pub mod sources;
pub mod table;

use std::collections::BTreeMap;
use std::hash::BuildHasher;
use std::time::Duration;

use foldhash::quality::FixedState;

use crate::crawl::address::Address;
use crate::crawl::backoff::{BackoffParams, delay, spread};
use crate::crawl::batch::{Known, KnownNode, SourceRow, Status};
use crate::crawl::clock_watch::CLOCK_STEP;
use crate::crawl::filter::Filter;
use crate::crawl::outcome::Outcome;
use crate::crawl::target::Target;
use crate::crawl::time::UnixTime;
use sources::Sources;
use table::{Entry, SHARDS, Table};

/// What the book goes by.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BookParams {
    /// The keys `backoff.*`.
    pub backoff: BackoffParams,
    /// The key `crawl.getaddr_interval`.
    pub getaddr_interval: Duration,
    /// The key `crawl.max_addresses`.
    pub max_addresses: usize,
}

/// TRB hands out only what it saw within 3 hours: asking it more often than others pays.
const TRB_GETADDR_INTERVAL: Duration = Duration::from_secs(3 * 3_600);
/// A node that sent nothing may have been about to: it is asked again sooner.
const EMPTY_GETADDR_INTERVAL: Duration = Duration::from_secs(6 * 3_600);
/// A node that responded is left alone so long: Bitcoin Unlimited bans for more.
const RESPONDED_WAIT: Duration = Duration::from_secs(60);
/// A node that turns us away counts as full for so long after its last response.
const FULL_FOR: Duration = Duration::from_secs(7 * 86_400);
/// `last_heard` is written again only when it is older than this: six million entries a pass name what is known.
const HEARD_AGAIN_AFTER: u32 = 86_400;

/// So many ports of one IP are remembered at most: one host that answers on every port is one host.
const MOST_PORTS: usize = 16;
/// While fewer nodes are known every source is believed: a first pass must begin somewhere.
const FEW_NODES: usize = 100;
/// A candidate that no source has named for so long is forgotten, as Bitcoin Core does.
const FORGET_CANDIDATE_AFTER: u32 = 30 * 86_400;
/// A node that was silent for so long leaves memory; the database keeps it.
const FORGET_NODE_AFTER: Duration = Duration::from_secs(180 * 86_400);
/// What is to be forgotten is looked for so often.
const FORGET_EVERY: u32 = 86_400;

/// What hearing of an address meant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Heard {
    /// It was not known before.
    pub is_new: bool,
    /// The database should hear of it: it is new or newly confirmed, or its `last_heard` is a day old.
    pub wants_row: bool,
    /// The /16 of the only source that has named it; 0 once several unrelated ones or a person have.
    pub only_source: u16,
    /// To be probed in this pass.
    pub target: Option<Target>,
}

/// Who names an address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// The nodes file: a person.
    Person,
    /// A node, by its /16. `is_stale` if it says itself that it has not seen the address for a long time.
    Node {
        /// The /16.
        group: u16,
        /// Whether the address is old news by the node's own words.
        is_stale: bool,
    },
}

/// What a result changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Recorded {
    /// Whether the address is a node now.
    pub is_node: bool,
    /// Whether it became one with this result.
    pub is_new_node: bool,
    /// Failures in a row.
    pub failures: u32,
    /// When it is due again.
    pub next_probe: UnixTime,
    /// The status as a node.
    pub status: Status,
}

#[derive(Clone, Copy, Debug)]
struct Node {
    known: KnownNode,
    failures: u32,
}

/// The book.
#[derive(Debug)]
pub struct AddressBook {
    table: Table,
    nodes: BTreeMap<Address, Node>,
    jitter: FixedState,
    params: BookParams,
    /// Counts the passes of this process; an entry whose `met` equals it was handed out.
    epoch: u16,
    pass_started: u32,
    /// The next shard to hand out; `SHARDS` when all are.
    cursor: usize,
    /// The same for those over their source's quota.
    over_quota_cursor: usize,
    /// How many were held back in this pass because their source has named too many.
    held_back: u64,
    sources: Sources,
    forgotten_at: u32,
    evictions: u64,
    /// With so many entries it was full although the worst had gone; 0 if it was not.
    full_at: usize,
    warmth: u32,
    up: usize,
}

impl AddressBook {
    /// Makes an empty book.
    pub fn new(params: BookParams, seed: u64) -> Self {
        let jitter = FixedState::with_seed(seed ^ 0x6a69_7474_6572);
        Self {
            table: Table::new(seed),
            nodes: BTreeMap::new(),
            jitter,
            params,
            epoch: 0,
            pass_started: 0,
            cursor: SHARDS,
            over_quota_cursor: SHARDS,
            held_back: 0,
            sources: Sources::default(),
            forgotten_at: 0,
            evictions: 0,
            full_at: 0,
            warmth: 0,
            up: 0,
        }
    }

    /// What it goes by.
    pub fn params(&self) -> BookParams {
        self.params
    }

    /// Changes what it goes by.
    pub fn set_params(&mut self, params: BookParams) {
        self.params = params;
        self.full_at = 0;
    }

    /// Takes in what the database knows.
    pub fn load(&mut self, known: &Known, is_admitted: bool) {
        let mut entry = Entry::new(known.address);
        entry.next_probe = ceil_secs(known.next_probe);
        entry.last_heard = secs(known.last_heard);
        entry.last_probed = known.last_probed.map_or(0, secs);
        entry.failures = u8::try_from(known.failures).unwrap_or(u8::MAX);
        entry.source = known.source;
        if known.source == 0 {
            entry.set_confirmed();
        }
        if let Some(outcome) = known.last_outcome {
            entry.set_last_outcome(outcome);
        }
        if let Some(node) = known.node {
            entry.set_node();
            let node = Node { known: node, failures: known.failures };
            if self.nodes.insert(known.address, node).is_none() {
                // A node that may not be probed any more must not keep seeds from being used.
                let is_up = is_admitted && known.last_outcome == Some(Outcome::Responded);
                self.up += usize::from(is_up);
            }
        }
        self.table.insert(entry);
    }

    /// Takes in what the database knows of a source.
    pub fn load_source(&mut self, group: u16, row: SourceRow) {
        self.sources.load(group, row);
    }

    /// Begins a pass; afterwards [`AddressBook::poll_due`] hands out who is due.
    pub fn start_pass(&mut self, started_at: UnixTime) {
        self.epoch = self.epoch.wrapping_add(1);
        self.pass_started = secs(started_at);
        self.cursor = 0;
        self.over_quota_cursor = 0;
        self.held_back = 0;
        self.full_at = 0;
        if self.pass_started.saturating_sub(self.forgotten_at) >= FORGET_EVERY {
            self.forget(started_at);
        }
    }

    /// Forgets candidates that nobody names any more, and nodes that were silent for half a year.
    fn forget(&mut self, now: UnixTime) {
        self.forgotten_at = secs(now);
        // Measured from the newest word heard, so that neither a clock ahead of its time nor a long stop empties
        // the book.
        let newest = self.table.iter().map(|entry| entry.last_heard).max().unwrap_or(0);
        let seen = self.nodes.values().map(|node| node.known.last_seen).max().unwrap_or_default();
        let nodes_before = now.min(seen).minus(FORGET_NODE_AFTER);
        let heard_before = secs(now).min(newest).saturating_sub(FORGET_CANDIDATE_AFTER);
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
        self.table.retain(|entry| match entry.is_node() {
            true => nodes.contains_key(&entry.address()),
            false => entry.last_heard >= heard_before,
        });
    }

    /// How many addresses are due in the pass that has begun and admitted by `filter`.
    pub fn count_due(&self, filter: &Filter) -> u64 {
        let due = |e: &&Entry| e.is_due(self.pass_started) && filter.admits(e.address());
        self.table.iter().filter(due).count() as u64
    }

    /// Hands out a named node, or an address that was just heard of: whether or not it is due, but once a pass.
    pub fn hand_out(&mut self, address: Address, now: UnixTime) -> Option<Target> {
        let epoch = self.epoch;
        let entry = self.table.get_mut(address)?;
        if entry.met == epoch {
            return None;
        }
        entry.met = epoch;
        Some(self.target(address, now))
    }

    /// Whether the address was probed since the running pass began: a named node of a resumed pass.
    pub fn was_probed_in_pass(&self, address: Address) -> bool {
        self.table.get(address).is_some_and(|entry| entry.last_probed >= self.pass_started.max(1))
    }

    /// Hands out the next few who are due, the nodes first. `true` when that was the last but for those over
    /// their source's quota.
    pub fn poll_due(&mut self, filter: &Filter, now: UnixTime, due: &mut Vec<Target>) -> bool {
        let (epoch, started) = (self.epoch, self.pass_started);
        let void_after = secs(now.plus(CLOCK_STEP));
        let is_due = |entry: &Entry| {
            // What was probed in the future was so by a clock that ran ahead: its back-off is void.
            let is_time = entry.is_due(started) || entry.last_probed > void_after;
            entry.met != epoch && is_time && filter.admits(entry.address())
        };
        if self.cursor == 0 {
            let nodes: Vec<Address> = self.nodes.keys().copied().collect();
            for address in nodes {
                if self.table.get(address).is_some_and(is_due) {
                    due.extend(self.hand_out(address, now));
                }
            }
        }
        let believes_all = self.nodes.len() < FEW_NODES;
        while self.cursor < SHARDS && due.len() < DUE_CHUNK {
            for entry in self.table.shard_mut(self.cursor) {
                if entry.is_node() || !is_due(entry) {
                    continue;
                }
                // An invention that was probed once in vain is as good as one that never was.
                let is_invented = entry.is_probed() && self.sources.is_poor(entry.source);
                let is_believed = entry.is_confirmed() || believes_all;
                let is_proven = is_believed || (entry.is_probed() && !is_invented);
                if is_proven || self.sources.let_in(entry.source, epoch) {
                    entry.met = epoch;
                    due.push(candidate(entry));
                } else {
                    self.held_back += 1;
                }
            }
            self.cursor += 1;
        }
        self.cursor >= SHARDS
    }

    /// Hands out the next few of those that were held back.
    pub fn poll_over_quota(&mut self, filter: &Filter, due: &mut Vec<Target>) {
        let (epoch, started) = (self.epoch, self.pass_started);
        while self.over_quota_cursor < SHARDS && due.len() < DUE_CHUNK {
            for entry in self.table.shard_mut(self.over_quota_cursor) {
                let is_held_back = !entry.is_node() && entry.met != epoch && entry.is_due(started);
                if is_held_back && filter.admits(entry.address()) {
                    entry.met = epoch;
                    due.push(candidate(entry).over_quota());
                }
            }
            self.over_quota_cursor += 1;
        }
    }

    /// How many are held back in this pass, or a few more: some may have been handed out since. None once
    /// `poll_over_quota` has gone through all.
    pub fn held_back(&self) -> u64 {
        if self.over_quota_cursor < SHARDS { self.held_back } else { 0 }
    }

    /// Fetches from memory what hearing of these addresses will need, all at once.
    pub fn warm(&mut self, addresses: impl Iterator<Item = Address>) {
        let touched = addresses.map(|address| self.table.touch(address));
        // The sum is of no use, but without it nothing would have to be read.
        self.warmth = touched.fold(0, u32::wrapping_add);
    }

    /// Somebody names an address. With `target` set in what comes back it is handed out.
    pub fn hear(&mut self, address: Address, source: Source, now: UnixTime) -> Heard {
        let wall = secs(now);
        let (group, is_stale) = match source {
            Source::Person => (0, false),
            Source::Node { group, is_stale } => (group, is_stale),
        };
        let epoch = self.epoch;
        if let Some(entry) = self.table.get_mut(address) {
            // A clock that jumped back must not silence the entry for years.
            let mut wants_row = !is_stale && wall.abs_diff(entry.last_heard) >= HEARD_AGAIN_AFTER;
            let is_unconfirmed = !entry.is_node() && !entry.is_confirmed();
            let mut target = None;
            if is_unconfirmed && entry.source != group && !is_stale && !self.sources.is_poor(group)
            {
                entry.set_confirmed();
                wants_row = true;
                if entry.is_probed() {
                    self.sources.credit(entry.source);
                } else if entry.met != epoch {
                    entry.met = epoch;
                    target = Some(candidate(entry));
                }
            }
            if wants_row {
                entry.last_heard = wall;
            }
            let only_source = only_source(entry);
            return Heard { is_new: false, wants_row, only_source, target };
        }
        if source != Source::Person && self.table.ports(address) >= MOST_PORTS {
            return Heard { is_new: false, wants_row: false, only_source: group, target: None };
        }
        let mut entry = Entry::new(address);
        entry.last_heard = wall;
        entry.next_probe = self.pass_started;
        entry.source = group;
        if source == Source::Person {
            entry.set_confirmed();
        }
        let is_believed = source == Source::Person || self.nodes.len() < FEW_NODES;
        let target = if !is_stale && (is_believed || self.sources.let_in(group, epoch)) {
            entry.met = epoch;
            Some(candidate(&entry))
        } else {
            self.held_back += 1;
            None
        };
        self.table.insert(entry);
        Heard { is_new: true, wants_row: true, only_source: only_source(&entry), target }
    }

    /// Makes room where more is remembered than `max_addresses`: the worst candidates go, and are given back.
    pub fn evict(&mut self, now: UnixTime) -> Vec<Address> {
        let bound = self.params.max_addresses;
        if self.table.len() <= bound.max(self.full_at) {
            return Vec::new();
        }
        // A fiftieth more than needed, so that the table is not walked for every single one.
        let surplus = self.table.len() - bound + bound / 50;
        self.evictions += 1;
        let (epoch, salt) = (self.epoch, self.evictions);
        let gone = evict::worst(&mut self.table, &self.sources, epoch, surplus, secs(now), salt);
        // Where what this pass has met fills the book, little may go, and it is not walked again for every result.
        let is_still_full = self.table.len() > bound;
        self.full_at = if is_still_full { self.table.len() + bound / 50 } else { 0 };
        gone
    }

    /// The sources whose figures changed since the last call.
    pub fn take_changed_sources(&mut self) -> BTreeMap<u16, SourceRow> {
        self.sources.take_changed()
    }

    /// When an address heard of now is due.
    pub fn due_when_heard(&self) -> UnixTime {
        UnixTime::from_secs(i64::from(self.pass_started))
    }

    /// A probe ended. `peers_sent` is `Some` if the node was asked for its peers; `jitter` lies between 0 and 1.
    pub fn record(&mut self, result: &ResultFacts, jitter: f64) -> Recorded {
        let ResultFacts { address, outcome, probed_at, .. } = *result;
        let responded = outcome == Outcome::Responded;
        let is_new_node = responded && !self.nodes.contains_key(&address);
        let (failures, status, silent) = self.record_node(result, is_new_node);
        // A named address that the book could not take is not in the table.
        let failures = match (self.table.get(address), silent) {
            _ if responded => 0,
            (_, Some(_)) => failures,
            (Some(entry), None) => u32::from(entry.failures) + 1,
            (None, None) => 1,
        };
        let wait = match responded {
            true => RESPONDED_WAIT,
            false => delay(&self.params.backoff, failures, silent, jitter),
        };
        let next_probe = probed_at.plus(wait);
        if let Some(entry) = self.table.get_mut(address) {
            if !entry.is_probed() && entry.source != 0 {
                self.sources.record(entry.source, responded || entry.is_confirmed());
            }
            entry.failures = u8::try_from(failures).unwrap_or(u8::MAX);
            entry.next_probe = ceil_secs(next_probe);
            entry.last_probed = secs(probed_at);
            entry.set_last_outcome(outcome);
            if responded {
                entry.set_node();
            }
        }
        let is_node = responded || silent.is_some();
        Recorded { is_node, is_new_node, failures, next_probe, status }
    }

    /// The node's part of [`AddressBook::record`]: failures, status, and how long it has been silent.
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
            self.nodes.insert(result.address, Node { known, failures: 0 });
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
            }
            return (0, Status::Up, Some(Duration::ZERO));
        }
        node.failures = node.failures.saturating_add(1);
        let silent = result.probed_at.since(node.known.last_seen);
        let is_full = result.outcome == Outcome::Closed && silent < FULL_FOR;
        (node.failures, if is_full { Status::Full } else { Status::Down }, Some(silent))
    }

    /// How many addresses it holds, nodes included.
    pub fn len(&self) -> usize {
        self.table.len()
    }

    /// Whether it holds none.
    pub fn is_empty(&self) -> bool {
        self.table.is_empty()
    }

    /// How many nodes it holds.
    pub fn nodes(&self) -> usize {
        self.nodes.len()
    }

    /// How many nodes responded when they were probed last.
    pub fn up(&self) -> usize {
        self.up
    }

    fn target(&self, address: Address, now: UnixTime) -> Target {
        match self.nodes.get(&address) {
            Some(node) => {
                let target = Target::node(address, self.wants_peers(address, &node.known, now));
                let outcome = self.table.get(address).and_then(Entry::last_outcome);
                if outcome == Some(Outcome::Responded) { target.up() } else { target }
            }
            None => Target::candidate(address),
        }
    }

    fn wants_peers(&self, address: Address, node: &KnownNode, now: UnixTime) -> bool {
        let Some(asked_at) = node.peers_asked_at else { return true };
        let interval = match (node.is_trb, node.peers_sent) {
            (true, _) => self.params.getaddr_interval.min(TRB_GETADDR_INTERVAL),
            (_, None | Some(0)) => self.params.getaddr_interval.min(EMPTY_GETADDR_INTERVAL),
            _ => self.params.getaddr_interval,
        };
        // Drawn once per asking and not once per look, or the shortest of many draws would win.
        let draw = self.jitter.hash_one((address.to_bits(), asked_at.as_micros()));
        let place = (draw >> 11) as f64 / (1_u64 << 53) as f64;
        // A time of asking that lies in the future comes from a clock that jumped: ask.
        asked_at > now || asked_at.plus(spread(interval, place)) <= now
    }
}

/// What the book needs to know of a result.
#[derive(Clone, Copy, Debug)]
pub struct ResultFacts {
    /// What was probed.
    pub address: Address,
    /// How it ended.
    pub outcome: Outcome,
    /// When.
    pub probed_at: UnixTime,
    /// Entries sent in reply to `getaddr`; `None` if it was not asked.
    pub peers_sent: Option<u32>,
    /// Whether its species is TRB.
    pub is_trb: bool,
}

fn only_source(entry: &Entry) -> u16 {
    if entry.is_confirmed() { 0 } else { entry.source }
}

/// The target of a candidate's entry.
fn candidate(entry: &Entry) -> Target {
    let target = Target::candidate(entry.address());
    match (entry.is_probed(), entry.is_confirmed()) {
        (true, _) => target.failed(),
        (false, true) => target.confirmed(),
        (false, false) => target,
    }
}

/// About so many targets are handed out at a time: the crawl asks for more when it runs low.
const DUE_CHUNK: usize = 4_096;

fn secs(time: UnixTime) -> u32 {
    u32::try_from(time.as_secs().max(0)).unwrap_or(u32::MAX)
}

/// Rounded up: nobody is due a moment too soon.
fn ceil_secs(time: UnixTime) -> u32 {
    secs(UnixTime::from_micros(time.as_micros().saturating_add(999_999)))
}

#[cfg(test)]
mod tests;
