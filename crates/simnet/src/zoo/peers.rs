//! Misbehaviours whose peers are bad, and a host that answers on many ports.

use std::time::Duration;

use crate::network::gossip::Entry;
use crate::zoo::step::{
    Step, addr, answer_all, handshake, message, plain, send, send_periodically, send_slowly,
    unreachable_entry, version,
};
use crate::zoo::{Claimed, Misbehaviour, responds, responds_with};
use watchglass::Command;

pub(super) fn misbehaviours() -> Vec<Misbehaviour> {
    let answers = |name, does, step| {
        let steps = [handshake(plain()), vec![Step::Expect(Command::GETADDR), step]].concat();
        responds(name, does, steps)
    };
    let reply: Vec<Entry> = (0..1_000).map(unreachable_entry).collect();
    let same = vec![unreachable_entry(1); 1_000];
    let host = Claimed::agent(b"/every port:1.0/");
    let many = responds_with(
        "every_port",
        "Is one host that answers on 24 ports, of which 16 are remembered",
        host.clone(),
        answer_all(version(&host)),
    );
    table! {
        Misbehaviour { ports: 24, max_recorded: 16, ..many };
        answers("peers_that_are_no_addresses", "Sends port 0, 0.0.0.0, 255.255.255.255, multicast and private addresses",
            send(addr(&reserved())));
        answers("one_peer_a_thousand_times", "Sends one address 1000 times", send(addr(&same)));
        answers("peers_of_every_age", "Sends addresses last seen in 1970, now, and in 2106",
            send(addr(&ages())));
        answers("reply_a_byte_at_a_time", "Sends its reply of 1000 peers in pieces of 300 bytes, 10 ms apart",
            send_slowly(addr(&reply), 300, Duration::from_millis(10)));
        answers("one_peer_at_a_time", "Sends addr messages of one entry ten times a second forever",
            send_periodically(addr(&reply[..1]), Duration::from_millis(100)));
        answers("peers_without_times", "Sends its peers in the layout of before 2010, without times",
            send(message("addr", &without_times(&reply[..100]))));
        answers("peers_of_addrv2", "Answers with an addrv2 that was not requested",
            send(message("addrv2", &[0x01; 40])));
    }
}

fn reserved() -> Vec<Entry> {
    let ipv4 = "203.0.113.9:0 127.77.77.77:0 0.0.0.0:8333 255.255.255.255:8333 224.0.0.1:8333 \
                240.0.0.1:8333 10.0.0.1:8333 172.16.0.1:8333 192.168.0.1:22 169.254.169.254:80 \
                100.64.0.1:8333 192.0.2.1:8333";
    let address = |text: &str| text.parse().expect("an address");
    let ipv4 = ipv4.split(' ').map(|text| Entry::ipv4(address(text), u64::MAX, 0));
    let ipv6 = [0, 0xff].map(|byte| Entry { time: 0, services: 0, ip: [byte; 16], port: 8333 });
    ipv4.chain(ipv6).collect()
}

fn ages() -> Vec<Entry> {
    [0, 1, 100_000_000, 1_790_000_000, 1_790_000_601, u32::MAX]
        .map(|time| Entry { time, ..unreachable_entry(1) })
        .to_vec()
}

fn without_times(entries: &[Entry]) -> Vec<u8> {
    let mut payload = vec![entries.len() as u8];
    for entry in entries {
        entry.encode(false, &mut payload);
    }
    payload
}
