//! `Store`: batches into PostgreSQL, and what is known out of it.
//!
//! Layer 3. Invariants: 1. a batch is written whole or not at all; 2. `write` returns `Ok` only after COMMIT
//! came back; 3. writing a batch twice changes nothing that a reader sees the second time; 4. nothing is written
//! into another database than the one that was loaded, nor into one that was emptied since.

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
    session: Session,
    mark: Option<Mark>,
    rows: Rows,
    /// What the database holds as `results_per_node`, once this session knows.
    results_per_node: Option<u32>,
}

/// A session at the server. Numbers of processes come again, with a server that is started anew for one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Session {
    /// The number of the server's process behind it.
    pub pid: i32,
    /// When it began, as the server says it.
    pub started_at: String,
}

/// What tells the database that was loaded from another one, and from itself emptied by hand.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Mark {
    identity: String,
    /// The newest pass that it holds; 0 for none.
    pass: i64,
    has_nodes: bool,
}

/// Held by the one crawler of a database as long as its connection lives. "bitdash" and 2.
const CRAWLER_LOCK: i64 = 0x6269_7464_6173_6802;

/// So often a crawler tries, a fifth of a second apart, while a former session ends: the server notices within two
/// seconds that its client was killed.
const LOCK_ATTEMPTS: u32 = 20;

impl Store {
    /// Connects to the database that `url` names.
    ///
    /// # Errors
    /// Transient while the database is away or starts up; permanent where a person has to act.
    pub fn connect(url: &str) -> Result<Self, StoreError> {
        let mut client = connect(url)?;
        let asked = "SELECT pid, backend_start::text, current_setting('transaction_read_only')
            FROM pg_stat_activity WHERE pid = pg_backend_pid()";
        let answer = client.query_one(asked, &[]).and_then(|row| {
            let session = Session { pid: row.try_get(0)?, started_at: row.try_get(1)? };
            Ok((session, row.try_get::<_, String>(2)?))
        });
        let (session, read_only) =
            answer.map_err(|error| StoreError::of_statement(&error, client.is_closed()))?;
        if read_only == "on" {
            return Err(StoreError::transient("the database takes no changes: it is read-only"));
        }
        let rows = Rows::default();
        Ok(Self { client, session, mark: None, rows, results_per_node: None })
    }

    /// Creates or upgrades the schema.
    ///
    /// # Errors
    /// Permanent where it is newer than this program or rights are missing; else the connection's.
    pub fn migrate(&mut self) -> Result<Migrated, StoreError> {
        let migrated = schema::migrate(&mut self.client)?;
        let mended = mend(&mut self.client);
        self.checked(mended)?;
        Ok(migrated)
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

    /// The same after a reconnect: `former` are the [`Store::session`]s of our own connections that broke, which
    /// the server may not have noticed yet. The one that holds the database is ended, and no other.
    ///
    /// # Errors
    /// Permanent where another crawler runs, transient while the former session lingers.
    pub fn relock_crawler(&mut self, former: &[Session]) -> Result<(), StoreError> {
        for _ in 0..LOCK_ATTEMPTS {
            if self.try_lock()? {
                return Ok(());
            }
            let Some(holder) = self.holder()?.filter(|holder| former.contains(holder)) else {
                // It may have ended between the two questions.
                return self.lock_crawler();
            };
            let ended = self.client.execute("SELECT pg_terminate_backend($1)", &[&holder.pid]);
            self.checked(ended)?;
            pause();
        }
        Err(StoreError::transient("our former session still holds the database"))
    }

    /// This connection as the server knows it.
    pub fn session(&self) -> &Session {
        &self.session
    }

    /// What tells this database from another one: known once it was loaded, or found to be the one expected.
    pub fn mark(&self) -> Option<&Mark> {
        self.mark.as_ref()
    }

    /// Whether this is still the database that bore this mark. If so, it is what is written into from now on.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn expect(&mut self, mark: &Mark) -> Result<bool, StoreError> {
        let holds = is_marked(&mut self.client, mark);
        let holds = self.checked(holds)?;
        self.mark = holds.then(|| mark.clone());
        Ok(holds)
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
        let last = self.checked_failure(result)?;
        let mark = mark(&mut self.client, last.pass);
        self.mark = Some(self.checked(mark)?);
        Ok(last)
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
    /// [`StoreError::Emptied`] where this is not the database any more that was loaded.
    pub fn write(&mut self, batch: &Batch, results_per_node: u32) -> Result<(), StoreError> {
        if batch.is_empty() {
            return Ok(());
        }
        let is_news = self.results_per_node != Some(results_per_node);
        let kept = is_news.then_some(results_per_node);
        let result = write(&mut self.client, &mut self.rows, batch, kept, self.mark.as_ref());
        self.rows.clear();
        if !self.checked_failure(result)? {
            return Err(StoreError::Emptied);
        }
        if let Some(mark) = &mut self.mark {
            let newest = batch.passes.keys().max().copied().unwrap_or(0);
            mark.pass = mark.pass.max(i64::try_from(newest).unwrap_or(i64::MAX));
            mark.has_nodes |= !batch.nodes.is_empty();
        }
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

    /// Who is this database's crawler.
    fn holder(&mut self) -> Result<Option<Session>, StoreError> {
        // The start is hidden where the session is another role's: then it is none of ours either.
        let held = "SELECT l.pid, coalesce(a.backend_start::text, '')
            FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid
            WHERE l.locktype = 'advisory' AND l.objsubid = 1 AND l.granted
            AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
            AND (l.classid::bigint << 32 | l.objid::bigint) = $1";
        let row = self.client.query_opt(held, &[&CRAWLER_LOCK]);
        let Some(row) = self.checked(row)? else { return Ok(None) };
        let session = row
            .try_get(0)
            .and_then(|pid| row.try_get(1).map(|started_at| Session { pid, started_at }));
        self.checked(session).map(Some)
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

/// One row; nothing where it has none. The empty half of a base tells nothing: any row of either is one.
const MARK: &str = "SELECT identity::text, EXISTS (SELECT FROM passes p WHERE p.pass = $1),
        EXISTS (SELECT FROM node_rows) OR EXISTS (SELECT FROM result_journal j WHERE j.status IS NOT NULL)
    FROM store_state";

fn mark(client: &mut Client, pass: u64) -> Result<Mark, postgres::Error> {
    let pass = i64::try_from(pass).unwrap_or(i64::MAX);
    let row = client.query_one(MARK, &[&pass])?;
    Ok(Mark { identity: row.try_get(0)?, pass, has_nodes: row.try_get(2)? })
}

fn is_marked(
    client: &mut impl postgres::GenericClient,
    mark: &Mark,
) -> Result<bool, postgres::Error> {
    let Some(row) = client.query_opt(MARK, &[&mark.pass])? else { return Ok(false) };
    let (has_pass, has_nodes): (bool, bool) = (row.try_get(1)?, row.try_get(2)?);
    Ok(row.try_get::<_, &str>(0)? == mark.identity
        && (has_pass || mark.pass == 0)
        && (has_nodes || !mark.has_nodes))
}

/// A hand that emptied every table has taken this one's only row, too. Which bases are in use is seen from what is
/// left in them.
fn mend(client: &mut Client) -> Result<(), postgres::Error> {
    client.batch_execute(
        "INSERT INTO store_state (addresses_base, nodes_base)
        SELECT CASE WHEN EXISTS (SELECT FROM address_blocks_b) THEN 'b' ELSE 'a' END,
            CASE WHEN EXISTS (SELECT FROM node_rows_b) THEN 'b' ELSE 'a' END
        WHERE NOT EXISTS (SELECT FROM store_state)",
    )
}

/// Gives `false`, and writes nothing, where the database does not bear the mark any more.
fn write(
    client: &mut Client,
    rows: &mut Rows,
    batch: &Batch,
    results_per_node: Option<u32>,
    mark: Option<&Mark>,
) -> Result<bool, Failure> {
    let mut transaction = client.transaction()?;
    let t = &mut transaction;
    // A fold or a person's lock is waited for here: an error within a COPY may cost the connection.
    t.batch_execute(JOURNALS)?;
    if let Some(mark) = mark
        && !is_marked(t, mark)?
    {
        return Ok(false);
    }
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
    Ok(true)
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

/// Who is overdue by a week was excluded: it does not count for ever as what it was last.
const HISTORY: &str = "
    INSERT INTO history (pass, at, dimension, value, nodes)
    SELECT s.pass, s.finished_at, v.dimension, v.value, count(*)
    FROM passes s CROSS JOIN nodes n CROSS JOIN LATERAL (VALUES
        ('status', n.status), ('species', n.species), ('user_agent', n.user_agent),
        ('protocol_version', n.protocol_version::text), ('country', n.country), ('asn', n.asn::text),
        ('port', n.port::text), ('services', n.services::text)) v (dimension, value)
    WHERE s.pass = $1 AND v.value IS NOT NULL AND (n.status = 'up' OR v.dimension = 'status')
        AND n.next_probe > s.started_at - interval '7 days'
    GROUP BY s.pass, s.finished_at, v.dimension, v.value ORDER BY v.dimension, v.value";
