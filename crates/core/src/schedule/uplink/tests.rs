//! The uplink monitor with scripted results.

use std::net::Ipv4Addr;

use super::*;
use crate::vocabulary::outcome::Outcome;
use crate::vocabulary::target::VersionInfo;
use crate::vocabulary::time::UnixTime;

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
    uplink: UplinkMonitor,
    rng: fastrand::Rng,
    now: Duration,
    accepted: Vec<ProbeResult>,
    put_back: Vec<Target>,
    events: Vec<UplinkEvent>,
}

impl Rig {
    fn new() -> Self {
        Self {
            uplink: UplinkMonitor::default(),
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
        self.uplink.handle_result(result, self.now, &mut self.rng);
        self.drain();
    }

    fn drain(&mut self) {
        self.accepted.extend(std::iter::from_fn(|| self.uplink.poll_accepted()));
        self.put_back.extend(std::iter::from_fn(|| self.uplink.poll_put_back()));
        self.events.extend(std::iter::from_fn(|| self.uplink.poll_event()));
    }

    fn responds(&mut self, target: Target) {
        self.end(result(target, Outcome::Responded, Some(self.now)));
    }

    /// It was dialled two seconds ago.
    fn is_silent(&mut self, target: Target) {
        let dialled_at = self.now.saturating_sub(secs(2));
        self.end(dialled(target, Outcome::ConnectTimeout, None, dialled_at));
    }

    /// Ends probes of nodes that were up in silence, a millisecond apart.
    fn silence(&mut self, count: u32) {
        for number in 0..count {
            self.now += Duration::from_millis(1);
            self.is_silent(Target::node(address(1_000 + number), true).up());
        }
    }

    fn reference_probes(&mut self) -> Vec<Address> {
        std::iter::from_fn(|| self.uplink.poll_reference()).collect()
    }
}

#[test]
fn silence_is_accepted_only_after_something_newer_arrived() {
    let mut rig = Rig::with_witnesses();
    rig.silence(5);
    assert!(rig.accepted.is_empty() && rig.uplink.is_holding());
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
    assert!(!rig.uplink.is_holding() && rig.put_back.is_empty() && rig.events.is_empty());
}

#[test]
fn a_dead_uplink_counts_against_no_peer_and_recovers_by_itself() {
    let mut rig = Rig::with_witnesses();
    rig.silence(MIN_ALARM_THRESHOLD as u32);
    assert!(!rig.uplink.is_down(), "a run of failures only raises suspicion");
    let references = rig.reference_probes();
    assert_eq!(references.len(), MAX_REFERENCES);
    assert!(references.iter().all(|w| (0..10).any(|number| *w == address(number))));
    rig.silence(10);
    for (at, reference) in references.iter().enumerate() {
        assert!(!rig.uplink.is_down(), "only once all {MAX_REFERENCES} are silent, {at} are");
        rig.now += secs(1);
        rig.is_silent(Target::reference(*reference));
    }
    assert!(rig.uplink.is_down());
    assert_eq!(rig.events, [UplinkEvent::Silent { references: MAX_REFERENCES }]);
    assert_eq!(rig.put_back.len(), MIN_ALARM_THRESHOLD + 10);
    assert!(rig.put_back.iter().all(|target| target.is_up() && target.wants_peers()));
    // What ends now does not count either.
    rig.silence(7);
    let stalled = result(
        Target::node(address(3_000), false).up(),
        Outcome::HandshakeTimeout,
        Some(rig.now - secs(20)),
    );
    rig.end(stalled);
    assert_eq!((rig.put_back.len(), rig.accepted.len()), (MIN_ALARM_THRESHOLD + 18, 0));
    assert!(rig.uplink.is_down(), "it was connected before the uplink went down");
    // Every other dial goes to a reference node, each in turn.
    let tries: Vec<Option<Address>> = (0..16).map(|_| rig.uplink.poll_trickle()).collect();
    let known: BTreeSet<Address> = tries.iter().flatten().copied().collect();
    assert_eq!((tries.iter().flatten().count(), known.len()), (8, 8));
    rig.now += secs(28_800);
    rig.end(result(Target::reference(references[0]), Outcome::Closed, Some(rig.now)));
    assert!(!rig.uplink.is_down());
    assert!(matches!(rig.events[1..], [UplinkEvent::Up { after }] if after > secs(28_000)));
    assert_eq!(rig.accepted.len(), 0, "a reference probe is never recorded");
    // What began before the recovery and ends now does not count, candidates included.
    rig.put_back.clear();
    let candidate = Target::candidate(address(3_001));
    let dialled_at = rig.now - secs(1);
    rig.now += secs(9);
    rig.end(dialled(candidate, Outcome::HandshakeTimeout, Some(dialled_at), dialled_at));
    rig.is_silent(Target::candidate(address(3_002)));
    rig.now += secs(1);
    rig.responds(Target::node(address(1), false));
    assert_eq!(rig.put_back, [candidate]);
    assert_eq!(rig.accepted.len(), 2, "the later one, and the one that responded");
}

#[test]
fn no_reply_while_the_uplink_is_down_is_not_a_reply_of_nothing() {
    let mut rig = Rig::with_witnesses();
    let asked = |rig: &mut Rig, heard_at: Duration, sent: u32| {
        let target = Target::node(address(3_000), true).up();
        let result = result(target, Outcome::Responded, Some(heard_at));
        rig.end(ProbeResult { peers_sent: Some(sent), ..result });
        rig.accepted.pop().unwrap().peers_sent
    };
    let before = rig.now;
    assert_eq!(asked(&mut rig, before, 0), Some(0));
    rig.now += secs(4);
    rig.silence(MIN_ALARM_THRESHOLD as u32);
    for reference in rig.reference_probes() {
        rig.is_silent(Target::reference(reference));
    }
    assert!(rig.uplink.is_down());
    assert_eq!(asked(&mut rig, before, 0), None, "the uplink is down");
    rig.now += secs(30);
    rig.end(result(Target::candidate(address(51)), Outcome::Refused, Some(rig.now)));
    assert!(!rig.uplink.is_down());
    rig.accepted.clear();
    assert_eq!(asked(&mut rig, before, 0), None, "it was down during the wait");
    assert_eq!(asked(&mut rig, before, 7), Some(7), "a reply came");
    let now = rig.now;
    assert_eq!(asked(&mut rig, now, 0), Some(0));
}

#[test]
fn a_wave_of_spam_is_no_dead_uplink_and_alarms_less_and_less() {
    let mut rig = Rig::with_witnesses();
    let (mut alarms, mut greeted) = (0, 0);
    for number in 0..20_000 {
        rig.now += Duration::from_millis(3);
        rig.is_silent(Target::candidate(address(5_000 + number)));
        let references = rig.reference_probes();
        alarms += usize::from(!references.is_empty());
        greeted += references.len();
        for (at, reference) in references.into_iter().enumerate() {
            rig.now += Duration::from_millis(100);
            match at {
                0 => rig.is_silent(Target::reference(reference)),
                _ => rig.responds(Target::reference(reference)),
            }
        }
    }
    assert!(rig.events.is_empty() && rig.put_back.is_empty());
    assert!((5..=14).contains(&alarms), "{alarms} alarms");
    assert_eq!(greeted, alarms * MAX_REFERENCES);
    assert!(rig.accepted.len() + MAX_ALARM_THRESHOLD >= 20_000);
}

#[test]
fn a_false_alarm_gives_nodes_that_were_up_three_more_chances() {
    let mut rig = Rig::with_witnesses();
    rig.now += secs(10);
    let mut node = Target::node(address(900), true).up();
    for round in 0..4 {
        rig.now += secs(10);
        let dialled_at = rig.now - secs(5);
        rig.end(dialled(node, Outcome::ConnectTimeout, None, dialled_at));
        for number in 0..MAX_ALARM_THRESHOLD as u32 {
            rig.now += Duration::from_millis(1);
            rig.is_silent(Target::candidate(address(10_000 + number)));
        }
        rig.now += secs(1);
        let reference = rig.reference_probes()[0];
        rig.responds(Target::reference(reference));
        let is_recorded = rig.accepted.iter().any(|r| r.target.address() == node.address());
        assert_eq!(is_recorded, round == 3);
        if let Some(again) = rig.put_back.pop() {
            node = again;
        }
        assert!(rig.put_back.is_empty());
    }
}

#[test]
fn a_node_that_was_silent_while_nothing_arrived_is_tried_again() {
    let mut rig = Rig::with_witnesses();
    let fails = |rig: &mut Rig, target: Target, ago: u64| {
        let dialled_at = rig.now - secs(ago);
        rig.end(dialled(target, Outcome::ConnectTimeout, None, dialled_at));
    };
    let node = |number| Target::node(address(number), true).up();
    // Something arrived eight seconds ago, and now.
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
fn the_last_results_of_a_pass_are_judged_where_they_matter() {
    // A few candidates: not worth a probe.
    let mut rig = Rig::with_witnesses();
    rig.is_silent(Target::candidate(address(50)));
    rig.uplink.question(rig.now, &mut rig.rng);
    rig.drain();
    assert_eq!((rig.accepted.len(), rig.reference_probes().len()), (1, 0));
    // A handful of nodes that were up until now: neither waited for nor tried again.
    rig.silence(MAX_UNDOUBTED as u32);
    rig.uplink.question(rig.now, &mut rig.rng);
    rig.drain();
    assert_eq!((rig.accepted.len(), rig.reference_probes().len()), (1 + MAX_UNDOUBTED, 0));
    assert!(rig.put_back.is_empty() && !rig.uplink.is_holding());
    // One more.
    rig.accepted.clear();
    rig.silence(MAX_UNDOUBTED as u32 + 1);
    rig.uplink.question(rig.now, &mut rig.rng);
    rig.drain();
    assert_eq!(rig.accepted.len(), 0);
    let references = rig.reference_probes();
    assert_eq!(references.len(), MAX_REFERENCES);
    rig.now += secs(1);
    rig.responds(Target::reference(references[5]));
    assert_eq!(rig.accepted.len(), MAX_UNDOUBTED + 1);
}

#[test]
fn without_reference_nodes_silence_is_accepted() {
    let mut rig = Rig::new();
    for number in 0..MIN_ALARM_THRESHOLD as u32 {
        rig.is_silent(Target::node(address(number), true));
    }
    assert_eq!(rig.accepted.len(), MIN_ALARM_THRESHOLD);
}

#[test]
fn reference_nodes_are_those_of_the_last_hour_then_older_ones() {
    let mut rig = Rig::with_witnesses();
    let fresh = [31, 32, 33].map(address);
    rig.now += secs(3_700);
    for address in fresh {
        rig.responds(Target::node(address, false).up());
    }
    rig.accepted.clear();
    rig.now += secs(4);
    rig.silence(MIN_ALARM_THRESHOLD as u32);
    let references = rig.reference_probes();
    assert_eq!((rig.accepted.len(), references.len()), (0, MAX_REFERENCES));
    assert!(fresh.iter().all(|address| references.contains(address)), "those of the hour first");
}

#[test]
fn a_stray_answer_after_a_long_outage_leaves_reference_nodes() {
    let mut rig = Rig::with_witnesses();
    rig.silence(MIN_ALARM_THRESHOLD as u32);
    for reference in rig.reference_probes() {
        rig.is_silent(Target::reference(reference));
    }
    assert!(rig.uplink.is_down());
    rig.now += secs(28_800);
    rig.end(result(Target::candidate(address(51)), Outcome::Refused, Some(rig.now)));
    assert!(!rig.uplink.is_down());
    rig.accepted.clear();
    rig.now += secs(20);
    rig.silence(MIN_ALARM_THRESHOLD as u32);
    let references = rig.reference_probes();
    assert_eq!(references.len(), MAX_REFERENCES);
    for reference in references {
        rig.is_silent(Target::reference(reference));
    }
    assert!(rig.uplink.is_down() && rig.accepted.is_empty());
}

#[test]
fn after_a_restart_a_single_answer_leaves_reference_nodes() {
    let mut rig = Rig::new();
    for number in 0..50 {
        rig.uplink.offer(Target::node(address(number), false).up(), &mut rig.rng);
    }
    rig.end(result(Target::candidate(address(51)), Outcome::Refused, Some(rig.now)));
    rig.accepted.clear();
    rig.now += secs(20);
    rig.silence(MIN_ALARM_THRESHOLD as u32);
    assert_eq!((rig.accepted.len(), rig.reference_probes().len()), (0, MAX_REFERENCES));
}

#[test]
fn a_node_probed_a_moment_ago_rests_while_others_are_known() {
    let mut rig = Rig::with_witnesses();
    for number in 20..30 {
        rig.responds(Target::node(address(number), false).up());
    }
    let again = |rig: &mut Rig, wait: u64, alarm: usize| {
        rig.now += secs(wait);
        rig.silence(alarm as u32);
        let references = rig.reference_probes();
        rig.now += secs(1);
        rig.responds(Target::reference(references[0]));
        references
    };
    let asked = [(5, 1), (5, 2), (5, 4)]
        .map(|(wait, times)| again(&mut rig, wait, times * MIN_ALARM_THRESHOLD));
    assert_eq!(
        asked.each_ref().map(Vec::len),
        [MAX_REFERENCES, MAX_REFERENCES, 4],
        "twenty are known"
    );
    let all: BTreeSet<Address> = asked.into_iter().flatten().collect();
    assert_eq!(all.len(), 20, "each once");
    assert_eq!(
        again(&mut rig, 5, 8 * MIN_ALARM_THRESHOLD).len(),
        MAX_REFERENCES,
        "no others are known"
    );
    // Eight of the hour, and ten that may be long gone: those rest too.
    let mut rig = Rig::with_witnesses();
    rig.now += secs(3_700);
    let fresh: Vec<Address> = (30..38).map(address).collect();
    fresh.iter().for_each(|address| rig.responds(Target::node(*address, false).up()));
    let asked = again(&mut rig, 5, MIN_ALARM_THRESHOLD);
    assert!(fresh.iter().all(|address| asked.contains(address)), "{asked:?}");
    let asked = again(&mut rig, 5, 2 * MIN_ALARM_THRESHOLD);
    assert!(!fresh.iter().any(|address| asked.contains(address)), "{asked:?}");
}

#[test]
fn after_a_restart_nodes_that_are_up_by_the_database_are_probed() {
    let mut rig = Rig::new();
    for number in 0..500 {
        let target = Target::node(address(number), false);
        rig.uplink.offer(if number < 400 { target.up() } else { target }, &mut rig.rng);
    }
    rig.silence(MIN_ALARM_THRESHOLD as u32);
    let references = rig.reference_probes();
    assert_eq!(references.len(), MAX_REFERENCES);
    assert!(
        references.iter().all(|reference| (0..400).any(|number| *reference == address(number)))
    );
    for reference in references {
        rig.is_silent(Target::reference(reference));
    }
    assert!(rig.uplink.is_down() && rig.accepted.is_empty());
}

#[test]
fn late_reference_probes_do_not_count_for_the_next_alarm() {
    let mut rig = Rig::with_witnesses();
    rig.silence(MIN_ALARM_THRESHOLD as u32);
    let former = rig.reference_probes();
    rig.now += secs(1);
    rig.responds(Target::reference(former[0]));
    rig.now += secs(4);
    rig.silence(2 * MIN_ALARM_THRESHOLD as u32);
    let (first, rest) = (rig.uplink.poll_reference().unwrap(), rig.reference_probes());
    assert_eq!(rest.len(), MAX_REFERENCES - 1);
    for reference in &former[1..] {
        if *reference != first && !rest.contains(reference) {
            rig.is_silent(Target::reference(*reference));
        }
    }
    for reference in rest {
        rig.is_silent(Target::reference(reference));
    }
    assert!(!rig.uplink.is_down(), "one has not ended");
    rig.is_silent(Target::reference(first));
    assert!(rig.uplink.is_down());
}

/// Grants `count` targets to which the kernel has no route.
fn without_route(rig: &mut Rig, count: usize) {
    for number in 0..count {
        let target = Target::candidate(address(20_000 + number as u32));
        rig.uplink.handle_unroutable(target, rig.now, &mut rig.rng);
    }
    rig.drain();
}

#[test]
fn without_a_route_to_a_reference_node_the_uplink_is_down() {
    let mut rig = Rig::with_witnesses();
    without_route(&mut rig, UNROUTABLE_THRESHOLD - 1);
    rig.uplink.handle_routable();
    assert_eq!(rig.uplink.take_skipped(), UNROUTABLE_THRESHOLD as u64 - 1);
    without_route(&mut rig, UNROUTABLE_THRESHOLD);
    let references = rig.reference_probes();
    assert_eq!((references.len(), rig.uplink.is_holding()), (MAX_REFERENCES, true));
    // What older connections deliver may have waited in a buffer.
    rig.now += secs(1);
    let dialled_at = rig.now - secs(2);
    let node = Target::node(address(3), false);
    rig.end(dialled(node, Outcome::Responded, Some(rig.now), dialled_at));
    for reference in references {
        assert!(!rig.uplink.is_down());
        rig.uplink.handle_unroutable(Target::reference(reference), rig.now, &mut rig.rng);
    }
    without_route(&mut rig, 3);
    assert_eq!(rig.events, [UplinkEvent::Unroutable]);
    assert_eq!(rig.put_back.len(), UNROUTABLE_THRESHOLD + 3, "no target is skipped");
    assert!((0..2).filter_map(|_| rig.uplink.poll_trickle()).count() == 1);
    rig.end(dialled(node, Outcome::Responded, Some(rig.now + secs(1)), dialled_at));
    assert!(rig.uplink.is_down(), "nor do they end it");
    rig.now += secs(1);
    rig.responds(node);
    assert!(!rig.uplink.is_down());
    assert_eq!(rig.uplink.take_skipped(), 0);
}

#[test]
fn targets_without_a_route_are_skipped_while_a_reference_node_answers() {
    let mut rig = Rig::with_witnesses();
    let mut asked = BTreeSet::new();
    for second in 0..120 {
        rig.now += secs(1);
        without_route(&mut rig, 100);
        for reference in rig.reference_probes() {
            rig.uplink.handle_routable();
            assert!(asked.insert((second / 60, reference)), "greeted twice within a minute");
            rig.responds(Target::reference(reference));
        }
    }
    assert_eq!(rig.uplink.take_skipped(), 12_000);
    assert!(rig.events.is_empty() && rig.put_back.is_empty() && !rig.uplink.is_holding());
    assert!(asked.len() <= 2 * MAX_REFERENCES, "{}", asked.len());
    // Other nodes answer meanwhile, and all reference nodes rest: nothing goes down either.
    let mut rig = Rig::with_witnesses();
    for number in 0..10 {
        rig.uplink.chosen.push((rig.now, address(number)));
    }
    without_route(&mut rig, 1_000);
    assert_eq!((rig.uplink.take_skipped(), rig.reference_probes().len()), (1_000, 0));
}

/// Ends probes of nodes that were up with this outcome, which came from them or a router.
fn refuse(rig: &mut Rig, count: u32, outcome: Outcome) {
    for number in 0..count {
        rig.now += Duration::from_millis(1);
        rig.end(result(Target::node(address(1_000 + number), true).up(), outcome, Some(rig.now)));
    }
}

#[test]
fn where_all_reference_nodes_refuse_the_uplink_is_down() {
    // A kill switch, and a portal that accepts and closes.
    for outcome in [Outcome::Refused, Outcome::Closed, Outcome::NotBitcoin] {
        let mut rig = Rig::with_witnesses();
        refuse(&mut rig, 20, outcome);
        assert!(rig.accepted.is_empty() && rig.uplink.is_holding(), "no version is newer");
        rig.end(result(Target::candidate(address(50)), outcome, Some(rig.now)));
        assert_eq!(rig.accepted.drain(..).count(), 1, "a candidate is not worth a doubt");
        rig.uplink.question(rig.now, &mut rig.rng);
        let references = rig.reference_probes();
        assert_eq!(references.len(), MAX_REFERENCES);
        for (number, reference) in references.into_iter().enumerate() {
            assert!(!rig.uplink.is_down());
            rig.now += secs(1);
            match number {
                3 => rig.is_silent(Target::reference(reference)),
                _ => rig.end(result(Target::reference(reference), outcome, Some(rig.now))),
            }
        }
        assert_eq!(rig.events, [UplinkEvent::Refusing { references: MAX_REFERENCES }]);
        assert_eq!((rig.put_back.drain(..).count(), rig.accepted.len()), (20, 0));
        // More of it does not bring the uplink up, and is no result.
        refuse(&mut rig, 5, outcome);
        rig.end(result(Target::candidate(address(50)), outcome, Some(rig.now)));
        assert_eq!((rig.put_back.len(), rig.accepted.len()), (6, 0));
        rig.now += secs(60);
        rig.responds(Target::node(address(3), true));
        assert!(!rig.uplink.is_down());
    }
}

#[test]
fn a_run_of_refusals_raises_suspicion_in_the_middle_of_a_pass() {
    let mut rig = Rig::with_witnesses();
    refuse(&mut rig, (MIN_ALARM_THRESHOLD / REFUSALS_DIVISOR) as u32, Outcome::Refused);
    let references = rig.reference_probes();
    assert_eq!(references.len(), MAX_REFERENCES);
    // They are down in truth: one `version` is enough.
    rig.now += secs(1);
    rig.end(result(Target::reference(references[0]), Outcome::Refused, Some(rig.now)));
    rig.now += secs(1);
    rig.responds(Target::reference(references[1]));
    assert_eq!(rig.accepted.len(), MIN_ALARM_THRESHOLD / REFUSALS_DIVISOR);
    assert!(rig.events.is_empty() && rig.put_back.is_empty());
    // Refusals among answers raise none.
    for _ in 0..20 {
        refuse(&mut rig, 10, Outcome::Refused);
        rig.now += Duration::from_millis(1);
        rig.responds(Target::node(address(3), true));
    }
    assert!(rig.reference_probes().is_empty() && !rig.uplink.is_holding());
}

#[test]
fn a_refusing_reference_node_is_no_sign_of_a_living_uplink() {
    let mut rig = Rig::with_witnesses();
    rig.silence(MIN_ALARM_THRESHOLD as u32);
    for reference in rig.reference_probes() {
        rig.now += secs(1);
        rig.end(result(Target::reference(reference), Outcome::Refused, Some(rig.now)));
    }
    assert_eq!(rig.events, [UplinkEvent::Refusing { references: MAX_REFERENCES }]);
    assert_eq!((rig.put_back.len(), rig.accepted.len()), (MIN_ALARM_THRESHOLD, 0));
}

#[test]
fn reference_nodes_are_those_that_sent_a_version_last() {
    let mut rig = Rig::with_witnesses();
    for number in 20..50 {
        rig.now += secs(1);
        rig.responds(Target::node(address(number), false).up());
    }
    // Two of the newest closed and refused since.
    for (number, outcome) in [(48, Outcome::Closed), (46, Outcome::Refused)] {
        let target = Target::node(address(number), false).up();
        rig.end(result(target, outcome, Some(rig.now)));
    }
    rig.now += secs(4);
    rig.silence(MIN_ALARM_THRESHOLD as u32);
    let newest = [49, 47, 45, 44, 43, 42, 41, 40].map(address);
    let references = rig.reference_probes();
    assert_eq!(references, newest);
    rig.now += secs(1);
    rig.end(result(Target::reference(newest[0]), Outcome::Closed, Some(rig.now)));
    rig.responds(Target::reference(newest[1]));
    // Within the minute others are asked; after it, not the one that closed.
    rig.now += secs(10);
    rig.silence(2 * MIN_ALARM_THRESHOLD as u32);
    let references = rig.reference_probes();
    assert!(!references.iter().any(|reference| newest.contains(reference)));
    rig.now += secs(1);
    rig.responds(Target::reference(references[0]));
    rig.now += secs(61);
    rig.silence(4 * MIN_ALARM_THRESHOLD as u32);
    let references = rig.reference_probes();
    assert_eq!(references[..7], newest[1..]);
}

#[test]
fn a_node_that_has_just_been_silent_is_no_reference_node() {
    let mut rig = Rig::with_witnesses();
    for number in 20..30 {
        rig.responds(Target::node(address(number), false).up());
    }
    rig.now += secs(4);
    for number in 25..30 {
        rig.is_silent(Target::node(address(number), false).up());
    }
    rig.silence(MIN_ALARM_THRESHOLD as u32);
    assert_eq!(rig.reference_probes(), [24, 23, 22, 21, 20, 9, 8, 7].map(address));
}

#[test]
fn a_stop_keeps_results_that_are_not_doubtful() {
    let mut rig = Rig::with_witnesses();
    rig.silence(5);
    rig.uplink.handle_stop();
    rig.drain();
    assert_eq!(rig.accepted.len(), 5);
    let mut rig = Rig::with_witnesses();
    rig.silence(MIN_ALARM_THRESHOLD as u32);
    rig.uplink.handle_stop();
    rig.drain();
    assert!(rig.accepted.is_empty() && !rig.uplink.is_holding());
}

#[test]
fn probes_that_time_out_together_are_no_run() {
    let mut rig = Rig::with_witnesses();
    rig.responds(Target::node(address(3), false).up());
    rig.silence(4 * MIN_ALARM_THRESHOLD as u32);
    assert!(rig.reference_probes().is_empty(), "something arrived a moment ago");
    rig.now += secs(4);
    rig.silence(1);
    assert_eq!(rig.reference_probes().len(), MAX_REFERENCES);
}
