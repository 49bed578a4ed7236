//! Time as the machines see it: always an argument.
//!
//! Layer 1: plain data. `mono` counts from the start of the process and never jumps: deadlines use it.
//! `wall` is the calendar, which jumps on a board without a battery: only stored times use it.

use std::time::Duration;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since the process (or the simulation) began.
    pub mono: Duration,
    /// The calendar time.
    pub wall: UnixTime,
}

/// A calendar time in microseconds since 1970-01-01 UTC, the resolution of PostgreSQL's `timestamptz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(i64);

impl UnixTime {
    /// Makes a time from microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Makes a time from whole seconds since the epoch.
    pub const fn from_secs(secs: i64) -> Self {
        Self(secs.saturating_mul(1_000_000))
    }

    /// Microseconds since the epoch.
    pub const fn as_micros(self) -> i64 {
        self.0
    }

    /// Whole seconds since the epoch, rounded down.
    pub const fn as_secs(self) -> i64 {
        self.0.div_euclid(1_000_000)
    }

    /// The time `delay` later; stays within the range of the type.
    pub fn plus(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time `delay` earlier; stays within the range of the type.
    pub fn minus(self, delay: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time as a calendar shows it that was set by `micros` microseconds.
    pub fn shifted(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// How long ago `earlier` was; zero if it lies in the future.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_micros(u64::try_from(self.0.saturating_sub(earlier.0)).unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn arithmetic_saturates_and_never_goes_negative() {
        let time = UnixTime::from_secs(1_700_000_000);
        assert_eq!(time.plus(Duration::from_secs(60)).as_secs(), 1_700_000_060);
        assert_eq!(time.minus(Duration::from_secs(60)).as_secs(), 1_699_999_940);
        assert_eq!(time.since(time.plus(Duration::from_secs(5))), Duration::ZERO);
        assert_eq!(time.plus(Duration::MAX).as_micros(), i64::MAX);
        assert_eq!(UnixTime::from_micros(-1).as_secs(), -1);
    }
}
