//! Exponential back-off of addresses that failed.
//!
//! Sans-I/O: pure functions. Invariants:
//! 1. A delay is at most 1.25 times the maximum that applies.
//! 2. Before jitter, one more failure never shortens the delay.

use std::time::Duration;

/// The keys `backoff.*`.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct BackoffParams {
    /// Delay of a candidate after its first failure.
    pub base: Duration,
    /// Growth of the delay per further failure.
    pub factor: f64,
    /// Maximum delay of a candidate.
    pub max: Duration,
    /// Delay of a node after its first failure.
    pub node_base: Duration,
    /// Maximum delay of a node.
    pub node_max: Duration,
    /// Maximum delay of a node that has been silent for [`LOST_THRESHOLD`].
    pub lost_max: Duration,
}

/// A node that has been silent for this long counts as lost.
pub const LOST_THRESHOLD: Duration = Duration::from_secs(7 * 86_400);

/// Relative jitter of a delay, so that addresses that failed together are not due together.
pub const JITTER: f64 = 0.25;

/// The delay after `failures` consecutive failures. `silent` is the time since a node's last
/// response, `None` for a candidate. `jitter` lies between 0 and 1, the ends of ±[`JITTER`].
pub fn delay(
    params: &BackoffParams,
    failures: u32,
    silent: Option<Duration>,
    jitter: f64,
) -> Duration {
    let (base, bound) = match silent {
        None => (params.base, params.max),
        Some(silent) if silent >= LOST_THRESHOLD => (params.node_base, params.lost_max),
        Some(_) => (params.node_base, params.node_max),
    };
    let exponent = i32::try_from(failures.saturating_sub(1)).unwrap_or(i32::MAX);
    let wanted = base.as_secs_f64() * params.factor.powi(exponent);
    // `min` also handles an overflow to infinity.
    spread(Duration::from_secs_f64(wanted.min(bound.as_secs_f64())), jitter)
}

/// `wait` with jitter: 0.75 times `wait` for a `place` of 0, 1.25 times for 1.
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
    fn delay_of_candidates_doubles_up_to_the_maximum() {
        let hours = |failures| delay(&PARAMS, failures, None, 0.5).as_secs() / HOUR;
        assert_eq!([1, 2, 3, 9, 10, 40].map(hours), [1, 2, 4, 256, 336, 336]);
        assert_eq!(hours(u32::MAX), 336, "no overflow");
        assert_eq!(hours(0), 1);
    }

    #[test]
    fn nodes_are_retried_hourly_and_daily_once_lost() {
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
