//! `import` with a real PostgreSQL: before a crawl, during one, over kills, and of hostile lists.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bitdash::db::StoreError;
use bitdash::db::writer::import::{Imported, import};
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::rows::Batch;
use bitdash_simnet::verify::truth::Kind;
use support::crawl::{Crawl, Simnet, check_map, value};
use support::rows::*;
use support::{Cluster, Database};

const WAITING: &str = "SELECT count(*) FROM bitdash_internal.imported";

fn set(addresses: impl IntoIterator<Item = u8>) -> BTreeSet<Address> {
    addresses.into_iter().map(address).collect()
}

#[test]
fn an_import_waits_until_a_batch_has_stored_it() {
    let database = Cluster::shared().database();
    let refused = import(&database.url, &set([1])).unwrap_err();
    assert!(refused.to_string().contains("bitdash migrate"), "{refused}");
    let mut store = ready(&database);
    store.write(&rich_batch(), 25).unwrap();
    let known = snapshot(&database);

    // Of the addresses in the batch, 2 and 3 are nodes and 4 others candidates.
    let imported = import(&database.url, &set(1..=10)).unwrap();
    let expected = Imported { nodes: 2, candidates: 4, new: 4, ..Imported::default() };
    assert_eq!(imported, expected);
    let imported = import(&database.url, &set(5..=12)).unwrap();
    let expected = Imported { candidates: 2, waiting: 4, new: 2, ..Imported::default() };
    assert_eq!(imported, expected);
    assert_eq!(snapshot(&database), known, "nothing else changes");

    let offered: BTreeSet<Address> = store.imported().unwrap().into_iter().collect();
    assert_eq!(offered, set(7..=12));
    let mut batch = Batch::default();
    for last in 7..=9 {
        batch.heard.insert(address(last), heard(20));
    }
    batch.imported = set(7..=10);
    for _ in 0..2 {
        store.write(&batch, 25).unwrap();
        let offered: BTreeSet<Address> = store.imported().unwrap().into_iter().collect();
        assert_eq!(offered, set(11..=12));
        assert_eq!(database.value("SELECT count(*) FROM candidates"), "7");
    }
}

#[test]
fn a_reader_may_not_import() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    drop(ready(&database));
    let role = format!("import_reader_{}", database.name);
    cluster.admin().batch_execute(&format!("CREATE ROLE {role} LOGIN")).unwrap();
    let error = import(&cluster.url(&role, &database.name), &set([1])).unwrap_err();
    assert!(matches!(error, StoreError::Permanent(_)), "{error}");
    assert!(error.to_string().contains("permission denied"), "{error}");
}

/// A file with all addresses of the network, and others.
fn list_of(simnet: &Simnet, directory: &Crawl) -> (PathBuf, BTreeSet<Address>) {
    let kinds = [Kind::Node, Kind::Dead];
    let rows = kinds.iter().flat_map(|kind| simnet.truth(*kind));
    let addresses: BTreeSet<Address> = rows.map(|row| row.address).collect();
    let file = directory.dir.path().join("list.txt");
    let text: String = addresses.iter().map(|address| format!("{address}\n")).collect();
    fs::write(&file, text).unwrap();
    (file, addresses)
}

fn run(crawl: &Crawl, file: &str) -> (i32, String, String) {
    let Output { status, stdout, stderr } = crawl.command(&["import", file]).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn stored(database: &Database, sql: &str) -> BTreeSet<Address> {
    let rows = database.rows(sql);
    rows.iter().map(|row| row.parse().unwrap()).collect()
}

const KNOWN: &str = "SELECT host(host) || ':' || port FROM addresses";
const IMPORTED: &str =
    "SELECT host(bitdash_internal.key_host(key)) || ':' || bitdash_internal.key_port(key)
    FROM bitdash_internal.imported";

#[test]
fn a_crawl_may_begin_with_nothing_but_an_import() {
    let simnet = Simnet::start(&["--nodes", "300", "--dead", "500", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let empty = simnet.dir.path().join("no_nodes.txt");
    fs::write(&empty, "").unwrap();
    let exclude = "filter.exclude = [\"127.255.1.0/24\"]";
    let mut crawl = Crawl::configure(&database, &empty, &[exclude]);
    let (file, addresses) = list_of(&simnet, &crawl);
    let mut text = fs::read_to_string(&file).unwrap();
    let first = addresses.first().unwrap();
    text += &format!(
        "8.8.8.8\n127.255.1.1\n[2001:db8::1]:8333\nabc.onion\nx.i2p\nseed.example.org\n{first}\n127.9.9.9:0\n!!!\n"
    );
    fs::write(&file, &text).unwrap();
    let migrated = crawl.command(&["migrate"]).output().unwrap();
    assert!(migrated.status.success());

    let (status, out, err) = run(&crawl, file.to_str().unwrap());
    let count = addresses.len();
    let expected = format!(
        "read                 {} of {} (list)\n\
         imported             {count} new candidates: the next crawl takes them in\n\
         left out               9 IPv6 1, onion 1, I2P 1, host names 1, port 0 1, excluded by our filter 2, double 1, unreadable 1\n",
        count + 9,
        file.display()
    );
    assert_eq!(
        out.split_whitespace().collect::<Vec<_>>(),
        expected.split_whitespace().collect::<Vec<_>>()
    );
    let fault =
        format!("bitdash: {}: line {}: \"!!!\" is not an address\n", file.display(), count + 9);
    assert_eq!((status, err), (1, fault));
    assert_eq!(database.value(WAITING), count.to_string());

    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    check_map(&database, &simnet);
    assert_eq!(database.value(WAITING), "0");
    assert!(stored(&database, KNOWN).is_superset(&addresses));
    let (status, out, _) = run(&crawl, file.to_str().unwrap());
    assert_eq!(status, 1);
    assert!(
        out.contains(&format!("nodes 300, candidates {}: left as they are", count - 300)),
        "{out}"
    );
}

#[test]
fn a_crawl_that_waits_for_its_next_pass_takes_an_import_in() {
    let simnet = Simnet::start(&["--nodes", "200", "--dead", "300", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &["crawl.pass_interval = \"1h\""]);
    crawl.start(&["--passes", "2"]);
    crawl.wait_for_log(|line| line.contains("pass=1 state=finished"));
    crawl.reconfigure(&database, &simnet.seeds(), &["crawl.pass_interval = \"2s\""]);
    let list: String = (1..=250).map(|last| format!("127.201.7.{last} 8333\n")).collect();
    let file = crawl.dir.path().join("list.txt");
    fs::write(&file, list).unwrap();
    let (status, out, _) = run(&crawl, file.to_str().unwrap());
    assert_eq!(status, 0);
    assert!(out.contains("250   new candidates: the running crawl takes them in"), "{out}");
    let line = crawl.wait_for_log(|line| line.contains(" import addresses="));
    crawl.signal("-HUP");
    assert_eq!((value(&line, "addresses"), value(&line, "new")), ("250", "250"));
    assert!(crawl.wait().success(), "{}", crawl.log());
    let probed = "SELECT count(*) FROM candidates WHERE host <<= '127.201.7.0/24' AND failures = 1";
    assert_eq!(database.value(probed), "250", "the next pass probes them");
    let sources = "SELECT count(*) FROM sources WHERE source <<= '255.0.0.0/8'";
    assert_eq!((database.value(WAITING).as_str(), database.value(sources).as_str()), ("0", "0"));
}

#[test]
fn a_killed_crawl_loses_no_imported_address() {
    let simnet = Simnet::start(&["--nodes", "100", "--dead", "200", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let mut crawl =
        Crawl::configure(&database, &simnet.seeds(), &["database.flush_interval = \"200ms\""]);
    drop(ready(&database));
    let list: BTreeSet<Address> =
        (0..25_000_u32).map(|n| Address::new((0x7f64_0000 + n).into(), 8333)).collect();
    assert_eq!(import(&database.url, &list).unwrap().new, 25_000);
    let mut partly = 0;
    for kill in 0..6 {
        let before = database.value(WAITING);
        crawl.start(&[]);
        crawl.wait_for_log(|line| line.contains(" crawl ") || line.contains(" pass "));
        if kill == 1 {
            // It takes 10,000 at a time: this kill comes in the middle.
            while database.value(WAITING) == before {
                sleep(Duration::from_millis(2));
            }
        } else {
            sleep(Duration::from_millis(150 * kill));
        }
        crawl.signal("-KILL");
        crawl.wait();
        let waiting = stored(&database, IMPORTED);
        partly += usize::from(!waiting.is_empty() && waiting.len() < list.len());
        let known = stored(&database, KNOWN);
        let lost: Vec<_> =
            list.iter().filter(|a| !waiting.contains(a) && !known.contains(a)).collect();
        assert!(lost.is_empty(), "{} are lost, as {:?}", lost.len(), lost.first());
    }
    assert!(partly > 0, "no kill came in the middle");
    crawl.start(&[]);
    let begin = Instant::now();
    while database.value(WAITING) != "0" {
        assert!(begin.elapsed() < Duration::from_secs(60), "{}", crawl.log());
        sleep(Duration::from_millis(100));
    }
    crawl.signal("-TERM");
    assert!(crawl.wait().success());
    assert!(stored(&database, KNOWN).is_superset(&list));
}

/// Feeds a list to `import -` with at most `kilobytes` of data memory.
fn feed(
    crawl: &Crawl,
    kilobytes: u32,
    write: impl FnOnce(&mut dyn Write),
) -> (Option<i32>, String, String) {
    let mut command = Command::new("sh");
    let limit = format!("ulimit -d {kilobytes}; exec \"$@\"");
    let program = env!("CARGO_BIN_EXE_bitdash");
    command.args(["-c", &limit, "sh", program, "-c"]).arg(crawl.config()).args(["import", "-"]);
    let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    write(&mut child.stdin.take().unwrap());
    let Output { status, stdout, stderr } = child.wait_with_output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code(), text(stdout), text(stderr))
}

#[test]
fn hostile_lists_cost_bounded_memory_and_time() {
    let database = Cluster::shared().database();
    drop(ready(&database));
    let lines = ["crawl.max_addresses = 20000"];
    let crawl = Crawl::configure(&database, &PathBuf::from("none"), &lines);
    let begin = Instant::now();
    let (status, out, err) = feed(&crawl, 60_000, |pipe| {
        for n in 0..100_u8 {
            let lines = |k: u32| format!("127.{n}.{}.{}\n", k >> 8 & 255, k & 255);
            let mut text: String = (0..25_000).map(lines).collect();
            text.push_str(&"10.0.0.1 8333\n".repeat(25_000));
            text.push_str(&"nothing\u{7}\n".repeat(25_000));
            text.push_str(&"[::1]:1\n".repeat(25_000));
            pipe.write_all(text.as_bytes()).unwrap();
        }
    });
    println!("10 million lines: {:?}", begin.elapsed());
    assert_eq!(status, Some(1), "{err}");
    assert!(err.contains("line 50001: ") && err.contains("and 2,499,995 more"), "{err}");
    assert!(err.lines().count() == 1 && err.len() < 1_500, "{err}");
    let out: String = out.split_whitespace().collect::<Vec<_>>().join(" ");
    let expected = "read 10,000,000 of standard input (list) imported 20,000 new candidates: the next crawl \
        takes them in left out 9,980,000 IPv6 2,500,000, excluded by our filter 2,500,000, \
        beyond crawl.max_addresses 2,480,000, unreadable 2,500,000";
    assert_eq!(out, expected);
    assert!(begin.elapsed() < Duration::from_secs(120), "{:?}", begin.elapsed());

    // JSON that never ends, and JSON that breaks after good nodes: nothing is imported.
    let waiting = database.value(WAITING);
    let (status, _, err) = feed(&crawl, 60_000, |pipe| {
        pipe.write_all(b"{\"nodes\": {\"127.200.0.1:8333\": [1]").unwrap();
        pipe.write_all(b"}, \"more\": ").unwrap();
        let brackets = "[".repeat(1 << 20);
        while pipe.write_all(brackets.as_bytes()).is_ok() {}
    });
    assert_eq!(status, Some(1));
    let text =
        "bitdash: standard input: line 1: it is nested deeper than 16; nothing was imported\n";
    assert_eq!(err, text);
    assert_eq!(database.value(WAITING), waiting);
}
