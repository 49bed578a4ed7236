//! The writer thread: the shell of the `Recorder`, the only one that writes to the database.
//!
//! Layer 3. It takes results from the loop, hands new targets back at once, and hands batches over the desk when they
//! are due. It never waits for the database itself, only for whatever comes first.
//! Invariants: 1. a batch stays in hand until the desk said that it is committed; 2. the database being away, or
//! silent, stops neither the thread nor the crawl until [`MAX_HELD_ROWS`] are held; 3. it ends only when told to,
//! or when a person has to act before anything can be written at all; 4. where the database was emptied or is another
//! one, all that belongs to the former one is dropped before anything is written.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use std::{io, thread};

use mio::Waker;

use super::desk::{Busy, Desk, Desks, Folding, Input, Job, Opening, Reply, Row};
use super::store::{Mark, Session};
use super::{FoldParams, StoreError};
use crate::crawl::batch::{Batch, LastPass};
use crate::crawl::crawler::MAX_UNACKED;
use crate::crawl::exchange::{Database, FromWriter, ToWriter, Totals};
use crate::crawl::line::MAX_HELD_RESULTS;
use crate::crawl::recorder::{MAX_HELD_ROWS, Recorder, RecorderParams};
use crate::crawl::time::Now;
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
const STOP_PATIENCE: Duration = Duration::from_secs(7);
/// The first wait after the database went away; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// So many messages are taken before the answers go out.
const TAKE: usize = 256;
/// So many of our own sessions are remembered: no more than desks can hang, and a few.
const MOST_SESSIONS: usize = 16;
/// While rows are loaded a stop is looked for so often.
const LOOK: Duration = Duration::from_millis(500);

/// The loop's end of the writer.
pub struct Writer {
    sender: SyncSender<Input>,
    inbox: Receiver<FromWriter>,
    shared: Arc<Shared>,
    folding: Arc<Folding>,
}

struct Shared {
    settings: Mutex<WriterSettings>,
    /// The loop was woken and has not looked yet: it need not be woken again.
    is_woken: AtomicBool,
    is_stopping: AtomicBool,
    /// What is in hand may take [`STOP_PATIENCE`] and no longer.
    is_hurried: AtomicBool,
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
        // Every open socket may bring a result while the writer takes none; control messages are few,
        // and so are the desk's.
        // What was held for a doubtful line comes all at once.
        let room = MAX_SOCKETS + MAX_UNACKED + MAX_HELD_RESULTS + MAX_SOCKETS + 256;
        let (sender, receiver) = mpsc::sync_channel(room);
        let (outbox, inbox) = mpsc::channel();
        let shared = Arc::new(Shared {
            settings: Mutex::new(settings),
            is_woken: AtomicBool::new(false),
            is_stopping: AtomicBool::new(false),
            is_hurried: AtomicBool::new(false),
        });
        let outbox = Outbox { sender: outbox, waker, shared: Arc::clone(&shared) };
        let recorder = Recorder::new(params, seed);
        let folding = Arc::new(Folding::default());
        let desks = Desks::new(sender.clone(), Arc::clone(&folding));
        let mut worker = Worker::new(url, recorder, desks, receiver, outbox, clock);
        thread::Builder::new().name("writer".into()).spawn(move || worker.run())?;
        Ok(Self { sender, inbox, shared, folding })
    }

    /// A person wants the end: what cannot be written soon is dropped.
    pub fn hurry(&self) {
        self.shared.is_hurried.store(true, Ordering::Release);
        // Where there is no room it has enough to wake up for.
        let _ = self.sender.try_send(Input::Look);
    }

    /// Tells the writer something; `false` if it is gone.
    pub fn send(&self, message: ToWriter) -> bool {
        if matches!(message, ToWriter::Stop) {
            self.shared.is_stopping.store(true, Ordering::Release);
            self.folding.stop();
        }
        match self.sender.try_send(Input::Loop(message)) {
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
    desks: Desks,
    receiver: Receiver<Input>,
    outbox: Outbox,
    clock: Clock,
    desk: Option<Desk>,
    task: Option<Task>,
    /// Our own sessions at the server, the newest last: one may outlive its connection and hold the lock.
    sessions: Vec<Session>,
    /// What tells the database that was loaded; `None` before.
    mark: Option<Mark>,
    is_loaded: bool,
    /// Taken from the recorder and not known to be committed.
    in_hand: Option<Arc<Batch>>,
    /// Taken from the channel while the recorder had no room.
    backlog: VecDeque<ToWriter>,
    /// When the oldest row that waits came in.
    waits_since: Option<Duration>,
    retry_at: Duration,
    wait: Duration,
    is_down: bool,
    is_stopping: bool,
    /// After a stop: when what is not written is given up.
    deadline: Option<Duration>,
    totals: Totals,
}

/// What the desk is busy with.
#[derive(Clone, Copy)]
struct Task {
    busy: Busy,
    since: Duration,
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
        desks: Desks,
        receiver: Receiver<Input>,
        outbox: Outbox,
        clock: Clock,
    ) -> Self {
        Self {
            url,
            recorder,
            desks,
            receiver,
            outbox,
            clock,
            desk: None,
            task: None,
            sessions: Vec::new(),
            mark: None,
            is_loaded: false,
            in_hand: None,
            backlog: VecDeque::new(),
            waits_since: None,
            retry_at: Duration::ZERO,
            wait: FIRST_WAIT,
            is_down: false,
            is_stopping: false,
            deadline: None,
            totals: Totals::default(),
        }
    }

    fn run(&mut self) {
        loop {
            match self.turn() {
                Ok(()) => {}
                Err(End::Stop) => {
                    let lost = self.held();
                    return self.outbox.send(FromWriter::Stopped { lost });
                }
                Err(End::Failed(why)) => return self.outbox.send(FromWriter::Failed(why)),
            }
        }
    }

    /// Does what is due, then waits for something to happen, and takes it in.
    fn turn(&mut self) -> Result<(), End> {
        let now = self.clock.now().mono;
        let settings = self.settings();
        self.watch(now);
        if self.is_down && self.task.is_none() {
            self.desks.take_spare();
        }
        self.set_to_work(&settings, now);
        let wait = self.wakes_at(&settings, now)?.saturating_sub(now);
        let mut input = match self.receiver.recv_timeout(wait) {
            Ok(input) => input,
            Err(RecvTimeoutError::Timeout) => return Ok(()),
            Err(RecvTimeoutError::Disconnected) => return Err(End::Stop),
        };
        for taken in 1.. {
            self.take(input)?;
            if taken == TAKE {
                break;
            }
            let Ok(next) = self.receiver.try_recv() else { break };
            input = next;
        }
        self.forward();
        Ok(())
    }

    fn take(&mut self, input: Input) -> Result<(), End> {
        match input {
            Input::Look => {}
            Input::Loop(ToWriter::Stop) => {
                self.is_stopping = true;
                self.retry_at = Duration::ZERO;
                self.record_backlog();
            }
            Input::Loop(message) => {
                self.backlog.push_back(message);
                self.record_backlog();
            }
            // A desk that was left may still say which session it had: that one may hold the lock.
            Input::Desk(_, Reply::Connected(session)) => self.connected(session),
            Input::Desk(number, reply) => {
                if self.desk.as_ref().is_some_and(|desk| desk.number() == number) {
                    self.heard(reply)?;
                }
            }
        }
        Ok(())
    }

    /// Hands on what the loop said, as far as there is room.
    fn record_backlog(&mut self) {
        while self.is_stopping || self.recorder.held() < MAX_HELD_ROWS {
            let Some(message) = self.backlog.pop_front() else { break };
            let now = self.clock.now();
            self.recorder.handle(message, now);
            if self.recorder.has_rows() {
                self.waits_since.get_or_insert(now.mono);
            }
        }
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

    /// A desk that is silent for too long: first that is said, then it is left.
    fn watch(&mut self, now: Duration) {
        let Some(Task { busy, since }) = self.task else { return };
        let silent = now.saturating_sub(since);
        if silent >= busy.bound() {
            self.leave(&silence(silent));
        } else if silent >= busy.patience() && !self.is_down {
            self.went_away(&silence(silent));
        }
    }

    /// Gives the desk what is due, or opens one.
    fn set_to_work(&mut self, settings: &WriterSettings, now: Duration) {
        if self.task.is_some() || now < self.retry_at {
            return;
        }
        let is_due = self.flush_at(settings).is_some_and(|at| at <= now);
        let Some(desk) = &self.desk else {
            if is_due || !self.is_loaded || self.is_down {
                self.open(now);
            }
            return;
        };
        if is_due {
            let batch = self.in_hand.take().unwrap_or_else(|| {
                self.waits_since = None;
                Arc::new(self.recorder.take_batch())
            });
            desk.ask(Job::Write(Arc::clone(&batch), settings.results_per_node));
            self.in_hand = Some(batch);
            self.task = Some(Task { busy: Busy::Writing, since: now });
        }
    }

    fn open(&mut self, now: Duration) {
        let opening = Opening {
            url: self.url.clone(),
            sessions: self.sessions.clone(),
            mark: self.mark.clone(),
            now: self.clock.now().wall,
        };
        match self.desks.open(opening) {
            Ok(desk) => {
                self.desk = Some(desk);
                self.task = Some(Task { busy: Busy::Connecting, since: now });
            }
            Err(error) => self.went_away(&error),
        }
    }

    /// When something has to be done if nothing happens before.
    fn wakes_at(&mut self, settings: &WriterSettings, now: Duration) -> Result<Duration, End> {
        if self.is_stopping {
            self.is_over(now)?;
        }
        let mut at = vec![now + LONGEST_WAIT];
        at.extend(self.deadline);
        match self.task {
            Some(Task { busy, since }) if self.is_down => at.push(since + busy.bound()),
            Some(Task { busy, since }) => at.push(since + busy.patience()),
            None => {
                let wants_desk = self.desk.is_none() && (!self.is_loaded || self.is_down);
                at.extend(wants_desk.then_some(self.retry_at));
                at.extend(self.flush_at(settings).map(|due| due.max(self.retry_at)));
            }
        }
        Ok(at.into_iter().min().unwrap_or(now))
    }

    /// After a stop: ends where nothing is left to write or, where somebody hurries, time runs out.
    fn is_over(&mut self, now: Duration) -> Result<(), End> {
        if self.deadline.is_none() && self.outbox.shared.is_hurried.load(Ordering::Acquire) {
            self.deadline = Some(now + STOP_PATIENCE);
        }
        let is_late = self.deadline.is_some_and(|deadline| now >= deadline);
        let has_rows = self.in_hand.is_some() || self.recorder.has_rows();
        match self.is_loaded && has_rows && !is_late {
            true => Ok(()),
            false => Err(End::Stop),
        }
    }

    /// When the next write is due.
    fn flush_at(&self, settings: &WriterSettings) -> Option<Duration> {
        if !self.is_loaded {
            return None;
        }
        let is_enough = self.is_stopping || self.recorder.held() >= settings.batch_rows;
        match (&self.in_hand, self.waits_since) {
            (Some(_), _) => Some(Duration::ZERO),
            (None, Some(_)) if is_enough => Some(Duration::ZERO),
            (None, Some(since)) => Some(since + settings.flush_interval),
            (None, None) => None,
        }
    }

    fn connected(&mut self, session: Session) {
        self.sessions.push(session);
        let surplus = self.sessions.len().saturating_sub(MOST_SESSIONS);
        self.sessions.drain(..surplus);
    }

    /// Hears what the desk that we have says.
    fn heard(&mut self, reply: Reply) -> Result<(), End> {
        let now = self.clock.now();
        match reply {
            Reply::Connected(session) => self.connected(session),
            Reply::Locked => self.task = Some(Task { busy: Busy::Loading, since: now.mono }),
            Reply::Resumed => {
                self.task = None;
                // Where a batch is in hand, only that one being written says that all is well again.
                if self.in_hand.is_none() {
                    self.came_back();
                }
                self.retry_at = Duration::ZERO;
            }
            Reply::Loading(rows) => self.load(&rows),
            Reply::Loaded(last_pass, mark) => self.loaded(last_pass, mark),
            Reply::Refused { error: StoreError::Permanent(why), is_locked }
                if is_locked || !self.is_loaded =>
            {
                return Err(End::Failed(why));
            }
            Reply::Refused { error, .. } => self.leave(&error),
            Reply::Written(Ok(mark)) => {
                let batch = self.in_hand.take().unwrap_or_default();
                self.mark = mark.or(self.mark.take());
                self.task = None;
                self.came_back();
                if batch.passes.values().any(|row| row.finished_at.is_some()) {
                    self.fold(now);
                }
                self.record_backlog();
            }
            // The next desk finds out what is there now.
            Reply::Written(Err(StoreError::Emptied)) => (self.desk, self.task) = (None, None),
            Reply::Written(Err(error)) => self.leave(&error),
            Reply::Folded => self.task = None,
            Reply::Broke => {
                return Err(End::Failed("the thread of the database broke down".to_owned()));
            }
        }
        Ok(())
    }

    /// A pass has ended: the time to fold, if it is due.
    fn fold(&mut self, now: Now) {
        let Some(desk) = self.desk.as_ref().filter(|_| !self.is_stopping) else { return };
        let mut params = FoldParams::default();
        if !self.recorder.may_forget(now) {
            params.forget_after = Duration::MAX;
        }
        desk.ask(Job::Fold(now.wall, params));
        self.task = Some(Task { busy: Busy::Folding, since: now.mono });
    }

    /// Takes in every row. Whatever was known before is of a database that is no more.
    fn load(&mut self, rows: &Receiver<Vec<Row>>) {
        if self.is_loaded {
            let dropped = self.held();
            log::warn!(
                "database state=emptied dropped={dropped} error=\"it was emptied, or made anew, by hand: \
                 the crawl begins anew with what it holds and the nodes file\""
            );
        }
        // The acknowledgements of what is dropped, too.
        self.forward();
        self.recorder.forget_all();
        (self.in_hand, self.waits_since) = (None, None);
        let mut since = self.clock.now().mono;
        loop {
            let now = self.clock.now().mono;
            match rows.recv_timeout(LOOK) {
                Ok(piece) => {
                    since = now;
                    piece.into_iter().for_each(|row| match row {
                        Row::Source(group, row) => self.recorder.load_source(group, row),
                        Row::Address(known) => self.recorder.load(&known),
                    });
                }
                Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    let is_stopping = self.outbox.shared.is_stopping.load(Ordering::Acquire);
                    self.task = Some(Task { busy: Busy::Loading, since });
                    self.watch(now);
                    if is_stopping || self.desk.is_none() {
                        return;
                    }
                }
            }
        }
        self.task = Some(Task { busy: Busy::Loading, since });
    }

    fn loaded(&mut self, last_pass: LastPass, mark: Mark) {
        match self.is_loaded {
            false => self.recorder.handle_loaded(last_pass),
            true => self.recorder.handle_reloaded(last_pass),
        }
        (self.is_loaded, self.mark, self.task) = (true, Some(mark), None);
        self.came_back();
        self.record_backlog();
    }

    /// Gives the desk up, for a reason.
    fn leave(&mut self, error: &StoreError) {
        (self.desk, self.task) = (None, None);
        self.went_away(error);
    }

    fn went_away(&mut self, error: &StoreError) {
        self.wait = if self.is_down { (self.wait * 2).min(LONGEST_WAIT) } else { FIRST_WAIT };
        self.retry_at = self.clock.now().mono + self.wait;
        if !self.is_down {
            let (error, held) = (error.to_string(), self.held());
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

    /// How many rows are not written yet; a result that waits for room counts as one.
    fn held(&self) -> usize {
        let in_hand = self.in_hand.as_ref().map_or(0, |batch| batch.rows());
        in_hand + self.recorder.held() + self.backlog.len()
    }

    fn settings(&self) -> WriterSettings {
        self.outbox.shared.settings.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

fn silence(silent: Duration) -> StoreError {
    StoreError::transient(&format!("the database has not answered for {} s", silent.as_secs()))
}
