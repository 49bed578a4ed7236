//! `Life`: when a node is up.
//!
//! Layer 2: pure. Invariant: 1. the stretches of a life are in order and do not touch.

use super::{ChurnParams, DAY};

/// How reliable a node is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mood {
    /// Up for 30 days, down for an hour, in the mean.
    Stable,
    /// Up for 6 hours, down for 2.
    Flapping,
}

impl Mood {
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
    /// How reliable it is.
    pub mood: Mood,
    /// When it begins; negative for those of the start.
    pub born: i64,
    /// When it ends for good.
    pub gone: i64,
    /// When it is up: from, to.
    pub stretches: Vec<(i64, i64)>,
}

impl Life {
    /// Whether the node is up.
    pub fn is_up(&self, at: i64) -> bool {
        self.stretch(at).is_some()
    }

    /// In which stretch of being up a time lies.
    pub fn stretch(&self, at: i64) -> Option<usize> {
        let behind = self.stretches.partition_point(|(from, _)| *from <= at);
        behind.checked_sub(1).filter(|place| at < self.stretches[*place].1)
    }
}

/// Draws all lives: of those that live at the start, those that are gone then, and those that are born later.
pub(super) fn draw(params: &ChurnParams, rng: &mut fastrand::Rng) -> Vec<Life> {
    let share = params.stable_share;
    let availability =
        share * Mood::Stable.availability() + (1.0 - share) * Mood::Flapping.availability();
    let alive = (params.up as f64 / availability).round() as usize;
    let per_day = params.births_per_day.max(1e-9);
    let age = alive as f64 / per_day * DAY;
    let end = (params.days * DAY) as i64;
    let mood = |rng: &mut fastrand::Rng| {
        if rng.f64() < share { Mood::Stable } else { Mood::Flapping }
    };
    let mut lives = Vec::new();
    for _ in 0..alive {
        let gone = exponential(age, rng) as i64 + 1;
        let mood = mood(rng);
        let is_up = rng.f64() < mood.availability();
        let stretches = stretches(mood, is_up, (0, gone.min(end)), rng);
        lives.push(Life { mood, born: -1 - exponential(age, rng) as i64, gone, stretches });
    }
    for dead in 0..params.ever.saturating_sub(alive) {
        let gone = -(1 + (dead as f64 / per_day * DAY) as i64);
        let born = gone - exponential(age, rng) as i64;
        lives.push(Life { mood: mood(rng), born, gone, stretches: Vec::new() });
    }
    let mut born = exponential(DAY / per_day, rng);
    while (born as i64) < end {
        let gone = born as i64 + exponential(age, rng) as i64 + 1;
        let mood = mood(rng);
        let stretches = stretches(mood, true, (born as i64, gone.min(end)), rng);
        lives.push(Life { mood, born: born as i64, gone, stretches });
        born += exponential(DAY / per_day, rng);
    }
    lives
}

/// The times of being up between the two times.
fn stretches(
    mood: Mood,
    mut is_up: bool,
    (from, to): (i64, i64),
    rng: &mut fastrand::Rng,
) -> Vec<(i64, i64)> {
    let (up, down) = mood.means();
    let mut stretches = Vec::new();
    let mut at = from;
    while at < to {
        let length = exponential(if is_up { up } else { down }, rng).ceil() as i64;
        let end = at.saturating_add(length.max(1)).min(to);
        if is_up {
            // What is up at the start was up before.
            let begin = if at == 0 && from == 0 { -1 } else { at };
            stretches.push((begin, end));
        }
        is_up = !is_up;
        at = end;
    }
    // The end of what was drawn is not the end of being up.
    stretches
}

fn exponential(mean: f64, rng: &mut fastrand::Rng) -> f64 {
    -mean * (1.0 - rng.f64()).ln()
}
