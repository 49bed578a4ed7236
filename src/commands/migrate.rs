//! `bitdash migrate`: creates or upgrades the schema.

use crate::commands::{Failure, print};
use crate::config::ConfigSource;
use crate::db::connect::connect_within;
use crate::db::reader::TIMEOUT;
use crate::db::{StoreError, schema};

/// Creates or upgrades the schema of the configured database, and prints what it did.
///
/// # Errors
/// The configuration is wrong; the database is away, refuses the connection, or has a newer schema.
pub fn run(source: &ConfigSource) -> Result<(), Failure> {
    let config = source.load()?;
    let done = migrate(config.database.url.expose());
    let done = done.map_err(|error| Failure::of_store(&error, source, &config))?;
    print(&format!("{done}\n"))
}

/// Creates or upgrades the schema of the database that `url` names. Returns a sentence.
///
/// # Errors
/// The database is away, refuses the connection, or has a newer schema.
pub fn migrate(url: &str) -> Result<String, StoreError> {
    let mut client = connect_within(url, TIMEOUT)?;
    let done = schema::migrate(&mut client)?;
    Ok(match (done.from, done.to) {
        (0, to) => format!("created the schema, version {to}"),
        (from, to) if from == to => format!("the schema is up to date, version {to}"),
        (from, to) => format!("upgraded the schema from version {from} to {to}"),
    })
}
