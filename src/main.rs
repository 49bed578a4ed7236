//! The `bitdash` command: reads the arguments, and turns what comes back into an exit status.

use std::process::ExitCode;

use bitdash::commands::{cli, note};

fn main() -> ExitCode {
    match cli::run(std::env::args_os()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) => {
            note(&failure.to_string());
            ExitCode::from(failure.exit_status())
        }
    }
}
