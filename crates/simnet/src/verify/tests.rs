//! Every kind of difference is found, and none where there is none.

use super::*;
use crate::network::world::{World, WorldParams};

fn truth() -> Vec<Row> {
    let params =
        WorldParams { nodes: 20, silent: 4, refusing: 4, zoo: 1, ..WorldParams::default() };
    truth::of_world(&World::generate(&params).unwrap())
}

/// The map of a crawl without any fault.
fn perfect(truth: &[Row]) -> Map {
    let mut map = Map::default();
    let mut hosts: BTreeMap<_, usize> = BTreeMap::new();
    for row in truth {
        let of_host = hosts.entry((row.address.ip(), &row.label)).or_default();
        *of_host += 1;
        if row.kind != Kind::Zoo || *of_host <= row.max_recorded {
            let failures = u32::from(row.outcome != Outcome::Responded);
            let outcome = Some(row.outcome);
            let entry = Entry { fields: row.fields.clone(), outcome, failures };
            map.entries.insert(row.address, entry);
        }
    }
    map
}

#[test]
fn a_perfect_map_has_no_difference() {
    let truth = truth();
    let result = compare(&truth, &perfect(&truth));
    assert_eq!(result.differences, []);
    assert_eq!(
        (result.nodes, result.dead),
        (Share { right: 20, all: 20 }, Share { right: 8, all: 8 })
    );
    assert!(result.zoo.right == result.zoo.all && result.zoo.all > 150, "{result}");
}

#[test]
fn each_kind_of_difference_is_found() {
    let truth = truth();
    let of = |kind: Kind| truth.iter().find(|row| row.kind == kind).unwrap();
    let spare = truth.iter().filter(|row| row.max_recorded > 1).nth_back(0).unwrap();
    let (node, dead) = (of(Kind::Node).address, of(Kind::Dead).address);
    let failing = truth.iter().find(|row| row.kind == Kind::Zoo && row.fields.is_none()).unwrap();
    let stranger: Address = "127.200.1.1:8333".parse().unwrap();
    let differences = |change: &dyn Fn(&mut BTreeMap<Address, Entry>)| {
        let mut map = perfect(&truth);
        change(&mut map.entries);
        compare(&truth, &map).differences
    };
    let one = |change: &dyn Fn(&mut BTreeMap<Address, Entry>)| {
        let mut found = differences(change);
        assert_eq!(found.len(), 1, "{found:?}");
        let Difference { address, problem, .. } = found.remove(0);
        (address, problem)
    };
    let entry = |map: &BTreeMap<Address, Entry>, address| map[&address].clone();
    assert_eq!(one(&|map| drop(map.remove(&node))), (node, Problem::Missing));
    let down = Some(Outcome::Closed);
    let found = one(&|map| map.get_mut(&node).unwrap().outcome = down);
    let expected = Outcome::Responded;
    assert_eq!(found, (node, Problem::Outcome { expected, found: (down, 0) }));
    let changes: [fn(&mut NodeFields); 7] = [
        |fields| fields.protocol_version += 1,
        |fields| fields.user_agent = None,
        |fields| fields.services ^= 2,
        |fields| fields.start_height = Some(-7),
        |fields| fields.relay = fields.relay.map_or(Some(true), |relay| Some(!relay)),
        |fields| fields.species.push('x'),
        |fields| fields.release = Some("Core 1".to_owned()),
    ];
    for change in changes {
        let found = one(&|map| change(map.get_mut(&node).unwrap().fields.as_mut().unwrap()));
        assert!(matches!(found.1, Problem::Fields { .. }), "{found:?}");
    }
    let found = one(&|map| map.get_mut(&dead).unwrap().outcome = down);
    assert!(matches!(found.1, Problem::Outcome { .. }), "{found:?}");
    let found = one(&|map| drop(map.insert(failing.address, entry(map, node))));
    assert_eq!(found, (failing.address, Problem::NoNode));
    let found = one(&|map| drop(map.insert(stranger, entry(map, dead))));
    assert_eq!(found, (stranger, Problem::Unknown));
    let found = one(&|map| drop(map.insert(spare.address, entry(map, node))));
    assert_eq!(found.1, Problem::TooMany);
}

#[test]
fn dead_addresses_may_wait_and_invented_ones_refuse() {
    let truth = truth();
    let mut map = perfect(&truth);
    let dead = truth.iter().find(|row| row.kind == Kind::Dead).unwrap().address;
    map.entries.remove(&dead);
    let invented = Address::new(dead.ip(), INVENTED_PORT);
    map.record_failure(invented, Outcome::Refused, 1);
    let result = compare(&truth, &map);
    assert_eq!((result.differences.len(), result.unprobed), (0, 1));
    map.record_failure(invented, Outcome::Closed, 1);
    assert_eq!(compare(&truth, &map).differences.len(), 1);
}

#[test]
fn a_long_list_of_differences_is_truncated() {
    let truth = truth();
    let text = compare(&truth, &Map::default()).to_string();
    assert_eq!(text.lines().count(), MAX_PRINTED + 2);
    assert!(text.contains("\n... and ") && text.ends_with(" differences"), "{text}");
}
