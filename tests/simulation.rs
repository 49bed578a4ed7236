//! Whole passes in virtual time: the crawl's machines against the simulated network, without
//! sockets.
//!
//! `BITDASH_SEED=0x..` replays one seed, `BITDASH_SEEDS=n` tries more of them; a failure names its
//! seed.

mod support;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bitdash_simnet::network::world::{World, WorldParams};
use bitdash_simnet::node::profile::Profile;
use bitdash_simnet::sim::{Simulation, UplinkState};
use support::simulation::{check_rows, loopback_params as params, seeds};

fn world(seed: u64, nodes: usize, silent: usize, refusing: usize) -> Arc<World> {
    support::simulation::world(WorldParams {
        seed,
        nodes,
        silent,
        refusing,
        ..WorldParams::default()
    })
}

#[test]
fn one_pass_maps_the_network_under_every_seed() {
    for seed in seeds(6) {
        let world = world(seed, 300, 700, 150);
        let mut simulation = Simulation::new(Arc::clone(&world), params(seed, 100));
        assert!(simulation.run_passes(1, Duration::from_secs(7_200)), "seed {seed:#x} never ends");
        let batches = simulation.take_batches();
        check_rows(&world, &batches, seed);
        assert_eq!((simulation.bans, simulation.protocol_faults), (0, 0), "seed {seed:#x}");
        assert!(simulation.strays.is_empty(), "seed {seed:#x}: {:?}", simulation.strays);
        assert!(simulation.max_open <= 100, "seed {seed:#x}");
    }
}

#[test]
fn nearly_all_replies_are_whole_with_default_timeouts() {
    // Old Core's timer is memoryless: within 75 s, 1 - e^(-75/30) = 91.8 % have replied.
    let mut shares: BTreeMap<&str, (usize, usize)> = BTreeMap::new();
    for seed in 70..82 {
        let world = world(seed, 2_000, 500, 100);
        let mut simulation = Simulation::new(Arc::clone(&world), params(seed, 800));
        assert!(simulation.run_passes(1, Duration::from_secs(7_200)));
        let batches = simulation.take_batches();
        check_rows(&world, &batches, seed);
        let rows = batches.iter().flat_map(|batch| &batch.nodes);
        let sent: BTreeMap<_, _> =
            rows.filter_map(|(address, row)| Some((*address, row.peers?.1 as usize))).collect();
        for (index, node) in world.nodes().iter().enumerate() {
            let length = world.reply_length(index);
            if length < 2 {
                continue;
            }
            let kind = match node.profile {
                Profile::OldCore => "old Core",
                Profile::Trb => "TRB",
                Profile::NewCore => "new Core",
                _ => continue,
            };
            let sent = sent.get(&node.address).copied().unwrap_or(0);
            let share = shares.entry(kind).or_default();
            share.1 += 1;
            // The self-announcement may be in the same message.
            share.0 += usize::from(sent >= length);
        }
    }
    for (kind, least) in [("new Core", 0.99), ("TRB", 0.99), ("old Core", 0.90)] {
        let (whole, all) = shares[kind];
        assert!(whole as f64 >= least * all as f64, "{kind}: {whole} of {all} whole replies");
    }
}

#[test]
fn bytes_in_pieces_do_not_change_the_map() {
    let world = world(5, 200, 100, 50);
    let mut split = params(5, 100);
    split.splits_bytes = true;
    let mut simulation = Simulation::new(Arc::clone(&world), split);
    assert!(simulation.run_passes(1, Duration::from_secs(7_200)));
    check_rows(&world, &simulation.take_batches(), 5);
}

#[test]
fn equal_seeds_give_equal_runs() {
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
        simulation.reload(params(0, rng.usize(1..300)).crawler);
    }
    check_rows(&world, &simulation.take_batches(), 3);
}

#[test]
fn later_passes_probe_nodes_and_back_off_from_the_dead() {
    let world = world(6, 200, 1_000, 200);
    let mut simulation = Simulation::new(Arc::clone(&world), params(6, 200));
    assert!(simulation.run_passes(1, Duration::from_secs(7_200)));
    let first = simulation.dials;
    assert!(simulation.run_passes(1, Duration::from_secs(7_200)));
    assert_eq!(simulation.dials - first, 200, "half an hour later only nodes are due");
    // A day later every address has been probed again.
    assert!(simulation.run_passes(40, Duration::from_secs(86_400)));
    check_rows(&world, &simulation.take_batches(), 6);
}

#[test]
fn no_byte_passes_while_the_uplink_is_down() {
    for line in [UplinkState::Silent, UplinkState::Unreachable] {
        let world = world(8, 200, 100, 50);
        let mut simulation = Simulation::new(Arc::clone(&world), params(8, 60));
        assert!(!simulation.run_passes(1, Duration::from_secs(8)));
        let before = *simulation.conservation();
        simulation.set_uplink(line);
        simulation.run_passes(1, Duration::from_secs(60));
        let after = *simulation.conservation();
        assert_eq!(after.bytes_in, before.bytes_in, "{line:?}");
        assert_eq!(after.bytes_out, before.bytes_out, "{line:?}");
        simulation.set_uplink(UplinkState::Up);
        let up = simulation.conservation().bytes_in;
        assert!(simulation.run_passes(1, Duration::from_secs(7_200)));
        assert!(simulation.conservation().bytes_in > up, "{line:?}");
    }
}

#[test]
fn a_wall_clock_jump_does_not_move_deadlines() {
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
