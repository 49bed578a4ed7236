//! The crawler's plain data: phases, events, counters.

use std::time::Duration;

use crate::record::messages::{Database, Opened, Waits};
use crate::schedule::uplink::UplinkEvent;
use crate::vocabulary::clock_jump::Step;
use crate::vocabulary::outcome::Fault;
use crate::vocabulary::time::UnixTime;

/// The phase of the crawl.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Phase {
    /// The writer opens the database.
    Opening,
    /// The wall clock is wrong, until NTP has set it.
    AwaitingClock(ClockWait),
    /// Until the next pass may begin.
    Waiting {
        /// The time of the monotonic clock at which it may.
        until: Duration,
    },
    /// The names of the nodes file are resolved.
    ResolvingNames,
    /// The writer begins the pass.
    Starting,
    /// A pass runs.
    Running(Pass),
    /// The writer ends the pass.
    Ending,
    /// Open sessions are cut, pending rows are written.
    Stopping {
        /// Whether the writer was told.
        is_writer_told: bool,
        /// When to give up, if an operator waits.
        deadline: Option<Duration>,
    },
    /// Everything has ended.
    Stopped {
        /// Number of rows lost.
        lost: usize,
    },
    /// The crawl cannot continue; why, for the operator.
    Failed(String),
}

/// What belongs to a running pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Pass {
    /// Everything due was handed out, except addresses over their source's quota.
    pub(super) has_all_due: bool,
    /// The writer was asked for more targets.
    pub(super) is_due_requested: bool,
    /// What waits in the address book.
    pub(super) waits: Waits,
    /// Since when there is time for the deferred ones: everything else of the pass was dialled.
    pub(super) overtime: Option<Duration>,
    /// Sum of such times before.
    pub(super) former_overtime: Duration,
    /// The uplink was down during it.
    pub(super) uplink_was_down: bool,
}

/// A start that waits for the right wall clock.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ClockWait {
    pub(super) opened: Opened,
    pub(super) began: Duration,
    /// When to look at the wall clock next.
    pub(super) check_at: Duration,
}

/// What is still in flight from before the database was replaced.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Leftovers {
    /// Resolved names that will arrive are ignored.
    pub(super) has_names: bool,
    /// So is the start of a pass.
    pub(super) has_start: bool,
    /// The next pass begins from the nodes file, even if an open session responds.
    pub(super) wants_seeds: bool,
}

/// Which names of the nodes file to resolve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NameRequest {
    /// Named nodes: nodes are up.
    NamedOnly,
    /// Named nodes and seeds: no node is up.
    NamedAndSeeds,
}

/// Why the crawl stops.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopReason {
    /// The requested number of passes has ended.
    PassesDone,
    /// An operator waits for the end (SIGTERM, SIGINT).
    Operator,
}

/// What the operator is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A pass began or was resumed.
    PassStarted {
        /// Its number.
        pass: u64,
        /// Whether it was resumed.
        resumed: bool,
        /// Number of addresses due.
        due: u64,
    },
    /// A pass ended.
    PassFinished {
        /// Its number.
        pass: u64,
        /// Its duration.
        elapsed: Duration,
    },
    /// The crawl stops: the shell ends its sessions.
    Stopping,
    /// No address is known and no seed resolved; the names are resolved again in a minute.
    NoSeeds,
    /// The next pass begins after this time.
    Waits(Duration),
    /// Descriptors or ports ran out; the crawl goes on with fewer sockets.
    ResourceLimited {
        /// What ran out.
        fault: Fault,
        /// Number of sockets used from now on.
        sockets: usize,
    },
    /// As many sockets as configured are used again.
    ResourcesRecovered,
    /// The wall clock shows less than it must: the crawl waits until it is set.
    ClockBehind {
        /// What it shows.
        shows: UnixTime,
        /// The least it must show.
        needs: UnixTime,
        /// Whether the database requires it; else the program's build time does.
        by_database: bool,
    },
    /// The wall clock was set, and the crawl begins.
    ClockRight,
    /// Nothing has set the wall clock: the times in the database must come from one that ran ahead.
    ClockTrusted,
    /// The wall clock was set by more than an hour during the crawl.
    ClockStepped(Step),
    /// Addresses that the operator imported were taken in.
    Imported {
        /// Number of them.
        addresses: u64,
        /// Number of those that are new candidates.
        new: u64,
    },
    /// The uplink went down or came back.
    Uplink(UplinkEvent),
    /// Number of addresses that this host's own rules did not allow to dial in this pass.
    Forbidden(u64),
    /// The database went away, came back, or was replaced.
    Database(Database),
}

/// Counters of the current pass.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counters {
    /// Number of the pass.
    pub pass: u64,
    /// Probes ended.
    pub probed: u64,
    /// Probes that responded.
    pub responded: u64,
    /// Probes that failed.
    pub failed: u64,
}
