//! The writer thread: the shell of the `Recorder`, the only one that writes to the database.
//!
//! Layer 3. It takes results from the loop, hands new targets back at once, and writes batches when they are due.
//! Invariants: 1. a batch stays in hand until `Store::write` said that it is committed; 2. the database being
//! away stops neither the thread nor the crawl until [`MAX_HELD_ROWS`] are held; 3. it ends only when told to,
//! or when a person has to act before anything can be written at all.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::JoinHandle;
use std::time::Duration;
use std::{io, thread};

use mio::Waker;
use postgres::{CancelToken, NoTls};

use super::{FoldParams, Store, StoreError};
use crate::crawl::batch::Batch;
use crate::crawl::crawler::MAX_UNACKED;
use crate::crawl::exchange::{Database, FromWriter, ToWriter, Totals};
use crate::crawl::line::MAX_HELD_RESULTS;
use crate::crawl::recorder::{MAX_HELD_ROWS, Recorder, RecorderParams};
use crate::crawl::time::UnixTime;
use crate::io::clock::Clock;

/// When and where to write.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WriterSettings {
    /// The key `crawl.results_per_node`.
    pub results_per_node: u32,
    /// The key `database.batch_rows`.
    pub batch_rows: usize,
    /// The key `database.flush_interval`.
    pub flush_interval: Duration,
}

/// The most sockets that a crawl may use: the channel to the writer has room for a result of each.
pub const MAX_SOCKETS: usize = 20_000;
/// What is in hand when the crawl stops may take so long to be written.
const STOP_PATIENCE: Duration = Duration::from_secs(8);
/// The first wait after the database went away; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// So many messages are taken before the answers go out.
const TAKE: usize = 256;

/// The loop's end of the writer.
pub struct Writer {
    sender: SyncSender<ToWriter>,
    inbox: Receiver<FromWriter>,
    shared: Arc<Shared>,
    thread: JoinHandle<()>,
}

struct Shared {
    settings: Mutex<WriterSettings>,
    /// The loop was woken and has not looked yet: it need not be woken again.
    is_woken: AtomicBool,
    is_stopping: AtomicBool,
    /// What is in hand may take [`STOP_PATIENCE`] and no longer.
    is_hurried: AtomicBool,
    /// Present while a fold runs: a stop does not wait for it.
    folding: Mutex<Option<CancelToken>>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// Where the system has no room for a thread.
    pub fn start(
        url: String,
        settings: WriterSettings,
        params: &RecorderParams,
        seed: u64,
        waker: Arc<Waker>,
        clock: Clock,
    ) -> io::Result<Self> {
        // Every open socket may bring a result while the writer takes none; control messages are few.
        // What was held for a doubtful line comes all at once.
        let room = MAX_SOCKETS + MAX_UNACKED + MAX_HELD_RESULTS + MAX_SOCKETS + 64;
        let (sender, receiver) = mpsc::sync_channel(room);
        let (outbox, inbox) = mpsc::channel();
        let shared = Arc::new(Shared {
            settings: Mutex::new(settings),
            is_woken: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            is_hurried: AtomicBool::new(false),
            folding: Mutex::new(None),
        });
        let outbox = Outbox { sender: outbox, waker, shared: Arc::clone(&shared) };
        let recorder = Recorder::new(params, seed);
        let mut worker = Worker::new(url, recorder, receiver, outbox, clock);
        let thread = thread::Builder::new().name("writer".into()).spawn(move || worker.run())?;
        Ok(Self { sender, inbox, shared, thread })
    }

    /// A person wants the end: what cannot be written soon is dropped.
    pub fn hurry(&self) {
        self.shared.is_hurried.store(true, Ordering::Release);
        self.thread.thread().unpark();
    }

    /// Tells the writer something; `false` if it is gone.
    pub fn send(&self, message: ToWriter) -> bool {
        if matches!(message, ToWriter::Stop) {
            self.shared.is_stopping.store(true, Ordering::Release);
            self.thread.thread().unpark();
            self.shared.cancel_fold();
        }
        match self.sender.try_send(message) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => unreachable!("the crawler counts what it sends"),
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// The next thing that the writer says. `Err` if it is gone without a word: its thread panicked.
    ///
    /// # Errors
    /// Where the thread has ended and everything that it said was taken.
    pub fn receive(&self) -> Result<Option<FromWriter>, Gone> {
        self.shared.is_woken.store(false, Ordering::Release);
        match self.inbox.try_recv() {
            Ok(message) => Ok(Some(message)),
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => Err(Gone),
        }
    }

    /// Changes when and what it writes.
    pub fn reconfigure(&self, settings: WriterSettings) {
        *self.shared.settings.lock().unwrap_or_else(PoisonError::into_inner) = settings;
    }
}

/// The writer's thread has ended.
#[derive(Clone, Copy, Debug)]
pub struct Gone;

impl Shared {
    fn cancel_fold(&self) {
        let token = self.folding.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(token) = token {
            // It needs a connection of its own, for which the loop does not wait.
            thread::spawn(move || token.cancel_query(NoTls));
        }
    }
}

/// Folds if that is due. Without it all goes on as before: the next pass's end is early enough to try again.
fn fold(store: &mut Store, shared: &Shared, now: UnixTime, params: &FoldParams) {
    let set = |token| {
        *shared.folding.lock().unwrap_or_else(PoisonError::into_inner) = token;
    };
    set(Some(store.cancel_token()));
    // A stop that came before the token was there has cancelled nothing.
    while !shared.is_stopping.load(Ordering::Acquire) {
        match store.fold_if_due(now, params) {
            Ok(None) => break,
            Ok(Some(report)) => log::info!("fold {report}"),
            Err(error) => {
                log::warn!("fold error=\"{error}\"");
                break;
            }
        }
    }
    set(None);
}

struct Outbox {
    sender: Sender<FromWriter>,
    waker: Arc<Waker>,
    shared: Arc<Shared>,
}

impl Outbox {
    fn send(&self, message: FromWriter) {
        // Without a receiver the process is on its way out.
        if self.sender.send(message).is_ok()
            && !self.shared.is_woken.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            log::debug!("waker error=\"{error}\"");
        }
    }
}

struct Worker {
    url: String,
    recorder: Recorder,
    receiver: Receiver<ToWriter>,
    outbox: Outbox,
    clock: Clock,
    store: Option<Store>,
    /// Taken from the recorder and not known to be committed.
    in_hand: Option<Batch>,
    /// When the oldest row that waits came in.
    waits_since: Option<Duration>,
    retry_at: Duration,
    wait: Duration,
    is_down: bool,
    /// The server's process behind the newest connection: it may outlive it and hold the lock.
    former_pid: i32,
    totals: Totals,
}

/// Why the thread ends.
enum End {
    Stop,
    Failed(String),
}

impl Worker {
    fn new(
        url: String,
        recorder: Recorder,
        receiver: Receiver<ToWriter>,
        outbox: Outbox,
        clock: Clock,
    ) -> Self {
        Self {
            url,
            recorder,
            receiver,
            outbox,
            clock,
            store: None,
            in_hand: None,
            waits_since: None,
            retry_at: Duration::ZERO,
            wait: FIRST_WAIT,
            is_down: false,
            former_pid: 0,
            totals: Totals::default(),
        }
    }

    fn run(&mut self) {
        let end = self.open().and_then(|()| self.work());
        match end {
            Ok(()) | Err(End::Stop) => {
                let lost = self.write_the_rest();
                self.outbox.send(FromWriter::Stopped { lost });
            }
            Err(End::Failed(why)) => self.outbox.send(FromWriter::Failed(why)),
        }
    }

    /// Opens the database, waiting for it as long as it takes, and loads what it knows.
    fn open(&mut self) -> Result<(), End> {
        loop {
            match self.try_open() {
                Ok(()) => break,
                Err(StoreError::Permanent(why)) => return Err(End::Failed(why)),
                Err(error) => self.went_away(&error),
            }
            // Only a stop, or a reload, can come before the crawl has begun.
            match self.receiver.recv_timeout(self.wait) {
                Ok(ToWriter::Stop) | Err(RecvTimeoutError::Disconnected) => return Err(End::Stop),
                Ok(message) => self.recorder.handle(message, self.clock.now()),
                Err(RecvTimeoutError::Timeout) => {}
            }
        }
        self.came_back();
        self.forward();
        Ok(())
    }

    fn try_open(&mut self) -> Result<(), StoreError> {
        let mut store = Store::connect(&self.url)?;
        match self.former_pid {
            0 => store.lock_crawler()?,
            former_pid => store.relock_crawler(former_pid)?,
        }
        self.former_pid = store.backend_pid();
        let migrated = store.migrate()?;
        if migrated.from != migrated.to {
            log::info!("schema from={} to={}", migrated.from, migrated.to);
        }
        let now = self.clock.now().wall;
        fold(&mut store, &self.outbox.shared, now, &FoldParams::default());
        let recorder = &mut self.recorder;
        store.load_sources(&mut |group, row| recorder.load_source(group, row))?;
        let last_pass = store.load(&mut |known| recorder.load(&known))?;
        recorder.handle_loaded(last_pass);
        self.store = Some(store);
        Ok(())
    }

    fn work(&mut self) -> Result<(), End> {
        loop {
            let now = self.clock.now().mono;
            let settings = self.settings();
            let due = self.flush_at(&settings, now);
            if due.is_some_and(|at| at <= now) {
                self.flush(&settings)?;
                continue;
            }
            let wait = due.map_or(LONGEST_WAIT, |at| at - now);
            if self.is_full() && !self.is_stopping() {
                thread::park_timeout(wait);
                continue;
            }
            match self.receiver.recv_timeout(wait) {
                Ok(message) => self.take(message)?,
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => return Err(End::Stop),
            }
        }
    }

    /// Takes a message and those behind it, then answers.
    fn take(&mut self, first: ToWriter) -> Result<(), End> {
        let mut message = first;
        for taken in 1.. {
            if matches!(message, ToWriter::Stop) {
                return Err(End::Stop);
            }
            let now = self.clock.now();
            self.recorder.handle(message, now);
            if self.recorder.has_rows() {
                self.waits_since.get_or_insert(now.mono);
            }
            if taken == TAKE || self.is_full() {
                break;
            }
            let Ok(next) = self.receiver.try_recv() else { break };
            message = next;
        }
        self.forward();
        Ok(())
    }

    fn forward(&mut self) {
        while let Some(message) = self.recorder.poll_output() {
            self.outbox.send(message);
        }
        let totals = self.recorder.totals();
        if totals != self.totals {
            self.totals = totals;
            self.outbox.send(FromWriter::Totals(totals));
        }
    }

    /// When the next write is due.
    fn flush_at(&self, settings: &WriterSettings, now: Duration) -> Option<Duration> {
        let due = match (&self.in_hand, self.waits_since) {
            (Some(_), _) => now,
            (None, Some(_)) if self.recorder.held() >= settings.batch_rows => now,
            (None, Some(since)) => since + settings.flush_interval,
            (None, None) => return None,
        };
        Some(due.max(self.retry_at))
    }

    /// Tries once to write what is in hand, or else what waits.
    fn flush(&mut self, settings: &WriterSettings) -> Result<(), End> {
        if self.in_hand.is_none() {
            self.in_hand = Some(self.recorder.take_batch());
            self.waits_since = None;
        }
        match self.try_write(settings) {
            Ok(()) => {
                let batch = self.in_hand.take().unwrap_or_default();
                self.came_back();
                let is_pass_over = batch.passes.values().any(|row| row.finished_at.is_some());
                if let Some(store) = self.store.as_mut().filter(|_| is_pass_over) {
                    let (now, mut params) = (self.clock.now(), FoldParams::default());
                    if !self.recorder.may_forget(now) {
                        params.forget_after = Duration::MAX;
                    }
                    fold(store, &self.outbox.shared, now.wall, &params);
                }
            }
            Err(Refused::Locked(why)) => return Err(End::Failed(why)),
            Err(Refused::Store(error)) => {
                self.store = None;
                self.went_away(&error);
            }
        }
        Ok(())
    }

    fn try_write(&mut self, settings: &WriterSettings) -> Result<(), Refused> {
        let store = match &mut self.store {
            Some(store) => store,
            None => {
                let mut store = Store::connect(&self.url).map_err(Refused::Store)?;
                store.relock_crawler(self.former_pid).map_err(|error| match error {
                    StoreError::Permanent(why) => Refused::Locked(why),
                    error => Refused::Store(error),
                })?;
                self.former_pid = store.backend_pid();
                store.migrate().map_err(Refused::Store)?;
                self.store.insert(store)
            }
        };
        let Some(batch) = &self.in_hand else { return Ok(()) };
        store.write(batch, settings.results_per_node).map_err(Refused::Store)
    }

    /// Writes until nothing is left or, where somebody hurries, time runs out, and gives the number of rows lost.
    fn write_the_rest(&mut self) -> usize {
        let mut deadline = None;
        self.retry_at = Duration::ZERO;
        while self.store.is_some() || self.is_down {
            if self.in_hand.is_none() && !self.recorder.has_rows() {
                break;
            }
            let now = self.clock.now().mono;
            if deadline.is_none() && self.outbox.shared.is_hurried.load(Ordering::Acquire) {
                deadline = Some(now + STOP_PATIENCE);
            }
            let left = deadline.map_or(LONGEST_WAIT, |deadline| deadline.saturating_sub(now));
            if left.is_zero() {
                break;
            }
            if now < self.retry_at {
                thread::park_timeout((self.retry_at - now).min(left));
                continue;
            }
            if self.flush(&self.settings()).is_err() {
                break;
            }
        }
        self.in_hand.as_ref().map_or(0, Batch::rows) + self.recorder.held()
    }

    fn went_away(&mut self, error: &StoreError) {
        self.wait = if self.is_down { (self.wait * 2).min(LONGEST_WAIT) } else { FIRST_WAIT };
        self.retry_at = self.clock.now().mono + self.wait;
        let held = self.in_hand.as_ref().map_or(0, Batch::rows) + self.recorder.held();
        if !self.is_down {
            let error = error.to_string();
            self.outbox.send(FromWriter::Database(Database::Down { error, held }));
        }
        self.is_down = true;
    }

    fn came_back(&mut self) {
        if self.is_down {
            self.outbox.send(FromWriter::Database(Database::Up));
        }
        self.is_down = false;
        self.wait = FIRST_WAIT;
        self.retry_at = Duration::ZERO;
    }

    fn is_full(&self) -> bool {
        self.recorder.held() >= MAX_HELD_ROWS
    }

    fn is_stopping(&self) -> bool {
        self.outbox.shared.is_stopping.load(Ordering::Acquire)
    }

    fn settings(&self) -> WriterSettings {
        self.outbox.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Why a batch was not written.
enum Refused {
    /// Another crawler has taken over the database meanwhile.
    Locked(String),
    /// Anything else: it is tried again, even where a person has to act first.
    Store(StoreError),
}
