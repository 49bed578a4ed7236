//! The machine against a scripted database.

use std::net::Ipv4Addr;

use super::*;
use crate::book::BookParams;
use crate::book::backoff::BackoffParams;
use crate::book::rank::RankingParams;
use crate::lookup::species::Rules;
use crate::record::messages::Names;
use crate::record::recorder::RecorderParams;
use crate::vocabulary::address::Address;
use crate::vocabulary::filter::Filter;
use crate::vocabulary::outcome::Outcome;
use crate::vocabulary::rows::KnownNode;
use crate::vocabulary::target::{ProbeResult, Target};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_secs(86_400);

fn address(number: u8) -> Address {
    Address::new(Ipv4Addr::new(127, 0, 1, number), 8333)
}

fn params() -> WriterParams {
    let backoff = BackoffParams {
        base: 3_600 * SECOND,
        factor: 2.0,
        max: 14 * DAY,
        node_base: 600 * SECOND,
        node_max: 3_600 * SECOND,
        lost_max: DAY,
    };
    let ranking = RankingParams::default();
    let book = BookParams { backoff, getaddr_interval: DAY, max_addresses: 1_000, ranking };
    let filter = Arc::new(Filter::new(&[], &["127.0.0.0/8".parse().unwrap()]));
    WriterParams::new(RecorderParams { book, filter, rules: Rules::builtin() })
}

struct Rig {
    machine: WriterMachine,
    now: Now,
}

impl Rig {
    fn new() -> Self {
        let now = Now { mono: 5 * SECOND, wall: UnixTime::from_secs(1_800_000_000) };
        Self { machine: WriterMachine::new(params(), 1), now }
    }

    /// A machine that has loaded an empty database and runs its first pass.
    fn running() -> Self {
        let mut rig = Self::new();
        assert_eq!(rig.commands(), ["Open"]);
        rig.reply(Reply::Locked);
        rig.reply(Reply::LoadStarted);
        rig.reply(Reply::Loaded(LastPass::default()));
        let at = rig.now.wall;
        let seeds = (1..100).map(address).collect();
        rig.send(ToWriter::StartPass { at, names: Names { seeds, ..Names::default() } });
        rig.messages();
        rig
    }

    fn advance(&mut self, step: Duration) {
        self.now = Now { mono: self.now.mono + step, wall: self.now.wall.plus(step) };
    }

    fn reply(&mut self, reply: Reply) {
        self.machine.handle_reply(reply, self.now);
    }

    fn send(&mut self, message: ToWriter) {
        self.machine.handle_message(message, self.now);
    }

    fn fail(&mut self, number: u8) {
        let result = ProbeResult {
            target: Target::candidate(address(number)).named(),
            outcome: Outcome::Refused,
            probed_at: self.now.wall,
            dialled_at: self.now.mono,
            heard_at: None,
            connect_ms: None,
            version_ms: None,
            version: None,
            peers_sent: None,
            peers: Vec::new(),
        };
        self.send(ToWriter::Finished(Box::new(result)));
    }

    fn commands(&mut self) -> Vec<String> {
        self.machine.tick(self.now);
        let commands = std::iter::from_fn(|| self.machine.poll_command());
        let name = |command| match command {
            Command::Write(batch, _) => format!("Write {}", batch.failed.len()),
            Command::Compact { keep_all, .. } => format!("Compact {keep_all}"),
            command => format!("{command:?}"),
        };
        commands.map(name).collect()
    }

    fn messages(&mut self) -> Vec<FromWriter> {
        std::iter::from_fn(|| self.machine.poll_message()).collect()
    }

    fn has_message(&mut self, wanted: fn(&FromWriter) -> bool) -> bool {
        self.messages().iter().any(wanted)
    }

    fn lost(&mut self) -> Option<usize> {
        self.messages().iter().find_map(|message| match message {
            FromWriter::Stopped { lost } => Some(*lost),
            _ => None,
        })
    }

    fn wakes_after(&self) -> Option<Duration> {
        let at = self.machine.poll_timeout(self.now.mono)?;
        Some(at - self.now.mono)
    }
}

fn is_down(message: &FromWriter) -> bool {
    matches!(message, FromWriter::Database(Database::Down { .. }))
}

fn is_up(message: &FromWriter) -> bool {
    matches!(message, FromWriter::Database(Database::Up))
}

#[test]
fn the_day_without_forgetting_survives_a_restart() {
    let params = params().recorder;
    let start = |at| ToWriter::StartPass { at, names: Names::default() };
    let began = UnixTime::from_secs(1_800_000_000);
    let mut now = Now { mono: SECOND, wall: began };
    let mut recorder = Recorder::new(&params, 1);
    recorder.handle_loaded(LastPass::default());
    recorder.handle(start(now.wall), now);
    assert_eq!(recorder.take_batch().forgets_from, None);
    // The wall clock is set ten years ahead.
    now.wall = now.wall.plus(3_650 * DAY);
    recorder.handle(ToWriter::EndPass { at: now.wall }, now);
    let stored = recorder.take_batch().forgets_from;
    assert_eq!(stored, Some(now.wall.plus(DAY)));
    // An hour later another process loads it, and an address not heard of since.
    let restarted = |hours: u32, stored: UnixTime| {
        let now = Now { mono: SECOND, wall: now.wall.plus(DAY / 24 * hours) };
        let mut recorder = Recorder::new(&params, 2);
        for (number, last_heard) in [(1, began), (2, now.wall)] {
            recorder.load(&Known {
                address: address(number),
                last_heard,
                failures: 0,
                last_probed: None,
                last_outcome: None,
                next_probe: began,
                source: 0,
                node: None,
            });
        }
        recorder.load_forgets_from(stored);
        recorder.handle_loaded(LastPass::default());
        recorder.handle(start(now.wall), now);
        (recorder.may_forget(now), recorder.totals().candidates)
    };
    assert_eq!(restarted(1, stored.unwrap()), (false, 2));
    assert_eq!(restarted(25, stored.unwrap()), (true, 1));
    // Stored by a clock that ran ahead: void.
    assert_eq!(restarted(1, stored.unwrap().plus(3_650 * DAY)), (true, 1));
}

#[test]
fn a_batch_is_due_after_the_interval_and_at_once_with_enough_rows() {
    let mut rig = Rig::running();
    assert!(rig.machine.pending_rows() > 0);
    assert_eq!(rig.wakes_after(), Some(10 * SECOND));
    rig.advance(9 * SECOND);
    assert_eq!(rig.commands(), [""; 0]);
    rig.advance(SECOND);
    assert_eq!(rig.commands(), ["Write 0"]);
    rig.reply(Reply::Written(Ok(())));
    rig.send(ToWriter::Reconfigure(WriterParams { batch_rows: 2, ..params() }.into()));
    rig.fail(1);
    rig.fail(2);
    assert_eq!(rig.commands(), ["Write 2"]);
}

fn imported(rig: &mut Rig) -> Vec<(u64, u64)> {
    let messages = rig.messages();
    let figures = messages.iter().filter_map(|message| match message {
        FromWriter::Imported { addresses, new } => Some((*addresses, *new)),
        _ => None,
    });
    figures.collect()
}

#[test]
fn imported_addresses_wait_no_longer_once_their_batch_is_written() {
    let mut rig = Rig::running();
    rig.advance(10 * SECOND);
    assert_eq!(rig.commands(), ["Write 0"]);
    rig.reply(Reply::Written(Ok(())));
    let excluded = Address::new(Ipv4Addr::new(8, 8, 8, 8), 8333);
    // 1 is a seed, and 200 is new.
    let offered = [address(1), address(200), excluded];
    rig.machine.handle_imported(&offered, rig.now);
    assert_eq!(imported(&mut rig), [(3, 1)]);
    rig.machine.handle_imported(&offered, rig.now);
    assert_eq!(imported(&mut rig), [], "offered again before they are written");
    assert_eq!(rig.wakes_after(), Some(10 * SECOND));
    rig.advance(10 * SECOND);
    rig.machine.tick(rig.now);
    let Some(Command::Write(batch, _)) = rig.machine.poll_command() else { panic!("no batch") };
    assert_eq!(batch.imported, offered.into());
    assert_eq!(batch.heard.keys().collect::<Vec<_>>(), [&address(200)]);
    rig.reply(Reply::Written(Err(WriteError::Failed("away".into()))));
    assert_eq!(rig.commands(), ["Close"]);
    rig.advance(SECOND);
    assert_eq!(rig.commands(), ["Open"]);
    rig.reply(Reply::Locked);
    rig.reply(Reply::Resumed);
    rig.machine.tick(rig.now);
    let Some(Command::Write(again, _)) = rig.machine.poll_command() else { panic!("no batch") };
    assert_eq!(again, batch);
}

#[test]
fn the_first_pass_has_what_was_imported_before_the_start() {
    let mut rig = Rig::new();
    assert_eq!(rig.commands(), ["Open"]);
    rig.reply(Reply::Locked);
    rig.reply(Reply::LoadStarted);
    rig.machine.load_imported(address(200));
    rig.reply(Reply::Loaded(LastPass::default()));
    let ready = |message: &FromWriter| match message {
        FromWriter::Ready(opened) => Some(opened.totals.candidates),
        _ => None,
    };
    assert_eq!(rig.messages().iter().find_map(ready), Some(1));
    let at = rig.now.wall;
    rig.send(ToWriter::StartPass { at, names: Names::default() });
    let due = |message: &FromWriter| match message {
        FromWriter::Due { targets, .. } => targets.first().map(|target| target.address()),
        _ => None,
    };
    assert_eq!(rig.messages().iter().find_map(due), Some(address(200)));
}

#[test]
fn imported_addresses_stay_in_the_database_where_there_is_no_room() {
    let mut rig = Rig::new();
    rig.machine.handle_imported(&[address(200)], rig.now);
    assert_eq!(imported(&mut rig), [], "nothing is loaded yet");
    let mut rig = Rig::running();
    rig.send(ToWriter::Reconfigure(WriterParams { max_pending_rows: 2, ..params() }.into()));
    rig.machine.handle_imported(&[address(200)], rig.now);
    assert_eq!(imported(&mut rig), [], "as many rows wait as may");
    let mut rig = Rig::running();
    rig.send(ToWriter::Stop);
    rig.machine.handle_imported(&[address(200)], rig.now);
    assert_eq!(imported(&mut rig), [], "it stops");
}

#[test]
fn a_failed_batch_is_written_again_after_delays_that_double() {
    let mut rig = Rig::running();
    rig.fail(1);
    rig.advance(10 * SECOND);
    assert_eq!(rig.commands(), ["Write 1"]);
    rig.reply(Reply::Written(Err(WriteError::Failed("away".into()))));
    assert_eq!(rig.commands(), ["Close"]);
    assert!(rig.has_message(is_down));
    let mut delays = Vec::new();
    for _ in 0..8 {
        let delay = rig.wakes_after().unwrap();
        delays.push(delay.as_millis());
        rig.advance(delay);
        assert_eq!(rig.commands(), ["Open"]);
        rig.reply(Reply::Refused(OpenError::Transient("away".into())));
        assert_eq!(rig.commands(), ["Close"]);
        assert!(!rig.has_message(is_down), "reported once");
    }
    assert_eq!(delays, [100, 200, 400, 800, 1_600, 3_200, 5_000, 5_000]);
    rig.advance(5 * SECOND);
    assert_eq!(rig.commands(), ["Open"]);
    rig.reply(Reply::Locked);
    rig.reply(Reply::Resumed);
    assert!(!rig.has_message(is_up), "the batch is not written yet");
    assert_eq!(rig.commands(), ["Write 1"]);
    rig.reply(Reply::Written(Ok(())));
    assert!(rig.has_message(is_up));
}

#[test]
fn a_silent_database_is_reported_then_abandoned() {
    let mut rig = Rig::running();
    rig.advance(10 * SECOND);
    assert_eq!(rig.commands(), ["Write 0"]);
    assert_eq!(rig.wakes_after(), Some(10 * SECOND));
    rig.advance(10 * SECOND);
    assert_eq!(rig.commands(), [""; 0]);
    assert!(rig.has_message(is_down));
    assert_eq!(rig.wakes_after(), Some(140 * SECOND));
    rig.advance(140 * SECOND);
    assert_eq!(rig.commands(), ["Close"]);
}

#[test]
fn a_stall_of_the_process_is_no_silence_of_the_database() {
    for activity in [Activity::Connecting, Activity::Loading, Activity::Writing] {
        let mut rig = if activity == Activity::Writing { Rig::running() } else { Rig::new() };
        rig.advance(10 * SECOND);
        rig.commands();
        if activity == Activity::Loading {
            rig.reply(Reply::Locked);
        }
        rig.advance(DAY);
        rig.machine.handle_stall(DAY);
        assert_eq!(rig.commands(), [""; 0]);
        assert!(!rig.has_message(is_down), "{activity:?}");
        assert_eq!(rig.wakes_after(), Some(activity.down_after()));
        rig.advance(activity.down_after());
        rig.commands();
        assert!(rig.has_message(is_down), "{activity:?}");
    }
}

#[test]
fn a_stall_does_not_shorten_a_stop() {
    let mut rig = Rig::running();
    rig.send(ToWriter::Hurry);
    rig.send(ToWriter::Stop);
    rig.commands();
    rig.advance(DAY);
    rig.machine.handle_stall(DAY);
    rig.commands();
    assert_eq!(rig.lost(), None);
    rig.reply(Reply::Written(Ok(())));
    rig.commands();
    assert_eq!(rig.lost(), Some(0));
}

#[test]
fn rows_beyond_the_bound_wait_and_count_as_lost_at_the_end() {
    let mut rig = Rig::running();
    let before = rig.machine.pending_rows();
    rig.send(ToWriter::Reconfigure(WriterParams { max_pending_rows: before, ..params() }.into()));
    rig.fail(1);
    rig.fail(2);
    assert!(!rig.has_message(|message| matches!(message, FromWriter::Heard { .. })));
    assert_eq!(rig.machine.pending_rows(), before + 2);
    rig.send(ToWriter::Hurry);
    rig.send(ToWriter::Stop);
    let acked = |message: &FromWriter| matches!(message, FromWriter::Heard { .. });
    assert!(rig.has_message(acked), "a stop records what waits");
    let rows = rig.machine.pending_rows();
    assert_eq!(rig.commands(), ["CancelCompaction", "Write 2"]);
    rig.advance(STOP_TIMEOUT);
    rig.commands();
    assert_eq!(rig.lost(), Some(rows));
    assert!(rig.machine.has_ended());
    assert_eq!(rig.wakes_after(), None);
}

#[test]
fn a_stop_is_bounded_only_once_an_operator_waits() {
    let mut rig = Rig::running();
    rig.send(ToWriter::Stop);
    rig.commands();
    rig.advance(9 * SECOND);
    rig.commands();
    assert_eq!(rig.lost(), None);
    rig.send(ToWriter::Hurry);
    rig.advance(STOP_TIMEOUT - SECOND);
    rig.commands();
    assert_eq!(rig.lost(), None);
    rig.reply(Reply::Written(Ok(())));
    rig.commands();
    assert_eq!(rig.lost(), Some(0));
}

#[test]
fn a_stop_before_anything_is_loaded_ends_at_once() {
    let mut rig = Rig::new();
    rig.commands();
    rig.send(ToWriter::Stop);
    rig.commands();
    assert_eq!(rig.lost(), Some(0));
}

#[test]
fn only_before_the_first_load_a_permanent_error_ends_the_crawl() {
    let refused = || Reply::Refused(OpenError::Permanent("create it".into()));
    let failed = |message: &FromWriter| matches!(message, FromWriter::Failed(_));
    let mut rig = Rig::new();
    rig.commands();
    rig.reply(refused());
    assert!(rig.has_message(failed) && rig.machine.has_ended());

    let mut rig = Rig::running();
    rig.advance(10 * SECOND);
    rig.commands();
    rig.reply(Reply::Written(Err(WriteError::Failed("away".into()))));
    rig.advance(SECOND);
    assert_eq!(rig.commands(), ["Close", "Open"]);
    rig.reply(refused());
    assert!(!rig.has_message(failed) && !rig.machine.has_ended());
    rig.advance(SECOND);
    assert_eq!(rig.commands(), ["Close", "Open"]);
    rig.reply(Reply::Refused(OpenError::Locked("another one".into())));
    assert!(rig.has_message(failed) && rig.machine.has_ended());
}

#[test]
fn what_belongs_to_a_replaced_database_is_dropped() {
    let mut rig = Rig::running();
    rig.fail(1);
    rig.advance(10 * SECOND);
    assert_eq!(rig.commands(), ["Write 1"]);
    rig.reply(Reply::Written(Err(WriteError::Replaced)));
    assert_eq!(rig.commands(), ["Close", "Open"]);
    rig.reply(Reply::Locked);
    rig.reply(Reply::LoadStarted);
    let replaced = |message: &FromWriter| matches!(message, FromWriter::Database(Database::Replaced { dropped }) if *dropped > 0);
    assert!(rig.has_message(replaced));
    // A result of the former database arrives while rows are read: it waits, or it would be lost in
    // the new book.
    rig.fail(2);
    assert!(!rig.has_message(|message| matches!(message, FromWriter::Heard { .. })));
    rig.reply(Reply::Loaded(LastPass::default()));
    let messages = rig.messages();
    let is_reset = |message: &FromWriter| matches!(message, FromWriter::Reset(_));
    assert!(messages.iter().any(is_reset));
    assert!(messages.iter().any(|message| matches!(message, FromWriter::Heard { .. })));
}

#[test]
fn a_finished_pass_is_followed_by_a_compaction() {
    let mut rig = Rig::running();
    rig.send(ToWriter::EndPass { at: rig.now.wall });
    rig.advance(10 * SECOND);
    assert_eq!(rig.commands(), ["Write 0"]);
    rig.reply(Reply::Written(Ok(())));
    assert_eq!(rig.commands(), ["Compact false"]);
    rig.reply(Reply::Compacted);
    assert_eq!(rig.commands(), [""; 0]);
}

#[test]
fn a_node_that_was_forgotten_while_its_row_waits_is_no_candidate() {
    let mut rig = Rig::new();
    rig.commands();
    rig.reply(Reply::Locked);
    rig.reply(Reply::LoadStarted);
    let seen = rig.now.wall;
    let node = KnownNode { last_seen: seen, peers_asked_at: None, peers_sent: None, is_trb: false };
    rig.machine.load(&Known {
        address: address(1),
        last_heard: seen,
        failures: 0,
        last_probed: Some(seen),
        last_outcome: Some(Outcome::Responded),
        next_probe: seen,
        source: 0,
        node: Some(node),
    });
    rig.reply(Reply::Loaded(LastPass::default()));
    let named = || vec![(address(1), String::new())];
    let at = rig.now.wall;
    rig.send(ToWriter::StartPass { at, names: Names { named: named(), ..Names::default() } });
    rig.fail(1);
    rig.send(ToWriter::EndPass { at });
    // Years pass without a clock step while the database is away: the book forgets the node.
    for _ in 0..200 {
        rig.advance(30 * DAY);
        let at = rig.now.wall;
        rig.send(ToWriter::StartPass {
            at,
            names: Names { seeds: vec![address(2)], ..Names::default() },
        });
        rig.fail(2);
        rig.send(ToWriter::EndPass { at });
    }
    let at = rig.now.wall;
    rig.send(ToWriter::StartPass { at, names: Names { named: named(), ..Names::default() } });
    rig.fail(1);
    let batch = rig.machine.recorder.take_batch();
    assert!(batch.nodes.contains_key(&address(1)));
    assert!(!batch.failed.contains_key(&address(1)));
}

/// A machine that has written its first batch and waits for the next pass.
fn idle() -> Rig {
    let mut rig = Rig::running();
    rig.advance(10 * SECOND);
    assert_eq!(rig.commands(), ["Write 0"]);
    rig.reply(Reply::Written(Ok(())));
    rig.messages();
    rig
}

fn lose() -> Reply {
    Reply::Lost("the connection to the database broke".to_owned())
}

#[test]
fn a_session_lost_while_idle_is_regained_at_once_without_a_warning() {
    let mut rig = idle();
    for _ in 0..3 {
        rig.advance(600 * SECOND);
        assert_eq!(rig.commands(), [""; 0]);
        rig.reply(lose());
        assert_eq!(rig.commands(), ["Close", "Open"]);
        rig.reply(Reply::Locked);
        rig.reply(Reply::Resumed);
        assert!(!rig.has_message(|message| is_down(message) || is_up(message)));
    }
    rig.advance(600 * SECOND);
    rig.reply(lose());
    assert_eq!(rig.commands(), ["Close", "Open"]);
    rig.reply(Reply::Refused(OpenError::Locked("another bitdash".to_owned())));
    assert!(rig.has_message(|message| matches!(message, FromWriter::Failed(_))));
    assert_eq!(rig.commands(), [""; 0], "it writes nothing without the lock");
}

#[test]
fn a_batch_for_a_lost_session_is_written_once_the_lock_is_regained() {
    let mut rig = idle();
    rig.fail(1);
    rig.advance(600 * SECOND);
    assert_eq!(rig.commands(), ["Write 1"]);
    rig.reply(lose());
    rig.fail(2);
    assert_eq!(rig.commands(), ["Close", "Open"]);
    rig.advance(SECOND);
    assert_eq!(rig.commands(), [""; 0]);
    rig.reply(Reply::Locked);
    rig.reply(Reply::Resumed);
    assert_eq!(rig.commands(), ["Write 1"]);
    rig.reply(Reply::Written(Ok(())));
    assert!(!rig.has_message(|message| is_down(message) || is_up(message)));
    rig.advance(10 * SECOND);
    assert_eq!(rig.commands(), ["Write 1"]);
}

#[test]
fn a_session_that_is_lost_as_soon_as_it_is_opened_is_an_outage() {
    let mut rig = idle();
    rig.advance(600 * SECOND);
    rig.reply(lose());
    assert_eq!(rig.commands(), ["Close", "Open"]);
    rig.reply(Reply::Locked);
    rig.reply(Reply::Resumed);
    rig.advance(SECOND);
    rig.reply(lose());
    assert!(rig.has_message(is_down));
    assert_eq!(rig.commands(), ["Close"]);
    rig.advance(SECOND);
    assert_eq!(rig.commands(), ["Open"]);
}
