//! A database that was emptied, or made anew, under a running crawl: it begins again as after a start.
//!
//! Layer 2. Invariant: 1. the next pass begins when nothing of before is under way: no session, no result that is not
//! acknowledged, no answer to what was asked for the former database.

use super::{Counters, Crawler, Phase};
use crate::crawl::exchange::Opened;
use crate::crawl::time::Now;

/// What is left of the time before.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Before {
    /// The look-up of names that is under way is not heeded.
    pub(super) has_names: bool,
    /// Nor is the start of a pass.
    pub(super) has_start: bool,
    /// The next pass begins from the nodes file, whoever of the open sessions answers.
    pub(super) wants_seeds: bool,
}

impl Crawler {
    /// Sessions that are open end as they do.
    pub(super) fn begin_anew(&mut self, opened: Opened, now: Now) {
        if self.is_stopping() || self.is_over() {
            return;
        }
        let is_asked = self.phase == Phase::Naming && self.needs_names.take().is_none();
        self.before.has_names |= is_asked;
        self.before.has_start |= self.phase == Phase::Starting;
        self.before.wants_seeds = opened.totals.up == 0;
        self.counters = Counters::default();
        self.queue.clear();
        self.line.forget();
        self.opened(opened, now);
    }

    /// Whether nothing of a former pass is under way.
    pub(super) fn is_still(&self) -> bool {
        let is_answered = !self.before.has_names && !self.before.has_start;
        self.open == 0 && self.unacked == 0 && is_answered
    }

    /// The names for a pass are asked for.
    pub(super) fn ask_for_names(&mut self) {
        let before = std::mem::take(&mut self.before);
        if before.wants_seeds {
            // What the last sessions of before left in doubt.
            self.line.forget();
        }
        self.phase = Phase::Naming;
        self.needs_names = Some(self.totals.up == 0 || before.wants_seeds);
    }
}
