//! `bitdash probe` and `bitdash poll` without a database: the real program against the simulated
//! network, and against addresses that refuse, stay silent or speak another protocol.

#![allow(clippy::disallowed_methods)] // tests listen, wait and kill

mod support;

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::process::{Child, ChildStdout, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use bitdash_core::lookup::services;
use bitdash_simnet::verify::truth::{Kind, Row};
use serde_json::Value;
use support::crawl::Simnet;
use support::tools::{Directory, Ran};
use watchglass::{Decoder, Magic, Message, text};

/// A small simulated network, stopped on drop.
struct Network {
    nodes: Vec<Row>,
    dead: Vec<Row>,
    _simnet: Simnet,
}

fn network() -> Network {
    let simnet = Simnet::start(&[
        "--nodes",
        "60",
        "--dead",
        "40",
        "--time-scale",
        "0.02",
        "--latency",
        "off",
    ]);
    Network { nodes: simnet.truth(Kind::Node), dead: simnet.truth(Kind::Dead), _simnet: simnet }
}

impl Network {
    fn silent(&self) -> String {
        self.dead.iter().find(|row| row.label == "silent").map(place).unwrap()
    }
}

fn place(row: &Row) -> String {
    row.address.to_string()
}

/// A loopback listener that calls `does` with every connection.
fn listen(does: fn(std::net::TcpStream)) -> SocketAddr {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || listener.incoming().flatten().for_each(does));
    address
}

/// A port that refuses connections.
fn refusing() -> SocketAddr {
    TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap().local_addr().unwrap()
}

fn check_node(found: &Value, node: &Row) {
    let fields = node.fields.as_ref().expect("a node responds");
    assert_eq!(found["outcome"], "responded", "{found}");
    assert_eq!(found["host"], node.address.ip().to_string());
    assert_eq!(found["port"], node.address.port());
    let services = fields.services as u64;
    assert_eq!(found["services"], services.to_string(), "{found}");
    assert_eq!(found["service_names"], Value::from(services::names(services)));
    assert_eq!(found["species"], fields.species, "{found}");
    assert_eq!(found["user_agent"].as_str(), fields.user_agent.as_deref());
    assert_eq!(found["protocol_version"], fields.protocol_version);
    assert_eq!(found["start_height"].as_i64(), fields.start_height.map(i64::from));
    assert_eq!(found["relay"].as_bool(), fields.relay);
    assert!(found["time_offset_s"].as_i64().unwrap().abs() < 10_000, "{found}");
    assert!(found["time"].as_str().unwrap().parse::<i64>().unwrap() > 1_700_000_000, "{found}");
    assert!(found["addr_recv"]["services"].as_str().unwrap().parse::<u64>().is_ok(), "{found}");
    assert!(found["connect_ms"].is_u64() && found["version_ms"].is_u64(), "{found}");
    assert_eq!(found["nonce"].as_str().unwrap().len(), 16);
    assert!(found["addr_recv"]["host"].is_string() && found["addr_from"]["port"].is_u64());
    let agent = text::to_bytes(fields.user_agent.as_ref().unwrap()).unwrap();
    assert_eq!(found["user_agent_length"], agent.len());
    assert_eq!(found["trailing_bytes"], 0);
}

#[test]
fn probe_prints_every_field_of_every_kind_of_node_as_json() {
    let network = network();
    let places: Vec<String> = network.nodes.iter().map(place).collect();
    let mut arguments = vec!["probe", "--json"];
    arguments.extend(places.iter().map(String::as_str));
    let ran = Directory::new().run(&arguments);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    let found = ran.json();
    assert_eq!(found.len(), network.nodes.len());
    for (found, node) in found.iter().zip(&network.nodes) {
        check_node(found, node);
        assert!(found["peers_sent"].is_null() && found.get("peers").is_none());
        assert!(found.get("trace").is_none() && found.get("error").is_none());
    }
    let species: std::collections::BTreeSet<&str> =
        found.iter().filter_map(|found| found["species"].as_str()).collect();
    assert!(species.len() >= 2 && species.contains("TRB"), "{species:?}");
}

#[test]
fn probe_with_peers_lists_them_with_age_and_services() {
    let network = network();
    let sends = |node: &&Row| node.label == "trb" && node.peers > 3;
    let node = network.nodes.iter().find(sends).unwrap();
    let directory = Directory::new();
    let ran = directory.run(&["probe", "--peers", "--json", &place(node)]);
    assert_eq!(ran.status, 0, "{}", ran.err);
    let found = &ran.json()[0];
    let peers = found["peers"].as_array().unwrap();
    assert!(found["peers_sent"].as_u64().unwrap() >= peers.len() as u64);
    assert!(peers.len() >= 3, "{found}");
    for peer in peers {
        assert!(peer["host"].as_str().unwrap().parse::<Ipv4Addr>().is_ok(), "{peer}");
        assert_eq!(peer["services"] == "0", peer["service_names"] == Value::Array(vec![]));
        assert_eq!(peer["time"].is_null(), peer["age_s"].is_null());
    }
    let ran = directory.run(&["probe", "--peers", &place(node)]);
    let first = format!("{}:{}", peers[0]["host"].as_str().unwrap(), peers[0]["port"]);
    assert!(ran.out.contains("\n  Peers\n  address"), "{}", ran.out);
    assert!(ran.out.contains(&first) && ran.out.contains(" ago  "), "{}", ran.out);
}

#[test]
fn probe_prints_received_fields_and_names_missing_ones() {
    let network = network();
    let trb = network.nodes.iter().find(|node| node.label == "trb").unwrap();
    let fields = trb.fields.as_ref().unwrap();
    let ran = Directory::new().run(&["probe", &place(trb)]);
    let has = |text: &str| assert!(ran.out.contains(text), "no {text:?} in\n{}", ran.out);
    assert!(ran.out.starts_with(&format!("{}: responded\n", place(trb))), "{}", ran.out);
    has(&format!("user agent        {}\n", fields.user_agent.as_deref().unwrap()));
    has(&format!("species           TRB, release {}\n", fields.release.as_deref().unwrap()));
    has("services          NETWORK (0x1)\n");
    has("relay             not sent, which means yes\n");
    has(&format!("height            {}\n", fields.start_height.unwrap()));
    has(" ours\n");
    assert_eq!(ran.status, 0);
}

#[test]
fn probe_traces_the_conversation_message_by_message() {
    let network = network();
    let sends = |node: &&Row| node.label == "trb" && node.peers > 3;
    let node = network.nodes.iter().find(sends).unwrap();
    let directory = Directory::new();
    let ran = directory.run(&["probe", "--trace", "--peers", &place(node)]);
    let marks = [
        "ms  connected",
        "> version  70015, services 0x0,",
        &format!("< version  {}, services 0x1,", node.fields.as_ref().unwrap().protocol_version),
        "> verack",
        "> getaddr",
        "< addr  ",
        "no further addr: the reply is complete; we disconnect",
    ];
    let mut rest = ran.out.as_str();
    for mark in marks {
        let at =
            rest.find(mark).unwrap_or_else(|| panic!("no {mark:?} in its place in\n{}", ran.out));
        rest = &rest[at..];
    }
    let ran = directory.run(&["probe", "--trace", "--json", &refusing().to_string()]);
    let trace = &ran.json()[0]["trace"];
    assert_eq!(trace.as_array().unwrap().len(), 1);
    assert!(trace[0]["step"].as_str().unwrap().starts_with("failed: "), "{trace}");
}

#[test]
fn every_failure_has_its_outcome_and_exit_status_1() {
    let network = network();
    let silent = network.silent();
    let closes = listen(drop);
    let web = listen(|mut stream| {
        let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\n\r\n");
        let _ = stream.read(&mut [0; 1_000]);
    });
    let mute = listen(|stream| {
        thread::sleep(Duration::from_secs(5));
        drop(stream);
    });
    let table = [
        (refusing().to_string(), "refused", "nothing listens"),
        (silent, "connect_timeout", "no answer within 0."),
        (closes.to_string(), "closed", "most likely it is full"),
        (web.to_string(), "not_bitcoin", "speaks another protocol"),
        (mute.to_string(), "handshake_timeout", "no version within 3"),
    ];
    let places: Vec<&str> = table.iter().map(|(place, ..)| place.as_str()).collect();
    let directory = Directory::new();
    let ran = directory.run(&[&["probe", "--json"], &places[..]].concat());
    assert_eq!((ran.status, ran.err.as_str()), (1, "bitdash: 5 of 5 did not respond\n"));
    for (found, (place, outcome, _)) in ran.json().iter().zip(&table) {
        assert_eq!(found["outcome"], *outcome, "{place}");
        assert!(found["species"].is_null() && found["protocol_version"].is_null(), "{found}");
    }
    let ran = directory.run(&[&["probe"], &places[..]].concat());
    for (place, outcome, why) in &table {
        let title = format!("{place}: {outcome}: ");
        let line = ran.out.lines().find(|line| line.starts_with(&title));
        assert!(line.is_some_and(|line| line.contains(why)), "{title}\n{}", ran.out);
    }
}

#[test]
fn an_address_outside_filter_only_is_not_dialled() {
    let ran = Directory::new().run(&["probe", "--json", "192.0.2.1:8333"]);
    assert_eq!(ran.status, 1);
    let found = &ran.json()[0];
    assert!(found["outcome"].is_null());
    assert_eq!(found["error"], "not dialled: not in filter.only");
}

#[test]
fn host_names_are_resolved_and_no_address_is_dialled_twice() {
    let port = refusing().port();
    let name = format!("localhost:{port}");
    let ran = Directory::new().run(&["probe", "--json", &name, &format!("127.0.0.1:{port}")]);
    let found = ran.json();
    assert_eq!(found.len(), 1, "{}", ran.out);
    assert_eq!((&found[0]["host"], &found[0]["name"]), (&"127.0.0.1".into(), &"localhost".into()));
}

#[test]
fn probe_knows_the_names_of_the_nodes_file() {
    let (shut, other) = (refusing().port(), refusing().port());
    let directory = Directory::new();
    directory.write(
        "nodes.txt",
        &format!(
            "127.0.0.1 {shut} Pizarro\nlocalhost {other} Pizarro\n127.0.0.1 {other} Two Words\n"
        ),
    );
    let probe = |name: &str| {
        let ran = directory.run(&["probe", "--json", name]);
        assert_eq!(ran.status, 1, "{}", ran.err);
        let port = |found: &Value| (found["name"].to_string(), found["port"].as_u64().unwrap());
        ran.json().iter().map(port).collect::<Vec<_>>()
    };
    let name = || "\"Pizarro\"".to_owned();
    assert_eq!(probe("pizarro"), [(name(), shut.into()), (name(), other.into())]);
    assert_eq!(probe("Pizarro:1"), [(name(), 1)]);
    assert_eq!(probe("localhost:1"), [("\"localhost\"".to_owned(), 1)]);
    // An address has the name of its first line.
    assert_eq!(probe("two words"), [("\"Two Words\"".to_owned(), other.into())]);
    let ran = directory.run(&["probe", "no such"]);
    assert_eq!(
        (ran.status, ran.err.as_str()),
        (1, "bitdash: no node of nodes.txt has the name no such\n")
    );
    let ran = directory.run(&["probe", "pizarro"]);
    assert!(ran.out.starts_with(&format!("127.0.0.1:{shut} (Pizarro): refused: ")), "{}", ran.out);
}

#[test]
fn messages_are_wrapped_on_a_terminal_and_whole_lines_elsewhere() {
    let directory = Directory::new();
    let long = "a-file-whose-name-is-long-".repeat(2);
    let lines = format!("{long}/x\n127.0.0.1 {} shut\n", refusing().port());
    let path = directory.write("a list with a long name and words in it.txt", &lines);
    let name = path.file_name().unwrap().to_str().unwrap();
    let got = directory.run_on_terminal(&format!("poll '{name}'"), Duration::from_secs(20));
    let mut terminal = vt100::Parser::new(24, 80, 0);
    terminal.process(got.as_bytes());
    let screen = terminal.screen();
    let wrapped = (0..24).filter(|row| screen.row_wrapped(*row)).count();
    assert_eq!(wrapped, 0, "{}", screen.contents());
    assert!(screen.contents().contains("\n  "), "{}", screen.contents());
    let ran = directory.run(&["poll", name]);
    assert_eq!(ran.err.lines().count(), 2, "{}", ran.err);
}

#[test]
fn probe_sends_the_claims_of_its_options() {
    let node = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let place = node.local_addr().unwrap().to_string();
    let received = thread::spawn(move || {
        let (mut stream, _) = node.accept().unwrap();
        let mut bytes = [0; 4096];
        let length = stream.read(&mut bytes).unwrap();
        let mut decoder = Decoder::new(Magic::MAIN);
        decoder.decode(&mut &bytes[..length]).unwrap().unwrap()
    });
    let claims = ["--protocol-version", "-1", "--user-agent", "/old thing:0.1/"];
    let ran = Directory::new().run(&[&["probe", &place], &claims[..]].concat());
    assert_eq!(ran.status, 1);
    let Message::Version(version) = received.join().unwrap() else { panic!() };
    assert_eq!(version.version, -1);
    assert_eq!(version.user_agent.as_deref(), Some(&b"/old thing:0.1/"[..]));
    assert_eq!((version.services, version.relay), (0, Some(false)));
}

#[test]
fn a_usage_error_is_one_line_and_exit_status_2() {
    let directory = Directory::new();
    directory.write("empty.txt", "# empty\n");
    let table: [(&[&str], &str); 6] = [
        (&["probe"], "arguments were not provided: HOST[:PORT]; see bitdash probe --help"),
        (&["probe", "127.0.0.1:0"], "its port must be a whole number from 1 to 65535"),
        (&["probe", "--user-agent", "\u{e9}", "127.0.0.1"], "256 printable ASCII characters"),
        (&["poll", "--watch", "10s"], "must be a duration with a unit, from 60s to 7d"),
        (&["poll", "missing.txt"], "missing.txt: cannot be read: No such file or directory"),
        (&["poll", "empty.txt"], "empty.txt: contains no node"),
    ];
    for (arguments, text) in table {
        let ran = directory.run(arguments);
        assert_eq!(ran.status, 2, "{arguments:?}: {}", ran.err);
        assert!(
            ran.err.contains(text) && ran.err.lines().count() == 1,
            "{arguments:?}: {}",
            ran.err
        );
        assert_eq!(ran.out, "");
    }
}

/// The cells of a column, found by its heading.
fn column(out: &str, heading: &str, next: Option<&str>) -> Vec<String> {
    let head = out.lines().next().unwrap();
    let begin = head.find(heading).unwrap_or_else(|| panic!("no {heading} in {head}"));
    let end = next.and_then(|next| head.find(next)).unwrap_or(usize::MAX);
    let cell = |line: &str| {
        line.chars().skip(begin).take(end - begin).collect::<String>().trim().to_owned()
    };
    out.lines().skip(1).map(cell).collect()
}

#[test]
fn poll_prints_all_lines_the_worst_first() {
    let network = network();
    let directory = Directory::new();
    let silent = network.dead.iter().find(|row| row.label == "silent").unwrap();
    let mut list = format!(
        "{} {} gone away\n127.0.0.1 {} shut\n192.0.2.1 8333 outside\n",
        silent.address.ip(),
        silent.address.port(),
        refusing().port()
    );
    for node in &network.nodes[..20] {
        list += &format!("{} {}\n", node.address.ip(), node.address.port());
    }
    directory.write("mine.txt", &list);
    let ran = directory.run(&["poll", "mine.txt"]);
    assert_eq!((ran.status, ran.err.as_str()), (1, "bitdash: 3 of 23 did not respond\n"));
    assert_eq!(
        column(&ran.out, "name", Some("address"))[..3],
        ["outside", "gone away", "shut"],
        "{}",
        ran.out
    );
    let outcomes = column(&ran.out, "outcome", Some("species"));
    assert_eq!(outcomes[..4], ["not_dialled", "connect_timeout", "refused", "responded"]);
    assert!(ran.out.ends_with("20 of 23 up\n"), "{}", ran.out);
    assert!(ran.out.contains("192.0.2.1:8333: not dialled: not in filter.only\n"));
    // Number columns are right-aligned, so find the heights by their position from the right.
    let heights: Vec<i64> = ran
        .out
        .lines()
        .filter(|line| line.contains(" responded "))
        .map(|line| {
            line.split_whitespace()
                .rev()
                .nth(2)
                .unwrap()
                .parse()
                .unwrap_or_else(|e| panic!("{e}: {line}"))
        })
        .collect();
    assert_eq!(heights.len(), 20);
    assert!(heights.is_sorted(), "{heights:?}");
}

#[test]
fn poll_of_the_configured_file_exits_with_0_when_all_nodes_are_up() {
    let network = network();
    let directory = Directory::new();
    let lines = network.nodes[..5].iter().enumerate();
    let list: String = lines
        .map(|(i, node)| format!("{} {} node {i}\n", node.address.ip(), node.address.port()))
        .collect();
    directory.write("nodes.txt", &list);
    let ran = directory.run(&["poll", "--json"]);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    let found = ran.json();
    assert_eq!(found.len(), 5);
    for (i, node) in network.nodes[..5].iter().enumerate() {
        let name = format!("node {i}");
        let found = found.iter().find(|found| found["name"] == name.as_str()).unwrap();
        check_node(found, node);
    }
}

#[test]
fn poll_exits_with_1_if_a_line_was_refused() {
    let network = network();
    let directory = Directory::new();
    let address = network.nodes[0].address;
    let list = format!("{address}\nnot/a/host\n{} {}\n", address.ip(), address.port());
    directory.write("nodes.txt", &list);
    let ran = directory.run(&["poll"]);
    assert_eq!(ran.status, 1, "{}", ran.err);
    let lines: Vec<&str> = ran.err.lines().collect();
    assert!(lines[0].contains("nodes.txt:2: \"not/a/host\" is neither"), "{}", ran.err);
    assert!(lines[1].contains("nodes.txt:3: ") && lines[1].ends_with("is on line 1 already"));
    assert_eq!(lines[2], "bitdash: 1 line was refused");
    assert!(ran.out.ends_with("1 of 1 up\n"), "{}", ran.out);
}

#[test]
fn pipes_and_standard_input_are_read_to_their_end() {
    let directory = Directory::new();
    directory.write("mine.txt", &format!("127.0.0.1 {} shut\n", refusing().port()));
    let program = env!("CARGO_BIN_EXE_bitdash");
    for script in [
        "\"$0\" poll <(sleep 0.5; cat mine.txt)",
        "\"$0\" -c <(sleep 0.3; cat bitdash.toml) poll <(sleep 0.5; cat mine.txt)",
        "(sleep 0.5; cat mine.txt) | \"$0\" poll /dev/stdin",
        "(sleep 0.5; cat mine.txt) | \"$0\" poll -",
        "\"$0\" poll - < mine.txt",
        "mkfifo fifo; (sleep 0.5; cat mine.txt > fifo) & \"$0\" poll fifo",
    ] {
        let mut command = std::process::Command::new("bash");
        let here = directory.write("here", "");
        command.args(["-c", script, program]).current_dir(here.parent().unwrap());
        let ran = Ran::of(&command.output().unwrap());
        assert_eq!(ran.err, "bitdash: 1 of 1 did not respond\n", "{script}: {}", ran.out);
        assert!(ran.out.contains(" refused "), "{script}: {}", ran.out);
    }
}

/// Starts `poll --watch` on a pipe and reads the first line of its first page.
fn watch(directory: &Directory) -> (Child, BufReader<ChildStdout>) {
    let mut command = directory.command(&["poll", "mine.txt", "--watch", "1m"]);
    let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut line = String::new();
    out.read_line(&mut line).unwrap();
    assert!(line.ends_with("Z, every 1m\n"), "{line:?}");
    (child, out)
}

#[test]
fn poll_watch_prints_pages_to_a_pipe_until_it_is_closed() {
    let directory = Directory::new();
    directory.write("mine.txt", &format!("127.0.0.1 {} shut\n", refusing().port()));
    let begin = Instant::now();
    let (mut left, reader) = watch(&directory);
    drop(reader);
    let (mut child, mut out) = watch(&directory);
    // The second page, without escape sequences.
    let mut line = String::new();
    loop {
        line.clear();
        assert!(out.read_line(&mut line).unwrap() > 0, "poll exited");
        assert!(!line.contains('\x1b'), "{line:?}");
        if line.ends_with("Z, every 1m\n") {
            break;
        }
    }
    let waited = begin.elapsed().as_secs_f64();
    assert!((58.0..90.0).contains(&waited), "the second page came after {waited} s");
    child.kill().unwrap();
    child.wait().unwrap();
    // Meanwhile the first process met a closed pipe, which is not a failure.
    while left.try_wait().unwrap().is_none() && begin.elapsed() < Duration::from_secs(120) {
        thread::sleep(Duration::from_millis(50));
    }
    let status = left.try_wait().unwrap();
    let _ = left.kill();
    assert!(status.is_some_and(|status| status.success()), "{status:?}");
}

#[test]
fn sighup_reloads_poll_watch_at_once_and_never_ends_it() {
    let directory = Directory::new();
    let list = format!("127.0.0.1 {} shut\n", refusing().port());
    directory.write("mine.txt", &list);
    let (mut child, mut out) = watch(&directory);
    let begin = Instant::now();
    let mut until = |text: &str| {
        let mut line = String::new();
        while !line.contains(text) {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "poll exited");
        }
    };
    for name in ["second", "third"] {
        until(" up\n");
        directory.write("mine.txt", &list.replace("shut", name));
        let pid = child.id().to_string();
        assert!(
            std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success()
        );
        until(name);
    }
    assert!(begin.elapsed() < Duration::from_secs(30), "it waited for the interval");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn poll_watch_reads_pipes_once() {
    let directory = Directory::new();
    directory.write("list", &format!("127.0.0.1 {} shut\n", refusing().port()));
    let here = directory.write("here", "");
    let script = "mkfifo mine conf; cat list > mine & cat bitdash.toml > conf &
        exec \"$0\" -c conf poll mine --watch 1m";
    let mut command = std::process::Command::new("bash");
    command.args(["-c", script, env!("CARGO_BIN_EXE_bitdash")]);
    let mut child =
        command.current_dir(here.parent().unwrap()).stdout(Stdio::piped()).spawn().unwrap();
    let mut out = BufReader::new(child.stdout.take().unwrap());
    let mut end_of_page = || {
        let mut line = String::new();
        while !line.ends_with("0 of 1 up\n") {
            line.clear();
            assert!(out.read_line(&mut line).unwrap() > 0, "poll exited");
        }
    };
    end_of_page();
    let begin = Instant::now();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    end_of_page();
    assert!(begin.elapsed() < Duration::from_secs(8), "it waited for a pipe without a writer");
    child.kill().unwrap();
    child.wait().unwrap();
}

#[test]
fn poll_watch_replaces_the_page_on_a_terminal() {
    let directory = Directory::new();
    directory.write("mine.txt", &format!("127.0.0.1 {} shut\n", refusing().port()));
    let got = directory.run_on_terminal("poll mine.txt --watch 60s", Duration::from_secs(3));
    let page = got.split("\x1b[H\x1b[2J").nth(1).unwrap_or_else(|| panic!("{got:?}"));
    assert!(page.contains("every 1m") && page.contains("0 of 1 up"), "{got:?}");
}

#[test]
fn the_status_line_is_cleared_at_the_end() {
    let network = network();
    let silent = network.silent();
    let got = Directory::new().run_on_terminal(&format!("probe {silent}"), Duration::from_secs(20));
    let shown = got.find("\r\x1b[Kprobe: 0 of 1 done, 1 open");
    let cleared = got.rfind("\r\x1b[K").unwrap();
    assert!(shown.is_some_and(|shown| shown < cleared), "{got:?}");
    assert!(got[cleared..].contains(": connect_timeout: "), "{got:?}");
}

#[test]
fn help_contains_examples_units_and_next_steps() {
    let directory = Directory::new();
    for (command, texts) in [
        ("probe", ["Examples:", "milliseconds", "Exit status:"]),
        ("poll", ["Examples:", "bitdash probe --trace", "Exit status:"]),
    ] {
        let ran = directory.run(&[command, "--help"]);
        assert_eq!((ran.status, ran.err.as_str()), (0, ""));
        for text in texts {
            assert!(ran.out.contains(text), "{command}: no {text} in\n{}", ran.out);
        }
    }
}
