//! The fold: bases written anew out of the former bases and the journals, which are empty afterwards.
//!
//! Layer 3. What a base holds afterwards is what its view showed before, save for what is forgotten and
//! trimmed; so a fold is nothing but INSERT ... SELECT out of the functions that the views read, too.
//! Invariants: 1. a fold is one transaction: killed at any moment, it has happened or not; 2. readers wait for it
//! only while tables are emptied, and a reader who does not end makes it fail before anything was written;
//! 3. nothing that is newer than the newest word heard is ever too old: a clock that jumped forgets nobody.

use std::fmt;
use std::time::Duration;

use postgres::{Client, Transaction};

use super::copy::read_time;
use super::store::{Failure, ROOM};
use crate::crawl::time::UnixTime;

/// When to fold, and what is dropped by it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoldParams {
    /// So long after the former fold the next one is due,
    pub interval: Duration,
    /// if the journal has grown to so many percent of its base: a fold writes the whole base anew, and the
    /// more there is of it, the more must have come together to be worth that.
    pub least_percent: u32,
    /// A candidate that nobody has named for so long is dropped.
    pub forget_after: Duration,
}

impl Default for FoldParams {
    fn default() -> Self {
        const DAY: u64 = 86_400;
        Self {
            // A little less than a day, so that it happens in the same pass of every day.
            interval: Duration::from_secs(DAY - 1_800),
            least_percent: 75,
            forget_after: Duration::from_secs(30 * DAY),
        }
    }
}

/// What a fold wrote.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct FoldReport {
    /// The relation: addresses (and with them the sources), or nodes (and with them their results).
    pub relation: &'static str,
    /// How many rows it has now.
    pub rows: u64,
}

impl fmt::Display for FoldReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "relation={} rows={}", self.relation, self.rows)
    }
}

/// Tables that are folded together.
struct Group {
    relation: &'static str,
    base_column: &'static str,
    folded_at_column: &'static str,
    journals: &'static [&'static str],
    bases: &'static [&'static str],
    /// `{base}` stands for the letter of the base to fill; the first statement returns how many rows there are.
    fill: &'static [&'static str],
}

/// Fifty-eight addresses are as many as fit into a row that is not moved out of line, four rows to a page.
const ADDRESSES: Group = Group {
    relation: "addresses",
    base_column: "addresses_base",
    folded_at_column: "addresses_folded_at",
    journals: &["address_journal", "source_journal"],
    bases: &["address_blocks", "source_rows"],
    fill: &[
        "WITH written AS (
            INSERT INTO address_blocks_{base} (lowest, highest, keys, first_heard, last_heard, source, failures,
                last_probed, outcome, next_probe)
            SELECT min(key), max(key), array_agg(key), array_agg(first_heard), array_agg(last_heard),
                array_agg(source), array_agg(failures), array_agg(last_probed), array_agg(outcome),
                array_agg(next_probe)
            FROM (
                SELECT a.*, (row_number() OVER (ORDER BY a.key) - 1) / 58 AS block
                FROM address_state(0, 281474976710655) a
                WHERE a.last_heard >= {oldest}
                    OR a.key IN (SELECT n.key FROM node_keys(0, 281474976710655) n)
            ) kept GROUP BY block
            RETURNING cardinality(keys))
        SELECT coalesce(sum(cardinality), 0)::bigint FROM written",
        "INSERT INTO source_rows_{base} (source, tried, answered)
            SELECT source, tried, answered FROM source_state",
    ],
};

const NODES: Group = Group {
    relation: "nodes",
    base_column: "nodes_base",
    folded_at_column: "nodes_folded_at",
    journals: &["result_journal"],
    bases: &["node_rows", "probe_rows"],
    fill: &[
        "WITH written AS (
            INSERT INTO node_rows_{base} (key, services, first_seen, last_seen, last_probed, next_probe, peers_asked_at,
                peers_sent, failures, protocol_version, start_height, connect_ms, version_ms, outcome, relay,
                status, species, user_agent)
            SELECT key, services, first_seen, last_seen, last_probed, next_probe, peers_asked_at,
                peers_sent, failures, protocol_version, start_height, connect_ms, version_ms, outcome, relay,
                status, species, user_agent
            FROM node_state(0, 281474976710655) ORDER BY key
            RETURNING 1)
        SELECT count(*) FROM written",
        "INSERT INTO probe_rows_{base} (key, pass, at, services, protocol_version, start_height, connect_ms,
            version_ms, peers_sent, outcome, user_agent)
        SELECT key, pass, at, services, protocol_version, start_height, connect_ms,
            version_ms, peers_sent, outcome, user_agent
        FROM probe_state(0, 281474976710655) ORDER BY key, pass",
    ],
};

/// A fold waits so long for readers before it gives up.
const READERS_WAIT: &str = "SET LOCAL lock_timeout = '2s'";

/// Journals this much larger than twice their bases are folded whatever the clock says.
const LARGE: i64 = 64 * 1024 * 1024;
/// Bases up to this size are folded however small the journal is.
const SMALL: i64 = 1024 * 1024;

/// Folds the first relation that is due; `None` if none is.
pub(super) fn if_due(
    client: &mut Client,
    now: UnixTime,
    params: &FoldParams,
) -> Result<Option<FoldReport>, Failure> {
    // Whether an address is a node is asked of both: neither order loses anything.
    for group in [&ADDRESSES, &NODES] {
        if is_due(client, group, now, params)? {
            let rows = fold(client, group, now, params)?;
            return Ok(Some(FoldReport { relation: group.relation, rows }));
        }
    }
    Ok(None)
}

fn is_due(
    client: &mut Client,
    group: &Group,
    now: UnixTime,
    params: &FoldParams,
) -> Result<bool, Failure> {
    let size = |names: &[&str]| -> String {
        let each: Vec<String> =
            names.iter().map(|name| format!("pg_relation_size('{name}')")).collect();
        each.join(" + ")
    };
    let bases: Vec<String> =
        group.bases.iter().flat_map(|base| [format!("{base}_a"), format!("{base}_b")]).collect();
    let bases: Vec<&str> = bases.iter().map(String::as_str).collect();
    let sql = format!(
        "SELECT {}, {}, {}::text FROM store_state",
        size(group.journals),
        size(&bases),
        group.folded_at_column
    );
    let row = client.query_one(&sql, &[])?;
    let (journal, base): (i64, i64) = (row.try_get(0)?, row.try_get(1)?);
    // "-infinity" before the first one. A time in the future is that of a clock that had jumped.
    let folded_at = read_time(row.try_get(2)?).filter(|at| *at <= now);
    let is_old = folded_at.is_none_or(|at| now.since(at) >= params.interval);
    let least = (base.saturating_sub(SMALL)).saturating_mul(params.least_percent.into()) / 100;
    let is_large = journal > base.saturating_mul(2).saturating_add(LARGE);
    Ok(journal > 0 && ((is_old && journal >= least) || is_large))
}

fn fold(
    client: &mut Client,
    group: &Group,
    now: UnixTime,
    params: &FoldParams,
) -> Result<u64, Failure> {
    let (old, new) = clear_the_way(client, group)?;
    let mut transaction = client.transaction()?;
    let t = &mut transaction;
    t.batch_execute("SET LOCAL statement_timeout = 0")?;
    t.batch_execute(ROOM)?;
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
    t.batch_execute(READERS_WAIT)?;
    t.batch_execute(&empty(group, Some(old)))?;
    let done = format!(
        "UPDATE store_state SET {} = '{new}', {} = to_timestamp({})",
        group.base_column,
        group.folded_at_column,
        now.as_secs()
    );
    t.batch_execute(&done)?;
    transaction.commit()?;
    Ok(u64::try_from(written).unwrap_or(0))
}

/// Frees what a fold that was cut short left in the empty base, and finds out before any work is done whether
/// a reader is in the way. Gives the letters of the base in use and of the one to fill.
fn clear_the_way(
    client: &mut Client,
    group: &Group,
) -> Result<(&'static str, &'static str), Failure> {
    let mut t = client.transaction()?;
    t.batch_execute(READERS_WAIT)?;
    let sql = format!("SELECT {} = 'a' FROM store_state", group.base_column);
    let (old, new) = if t.query_one(&sql, &[])?.try_get(0)? { ("a", "b") } else { ("b", "a") };
    t.batch_execute(&format!(
        "LOCK TABLE {} IN ACCESS EXCLUSIVE MODE; {}",
        group.journals.join(", "),
        empty(&Group { journals: &[], ..*group }, Some(new))
    ))?;
    t.commit()?;
    Ok((old, new))
}

/// The statement that empties the journals and the bases of a letter.
fn empty(group: &Group, base: Option<&str>) -> String {
    let bases = group.bases.iter().flat_map(|name| base.map(|base| format!("{name}_{base}")));
    let tables: Vec<String> = group.journals.iter().map(ToString::to_string).chain(bases).collect();
    format!("TRUNCATE {}", tables.join(", "))
}

/// The oldest `last_heard` that is kept, in seconds since 2000: counted from the newest word heard, since nobody
/// names anything while we do not listen, and a clock may have jumped.
fn oldest(t: &mut Transaction, now: UnixTime, params: &FoldParams) -> Result<i64, Failure> {
    let newest: Option<i32> =
        t.query_one("SELECT max(heard_at) FROM address_journal", &[])?.try_get(0)?;
    let newest = newest.map_or(0, i64::from).min(now.as_secs() - 946_684_800);
    let forget_after = i64::try_from(params.forget_after.as_secs()).unwrap_or(i64::MAX);
    Ok(newest.saturating_sub(forget_after))
}
