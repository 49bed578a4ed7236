//! A day of a small living network in virtual time: a smoke run of what `benches/world.rs` does at full size.

use std::sync::Arc;
use std::time::Duration;

use bitdash::commands::crawl::params::Params;
use bitdash::crawl::batch::LastPass;
use bitdash::crawl::crawler::Event;
use bitdash::crawl::filter::Filter;
use bitdash::crawl::recorder::Recorder;
use bitdash::io::config::Config;
use bitdash::simnet::census::{Census, Standing, quantile};
use bitdash::simnet::churn::{Churn, ChurnParams};
use bitdash::simnet::simulation::{Simulation, SimulationParams};

fn params(seed: u64, max_sockets: usize) -> SimulationParams {
    let (config, filter) = (Config::default(), Filter::new(&[], &[]));
    let Params { crawler, recorder, probe, writer } = Params::new(&config, filter, max_sockets);
    let flush_interval = writer.flush_interval;
    SimulationParams { seed, crawler, recorder, probe, flush_interval, splits_bytes: false }
}

fn world(seed: u64) -> Arc<Churn> {
    let params = ChurnParams { seed, days: 1.5, ..ChurnParams::default() };
    Arc::new(Churn::generate(&params.scaled(0.03)))
}

struct Day {
    standings: Vec<Standing>,
    census: Census,
    simulation: Simulation<Churn>,
}

fn a_day(churn: &Arc<Churn>, is_full: bool) -> Day {
    let backoff = Config::default().backoff;
    let load = |recorder: &mut Recorder| {
        if is_full {
            churn.load_all(&backoff, recorder);
        }
    };
    let last_pass = if is_full { churn.last_pass() } else { LastPass::default() };
    let simulation = Simulation::resumed(Arc::clone(churn), params(9, 100), load, last_pass);
    let mut simulation = simulation.with_writer(Duration::from_millis(20), 5_000);
    let mut census = Census::new(churn, is_full);
    let mut standings = Vec::new();
    while simulation.now().mono < Duration::from_secs(86_400) {
        simulation.step();
        let mut batches = simulation.drain_batches();
        let is_end = |event: &Event| matches!(event, Event::PassFinished { .. });
        let has_ended = simulation.drain_events().iter().any(is_end);
        if has_ended {
            batches.extend(simulation.take_batches());
        }
        batches.iter().for_each(|batch| census.read(churn, batch));
        if has_ended {
            standings.push(census.standing(churn, simulation.now().mono.as_secs() as i64));
        }
    }
    Day { standings, census, simulation }
}

#[test]
fn a_living_network_is_known_from_the_first_pass_on() {
    let churn = world(3);
    let day = a_day(&churn, false);
    assert!(day.standings.len() > 40, "{} passes in a day", day.standings.len());
    for (pass, standing) in day.standings.iter().enumerate() {
        assert!(standing.share() > 0.95, "pass {}: {standing:?}", pass + 1);
    }
    let returns = day.census.returns(&churn, 86_400);
    assert!(returns.len() > 30, "{} returns", returns.len());
    assert!(quantile(&returns, 0.95).is_some_and(|seconds| seconds < 2 * 3_600));
    assert_eq!(day.simulation.tally().check(), Ok(()));
    assert_eq!((day.simulation.bans, day.simulation.complaints), (0, 0));
    assert!(day.simulation.strays.is_empty(), "{:?}", day.simulation.strays);
}

#[test]
fn a_full_database_is_gone_on_with_and_nothing_dead_is_probed_at_once() {
    let churn = world(4);
    let day = a_day(&churn, true);
    assert!(day.standings[0].share() > 0.98, "{:?}", day.standings[0]);
    // Of 15,000 dead addresses most have been given up for hours or days.
    let dead = day.simulation.dials - day.simulation.tally().responded;
    let most = 4 * churn.params().dead as u64;
    assert!(dead < most, "{dead} probes for nothing");
    assert_eq!(day.simulation.tally().check(), Ok(()));
}

/// How long after the start 99 % of the honest nodes that were up then are known, if this share of those that send
/// peers invents 1,000 fresh addresses for each reply. In two fifths of the real network: in a tiny one the first 100
/// nodes, until which everybody is believed, are most of the pass.
fn discovery(flood_share: f64) -> i64 {
    let life = ChurnParams { seed: 6, days: 1.5, flood_share, ..ChurnParams::default() };
    let churn = Arc::new(Churn::generate(&life.scaled(0.4)));
    let crawl = params(9, 320);
    let simulation = Simulation::resumed(Arc::clone(&churn), crawl, |_| {}, LastPass::default());
    let mut simulation = simulation.with_writer(Duration::from_millis(20), 5_000);
    let mut census = Census::new(&churn, false);
    let mut has_ended = false;
    while !has_ended {
        simulation.step();
        let is_end = |event: &Event| matches!(event, Event::PassFinished { .. });
        has_ended = simulation.drain_events().iter().any(is_end);
        simulation.drain_batches().iter().for_each(|batch| census.read(&churn, batch));
    }
    simulation.take_batches().iter().for_each(|batch| census.read(&churn, batch));
    assert_eq!(simulation.tally().check(), Ok(()));
    let now = simulation.now().mono.as_secs() as i64;
    quantile(&census.discoveries(&churn, now), 0.99).expect("99 % are found in the first pass")
}

#[test]
fn those_who_invent_addresses_hardly_delay_the_discovery_of_the_honest() {
    let (calm, flooded) = (discovery(0.0), discovery(0.1));
    assert!(flooded * 10 <= calm * 13, "{flooded} s instead of {calm} s");
}

#[test]
fn the_same_seeds_live_the_same_day() {
    let run = || {
        let day = a_day(&world(5), false);
        (day.simulation.trace, day.simulation.dials, day.standings)
    };
    assert_eq!(run(), run());
}
