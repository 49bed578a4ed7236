//! `RunningTime`: monotonic time without the time during which the process did not run.
//!
//! Sans-I/O. A process may be stopped (SIGSTOP, a debugger, a frozen container) and a board may be
//! suspended. Peers answered meanwhile, or could not be heard: none of that time counts against
//! them. A gap between two readings that no announced wait explains is such a stall.
//! Invariants: 1. the running time never goes back; 2. it stands still during a stall.

use std::time::Duration;

/// Minimum gap that counts as a stall; a busy machine delays a process by less.
pub const MIN_STALL: Duration = Duration::from_secs(1);

/// Turns readings of a monotonic clock, suspension included, into running time.
#[derive(Clone, Copy, Debug, Default)]
pub struct RunningTime {
    /// The last reading.
    last: Duration,
    /// Maximum duration of the wait that was announced since.
    wait: Duration,
    stalled: Duration,
}

impl RunningTime {
    /// Announces that the next reading may come up to `wait` later.
    pub fn announce(&mut self, wait: Duration) {
        self.wait = wait;
    }

    /// Returns the running time at the clock's reading `at`.
    pub fn read(&mut self, at: Duration) -> Duration {
        let gap = at.saturating_sub(self.last);
        if gap > self.wait.saturating_add(MIN_STALL) {
            // When in the wait the stall began is unknown: nothing of the gap counts.
            self.stalled = self.stalled.saturating_add(gap);
        }
        self.last = self.last.max(at);
        self.wait = Duration::ZERO;
        self.last - self.stalled
    }

    /// Total duration of all stalls.
    pub fn stalled(&self) -> Duration {
        self.stalled
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn ms(ms: u64) -> Duration {
        Duration::from_millis(ms)
    }

    #[test]
    fn only_time_that_no_wait_explains_is_a_stall() {
        let mut time = RunningTime::default();
        assert_eq!(time.read(ms(900)), ms(900), "a busy machine");
        time.announce(Duration::from_secs(1_800));
        assert_eq!(time.read(ms(1_800_900)), ms(1_800_900), "a deliberate wait");
        time.announce(ms(1_000));
        assert_eq!(time.read(ms(1_813_500)), ms(1_800_900), "stopped for 12 s while it waited");
        assert_eq!(time.read(ms(1_823_500)), ms(1_800_900), "stopped for 10 s while it worked");
        assert_eq!(time.stalled(), ms(22_600));
        assert_eq!(time.read(ms(1_824_000)), ms(1_801_400), "it runs on");
    }

    #[test]
    fn a_wait_without_a_bound_is_no_stall() {
        let mut time = RunningTime::default();
        time.announce(Duration::MAX);
        assert_eq!(time.read(Duration::from_secs(86_400)), Duration::from_secs(86_400));
    }

    proptest! {
        #[test]
        fn running_time_never_goes_back(steps in prop::collection::vec(
            (any::<u32>(), prop::option::of(0u64..100_000)), 0..50,
        )) {
            let (mut time, mut last) = (RunningTime::default(), Duration::ZERO);
            for (at, wait) in steps {
                if let Some(wait) = wait {
                    time.announce(ms(wait));
                }
                let read = time.read(ms(u64::from(at)));
                prop_assert!(read >= last && read + time.stalled() >= ms(u64::from(at)));
                last = read;
            }
        }
    }
}
