//! `Tally`: what a simulation counts at both ends, and whether the two accounts agree.
//!
//! Layer 2: plain data. The far ends count the commands that they decoded and the entries that they told; the
//! results of the crawl say what it decoded. Were a probe or a decoder passed over, the two would differ. The
//! accounts are of honest far ends: beasts of the zoo hang up, lie and send what is no reply.

use std::time::Duration;

use crate::crawl::target::ProbeResult;
use crate::simnet::behaviour::Observations;
use crate::watchglass::Command;

/// The two accounts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Results of the crawl.
    pub results: u64,
    /// Of these, those with a `version`.
    pub responded: u64,
    /// And those that were asked for their peers.
    pub asked: u64,
    /// The entries that came in reply, as the results count them.
    pub entries_heard: u64,
    /// The far ends that decoded a `version` of the crawler's.
    pub versions_met: u64,
    /// And its `verack`.
    pub veracks_met: u64,
    /// And its `getaddr`.
    pub getaddrs_met: u64,
    /// The entries of the replies that the far ends sent.
    pub entries_told: u64,
    /// Bytes from the probes to the far ends.
    pub bytes_out: u64,
    /// Bytes from the far ends through `Probe::handle_bytes`.
    pub bytes_in: u64,
    /// The time that all sessions were open, added up.
    pub busy: Duration,
    /// Turns with something in the queue.
    pub turns: u64,
    /// Of these, those in which all sockets were in use or the start rate was exhausted.
    pub used_turns: u64,
    /// The time of these turns.
    pub queued: Duration,
    /// And of those.
    pub used: Duration,
}

impl Tally {
    /// A session ended: what its far end saw.
    pub(super) fn count_far_end(&mut self, seen: &Observations) {
        let times = |wanted| {
            seen.commands.iter().find(|(command, _)| *command == wanted).map_or(0, |(_, n)| *n)
        };
        self.versions_met += times(Command::VERSION);
        self.veracks_met += times(Command::VERACK);
        self.getaddrs_met += times(Command::GETADDR);
        self.entries_told += seen.entries;
    }

    /// A session ended: what came of it.
    pub(super) fn count_result(&mut self, result: &ProbeResult) {
        self.results += 1;
        self.responded += u64::from(result.version.is_some());
        self.asked += u64::from(result.peers_sent.is_some());
        self.entries_heard += u64::from(result.peers_sent.unwrap_or(0));
    }

    /// Whether both ends tell the same story.
    ///
    /// # Errors
    /// What does not fit, in one line.
    pub fn check(&self) -> Result<(), String> {
        let pairs = [
            (
                "nodes that responded and far ends that met a verack",
                self.responded,
                self.veracks_met,
            ),
            (
                "nodes asked for peers and far ends that met a getaddr",
                self.asked,
                self.getaddrs_met,
            ),
            ("entries in results and entries told", self.entries_heard, self.entries_told),
        ];
        for (what, ours, theirs) in pairs {
            if ours != theirs {
                return Err(format!(
                    "the probe was passed over: {what} differ: {ours} and {theirs}"
                ));
            }
        }
        // The shortest version is 24 + 46 bytes long, an entry 26, its message 25.
        let least = 70 * self.responded + 26 * self.entries_heard;
        if self.bytes_in < least || self.versions_met < self.responded {
            return Err(format!(
                "the probe was passed over: {} bytes through it, {least} at least are in the results",
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
    fn accounts_that_differ_are_refused() {
        let good = Tally {
            responded: 2,
            asked: 1,
            entries_heard: 100,
            versions_met: 3,
            veracks_met: 2,
            getaddrs_met: 1,
            entries_told: 100,
            bytes_in: 4_000,
            ..Tally::default()
        };
        assert_eq!(good.check(), Ok(()));
        assert!(Tally { entries_told: 99, ..good }.check().is_err());
        assert!(Tally { veracks_met: 1, ..good }.check().is_err());
        assert!(Tally { bytes_in: 2_000, ..good }.check().is_err());
        assert!(Tally { getaddrs_met: 0, ..good }.check().is_err());
    }
}
