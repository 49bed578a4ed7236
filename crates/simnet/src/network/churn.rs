//! `Churn`: a network of the real one's size in which nodes come, go, fail and return. Sans-I/O.
//!
//! All lives are drawn at the start; everything else is a function of the seed and the time, so
//! that nothing is stored for a million dead addresses. It is dialled in virtual time only: its
//! addresses are public, and no socket is ever opened for them.
//!
//! Invariants:
//! 1. The same parameters give the same network at every time.
//! 2. Addresses are unique, and none is in a special-purpose range.
//! 3. A reply contains only addresses that can have reached its sender by then.

pub mod attack;
mod gossip;
mod known;
mod life;
mod places;
mod unreachable;

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use crate::network::distribution::Distributions;
use crate::network::gossip::{Entry, mix};
use crate::network::world::{NodeSpec, WALL, WorldParams, draw};
use crate::network::{Answer, Network, PeerDirectory};
use attack::Attack;
use bitdash_core::vocabulary::address::Address;
pub use life::{Life, Reliability};
use places::Places;

/// Parameters of a network with churn.
#[derive(Clone, Debug)]
pub struct ChurnParams {
    /// Seed of the random numbers.
    pub seed: u64,
    /// Its duration, in days.
    pub days: f64,
    /// Number of nodes that are up at a time.
    pub up: usize,
    /// Number of nodes up to the start, including those that are gone for good.
    pub ever: usize,
    /// Births per day; as many nodes die.
    pub births_per_day: f64,
    /// Share of the nodes that are stable; the others flap.
    pub stable_share: f64,
    /// Share of the nodes that send no peers.
    pub mute_share: f64,
    /// Number of TRB nodes.
    pub trb: usize,
    /// Number of seeds.
    pub seeds: usize,
    /// Number of dead addresses in gossip at a time.
    pub dead: usize,
    /// New dead addresses per day; as many leave the gossip.
    pub dead_per_day: usize,
    /// Days before the start in which dead addresses came and went: a full database has them.
    pub history_days: usize,
    /// Share of the dead addresses that are silent; the others refuse.
    pub silent_share: f64,
    /// Share of the peer-sending nodes that invent 1000 addresses for each reply.
    pub flood_share: f64,
    /// Number of real nodes that announce themselves but accept no connection, at a time.
    pub unreachable: usize,
    /// How many of them come per day; as many leave.
    pub unreachable_per_day: usize,
    /// What the times of entries say.
    pub times: Times,
    /// Share of a reply that is of other networks.
    pub foreign_share: f64,
    /// Share of the tables that contain a dead address.
    pub dead_reach: f64,
    /// Maximum number of dead addresses in a table; it bounds the effect of floods.
    pub max_dead_per_table: f64,
    /// Share of the first packets that are lost: such a connection takes a second longer.
    pub syn_loss: f64,
    /// Whether Core before 0.21 draws a new reply for each `getaddr`, as it does.
    pub old_core_resamples: bool,
    /// Whether a fifth of the nodes is in few tables.
    pub has_uneven_reach: bool,
    /// Nodes that attack the crawl.
    pub attack: Attack,
}

/// What the times of entries say.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Times {
    /// Nothing: they are drawn from one distribution for dead and live addresses.
    Random,
    /// When the address was last announced.
    Announced,
    /// The same for all, as proposed for Bitcoin Core against fingerprinting.
    Flat,
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
            unreachable: 0,
            unreachable_per_day: 0,
            times: Times::Random,
            foreign_share: 0.1,
            dead_reach: 0.07,
            max_dead_per_table: 60_000.0,
            syn_loss: 0.0,
            old_core_resamples: false,
            has_uneven_reach: false,
            attack: Attack::default(),
        }
    }
}

impl ChurnParams {
    /// A network whose gossip is closer to that of the real one.
    pub fn real() -> Self {
        Self {
            // Assumed: four nodes behind NAT routers for each one that can be reached (studies that
            // listen to announcements count 30,000 to 60,000), of which 7.5 % change address a day.
            unreachable: 40_000,
            unreachable_per_day: 3_000,
            // addrman.cpp: `nTime` is the time of the last announcement, less a penalty.
            times: Times::Announced,
            // Share of IPv6 entries in sampled replies.
            foreign_share: 0.33,
            // Assumed: half a million dead addresses fill the 2 % of a table that live ones leave.
            dead_reach: 0.016,
            max_dead_per_table: 30_000.0,
            // Assumed; a lost SYN is repeated after a second (RFC 6298).
            syn_loss: 0.02,
            // Core caches replies since 0.21 (bitcoin/bitcoin#18991).
            old_core_resamples: true,
            ..Self::default()
        }
    }

    /// Multiplies every number of nodes and addresses.
    pub fn scaled(mut self, by: f64) -> Self {
        let scale = |count: &mut usize| *count = (*count as f64 * by).ceil() as usize;
        for count in [&mut self.up, &mut self.ever, &mut self.dead, &mut self.dead_per_day] {
            scale(count);
        }
        let attack = &mut self.attack;
        for count in [&mut self.unreachable, &mut self.unreachable_per_day, &mut attack.liars] {
            scale(count);
        }
        self.births_per_day *= by;
        self
    }
}

/// A network with churn.
#[derive(Debug)]
pub struct Churn {
    params: ChurnParams,
    places: Places,
    nodes: Vec<NodeSpec>,
    lives: Vec<Life>,
    by_address: HashMap<Address, usize>,
    seeds: Vec<usize>,
    /// Number of addresses that flooding nodes have invented so far.
    invented: AtomicUsize,
    /// The index of the first liar; they come last.
    first_liar: usize,
}

impl Churn {
    /// Generates a network.
    pub fn generate(params: &ChurnParams) -> Self {
        let mut rng = fastrand::Rng::with_seed(params.seed);
        let distributions = Distributions::load();
        let lives = life::draw(params, &mut rng);
        let places = Places::new(params.seed, &distributions);
        let world = WorldParams {
            mute_share: params.mute_share,
            // Tables in millionths of all addresses.
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
        let first_liar = nodes.len();
        let mut seeds: Vec<usize> =
            (0..first_liar).filter(|at| lives[*at].is_up(0) && nodes[*at].sends_peers).collect();
        rng.shuffle(&mut seeds);
        seeds.truncate(params.seeds);
        let invented = AtomicUsize::new(0);
        let params = params.clone();
        let mut churn =
            Self { params, places, nodes, lives, by_address, seeds, invented, first_liar };
        churn.add_liars(&world, &distributions, &mut rng);
        churn
    }

    /// Its parameters.
    pub fn params(&self) -> &ChurnParams {
        &self.params
    }

    /// All nodes: those alive at the start, those gone by then, those born later.
    pub fn nodes(&self) -> &[NodeSpec] {
        &self.nodes
    }

    /// Their lives.
    pub fn lives(&self) -> &[Life] {
        &self.lives
    }

    /// The index of the node at an address.
    pub fn find(&self, address: Address) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// Number of addresses that were invented so far.
    pub fn invented(&self) -> usize {
        self.invented.load(Ordering::Relaxed)
    }

    /// Whether a node floods.
    pub fn floods(&self, node: usize) -> bool {
        self.nodes[node].sends_peers && self.draw(node as u64, FLOOD) < self.params.flood_share
    }

    /// A number from 0 to 1 that depends on `what` and `purpose` alone.
    fn draw(&self, what: u64, purpose: u64) -> f64 {
        (mix(self.params.seed, what, purpose) >> 11) as f64 / (1_u64 << 53) as f64
    }

    /// Number of dead addresses that left the gossip before the start.
    fn before(&self) -> usize {
        self.params.history_days * self.params.dead_per_day
    }

    /// Number of dead addresses that were gossiped up to `at` seconds after the start.
    fn dead_until(&self, at: f64) -> usize {
        let fresh = self.params.dead_per_day as f64 * at / DAY;
        ((self.before() + self.params.dead) as f64 + fresh).max(0.0) as usize
    }

    /// When a dead address was first gossiped, in seconds after the start.
    fn dead_since(&self, index: usize) -> f64 {
        let place = index as f64 - (self.before() + self.params.dead) as f64;
        place / self.params.dead_per_day.max(1) as f64 * DAY
    }

    fn dead_answer(&self, key: u64, rng: &mut fastrand::Rng) -> Answer {
        if self.draw(key, SILENCE) < self.params.silent_share {
            Answer::Silence
        } else {
            Answer::refusal(rng)
        }
    }
}

impl PeerDirectory for Churn {
    fn spec(&self, node: usize) -> &NodeSpec {
        // Places come from the network itself, which does not shrink.
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
                let is_lost = self.params.syn_loss > 0.0 && rng.f64() < self.params.syn_loss;
                let late = Duration::from_secs(u64::from(is_lost));
                Answer::Accepted(self.nodes[node].rtt + late, node)
            }
            _ => self.dead_answer(address.to_bits(), rng),
        }
    }

    fn place(&self, address: Address) -> Option<usize> {
        let most = self.first_invented() + self.invented();
        let unreachable = self.unreachable_ever();
        let dead = || {
            let index = self.places.dead_index(address)?;
            match index.checked_sub(FIRST_UNREACHABLE) {
                Some(number) => (number < unreachable).then_some(number),
                None => (index < most).then_some(index + unreachable),
            }
        };
        self.find(address).or_else(|| dead().map(|index| index + self.nodes.len()))
    }

    fn seed_addresses(&self) -> Vec<Address> {
        self.seeds.iter().map(|seed| self.nodes[*seed].address).collect()
    }
}

const DAY: f64 = 86_400.0;
// Purposes of draws.
const FLOOD: u64 = 1;
const SILENCE: u64 = 2;
const CACHE_PERIOD: u64 = 3;
const CACHE_PHASE: u64 = 4;
const MEMBER: u64 = 5;
const MEMORY: u64 = 6;
const COMING: u64 = 7;
const UNREACHABLE_LIFE: u64 = 8;
const REACH: u64 = 9;
/// From here on there is one for every three hours.
const RECENT: u64 = 10;
/// Index of the dead address that is the first unreachable node's.
const FIRST_UNREACHABLE: usize = 90_000_000;

#[cfg(test)]
mod tests;
