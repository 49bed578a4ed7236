//! `WriterMachine`: when a batch is written, a failed one retried, a silent connection abandoned,
//! and when to stop.
//!
//! Sans-I/O. The writer thread (`db::writer::thread`) drives it with a real database, the
//! simulation with one that fails. The shell passes inputs in (`handle_*`), calls `tick`, then
//! drains `poll_message` and `poll_command`, in this order, and sleeps until `poll_timeout` or the
//! next input.
//!
//! ```text
//! Closed ──Open──▶ Connecting ──Locked──▶ Loading ──Loaded, Resumed──▶ Idle ◀──▶ Writing
//!    ▲                                                                   ◀──▶ Compacting
//!    └── refused, failed, or silent for too long: retried after a delay that doubles
//! ```
//!
//! Invariants: 1. a batch is kept until the database confirmed it, and is written again
//! otherwise; 2. at most one command is in flight; 3. no more than `max_pending_rows` rows are
//! taken from results, or the backlog grows instead, which the crawler bounds; 4. where the
//! database was replaced or emptied, everything that belongs to the former one is dropped before
//! anything is written.

use std::collections::VecDeque;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use crate::record::messages::{Database, FromWriter, ToWriter, Totals, WriterParams};
use crate::record::recorder::Recorder;
use crate::vocabulary::address::Address;
use crate::vocabulary::rows::{Batch, Known, LastPass, SourceRow};
use crate::vocabulary::time::{Now, UnixTime};

/// Maximum time for writing pending rows once an operator waits for the stop.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(7);
/// First delay after the database went away; it doubles up to [`MAX_RETRY_DELAY`].
const MIN_RETRY_DELAY: Duration = Duration::from_millis(100);
/// Longest delay between two attempts to reach the database.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(5);
/// A session that ends sooner means that the database is down.
const MIN_SESSION_TIME: Duration = Duration::from_secs(5);

/// What the shell has to do with the database.
#[derive(Clone, Debug)]
pub enum Command {
    /// Connect, take the crawler's lock, load unless it is the database that was loaded before.
    Open,
    /// Abandon the connection; nothing that it says counts any more.
    Close,
    /// Write a batch in one transaction and keep this number of results of each node.
    Write(Arc<Batch>, u32),
    /// Compact what is due. Candidates that have not been heard of for long are kept if `keep_all`.
    Compact {
        /// The wall clock.
        at: UnixTime,
        /// The wall clock was set within a day, so the age of what was heard is unknown.
        keep_all: bool,
    },
    /// Start no compaction any more and cancel the running one.
    CancelCompaction,
}

/// What the database answered.
#[derive(Clone, Debug)]
pub enum Reply {
    /// The connection holds the crawler's lock.
    Locked,
    /// It is the database that was loaded before.
    Resumed,
    /// It is not, or nothing was loaded yet: its rows follow by [`WriterMachine::load`].
    LoadStarted,
    /// All rows were delivered.
    Loaded(LastPass),
    /// It could not be opened.
    Refused(OpenError),
    /// The batch is committed, or it is not known to be.
    Written(Result<(), WriteError>),
    /// Compaction ended or gave up.
    Compacted,
    /// The session ended while it was idle, and with it the lock; why, in one line. What it was
    /// asked last was not done.
    Lost(String),
    /// The connection's thread panicked.
    Panicked,
}

/// Why the database could not be opened, in one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum OpenError {
    /// It is away: the same attempt may succeed later.
    Transient(String),
    /// An operator has to act. Before the first load this ends the crawl.
    Permanent(String),
    /// Another crawler uses it.
    Locked(String),
}

/// Why a batch may not be committed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum WriteError {
    /// The same attempt may succeed later; why, in one line.
    Failed(String),
    /// The database was emptied or replaced: nothing was written.
    Replaced,
}

/// The connection to the database.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Connection {
    Closed,
    Idle,
    Busy { activity: Activity, since: Duration },
}

/// What the connection is busy with.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Activity {
    /// Connecting and taking the lock.
    Connecting,
    /// Migrating, compacting and reading all rows: minutes on a small board.
    Loading,
    /// Writing a batch. The server itself gives up after two minutes.
    Writing,
    Compacting,
}

impl Activity {
    /// Silence after which the database is reported as down.
    fn down_after(self) -> Duration {
        Duration::from_secs(match self {
            Self::Connecting | Self::Writing => 10,
            Self::Loading | Self::Compacting => 120,
        })
    }

    /// Silence after which the connection is abandoned.
    fn timeout(self) -> Duration {
        Duration::from_secs(match self {
            Self::Connecting => 60,
            Self::Writing => 150,
            Self::Loading | Self::Compacting => 3_600,
        })
    }
}

/// How far a stop has come.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Shutdown {
    Running,
    /// An operator waits, but the crawler has sessions to end first.
    Announced,
    /// Writes all pending rows, until the deadline if there is one.
    Stopping {
        deadline: Option<Duration>,
    },
    Ended,
}

/// The machine.
#[derive(Debug)]
pub struct WriterMachine {
    recorder: Recorder,
    params: WriterParams,
    connection: Connection,
    /// When the connection was last opened.
    opened_at: Duration,
    is_loaded: bool,
    /// Taken from the recorder and not known to be committed.
    unconfirmed: Option<Arc<Batch>>,
    /// Received while the recorder had no room, or while rows were loaded.
    backlog: VecDeque<ToWriter>,
    /// Imported addresses that were loaded.
    imported: Vec<Address>,
    /// Arrival of the oldest row that waits.
    oldest_row_at: Option<Duration>,
    retry_at: Duration,
    /// Delay before the next attempt while the database is down; `None` while it is up.
    retry_delay: Option<Duration>,
    shutdown: Shutdown,
    totals: Totals,
    commands: VecDeque<Command>,
    outbox: VecDeque<FromWriter>,
}

impl WriterMachine {
    /// Makes a machine that opens the database first.
    pub fn new(params: WriterParams, seed: u64) -> Self {
        Self {
            recorder: Recorder::new(&params.recorder, seed),
            params,
            connection: Connection::Closed,
            opened_at: Duration::ZERO,
            is_loaded: false,
            unconfirmed: None,
            backlog: VecDeque::new(),
            imported: Vec::new(),
            oldest_row_at: None,
            retry_at: Duration::ZERO,
            retry_delay: None,
            shutdown: Shutdown::Running,
            totals: Totals::default(),
            commands: VecDeque::new(),
            outbox: VecDeque::new(),
        }
    }

    /// Handles a message of the event loop.
    pub fn handle_message(&mut self, message: ToWriter, now: Now) {
        match message {
            ToWriter::Hurry => match &mut self.shutdown {
                Shutdown::Running => self.shutdown = Shutdown::Announced,
                Shutdown::Stopping { deadline } => {
                    deadline.get_or_insert(now.mono + STOP_TIMEOUT);
                }
                Shutdown::Announced | Shutdown::Ended => {}
            },
            ToWriter::Stop => {
                let is_announced = self.shutdown == Shutdown::Announced;
                let deadline = is_announced.then_some(now.mono + STOP_TIMEOUT);
                self.shutdown = Shutdown::Stopping { deadline };
                self.retry_at = Duration::ZERO;
                self.commands.push_back(Command::CancelCompaction);
                self.record_backlog(now);
            }
            message => {
                self.backlog.push_back(message);
                self.record_backlog(now);
            }
        }
        self.check_invariants();
    }

    /// Handles an answer of the connection that is open.
    pub fn handle_reply(&mut self, reply: Reply, now: Now) {
        match reply {
            Reply::Locked => self.set_busy(Activity::Loading, now),
            Reply::LoadStarted => self.start_loading(now),
            Reply::Resumed => {
                (self.connection, self.opened_at) = (Connection::Idle, now.mono);
                // With an unconfirmed batch, only writing it proves that the database works again.
                if self.unconfirmed.is_none() {
                    self.set_up();
                }
                self.retry_at = Duration::ZERO;
            }
            Reply::Loaded(last_pass) => self.finish_loading(last_pass, now),
            Reply::Refused(OpenError::Locked(why)) => self.fail(why),
            Reply::Refused(OpenError::Permanent(why)) if !self.is_loaded => self.fail(why),
            Reply::Refused(OpenError::Permanent(why) | OpenError::Transient(why)) => {
                self.abandon(why, now);
            }
            Reply::Written(Ok(())) => self.finish_writing(now),
            // The next connection finds out what is there now.
            Reply::Written(Err(WriteError::Replaced)) => self.close(),
            Reply::Written(Err(WriteError::Failed(why))) => self.abandon(why, now),
            Reply::Compacted => self.connection = Connection::Idle,
            // It is regained at once: another crawler could take the lock.
            Reply::Lost(_) if now.mono.saturating_sub(self.opened_at) >= MIN_SESSION_TIME => {
                self.close()
            }
            Reply::Lost(why) => self.abandon(why, now),
            Reply::Panicked => self.fail("the database thread panicked".to_owned()),
        }
        self.check_invariants();
    }

    /// Takes in addresses that the operator imported, where there is room. What is not taken in
    /// stays in the database, which offers it again.
    pub fn handle_imported(&mut self, addresses: &[Address], now: Now) {
        let has_room = self.recorder.pending_rows() < self.params.max_pending_rows;
        if self.is_loaded && !self.is_loading() && !self.is_stopping() && has_room {
            self.take_imported(addresses, now);
        }
        self.check_invariants();
    }

    fn take_imported(&mut self, addresses: &[Address], now: Now) {
        self.recorder.take_imported(addresses, now);
        if self.recorder.has_rows() {
            self.oldest_row_at.get_or_insert(now.mono);
        }
    }

    /// Takes in an address that was imported before the load: the first pass has it.
    pub fn load_imported(&mut self, address: Address) {
        self.imported.push(address);
    }

    /// Takes in an address that the database knows.
    pub fn load(&mut self, known: &Known) {
        self.recorder.load(known);
    }

    /// Takes in what the database knows of a source.
    pub fn load_source(&mut self, group: u16, row: SourceRow) {
        self.recorder.load_source(group, row);
    }

    /// Takes in the time before which nothing expires.
    pub fn load_forgets_from(&mut self, at: UnixTime) {
        self.recorder.load_forgets_from(at);
    }

    /// Takes in what a former process learned of the ranks of candidates.
    pub fn load_learned(&mut self, learned: &[i32]) {
        self.recorder.load_learned(learned);
    }

    /// Takes in a name that the database stores.
    pub fn load_name(&mut self, address: Address, name: String) {
        self.recorder.load_name(address, name);
    }

    /// Notes that rows arrive: a connection that delivers is not silent.
    pub fn handle_progress(&mut self, now: Now) {
        if let Connection::Busy { activity: Activity::Loading, since } = &mut self.connection {
            *since = now.mono;
        }
    }

    /// Notes that the process did not run for so long: neither was the database silent, nor did an
    /// operator wait.
    pub fn handle_stall(&mut self, stalled: Duration) {
        if let Connection::Busy { since, .. } = &mut self.connection {
            *since += stalled;
        }
        if let Shutdown::Stopping { deadline: Some(deadline) } = &mut self.shutdown {
            *deadline += stalled;
        }
    }

    /// Lets time pass: judges silence, ends a stop, starts what is due.
    pub fn tick(&mut self, now: Now) {
        if let Connection::Busy { activity, since } = self.connection {
            let silent = now.mono.saturating_sub(since);
            let why = || format!("the database has not answered for {} s", silent.as_secs());
            if silent >= activity.timeout() {
                self.abandon(why(), now);
            } else if silent >= activity.down_after() && !self.is_down() {
                self.set_down(why(), now);
            }
        }
        self.end_if_stopped(now);
        if self.shutdown != Shutdown::Ended && now.mono >= self.retry_at {
            self.start_work(now);
        }
        self.check_invariants();
    }

    /// The program to run for each event.
    pub fn events_exec(&self) -> Option<&Path> {
        self.params.events_exec.as_deref()
    }

    /// The next message for the event loop.
    pub fn poll_message(&mut self) -> Option<FromWriter> {
        if let Some(message) = self.recorder.poll_output() {
            return Some(message);
        }
        let totals = self.recorder.totals();
        if !self.is_loading() && totals != self.totals {
            self.totals = totals;
            return Some(FromWriter::Totals(totals));
        }
        self.outbox.pop_front()
    }

    /// The next command for the database.
    pub fn poll_command(&mut self) -> Option<Command> {
        self.commands.pop_front()
    }

    /// When `tick` should be called if nothing happens before.
    pub fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        let deadline = match self.shutdown {
            Shutdown::Ended => return None,
            Shutdown::Stopping { deadline } => deadline,
            Shutdown::Running | Shutdown::Announced => None,
        };
        let work = match self.connection {
            Connection::Busy { activity, since } if self.is_down() => {
                Some(since + activity.timeout())
            }
            Connection::Busy { activity, since } => Some(since + activity.down_after()),
            Connection::Closed => Some(self.retry_at),
            Connection::Idle => self.flush_at().map(|due| due.max(self.retry_at)),
        };
        [deadline, work].into_iter().flatten().min().map(|at| at.max(now))
    }

    /// Whether everything is over: `Stopped` or `Failed` was the last message.
    pub fn has_ended(&self) -> bool {
        self.shutdown == Shutdown::Ended
    }

    /// Whether the database owes an answer.
    pub fn is_busy(&self) -> bool {
        matches!(self.connection, Connection::Busy { .. })
    }

    /// Whether the database did not take what it was given last.
    pub fn is_down(&self) -> bool {
        self.retry_delay.is_some()
    }

    /// Number of rows that are not known to be committed; a result that waits for room counts as
    /// one.
    pub fn pending_rows(&self) -> usize {
        let unconfirmed = self.unconfirmed.as_ref().map_or(0, |batch| batch.rows());
        unconfirmed + self.recorder.pending_rows() + self.backlog.len()
    }

    /// Records the backlog as far as there is room.
    fn record_backlog(&mut self, now: Now) {
        if self.is_loading() {
            return;
        }
        while self.is_stopping() || self.recorder.pending_rows() < self.params.max_pending_rows {
            let Some(message) = self.backlog.pop_front() else { break };
            if let ToWriter::Reconfigure(params) = &message {
                self.params = (**params).clone();
            }
            self.recorder.handle(message, now);
            if self.recorder.has_rows() {
                self.oldest_row_at.get_or_insert(now.mono);
            }
        }
    }

    /// Opens the database where that is due, or writes.
    fn start_work(&mut self, now: Now) {
        let is_due = self.flush_at().is_some_and(|at| at <= now.mono);
        match self.connection {
            Connection::Closed => {
                self.set_busy(Activity::Connecting, now);
                self.commands.push_back(Command::Open);
            }
            Connection::Idle if is_due => {
                let batch = self.unconfirmed.take().unwrap_or_else(|| {
                    self.oldest_row_at = None;
                    Arc::new(self.recorder.take_batch())
                });
                self.unconfirmed = Some(Arc::clone(&batch));
                self.set_busy(Activity::Writing, now);
                self.commands.push_back(Command::Write(batch, self.params.results_per_node));
            }
            _ => {}
        }
    }

    /// When the next batch is due.
    fn flush_at(&self) -> Option<Duration> {
        if !self.is_loaded {
            return None;
        }
        let is_enough =
            self.is_stopping() || self.recorder.pending_rows() >= self.params.batch_rows;
        match (&self.unconfirmed, self.oldest_row_at) {
            (Some(_), _) => Some(Duration::ZERO),
            (None, Some(_)) if is_enough => Some(Duration::ZERO),
            (None, Some(at)) => Some(at + self.params.flush_interval),
            (None, None) => None,
        }
    }

    /// Drops what was known: it belongs to a database that is no more.
    fn start_loading(&mut self, now: Now) {
        if self.is_loaded {
            let dropped = self.pending_rows();
            self.outbox.push_back(FromWriter::Database(Database::Replaced { dropped }));
        }
        self.recorder.forget_all();
        (self.unconfirmed, self.oldest_row_at) = (None, None);
        self.imported.clear();
        self.set_busy(Activity::Loading, now);
    }

    fn finish_loading(&mut self, last_pass: LastPass, now: Now) {
        let imported = std::mem::take(&mut self.imported);
        self.take_imported(&imported, now);
        if self.is_loaded {
            self.recorder.handle_reloaded(last_pass);
        } else {
            self.recorder.handle_loaded(last_pass);
        }
        self.is_loaded = true;
        (self.connection, self.opened_at) = (Connection::Idle, now.mono);
        self.set_up();
        self.record_backlog(now);
    }

    fn finish_writing(&mut self, now: Now) {
        let batch =
            self.unconfirmed.take().expect("an unconfirmed batch is kept while it is written");
        self.connection = Connection::Idle;
        self.set_up();
        // The end of a pass is the time to compact.
        if batch.ends_pass() && !self.is_stopping() {
            let keep_all = !self.recorder.may_forget(now);
            self.set_busy(Activity::Compacting, now);
            self.commands.push_back(Command::Compact { at: now.wall, keep_all });
        }
        self.record_backlog(now);
    }

    /// After `Stop`: ends where nothing is left to write, or at the deadline.
    fn end_if_stopped(&mut self, now: Now) {
        let Shutdown::Stopping { deadline } = self.shutdown else { return };
        let is_late = deadline.is_some_and(|deadline| now.mono >= deadline);
        let has_rows = self.unconfirmed.is_some() || self.recorder.has_rows();
        if is_late || !self.is_loaded || !has_rows {
            let lost = self.pending_rows();
            self.shutdown = Shutdown::Ended;
            self.outbox.push_back(FromWriter::Stopped { lost });
        }
    }

    fn fail(&mut self, why: String) {
        self.shutdown = Shutdown::Ended;
        self.outbox.push_back(FromWriter::Failed(why));
    }

    fn set_busy(&mut self, activity: Activity, now: Now) {
        self.connection = Connection::Busy { activity, since: now.mono };
    }

    fn close(&mut self) {
        self.connection = Connection::Closed;
        self.commands.push_back(Command::Close);
    }

    fn abandon(&mut self, why: String, now: Now) {
        self.close();
        self.set_down(why, now);
        self.record_backlog(now);
    }

    fn set_down(&mut self, error: String, now: Now) {
        let former = self.retry_delay;
        let delay = former.map_or(MIN_RETRY_DELAY, |delay| (delay * 2).min(MAX_RETRY_DELAY));
        self.retry_delay = Some(delay);
        self.retry_at = now.mono + delay;
        if former.is_none() {
            let pending_rows = self.pending_rows();
            self.outbox.push_back(FromWriter::Database(Database::Down { error, pending_rows }));
        }
    }

    fn set_up(&mut self) {
        if self.retry_delay.take().is_some() {
            self.outbox.push_back(FromWriter::Database(Database::Up));
        }
        self.retry_at = Duration::ZERO;
    }

    fn is_loading(&self) -> bool {
        matches!(self.connection, Connection::Busy { activity: Activity::Loading, .. })
    }

    fn is_stopping(&self) -> bool {
        matches!(self.shutdown, Shutdown::Stopping { .. } | Shutdown::Ended)
    }

    fn check_invariants(&self) {
        let is_writing =
            matches!(self.connection, Connection::Busy { activity: Activity::Writing, .. });
        debug_assert!(!is_writing || self.unconfirmed.is_some(), "a batch that is written is kept");
        debug_assert!(
            self.is_loaded || self.unconfirmed.is_none(),
            "nothing is written before a load"
        );
        let may_wait = self.is_loading() || self.unconfirmed.is_some() || self.has_ended();
        let is_full = self.recorder.pending_rows() >= self.params.max_pending_rows;
        debug_assert!(
            may_wait || is_full || self.backlog.is_empty(),
            "messages wait although there is room"
        );
        debug_assert_eq!(
            self.recorder.has_rows(),
            self.oldest_row_at.is_some(),
            "the age of waiting rows is known"
        );
    }
}

#[cfg(test)]
mod tests;
