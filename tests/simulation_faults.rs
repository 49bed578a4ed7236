//! Crawls with faults at any moment, in virtual time: seeded, and checked at every step.
//!
//! `BITDASH_SEED=0x..` replays one seed, with `BITDASH_FAULT=Kind` that kind of fault alone;
//! `BITDASH_SEEDS=n` runs n seeds. A failure names its seed and step and the command to replay it.

mod support;

use std::any::Any;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bitdash::config::Config;
use bitdash_core::schedule::crawler::Phase;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::time::UnixTime;
use bitdash_simnet::network::gossip::Entry;
use bitdash_simnet::network::world::{NodeSpec, World, WorldParams};
use bitdash_simnet::network::{Answer, Network, PeerDirectory};
use bitdash_simnet::sim::faults::{Faults, Kind};
use bitdash_simnet::sim::shadow_model::ShadowModel;
use bitdash_simnet::sim::store::Store;
use bitdash_simnet::sim::{Simulation, SimulationParams, UplinkState};
use bitdash_simnet::verify::compare;
use bitdash_simnet::verify::map::Map;
use bitdash_simnet::verify::truth::{self, Row};
use support::simulation::{number, params};

const HOUR: Duration = Duration::from_secs(3_600);
/// Maximum time for a stop.
const STOP_BOUND: Duration = Duration::from_secs(8);
/// A named address that is silent and not in the world.
const STRANGER: &str = "127.200.0.1:4";
/// Default number of seeds.
const SEEDS: u64 = 36;

thread_local! {
    /// Step of this thread's run, for the message of a failure.
    static STEP: Cell<u64> = const { Cell::new(0) };
}

/// A world whose clock was at `since` when this process of the crawler started.
#[derive(Debug)]
struct Later {
    world: Arc<World>,
    since: Duration,
}

impl PeerDirectory for Later {
    fn spec(&self, node: usize) -> &NodeSpec {
        self.world.spec(node)
    }

    fn wall(&self, now: Duration) -> u32 {
        self.world.wall(self.since + now)
    }

    fn time_scale(&self) -> f64 {
        self.world.time_scale()
    }

    fn latency(&self) -> f64 {
        self.world.latency()
    }

    fn reply(&self, node: usize, round: u64, wall: u32) -> Vec<Entry> {
        self.world.reply(node, round, wall)
    }
}

impl Network for Later {
    fn dial(&self, address: Address, now: Duration, rng: &mut fastrand::Rng) -> Answer {
        self.world.dial(address, self.since + now, rng)
    }

    fn place(&self, address: Address) -> Option<usize> {
        self.world.place(address)
    }

    fn seed_addresses(&self) -> Vec<Address> {
        self.world.seed_addresses()
    }
}

/// One seed's run: successive processes with one world and one database.
struct Run {
    rng: fastrand::Rng,
    world: Arc<World>,
    truth: Vec<Row>,
    named: Vec<(Address, String)>,
    store: Store,
    simulation: Simulation<Later>,
    /// When the process started.
    since: Duration,
    /// Error of its wall clock in microseconds.
    askew: i64,
    uplink_until: Option<Duration>,
    max_pending_rows: usize,
    /// Whether the crawl remembers fewer addresses than there are.
    is_forgetful: bool,
    /// Addresses that failed since the faults ended.
    calmly_failed: BTreeSet<Address>,
    steps: u64,
    processes: u64,
    trace: u64,
}

/// The result of a run.
#[derive(Debug, PartialEq)]
struct End {
    trace: u64,
    steps: u64,
    processes: u64,
    /// Number of committed results, committed batches, and batches committed again.
    figures: (u64, u64, u64),
    store: Store,
}

/// Parameters for the end of a run, without faults.
fn calm(seed: u64) -> SimulationParams {
    let mut config = Config::default();
    config.crawl.getaddr_interval = HOUR;
    (config.backoff.max, config.backoff.lost_max) = (2 * HOUR, 2 * HOUR);
    params(seed, &config, "127.0.0.0/8", 100)
}

/// Random parameters.
fn any_params(rng: &mut fastrand::Rng, is_forgetful: bool) -> SimulationParams {
    let mut config = Config::default();
    let mut pick = |choices: &[u64]| choices[rng.usize(..choices.len())];
    let secs = Duration::from_secs;
    config.crawl.getaddr_interval = secs(pick(&[0, 600, 3_600, 7_200]));
    config.crawl.pass_interval = secs(pick(&[60, 600, 1_800, 3_600]));
    config.crawl.connects_per_second = pick(&[0, 1, 7, 50, 400]) as u32;
    config.crawl.max_addresses = pick(if is_forgetful { &[20, 100] } else { &[1_000_000] }) as u32;
    config.crawl.handshake_timeout = secs(pick(&[1, 10, 30]));
    config.crawl.connect_timeout = secs(pick(&[1, 5, 10]));
    config.crawl.addr_timeout = secs(pick(&[5, 75]));
    config.crawl.spam_share = pick(&[0, 30, 90]) as f64 / 100.0;
    config.database.flush_interval = secs(pick(&[1, 10, 60]));
    (config.backoff.max, config.backoff.lost_max) = (2 * HOUR, 2 * HOUR);
    let max_sockets = pick(&[1, 2, 5, 20, 100, 800, 2_000]) as usize;
    let only = ["127.0.0.0/8", "127.0.0.0/8", "127.0.0.0/8", "127.0.0.0/9"];
    let only = only[pick(&[0, 1, 2, 3]) as usize];
    params(rng.u64(..), &config, only, max_sockets)
}

impl Run {
    fn new(seed: u64, faults: Faults) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed ^ 0x0066_6175_6c74);
        let (nodes, silent) = (rng.usize(30..150), rng.usize(0..120));
        let refusing = rng.usize(0..40);
        let world =
            WorldParams { seed, nodes, silent, refusing, seeds: 8, ..WorldParams::default() };
        let world = Arc::new(World::generate(&world).unwrap());
        let mut named: Vec<(Address, String)> = Vec::new();
        for (number, node) in world.nodes().iter().take(3).enumerate() {
            named.push((node.address, format!("named-{number}")));
        }
        named.extend(world.dead().first().map(|dead| (dead.address, "gone".to_owned())));
        named.push((STRANGER.parse().unwrap(), "stranger".to_owned()));
        let is_forgetful = rng.u8(..4) == 0;
        let max_pending_rows = [100, 1_000, 100_000][rng.usize(..3)];
        let params = any_params(&mut rng, is_forgetful);
        let network = Later { world: Arc::clone(&world), since: Duration::ZERO };
        let simulation = Simulation::new(Arc::new(network), params)
            .with_named(named.clone())
            .with_max_pending_rows(max_pending_rows)
            .with_shadow_model(ShadowModel::new(is_forgetful))
            .with_faults(faults);
        STEP.set(0);
        let (store, since) = (Store::default(), Duration::ZERO);
        Self {
            rng,
            truth: truth_of(&world),
            world,
            named,
            store,
            simulation,
            since,
            askew: 0,
            uplink_until: None,
            max_pending_rows,
            is_forgetful,
            calmly_failed: BTreeSet::new(),
            steps: 0,
            processes: 1,
            trace: 0,
        }
    }

    fn happens(&mut self, kind: Kind) -> bool {
        self.simulation.faults().is_some_and(|faults| faults.hits(kind))
    }

    /// Runs a turn of the event loop and applies its batches.
    fn step(&mut self) {
        STEP.set(self.steps);
        self.steps += 1;
        self.simulation.step();
        self.commit();
    }

    fn commit(&mut self) {
        for batch in self.simulation.drain_batches() {
            // Whatever fails, a node is written with the fields that it sent.
            for difference in compare(&self.truth, &Map::of_batches([&batch])).differences {
                assert!(!difference.problem.is_contradiction(), "{difference}");
            }
            self.store.apply(&batch);
            self.calmly_failed.extend(batch.failed.keys());
        }
    }

    /// Runs with faults.
    fn run_with_faults(&mut self, hours: u32, most_steps: u64) {
        let end = HOUR * hours;
        while self.since + self.simulation.now().mono < end && self.steps < most_steps {
            self.fail();
            self.step();
        }
    }

    /// Faults of the process between two steps.
    fn fail(&mut self) {
        let now = self.simulation.now().mono;
        if self.uplink_until.is_some_and(|until| until <= now) {
            self.uplink_until = None;
            self.simulation.set_uplink(UplinkState::Up);
        }
        for (kind, line) in [
            (Kind::UplinkSilent, UplinkState::Silent),
            (Kind::UplinkDown, UplinkState::Unreachable),
        ] {
            if self.happens(kind) {
                let lasts = self.rng.f64() * self.rng.f64();
                self.uplink_until = Some(now + (HOUR / 2).mul_f64(lasts));
                self.simulation.set_uplink(line);
            }
        }
        let hour = self.rng.i64(3_000..4_500);
        if self.happens(Kind::HourJump) {
            let seconds = if self.rng.bool() { hour } else { -hour };
            self.jump(seconds);
        }
        if self.happens(Kind::DecadeJump) {
            let decade = 10 * 365 * 86_400;
            // Set it right from time to time, or it would drift away.
            match self.rng.u8(..3) {
                0 => self.jump(decade),
                1 => self.jump(-decade),
                _ => self.jump(-self.askew / 1_000_000),
            }
        }
        if self.happens(Kind::Reload) {
            let params = any_params(&mut self.rng, self.is_forgetful);
            self.simulation.reload_all(params);
        }
        if self.happens(Kind::Crash) {
            self.restart();
        } else if self.happens(Kind::Stop) {
            self.stop();
            self.restart();
        }
    }

    fn jump(&mut self, seconds: i64) {
        self.askew += seconds * 1_000_000;
        self.simulation.jump_wall(seconds);
    }

    /// SIGTERM: it stops in time, and if it reports that nothing was lost, nothing is left.
    fn stop(&mut self) {
        let bound = self.simulation.now().mono + STOP_BOUND;
        self.simulation.stop();
        while !self.simulation.crawler().is_over() && self.simulation.now().mono < bound {
            self.step();
        }
        if *self.simulation.crawler().phase() == (Phase::Stopped { lost: 0 }) {
            self.simulation.check_empty();
        }
    }

    /// Replaces the process with a new one that loads the database.
    fn restart(&mut self) {
        self.trace = self.trace.rotate_left(7) ^ self.simulation.trace;
        let mut shadow = self.simulation.take_shadow_model().unwrap();
        let faults = self.simulation.take_faults();
        let pause = Duration::from_secs(60).mul_f64(self.rng.f64());
        self.since += self.simulation.now().mono + pause;
        if self.askew != 0 {
            shadow.wall_clock_jumped();
        }
        let network = Arc::new(Later { world: Arc::clone(&self.world), since: self.since });
        let params = any_params(&mut self.rng, self.is_forgetful);
        let (tries, last_pass) = (self.rng.usize(..2), self.store.last_pass());
        let (store, rng) = (&self.store, &mut self.rng);
        let load = |recorder: &mut _| store.load(recorder, rng, tries);
        let mut simulation = Simulation::resumed(network, params, load, last_pass)
            .with_named(self.named.clone())
            .with_max_pending_rows(self.max_pending_rows);
        let begun = i64::from(self.world.wall(Duration::ZERO)) * 1_000_000;
        let wall = begun + self.since.as_micros() as i64 + self.askew;
        simulation.set_wall(UnixTime::from_micros(wall));
        simulation = simulation.with_shadow_model(shadow);
        self.simulation = match faults {
            Some(faults) => simulation.with_faults(faults),
            None => simulation,
        };
        self.uplink_until = None;
        self.processes += 1;
    }

    /// Removes and returns the faults, and runs until the map is complete.
    fn recover(&mut self) -> Option<Faults> {
        let faults = self.simulation.take_faults();
        self.simulation.set_uplink(UplinkState::Up);
        if self.rng.bool() {
            self.jump(-self.askew / 1_000_000);
        }
        let seed = self.rng.u64(..);
        self.simulation.reload_all(calm(seed));
        // Probes that started before end with their pass.
        self.pass();
        self.calmly_failed.clear();
        let end = self.simulation.now().mono + 48 * HOUR;
        while let Err(missing) = self.check_map() {
            assert!(
                self.simulation.now().mono < end,
                "two days without faults, and still: {missing}"
            );
            self.pass();
        }
        self.pass();
        self.stop();
        let phase = self.simulation.crawler().phase().clone();
        assert_eq!(phase, Phase::Stopped { lost: 0 }, "a stop without faults");
        self.check_map().unwrap();
        for (pass, row) in self.store.passes() {
            assert!(row.finished_at.is_some(), "pass {pass} never ended");
        }
        faults
    }

    /// Runs a pass to its end.
    fn pass(&mut self) {
        let newest = |store: &Store| store.last_pass();
        let before = newest(&self.store);
        let end = self.simulation.now().mono + 6 * HOUR;
        let is_over = |store: &Store| {
            let last = newest(store);
            last.row.finished_at.is_some() && (last != before)
        };
        while !is_over(&self.store) {
            assert!(self.simulation.now().mono < end, "a pass without faults takes six hours");
            self.step();
        }
    }

    /// Whether the map is complete; `Err` is what is missing yet.
    fn check_map(&self) -> Result<(), String> {
        let comparison = compare(&self.truth, &self.store.map());
        for difference in &comparison.differences {
            let address = difference.address;
            let is_dead = self.world.find(address).is_none();
            let is_new = is_dead && self.calmly_failed.contains(&address);
            assert!(!difference.problem.is_contradiction() && !is_new, "{difference}");
        }
        let is_complete = comparison.differences.is_empty() && comparison.unprobed == 0;
        if is_complete { Ok(()) } else { Err(comparison.to_string()) }
    }
}

/// What must be recorded of the world and of the named address that is not in it.
fn truth_of(world: &World) -> Vec<Row> {
    let mut truth = truth::of_world(world);
    truth.push(Row {
        address: STRANGER.parse().unwrap(),
        kind: truth::Kind::Dead,
        label: "stranger".to_owned(),
        outcome: Outcome::ConnectTimeout,
        fields: None,
        peers: 0,
        max_recorded: 1,
        statement: String::new(),
    });
    truth
}

/// A run: its seed, and the only kind of fault in it, unless the seed draws them.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Plan {
    seed: u64,
    alone: Option<Kind>,
}

impl Plan {
    fn mixture(seed: u64) -> Self {
        Self { seed, alone: None }
    }

    fn alone(kind: Kind, seed: u64) -> Self {
        Self { seed, alone: Some(kind) }
    }

    fn faults(self) -> Faults {
        match self.alone {
            None => Faults::draw(self.seed),
            // The rate is always the maximum, so the draws need not differ.
            Some(kind) => Faults::only(kind, 7),
        }
    }

    /// The command that replays this run alone.
    fn replay(self) -> String {
        let seed = self.seed;
        let fault = self.alone.map_or_else(String::new, |kind| format!("BITDASH_FAULT={kind:?} "));
        format!("{fault}BITDASH_SEED={seed:#x} cargo test --test simulation_faults")
    }
}

/// Runs a plan; the error names seed and step.
fn run(plan: Plan) -> Result<(End, Option<Faults>), String> {
    let (seed, faults) = (plan.seed, plan.faults());
    let kinds = faults.kinds();
    let whole = || {
        let mut run = Run::new(seed, faults);
        let hours = run.rng.u32(1..8);
        run.run_with_faults(hours, 15_000);
        let faults = run.recover();
        let figures = run.simulation.take_shadow_model().unwrap().figures();
        let (steps, processes) = (run.steps, run.processes);
        let trace = run.trace.rotate_left(7) ^ run.simulation.trace;
        (End { trace, steps, processes, figures, store: run.store }, faults)
    };
    catch_unwind(AssertUnwindSafe(whole)).map_err(|panic| {
        let (step, why) = (STEP.get(), message(&*panic));
        let replay = plan.replay();
        format!("seed {seed:#x}, step {step}: {why}\n  with {kinds:?}\n  replay: {replay}")
    })
}

fn message(panic: &(dyn Any + Send)) -> String {
    let text = panic.downcast_ref::<String>().cloned();
    text.or_else(|| panic.downcast_ref::<&str>().map(|text| (*text).to_owned())).unwrap_or_default()
}

/// Variables that select runs.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The mixtures of faults to run: those of all seeds, or the replayed one.
fn mixtures(variable: impl Fn(&str) -> Option<String>) -> Vec<Plan> {
    let chosen = |name| variable(name).map(|text| number(&text));
    match chosen("BITDASH_SEED") {
        Some(_) if variable("BITDASH_FAULT").is_some() => Vec::new(),
        Some(seed) => vec![Plan::mixture(seed)],
        None => (1..=chosen("BITDASH_SEEDS").unwrap_or(SEEDS)).map(Plan::mixture).collect(),
    }
}

/// The runs with one kind of fault: one of each kind, or the replayed one.
fn lone_faults(variable: impl Fn(&str) -> Option<String>) -> Vec<Plan> {
    let seed = variable("BITDASH_SEED").map(|text| number(&text));
    let fault = variable("BITDASH_FAULT");
    if seed.is_some() && fault.is_none() {
        return Vec::new(); // a mixture is replayed
    }
    let is_chosen = |kind: &Kind| fault.as_ref().is_none_or(|fault| *fault == format!("{kind:?}"));
    let kinds = Kind::ALL.iter().map(|(kind, _)| *kind).filter(is_chosen);
    let plan = |kind| Plan::alone(kind, seed.unwrap_or(kind as u64 + 200));
    let plans: Vec<Plan> = kinds.map(plan).collect();
    assert!(!plans.is_empty(), "no such kind of fault: {fault:?}");
    plans
}

/// Runs all plans on all cores and returns their results in order.
fn run_all(runs: &[Plan]) -> Vec<(End, Faults)> {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let (next, ends) = (AtomicU64::new(0), Mutex::new(BTreeMap::new()));
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let mut failures = 0;
                loop {
                    let at = next.fetch_add(1, Ordering::Relaxed) as usize;
                    let Some(plan) = runs.get(at) else { return };
                    let end = run(*plan);
                    let is_bad = end.is_err();
                    ends.lock().unwrap().insert(at, end);
                    failures += u64::from(is_bad);
                    if failures > 3 {
                        // These are enough to report.
                        next.fetch_add(runs.len() as u64, Ordering::Relaxed);
                    }
                }
            });
        }
    });
    let ends = ends.into_inner().unwrap();
    let failures: Vec<&String> = ends.values().filter_map(|end| end.as_ref().err()).collect();
    assert!(failures.is_empty(), "{failures:#?}");
    ends.into_values()
        .filter_map(|end| end.ok().map(|(end, faults)| (end, faults.unwrap())))
        .collect()
}

#[test]
fn the_map_becomes_complete_after_any_mixture_of_faults() {
    let runs = mixtures(environment);
    let is_swarm = runs.len() as u64 >= SEEDS;
    let ends = run_all(&runs);
    let mut happened: BTreeMap<String, u64> = BTreeMap::new();
    for (kind, hits) in ends.iter().flat_map(|(_, faults)| faults.counts()) {
        *happened.entry(format!("{kind:?}")).or_default() += hits;
    }
    let sum = |part: fn(&End) -> u64| ends.iter().map(|(end, _)| part(end)).sum::<u64>();
    println!(
        "{} seeds: {} steps, {} processes, {} results, {} batches, {} of them written again\n{happened:?}",
        ends.len(),
        sum(|end| end.steps),
        sum(|end| end.processes),
        sum(|end| end.figures.0),
        sum(|end| end.figures.1),
        sum(|end| end.figures.2),
    );
    if is_swarm {
        // Every kind must have occurred.
        assert!(happened.values().all(|hits| *hits > 0), "{happened:?}");
        assert!(sum(|end| end.figures.2) > 0, "no batch was written twice");
    }
}

#[test]
fn the_map_becomes_complete_after_each_kind_of_fault() {
    let runs = lone_faults(environment);
    for (plan, (_, faults)) in runs.iter().zip(run_all(&runs)) {
        let hits = faults.counts().find(|(each, _)| Some(*each) == plan.alone).unwrap().1;
        assert!(hits > 0, "{plan:?}: it never happened");
    }
}

#[test]
fn the_command_in_a_failure_replays_that_run_alone() {
    let lone = lone_faults(|_| None);
    assert_eq!(lone.len(), Kind::ALL.len());
    for plan in [mixtures(|_| None), lone].concat() {
        let line = plan.replay();
        let variable = |name: &str| {
            let pairs = line.split(' ').filter_map(|word| word.split_once('='));
            pairs.into_iter().find(|(key, _)| *key == name).map(|(_, value)| value.to_owned())
        };
        let replayed = [mixtures(variable), lone_faults(variable)].concat();
        assert_eq!(replayed, [plan], "{line}");
    }
}

#[test]
fn equal_seeds_give_equal_traces() {
    let end = |seed| run(Plan::mixture(seed)).map(|(end, _)| end);
    let (first, second, other) = (end(3).unwrap(), end(3).unwrap(), end(4).unwrap());
    assert_eq!(first, second);
    assert_ne!(first.trace, other.trace);
}
