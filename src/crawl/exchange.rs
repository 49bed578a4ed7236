//! What the loop and the writer say to each other.
//!
//! Layer 1: plain data. The loop counts what it has sent and what was acknowledged, so that the channel's bound
//! is never met: a probe begins only when there is room for its result.

use crate::crawl::address::Address;
use crate::crawl::batch::PassRow;
use crate::crawl::clock_watch::Step;
use crate::crawl::recorder::RecorderParams;
use crate::crawl::target::{ProbeResult, Target};
use crate::crawl::time::UnixTime;
use std::sync::Arc;

/// From the loop to the writer.
#[derive(Clone, Debug)]
pub enum ToWriter {
    /// Begin a pass, or go on with the one that was cut short.
    StartPass {
        /// The time now.
        at: UnixTime,
        /// Every named node.
        named: Vec<(Address, String)>,
        /// Addresses from the nodes file to begin with; empty where nodes are known and up.
        seeds: Vec<Address>,
    },
    /// The queue runs low.
    MoreDue {
        /// Everything else is here: now those over their source's quota are wanted.
        over_quota: bool,
    },
    /// A probe ended.
    Finished(Box<ProbeResult>),
    /// The pass is over.
    EndPass {
        /// The time now.
        at: UnixTime,
    },
    /// The configuration changed.
    Reconfigure(Arc<RecorderParams>),
    /// Write what is in hand and end.
    Stop,
}

/// From the writer to the loop.
#[derive(Clone, Debug)]
pub enum FromWriter {
    /// The database is open and the book is loaded.
    Ready(Opened),
    /// The database was emptied or is another one: the book was loaded anew from what it holds, and no pass runs.
    Reset(Opened),
    /// A pass began.
    Started {
        /// Its number.
        pass: u64,
        /// When it began (earlier than now for one that is gone on with) and what it has counted.
        row: PassRow,
        /// Whether it is gone on with.
        resumed: bool,
        /// How many addresses are due.
        due: u64,
    },
    /// Some of those who are due.
    Due {
        /// The targets.
        targets: Vec<Target>,
        /// Whether these are the last, but for those over their source's quota.
        last: bool,
        /// How many of the latter there are, or a few less.
        held_back: u64,
    },
    /// The peers of results that were never heard of before, to be probed in this pass.
    Heard {
        /// The targets.
        targets: Vec<Target>,
        /// How many results are hereby acknowledged.
        acked: usize,
        /// How many peers those results carried.
        acked_peers: usize,
        /// How many are held back because their source has named too many.
        held_back: u64,
    },
    /// New figures for the stats line.
    Totals(Totals),
    /// The calendar was set by more than an hour; who is due was reckoned anew.
    ClockStepped(Step),
    /// The database went away or came back.
    Database(Database),
    /// The pass's last row is on its way to the database.
    Ended,
    /// Everything is written, or time ran out; the writer has ended.
    Stopped {
        /// How many rows were lost.
        lost: usize,
    },
    /// The writer cannot go on: what to tell the keeper.
    Failed(String),
}

/// What the database held at start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Opened {
    /// When the newest pass began, if there was one.
    pub last_started: Option<UnixTime>,
    /// Whether that pass is not finished.
    pub unfinished: bool,
    /// The newest time of all: a calendar that shows less is wrong.
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

/// How the database is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Database {
    /// It took the last batch.
    Up,
    /// It did not, and is tried again until it does.
    Down {
        /// Why, in one line.
        error: String,
        /// How many rows are held for it.
        held: usize,
    },
}
