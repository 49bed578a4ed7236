//! `bitdash migrate`: creates or upgrades the schema, and applies the rules of species.

use crate::commands::{Failure, print};
use crate::config::ConfigSource;
use crate::db::connect::connect_within;
use crate::db::reader::TIMEOUT;
use crate::db::{StoreError, schema, species};
use bitdash_core::lookup::species::Rules;

/// Creates or upgrades the schema of the configured database, applies the rules of species to its
/// nodes if asked to, and prints what it did.
///
/// # Errors
/// The configuration or species.toml is wrong; the database is away, refuses the connection, or has
/// a newer schema.
pub fn run(source: &ConfigSource, applies_species: bool) -> Result<(), Failure> {
    let config = source.load()?;
    // Before anything changes.
    let rules = applies_species.then(|| source.load_species()).transpose()?;
    let url = config.database.url.expose();
    let failed = |error| Failure::of_store(&error, source, &config);
    print(&format!("{}\n", migrate(url).map_err(failed)?))?;
    let Some(rules) = rules else { return Ok(()) };
    let done = apply_species(url, &rules.rules).map_err(failed)?;
    let origin = match &rules.file {
        Some(file) => file.display().to_string(),
        None => "the built-in rules".to_owned(),
    };
    print(&format!("{done} (by {origin})\n"))
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

/// Applies the rules to all nodes of the database that `url` names. Returns a sentence.
///
/// # Errors
/// The database is away, or refuses it.
pub fn apply_species(url: &str, rules: &Rules) -> Result<String, StoreError> {
    let mut client = connect_within(url, TIMEOUT)?;
    let applied = species::apply(&mut client, rules)?;
    Ok(match applied.note {
        Some(note) => note,
        None => format!("species rules: all of {} nodes are up to date", applied.nodes),
    })
}
