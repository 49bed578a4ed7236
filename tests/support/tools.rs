//! `probe` and `poll` as a script runs them: a folder with a configuration, what they print, how they end.

use std::fs;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::time::Duration;

use serde_json::Value;
use tempfile::TempDir;

/// A folder with a configuration that leads nowhere but to loopback.
pub struct Folder(TempDir);

impl Folder {
    /// Time-outs of 400 ms to connect, 3 s for `version`, 4 s for peers.
    pub fn new() -> Self {
        Self::of_times("400ms", "3s", "4s", "300ms")
    }

    /// Other time-outs: to connect, for `version`, for peers, and the quiet that ends a reply.
    pub fn of_times(connect: &str, handshake: &str, addr: &str, quiet: &str) -> Self {
        let folder = Self(tempfile::tempdir().unwrap());
        let config = format!(
            "[crawl]\nmax_sockets = 200\nconnect_timeout = \"{connect}\"\nhandshake_timeout = \"{handshake}\"\n\
             addr_timeout = \"{addr}\"\naddr_quiet = \"{quiet}\"\n[filter]\nonly = [\"127.0.0.0/8\"]\n"
        );
        folder.write("bitdash.toml", &config);
        folder
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

    /// What a terminal got of it, within this time.
    pub fn run_on_terminal(&self, arguments: &str, time: Duration) -> String {
        super::terminal::run(self.0.path(), arguments, time)
    }
}

/// What a program left.
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
