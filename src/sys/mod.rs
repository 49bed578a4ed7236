//! The operating system: clock, signals, service manager, process limits, log and terminal.

pub mod atomic_file;
pub mod child;
pub mod clock;
pub mod log_line;
pub mod logging;
pub mod notify;
pub mod process;
pub mod signal;
pub mod terminal;
pub(crate) mod text_file;
