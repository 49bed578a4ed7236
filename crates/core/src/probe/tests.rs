//! The probe against the behaviour of real nodes, in virtual time.

use std::net::Ipv4Addr;
use std::ops::RangeInclusive;

use super::*;
use watchglass::AddrEntry;

const START: UnixTime = UnixTime::from_secs(1_800_000_000);
const NONCE: u64 = 0x1122_3344_5566_7788;

fn at(millis: u64) -> Now {
    let mono = Duration::from_millis(millis);
    Now { mono, wall: START.plus(mono) }
}

fn params() -> Arc<ProbeParams> {
    Arc::new(ProbeParams {
        magic: Magic::MAIN,
        protocol_version: 70_015,
        services: 0,
        user_agent: b"/bitdash:0.1.0/".to_vec(),
        connect_timeout: Duration::from_secs(5),
        candidate_connect_timeout: Duration::from_secs(3),
        handshake_timeout: Duration::from_secs(10),
        addr_timeout: Duration::from_secs(75),
        addr_quiet: Duration::from_secs(2),
    })
}

fn candidate() -> Target {
    Target::candidate(Address::new(Ipv4Addr::new(127, 1, 2, 3), 8333))
}

fn connected(target: Target) -> Probe {
    let mut probe = Probe::new(target, params(), NONCE, at(0));
    probe.handle_connected(at(40));
    probe
}

/// A probe whose node has sent `version` with this user agent, 100 ms after the start.
fn responded(agent: &str) -> Probe {
    let mut probe = connected(candidate());
    probe.poll_transmit();
    probe.handle_bytes(&version(agent), at(100));
    probe.poll_transmit();
    probe
}

fn theirs(agent: &str) -> Version {
    Version {
        version: 70_016,
        services: 1033,
        timestamp: 1_800_000_000,
        addr_recv: NetworkAddress::UNSPECIFIED,
        addr_from: Some(NetworkAddress::UNSPECIFIED),
        nonce: Some(7),
        user_agent: Some(agent.as_bytes().to_vec()),
        user_agent_length: agent.len() as u64,
        start_height: Some(900_000),
        relay: Some(true),
        trailing: 0,
    }
}

fn frame(command: Command, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_message(Magic::MAIN, command, payload, &mut out);
    out
}

fn version(agent: &str) -> Vec<u8> {
    version_frame(&theirs(agent))
}

fn version_frame(version: &Version) -> Vec<u8> {
    let mut payload = Vec::new();
    version.encode(&mut payload);
    frame(Command::VERSION, &payload)
}

fn addr(entries: RangeInclusive<u32>) -> Vec<u8> {
    let entry = |number| AddrEntry {
        time: Some(1_799_990_000),
        services: 1,
        ip: Ipv4Addr::from(0x7f10_0000 + number),
        port: 8333,
    };
    let entries: Vec<AddrEntry> = entries.map(entry).collect();
    let mut payload = Vec::new();
    Addr::encode(&entries, &mut payload);
    frame(Command::ADDR, &payload)
}

/// The commands of the messages in `bytes`.
fn commands(mut bytes: &[u8]) -> Vec<String> {
    let mut found = Vec::new();
    while bytes.len() >= 24 {
        let name = bytes[4..16].iter().take_while(|b| **b != 0).map(|b| *b as char).collect();
        let length = u32::from_le_bytes(bytes[16..20].try_into().unwrap()) as usize;
        found.push(name);
        bytes = &bytes[24 + length..];
    }
    assert!(bytes.is_empty());
    found
}

fn result(probe: &mut Probe) -> ProbeResult {
    let result = probe.finished().expect("the probe has ended");
    assert!(probe.finished().is_none(), "one result only");
    assert_eq!(probe.poll_timeout(), None);
    result
}

#[test]
fn sends_only_version_verack_and_getaddr() {
    let mut probe = Probe::new(candidate(), params(), NONCE, at(0));
    assert_eq!(probe.poll_transmit(), None, "nothing before the connection is established");
    probe.handle_connected(at(40));
    let hello = probe.poll_transmit().unwrap();
    assert_eq!(commands(&hello), ["version"]);
    let own = Version::decode(&hello[24..]).unwrap();
    assert_eq!((own.version, own.services, own.nonce), (70_015, 0, Some(NONCE)));
    assert_eq!((own.relay, own.addr_from), (Some(false), Some(NetworkAddress::UNSPECIFIED)));
    probe.handle_bytes(&version("/Satoshi:28.1.0/"), at(100));
    assert_eq!(commands(&probe.poll_transmit().unwrap()), ["verack", "getaddr"]);
    // Nothing else gets an answer: TRB bans for `pong`.
    for command in ["ping", "sendcmpct", "wtxidrelay", "inv", "getheaders", "feefilter", "getaddr"]
    {
        probe.handle_bytes(&frame(Command::new(command).unwrap(), &[0; 8]), at(110));
    }
    probe.handle_bytes(&version("/Satoshi:28.1.0/"), at(120));
    probe.handle_bytes(&addr(1..=500), at(130));
    probe.handle_timeout(at(3_000));
    assert_eq!(probe.poll_transmit(), None);
    assert_eq!(result(&mut probe).peers_sent, Some(500));
}

#[test]
fn getaddr_is_sent_only_if_due() {
    let address = candidate().address();
    let mut probe = connected(Target::node(address, false));
    probe.poll_transmit();
    probe.handle_bytes(&version("/Satoshi:28.1.0/"), at(100));
    assert_eq!(commands(&probe.poll_transmit().unwrap()), ["verack"]);
    let result = result(&mut probe);
    assert_eq!((result.outcome, result.peers_sent), (Outcome::Responded, None));
    assert_eq!((result.connect_ms, result.version_ms), (Some(40), Some(60)));
    let info = result.version.unwrap();
    assert_eq!(info.user_agent.as_deref(), Some("/Satoshi:28.1.0/"));
    assert_eq!((info.services, info.start_height, info.relay), (1033, Some(900_000), Some(true)));
}

#[test]
fn an_addr_of_one_entry_is_not_a_reply() {
    let mut probe = responded("/Satoshi:0.21.1/");
    probe.handle_bytes(&addr(9..=9), at(150));
    assert_eq!(probe.poll_timeout(), Some(at(75_100).mono), "no deadline moved");
    // The reply of an old Core arrives half a minute later.
    probe.handle_bytes(&addr(10..=123), at(43_000));
    assert_eq!(probe.poll_timeout(), Some(at(45_000).mono));
    probe.handle_timeout(at(45_000));
    let result = result(&mut probe);
    assert_eq!((result.peers_sent, result.peers.len()), (Some(114), 115));
}

#[test]
fn a_reply_may_span_several_messages() {
    let mut probe = responded("/therealbitcoin.org:0.9.99.99/");
    probe.handle_bytes(&addr(1..=1_000), at(9_000));
    probe.handle_bytes(&addr(1_001..=2_000), at(10_500));
    probe.handle_timeout(at(11_100));
    assert!(!probe.is_done(), "the quiet time counts from the last one");
    probe.handle_bytes(&addr(2_001..=2_500), at(12_000));
    probe.handle_timeout(at(14_000));
    assert_eq!(result(&mut probe).peers_sent, Some(2_500));
}

/// The bytes of `stream` in order, with their arrival times after the start in milliseconds: TCP at
/// a round trip of 400 ms, where one segment in twenty is lost.
fn over_a_bad_line(stream: &[u8], rng: &mut fastrand::Rng) -> Vec<(u64, Vec<u8>)> {
    const RTT: u64 = 400;
    let (mut window, mut sent_at, mut in_window) = (10, 0, 0);
    let mut arrived = 0;
    let mut arrivals = Vec::new();
    for segment in stream.chunks(1_448) {
        if in_window == window {
            (window, sent_at, in_window) = (2 * window, sent_at + RTT, 0);
        }
        in_window += 1;
        let (mut at, mut timeout) = (sent_at + RTT / 2, 3 * RTT);
        while rng.u8(..20) == 0 {
            at += timeout;
            timeout *= 2;
        }
        arrived = at.max(arrived);
        arrivals.push((arrived, segment.to_vec()));
    }
    arrivals
}

/// The result of a probe at which these bytes arrive, in milliseconds after `start`.
fn received(mut probe: Probe, start: u64, arrivals: &[(u64, Vec<u8>)]) -> ProbeResult {
    for (millis, bytes) in arrivals {
        probe.handle_timeout(at(start + millis - 1));
        probe.handle_bytes(bytes, at(start + millis));
    }
    probe.handle_timeout(at(1_000_000));
    result(&mut probe)
}

#[test]
fn a_long_reply_is_whole_on_a_line_that_loses_segments() {
    let reply = [addr(1..=1_000), addr(1_001..=1_415)].concat();
    let mut rng = fastrand::Rng::with_seed(7);
    for number in 0..1_000 {
        let arrivals = over_a_bad_line(&reply, &mut rng);
        let probe = responded("/therealbitcoin.org:0.9.99.99/");
        let sent = received(probe, 1_000, &arrivals).peers_sent;
        assert_eq!(sent, Some(1_415), "reply {number}");
    }
}

#[test]
fn after_a_full_addr_more_is_awaited_for_ten_seconds() {
    let ends = |agent: &str, entries: u32| {
        let mut probe = responded(agent);
        probe.handle_bytes(&addr(1..=entries), at(200));
        probe.poll_timeout().unwrap() - at(200).mono
    };
    let trb = "/therealbitcoin.org:0.9.99.99/";
    for (agent, entries, seconds) in [
        (trb, 999, 2),
        (trb, 1_000, 10),
        ("/Satoshi:0.8.6/", 1_000, 10),
        ("/unheard of:1/", 1_000, 10),
        // Their whole reply is one message.
        ("/Satoshi:28.1.0/", 1_000, 2),
        ("/Satoshi:0.21.1/", 1_000, 2),
    ] {
        assert_eq!(ends(agent, entries), Duration::from_secs(seconds), "{agent} {entries}");
    }
}

#[test]
fn bytes_of_an_unfinished_message_prolong_the_wait_within_its_bound() {
    let second = addr(301..=600);
    let trickle = |pause: u64, piece: usize| -> Vec<(u64, Vec<u8>)> {
        let pieces = second.chunks(piece).map(<[u8]>::to_vec);
        let later = pieces.enumerate().map(|(place, piece)| (place as u64 * pause + 1_000, piece));
        std::iter::once((1, addr(1..=300))).chain(later).collect()
    };
    let sent = |agent: &str, arrivals: &[(u64, Vec<u8>)]| {
        received(responded(agent), 200, arrivals).peers_sent
    };
    assert_eq!(sent("/Satoshi:0.21.1/", &trickle(9_900, 1_500)), Some(600));
    // The first piece is shorter than a header.
    let (head, rest) = second.split_at(3);
    let arrivals = [(1, addr(1..=300)), (1_900, head.to_vec()), (10_000, rest.to_vec())];
    assert_eq!(sent("/Satoshi:0.21.1/", &arrivals), Some(600));
    // A byte each second: the bound ends it.
    let mut probe = responded("/Satoshi:28.1.0/");
    probe.handle_bytes(&addr(1..=300), at(200));
    for (place, byte) in second.iter().enumerate().take(14) {
        probe.handle_bytes(&[*byte], at(1_000 * (place as u64 + 1)));
    }
    assert_eq!(probe.poll_timeout(), Some(at(15_100).mono));
    // A message that is complete and no `addr` leaves the end where it was.
    let mut probe = responded("/Satoshi:0.21.1/");
    probe.handle_bytes(&addr(1..=300), at(200));
    let ping = frame(Command::PING, &[0; 8]);
    probe.handle_bytes(&ping[..5], at(300));
    assert_eq!(probe.poll_timeout(), Some(at(10_300).mono));
    probe.handle_bytes(&ping[5..], at(400));
    assert_eq!(probe.poll_timeout(), Some(at(2_200).mono));
}

#[test]
fn the_addr_timeout_depends_on_the_software() {
    for (agent, seconds) in [
        ("/Satoshi:28.1.0/", 15),
        ("/Satoshi:0.21.1/", 75),
        ("/therealbitcoin.org:0.9.99.99/", 60),
        ("/unheard of:1/", 75),
    ] {
        let mut theirs = theirs(agent);
        if agent.contains("therealbitcoin") {
            theirs.version = 99_999;
        }
        let mut probe = connected(candidate());
        probe.handle_bytes(&version_frame(&theirs), at(100));
        assert_eq!(probe.poll_timeout(), Some(at(100 + seconds * 1_000).mono), "{agent}");
        probe.handle_timeout(at(100 + seconds * 1_000));
        let result = result(&mut probe);
        assert_eq!((result.outcome, result.peers_sent), (Outcome::Responded, Some(0)));
    }
}

#[test]
fn traffic_moves_no_deadline() {
    let mut probe = connected(candidate());
    for step in 0..100 {
        probe.handle_bytes(&frame(Command::PING, &[0; 8]), at(40 + step * 90));
    }
    assert_eq!(probe.poll_timeout(), Some(at(10_040).mono));
    probe.handle_timeout(at(10_040));
    assert_eq!(result(&mut probe).outcome, Outcome::HandshakeTimeout);

    let mut probe = responded("/Satoshi:28.1.0/");
    for step in 0..14 {
        probe.handle_bytes(&addr(1..=2), at(200 + step * 1_000));
        probe.handle_timeout(at(200 + step * 1_000));
    }
    probe.handle_bytes(&addr(1..=2), at(14_900));
    assert_eq!(probe.poll_timeout(), Some(at(15_100).mono), "endless replies end too");
}

#[test]
fn a_node_that_sent_version_has_responded_whatever_follows() {
    let endings: [fn(&mut Probe); 5] = [
        |probe| probe.handle_closed(at(200)),
        |probe| probe.handle_bytes(b"HTTP/1.1 400 Bad Request", at(200)),
        |probe| probe.handle_error(&io::Error::from(io::ErrorKind::ConnectionReset), at(200)),
        |probe| probe.handle_timeout(at(80_000)),
        |probe| {
            probe.handle_bytes(
                &[
                    0xf9, 0xbe, 0xb4, 0xd9, b'x', 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff,
                    0xff, 0xff, 0, 0, 0, 0,
                ],
                at(200),
            )
        },
    ];
    for (number, ending) in endings.into_iter().enumerate() {
        let mut probe = responded("/Satoshi:0.20.1/");
        ending(&mut probe);
        let result = result(&mut probe);
        assert_eq!(result.outcome, Outcome::Responded, "ending {number}");
        assert_eq!(result.probed_at, at(100).wall);
        assert!(result.version.is_some());
        let waited = number == 3;
        assert_eq!(
            result.peers_sent,
            waited.then_some(0),
            "ending {number}: asked again unless it waited"
        );
    }
}

#[test]
fn a_reply_that_was_cut_off_counts_only_if_it_was_whole() {
    let cut = |entries: &[u8], close: fn(&mut Probe)| {
        let mut probe = responded("/therealbitcoin.org:0.9.99.99/");
        probe.handle_bytes(entries, at(200));
        close(&mut probe);
        result(&mut probe)
    };
    let closes: [fn(&mut Probe); 3] = [
        |probe| probe.handle_closed(at(300)),
        |probe| probe.handle_error(&io::Error::from(io::ErrorKind::ConnectionReset), at(300)),
        // The kernel gave up: the network broke, perhaps ours.
        |probe| probe.handle_error(&io::Error::from(io::ErrorKind::TimedOut), at(300)),
    ];
    for close in closes {
        let part = [addr(1..=1_000), addr(1_001..=1_415)[..5_000].to_vec()].concat();
        assert_eq!(cut(&addr(1..=1_000), close).peers_sent, Some(1_000));
        let result = cut(&part, close);
        assert_eq!((result.peers_sent, result.peers.len()), (None, 1_000), "within the second");
        let result = cut(&addr(1..=1), close);
        assert_eq!((result.peers_sent, result.peers.len()), (None, 1), "its own address only");
    }
}

#[test]
fn each_failure_after_connecting_has_its_outcome() {
    type Step = fn(&mut Probe);
    let broken_checksum: Step = |probe| {
        let mut bytes = version("/x/");
        bytes[20] ^= 1;
        probe.handle_bytes(&bytes, at(50));
    };
    let cases: [(Outcome, Step); 8] = [
        (Outcome::HandshakeTimeout, |probe| probe.handle_timeout(at(10_040))),
        (Outcome::Closed, |probe| probe.handle_closed(at(50))),
        (Outcome::Closed, |probe| {
            probe.handle_error(&io::Error::from(io::ErrorKind::ConnectionReset), at(50));
        }),
        (Outcome::NotBitcoin, |probe| probe.handle_bytes(b"SSH-2.0-x\r\n", at(50))),
        (Outcome::NotBitcoin, |probe| {
            probe.handle_bytes(&[0xe3, 0xe1, 0xf3, 0xe8], at(50)); // BCH's magic
        }),
        (Outcome::NotBitcoin, |probe| {
            let own = Version { nonce: Some(NONCE), ..theirs("/self/") };
            probe.handle_bytes(&version_frame(&own), at(50));
        }),
        (Outcome::Malformed, |probe| {
            probe.handle_bytes(&frame(Command::VERSION, &[1; 30]), at(50));
        }),
        (Outcome::Malformed, broken_checksum),
    ];
    for (number, (expected, step)) in cases.into_iter().enumerate() {
        let mut probe = connected(candidate());
        step(&mut probe);
        let result = result(&mut probe);
        assert_eq!(result.outcome, expected, "case {number}");
        assert!(result.version.is_none() && result.peers.is_empty());
    }
}

#[test]
fn each_failure_to_connect_has_its_outcome() {
    for (target, seconds) in [(candidate(), 3), (Target::node(candidate().address(), true), 5)] {
        let mut probe = Probe::new(target, params(), NONCE, at(0));
        assert_eq!(probe.poll_timeout(), Some(Duration::from_secs(seconds)));
        probe.handle_timeout(at(seconds * 1_000 - 1));
        assert!(!probe.is_done());
        probe.handle_timeout(at(seconds * 1_000));
        assert_eq!(result(&mut probe).outcome, Outcome::ConnectTimeout);
    }
    for (errno, outcome) in [
        (111, Outcome::Refused),
        (113, Outcome::Unreachable),
        (101, Outcome::Unreachable), // ICMP, since connecting had begun
    ] {
        let mut probe = Probe::new(candidate(), params(), NONCE, at(0));
        probe.handle_error(&io::Error::from_raw_os_error(errno), at(5));
        let result = result(&mut probe);
        assert_eq!((result.outcome, result.connect_ms), (outcome, None));
    }
}

#[test]
fn messages_before_version_are_ignored() {
    let mut probe = connected(candidate());
    probe.poll_transmit();
    probe.handle_bytes(&frame(Command::VERACK, &[]), at(50));
    probe.handle_bytes(&addr(1..=10), at(51));
    probe.handle_bytes(&frame(Command::new("wtxidrelay").unwrap(), &[]), at(52));
    assert_eq!(probe.poll_transmit(), None);
    probe.handle_bytes(&version("/Satoshi:28.1.0/"), at(60));
    assert_eq!(commands(&probe.poll_transmit().unwrap()), ["verack", "getaddr"]);
    probe.handle_closed(at(70));
    assert!(result(&mut probe).peers.is_empty());
}

#[test]
fn a_broken_addr_is_not_a_reply() {
    let mut probe = responded("/Satoshi:0.21.1/");
    // Announces 1,000 entries, but has one and a half.
    let mut payload = vec![0xfd, 0xe8, 0x03];
    payload.extend([0; 45]);
    probe.handle_bytes(&frame(Command::ADDR, &payload), at(200));
    assert_eq!(probe.poll_timeout(), Some(at(75_100).mono));
    probe.handle_bytes(&addr(1..=20), at(300));
    probe.handle_timeout(at(2_300));
    assert_eq!(result(&mut probe).peers_sent, Some(20));
}

#[test]
fn input_from_one_peer_is_bounded() {
    // Endless messages.
    let mut probe = connected(candidate());
    let ping = frame(Command::PING, &[0; 8]).repeat(MAX_PROBE_MESSAGES as usize);
    probe.handle_bytes(&ping, at(50));
    assert_eq!(result(&mut probe).outcome, Outcome::Malformed);
    // Endless bytes of unwanted messages; nothing is buffered.
    let mut probe = responded("/Satoshi:28.1.0/");
    let junk = frame(Command::new("block").unwrap(), &vec![0; 1_000_000]);
    for step in 0..9 {
        probe.handle_bytes(&junk, at(200 + step));
        assert!(probe.buffered_bytes() < 1_000);
    }
    assert!(probe.is_done());
    // Endless entries.
    let mut probe = responded("/Satoshi:28.1.0/");
    for _ in 0..20 {
        probe.handle_bytes(&addr(1..=1_000), at(200));
    }
    assert_eq!(result(&mut probe).peers.len(), MAX_PROBE_PEERS);
}

#[test]
fn the_peers_of_an_open_probe_count_as_buffered() {
    let mut probe = responded("/therealbitcoin.org:0.9.99.99/");
    for number in 0..4 {
        probe.handle_bytes(&addr(number * 1_000 + 1..=number * 1_000 + 1_000), at(200));
    }
    let bytes = probe.buffered_bytes();
    assert!((4_000 * 24..=2 * MAX_PROBE_PEERS * 24).contains(&bytes), "{bytes}");
    probe.handle_timeout(at(20_000));
    assert_eq!(result(&mut probe).peers.len(), 4_000);
    assert!(probe.buffered_bytes() < 1_000, "they left with the result");
}

#[test]
fn a_stop_returns_results_of_nodes_that_responded_only() {
    let mut probe = responded("/Satoshi:0.21.1/");
    probe.handle_bytes(&addr(1..=1), at(200));
    probe.handle_stop();
    let result = result(&mut probe);
    assert_eq!((result.outcome, result.peers_sent), (Outcome::Responded, None));
    for mut probe in [connected(candidate()), Probe::new(candidate(), params(), NONCE, at(0))] {
        probe.handle_stop();
        assert!(probe.is_done() && probe.finished().is_none());
    }
}

#[test]
fn input_after_the_end_is_ignored() {
    let mut probe = connected(candidate());
    probe.handle_closed(at(50));
    result(&mut probe);
    probe.handle_connected(at(60));
    probe.handle_bytes(&version("/x/"), at(60));
    probe.handle_timeout(at(99_000));
    probe.handle_closed(at(99_000));
    assert!(probe.poll_transmit().is_none() && probe.finished().is_none());
}

#[test]
fn splitting_the_bytes_does_not_change_the_result() {
    let mut bytes = frame(Command::VERACK, &[]);
    bytes.extend(version("/Satoshi:28.1.0/"));
    bytes.extend(frame(Command::PING, &[0; 8]));
    bytes.extend(addr(1..=1));
    bytes.extend(addr(2..=300));
    let run = |cuts: &mut dyn FnMut() -> usize| {
        let mut probe = connected(candidate());
        let mut rest = &bytes[..];
        while !rest.is_empty() {
            let (now, later) = rest.split_at(cuts().clamp(1, rest.len()));
            probe.handle_bytes(now, at(100));
            rest = later;
        }
        probe.handle_timeout(at(2_100));
        probe.finished()
    };
    let whole = run(&mut || usize::MAX);
    assert_eq!(whole.as_ref().and_then(|result| result.peers_sent), Some(299));
    assert_eq!(run(&mut || 1), whole);
    let mut rng = fastrand::Rng::with_seed(3);
    for _ in 0..50 {
        assert_eq!(run(&mut || rng.usize(1..400)), whole);
    }
}

#[test]
fn a_traced_probe_records_its_conversation() {
    let mut probe = Probe::new(candidate(), params(), NONCE, at(0)).traced();
    probe.handle_connected(at(40));
    probe.handle_bytes(&version("/Satoshi:28.1.0/"), at(100));
    probe.handle_bytes(&addr(1..=3), at(120));
    probe.handle_timeout(at(130));
    probe.handle_timeout(at(2_120));
    probe.handle_closed(at(2_130));
    let result = probe.finished().unwrap();
    assert_eq!((result.outcome, result.peers_sent), (Outcome::Responded, Some(3)));
    let trace = probe.take_trace().unwrap();
    let shown = |step: &Step| {
        let what = match &step.event {
            TraceEvent::Connected => "connected".to_owned(),
            TraceEvent::Sent(message) => format!("sent {}", message.command()),
            TraceEvent::Received(message) => format!("received {}", message.command()),
            TraceEvent::TimeUp(waited_for) => format!("{waited_for:?}"),
            other => panic!("{other:?}"),
        };
        format!("{} {what}", step.at.as_millis())
    };
    let steps: Vec<String> = trace.steps.iter().map(shown).collect();
    assert_eq!(
        steps,
        [
            "40 connected",
            "40 sent version",
            "100 received version",
            "100 sent verack",
            "100 sent getaddr",
            "120 received addr",
            "2120 MoreOfReply"
        ]
    );
    assert_eq!(trace.version().and_then(|version| version.nonce), Some(7));
    assert!(probe.take_trace().is_none());
}

#[test]
fn a_trace_shows_why_a_probe_failed() {
    let garbage = b"HTTP/1.1 400 Bad Request\r\n";
    let mut probe = Probe::new(candidate(), params(), NONCE, at(0)).traced();
    probe.handle_connected(at(40));
    probe.handle_bytes(garbage, at(50));
    let trace = probe.take_trace().unwrap();
    assert!(matches!(trace.steps.last().unwrap().event, TraceEvent::Garbage(_)), "{trace:?}");
    let mut probe = Probe::new(candidate(), params(), NONCE, at(0)).traced();
    probe.handle_timeout(at(3_000));
    let trace = probe.take_trace().unwrap();
    let step =
        Step { at: Duration::from_secs(3), event: TraceEvent::TimeUp(WaitedFor::Connection) };
    assert_eq!(trace.steps, [step]);
}
