//! Misbehaviours whose `version` is old, odd, extreme or cut.
//!
//! The end of the payload, not the version number, determines which fields are present. A payload
//! that ends within a field is not a `version`.

use crate::zoo::step::{
    answer, answer_all, expect_version, message, payload, plain, send, unreachable_addr, verack,
    version,
};
use crate::zoo::{Claimed, Misbehaviour, fails, responds, responds_with};
use bitdash_core::vocabulary::outcome::Outcome;
use watchglass::{NetworkAddress, Version};

pub(super) fn misbehaviours() -> Vec<Misbehaviour> {
    [old(), odd(), extreme(), cut(), order()].concat()
}

/// A node with these fields that otherwise behaves.
fn node(name: &'static str, does: &'static str, claimed: Claimed) -> Misbehaviour {
    let steps = answer_all(version(&claimed));
    responds_with(name, does, claimed, steps)
}

/// Layouts of old nodes: the payload ends at the end of a field.
fn old() -> Vec<Misbehaviour> {
    let nothing = Claimed {
        protocol_version: 101,
        services: 1,
        user_agent: None,
        start_height: None,
        relay: None,
    };
    let without_addr_from = Version { addr_from: None, ..nothing.version() };
    let without_nonce = Version { nonce: None, ..nothing.version() };
    table! {
        responds_with("version_of_2009", "Sends a version of 46 bytes that ends after addr_recv",
            nothing.clone(), answer_all(message("version", &encoded(&without_addr_from))));
        responds_with("version_without_nonce", "Sends a version of 72 bytes that ends after addr_from",
            nothing.clone(), answer_all(message("version", &encoded(&without_nonce))));
        node("version_without_user_agent", "Sends a version of 80 bytes that ends after its nonce",
            Claimed { protocol_version: 106, ..nothing.clone() });
        node("version_without_height", "Sends a version that ends after its user agent, as before 209",
            Claimed { protocol_version: 106, user_agent: Some(vec![]), ..nothing.clone() });
        node("version_of_0_2_9", "Sends a version of number 209 with a height and an empty user agent",
            Claimed { protocol_version: 209, user_agent: Some(vec![]), start_height: Some(75_000),
                ..nothing.clone() });
        node("version_10300", "Sends the number 10300, which meant 300 in a few clients of 2010",
            Claimed { protocol_version: 10_300, user_agent: Some(vec![]),
                start_height: Some(42_000), ..nothing });
        node("version_without_relay", "Sends the number 99999 and no relay byte",
            Claimed { protocol_version: 99_999, services: 1, relay: None,
                ..Claimed::agent(b"/therealbitcoin.org:0.9.99.99/") });
        node("new_number_in_an_old_layout", "Sends the number 70016 and ends after its nonce nevertheless",
            Claimed { user_agent: None, start_height: None, relay: None, ..Claimed::plain() });
    }
}

fn odd() -> Vec<Misbehaviour> {
    let with = |tail: &[u8]| [&payload(&Claimed::plain())[..], tail].concat();
    let mut relay_of_255 = payload(&Claimed::plain());
    *relay_of_255.last_mut().expect("it ends with the relay byte") = 0xff;
    let unreachable_addr = NetworkAddress { services: u64::MAX, ip: [0xff; 16], port: u16::MAX };
    let odd_places = Version {
        addr_recv: unreachable_addr,
        addr_from: Some(unreachable_addr),
        ..Claimed::plain().version()
    };
    let zero_nonce = Version { nonce: Some(0), ..Claimed::plain().version() };
    let like =
        |name, does, payload: &[u8]| responds(name, does, answer_all(message("version", payload)));
    table! {
        like("version_with_a_tail", "Sends a version with a byte after its relay byte",
            &with(&[0]));
        like("version_with_a_megabyte_behind", "Sends a version with a million bytes after its relay byte",
            &with(&vec![0x41; 1_000_000]));
        like("relay_of_255", "Sends a version whose relay byte is neither 0 nor 1", &relay_of_255);
        node("no_relay", "Sends a version whose relay byte is 0",
            Claimed { relay: Some(false), ..Claimed::plain() });
        like("addresses_of_ones", "Sends a version whose two addresses are all ones",
            &encoded(&odd_places));
        like("nonce_of_zero", "Sends a version whose nonce is 0", &encoded(&zero_nonce));
    }
}

fn extreme() -> Vec<Misbehaviour> {
    let time = |name, does, timestamp| {
        let version = Version { timestamp, ..Claimed::plain().version() };
        responds(name, does, answer_all(message("version", &encoded(&version))))
    };
    let plain = Claimed::plain;
    table! {
        node("lowest_height", "Claims a height of -2^31",
            Claimed { start_height: Some(i32::MIN), ..plain() });
        node("highest_height", "Claims a height of 2^31-1",
            Claimed { start_height: Some(i32::MAX), ..plain() });
        node("all_services", "Claims all 64 services", Claimed { services: u64::MAX, ..plain() });
        node("highest_service", "Claims the 64th service alone",
            Claimed { services: 1 << 63, ..plain() });
        node("no_services", "Claims no service", Claimed { services: 0, ..plain() });
        node("lowest_protocol_version", "Claims protocol version -2^31",
            Claimed { protocol_version: i32::MIN, ..plain() });
        node("highest_protocol_version", "Claims protocol version 2^31-1",
            Claimed { protocol_version: i32::MAX, ..plain() });
        node("protocol_version_0", "Claims protocol version 0",
            Claimed { protocol_version: 0, ..plain() });
        time("earliest_time", "Claims that it is the second -2^63", i64::MIN);
        time("latest_time", "Claims that it is the second 2^63-1", i64::MAX);
        time("time_0", "Claims that it is 1970", 0);
    }
}

/// Payloads that end within a field, in valid frames.
fn cut() -> Vec<Misbehaviour> {
    let cut_at = |name, does, length: usize| {
        let steps =
            vec![expect_version(), send(message("version", &payload(&Claimed::plain())[..length]))];
        fails(name, does, Outcome::Malformed, steps)
    };
    let height = 80 + 1 + 9;
    table! {
        cut_at("empty_version", "Sends a version without any payload", 0);
        cut_at("cut_in_number", "Sends a version that ends within its number", 3);
        cut_at("cut_in_services", "Sends a version that ends within its services", 11);
        cut_at("cut_before_addr_recv", "Sends a version that ends before addr_recv", 20);
        cut_at("cut_in_addr_recv", "Sends a version that ends within addr_recv", 45);
        cut_at("cut_in_addr_from", "Sends a version that ends within addr_from", 47);
        cut_at("cut_in_nonce", "Sends a version that ends within its nonce", 79);
        cut_at("cut_in_user_agent", "Sends a version that ends within its user agent", height - 4);
        cut_at("cut_in_height", "Sends a version that ends within its height", height + 3);
    }
}

fn order() -> Vec<Misbehaviour> {
    let second =
        Claimed { protocol_version: 60_000, services: 1, ..Claimed::agent(b"/second:2.0/") };
    let early = ["wtxidrelay", "sendaddrv2", "ping", "getaddr", "feefilter"];
    let early = early.map(|command| message(command, &[0; 8])).concat();
    table! {
        responds("verack_first", "Sends verack before its version", answer([verack(), plain()]));
        responds("two_versions", "Sends two versions, of which the first one counts",
            answer_all([plain(), version(&second)].concat()));
        responds("everything_before_version", "Sends half a dozen other messages before its version",
            answer([early, plain(), verack()]));
        responds("version_before_ours", "Sends its version as soon as the connection is open",
            vec![send([plain(), verack()].concat())]);
        responds("all_at_once", "Sends version, verack and an addr that was not requested in one go",
            vec![send([plain(), verack(), unreachable_addr()].concat())]);
    }
}

fn encoded(version: &Version) -> Vec<u8> {
    let mut payload = Vec::new();
    version.encode(&mut payload);
    payload
}
