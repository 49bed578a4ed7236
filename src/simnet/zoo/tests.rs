//! What the beasts themselves must keep to.

use std::sync::Arc;
use std::time::Duration;

use super::*;
use crate::crawl::address::Address;
use crate::crawl::filter::Filter;
use crate::simnet::behaviour::Close;
use crate::simnet::network::Home;
use crate::simnet::world::{World, WorldParams};
use crate::simnet::zoo::act::Flow;
use crate::watchglass::{Decoder, Magic, Message};

fn world() -> Arc<World> {
    let params =
        WorldParams { nodes: 40, silent: 5, refusing: 5, zoo: 1, ..WorldParams::default() };
    Arc::new(World::generate(&params).unwrap())
}

/// What a crawler says in one go.
fn burst() -> Vec<u8> {
    [act::plain(), act::verack(), act::message("getaddr", &[])].concat()
}

/// All places where beasts live.
fn places(world: &World) -> impl Iterator<Item = usize> {
    let first = world.nodes().len() + world.dead().len();
    first..first + world.dens().len()
}

/// Everything that is due now.
fn drain(antics: &mut Antics, now: Duration) -> Vec<u8> {
    let mut all = Vec::new();
    while let Some(bytes) = antics.poll_transmit(now) {
        assert!(!bytes.is_empty() && bytes.len() <= PIECE, "{} bytes at once", bytes.len());
        all.extend(bytes);
        assert!(all.len() <= 3 * PIECE, "it does not stop: {} bytes at one moment", all.len());
    }
    all
}

const PIECE: usize = 64 * 1024;

#[test]
fn what_is_due_at_one_moment_is_bounded_and_nothing_is_caught_up_on() {
    let world = world();
    for place in places(&world) {
        let name = world.beast(place).unwrap().name;
        let mut antics = Antics::new(Arc::clone(&world), place, Duration::ZERO);
        antics.handle_bytes(&burst(), Duration::ZERO);
        for second in 0..30 {
            let now = Duration::from_secs(second);
            antics.handle_timeout(now);
            // The end of one act, and a short one or two behind it.
            let due = drain(&mut antics, now).len();
            assert!(due <= PIECE + 8 * 1024, "{name}: {due} bytes at one moment");
            if antics.wants_close().is_none() {
                let next = antics.poll_timeout().unwrap();
                assert!(next > now, "{name} is due again at once");
            }
        }
    }
}

#[test]
fn every_connection_ends_within_ten_minutes() {
    let world = world();
    for place in places(&world) {
        let mut antics = Antics::new(Arc::clone(&world), place, Duration::ZERO);
        antics.handle_timeout(Duration::from_secs(600));
        drain(&mut antics, Duration::from_secs(600));
        assert!(matches!(antics.wants_close(), Some(Close::Fin | Close::Reset)));
        assert_eq!(antics.poll_timeout(), None);
    }
}

#[test]
fn a_flow_is_its_head_and_zeros_in_pieces() {
    let flow = Flow { zeros: 5, piece: 4, ..Flow::once(vec![1, 2, 3]) };
    let mut all = Vec::new();
    while !flow.is_over(all.len() as u64) {
        all.extend(flow.piece_at(all.len() as u64));
    }
    assert_eq!(all, [1, 2, 3, 0, 0, 0, 0, 0]);
    let endless = Flow { is_endless: true, piece: 7, ..flow };
    assert_eq!(endless.piece_at(6), [0, 0, 1, 2, 3, 0, 0]);
    assert!(!endless.is_over(u64::MAX));
    // What is long is not held.
    let long = Flow { zeros: u64::MAX / 2, ..Flow::once(vec![1]) };
    assert_eq!(long.piece_at(1 << 40).len(), PIECE);
}

#[test]
fn no_beast_names_an_address_that_could_be_dialled() {
    let filter = Filter::new(&[], &[]);
    let mut named = 0;
    for beast in all() {
        for act in &beast.acts {
            let Act::Say(flow) = act else { continue };
            let mut decoder = Decoder::new(Magic::MAIN);
            let mut rest = &flow.head[..];
            while let Ok(Some(message)) = decoder.decode(&mut rest) {
                let Message::Addr(addr) = message else { continue };
                for entry in addr.entries {
                    named += 1;
                    let address = Address::new(entry.ip, entry.port);
                    assert!(!filter.admits(address), "{} names {address}", beast.name);
                    let is_ours = entry.ip.is_loopback() && entry.port != 0;
                    assert!(!is_ours, "{} names {address}", beast.name);
                }
            }
        }
    }
    assert!(named > 3_000, "only {named} addresses were looked at");
}

#[test]
fn a_zoo_leaves_the_rest_of_the_world_as_it_was() {
    let params = WorldParams { nodes: 60, silent: 20, refusing: 9, ..WorldParams::default() };
    let without = World::generate(&params).unwrap();
    let with = World::generate(&WorldParams { zoo: 2, ..params }).unwrap();
    assert_eq!(without.nodes(), with.nodes());
    assert_eq!(without.dead(), with.dead());
    assert_eq!(without.seeds(), with.seeds());
    assert!(without.dens().is_empty() && without.beasts().is_empty());
    let ports: usize = with.beasts().iter().map(|beast| beast.ports).sum();
    assert_eq!(with.dens().len(), 2 * ports);
    // Every den is told of by somebody, as dead addresses are, and stands at a place of its own.
    let told: BTreeSet<(u128, u16)> = (0..with.nodes().len())
        .flat_map(|node| with.reply(node, 0, 0))
        .map(|entry| (u128::from_be_bytes(entry.ip), entry.port))
        .collect();
    for (at, den) in with.dens().iter().enumerate() {
        let place = with.find_den(den.address).unwrap();
        assert_eq!(place, with.nodes().len() + with.dead().len() + at);
        assert_eq!(with.find(den.address), None);
        assert_eq!(Home::beast(&with, place).unwrap().name, with.beasts()[den.beast].name);
        let key =
            (u128::from_be_bytes(den.address.ip().to_ipv6_mapped().octets()), den.address.port());
        assert!(told.contains(&key), "nobody tells of {}", den.address);
    }
}

#[test]
fn a_statement_names_the_outcome_and_every_field() {
    let all = all();
    let of = |name| all.iter().find(|beast| beast.name == name).unwrap().statement();
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
        "Says a version of 46 bytes that ends behind addr_recv; it must be recorded as responded, protocol version 101, \
         user agent not sent, services 1, height not sent, relay not sent"
    );
}
