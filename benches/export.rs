//! Time and memory of `bitdash export`, with 30 days of rolls at the default interval, against a
//! private PostgreSQL with stock settings except `fsync`.
//!
//! `cargo bench --profile release-quick --bench export [-- --nodes 20000]`; without a number,
//! 20,000 and a million nodes.

#![allow(clippy::disallowed_methods)] // a bench reads the clock and sleeps

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use support::measure::{Cost, cost_of};
use support::rows::ready;
use support::{Cluster, Database};

const PASSES: i64 = 30 * 48;
const REPETITIONS: usize = 5;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut sizes = vec![20_000, 1_000_000];
    while let Some(name) = arguments.next() {
        assert_eq!(name, "--nodes", "unknown argument");
        sizes = vec![arguments.next().and_then(|text| text.parse().ok()).expect("a number")];
    }
    let cluster = Cluster::start();
    for nodes in sizes {
        let database = cluster.database();
        drop(ready(&database));
        fill_nodes(&database, nodes);
        fill_rolls(&database, nodes);
        database.client().batch_execute("VACUUM ANALYZE").unwrap();
        println!("{nodes} nodes, {PASSES} passes in the rolls, median of {REPETITIONS}:");
        let now = time_of_a_past_pass(&database);
        for arguments in [
            &["csv"][..],
            &["seeds"],
            &["json"],
            &["json", "--layout", "rows"],
            &["json", "--at", &now],
            &["uainfo"],
        ] {
            measure(&database, arguments);
        }
    }
}

/// Nodes of which 45 % are up, with values as frequent as those of the real network.
fn fill_nodes(database: &Database, nodes: i32) {
    let sql = format!(
        "INSERT INTO nodes SELECT '20.0.0.0'::inet + n, 8333, NULL, CASE WHEN n % 100 < 45 THEN 'up' ELSE 'down' END,
            CASE WHEN n % 190 = 0 THEN 'TRB' ELSE 'Core' END, 'Core 27', 70016,
            '/Satoshi:' || (power(random(), 3) * 320)::integer || '.0.0/', 1033, 900000, true, 30, 60, 'DE', n % 1800,
            'network', now(), now(), now(), CASE WHEN n % 100 < 45 THEN 'responded' ELSE 'refused' END,
            (n % 100 >= 45)::integer, 'infinity', now(), 1000
        FROM generate_series(0, {nodes} - 1) n;
        INSERT INTO bitdash_internal.node_ordinals SELECT host, port, row_number() OVER (ORDER BY host) - 1 FROM nodes;
        INSERT INTO passes SELECT n, at - interval '1 minute', at, 1, 1, 0, 0, 0, 1, 0, false
            FROM (SELECT n, now() - ({PASSES} - n) * interval '30 minutes' AS at FROM generate_series(1, {PASSES}) n) p"
    );
    database.client().batch_execute(&sql).unwrap();
}

/// A roll for each pass, a third of the nodes up; a tenth flaps.
fn fill_rolls(database: &Database, nodes: i32) {
    let mut client = database.client();
    let mut rng = fastrand::Rng::with_seed(2);
    let bytes = nodes as usize / 8;
    let full = vec![0_u8; bytes];
    let mut t = client.transaction().unwrap();
    let insert = "INSERT INTO rolls SELECT $1, finished_at, $2, $3, $4 FROM passes WHERE pass = $1";
    for pass in 1..=PASSES {
        let up: Vec<u8> =
            (0..bytes).map(|byte| if byte % 10 < 6 { 0b1101_0111 } else { rng.u8(..) }).collect();
        t.execute(insert, &[&pass, &nodes, &up, &full]).unwrap();
    }
    let sums: Vec<i32> = (0..nodes).map(|node| node % 26_000).collect();
    let insert = "INSERT INTO bitdash_internal.roll_totals (answered, passes) VALUES ($1, $1)";
    t.execute(insert, &[&sums]).unwrap();
    t.commit().unwrap();
}

fn time_of_a_past_pass(database: &Database) -> String {
    let sql = "SELECT to_char(at AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS') FROM rolls WHERE pass = $1";
    database.client().query_one(sql, &[&(PASSES / 2)]).unwrap().get(0)
}

fn measure(database: &Database, arguments: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("out");
    let mut runs: Vec<Cost> = (0..REPETITIONS).map(|_| run(database, arguments, &file)).collect();
    runs.sort_by_key(|run| run.time);
    let memory = runs.iter().map(|run| run.memory).max().unwrap_or(0);
    let size = fs::metadata(&file).unwrap().len();
    println!(
        "  {:30} {:>6} ms  {:>5.1} MB of memory  {:>6.1} MB written",
        arguments.join(" "),
        runs[REPETITIONS / 2].time.as_millis(),
        memory as f64 / 1e6,
        size as f64 / 1e6
    );
}

fn run(database: &Database, arguments: &[&str], file: &Path) -> Cost {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitdash"));
    command.arg("export").args(arguments).arg("--out").arg(file);
    command.current_dir(file.parent().unwrap()).env("BITDASH_DATABASE_URL", &database.url);
    cost_of(command.stdin(Stdio::null()))
}
