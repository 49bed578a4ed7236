//! `AfterPass`: runs `bitdash places` in a process of its own after each pass, so that the
//! crawler's memory does not grow.
//!
//! Invariants:
//! 1. Never two at once: where one still runs, the next pass has its turn.
//! 2. The event loop never waits for it, but at the end of a crawl of a number of passes.
//! 3. A warning is logged once, until it has gone and returned.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{self, Path};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::config::{Config, GeoConfig, GeoFile, URL_VARIABLE};
use crate::sys::child;

/// The program that runs, even if another one was installed in its place.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// Maximum duration of a run, and of one that the end of a crawl waits for.
const MAX_RUN: Duration = Duration::from_secs(120);
const MAX_LAST_RUN: Duration = Duration::from_secs(8);
/// Maximum number of bytes of its messages. A pipe holds as many.
const MAX_MESSAGE_BYTES: u64 = 4_096;

/// What runs after a pass.
#[derive(Default)]
pub struct AfterPass {
    running: Option<JoinHandle<Vec<String>>>,
    is_cancelled: Arc<AtomicBool>,
    /// Warnings of the last run.
    said: Vec<String>,
}

impl AfterPass {
    /// Starts a run, unless the last one is still running or nothing is configured.
    pub fn start(&mut self, config: &Config) {
        self.start_with(config, MAX_RUN);
    }

    /// Runs it once more, for what the last pass has found, and waits for it.
    pub fn finish(&mut self, config: &Config) {
        self.join();
        self.start_with(config, MAX_LAST_RUN);
        self.join();
    }

    /// Kills it if it is running.
    pub fn cancel(&mut self) {
        self.is_cancelled.store(true, Ordering::Release);
        self.join();
    }

    fn start_with(&mut self, config: &Config, limit: Duration) {
        let GeoConfig { country_db, asn_db } = &config.geo;
        if [country_db, asn_db].into_iter().all(|file| *file == GeoFile::Nothing) {
            return;
        }
        if self.running.as_ref().is_some_and(|running| !running.is_finished()) {
            log::debug!("places error=\"the last run is still running\"");
            return;
        }
        self.join();
        let (text, url) = (own_configuration(config), config.database.url.expose().to_owned());
        let (said, is_cancelled) = (self.said.clone(), Arc::clone(&self.is_cancelled));
        let run = move || {
            let warnings = run(&text, &url, limit, &is_cancelled)
                .unwrap_or_else(|error| vec![format!("cannot be run: {error}")]);
            for warning in warnings.iter().filter(|warning| !said.contains(warning)) {
                // Quotes would end the value.
                log::warn!("places error=\"{}\"", warning.replace('"', "'"));
            }
            warnings
        };
        match thread::Builder::new().name("places".into()).spawn(run) {
            Ok(running) => self.running = Some(running),
            Err(error) => log::warn!("places error=\"cannot start a thread: {error}\""),
        }
    }

    fn join(&mut self) {
        if let Some(running) = self.running.take() {
            self.said = running.join().unwrap_or_default();
        }
    }
}

/// What the child needs of the configuration in force: the file may have changed since.
fn own_configuration(config: &Config) -> String {
    let absolute = |file: &GeoFile| match file {
        GeoFile::Path(path) => GeoFile::Path(path::absolute(path).unwrap_or_else(|_| path.clone())),
        other => other.clone(),
    };
    let GeoConfig { country_db, asn_db } = &config.geo;
    let geo = GeoConfig { country_db: absolute(country_db), asn_db: absolute(asn_db) };
    Config { geo, ..Config::default() }.to_toml()
}

/// Runs the child and returns its warnings.
fn run(
    configuration: &str,
    url: &str,
    limit: Duration,
    is_cancelled: &AtomicBool,
) -> io::Result<Vec<String>> {
    let mut child = spawn(Path::new(OWN_PROGRAM), url)?;
    child::lower_priority(&child);
    if let Some(mut stdin) = child.stdin.take() {
        // It has room in the pipe. A child that is gone tells why.
        let _ = stdin.write_all(configuration.as_bytes());
    }
    let status = child::wait(&mut child, limit, is_cancelled)?;
    let mut text = Vec::new();
    if let Some(stderr) = child.stderr.take() {
        stderr.take(MAX_MESSAGE_BYTES).read_to_end(&mut text)?;
    }
    let text = String::from_utf8_lossy(&text);
    let mut warnings: Vec<String> = text
        .lines()
        .map(|line| line.strip_prefix("bitdash: ").unwrap_or(line).to_owned())
        .collect();
    match status {
        Some(status) if !status.success() && warnings.is_empty() => {
            warnings.push(status.to_string());
        }
        None if !is_cancelled.load(Ordering::Acquire) => {
            warnings.push(format!("killed after {} s", limit.as_secs()));
        }
        _ => {}
    }
    Ok(warnings)
}

fn spawn(program: &Path, url: &str) -> io::Result<Child> {
    Command::new(program)
        .arg0("bitdash")
        .args(["-c", "/dev/stdin", "places"])
        .env(URL_VARIABLE, url)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}
