//! `Accuracy`: how well the crawl's rows match the state of a [`Churn`] over time. Sans-I/O.
//!
//! It reads the batches, as the database would. The time until a node is seen runs from the event
//! to the `seen` of the first row after it. Nodes that were never seen are not left out but
//! censored when they could no longer be seen (product-limit estimate).

use crate::network::churn::Churn;
use crate::network::world::WALL;
use bitdash_core::vocabulary::rows::{Batch, Status};

/// The state of all nodes as recorded.
#[derive(Debug)]
pub struct Accuracy {
    nodes: Vec<Row>,
}

#[derive(Clone, Debug, Default)]
struct Row {
    is_up: bool,
    first_seen: Option<i64>,
    /// When the node was first seen in each stretch.
    seen: Vec<Option<i64>>,
    /// Whether the database contained it at the start.
    was_known: bool,
}

/// Time until a node was seen; if `is_seen` is false it was not seen within that time.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Delay {
    /// The seconds.
    pub seconds: i64,
    /// Whether it was seen at the end of that time.
    pub is_seen: bool,
}

/// The map compared with the network at one time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Standing {
    /// Nodes up.
    pub up: usize,
    /// Those of them that are recorded as up.
    pub known_as_up: usize,
    /// Nodes that are recorded as up and are down.
    pub wrongly_up: usize,
}

impl Standing {
    /// Share of the nodes up that are recorded as up.
    pub fn share(&self) -> f64 {
        self.known_as_up as f64 / self.up.max(1) as f64
    }
}

impl Accuracy {
    /// Starts with an empty database, or with one that has all nodes of the start.
    pub fn new(churn: &Churn, all_known: bool) -> Self {
        let row = |life: &crate::network::churn::Life| Row {
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
            // The response may arrive a moment after the node went down.
            let stretch = churn.lives()[at].stretch(time).or(churn.lives()[at].stretch(time - 90));
            if let Some(stretch) = stretch {
                node.seen[stretch].get_or_insert(time);
            }
        }
    }

    /// Compares the map with the network `now` seconds after the start.
    pub fn standing(&self, churn: &Churn, now: i64) -> Standing {
        let mut standing = Standing::default();
        for (at, (node, life)) in self.nodes.iter().zip(churn.lives()).enumerate() {
            let is_up = life.is_up(now) && !churn.is_liar(at);
            standing.up += usize::from(is_up);
            standing.known_as_up += usize::from(is_up && node.is_up);
            standing.wrongly_up += usize::from(!life.is_up(now) && node.is_up);
        }
        standing
    }

    /// Time until the honest nodes that were up at the start were seen.
    pub fn discoveries(&self, churn: &Churn, now: i64) -> Vec<Delay> {
        let rows = self.nodes.iter().enumerate().zip(churn.lives());
        let honest = |at: usize| !churn.floods(at) && !churn.is_liar(at);
        rows.filter(|((at, _), life)| life.is_up(0) && honest(*at))
            .map(|((_, node), _)| delay(0, node.first_seen, now))
            .collect()
    }

    /// Time until known nodes that came back were seen, up to `now`.
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

    /// Time until new nodes were seen, up to `now`.
    pub fn births(&self, churn: &Churn, now: i64) -> Vec<Delay> {
        let rows = self.nodes.iter().zip(churn.lives());
        rows.filter(|(_, life)| (0..now).contains(&life.born))
            .map(|(node, life)| delay(life.born, node.first_seen, now.min(life.gone)))
            .collect()
    }
}

/// The time within which this share of the nodes was seen, by the product-limit estimate; `None` if
/// that is beyond the end of the run.
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
    fn quantiles_count_unseen_nodes_while_they_were_up() {
        let seen = |seconds| Delay { seconds, is_seen: true };
        let left = |seconds| Delay { seconds, is_seen: false };
        let all: Vec<Delay> = (1..=100).map(seen).collect();
        assert_eq!(quantile(&all, 0.5), Some(50));
        assert_eq!(quantile(&all, 0.99), Some(99));
        // Nodes that leave at once carry no information; unseen nodes that stay do.
        let early: Vec<Delay> = (0..50).map(|_| left(0)).chain(all.clone()).collect();
        assert_eq!(quantile(&early, 0.5), Some(50));
        let never: Vec<Delay> = (0..100).map(|_| left(1_000)).chain(all).collect();
        assert_eq!(quantile(&never, 0.5), Some(100));
        assert_eq!(quantile(&never, 0.6), None);
        assert_eq!(quantile(&[], 0.5), None);
    }
}
