//! The outside world: sockets, the database, files, the clock, signals, the log.
//!
//! Layer 3 of the house. It uses what decides (`crawl`, `lookup`) and is used by `commands` alone.

pub mod clock;
pub mod config;
pub mod driver;
pub mod logging;
pub mod nodes_file;
pub mod process;
pub mod query;
pub mod resolve;
pub mod signal;
pub mod terminal;
mod text_file;
pub mod writer;
