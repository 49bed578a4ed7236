//! `Queue`: targets of this pass that wait for a socket.
//!
//! Sans-I/O, driven by the `Crawler`. Named nodes go first; then nodes, alternating with
//! candidates; those on ports of other services; last, addresses over their source's quota. Within
//! such a tier the order is random, and a few random picks avoid a /16 that was dialled lately. The
//! address book ranks candidates, so that few of them wait here.
//! Invariants: 1. each target that goes in comes out exactly once, unless it is dropped; 2. each
//! waits in its own tier.

use crate::vocabulary::target::Target;

/// The waiting targets.
#[derive(Debug, Default)]
pub struct Queue {
    tiers: [Vec<Target>; Target::TIERS],
    /// Ring of the /16s dialled last.
    recent: [u16; MAX_RECENT],
    next: usize,
    /// Number of targets that went in and neither came out nor were dropped.
    waiting: usize,
    is_candidates_turn: bool,
}

/// Number of dials for which a /16 counts as dialled lately.
const MAX_RECENT: usize = 16;
/// Maximum number of random picks per dial.
const MAX_PICKS: usize = 4;

impl Queue {
    /// Adds a target.
    pub fn push(&mut self, target: Target) {
        let tier = self.tiers.get_mut(target.tier()).expect("a target has a tier below `TIERS`");
        tier.push(target);
        self.waiting += 1;
        self.check_invariants(target.tier());
    }

    /// Removes the next target.
    pub fn pop(&mut self, rng: &mut fastrand::Rng) -> Option<Target> {
        let recent = self.recent;
        let first = self.next_tier()?;
        let tier = self.tiers.get_mut(first)?;
        let mut pick = rng.usize(..tier.len());
        for _ in 1..MAX_PICKS {
            let lately = tier.get(pick).is_some_and(|t| recent.contains(&t.address().group()));
            if !lately {
                break;
            }
            pick = rng.usize(..tier.len());
        }
        let target = tier.swap_remove(pick);
        self.waiting -= 1;
        if tier.is_empty() {
            // The vector of a first pass holds half a million targets: free it.
            *tier = Vec::new();
        }
        if let Some(slot) = self.recent.get_mut(self.next) {
            *slot = target.address().group();
        }
        self.next = (self.next + 1) % MAX_RECENT;
        self.check_invariants(first);
        Some(target)
    }

    /// Returns the next tier. Probes of nodes are short: nodes alone would use up the start rate
    /// and leave most sockets idle, dead candidates alone the other way round. So while nodes wait,
    /// every other dial goes to a candidate.
    fn next_tier(&mut self) -> Option<usize> {
        let waiting = |tiers: std::ops::Range<usize>| {
            tiers.into_iter().find(|tier| self.tiers.get(*tier).is_some_and(|t| !t.is_empty()))
        };
        let first = waiting(0..Target::TIERS)?;
        let second = waiting(Target::CANDIDATES_TIER..Target::AVOIDED_TIER);
        if first != Target::NODES_TIER {
            return Some(first);
        }
        self.is_candidates_turn = !self.is_candidates_turn;
        second.filter(|_| self.is_candidates_turn).or(Some(first))
    }

    /// Number of waiting targets.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// Number of waiting candidates.
    pub fn candidates(&self) -> usize {
        self.tiers[Target::CANDIDATES_TIER..].iter().map(Vec::len).sum()
    }

    /// Whether none waits.
    pub fn is_empty(&self) -> bool {
        self.tiers.iter().all(Vec::is_empty)
    }

    /// Whether no target waits, except those over their source's quota.
    pub fn is_in_quota_empty(&self) -> bool {
        self.tiers.iter().take(Target::TIERS - 1).all(Vec::is_empty)
    }

    /// Drops the targets over their source's quota: their share of this pass is used up.
    pub fn drop_over_quota(&mut self) {
        let dropped = std::mem::take(&mut self.tiers[Target::OVER_QUOTA_TIER]);
        self.waiting -= dropped.len();
        self.check_invariants(Target::OVER_QUOTA_TIER);
    }

    /// Drops all targets.
    pub fn clear(&mut self) {
        self.tiers = Default::default();
        self.waiting = 0;
        self.check_invariants(0);
    }

    /// Checks the counts, and the ends of the tier that changed.
    fn check_invariants(&self, changed: usize) {
        if !cfg!(debug_assertions) {
            return;
        }
        let held: usize = self.tiers.iter().map(Vec::len).sum();
        debug_assert_eq!(held, self.waiting, "1. a target was lost or comes out twice");
        debug_assert!(self.next < MAX_RECENT);
        let tier = &self.tiers[changed];
        let ends = tier.first().into_iter().chain(tier.last());
        debug_assert!(
            ends.clone().all(|t| t.tier() == changed),
            "2. a target waits in another tier"
        );
        debug_assert!(
            ends.clone().all(|t| !t.is_reference()),
            "a reference node waits in the queue"
        );
        debug_assert!(!tier.is_empty() || tier.capacity() == 0, "an empty tier holds memory");
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::vocabulary::address::Address;
    use std::net::Ipv4Addr;

    fn address(number: u32) -> Address {
        Address::new(Ipv4Addr::from(number), 8333)
    }

    #[test]
    fn every_target_comes_out_once_named_ones_and_nodes_first() {
        let mut queue = Queue::default();
        // A third of the candidates is over quota.
        let candidate = |number| match number / 3 % 3 {
            0 => Target::candidate(address(number)).failed(),
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
        assert!(tiers.clone().is_sorted() && tiers.max() == Some(Target::OVER_QUOTA_TIER));
        let mut numbers: Vec<u64> = order.iter().map(|t| t.address().to_bits()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        assert_eq!(numbers.len(), 300);
        assert!(queue.is_empty());
    }

    #[test]
    fn candidates_on_ports_of_other_services_go_last() {
        let mut queue = Queue::default();
        for number in 0..100 {
            let ssh = Address::new(Ipv4Addr::from(number << 16), 22);
            queue.push(Target::candidate(ssh));
            queue.push(Target::candidate(address(number << 16)).failed());
            queue.push(Target::node(address((number << 16) + 1), true));
            queue.push(Target::node(Address::new(ssh.ip(), 53), true));
        }
        let mut rng = fastrand::Rng::with_seed(1);
        let order: Vec<Target> = std::iter::from_fn(|| queue.pop(&mut rng)).collect();
        assert!(order[..300].iter().all(|target| target.address().port() != 22));
        assert_eq!(order.len(), 400, "dialled, but last");
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
