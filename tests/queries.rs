//! The ready queries of `sql/queries/`, run by psql as a reader: against a real crawl, and against
//! passes whose figures the test knows.

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use bitdash::db::writer::Store;
use bitdash_core::vocabulary::rows::{Batch, NodeRow, PassRow, SourceRow};
use bitdash_core::vocabulary::target::VersionInfo;
use bitdash_core::vocabulary::time::UnixTime;
use support::crawl::{Crawl, Simnet};
use support::rows::{address, at, down, ready, up, version};
use support::{Cluster, Database};

const DAY: i64 = 86_400;
/// Passes of a day; the first day of the test begins at a midnight.
const PASSES: i64 = 4;
/// The first second of the first of October 2026, as seconds of `support::rows::at`.
const OCTOBER: i64 = 1_790_812_800 - support::rows::T0;

fn directory() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("sql/queries")
}

fn names() -> Vec<String> {
    let entries = fs::read_dir(directory()).unwrap().map(|entry| entry.unwrap().file_name());
    let mut names: Vec<String> = entries.map(|name| name.into_string().unwrap()).collect();
    names.sort();
    names
}

/// A role that may read and nothing else.
fn reader(database: &Database) -> &'static str {
    let mut admin = Cluster::shared().admin();
    let role = "DO $$ BEGIN CREATE ROLE reader LOGIN; EXCEPTION WHEN OTHERS THEN NULL; END $$";
    admin.batch_execute(role).unwrap();
    let grant = "GRANT SELECT ON ALL TABLES IN SCHEMA public TO reader";
    database.client().batch_execute(grant).unwrap();
    "reader"
}

/// What psql prints for a file: the columns, then the rows, cells separated by `|`.
fn run(database: &Database, name: &str) -> Vec<String> {
    let role = reader(database);
    let script = format!(
        "cd {:?} && PGUSER={role} PGTZ=America/New_York psql -X -A -P footer=off -P null=- \
            -v ON_ERROR_STOP=1 -d {} -c '\\i {name}'",
        directory().display().to_string(),
        database.name
    );
    Cluster::shared().shell(&script).lines().map(str::to_owned).collect()
}

#[test]
fn every_query_says_what_it_shows_and_is_documented() {
    let documented = fs::read_to_string(directory().join("../../docs/database.md")).unwrap();
    assert!(names().len() >= 6);
    for name in names() {
        let text = fs::read_to_string(directory().join(&name)).unwrap();
        assert!(name.ends_with(".sql") && text.starts_with("-- "), "{name}");
        assert!(text.ends_with(";\n") && text.matches(';').count() == 1, "{name}: one statement");
        assert!(documented.contains(&format!("`{name}`")), "{name} is not in docs/database.md");
    }
}

#[test]
fn every_query_runs_on_a_real_crawl_and_on_an_empty_database() {
    let simnet = Simnet::start(&["--nodes", "200", "--dead", "200", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let empty = Cluster::shared().database();
    drop(ready(&empty));
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[]);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    let mut counts = BTreeMap::new();
    for name in names() {
        assert_eq!(run(&empty, &name).len(), 1, "{name}: no rows but the columns");
        counts.insert(name.clone(), run(&database, &name).len() - 1);
    }
    let count = |sql: &str| database.value(sql).parse::<usize>().unwrap();
    assert_eq!(counts["lost_since_yesterday.sql"], 0);
    let species = "SELECT count(DISTINCT species) FROM nodes WHERE status = 'up'";
    assert_eq!(counts["species_over_time.sql"], count(species));
    assert_eq!(counts["longest_uptime.sql"], 50);
    assert_eq!(counts["trb_over_the_years.sql"], 1);
    let sources = "SELECT least(count(*), 50) FROM sources WHERE tried > answered";
    assert_eq!(counts["spam_sources.sql"], count(sources));
    assert!(counts["networks.sql"] > 0);
}

/// Whether node 1 to 9 answers in a pass: 1 to 4 always, 5 until the second day, 6 from it on, 7 to
/// 9 in every second pass.
fn answers(node: u8, pass: i64) -> bool {
    match node {
        1..=4 => true,
        5 => pass <= PASSES,
        6 => pass > PASSES,
        _ => (pass + i64::from(node)) % 2 == 0,
    }
}

fn species(node: u8) -> &'static str {
    if node < 3 { "TRB" } else { "Core" }
}

fn node_row(node: u8, seconds: i64, answers: bool) -> NodeRow {
    if !answers {
        return down(seconds, 1);
    }
    let mut row = up(seconds, VersionInfo { user_agent: Some(format!("/{node}/")), ..version() });
    row.seen.as_mut().unwrap().lineage.species = species(node).into();
    row
}

fn end_pass(store: &mut Store, pass: i64, nodes: u8) {
    let seconds = OCTOBER + (pass - 1) * DAY / PASSES + 600;
    let mut batch = Batch::default();
    for node in 1..=nodes {
        let row = node_row(node, seconds - 9, answers(node, pass) || pass == 1);
        batch.nodes.insert(address(node), row);
    }
    let row = PassRow {
        started_at: at(seconds - 60),
        finished_at: Some(UnixTime::from_secs(at(seconds).as_secs())),
        ..PassRow::default()
    };
    batch.passes.insert(u64::try_from(pass).unwrap(), row);
    batch.sources.insert(0x7f00, SourceRow { tried: 90, answered: 9 });
    batch.sources.insert(0x0a01, SourceRow { tried: 500, answered: 1 });
    batch.sources.insert(0x0a02, SourceRow { tried: 7, answered: 7 });
    store.write(&batch, 25).unwrap();
    while store.close_day().unwrap().is_some() {}
}

/// Two closed days and one pass of the third, the ninth in all.
fn three_days() -> Database {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    for pass in 1..=2 * PASSES + 1 {
        end_pass(&mut store, pass, 9);
    }
    database
}

#[test]
fn lost_nodes_are_those_of_the_roll_of_yesterday() {
    let database = three_days();
    let rows = run(&database, "lost_since_yesterday.sql");
    assert_eq!(rows[0], "host|port|name|species|user_agent|last_seen|last_outcome");
    // The ninth pass against the fifth, a day before.
    let is_lost = |node: &u8| answers(*node, 5) && !answers(*node, 9);
    assert_eq!((1..=9).filter(is_lost).count(), 0);
    let mut store = Store::connect(&database.url).unwrap();
    end_pass(&mut store, 2 * PASSES + 2, 9);
    let is_lost = |node: &u8| answers(*node, 6) && !answers(*node, 10);
    assert_eq!((1..=9).filter(is_lost).count(), 0);
    // Nodes 2 and 6 fail in the next pass.
    let mut batch = Batch::default();
    let seconds = OCTOBER + 10 * DAY / PASSES + 600;
    for node in [2, 6] {
        batch.nodes.insert(address(node), down(seconds - 9, 1));
    }
    let row = PassRow {
        started_at: at(seconds - 60),
        finished_at: Some(at(seconds)),
        ..PassRow::default()
    };
    batch.passes.insert(11, row);
    store.write(&batch, 25).unwrap();
    let rows = run(&database, "lost_since_yesterday.sql");
    let lost: Vec<&str> = rows[1..].iter().map(|row| row.split('|').next().unwrap()).collect();
    // A day before is the seventh pass.
    let is_lost = |node: &u8| answers(*node, 7) && ([2, 6].contains(node) || !answers(*node, 10));
    let expected: Vec<String> =
        (1..=9).filter(is_lost).map(|node| format!("127.0.0.{node}")).collect();
    assert_eq!((lost.len(), lost), (4, expected.iter().map(String::as_str).collect()));
    assert!(rows[1].contains("|TRB|/2/|") && rows[1].ends_with("|refused"), "{rows:?}");
}

#[test]
fn shares_of_species_are_those_of_the_passes_of_each_day() {
    let database = three_days();
    let rows = run(&database, "species_over_time.sql");
    let mut expected = vec!["day|species|percent".to_owned()];
    for (day, passes) in [(1, 1..=PASSES), (2, PASSES + 1..=2 * PASSES), (3, 9..=9)] {
        let up = |node: u8, pass: i64| f64::from(u8::from(answers(node, pass) || pass == 1));
        let sum = |nodes: std::ops::RangeInclusive<u8>| -> f64 {
            passes.clone().map(|pass| nodes.clone().map(|node| up(node, pass)).sum::<f64>()).sum()
        };
        let (trb, all) = (sum(1..=2), sum(1..=9));
        for (name, nodes) in [("Core", all - trb), ("TRB", trb)] {
            expected.push(format!("2026-10-0{day}|{name}|{:.2}", 100.0 * nodes / all));
        }
    }
    assert_eq!(rows, expected);
}

#[test]
fn networks_are_named_and_a_16_stands_in_for_unknown_ones() {
    let database = three_days();
    let rows = run(&database, "networks.sql");
    let up = (1..=9).filter(|node| answers(*node, 9)).count();
    let heading = "network|name|country|up|percent|trb";
    assert_eq!(rows, [heading, &format!("127.0.0.0/16|-|-|{up}|100.00|2")]);
    let places = "UPDATE nodes SET asn = 24940, as_name = 'Hetzner', country = 'DE'
        WHERE host <= '127.0.0.4'";
    database.client().batch_execute(places).unwrap();
    let share = |count: usize| format!("{:.2}", 100.0 * count as f64 / up as f64);
    let mut rows = run(&database, "networks.sql");
    rows[1..].sort();
    let others = up - 4;
    assert_eq!(
        rows,
        [
            heading,
            &format!("127.0.0.0/16|-|-|{others}|{}|0", share(others)),
            &format!("AS24940|Hetzner|DE|4|{}|2", share(4)),
        ]
    );
}

#[test]
fn sources_of_dead_addresses_are_ranked_by_their_number() {
    let database = three_days();
    let up = (1..=9).filter(|node| answers(*node, 9)).count();
    assert_eq!(
        run(&database, "spam_sources.sql"),
        [
            "source|tried|answered|percent|nodes_up",
            "10.1.0.0/16|500|1|0.2|0",
            &format!("127.0.0.0/16|90|9|10.0|{up}"),
        ]
    );
}

#[test]
fn the_longest_uptime_counts_every_pass_since_a_node_is_known() {
    let database = three_days();
    let rows = run(&database, "longest_uptime.sql");
    let of = |node: u8| {
        let all = 2 * PASSES + 1;
        let answered = (1..=all).filter(|pass| answers(node, *pass) || *pass == 1).count();
        format!("127.0.0.{node}|8333|-|{}|/{node}/|{answered}|{all}|", species(node))
    };
    assert_eq!(rows.len(), 10);
    for node in 1..=9 {
        let row = rows.iter().find(|row| row.starts_with(&format!("127.0.0.{node}|"))).unwrap();
        assert!(row.starts_with(&of(node)), "{row}: {}", of(node));
        let is_up = answers(node, 2 * PASSES + 1);
        assert_eq!(row.ends_with("|-"), !is_up, "{row}");
    }
    let answered: Vec<i64> =
        rows[1..].iter().map(|row| row.split('|').nth(5).unwrap().parse().unwrap()).collect();
    assert!(answered.is_sorted_by(|a, b| a >= b), "{rows:?}");
}

#[test]
fn trb_over_the_years_joins_closed_days_and_later_passes() {
    let database = three_days();
    let mut store = Store::connect(&database.url).unwrap();
    // Both TRB nodes fail in the tenth pass.
    let mut batch = Batch::default();
    let seconds = OCTOBER + 9 * DAY / PASSES + 600;
    for node in [1, 2] {
        batch.nodes.insert(address(node), down(seconds - 9, 1));
    }
    let row = PassRow {
        started_at: at(seconds - 60),
        finished_at: Some(at(seconds)),
        ..PassRow::default()
    };
    batch.passes.insert(10, row);
    store.write(&batch, 25).unwrap();
    assert_eq!(
        run(&database, "trb_over_the_years.sql"),
        ["month|passes|nodes|lowest|highest|bar", "2026-10|10|1.8|0|2|##"]
    );
}
