//! The real program against the simulated network and a real PostgreSQL. The network's own tables
//! are the oracle.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

use bitdash_simnet::verify::truth::Kind;
use support::Cluster;
use support::crawl::{ASK_AT_ONCE, Crawl, Simnet, check_conduct, check_map, is_stats, value};
use support::faults::wait_until;

#[test]
fn one_pass_maps_the_network_row_by_row() {
    let simnet = Simnet::start(&["--nodes", "400", "--dead", "900", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[]);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    check_map(&database, &simnet);
    assert_eq!(database.value("SELECT count(*) FROM candidates WHERE failures <> 1"), "0");
    assert_eq!(
        database.value("SELECT count(*) FROM addresses"),
        database.value("SELECT (SELECT count(*) FROM nodes) + (SELECT count(*) FROM candidates)")
    );
    let pass = database.rows(
        "SELECT pass, finished_at IS NOT NULL, responded, new_nodes,
        probed = responded + failed, new_addresses = (SELECT count(*) FROM addresses) FROM passes",
    );
    assert_eq!(pass, ["1|t|400|400|t|t"]);
    let up = "SELECT sum(nodes) FROM history WHERE pass = 1 AND dimension = 'species'";
    assert_eq!(database.value(up), "400");
    assert_eq!(database.value("SELECT count(*) FROM probes WHERE outcome = 'responded'"), "400");

    // Complete replies: the crawler received every peer that the node has.
    let sent: BTreeMap<String, u64> = database
        .rows("SELECT host(host) || ':' || port, peers_sent FROM nodes")
        .iter()
        .filter_map(|row| row.split_once('|'))
        .map(|(address, sent)| (address.to_owned(), sent.parse().unwrap()))
        .collect();
    let (mut whole, mut all) = (0, 0);
    for node in simnet.truth(Kind::Node) {
        if node.peers >= 2 && node.label != "old_core" {
            all += 1;
            whole += u64::from(sent[&node.address.to_string()] >= node.peers as u64);
        }
    }
    assert!(all > 200 && whole * 100 >= all * 99, "{whole} of {all} whole replies");
    check_conduct(&simnet.stop(), 1, 200);
}

#[test]
fn the_program_of_events_runs_once_for_each_event() {
    let simnet = Simnet::start(&["--nodes", "200", "--dead", "100", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let directory = tempfile::tempdir().unwrap();
    let (program, told) = (directory.path().join("program"), directory.path().join("told"));
    let text = format!("#!/bin/sh\necho \"$1|$2|$3|$4|$5\" >> {}\n", told.display());
    fs::write(&program, text).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    let exec = format!("events.exec = {program:?}");
    let pace = ["crawl.pass_interval = \"1s\"", "database.flush_interval = \"200ms\"", &exec];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &pace);
    crawl.start(&[]);
    crawl.wait_for_log(|line| line.contains("pass=2 state=finished"));
    let sql = "SELECT kind, host(host) || ':' || port, coalesce(name, ''), coalesce(before, ''), coalesce(after, '')
        FROM events ORDER BY id";
    let lines = || fs::read_to_string(&told).unwrap_or_default();
    wait_until("every event is told", Duration::from_secs(20), || {
        lines().lines().count() >= database.rows(sql).len()
    });
    crawl.signal("-TERM");
    assert!(crawl.wait().success());
    let (events, lines) = (database.rows(sql), lines());
    let told: Vec<String> = lines.lines().map(str::to_owned).collect();
    assert!(!events.is_empty(), "the simulated network has TRB nodes");
    let show = |row: &String| {
        row.split('|').map(|c| if c == "-" { "" } else { c }).collect::<Vec<_>>().join("|")
    };
    assert_eq!(
        told.iter().map(show).collect::<Vec<_>>(),
        events.iter().map(show).collect::<Vec<_>>()
    );
}

/// A program of events that runs these lines of shell.
fn program_of_events(directory: &Path, lines: &str) -> String {
    let program = directory.join("program");
    fs::write(&program, format!("#!/bin/sh\n{lines}\n")).unwrap();
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    format!("events.exec = {program:?}")
}

#[test]
fn a_crawl_of_one_pass_ends_after_the_program_of_its_last_event() {
    let simnet = Simnet::start(&["--nodes", "200", "--dead", "50", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let directory = tempfile::tempdir().unwrap();
    let told = directory.path().join("told");
    let lines = format!("sleep 0.1\necho \"$2\" >> {}", told.display());
    let exec = program_of_events(directory.path(), &lines);
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[&exec]);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    let events = database.rows("SELECT host(host) || ':' || port FROM events ORDER BY id");
    let told = fs::read_to_string(&told).unwrap();
    assert!(events.len() > 1, "the simulated network has TRB nodes");
    assert_eq!(told.lines().collect::<Vec<_>>(), events);
    assert!(!crawl.log().contains("left_out"), "{}", crawl.log());
}

#[test]
fn a_stop_says_how_many_events_the_program_was_too_slow_for() {
    let simnet = Simnet::start(&["--nodes", "200", "--dead", "50", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let directory = tempfile::tempdir().unwrap();
    let pids = directory.path().join("pids");
    let lines = format!("echo $$ >> {}\nexec sleep 300", pids.display());
    let exec = program_of_events(directory.path(), &lines);
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[&exec]);
    crawl.start(&[]);
    wait_until("the program runs", Duration::from_secs(60), || pids.exists());
    crawl.signal("-TERM");
    let begin = Instant::now();
    assert!(crawl.wait().success());
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let log = crawl.log();
    let line = log.lines().find(|line| line.contains(" events left_out=")).expect(&log);
    let events = database.value("SELECT count(*) FROM events");
    assert_eq!((value(line, "left_out"), line.contains("WARN")), (events.as_str(), true));
    let pids = fs::read_to_string(&pids).unwrap();
    assert_eq!(pids.lines().count(), 1, "one program runs at a time");
    let is_gone = || !Path::new("/proc").join(pids.trim()).join("exe").exists();
    wait_until("the program is killed", Duration::from_secs(5), is_gone);
}

#[test]
fn simnet_check_exits_with_1_on_a_difference() {
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "20", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[]);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    let check = || {
        let output = simnet.check(&database);
        (output.status.code(), String::from_utf8(output.stdout).unwrap())
    };
    let (code, out) = check();
    assert_eq!((code, out.lines().count()), (Some(0), 1), "{out}");
    assert!(out.starts_with("60 of 60 nodes ") && out.ends_with("; 0 differences\n"), "{out}");
    let change = "UPDATE nodes SET start_height = -9 WHERE host = (SELECT min(host) FROM nodes)";
    database.client().batch_execute(change).unwrap();
    let (code, out) = check();
    assert_eq!((code, out.lines().count()), (Some(1), 2), "{out}");
    assert!(out.contains("height -9") && out.contains("\n59 of 60 nodes "), "{out}");
}

#[test]
fn a_restart_resumes_the_pass_and_repeats_no_probe() {
    let simnet = Simnet::start(&["--nodes", "300", "--dead", "600", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let slow = ["crawl.connects_per_second = 150", ASK_AT_ONCE];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &slow);
    crawl.start(&[]);
    let responded = |line: &str| value(line, "responded").parse::<u64>().unwrap();
    crawl.wait_for_log(|line| is_stats(line) && responded(line) > 3);
    sleep(Duration::from_millis(500));
    crawl.signal("-TERM");
    let begin = Instant::now();
    assert!(crawl.wait().success());
    assert!(begin.elapsed() < Duration::from_secs(10));
    assert!(crawl.log().contains("stop lost=0"));
    let sql = "SELECT probed, (SELECT count(*) FROM nodes) + (SELECT count(*) FROM candidates WHERE
        last_probed IS NOT NULL), finished_at IS NULL FROM passes";
    let row = database.rows(sql).remove(0);
    let fields: Vec<&str> = row.split('|').collect();
    assert_eq!(fields[0], fields[1], "the counter differs from the rows");
    assert!(fields[0].parse::<u64>().unwrap() < 800, "the pass was not interrupted: {row}");

    assert!(crawl.run(&["--passes", "1"]).success());
    assert!(crawl.log().contains("pass pass=1 state=resumed"));
    assert_eq!(database.value("SELECT count(*) FROM passes"), "1");
    check_map(&database, &simnet);
    let again = "SELECT count(*) FROM probes";
    assert_eq!(database.value(again), "300", "one result of each node");
    let report = simnet.stop();
    // A session interrupted while connecting may be repeated.
    check_conduct(&report, 2, 200);
}

#[test]
fn sighup_changes_max_sockets_as_the_stats_line_shows() {
    let simnet = Simnet::start(&["--nodes", "200", "--dead", "500", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let few = ["crawl.max_sockets = 10", ASK_AT_ONCE];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &few);
    crawl.start(&["--passes", "1"]);
    // Wait for the end of the slow start.
    let line = crawl.wait_for_log(|line| is_stats(line) && value(line, "limit") != "none");
    assert_eq!((value(&line, "max_sockets"), value(&line, "limit")), ("10", "sockets"));

    crawl.reconfigure(&database, &simnet.seeds(), &["crawl.max_sockets = \"many\"", ASK_AT_ONCE]);
    crawl.signal("-HUP");
    let line = crawl.wait_for_log(|line| line.contains("reload error="));
    assert!(line.contains("ERROR") && line.contains("crawl.max_sockets"), "{line}");

    crawl.reconfigure(&database, &simnet.seeds(), &["crawl.max_sockets = 100", ASK_AT_ONCE]);
    crawl.signal("-HUP");
    crawl.wait_for_log(|line| line.contains("reload max_sockets=10->100"));
    crawl.wait_for_log(|line| is_stats(line) && value(line, "max_sockets") == "100");
    assert!(crawl.wait().success());
    check_map(&database, &simnet);
    let sockets = |line: &str| value(line, "sockets").parse::<u64>().unwrap();
    let log = crawl.log();
    let before = log.lines().filter(|l| is_stats(l) && value(l, "max_sockets") == "10");
    assert!(before.map(sockets).all(|sockets| sockets <= 10));
    check_conduct(&simnet.stop(), 1, 100);
}

// firehol/blocklist-ipsets#329: new contents of an exclude file were "changed=nothing".
#[test]
fn sighup_says_how_much_a_changed_exclude_file_excludes() {
    let database = Cluster::shared().database();
    let directory = tempfile::tempdir().unwrap();
    let [seeds, list] = ["nodes.txt", "drop.txt"].map(|file| directory.path().join(file));
    fs::write(&seeds, "127.0.0.1 1 Friend\n").unwrap();
    fs::write(&list, "192.0.2.0/24\n").unwrap();
    let files = format!("filter.exclude_files = [{:?}]", list.display().to_string());
    let mut crawl = Crawl::configure(&database, &seeds, &[&files]);
    crawl.start(&[]);
    crawl.wait_for_log(|line| line.contains("state=finished"));
    fs::write(&list, "192.0.2.0/23\n198.51.100.7\n").unwrap();
    crawl.signal("-HUP");
    let text = "reload excluded_ranges=1->2 excluded_addresses=256->513";
    crawl.wait_for_log(|line| line.ends_with(text));
    crawl.signal("-HUP");
    crawl.wait_for_log(|line| line.ends_with("reload changed=nothing"));
    fs::remove_file(&list).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&list).status().unwrap().success());
    crawl.signal("-HUP");
    let text = "is a pipe, which cannot be read again\" state=unchanged";
    crawl.wait_for_log(|line| line.contains("reload error=") && line.ends_with(text));
    crawl.signal("-TERM");
    assert!(crawl.wait().success());
}

#[test]
fn a_start_waits_for_a_clock_behind_the_newest_database_time() {
    let simnet = Simnet::start(&["--nodes", "30", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let often = ["crawl.pass_interval = \"1s\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &often);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    let ahead = "UPDATE passes SET finished_at = now() + interval '6 seconds'";
    let begin = Instant::now();
    database.client().batch_execute(ahead).unwrap();
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    assert!(begin.elapsed() > Duration::from_secs(5), "{:?}", begin.elapsed());
    let log = crawl.log();
    let line = log.lines().find(|line| line.contains(" clock state=behind ")).expect(&log);
    assert_eq!((value(line, "by"), line.contains("WARN")), ("database", true));
    assert!(log.contains(" clock state=right"), "{log}");
}

#[test]
fn sighup_reopens_the_log_even_if_the_configuration_is_invalid() {
    let simnet = Simnet::start(&["--nodes", "60", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[]);
    let (file, moved) = (crawl.dir.path().join("bitdash.log"), crawl.dir.path().join("old.log"));
    let log = format!("log.file = {:?}", file.display().to_string());
    crawl.reconfigure(&database, &simnet.seeds(), &[&log]);
    crawl.start(&[]);
    let has = |words: &str| fs::read_to_string(&file).is_ok_and(|text| text.contains(words));
    wait_until("the first log line", Duration::from_secs(30), || has(" stats "));
    fs::rename(&file, moved).unwrap();
    crawl.reconfigure(&database, &simnet.seeds(), &[&log, "crawl.max_sockets = \"many\""]);
    crawl.signal("-HUP");
    wait_until("the error in the new file", Duration::from_secs(10), || has(" state=unchanged"));
    wait_until("log lines in the new file", Duration::from_secs(10), || has(" stats "));
    crawl.signal("-TERM");
    assert!(crawl.wait().success());
}

#[test]
fn a_database_outage_loses_no_result() {
    let simnet = Simnet::start(&["--nodes", "300", "--dead", "1500", "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    let database = cluster.database();
    let slow = ["crawl.connects_per_second = 150", ASK_AT_ONCE];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &slow);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    cluster.stop_server();
    crawl.wait_for_log(|line| line.contains("database state=down error="));
    let first_down = crawl.wait_for_log(|line| is_stats(line) && line.contains(" db=down "));
    sleep(Duration::from_secs(4));
    cluster.start_server();
    crawl.wait_for_log(|line| line.contains("database state=up"));
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    // The crawl continued meanwhile.
    let log = crawl.log();
    let last_down = log.lines().rfind(|line| is_stats(line) && line.contains(" db=down "));
    let probed = |line: &str| value(line, "probed").parse::<u64>().unwrap();
    assert!(probed(last_down.unwrap()) > probed(&first_down) + 100, "{first_down} {last_down:?}");
    let sql = "SELECT probed = (SELECT count(*) FROM nodes) + (SELECT count(*) FROM candidates) FROM passes";
    assert_eq!(database.value(sql), "t");
    check_conduct(&simnet.stop(), 1, 200);
}

#[test]
fn a_start_waits_for_an_absent_database() {
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "40", "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    let database = cluster.database();
    cluster.stop_server();
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[]);
    crawl.start(&["--passes", "1"]);
    let line = crawl.wait_for_log(|line| line.contains("database state=down"));
    assert!(line.contains("cannot connect to the database"), "{line}");
    cluster.start_server();
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);

    // A stop ends the wait at once.
    cluster.stop_server();
    let is_down = |crawl: &Crawl| crawl.log().matches("database state=down").count();
    let before = is_down(&crawl);
    crawl.start(&[]);
    wait_until("the outage is logged", Duration::from_secs(30), || is_down(&crawl) > before);
    crawl.signal("-INT");
    let begin = Instant::now();
    assert!(crawl.wait().success());
    assert!(begin.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_stop_during_an_outage_reports_the_lost_results() {
    let simnet = Simnet::start(&["--nodes", "100", "--dead", "300", "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut crawl =
        Crawl::configure(&database, &simnet.seeds(), &["crawl.connects_per_second = 60"]);
    crawl.start(&[]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    cluster.kill_server();
    crawl.wait_for_log(|line| line.contains("database state=down"));
    crawl.signal("-TERM");
    let begin = Instant::now();
    assert_eq!(crawl.wait().code(), Some(1));
    assert!(begin.elapsed() < Duration::from_secs(10), "{:?}", begin.elapsed());
    let log = crawl.log();
    let lost = log.lines().find(|line| line.contains("stop lost=")).unwrap();
    assert!(lost.contains("WARN") && value(lost, "lost") != "0", "{lost}");

    // Their addresses are due again: the next start completes the map.
    cluster.start_server();
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    check_map(&database, &simnet);
}

#[test]
fn invalid_input_is_reported_in_one_line() {
    let database = Cluster::shared().database();
    let dir = tempfile::tempdir().unwrap();
    let nodes = dir.path().join("nodes.txt");
    std::fs::write(&nodes, "127.9.9.9 65536\n127.9.9.9 1 gone\nno!host 8333\n").unwrap();
    let crawl = Crawl::configure(&database, &nodes, &[]);
    let run = |args: &[&str]| {
        let output = crawl.command(args).output().unwrap();
        let error = String::from_utf8(output.stderr).unwrap();
        (output.status.code(), error)
    };
    // Invalid lines are reported, and the valid one is used.
    let (code, log) = run(&["crawl", "--passes", "1"]);
    assert_eq!(code, Some(0), "{log}");
    assert!(log.contains("nodes.txt:1: ") && log.contains("nodes.txt:3: "), "{log}");
    assert_eq!(
        database.rows("SELECT host(host), port, last_outcome FROM addresses"),
        ["127.9.9.9|1|refused"]
    );

    let check = |lines: &[&str], code: i32, message: &str| {
        crawl.reconfigure(&database, &nodes, lines);
        let (got, log) = run(&["crawl", "--passes", "1"]);
        assert_eq!(got, Some(code), "{log}");
        let last = log.lines().last().unwrap_or_default();
        assert!(last.contains(message), "{message:?} is not in {log}");
    };
    check(&["crawl.max_sockets = 0"], 2, "crawl.max_sockets");
    check(&["crawl.max_socket = 9"], 2, "max_sockets");
    check(&["crawl.nodes_file = \"/nowhere/nodes.txt\""], 2, "/nowhere/nodes.txt");
    let url =
        |name: &str| format!("database.url = {:?}", database.url.replace(&database.name, name));
    check(&[&url("no_such_database")], 1, "createdb");

    let mut client = database.client();
    client
        .batch_execute("UPDATE bitdash_internal.schema_migrations SET version = version + 99")
        .unwrap();
    check(&[], 1, "schema");
}

#[test]
fn only_one_crawler_writes_into_a_database() {
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "100", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let mut first = Crawl::configure(&database, &simnet.seeds(), &[]);
    first.start(&[]);
    first.wait_for_log(|line| line.contains("state=started"));
    let mut second = Crawl::configure(&database, &simnet.seeds(), &[]);
    assert_eq!(second.run(&[]).code(), Some(1));
    assert!(second.log().contains("another bitdash"), "{}", second.log());
    first.signal("-TERM");
    assert!(first.wait().success());
}
