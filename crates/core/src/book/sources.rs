//! `Sources`: the track record of each /16 that names addresses, and its quota.
//!
//! Sans-I/O: plain data. An unproven address costs a socket for seconds, and inventing one costs
//! nothing. Each source therefore has a quota of new, unproven addresses per pass. It follows the
//! share of its earlier addresses that responded or that an unrelated source named as well: of the
//! addresses that honest nodes relay, one in thousands responds, but they all relay the same ones.
//! A quota orders addresses; it discards none. Lists that an operator imports are one more source,
//! [`IMPORTS`], which has no record: its quota is always the maximum.
//!
//! Invariants:
//! 1. A quota lies between [`MIN_QUOTA`] and [`MAX_QUOTA`].
//! 2. `answered` <= `tried`.

use std::collections::{BTreeMap, BTreeSet};

use crate::vocabulary::rows::SourceRow;

/// The source of imported addresses: a /16 in which no node can be.
pub const IMPORTS: u16 = 0xffff;
/// Minimum number of new addresses per pass and source, even if all earlier ones were dead.
pub const MIN_QUOTA: u32 = 10;
/// Maximum number of new addresses per pass and source: one full reply.
pub const MAX_QUOTA: u32 = 1_000;
/// Maximum number of votes per pass and source, two replies: a /16 full of nodes has one voice.
pub const MAX_VOTES: u16 = 2_000;
/// An unknown source starts as if 5 of 50 addresses had been good: with a quota of 100.
const PRIOR_GOOD: u32 = 5;
const PRIOR_TRIED: u32 = 50;
/// Both counts are halved at this many tried addresses, so that old results fade.
const MAX_TRIED: u16 = 2_000;

#[derive(Clone, Copy, Debug, Default)]
struct Source {
    tried: u16,
    answered: u16,
    /// Number of its addresses admitted during the pass `epoch`.
    admitted: u16,
    /// Number of its votes that counted during the pass `epoch`.
    votes: u16,
    epoch: u16,
}

impl Source {
    fn enter(&mut self, epoch: u16) {
        if self.epoch != epoch {
            (self.epoch, self.admitted, self.votes) = (epoch, 0, 0);
        }
    }
}

/// The sources by /16.
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
    /// Loads a source from the database.
    pub fn load(&mut self, group: u16, row: SourceRow) {
        if let Some(source) = self.all.get_mut(usize::from(group)) {
            source.tried = u16::try_from(row.tried).unwrap_or(MAX_TRIED).min(MAX_TRIED);
            source.answered = u16::try_from(row.answered).unwrap_or(MAX_TRIED).min(source.tried);
        }
    }

    /// Handles that an unrelated source confirmed an address which failed its first probe.
    pub fn credit(&mut self, group: u16) {
        if group == IMPORTS {
            return;
        }
        if let Some(source) = self.all.get_mut(usize::from(group)) {
            source.answered = source.answered.saturating_add(1).min(source.tried);
            self.changed.insert(group);
        }
    }

    /// Handles the first probe of an address that this source was the first to name. It is `good`
    /// if it responded or another source named it too.
    pub fn record(&mut self, group: u16, good: bool) {
        if group == IMPORTS {
            return;
        }
        let Some(source) = self.all.get_mut(usize::from(group)) else { return };
        source.tried = source.tried.saturating_add(1);
        source.answered = source.answered.saturating_add(u16::from(good));
        if source.tried >= MAX_TRIED {
            source.tried /= 2;
            source.answered /= 2;
        }
        debug_assert!(source.answered <= source.tried, "2.");
        self.changed.insert(group);
    }

    /// Maximum number of new, unproven addresses of the source per pass.
    pub fn quota(&self, group: u16) -> u32 {
        if group == IMPORTS {
            return MAX_QUOTA;
        }
        let source = self.all.get(usize::from(group)).copied().unwrap_or_default();
        let good = u32::from(source.answered) + PRIOR_GOOD;
        let quota = MAX_QUOTA * good / (u32::from(source.tried) + PRIOR_TRIED);
        quota.clamp(MIN_QUOTA, MAX_QUOTA)
    }

    /// Whether the source has a worse record than an unknown one.
    pub fn is_poor(&self, group: u16) -> bool {
        self.quota(group) < MAX_QUOTA * PRIOR_GOOD / PRIOR_TRIED
    }

    /// Admits one more address of the source to the pass `epoch`, if its quota allows.
    pub fn admit(&mut self, group: u16, epoch: u16) -> bool {
        let quota = self.quota(group);
        let Some(source) = self.all.get_mut(usize::from(group)) else { return false };
        source.enter(epoch);
        let is_admitted = u32::from(source.admitted) < quota;
        source.admitted = source.admitted.saturating_add(u16::from(is_admitted));
        is_admitted
    }

    /// Whether one more vote of the source counts in the pass `epoch`.
    pub fn may_vote(&mut self, group: u16, epoch: u16) -> bool {
        let Some(source) = self.all.get_mut(usize::from(group)) else { return false };
        source.enter(epoch);
        let may_vote = source.votes < MAX_VOTES;
        source.votes = source.votes.saturating_add(u16::from(may_vote));
        may_vote
    }

    /// The sources that changed since the last call.
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
    fn quotas_follow_the_share_of_good_addresses() {
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
            assert_eq!(sources.quota(8), 100, "other sources are unaffected");
        }
    }

    #[test]
    fn quotas_apply_per_pass() {
        let mut sources = Sources::default();
        let admitted =
            |sources: &mut Sources, epoch| (0..500).filter(|_| sources.admit(7, epoch)).count();
        assert_eq!(admitted(&mut sources, 1), 100);
        assert_eq!(admitted(&mut sources, 1), 0);
        assert_eq!(admitted(&mut sources, 2), 100);
    }

    #[test]
    fn votes_are_rationed_per_pass() {
        let mut sources = Sources::default();
        let mut votes =
            |group, epoch| (0..5_000).filter(|_| sources.may_vote(group, epoch)).count();
        assert_eq!(votes(7, 1), usize::from(MAX_VOTES));
        assert_eq!(votes(7, 1), 0);
        assert_eq!(votes(8, 1), usize::from(MAX_VOTES), "other sources are unaffected");
        assert_eq!(votes(7, 2), usize::from(MAX_VOTES));
    }

    #[test]
    fn imports_have_the_highest_quota_whatever_became_of_the_last_list() {
        let mut sources = Sources::default();
        (0..5_000).for_each(|_| sources.record(IMPORTS, false));
        sources.credit(IMPORTS);
        assert_eq!((sources.quota(IMPORTS), sources.is_poor(IMPORTS)), (MAX_QUOTA, false));
        assert!(sources.take_changed().is_empty(), "it is no row of the relation sources");
        let admitted = (0..5_000).filter(|_| sources.admit(IMPORTS, 1)).count();
        assert_eq!(admitted, MAX_QUOTA as usize);
    }

    #[test]
    fn old_results_fade_and_counts_survive_a_restart() {
        let mut sources = after(1_900, 1_900);
        (0..20_000).for_each(|_| sources.record(7, false));
        assert_eq!(sources.quota(7), MIN_QUOTA);
        let mut sources = after(300, 60);
        let rows = sources.take_changed();
        assert_eq!(rows, BTreeMap::from([(7, SourceRow { tried: 300, answered: 60 })]));
        assert!(sources.take_changed().is_empty());
        let mut again = Sources::default();
        again.load(7, rows[&7]);
        assert_eq!(again.quota(7), sources.quota(7));
        // An inconsistent row is clamped.
        again.load(7, SourceRow { tried: 5, answered: u32::MAX });
        assert_eq!(again.quota(7), 181);
    }
}
