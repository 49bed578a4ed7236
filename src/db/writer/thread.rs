//! The writer thread: the shell around [`WriterMachine`], and the only part that writes to the
//! database while it crawls.
//!
//! It never waits for the database itself: a `Connection` on a thread of its own does.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::time::Duration;
use std::{io, thread};

use bitdash_core::record::messages::{FromWriter, ToWriter, WriterParams};
use bitdash_core::record::writer_machine::{Command, OpenError, Reply, WriterMachine};
use bitdash_core::schedule::crawler::MAX_UNACKED;
use bitdash_core::schedule::uplink::MAX_HELD_RESULTS;
use bitdash_core::vocabulary::running_time::RunningTime;
use bitdash_core::vocabulary::time::Now;
use mio::Waker;

use super::CompactionParams;
use super::connection::{Answer, Connection, Connections, Input, Job, OpenRequest, Row};
use super::events::{PendingEvents, Programs};
use super::store::{BackendId, DatabaseFingerprint, FinishedPass};
use crate::sys::clock::Clock;

/// Maximum number of sockets of a crawl: the channel to the writer has room for a result of each.
pub const MAX_SOCKETS: usize = 20_000;
/// Maximum number of messages handled per turn.
const MAX_MESSAGES_PER_TURN: usize = 256;
/// Maximum number of our own backends remembered: all connections that can hang, and a few more.
const MAX_BACKENDS: usize = 16;
/// Interval between looks at the channel while rows are loaded, and the longest sleep.
const LOADING_POLL_INTERVAL: Duration = Duration::from_millis(500);
const MAX_SLEEP: Duration = Duration::from_secs(60);
/// Longest sleep while the database owes an answer, so that no stall hides in a longer one.
const MAX_SLEEP_BUSY: Duration = Duration::from_secs(1);

/// The event loop's handle of the writer.
pub struct Writer {
    sender: SyncSender<Input>,
    inbox: Receiver<FromWriter>,
    /// The loop was woken and has not looked yet: it need not be woken again.
    is_woken: Arc<AtomicBool>,
    /// The end of a pass was written, and the loop has not looked yet.
    has_written_pass: Arc<AtomicBool>,
    finished: Arc<Mutex<Option<FinishedPass>>>,
    events: Arc<PendingEvents>,
}

impl Writer {
    /// Starts the thread.
    ///
    /// # Errors
    /// The system has no room for a thread.
    pub fn start(
        url: String,
        params: WriterParams,
        seed: u64,
        waker: Arc<Waker>,
        clock: Clock,
    ) -> io::Result<Self> {
        // Every open socket may bring a result while the writer takes none, and so may every result
        // that was held while the uplink was in doubt. Control messages and answers of connections
        // are few.
        let room = MAX_SOCKETS + MAX_UNACKED + MAX_HELD_RESULTS + MAX_SOCKETS + 256;
        let (sender, receiver) = mpsc::sync_channel(room);
        let (outbox, inbox) = mpsc::channel();
        let is_woken = Arc::new(AtomicBool::new(false));
        let has_written_pass = Arc::new(AtomicBool::new(false));
        let outbox = Outbox {
            sender: outbox,
            waker,
            is_woken: Arc::clone(&is_woken),
            has_written_pass: Arc::clone(&has_written_pass),
        };
        let (finished, events) = (Arc::default(), Arc::default());
        let mut worker = Worker {
            url,
            machine: WriterMachine::new(params, seed),
            connections: Connections::new(sender.clone()),
            connection: None,
            rows: None,
            backends: Vec::new(),
            fingerprint: None,
            programs: Programs::new(Arc::clone(&events)),
            finished: Arc::clone(&finished),
            receiver,
            outbox,
            clock,
            running: RunningTime::default(),
        };
        worker.running.announce(Duration::MAX);
        thread::Builder::new().name("writer".into()).spawn(move || worker.run())?;
        Ok(Self { sender, inbox, is_woken, has_written_pass, finished, events })
    }

    /// Sends a message; `false` if the thread has ended.
    pub fn send(&self, message: ToWriter) -> bool {
        match self.sender.try_send(Input::Message(message)) {
            Ok(()) => true,
            Err(TrySendError::Full(_)) => unreachable!("the crawler counts what it sends"),
            Err(TrySendError::Disconnected(_)) => false,
        }
    }

    /// Whether the end of a pass was written, and all that follows it, since the last call.
    pub fn take_written_pass(&self) -> bool {
        self.has_written_pass.swap(false, Ordering::AcqRel)
    }

    /// Receives the next message.
    ///
    /// # Errors
    /// The thread has ended and every message was received. Without a previous `Ended` or
    /// `Stopped`, it panicked.
    pub fn receive(&self) -> Result<Option<FromWriter>, Gone> {
        self.is_woken.store(false, Ordering::Release);
        match self.inbox.try_recv() {
            Ok(message) => Ok(Some(message)),
            Err(mpsc::TryRecvError::Empty) => Ok(None),
            Err(mpsc::TryRecvError::Disconnected) => Err(Gone),
        }
    }

    /// The events that the operator's program has not been told yet.
    pub fn pending_events(&self) -> &PendingEvents {
        &self.events
    }

    /// The newest finished pass in the database; `None` before the database was read.
    pub fn finished_pass(&self) -> Option<FinishedPass> {
        self.finished.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// The writer thread has ended.
#[derive(Clone, Copy, Debug)]
pub struct Gone;

struct Outbox {
    sender: Sender<FromWriter>,
    waker: Arc<Waker>,
    is_woken: Arc<AtomicBool>,
    has_written_pass: Arc<AtomicBool>,
}

impl Outbox {
    fn send(&self, message: FromWriter) {
        // Without a receiver the process is about to end.
        if self.sender.send(message).is_ok() {
            self.wake();
        }
    }

    fn note_written_pass(&self) {
        self.has_written_pass.store(true, Ordering::Release);
        self.wake();
    }

    fn wake(&self) {
        if !self.is_woken.swap(true, Ordering::AcqRel)
            && let Err(error) = self.waker.wake()
        {
            log::debug!("waker error=\"{error}\"");
        }
    }
}

struct Worker {
    url: String,
    machine: WriterMachine,
    connections: Connections,
    connection: Option<Connection>,
    /// Rows that are being loaded.
    rows: Option<Receiver<Vec<Row>>>,
    /// Our own backends at the server, the newest last: one may outlive its connection and hold the
    /// lock.
    backends: Vec<BackendId>,
    /// Identifies the database that was loaded.
    fingerprint: Option<DatabaseFingerprint>,
    programs: Programs,
    finished: Arc<Mutex<Option<FinishedPass>>>,
    receiver: Receiver<Input>,
    outbox: Outbox,
    clock: Clock,
    running: RunningTime,
}

impl Worker {
    fn run(&mut self) {
        while !self.machine.has_ended() {
            let now = self.now();
            self.machine.tick(now);
            self.forward();
            if !self.wait() {
                return;
            }
        }
        self.forward();
    }

    /// Reads both clocks. Tells the machine of the time during which the process did not run.
    fn now(&mut self) -> Now {
        let (now, before) = (self.clock.now(), self.running.stalled());
        self.running.read(now.mono);
        self.machine.handle_stall(self.running.stalled() - before);
        now
    }

    /// Sends what the machine says and does what it commands.
    fn forward(&mut self) {
        while let Some(message) = self.machine.poll_message() {
            self.outbox.send(message);
        }
        while let Some(command) = self.machine.poll_command() {
            self.execute(command);
        }
        if self.machine.is_down() && self.connection.is_none() {
            self.connections.reserve_descriptors();
        }
    }

    fn execute(&mut self, command: Command) {
        match command {
            Command::Open => self.open(),
            Command::Close => (self.connection, self.rows) = (None, None),
            Command::Write(batch, results_per_node) => {
                self.ask(Job::Write(batch, results_per_node));
            }
            Command::Compact { at, keep_all } => {
                let mut params = CompactionParams::default();
                if keep_all {
                    params.forget_after = Duration::MAX;
                }
                self.ask(Job::Compact(at, params));
            }
            Command::CancelCompaction => self.connections.cancel_compaction(),
        }
    }

    fn ask(&self, job: Job) {
        self.connection.as_ref().expect("the machine commands an open connection").ask(job);
    }

    fn open(&mut self) {
        let now = self.now();
        let request = OpenRequest {
            url: self.url.clone(),
            backends: self.backends.clone(),
            fingerprint: self.fingerprint.clone(),
            now: now.wall,
        };
        match self.connections.open(request) {
            Ok(connection) => self.connection = Some(connection),
            Err(error) => {
                let refused = Reply::Refused(OpenError::Transient(error.to_string()));
                self.machine.handle_reply(refused, now);
            }
        }
    }

    /// Waits for something to happen and takes it in; `false` if the event loop is gone.
    fn wait(&mut self) -> bool {
        let now = self.now().mono;
        let at = self.machine.poll_timeout(now);
        let max_sleep = if self.rows.is_some() {
            LOADING_POLL_INTERVAL
        } else if self.machine.is_busy() {
            MAX_SLEEP_BUSY
        } else {
            MAX_SLEEP
        };
        let timeout = at.map_or(max_sleep, |at| at.saturating_sub(now).min(max_sleep));
        self.running.announce(timeout);
        if self.rows.is_some() {
            self.load_rows(timeout);
        } else {
            match self.receiver.recv_timeout(timeout) {
                Ok(input) => self.take(input),
                Err(RecvTimeoutError::Timeout) => return true,
                Err(RecvTimeoutError::Disconnected) => return false,
            }
        }
        for _ in 1..MAX_MESSAGES_PER_TURN {
            let Ok(input) = self.receiver.try_recv() else { break };
            self.take(input);
        }
        true
    }

    fn load_rows(&mut self, timeout: Duration) {
        let Some(rows) = &self.rows else { return };
        match rows.recv_timeout(timeout) {
            Ok(piece) => {
                let now = self.now();
                self.machine.handle_progress(now);
                for row in piece {
                    match row {
                        Row::Source(group, row) => self.machine.load_source(group, row),
                        Row::Name(address, name) => self.machine.load_name(address, name),
                        Row::Imported(address) => self.machine.load_imported(address),
                        Row::ForgetsFrom(at) => self.machine.load_forgets_from(at),
                        Row::Learned(learned) => self.machine.load_learned(&learned),
                        Row::Address(known) => self.machine.load(&known),
                    }
                }
            }
            Err(RecvTimeoutError::Timeout) => {}
            Err(RecvTimeoutError::Disconnected) => self.rows = None,
        }
    }

    fn take(&mut self, input: Input) {
        let now = self.now();
        match input {
            Input::Message(message) => self.machine.handle_message(message, now),
            // An abandoned connection may still report its backend: it may hold the lock.
            Input::Answer(_, Answer::Connected(backend)) => {
                self.backends.push(backend);
                let surplus = self.backends.len().saturating_sub(MAX_BACKENDS);
                self.backends.drain(..surplus);
            }
            Input::Answer(number, answer) => {
                let is_current = |connection: &Connection| connection.number() == number;
                if self.connection.as_ref().is_some_and(is_current) {
                    self.take_answer(answer);
                }
            }
        }
    }

    fn take_answer(&mut self, answer: Answer) {
        let reply = match answer {
            Answer::Connected(_) => return,
            Answer::Loading(rows) => {
                self.rows = Some(rows);
                Reply::LoadStarted
            }
            Answer::Loaded(last_pass, fingerprint) => {
                self.load_rest();
                self.fingerprint = Some(fingerprint);
                Reply::Loaded(last_pass)
            }
            Answer::Written(written) => Reply::Written(written.map(|fingerprint| {
                self.fingerprint = fingerprint.or(self.fingerprint.take());
            })),
            Answer::Events(events) => {
                if let Some(program) = self.machine.events_exec() {
                    self.programs.run(program, events);
                }
                return;
            }
            Answer::Imported(addresses) => {
                let now = self.now();
                return self.machine.handle_imported(&addresses, now);
            }
            Answer::Finished(pass) => {
                *self.finished.lock().unwrap_or_else(PoisonError::into_inner) = Some(pass);
                return;
            }
            Answer::Plain(reply) => {
                // What is compacted is the end of a pass.
                if matches!(reply, Reply::Compacted) {
                    self.outbox.note_written_pass();
                }
                reply
            }
        };
        let now = self.now();
        self.machine.handle_reply(reply, now);
    }

    /// Takes in rows that were sent before the last answer and lie ready.
    fn load_rest(&mut self) {
        while self.rows.is_some() {
            self.load_rows(Duration::ZERO);
        }
    }
}
