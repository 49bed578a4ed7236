//! `World`: the nodes, misbehaving peers and dead addresses of a simulated network. Sans-I/O.
//!
//! Everything is drawn from one seed. Which node gossips which address is in `gossip`.
//!
//! Invariants:
//! 1. The same parameters give the same world on every machine.
//! 2. Addresses are unique and inside `net`; none is in 127.0.0.0/16, where the crawler's own are.
//! 3. A refusing address never has a port of [`World::shared_ports`], which are served for all of
//!    127.0.0.0/8.
//! 4. Every node can be reached from the seeds, although some nodes send no peers.
//! 5. Adding a zoo changes neither the nodes nor the dead addresses nor the seeds.

use std::collections::{HashMap, HashSet};
use std::fmt;
use std::net::Ipv4Addr;
use std::time::Duration;

use ipnet::Ipv4Net;

use crate::network::distribution::{Distributions, Weighted};
use crate::network::gossip::Gossip;
use crate::node::profile::{Announces, Profile};
use crate::zoo::{self, Claimed, Misbehaviour};
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::outcome::Outcome;

/// Parameters of a world.
#[derive(Clone, Debug)]
pub struct WorldParams {
    /// Seed of the random numbers.
    pub seed: u64,
    /// Number of nodes.
    pub nodes: usize,
    /// Number of silent addresses.
    pub silent: usize,
    /// Number of addresses that refuse.
    pub refusing: usize,
    /// Number of TRB nodes; `None`: 1 %, and at least one with each known user agent.
    pub trb: Option<usize>,
    /// Number of peers with each misbehaviour.
    pub zoo: usize,
    /// Number of seeds.
    pub seeds: usize,
    /// Share of the nodes that send no peers; TRB nodes, rare nodes and seeds always send some.
    pub mute_share: f64,
    /// Share of a reply's entries that is odd: other networks, duplicates, port 0, private
    /// addresses.
    pub odd_share: f64,
    /// Share of the peer-sending nodes that pad each reply with invented addresses.
    pub flood_share: f64,
    /// Network of all addresses, inside 127.0.0.0/8.
    pub net: Ipv4Net,
    /// Added to every port, see [`local_port`].
    pub port_offset: u16,
    /// Height of the chain.
    pub tip: i32,
    /// Wall clock at time zero, in seconds since 1970.
    pub wall: u32,
    /// Factor for the nodes' delays.
    pub time_scale: f64,
    /// Factor for the round-trip times, on top of `time_scale`.
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

/// A node: the fields of its `version` and its behaviour.
#[derive(Clone, PartialEq, Debug)]
pub struct NodeSpec {
    /// Its address.
    pub address: Address,
    /// The protocol version.
    pub protocol_version: i32,
    /// The service bits.
    pub services: u64,
    /// The user agent's bytes.
    pub user_agent: Vec<u8>,
    /// The height.
    pub start_height: i32,
    /// The relay byte; `None`: its `version` ends before it.
    pub relay: Option<bool>,
    /// Its behaviour.
    pub profile: Profile,
    /// When it announces its own address.
    pub announces: Announces,
    /// Whether it replies to `getaddr`.
    pub sends_peers: bool,
    /// Number of addresses in its table.
    pub table: usize,
    /// The round-trip time.
    pub rtt: Duration,
    /// Error of its clock, in seconds.
    pub clock_offset: i32,
    /// Number of peers that share the trickle turns of an old poll loop; 100 ms of mean delay each.
    pub trickle_peers: u16,
}

impl NodeSpec {
    /// The stored fields of its `version`.
    pub fn claimed(&self) -> Claimed {
        Claimed {
            protocol_version: self.protocol_version,
            services: self.services,
            user_agent: Some(self.user_agent.clone()),
            start_height: Some(self.start_height),
            relay: self.relay,
        }
    }
}

/// An address without a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Dead {
    /// The address.
    pub address: Address,
    /// Silent or refusing.
    pub kind: DeadKind,
}

/// How an address without a node behaves.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum DeadKind {
    /// It never answers.
    Silent,
    /// It refuses at once.
    Refusing,
}

impl DeadKind {
    /// The name in `truth.tsv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Silent => "silent",
            Self::Refusing => "refusing",
        }
    }

    /// How a probe ends.
    pub fn outcome(self) -> Outcome {
        match self {
            Self::Silent => Outcome::ConnectTimeout,
            Self::Refusing => Outcome::Refused,
        }
    }
}

/// An address with a misbehaving peer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Placement {
    /// The address.
    pub address: Address,
    /// Index in [`World::misbehaviours`].
    pub misbehaviour: usize,
}

/// Why a world cannot be generated.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum WorldError {
    /// The net is not inside 127.0.0.0/8.
    NotLoopback(Ipv4Net),
    /// The net has too few addresses.
    NetTooSmall(Ipv4Net),
    /// There are no nodes, or no seeds.
    Empty,
    /// The peer-sending nodes cannot gossip that many addresses.
    TooFewSenders {
        /// Nodes that send peers.
        senders: usize,
        /// Addresses to gossip.
        addresses: usize,
    },
}

impl fmt::Display for WorldError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotLoopback(net) => write!(f, "{net} is not inside 127.0.0.0/8"),
            Self::NetTooSmall(net) => write!(f, "{net} is too small for this network"),
            Self::Empty => write!(f, "a network needs at least one node and one seed"),
            Self::TooFewSenders { senders, addresses } => write!(
                f,
                "{senders} peer-sending nodes cannot gossip {addresses} addresses: \
                 ask for more nodes or fewer dead addresses"
            ),
        }
    }
}

impl std::error::Error for WorldError {}

/// A simulated network.
#[derive(Debug)]
pub struct World {
    params: WorldParams,
    nodes: Vec<NodeSpec>,
    dead: Vec<Dead>,
    misbehaviours: Vec<Misbehaviour>,
    placements: Vec<Placement>,
    seeds: Vec<usize>,
    shared_ports: Vec<u16>,
    by_address: HashMap<Address, usize>,
    dead_by_address: HashMap<Address, usize>,
    placements_by_address: HashMap<Address, usize>,
    pub(super) gossip: Gossip,
}

impl World {
    /// Generates a world.
    ///
    /// # Errors
    ///
    /// If the network or the number of peer-sending nodes is too small.
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
        let misbehaviours = if params.zoo > 0 { zoo::all() } else { Vec::new() };
        let placements = draw::placements(params, &misbehaviours, &mut places)?;
        let gossip = Gossip::draw(&nodes, dead.len() + placements.len(), &seeds, &mut rng)?;
        Ok(Self {
            params: params.clone(),
            by_address: nodes.iter().enumerate().map(|(at, node)| (node.address, at)).collect(),
            dead_by_address: dead.iter().enumerate().map(|(at, dead)| (dead.address, at)).collect(),
            placements_by_address: placements
                .iter()
                .enumerate()
                .map(|(at, placement)| (placement.address, at))
                .collect(),
            shared_ports: places.shared_ports,
            nodes,
            dead,
            misbehaviours,
            placements,
            seeds,
            gossip,
        })
    }

    /// Its parameters.
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

    /// The misbehaviours; none without a zoo.
    pub fn misbehaviours(&self) -> &[Misbehaviour] {
        &self.misbehaviours
    }

    /// All addresses with a misbehaving peer.
    pub fn placements(&self) -> &[Placement] {
        &self.placements
    }

    /// Number of dead addresses and placements.
    pub fn others(&self) -> usize {
        self.dead.len() + self.placements.len()
    }

    /// The seeds, as indices in [`World::nodes`].
    pub fn seeds(&self) -> &[usize] {
        &self.seeds
    }

    /// Ports that are common enough to be served by one listener for all addresses.
    pub fn shared_ports(&self) -> &[u16] {
        &self.shared_ports
    }

    /// The index of the node at an address in [`World::nodes`].
    pub fn find(&self, address: Address) -> Option<usize> {
        self.by_address.get(&address).copied()
    }

    /// The index of a dead address in [`World::dead`].
    pub fn find_dead(&self, address: Address) -> Option<usize> {
        self.dead_by_address.get(&address).copied()
    }

    /// The place of a placement; places count the nodes, the dead addresses, then the placements.
    pub fn find_placement(&self, address: Address) -> Option<usize> {
        let placement = self.placements_by_address.get(&address)?;
        Some(self.nodes.len() + self.dead.len() + placement)
    }

    /// The placement at a place.
    pub fn placement(&self, place: usize) -> Option<&Placement> {
        self.placements.get(place.checked_sub(self.nodes.len() + self.dead.len())?)
    }

    /// Number of entries in each reply of a node.
    pub fn reply_length(&self, node: usize) -> usize {
        self.gossip.reply_length(self, node)
    }

    /// Whether a node invents addresses.
    pub fn floods(&self, node: usize) -> bool {
        self.gossip.floods(self, node)
    }
}

/// The port that stands for `real` in a simulated network with a port offset.
///
/// `real + offset`, wrapped into 1024..=32767. Ports below that range need root; the kernel gives
/// those above it to outgoing connections, such as the crawler's, which could then block a
/// listener.
pub fn local_port(real: u16, offset: u16) -> u16 {
    let port = u32::from(real) + u32::from(offset);
    let port = if port < LOW_PORT { port + LOW_PORT } else { port };
    (LOW_PORT + (port - LOW_PORT) % PORT_SPAN) as u16
}

/// Allocates unique addresses.
struct Places {
    net: Ipv4Net,
    shared_ports: Vec<u16>,
    /// All ports as nodes use them, and those that are not shared.
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
        // A rare port that wraps onto a shared one is left out: invariant 3.
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

    /// An unused IP address.
    fn ip(&mut self, rng: &mut fastrand::Rng) -> Result<Ipv4Addr, WorldError> {
        let (first, last) = (u32::from(self.net.network()), u32::from(self.net.broadcast()));
        // A network that is nearly full would be searched forever.
        for _ in 0..MAX_TRIES {
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
/// Tip of the snapshot that the lags of heights are taken from.
const TIP: i32 = 946_947;
/// 2026-04-28, the day of that snapshot.
pub(crate) const WALL: u32 = 1_777_339_673;
/// Ports that at least this many nodes of the real network use get one listener for all addresses.
const SHARED_PORT_NODES: u64 = 14;
const LOW_PORT: u32 = 1024;
const PORT_SPAN: u32 = 32_768 - LOW_PORT;
const MAX_TRIES: usize = 10_000;

#[cfg(test)]
mod tests;
