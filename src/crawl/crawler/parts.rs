//! The crawler's words: where it stands, what the keeper should hear, what it counts.
//!
//! Layer 2: plain data.

use std::time::Duration;

use super::clock::ClockWait;
use crate::crawl::clock_watch::Step;
use crate::crawl::exchange::Database;
use crate::crawl::line::LineEvent;
use crate::crawl::outcome::Fault;
use crate::crawl::time::UnixTime;

/// Where the crawl stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The writer opens the database.
    Opening,
    /// The calendar is wrong, until the network has set it.
    Clockless(ClockWait),
    /// Until the next pass may begin.
    Waiting {
        /// When that is, on the monotonic clock.
        until: Duration,
    },
    /// The nodes file's names are looked up.
    Naming,
    /// The writer begins the pass.
    Starting,
    /// The pass runs.
    Running,
    /// The writer ends the pass.
    Ending,
    /// Open sessions are ended, what is in hand is written.
    Stopping {
        /// Whether the writer was told.
        told: bool,
    },
    /// All is done.
    Stopped {
        /// How many rows were lost.
        lost: usize,
    },
    /// The writer gave up: what to tell the keeper.
    Failed(String),
}

/// What the keeper should hear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A pass began, or is gone on with.
    PassStarted {
        /// Its number.
        pass: u64,
        /// Whether it is gone on with.
        resumed: bool,
        /// How many addresses are due.
        due: u64,
    },
    /// A pass ended.
    PassFinished {
        /// Its number.
        pass: u64,
        /// How long it took.
        elapsed: Duration,
    },
    /// There is no address to begin with; the names are looked up again in a minute.
    NoSeeds,
    /// The next pass is some way off.
    Waits(Duration),
    /// Descriptors or ports ran out; dialling goes on with fewer sockets.
    Squeezed {
        /// What ran out.
        fault: Fault,
        /// How many sockets are used from now on.
        sockets: usize,
    },
    /// As many sockets as wished are used again.
    Unsqueezed,
    /// The calendar shows less than it must: the crawl waits until it is set.
    ClockBehind {
        /// What it shows.
        shows: UnixTime,
        /// What it must show at least.
        needs: UnixTime,
        /// Whether the database says so; else it is the program's build.
        by_database: bool,
    },
    /// The calendar was set, and the crawl goes on.
    ClockRight,
    /// Nobody has set the calendar: the times in the database must have come from one that ran ahead.
    ClockTrusted,
    /// The calendar was set by more than an hour during the crawl.
    ClockStepped(Step),
    /// Our own line went down or came back.
    Line(LineEvent),
    /// So many addresses could not be dialled in this pass because of our own host's rules.
    Forbidden(u64),
    /// The database went away or came back.
    Database(Database),
}

/// The counters of the running pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// The pass.
    pub pass: u64,
    /// Probes ended.
    pub probed: u64,
    /// Of these, those that responded.
    pub responded: u64,
    /// And those that failed.
    pub failed: u64,
}
