//! `Sources`: what became of the addresses that each /16 was the first to name, and what it may name now.
//!
//! Layer 1: plain data. An address that nobody has probed costs a socket for seconds, and naming one costs a liar
//! nothing: so each source has a quota of new, unproven addresses per pass, which follows the share of its
//! earlier ones that answered, or that an unrelated source named as well: of what honest nodes hear of these
//! days one in thousands answers, but they all hear of the same. A quota orders, it never discards.
//! Invariants: 1. a quota lies between [`LEAST_QUOTA`] and [`MOST_QUOTA`]; 2. `answered` <= `tried`.

use std::collections::{BTreeMap, BTreeSet};

use crate::crawl::batch::SourceRow;

/// What even a source with nothing but dead addresses to its name may bring in a pass.
pub const LEAST_QUOTA: u32 = 10;
/// What the best source may bring in a pass: one whole reply. Most of it is soon confirmed and counts no more.
pub const MOST_QUOTA: u32 = 1_000;
/// An unknown source counts as if five addresses of fifty had been good, and so begins with 100.
const PRIOR_GOOD: u32 = 5;
const PRIOR_TRIED: u32 = 50;
/// So many trials are remembered; then both figures are halved, so that old merits and sins fade.
const MEMORY: u16 = 2_000;

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    tried: u16,
    answered: u16,
    /// How many of its addresses were let in during the pass `epoch`.
    let_in: u16,
    epoch: u16,
}

/// All sources.
#[derive(Debug)]
pub struct Sources {
    all: Box<[Source]>,
    changed: BTreeSet<u16>,
}

impl Default for Sources {
    fn default() -> Self {
        let all = vec![Source::default(); 1 << 16].into_boxed_slice();
        Self { all, changed: BTreeSet::new() }
    }
}

impl Sources {
    /// Takes in what the database knows of a source.
    pub fn load(&mut self, group: u16, row: SourceRow) {
        if let Some(source) = self.all.get_mut(usize::from(group)) {
            source.tried = u16::try_from(row.tried).unwrap_or(MEMORY).min(MEMORY);
            source.answered = u16::try_from(row.answered).unwrap_or(MEMORY).min(source.tried);
        }
    }

    /// An address that this source was the first to name, and that was probed in vain, was named by another one.
    pub fn credit(&mut self, group: u16) {
        if let Some(source) = self.all.get_mut(usize::from(group)) {
            source.answered = source.answered.saturating_add(1).min(source.tried);
            self.changed.insert(group);
        }
    }

    /// An address that this source was the first to name was probed for the first time; it was `good` if it
    /// answered or if another source had named it too.
    pub fn record(&mut self, group: u16, good: bool) {
        let Some(source) = self.all.get_mut(usize::from(group)) else { return };
        source.tried = source.tried.saturating_add(1);
        source.answered = source.answered.saturating_add(u16::from(good));
        if source.tried >= MEMORY {
            source.tried /= 2;
            source.answered /= 2;
        }
        self.changed.insert(group);
    }

    /// How many new, unproven addresses the source may bring in a pass.
    pub fn quota(&self, group: u16) -> u32 {
        let source = self.all.get(usize::from(group)).copied().unwrap_or_default();
        let good = u32::from(source.answered) + PRIOR_GOOD;
        let quota = MOST_QUOTA * good / (u32::from(source.tried) + PRIOR_TRIED);
        quota.clamp(LEAST_QUOTA, MOST_QUOTA)
    }

    /// Whether the source has done worse than one of which nothing is known.
    pub fn is_poor(&self, group: u16) -> bool {
        self.quota(group) < MOST_QUOTA * PRIOR_GOOD / PRIOR_TRIED
    }

    /// Lets one more address of the source into the pass `epoch`, if its quota allows.
    pub fn let_in(&mut self, group: u16, epoch: u16) -> bool {
        let quota = self.quota(group);
        let Some(source) = self.all.get_mut(usize::from(group)) else { return false };
        if source.epoch != epoch {
            source.epoch = epoch;
            source.let_in = 0;
        }
        let is_let_in = u32::from(source.let_in) < quota;
        source.let_in = source.let_in.saturating_add(u16::from(is_let_in));
        is_let_in
    }

    /// The sources whose figures changed since the last call.
    pub fn take_changed(&mut self) -> BTreeMap<u16, SourceRow> {
        let row = |group: u16| {
            let source = self.all.get(usize::from(group)).copied().unwrap_or_default();
            let (tried, answered) = (u32::from(source.tried), u32::from(source.answered));
            (group, SourceRow { tried, answered })
        };
        std::mem::take(&mut self.changed).into_iter().map(row).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn after(tried: u32, answered: u32) -> Sources {
        let mut sources = Sources::default();
        (0..tried).for_each(|number| sources.record(7, number < answered));
        sources
    }

    #[test]
    fn a_quota_follows_the_share_that_answered() {
        let table = [
            (0, 0, 100, false),
            (100, 0, 33, true),
            (1_000, 0, 10, true),
            (1_000, 30, 33, true),
            (1_000, 150, 147, false),
            (1_000, 1_000, 957, false),
        ];
        for (tried, answered, quota, is_poor) in table {
            let sources = after(tried, answered);
            assert_eq!(sources.quota(7), quota, "{answered} of {tried}");
            assert_eq!(sources.is_poor(7), is_poor, "{answered} of {tried}");
            assert_eq!(sources.quota(8), 100, "nobody else's affair");
        }
    }

    #[test]
    fn a_quota_holds_for_one_pass() {
        let mut sources = Sources::default();
        let let_in =
            |sources: &mut Sources, epoch| (0..500).filter(|_| sources.let_in(7, epoch)).count();
        assert_eq!(let_in(&mut sources, 1), 100);
        assert_eq!(let_in(&mut sources, 1), 0);
        assert_eq!(let_in(&mut sources, 2), 100);
    }

    #[test]
    fn old_merits_fade_and_what_is_known_survives_a_restart() {
        let mut sources = after(1_900, 1_900);
        (0..20_000).for_each(|_| sources.record(7, false));
        assert_eq!(sources.quota(7), LEAST_QUOTA);
        let mut sources = after(300, 60);
        let rows = sources.take_changed();
        assert_eq!(rows, BTreeMap::from([(7, SourceRow { tried: 300, answered: 60 })]));
        assert!(sources.take_changed().is_empty());
        let mut again = Sources::default();
        again.load(7, rows[&7]);
        assert_eq!(again.quota(7), sources.quota(7));
        // A row that makes no sense does no harm.
        again.load(7, SourceRow { tried: 5, answered: u32::MAX });
        assert_eq!(again.quota(7), 181);
    }
}
