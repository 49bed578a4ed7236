//! Much silence at once.

use super::*;

#[test]
fn more_silence_than_can_be_held_does_not_stop_the_pass() {
    let nodes = (0..10).map(|number| known(number, START, Some(seen())));
    let silent = (10..15_000).map(|number| known(number, START, None));
    let list: Vec<Known> = nodes.chain(silent).collect();
    let mut rig = Rig::new(6_000, None, &list, LastPass::default());
    let mut params = crawler_params(6_000);
    params.connects_per_second = 0;
    let recorder = recorder_params(filter());
    rig.crawler.handle_params(params, WriterParams::new(recorder));
    rig.nodes = (0..10).map(|number| (address(number), Vec::new())).collect();
    let has_nodes = |rig: &Rig| rig.open.keys().any(|address| rig.nodes.contains_key(address));
    assert!(rig.run(|rig| rig.open.len() == 6_000), "all sockets are used");
    // Nodes answer a moment before all other probes time out together: that alone is no alarm.
    while has_nodes(&rig) {
        rig.advance(Duration::from_millis(50));
    }
    let open = std::mem::take(&mut rig.open);
    for (left, (target, _)) in open.into_values().enumerate() {
        let result = rig.result(target);
        rig.crawler.handle_ended(Some(result), rig.now);
        if rig.crawler.limit(rig.now) == Limit::Uplink && left < 5_900 {
            let at = rig.crawler.poll_timeout(rig.now);
            assert!(at.is_none_or(|at| at > rig.now.mono), "the shell would spin");
        }
    }
    assert_eq!((rig.crawler.open(), rig.crawler.limit(rig.now)), (0, Limit::Uplink));
    rig.settle();
    assert!(!rig.open.is_empty(), "no reference node is probed, and nothing else will happen");
    rig.pass_ends();
    assert_eq!(rig.probed[&1].len(), 15_000);
}

#[test]
fn a_pass_ends_where_most_of_what_is_due_has_no_route() {
    for nodes in [3, 60] {
        let live = (0..nodes).map(|number| known(number, START, Some(seen())));
        let others = (100..6_100).map(|number| known(number, START, None));
        let list: Vec<Known> = live.chain(others).collect();
        let mut rig = Rig::new(50, None, &list, LastPass::default());
        rig.nodes = (0..nodes).map(|number| (address(number), Vec::new())).collect();
        rig.without_route = (100..6_100).map(address).collect();
        let began = rig.now.mono;
        rig.pass_ends();
        assert!(rig.now.mono - began < Duration::from_secs(120), "{:?}", rig.now.mono - began);
        assert!(rig.nodes.keys().all(|node| rig.probed[&1].contains(node)));
        assert!(rig.events.contains(&Event::Forbidden(6_000)));
        let episodes = rig.events.iter().filter(|event| matches!(event, Event::Uplink(_))).count();
        assert!(episodes <= 2, "down and up at most once, {nodes} nodes");
        let all = rig.greeted.len();
        rig.greeted.sort_unstable();
        rig.greeted.dedup();
        assert_eq!(rig.greeted.len(), all, "each greeted once at most");
    }
}

#[test]
fn a_router_that_refuses_in_the_name_of_all_marks_no_node_down() {
    for nodes in [12, 60, 400] {
        let mut rig = Rig::new(50, None, &[], LastPass::default()).with_ring(nodes, 0);
        rig.pass_ends();
        rig.is_router_refusing = true;
        let is_down = rig.run(|rig| !rig.crawler.is_uplink_up());
        assert!(is_down, "{nodes} nodes: {:?}", rig.events);
        let end = rig.now.mono + HOUR;
        rig.run(|rig| rig.now.mono >= end);
        assert!(!rig.crawler.is_uplink_up(), "refusals do not bring it up");
        rig.is_router_refusing = false;
        rig.pass_ends();
        let batch = rig.batches.last().unwrap();
        let failed = batch.probes.iter().filter(|row| row.outcome != Outcome::Responded).count();
        assert_eq!((failed, batch.probes.len()), (0, nodes as usize));
    }
}

#[test]
fn two_silent_nodes_at_the_end_of_a_pass_cost_one_attempt_each() {
    let mut rig = Rig::new(50, None, &[], LastPass::default()).with_ring(100, 0);
    rig.pass_ends();
    for number in [7, 77] {
        rig.nodes.remove(&address(number));
    }
    rig.dials.clear();
    assert!(rig.run(|rig| rig.crawler.counters().pass == 2));
    let began = rig.now.mono;
    rig.pass_ends();
    assert_eq!((rig.dials.len(), rig.greeted.len()), (100, 0));
    assert!(rig.now.mono - began < Duration::from_secs(5), "{:?}", rig.now.mono - began);
}
