//! Days of crawling a network of the real one's size, in virtual time: `cargo bench --bench world -- --help`.
//!
//! The very machines of the crawl run against a living simulated network; the run fails if the two ends' accounts
//! of what was said differ, that is, if the probe is bypassed.

use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bitdash::commands::crawl::params::Params;
use bitdash::crawl::batch::LastPass;
use bitdash::crawl::crawler::Event;
use bitdash::crawl::filter::Filter;
use bitdash::io::config::Config;
use bitdash::simnet::census::{Census, Delay, Standing, quantile};
use bitdash::simnet::churn::{Churn, ChurnParams};
use bitdash::simnet::simulation::{Simulation, SimulationParams};
use bitdash::simnet::tally::Tally;
use clap::{Parser, ValueEnum};

/// Crawls a living simulated network for some days of virtual time and prints how well that went.
#[derive(Parser, Clone, Debug)]
struct Options {
    /// Sockets open at once.
    #[arg(long, default_value_t = 800)]
    sockets: usize,
    /// The most connections begun in a second; default: that of the configuration.
    #[arg(long)]
    rate: Option<u32>,
    /// Days to simulate.
    #[arg(long, default_value_t = 3.0)]
    days: f64,
    /// The seed of everything.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// What the database knows at the start.
    #[arg(long, value_enum, default_value_t = From::Empty)]
    from: From,
    /// With `--from full`: days of dead addresses, no longer in gossip, that the database still holds.
    #[arg(long, default_value_t = 0)]
    history: usize,
    /// The share of the nodes that send peers that invents 1000 fresh addresses for each reply.
    #[arg(long, default_value_t = 0.0)]
    flood: f64,
    /// So many more dead addresses come into gossip each day.
    #[arg(long, default_value_t = 0)]
    flood_per_day: usize,
    /// How many of the nodes are TRB: they tell what they saw within three hours.
    #[arg(long, default_value_t = 2)]
    trb: usize,
    /// A key of the configuration with its value, such as `crawl.pass_interval=10m`.
    #[arg(long = "set", value_name = "KEY=VALUE")]
    settings: Vec<String>,
    /// A network so many times as large.
    #[arg(long, default_value_t = 1.0)]
    scale: f64,
    /// No line for each pass.
    #[arg(long)]
    brief: bool,
    /// cargo says so to every benchmark.
    #[arg(long, hide = true)]
    bench: bool,
}

#[derive(ValueEnum, Clone, Copy, PartialEq, Eq, Debug)]
enum From {
    /// Nothing but the seeds.
    Empty,
    /// Everything.
    Full,
}

/// What a pass took.
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
    #[allow(clippy::disallowed_methods)] // How long the run takes for the person who waits.
    let begun = Instant::now();
    let churn = Arc::new(Churn::generate(&world(options)));
    let config = configuration(options)?;
    let batch_rows = config.database.batch_rows as usize;
    let params = params(options, &config);
    let backoff = params.recorder.book.backoff;
    let world_memory = memory("VmRSS");
    let load = |recorder: &mut bitdash::crawl::recorder::Recorder| {
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
        census: Census::new(&churn, options.from == From::Full),
        churn,
        passes: Vec::new(),
        before: Tally::default(),
        dials_before: 0,
        sockets: options.sockets,
        rate,
        is_brief: options.brief,
        discovered: None,
    };
    println!("{options:?}");
    run.all(Duration::from_secs_f64(options.days * 86_400.0))?;
    run.print_figures();
    println!(
        "memory: {world_memory} MB for the network alone, {} MB at the end, {} MB at the most; wall time {:.0} s",
        memory("VmRSS"),
        memory("VmHWM"),
        begun.elapsed().as_secs_f64()
    );
    Ok(())
}

struct Run {
    simulation: Simulation<Churn>,
    census: Census,
    churn: Arc<Churn>,
    passes: Vec<Pass>,
    before: Tally,
    dials_before: u64,
    sockets: usize,
    rate: u32,
    is_brief: bool,
    /// The first pass's discoveries.
    discovered: Option<Vec<Delay>>,
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
            self.simulation.step();
            for batch in self.simulation.drain_batches() {
                self.census.read(&self.churn, &batch);
            }
            for event in self.simulation.drain_events() {
                if let Event::PassFinished { pass, elapsed } = event {
                    self.pass_finished(pass, elapsed)?;
                }
            }
        }
        self.simulation.tally().check()
    }

    fn pass_finished(&mut self, number: u64, took: Duration) -> Result<(), String> {
        for batch in self.simulation.take_batches() {
            self.census.read(&self.churn, &batch);
        }
        let tally = *self.simulation.tally();
        tally.check()?;
        let now = self.simulation.now().mono;
        let standing = self.census.standing(&self.churn, now.as_secs() as i64);
        let probes = self.simulation.dials - self.dials_before;
        let by_sockets = (tally.busy - self.before.busy) / self.sockets as u32;
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
        if self.discovered.is_none() {
            self.discovered = Some(self.census.discoveries(&self.churn, now.as_secs() as i64));
        }
        self.passes.push(Pass { began: now - took, took, ideal, standing });
        self.before = tally;
        self.dials_before = self.simulation.dials;
        Ok(())
    }

    fn print_figures(&self) {
        let now = self.simulation.now().mono.as_secs() as i64;
        let tally = self.simulation.tally();
        println!();
        if let Some(first) = self.passes.first() {
            println!(
                "first pass: {:.1} minutes, {:.2} times the ideal (at most 33, 1.1)",
                minutes(first.took),
                first.took.as_secs_f64() / first.ideal.as_secs_f64().max(1e-9)
            );
        }
        let found = self.discovered.as_deref().unwrap_or_default();
        println!(
            "honest nodes up at the start, seen after: {} (half), {} (90 %), {} (99 %)",
            hours(quantile(found, 0.5)),
            hours(quantile(found, 0.9)),
            hours(quantile(found, 0.99))
        );
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
        let returns = self.census.returns(&self.churn, now);
        println!(
            "a node that comes back ({} times) is seen after {} (half), {} (99 %; at most 2 h)",
            returns.len(),
            hours(quantile(&returns, 0.5)),
            hours(quantile(&returns, 0.99))
        );
        let births = self.census.births(&self.churn, now);
        println!(
            "a brand-new node ({} of them) is seen after {} (half; at most 8 h), {} (99 %; at most 24 h)",
            births.len(),
            hours(quantile(&births, 0.5)),
            hours(quantile(&births, 0.99))
        );
        println!(
            "sockets or rate exhausted while something waits: {:.2} % of {} turns, {:.2} % of the time (at least 98)",
            tally.used_turns as f64 / tally.turns.max(1) as f64 * 100.0,
            tally.turns,
            tally.used.as_secs_f64() / tally.queued.as_secs_f64().max(1e-9) * 100.0
        );
        println!(
            "through the probes: {} results, {} responses, {} replies asked for, {} entries, {} MB in, {} MB out; \
             {} bans, {} faults, {} strangers dialled, {} addresses invented",
            tally.results,
            tally.responded,
            tally.asked,
            tally.entries_heard,
            tally.bytes_in / 1_000_000,
            tally.bytes_out / 1_000_000,
            self.simulation.bans,
            self.simulation.complaints,
            self.simulation.strays.len(),
            self.churn.invented()
        );
    }
}

fn world(options: &Options) -> ChurnParams {
    let mut params = ChurnParams {
        seed: options.seed,
        // A little longer, so that the end of what was drawn is not met.
        days: options.days + 0.5,
        history_days: options.history,
        flood_share: options.flood,
        trb: options.trb,
        ..ChurnParams::default()
    }
    .scaled(options.scale);
    params.dead += options.flood_per_day * 2;
    params.dead_per_day += options.flood_per_day;
    params
}

/// The default configuration, but for what the options say.
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
    let Params { mut crawler, recorder, probe, writer } =
        Params::new(config, filter, options.sockets);
    crawler.connects_per_second = options.rate.unwrap_or(crawler.connects_per_second);
    let (seed, flush_interval) = (options.seed, writer.flush_interval);
    SimulationParams { seed, crawler, recorder, probe, flush_interval, splits_bytes: false }
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

/// The writer's answers are so long on their way.
const WRITER_DELAY: Duration = Duration::from_millis(20);
