//! Compaction: merges the journals into fresh base tables and empties them.
//!
//! The new base holds what its view showed before, except for expired candidates and surplus
//! results. So compaction is `INSERT ... SELECT` from the queries that readers use too. Invariants:
//! 1. A compaction is one transaction: killed at any time, it has happened or not.
//! 2. Readers wait only while tables are truncated. A reader that does not end makes a compaction
//!    fail before it writes anything.
//! 3. Age is measured from the newest `heard_at`: a jump of the clock expires no candidate.

use std::fmt;
use std::time::Duration;

use bitdash_core::vocabulary::time::UnixTime;
use postgres::{Client, Error, Transaction};

use super::journal::EPOCH_SECS;
use super::store::PLANNING;
use crate::db::timestamp::Timestamp;

/// When to compact, and what to drop.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactionParams {
    /// Minimum time between compactions of addresses; results wait for twice as long.
    pub interval: Duration,
    /// Minimum size of the journals, in percent of the base, which is rewritten as a whole.
    pub min_percent: u32,
    /// A candidate that no node named for this long is dropped.
    pub forget_after: Duration,
}

impl Default for CompactionParams {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            // A little less than a day, so that it happens in the same pass of every day.
            interval: Duration::from_secs(DAY - 1_800),
            min_percent: 75,
            forget_after: Duration::from_secs(30 * DAY),
        }
    }
}

/// The result of a compaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CompactionReport {
    /// `addresses` (with the sources) or `probes`.
    pub relation: &'static str,
    /// Number of rows that it has now.
    pub rows: u64,
}

impl fmt::Display for CompactionReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "relation={} rows={}", self.relation, self.rows)
    }
}

/// Tables that are compacted together.
struct Group {
    relation: &'static str,
    /// Multiple of [`CompactionParams::interval`].
    intervals: u32,
    journals: &'static [&'static str],
    /// Base tables, of which there are two each: `_a` and `_b`.
    bases: &'static [&'static str],
    /// All tables in the order in which the views lock them.
    lock: &'static str,
    /// Statements that fill the bases, with placeholders `{base}` and `{oldest}`. The first one
    /// returns the number of rows.
    fill: &'static [&'static str],
    /// Further statements under the lock.
    rewrite: &'static str,
}

/// 58 addresses are the most that fit into a row which is not moved out of line, four rows to a
/// page.
const ADDRESSES: Group = Group {
    relation: "addresses",
    intervals: 1,
    journals: &["source_journal", "address_journal"],
    bases: &["source_rows", "address_blocks"],
    lock: "source_rows_a, source_rows_b, source_journal, address_journal, address_blocks_a, address_blocks_b",
    fill: &[
        "WITH written AS (
            INSERT INTO address_blocks_{base}
            SELECT min(key), max(key), array_agg(key), array_agg(first_heard), array_agg(last_heard),
                array_agg(source), array_agg(failures), array_agg(last_probed), array_agg(outcome),
                array_agg(next_probe)
            FROM (
                SELECT a.*, (row_number() OVER (ORDER BY a.key) - 1) / 58 AS block
                FROM address_state(0, 281474976710655) a
                WHERE a.last_heard >= {oldest}
                    OR a.key IN (SELECT bitdash_internal.key(n.host, n.port) FROM nodes n)
            ) kept GROUP BY block
            RETURNING cardinality(keys))
        SELECT coalesce(sum(cardinality), 0)::bigint FROM written",
        "INSERT INTO source_rows_{base} SELECT * FROM source_state",
    ],
    rewrite: "",
};

/// Sorts the nodes, so that those which are due in the same pass share pages: after a checkpoint,
/// the first update of a page logs the whole page.
const SORT_NODES: &str = "CREATE TEMPORARY TABLE sorted_nodes ON COMMIT DROP AS
        SELECT * FROM nodes ORDER BY next_probe;
    TRUNCATE nodes; INSERT INTO nodes SELECT * FROM sorted_nodes";

const PROBES: Group = Group {
    relation: "probes",
    // A day's results outnumber those that are kept: the whole base is rewritten for them.
    intervals: 2,
    journals: &["probe_journal"],
    bases: &["probe_rows"],
    lock: "probe_rows_a, probe_rows_b, probe_journal, nodes",
    fill: &["WITH written AS (
            INSERT INTO probe_rows_{base}
            SELECT key, pass, at, services, protocol_version, start_height, connect_ms, version_ms, peers_sent,
                outcome, user_agent
            FROM probe_state ORDER BY key, pass
            RETURNING 1)
        SELECT count(*) FROM written"],
    rewrite: SORT_NODES,
};

/// How long a compaction waits for readers before it gives up.
const LOCK_TIMEOUT: &str = "SET LOCAL lock_timeout = '2s'";

/// Journals larger than twice their base plus this are compacted at any time.
const LARGE_JOURNAL_THRESHOLD: i64 = 64 * 1024 * 1024;
/// Bases up to this size are compacted with any journal.
const SMALL_BASE_THRESHOLD: i64 = 1024 * 1024;

/// Compacts the first relation for which that is due; `None` if there is none.
pub(super) fn if_due(
    client: &mut Client,
    now: UnixTime,
    params: &CompactionParams,
) -> Result<Option<CompactionReport>, Error> {
    for group in [&ADDRESSES, &PROBES] {
        if is_due(client, group, now, params)? {
            let rows = compact(client, group, now, params)?;
            return Ok(Some(CompactionReport { relation: group.relation, rows }));
        }
    }
    Ok(None)
}

fn is_due(
    client: &mut Client,
    group: &Group,
    now: UnixTime,
    params: &CompactionParams,
) -> Result<bool, Error> {
    let size = |name: &str| format!("pg_relation_size('{name}')");
    let journals: Vec<String> = group.journals.iter().map(|name| size(name)).collect();
    let base_size = |base: &&str| size(&format!("{base}_a")) + " + " + &size(&format!("{base}_b"));
    let bases: Vec<String> = group.bases.iter().map(base_size).collect();
    let sql = format!(
        "SELECT {}, {}, {}_compacted_at FROM store_state",
        journals.join(" + "),
        bases.join(" + "),
        group.relation
    );
    let row = client.query_one(&sql, &[])?;
    let (journal, base): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    // It is "-infinity" before the first one. A time in the future is that of a clock that had
    // jumped.
    let compacted_at = row.try_get::<_, Timestamp>(2)?.finite().filter(|at| *at <= now);
    let is_old = compacted_at.is_none_or(|at| now.since(at) >= params.interval * group.intervals);
    let large_base = base.saturating_sub(SMALL_BASE_THRESHOLD);
    let min = large_base.saturating_mul(params.min_percent.into()) / 100;
    let is_large = journal > base.saturating_mul(2).saturating_add(LARGE_JOURNAL_THRESHOLD);
    Ok(journal > 0 && ((is_old && journal >= min) || is_large))
}

fn compact(
    client: &mut Client,
    group: &Group,
    now: UnixTime,
    params: &CompactionParams,
) -> Result<u64, Error> {
    let (old, new) = prepare(client, group)?;
    let mut transaction = client.transaction()?;
    let t = &mut transaction;
    t.batch_execute("SET LOCAL statement_timeout = 0")?;
    t.batch_execute(PLANNING)?;
    let oldest = oldest(t, now, params)?;
    let mut written = 0_i64;
    for (index, statement) in group.fill.iter().enumerate() {
        let sql = statement.replace("{base}", new).replace("{oldest}", &oldest.to_string());
        if index == 0 {
            written = t.query_one(&sql, &[])?.try_get(0)?;
        } else {
            t.batch_execute(&sql)?;
        }
    }
    lock(t, group)?;
    let old_bases = group.bases.iter().map(|base| format!("{base}_{old}"));
    let emptied: Vec<String> =
        group.journals.iter().map(ToString::to_string).chain(old_bases).collect();
    t.batch_execute(&format!("TRUNCATE {}; {}", emptied.join(", "), group.rewrite))?;
    let done = format!("UPDATE store_state SET {}_compacted_at = $1", group.relation);
    t.execute(&done, &[&Timestamp(UnixTime::from_secs(now.as_secs()))])?;
    transaction.commit()?;
    Ok(u64::try_from(written).unwrap_or(0))
}

/// Empties the base that is not in use, since an interrupted compaction may have left pages in it.
/// The base that has rows is in use. Fails if a reader holds a lock. Returns the letters of the
/// base in use and of the one to fill.
fn prepare(client: &mut Client, group: &Group) -> Result<(&'static str, &'static str), Error> {
    let mut t = client.transaction()?;
    lock(&mut t, group)?;
    let has_rows = |letter| {
        let each = group.bases.iter().map(|base| format!("EXISTS (SELECT FROM {base}_{letter})"));
        each.collect::<Vec<_>>().join(" OR ")
    };
    let row = t.query_one(&format!("SELECT {}, {}", has_rows('a'), has_rows('b')), &[])?;
    let (old, new) = match (row.try_get(0)?, row.try_get(1)?) {
        (true, true) => {
            t.batch_execute("DO $$ BEGIN RAISE 'both bases have rows: restore a backup'; END $$")?;
            unreachable!("the statement fails")
        }
        (false, true) => ("b", "a"),
        (_, false) => ("a", "b"),
    };
    let bases: Vec<String> = group.bases.iter().map(|base| format!("{base}_{new}")).collect();
    t.batch_execute(&format!("TRUNCATE {}", bases.join(", ")))?;
    t.commit()?;
    Ok((old, new))
}

fn lock(t: &mut Transaction, group: &Group) -> Result<(), Error> {
    t.batch_execute(&format!("{LOCK_TIMEOUT}; LOCK TABLE {} IN ACCESS EXCLUSIVE MODE", group.lock))
}

/// After the wall clock was set nothing expires for this long; a later time is that of a clock that
/// ran ahead.
const KEPT_AFTER_CLOCK_STEP: Duration = Duration::from_secs(86_400);

/// The oldest `last_heard` to keep, in seconds since 2000. It is counted from the newest one, since
/// no address is heard of while the crawler is stopped, and a clock may have jumped.
fn oldest(t: &mut Transaction, now: UnixTime, params: &CompactionParams) -> Result<i64, Error> {
    let newest: Option<i32> =
        t.query_one("SELECT max(heard_at) FROM address_journal", &[])?.try_get(0)?;
    let newest = newest.map_or(0, i64::from).min(now.as_secs() - EPOCH_SECS);
    let kept = super::load::forgets_from(t)?;
    if kept.is_some_and(|until| now < until && until <= now.plus(KEPT_AFTER_CLOCK_STEP)) {
        return Ok(i64::from(i32::MIN));
    }
    let forget_after = i64::try_from(params.forget_after.as_secs()).unwrap_or(i64::MAX);
    Ok(newest.saturating_sub(forget_after))
}
