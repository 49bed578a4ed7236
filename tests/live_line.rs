//! A crawl on a terminal: a status line replaces the repeated stats lines, with the log above it.

#![allow(clippy::disallowed_methods)] // waits for the program

mod support;

use std::thread::sleep;
use std::time::Duration;

use support::Cluster;
use support::crawl::{Crawl, Simnet};
use support::faults::{print_note, wait_until};
use support::terminal::Terminal;

const TIMEOUT: Duration = Duration::from_secs(60);

/// The successive texts of the status line.
fn drawn(got: &str) -> Vec<&str> {
    let texts = got.split("\r\x1b[K").skip(1);
    texts.filter(|text| !text.is_empty() && !text.contains('\n')).collect()
}

fn crawl(lines: &[&str]) -> (String, Crawl) {
    crawl_on(80, lines)
}

fn crawl_on(columns: u16, lines: &[&str]) -> (String, Crawl) {
    let arguments = ["--nodes", "200", "--dead", "300", "--time-scale", "0.05"];
    let simnet = Simnet::start(&arguments);
    let database = Cluster::shared().database();
    // Few sockets, so that the pass lasts several seconds.
    let lines = [&["crawl.max_sockets = 40"], lines].concat();
    let crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    let got = support::terminal::run(
        crawl.dir.path(),
        columns,
        "-c bitdash.toml crawl --passes 1",
        TIMEOUT,
    );
    (got, crawl)
}

#[test]
fn a_crawl_on_a_terminal_redraws_one_status_line() {
    let (got, _crawl) = crawl(&[]);
    let drawn = drawn(&got);
    let running = |text: &&&str| text.starts_with("pass 1 [") && text.contains("/40 sockets");
    assert!(drawn.iter().filter(running).count() >= 2, "{got:?}");
    assert!(drawn.iter().all(|text| text.chars().count() < 80), "{drawn:?}");
    // The log lines are whole, and the periodic stats lines are suppressed.
    assert!(got.contains(" INFO pass pass=1 state=started due="), "{got:?}");
    let stats: Vec<&str> = got.lines().filter(|line| line.contains(" stats pass=")).collect();
    let finished = got.find("state=finished").unwrap_or_else(|| panic!("{got:?}"));
    assert!((1..=2).contains(&stats.len()), "{stats:?}");
    assert!(got.find(" stats pass=").unwrap() > finished, "{got:?}");
    // The status line is cleared at the end.
    let last = got.rfind("\r\x1b[K").unwrap();
    assert!(!got[last..].contains("sockets  "), "{got:?}");
}

#[test]
fn with_a_log_file_the_stats_lines_are_logged_there() {
    let (got, crawl) = crawl(&["log.file = \"crawl.log\""]);
    assert!(drawn(&got).iter().any(|text| text.starts_with("pass 1 [")), "{got:?}");
    assert!(!got.contains(" stats pass="), "{got:?}");
    let log = std::fs::read_to_string(crawl.dir.path().join("crawl.log")).unwrap();
    let before_the_end = log.split("state=finished").next().unwrap();
    assert!(before_the_end.contains(" stats pass=1 "), "{log}");
    assert!(!log.contains('\x1b'), "{log}");
}

#[test]
fn a_person_sees_one_line_and_then_a_summary() {
    for columns in [80, 200] {
        let (got, _crawl) = crawl_on(columns, &["log.file = \"crawl.log\""]);
        let mut terminal = vt100::Parser::new(24, columns, 0);
        let mut seen = Vec::new();
        for part in got.split_inclusive('\r') {
            terminal.process(part.as_bytes());
            seen.push(shown(&terminal));
        }
        seen.retain(|rows| rows.first().is_some_and(|row| !row.contains("finished")));
        assert!(seen.len() >= 3, "{got:?}");
        for rows in &seen {
            assert_eq!(rows.len(), 1, "at {columns} columns: {rows:?}");
            assert!(rows[0].chars().count() < usize::from(columns), "{rows:?}");
        }
        assert!(seen.iter().any(|rows| rows[0].starts_with("pass 1 [")), "{seen:?}");
        let rows = shown(&terminal);
        assert_eq!(rows.len(), 3, "{rows:?}");
        assert!(
            rows[0].starts_with("pass 1 finished: ") && rows[0].contains(" probed, "),
            "{rows:?}"
        );
        assert!(
            rows[1].contains(" nodes up of ") && rows[2].contains("bitdash status"),
            "{rows:?}"
        );
    }
}

/// The rows of the terminal that are not empty.
fn shown(terminal: &vt100::Parser) -> Vec<String> {
    terminal.screen().rows(0, 200).filter(|row| !row.is_empty()).collect()
}

#[test]
fn an_interrupted_pass_is_summed_up() {
    let simnet = Simnet::start(&["--nodes", "100", "--dead", "400", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let lines = ["crawl.connects_per_second = 40", "log.file = \"crawl.log\""];
    let crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    let terminal = Terminal::start(crawl.dir.path(), "-c bitdash.toml crawl");
    wait_until("the pass runs", TIMEOUT, || terminal.shown().contains("\x1b[Kpass 1 ["));
    sleep(Duration::from_secs(2));
    terminal.stop(Duration::from_secs(10));
    let shown = terminal.shown();
    let line = shown.lines().find(|line| line.contains("pass 1 interrupted: ")).unwrap();
    assert!(line.contains(" probed, ") && line.contains("the next start resumes it"), "{line}");
    let log = std::fs::read_to_string(crawl.dir.path().join("crawl.log")).unwrap();
    assert!(log.contains(" pass pass=1 state=interrupted probed="), "{log}");
    drop(terminal);
    let again = Terminal::start(crawl.dir.path(), "-c bitdash.toml crawl");
    wait_until("the pass is resumed", TIMEOUT, || again.shown().contains("\x1b[Kpass 1 resumed ["));
}

#[test]
fn a_paused_terminal_delays_neither_the_crawl_nor_its_stop() {
    // With only the status line on the terminal, and with the log, too.
    for log in ["log.file = \"crawl.log\"", "log.file = \"\""] {
        let simnet = Simnet::start(&["--nodes", "100", "--dead", "400", "--time-scale", "0.05"]);
        let database = Cluster::shared().database();
        let crawl = Crawl::configure(
            &database,
            &simnet.seeds(),
            &["crawl.connects_per_second = 40", "database.flush_interval = \"200ms\"", log],
        );
        let mut terminal = Terminal::start(crawl.dir.path(), "-c bitdash.toml crawl");
        wait_until("the status line is drawn", TIMEOUT, || {
            terminal.shown().contains("\x1b[Kpass 1 [")
        });
        let finished = "SELECT count(*) FROM passes WHERE finished_at IS NOT NULL";
        assert_eq!(database.value(finished), "0", "the pass finished too early");
        terminal.pause();
        let mut shown = String::new();
        // Output already in flight may still arrive.
        while shown != terminal.shown() {
            shown = terminal.shown();
            sleep(Duration::from_millis(2_500));
        }
        wait_until("the pass ends", TIMEOUT, || database.value(finished) != "0");
        assert_eq!(terminal.shown(), shown, "the terminal is not paused");
        let took = terminal.stop(Duration::from_secs(10));
        print_note(&format!("stopped on a paused terminal after {took:?}"));
    }
}

#[test]
fn a_terminal_that_goes_away_ends_a_crawl_that_logs_to_it() {
    for log in ["", "crawl.log"] {
        let simnet = Simnet::start(&["--nodes", "100", "--dead", "400", "--time-scale", "0.05"]);
        let database = Cluster::shared().database();
        let log_file = format!("log.file = \"{log}\"");
        // Only the stop writes.
        let lines =
            ["crawl.connects_per_second = 40", "database.flush_interval = \"600s\"", &log_file];
        let crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
        let mut terminal = Terminal::start(crawl.dir.path(), "-c bitdash.toml crawl");
        wait_until("the pass runs", TIMEOUT, || terminal.shown().contains("\x1b[Kpass 1 ["));
        sleep(Duration::from_secs(4));
        let nodes = || database.value("SELECT count(*) FROM nodes").parse::<u32>().unwrap();
        assert_eq!(nodes(), 0);
        terminal.close();
        if !log.is_empty() {
            // It goes on without the terminal: the signal reloads.
            let log = || std::fs::read_to_string(crawl.dir.path().join(log)).unwrap();
            wait_until("it reloads", TIMEOUT, || log().contains(" reload changed=nothing"));
            sleep(Duration::from_secs(1));
            assert!(terminal.is_running(), "{}", log());
            terminal.stop(Duration::from_secs(10));
            assert!(log().contains("stop lost=0"), "{}", log());
        }
        wait_until("bitdash exits", Duration::from_secs(10), || !terminal.is_running());
        assert!(nodes() > 10, "{} nodes were written", nodes());
        let probed = "SELECT p.probed = p.responded + p.failed AND p.responded = (SELECT count(*) FROM nodes)
            FROM passes p WHERE pass = 1";
        assert_eq!(database.value(probed), "t");
    }
}
