//! The simulated network over real sockets on loopback: what it serves is what it wrote down, and what
//! it writes down of its callers is what they did.

#![allow(clippy::disallowed_methods)] // Here the far ends are real sockets and real time.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::{BufRead, BufReader, ErrorKind, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4, TcpStream};
use std::process::{Child, Command as Program, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bitdash::simnet::world::{World, WorldParams};
use bitdash::watchglass::{
    Command, Decoder, Magic, Message, NetworkAddress, Version, encode_message, text,
};
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

/// A running `bitdash-simnet`, with the files that it wrote.
struct Network {
    child: Child,
    dir: TempDir,
    ready: String,
    offset: u16,
}

impl Network {
    /// Starts one at a port offset that nobody uses.
    fn start(arguments: &[&str]) -> Self {
        // So far apart, no two of them have a port in common: who starts knocks at his refusing ports.
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
            .args(arguments)
            .args(["--port-offset", &offset.to_string(), "--time-scale", "0.01", "--dir"])
            .arg(dir.path())
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

    /// The rows of one of its files, without the header.
    fn rows(&self, name: &str) -> Vec<Vec<String>> {
        let table = fs::read_to_string(self.dir.path().join(name)).unwrap();
        let rows = table.lines().skip(1);
        rows.map(|row| row.split('\t').map(str::to_owned).collect()).collect()
    }

    fn nodes(&self, manner: &str) -> Vec<Vec<String>> {
        let mut rows = self.rows("nodes.tsv");
        rows.retain(|row| row[8] == manner && row[9] != "0");
        rows
    }

    fn dead(&self, kind: &str) -> Vec<SocketAddr> {
        let rows = self.rows("dead.tsv");
        rows.iter().filter(|row| row[2] == kind).map(|row| place(row)).collect()
    }

    fn stop(&mut self, signal: Signal) -> ExitStatus {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).unwrap();
        self.child.wait().unwrap()
    }

    /// Ends it and gives its account of the callers.
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

/// The address in the first two columns of a row.
fn place(row: &[String]) -> SocketAddr {
    let ip: Ipv4Addr = row[0].parse().unwrap();
    SocketAddr::V4(SocketAddrV4::new(ip, row[1].parse().unwrap()))
}

fn message(command: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_message(Magic::MAIN, Command::new(command).unwrap(), payload, &mut out);
    out
}

fn version() -> Vec<u8> {
    let mut payload = Vec::new();
    Version {
        version: 70_015,
        services: 0,
        timestamp: 1_800_000_000,
        addr_recv: NetworkAddress::UNSPECIFIED,
        addr_from: Some(NetworkAddress::UNSPECIFIED),
        nonce: Some(fastrand::u64(1..)),
        user_agent: Some(b"/test/".to_vec()),
        user_agent_length: 6,
        start_height: Some(0),
        relay: Some(false),
        trailing: 0,
    }
    .encode(&mut payload);
    message("version", &payload)
}

fn burst() -> Vec<u8> {
    [version(), message("verack", &[]), message("getaddr", &[])].concat()
}

fn dial(address: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect_timeout(&address, Duration::from_secs(5)).unwrap();
    stream.set_read_timeout(Some(Duration::from_secs(20))).unwrap();
    stream
}

/// Hands every message to `until`, until that is satisfied or the stream ends; whether it was.
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

/// Asks a node for everything: its `version` and the numbers of entries in its `addr` messages, until
/// they add up to what is expected.
fn ask(row: &[String]) -> (Version, Vec<u64>) {
    let mut stream = dial(place(row));
    stream.write_all(&burst()).unwrap();
    let expected: u64 = row[9].parse().unwrap();
    let (mut version, mut counts) = (None, Vec::new());
    listen(&mut stream, |message| {
        match message {
            Message::Version(theirs) => version = Some(theirs),
            Message::Addr(addr) => counts.push(addr.count),
            _ => {}
        }
        let told: u64 = counts.iter().filter(|count| **count > 1).sum();
        version.is_some() && told >= expected
    });
    (version.expect("a version"), counts)
}

#[test]
fn every_node_answers_as_its_row_says() {
    let network = Network::start(&["--nodes", "150", "--dead", "100"]);
    let rows = network.rows("nodes.tsv");
    assert_eq!(rows.len(), 150);
    let mut senders = 0;
    for row in &rows {
        let (version, counts) = ask(row);
        assert_eq!(version.version.to_string(), row[2]);
        assert_eq!(text::from_bytes(&version.user_agent.unwrap()), row[3]);
        assert_eq!((version.services as i64).to_string(), row[4]);
        assert_eq!(version.start_height.unwrap().to_string(), row[5]);
        let relay = version.relay.map_or("", |relay| if relay { "t" } else { "f" });
        assert_eq!(relay, row[6]);
        let told: u64 = counts.iter().filter(|count| **count > 1).sum();
        assert_eq!(told.to_string(), row[9], "{row:?}");
        senders += u64::from(told > 0);
    }
    let report = network.report();
    assert_eq!(report["connections_total"], 150);
    assert_eq!(report["distinct_addresses"], 150);
    assert_eq!(report["most_connections_per_address"], 1);
    // One after the other; the network may hear of one's end after the beginning of the next.
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
fn files_match_the_world_and_each_other() {
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
    let rows = network.rows("nodes.tsv");
    let agents = world.nodes().iter().map(|node| text::from_bytes(&node.user_agent));
    assert!(rows.iter().map(|row| row[3].clone()).eq(agents));
    assert_eq!(rows.iter().filter(|row| row[8] == "trb").count(), 30);
    assert!(rows.iter().all(|row| row.len() == 10));
    let nodes: HashSet<SocketAddr> = rows.iter().map(|row| place(row)).collect();
    assert!(nodes.iter().eq(nodes.iter().filter(|address| address.ip().is_loopback())));
    assert_eq!((network.dead("silent").len(), network.dead("refusing").len()), (166, 34));
    assert!(network.dead("silent").iter().all(|address| !nodes.contains(address)));
    let seeds = fs::read_to_string(network.dir.path().join("seeds.txt")).unwrap();
    let seeds: Vec<Vec<String>> = seeds
        .lines()
        .filter(|line| !line.starts_with('#'))
        .map(|line| line.split(' ').map(str::to_owned).collect())
        .collect();
    assert_eq!(seeds.len(), 20);
    for seed in &seeds {
        let row = rows.iter().find(|row| row[..2] == seed[..2]).expect("a seed is a node");
        assert_ne!(row[9], "0", "a seed sends peers");
        assert_eq!(seed[2] == "unknown", row[8] != "trb");
    }
    assert!(seeds.iter().any(|seed| seed[2] != "unknown"));
    assert!(network.stop(Signal::INT).success());
    let connections = network.rows("connections.tsv");
    assert_eq!(connections.len(), 300);
    assert!(connections.iter().all(|row| row[2] == "0"));
}

#[test]
fn silent_addresses_stay_silent_and_refusing_ones_refuse() {
    let network = Network::start(&["--nodes", "100", "--dead", "400"]);
    let nodes: HashSet<u16> =
        network.rows("nodes.tsv").iter().map(|row| place(row).port()).collect();
    let silent = network.dead("silent");
    let beside = silent.iter().filter(|address| nodes.contains(&address.port())).count();
    assert!(beside * 10 > silent.len() * 9, "silent addresses have the ports of nodes");
    let started = Instant::now();
    // Again and again: an attempt must not make room for the next one.
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
    for address in network.dead("refusing") {
        let error =
            TcpStream::connect_timeout(&address, Duration::from_secs(1)).expect_err("it refuses");
        assert_eq!(error.kind(), ErrorKind::ConnectionRefused, "{address}");
    }
    let report = network.report();
    assert_eq!(report["connections_total"] + report["stray"], 0);
}

#[test]
fn two_networks_work_side_by_side() {
    let arguments = ["--nodes", "60", "--dead", "60"];
    let (one, two) = (Network::start(&arguments), Network::start(&arguments));
    for network in [&one, &two] {
        for row in network.nodes("new_core").iter().take(5) {
            assert_eq!(ask(row).0.user_agent.unwrap(), text::to_bytes(&row[3]).unwrap());
        }
    }
    let same = Network::start_at(one.offset, &arguments).err().expect("its ports are taken");
    assert!(same.contains("in use"), "{same}");
    assert_eq!(same.lines().count(), 1, "{same}");
    for network in [one, two] {
        assert_eq!(network.report()["connections_total"], 5);
    }
}

#[test]
fn a_ban_lasts() {
    let network = Network::start(&["--nodes", "60", "--dead", "0"]);
    let trb = network.nodes("trb").remove(0);
    let mut stream = dial(place(&trb));
    stream.write_all(&[version(), message("pong", &[0; 8])].concat()).unwrap();
    assert!(!listen(&mut stream, |_| true), "it says nothing more");
    for _ in 0..3 {
        let mut stream = dial(place(&trb));
        assert_eq!(stream.read(&mut [0; 100]).unwrap_or(0), 0, "accepted, then closed");
    }
    let other = network.nodes("trb").remove(1);
    assert_eq!(ask(&other).0.relay, None, "a ban is of one node");
    let report = network.report();
    assert_eq!((report["bans"], report["turned_away"]), (1, 3));
    assert_eq!(report["command.pong"], 1);
    assert_eq!(report["fault.heathen_command"], 1);
    assert_eq!(report["most_connections_per_address"], 4);
    assert_eq!(report["asked.trb"], 1);
    assert_eq!(report["whole_replies.trb"], 1);
}

#[test]
fn faults_and_strays_are_counted() {
    let network = Network::start(&["--nodes", "100", "--dead", "100"]);
    let core = network.nodes("new_core");
    let mut stream = dial(place(&core[0]));
    stream.write_all(&[burst(), version()].concat()).unwrap();
    assert!(listen(
        &mut stream,
        |message| matches!(message, Message::Addr(addr) if addr.count > 1)
    ));
    drop(stream);
    // A shared port takes connections to any address; this one has no node.
    let ports: Vec<u16> = core.iter().map(|row| place(row).port()).collect();
    let common =
        *ports.iter().max_by_key(|port| ports.iter().filter(|p| p == port).count()).unwrap();
    let stray = SocketAddr::from(([127, 0, 0, 77], common));
    let reset = TcpStream::connect(stray).and_then(|mut stream| stream.read(&mut [0; 1]));
    let error = reset.expect_err("it is no node");
    assert_eq!(error.kind(), ErrorKind::ConnectionReset);
    // Gone before the reply.
    let old = network.nodes("old_core").remove(0);
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
fn the_most_at_once_is_never_overstated() {
    let network = Network::start(&["--nodes", "100", "--dead", "0"]);
    let nodes: Vec<SocketAddr> = network.rows("nodes.tsv").iter().map(|row| place(row)).collect();
    // Each of them holds one connection at a time, and opens the next as soon as the last is closed.
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
    // A connection counts once it has lasted for a moment.
    thread::sleep(Duration::from_secs(1));
    drop(held);
    let report = network.report();
    assert_eq!(report["connections_total"], 1003);
    assert!((3..=4).contains(&report["most_at_once"]), "{}", report["most_at_once"]);
}

#[test]
fn what_cannot_be_served_is_said_in_one_line() {
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
                "ulimit -n {limit}; exec {simnet} {arguments} --dir {}",
                dir.path().display()
            ))
            .output()
            .unwrap();
        let said = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(said.contains(expected), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        assert!(output.stdout.is_empty());
    }
}
