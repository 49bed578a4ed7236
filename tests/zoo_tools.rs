//! `probe` and `poll` against the zoo: every misbehaviour is reported as stated, in a table, as
//! JSON and in traces, and no raw byte of a peer reaches the terminal.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::collections::HashMap;
use std::time::Duration;

use bitdash_core::lookup::services;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_simnet::verify::truth::{Kind, Row};
use serde_json::Value;
use support::crawl::Simnet;
use support::tools::{Directory, Ran};

/// A small network with a zoo, stopped on drop, and a directory to run the commands in.
struct Zoo {
    simnet: Simnet,
    placements: Vec<Row>,
    directory: Directory,
}

impl Zoo {
    fn open() -> Self {
        let arguments = "--nodes 60 --dead 0 --zoo 1 --time-scale 0.02 --latency off";
        let simnet = Simnet::start(&arguments.split(' ').collect::<Vec<_>>());
        let placements = simnet.truth(Kind::Zoo);
        assert!(placements.len() > 150, "{} placements", placements.len());
        // Enough for a busy machine; a `version` at a byte per second would take two minutes.
        Self {
            simnet,
            placements,
            directory: Directory::with_timeouts("12s", "12s", "3s", "500ms"),
        }
    }

    /// Runs a command with the addresses of these placements as its last arguments.
    fn run<'a>(&'a self, arguments: &[&'a str], placements: &[&Row]) -> Ran {
        let places: Vec<String> = placements.iter().map(|row| row.address.to_string()).collect();
        let places = places.iter().map(String::as_str);
        let all: Vec<&str> = arguments.iter().copied().chain(places).collect();
        self.directory.run(&all)
    }

    fn all(&self) -> Vec<&Row> {
        self.placements.iter().collect()
    }

    fn responding(&self) -> Vec<&Row> {
        self.placements.iter().filter(|placement| placement.outcome == Outcome::Responded).collect()
    }

    fn failing(&self) -> usize {
        self.placements.len() - self.responding().len()
    }
}

/// Panics unless the text is printable ASCII and line feeds.
fn check_clean(text: &str) {
    let is_clean = |c: char| c == '\n' || matches!(c, ' '..='~');
    let dirty = text.lines().find(|line| !line.chars().all(is_clean));
    assert!(text.chars().all(is_clean), "{dirty:?}");
}

fn check_facts(found: &Value, row: &Row) {
    let label = &row.label;
    assert_eq!(found["outcome"], row.outcome.as_str(), "{label}: {found}");
    let place = format!("{}:{}", found["host"].as_str().unwrap(), found["port"]);
    assert_eq!(place, row.address.to_string());
    let fields = row.fields.as_ref();
    let services = fields.map(|fields| fields.services as u64);
    for (key, expected) in [
        ("protocol_version", json(fields.map(|fields| fields.protocol_version))),
        ("start_height", json(fields.and_then(|fields| fields.start_height))),
        ("user_agent", json(fields.and_then(|fields| fields.user_agent.clone()))),
        ("species", json(fields.map(|fields| fields.species.clone()))),
        ("release", json(fields.and_then(|fields| fields.release.clone()))),
        ("relay", json(fields.and_then(|fields| fields.relay))),
        ("services", json(services.map(|bits| bits.to_string()))),
        ("service_names", json(services.map(services::names))),
    ] {
        assert_eq!(found[key], expected, "{key} of {label}: {found}");
    }
}

fn json<T: Into<Value>>(value: Option<T>) -> Value {
    value.map_or(Value::Null, Into::into)
}

#[test]
fn probe_reports_every_misbehaviour_as_stated_in_json() {
    let zoo = Zoo::open();
    let ran = zoo.run(&["probe", "--json", "--peers", "--trace"], &zoo.all());
    let down = format!("bitdash: {} of {} did not respond\n", zoo.failing(), zoo.placements.len());
    assert_eq!((ran.status, &ran.err), (1, &down));
    check_clean(&ran.out);
    let found = ran.json();
    assert_eq!(found.len(), zoo.placements.len());
    for (found, placement) in found.iter().zip(&zoo.placements) {
        check_facts(found, placement);
        let steps = found["trace"].as_array().unwrap().len();
        assert!((1..=5_010).contains(&steps), "{}: {steps} steps", placement.label);
        let peers = found["peers"].as_array().unwrap().len();
        assert!(peers <= 5_000, "{}: {peers} peers", placement.label);
    }
    let ran = zoo.run(&["probe", "--json"], &zoo.responding());
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "all responded");
    assert_eq!(zoo.simnet.stop().number("protocol_faults"), 0);
}

#[test]
fn probe_reports_every_misbehaviour_without_raw_bytes() {
    let zoo = Zoo::open();
    for options in [&["probe"][..], &["probe", "--trace", "--peers"]] {
        let ran = zoo.run(options, &zoo.all());
        assert_eq!(ran.status, 1);
        check_clean(&ran.out);
        check_clean(&ran.err);
        let mut at = 0;
        let lines: Vec<&str> = ran.out.lines().collect();
        for placement in &zoo.placements {
            // Each block begins with the address and its outcome, in the order of the arguments.
            let title = format!("{}: {}", placement.address, placement.outcome);
            let found = lines[at..].iter().position(|line| line.starts_with(&title));
            at += found.unwrap_or_else(|| panic!("no {title:?} in its place: {}", placement.label))
                + 1;
            if placement.outcome != Outcome::Responded {
                continue;
            }
            let block = lines[at..].iter().take_while(|line| !line.is_empty());
            let block: Vec<&str> = block.copied().collect();
            let fields = placement.fields.as_ref().expect("it responds");
            let agent = match fields.user_agent.as_deref() {
                None => "not sent",
                Some("") => "empty",
                Some(agent) => agent,
            };
            let line = block.iter().find_map(|line| line.strip_prefix("  user agent"));
            let shown =
                line.unwrap_or_else(|| panic!("{}: {block:#?}", placement.label)).trim_start();
            assert!(shown.starts_with(agent.trim()), "{}: {shown:?}", placement.label);
        }
    }
}

#[test]
fn a_terminal_gets_no_control_codes_of_peers() {
    let zoo = Zoo::open();
    let names = [
        "agent_of_terminal_escapes",
        "agent_of_every_byte",
        "agent_of_a_forged_stats_line",
        "agent_from_right_to_left",
        "command_of_terminal_escapes",
        "commands_of_every_byte",
        "garbage",
    ];
    let placements =
        zoo.placements.iter().filter(|placement| names.contains(&placement.label.as_str()));
    let places: Vec<String> = placements.map(|row| row.address.to_string()).collect();
    assert_eq!(places.len(), names.len());
    for options in ["probe --trace --peers", "probe --trace --json"] {
        let line = format!("{options} {}", places.join(" "));
        let got = zoo.directory.run_on_terminal(&line, Duration::from_secs(60));
        assert!(got.contains("responded") && got.contains("not_bitcoin"), "{got:?}");
        // Without the live line's carriage return and erasure, and the terminal's line ends.
        let mut rest = got.replace("\r\x1b[K", "").replace("\r\n", "\n").replace('…', "");
        // Our own colours.
        for parameter in ["0", "1", "31", "32", "33"] {
            rest = rest.replace(&format!("\x1b[{parameter}m"), "");
        }
        check_clean(&rest);
    }
}

#[test]
fn poll_reports_every_misbehaviour_in_a_table_and_in_json() {
    let zoo = Zoo::open();
    let lines = |placements: &[&Row]| {
        let line = |placement: &&Row| {
            format!("{} {} {}\n", placement.address.ip(), placement.address.port(), placement.label)
        };
        placements.iter().map(line).collect::<String>()
    };
    zoo.directory.write("zoo.txt", &lines(&zoo.all()));
    let down = format!("bitdash: {} of {} did not respond\n", zoo.failing(), zoo.placements.len());

    let ran = zoo.directory.run(&["poll", "zoo.txt"]);
    assert_eq!((ran.status, &ran.err), (1, &down));
    check_clean(&ran.out);
    let up = format!("{} of {} up\n", zoo.responding().len(), zoo.placements.len());
    assert!(ran.out.ends_with(&up), "{}", ran.out);
    assert_eq!(ran.out.lines().count(), zoo.placements.len() + 2, "{}", ran.out);
    for placement in &zoo.placements {
        let place = format!(" {} ", placement.address);
        let line = ran.out.lines().find(|line| line.contains(&place)).unwrap();
        assert!(line.contains(&format!(" {} ", placement.outcome)), "{}: {line}", placement.label);
    }

    let ran = zoo.directory.run(&["poll", "zoo.txt", "--json"]);
    assert_eq!((ran.status, &ran.err), (1, &down));
    check_clean(&ran.out);
    let place = |row: &Value| format!("{}:{}", row["host"].as_str().unwrap(), row["port"]);
    let found: HashMap<String, Value> =
        ran.json().into_iter().map(|row| (place(&row), row)).collect();
    assert_eq!(found.len(), zoo.placements.len());
    for placement in &zoo.placements {
        let found = &found[&placement.address.to_string()];
        check_facts(found, placement);
        assert_eq!(found["name"], placement.label.as_str());
    }

    zoo.directory.write("good.txt", &lines(&zoo.responding()));
    let ran = zoo.directory.run(&["poll", "good.txt", "--json"]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "all are up");
}
