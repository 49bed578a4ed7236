//! `ClockWatch`: notices when the calendar is set.
//!
//! Layer 1: pure. A board without a battery starts with a wrong calendar, which jumps by hours or years once the
//! network has told the time; the monotonic clock does not. The difference of the two gives every jump away.
//! Invariant: 1. a calendar that is only adjusted by seconds, however often, is never a step.

use std::time::Duration;

use crate::crawl::time::Now;

/// Clocks are set by seconds all the time; a calendar that moves by more than this at once was wrong.
pub const CLOCK_STEP: Duration = Duration::from_secs(3_600);

/// By how much the calendar was set, in microseconds; negative: back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step(i64);

impl Step {
    /// Whole seconds, rounded towards zero.
    pub fn as_secs(self) -> i64 {
        self.0 / 1_000_000
    }

    /// Microseconds.
    pub fn as_micros(self) -> i64 {
        self.0
    }
}

/// Watches the two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockWatch {
    /// Calendar less monotonic clock when last looked at, in microseconds.
    offset: Option<i64>,
}

impl ClockWatch {
    /// Takes in a reading, and gives the step that lies between it and the one before.
    pub fn observe(&mut self, now: Now) -> Option<Step> {
        let mono = i64::try_from(now.mono.as_micros()).unwrap_or(i64::MAX);
        let offset = now.wall.as_micros().saturating_sub(mono);
        let before = self.offset.replace(offset)?;
        let step = offset.saturating_sub(before);
        let is_step = u128::from(step.unsigned_abs()) > CLOCK_STEP.as_micros();
        is_step.then_some(Step(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crawl::time::UnixTime;

    fn now(mono: u64, wall: i64) -> Now {
        Now { mono: Duration::from_secs(mono), wall: UnixTime::from_secs(wall) }
    }

    #[test]
    fn only_a_calendar_that_leaves_the_monotonic_clock_by_an_hour_has_stepped() {
        let mut watch = ClockWatch::default();
        assert_eq!(watch.observe(now(0, 1_000_000)), None);
        assert_eq!(watch.observe(now(50_000, 1_050_000)), None, "time passed");
        assert_eq!(watch.observe(now(50_001, 1_053_601)), None, "an hour is no step");
        let step = watch.observe(now(50_002, 1_053_602 + 3_601)).unwrap();
        assert_eq!(step.as_secs(), 3_601);
        assert_eq!(watch.observe(now(50_003, 1_053_603 + 3_601)), None, "told once");
        let step = watch.observe(now(50_003, -5)).unwrap();
        assert_eq!(step.as_secs(), -(1_053_603 + 3_606));
    }

    #[test]
    fn small_corrections_never_add_up_to_a_step() {
        let mut watch = ClockWatch::default();
        for turn in 0..10_000 {
            assert_eq!(watch.observe(now(turn, 1_000 + 60 * turn as i64)), None);
        }
    }

    #[test]
    fn the_ends_of_time_do_not_overflow() {
        let mut watch = ClockWatch::default();
        for wall in [i64::MAX, i64::MIN, 0, i64::MAX] {
            let wall = UnixTime::from_micros(wall);
            watch.observe(Now { mono: Duration::MAX, wall });
        }
    }
}
