//! Time, memory and size of the website, with 20,000 nodes, 25 results of each and five years of
//! history, against a private PostgreSQL with stock settings except `fsync`. With the packages of
//! `tests/site`, which `scripts/test` installs, Chromium measures its pages, too.
//!
//! `cargo bench --profile release-quick --bench site`

#[path = "../tests/support/mod.rs"]
mod support;

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use bitdash::db::writer::Store;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::rows::{Batch, NodeRow, PassRow, ProbeRow};
use bitdash_core::vocabulary::target::VersionInfo;
use support::measure::{Cost, limited_cost_of};
use support::rows::{at, down, lineage, probe, ready, up, version};
use support::{Cluster, Database};

const NODES: u32 = 20_000;
/// Results of a node that are kept.
const RESULTS: u64 = 25;
const PASS_INTERVAL: i64 = 1_800;
const YEARS: u32 = 5;

fn main() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut store = ready(&database);
    for pass in 1..=RESULTS {
        crawl(&mut store, pass);
        if pass == 1 {
            place(&database);
        }
    }
    bitdash_simnet::past::invent(&database.url, YEARS, 1).unwrap();
    database.client().batch_execute("VACUUM ANALYZE").unwrap();
    println!("{NODES} nodes, {RESULTS} results of each, {YEARS} years:");
    let directory = tempfile::tempdir().unwrap();
    let site = directory.path().join("site");
    let full = run(&database, &site, &[], 1.0);
    report("everything", &full);
    println!("  {} files, {:.1} MB", files(&site).0, files(&site).1 as f64 / 1e6);
    report("everything again", &run(&database, &site, &[], 1.0));
    crawl(&mut store, RESULTS + 1);
    report("after a pass", &run(&database, &site, &["--due"], 1.0));
    fs::remove_dir_all(&site).unwrap();
    report("everything, a fifth of a core", &run(&database, &site, &[], 0.2));
    look(&site);
}

/// A pass that meets all nodes; 45 % of them are up.
fn crawl(store: &mut Store, pass: u64) {
    let end = pass as i64 * PASS_INTERVAL;
    let mut batch = Batch::default();
    for node in 0..NODES {
        let address = Address::new((0x7f00_0000 + node).into(), 8333);
        let is_up = node % 100 < 45;
        // In the first pass all are up: what never responded is no node.
        let row = if is_up || pass == 1 { node_up(node, end - 9) } else { down(end - 9, 1) };
        batch.nodes.insert(address, row);
        batch.probes.push(ProbeRow { address, probed_at: at(end - 9), ..probe(0, pass) });
    }
    let row =
        PassRow { started_at: at(end - 200), finished_at: Some(at(end)), ..PassRow::default() };
    batch.passes.insert(pass, row);
    store.write(&batch, RESULTS as u32).unwrap();
}

/// With about as many different values as the real network has.
fn node_up(node: u32, seconds: i64) -> NodeRow {
    // Few values are common, and most are rare.
    let kind = (node.wrapping_mul(2_654_435_761) >> 22).pow(2) >> 12;
    let (species, user_agent) = match node {
        _ if node.is_multiple_of(190) => {
            ("TRB", format!("/therealbitcoin.org:0.9.99.{}/", kind % 9))
        }
        _ if node.is_multiple_of(17) => {
            ("Knots", format!("/Satoshi:29.{}.0/Knots:20250305/", kind % 3))
        }
        _ => ("Core", format!("/Satoshi:{}.{}.0/", 30 - kind % 30, kind / 30)),
    };
    let services = 1_033 + u64::from(kind % 90);
    let mut row = up(seconds, VersionInfo { user_agent: Some(user_agent), services, ..version() });
    if let Some(seen) = &mut row.seen {
        seen.lineage = lineage(species, seen.version.user_agent.as_deref());
    }
    row
}

fn place(database: &Database) {
    let sql = "UPDATE nodes SET
            country = chr(65 + (power(random(), 2) * 25)::integer) || chr(65 + (power(random(), 3) * 5)::integer),
            asn = n, as_name = 'network ' || n
        FROM (SELECT host AS h, (power(random(), 3) * 1800)::integer AS n FROM nodes) o WHERE h = host";
    database.client().batch_execute(sql).unwrap();
}

fn run(database: &Database, site: &Path, arguments: &[&str], share: f64) -> Cost {
    let mut command = Command::new(env!("CARGO_BIN_EXE_bitdash"));
    command.args(["site", "--out"]).arg(site).args(arguments);
    command.current_dir(site.parent().unwrap()).env("BITDASH_DATABASE_URL", &database.url);
    limited_cost_of(command.stdin(Stdio::null()).stdout(Stdio::null()), share)
}

fn report(what: &str, cost: &Cost) {
    println!(
        "  {what:30} {:>5.1} s, {:>4.1} s of processor, {:>5.1} MB of memory",
        cost.time.as_secs_f64(),
        cost.processor.as_secs_f64(),
        cost.memory as f64 / 1e6
    );
}

/// Number and size of the files below a directory.
fn files(directory: &Path) -> (u64, u64) {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.fold((0, 0), |(count, bytes), entry| {
        let data = entry.metadata().unwrap();
        let (more, size) = if data.is_dir() { files(&entry.path()) } else { (1, data.len()) };
        (count + more, bytes + size)
    })
}

fn look(site: &Path) {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/site");
    if !tools.join("node_modules").is_dir() {
        println!("  its pages are not measured: scripts/test installs what that takes");
        return;
    }
    let measured = Command::new("node").arg(tools.join("measure.js")).arg(site).status().unwrap();
    assert!(measured.success());
}
