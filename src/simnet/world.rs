//! `World`: all the nodes and dead addresses of a simulated network, drawn from one seed.
//!
//! Layer 2: pure; no socket, clock or file. Who knows whom stands in `knowledge`.
//!
//! Invariants:
//! 1. The same parameters give the same world, on every machine.
//! 2. No two addresses are equal; all lie in `net` and none in 127.0.0.0/16, from where the crawler calls.
//! 3. A refusing address never has a port that is served for all of 127.0.0.0/8 ([`World::shared_ports`]).
//! 4. Every node can be reached from the seeds, whatever the nodes that send no peers.
//! 5. A zoo changes neither the nodes nor the dead nor the seeds.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::crawl::address::Address;
use crate::simnet::distribution::{Distributions, Weighted};
use crate::simnet::knowledge::{Entry, Knowledge};
use crate::simnet::manner::{Announces, Manner};
use crate::simnet::zoo::{self, Beast};

/// What a world is made from.
#[derive(Clone, Debug)]
pub struct WorldParams {
    /// The seed of everything that is drawn.
    pub seed: u64,
    /// How many nodes there are.
    pub nodes: usize,
    /// How many addresses swallow every attempt to connect.
    pub silent: usize,
    /// How many addresses refuse to connect.
    pub refusing: usize,
    /// How many of the nodes are TRB; `None`: 1 %, and at least one of every known user agent.
    pub trb: Option<usize>,
    /// How many of each beast of the zoo there are.
    pub zoo: usize,
    /// How many nodes the crawl starts from.
    pub seeds: usize,
    /// Which share of the nodes has no peers to send; no TRB node, rare node or seed is among them.
    pub mute_share: f64,
    /// Which share of a reply's entries is odd: other networks, doubles, port 0, private addresses.
    pub odd_share: f64,
    /// Which share of the nodes that send peers fills up each reply with addresses that it invents for it.
    pub flood_share: f64,
    /// The net that all addresses are taken from, inside 127.0.0.0/8.
    pub net: Ipv4Net,
    /// Added to every port, see [`local_port`].
    pub port_offset: u16,
    /// The height of the chain.
    pub tip: i32,
    /// The calendar time at which the conversations' clocks stand at zero, in seconds since 1970.
    pub wall: u32,
    /// What the nodes' delays are multiplied with.
    pub time_scale: f64,
    /// What the round trip times are multiplied with, besides `time_scale`; 0 for none.
    pub latency: f64,
}

impl Default for WorldParams {
    fn default() -> Self {
        Self {
            seed: 1,
            nodes: 2000,
            silent: 4980,
            refusing: 1020,
            trb: None,
            zoo: 0,
            seeds: 20,
            mute_share: 0.28,
            odd_share: 0.02,
            flood_share: 0.0,
            net: LOOPBACK,
            port_offset: 0,
            tip: TIP,
            wall: WALL,
            time_scale: 1.0,
            latency: 1.0,
        }
    }
}

/// A node: what it says of itself, and how it behaves.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeSpec {
    /// Where it listens.
    pub address: Address,
    /// The protocol version that it sends.
    pub protocol_version: i32,
    /// The service bits that it sends.
    pub services: u64,
    /// The user agent's bytes.
    pub user_agent: Vec<u8>,
    /// The height that it sends.
    pub start_height: i32,
    /// The relay byte; `None`: its `version` ends before it.
    pub relay: Option<bool>,
    /// How it behaves.
    pub manner: Manner,
    /// When it tells its own address.
    pub announces: Announces,
    /// Whether it answers `getaddr` at all.
    pub sends_peers: bool,
    /// How many addresses it knows.
    pub table: usize,
    /// The round trip time to it.
    pub rtt: Duration,
    /// By how many seconds its clock is wrong.
    pub clock_offset: i32,
    /// How many peers share the trickle turns of an old poll loop: the mean delay is 100 ms for each.
    pub trickle_peers: u16,
}

/// An address without a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dead {
    /// The address.
    pub address: Address,
    /// How it is dead.
    pub kind: DeadKind,
}

/// How an address without a node behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeadKind {
    /// It never answers.
    Silent,
    /// It resets at once.
    Refusing,
}

impl DeadKind {
    /// The name in `dead.tsv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Refusing => "refusing",
        }
    }
}

/// An address where a beast of the zoo lives.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Den {
    /// The address.
    pub address: Address,
    /// Which beast, by its place in [`World::beasts`].
    pub beast: usize,
}

/// Why a world cannot be made.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WorldError {
    /// The net is not inside 127.0.0.0/8.
    NotLoopback(Ipv4Net),
    /// The net has too few addresses.
    NetTooSmall(Ipv4Net),
    /// There are no nodes, or no seeds.
    Empty,
    /// The nodes cannot tell of so many addresses.
    TooFewSenders {
        /// How many nodes send peers.
        senders: usize,
        /// How many addresses there are.
        addresses: usize,
    },
}

impl fmt::Display for WorldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoopback(net) => write!(f, "{net} is not inside 127.0.0.0/8"),
            Self::NetTooSmall(net) => write!(f, "{net} has too few addresses for this many nodes"),
            Self::Empty => write!(f, "a network needs at least one node and one seed"),
            Self::TooFewSenders { senders, addresses } => write!(
                f,
                "{senders} nodes that send peers cannot tell of {addresses} addresses: \
                 ask for more nodes or fewer dead addresses"
            ),
        }
    }
}

impl std::error::Error for WorldError {}

/// A whole simulated network.
#[derive(Debug)]
pub struct World {
    params: WorldParams,
    nodes: Vec<NodeSpec>,
    dead: Vec<Dead>,
    beasts: Vec<Beast>,
    dens: Vec<Den>,
    seeds: Vec<usize>,
    shared_ports: Vec<u16>,
    by_address: HashMap<Address, usize>,
    dead_by_address: HashMap<Address, usize>,
    dens_by_address: HashMap<Address, usize>,
    knowledge: Knowledge,
}

impl World {
    /// Draws a world.
    ///
    /// # Errors
    ///
    /// If the net, or the number of nodes that send peers, is too small for what is asked.
    pub fn generate(params: &WorldParams) -> Result<Self, WorldError> {
        if !LOOPBACK.contains(&params.net) {
            return Err(WorldError::NotLoopback(params.net));
        }
        if params.nodes == 0 || params.seeds == 0 {
            return Err(WorldError::Empty);
        }
        let distributions = Distributions::load();
        let mut rng = fastrand::Rng::with_seed(params.seed);
        let mut places = Places::new(params, &distributions);
        let mut nodes = draw::nodes(params, &distributions, &mut places, &mut rng)?;
        let dead = draw::dead(params, &mut places, &mut rng)?;
        rng.shuffle(&mut nodes);
        let seeds = draw::seeds(params, &mut nodes, &mut rng);
        let beasts = if params.zoo > 0 { zoo::all() } else { Vec::new() };
        let dens = draw::dens(params, &beasts, &mut places)?;
        let knowledge = Knowledge::draw(&nodes, dead.len() + dens.len(), &seeds, &mut rng)?;
        Ok(Self {
            params: params.clone(),
            by_address: nodes.iter().enumerate().map(|(at, node)| (node.address, at)).collect(),
            dead_by_address: dead.iter().enumerate().map(|(at, dead)| (dead.address, at)).collect(),
            dens_by_address: dens.iter().enumerate().map(|(at, den)| (den.address, at)).collect(),
            shared_ports: places.shared_ports,
            nodes,
            dead,
            beasts,
            dens,
            seeds,
            knowledge,
        })
    }

    /// What it was made from.
    pub fn params(&self) -> &WorldParams {
        &self.params
    }

    /// All nodes.
    pub fn nodes(&self) -> &[NodeSpec] {
        &self.nodes
    }

    /// All addresses without a node.
    pub fn dead(&self) -> &[Dead] {
        &self.dead
    }

    /// The kinds of beasts; none without a zoo.
    pub fn beasts(&self) -> &[Beast] {
        &self.beasts
    }

    /// All addresses where beasts live.
    pub fn dens(&self) -> &[Den] {
        &self.dens
    }

    /// How many addresses have no node: the dead, and behind them the dens.
    pub fn others(&self) -> usize {
        self.dead.len() + self.dens.len()
    }

    /// Which of the nodes a crawl starts from, by their places in [`World::nodes`].
    pub fn seeds(&self) -> &[usize] {
        &self.seeds
    }

    /// The ports that so many nodes share that each is served by one listener for all addresses.
    pub fn shared_ports(&self) -> &[u16] {
        &self.shared_ports
    }

    /// The place of the node at an address in [`World::nodes`].
    pub fn find(&self, address: Address) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// The place of a dead address in [`World::dead`].
    pub fn find_dead(&self, address: Address) -> Option<usize> {
        self.dead_by_address.get(&address).copied()
    }

    /// The place of the den at an address, counted behind the nodes and the dead.
    pub fn find_den(&self, address: Address) -> Option<usize> {
        let den = self.dens_by_address.get(&address)?;
        Some(self.nodes.len() + self.dead.len() + den)
    }

    /// The den at a place, counted in the same way.
    pub fn den(&self, place: usize) -> Option<&Den> {
        self.dens.get(place.checked_sub(self.nodes.len() + self.dead.len())?)
    }

    /// The beast at a place, counted in the same way.
    pub fn beast(&self, place: usize) -> Option<&Beast> {
        self.beasts.get(self.den(place)?.beast)
    }

    /// The entries of a node's reply to its `round`th `getaddr`, at calendar time `wall`. Empty for a
    /// node that sends no peers.
    pub fn reply(&self, node: usize, round: u64, wall: u32) -> Vec<Entry> {
        self.knowledge.reply(self, node, round, wall)
    }

    /// How many entries every reply of a node has.
    pub fn reply_length(&self, node: usize) -> usize {
        self.knowledge.reply_length(self, node)
    }

    /// Whether a node invents addresses.
    pub fn floods(&self, node: usize) -> bool {
        self.knowledge.floods(self, node)
    }

    /// The calendar time when `now` has passed since the start, in seconds since 1970.
    pub fn wall(&self, now: Duration) -> u32 {
        let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        self.params.wall.saturating_add(seconds)
    }
}

/// The port that stands for `real` in a simulated network with a port offset.
///
/// `real + offset`, if that lies in 1024..=32767; otherwise folded back into that range. Ports below it
/// are for the superuser only; those above it are handed to outgoing connections, the crawler's among
/// them, which could keep a listener from being opened.
pub fn local_port(real: u16, offset: u16) -> u16 {
    let port = u32::from(real) + u32::from(offset);
    let port = if port < LOW_PORT { port + LOW_PORT } else { port };
    (LOW_PORT + (port - LOW_PORT) % PORT_SPAN) as u16
}

/// Hands out addresses, each once.
struct Places {
    net: Ipv4Net,
    shared_ports: Vec<u16>,
    /// All ports, and those that are not shared, as nodes use them.
    ports: Weighted<u16>,
    rare_ports: Weighted<u16>,
    taken: HashSet<Ipv4Addr>,
}

impl Places {
    fn new(params: &WorldParams, distributions: &Distributions) -> Self {
        let local = |port: &u16| local_port(*port, params.port_offset);
        let is_shared = |nodes: u64| nodes >= SHARED_PORT_NODES;
        let all = || distributions.ports.iter();
        let mut shared_ports: Vec<u16> =
            all().filter(|(_, nodes)| is_shared(*nodes)).map(|(port, _)| local(port)).collect();
        shared_ports.sort_unstable();
        shared_ports.dedup();
        // A rare port that folds onto a shared one is left out: invariant 3.
        let rare = |port: &u16, nodes: u64| {
            !is_shared(nodes) && shared_ports.binary_search(&local(port)).is_err()
        };
        Self {
            net: params.net,
            ports: all()
                .filter(|(port, nodes)| is_shared(*nodes) || rare(port, *nodes))
                .map(|(port, nodes)| (nodes, local(port)))
                .collect(),
            rare_ports: all()
                .filter(|(port, nodes)| rare(port, *nodes))
                .map(|(port, nodes)| (nodes, local(port)))
                .collect(),
            taken: HashSet::new(),
            shared_ports,
        }
    }

    /// An IP address that nobody has yet.
    fn ip(&mut self, rng: &mut fastrand::Rng) -> Result<Ipv4Addr, WorldError> {
        let (first, last) = (u32::from(self.net.network()), u32::from(self.net.broadcast()));
        // A net that is nearly full would be searched for ever.
        for _ in 0..TRIES {
            let ip = Ipv4Addr::from(rng.u32(first..=last));
            let [_, second, _, last] = ip.octets();
            if second != 0 && last != 0 && last != 255 && self.taken.insert(ip) {
                return Ok(ip);
            }
        }
        Err(WorldError::NetTooSmall(self.net))
    }

    fn port(&self, rng: &mut fastrand::Rng) -> u16 {
        self.ports.draw(rng).copied().unwrap_or(8333)
    }

    fn rare_port(&self, rng: &mut fastrand::Rng) -> u16 {
        self.rare_ports.draw(rng).copied().unwrap_or(8335)
    }
}

pub(super) mod draw;

const LOOPBACK: Ipv4Net = Ipv4Net::new_assert(Ipv4Addr::new(127, 0, 0, 0), 8);
/// The tip of the snapshot from which the heights' lags are taken.
const TIP: i32 = 946_947;
/// 2026-04-28, the day of that snapshot.
pub(super) const WALL: u32 = 1_777_339_673;
/// A port that this many of the real network's nodes use is served by one listener for all.
const SHARED_PORT_NODES: u64 = 14;
const LOW_PORT: u32 = 1024;
const PORT_SPAN: u32 = 32_768 - LOW_PORT;
const TRIES: usize = 10_000;

#[cfg(test)]
mod tests;
