//! The status line of a crawl: its progress, redrawn each second.
//!
//! Shell. It is shown where standard error is a terminal. Where the log goes to the same terminal,
//! it replaces the stats lines of every `log.stats_interval`; those at the end of a pass and on
//! stopping are logged all the same, and a log file gets all of them.

use std::time::Duration;

use crate::commands::table::{grouped, span};
use crate::sys::terminal::StatusLine;
use bitdash_core::record::messages::Database;
use bitdash_core::schedule::crawler::{Crawler, Event, Phase};
use bitdash_core::schedule::stats::Limit;
use bitdash_core::vocabulary::time::Now;

const INTERVAL: Duration = Duration::from_secs(1);
/// Weight of the newest second in the smoothed rate, which adapts within some 10 s.
const WEIGHT: f64 = 0.15;

/// The status line of a crawl.
#[derive(Debug, Default)]
pub struct Live {
    line: Option<StatusLine>,
    drawn_at: Duration,
    rate: Rate,
    /// Whether the running pass was resumed.
    is_resumed: bool,
    /// Why the database is down.
    database_error: String,
}

/// Probes ended per second, smoothed.
#[derive(Clone, Copy, Debug, Default)]
struct Rate {
    pass: u64,
    probed: u64,
    per_second: Option<f64>,
}

/// The values that the line shows.
#[derive(Clone, Debug, PartialEq)]
struct View {
    phase: Phase,
    pass: u64,
    is_resumed: bool,
    probed: u64,
    /// Addresses of the pass that are not probed yet.
    left: u64,
    sockets: usize,
    max_sockets: usize,
    rate: f64,
    limit: Limit,
    /// Nodes up, as the address book knows them.
    up: u64,
    new_nodes: u64,
    is_db_up: bool,
    is_uplink_up: bool,
    database_error: String,
}

impl Live {
    /// Opens the line if standard error is a terminal.
    pub fn open() -> Self {
        Self { line: StatusLine::open(), ..Self::default() }
    }

    /// Keeps what the line says of an event.
    pub fn note(&mut self, event: &Event) {
        match event {
            Event::Database(Database::Down { error, .. }) => {
                error.clone_into(&mut self.database_error);
            }
            Event::PassStarted { resumed, .. } => self.is_resumed = *resumed,
            _ => {}
        }
    }

    /// Whether the line is shown.
    pub fn is_on(&self) -> bool {
        self.line.is_some()
    }

    /// Time of the next redraw.
    pub fn poll_timeout(&self) -> Option<Duration> {
        self.is_on().then(|| self.drawn_at + INTERVAL)
    }

    /// Redraws the line if it is due. `expected` is the number of addresses of the running pass.
    pub fn draw(&mut self, crawler: &Crawler, expected: Option<u64>, max_sockets: usize, now: Now) {
        let Some(line) = &mut self.line else { return };
        if now.mono < self.drawn_at + INTERVAL {
            return;
        }
        let (counters, seconds) = (crawler.counters(), now.mono.saturating_sub(self.drawn_at));
        let rate = self.rate.update(counters.pass, counters.probed, seconds);
        let view = View {
            phase: crawler.phase().clone(),
            pass: counters.pass,
            is_resumed: self.is_resumed,
            probed: counters.probed,
            left: expected.unwrap_or(0).saturating_sub(counters.probed),
            sockets: crawler.open(),
            max_sockets,
            rate,
            limit: crawler.limit(now),
            up: crawler.totals().up,
            new_nodes: crawler.totals().new_nodes,
            is_db_up: crawler.is_db_up(),
            is_uplink_up: crawler.is_uplink_up(),
            database_error: self.database_error.clone(),
        };
        line.show(&view.text(now));
        self.drawn_at = now.mono;
    }
}

impl Rate {
    /// Updates the rate with the number of probes that ended in a pass, and returns it.
    fn update(&mut self, pass: u64, probed: u64, since: Duration) -> f64 {
        // A resumed pass begins with the probes of an earlier run.
        let before = match self.pass {
            0 => probed,
            known if known == pass => self.probed,
            _ => 0,
        };
        let new = probed.saturating_sub(before) as f64 / since.as_secs_f64().max(0.001);
        let rate = match self.per_second {
            Some(old) if pass == self.pass => old + WEIGHT * (new - old),
            _ => new,
        };
        let is_first = self.pass == 0;
        *self = Self { pass, probed, per_second: (!is_first).then_some(rate) };
        rate
    }
}

impl View {
    /// The most important first, since a narrow terminal cuts the end off.
    fn text(&self, now: Now) -> String {
        let text = match &self.phase {
            Phase::Opening if self.database_error.is_empty() => "opening the database".to_owned(),
            Phase::Opening => format!("retrying: {}", self.database_error),
            Phase::AwaitingClock(_) => {
                "the wall clock is wrong: waiting until it is set".to_owned()
            }
            Phase::Waiting { until } => {
                let left = span(until.saturating_sub(now.mono));
                let next = match self.pass {
                    0 => "the next pass".to_owned(),
                    pass => format!("pass {pass} done, the next one"),
                };
                format!("{} nodes up; {next} in {left}", self.up())
            }
            Phase::ResolvingNames => "looking up the names of the nodes file".to_owned(),
            Phase::Starting => "starting a pass".to_owned(),
            Phase::Ending => format!("pass {} done, writing", self.pass),
            Phase::Stopping { .. } => "stopping: writing pending results".to_owned(),
            Phase::Stopped { .. } | Phase::Failed(_) => String::new(),
            Phase::Running(_) => self.running(),
        };
        if self.phase == Phase::Opening {
            text
        } else if !self.is_db_up {
            format!("DATABASE DOWN  {text}")
        } else if !self.is_uplink_up {
            format!("UPLINK DOWN  {text}")
        } else {
            text
        }
    }

    fn running(&self) -> String {
        let all = self.probed.saturating_add(self.left);
        let share = match all {
            0 => 0.0,
            // Rounded down: only a finished pass shows 100 %.
            all => (100.0 * self.probed as f64 / all as f64).floor(),
        };
        let limit = match self.limit {
            Limit::None => String::new(),
            limit => format!("  limit={}", limit.as_str()),
        };
        let state = if self.is_resumed { " resumed" } else { "" };
        let new = match self.new_nodes {
            0 => String::new(),
            new => format!(", {} new", grouped(i64::try_from(new).unwrap_or(i64::MAX))),
        };
        format!(
            "pass {}{state} {} {share:.0}%{}  {:.0}/s  {} up{new}  {}/{} sockets{limit}",
            self.pass,
            bar(share),
            self.estimate(),
            self.rate,
            self.up(),
            self.sockets,
            self.max_sockets,
        )
    }

    /// Time left at the current rate if no address is added.
    fn estimate(&self) -> String {
        // What is left is open: these sessions take their time, whatever the rate was. At the start
        // more will be heard of.
        if self.left <= self.sockets as u64 && self.probed > self.left {
            return "  finishing".to_owned();
        }
        let seconds = self.left as f64 / self.rate;
        match Duration::try_from_secs_f64(seconds) {
            Ok(left) if self.rate > 0.0 && left < FINISHING => "  finishing".to_owned(),
            Ok(left) if self.rate > 0.0 && left < MAX_ESTIMATE => format!("  {} left", span(left)),
            _ => String::new(),
        }
    }

    fn up(&self) -> String {
        grouped(i64::try_from(self.up).unwrap_or(i64::MAX))
    }
}

/// A bar of ten cells for a share in percent.
fn bar(share: f64) -> String {
    let filled = (share / 10.0).floor().clamp(0.0, 10.0) as usize;
    format!("[{}{}]", "=".repeat(filled), " ".repeat(10 - filled))
}

/// Minimum estimate that is shown.
const FINISHING: Duration = Duration::from_secs(1);
/// Maximum estimate that is shown.
const MAX_ESTIMATE: Duration = Duration::from_secs(30 * 86_400);

#[cfg(test)]
mod tests {
    use super::*;
    use bitdash_core::vocabulary::time::UnixTime;

    const NOW: Now = Now { mono: Duration::from_secs(100), wall: UnixTime::from_secs(0) };

    fn view() -> View {
        View {
            phase: Phase::Running(Default::default()),
            pass: 12,
            is_resumed: false,
            probed: 20_345,
            left: 82_875,
            sockets: 800,
            max_sockets: 800,
            rate: 331.4,
            limit: Limit::Sockets,
            up: 9_120,
            new_nodes: 17,
            is_db_up: true,
            is_uplink_up: true,
            database_error: String::new(),
        }
    }

    #[test]
    fn the_line_fits_80_columns() {
        let text = view().text(NOW);
        let expected =
            "pass 12 [=         ] 19%  4m 10s left  331/s  9,120 up, 17 new  800/800 sockets";
        assert_eq!(text, format!("{expected}  limit=sockets"));
        // The last column stays free.
        assert!(expected.len() < 80);
    }

    #[test]
    fn a_resumed_pass_is_told_from_one_that_started() {
        let text = View { is_resumed: true, new_nodes: 0, ..view() }.text(NOW);
        let expected =
            "pass 12 resumed [=         ] 19%  4m 10s left  331/s  9,120 up  800/800 sockets";
        assert_eq!(text, format!("{expected}  limit=sockets"));
        assert!(expected.len() < 80);
    }

    #[test]
    fn no_estimate_without_a_rate_and_no_share_at_the_start() {
        let start = View { probed: 0, rate: 0.0, limit: Limit::None, ..view() };
        assert_eq!(
            start.text(NOW),
            "pass 12 [          ] 0%  0/s  9,120 up, 17 new  800/800 sockets"
        );
        let empty = View { left: 0, ..start.clone() };
        assert!(empty.text(NOW).starts_with("pass 12 [          ] 0%  "), "{}", empty.text(NOW));
        let slow = View { rate: 1e-12, ..start };
        assert!(!slow.text(NOW).contains("left"));
        let nearly = View { left: 1, probed: 999_999, ..view() };
        assert!(
            nearly.text(NOW).starts_with("pass 12 [========= ] 99%  finishing"),
            "{}",
            nearly.text(NOW)
        );
        let last = View { left: 82, sockets: 82, probed: 518, rate: 40.0, ..view() };
        assert!(last.text(NOW).contains(" 86%  finishing  40/s"), "{}", last.text(NOW));
        let whole = View { left: 0, ..view() };
        assert!(whole.text(NOW).starts_with("pass 12 [==========] 100%  finishing"));
    }

    #[test]
    fn between_passes_it_counts_down_to_the_next() {
        let phase = Phase::Waiting { until: Duration::from_secs(190) };
        let text = View { phase, ..view() }.text(NOW);
        assert_eq!(text, "9,120 nodes up; pass 12 done, the next one in 1m 30s");
        let phase = Phase::Waiting { until: Duration::from_secs(190) };
        let restarted = View { phase, pass: 0, ..view() }.text(NOW);
        assert_eq!(restarted, "9,120 nodes up; the next pass in 1m 30s");
    }

    #[test]
    fn a_database_that_is_down_comes_first() {
        let view = View { is_db_up: false, ..view() };
        assert!(view.text(NOW).starts_with("DATABASE DOWN  pass 12 "));
        let opening = View { phase: Phase::Opening, ..view };
        assert_eq!(opening.text(NOW), "opening the database");
        let absent = View { database_error: "no server".to_owned(), ..opening };
        assert_eq!(absent.text(NOW), "retrying: no server");
        let uplink = View { is_uplink_up: false, ..self::view() };
        assert!(uplink.text(NOW).starts_with("UPLINK DOWN  pass 12 "));
    }

    #[test]
    fn a_resumed_pass_does_not_count_the_probes_of_an_earlier_run() {
        let mut rate = Rate::default();
        let second = Duration::from_secs(1);
        assert_eq!(rate.update(7, 5_000, second), 0.0);
        let later = rate.update(7, 5_014, second);
        assert!((later - 14.0).abs() < 0.01, "{later}");
    }

    #[test]
    fn the_rate_is_smooth_within_a_pass_and_restarts_with_the_next() {
        let mut rate = Rate::default();
        let second = Duration::from_secs(1);
        assert_eq!(rate.update(1, 0, second), 0.0);
        let mut rate = Rate { pass: 1, probed: 100, per_second: Some(100.0) };
        assert_eq!(rate.update(1, 200, second), 100.0);
        let jump = rate.update(1, 1_200, second);
        assert!((jump - 235.0).abs() < 0.01, "{jump}");
        assert_eq!(rate.update(2, 30, Duration::from_millis(500)), 60.0);
    }
}
