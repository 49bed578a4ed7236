//! Which candidates go when the book is full: the worst first, and never a node.
//!
//! Layer 2: a pure function over the table. Two walks: one counts how bad the candidates are, one lets them go.
//! Invariants: 1. no node goes, nor what was handed out in the running pass; 2. no candidate goes while one that
//! is worse by a class stays.

use crate::crawl::address::Address;
use crate::crawl::book::sources::Sources;
use crate::crawl::book::table::{Entry, Table};

/// Classes of badness, 0 for the best.
const CLASSES: usize = 256;

/// Lets about `surplus` of the worst candidates go and gives them back. Among equals chance decides; `salt` must be
/// another one each time, or who was spared once is spared for ever.
pub fn worst(
    table: &mut Table,
    sources: &Sources,
    epoch: u16,
    surplus: usize,
    now: u32,
    salt: u64,
) -> Vec<Address> {
    let class = |entry: &Entry| {
        let may_go = !entry.is_node() && entry.met != epoch;
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
    // Of the class at the threshold only as many go as are needed: which ones is left to chance.
    let at_threshold = counts.get(threshold).copied().unwrap_or(0).max(1);
    let needed = surplus.saturating_sub(worse - at_threshold.min(worse)).min(at_threshold);
    let share = needed as f64 / at_threshold as f64;
    let goes = |entry: &Entry| match class(entry) {
        Some(class) if class == threshold => chance(entry, salt) < share,
        Some(class) => class > threshold,
        None => false,
    };
    let gone: Vec<Address> = table.iter().filter(|e| goes(e)).map(Entry::address).collect();
    table.retain(|entry| !goes(entry));
    gone
}

/// How little a candidate is worth. What was never probed and comes from a source that has done badly goes before
/// what was probed in vain: the failures are knowledge that saves probes, an invented address is none.
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

/// A number between 0 and 1 that is the same at every look with the same salt.
fn chance(entry: &Entry, salt: u64) -> f64 {
    let mixed = (entry.address().to_bits() ^ salt).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    let mixed = (mixed ^ (mixed >> 29)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    ((mixed ^ (mixed >> 32)) >> 11) as f64 / (1_u64 << 53) as f64
}
