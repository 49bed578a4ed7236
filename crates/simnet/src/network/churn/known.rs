//! The database of a crawl that began long before the start of a [`Churn`]. Sans-I/O.
//!
//! It is synthesized, not crawled: the nodes as they are, the dead addresses after as many probes
//! as the back-off allows, the sources by chance among the peer-sending nodes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::{Churn, DAY};
use crate::network::Answer;
use crate::network::gossip::mix;
use crate::network::world::WALL;
use crate::node::profile::Profile;
use bitdash_core::book::backoff::{BackoffParams, LOST_THRESHOLD, delay};
use bitdash_core::record::writer_machine::WriterMachine;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::rows::{Known, KnownNode, LastPass, PassRow, SourceRow};
use bitdash_core::vocabulary::time::UnixTime;

/// Seconds between the start of the last pass and time zero.
const LAST_PASS: i64 = 1_800;
const PASS: u64 = 1_000;

impl Churn {
    /// Loads what a long crawl knows.
    pub fn load_all(&self, backoff: &BackoffParams, recorder: &mut WriterMachine) {
        let mut rng = fastrand::Rng::with_seed(mix(self.params.seed, 0, 3));
        let senders: Vec<u16> = (0..self.nodes.len())
            .filter(|at| self.nodes[*at].sends_peers && self.lives[*at].gone > 0)
            .map(|at| self.nodes[at].address.group())
            .collect();
        let mut sources: BTreeMap<u16, SourceRow> = BTreeMap::new();
        let mut source = |answered: bool, rng: &mut fastrand::Rng| {
            let group = rng.choice(&senders).copied().unwrap_or(0);
            let row = sources.entry(group).or_default();
            row.tried += 1;
            row.answered += u32::from(answered);
            group
        };
        for at in 0..self.nodes.len() {
            if self.lives[at].born < 0 {
                let group = source(true, &mut rng);
                recorder.load(&self.known_node(at, group, backoff, &mut rng));
            }
        }
        for index in 0..self.dead_until(0.0) {
            let group = source(false, &mut rng);
            recorder.load(&self.known_dead(index, group, backoff, &mut rng));
        }
        sources.into_iter().for_each(|(group, row)| recorder.load_source(group, row));
    }

    /// The pass that finished before the start.
    pub fn last_pass(&self) -> LastPass {
        let (started_at, finished_at) = (wall(-LAST_PASS as f64), Some(wall(-1_500.0)));
        LastPass { pass: PASS, row: PassRow { started_at, finished_at, ..PassRow::default() } }
    }

    fn known_node(
        &self,
        at: usize,
        source: u16,
        backoff: &BackoffParams,
        rng: &mut fastrand::Rng,
    ) -> Known {
        let (life, spec) = (&self.lives[at], &self.nodes[at]);
        let probed = -LAST_PASS as f64 + 60.0 * rng.f64();
        let is_up = life.is_up(probed as i64);
        let silent = match (is_up, life.gone <= 0) {
            (true, _) => 0.0,
            (_, true) => -life.gone as f64,
            _ => rng.f64() * life.reliability.means().1,
        };
        let lost = Duration::from_secs_f64(silent);
        let failures = if is_up { 0 } else { 1 + (silent / 3_600.0) as u32 };
        let wait = if is_up {
            Duration::from_secs(60)
        } else {
            delay(backoff, failures, Some(lost), rng.f64())
        };
        // A lost node was probed at some time within its last wait.
        let probed = if lost >= LOST_THRESHOLD { -rng.f64() * wait.as_secs_f64() } else { probed };
        let asked_within = if spec.sends_peers { DAY } else { DAY / 4.0 };
        Known {
            address: spec.address,
            last_heard: wall(-rng.f64() * DAY),
            failures,
            last_probed: Some(wall(probed)),
            last_outcome: Some(if is_up { Outcome::Responded } else { Outcome::ConnectTimeout }),
            next_probe: wall(probed).plus(wait),
            source,
            node: Some(KnownNode {
                last_seen: wall(probed.min(0.0) - silent),
                peers_asked_at: Some(wall(-rng.f64() * asked_within - silent)),
                peers_sent: Some(if spec.sends_peers { 1_000 } else { 0 }),
                is_trb: spec.profile == Profile::Trb,
            }),
        }
    }

    fn known_dead(
        &self,
        index: usize,
        source: u16,
        backoff: &BackoffParams,
        rng: &mut fastrand::Rng,
    ) -> Known {
        let address = self.places.dead(index);
        let since = self.dead_since(index);
        let (mut probed, mut next, mut failures) = (since, since + 1_800.0 * rng.f64(), 0);
        while next < 0.0 {
            probed = next;
            failures += 1;
            next += delay(backoff, failures, None, rng.f64()).as_secs_f64();
        }
        let in_gossip = self.params.dead as f64 / self.params.dead_per_day.max(1) as f64 * DAY;
        let outcome = match self.dead_answer(address.to_bits(), rng) {
            Answer::Silence => Outcome::ConnectTimeout,
            _ => Outcome::Refused,
        };
        Known {
            address,
            last_heard: wall((since + in_gossip).min(0.0)),
            failures,
            last_probed: (failures > 0).then(|| wall(probed)),
            last_outcome: (failures > 0).then_some(outcome),
            next_probe: wall(next),
            source,
            node: None,
        }
    }
}

fn wall(at: f64) -> UnixTime {
    UnixTime::from_micros((i64::from(WALL) as f64 * 1e6 + at * 1e6) as i64)
}
