//! `Store`: writes batches to PostgreSQL and reads back what they left.
//!
//! Invariants:
//! 1. A batch is written whole or not at all.
//! 2. `write` returns `Ok` only after COMMIT was answered.
//! 3. A batch that is written twice changes nothing that a reader sees the second time.
//! 4. Nothing is written to a database other than the loaded one, nor to one that was emptied
//!    since.

use std::time::Duration;

use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::rows::{Batch, Known, LastPass, PassRow, SourceRow};
use bitdash_core::vocabulary::time::UnixTime;
use postgres::{CancelToken, Client, Error, GenericClient, Row, Transaction};

use super::compact::{self, CompactionParams, CompactionReport};
use super::events::{self, Event};
use super::{import, journal, load, nodes, rolls};
use crate::db::connect::{connect, pause};
use crate::db::error::StoreError;
use crate::db::schema::{self, Migrated};
use crate::db::timestamp::Timestamp;

/// A connection to the database that accepts batches.
pub struct Store {
    client: Client,
    backend: BackendId,
    fingerprint: Option<DatabaseFingerprint>,
    /// The value of `results_per_node` in the database, once this session knows it.
    results_per_node: Option<u32>,
    /// Number of the next batch, once this session knows it.
    next_batch: Option<i32>,
}

/// A backend of the server. The start time is part of it because process numbers are reused.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct BackendId {
    /// Its process number.
    pub pid: i32,
    /// When it started, in the server's words.
    pub started_at: String,
}

/// Tells the database that was loaded from another one, and from the same one after it was emptied.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct DatabaseFingerprint {
    identity: String,
    /// Its newest pass; 0 for none.
    pass: i64,
    has_nodes: bool,
    /// The newest event that was handed out by [`Store::new_events`].
    event: i64,
}

/// The newest finished pass.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct FinishedPass {
    /// Its number; 0 if none has finished yet.
    pub pass: u64,
    /// When it finished.
    pub finished_at: UnixTime,
    /// Time between its start and its end, interruptions included.
    pub duration: Duration,
    /// Species and number of the nodes that were up at its end.
    pub up: Vec<(String, u64)>,
}

/// Maximum number of attempts, 200 ms apart. The server notices within 2 s that a client was
/// killed.
const MAX_LOCK_ATTEMPTS: u32 = 20;

impl Store {
    /// Connects to the database that `url` names.
    ///
    /// # Errors
    /// Transient while the database is away or starts up; permanent if an operator has to act.
    pub fn connect(url: &str) -> Result<Self, StoreError> {
        let mut client = connect(url)?;
        let asked = "SELECT pid, backend_start::text, current_setting('transaction_read_only')
            FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        let answer = client.query_one(asked, &[]).and_then(|row| {
            let backend = BackendId { pid: row.try_get(0)?, started_at: row.try_get(1)? };
            Ok((backend, row.try_get::<_, String>(2)?))
        });
        let (backend, read_only) =
            answer.map_err(|error| StoreError::of_statement(&error, client.is_closed()))?;
        if read_only == "on" {
            return Err(StoreError::transient("the database is read-only"));
        }
        Ok(Self { client, backend, fingerprint: None, results_per_node: None, next_batch: None })
    }

    /// Creates or upgrades the schema.
    ///
    /// # Errors
    /// Permanent if it is newer than this program or rights are missing; otherwise those of the
    /// connection.
    pub fn migrate(&mut self) -> Result<Migrated, StoreError> {
        schema::migrate(&mut self.client)
    }

    /// Makes this session the only crawler of the database until its connection ends; `false` if
    /// there is no schema yet. Retries for a few seconds: the server may still execute the last
    /// statement of a crawler that was stopped, and may not have noticed yet that our `former`
    /// connections broke. The backend among them that holds the lock is terminated.
    ///
    /// # Errors
    /// `Locked` if another crawler runs, transient while the former backend lingers.
    pub fn lock_crawler(&mut self, former: &[BackendId]) -> Result<bool, StoreError> {
        let row = self.client.query_one(HAS_LOCK, &[]).and_then(|row| row.try_get(0));
        if !self.checked(row)? {
            return Ok(false);
        }
        let mut is_former = false;
        for _ in 0..MAX_LOCK_ATTEMPTS {
            let holder = holder(&mut self.client);
            if let Some(holder) = self.checked(holder)? {
                is_former = former.contains(&holder);
                if is_former {
                    let end = "SELECT pg_terminate_backend($1)";
                    let ended = self.client.execute(end, &[&holder.pid]);
                    self.checked(ended)?;
                }
            } else {
                let taken = take_lock(&mut self.client);
                if self.checked(taken)? {
                    return Ok(true);
                }
            }
            pause();
        }
        Err(if is_former {
            StoreError::transient("our former session still holds the crawler's lock")
        } else {
            StoreError::Locked
        })
    }

    /// Checks that the connection is still open.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn check(&mut self) -> Result<(), StoreError> {
        let checked = self.client.batch_execute("");
        self.checked(checked)
    }

    /// The backend of this connection.
    pub fn backend_id(&self) -> &BackendId {
        &self.backend
    }

    /// The fingerprint of this database, once it was loaded or found to be the expected one.
    pub fn fingerprint(&self) -> Option<&DatabaseFingerprint> {
        self.fingerprint.as_ref()
    }

    /// Whether this database has the fingerprint. If so, later batches are written to it.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn expect(&mut self, fingerprint: &DatabaseFingerprint) -> Result<bool, StoreError> {
        let holds = has_fingerprint(&mut self.client, fingerprint);
        let holds = self.checked(holds)?;
        self.fingerprint = holds.then(|| fingerprint.clone());
        Ok(holds)
    }

    /// Whether the connection is gone.
    pub fn is_closed(&self) -> bool {
        self.client.is_closed()
    }

    /// Passes every address to `each`, in no order, and returns the newest pass: one snapshot.
    ///
    /// # Errors
    /// Those of the connection, possibly after calls of `each`.
    pub fn load(&mut self, each: &mut dyn FnMut(Known)) -> Result<LastPass, StoreError> {
        let result = load::addresses(&mut self.client, each);
        let last = self.checked(result)?;
        let fingerprint = fingerprint(&mut self.client);
        self.fingerprint = Some(self.checked(fingerprint)?);
        Ok(last)
    }

    /// Passes every source to `each`, in no order.
    ///
    /// # Errors
    /// Those of the connection, possibly after calls of `each`.
    pub fn load_sources(&mut self, each: &mut dyn FnMut(u16, SourceRow)) -> Result<(), StoreError> {
        let result = load::sources(&mut self.client, each);
        self.checked(result)
    }

    /// Passes every name of an address to `each`.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn load_names(&mut self, each: &mut dyn FnMut(Address, String)) -> Result<(), StoreError> {
        let result = load::names(&mut self.client, each);
        self.checked(result)
    }

    /// The time before which no address expires, if the wall clock was ever set.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn forgets_from(&mut self) -> Result<Option<UnixTime>, StoreError> {
        let result = load::forgets_from(&mut self.client);
        self.checked(result)
    }

    /// What a former process learned of the ranks of candidates.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn learned(&mut self) -> Result<Option<Vec<i32>>, StoreError> {
        let result = load::learned(&mut self.client);
        self.checked(result)
    }

    /// Writes a batch in one transaction; `probes` shows `results_per_node` rows of each node.
    ///
    /// # Errors
    /// Nothing was written, or everything if only the reply to COMMIT was lost: write the batch
    /// again. [`StoreError::Emptied`] if this is no longer the database that was loaded.
    pub fn write(&mut self, batch: &Batch, results_per_node: u32) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let has_changed = self.results_per_node != Some(results_per_node);
        let kept = has_changed.then_some(results_per_node);
        let fingerprint = self.fingerprint.as_ref();
        let result = write(&mut self.client, batch, self.next_batch, kept, fingerprint);
        let Some(number) = self.checked(result)? else { return Err(StoreError::Emptied) };
        self.next_batch = Some(number.saturating_add(2));
        if let Some(fingerprint) = &mut self.fingerprint {
            let newest = batch.passes.keys().max().copied().unwrap_or(0);
            fingerprint.pass = fingerprint.pass.max(i64::try_from(newest).unwrap_or(i64::MAX));
            fingerprint.has_nodes |= !batch.nodes.is_empty();
        }
        self.results_per_node = Some(results_per_node);
        Ok(())
    }

    /// Some of the addresses that were imported and not yet written by a batch.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn imported(&mut self) -> Result<Vec<Address>, StoreError> {
        let result = import::waiting(&mut self.client);
        self.checked(result)
    }

    /// The events that were written since the last call, also where the reply to COMMIT was lost.
    ///
    /// # Errors
    /// Those of the connection. A later call returns them.
    pub fn new_events(&mut self) -> Result<Vec<Event>, StoreError> {
        let Some(fingerprint) = &self.fingerprint else { return Ok(Vec::new()) };
        let result = events::newer_than(&mut self.client, fingerprint.event);
        let (newest, events) = self.checked(result)?;
        if let Some(fingerprint) = &mut self.fingerprint {
            fingerprint.event = newest;
        }
        Ok(events)
    }

    /// The newest finished pass.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn finished_pass(&mut self) -> Result<FinishedPass, StoreError> {
        let result = finished_pass(&mut self.client);
        self.checked(result)
    }

    /// Compacts one relation if that is due. Call it at start and at the end of passes until it
    /// returns `None`. It takes a few seconds per million addresses on a PC.
    ///
    /// # Errors
    /// Transient if a reader holds a lock or the connection broke. Then nothing has changed; retry
    /// at the end of the next pass.
    pub fn compact_if_due(
        &mut self,
        now: UnixTime,
        params: &CompactionParams,
    ) -> Result<Option<CompactionReport>, StoreError> {
        let result = compact::if_due(&mut self.client, now, params);
        self.checked(result)
    }

    /// Closes the oldest day of history and rolls that is over; `None` if there is none. Call
    /// it where [`Store::compact_if_due`] is called.
    ///
    /// # Errors
    /// Those of the connection. Then nothing has changed; retry at the end of the next pass.
    pub fn close_day(&mut self) -> Result<Option<Timestamp>, StoreError> {
        let result = close_day(&mut self.client);
        self.checked(result)
    }

    /// Cancels the running statement of this connection from another thread.
    pub fn cancel_token(&self) -> CancelToken {
        self.client.cancel_token()
    }

    /// Bounds every later statement.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn set_statement_timeout(&mut self, limit: Duration) -> Result<(), StoreError> {
        let set = format!("SET statement_timeout = {}", limit.as_millis().clamp(1, 3_600_000));
        let set = self.client.batch_execute(&set);
        self.checked(set)
    }

    fn checked<T>(&self, result: Result<T, Error>) -> Result<T, StoreError> {
        result.map_err(|error| StoreError::of_statement(&error, self.client.is_closed()))
    }
}

/// Settings for queries over a whole journal. The planner does not know its size: hash joins suit
/// any size, and with the default of 4 MB their tables would go to disk.
pub(super) const PLANNING: &str = "SET LOCAL work_mem = '64MB'; SET LOCAL enable_nestloop = off;
    SET LOCAL enable_mergejoin = off; SET LOCAL jit = off";

/// Whether the schema is new enough to have the lock.
const HAS_LOCK: &str = "SELECT EXISTS (SELECT FROM pg_attribute
    WHERE attrelid = to_regclass('store_state') AND attname = 'crawler_pid')";

/// The backend that holds the crawler's lock: the one in `store_state`, as long as it runs. A
/// backend vanishes from `pg_stat_activity` after its transaction has ended.
const HOLDER: &str = "SELECT s.crawler_pid, s.crawler_started_at::text
    FROM store_state s JOIN pg_stat_activity a ON a.pid = s.crawler_pid
    WHERE s.crawler_pid <> pg_backend_pid() AND (a.backend_start = s.crawler_started_at
        OR a.backend_start IS NULL AND a.usesysid = s.crawler_role)";

/// Readers have no right to lock the table.
const LOCK_STATE: &str =
    "SET LOCAL lock_timeout = '2s'; LOCK TABLE store_state IN SHARE ROW EXCLUSIVE MODE";

const HOLD: &str =
    "UPDATE store_state SET crawler_pid = a.pid, crawler_started_at = a.backend_start,
        crawler_role = a.usesysid
    FROM pg_stat_activity a WHERE a.pid = pg_backend_pid()";

fn holder(client: &mut impl GenericClient) -> Result<Option<BackendId>, Error> {
    let Some(row) = client.query_opt(HOLDER, &[])? else { return Ok(None) };
    Ok(Some(BackendId { pid: row.try_get(0)?, started_at: row.try_get(1)? }))
}

/// Returns `false` if another session was quicker.
fn take_lock(client: &mut Client) -> Result<bool, Error> {
    let mut t = client.transaction()?;
    t.batch_execute(LOCK_STATE)?;
    t.batch_execute(RESTORE_STATE)?;
    let is_taken = holder(&mut t)?.is_none() && t.execute(HOLD, &[])? > 0;
    t.commit()?;
    Ok(is_taken)
}

/// Tables of a batch, in the order in which it writes them.
const LOCKS: &str =
    "LOCK TABLE address_journal, source_journal, probe_journal, nodes IN ROW EXCLUSIVE MODE";

/// No row if `store_state` was emptied.
const FINGERPRINT: &str = "SELECT identity::text, EXISTS (SELECT FROM passes p WHERE p.pass = $1),
    EXISTS (SELECT FROM nodes), (SELECT coalesce(max(pass), 0) FROM passes),
    (SELECT coalesce(max(id), 0) FROM events) FROM store_state";

/// An operator who emptied every table emptied this one too.
const RESTORE_STATE: &str = "INSERT INTO store_state DEFAULT VALUES ON CONFLICT DO NOTHING";

fn fingerprint(client: &mut Client) -> Result<DatabaseFingerprint, Error> {
    let row = client.query_one(FINGERPRINT, &[&0_i64])?;
    let (identity, has_nodes, pass) = (row.try_get(0)?, row.try_get(2)?, row.try_get(3)?);
    Ok(DatabaseFingerprint { identity, pass, has_nodes, event: row.try_get(4)? })
}

fn has_fingerprint(
    client: &mut impl GenericClient,
    fingerprint: &DatabaseFingerprint,
) -> Result<bool, Error> {
    let Some(row) = client.query_opt(FINGERPRINT, &[&fingerprint.pass])? else { return Ok(false) };
    let (has_pass, has_nodes): (bool, bool) = (row.try_get(1)?, row.try_get(2)?);
    Ok(row.try_get::<_, &str>(0)? == fingerprint.identity
        && (has_pass || fingerprint.pass == 0)
        && (has_nodes || !fingerprint.has_nodes))
}

fn finished_pass(client: &mut Client) -> Result<FinishedPass, Error> {
    let newest = "SELECT pass, started_at, finished_at FROM passes WHERE finished_at IS NOT NULL
        ORDER BY pass DESC LIMIT 1";
    let Some(row) = client.query_opt(newest, &[])? else { return Ok(FinishedPass::default()) };
    let (pass, started_at, finished_at): (i64, Timestamp, Timestamp) =
        (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
    let up = "SELECT value, lowest FROM history WHERE pass = $1 AND dimension = 'species'";
    let count = |row: &Row| {
        let nodes: i32 = row.try_get(1)?;
        Ok((row.try_get(0)?, u64::try_from(nodes).unwrap_or(0)))
    };
    Ok(FinishedPass {
        pass: u64::try_from(pass).unwrap_or(0),
        finished_at: finished_at.0,
        duration: finished_at.0.since(started_at.0),
        up: client.query(up, &[&pass])?.iter().map(count).collect::<Result<_, Error>>()?,
    })
}

fn close_day(client: &mut Client) -> Result<Option<Timestamp>, Error> {
    let mut t = client.transaction()?;
    t.batch_execute(PLANNING)?;
    let row = t.query_one("SELECT day, first_, last_ FROM close_history_day()", &[])?;
    let day: Option<Timestamp> = row.try_get(0)?;
    if let Some(day) = day {
        rolls::close(&mut t, day, row.try_get(1)?, row.try_get(2)?)?;
        events::remove_old(&mut t)?;
    }
    t.commit()?;
    Ok(day)
}

/// Returns the number of the batch, or `None`, and writes nothing, if the database does not have
/// the fingerprint.
fn write(
    client: &mut Client,
    batch: &Batch,
    number: Option<i32>,
    results_per_node: Option<u32>,
    fingerprint: Option<&DatabaseFingerprint>,
) -> Result<Option<i32>, Error> {
    let mut transaction = client.transaction()?;
    let t = &mut transaction;
    // Wait for other sessions' locks here: an error within a COPY may cost the connection.
    t.batch_execute(LOCKS)?;
    if let Some(fingerprint) = fingerprint
        && !has_fingerprint(t, fingerprint)?
    {
        return Ok(None);
    }
    let number = match number {
        Some(number) => number,
        None => journal::next_batch(t)?,
    };
    journal::append(t, batch, number)?;
    nodes::write(t, batch)?;
    import::remove(t, batch)?;
    if let Some(kept) = results_per_node {
        let changed = "UPDATE store_state SET results_per_node = $1 WHERE results_per_node <> $1";
        t.execute(changed, &[&super::integer(kept)])?;
    }
    if let Some(at) = batch.forgets_from {
        t.execute("UPDATE store_state SET forgets_from = $1", &[&Timestamp(at)])?;
    }
    if let Some(learned) = &batch.learned {
        t.execute("UPDATE store_state SET learned = $1", &[learned])?;
    }
    if let Some(names) = &batch.names {
        nodes::write_names(t, names)?;
    }
    for (pass, row) in &batch.passes {
        write_pass(t, *pass, row)?;
    }
    transaction.commit()?;
    Ok(Some(number))
}

/// Writes a pass and, once it has finished, its history. The nodes of the same batch come first.
fn write_pass(t: &mut Transaction, pass: u64, row: &PassRow) -> Result<(), Error> {
    let bigint = |count| i64::try_from(count).unwrap_or(i64::MAX);
    let pass = bigint(pass);
    // What follows from the end of a pass is written once, also where the reply to COMMIT was lost.
    let finished = "SELECT FROM passes WHERE pass = $1 AND finished_at IS NOT NULL";
    let was_finished = t.query_opt(finished, &[&pass])?.is_some();
    t.execute(
        "INSERT INTO passes VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)
        ON CONFLICT (pass) DO UPDATE SET started_at = excluded.started_at, finished_at = excluded.finished_at,
            probed = excluded.probed, responded = excluded.responded, failed = excluded.failed,
            new_nodes = excluded.new_nodes, new_addresses = excluded.new_addresses,
            due = excluded.due, candidates = excluded.candidates,
            uplink_was_down = excluded.uplink_was_down",
        &[
            &pass,
            &Timestamp(row.started_at),
            &row.finished_at.map(Timestamp),
            &bigint(row.probed),
            &bigint(row.responded),
            &bigint(row.failed),
            &bigint(row.new_nodes),
            &bigint(row.new_addresses),
            &bigint(row.due),
            &bigint(row.candidates),
            &row.uplink_was_down,
        ],
    )?;
    if row.finished_at.is_some() && !was_finished {
        t.batch_execute("SET LOCAL jit = off")?;
        t.execute("SELECT write_history($1)", &[&pass])?;
        t.execute("SELECT write_events($1)", &[&pass])?;
        if !row.uplink_was_down {
            rolls::write(t, pass)?;
        }
    }
    Ok(())
}
