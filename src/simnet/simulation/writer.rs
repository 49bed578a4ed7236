//! `Writer`: the writer's thread as a machine: the shell of the recorder, and a database that can fail.
//!
//! Layer 2: pure. It does what the real thread does (`io::writer::thread`), with its bounds: a batch stays in hand
//! until it is known to be committed and is written again otherwise; past the bound of held rows nothing is taken.
//! It is worse than the real one in that while some transactions run it takes nothing either. The database is the
//! list of what was committed.
//! Invariants: 1. as much may be in the channel as the real one has room for; 2. answers come in their order.

use std::collections::VecDeque;
use std::time::Duration;

use crate::crawl::batch::Batch;
use crate::crawl::crawler::MAX_UNACKED;
use crate::crawl::exchange::{Database, FromWriter, ToWriter, Totals};
use crate::crawl::line::MAX_HELD_RESULTS;
use crate::crawl::recorder::{MAX_HELD_ROWS, Recorder};
use crate::crawl::time::Now;
use crate::simnet::simulation::faults::{Faults, Kind, Write};
use crate::simnet::simulation::ledger::Ledger;

/// What in hand when the crawl stops may take so long to be written.
const STOP_PATIENCE: Duration = Duration::from_secs(7);
/// The first wait after the database went away; it doubles up to [`LONGEST_WAIT`].
const FIRST_WAIT: Duration = Duration::from_millis(100);
const LONGEST_WAIT: Duration = Duration::from_secs(5);
/// So many messages are taken before the answers go out.
const TAKE: usize = 256;

/// When it writes.
#[derive(Clone, Copy, Debug)]
pub(super) struct WriterSettings {
    pub(super) flush_interval: Duration,
    pub(super) batch_rows: usize,
    /// So many rows are held at most.
    pub(super) most_held: usize,
}

impl WriterSettings {
    pub(super) fn new(flush_interval: Duration) -> Self {
        Self { flush_interval, batch_rows: usize::MAX, most_held: MAX_HELD_ROWS }
    }
}

/// What can go wrong, and who keeps the accounts.
pub(super) struct Around<'a> {
    pub(super) faults: Option<&'a mut Faults>,
    pub(super) ledger: Option<&'a mut Ledger>,
}

/// The machine.
#[derive(Debug)]
pub(super) struct Writer {
    pub(super) recorder: Recorder,
    pub(super) settings: WriterSettings,
    /// So long the answers are on their way.
    pub(super) delay: Duration,
    inbox: VecDeque<ToWriter>,
    answers: VecDeque<(Duration, FromWriter)>,
    /// Taken from the recorder and not known to be committed.
    in_hand: Option<Batch>,
    committed: Vec<Batch>,
    waits_since: Option<Duration>,
    /// The transaction that runs, and when it ends.
    writing: Option<(Duration, Write)>,
    /// Until then the thread does nothing else.
    busy_until: Duration,
    /// The database cannot be reached before.
    away_until: Duration,
    retry_at: Duration,
    wait: Duration,
    is_down: bool,
    totals: Totals,
    is_hurried: bool,
    ending: Option<Ending>,
}

/// `Stop` was taken.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Ending {
    /// What is in hand is written, until then.
    Writing(Option<Duration>),
    /// The thread has ended.
    Gone,
}

impl Writer {
    pub(super) fn new(recorder: Recorder, settings: WriterSettings) -> Self {
        Self {
            recorder,
            settings,
            delay: Duration::ZERO,
            inbox: VecDeque::new(),
            answers: VecDeque::new(),
            in_hand: None,
            committed: Vec::new(),
            waits_since: None,
            writing: None,
            busy_until: Duration::ZERO,
            away_until: Duration::ZERO,
            retry_at: Duration::ZERO,
            wait: FIRST_WAIT,
            is_down: false,
            totals: Totals::default(),
            is_hurried: false,
            ending: None,
        }
    }

    /// The loop says something. `sockets` is the most that were ever allowed.
    pub(super) fn send(&mut self, message: ToWriter, sockets: usize) {
        self.inbox.push_back(message);
        // What was held for a doubtful line comes all at once.
        let room = sockets + MAX_UNACKED + MAX_HELD_RESULTS + sockets + 64;
        assert!(self.inbox.len() <= room, "the channel to the writer is full: {room} messages");
    }

    /// A person wants the end.
    pub(super) fn hurry(&mut self) {
        self.is_hurried = true;
    }

    /// What it says, once it is here.
    pub(super) fn receive(&mut self, now: Duration) -> Option<FromWriter> {
        self.answers.pop_front_if(|(at, _)| *at <= now).map(|(_, message)| message)
    }

    /// The rows that were committed since the last call.
    pub(super) fn drain_committed(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.committed)
    }

    /// All rows that came out since the last call, committed or not.
    pub(super) fn take_all(&mut self) -> Vec<Batch> {
        let mut all = self.drain_committed();
        all.extend(self.in_hand.take());
        if self.recorder.has_rows() {
            all.push(self.recorder.take_batch());
        }
        self.waits_since = None;
        all
    }

    /// Results that were sent and whose acknowledgement has not arrived.
    pub(super) fn unacked(&self) -> usize {
        let sent = self.inbox.iter().filter(|message| matches!(message, ToWriter::Finished(_)));
        let acked = self.answers.iter().map(|(_, message)| match message {
            FromWriter::Heard { acked, .. } => *acked,
            _ => 0,
        });
        sent.count() + acked.sum::<usize>()
    }

    /// Whether something is on its way to it, in it, or on its way from it.
    pub(super) fn is_idle(&self) -> bool {
        let is_quiet = self.inbox.is_empty() && self.answers.is_empty() && self.writing.is_none();
        // Names alone are written again with the next pass.
        let is_nothing = |batch: &Batch| batch.rows() == 0 && batch.passes.is_empty();
        is_quiet && self.in_hand.as_ref().is_none_or(is_nothing) && self.recorder.held() == 0
    }

    /// When `turn` or `receive` has to be called next.
    pub(super) fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        let answer = self.answers.front().map(|(at, _)| *at);
        [answer, self.next_turn(now)].into_iter().flatten().min()
    }

    fn next_turn(&self, now: Duration) -> Option<Duration> {
        if now < self.busy_until {
            return Some(self.busy_until);
        }
        let written = self.writing.map(|(until, _)| until);
        let wakes = (!self.inbox.is_empty() && !self.is_full()).then_some(now);
        if written.is_some() {
            return written.into_iter().chain(wakes.filter(|_| self.ending.is_none())).min();
        }
        match self.ending {
            Some(Ending::Gone) => None,
            Some(Ending::Writing(deadline)) => {
                let retry = self.retry_at.max(now);
                Some(deadline.map_or(retry, |deadline| deadline.min(retry)))
            }
            None => wakes.into_iter().chain(self.flush_at(now)).min(),
        }
    }

    /// Lets the thread run until it waits for something.
    pub(super) fn turn(&mut self, now: Now, around: &mut Around<'_>) {
        loop {
            if now.mono < self.busy_until {
                return;
            }
            if let Some((until, write)) = self.writing
                && until <= now.mono
            {
                self.writing = None;
                self.written(write, now.mono, around);
                continue;
            }
            if self.ending.is_some() {
                if self.writing.is_some() || !self.write_the_rest(now.mono, around) {
                    return;
                }
                continue;
            }
            let is_due = self.flush_at(now.mono).is_some_and(|at| at <= now.mono);
            if is_due && self.writing.is_none() {
                self.begin_write(now.mono, around);
                continue;
            }
            if (self.is_full() && !self.is_hurried) || self.inbox.is_empty() {
                return self.forward(now.mono, around);
            }
            self.take(now, around);
            if let Some(faults) = &mut around.faults
                && faults.hits(Kind::Stall)
            {
                self.busy_until = now.mono + faults.time(Duration::from_secs(120));
            }
        }
    }

    /// Takes some messages, then answers.
    fn take(&mut self, now: Now, around: &mut Around<'_>) {
        for _ in 0..TAKE {
            let Some(message) = self.inbox.pop_front() else { break };
            if matches!(message, ToWriter::Stop) {
                self.retry_at = Duration::ZERO;
                self.ending = Some(Ending::Writing(None));
                break;
            }
            match (&message, &mut around.ledger) {
                (ToWriter::Finished(result), Some(ledger)) => ledger.taken(result),
                (ToWriter::Reconfigure(params), Some(ledger)) => {
                    ledger.reconfigured(&params.filter)
                }
                _ => {}
            }
            self.recorder.handle(message, now);
            if self.recorder.has_rows() {
                self.waits_since.get_or_insert(now.mono);
            }
            if self.is_full() {
                break;
            }
        }
        self.forward(now.mono, around);
    }

    fn forward(&mut self, now: Duration, around: &mut Around<'_>) {
        while let Some(message) = self.recorder.poll_output() {
            if let Some(ledger) = &mut around.ledger {
                ledger.answered(&message);
            }
            self.answer(message, now, around);
        }
        let totals = self.recorder.totals();
        if totals != self.totals {
            self.totals = totals;
            self.answer(FromWriter::Totals(totals), now, around);
        }
    }

    fn answer(&mut self, message: FromWriter, now: Duration, around: &mut Around<'_>) {
        let mut at = now + self.delay;
        if let Some(faults) = &mut around.faults
            && faults.hits(Kind::LateAnswers)
        {
            at += faults.time(Duration::from_secs(3));
        }
        let newest = self.answers.back().map_or(Duration::ZERO, |(at, _)| *at);
        self.answers.push_back((at.max(newest), message));
    }

    /// When the next write is due.
    fn flush_at(&self, now: Duration) -> Option<Duration> {
        let due = match (&self.in_hand, self.waits_since) {
            (Some(_), _) => now,
            (None, Some(_)) if self.recorder.held() >= self.settings.batch_rows => now,
            (None, Some(since)) => since + self.settings.flush_interval,
            (None, None) => return None,
        };
        Some(due.max(self.retry_at))
    }

    /// Begins to write what is in hand, or else what waits.
    fn begin_write(&mut self, now: Duration, around: &mut Around<'_>) {
        if self.in_hand.is_none() {
            self.in_hand = Some(self.recorder.take_batch());
            self.waits_since = None;
            if let Some(ledger) = &mut around.ledger {
                ledger.taken_out();
            }
        }
        let mut write = match &mut around.faults {
            Some(faults) => faults.write(),
            None => Write::FINE,
        };
        if now < self.away_until {
            (write.commits, write.replies) = (false, false);
            write.takes = write.takes.min(Duration::from_secs(5));
        }
        if write.commits && write.commits_early {
            self.commit(around);
            write.commits = false;
        }
        self.away_until = self.away_until.max(now + write.away);
        if write.blocks {
            self.busy_until = now + write.takes;
        }
        self.writing = Some((now + write.takes, write));
    }

    fn commit(&mut self, around: &mut Around<'_>) {
        let Some(batch) = &self.in_hand else { return };
        if let Some(ledger) = &mut around.ledger {
            ledger.committed(batch);
        }
        self.committed.push(batch.clone());
    }

    /// The transaction ended.
    fn written(&mut self, write: Write, now: Duration, around: &mut Around<'_>) {
        if write.commits {
            self.commit(around);
        }
        if write.replies {
            self.in_hand = None;
            if self.is_down {
                self.answer(FromWriter::Database(Database::Up), now, around);
            }
            self.is_down = false;
            self.wait = FIRST_WAIT;
            self.retry_at = Duration::ZERO;
            return;
        }
        self.wait = if self.is_down { (self.wait * 2).min(LONGEST_WAIT) } else { FIRST_WAIT };
        self.retry_at = now + self.wait;
        if !self.is_down {
            let (error, held) = ("as drawn".to_owned(), self.held());
            self.answer(FromWriter::Database(Database::Down { error, held }), now, around);
        }
        self.is_down = true;
    }

    /// After `Stop`; `false` if there is nothing to do now.
    fn write_the_rest(&mut self, now: Duration, around: &mut Around<'_>) -> bool {
        let Some(Ending::Writing(mut deadline)) = self.ending else { return false };
        if deadline.is_none() && self.is_hurried {
            deadline = Some(now + STOP_PATIENCE);
            self.ending = Some(Ending::Writing(deadline));
        }
        let is_all_written = self.in_hand.is_none() && !self.recorder.has_rows();
        if is_all_written || deadline.is_some_and(|deadline| deadline <= now) {
            let lost = self.held();
            self.ending = Some(Ending::Gone);
            self.answer(FromWriter::Stopped { lost }, now, around);
            return false;
        }
        if now < self.retry_at {
            return false;
        }
        self.begin_write(now, around);
        true
    }

    fn held(&self) -> usize {
        self.in_hand.as_ref().map_or(0, Batch::rows) + self.recorder.held()
    }

    fn is_full(&self) -> bool {
        self.recorder.held() >= self.settings.most_held
    }
}
