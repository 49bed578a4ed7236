//! What a running crawl tells the keeper: the stats line and the lines of events.
//!
//! Layer 4. Events come from the machines, which do not log themselves.

use std::time::Duration;

use crate::crawl::crawler::{Crawler, Event};
use crate::crawl::exchange::Database;
use crate::crawl::line::LineEvent;
use crate::crawl::outcome::Fault;
use crate::crawl::stats::StatsLine;
use crate::crawl::time::Now;
use crate::io::process::{cpu_time, resident_bytes};
use crate::io::query::Time;

/// The values of the last stats line, for rates by subtraction.
#[derive(Debug, Default)]
pub struct Reporter {
    at: Duration,
    probed_in_all: u64,
    cpu: Duration,
    ended: u64,
}

impl Reporter {
    /// Counts a probe that ended.
    pub fn count_ended(&mut self) {
        self.ended += 1;
    }

    /// Logs the stats line.
    pub fn stats(&mut self, crawler: &Crawler, max_sockets: usize, now: Now) {
        let seconds = now.mono.saturating_sub(self.at).as_secs_f64().max(0.001);
        let cpu = cpu_time().unwrap_or_default();
        let used = cpu.saturating_sub(self.cpu).as_secs_f64();
        let (counters, totals) = (crawler.counters(), crawler.totals());
        let line = StatsLine {
            pass: counters.pass,
            elapsed_s: crawler.elapsed(now).as_secs(),
            sockets: crawler.open(),
            max_sockets,
            queue: crawler.queue_len(),
            probed: counters.probed,
            responded: counters.responded,
            failed: counters.failed,
            rate: (self.ended - self.probed_in_all) as f64 / seconds,
            limit: crawler.limit(now),
            new_nodes: totals.new_nodes,
            new_addresses: totals.new_addresses,
            candidates: totals.candidates,
            nodes: totals.nodes,
            writer_queue: crawler.unacked(),
            is_db_up: crawler.is_db_up(),
            is_line_up: crawler.is_line_up(),
            rss_mb: resident_bytes().unwrap_or(0) as f64 / 1_048_576.0,
            cpu: 100.0 * used / seconds,
        };
        log::info!("{line}");
        (self.at, self.cpu, self.probed_in_all) = (now.mono, cpu, self.ended);
    }
}

/// Logs an event. `true` if the stats line belongs behind it.
pub fn event(event: &Event) -> bool {
    match event {
        Event::PassStarted { pass, resumed, due } => {
            let state = if *resumed { "resumed" } else { "started" };
            log::info!("pass pass={pass} state={state} due={due}");
        }
        Event::PassFinished { pass, elapsed } => {
            log::info!("pass pass={pass} state=finished elapsed_s={}", elapsed.as_secs());
            return true;
        }
        Event::NoSeeds => {
            log::warn!("seeds error=\"no seed's name gave an address\" retry_s=60");
        }
        Event::Waits(wait) => log::info!("wait next_pass_s={}", wait.as_secs()),
        Event::Squeezed { fault, sockets } => {
            let lacks = match fault {
                Fault::Descriptors => "open_files",
                _ => "ports_or_buffers",
            };
            log::warn!("squeezed lacks={lacks} sockets={sockets}");
        }
        Event::Unsqueezed => log::warn!("squeezed state=over"),
        Event::ClockBehind { shows, needs, by_database } => {
            let by = if *by_database { "database" } else { "build" };
            let (shows, needs) = (Time(*shows).to_text(), Time(*needs).to_text());
            let what = "the calendar is wrong: waiting until it is set";
            log::warn!("clock state=behind shows={shows} needs={needs} by={by} error=\"{what}\"");
        }
        Event::ClockRight => log::warn!("clock state=right"),
        Event::ClockTrusted => {
            let what =
                "nobody set the calendar: times in the database must come from one that ran ahead";
            log::warn!("clock state=trusted error=\"{what}\"");
        }
        Event::ClockStepped(step) => {
            let what =
                "the calendar was set: who is due is reckoned anew, nobody is forgotten for a day";
            log::warn!("clock state=stepped by_s={} error=\"{what}\"", step.as_secs());
        }
        Event::Line(LineEvent::Up { after }) => {
            log::warn!("line state=up after_s={}", after.as_secs());
        }
        Event::Line(LineEvent::Unroutable) => {
            log::warn!("line state=down error=\"the network is unreachable\"");
        }
        Event::Line(LineEvent::Silent { witnesses }) => {
            let what = "nobody answers, not even nodes that did so lately";
            log::warn!("line state=down witnesses={witnesses} error=\"{what}\"");
        }
        Event::Forbidden(addresses) => {
            let why = "this host's own firewall or routes forbid to connect to them";
            log::warn!("skipped addresses={addresses} error=\"{why}\"");
        }
        Event::Database(Database::Up) => log::warn!("database state=up"),
        Event::Database(Database::Down { error, held }) => {
            log::warn!("database state=down error=\"{error}\" held={held}");
        }
    }
    false
}
