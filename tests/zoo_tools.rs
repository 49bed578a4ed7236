//! `probe` and `poll` in the zoo: every bad behaviour is told as its statement says, in a table, as JSON and
//! message by message, and nothing that a beast sends reaches the terminal as it is.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use bitdash::lookup::services;
use serde_json::Value;
use support::crawl::Simnet;
use support::tools::{Folder, Ran};

type Row = BTreeMap<String, String>;

/// A small network with a zoo, which ends with the test, and a folder to run the tools in.
struct Zoo {
    simnet: Simnet,
    dens: Vec<Row>,
    folder: Folder,
}

impl Zoo {
    fn open() -> Self {
        let arguments = [
            "--nodes",
            "60",
            "--dead",
            "0",
            "--zoo",
            "1",
            "--time-scale",
            "0.02",
            "--latency",
            "off",
        ];
        let simnet = Simnet::start(&arguments);
        let dens = simnet.table("zoo.tsv");
        assert!(dens.len() > 150, "{} dens", dens.len());
        // Long enough for a busy machine; a version at a byte a second would take two minutes.
        Self { simnet, dens, folder: Folder::of_times("12s", "12s", "3s", "500ms") }
    }

    /// Runs a command with the addresses of these dens behind it.
    fn run<'a>(&'a self, arguments: &[&'a str], dens: &[&Row]) -> Ran {
        let places: Vec<String> = dens.iter().map(|den| place(den)).collect();
        let places = places.iter().map(String::as_str);
        let all: Vec<&str> = arguments.iter().copied().chain(places).collect();
        self.folder.run(&all)
    }

    fn all(&self) -> Vec<&Row> {
        self.dens.iter().collect()
    }

    fn responding(&self) -> Vec<&Row> {
        self.dens.iter().filter(|den| den["outcome"] == "responded").collect()
    }

    fn failing(&self) -> usize {
        self.dens.len() - self.responding().len()
    }
}

fn place(row: &Row) -> String {
    format!("{}:{}", row["host"], row["port"])
}

/// Printable ASCII and line feeds are all that may come out.
fn check_clean(text: &str) {
    let is_clean = |c: char| c == '\n' || matches!(c, ' '..='~');
    let dirty = text.lines().find(|line| !line.chars().all(is_clean));
    assert!(text.chars().all(is_clean), "{dirty:?}");
}

fn check_facts(found: &Value, den: &Row) {
    let beast = &den["beast"];
    assert_eq!(found["outcome"], den["outcome"], "{beast}: {found}");
    assert_eq!(
        (&found["host"], found["port"].to_string()),
        (&den["host"].as_str().into(), den["port"].clone())
    );
    let number = |key: &str| den[key].parse::<i64>().ok();
    let or_null = |value: Option<i64>| value.map_or(Value::Null, Value::from);
    let text = |key: &str| match den[key].as_str() {
        "\\N" => Value::Null,
        text => Value::from(text),
    };
    let relay = match den["relay"].as_str() {
        "t" => Value::Bool(true),
        "f" => Value::Bool(false),
        _ => Value::Null,
    };
    let services = number("services").map(|bits| bits as u64);
    for (key, expected) in [
        ("protocol_version", or_null(number("protocol_version"))),
        ("start_height", or_null(number("start_height"))),
        ("user_agent", text("user_agent")),
        ("species", text("species")),
        ("relay", relay),
        ("services", services.map_or(Value::Null, Value::from)),
        ("service_names", services.map_or(Value::Null, |bits| services::names(bits).into())),
    ] {
        assert_eq!(found[key], expected, "{key} of {beast}: {found}");
    }
}

#[test]
fn probe_tells_every_beast_as_stated_in_json() {
    let zoo = Zoo::open();
    let ran = zoo.run(&["probe", "--json", "--peers", "--trace"], &zoo.all());
    let down = format!("bitdash: {} of {} did not respond\n", zoo.failing(), zoo.dens.len());
    assert_eq!((ran.status, &ran.err), (1, &down));
    check_clean(&ran.out);
    let found = ran.json();
    assert_eq!(found.len(), zoo.dens.len());
    for (found, den) in found.iter().zip(&zoo.dens) {
        check_facts(found, den);
        let steps = found["trace"].as_array().unwrap().len();
        assert!((1..=5_010).contains(&steps), "{}: {steps} steps", den["beast"]);
        let peers = found["peers"].as_array().unwrap().len();
        assert!(peers <= 5_000, "{}: {peers} peers", den["beast"]);
    }
    let ran = zoo.run(&["probe", "--json"], &zoo.responding());
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "all responded");
    assert_eq!(zoo.simnet.stop().number("protocol_faults"), 0);
}

#[test]
fn probe_tells_every_beast_to_a_person_and_spares_the_terminal() {
    let zoo = Zoo::open();
    for options in [&["probe"][..], &["probe", "--trace", "--peers"]] {
        let ran = zoo.run(options, &zoo.all());
        assert_eq!(ran.status, 1);
        check_clean(&ran.out);
        check_clean(&ran.err);
        let mut at = 0;
        let lines: Vec<&str> = ran.out.lines().collect();
        for den in &zoo.dens {
            // Each block begins with the address and its outcome, in the order of the arguments.
            let title = format!("{}: {}", place(den), den["outcome"]);
            let found = lines[at..].iter().position(|line| line.starts_with(&title));
            at +=
                found.unwrap_or_else(|| panic!("no {title:?} in its place: {}", den["beast"])) + 1;
            if den["outcome"] != "responded" {
                continue;
            }
            let block = lines[at..].iter().take_while(|line| !line.is_empty());
            let block: Vec<&str> = block.copied().collect();
            let agent = match den["user_agent"].as_str() {
                "\\N" => "not sent",
                "" => "empty",
                agent => agent,
            };
            let line = block.iter().find_map(|line| line.strip_prefix("  user agent"));
            let shown = line.unwrap_or_else(|| panic!("{}: {block:#?}", den["beast"])).trim_start();
            assert!(shown.starts_with(agent.trim()), "{}: {shown:?}", den["beast"]);
        }
    }
}

#[test]
fn a_terminal_gets_no_code_that_is_not_ours() {
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
    let dens = zoo.dens.iter().filter(|den| names.contains(&den["beast"].as_str()));
    let places: Vec<String> = dens.map(place).collect();
    assert_eq!(places.len(), names.len());
    for options in ["probe --trace --peers", "probe --trace --json"] {
        let line = format!("{options} {}", places.join(" "));
        let got = zoo.folder.run_on_terminal(&line, Duration::from_secs(60));
        assert!(got.contains("responded") && got.contains("not_bitcoin"), "{got:?}");
        // The live line's carriage return and erasure, and the terminal's own line ends.
        let rest = got.replace("\r\x1b[K", "").replace("\r\n", "\n");
        check_clean(&rest);
    }
}

#[test]
fn poll_tells_every_beast_in_a_table_and_in_json() {
    let zoo = Zoo::open();
    let lines = |dens: &[&Row]| {
        let line = |den: &&Row| format!("{} {} {}\n", den["host"], den["port"], den["beast"]);
        dens.iter().map(line).collect::<String>()
    };
    zoo.folder.write("zoo.txt", &lines(&zoo.all()));
    let down = format!("bitdash: {} of {} did not respond\n", zoo.failing(), zoo.dens.len());

    let ran = zoo.folder.run(&["poll", "zoo.txt"]);
    assert_eq!((ran.status, &ran.err), (1, &down));
    check_clean(&ran.out);
    let up = format!("{} of {} up\n", zoo.responding().len(), zoo.dens.len());
    assert!(ran.out.ends_with(&up), "{}", ran.out);
    assert_eq!(ran.out.lines().count(), zoo.dens.len() + 2, "{}", ran.out);
    for den in &zoo.dens {
        let place = format!(" {} ", place(den));
        let line = ran.out.lines().find(|line| line.contains(&place)).unwrap();
        assert!(line.contains(&format!(" {} ", den["outcome"])), "{}: {line}", den["beast"]);
    }

    let ran = zoo.folder.run(&["poll", "zoo.txt", "--json"]);
    assert_eq!((ran.status, &ran.err), (1, &down));
    check_clean(&ran.out);
    let found: HashMap<(String, String), Value> = ran
        .json()
        .into_iter()
        .map(|row| ((row["host"].as_str().unwrap().to_owned(), row["port"].to_string()), row))
        .collect();
    assert_eq!(found.len(), zoo.dens.len());
    for den in &zoo.dens {
        let found = &found[&(den["host"].clone(), den["port"].clone())];
        check_facts(found, den);
        assert_eq!(found["name"], den["beast"].as_str());
    }

    zoo.folder.write("good.txt", &lines(&zoo.responding()));
    let ran = zoo.folder.run(&["poll", "good.txt", "--json"]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""), "all are up");
}
