//! A start with a wrong wall clock.

use super::*;

/// A crawler whose database's newest time is `newest`, at a wall clock that shows `shows`.
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

/// Lets time pass in seconds until names are requested; returns how long that took.
fn wait_for_pass(crawler: &mut Crawler, mut now: Now, limit: Duration) -> Option<Duration> {
    let began = now.mono;
    while now.mono - began <= limit {
        crawler.tick(now);
        if crawler.poll_name_request().is_some() {
            return Some(now.mono - began);
        }
        now = later(now, Duration::from_secs(1));
    }
    None
}

#[test]
fn a_right_wall_clock_delays_nothing() {
    let (mut crawler, now) = start(START.minus(HOUR), START.minus(HOUR), START);
    assert_eq!(crawler.poll_event(), None);
    assert_eq!(wait_for_pass(&mut crawler, now, HOUR), Some(Duration::ZERO));
}

#[test]
fn no_pass_begins_before_the_time_of_the_build() {
    let epoch = UnixTime::from_secs(12);
    let (mut crawler, now) = start(START, UnixTime::default(), epoch);
    let behind = Event::ClockBehind { shows: epoch, needs: START, by_database: false };
    assert_eq!(crawler.poll_event(), Some(behind));
    assert_eq!(wait_for_pass(&mut crawler, now, 40 * HOUR), None);
    assert_eq!(crawler.poll_event(), None, "reported once");
    // NTP sets it.
    let now = Now { mono: now.mono + 41 * HOUR, wall: START };
    assert!(wait_for_pass(&mut crawler, now, HOUR).is_some());
    assert_eq!(crawler.poll_event(), Some(Event::ClockRight));
}

#[test]
fn a_wall_clock_behind_the_database_delays_the_start() {
    let (mut crawler, now) = start(START.minus(9 * HOUR), START, START.minus(HOUR));
    assert!(matches!(crawler.poll_event(), Some(Event::ClockBehind { by_database: true, .. })));
    assert_eq!(wait_for_pass(&mut crawler, now, HOUR - Duration::from_secs(2)), None);
    // Set meanwhile: the rest of the interval is computed with the right wall clock.
    let now = Now { mono: now.mono + HOUR, wall: START.plus(Duration::from_secs(60)) };
    let waited = wait_for_pass(&mut crawler, now, HOUR).unwrap();
    assert_eq!(crawler.poll_event(), Some(Event::ClockRight));
    assert_eq!(waited, HOUR / 2 - Duration::from_secs(60));
}

#[test]
fn a_database_from_the_future_delays_a_start_by_an_hour() {
    let newest = START.plus(24 * 365 * HOUR);
    let (mut crawler, now) = start(START.minus(HOUR), newest, START);
    crawler.poll_event();
    let waited = wait_for_pass(&mut crawler, now, 9 * HOUR).unwrap();
    assert!(waited >= CLOCK_TIMEOUT && waited <= CLOCK_TIMEOUT + HOUR, "{waited:?}");
    assert_eq!(crawler.poll_event(), Some(Event::ClockTrusted));
}
