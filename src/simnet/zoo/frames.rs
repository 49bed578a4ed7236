//! Beasts whose frames are wrong: checksums, lengths, counts, commands.
//!
//! Layer 2: plain data. A frame is judged as soon as its header is there; a broken one that is whole ends
//! nothing, unless it was to be the `version`.

use crate::crawl::outcome::Outcome;
use crate::simnet::zoo::act::{
    Act, Flow, addr, blank, frame, greeted, header, hear_version, message, nobody, nowhere,
    payload, ping, plain, say, verack,
};
use crate::simnet::zoo::{Beast, Said};
use crate::watchglass::{Command, Magic};

pub(super) fn beasts() -> Vec<Beast> {
    [checksums(), lengths(), counts(), commands()].concat()
}

fn checksums() -> Vec<Beast> {
    vec![
        Beast::fails(
            "version_of_wrong_checksum",
            "Says a version whose checksum is wrong by one bit",
            Outcome::Malformed,
            vec![hear_version(), say(spoilt(plain()))],
        ),
        Beast::responds(
            "ping_of_wrong_checksum_first",
            "Says a ping of a wrong checksum, then its version",
            Said::plain(),
            vec![hear_version(), say([spoilt(ping()), plain(), verack()].concat())],
        ),
        Beast::responds(
            "wrong_checksums_behind_version",
            "Says its version, and then nothing but messages of wrong checksums",
            Said::plain(),
            vec![
                hear_version(),
                say([plain(), spoilt(verack()), spoilt(ping()), spoilt(nowhere())].concat()),
            ],
        ),
    ]
}

fn lengths() -> Vec<Beast> {
    let broken = Outcome::Malformed;
    vec![
        Beast::fails(
            "version_of_four_gigabytes",
            "Announces a version of 2^32-1 bytes",
            broken,
            vec![hear_version(), blank("version", u32::MAX, 1 << 20)],
        ),
        Beast::fails(
            "block_of_four_gigabytes",
            "Announces a block of 2^32-1 bytes",
            broken,
            vec![blank("block", u32::MAX, 1 << 20)],
        ),
        Beast::fails(
            "message_of_32_megabytes",
            "Sends a block of 32 MiB, the limit of old nodes, with every byte of it",
            broken,
            vec![blank("block", 32 << 20, 32 << 20)],
        ),
        Beast::fails(
            "message_one_byte_too_long",
            "Sends an inv of 4,000,001 bytes, one more than the limit",
            broken,
            vec![blank("inv", 4_000_001, 4_000_001), say(plain())],
        ),
        Beast::responds(
            "longest_message_first",
            "Sends a block of 4,000,000 bytes, the most that is legal, and then its version",
            Said::plain(),
            vec![blank("block", 4_000_000, 4_000_000), say([plain(), verack()].concat())],
        ),
        Beast::responds(
            "four_gigabytes_behind_version",
            "Says its version, and then announces an addr of 2^32-1 bytes",
            Said::plain(),
            greeted(vec![blank("addr", u32::MAX, 1 << 20)]),
        ),
        Beast::responds(
            "32_megabytes_behind_version",
            "Says its version, and then sends a block of 32 MiB",
            Said::plain(),
            greeted(vec![blank("block", 32 << 20, 32 << 20)]),
        ),
        Beast::responds(
            "verack_with_a_payload",
            "Says its version, and then a verack and a ping with payloads that they should not have",
            Said::plain(),
            vec![
                hear_version(),
                say([plain(), message("verack", &[7; 1_000]), message("ping", &[7; 1_000])]
                    .concat()),
            ],
        ),
        Beast::responds(
            "half_an_addr",
            "Says its version, then half of an addr of 1000 entries and no more",
            Said::plain(),
            greeted(vec![blank("addr", 30_003, 15_000)]),
        ),
    ]
}

fn counts() -> Vec<Beast> {
    let huge = |first: u8| {
        let mut payload = vec![0xff, 0, 0, 0, 0, 0, 0, 0, first];
        payload.extend([0; 30]);
        payload
    };
    let broken_front = |front: &[u8]| {
        let mut payload = payload(&Said::plain());
        payload.truncate(80);
        payload.extend_from_slice(front);
        payload.extend_from_slice(b"/zoo:1.0/");
        payload.extend([0; 5]);
        vec![hear_version(), say(message("version", &payload))]
    };
    let entries: Vec<_> = (0..1_001).map(nobody).collect();
    let first_thousand = addr(&entries[..1_000])[24 + 3..].to_vec();
    let too_many = [&[0xfd, 0xe9, 0x03], &first_thousand[..], &first_thousand[..30]].concat();
    vec![
        Beast::responds(
            "addr_of_2_63_entries",
            "Says its version, and then an addr that counts 2^63 entries and holds one",
            Said::plain(),
            greeted(vec![say(message("addr", &huge(0x80)))]),
        ),
        Beast::responds(
            "addr_of_2_63_entries_first",
            "Says an addr that counts 2^63 entries before its version",
            Said::plain(),
            vec![hear_version(), say([message("addr", &huge(0x80)), plain(), verack()].concat())],
        ),
        Beast::responds(
            "inv_of_2_64_entries",
            "Says its version, and then an inv that counts 2^64-2^56 entries and holds less than one",
            Said::plain(),
            greeted(vec![say(message("inv", &huge(0xff)))]),
        ),
        Beast::responds(
            "addr_of_1001_entries",
            "Says its version, and then an addr of one entry more than is legal",
            Said::plain(),
            greeted(vec![say(message("addr", &too_many))]),
        ),
        Beast::responds(
            "addr_of_no_entry",
            "Says its version, and then an addr of no entry and one without a count",
            Said::plain(),
            greeted(vec![say([message("addr", &[0]), message("addr", &[])].concat())]),
        ),
        Beast::responds(
            "addr_that_is_cut",
            "Says its version, and then an addr that counts three entries and ends in the second",
            Said::plain(),
            greeted(vec![say(message("addr", &[&[3_u8][..], &[0; 45]].concat()))]),
        ),
        Beast::fails(
            "user_agent_of_2_63_bytes",
            "Says a version whose user agent is 2^63 bytes long by its own account",
            Outcome::Malformed,
            broken_front(&[0xff, 0, 0, 0, 0, 0, 0, 0, 0x80]),
        ),
        Beast::fails(
            "user_agent_longer_than_its_message",
            "Says a version whose user agent is longer than the message that holds it",
            Outcome::Malformed,
            broken_front(&[0xfd, 0xe8, 0x03]),
        ),
        Beast::fails(
            "length_in_a_longer_form",
            "Says a version whose user agent's length of 9 is written in three bytes",
            Outcome::Malformed,
            broken_front(&[0xfd, 9, 0]),
        ),
    ]
}

fn commands() -> Vec<Beast> {
    let odd = |command: &[u8; 12], payload: &[u8]| frame(Magic::MAIN.0, Command(*command), payload);
    let said = payload(&Said::plain());
    vec![
        Beast::responds(
            "command_of_terminal_escapes",
            "Says its version between messages whose commands are terminal escapes",
            Said::plain(),
            vec![
                hear_version(),
                say([
                    odd(b"\x1b[2J\x1b[31m\x07\r\n", &[]),
                    plain(),
                    verack(),
                    odd(b"\x1b]0;owned\x07\r\n", &[]),
                ]
                .concat()),
            ],
        ),
        Beast::responds(
            "commands_of_every_byte",
            "Says its version behind messages whose commands hold every byte there is",
            Said::plain(),
            vec![hear_version(), say([every_command(), plain(), verack()].concat())],
        ),
        Beast::fails(
            "version_in_capitals",
            "Says VERSION in capitals, which is another command",
            Outcome::HandshakeTimeout,
            vec![hear_version(), say(odd(b"VERSION\0\0\0\0\0", &said))],
        ),
        Beast::fails(
            "version_with_dirt_behind_its_zero",
            "Says a version whose command has a letter behind its zero, which is another command",
            Outcome::HandshakeTimeout,
            vec![hear_version(), say(odd(b"version\0x\0\0\0", &said))],
        ),
        Beast::fails(
            "header_without_end",
            "Says headers of empty messages for ever",
            Outcome::Malformed,
            vec![Act::Say(Flow { is_endless: true, ..Flow::once(header("sendheaders", 0)) })],
        ),
    ]
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

/// With a checksum that is wrong by one bit.
fn spoilt(mut message: Vec<u8>) -> Vec<u8> {
    message[20] ^= 1;
    message
}
