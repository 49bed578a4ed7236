//! Deadlines of many sessions: a heap with lazy deletion.
//!
//! Sans-I/O, driven by the event loop and the simulation. A deadline that moved or was cleared
//! stays in the heap until it comes up and is discarded then, so setting one costs O(log n) and
//! clearing one nothing. Invariants: 1. `pop_due` returns each armed key at most once per arming;
//! 2. it returns no key before its deadline;
//! 3. the heap holds at most the armed keys and as many stale entries, plus a constant.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::time::Duration;

/// One deadline per key.
#[derive(Debug, Default)]
pub struct Timers {
    heap: BinaryHeap<Reverse<(Duration, usize)>>,
    /// Current deadline of each key. Keys are those of a slab, so they are small.
    armed: Vec<Option<Duration>>,
    live: usize,
}

impl Timers {
    /// Makes an empty set.
    pub fn new() -> Self {
        Self::default()
    }

    /// Sets or clears the deadline of `key`. Setting the same one again costs nothing.
    pub fn set(&mut self, key: usize, deadline: Option<Duration>) {
        if key >= self.armed.len() {
            if deadline.is_none() {
                return;
            }
            self.armed.resize(key.saturating_add(1), None);
        }
        let slot = self.armed.get_mut(key).expect("the vector was extended to this key");
        if *slot == deadline {
            return;
        }
        self.live = self.live + usize::from(deadline.is_some()) - usize::from(slot.is_some());
        *slot = deadline;
        if let Some(deadline) = deadline {
            self.heap.push(Reverse((deadline, key)));
        }
        self.sweep();
        self.check_invariants();
    }

    /// Returns the earliest deadline.
    pub fn earliest(&mut self) -> Option<Duration> {
        while let Some(&Reverse((deadline, key))) = self.heap.peek() {
            if self.is_armed(key, deadline) {
                return Some(deadline);
            }
            self.heap.pop();
        }
        None
    }

    /// Removes the timer of a key whose deadline has passed, and returns the key.
    pub fn pop_due(&mut self, now: Duration) -> Option<usize> {
        let deadline = self.earliest()?;
        if deadline > now {
            return None;
        }
        let Reverse((_, key)) = self.heap.pop()?;
        *self.armed.get_mut(key).expect("the earliest deadline is armed") = None;
        self.live -= 1;
        self.sweep();
        self.check_invariants();
        Some(key)
    }

    /// Number of keys with a deadline.
    pub fn len(&self) -> usize {
        self.live
    }

    /// Whether no key has a deadline.
    pub fn is_empty(&self) -> bool {
        self.live == 0
    }

    fn is_armed(&self, key: usize, deadline: Duration) -> bool {
        self.armed.get(key).copied().flatten() == Some(deadline)
    }

    fn check_invariants(&self) {
        debug_assert!(self.live <= self.heap.len(), "every armed key is in the heap");
        debug_assert!(self.heap.len() <= 2 * self.live + 1_024, "stale entries are swept");
    }

    /// Removes the stale entries once they are too many.
    fn sweep(&mut self) {
        if self.heap.len() <= 2 * self.live + 1_024 {
            return;
        }
        let armed = &self.armed;
        self.heap.retain(|&Reverse((deadline, key))| {
            armed.get(key).copied().flatten() == Some(deadline)
        });
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn only_the_newest_deadline_of_a_key_fires_and_only_once() {
        let mut timers = Timers::new();
        timers.set(3, Some(secs(5)));
        timers.set(3, Some(secs(9)));
        timers.set(1, Some(secs(7)));
        timers.set(2, Some(secs(6)));
        timers.set(2, None);
        assert_eq!(timers.earliest(), Some(secs(7)));
        assert_eq!(timers.pop_due(secs(6)), None);
        assert_eq!(timers.pop_due(secs(20)), Some(1));
        assert_eq!(timers.pop_due(secs(20)), Some(3));
        assert_eq!(timers.pop_due(secs(20)), None);
        assert!(timers.is_empty());
    }

    #[test]
    fn stale_entries_are_bounded_after_a_deadline_fired_too() {
        let mut timers = Timers::new();
        timers.set(0, Some(secs(1)));
        for later in 0..1_027 {
            timers.set(1, Some(secs(10 + later)));
        }
        assert_eq!(timers.pop_due(secs(1)), Some(0));
        assert!(timers.heap.len() <= 1_026, "{}", timers.heap.len());
    }

    #[test]
    fn agrees_with_a_naive_model_and_stays_small() {
        let mut rng = fastrand::Rng::with_seed(7);
        let (mut timers, mut model) = (Timers::new(), BTreeMap::<usize, Duration>::new());
        let mut now = secs(0);
        for _ in 0..50_000 {
            let key = rng.usize(..200);
            match rng.u8(..4) {
                0 => {
                    timers.set(key, None);
                    model.remove(&key);
                }
                1 => {
                    now += Duration::from_millis(rng.u64(..300));
                    while let Some(key) = timers.pop_due(now) {
                        assert!(model.remove(&key).is_some_and(|deadline| deadline <= now));
                    }
                    assert!(model.values().all(|deadline| *deadline > now));
                }
                _ => {
                    let deadline = now + Duration::from_millis(rng.u64(1..5_000));
                    timers.set(key, Some(deadline));
                    model.insert(key, deadline);
                }
            }
            assert_eq!(timers.earliest(), model.values().min().copied());
            assert_eq!(timers.len(), model.len());
            assert!(timers.heap.len() <= 2 * 200 + 1_025);
        }
    }
}
