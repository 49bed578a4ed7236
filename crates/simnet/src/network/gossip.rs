//! `Gossip`: which node gossips which addresses, and the entries of its replies. Sans-I/O.
//!
//! A reply is drawn when it is requested. Stored per node are only the entries that guarantee that
//! every address can be found.
//!
//! Invariants:
//! 1. Every node is gossiped by [`MIN_LIVE_COPIES`] other peer-sending nodes, or by all of them.
//! 2. Every dead address and every placement of the zoo is gossiped by at least one node.
//! 3. Every node is reachable from the seeds through replies.
//! 4. All replies of a node have the same length.
//! 5. No entry is a public address outside 127.0.0.0/8: entries that are not in the world are
//!    private or reserved, have port 0, or are invented inside the world's network.

use std::collections::HashSet;
use std::net::Ipv4Addr;

use crate::network::world::{NodeSpec, World, WorldError};
use crate::node::profile::{Announces, Profile};
use bitdash_core::vocabulary::address::Address;

/// One entry of an `addr` message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry {
    /// When it was last seen, in seconds since 1970.
    pub time: u32,
    /// The claimed services.
    pub services: u64,
    /// The address, IPv4 in its mapped form.
    pub ip: [u8; 16],
    /// The port.
    pub port: u16,
}

impl Entry {
    /// An entry for an IPv4 address.
    pub fn ipv4(address: Address, services: u64, time: u32) -> Self {
        Self { time, services, ip: address.ip().to_ipv6_mapped().octets(), port: address.port() }
    }

    /// Encodes it; without the time for versions below 31402.
    pub fn encode(&self, with_time: bool, out: &mut Vec<u8>) {
        if with_time {
            out.extend_from_slice(&self.time.to_le_bytes());
        }
        out.extend_from_slice(&self.services.to_le_bytes());
        out.extend_from_slice(&self.ip);
        out.extend_from_slice(&self.port.to_be_bytes());
    }
}

/// For each node, the addresses that all of its replies contain.
#[derive(Debug)]
pub(super) struct Gossip {
    /// Places of nodes and of other addresses.
    sure: Vec<Vec<u32>>,
}

impl Gossip {
    /// Draws which node always gossips which address.
    pub(super) fn draw(
        nodes: &[NodeSpec],
        dead: usize,
        seeds: &[usize],
        rng: &mut fastrand::Rng,
    ) -> Result<Self, WorldError> {
        let senders: Vec<usize> = (0..nodes.len()).filter(|at| nodes[*at].sends_peers).collect();
        let addresses = nodes.len() + dead;
        let room: Vec<usize> =
            nodes.iter().map(|node| usable(wanted(node, nodes.len(), dead))).collect();
        let mut this = Self { sure: vec![Vec::new(); nodes.len()] };
        let too_few = WorldError::TooFewSenders { senders: senders.len(), addresses };
        // If tables are too small for all, a reply may exceed what its table allows.
        let most = |to: usize| usable(nodes[to].profile.max_peers());
        for (at, node) in nodes.iter().enumerate() {
            let others = senders.len() - usize::from(node.sends_peers);
            for copy in 0..MIN_LIVE_COPIES.min(others) {
                let to = this.sender(&senders, at, rng, |to| this.sure[to].len() < room[to]);
                let to = to.or_else(|| {
                    this.sender(&senders, at, rng, |to| this.sure[to].len() < most(to))
                });
                match to {
                    Some(to) => this.sure[to].push(at as u32),
                    None if copy == 0 => return Err(too_few),
                    None => break,
                }
            }
        }
        let told: usize = this.sure.iter().map(Vec::len).sum();
        let dead_room = senders.iter().filter(|at| gossips_dead(&nodes[**at]));
        let dead_room: usize = dead_room.map(|at| room[*at]).sum();
        let copies = (dead_room.saturating_sub(told) / 2).checked_div(dead).unwrap_or(0);
        for at in nodes.len()..addresses {
            for copy in 0..copies.clamp(1, MAX_DEAD_COPIES) {
                let to = this.sender(&senders, at, rng, |to| {
                    gossips_dead(&nodes[to]) && this.sure[to].len() < room[to]
                });
                let to = to.or_else(|| {
                    this.sender(&senders, at, rng, |to| {
                        copy == 0 && gossips_dead(&nodes[to]) && this.sure[to].len() < most(to)
                    })
                });
                match to {
                    Some(to) => this.sure[to].push(at as u32),
                    None if copy == 0 => return Err(too_few),
                    None => break,
                }
            }
        }
        this.reach_all(nodes.len(), seeds, rng);
        Ok(this)
    }

    /// A random sender that does not gossip `at` yet and that `suits`.
    fn sender(
        &self,
        senders: &[usize],
        at: usize,
        rng: &mut fastrand::Rng,
        suits: impl Fn(usize) -> bool,
    ) -> Option<usize> {
        if senders.is_empty() {
            return None;
        }
        let start = rng.usize(0..senders.len());
        let (before, after) = senders.split_at(start);
        after
            .iter()
            .chain(before)
            .copied()
            .find(|to| *to != at && suits(*to) && !self.sure[*to].contains(&(at as u32)))
    }

    /// Makes every node reachable from the seeds: invariant 3.
    fn reach_all(&mut self, nodes: usize, seeds: &[usize], rng: &mut fastrand::Rng) {
        let mut reached = vec![false; nodes];
        let mut senders = Vec::new();
        let mut open: Vec<usize> = seeds.to_vec();
        let mut next = 0;
        loop {
            while let Some(at) = open.pop() {
                if std::mem::replace(&mut reached[at], true) {
                    continue;
                }
                let told = self.sure[at].iter().map(|to| *to as usize);
                open.extend(told.filter(|to| *to < nodes));
                if !self.sure[at].is_empty() {
                    senders.push(at);
                }
            }
            let Some(missing) = (next..nodes).find(|at| !reached[*at]) else { return };
            next = missing;
            // A seed sends peers, even if it gossips no address so far.
            let to = rng.choice(&senders).or(seeds.first()).copied().unwrap_or(0);
            self.sure[to].push(missing as u32);
            open.push(missing);
        }
    }

    pub(super) fn floods(&self, world: &World, node: usize) -> bool {
        let drawn = mix(world.params().seed, node as u64, FLOOD) >> 11;
        let share = world.params().flood_share;
        world.nodes()[node].sends_peers && (drawn as f64 / (1_u64 << 53) as f64) < share
    }

    pub(super) fn reply_length(&self, world: &World, node: usize) -> usize {
        let honest = self.honest_length(world, node);
        if !self.floods(world, node) {
            return honest;
        }
        honest.max(FLOOD_LENGTH.min(world.nodes()[node].profile.max_peers()))
    }

    /// Number of entries of a reply that are not invented.
    fn honest_length(&self, world: &World, node: usize) -> usize {
        let spec = &world.nodes()[node];
        if !spec.sends_peers {
            return 0;
        }
        let plain = wanted(spec, world.nodes().len(), world.others());
        let plain = plain.max(self.sure[node].len());
        let own = usize::from(spec.announces == Announces::InReply);
        (plain + own).min(spec.profile.max_peers().max(self.sure[node].len() + own))
    }

    pub(super) fn reply(&self, world: &World, node: usize, round: u64, wall: u32) -> Vec<Entry> {
        let length = self.honest_length(world, node);
        let spec = &world.nodes()[node];
        let invented = self.reply_length(world, node) - length;
        let fresh = mix(world.params().seed, node as u64 ^ round, FLOOD);
        let round = if spec.profile.resamples() { round } else { 0 };
        let mut rng = fastrand::Rng::with_seed(mix(world.params().seed, node as u64, round));
        let mut entries = Vec::with_capacity(length);
        if length == 0 {
            return entries;
        }
        if spec.announces == Announces::InReply {
            entries.push(Entry::ipv4(spec.address, spec.services, wall));
        }
        let known = self.known(world, node, length - entries.len(), &mut rng);
        entries.extend(known.iter().map(|at| plain(world, spec, *at as usize, wall, &mut rng)));
        // Entries that all replies contain stay plain; some of the others become odd.
        let first = (length - known.len()) + self.sure[node].len();
        let odd = (length as f64 * world.params().odd_share).ceil() as usize;
        for at in (first..length).rev().take(odd) {
            entries[at] = odd_entry(world, &entries[..first], wall, &mut rng);
        }
        rng.shuffle(&mut entries);
        let mut fancy = fastrand::Rng::with_seed(fresh);
        entries.extend((0..invented).map(|_| invented_entry(world, wall, &mut fancy)));
        entries
    }

    /// `count` distinct addresses, those that all replies contain first.
    fn known(&self, world: &World, node: usize, count: usize, rng: &mut fastrand::Rng) -> Vec<u32> {
        let spec = &world.nodes()[node];
        let mut known = self.sure[node].clone();
        let mut met: HashSet<u32> = known.iter().copied().collect();
        met.insert(node as u32);
        let alive = world.nodes().len() as u32;
        let range = if gossips_dead(spec) { alive + world.others() as u32 } else { alive };
        if count * 2 < range as usize {
            while known.len() < count {
                let at = rng.u32(0..range);
                if met.insert(at) {
                    known.push(at);
                }
            }
        } else {
            let mut rest: Vec<u32> = (0..range).filter(|at| !met.contains(at)).collect();
            rng.shuffle(&mut rest);
            known.extend(rest.into_iter().take(count.saturating_sub(known.len())));
        }
        known
    }
}

/// Number of addresses that a node gossips, by the rules of its software.
fn wanted(node: &NodeSpec, nodes: usize, dead: usize) -> usize {
    let others = (if gossips_dead(node) { nodes + dead } else { nodes }).saturating_sub(1);
    if !node.sends_peers {
        return 0;
    }
    let share = match node.profile {
        // 23 % of the table.
        Profile::NewCore | Profile::OldCore | Profile::AncientCore | Profile::Other => {
            node.table * 23 / 100
        }
        // What it received within the last three hours.
        Profile::Trb => node.table * 3 / 5,
        Profile::Bcoin => node.table,
        Profile::Gocoin => node.table / 5,
    };
    // A reply of one entry would look like a self-announcement.
    share.min(node.profile.max_peers()).max(2).min(others)
}

/// Number of fixed entries in a reply: the odd entries and its own address need room.
fn usable(wanted: usize) -> usize {
    wanted.saturating_sub(wanted / 10 + 1)
}

fn gossips_dead(node: &NodeSpec) -> bool {
    node.profile != Profile::Gocoin
}

/// The entry for an address of this world.
fn plain(world: &World, sender: &NodeSpec, at: usize, wall: u32, rng: &mut fastrand::Rng) -> Entry {
    let time = seen(sender.profile, wall, rng);
    match world.nodes().get(at) {
        Some(node) => Entry::ipv4(node.address, node.services, time),
        None => {
            let other = at - world.nodes().len();
            let address = match world.dead().get(other) {
                Some(dead) => dead.address,
                None => world.placements()[other - world.dead().len()].address,
            };
            let services = [1033, 3081, 3081, 3145, 1, 0][rng.usize(0..6)];
            Entry::ipv4(address, services, time)
        }
    }
}

/// The time of an entry: hours ago for most, at most 30 days for Core, three hours for TRB; and
/// nonsense for a few.
pub(super) fn seen(sender: Profile, wall: u32, rng: &mut fastrand::Rng) -> u32 {
    let age = match rng.u16(0..1000) {
        0..=2 => return 0,
        3..=4 => return 100_000_000,
        5..=7 => return wall.saturating_add(rng.u32(601..400_000_000)),
        _ if sender == Profile::Trb => rng.u32(0..3 * HOUR),
        8..=600 => rng.u32(2 * HOUR..26 * HOUR),
        601..=940 => rng.u32(2 * HOUR..240 * HOUR),
        _ => rng.u32(2 * HOUR..720 * HOUR),
    };
    wall.saturating_sub(age)
}

/// An entry that an IPv4 crawler must skip or that it has seen before.
fn odd_entry(world: &World, met: &[Entry], wall: u32, rng: &mut fastrand::Rng) -> Entry {
    let time = wall.saturating_sub(rng.u32(0..240 * HOUR));
    let port = world.nodes().first().map_or(8333, |node| node.address.port());
    let mut ip = [0; 16];
    rng.fill(&mut ip);
    match rng.u8(0..10) {
        // IPv6 (documentation, RFC 3849) and Tor v2 addresses.
        0..=3 => {
            let prefix: &[u8] = if rng.bool() { &[0x20, 0x01, 0x0d, 0xb8] } else { &ONION_CAT };
            ip[..prefix.len()].copy_from_slice(prefix);
            Entry { time, services: 1033, ip, port: 8333 }
        }
        4..=6 => rng.choice(met).copied().unwrap_or(Entry { time, services: 1, ip, port: 0 }),
        7 => {
            let address = rng.choice(world.nodes()).map(|node| node.address.ip());
            let address = Address::new(address.unwrap_or(Ipv4Addr::LOCALHOST), 0);
            Entry::ipv4(address, 1, time)
        }
        _ => {
            let [a, b, c, _] = [ip[0], ip[1], ip[2], 0];
            let address = match rng.u8(0..4) {
                0 => Ipv4Addr::new(10, a, b, c),
                1 => Ipv4Addr::new(192, 168, a, b),
                2 => Ipv4Addr::new(172, 16 + a % 16, b, c),
                _ => Ipv4Addr::new(0, a, b, c),
            };
            Entry::ipv4(Address::new(address, port), 1033, time)
        }
    }
}

/// An invented address. It refuses: neither a listener of this world nor an outgoing connection has
/// its port.
fn invented_entry(world: &World, wall: u32, rng: &mut fastrand::Rng) -> Entry {
    let net = world.params().net;
    let ip = rng.u32(u32::from(net.network())..=u32::from(net.broadcast()));
    // Never in 127.0.0.0/16, where the crawler's own addresses are.
    let ip = if ip & 0x00ff_0000 == 0 { ip | 0x0001_0000 } else { ip };
    let address = Address::new(Ipv4Addr::from(ip), rng.u16(INVENTED_PORT..));
    Entry::ipv4(address, 1033, wall.saturating_sub(600))
}

/// Mixes three numbers into a seed (the finalizer of splitmix64).
pub(crate) fn mix(seed: u64, node: u64, round: u64) -> u64 {
    let mut z = seed
        .wrapping_add(node.wrapping_mul(0x9e37_79b9_7f4a_7c15))
        .wrapping_add(round.wrapping_mul(0xd1b5_4a32_d192_ed03));
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}

/// Ports of invented addresses begin here.
pub(crate) const INVENTED_PORT: u16 = 61_000;
/// Minimum number of nodes that gossip each node.
pub const MIN_LIVE_COPIES: usize = 10;
const MAX_DEAD_COPIES: usize = 5;
const HOUR: u32 = 3600;
/// Length of the replies of flooding nodes.
const FLOOD_LENGTH: usize = 1_000;
/// Purpose of draws that are not replies.
const FLOOD: u64 = u64::MAX;
const ONION_CAT: [u8; 6] = [0xfd, 0x87, 0xd8, 0x7e, 0xeb, 0x43];
