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
    let _flush = Flush;
    match cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            // Its lines come first: they may go to the same place.
            log::logger().flush();
            note(&failure.to_string());
            ExitCode::from(failure.exit_status())
        }
    }
}
