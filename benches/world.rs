//! Days of crawling a network of the real size in virtual time:
//! `cargo bench --bench world -- --help`.
//!
//! The crawl's own machines run against a simulated network with churn. The run fails if the counts
//! of both ends of the connections differ, that is, if the probe is bypassed.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitdash::commands::crawl::params::Params;
use bitdash::config::Config;
use bitdash_core::book::rank::RankingParams;
use bitdash_core::lookup::species::Rules;
use bitdash_core::schedule::crawler::Event;
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::rows::LastPass;
use bitdash_simnet::network::churn::attack::Attack;
use bitdash_simnet::network::churn::{Churn, ChurnParams, Times};
use bitdash_simnet::sim::{Simulation, SimulationParams};
use bitdash_simnet::verify::accuracy::{Accuracy, Standing, quantile};
use bitdash_simnet::verify::conservation::Conservation;
use clap::{Args, Parser, ValueEnum};

/// Crawls a simulated network with churn for days of virtual time and prints figures of the crawl
#[derive(Parser, Clone, Debug)]
struct Options {
    /// Maximum number of open sockets
    #[arg(long, default_value_t = 800)]
    sockets: usize,
    /// Maximum number of new connections per second [default: that of the configuration]
    #[arg(long)]
    rate: Option<u32>,
    /// Days to simulate
    #[arg(long, default_value_t = 3.0)]
    days: f64,
    /// Seed of the random numbers
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// Contents of the database at the start
    #[arg(long, value_enum, default_value_t = From::Empty)]
    from: From,
    /// With `--from full`: days of dead addresses, no longer in gossip, in the database
    #[arg(long, default_value_t = 0)]
    history: usize,
    /// Share of the peer-sending nodes that invent 1000 addresses for each reply
    #[arg(long, default_value_t = 0.0)]
    flood: f64,
    /// Additional dead addresses per day
    #[arg(long, default_value_t = 0)]
    flood_per_day: usize,
    /// Simpler gossip: no unreachable nodes, times that say nothing
    #[arg(long)]
    plain: bool,
    /// A fifth of the nodes is in few tables
    #[arg(long)]
    uneven: bool,
    /// The times of entries say nothing
    #[arg(long, conflicts_with = "plain")]
    flat_times: bool,
    /// Share of first packets that are lost
    #[arg(long)]
    syn_loss: Option<f64>,
    #[command(flatten)]
    without: Without,
    #[command(flatten)]
    attack: AttackOptions,
    /// Number of TRB nodes, which send what they saw within three hours
    #[arg(long, default_value_t = 2)]
    trb: usize,
    /// Key and value of the configuration, such as `crawl.pass_interval=10m`
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// Factor for the size of the network
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// Print no line per pass
    #[arg(long)]
    brief: bool,
    /// Cargo passes this to every benchmark
    #[arg(long, hide = true)]
    bench: bool,
}

/// Parts that are switched off, to see what each is worth.
#[derive(Args, Clone, Debug)]
struct Without {
    /// Candidates go in random order
    #[arg(long)]
    no_order: bool,
    /// No candidate goes out of order
    #[arg(long)]
    no_exploration: bool,
    /// The sources that name a candidate are not counted
    #[arg(long)]
    no_votes: bool,
    /// The words of a source count without a limit
    #[arg(long)]
    no_rations: bool,
    /// Candidates are waited for as configured
    #[arg(long)]
    no_patience: bool,
    /// All sockets may await peers
    #[arg(long)]
    no_ask_share: bool,
    /// Every candidate that is due is probed in the pass
    #[arg(long)]
    no_carry: bool,
    /// Nodes are asked again without regard to when they compose a new reply
    #[arg(long)]
    no_caches: bool,
}

/// What attacking nodes do.
#[derive(Args, Clone, Debug)]
struct AttackOptions {
    /// Number of nodes that attack the order of candidates
    #[arg(long, default_value_t = 0)]
    liars: usize,
    /// Number of /16s that they live in
    #[arg(long, default_value_t = 50)]
    liar_groups: usize,
    /// Number of /16s whose liars name the same fakes
    #[arg(long, default_value_t = 50)]
    chorus: usize,
    /// Number of fakes
    #[arg(long, default_value_t = 1_000_000)]
    fakes: usize,
    /// Share of a liar's reply that is true
    #[arg(long, default_value_t = 0.0)]
    mimic: f64,
    /// The true share names honest nodes that are up
    #[arg(long)]
    smear: bool,
    /// Liars name the dead addresses of others as just seen
    #[arg(long, conflicts_with = "plain")]
    refresh: bool,
    /// Liars never answer `getaddr`
    #[arg(long)]
    tarpit: bool,
    /// All liars name the same thousand fakes, every minute another
    #[arg(long)]
    swarm: bool,
    /// Age of the lies in seconds
    #[arg(long, default_value_t = 60)]
    lie_age: u32,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    /// Empty
    Empty,
    /// All addresses
    Full,
}

/// Figures of a pass.
#[derive(Clone, Copy, Debug)]
struct Pass {
    began: Duration,
    took: Duration,
    ideal: Duration,
    standing: Standing,
}

fn main() -> ExitCode {
    let options = Options::parse();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), String> {
    #[allow(clippy::disallowed_methods)] // prints the wall time of the run
    let begun = Instant::now();
    let churn = Arc::new(Churn::generate(&world(options)));
    let config = configuration(options)?;
    let batch_rows = config.database.batch_rows as usize;
    let params = params(options, &config);
    let backoff = params.writer.recorder.book.backoff;
    let world_memory = memory("VmRSS");
    let load = |recorder: &mut bitdash_core::record::writer_machine::WriterMachine| {
        if options.from == From::Full {
            churn.load_all(&backoff, recorder);
        }
    };
    let last_pass = match options.from {
        From::Full => churn.last_pass(),
        From::Empty => LastPass::default(),
    };
    let rate = params.crawler.connects_per_second;
    let simulation = Simulation::resumed(Arc::clone(&churn), params, load, last_pass);
    let mut run = Run {
        simulation: simulation.with_writer(WRITER_DELAY, batch_rows),
        accuracy: Accuracy::new(&churn, options.from == From::Full),
        churn,
        passes: Vec::new(),
        before: Conservation::default(),
        dials_before: 0,
        sockets: options.sockets,
        rate,
        is_brief: options.brief,
    };
    println!("{options:?}");
    run.all(Duration::from_secs_f64(options.days * 86_400.0))?;
    run.print_figures();
    println!(
        "memory: {world_memory} MB for the network alone, {} MB at the end, {} MB peak; wall time {:.0} s",
        memory("VmRSS"),
        memory("VmHWM"),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

struct Run {
    simulation: Simulation<Churn>,
    accuracy: Accuracy,
    churn: Arc<Churn>,
    passes: Vec<Pass>,
    before: Conservation,
    dials_before: u64,
    sockets: usize,
    rate: u32,
    is_brief: bool,
}

impl Run {
    fn all(&mut self, time: Duration) -> Result<(), String> {
        if !self.is_brief {
            println!(
                "{:>5} {:>8} {:>8} {:>8} {:>8} {:>9} {:>9} {:>7} {:>8} {:>6}",
                "pass",
                "begins",
                "minutes",
                "probes",
                "nodes",
                "addresses",
                "up",
                "known",
                "ideal",
                "times"
            );
        }
        while self.simulation.now().mono < time {
            // Events come before the time passes.
            let now = self.simulation.now().mono;
            self.simulation.step();
            for batch in self.simulation.drain_batches() {
                self.accuracy.read(&self.churn, &batch);
            }
            for event in self.simulation.drain_events() {
                if let Event::PassFinished { pass, elapsed } = event {
                    self.pass_finished(pass, elapsed, now)?;
                }
            }
        }
        self.simulation.conservation().check()
    }

    fn pass_finished(&mut self, number: u64, took: Duration, now: Duration) -> Result<(), String> {
        for batch in self.simulation.take_batches() {
            self.accuracy.read(&self.churn, &batch);
        }
        let conservation = *self.simulation.conservation();
        conservation.check()?;
        let standing = self.accuracy.standing(&self.churn, now.as_secs() as i64);
        let probes = self.simulation.dials - self.dials_before;
        let by_sockets = (conservation.busy - self.before.busy) / self.sockets as u32;
        let by_rate = match self.rate {
            0 => Duration::ZERO,
            rate => Duration::from_secs_f64(probes as f64 / f64::from(rate)),
        };
        let ideal = by_sockets.max(by_rate);
        let totals = self.simulation.crawler().totals();
        if !self.is_brief {
            println!(
                "{number:>5} {:>7.1}h {:>8.2} {probes:>8} {:>8} {:>9} {:>9} {:>6.2}% {:>6.2}{} {:>6.2}",
                (now - took).as_secs_f64() / 3_600.0,
                minutes(took),
                totals.nodes,
                totals.nodes + totals.candidates,
                standing.up,
                standing.share() * 100.0,
                minutes(ideal),
                if by_rate > by_sockets { "r" } else { "s" },
                took.as_secs_f64() / ideal.as_secs_f64().max(1e-9),
            );
        }
        self.passes.push(Pass { began: now - took, took, ideal, standing });
        self.before = conservation;
        self.dials_before = self.simulation.dials;
        Ok(())
    }

    fn print_figures(&self) {
        let now = self.simulation.now().mono.as_secs() as i64;
        println!();
        if let Some(first) = self.passes.first() {
            println!(
                "first pass: {:.1} minutes, {:.2} times the ideal (at most 33, 1.1)",
                minutes(first.took),
                first.took.as_secs_f64() / first.ideal.as_secs_f64().max(1e-9)
            );
        }
        self.print_found(now);
        let day = Duration::from_secs(86_400);
        let late: Vec<&Pass> = self.passes.iter().filter(|pass| pass.began >= day).collect();
        let mut took: Vec<Duration> = late.iter().map(|pass| pass.took).collect();
        took.sort_unstable();
        if let (Some(last), Some(middle)) = (took.last(), took.get(took.len() / 2)) {
            let over = took.iter().filter(|took| minutes(**took) > 3.0).count();
            println!(
                "passes after the first day: {}; {:.2} minutes at most, {:.2} in the middle, {over} above 3 (at most 3)",
                took.len(),
                minutes(*last),
                minutes(*middle)
            );
        }
        let shares = self.passes.iter().skip(1).map(|pass| pass.standing.share());
        println!(
            "nodes up known as up at the ends of passes: {:.2} % after the first, {:.2} % at least later (at least 99)",
            self.passes.first().map_or(0.0, |pass| pass.standing.share() * 100.0),
            shares.fold(1.0_f64, f64::min) * 100.0
        );
        let returns = self.accuracy.returns(&self.churn, now);
        println!(
            "a node that comes back ({} times) is seen after {} (half), {} (99 %; at most 2 h)",
            returns.len(),
            hours(quantile(&returns, 0.5)),
            hours(quantile(&returns, 0.99))
        );
        let births = self.accuracy.births(&self.churn, now);
        println!(
            "a brand-new node ({} of them) is seen after {} (half; at most 8 h), {} (99 %; at most 24 h)",
            births.len(),
            hours(quantile(&births, 0.5)),
            hours(quantile(&births, 0.99))
        );
        self.print_totals();
    }

    fn print_found(&self, now: i64) {
        let found = self.accuracy.discoveries(&self.churn, now);
        let minutes = |share: f64| match quantile(&found, share) {
            Some(seconds) => format!("{:.2}", seconds as f64 / 60.0),
            None => "-".to_owned(),
        };
        println!(
            "honest nodes up at the start, found after minutes: {} (half), {} (90 %), {} (98 %), {} (99 %), {} (99.5 %)",
            minutes(0.5),
            minutes(0.9),
            minutes(0.98),
            minutes(0.99),
            minutes(0.995)
        );
    }

    fn print_totals(&self) {
        let conservation = self.simulation.conservation();
        println!(
            "sockets or rate exhausted while something waits: {:.2} % of {} turns, {:.2} % of the time (at least 98)",
            conservation.used_turns as f64 / conservation.turns.max(1) as f64 * 100.0,
            conservation.turns,
            conservation.used.as_secs_f64() / conservation.queued.as_secs_f64().max(1e-9) * 100.0
        );
        println!(
            "through the probes: {} results, {} responses, {} replies asked for, {} entries, {} MB in, {} MB out; \
             {} bans, {} faults, {} strangers dialled, {} addresses invented",
            conservation.results,
            conservation.responded,
            conservation.asked,
            conservation.entries_received,
            conservation.bytes_in / 1_000_000,
            conservation.bytes_out / 1_000_000,
            self.simulation.bans,
            self.simulation.protocol_faults,
            self.simulation.strays.len(),
            self.churn.invented()
        );
    }
}

fn world(options: &Options) -> ChurnParams {
    let base = if options.plain { ChurnParams::default() } else { ChurnParams::real() };
    let attack = &options.attack;
    let mut params = ChurnParams {
        seed: options.seed,
        // Longer than the crawl, so that it does not reach the end of what was drawn.
        days: options.days + 0.5,
        history_days: options.history,
        flood_share: options.flood,
        trb: options.trb,
        has_uneven_reach: options.uneven,
        syn_loss: options.syn_loss.unwrap_or(base.syn_loss),
        times: if options.flat_times { Times::Flat } else { base.times },
        attack: Attack {
            liars: attack.liars,
            groups: attack.liar_groups,
            fakes: attack.fakes,
            chorus: attack.chorus,
            true_share: attack.mimic,
            smears: attack.smear,
            refreshes: attack.refresh,
            tarpits: attack.tarpit,
            swarms: attack.swarm,
            age: attack.lie_age,
        },
        ..base
    }
    .scaled(options.scale);
    params.dead += options.flood_per_day * 2;
    params.dead_per_day += options.flood_per_day;
    params
}

/// The default configuration with the options' settings.
fn configuration(options: &Options) -> Result<Config, String> {
    let line = |setting: &String| {
        let (key, value) = setting.split_once('=').unwrap_or((setting, ""));
        match value.parse::<f64>() {
            Ok(_) => format!("{key} = {value}\n"),
            Err(_) => format!("{key} = \"{value}\"\n"),
        }
    };
    let text: String = options.settings.iter().map(line).collect();
    Config::parse(&text, "--set", Path::new(".")).map_err(|error| error.to_string())
}

fn params(options: &Options, config: &Config) -> SimulationParams {
    let filter = Filter::new(&[], &[]);
    let Params { mut crawler, probe, mut writer } =
        Params::new(config, filter, Rules::builtin(), options.sockets);
    let without = &options.without;
    crawler.connects_per_second = options.rate.unwrap_or(crawler.connects_per_second);
    if without.no_ask_share {
        crawler.ask_share = 0;
    }
    crawler.learns_patience = !without.no_patience;
    writer.recorder.book.ranking = RankingParams {
        has_order: !without.no_order,
        explores: !without.no_exploration,
        counts_votes: !without.no_votes,
        rations_votes: !without.no_rations,
        follows_caches: !without.no_caches,
        carries_over: !without.no_carry,
    };
    let seed = options.seed;
    SimulationParams { seed, crawler, writer, probe, splits_bytes: false }
}

fn minutes(time: Duration) -> f64 {
    time.as_secs_f64() / 60.0
}

fn hours(seconds: Option<i64>) -> String {
    match seconds {
        Some(seconds) if seconds < 7_200 => format!("{:.1} min", seconds as f64 / 60.0),
        Some(seconds) => format!("{:.1} h", seconds as f64 / 3_600.0),
        None => "never in this run".to_owned(),
    }
}

/// A figure of this process's memory, in MB.
fn memory(key: &str) -> u64 {
    let status = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let line = status.lines().find(|line| line.starts_with(key)).unwrap_or_default();
    let digits: String = line.chars().filter(char::is_ascii_digit).collect();
    digits.parse::<u64>().unwrap_or(0) / 1_000
}

/// Delay of the writer's answers.
const WRITER_DELAY: Duration = Duration::from_millis(20);
