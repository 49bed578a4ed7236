//! The desk: a connection to the database in a thread of its own, so that nobody waits for it longer than he likes.
//!
//! Layer 3. The crate postgres waits for an answer without a bound, and a server that is frozen, or a link through a
//! middleman that forgot it, gives none and no error either. So the writer hands its work over the desk and goes on
//! with everything else; a desk that stays silent is left alone, and its thread ends when its connection does.
//! Invariants: 1. nothing is written by a desk that does not hold the crawler's lock, taken before anything else;
//! 2. a desk that was left writes nothing more than what it was busy with: the next one ends its session before it
//! writes; 3. no more than [`MOST`] desks exist, however long the server is silent.

use std::cell::Cell;
use std::fs::File;
use std::sync::mpsc::{self, Receiver, Sender, SyncSender};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{io, thread};

use postgres::{CancelToken, NoTls};

use super::store::{Mark, Session};
use super::{FoldParams, Store, StoreError};
use crate::crawl::batch::{Batch, Known, LastPass, SourceRow};
use crate::crawl::exchange::ToWriter;
use crate::crawl::time::UnixTime;

/// So many desks exist at most, those included that were left and still wait for their server.
const MOST: usize = 4;
/// Rows are handed over in pieces of so many, and so many pieces may lie ready.
const PIECE: usize = 512;
const PIECES: usize = 4;

/// What comes to the writer.
pub(super) enum Input {
    /// From the loop.
    Loop(ToWriter),
    /// From the desk of this number.
    Desk(u64, Reply),
    /// Nothing: but something has changed that is worth a look.
    Look,
}

/// What a desk says.
pub(super) enum Reply {
    /// The server answered; this is our session there.
    Connected(Session),
    /// We are the database's crawler.
    Locked,
    /// It is the database that it was before.
    Resumed,
    /// It is not, or was never loaded: here come its rows.
    Loading(Receiver<Vec<Row>>),
    /// That was all.
    Loaded(LastPass, Mark),
    /// It could not be opened. `is_locked`: another crawler has it.
    Refused { error: StoreError, is_locked: bool },
    /// What became of the batch; with it, if it is written, what tells the database from now on.
    Written(Result<Option<Mark>, StoreError>),
    /// Folding is done, or given up.
    Folded,
    /// Its thread panicked.
    Broke,
}

/// Something that the database knows.
pub(super) enum Row {
    Source(u16, SourceRow),
    Address(Known),
}

/// What a desk is asked for, one at a time.
pub(super) enum Job {
    Write(Arc<Batch>, u32),
    Fold(UnixTime, FoldParams),
}

/// What it takes to open a desk.
pub(super) struct Opening {
    pub(super) url: String,
    /// Our sessions of before.
    pub(super) sessions: Vec<Session>,
    /// What told the database when it was last written.
    pub(super) mark: Option<Mark>,
    pub(super) now: UnixTime,
}

/// Where a fold can be cancelled from: a stop does not wait for it.
#[derive(Default)]
pub(super) struct Folding {
    token: Mutex<Option<CancelToken>>,
    is_stopping: std::sync::atomic::AtomicBool,
}

/// The writer's end of a desk.
pub(super) struct Desk {
    number: u64,
    jobs: Sender<Job>,
}

/// Descriptors that are held for a connection: those who dial take every one that is free.
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
        while spare.len() < SPARE {
            let Ok(file) = File::open("/dev/null") else { return };
            spare.push(file);
        }
    }
}

/// So many descriptors a connection takes: a socket, and what waits for it. With less the crate postgres panics.
const NEEDED: usize = 4;
/// So many are held, since those who dial may be quicker.
const SPARE: usize = 8;

/// Opens desks.
pub(super) struct Desks {
    opened: u64,
    /// Every desk's thread holds one.
    alive: Arc<()>,
    inbox: SyncSender<Input>,
    folding: Arc<Folding>,
    spare: Arc<Spare>,
}

impl Desks {
    pub(super) fn new(inbox: SyncSender<Input>, folding: Arc<Folding>) -> Self {
        let spare = Arc::new(Spare::default());
        spare.fill();
        Self { opened: 0, alive: Arc::new(()), inbox, folding, spare }
    }

    /// Takes descriptors that have become free, for the next connection.
    pub(super) fn take_spare(&self) {
        self.spare.fill();
    }

    /// Opens a desk. Its first words say what became of it.
    ///
    /// # Errors
    /// Where too many of them hang already, or the system has no room for a thread.
    pub(super) fn open(&mut self, opening: Opening) -> Result<Desk, StoreError> {
        let silent =
            || StoreError::transient("the database accepts connections and then says nothing");
        if Arc::strong_count(&self.alive) > MOST {
            return Err(silent());
        }
        self.opened += 1;
        let (jobs, taken) = mpsc::channel();
        let (inbox, alive) = (self.inbox.clone(), Arc::clone(&self.alive));
        let (number, folding) = (self.opened, Arc::clone(&self.folding));
        let spare = Arc::clone(&self.spare);
        let serve = move || {
            let clerk = Clerk { number, inbox, folding, spare, is_connected: Cell::new(false) };
            clerk.serve(&opening, &taken);
            drop(alive);
        };
        let started: io::Result<_> = thread::Builder::new().name("database".into()).spawn(serve);
        started
            .map_err(|error| StoreError::transient(&format!("no room for a thread: {error}")))?;
        Ok(Desk { number, jobs })
    }
}

impl Desk {
    pub(super) fn number(&self) -> u64 {
        self.number
    }

    /// Hands a job over. A desk that is gone has said so already.
    pub(super) fn ask(&self, job: Job) {
        let _ = self.jobs.send(job);
    }
}

impl Folding {
    /// No fold begins any more, and the one that runs is cancelled.
    pub(super) fn stop(&self) {
        self.is_stopping.store(true, std::sync::atomic::Ordering::Release);
        let token = self.token.lock().unwrap_or_else(PoisonError::into_inner).clone();
        if let Some(token) = token {
            // It needs a connection of its own, for which the loop does not wait.
            thread::spawn(move || token.cancel_query(NoTls));
        }
    }

    fn is_stopping(&self) -> bool {
        self.is_stopping.load(std::sync::atomic::Ordering::Acquire)
    }

    fn set(&self, token: Option<CancelToken>) {
        *self.token.lock().unwrap_or_else(PoisonError::into_inner) = token;
    }
}

/// The desk's end of it, in its own thread.
struct Clerk {
    number: u64,
    inbox: SyncSender<Input>,
    folding: Arc<Folding>,
    spare: Arc<Spare>,
    is_connected: Cell<bool>,
}

impl Drop for Clerk {
    fn drop(&mut self) {
        // The crate postgres panics where somebody else was quicker and took the descriptors that were free.
        let taken = || StoreError::transient("no file descriptor was free for the database");
        match (thread::panicking(), self.is_connected.get()) {
            (true, true) => self.say(Reply::Broke),
            (true, false) => self.say(Reply::Refused { error: taken(), is_locked: false }),
            _ => {}
        }
    }
}

impl Clerk {
    fn serve(&self, opening: &Opening, jobs: &Receiver<Job>) {
        let mut store = match self.open(opening) {
            Ok(store) => store,
            Err(refused) => return self.say(refused),
        };
        while let Ok(job) = jobs.recv() {
            match job {
                Job::Write(batch, results_per_node) => {
                    let written = store.write(&batch, results_per_node);
                    self.say(Reply::Written(written.map(|()| store.mark().cloned())));
                }
                Job::Fold(now, params) => {
                    self.fold(&mut store, now, &params);
                    self.say(Reply::Folded);
                }
            }
        }
    }

    fn say(&self, reply: Reply) {
        // Without a writer the process is on its way out.
        let _ = self.inbox.send(Input::Desk(self.number, reply));
    }

    fn open(&self, opening: &Opening) -> Result<Store, Reply> {
        let refused = |error| Reply::Refused { error, is_locked: false };
        self.spare.release().map_err(refused)?;
        let connected = Store::connect(&opening.url);
        self.spare.fill();
        let mut store = connected.map_err(refused)?;
        self.is_connected.set(true);
        self.say(Reply::Connected(store.session().clone()));
        let locked = match opening.sessions.is_empty() {
            true => store.lock_crawler(),
            false => store.relock_crawler(&opening.sessions),
        };
        locked.map_err(|error| {
            let is_locked = matches!(error, StoreError::Permanent(_));
            Reply::Refused { error, is_locked }
        })?;
        self.say(Reply::Locked);
        let migrated = store.migrate().map_err(refused)?;
        if migrated.from != migrated.to {
            log::info!("schema from={} to={}", migrated.from, migrated.to);
        }
        if let Some(mark) = &opening.mark
            && store.expect(mark).map_err(refused)?
        {
            self.say(Reply::Resumed);
            return Ok(store);
        }
        self.load(&mut store, opening.now).map_err(refused)?;
        Ok(store)
    }

    fn load(&self, store: &mut Store, now: UnixTime) -> Result<(), StoreError> {
        self.fold(store, now, &FoldParams::default());
        let (sender, rows) = mpsc::sync_channel(PIECES);
        self.say(Reply::Loading(rows));
        let mut piece = Vec::with_capacity(PIECE);
        let mut hand_over = |row| {
            piece.push(row);
            if piece.len() == PIECE {
                // A writer that does not want them any more has left this desk.
                let _ = sender.send(std::mem::replace(&mut piece, Vec::with_capacity(PIECE)));
            }
        };
        store.load_sources(&mut |group, row| hand_over(Row::Source(group, row)))?;
        let last_pass = store.load(&mut |known| hand_over(Row::Address(known)))?;
        let _ = sender.send(piece);
        drop(sender);
        if let Some(mark) = store.mark().cloned() {
            self.say(Reply::Loaded(last_pass, mark));
        }
        Ok(())
    }

    /// Folds if that is due. Without it all goes on as before: the next pass's end is early enough to try again.
    fn fold(&self, store: &mut Store, now: UnixTime, params: &FoldParams) {
        self.folding.set(Some(store.cancel_token()));
        // A stop that came before the token was there has cancelled nothing.
        while !self.folding.is_stopping() {
            match store.fold_if_due(now, params) {
                Ok(None) => break,
                Ok(Some(report)) => log::info!("fold {report}"),
                Err(error) => {
                    log::warn!("fold error=\"{error}\"");
                    break;
                }
            }
        }
        self.folding.set(None);
    }
}

/// What the writer waits for, and for how long: first it says that the database is away, then it leaves the desk.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Busy {
    /// A connection and the lock.
    Connecting,
    /// Migrations, a fold, all rows: minutes on a small board.
    Loading,
    /// A batch. The server itself gives up on it after two minutes.
    Writing,
    /// A fold.
    Folding,
}

impl Busy {
    /// A server that is silent for so long is as good as away.
    pub(super) fn patience(self) -> Duration {
        Duration::from_secs(match self {
            Self::Connecting | Self::Writing => 10,
            Self::Loading | Self::Folding => 120,
        })
    }

    /// And after so long a new connection is tried.
    pub(super) fn bound(self) -> Duration {
        Duration::from_secs(match self {
            Self::Connecting => 60,
            Self::Writing => 150,
            Self::Loading | Self::Folding => 3_600,
        })
    }
}
