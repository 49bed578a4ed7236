//! Beasts whose streams have no end, before their `version`, instead of it, and behind it.
//!
//! Layer 2: plain data. What is counted of one node is bounded: bytes, messages, entries.

use crate::crawl::outcome::Outcome;
use crate::simnet::zoo::act::{
    Act, Flow, addr, greeted, header, message, nobody, ping, plain, stream, verack,
};
use crate::simnet::zoo::{Beast, Said};

pub(super) fn beasts() -> Vec<Beast> {
    let instead = |name, does, acts| Beast::fails(name, does, Outcome::Malformed, acts);
    let behind = |name, does, act| Beast::responds(name, does, Said::plain(), greeted(vec![act]));
    let thousand: Vec<_> = (0..1_000).map(nobody).collect();
    vec![
        instead(
            "endless_addr_first",
            "Sends addr messages of 1000 entries for ever, and never its version",
            vec![stream(addr(&thousand))],
        ),
        instead(
            "endless_inv_first",
            "Sends inv messages for ever, and never its version",
            vec![stream(inv(10))],
        ),
        instead(
            "endless_ping_first",
            "Sends pings for ever, and never its version",
            vec![stream(ping())],
        ),
        instead(
            "endless_verack_first",
            "Sends veracks for ever, and never its version",
            vec![stream(verack())],
        ),
        instead(
            "endless_long_messages_first",
            "Sends blocks of 4,000,000 bytes for ever, and never its version",
            vec![long_messages()],
        ),
        behind(
            "endless_addr",
            "Says its version, and then addr messages of 1000 entries for ever",
            stream(addr(&thousand)),
        ),
        behind(
            "endless_addr_of_one",
            "Says its version, and then addr messages of one entry for ever",
            stream(addr(&thousand[..1])),
        ),
        behind("endless_inv", "Says its version, and then inv messages for ever", stream(inv(50))),
        behind("endless_ping", "Says its version, and then pings for ever", stream(ping())),
        behind("endless_version", "Says its version again and again for ever", stream(plain())),
        behind(
            "endless_getaddr",
            "Says its version, and then asks us for our peers for ever",
            stream(message("getaddr", &[])),
        ),
        behind(
            "endless_long_messages",
            "Says its version, and then blocks of 4,000,000 bytes for ever",
            long_messages(),
        ),
    ]
}

/// An `inv` of so many transactions that nobody knows.
fn inv(count: u8) -> Vec<u8> {
    let mut payload = vec![count];
    for number in 0..count {
        payload.extend_from_slice(&[1, 0, 0, 0]);
        payload.extend_from_slice(&[number; 32]);
    }
    message("inv", &payload)
}

fn long_messages() -> Act {
    let head = header("block", 4_000_000);
    Act::Say(Flow { zeros: 4_000_000, is_endless: true, ..Flow::once(head) })
}
