//! A private PostgreSQL cluster for tests: unix socket only, a fresh database per test.
//!
//! `Cluster::shared()` is one cluster for all tests of a process; a test that stops or kills the
//! server starts its own with `Cluster::start()`. A watcher process removes a cluster when the test
//! process exits, even after `kill -9`.

// Each test program uses a part of this module, and tests sleep.
#![allow(dead_code, clippy::disallowed_methods)]

pub mod crawl;
pub mod faults;
pub mod libloc;
pub mod measure;
pub mod namespace;
pub mod rows;
pub mod simulation;
pub mod terminal;
pub mod tools;

use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

use postgres::{Client, NoTls};

/// A PostgreSQL server with its own directory.
pub struct Cluster {
    directory: PathBuf,
    programs: PathBuf,
    /// The user to run it as if we are root: PostgreSQL refuses to run as root.
    run_as: Option<(u32, u32)>,
    watcher: Child,
    databases: AtomicU32,
}

/// A database of a cluster, owned by a role without special rights.
pub struct Database {
    pub url: String,
    pub name: String,
}

/// Waits for the test process to exit (its end of the pipe closes), then stops the server, frozen
/// or not, and removes the directory.
const WATCHER: &str = r#"
trap '' INT TERM HUP
read -r _
pid=$(head -n 1 "$1/data/postmaster.pid" 2>/dev/null)
if [ -n "$pid" ]; then
    kill -CONT "$pid" $(cat "/proc/$pid/task/$pid/children") 2>/dev/null
    kill -QUIT "$pid" 2>/dev/null
    for _ in $(seq 100); do kill -0 "$pid" 2>/dev/null || break; sleep 0.05; done
    kill -KILL "$pid" 2>/dev/null
fi
rm -rf "$1"
"#;

impl Cluster {
    pub fn shared() -> &'static Self {
        static SHARED: OnceLock<Cluster> = OnceLock::new();
        SHARED.get_or_init(Self::start)
    }

    pub fn start() -> Self {
        Self::start_in(&std::env::temp_dir())
    }

    pub fn start_in(parent: &Path) -> Self {
        Self::start_with(parent, "UTF8")
    }

    /// Starts a cluster whose databases have this encoding by default.
    pub fn start_with(parent: &Path, encoding: &str) -> Self {
        let programs = find_programs();
        let run_as = (id("-u", None) == 0).then(|| {
            let user = ["postgres", "nobody"].into_iter().find(|user| has_user(user));
            let user = user.expect("PostgreSQL does not run as root and there is no user postgres: scripts/test sets it up");
            (id("-u", Some(user)), id("-g", Some(user)))
        });
        let directory = make_directory(parent);
        if let Some((uid, gid)) = run_as {
            chown(&directory, Some(uid), Some(gid)).unwrap();
        }
        let watcher = Command::new("sh")
            .args(["-c", WATCHER, "watcher"])
            .arg(&directory)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .process_group(0)
            .spawn()
            .unwrap();
        let cluster = Self { directory, programs, run_as, watcher, databases: AtomicU32::new(0) };
        cluster.initialise(encoding);
        cluster.start_server();
        cluster.admin().batch_execute("CREATE ROLE bitdash LOGIN").unwrap();
        cluster
    }

    /// A fresh database, empty and without a schema.
    pub fn database(&self) -> Database {
        let name = format!("test_{}", self.databases.fetch_add(1, Ordering::Relaxed));
        let create = format!("CREATE DATABASE {name} OWNER bitdash TEMPLATE template0");
        let start = Instant::now();
        // Concurrent creations may conflict.
        while let Err(error) = self.admin().batch_execute(&create) {
            assert!(
                start.elapsed() < Duration::from_secs(20),
                "cannot create a database: {error:?}"
            );
            sleep(Duration::from_millis(50));
        }
        Database { url: self.url("bitdash", &name), name }
    }

    /// The URL of a database of this cluster for a role.
    pub fn url(&self, role: &str, database: &str) -> String {
        let directory = self.directory.display().to_string().replace('/', "%2F");
        format!("postgresql://{role}@/{database}?host={directory}")
    }

    /// A connection as superuser.
    pub fn admin(&self) -> Client {
        Client::connect(&self.url("postgres", "postgres"), NoTls).expect("the cluster answers")
    }

    /// Starts the server and waits until it answers.
    pub fn start_server(&self) {
        let start = Instant::now();
        loop {
            let log = self.directory.join("log");
            let output = self.run("pg_ctl", &["-D", "data", "-w", "-l", path(&log), "start"]);
            if output.status.success() {
                return;
            }
            // After a kill the old backends need a moment to exit.
            let log = fs::read_to_string(&log).unwrap_or_default();
            assert!(start.elapsed() < Duration::from_secs(20), "PostgreSQL does not start: {log}");
            sleep(Duration::from_millis(200));
        }
    }

    /// Stops the server as `systemctl stop` does: sessions are terminated.
    pub fn stop_server(&self) {
        let output = self.run("pg_ctl", &["-D", "data", "-w", "-m", "fast", "stop"]);
        assert!(output.status.success(), "{}", text(&output));
    }

    /// Kills the server as a power cut does.
    pub fn kill_server(&self) {
        let pid = self.postmaster();
        assert!(Command::new("kill").args(["-KILL", &pid]).status().unwrap().success());
        let start = Instant::now();
        while Path::new("/proc").join(&pid).exists() && start.elapsed() < Duration::from_secs(5) {
            sleep(Duration::from_millis(20));
        }
    }

    /// Freezes or thaws the postmaster: it accepts no connection, and closes none.
    pub fn freeze_server(&self, is_frozen: bool) {
        let signal = if is_frozen { "-STOP" } else { "-CONT" };
        let pid = self.postmaster();
        assert!(Command::new("kill").args([signal, &pid]).status().unwrap().success());
    }

    fn postmaster(&self) -> String {
        let file = fs::read_to_string(self.directory.join("data/postmaster.pid")).unwrap();
        file.lines().next().unwrap().to_owned()
    }

    fn initialise(&self, encoding: &str) {
        let options = [
            "-D",
            "data",
            "-U",
            "postgres",
            "-A",
            "trust",
            "-E",
            encoding,
            "--locale=C",
            "--no-sync",
        ];
        let output = self.run("initdb", &options);
        assert!(output.status.success(), "{}", text(&output));
        let file = self.directory.join("data/postgresql.conf");
        let mut config = fs::read_to_string(&file).unwrap();
        config.push_str(&format!(
            "listen_addresses = ''\nunix_socket_directories = '{}'\nfsync = off\nmax_connections = 60\n\
             shared_buffers = 64MB\nlc_messages = 'C'\n",
            self.directory.display()
        ));
        fs::write(&file, config).unwrap();
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Output {
        let mut command = Command::new(self.programs.join(program));
        command.args(arguments).current_dir(&self.directory).stdin(Stdio::null());
        if let Some((uid, gid)) = self.run_as {
            command.uid(uid).gid(gid);
        }
        if arguments.last() == Some(&"start") {
            // The server inherits them and would keep a pipe open.
            command.stdout(Stdio::null()).stderr(Stdio::null());
        }
        command.output().unwrap()
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        drop(self.watcher.stdin.take());
        let _ = self.watcher.wait();
    }
}

impl Database {
    /// A connection as the owner.
    pub fn client(&self) -> Client {
        Client::connect(&self.url, NoTls).expect("the cluster answers")
    }

    pub fn rows(&self, sql: &str) -> Vec<String> {
        rows(&mut self.client(), sql)
    }

    /// The only value of a query, as text.
    pub fn value(&self, sql: &str) -> String {
        self.rows(sql).concat()
    }
}

/// The rows of a query: values as text, columns separated by `|`, null as `-`.
pub fn rows(client: &mut Client, sql: &str) -> Vec<String> {
    let messages = client.simple_query(sql).unwrap_or_else(|error| panic!("{sql}: {error:?}"));
    let mut found = Vec::new();
    for message in messages {
        if let postgres::SimpleQueryMessage::Row(row) = message {
            let values: Vec<&str> = (0..row.len()).map(|i| row.get(i).unwrap_or("-")).collect();
            found.push(values.join("|"));
        }
    }
    found
}

/// The newest PostgreSQL in Debian's directories, else the one in PATH.
fn find_programs() -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let newest = versions
        .map(|entry| entry.path().join("bin"))
        .filter(|directory| directory.join("initdb").exists())
        .max_by_key(|directory| version_of(directory));
    let paths = std::env::var_os("PATH").unwrap_or_default();
    newest
        .or_else(|| {
            std::env::split_paths(&paths).find(|directory| directory.join("initdb").exists())
        })
        .expect("there is no PostgreSQL on this machine: scripts/test installs it")
}

fn version_of(programs: &Path) -> u32 {
    let directory = programs.parent().and_then(Path::file_name).unwrap_or_default();
    directory.to_string_lossy().parse().unwrap_or(0)
}

/// A directory whose path is short enough for a socket's name within 107 bytes.
fn make_directory(parent: &Path) -> PathBuf {
    let parent = if parent.as_os_str().len() <= 60 { parent } else { Path::new("/tmp") };
    tempfile::Builder::new().prefix("bitdash-pg-").tempdir_in(parent).unwrap().keep()
}

fn id(option: &str, user: Option<&str>) -> u32 {
    let output = Command::new("id").arg(option).args(user).output().unwrap();
    String::from_utf8_lossy(&output.stdout).trim().parse().unwrap()
}

fn has_user(user: &str) -> bool {
    Command::new("id").arg(user).output().is_ok_and(|output| output.status.success())
}

fn path(path: &Path) -> &str {
    path.to_str().expect("a temporary directory's path is text")
}

fn text(output: &Output) -> String {
    String::from_utf8_lossy(&output.stdout).into_owned() + &String::from_utf8_lossy(&output.stderr)
}
