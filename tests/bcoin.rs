//! Crawls an independent implementation: three bcoin full nodes on loopback, of which only the
//! first is in the seed list. `scripts/test` installs bcoin in `tests/bcoin`; no packet leaves the
//! machine.

#![allow(clippy::disallowed_methods)] // tests sleep

mod support;

use std::io::{BufRead, BufReader};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use support::Cluster;
use support::crawl::Crawl;

/// A bcoin full node. It exits when its stdin closes, at the latest with the test process.
struct Bcoin {
    child: Child,
    address: String,
}

impl Bcoin {
    fn start(address: &str, known: &[&str]) -> Self {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/bcoin");
        assert!(
            directory.join("node_modules/bcoin").is_dir(),
            "bcoin is not installed: scripts/test does it (npm ci --ignore-scripts in tests/bcoin)"
        );
        let mut child = Command::new("node")
            .arg(directory.join("node.js"))
            .arg(address)
            .args(known)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node is not installed: scripts/test does it");
        let mut line = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
        assert_eq!(line, format!("listening {address}\n"));
        Self { child, address: address.to_owned() }
    }
}

impl Drop for Bcoin {
    fn drop(&mut self) {
        drop(self.child.stdin.take());
        let _ = self.child.wait();
    }
}

/// An address on which nothing listens.
fn free_address(host: &str) -> String {
    let listener = TcpListener::bind((host, 0)).unwrap();
    listener.local_addr().unwrap().to_string()
}

/// Three nodes: the first knows the second and a dead address, the second knows both others, and
/// the third knows none.
fn three(hosts: [&str; 3], dead: &str) -> [Bcoin; 3] {
    let [first, second, third] = hosts.map(free_address);
    [
        Bcoin::start(&first, &[&second, dead]),
        Bcoin::start(&second, &[&third, &first]),
        Bcoin::start(&third, &[]),
    ]
}

#[test]
fn probe_and_poll_see_all_three_bcoin_nodes() {
    let dead = free_address("127.84.0.4");
    let nodes = three(["127.81.0.1", "127.82.0.2", "127.83.0.3"], &dead);
    let directory = tempfile::tempdir().unwrap();
    let list = directory.path().join("list.txt");
    let line = |node: &Bcoin| node.address.replace(':', " ") + " bcoin\n";
    std::fs::write(&list, nodes.iter().map(line).collect::<String>()).unwrap();
    let config = directory.path().join("bitdash.toml");
    std::fs::write(&config, "[filter]\nonly = [\"127.0.0.0/8\"]\n").unwrap();
    let run = |arguments: &[&str]| {
        let program = env!("CARGO_BIN_EXE_bitdash");
        let output = Command::new(program).arg("-c").arg(&config).args(arguments).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let json = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap();
        (output.status.code(), text.lines().map(json).collect::<Vec<_>>())
    };

    let mut arguments = vec!["probe", "--peers", "--json"];
    arguments.extend(nodes.iter().map(|node| node.address.as_str()));
    let (status, found) = run(&arguments);
    assert_eq!((status, found.len()), (Some(0), 3));
    for (found, peers) in found.iter().zip([2, 2, 0]) {
        assert_eq!(found["outcome"], "responded");
        assert_eq!(found["user_agent"], "/bcoin:v1.0.2/");
        assert_eq!(found["species"], "bcoin");
        assert_eq!(found["protocol_version"], 70015);
        assert_eq!(found["peers_sent"].as_u64().unwrap_or(0), peers, "{found}");
    }
    assert_eq!(run(&["probe", "--json", &dead]).0, Some(1));

    let list = list.display().to_string();
    let (status, rows) = run(&["poll", "--json", &list]);
    assert_eq!((status, rows.len()), (Some(0), 3));
    assert!(rows.iter().all(|row| row["outcome"] == "responded" && row["name"] == "bcoin"));
    drop(nodes);
    let (status, rows) = run(&["poll", "--json", &list]);
    assert_eq!((status, rows.len()), (Some(1), 3), "all of them are down");
}

#[test]
fn all_three_bcoin_nodes_are_found_from_one_seed() {
    let dead = free_address("127.80.0.4");
    let nodes = three(["127.77.0.1", "127.78.0.2", "127.79.0.3"], &dead);
    let addresses = [0, 1, 2].map(|index: usize| nodes[index].address.clone());
    let [first, _, third] = &addresses;
    let database = Cluster::shared().database();
    let seeds = tempfile::tempdir().unwrap();
    let file = seeds.path().join("nodes.txt");
    let (host, port) = nodes[0].address.split_once(':').unwrap();
    std::fs::write(&file, format!("{host} {port} first_of_three\n")).unwrap();

    let mut crawl = Crawl::configure(&database, &file, &[]);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());

    let mut expected: Vec<String> = addresses
        .iter()
        .map(|address| {
            let name = if address == first { "first_of_three" } else { "-" };
            let peers = if address == third { 0 } else { 2 };
            format!("{address}|{name}|up|70015|/bcoin:v1.0.2/|9|0|t|{peers}|responded|0")
        })
        .collect();
    expected.sort();
    let mut rows = database.rows(
        "SELECT host(host) || ':' || port, name, status, protocol_version, user_agent, services, start_height, relay,
            coalesce(peers_sent, 0), last_outcome, failures FROM nodes ORDER BY 1",
    );
    rows.sort();
    assert_eq!(rows, expected);
    assert_eq!(
        database.rows("SELECT host(host) || ':' || port, last_outcome FROM candidates"),
        [format!("{dead}|refused")]
    );
    assert_eq!(
        database.rows(
            "SELECT probed, responded, failed, new_nodes, finished_at IS NOT NULL FROM passes"
        ),
        ["4|3|1|3|t"]
    );
    assert_eq!(database.value("SELECT count(*) FROM probes WHERE outcome = 'responded'"), "3");
    assert_eq!(
        database.value(
            "SELECT nodes FROM history WHERE dimension = 'user_agent' AND value = '/bcoin:v1.0.2/'"
        ),
        "3"
    );
    let species = "SELECT DISTINCT species FROM nodes";
    assert_eq!(database.value(species), "bcoin");
}
