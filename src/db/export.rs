//! What exports read: nodes in pages, each with its uptime, computed from the rolls.
//!
//! Memory is a few bytes per node known, whatever the number of columns and passes.

use std::cmp::Reverse;
use std::net::IpAddr;

use postgres::types::ToSql;
use postgres::{Error, Row, Transaction};

use crate::db::StoreError;
use crate::db::reader::{NodeFacts, Reader, ip, node_facts, now};
use crate::db::timestamp::Timestamp;

/// Rows of one page.
pub(super) const PAGE: i32 = 1_000;
/// Rolls of one page: with a million nodes a roll is 250 kB.
pub(super) const ROLLS: i32 = 8;

/// A time before the newest pass.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Period {
    /// Hours.
    Hours(i32),
    /// All passes since the node is known.
    All,
}

/// The nodes to export, and what is computed for each.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExportQuery<'p> {
    /// Only nodes that are up.
    pub is_up_only: bool,
    /// The highest share in the last period first, then in the one before it, then the highest
    /// protocol version. Otherwise by address.
    pub is_by_uptime: bool,
    /// Whether to compute the start of the unbroken run.
    pub has_up_since: bool,
    /// Periods to compute the uptime of.
    pub periods: &'p [Period],
    /// Which nodes were up, and since when, is told by the last pass that ended at this time or
    /// before; everything else is as of now.
    pub at: Option<Timestamp>,
}

/// How an export ended.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Exported {
    /// Everything was handed over, as far as it was wanted.
    Done,
    /// No pass that is kept had ended by the wanted time. The oldest one ended at this time, if
    /// there is one.
    TooOld(Option<Timestamp>),
}

/// Figures of the whole map.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ExportTotals {
    /// End of the pass: the last finished one, or that of [`ExportQuery::at`]. The time of the
    /// snapshot before the first.
    pub at: Timestamp,
    /// Number of nodes up.
    pub up: i64,
    /// Whether user agents, heights and places are newer than the pass.
    pub is_approximate: bool,
    /// The most common height of nodes up, the highest among equals.
    pub tip: Option<i32>,
}

/// A node to export.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ExportRow {
    /// Its row.
    pub node: NodeFacts,
    /// For each period the share of the passes in which it answered or was full, in 1/10,000.
    pub shares: Vec<Option<u16>>,
    /// Start of the unbroken run of passes in which it answered or was full.
    pub up_since: Option<Timestamp>,
}

/// Number of nodes up with a user agent.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct AgentCount {
    /// The user agent; empty for nodes that sent none.
    pub agent: String,
    /// Number of nodes.
    pub up: i64,
}

/// Share of the passes of a period by ordinal, in 1/10,000; [`NO_SHARE`] without a pass.
type Shares = Vec<u16>;
const NO_SHARE: u16 = u16::MAX;

pub(super) const NODES: &str = "SELECT n.*, o.ordinal FROM nodes n
    LEFT JOIN roll_nodes o ON o.host = n.host AND o.port = n.port";

/// The pass of [`ExportQuery::at`].
struct PastPass {
    pass: i64,
    at: Timestamp,
    up: Vec<u8>,
}

impl Reader {
    /// Reads the nodes that `query` wants: `each` gets them in pages, then an empty page, and
    /// returns whether to go on.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn export(
        &mut self,
        query: &ExportQuery,
        each: &mut dyn FnMut(&ExportTotals, &[ExportRow]) -> bool,
    ) -> Result<Exported, StoreError> {
        self.read(|t| {
            let past = match query.at {
                None => None,
                Some(at) => match past_pass(t, at)? {
                    Ok(past) => Some(past),
                    Err(oldest) => return Ok(Exported::TooOld(oldest)),
                },
            };
            let totals = totals(t, past.as_ref())?;
            let shares: Vec<Shares> =
                query.periods.iter().map(|period| shares(t, *period)).collect::<Result<_, _>>()?;
            let last_pass = past.as_ref().map_or(i64::MAX, |past| past.pass);
            let runs = if query.has_up_since { runs(t, last_pass)? } else { Vec::new() };
            let row = |row: &Row| export_row(row, &shares, &runs);
            let mut page = |rows: &[Row]| -> Result<bool, Error> {
                let rows: Vec<_> = rows.iter().map(row).collect::<Result<_, _>>()?;
                Ok(each(&totals, &rows))
            };
            let goes_on = if query.is_by_uptime {
                by_uptime(t, query, &shares, &mut page)?
            } else if let Some(past) = &past {
                let sql = format!("{NODES} WHERE {WAS_UP} ORDER BY n.host, n.port");
                paged(t, &sql, &[&past.up], PAGE, &mut page)?
            } else {
                let sql = format!("{NODES} WHERE {} ORDER BY n.host, n.port", condition(query));
                paged(t, &sql, &[], PAGE, &mut page)?
            };
            if goes_on {
                page(&[])?;
            }
            Ok(Exported::Done)
        })
    }

    /// Reads the user agents of nodes up with the number of their nodes, in pages.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn agents(
        &mut self,
        each: &mut dyn FnMut(&[AgentCount]) -> bool,
    ) -> Result<(), StoreError> {
        let sql = "SELECT coalesce(user_agent, '') COLLATE \"C\" AS agent, count(*) FROM nodes
            WHERE status = 'up' GROUP BY 1 ORDER BY 2 DESC, 1";
        self.read(|t| {
            let agent = |row: &Row| Ok(AgentCount { agent: row.try_get(0)?, up: row.try_get(1)? });
            let page = &mut |rows: &[Row]| {
                let agents: Vec<_> = rows.iter().map(agent).collect::<Result<_, Error>>()?;
                Ok(each(&agents))
            };
            paged(t, sql, &[], PAGE, page).map(|_| ())
        })
    }
}

fn condition(query: &ExportQuery) -> &'static str {
    if query.is_up_only { "n.status = 'up'" } else { "true" }
}

/// Reads the rows of a query in pages, until `each` returns `false`; returns whether it never did.
pub(super) fn paged(
    t: &mut Transaction,
    sql: &str,
    values: &[&(dyn ToSql + Sync)],
    page: i32,
    each: &mut dyn FnMut(&[Row]) -> Result<bool, Error>,
) -> Result<bool, Error> {
    let portal = t.bind(sql, values)?;
    loop {
        let rows = t.query_portal(&portal, page)?;
        if rows.is_empty() {
            return Ok(true);
        }
        if !each(&rows)? {
            return Ok(false);
        }
    }
}

/// Whether a node was up in the roll `$1`. A node that is newer than the roll has no bit.
const WAS_UP: &str = "CASE WHEN o.ordinal < 8 * length($1::bytea) THEN get_bit($1::bytea, o.ordinal) = 1 ELSE false END";

/// The last pass that had ended at a time, or the end of the oldest one that is kept.
fn past_pass(
    t: &mut Transaction,
    at: Timestamp,
) -> Result<Result<PastPass, Option<Timestamp>>, Error> {
    let last = "SELECT pass, at, up FROM rolls WHERE at <= $1 ORDER BY at DESC, pass DESC LIMIT 1";
    if let Some(row) = t.query_opt(last, &[&at])? {
        let (pass, at, up) = (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        return Ok(Ok(PastPass { pass, at, up }));
    }
    let oldest = t.query_one("SELECT min(at) FROM rolls", &[])?.try_get(0)?;
    Ok(Err(oldest))
}

fn totals(t: &mut Transaction, past: Option<&PastPass>) -> Result<ExportTotals, Error> {
    if let Some(past) = past {
        let were_up = format!("({NODES} WHERE {WAS_UP})");
        let up = format!("SELECT count(*) FROM {were_up} n");
        let up = t.query_one(&up, &[&past.up])?.try_get(0)?;
        let tip = format!("{TIP} FROM {were_up} n WHERE start_height IS NOT NULL {COMMONEST}");
        let tip = t.query_opt(&tip, &[&past.up])?.map(|row| row.try_get(0)).transpose()?;
        return Ok(ExportTotals { at: past.at, up, tip, is_approximate: true });
    }
    let newest = "SELECT finished_at FROM passes WHERE finished_at IS NOT NULL
        ORDER BY pass DESC LIMIT 1";
    let at = match t.query_opt(newest, &[])? {
        Some(row) => row.try_get(0)?,
        None => now(t)?,
    };
    let tip =
        format!("{TIP} FROM nodes WHERE status = 'up' AND start_height IS NOT NULL {COMMONEST}");
    let tip = t.query_opt(&tip, &[])?.map(|row| row.try_get(0)).transpose()?;
    let up = t.query_one("SELECT count(*) FROM nodes WHERE status = 'up'", &[])?.try_get(0)?;
    Ok(ExportTotals { at, up, tip, is_approximate: false })
}

/// The most common height, the highest among equals.
const TIP: &str = "SELECT start_height";
const COMMONEST: &str = "GROUP BY 1 ORDER BY count(*) DESC, 1 DESC LIMIT 1";

fn export_row(
    row: &Row,
    shares: &[Shares],
    runs: &[Option<Timestamp>],
) -> Result<ExportRow, Error> {
    let node = node_facts(row)?;
    let ordinal: Option<i32> = row.try_get("ordinal")?;
    let ordinal = ordinal.and_then(|ordinal| usize::try_from(ordinal).ok());
    let share = |shares: &Shares| {
        let share = ordinal.and_then(|ordinal| shares.get(ordinal));
        share.copied().filter(|share| *share != NO_SHARE)
    };
    let run = ordinal.and_then(|ordinal| runs.get(ordinal).copied().flatten());
    // By days, a run seems to start with the day on which the node was first seen.
    let up_since = run.map(|run| run.max(node.first_seen));
    Ok(ExportRow { shares: shares.iter().map(share).collect(), up_since, node })
}

/// Hands over the nodes in the order of their uptime: sorts keys of 16 bytes, then reads the rows.
fn by_uptime(
    t: &mut Transaction,
    query: &ExportQuery,
    shares: &[Shares],
    each: &mut dyn FnMut(&[Row]) -> Result<bool, Error>,
) -> Result<bool, Error> {
    let [.., second, first] = shares else { return Ok(true) };
    let mut keys = Vec::new();
    let sql = format!(
        "SELECT n.host, n.port, n.protocol_version, o.ordinal FROM nodes n
            LEFT JOIN roll_nodes o ON o.host = n.host AND o.port = n.port
            WHERE {} ORDER BY n.host, n.port",
        condition(query)
    );
    paged(t, &sql, &[], PAGE, &mut |rows| {
        for row in rows {
            let ordinal: Option<i32> = row.try_get(3)?;
            let share = |shares: &Shares| {
                let ordinal = usize::try_from(ordinal.unwrap_or(-1)).ok();
                let share = ordinal.and_then(|ordinal| shares.get(ordinal)).copied();
                share.filter(|share| *share != NO_SHARE).unwrap_or(0)
            };
            let version: i32 = row.try_get(2)?;
            let port: i32 = row.try_get(1)?;
            let port = u16::try_from(port).unwrap_or(0);
            keys.push(((share(first), share(second), version), (ip(row.try_get(0)?), port)));
        }
        Ok(true)
    })?;
    keys.sort_by_key(|key| Reverse(key.0));
    let sql = format!(
        "{NODES} JOIN unnest($1::inet[], $2::integer[]) WITH ORDINALITY k (host, port, place)
            ON k.host = n.host AND k.port = n.port ORDER BY k.place"
    );
    let statement = t.prepare(&sql)?;
    for page in keys.chunks(PAGE.unsigned_abs() as usize) {
        let (hosts, ports): (Vec<IpAddr>, Vec<i32>) =
            page.iter().map(|(_, (ip, port))| (IpAddr::V4(*ip), i32::from(*port))).unzip();
        if !each(&t.query(&statement, &[&hosts, &ports])?)? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// Passes of one period: how often each node answered, and since when it was known.
#[derive(Debug, Default)]
pub(super) struct Count {
    /// Passes in which each node answered or was full, by ordinal.
    answered: Vec<u32>,
    /// Number of nodes known at each pass.
    known: Vec<usize>,
}

impl Count {
    pub(super) fn add(&mut self, roll: &Roll) {
        self.known.push(roll.nodes);
        self.answered.resize(self.answered.len().max(roll.nodes), 0);
        for (answered, ordinal) in self.answered.iter_mut().zip(0..roll.nodes) {
            *answered += u32::from(roll.answered(ordinal));
        }
    }

    /// Of each node the passes in which it answered or was full, and all since it is known, with
    /// those of closed days added.
    pub(super) fn counts(mut self, closed: &[(i32, i32)]) -> Vec<(u32, u32)> {
        self.known.sort_unstable();
        let nodes = self.answered.len().max(closed.len());
        let count = |ordinal| {
            let (before, passes_before) = closed.get(ordinal).copied().unwrap_or((0, 0));
            let since = self.known.partition_point(|nodes| *nodes <= ordinal);
            let passes = u32::try_from(self.known.len() - since).unwrap_or(u32::MAX);
            let answered = self.answered.get(ordinal).copied().unwrap_or(0);
            (
                answered.saturating_add(before.unsigned_abs()),
                passes.saturating_add(passes_before.unsigned_abs()),
            )
        };
        (0..nodes).map(count).collect()
    }

    /// Shares in 1/10,000, with the `(answered, passes)` of closed days added.
    fn shares(self, closed: &[(i32, i32)]) -> Shares {
        let share = |(answered, passes): (u32, u32)| {
            let (answered, passes) = (u64::from(answered), u64::from(passes));
            let share = (answered * 20_000 + passes).checked_div(passes * 2);
            share.map_or(NO_SHARE, |share| u16::try_from(share).unwrap_or(10_000).min(10_000))
        };
        self.counts(closed).into_iter().map(share).collect()
    }
}

/// Who answered at the end of a pass.
pub(super) struct Roll<'r> {
    pub(super) nodes: usize,
    up: &'r [u8],
    full: &'r [u8],
}

impl<'r> Roll<'r> {
    pub(super) fn of_row(row: &'r Row) -> Result<Self, Error> {
        let nodes: i32 = row.try_get("nodes")?;
        Ok(Self {
            nodes: usize::try_from(nodes).unwrap_or(0),
            up: row.try_get("up")?,
            full: row.try_get("full")?,
        })
    }

    pub(super) fn answered(&self, ordinal: usize) -> bool {
        let byte = |bits: &[u8]| bits.get(ordinal / 8).copied().unwrap_or(0);
        (byte(self.up) | byte(self.full)) >> (ordinal % 8) & 1 == 1
    }
}

fn shares(t: &mut Transaction, period: Period) -> Result<Shares, Error> {
    let (count, closed) = count(t, period)?;
    Ok(count.shares(&closed))
}

/// The passes of a period, and those of closed days to add to them.
pub(super) fn count(
    t: &mut Transaction,
    period: Period,
) -> Result<(Count, Vec<(i32, i32)>), Error> {
    let mut closed = Vec::new();
    let condition = match period {
        Period::Hours(hours) => {
            format!("at <= n.newest AND at > n.newest - interval '{hours} hours'")
        }
        Period::All => {
            let row = t.query_one("SELECT answered, passes FROM closed_rolls", &[])?;
            let sums = |column| row.try_get::<_, Option<Vec<i32>>>(column);
            let (answered, passes) = (sums(0)?.unwrap_or_default(), sums(1)?.unwrap_or_default());
            closed = answered.into_iter().zip(passes).collect();
            "pass > (SELECT last_pass FROM closed_rolls)".to_owned()
        }
    };
    let sql = format!(
        "SELECT nodes, up, \"full\" FROM rolls
            CROSS JOIN (SELECT at AS newest FROM rolls ORDER BY pass DESC LIMIT 1) n
            WHERE {condition}"
    );
    let mut count = Count::default();
    paged(t, &sql, &[], ROLLS, &mut |rows| {
        for row in rows {
            count.add(&Roll::of_row(row)?);
        }
        Ok(true)
    })?;
    Ok((count, closed))
}

/// Start of the unbroken run of each node, by ordinal: the first pass of it, or the first day where
/// it is older than the rolls; `None` where the node is down. Passes after `last` do not count.
pub(super) fn runs(t: &mut Transaction, last: i64) -> Result<Vec<Option<Timestamp>>, Error> {
    let mut starts: Vec<Option<Timestamp>> = Vec::new();
    // Ordinals of unbroken runs; the newest roll has all nodes.
    let mut unbroken: Option<Vec<u32>> = None;
    let index = |ordinal: &u32| *ordinal as usize;
    let mut oldest = None;
    let sql = "SELECT at, nodes, up, \"full\" FROM rolls WHERE pass <= $1 ORDER BY pass DESC";
    paged(t, sql, &[&last], ROLLS, &mut |rows| {
        for row in rows {
            let roll = Roll::of_row(row)?;
            let at: Timestamp = row.try_get("at")?;
            let unbroken = unbroken.get_or_insert_with(|| {
                starts.resize(roll.nodes, None);
                let all = 0..u32::try_from(roll.nodes).unwrap_or(u32::MAX);
                all.filter(|ordinal| roll.answered(index(ordinal))).collect()
            });
            // A node that was not known then has no older pass either.
            unbroken.retain(|ordinal| index(ordinal) < roll.nodes && roll.answered(index(ordinal)));
            unbroken.iter().map(index).for_each(|ordinal| starts[ordinal] = Some(at));
            oldest = Some(at);
        }
        Ok(true)
    })?;
    let (Some(oldest), Some(mut unbroken)) = (oldest, unbroken) else { return Ok(starts) };
    let sql = format!(
        "SELECT day, share FROM daily_rolls
            WHERE day < date_trunc('day', to_timestamp({}), 'UTC') ORDER BY day DESC",
        oldest.0.as_secs()
    );
    paged(t, &sql, &[], ROLLS, &mut |rows| {
        for row in rows {
            let (day, shares): (Timestamp, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
            // On days before it was known its share is UNKNOWN.
            unbroken.retain(|ordinal| shares.get(index(ordinal)).copied() == Some(WHOLE_DAY));
            unbroken.iter().map(index).for_each(|ordinal| starts[ordinal] = Some(day));
        }
        Ok(!unbroken.is_empty())
    })?;
    Ok(starts)
}

/// A node that answered in all passes of a day.
pub(super) const WHOLE_DAY: u8 = 250;
/// A node that was not known on a day.
pub(super) const UNKNOWN: u8 = 255;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_counts_the_passes_since_a_node_is_known() {
        let mut count = Count::default();
        count.add(&Roll { nodes: 1, up: &[0b1], full: &[0] });
        count.add(&Roll { nodes: 3, up: &[0b100], full: &[0b001] });
        count.add(&Roll { nodes: 3, up: &[0b000], full: &[0b000] });
        assert_eq!(count.shares(&[(8, 8), (0, 0)]), [9_091, 0, 5_000]);
        assert_eq!(Count::default().shares(&[(0, 0)]), [NO_SHARE]);
    }
}
