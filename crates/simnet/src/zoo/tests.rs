//! The invariants of the zoo.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::network::PeerDirectory;
use crate::network::world::{World, WorldParams};
use crate::node::conversation::Close;
use crate::node::peer::Peer;
use crate::zoo::step::Flow;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;
use watchglass::{Decoder, Magic, Message};

fn world() -> Arc<World> {
    let params =
        WorldParams { nodes: 40, silent: 5, refusing: 5, zoo: 1, ..WorldParams::default() };
    Arc::new(World::generate(&params).unwrap())
}

/// What a crawler sends.
fn burst() -> Vec<u8> {
    [step::plain(), step::verack(), step::message("getaddr", &[])].concat()
}

/// All places of misbehaving peers.
fn places(world: &World) -> impl Iterator<Item = usize> {
    let first = world.nodes().len() + world.dead().len();
    first..first + world.placements().len()
}

/// Everything that is due now.
fn drain(peer: &mut ScriptedPeer, now: Duration) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = peer.poll_transmit(now) {
        assert!(!bytes.is_empty() && bytes.len() <= PIECE, "{} bytes at once", bytes.len());
        all.extend(bytes);
        assert!(all.len() <= 3 * PIECE, "it does not stop: {} bytes at one moment", all.len());
    }
    all
}

const PIECE: usize = 64 * 1024;

#[test]
fn bytes_per_moment_are_bounded_and_missed_ones_are_not_made_up_for() {
    let world = world();
    for place in places(&world) {
        let name = world.misbehaviour(place).unwrap().name;
        let mut peer = ScriptedPeer::new(Arc::clone(&world), place, Duration::ZERO);
        peer.handle_bytes(&burst(), Duration::ZERO);
        for second in 0..30 {
            let now = Duration::from_secs(second);
            peer.handle_timeout(now);
            // The end of one step and one or two short ones.
            let due = drain(&mut peer, now).len();
            assert!(due <= PIECE + 8 * 1024, "{name}: {due} bytes at one moment");
            if peer.wants_close().is_none() {
                let next = peer.poll_timeout().unwrap();
                assert!(next > now, "{name} is due again at once");
            }
        }
    }
}

#[test]
fn every_connection_ends_within_ten_minutes() {
    let world = world();
    for place in places(&world) {
        let mut peer = ScriptedPeer::new(Arc::clone(&world), place, Duration::ZERO);
        peer.handle_timeout(Duration::from_secs(600));
        drain(&mut peer, Duration::from_secs(600));
        assert!(matches!(peer.wants_close(), Some(Close::Fin | Close::Reset)));
        assert_eq!(peer.poll_timeout(), None);
    }
}

#[test]
fn a_flow_is_its_head_and_zeros_in_pieces() {
    let flow = Flow { zeros: 5, piece: 4, ..Flow::new(vec![1, 2, 3]) };
    let mut all = Vec::new();
    while !flow.is_over(all.len() as u64) {
        all.extend(flow.piece_at(all.len() as u64));
    }
    assert_eq!(all, [1, 2, 3, 0, 0, 0, 0, 0]);
    let endless = Flow { repeats: true, piece: 7, ..flow };
    assert_eq!(endless.piece_at(6), [0, 0, 1, 2, 3, 0, 0]);
    assert!(!endless.is_over(u64::MAX));
    // Long flows are not stored.
    let long = Flow { zeros: u64::MAX / 2, ..Flow::new(vec![1]) };
    assert_eq!(long.piece_at(1 << 40).len(), PIECE);
}

#[test]
fn no_misbehaviour_gossips_an_address_that_can_be_dialled() {
    let filter = Filter::new(&[], &[]);
    let mut entries = 0;
    for misbehaviour in all() {
        for step in &misbehaviour.steps {
            let Step::Send(flow) = step else { continue };
            let mut decoder = Decoder::new(Magic::MAIN);
            let mut rest = &flow.head[..];
            while let Ok(Some(message)) = decoder.decode(&mut rest) {
                let Message::Addr(addr) = message else { continue };
                for entry in addr.entries {
                    entries += 1;
                    let address = Address::new(entry.ip, entry.port);
                    assert!(!filter.admits(address), "{} sends {address}", misbehaviour.name);
                    let is_ours = entry.ip.is_loopback() && entry.port != 0;
                    assert!(!is_ours, "{} sends {address}", misbehaviour.name);
                }
            }
        }
    }
    assert!(entries > 3_000, "only {entries} entries were checked");
}

#[test]
fn a_zoo_does_not_change_the_rest_of_the_world() {
    let params = WorldParams { nodes: 60, silent: 20, refusing: 9, ..WorldParams::default() };
    let without = World::generate(&params).unwrap();
    let with = World::generate(&WorldParams { zoo: 2, ..params }).unwrap();
    assert_eq!(without.nodes(), with.nodes());
    assert_eq!(without.dead(), with.dead());
    assert_eq!(without.seeds(), with.seeds());
    assert!(without.placements().is_empty() && without.misbehaviours().is_empty());
    let ports: usize = with.misbehaviours().iter().map(|misbehaviour| misbehaviour.ports).sum();
    assert_eq!(with.placements().len(), 2 * ports);
    // Every placement is gossiped like a dead address and has its own place.
    let gossiped: BTreeSet<(u128, u16)> = (0..with.nodes().len())
        .flat_map(|node| with.reply(node, 0, 0))
        .map(|entry| (u128::from_be_bytes(entry.ip), entry.port))
        .collect();
    for (at, placement) in with.placements().iter().enumerate() {
        let place = with.find_placement(placement.address).unwrap();
        assert_eq!(place, with.nodes().len() + with.dead().len() + at);
        assert_eq!(with.find(placement.address), None);
        assert_eq!(
            with.misbehaviour(place).unwrap().name,
            with.misbehaviours()[placement.misbehaviour].name
        );
        let key = (
            u128::from_be_bytes(placement.address.ip().to_ipv6_mapped().octets()),
            placement.address.port(),
        );
        assert!(gossiped.contains(&key), "no node gossips {}", placement.address);
    }
}

#[test]
fn a_statement_names_the_outcome_and_every_field() {
    let all = all();
    let of = |name| all.iter().find(|misbehaviour| misbehaviour.name == name).unwrap().statement();
    assert_eq!(
        of("bch"),
        "Is a node of Bitcoin Cash, magic e3e1f3e8; it must be recorded as not_bitcoin, and as no node"
    );
    assert_eq!(
        of("agent_with_nul"),
        "Has zero bytes in its user agent; it must be recorded as responded, protocol version 70016, user agent \
         \"/nul:\\x00\\x00\\x00/\\x00\", services 1033, height 946947, relay yes"
    );
    assert_eq!(
        of("version_of_2009"),
        "Sends a version of 46 bytes that ends after addr_recv; it must be recorded as responded, protocol version 101, \
         user agent not sent, services 1, height not sent, relay not sent"
    );
}
