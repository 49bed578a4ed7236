//! Runs `bitdash probe` and `bitdash poll` in a directory with a configuration.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A directory with a configuration that only permits loopback.
pub struct Directory(TempDir);

impl Directory {
    /// Timeouts: 400 ms for the connection, 3 s for `version`, 4 s for peers.
    pub fn new() -> Self {
        Self::with_timeouts("400ms", "3s", "4s", "300ms")
    }

    /// Timeouts for the connection, `version` and peers, and the silence that ends a reply.
    pub fn with_timeouts(connect: &str, handshake: &str, addr: &str, quiet: &str) -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        let config = format!(
            "[crawl]\nmax_sockets = 200\nconnect_timeout = \"{connect}\"\nhandshake_timeout = \"{handshake}\"\n\
             addr_timeout = \"{addr}\"\naddr_quiet = \"{quiet}\"\n[filter]\nonly = [\"127.0.0.0/8\"]\n"
        );
        directory.write("bitdash.toml", &config);
        directory
    }

    pub fn write(&self, name: &str, text: &str) -> PathBuf {
        let path = self.0.path().join(name);
        fs::write(&path, text).unwrap();
        path
    }

    pub fn command(&self, arguments: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_bitdash"));
        command.current_dir(self.0.path()).args(arguments).env_remove("BITDASH_DATABASE_URL");
        command.stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> Ran {
        Ran::of(&self.command(arguments).output().unwrap())
    }

    /// Runs it on a terminal for at most `time` and returns the output.
    pub fn run_on_terminal(&self, arguments: &str, time: Duration) -> String {
        super::terminal::run(self.0.path(), 80, arguments, time)
    }
}

/// The result of a program.
pub struct Ran {
    pub status: i32,
    pub out: String,
    pub err: String,
}

impl Ran {
    pub fn of(output: &Output) -> Self {
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        let status = output.status.code().expect("not killed");
        Self { status, out: text(&output.stdout), err: text(&output.stderr) }
    }

    pub fn json(&self) -> Vec<Value> {
        let line =
            |line: &str| serde_json::from_str(line).unwrap_or_else(|e| panic!("{e}: {line}"));
        self.out.lines().map(line).collect()
    }
}
