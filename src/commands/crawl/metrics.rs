//! The metrics file (`log.metrics_file`), which Prometheus' node_exporter reads.
//!
//! Shell. A thread of its own writes the file, so that a slow disk does not hold up the event loop.
//! Invariants: 1. a reader sees a whole file or none; 2. a file that cannot be written is one
//! warning, whatever the number of attempts; 3. a file that is configured no more is removed, so
//! that no value is exported twice; 4. the last file stays when the crawler exits: its age and the
//! time of the last pass raise the alarm.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use crate::db::writer::store::FinishedPass;
use crate::sys::process::{cpu_time, resident_bytes};
use crate::sys::text_file;
use bitdash_core::schedule::crawler::Crawler;
use bitdash_core::schedule::stats::Limit;
use bitdash_core::vocabulary::time::Now;

/// Maximum time for the last write. A stop has ten seconds, and its other parts take most of them.
const FINISH_TIMEOUT: Duration = Duration::from_millis(200);

/// Writes the metrics of a crawl.
#[derive(Debug, Default)]
pub struct Metrics {
    thread: Option<Thread>,
    /// Nodes up by species: one that is gone stays with 0.
    up: BTreeMap<String, u64>,
}

#[derive(Debug)]
struct Thread {
    /// The newest order, which replaces one that the disk was too slow for.
    order: Arc<Mutex<Option<Order>>>,
    waker: SyncSender<()>,
    /// Disconnected once the thread has ended.
    end: Receiver<()>,
}

/// What the file must contain; without a path there is none.
#[derive(Debug)]
struct Order {
    path: Option<PathBuf>,
    text: String,
}

impl Metrics {
    /// Replaces the file. `finished` is `None` before the database was read.
    pub fn write(
        &mut self,
        path: Option<&Path>,
        crawler: &Crawler,
        max_sockets: usize,
        finished: Option<&FinishedPass>,
        now: Now,
    ) {
        if path.is_none() && self.thread.is_none() {
            return;
        }
        self.up.values_mut().for_each(|nodes| *nodes = 0);
        self.up.extend(finished.iter().flat_map(|pass| pass.up.iter().cloned()));
        let known = finished.map(|pass| (pass, &self.up));
        let text = text(crawler, max_sockets, known, now);
        let order = Order { path: path.map(Path::to_owned), text };
        if self.thread.is_none() {
            self.thread =
                Thread::start().inspect_err(|error| log::warn!("metrics error=\"{error}\"")).ok();
        }
        if let Some(thread) = &self.thread {
            *lock(&thread.order) = Some(order);
            // Where this fails, the thread has not taken the former order yet.
            let _ = thread.waker.try_send(());
        }
    }

    /// Waits for the last write.
    pub fn finish(&mut self) {
        if let Some(Thread { waker, end, .. }) = self.thread.take() {
            drop(waker);
            if end.recv_timeout(FINISH_TIMEOUT) == Err(RecvTimeoutError::Timeout) {
                log::warn!("metrics error=\"the disk is too slow: the last values are missing\"");
            }
        }
    }
}

impl Thread {
    fn start() -> io::Result<Self> {
        let (waker, wakes) = mpsc::sync_channel(1);
        let (ended, end) = mpsc::sync_channel(1);
        let order = Arc::default();
        let orders = Arc::clone(&order);
        thread::Builder::new().name("metrics".into()).spawn(move || {
            serve(&wakes, &orders);
            drop(ended);
        })?;
        Ok(Self { order, waker, end })
    }
}

fn lock(order: &Mutex<Option<Order>>) -> MutexGuard<'_, Option<Order>> {
    order.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(wakes: &Receiver<()>, orders: &Mutex<Option<Order>>) {
    let mut file: Option<PathBuf> = None;
    let mut has_failed = false;
    while wakes.recv().is_ok() {
        let Some(Order { path, text }) = lock(orders).take() else { continue };
        if path != file {
            if let Some(file) = &file {
                let _ = fs::remove_file(file);
            }
            (file, has_failed) = (path, false);
        }
        let Some(path) = &file else { continue };
        match replace(path, &text) {
            Ok(()) if has_failed => {
                log::warn!("metrics file={} state=written", path.display());
                has_failed = false;
            }
            Ok(()) => {}
            Err(_) if has_failed => {}
            Err(error) => {
                let (path, why) = (path.display(), text_file::cause(&error));
                log::warn!("metrics file={path} error=\"cannot be written: {why}\"");
                has_failed = true;
            }
        }
    }
}

/// Replaces a file. It is not synced: a file that a power cut destroyed is rewritten soon.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let mut temporary = path.as_os_str().to_owned();
    temporary.push(".tmp");
    // Of a former process; a symbolic link is not followed.
    let _ = fs::remove_file(&temporary);
    let mut file = File::create_new(&temporary)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| fs::rename(&temporary, path));
    written.inspect_err(|_| drop(fs::remove_file(&temporary)))
}

/// The text of the file. Values from the database are left out before it was read.
fn text(
    crawler: &Crawler,
    max_sockets: usize,
    known: Option<(&FinishedPass, &BTreeMap<String, u64>)>,
    now: Now,
) -> String {
    let mut out = Exposition::default();
    out.family("bitdash_build_info", "gauge", "Constant 1, labelled with the version.");
    out.labelled("version", [(version(), 1)]);
    out.gauge("bitdash_sockets", "Open sockets.", crawler.open());
    out.gauge("bitdash_max_sockets", "Maximum number of open sockets.", max_sockets);
    let help = "Addresses still to be dialled in this pass.";
    out.gauge("bitdash_queue_addresses", help, crawler.queue_len());
    let help = "Probes ended since the start of the process, by outcome.";
    out.family("bitdash_probes_total", "counter", help);
    out.labelled("outcome", crawler.outcomes().map(|(outcome, count)| (outcome.as_str(), count)));
    let help = "Results waiting for the database.";
    out.gauge("bitdash_writer_queue_results", help, crawler.unacked());
    let help = "Whether the database took the last batch.";
    out.gauge("bitdash_database_up", help, u8::from(crawler.is_db_up()));
    let help = "Whether our own connection to the network is up.";
    out.gauge("bitdash_uplink_up", help, u8::from(crawler.is_uplink_up()));
    out.family("bitdash_limit", "gauge", "What limits the crawl: 1 for the cause in force.");
    let limits = [Limit::None, Limit::Sockets, Limit::Rate, Limit::Writer, Limit::Uplink];
    let limit = crawler.limit(now);
    out.labelled("cause", limits.map(|cause| (cause.as_str(), u8::from(cause == limit))));
    if let Some(bytes) = resident_bytes() {
        out.gauge("bitdash_resident_memory_bytes", "Resident memory of the crawler.", bytes);
    }
    if let Some(time) = cpu_time() {
        let name = "bitdash_cpu_seconds_total";
        out.family(name, "counter", "Processor time used by the crawler.");
        out.sample(time.as_secs_f64());
    }
    if let Some((pass, up)) = known {
        add_known(&mut out, crawler, pass, up);
    }
    out.text
}

/// What is known from the database.
fn add_known(
    out: &mut Exposition,
    crawler: &Crawler,
    last: &FinishedPass,
    up: &BTreeMap<String, u64>,
) {
    out.family("bitdash_known_addresses", "gauge", "Known addresses, by kind.");
    let totals = crawler.totals();
    out.labelled("kind", [("node", totals.nodes), ("candidate", totals.candidates)]);
    let help = "Nodes up at the end of the last finished pass, by species.";
    out.family("bitdash_nodes_up", "gauge", help);
    out.labelled("species", up.iter().map(|(species, nodes)| (species.as_str(), *nodes)));
    let running = crawler.counters().pass;
    let pass = if running > 0 { running } else { last.pass };
    out.gauge("bitdash_pass", "Number of the running or last pass; 0 before the first.", pass);
    let help = "When the last finished pass ended; 0 before the first.";
    let finished_at =
        Duration::from_micros(u64::try_from(last.finished_at.as_micros()).unwrap_or(0));
    out.gauge("bitdash_last_pass_finished_timestamp_seconds", help, finished_at.as_secs_f64());
    let help = "Duration of the last finished pass, interruptions included.";
    out.gauge("bitdash_last_pass_duration_seconds", help, last.duration.as_secs_f64());
}

fn version() -> &'static str {
    env!("BITDASH_VERSION").split(' ').next().unwrap_or_default()
}

/// Prometheus' text format: families, each with its samples.
#[derive(Default)]
struct Exposition {
    text: String,
    name: &'static str,
}

impl Exposition {
    /// Begins a family of this type.
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.name = name;
        let _ = write!(self.text, "# HELP {name} {help}\n# TYPE {name} {kind}\n");
    }

    fn sample(&mut self, value: impl Display) {
        let _ = writeln!(self.text, "{} {value}", self.name);
    }

    /// A sample for each value of a label.
    fn labelled<'v, V: Display>(
        &mut self,
        label: &str,
        samples: impl IntoIterator<Item = (&'v str, V)>,
    ) {
        for (word, value) in samples {
            let word = word.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = writeln!(self.text, "{}{{{label}=\"{word}\"}} {value}", self.name);
        }
    }

    /// A family with one sample.
    fn gauge(&mut self, name: &'static str, help: &str, value: impl Display) {
        self.family(name, "gauge", help);
        self.sample(value);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::commands::crawl::params::Params;
    use crate::config::Config;
    use bitdash_core::lookup::species::Rules;
    use bitdash_core::vocabulary::filter::Filter;
    use bitdash_core::vocabulary::time::UnixTime;

    const NOW: Now = Now { mono: Duration::from_secs(100), wall: UnixTime::from_secs(0) };

    fn crawler() -> Crawler {
        let params = Params::new(&Config::default(), Filter::new(&[], &[]), Rules::builtin(), 50);
        Crawler::new(params.crawler, None, 1)
    }

    #[test]
    fn nothing_is_said_of_a_database_that_was_not_read() {
        let (crawler, up) = (crawler(), BTreeMap::from([("A\"\\\nB".to_owned(), 3)]));
        let before = text(&crawler, 50, None, NOW);
        assert!(before.contains("\nbitdash_database_up 0\n"), "{before}");
        assert!(!before.contains("known") && !before.contains("pass_finished"), "{before}");
        let pass = FinishedPass {
            pass: 7,
            finished_at: UnixTime::from_micros(1_795_870_396_250_000),
            duration: Duration::from_millis(138_200),
            up: Vec::new(),
        };
        let after = text(&crawler, 50, Some((&pass, &up)), NOW);
        for line in [
            "bitdash_nodes_up{species=\"A\\\"\\\\\\nB\"} 3",
            "bitdash_pass 7",
            "bitdash_last_pass_finished_timestamp_seconds 1795870396.25",
            "bitdash_last_pass_duration_seconds 138.2",
        ] {
            assert!(after.lines().any(|own| own == line), "{line}: {after}");
        }
    }

    #[test]
    fn a_species_that_is_gone_stays_with_0() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("bitdash.prom");
        let mut metrics = Metrics::default();
        let up = |species: &str| vec![(species.to_owned(), 5)];
        for up in [up("TRB"), up("Core")] {
            let pass = FinishedPass { up, ..FinishedPass::default() };
            metrics.write(Some(&path), &crawler(), 50, Some(&pass), NOW);
            metrics.finish();
        }
        let text = fs::read_to_string(&path).unwrap();
        let nodes = "bitdash_nodes_up{species=\"Core\"} 5\nbitdash_nodes_up{species=\"TRB\"} 0\n";
        assert!(text.contains(nodes), "{text}");
    }

    #[test]
    fn a_file_is_replaced_whole_and_a_link_in_its_way_is_not_followed() {
        let directory = tempfile::tempdir().unwrap();
        let names = ["a.prom", "a.prom.tmp", "target"];
        let [path, temporary, target] = names.map(|name| directory.path().join(name));
        fs::write(&target, "kept").unwrap();
        std::os::unix::fs::symlink(&target, &temporary).unwrap();
        replace(&path, "one\n").unwrap();
        replace(&path, "two\n").unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "two\n");
        assert_eq!(fs::read_to_string(&target).unwrap(), "kept");
        assert!(!temporary.exists());
        assert!(replace(&directory.path().join("missing/a.prom"), "").is_err());
        assert!(replace(directory.path(), "").is_err());
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }
}
