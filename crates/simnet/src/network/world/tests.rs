//! Worlds look like the real network, and a crawler can find every address in them.

use std::collections::HashMap;

use super::*;
use crate::network::PeerDirectory;
use crate::network::gossip::{Entry, MIN_LIVE_COPIES};

fn world(params: WorldParams) -> World {
    World::generate(&params).unwrap()
}

fn small() -> WorldParams {
    WorldParams { nodes: 200, silent: 249, refusing: 51, ..WorldParams::default() }
}

/// Everything that is visible of a world.
fn picture(world: &World) -> String {
    let replies: Vec<_> = (0..world.nodes().len()).map(|at| world.reply(at, 3, WALL)).collect();
    format!("{:?} {:?} {:?} {replies:?}", world.nodes(), world.dead(), world.seeds())
}

fn address(entry: &Entry) -> Option<Address> {
    let ip = std::net::Ipv6Addr::from(entry.ip).to_ipv4_mapped()?;
    Some(Address::new(ip, entry.port))
}

#[test]
fn equal_seeds_give_equal_worlds() {
    let one = picture(&world(small()));
    assert_eq!(one, picture(&world(small())));
    assert_ne!(one, picture(&world(WorldParams { seed: 2, ..small() })));
}

#[test]
fn addresses_are_distinct_and_far_apart() {
    let world = world(WorldParams::default());
    let nodes = world.nodes().iter().map(|node| node.address);
    let all: Vec<Address> = nodes.chain(world.dead().iter().map(|dead| dead.address)).collect();
    assert_eq!(all.iter().collect::<HashSet<_>>().len(), 8000);
    assert!(all.iter().all(|address| address.ip().is_loopback()));
    assert!(
        all.iter().all(|address| address.group() != 0x7f00),
        "the crawler has its addresses there"
    );
    let groups: HashSet<u16> = all.iter().map(|address| address.group()).collect();
    assert!(groups.len() > 250, "{}", groups.len());
    let ips: HashSet<Ipv4Addr> = world.nodes().iter().map(|node| node.address.ip()).collect();
    assert!((1970..2000).contains(&ips.len()), "{} of 2000 on their own address", ips.len());
}

#[test]
fn all_addresses_are_inside_the_given_net() {
    let net: Ipv4Net = "127.32.0.0/12".parse().unwrap();
    let world = world(WorldParams { net, ..small() });
    assert!(world.nodes().iter().all(|node| net.contains(&node.address.ip())));
    assert!(world.dead().iter().all(|dead| net.contains(&dead.address.ip())));
}

#[test]
fn nodes_look_like_those_of_the_real_network() {
    let world = world(WorldParams { nodes: 6000, ..WorldParams::default() });
    let share = |test: &dyn Fn(&NodeSpec) -> bool| {
        let count = world.nodes().iter().filter(|node| test(node)).count();
        count as f64 / world.nodes().len() as f64
    };
    let near = |share: f64, expected: f64| (share - expected).abs() < 0.02;
    assert!(near(share(&|node| node.address.port() == 8333), 0.927));
    assert!(near(share(&|node| node.user_agent == b"/Satoshi:30.2.0/"), 0.171));
    assert!(near(share(&|node| node.services == 3081), 0.397));
    assert!(near(share(&|node| node.start_height == TIP), 0.943));
    assert!(near(share(&|node| !node.sends_peers), 0.28));
    assert!(near(share(&|node| node.relay.is_none()), 0.012));
    assert!(near(share(&|node| node.profile == Profile::Trb), 0.01));
    assert!(near(share(&|node| node.profile == Profile::OldCore), 0.06));
    assert!(near(share(&|node| node.rtt < Duration::from_millis(110)), 0.5));
    assert!(near(share(&|node| node.rtt > Duration::from_millis(280)), 0.1));
    for profile in Profile::ALL {
        assert!(share(&|node| node.profile == profile) > 0.0, "{profile}");
    }
}

#[test]
fn every_trb_agent_occurs_and_sends_peers() {
    let world = world(small());
    let trb: Vec<&NodeSpec> =
        world.nodes().iter().filter(|node| node.profile == Profile::Trb).collect();
    assert_eq!(trb.len(), 9);
    assert!(trb.iter().all(|node| node.sends_peers && node.relay.is_none()));
    assert!(trb.iter().all(|node| node.services == 1));
    for (agent, version) in [
        ("/therealbitcoin.org:0.9.99.99/", 99_999),
        ("/jwrd.net:0.9.99.99/", 99_999),
        ("/therealbitcoin.org:0.7.0.1/", 70_001),
        ("/therealbitcoin.org:0.5.4.2/", 50_402),
        ("", 99_999),
    ] {
        let found = trb
            .iter()
            .any(|node| node.user_agent == agent.as_bytes() && node.protocol_version == version);
        assert!(found, "{agent}");
    }
    for wanted in [0, 1, 50] {
        let params = WorldParams { trb: Some(wanted), ..small() };
        let world = World::generate(&params).unwrap();
        let trb = world.nodes().iter().filter(|node| node.profile == Profile::Trb).count();
        assert_eq!(trb, wanted);
    }
}

#[test]
fn refusing_addresses_have_no_shared_port() {
    for port_offset in [0, 1, 24_000, 65_535] {
        let world = world(WorldParams { port_offset, ..WorldParams::default() });
        let refusing = || world.dead().iter().filter(|dead| dead.kind == DeadKind::Refusing);
        assert_eq!(refusing().count(), 1020);
        assert!(refusing().all(|dead| !world.shared_ports().contains(&dead.address.port())));
        let of_nodes: HashSet<u16> = world.nodes().iter().map(|node| node.address.port()).collect();
        let at_nodes = refusing().filter(|dead| of_nodes.contains(&dead.address.port())).count();
        assert!(at_nodes > 300, "only {at_nodes} of them share a port with a node");
    }
}

#[test]
fn ports_stay_in_the_range_that_listeners_can_use() {
    assert_eq!(local_port(8333, 0), 8333);
    assert_eq!(local_port(8333, 1000), 9333);
    for real in (1..=65_535).step_by(7) {
        for offset in [0, 999, 24_434, 24_435, 65_535] {
            let port = local_port(real, offset);
            assert!((1024..=32_767).contains(&port), "{real} + {offset} = {port}");
        }
    }
}

/// Checks that a crawler which asks every node finds every address.
fn check_reachability(params: WorldParams) {
    let world = world(params);
    let mut copies: HashMap<Address, usize> = HashMap::new();
    let replies: Vec<HashSet<Address>> = (0..world.nodes().len())
        .map(|at| world.reply(at, 0, WALL).iter().filter_map(address).collect())
        .collect();
    for (at, reply) in replies.iter().enumerate() {
        let alone = world.nodes().len() == 1;
        assert_eq!(reply.is_empty(), !world.nodes()[at].sends_peers || alone);
        for address in reply {
            if *address != world.nodes()[at].address {
                *copies.entry(*address).or_default() += 1;
            }
        }
    }
    let senders = world.nodes().iter().filter(|node| node.sends_peers).count();
    let min = MIN_LIVE_COPIES.min(senders.saturating_sub(1));
    for node in world.nodes() {
        let times = copies.get(&node.address).copied().unwrap_or(0);
        assert!(times >= min, "{} is gossiped by {times} nodes", node.address);
    }
    for dead in world.dead() {
        assert!(copies.contains_key(&dead.address), "no node gossips {}", dead.address);
    }
    let mut reached: HashSet<usize> = HashSet::new();
    let mut open: Vec<usize> = world.seeds().to_vec();
    while let Some(at) = open.pop() {
        if reached.insert(at) {
            open.extend(replies[at].iter().filter_map(|address| world.find(*address)));
        }
    }
    assert_eq!(reached.len(), world.nodes().len(), "some nodes are unreachable");
}

#[test]
fn every_node_is_reachable_from_the_seeds() {
    check_reachability(WorldParams::default());
    for seed in 0..20 {
        check_reachability(WorldParams { seed, ..small() });
        check_reachability(WorldParams { seed, seeds: 1, nodes: 30, ..small() });
        check_reachability(WorldParams { seed, nodes: 12, silent: 3, refusing: 1, ..small() });
    }
    for nodes in 1..=8 {
        let params = WorldParams { nodes, silent: 0, refusing: 0, ..WorldParams::default() };
        check_reachability(WorldParams { seeds: 1, ..params.clone() });
        check_reachability(params);
    }
}

#[test]
fn every_seed_sends_peers() {
    for nodes in [1, 2, 5, 200] {
        let world = world(WorldParams { nodes, silent: 0, refusing: 0, ..small() });
        assert_eq!(world.seeds().len(), world.seeds().iter().collect::<HashSet<_>>().len());
        assert!(!world.seeds().is_empty());
        assert!(world.seeds().iter().all(|at| world.nodes()[*at].sends_peers));
    }
    let world = world(small());
    assert_eq!(world.seeds().len(), 20);
    let trb = world.seeds().iter().filter(|at| world.nodes()[**at].profile == Profile::Trb);
    assert_eq!(trb.count(), 3);
}

#[test]
fn replies_follow_the_rules_of_their_senders() {
    let world = world(WorldParams::default());
    let mut kinds: HashMap<&str, usize> = HashMap::new();
    for (at, node) in world.nodes().iter().enumerate() {
        let reply = world.reply(at, 0, WALL);
        assert_eq!(reply.len(), world.reply_length(at), "{node:?}");
        assert!(reply.len() <= node.profile.max_peers(), "{node:?}");
        let again = world.reply(at, 1, WALL);
        assert_eq!(again.len(), reply.len());
        assert_eq!(again == reply, !node.profile.resamples() || !node.sends_peers, "{node:?}");
        let is_own = |entry: &&Entry| address(entry) == Some(node.address);
        if node.sends_peers && node.announces == Announces::InReply {
            assert!(reply.iter().any(|entry| is_own(&entry)));
        }
        let mut known = HashSet::new();
        for entry in &reply {
            let kind = match address(entry) {
                None => "other network",
                Some(address) if !known.insert(address) => "duplicate",
                Some(address) if address.port() == 0 => "port 0",
                Some(address) if !address.ip().is_loopback() => {
                    let [first, ..] = address.ip().octets();
                    assert!(address.ip().is_private() || first == 0, "{address} may be real");
                    "private"
                }
                Some(address) if world.find(address).is_some() => "live",
                Some(_) => "dead",
            };
            *kinds.entry(kind).or_default() += 1;
            let fresh = entry.time > WALL - 3 * 3600 && entry.time <= WALL;
            let nonsense = entry.time < 100_000_001 || entry.time > WALL;
            let month = entry.time > WALL - 31 * 24 * 3600;
            let odd = kind != "live" && kind != "dead";
            let is_in_time = if node.profile == Profile::Trb { fresh } else { month };
            assert!(is_in_time || nonsense || odd, "{node:?} {entry:?}");
        }
    }
    let share = |kind: &str| kinds[kind] as f64 / kinds.values().sum::<usize>() as f64;
    assert!((0.20..0.30).contains(&share("live")), "{kinds:?}");
    assert!((0.68..0.80).contains(&share("dead")), "{kinds:?}");
    for kind in ["other network", "duplicate", "port 0", "private"] {
        assert!((0.0005..0.02).contains(&share(kind)), "{kinds:?}");
    }
}

#[test]
fn a_flood_pads_replies_with_new_addresses_inside_the_net() {
    let calm = world(small());
    let flooded = world(WorldParams { flood_share: 0.3, ..small() });
    assert_eq!(calm.nodes(), flooded.nodes(), "a flood changes no node");
    let flooding = (0..calm.nodes().len()).filter(|at| flooded.floods(*at));
    let senders = calm.nodes().iter().filter(|node| node.sends_peers).count();
    let share = flooding.clone().count() as f64 / senders as f64;
    assert!((0.2..0.4).contains(&share), "{share}");
    assert!((0..calm.nodes().len()).all(|at| !calm.floods(at)));
    for at in flooding {
        let (first, second) = (flooded.reply(at, 7, WALL), flooded.reply(at, 8, WALL));
        assert_eq!((first.len(), second.len()), (flooded.reply_length(at), first.len()));
        assert!(first.len() >= 500 && first.len() <= flooded.nodes()[at].profile.max_peers());
        let honest = calm.reply_length(at);
        assert_eq!(first[..honest], calm.reply(at, 7, WALL), "the honest part is unchanged");
        let invented = |reply: &[Entry]| -> HashSet<Address> {
            reply[honest..].iter().filter_map(address).collect()
        };
        let (first, second) = (invented(&first), invented(&second));
        assert!(first.len() + honest > 490, "hardly any duplicates");
        assert!(first.intersection(&second).count() < 3, "new ones in each reply");
        for address in &first {
            assert!(address.ip().is_loopback() && address.port() >= 61_000);
            assert!(flooded.find(*address).is_none() && address.ip().octets()[1] != 0);
        }
    }
    let quiet = (0..calm.nodes().len()).find(|at| !flooded.floods(*at)).unwrap();
    assert_eq!(flooded.reply(quiet, 1, WALL), calm.reply(quiet, 1, WALL));
}

#[test]
fn impossible_worlds_are_refused() {
    let generate = |params: WorldParams| World::generate(&params).map(|_| ()).unwrap_err();
    let outside: Ipv4Net = "10.0.0.0/8".parse().unwrap();
    let params = WorldParams { net: outside, ..small() };
    assert_eq!(generate(params), WorldError::NotLoopback(outside));
    let narrow: Ipv4Net = "127.1.2.0/24".parse().unwrap();
    let params = WorldParams { net: narrow, ..WorldParams::default() };
    assert_eq!(generate(params), WorldError::NetTooSmall(narrow));
    assert_eq!(generate(WorldParams { nodes: 0, ..small() }), WorldError::Empty);
    let params = WorldParams { nodes: 10, silent: 50_000, ..small() };
    assert!(matches!(generate(params), WorldError::TooFewSenders { .. }));
}

#[test]
fn nodes_of_one_ip_address_have_different_ports() {
    for seed in 0..100 {
        let params =
            WorldParams { seed, nodes: 400, silent: 0, refusing: 0, ..WorldParams::default() };
        let world = World::generate(&params).unwrap();
        for (place, node) in world.nodes().iter().enumerate() {
            assert_eq!(world.find(node.address), Some(place), "seed {seed}: {}", node.address);
        }
    }
}
