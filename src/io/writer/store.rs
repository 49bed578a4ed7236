//! `Store`: batches into PostgreSQL, and what is known out of it.
//!
//! Layer 3. Invariants: 1. a batch is written whole or not at all; 2. `write` returns `Ok` only after COMMIT
//! came back; 3. writing a batch twice changes nothing that a reader sees the second time.

use std::collections::BTreeMap;
use std::time::Duration;

use postgres::{CancelToken, Client, Transaction};

use super::connect::{connect, pause};
use super::copy::Rows;
use super::error::StoreError;
use super::fold::{self, FoldParams, FoldReport};
use super::journal::{self, Numbers};
use super::load;
use super::schema::{self, Migrated};
use crate::crawl::address::Address;
use crate::crawl::batch::{Batch, Known, LastPass, PassRow, SourceRow};
use crate::crawl::time::UnixTime;

/// A connection to the database that takes batches.
pub struct Store {
    client: Client,
    backend_pid: i32,
    rows: Rows,
    /// What the database holds as `results_per_node`, once this session knows.
    results_per_node: Option<u32>,
}

/// Held by the one crawler of a database as long as its connection lives. "bitdash" and 2.
const CRAWLER_LOCK: i64 = 0x6269_7464_6173_6802;

/// So often a crawler tries, a fifth of a second apart, while a former session ends.
const LOCK_ATTEMPTS: u32 = 10;

impl Store {
    /// Connects to the database that `url` names.
    ///
    /// # Errors
    /// Transient while the database is away or starts up; permanent where a person has to act.
    pub fn connect(url: &str) -> Result<Self, StoreError> {
        let mut client = connect(url)?;
        let asked = "SELECT pg_backend_pid(), current_setting('transaction_read_only')";
        let answer = client
            .query_one(asked, &[])
            .and_then(|row| Ok((row.try_get(0)?, row.try_get::<_, String>(1)?)));
        let (backend_pid, read_only) =
            answer.map_err(|error| StoreError::of_statement(&error, client.is_closed()))?;
        if read_only == "on" {
            return Err(StoreError::transient("the database takes no changes: it is read-only"));
        }
        Ok(Self { client, backend_pid, rows: Rows::default(), results_per_node: None })
    }

    /// Creates or upgrades the schema.
    ///
    /// # Errors
    /// Permanent where it is newer than this program or rights are missing; else the connection's.
    pub fn migrate(&mut self) -> Result<Migrated, StoreError> {
        schema::migrate(&mut self.client)
    }

    /// Makes this session the database's only crawler, until its connection ends. Waits a moment for one
    /// that has just been stopped: the server may still be busy with its last statement.
    ///
    /// # Errors
    /// Permanent where another crawler runs.
    pub fn lock_crawler(&mut self) -> Result<(), StoreError> {
        for _ in 0..LOCK_ATTEMPTS {
            if self.try_lock()? {
                return Ok(());
            }
            pause();
        }
        Err(StoreError::permanent(
            "another bitdash crawls into this database already: stop it, or give this one a database of its own",
        ))
    }

    /// The same after a reconnect: `former_pid` is the [`Store::backend_pid`] of our own connection that
    /// broke, which the server may not have noticed yet. It is ended, and only it.
    ///
    /// # Errors
    /// Permanent where another crawler runs, transient while the former session lingers.
    pub fn relock_crawler(&mut self, former_pid: i32) -> Result<(), StoreError> {
        for _ in 0..LOCK_ATTEMPTS {
            if self.try_lock()? {
                return Ok(());
            }
            if !self.is_locked_by(former_pid)? {
                // It may have ended between the two questions.
                return self.lock_crawler();
            }
            let ended = self.client.execute("SELECT pg_terminate_backend($1)", &[&former_pid]);
            self.checked(ended)?;
            pause();
        }
        Err(StoreError::transient("our former session still holds the database"))
    }

    /// The number of the server's process behind this connection.
    pub fn backend_pid(&self) -> i32 {
        self.backend_pid
    }

    /// Whether the connection is gone, so that only a new one helps.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Reads every address into `each`, in no order, and returns the newest pass, all as of one instant.
    ///
    /// # Errors
    /// Those of the connection; `each` may have been called by then.
    pub fn load(&mut self, each: &mut dyn FnMut(Known)) -> Result<LastPass, StoreError> {
        let result = load::addresses(&mut self.client, each);
        self.checked_failure(result)
    }

    /// Reads what is known of every source into `each`, in no order.
    ///
    /// # Errors
    /// Those of the connection; `each` may have been called by then.
    pub fn load_sources(&mut self, each: &mut dyn FnMut(u16, SourceRow)) -> Result<(), StoreError> {
        let result = load::sources(&mut self.client, each);
        self.checked_failure(result)
    }

    /// Writes a batch in one transaction and keeps `results_per_node` rows of `probes` of each node.
    ///
    /// # Errors
    /// Nothing of the batch is written then, or all of it where the reply to COMMIT was lost: write it again.
    pub fn write(&mut self, batch: &Batch, results_per_node: u32) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let is_news = self.results_per_node != Some(results_per_node);
        let kept = is_news.then_some(results_per_node);
        let result = write(&mut self.client, &mut self.rows, batch, kept);
        self.rows.clear();
        self.checked_failure(result)?;
        self.results_per_node = Some(results_per_node);
        Ok(())
    }

    /// Folds the journal of one relation into its base, if that is due: to be called at start and at the ends of
    /// passes until it gives `None`. It takes a few seconds per million addresses on a PC.
    ///
    /// # Errors
    /// Transient where a reader is in the way or the connection broke; then nothing has changed, and the next
    /// pass's end is early enough to try again.
    pub fn fold_if_due(
        &mut self,
        now: UnixTime,
        params: &FoldParams,
    ) -> Result<Option<FoldReport>, StoreError> {
        let result = fold::if_due(&mut self.client, now, params);
        self.checked_failure(result)
    }

    /// What ends the statement that this connection is busy with, from another thread.
    pub fn cancel_token(&self) -> CancelToken {
        self.client.cancel_token()
    }

    /// Bounds every later statement, for a program that has to stop soon.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn set_statement_timeout(&mut self, limit: Duration) -> Result<(), StoreError> {
        let set = format!("SET statement_timeout = {}", limit.as_millis().clamp(1, 3_600_000));
        let set = self.client.batch_execute(&set);
        self.checked(set)
    }

    fn try_lock(&mut self) -> Result<bool, StoreError> {
        let row = self.client.query_one("SELECT pg_try_advisory_lock($1)", &[&CRAWLER_LOCK]);
        let row = self.checked(row)?;
        let is_ours = row.try_get(0);
        self.checked(is_ours)
    }

    fn is_locked_by(&mut self, pid: i32) -> Result<bool, StoreError> {
        let held = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objsubid = 1 AND granted
            AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (classid::bigint << 32 | objid::bigint) = $1 AND pid = $2";
        let row = self.client.query_opt(held, &[&CRAWLER_LOCK, &pid]);
        Ok(self.checked(row)?.is_some())
    }

    fn checked<T>(&self, result: Result<T, postgres::Error>) -> Result<T, StoreError> {
        result.map_err(|error| StoreError::of_statement(&error, self.client.is_closed()))
    }

    fn checked_failure<T>(&self, result: Result<T, Failure>) -> Result<T, StoreError> {
        result.map_err(|failure| failure.into_error(self.client.is_closed()))
    }
}

/// Room for the hash tables and sorts over a day's journal: with the stock 4 MB they go to the disk.
/// The planner does not know how much there is in a journal: hash joins suit any size.
pub(super) const ROOM: &str = "SET LOCAL work_mem = '64MB'; SET LOCAL enable_nestloop = off;
    SET LOCAL enable_mergejoin = off; SET LOCAL jit = off";

/// An error inside a transaction, where the connection cannot be asked whether it lives.
pub(super) enum Failure {
    Statement(postgres::Error),
    Stream(std::io::Error),
}

impl Failure {
    fn into_error(self, is_closed: bool) -> StoreError {
        match self {
            Self::Statement(error) => StoreError::of_statement(&error, is_closed),
            Self::Stream(error) => StoreError::of_stream(&error, is_closed),
        }
    }
}

impl From<postgres::Error> for Failure {
    fn from(error: postgres::Error) -> Self {
        Self::Statement(error)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Self {
        Self::Stream(error)
    }
}

const JOURNALS: &str =
    "LOCK TABLE address_journal, source_journal, result_journal IN ROW EXCLUSIVE MODE";

fn write(
    client: &mut Client,
    rows: &mut Rows,
    batch: &Batch,
    results_per_node: Option<u32>,
) -> Result<(), Failure> {
    let mut transaction = client.transaction()?;
    let t = &mut transaction;
    // A fold or a person's lock is waited for here: an error within a COPY may cost the connection.
    t.batch_execute(JOURNALS)?;
    let number: i64 = t.query_one("SELECT nextval('batch_number')", &[])?.try_get(0)?;
    let numbers = Numbers { batch: number, forgotten: number.saturating_add(1) };
    journal::append(t, rows, batch, numbers)?;
    if let Some(kept) = results_per_node {
        let kept = i32::try_from(kept).unwrap_or(i32::MAX);
        t.execute(
            "UPDATE store_state SET results_per_node = $1 WHERE results_per_node <> $1",
            &[&kept],
        )?;
    }
    if let Some(names) = &batch.names {
        write_names(t, names)?;
    }
    for (pass, row) in &batch.passes {
        write_pass(t, *pass, row)?;
    }
    transaction.commit()?;
    Ok(())
}

/// Names: what is not listed loses its own, and a name that stands is left alone.
fn write_names(t: &mut Transaction, names: &BTreeMap<Address, String>) -> Result<(), Failure> {
    let keys: Vec<i64> = names.keys().map(|address| address.to_bits().cast_signed()).collect();
    // PostgreSQL's text cannot hold a zero byte.
    let names: Vec<String> = names.values().map(|name| name.replace('\0', "")).collect();
    t.execute("DELETE FROM node_names WHERE key <> ALL ($1::bigint[])", &[&keys])?;
    t.execute(
        "INSERT INTO node_names AS n (key, name)
            SELECT key, name FROM unnest($1::bigint[], $2::text[]) u (key, name)
        ON CONFLICT (key) DO UPDATE SET name = excluded.name WHERE n.name <> excluded.name",
        &[&keys, &names],
    )?;
    Ok(())
}

/// A pass, and its history if it has ended: counted here, after the nodes of the same batch.
fn write_pass(t: &mut Transaction, pass: u64, row: &PassRow) -> Result<(), Failure> {
    let pass = i64::try_from(pass).unwrap_or(i64::MAX);
    let mut fields = Rows::default();
    fields.time(row.started_at).opt_time(row.finished_at);
    let fields = String::from_utf8_lossy(fields.as_bytes()).into_owned();
    let (started_at, finished_at) = fields.split_once('\t').unwrap_or_default();
    let finished_at = row.finished_at.map(|_| finished_at);
    let counts = [row.probed, row.responded, row.failed, row.new_nodes, row.new_addresses]
        .map(|count| i64::try_from(count).unwrap_or(i64::MAX));
    let [probed, responded, failed, new_nodes, new_addresses] = &counts;
    t.execute(
        "INSERT INTO passes (pass, started_at, finished_at, probed, responded, failed, new_nodes, new_addresses)
        VALUES ($1, $2::text::timestamptz, $3::text::timestamptz, $4, $5, $6, $7, $8)
        ON CONFLICT (pass) DO UPDATE SET started_at = excluded.started_at, finished_at = excluded.finished_at,
            probed = excluded.probed, responded = excluded.responded, failed = excluded.failed,
            new_nodes = excluded.new_nodes, new_addresses = excluded.new_addresses",
        &[&pass, &started_at, &finished_at, probed, responded, failed, new_nodes, new_addresses],
    )?;
    if finished_at.is_some() {
        t.execute("DELETE FROM history WHERE pass = $1", &[&pass])?;
        t.execute(HISTORY, &[&pass])?;
    }
    Ok(())
}

const HISTORY: &str = "
    INSERT INTO history (pass, at, dimension, value, nodes)
    SELECT s.pass, s.finished_at, v.dimension, v.value, count(*)
    FROM passes s CROSS JOIN nodes n CROSS JOIN LATERAL (VALUES
        ('status', n.status), ('species', n.species), ('user_agent', n.user_agent),
        ('protocol_version', n.protocol_version::text), ('country', n.country), ('asn', n.asn::text),
        ('port', n.port::text), ('services', n.services::text)) v (dimension, value)
    WHERE s.pass = $1 AND v.value IS NOT NULL AND (n.status = 'up' OR v.dimension = 'status')
    GROUP BY s.pass, s.finished_at, v.dimension, v.value ORDER BY v.dimension, v.value";
