//! Runs programs on a pseudo-terminal, with `script` of util-linux.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::faults::wait_until;

/// The command that runs `bitdash` on a terminal of this width, after the shell command `first`.
fn script(directory: &Path, columns: u16, first: &str, arguments: &str) -> Command {
    let program = env!("CARGO_BIN_EXE_bitdash");
    let line = format!("stty cols {columns} ixon; {first}; exec '{program}' {arguments}");
    let mut command = Command::new("script");
    command
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .current_dir(directory)
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .env_remove("BITDASH_DATABASE_URL");
    command
}

/// Runs `bitdash` on a terminal of this width, for at most `time`, and returns its output.
pub fn run(directory: &Path, columns: u16, arguments: &str, time: Duration) -> String {
    let mut child = script(directory, columns, ":", arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script of util-linux is installed");
    let mut out = child.stdout.take().unwrap();
    let reader = thread::spawn(move || {
        let mut bytes = Vec::new();
        out.read_to_end(&mut bytes).unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    });
    let begin = Instant::now();
    while child.try_wait().unwrap().is_none() && begin.elapsed() < time {
        thread::sleep(Duration::from_millis(20));
    }
    // Closing the terminal ends the program, too.
    let _ = child.kill();
    let _ = child.wait();
    reader.join().unwrap()
}

/// `bitdash` on a terminal with a keyboard.
pub struct Terminal {
    script: Child,
    keys: ChildStdin,
    shown: PathBuf,
    pid: String,
}

impl Terminal {
    /// Starts `bitdash` with these arguments.
    pub fn start(directory: &Path, arguments: &str) -> Self {
        let (shown, pid) = (directory.join("shown"), directory.join("pid"));
        let _ = fs::remove_file(&pid);
        let mut script = script(directory, 80, "echo $$ >pid", arguments)
            .stdin(Stdio::piped())
            .stdout(File::create(&shown).unwrap())
            .spawn()
            .expect("script of util-linux is installed");
        let keys = script.stdin.take().unwrap();
        let read = || fs::read_to_string(&pid).unwrap_or_default();
        wait_until("bitdash starts", Duration::from_secs(20), || read().ends_with('\n'));
        let pid = read().trim().to_owned();
        Self { script, keys, shown, pid }
    }

    /// The output so far.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.shown).unwrap()).into_owned()
    }

    /// Sends Ctrl-S: the output stops, and writers block.
    pub fn pause(&mut self) {
        self.keys.write_all(b"\x13").unwrap();
    }

    /// Closes the terminal, as a lost ssh session does.
    pub fn close(&mut self) {
        self.script.kill().unwrap();
        self.script.wait().unwrap();
    }

    /// Whether the program runs.
    pub fn is_running(&self) -> bool {
        Path::new("/proc").join(&self.pid).join("exe").exists()
    }

    /// Sends SIGTERM and returns how long the program took to exit.
    pub fn stop(&self, timeout: Duration) -> Duration {
        assert!(Command::new("kill").args(["-TERM", &self.pid]).status().unwrap().success());
        wait_until("bitdash exits", timeout, || !self.is_running())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // Closing the terminal would not end a program that is blocked on it.
        let _ = Command::new("kill").args(["-KILL", &self.pid]).stderr(Stdio::null()).status();
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}
