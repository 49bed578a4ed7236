//! The output of `status` and `migrate` with a real PostgreSQL.

#![allow(clippy::disallowed_methods)] // tests sleep

mod support;

use std::time::{Duration, Instant};

use bitdash::commands::{HostPort, migrate, status};
use bitdash_core::vocabulary::rows::{Batch, PassRow};
use support::rows::*;
use support::{Cluster, Database};

fn status_text(database: &Database, address: Option<&str>, is_json: bool) -> String {
    let host_port: Option<HostPort> = address.map(|address| address.parse().unwrap());
    status::text(&database.url, host_port.as_ref(), is_json).unwrap()
}

#[test]
fn an_empty_database_has_no_schema_and_then_an_empty_map() {
    let database = Cluster::shared().database();
    let error = status::text(&database.url, None, false).unwrap_err();
    assert!(error.to_string().contains("bitdash migrate"), "{error}");
    assert_eq!(migrate::migrate(&database.url).unwrap(), "created the schema, version 3");
    assert_eq!(migrate::migrate(&database.url).unwrap(), "the schema is up to date, version 3");
    let text = status_text(&database, None, false);
    assert!(text.contains("Passes, the newest first: no pass has started yet\n"), "{text}");
    assert!(text.contains("Nodes by species: no address has responded yet\n"), "{text}");
}

#[test]
fn a_newer_schema_is_refused() {
    let database = Cluster::shared().database();
    migrate::migrate(&database.url).unwrap();
    let newer =
        "INSERT INTO bitdash_internal.schema_migrations (version, name) VALUES (7, '007_future')";
    database.client().batch_execute(newer).unwrap();
    let error = status::text(&database.url, None, false).unwrap_err();
    assert!(error.to_string().contains("schema is version 7, this bitdash knows"), "{error}");
}

/// A map with a TRB node that is down, two Core nodes, and a candidate.
fn filled() -> Database {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    store.write(&rich_batch(), 25).unwrap();
    let mut trb =
        up(40, bitdash_core::vocabulary::target::VersionInfo { user_agent: None, ..version() });
    if let Some(seen) = &mut trb.seen {
        seen.species = "TRB";
    }
    let mut batch = Batch::default();
    batch.nodes.insert(address(4), trb);
    store.write(&batch, 25).unwrap();
    let mut batch = Batch::default();
    batch.nodes.insert(address(4), down(50, 1));
    batch.passes.insert(2, PassRow { started_at: at(60), probed: 1_234_567, ..PassRow::default() });
    store.write(&batch, 25).unwrap();
    database
}

#[test]
fn the_overview_shows_trb_first_and_a_total() {
    let text = status_text(&filled(), None, false);
    let lines: Vec<&str> = text.lines().map(str::trim).collect();
    let at = lines.iter().position(|line| *line == "Nodes by species").unwrap();
    let fields = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
    let species: Vec<String> = lines[at + 1..at + 5].iter().map(|line| fields(line)).collect();
    assert_eq!(
        species,
        ["species up full down known", "TRB 0 0 1 1", "Core 2 0 0 2", "all 2 0 1 3"],
        "{text}"
    );
    assert!(text.contains("not finished"), "{text}");
    assert!(text.contains("1,234,567"), "{text}");
    assert!(
        text.contains("Candidates: 3 addresses that never responded, 2 of them not probed yet")
    );
    assert!(text.contains("Pizarro"), "{text}");
}

#[test]
fn everything_known_about_an_address_is_shown() {
    let database = filled();
    let node = status_text(&database, Some("127.0.0.2:8333"), false);
    for word in ["node, up", "Core", "/Satoshi:27.0.0/", "860000", "1000 sent", "Last results"] {
        assert!(node.contains(word), "{word}: {node}");
    }
    let candidate = status_text(&database, Some("127.0.0.1"), false);
    assert!(
        candidate.contains("candidate, never responded") && candidate.contains("connect_timeout")
    );
    let named = status_text(&database, Some("Pizarro"), false);
    assert!(named.starts_with("127.0.0.3:8333"), "{named}");
    assert_eq!(status_text(&database, Some("127.0.0.99"), false), "127.0.0.99: unknown\n");
}

#[test]
fn json_holds_the_same_figures() {
    let database = filled();
    let overview: serde_json::Value =
        serde_json::from_str(&status_text(&database, None, true)).unwrap();
    assert_eq!(overview["species"][0]["species"], "TRB");
    assert_eq!(overview["candidates"]["all"], 3);
    assert_eq!(overview["passes"][0]["finished_at"], serde_json::Value::Null);
    let found: serde_json::Value =
        serde_json::from_str(&status_text(&database, Some("127.0.0.2"), true)).unwrap();
    let node = &found["addresses"][0];
    assert_eq!(node["host"], "127.0.0.2");
    assert_eq!(node["node"]["user_agent"], "/Satoshi:27.0.0/\\\\ \\x09");
    assert_eq!(node["node"]["services"], i64::MIN + 0x409);
    assert_eq!(node["probes"][0]["outcome"], "responded");
    let none: serde_json::Value =
        serde_json::from_str(&status_text(&database, Some("127.0.0.99"), true)).unwrap();
    assert_eq!(none["addresses"], serde_json::json!([]));
}

#[test]
fn an_absent_or_frozen_database_times_out_within_seconds() {
    let cluster = Cluster::start();
    let database = cluster.database();
    migrate::migrate(&database.url).unwrap();
    cluster.freeze_server(true);
    let start = Instant::now();
    let error = status::text(&database.url, None, false).unwrap_err();
    assert!(error.to_string().contains("did not answer within 5s"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(7));
    cluster.freeze_server(false);
    cluster.stop_server();
    let start = Instant::now();
    let error = status::text(&database.url, None, false).unwrap_err();
    assert!(error.to_string().contains("cannot reach the database"), "{error}");
    assert!(start.elapsed() < Duration::from_secs(7));
}
