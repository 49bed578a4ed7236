//! A network with churn has the size and the behaviour of its parameters.

use super::*;
use crate::node::profile::Profile;

fn small() -> Churn {
    Churn::generate(&ChurnParams { seed: 5, ..ChurnParams::default() }.scaled(0.1))
}

#[test]
fn the_numbers_of_nodes_up_and_ever_alive_match_the_parameters() {
    let churn = small();
    for hour in [0, 7, 30, 71] {
        let up = churn.lives().iter().filter(|life| life.is_up(hour * 3_600)).count();
        assert!((840..960).contains(&up), "{up} up after {hour} h");
    }
    let before = churn.lives().iter().filter(|life| life.born < 0).count();
    assert_eq!(before, 1_900);
    let born = churn.lives().iter().filter(|life| life.born >= 0).count();
    assert!((15..50).contains(&born), "{born} born in three days");
    for life in churn.lives() {
        assert!(life.stretches.is_sorted_by(|a, b| a.1 < b.0), "{life:?}");
        assert!(life.stretches.iter().all(|(from, to)| from < to && *to <= life.gone));
    }
}

#[test]
fn replies_have_the_length_and_live_share_of_real_ones() {
    let churn = Churn::generate(&ChurnParams { seed: 5, ..ChurnParams::default() });
    let (mut live, mut entries, mut full, mut replies) = (0, 0, 0, 0);
    for node in (0..churn.nodes().len()).filter(|at| churn.lives()[*at].is_up(0)).take(300) {
        let reply = churn.reply(node, 3, WALL + 100);
        if churn.nodes()[node].profile != Profile::NewCore || reply.is_empty() {
            continue;
        }
        replies += 1;
        full += usize::from(reply.len() >= 1_000);
        let mapped = |entry: &Entry| std::net::Ipv6Addr::from(entry.ip).to_ipv4_mapped();
        let ipv4 = |entry: &Entry| Some(Address::new(mapped(entry)?, entry.port));
        let addresses: Vec<Address> = reply.iter().filter_map(ipv4).collect();
        entries += addresses.len();
        live += addresses.iter().filter(|address| churn.find(**address).is_some()).count();
        assert!(addresses.iter().all(|address| churn.place(*address).is_some()));
        assert_eq!(reply, churn.reply(node, 3, WALL + 100), "the cache holds");
    }
    assert!(full as f64 > 0.8 * replies as f64, "{full} of {replies} are full");
    let share = f64::from(live as u32) / f64::from(entries as u32);
    assert!((0.12..0.22).contains(&share), "{share} of the entries are nodes");
}

#[test]
fn a_new_node_spreads_within_hours_but_not_at_once() {
    let churn = small();
    let at = churn.lives().iter().position(|life| (1..40_000).contains(&life.born)).unwrap();
    let address = churn.nodes()[at].address;
    let senders = |hours: i64| {
        let wall = (i64::from(WALL) + churn.lives()[at].born + hours * 3_600) as u32;
        let up = (0..churn.nodes().len()).filter(|node| churn.nodes()[*node].sends_peers);
        let sends = |node: usize| {
            let mapped = address.ip().to_ipv6_mapped().octets();
            churn.reply(node, 1, wall).iter().any(|entry| entry.ip == mapped)
        };
        up.filter(|node| sends(*node)).count()
    };
    assert!(senders(0) <= 1);
    let (soon, late) = (senders(8), senders(40));
    assert!(soon > 2 && late > soon * 3 / 2, "{soon} after 8 h, {late} after 40 h");
}

#[test]
fn every_address_of_a_realistic_reply_or_a_lie_is_of_the_network() {
    let attack = Attack { liars: 200, groups: 20, true_share: 0.2, ..Attack::default() };
    let refreshing = Attack { refreshes: true, ..attack.clone() };
    let swarming = Attack { swarms: true, smears: true, ..attack.clone() };
    for attack in [attack, refreshing, swarming] {
        let params = ChurnParams { seed: 5, attack, ..ChurnParams::real() };
        let churn = Churn::generate(&params.scaled(0.1));
        let liars = (0..churn.nodes().len()).filter(|at| churn.is_liar(*at)).count();
        assert_eq!(liars, 20);
        let (mut live, mut unreachable, mut entries) = (0, 0, 0);
        for node in (0..churn.nodes().len()).step_by(7) {
            for entry in churn.reply(node, 1, WALL + 7_200) {
                let Some(ip) = std::net::Ipv6Addr::from(entry.ip).to_ipv4_mapped() else {
                    continue;
                };
                let address = Address::new(ip, entry.port);
                let place = churn.place(address).expect("an address of the network");
                let is_honest = !churn.is_liar(node);
                entries += usize::from(is_honest);
                live += usize::from(is_honest && churn.find(address).is_some());
                let others = churn.nodes().len()..churn.nodes().len() + churn.unreachable_ever();
                unreachable += usize::from(is_honest && others.contains(&place));
            }
        }
        // Of a sampled reply a sixth is live, and more than half announces itself.
        let share = |count: usize| count as f64 / f64::from(entries as u32);
        assert!((0.08..0.25).contains(&share(live)), "{} live", share(live));
        assert!((0.4..0.9).contains(&share(unreachable)), "{} unreachable", share(unreachable));
    }
}
