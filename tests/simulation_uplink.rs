//! A dead uplink and a wall clock that jumps, in virtual time. Seeds are fixed; a failure names its
//! seed.

mod support;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bitdash::config::Config;
use bitdash_core::record::writer_machine::WriterMachine;
use bitdash_core::schedule::crawler::Event;
use bitdash_core::schedule::uplink::UplinkEvent;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::rows::{Batch, Status};
use bitdash_simnet::network::world::{World, WorldParams};
use bitdash_simnet::sim::store::Store;
use bitdash_simnet::sim::{Simulation, UplinkState};
use support::simulation::{loopback_params, params};

const HOUR: Duration = Duration::from_secs(3_600);
const YEAR: i64 = 365 * 86_400;

fn simulation(seed: u64, sockets: usize) -> (Arc<World>, Simulation) {
    simulation_of(&Config::default(), seed, sockets)
}

fn simulation_of(config: &Config, seed: u64, sockets: usize) -> (Arc<World>, Simulation) {
    let params = params(seed, config, "127.0.0.0/8", sockets);
    let world =
        WorldParams { seed, nodes: 400, silent: 1_500, refusing: 300, ..WorldParams::default() };
    let world = support::simulation::world(world);
    (Arc::clone(&world), Simulation::new(world, params))
}

/// The nodes that any of these rows records as down or full.
fn marked_down(batches: &[Batch]) -> BTreeSet<Address> {
    let rows = batches.iter().flat_map(|batch| &batch.nodes);
    rows.filter(|(_, row)| row.status != Status::Up).map(|(address, _)| *address).collect()
}

fn uplink_events(simulation: &mut Simulation) -> Vec<UplinkEvent> {
    let events = simulation.drain_events().into_iter();
    events.filter_map(|e| if let Event::Uplink(line) = e { Some(line) } else { None }).collect()
}

fn run_for(simulation: &mut Simulation, time: Duration) {
    let end = simulation.now().mono + time;
    while simulation.now().mono < end {
        simulation.step();
    }
}

/// Runs until this many more probes have been dialled.
fn into_a_pass(simulation: &mut Simulation, dials: u64) {
    let before = simulation.dials;
    while simulation.dials < before + dials {
        simulation.step();
    }
}

#[test]
fn a_night_without_uplink_marks_no_node_down() {
    for seed in 1..=4 {
        for line in [UplinkState::Silent, UplinkState::Unreachable] {
            let (_, mut simulation) = simulation(seed, 200);
            assert!(simulation.run_passes(2, 4 * HOUR), "seed {seed:#x}");
            into_a_pass(&mut simulation, 40 * seed);
            simulation.take_batches();
            uplink_events(&mut simulation);

            simulation.set_uplink(line);
            let dials = simulation.dials;
            run_for(&mut simulation, 8 * HOUR);
            let tries = simulation.dials - dials;
            assert!(tries < 8 * 3_600 + 1_000, "seed {seed:#x}: {tries} dials are too many");
            let events = uplink_events(&mut simulation);
            match line {
                UplinkState::Unreachable => assert_eq!(events, [UplinkEvent::Unroutable]),
                _ => assert!(
                    matches!(events[..], [UplinkEvent::Silent { references: 8 }]),
                    "{events:?}"
                ),
            }
            assert!(!simulation.crawler().is_uplink_up());

            simulation.set_uplink(UplinkState::Up);
            assert!(simulation.run_passes(2, 4 * HOUR), "seed {seed:#x}: it does not resume");
            let events = uplink_events(&mut simulation);
            assert!(
                matches!(events[..], [UplinkEvent::Up { after }] if after > 7 * HOUR),
                "{events:?}"
            );
            let down = marked_down(&simulation.take_batches());
            assert!(down.is_empty(), "seed {seed:#x} {line:?}: {down:?} were marked down");
        }
    }
}

#[test]
fn short_uplink_failures_mark_no_node_down() {
    for seed in 1..=10 {
        let (_, mut simulation) = simulation(seed, 150);
        assert!(simulation.run_passes(1, 4 * HOUR));
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..6 {
            into_a_pass(&mut simulation, rng.u64(1..400));
            simulation.set_uplink(UplinkState::Silent);
            run_for(&mut simulation, Duration::from_millis(rng.u64(100..180_000)));
            simulation.set_uplink(UplinkState::Up);
            run_for(&mut simulation, Duration::from_secs(rng.u64(10..200)));
        }
        assert!(simulation.run_passes(2, 4 * HOUR), "seed {seed:#x}: passes do not end");
        let down = marked_down(&simulation.take_batches());
        assert!(down.is_empty(), "seed {seed:#x}: {down:?} were marked down");
    }
}

#[test]
fn an_uplink_that_returns_for_a_moment_marks_no_node_down() {
    for seed in 1..=6 {
        let (_, mut simulation) = simulation(seed, 200);
        assert!(simulation.run_passes(1, 4 * HOUR));
        into_a_pass(&mut simulation, 60 * seed);
        for millis in [400, 1_500, 5_000] {
            simulation.set_uplink(UplinkState::Silent);
            run_for(&mut simulation, 2 * HOUR);
            assert!(!simulation.crawler().is_uplink_up(), "seed {seed:#x}: after {millis} ms");
            simulation.set_uplink(UplinkState::Up);
            run_for(&mut simulation, Duration::from_millis(millis));
        }
        assert!(simulation.run_passes(2, 4 * HOUR), "seed {seed:#x}: it does not resume");
        let down = marked_down(&simulation.take_batches());
        assert!(down.is_empty(), "seed {seed:#x}: {down:?} were marked down");
    }
}

#[test]
fn a_pass_that_starts_without_uplink_marks_no_node_down() {
    for seed in 1..=4 {
        let mut config = Config::default();
        config.crawl.pass_interval = 5 * HOUR;
        let (_, mut simulation) = simulation_of(&config, seed, 200);
        assert!(simulation.run_passes(1, 4 * HOUR));
        simulation.take_batches();
        run_for(&mut simulation, HOUR);
        simulation.set_uplink(UplinkState::Silent);
        run_for(&mut simulation, 8 * HOUR);
        assert!(!simulation.crawler().is_uplink_up(), "seed {seed:#x}");
        simulation.set_uplink(UplinkState::Up);
        assert!(simulation.run_passes(1, 12 * HOUR), "seed {seed:#x}: it does not resume");
        let down = marked_down(&simulation.take_batches());
        assert!(down.is_empty(), "seed {seed:#x}: {down:?} were marked down");
    }
}

#[test]
fn a_restart_without_uplink_marks_no_node_down() {
    let (world, mut first) = simulation(3, 200);
    assert!(first.run_passes(1, 4 * HOUR));
    let mut store = Store::default();
    first.take_batches().iter().for_each(|batch| store.apply(batch));
    let (last_pass, mut rng) = (store.last_pass(), fastrand::Rng::with_seed(3));
    let load = |machine: &mut WriterMachine| store.load(machine, &mut rng, 0);
    let mut second = Simulation::resumed(world, loopback_params(3, 200), load, last_pass);
    second.jump_wall(2 * 3_600);
    second.set_uplink(UplinkState::Silent);
    run_for(&mut second, HOUR);
    assert!(!second.crawler().is_uplink_up(), "no node has responded to this process yet");
    assert!(marked_down(&second.take_batches()).is_empty());
    second.set_uplink(UplinkState::Up);
    assert!(second.run_passes(1, 4 * HOUR));
    assert!(marked_down(&second.take_batches()).is_empty());
}

#[test]
fn a_wall_clock_jump_keeps_back_off_and_nodes() {
    for (seed, seconds) in [(1, 3_700), (2, -3_700), (3, 10 * YEAR), (4, -10 * YEAR), (5, 86_400)] {
        for is_within_a_pass in [false, true] {
            let (_, mut simulation) = simulation(seed, 200);
            let (_, mut twin) = self::simulation(seed, 200);
            for simulation in [&mut simulation, &mut twin] {
                assert!(simulation.run_passes(6, 8 * HOUR));
                if is_within_a_pass {
                    into_a_pass(simulation, 100);
                }
            }
            simulation.take_batches();
            simulation.jump_wall(seconds);
            let dials = (simulation.dials, twin.dials);
            let began = simulation.now().mono;
            assert!(simulation.run_passes(2, 4 * HOUR), "{seconds} s: passes do not end");
            assert!(twin.run_passes(2, 4 * HOUR));
            assert!(simulation.now().mono - began < 2 * HOUR, "{seconds} s: passes are late");
            let stepped = |e: &&Event| matches!(e, Event::ClockStepped(_));
            assert_eq!(simulation.events().iter().filter(stepped).count(), 1);
            // As many as without the jump, apart from different jitter.
            let (tries, usual) = (simulation.dials - dials.0, twin.dials - dials.1);
            assert!(
                tries.abs_diff(usual) < usual / 5,
                "{seconds} s: {tries} dials, usually {usual}"
            );
            assert!(marked_down(&simulation.take_batches()).is_empty());
            assert!(simulation.run_passes(60, 48 * HOUR), "{seconds} s");
            assert!(marked_down(&simulation.take_batches()).is_empty());
            assert_eq!(simulation.crawler().totals().up, 400);
            let known = simulation.crawler().totals();
            assert_eq!(
                known.nodes + known.candidates,
                2_200,
                "{seconds} s: an address was forgotten"
            );
        }
    }
}
