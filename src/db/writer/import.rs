//! Addresses that an operator imports: they wait in a table until the crawler takes them in.
//!
//! Invariants:
//! 1. An import is stored whole or not at all.
//! 2. An address leaves the table in the transaction that stores it as a candidate.

use std::collections::BTreeSet;

use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::rows::Batch;
use postgres::{Client, Error, Transaction};

use super::key;
use super::store::PLANNING;
use crate::db::connect::connect_within;
use crate::db::copy::copy_in;
use crate::db::reader::TIMEOUT;
use crate::db::{StoreError, schema};

/// Maximum number of addresses that the crawler is offered at once.
const MAX_OFFERED: i64 = 10_000;

/// What became of the addresses of an import.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Imported {
    /// Number of those that are nodes.
    pub nodes: u64,
    /// Number of those that are candidates.
    pub candidates: u64,
    /// Number of those that an earlier import brought and the crawler has not taken in yet.
    pub waiting: u64,
    /// Number of those that wait for the crawler from now on.
    pub new: u64,
    /// Whether a crawl is running.
    pub is_crawling: bool,
}

/// Compaction truncates the base tables: it waits for the end of the import, or the import for it.
const LOCK: &str =
    "LOCK TABLE address_journal, address_blocks_a, address_blocks_b IN ACCESS SHARE MODE;
    SET LOCAL statement_timeout = 0";
const STAGING: &str = "CREATE TEMPORARY TABLE import_batch (key bigint NOT NULL) ON COMMIT DROP";
const REMOVE_NODES: &str = "DELETE FROM import_batch i USING nodes n
    WHERE i.key = bitdash_internal.key(n.host, n.port)";
const REMOVE_CANDIDATES: &str =
    "DELETE FROM import_batch i USING address_state(0, 281474976710655) a
    WHERE i.key = a.key";
const INSERT: &str = "INSERT INTO imported SELECT key FROM import_batch ON CONFLICT DO NOTHING";

/// Stores addresses for the crawler, except for those that it knows.
///
/// # Errors
/// The database is away, has no schema that this program can write, or the role may not write to
/// it. Then nothing was stored.
pub fn import(url: &str, addresses: &BTreeSet<Address>) -> Result<Imported, StoreError> {
    let mut client = connect_within(url, TIMEOUT)?;
    schema::check(&mut client)?;
    let result = store(&mut client, addresses);
    result.map_err(|error| StoreError::of_statement(&error, client.is_closed()))
}

fn store(client: &mut Client, addresses: &BTreeSet<Address>) -> Result<Imported, Error> {
    let mut t = client.transaction()?;
    t.batch_execute(LOCK)?;
    t.batch_execute(PLANNING)?;
    t.batch_execute(STAGING)?;
    copy_in(&mut t, "import_batch", addresses, |writer, address| writer.write(&[&key(*address)]))?;
    let nodes = t.execute(REMOVE_NODES, &[])?;
    let candidates = t.execute(REMOVE_CANDIDATES, &[])?;
    let new = t.execute(INSERT, &[])?;
    let is_crawling = t.query_one("SELECT is_crawling()", &[])?.try_get(0)?;
    t.commit()?;
    let known = nodes + candidates + new;
    let waiting = (addresses.len() as u64).saturating_sub(known);
    Ok(Imported { nodes, candidates, waiting, new, is_crawling })
}

/// Some of the addresses that wait.
pub(super) fn waiting(client: &mut Client) -> Result<Vec<Address>, Error> {
    let rows = client.query("SELECT key FROM imported LIMIT $1", &[&MAX_OFFERED])?;
    rows.iter()
        .map(|row| Ok(Address::from_bits(row.try_get::<_, i64>(0)?.cast_unsigned())))
        .collect()
}

/// Removes those that a batch has taken in.
pub(super) fn remove(t: &mut Transaction, batch: &Batch) -> Result<(), Error> {
    if !batch.imported.is_empty() {
        let keys: Vec<i64> = batch.imported.iter().map(|address| key(*address)).collect();
        t.execute("DELETE FROM imported WHERE key = ANY($1)", &[&keys])?;
    }
    Ok(())
}
