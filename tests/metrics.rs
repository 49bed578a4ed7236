//! The metrics file of a real crawl: its grammar, its values against the database, and what happens
//! to it at a reload, at the end, and where it cannot be written.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use support::crawl::{Crawl, Simnet};
use support::faults::{fill_disk, on_a_small_disk, wait_until};
use support::{Cluster, Database};

const TIMEOUT: Duration = Duration::from_secs(60);

/// The values by series, `name` or `name{label="value"}`.
type Series = BTreeMap<String, f64>;

/// Parses the text format strictly: the comments of a family, then all of its samples, no family
/// twice. Fails unless the names have the suffixes of their units and types.
fn parse(text: &str) -> Series {
    assert!(text.ends_with('\n') && !text.contains("\n\n"), "{text}");
    let (mut series, mut families) = (Series::new(), BTreeSet::new());
    let mut family = ("", "");
    let mut lines = text.lines();
    while let Some(line) = lines.next() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, help) = help.split_once(' ').unwrap();
            let kind = lines.next().unwrap().strip_prefix(&format!("# TYPE {name} ")).unwrap();
            assert!(families.insert(name) && !help.is_empty(), "{line}");
            assert!(name.starts_with("bitdash_"), "{line}");
            assert_eq!(kind == "counter", name.ends_with("_total"), "{line}");
            assert!(["counter", "gauge"].contains(&kind), "{line}");
            family = (name, kind);
            continue;
        }
        let (own, value) = line.rsplit_once(' ').unwrap();
        let labels = own.strip_prefix(family.0).expect("a sample stands below its family");
        if !labels.is_empty() {
            let label = labels.strip_prefix('{').and_then(|rest| rest.strip_suffix("\"}")).unwrap();
            let (label, word) = label.split_once("=\"").unwrap();
            assert!(label.bytes().all(|byte| byte.is_ascii_lowercase()), "{line}");
            assert!(!word.is_empty() && !word.contains(['"', '\\', '\n']), "{line}");
        }
        let value: f64 = value.parse().unwrap();
        assert!(value.is_finite() && value >= 0.0, "{line}");
        assert_eq!(series.insert(own.to_owned(), value), None, "{line} is there twice");
    }
    series
}

/// Panics where Prometheus' own tool is installed and has an objection.
fn check_with_promtool(path: &Path) {
    let promtool = Command::new("promtool")
        .args(["check", "metrics"])
        .stdin(fs::File::open(path).unwrap())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .output();
    let Ok(output) = promtool else {
        support::faults::print_note("promtool is not installed: NOT TESTED with it");
        return;
    };
    let said = [output.stdout, output.stderr].concat();
    let said = String::from_utf8_lossy(&said);
    assert!(output.status.success() && said.is_empty(), "promtool: {said}");
}

fn metrics_key(path: &Path) -> String {
    format!("log.metrics_file = {:?}", path.display().to_string())
}

/// Panics unless the values are those of the database after the only pass of a process.
fn check_values(series: &Series, database: &Database) {
    let counts = [
        ("bitdash_probes_total{outcome=\"responded\"}", "SELECT responded FROM passes"),
        ("bitdash_known_addresses{kind=\"node\"}", "SELECT count(*) FROM nodes"),
        ("bitdash_known_addresses{kind=\"candidate\"}", "SELECT count(*) FROM candidates"),
        ("bitdash_pass", "SELECT pass FROM passes"),
        (
            "bitdash_last_pass_finished_timestamp_seconds",
            "SELECT extract(epoch FROM finished_at)::float8 FROM passes",
        ),
        (
            "bitdash_last_pass_duration_seconds",
            "SELECT extract(epoch FROM finished_at - started_at)::float8 FROM passes",
        ),
        ("bitdash_sockets", "SELECT 0"),
        ("bitdash_queue_addresses", "SELECT 0"),
        ("bitdash_writer_queue_results", "SELECT 0"),
        ("bitdash_max_sockets", "SELECT 200"),
        ("bitdash_database_up", "SELECT 1"),
        ("bitdash_uplink_up", "SELECT 1"),
        ("bitdash_limit{cause=\"none\"}", "SELECT 1"),
    ];
    for (name, sql) in counts {
        let value: f64 = database.value(sql).parse().unwrap();
        assert!((series[name] - value).abs() < 1e-6, "{name} {} {value}", series[name]);
    }
    let of = |family: &str| -> BTreeMap<String, f64> {
        let own = |(name, value): (&String, &f64)| {
            let label = name.strip_prefix(family)?.strip_prefix('{')?.strip_suffix("\"}")?;
            Some((label.split_once("=\"")?.1.to_owned(), *value))
        };
        series.iter().filter_map(own).collect()
    };
    let stored = |sql: &str| -> BTreeMap<String, f64> {
        let rows = database.rows(sql);
        let pairs = rows.iter().map(|row| row.split_once('|').unwrap());
        pairs.map(|(word, count)| (word.to_owned(), count.parse().unwrap())).collect()
    };
    let species = "SELECT species, count(*) FROM nodes WHERE status = 'up' GROUP BY 1";
    assert_eq!(of("bitdash_nodes_up"), stored(species));
    let outcomes = "SELECT last_outcome, count(*) FROM (SELECT last_outcome FROM nodes
        UNION ALL SELECT last_outcome FROM candidates) a WHERE last_outcome IS NOT NULL GROUP BY 1";
    let mut probes = of("bitdash_probes_total");
    assert_eq!(probes.len(), 8);
    probes.retain(|_, count| *count > 0.0);
    assert_eq!(probes, stored(outcomes));
    assert_eq!(
        probes.values().sum::<f64>(),
        database.value("SELECT probed FROM passes").parse::<f64>().unwrap()
    );
    assert_eq!(of("bitdash_limit").values().sum::<f64>(), 1.0);
    assert!(series["bitdash_cpu_seconds_total"] > 0.0);
    assert!(series["bitdash_resident_memory_bytes"] > 1e6);
    assert!(
        series[&format!("bitdash_build_info{{version=\"{}\"}}", env!("CARGO_PKG_VERSION"))] == 1.0
    );
}

#[test]
fn the_metrics_of_a_crawl_are_those_of_its_database() {
    let simnet = Simnet::start(&["--nodes", "200", "--dead", "300", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("bitdash.prom");
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[&metrics_key(&path)]);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    // It stays: the age of the last pass is what one has an alert on.
    let text = fs::read_to_string(&path).unwrap();
    check_values(&parse(&text), &database);
    check_with_promtool(&path);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o444, 0o444);
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "a temporary file is left");

    // A later start knows the last pass before its own has ended.
    crawl.start(&[]);
    let series = || parse(&fs::read_to_string(&path).unwrap());
    let probes = |series: &Series| series["bitdash_probes_total{outcome=\"responded\"}"];
    wait_until("metrics of the new process", TIMEOUT, || {
        let series = series();
        probes(&series) == 0.0 && series.contains_key("bitdash_pass")
    });
    let finished = "SELECT extract(epoch FROM finished_at)::float8 FROM passes WHERE pass = 1";
    let finished: f64 = database.value(finished).parse().unwrap();
    let shown = series()["bitdash_last_pass_finished_timestamp_seconds"];
    assert!((shown - finished).abs() < 1e-6, "{shown} {finished}");
    crawl.signal("-TERM");
    assert!(crawl.wait().success());
}

#[test]
fn a_reload_moves_the_file_and_a_missing_directory_is_one_warning() {
    let simnet = Simnet::start(&["--nodes", "60", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let directory = tempfile::tempdir().unwrap();
    let paths = ["one.prom", "two.prom", "missing/three.prom"];
    let [one, two, missing]: [PathBuf; 3] = paths.map(|name| directory.path().join(name));
    let often = "log.stats_interval = \"100ms\"";
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[&metrics_key(&one), often]);
    crawl.start(&[]);
    wait_until("the first file", TIMEOUT, || one.exists());
    let move_to = |crawl: &Crawl, path: &Path| {
        crawl.reconfigure(&database, &simnet.seeds(), &[&metrics_key(path), often]);
        crawl.signal("-HUP");
    };
    move_to(&crawl, &two);
    wait_until("the second file", TIMEOUT, || two.exists() && !one.exists());
    move_to(&crawl, &missing);
    wait_until("no file", TIMEOUT, || !two.exists());
    let stats = |crawl: &Crawl| crawl.log().matches(" stats ").count();
    let before = stats(&crawl);
    wait_until("ten intervals", TIMEOUT, || stats(&crawl) > before + 10);
    let log = crawl.log();
    let warnings: Vec<&str> = log.lines().filter(|line| line.contains(" metrics ")).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    assert!(warnings[0].contains("WARN") && warnings[0].contains("three.prom"), "{log}");
    fs::create_dir(missing.parent().unwrap()).unwrap();
    wait_until("the third file", TIMEOUT, || missing.exists());
    crawl.wait_for_log(|line| line.contains(" metrics ") && line.contains(" state=written"));
    // Without the key the file is removed.
    crawl.reconfigure(&database, &simnet.seeds(), &[often]);
    crawl.signal("-HUP");
    wait_until("no third file", TIMEOUT, || !missing.exists());
    crawl.signal("-TERM");
    assert!(crawl.wait().success());
}

#[test]
fn a_full_disk_costs_the_metrics_and_not_the_crawl() {
    let name = "a_full_disk_costs_the_metrics_and_not_the_crawl";
    let Some(disk) = on_a_small_disk(name, "1m") else { return };
    let simnet = Simnet::start(&["--nodes", "60", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let (path, often) = (disk.join("bitdash.prom"), "log.stats_interval = \"100ms\"");
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[&metrics_key(&path), often]);
    crawl.start(&[]);
    wait_until("the file", TIMEOUT, || path.exists());
    let filler = fill_disk(&disk);
    crawl.wait_for_log(|line| line.contains(" metrics ") && line.contains(" error="));
    // A reader still sees the last whole file.
    parse(&fs::read_to_string(&path).unwrap());
    let stats = |crawl: &Crawl| crawl.log().matches(" stats ").count();
    let before = stats(&crawl);
    wait_until("ten intervals", TIMEOUT, || stats(&crawl) > before + 10);
    fs::remove_file(filler).unwrap();
    crawl.wait_for_log(|line| line.contains(" metrics ") && line.contains(" state=written"));
    assert_eq!(crawl.log().matches(" metrics ").count(), 2, "{}", crawl.log());
    parse(&fs::read_to_string(&path).unwrap());
    crawl.signal("-TERM");
    assert!(crawl.wait().success());
}
