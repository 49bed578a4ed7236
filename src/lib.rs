//! bitdash: a Bitcoin network crawler.
//!
//! This package is the program: event loop, database, configuration and commands. All decisions are
//! made in `bitdash_core`; the wire protocol is in `watchglass`, the simulated network in
//! `bitdash_simnet`.

pub mod cli;
pub mod commands;
pub mod config;
pub mod db;
pub mod net;
pub mod places;
pub mod site;
pub mod snapshot;
pub mod sys;
