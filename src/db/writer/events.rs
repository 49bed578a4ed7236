//! Events: what happened to TRB and named nodes, and the operator's program that is told.
//!
//! The program runs beside the crawl: one process at a time, on a thread of its own, killed after
//! `MAX_RUN`. Its arguments are text of nodes, but no shell reads them. The newest events are
//! left out, with a warning, where it is too slow for them. At the end of the crawl the shell waits
//! for [`PendingEvents`] as long as it may, and says how many are left out.

use std::ffi::OsStr;
use std::net::IpAddr;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::thread;
use std::time::Duration;

use postgres::{Client, Error, Transaction};

use crate::sys::child;

/// A row of `events`, as the arguments of the program. Without a value an argument is empty.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Event {
    /// What happened.
    pub kind: String,
    /// HOST:PORT.
    pub address: String,
    /// The name from the nodes file.
    pub name: String,
    /// Status, user agent or species before.
    pub before: String,
    /// The same since.
    pub after: String,
}

/// Maximum number of events that are kept.
const MAX_EVENTS: i64 = 100_000;
/// Maximum number of events that wait for the program.
const MAX_WAITING: usize = 1_000;
/// Maximum duration of a run of the program.
const MAX_RUN: Duration = Duration::from_secs(30);

/// The events after this one, and the newest of all.
pub(super) fn newer_than(client: &mut Client, id: i64) -> Result<(i64, Vec<Event>), Error> {
    let sql =
        "SELECT id, kind, host, port, coalesce(name, ''), coalesce(before, ''), coalesce(after, '')
        FROM events WHERE id > $1 ORDER BY id";
    let (mut newest, mut events) = (id, Vec::new());
    for row in client.query(sql, &[&id])? {
        newest = row.try_get(0)?;
        let place: (Option<IpAddr>, Option<i32>) = (row.try_get(2)?, row.try_get(3)?);
        let address = match place {
            (Some(host), Some(port)) => format!("{host}:{port}"),
            _ => String::new(),
        };
        events.push(Event {
            kind: row.try_get(1)?,
            address,
            name: row.try_get(4)?,
            before: row.try_get(5)?,
            after: row.try_get(6)?,
        });
    }
    Ok((newest, events))
}

pub(super) fn remove_old(t: &mut Transaction) -> Result<(), Error> {
    let old = "DELETE FROM events WHERE id <= (SELECT max(id) FROM events) - $1";
    t.execute(old, &[&MAX_EVENTS])?;
    Ok(())
}

/// Runs the operator's program for events.
#[derive(Default)]
pub struct Programs {
    sender: Option<SyncSender<(PathBuf, Event)>>,
    pending: Arc<PendingEvents>,
}

/// Events that wait for the program or are its arguments now.
#[derive(Debug, Default)]
pub struct PendingEvents {
    count: AtomicUsize,
    is_cancelled: AtomicBool,
}

impl PendingEvents {
    /// Their number.
    pub fn count(&self) -> usize {
        self.count.load(Ordering::Acquire)
    }

    /// Kills the program and leaves the rest out.
    pub fn cancel(&self) {
        self.is_cancelled.store(true, Ordering::Release);
    }

    fn is_cancelled(&self) -> bool {
        self.is_cancelled.load(Ordering::Acquire)
    }
}

impl Programs {
    /// Counts the events in `pending`.
    pub fn new(pending: Arc<PendingEvents>) -> Self {
        Self { sender: None, pending }
    }

    /// Runs the program for each event, after those of before; returns at once.
    pub fn run(&mut self, program: &Path, events: Vec<Event>) {
        let mut left_out = 0;
        for event in events {
            let pending = Arc::clone(&self.pending);
            let Some(sender) = self.sender() else { return };
            pending.count.fetch_add(1, Ordering::AcqRel);
            if sender.try_send((program.to_owned(), event)).is_err() {
                pending.count.fetch_sub(1, Ordering::AcqRel);
                left_out += 1;
            }
        }
        if left_out > 0 {
            log::warn!("events exec={program:?} left_out={left_out} error=\"it is too slow\"");
        }
    }

    fn sender(&mut self) -> Option<&SyncSender<(PathBuf, Event)>> {
        if self.sender.is_none() {
            let (sender, receiver) = mpsc::sync_channel(MAX_WAITING);
            let pending = Arc::clone(&self.pending);
            let started = thread::Builder::new()
                .name("events".into())
                .spawn(move || serve(&receiver, &pending));
            match started {
                Ok(_) => self.sender = Some(sender),
                Err(error) => log::warn!("events error=\"cannot start a thread: {error}\""),
            }
        }
        self.sender.as_ref()
    }
}

fn serve(receiver: &Receiver<(PathBuf, Event)>, pending: &PendingEvents) {
    while let Ok((program, event)) = receiver.recv() {
        if !pending.is_cancelled() {
            run_for(&program, &event, pending);
        }
        pending.count.fetch_sub(1, Ordering::AcqRel);
    }
}

fn run_for(program: &Path, event: &Event, pending: &PendingEvents) {
    match run(program, event, MAX_RUN, pending) {
        Ok(Some(status)) if status.success() => {}
        Ok(Some(status)) => log::warn!("events exec={program:?} error=\"{status}\""),
        // The shell reports it.
        Ok(None) if pending.is_cancelled() => {}
        Ok(None) => {
            let limit = MAX_RUN.as_secs();
            log::warn!("events exec={program:?} error=\"killed after {limit} s\"");
        }
        Err(error) => log::warn!("events exec={program:?} error=\"{error}\""),
    }
}

/// Runs the program in a process group of its own; `None` if it had to be killed.
fn run(
    program: &Path,
    event: &Event,
    limit: Duration,
    pending: &PendingEvents,
) -> std::io::Result<Option<ExitStatus>> {
    let arguments = [&event.kind, &event.address, &event.name, &event.before, &event.after];
    let mut child = Command::new(program)
        .args(arguments.map(OsStr::new))
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .process_group(0)
        .spawn()?;
    child::wait(&mut child, limit, &pending.is_cancelled)
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    fn event(after: &str) -> Event {
        Event {
            kind: "agent".to_owned(),
            address: "127.0.0.1:8333".to_owned(),
            name: String::new(),
            before: "$(reboot); `x` \"".to_owned(),
            after: after.to_owned(),
        }
    }

    /// A script that was just written is "busy" while another test's fork holds it open.
    static ONE_AT_A_TIME: Mutex<()> = Mutex::new(());

    fn script(directory: &Path, text: &str) -> PathBuf {
        use std::os::unix::fs::PermissionsExt;
        let path = directory.join("program");
        std::fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[test]
    fn the_program_gets_the_texts_of_nodes_as_they_are() {
        let _alone = ONE_AT_A_TIME.lock();
        let directory = tempfile::tempdir().unwrap();
        let told = directory.path().join("told");
        let program =
            script(directory.path(), &format!("printf '%s|' \"$@\" > {}", told.display()));
        let status = run(&program, &event("-n *"), MAX_RUN, &PendingEvents::default()).unwrap();
        assert!(status.unwrap().success());
        let told = std::fs::read_to_string(told).unwrap();
        assert_eq!(told, "agent|127.0.0.1:8333||$(reboot); `x` \"|-n *|");
    }

    #[test]
    fn a_program_that_hangs_is_killed_with_its_children() {
        let _alone = ONE_AT_A_TIME.lock();
        let directory = tempfile::tempdir().unwrap();
        let pid = directory.path().join("pid");
        let program =
            script(directory.path(), &format!("sleep 300 & echo $! > {}; wait", pid.display()));
        let limit = Duration::from_millis(500);
        let status = run(&program, &event(""), limit, &PendingEvents::default()).unwrap();
        assert!(status.is_none());
        let pid = std::fs::read_to_string(pid).unwrap();
        let runs = || {
            let state = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
            state.is_ok_and(|state| !state.contains(") Z "))
        };
        // It sleeps for 300 s; the kernel delivers a signal to each process of a group in its turn.
        let is_gone = (0..500).any(|_| {
            let runs = runs();
            if runs {
                thread::park_timeout(Duration::from_millis(20));
            }
            !runs
        });
        assert!(is_gone, "its child runs on");
    }

    #[test]
    fn a_program_that_is_missing_is_an_error() {
        let pending = PendingEvents::default();
        assert!(run(Path::new("/nonexistent/program"), &event(""), MAX_RUN, &pending).is_err());
    }
}
