//! The outside world: sockets, the database, files, the clock, signals, the log.
//!
//! Layer 3 of the house. It uses what decides (`crawl`, `lookup`) and is used by `commands` alone.

pub mod config;
pub mod driver;
pub mod query;
mod text_file;
pub mod writer;
