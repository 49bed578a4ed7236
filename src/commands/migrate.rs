//! `bitdash migrate`: creates the schema or brings it up to date.
//!
//! Layer 4.

use crate::commands::{Failure, print};
use crate::io::config::ConfigSource;
use crate::io::query::PATIENCE;
use crate::io::writer::connect::connect_within;
use crate::io::writer::{StoreError, schema};

/// Brings the schema of the configured database to the version of this program, and prints what was done.
///
/// # Errors
/// The configuration is wrong; the database is away, refuses, or holds a newer schema.
pub fn run(source: &ConfigSource) -> Result<(), Failure> {
    let config = source.load()?;
    let done = migrate(config.database.url.expose()).map_err(|error| Failure::failed(&error))?;
    print(&format!("{done}\n"))
}

/// Creates or upgrades the schema of the database that `url` names; the result is a sentence.
///
/// # Errors
/// The database is away, refuses, or holds a newer schema.
pub fn migrate(url: &str) -> Result<String, StoreError> {
    let mut client = connect_within(url, PATIENCE)?;
    let done = schema::migrate(&mut client)?;
    Ok(match (done.from, done.to) {
        (0, to) => format!("created the schema, version {to}"),
        (from, to) if from == to => format!("the schema is up to date, version {to}"),
        (from, to) => format!("upgraded the schema from version {from} to {to}"),
    })
}
