//! Security of the whole program: listening sockets, passwords, hostile values and files, roles,
//! backups.

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
use support::faults::wait_until;
use support::{Cluster, Database, rows};

/// The sockets of a process, from the kernel's tables.
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
                // LISTEN; __SO_ACCEPTCON; anything bound without a peer.
                "tcp" | "tcp6" => fields[state] == "0A",
                "unix" => u32::from_str_radix(fields[state], 16).unwrap() & 0x1_0000 != 0,
                _ => true,
            };
            if listens {
                found.listening.push(format!("{table}: {line}"));
            } else {
                found.connecting += 1;
            }
        }
    }
    found
}

#[test]
fn the_crawler_listens_on_no_socket() {
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
    assert!(most > 10, "the tables show only {most} sockets");
    assert!(crawl.wait().success());

    // Control: this test itself listens.
    let (_tcp, _udp) =
        (TcpListener::bind("127.0.0.1:0").unwrap(), UdpSocket::bind("127.0.0.1:0").unwrap());
    assert_eq!(sockets(std::process::id()).listening.len(), 2);
}

const SECRET: &str = "hush5ecret";

/// The stdout and stderr of a command.
fn printed(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}

/// A database whose role needs the password, and its URL with it.
fn locked_database(cluster: &Cluster) -> (Database, String) {
    let database = cluster.database();
    let rules = cluster.directory().join("data/pg_hba.conf");
    let old = fs::read_to_string(&rules).unwrap();
    fs::write(&rules, format!("local all locked scram-sha-256\n{old}")).unwrap();
    let name = &database.name;
    let sql = format!(
        "CREATE ROLE locked LOGIN PASSWORD '{SECRET}'; ALTER DATABASE {name} OWNER TO locked;
         SELECT pg_reload_conf()"
    );
    cluster.admin().batch_execute(&sql).unwrap();
    let url = cluster.url(&format!("locked:{SECRET}"), name);
    (database, url)
}

fn url_key(url: &str) -> String {
    format!("database.url = {url:?}")
}

#[test]
fn a_running_crawl_never_shows_the_password() {
    let cluster = Cluster::start();
    let (database, right) = locked_database(&cluster);
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "200", "--time-scale", "0.05"]);
    let (level, pace) = ("log.level = \"trace\"", "crawl.connects_per_second = 60");
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[&url_key(&right), level, pace]);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    let pid = crawl.child.as_ref().unwrap().id();
    let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap();
    assert!(!String::from_utf8_lossy(&arguments).contains(SECRET));
    let seen = "SELECT datname, usename, application_name, query FROM pg_stat_activity";
    assert!(!rows(&mut cluster.admin(), seen).concat().contains(SECRET));
    // SIGHUP with another password, and with an invalid URL.
    for url in
        [right.replace(SECRET, "hush5ecret2"), format!("postgresql://locked:{SECRET}@[bad/x")]
    {
        crawl.reconfigure(&database, &simnet.seeds(), &[&url_key(&url), level, pace]);
        let before = crawl.log().matches(" reload ").count();
        crawl.signal("-HUP");
        wait_until("the reload", Duration::from_secs(20), || {
            crawl.log().matches(" reload ").count() > before
        });
    }
    let good = fs::read_to_string(crawl.config()).unwrap();
    fs::write(crawl.config(), format!("database = {right:?}")).unwrap();
    crawl.signal("-HUP");
    crawl.wait_for_log(|line| line.contains("database = ***: must be a section"));
    fs::write(crawl.config(), good).unwrap();
    // The server terminates the connection with a message.
    cluster.stop_server();
    crawl.wait_for_log(|line| line.contains("database state=down"));
    cluster.start_server();
    assert!(crawl.wait().success(), "{}", crawl.log());
    let log = crawl.log();
    assert!(log.contains(" DEBUG ") && log.contains("database=postgresql://locked:***@"));
    assert!(!log.contains("5ecret"), "{log}");
}

#[test]
fn no_command_shows_the_password() {
    let cluster = Cluster::start();
    let (database, right) = locked_database(&cluster);
    let no_host = format!("postgresql://locked:{SECRET}@127.0.0.1:1/x");
    let no_url = format!("postgresql://locked:{SECRET}@h:port/x?{SECRET}");
    let raw_at = format!("postgresql://locked:x@{SECRET}@127.0.0.1:1/x");
    let wrong = right.replace(SECRET, "other5ecret");
    let pairs = format!("host=127.0.0.1 port=1 user=locked password='{SECRET}'");
    let nodes = directory_with_seed();
    let seeds = nodes.path().join("nodes.txt");
    let level = "log.level = \"trace\"";
    let crawl = Crawl::configure(&database, &seeds, &[]);
    for (url, commands) in [
        (&right, &["config", "status", "migrate"][..]),
        (&wrong, &["config", "status", "crawl"]),
        (&no_host, &["config", "status"]),
        (&no_url, &["config", "migrate", "crawl"]),
        (&raw_at, &["config", "status", "migrate", "crawl"]),
        (&pairs, &["config", "status"]),
    ] {
        for command in commands {
            crawl.reconfigure(&database, &seeds, &[&url_key(url), level]);
            let text = printed(&crawl.command(&[command]).output().unwrap());
            assert!(!text.is_empty() && !text.contains("5ecret"), "{command}: {text}");
        }
        // The environment overrides the file.
        crawl.reconfigure(&database, &seeds, &[level]);
        let output = crawl.command(&["config"]).env("BITDASH_DATABASE_URL", url).output().unwrap();
        assert!(!printed(&output).contains("5ecret"), "{}", printed(&output));
    }
    // A value in place of a section.
    for text in [format!("database = {right:?}"), format!("database = {pairs:?}")] {
        fs::write(crawl.config(), text).unwrap();
        let output = crawl.command(&["config"]).output().unwrap();
        assert_eq!(output.status.code(), Some(2));
        assert!(!printed(&output).contains("5ecret"), "{}", printed(&output));
    }
    crawl.reconfigure(&database, &seeds, &[&url_key(&wrong)]);
    let output = crawl.command(&["crawl"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(printed(&output).contains("check the password"), "{}", printed(&output));
}

#[test]
fn status_escapes_hostile_values_everywhere() {
    let database = Cluster::shared().database();
    let mut store = support::rows::ready(&database);
    store.write(&support::rows::rich_batch(), 25).unwrap();
    // No crawler stores such values.
    let evil = "<script>alert(1)</script>\u{1b}[31m\u{1b}]0;x\u{7}\r\n2026-01-01T00:00:00.000Z INFO forged\u{202e}\u{9b}2J\u{85}\u{2028}=cmd";
    let mut client = database.client();
    let update = "UPDATE nodes SET user_agent = $1, species = $1, release = $1, country = $1, as_name = $1, asn = 1,
        name = CASE WHEN name IS NULL THEN NULL ELSE $1 END";
    client.execute(update, &[&evil]).unwrap();
    let update = "UPDATE bitdash_internal.probe_journal SET user_agent = $1 WHERE outcome = 0";
    client.execute(update, &[&evil]).unwrap();
    let nodes = directory_with_seed();
    let mut crawl = Crawl::configure(&database, &nodes.path().join("nodes.txt"), &[]);
    for args in [
        &["status"][..],
        &["status", "--json"],
        &["status", "127.0.0.2"],
        &["status", "127.0.0.3:8333", "--json"],
        &["nodes"],
        &["nodes", "--csv"],
        &["export", "csv"],
        &["export", "uainfo"],
    ] {
        let output = crawl.command(args).output().unwrap();
        assert!(output.status.success(), "{args:?}: {}", printed(&output));
        // RFC 4180 ends the rows of CSV with CRLF.
        let text = String::from_utf8(output.stdout).unwrap().replace("\r\n", "\n");
        assert!(text.contains("alert(1)"), "{args:?} does not show it: {text}");
        let control = text.chars().find(|&c| c.is_control() && c != '\n');
        assert_eq!(control, None, "{args:?}: {text:?}");
        for c in ['\u{202e}', '\u{2028}'] {
            assert!(!text.contains(c), "{args:?}: {text:?}");
        }
        assert!(!text.lines().any(|line| line.starts_with("2026-01-01T00:00:00.000Z")), "{text}");
        if args.contains(&"--json") {
            serde_json::from_str::<serde_json::Value>(&text).unwrap();
        }
    }
    // A start reads it back, and it forges no line of the log.
    assert!(crawl.run(&["--passes", "1"]).success());
    assert!(!crawl.log().contains("forged") && !crawl.log().contains('\u{1b}'), "{}", crawl.log());
}

fn directory_with_seed() -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("nodes.txt"), "127.9.9.9 1\n").unwrap();
    dir
}

#[test]
fn hostile_files_give_one_clear_message_in_bounded_memory() {
    let database = Cluster::shared().database();
    let dir = directory_with_seed();
    let hostile_dir = tempfile::tempdir().unwrap();
    let file = |name: &str| hostile_dir.path().join(name);
    // Half a terabyte of zeros, random bytes, one long line, many invalid lines, a named pipe.
    fs::File::create(file("huge")).unwrap().set_len(1 << 39).unwrap();
    let mut random = fastrand::Rng::with_seed(5);
    // No letters: the crawler would resolve host names in it.
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
        // 400 MB of address space, most of it for threads: a file of 16 MB fits, four copies do
        // not. A pipe without a writer is given up after 10 s, anything else is judged at once.
        let seconds = if name == "pipe" { 15 } else { 2 };
        let script =
            format!("ulimit -v 400000; exec timeout {seconds} \"$0\" -c \"$1\" crawl --passes 1");
        let program = env!("CARGO_BIN_EXE_bitdash");
        let begin = Instant::now();
        let mut command = Command::new("bash");
        command.args(["-c", &script, program]).arg(config).current_dir(hostile_dir.path());
        let output = command.env("BITDASH_DATABASE_URL", &database.url).output().unwrap();
        assert!(begin.elapsed() < Duration::from_secs(50), "{kind} {name}");
        let error = String::from_utf8(output.stderr).unwrap();
        let what = format!("{kind} {name}: {:?} {error:.2000}", output.status);
        assert!(error.lines().all(|line| line.len() < 600), "a line of 600 bytes: {what}");
        assert!(!error.chars().any(|c| c.is_control() && c != '\n'), "{what}");
        assert!(!error.contains("panicked"), "{what}");
        (output.status.code(), error, what)
    };
    for name in hostile {
        let (code, error, what) = run("config", name);
        assert_eq!((code, error.lines().count()), (Some(2), 1), "{what}");
        let (code, error, what) = run("exclude", name);
        assert_eq!((code, error.lines().count()), (Some(2), 1), "{what}");
        let (code, error, what) = run("nodes", name);
        let complaints = error.lines().filter(|line| line.contains("nodes_file error=")).count();
        match code {
            Some(2) => assert_eq!(error.lines().count(), 1, "{what}"),
            // Some of the invalid lines are reported; no valid line is left to crawl.
            _ => assert!(code == Some(0) || code == Some(124), "{what}"),
        }
        assert!(complaints <= 25, "{complaints} complaints: {what}");
    }
}

#[test]
fn the_documented_roles_have_exactly_the_rights_they_need() {
    let cluster = Cluster::start();
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/scripts/roles.sql");
    let run =
        format!("psql -q -v database=map -v crawler=walker -v web=reader -f {script} postgres");
    cluster.shell(&run);
    // The script is idempotent.
    cluster.shell(&run);
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "60", "--time-scale", "0.05"]);
    let database = Database { url: cluster.url("walker", "map"), name: "map".to_owned() };
    // The reader holds every advisory lock that bitdash ever used.
    let mut greedy =
        postgres::Client::connect(&cluster.url("reader", "map"), postgres::NoTls).unwrap();
    for key in [0x6269_7464_6173_6801_i64, 0x6269_7464_6173_6802] {
        greedy.execute("SELECT pg_advisory_lock($1)", &[&key]).unwrap();
    }
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[]);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    check_map(&database, &simnet);

    let web = Database { url: cluster.url("reader", "map"), name: "map".to_owned() };
    for relation in ["nodes", "probes", "addresses", "candidates", "sources", "passes", "history"] {
        web.rows(&format!("SELECT * FROM {relation}"));
    }
    assert_eq!(web.value("SELECT count(*) FROM nodes"), "60");
    web.rows("SELECT address(host), service_names(services) FROM nodes LIMIT 1");
    crawl.reconfigure(&web, &simnet.seeds(), &[]);
    for command in READING {
        let output = crawl.command(command).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr);
        assert!(error.is_empty() && output.status.code() != Some(2), "{command:?}: {error}");
    }
    let may_not = |url: &str, sql: &str| {
        let mut client = postgres::Client::connect(url, postgres::NoTls).unwrap();
        let _ = client.batch_execute("SET default_transaction_read_only = off");
        let error = client.batch_execute(sql).expect_err(sql);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{sql}: {error}");
    };
    for sql in [
        "DELETE FROM passes",
        "UPDATE passes SET probed = 0",
        "INSERT INTO bitdash_internal.node_names VALUES ('127.0.0.1', 1, 'x')",
        "SELECT FROM bitdash_internal.node_names",
        "SELECT FROM bitdash_internal.address_journal",
        "TRUNCATE passes",
        "DROP TABLE passes",
        "DROP TABLE nodes",
        "DROP VIEW probes",
        "CREATE TABLE mine (a integer)",
        "CREATE TEMP TABLE mine (a integer)",
        "CREATE DATABASE other",
        "CREATE ROLE other",
    ] {
        may_not(&web.url, sql);
    }
    // The crawler owns its own database and nothing else.
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

/// Every command that reads the database.
const READING: &[&[&str]] = &[
    &["status"],
    &["nodes"],
    &["nodes", "--csv"],
    &["export", "csv"],
    &["export", "seeds"],
    &["export", "uainfo"],
    &["export", "json"],
    &["export", "json", "--layout", "rows"],
    &["export", "json", "--at", "2100-01-01"],
];

/// The rights that the package gives to the role bitdash_read.
fn rights_of_readers() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/debian/setup-database");
    let script = fs::read_to_string(path).unwrap();
    let sql = script.split("<<'SQL'\n").nth(1).and_then(|rest| rest.split("\nSQL\n").next());
    sql.expect("the script grants rights").to_owned()
}

#[test]
fn a_reader_of_the_package_gets_what_the_owner_gets() {
    let cluster = Cluster::start();
    let mut admin = cluster.admin();
    admin
        .batch_execute("CREATE ROLE bitdash_read; CREATE ROLE ann LOGIN IN ROLE bitdash_read")
        .unwrap();
    admin.batch_execute("CREATE DATABASE bitdash OWNER bitdash").unwrap();
    let url = |role: &str| cluster.url(role, "bitdash");
    let client = postgres::Client::connect(&url("postgres"), postgres::NoTls);
    client.unwrap().batch_execute(&rights_of_readers()).unwrap();
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "60", "--time-scale", "0.05"]);
    let database = |role: &str| Database { url: url(role), name: "bitdash".to_owned() };
    let pace = ["crawl.pass_interval = \"1s\""];
    let mut crawl = Crawl::configure(&database("bitdash"), &simnet.seeds(), &pace);
    assert!(crawl.run(&["--passes", "2"]).success(), "{}", crawl.log());
    // A closed day: its rolls and sums are read, too.
    let yesterday = "UPDATE passes SET finished_at = finished_at - interval '1 day' WHERE pass = 1;
        UPDATE bitdash_internal.history_passes SET at = at - interval '1 day' WHERE pass = 1;
        UPDATE rolls SET at = at - interval '1 day' WHERE pass = 1";
    database("bitdash").client().batch_execute(yesterday).unwrap();
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    assert_eq!(database("ann").value("SELECT count(*) FROM daily_rolls"), "1");
    let run = |role: &str, command: &[&str]| {
        crawl.reconfigure(&database(role), &simnet.seeds(), &[]);
        let output = crawl.command(command).output().unwrap();
        let error = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.code() != Some(2), "{role}: {command:?}: {error}");
        // Ages of seconds differ.
        let text = String::from_utf8(output.stdout).unwrap();
        (output.status.code(), error, if command[0] == "export" { text } else { String::new() })
    };
    for command in READING {
        let owners = run("bitdash", command);
        assert_eq!(run("ann", command), owners, "{command:?}");
        assert!(command[0] != "export" || owners.0 == Some(0), "{command:?}: {}", owners.1);
        assert!(owners.1.is_empty(), "{command:?}: {}", owners.1);
    }
    let mut ann = database("ann").client();
    for sql in
        ["DELETE FROM passes", "DELETE FROM roll_nodes", "SELECT FROM bitdash_internal.roll_days"]
    {
        let error = ann.batch_execute(sql).expect_err(sql);
        assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{sql}: {error}");
    }
}

/// The commands in a section of docs/operations.md.
fn documented_commands(section: &str) -> Vec<String> {
    let text =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/docs/operations.md")).unwrap();
    let section = text.split(&format!("## {section}\n")).nth(1).expect("the section is there");
    let section = section.split("\n## ").next().unwrap();
    let block = section.split("```\n").nth(1).expect("it has commands");
    block.lines().map(str::to_owned).collect()
}

#[test]
fn backup_and_restore_work_as_documented() {
    let cluster = Cluster::start();
    cluster.admin().batch_execute("CREATE DATABASE bitdash OWNER bitdash").unwrap();
    let database = Database { url: cluster.url("bitdash", "bitdash"), name: "bitdash".to_owned() };
    let simnet = Simnet::start(&["--nodes", "80", "--dead", "300", "--time-scale", "0.05"]);
    let pace = ["crawl.pass_interval = \"1s\"", "database.flush_interval = \"200ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &pace);
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    // The crawler runs during the backup.
    crawl.start(&[]);
    crawl.wait_for_log(|line| line.contains("pass=2 state=started"));
    let commands = documented_commands("Backup");
    let (backup, restore): (Vec<_>, Vec<_>) =
        commands.iter().partition(|line| line.contains("pg_dump"));
    assert!(backup.len() == 1 && restore.len() == 2, "{commands:?}");
    let directory = crawl.dir.path().display().to_string();
    // This test runs the commands as postgres already.
    let begin = format!("sudo() {{ shift 2; \"$@\"; }}; cd {directory}; ");
    cluster.shell(&format!("{begin}{}", backup[0]));
    crawl.signal("-TERM");
    assert!(crawl.wait().success());
    let facts = |database: &Database| {
        let pass_1 = "SELECT 'history', t::text FROM history t WHERE pass = 1 UNION ALL
            SELECT 'passes', t::text FROM passes t WHERE pass = 1 UNION ALL
            SELECT 'nodes', concat(host, port, first_seen, user_agent, species) FROM nodes UNION ALL
            SELECT 'probes', t::text FROM probes t WHERE pass = 1 ORDER BY 1, 2";
        database.rows(pass_1)
    };
    let before = facts(&database);
    assert!(before.len() > 160, "{}", before.len());
    let size = fs::metadata(crawl.dir.path().join("bitdash.dump")).unwrap().len();

    // The database is lost.
    cluster.admin().batch_execute("ALTER DATABASE bitdash RENAME TO lost").unwrap();
    let restore: Vec<&str> = restore.iter().map(|line| line.as_str()).collect();
    cluster.shell(&format!("{begin}{}", restore.join("; ")));
    assert_eq!(facts(&database), before, "a dump of {size} bytes");
    assert_eq!(database.value("SELECT count(*) FROM candidates"), "0", "the dump leaves them out");
    assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
    assert_eq!(facts(&database), before);
    assert!(
        database.value("SELECT max(pass) >= 2 FROM passes WHERE finished_at IS NOT NULL") == "t"
    );
    assert!(!crawl.log().contains("state=emptied"));
}
