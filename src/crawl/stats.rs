//! The stats and pass lines: what the keeper reads, as pure formatting.
//!
//! Layer 1: plain data. The keys and their order are the contract; values never contain a space.

use std::fmt;

/// What holds the crawl back now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// All sockets are in use.
    Sockets,
    /// `connects_per_second`.
    Rate,
    /// The writer has to catch up.
    Writer,
    /// Our own line is down.
    Line,
    /// Nothing: the queue is empty.
    None,
}

impl Limit {
    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sockets => "sockets",
            Self::Rate => "rate",
            Self::Writer => "writer",
            Self::Line => "line",
            Self::None => "none",
        }
    }
}

/// One stats line.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct StatsLine {
    /// The pass that runs, or ran last.
    pub pass: u64,
    /// Seconds since it began.
    pub elapsed_s: u64,
    /// Sockets open.
    pub sockets: usize,
    /// The most allowed.
    pub max_sockets: usize,
    /// Targets that wait for a socket.
    pub queue: usize,
    /// Probes ended in this pass.
    pub probed: u64,
    /// Of these, those that responded.
    pub responded: u64,
    /// And those that failed.
    pub failed: u64,
    /// Probes ended per second since the last line.
    pub rate: f64,
    /// What holds the crawl back.
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
    /// Whether the database took what it was given last.
    pub is_db_up: bool,
    /// Whether our own line is believed to work.
    pub is_line_up: bool,
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
        write!(f, "line={} rss_mb={:.1} cpu={:.1}", up(self.is_line_up), self.rss_mb, self.cpu)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_is_the_contracts_to_the_letter() {
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
            is_line_up: true,
            rss_mb: 41.2,
            cpu: 3.1,
        };
        assert_eq!(
            line.to_string(),
            "stats pass=12 elapsed_s=61 sockets=800 max_sockets=800 queue=123456 probed=20345 \
             responded=9120 failed=11225 rate=331.5 limit=sockets new_nodes=17 new_addresses=48211 \
             candidates=512004 nodes=19044 writer_queue=12 db=up line=up rss_mb=41.2 cpu=3.1"
        );
        let down = StatsLine { is_db_up: false, is_line_up: false, limit: Limit::Line, ..line };
        assert!(
            down.to_string().contains(" limit=line ") && down.to_string().contains(" db=down ")
        );
    }
}
