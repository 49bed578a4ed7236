//! Log lines of a running crawl: the stats line and one line per event.
//!
//! The machines are sans-I/O and do not log: they return events.

use std::time::Duration;

use crate::commands::table::grouped;
use crate::db::timestamp::Timestamp;
use crate::sys::process::{cpu_time, resident_bytes};
use bitdash_core::record::messages::Database;
use bitdash_core::schedule::crawler::{Crawler, Event};
use bitdash_core::schedule::stats::StatsLine;
use bitdash_core::schedule::uplink::UplinkEvent;
use bitdash_core::vocabulary::outcome::Fault;
use bitdash_core::vocabulary::time::Now;

/// Counters, and their values at the last stats line, from which rates are computed.
#[derive(Debug, Default)]
pub struct Reporter {
    at: Duration,
    cpu: Duration,
    ended: u64,
    ended_at_last_line: u64,
    /// The pass that is running.
    running: Option<Running>,
}

/// What is known at the start of a pass.
#[derive(Clone, Copy, Debug)]
struct Running {
    /// Addresses that were due or had been probed.
    due: u64,
    /// Addresses that had been heard of for the first time.
    new_addresses: u64,
}

impl Reporter {
    /// Counts a probe that ended.
    pub fn count_ended(&mut self) {
        self.ended += 1;
    }

    /// Logs an event. Returns whether a stats line is due after it.
    pub fn event(&mut self, event: &Event, crawler: &Crawler) -> bool {
        let (counters, totals) = (crawler.counters(), crawler.totals());
        match event {
            Event::PassStarted { due, .. } => {
                let due = counters.probed + due;
                self.running = Some(Running { due, new_addresses: totals.new_addresses });
            }
            Event::PassFinished { .. } => self.running = None,
            _ => {}
        }
        log_event(event)
    }

    /// Logs the pass that a stop interrupted, with the results of the last sessions.
    pub fn interrupted(&self, crawler: &Crawler) {
        if let Some(of) = self.expected(crawler) {
            let counters = crawler.counters();
            let (pass, probed) = (counters.pass, counters.probed);
            log::info!("pass pass={pass} state=interrupted probed={probed} of={of}");
        }
    }

    /// Number of addresses of the running pass, as far as it is known; `None` if none is running.
    pub fn expected(&self, crawler: &Crawler) -> Option<u64> {
        let running = self.running?;
        let new = crawler.totals().new_addresses.saturating_sub(running.new_addresses);
        Some((running.due + new).max(crawler.counters().probed))
    }

    /// What the crawl did, in three lines for a terminal.
    pub fn summary(&self, crawler: &Crawler) -> String {
        let number = |count: u64| grouped(i64::try_from(count).unwrap_or(i64::MAX));
        let (counters, totals) = (crawler.counters(), crawler.totals());
        let (pass, probed) = (counters.pass, number(counters.probed));
        let did = match self.expected(crawler) {
            Some(of) => format!(
                "pass {pass} interrupted: {probed} of {} probed, {} responded; the next start \
                 resumes it",
                number(of),
                number(counters.responded)
            ),
            None if pass == 0 => "no pass was started".to_owned(),
            None => format!(
                "pass {pass} finished: {probed} probed, {} responded, {} new nodes",
                number(counters.responded),
                number(totals.new_nodes)
            ),
        };
        format!(
            "{did}\n{} nodes up of {} known, {} candidates\nto see them: bitdash status, \
             bitdash nodes\n",
            number(totals.up),
            number(totals.nodes),
            number(totals.candidates)
        )
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
            rate: (self.ended - self.ended_at_last_line) as f64 / seconds,
            limit: crawler.limit(now),
            new_nodes: totals.new_nodes,
            new_addresses: totals.new_addresses,
            candidates: totals.candidates,
            nodes: totals.nodes,
            writer_queue: crawler.unacked(),
            is_db_up: crawler.is_db_up(),
            is_uplink_up: crawler.is_uplink_up(),
            rss_mb: resident_bytes().unwrap_or(0) as f64 / 1_048_576.0,
            cpu: 100.0 * used / seconds,
        };
        log::info!("{line}");
        (self.at, self.cpu, self.ended_at_last_line) = (now.mono, cpu, self.ended);
    }
}

fn log_event(event: &Event) -> bool {
    match event {
        Event::PassStarted { pass, resumed, due } => {
            let state = if *resumed { "resumed" } else { "started" };
            log::info!("pass pass={pass} state={state} due={due}");
        }
        Event::PassFinished { pass, elapsed } => {
            log::info!("pass pass={pass} state=finished elapsed_s={}", elapsed.as_secs());
            return true;
        }
        Event::Stopping => return true,
        Event::NoSeeds => {
            log::warn!("seeds error=\"no seed resolved to an address\" retry_s=60");
        }
        Event::Waits(wait) => log::info!("wait next_pass_s={}", wait.as_secs()),
        Event::ResourceLimited { fault, sockets } => {
            let lacks = match fault {
                Fault::Descriptors => "open_files",
                _ => "ports_or_buffers",
            };
            log::warn!("resource_limited lacks={lacks} sockets={sockets}");
        }
        Event::ResourcesRecovered => log::warn!("resource_limited state=over"),
        Event::ClockBehind { shows, needs, by_database } => {
            let by = if *by_database { "database" } else { "build" };
            let (shows, needs) = (Timestamp(*shows).to_text(), Timestamp(*needs).to_text());
            let what = "the wall clock is wrong: waiting until it is set";
            log::warn!("clock state=behind shows={shows} needs={needs} by={by} error=\"{what}\"");
        }
        Event::ClockRight => log::warn!("clock state=right"),
        Event::ClockTrusted => {
            let what = "nothing corrected the wall clock: \
                        the times in the database are from a clock that was ahead";
            log::warn!("clock state=trusted error=\"{what}\"");
        }
        Event::ClockStepped(step) => {
            let what = "the wall clock was set: due times are recomputed, \
                        no node is forgotten within the next day";
            log::warn!("clock state=stepped by_s={} error=\"{what}\"", step.as_secs());
        }
        Event::Imported { addresses, new } => log::info!("import addresses={addresses} new={new}"),
        Event::Uplink(UplinkEvent::Up { after }) => {
            log::warn!("uplink state=up after_s={}", after.as_secs());
        }
        Event::Uplink(UplinkEvent::Unroutable) => {
            log::warn!("uplink state=down error=\"the network is unreachable\"");
        }
        Event::Uplink(UplinkEvent::Refusing { references }) => {
            let what = "every node refuses or is silent, even those that answered recently";
            log::warn!("uplink state=down reference_nodes={references} error=\"{what}\"");
        }
        Event::Uplink(UplinkEvent::Silent { references }) => {
            let what = "no node answers, not even nodes that answered recently";
            log::warn!("uplink state=down reference_nodes={references} error=\"{what}\"");
        }
        Event::Forbidden(addresses) => {
            let why = "this host's firewall or routes forbid connecting to them";
            log::warn!("skipped addresses={addresses} error=\"{why}\"");
        }
        Event::Database(Database::Up) => log::warn!("database state=up"),
        Event::Database(Database::Down { error, pending_rows }) => {
            log::warn!("database state=down error=\"{error}\" pending_rows={pending_rows}");
        }
        Event::Database(Database::Replaced { dropped }) => log::warn!(
            "database state=emptied dropped={dropped} error=\"it was emptied or recreated; \
             restarting from its contents and the nodes file\""
        ),
    }
    false
}
