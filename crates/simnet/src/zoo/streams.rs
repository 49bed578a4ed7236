//! Misbehaviours that send endless streams: before their `version`, instead of it, and after it.
//!
//! The bytes, messages and entries that count for one node are bounded.

use crate::zoo::step::{
    Flow, Step, addr, after_handshake, header, message, ping, plain, send_forever,
    unreachable_entry, verack,
};
use crate::zoo::{Misbehaviour, fails, responds};
use bitdash_core::vocabulary::outcome::Outcome;

pub(super) fn misbehaviours() -> Vec<Misbehaviour> {
    let instead = |name, does, steps| fails(name, does, Outcome::Malformed, steps);
    let behind = |name, does, step| responds(name, does, after_handshake(vec![step]));
    let thousand: Vec<_> = (0..1_000).map(unreachable_entry).collect();
    table! {
        instead("endless_addr_first", "Sends addr messages of 1000 entries forever, and never its version",
            vec![send_forever(addr(&thousand))]);
        instead("endless_inv_first", "Sends inv messages forever, and never its version",
            vec![send_forever(inv(10))]);
        instead("endless_ping_first", "Sends pings forever, and never its version",
            vec![send_forever(ping())]);
        instead("endless_verack_first", "Sends veracks forever, and never its version",
            vec![send_forever(verack())]);
        instead("endless_long_messages_first", "Sends blocks of 4,000,000 bytes forever, and never its version",
            vec![long_messages()]);
        behind("endless_addr", "Sends its version, and then addr messages of 1000 entries forever",
            send_forever(addr(&thousand)));
        behind("endless_addr_of_one", "Sends its version, and then addr messages of one entry forever",
            send_forever(addr(&thousand[..1])));
        behind("endless_inv", "Sends its version, and then inv messages forever",
            send_forever(inv(50)));
        behind("endless_ping", "Sends its version, and then pings forever", send_forever(ping()));
        behind("endless_version", "Sends its version again and again forever",
            send_forever(plain()));
        behind("endless_getaddr", "Sends its version, and then getaddr messages forever",
            send_forever(message("getaddr", &[])));
        behind("endless_long_messages", "Sends its version, and then blocks of 4,000,000 bytes forever",
            long_messages());
    }
}

/// An `inv` of unknown transactions.
fn inv(count: u8) -> Vec<u8> {
    let mut payload = vec![count];
    for number in 0..count {
        payload.extend_from_slice(&[1, 0, 0, 0]);
        payload.extend_from_slice(&[number; 32]);
    }
    message("inv", &payload)
}

fn long_messages() -> Step {
    let head = header("block", 4_000_000);
    Step::Send(Flow { zeros: 4_000_000, repeats: true, ..Flow::new(head) })
}
