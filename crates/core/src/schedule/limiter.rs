//! `Limiter`: when the next connection may start.
//!
//! Sans-I/O, driven by the `Crawler`. It looks at the recent window only: unused time, or a
//! suspended machine, earns no burst. Invariants: 1. no window of one second has more than
//! `per_second` starts; 2. no window of 50 ms has more than a twentieth of that, rounded up: bursts
//! are what overloads a router.

use std::collections::VecDeque;
use std::time::Duration;

/// Limits the start of connections.
#[derive(Debug)]
pub struct Limiter {
    per_second: usize,
    /// The newest starts, sorted: those of the last second, and at least `per_second` of them.
    starts: VecDeque<Duration>,
}

const SECOND: Duration = Duration::from_secs(1);
const SLICE: Duration = Duration::from_millis(50);

impl Limiter {
    /// Makes a limiter; 0 means no limit.
    pub fn new(per_second: u32) -> Self {
        Self { per_second: per_second as usize, starts: VecDeque::new() }
    }

    /// Changes the limit; former starts still count.
    pub fn set(&mut self, per_second: u32) {
        self.per_second = per_second as usize;
        self.trim();
    }

    /// Returns when the next connection may start; not later than `now` means at once.
    pub fn next(&self, now: Duration) -> Duration {
        if self.per_second == 0 {
            return now;
        }
        let slice = self.per_second.div_ceil(20);
        let second = self.bound(self.per_second, SECOND);
        second.max(self.bound(slice, SLICE)).unwrap_or(now)
    }

    /// Records a start. Call it only when [`Limiter::next`] allows it.
    pub fn start(&mut self, now: Duration) {
        self.starts.push_back(now);
        self.trim();
    }

    /// When the `count`-th newest start is `window` old.
    fn bound(&self, count: usize, window: Duration) -> Option<Duration> {
        let index = self.starts.len().checked_sub(count)?;
        self.starts.get(index).map(|start| *start + window)
    }

    fn trim(&mut self) {
        // A limit that was lower for a moment must not make it forget other starts of this second.
        let newest = self.starts.back().copied().unwrap_or_default();
        while self.starts.len() > self.per_second
            && self.starts.front().is_some_and(|start| *start + SECOND <= newest)
        {
            self.starts.pop_front();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn most_in_any(window: Duration, starts: &[Duration]) -> usize {
        let ends = |from: usize| starts[from..].partition_point(|at| *at < starts[from] + window);
        (0..starts.len()).map(ends).max().unwrap_or(0)
    }

    #[test]
    fn no_window_holds_more_than_its_share_even_after_a_pause() {
        for per_second in [1, 3, 7, 100, 400] {
            let mut limiter = Limiter::new(per_second);
            let mut rng = fastrand::Rng::with_seed(u64::from(per_second));
            let (mut now, mut starts) = (Duration::ZERO, Vec::new());
            while now < Duration::from_secs(60) {
                while limiter.next(now) <= now {
                    limiter.start(now);
                    starts.push(now);
                }
                let pause = if rng.u32(..5_000) == 0 { 3_000_000 } else { rng.u64(100..9_000) };
                now += Duration::from_micros(pause);
            }
            assert!(most_in_any(SECOND, &starts) <= per_second as usize);
            assert!(most_in_any(SLICE, &starts) <= (per_second as usize).div_ceil(20));
            assert!(starts.len() > per_second as usize * 25, "{per_second}: {}", starts.len());
        }
    }

    #[test]
    fn a_limit_holds_although_it_changed_within_the_second() {
        for detour in [0, 1, 7] {
            let mut limiter = Limiter::new(400);
            let now = Duration::from_secs(5);
            for number in 0..20 {
                limiter.start(now + Duration::from_micros(number));
            }
            limiter.set(detour);
            limiter.set(7);
            let next = limiter.next(now + Duration::from_millis(500));
            assert!(next >= now + SECOND, "{next:?} after a limit of {detour}");
        }
        let mut limiter = Limiter::new(0);
        (0..100_000).for_each(|number| limiter.start(Duration::from_millis(number)));
        assert!(limiter.starts.len() <= 1_001, "no more than a second is remembered");
    }

    #[test]
    fn a_change_of_the_limit_takes_effect_at_once() {
        let mut limiter = Limiter::new(0);
        let now = Duration::from_secs(5);
        limiter.start(now);
        assert_eq!(limiter.next(now), now);
        limiter.set(1);
        limiter.start(now);
        assert_eq!(limiter.next(now), now + SECOND);
        limiter.set(0);
        assert_eq!(limiter.next(now), now);
    }
}
