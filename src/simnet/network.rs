//! What a conversation and a simulation need to know of the network around them.
//!
//! Layer 2: pure. Two networks implement it: the still [`World`], and the one that lives and dies,
//! [`Churn`](crate::simnet::churn::Churn). Invariant: 1. [`Network::place`] gives no two addresses the same place.

use std::fmt;
use std::time::Duration;

use crate::crawl::address::Address;
use crate::simnet::knowledge::Entry;
use crate::simnet::world::{DeadKind, NodeSpec, World};
use crate::simnet::zoo::Beast;

/// Where nodes live: what a conversation asks for.
pub trait Home: fmt::Debug {
    /// What the node is and says of itself.
    fn spec(&self, node: usize) -> &NodeSpec;

    /// The calendar time when `now` has passed since the start, in seconds since 1970.
    fn wall(&self, now: Duration) -> u32;

    /// What the nodes' delays are multiplied with.
    fn time_scale(&self) -> f64;

    /// What the round trip times are multiplied with, besides `time_scale`.
    fn latency(&self) -> f64;

    /// The entries of a node's reply to its `round`th `getaddr`, at calendar time `wall`. Empty for a node
    /// that sends no peers.
    fn reply(&self, node: usize, round: u64, wall: u32) -> Vec<Entry>;

    /// The beast that lives at this place; `None` for everybody else.
    fn beast(&self, _place: usize) -> Option<&Beast> {
        None
    }
}

/// A network that can be dialled in virtual time.
pub trait Network: Home {
    /// What becomes of an attempt to connect to `address` that begins at `now`.
    fn dial(&self, address: Address, now: Duration, rng: &mut fastrand::Rng) -> Answer;

    /// The number of an address of this network, counted from 0 without large gaps; `None` for a stranger.
    fn place(&self, address: Address) -> Option<usize>;

    /// The addresses that a crawl which knows nobody begins with.
    fn seed_addresses(&self) -> Vec<Address>;
}

/// What becomes of an attempt to connect.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// Nothing, ever.
    Silence,
    /// A refusal, after so long.
    Refusal(Duration),
    /// Who has this place accepts, after so long.
    Accepted(Duration, usize),
}

impl Answer {
    /// A refusal as they arrive: within 0.7 s.
    pub(super) fn refusal(rng: &mut fastrand::Rng) -> Self {
        Self::Refusal(Duration::from_millis(rng.u64(100..700)))
    }
}

impl Home for World {
    fn spec(&self, node: usize) -> &NodeSpec {
        // Places of nodes come from the world itself, and worlds do not shrink.
        &self.nodes()[node]
    }

    fn wall(&self, now: Duration) -> u32 {
        Self::wall(self, now)
    }

    fn time_scale(&self) -> f64 {
        self.params().time_scale
    }

    fn latency(&self) -> f64 {
        self.params().latency
    }

    fn reply(&self, node: usize, round: u64, wall: u32) -> Vec<Entry> {
        Self::reply(self, node, round, wall)
    }

    fn beast(&self, place: usize) -> Option<&Beast> {
        Self::beast(self, place)
    }
}

impl Network for World {
    fn dial(&self, address: Address, _: Duration, rng: &mut fastrand::Rng) -> Answer {
        if let Some(node) = self.find(address) {
            return Answer::Accepted(self.spec(node).rtt.mul_f64(self.params().latency), node);
        }
        if let Some(place) = self.find_den(address) {
            return Answer::Accepted(DEN_RTT.mul_f64(self.params().latency), place);
        }
        match self.find_dead(address).map(|at| self.dead()[at].kind) {
            Some(DeadKind::Refusing) => Answer::refusal(rng),
            Some(DeadKind::Silent) | None => Answer::Silence,
        }
    }

    fn place(&self, address: Address) -> Option<usize> {
        let dead = || self.find_dead(address).map(|at| self.nodes().len() + at);
        self.find(address).or_else(dead).or_else(|| self.find_den(address))
    }

    fn seed_addresses(&self) -> Vec<Address> {
        self.seeds().iter().map(|seed| self.nodes()[*seed].address).collect()
    }
}

/// The round trip time to a beast.
const DEN_RTT: Duration = Duration::from_millis(60);
