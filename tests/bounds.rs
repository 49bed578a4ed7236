//! Whatever one peer sends, what it costs is bounded: time, bytes, messages, peers, and memory; each bound of
//! a probe has a test of its own, and so has the sum over all sessions of the driver.

#![allow(clippy::disallowed_methods)] // the driver's bound is tested with real sockets and time

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bitdash::commands::crawl::params::Params;
use bitdash::crawl::address::Address;
use bitdash::crawl::filter::Filter;
use bitdash::crawl::outcome::Outcome;
use bitdash::crawl::probe::{
    MAX_PROBE_BYTES, MAX_PROBE_MESSAGES, MAX_PROBE_PEERS, Probe, ProbeParams,
};
use bitdash::crawl::target::{ProbeResult, Target};
use bitdash::crawl::time::{Now, UnixTime};
use bitdash::crawl::trace::TraceEvent;
use bitdash::io::clock::Clock;
use bitdash::io::config::Config;
use bitdash::io::driver::{Driver, MAX_HELD};
use bitdash::io::process;
use bitdash::watchglass::{
    Addr, AddrEntry, Command, HEADER_LENGTH, Header, MAX_ADDR_TO_SEND, Magic, Message,
    NetworkAddress, Version, encode_message,
};

fn params() -> Arc<ProbeParams> {
    Params::new(&Config::default(), Filter::new(&[], &[]), 100).probe
}

fn at(ms: u64) -> Now {
    Now { mono: Duration::from_millis(ms), wall: UnixTime::from_secs(1_790_000_000) }
}

fn target() -> Target {
    Target::candidate(Address::new(Ipv4Addr::new(127, 9, 9, 9), 8333))
}

/// A probe whose connection stands since time 0.
fn connected() -> Probe {
    let mut probe = Probe::new(target(), params(), 42, at(0));
    probe.handle_connected(at(0));
    probe
}

/// A probe whose node has said its `version` at time 0.
fn responded() -> Probe {
    let mut probe = connected();
    probe.handle_bytes(&version(16), at(0));
    assert!(!probe.is_done());
    probe
}

fn message(command: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_message(Magic::MAIN, Command::new(command).unwrap(), payload, &mut out);
    out
}

fn header(command: &str, length: u32) -> Vec<u8> {
    let command = Command::new(command).unwrap();
    let mut out = Vec::new();
    Header { magic: Magic::MAIN, command, length, checksum: [0; 4] }.encode(&mut out);
    out
}

fn version(agent: usize) -> Vec<u8> {
    let mut payload = Vec::new();
    Version {
        version: 70_016,
        services: 9,
        timestamp: 1_790_000_000,
        addr_recv: NetworkAddress::UNSPECIFIED,
        addr_from: Some(NetworkAddress::UNSPECIFIED),
        nonce: Some(7),
        user_agent: Some(vec![b'x'; agent]),
        user_agent_length: agent as u64,
        start_height: Some(1),
        relay: Some(true),
        trailing: 0,
    }
    .encode(&mut payload);
    message("version", &payload)
}

fn addr(entries: usize) -> Vec<u8> {
    let entry = |number: usize| AddrEntry {
        time: Some(1_790_000_000),
        services: 9,
        ip: Ipv4Addr::new(10, 1, (number >> 8) as u8, number as u8),
        port: 8333,
    };
    let mut payload = Vec::new();
    Addr::encode(&(0..entries).map(entry).collect::<Vec<_>>(), &mut payload);
    message("addr", &payload)
}

/// Everything that a peer may send that is neither a `version` nor a reply, and lets the stream go on.
fn traffic() -> Vec<Vec<u8>> {
    let mut broken = message("ping", &[7; 8]);
    broken[20] ^= 1;
    vec![
        message("ping", &[7; 8]),
        message("pong", &[7; 8]),
        message("verack", &[]),
        message("getaddr", &[]),
        message("inv", &[0; 37]),
        message("reject", b"\x07version"),
        message("addrv2", &[1; 40]),
        message("addr", &[0xff; 9]),
        header("block", 0),
        broken,
        addr(0),
        addr(1),
    ]
}

fn ended(mut probe: Probe) -> ProbeResult {
    assert!(probe.is_done());
    assert_eq!(probe.poll_timeout(), None);
    probe.finished().expect("a probe that is done has a result")
}

#[test]
fn no_traffic_moves_the_deadline_for_version() {
    let deadline = Some(Duration::from_secs(10));
    for bytes in traffic().into_iter().chain([addr(1_000)]) {
        let mut probe = connected();
        for ms in (0..10_000).step_by(100) {
            probe.handle_bytes(&bytes, at(ms));
            assert_eq!(probe.poll_timeout(), deadline, "{:?}", &bytes[4..16]);
            probe.handle_timeout(at(ms));
        }
        probe.handle_timeout(at(10_000));
        assert_eq!(ended(probe).outcome, Outcome::HandshakeTimeout);
    }
    // A version that comes a byte at a time is late all the same.
    let mut probe = connected();
    for (second, byte) in version(16).iter().enumerate() {
        probe.handle_timeout(at(second as u64 * 1_000));
        probe.handle_bytes(&[*byte], at(second as u64 * 1_000));
    }
    assert_eq!(ended(probe).outcome, Outcome::HandshakeTimeout);
}

#[test]
fn no_traffic_moves_the_deadline_for_peers_beyond_its_bound() {
    let bound = responded().poll_timeout().unwrap();
    assert_eq!(bound, Duration::from_secs(75));
    for bytes in traffic() {
        let mut probe = responded();
        for ms in (0..75_000).step_by(500) {
            probe.handle_bytes(&bytes, at(ms));
            assert_eq!(probe.poll_timeout(), Some(bound), "{:?}", &bytes[4..16]);
            probe.handle_timeout(at(ms));
        }
        probe.handle_timeout(at(75_000));
        assert_eq!(ended(probe).outcome, Outcome::Responded);
    }
    // A reply may end the wait sooner, and a reply without end does not put it off.
    let mut probe = responded();
    for ms in (0..75_000).step_by(500) {
        probe.handle_bytes(&addr(2), at(ms));
        assert!(probe.poll_timeout().unwrap() <= bound);
        probe.handle_timeout(at(ms));
        assert!(!probe.is_done());
    }
    probe.handle_timeout(at(75_000));
    assert_eq!(ended(probe).peers_sent, Some(300));
}

#[test]
fn the_connection_has_a_deadline_of_its_own() {
    let mut probe = Probe::new(target(), params(), 42, at(0));
    probe.handle_bytes(&version(16), at(1_000));
    assert_eq!(probe.poll_timeout(), Some(Duration::from_secs(3)));
    probe.handle_timeout(at(3_000));
    assert_eq!(ended(probe).outcome, Outcome::ConnectTimeout);
}

/// Feeds a stream in pieces until the probe is done; how many bytes it took. The deadlines do not help.
fn feed(probe: &mut Probe, head: &[u8], zeros: usize, limit: u64) -> u64 {
    let zeros = vec![0; zeros];
    let mut taken = 0;
    while !probe.is_done() {
        assert!(taken <= limit, "{taken} bytes were taken, and it goes on");
        for part in [head, &zeros] {
            for piece in part.chunks(65_536) {
                if !probe.is_done() {
                    probe.handle_bytes(piece, at(5));
                    taken += piece.len() as u64;
                }
            }
        }
    }
    taken
}

#[test]
fn the_bytes_of_one_peer_are_bounded() {
    // Two messages are far from the bound of messages.
    let limit = MAX_PROBE_BYTES + 65_536;
    let long = header("block", 4_000_000);
    let mut probe = connected();
    assert!(feed(&mut probe, &long, 4_000_000, limit) >= MAX_PROBE_BYTES);
    assert_eq!(ended(probe).outcome, Outcome::Malformed);
    let mut probe = responded();
    feed(&mut probe, &long, 4_000_000, limit);
    assert_eq!(ended(probe).outcome, Outcome::Responded);
    // And so are those of addr messages that nobody asked for.
    let mut probe = connected();
    feed(&mut probe, &addr(1_000), 0, limit);
    assert_eq!(ended(probe).outcome, Outcome::Malformed);
}

#[test]
fn the_messages_of_one_peer_are_bounded() {
    let all = u64::from(MAX_PROBE_MESSAGES);
    for bytes in traffic() {
        if bytes.len() == HEADER_LENGTH + 30 + 1 {
            // Single addresses count as peers too.
            continue;
        }
        let limit = all * bytes.len() as u64;
        assert!(limit < MAX_PROBE_BYTES, "the bound of bytes is met first");
        let mut probe = connected();
        assert_eq!(feed(&mut probe, &bytes, 0, limit), limit, "{:?}", &bytes[4..16]);
        assert_eq!(ended(probe).outcome, Outcome::Malformed);
        let mut probe = responded();
        assert_eq!(feed(&mut probe, &bytes, 0, limit), limit - bytes.len() as u64);
        assert_eq!(ended(probe).outcome, Outcome::Responded);
    }
}

#[test]
fn the_peers_of_one_node_are_bounded() {
    for entries in [1_000, 999, 64] {
        let mut probe = responded();
        feed(&mut probe, &addr(entries), 0, 30 * 2 * MAX_PROBE_PEERS as u64);
        let result = ended(probe);
        assert_eq!(result.peers.len(), MAX_PROBE_PEERS, "messages of {entries}");
        assert!((result.peers_sent.unwrap() as usize) < MAX_PROBE_PEERS + entries);
    }
    // Self-announcements are no reply, but they are kept: as many as there may be messages.
    let mut probe = responded();
    feed(&mut probe, &addr(1), 0, 100 * MAX_PROBE_PEERS as u64);
    assert!(ended(probe).peers.len() <= MAX_PROBE_PEERS);
    // And a message holds as many as are legal, whatever it counts.
    let mut probe = responded();
    probe.handle_bytes(&addr(2_500), at(5));
    probe.handle_closed(at(6));
    assert_eq!(ended(probe).peers.len(), MAX_ADDR_TO_SEND);
}

#[test]
fn the_memory_of_one_probe_is_bounded_however_its_bytes_come() {
    let most = MAX_ADDR_TO_SEND * 30;
    let mut rng = fastrand::Rng::with_seed(7);
    let mut stream = [version(65_000), addr(1_000), addr(133_000)].concat();
    for command in ["version", "addr", "ping", "verack", "block"] {
        stream.extend(header(command, 4_000));
        stream.extend([0xee; 4_000]);
    }
    // The last one is announced as long as is legal, and never whole.
    for last in ["version", "addr", "block"] {
        let stream = [&stream[..], &header(last, 4_000_000), &[0xfd; 200_000]].concat();
        let mut probe = connected();
        let mut rest = &stream[..];
        let mut highest = 0;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rng.usize(1..=rest.len().min(9_000)));
            probe.handle_bytes(now, at(5));
            highest = highest.max(probe.held());
            assert!(probe.held() <= most, "{} bytes are held", probe.held());
            rest = later;
        }
        assert!(highest > 10_000, "a reply is held while it comes: {highest}");
        probe.handle_closed(at(6));
        let version = ended(probe).version.unwrap();
        assert_eq!(version.user_agent.unwrap().len(), 256);
    }
}

#[test]
fn the_trace_of_one_probe_is_bounded() {
    let mut probe = Probe::new(target(), params(), 42, at(0)).traced();
    probe.handle_connected(at(0));
    feed(&mut probe, &message("ping", &[7; 8]), 0, MAX_PROBE_BYTES);
    let steps = probe.take_trace().unwrap().steps.len();
    assert!(steps <= MAX_PROBE_MESSAGES as usize + 4, "{steps} steps");
    // A quarter of a million entries are none of its business.
    let mut probe = Probe::new(target(), params(), 42, at(0)).traced();
    probe.handle_connected(at(0));
    feed(&mut probe, &addr(1_000), 0, 2 * MAX_PROBE_BYTES);
    let trace = probe.take_trace().unwrap();
    let addrs = trace.steps.iter().filter_map(|step| match &step.event {
        TraceEvent::Received(Message::Addr(addr)) => Some(addr),
        _ => None,
    });
    let (messages, kept) =
        addrs.fold((0, 0), |(messages, kept), addr| (messages + 1, kept + addr.entries.len()));
    assert!(messages > 200 && kept == 0, "{kept} entries of {messages} messages");
}

/// Accepts so many connections, sends each of them a `version` and an `addr` that lacks its end, and holds them.
fn hold(listener: TcpListener, count: usize) -> thread::JoinHandle<Vec<TcpStream>> {
    let part = [version(16), addr(1_000)].concat();
    thread::spawn(move || {
        let mut held = Vec::new();
        while held.len() < count {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&part[..part.len() - 10]).unwrap();
            held.push(stream);
        }
        held
    })
}

#[test]
fn the_memory_of_all_sessions_together_is_bounded() {
    // Each holds 30,000 bytes of an addr that does not end: one in fifteen is too many.
    let fit = MAX_HELD / 30_000;
    let count = fit + fit / 15;
    let _ = process::raise_open_files();
    let files = process::open_files().unwrap_or(0);
    assert!(files as usize > 2 * count + 50, "this test needs {} open files", 2 * count + 50);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let far_ends = hold(listener, count);
    let address = Target::candidate(Address::new(Ipv4Addr::LOCALHOST, port));
    let (clock, params) = (Clock::new(), params());
    let mut driver = Driver::new().unwrap();
    let (mut dialled, mut results) = (0, Vec::new());
    let begin = Instant::now();
    // No deadline of a probe ends what this test looks at.
    while (dialled < count || driver.held() < (fit - 1) * 30_000) && begin.elapsed().as_secs() < 40
    {
        for _ in 0..20.min(count - dialled) {
            assert!(driver.dial(address, &params, 42, clock.now()).unwrap().is_none());
            dialled += 1;
        }
        driver.turn(Some(Duration::from_millis(20)), &clock, &mut results).unwrap();
        assert!(driver.held() <= MAX_HELD, "{} bytes are held", driver.held());
    }
    // What came too much ends as any node that hangs up.
    while driver.open() > fit && begin.elapsed().as_secs() < 60 {
        driver.turn(Some(Duration::from_millis(20)), &clock, &mut results).unwrap();
    }
    assert!(driver.open() <= fit, "{} sessions are open", driver.open());
    assert!(driver.open() > fit - 10, "only {} sessions are open", driver.open());
    assert_eq!(driver.open() + results.len(), count);
    for ended in &results {
        let result = ended.result.as_ref().expect("a result");
        assert_eq!(result.outcome, Outcome::Responded);
    }
    driver.stop(&mut results);
    assert_eq!((driver.open(), driver.held()), (0, 0));
    drop(far_ends.join().unwrap());
}
