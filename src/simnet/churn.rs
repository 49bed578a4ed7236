//! `Churn`: a network of the real one's size that lives: nodes come, go, fail and return, and dead addresses
//! are gossiped without end.
//!
//! Layer 2: pure. All lives are drawn at the start and everything else is a function of the seed and the time, so
//! that nothing has to be stored for a million dead addresses. It is dialled in virtual time only: its addresses
//! are public ones, and no socket is ever opened for them.
//!
//! Invariants: 1. the same parameters give the same network at every time; 2. no two addresses are equal, and none
//! is of a special-purpose range; 3. a reply holds only what can have reached the teller when it was put together.

mod gossip;
mod known;
mod life;
mod places;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::crawl::address::Address;
use crate::simnet::distribution::Distributions;
use crate::simnet::knowledge::{Entry, mix};
use crate::simnet::network::{Answer, Home, Network};
use crate::simnet::world::{NodeSpec, WALL, WorldParams, draw};
pub use life::{Life, Mood};
use places::Places;

/// What a living network is made from.
#[derive(Clone, Debug)]
pub struct ChurnParams {
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// How long it lives, in days.
    pub days: f64,
    /// How many nodes are up at a time.
    pub up: usize,
    /// How many nodes there ever were at the start, those that are gone for good included.
    pub ever: usize,
    /// How many nodes are born in a day, and how many die.
    pub births_per_day: f64,
    /// Which share of the nodes is stable; the others flap.
    pub stable_share: f64,
    /// Which share of the nodes sends no peers.
    pub mute_share: f64,
    /// How many of the nodes are TRB.
    pub trb: usize,
    /// How many nodes a crawl that knows nobody begins with.
    pub seeds: usize,
    /// How many dead addresses are in gossip at a time.
    pub dead: usize,
    /// How many new ones come in a day; as many leave the gossip.
    pub dead_per_day: usize,
    /// For so many days before the start dead addresses have come and gone: a full database knows them.
    pub history_days: usize,
    /// Which share of the dead addresses never answers; the others refuse.
    pub silent_share: f64,
    /// Which share of the nodes that send peers invents a thousand fresh addresses for each reply.
    pub flood_share: f64,
}

impl Default for ChurnParams {
    fn default() -> Self {
        Self {
            seed: 1,
            days: 3.0,
            up: 9_000,
            ever: 19_000,
            births_per_day: 100.0,
            stable_share: 0.85,
            mute_share: 0.28,
            trb: 2,
            seeds: 50,
            dead: 500_000,
            dead_per_day: 250_000,
            history_days: 0,
            silent_share: 0.83,
            flood_share: 0.0,
        }
    }
}

impl ChurnParams {
    /// The same network with everything that is counted multiplied.
    pub fn scaled(mut self, by: f64) -> Self {
        let scale = |count: &mut usize| *count = (*count as f64 * by).ceil() as usize;
        for count in [&mut self.up, &mut self.ever, &mut self.dead, &mut self.dead_per_day] {
            scale(count);
        }
        self.births_per_day *= by;
        self
    }
}

/// A living network.
#[derive(Debug)]
pub struct Churn {
    params: ChurnParams,
    places: Places,
    nodes: Vec<NodeSpec>,
    lives: Vec<Life>,
    by_address: HashMap<Address, usize>,
    seeds: Vec<usize>,
    /// How many addresses the flooding nodes have invented so far.
    invented: AtomicUsize,
}

impl Churn {
    /// Draws a network.
    pub fn generate(params: &ChurnParams) -> Self {
        let mut rng = fastrand::Rng::with_seed(params.seed);
        let distributions = Distributions::load();
        let lives = life::draw(params, &mut rng);
        let places = Places::new(params.seed, &distributions);
        let world = WorldParams {
            mute_share: params.mute_share,
            // A table in millionths of what could be known.
            nodes: 1_000_000,
            silent: 0,
            refusing: 0,
            ..WorldParams::default()
        };
        let mut by_address = HashMap::new();
        let mut nodes: Vec<NodeSpec> = Vec::with_capacity(lives.len());
        let mut trb = (0..params.trb).peekable();
        for (at, life) in lives.iter().enumerate() {
            let mut address = places.node(&mut rng);
            while by_address.contains_key(&address) {
                address = places.node(&mut rng);
            }
            by_address.insert(address, at);
            let trb = if life.is_up(0) { trb.next() } else { None };
            nodes.push(draw::lone_node(&world, &distributions, address, trb, &mut rng));
        }
        let mut seeds: Vec<usize> =
            (0..nodes.len()).filter(|at| lives[*at].is_up(0) && nodes[*at].sends_peers).collect();
        rng.shuffle(&mut seeds);
        seeds.truncate(params.seeds);
        let invented = AtomicUsize::new(0);
        Self { params: params.clone(), places, nodes, lives, by_address, seeds, invented }
    }

    /// What it was made from.
    pub fn params(&self) -> &ChurnParams {
        &self.params
    }

    /// All nodes that ever are: those of the start, those that were gone then, those born later.
    pub fn nodes(&self) -> &[NodeSpec] {
        &self.nodes
    }

    /// Their lives.
    pub fn lives(&self) -> &[Life] {
        &self.lives
    }

    /// The place of the node at an address.
    pub fn find(&self, address: Address) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// How many addresses have been invented so far.
    pub fn invented(&self) -> usize {
        self.invented.load(Ordering::Relaxed)
    }

    /// Whether the node floods.
    pub fn floods(&self, node: usize) -> bool {
        self.nodes[node].sends_peers && self.draw(node as u64, FLOOD) < self.params.flood_share
    }

    /// A number from 0 to 1 that belongs to `what` for ever.
    fn draw(&self, what: u64, purpose: u64) -> f64 {
        (mix(self.params.seed, what, purpose) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// How many dead addresses there were before those that are in gossip at the start.
    fn before(&self) -> usize {
        self.params.history_days * self.params.dead_per_day
    }

    /// How many dead addresses have ever been gossiped `at` seconds after the start.
    fn dead_until(&self, at: f64) -> usize {
        let fresh = self.params.dead_per_day as f64 * at / DAY;
        ((self.before() + self.params.dead) as f64 + fresh).max(0.0) as usize
    }

    /// When a dead address was gossiped first, in seconds after the start.
    fn dead_since(&self, index: usize) -> f64 {
        let place = index as f64 - (self.before() + self.params.dead) as f64;
        place / self.params.dead_per_day.max(1) as f64 * DAY
    }

    fn dead_answer(&self, key: u64, rng: &mut fastrand::Rng) -> Answer {
        match self.draw(key, SILENCE) < self.params.silent_share {
            true => Answer::Silence,
            false => Answer::refusal(rng),
        }
    }
}

impl Home for Churn {
    fn spec(&self, node: usize) -> &NodeSpec {
        // Places of nodes come from the network itself, and it does not shrink.
        &self.nodes[node]
    }

    fn wall(&self, now: Duration) -> u32 {
        WALL + now.as_secs() as u32
    }

    fn time_scale(&self) -> f64 {
        1.0
    }

    fn latency(&self) -> f64 {
        1.0
    }

    fn reply(&self, node: usize, round: u64, wall: u32) -> Vec<Entry> {
        gossip::reply(self, node, round, wall)
    }
}

impl Network for Churn {
    fn dial(&self, address: Address, now: Duration, rng: &mut fastrand::Rng) -> Answer {
        match self.find(address) {
            Some(node) if self.lives[node].is_up(now.as_secs() as i64) => {
                Answer::Accepted(self.nodes[node].rtt, node)
            }
            _ => self.dead_answer(address.to_bits(), rng),
        }
    }

    fn place(&self, address: Address) -> Option<usize> {
        let most = self.dead_until(self.params.days * DAY) + 1 + self.invented();
        let dead = || self.places.dead_index(address).filter(|index| *index < most);
        self.find(address).or_else(|| dead().map(|index| index + self.nodes.len()))
    }

    fn seed_addresses(&self) -> Vec<Address> {
        self.seeds.iter().map(|seed| self.nodes[*seed].address).collect()
    }
}

const DAY: f64 = 86_400.0;
// What numbers are drawn for.
const FLOOD: u64 = 1;
const SILENCE: u64 = 2;
const CACHE_PERIOD: u64 = 3;
const CACHE_PHASE: u64 = 4;
const MEMBER: u64 = 5;
const MEMORY: u64 = 6;
const RECENT: u64 = 7;

#[cfg(test)]
mod tests;
