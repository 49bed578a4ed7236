//! `Clock`: the only place where the time is read. Everything else gets [`Now`] as an argument.
//!
//! Invariant: 1. `mono` never goes back, whatever the wall clock does.

use std::cell::Cell;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::time::{ClockId, clock_gettime};

use bitdash_core::vocabulary::running_time::RunningTime;
use bitdash_core::vocabulary::time::{Now, UnixTime};

/// Reads both clocks of the machine. `mono` includes the time of a suspended board: otherwise a
/// night's sleep would look like a step of the wall clock.
#[derive(Clone, Copy, Debug)]
pub struct Clock {
    started: Duration,
}

#[allow(clippy::disallowed_methods)] // This is the one file that may.
impl Clock {
    /// Makes a clock whose `mono` begins now, at zero. A process has one, and gives copies away.
    pub fn new() -> Self {
        Self { started: since_boot() }
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
        Now { mono: since_boot().saturating_sub(self.started), wall: UnixTime::from_micros(micros) }
    }
}

fn since_boot() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    Duration::try_from(time).expect("the time since boot is positive")
}

/// The clock of an event loop: its `mono` stands still while the process does not run, so that no
/// deadline of a peer passes meanwhile.
#[derive(Debug)]
pub struct LoopClock {
    clock: Clock,
    running: Cell<RunningTime>,
}

impl LoopClock {
    /// Makes the clock of a loop that reads it at least once a second, but for announced waits.
    pub fn new(clock: Clock) -> Self {
        let mut running = RunningTime::default();
        running.announce(Duration::MAX);
        Self { clock, running: Cell::new(running) }
    }

    /// Reads both clocks.
    pub fn now(&self) -> Now {
        let now = self.clock.now();
        let mut running = self.running.get();
        let mono = running.read(now.mono);
        self.running.set(running);
        Now { mono, wall: now.wall }
    }

    /// Announces that the next reading may come up to `wait` later.
    pub fn announce(&self, wait: Duration) {
        let mut running = self.running.get();
        running.announce(wait);
        self.running.set(running);
    }

    /// Total time during which the process did not run.
    pub fn stalled(&self) -> Duration {
        self.running.get().stalled()
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
    fn the_clock_of_a_loop_stands_still_unless_a_wait_was_announced() {
        let clock = LoopClock::new(Clock::new());
        let begin = clock.now().mono;
        std::thread::park_timeout(Duration::from_millis(1_200));
        assert_eq!(clock.now().mono, begin);
        clock.announce(Duration::from_millis(1_200));
        std::thread::park_timeout(Duration::from_millis(1_200));
        assert!(clock.now().mono > begin && clock.stalled() >= Duration::from_millis(1_200));
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
