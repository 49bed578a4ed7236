//! What the nodes of a living network tell: their tables, and the replies drawn from them.
//!
//! Layer 2: pure. A table is not stored: whether an address is in a node's table at a time is a hash of both,
//! held against how far the address has spread by then. So a node that was just born is in few tables, some hours
//! later in most, and Core's replies, which are cached for 21 to 27 hours, tell of it only when the cache was
//! filled after that.
//!
//! Assumed without a source: how far (70 % of the tables for a node, 7 % for a dead address) and how fast
//! (3 hours, 1 hour) addresses spread; a reply then holds 15 % live ones, as measured of fresh gossip.

use std::collections::HashSet;
use std::sync::atomic::Ordering;

use super::{CACHE_PERIOD, CACHE_PHASE, Churn, DAY, MEMBER, MEMORY, RECENT};
use crate::simnet::knowledge::{Entry, mix, seen};
use crate::simnet::manner::{Announces, Manner};
use crate::simnet::world::WALL;

/// Which share of the tables a node's address reaches, and how fast: mean, in seconds.
const NODE_REACH: f64 = 0.7;
const NODE_SPREAD: f64 = 3.0 * HOUR;
/// The same of a dead one.
const DEAD_REACH: f64 = 0.07;
const DEAD_SPREAD: f64 = HOUR;
/// So many dead addresses fit into a table: what floods do to everybody is bounded by that.
const DEAD_ROOM: f64 = 60_000.0;
/// A node that is gone is forgotten by the tables within so long (mean), and by all after 30 days.
const FORGOTTEN: f64 = 7.0 * DAY;
/// TRB tells what it saw within three hours; so many of the living it hears of in that time.
const TRB_WINDOW: f64 = 3.0 * HOUR;
const TRB_HEARS: f64 = 0.7;
/// Which share of a reply is of other networks.
const FOREIGN_SHARE: f64 = 0.1;
const HOUR: f64 = 3_600.0;

/// What a reply is drawn from.
struct Table<'a> {
    churn: &'a Churn,
    teller: usize,
    /// When the reply was put together, in seconds since the start.
    at: f64,
    /// How full the table is, from 0 to 1.
    fullness: f64,
    /// The numbers of the dead addresses that may be in it.
    dead: std::ops::Range<usize>,
    dead_reach: f64,
    is_recent_only: bool,
}

/// A node's reply to `getaddr`, at calendar time `wall`.
pub(super) fn reply(churn: &Churn, node: usize, round: u64, wall: u32) -> Vec<Entry> {
    let spec = &churn.nodes[node];
    if !spec.sends_peers {
        return Vec::new();
    }
    let now = f64::from(wall.saturating_sub(WALL));
    if churn.floods(node) {
        return invented(churn, wall);
    }
    let caches = matches!(spec.manner, Manner::NewCore | Manner::OldCore);
    let (at, round) = if caches { cached(churn, node, now) } else { (now, round) };
    let table = Table::new(churn, node, at);
    let mut rng = fastrand::Rng::with_seed(mix(churn.params.seed, node as u64, round));
    let mut entries = Vec::with_capacity(1_001);
    if spec.announces == Announces::InReply {
        entries.push(Entry::ipv4(spec.address, spec.services, wall));
    }
    let most = spec.manner.most_peers();
    let length = (table.reply_length(spec.manner)).min(most - entries.len());
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

/// A thousand addresses that nobody has ever heard of.
fn invented(churn: &Churn, wall: u32) -> Vec<Entry> {
    let all = churn.dead_until(churn.params.days * DAY) + 1;
    let first = all + churn.invented.fetch_add(1_000, Ordering::Relaxed);
    let fresh = (first..first + 1_000).map(|index| churn.places.dead(index));
    fresh.map(|address| Entry::ipv4(address, 1033, wall.saturating_sub(600))).collect()
}

impl<'a> Table<'a> {
    fn new(churn: &'a Churn, teller: usize, at: f64) -> Self {
        // Caches that were filled before the start were filled from what is in gossip then.
        let until = churn.dead_until(at.max(0.0));
        let is_recent_only = churn.nodes[teller].manner == Manner::Trb;
        let since = match is_recent_only {
            true => churn.dead_until(at - TRB_WINDOW),
            false => until.saturating_sub(churn.params.dead),
        };
        let fullness = churn.nodes[teller].table as f64 / 1e6;
        // In a flood a table is full of dead addresses, each in fewer tables.
        let dead_reach = DEAD_REACH.min(DEAD_ROOM / churn.params.dead.max(1) as f64);
        Self { churn, teller, at, fullness, dead: since..until, dead_reach, is_recent_only }
    }

    fn size(&self) -> f64 {
        let nodes = self.churn.params.up as f64 * NODE_REACH;
        self.fullness * (nodes + self.dead.len() as f64 * self.dead_reach)
    }

    fn reply_length(&self, manner: Manner) -> usize {
        let length = match manner {
            Manner::Trb => self.size() * TRB_HEARS,
            Manner::Bcoin => self.size(),
            Manner::Gocoin => self.size() / 5.0,
            _ => self.size() * 0.23,
        };
        (length as usize).clamp(2, manner.most_peers())
    }

    /// Draws different addresses of the table. May give fewer, where the table is small.
    fn draw(&self, count: usize, rng: &mut fastrand::Rng, entries: &mut Vec<Entry>) {
        let nodes = self.churn.nodes.len();
        // A node that is picked may not be in the table, a dead address always is.
        let dead_weight = self.dead.len() as f64 * self.dead_reach * self.fullness;
        let knows_dead = self.churn.nodes[self.teller].manner != Manner::Gocoin;
        let knows_dead = knows_dead && !self.dead.is_empty();
        let dead_share = if knows_dead { dead_weight / (dead_weight + nodes as f64) } else { 0.0 };
        let mut met: HashSet<usize, foldhash::fast::FixedState> = HashSet::default();
        met.insert(self.teller);
        let enough = entries.len() + count;
        for _ in 0..count * MOST_TRIES {
            if entries.len() >= enough {
                break;
            }
            // A coin for each class, weighted so that every member of the table is as likely as any other.
            let at = match rng.f64() < dead_share {
                true => nodes + self.dead_member(rng),
                false => match rng.usize(..nodes) {
                    at if self.has_node(at) => at,
                    _ => continue,
                },
            };
            if met.insert(at) {
                entries.push(self.entry(at, rng));
            }
        }
    }

    /// A dead address of the table: looked for until there is one, since few are in it.
    fn dead_member(&self, rng: &mut fastrand::Rng) -> usize {
        let mut index = rng.usize(self.dead.clone());
        for _ in 0..MOST_TRIES {
            let age = self.at.max(0.0) - self.churn.dead_since(index);
            let share = self.fullness * self.dead_reach * spread(age, DEAD_SPREAD);
            if self.pair(index + self.churn.nodes.len(), MEMBER) < share {
                break;
            }
            index = rng.usize(self.dead.clone());
        }
        index
    }

    fn has_node(&self, at: usize) -> bool {
        let life = &self.churn.lives[at];
        let age = self.at - life.born as f64;
        // The teller's fullness is in the length of its reply; here it only says who is in.
        let share = self.fullness * NODE_REACH * spread(age, NODE_SPREAD);
        if age < 0.0 || self.pair(at, MEMBER) >= share {
            return false;
        }
        let gone = self.at - life.gone as f64;
        if gone > 30.0 * DAY || gone > 0.0 && self.pair(at, MEMORY) >= (-gone / FORGOTTEN).exp() {
            return false;
        }
        let turn = (self.at / TRB_WINDOW) as u64;
        !self.is_recent_only || gone <= 0.0 && self.pair(at, RECENT + turn) < TRB_HEARS
    }

    /// A number from 0 to 1 that belongs to the teller and the address.
    fn pair(&self, at: usize, purpose: u64) -> f64 {
        self.churn.draw((self.teller as u64) << 32 | at as u64, purpose)
    }

    fn entry(&self, at: usize, rng: &mut fastrand::Rng) -> Entry {
        let churn = self.churn;
        let wall = (f64::from(WALL) + self.at) as u32;
        let time = seen(churn.nodes[self.teller].manner, wall, rng);
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

/// How far an address has spread that is `age` seconds old.
fn spread(age: f64, mean: f64) -> f64 {
    1.0 - (-age.max(0.0) / mean).exp()
}

const MOST_TRIES: usize = 200;
