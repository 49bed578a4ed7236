//! `ClockWatch`: detects steps of the wall clock.
//!
//! Sans-I/O. A board without a battery starts with a wrong wall clock, which steps by hours or
//! years once NTP corrects it; the monotonic clock does not. Their difference reveals every step.
//! Invariant: 1. adjustments by seconds, however many, are never a step.

use std::time::Duration;

use crate::vocabulary::time::Now;

/// Minimum size of a step; smaller adjustments are normal.
pub const CLOCK_STEP_THRESHOLD: Duration = Duration::from_secs(3_600);

/// A step of the wall clock in microseconds, negative if it was set back.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Step(i64);

impl Step {
    /// The step in whole seconds, rounded towards zero.
    pub fn as_secs(self) -> i64 {
        self.0 / 1_000_000
    }

    /// The step in microseconds.
    pub fn as_micros(self) -> i64 {
        self.0
    }
}

/// Compares the two clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClockWatch {
    /// Wall clock minus monotonic clock at the last reading, in microseconds.
    offset: Option<i64>,
}

impl ClockWatch {
    /// Returns the step between the previous reading and this one, if any.
    pub fn observe(&mut self, now: Now) -> Option<Step> {
        let mono = i64::try_from(now.mono.as_micros()).unwrap_or(i64::MAX);
        let offset = now.wall.as_micros().saturating_sub(mono);
        let before = self.offset.replace(offset)?;
        let step = offset.saturating_sub(before);
        let is_step = u128::from(step.unsigned_abs()) > CLOCK_STEP_THRESHOLD.as_micros();
        is_step.then_some(Step(step))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::time::UnixTime;

    fn now(mono: u64, wall: i64) -> Now {
        Now { mono: Duration::from_secs(mono), wall: UnixTime::from_secs(wall) }
    }

    #[test]
    fn only_a_jump_of_more_than_an_hour_is_a_step() {
        let mut watch = ClockWatch::default();
        assert_eq!(watch.observe(now(0, 1_000_000)), None);
        assert_eq!(watch.observe(now(50_000, 1_050_000)), None, "time passed");
        assert_eq!(watch.observe(now(50_001, 1_053_601)), None, "an hour is no step");
        let step = watch.observe(now(50_002, 1_053_602 + 3_601)).unwrap();
        assert_eq!(step.as_secs(), 3_601);
        assert_eq!(watch.observe(now(50_003, 1_053_603 + 3_601)), None, "reported once");
        let step = watch.observe(now(50_003, -5)).unwrap();
        assert_eq!(step.as_secs(), -(1_053_603 + 3_606));
    }

    #[test]
    fn small_adjustments_never_add_up_to_a_step() {
        let mut watch = ClockWatch::default();
        for turn in 0..10_000 {
            assert_eq!(watch.observe(now(turn, 1_000 + 60 * turn as i64)), None);
        }
    }

    #[test]
    fn extreme_times_do_not_overflow() {
        let mut watch = ClockWatch::default();
        for wall in [i64::MAX, i64::MIN, 0, i64::MAX] {
            let wall = UnixTime::from_micros(wall);
            watch.observe(Now { mono: Duration::MAX, wall });
        }
    }
}
