//! `Census`: what the crawl's rows say of the nodes, held against what the living network knows to be true.
//!
//! Layer 2: pure. It reads the batches, as the database would. Invariant: 1. a time to be seen is counted from
//! the truth's moment to the `seen` of the first row behind it; what was never seen is not left out but cut off at
//! the moment from which it could no longer be seen (product-limit estimate).

use crate::crawl::batch::{Batch, Status};
use crate::simnet::churn::Churn;
use crate::simnet::world::WALL;

/// What is known of all nodes.
#[derive(Debug)]
pub struct Census {
    nodes: Vec<Row>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    is_up: bool,
    first_seen: Option<i64>,
    /// For each stretch of being up, when it was seen first.
    seen: Vec<Option<i64>>,
    /// Whether the database knew it from the start.
    was_known: bool,
}

/// A time to be seen, in seconds; not seen within it if `is_seen` is false.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Delay {
    /// The seconds.
    pub seconds: i64,
    /// Whether it was seen then.
    pub is_seen: bool,
}

/// How the map compares with the truth at a moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Nodes up.
    pub up: usize,
    /// Of these, known as up.
    pub known_as_up: usize,
    /// Known as up, but down.
    pub wrongly_up: usize,
}

impl Standing {
    /// The share of the nodes up that are known as up.
    pub fn share(&self) -> f64 {
        self.known_as_up as f64 / self.up.max(1) as f64
    }
}

impl Census {
    /// Knows nothing yet; with `all_known`, that a full database knows all nodes of the start.
    pub fn new(churn: &Churn, all_known: bool) -> Self {
        let row = |life: &crate::simnet::churn::Life| Row {
            seen: vec![None; life.stretches.len()],
            was_known: all_known && life.born < 0,
            is_up: all_known && life.is_up(-1),
            ..Row::default()
        };
        Self { nodes: churn.lives().iter().map(row).collect() }
    }

    /// Reads a batch.
    pub fn read(&mut self, churn: &Churn, batch: &Batch) {
        for (address, row) in &batch.nodes {
            let Some(at) = churn.find(*address) else { continue };
            let node = &mut self.nodes[at];
            node.is_up = row.status == Status::Up;
            let Some(seen) = &row.seen else { continue };
            let time = seen.at.as_secs() - i64::from(WALL);
            node.first_seen.get_or_insert(time);
            // The answer may come a moment after the node went down.
            let stretch = churn.lives()[at].stretch(time).or(churn.lives()[at].stretch(time - 90));
            if let Some(stretch) = stretch {
                node.seen[stretch].get_or_insert(time);
            }
        }
    }

    /// How the map compares with the truth `now` seconds after the start.
    pub fn standing(&self, churn: &Churn, now: i64) -> Standing {
        let mut standing = Standing::default();
        for (node, life) in self.nodes.iter().zip(churn.lives()) {
            let is_up = life.is_up(now);
            standing.up += usize::from(is_up);
            standing.known_as_up += usize::from(is_up && node.is_up);
            standing.wrongly_up += usize::from(!is_up && node.is_up);
        }
        standing
    }

    /// When the nodes of the start that were up then were seen first.
    pub fn discoveries(&self, churn: &Churn, now: i64) -> Vec<Delay> {
        let rows = self.nodes.iter().enumerate().zip(churn.lives());
        let honest = |at: usize| !churn.floods(at);
        rows.filter(|((at, _), life)| life.is_up(0) && honest(*at))
            .map(|((_, node), _)| delay(0, node.first_seen, now))
            .collect()
    }

    /// How long known nodes that came back had to wait to be seen, up to `now`.
    pub fn returns(&self, churn: &Churn, now: i64) -> Vec<Delay> {
        let mut delays = Vec::new();
        for (node, life) in self.nodes.iter().zip(churn.lives()) {
            let known_from = if node.was_known { Some(i64::MIN) } else { node.first_seen };
            for (stretch, (from, to)) in life.stretches.iter().enumerate() {
                let is_return = *from >= 0 && *from != life.born && *from < now;
                if is_return && known_from.is_some_and(|known| known < *from) {
                    delays.push(delay(*from, node.seen[stretch], now.min(*to)));
                }
            }
        }
        delays
    }

    /// How long nodes that were born had to wait to be seen, up to `now`.
    pub fn births(&self, churn: &Churn, now: i64) -> Vec<Delay> {
        let rows = self.nodes.iter().zip(churn.lives());
        rows.filter(|(_, life)| (0..now).contains(&life.born))
            .map(|(node, life)| delay(life.born, node.first_seen, now.min(life.gone)))
            .collect()
    }
}

/// The time within which a share of the delays ends, by the product-limit estimate; `None` if that lies beyond
/// what was watched.
pub fn quantile(delays: &[Delay], share: f64) -> Option<i64> {
    let mut sorted = delays.to_vec();
    sorted.sort_by_key(|delay| (delay.seconds, !delay.is_seen));
    let mut waiting = 1.0;
    for (place, delay) in sorted.iter().enumerate() {
        if delay.is_seen {
            waiting *= 1.0 - 1.0 / (sorted.len() - place) as f64;
            if waiting <= 1.0 - share + 1e-9 {
                return Some(delay.seconds);
            }
        }
    }
    None
}

fn delay(from: i64, seen: Option<i64>, end: i64) -> Delay {
    match seen {
        Some(seen) => Delay { seconds: (seen - from).max(0), is_seen: true },
        None => Delay { seconds: (end - from).max(0), is_seen: false },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_count_those_who_left_unseen_as_long_as_they_were_there() {
        let seen = |seconds| Delay { seconds, is_seen: true };
        let left = |seconds| Delay { seconds, is_seen: false };
        let all: Vec<Delay> = (1..=100).map(seen).collect();
        assert_eq!(quantile(&all, 0.5), Some(50));
        assert_eq!(quantile(&all, 0.99), Some(99));
        // Those who leave at once say nothing; those who were there to the end and not seen do.
        let early: Vec<Delay> = (0..50).map(|_| left(0)).chain(all.clone()).collect();
        assert_eq!(quantile(&early, 0.5), Some(50));
        let never: Vec<Delay> = (0..100).map(|_| left(1_000)).chain(all).collect();
        assert_eq!(quantile(&never, 0.5), Some(100));
        assert_eq!(quantile(&never, 0.6), None);
        assert_eq!(quantile(&[], 0.5), None);
    }
}
