//! Rules of the address book: due times, `getaddr`, quotas, confirmation, expiry, eviction.

use std::collections::BTreeSet;
use std::net::Ipv4Addr;

use super::*;

pub(super) const START: UnixTime = UnixTime::from_secs(1_800_000_000);
pub(super) const HOUR: Duration = Duration::from_secs(3_600);
pub(super) const DAY: Duration = Duration::from_secs(86_400);

fn params(max_addresses: usize) -> BookParams {
    let backoff = BackoffParams {
        base: HOUR,
        factor: 2.0,
        max: 14 * DAY,
        node_base: Duration::from_secs(600),
        node_max: HOUR,
        lost_max: DAY,
    };
    let ranking = RankingParams::default();
    BookParams { backoff, getaddr_interval: DAY, max_addresses, ranking }
}

pub(super) fn book() -> AddressBook {
    AddressBook::new(params(1_000_000), 5)
}

fn filter() -> Filter {
    Filter::new(&[], &["0.0.0.0/0".parse().unwrap()])
}

pub(super) fn address(number: u32) -> Address {
    Address::new(Ipv4Addr::from(0x0500_0000 + number * 17), 8333)
}

fn node_source(group: u16) -> Source {
    Source::Node { group, is_stale: false, seen: START.as_secs() as u32 }
}

pub(super) fn facts(address: Address, outcome: Outcome, probed_at: UnixTime) -> ResultFacts {
    ResultFacts {
        address,
        outcome,
        probed_at,
        peers_sent: None,
        is_trb: false,
        caches_no_reply: false,
        composed_at: None,
    }
}

pub(super) fn all_due(book: &mut AddressBook, now: UnixTime) -> BTreeSet<Address> {
    let (mut due, mut found) = (Vec::new(), BTreeSet::new());
    loop {
        let is_last = book.poll_due(&filter(), now, &mut due);
        for target in due.drain(..) {
            assert!(found.insert(target.address()), "handed out twice");
        }
        if is_last {
            return found;
        }
    }
}

fn over_quota(book: &mut AddressBook) -> Vec<Target> {
    let mut due = Vec::new();
    while book.deferred() > 0 {
        book.poll_over_quota(&filter(), &mut due);
    }
    due
}

/// A book with `count` nodes that responded at `START`, each in its own /16.
pub(super) fn with_nodes(count: u32) -> AddressBook {
    let mut book = book();
    book.start_pass(START);
    for number in 0..count {
        let address = Address::new(Ipv4Addr::from(0x6400_0000 + (number << 16)), 8333);
        book.hear(address, Source::NodesFile, START);
        book.record(&facts(address, Outcome::Responded, START), 0.5);
    }
    book
}

#[test]
fn failed_candidates_are_due_after_their_back_off() {
    let mut book = book();
    book.start_pass(START);
    book.hear(address(1), Source::NodesFile, START);
    let mut now = START;
    for (failures, hours) in [(1, 1), (2, 2), (3, 4), (4, 8)] {
        let recorded = book.record(&facts(address(1), Outcome::Refused, now), 0.5);
        assert_eq!((recorded.failures, recorded.is_node), (failures, false));
        assert_eq!(recorded.next_probe, now.plus(hours * HOUR));
        book.start_pass(recorded.next_probe.minus(Duration::from_secs(1)));
        assert!(all_due(&mut book, now).is_empty());
        now = recorded.next_probe;
        book.start_pass(now);
        assert_eq!(all_due(&mut book, now).len(), 1);
    }
    for jitter in [0.0, 0.37, 1.0] {
        let recorded = book.record(&facts(address(1), Outcome::Refused, now), jitter);
        let wait = recorded.next_probe.since(now).as_secs_f64();
        let wanted = HOUR.as_secs_f64() * f64::from(1_u32 << (recorded.failures - 1));
        assert!((0.75..=1.25).contains(&(wait / wanted)), "{wait} for {wanted}");
    }
}

#[test]
fn silent_nodes_are_retried_hourly_and_daily_after_a_week() {
    let mut book = with_nodes(1);
    let node = *book.nodes.keys().next().unwrap();
    let mut now = START;
    let mut waits = Vec::new();
    for _ in 0..40 {
        let recorded = book.record(&facts(node, Outcome::ConnectTimeout, now), 0.5);
        assert!(recorded.is_node && !recorded.is_new_node);
        waits.push(recorded.next_probe.since(now).as_secs() / 60);
        now = if waits.len() == 6 { START.plus(8 * DAY) } else { recorded.next_probe };
    }
    assert_eq!(waits[..6], [10, 20, 40, 60, 60, 60]);
    assert!(waits[8..].iter().all(|minutes| *minutes == 24 * 60), "{waits:?}");
    let recorded = book.record(&facts(node, Outcome::Responded, now), 0.5);
    assert_eq!((recorded.failures, recorded.status), (0, Status::Up));
    assert_eq!(recorded.next_probe, now.plus(Duration::from_secs(60)));
}

#[test]
fn a_node_that_closes_the_connection_is_full_for_a_week() {
    let mut book = with_nodes(1);
    let node = *book.nodes.keys().next().unwrap();
    let mut status =
        |outcome, days| book.record(&facts(node, outcome, START.plus(days * DAY)), 0.5).status;
    assert_eq!(status(Outcome::Closed, 6), Status::Full);
    assert_eq!(status(Outcome::Refused, 6), Status::Down);
    assert_eq!(status(Outcome::Closed, 7), Status::Down);
    assert_eq!(status(Outcome::Responded, 8), Status::Up);
    assert_eq!(status(Outcome::Closed, 9), Status::Full);
    assert_eq!(book.up(), 0);
}

#[test]
fn getaddr_is_sent_daily_and_more_often_to_trb_or_after_no_reply() {
    // (TRB, entries sent, hours since `getaddr`, whether it is sent again for any jitter)
    let table = [
        (false, Some(800), 17, false),
        (false, Some(800), 31, true),
        (false, Some(0), 4, false),
        (false, Some(0), 8, true),
        (true, Some(900), 2, false),
        (true, Some(900), 4, true),
    ];
    for (is_trb, peers_sent, hours, expected) in table {
        for number in 0..50 {
            let mut book = book();
            book.start_pass(START);
            book.hear(address(number), Source::NodesFile, START);
            let result = ResultFacts {
                peers_sent,
                is_trb,
                ..facts(address(number), Outcome::Responded, START)
            };
            book.record(&result, 0.5);
            let now = START.plus(hours * HOUR);
            book.start_pass(now);
            let target = book.hand_out(address(number), now).unwrap();
            assert_eq!(target.wants_peers(), expected, "{is_trb} {peers_sent:?} {hours} h");
            // After a clock jumped back, the last `getaddr` lies in the future: send it.
            book.start_pass(START.minus(DAY));
            assert!(book.hand_out(address(number), START.minus(DAY)).unwrap().wants_peers());
        }
    }
    let mut book = book();
    book.set_params(BookParams { getaddr_interval: Duration::ZERO, ..params(10) });
    book.start_pass(START);
    book.hear(address(1), Source::NodesFile, START);
    let result =
        ResultFacts { peers_sent: Some(9), ..facts(address(1), Outcome::Responded, START) };
    book.record(&result, 0.5);
    book.start_pass(START.plus(HOUR / 30));
    assert!(book.hand_out(address(1), START.plus(HOUR / 30)).unwrap().wants_peers());
}

/// The hours after a reply at which a node is asked again, by the hour.
fn asked_again_after(params: BookParams, reply: &ResultFacts) -> u32 {
    let mut book = AddressBook::new(params, 5);
    book.start_pass(START);
    book.hear(reply.address, Source::NodesFile, START);
    book.record(reply, 0.5);
    let is_asked = |hours: &u32| {
        let now = START.plus(*hours * HOUR);
        book.start_pass(now);
        book.hand_out(reply.address, now).unwrap().wants_peers()
    };
    (1..1_000).find(is_asked).unwrap()
}

#[test]
fn a_node_is_asked_when_it_replaces_its_cached_reply() {
    let reply = |age: u32| ResultFacts {
        peers_sent: Some(900),
        composed_at: Some(START.minus(age * HOUR)),
        ..facts(address(1), Outcome::Responded, START)
    };
    let after = |age| asked_again_after(params(10), &reply(age));
    assert_eq!([0, 1, 10, 20].map(after), [24, 23, 14, 4], "half of the nodes do after a day");
    assert_eq!([21, 23].map(after), [3, 3], "an eighth of the interval is the least");
    assert_eq!([24, 25, 26].map(after), [3, 3, 3], "the same reply again: after the longest time");
    let drawn = after(27);
    assert!((18..=30).contains(&drawn), "older than a cache gets: {drawn}");
    assert_eq!([28, 30 * 24].map(after), [drawn; 2], "times that make no sense");
    // Software that composes a new reply each time, and an operator who wants other intervals.
    let fresh = ResultFacts { caches_no_reply: true, ..reply(0) };
    assert!((3..=4).contains(&asked_again_after(params(10), &fresh)));
    let rarely = BookParams { getaddr_interval: 7 * DAY, ..params(10) };
    assert!(asked_again_after(rarely, &reply(10)) >= 126);
    let often = BookParams { getaddr_interval: HOUR, ..params(10) };
    assert!(asked_again_after(often, &reply(10)) <= 2);
}

#[test]
fn a_node_cut_off_while_asked_is_asked_again_at_its_next_probe() {
    let mut book = with_nodes(1);
    let node = *book.nodes.keys().next().unwrap();
    let mut wants_peers_after = |peers_sent, minutes: u64| {
        let now = START.plus(Duration::from_secs(minutes * 60));
        let result = ResultFacts { peers_sent, ..facts(node, Outcome::Responded, now) };
        book.record(&result, 0.5);
        let next = now.plus(Duration::from_secs(60));
        book.start_pass(next);
        book.hand_out(node, next).unwrap().wants_peers()
    };
    assert!(wants_peers_after(None, 0));
    assert!(!wants_peers_after(Some(0), 10), "it sent nothing within the whole wait");
    assert!(!wants_peers_after(None, 20), "not asked at all");
    assert!(wants_peers_after(None, 10 + 8 * 60));
    assert!(wants_peers_after(None, 20 + 8 * 60), "cut off again");
}

#[test]
fn at_most_two_ports_of_other_services_are_heard_of_a_host() {
    let mut book = with_nodes(1);
    let host = |port| Address::new(Ipv4Addr::new(5, 5, 5, 5), port);
    let other = Address::new(Ipv4Addr::new(5, 5, 5, 6), 22);
    let mut is_new = |address, source| book.hear(address, source, START).is_new;
    let heard = [22, 8333, 25, 53, 3306, 8334].map(|port| is_new(host(port), node_source(9)));
    assert_eq!(heard, [true, true, true, false, false, true]);
    assert!(is_new(other, node_source(9)), "the bound is a host's");
    assert!(is_new(host(80), node_source(9)), "no port of the list");
    assert!(is_new(host(110), Source::NodesFile), "the operator vouches for it");
    // Rows of an earlier version.
    let mut book = self::book();
    for port in [22, 25, 53, 8333] {
        let known = Known {
            address: host(port),
            last_heard: START,
            failures: 1,
            last_probed: None,
            last_outcome: None,
            next_probe: START,
            source: 9,
            node: None,
        };
        book.load(&known, true);
    }
    book.start_pass(START);
    let due = all_due(&mut book, START);
    assert_eq!(due, BTreeSet::from([22, 25, 8333].map(host)));
}

#[test]
fn addresses_beyond_a_quota_are_deferred_not_lost() {
    let mut book = with_nodes(150);
    book.start_pass(START.plus(HOUR));
    let now = START.plus(HOUR);
    let heard: Vec<Heard> =
        (0..1_000).map(|n| book.hear(address(n), node_source(9), now)).collect();
    assert!(heard.iter().all(|heard| heard.is_new && heard.wants_row));
    assert_eq!(heard.iter().filter(|heard| heard.waits).count(), 100);
    assert_eq!(book.deferred(), 900);
    let late = over_quota(&mut book);
    assert_eq!(late.len(), 900, "a quota orders, it discards none");
    assert!(late.iter().all(|target| target.tier() == Target::OVER_QUOTA_TIER));

    // Those that were not probed stay for the next pass, where the quota applies too.
    let next = now.plus(HOUR);
    book.start_pass(next);
    all_due(&mut book, next);
    assert_eq!(book.deferred(), 900);
}

#[test]
fn quotas_shrink_with_dead_addresses_and_grow_with_nodes() {
    let mut book = with_nodes(150);
    let mut now = START;
    let mut admit = |book: &mut AddressBook, group: u16, first: u32, outcome| {
        now = now.plus(HOUR);
        book.start_pass(now);
        let mut count = 0;
        for number in first..first + 600 {
            let heard = book.hear(address(number), node_source(group), now);
            if heard.waits {
                count += 1;
                book.record(&facts(address(number), outcome, now), 0.5);
            }
        }
        count
    };
    let liar: Vec<u32> =
        (0..4).map(|n| admit(&mut book, 9, 10_000 + n * 600, Outcome::ConnectTimeout)).collect();
    assert!(liar[0] <= 100 && liar[3] <= 45 && liar.is_sorted_by(|a, b| a >= b), "{liar:?}");
    let honest: Vec<u32> =
        (0..2).map(|n| admit(&mut book, 8, 20_000 + n * 600, Outcome::Responded)).collect();
    assert_eq!(honest, [600, 600], "the quota grows while its addresses answer");
    let rows = book.take_changed_sources();
    assert_eq!(rows[&9].answered, 0);
    assert_eq!(rows[&8].answered, rows[&8].tried);
}

#[test]
fn an_import_adds_addresses_and_changes_none() {
    let mut book = with_nodes(200);
    book.hear(address(1), node_source(7), START);
    let later = START.plus(10 * DAY);
    let touched = book.hear(address(1), Source::Import, later);
    assert_eq!(touched, Heard { is_new: false, wants_row: false, only_source: 7, waits: false });
    let node = Address::new(Ipv4Addr::from(0x6400_0000), 8333);
    assert!(!book.hear(node, Source::Import, later).wants_row);
    let new = book.hear(address(2), Source::Import, later);
    assert_eq!(new, Heard { is_new: true, wants_row: true, only_source: IMPORTS, waits: true });
    // A node that names it confirms it, as after any other source.
    assert_eq!(book.hear(address(2), node_source(7), later).only_source, 0);
}

#[test]
fn a_large_import_is_probed_as_a_thousand_a_pass_and_the_rest_as_spam() {
    let mut book = with_nodes(200);
    assert!((0..3_000).all(|number| book.hear(address(number), Source::Import, START).is_new));
    let first = all_due(&mut book, START);
    assert_eq!((first.len(), over_quota(&mut book).len()), (1_000, 2_000));
    for number in 0..3_000 {
        book.record(&facts(address(number), Outcome::ConnectTimeout, START), 0.5);
    }
    assert!(book.take_changed_sources().is_empty(), "no source pays for dead imported addresses");
    // The next list has the same quota.
    book.start_pass(START.plus(HOUR / 2));
    assert!((3_000..6_000).all(|number| book.hear(address(number), Source::Import, START).is_new));
    assert_eq!(all_due(&mut book, START).len(), 1_000 + 200);
}

#[test]
fn an_address_named_by_unrelated_sources_is_confirmed() {
    let mut book = with_nodes(150);
    book.start_pass(START.plus(HOUR));
    let now = START.plus(HOUR);
    for number in 0..200 {
        book.hear(address(number), node_source(9), now);
    }
    // Number 150 is deferred. Repetition by its own source does not confirm it.
    assert!(!book.hear(address(150), node_source(9), now).waits);
    let heard = book.hear(address(150), node_source(10), now);
    assert!(heard.waits, "confirmed addresses are within every quota");
    assert!(heard.wants_row && heard.only_source == 0);
    assert!(!book.hear(address(150), node_source(11), now).waits, "it waits already");

    // A source that named only dead addresses confirms nothing.
    for number in 1_000..1_200 {
        book.hear(address(number), node_source(12), now);
        book.record(&facts(address(number), Outcome::ConnectTimeout, now), 0.5);
    }
    assert!(!book.hear(address(160), node_source(12), now).waits);
    let later = now.plus(2 * DAY);
    let heard = book.hear(address(160), node_source(12), later);
    assert!(heard.wants_row && heard.only_source == 9, "nor does it replace the source");
}

#[test]
fn dead_addresses_that_others_name_too_count_as_good() {
    let mut book = with_nodes(150);
    book.start_pass(START);
    for number in 0..1_000 {
        book.hear(address(number), node_source(9), START);
        book.record(&facts(address(number), Outcome::ConnectTimeout, START), 0.5);
    }
    assert_eq!(book.sources.quota(9), sources::MIN_QUOTA);
    for number in 0..500 {
        book.hear(address(number), node_source(10), START);
    }
    assert!(book.sources.quota(9) > 400, "{}", book.sources.quota(9));
    // Named by two sources before its probe: still credited to the first.
    for number in 2_000..2_100 {
        book.hear(address(number), node_source(11), START);
        book.hear(address(number), node_source(12), START);
        book.record(&facts(address(number), Outcome::ConnectTimeout, START), 0.5);
    }
    assert!(book.sources.quota(11) > 400);
}

#[test]
fn quotas_are_not_enforced_while_few_nodes_are_known() {
    let mut book = with_nodes(99);
    let count = |book: &mut AddressBook, range: std::ops::Range<u32>| {
        range.filter(|n| book.hear(address(*n), node_source(9), START).waits).count()
    };
    assert_eq!(count(&mut book, 0..1_000), 1_000);
    book.hear(address(5_000), Source::NodesFile, START);
    book.record(&facts(address(5_000), Outcome::Responded, START), 0.5);
    assert_eq!(count(&mut book, 1_000..2_000), 100);
}

#[test]
fn at_most_sixteen_ports_of_a_host_are_stored() {
    let mut book = book();
    book.start_pass(START);
    let ip = Ipv4Addr::new(5, 6, 7, 8);
    let heard = |book: &mut AddressBook, port, source| {
        book.hear(Address::new(ip, port), source, START).is_new
    };
    let new = (1..=100).filter(|port| heard(&mut book, *port, node_source(9))).count();
    assert_eq!(new, 16);
    assert!(heard(&mut book, 8333, Source::NodesFile), "the nodes file is exempt");
}

#[test]
fn stale_addresses_are_deferred() {
    let mut book = with_nodes(150);
    let source = Source::Node { group: 9, is_stale: true, seen: 0 };
    let heard = book.hear(address(1), source, START);
    assert!(heard.is_new && !heard.waits);
    assert_eq!(over_quota(&mut book).len(), 1);
}

#[test]
fn unnamed_candidates_and_silent_nodes_expire() {
    let mut book = with_nodes(2);
    let silent = *book.nodes.keys().next().unwrap();
    book.hear(address(1), node_source(9), START);
    book.hear(address(2), node_source(9), START);
    assert_eq!((book.len(), book.nodes()), (4, 2));
    let later = START.plus(32 * DAY);
    assert!(book.hear(address(2), node_source(9), later).wants_row);
    book.start_pass(START.plus(33 * DAY));
    assert!(book.table.get(address(1)).is_none(), "not named for 30 days");
    assert!(book.table.get(address(2)).is_some(), "named a day ago");
    assert_eq!(book.nodes(), 2);
    let alive = *book.nodes.keys().last().unwrap();
    book.record(&facts(alive, Outcome::Responded, START.plus(182 * DAY)), 0.5);
    book.start_pass(START.plus(183 * DAY));
    assert_eq!(book.nodes.keys().copied().collect::<Vec<_>>(), [alive]);
    assert!(book.table.get(silent).is_none());
}

#[test]
fn a_clock_that_ran_ahead_does_not_empty_the_book() {
    let mut book = with_nodes(2);
    book.hear(address(1), node_source(9), START);
    let wrong = START.plus(400 * DAY);
    book.start_pass(wrong);
    assert_eq!((book.len(), book.nodes(), book.up()), (3, 2, 2), "nothing expires");
    for address in all_due(&mut book, wrong) {
        book.record(&facts(address, Outcome::ConnectTimeout, wrong), 0.5);
    }
    let right = START.plus(HOUR);
    book.start_pass(right);
    assert_eq!(all_due(&mut book, right).len(), 3, "the back-off of the wrong time is void");
    // An adjustment by seconds changes nothing.
    let mut book = with_nodes(1);
    book.hear(address(1), node_source(9), START);
    book.record(&facts(address(1), Outcome::Refused, START.plus(Duration::from_secs(20))), 0.5);
    book.start_pass(START);
    assert!(!all_due(&mut book, START).contains(&address(1)));
}

#[test]
fn a_full_book_evicts_the_worst_candidates_and_no_node() {
    let mut book = with_nodes(150);
    let now = START.plus(HOUR);
    book.start_pass(now);
    // 300 candidates that failed once, 300 that failed ten times, 300 inventions of a liar.
    for number in 0..600 {
        book.hear(address(number), Source::NodesFile, now);
        let failures = if number < 300 { 1 } else { 10 };
        for _ in 0..failures {
            book.record(&facts(address(number), Outcome::Refused, now), 0.5);
        }
    }
    for number in 9_000..9_100 {
        book.hear(address(number), node_source(9), now);
        book.record(&facts(address(number), Outcome::ConnectTimeout, now), 0.5);
    }
    for number in 10_000..10_300 {
        book.hear(address(number), node_source(9), now);
    }
    let later = now.plus(HOUR);
    book.start_pass(later);
    let all = book.len();
    let left = |book: &AddressBook, range: std::ops::Range<u32>| {
        range.filter(|n| book.table.get(address(*n)).is_some()).count()
    };
    assert!(book.evict(later).is_empty(), "there is room");
    book.set_params(params(all - 200));
    let gone = book.evict(later);
    assert!((190..=260).contains(&gone.len()), "{}", gone.len());
    assert_eq!(left(&book, 10_000..10_300), 300 - gone.len(), "the inventions are evicted first");
    assert_eq!(left(&book, 0..600), 600);
    book.set_params(params(500));
    book.evict(later);
    assert!(book.len() <= 500);
    assert_eq!(left(&book, 10_000..10_300), 0);
    assert!(left(&book, 300..600) < left(&book, 0..300), "many failures are worse than few");
    book.set_params(params(1));
    book.evict(later);
    assert_eq!((book.len(), book.nodes()), (150, 150), "only nodes are left");
}

#[test]
fn a_pass_that_fills_the_book_rarely_walks_it() {
    let mut book = with_nodes(1);
    book.set_params(params(1_000));
    book.start_pass(START);
    for number in 0..5_000 {
        book.hear(address(number), Source::NodesFile, START);
        all_due(&mut book, START);
        assert!(book.evict(START).is_empty(), "addresses of this pass stay");
    }
    assert!((1..=250).contains(&book.evictions), "{} walks", book.evictions);
    book.start_pass(START.plus(DAY));
    assert!(book.evict(START.plus(DAY)).len() >= 4_000, "the next pass has room again");
}

#[test]
fn eviction_keeps_working_among_equally_bad_candidates() {
    let mut book = with_nodes(150);
    book.set_params(params(5_000));
    let mut evictions = 0;
    for round in 1..40_u32 {
        let now = START.plus(HOUR * round);
        book.start_pass(now);
        for number in 0..1_000 {
            book.hear(address(round * 1_000 + number), node_source(9), now);
            evictions += usize::from(!book.evict(now).is_empty());
            assert!(book.len() <= 5_000 + 100, "{} in round {round}", book.len());
        }
    }
    assert!((100..1_000).contains(&evictions), "{evictions} walks for 35,000 addresses");
    assert_eq!(book.nodes(), 150);
}

#[test]
fn retries_of_a_poor_source_count_against_its_quota() {
    let mut book = with_nodes(150);
    book.start_pass(START);
    for number in 0..1_000 {
        book.hear(address(number), node_source(9), START);
        book.record(&facts(address(number), Outcome::ConnectTimeout, START), 0.5);
    }
    let later = START.plus(2 * HOUR);
    book.start_pass(later);
    let due = all_due(&mut book, later);
    let retried = due.len() - 150;
    assert_eq!(retried, 10, "of a thousand that are due");
    assert_eq!(over_quota(&mut book).len(), 990, "the others come last");
}

#[test]
fn loaded_addresses_keep_their_state() {
    let mut book = book();
    let known = |number, next_probe, node| Known {
        address: address(number),
        last_heard: START,
        failures: 3,
        last_probed: Some(START),
        last_outcome: Some(Outcome::Closed),
        next_probe,
        source: 9,
        node,
    };
    let node = KnownNode {
        last_seen: START,
        peers_asked_at: Some(START),
        peers_sent: Some(5),
        is_trb: false,
    };
    book.load(&known(1, START.plus(HOUR), None), true);
    book.load(&known(2, START, Some(node)), true);
    book.load(
        &Known { last_outcome: Some(Outcome::Responded), ..known(3, START, Some(node)) },
        true,
    );
    assert_eq!((book.len(), book.nodes(), book.up()), (3, 2, 1));
    book.start_pass(START);
    assert_eq!(all_due(&mut book, START), BTreeSet::from([address(2), address(3)]));
    let recorded = book.record(&facts(address(1), Outcome::Refused, START), 0.5);
    assert_eq!(recorded.failures, 4);
    let recorded = book.record(&facts(address(2), Outcome::Refused, START), 0.5);
    assert_eq!((recorded.failures, recorded.is_node), (4, true));
}

#[test]
fn an_unprobed_address_is_due_even_if_its_time_lies_ahead() {
    let mut book = book();
    let decade = Duration::from_secs(10 * 365 * 86_400);
    let known = Known {
        address: address(1),
        last_heard: START.plus(decade),
        failures: 0,
        last_probed: None,
        last_outcome: None,
        next_probe: START.plus(decade),
        source: 9,
        node: None,
    };
    book.load(&known, true);
    book.start_pass(START);
    assert_eq!(book.count_due(&filter()), 1);
    assert_eq!(all_due(&mut book, START), BTreeSet::from([address(1)]));
    // Its back-off applies.
    book.record(&facts(address(1), Outcome::ConnectTimeout, START), 0.5);
    book.start_pass(START.plus(HOUR / 2));
    assert_eq!(all_due(&mut book, START.plus(HOUR / 2)), BTreeSet::new());
}

#[test]
fn a_late_response_after_a_reset_counts_the_node_once() {
    let mut book = book();
    book.record(&facts(address(1), Outcome::Responded, START), 0.5);
    assert_eq!((book.len(), book.nodes(), book.up()), (1, 1, 1));
    book.start_pass(START.plus(HOUR));
    book.hear(address(1), Source::NodesFile, START.plus(HOUR));
    book.record(&facts(address(1), Outcome::Responded, START.plus(HOUR)), 0.5);
    assert_eq!((book.len(), book.nodes(), book.up()), (1, 1, 1));
}

fn source(group: u16, seen: UnixTime) -> Source {
    Source::Node { group, is_stale: false, seen: seen.as_secs() as u32 }
}

/// Names `numbers` from `groups` sources.
fn named_by(book: &mut AddressBook, numbers: std::ops::Range<u32>, groups: u16, seen: UnixTime) {
    for number in numbers {
        for group in 0..groups {
            book.hear(address(number), source(100 + group, seen), START);
        }
    }
}

/// The numbers of the next `count` candidates that are handed out.
fn next_numbers(book: &mut AddressBook, count: usize) -> Vec<u32> {
    let mut numbers = Vec::new();
    let mut is_last = false;
    let now = UnixTime::from_secs(i64::from(book.pass_started));
    while numbers.len() < count && !is_last {
        let mut due = Vec::new();
        is_last = book.poll_due(&filter(), now, &mut due);
        let number = |target: &Target| (target.address().to_bits() >> 16) as u32;
        let candidates = due.iter().filter(|target| !target.is_node());
        numbers.extend(candidates.map(|t| (number(t) - 0x0500_0000) / 17));
    }
    numbers
}

#[test]
fn candidates_that_many_name_are_handed_out_first() {
    let mut book = with_nodes(150);
    book.start_pass(START);
    let long_ago = START.minus(5 * DAY);
    named_by(&mut book, 0..400, 1, START);
    named_by(&mut book, 400..500, 12, START);
    named_by(&mut book, 500..600, 12, long_ago);
    let first = next_numbers(&mut book, 128);
    let lately = first.iter().filter(|number| (400..500).contains(*number)).count();
    assert!(lately > 80, "{lately} of the first 128");
    let all = [first, next_numbers(&mut book, 128)].concat();
    let many = all.iter().filter(|number| **number >= 400).count();
    assert!(many > 180, "{many} of the first 256");
}

#[test]
fn what_responds_is_learned_and_unlearned() {
    let mut book = with_nodes(150);
    // At first those named by many are dead and those named by two respond.
    for (round, few_respond) in [(0, true), (1, true), (2, false), (3, false)] {
        book.start_pass(START.plus(2 * DAY * round));
        let first = 10_000 * (round + 1);
        named_by(&mut book, first..first + 1_500, 2, START);
        named_by(&mut book, first + 2_000..first + 3_500, 12, START);
        let numbers = next_numbers(&mut book, 4_000);
        let is_few = |number: &&u32| (first..first + 1_500).contains(*number);
        let early = numbers[..1_000].iter().filter(is_few).count();
        if round % 2 == 1 {
            assert_eq!(early > 500, few_respond, "{early} of 1,000 in round {round}");
        }
        for number in numbers {
            let responds = is_few(&&number) == few_respond;
            let outcome = if responds { Outcome::Responded } else { Outcome::ConnectTimeout };
            book.record(&facts(address(number), outcome, START), 0.5);
        }
    }
}

#[test]
fn no_candidate_starves_behind_better_ones() {
    let mut book = with_nodes(150);
    book.start_pass(START);
    named_by(&mut book, 0..50, 1, START.minus(20 * DAY));
    let mut met = BTreeSet::new();
    // Better ones keep coming faster than they are handed out.
    for round in 0..200 {
        let first = 1_000 + round * 100;
        named_by(&mut book, first..first + 100, 12, START);
        met.extend(next_numbers(&mut book, 64));
    }
    let poor = met.iter().filter(|number| **number < 50).count();
    assert!(poor > 5, "{poor} of 50 among 12,800");
    let rest = next_numbers(&mut book, usize::MAX);
    assert_eq!(met.len() + rest.len(), 20_050, "each once, none is left");
    assert_eq!(book.waits().candidates, 0);
}

#[test]
fn poor_candidates_are_carried_over_and_none_starves() {
    const CANDIDATES: u32 = 30_000;
    let pass = HOUR / 2;
    let mut book = with_nodes(150);
    // Per candidate: the end of its last probe, and when it was due again.
    let mut last = vec![(START, START); CANDIDATES as usize];
    let mut is_probed = vec![false; CANDIDATES as usize];
    let mut carried = 0;
    for round in 0..96 {
        let now = START.plus(pass * round);
        book.start_pass(now);
        if round == 0 {
            (0..CANDIDATES).for_each(|number| {
                book.hear(address(number), Source::NodesFile, now);
            });
        }
        let due = last.iter().filter(|(_, next)| *next <= now).count();
        let mut handed_out = 0;
        loop {
            let numbers = next_numbers(&mut book, 500);
            if numbers.is_empty() {
                break;
            }
            handed_out += numbers.len();
            for number in numbers {
                let failed = facts(address(number), Outcome::ConnectTimeout, now);
                let next_probe = book.record(&failed, 0.5).next_probe;
                assert!(last[number as usize].1 <= now, "{number} is not due");
                last[number as usize] = (now, next_probe);
                is_probed[number as usize] = true;
            }
        }
        carried += due - handed_out;
        let late = last.iter().zip(&is_probed).filter(|((probed_at, next), is_probed)| {
            let may_wait = if **is_probed { next.since(*probed_at) } else { DAY / 2 };
            now > next.plus(may_wait + pass)
        });
        assert_eq!(late.count(), 0, "candidates that starve in pass {round}");
    }
    assert!(carried > CANDIDATES as usize, "{carried} were carried over");
    assert!(is_probed.iter().all(|is_probed| *is_probed));
}

#[test]
fn a_candidate_that_was_carried_over_returns_when_it_is_named_again() {
    let mut book = with_nodes(150);
    for round in 0..2 {
        book.start_pass(START);
        named_by(&mut book, round * 20_000..(round + 1) * 20_000, 2, START.minus(20 * DAY));
        for number in next_numbers(&mut book, 9_000) {
            book.record(&facts(address(number), Outcome::ConnectTimeout, START), 0.5);
        }
    }
    let is_carried =
        |book: &AddressBook, number: &u32| book.table.get(address(*number)).unwrap().is_carried();
    let carried: Vec<u32> = (0..40_000).filter(|number| is_carried(&book, number)).collect();
    assert!(carried.len() > 10_000, "{}", carried.len());
    let numbers = carried[0]..carried[0] + 1;
    named_by(&mut book, numbers.clone(), 12, START);
    let next = next_numbers(&mut book, usize::MAX);
    assert!(next.contains(&numbers.start), "it is likely now");
    assert!(
        !next.iter().any(|number| carried[1..].binary_search(number).is_ok()),
        "the others wait"
    );
    assert!(book.deferred() > 0, "for the deferred ones' share of the pass");
}

#[test]
fn crowded_cells_are_refilled_from_the_table() {
    let mut book = with_nodes(150);
    let numbers = 0..3 * rank::MAX_LISTED as u32;
    for number in numbers.clone() {
        book.hear(address(number), Source::NodesFile, START);
    }
    book.start_pass(START.plus(HOUR));
    assert_eq!(all_due(&mut book, START).len(), 150 + numbers.len());
}

#[test]
fn equal_seeds_hand_out_candidates_in_the_same_order() {
    let order = || {
        let mut book = with_nodes(150);
        book.start_pass(START);
        named_by(&mut book, 0..2_000, 3, START);
        next_numbers(&mut book, 2_000)
    };
    assert_eq!(order(), order());
}

#[test]
fn what_was_learned_survives_a_restart() {
    let mut book = with_nodes(150);
    book.start_pass(START);
    named_by(&mut book, 0..500, 2, START);
    named_by(&mut book, 1_000..1_500, 12, START);
    let started = book.pass_started;
    let cells = [0, 1_000].map(|number| book.table.get(address(number)).unwrap().cell(started));
    for number in next_numbers(&mut book, 1_000) {
        let outcome = if number < 500 { Outcome::Responded } else { Outcome::Refused };
        book.record(&facts(address(number), outcome, START), 0.5);
    }
    let learned = book.ranks().learned();
    let shares = |book: &AddressBook| cells.map(|cell| book.ranks().share(cell));
    let [few, many] = shares(&book);
    assert!(few > 10 * many, "{few} {many}");
    let mut restarted = super::AddressBook::new(params(1_000_000), 6);
    restarted.load_learned(&learned);
    assert_eq!(shares(&restarted), [few, many]);
    // Rows that make no sense change nothing.
    let untaught = shares(&self::book());
    let mut wrong = learned.clone();
    (wrong[0], wrong[1]) = (3, 4);
    let longer = [&learned[..], &[0, 0]].concat();
    let negative: Vec<i32> = learned.iter().map(|count| -1 - count).collect();
    for row in [&wrong, &longer, &negative, &learned[1..].to_vec(), &Vec::new()] {
        let mut restarted = self::book();
        restarted.load_learned(row);
        assert_eq!(shares(&restarted), untaught);
    }
}

#[test]
fn sightings_of_a_failed_candidate_improve_its_rank() {
    let mut book = with_nodes(150);
    book.start_pass(START);
    named_by(&mut book, 0..400, 3, START);
    for number in next_numbers(&mut book, 400) {
        book.record(&facts(address(number), Outcome::ConnectTimeout, START), 0.5);
    }
    let later = START.plus(2 * HOUR);
    book.start_pass(later);
    for number in 0..400 {
        // A tenth is said to have been seen after the probe, the others before it.
        let seen = if number < 40 { START.plus(HOUR) } else { START.minus(HOUR) };
        for group in 0..12 {
            book.hear(address(number), source(200 + group, seen), later);
        }
    }
    let first = next_numbers(&mut book, 64);
    let seen = first.iter().filter(|number| **number < 40).count();
    assert!(seen > 30, "{seen} of 40 among the first 64");
}

#[test]
fn one_source_is_one_voice_however_often_it_speaks() {
    let mut book = with_nodes(150);
    book.start_pass(START);
    for _ in 0..20 {
        book.hear(address(1), source(9, START), START);
    }
    let started = START.as_secs() as u32;
    let cell = book.table.get(address(1)).unwrap().cell(started);
    assert_eq!(cell, rank::fresh_cell(1, 0));
    // Nor do its words count beyond its ration.
    for number in 1_000..1_000 + u32::from(sources::MAX_VOTES) {
        book.hear(address(number), source(8, START), START);
    }
    book.hear(address(1), source(8, START), START);
    let entry = book.table.get(address(1)).unwrap();
    assert_eq!(entry.cell(started), rank::fresh_cell(2, 0), "confirmed, but without a vote");
    assert!(entry.is_confirmed());
}
