//! Beasts whose `version` is old, odd, extreme or cut.
//!
//! Layer 2: plain data. Which fields are there is told by where the payload ends, never by the version number;
//! a payload that ends within a field is no `version`.

use crate::crawl::outcome::Outcome;
use crate::simnet::zoo::act::{
    hear_version, layout, message, nowhere, payload, plain, say, verack, version, visit,
};
use crate::simnet::zoo::{Beast, Said};
use crate::watchglass::{NetworkAddress, Version};

pub(super) fn beasts() -> Vec<Beast> {
    [old(), odd(), extreme(), cut(), order()].concat()
}

/// Says this of itself, and answers like anybody else.
fn node(name: &'static str, does: &'static str, said: Said) -> Beast {
    let acts = visit(version(&said));
    Beast::responds(name, does, said, acts)
}

/// The layouts that nodes of other years have: the payload ends at the end of a field.
fn old() -> Vec<Beast> {
    let nothing = Said {
        protocol_version: 101,
        services: 1,
        user_agent: None,
        start_height: None,
        relay: None,
    };
    let without_addr_from = Version { addr_from: None, ..layout(&nothing) };
    let without_nonce = Version { nonce: None, ..layout(&nothing) };
    vec![
        Beast::responds(
            "version_of_2009",
            "Says a version of 46 bytes that ends behind addr_recv",
            nothing.clone(),
            visit(message("version", &encoded(&without_addr_from))),
        ),
        Beast::responds(
            "version_without_nonce",
            "Says a version of 72 bytes that ends behind addr_from",
            nothing.clone(),
            visit(message("version", &encoded(&without_nonce))),
        ),
        node(
            "version_without_user_agent",
            "Says a version of 80 bytes that ends behind its nonce",
            Said { protocol_version: 106, ..nothing.clone() },
        ),
        node(
            "version_without_height",
            "Says a version that ends behind its user agent, as before 209",
            Said { protocol_version: 106, user_agent: Some(vec![]), ..nothing.clone() },
        ),
        node(
            "version_of_0_2_9",
            "Says a version of number 209 with a height and an empty user agent",
            Said {
                protocol_version: 209,
                user_agent: Some(vec![]),
                start_height: Some(75_000),
                ..nothing.clone()
            },
        ),
        node(
            "version_10300",
            "Says the number 10300, which meant 300 in a few clients of 2010",
            Said {
                protocol_version: 10_300,
                user_agent: Some(vec![]),
                start_height: Some(42_000),
                ..nothing
            },
        ),
        node(
            "version_without_relay",
            "Says the number 99999 and no relay byte",
            Said {
                protocol_version: 99_999,
                services: 1,
                relay: None,
                ..Said::agent(b"/therealbitcoin.org:0.9.99.99/")
            },
        ),
        node(
            "new_number_in_an_old_layout",
            "Says the number 70016 and ends behind its nonce all the same",
            Said { user_agent: None, start_height: None, relay: None, ..Said::plain() },
        ),
    ]
}

fn odd() -> Vec<Beast> {
    let with = |tail: &[u8]| [&payload(&Said::plain())[..], tail].concat();
    let mut relay_of_255 = payload(&Said::plain());
    *relay_of_255.last_mut().expect("it ends with the relay byte") = 0xff;
    let nowhere = NetworkAddress { services: u64::MAX, ip: [0xff; 16], port: u16::MAX };
    let odd_places =
        Version { addr_recv: nowhere, addr_from: Some(nowhere), ..layout(&Said::plain()) };
    let zero_nonce = Version { nonce: Some(0), ..layout(&Said::plain()) };
    let like = |name, does, payload: &[u8]| {
        Beast::responds(name, does, Said::plain(), visit(message("version", payload)))
    };
    vec![
        like(
            "version_with_a_tail",
            "Says a version with a byte behind its relay byte",
            &with(&[0]),
        ),
        like(
            "version_with_a_megabyte_behind",
            "Says a version with a million bytes behind its relay byte",
            &with(&vec![0x41; 1_000_000]),
        ),
        like("relay_of_255", "Says a version whose relay byte is neither 0 nor 1", &relay_of_255),
        node(
            "no_relay",
            "Says a version whose relay byte is 0",
            Said { relay: Some(false), ..Said::plain() },
        ),
        like(
            "addresses_of_ones",
            "Says a version whose two addresses are all ones",
            &encoded(&odd_places),
        ),
        like("nonce_of_zero", "Says a version whose nonce is 0", &encoded(&zero_nonce)),
    ]
}

fn extreme() -> Vec<Beast> {
    let time = |name, does, timestamp| {
        let version = Version { timestamp, ..layout(&Said::plain()) };
        Beast::responds(name, does, Said::plain(), visit(message("version", &encoded(&version))))
    };
    let plain = Said::plain;
    vec![
        node(
            "lowest_height",
            "Claims a height of -2^31",
            Said { start_height: Some(i32::MIN), ..plain() },
        ),
        node(
            "highest_height",
            "Claims a height of 2^31-1",
            Said { start_height: Some(i32::MAX), ..plain() },
        ),
        node("all_services", "Claims all 64 services", Said { services: u64::MAX, ..plain() }),
        node(
            "highest_service",
            "Claims the 64th service alone",
            Said { services: 1 << 63, ..plain() },
        ),
        node("no_services", "Claims no service", Said { services: 0, ..plain() }),
        node(
            "lowest_protocol_version",
            "Claims protocol version -2^31",
            Said { protocol_version: i32::MIN, ..plain() },
        ),
        node(
            "highest_protocol_version",
            "Claims protocol version 2^31-1",
            Said { protocol_version: i32::MAX, ..plain() },
        ),
        node(
            "protocol_version_0",
            "Claims protocol version 0",
            Said { protocol_version: 0, ..plain() },
        ),
        time("earliest_time", "Claims that it is the second -2^63", i64::MIN),
        time("latest_time", "Claims that it is the second 2^63-1", i64::MAX),
        time("time_0", "Claims that it is 1970", 0),
    ]
}

/// Payloads that end within a field, in frames that are right.
fn cut() -> Vec<Beast> {
    let cut_at = |name, does, length: usize| {
        let acts =
            vec![hear_version(), say(message("version", &payload(&Said::plain())[..length]))];
        Beast::fails(name, does, Outcome::Malformed, acts)
    };
    let height = 80 + 1 + 9;
    vec![
        cut_at("empty_version", "Says a version without any payload", 0),
        cut_at("cut_in_number", "Says a version that ends within its number", 3),
        cut_at("cut_in_services", "Says a version that ends within its services", 11),
        cut_at("cut_before_addr_recv", "Says a version that ends before addr_recv", 20),
        cut_at("cut_in_addr_recv", "Says a version that ends within addr_recv", 45),
        cut_at("cut_in_addr_from", "Says a version that ends within addr_from", 47),
        cut_at("cut_in_nonce", "Says a version that ends within its nonce", 79),
        cut_at("cut_in_user_agent", "Says a version that ends within its user agent", height - 4),
        cut_at("cut_in_height", "Says a version that ends within its height", height + 3),
    ]
}

fn order() -> Vec<Beast> {
    let second = Said { protocol_version: 60_000, services: 1, ..Said::agent(b"/second:2.0/") };
    let early = ["wtxidrelay", "sendaddrv2", "ping", "getaddr", "feefilter"];
    let early = early.map(|command| message(command, &[0; 8])).concat();
    vec![
        Beast::responds(
            "verack_first",
            "Says verack before its version",
            Said::plain(),
            vec![hear_version(), say([verack(), plain()].concat())],
        ),
        Beast::responds(
            "two_versions",
            "Says two versions, of which the first one counts",
            Said::plain(),
            visit([plain(), version(&second)].concat()),
        ),
        Beast::responds(
            "everything_before_version",
            "Says half a dozen other messages before its version",
            Said::plain(),
            vec![hear_version(), say([early, plain(), verack()].concat())],
        ),
        Beast::responds(
            "version_before_ours",
            "Says its version as soon as we are connected",
            Said::plain(),
            vec![say([plain(), verack()].concat())],
        ),
        Beast::responds(
            "all_at_once",
            "Says version, verack and an addr that nobody asked for in one go",
            Said::plain(),
            vec![say([plain(), verack(), nowhere()].concat())],
        ),
    ]
}

fn encoded(version: &Version) -> Vec<u8> {
    let mut payload = Vec::new();
    version.encode(&mut payload);
    payload
}
