//! `Queue`: the targets of this pass that wait for a socket.
//!
//! Layer 2: a pure machine. Named nodes go first, then nodes (mixed with some of those behind them), new candidates that several sources named, other new
//! ones, those that failed before, and last what is over its source's quota; within such a tier the order is
//! random, and of a few random picks the one goes whose /16 was not dialled lately.
//! Invariant: 1. what goes in comes out exactly once.

use crate::crawl::target::Target;

/// The targets that wait.
#[derive(Debug, Default)]
pub struct Queue {
    tiers: [Vec<Target>; Target::TIERS],
    /// The /16s dialled last, a ring.
    recent: [u16; RECENT],
    next: usize,
    is_candidates_turn: bool,
}

/// How many dials ago a /16 still counts as met lately.
const RECENT: usize = 16;
/// How many random picks are compared.
const PICKS: usize = 4;

impl Queue {
    /// Adds a target.
    pub fn push(&mut self, target: Target) {
        if let Some(tier) = self.tiers.get_mut(target.tier()) {
            tier.push(target);
        }
    }

    /// Takes out the target that goes next.
    pub fn pop(&mut self, rng: &mut fastrand::Rng) -> Option<Target> {
        let recent = self.recent;
        let first = self.next_tier()?;
        let tier = self.tiers.get_mut(first)?;
        let mut pick = rng.usize(..tier.len());
        for _ in 1..PICKS {
            let lately = tier.get(pick).is_some_and(|t| recent.contains(&t.address().group()));
            if !lately {
                break;
            }
            pick = rng.usize(..tier.len());
        }
        let target = tier.swap_remove(pick);
        if tier.is_empty() {
            // The vector of a first pass holds half a million targets: give it back.
            *tier = Vec::new();
        }
        if let Some(slot) = self.recent.get_mut(self.next) {
            *slot = target.address().group();
        }
        self.next = (self.next + 1) % RECENT;
        Some(target)
    }

    /// The tier that goes next. A greeting is over in a moment: with nodes alone the start rate would be used up
    /// and most sockets idle, with the dead alone it is the other way round. So every other dial goes to a
    /// candidate while there are nodes.
    fn next_tier(&mut self) -> Option<usize> {
        let waiting = |tiers: std::ops::Range<usize>| {
            tiers.into_iter().find(|tier| self.tiers.get(*tier).is_some_and(|t| !t.is_empty()))
        };
        let first = waiting(0..Target::TIERS)?;
        let second = waiting(Target::FIRST_CANDIDATES..Target::OVER_QUOTA_TIER);
        if first != Target::NODES_TIER {
            return Some(first);
        }
        self.is_candidates_turn = !self.is_candidates_turn;
        second.filter(|_| self.is_candidates_turn).or(Some(first))
    }

    /// How many targets wait.
    pub fn len(&self) -> usize {
        self.tiers.iter().map(Vec::len).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.tiers.iter().all(Vec::is_empty)
    }

    /// Whether none waits but those over their source's quota.
    pub fn is_in_quota_empty(&self) -> bool {
        self.tiers.iter().take(Target::TIERS - 1).all(Vec::is_empty)
    }

    /// Forgets those over their source's quota: their time in this pass is over.
    pub fn drop_over_quota(&mut self) {
        if let Some(tier) = self.tiers.last_mut() {
            *tier = Vec::new();
        }
    }

    /// Forgets all of them.
    pub fn clear(&mut self) {
        self.tiers = Default::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crawl::address::Address;
    use std::net::Ipv4Addr;

    fn address(number: u32) -> Address {
        Address::new(Ipv4Addr::from(number), 8333)
    }

    #[test]
    fn every_target_comes_out_once_and_the_named_and_the_nodes_first() {
        let mut queue = Queue::default();
        // Of the candidates a third each: confirmed, plain, over quota.
        let candidate = |number| match number / 3 % 3 {
            0 => Target::candidate(address(number)).confirmed(),
            1 => Target::candidate(address(number)),
            _ => Target::candidate(address(number)).over_quota(),
        };
        for number in 0..300 {
            queue.push(match number % 3 {
                0 => candidate(number),
                1 => Target::node(address(number), true),
                _ => Target::node(address(number), false).named(),
            });
        }
        assert_eq!(queue.len(), 300);
        let mut rng = fastrand::Rng::with_seed(1);
        let order: Vec<Target> = std::iter::from_fn(|| queue.pop(&mut rng)).collect();
        assert!(order[..100].iter().all(|t| t.is_named()));
        // 100 nodes and 100 candidates are left; 34 of the latter are over quota, and go last.
        let nodes = order[100..].iter().rposition(|target| target.is_node());
        assert!(nodes.is_some_and(|last| last < 170), "every second dial is a node's");
        let tiers = order[100..].iter().filter(|t| !t.is_node()).map(|target| target.tier());
        assert!(tiers.clone().is_sorted() && tiers.max() == Some(5));
        let mut numbers: Vec<u64> = order.iter().map(|t| t.address().to_bits()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 300);
        assert!(queue.is_empty());
    }

    #[test]
    fn neighbours_in_one_16_are_rarely_dialled_in_a_row() {
        let mut queue = Queue::default();
        // 40 /16s with 50 addresses each, pushed in order.
        for number in 0..2_000_u32 {
            queue.push(Target::candidate(address(((number / 50) << 16) | (number % 50))));
        }
        let mut rng = fastrand::Rng::with_seed(3);
        let order: Vec<Target> = std::iter::from_fn(|| queue.pop(&mut rng)).collect();
        let same = |pair: &&[Target]| pair[0].address().group() == pair[1].address().group();
        let in_a_row = order.windows(2).filter(same).count();
        // A plain shuffle would give 1 in 40, 50 pairs.
        assert!(in_a_row < 25, "{in_a_row} of 1,999 pairs are neighbours");
    }
}
