//! Misbehaviours that are not Bitcoin nodes: other protocols, other networks, mirrors.
//!
//! The first byte that differs from this network's magic decides.

use crate::node::conversation::Close;
use crate::zoo::step::{
    Flow, Step, answer, expect_version, frame, message, payload, plain, send, send_forever, verack,
};
use crate::zoo::{Claimed, Misbehaviour, fails, responds};
use bitdash_core::vocabulary::outcome::Outcome;
use watchglass::Command;

pub(super) fn misbehaviours() -> Vec<Misbehaviour> {
    let foreign = |name, does, steps| fails(name, does, Outcome::NotBitcoin, steps);
    let answers =
        |bytes: &[u8]| vec![expect_version(), send(bytes.to_vec()), Step::Close(Close::Fin)];
    let of_magic = |magic| {
        let version = frame(magic, Command::VERSION, &payload(&Claimed::plain()));
        vec![expect_version(), send(version), send(frame(magic, Command::VERACK, &[]))]
    };
    table! {
        foreign("ssh", "Is an SSH server, which speaks first",
            vec![send(b"SSH-2.0-OpenSSH_9.2p1 Debian-2+deb12u3\r\n".to_vec())]);
        foreign("ftp", "Is an FTP server", vec![send(b"220 (vsFTPd 3.0.3)\r\n".to_vec())]);
        foreign("http", "Is a web server, which answers our version with 400 Bad Request and disconnects",
            answers(b"HTTP/1.1 400 Bad Request\r\nConnection: close\r\nContent-Length: 0\r\n\r\n"));
        foreign("tls", "Is a TLS server, which answers with an alert",
            answers(&[0x15, 0x03, 0x01, 0x00, 0x02, 0x02, 0x46]));
        foreign("electrum", "Is an Electrum server, which talks JSON",
            answers(br#"{"jsonrpc":"2.0","error":{"code":-32700,"message":"invalid JSON"}}"#));
        foreign("newline", "Sends a single line feed", vec![send(b"\n".to_vec())]);
        foreign("garbage", "Sends 4,000 random bytes", vec![send(random(4_000))]);
        foreign("garbage_without_end", "Sends random bytes forever",
            vec![send_forever(random(60_000))]);
        foreign("zeros_without_end", "Sends zeros forever",
            vec![Step::Send(Flow { zeros: 1 << 20, repeats: true, ..Flow::new(vec![0]) })]);
        foreign("encrypted_transport", "Answers as a node that expects encrypted transport, in random bytes",
            answer([random(64 + 150)]));
        foreign("bch", "Is a node of Bitcoin Cash, magic e3e1f3e8",
            of_magic([0xe3, 0xe1, 0xf3, 0xe8]));
        foreign("testnet", "Is a node of the test network, magic 0b110907",
            of_magic([0x0b, 0x11, 0x09, 0x07]));
        foreign("magic_wrong_in_its_last_byte", "Has a magic that is ours but for the last bit",
            of_magic([0xf9, 0xbe, 0xb4, 0xd8]));
        foreign("echo", "Sends back every byte that it gets, our nonce among them",
            vec![Step::Echo]);
        foreign("own_nonce", "Sends a version of its own with our nonce in it",
            vec![expect_version(), Step::SendTheirNonce, send(verack())]);
        fails("magic_then_text", "Has our magic, and after it text instead of a header",
            Outcome::Malformed,
                answers(b"\xf9\xbe\xb4\xd9HTTP/1.1 400 Bad Request\r\nConnection: close\r\n\r\n"));
        fails("garbage_behind_a_message", "Sends verack, and after it random bytes",
            Outcome::Malformed, vec![send([verack(), random(4_000)].concat())]);
        responds("garbage_behind_version", "Sends its version, and after it random bytes",
            answer([plain(), random(4_000)]));
        fails("rejects", "Answers with a reject message and disconnects",
            Outcome::Closed, answers(&message("reject", b"\x07version\x11\x03old")));
    }
}

/// Random bytes, always the same; the first is not that of the magic.
fn random(count: usize) -> Vec<u8> {
    let mut rng = fastrand::Rng::with_seed(1);
    let mut bytes: Vec<u8> = (0..count).map(|_| rng.u8(..)).collect();
    if let Some(first) = bytes.first_mut() {
        *first = 0x5a;
    }
    bytes
}
