//! `bitdash crawl`: the event loop that joins driver, crawler and writer.
//!
//! Shell: it decides nothing. Each turn it polls, passes what happened to the crawler and carries
//! out what the crawler returns, always in the order of `Crawl::turn`.

mod after_pass;
mod live;
mod metrics;
mod names;
pub mod params;
mod report;

use std::io::{self, IsTerminal};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use mio::{Interest, Waker};

use self::after_pass::AfterPass;
use self::live::Live;
use self::metrics::Metrics;
use self::names::NameBook;
use self::params::Params;
use self::report::Reporter;
use crate::commands::screen::width_of;
use crate::commands::table::hanging;
use crate::commands::{Failure, to_stderr};
use crate::config::{Config, ConfigSource, SpeciesRules};
use crate::db::writer::thread::{MAX_SOCKETS, Writer};
use crate::net::driver::{Driver, Ended, MAX_DIALS_PER_TURN, SIGNALS};
use crate::net::nodes_file::NodesFile;
use crate::sys::clock::{Clock, LoopClock, built_at};
use crate::sys::logging::{self, LogHandle};
use crate::sys::notify;
use crate::sys::process;
use crate::sys::signal::{Signal, Signals};
use crate::sys::text_file;
use bitdash_core::lookup::species::Rules;
use bitdash_core::schedule::crawler::{Crawler, NameRequest, Phase, StopReason};
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::target::Target;
use bitdash_core::vocabulary::time::Now;

/// Descriptors reserved for everything but probes: database, log, poll, look-ups, files.
const SPARE_FILES: u64 = 64;
/// Maximum time that the program of events gets after the last pass.
const EVENTS_TIMEOUT: Duration = Duration::from_secs(60);
/// The same after an operator's stop, counted from its signal: the crawler itself has 8 s.
const EVENTS_STOP_TIMEOUT: Duration = Duration::from_secs(8);
/// Interval between looks at that program, and maximum time for killing it.
const EVENTS_POLL_INTERVAL: Duration = Duration::from_millis(50);

/// Runs the command.
///
/// # Errors
/// A wrong configuration; a database that needs the operator; a failure of the system.
pub fn run(source: &ConfigSource, passes: Option<u64>) -> Result<(), Failure> {
    // First: from here on SIGHUP reloads instead of ending the process.
    let mut signals =
        Signals::new().map_err(|error| failed("installing signal handlers", &error))?;
    let config = source.load()?;
    let log = logging::start(&config.log).map_err(|error| {
        if error.is_of_the_system() {
            Failure::Failed(error.to_string())
        } else {
            Failure::Usage(error.to_string())
        }
    })?;
    let driver = Driver::new().map_err(|error| failed("opening the poll", &error))?;
    let registered = driver.registry().register(&mut signals, SIGNALS, Interest::READABLE);
    registered.map_err(|error| failed("listening to signals", &error))?;
    let mut crawl = Crawl::new(source, config, log, driver, signals, passes)?;
    notify::ready();
    while !crawl.crawler.is_over() {
        crawl.turn()?;
    }
    crawl.wait_for_events()?;
    crawl.finish()
}

struct Crawl<'a> {
    source: &'a ConfigSource,
    config: Config,
    params: Params,
    log: LogHandle,
    clock: LoopClock,
    stalled: Duration,
    driver: Driver,
    signals: Signals,
    crawler: Crawler,
    writer: Writer,
    names: NameBook,
    reporter: Reporter,
    metrics: Metrics,
    live: Live,
    after_pass: AfterPass,
    rng: fastrand::Rng,
    stats_at: Duration,
    has_more_to_dial: bool,
    had_terminal: bool,
    /// When an operator's stop began.
    stopped_at: Option<Duration>,
    ended: Vec<Ended>,
}

impl<'a> Crawl<'a> {
    fn new(
        source: &'a ConfigSource,
        config: Config,
        log: LogHandle,
        driver: Driver,
        signals: Signals,
        passes: Option<u64>,
    ) -> Result<Self, Failure> {
        let clock = Clock::new();
        let waker = driver.waker().map_err(|error| failed("opening the waker", &error))?;
        let waker: Arc<Waker> = Arc::new(waker);
        let usage = |error: &dyn std::fmt::Display| Failure::Usage(error.to_string());
        let filter = config.load_filter().map_err(|error| usage(&error))?;
        let SpeciesRules { rules, .. } = source.load_species().map_err(|error| usage(&error))?;
        let (file, port) = (&config.crawl.nodes_file, config.network.port);
        let names = NameBook::read(file, port, &filter, Arc::clone(&waker));
        let names = names.map_err(|error| Failure::of_nodes_file(&error, source, &config))?;
        if let Some(notice) = source.notice() {
            log::warn!("{notice}");
        }
        if let Err(error) = process::raise_open_files() {
            log::warn!("open_files error=\"{error}\"");
        }
        let params = params(&config, filter, rules);
        let mut rng = fastrand::Rng::with_seed(seed().map_err(Failure::Failed)?);
        let url = config.database.url.expose().to_owned();
        let writer = Writer::start(url, params.writer.clone(), rng.u64(..), waker, clock)
            .map_err(|error| failed("starting the writer", &error))?;
        let crawler = Crawler::new(params.crawler.clone(), passes, rng.u64(..));
        let stats_at = config.log.stats_interval;
        log::info!(
            "start version={} max_sockets={} nodes_file={} database={}",
            env!("BITDASH_VERSION").split(' ').next().unwrap_or_default(),
            params.crawler.max_sockets,
            config.crawl.nodes_file.display(),
            config.database.url.masked(),
        );
        Ok(Self {
            source,
            config,
            params,
            log,
            clock: LoopClock::new(clock),
            stalled: Duration::ZERO,
            driver,
            signals,
            crawler,
            writer,
            names,
            reporter: Reporter::default(),
            metrics: Metrics::default(),
            live: Live::open(),
            after_pass: AfterPass::default(),
            rng,
            stats_at,
            has_more_to_dial: false,
            had_terminal: io::stderr().is_terminal(),
            stopped_at: None,
            ended: Vec::new(),
        })
    }

    /// One turn of the loop.
    fn turn(&mut self) -> Result<(), Failure> {
        let timeout = self.timeout(self.clock.now());
        self.driver.set_ask_bounds(self.crawler.ask_bounds());
        let turn = self
            .driver
            .turn(Some(timeout), &self.clock, &mut self.ended)
            .map_err(|error| failed("polling", &error))?;
        self.note_stall();
        let now = self.clock.now();
        self.reap(now);
        self.receive_from_writer(now)?;
        if self.writer.take_written_pass() {
            self.after_pass.start(&self.config);
        }
        if let Some(names) = self.names.receive(&self.params.crawler.filter) {
            self.crawler.handle_names(names, now);
        }
        if turn.is_signalled {
            self.handle_signals(now);
        }
        self.crawler.tick(now);
        self.dial(now);
        self.drain_outputs(now)
    }

    /// Logs that the process was stopped or the board suspended.
    fn note_stall(&mut self) {
        let stalled = self.clock.stalled();
        let last = stalled.saturating_sub(std::mem::replace(&mut self.stalled, stalled));
        if !last.is_zero() {
            log::warn!("stall seconds={:.1}", last.as_secs_f64());
        }
    }

    /// Passes the results of ended sessions to the crawler.
    fn reap(&mut self, now: Now) {
        for ended in self.ended.drain(..) {
            if let Some(result) = &ended.result {
                self.reporter.count_ended();
                let (target, outcome) = (result.target, result.outcome);
                let what = if target.is_reference() { "reference_probe" } else { "probe" };
                log::debug!("{what} address={} outcome={outcome}", target.address());
            }
            self.crawler.handle_ended(ended.result, now);
        }
    }

    fn receive_from_writer(&mut self, now: Now) -> Result<(), Failure> {
        loop {
            match self.writer.receive() {
                Ok(Some(message)) => self.crawler.handle_writer(message, now),
                Ok(None) => return Ok(()),
                Err(_) if self.crawler.is_over() => return Ok(()),
                Err(_) => return Err(Failure::Failed("the writer thread panicked".to_owned())),
            }
        }
    }

    fn handle_signals(&mut self, now: Now) {
        let signals: Vec<Signal> = self.signals.pending().collect();
        for signal in signals {
            match signal {
                Signal::Reload if !self.has_lost_terminal() => self.reload(),
                Signal::Reload | Signal::Stop => {
                    notify::stopping();
                    self.stopped_at.get_or_insert(now.mono);
                    self.crawler.handle_stop(StopReason::Operator, now);
                }
            }
        }
    }

    /// Whether SIGHUP means that the terminal, which showed the log, is gone.
    fn has_lost_terminal(&self) -> bool {
        self.had_terminal && self.config.log.file.is_none() && !io::stderr().is_terminal()
    }

    /// Dials what the crawler grants.
    fn dial(&mut self, now: Now) {
        for _ in 0..MAX_DIALS_PER_TURN {
            let Some(target) = self.crawler.poll_dial(now) else {
                self.has_more_to_dial = false;
                return;
            };
            self.dial_one(target, now);
        }
        self.has_more_to_dial = true;
    }

    fn dial_one(&mut self, target: Target, now: Now) {
        // Never 0: gocoin bans for it.
        let nonce = self.rng.u64(1..);
        match self.driver.dial(target, &self.params.probe, nonce, &self.clock) {
            Ok(None) => {}
            Ok(Some(ended)) => {
                self.reporter.count_ended();
                self.crawler.handle_ended(ended.result, now);
            }
            Err(fault) => self.crawler.handle_undialled(target, fault, now),
        }
    }

    /// Carries out the crawler's requests: to the writer, the resolver, the log and the terminal.
    fn drain_outputs(&mut self, now: Now) -> Result<(), Failure> {
        while let Some(message) = self.crawler.poll_writer() {
            if !self.writer.send(message) && !self.crawler.is_over() {
                // Its last messages are in the inbox and say why it ended.
                return self.receive_from_writer(now);
            }
        }
        if let Some(request) = self.crawler.poll_name_request() {
            self.names.look_up(request == NameRequest::NamedAndSeeds);
        }
        let mut wants_stats = false;
        while let Some(event) = self.crawler.poll_event() {
            self.live.note(&event);
            wants_stats |= self.reporter.event(&event, &self.crawler);
        }
        if self.crawler.is_stopping() {
            self.driver.stop(&self.clock, &mut self.ended);
        }
        let max_sockets = self.params.crawler.max_sockets;
        let expected = self.reporter.expected(&self.crawler);
        self.live.draw(&self.crawler, expected, max_sockets, now);
        let is_due = now.mono >= self.stats_at;
        if is_due {
            // On a terminal that shows the log, the status line replaces it.
            wants_stats |= !self.live.is_on() || self.config.log.file.is_some();
            self.stats_at = now.mono + self.config.log.stats_interval;
        }
        if wants_stats {
            self.reporter.stats(&self.crawler, max_sockets, now);
            self.stats_at = now.mono + self.config.log.stats_interval;
        }
        if is_due || wants_stats {
            self.write_metrics(now);
        }
        Ok(())
    }

    fn write_metrics(&mut self, now: Now) {
        let path = self.config.log.metrics_file.as_deref();
        let max_sockets = self.params.crawler.max_sockets;
        let finished = self.writer.finished_pass();
        self.metrics.write(path, &self.crawler, max_sockets, finished.as_ref(), now);
    }

    /// Maximum duration of the next poll.
    fn timeout(&mut self, now: Now) -> Duration {
        if !self.ended.is_empty() || self.has_more_to_dial {
            return Duration::ZERO;
        }
        let crawler = self.crawler.poll_timeout(now);
        let next =
            [crawler, Some(self.stats_at), self.live.poll_timeout()].into_iter().flatten().min();
        // Rounded up to the poll's resolution; otherwise the loop spins for the last millisecond.
        next.unwrap_or_default().saturating_sub(now.mono) + Duration::from_micros(999)
    }

    /// Handles SIGHUP: reads and checks everything before changing anything.
    fn reload(&mut self) {
        notify::reloading();
        match self.try_reload() {
            Ok(changed) => log::info!("reload {changed}"),
            Err(error) => {
                // Reopen the log in any case: logrotate may have moved the file.
                if let Err(error) = self.log.reopen(&self.config.log) {
                    log::error!("reload error=\"{error}\"");
                }
                // Quotes would end the value.
                let error = error.to_string().replace('"', "'");
                log::error!("reload error=\"{error}\" state=unchanged");
            }
        }
        notify::ready();
    }

    fn try_reload(&mut self) -> Result<String, Box<dyn std::error::Error>> {
        self.source.path().map_or(Ok(()), read_once)?;
        let new = self.source.load()?;
        let config = self.config.reloaded_with(&new);
        read_once(&config.crawl.nodes_file)?;
        config.filter.exclude_files.iter().try_for_each(|path| read_once(path))?;
        let filter = config.load_filter()?;
        read_once(&self.source.species_file())?;
        let SpeciesRules { rules, .. } = self.source.load_species()?;
        let mut report = self.config.reload_differences(&new);
        report.changed.extend(excluded_text(&self.params.crawler.filter, &filter));
        report.changed.extend(species_text(&self.params.writer.recorder.rules, &rules));
        let nodes = NodesFile::read(&config.crawl.nodes_file, config.network.port)?;
        self.log.reopen(&config.log)?;
        report.changed.extend(self.names.replace(nodes, &filter));
        for key in &report.needs_restart {
            log::warn!("reload needs_restart={key}");
        }
        self.params = params(&config, filter, rules);
        self.crawler.handle_params(self.params.crawler.clone(), self.params.writer.clone());
        self.end_excluded();
        self.stats_at = self.clock.now().mono + config.log.stats_interval;
        self.config = config;
        // A former file is removed.
        self.write_metrics(self.clock.now());
        Ok(if report.changed.is_empty() {
            "changed=nothing".to_owned()
        } else {
            report.changed.join(" ")
        })
    }

    /// Ends the sessions with addresses that the filter excludes by now.
    fn end_excluded(&mut self) {
        let crawler = &self.crawler;
        let now = self.clock.now();
        for target in self.driver.drop_sessions(|target| !crawler.admits(target)) {
            self.crawler.handle_excluded(target, now);
        }
    }

    /// Waits until the operator's program was run for the last events, as long as it may.
    fn wait_for_events(&mut self) -> Result<(), Failure> {
        let began = self.clock.now().mono;
        loop {
            let (now, count) = (self.clock.now(), self.writer.pending_events().count());
            let end = match self.stopped_at {
                Some(at) => at + EVENTS_STOP_TIMEOUT,
                None => began + EVENTS_TIMEOUT,
            };
            if count == 0 {
                return Ok(());
            }
            if now.mono >= end {
                self.writer.pending_events().cancel();
                log::warn!(
                    "events left_out={count} error=\"events.exec took too long: the crawler exits\""
                );
                return self.poll_for_signals(2 * EVENTS_POLL_INTERVAL).map(|_| ());
            }
            if self.poll_for_signals(EVENTS_POLL_INTERVAL)? {
                self.handle_signals(self.clock.now());
            }
        }
    }

    /// Waits for what runs after a pass, unless the operator stops the crawl.
    fn wait_for_after_pass(&mut self) {
        while self.stopped_at.is_none() && self.after_pass.is_running() {
            match self.poll_for_signals(EVENTS_POLL_INTERVAL) {
                Ok(false) => {}
                Ok(true) => self.handle_signals(self.clock.now()),
                Err(_) => return,
            }
        }
    }

    /// Sleeps, or returns `true` earlier where a signal has arrived.
    fn poll_for_signals(&mut self, timeout: Duration) -> Result<bool, Failure> {
        let turn = self.driver.turn(Some(timeout), &self.clock, &mut self.ended);
        Ok(turn.map_err(|error| failed("polling", &error))?.is_signalled)
    }

    fn finish(mut self) -> Result<(), Failure> {
        self.write_metrics(self.clock.now());
        self.metrics.finish();
        self.reporter.interrupted(&self.crawler);
        let result = self.result();
        if result.is_ok() {
            self.wait_for_after_pass();
            if self.stopped_at.is_none() {
                self.after_pass.start_last(&self.config);
                self.wait_for_after_pass();
            }
        }
        self.after_pass.cancel();
        // A crawl that did not begin has only its error to show.
        let has_begun = result.is_ok() || self.crawler.counters().pass > 0;
        let is_shown = self.live.is_on() && has_begun;
        let summary = is_shown
            .then(|| hanging(&self.reporter.summary(&self.crawler), width_of(std::io::stderr())));
        drop(self.live);
        match summary {
            None => {}
            // Below the last lines of the log.
            Some(summary) if self.config.log.file.is_none() => self.log.write_plain(&summary),
            Some(summary) => to_stderr(summary),
        }
        result
    }

    fn result(&self) -> Result<(), Failure> {
        match self.crawler.phase() {
            Phase::Failed(why) => {
                let origin = self.source.origin_of_url(&self.config);
                Err(Failure::Failed(format!("{why} (database.url is from {origin})")))
            }
            Phase::Stopped { lost: 0 } => {
                log::info!("stop lost=0");
                Ok(())
            }
            Phase::Stopped { lost } => {
                log::warn!("stop lost={lost} error=\"the database was away for too long\"");
                let why = format!("{lost} rows were not written: those addresses are due again");
                Err(Failure::Failed(why))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses to read a pipe again: it would be empty, or block the event loop.
fn read_once(path: &Path) -> Result<(), String> {
    if text_file::is_pipe(path) {
        return Err(format!("{}: is a pipe, which cannot be read again", path.display()));
    }
    Ok(())
}

/// How what is excluded changed; `None` if it did not.
fn excluded_text(before: &Filter, after: &Filter) -> Option<String> {
    let ((old_ranges, old), (ranges, addresses)) = (before.excluded(), after.excluded());
    let text =
        || format!("excluded_ranges={old_ranges}->{ranges} excluded_addresses={old}->{addresses}");
    (!before.excludes_like(after)).then(text)
}

/// How the rules of species changed; `None` if they did not.
fn species_text(before: &Rules, after: &Rules) -> Option<String> {
    (before != after).then(|| format!("species_rules={}->{}", before.count(), after.count()))
}

/// Settings of all machines, limited to what this system allows.
fn params(config: &Config, filter: Filter, rules: Arc<Rules>) -> Params {
    let mut params = Params::new(config, filter, rules, sockets_that_fit(config));
    params.crawler.built_at = built_at();
    params
}

/// Maximum number of concurrent probes: the configured number, limited by free descriptors.
fn sockets_that_fit(config: &Config) -> usize {
    let wanted = config.crawl.max_sockets as usize;
    let Some(files) = process::open_files() else { return wanted.min(MAX_SOCKETS) };
    let inherited = process::inherited_files();
    let room = files.saturating_sub(inherited + SPARE_FILES).max(1);
    let room = usize::try_from(room).unwrap_or(usize::MAX);
    if wanted > room {
        log::warn!(
            "max_sockets configured={wanted} open_files={files} inherited={inherited} uses={room} \
             error=\"raise the limit of open files (LimitNOFILE, ulimit -n)\""
        );
    }
    wanted.min(room).min(MAX_SOCKETS)
}

/// Returns the seed of the process, from which all random numbers are drawn.
fn seed() -> Result<u64, String> {
    let mut bytes = [0; 8];
    getrandom::fill(&mut bytes).map_err(|error| format!("cannot obtain random bytes: {error}"))?;
    let seed = u64::from_le_bytes(bytes);
    log::debug!("seed value={seed:#018x}");
    Ok(seed)
}

fn failed(what: &str, error: &std::io::Error) -> Failure {
    Failure::Failed(format!("{what} failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_reload_says_how_much_is_excluded() {
        let filter = |nets: &[&str]| {
            let nets: Vec<_> = nets.iter().map(|net| net.parse().unwrap()).collect();
            Filter::new(&nets, &[])
        };
        let (before, after) = (filter(&["8.8.8.0/24"]), filter(&["8.8.8.0/23", "9.9.9.9/32"]));
        let text = "excluded_ranges=1->2 excluded_addresses=256->513";
        assert_eq!(excluded_text(&before, &after).as_deref(), Some(text));
        assert_eq!(excluded_text(&after, &after), None);
        let moved = "excluded_ranges=1->1 excluded_addresses=256->256";
        assert_eq!(excluded_text(&before, &filter(&["7.7.7.0/24"])).as_deref(), Some(moved));
    }

    #[test]
    fn the_crawl_knows_when_it_was_built() {
        let known =
            params(&Config::default(), Filter::new(&[], &[]), Rules::builtin()).crawler.built_at;
        assert_eq!(known, built_at());
        assert!(known.as_secs() > 1_790_000_000, "it is compiled in");
    }
}
