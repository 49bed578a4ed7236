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
    let arguments = ["--nodes", "200", "--dead", "300", "--time-scale", "0.05"];
    let simnet = Simnet::start(&arguments);
    let database = Cluster::shared().database();
    // Few sockets, so that the pass lasts several seconds.
    let lines = [&["crawl.max_sockets = 40"], lines].concat();
    let crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    let got = support::terminal::run(crawl.dir.path(), "-c bitdash.toml crawl --passes 1", TIMEOUT);
    (got, crawl)
}

#[test]
fn a_crawl_on_a_terminal_redraws_one_status_line() {
    let (got, _crawl) = crawl(&[]);
    let drawn = drawn(&got);
    let running = |text: &&&str| text.starts_with("pass 1  ") && text.contains("/40 sockets");
    assert!(drawn.iter().filter(running).count() >= 2, "{got:?}");
    assert!(drawn.iter().all(|text| text.chars().count() < 80), "{drawn:?}");
    // The log lines are whole, and the periodic stats lines are suppressed.
    assert!(got.contains("] pass pass=1 state=started due="), "{got:?}");
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
    assert!(drawn(&got).iter().any(|text| text.starts_with("pass 1  ")), "{got:?}");
    assert!(!got.contains(" stats pass="), "{got:?}");
    let log = std::fs::read_to_string(crawl.dir.path().join("crawl.log")).unwrap();
    let before_the_end = log.split("state=finished").next().unwrap();
    assert!(before_the_end.contains(" stats pass=1 "), "{log}");
    assert!(!log.contains('\x1b'), "{log}");
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
            terminal.shown().contains("\x1b[Kpass 1  ")
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
