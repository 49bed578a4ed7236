//! Programs on a terminal of their own, by `script` of util-linux.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::faults::wait_until;

/// `bitdash` with these arguments on a terminal of 80 columns, after a line of the shell.
fn script(folder: &Path, first: &str, arguments: &str) -> Command {
    let program = env!("CARGO_BIN_EXE_bitdash");
    let line = format!("stty cols 80 ixon; {first}; exec '{program}' {arguments}");
    let mut command = Command::new("script");
    command
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .current_dir(folder)
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .env_remove("BITDASH_DATABASE_URL");
    command
}

/// Runs `bitdash` with these arguments on a terminal of 80 columns, at most for `time`, and gives what the
/// terminal got.
pub fn run(folder: &Path, arguments: &str, time: Duration) -> String {
    let mut child = script(folder, ":", arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .spawn()
        .expect("script of util-linux is there");
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
    // The terminal hangs up, which ends the program too.
    let _ = child.kill();
    let _ = child.wait();
    reader.join().unwrap()
}

/// `bitdash` on a terminal that has a keyboard.
pub struct Terminal {
    script: Child,
    keys: ChildStdin,
    shown: PathBuf,
    pid: String,
}

impl Terminal {
    /// Starts it with these arguments.
    pub fn start(folder: &Path, arguments: &str) -> Self {
        let (shown, pid) = (folder.join("shown"), folder.join("pid"));
        let _ = fs::remove_file(&pid);
        let mut script = script(folder, "echo $$ >pid", arguments)
            .stdin(Stdio::piped())
            .stdout(File::create(&shown).unwrap())
            .spawn()
            .expect("script of util-linux is there");
        let keys = script.stdin.take().unwrap();
        let read = || fs::read_to_string(&pid).unwrap_or_default();
        wait_until("it starts", Duration::from_secs(20), || read().ends_with('\n'));
        let pid = read().trim().to_owned();
        Self { script, keys, shown, pid }
    }

    /// What it has shown so far.
    pub fn shown(&self) -> String {
        String::from_utf8_lossy(&fs::read(&self.shown).unwrap()).into_owned()
    }

    /// Ctrl-S: it shows nothing more, and whoever writes to it waits.
    pub fn hold(&mut self) {
        self.keys.write_all(b"\x13").unwrap();
    }

    /// SIGTERM to the program; gives how long it took to end.
    pub fn stop(&self, patience: Duration) -> Duration {
        assert!(Command::new("kill").args(["-TERM", &self.pid]).status().unwrap().success());
        let proc = Path::new("/proc").join(&self.pid).join("exe");
        wait_until("it ends", patience, || !proc.exists())
    }
}

impl Drop for Terminal {
    fn drop(&mut self) {
        // The terminal hangs up, which ends the program too, unless it is held: then this does.
        let _ = Command::new("kill").args(["-KILL", &self.pid]).stderr(Stdio::null()).status();
        let _ = self.script.kill();
        let _ = self.script.wait();
    }
}
