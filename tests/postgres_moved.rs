//! A database that was moved by a dump or by replication, which leaves something behind.

mod support;

use bitdash::db::writer::Store;
use bitdash_core::vocabulary::rows::{Batch, HeardRow, PassRow, SourceRow};
use support::rows::*;
use support::{Cluster, Database};

/// Every sequence starts again, as on a subscriber of logical replication.
fn restart_sequences(database: &Database) {
    let sql = "SELECT setval(c.oid::regclass, 1, false) FROM pg_class c
        JOIN pg_namespace n ON n.oid = c.relnamespace
        WHERE c.relkind = 'S' AND n.nspname IN ('public', 'bitdash_internal')";
    database.rows(sql);
}

/// The program starts on the moved database.
fn restart(database: &Database) -> Store {
    let mut store = ready(database);
    load(&mut store);
    store
}

/// The addresses 1 to 6 after several batches: 1 has failed twice, 5 was forgotten.
fn filled(database: &Database) {
    let mut store = ready(database);
    store.write(&rich_batch(), 25).unwrap();
    for failures in 1..=2 {
        let mut batch = Batch::default();
        batch.failed.insert(address(1), failed(failures, 100 * i64::from(failures)));
        batch.sources.insert(0x7f00, SourceRow { tried: 3 + failures, answered: 2 });
        store.write(&batch, 25).unwrap();
    }
    store.write(&Batch { forgotten: [address(5)].into(), ..Batch::default() }, 25).unwrap();
}

#[test]
fn newer_rows_win_after_the_sequences_of_a_moved_database_restarted() {
    let database = Cluster::shared().database();
    filled(&database);
    restart_sequences(&database);
    let mut store = restart(&database);
    let mut batch = Batch::default();
    batch.failed.insert(address(1), failed(3, 300));
    batch.heard.insert(address(1), HeardRow { source: 9, ..heard(300) });
    batch.heard.insert(address(5), heard(300)); // heard of again after it was forgotten
    batch.sources.insert(0x7f00, SourceRow { tried: 9, answered: 3 });
    store.write(&batch, 25).unwrap();
    let check = |store: &mut Store| {
        let (known, _) = load(store);
        let one = known[&address(1)];
        assert_eq!((one.failures, one.source, one.last_probed), (3, 9, Some(whole(300))));
        assert_eq!(known[&address(5)].last_heard, whole(300));
        assert_eq!(database.rows("SELECT tried, answered FROM sources"), ["9|3"]);
    };
    check(&mut store);
    compact(&mut store);
    check(&mut store);
}

#[test]
fn newer_sources_win_where_the_newest_batch_had_no_address() {
    let database = Cluster::shared().database();
    let source = |tried| {
        let sources = [(0x7f00, SourceRow { tried, answered: 1 })].into();
        Batch { sources, ..Batch::default() }
    };
    let mut store = ready(&database);
    store.write(&Batch { heard: [(address(1), heard(0))].into(), ..Batch::default() }, 25).unwrap();
    for tried in 2..=4 {
        store.write(&source(tried), 25).unwrap();
    }
    restart_sequences(&database);
    restart(&database).write(&source(5), 25).unwrap();
    assert_eq!(database.rows("SELECT tried, answered FROM sources"), ["5|1"]);
}

#[test]
fn batch_numbers_continue_over_restarts_and_compactions() {
    let database = Cluster::shared().database();
    let mut failures = 0;
    for round in 0..4 {
        let mut store = restart(&database);
        for _ in 0..3 {
            failures += 1;
            let mut batch = Batch::default();
            batch.heard.insert(address(1), heard(0));
            batch.failed.insert(address(1), failed(failures, 0));
            store.write(&batch, 25).unwrap();
            assert_eq!(load(&mut store).0[&address(1)].failures, failures);
        }
        if round == 1 {
            compact(&mut store);
        }
        restart_sequences(&database);
    }
}

#[test]
fn a_state_that_was_left_behind_empties_no_base_that_has_rows() {
    for compactions in 1..=2 {
        let database = Cluster::shared().database();
        filled(&database);
        let mut store = ready(&database);
        for _ in 0..compactions {
            store.write(&rich_batch(), 25).unwrap();
            compact(&mut store);
        }
        let before = snapshot(&database);
        // The target of a replication draws its own row.
        let own = "TRUNCATE bitdash_internal.store_state;
            INSERT INTO bitdash_internal.store_state DEFAULT VALUES";
        database.client().batch_execute(own).unwrap();
        let mut store = restart(&database);
        // Nothing new, but both journals have rows.
        let mut batch = Batch { probes: vec![probe(2, 1)], ..Batch::default() };
        batch.heard.insert(address(6), heard(-5));
        store.write(&batch, 25).unwrap();
        assert_eq!(compact(&mut store).len(), 2);
        assert_eq!(snapshot(&database), before, "after {compactions} compactions");
    }
}

#[test]
fn bases_that_both_have_rows_are_left_alone() {
    let database = Cluster::shared().database();
    filled(&database);
    let mut store = ready(&database);
    compact(&mut store);
    let both =
        "INSERT INTO bitdash_internal.probe_rows_a SELECT * FROM bitdash_internal.probe_rows_b";
    database.client().batch_execute(both).unwrap();
    store.write(&rich_batch(), 25).unwrap();
    let before = snapshot(&database);
    let every = bitdash::db::writer::CompactionParams {
        interval: std::time::Duration::ZERO,
        ..Default::default()
    };
    let error = (0..3).find_map(|_| store.compact_if_due(at(0), &every).err()).unwrap();
    assert!(error.to_string().contains("both bases have rows"), "{error}");
    assert_eq!(snapshot(&database), before);
}

#[test]
fn passes_that_were_left_behind_let_new_results_lose_to_no_older_ones() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = Batch::default();
    batch.nodes.insert(address(1), up(0, version()));
    batch.probes = (1..=30).map(|pass| probe(1, pass)).collect();
    let row = PassRow { started_at: at(0), ..PassRow::default() };
    batch.passes.insert(30, row);
    store.write(&batch, 25).unwrap();
    let last = load(&mut store).1;
    assert_eq!((last.pass, last.row.finished_at), (30, None), "it is resumed");
    for is_compacted in [false, true] {
        if is_compacted {
            compact(&mut store);
        }
        database.client().batch_execute("DELETE FROM passes").unwrap();
        let mut store = ready(&database);
        let last = load(&mut store).1;
        assert!(last.pass >= 30 && last.row.finished_at.is_some(), "{last:?}");
        let next = last.pass + 1;
        let mut batch = Batch { probes: vec![probe(1, next)], ..Batch::default() };
        batch.passes.insert(next, row);
        store.write(&batch, 25).unwrap();
        store.write(&batch, 25).unwrap();
        assert_eq!(database.value("SELECT max(pass) FROM probes"), next.to_string());
    }
}
