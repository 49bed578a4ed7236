//! `Patience`: how long to wait for a candidate's connection, learned from those that came about.
//!
//! Sans-I/O: plain data, integers only. A candidate is most likely dead, and a dead one costs as
//! long as it is waited for. Nearly all that respond do so within the time learned here, a lost
//! first packet included, which is sent again after a second (RFC 6298). One that is given up too
//! early is due again, with full patience.
//!
//! Invariant: 1. what is learned is at least `MIN_PATIENCE`.

use std::time::Duration;

/// Eighths of an octave, from 8 ms to 8 s.
const STEPS: usize = 80;
/// All counts are halved at this number of connections.
const MAX_LEARNED: u32 = 4_096;
/// Nothing is known from fewer connections.
const MIN_LEARNED: u32 = 50;
/// The kernel sends the first packet again after this time.
const RETRANSMISSION: Duration = Duration::from_secs(1);
const MIN_PATIENCE: Duration = Duration::from_millis(1_250);

/// Times of connections; see the module.
#[derive(Debug)]
pub struct Patience {
    counts: [u32; STEPS],
    learned: u32,
}

impl Default for Patience {
    fn default() -> Self {
        Self { counts: [0; STEPS], learned: 0 }
    }
}

impl Patience {
    /// Handles that a connection came about after this time.
    pub fn learn(&mut self, ms: u32) {
        self.counts[step_of(ms)] += 1;
        self.learned += 1;
        if self.learned >= MAX_LEARNED {
            self.counts.iter_mut().for_each(|count| *count /= 2);
            self.learned = self.counts.iter().sum();
        }
    }

    /// How long to wait for a candidate's first connection: a retransmission, and as long as 95 %
    /// of all connections take; `None` until enough came about.
    pub fn first(&self) -> Option<Duration> {
        if self.learned < MIN_LEARNED {
            return None;
        }
        let mut left = self.learned - self.learned / 20;
        let step = self.counts.iter().position(|count| {
            let is_here = *count >= left;
            left = left.saturating_sub(*count);
            is_here
        });
        let most = Duration::from_millis(end_of(step.unwrap_or(STEPS - 1)));
        Some((RETRANSMISSION + most).max(MIN_PATIENCE))
    }
}

/// The step of a time: its octave, and the eighth within it.
fn step_of(ms: u32) -> usize {
    let ms = ms.max(8);
    let octave = ms.ilog2() - 3;
    let eighth = (ms >> octave) - 8;
    (octave as usize * 8 + eighth as usize).min(STEPS - 1)
}

/// The first millisecond after a step.
fn end_of(step: usize) -> u64 {
    (9 + step as u64 % 8) << (step / 8)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(times: impl Iterator<Item = u32>) -> Option<Duration> {
        let mut patience = Patience::default();
        times.for_each(|ms| patience.learn(ms));
        patience.first()
    }

    #[test]
    fn steps_are_in_order_and_an_eighth_wide() {
        for ms in 8..8_000 {
            let step = step_of(ms);
            assert!(end_of(step) > u64::from(ms), "{ms}");
            assert!(end_of(step) <= u64::from(ms) * 9 / 8 + 1, "{ms}: {}", end_of(step));
            assert!(step_of(ms + 1) >= step);
        }
        assert_eq!(step_of(u32::MAX), STEPS - 1);
    }

    #[test]
    fn patience_follows_the_slowest_connections_and_has_a_minimum() {
        assert_eq!(after(std::iter::repeat_n(100, 49)), None, "too few");
        let times = |fast: usize, slow: usize, ms| {
            after(std::iter::repeat_n(20, fast).chain(std::iter::repeat_n(ms, slow)))
        };
        assert_eq!(times(100, 0, 0), Some(MIN_PATIENCE));
        assert_eq!(times(100, 3, 2_000), Some(MIN_PATIENCE), "a few are given up");
        let slow = times(100, 10, 600).unwrap();
        assert!((1_600..1_700).contains(&slow.as_millis()), "{slow:?}");
        assert!(times(0, 60, u32::MAX).unwrap() < Duration::from_secs(10));
    }

    #[test]
    fn old_connections_fade() {
        let slow = std::iter::repeat_n(2_000, 4_000);
        let fast = std::iter::repeat_n(50, 40_000);
        assert_eq!(after(slow.chain(fast)), Some(MIN_PATIENCE));
    }
}
