//! The simulated networks, and what a conversation and a simulation ask of them. Sans-I/O.
//!
//! [`World`] does not change; [`Churn`](crate::network::churn::Churn) has nodes that come and go.
//!
//! Invariant: 1. [`Network::place`] returns different places for different addresses.

pub mod churn;
pub mod distribution;
pub mod gossip;
pub mod world;

use std::fmt;
use std::time::Duration;

use crate::network::gossip::Entry;
use crate::network::world::{DeadKind, NodeSpec, World};
use crate::zoo::Misbehaviour;
use bitdash_core::vocabulary::address::Address;

/// What a conversation asks of its network.
pub trait PeerDirectory: fmt::Debug + 'static {
    /// The node's fields and behaviour.
    fn spec(&self, node: usize) -> &NodeSpec;

    /// The wall clock `now` after the start, in seconds since 1970.
    fn wall(&self, now: Duration) -> u32;

    /// Factor for the nodes' delays.
    fn time_scale(&self) -> f64;

    /// Factor for the round-trip times, on top of `time_scale`.
    fn latency(&self) -> f64;

    /// The entries of a node's reply to its `round`th `getaddr` at wall clock time `wall`; none if
    /// it sends no peers.
    fn reply(&self, node: usize, round: u64, wall: u32) -> Vec<Entry>;

    /// The misbehaviour at this place, if there is one.
    fn misbehaviour(&self, _place: usize) -> Option<&Misbehaviour> {
        None
    }
}

/// A network that can be dialled in virtual time.
pub trait Network: PeerDirectory {
    /// The answer to a connection attempt to `address` at `now`.
    fn dial(&self, address: Address, now: Duration, rng: &mut fastrand::Rng) -> Answer;

    /// The number of an address of this network, from 0 without large gaps; `None` for others.
    fn place(&self, address: Address) -> Option<usize>;

    /// The addresses that a crawl without a database starts from.
    fn seed_addresses(&self) -> Vec<Address>;
}

/// The answer to a connection attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Answer {
    /// None.
    Silence,
    /// A refusal after this delay.
    Refusal(Duration),
    /// The peer at this place accepts after this delay.
    Accepted(Duration, usize),
}

impl Answer {
    /// A refusal within 0.7 s.
    pub(super) fn refusal(rng: &mut fastrand::Rng) -> Self {
        Self::Refusal(Duration::from_millis(rng.u64(100..700)))
    }
}

impl PeerDirectory for World {
    fn spec(&self, node: usize) -> &NodeSpec {
        // Places come from the world itself, which does not shrink.
        &self.nodes()[node]
    }

    fn wall(&self, now: Duration) -> u32 {
        let seconds = u32::try_from(now.as_secs()).unwrap_or(u32::MAX);
        self.params().wall.saturating_add(seconds)
    }

    fn time_scale(&self) -> f64 {
        self.params().time_scale
    }

    fn latency(&self) -> f64 {
        self.params().latency
    }

    fn reply(&self, node: usize, round: u64, wall: u32) -> Vec<Entry> {
        self.gossip.reply(self, node, round, wall)
    }

    fn misbehaviour(&self, place: usize) -> Option<&Misbehaviour> {
        self.misbehaviours().get(self.placement(place)?.misbehaviour)
    }
}

impl Network for World {
    fn dial(&self, address: Address, _: Duration, rng: &mut fastrand::Rng) -> Answer {
        if let Some(node) = self.find(address) {
            return Answer::Accepted(self.spec(node).rtt.mul_f64(self.params().latency), node);
        }
        if let Some(place) = self.find_placement(address) {
            return Answer::Accepted(PLACEMENT_RTT.mul_f64(self.params().latency), place);
        }
        match self.find_dead(address).map(|at| self.dead()[at].kind) {
            Some(DeadKind::Refusing) => Answer::refusal(rng),
            Some(DeadKind::Silent) | None => Answer::Silence,
        }
    }

    fn place(&self, address: Address) -> Option<usize> {
        let dead = || self.find_dead(address).map(|at| self.nodes().len() + at);
        self.find(address).or_else(dead).or_else(|| self.find_placement(address))
    }

    fn seed_addresses(&self) -> Vec<Address> {
        self.seeds().iter().map(|seed| self.nodes()[*seed].address).collect()
    }
}

/// Round-trip time to a misbehaving peer.
const PLACEMENT_RTT: Duration = Duration::from_millis(60);
