//! Messages between the event loop and the writer.
//!
//! The crawler counts what it has sent and what was acknowledged, so that the channel never fills:
//! a probe starts only when there is room for its result.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use crate::record::recorder::{MAX_PENDING_ROWS, RecorderParams};
use crate::vocabulary::address::Address;
use crate::vocabulary::clock_jump::Step;
use crate::vocabulary::rows::PassRow;
use crate::vocabulary::target::{ProbeResult, Target};
use crate::vocabulary::time::UnixTime;

/// Settings of the writer.
#[derive(Clone, Debug)]
pub struct WriterParams {
    /// The recorder's part.
    pub recorder: RecorderParams,
    /// The key `crawl.results_per_node`.
    pub results_per_node: u32,
    /// The key `database.batch_rows`.
    pub batch_rows: usize,
    /// The key `database.flush_interval`.
    pub flush_interval: Duration,
    /// Maximum number of rows that wait while the database is away; beyond it no result is
    /// recorded.
    pub max_pending_rows: usize,
    /// The key `events.exec`.
    pub events_exec: Option<PathBuf>,
}

impl WriterParams {
    /// These settings of the recorder and the defaults of everything else.
    pub fn new(recorder: RecorderParams) -> Self {
        Self {
            recorder,
            results_per_node: 25,
            batch_rows: 5_000,
            flush_interval: Duration::from_secs(10),
            max_pending_rows: MAX_PENDING_ROWS,
            events_exec: None,
        }
    }
}

/// The resolved nodes file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Every named node.
    pub named: Vec<(Address, String)>,
    /// Names of the lines whose look-up failed: their nodes keep the stored addresses.
    pub unresolved: Vec<String>,
    /// Addresses to begin with; empty where nodes are up.
    pub seeds: Vec<Address>,
    /// Whether some look-up failed.
    pub is_partial: bool,
}

/// From the event loop to the writer.
#[derive(Clone, Debug)]
pub enum ToWriter {
    /// Begin a pass, or resume the interrupted one.
    StartPass {
        /// The wall clock.
        at: UnixTime,
        /// The resolved nodes file.
        names: Names,
    },
    /// The queue runs low.
    MoreDue {
        /// Everything else was handed out: send the addresses over their source's quota.
        over_quota: bool,
    },
    /// A probe ended.
    Finished(Box<ProbeResult>),
    /// The pass is over.
    EndPass {
        /// The wall clock.
        at: UnixTime,
    },
    /// Our own uplink is down during the pass.
    UplinkDown,
    /// The configuration changed.
    Reconfigure(Arc<WriterParams>),
    /// An operator waits for the end: drop what is not written soon after `Stop`, which may come
    /// before or after.
    Hurry,
    /// Write all pending rows and end.
    Stop,
}

/// From the writer to the event loop.
#[derive(Clone, Debug)]
pub enum FromWriter {
    /// The database is open and the address book is loaded.
    Ready(Opened),
    /// The database was emptied or replaced: the book was loaded from what it holds now, and no
    /// pass runs.
    Reset(Opened),
    /// A pass began.
    Started {
        /// Its number.
        pass: u64,
        /// Its start, earlier than now for a resumed one, and its counters.
        row: PassRow,
        /// Whether it was interrupted before.
        resumed: bool,
        /// Number of addresses due.
        due: u64,
    },
    /// Some of the addresses that are due.
    Due {
        /// The targets.
        targets: Vec<Target>,
        /// Whether these are the last, except for addresses over their source's quota.
        last: bool,
        /// What waits in the address book.
        waits: Waits,
    },
    /// Results were recorded.
    Heard {
        /// Number of results acknowledged by this message.
        acked: usize,
        /// Number of peers in these results.
        acked_peers: usize,
        /// What waits in the address book.
        waits: Waits,
    },
    /// Imported addresses were taken in.
    Imported {
        /// Number of them.
        addresses: u64,
        /// Number of those that are new candidates.
        new: u64,
    },
    /// New figures for the stats line.
    Totals(Totals),
    /// The wall clock was set by more than an hour; what is due was computed again.
    ClockStepped(Step),
    /// The database went away, came back, or was replaced.
    Database(Database),
    /// The pass's last row is on its way to the database.
    Ended,
    /// Everything is written, or time ran out; the writer has ended.
    Stopped {
        /// Number of rows lost.
        lost: usize,
    },
    /// The writer cannot continue; why, for the operator.
    Failed(String),
}

/// The candidates that wait in the address book.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Waits {
    /// Their number.
    pub candidates: u64,
    /// Whether some of them are likely to respond.
    pub has_likely: bool,
    /// Number of further ones, because their source named too many; some may have been handed out.
    pub deferred: u64,
}

/// What the database held at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// Start of the newest pass, if there was one.
    pub last_started: Option<UnixTime>,
    /// Whether that pass is not finished.
    pub unfinished: bool,
    /// The newest time of all: a wall clock that shows less is wrong.
    pub newest: UnixTime,
    /// The figures.
    pub totals: Totals,
}

/// The writer's part of the stats line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Addresses that answered for the first time in this pass.
    pub new_nodes: u64,
    /// Addresses heard of for the first time in this pass.
    pub new_addresses: u64,
    /// Addresses that never answered.
    pub candidates: u64,
    /// Nodes.
    pub nodes: u64,
    /// Nodes whose last probe responded.
    pub up: u64,
}

/// State of the database.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// It took the last batch.
    Up,
    /// It did not, and is tried again until it does.
    Down {
        /// Why, in one line.
        error: String,
        /// Number of rows that wait for it.
        pending_rows: usize,
    },
    /// It was emptied or is another one; the crawl restarts from its contents and the nodes file.
    Replaced {
        /// Number of rows that belonged to the former one.
        dropped: usize,
    },
}
