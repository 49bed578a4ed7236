//! Crawler and recorder under any order of events.
//!
//! Input: a byte for the maximum number of sockets, then operations of one byte with arguments, see
//! [`Run::operation`]. Addresses come from a small range, so that they collide often.
//!
//! Checked:
//! 1. No address is recorded twice in a pass or dialled again after it was recorded. Reference
//!    nodes are an exception, and follow-ups: one for each node that was not asked for its peers.
//! 2. At most the maximum number of sockets is open.
//! 3. The number of unacknowledged results is bounded.
//! 4. Every result sent to the writer is acknowledged exactly once.
//! 5. If every address refuses and time passes, the pass ends.
//! 6. After a stop nothing is dialled, and the crawler ends.

use std::collections::{BTreeSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use bitdash_core::book::BookParams;
use bitdash_core::book::backoff::BackoffParams;
use bitdash_core::book::rank::RankingParams;
use bitdash_core::lookup::species::Rules;
use bitdash_core::record::messages::{Database, FromWriter, Names, ToWriter, WriterParams};
use bitdash_core::record::recorder::{Recorder, RecorderParams};
use bitdash_core::schedule::crawler::{
    Crawler, CrawlerParams, Event, MAX_UNACKED, NameRequest, Phase, StopReason,
};
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::outcome::{Fault, Outcome};
use bitdash_core::vocabulary::rows::LastPass;
use bitdash_core::vocabulary::target::{Peer, ProbeResult, Target, VersionInfo};
use bitdash_core::vocabulary::time::{Now, UnixTime};

const HOUR: Duration = Duration::from_secs(3_600);
const MAX_SOCKETS: usize = 40;

pub fn run(data: &[u8]) {
    let mut input = data.iter().copied();
    let Some(first) = input.next() else { return };
    let mut run = Run::new(usize::from(first) % MAX_SOCKETS);
    while run.operation(&mut input).is_some() {
        run.settle();
    }
    run.finish();
}

struct Run {
    crawler: Crawler,
    recorder: Recorder,
    filter: Arc<Filter>,
    now: Now,
    sockets: usize,
    /// Open connections and when they were dialled.
    open: Vec<(Target, Duration)>,
    recorded: BTreeSet<Address>,
    /// Nodes of the running pass that were not asked for their peers.
    greeted: BTreeSet<Address>,
    /// Those that may stay so: they could not be dialled.
    excused: BTreeSet<Address>,
    /// Messages that the writer has not received yet.
    stalled: VecDeque<ToWriter>,
    is_stalled: bool,
    sent: usize,
    acked: usize,
    passes: usize,
    is_stopped: bool,
}

impl Run {
    fn new(sockets: usize) -> Self {
        let filter = Arc::new(Filter::new(&[], &["127.0.0.0/8".parse().expect("a net")]));
        let mut recorder = Recorder::new(&recorder_params(&filter, 64), 1);
        recorder.handle_loaded(LastPass::default());
        let mut run = Self {
            crawler: Crawler::new(crawler_params(&filter, sockets, 400), None, 2),
            recorder,
            filter,
            now: Now { mono: Duration::from_secs(5), wall: UnixTime::from_secs(1_800_000_000) },
            sockets,
            open: Vec::new(),
            recorded: BTreeSet::new(),
            greeted: BTreeSet::new(),
            excused: BTreeSet::new(),
            stalled: VecDeque::new(),
            is_stalled: false,
            sent: 0,
            acked: 0,
            passes: 0,
            is_stopped: false,
        };
        run.settle();
        run
    }

    /// Runs one operation; `None` at the end of the input.
    fn operation(&mut self, input: &mut impl Iterator<Item = u8>) -> Option<()> {
        let operation = input.next()?;
        match operation % 16 {
            0..6 => self.end(usize::from(input.next()?), operation / 16, input),
            6..8 => self.advance(Duration::from_millis(u64::from(input.next()?) * 40)),
            8 => self.advance(Duration::from_secs(u64::from(input.next()?) * 30)),
            9 => self.jump(i64::from(input.next()?) - 128),
            10 => self.undial(operation / 16),
            11 => self.reload(usize::from(input.next()?)),
            12 => self.is_stalled = operation >= 0x80,
            13 => self.database(operation >= 0x80),
            14 => drop(self.recorder.take_batch()),
            _ if operation == 0xff => self.stop(),
            _ => self.advance(Duration::from_millis(1)),
        }
        Some(())
    }

    fn settle(&mut self) {
        loop {
            let mut is_settled = true;
            while let Some(message) = self.recorder.poll_output() {
                if let FromWriter::Heard { acked, .. } = &message {
                    self.acked += acked;
                    assert!(self.acked <= self.sent, "4. acknowledged twice");
                }
                self.crawler.handle_writer(message, self.now);
            }
            self.crawler.handle_writer(FromWriter::Totals(self.recorder.totals()), self.now);
            self.crawler.tick(self.now);
            if let Some(request) = self.crawler.poll_name_request() {
                let wants_seeds = request == NameRequest::NamedAndSeeds;
                let seeds = if wants_seeds { vec![address(0), address(1)] } else { Vec::new() };
                let named = vec![(address(2), "two".to_owned())];
                let names = Names { named, seeds, ..Names::default() };
                self.crawler.handle_names(names, self.now);
            }
            while let Some(event) = self.crawler.poll_event() {
                self.note(&event);
            }
            while let Some(target) = self.crawler.poll_dial(self.now) {
                is_settled = false;
                self.dial(target);
            }
            while let Some(message) = self.crawler.poll_writer() {
                is_settled = false;
                match &message {
                    ToWriter::Finished(result) => {
                        self.sent += 1;
                        self.record(result.target);
                    }
                    // An unacknowledged result may reveal new addresses.
                    ToWriter::EndPass { .. } => {
                        let left = (self.crawler.unacked(), self.open.len());
                        assert_eq!(left, (0, 0), "the pass ends too soon");
                        let is_lost = |address: &Address| !self.excused.contains(address);
                        let lost = self.greeted.iter().find(|address| is_lost(address));
                        assert_eq!(lost, None, "1. not asked for its peers");
                    }
                    _ => {}
                }
                self.stalled.push_back(message);
            }
            while !self.is_stalled
                && let Some(message) = self.stalled.pop_front()
            {
                is_settled = false;
                if matches!(message, ToWriter::Stop) {
                    self.crawler.handle_writer(FromWriter::Stopped { lost: 0 }, self.now);
                }
                self.recorder.handle(message, self.now);
            }
            assert!(self.crawler.unacked() <= MAX_UNACKED + MAX_SOCKETS, "3.");
            assert_eq!(self.crawler.unacked(), self.sent - self.acked, "4.");
            if is_settled {
                return;
            }
        }
    }

    fn record(&mut self, target: Target) {
        let address = target.address();
        let is_first = if target.is_follow_up() {
            self.greeted.remove(&address)
        } else {
            self.recorded.insert(address)
        };
        assert!(is_first, "1. {address} is recorded twice");
        if target.is_unasked() {
            self.greeted.insert(address);
        }
    }

    fn note(&mut self, event: &Event) {
        match event {
            Event::PassStarted { .. } => {
                self.recorded.clear();
                self.greeted.clear();
                self.excused.clear();
            }
            Event::PassFinished { .. } => {
                assert!(self.open.is_empty(), "a pass ended with open sessions");
                self.passes += 1;
            }
            _ => {}
        }
    }

    fn dial(&mut self, target: Target) {
        assert!(!self.is_stopped, "6. dialled after the stop");
        let address = target.address();
        if !target.is_reference() {
            let is_due = target.is_follow_up() && self.greeted.contains(&address)
                || !self.recorded.contains(&address);
            assert!(is_due, "1. {address} is dialled again");
            let mut others = self.open.iter().filter(|(open, _)| !open.is_reference());
            assert!(others.all(|(open, _)| open.address() != address), "1. {address} is open");
        }
        assert!(self.filter.admits_named(target.address()));
        self.open.push((target, self.now.mono));
        assert!(self.open.len() <= self.sockets, "2. {} sockets are open", self.open.len());
        assert_eq!(self.open.len(), self.crawler.open());
    }

    fn end(&mut self, which: usize, kind: u8, input: &mut impl Iterator<Item = u8>) {
        if self.open.is_empty() {
            return;
        }
        let (target, dialled_at) = self.open.swap_remove(which % self.open.len());
        let outcome = match kind {
            0..8 => Outcome::Responded,
            _ => Outcome::ALL[usize::from(kind - 8)],
        };
        let is_first = outcome == Outcome::Responded && !target.is_follow_up();
        if is_first && target.wants_peers() && !target.is_named() && kind < 3 {
            return self.result((target.unasked(), dialled_at), outcome, None);
        }
        let asked = outcome == Outcome::Responded && target.wants_peers();
        let count = if asked { usize::from(input.next().unwrap_or(0) % 16) } else { 0 };
        let peers: Vec<Peer> = (0..count)
            .filter_map(|_| input.next())
            .map(|number| Peer { address: address(number), services: 1, time: 1_800_000_000 })
            .collect();
        self.result((target, dialled_at), outcome, asked.then_some(peers));
    }

    fn result(
        &mut self,
        (target, dialled_at): (Target, Duration),
        outcome: Outcome,
        peers: Option<Vec<Peer>>,
    ) {
        let was_connected = outcome == Outcome::HandshakeTimeout;
        let result = ProbeResult {
            target,
            outcome,
            probed_at: self.now.wall,
            dialled_at,
            heard_at: (was_connected || !outcome.is_silence()).then_some(self.now.mono),
            connect_ms: None,
            version_ms: None,
            version: (outcome == Outcome::Responded).then(VersionInfo::default),
            peers_sent: peers.as_ref().map(|peers| peers.len() as u32),
            peers: peers.unwrap_or_default(),
        };
        self.crawler.handle_ended(Some(result), self.now);
    }

    fn advance(&mut self, step: Duration) {
        self.now = Now { mono: self.now.mono + step, wall: self.now.wall.plus(step) };
    }

    /// Steps the wall clock by up to years.
    fn jump(&mut self, steps: i64) {
        let micros = self.now.wall.as_micros().saturating_add(steps.pow(5).saturating_mul(100_000));
        self.now.wall = UnixTime::from_micros(micros);
    }

    /// Reports that the last target could not be dialled.
    fn undial(&mut self, fault: u8) {
        let faults = [Fault::Descriptors, Fault::Ports, Fault::Uplink, Fault::Forbidden];
        if let Some((target, _)) = self.open.pop() {
            let fault = faults[usize::from(fault) % faults.len()];
            if matches!(fault, Fault::Uplink | Fault::Forbidden) {
                self.excused.insert(target.address());
            }
            self.crawler.handle_undialled(target, fault, self.now);
        }
    }

    /// Reloads other limits: open connections stay open.
    fn reload(&mut self, number: usize) {
        self.sockets = number % MAX_SOCKETS;
        let params = crawler_params(&self.filter, self.sockets, [0, 7, 400][number % 3]);
        self.crawler.handle_params(
            params,
            WriterParams::new(recorder_params(&self.filter, 16 + number as u32)),
        );
        // Nothing is dialled until enough connections have ended.
        if self.open.len() >= self.sockets {
            let open = self.open.len();
            self.settle();
            assert_eq!(self.open.len(), open, "2. dialled with too many open");
        }
    }

    fn database(&mut self, is_up: bool) {
        let state = if is_up {
            Database::Up
        } else {
            Database::Down { error: "gone".to_owned(), pending_rows: 1 }
        };
        self.crawler.handle_writer(FromWriter::Database(state), self.now);
    }

    fn stop(&mut self) {
        self.is_stopped = true;
        self.crawler.handle_stop(StopReason::PassesDone, self.now);
        for _ in self.open.drain(..) {
            self.crawler.handle_ended(None, self.now);
        }
    }

    /// Every address refuses, but for the reference nodes: the pass or the crawler ends.
    fn finish(mut self) {
        self.is_stalled = false;
        if self.sockets == 0 {
            self.reload(1);
        }
        self.settle();
        let passes = self.passes;
        for _ in 0..MAX_TURNS {
            if self.passes > passes || self.crawler.is_over() {
                let counters = self.crawler.counters();
                assert_eq!(counters.probed, counters.responded + counters.failed, "4.");
                assert_eq!(self.acked, self.sent, "4. a result was not acknowledged");
                return;
            }
            self.advance(Duration::from_secs(4));
            for open in std::mem::take(&mut self.open) {
                let is_reference = open.0.is_reference();
                let outcome = if is_reference { Outcome::Responded } else { Outcome::Refused };
                self.result(open, outcome, None);
            }
            self.settle();
            if let Phase::Waiting { until } = self.crawler.phase() {
                let wait = until.saturating_sub(self.now.mono);
                self.advance(wait);
            }
        }
        let (phase, limit) = (self.crawler.phase(), self.crawler.limit(self.now));
        let (queue, open, unacked) =
            (self.crawler.queue_len(), self.open.len(), self.crawler.unacked());
        panic!(
            "5. the pass never ends: {phase:?}, limit {limit:?}, uplink up {}, queue {queue}, open {open}, \
             unacked {unacked}, {} passes, at {:?}",
            self.crawler.is_uplink_up(),
            self.passes,
            self.now
        );
    }
}

/// Enough to dial all addresses one at a time.
const MAX_TURNS: usize = 1_000;

/// The filter admits all but two of these addresses.
fn address(number: u8) -> Address {
    match number {
        254 => Address::new([8, 8, 8, 8].into(), 8333),
        255 => Address::new([127, 9, 9, 9].into(), 0),
        _ => Address::new([127, number % 5 + 1, 0, number % 64].into(), 8333),
    }
}

fn crawler_params(filter: &Arc<Filter>, max_sockets: usize, rate: u32) -> CrawlerParams {
    CrawlerParams {
        max_sockets,
        connects_per_second: rate,
        pass_interval: HOUR / 2,
        spam_share: 0.3,
        ask_share: 8,
        learns_patience: true,
        filter: Arc::clone(filter),
        built_at: UnixTime::default(),
    }
}

fn recorder_params(filter: &Arc<Filter>, max_addresses: u32) -> RecorderParams {
    let backoff = BackoffParams {
        base: HOUR,
        factor: 2.0,
        max: 336 * HOUR,
        node_base: Duration::from_secs(600),
        node_max: HOUR,
        lost_max: 24 * HOUR,
    };
    let max_addresses = max_addresses as usize;
    let ranking = RankingParams::default();
    let book = BookParams { backoff, getaddr_interval: 24 * HOUR, max_addresses, ranking };
    RecorderParams { book, filter: Arc::clone(filter), rules: Rules::builtin() }
}
