//! The schema's versions: the numbered files of `sql/`, and which of them a database has.
//!
//! Layer 3. Invariants: 1. a file that was ever released is never changed, only followed by another one;
//! 2. files are applied in order, each in a transaction of its own together with its record; 3. a schema
//! that is newer than this program is never written to.

use postgres::Client;

use super::error::StoreError;

/// One numbered file of `sql/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Migration {
    /// Its number; the schema's version once it is applied.
    pub version: i32,
    /// The file's name.
    pub name: &'static str,
    sql: &'static str,
}

/// Every file, in order.
pub const MIGRATIONS: &[Migration] = &[
    Migration { version: 1, name: "001_schema", sql: include_str!("../../../sql/001_schema.sql") },
    Migration {
        version: 2,
        name: "002_identity",
        sql: include_str!("../../../sql/002_identity.sql"),
    },
];

/// What a migration did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Migrated {
    /// The version that was found; 0 for an empty database.
    pub from: i32,
    /// The version now.
    pub to: i32,
}

/// Held while the schema changes, so that two programs that start at once do not meet. "bitdash" and 1.
const LOCK: i64 = 0x6269_7464_6173_6801;

const RECORD: &str = "CREATE TABLE IF NOT EXISTS schema_migrations (
    version    integer     PRIMARY KEY,
    name       text        NOT NULL,
    applied_at timestamptz NOT NULL DEFAULT now());
COMMENT ON TABLE schema_migrations IS 'Which files of sql/ were applied, and when.'";

/// The column that each file brought, for a database whose tables were all emptied by hand: what was applied is
/// recorded again.
const RECORD_AGAIN: &str = "INSERT INTO schema_migrations (version, name)
    SELECT v.version, v.name FROM (VALUES (1, '001_schema', 'only_row'), (2, '002_identity', 'identity'))
        v (version, name, brought)
    WHERE NOT EXISTS (SELECT FROM schema_migrations) AND EXISTS (SELECT FROM pg_attribute a
        WHERE a.attrelid = to_regclass('store_state') AND a.attname = v.brought)";

/// The version that this program knows.
pub fn known_version() -> i32 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// The database's version; 0 where no file was applied yet.
///
/// # Errors
/// Those of the connection.
pub fn version(client: &mut Client) -> Result<i32, StoreError> {
    read_version(client).map_err(|error| StoreError::of_statement(&error, client.is_closed()))
}

/// Applies what is missing. Without anything missing it needs no right beyond reading.
///
/// # Errors
/// Permanent where the schema is newer than this program or rights are missing; else the connection's.
pub fn migrate(client: &mut Client) -> Result<Migrated, StoreError> {
    let from = version(client)?;
    refuse_newer(from)?;
    let mut to = from;
    while to < known_version() {
        let applied = apply_next(client);
        to = applied.map_err(|error| StoreError::of_statement(&error, client.is_closed()))?;
        refuse_newer(to)?;
    }
    Ok(Migrated { from, to })
}

/// Checks that the database can be read by this program.
///
/// # Errors
/// Permanent where the schema is missing, older or newer; else the connection's.
pub fn check(client: &mut Client) -> Result<(), StoreError> {
    match version(client)? {
        0 => Err(StoreError::permanent(
            "the database holds no schema yet: \"bitdash migrate\" makes it, \"bitdash crawl\" fills it",
        )),
        found if found < known_version() => Err(StoreError::permanent(&format!(
            "the database's schema is version {found}, this bitdash knows {}: run \"bitdash migrate\"",
            known_version()
        ))),
        found => refuse_newer(found),
    }
}

fn refuse_newer(found: i32) -> Result<(), StoreError> {
    let known = known_version();
    if found <= known {
        return Ok(());
    }
    Err(StoreError::permanent(&format!(
        "the database's schema is version {found}, this bitdash knows {known}: upgrade bitdash, or use another database"
    )))
}

fn read_version(client: &mut impl postgres::GenericClient) -> Result<i32, postgres::Error> {
    let exists = "SELECT to_regclass('schema_migrations') IS NOT NULL";
    if !client.query_one(exists, &[])?.try_get(0)? {
        return Ok(0);
    }
    client.query_one("SELECT coalesce(max(version), 0) FROM schema_migrations", &[])?.try_get(0)
}

/// Applies the first missing file, if one is still missing once we hold the lock, and returns the version.
fn apply_next(client: &mut Client) -> Result<i32, postgres::Error> {
    let mut transaction = client.transaction()?;
    transaction.batch_execute("SET LOCAL statement_timeout = 0")?;
    transaction.query("SELECT pg_advisory_xact_lock($1)", &[&LOCK])?;
    transaction.batch_execute(RECORD)?;
    transaction.batch_execute(RECORD_AGAIN)?;
    let found = read_version(&mut transaction)?;
    let Some(next) = MIGRATIONS.iter().find(|migration| migration.version > found) else {
        transaction.commit()?;
        return Ok(found);
    };
    transaction.batch_execute(next.sql)?;
    transaction.execute(
        "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)",
        &[&next.version, &next.name],
    )?;
    transaction.commit()?;
    Ok(next.version)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_numbered_from_one_without_a_gap() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::try_from(migration.version).unwrap(), index + 1);
            assert!(migration.name.starts_with(&format!("{:03}_", migration.version)));
        }
    }

    #[test]
    fn every_file_of_the_folder_is_applied() {
        let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/sql");
        let mut names: Vec<String> = std::fs::read_dir(folder)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let known: Vec<String> = MIGRATIONS.iter().map(|m| format!("{}.sql", m.name)).collect();
        assert_eq!(names, known);
    }

    #[test]
    fn a_newer_schema_is_refused_with_both_versions() {
        let error = refuse_newer(7).unwrap_err();
        assert!(!error.is_transient());
        assert!(error.to_string().starts_with(
            "the database's schema is version 7, this bitdash knows 2: upgrade bitdash"
        ));
    }

    #[test]
    fn what_every_file_brought_is_known() {
        for migration in MIGRATIONS {
            let name = format!("({}, '{}', ", migration.version, migration.name);
            assert!(RECORD_AGAIN.contains(&name), "{name}");
        }
    }
}
