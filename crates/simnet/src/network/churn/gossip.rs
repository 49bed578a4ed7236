//! The address tables of the nodes of a [`Churn`], and the replies drawn from them. Sans-I/O.
//!
//! Tables are not stored: whether an address is in a node's table at a time is a hash of both,
//! compared with how far the address has spread by then. A node that was just born is in few
//! tables, hours later in most. Core caches its replies for 21 to 27 hours, so they contain the
//! node only if the cache was filled after that.
//!
//! Assumed without a source: how far addresses spread (nodes to 70 % of the tables, dead addresses
//! to 7 %) and how fast (3 hours, 1 hour). Then 15 % of a reply is live, as measured in fresh
//! gossip.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::attack;
use super::{CACHE_PERIOD, CACHE_PHASE, COMING, Churn, DAY, MEMBER, MEMORY, REACH, RECENT, Times};
use crate::network::gossip::{Entry, mix, seen};
use crate::network::world::WALL;
use crate::node::profile::{Announces, Profile};

/// Share of the tables that a node's address reaches, and the mean time for that, in seconds.
const NODE_REACH: f64 = 0.7;
pub(super) const NODE_SPREAD: f64 = 3.0 * HOUR;
/// The mean time until a dead address has reached its tables.
const DEAD_SPREAD: f64 = HOUR;
/// Mean time until a table forgets a node that is gone; after 30 days all have.
pub(super) const FORGET_TIME: f64 = 7.0 * DAY;
/// TRB sends what it saw within three hours, and the share of the live nodes that it sees then.
pub(super) const TRB_WINDOW: f64 = 3.0 * HOUR;
pub(super) const TRB_LIVE_SHARE: f64 = 0.7;
/// Age of an entry whose node announces itself: at least, since relaying costs two hours
/// (net_processing.cpp, ADDR), and what is added to that on average (assumed).
const MIN_AGE: f64 = 2.0 * HOUR;
const ADDED_AGE: f64 = 12.0 * HOUR;
pub(super) const HOUR: f64 = 3_600.0;

/// What a reply is drawn from.
pub(super) struct Table<'a> {
    pub(super) churn: &'a Churn,
    sender: usize,
    /// When the reply was drawn, in seconds since the start.
    pub(super) at: f64,
    /// How full the table is, from 0 to 1.
    pub(super) fullness: f64,
    /// The indices of the dead addresses that may be in it.
    dead: std::ops::Range<usize>,
    dead_reach: f64,
    /// The numbers of the unreachable nodes that may be in it.
    unreachable: std::ops::Range<usize>,
    pub(super) is_recent_only: bool,
}

/// A node's reply to `getaddr`, at wall clock time `wall`.
pub(super) fn reply(churn: &Churn, node: usize, round: u64, wall: u32) -> Vec<Entry> {
    let spec = &churn.nodes[node];
    if !spec.sends_peers {
        return Vec::new();
    }
    let now = f64::from(wall.saturating_sub(WALL));
    if churn.floods(node) {
        return invented(churn, wall);
    }
    if churn.is_liar(node) {
        return attack::reply(churn, node, round, now);
    }
    let resamples = churn.params.old_core_resamples && is_before_0_21(&spec.user_agent);
    let caches = matches!(spec.profile, Profile::NewCore | Profile::OldCore) && !resamples;
    let (at, round) = if caches { cached(churn, node, now) } else { (now, round) };
    let table = Table::new(churn, node, at);
    let mut rng = fastrand::Rng::with_seed(mix(churn.params.seed, node as u64, round));
    let mut entries = Vec::with_capacity(1_001);
    if spec.announces == Announces::InReply {
        entries.push(Entry::ipv4(spec.address, spec.services, wall));
    }
    let most = spec.profile.max_peers();
    let length = (table.reply_length(spec.profile)).min(most - entries.len());
    let foreign = (length as f64 * churn.params.foreign_share) as usize;
    table.draw(length - foreign, &mut rng, &mut entries);
    for _ in 0..foreign {
        let mut ip = [0; 16];
        rng.fill(&mut ip[4..]);
        ip[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        entries.push(Entry { time: wall, services: 1033, ip, port: 8333 });
    }
    rng.shuffle(&mut entries);
    entries
}

/// When Core's cached reply was filled, and a number that changes with it.
fn cached(churn: &Churn, node: usize, now: f64) -> (f64, u64) {
    let period = (21.0 + 6.0 * churn.draw(node as u64, CACHE_PERIOD)) * HOUR;
    let phase = churn.draw(node as u64, CACHE_PHASE) * period;
    let filled = ((now + phase) / period).floor();
    (filled * period - phase, filled as u64 + 1)
}

/// A thousand addresses that no other reply contains.
fn invented(churn: &Churn, wall: u32) -> Vec<Entry> {
    let first = churn.first_invented() + churn.invented.fetch_add(1_000, Ordering::Relaxed);
    let fresh = (first..first + 1_000).map(|index| churn.places.dead(index));
    fresh.map(|address| Entry::ipv4(address, 1033, wall.saturating_sub(600))).collect()
}

fn is_before_0_21(agent: &[u8]) -> bool {
    let agent = String::from_utf8_lossy(agent);
    (0..21).any(|minor| agent.starts_with(&format!("/Satoshi:0.{minor}.")))
}

impl<'a> Table<'a> {
    pub(super) fn new(churn: &'a Churn, sender: usize, at: f64) -> Self {
        // Caches that were filled before the start contain what is in gossip at the start.
        let until = churn.dead_until(at.max(0.0));
        let is_recent_only = churn.nodes[sender].profile == Profile::Trb;
        let since = if is_recent_only {
            churn.dead_until(at - TRB_WINDOW)
        } else {
            until.saturating_sub(churn.params.dead)
        };
        let fullness = churn.nodes[sender].table as f64 / 1e6;
        // In a flood each dead address is in fewer tables, since a table is full.
        let p = &churn.params;
        let dead_reach = p.dead_reach.min(p.max_dead_per_table / p.dead.max(1) as f64);
        let (dead, unreachable) = (since..until, churn.unreachable_in_gossip(at));
        Self { churn, sender, at, fullness, dead, dead_reach, unreachable, is_recent_only }
    }

    fn size(&self) -> f64 {
        let nodes = self.churn.params.up as f64 * NODE_REACH;
        let dead = self.dead.len() as f64 * self.dead_reach;
        self.fullness * (nodes + dead + self.churn.unreachable_per_table())
    }

    fn reply_length(&self, profile: Profile) -> usize {
        let length = match profile {
            Profile::Trb => self.size() * TRB_LIVE_SHARE,
            Profile::Bcoin => self.size(),
            Profile::Gocoin => self.size() / 5.0,
            _ => self.size() * 0.23,
        };
        (length as usize).clamp(2, profile.max_peers())
    }

    /// Draws distinct addresses of the table; fewer than `count` if the table is small.
    pub(super) fn draw(&self, count: usize, rng: &mut fastrand::Rng, entries: &mut Vec<Entry>) {
        let nodes = self.churn.nodes.len();
        // A node that is picked may not be in the table; a dead address is.
        let dead_weight = self.dead.len() as f64 * self.dead_reach * self.fullness;
        let is_gocoin = self.churn.nodes[self.sender].profile == Profile::Gocoin;
        let dead_weight = if is_gocoin || self.dead.is_empty() { 0.0 } else { dead_weight };
        let unreachable_weight = if is_gocoin { 0.0 } else { self.unreachable.len() as f64 };
        let all = dead_weight + unreachable_weight + nodes as f64;
        let unreachable_ever = self.churn.unreachable_ever();
        let mut drawn: HashSet<usize, foldhash::fast::FixedState> = HashSet::default();
        drawn.insert(self.sender);
        let enough = entries.len() + count;
        for _ in 0..count * MAX_TRIES_PER_ENTRY {
            if entries.len() >= enough {
                break;
            }
            // Nodes or dead addresses, weighted so that every member of the table is equally
            // likely.
            let coin = rng.f64() * all;
            let picked = if coin < dead_weight {
                self.dead_member(rng).map(|index| nodes + unreachable_ever + index)
            } else if coin < dead_weight + unreachable_weight {
                let number = rng.usize(self.unreachable.clone());
                self.has_unreachable(number).then_some(nodes + number)
            } else {
                Some(rng.usize(..nodes)).filter(|at| self.has_node(*at))
            };
            if let Some(at) = picked
                && drawn.insert(at)
            {
                entries.push(self.entry(at, rng));
            }
        }
    }

    /// Draws a dead address of the table. Indices are divided into runs of which one index each is
    /// in the table; a hash of sender and run determines it, so no search is needed.
    fn dead_member(&self, rng: &mut fastrand::Rng) -> Option<usize> {
        let run = (1.0 / (self.fullness * self.dead_reach)).round().max(1.0) as usize;
        let number = rng.usize(self.dead.start / run..self.dead.end.div_ceil(run));
        let pair = (self.sender as u64) << 32 | number as u64;
        let index = number * run + mix(self.churn.params.seed, pair, MEMBER) as usize % run;
        let age = self.at.max(0.0) - self.churn.dead_since(index);
        let has_come = || self.pair(index, COMING) < spread(age, DEAD_SPREAD);
        // An old address has spread as far as it ever will.
        (self.dead.contains(&index) && (age > 12.0 * DEAD_SPREAD || has_come())).then_some(index)
    }

    fn has_node(&self, at: usize) -> bool {
        let life = &self.churn.lives[at];
        let age = self.at - life.born as f64;
        // The fullness is in the length of the reply already; here it only selects members.
        let share = self.fullness * self.churn.reach(at) * spread(age, NODE_SPREAD);
        if age < 0.0 || self.pair(at, MEMBER) >= share {
            return false;
        }
        self.remembers(at, self.at - life.gone as f64)
    }

    /// Whether a member that left the network `gone` seconds ago, if positive, is still in.
    pub(super) fn remembers(&self, at: usize, gone: f64) -> bool {
        if gone > 30.0 * DAY || gone > 0.0 && self.pair(at, MEMORY) >= (-gone / FORGET_TIME).exp() {
            return false;
        }
        let turn = (self.at / TRB_WINDOW) as u64;
        !self.is_recent_only || gone <= 0.0 && self.pair(at, RECENT + turn) < TRB_LIVE_SHARE
    }

    /// A number from 0 to 1 that depends on the sender, the address and `purpose` alone.
    pub(super) fn pair(&self, at: usize, purpose: u64) -> f64 {
        self.churn.draw((self.sender as u64) << 32 | at as u64, purpose)
    }

    fn entry(&self, at: usize, rng: &mut fastrand::Rng) -> Entry {
        let churn = self.churn;
        if churn.params.times != Times::Random {
            return self.dated_entry(at, rng);
        }
        let wall = (f64::from(WALL) + self.at) as u32;
        let time = seen(churn.nodes[self.sender].profile, wall, rng);
        if let Some(node) = churn.nodes.get(at) {
            let life = &churn.lives[at];
            let born = i64::from(WALL) + life.born;
            let gone = i64::from(WALL) + life.gone;
            let time = i64::from(time).clamp(born.min(gone), gone).try_into().unwrap_or(time);
            return Entry::ipv4(node.address, node.services, time);
        }
        let address = churn.places.dead(at - churn.nodes.len());
        let services = [1033, 3081, 3081, 3145, 1, 0][rng.usize(0..6)];
        Entry::ipv4(address, services, time)
    }

    /// An entry whose time says when its address was last announced.
    fn dated_entry(&self, at: usize, rng: &mut fastrand::Rng) -> Entry {
        let churn = self.churn;
        let nodes = churn.nodes.len();
        if let Some(node) = churn.nodes.get(at) {
            let (from, to) = churn.lives[at].last_stretch(self.at);
            let time = self.time(self.announced(from, to, rng), rng);
            return Entry::ipv4(node.address, node.services, time);
        }
        // Services as in a sampled address table: 0xc09, 0xc49, 0xc08, and others.
        let services = [3081, 3145, 3080, 3081, 3145, 3080, 3081, 3145, 3080, 1033, 1032, 1];
        let services = services[mix(churn.params.seed, at as u64, 77) as usize % services.len()];
        let number = at - nodes;
        let (address, announced) = match number.checked_sub(churn.unreachable_ever()) {
            Some(index) => (churn.places.dead(index), churn.dead_since(index)),
            None => {
                let (from, to) = churn.unreachable_life(number);
                (churn.unreachable_address(number), self.announced(from, to, rng))
            }
        };
        Entry::ipv4(address, services, self.time(announced, rng))
    }

    /// The time of an entry that was last announced at `last`; a few are nonsense.
    fn time(&self, last: f64, rng: &mut fastrand::Rng) -> u32 {
        let wall = f64::from(WALL);
        if self.churn.params.times == Times::Flat {
            return (wall + self.at - 10.5 * DAY) as u32;
        }
        match rng.u16(0..1000) {
            0..=2 => 0,
            3..=4 => 100_000_000,
            5..=7 => (wall + self.at) as u32 + rng.u32(601..400_000_000),
            _ => (wall + last.min(self.at - MIN_AGE)) as u32,
        }
    }

    /// When an address that was announced between two times was so last, before the reply.
    fn announced(&self, from: f64, to: f64, rng: &mut fastrand::Rng) -> f64 {
        let added = -ADDED_AGE * (1.0 - rng.f64()).ln();
        (to.min(self.at) - MIN_AGE - added).max(from)
    }
}

impl Churn {
    /// Share of the tables that a node reaches once it has spread.
    fn reach(&self, at: usize) -> f64 {
        if !self.params.has_uneven_reach {
            return NODE_REACH;
        }
        // Assumed: nodes that announce themselves rarely or are new to most.
        match self.draw(at as u64, REACH) {
            draw if draw < 0.80 => NODE_REACH,
            draw if draw < 0.95 => 0.25,
            _ => 0.04,
        }
    }
}

/// How far an address that is `age` seconds old has spread, from 0 to 1.
pub(super) fn spread(age: f64, mean: f64) -> f64 {
    1.0 - (-age.max(0.0) / mean).exp()
}

const MAX_TRIES_PER_ENTRY: usize = 200;
