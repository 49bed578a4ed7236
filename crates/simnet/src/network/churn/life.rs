//! `Life`: when a node is up. Sans-I/O.
//!
//! Invariant: 1. The stretches of a life are in order and do not touch.

use super::{ChurnParams, DAY};

/// How reliable a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reliability {
    /// Up for 30 days, down for an hour, on average.
    Stable,
    /// Up for 6 hours, down for 2, on average.
    Flapping,
}

impl Reliability {
    /// The mean times up and down, in seconds.
    pub fn means(self) -> (f64, f64) {
        match self {
            Self::Stable => (30.0 * DAY, 3_600.0),
            Self::Flapping => (6.0 * 3_600.0, 2.0 * 3_600.0),
        }
    }

    /// The share of its life that a node is up.
    pub fn availability(self) -> f64 {
        let (up, down) = self.means();
        up / (up + down)
    }
}

/// The life of a node, in seconds since the start of the network.
#[derive(Clone, PartialEq, Debug)]
pub struct Life {
    /// How reliable the node is.
    pub reliability: Reliability,
    /// When it was born; negative if it was alive at the start.
    pub born: i64,
    /// When it is gone for good.
    pub gone: i64,
    /// The times when it is up, from and to.
    pub stretches: Vec<(i64, i64)>,
}

impl Life {
    /// Whether the node is up.
    pub fn is_up(&self, at: i64) -> bool {
        self.stretch(at).is_some()
    }

    /// The stretch that contains a time.
    pub fn stretch(&self, at: i64) -> Option<usize> {
        let behind = self.stretches.partition_point(|(from, _)| *from <= at);
        behind.checked_sub(1).filter(|place| at < self.stretches[*place].1)
    }

    /// The last stretch that began before `at`; before the start it was up all its life.
    pub fn last_stretch(&self, at: f64) -> (f64, f64) {
        let behind = self.stretches.partition_point(|(from, _)| (*from as f64) <= at);
        match behind.checked_sub(1).map(|place| self.stretches[place]) {
            Some((-1, to)) => (self.born as f64, to as f64),
            Some((from, to)) => (from as f64, to as f64),
            None => (self.born as f64, (self.gone as f64).min(at)),
        }
    }
}

/// Draws all lives: of nodes alive at the start, gone by then, and born later.
pub(super) fn draw(params: &ChurnParams, rng: &mut fastrand::Rng) -> Vec<Life> {
    let share = params.stable_share;
    let availability = share * Reliability::Stable.availability()
        + (1.0 - share) * Reliability::Flapping.availability();
    let alive = (params.up as f64 / availability).round() as usize;
    let per_day = params.births_per_day.max(1e-9);
    let age = alive as f64 / per_day * DAY;
    let end = (params.days * DAY) as i64;
    let reliability = |rng: &mut fastrand::Rng| {
        if rng.f64() < share { Reliability::Stable } else { Reliability::Flapping }
    };
    let mut lives = Vec::new();
    for _ in 0..alive {
        let gone = exponential(age, rng) as i64 + 1;
        let reliability = reliability(rng);
        let is_up = rng.f64() < reliability.availability();
        let stretches = stretches(reliability, is_up, (0, gone.min(end)), rng);
        lives.push(Life { reliability, born: -1 - exponential(age, rng) as i64, gone, stretches });
    }
    for dead in 0..params.ever.saturating_sub(alive) {
        let gone = -(1 + (dead as f64 / per_day * DAY) as i64);
        let born = gone - exponential(age, rng) as i64;
        lives.push(Life { reliability: reliability(rng), born, gone, stretches: Vec::new() });
    }
    let mut born = exponential(DAY / per_day, rng);
    while (born as i64) < end {
        let gone = born as i64 + exponential(age, rng) as i64 + 1;
        let reliability = reliability(rng);
        let stretches = stretches(reliability, true, (born as i64, gone.min(end)), rng);
        lives.push(Life { reliability, born: born as i64, gone, stretches });
        born += exponential(DAY / per_day, rng);
    }
    lives
}

/// Draws the stretches between two times.
fn stretches(
    reliability: Reliability,
    mut is_up: bool,
    (from, to): (i64, i64),
    rng: &mut fastrand::Rng,
) -> Vec<(i64, i64)> {
    let (up, down) = reliability.means();
    let mut stretches = Vec::new();
    let mut at = from;
    while at < to {
        let length = exponential(if is_up { up } else { down }, rng).ceil() as i64;
        let end = at.saturating_add(length.max(1)).min(to);
        if is_up {
            // A node that is up at the start was up before.
            let begin = if at == 0 && from == 0 { -1 } else { at };
            stretches.push((begin, end));
        }
        is_up = !is_up;
        at = end;
    }
    stretches
}

fn exponential(mean: f64, rng: &mut fastrand::Rng) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}
