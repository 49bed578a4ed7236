//! Crawls in which anything fails at any moment, in virtual time: seeded, and checked at every step.
//!
//! `BITDASH_SEED=0x..` replays one seed, with `BITDASH_FAULT=Kind` that kind of fault alone, and `BITDASH_SEEDS=n` tries
//! so many; a failure names its seed and step and says what replays it.

use std::any::Any;
use std::cell::Cell;
use std::collections::{BTreeMap, BTreeSet};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bitdash::commands::crawl::params::Params;
use bitdash::crawl::address::Address;
use bitdash::crawl::batch::{Batch, Seen, Status};
use bitdash::crawl::crawler::Phase;
use bitdash::crawl::filter::Filter;
use bitdash::crawl::outcome::Outcome;
use bitdash::crawl::time::UnixTime;
use bitdash::io::config::Config;
use bitdash::simnet::knowledge::Entry;
use bitdash::simnet::network::{Answer, Home, Network};
use bitdash::simnet::simulation::faults::{Faults, Kind};
use bitdash::simnet::simulation::ledger::Ledger;
use bitdash::simnet::simulation::store::Store;
use bitdash::simnet::simulation::{LineState, Simulation, SimulationParams};
use bitdash::simnet::world::{DeadKind, NodeSpec, World, WorldParams};
use bitdash::watchglass::text;

const HOUR: Duration = Duration::from_secs(3_600);
/// A stopped process is gone after this.
const STOP_BOUND: Duration = Duration::from_secs(8);
/// So many seeds where nobody asks for more.
const SEEDS: u64 = 36;

thread_local! {
    /// Where the run of this thread is, for the message of a failure.
    static STEP: Cell<u64> = const { Cell::new(0) };
}

/// A world whose clock stood at `since` when this process of the crawler began.
#[derive(Debug)]
struct Later {
    world: Arc<World>,
    since: Duration,
}

impl Home for Later {
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

/// One seed's run: processes that come and go over one world and one database.
struct Run {
    rng: fastrand::Rng,
    world: Arc<World>,
    named: Vec<(Address, String)>,
    store: Store,
    simulation: Simulation<Later>,
    /// When the process began.
    since: Duration,
    /// By how many microseconds its calendar is wrong.
    askew: i64,
    line_until: Option<Duration>,
    most_held: usize,
    /// Fewer addresses may be remembered than there are.
    is_forgetful: bool,
    /// Who failed since the faults ended.
    calmly_failed: BTreeSet<Address>,
    steps: u64,
    processes: u64,
    trace: u64,
}

/// What a run leaves.
#[derive(Debug, PartialEq)]
struct End {
    trace: u64,
    steps: u64,
    processes: u64,
    /// Results committed, batches committed, batches committed again.
    figures: (u64, u64, u64),
    store: Store,
}

fn params(seed: u64, config: &Config, only: &str, max_sockets: usize) -> SimulationParams {
    let filter = Filter::new(&[], &[only.parse().unwrap()]);
    let Params { crawler, recorder, probe, writer } = Params::new(config, filter, max_sockets);
    let flush_interval = writer.flush_interval;
    SimulationParams { seed, crawler, recorder, probe, flush_interval, splits_bytes: false }
}

/// How a crawl goes at the end, when nothing fails any more.
fn calm(seed: u64) -> SimulationParams {
    let mut config = Config::default();
    config.crawl.getaddr_interval = HOUR;
    (config.backoff.max, config.backoff.lost_max) = (2 * HOUR, 2 * HOUR);
    params(seed, &config, "127.0.0.0/8", 100)
}

/// Any parameters.
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
        named.push(("127.200.0.1:4".parse().unwrap(), "stranger".to_owned()));
        let is_forgetful = rng.u8(..4) == 0;
        let most_held = [100, 1_000, 100_000][rng.usize(..3)];
        let params = any_params(&mut rng, is_forgetful);
        let network = Later { world: Arc::clone(&world), since: Duration::ZERO };
        let simulation = Simulation::new(Arc::new(network), params)
            .with_named(named.clone())
            .with_most_held(most_held)
            .with_ledger(Ledger::of_forgetful(is_forgetful))
            .with_faults(faults);
        STEP.set(0);
        let (store, since) = (Store::default(), Duration::ZERO);
        Self {
            rng,
            world,
            named,
            store,
            simulation,
            since,
            askew: 0,
            line_until: None,
            most_held,
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

    /// A turn of the loop, and what becomes of it in the database.
    fn step(&mut self) {
        STEP.set(self.steps);
        self.steps += 1;
        self.simulation.step();
        self.commit();
    }

    fn commit(&mut self) {
        for batch in self.simulation.drain_batches() {
            check_true(&self.world, &batch);
            self.store.apply(&batch);
            self.calmly_failed.extend(batch.failed.keys());
        }
    }

    /// The hours in which everything fails.
    fn suffer(&mut self, hours: u32, most_steps: u64) {
        let end = HOUR * hours;
        while self.since + self.simulation.now().mono < end && self.steps < most_steps {
            self.fail();
            self.step();
        }
    }

    /// What may happen to the process between two steps.
    fn fail(&mut self) {
        let now = self.simulation.now().mono;
        if self.line_until.is_some_and(|until| until <= now) {
            self.line_until = None;
            self.simulation.set_line(LineState::Up);
        }
        for (kind, line) in
            [(Kind::LineSilent, LineState::Silent), (Kind::LineDown, LineState::Unreachable)]
        {
            if self.happens(kind) {
                let lasts = self.rng.f64() * self.rng.f64();
                self.line_until = Some(now + (HOUR / 2).mul_f64(lasts));
                self.simulation.set_line(line);
            }
        }
        let hour = self.rng.i64(3_000..4_500);
        if self.happens(Kind::HourJump) {
            let seconds = if self.rng.bool() { hour } else { -hour };
            self.jump(seconds);
        }
        if self.happens(Kind::DecadeJump) {
            let decade = 10 * 365 * 86_400;
            // Back to the truth now and then, or it would drift away for good.
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

    /// SIGTERM: it ends in time, and if it says that nothing is lost nothing is.
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

    /// The process is gone, whatever it did; a new one begins with what the database holds.
    fn restart(&mut self) {
        self.trace = self.trace.rotate_left(7) ^ self.simulation.trace;
        let mut ledger = self.simulation.take_ledger().unwrap();
        let faults = self.simulation.take_faults();
        let pause = Duration::from_secs(60).mul_f64(self.rng.f64());
        self.since += self.simulation.now().mono + pause;
        if self.askew != 0 {
            ledger.calendar_jumped();
        }
        let network = Arc::new(Later { world: Arc::clone(&self.world), since: self.since });
        let params = any_params(&mut self.rng, self.is_forgetful);
        let (tries, last_pass) = (self.rng.usize(..2), self.store.last_pass());
        let (store, rng) = (&self.store, &mut self.rng);
        let load = |recorder: &mut _| store.load(recorder, rng, tries);
        let mut simulation = Simulation::resumed(network, params, load, last_pass)
            .with_named(self.named.clone())
            .with_most_held(self.most_held);
        let begun = i64::from(self.world.wall(Duration::ZERO)) * 1_000_000;
        let wall = begun + self.since.as_micros() as i64 + self.askew;
        simulation.set_wall(UnixTime::from_micros(wall));
        simulation = simulation.with_ledger(ledger);
        self.simulation = match faults {
            Some(faults) => simulation.with_faults(faults),
            None => simulation,
        };
        self.line_until = None;
        self.processes += 1;
    }

    /// Nothing fails any more: passes end, and the map becomes complete and true. Gives the faults that were.
    fn recover(&mut self) -> Option<Faults> {
        let faults = self.simulation.take_faults();
        self.simulation.set_line(LineState::Up);
        if self.rng.bool() {
            self.jump(-self.askew / 1_000_000);
        }
        let seed = self.rng.u64(..);
        self.simulation.reload_all(calm(seed));
        // What was begun before ends with its pass.
        self.pass();
        self.calmly_failed.clear();
        let end = self.simulation.now().mono + 48 * HOUR;
        while let Err(missing) = self.check_map() {
            assert!(self.simulation.now().mono < end, "two calm days, and still {missing}");
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

    /// A pass, to its end.
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

    /// Whether every node stands in the database as it is, and nothing else does; `Err` says what is missing.
    fn check_map(&self) -> Result<(), String> {
        let nodes: BTreeMap<Address, _> =
            self.store.nodes().map(|(address, row, seen)| (address, (row, seen))).collect();
        for node in self.world.nodes() {
            let Some((row, seen)) = nodes.get(&node.address) else {
                let known = self.store.candidate(node.address);
                return Err(format!("{} is missing: {known:?}", node.address));
            };
            if row.status != Status::Up || row.last_outcome != Outcome::Responded {
                return Err(format!("{} is {}", node.address, row.status.as_str()));
            }
            check_seen(node, seen);
        }
        assert_eq!(nodes.len(), self.world.nodes().len(), "rows that are no node");
        for dead in self.world.dead() {
            let probe = self.store.candidate(dead.address).and_then(|known| known.probe);
            let expected = match dead.kind {
                DeadKind::Refusing => Outcome::Refused,
                DeadKind::Silent => Outcome::ConnectTimeout,
            };
            match probe {
                Some((_, outcome)) if outcome == expected => {}
                Some((_, outcome)) => {
                    let is_new = self.calmly_failed.contains(&dead.address);
                    assert!(!is_new, "{} is {outcome}, not {expected}", dead.address);
                    return Err(format!("{} is still {outcome}", dead.address));
                }
                None => {
                    let known = self.store.candidate(dead.address);
                    return Err(format!("{} was never probed: {known:?}", dead.address));
                }
            }
        }
        Ok(())
    }
}

/// Whatever fails: what is written of a node is what it said.
fn check_true(world: &World, batch: &Batch) {
    for (address, row) in &batch.nodes {
        let node = world.find(*address).unwrap_or_else(|| panic!("{address} is no node"));
        if let Some(seen) = &row.seen {
            check_seen(&world.nodes()[node], seen);
        }
    }
}

fn check_seen(node: &NodeSpec, seen: &Seen) {
    let (address, version) = (node.address, &seen.version);
    assert_eq!(version.protocol_version, node.protocol_version, "{address}");
    assert_eq!(version.services, node.services, "{address}");
    let agent = text::from_bytes(&node.user_agent);
    assert_eq!(version.user_agent.as_deref(), Some(agent.as_str()), "{address}");
    assert_eq!(version.start_height, Some(node.start_height), "{address}");
    assert_eq!(version.relay, node.relay, "{address}");
}

/// One run: the seed, and the one kind of fault that happens in it, if it is not as the seed draws.
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
            // The rate is the highest anyway: the draws need not differ.
            Some(kind) => Faults::only(kind, 7),
        }
    }

    /// The command that makes this run again, and no other of its kind.
    fn replay(self) -> String {
        let seed = self.seed;
        let fault = self.alone.map_or_else(String::new, |kind| format!("BITDASH_FAULT={kind:?} "));
        format!("{fault}BITDASH_SEED={seed:#x} cargo test --test simulation_faults")
    }
}

/// A whole run; a failure names its seed and step.
fn run(plan: Plan) -> Result<(End, Option<Faults>), String> {
    let (seed, faults) = (plan.seed, plan.faults());
    let kinds = faults.kinds();
    let whole = || {
        let mut run = Run::new(seed, faults);
        let hours = run.rng.u32(1..8);
        run.suffer(hours, 15_000);
        let faults = run.recover();
        let figures = run.simulation.take_ledger().unwrap().figures();
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

fn number(text: &str) -> u64 {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.unwrap_or_else(|_| panic!("{text} is no number"))
}

/// The variables that choose runs.
fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

/// The mixtures to run: those of some seeds, or the one of the seed that is replayed.
fn mixtures(variable: impl Fn(&str) -> Option<String>) -> Vec<Plan> {
    let chosen = |name| variable(name).map(|text| number(&text));
    match chosen("BITDASH_SEED") {
        Some(_) if variable("BITDASH_FAULT").is_some() => Vec::new(),
        Some(seed) => vec![Plan::mixture(seed)],
        None => (1..=chosen("BITDASH_SEEDS").unwrap_or(SEEDS)).map(Plan::mixture).collect(),
    }
}

/// The runs with one kind of fault alone: one of each kind, or the one that is replayed.
fn lone_faults(variable: impl Fn(&str) -> Option<String>) -> Vec<Plan> {
    let seed = variable("BITDASH_SEED").map(|text| number(&text));
    let fault = variable("BITDASH_FAULT");
    if seed.is_some() && fault.is_none() {
        return Vec::new(); // a mixture is replayed
    }
    let is_chosen = |kind: &Kind| fault.as_ref().is_none_or(|fault| *fault == format!("{kind:?}"));
    let kinds = Kind::ALL.iter().map(|(kind, _)| *kind).filter(is_chosen);
    let plan = |kind| Plan::alone(kind, seed.unwrap_or(kind as u64));
    let plans: Vec<Plan> = kinds.map(plan).collect();
    assert!(!plans.is_empty(), "no such kind of fault: {fault:?}");
    plans
}

/// Runs all of them, on every core, and gives back what they left in their order.
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
                        // They tell enough.
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
fn nothing_is_lost_or_doubled_and_the_map_is_true_in_any_mixture_of_faults() {
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
        // A swarm in which nothing happens proves nothing.
        assert!(happened.values().all(|hits| *hits > 0), "{happened:?}");
        assert!(sum(|end| end.figures.2) > 0, "no batch was written twice");
    }
}

#[test]
fn every_kind_of_fault_alone_does_no_harm() {
    let runs = lone_faults(environment);
    for (plan, (_, faults)) in runs.iter().zip(run_all(&runs)) {
        let hits = faults.counts().find(|(each, _)| Some(*each) == plan.alone).unwrap().1;
        assert!(hits > 0, "{plan:?}: it never happened");
    }
}

#[test]
fn what_a_failure_says_replays_that_run_and_no_other() {
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
fn the_same_seed_gives_the_same_trace_and_another_one_does_not() {
    let end = |seed| run(Plan::mixture(seed)).map(|(end, _)| end);
    let (first, second, other) = (end(3).unwrap(), end(3).unwrap(), end(4).unwrap());
    assert_eq!(first, second);
    assert_ne!(first.trace, other.trace);
}
