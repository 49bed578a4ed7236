//! History, rolls and events after ten years of passes every 10 minutes, in a private PostgreSQL
//! with stock settings except `fsync`.
//!
//! `cargo bench --bench history -- [--passes-per-day 144] [--attack-days 30]`
//!
//! The rows of ten years are generated in the form that they have then, from a pass of 20,000
//! nodes. A further day is crawled: its pass ends, each after a checkpoint, and its closing. Then
//! nodes that send a new user agent in every pass attack another database.

#![allow(clippy::disallowed_methods)] // a bench reads the clock

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use bitdash::db::timestamp::Timestamp;
use bitdash::db::writer::Store;
use bitdash_core::vocabulary::rows::{Batch, PassRow};
use bitdash_core::vocabulary::time::UnixTime;
use postgres::Client;
use support::rows::ready;
use support::{Cluster, Database};

const DAY: i64 = 86_400;
/// The midnight that ends the ten years.
const END: i64 = 21_000 * DAY;
const DAYS: i64 = 3_650;
const NODES: i32 = 20_000;
const EVENTS: i64 = 73_000;
const REPETITIONS: usize = 9;

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let (mut passes, mut attack_days) = (144, 30);
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|text| text.parse().ok()).expect("a number");
        match name.as_str() {
            "--passes-per-day" => passes = value,
            "--attack-days" => attack_days = value,
            other => panic!("unknown argument {other}"),
        }
    }
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut store = ready(&database);
    fill_nodes(&database, NODES);
    end_pass(&mut store, 1, END - 30 * DAY);
    fill_history(&database, passes);
    fill_rolls(&database, passes);
    fill_events(&database);
    database.client().batch_execute("VACUUM ANALYZE").unwrap();
    println!("ten years of {passes} passes a day, {NODES} nodes:");
    let total: i64 = ["history", "roll", "event"].iter().map(|kind| size(&database, kind)).sum();
    println!("  all: {:.1} MB (bound: 250)", megabytes(total));
    time_queries(&database);
    crawl_a_day(&cluster, &database, &mut store, passes);
    if attack_days == 0 {
        return;
    }
    let (quiet, _) = size_after(&cluster.database(), attack_days, false);
    let (attacked, wrong) = size_after(&cluster.database(), attack_days, true);
    println!(
        "{attack_days} days of an attacker with 2,000 nodes: {:.1} MB more than the {:.1} MB without (bound: 20); \
         wrong points of TRB's curve: {wrong}",
        megabytes(attacked - quiet),
        megabytes(quiet)
    );
}

/// Nodes of which 45 % are up, with values as frequent as those of the real network.
fn fill_nodes(database: &Database, nodes: i32) {
    let sql = format!(
        "INSERT INTO nodes SELECT '20.0.0.0'::inet + n, CASE WHEN n % 20 = 0 THEN 1024 + n % 300 ELSE 8333 END, NULL,
            CASE WHEN n % 100 < 45 THEN 'up' WHEN n % 100 < 48 THEN 'full' ELSE 'down' END,
            CASE WHEN n % 190 = 0 THEN 'TRB' WHEN n % 17 = 0 THEN 'Knots' ELSE 'Core' END, 'Core ' || least(n % 60, n % 9 + 20),
            70000 + least(n % 40, 16), '/Satoshi:' || (power(random(), 3) * 320)::integer || '.0.0/',
            1033 + (power(random(), 4) * 90)::integer, 900000, true, 30, 60,
            chr(65 + (power(random(), 2) * 25)::integer) || chr(65 + (power(random(), 3) * 5)::integer),
            (power(random(), 3) * 1800)::integer, 'network', now(), now(), now(),
            CASE WHEN n % 100 < 45 THEN 'responded' WHEN n % 100 < 48 THEN 'closed' ELSE 'refused' END,
            (n % 100 >= 45)::integer, 'infinity', now(), n % 3 * 1000
        FROM generate_series(0, {nodes} - 1) n"
    );
    database.client().batch_execute(&sql).unwrap();
}

/// Ends a pass and returns how long that took.
fn end_pass(store: &mut Store, pass: u64, at: i64) -> Duration {
    let row = PassRow {
        started_at: UnixTime::from_secs(at - 60),
        finished_at: Some(UnixTime::from_secs(at)),
        ..PassRow::default()
    };
    let batch = Batch { passes: BTreeMap::from([(pass, row)]), ..Batch::default() };
    let begin = Instant::now();
    store.write(&batch, 25).unwrap();
    begin.elapsed()
}

fn time(seconds: i64) -> Timestamp {
    Timestamp(UnixTime::from_secs(seconds))
}

/// Dimension, ids and counts of the first pass, which is removed.
fn first_pass(client: &mut Client) -> Vec<(String, Vec<i32>, Vec<i32>)> {
    let sql = "DELETE FROM bitdash_internal.history_passes RETURNING dimension, ids, nodes";
    let rows = client.query(sql, &[]).unwrap();
    let base: Vec<(String, Vec<i32>, Vec<i32>)> =
        rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect();
    println!("values of a pass: {}", base.iter().map(|(_, ids, _)| ids.len()).sum::<usize>());
    base
}

/// The counts of the first pass, varied: 30 days of passes, a year of hours, ten years of days.
fn fill_history(database: &Database, per_day: i64) {
    let mut client = database.client();
    let base = first_pass(&mut client);
    let mut rng = fastrand::Rng::with_seed(1);
    let mut t = client.transaction().unwrap();
    let pass_row = t
        .prepare("INSERT INTO bitdash_internal.history_passes VALUES ($1, $2, $3, $4, $5)")
        .unwrap();
    let step_row = t
        .prepare(
            "INSERT INTO bitdash_internal.history_steps VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)",
        )
        .unwrap();
    let mut vary = |counts: &[i32], passes: i32| -> Vec<i32> {
        counts.iter().map(|count| count * passes * rng.i32(95..=105) / 100 + 1).collect()
    };
    for pass in 1..=30 * per_day {
        let at = time(END - 30 * DAY + (pass - 1) * DAY / per_day + 1);
        for (dimension, ids, nodes) in &base {
            t.execute(&pass_row, &[&pass, &at, dimension, ids, &vary(nodes, 1)]).unwrap();
        }
    }
    let none = None::<Vec<i32>>;
    for (dimension, ids, nodes) in &base {
        let kept = if ["user_agent", "asn"].contains(&dimension.as_str()) { 101 } else { 201 };
        let kept = ids.len().min(kept);
        let (ids, nodes) = (ids[..kept].to_vec(), &nodes[..kept]);
        for hour in 0..366 * 24 {
            let at = time(END - 366 * DAY + hour * 3_600);
            let sums = vary(nodes, (per_day / 24) as i32);
            t.execute(
                &step_row,
                &[
                    dimension,
                    &b'h'.cast_signed(),
                    &at,
                    &((per_day / 24) as i32),
                    &1_i64,
                    &ids,
                    &sums,
                    &none,
                    &none,
                ],
            )
            .unwrap();
        }
        for day in 0..DAYS {
            let at = time(END - DAYS * DAY + day * DAY);
            let last = (30 - DAYS + day + 1).max(0) * per_day;
            let (sums, lows, highs) = (vary(nodes, per_day as i32), vary(nodes, 1), vary(nodes, 1));
            t.execute(
                &step_row,
                &[
                    dimension,
                    &b'd'.cast_signed(),
                    &at,
                    &144,
                    &last,
                    &ids,
                    &sums,
                    &Some(lows),
                    &Some(highs),
                ],
            )
            .unwrap();
        }
    }
    t.execute("UPDATE bitdash_internal.history_values SET in_days = true", &[]).unwrap();
    t.commit().unwrap();
}

/// 30 days of rolls and ten years of days; of the nodes a third is up, a tenth flaps.
fn fill_rolls(database: &Database, per_day: i64) {
    let mut client = database.client();
    let mut rng = fastrand::Rng::with_seed(2);
    let mut t = client.transaction().unwrap();
    t.execute("DELETE FROM rolls", &[]).unwrap();
    let bytes = NODES as usize / 8;
    let full = vec![0_u8; bytes];
    for pass in 1..=30 * per_day {
        let at = time(END - 30 * DAY + (pass - 1) * DAY / per_day + 1);
        let up: Vec<u8> =
            (0..bytes).map(|byte| if byte % 10 < 6 { 0b1101_0111 } else { rng.u8(..) }).collect();
        t.execute(
            "INSERT INTO rolls VALUES ($1, $2, $3, $4, $5)",
            &[&pass, &at, &NODES, &up, &full],
        )
        .unwrap();
    }
    for day in 0..DAYS {
        let share = |rng: &mut fastrand::Rng, node: i32| match node % 20 {
            0..9 => 0,
            9..18 => 250,
            _ => rng.u8(0..250),
        };
        let share: Vec<u8> = (0..NODES).map(|node| share(&mut rng, node)).collect();
        let at = time(END - DAYS * DAY + day * DAY);
        t.execute("INSERT INTO bitdash_internal.roll_days VALUES ($1, 144, $2)", &[&at, &share])
            .unwrap();
    }
    let totals: Vec<i32> = (0..NODES).map(|node| node * 26).collect();
    t.execute(
        "INSERT INTO bitdash_internal.roll_totals (answered, passes) VALUES ($1, $1)",
        &[&totals],
    )
    .unwrap();
    t.commit().unwrap();
}

fn fill_events(database: &Database) {
    let sql = format!(
        "DELETE FROM events; INSERT INTO events SELECT n, now(), n, 'agent', '20.0.0.0'::inet + n % 200, 8333, NULL,
            '/therealbitcoin.org:0.9.99.99/', '/therealbitcoin.org:0.9.99.100/' FROM generate_series(1, {EVENTS}) n"
    );
    database.client().batch_execute(&sql).unwrap();
}

fn size(database: &Database, kind: &str) -> i64 {
    let sql = "SELECT coalesce(sum(pg_total_relation_size(c.oid)), 0)::bigint FROM pg_class c
        WHERE c.relkind = 'r' AND c.relname ~ $1";
    let pattern = format!("^({kind}_|{kind}s$|node_ordinals$)");
    let pattern = if kind == "roll" { pattern } else { pattern.replace("|node_ordinals$", "") };
    let size = database.client().query_one(sql, &[&pattern]).unwrap().get(0);
    println!("  {kind}: {:.1} MB", megabytes(size));
    size
}

#[allow(clippy::cast_precision_loss)]
fn megabytes(bytes: i64) -> f64 {
    bytes as f64 / 1e6
}

fn time_queries(database: &Database) {
    let mut client = database.client();
    println!("queries, median of {REPETITIONS}:");
    let agent = database.value(
        "SELECT value FROM history WHERE pass = 1 AND dimension = 'user_agent' AND value <> '(other)'
        ORDER BY nodes DESC LIMIT 1",
    );
    let curve = |dimension: &str, value: &str, step: &str| {
        format!("SELECT * FROM history_of('{dimension}', '{value}', {step})")
    };
    let mut queries = Vec::new();
    for step in ["'day'", "'hour'", "'pass'", "NULL"] {
        queries.push(curve("species", "TRB", step));
        queries.push(curve("user_agent", &agent, step));
    }
    queries.push("SELECT * FROM history WHERE dimension = 'species' AND value = 'TRB'".to_owned());
    for function in ["uptime", "up_since", "roll_of"] {
        queries.push(format!("SELECT * FROM {function}('20.0.39.10', 8333)"));
    }
    for sql in queries {
        let mut times: Vec<Duration> = (0..REPETITIONS)
            .map(|_| {
                let begin = Instant::now();
                client.query(&sql, &[]).unwrap();
                begin.elapsed()
            })
            .collect();
        times.sort();
        let rows = client.query(&sql, &[]).unwrap().len();
        println!("  {sql}: {rows} rows, {} ms", times[REPETITIONS / 2].as_millis());
    }
}

/// Processor time that the server's process of this session has used, to 10 ms. Unlike the time
/// that passes, it does not grow with the load of the machine.
fn processor_time(store: &Store) -> Duration {
    let stat = format!("/proc/{}/stat", store.backend_id().pid);
    let stat = std::fs::read_to_string(stat).expect("the server runs on this machine");
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap().split_whitespace().collect();
    let ticks = |index: usize| fields[index].parse::<u64>().unwrap();
    Duration::from_millis(10 * (ticks(11) + ticks(12)))
}

fn lsn(admin: &mut Client) -> i64 {
    let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
    admin.query_one(sql, &[]).unwrap().get(0)
}

/// A day of pass ends at a time, while 2 % of the nodes come and go, and its closing.
fn crawl_a_day(cluster: &Cluster, database: &Database, store: &mut Store, per_day: i64) {
    let mut admin = cluster.admin();
    let mut client = database.client();
    let first = 30 * per_day + 1;
    let (mut times, mut written, mut used) = (Vec::new(), 0, Duration::ZERO);
    for pass in first..=first + per_day {
        let flap = format!(
            "UPDATE nodes SET status = CASE status WHEN 'up' THEN 'down' ELSE 'up' END,
                last_outcome = CASE status WHEN 'up' THEN 'refused' ELSE 'responded' END, failures = (status = 'up')::integer
            WHERE status <> 'full' AND hashint8(port + {pass} + (host - '20.0.0.0')) % 50 = 0"
        );
        client.batch_execute(&flap).unwrap();
        // Reading removes the old versions of rows: that is part of the updates,
        client.query("SELECT count(*) FROM nodes WHERE failures >= 0", &[]).unwrap();
        admin.batch_execute("CHECKPOINT").unwrap();
        // and so is the row of the pass.
        let started = PassRow { started_at: UnixTime::from_secs(END), ..PassRow::default() };
        let passes = BTreeMap::from([(pass as u64, started)]);
        store.write(&Batch { passes, ..Batch::default() }, 25).unwrap();
        let (begin, used_before) = (lsn(&mut admin), processor_time(store));
        let at = END + (pass - first) * DAY / per_day + 1;
        times.push(end_pass(store, pass as u64, at));
        written += lsn(&mut admin) - begin;
        used += processor_time(store) - used_before;
    }
    times.sort();
    let per_pass = megabytes(written) / times.len() as f64;
    println!(
        "end of a pass: median {} ms, longest {} ms, of processor time {} ms (bound: 500); \
            {:.1} kB of WAL after a checkpoint",
        times[times.len() / 2].as_millis(),
        times[times.len() - 1].as_millis(),
        used.as_millis() / times.len() as u128,
        per_pass * 1e3
    );
    admin.batch_execute("CHECKPOINT").unwrap();
    let (begin, started, used) = (lsn(&mut admin), Instant::now(), processor_time(store));
    assert!(store.close_day().unwrap().is_some());
    let closing = megabytes(lsn(&mut admin) - begin);
    println!(
        "closing a day: {} ms, of processor time {} ms (bound: 1,000); {closing:.2} MB of WAL",
        started.elapsed().as_millis(),
        (processor_time(store) - used).as_millis()
    );
    let day = per_pass * (times.len() - 1) as f64 + closing;
    println!("a day: {day:.2} MB of WAL (bound with 48 passes: 2)");
    assert!(store.close_day().unwrap().is_none());
}

/// The size of the history after some days at the default interval, and the number of wrong points
/// of TRB's curve. If attacked, 2,000 of 5,000 nodes change all their user agents in every pass.
fn size_after(database: &Database, days: i64, is_attacked: bool) -> (i64, i64) {
    let mut store = ready(database);
    let mut client = database.client();
    fill_nodes(database, 3_000);
    client
        .batch_execute(
            "INSERT INTO nodes SELECT '30.0.0.0'::inet + n, 8333, NULL, 'up', 'Core', NULL, 70016, 'x', 1033, 1, true,
                1, 1, NULL, NULL, NULL, now(), now(), now(), 'responded', 0, 'infinity', NULL, NULL
            FROM generate_series(1, 2000) n; CREATE TEMP TABLE trb (at timestamptz, nodes bigint)",
        )
        .unwrap();
    for pass in 1..=days * 48 {
        if is_attacked {
            // 10 nodes share an agent of 250 bytes: it gets a place of its own.
            let change = format!(
                "UPDATE nodes SET user_agent = rpad('/' || {pass} || ':' || (host - '30.0.0.0') / 10, 250, '!')
                WHERE host >= '30.0.0.0'"
            );
            client.batch_execute(&change).unwrap();
        }
        let at = END + pass * DAY / 48;
        end_pass(&mut store, pass as u64, at);
        let count = "INSERT INTO trb SELECT $1, count(*) FROM nodes WHERE species = 'TRB' AND status = 'up'";
        client.execute(count, &[&time(at)]).unwrap();
        while store.close_day().unwrap().is_some() {}
    }
    let sum = |sql: &str| -> i64 { database.client().query_one(sql, &[]).unwrap().get(0) };
    let bytes = sum("SELECT sum(pg_total_relation_size(oid))::bigint FROM pg_class
        WHERE relkind = 'r' AND relname LIKE 'history\\_%'");
    let wrong =
        "SELECT count(*) FROM trb LEFT JOIN history_of('species', 'TRB', 'pass') h ON h.at = trb.at
        WHERE h.nodes IS DISTINCT FROM trb.nodes";
    (bytes, client.query_one(wrong, &[]).unwrap().get(0))
}
