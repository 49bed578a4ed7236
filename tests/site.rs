//! The website: written from a crawled simulated network with its zoo, compared with the database,
//! and looked at with Chromium. `scripts/test` installs Chromium and the packages of `tests/site`.

#![allow(clippy::disallowed_methods)] // tests sleep

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::Duration;

use bitdash::config::Config;
use bitdash::db::reader::Reader;
use bitdash::site::{Scope, write};
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::rows::{Batch, PassRow};
use bitdash_simnet::past;
use serde_json::{Value, json};
use support::crawl::{Crawl, Simnet};
use support::faults::{fill_disk, on_a_small_disk, wait_until};
use support::libloc::libloc;
use support::rows::{address, at, down, ready, up, version};
use support::{Cluster, Database};

/// Every file below a directory, by its path, unpacked if it is compressed.
fn files(directory: &Path) -> BTreeMap<String, String> {
    let (mut found, mut open) = (BTreeMap::new(), vec![directory.to_owned()]);
    while let Some(next) = open.pop() {
        for path in fs::read_dir(next).unwrap().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                open.push(path);
                continue;
            }
            let bytes = fs::read(&path).unwrap();
            let mut text = String::new();
            // What a killed run was writing is not part of the website.
            let is_whole = path.extension().is_none_or(|ending| ending != "tmp");
            if is_whole && bytes.starts_with(&[0x1f, 0x8b]) {
                let mut unpacked = flate2::read::GzDecoder::new(&bytes[..]);
                unpacked.read_to_string(&mut text).expect("whole");
            } else {
                text = String::from_utf8_lossy(&bytes).into_owned();
            }
            let name = path.strip_prefix(directory).unwrap().display().to_string();
            found.insert(name, text);
        }
    }
    found
}

/// The rows of a query as pairs of text and number.
fn counts(database: &Database, sql: &str) -> BTreeMap<String, u64> {
    let rows = database.rows(sql).into_iter();
    let pair = |row: String| {
        let (value, count) = row.rsplit_once('|').unwrap();
        (value.to_owned(), count.parse().unwrap())
    };
    rows.map(pair).collect()
}

fn number(database: &Database, sql: &str) -> u64 {
    database.value(sql).parse().unwrap()
}

/// What the browser must find.
fn expected(database: &Database) -> Value {
    let watched = database
        .rows("SELECT host(host) || ':' || port FROM nodes WHERE species = 'TRB' ORDER BY 1");
    let address = database.value(
        "SELECT host(host) || ':' || port FROM nodes n WHERE species = 'Core' AND name IS NULL AND status = 'up'
            AND (SELECT count(*) FROM nodes o
                WHERE strpos(host(o.host) || ':' || o.port, host(n.host) || ':' || n.port) > 0) = 1
        ORDER BY (SELECT count(*) FROM probes p WHERE p.host = n.host AND p.port = n.port) DESC, host, port
        LIMIT 1",
    );
    let results = format!(
        "SELECT to_char(probed_at AT TIME ZONE 'UTC', 'FMDD Mon YYYY HH24:MI') || ' ' || outcome
                || ' ' || connect_ms || ' ms ' || version_ms || ' ms '
                || to_char(start_height, 'FM999G999G999') || ' '
                || coalesce(to_char(peers_sent, 'FM999G999'), '')
            FROM probes WHERE host(host) || ':' || port = '{address}' ORDER BY pass DESC"
    );
    let events = format!(
        "SELECT least(count(*), 10) FROM events WHERE host(host) || ':' || port = '{}'",
        watched[0]
    );
    let agents =
        "SELECT user_agent, count(*) FROM nodes WHERE user_agent ~ '[<>\"'';={}$%]' GROUP BY 1";
    let page = format!("node/{}.html", watched[0].replace(':', "-"));
    let pages = ["", "nodes/", "history/", "software/", "places/", "events/", "data/", "about/"];
    let mut pages: Vec<String> = pages.map(str::to_owned).to_vec();
    pages.extend(["nodes/species/TRB/".to_owned(), "node/".to_owned(), page]);
    let curve = |of: &str, value: &str, column: &str| {
        let sql =
            format!("SELECT count(*) FROM nodes WHERE status = 'up' AND {column} = '{value}'");
        json!([of, value, number(database, &sql)])
    };
    let agents: Vec<_> = counts(database, agents).into_iter().collect();
    assert!(agents.len() > 5, "the zoo has hostile user agents: {agents:?}");
    json!({
        "nodes": number(database, "SELECT count(*) FROM nodes"),
        "status": counts(database, "SELECT status, count(*) FROM nodes GROUP BY 1"),
        "trb_up": number(database, "SELECT count(*) FROM nodes WHERE species = 'TRB' AND status = 'up'"),
        "watched_nodes": number(database, "SELECT count(*) FROM nodes WHERE species = 'TRB' OR name IS NOT NULL"),
        "highest": number(database, "SELECT max(start_height) FROM nodes"),
        "events": number(database, "SELECT count(*) FROM events"),
        "watched_events": number(database, &events),
        "results": database.rows(&results),
        "curves": [curve("species", "TRB", "species"), curve("species", "Core", "species"), curve("status", "up", "status")],
        "agents": agents,
        "filters": filters(database),
        "address": address,
        "watched": watched[0],
        "pages": pages,
    })
}

/// Nodes by value for each filter but the user agent; the values as they stand in a link.
fn filters(database: &Database) -> BTreeMap<&'static str, BTreeMap<String, u64>> {
    let columns = [
        ("status", "status"),
        ("species", "species"),
        ("release", "coalesce(release, '')"),
        ("country", "coalesce(country, '')"),
        ("network", "coalesce(asn, 0)"),
        ("port", "port"),
        ("services", "services + CASE WHEN services < 0 THEN 2::numeric ^ 64 ELSE 0 END"),
    ];
    let of = |(name, column): (&'static str, &str)| {
        (name, counts(database, &format!("SELECT {column}, count(*) FROM nodes GROUP BY 1")))
    };
    columns.map(of).into_iter().collect()
}

fn tools() -> PathBuf {
    let tools = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/site");
    let is_installed = |name| tools.join("node_modules").join(name).is_dir();
    assert!(
        ["playwright-core", "axe-core", "vnu-jar"].into_iter().all(is_installed),
        "a package is missing: scripts/test installs it (npm ci --ignore-scripts in tests/site)"
    );
    tools
}

/// The faults that the W3C's Nu HTML checker finds.
fn invalid_html(site: &Path) -> String {
    let checker = tools().join("node_modules/vnu-jar/build/dist/vnu.jar");
    let mut java = Command::new("java");
    java.arg("-jar").arg(checker).args(["--errors-only", "--skip-non-html"]).arg(site);
    let output = java.output().expect("java is not installed: scripts/test does it");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn look(site: &Path, expected: &Value, directory: &Path) -> Output {
    let file = directory.join("expected.json");
    fs::write(&file, expected.to_string()).unwrap();
    let mut browser = Command::new("node");
    browser.arg(tools().join("browser.js")).args([site, &file]).stderr(Stdio::inherit());
    browser.output().expect("node is not installed: scripts/test does it")
}

#[test]
fn a_browser_finds_what_the_database_holds_and_no_fault() {
    let database = Cluster::shared().database();
    let simnet = Simnet::start(&["--nodes", "150", "--dead", "100", "--zoo", "1"]);
    let directory = tempfile::tempdir().unwrap();
    let site = directory.path().join("site");
    let [dir, country, asn] =
        [("site.dir", "site"), ("geo.country_db", "db"), ("geo.asn_db", "db")]
            .map(|(key, file)| format!("{key} = {:?}", directory.path().join(file).display()));
    let networks = [("127.0.0.0/9", "DE", 24_940), ("127.128.0.0/10", "US", 16_276)];
    let names = [(16_276, "<b>OVH</b>"), (24_940, "Hetzner")];
    fs::write(directory.path().join("db"), libloc(1_790_000_000, &networks, &names)).unwrap();
    let lines = [
        "crawl.pass_interval = \"1s\"",
        dir.as_str(),
        &country,
        &asn,
        "site.url = \"https://example.org\"",
        "network.contact = \"crawler@example.org\"",
    ];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    assert!(crawl.run(&["--passes", "2"]).success());
    // The crawler started it, and did not wait for it.
    wait_until("the crawler's own run is over", Duration::from_secs(60), || {
        fs::read_to_string(site.join(".bitdash-site")).is_ok_and(|text| text.contains("heavy_at"))
    });
    assert!(!crawl.log().contains("site error"), "{}", crawl.log());
    let output = crawl.command(&["site"]).output().unwrap();
    assert!(output.status.success(), "{output:?}");
    assert_eq!(invalid_html(&site), "");
    let found = look(&site, &expected(&database), directory.path());
    let faults = String::from_utf8_lossy(&found.stdout);
    assert!(found.status.success(), "the browser found:\n{faults}");
}

/// A database with a pass of two days: node 1 is TRB, node 2 has a name, node 9 is down.
fn small() -> Database {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    for pass in 1..=3_i64 {
        let seconds = pass * 86_400;
        let mut batch = Batch::default();
        for node in 1..=12 {
            let row = if node == 9 && pass > 1 {
                down(seconds - 9, 1)
            } else {
                up(seconds - 9, version())
            };
            batch.nodes.insert(address(node), row);
        }
        if let Some(seen) = batch.nodes.get_mut(&address(1)).and_then(|row| row.seen.as_mut()) {
            seen.lineage.species = "TRB".into();
        }
        let row = PassRow { started_at: at(seconds - 60), ..PassRow::default() };
        let row = PassRow { finished_at: Some(at(seconds)), ..row };
        batch.passes.insert(pass.unsigned_abs(), row);
        batch.names = Some([(address(2), "Pizarro".to_owned())].into());
        store.write(&batch, 25).unwrap();
        while store.close_day().unwrap().is_some() {}
    }
    database
}

fn written(database: &Database, config: &Config, exclude: &[&str], out: &Path, scope: Scope) {
    let nets: Vec<_> = exclude.iter().map(|net| net.parse().unwrap()).collect();
    let mut reader = Reader::open(&database.url).unwrap();
    write(&mut reader, config, &Filter::new(&nets, &[]), out, scope).unwrap();
}

#[test]
fn excluded_addresses_vanish_from_every_file_with_the_next_pass() {
    let (database, out) = (small(), tempfile::tempdir().unwrap());
    let config = Config::default();
    let names = |address: &str| -> Vec<String> {
        let has = |(_, text): &(String, String)| text.contains(address);
        files(out.path()).into_iter().filter(has).map(|(name, _)| name).collect()
    };
    written(&database, &config, &[], out.path(), Scope::Due);
    let before = files(out.path());
    assert!(before.contains_key("node/127.0.0.2-8333.html"));
    assert!(names("127.0.0.2:8333").len() > 5 && names("127.0.0.9:8333").len() > 3);
    written(&database, &config, &["127.0.0.2/32", "127.0.0.9/32"], out.path(), Scope::Due);
    assert_eq!(names("127.0.0.2:8333"), [""; 0]);
    assert_eq!(names("127.0.0.9:8333"), [""; 0]);
    let after = files(out.path());
    assert!(!after.contains_key("node/127.0.0.2-8333.html"));
    assert!(after["index.html"].contains("<span class=\"big\">10</span> Bitcoin nodes"));
}

#[test]
fn heavy_pages_are_left_alone_until_they_are_due() {
    let (database, out) = (small(), tempfile::tempdir().unwrap());
    let config = Config::default();
    written(&database, &config, &[], out.path(), Scope::Due);
    let mark = |name: &str| fs::write(out.path().join(name), "marked").unwrap();
    let is_marked = |name: &str| fs::read(out.path().join(name)).unwrap() == b"marked";
    let heavy = ["data/nodes.csv.gz", "software/index.html", "data/history-species.csv.gz"];
    heavy.into_iter().chain(["index.html"]).for_each(mark);
    written(&database, &config, &[], out.path(), Scope::Due);
    assert!(heavy.into_iter().all(is_marked) && !is_marked("index.html"));
    written(&database, &config, &[], out.path(), Scope::All);
    assert!(!heavy.into_iter().any(is_marked));
}

#[test]
fn what_is_not_to_be_published_stands_nowhere() {
    let database = small();
    for (publish, is_shown) in [("trb", true), ("counts", false)] {
        let out = tempfile::tempdir().unwrap();
        let text = format!("[site]\npublish = \"{publish}\"\nurl = \"https://example.org/\"\n");
        let config = Config::parse(&text, "test", Path::new("")).unwrap();
        written(&database, &config, &[], out.path(), Scope::All);
        let files = files(out.path());
        let has = |address: &str| files.values().any(|text| text.contains(address));
        assert!(!has("127.0.0.9") && !has("127.0.0.12"), "{publish}");
        assert_eq!((has("127.0.0.1:8333"), has("127.0.0.2:8333")), (is_shown, is_shown));
        assert!(files["index.html"].contains("<span class=\"big\">11</span> Bitcoin nodes"));
        // 12 nodes have consecutive addresses: the table may show them by differences.
        assert_eq!(files.contains_key("data/nodes.dat"), is_shown, "{publish}");
    }
}

#[test]
fn the_sql_of_the_page_about_the_figures_runs() {
    let (database, out) = (small(), tempfile::tempdir().unwrap());
    written(&database, &Config::default(), &[], out.path(), Scope::All);
    let page = fs::read_to_string(out.path().join("about/index.html")).unwrap();
    let (_, list) = page.split_once("<dl class=\"facts sql\">").unwrap();
    let (list, _) = list.split_once("</dl>").unwrap();
    let parts = list.split("<dd><code>").skip(1);
    let queries: Vec<&str> = parts.map(|part| part.split_once("</code>").unwrap().0).collect();
    assert!(queries.len() > 12, "{queries:?}");
    for query in queries {
        let signs = [("&#39;", "'"), ("&#60;", "<"), ("&#62;", ">"), ("&lt;", "<"), ("&gt;", ">")];
        let sql = signs.iter().fold(query.to_owned(), |sql, (sign, c)| sql.replace(sign, c));
        database.client().query(&sql, &[]).unwrap_or_else(|error| panic!("{sql}: {error}"));
    }
}

#[test]
fn an_invented_past_is_marked_on_every_page() {
    let (database, out) = (Cluster::shared().database(), tempfile::tempdir().unwrap());
    let mut store = ready(&database);
    let row = PassRow { started_at: at(0), finished_at: Some(at(60)), ..PassRow::default() };
    let nodes = (1..=12).map(|node| (address(node), up(9, version()))).collect();
    store.write(&Batch { nodes, passes: [(1, row)].into(), ..Batch::default() }, 25).unwrap();
    let days = || number(&database, "SELECT count(*) FROM history_of('species', 'Core', 'day')");
    assert_eq!(days(), 0);
    past::invent(&database.url, 2, 1).unwrap();
    // There is a gap, as a real crawl has.
    assert_eq!(days(), 2 * 365 - 21);
    // All nodes are up: they answered always just before.
    let recent = "SELECT share FROM bitdash_internal.roll_days ORDER BY day DESC LIMIT 30";
    let gaps = format!(
        "SELECT count(*) FROM ({recent}) d, generate_series(0, octet_length(share) - 1) node
            WHERE get_byte(share, node) NOT IN (250, 255)"
    );
    assert_eq!(number(&database, &gaps), 0);
    written(&database, &Config::default(), &[], out.path(), Scope::All);
    for (name, text) in files(out.path()).iter().filter(|(name, _)| name.ends_with(".html")) {
        assert!(text.contains("The history before 21 Sep 2026 is invented."), "{name}");
    }
    let again = past::invent(&database.url, 2, 1).unwrap_err().to_string();
    assert_eq!(again, "the database has days in its history already");
    database
        .client()
        .batch_execute("UPDATE nodes SET host = '192.0.2.1' WHERE host = '127.0.0.3'")
        .unwrap();
    let real = past::invent(&database.url, 2, 1).unwrap_err().to_string();
    assert!(real.starts_with("this is not the database of a simulated network"), "{real}");
}

#[test]
fn a_killed_run_leaves_no_half_file_and_the_next_one_repairs() {
    let (database, out) = (small(), tempfile::tempdir().unwrap());
    let crawl = Crawl::configure(&database, Path::new("nodes.txt"), &[]);
    let command = || {
        let mut command = crawl.command(&["site", "--out"]);
        command.arg(out.path()).stdout(Stdio::null());
        command
    };
    assert!(command().status().unwrap().success());
    let whole: Vec<String> = files(out.path()).into_keys().collect();
    for round in 0..12 {
        let touch = format!("UPDATE nodes SET start_height = {round}");
        database.client().batch_execute(&touch).unwrap();
        let mut child = command().spawn().unwrap();
        sleep(Duration::from_millis(15 * round));
        child.kill().unwrap();
        child.wait().unwrap();
        for (name, text) in files(out.path()).iter().filter(|(name, _)| name.ends_with(".html")) {
            assert!(text.trim_end().ends_with("</html>"), "{name} is not whole");
        }
    }
    assert!(command().status().unwrap().success());
    let left: Vec<String> = files(out.path()).into_keys().collect();
    assert_eq!(left, whole);
}

#[test]
fn files_are_whole_at_any_time_while_they_are_renewed() {
    let (database, out) = (small(), tempfile::tempdir().unwrap());
    let config = Config::default();
    written(&database, &config, &[], out.path(), Scope::All);
    let is_renewed = AtomicBool::new(false);
    // As a web server under load: the same files over and over.
    let read = || {
        let mut different = BTreeSet::new();
        while !is_renewed.load(Ordering::Relaxed) {
            for name in ["index.html", "nodes/index.html", "node/127.0.0.1-8333.html"] {
                let text = fs::read_to_string(out.path().join(name)).unwrap();
                assert!(text.starts_with("<!doctype") && text.ends_with("</html>"), "{name}");
            }
            for name in ["data/nodes.dat", "data/nodes.csv.gz"] {
                let bytes = fs::read(out.path().join(name)).unwrap();
                let mut text = String::new();
                flate2::read::GzDecoder::new(&bytes[..]).read_to_string(&mut text).expect(name);
                different.insert(text);
            }
        }
        different.len()
    };
    thread::scope(|scope| {
        let readers = [scope.spawn(read), scope.spawn(read), scope.spawn(read)];
        for round in 0..40 {
            let touch = format!("UPDATE nodes SET start_height = {round}");
            database.client().batch_execute(&touch).unwrap();
            written(&database, &config, &[], out.path(), Scope::All);
        }
        is_renewed.store(true, Ordering::Relaxed);
        for reader in readers {
            let different = reader.join().unwrap();
            assert!(different > 10, "it has read {different} different files");
        }
    });
}

/// The processes that a process has started.
fn children(pid: u32) -> Vec<String> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).unwrap().flatten();
    let texts = threads.flat_map(|thread| fs::read_to_string(thread.path().join("children")));
    texts.flat_map(|text| text.split_whitespace().map(str::to_owned).collect::<Vec<_>>()).collect()
}

#[test]
fn the_crawl_goes_on_beside_a_child_that_hangs_and_one_that_is_killed() {
    let simnet = Simnet::start(&["--nodes", "30", "--time-scale", "0.05"]);
    let (database, out) = (Cluster::shared().database(), tempfile::tempdir().unwrap());
    // Nobody writes into this pipe: the child waits for it.
    let pipe = out.path().join(".bitdash-site");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let dir = format!("site.dir = {:?}", out.path().display().to_string());
    let pace = "crawl.pass_interval = \"1s\"";
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[pace, &dir]);
    crawl.start(&[]);
    crawl.wait_for_log(|line| line.contains(" pass pass=3 state=finished"));
    let children = children(crawl.child.as_ref().unwrap().id());
    assert_eq!(children.len(), 1, "never two at once: {children:?}");
    fs::remove_file(&pipe).unwrap();
    assert!(Command::new("kill").args(["-KILL", &children[0]]).status().unwrap().success());
    let line = crawl.wait_for_log(|line| line.contains("site error="));
    assert!(line.ends_with("WARN site error=\"signal: 9 (SIGKILL)\""), "{line}");
    wait_until("the next pass writes it", Duration::from_secs(60), || {
        fs::read_to_string(&pipe).is_ok_and(|text| text.contains("heavy_at"))
    });
    crawl.signal("-TERM");
    assert!(crawl.wait().success());
    assert_eq!(crawl.log().matches("site error=").count(), 1, "{}", crawl.log());
}

#[test]
fn a_full_disk_is_one_error_and_the_old_files_stay() {
    let name = "a_full_disk_is_one_error_and_the_old_files_stay";
    let Some(disk) = on_a_small_disk(name, "8m") else { return };
    let database = small();
    let out: PathBuf = disk.join("site");
    let crawl = Crawl::configure(&database, Path::new("nodes.txt"), &[]);
    let run = || crawl.command(&["site", "--out"]).arg(&out).output().unwrap();
    assert!(run().status.success());
    let before = files(&out);
    let filler = fill_disk(&disk);
    database.client().batch_execute("UPDATE nodes SET start_height = 1").unwrap();
    let output = run();
    let error = String::from_utf8(output.stderr).unwrap();
    assert_eq!((output.status.code(), error.lines().count()), (Some(1), 1), "{error}");
    assert!(error.contains("cannot be written: No space left on device"), "{error}");
    assert_eq!(files(&out), before);
    fs::remove_file(filler).unwrap();
    assert!(run().status.success());
}
