//! Beasts that say nothing, or say it slowly.
//!
//! Layer 2: plain data. Traffic moves no deadline, and one segment per byte is still a `version`.

use std::time::Duration;

use crate::crawl::outcome::Outcome;
use crate::simnet::zoo::act::{
    addr, blank, drip, greeted, hear_version, nobody, ping, plain, pulse, say, verack, wait_ms,
};
use crate::simnet::zoo::{Beast, Said};

pub(super) fn beasts() -> Vec<Beast> {
    let late = Outcome::HandshakeTimeout;
    let half = plain().len() / 2;
    vec![
        Beast::fails("silence", "Accepts and never says a byte", late, vec![]),
        Beast::fails(
            "half_a_header",
            "Says the first 12 bytes of a header and no more",
            late,
            vec![say(plain()[..12].to_vec())],
        ),
        Beast::fails(
            "half_a_version",
            "Says half of its version and no more",
            late,
            vec![hear_version(), say(plain()[..half].to_vec())],
        ),
        Beast::fails(
            "byte_a_second",
            "Says its version at a byte a second, which takes two minutes",
            late,
            vec![hear_version(), drip(plain(), 1, Duration::from_secs(1))],
        ),
        Beast::responds(
            "byte_per_segment",
            "Says its version with one byte in each segment, 5 ms apart",
            Said::plain(),
            vec![hear_version(), drip([plain(), verack()].concat(), 1, Duration::from_millis(5))],
        ),
        Beast::responds(
            "version_in_two_halves",
            "Says the one half of its version, and half a second later the other",
            Said::plain(),
            vec![
                hear_version(),
                say(plain()[..half].to_vec()),
                wait_ms(500),
                say(plain()[half..].to_vec()),
            ],
        ),
        Beast::responds(
            "late_version",
            "Thinks for a second and a half before its version",
            Said::plain(),
            vec![hear_version(), wait_ms(1_500), say([plain(), verack()].concat())],
        ),
        Beast::fails(
            "pings_instead_of_version",
            "Pings ten times a second and never says its version",
            late,
            vec![pulse(ping(), Duration::from_millis(100))],
        ),
        Beast::fails(
            "promises_four_megabytes",
            "Announces a version of 4,000,000 bytes, the most that is legal, and sends 100 of them",
            late,
            vec![hear_version(), blank("version", 4_000_000, 100)],
        ),
        Beast::responds(
            "pings_and_sends_no_peers",
            "Greets, then pings four times a second and never answers getaddr",
            Said::plain(),
            greeted(vec![pulse(ping(), Duration::from_millis(250))]),
        ),
        Beast::responds(
            "drips_peers",
            "Greets, then sends an addr of two entries every quarter of a second for ever",
            Said::plain(),
            greeted(vec![pulse(addr(&[nobody(1), nobody(2)]), Duration::from_millis(250))]),
        ),
        Beast::responds(
            "greets_and_falls_silent",
            "Says its version, no verack, and nothing ever after",
            Said::plain(),
            vec![hear_version(), say(plain())],
        ),
    ]
}
