//! How long an address that failed is left alone.
//!
//! Layer 1: a pure function. Invariants: 1. never longer than 1.25 times the bound that applies;
//! 2. before jitter, one more failure never makes the wait shorter.

use std::time::Duration;

/// The keys `backoff.*`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffParams {
    /// The wait of a candidate after its first failure.
    pub base: Duration,
    /// By how much each further failure multiplies it.
    pub factor: f64,
    /// Its bound.
    pub max: Duration,
    /// The wait of a node after its first failure.
    pub node_base: Duration,
    /// Its bound.
    pub node_max: Duration,
    /// Its bound once the node was silent for [`LOST_AFTER`].
    pub lost_max: Duration,
}

/// After so long without an answer a node counts as lost.
pub const LOST_AFTER: Duration = Duration::from_secs(7 * 86_400);

/// The share by which a wait is drawn longer or shorter, so that what failed together is not due together.
pub const JITTER: f64 = 0.25;

/// The wait after the `failures`-th failure in a row. `silent` is how long a node has not answered, `None` for
/// a candidate. `jitter` lies between 0 and 1: the place within plus and minus [`JITTER`].
pub fn delay(
    params: &BackoffParams,
    failures: u32,
    silent: Option<Duration>,
    jitter: f64,
) -> Duration {
    let (base, bound) = match silent {
        None => (params.base, params.max),
        Some(silent) if silent >= LOST_AFTER => (params.node_base, params.lost_max),
        Some(_) => (params.node_base, params.node_max),
    };
    let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
    let wanted = base.as_secs_f64() * params.factor.powi(exponent);
    // `min` also turns an overflow to infinity into the bound.
    spread(Duration::from_secs_f64(wanted.min(bound.as_secs_f64())), jitter)
}

/// `wait` with jitter: `place` 0 gives 0.75 times, 1 gives 1.25 times the wait.
pub fn spread(wait: Duration, place: f64) -> Duration {
    wait.mul_f64(1.0 - JITTER + 2.0 * JITTER * place.clamp(0.0, 1.0))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: u64 = 3_600;
    const PARAMS: BackoffParams = BackoffParams {
        base: Duration::from_secs(HOUR),
        factor: 2.0,
        max: Duration::from_secs(14 * 24 * HOUR),
        node_base: Duration::from_secs(600),
        node_max: Duration::from_secs(HOUR),
        lost_max: Duration::from_secs(24 * HOUR),
    };

    #[test]
    fn candidates_wait_twice_as_long_each_time_up_to_the_bound() {
        let hours = |failures| delay(&PARAMS, failures, None, 0.5).as_secs() / HOUR;
        assert_eq!([1, 2, 3, 9, 10, 40].map(hours), [1, 2, 4, 256, 336, 336]);
        assert_eq!(hours(u32::MAX), 336, "no overflow");
        assert_eq!(hours(0), 1);
    }

    #[test]
    fn nodes_are_tried_hourly_and_daily_once_lost() {
        let minutes = |failures, silent_days: u64| {
            let silent = Duration::from_secs(silent_days * 24 * HOUR);
            delay(&PARAMS, failures, Some(silent), 0.5).as_secs() / 60
        };
        assert_eq!([1, 2, 3, 4, 9].map(|k| minutes(k, 6)), [10, 20, 40, 60, 60]);
        assert_eq!(minutes(30, 7), 24 * 60);
    }

    #[test]
    fn jitter_stays_within_a_quarter() {
        for place in [0.0, 0.3, 1.0, 7.0, -1.0] {
            let wait = delay(&PARAMS, 1, None, place).as_secs_f64() / HOUR as f64;
            assert!((0.75..=1.25).contains(&wait), "{wait}");
        }
        assert_eq!(spread(Duration::from_secs(100), 0.0), Duration::from_secs(75));
        assert_eq!(spread(Duration::from_secs(100), 1.0), Duration::from_secs(125));
    }
}
