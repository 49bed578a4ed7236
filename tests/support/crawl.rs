//! The real programs of the crate as child processes: the simulated network and a crawl of it.
//!
//! Every configuration made here has `filter.only = ["127.0.0.0/8"]`: a simulated peer may name any address.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use super::Database;

/// How long anything may take here before the test is given up.
const PATIENCE: Duration = Duration::from_secs(120);

/// A running `bitdash-simnet`.
pub struct Simnet {
    child: Child,
    pub dir: TempDir,
}

/// A port offset that no other test of this machine is likely to use now. Multiples of 187 have no port in common.
pub fn port_offset() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % 40) as u16 * 1_000;
    1_000 + own + NEXT.fetch_add(1, Ordering::Relaxed) * 187
}

impl Simnet {
    /// Starts a network with these further arguments and waits until it is ready.
    pub fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let mut child = Command::new(env!("CARGO_BIN_EXE_bitdash-simnet"))
                .args(["--port-offset", &port_offset().to_string(), "--dir"])
                .arg(dir.path())
                .args(args)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            if line.starts_with("ready ") {
                return Self { child, dir };
            }
            // Another program has one of the ports: another offset.
            child.wait().unwrap();
        }
        panic!("the simulated network does not start");
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    pub fn seeds(&self) -> PathBuf {
        self.dir.path().join("seeds.txt")
    }

    /// The rows of a table that it wrote, by the names of its header.
    pub fn table(&self, name: &str) -> Vec<BTreeMap<String, String>> {
        table(&self.dir.path().join(name))
    }

    /// Ends the network and gives its own account of the crawler.
    pub fn stop(mut self) -> Account {
        terminate(&self.child);
        assert!(wait(&mut self.child).success());
        let report = fs::read_to_string(self.dir.path().join("report.tsv")).unwrap();
        let pairs = report.lines().filter_map(|line| line.split_once('\t'));
        let figures = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        let connections = self.table("connections.tsv");
        Account { figures, connections }
    }
}

impl Drop for Simnet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// What the network saw of the crawler.
pub struct Account {
    pub figures: BTreeMap<String, String>,
    pub connections: Vec<BTreeMap<String, String>>,
}

impl Account {
    pub fn number(&self, key: &str) -> u64 {
        let value = self.figures.get(key).unwrap_or_else(|| panic!("no {key} in the report"));
        value.parse().unwrap_or_else(|_| panic!("{key} is {value}"))
    }
}

/// A crawl, or a command beside it: a folder with its configuration and log.
pub struct Crawl {
    pub dir: TempDir,
    pub child: Option<Child>,
}

impl Crawl {
    /// Writes a configuration that crawls into `database` from the nodes file `seeds`, with further lines
    /// `section.key = value`, the later ones winning.
    pub fn configure(database: &Database, seeds: &Path, lines: &[&str]) -> Self {
        let crawl = Self { dir: tempfile::tempdir().unwrap(), child: None };
        crawl.reconfigure(database, seeds, lines);
        crawl
    }

    pub fn reconfigure(&self, database: &Database, seeds: &Path, lines: &[&str]) {
        let mut keys: BTreeMap<String, String> = BTreeMap::new();
        let fixed = [
            ("crawl.nodes_file", format!("{:?}", seeds.display().to_string())),
            ("crawl.max_sockets", "200".into()),
            ("crawl.connects_per_second", "0".into()),
            ("crawl.candidate_connect_timeout", "\"500ms\"".into()),
            ("crawl.connect_timeout", "\"1s\"".into()),
            ("crawl.addr_timeout", "\"4s\"".into()),
            ("crawl.addr_quiet", "\"400ms\"".into()),
            ("filter.only", "[\"127.0.0.0/8\"]".into()),
            ("database.url", format!("{:?}", database.url)),
            ("database.flush_interval", "\"1s\"".into()),
            ("log.stats_interval", "\"1s\"".into()),
        ];
        keys.extend(fixed.into_iter().map(|(key, value)| (key.to_owned(), value)));
        for line in lines {
            let (key, value) = line.split_once(" = ").unwrap();
            keys.insert(key.to_owned(), value.to_owned());
        }
        let mut text = String::new();
        let mut section = "";
        for (key, value) in &keys {
            let (own, field) = key.split_once('.').unwrap();
            if own != section {
                text += &format!("[{own}]\n");
                section = own;
            }
            text += &format!("{field} = {value}\n");
        }
        fs::write(self.config(), text).unwrap();
    }

    pub fn config(&self) -> PathBuf {
        self.dir.path().join("bitdash.toml")
    }

    /// The command line of `bitdash` with this configuration.
    pub fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bitdash"));
        command.arg("-c").arg(self.config()).args(args).env_remove("BITDASH_DATABASE_URL");
        command
    }

    /// Starts `bitdash crawl`; its standard error goes to the log.
    pub fn start(&mut self, args: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.command(&["crawl"]);
        self.child = Some(command.args(args).stderr(log).spawn().unwrap());
    }

    /// Starts it and waits for its end.
    pub fn run(&mut self, args: &[&str]) -> ExitStatus {
        self.start(args);
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        // It stays ours until it has ended: where the wait fails it is still killed.
        let status = wait(self.child.as_mut().expect("the crawl runs"));
        self.child = None;
        status
    }

    pub fn signal(&self, signal: &str) {
        let pid = self.child.as_ref().expect("the crawl runs").id().to_string();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    pub fn log_path(&self) -> PathBuf {
        self.dir.path().join("log")
    }

    pub fn log(&self) -> String {
        fs::read_to_string(self.log_path()).unwrap_or_default()
    }

    /// Waits until a line of the log fits.
    pub fn wait_for_log(&mut self, fits: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            if let Some(line) = self.log().lines().find(|line| fits(line)) {
                return line.to_owned();
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            let waits = begin.elapsed() < PATIENCE && ended.is_none();
            assert!(waits, "no such line ({ended:?}) in the log:\n{}", self.log());
            sleep(Duration::from_millis(50));
        }
    }
}

impl Drop for Crawl {
    fn drop(&mut self) {
        if let Some(child) = &mut self.child {
            let _ = child.kill();
            let _ = child.wait();
        }
        if std::thread::panicking() {
            eprintln!("the log of the crawl:\n{}", self.log());
        }
    }
}

/// The value of a key in a line of `key=value` pairs.
pub fn value<'a>(line: &'a str, key: &str) -> &'a str {
    let mut pairs = line.split(' ').filter_map(|pair| pair.split_once('='));
    pairs.find(|(name, _)| *name == key).unwrap_or_else(|| panic!("no {key} in {line}")).1
}

pub fn is_stats(line: &str) -> bool {
    line.contains(" stats pass=")
}

/// Every node of the network stands in the database as it is served, and no other row does.
pub fn check_map(database: &Database, simnet: &Simnet) {
    let sql = "SELECT host(host), port, protocol_version, user_agent, services, start_height, relay, species,
        status, last_outcome, failures FROM nodes ORDER BY host, port";
    let mut found: Vec<String> = database.rows(sql);
    let served = simnet.table("nodes.tsv");
    let or_null = |text: &str| if text.is_empty() { "-".to_owned() } else { text.to_owned() };
    let mut expected: Vec<String> = served
        .iter()
        .map(|node| {
            [
                node["host"].clone(),
                node["port"].clone(),
                node["protocol_version"].clone(),
                node["user_agent"].clone(),
                node["services"].clone(),
                or_null(&node["start_height"]),
                or_null(&node["relay"]),
                node["species"].clone(),
                "up|responded|0".to_owned(),
            ]
            .join("|")
        })
        .collect();
    found.sort();
    expected.sort();
    let missing: Vec<&String> = expected.iter().filter(|row| !found.contains(row)).collect();
    let extra: Vec<&String> = found.iter().filter(|row| !expected.contains(row)).collect();
    assert!(missing.is_empty() && extra.is_empty(), "missing {missing:#?}, extra {extra:#?}");
}

/// The network has nothing to complain of, and met the crawler at most `each` times at each address.
pub fn check_manners(account: &Account, each: u64, max_sockets: u64) {
    assert_eq!(account.number("protocol_faults"), 0);
    assert_eq!(account.number("bans"), 0);
    assert_eq!(account.number("stray"), 0);
    assert!(account.number("most_connections_per_address") <= each);
    assert!(account.number("most_at_once") <= max_sockets);
    let commands: BTreeSet<&str> =
        account.figures.keys().filter_map(|key| key.strip_prefix("command.")).collect();
    assert_eq!(commands, BTreeSet::from(["getaddr", "verack", "version"]));
}

fn table(path: &Path) -> Vec<BTreeMap<String, String>> {
    let text = fs::read_to_string(path).unwrap();
    let mut lines = text.lines();
    let header: Vec<&str> = lines.next().unwrap().trim_start_matches("# ").split('\t').collect();
    let row = |line: &str| {
        let fields = line.split('\t').map(str::to_owned);
        header.iter().map(|name| (*name).to_owned()).zip(fields).collect()
    };
    lines.map(row).collect()
}

fn terminate(child: &Child) {
    let pid = child.id().to_string();
    assert!(Command::new("kill").args(["-TERM", &pid]).status().unwrap().success());
}

fn wait(child: &mut Child) -> ExitStatus {
    let begin = Instant::now();
    loop {
        if let Some(status) = child.try_wait().unwrap() {
            return status;
        }
        assert!(begin.elapsed() < PATIENCE, "process {} does not end", child.id());
        sleep(Duration::from_millis(20));
    }
}
