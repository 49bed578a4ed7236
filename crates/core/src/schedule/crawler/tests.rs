//! The crawler and the recorder together, in virtual time, with scripted results.

mod clock;
mod restart;
mod silence;

use std::collections::{BTreeMap, BTreeSet};
use std::net::Ipv4Addr;

use super::*;
use crate::book::BookParams;
use crate::book::backoff::BackoffParams;
use crate::book::rank::RankingParams;
use crate::lookup::species::Rules;
use crate::record::messages::{Waits, WriterParams};
use crate::record::recorder::{Recorder, RecorderParams};
use crate::schedule::uplink::UplinkEvent;
use crate::vocabulary::address::Address;
use crate::vocabulary::outcome::Outcome;
use crate::vocabulary::rows::{Batch, Known, KnownNode, LastPass, PassRow};
use crate::vocabulary::target::{Peer, VersionInfo};
use crate::vocabulary::time::UnixTime;

pub(super) const START: UnixTime = UnixTime::from_secs(1_800_000_000);
const HOUR: Duration = Duration::from_secs(3_600);

fn address(number: u32) -> Address {
    Address::new(Ipv4Addr::from(0x7f00_0000 + (number << 8)), 8333)
}

fn book_params() -> BookParams {
    let backoff = BackoffParams {
        base: HOUR,
        factor: 2.0,
        max: 336 * HOUR,
        node_base: Duration::from_secs(600),
        node_max: HOUR,
        lost_max: 24 * HOUR,
    };
    let ranking = RankingParams::default();
    BookParams { backoff, getaddr_interval: 24 * HOUR, max_addresses: 1_000_000, ranking }
}

fn filter() -> Arc<Filter> {
    Arc::new(Filter::new(&[], &["127.0.0.0/8".parse().unwrap()]))
}

pub(super) fn crawler_params(max_sockets: usize) -> CrawlerParams {
    CrawlerParams {
        max_sockets,
        connects_per_second: 400,
        pass_interval: HOUR / 2,
        spam_share: 0.3,
        ask_share: 8,
        learns_patience: true,
        filter: filter(),
        built_at: UnixTime::default(),
    }
}

fn recorder_params(filter: Arc<Filter>) -> RecorderParams {
    RecorderParams { book: book_params(), filter, rules: Rules::builtin() }
}

/// The key of an open probe: a reference node may be probed twice at once.
fn slot(target: Target) -> Address {
    let address = target.address();
    if target.is_reference() { Address::new(address.ip(), 1) } else { address }
}

/// A crawl without sockets: a map tells which nodes answer and what they send.
struct Rig {
    crawler: Crawler,
    recorder: Recorder,
    now: Now,
    /// Open probes, and when they end.
    open: BTreeMap<Address, (Target, Duration)>,
    /// Peers of each node; any other address is silent.
    nodes: BTreeMap<Address, Vec<Address>>,
    probed: BTreeMap<u64, BTreeSet<Address>>,
    /// Number of nodes that were not asked for their peers at first.
    unasked: usize,
    /// Those that were asked later in the same pass.
    followed_up: BTreeSet<Address>,
    asked: BTreeSet<Address>,
    events: Vec<Event>,
    batches: Vec<Batch>,
    most_open: usize,
    dials: Vec<Duration>,
    seeds: Vec<Address>,
    named: Vec<(Address, String)>,
    unresolved: Vec<String>,
    is_name_service_down: bool,
    /// Addresses to which the kernel has no route.
    without_route: BTreeSet<Address>,
    /// A router refuses in the name of every node.
    is_router_refusing: bool,
    greeted: Vec<Address>,
    /// No node is asked for its peers at first.
    greets: bool,
    /// Nodes close the connection while they are asked for their peers.
    is_cut_off: bool,
    is_writer_stuck: bool,
    stuck: Vec<ToWriter>,
}

impl Rig {
    fn new(max_sockets: usize, passes: Option<u64>, known: &[Known], last: LastPass) -> Self {
        let params = recorder_params(filter());
        let mut recorder = Recorder::new(&params, 1);
        known.iter().for_each(|known| recorder.load(known));
        recorder.handle_loaded(last);
        Self {
            crawler: Crawler::new(crawler_params(max_sockets), passes, 2),
            recorder,
            now: Now { mono: Duration::from_secs(5), wall: START },
            open: BTreeMap::new(),
            nodes: BTreeMap::new(),
            probed: BTreeMap::new(),
            unasked: 0,
            followed_up: BTreeSet::new(),
            asked: BTreeSet::new(),
            events: Vec::new(),
            batches: Vec::new(),
            most_open: 0,
            dials: Vec::new(),
            seeds: Vec::new(),
            named: Vec::new(),
            unresolved: Vec::new(),
            is_name_service_down: false,
            without_route: BTreeSet::new(),
            is_router_refusing: false,
            greeted: Vec::new(),
            greets: false,
            is_cut_off: false,
            is_writer_stuck: false,
            stuck: Vec::new(),
        }
    }

    fn advance(&mut self, step: Duration) {
        self.now = Now { mono: self.now.mono + step, wall: self.now.wall.plus(step) };
        let ended: Vec<Address> = self
            .open
            .iter()
            .filter(|(_, (_, end))| *end <= self.now.mono)
            .map(|(address, _)| *address)
            .collect();
        for address in ended {
            let (target, _) = self.open.remove(&address).unwrap();
            let mut result = self.result(target);
            let is_first = target.wants_peers() && !target.is_follow_up();
            if self.greets && is_first && result.version.is_some() {
                self.unasked += 1;
                (result.target, result.peers_sent) = (target.unasked(), None);
                result.peers.clear();
            }
            self.crawler.handle_ended(Some(result), self.now);
        }
        self.settle();
    }

    fn settle(&mut self) {
        loop {
            while let Some(message) = self.recorder.poll_output() {
                self.crawler.handle_writer(message, self.now);
            }
            let totals = self.recorder.totals();
            self.crawler.handle_writer(FromWriter::Totals(totals), self.now);
            self.crawler.tick(self.now);
            if let Some(request) = self.crawler.poll_name_request() {
                let seeds = request == NameRequest::NamedAndSeeds;
                let has_seeds = seeds && !self.is_name_service_down;
                let seeds = if has_seeds { self.seeds.clone() } else { Vec::new() };
                let is_partial = std::mem::take(&mut self.is_name_service_down);
                let (named, unresolved) = (self.named.clone(), self.unresolved.clone());
                let names = Names { named, unresolved, seeds, is_partial };
                self.crawler.handle_names(names, self.now);
            }
            while let Some(target) = self.crawler.poll_dial(self.now) {
                self.dial(target);
            }
            let mut is_settled = true;
            while let Some(message) = self.crawler.poll_writer() {
                is_settled = false;
                match (self.is_writer_stuck, message) {
                    (true, message) => self.stuck.push(message),
                    (false, message) => self.recorder.handle(message, self.now),
                }
            }
            self.events.extend(std::iter::from_fn(|| self.crawler.poll_event()));
            if is_settled {
                return;
            }
        }
    }

    fn dial(&mut self, target: Target) {
        let pass = self.crawler.counters().pass;
        if self.without_route.contains(&target.address()) {
            return self.crawler.handle_undialled(target, Fault::Uplink, self.now);
        }
        if target.is_reference() {
            self.greeted.push(target.address());
        } else if target.is_follow_up() {
            assert!(self.probed[&pass].contains(&target.address()), "a follow-up comes second");
            let is_first = self.followed_up.insert(target.address());
            assert!(is_first, "{} was followed up twice", target.address());
        } else if !self.is_router_refusing {
            let is_first = self.probed.entry(pass).or_default().insert(target.address());
            assert!(is_first, "{} was probed twice in pass {pass}", target.address());
        }
        if target.wants_peers() {
            self.asked.insert(target.address());
        }
        let end = self.now.mono + self.duration(target);
        self.open.insert(slot(target), (target, end));
        self.dials.push(self.now.mono);
        self.most_open = self.most_open.max(self.open.len());
        assert_eq!(self.open.len(), self.crawler.open());
    }

    fn duration(&self, target: Target) -> Duration {
        let is_node = self.nodes.contains_key(&target.address());
        Duration::from_millis(if is_node { 300 } else { 3_000 })
    }

    fn result(&self, target: Target) -> ProbeResult {
        if self.is_router_refusing {
            return ProbeResult {
                outcome: Outcome::Refused,
                heard_at: Some(self.now.mono),
                version: None,
                ..self.result_of(target, None)
            };
        }
        self.result_of(target, self.nodes.get(&target.address()))
    }

    fn result_of(&self, target: Target, peers: Option<&Vec<Address>>) -> ProbeResult {
        let time = START.as_secs() as u32;
        let peer = |address: &Address| Peer { address: *address, services: 1, time };
        let sent = peers.filter(|_| target.wants_peers());
        ProbeResult {
            target,
            outcome: if peers.is_some() { Outcome::Responded } else { Outcome::ConnectTimeout },
            probed_at: self.now.wall,
            dialled_at: self.now.mono.saturating_sub(self.duration(target)),
            heard_at: peers.map(|_| self.now.mono),
            connect_ms: None,
            version_ms: None,
            version: peers.map(|_| VersionInfo::default()),
            peers_sent: sent.filter(|_| !self.is_cut_off).map(|peers| peers.len() as u32),
            peers: sent.map(|peers| peers.iter().map(peer).collect()).unwrap_or_default(),
        }
    }

    /// Runs until `done`, for an hour at most; returns whether it was reached.
    fn run(&mut self, mut done: impl FnMut(&Self) -> bool) -> bool {
        let end = self.now.mono + HOUR;
        while self.now.mono < end {
            self.advance(Duration::from_millis(50));
            if done(self) {
                return true;
            }
        }
        false
    }

    fn pass_ends(&mut self) {
        let before = self.finished();
        assert!(self.run(|rig| rig.finished() > before), "the pass never ends");
        self.batches.push(self.recorder.take_batch());
    }

    fn finished(&self) -> usize {
        self.events.iter().filter(|event| matches!(event, Event::PassFinished { .. })).count()
    }

    /// A network of `nodes` nodes in a ring, each of which names the next three and some silent
    /// addresses.
    fn with_ring(mut self, nodes: u32, silent: u32) -> Self {
        for number in 0..nodes {
            let live = (1..=3).map(|step| address((number + step) % nodes));
            let dead = (0..silent).map(|step| address(nodes + (number * 7 + step) % 500));
            self.nodes.insert(address(number), live.chain(dead).collect());
        }
        self.seeds = vec![address(0)];
        self
    }
}

#[test]
fn a_pass_finds_every_node_from_one_seed_and_probes_each_address_once() {
    let mut rig = Rig::new(50, Some(1), &[], LastPass::default()).with_ring(300, 20);
    rig.pass_ends();
    let probed = &rig.probed[&1];
    assert!(rig.nodes.keys().all(|node| probed.contains(node)));
    assert_eq!(probed.len(), 800, "300 nodes and 500 silent addresses");
    let batch = &rig.batches[0];
    assert_eq!((batch.nodes.len(), batch.failed.len(), batch.probes.len()), (300, 500, 300));
    assert_eq!(batch.heard.len(), 800);
    let row = batch.passes[&1];
    assert_eq!((row.probed, row.responded, row.failed), (800, 300, 500));
    assert_eq!((row.new_nodes, row.new_addresses), (300, 800));
    assert!(row.finished_at.is_some());
    assert!(rig.most_open <= 50, "{}", rig.most_open);
    assert_eq!(
        *rig.crawler.phase(),
        Phase::Stopping { is_writer_told: true, deadline: None },
        "one pass was requested"
    );
}

#[test]
fn a_pass_follows_up_every_node_that_it_did_not_ask() {
    let mut rig = Rig::new(50, Some(1), &[], LastPass::default()).with_ring(60, 9);
    rig.greets = true;
    rig.pass_ends();
    let nodes: BTreeSet<Address> = rig.nodes.keys().copied().collect();
    assert_eq!((rig.unasked, &rig.followed_up), (60, &nodes), "each once");
    let (batch, probed) = (&rig.batches[0], rig.probed[&1].len() as u64);
    let row = batch.passes[&1];
    assert_eq!((row.probed, row.responded), (probed, 60), "an address counts once");
    assert_eq!((row.probed, row.new_addresses), (row.due, probed));
    assert!(batch.nodes.values().all(|node| node.peers.is_some()));
}

#[test]
fn a_follow_up_comes_a_minute_later_and_its_failure_ends_the_pass() {
    let mut rig = Rig::new(50, None, &[], LastPass::default()).with_ring(3, 0);
    rig.greets = true;
    rig.run(|rig| rig.unasked == 1);
    let greeted_at = rig.now.mono;
    rig.nodes.clear();
    rig.run(|rig| !rig.followed_up.is_empty());
    let waited = rig.now.mono - greeted_at;
    assert!((60..62).contains(&waited.as_secs()), "{waited:?}");
    rig.pass_ends();
    assert_eq!(rig.followed_up.len(), 1);
    // The next pass begins without it.
    rig.followed_up.clear();
    rig.pass_ends();
    assert!(rig.followed_up.is_empty());
}

#[test]
fn a_node_cut_off_while_it_was_asked_is_asked_at_its_next_probe() {
    for is_cut_off in [false, true] {
        let node = KnownNode { peers_asked_at: None, peers_sent: None, ..seen() };
        let list = [known(1, START, Some(node))];
        let mut rig = Rig::new(5, None, &list, LastPass::default());
        rig.nodes.insert(address(1), Vec::new());
        rig.is_cut_off = is_cut_off;
        rig.pass_ends();
        assert!(rig.asked.remove(&address(1)));
        let node = &rig.batches[0].nodes[&address(1)];
        assert_eq!(node.peers.is_some(), !is_cut_off, "only silence for the whole wait counts");
        rig.pass_ends();
        assert!(rig.probed[&2].contains(&address(1)));
        assert_eq!(rig.asked.contains(&address(1)), is_cut_off);
    }
}

#[test]
fn sockets_are_kept_for_likely_candidates_only_while_they_are_short() {
    let heard = |number| Known {
        address: address(number),
        last_heard: START,
        failures: 0,
        last_probed: None,
        last_outcome: None,
        next_probe: START,
        source: 0,
        node: None,
    };
    let known: Vec<Known> = (1_000..3_000).map(heard).collect();
    let mut rig = Rig::new(48, None, &known, LastPass::default()).with_ring(10, 0);
    // Until some hundred of them were silent.
    let (mut bounded, mut free) = (0, 0);
    rig.run(|rig| {
        let bounds = rig.crawler.ask_bounds();
        if bounds == AskBounds::NONE {
            free += 1;
        } else {
            bounded += 1;
            assert_eq!(bounds, AskBounds { any: 6, prompt: 12 });
            assert!(rig.crawler.open() >= 24);
        }
        rig.finished() > 0
    });
    assert!(bounded > 100 && free > 100, "{bounded} {free}");
}

#[test]
fn later_passes_probe_nodes_and_leave_the_dead_alone() {
    let mut rig = Rig::new(50, None, &[], LastPass::default()).with_ring(100, 5);
    rig.pass_ends();
    let began = rig.events.iter().filter(|e| matches!(e, Event::PassStarted { .. })).count();
    assert_eq!(began, 1);
    rig.asked.clear();
    rig.pass_ends();
    assert_eq!(rig.probed[&2], rig.nodes.keys().copied().collect(), "the dead wait an hour");
    assert!(rig.asked.is_empty(), "asked less than a day ago");
    rig.pass_ends();
    rig.pass_ends();
    let all: usize = [3, 4].iter().map(|pass| rig.probed[pass].len()).sum();
    assert!(all > 200, "the dead are due again after about an hour");
}

#[test]
fn a_lower_max_sockets_holds_and_cuts_no_session() {
    let mut rig = Rig::new(40, None, &[], LastPass::default()).with_ring(300, 40);
    rig.run(|rig| rig.open.len() == 40);
    assert_eq!(rig.crawler.limit(rig.now), Limit::Sockets);
    let recorder = recorder_params(filter());
    rig.crawler.handle_params(crawler_params(10), WriterParams::new(recorder.clone()));
    let open: Vec<Address> = rig.open.keys().copied().collect();
    rig.advance(Duration::from_millis(1));
    assert_eq!(rig.open.keys().copied().collect::<Vec<_>>(), open);
    // `most_open` is updated at each dial: none happens before enough sessions have ended.
    rig.most_open = 0;
    rig.run(|rig| rig.open.len() <= 10);
    rig.advance(Duration::from_secs(1));
    assert!(rig.most_open <= 10);
    rig.crawler.handle_params(crawler_params(60), WriterParams::new(recorder));
    rig.run(|rig| rig.open.len() == 60);
    assert_eq!(rig.open.len(), 60);
}

#[test]
fn connections_start_no_faster_than_allowed() {
    let mut rig = Rig::new(2_000, Some(1), &[], LastPass::default()).with_ring(300, 60);
    rig.pass_ends();
    for (number, start) in rig.dials.iter().enumerate() {
        let within = rig.dials[number..].iter().filter(|at| **at < *start + HOUR / 3_600).count();
        assert!(within <= 400, "{within} connections in a second");
    }
}

#[test]
fn nothing_is_dialled_without_room_for_its_result() {
    let mut rig = Rig::new(100, None, &[], LastPass::default()).with_ring(3_000, 0);
    rig.run(|rig| rig.crawler.counters().probed > 20);
    rig.is_writer_stuck = true;
    // The ring grows only through the writer: fill the queue directly.
    let targets = (5_000..12_000).map(|number| Target::candidate(address(number))).collect();
    rig.crawler
        .handle_writer(FromWriter::Due { targets, last: false, waits: Waits::default() }, rig.now);
    rig.run(|rig| rig.crawler.limit(rig.now) == Limit::Writer && rig.open.is_empty());
    assert!(rig.crawler.unacked() >= MAX_UNACKED);
    assert!(rig.crawler.unacked() <= MAX_UNACKED + 100, "{}", rig.crawler.unacked());
    let probed = rig.crawler.counters().probed;
    rig.is_writer_stuck = false;
    for message in std::mem::take(&mut rig.stuck) {
        rig.recorder.handle(message, rig.now);
    }
    assert!(rig.run(|rig| rig.crawler.counters().probed > probed), "it continues by itself");
}

fn known(number: u32, next_probe: UnixTime, node: Option<KnownNode>) -> Known {
    Known {
        address: address(number),
        last_heard: START.minus(HOUR),
        failures: u32::from(node.is_none()),
        last_probed: Some(START.minus(HOUR)),
        last_outcome: Some(match node {
            Some(_) => Outcome::Responded,
            None => Outcome::ConnectTimeout,
        }),
        next_probe,
        source: 0,
        node,
    }
}

#[test]
fn the_start_of_the_pass_decides_what_is_due() {
    let list = [
        known(1, START, None),
        known(2, START.plus(Duration::from_secs(1)), None),
        known(3, START.minus(HOUR), None),
        known(4, START.plus(Duration::from_millis(1)), None),
    ];
    let mut rig = Rig::new(10, Some(1), &list, LastPass::default());
    rig.pass_ends();
    assert_eq!(rig.probed[&1], BTreeSet::from([address(1), address(3)]));
}

#[test]
fn an_interrupted_pass_is_resumed_under_its_number() {
    let began = START.minus(HOUR);
    let row = PassRow { started_at: began, probed: 7, failed: 7, ..PassRow::default() };
    let list = [
        known(1, began, None),            // due, not probed before the interruption
        known(2, START.plus(HOUR), None), // failed before the interruption
        known(3, began.plus(Duration::from_secs(90)), Some(seen())), // responded before the interruption
    ];
    let mut rig = Rig::new(10, Some(1), &list, LastPass { pass: 12, row });
    rig.named = vec![(address(2), "two".into()), (address(9), "nine".into())];
    rig.pass_ends();
    assert!(rig.events.contains(&Event::PassStarted { pass: 12, resumed: true, due: 2 }));
    // Number 2 has a name, but was probed since the pass began.
    assert_eq!(rig.probed[&12], BTreeSet::from([address(1), address(9)]));
    assert_eq!(rig.batches[0].passes[&12].probed, 9);
    assert_eq!(rig.batches[0].passes[&12].started_at, began);
}

fn seen() -> KnownNode {
    KnownNode { last_seen: START, peers_asked_at: Some(START), peers_sent: Some(9), is_trb: false }
}

#[test]
fn the_newest_time_of_the_database_is_that_of_a_probe_or_a_pass() {
    let newest = |list: &[Known], last: LastPass| {
        let params = recorder_params(filter());
        let mut recorder = Recorder::new(&params, 1);
        list.iter().for_each(|known| recorder.load(known));
        recorder.handle_loaded(last);
        match recorder.poll_output() {
            Some(FromWriter::Ready(opened)) => opened.newest,
            other => panic!("{other:?}"),
        }
    };
    let (probed, heard) = (START.plus(HOUR), START.plus(1_000 * HOUR));
    let mut one = known(1, START, None);
    (one.last_probed, one.last_heard) = (Some(probed), heard);
    assert_eq!(newest(&[one], LastPass::default()), probed, "the times of hearing do not count");
    let row = PassRow { started_at: START, finished_at: Some(heard), ..PassRow::default() };
    assert_eq!(newest(&[one], LastPass { pass: 1, row }), heard);
}

#[test]
fn an_address_excluded_while_it_is_probed_is_not_recorded() {
    let list = [known(1, START, Some(seen())), known(2, START, None)];
    let mut rig = Rig::new(5, None, &list, LastPass::default());
    rig.nodes.insert(address(1), Vec::new());
    rig.advance(Duration::from_millis(50));
    assert_eq!(rig.open.len(), 2);
    let filter = Arc::new(Filter::new(&[], &["127.0.2.0/24".parse().unwrap()]));
    let params = CrawlerParams { filter: Arc::clone(&filter), ..crawler_params(5) };
    rig.crawler.handle_params(params, WriterParams::new(recorder_params(filter)));
    rig.pass_ends();
    let batch = &rig.batches[0];
    assert_eq!((batch.nodes.len(), batch.probes.len(), batch.failed.len()), (0, 0, 1));
}

#[test]
fn an_open_session_that_a_reload_excludes_is_cut_and_the_pass_ends() {
    let list: Vec<Known> = (0..50).map(|number| known(number, START, None)).collect();
    let mut rig = Rig::new(10, None, &list, LastPass::default());
    rig.named = vec![(address(70), "seventy".into())];
    rig.advance(Duration::from_millis(50));
    assert!(rig.open.contains_key(&address(70)));
    let exclude = ["127.0.70.0/24", "127.0.0.0/24"].map(|net| net.parse().unwrap());
    let filter = Arc::new(Filter::new(&exclude, &["127.0.0.0/8".parse().unwrap()]));
    let params = CrawlerParams { filter: Arc::clone(&filter), ..crawler_params(10) };
    rig.crawler.handle_params(params, WriterParams::new(recorder_params(filter)));
    let mut cut: Vec<Target> = rig.open.values().map(|(target, _)| *target).collect();
    cut.retain(|target| !rig.crawler.admits(*target));
    for target in cut {
        rig.open.remove(&target.address());
        rig.crawler.handle_excluded(target, rig.now);
    }
    rig.pass_ends();
    assert_eq!(rig.crawler.open(), 0);
    assert!(!rig.batches.iter().any(|batch| batch.failed.contains_key(&address(70))));
}

// bitnodes#20: a named node was forgotten when its look-up failed after a restart.
#[test]
fn a_named_node_whose_look_up_fails_is_probed_at_its_stored_addresses() {
    let list: Vec<Known> = (0..50).map(|number| known(number, START, None)).collect();
    let mut rig = Rig::new(1, None, &list, LastPass::default());
    for (number, name) in [(7, "seven"), (8, "seven"), (9, "gone from the file"), (70, "seventy")] {
        rig.recorder.load_name(address(number), name.to_owned());
    }
    rig.unresolved = vec!["seven".into()];
    rig.named = vec![(address(8), "eight".into()), (address(70), "seventy".into())];
    for pass in 1..=3 {
        rig.pass_ends();
        let names = rig.batches.last().and_then(|batch| batch.names.as_ref()).unwrap();
        let names: Vec<&str> = names.values().map(String::as_str).collect();
        assert_eq!(names, ["seven", "eight", "seventy"], "pass {pass}");
        let named = [7, 8, 70].map(address);
        assert!(named.iter().all(|address| rig.probed[&pass].contains(address)), "pass {pass}");
    }
    assert!(!rig.probed[&3].contains(&address(9)));
}

// bitcoin#6808: before answers were checked, such an address was stored under the name.
#[test]
fn a_stored_address_of_no_public_node_loses_its_name() {
    let mut rig = Rig::new(1, None, &[], LastPass::default());
    let filter = Arc::new(Filter::new(&[], &[]));
    let params = CrawlerParams { filter: Arc::clone(&filter), ..crawler_params(1) };
    rig.crawler.handle_params(params, WriterParams::new(recorder_params(filter)));
    let public = Address::new(Ipv4Addr::new(8, 8, 8, 8), 8333);
    for address in [address(7), public] {
        rig.recorder.load_name(address, "Friend".to_owned());
    }
    rig.unresolved = vec!["Friend".into()];
    rig.pass_ends();
    let names = rig.batches[0].names.as_ref().unwrap();
    assert!(names.keys().eq([&public]), "{names:?}");
    assert_eq!(rig.probed[&1], BTreeSet::from([public]));
}

#[test]
fn the_first_name_of_an_address_wins() {
    let mut rig = Rig::new(1, None, &[], LastPass::default());
    rig.named = vec![(address(7), "first".into()), (address(7), "second".into())];
    rig.pass_ends();
    let names = rig.batches[0].names.as_ref().unwrap();
    assert_eq!(names[&address(7)], "first");
}

#[test]
fn named_nodes_are_probed_in_every_pass_and_first() {
    let list: Vec<Known> = (0..50).map(|number| known(number, START, None)).collect();
    let mut rig = Rig::new(1, None, &list, LastPass::default());
    rig.named = vec![(address(70), "seventy".into()), (address(7), "seven".into())];
    rig.advance(Duration::from_millis(50));
    assert!(rig.open.keys().all(|open| *open == address(70) || *open == address(7)));
    rig.pass_ends();
    assert_eq!(rig.probed[&1].len(), 51);
    assert_eq!(rig.batches[0].names.as_ref().map(BTreeMap::len), Some(2));
    rig.pass_ends();
    assert_eq!(rig.probed[&2], BTreeSet::from([address(7), address(70)]));
}

#[test]
fn seeds_are_used_only_while_no_node_is_up() {
    let mut rig = Rig::new(10, Some(1), &[known(1, START, Some(seen()))], LastPass::default());
    rig.nodes.insert(address(1), Vec::new());
    rig.seeds = vec![address(40)];
    rig.pass_ends();
    assert_eq!(rig.probed[&1], BTreeSet::from([address(1)]));
}

#[test]
fn what_the_filter_excludes_is_neither_stored_nor_dialled() {
    let mut rig = Rig::new(10, Some(1), &[], LastPass::default()).with_ring(3, 0);
    let outside =
        [Address::new(Ipv4Addr::new(8, 8, 8, 8), 8333), Address::from_bits(0x7f01_0203_0000)];
    rig.nodes.get_mut(&address(0)).unwrap().extend(outside);
    rig.named = vec![(outside[0], "google".into())];
    rig.pass_ends();
    assert_eq!(rig.probed[&1].len(), 3);
    assert!(rig.batches[0].heard.keys().all(|heard| heard.ip().is_loopback() && heard.port() != 0));
}

#[test]
fn a_lack_of_descriptors_costs_pace_and_no_result() {
    let mut rig = Rig::new(100, Some(1), &[], LastPass::default()).with_ring(200, 10);
    let mut faults = 0;
    let end = rig.now.mono + HOUR;
    while rig.finished() == 0 && rig.now.mono < end {
        rig.now.mono += Duration::from_millis(50);
        // Beyond 20 open sockets the system has none left.
        while rig.open.len() >= 20
            && let Some(target) = rig.crawler.poll_dial(rig.now)
        {
            faults += 1;
            rig.crawler.handle_undialled(target, Fault::Descriptors, rig.now);
            assert!(faults < 10_000, "spins");
        }
        rig.advance(Duration::ZERO);
        while rig.open.len() > 20 {
            let (_, (target, _)) = rig.open.pop_last().unwrap();
            rig.probed.get_mut(&1).unwrap().remove(&target.address());
            faults += 1;
            rig.crawler.handle_undialled(target, Fault::Descriptors, rig.now);
        }
    }
    assert!(faults > 0);
    assert!(rig.nodes.keys().all(|node| rig.probed[&1].contains(node)), "every node was probed");
    let warnings = rig.events.iter().filter(|e| matches!(e, Event::ResourceLimited { .. })).count();
    assert!((1..=3).contains(&warnings), "{warnings} warnings");
}

#[test]
fn a_dead_uplink_marks_no_node_down_and_recovers_by_itself() {
    let mut rig = Rig::new(50, Some(1), &[], LastPass::default()).with_ring(50, 0);
    rig.seeds = (0..50).map(address).collect();
    rig.advance(Duration::ZERO);
    let open: Vec<Target> = std::mem::take(&mut rig.open).into_values().map(|(t, _)| t).collect();
    rig.probed.clear();
    assert!(open.len() >= 10);
    for target in &open {
        rig.crawler.handle_undialled(*target, Fault::Uplink, rig.now);
    }
    assert!(!rig.crawler.is_uplink_up());
    assert_eq!(rig.crawler.poll_dial(rig.now), None, "no dial for a second");
    assert_eq!(rig.crawler.limit(rig.now), Limit::Uplink);
    rig.pass_ends();
    assert!(rig.crawler.is_uplink_up());
    assert_eq!(rig.probed[&1].len(), 50, "those tried meanwhile were tried again");
    let lines: Vec<&Event> = rig.events.iter().filter(|e| matches!(e, Event::Uplink(_))).collect();
    assert!(matches!(
        lines[..],
        [Event::Uplink(UplinkEvent::Unroutable), Event::Uplink(UplinkEvent::Up { .. })]
    ));
    let row = rig.batches.last().unwrap().passes[&1];
    assert!(row.finished_at.is_some() && row.uplink_was_down, "the pass counts for no node");
}

#[test]
fn a_single_address_without_a_route_does_not_stop_the_pass() {
    let mut rig = Rig::new(50, Some(1), &[], LastPass::default()).with_ring(50, 0);
    rig.advance(Duration::ZERO);
    let Some((_, (target, _))) = rig.open.pop_first() else { panic!("nothing was dialled") };
    rig.crawler.handle_undialled(target, Fault::Uplink, rig.now);
    assert!(rig.crawler.is_uplink_up());
    rig.pass_ends();
    assert!(rig.events.contains(&Event::Forbidden(1)));
}

#[test]
fn a_reference_node_that_must_not_be_probed_stops_nothing() {
    let mut rig = Rig::new(50, None, &[], LastPass::default()).with_ring(50, 0);
    rig.pass_ends();
    rig.nodes.clear();
    let reference_probes = |rig: &Rig| -> Vec<Target> {
        rig.open
            .values()
            .map(|(target, _)| *target)
            .filter(|target| target.is_reference())
            .collect()
    };
    assert!(rig.run(|rig| !reference_probes(rig).is_empty()), "no reference node is probed");
    for target in reference_probes(&rig) {
        rig.open.remove(&slot(target));
        rig.crawler.handle_undialled(target, Fault::Forbidden, rig.now);
    }
    // Targets that were put back are probed again.
    rig.probed.clear();
    assert!(rig.run(|rig| !rig.crawler.is_uplink_up()), "the suspicion lasts forever");
}

#[test]
fn a_pass_whose_last_targets_are_excluded_continues_at_once() {
    let mut rig = Rig::new(1, Some(1), &[], LastPass::default()).with_ring(20, 0);
    rig.seeds = (0..20).map(address).collect();
    rig.advance(Duration::ZERO);
    let Some((_, (target, _))) = rig.open.pop_first() else { panic!("nothing was dialled") };
    let filter = Arc::new(Filter::new(&[], &["10.0.0.0/8".parse().unwrap()]));
    let recorder = recorder_params(Arc::clone(&filter));
    rig.crawler
        .handle_params(CrawlerParams { filter, ..crawler_params(1) }, WriterParams::new(recorder));
    rig.crawler.handle_undialled(target, Fault::Forbidden, rig.now);
    rig.crawler.tick(rig.now);
    assert_eq!(rig.crawler.poll_dial(rig.now), None);
    assert_eq!((rig.crawler.open(), rig.crawler.queue_len()), (0, 0));
    let next = rig.crawler.poll_timeout(rig.now);
    assert!(next.is_some_and(|at| at <= rig.now.mono), "nothing would wake the shell: {next:?}");
    rig.settle();
    assert_eq!(rig.finished(), 1);
}

#[test]
fn a_stop_dials_nothing_and_hands_over_pending_results() {
    let mut rig = Rig::new(50, None, &[], LastPass::default()).with_ring(300, 20);
    rig.run(|rig| rig.crawler.counters().probed > 60);
    rig.crawler.handle_stop(StopReason::PassesDone, rig.now);
    assert_eq!(rig.crawler.poll_dial(rig.now), None);
    let open = std::mem::take(&mut rig.open);
    assert!(!open.is_empty());
    for (number, (target, _)) in open.into_values().enumerate() {
        let result = (number % 2 == 0).then(|| rig.result(target));
        rig.crawler.handle_ended(result, rig.now);
    }
    rig.settle();
    assert_eq!(*rig.crawler.phase(), Phase::Stopping { is_writer_told: true, deadline: None });
    let batch = rig.recorder.take_batch();
    let counted = batch.passes[&1].probed;
    assert_eq!(counted, rig.crawler.counters().probed, "no result is lost on the way");
    assert_eq!((batch.nodes.len() + batch.failed.len()) as u64, counted);
    rig.crawler.handle_writer(FromWriter::Stopped { lost: 0 }, rig.now);
    assert!(rig.crawler.is_over());
}

#[test]
fn the_next_pass_waits_for_its_interval_across_a_restart() {
    // With a number of passes the first one starts at once.
    let cases = [(10, None, 20), (29, None, 1), (45, None, 0), (10, Some(1), 0)];
    for (minutes_ago, passes, waits) in cases {
        let started_at = START.minus(Duration::from_secs(minutes_ago * 60));
        let row = PassRow { started_at, finished_at: Some(started_at), ..PassRow::default() };
        let mut rig =
            Rig::new(10, passes, &[known(1, started_at, None)], LastPass { pass: 3, row });
        rig.advance(Duration::ZERO);
        assert_eq!(rig.events.contains(&Event::Waits(Duration::from_secs(waits * 60))), waits > 0);
        let began = rig.now.mono;
        rig.pass_ends();
        let waited = rig.now.mono - began;
        assert!(
            waited >= Duration::from_secs(waits * 60)
                && waited < Duration::from_secs(waits * 60 + 10)
        );
        assert_eq!(rig.probed.keys().copied().collect::<Vec<_>>(), [4]);
    }
}

#[test]
fn seeds_that_did_not_resolve_are_resolved_again_before_a_pass() {
    let mut rig = Rig::new(10, Some(1), &[], LastPass::default()).with_ring(5, 0);
    rig.is_name_service_down = true;
    rig.advance(Duration::ZERO);
    assert_eq!(rig.events, [Event::NoSeeds]);
    let began = rig.now.mono;
    rig.pass_ends();
    assert!(rig.now.mono - began >= Duration::from_secs(60));
    assert_eq!(rig.probed[&1].len(), 5);
}

#[test]
fn the_first_batch_of_a_pass_counts_the_addresses_that_it_holds() {
    let mut rig = Rig::new(50, None, &[], LastPass::default());
    rig.seeds = (0..20).map(address).collect();
    rig.settle();
    let batch = rig.recorder.take_batch();
    assert_eq!((batch.heard.len(), batch.passes[&1].new_addresses), (20, 20));
}
