//! The real programs as child processes: the simulated network and a crawl of it.
//!
//! Every configuration has `filter.only = ["127.0.0.0/8"]`: simulated peers advertise any address.

#![allow(clippy::disallowed_methods)] // tests sleep

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU16, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use bitdash_simnet::verify::truth::{self, Kind, Row};
use bitdash_simnet::verify::{self, Comparison};
use tempfile::TempDir;

use super::Database;

/// Maximum time for a log line or for the exit of a program.
const TIMEOUT: Duration = Duration::from_secs(120);

/// Path of `bitdash-simnet`. Cargo does not build another package's program for these tests.
fn simnet_program() -> &'static Path {
    static PROGRAM: OnceLock<PathBuf> = OnceLock::new();
    PROGRAM.get_or_init(|| {
        let directory = Path::new(env!("CARGO_BIN_EXE_bitdash")).parent().unwrap();
        let profile = match directory.file_name().unwrap().to_str().unwrap() {
            "debug" => "dev",
            profile => profile,
        };
        let status = Command::new(env!("CARGO"))
            .args(["build", "--quiet", "--locked", "--offline", "--profile", profile])
            .args(["--package", "bitdash-simnet", "--bin", "bitdash-simnet", "--manifest-path"])
            .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
            .status()
            .unwrap();
        assert!(status.success(), "bitdash-simnet does not build");
        directory.join("bitdash-simnet")
    })
}

/// A running `bitdash-simnet`.
pub struct Simnet {
    child: Child,
    pub dir: TempDir,
}

/// A port offset that concurrent tests are unlikely to use. Multiples of 187 share no port.
pub fn port_offset() -> u16 {
    static NEXT: AtomicU16 = AtomicU16::new(0);
    let own = (std::process::id() % 40) as u16 * 1_000;
    1_000 + own + NEXT.fetch_add(1, Ordering::Relaxed) * 187
}

impl Simnet {
    /// Starts a network with these additional arguments and waits until it is ready.
    pub fn start(args: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for _ in 0..20 {
            let mut child = Command::new(simnet_program())
                .arg("serve")
                .arg(dir.path())
                .args(["--port-offset", &port_offset().to_string()])
                .args(args)
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            BufReader::new(child.stdout.take().unwrap()).read_line(&mut line).unwrap();
            if line.starts_with("ready ") {
                return Self { child, dir };
            }
            // Another program uses one of the ports: try another offset.
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

    /// Runs `bitdash-simnet check` for a database.
    pub fn check(&self, database: &Database) -> Output {
        let mut command = Command::new(simnet_program());
        command.args(["check", &database.url]).arg(self.dir.path()).output().unwrap()
    }

    /// What a crawler must record of its addresses of this kind.
    pub fn truth(&self, kind: Kind) -> Vec<Row> {
        let mut rows = truth::read(self.dir.path()).unwrap();
        rows.retain(|row| row.kind == kind);
        rows
    }

    /// Stops the network and returns its report about the crawler.
    pub fn stop(mut self) -> Report {
        terminate(&self.child);
        assert!(wait(&mut self.child).success());
        let report = fs::read_to_string(self.dir.path().join("report.tsv")).unwrap();
        let pairs = report.lines().filter_map(|line| line.split_once('\t'));
        let figures = pairs.map(|(k, v)| (k.to_owned(), v.to_owned())).collect();
        Report { figures }
    }
}

impl Drop for Simnet {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The network's report about the crawler.
pub struct Report {
    pub figures: BTreeMap<String, String>,
}

impl Report {
    pub fn number(&self, key: &str) -> u64 {
        let value = self.figures.get(key).unwrap_or_else(|| panic!("no {key} in the report"));
        value.parse().unwrap_or_else(|_| panic!("{key} is {value}"))
    }
}

/// A crawl, or another command: a directory with its configuration and log.
pub struct Crawl {
    pub dir: TempDir,
    pub child: Option<Child>,
}

impl Crawl {
    /// Writes a configuration with a database and a nodes file; each of `lines` overrides or adds a
    /// `section.key = value`.
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
            // Otherwise what this machine has installed would be read after each pass.
            ("geo.country_db", "\"\"".into()),
            ("geo.asn_db", "\"\"".into()),
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

    /// Starts `bitdash crawl` with stderr appended to the log.
    pub fn start(&mut self, args: &[&str]) {
        let log = File::options().create(true).append(true).open(self.log_path()).unwrap();
        let mut command = self.command(&["crawl"]);
        self.child = Some(command.args(args).stderr(log).spawn().unwrap());
    }

    /// Starts the crawl and waits for its exit.
    pub fn run(&mut self, args: &[&str]) -> ExitStatus {
        self.start(args);
        self.wait()
    }

    pub fn wait(&mut self) -> ExitStatus {
        // `drop` kills the child if the wait panics.
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

    /// Waits for a log line that matches, and returns it.
    pub fn wait_for_log(&mut self, matches: impl Fn(&str) -> bool) -> String {
        let begin = Instant::now();
        loop {
            if let Some(line) = self.log().lines().find(|line| matches(line)) {
                return line.to_owned();
            }
            let ended = self.child.as_mut().and_then(|child| child.try_wait().unwrap());
            let waits = begin.elapsed() < TIMEOUT && ended.is_none();
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

/// No node is greeted first and asked for its peers by a second connection: each address is met
/// once.
pub const ASK_AT_ONCE: &str = "crawl.ask_share = 0";

/// Panics unless the database holds the map of the network.
pub fn check_map(database: &Database, simnet: &Simnet) -> Comparison {
    let comparison = verify::check(&database.url, simnet.dir.path()).unwrap();
    assert!(comparison.differences.is_empty(), "{comparison}");
    comparison
}

/// The network reports no protocol fault, at most `per_address` connections to each address, and at
/// most `max_sockets` at once.
pub fn check_conduct(report: &Report, per_address: u64, max_sockets: u64) {
    assert_eq!(report.number("protocol_faults"), 0);
    assert_eq!(report.number("bans"), 0);
    assert_eq!(report.number("stray"), 0);
    assert!(report.number("most_connections_per_address") <= per_address);
    assert!(report.number("most_at_once") <= max_sockets);
    let commands: BTreeSet<&str> =
        report.figures.keys().filter_map(|key| key.strip_prefix("command.")).collect();
    assert_eq!(commands, BTreeSet::from(["getaddr", "verack", "version"]));
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
        assert!(begin.elapsed() < TIMEOUT, "process {} does not end", child.id());
        sleep(Duration::from_millis(20));
    }
}
