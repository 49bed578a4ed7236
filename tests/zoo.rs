//! The zoo of the simulated network: every bad behaviour is recorded as its statement says, in virtual time
//! and by the real program; and `probe` and `poll` survive it too.
//!
//! `BITDASH_SEED=0x..` replays one seed, `BITDASH_SEEDS=n` tries more of them; a failure names its seed.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use bitdash::commands::crawl::params::Params;
use bitdash::crawl::address::Address;
use bitdash::crawl::batch::{FailedRow, NodeRow, Status};
use bitdash::crawl::filter::Filter;
use bitdash::crawl::outcome::Outcome;
use bitdash::crawl::target::Target;
use bitdash::io::clock::Clock;
use bitdash::io::config::Config;
use bitdash::io::driver::Driver;
use bitdash::simnet::simulation::{Simulation, SimulationParams};
use bitdash::simnet::world::{World, WorldParams};
use bitdash::simnet::zoo::{self, Beast};
use bitdash::watchglass::{Command, Magic, NetworkAddress, Version, encode_message};
use support::crawl::{Crawl, Simnet};
use support::{Cluster, Database};

// --- Virtual time -------------------------------------------------------------------------------------------------

/// A crawl with the default configuration, but for its sockets and the belt.
fn params(seed: u64, splits_bytes: bool) -> SimulationParams {
    let filter = Filter::new(&[], &["127.0.0.0/8".parse().unwrap()]);
    let Params { crawler, recorder, probe, writer } = Params::new(&Config::default(), filter, 100);
    let flush_interval = writer.flush_interval;
    SimulationParams { seed, crawler, recorder, probe, flush_interval, splits_bytes }
}

fn seeds() -> Vec<u64> {
    let number = |name| {
        let text = std::env::var(name).ok()?;
        match text.strip_prefix("0x") {
            Some(hex) => u64::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        }
    };
    match number("BITDASH_SEED") {
        Some(seed) => vec![seed],
        None => (1..=number("BITDASH_SEEDS").unwrap_or(4)).collect(),
    }
}

/// What became of every address: the newest rows.
#[derive(Default)]
struct Map {
    nodes: BTreeMap<Address, NodeRow>,
    failed: BTreeMap<Address, FailedRow>,
}

fn crawl(world: &Arc<World>, params: SimulationParams) -> Map {
    let seed = params.seed;
    let mut simulation = Simulation::new(Arc::clone(world), params);
    assert!(simulation.run_passes(1, Duration::from_secs(7_200)), "seed {seed:#x} never ends");
    assert_eq!((simulation.bans, simulation.complaints), (0, 0), "seed {seed:#x}");
    assert!(simulation.strays.is_empty(), "seed {seed:#x}: {:?}", simulation.strays);
    let mut map = Map::default();
    for batch in simulation.take_batches() {
        map.nodes.extend(batch.nodes);
        map.failed.extend(batch.failed);
    }
    map
}

/// What is recorded of an address, in the words of a statement.
fn recorded(map: &Map, address: Address) -> String {
    if let Some(row) = map.nodes.get(&address) {
        let version = &row.seen.as_ref().expect("a node was seen").version;
        assert_eq!(row.status, Status::Up);
        return format!(
            "{} {} {:?} {} {:?} {:?}",
            row.last_outcome,
            version.protocol_version,
            version.user_agent,
            version.services,
            version.start_height,
            version.relay
        );
    }
    map.failed.get(&address).map_or("nothing".to_owned(), |row| row.last_outcome.to_string())
}

fn stated(beast: &Beast) -> String {
    match beast.said() {
        None => beast.outcome().to_string(),
        Some(said) => format!(
            "responded {} {:?} {} {:?} {:?}",
            said.protocol_version,
            said.text(),
            said.services,
            said.start_height,
            said.relay
        ),
    }
}

/// Every den is recorded as its beast's statement says, every honest node too, and nothing else.
fn check_map(world: &World, map: &Map, seed: u64) {
    let mut wrong = Vec::new();
    let mut recorded_of: BTreeMap<&str, usize> = BTreeMap::new();
    for den in world.dens() {
        let beast = &world.beasts()[den.beast];
        let found = recorded(map, den.address);
        if found == "nothing" && beast.recorded < beast.ports {
            continue;
        }
        *recorded_of.entry(beast.name).or_default() += 1;
        if found != stated(beast) {
            wrong.push(format!("{}: {found}, should be {}", beast.name, stated(beast)));
        }
    }
    for beast in world.beasts() {
        let found = recorded_of.get(beast.name).copied().unwrap_or(0);
        let expected = beast.recorded * world.params().zoo;
        if found != expected {
            wrong.push(format!("{}: {found} of {expected} addresses recorded", beast.name));
        }
    }
    assert!(wrong.is_empty(), "seed {seed:#x}: {} wrong records: {wrong:#?}", wrong.len());
    for node in world.nodes() {
        let row = map.nodes.get(&node.address);
        let row = row.unwrap_or_else(|| panic!("seed {seed:#x}: {} is missing", node.address));
        assert_eq!(row.status, Status::Up, "seed {seed:#x}: {}", node.address);
    }
    let strangers = |address: &&Address| {
        world.find(**address).is_none()
            && world.find_den(**address).is_none()
            && world.find_dead(**address).is_none()
    };
    let known: BTreeSet<&Address> = map.nodes.keys().chain(map.failed.keys()).collect();
    assert_eq!(known.into_iter().filter(strangers).count(), 0, "seed {seed:#x}: strangers");
}

fn world(seed: u64, copies: usize) -> Arc<World> {
    let params = WorldParams {
        seed,
        nodes: 150,
        silent: 40,
        refusing: 20,
        zoo: copies,
        ..WorldParams::default()
    };
    Arc::new(World::generate(&params).unwrap())
}

#[test]
fn every_beast_is_recorded_as_stated_under_every_seed() {
    for seed in seeds() {
        let world = world(seed, 1);
        check_map(&world, &crawl(&world, params(seed, false)), seed);
    }
}

#[test]
fn bytes_in_pieces_change_no_record() {
    for seed in seeds() {
        let world = world(seed, 2);
        check_map(&world, &crawl(&world, params(seed, true)), seed);
    }
}

#[test]
fn the_zoo_is_as_large_as_it_should_be_and_every_beast_states_what_it_is() {
    let beasts = zoo::all();
    assert!(beasts.len() >= 100, "{} beasts", beasts.len());
    let names: BTreeSet<&str> = beasts.iter().map(|beast| beast.name).collect();
    assert_eq!(names.len(), beasts.len(), "a name is used twice");
    for beast in &beasts {
        let statement = beast.statement();
        assert!(statement.bytes().all(|byte| matches!(byte, 0x20..=0x7e)), "{statement}");
        assert!(!beast.does.ends_with('.') && !beast.does.contains(". "), "{statement}");
        assert!(beast.name.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'_' | b'0'..=b'9')));
    }
}

// --- The real program ---------------------------------------------------------------------------------------------

/// Every row of `nodes.tsv` and of `zoo.tsv` stands in the database as it is served, and nothing else does.
fn check_database(database: &Database, simnet: &Simnet) {
    let null =
        |text: &str| if matches!(text, "" | "\\N") { "-".to_owned() } else { text.to_owned() };
    let sql = "SELECT host(host), port, protocol_version, coalesce(user_agent, '\\N'), services, start_height, relay,
        species FROM nodes WHERE status = 'up' AND last_outcome = 'responded' AND failures = 0";
    let mut found: BTreeSet<String> = database.rows(sql).into_iter().collect();
    let all = found.len();
    assert_eq!(all.to_string(), database.value("SELECT count(*) FROM nodes"), "all are up");
    let failed = "SELECT host(host) || ' ' || port, last_outcome, failures FROM candidates";
    let mut failed: BTreeSet<String> = database.rows(failed).into_iter().collect();
    let mut wrong = Vec::new();
    for node in simnet.table("nodes.tsv") {
        let row = [
            node["host"].clone(),
            node["port"].clone(),
            node["protocol_version"].clone(),
            node["user_agent"].clone(),
            node["services"].clone(),
            null(&node["start_height"]),
            null(&node["relay"]),
            node["species"].clone(),
        ];
        if !found.remove(&row.join("|")) {
            wrong.push(format!("an honest node: {}", row.join("|")));
        }
    }
    let mut many: BTreeMap<(String, String), (usize, usize)> = BTreeMap::new();
    for den in simnet.table("zoo.tsv") {
        let host = (den["host"].clone(), den["beast"].clone());
        let (seen, most) = many.entry(host).or_default();
        *most = den["recorded"].parse().unwrap();
        let is_there = if den["outcome"] == "responded" {
            let row = [
                den["host"].clone(),
                den["port"].clone(),
                den["protocol_version"].clone(),
                den["user_agent"].clone(),
                den["services"].clone(),
                null(&den["start_height"]),
                null(&den["relay"]),
                den["species"].clone(),
            ];
            found.remove(&row.join("|"))
        } else {
            failed.remove(&format!("{} {}|{}|1", den["host"], den["port"], den["outcome"]))
        };
        *seen += usize::from(is_there);
    }
    for ((host, beast), (seen, most)) in many {
        if seen != most {
            let sql = format!(
                "SELECT 'node', port, user_agent, protocol_version, services, start_height, relay FROM nodes
                 WHERE host = '{host}' UNION ALL SELECT 'candidate', port, last_outcome, failures, NULL, NULL, NULL
                 FROM candidates WHERE host = '{host}'"
            );
            wrong.push(format!("{beast}: {seen} of {most} rows: {:?}", database.rows(&sql)));
        }
    }
    for dead in simnet.table("dead.tsv") {
        let outcome = if dead["kind"] == "silent" { "connect_timeout" } else { "refused" };
        if !failed.remove(&format!("{} {}|{outcome}|1", dead["host"], dead["port"])) {
            wrong.push(format!("a dead address: {}:{}", dead["host"], dead["port"]));
        }
    }
    assert!(
        wrong.is_empty() && found.is_empty() && failed.is_empty(),
        "wrong {wrong:#?}, extra {found:#?} {failed:#?}"
    );
}

#[test]
fn the_real_program_records_the_zoo_as_stated_and_its_log_stays_clean() {
    let args = ["--nodes", "200", "--dead", "100", "--zoo", "2", "--time-scale", "0.05"];
    let simnet = Simnet::start(&args);
    let database = Cluster::shared().database();
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &["log.level = \"trace\""]);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    check_database(&database, &simnet);

    let is_clean = |c: char| c == '\n' || matches!(c, ' '..='~');
    let hosts: Vec<String> =
        simnet.table("zoo.tsv").iter().map(|den| den["host"].clone()).collect();
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
        // Every line begins with our own time: none begins with a stranger's words.
        assert!(line.starts_with("20") && line.contains(" ["), "{line}");
        assert!(!line.contains(" stats pass=666") && !line.contains("] forged"), "{line}");
    }
    let account = simnet.stop();
    // Not `stray`: another network that starts just now may knock to see whether a port is free, and the rows
    // above tell of every dial of ours.
    for key in ["protocol_faults", "bans", "foreign"] {
        assert_eq!(account.number(key), 0, "{key}");
    }
    assert!(account.number("most_connections_per_address") <= 1);
    let commands: BTreeSet<&str> =
        account.figures.keys().filter_map(|key| key.strip_prefix("command.")).collect();
    assert_eq!(commands, BTreeSet::from(["getaddr", "verack", "version"]));
}

#[test]
fn a_version_counts_even_if_a_reset_came_before_it_was_read() {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let port = listener.local_addr().unwrap().port();
    let far_end = thread::spawn(move || {
        for bytes in [version(), Vec::new()] {
            let (mut stream, _) = listener.accept().unwrap();
            stream.write_all(&bytes).unwrap();
            // With unread bytes of ours, or told to, the kernel ends a connection by a reset.
            rustix::net::sockopt::set_socket_linger(&stream, Some(Duration::ZERO)).unwrap();
        }
    });
    let target = Target::candidate(Address::new(Ipv4Addr::LOCALHOST, port));
    let filter = Filter::new(&[], &["127.0.0.0/8".parse().unwrap()]);
    let params = Params::new(&Config::default(), filter, 100).probe;
    let (clock, mut driver) = (Clock::new(), Driver::new().unwrap());
    for _ in 0..2 {
        assert!(driver.dial(target, &params, 42, clock.now()).unwrap().is_none());
    }
    far_end.join().unwrap();
    // Only now the driver looks: both connections are reset before it has seen them stand.
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

/// How long a node takes from connecting to its `version`.
fn greet(node: &BTreeMap<String, String>) -> Duration {
    let begin = Instant::now();
    let mut stream = connect(node);
    stream.set_read_timeout(Some(Duration::from_secs(30))).unwrap();
    stream.write_all(&version()).unwrap();
    stream.read_exact(&mut [0; 24]).unwrap();
    begin.elapsed()
}

fn version() -> Vec<u8> {
    let version = Version {
        version: 70_015,
        services: 0,
        timestamp: 1_790_000_000,
        addr_recv: NetworkAddress::UNSPECIFIED,
        addr_from: Some(NetworkAddress::UNSPECIFIED),
        nonce: Some(7),
        user_agent: Some(b"/test/".to_vec()),
        user_agent_length: 6,
        start_height: Some(0),
        relay: Some(false),
        trailing: 0,
    };
    let (mut payload, mut bytes) = (Vec::new(), Vec::new());
    version.encode(&mut payload);
    encode_message(Magic::MAIN, Command::VERSION, &payload, &mut bytes);
    bytes
}

fn connect(row: &BTreeMap<String, String>) -> TcpStream {
    TcpStream::connect(format!("{}:{}", row["host"], row["port"])).unwrap()
}

#[test]
fn floods_and_readers_that_never_read_starve_no_honest_node() {
    let args =
        ["--nodes", "60", "--dead", "0", "--zoo", "20", "--time-scale", "0", "--latency", "off"];
    let simnet = Simnet::start(&args);
    let zoo = simnet.table("zoo.tsv");
    let floods = ["endless_ping_first", "endless_addr_first", "endless_long_messages_first"];
    let floods: Vec<_> = zoo.iter().filter(|den| floods.contains(&den["beast"].as_str())).collect();
    assert_eq!(floods.len(), 60);
    let before = rss_mb(simnet.pid());
    // Three of four never read; the last one reads all it can get.
    let held: Vec<TcpStream> =
        floods.iter().flat_map(|den| [(); 3].map(|()| connect(den))).collect();
    let is_over = AtomicBool::new(false);
    let read = AtomicU64::new(0);
    thread::scope(|scope| {
        for den in floods.iter().take(20) {
            let (is_over, read) = (&is_over, &read);
            scope.spawn(move || {
                let mut stream = connect(den);
                let mut buffer = vec![0; 1 << 20];
                while !is_over.load(Ordering::Relaxed) {
                    let length = stream.read(&mut buffer).unwrap();
                    read.fetch_add(length as u64, Ordering::Relaxed);
                }
            });
        }
        thread::sleep(Duration::from_secs(1));
        let nodes = simnet.table("nodes.tsv");
        let mut times: Vec<Duration> = nodes.iter().map(greet).collect();
        times.sort();
        is_over.store(true, Ordering::Relaxed);
        // On an idle machine it is a millisecond; a starved node would take as long as the flood.
        let (middle, last) = (times[times.len() / 2], times[times.len() - 1]);
        println!("greeted within {middle:?}, all within {last:?}");
        assert!(middle < Duration::from_secs(1) && last < Duration::from_secs(5), "{times:?}");
    });
    let (after, read) = (rss_mb(simnet.pid()), read.into_inner() >> 20);
    println!("{read} MB were read, the network's memory went from {before} to {after} MB");
    assert!(read > 20, "the floods flow: {read} MB were read");
    assert!(after < before + 60, "the network's memory went from {before} to {after} MB");
    drop(held);
}
