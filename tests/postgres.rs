//! The store against a real PostgreSQL: each rule of a batch, and reading back.

mod support;

use std::collections::BTreeMap;

use bitdash::db::StoreError;
use bitdash::db::writer::Store;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::rows::{
    Batch, HeardRow, LastPass, PassRow, ProbeRow, SourceRow, Status,
};
use bitdash_core::vocabulary::target::VersionInfo;
use support::Cluster;
use support::rows::*;

#[test]
fn a_batch_that_is_written_twice_changes_nothing_the_second_time() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    store.write(&rich_batch(), 25).unwrap();
    let first = snapshot(&database);
    assert_eq!(first.len(), 2 + 4 + 2 + 1 + 1 + 8, "{first:#?}");
    store.write(&rich_batch(), 25).unwrap();
    assert_eq!(snapshot(&database), first);
}

#[test]
fn an_empty_batch_opens_no_transaction() {
    let database = Cluster::shared().database();
    let mut store = Store::connect(&database.url).unwrap();
    store.write(&Batch::default(), 25).unwrap(); // there is no schema: a statement would fail
}

#[test]
fn hearing_an_address_again_updates_only_last_heard() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = Batch::default();
    batch.heard.insert(address(1), heard(10));
    batch.heard.insert(address(2), heard(10));
    batch.failed.insert(address(1), failed(3, 20));
    batch.nodes.insert(address(2), up(20, version()));
    store.write(&batch, 25).unwrap();

    // An earlier time, as after a jump of the clock, changes nothing; a later one only last_heard.
    for (seconds, expected) in [(5, 10), (90, 90)] {
        let mut batch = Batch::default();
        batch.heard.insert(address(1), heard(seconds));
        batch.heard.insert(address(2), heard(seconds));
        store.write(&batch, 25).unwrap();
        let (known, _) = load(&mut store);
        assert_eq!(known.len(), 2);
        for known in known.values() {
            assert_eq!(known.last_heard, whole(expected));
        }
        assert_eq!(known[&address(1)].failures, 3);
        assert_eq!(known[&address(1)].next_probe, whole(20 + 3600));
        assert_eq!(known[&address(2)].next_probe, at(20 + 60));
    }
    let first = "SELECT count(*) FROM addresses WHERE first_heard = last_heard";
    assert_eq!(database.value(first), "0");
    assert_eq!(database.value("SELECT count(*) FROM candidates"), "1");
}

#[test]
fn a_failed_candidate_leaves_no_row_in_nodes_or_probes() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = Batch::default();
    batch.heard.insert(address(1), heard(0));
    batch.failed.insert(address(1), failed(1, 5));
    batch.failed.insert(address(9), failed(1, 5)); // never heard of: leaves no row
    batch.nodes.insert(address(7), down(5, 1)); // never responded: leaves no node
    batch.probes = vec![ProbeRow { outcome: Outcome::Refused, version: None, ..probe(7, 1) }];
    store.write(&batch, 25).unwrap();
    assert_eq!(database.value("SELECT count(*) FROM nodes"), "0");
    assert_eq!(database.value("SELECT count(*) FROM probes"), "0");
    let row = "SELECT host, port, failures, last_outcome FROM addresses";
    assert_eq!(database.rows(row), ["127.0.0.1|8333|1|connect_timeout"]);
}

#[test]
fn a_candidate_that_responds_becomes_a_node_and_keeps_its_times() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = Batch::default();
    batch.heard.insert(address(1), heard(0));
    store.write(&batch, 25).unwrap();
    let mut batch = Batch::default();
    batch.nodes.insert(address(1), up(50, version()));
    batch.nodes.insert(address(2), up(60, version())); // from the nodes file, never heard of
    store.write(&batch, 25).unwrap();

    assert_eq!(database.value("SELECT count(*) FROM candidates"), "0");
    let past =
        "SELECT extract(epoch FROM first_heard)::bigint, extract(epoch FROM last_heard)::bigint,
        extract(epoch FROM first_seen)::bigint, extract(epoch FROM last_seen)::bigint
        FROM nodes JOIN addresses USING (host, port) ORDER BY host";
    let row = |heard: i64, seen: i64| format!("{0}|{0}|{1}|{1}", T0 + heard, T0 + seen);
    assert_eq!(database.rows(past), [row(0, 50), row(60, 60)]);
    let facts = "SELECT status, species, protocol_version, user_agent, services, start_height, relay,
        connect_ms, version_ms, failures, last_outcome, peers_sent, name, country FROM nodes LIMIT 1";
    assert_eq!(
        database.rows(facts),
        [
            "up|Core|70016|/Satoshi:27.0.0/\\\\ \\x09|-9223372036854774775|860000|t|31|52|0|responded|1000|-|-"
        ]
    );
}

#[test]
fn a_failed_node_keeps_its_last_version() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = Batch::default();
    batch.nodes.insert(address(1), up(0, version()));
    store.write(&batch, 25).unwrap();
    let said = "SELECT species, user_agent, services, relay, connect_ms, last_seen, peers_asked_at, peers_sent
        FROM nodes";
    let before = database.rows(said);
    let mut batch = Batch::default();
    batch.nodes.insert(address(1), down(700, 4));
    store.write(&batch, 25).unwrap();
    assert_eq!(database.rows(said), before);
    assert_eq!(
        database.rows("SELECT status, last_outcome, failures FROM nodes"),
        ["down|refused|4"]
    );
}

#[test]
fn a_new_version_overwrites_every_field_even_with_null() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = Batch::default();
    batch.nodes.insert(address(1), up(0, version()));
    store.write(&batch, 25).unwrap();
    let bare = VersionInfo { protocol_version: 99_999, services: 1, ..VersionInfo::default() };
    let mut row = up(100, bare);
    row.peers = None; // not asked this time: the former number stays
    if let Some(seen) = &mut row.seen {
        (seen.connect_ms, seen.version_ms) = (None, None);
        seen.lineage = lineage("TRB", None);
    }
    let mut batch = Batch::default();
    batch.nodes.insert(address(1), row);
    store.write(&batch, 25).unwrap();
    assert_eq!(
        database.rows(
            "SELECT species, protocol_version, user_agent, services, start_height, relay, connect_ms, version_ms,
            peers_sent, last_seen - first_seen FROM nodes"
        ),
        ["TRB|99999|-|1|-|-|-|-|1000|00:01:40"]
    );
}

#[test]
fn only_the_newest_results_of_each_node_are_shown() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = Batch::default();
    batch.nodes.insert(address(1), up(0, version()));
    batch.nodes.insert(address(2), up(0, version()));
    batch.probes = (1..=5).flat_map(|pass| [probe(1, pass), probe(2, pass)]).collect();
    store.write(&batch, 25).unwrap();
    let kept = "SELECT host, string_agg(pass::text, ',' ORDER BY pass) FROM probes GROUP BY host ORDER BY host";
    assert_eq!(database.rows(kept), ["127.0.0.1|1,2,3,4,5", "127.0.0.2|1,2,3,4,5"]);

    let next = Batch { probes: vec![probe(1, 6)], ..Batch::default() };
    store.write(&next, 3).unwrap();
    assert_eq!(database.rows(kept), ["127.0.0.1|4,5,6", "127.0.0.2|3,4,5"]);
    // Repeating an old batch changes nothing.
    store.write(&Batch { probes: vec![probe(1, 2)], ..Batch::default() }, 3).unwrap();
    assert_eq!(database.rows(kept), ["127.0.0.1|4,5,6", "127.0.0.2|3,4,5"]);
    // Compaction drops the surplus. Before it, a larger number shows older results again.
    store.write(&Batch { probes: vec![probe(2, 6)], ..Batch::default() }, 4).unwrap();
    assert_eq!(database.rows(kept), ["127.0.0.1|3,4,5,6", "127.0.0.2|3,4,5,6"]);
    compact(&mut store);
    store.write(&Batch { probes: vec![probe(2, 7)], ..Batch::default() }, 25).unwrap();
    assert_eq!(database.rows(kept), ["127.0.0.1|3,4,5,6", "127.0.0.2|3,4,5,6,7"]);
}

#[test]
fn a_result_is_stored_as_it_was() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = Batch::default();
    batch.nodes.insert(address(1), up(0, version()));
    batch.probes = vec![
        probe(1, 1),
        ProbeRow { outcome: Outcome::Closed, version: None, peers_sent: None, ..probe(1, 2) },
    ];
    store.write(&batch, 25).unwrap();
    assert_eq!(
        database.rows("SELECT pass, outcome, protocol_version, user_agent, services, start_height, connect_ms,
            version_ms, peers_sent, extract(epoch FROM probed_at) FROM probes ORDER BY pass"),
        [
            format!("1|responded|70016|/Satoshi:27.0.0/\\\\ \\x09|-9223372036854774775|860000|1|-|0|{}.123457", T0 + 1),
            format!("2|closed|-|-|-|-|1|-|-|{}.123457", T0 + 2),
        ]
    );
}

#[test]
fn names_are_set_moved_and_cleared() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = Batch::default();
    for last in 1..=3 {
        batch.nodes.insert(address(last), up(0, version()));
    }
    store.write(&batch, 25).unwrap();
    let named = "SELECT host, name FROM nodes WHERE name IS NOT NULL ORDER BY host";
    let names = |list: &[(u8, &str)]| Batch {
        names: Some(list.iter().map(|(last, name)| (address(*last), (*name).to_owned())).collect()),
        ..Batch::default()
    };
    store.write(&names(&[(1, "one"), (2, "a\tb\\c\0")]), 25).unwrap();
    assert_eq!(database.rows(named), ["127.0.0.1|one", "127.0.0.2|a\tb\\c"]);
    store.write(&names(&[(1, "uno"), (9, "not a node")]), 25).unwrap();
    assert_eq!(database.rows(named), ["127.0.0.1|uno"]);
    store.write(&Batch { probes: vec![probe(1, 1)], ..Batch::default() }, 25).unwrap();
    assert_eq!(database.rows(named), ["127.0.0.1|uno"]);
    store.write(&names(&[]), 25).unwrap();
    assert!(database.rows(named).is_empty());
}

#[test]
fn history_is_written_when_a_pass_finishes_and_not_before() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = Batch::default();
    batch.nodes.insert(address(1), up(0, version()));
    batch
        .nodes
        .insert(address(2), up(0, VersionInfo { user_agent: None, services: 9, ..version() }));
    batch.nodes.insert(address(3), up(0, version()));
    let mut pass = PassRow {
        started_at: at(0),
        finished_at: None,
        probed: 7,
        responded: 3,
        failed: 4,
        new_nodes: 2,
        new_addresses: 5,
        due: 6,
        candidates: 4,
        uplink_was_down: true,
    };
    batch.passes.insert(8, pass);
    store.write(&batch, 25).unwrap();
    assert!(database.rows("SELECT 1 FROM history").is_empty());
    assert_eq!(load(&mut store).1, LastPass { pass: 8, row: pass });

    let mut batch = Batch::default();
    batch.nodes.insert(address(3), down(5, 1)); // in the same batch: counted with its new status
    pass.finished_at = Some(at(30));
    batch.passes.insert(8, pass);
    store.write(&batch, 25).unwrap();
    assert_eq!(load(&mut store).1, LastPass { pass: 8, row: pass });
    let rows = database.rows(
        "SELECT pass, dimension, value, nodes FROM history ORDER BY dimension, value COLLATE \"C\"",
    );
    assert_eq!(
        rows,
        [
            "8|peers|sent|2",
            "8|port|(other)|2",
            "8|protocol_version|(other)|2",
            "8|release|(other)|1",
            "8|services|(other)|2",
            "8|species|Core|2",
            "8|status|down|1",
            "8|status|up|2",
            "8|user_agent|(other)|1",
        ]
    );
    assert_eq!(
        database.value("SELECT DISTINCT at = (SELECT finished_at FROM passes) FROM history"),
        "t"
    );
}

#[test]
fn what_was_written_is_loaded_again() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    assert_eq!(load(&mut store), (BTreeMap::new(), LastPass::default()));
    store.write(&rich_batch(), 25).unwrap();
    let mut batch = Batch::default();
    let mut trb = up(60, version());
    if let Some(seen) = &mut trb.seen {
        seen.lineage = lineage("TRB", None);
    }
    trb.peers = None;
    batch.nodes.insert(address(4), trb);
    store.write(&batch, 25).unwrap();

    let (known, last) = load(&mut store);
    assert_eq!(known.len(), 6);
    let candidate = known[&address(1)];
    assert_eq!(candidate.last_outcome, Some(Outcome::ConnectTimeout));
    assert_eq!((candidate.failures, candidate.next_probe), (1, whole(5 + 3600)));
    assert_eq!(candidate.node, None);
    assert_eq!(known[&address(5)].last_outcome, None);
    let node = known[&address(2)].node.unwrap();
    assert_eq!((node.last_seen, node.peers_asked_at), (at(6), Some(at(6))));
    assert_eq!((node.peers_sent, node.is_trb), (Some(1000), false));
    let trb = known[&address(4)].node.unwrap();
    assert_eq!((trb.peers_asked_at, trb.peers_sent, trb.is_trb), (None, None, true));
    assert_eq!((last.pass, last.row.finished_at, last.row.probed), (1, Some(at(9)), 3));
}

#[test]
fn sources_and_the_source_of_a_candidate_are_stored() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = Batch::default();
    batch.heard.insert(address(1), HeardRow { source: 65_535, ..heard(0) });
    batch.heard.insert(address(2), heard(0));
    batch.sources.insert(65_535, SourceRow { tried: 1999, answered: 60 });
    batch.sources.insert(7, SourceRow { tried: 1, answered: 0 });
    store.write(&batch, 25).unwrap();
    let mut batch = Batch::default();
    batch.heard.insert(address(3), HeardRow { source: 9, ..heard(0) });
    store.write(&batch, 25).unwrap();
    let mut batch = Batch::default();
    batch.heard.insert(address(3), HeardRow { source: 0, ..heard(-5) }); // another source named it too
    batch.sources.insert(7, SourceRow { tried: 2, answered: 1 });
    store.write(&batch, 25).unwrap();
    store.write(&batch, 25).unwrap();

    let (known, _) = load(&mut store);
    let source = |last| known[&address(last)].source;
    assert_eq!((source(1), source(2), source(3)), (65_535, 0, 0));
    assert_eq!(known[&address(3)].last_heard, whole(0));
    let mut sources = BTreeMap::new();
    store.load_sources(&mut |source, row| assert!(sources.insert(source, row).is_none())).unwrap();
    let expected = [(7, (2, 1)), (65_535, (1999, 60))]
        .map(|(source, (tried, answered))| (source, SourceRow { tried, answered }));
    assert_eq!(sources, BTreeMap::from(expected));
}

#[test]
fn candidates_can_be_forgotten_and_nodes_cannot() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = rich_batch();
    batch.forgotten = [address(2), address(4), address(5), address(99)].into();
    store.write(&batch, 25).unwrap();
    let left = "SELECT string_agg(host(host), ' ' ORDER BY host) FROM";
    assert_eq!(database.value(&format!("{left} candidates")), "127.0.0.1 127.0.0.6");
    assert_eq!(database.value(&format!("{left} nodes")), "127.0.0.2 127.0.0.3");
    let first = snapshot(&database);
    store.write(&batch, 25).unwrap();
    assert_eq!(snapshot(&database), first);
}

#[test]
fn rows_that_make_no_sense_are_skipped_on_loading() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    store.write(&rich_batch(), 25).unwrap();
    database
        .client()
        .batch_execute(
            "ALTER TABLE bitdash_internal.address_journal DROP CONSTRAINT addresses_are_ipv4_and_have_a_port;
            UPDATE bitdash_internal.address_journal SET key = key - 8333
                WHERE key = bitdash_internal.key('127.0.0.1', 8333);
            UPDATE nodes SET next_probe = 'infinity' WHERE host = '127.0.0.2';
            UPDATE nodes SET last_probed = '0044-03-15 12:00:00 BC' WHERE host = '127.0.0.3'",
        )
        .unwrap();
    let (known, _) = load(&mut store);
    assert_eq!(known.keys().map(|a| a.ip().octets()[3]).collect::<Vec<_>>(), [4, 5, 6]);
}

#[test]
fn constraints_refuse_contradictory_rows() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut row = up(0, version());
    row.status = Status::Down;
    let mut batch = Batch::default();
    batch.nodes.insert(address(1), up(0, version()));
    batch.nodes.insert(address(2), row);
    let error = store.write(&batch, 25).unwrap_err();
    assert!(
        matches!(&error, StoreError::Permanent(text) if text.contains("nodes_up_means_responded"))
    );
    assert_eq!(database.value("SELECT count(*) FROM nodes"), "0", "whole or not at all");
    assert!(!store.is_closed());
    batch.nodes.remove(&address(2));
    store.write(&batch, 25).unwrap();
}

#[test]
fn every_relation_has_the_contract_columns_and_a_comment() {
    let database = Cluster::shared().database();
    ready(&database);
    let relations = [
        (
            "nodes",
            "host inet,port integer,name text,status text,species text,release text,protocol_version integer,user_agent text,services bigint,start_height integer,relay boolean,connect_ms integer,version_ms integer,country text,asn bigint,as_name text,first_seen,last_seen,last_probed,last_outcome text,failures integer,next_probe,peers_asked_at,peers_sent integer",
        ),
        (
            "probes",
            "host inet,port integer,pass bigint,probed_at,outcome text,protocol_version integer,user_agent text,services bigint,start_height integer,connect_ms integer,version_ms integer,peers_sent integer",
        ),
        (
            "addresses",
            "host inet,port integer,first_heard,last_heard,failures integer,last_probed,last_outcome text,next_probe",
        ),
        (
            "passes",
            "pass bigint,started_at,finished_at,probed bigint,responded bigint,failed bigint,new_nodes bigint,new_addresses bigint,due bigint,candidates bigint,uplink_was_down boolean",
        ),
        (
            "history",
            "pass bigint,at,dimension text,value text,nodes real,step text,passes integer,lowest integer,highest integer",
        ),
        ("history_notes", "at,text text"),
        ("place_sources", "kind text,name text,url text,licence text,built_at"),
        (
            "events",
            "at,pass bigint,kind text,host inet,port integer,name text,before text,after text",
        ),
        ("rolls", "pass bigint,at,nodes integer,up bytea,full bytea"),
    ];
    for (relation, columns) in relations {
        let found = database.rows(&format!(
            "SELECT column_name || ' ' || data_type FROM information_schema.columns WHERE table_name = '{relation}'"
        ));
        for column in columns.split(',') {
            let whole = if column.contains(' ') {
                column.to_owned()
            } else {
                format!("{column} timestamp with time zone")
            };
            assert!(found.contains(&whole), "{relation}: {whole} is not among {found:?}");
        }
        let comment = format!("SELECT obj_description('{relation}'::regclass)");
        assert_ne!(database.value(&comment), "-", "{relation}");
    }
}

#[test]
fn every_relation_function_and_column_that_people_read_has_a_comment() {
    let database = Cluster::shared().database();
    ready(&database);
    let columns =
        "SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid
        WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'v') AND a.attnum > 0
            AND NOT a.attisdropped AND col_description(c.oid, a.attnum) IS NULL
        UNION ALL SELECT relname, NULL FROM pg_class WHERE relnamespace = 'public'::regnamespace
            AND relkind IN ('r', 'v') AND obj_description(oid, 'pg_class') IS NULL
        UNION ALL SELECT proname, NULL FROM pg_proc WHERE pronamespace = 'public'::regnamespace
            AND obj_description(oid, 'pg_proc') IS NULL ORDER BY 1, 2";
    assert_eq!(database.rows(columns), [""; 0]);
}
