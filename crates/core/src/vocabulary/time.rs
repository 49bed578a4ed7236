//! Time, which every machine takes as an argument.
//!
//! Sans-I/O: plain data. `mono` counts from the start of the process and never jumps: deadlines use
//! it. `wall` jumps on a board without a battery: only stored times use it.

use std::time::Duration;

/// One reading of both clocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Now {
    /// Time since the process (or the simulation) began.
    pub mono: Duration,
    /// The wall clock.
    pub wall: UnixTime,
}

/// A wall clock time in microseconds since 1970-01-01 UTC, like PostgreSQL's `timestamptz`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct UnixTime(i64);

impl UnixTime {
    /// Creates a time from microseconds since the epoch.
    pub const fn from_micros(micros: i64) -> Self {
        Self(micros)
    }

    /// Creates a time from whole seconds since the epoch.
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

    /// The time `delay` later, saturating.
    pub fn plus(self, delay: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time `delay` earlier, saturating.
    pub fn minus(self, delay: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(delay.as_micros()).unwrap_or(i64::MAX)))
    }

    /// The time shifted by `micros` microseconds, saturating.
    pub fn shifted(self, micros: i64) -> Self {
        Self(self.0.saturating_add(micros))
    }

    /// The time since `earlier`; zero if it lies in the future.
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
