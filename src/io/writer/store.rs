//! `Store`: batches into PostgreSQL, and what is known out of it.
//!
//! Layer 3. Invariants: 1. a batch is written whole or not at all; 2. `write` returns `Ok` only after COMMIT
//! came back; 3. writing a batch twice changes nothing the second time; 4. no value of a row, whatever it
//! holds, makes reading fail: such a row is skipped and counted.

use std::io::{BufRead, Write};
use std::time::Duration;

use postgres::{Client, IsolationLevel, Transaction};

use super::connect::{connect, pause};
use super::copy::{Fields, Rows, read_time};
use super::error::StoreError;
use super::merge;
use super::schema::{self, Migrated};
use crate::crawl::address::Address;
use crate::crawl::batch::{Batch, Known, KnownNode, LastPass, PassRow, SourceRow};
use crate::crawl::target::VersionInfo;

/// A connection to the database that takes batches.
pub struct Store {
    client: Client,
    backend_pid: i32,
    rows: Rows,
}

/// Held by the one crawler of a database as long as its connection lives. "bitdash" and 2.
const CRAWLER_LOCK: i64 = 0x6269_7464_6173_6802;

/// So often a crawler tries, a fifth of a second apart, while a former session ends.
const LOCK_ATTEMPTS: u32 = 10;

impl Store {
    /// Connects to the database that `url` names and makes this session's staging tables.
    ///
    /// # Errors
    /// Transient while the database is away or starts up; permanent where a person has to act.
    pub fn connect(url: &str) -> Result<Self, StoreError> {
        let mut client = connect(url)?;
        let made = client
            .batch_execute(merge::STAGING)
            .and_then(|()| client.query_one("SELECT pg_backend_pid()", &[])?.try_get(0));
        let backend_pid =
            made.map_err(|error| StoreError::of_statement(&error, client.is_closed()))?;
        Ok(Self { client, backend_pid, rows: Rows::default() })
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
        let result = load(&mut self.client, each);
        result.map_err(|failure| failure.into_error(self.client.is_closed()))
    }

    /// Reads what is known of each source, by the upper 16 bits of its addresses.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn load_sources(&mut self, each: &mut dyn FnMut(u16, SourceRow)) -> Result<(), StoreError> {
        let rows = self.client.query("SELECT source, tried, answered FROM sources", &[]);
        for row in self.checked(rows)? {
            let figure = |index| self.checked(row.try_get::<_, i32>(index));
            let (source, tried, answered) = (figure(0)?, figure(1)?, figure(2)?);
            // The table's own checks hold all three in range.
            if let (Ok(source), Ok(tried), Ok(answered)) =
                (u16::try_from(source), u32::try_from(tried), u32::try_from(answered))
            {
                each(source, SourceRow { tried, answered });
            }
        }
        Ok(())
    }

    /// Writes a batch in one transaction and keeps `results_per_node` rows of `probes` of each of its nodes.
    ///
    /// # Errors
    /// Nothing of the batch is written then, or all of it where the reply to COMMIT was lost: write it again.
    pub fn write(&mut self, batch: &Batch, results_per_node: u32) -> Result<(), StoreError> {
        let result = write(&mut self.client, &mut self.rows, batch, results_per_node);
        self.rows.clear();
        result.map_err(|failure| failure.into_error(self.client.is_closed()))
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
}

/// An error inside a transaction, where the connection cannot be asked whether it lives.
enum Failure {
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

fn write(
    client: &mut Client,
    rows: &mut Rows,
    batch: &Batch,
    results_per_node: u32,
) -> Result<(), Failure> {
    if batch.is_empty() {
        return Ok(());
    }
    let mut transaction = client.transaction()?;
    let t = &mut transaction;
    stage(t, rows, "stage_heard", &batch.heard, |rows, (address, row)| {
        rows.address(*address).time(row.at).time(row.next_probe).int(row.source);
    })?;
    stage(t, rows, "stage_failed", &batch.failed, |rows, (address, row)| {
        rows.address(*address).small(row.failures).time(row.last_probed);
        rows.text(row.last_outcome.as_str()).time(row.next_probe);
    })?;
    stage_nodes(t, rows, batch)?;
    stage_probes(t, rows, batch)?;
    stage(t, rows, "stage_names", batch.names.iter().flatten(), |rows, (address, name)| {
        rows.address(*address).text(name);
    })?;
    stage_passes(t, rows, batch)?;
    stage(t, rows, "stage_sources", &batch.sources, |rows, (source, row)| {
        rows.int(*source).small(row.tried).small(row.answered.min(row.tried));
    })?;
    stage(t, rows, "stage_forgotten", &batch.forgotten, |rows, address| {
        rows.address(*address);
    })?;

    for (is_wanted, merge) in [
        (!batch.heard.is_empty(), merge::HEARD),
        (!batch.failed.is_empty(), merge::FAILED),
        (!batch.nodes.is_empty(), merge::NODES),
        (!batch.probes.is_empty(), merge::PROBES),
        (batch.names.is_some(), merge::NAMES),
        (!batch.passes.is_empty(), merge::PASSES),
        (!batch.sources.is_empty(), merge::SOURCES),
        (!batch.forgotten.is_empty(), merge::FORGOTTEN),
    ] {
        if is_wanted {
            t.batch_execute(merge)?;
        }
    }
    if !batch.probes.is_empty() {
        t.execute(merge::TRIM, &[&i64::from(results_per_node)])?;
    }
    transaction.commit()?;
    Ok(())
}

fn stage_nodes(t: &mut Transaction, rows: &mut Rows, batch: &Batch) -> Result<(), Failure> {
    stage(t, rows, "stage_nodes", &batch.nodes, |rows, (address, row)| {
        let seen = row.seen.as_ref();
        let version = seen.map(|seen| &seen.version);
        rows.address(*address).text(row.status.as_str()).time(row.last_probed);
        rows.text(row.last_outcome.as_str()).small(row.failures).time(row.next_probe);
        rows.opt_time(seen.map(|seen| seen.at)).opt_text(seen.map(|seen| seen.species));
        version_fields(rows, version);
        rows.opt_bool(version.and_then(|version| version.relay));
        rows.opt_small(seen.and_then(|seen| seen.connect_ms));
        rows.opt_small(seen.and_then(|seen| seen.version_ms));
        rows.opt_time(row.peers.map(|(at, _)| at)).opt_small(row.peers.map(|(_, sent)| sent));
    })
}

fn stage_probes(t: &mut Transaction, rows: &mut Rows, batch: &Batch) -> Result<(), Failure> {
    stage(t, rows, "stage_probes", &batch.probes, |rows, row| {
        rows.address(row.address).count(row.pass).time(row.probed_at);
        rows.text(row.outcome.as_str());
        version_fields(rows, row.version.as_ref());
        rows.opt_small(row.connect_ms).opt_small(row.version_ms).opt_small(row.peers_sent);
    })
}

fn stage_passes(t: &mut Transaction, rows: &mut Rows, batch: &Batch) -> Result<(), Failure> {
    stage(t, rows, "stage_passes", &batch.passes, |rows, (pass, row)| {
        rows.count(*pass).time(row.started_at).opt_time(row.finished_at);
        rows.count(row.probed).count(row.responded).count(row.failed);
        rows.count(row.new_nodes).count(row.new_addresses);
    })
}

/// The four fields that `stage_nodes` and `stage_probes` have in common, in their order.
fn version_fields(rows: &mut Rows, version: Option<&VersionInfo>) {
    rows.opt_int(version.map(|version| version.protocol_version));
    rows.opt_text(version.and_then(|version| version.user_agent.as_deref()));
    rows.opt_bits(version.map(|version| version.services));
    rows.opt_int(version.and_then(|version| version.start_height));
}

/// Copies `items` into a staging table; sends nothing where there are none.
fn stage<T>(
    transaction: &mut Transaction,
    rows: &mut Rows,
    table: &str,
    items: impl IntoIterator<Item = T>,
    mut fill: impl FnMut(&mut Rows, T),
) -> Result<(), Failure> {
    const CHUNK: usize = 64 * 1024;
    let mut items = items.into_iter().peekable();
    if items.peek().is_none() {
        return Ok(());
    }
    let mut writer = transaction.copy_in(&format!("COPY {table} FROM STDIN"))?;
    rows.clear();
    for item in items {
        fill(rows, item);
        rows.end();
        if rows.as_bytes().len() >= CHUNK {
            writer.write_all(rows.as_bytes())?;
            rows.clear();
        }
    }
    writer.write_all(rows.as_bytes())?;
    writer.finish()?;
    // A fresh table has no statistics: without these the planner takes it for a handful of rows.
    transaction.batch_execute(&format!("ANALYZE {table}"))?;
    Ok(())
}

fn load(client: &mut Client, each: &mut dyn FnMut(Known)) -> Result<LastPass, Failure> {
    let mut transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()?;
    transaction.batch_execute("SET LOCAL statement_timeout = 0")?;
    let last = last_pass(&mut transaction)?;
    let mut reader = transaction.copy_out(merge::LOAD)?;
    let (mut line, mut skipped) = (Vec::new(), 0_u64);
    while reader.read_until(b'\n', &mut line)? > 0 {
        match known_of(&line) {
            Some(known) => each(known),
            None => skipped += 1,
        }
        line.clear();
    }
    drop(reader);
    transaction.commit()?;
    if skipped > 0 {
        log::warn!("load skipped_rows={skipped} error=\"rows of the database that make no sense\"");
    }
    Ok(last)
}

fn last_pass(transaction: &mut Transaction) -> Result<LastPass, Failure> {
    let Some(row) = transaction.query_opt(merge::LAST_PASS, &[])? else {
        return Ok(LastPass::default());
    };
    let time = |index| -> Result<_, postgres::Error> {
        Ok(row.try_get::<_, Option<&str>>(index)?.and_then(read_time))
    };
    let count = |index| -> Result<u64, postgres::Error> {
        Ok(u64::try_from(row.try_get::<_, i64>(index)?).unwrap_or(0))
    };
    Ok(LastPass {
        pass: count(0)?,
        row: PassRow {
            started_at: time(1)?.unwrap_or_default(),
            finished_at: time(2)?,
            probed: count(3)?,
            responded: count(4)?,
            failed: count(5)?,
            new_nodes: count(6)?,
            new_addresses: count(7)?,
        },
    })
}

/// One row of [`merge::LOAD`]; `None` where a value makes no sense.
fn known_of(line: &[u8]) -> Option<Known> {
    let mut fields = Fields::of(line)?;
    let address: Address = fields.address()?;
    let last_heard = fields.time()?;
    let failures = fields.small()?;
    let last_probed = fields.opt(read_time)?;
    let last_outcome = fields.opt(|word| word.parse().ok())?;
    let next_probe = fields.time()?;
    let source = u16::try_from(fields.small()?).ok()?;
    let last_seen = fields.opt(read_time)?;
    let peers_asked_at = fields.opt(read_time)?;
    let peers_sent = fields.opt(|number| number.parse().ok())?;
    let is_trb = fields.value()? == "t";
    let node =
        last_seen.map(|last_seen| KnownNode { last_seen, peers_asked_at, peers_sent, is_trb });
    Some(Known {
        address,
        last_heard,
        failures,
        last_probed,
        last_outcome,
        next_probe,
        source,
        node,
    })
}
