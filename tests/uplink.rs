//! The real crawler while its uplink fails, in a network namespace with nothing but loopback.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::thread::sleep;
use std::time::Duration;

use support::Cluster;
use support::crawl::{Crawl, Simnet, is_stats, value};
use support::namespace::{self, Namespace};

/// Interrupts the uplink of a crawl, waits until the crawl logs it, and restores the uplink. In the
/// end every node is up, and no result of the outage was written. Returns the log.
fn check_interruption(namespace: &Namespace, off: &str, on: &str, why: &str) -> String {
    let simnet = Simnet::start(&["--nodes", "300", "--dead", "300", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let slow = [
        "crawl.connects_per_second = 60",
        "crawl.max_sockets = 400",
        "crawl.candidate_connect_timeout = \"2s\"",
        "crawl.connect_timeout = \"3s\"",
        "log.level = \"debug\"",
    ];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &slow);
    crawl.start(&["--passes", "1"]);
    let responded = |line: &str| value(line, "responded").parse::<u64>().unwrap();
    crawl.wait_for_log(|line| is_stats(line) && responded(line) > 30);
    namespace.run(off);
    let line = crawl.wait_for_log(|line| line.contains(" uplink state=down"));
    assert!(line.contains(why), "{line}");
    crawl.wait_for_log(|line| {
        is_stats(line) && line.contains(" limit=uplink ") && line.contains(" uplink=down ")
    });
    let failed =
        |log: &str| value(log.lines().rfind(|line| is_stats(line)).unwrap(), "failed").to_owned();
    sleep(Duration::from_secs(2));
    let before = failed(&crawl.log());
    sleep(Duration::from_secs(4));
    assert_eq!(failed(&crawl.log()), before, "a result of the outage was counted");
    let status = crawl.command(&["status"]).output().unwrap();
    let status = String::from_utf8_lossy(&status.stdout).into_owned();
    assert!(status.contains(" responded; our uplink was down\n"), "{status}");
    namespace.run(on);
    crawl.wait_for_log(|line| line.contains(" uplink state=up after_s="));
    assert!(crawl.wait().success(), "{}", crawl.log());
    let up = "SELECT count(*) FILTER (WHERE status = 'up'), count(*), max(failures) FROM nodes";
    // Both ends share the interface: a node's end of a connection may break as well.
    let how = database.rows("SELECT last_outcome, count(*) FROM candidates GROUP BY 1 ORDER BY 1");
    assert_eq!(database.rows(up), ["300|300|0"], "{how:?}");
    assert_eq!(database.value("SELECT count(*) FROM probes"), "300");
    let dead = "SELECT count(*), count(*) FILTER (WHERE failures = 1) FROM candidates";
    assert_eq!(database.rows(dead), ["300|300"]);
    crawl.log()
}

#[test]
fn a_silent_uplink_is_detected_and_marks_no_node_down() {
    let name = "a_silent_uplink_is_detected_and_marks_no_node_down";
    let Some(namespace) = namespace::enter(name) else { return };
    let (off, on) = ("ip link set lo down", "ip link set lo up");
    let log = check_interruption(&namespace, off, on, "reference_nodes=8");
    // In the debug log they are told from other probes.
    let silent = |line: &&str| {
        line.contains(" reference_probe ") && line.ends_with("outcome=connect_timeout")
    };
    assert!(log.lines().filter(silent).count() >= 8, "{log}");
}

#[test]
fn a_missing_route_is_detected_and_marks_no_node_down() {
    let name = "a_missing_route_is_detected_and_marks_no_node_down";
    let Some(namespace) = namespace::enter(name) else { return };
    let route = "127.0.0.0/8 dev lo table local";
    let off = format!("ip route del local {route}");
    let on = format!("ip route add local {route}");
    check_interruption(&namespace, &off, &on, "unreachable");
}
