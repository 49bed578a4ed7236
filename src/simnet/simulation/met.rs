//! `Met`: the addresses that a pass has met.
//!
//! Layer 2: plain data. A bit for each of the network's addresses, since a pass meets a million of them, and a set
//! for strangers.

use std::collections::BTreeSet;

use crate::crawl::address::Address;

/// The addresses that this pass has met.
#[derive(Debug, Default)]
pub(super) struct Met {
    places: Vec<u64>,
    strangers: BTreeSet<Address>,
}

impl Met {
    pub(super) fn contains(&self, place: Option<usize>, address: Address) -> bool {
        let Some(place) = place else { return self.strangers.contains(&address) };
        self.places.get(place / 64).is_some_and(|word| word & (1 << (place % 64)) != 0)
    }

    /// Gives `false` if it was met before.
    pub(super) fn insert(&mut self, place: Option<usize>, address: Address) -> bool {
        let Some(place) = place else { return self.strangers.insert(address) };
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
        self.strangers.clear();
    }
}
