//! The real programs while they are stopped by SIGSTOP and continued: the time in between counts
//! against no peer.

#![allow(clippy::disallowed_methods)] // tests listen, wait and signal

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::process::{Command, Stdio};
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread::{self, sleep};
use std::time::Duration;

use bitdash_simnet::zoo::Claimed;
use support::Cluster;
use support::crawl::{Crawl, value};
use support::tools::{Directory, Ran};

const SERVERS: usize = 40;
/// From the first connection to the stop.
const BEFORE: Duration = Duration::from_millis(600);
/// Longer than every timeout of the configuration.
const STOPPED: Duration = Duration::from_secs(12);

/// Starts servers that call `serve` with every connection and its number, and send a message with
/// the first.
fn servers(serve: fn(TcpStream, usize)) -> (Vec<SocketAddr>, Receiver<()>) {
    let (sender, connected) = mpsc::channel();
    let start = |_| {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let address = listener.local_addr().unwrap();
        let sender: Sender<()> = sender.clone();
        thread::spawn(move || {
            for (number, stream) in listener.incoming().enumerate() {
                let _ = sender.send(());
                let stream = stream.unwrap();
                thread::spawn(move || serve(stream, number));
            }
        });
        address
    };
    ((0..SERVERS).map(start).collect(), connected)
}

/// Answers after a second and keeps the connection.
fn answer(mut stream: TcpStream, _: usize) {
    sleep(Duration::from_secs(1));
    let _ = stream.write_all(&Claimed::agent(b"/slow/").message());
    let _ = stream.read_to_end(&mut Vec::new());
}

/// Gives up on its first client after three seconds, as on one that does not answer.
fn give_up_first(stream: TcpStream, number: usize) {
    if number == 0 {
        return sleep(Duration::from_secs(3));
    }
    answer(stream, number);
}

fn signal(pid: u32, signal: &str) {
    assert!(Command::new("kill").args([signal, &pid.to_string()]).status().unwrap().success());
}

fn stop_and_continue(pid: u32, connected: &Receiver<()>, stopped: Duration) {
    connected.recv_timeout(Duration::from_secs(60)).expect("it dials");
    sleep(BEFORE);
    signal(pid, "-STOP");
    sleep(stopped);
    signal(pid, "-CONT");
}

/// Runs `probe` or `poll` and stops it meanwhile.
fn visit(serve: fn(TcpStream, usize), command: &str) -> Ran {
    visit_stopped(serve, command, "10s", STOPPED)
}

/// The same with another timeout for `version` and duration of the stop.
fn visit_stopped(
    serve: fn(TcpStream, usize),
    command: &str,
    handshake: &str,
    stopped: Duration,
) -> Ran {
    let (servers, connected) = servers(serve);
    let directory = Directory::with_timeouts("5s", handshake, "10s", "2s");
    let places: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
    let mut arguments = vec![command, "--json"];
    if command == "probe" {
        arguments.extend(places.iter().map(String::as_str));
    } else {
        directory.write("nodes.txt", &places.join("\n").replace(':', " "));
    }
    let mut command = directory.command(&arguments);
    let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    stop_and_continue(child.id(), &connected, stopped);
    Ran::of(&child.wait_with_output().unwrap())
}

#[test]
fn a_stopped_poll_finds_the_answers_that_arrived_meanwhile() {
    let ran = visit(answer, "poll");
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    for found in ran.json() {
        assert!(found["version_ms"].as_u64().unwrap() < 3_000, "{found}");
    }
}

#[test]
fn a_stopped_probe_finds_the_answers_that_arrived_meanwhile() {
    let ran = visit(answer, "probe");
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
}

// A stop of about a second is no stall: the deadline passes, but the answers were in time.
#[test]
fn after_a_short_stop_answers_come_before_deadlines() {
    let ran = visit_stopped(answer, "poll", "1500ms", Duration::from_millis(1_100));
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
}

#[test]
fn a_peer_that_gave_up_on_a_stopped_probe_is_probed_again() {
    let ran = visit(give_up_first, "probe");
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
}

#[test]
fn a_stopped_crawl_marks_no_node_down() {
    for serve in [answer, give_up_first] {
        let (servers, connected) = servers(serve);
        let database = Cluster::shared().database();
        let directory = tempfile::tempdir().unwrap();
        let list: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
        let seeds = directory.path().join("nodes.txt");
        std::fs::write(&seeds, list.join(" a name\n").replace(':', " ")).unwrap();
        let mut crawl = Crawl::configure(&database, &seeds, &[]);
        crawl.start(&["--passes", "1"]);
        stop_and_continue(crawl.child.as_ref().unwrap().id(), &connected, STOPPED);
        let line = crawl.wait_for_log(|line| line.contains(" stall seconds="));
        assert!((11.0..20.0).contains(&value(&line, "seconds").parse().unwrap()), "{line}");
        assert!(crawl.wait().success());
        let up = "SELECT count(*) FILTER (WHERE status = 'up'), count(*) FROM nodes";
        assert_eq!(database.rows(up), ["40|40"]);
    }
}

#[test]
fn a_stopped_crawl_does_not_call_the_database_silent() {
    let (servers, connected) = servers(answer);
    let cluster = Cluster::start();
    let database = cluster.database();
    let directory = tempfile::tempdir().unwrap();
    let list: Vec<String> = servers.iter().map(SocketAddr::to_string).collect();
    let seeds = directory.path().join("nodes.txt");
    std::fs::write(&seeds, list.join("\n").replace(':', " ")).unwrap();
    let mut crawl = Crawl::configure(&database, &seeds, &["database.flush_interval = \"200ms\""]);
    crawl.start(&["--passes", "1"]);
    connected.recv_timeout(Duration::from_secs(60)).expect("it dials");
    // The answers are being written; it stops before ten seconds of silence and runs for two more.
    cluster.freeze_all(true);
    sleep(Duration::from_secs(3));
    let pid = crawl.child.as_ref().unwrap().id();
    signal(pid, "-STOP");
    sleep(STOPPED);
    signal(pid, "-CONT");
    sleep(Duration::from_secs(2));
    cluster.freeze_all(false);
    assert!(crawl.wait().success());
    let log = crawl.log();
    assert!(log.contains(" stall seconds=") && !log.contains(" database state=down"), "{log}");
    assert_eq!(database.value("SELECT count(*) FROM nodes WHERE status = 'up'"), "40");
}
