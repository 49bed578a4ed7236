//! Misbehaviours that send nothing, or send it slowly.
//!
//! Traffic extends no deadline, and a `version` in one segment per byte is valid.

use std::time::Duration;

use crate::zoo::step::{
    addr, after_handshake, answer, expect_version, header_and_zeros, ping, plain, send,
    send_periodically, send_slowly, unreachable_entry, verack, wait_ms,
};
use crate::zoo::{Misbehaviour, fails, responds};
use bitdash_core::vocabulary::outcome::Outcome;

pub(super) fn misbehaviours() -> Vec<Misbehaviour> {
    let late = Outcome::HandshakeTimeout;
    let half = plain().len() / 2;
    table! {
        fails("silence", "Accepts and never sends a byte", late, vec![]);
        fails("half_a_header", "Sends the first 12 bytes of a header and nothing more",
            late, vec![send(plain()[..12].to_vec())]);
        fails("half_a_version", "Sends half of its version and nothing more",
            late, answer([plain()[..half].to_vec()]));
        fails("byte_a_second", "Sends its version at a byte a second, which takes two minutes",
            late, vec![expect_version(), send_slowly(plain(), 1, Duration::from_secs(1))]);
        responds("byte_per_segment", "Sends its version with one byte in each segment, 5 ms apart",
            vec![expect_version(), send_slowly([plain(), verack()].concat(), 1,
                Duration::from_millis(5))]);
        responds("version_in_two_halves", "Sends one half of its version and the other half a second later",
            vec![expect_version(), send(plain()[..half].to_vec()), wait_ms(500),
                send(plain()[half..].to_vec())]);
        responds("late_version", "Waits for a second and a half before its version",
            vec![expect_version(), wait_ms(1_500), send([plain(), verack()].concat())]);
        fails("pings_instead_of_version", "Pings ten times a second and never sends its version",
            late, vec![send_periodically(ping(), Duration::from_millis(100))]);
        fails("promises_four_megabytes", "Announces a version of 4,000,000 bytes, the maximum, and sends 100 of them",
            late, vec![expect_version(), header_and_zeros("version", 4_000_000, 100)]);
        responds("pings_and_sends_no_peers", "Completes the handshake, then pings four times a second and never answers getaddr",
            after_handshake(vec![send_periodically(ping(), Duration::from_millis(250))]));
        responds("drips_peers", "Completes the handshake, then sends an addr of two entries every quarter of a second forever",
            after_handshake(vec![send_periodically(addr(&[unreachable_entry(1),
                unreachable_entry(2)]), Duration::from_millis(250))]));
        responds("silent_after_version", "Sends its version, no verack, and nothing after it",
            answer([plain()]));
    }
}
