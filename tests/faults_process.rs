//! The real crawler killed at any moment, on full disks, without descriptors, with a log that takes nothing.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::{PipeReader, PipeWriter, Write};
use std::process::{Command, Stdio};
use std::thread::{self, sleep};
use std::time::Duration;

use support::crawl::{Crawl, Simnet, check_manners, check_map, is_stats, value};
use support::faults::{
    check_nothing_lost_or_doubled, count, fill, millis, on_a_small_disk, rng, say, wait_until,
};
use support::{Cluster, Database};

/// Every address with what was committed of it.
fn committed(database: &Database) -> BTreeSet<String> {
    if database.value("SELECT to_regclass('store_state') IS NULL") == "t" {
        return BTreeSet::new();
    }
    let sql = "SELECT host(host), port FROM addresses WHERE last_probed IS NOT NULL";
    database.rows(sql).into_iter().collect()
}

#[test]
fn killed_at_any_moment_it_goes_on_without_loss_or_double() {
    let kills = count("BITDASH_KILLS", 5);
    let mut rng = rng("kills of the crawler");
    let dead = (300 + 200 * kills).to_string();
    let simnet = Simnet::start(&["--nodes", "200", "--dead", &dead, "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let lines = ["crawl.connects_per_second = 120", "database.flush_interval = \"100ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    let mut before = BTreeSet::new();
    for number in 1..=kills {
        crawl.start(&[]);
        sleep(millis(&mut rng, 100, 1_500));
        if number == kills && before.is_empty() {
            wait_until("one life is long enough", Duration::from_secs(60), || {
                !committed(&database).is_empty()
            });
        }
        crawl.signal("-KILL");
        crawl.wait();
        let now = committed(&database);
        say(&format!("kill {number}: {} addresses were committed by then", now.len()));
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
fn killed_in_the_middle_of_a_statement_it_does_not_shut_itself_out() {
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "300", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let lines = ["crawl.connects_per_second = 60", "database.flush_interval = \"200ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    crawl.start(&[]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    // Its next statement waits for this one, with the crawler's lock in its session. In the order of its batches:
    // in the other one, both may wait for each other.
    let mut keeper = database.client();
    keeper.batch_execute("BEGIN; LOCK TABLE result_journal, passes IN SHARE MODE").unwrap();
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted AND database = (SELECT oid FROM pg_database
        WHERE datname = current_database())";
    wait_until("a statement waits", Duration::from_secs(20), || database.value(waits) != "0");
    crawl.signal("-KILL");
    crawl.wait();
    crawl.start(&["--passes", "1"]);
    wait_until("it begins again", Duration::from_secs(30), || {
        crawl.log().matches("pass pass=1 state=").count() == 2
    });
    keeper.batch_execute("ROLLBACK").unwrap();
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
}

#[test]
fn a_full_disk_of_the_database_costs_nothing() {
    let name = "a_full_disk_of_the_database_costs_nothing";
    let Some(disk) = on_a_small_disk(name, "200m") else { return };
    let simnet = Simnet::start(&["--nodes", "300", "--dead", "1200", "--time-scale", "0.05"]);
    let cluster = Cluster::start_in(&disk);
    let database = cluster.database();
    let lines = ["crawl.connects_per_second = 100", "database.flush_interval = \"500ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    let filler = fill(&disk);
    let down = crawl.wait_for_log(|line| line.contains("database state=down"));
    assert!(down.contains("No space left on device"), "{down}");
    let probed = |line: &str| value(line, "probed").parse::<u64>().unwrap();
    let first = crawl.wait_for_log(|line| is_stats(line) && line.contains(" db=down "));
    sleep(Duration::from_secs(3));
    let log = crawl.log();
    let last = log.lines().rfind(|line| is_stats(line)).unwrap();
    assert!(last.contains(" db=down ") && probed(last) > probed(&first) + 100, "{last}");
    assert_eq!(log.matches("state=down").count(), 1, "it is said once: {log}");
    fs::remove_file(filler).unwrap();
    let took = wait_until("it is up again", Duration::from_secs(10), || {
        crawl.log().contains("database state=up")
    });
    say(&format!("with room again the database was up after {took:?}"));
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    check_nothing_lost_or_doubled(&database);
    check_manners(&simnet.stop(), 1, 200);
}

#[test]
fn a_full_disk_of_the_log_costs_lines_and_nothing_else() {
    let name = "a_full_disk_of_the_log_costs_lines_and_nothing_else";
    let Some(disk) = on_a_small_disk(name, "32k") else { return };
    let simnet = Simnet::start(&["--nodes", "150", "--dead", "700", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let file = disk.join("bitdash.log");
    let log = format!("log.file = {:?}", file.display().to_string());
    let lines = [&log, "log.level = \"debug\"", "crawl.connects_per_second = 120"];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    crawl.start(&["--passes", "1"]);
    // Standard error is another file.
    let line = crawl.wait_for_log(|line| line.contains("cannot be written"));
    assert!(line.starts_with("bitdash: log.file ") && line.contains("no space left"), "{line}");
    sleep(Duration::from_millis(500));
    // As logrotate does it: moved away, deleted, made anew.
    fs::remove_file(&file).unwrap();
    crawl.signal("-HUP");
    let took = wait_until("it logs again", Duration::from_secs(10), || {
        fs::read_to_string(&file).is_ok_and(|text| text.contains(" [WARN] log lost="))
    });
    say(&format!("with room again the log went on after {took:?}"));
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    check_nothing_lost_or_doubled(&database);
    let told = crawl.log().matches("cannot be written").count();
    // And perhaps once more, where the deleted file was still being closed when the new one began.
    assert!(told <= 3, "once each time that it fills: {}", crawl.log());
}

#[test]
fn a_log_that_nobody_reads_holds_nobody_up() {
    let simnet = Simnet::start(&["--nodes", "300", "--dead", "3000", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let lines = ["log.level = \"trace\"", "log.stats_interval = \"1s\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    // The pipe takes 64 KB and then nothing more.
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

    // A named pipe as the log's file is refused, or loses lines: it never blocks.
    let fifo = crawl.dir.path().join("fifo");
    assert!(Command::new("mkfifo").arg(&fifo).status().unwrap().success());
    let file = format!("log.file = {:?}", fifo.display().to_string());
    crawl.reconfigure(&database, &simnet.seeds(), &[&file]);
    assert_eq!(crawl.run(&["--passes", "1"]).code(), Some(2));
    assert!(crawl.log().contains("log.file"), "{}", crawl.log());
}

/// A pipe that is full, with an end that nobody reads.
fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, writer) = std::io::pipe().unwrap();
    let mut filler = writer.try_clone().unwrap();
    // It waits for room until the reader is gone.
    thread::spawn(move || filler.write_all(&[b' '; 1 << 20]));
    sleep(Duration::from_millis(200));
    (reader, writer)
}

/// Starts a crawl that writes to nobody.
fn start_unheard(crawl: &mut Crawl, stderr: PipeWriter) {
    crawl.child = Some(crawl.command(&["crawl"]).stderr(stderr).spawn().unwrap());
}

/// Waits for the end of a crawl, not longer than it has promised; gives its status.
fn ends_within_ten_seconds(crawl: &mut Crawl) -> Option<i32> {
    let child = crawl.child.as_mut().unwrap();
    let mut status = None;
    let took = wait_until("it ends", Duration::from_secs(10), || {
        status = child.try_wait().unwrap();
        status.is_some()
    });
    say(&format!("with a full pipe for standard error it ended after {took:?}"));
    crawl.child = None;
    status.unwrap().code()
}

#[test]
fn what_fails_ends_though_nobody_takes_its_last_word() {
    let database = Cluster::shared().database();
    let nowhere = Database { url: database.url.replace(&database.name, "none"), ..database };
    let folder = tempfile::tempdir().unwrap();
    let seeds = folder.path().join("nodes.txt");
    fs::write(&seeds, "127.9.9.9\n").unwrap();
    let mut crawl = Crawl::configure(&nowhere, &seeds, &[]);
    let (_unread, stderr) = full_pipe();
    start_unheard(&mut crawl, stderr);
    assert_eq!(ends_within_ten_seconds(&mut crawl), Some(1));
}

#[test]
fn a_stop_is_in_time_though_the_database_and_the_log_hang_together() {
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "900", "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    let database = cluster.database();
    let lines = ["crawl.connects_per_second = 60", "database.flush_interval = \"200ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    let (_unread, stderr) = full_pipe();
    start_unheard(&mut crawl, stderr);
    wait_until("it writes", Duration::from_secs(30), || !committed(&database).is_empty());
    cluster.freeze_all(true);
    // Something is in hand.
    sleep(Duration::from_secs(1));
    crawl.signal("-TERM");
    let status = ends_within_ten_seconds(&mut crawl);
    cluster.freeze_all(false);
    assert_eq!(status, Some(1), "what was in hand was lost");
}

#[test]
fn descriptors_that_others_hold_are_counted() {
    let simnet = Simnet::start(&["--nodes", "100", "--dead", "100", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[]);
    let program = crawl.command(&["crawl", "--passes", "1"]);
    let args: Vec<&str> = program.get_args().map(|arg| arg.to_str().unwrap()).collect();
    let script = format!(
        "for i in $(seq 100 199); do eval \"exec $i</dev/null\"; done; ulimit -n 200; exec {:?} \"$@\"",
        program.get_program()
    );
    let log = File::create(crawl.log_path()).unwrap();
    let mut shell = Command::new("bash");
    crawl.child =
        Some(shell.args(["-c", &script, "crawl"]).args(args).stderr(log).spawn().unwrap());
    assert!(crawl.wait().success(), "{}", crawl.log());
    let log = crawl.log();
    let line = log.lines().find(|line| line.contains(" max_sockets configured=200")).unwrap();
    let uses: u64 = value(line, "uses").parse().unwrap();
    assert!((20..=50).contains(&uses), "{line}");
    assert!(!log.contains("squeezed"), "{log}");
    check_map(&database, &simnet);
    check_manners(&simnet.stop(), 1, uses);
}

#[test]
fn descriptors_that_run_out_cost_pace_and_not_the_database() {
    let simnet = Simnet::start(&["--nodes", "200", "--dead", "900", "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    let database = cluster.database();
    let lines = [
        "crawl.max_sockets = 120",
        "crawl.connects_per_second = 60",
        "database.flush_interval = \"500ms\"",
    ];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    let limit = |crawl: &Crawl, most: u32| {
        let pid = crawl.child.as_ref().unwrap().id().to_string();
        let most = format!("--nofile={most}:");
        assert!(Command::new("prlimit").args(["--pid", &pid, &most]).status().unwrap().success());
    };
    limit(&crawl, 26);
    crawl.wait_for_log(|line| line.contains("squeezed lacks=open_files"));
    // The database needs a descriptor for its new connection, and does not get it from those who dial.
    for number in 1..=3 {
        cluster.stop_server();
        let times = |crawl: &Crawl, words: &str| crawl.log().matches(words).count();
        let down = || times(&crawl, "database state=down") == number;
        wait_until("the database is down", Duration::from_secs(20), down);
        // Long enough for those who dial to take whatever is free.
        sleep(Duration::from_millis(2_500));
        cluster.start_server();
        let up = || times(&crawl, "database state=up") == number;
        let took = wait_until("the database is up", Duration::from_secs(10), up);
        say(&format!("short of descriptors the database was up after {took:?}"));
    }
    limit(&crawl, 400);
    crawl.wait_for_log(|line| {
        line.contains("squeezed state=over") || line.contains("state=finished")
    });
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    check_nothing_lost_or_doubled(&database);
    check_manners(&simnet.stop(), 1, 120);
}
