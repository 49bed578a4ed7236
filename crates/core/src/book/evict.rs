//! Eviction of candidates when the book is full.
//!
//! Sans-I/O: a pure function over the table, in two walks: one counts the candidates of each class
//! of badness, one evicts the worst classes. Invariants:
//! 1. Neither a node nor an address handed out in the running pass is evicted.
//! 2. No candidate is evicted while one of a worse class stays.

use crate::book::sources::Sources;
use crate::book::table::{Entry, Table};
use crate::vocabulary::address::Address;

/// Number of classes of badness; 0 is the best.
const CLASSES: usize = 256;

/// Evicts about `surplus` of the worst candidates and returns them. Ties are broken by a salted
/// hash; with a constant `salt`, the same candidates would always survive.
pub fn evict_worst(
    table: &mut Table,
    sources: &Sources,
    epoch: u16,
    surplus: usize,
    now: u32,
    salt: u64,
) -> Vec<Address> {
    let class = |entry: &Entry| {
        let may_go = !entry.is_node() && !entry.is_handed_out(epoch);
        may_go.then(|| badness(entry, sources, now))
    };
    let mut counts = [0_usize; CLASSES];
    for class in table.iter().filter_map(class) {
        if let Some(count) = counts.get_mut(class) {
            *count += 1;
        }
    }
    let (mut threshold, mut worse) = (CLASSES, 0);
    for (class, count) in counts.iter().enumerate().rev() {
        if worse >= surplus {
            break;
        }
        threshold = class;
        worse += count;
    }
    // Of the threshold's class, evict only as many as needed, chosen by hash.
    let at_threshold = counts.get(threshold).copied().unwrap_or(0).max(1);
    let needed = surplus.saturating_sub(worse - at_threshold.min(worse)).min(at_threshold);
    let share = needed as f64 / at_threshold as f64;
    let is_evicted = |entry: &Entry| match class(entry) {
        Some(class) if class == threshold => chance(entry, salt) < share,
        Some(class) => class > threshold,
        None => false,
    };
    let gone: Vec<Address> = table.iter().filter(|e| is_evicted(e)).map(Entry::address).collect();
    table.retain(|entry| !is_evicted(entry));
    gone
}

/// The class of a candidate. An unprobed address from a poor source is worse than one that failed:
/// a known failure saves probes, an invented address does not.
fn badness(entry: &Entry, sources: &Sources, now: u32) -> usize {
    let days_unheard = (now.saturating_sub(entry.last_heard) / 86_400).min(60) as usize;
    let unproven = match (entry.is_probed() || entry.is_confirmed(), sources.is_poor(entry.source))
    {
        (true, _) => 0,
        (false, false) => 40,
        (false, true) => 100,
    };
    unproven + 3 * usize::from(entry.failures.min(20)) + days_unheard
}

/// A number between 0 and 1 that depends only on the address and the salt.
fn chance(entry: &Entry, salt: u64) -> f64 {
    let mixed = (entry.address().to_bits() ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 32)) >> 11) as f64 / (1_u64 << 53) as f64
}
