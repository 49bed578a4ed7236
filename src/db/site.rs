//! What the website reads: all nodes with their uptime, the curves of a dimension, and the results
//! of single nodes.
//!
//! Memory: the rows of all nodes, a byte per node and day of 90 days, and one dimension of the
//! history at a time.

use std::collections::{BTreeMap, HashMap};
use std::net::{IpAddr, Ipv4Addr};

use postgres::{Error, Row, Transaction};

use crate::db::StoreError;
use crate::db::export::{Count, NODES, PAGE, Period, ROLLS, Roll, UNKNOWN, WHOLE_DAY};
use crate::db::export::{count, paged, runs};
use crate::db::places::{self, PlaceSource};
use crate::db::reader::{
    NodeFacts, PassLine, ProbeLine, Reader, ip, node_facts, now, passes, probe_line,
};
use crate::db::timestamp::Timestamp;
use bitdash_core::vocabulary::address::Address;

/// Number of days in a strip.
pub const STRIP_DAYS: usize = 90;
/// Maximum number of events.
const MAX_EVENTS: i64 = 500;
const DAY: i64 = 86_400;

/// A node of the website.
#[derive(Clone, Debug)]
pub struct SiteNode {
    /// Its row.
    pub facts: NodeFacts,
    /// Its place in the rolls.
    pub ordinal: Option<usize>,
}

/// A day of the rolls.
#[derive(Clone, Debug)]
pub struct RollDay {
    /// Its beginning, in seconds since 1970.
    pub at: i64,
    /// By ordinal: 0 to 250 for the share of its passes, 255 for a node that was not known.
    pub shares: Vec<u8>,
}

/// Who was up or full at the end of a pass.
#[derive(Clone, Debug, Default)]
pub struct Attendance(Vec<bool>);

impl Attendance {
    /// Whether a node answered or was full.
    pub fn has(&self, ordinal: Option<usize>) -> bool {
        ordinal.is_some_and(|ordinal| self.0.get(ordinal).copied().unwrap_or(false))
    }
}

/// An event of a TRB or named node.
#[derive(Clone, Debug)]
pub struct SiteEvent {
    /// Its number.
    pub id: i64,
    /// When it happened.
    pub at: Timestamp,
    /// What happened.
    pub kind: String,
    /// The node; none for `many`.
    pub address: Option<(Ipv4Addr, i32)>,
    /// Its name.
    pub name: Option<String>,
    /// Status, user agent or species before.
    pub before: Option<String>,
    /// The same since.
    pub after: Option<String>,
}

/// The map as one snapshot.
#[derive(Clone, Debug)]
pub struct SiteFacts {
    /// Time of the snapshot.
    pub at: Timestamp,
    /// The newest finished passes, the newest first.
    pub passes: Vec<PassLine>,
    /// The nodes that are published, by address.
    pub nodes: Vec<SiteNode>,
    /// Hash of the nodes that are known and not published.
    pub hidden: u64,
    /// Passes answered and passes of a day, a week, 30 days and in all, by ordinal.
    pub uptime: [Vec<(u32, u32)>; 4],
    /// Start of the unbroken run, by ordinal.
    pub runs: Vec<Option<Timestamp>>,
    /// The last 90 days, the oldest first.
    pub days: Vec<RollDay>,
    /// Who answered a day before the last pass; `None` if there was no pass then.
    pub yesterday: Option<Attendance>,
    /// The newest events, the newest first.
    pub events: Vec<SiteEvent>,
    /// What changed in how nodes are counted, the oldest first.
    pub notes: Vec<(Timestamp, String)>,
    /// Where countries and networks come from.
    pub place_sources: Vec<PlaceSource>,
}

/// What is read of TRB and named nodes only.
#[derive(Clone, Debug, Default)]
pub struct WatchedFacts {
    /// Its last results, the newest first.
    pub results: Vec<ProbeLine>,
    /// Its share of each closed day, in 1/250, with the beginning of the day.
    pub days: Vec<(i64, u8)>,
}

/// A result of a node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ShortResult {
    /// The pass.
    pub pass: i64,
    /// When the outcome was known, in seconds since 1970.
    pub at: i64,
    /// The code of the outcome.
    pub outcome: u8,
    /// Height of its chain.
    pub height: Option<i32>,
    /// Time from dialling to connected.
    pub connect_ms: Option<i32>,
    /// Time from connected to `version`.
    pub version_ms: Option<i32>,
    /// Number of entries sent in reply to `getaddr`.
    pub peers_sent: Option<i32>,
}

/// The number of nodes of a value in a step.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct StepCount {
    /// Index of the step.
    pub step: usize,
    /// The number, or its mean over the passes of the step.
    pub nodes: f32,
    /// The lowest number of a pass.
    pub low: f32,
    /// The highest number of a pass.
    pub high: f32,
}

/// The history of one value. A step without an entry has no such node.
#[derive(Clone, Debug, Default)]
pub struct ValueCurve {
    /// By day.
    pub days: Vec<StepCount>,
    /// By pass of the last 30 days.
    pub passes: Vec<StepCount>,
}

/// The history of a dimension.
#[derive(Clone, Debug, Default)]
pub struct Curves {
    /// Beginnings of the days, in seconds since 1970; the running day included.
    pub days: Vec<i64>,
    /// Ends of the passes of 30 days.
    pub passes: Vec<i64>,
    /// By value.
    pub values: BTreeMap<String, ValueCurve>,
}

impl Curves {
    /// The number of nodes with a value at the last pass that ended this many seconds before the
    /// newest, or up to a day earlier; `None` if there was none.
    pub fn passes_ago(&self, value: &str, seconds: i64) -> Option<f32> {
        let wanted = self.passes.last()? - seconds;
        let step = self.passes.partition_point(|at| *at <= wanted).checked_sub(1)?;
        (self.passes[step] > wanted - DAY).then(|| self.at(value, |curve| &curve.passes, step))
    }

    /// The number of nodes with a value on the day this many days before the newest, or up to a
    /// week earlier; `None` if there was none.
    pub fn days_ago(&self, value: &str, days: i64) -> Option<f32> {
        let wanted = self.days.last()? - days * DAY;
        let step = self.days.partition_point(|at| *at <= wanted).checked_sub(1)?;
        (self.days[step] > wanted - 7 * DAY).then(|| self.at(value, |curve| &curve.days, step))
    }

    fn at(&self, value: &str, steps: fn(&ValueCurve) -> &Vec<StepCount>, step: usize) -> f32 {
        let Some(counts) = self.values.get(value).map(steps) else { return 0.0 };
        let found = counts.binary_search_by_key(&step, |count| count.step);
        found.map_or(0.0, |index| counts[index].nodes)
    }
}

impl Reader {
    /// Reads the map. `is_published` says whether an address may be shown.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn site(
        &mut self,
        is_published: &dyn Fn(Ipv4Addr, i32) -> bool,
    ) -> Result<SiteFacts, StoreError> {
        self.read(|t| {
            let (nodes, hidden) = nodes(t, is_published)?;
            let mut events = events(t)?;
            events
                .retain(|event| event.address.is_none_or(|(host, port)| is_published(host, port)));
            let mut uptime = |period| -> Result<_, Error> {
                let (count, closed) = count(t, period)?;
                Ok(count.counts(&closed))
            };
            let uptime = [
                uptime(Period::Hours(24))?,
                uptime(Period::Hours(7 * 24))?,
                uptime(Period::Hours(30 * 24))?,
                uptime(Period::All)?,
            ];
            let mut passes = passes(t)?;
            passes.retain(|pass| pass.finished_at.is_some());
            Ok(SiteFacts {
                at: now(t)?,
                passes,
                nodes,
                hidden,
                uptime,
                runs: runs(t, i64::MAX)?,
                days: roll_days(t)?,
                yesterday: yesterday(t)?,
                events,
                notes: notes(t)?,
                place_sources: places::sources(t)?,
            })
        })
    }

    /// Reads the last results and the closed days of these nodes.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn watched(&mut self, nodes: &[&SiteNode]) -> Result<Vec<WatchedFacts>, StoreError> {
        self.read(|t| {
            let mut found: Vec<WatchedFacts> =
                nodes.iter().map(|_| WatchedFacts { results: vec![], days: vec![] }).collect();
            let place = |node: &SiteNode| (IpAddr::V4(node.facts.host), node.facts.port);
            let keys = nodes.iter().map(|node| place(node));
            let (hosts, ports): (Vec<IpAddr>, Vec<i32>) = keys.clone().unzip();
            let places: HashMap<_, usize> = keys.zip(0..).collect();
            // Every query reads the whole journal: one for all nodes.
            let sql =
                "SELECT * FROM probes WHERE host = ANY($1) AND port = ANY($2) ORDER BY pass DESC";
            for row in t.query(sql, &[&hosts, &ports])? {
                let place = (row.try_get("host")?, row.try_get("port")?);
                if let Some(index) = places.get(&place) {
                    found[*index].results.push(probe_line(&row)?);
                }
            }
            let sql = "SELECT day, share FROM bitdash_internal.roll_days ORDER BY day";
            paged(t, sql, &[], ROLLS, &mut |rows| {
                for row in rows {
                    let (day, shares): (Timestamp, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
                    for (facts, node) in found.iter_mut().zip(nodes) {
                        let share = node.ordinal.and_then(|ordinal| shares.get(ordinal));
                        if let Some(share) = share.filter(|share| **share != UNKNOWN) {
                            facts.days.push((day.0.as_secs(), *share));
                        }
                    }
                }
                Ok(true)
            })?;
            Ok(found)
        })
    }

    /// Reads the stored results of all nodes, in no order, and those that compaction has yet to
    /// remove: the view `probes` would sort them all.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn all_results(
        &mut self,
        each: &mut dyn FnMut(Address, ShortResult),
    ) -> Result<(), StoreError> {
        const COLUMNS: &str = "SELECT key, pass, at, outcome, start_height, connect_ms, version_ms,
            peers_sent FROM bitdash_internal.";
        let sql = ["probe_rows_a", "probe_rows_b", "probe_journal"]
            .map(|table| format!("{COLUMNS}{table}"))
            .join(" UNION ALL ");
        self.read(|t| {
            paged(t, &sql, &[], PAGE, &mut |rows| {
                for row in rows {
                    let (key, at): (i64, Timestamp) = (row.try_get(0)?, row.try_get(2)?);
                    let outcome: i16 = row.try_get(3)?;
                    let result = ShortResult {
                        pass: row.try_get(1)?,
                        at: at.0.as_secs(),
                        outcome: u8::try_from(outcome).unwrap_or(u8::MAX),
                        height: row.try_get(4)?,
                        connect_ms: row.try_get(5)?,
                        version_ms: row.try_get(6)?,
                        peers_sent: row.try_get(7)?,
                    };
                    each(Address::from_bits(key.cast_unsigned()), result);
                }
                Ok(true)
            })
            .map(|_| ())
        })
    }

    /// Reads the history of a dimension.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn curves(&mut self, dimension: &str) -> Result<Curves, StoreError> {
        self.read(|t| curves(t, dimension))
    }
}

fn nodes(
    t: &mut Transaction,
    is_published: &dyn Fn(Ipv4Addr, i32) -> bool,
) -> Result<(Vec<SiteNode>, u64), Error> {
    let (mut nodes, mut hidden) = (Vec::new(), 0_u64);
    paged(t, &format!("{NODES} ORDER BY n.host, n.port"), &[], PAGE, &mut |rows| {
        for row in rows {
            let facts = node_facts(row)?;
            if !is_published(facts.host, facts.port) {
                let key =
                    u64::from(u32::from(facts.host)) << 16 | u64::from(facts.port.unsigned_abs());
                hidden = hidden.rotate_left(7) ^ key.wrapping_mul(0x9e37_79b9_7f4a_7c15);
                continue;
            }
            let ordinal: Option<i32> = row.try_get("ordinal")?;
            let ordinal = ordinal.and_then(|ordinal| usize::try_from(ordinal).ok());
            nodes.push(SiteNode { facts, ordinal });
        }
        Ok(true)
    })?;
    Ok((nodes, hidden))
}

fn events(t: &mut Transaction) -> Result<Vec<SiteEvent>, Error> {
    let event = |row: &Row| {
        let host: Option<IpAddr> = row.try_get("host")?;
        let port: Option<i32> = row.try_get("port")?;
        Ok(SiteEvent {
            id: row.try_get("id")?,
            at: row.try_get("at")?,
            kind: row.try_get("kind")?,
            address: host.map(ip).zip(port),
            name: row.try_get("name")?,
            before: row.try_get("before")?,
            after: row.try_get("after")?,
        })
    };
    let newest = "SELECT * FROM events ORDER BY id DESC LIMIT $1";
    t.query(newest, &[&MAX_EVENTS])?.iter().map(event).collect()
}

fn notes(t: &mut Transaction) -> Result<Vec<(Timestamp, String)>, Error> {
    let rows = t.query("SELECT at, text FROM history_notes ORDER BY at", &[])?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Who answered a day before the newest roll.
fn yesterday(t: &mut Transaction) -> Result<Option<Attendance>, Error> {
    let sql = "SELECT r.nodes, r.up, r.\"full\" FROM rolls r
        CROSS JOIN (SELECT at FROM rolls ORDER BY pass DESC LIMIT 1) n
        WHERE r.at <= n.at - interval '1 day' AND r.at > n.at - interval '2 days'
        ORDER BY r.pass DESC LIMIT 1";
    let Some(row) = t.query_opt(sql, &[])? else { return Ok(None) };
    let roll = Roll::of_row(&row)?;
    Ok(Some(Attendance((0..roll.nodes).map(|ordinal| roll.answered(ordinal)).collect())))
}

/// The closed days of the last [`STRIP_DAYS`], and those of the passes since.
fn roll_days(t: &mut Transaction) -> Result<Vec<RollDay>, Error> {
    let mut days: BTreeMap<i64, Vec<u8>> = BTreeMap::new();
    let sql = format!(
        "SELECT d.day, d.share FROM bitdash_internal.roll_days d
            CROSS JOIN (SELECT at FROM rolls ORDER BY pass DESC LIMIT 1) n
            WHERE d.day > n.at - interval '{STRIP_DAYS} days'"
    );
    paged(t, &sql, &[], ROLLS, &mut |rows| {
        for row in rows {
            let day: Timestamp = row.try_get(0)?;
            days.insert(day.0.as_secs(), row.try_get(1)?);
        }
        Ok(true)
    })?;
    let mut running: BTreeMap<i64, Count> = BTreeMap::new();
    let sql = "SELECT at, nodes, up, \"full\" FROM rolls
        WHERE pass > bitdash_internal.last_closed_pass()";
    paged(t, sql, &[], ROLLS, &mut |rows| {
        for row in rows {
            let at: Timestamp = row.try_get(0)?;
            running.entry(day_of(at.0.as_secs())).or_default().add(&Roll::of_row(row)?);
        }
        Ok(true)
    })?;
    for (at, count) in running {
        let share = |(answered, passes): (u32, u32)| match passes {
            0 => UNKNOWN,
            _ => u8::try_from(answered * u32::from(WHOLE_DAY) / passes).unwrap_or(WHOLE_DAY),
        };
        let shares = count.counts(&[]).into_iter().map(share).collect();
        days.entry(at).or_insert(shares);
    }
    Ok(days.into_iter().map(|(at, shares)| RollDay { at, shares }).collect())
}

fn day_of(secs: i64) -> i64 {
    secs.div_euclid(DAY) * DAY
}

fn curves(t: &mut Transaction, dimension: &str) -> Result<Curves, Error> {
    let sql = "SELECT id, value FROM bitdash_internal.history_values WHERE dimension = $1";
    let mut names: HashMap<i32, String> = HashMap::new();
    for row in t.query(sql, &[&dimension])? {
        names.insert(row.try_get(0)?, row.try_get(1)?);
    }
    let mut found: HashMap<i32, ValueCurve> = HashMap::new();
    let mut curves = Curves::default();
    let sql = "SELECT at, passes, ids, sums, lows, highs FROM bitdash_internal.history_steps
        WHERE dimension = $1 AND step = 'd' ORDER BY at";
    for row in t.query(sql, &[&dimension])? {
        let (at, passes): (Timestamp, i32) = (row.try_get(0)?, row.try_get(1)?);
        let ids: Vec<i32> = row.try_get(2)?;
        let [sums, lows, highs]: [Vec<i32>; 3] =
            [row.try_get(3)?, row.try_get(4)?, row.try_get(5)?];
        let step = curves.days.len();
        curves.days.push(at.0.as_secs());
        for (((id, sum), low), high) in ids.iter().zip(sums).zip(lows).zip(highs) {
            let nodes = sum as f32 / passes.max(1) as f32;
            let count = StepCount { step, nodes, low: low as f32, high: high as f32 };
            found.entry(*id).or_default().days.push(count);
        }
    }
    let mut running: BTreeMap<i64, RunningDay> = BTreeMap::new();
    let sql = "SELECT at, ids, nodes, pass > bitdash_internal.last_closed_pass()
        FROM bitdash_internal.history_passes WHERE dimension = $1 ORDER BY at, pass";
    for row in t.query(sql, &[&dimension])? {
        let (at, ids, nodes): (Timestamp, Vec<i32>, Vec<i32>) =
            (row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        let step = curves.passes.len();
        curves.passes.push(at.0.as_secs());
        let is_open: bool = row.try_get(3)?;
        let mut day = is_open.then(|| running.entry(day_of(at.0.as_secs())).or_default());
        if let Some(day) = &mut day {
            day.passes += 1;
        }
        for (id, nodes) in ids.iter().zip(nodes) {
            let nodes = nodes as f32;
            let count = StepCount { step, nodes, low: nodes, high: nodes };
            found.entry(*id).or_default().passes.push(count);
            if let Some(day) = &mut day {
                day.add(*id, nodes);
            }
        }
    }
    for (at, day) in running {
        day.close(at, &mut curves.days, &mut found);
    }
    curves.values = found
        .into_iter()
        .filter_map(|(id, curve)| names.remove(&id).map(|name| (name, curve)))
        .collect();
    Ok(curves)
}

/// A day that is not closed yet.
#[derive(Default)]
struct RunningDay {
    passes: u32,
    /// By value: sum, lowest, highest, passes.
    values: HashMap<i32, (f32, f32, f32, u32)>,
}

impl RunningDay {
    fn add(&mut self, id: i32, nodes: f32) {
        let value = self.values.entry(id).or_insert((0.0, nodes, nodes, 0));
        *value = (value.0 + nodes, value.1.min(nodes), value.2.max(nodes), value.3 + 1);
    }

    fn close(self, at: i64, days: &mut Vec<i64>, found: &mut HashMap<i32, ValueCurve>) {
        // A clock that was set back: a closed day stays as it is.
        if days.last().is_some_and(|last| *last >= at) {
            return;
        }
        let step = days.len();
        days.push(at);
        for (id, (sum, low, high, passes)) in self.values {
            let low = if passes < self.passes { 0.0 } else { low };
            let count = StepCount { step, nodes: sum / self.passes as f32, low, high };
            found.entry(id).or_default().days.push(count);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_count_of_a_day_ago_is_that_of_the_pass_before() {
        let count = |step, nodes| StepCount { step, nodes, low: nodes, high: nodes };
        let curve = ValueCurve { passes: vec![count(0, 7.0), count(2, 9.0)], days: Vec::new() };
        let curves = Curves {
            passes: vec![0, 3_600, 86_500, 90_000],
            values: [("TRB".to_owned(), curve)].into(),
            ..Curves::default()
        };
        assert_eq!(curves.passes_ago("TRB", 3_500), Some(9.0));
        assert_eq!(curves.passes_ago("TRB", 86_400), Some(0.0));
        assert_eq!(curves.passes_ago("TRB", 90_000), Some(7.0));
        assert_eq!(curves.passes_ago("TRB", 90_001), None);
        assert_eq!(curves.passes_ago("none", 0), Some(0.0));
        assert_eq!(curves.days_ago("TRB", 0), None);
    }

    #[test]
    fn a_running_day_counts_a_missing_value_as_zero() {
        let (mut day, mut days, mut found) = (RunningDay::default(), vec![0], HashMap::new());
        for nodes in [Some(4.0), None, Some(8.0)] {
            day.passes += 1;
            nodes.into_iter().for_each(|nodes| day.add(5, nodes));
        }
        day.close(DAY, &mut days, &mut found);
        let expected = StepCount { step: 1, nodes: 4.0, low: 0.0, high: 8.0 };
        assert_eq!(found[&5].days, [expected]);
        assert_eq!(days, [0, DAY]);
    }
}
