//! The crawler's side of the watch over our own line: what it may believe, whom it tries next.
//!
//! Layer 2. Invariant: 1. every result goes to the writer once, or its target back into the queue.

use super::{Crawler, Event, Phase};
use crate::crawl::exchange::ToWriter;
use crate::crawl::target::{ProbeResult, Target};

impl Crawler {
    /// Takes out what the watch has judged.
    pub(super) fn take_from_line(&mut self) {
        while let Some(result) = self.line.poll_accepted() {
            self.accept(result);
        }
        while let Some(target) = self.line.poll_put_back() {
            // A crawl that stops queues nothing any more: it stays due.
            if self.phase == Phase::Running {
                self.queue.push(target);
            }
        }
        while let Some(event) = self.line.poll_event() {
            self.events.push_back(Event::Line(event));
        }
    }

    /// Who is tried next: witnesses of a suspicion first; while the line is down now and then those who are
    /// known to answer; else who waits.
    pub(super) fn next_target(&mut self) -> Option<Target> {
        let witness = match self.line.is_down() {
            true if self.queue.is_empty() => None,
            true => self.line.poll_trickle(),
            false => self.line.poll_witness(),
        };
        witness.map(Target::witness).or_else(|| self.queue.pop(&mut self.rng))
    }

    fn accept(&mut self, result: ProbeResult) {
        self.counters.probed += 1;
        match result.version {
            Some(_) => self.counters.responded += 1,
            None => self.counters.failed += 1,
        }
        self.unacked += 1;
        self.unacked_peers += result.peers.len();
        self.to_writer.push_back(ToWriter::Finished(Box::new(result)));
    }
}
