//! The database is emptied or replaced under a crawl, at every point of a pass.

use super::*;
use crate::record::messages::Opened;

impl Rig {
    /// Does what the writer does once it has noticed: pending answers go out, then everything is
    /// loaded again.
    fn empty_the_database(&mut self, holds: LastPass) {
        while let Some(message) = self.recorder.poll_output() {
            self.crawler.handle_writer(message, self.now);
        }
        self.recorder.forget_all();
        self.recorder.handle_reloaded(holds);
        self.probed.clear();
        self.events.clear();
    }

    fn unstick(&mut self) {
        self.is_writer_stuck = false;
        for message in std::mem::take(&mut self.stuck) {
            self.recorder.handle(message, self.now);
        }
    }
}

#[test]
fn in_the_middle_of_a_pass_sessions_end_and_pass_1_begins_with_the_seeds() {
    let mut rig = Rig::new(30, None, &[], LastPass::default()).with_ring(200, 10);
    // No node names it.
    rig.seeds.push(address(9_999));
    let is_amid = |rig: &Rig| rig.crawler.counters().probed > 150 && rig.open.len() == 30;
    let has_nodes = |rig: &Rig| rig.open.keys().any(|address| rig.nodes.contains_key(address));
    assert!(rig.run(|rig| is_amid(rig) && has_nodes(rig)), "no node will answer late");
    let late: BTreeSet<Address> = rig.open.keys().copied().collect();
    rig.dials.clear();
    rig.empty_the_database(LastPass::default());
    rig.settle();
    assert_eq!((rig.crawler.queue_len(), rig.open.len()), (0, 30));
    let last_ends = rig.open.values().map(|(_, end)| *end).max().unwrap();
    rig.pass_ends();
    assert!(rig.dials.iter().all(|at| *at >= last_ends), "dialled while a session was open");
    assert_eq!((rig.crawler.counters().pass, rig.crawler.unacked()), (1, 0));
    let mut met = rig.probed[&1].clone();
    assert!(met.contains(&address(9_999)), "it begins with the seeds although nodes answer late");
    met.extend(&late);
    assert!(rig.nodes.keys().all(|node| met.contains(node)), "not every node was found again");
    let batch = &rig.batches[0];
    assert!(batch.probes.iter().all(|row| row.pass == 1), "a result of a pass that does not exist");
    let row = batch.passes[&1];
    assert_eq!(row.probed, rig.probed[&1].len() as u64, "late results belong to no pass");
}

#[test]
fn between_passes_the_next_one_begins_at_once() {
    let mut rig = Rig::new(50, None, &[], LastPass::default()).with_ring(50, 0);
    rig.pass_ends();
    rig.empty_the_database(LastPass::default());
    rig.settle();
    assert!(matches!(rig.crawler.phase(), Phase::Running(_)));
    rig.pass_ends();
    assert_eq!((rig.crawler.counters().pass, rig.probed[&1].len()), (1, 50));
}

#[test]
fn results_in_doubt_and_on_their_way_are_acknowledged_once() {
    let mut rig = Rig::new(30, None, &[], LastPass::default()).with_ring(100, 5);
    assert!(rig.run(|rig| rig.crawler.counters().probed > 50));
    rig.is_writer_stuck = true;
    assert!(rig.run(|rig| rig.crawler.unacked() > 20));
    rig.empty_the_database(LastPass::default());
    rig.run(|rig| rig.open.is_empty());
    assert!(rig.crawler.unacked() > 20);
    assert!(
        matches!(rig.crawler.phase(), Phase::Waiting { .. }),
        "no pass before all results are acknowledged"
    );
    rig.unstick();
    rig.pass_ends();
    assert_eq!(rig.crawler.unacked(), 0);
}

#[test]
fn a_start_requested_before_the_replacement_is_ignored() {
    let mut rig = Rig::new(50, None, &[], LastPass::default()).with_ring(50, 0);
    rig.pass_ends();
    rig.is_writer_stuck = true;
    assert!(rig.run(|rig| *rig.crawler.phase() == Phase::Starting));
    rig.empty_the_database(LastPass::default());
    rig.advance(Duration::from_secs(5));
    assert!(matches!(rig.crawler.phase(), Phase::Waiting { .. }));
    assert_eq!(rig.crawler.poll_timeout(rig.now), None, "only the writer's answer helps");
    rig.unstick();
    rig.pass_ends();
    let began = rig.events.iter().filter(|event| matches!(event, Event::PassStarted { .. }));
    assert_eq!((began.count(), rig.probed[&1].len()), (1, 50));
}

#[test]
fn names_requested_before_the_replacement_are_ignored() {
    let mut rig = Rig::new(50, None, &[], LastPass::default()).with_ring(50, 0);
    rig.pass_ends();
    rig.advance(HOUR);
    rig.run(|rig| rig.finished() == 2);
    // Directly, since the rig answers at once.
    let now = Now { mono: rig.now.mono + HOUR, ..rig.now };
    rig.crawler.tick(now);
    assert_eq!(rig.crawler.poll_name_request(), Some(NameRequest::NamedOnly), "nodes are up");
    let opened = Opened::default();
    rig.crawler.handle_writer(FromWriter::Reset(opened), now);
    rig.crawler.tick(now);
    assert_eq!(rig.crawler.poll_name_request(), None, "one request at a time");
    rig.crawler.handle_names(Names::default(), now);
    rig.crawler.tick(now);
    assert_eq!(rig.crawler.poll_name_request(), Some(NameRequest::NamedAndSeeds));
    rig.crawler.handle_names(Names { seeds: vec![address(0)], ..Names::default() }, now);
    assert_eq!(*rig.crawler.phase(), Phase::Starting);
}

#[test]
fn another_database_that_holds_rows_is_continued() {
    let mut rig = Rig::new(50, None, &[], LastPass::default()).with_ring(50, 0);
    rig.pass_ends();
    let row = PassRow { started_at: rig.now.wall, ..PassRow::default() };
    let finished_at = Some(rig.now.wall);
    rig.empty_the_database(LastPass { pass: 41, row: PassRow { finished_at, ..row } });
    rig.settle();
    assert!(matches!(rig.crawler.phase(), Phase::Waiting { until } if *until > rig.now.mono));
    rig.empty_the_database(LastPass { pass: 7, row });
    rig.pass_ends();
    assert_eq!(rig.crawler.counters().pass, 7, "the interrupted pass is resumed");
}

#[test]
fn a_replaced_database_does_not_undo_a_stop() {
    let mut rig = Rig::new(50, None, &[], LastPass::default()).with_ring(50, 0);
    rig.run(|rig| rig.crawler.counters().probed > 5);
    rig.crawler.handle_stop(StopReason::Operator, rig.now);
    rig.empty_the_database(LastPass::default());
    rig.settle();
    assert!(rig.crawler.is_stopping());
}
