//! Draws nodes, dead addresses, placements and seeds. Sans-I/O.
//!
//! The order of the draws is part of what a seed means: equal parameters give an equal network, but
//! a larger network does not begin with the smaller one.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{Dead, DeadKind, NodeSpec, Placement, Places, WorldError, WorldParams};
use crate::network::distribution::Distributions;
use crate::network::gossip::mix;
use crate::node::profile::{Announces, Profile};
use crate::zoo::Misbehaviour;
use bitdash_core::vocabulary::address::Address;

/// The fields of a node's `version`: drawn, or from the lists below.
struct Claims {
    user_agent: Vec<u8>,
    protocol_version: i32,
    services: u64,
    relay: Option<bool>,
    profile: Profile,
    announces: Announces,
    height: Option<i32>,
    always_sends: bool,
}

pub(super) fn nodes(
    params: &WorldParams,
    distributions: &Distributions,
    places: &mut Places,
    rng: &mut fastrand::Rng,
) -> Result<Vec<NodeSpec>, WorldError> {
    let quarter = (params.nodes / 4).max(1);
    let trb = params.trb.unwrap_or((params.nodes / 100).max(TRB.len()).min(quarter));
    let trb = trb.min(params.nodes);
    let mut nodes: Vec<NodeSpec> = Vec::with_capacity(params.nodes);
    for at in 0..params.nodes {
        let claims = match at.checked_sub(trb) {
            None => trb_claims(at),
            Some(at) if at < quarter && at < RARE.len() => rare_claims(at),
            Some(_) => drawn_claims(distributions, rng),
        };
        let port = places.port(rng);
        let ip = match nodes.last() {
            Some(last) if rng.f64() < SAME_IP_SHARE && is_free(&nodes, last.address.ip(), port) => {
                last.address.ip()
            }
            _ => places.ip(rng)?,
        };
        nodes.push(node(params, distributions, Address::new(ip, port), claims, rng));
    }
    Ok(nodes)
}

/// Whether none of the last nodes, which may share this IP address, has this port.
fn is_free(nodes: &[NodeSpec], ip: std::net::Ipv4Addr, port: u16) -> bool {
    let neighbours = nodes.iter().rev().take_while(|node| node.address.ip() == ip);
    neighbours.into_iter().all(|node| node.address.port() != port)
}

fn node(
    params: &WorldParams,
    distributions: &Distributions,
    address: Address,
    claims: Claims,
    rng: &mut fastrand::Rng,
) -> NodeSpec {
    let addresses = params.nodes + params.silent + params.refusing;
    let fresh = rng.f64() < 0.1;
    let known = if fresh { 0.05 + 0.25 * rng.f64() } else { 0.5 + 0.5 * rng.f64() };
    let lag = distributions.lags.draw(rng).map_or(0, |(low, high)| {
        let high = (*high).min(params.tip).max(*low);
        rng.i32(*low..=high)
    });
    let mute = rng.f64() < params.mute_share && !claims.always_sends;
    // One in four of the nodes without peers announces itself.
    let announces = if mute && rng.f64() < 0.75 { Announces::Never } else { claims.announces };
    let relay = claims.relay.map(|relay| relay && rng.f64() >= BLOCKS_ONLY_SHARE);
    NodeSpec {
        address,
        protocol_version: claims.protocol_version,
        services: claims.services,
        user_agent: claims.user_agent,
        start_height: claims.height.unwrap_or(params.tip.saturating_sub(lag)),
        relay,
        profile: claims.profile,
        announces,
        sends_peers: !mute,
        table: (addresses as f64 * known) as usize,
        rtt: rtt(rng),
        clock_offset: clock_offset(rng),
        trickle_peers: rng.u16(10..=90),
    }
}

fn trb_claims(at: usize) -> Claims {
    let (agent, protocol_version) = TRB[at % TRB.len()];
    Claims {
        user_agent: agent.into(),
        protocol_version,
        services: 1,
        relay: None,
        profile: Profile::Trb,
        announces: Announces::Never,
        height: None,
        always_sends: true,
    }
}

fn rare_claims(at: usize) -> Claims {
    let (agent, protocol_version, services, relay, height) = RARE[at];
    let (profile, announces) = Profile::of_agent(&String::from_utf8_lossy(agent));
    Claims {
        user_agent: agent.into(),
        protocol_version,
        services,
        relay,
        profile,
        announces,
        height,
        always_sends: true,
    }
}

fn drawn_claims(distributions: &Distributions, rng: &mut fastrand::Rng) -> Claims {
    let drawn = loop {
        let drawn = distributions.agents.draw(rng).copied().unwrap_or(("/Satoshi:30.2.0/", 3081));
        // The number of TRB nodes is not left to chance.
        if TRB.iter().all(|(agent, _)| *agent != drawn.0) {
            break drawn;
        }
    };
    let (agent, services) = drawn;
    let (profile, announces) = Profile::of_agent(agent);
    // Core's `version` has a relay byte since 0.9; gocoin's has none.
    let without = agent.starts_with("/Satoshi:0.8.") || profile == Profile::Gocoin;
    Claims {
        user_agent: agent.into(),
        protocol_version: distributions.protocol_version(agent),
        services,
        relay: (!without).then_some(true),
        profile,
        announces,
        height: None,
        always_sends: false,
    }
}

/// A common (or TRB) node at the caller's address, for networks that are not on loopback.
pub(crate) fn lone_node(
    params: &WorldParams,
    distributions: &Distributions,
    address: Address,
    trb: Option<usize>,
    rng: &mut fastrand::Rng,
) -> NodeSpec {
    let claims = match trb {
        Some(at) => trb_claims(at),
        None => drawn_claims(distributions, rng),
    };
    node(params, distributions, address, claims, rng)
}

pub(super) fn dead(
    params: &WorldParams,
    places: &mut Places,
    rng: &mut fastrand::Rng,
) -> Result<Vec<Dead>, WorldError> {
    let mut dead = Vec::with_capacity(params.silent + params.refusing);
    for _ in 0..params.silent {
        let address = Address::new(places.ip(rng)?, places.port(rng));
        dead.push(Dead { address, kind: DeadKind::Silent });
    }
    for _ in 0..params.refusing {
        let address = Address::new(places.ip(rng)?, places.rare_port(rng));
        dead.push(Dead { address, kind: DeadKind::Refusing });
    }
    rng.shuffle(&mut dead);
    Ok(dead)
}

/// The placements of the zoo, from their own generator: invariant 5 of the world.
pub(super) fn placements(
    params: &WorldParams,
    misbehaviours: &[Misbehaviour],
    places: &mut Places,
) -> Result<Vec<Placement>, WorldError> {
    let mut rng = fastrand::Rng::with_seed(mix(params.seed, u64::MAX, 0));
    let mut placements = Vec::new();
    for _ in 0..params.zoo {
        for (misbehaviour, Misbehaviour { ports, .. }) in misbehaviours.iter().enumerate() {
            let ip = places.ip(&mut rng)?;
            if *ports == 1 {
                let address = Address::new(ip, places.port(&mut rng));
                placements.push(Placement { address, misbehaviour });
                continue;
            }
            let mut drawn = BTreeSet::new();
            for _ in 0..MAX_PORT_TRIES {
                if drawn.len() < *ports {
                    drawn.insert(places.rare_port(&mut rng));
                }
            }
            placements.extend(
                drawn
                    .into_iter()
                    .map(|port| Placement { address: Address::new(ip, port), misbehaviour }),
            );
        }
    }
    rng.shuffle(&mut placements);
    Ok(placements)
}

/// Picks peer-sending nodes; the first few are TRB.
pub(super) fn seeds(
    params: &WorldParams,
    nodes: &mut [NodeSpec],
    rng: &mut fastrand::Rng,
) -> Vec<usize> {
    if let Some(first) = nodes.first_mut()
        && params.nodes <= params.seeds
    {
        first.sends_peers = true;
    }
    let mut senders: Vec<usize> = (0..nodes.len()).filter(|at| nodes[*at].sends_peers).collect();
    if senders.is_empty() {
        nodes[0].sends_peers = true;
        senders.push(0);
    }
    rng.shuffle(&mut senders);
    let (trb, others): (Vec<usize>, Vec<usize>) =
        senders.into_iter().partition(|at| nodes[*at].profile == Profile::Trb);
    let (first, last) = trb.split_at(trb.len().min(TRB_SEEDS.min(params.seeds / 2)));
    let mut senders = [first, &others, last].concat();
    senders.truncate(params.seeds);
    senders
}

/// Log-normal, in whole milliseconds: median 110 ms, 90th percentile 280 ms.
fn rtt(rng: &mut fastrand::Rng) -> Duration {
    let normal = (-2.0 * (1.0 - rng.f64()).ln()).sqrt() * (std::f64::consts::TAU * rng.f64()).cos();
    let ms = 110.0 * (0.729 * normal).exp();
    Duration::from_millis(ms.clamp(5.0, 1200.0) as u64)
}

/// Nearly right for most nodes, minutes off for some, days for a few.
fn clock_offset(rng: &mut fastrand::Rng) -> i32 {
    match rng.u8(0..100) {
        0 => rng.i32(-306_000..=306_000),
        1..=4 => rng.i32(-900..=900),
        _ => rng.i32(-2..=2),
    }
}

/// User agents of TRB with the protocol versions that they encode. An empty one occurs too.
const TRB: [(&str, i32); 9] = [
    ("/therealbitcoin.org:0.9.99.99/", 99_999),
    ("/jwrd.net:0.9.99.99/", 99_999),
    ("/therealbitcoin.org:0.7.0.1/", 70_001),
    ("/therealbitcoin.org:0.5.4.2/", 50_402),
    ("/therealbitcoin.org:0.5.4/", 50_400),
    ("/therealbitcoin.org:0.5.3.2/", 50_302),
    ("/therealbitcoin.org:0.5.3.1/", 50_301),
    ("/therealbitcoin.org:0.9.99.99/", 99_999),
    ("", 99_999),
];

type Rare = (&'static [u8], i32, u64, Option<bool>, Option<i32>);

/// Nodes too rare to rely on chance: user agent, protocol version, services, relay byte, and the
/// height where it is not near the tip.
const RARE: [Rare; 21] = [
    (b"/Satoshi:0.8.6/", 70_001, 1, None, None),
    (b"/Satoshi:0.21.1/", 70_016, 1033, Some(true), None),
    (b"/bcoin:2.2.0/", 70_015, 9, Some(true), None),
    (b"/Gocoin:1.11.1pre/", 70_015, 1033, None, None),
    (b"/Satoshi:0.9.3/", 70_002, 1, Some(true), None),
    // No honest node sends this: every bit set, a negative height, an agent that is not text.
    (b"/Satoshi:25.0.0(\xc3\xa9\\\x1b[31m\t)/", 70_016, u64::MAX, Some(true), Some(-1)),
    (b"/Satoshi:22.0.0/", 70_016, 1033, Some(true), None),
    (b"/Satoshi:0.12.1/", 70_012, 5, Some(true), None),
    (b"/Satoshi:0.10.4/", 70_002, 1, Some(true), None),
    (b"/Satoshi:0.11.2/", 70_002, 1, Some(true), None),
    (b"/Satoshi:0.13.2/", 70_015, 13, Some(true), None),
    (b"/Satoshi:0.14.2/", 70_015, 13, Some(true), None),
    (b"/Satoshi:0.15.1/", 70_015, 13, Some(true), None),
    (b"/Satoshi:0.16.3/", 70_015, 1037, Some(true), None),
    (b"/Satoshi:0.18.1/", 70_015, 1037, Some(true), None),
    (b"/Satoshi:0.19.1/", 70_015, 1037, Some(true), None),
    (b"/Satoshi:0.20.1/", 70_015, 1033, Some(true), None),
    (b"/bcoin:v1.0.2/", 70_015, 9, Some(true), None),
    (b"/btcwire:0.5.0/btcd:0.24.2/", 70_016, 1101, Some(true), None),
    (b"/Cornell-Falcon-Network:0.1.0/", 70_014, 1, None, None),
    (b"/Satoshi:0.8.1/", 70_001, 1, None, Some(267_590)),
];

/// The snapshot has 7,162 nodes on 7,079 IP addresses.
const SAME_IP_SHARE: f64 = 0.012;
const BLOCKS_ONLY_SHARE: f64 = 0.015;
const TRB_SEEDS: usize = 3;
/// Maximum number of draws for the distinct rare ports of one host.
const MAX_PORT_TRIES: usize = 2_000;
