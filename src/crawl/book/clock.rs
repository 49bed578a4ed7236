//! What a step of the calendar does to the book.
//!
//! Layer 2. Invariant: 1. afterwards everybody is due as long from now as before. What the database holds keeps
//! the times of the old calendar until it is written anew, and `last_heard` here with it: whoever is named is
//! then written as heard of today.

use super::{AddressBook, secs};
use crate::crawl::clock_watch::Step;
use crate::crawl::time::UnixTime;

impl AddressBook {
    /// The calendar was set: reckons anew who is due, and puts off forgetting.
    pub fn rebase(&mut self, step: Step, now: UnixTime) {
        let move_secs = |time: &mut u32| {
            // 0 means never.
            if *time != 0 {
                let moved = i64::from(*time).saturating_add(step.as_secs());
                *time = u32::try_from(moved.max(1)).unwrap_or(u32::MAX);
            }
        };
        for entry in self.table.iter_mut() {
            move_secs(&mut entry.next_probe);
            move_secs(&mut entry.last_probed);
        }
        for node in self.nodes.values_mut() {
            let known = &mut node.known;
            known.last_seen = known.last_seen.shifted(step.as_micros());
            known.peers_asked_at = known.peers_asked_at.map(|at| at.shifted(step.as_micros()));
        }
        move_secs(&mut self.pass_started);
        self.forgotten_at = secs(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::Source;
    use super::super::tests::{DAY, HOUR, START, address, all_due, book, facts, with_nodes};
    use super::*;
    use crate::crawl::clock_watch::ClockWatch;
    use crate::crawl::outcome::Outcome;
    use crate::crawl::time::Now;

    const YEAR: i64 = 365 * 86_400;

    /// The step of a calendar that was set by so many seconds.
    fn step(seconds: i64) -> Step {
        let mut watch = ClockWatch::default();
        watch.observe(Now { mono: HOUR, wall: START });
        let wall = START.shifted(seconds * 1_000_000);
        watch.observe(Now { mono: HOUR, wall }).unwrap()
    }

    #[test]
    fn everybody_waits_as_long_as_before_whatever_the_calendar_shows() {
        for seconds in [3_601, -3_601, 10 * YEAR, -10 * YEAR] {
            let mut book = book();
            book.start_pass(START);
            book.hear(address(1), Source::Person, START);
            all_due(&mut book, START);
            book.record(&facts(address(1), Outcome::ConnectTimeout, START), 0.5);
            let moved = |time: UnixTime| time.shifted(seconds * 1_000_000);
            book.rebase(step(seconds), moved(START));
            for (minutes, is_due) in [(0, false), (59, false), (61, true)] {
                let now = moved(START.plus(Duration::from_secs(60 * minutes)));
                book.start_pass(now);
                let due = all_due(&mut book, now).len();
                assert_eq!(due, usize::from(is_due), "{seconds} s, {minutes} min later");
            }
        }
    }

    #[test]
    fn no_node_is_lost_because_the_calendar_was_set() {
        let mut book = with_nodes(1);
        let node = *book.nodes.keys().next().unwrap();
        let now = START.shifted(10 * YEAR * 1_000_000);
        book.rebase(step(10 * YEAR), now);
        let recorded = book.record(&facts(node, Outcome::Closed, now.plus(HOUR)), 0.5);
        assert_eq!(recorded.status, crate::crawl::batch::Status::Full, "seen an hour ago");
        assert_eq!(recorded.next_probe, now.plus(HOUR + HOUR / 6));
        // What was asked a moment ago is not asked again.
        book.start_pass(now.plus(2 * HOUR));
        assert_eq!(book.nodes(), 1);
    }

    #[test]
    fn nobody_is_forgotten_within_a_day_of_a_step() {
        let mut book = book();
        book.start_pass(START);
        book.hear(address(1), Source::Person, START);
        let now = START.shifted(10 * YEAR * 1_000_000);
        book.rebase(step(10 * YEAR), now);
        // By this word alone the first address is ten years old.
        book.hear(address(2), Source::Person, now);
        book.start_pass(now.plus(DAY - HOUR));
        assert_eq!(book.len(), 2);
        book.start_pass(now.plus(DAY + HOUR));
        assert_eq!(book.len(), 1, "nobody named it in a day");
    }
}
