//! A start with a wrong calendar: the crawl waits until the network has set it.
//!
//! Layer 2. A board without a battery starts in 1970, or where it was switched off. What it would write then, and
//! who would be due, would be false for years.
//! Invariants: 1. no pass begins before the program's build; 2. a database whose times lie in the future, left by
//! a calendar that once ran ahead, holds a start up for [`PATIENCE`] and no longer.

use std::time::Duration;

use super::{Crawler, Event, Phase};
use crate::crawl::exchange::Opened;
use crate::crawl::time::Now;

/// A start that waits for the right calendar.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockWait {
    opened: Opened,
    began: Duration,
    /// When to look at the calendar next, on the monotonic clock.
    pub look_at: Duration,
}

/// The network sets a calendar within minutes: one that nobody has set for so long is right, and it is the
/// database's times that came from a wrong one.
const PATIENCE: Duration = Duration::from_secs(3_600);
/// Between two looks at the calendar.
const LOOK_EVERY: Duration = Duration::from_secs(1);

impl Crawler {
    /// The writer is ready.
    pub(super) fn opened(&mut self, opened: Opened, now: Now) {
        self.is_db_up = true;
        self.is_opened = true;
        self.totals = opened.totals;
        let needs = self.params.built_at.max(opened.newest);
        if now.wall < needs {
            let by_database = opened.newest > self.params.built_at;
            self.events.push_back(Event::ClockBehind { shows: now.wall, needs, by_database });
            let look_at = now.mono + LOOK_EVERY;
            self.phase = Phase::Clockless(ClockWait { opened, began: now.mono, look_at });
        } else {
            self.begin(opened, now);
        }
    }

    /// Looks at the calendar again.
    pub(super) fn tick_clockless(&mut self, wait: ClockWait, now: Now) {
        if now.mono < wait.look_at {
            return;
        }
        let is_built = now.wall >= self.params.built_at;
        if is_built && now.wall >= wait.opened.newest {
            self.events.push_back(Event::ClockRight);
            self.begin(wait.opened, now);
        } else if is_built && now.mono >= wait.began + PATIENCE {
            self.events.push_back(Event::ClockTrusted);
            self.begin(wait.opened, now);
        } else {
            self.phase = Phase::Clockless(ClockWait { look_at: now.mono + LOOK_EVERY, ..wait });
        }
    }

    /// From here on the calendar is right: the first pass begins when it is due.
    fn begin(&mut self, opened: Opened, now: Now) {
        // A start that lies in the future comes from a clock that jumped: it costs one interval at most.
        let age = opened.last_started.map(|at| now.wall.since(at));
        let wait = match age {
            Some(age) if !opened.unfinished => self.params.pass_interval.saturating_sub(age),
            _ => Duration::ZERO,
        };
        self.pass_started = now.mono;
        self.pass_age = age.unwrap_or(self.params.pass_interval);
        self.wait(wait, now);
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::{START, crawler_params};
    use super::*;
    use crate::crawl::exchange::FromWriter;
    use crate::crawl::time::UnixTime;

    const HOUR: Duration = Duration::from_secs(3_600);

    /// A crawler whose database's newest time is `newest`, at a calendar that shows `shows`.
    fn start(built_at: UnixTime, newest: UnixTime, shows: UnixTime) -> (Crawler, Now) {
        let mut params = crawler_params(10);
        params.built_at = built_at;
        let mut crawler = Crawler::new(params, None, 1);
        let now = Now { mono: Duration::from_secs(3), wall: shows };
        let opened = Opened { last_started: Some(newest), newest, ..Opened::default() };
        crawler.handle_writer(FromWriter::Ready(opened), now);
        (crawler, now)
    }

    fn later(now: Now, by: Duration) -> Now {
        Now { mono: now.mono + by, wall: now.wall.plus(by) }
    }

    /// Lets time pass in seconds until a pass wants to begin; gives how long that took.
    fn waits(crawler: &mut Crawler, mut now: Now, at_most: Duration) -> Option<Duration> {
        let began = now.mono;
        while now.mono - began <= at_most {
            crawler.tick(now);
            if crawler.poll_need().is_some() {
                return Some(now.mono - began);
            }
            now = later(now, Duration::from_secs(1));
        }
        None
    }

    #[test]
    fn a_right_calendar_is_not_waited_for() {
        let (mut crawler, now) = start(START.minus(HOUR), START.minus(HOUR), START);
        assert_eq!(crawler.poll_event(), None);
        assert_eq!(waits(&mut crawler, now, HOUR), Some(Duration::ZERO));
    }

    #[test]
    fn before_the_build_no_pass_begins_however_long_it_takes() {
        let epoch = UnixTime::from_secs(12);
        let (mut crawler, now) = start(START, UnixTime::default(), epoch);
        let behind = Event::ClockBehind { shows: epoch, needs: START, by_database: false };
        assert_eq!(crawler.poll_event(), Some(behind));
        assert_eq!(waits(&mut crawler, now, 40 * HOUR), None);
        assert_eq!(crawler.poll_event(), None, "said once");
        // The network sets it.
        let now = Now { mono: now.mono + 41 * HOUR, wall: START };
        assert!(waits(&mut crawler, now, HOUR).is_some());
        assert_eq!(crawler.poll_event(), Some(Event::ClockRight));
    }

    #[test]
    fn a_calendar_behind_the_database_is_waited_for() {
        let (mut crawler, now) = start(START.minus(9 * HOUR), START, START.minus(HOUR));
        assert!(matches!(crawler.poll_event(), Some(Event::ClockBehind { by_database: true, .. })));
        assert_eq!(waits(&mut crawler, now, HOUR - Duration::from_secs(2)), None);
        // Set meanwhile: what is left of the interval is reckoned by the right calendar.
        let now = Now { mono: now.mono + HOUR, wall: START.plus(Duration::from_secs(60)) };
        let waited = waits(&mut crawler, now, HOUR).unwrap();
        assert_eq!(crawler.poll_event(), Some(Event::ClockRight));
        assert_eq!(waited, HOUR / 2 - Duration::from_secs(60));
    }

    #[test]
    fn a_database_from_the_future_holds_a_start_up_for_an_hour() {
        let newest = START.plus(24 * 365 * HOUR);
        let (mut crawler, now) = start(START.minus(HOUR), newest, START);
        crawler.poll_event();
        let waited = waits(&mut crawler, now, 9 * HOUR).unwrap();
        assert!(waited >= PATIENCE && waited <= PATIENCE + HOUR, "{waited:?}");
        assert_eq!(crawler.poll_event(), Some(Event::ClockTrusted));
    }
}
