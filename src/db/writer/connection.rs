//! `Connection`: a connection to the database on its own thread, so that the writer can bound its
//! wait.
//!
//! The crate postgres waits for an answer without a bound, and a server that is frozen, or a link
//! whose NAT entry is gone, gives neither an answer nor an error. So the writer hands each job to
//! the connection's thread and goes on; a connection that stays silent is abandoned, and its thread
//! ends when the socket does. Invariants: 1. no row is written without the crawler's lock; 2. an
//! abandoned connection writes nothing beyond its current job: the next one ends its backend before
//! it writes; 3. no more than [`MAX_CONNECTIONS`] exist, however long the server is silent.

use std::cell::Cell;
use std::fs::File;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use bitdash_core::record::messages::ToWriter;
use bitdash_core::record::writer_machine::{OpenError, Reply, WriteError};
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::rows::{Batch, Known, LastPass, SourceRow};
use bitdash_core::vocabulary::time::UnixTime;
use postgres::{CancelToken, NoTls};

use super::events::Event;
use super::store::{BackendId, DatabaseFingerprint, FinishedPass};
use super::{CompactionParams, Store};
use crate::db::StoreError;

/// Maximum number of connections, abandoned ones that still wait for their server included.
const MAX_CONNECTIONS: usize = 4;
/// Interval between checks of an idle connection. It also keeps routers from forgetting it.
const CHECK_INTERVAL: Duration = Duration::from_secs(10);
/// Rows in a piece.
const PIECE_ROWS: usize = 512;
/// Maximum number of pieces that wait for the writer.
const MAX_PIECES: usize = 4;

/// What reaches the writer thread.
pub(super) enum Input {
    /// From the event loop.
    Message(ToWriter),
    /// From the connection of this number.
    Answer(u64, Answer),
}

/// What a connection answers.
pub(super) enum Answer {
    /// The server answered; this is our backend there.
    Connected(BackendId),
    /// Its rows follow on this channel.
    Loading(Receiver<Vec<Row>>),
    /// All rows were sent.
    Loaded(LastPass, DatabaseFingerprint),
    /// Whether the batch is committed; if so, with what identifies the database from now on.
    Written(Result<Option<DatabaseFingerprint>, WriteError>),
    /// Found in the batch whose `Written` follows.
    Events(Vec<Event>),
    /// Imported addresses that wait.
    Imported(Vec<Address>),
    /// The newest finished pass: of the loaded rows, or of the batch whose `Written` follows.
    Finished(FinishedPass),
    /// Everything that the machine takes as it is.
    Plain(Reply),
}

/// Something that the database knows.
pub(super) enum Row {
    Source(u16, SourceRow),
    Name(Address, String),
    ForgetsFrom(UnixTime),
    Imported(Address),
    Learned(Vec<i32>),
    Address(Known),
}

/// What a connection is asked for, one at a time.
pub(super) enum Job {
    Write(Arc<Batch>, u32),
    Compact(UnixTime, CompactionParams),
}

/// What it takes to open a connection.
pub(super) struct OpenRequest {
    pub(super) url: String,
    /// Our former backends.
    pub(super) backends: Vec<BackendId>,
    /// Identifies the database that was written last.
    pub(super) fingerprint: Option<DatabaseFingerprint>,
    pub(super) now: UnixTime,
}

/// Allows a stop to cancel a running compaction.
#[derive(Default)]
struct Cancellation {
    token: Mutex<Option<CancelToken>>,
    is_stopping: AtomicBool,
}

/// The writer's handle of a connection.
pub(super) struct Connection {
    number: u64,
    jobs: Sender<Job>,
}

/// Descriptors reserved for a connection: probes take every one that is free.
#[derive(Default)]
struct Spare(Mutex<Vec<File>>);

impl Spare {
    /// Makes room for a connection.
    ///
    /// # Errors
    /// Where there is too little: what there is stays held, until there is more.
    fn release(&self) -> Result<(), StoreError> {
        self.fill();
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if spare.len() < NEEDED {
            let error = "no file descriptor is free for the database: ulimit -n";
            return Err(StoreError::transient(error));
        }
        spare.clear();
        Ok(())
    }

    fn fill(&self) {
        let mut spare = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        while spare.len() < RESERVED {
            let Ok(file) = File::open("/dev/null") else { return };
            spare.push(file);
        }
    }
}

/// Descriptors that a connection takes: a socket, and what waits for it. With less the crate
/// postgres panics.
const NEEDED: usize = 4;
/// Descriptors reserved, since probes may be quicker.
const RESERVED: usize = 8;

/// Opens connections.
pub(super) struct Connections {
    opened: u64,
    /// Every connection's thread holds one.
    alive: Arc<()>,
    inbox: SyncSender<Input>,
    cancellation: Arc<Cancellation>,
    spare: Arc<Spare>,
}

impl Connections {
    pub(super) fn new(inbox: SyncSender<Input>) -> Self {
        let spare = Arc::new(Spare::default());
        spare.fill();
        Self { opened: 0, alive: Arc::new(()), inbox, cancellation: Arc::default(), spare }
    }

    /// Reserves descriptors that have become free for the next connection.
    pub(super) fn reserve_descriptors(&self) {
        self.spare.fill();
    }

    /// Opens a connection; its first answers say what became of it.
    ///
    /// # Errors
    /// Too many connections hang, or the system has no room for a thread.
    pub(super) fn open(&mut self, request: OpenRequest) -> Result<Connection, StoreError> {
        if Arc::strong_count(&self.alive) > MAX_CONNECTIONS {
            let silent = "the database accepts connections but does not answer";
            return Err(StoreError::transient(silent));
        }
        self.opened += 1;
        let (jobs, taken) = mpsc::channel();
        let thread = ConnectionThread {
            number: self.opened,
            inbox: self.inbox.clone(),
            cancellation: Arc::clone(&self.cancellation),
            spare: Arc::clone(&self.spare),
            is_connected: Cell::new(false),
            _alive: Arc::clone(&self.alive),
        };
        thread::Builder::new()
            .name("database".into())
            .spawn(move || thread.serve(&request, &taken))
            .map_err(|error| StoreError::transient(&format!("cannot start a thread: {error}")))?;
        Ok(Connection { number: self.opened, jobs })
    }

    /// Starts no compaction any more and cancels the running one.
    pub(super) fn cancel_compaction(&self) {
        self.cancellation.is_stopping.store(true, Ordering::Release);
        if let Some(token) = self.cancellation.token().clone() {
            // It takes a connection of its own, for which the writer does not wait.
            thread::spawn(move || token.cancel_query(NoTls));
        }
    }
}

impl Connection {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Hands a job over. A connection that is gone has said so already.
    pub(super) fn ask(&self, job: Job) {
        let _ = self.jobs.send(job);
    }
}

impl Cancellation {
    fn token(&self) -> std::sync::MutexGuard<'_, Option<CancelToken>> {
        self.token.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The connection's own thread.
struct ConnectionThread {
    number: u64,
    inbox: SyncSender<Input>,
    cancellation: Arc<Cancellation>,
    spare: Arc<Spare>,
    is_connected: Cell<bool>,
    _alive: Arc<()>,
}

impl Drop for ConnectionThread {
    fn drop(&mut self) {
        if !thread::panicking() {
            return;
        }
        // The crate postgres panics where probes were quicker and took the descriptors that were
        // free.
        let refused =
            || OpenError::Transient("no file descriptor was free for the database".into());
        self.answer(Answer::Plain(if self.is_connected.get() {
            Reply::Panicked
        } else {
            Reply::Refused(refused())
        }));
    }
}

impl ConnectionThread {
    fn serve(&self, request: &OpenRequest, jobs: &Receiver<Job>) {
        let mut store = match self.open(request) {
            Ok(store) => store,
            Err(error) => return self.answer(Answer::Plain(Reply::Refused(error))),
        };
        loop {
            let job = match jobs.recv_timeout(CHECK_INTERVAL) {
                Ok(job) => Some(job),
                Err(RecvTimeoutError::Timeout) => None,
                Err(RecvTimeoutError::Disconnected) => return,
            };
            if let Err(error) = store.check() {
                log::info!("database session=lost error=\"{error}\"");
                return self.answer(Answer::Plain(Reply::Lost(error.to_string())));
            }
            match job {
                None => self.offer_imported(&mut store),
                Some(Job::Write(batch, results_per_node)) => {
                    let written = store.write(&batch, results_per_node);
                    if written.is_ok() && batch.ends_pass() {
                        match store.new_events() {
                            Ok(events) => self.answer(Answer::Events(events)),
                            Err(error) => log::warn!("events error=\"{error}\""),
                        }
                        self.report_finished_pass(&mut store);
                    }
                    let is_written = written.is_ok();
                    let written = written.map(|()| store.fingerprint().cloned());
                    self.answer(Answer::Written(written.map_err(write_error)));
                    if is_written {
                        self.offer_imported(&mut store);
                    }
                }
                Some(Job::Compact(now, params)) => {
                    self.compact(&mut store, now, &params);
                    self.answer(Answer::Plain(Reply::Compacted));
                }
            }
        }
    }

    /// Hands over imported addresses, after each batch and while there is none. The next batch
    /// removes them; a failure is no harm, since they are read again.
    fn offer_imported(&self, store: &mut Store) {
        match store.imported() {
            Ok(addresses) if addresses.is_empty() => {}
            Ok(addresses) => self.answer(Answer::Imported(addresses)),
            Err(error) => log::warn!("import error=\"{error}\""),
        }
    }

    fn report_finished_pass(&self, store: &mut Store) {
        match store.finished_pass() {
            Ok(pass) => self.answer(Answer::Finished(pass)),
            Err(error) => log::warn!("metrics error=\"{error}\""),
        }
    }

    fn answer(&self, answer: Answer) {
        // Without a writer the process is about to end.
        let _ = self.inbox.send(Input::Answer(self.number, answer));
    }

    fn open(&self, request: &OpenRequest) -> Result<Store, OpenError> {
        self.spare.release().map_err(open_error)?;
        let connected = Store::connect(&request.url);
        self.spare.fill();
        let mut store = connected.map_err(open_error)?;
        self.is_connected.set(true);
        self.answer(Answer::Connected(store.backend_id().clone()));
        // Before an upgrade too: it would change the tables under a running crawler.
        store.lock_crawler(&request.backends).map_err(open_error)?;
        let migrated = store.migrate().map_err(open_error)?;
        if migrated.from != migrated.to {
            log::info!("schema from={} to={}", migrated.from, migrated.to);
        }
        if !store.lock_crawler(&request.backends).map_err(open_error)? {
            return Err(OpenError::Transient("the database was emptied meanwhile".to_owned()));
        }
        self.answer(Answer::Plain(Reply::Locked));
        if let Some(fingerprint) = &request.fingerprint
            && store.expect(fingerprint).map_err(open_error)?
        {
            self.answer(Answer::Plain(Reply::Resumed));
            return Ok(store);
        }
        self.load(&mut store, request.now).map_err(open_error)?;
        Ok(store)
    }

    fn load(&self, store: &mut Store, now: UnixTime) -> Result<(), StoreError> {
        self.compact(store, now, &CompactionParams::default());
        let (sender, rows) = mpsc::sync_channel(MAX_PIECES);
        self.answer(Answer::Loading(rows));
        let mut piece = Vec::with_capacity(PIECE_ROWS);
        let mut hand_over = |row| {
            piece.push(row);
            if piece.len() == PIECE_ROWS {
                // A writer that has dropped the channel has abandoned this connection.
                let _ = sender.send(std::mem::replace(&mut piece, Vec::with_capacity(PIECE_ROWS)));
            }
        };
        store.load_sources(&mut |group, row| hand_over(Row::Source(group, row)))?;
        store.load_names(&mut |address, name| hand_over(Row::Name(address, name)))?;
        if let Some(at) = store.forgets_from()? {
            hand_over(Row::ForgetsFrom(at));
        }
        for address in store.imported()? {
            hand_over(Row::Imported(address));
        }
        if let Some(learned) = store.learned()? {
            hand_over(Row::Learned(learned));
        }
        let last_pass = store.load(&mut |known| hand_over(Row::Address(known)))?;
        let _ = sender.send(piece);
        drop(sender);
        self.report_finished_pass(store);
        if let Some(fingerprint) = store.fingerprint().cloned() {
            self.answer(Answer::Loaded(last_pass, fingerprint));
        }
        Ok(())
    }

    /// Closes days and compacts if that is due. A failure is no harm: the end of the next pass is
    /// early enough to try again.
    fn compact(&self, store: &mut Store, now: UnixTime, params: &CompactionParams) {
        *self.cancellation.token() = Some(store.cancel_token());
        // A stop that came before the token was there has cancelled nothing.
        let may_work = || !self.cancellation.is_stopping.load(Ordering::Acquire);
        while may_work() {
            match store.close_day() {
                Ok(None) => break,
                Ok(Some(day)) => log::info!("history day={} state=closed", day.to_text()),
                Err(error) => {
                    log::warn!("history error=\"{error}\"");
                    break;
                }
            }
        }
        while may_work() {
            match store.compact_if_due(now, params) {
                Ok(None) => break,
                Ok(Some(report)) => log::debug!("compaction {report}"),
                Err(error) => {
                    log::warn!("compaction error=\"{error}\"");
                    break;
                }
            }
        }
        *self.cancellation.token() = None;
    }
}

fn open_error(error: StoreError) -> OpenError {
    match error {
        StoreError::Permanent(why) => OpenError::Permanent(why),
        StoreError::Locked => OpenError::Locked(error.to_string()),
        error => OpenError::Transient(error.to_string()),
    }
}

fn write_error(error: StoreError) -> WriteError {
    match error {
        StoreError::Emptied => WriteError::Replaced,
        error => WriteError::Failed(error.to_string()),
    }
}
