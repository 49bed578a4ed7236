//! Whole passes in virtual time: the real crawl machines against the simulated network, without a socket.
//!
//! `BITDASH_SEED=0x..` replays one seed, `BITDASH_SEEDS=n` tries more of them; a failure names its seed.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitdash::commands::crawl::params::Params;
use bitdash::crawl::address::Address;
use bitdash::crawl::batch::{Batch, NodeRow, Status};
use bitdash::crawl::crawler::CrawlerParams;
use bitdash::crawl::filter::Filter;
use bitdash::crawl::outcome::Outcome;
use bitdash::io::config::Config;
use bitdash::simnet::manner::Manner;
use bitdash::simnet::simulation::{LineState, Simulation, SimulationParams};
use bitdash::simnet::world::{World, WorldParams};
use bitdash::watchglass::text;

/// The belt is on here too: what is dialled may be anything that a simulated peer invents.
fn crawler_params(max_sockets: usize) -> CrawlerParams {
    params(0, max_sockets).crawler
}

/// A crawl with the default configuration but for its sockets.
fn params(seed: u64, max_sockets: usize) -> SimulationParams {
    let filter = Filter::new(&[], &["127.0.0.0/8".parse().unwrap()]);
    let config = Config::default();
    let Params { crawler, recorder, probe, writer } = Params::new(&config, filter, max_sockets);
    let flush_interval = writer.flush_interval;
    SimulationParams { seed, crawler, recorder, probe, flush_interval, splits_bytes: false }
}

fn world(seed: u64, nodes: usize, silent: usize, refusing: usize) -> Arc<World> {
    let params = WorldParams { seed, nodes, silent, refusing, ..WorldParams::default() };
    Arc::new(World::generate(&params).unwrap())
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
        None => (1..=number("BITDASH_SEEDS").unwrap_or(6)).collect(),
    }
}

/// The newest state of every node, as a database would hold it after these batches.
fn nodes_after(batches: &[Batch]) -> BTreeMap<Address, NodeRow> {
    let mut nodes: BTreeMap<Address, NodeRow> = BTreeMap::new();
    for (address, row) in batches.iter().flat_map(|batch| &batch.nodes) {
        let old = nodes.remove(address);
        let mut row = row.clone();
        if let Some(old) = old {
            row.seen = row.seen.or(old.seen);
            row.peers = row.peers.or(old.peers);
        }
        nodes.insert(*address, row);
    }
    nodes
}

/// Every node of the world stands in the rows as it is, and nothing else does.
fn check_map(world: &World, nodes: &BTreeMap<Address, NodeRow>, seed: u64) {
    for node in world.nodes() {
        let row = nodes.get(&node.address);
        let row = row.unwrap_or_else(|| panic!("seed {seed:#x}: {} is missing", node.address));
        let seen = row.seen.as_ref().expect("a node was seen");
        assert_eq!(row.status, Status::Up, "seed {seed:#x}: {}", node.address);
        assert_eq!(seen.version.protocol_version, node.protocol_version);
        assert_eq!(seen.version.services, node.services);
        let agent = text::from_bytes(&node.user_agent);
        assert_eq!(seen.version.user_agent.as_deref(), Some(agent.as_str()));
        assert_eq!(seen.version.start_height, Some(node.start_height));
        assert_eq!(seen.version.relay, node.relay, "seed {seed:#x}: {agent}");
    }
    assert_eq!(nodes.len(), world.nodes().len(), "seed {seed:#x}: rows that are no node");
}

#[test]
fn one_pass_finds_every_node_as_it_is_under_every_seed() {
    for seed in seeds() {
        let world = world(seed, 300, 700, 150);
        let mut simulation = Simulation::new(Arc::clone(&world), params(seed, 100));
        assert!(simulation.run_passes(1, Duration::from_secs(7_200)), "seed {seed:#x} never ends");
        let batches = simulation.take_batches();
        check_map(&world, &nodes_after(&batches), seed);
        assert_eq!((simulation.bans, simulation.complaints), (0, 0), "seed {seed:#x}");
        assert!(simulation.strays.is_empty(), "seed {seed:#x}: {:?}", simulation.strays);
        assert!(simulation.most_open <= 100, "seed {seed:#x}");
        let failed = batches.iter().flat_map(|batch| batch.failed.values());
        for row in failed {
            assert!(matches!(row.last_outcome, Outcome::Refused | Outcome::ConnectTimeout));
        }
    }
}

#[test]
fn whole_replies_come_from_nearly_every_node_at_the_default_time_outs() {
    // Old Core's timer is memoryless: only many nodes tell a share. 1 - e^(-75/30) are 91.8 %.
    let mut shares: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for seed in 70..82 {
        let world = world(seed, 2_000, 500, 100);
        let mut simulation = Simulation::new(Arc::clone(&world), params(seed, 800));
        assert!(simulation.run_passes(1, Duration::from_secs(7_200)));
        let nodes = nodes_after(&simulation.take_batches());
        check_map(&world, &nodes, seed);
        for (index, node) in world.nodes().iter().enumerate() {
            let length = world.reply_length(index);
            if length < 2 {
                continue;
            }
            let kind = match node.manner {
                Manner::OldCore => "old Core",
                Manner::Trb => "TRB",
                Manner::NewCore => "new Core",
                _ => continue,
            };
            let sent = nodes[&node.address].peers.map_or(0, |(_, sent)| sent as usize);
            let share = shares.entry(kind).or_default();
            share.1 += 1;
            // The self-announcement may ride in the same message.
            share.0 += usize::from(sent >= length);
        }
    }
    for (kind, least) in [("new Core", 0.99), ("TRB", 0.99), ("old Core", 0.90)] {
        let (whole, all) = shares[kind];
        assert!(whole as f64 >= least * all as f64, "{kind}: {whole} of {all} whole replies");
    }
}

#[test]
fn bytes_in_pieces_change_nothing_of_the_map() {
    let world = world(5, 200, 100, 50);
    let mut split = params(5, 100);
    split.splits_bytes = true;
    let mut simulation = Simulation::new(Arc::clone(&world), split);
    assert!(simulation.run_passes(1, Duration::from_secs(7_200)));
    check_map(&world, &nodes_after(&simulation.take_batches()), 5);
}

#[test]
fn the_same_seed_gives_the_same_run_and_another_one_does_not() {
    let run = |seed| {
        let mut simulation = Simulation::new(world(9, 150, 150, 50), params(seed, 60));
        assert!(simulation.run_passes(2, Duration::from_secs(7_200)));
        (simulation.trace, simulation.dials, simulation.take_batches())
    };
    let (first, second, other) = (run(4), run(4), run(5));
    assert_eq!((first.0, first.1), (second.0, second.1));
    assert_eq!(first.2, second.2);
    assert_ne!(first.0, other.0);
}

#[test]
fn a_reload_at_any_moment_loses_nothing() {
    let world = world(3, 200, 200, 50);
    let mut simulation = Simulation::new(Arc::clone(&world), params(3, 50));
    let mut rng = fastrand::Rng::with_seed(12);
    while !simulation.run_passes(1, Duration::from_millis(rng.u64(1..3_000))) {
        simulation.reload(crawler_params(rng.usize(1..300)));
    }
    check_map(&world, &nodes_after(&simulation.take_batches()), 3);
}

#[test]
fn later_passes_greet_the_nodes_and_let_the_dead_rest() {
    let world = world(6, 200, 1_000, 200);
    let mut simulation = Simulation::new(Arc::clone(&world), params(6, 200));
    assert!(simulation.run_passes(1, Duration::from_secs(7_200)));
    let first = simulation.dials;
    assert!(simulation.run_passes(1, Duration::from_secs(7_200)));
    assert_eq!(simulation.dials - first, 200, "half an hour later nobody else is due");
    // A day later every address has been tried again.
    assert!(simulation.run_passes(40, Duration::from_secs(86_400)));
    check_map(&world, &nodes_after(&simulation.take_batches()), 6);
}

#[test]
fn a_line_that_is_silent_or_unreachable_answers_nothing_until_it_is_up_again() {
    for line in [LineState::Silent, LineState::Unreachable] {
        let world = world(8, 200, 100, 50);
        let mut simulation = Simulation::new(Arc::clone(&world), params(8, 60));
        assert!(!simulation.run_passes(1, Duration::from_secs(20)));
        let before = *simulation.tally();
        simulation.set_line(line);
        simulation.run_passes(1, Duration::from_secs(60));
        let after = *simulation.tally();
        assert_eq!(after.bytes_in, before.bytes_in, "{line:?}");
        assert_eq!(after.bytes_out, before.bytes_out, "{line:?}");
        simulation.set_line(LineState::Up);
        let up = simulation.tally().bytes_in;
        assert!(simulation.run_passes(1, Duration::from_secs(7_200)));
        assert!(simulation.tally().bytes_in > up, "{line:?}");
    }
}

#[test]
fn the_calendar_jumps_and_the_deadlines_do_not() {
    let mut simulation = Simulation::new(world(9, 100, 50, 20), params(9, 60));
    assert!(!simulation.run_passes(1, Duration::from_secs(5)));
    let before = simulation.now();
    simulation.jump_wall(-10 * 365 * 86_400);
    let after = simulation.now();
    assert_eq!(after.mono, before.mono);
    assert_eq!(before.wall.as_secs() - after.wall.as_secs(), 10 * 365 * 86_400);
    assert!(simulation.run_passes(1, Duration::from_secs(7_200)));
    assert!(simulation.now().mono < Duration::from_secs(7_200));
}
