//! What a name server answers, in a network namespace with a name server of the test's own.

#![allow(clippy::disallowed_methods)] // tests listen and wait

mod support;

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, UdpSocket};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use bitdash_simnet::zoo::Claimed;
use support::Cluster;
use support::crawl::Crawl;
use support::faults::wait_until;
use support::namespace::enter_with_resolv_conf;
use support::tools::Directory;

const RESOLV_CONF: &str =
    "nameserver 127.0.0.53\nsearch corp.example\noptions timeout:1 attempts:1\n";

type Set<T> = Arc<Mutex<BTreeSet<T>>>;

fn all<T: Clone + Ord>(set: &Set<T>) -> Vec<T> {
    set.lock().unwrap().iter().cloned().collect()
}

/// Answers questions for A records with `answer`; no address means that the name does not exist.
/// Returns the names that were asked for.
fn name_server(answer: fn(&str) -> Vec<Ipv4Addr>) -> Set<String> {
    let socket = UdpSocket::bind("127.0.0.53:53").unwrap();
    let asked = Set::default();
    let names = Arc::clone(&asked);
    thread::spawn(move || {
        let mut query = [0; 512];
        while let Ok((length, client)) = socket.recv_from(&mut query) {
            let (mut name, mut at) = (Vec::new(), 12);
            while query[at] != 0 {
                let label = &query[at + 1..=at + usize::from(query[at])];
                name.push(String::from_utf8_lossy(label).to_lowercase());
                at += 1 + label.len();
            }
            let is_a = query[at + 2] == 1;
            let name = name.join(".");
            let found = answer(&name);
            names.lock().unwrap().insert(name);
            let shown = if is_a { found.as_slice() } else { &[] };
            let mut reply = query[..at + 5].to_vec();
            reply[2..4].copy_from_slice(&[0x81, if found.is_empty() { 0x83 } else { 0x80 }]);
            reply[6..12].copy_from_slice(&[0, shown.len() as u8, 0, 0, 0, 0]);
            for ip in shown {
                reply.extend([0xc0, 12, 0, 1, 0, 1, 0, 0, 0, 60, 0, 4]);
                reply.extend(ip.octets());
            }
            assert!(length >= at + 5);
            socket.send_to(&reply, client).unwrap();
        }
    });
    asked
}

/// Starts a node at each address, port 8333. Returns the addresses that were connected to, and
/// those that were disconnected from.
fn nodes(ips: &[&str]) -> (Set<String>, Set<String>) {
    let (connected, closed) = (Set::default(), Set::default());
    for ip in ips {
        let ip = (*ip).to_owned();
        let listener = TcpListener::bind(SocketAddr::new(ip.parse().unwrap(), 8333)).unwrap();
        let (connected, closed): (Set<String>, Set<String>) =
            (Arc::clone(&connected), Arc::clone(&closed));
        thread::spawn(move || {
            for mut stream in listener.incoming().flatten() {
                connected.lock().unwrap().insert(ip.clone());
                let _ = stream.write_all(&Claimed::agent(b"/node/").message());
                let _ = stream.read_to_end(&mut Vec::new());
                closed.lock().unwrap().insert(ip.clone());
            }
        });
    }
    (connected, closed)
}

fn answer(name: &str) -> Vec<Ipv4Addr> {
    let ips: &[[u8; 4]] = match name {
        "seed.example" => &[[127, 21, 0, 1], [127, 22, 0, 1]],
        "friend.example" => &[[127, 21, 0, 2]],
        name if name.ends_with(".corp.example") => &[[127, 23, 0, 1]],
        _ => &[],
    };
    ips.iter().map(|ip| (*ip).into()).collect()
}

const LIST: &str = "seed.example\nfriend.example 8333 Friend\n127.21.0.3 8333 Mine\n127.21.0.4\n\
                    a.seed.example.\nhidden.onion\nmynode 8333 Own\nprinter.local\n";
const NODES: [&str; 6] =
    ["127.21.0.1", "127.21.0.2", "127.21.0.3", "127.21.0.4", "127.22.0.1", "127.23.0.1"];
const EXCLUDE: &str = "filter.exclude = [\"127.21.0.0/16\"]";

#[test]
fn a_crawl_asks_only_the_dns_and_dials_nothing_excluded() {
    let name = "a_crawl_asks_only_the_dns_and_dials_nothing_excluded";
    let Some(_namespace) = enter_with_resolv_conf(name, RESOLV_CONF) else { return };
    let (asked, (connected, _)) = (name_server(answer), nodes(&NODES));
    let database = Cluster::shared().database();
    let directory = tempfile::tempdir().unwrap();
    let seeds = directory.path().join("nodes.txt");
    std::fs::write(&seeds, LIST).unwrap();
    let mut crawl = Crawl::configure(&database, &seeds, &[EXCLUDE]);
    assert!(crawl.run(&["--passes", "1"]).success());
    let questions = ["a.seed.example", "friend.example", "mynode.corp.example", "seed.example"];
    assert_eq!(all(&asked), questions);
    assert_eq!(all(&connected), ["127.22.0.1", "127.23.0.1"]);
    let stored = "SELECT host, name FROM nodes ORDER BY 1";
    assert_eq!(database.rows(stored), ["127.22.0.1|-", "127.23.0.1|Own"]);
    assert_eq!(database.value("SELECT count(*) FROM candidates"), "0");
    let log = crawl.log();
    for message in [
        "nodes_file line=3 error=\"127.21.0.3 is excluded by filter.exclude\"",
        "nodes_file line=4 error=\"127.21.0.4 is excluded by filter.exclude\"",
        "nodes_file line=2 error=\"friend.example: 127.21.0.2 is excluded by filter.exclude\"",
        "nodes_file line=5 error=\"a.seed.example: host name does not resolve",
        "nodes.txt:6: \"hidden.onion\" is an address of an anonymity network",
        "nodes.txt:8: \"printer.local\" is a name outside the DNS",
    ] {
        assert!(log.contains(message), "no {message} in\n{log}");
    }
}

#[test]
fn a_named_node_keeps_its_name_while_the_name_server_is_away() {
    static IS_AWAY: AtomicBool = AtomicBool::new(false);
    let name = "a_named_node_keeps_its_name_while_the_name_server_is_away";
    let Some(_namespace) = enter_with_resolv_conf(name, RESOLV_CONF) else { return };
    let asked = name_server(|name| {
        let is_known = name == "friend.example" && !IS_AWAY.load(Ordering::Relaxed);
        if is_known { vec![[127, 24, 0, 1].into()] } else { Vec::new() }
    });
    let (connected, _) = nodes(&["127.24.0.1"]);
    let database = Cluster::shared().database();
    let directory = tempfile::tempdir().unwrap();
    let seeds = directory.path().join("nodes.txt");
    std::fs::write(&seeds, "friend.example 8333 Friend\n").unwrap();
    let interval = "crawl.pass_interval = \"1s\"";
    let mut crawl = Crawl::configure(&database, &seeds, &[interval]);
    for is_away in [false, true] {
        IS_AWAY.store(is_away, Ordering::Relaxed);
        connected.lock().unwrap().clear();
        assert!(crawl.run(&["--passes", "1"]).success());
        assert_eq!(all(&connected), ["127.24.0.1"], "is_away {is_away}");
        assert_eq!(database.rows("SELECT host, name, status FROM nodes"), ["127.24.0.1|Friend|up"]);
    }
    assert_eq!(all(&asked), ["friend.example"]);
}

#[test]
fn poll_and_probe_ask_only_the_dns_and_dial_nothing_excluded() {
    let name = "poll_and_probe_ask_only_the_dns_and_dial_nothing_excluded";
    let Some(_namespace) = enter_with_resolv_conf(name, RESOLV_CONF) else { return };
    let (asked, (connected, _)) = (name_server(answer), nodes(&NODES));
    let directory = Directory::new();
    let only = "[filter]\nonly = [\"127.0.0.0/8\"]\nexclude = [\"127.21.0.0/16\"]\n";
    directory.write("bitdash.toml", only);
    directory.write("nodes.txt", LIST);
    let ran = directory.run(&["poll"]);
    assert_eq!(ran.status, 1);
    assert!(ran.out.ends_with("2 of 6 up\n"), "{}", ran.out);
    assert!(ran.out.contains("\n127.21.0.3:8333: not dialled: excluded by filter.exclude\n"));
    assert_eq!(all(&connected), ["127.22.0.1", "127.23.0.1"]);
    let ran = directory.run(&["probe", "friend.example", "127.21.0.3", "a.seed.example", "mynode"]);
    assert!(ran.err.ends_with("3 of 4 did not respond\n"), "{}", ran.err);
    let questions = ["a.seed.example", "friend.example", "mynode.corp.example", "seed.example"];
    assert_eq!(all(&asked), questions);
    let ran = directory.run(&["probe", "abc.onion"]);
    assert_eq!(ran.status, 2);
    assert!(ran.err.contains("it is an address of an anonymity network"), "{}", ran.err);
}

#[test]
fn a_reload_that_excludes_an_open_session_ends_it_unrecorded() {
    let name = "a_reload_that_excludes_an_open_session_ends_it_unrecorded";
    let Some(_namespace) = enter_with_resolv_conf(name, RESOLV_CONF) else { return };
    let (connected, closed) = nodes(&["127.21.0.1", "127.22.0.1"]);
    let database = Cluster::shared().database();
    let directory = tempfile::tempdir().unwrap();
    let seeds = directory.path().join("nodes.txt");
    std::fs::write(&seeds, "127.21.0.1 8333 Friend\n127.22.0.1\n").unwrap();
    let slow = "crawl.addr_timeout = \"15s\"";
    let mut crawl = Crawl::configure(&database, &seeds, &[slow]);
    crawl.start(&["--passes", "1"]);
    wait_until("both are connected", Duration::from_secs(20), || all(&connected).len() == 2);
    thread::sleep(Duration::from_millis(500));
    crawl.reconfigure(&database, &seeds, &[slow, EXCLUDE]);
    crawl.signal("-HUP");
    wait_until("the excluded one is closed", Duration::from_secs(10), || !all(&closed).is_empty());
    assert_eq!(all(&closed), ["127.21.0.1"]);
    assert!(crawl.wait().success());
    assert_eq!(database.rows("SELECT host FROM nodes"), ["127.22.0.1"]);
}
