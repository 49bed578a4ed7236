//! `AfterPass`: runs `bitdash places` and `bitdash site` in processes of their own after each pass,
//! so that the crawler's memory does not grow.
//!
//! Invariants:
//! 1. Never two at once: where one still runs, the next pass has its turn.
//! 2. The event loop never waits for them, but at the end of a crawl of a number of passes.
//! 3. A warning is logged once, until it has gone and returned.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::{self, Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use crate::config::{Config, GeoConfig, GeoFile, URL_VARIABLE};
use crate::sys::child;

/// The program that runs, even if another one was installed in its place.
const OWN_PROGRAM: &str = "/proc/self/exe";
/// The commands.
const PLACES: Task = Task {
    name: "places",
    arguments: &["places"],
    limit: Duration::from_secs(120),
    last_limit: Duration::from_secs(8),
};
const SITE: Task = Task {
    name: "site",
    arguments: &["site", "--due"],
    limit: Duration::from_secs(600),
    last_limit: Duration::from_secs(30),
};
/// Maximum number of bytes of its messages. A pipe holds as many.
const MAX_MESSAGE_BYTES: u64 = 4_096;

/// A command that runs after a pass.
#[derive(Clone, Copy)]
struct Task {
    name: &'static str,
    arguments: &'static [&'static str],
    /// Maximum duration.
    limit: Duration,
    /// The same where the end of a crawl waits for it.
    last_limit: Duration,
}

impl Task {
    /// What is configured. The website shows the places.
    fn of(config: &Config) -> Vec<Self> {
        let GeoConfig { country_db, asn_db } = &config.geo;
        let has_places = [country_db, asn_db].into_iter().any(|file| *file != GeoFile::Nothing);
        let places = has_places.then_some(PLACES);
        places.into_iter().chain(config.site.dir.is_some().then_some(SITE)).collect()
    }
}

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
        self.start_with(config, |task| task.limit);
    }

    /// Starts a run for what the last pass has found.
    pub fn start_last(&mut self, config: &Config) {
        self.start_with(config, |task| task.last_limit);
    }

    /// Whether a run has not ended.
    pub fn is_running(&self) -> bool {
        self.running.as_ref().is_some_and(|running| !running.is_finished())
    }

    /// Kills it if it is running.
    pub fn cancel(&mut self) {
        self.is_cancelled.store(true, Ordering::Release);
        self.join();
    }

    fn start_with(&mut self, config: &Config, limit: fn(&Task) -> Duration) {
        let tasks = Task::of(config);
        if tasks.is_empty() {
            return;
        }
        if self.is_running() {
            log::debug!("after_pass error=\"the last run is still running\"");
            return;
        }
        self.join();
        let (text, url) = (own_configuration(config), config.database.url.expose().to_owned());
        let (said, is_cancelled) = (self.said.clone(), Arc::clone(&self.is_cancelled));
        let run_all = move || {
            let mut all = Vec::new();
            for task in tasks {
                let warnings = run(&task, &text, &url, limit(&task), &is_cancelled)
                    .unwrap_or_else(|error| vec![format!("cannot be run: {error}")]);
                // Quotes would end the value.
                let line = |warning: String| {
                    format!("{} error=\"{}\"", task.name, warning.replace('"', "'"))
                };
                all.extend(warnings.into_iter().map(line));
            }
            all.iter().filter(|line| !said.contains(line)).for_each(|line| log::warn!("{line}"));
            all
        };
        match thread::Builder::new().name("after_pass".into()).spawn(run_all) {
            Ok(running) => self.running = Some(running),
            Err(error) => log::warn!("after_pass error=\"cannot start a thread: {error}\""),
        }
    }

    fn join(&mut self) {
        if let Some(running) = self.running.take() {
            self.said = running.join().unwrap_or_default();
        }
    }
}

/// What the children need of the configuration in force: the file may have changed since.
fn own_configuration(config: &Config) -> String {
    let whole = |path: &PathBuf| path::absolute(path).unwrap_or_else(|_| path.clone());
    let absolute = |file: &GeoFile| match file {
        GeoFile::Path(path) => GeoFile::Path(whole(path)),
        other => other.clone(),
    };
    let GeoConfig { country_db, asn_db } = &config.geo;
    let mut own = Config {
        geo: GeoConfig { country_db: absolute(country_db), asn_db: absolute(asn_db) },
        crawl: config.crawl.clone(),
        network: config.network.clone(),
        filter: config.filter.clone(),
        site: config.site.clone(),
        ..Config::default()
    };
    own.crawl.nodes_file = whole(&own.crawl.nodes_file);
    own.filter.exclude_files = own.filter.exclude_files.iter().map(whole).collect();
    own.site.dir = own.site.dir.as_ref().map(whole);
    own.to_toml()
}

/// Runs the child and returns its warnings.
fn run(
    task: &Task,
    configuration: &str,
    url: &str,
    limit: Duration,
    is_cancelled: &AtomicBool,
) -> io::Result<Vec<String>> {
    let mut child = spawn(Path::new(OWN_PROGRAM), task.arguments, url)?;
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

fn spawn(program: &Path, arguments: &[&str], url: &str) -> io::Result<Child> {
    Command::new(program)
        .arg0("bitdash")
        .args(["-c", "/dev/stdin"])
        .args(arguments)
        .env(URL_VARIABLE, url)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .process_group(0)
        .spawn()
}
