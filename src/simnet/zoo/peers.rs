//! Beasts whose peers are bad, and the host that is all of its own peers.
//!
//! Layer 2: plain data. Nothing that they name can be dialled: see the invariants of the zoo.

use std::net::Ipv4Addr;
use std::time::Duration;

use crate::crawl::address::Address;
use crate::simnet::knowledge::Entry;
use crate::simnet::zoo::act::{
    Act, addr, drip, greet, message, nobody, plain, pulse, say, version, visit,
};
use crate::simnet::zoo::{Beast, Said};
use crate::watchglass::Command;

pub(super) fn beasts() -> Vec<Beast> {
    let answers = |name, does, act| {
        let acts = [greet(plain()), vec![Act::Hear(Command::GETADDR), act]].concat();
        Beast::responds(name, does, Said::plain(), acts)
    };
    let reply: Vec<Entry> = (0..1_000).map(nobody).collect();
    let same = vec![nobody(1); 1_000];
    let host = Said::agent(b"/every port:1.0/");
    let many = Beast::responds(
        "every_port",
        "Is one host that answers on 24 ports, of which 16 are remembered",
        host.clone(),
        visit(version(&host)),
    );
    vec![
        Beast { ports: 24, recorded: 16, ..many },
        answers(
            "names_what_is_no_address",
            "Names port 0, 0.0.0.0, 255.255.255.255, multicast and private addresses",
            say(addr(&reserved())),
        ),
        answers(
            "names_one_address_a_thousand_times",
            "Names one address 1000 times",
            say(addr(&same)),
        ),
        answers(
            "names_times_of_every_age",
            "Names addresses last seen in 1970, now, and in 2106",
            say(addr(&ages())),
        ),
        answers(
            "reply_a_byte_at_a_time",
            "Sends its reply of 1000 peers in pieces of 300 bytes, 10 ms apart",
            drip(addr(&reply), 300, Duration::from_millis(10)),
        ),
        answers(
            "one_peer_at_a_time",
            "Sends addr messages of one entry ten times a second for ever",
            pulse(addr(&reply[..1]), Duration::from_millis(100)),
        ),
        answers(
            "peers_without_times",
            "Sends its peers in the layout of before 2010, without times",
            say(message("addr", &without_times(&reply[..100]))),
        ),
        answers(
            "peers_of_addrv2",
            "Answers with an addrv2 that nobody asked for",
            say(message("addrv2", &[0x01; 40])),
        ),
    ]
}

fn reserved() -> Vec<Entry> {
    let of = |ip: [u8; 4], port| Entry::ipv4(Address::new(Ipv4Addr::from(ip), port), u64::MAX, 0);
    vec![
        of([203, 0, 113, 9], 0),
        of([127, 77, 77, 77], 0),
        of([0, 0, 0, 0], 8333),
        of([255, 255, 255, 255], 8333),
        of([224, 0, 0, 1], 8333),
        of([240, 0, 0, 1], 8333),
        of([10, 0, 0, 1], 8333),
        of([172, 16, 0, 1], 8333),
        of([192, 168, 0, 1], 22),
        of([169, 254, 169, 254], 80),
        of([100, 64, 0, 1], 8333),
        of([192, 0, 2, 1], 8333),
        Entry { time: 0, services: 0, ip: [0; 16], port: 8333 },
        Entry { time: 0, services: 0, ip: [0xff; 16], port: 8333 },
    ]
}

fn ages() -> Vec<Entry> {
    [0, 1, 100_000_000, 1_790_000_000, 1_790_000_601, u32::MAX]
        .map(|time| Entry { time, ..nobody(1) })
        .to_vec()
}

fn without_times(entries: &[Entry]) -> Vec<u8> {
    let mut payload = vec![entries.len() as u8];
    for entry in entries {
        entry.encode(false, &mut payload);
    }
    payload
}
