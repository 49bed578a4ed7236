//! The real nodes of a [`Churn`] that accept no connection, behind NAT routers. Sans-I/O.
//!
//! They announce themselves as the others do, and so are most of what recent gossip names. Numbered
//! by the time they came; everything else about one is a hash of its number.

use super::gossip::{FORGET_TIME, NODE_SPREAD, Table, spread};
use super::{Churn, DAY, FIRST_UNREACHABLE, MEMBER, UNREACHABLE_LIFE};
use bitdash_core::vocabulary::address::Address;

/// Share of the tables that an unreachable node's address reaches.
const REACH: f64 = 0.6;
/// Time for which tables keep an address that is no longer announced (addrman.cpp, `IsTerrible`).
const MAX_MEMORY: f64 = 30.0 * DAY;

impl Churn {
    /// Number of unreachable nodes that come before the end.
    pub(super) fn unreachable_ever(&self) -> usize {
        if self.params.unreachable == 0 { 0 } else { self.came_until(self.params.days * DAY) + 1 }
    }

    /// Mean lifetime, in seconds.
    fn unreachable_lifetime(&self) -> f64 {
        self.params.unreachable as f64 / self.params.unreachable_per_day.max(1) as f64 * DAY
    }

    /// Time from the coming of the first one to the start, in seconds.
    fn unreachable_past(&self) -> f64 {
        5.0 * self.unreachable_lifetime() + MAX_MEMORY
    }

    /// Number of unreachable nodes that came until `at`.
    pub(super) fn came_until(&self, at: f64) -> usize {
        let days = (at + self.unreachable_past()) / DAY;
        (days * self.params.unreachable_per_day as f64).max(0.0) as usize
    }

    /// When an unreachable node came, and when it leaves.
    pub(super) fn unreachable_life(&self, number: usize) -> (f64, f64) {
        let per_day = self.params.unreachable_per_day.max(1) as f64;
        let came = number as f64 / per_day * DAY - self.unreachable_past();
        let draw = self.draw(number as u64, UNREACHABLE_LIFE);
        (came, came - self.unreachable_lifetime() * (1.0 - draw).ln())
    }

    pub(super) fn unreachable_address(&self, number: usize) -> Address {
        self.places.dead(FIRST_UNREACHABLE + number)
    }

    /// The numbers of those that may be in a table at `at`.
    pub(super) fn unreachable_in_gossip(&self, at: f64) -> std::ops::Range<usize> {
        if self.params.unreachable == 0 {
            return 0..0;
        }
        let first = self.came_until(at - MAX_MEMORY - 4.0 * self.unreachable_lifetime());
        first..self.came_until(at).max(first)
    }

    /// Number of them in a full table.
    pub(super) fn unreachable_per_table(&self) -> f64 {
        let gone = self.params.unreachable_per_day as f64 * FORGET_TIME / DAY;
        (self.params.unreachable as f64 + gone) * REACH
    }
}

impl Table<'_> {
    /// Whether an unreachable node is in the table.
    pub(super) fn has_unreachable(&self, number: usize) -> bool {
        let (came, left) = self.churn.unreachable_life(number);
        let (age, at) = (self.at - came, FIRST_UNREACHABLE + number);
        let share = self.fullness * REACH * spread(age, NODE_SPREAD);
        age >= 0.0 && self.pair(at, MEMBER) < share && self.remembers(at, self.at - left)
    }
}
