//! The stats line: plain data and its text.
//!
//! Operators' scripts rely on the keys and their order. Values never contain a space.

use std::fmt;

/// What limits the crawl now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// All sockets are in use.
    Sockets,
    /// `connects_per_second`.
    Rate,
    /// The writer has to catch up with results.
    Writer,
    /// The uplink is down or in doubt.
    Uplink,
    /// Nothing: the queue is empty.
    None,
}

impl Limit {
    /// Its name in the log.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Rate => "rate",
            Self::Writer => "writer",
            Self::Uplink => "uplink",
            Self::None => "none",
        }
    }
}

/// One stats line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StatsLine {
    /// The current or last pass.
    pub pass: u64,
    /// Seconds since it began.
    pub elapsed_s: u64,
    /// Open sockets.
    pub sockets: usize,
    /// Maximum number of sockets.
    pub max_sockets: usize,
    /// Targets waiting for a socket.
    pub queue: usize,
    /// Probes ended in this pass.
    pub probed: u64,
    /// Probes that responded.
    pub responded: u64,
    /// Probes that failed.
    pub failed: u64,
    /// Probes ended per second since the last line.
    pub rate: f64,
    /// What limits the crawl.
    pub limit: Limit,
    /// New nodes of this pass.
    pub new_nodes: u64,
    /// New addresses of this pass.
    pub new_addresses: u64,
    /// Candidates known.
    pub candidates: u64,
    /// Nodes known.
    pub nodes: u64,
    /// Results that the writer has not acknowledged.
    pub writer_queue: usize,
    /// Whether the database took the last batch.
    pub is_db_up: bool,
    /// Whether the uplink is considered up.
    pub is_uplink_up: bool,
    /// Resident memory.
    pub rss_mb: f64,
    /// Percent of one core since the last line.
    pub cpu: f64,
}

impl fmt::Display for StatsLine {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let up = |is_up| if is_up { "up" } else { "down" };
        write!(f, "stats pass={} elapsed_s={} ", self.pass, self.elapsed_s)?;
        write!(f, "sockets={} max_sockets={} ", self.sockets, self.max_sockets)?;
        write!(f, "queue={} probed={} ", self.queue, self.probed)?;
        write!(f, "responded={} failed={} ", self.responded, self.failed)?;
        write!(f, "rate={:.1} limit={} ", self.rate, self.limit.as_str())?;
        write!(f, "new_nodes={} new_addresses={} ", self.new_nodes, self.new_addresses)?;
        write!(f, "candidates={} nodes={} ", self.candidates, self.nodes)?;
        write!(f, "writer_queue={} db={} ", self.writer_queue, up(self.is_db_up))?;
        write!(f, "uplink={} rss_mb={:.1} cpu={:.1}", up(self.is_uplink_up), self.rss_mb, self.cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_stats_line_has_its_documented_form() {
        let line = StatsLine {
            pass: 12,
            elapsed_s: 61,
            sockets: 800,
            max_sockets: 800,
            queue: 123_456,
            probed: 20_345,
            responded: 9_120,
            failed: 11_225,
            rate: 331.52,
            limit: Limit::Sockets,
            new_nodes: 17,
            new_addresses: 48_211,
            candidates: 512_004,
            nodes: 19_044,
            writer_queue: 12,
            is_db_up: true,
            is_uplink_up: true,
            rss_mb: 41.2,
            cpu: 3.1,
        };
        assert_eq!(
            line.to_string(),
            "stats pass=12 elapsed_s=61 sockets=800 max_sockets=800 queue=123456 probed=20345 \
             responded=9120 failed=11225 rate=331.5 limit=sockets new_nodes=17 new_addresses=48211 \
             candidates=512004 nodes=19044 writer_queue=12 db=up uplink=up rss_mb=41.2 cpu=3.1"
        );
        let down = StatsLine { is_db_up: false, is_uplink_up: false, limit: Limit::Uplink, ..line };
        assert!(
            down.to_string().contains(" limit=uplink ") && down.to_string().contains(" db=down ")
        );
    }
}
