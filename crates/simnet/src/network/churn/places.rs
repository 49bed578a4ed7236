//! `Places`: the addresses of nodes and dead addresses. Sans-I/O.
//!
//! A dead address is computed from its index and back: an invertible mix of 32 bits, repeated until
//! it leaves the special-purpose ranges, is the IP address, a hash of that the port. Nodes crowd in
//! data centres, as real ones do.
//!
//! Invariant: 1. `dead_index` is the inverse of `dead`.

use std::net::Ipv4Addr;

use crate::network::distribution::{Distributions, Weighted};
use crate::network::gossip::mix;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;

#[derive(Debug)]
pub(super) struct Places {
    seed: u64,
    filter: Filter,
    /// Ports by the lower bits of a hash: a lookup instead of a draw.
    ports: Vec<u16>,
    /// The /16s of the data centres, the largest first.
    centres: Vec<u16>,
    weights: Weighted<u16>,
}

impl Places {
    pub(super) fn new(seed: u64, distributions: &Distributions) -> Self {
        let mut rng = fastrand::Rng::with_seed(mix(seed, 0, 0));
        let ports = (0..PORTS).map(|_| distributions.ports.draw(&mut rng).copied().unwrap_or(8333));
        let ports = ports.collect();
        let filter = Filter::new(&[], &[]);
        let mut centres = Vec::new();
        while centres.len() < CENTRES {
            let group = rng.u16(..);
            if is_free(&filter, group) {
                centres.push(group);
            }
        }
        // The k-th largest has a share like 1 / (k + 20).
        let weights =
            centres.iter().enumerate().map(|(at, group)| (1_000_000 / (at as u64 + 20), *group));
        let weights = weights.collect();
        Self { seed, filter, ports, centres, weights }
    }

    /// Draws a node's address.
    pub(super) fn node(&self, rng: &mut fastrand::Rng) -> Address {
        loop {
            let is_in_centre = rng.f64() < CENTRE_SHARE && !self.centres.is_empty();
            let centre = if is_in_centre { self.weights.draw(rng).copied() } else { None };
            let group = centre.unwrap_or_else(|| rng.u16(..));
            let ip = Ipv4Addr::from(u32::from(group) << 16 | rng.u32(1..0xffff));
            let port = self.ports[rng.usize(..PORTS)];
            let address = Address::new(ip, port);
            if self.filter.admits(address) {
                return address;
            }
        }
    }

    /// The dead address with this index.
    pub(super) fn dead(&self, index: usize) -> Address {
        // The walk leaves the admitted addresses and returns to them, so it can be reversed.
        let mut ip = FIRST + (index % MAX_DEAD) as u32;
        loop {
            ip = scramble(ip ^ self.key());
            let address = Address::new(Ipv4Addr::from(ip), self.port(ip));
            if self.filter.admits(address) {
                return address;
            }
        }
    }

    /// The index of a dead address; `None` if it is not one.
    pub(super) fn dead_index(&self, address: Address) -> Option<usize> {
        let mut ip = u32::from(address.ip());
        if address.port() != self.port(ip) || !self.filter.admits(address) {
            return None;
        }
        loop {
            ip = unscramble(ip) ^ self.key();
            if self.filter.admits(Address::new(Ipv4Addr::from(ip), 1)) {
                break;
            }
        }
        let index = ip.checked_sub(FIRST)? as usize;
        (index < MAX_DEAD).then_some(index)
    }

    fn port(&self, ip: u32) -> u16 {
        self.ports[mix(self.seed, u64::from(ip), 1) as usize % PORTS]
    }

    fn key(&self) -> u32 {
        mix(self.seed, 0, 2) as u32
    }
}

fn is_free(filter: &Filter, group: u16) -> bool {
    filter.admits(Address::new(Ipv4Addr::from(u32::from(group) << 16 | 0x8001), 1))
}

/// A bijection of 32 bits (the finalizer of a known hash); each step has an inverse.
fn scramble(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(MULTIPLIERS[0]);
    x ^= x >> 15;
    x = x.wrapping_mul(MULTIPLIERS[1]);
    x ^ x >> 16
}

fn unscramble(mut x: u32) -> u32 {
    x ^= x >> 16;
    x = x.wrapping_mul(inverse(MULTIPLIERS[1]));
    x ^= x >> 15 ^ x >> 30;
    x = x.wrapping_mul(inverse(MULTIPLIERS[0]));
    x ^ x >> 16
}

/// The inverse of an odd number modulo 2^32, by Newton's steps.
const fn inverse(odd: u32) -> u32 {
    let mut x = odd;
    let mut step = 0;
    while step < 5 {
        x = x.wrapping_mul(2_u32.wrapping_sub(odd.wrapping_mul(x)));
        step += 1;
    }
    x
}

/// Indices are mixed from 1.0.0.0 on, where 100 million addresses are all admitted.
const FIRST: u32 = 0x0100_0000;
pub(super) const MAX_DEAD: usize = 100_000_000;
const MULTIPLIERS: [u32; 2] = [0x7feb_352d, 0x846c_a68b];
const PORTS: usize = 4_096;
/// Share of the nodes in data centres: the snapshot has 7,079 IP addresses in 4,447 /16s.
const CENTRE_SHARE: f64 = 0.56;
const CENTRES: usize = 2_500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_addresses_are_computed_from_each_other() {
        let places = Places::new(7, &Distributions::load());
        for index in (0..MAX_DEAD).step_by(99_991) {
            let address = places.dead(index);
            assert!(places.filter.admits(address));
            assert_eq!(places.dead_index(address), Some(index));
            let other = Address::new(address.ip(), address.port() ^ 1);
            assert_eq!(places.dead_index(other), None);
        }
    }

    #[test]
    fn nodes_crowd_as_in_the_snapshot() {
        let places = Places::new(7, &Distributions::load());
        let mut rng = fastrand::Rng::with_seed(1);
        let nodes: std::collections::HashSet<_> =
            (0..7_079).map(|_| places.node(&mut rng).group()).collect();
        assert!((4_100..4_800).contains(&nodes.len()), "{} /16s", nodes.len());
    }
}
