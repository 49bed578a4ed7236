//! `Probed`: the addresses that have a result in the running pass.
//!
//! One bit for each address of the network, since a pass has a million of them, and a set for
//! others.

use std::collections::BTreeSet;

use bitdash_core::vocabulary::address::Address;

/// The addresses that have a result in the running pass.
#[derive(Debug, Default)]
pub(super) struct Probed {
    places: Vec<u64>,
    others: BTreeSet<Address>,
}

impl Probed {
    pub(super) fn contains(&self, place: Option<usize>, address: Address) -> bool {
        let Some(place) = place else { return self.others.contains(&address) };
        self.places.get(place / 64).is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    /// Returns whether it had no result before.
    pub(super) fn insert(&mut self, place: Option<usize>, address: Address) -> bool {
        let Some(place) = place else { return self.others.insert(address) };
        let (word, bit) = (place / 64, 1 << (place % 64));
        if word >= self.places.len() {
            self.places.resize(word + 1, 0);
        }
        let is_new = self.places[word] & bit == 0;
        self.places[word] |= bit;
        is_new
    }

    pub(super) fn clear(&mut self) {
        self.places.fill(0);
        self.others.clear();
    }
}
