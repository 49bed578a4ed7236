//! The zoo of the simulated network: every misbehaviour is recorded as stated, in virtual time and
//! by the real program.
//!
//! `BITDASH_SEED=0x..` replays one seed, `BITDASH_SEEDS=n` tries more of them; a failure names its
//! seed.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bitdash::commands::crawl::params::Params;
use bitdash::config::Config;
use bitdash::net::driver::Driver;
use bitdash::sys::clock::{Clock, LoopClock};
use bitdash_core::lookup::species::Rules;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::rows::Batch;
use bitdash_core::vocabulary::target::Target;
use bitdash_simnet::network::world::{World, WorldParams};
use bitdash_simnet::sim::{Simulation, SimulationParams};
use bitdash_simnet::verify::truth::{Kind, Row};
use bitdash_simnet::zoo::{self, Claimed};
use support::Cluster;
use support::crawl::{Crawl, Simnet, check_map};
use support::simulation::{check_rows, loopback_params, seeds};

// --- Virtual time --------------------------------------------------------------------------------

fn crawl(world: &Arc<World>, params: SimulationParams) -> Vec<Batch> {
    let seed = params.seed;
    let mut simulation = Simulation::new(Arc::clone(world), params);
    assert!(simulation.run_passes(1, Duration::from_secs(7_200)), "seed {seed:#x} never ends");
    assert_eq!((simulation.bans, simulation.protocol_faults), (0, 0), "seed {seed:#x}");
    assert!(simulation.strays.is_empty(), "seed {seed:#x}: {:?}", simulation.strays);
    simulation.take_batches()
}

fn world(seed: u64, copies: usize) -> Arc<World> {
    support::simulation::world(WorldParams {
        seed,
        nodes: 150,
        silent: 40,
        refusing: 20,
        zoo: copies,
        ..WorldParams::default()
    })
}

#[test]
fn every_misbehaviour_is_recorded_as_stated() {
    for seed in seeds(4) {
        let world = world(seed, 1);
        check_rows(&world, &crawl(&world, loopback_params(seed, 100)), seed);
    }
}

#[test]
fn bytes_in_pieces_do_not_change_the_record() {
    for seed in seeds(4) {
        let world = world(seed, 2);
        let params = SimulationParams { splits_bytes: true, ..loopback_params(seed, 100) };
        check_rows(&world, &crawl(&world, params), seed);
    }
}

#[test]
fn every_misbehaviour_has_a_unique_name_and_a_statement() {
    let misbehaviours = zoo::all();
    assert!(misbehaviours.len() >= 100, "{} misbehaviours", misbehaviours.len());
    let names: BTreeSet<&str> =
        misbehaviours.iter().map(|misbehaviour| misbehaviour.name).collect();
    assert_eq!(names.len(), misbehaviours.len(), "a name is used twice");
    for misbehaviour in &misbehaviours {
        let statement = misbehaviour.statement();
        assert!(statement.bytes().all(|byte| matches!(byte, 0x20..=0x7e)), "{statement}");
        assert!(
            !misbehaviour.does.ends_with('.') && !misbehaviour.does.contains(". "),
            "{statement}"
        );
        assert!(
            misbehaviour.name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b'0'..=b'9'))
        );
    }
}

// --- The real program ----------------------------------------------------------------------------

#[test]
fn the_real_program_records_the_zoo_as_stated() {
    let args = ["--nodes", "200", "--dead", "100", "--zoo", "2", "--time-scale", "0.05"];
    let simnet = Simnet::start(&args);
    let database = Cluster::shared().database();
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &["log.level = \"trace\""]);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    let comparison = check_map(&database, &simnet);
    assert_eq!(comparison.unprobed, 0, "{comparison}");
    assert_eq!(database.value("SELECT count(*) FROM candidates WHERE failures <> 1"), "0");

    let is_clean = |c: char| c == '\n' || matches!(c, ' '..='~');
    let zoo = simnet.truth(Kind::Zoo);
    let hosts: Vec<String> = zoo.iter().map(|row| row.address.ip().to_string()).collect();
    let every_agent = [&["status"][..], &["status", "--json"]].map(|args| crawl.command(args));
    let one_by_one = hosts.iter().step_by(20).map(|host| crawl.command(&["status", host]));
    for mut command in every_agent.into_iter().chain(one_by_one) {
        let output = command.output().unwrap();
        let text =
            String::from_utf8(output.stdout).unwrap() + &String::from_utf8(output.stderr).unwrap();
        assert!(output.status.success() && text.chars().all(is_clean), "{command:?}: {text:?}");
    }
    let log = crawl.log();
    assert!(
        log.chars().all(is_clean),
        "{:?}",
        log.lines().find(|line| !line.chars().all(is_clean))
    );
    for line in log.lines() {
        // Every line begins with a timestamp, none with text from a peer.
        let level = line.split(' ').nth(1);
        let is_level = |word| ["ERROR", "WARN", "INFO", "DEBUG", "TRACE"].contains(&word);
        assert!(line.starts_with("20") && level.is_some_and(is_level), "{line}");
        assert!(!line.contains(" stats pass=666") && !line.contains(" ERROR forged"), "{line}");
    }
    let account = simnet.stop();
    // Not `stray`: another network that starts now may check whether a port is free.
    for key in ["protocol_faults", "bans", "foreign"] {
        assert_eq!(account.number(key), 0, "{key}");
    }
    assert!(account.number("most_connections_per_address") <= 1);
    let commands: BTreeSet<&str> =
        account.figures.keys().filter_map(|key| key.strip_prefix("command.")).collect();
    assert_eq!(commands, BTreeSet::from(["getaddr", "verack", "version"]));
}

#[test]
fn a_version_counts_even_if_a_reset_arrives_before_it_is_read() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let far_end = thread::spawn(move || {
        for bytes in [version(), Vec::new()] {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&bytes).unwrap();
            // With unread bytes or a linger time of zero the kernel sends a reset.
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
    });
    let target = Target::candidate(Address::new(Ipv4Addr::LOCALHOST, port));
    let filter = Filter::new(&[], &["127.0.0.0/8".parse().unwrap()]);
    let params = Params::new(&Config::default(), filter, Rules::builtin(), 100).probe;
    let (clock, mut driver) = (LoopClock::new(Clock::new()), Driver::new().unwrap());
    for _ in 0..2 {
        assert!(driver.dial(target, &params, 42, &clock).unwrap().is_none());
    }
    far_end.join().unwrap();
    // Both connections are reset before the driver sees them as established.
    let mut ended = Vec::new();
    while driver.open() > 0 {
        driver.turn(Some(Duration::from_secs(1)), &clock, &mut ended).unwrap();
    }
    let mut outcomes: Vec<Outcome> =
        ended.iter().map(|ended| ended.result.as_ref().expect("a result").outcome).collect();
    outcomes.sort();
    assert_eq!(outcomes, [Outcome::Responded, Outcome::Closed]);
}

/// The resident memory of a process in MB.
fn rss_mb(pid: u32) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() / 1_024
}

/// Time from connecting to a node to its `version`.
fn time_to_version(node: &Row) -> Duration {
    let begin = Instant::now();
    let mut stream = connect(node);
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&version()).unwrap();
    stream.read_exact(&mut [0; 24]).unwrap();
    begin.elapsed()
}

fn version() -> Vec<u8> {
    Claimed::agent(b"/test/").message()
}

fn connect(row: &Row) -> TcpStream {
    TcpStream::connect(row.address.to_socket_addr()).unwrap()
}

#[test]
fn floods_and_stuck_readers_starve_no_honest_node() {
    let args =
        ["--nodes", "60", "--dead", "0", "--zoo", "20", "--time-scale", "0", "--latency", "off"];
    let simnet = Simnet::start(&args);
    let zoo = simnet.truth(Kind::Zoo);
    let floods = ["endless_ping_first", "endless_addr_first", "endless_long_messages_first"];
    let floods: Vec<_> = zoo.iter().filter(|row| floods.contains(&row.label.as_str())).collect();
    assert_eq!(floods.len(), 60);
    let before = rss_mb(simnet.pid());
    // Three of four clients never read; the fourth reads everything.
    let held: Vec<TcpStream> =
        floods.iter().flat_map(|placement| [(); 3].map(|()| connect(placement))).collect();
    let is_over = AtomicBool::new(false);
    let read = AtomicU64::new(0);
    thread::scope(|scope| {
        for placement in floods.iter().take(20) {
            let (is_over, read) = (&is_over, &read);
            scope.spawn(move || {
                let mut stream = connect(placement);
                let mut buffer = vec![0; 1 << 20];
                while !is_over.load(Ordering::Relaxed) {
                    let length = stream.read(&mut buffer).unwrap();
                    read.fetch_add(length as u64, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(Duration::from_secs(1));
        let nodes = simnet.truth(Kind::Node);
        let mut times: Vec<Duration> = nodes.iter().map(time_to_version).collect();
        times.sort();
        is_over.store(true, Ordering::Relaxed);
        // It takes a millisecond on an idle machine; a starved node would take as long as the
        // flood.
        let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
        println!("median {middle:?}, maximum {last:?}");
        assert!(middle < Duration::from_secs(1) && last < Duration::from_secs(5), "{times:?}");
    });
    let (after, read) = (rss_mb(simnet.pid()), read.into_inner() >> 20);
    println!("{read} MB were read, the network's memory went from {before} to {after} MB");
    assert!(read > 20, "the floods are slow: {read} MB were read");
    assert!(after < before + 60, "the network's memory went from {before} to {after} MB");
    drop(held);
}
