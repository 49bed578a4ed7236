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
const PASSES_PER_DAY: u64 = 48;
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
    let (number, bytes) = files(&site, &|_, size| size);
    println!("  {number} files, {:.1} MB", bytes as f64 / 1e6);
    report("everything again", &run(&database, &site, &[], 1.0));
    crawl(&mut store, RESULTS + 1);
    report("after a pass", &run(&database, &site, &["--due"], 1.0));
    let mut passes = RESULTS + 2..;
    let mut written_when_due = |part: &str| {
        crawl(&mut store, passes.next().unwrap());
        written_when_due(&database, &site, part)
    };
    let each = (0..4).map(|_| written_when_due("")).sum::<u64>() / 4;
    let [hourly, daily] = ["heavy_at", "history_day"].map(|part| written_when_due(part) - each);
    // Each hour, or with an interval of six.
    for heavy in [24, 4] {
        let day = PASSES_PER_DAY * each + heavy * hourly + daily;
        println!(
            "  written in a day of {PASSES_PER_DAY} passes, the heavy pages {heavy} times: {:.0} MB",
            day as f64 / 1e6
        );
    }
    fs::remove_dir_all(&site).unwrap();
    report("everything, a fifth of a core", &run(&database, &site, &[], 0.2));
    look(&site);
}

/// Bytes of the files that are written after a pass, with a part that is due by its state.
fn written_when_due(database: &Database, site: &Path, part: &str) -> u64 {
    let manifest = site.join(".bitdash-site");
    let text = fs::read_to_string(&manifest).unwrap();
    let lines = text.lines().filter(|line| part.is_empty() || !line.starts_with(part));
    fs::write(&manifest, lines.map(|line| format!("{line}\n")).collect::<String>()).unwrap();
    let time = |path: &Path| fs::metadata(path).unwrap().modified().unwrap();
    let since = time(&manifest);
    run(database, site, &["--due"], 1.0);
    files(site, &|path, size| if time(path) > since { size } else { 0 }).1
}

/// A pass that meets all nodes; 45 % of them are up.
fn crawl(store: &mut Store, pass: u64) {
    let end = pass as i64 * PASS_INTERVAL;
    let mut batch = Batch::default();
    for node in 0..NODES {
        let address = Address::new((0x7f00_0000 + node).into(), 8333);
        // One in 200 misses a pass. In the first all are up: what never responded is no node.
        let luck = (node.wrapping_mul(2_654_435_761) ^ pass as u32).wrapping_mul(2_246_822_519);
        let is_up = pass == 1 || node % 100 < 45 && !luck.is_multiple_of(200);
        let at = end - i64::from(luck % 600);
        let connect_ms = 20 + (luck >> 24);
        let row = if is_up { node_up(node, at, connect_ms) } else { down(at, 1) };
        let version = is_up.then(|| row.seen.as_ref().unwrap().version.clone());
        batch.probes.push(ProbeRow {
            address,
            probed_at: self::at(at),
            outcome: row.last_outcome,
            connect_ms: is_up.then_some(connect_ms),
            version_ms: is_up.then_some(connect_ms * 2),
            peers_sent: is_up.then_some(1_000),
            version,
            ..probe(0, pass)
        });
        batch.nodes.insert(address, row);
    }
    let row =
        PassRow { started_at: at(end - 200), finished_at: Some(at(end)), ..PassRow::default() };
    batch.passes.insert(pass, row);
    store.write(&batch, RESULTS as u32).unwrap();
}

/// With about as many different values as the real network has.
fn node_up(node: u32, seconds: i64, connect_ms: u32) -> NodeRow {
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
    let start_height = Some(860_000 + (seconds / 600) as i32);
    let said = VersionInfo { user_agent: Some(user_agent), services, start_height, ..version() };
    let mut row = up(seconds, said);
    if let Some(seen) = &mut row.seen {
        (seen.connect_ms, seen.version_ms) = (Some(connect_ms), Some(connect_ms * 2));
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

/// Number of the files below a directory, and the sum of what `counted` makes of their sizes.
fn files(directory: &Path, counted: &dyn Fn(&Path, u64) -> u64) -> (u64, u64) {
    let entries = fs::read_dir(directory).unwrap().map(|entry| entry.unwrap());
    entries.fold((0, 0), |(count, bytes), entry| {
        let data = entry.metadata().unwrap();
        let (more, size) = match data.is_dir() {
            true => files(&entry.path(), counted),
            false => (1, counted(&entry.path(), data.len())),
        };
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
