//! A line that dies and a calendar that jumps, in virtual time: the real crawl machines against the simulated network.
//!
//! Its seeds are fixed; a failure names its seed.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bitdash::commands::crawl::params::Params;
use bitdash::crawl::address::Address;
use bitdash::crawl::batch::{Batch, Status};
use bitdash::crawl::crawler::Event;
use bitdash::crawl::filter::Filter;
use bitdash::crawl::line::LineEvent;
use bitdash::io::config::Config;
use bitdash::simnet::simulation::{LineState, Simulation, SimulationParams};
use bitdash::simnet::world::{World, WorldParams};

const HOUR: Duration = Duration::from_secs(3_600);
const YEAR: i64 = 365 * 86_400;

fn simulation(seed: u64, sockets: usize) -> (Arc<World>, Simulation) {
    simulation_of(&Config::default(), seed, sockets)
}

fn simulation_of(config: &Config, seed: u64, sockets: usize) -> (Arc<World>, Simulation) {
    let filter = Filter::new(&[], &["127.0.0.0/8".parse().unwrap()]);
    let Params { crawler, recorder, probe, writer } = Params::new(config, filter, sockets);
    let flush_interval = writer.flush_interval;
    let params =
        SimulationParams { seed, crawler, recorder, probe, flush_interval, splits_bytes: false };
    let world =
        WorldParams { seed, nodes: 400, silent: 1_500, refusing: 300, ..WorldParams::default() };
    let world = Arc::new(World::generate(&world).unwrap());
    (Arc::clone(&world), Simulation::new(world, params))
}

/// The nodes that any of these rows calls down, or full.
fn called_down(batches: &[Batch]) -> BTreeSet<Address> {
    let rows = batches.iter().flat_map(|batch| &batch.nodes);
    rows.filter(|(_, row)| row.status != Status::Up).map(|(address, _)| *address).collect()
}

fn line_events(simulation: &mut Simulation) -> Vec<LineEvent> {
    let events = simulation.drain_events().into_iter();
    events.filter_map(|e| if let Event::Line(line) = e { Some(line) } else { None }).collect()
}

fn run_for(simulation: &mut Simulation, time: Duration) {
    let end = simulation.now().mono + time;
    while simulation.now().mono < end {
        simulation.step();
    }
}

/// Runs until a pass is under way and so many of its probes have been dialled.
fn into_a_pass(simulation: &mut Simulation, dials: u64) {
    let before = simulation.dials;
    while simulation.dials < before + dials {
        simulation.step();
    }
}

#[test]
fn a_nights_cable_fault_marks_no_node_down_and_the_crawl_resumes_by_itself() {
    for seed in 1..=4 {
        for line in [LineState::Silent, LineState::Unreachable] {
            let (_, mut simulation) = simulation(seed, 200);
            assert!(simulation.run_passes(2, 4 * HOUR), "seed {seed:#x}");
            into_a_pass(&mut simulation, 40 * seed);
            simulation.take_batches();
            line_events(&mut simulation);

            simulation.set_line(line);
            let dials = simulation.dials;
            run_for(&mut simulation, 8 * HOUR);
            let tries = simulation.dials - dials;
            assert!(tries < 8 * 3_600 + 1_000, "seed {seed:#x}: {tries} dials are no trickle");
            let events = line_events(&mut simulation);
            match line {
                LineState::Unreachable => assert_eq!(events, [LineEvent::Unroutable]),
                _ => assert!(
                    matches!(events[..], [LineEvent::Silent { witnesses: 8 }]),
                    "{events:?}"
                ),
            }
            assert!(!simulation.crawler().is_line_up());

            simulation.set_line(LineState::Up);
            assert!(simulation.run_passes(2, 4 * HOUR), "seed {seed:#x}: it does not resume");
            let events = line_events(&mut simulation);
            assert!(
                matches!(events[..], [LineEvent::Up { after }] if after > 7 * HOUR),
                "{events:?}"
            );
            let down = called_down(&simulation.take_batches());
            assert!(down.is_empty(), "seed {seed:#x} {line:?}: {down:?} were called down");
        }
    }
}

#[test]
fn a_line_that_is_away_for_seconds_or_minutes_costs_no_node_its_name() {
    for seed in 1..=10 {
        let (_, mut simulation) = simulation(seed, 150);
        assert!(simulation.run_passes(1, 4 * HOUR));
        let mut rng = fastrand::Rng::with_seed(seed);
        for _ in 0..6 {
            into_a_pass(&mut simulation, rng.u64(1..400));
            simulation.set_line(LineState::Silent);
            run_for(&mut simulation, Duration::from_millis(rng.u64(100..180_000)));
            simulation.set_line(LineState::Up);
            run_for(&mut simulation, Duration::from_secs(rng.u64(10..200)));
        }
        assert!(simulation.run_passes(2, 4 * HOUR), "seed {seed:#x}: passes do not end");
        let down = called_down(&simulation.take_batches());
        assert!(down.is_empty(), "seed {seed:#x}: {down:?} were called down");
    }
}

#[test]
fn a_line_that_comes_back_for_a_moment_after_hours_marks_nobody_down() {
    for seed in 1..=6 {
        let (_, mut simulation) = simulation(seed, 200);
        assert!(simulation.run_passes(1, 4 * HOUR));
        into_a_pass(&mut simulation, 60 * seed);
        for millis in [400, 1_500, 5_000] {
            simulation.set_line(LineState::Silent);
            run_for(&mut simulation, 2 * HOUR);
            assert!(!simulation.crawler().is_line_up(), "seed {seed:#x}: after {millis} ms");
            simulation.set_line(LineState::Up);
            run_for(&mut simulation, Duration::from_millis(millis));
        }
        assert!(simulation.run_passes(2, 4 * HOUR), "seed {seed:#x}: it does not resume");
        let down = called_down(&simulation.take_batches());
        assert!(down.is_empty(), "seed {seed:#x}: {down:?} were called down");
    }
}

#[test]
fn a_pass_that_begins_behind_a_dead_line_hours_after_the_last_answer_marks_nobody_down() {
    for seed in 1..=4 {
        let mut config = Config::default();
        config.crawl.pass_interval = 5 * HOUR;
        let (_, mut simulation) = simulation_of(&config, seed, 200);
        assert!(simulation.run_passes(1, 4 * HOUR));
        simulation.take_batches();
        run_for(&mut simulation, HOUR);
        simulation.set_line(LineState::Silent);
        run_for(&mut simulation, 8 * HOUR);
        assert!(!simulation.crawler().is_line_up(), "seed {seed:#x}");
        simulation.set_line(LineState::Up);
        assert!(simulation.run_passes(1, 12 * HOUR), "seed {seed:#x}: it does not resume");
        let down = called_down(&simulation.take_batches());
        assert!(down.is_empty(), "seed {seed:#x}: {down:?} were called down");
    }
}

#[test]
fn a_restart_behind_a_dead_line_marks_nobody_down() {
    let (world, mut first) = simulation(3, 200);
    assert!(first.run_passes(1, 4 * HOUR));
    let up: BTreeSet<Address> = world.nodes().iter().map(|node| node.address).collect();
    let last_seen = first.now().wall;
    let filter = Filter::new(&[], &["127.0.0.0/8".parse().unwrap()]);
    let Params { crawler, recorder, probe, writer } = Params::new(&Config::default(), filter, 200);
    let flush_interval = writer.flush_interval;
    let params =
        SimulationParams { seed: 3, crawler, recorder, probe, flush_interval, splits_bytes: false };
    let load = |recorder: &mut bitdash::crawl::recorder::Recorder| {
        for address in &up {
            recorder.load(&bitdash::crawl::batch::Known {
                address: *address,
                last_heard: last_seen,
                failures: 0,
                last_probed: Some(last_seen),
                last_outcome: Some(bitdash::crawl::outcome::Outcome::Responded),
                next_probe: last_seen,
                source: 0,
                node: Some(bitdash::crawl::batch::KnownNode {
                    last_seen,
                    peers_asked_at: Some(last_seen),
                    peers_sent: Some(9),
                    is_trb: false,
                }),
            });
        }
    };
    let mut second = Simulation::resumed(world, params, load, Default::default());
    second.jump_wall(2 * 3_600);
    second.set_line(LineState::Silent);
    run_for(&mut second, HOUR);
    assert!(!second.crawler().is_line_up(), "nobody has responded to this process yet");
    assert!(called_down(&second.take_batches()).is_empty());
    second.set_line(LineState::Up);
    assert!(second.run_passes(1, 4 * HOUR));
    assert!(called_down(&second.take_batches()).is_empty());
}

#[test]
fn a_calendar_that_jumps_neither_wakes_the_dead_nor_loses_the_living() {
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
            // As many as without the jump, give or take those whose jitter was drawn another way.
            let (tries, usual) = (simulation.dials - dials.0, twin.dials - dials.1);
            assert!(
                tries.abs_diff(usual) < usual / 5,
                "{seconds} s: {tries} dials, usually {usual}"
            );
            assert!(called_down(&simulation.take_batches()).is_empty());
            assert!(simulation.run_passes(60, 48 * HOUR), "{seconds} s");
            assert!(called_down(&simulation.take_batches()).is_empty());
            assert_eq!(simulation.crawler().totals().up, 400);
            let known = simulation.crawler().totals();
            assert_eq!(known.nodes + known.candidates, 2_200, "{seconds} s: somebody is forgotten");
        }
    }
}
