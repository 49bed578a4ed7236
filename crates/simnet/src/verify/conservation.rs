//! `Conservation`: counts what both ends of the connections sent and received, and compares the
//! two.
//!
//! Peers count the commands that they decoded and the entries that they sent; the crawl's results
//! contain what it decoded. If the simulation bypassed a probe or a decoder, the two would differ.
//! This holds for honest peers only: those of the zoo disconnect, lie and send what is not a reply.

use std::time::Duration;

use crate::node::conversation::Observations;
use bitdash_core::vocabulary::target::ProbeResult;
use watchglass::Command;

/// The counts of both ends.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Conservation {
    /// Results of the crawl.
    pub results: u64,
    /// Results with a `version`.
    pub responded: u64,
    /// Results of nodes that were asked for their peers.
    pub asked: u64,
    /// Entries received in replies, by the results.
    pub entries_received: u64,
    /// `version` messages of the crawler that peers decoded.
    pub versions_received: u64,
    /// Its `verack` messages.
    pub veracks_received: u64,
    /// Its `getaddr` messages.
    pub getaddrs_received: u64,
    /// Entries of the replies that peers sent.
    pub entries_sent: u64,
    /// Bytes from the probes to the peers.
    pub bytes_out: u64,
    /// Bytes from the peers through `Probe::handle_bytes`.
    pub bytes_in: u64,
    /// Sum of the times that sessions were open.
    pub busy: Duration,
    /// Turns with a non-empty queue.
    pub turns: u64,
    /// Those of them in which all sockets were in use or the rate limit was reached.
    pub used_turns: u64,
    /// Duration of the turns with a non-empty queue.
    pub queued: Duration,
    /// Duration of `used_turns`.
    pub used: Duration,
}

impl Conservation {
    /// Counts what the peer of an ended session saw.
    pub(crate) fn count_far_end(&mut self, seen: &Observations) {
        let times = |wanted| {
            seen.commands.iter().find(|(command, _)| *command == wanted).map_or(0, |(_, n)| *n)
        };
        self.versions_received += times(Command::VERSION);
        self.veracks_received += times(Command::VERACK);
        self.getaddrs_received += times(Command::GETADDR);
        self.entries_sent += seen.entries;
    }

    /// Counts the result of an ended session.
    pub(crate) fn count_result(&mut self, result: &ProbeResult) {
        self.results += 1;
        self.responded += u64::from(result.version.is_some());
        let is_asked = result.target.wants_peers() && !result.target.is_unasked();
        self.asked += u64::from(result.version.is_some() && is_asked);
        self.entries_received += u64::from(result.peers_sent.unwrap_or(0));
    }

    /// Compares both ends.
    ///
    /// # Errors
    ///
    /// The first difference, in one line.
    pub fn check(&self) -> Result<(), String> {
        let pairs = [
            (
                "nodes that responded and peers that received a verack",
                self.responded,
                self.veracks_received,
            ),
            (
                "nodes asked for peers and peers that received a getaddr",
                self.asked,
                self.getaddrs_received,
            ),
            ("entries in results and entries sent", self.entries_received, self.entries_sent),
        ];
        for (what, ours, theirs) in pairs {
            if ours != theirs {
                return Err(format!("the probe was bypassed: {what} differ: {ours} and {theirs}"));
            }
        }
        // The shortest `version` message has 24 + 46 bytes, an entry at least 26.
        let min = 70 * self.responded + 26 * self.entries_received;
        if self.bytes_in < min || self.versions_received < self.responded {
            return Err(format!(
                "the probe was bypassed: {} bytes passed it, the results need {min}",
                self.bytes_in
            ));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn different_counts_are_an_error() {
        let good = Conservation {
            responded: 2,
            asked: 1,
            entries_received: 100,
            versions_received: 3,
            veracks_received: 2,
            getaddrs_received: 1,
            entries_sent: 100,
            bytes_in: 4_000,
            ..Conservation::default()
        };
        assert_eq!(good.check(), Ok(()));
        assert!(Conservation { entries_sent: 99, ..good }.check().is_err());
        assert!(Conservation { veracks_received: 1, ..good }.check().is_err());
        assert!(Conservation { bytes_in: 2_000, ..good }.check().is_err());
        assert!(Conservation { getaddrs_received: 0, ..good }.check().is_err());
    }
}
