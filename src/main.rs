//! The `bitdash` command: reads the arguments, and turns what comes back into an exit status.

use std::process::ExitCode;

use bitdash::commands::{cli, note};

/// What was logged is written before the process ends, however it ends.
struct Flush;

impl Drop for Flush {
    fn drop(&mut self) {
        log::logger().flush();
    }
}

fn main() -> ExitCode {
    let flush = Flush;
    let result = cli::run(std::env::args_os());
    // Its lines come first: they may go to the same place. Once, since a log that hangs takes a second of the ten
    // within which a stop is promised.
    drop(flush);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(&failure.to_string());
            ExitCode::from(failure.exit_status())
        }
    }
}
