//! A day of a small network with churn in virtual time; `benches/world.rs` does it at full size.

mod support;

use std::sync::Arc;
use std::time::Duration;

use bitdash::config::Config;
use bitdash_core::record::writer_machine::WriterMachine;
use bitdash_core::schedule::crawler::Event;
use bitdash_core::vocabulary::rows::LastPass;
use bitdash_simnet::network::churn::{Churn, ChurnParams};
use bitdash_simnet::sim::{Simulation, SimulationParams};
use bitdash_simnet::verify::accuracy::{Accuracy, Standing, quantile};

fn params(seed: u64, max_sockets: usize) -> SimulationParams {
    support::simulation::params(seed, &Config::default(), "", max_sockets)
}

fn world(seed: u64) -> Arc<Churn> {
    let params = ChurnParams { seed, days: 1.5, ..ChurnParams::default() };
    Arc::new(Churn::generate(&params.scaled(0.03)))
}

struct Day {
    standings: Vec<Standing>,
    accuracy: Accuracy,
    simulation: Simulation<Churn>,
}

fn a_day(churn: &Arc<Churn>, is_full: bool) -> Day {
    let backoff = Config::default().backoff;
    let load = |recorder: &mut WriterMachine| {
        if is_full {
            churn.load_all(&backoff, recorder);
        }
    };
    let last_pass = if is_full { churn.last_pass() } else { LastPass::default() };
    let simulation = Simulation::resumed(Arc::clone(churn), params(9, 100), load, last_pass);
    let mut simulation = simulation.with_writer(Duration::from_millis(20), 5_000);
    let mut accuracy = Accuracy::new(churn, is_full);
    let mut standings = Vec::new();
    while simulation.now().mono < Duration::from_secs(86_400) {
        simulation.step();
        let mut batches = simulation.drain_batches();
        let is_end = |event: &Event| matches!(event, Event::PassFinished { .. });
        let has_ended = simulation.drain_events().iter().any(is_end);
        if has_ended {
            batches.extend(simulation.take_batches());
        }
        batches.iter().for_each(|batch| accuracy.read(churn, batch));
        if has_ended {
            standings.push(accuracy.standing(churn, simulation.now().mono.as_secs() as i64));
        }
    }
    Day { standings, accuracy, simulation }
}

#[test]
fn nodes_up_are_recorded_as_up_from_the_first_pass_on() {
    let churn = world(3);
    let day = a_day(&churn, false);
    assert!(day.standings.len() > 40, "{} passes in a day", day.standings.len());
    for (pass, standing) in day.standings.iter().enumerate() {
        assert!(standing.share() > 0.95, "pass {}: {standing:?}", pass + 1);
    }
    let returns = day.accuracy.returns(&churn, 86_400);
    assert!(returns.len() > 30, "{} returns", returns.len());
    assert!(quantile(&returns, 0.95).is_some_and(|seconds| seconds < 2 * 3_600));
    assert_eq!(day.simulation.conservation().check(), Ok(()));
    assert_eq!((day.simulation.bans, day.simulation.protocol_faults), (0, 0));
    assert!(day.simulation.strays.is_empty(), "{:?}", day.simulation.strays);
}

#[test]
fn a_full_database_is_resumed_without_probing_all_dead_addresses() {
    let churn = world(4);
    let day = a_day(&churn, true);
    assert!(day.standings[0].share() > 0.98, "{:?}", day.standings[0]);
    // Of 15,000 dead addresses most have been given up for hours or days.
    let dead = day.simulation.dials - day.simulation.conservation().responded;
    let most = 4 * churn.params().dead as u64;
    assert!(dead < most, "{dead} probes of dead addresses");
    assert_eq!(day.simulation.conservation().check(), Ok(()));
}

/// Time until 99 % of the honest nodes that are up at the start are found, if this share of the
/// peer-sending nodes invents 1,000 addresses for each reply. The network has two fifths of the
/// real size: in a tiny one most of the pass would be over before source quotas are enforced.
fn discovery(flood_share: f64) -> i64 {
    let life = ChurnParams { seed: 6, days: 1.5, flood_share, ..ChurnParams::default() };
    let churn = Arc::new(Churn::generate(&life.scaled(0.4)));
    let crawl = params(9, 320);
    let simulation = Simulation::resumed(Arc::clone(&churn), crawl, |_| {}, LastPass::default());
    let mut simulation = simulation.with_writer(Duration::from_millis(20), 5_000);
    let mut accuracy = Accuracy::new(&churn, false);
    let mut has_ended = false;
    while !has_ended {
        simulation.step();
        let is_end = |event: &Event| matches!(event, Event::PassFinished { .. });
        has_ended = simulation.drain_events().iter().any(is_end);
        simulation.drain_batches().iter().for_each(|batch| accuracy.read(&churn, batch));
    }
    simulation.take_batches().iter().for_each(|batch| accuracy.read(&churn, batch));
    assert_eq!(simulation.conservation().check(), Ok(()));
    let now = simulation.now().mono.as_secs() as i64;
    quantile(&accuracy.discoveries(&churn, now), 0.99).expect("99 % are found in the first pass")
}

#[test]
fn flooding_nodes_hardly_delay_the_discovery_of_honest_ones() {
    let (calm, flooded) = (discovery(0.0), discovery(0.1));
    assert!(flooded * 10 <= calm * 13, "{flooded} s instead of {calm} s");
}

#[test]
fn equal_seeds_give_equal_days() {
    let run = || {
        let day = a_day(&world(5), false);
        (day.simulation.trace, day.simulation.dials, day.standings)
    };
    assert_eq!(run(), run());
}
