//! Versions of the schema: the numbered files of `sql/`, and those that a database has.
//!
//! Invariants:
//! 1. A released file never changes; another one follows it.
//! 2. Files are applied in order, each in one transaction together with its record.
//! 3. A schema that is newer than this program is never written to.

use postgres::{Client, Transaction};

use super::error::StoreError;

/// One numbered file of `sql/`.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Migration {
    /// Its number: the version of the schema once it is applied.
    pub version: i32,
    /// Its name.
    pub name: &'static str,
    sql: &'static str,
}

impl Migration {
    /// Its statements.
    pub fn sql(&self) -> &'static str {
        self.sql
    }
}

/// Every file, in order; `build.rs` lists them.
pub const MIGRATIONS: &[Migration] = include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// What [`migrate`] did.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Migrated {
    /// The version before; 0 for an empty database.
    pub from: i32,
    /// The version now.
    pub to: i32,
}

/// Two programs may start at once. Readers may not lock the table in this mode, but could hold any
/// advisory lock. In an empty database, the first program to create the schema makes others fail.
const LOCK: &str = "DO $$ BEGIN
    IF to_regclass('schema_migrations') IS NOT NULL THEN LOCK TABLE schema_migrations IN EXCLUSIVE MODE; END IF;
    END $$";

/// Maximum number of attempts to create a schema that others create, too.
const MAX_ATTEMPTS: u32 = 5;

/// Without the tables of `public`, the internal ones are remains of a schema that was dropped.
const DROP_REMAINS: &str = "DO $$ BEGIN
    IF to_regclass('public.passes') IS NULL THEN DROP SCHEMA IF EXISTS bitdash_internal CASCADE; END IF;
    END $$";

/// The record of applied files. Up to version 2 it was in `public`.
const RECORD: &str = "CREATE SCHEMA IF NOT EXISTS bitdash_internal;
    ALTER TABLE IF EXISTS public.schema_migrations SET SCHEMA bitdash_internal;
    CREATE TABLE IF NOT EXISTS bitdash_internal.schema_migrations (
        version    integer     PRIMARY KEY,
        name       text        NOT NULL,
        applied_at timestamptz NOT NULL DEFAULT now());
    COMMENT ON SCHEMA bitdash_internal IS 'How bitdash stores what the schema public shows.';
    COMMENT ON TABLE bitdash_internal.schema_migrations IS 'Files of sql/ that were applied, and when.'";

/// The version of a database whose tables an operator emptied, the record included: up to version 3
/// a column tells it, later ones are in the comment of `store_state`. Null for a new database.
const VERSION_WITHOUT_RECORD: &str = "SELECT greatest(
    substring(obj_description(to_regclass('store_state'), 'pg_class') FROM 'version (\\d+)')::integer,
    (SELECT max(v.version) FROM (VALUES (1, 'only_row'), (2, 'identity'), (3, 'probes_base'),
        (4, 'crawler_pid'))
        v (version, brought) JOIN pg_attribute a
        ON a.attrelid = to_regclass('store_state') AND a.attname = v.brought))
    WHERE NOT EXISTS (SELECT FROM schema_migrations)";

/// The version that this program knows.
pub fn known_version() -> i32 {
    MIGRATIONS.last().map_or(0, |migration| migration.version)
}

/// The version of the database; 0 if no file was applied yet.
///
/// # Errors
/// Those of the connection.
pub fn version(client: &mut Client) -> Result<i32, StoreError> {
    read_version(client).map_err(|error| StoreError::of_statement(&error, client.is_closed()))
}

/// Applies the missing files. If none is missing, it needs no right beyond reading.
///
/// # Errors
/// Permanent if the schema is newer than this program or rights are missing; otherwise those of the
/// connection.
pub fn migrate(client: &mut Client) -> Result<Migrated, StoreError> {
    let from = version(client)?;
    refuse_newer(from)?;
    let mut to = from;
    let mut attempts = 0;
    while to < known_version() {
        let applied = apply_next(client);
        if applied.as_ref().is_err_and(was_created) {
            attempts += 1;
            if attempts < MAX_ATTEMPTS {
                continue;
            }
        }
        to = applied.map_err(|error| StoreError::of_statement(&error, client.is_closed()))?;
        refuse_newer(to)?;
    }
    Ok(Migrated { from, to })
}

/// Checks that this program can read the database.
///
/// # Errors
/// Permanent if the schema is missing, older or newer; otherwise those of the connection.
pub fn check(client: &mut Client) -> Result<(), StoreError> {
    match version(client)? {
        0 => Err(StoreError::permanent(
            "the database has no schema yet: \"bitdash migrate\" creates it, \"bitdash crawl\" fills it",
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
    let exists = "SELECT to_regclass('schema_migrations') IS NOT NULL
        AND to_regclass('public.passes') IS NOT NULL";
    if !client.query_one(exists, &[])?.try_get(0)? {
        return Ok(0);
    }
    client.query_one("SELECT coalesce(max(version), 0) FROM schema_migrations", &[])?.try_get(0)
}

/// Whether another program has just created the same object, or comments on it ("tuple concurrently
/// updated" is an internal error of the server).
fn was_created(error: &postgres::Error) -> bool {
    use postgres::error::SqlState;
    [SqlState::UNIQUE_VIOLATION, SqlState::DUPLICATE_SCHEMA, SqlState::INTERNAL_ERROR]
        .iter()
        .any(|code| error.code() == Some(code))
}

/// Applies the first missing file, if one is still missing under the lock, and returns the version.
fn apply_next(client: &mut Client) -> Result<i32, postgres::Error> {
    let mut transaction = client.transaction()?;
    transaction.batch_execute("SET LOCAL statement_timeout = 0")?;
    transaction.batch_execute(LOCK)?;
    transaction.batch_execute(DROP_REMAINS)?;
    transaction.batch_execute(RECORD)?;
    // Another program may have created the table since it was looked for.
    transaction.batch_execute(LOCK)?;
    if let Some(row) = transaction.query_opt(VERSION_WITHOUT_RECORD, &[])? {
        let version: Option<i32> = row.try_get(0)?;
        for applied in MIGRATIONS.iter().filter(|file| Some(file.version) <= version) {
            record(&mut transaction, applied)?;
        }
    }
    let found = read_version(&mut transaction)?;
    let Some(next) = MIGRATIONS.iter().find(|migration| migration.version > found) else {
        transaction.commit()?;
        return Ok(found);
    };
    transaction.batch_execute(next.sql)?;
    record(&mut transaction, next)?;
    let comment = format!("'One row: state of the store. Schema version {}.'", next.version);
    transaction.batch_execute(&format!("COMMENT ON TABLE store_state IS {comment}"))?;
    transaction.commit()?;
    Ok(next.version)
}

fn record(transaction: &mut Transaction<'_>, applied: &Migration) -> Result<(), postgres::Error> {
    transaction.execute(
        "INSERT INTO schema_migrations (version, name) VALUES ($1, $2)",
        &[&applied.version, &applied.name],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use bitdash_core::vocabulary::outcome::{OUTCOME_BITS, Outcome};

    use super::*;

    const _: () = assert!(OUTCOME_BITS == 4, "address_state() packs an outcome into 4 bits");

    #[test]
    fn outcome_codes_are_those_of_the_schema() {
        let words: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        let newest = |function: &str| {
            let defines = format!("FUNCTION bitdash_internal.{function}(");
            MIGRATIONS.iter().rev().find(|file| file.sql.contains(&defines)).unwrap().sql
        };
        assert!(newest("outcome_word").contains(&format!("'{{{}}}'", words.join(","))));
        let state = newest("address_state");
        assert!(state.contains("j.failures::integer << 4 | j.outcome"));
        assert!(state.contains("probe & 15"));
    }

    #[test]
    fn files_are_numbered_from_one_without_a_gap() {
        for (index, migration) in MIGRATIONS.iter().enumerate() {
            assert_eq!(usize::try_from(migration.version).unwrap(), index + 1);
            assert!(migration.name.starts_with(&format!("{:03}_", migration.version)));
        }
    }

    #[test]
    fn a_newer_schema_is_refused_with_both_versions() {
        let known = known_version();
        let error = refuse_newer(known + 1).unwrap_err();
        assert!(!error.is_transient());
        let words = format!("version {}, this bitdash knows {known}: upgrade bitdash", known + 1);
        assert!(error.to_string().contains(&words), "{error}");
    }
}
