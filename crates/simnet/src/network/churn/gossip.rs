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

use super::{CACHE_PERIOD, CACHE_PHASE, COMING, Churn, DAY, MEMBER, MEMORY, RECENT};
use crate::network::gossip::{Entry, mix, seen};
use crate::network::world::WALL;
use crate::node::profile::{Announces, Profile};

/// Share of the tables that a node's address reaches, and the mean time for that, in seconds.
const NODE_REACH: f64 = 0.7;
const NODE_SPREAD: f64 = 3.0 * HOUR;
/// The same for a dead address.
const DEAD_REACH: f64 = 0.07;
const DEAD_SPREAD: f64 = HOUR;
/// Maximum number of dead addresses in a table; it bounds the effect of floods.
const MAX_DEAD_PER_TABLE: f64 = 60_000.0;
/// Mean time until a table forgets a node that is gone; after 30 days all have.
const FORGET_TIME: f64 = 7.0 * DAY;
/// TRB sends what it saw within three hours, and the share of the live nodes that it sees then.
const TRB_WINDOW: f64 = 3.0 * HOUR;
const TRB_LIVE_SHARE: f64 = 0.7;
/// Share of a reply that is of other networks.
const FOREIGN_SHARE: f64 = 0.1;
const HOUR: f64 = 3_600.0;

/// What a reply is drawn from.
struct Table<'a> {
    churn: &'a Churn,
    sender: usize,
    /// When the reply was drawn, in seconds since the start.
    at: f64,
    /// How full the table is, from 0 to 1.
    fullness: f64,
    /// The indices of the dead addresses that may be in it.
    dead: std::ops::Range<usize>,
    dead_reach: f64,
    is_recent_only: bool,
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
    let caches = matches!(spec.profile, Profile::NewCore | Profile::OldCore);
    let (at, round) = if caches { cached(churn, node, now) } else { (now, round) };
    let table = Table::new(churn, node, at);
    let mut rng = fastrand::Rng::with_seed(mix(churn.params.seed, node as u64, round));
    let mut entries = Vec::with_capacity(1_001);
    if spec.announces == Announces::InReply {
        entries.push(Entry::ipv4(spec.address, spec.services, wall));
    }
    let most = spec.profile.max_peers();
    let length = (table.reply_length(spec.profile)).min(most - entries.len());
    let foreign = (length as f64 * FOREIGN_SHARE) as usize;
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
    let all = churn.dead_until(churn.params.days * DAY) + 1;
    let first = all + churn.invented.fetch_add(1_000, Ordering::Relaxed);
    let fresh = (first..first + 1_000).map(|index| churn.places.dead(index));
    fresh.map(|address| Entry::ipv4(address, 1033, wall.saturating_sub(600))).collect()
}

impl<'a> Table<'a> {
    fn new(churn: &'a Churn, sender: usize, at: f64) -> Self {
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
        let dead_reach = DEAD_REACH.min(MAX_DEAD_PER_TABLE / churn.params.dead.max(1) as f64);
        Self { churn, sender, at, fullness, dead: since..until, dead_reach, is_recent_only }
    }

    fn size(&self) -> f64 {
        let nodes = self.churn.params.up as f64 * NODE_REACH;
        self.fullness * (nodes + self.dead.len() as f64 * self.dead_reach)
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
    fn draw(&self, count: usize, rng: &mut fastrand::Rng, entries: &mut Vec<Entry>) {
        let nodes = self.churn.nodes.len();
        // A node that is picked may not be in the table; a dead address is.
        let dead_weight = self.dead.len() as f64 * self.dead_reach * self.fullness;
        let knows_dead = self.churn.nodes[self.sender].profile != Profile::Gocoin;
        let knows_dead = knows_dead && !self.dead.is_empty();
        let dead_share = if knows_dead { dead_weight / (dead_weight + nodes as f64) } else { 0.0 };
        let mut drawn: HashSet<usize, foldhash::fast::FixedState> = HashSet::default();
        drawn.insert(self.sender);
        let enough = entries.len() + count;
        for _ in 0..count * MAX_TRIES_PER_ENTRY {
            if entries.len() >= enough {
                break;
            }
            // Nodes or dead addresses, weighted so that every member of the table is equally
            // likely.
            let picked = if rng.f64() < dead_share {
                self.dead_member(rng).map(|index| nodes + index)
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
        let share = self.fullness * NODE_REACH * spread(age, NODE_SPREAD);
        if age < 0.0 || self.pair(at, MEMBER) >= share {
            return false;
        }
        let gone = self.at - life.gone as f64;
        if gone > 30.0 * DAY || gone > 0.0 && self.pair(at, MEMORY) >= (-gone / FORGET_TIME).exp() {
            return false;
        }
        let turn = (self.at / TRB_WINDOW) as u64;
        !self.is_recent_only || gone <= 0.0 && self.pair(at, RECENT + turn) < TRB_LIVE_SHARE
    }

    /// A number from 0 to 1 that depends on the sender, the address and `purpose` alone.
    fn pair(&self, at: usize, purpose: u64) -> f64 {
        self.churn.draw((self.sender as u64) << 32 | at as u64, purpose)
    }

    fn entry(&self, at: usize, rng: &mut fastrand::Rng) -> Entry {
        let churn = self.churn;
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
}

/// How far an address that is `age` seconds old has spread, from 0 to 1.
fn spread(age: f64, mean: f64) -> f64 {
    1.0 - (-age.max(0.0) / mean).exp()
}

const MAX_TRIES_PER_ENTRY: usize = 200;
