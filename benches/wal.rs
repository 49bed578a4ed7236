//! The write-ahead log of a day of crawling, by cause, with a private PostgreSQL and stock settings
//! except `fsync`, which changes no figure here.
//!
//! `cargo bench --bench wal -- [--passes 48] [--candidates 750000] [--nodes 9000] [--failed 10000]
//! [--heard 5000] [--checkpoints 1]`
//!
//! A checkpoint follows every part of a pass: the first change of a page after a checkpoint logs
//! the whole page. The stock timeout is five minutes, and a pass on 800 sockets takes less: one
//! part. On 50 sockets it takes three of them. Nodes are probed first, so their results are in the
//! first part; candidates are spread over all of them.

#![allow(clippy::disallowed_methods)] // a bench reads the clock

#[path = "../tests/support/mod.rs"]
mod support;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::{Duration, Instant};

use bitdash::db::writer::{CompactionParams, CompactionReport, Store};
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::rows::{
    Batch, FailedRow, HeardRow, NodeRow, PassRow, ProbeRow, Seen, SourceRow, Status,
};
use bitdash_core::vocabulary::target::VersionInfo;
use bitdash_core::vocabulary::time::UnixTime;
use postgres::Client;
use support::Cluster;
use support::rows::{lineage, ready};

const PASS: i64 = 1_800;
const START: i64 = 1_790_000_000;
const PASSES_PER_DAY: u64 = 48;
const ROWS_PER_BATCH: usize = 5_000;
/// Number of times that a query is timed.
const REPETITIONS: usize = 9;
/// One node of this number is a TRB node.
const TRB_SHARE: u64 = 190;
/// Passes between two `getaddr`s to a node.
const GETADDR_PASSES: u64 = 48;
/// Nodes that are down; each is probed about once a day.
const DOWN: u64 = 10_000;
/// Number of /16s of 9,000 nodes; most of them change in a pass.
const SOURCES: u16 = 5_000;
const RESULTS_PER_NODE: u32 = 25;

struct Size {
    passes: u64,
    candidates: u64,
    nodes: u64,
    failed: u64,
    heard: u64,
    checkpoints: u64,
}

fn main() {
    let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    let mut size = Size {
        passes: 48,
        candidates: 750_000,
        nodes: 9_000,
        failed: 10_000,
        heard: 5_000,
        checkpoints: 1,
    };
    while let Some(name) = arguments.next() {
        let value = arguments.next().and_then(|text| text.parse().ok()).expect("a number");
        match name.as_str() {
            "--passes" => size.passes = value,
            "--candidates" => size.candidates = value,
            "--nodes" => size.nodes = value,
            "--failed" => size.failed = value,
            "--heard" => size.heard = value,
            "--checkpoints" => size.checkpoints = value,
            other => panic!("unknown argument {other}"),
        }
    }
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut store = ready(&database);
    let mut admin = cluster.admin();
    for name in
        ["full_page_writes", "wal_level", "checkpoint_timeout", "max_wal_size", "server_version"]
    {
        let value: String = admin.query_one(&format!("SHOW {name}"), &[]).unwrap().get(0);
        println!("{name} = {value}");
        assert!(name != "full_page_writes" || value == "on");
    }
    let mut world = World::new(size);
    world.fill(&mut store);
    while compact(&mut store, 0).is_some() {}
    let mut meter = Meter { admin, owner: database.client(), causes: BTreeMap::new() };
    meter.checkpoint();
    let begin = meter.lsn();
    let started = Instant::now();
    for pass in 1..=world.size.passes {
        world.pass(pass, &mut store, &mut meter);
        if pass == PASSES_PER_DAY / 2 {
            time_queries(&database, &world);
        }
    }
    let total = meter.lsn() - begin;
    report(&mut store, &database, &world, &meter, total, started.elapsed());
}

/// What people ask most, in the middle of a day: journals are half full, nodes were updated 24
/// times.
fn time_queries(database: &support::Database, world: &World) {
    let mut client = database.client();
    let candidate = World::address(world.nodes() + 1).ip();
    let node = World::address(1).ip();
    println!("in the middle of a day, median of {REPETITIONS}:");
    for sql in [
        "SELECT * FROM nodes WHERE species = 'TRB'".to_owned(),
        format!("SELECT * FROM address('{candidate}')"),
        format!("SELECT * FROM address('{node}')"),
        "SELECT * FROM address('1.2.3.4')".to_owned(),
        format!("SELECT * FROM probes WHERE host = '{node}'"),
    ] {
        let mut count = 0;
        let mut times = [(); REPETITIONS].map(|()| {
            let begin = Instant::now();
            count = support::rows(&mut client, &sql).len();
            begin.elapsed()
        });
        times.sort();
        println!("  {sql}: {count} rows in {:.1?}", times[REPETITIONS / 2]);
    }
}

fn compact(store: &mut Store, pass: u64) -> Option<CompactionReport> {
    let now = UnixTime::from_secs(START + pass as i64 * PASS);
    store.compact_if_due(now, &CompactionParams::default()).unwrap()
}

/// The addresses, by number: nodes that are up, nodes that are down, candidates.
struct World {
    size: Size,
    rng: fastrand::Rng,
    known: u64,
    compaction_time: Duration,
    rows: u64,
    write_time: Duration,
}

impl World {
    fn new(size: Size) -> Self {
        let rng = fastrand::Rng::with_seed(1);
        let (compaction_time, write_time) = (Duration::ZERO, Duration::ZERO);
        Self { size, rng, known: 0, compaction_time, rows: 0, write_time }
    }

    /// Scattered over all of IPv4, like the addresses in gossip.
    fn address(number: u64) -> Address {
        let ip = (number as u32).wrapping_mul(0x9e37_79b1);
        Address::new(Ipv4Addr::from(ip), 8333)
    }

    fn nodes(&self) -> u64 {
        self.size.nodes + DOWN
    }

    fn fill(&mut self, store: &mut Store) {
        let mut batch = Batch::default();
        for number in 0..self.nodes() + self.size.candidates {
            let address = Self::address(number);
            batch.heard.insert(address, self.heard_row(START - 86_400));
            if number < self.nodes() {
                // Those that are down were last probed in turn, within a day.
                let age = if number < self.size.nodes { 48 } else { 48 - number as i64 % 48 };
                self.push_result(&mut batch, number, 0, START - age * PASS, true);
            } else {
                batch.failed.insert(address, self.failed_row(START - 3_600));
            }
            if batch.rows() > 50_000 {
                store.write(&std::mem::take(&mut batch), RESULTS_PER_NODE).unwrap();
            }
        }
        store.write(&batch, RESULTS_PER_NODE).unwrap();
        self.known = self.nodes() + self.size.candidates;
    }

    fn heard_row(&mut self, at: i64) -> HeardRow {
        let at = UnixTime::from_secs(at);
        HeardRow { at, next_probe: at, source: self.rng.u16(..SOURCES) }
    }

    fn failed_row(&mut self, at: i64) -> FailedRow {
        FailedRow {
            failures: self.rng.u32(1..9),
            last_probed: UnixTime::from_secs(at),
            last_outcome: Outcome::ConnectTimeout,
            next_probe: UnixTime::from_secs(at + self.rng.i64(3_600..1_209_600)),
        }
    }

    fn push_result(&mut self, batch: &mut Batch, number: u64, pass: u64, at: i64, is_up: bool) {
        let address = Self::address(number);
        let at = UnixTime::from_micros(at * 1_000_000 + self.rng.i64(0..1_000_000));
        // A node that is down for days is due once a day.
        let delay = if number < self.size.nodes { 60 } else { 86_400 };
        let version = VersionInfo {
            protocol_version: 70_016,
            services: 0x409 | (number % 8) << 1,
            timestamp: 0,
            user_agent: Some(format!(
                "/Satoshi:{}.{}.0/Knots:20250903/",
                20 + number % 9,
                number % 5
            )),
            start_height: Some(860_000 + pass as i32 * 3),
            relay: Some(true),
        };
        let (connect_ms, version_ms) = (Some(self.rng.u32(10..400)), Some(self.rng.u32(10..900)));
        let peers_sent = (number % GETADDR_PASSES == pass % GETADDR_PASSES).then_some(1000);
        let probe = ProbeRow {
            address,
            pass,
            probed_at: at,
            outcome: if is_up { Outcome::Responded } else { Outcome::ConnectTimeout },
            version: is_up.then(|| version.clone()),
            connect_ms: connect_ms.filter(|_| is_up),
            version_ms: version_ms.filter(|_| is_up),
            peers_sent: peers_sent.filter(|_| is_up),
        };
        let species = if number.is_multiple_of(TRB_SHARE) { "TRB" } else { "Knots" };
        let lineage = lineage(species, version.user_agent.as_deref());
        let seen = Seen { at, version, lineage, connect_ms, version_ms };
        let node = NodeRow {
            status: if is_up { Status::Up } else { Status::Down },
            last_probed: at,
            last_outcome: probe.outcome,
            failures: u32::from(!is_up),
            next_probe: at.plus(Duration::from_secs(delay)),
            seen: is_up.then_some(seen),
            peers: probe.peers_sent.map(|sent| (at, sent)),
        };
        batch.nodes.insert(address, node);
        batch.probes.push(probe);
    }

    fn pass(&mut self, pass: u64, store: &mut Store, meter: &mut Meter) {
        let start = START + pass as i64 * PASS;
        let mut row = PassRow { started_at: UnixTime::from_secs(start), ..PassRow::default() };
        let parts = self.size.checkpoints;
        for part in 0..parts {
            let of = |all: u64| all / parts + u64::from(part < all % parts);
            let at = start + part as i64 * PASS / parts as i64;
            if part == 0 {
                let down =
                    (self.size.nodes..self.nodes()).filter(|number| number % 48 == pass % 48);
                let mut numbers: Vec<u64> = (0..self.size.nodes).chain(down).collect();
                self.rng.shuffle(&mut numbers);
                self.write_results(store, meter, pass, at, &numbers);
                row.probed += numbers.len() as u64;
            }
            self.write_addresses(store, meter, at, of(self.size.failed), of(self.size.heard));
            row.probed += of(self.size.failed);
            let mut batch = Batch::default();
            batch.passes.insert(pass, row);
            meter.measure("passes", || self.write(store, &batch));
            if part + 1 < parts {
                meter.checkpoint();
            }
        }
        let mut batch = Batch::default();
        row.finished_at = Some(UnixTime::from_secs(start + PASS - 1));
        batch.passes.insert(pass, row);
        meter.measure("passes, history", || self.write(store, &batch));
        for _ in 0..SOURCES {
            batch.sources.insert(self.rng.u16(..SOURCES), SourceRow { tried: 50, answered: 2 });
        }
        batch.passes.clear();
        meter.measure("sources", || self.write(store, &batch));
        meter.analyze(pass);
        loop {
            let begin = (meter.lsn(), Instant::now());
            let Some(report) = compact(store, pass) else { break };
            let cause = match report.relation {
                "probes" => "compaction of probes",
                _ => "compaction of addresses",
            };
            *meter.causes.entry(cause).or_default() += meter.lsn() - begin.0;
            self.compaction_time = self.compaction_time.max(begin.1.elapsed());
            println!("pass {pass}: compaction {report} in {:.1?}", begin.1.elapsed());
        }
        meter.checkpoint();
    }

    fn write_addresses(
        &mut self,
        store: &mut Store,
        meter: &mut Meter,
        at: i64,
        failed: u64,
        heard: u64,
    ) {
        let mut batch = Batch::default();
        for number in self.known..self.known + heard {
            let row = self.heard_row(at);
            batch.heard.insert(Self::address(number), row);
        }
        self.known += heard;
        for _ in 0..failed {
            let number = self.rng.u64(self.nodes()..self.known);
            let row = self.failed_row(at);
            batch.failed.insert(Self::address(number), row);
        }
        meter.measure("candidates", || self.write(store, &batch));
    }

    fn write_results(
        &mut self,
        store: &mut Store,
        meter: &mut Meter,
        pass: u64,
        at: i64,
        numbers: &[u64],
    ) {
        for numbers in numbers.chunks(ROWS_PER_BATCH / 2) {
            let mut batch = Batch::default();
            for number in numbers {
                let is_up = *number < self.size.nodes && self.rng.u8(..) > 5;
                self.push_result(&mut batch, *number, pass, at, is_up);
            }
            // Apart only for the sake of the figures.
            let probes = std::mem::take(&mut batch.probes);
            meter.measure("nodes", || self.write(store, &batch));
            let batch = Batch { probes, ..Batch::default() };
            meter.measure("probes", || self.write(store, &batch));
        }
    }

    fn write(&mut self, store: &mut Store, batch: &Batch) {
        let begin = Instant::now();
        store.write(batch, RESULTS_PER_NODE).unwrap();
        self.write_time += begin.elapsed();
        self.rows += batch.rows() as u64;
    }
}

/// Reads the log's position.
struct Meter {
    admin: Client,
    owner: Client,
    causes: BTreeMap<&'static str, i64>,
}

impl Meter {
    fn lsn(&mut self) -> i64 {
        let sql = "SELECT pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::bigint";
        self.admin.query_one(sql, &[]).unwrap().get(0)
    }

    fn measure<T>(&mut self, cause: &'static str, body: impl FnOnce() -> T) -> T {
        let begin = self.lsn();
        let result = body();
        *self.causes.entry(cause).or_default() += self.lsn() - begin;
        result
    }

    fn checkpoint(&mut self) {
        let begin = self.lsn();
        self.admin.batch_execute("CHECKPOINT").unwrap();
        *self.causes.entry("checkpoints").or_default() += self.lsn() - begin;
    }

    /// What autovacuum does in a real day: at most once a pass, since it waits for a tenth more
    /// rows. The journals are never vacuumed.
    fn analyze(&mut self, pass: u64) {
        let begin = self.lsn();
        let journals = "bitdash_internal.address_journal, bitdash_internal.source_journal,
            bitdash_internal.probe_journal";
        // The nodes are analyzed once half of them have changed.
        let nodes = if pass.is_multiple_of(2) { ", nodes" } else { "" };
        let sql = format!("ANALYZE {journals}, passes, bitdash_internal.history_passes{nodes}");
        self.owner.batch_execute(&sql).unwrap();
        *self.causes.entry("analyze").or_default() += self.lsn() - begin;
    }
}

fn report(
    store: &mut Store,
    database: &support::Database,
    world: &World,
    meter: &Meter,
    total: i64,
    elapsed: Duration,
) {
    let size = &world.size;
    let mb = |bytes: i64| bytes as f64 / 1e6;
    let failed = (size.passes * size.failed) as f64;
    println!(
        "\n{} passes, {} nodes up, {} candidates at start",
        size.passes, size.nodes, size.candidates
    );
    println!("{:<24}{:>10}{:>14}", "log by cause", "MB", "MB a pass");
    for (cause, bytes) in &meter.causes {
        println!("{cause:<24}{:>10.1}{:>14.3}", mb(*bytes), mb(*bytes) / size.passes as f64);
    }
    let known: i64 = meter.causes.values().sum();
    println!("{:<24}{:>10.1}", "everything else", mb(total - known));
    println!("{:<24}{:>10.1}{:>14.3}", "all", mb(total), mb(total) / size.passes as f64);
    let day = PASSES_PER_DAY as f64 / size.passes as f64;
    println!("all, in 24 hours: {:.1} MB", mb(total) * day);
    let of = |cause| meter.causes.get(cause).copied().unwrap_or(0) as f64;
    println!(
        "bytes per probed candidate: {:.1} appended, {:.1} with sources and compaction",
        of("candidates") / failed,
        (of("candidates") + of("sources") + of("compaction of addresses")) / failed
    );
    println!(
        "rows written: {} in {:.1?}: {:.0} a second",
        world.rows,
        world.write_time,
        world.rows as f64 / world.write_time.as_secs_f64()
    );
    println!("longest compaction: {:.1?}; all of it took {elapsed:.1?}", world.compaction_time);
    let begin = Instant::now();
    let mut count = 0_u64;
    store.load(&mut |_| count += 1).unwrap();
    println!("load of {count} addresses: {:.2?}", begin.elapsed());
    let host = format!("'{}'", World::address(world.nodes()).ip());
    for sql in [
        "SELECT count(*) FROM nodes",
        "SELECT count(user_agent) FROM (SELECT * FROM nodes OFFSET 0) n",
        "SELECT count(*) FROM addresses",
        "SELECT count(*) FROM addresses WHERE host = (SELECT host FROM nodes LIMIT 1)",
        "SELECT count(*) FROM (SELECT * FROM nodes WHERE species = 'TRB' OFFSET 0) n",
        "SELECT count(*) FROM address('1.2.3.4')",
        "SELECT count(*) FROM address(HOST)",
        "SELECT count(*) FROM probes WHERE host = (SELECT host FROM nodes LIMIT 1)",
        "SELECT count(*) FROM probes",
        "SELECT count(*) FROM (SELECT DISTINCT host FROM probes) h",
        "SELECT pg_size_pretty(pg_database_size(current_database()))",
    ] {
        let begin = Instant::now();
        let value = database.value(&sql.replace("HOST", &host));
        println!("{sql}: {value} in {:.2?}", begin.elapsed());
    }
}
