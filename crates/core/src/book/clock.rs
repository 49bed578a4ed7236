//! Rebases the address book after a step of the wall clock.
//!
//! Invariant: 1. the time until an address is due is unchanged. Rows in the database keep the old
//! times until they are rewritten, and so does `last_heard` here: the next mention of an address
//! then differs from it by more than a day and is written.

use super::{AddressBook, secs};
use crate::vocabulary::clock_jump::Step;
use crate::vocabulary::time::UnixTime;

impl AddressBook {
    /// Shifts all due times by `step`, and restarts the interval of `forget`.
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
            let mut last_probed = entry.last_probed();
            move_secs(&mut last_probed);
            entry.set_last_probed(last_probed);
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
    use crate::vocabulary::clock_jump::ClockWatch;
    use crate::vocabulary::outcome::Outcome;
    use crate::vocabulary::time::Now;

    const YEAR: i64 = 365 * 86_400;

    /// A step of the wall clock by `seconds`.
    fn step(seconds: i64) -> Step {
        let mut watch = ClockWatch::default();
        watch.observe(Now { mono: HOUR, wall: START });
        let wall = START.shifted(seconds * 1_000_000);
        watch.observe(Now { mono: HOUR, wall }).unwrap()
    }

    #[test]
    fn delays_survive_a_step_of_the_wall_clock() {
        for seconds in [3_601, -3_601, 10 * YEAR, -10 * YEAR] {
            let mut book = book();
            book.start_pass(START);
            book.hear(address(1), Source::NodesFile, START);
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
    fn a_step_of_the_wall_clock_loses_no_node() {
        let mut book = with_nodes(1);
        let node = *book.nodes.keys().next().unwrap();
        let now = START.shifted(10 * YEAR * 1_000_000);
        book.rebase(step(10 * YEAR), now);
        let recorded = book.record(&facts(node, Outcome::Closed, now.plus(HOUR)), 0.5);
        assert_eq!(recorded.status, crate::vocabulary::rows::Status::Full, "seen an hour ago");
        assert_eq!(recorded.next_probe, now.plus(HOUR + HOUR / 6));
        book.start_pass(now.plus(2 * HOUR));
        assert_eq!(book.nodes(), 1);
    }

    #[test]
    fn no_address_is_deleted_within_a_day_of_a_step() {
        let mut book = book();
        book.start_pass(START);
        book.hear(address(1), Source::NodesFile, START);
        let now = START.shifted(10 * YEAR * 1_000_000);
        book.rebase(step(10 * YEAR), now);
        // Relative to this mention alone, the first address is ten years old.
        book.hear(address(2), Source::NodesFile, now);
        book.start_pass(now.plus(DAY - HOUR));
        assert_eq!(book.len(), 2);
        book.start_pass(now.plus(DAY + HOUR));
        assert_eq!(book.len(), 1, "not named for a day");
    }
}
