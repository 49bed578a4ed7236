//! Programs on a terminal of their own, by `script` of util-linux.

use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

/// Runs `bitdash` with these arguments on a terminal of 80 columns, at most for `time`, and gives what the
/// terminal got.
pub fn run(folder: &Path, arguments: &str, time: Duration) -> String {
    let program = env!("CARGO_BIN_EXE_bitdash");
    let line = format!("stty cols 80; exec '{program}' {arguments}");
    let mut child = Command::new("script")
        .args(["-q", "-e", "-c", &line, "/dev/null"])
        .current_dir(folder)
        .env("TERM", "xterm")
        .env("SHELL", "/bin/sh")
        .env_remove("BITDASH_DATABASE_URL")
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
