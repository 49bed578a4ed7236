//! Nobody gets in, and nothing gets out that should not: sockets, passwords, strangers' bytes, hostile files, rights.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::Path;
use std::process::{Command, Output};
use std::thread::sleep;
use std::time::{Duration, Instant};

use support::crawl::{Crawl, Simnet, check_map, is_stats, value};
use support::{Cluster, rows};

/// What sockets a process has, by the kernel's own tables.
struct Sockets {
    listening: Vec<String>,
    connecting: usize,
}

fn sockets(pid: u32) -> Sockets {
    let proc = Path::new("/proc").join(pid.to_string());
    let links = fs::read_dir(proc.join("fd")).unwrap().flatten();
    let links = links.filter_map(|entry| fs::read_link(entry.path()).ok());
    let own: BTreeSet<String> = links
        .filter_map(|link| {
            Some(link.to_str()?.strip_prefix("socket:[")?.trim_end_matches(']').to_owned())
        })
        .collect();
    let mut found = Sockets { listening: Vec::new(), connecting: 0 };
    for (table, state, inode) in [
        ("tcp", 3, 9),
        ("tcp6", 3, 9),
        ("udp", 3, 9),
        ("udp6", 3, 9),
        ("raw", 3, 9),
        ("unix", 3, 6),
    ] {
        let Ok(text) = fs::read_to_string(proc.join("net").join(table)) else { continue };
        for line in text.lines().skip(1) {
            let fields: Vec<&str> = line.split_whitespace().collect();
            if !fields.get(inode).is_some_and(|inode| own.contains(*inode)) {
                continue;
            }
            let listens = match table {
                // LISTEN; __SO_ACCEPTCON; whatever is bound without a far end.
                "tcp" | "tcp6" => fields[state] == "0A",
                "unix" => u32::from_str_radix(fields[state], 16).unwrap() & 0x1_0000 != 0,
                _ => true,
            };
            match listens {
                true => found.listening.push(format!("{table}: {line}")),
                false => found.connecting += 1,
            }
        }
    }
    found
}

#[test]
fn the_crawler_listens_nowhere() {
    let simnet = Simnet::start(&["--nodes", "150", "--dead", "500", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let mut crawl =
        Crawl::configure(&database, &simnet.seeds(), &["crawl.connects_per_second = 150"]);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    let pid = crawl.child.as_ref().unwrap().id();
    let mut most = 0;
    while crawl.child.as_mut().unwrap().try_wait().unwrap().is_none() {
        let Ok(true) = fs::exists(format!("/proc/{pid}/fd/0")) else { break };
        let found = sockets(pid);
        assert_eq!(found.listening, [""; 0]);
        most = most.max(found.connecting);
        sleep(Duration::from_millis(100));
    }
    assert!(most > 10, "the tables show only {most} sockets: the test sees nothing");
    assert!(crawl.wait().success());

    // What would be seen of one that listens: this test itself.
    let (_tcp, _udp) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    assert_eq!(sockets(std::process::id()).listening.len(), 2);
}

const SECRET: &str = "hush5ecret";

fn said(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

#[test]
fn a_password_is_never_shown() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let rules = cluster.folder().join("data/pg_hba.conf");
    let old = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, format!("local all locked scram-sha-256\n{old}")).unwrap();
    cluster.admin().batch_execute(&format!(
        "CREATE ROLE locked LOGIN PASSWORD '{SECRET}'; ALTER DATABASE {} OWNER TO locked; SELECT pg_reload_conf()",
        database.name
    )).unwrap();
    let right = cluster.url(&format!("locked:{SECRET}"), &database.name);
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "200", "--time-scale", "0.05"]);
    let set = |url: &str| format!("database.url = {url:?}");
    let (level, pace) = ("log.level = \"trace\"", "crawl.connects_per_second = 60");
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[&set(&right), level, pace]);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    let pid = crawl.child.as_ref().unwrap().id();
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(SECRET));
    let seen = "SELECT datname, usename, application_name, query FROM pg_stat_activity";
    assert!(!rows(&mut cluster.admin(), seen).concat().contains(SECRET));
    // Another password, and one that makes no sense, by SIGHUP.
    for url in
        [right.replace(SECRET, "hush5ecret2"), format!("postgresql://locked:{SECRET}@[bad/x")]
    {
        crawl.reconfigure(&database, &simnet.seeds(), &[&set(&url), level, pace]);
        let before = crawl.log().matches(" reload ").count();
        crawl.signal("-HUP");
        crawl.wait_for_log(|_| true);
        support::faults::wait_until("the reload", Duration::from_secs(20), || {
            crawl.log().matches(" reload ").count() > before
        });
    }
    let good = fs::read_to_string(crawl.config()).unwrap();
    fs::write(crawl.config(), format!("database = {right:?}")).unwrap();
    crawl.signal("-HUP");
    crawl.wait_for_log(|line| line.contains("database = ***: must be a section"));
    fs::write(crawl.config(), good).unwrap();
    // The server cuts it off while it is away and says why.
    cluster.stop_server();
    crawl.wait_for_log(|line| line.contains("database state=down"));
    cluster.start_server();
    assert!(crawl.wait().success(), "{}", crawl.log());
    assert!(
        crawl.log().contains("[DEBUG]")
            && crawl.log().contains("database=postgresql://locked:***@")
    );
    assert!(!crawl.log().contains("5ecret"), "{}", crawl.log());

    let no_host = format!("postgresql://locked:{SECRET}@127.0.0.1:1/x");
    let no_url = format!("postgresql://locked:{SECRET}@h:port/x?{SECRET}");
    let raw_at = format!("postgresql://locked:x@{SECRET}@127.0.0.1:1/x");
    let wrong = right.replace(SECRET, "other5ecret");
    let pairs = format!("host=127.0.0.1 port=1 user=locked password='{SECRET}'");
    for (url, commands) in [
        (&right, &["config", "status", "migrate"][..]),
        (&wrong, &["config", "status", "crawl"]),
        (&no_host, &["config", "status"]),
        (&no_url, &["config", "migrate", "crawl"]),
        (&raw_at, &["config", "status", "migrate", "crawl"]),
        (&pairs, &["config", "status"]),
    ] {
        for command in commands {
            crawl.reconfigure(&database, &simnet.seeds(), &[&set(url), level]);
            let text = said(&crawl.command(&[command]).output().unwrap());
            assert!(!text.is_empty() && !text.contains("5ecret"), "{command}: {text}");
        }
        // And from the environment, which wins.
        crawl.reconfigure(&database, &simnet.seeds(), &[level]);
        let output = crawl.command(&["config"]).env("BITDASH_DATABASE_URL", url).output().unwrap();
        assert!(!said(&output).contains("5ecret"), "{}", said(&output));
    }
    // A value in place of a section.
    for text in [format!("database = {right:?}"), format!("database = {pairs:?}")] {
        fs::write(crawl.config(), text).unwrap();
        let output = crawl.command(&["config"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(!said(&output).contains("5ecret"), "{}", said(&output));
    }
    crawl.reconfigure(&database, &simnet.seeds(), &[&set(&wrong)]);
    let output = crawl.command(&["crawl"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).contains("check the password"), "{}", said(&output));
}

#[test]
fn what_strangers_wrote_is_escaped_wherever_status_shows_it() {
    let database = Cluster::shared().database();
    let mut store = support::rows::ready(&database);
    store.write(&support::rows::rich_batch(), 25).unwrap();
    // No crawler would store such things: a hand, or a fault, did.
    let evil = "<script>alert(1)</script>\u{1b}[31m\u{1b}]0;x\u{7}\r\n2026-01-01T00:00:00Z [INFO] forged\u{202e}\u{9b}2J\u{85}\u{2028}=cmd";
    let mut client = database.client();
    let update = "UPDATE result_journal SET user_agent = $1, species = CASE WHEN status IS NULL THEN species ELSE $1 END
        WHERE protocol_version IS NOT NULL";
    client.execute(update, &[&evil]).unwrap();
    client.execute("UPDATE node_names SET name = $1", &[&evil]).unwrap();
    let key = "SELECT min(key) FROM result_journal";
    client
        .execute(&format!("INSERT INTO node_places VALUES (({key}), $1, 1, $1)"), &[&evil])
        .unwrap();
    let nodes = database.dir_with_seed();
    let crawl = Crawl::configure(&database, &nodes.path().join("nodes.txt"), &[]);
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["status", "127.0.0.2"],
        &["status", "127.0.0.3:8333", "--json"],
    ] {
        let output = crawl.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", said(&output));
        let text = String::from_utf8(output.stdout).unwrap();
        assert!(text.contains("alert(1)"), "{args:?} does not show it at all: {text}");
        let control = text.chars().find(|&c| c.is_control() && c != '\n');
        assert_eq!(control, None, "{args:?}: {text:?}");
        for c in ['\u{202e}', '\u{2028}'] {
            assert!(!text.contains(c), "{args:?}: {text:?}");
        }
        assert!(!text.lines().any(|line| line.starts_with("2026-01-01T00:00:00Z")), "{text}");
        if args.contains(&"--json") {
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }
    // It is read back at a start, and no line of the log is forged by it.
    let mut crawl = crawl;
    assert!(crawl.run(&["--passes", "1"]).success());
    assert!(!crawl.log().contains("forged") && !crawl.log().contains('\u{1b}'), "{}", crawl.log());
}

impl support::Database {
    fn dir_with_seed(&self) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        fs::write(dir.path().join("nodes.txt"), "127.9.9.9 1\n").unwrap();
        dir
    }
}

#[test]
fn hostile_files_give_one_clear_message_in_bounded_memory() {
    let database = Cluster::shared().database();
    let dir = database.dir_with_seed();
    let hostile_dir = tempfile::tempdir().unwrap();
    let file = |name: &str| hostile_dir.path().join(name);
    // Half a terabyte of nothing, bytes of all kinds, one line without an end, a million lines that are none, a pipe.
    fs::File::create(file("huge")).unwrap().set_len(1 << 39).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    // No letters: nothing in it may be taken for a name and looked up.
    let no_name = |byte: u8| if byte.is_ascii_alphanumeric() { byte | 0x80 } else { byte };
    let binary: Vec<u8> = (0..300_000).map(|_| no_name(random.u8(..))).collect();
    fs::write(file("binary"), binary).unwrap();
    fs::write(file("line"), vec![b'a'; 900_000]).unwrap();
    fs::write(file("lines"), "\u{1b}[31m!\n".repeat(120_000)).unwrap();
    fs::write(file("deep"), "[".repeat(500_000)).unwrap();
    assert!(Command::new("mkfifo").arg(file("pipe")).status().unwrap().success());
    let good = dir.path().join("nodes.txt");
    let hostile =
        ["huge", "binary", "line", "lines", "deep", "pipe", "/dev/zero", "/proc/self/mem", "."];
    let crawl = Crawl::configure(&database, &good, &[]);
    let run = |kind: &str, name: &str| {
        let path = file(name);
        let text = path.display().to_string();
        let mut config = crawl.config();
        match kind {
            "nodes" => crawl.reconfigure(&database, &path, &[]),
            "exclude" => crawl.reconfigure(
                &database,
                &good,
                &[&format!("filter.exclude_files = [{text:?}]")],
            ),
            _ => config = path,
        }
        // 400 MB of address space, of which threads take most; a file of 16 MB fits, and not its double double.
        let script = "ulimit -v 400000; exec timeout 2 \"$0\" -c \"$1\" crawl --passes 1";
        let program = env!("CARGO_BIN_EXE_bitdash");
        let begin = Instant::now();
        let mut command = Command::new("bash");
        command.args(["-c", script, program]).arg(config).current_dir(hostile_dir.path());
        let output = command.env("BITDASH_DATABASE_URL", &database.url).output().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(50), "{kind} {name}");
        let error = String::from_utf8(output.stderr).unwrap();
        let what = format!("{kind} {name}: {:?} {error:.2000}", output.status);
        assert!(error.lines().all(|line| line.len() < 600), "a line without an end: {what}");
        assert!(!error.chars().any(|c| c.is_control() && c != '\n'), "{what}");
        assert!(!error.contains("panicked"), "{what}");
        (output.status.code(), error, what)
    };
    for name in hostile {
        let (code, error, what) = run("config", name);
        // A pipe without a writer is empty, and an empty configuration names a nodes file that is not here.
        assert_eq!((code, error.lines().count()), (Some(2), 1), "{what}");
        let (code, error, what) = run("exclude", name);
        // An exclude file without a line in it is one.
        assert!(code == Some(2) || name == "pipe", "{what}");
        assert!(name == "pipe" || error.lines().count() == 1, "{what}");
        let (code, error, what) = run("nodes", name);
        let complaints = error.lines().filter(|line| line.contains("nodes_file error=")).count();
        match code {
            Some(2) => assert_eq!(error.lines().count(), 1, "{what}"),
            // Single wrong lines are named, some of them, and the rest is crawled: there is none.
            _ => assert!(code == Some(0) || code == Some(124), "{what}"),
        }
        assert!(complaints <= 25, "{complaints} complaints: {what}");
    }
}

#[test]
fn the_roles_of_the_readme_may_do_what_they_must_and_no_more() {
    let cluster = Cluster::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/roles.sql");
    let run =
        format!("psql -q -v database=map -v crawler=walker -v web=reader -f {script} postgres");
    cluster.shell(&run);
    // Once more changes nothing and is no fault.
    cluster.shell(&run);
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "60", "--time-scale", "0.05"]);
    let database = support::Database { url: cluster.url("walker", "map"), name: "map".to_owned() };
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[]);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    check_map(&database, &simnet);

    let web = support::Database { url: cluster.url("reader", "map"), name: "map".to_owned() };
    for relation in ["nodes", "probes", "addresses", "candidates", "sources", "passes", "history"] {
        web.rows(&format!("SELECT * FROM {relation}"));
    }
    assert_eq!(web.value("SELECT count(*) FROM nodes"), "60");
    crawl.reconfigure(&web, &simnet.seeds(), &[]);
    assert!(crawl.command(&["status"]).output().unwrap().status.success());
    let may_not = |url: &str, sql: &str| {
        let mut client = postgres::Client::connect(url, postgres::NoTls).unwrap();
        let _ = client.batch_execute("SET default_transaction_read_only = off");
        let error = client.batch_execute(sql).expect_err(sql);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{sql}: {error}");
    };
    for sql in [
        "DELETE FROM passes",
        "UPDATE passes SET probed = 0",
        "INSERT INTO node_names VALUES (1, 'x')",
        "TRUNCATE history",
        "DROP TABLE passes",
        "DROP VIEW nodes",
        "CREATE TABLE mine (a integer)",
        "CREATE TEMP TABLE mine (a integer)",
        "SELECT nextval('batch_number')",
        "CREATE DATABASE other",
        "CREATE ROLE other",
    ] {
        may_not(&web.url, sql);
    }
    // The crawler is master of its own database and of nothing else; and it is nobody else's.
    for sql in [
        "CREATE DATABASE other",
        "CREATE ROLE other",
        "COPY passes TO '/tmp/x'",
        "ALTER SYSTEM SET work_mem = '1GB'",
    ] {
        may_not(&database.url, sql);
    }
    let stranger = postgres::Client::connect(&cluster.url("bitdash", "map"), postgres::NoTls);
    assert!(stranger.is_err(), "a role without rights may connect");
}

/// The commands of the README's section, one after the other.
fn readme_commands(section: &str) -> Vec<String> {
    let text = fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/README.md")).unwrap();
    let section = text.split(&format!("## {section}\n")).nth(1).expect("the section is there");
    let section = section.split("\n## ").next().unwrap();
    let block = section.split("```\n").nth(1).expect("it has commands");
    block.lines().map(str::to_owned).collect()
}

#[test]
fn what_cannot_be_learned_again_is_backed_up_and_restored_as_the_readme_says() {
    let cluster = Cluster::start();
    cluster.admin().batch_execute("CREATE DATABASE bitdash OWNER bitdash").unwrap();
    let database =
        support::Database { url: cluster.url("bitdash", "bitdash"), name: "bitdash".to_owned() };
    let simnet = Simnet::start(&["--nodes", "80", "--dead", "300", "--time-scale", "0.05"]);
    let pace = ["crawl.pass_interval = \"1s\"", "database.flush_interval = \"200ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &pace);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    // It runs meanwhile.
    crawl.start(&[]);
    crawl.wait_for_log(|line| line.contains("pass=2 state=started"));
    let commands = readme_commands("Backup");
    let (backup, restore): (Vec<_>, Vec<_>) =
        commands.iter().partition(|line| line.contains("pg_dump"));
    assert!(backup.len() == 1 && restore.len() == 2, "{commands:?}");
    let folder = crawl.dir.path().display().to_string();
    // Here everybody is postgres.
    let begin = format!("sudo() {{ shift 2; \"$@\"; }}; cd {folder}; ");
    cluster.shell(&format!("{begin}{}", backup[0]));
    crawl.signal("-TERM");
    assert!(crawl.wait().success());
    let facts = |database: &support::Database| {
        let pass_1 = "SELECT 'history', t::text FROM history t WHERE pass = 1 UNION ALL
            SELECT 'passes', t::text FROM passes t WHERE pass = 1 UNION ALL
            SELECT 'nodes', concat(host, port, first_seen, user_agent, species) FROM nodes UNION ALL
            SELECT 'probes', t::text FROM probes t WHERE pass = 1 ORDER BY 1, 2";
        database.rows(pass_1)
    };
    let before = facts(&database);
    assert!(before.len() > 160, "{}", before.len());
    let size = fs::metadata(crawl.dir.path().join("bitdash.dump")).unwrap().len();

    // The first database is gone.
    cluster.admin().batch_execute("ALTER DATABASE bitdash RENAME TO lost").unwrap();
    let restore: Vec<&str> = restore.iter().map(|line| line.as_str()).collect();
    cluster.shell(&format!("{begin}{}", restore.join("; ")));
    assert_eq!(facts(&database), before, "a dump of {size} bytes");
    assert_eq!(database.value("SELECT count(*) FROM candidates"), "0", "they are learned again");
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    assert_eq!(facts(&database), before);
    assert!(
        database.value("SELECT max(pass) >= 2 FROM passes WHERE finished_at IS NOT NULL") == "t"
    );
    assert!(!crawl.log().contains("state=emptied"));
}
