//! Beasts that are no Bitcoin node at all: other protocols, other networks, mirrors.
//!
//! Layer 2: plain data. The first byte that is not this network's magic tells.

use crate::crawl::outcome::Outcome;
use crate::simnet::behaviour::Close;
use crate::simnet::zoo::act::{
    Act, Flow, frame, hear_version, message, payload, plain, say, stream, verack,
};
use crate::simnet::zoo::{Beast, Said};
use crate::watchglass::Command;

pub(super) fn beasts() -> Vec<Beast> {
    let foreign = |name, does, acts| Beast::fails(name, does, Outcome::NotBitcoin, acts);
    let answers = |bytes: &[u8]| vec![hear_version(), say(bytes.to_vec()), Act::End(Close::Fin)];
    let of_magic = |magic| {
        let version = frame(magic, Command::VERSION, &payload(&Said::plain()));
        vec![hear_version(), say(version), say(frame(magic, Command::VERACK, &[]))]
    };
    vec![
        foreign(
            "ssh",
            "Is an SSH server, which speaks first",
            vec![say(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n".to_vec())],
        ),
        foreign("ftp", "Is an FTP server", vec![say(b"220 (vsFTPd 3.0.3)\r\n".to_vec())]),
        foreign(
            "http",
            "Is a web server, which says that our version is a bad request and hangs up",
            answers(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"),
        ),
        foreign(
            "tls",
            "Is a TLS server, which answers with an alert",
            answers(&[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46]),
        ),
        foreign(
            "electrum",
            "Is an Electrum server, which talks JSON",
            answers(
                b"{\"jsonrpc\":\"2.0\",\"error\":{\"code\":-32700,\"message\":\"invalid JSON\"}}\n",
            ),
        ),
        foreign("newline", "Says a single line feed", vec![say(b"\n".to_vec())]),
        foreign("garbage", "Says 4,000 random bytes", vec![say(random(4_000))]),
        foreign("garbage_without_end", "Says random bytes for ever", vec![stream(random(60_000))]),
        foreign(
            "zeros_without_end",
            "Says zeros for ever",
            vec![Act::Say(Flow { zeros: 1 << 20, is_endless: true, ..Flow::once(vec![0]) })],
        ),
        foreign(
            "encrypted_transport",
            "Answers as a node that takes us for one with encrypted transport, in random bytes",
            vec![hear_version(), say(random(64 + 150))],
        ),
        foreign(
            "bch",
            "Is a node of Bitcoin Cash, magic e3e1f3e8",
            of_magic([0xe3, 0xe1, 0xf3, 0xe8]),
        ),
        foreign(
            "testnet",
            "Is a node of the test network, magic 0b110907",
            of_magic([0x0b, 0x11, 0x09, 0x07]),
        ),
        foreign(
            "magic_wrong_in_its_last_byte",
            "Has a magic that is ours but for the last bit",
            of_magic([0xf9, 0xbe, 0xb4, 0xd8]),
        ),
        foreign(
            "echo",
            "Sends back every byte that it gets, our nonce among them",
            vec![Act::Echo],
        ),
        foreign(
            "own_nonce",
            "Says a version of its own with our nonce in it",
            vec![hear_version(), Act::Mirror, say(verack())],
        ),
        Beast::fails(
            "magic_then_text",
            "Has our magic, and behind it text instead of a header",
            Outcome::Malformed,
            answers(b"\xf9\xbe\xb4\xd9HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"),
        ),
        Beast::fails(
            "garbage_behind_a_message",
            "Says verack, and behind it random bytes",
            Outcome::Malformed,
            vec![say([verack(), random(4_000)].concat())],
        ),
        Beast::responds(
            "garbage_behind_version",
            "Says its version, and behind it random bytes",
            Said::plain(),
            vec![hear_version(), say([plain(), random(4_000)].concat())],
        ),
        Beast::fails(
            "rejects",
            "Answers with a reject message and hangs up",
            Outcome::Closed,
            answers(&message("reject", b"\x07version\x11\x03old")),
        ),
    ]
}

/// Bytes without any order, the same ones every time; the first is not that of the magic.
fn random(count: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut bytes: Vec<u8> = (0..count).map(|_| rng.u8(..)).collect();
    if let Some(first) = bytes.first_mut() {
        *first = 0x5a;
    }
    bytes
}
