//! Waits for child processes with a bound on their time.

use std::io;
use std::process::{Child, ExitStatus};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group, setpriority_process};

/// Interval between looks at a child.
const POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Runs when nothing else wants the processor.
const LOWEST_PRIORITY: i32 = 19;

/// Waits for a child that leads a process group. After `limit`, or once `is_cancelled`, kills the
/// group and returns `None`.
///
/// # Errors
/// It cannot be waited for.
pub fn wait(
    child: &mut Child,
    limit: Duration,
    is_cancelled: &AtomicBool,
) -> io::Result<Option<ExitStatus>> {
    // A channel that stays silent is the clock.
    let (_sender, silence) = mpsc::channel::<()>();
    let mut waited = Duration::ZERO;
    while waited < limit && !is_cancelled.load(Ordering::Acquire) {
        if let Some(status) = child.try_wait()? {
            return Ok(Some(status));
        }
        let _ = silence.recv_timeout(POLL_INTERVAL);
        waited += POLL_INTERVAL;
    }
    if pid(child).is_none_or(|group| kill_process_group(group, Signal::KILL).is_err()) {
        let _ = child.kill();
    }
    child.wait()?;
    Ok(None)
}

/// Lets a child run when nothing else wants the processor.
pub fn lower_priority(child: &Child) {
    if let Err(error) = setpriority_process(pid(child), LOWEST_PRIORITY) {
        log::debug!("priority pid={} error=\"{error}\"", child.id());
    }
}

fn pid(child: &Child) -> Option<Pid> {
    i32::try_from(child.id()).ok().and_then(Pid::from_raw)
}
