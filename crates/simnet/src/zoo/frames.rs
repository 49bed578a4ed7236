//! Misbehaviours whose frames are wrong: checksums, lengths, counts, commands.
//!
//! A frame is judged as soon as its header has arrived. A broken but complete frame ends nothing,
//! unless it is the `version`.

use crate::zoo::step::{
    Flow, Step, addr, after_handshake, answer, expect_version, frame, header, header_and_zeros,
    message, payload, ping, plain, send, unreachable_addr, unreachable_entry, verack,
};
use crate::zoo::{Claimed, Misbehaviour, fails, responds};
use bitdash_core::vocabulary::outcome::Outcome;
use watchglass::{Command, Magic};

pub(super) fn misbehaviours() -> Vec<Misbehaviour> {
    [checksums(), lengths(), counts(), commands()].concat()
}

fn checksums() -> Vec<Misbehaviour> {
    table! {
        fails("version_of_wrong_checksum", "Sends a version whose checksum is wrong by one bit",
            Outcome::Malformed, answer([with_wrong_checksum(plain())]));
        responds("ping_of_wrong_checksum_first", "Sends a ping of a wrong checksum, then its version",
            answer([with_wrong_checksum(ping()), plain(), verack()]));
        responds("wrong_checksums_behind_version", "Sends its version, and then only messages of wrong checksums",
            answer([plain(), with_wrong_checksum(verack()), with_wrong_checksum(ping()),
                with_wrong_checksum(unreachable_addr())]));
    }
}

fn lengths() -> Vec<Misbehaviour> {
    let broken = Outcome::Malformed;
    table! {
        fails("version_of_four_gigabytes", "Announces a version of 2^32-1 bytes",
            broken, vec![expect_version(), header_and_zeros("version", u32::MAX, 1 << 20)]);
        fails("block_of_four_gigabytes", "Announces a block of 2^32-1 bytes",
            broken, vec![header_and_zeros("block", u32::MAX, 1 << 20)]);
        fails("message_of_32_megabytes", "Sends a block of 32 MiB, the limit of old nodes, with every byte of it",
            broken, vec![header_and_zeros("block", 32 << 20, 32 << 20)]);
        fails("message_one_byte_too_long", "Sends an inv of 4,000,001 bytes, one more than the limit",
            broken, vec![header_and_zeros("inv", 4_000_001, 4_000_001), send(plain())]);
        responds("longest_message_first", "Sends a block of 4,000,000 bytes, the maximum, and then its version",
            vec![header_and_zeros("block", 4_000_000, 4_000_000), send([plain(),
                verack()].concat())]);
        responds("four_gigabytes_behind_version", "Sends its version, and then announces an addr of 2^32-1 bytes",
            after_handshake(vec![header_and_zeros("addr", u32::MAX, 1 << 20)]));
        responds("32_megabytes_behind_version", "Sends its version, and then a block of 32 MiB",
            after_handshake(vec![header_and_zeros("block", 32 << 20, 32 << 20)]));
        responds("verack_with_a_payload", "Sends its version, and then a verack and a ping with payloads that they should not have",
            answer([plain(), message("verack", &[7; 1_000]), message("ping", &[7; 1_000])]));
        responds("half_an_addr", "Sends its version, then half of an addr of 1000 entries and nothing more",
            after_handshake(vec![header_and_zeros("addr", 30_003, 15_000)]));
    }
}

fn counts() -> Vec<Misbehaviour> {
    let huge = |first: u8| {
        let mut payload = vec![0xff, 0, 0, 0, 0, 0, 0, 0, first];
        payload.extend([0; 30]);
        payload
    };
    let broken_front = |front: &[u8]| {
        let mut payload = payload(&Claimed::plain());
        payload.truncate(80);
        payload.extend_from_slice(front);
        payload.extend_from_slice(b"/zoo:1.0/");
        payload.extend([0; 5]);
        vec![expect_version(), send(message("version", &payload))]
    };
    let entries: Vec<_> = (0..1_001).map(unreachable_entry).collect();
    let first_thousand = addr(&entries[..1_000])[24 + 3..].to_vec();
    let too_many = [&[0xfd, 0xe9, 0x03], &first_thousand[..], &first_thousand[..30]].concat();
    table! {
        responds("addr_of_2_63_entries", "Sends its version, and then an addr that counts 2^63 entries and holds one",
            after_handshake(vec![send(message("addr", &huge(0x80)))]));
        responds("addr_of_2_63_entries_first", "Sends an addr that counts 2^63 entries before its version",
            answer([message("addr", &huge(0x80)), plain(), verack()]));
        responds("inv_of_2_64_entries", "Sends its version, and then an inv that counts 2^64-2^56 entries and holds less than one",
            after_handshake(vec![send(message("inv", &huge(0xff)))]));
        responds("addr_of_1001_entries", "Sends its version, and then an addr of one entry more than allowed",
            after_handshake(vec![send(message("addr", &too_many))]));
        responds("addr_of_no_entry", "Sends its version, and then an addr of no entry and one without a count",
            after_handshake(vec![send([message("addr", &[0]), message("addr", &[])].concat())]));
        responds("addr_that_is_cut", "Sends its version, and then an addr that counts three entries and ends in the second",
            after_handshake(vec![send(message("addr", &[&[3_u8][..], &[0; 45]].concat()))]));
        fails("user_agent_of_2_63_bytes", "Sends a version that declares a user agent of 2^63 bytes",
            Outcome::Malformed, broken_front(&[0xff, 0, 0, 0, 0, 0, 0, 0, 0x80]));
        fails("user_agent_longer_than_its_message", "Sends a version whose user agent is longer than the message that holds it",
            Outcome::Malformed, broken_front(&[0xfd, 0xe8, 0x03]));
        fails("length_in_a_longer_form", "Sends a version whose user agent's length of 9 is written in three bytes",
            Outcome::Malformed, broken_front(&[0xfd, 9, 0]));
    }
}

fn commands() -> Vec<Misbehaviour> {
    let odd = |command: &[u8; 12], payload: &[u8]| frame(Magic::MAIN.0, Command(*command), payload);
    let claimed = payload(&Claimed::plain());
    table! {
        responds("command_of_terminal_escapes", "Sends its version between messages whose commands are terminal escapes",
            answer([odd(b"\x1b[2J\x1b[31m\x07\r\n", &[]), plain(), verack(),
                odd(b"\x1b]0;owned\x07\r\n", &[])]));
        responds("commands_of_every_byte", "Sends its version after messages whose commands hold every byte value",
            answer([every_command(), plain(), verack()]));
        fails("version_in_capitals", "Sends VERSION in capitals, which is another command",
            Outcome::HandshakeTimeout, answer([odd(b"VERSION\0\0\0\0\0", &claimed)]));
        fails("version_with_a_letter_after_its_zero", "Sends a version whose command has a letter after its zero, which is another command",
            Outcome::HandshakeTimeout, answer([odd(b"version\0x\0\0\0", &claimed)]));
        fails("header_without_end", "Sends headers of empty messages forever",
            Outcome::Malformed, vec![Step::Send(Flow { repeats: true,
                ..Flow::new(header("sendheaders", 0)) })]);
    }
}

fn every_command() -> Vec<u8> {
    let mut out = Vec::new();
    for first in (0..=255).step_by(12) {
        let mut command = [0; 12];
        for (at, byte) in command.iter_mut().enumerate() {
            *byte = (first as usize + at) as u8;
        }
        out.extend(frame(Magic::MAIN.0, Command(command), &[]));
    }
    out
}

/// The message with a checksum that is wrong by one bit.
fn with_wrong_checksum(mut message: Vec<u8>) -> Vec<u8> {
    message[20] ^= 1;
    message
}
