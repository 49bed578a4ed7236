//! Every turn of the watch, with results made by hand.

use std::net::Ipv4Addr;

use super::*;
use crate::crawl::target::VersionInfo;
use crate::crawl::time::UnixTime;

fn address(number: u32) -> Address {
    Address::new(Ipv4Addr::from(0x7f00_0000 + (number << 8)), 8333)
}

fn secs(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

/// A result of a probe that has just been dialled.
fn result(target: Target, outcome: Outcome, heard_at: Option<Duration>) -> ProbeResult {
    dialled(target, outcome, heard_at, heard_at.unwrap_or_default())
}

fn dialled(
    target: Target,
    outcome: Outcome,
    heard_at: Option<Duration>,
    dialled_at: Duration,
) -> ProbeResult {
    ProbeResult {
        target,
        outcome,
        probed_at: UnixTime::default(),
        dialled_at,
        heard_at,
        connect_ms: None,
        version_ms: None,
        version: (outcome == Outcome::Responded).then(VersionInfo::default),
        peers_sent: None,
        peers: Vec::new(),
    }
}

struct Rig {
    line: LineWatch,
    rng: fastrand::Rng,
    now: Duration,
    accepted: Vec<ProbeResult>,
    put_back: Vec<Target>,
    events: Vec<LineEvent>,
}

impl Rig {
    fn new() -> Self {
        Self {
            line: LineWatch::default(),
            rng: fastrand::Rng::with_seed(3),
            now: secs(100),
            accepted: Vec::new(),
            put_back: Vec::new(),
            events: Vec::new(),
        }
    }

    /// Ten nodes have responded in the last minutes.
    fn with_witnesses() -> Self {
        let mut rig = Self::new();
        for number in 0..10 {
            rig.now += secs(30);
            rig.responds(Target::node(address(number), false).up());
        }
        assert_eq!(rig.accepted.len(), 10);
        rig.accepted.clear();
        rig.now += secs(4);
        rig
    }

    fn end(&mut self, result: ProbeResult) {
        self.line.handle_result(result, self.now, &mut self.rng);
        self.drain();
    }

    fn drain(&mut self) {
        self.accepted.extend(std::iter::from_fn(|| self.line.poll_accepted()));
        self.put_back.extend(std::iter::from_fn(|| self.line.poll_put_back()));
        self.events.extend(std::iter::from_fn(|| self.line.poll_event()));
    }

    fn responds(&mut self, target: Target) {
        self.end(result(target, Outcome::Responded, Some(self.now)));
    }

    /// It was dialled two seconds ago.
    fn is_silent(&mut self, target: Target) {
        let dialled_at = self.now.saturating_sub(secs(2));
        self.end(dialled(target, Outcome::ConnectTimeout, None, dialled_at));
    }

    /// So many nodes that were up are silent, a millisecond apart.
    fn silence(&mut self, count: u32) {
        for number in 0..count {
            self.now += Duration::from_millis(1);
            self.is_silent(Target::node(address(1_000 + number), true).up());
        }
    }

    fn greetings(&mut self) -> Vec<Address> {
        std::iter::from_fn(|| self.line.poll_witness()).collect()
    }
}

#[test]
fn silence_is_believed_only_once_somebody_was_heard_behind_it() {
    let mut rig = Rig::with_witnesses();
    rig.silence(5);
    assert!(rig.accepted.is_empty() && rig.line.is_holding());
    // An old answer that ends late proves nothing of later times.
    let late = result(
        Target::candidate(address(50)),
        Outcome::Responded,
        Some(rig.now - Duration::from_millis(2)),
    );
    rig.end(late);
    assert_eq!(rig.accepted.len(), 1 + 3, "three of them had ended by then");
    rig.end(result(Target::candidate(address(51)), Outcome::Refused, Some(rig.now)));
    assert_eq!(rig.accepted.len(), 5 + 2);
    assert!(!rig.line.is_holding() && rig.put_back.is_empty() && rig.events.is_empty());
}

#[test]
fn a_dead_line_counts_against_nobody_and_comes_back_by_itself() {
    let mut rig = Rig::with_witnesses();
    rig.silence(ALARM as u32);
    assert!(!rig.line.is_down(), "a run of failures only raises suspicion");
    let witnesses = rig.greetings();
    assert_eq!(witnesses.len(), WITNESSES);
    assert!(witnesses.iter().all(|w| (0..10).any(|number| *w == address(number))));
    rig.silence(10);
    for (at, witness) in witnesses.iter().enumerate() {
        assert!(!rig.line.is_down(), "only once all {WITNESSES} are silent, {at} are");
        rig.now += secs(1);
        rig.is_silent(Target::witness(*witness));
    }
    assert!(rig.line.is_down());
    assert_eq!(rig.events, [LineEvent::Silent { witnesses: WITNESSES }]);
    assert_eq!(rig.put_back.len(), ALARM + 10);
    assert!(rig.put_back.iter().all(|target| target.is_up() && target.wants_peers()));
    // What ends now counts for nothing, either.
    rig.silence(7);
    let stalled = result(
        Target::node(address(3_000), false).up(),
        Outcome::HandshakeTimeout,
        Some(rig.now - secs(20)),
    );
    rig.end(stalled);
    assert_eq!((rig.put_back.len(), rig.accepted.len()), (ALARM + 18, 0));
    assert!(rig.line.is_down(), "it was connected before the line went down");
    // Every other try of the trickle goes to one that is known to answer, each in turn.
    let tries: Vec<Option<Address>> = (0..16).map(|_| rig.line.poll_trickle()).collect();
    let known: BTreeSet<Address> = tries.iter().flatten().copied().collect();
    assert_eq!((tries.iter().flatten().count(), known.len()), (8, 8));
    rig.now += secs(28_800);
    rig.end(result(Target::witness(witnesses[0]), Outcome::Closed, Some(rig.now)));
    assert!(!rig.line.is_down());
    assert!(matches!(rig.events[1..], [LineEvent::Up { after }] if after > secs(28_000)));
    assert_eq!(rig.accepted.len(), 0, "a greeting is never recorded");
    // What began before it came back and ends now counts for nothing, candidates included.
    rig.put_back.clear();
    let candidate = Target::candidate(address(3_001));
    let dialled_at = rig.now - secs(1);
    rig.now += secs(9);
    rig.end(dialled(candidate, Outcome::HandshakeTimeout, Some(dialled_at), dialled_at));
    rig.is_silent(Target::candidate(address(3_002)));
    rig.now += secs(1);
    rig.responds(Target::node(address(1), false));
    assert_eq!(rig.put_back, [candidate]);
    assert_eq!(rig.accepted.len(), 2, "the later one, and who responded");
}

#[test]
fn a_wave_of_spam_is_no_dead_line_and_alarms_more_and_more_rarely() {
    let mut rig = Rig::with_witnesses();
    let (mut alarms, mut greeted) = (0, 0);
    for number in 0..20_000 {
        rig.now += Duration::from_millis(3);
        rig.is_silent(Target::candidate(address(5_000 + number)));
        let witnesses = rig.greetings();
        alarms += usize::from(!witnesses.is_empty());
        greeted += witnesses.len();
        for (at, witness) in witnesses.into_iter().enumerate() {
            rig.now += Duration::from_millis(100);
            match at {
                0 => rig.is_silent(Target::witness(witness)),
                _ => rig.responds(Target::witness(witness)),
            }
        }
    }
    assert!(rig.events.is_empty() && rig.put_back.is_empty());
    assert!((5..=14).contains(&alarms), "{alarms} alarms");
    assert_eq!(greeted, alarms * WITNESSES);
    assert!(rig.accepted.len() + MAX_ALARM >= 20_000);
}

#[test]
fn a_false_alarm_gives_nodes_that_were_up_three_chances_more() {
    let mut rig = Rig::with_witnesses();
    rig.now += secs(10);
    let mut node = Target::node(address(900), true).up();
    for round in 0..4 {
        rig.now += secs(10);
        let dialled_at = rig.now - secs(5);
        rig.end(dialled(node, Outcome::ConnectTimeout, None, dialled_at));
        for number in 0..MAX_ALARM as u32 {
            rig.now += Duration::from_millis(1);
            rig.is_silent(Target::candidate(address(10_000 + number)));
        }
        rig.now += secs(1);
        let witness = rig.greetings()[0];
        rig.responds(Target::witness(witness));
        let is_recorded = rig.accepted.iter().any(|r| r.target.address() == node.address());
        assert_eq!(is_recorded, round == 3);
        if let Some(again) = rig.put_back.pop() {
            node = again;
        }
        assert!(rig.put_back.is_empty());
    }
}

#[test]
fn a_node_that_was_waited_for_while_nobody_was_heard_is_tried_again() {
    let mut rig = Rig::with_witnesses();
    let fails = |rig: &mut Rig, target: Target, ago: u64| {
        let dialled_at = rig.now - secs(ago);
        rig.end(dialled(target, Outcome::ConnectTimeout, None, dialled_at));
    };
    let node = |number| Target::node(address(number), true).up();
    // Somebody was heard eight seconds ago, and now.
    rig.now += secs(8);
    fails(&mut rig, node(901), 6);
    fails(&mut rig, node(902), 2);
    fails(&mut rig, Target::node(address(903), true), 6);
    fails(&mut rig, Target::candidate(address(904)), 6);
    rig.responds(node(1));
    assert_eq!(rig.put_back, [node(901).retried().unwrap()]);
    let recorded: Vec<Address> = rig.accepted.iter().map(|r| r.target.address()).collect();
    assert_eq!(recorded, [902, 903, 904, 1].map(address));
}

#[test]
fn the_last_results_of_a_pass_are_questioned_where_they_matter() {
    // A few candidates: not worth a greeting.
    let mut rig = Rig::with_witnesses();
    rig.is_silent(Target::candidate(address(50)));
    rig.line.question(rig.now, &mut rig.rng);
    rig.drain();
    assert_eq!((rig.accepted.len(), rig.greetings().len()), (1, 0));
    // A node that was up until now.
    rig.silence(1);
    rig.line.question(rig.now, &mut rig.rng);
    rig.drain();
    assert_eq!(rig.accepted.len(), 1);
    let witnesses = rig.greetings();
    assert_eq!(witnesses.len(), WITNESSES);
    rig.now += secs(1);
    rig.responds(Target::witness(witnesses[5]));
    assert_eq!(rig.accepted.len(), 2);
}

#[test]
fn where_nobody_can_be_asked_silence_is_believed() {
    let mut rig = Rig::new();
    for number in 0..ALARM as u32 {
        rig.is_silent(Target::node(address(number), true));
    }
    assert_eq!(rig.accepted.len(), ALARM);
}

#[test]
fn who_responded_within_the_hour_is_asked_and_where_they_are_too_few_who_responded_before() {
    let mut rig = Rig::with_witnesses();
    let fresh = [31, 32, 33].map(address);
    rig.now += secs(3_700);
    for address in fresh {
        rig.responds(Target::node(address, false).up());
    }
    rig.accepted.clear();
    rig.now += secs(4);
    rig.silence(ALARM as u32);
    let witnesses = rig.greetings();
    assert_eq!((rig.accepted.len(), witnesses.len()), (0, WITNESSES));
    assert!(fresh.iter().all(|address| witnesses.contains(address)), "those of the hour first");
}

#[test]
fn one_stray_answer_after_a_night_without_a_line_leaves_whom_to_ask() {
    let mut rig = Rig::with_witnesses();
    rig.silence(ALARM as u32);
    for witness in rig.greetings() {
        rig.is_silent(Target::witness(witness));
    }
    assert!(rig.line.is_down());
    rig.now += secs(28_800);
    rig.end(result(Target::candidate(address(51)), Outcome::Refused, Some(rig.now)));
    assert!(!rig.line.is_down());
    rig.accepted.clear();
    rig.now += secs(20);
    rig.silence(ALARM as u32);
    let witnesses = rig.greetings();
    assert_eq!(witnesses.len(), WITNESSES);
    for witness in witnesses {
        rig.is_silent(Target::witness(witness));
    }
    assert!(rig.line.is_down() && rig.accepted.is_empty());
}

#[test]
fn after_a_restart_an_answer_of_a_stranger_leaves_whom_to_ask() {
    let mut rig = Rig::new();
    for number in 0..50 {
        rig.line.offer(Target::node(address(number), false).up(), &mut rig.rng);
    }
    rig.end(result(Target::candidate(address(51)), Outcome::Refused, Some(rig.now)));
    rig.accepted.clear();
    rig.now += secs(20);
    rig.silence(ALARM as u32);
    assert_eq!((rig.accepted.len(), rig.greetings().len()), (0, WITNESSES));
}

#[test]
fn who_was_greeted_a_moment_ago_rests_while_others_can_be_asked() {
    let mut rig = Rig::with_witnesses();
    for number in 20..30 {
        rig.responds(Target::node(address(number), false).up());
    }
    let again = |rig: &mut Rig, wait: u64, alarm: usize| {
        rig.now += secs(wait);
        rig.silence(alarm as u32);
        let witnesses = rig.greetings();
        rig.now += secs(1);
        rig.responds(Target::witness(witnesses[0]));
        witnesses
    };
    let asked = [(5, 1), (5, 2), (5, 4)].map(|(wait, times)| again(&mut rig, wait, times * ALARM));
    assert_eq!(asked.each_ref().map(Vec::len), [WITNESSES, WITNESSES, 4], "twenty are known");
    let all: BTreeSet<Address> = asked.into_iter().flatten().collect();
    assert_eq!(all.len(), 20, "each once");
    assert_eq!(again(&mut rig, 5, 8 * ALARM).len(), WITNESSES, "nobody else can be asked");
    // Eight of the hour, and ten that may be long gone: who answered a moment ago is asked again.
    let mut rig = Rig::with_witnesses();
    rig.now += secs(3_700);
    let fresh: Vec<Address> = (30..38).map(address).collect();
    fresh.iter().for_each(|address| rig.responds(Target::node(*address, false).up()));
    for times in [1, 2, 4] {
        let asked = again(&mut rig, 5, times * ALARM);
        assert!(fresh.iter().all(|address| asked.contains(address)), "{asked:?}");
    }
}

#[test]
fn after_a_restart_the_nodes_that_the_database_calls_up_are_asked() {
    let mut rig = Rig::new();
    for number in 0..500 {
        let target = Target::node(address(number), false);
        rig.line.offer(if number < 400 { target.up() } else { target }, &mut rig.rng);
    }
    rig.silence(ALARM as u32);
    let witnesses = rig.greetings();
    assert_eq!(witnesses.len(), WITNESSES);
    assert!(witnesses.iter().all(|witness| (0..400).any(|number| *witness == address(number))));
    for witness in witnesses {
        rig.is_silent(Target::witness(witness));
    }
    assert!(rig.line.is_down() && rig.accepted.is_empty());
}

#[test]
fn witnesses_of_a_former_alarm_that_end_late_are_not_counted_for_the_next() {
    let mut rig = Rig::with_witnesses();
    rig.silence(ALARM as u32);
    let former = rig.greetings();
    rig.now += secs(1);
    rig.responds(Target::witness(former[0]));
    rig.now += secs(4);
    rig.silence(2 * ALARM as u32);
    let (first, rest) = (rig.line.poll_witness().unwrap(), rig.greetings());
    assert_eq!(rest.len(), WITNESSES - 1);
    for witness in &former[1..] {
        if *witness != first && !rest.contains(witness) {
            rig.is_silent(Target::witness(*witness));
        }
    }
    for witness in rest {
        rig.is_silent(Target::witness(witness));
    }
    assert!(!rig.line.is_down(), "one has not ended");
    rig.is_silent(Target::witness(first));
    assert!(rig.line.is_down());
}

#[test]
fn addresses_without_a_way_are_told_from_a_network_without_one() {
    let mut rig = Rig::with_witnesses();
    let target = Target::candidate(address(77));
    for _ in 1..UNROUTABLE {
        rig.line.handle_unroutable(target, rig.now, &mut rig.rng);
    }
    assert_eq!(rig.line.handle_routable(), UNROUTABLE as u64 - 1);
    for _ in 0..UNROUTABLE {
        assert!(!rig.line.is_down());
        rig.line.handle_unroutable(target, rig.now, &mut rig.rng);
    }
    rig.drain();
    assert_eq!(rig.events, [LineEvent::Unroutable]);
    assert_eq!(rig.put_back.len(), UNROUTABLE, "nobody is skipped");
    assert!((0..2).filter_map(|_| rig.line.poll_trickle()).count() == 1);
}

#[test]
fn a_stop_keeps_what_is_not_doubtful() {
    let mut rig = Rig::with_witnesses();
    rig.silence(5);
    rig.line.handle_stop();
    rig.drain();
    assert_eq!(rig.accepted.len(), 5);
    let mut rig = Rig::with_witnesses();
    rig.silence(ALARM as u32);
    rig.line.handle_stop();
    rig.drain();
    assert!(rig.accepted.is_empty() && !rig.line.is_holding());
}

#[test]
fn sockets_that_give_up_together_are_no_run() {
    let mut rig = Rig::with_witnesses();
    rig.responds(Target::node(address(3), false).up());
    rig.silence(4 * ALARM as u32);
    assert!(rig.greetings().is_empty(), "somebody was heard a moment ago");
    rig.now += secs(4);
    rig.silence(1);
    assert_eq!(rig.greetings().len(), WITNESSES);
}
