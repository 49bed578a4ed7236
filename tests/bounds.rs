//! The cost of a peer is bounded, whatever it sends: time, bytes, messages, peers and memory of a
//! probe, and the memory of all sessions of the driver together.

#![allow(clippy::disallowed_methods)] // the test of the driver uses real sockets and time

use std::io::Write;
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use bitdash::commands::crawl::params::Params;
use bitdash::config::Config;
use bitdash::net::driver::{Driver, MAX_BUFFERED_BYTES};
use bitdash::sys::clock::{Clock, LoopClock};
use bitdash::sys::process;
use bitdash_core::lookup::species::Rules;
use bitdash_core::probe::trace::TraceEvent;
use bitdash_core::probe::{
    MAX_PROBE_BYTES, MAX_PROBE_MESSAGES, MAX_PROBE_PEERS, Probe, ProbeParams,
};
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::target::{Peer, ProbeResult, Target};
use bitdash_core::vocabulary::time::{Now, UnixTime};
use watchglass::{
    Addr, AddrEntry, Command, HEADER_LENGTH, Header, MAX_ADDR_TO_SEND, Magic, Message,
    NetworkAddress, Version, encode_message,
};

fn params() -> Arc<ProbeParams> {
    Params::new(&Config::default(), Filter::new(&[], &[]), Rules::builtin(), 100).probe
}

fn at(ms: u64) -> Now {
    Now { mono: Duration::from_millis(ms), wall: UnixTime::from_secs(1_790_000_000) }
}

fn target() -> Target {
    Target::candidate(Address::new(Ipv4Addr::new(127, 9, 9, 9), 8333))
}

/// A probe that connected at time 0.
fn connected() -> Probe {
    let mut probe = Probe::new(target(), params(), 42, at(0));
    probe.handle_connected(at(0));
    probe
}

/// A probe that received `version` at time 0.
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

/// Every kind of message that is neither `version` nor a reply and does not end the probe.
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
    probe.finished().expect("a finished probe has a result")
}

#[test]
fn no_traffic_extends_the_handshake_timeout() {
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
    // Nor does a version that arrives byte by byte.
    let mut probe = connected();
    for (second, byte) in version(16).iter().enumerate() {
        probe.handle_timeout(at(second as u64 * 1_000));
        probe.handle_bytes(&[*byte], at(second as u64 * 1_000));
    }
    assert_eq!(ended(probe).outcome, Outcome::HandshakeTimeout);
}

#[test]
fn no_traffic_extends_the_addr_timeout() {
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
    // A reply may end the probe earlier, and an endless reply does not extend it.
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
fn the_connection_has_its_own_timeout() {
    let mut probe = Probe::new(target(), params(), 42, at(0));
    probe.handle_bytes(&version(16), at(1_000));
    assert_eq!(probe.poll_timeout(), Some(Duration::from_secs(3)));
    probe.handle_timeout(at(3_000));
    assert_eq!(ended(probe).outcome, Outcome::ConnectTimeout);
}

/// Feeds a stream in pieces until the probe is done, at one point in time, and returns the number
/// of bytes consumed.
fn feed(probe: &mut Probe, head: &[u8], zeros: usize, limit: u64) -> u64 {
    let zeros = vec![0; zeros];
    let mut taken = 0;
    while !probe.is_done() {
        assert!(taken <= limit, "the probe is not done after {taken} bytes");
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
    // These few messages are far below the bound of messages.
    let limit = MAX_PROBE_BYTES + 65_536;
    let long = header("block", 4_000_000);
    let mut probe = connected();
    assert!(feed(&mut probe, &long, 4_000_000, limit) >= MAX_PROBE_BYTES);
    assert_eq!(ended(probe).outcome, Outcome::Malformed);
    let mut probe = responded();
    feed(&mut probe, &long, 4_000_000, limit);
    assert_eq!(ended(probe).outcome, Outcome::Responded);
    // The same holds for unsolicited addr messages.
    let mut probe = connected();
    feed(&mut probe, &addr(1_000), 0, limit);
    assert_eq!(ended(probe).outcome, Outcome::Malformed);
}

#[test]
fn the_messages_of_one_peer_are_bounded() {
    let all = u64::from(MAX_PROBE_MESSAGES);
    for bytes in traffic() {
        if bytes.len() == HEADER_LENGTH + 30 + 1 {
            // Single addresses count as peers, too.
            continue;
        }
        let limit = all * bytes.len() as u64;
        assert!(limit < MAX_PROBE_BYTES, "the bound of bytes applies first");
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
    // Self-announcements are no reply, but are stored, up to the bound of messages.
    let mut probe = responded();
    feed(&mut probe, &addr(1), 0, 100 * MAX_PROBE_PEERS as u64);
    assert!(ended(probe).peers.len() <= MAX_PROBE_PEERS);
    // One message contributes the legal number of entries, whatever its count.
    let mut probe = responded();
    probe.handle_bytes(&addr(2_500), at(5));
    probe.handle_closed(at(6));
    assert_eq!(ended(probe).peers.len(), MAX_ADDR_TO_SEND);
}

#[test]
fn the_memory_of_one_probe_is_bounded_however_bytes_are_split() {
    // The payload in progress, and the peers of the only `addr` that is whole.
    let max = MAX_ADDR_TO_SEND * 30 + MAX_ADDR_TO_SEND * size_of::<Peer>();
    let mut rng = fastrand::Rng::with_seed(7);
    let mut stream = [version(65_000), addr(1_000), addr(133_000)].concat();
    for command in ["version", "addr", "ping", "verack", "block"] {
        stream.extend(header(command, 4_000));
        stream.extend([0xee; 4_000]);
    }
    // The last message announces the legal maximum and never completes.
    for last in ["version", "addr", "block"] {
        let stream = [&stream[..], &header(last, 4_000_000), &[0xfd; 200_000]].concat();
        let mut probe = connected();
        let mut rest = &stream[..];
        let mut highest = 0;
        while !rest.is_empty() {
            let (now, later) = rest.split_at(rng.usize(1..=rest.len().min(9_000)));
            probe.handle_bytes(now, at(5));
            highest = highest.max(probe.buffered_bytes());
            assert!(probe.buffered_bytes() <= max, "{} bytes buffered", probe.buffered_bytes());
            rest = later;
        }
        assert!(highest > 10_000, "a reply is buffered while it arrives: {highest}");
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
    // The entries of addr messages are not traced.
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

/// Accepts `count` connections, sends `version` and an incomplete `addr` to each, and keeps them
/// open.
fn accept(listener: TcpListener, count: usize) -> thread::JoinHandle<Vec<TcpStream>> {
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
    // Each session buffers 30,000 bytes of an incomplete addr and no peer yet; one in fifteen
    // exceeds the sum.
    let fit = MAX_BUFFERED_BYTES / 30_000;
    let count = fit + fit / 15;
    let _ = process::raise_open_files();
    let files = process::open_files().unwrap_or(0);
    assert!(files as usize > 2 * count + 50, "this test needs {} open files", 2 * count + 50);
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let peers = accept(listener, count);
    let address = Target::candidate(Address::new(Ipv4Addr::LOCALHOST, port));
    let (clock, params) = (LoopClock::new(Clock::new()), params());
    let mut driver = Driver::new().unwrap();
    let (mut dialled, mut results) = (0, Vec::new());
    let begin = Instant::now();
    // The timeouts of the probes are longer than this loop.
    while (dialled < count || driver.buffered_bytes() < (fit - 1) * 30_000)
        && begin.elapsed().as_secs() < 40
    {
        for _ in 0..20.min(count - dialled) {
            assert!(driver.dial(address, &params, 42, &clock).unwrap().is_none());
            dialled += 1;
        }
        driver.turn(Some(Duration::from_millis(20)), &clock, &mut results).unwrap();
        assert!(
            driver.buffered_bytes() <= MAX_BUFFERED_BYTES,
            "{} bytes are buffered",
            driver.buffered_bytes()
        );
    }
    // Sessions above the sum end like those of peers that disconnect.
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
    driver.stop(&clock, &mut results);
    assert_eq!((driver.open(), driver.buffered_bytes()), (0, 0));
    drop(peers.join().unwrap());
}
