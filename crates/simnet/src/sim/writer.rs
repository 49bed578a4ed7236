//! `Writer`: the shell around [`WriterMachine`] in virtual time, with a database that can fail.
//!
//! Sans-I/O. It stands for the writer thread (`db::writer::thread`): messages wait in a channel of
//! the same size, answers take time. It is worse than the real thread in that it may stall, and
//! that while some transactions run it takes nothing. The database is the list of what was
//! committed. Invariants: 1. no more waits in the channel than the real one has room for; 2.
//! answers keep their order.

use std::collections::VecDeque;
use std::time::Duration;

use crate::sim::faults::{Faults, Kind, Write};
use crate::sim::shadow_model::ShadowModel;
use bitdash_core::record::messages::{FromWriter, ToWriter, WriterParams};
use bitdash_core::record::writer_machine::{Command, OpenError, Reply, WriteError, WriterMachine};
use bitdash_core::schedule::crawler::MAX_UNACKED;
use bitdash_core::schedule::uplink::MAX_HELD_RESULTS;
use bitdash_core::vocabulary::rows::{Batch, LastPass};
use bitdash_core::vocabulary::time::Now;

/// Maximum number of messages handled per turn.
const MAX_MESSAGES_PER_TURN: usize = 256;
/// Time that an attempt to reach a database takes that is away.
const CONNECT_TIME: Duration = Duration::from_secs(5);

/// What can go wrong, and the accounts.
pub(super) struct Around<'a> {
    pub(super) faults: Option<&'a mut Faults>,
    pub(super) shadow: Option<&'a mut ShadowModel>,
}

/// What the database is busy with.
#[derive(Debug)]
enum Work {
    Open,
    Write(Write),
    Compact,
}

/// The shell.
#[derive(Debug)]
pub(super) struct Writer {
    machine: WriterMachine,
    params: WriterParams,
    /// Delay of answers.
    pub(super) delay: Duration,
    inbox: VecDeque<ToWriter>,
    /// Results and filters that the machine has and that no answer has acknowledged.
    taken: VecDeque<ToWriter>,
    answers: VecDeque<(Duration, FromWriter)>,
    in_hand: Option<Batch>,
    committed: Vec<Batch>,
    /// The statement that runs, and when it ends.
    work: Option<(Duration, Work)>,
    /// The thread does nothing else before.
    busy_until: Duration,
    /// The database cannot be reached before.
    away_until: Duration,
}

impl Writer {
    /// Makes a writer that has opened a database with what `load` delivers.
    pub(super) fn new(
        params: WriterParams,
        seed: u64,
        load: impl FnOnce(&mut WriterMachine),
        last_pass: LastPass,
        now: Now,
    ) -> Self {
        let mut machine = WriterMachine::new(params.clone(), seed);
        machine.tick(now);
        assert!(
            matches!(machine.poll_command(), Some(Command::Open)),
            "it opens the database first"
        );
        machine.handle_reply(Reply::Locked, now);
        machine.handle_reply(Reply::LoadStarted, now);
        load(&mut machine);
        machine.handle_reply(Reply::Loaded(last_pass), now);
        Self {
            machine,
            params,
            delay: Duration::ZERO,
            inbox: VecDeque::new(),
            taken: VecDeque::new(),
            answers: VecDeque::new(),
            in_hand: None,
            committed: Vec::new(),
            work: None,
            busy_until: Duration::ZERO,
            away_until: Duration::ZERO,
        }
    }

    /// The settings in force.
    pub(super) fn params(&self) -> &WriterParams {
        &self.params
    }

    /// Changes the settings before the crawl begins.
    pub(super) fn set_params(&mut self, params: WriterParams, now: Now) {
        self.params = params;
        self.reconfigure(self.params.clone(), now);
    }

    fn reconfigure(&mut self, params: WriterParams, now: Now) {
        self.machine.handle_message(ToWriter::Reconfigure(params.into()), now);
    }

    /// Puts a message into the channel. `sockets` is the largest number that was ever allowed.
    pub(super) fn send(&mut self, message: ToWriter, sockets: usize) {
        if let ToWriter::Reconfigure(params) = &message {
            self.params = (**params).clone();
        }
        self.inbox.push_back(message);
        // What was held while the uplink was in doubt comes all at once.
        let room = sockets + MAX_UNACKED + MAX_HELD_RESULTS + sockets + 64;
        assert!(self.inbox.len() <= room, "the channel to the writer is full: {room} messages");
    }

    /// The next answer that has arrived.
    pub(super) fn receive(&mut self, now: Duration) -> Option<FromWriter> {
        self.answers.pop_front_if(|(at, _)| *at <= now).map(|(_, message)| message)
    }

    /// The batches that were committed since the last call.
    pub(super) fn drain_committed(&mut self) -> Vec<Batch> {
        std::mem::take(&mut self.committed)
    }

    /// The same after everything that waits was written at once.
    pub(super) fn write_all(&mut self, now: Now, around: &mut Around<'_>) -> Vec<Batch> {
        self.turn(now, around);
        self.reconfigure(
            WriterParams { flush_interval: Duration::ZERO, ..self.params.clone() },
            now,
        );
        self.turn(now, around);
        self.reconfigure(self.params.clone(), now);
        self.turn(now, around);
        self.drain_committed()
    }

    /// Number of results that were sent and whose acknowledgement has not arrived.
    pub(super) fn unacked(&self) -> usize {
        let sent = self.inbox.iter().chain(&self.taken);
        let sent = sent.filter(|message| matches!(message, ToWriter::Finished(_)));
        let acked = self.answers.iter().map(|(_, message)| match message {
            FromWriter::Heard { acked, .. } => *acked,
            _ => 0,
        });
        sent.count() + acked.sum::<usize>()
    }

    /// Whether nothing is on its way to it, in it, or on its way from it.
    pub(super) fn is_idle(&self) -> bool {
        let is_quiet = self.inbox.is_empty() && self.answers.is_empty() && self.work.is_none();
        // Names alone are written again with the next pass.
        let is_nothing = |batch: &Batch| batch.rows() == 0 && batch.passes.is_empty();
        let in_hand = self.in_hand.as_ref();
        is_quiet && in_hand.is_none_or(is_nothing) && self.machine.pending_rows() == 0
    }

    /// When `turn` or `receive` has to be called next.
    pub(super) fn poll_timeout(&self, now: Duration) -> Option<Duration> {
        let answer = self.answers.front().map(|(at, _)| *at);
        let work = self.work.as_ref().map(|(at, _)| *at);
        let inbox = (!self.inbox.is_empty()).then_some(now);
        let turn = [work, inbox, self.machine.poll_timeout(now)].into_iter().flatten().min();
        let turn = turn.filter(|_| !self.machine.has_ended()).map(|at| at.max(self.busy_until));
        [answer, turn].into_iter().flatten().min()
    }

    /// Lets the thread run until it waits for something.
    pub(super) fn turn(&mut self, now: Now, around: &mut Around<'_>) {
        while now.mono >= self.busy_until && !self.machine.has_ended() {
            let is_done = self.work.as_ref().is_some_and(|(at, _)| *at <= now.mono);
            let has_messages = !self.inbox.is_empty();
            if is_done {
                let (_, work) = self.work.take().expect("it was looked at");
                self.finish(work, now, around);
            } else if has_messages {
                self.take(now, around);
            }
            self.machine.tick(now);
            let has_commands = self.forward(now, around);
            if !is_done && !has_messages && !has_commands {
                return;
            }
            if let Some(faults) = &mut around.faults
                && has_messages
                && faults.hits(Kind::Stall)
            {
                self.busy_until = now.mono + faults.time(Duration::from_secs(120));
            }
        }
    }

    fn take(&mut self, now: Now, around: &mut Around<'_>) {
        for _ in 0..MAX_MESSAGES_PER_TURN {
            let Some(message) = self.inbox.pop_front() else { break };
            if matches!(message, ToWriter::Finished(_) | ToWriter::Reconfigure(_)) {
                self.taken.push_back(message.clone());
            }
            self.machine.handle_message(message, now);
            self.answer_all(now, around);
        }
    }

    /// Forwards the machine's messages and executes its commands; returns whether there was one.
    fn forward(&mut self, now: Now, around: &mut Around<'_>) -> bool {
        self.answer_all(now, around);
        let mut has_commands = false;
        while let Some(command) = self.machine.poll_command() {
            has_commands = true;
            self.execute(command, now, around);
        }
        has_commands
    }

    fn execute(&mut self, command: Command, now: Now, around: &mut Around<'_>) {
        match command {
            Command::Open => {
                let takes = if now.mono < self.away_until { CONNECT_TIME } else { Duration::ZERO };
                let at = (now.mono + takes).min(self.away_until.max(now.mono));
                self.work = Some((at, Work::Open));
            }
            Command::Close => self.work = None,
            Command::Write(batch, _) => {
                if self.in_hand.is_none()
                    && let Some(shadow) = &mut around.shadow
                {
                    shadow.taken_out();
                }
                self.in_hand = Some((*batch).clone());
                self.begin_write(now.mono, around);
            }
            Command::Compact { .. } => self.work = Some((now.mono, Work::Compact)),
            Command::CancelCompaction => {}
        }
    }

    fn begin_write(&mut self, now: Duration, around: &mut Around<'_>) {
        let mut write = match &mut around.faults {
            Some(faults) => faults.write(),
            None => Write::FINE,
        };
        if now < self.away_until {
            (write.commits, write.replies) = (false, false);
            write.takes = write.takes.min(CONNECT_TIME);
        }
        if write.commits && write.commits_early {
            self.commit(around);
            write.commits = false;
        }
        self.away_until = self.away_until.max(now + write.away);
        if write.blocks {
            self.busy_until = now + write.takes;
        }
        self.work = Some((now + write.takes, Work::Write(write)));
    }

    fn commit(&mut self, around: &mut Around<'_>) {
        let Some(batch) = &self.in_hand else { return };
        if let Some(shadow) = &mut around.shadow {
            shadow.committed(batch);
        }
        self.committed.push(batch.clone());
    }

    /// The database has done its work.
    fn finish(&mut self, work: Work, now: Now, around: &mut Around<'_>) {
        match work {
            Work::Open if now.mono < self.away_until => {
                let refused = OpenError::Transient("as drawn".to_owned());
                self.machine.handle_reply(Reply::Refused(refused), now);
            }
            Work::Open => {
                self.machine.handle_reply(Reply::Locked, now);
                self.machine.handle_reply(Reply::Resumed, now);
            }
            Work::Write(write) => {
                if write.commits {
                    self.commit(around);
                }
                let written = if write.replies {
                    self.in_hand = None;
                    Ok(())
                } else {
                    Err(WriteError::Failed("as drawn".to_owned()))
                };
                self.machine.handle_reply(Reply::Written(written), now);
            }
            Work::Compact => self.machine.handle_reply(Reply::Compacted, now),
        }
        self.answer_all(now, around);
    }

    fn answer_all(&mut self, now: Now, around: &mut Around<'_>) {
        while let Some(message) = self.machine.poll_message() {
            if let Some(shadow) = &mut around.shadow {
                Self::account(shadow, &message, &mut self.taken);
            } else if matches!(message, FromWriter::Heard { .. }) {
                while let Some(ToWriter::Reconfigure(_)) = self.taken.pop_front() {}
            }
            let mut at = now.mono + self.delay;
            if let Some(faults) = &mut around.faults
                && faults.hits(Kind::LateAnswers)
            {
                at += faults.time(Duration::from_secs(3));
            }
            let newest = self.answers.back().map_or(Duration::ZERO, |(at, _)| *at);
            self.answers.push_back((at.max(newest), message));
        }
    }

    /// An acknowledgement means that the oldest result was recorded, under the filter before it.
    fn account(shadow: &mut ShadowModel, message: &FromWriter, taken: &mut VecDeque<ToWriter>) {
        if matches!(message, FromWriter::Heard { .. }) {
            while let Some(message) = taken.pop_front() {
                match message {
                    ToWriter::Reconfigure(params) => shadow.reconfigured(&params.recorder.filter),
                    ToWriter::Finished(result) => {
                        shadow.taken(&result);
                        break;
                    }
                    _ => {}
                }
            }
        }
        shadow.answered(message);
    }
}
