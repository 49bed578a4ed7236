//! `Clock`: the only place where the time is read. Everything else gets [`Now`] as an argument.
//!
//! Invariant: 1. `mono` never goes back, whatever the wall clock does.

use std::time::{Instant, SystemTime, UNIX_EPOCH};

use bitdash_core::vocabulary::time::{Now, UnixTime};

/// Reads both clocks of the machine.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Instant,
}

#[allow(clippy::disallowed_methods)] // This is the one file that may.
impl Clock {
    /// Makes a clock whose `mono` begins now, at zero. A process has one, and gives copies away.
    pub fn new() -> Self {
        Self { started: Instant::now() }
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        // A board without a battery may believe to live before 1970.
        let micros = match SystemTime::now().duration_since(UNIX_EPOCH) {
            Ok(since) => i64::try_from(since.as_micros()).unwrap_or(i64::MAX),
            Err(before) => {
                i64::try_from(before.duration().as_micros()).map_or(i64::MIN, |micros| -micros)
            }
        };
        Now { mono: self.started.elapsed(), wall: UnixTime::from_micros(micros) }
    }
}

/// When this program was built: a wall clock that shows less is wrong.
pub fn built_at() -> UnixTime {
    UnixTime::from_secs(env!("BITDASH_BUILT_AT").parse().unwrap_or(0))
}

impl Default for Clock {
    fn default() -> Self {
        Self::new()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mono_starts_near_zero_and_never_goes_back() {
        let clock = Clock::new();
        let mut last = clock.now().mono;
        assert!(last.as_secs() < 60);
        for _ in 0..1000 {
            let now = clock.now().mono;
            assert!(now >= last);
            last = now;
        }
    }

    #[test]
    fn the_program_was_built_before_it_runs() {
        assert!(built_at() > UnixTime::from_secs(1_700_000_000));
        assert!(built_at() <= Clock::new().now().wall);
    }

    #[test]
    fn wall_is_the_wall_clock() {
        let written = tempfile::NamedTempFile::new().unwrap();
        let modified = written.as_file().metadata().unwrap().modified().unwrap();
        let by_file = modified.duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        assert!((Clock::new().now().wall.as_secs() - by_file).abs() <= 60);
    }
}
