//! The simulated network on real sockets: it serves what `truth.tsv` states and reports what its
//! clients did.

#![allow(clippy::disallowed_methods)] // tests use real sockets and real time

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command as Program, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bitdash_simnet::network::world::{World, WorldParams};
use bitdash_simnet::verify::truth::{self, Kind, Row};
use bitdash_simnet::zoo::Claimed;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;
use watchglass::{Command, Decoder, Magic, Message, Version, encode_message, text};

/// A running `bitdash-simnet`, with the files that it wrote.
struct Network {
    child: Child,
    dir: TempDir,
    ready: String,
    offset: u16,
}

impl Network {
    /// Starts a network at an unused port offset.
    fn start(arguments: &[&str]) -> Self {
        // Networks this far apart share no port, not even a refusing one, which a start connects
        // to.
        static NEXT: AtomicU16 = AtomicU16::new(0);
        for _ in 0..50 {
            let offset = 1_000 + NEXT.fetch_add(1, Ordering::Relaxed) * 187;
            match Self::start_at(offset, arguments) {
                Ok(network) => return network,
                Err(error) if error.contains("port offset") => {}
                Err(error) => panic!("{error}"),
            }
        }
        panic!("all ports are in use");
    }

    fn start_at(offset: u16, arguments: &[&str]) -> Result<Self, String> {
        let dir = tempfile::tempdir().unwrap();
        let mut child = Program::new(env!("CARGO_BIN_EXE_bitdash-simnet"))
            .arg("serve")
            .arg(dir.path())
            .args(arguments)
            .args(["--port-offset", &offset.to_string(), "--time-scale", "0.01"])
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut ready = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut ready).unwrap();
        if ready.is_empty() {
            let output = child.wait_with_output().unwrap();
            assert_eq!(output.status.code(), Some(1));
            return Err(String::from_utf8(output.stderr).unwrap());
        }
        Ok(Self { child, dir, ready, offset })
    }

    /// The rows of `truth.tsv` with this label.
    fn of(&self, label: &str) -> Vec<Row> {
        let mut rows = truth::read(self.dir.path()).unwrap();
        rows.retain(|row| row.label == label);
        rows
    }

    fn nodes(&self) -> Vec<Row> {
        let mut rows = truth::read(self.dir.path()).unwrap();
        rows.retain(|row| row.kind == Kind::Node);
        rows
    }

    /// The nodes of a profile that send peers.
    fn senders(&self, profile: &str) -> Vec<Row> {
        let mut rows = self.of(profile);
        rows.retain(|row| row.peers > 0);
        rows
    }

    fn stop(&mut self, signal: Signal) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
        self.child.wait().unwrap()
    }

    /// Stops it and returns its report.
    fn report(mut self) -> HashMap<String, u64> {
        assert!(self.stop(Signal::TERM).success());
        let report = fs::read_to_string(self.dir.path().join("report.tsv")).unwrap();
        let lines = report.lines().map(|line| line.split_once('\t').unwrap());
        lines.map(|(key, value)| (key.to_owned(), value.parse().unwrap())).collect()
    }
}

impl Drop for Network {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn place(row: &Row) -> SocketAddr {
    row.address.to_socket_addr()
}

fn message(command: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_message(Magic::MAIN, Command::new(command).unwrap(), payload, &mut out);
    out
}

fn version() -> Vec<u8> {
    Claimed { services: 0, ..Claimed::agent(b"/test/") }.message()
}

fn burst() -> Vec<u8> {
    [version(), message("verack", &[]), message("getaddr", &[])].concat()
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Passes every message to `until` until that returns `true` or the stream ends; returns which.
fn listen(stream: &mut TcpStream, mut until: impl FnMut(Message) -> bool) -> bool {
    let mut decoder = Decoder::new(Magic::MAIN);
    let mut buffer = vec![0; 65_536];
    loop {
        let Ok(read @ 1..) = stream.read(&mut buffer) else { return false };
        let mut input = &buffer[..read];
        while let Some(message) = decoder.decode(&mut input).unwrap() {
            if until(message) {
                return true;
            }
        }
    }
}

/// Asks a node for everything: its `version` and the numbers of entries in its `addr` messages,
/// until they add up to what is expected.
fn ask(row: &Row) -> (Version, Vec<u64>) {
    let mut stream = dial(place(row));
    stream.write_all(&burst()).unwrap();
    let expected = row.peers as u64;
    let (mut version, mut counts) = (None, Vec::new());
    listen(&mut stream, |message| {
        match message {
            Message::Version(theirs) => version = Some(theirs),
            Message::Addr(addr) => counts.push(addr.count),
            _ => {}
        }
        let received: u64 = counts.iter().filter(|count| **count > 1).sum();
        version.is_some() && received >= expected
    });
    (version.expect("a version"), counts)
}

#[test]
fn every_node_answers_as_its_row_states() {
    let network = Network::start(&["--nodes", "150", "--dead", "100"]);
    let rows = network.nodes();
    assert_eq!(rows.len(), 150);
    let mut senders = 0;
    for row in &rows {
        let (version, counts) = ask(row);
        let fields = row.fields.as_ref().unwrap();
        assert_eq!(version.version, fields.protocol_version);
        assert_eq!(version.user_agent.map(|agent| text::from_bytes(&agent)), fields.user_agent);
        assert_eq!(version.services as i64, fields.services);
        assert_eq!(version.start_height, fields.start_height);
        assert_eq!(version.relay, fields.relay);
        let received: u64 = counts.iter().filter(|count| **count > 1).sum();
        assert_eq!(received, row.peers as u64, "{row:?}");
        senders += u64::from(received > 0);
    }
    let report = network.report();
    assert_eq!(report["connections_total"], 150);
    assert_eq!(report["distinct_addresses"], 150);
    assert_eq!(report["most_connections_per_address"], 1);
    // One after the other; the network may see a close after the next connection.
    assert!((1..=3).contains(&report["most_at_once"]), "{}", report["most_at_once"]);
    assert_eq!(report["asked"], senders);
    assert_eq!(report["whole_replies"], senders);
    assert_eq!(report["asked_in_vain"], 150 - senders);
    assert_eq!(report["protocol_faults"] + report["bans"] + report["stray"], 0);
    for command in ["version", "verack", "getaddr"] {
        assert_eq!(report[&format!("command.{command}")], 150);
    }
}

#[test]
fn files_match_the_world() {
    let mut network =
        Network::start(&["--nodes", "300", "--dead", "200", "--seed", "5", "--trb", "0.1"]);
    let world = World::generate(&WorldParams {
        seed: 5,
        nodes: 300,
        silent: 166,
        refusing: 34,
        trb: Some(30),
        port_offset: network.offset,
        time_scale: 0.01,
        ..WorldParams::default()
    })
    .unwrap();
    let expected = format!(
        "ready nodes=300 silent=166 refusing=34 zoo=0 dir={}\n",
        network.dir.path().display()
    );
    assert_eq!(network.ready, expected);
    assert_eq!(truth::read(network.dir.path()).unwrap(), truth::of_world(&world));
    assert_eq!((network.of("silent").len(), network.of("refusing").len()), (166, 34));
    let rows = network.nodes();
    assert_eq!(rows.iter().filter(|row| row.label == "trb").count(), 30);
    let seeds = fs::read_to_string(network.dir.path().join("seeds.txt")).unwrap();
    let seeds: Vec<Vec<String>> = seeds
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(' ').map(str::to_owned).collect())
        .collect();
    assert_eq!(seeds.len(), 20);
    for seed in &seeds {
        let address = format!("{}:{}", seed[0], seed[1]).parse().unwrap();
        let row = rows.iter().find(|row| row.address == address).expect("a seed is a node");
        assert!(row.peers > 0, "a seed sends peers");
        assert_eq!(seed[2] == "unknown", row.label != "trb");
    }
    assert!(seeds.iter().any(|seed| seed[2] != "unknown"));
    assert!(network.stop(Signal::INT).success());
    let connections = fs::read_to_string(network.dir.path().join("connections.tsv")).unwrap();
    assert_eq!(connections.lines().count(), 301);
    assert!(connections.lines().skip(1).all(|line| line.ends_with("\t0")));
}

#[test]
fn silent_addresses_stay_silent_and_refusing_ones_refuse() {
    let network = Network::start(&["--nodes", "100", "--dead", "400"]);
    let nodes: HashSet<u16> = network.nodes().iter().map(|row| row.address.port()).collect();
    let silent: Vec<SocketAddr> = network.of("silent").iter().map(place).collect();
    let beside = silent.iter().filter(|address| nodes.contains(&address.port())).count();
    assert!(beside * 10 > silent.len() * 9, "silent addresses have the ports of nodes");
    let started = Instant::now();
    // Twice: an attempt must not make room for the next one.
    for _ in 0..2 {
        thread::scope(|scope| {
            for address in &silent {
                scope.spawn(move || {
                    let error = TcpStream::connect_timeout(address, Duration::from_secs(2))
                        .expect_err("it is silent");
                    assert_eq!(error.kind(), ErrorKind::TimedOut, "{address}");
                });
            }
        });
    }
    assert!(started.elapsed() >= Duration::from_secs(4));
    for address in network.of("refusing").iter().map(place) {
        let error =
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).expect_err("it refuses");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
    }
    let report = network.report();
    assert_eq!(report["connections_total"] + report["stray"], 0);
}

#[test]
fn two_networks_run_side_by_side() {
    let arguments = ["--nodes", "60", "--dead", "60"];
    let (one, two) = (Network::start(&arguments), Network::start(&arguments));
    for network in [&one, &two] {
        for row in network.senders("new_core").iter().take(5) {
            let agent = ask(row).0.user_agent.map(|agent| text::from_bytes(&agent));
            assert_eq!(agent, row.fields.as_ref().unwrap().user_agent);
        }
    }
    let same = Network::start_at(one.offset, &arguments).err().expect("its ports are in use");
    assert!(same.contains("in use"), "{same}");
    assert_eq!(same.lines().count(), 1, "{same}");
    for network in [one, two] {
        assert_eq!(network.report()["connections_total"], 5);
    }
}

#[test]
fn a_ban_is_permanent() {
    let network = Network::start(&["--nodes", "60", "--dead", "0"]);
    let trb = network.senders("trb").remove(0);
    let mut stream = dial(place(&trb));
    stream.write_all(&[version(), message("pong", &[0; 8])].concat()).unwrap();
    assert!(!listen(&mut stream, |_| true), "it sends nothing more");
    for _ in 0..3 {
        let mut stream = dial(place(&trb));
        assert_eq!(stream.read(&mut [0; 100]).unwrap_or(0), 0, "accepted, then closed");
    }
    let other = network.senders("trb").remove(1);
    assert_eq!(ask(&other).0.relay, None, "other nodes do not ban");
    let report = network.report();
    assert_eq!((report["bans"], report["turned_away"]), (1, 3));
    assert_eq!(report["command.pong"], 1);
    assert_eq!(report["fault.unknown_command"], 1);
    assert_eq!(report["most_connections_per_address"], 4);
    assert_eq!(report["asked.trb"], 1);
    assert_eq!(report["whole_replies.trb"], 1);
}

#[test]
fn faults_and_strays_are_counted() {
    let network = Network::start(&["--nodes", "100", "--dead", "100"]);
    let core = network.senders("new_core");
    let mut stream = dial(place(&core[0]));
    stream.write_all(&[burst(), version()].concat()).unwrap();
    assert!(listen(
        &mut stream,
        |message| matches!(message, Message::Addr(addr) if addr.count > 1)
    ));
    drop(stream);
    // A shared port accepts connections to all addresses; this one has no node.
    let ports: Vec<u16> = core.iter().map(|row| place(row).port()).collect();
    let common =
        *ports.iter().max_by_key(|port| ports.iter().filter(|p| p == port).count()).unwrap();
    let stray = SocketAddr::from(([127, 0, 0, 77], common));
    let reset = TcpStream::connect(stray).and_then(|mut stream| stream.read(&mut [0; 1]));
    let error = reset.expect_err("it is no node");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // Closes before the reply.
    let old = network.senders("old_core").remove(0);
    let mut stream = dial(place(&old));
    stream.write_all(&burst()).unwrap();
    assert!(listen(&mut stream, |message| matches!(message, Message::Version(_))));
    drop(stream);
    let report = network.report();
    assert_eq!(report["fault.second_version"], 1);
    assert_eq!((report["protocol_faults"], report["stray"]), (1, 1));
    assert_eq!(report["connections_total"], 2);
    assert_eq!((report["asked"], report["asked.old_core"]), (2, 1));
    assert_eq!((report["whole_replies"], report["whole_replies.new_core"]), (1, 1));
}

#[test]
fn most_at_once_is_never_overstated() {
    let network = Network::start(&["--nodes", "100", "--dead", "0"]);
    let nodes: Vec<SocketAddr> = network.nodes().iter().map(place).collect();
    // Each thread has one connection at a time and opens the next as soon as it closed the last.
    thread::scope(|scope| {
        for part in nodes.chunks(25) {
            scope.spawn(move || {
                for _ in 0..10 {
                    for address in part {
                        dial(*address).write_all(&version()).unwrap();
                    }
                }
            });
        }
    });
    let mut held: Vec<TcpStream> = nodes[..3].iter().map(|address| dial(*address)).collect();
    for stream in &mut held {
        stream.write_all(&version()).unwrap();
        assert!(listen(stream, |message| matches!(message, Message::Version(_))));
    }
    // A connection counts as open after it has lasted a moment.
    thread::sleep(Duration::from_secs(1));
    drop(held);
    let report = network.report();
    assert_eq!(report["connections_total"], 1003);
    assert!((3..=4).contains(&report["most_at_once"]), "{}", report["most_at_once"]);
}

#[test]
fn errors_are_reported_in_one_line() {
    let simnet = env!("CARGO_BIN_EXE_bitdash-simnet");
    for (limit, arguments, expected) in [
        (1200, "--nodes 100 --dead 600", "open files and the limit is 1200"),
        (1200, "--nodes 0", "at least one node"),
        (1200, "--net 10.0.0.0/8", "10.0.0.0/8 is not inside 127.0.0.0/8"),
        (1200, "--nodes 10 --dead 100000", "ask for more nodes or fewer dead addresses"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        let output = Program::new("sh")
            .arg("-c")
            .arg(format!(
                "ulimit -n {limit}; exec {simnet} serve {} {arguments}",
                dir.path().display()
            ))
            .output()
            .unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{error}");
        assert!(error.contains(expected), "{error}");
        assert_eq!(error.lines().count(), 1, "{error}");
        assert!(output.stdout.is_empty());
    }
}
