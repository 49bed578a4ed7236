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
    let recorder = RecorderParams { book: book_params(), filter: filter() };
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
