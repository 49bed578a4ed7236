//! `bitdash migrate`: creates the schema or brings it up to date.
//!
//! Layer 4.

use std::io::Write;

use crate::io::query::PATIENCE;
use crate::io::writer::connect::connect_within;
use crate::io::writer::{StoreError, schema};

/// Creates or upgrades the schema of the database that `url` names, and says to `out` what was done.
///
/// # Errors
/// Where the database is away, refuses, or holds a newer schema.
pub fn migrate(url: &str, out: &mut dyn Write) -> Result<(), StoreError> {
    let mut client = connect_within(url, PATIENCE)?;
    let done = schema::migrate(&mut client)?;
    let text = match (done.from, done.to) {
        (0, to) => format!("created the schema, version {to}"),
        (from, to) if from == to => format!("the schema is up to date, version {to}"),
        (from, to) => format!("upgraded the schema from version {from} to {to}"),
    };
    // It is done, whoever reads of it.
    let _ = writeln!(out, "{text}");
    Ok(())
}
