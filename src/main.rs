//! The `bitdash` command: runs the command line and returns an exit status.

use std::process::ExitCode;

use bitdash::{cli, commands::note};

/// Flushes the log when the process ends, also by a panic.
struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        log::logger().flush();
    }
}

fn main() -> ExitCode {
    let flush = Flush;
    let result = cli::run(std::env::args_os());
    // Flush first: the log may share stderr with the note below. Only once: a blocked log costs one
    // of the ten seconds within which a stop is promised.
    drop(flush);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(&failure.to_string());
            ExitCode::from(failure.exit_status())
        }
    }
}
