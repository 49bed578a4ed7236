//! The real crawler under faults of its own process: kills, full disks, blocked logs, too few file
//! descriptors.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Write};
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::Duration;

use support::crawl::{ASK_AT_ONCE, Crawl, Simnet, check_conduct, check_map, is_stats, value};
use support::faults::{
    check_nothing_lost_or_doubled, count_from_env, fill_disk, on_a_small_disk, print_note,
    random_millis, seeded_rng, wait_until,
};
use support::{Cluster, Database};

/// Addresses with a committed result.
fn committed(database: &Database) -> BTreeSet<String> {
    if database.value("SELECT to_regclass('public.addresses') IS NULL") == "t" {
        return BTreeSet::new();
    }
    let sql = "SELECT host(host), port FROM addresses WHERE last_probed IS NOT NULL";
    database.rows(sql).into_iter().collect()
}

#[test]
fn a_crawler_killed_at_any_moment_loses_and_doubles_nothing() {
    let kills = count_from_env("BITDASH_KILLS", 5);
    let mut rng = seeded_rng("kills of the crawler");
    let dead = (300 + 200 * kills).to_string();
    let simnet = Simnet::start(&["--nodes", "200", "--dead", &dead, "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let lines = ["crawl.connects_per_second = 120", "database.flush_interval = \"100ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    let mut before = BTreeSet::new();
    for number in 1..=kills {
        crawl.start(&[]);
        sleep(random_millis(&mut rng, 100, 1_500));
        if number == kills && before.is_empty() {
            wait_until("the last run commits a result", Duration::from_secs(60), || {
                !committed(&database).is_empty()
            });
        }
        crawl.signal("-KILL");
        crawl.wait();
        let now = committed(&database);
        print_note(&format!("kill {number}: {} addresses were committed by then", now.len()));
        assert!(now.is_superset(&before), "lost: {:?}", before.difference(&now));
        let unfinished = "SELECT count(*) FROM passes WHERE finished_at IS NOT NULL";
        let is_over = !now.is_empty() && database.value(unfinished) != "0";
        assert!(!is_over, "the pass ended before the kills did");
        before = now;
    }
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    assert!(committed(&database).is_superset(&before));
    check_map(&database, &simnet);
    check_nothing_lost_or_doubled(&database);
}

#[test]
fn a_crawler_killed_within_a_statement_can_restart() {
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "300", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let lines = ["crawl.connects_per_second = 60", "database.flush_interval = \"200ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    crawl.start(&[]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    // The next statement of the crawler, whose session holds its lock, waits for this one. The
    // order of the tables is that of its batches: the other order may deadlock.
    let mut operator = database.client();
    operator.batch_execute("BEGIN; LOCK TABLE nodes, passes IN SHARE MODE").unwrap();
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database
        WHERE datname = current_database())";
    wait_until("a statement waits", Duration::from_secs(20), || database.value(waits) != "0");
    crawl.signal("-KILL");
    crawl.wait();
    crawl.start(&["--passes", "1"]);
    wait_until("the pass is resumed", Duration::from_secs(30), || {
        crawl.log().matches("pass pass=1 state=").count() == 2
    });
    operator.batch_execute("ROLLBACK").unwrap();
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
}

#[test]
fn a_full_database_disk_loses_no_result() {
    let name = "a_full_database_disk_loses_no_result";
    let Some(disk) = on_a_small_disk(name, "200m") else { return };
    let simnet = Simnet::start(&["--nodes", "300", "--dead", "1200", "--time-scale", "0.05"]);
    let cluster = Cluster::start_in(&disk);
    let database = cluster.database();
    let lines = ["crawl.connects_per_second = 100", "database.flush_interval = \"500ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    let filler = fill_disk(&disk);
    let down = crawl.wait_for_log(|line| line.contains("database state=down"));
    assert!(down.contains("No space left on device"), "{down}");
    let probed = |line: &str| value(line, "probed").parse::<u64>().unwrap();
    let first = crawl.wait_for_log(|line| is_stats(line) && line.contains(" db=down "));
    sleep(Duration::from_secs(3));
    let log = crawl.log();
    let last = log.lines().rfind(|line| is_stats(line)).unwrap();
    assert!(last.contains(" db=down ") && probed(last) > probed(&first) + 100, "{last}");
    assert_eq!(log.matches("state=down").count(), 1, "logged more than once: {log}");
    fs::remove_file(filler).unwrap();
    let took = wait_until("it is up again", Duration::from_secs(10), || {
        crawl.log().contains("database state=up")
    });
    print_note(&format!("after the disk had room the database was up within {took:?}"));
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    check_nothing_lost_or_doubled(&database);
    check_conduct(&simnet.stop(), 1, 200);
}

#[test]
fn a_full_log_disk_loses_only_log_lines() {
    let name = "a_full_log_disk_loses_only_log_lines";
    let Some(disk) = on_a_small_disk(name, "32k") else { return };
    let simnet = Simnet::start(&["--nodes", "150", "--dead", "700", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let file = disk.join("bitdash.log");
    let log = format!("log.file = {:?}", file.display().to_string());
    let lines = [&log, "log.level = \"debug\"", "crawl.connects_per_second = 120"];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    crawl.start(&["--passes", "1"]);
    // stderr is another file.
    let line = crawl.wait_for_log(|line| line.contains("cannot be written"));
    assert!(line.starts_with("bitdash: log.file ") && line.contains("No space left"), "{line}");
    sleep(Duration::from_millis(500));
    // As logrotate does: removed, then recreated.
    fs::remove_file(&file).unwrap();
    crawl.signal("-HUP");
    let took = wait_until("it logs again", Duration::from_secs(10), || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains(" WARN log lost="))
    });
    print_note(&format!("after the disk had room the log resumed within {took:?}"));
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    check_nothing_lost_or_doubled(&database);
    let reports = crawl.log().matches("cannot be written").count();
    // Once each time the disk fills, and once more if the deleted file was closed late.
    assert!(reports <= 3, "{}", crawl.log());
}

#[test]
fn an_unread_log_blocks_no_probe() {
    let simnet = Simnet::start(&["--nodes", "300", "--dead", "3000", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let lines = ["log.level = \"trace\"", "log.stats_interval = \"1s\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    // The pipe's buffer is 64 KB.
    let mut command = crawl.command(&["crawl", "--passes", "1"]);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    let pipe = child.stderr.take().unwrap();
    crawl.child = Some(child);
    assert!(crawl.wait().success());
    check_map(&database, &simnet);
    let mut text = String::new();
    std::io::Read::read_to_string(&mut { pipe }, &mut text).unwrap();
    assert!(text.len() > 60_000, "only {} bytes: the pipe was never full", text.len());
    assert!(!text.contains("stop lost=0"), "the pipe was never full");

    // A named pipe as `log.file` is refused.
    let fifo = crawl.dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let file = format!("log.file = {:?}", fifo.display().to_string());
    crawl.reconfigure(&database, &simnet.seeds(), &[&file]);
    assert_eq!(crawl.run(&["--passes", "1"]).code(), Some(2));
    assert!(crawl.log().contains("log.file"), "{}", crawl.log());
}

/// A full pipe, and its reader, which is never read.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    // Blocks until the reader is dropped.
    thread::spawn(move || filler.write_all(&[b' '; 1 << 20]));
    sleep(Duration::from_millis(200));
    (reader, writer)
}

fn start_with_stderr(crawl: &mut Crawl, stderr: PipeWriter) {
    crawl.child = Some(crawl.command(&["crawl"]).stderr(stderr).spawn().unwrap());
}

/// Waits for the exit status of a crawl, at most as long as a stop may take.
fn exit_within_ten_seconds(crawl: &mut Crawl) -> Option<i32> {
    let child = crawl.child.as_mut().unwrap();
    let mut status = None;
    let took = wait_until("the crawl exits", Duration::from_secs(10), || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    print_note(&format!("with a full pipe for stderr it exited after {took:?}"));
    crawl.child = None;
    status.unwrap().code()
}

#[test]
fn a_failing_start_exits_even_if_stderr_blocks() {
    let database = Cluster::shared().database();
    let nowhere = Database { url: database.url.replace(&database.name, "none"), ..database };
    let directory = tempfile::tempdir().unwrap();
    let seeds = directory.path().join("nodes.txt");
    fs::write(&seeds, "127.9.9.9\n").unwrap();
    let mut crawl = Crawl::configure(&nowhere, &seeds, &[]);
    let (_unread, stderr) = full_pipe();
    start_with_stderr(&mut crawl, stderr);
    assert_eq!(exit_within_ten_seconds(&mut crawl), Some(1));
}

#[test]
fn a_stop_is_in_time_while_both_database_and_stderr_block() {
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "900", "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    let database = cluster.database();
    let lines = ["crawl.connects_per_second = 60", "database.flush_interval = \"200ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    let (_unread, stderr) = full_pipe();
    start_with_stderr(&mut crawl, stderr);
    wait_until("the first results are committed", Duration::from_secs(30), || {
        !committed(&database).is_empty()
    });
    cluster.freeze_all(true);
    // Results are in flight.
    sleep(Duration::from_secs(1));
    crawl.signal("-TERM");
    let status = exit_within_ten_seconds(&mut crawl);
    cluster.freeze_all(false);
    assert_eq!(status, Some(1), "results in flight are lost");
}

#[test]
fn max_sockets_respects_the_descriptor_limit_and_inherited_descriptors() {
    for (inherited, limit, expected) in [("100 0", 90, 26..=26), ("100 199", 200, 20..=50)] {
        let simnet = Simnet::start(&["--nodes", "200", "--dead", "300", "--time-scale", "0.05"]);
        let database = Cluster::shared().database();
        let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[]);
        let program = crawl.command(&["crawl", "--passes", "1"]);
        // Sets the hard limit, which the program cannot raise.
        let script = format!(
            "for i in $(seq {inherited}); do eval \"exec $i</dev/null\"; done
             ulimit -n {limit}; exec {:?} \"$@\"",
            program.get_program()
        );
        let mut shell = Command::new("bash");
        shell.args(["-c", &script, "crawl"]).args(program.get_args());
        let log = File::create(crawl.log_path()).unwrap();
        crawl.child = Some(shell.stderr(log).spawn().unwrap());
        assert!(crawl.wait().success(), "{}", crawl.log());
        let log = crawl.log();
        let words = format!(" max_sockets configured=200 open_files={limit} ");
        let line = log.lines().find(|line| line.contains(&words)).expect("a warning");
        let uses: u64 = value(line, "uses").parse().unwrap();
        assert!(expected.contains(&uses), "{line}");
        assert!(!log.contains("resource_limited"), "{log}");
        check_map(&database, &simnet);
        check_conduct(&simnet.stop(), 1, uses);
    }
}

#[test]
fn exhausted_descriptors_reduce_the_pace_and_spare_the_database() {
    let simnet = Simnet::start(&["--nodes", "200", "--dead", "900", "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    let database = cluster.database();
    let lines = [
        "crawl.max_sockets = 120",
        "crawl.connects_per_second = 60",
        ASK_AT_ONCE,
        "database.flush_interval = \"500ms\"",
    ];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    let set_limit = |crawl: &Crawl, limit: u32| {
        let pid = crawl.child.as_ref().unwrap().id().to_string();
        let limit = format!("--nofile={limit}:");
        assert!(Command::new("prlimit").args(["--pid", &pid, &limit]).status().unwrap().success());
    };
    set_limit(&crawl, 26);
    crawl.wait_for_log(|line| line.contains("resource_limited lacks=open_files"));
    // The database connection needs a descriptor, in competition with the dialing sessions.
    for number in 1..=3 {
        cluster.stop_server();
        let times = |crawl: &Crawl, words: &str| crawl.log().matches(words).count();
        let down = || times(&crawl, "database state=down") == number;
        wait_until("the database is down", Duration::from_secs(20), down);
        // Long enough for the dialing sessions to use every free descriptor.
        sleep(Duration::from_millis(2_500));
        cluster.start_server();
        let up = || times(&crawl, "database state=up") == number;
        let took = wait_until("the database is up", Duration::from_secs(10), up);
        print_note(&format!("short of descriptors the database was up within {took:?}"));
    }
    set_limit(&crawl, 400);
    crawl.wait_for_log(|line| {
        line.contains("resource_limited state=over") || line.contains("state=finished")
    });
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    check_nothing_lost_or_doubled(&database);
    check_conduct(&simnet.stop(), 1, 120);
}
