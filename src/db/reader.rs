//! `Reader`: what `status` and `nodes` show.
//!
//! Invariants:
//! 1. The session is read-only.
//! 2. The rows of one answer are one snapshot.
//! 3. A database that is away is given up after [`TIMEOUT`].

use std::collections::HashMap;
use std::net::{IpAddr, Ipv4Addr};
use std::time::Duration;

use postgres::{Client, Error, IsolationLevel, Row, Transaction};
use serde::{Serialize, Serializer};

use crate::db::connect::connect_within;
use crate::db::places::PlaceSource;
use crate::db::timestamp::Timestamp;
use crate::db::{StoreError, places, schema};

/// How long an operator waits for a database that is away.
pub const TIMEOUT: Duration = Duration::from_secs(5);

/// A row of `passes`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PassLine {
    /// Number of the pass.
    pub pass: i64,
    /// When it started.
    pub started_at: Timestamp,
    /// When it finished; `None` while it runs.
    pub finished_at: Option<Timestamp>,
    /// Number of finished probes.
    pub probed: i64,
    /// Number of probes that responded.
    pub responded: i64,
    /// Number of probes that failed.
    pub failed: i64,
    /// Number of addresses that answered for the first time.
    pub new_nodes: i64,
    /// Number of addresses heard of for the first time.
    pub new_addresses: i64,
    /// Number of addresses that were due at its start or were heard of since.
    pub due: i64,
    /// Number of candidates at its end, or as long as it runs.
    pub candidates: Option<i64>,
    /// Whether our own uplink was down during it.
    pub uplink_was_down: bool,
}

/// Number of nodes of a species.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SpeciesLine {
    /// Name of the species.
    pub species: String,
    /// Nodes whose last probe responded.
    pub up: i64,
    /// Nodes that are most likely at their connection limit.
    pub full: i64,
    /// The other nodes.
    pub down: i64,
    /// Nodes up a day ago; `None` if there was no pass then.
    pub up_yesterday: Option<i64>,
    /// Nodes up seven days ago.
    pub up_last_week: Option<i64>,
}

/// The database.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct DatabaseFacts {
    /// Its name.
    pub name: String,
    /// Its size on the disk.
    pub bytes: i64,
}

/// A row of `nodes`, with its columns in their order.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NodeFacts {
    /// Its address.
    pub host: Ipv4Addr,
    /// Its port.
    pub port: i32,
    /// Its name from the nodes file.
    pub name: Option<String>,
    /// up, full or down.
    pub status: String,
    /// The lineage of its software.
    pub species: String,
    /// Species and major version.
    pub release: Option<String>,
    /// Protocol version that it claims.
    pub protocol_version: i32,
    /// User agent, as stored.
    pub user_agent: Option<String>,
    /// Service bits in two's complement.
    #[serde(serialize_with = "bits")]
    pub services: i64,
    /// Height of its chain.
    pub start_height: Option<i32>,
    /// The relay byte.
    pub relay: Option<bool>,
    /// Time from dialling to connected.
    pub connect_ms: Option<i32>,
    /// Time from connected to `version`.
    pub version_ms: Option<i32>,
    /// The country.
    pub country: Option<String>,
    /// The autonomous system.
    pub asn: Option<i64>,
    /// Operator of the autonomous system.
    pub as_name: Option<String>,
    /// When it first responded.
    pub first_seen: Timestamp,
    /// When it last responded.
    pub last_seen: Timestamp,
    /// When it was last probed.
    pub last_probed: Timestamp,
    /// How that probe ended.
    pub last_outcome: String,
    /// Consecutive failures.
    pub failures: i32,
    /// When it is due.
    pub next_probe: Timestamp,
    /// When it was last sent a `getaddr`.
    pub peers_asked_at: Option<Timestamp>,
    /// Number of entries that it sent then.
    pub peers_sent: Option<i32>,
}

/// The time of a snapshot, and what the crawl does then.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Moment {
    /// Time of the snapshot.
    pub at: Timestamp,
    /// Whether a crawler has the database open.
    pub is_running: bool,
    /// Start of the newest pass, unless it has finished.
    pub unfinished_since: Option<Timestamp>,
}

/// Number of nodes up that share a value.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ShareLine {
    /// The value.
    pub value: String,
    /// Number of nodes up.
    pub up: i64,
}

/// A day of a curve.
#[derive(Clone, Copy, PartialEq, Debug, Serialize)]
pub struct DayLine {
    /// Start of the day, or the end of the last pass.
    pub at: Timestamp,
    /// Mean number of nodes up over its passes, or the number after the last pass.
    pub nodes: f32,
}

/// The state of the map.
#[derive(Clone, PartialEq, Debug, Serialize)]
pub struct Overview {
    /// Time of the snapshot.
    pub at: Timestamp,
    /// The newest passes, the newest first.
    pub passes: Vec<PassLine>,
    /// All nodes by species: TRB first, then by how many are up.
    pub species: Vec<SpeciesLine>,
    /// Whether a crawler has the database open.
    pub is_running: bool,
    /// The database.
    pub database: DatabaseFacts,
    /// TRB nodes and named nodes.
    pub kept: Vec<NodeFacts>,
    /// The newest events of TRB and named nodes, the newest first.
    pub events: Vec<EventLine>,
    /// The newest changes of how nodes are counted, the newest first.
    pub notes: Vec<NoteLine>,
    /// The most common releases of nodes up.
    pub releases: Vec<ShareLine>,
    /// The countries with most nodes up; empty if no place is known.
    pub countries: Vec<ShareLine>,
    /// The networks with most nodes up, by the names of their operators.
    pub networks: Vec<ShareLine>,
    /// Where the places come from.
    pub place_sources: Vec<PlaceSource>,
    /// TRB nodes up on each of the last 30 days.
    pub trb_days: Vec<DayLine>,
    /// Nodes up on each of the last 30 days.
    pub up_days: Vec<DayLine>,
}

/// A row of `history_notes`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NoteLine {
    /// When it took effect.
    pub at: Timestamp,
    /// What changed.
    pub text: String,
}

/// A row of `events`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct EventLine {
    /// When it happened.
    pub at: Timestamp,
    /// The pass in which it happened.
    pub pass: i64,
    /// What happened.
    pub kind: String,
    /// The node; none for `many`.
    pub host: Option<Ipv4Addr>,
    /// Its port.
    pub port: Option<i32>,
    /// Its name.
    pub name: Option<String>,
    /// Status, user agent or species before.
    pub before: Option<String>,
    /// The same since.
    pub after: Option<String>,
}

/// A row of `probes`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ProbeLine {
    /// The pass.
    pub pass: i64,
    /// When the outcome was known.
    pub probed_at: Timestamp,
    /// How it ended.
    pub outcome: String,
    /// Protocol version, if it responded.
    pub protocol_version: Option<i32>,
    /// User agent, if it sent one.
    pub user_agent: Option<String>,
    /// Service bits in two's complement.
    #[serde(serialize_with = "bits")]
    pub services: Option<i64>,
    /// Height of its chain.
    pub start_height: Option<i32>,
    /// Time from dialling to connected.
    pub connect_ms: Option<i32>,
    /// Time from connected to `version`.
    pub version_ms: Option<i32>,
    /// Number of entries sent in reply to `getaddr`.
    pub peers_sent: Option<i32>,
}

/// 64 bits as decimal text: a double cannot hold them.
fn bits<S: Serializer>(
    services: &(impl Copy + Into<Option<i64>>),
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let services: Option<i64> = (*services).into();
    services.map(|bits| bits.cast_unsigned().to_string()).serialize(serializer)
}

/// Everything known of an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AddressFacts {
    /// The address.
    pub host: Ipv4Addr,
    /// The port.
    pub port: i32,
    /// When it was first heard of.
    pub first_heard: Timestamp,
    /// When it was last heard of.
    pub last_heard: Timestamp,
    /// Consecutive failures.
    pub failures: i32,
    /// When it was last probed.
    pub last_probed: Option<Timestamp>,
    /// How that probe ended.
    pub last_outcome: Option<String>,
    /// When it is due.
    pub next_probe: Timestamp,
    /// Present if it ever responded.
    pub node: Option<NodeFacts>,
    /// Results of a node, the newest first.
    pub probes: Vec<ProbeLine>,
    /// Its uptime in a day, a week, a month, and in all.
    pub uptime: Vec<UptimeLine>,
    /// Start of the unbroken run of passes in which it answered or was full.
    pub up_since: Option<Timestamp>,
    /// Its status at the end of each of the last passes, the oldest first: `#` up, `o` full, `.`
    /// down.
    pub strip: String,
}

/// The passes of a period in which a node answered or was full.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct UptimeLine {
    /// `day`, `week`, `month` or `all`.
    pub period: String,
    /// Number of passes since the node is known.
    pub passes: i64,
    /// Number of those in which it answered or was full.
    pub answered: i64,
}

/// The addresses to show.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Every port of a host.
    Host(Ipv4Addr),
    /// One address.
    Address(Ipv4Addr, u16),
    /// Nodes with this name, ignoring case.
    Name(String),
}

/// The nodes to list: those that match every condition, in an order.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct NodeFilter {
    /// Any of these statuses, in lower case, as all words here.
    pub status: Option<Vec<String>>,
    /// Any of these species.
    pub species: Option<Vec<String>>,
    /// Any of these releases.
    pub release: Option<Vec<String>>,
    /// A part of the user agent.
    pub agent: Option<String>,
    /// Any of these countries.
    pub country: Option<Vec<String>>,
    /// The autonomous system.
    pub asn: Option<i64>,
    /// The port.
    pub port: Option<i32>,
    /// Seconds since it was first seen, at most.
    pub since: Option<f64>,
    /// Number of nodes, at most.
    pub limit: Option<i64>,
    /// Terms of `ORDER BY`, never from outside.
    pub order: String,
}

/// A read-only session.
pub struct Reader {
    client: Client,
}

/// Number of passes in a strip: a day at the default interval.
const STRIP_PASSES: i64 = 48;
const STRIP: &str =
    "SELECT coalesce(string_agg(CASE status WHEN 'up' THEN '#' WHEN 'full' THEN 'o' ELSE '.' END,
        '' ORDER BY pass), '')
    FROM (SELECT * FROM roll_of($1, $2) ORDER BY pass DESC LIMIT $3) r";
/// Number of passes, events and shares in an overview.
const LINES: i64 = 10;
/// Maximum number of addresses shown: a host may be known with thousands of invented ports.
const MAX_ADDRESSES: i64 = 100;
/// Maximum number of TRB and named nodes shown.
const MAX_KEPT: i64 = 100;

/// Compaction truncates tables for older snapshots too: lock before the snapshot is taken. It
/// truncates the tables of `sources` together with those of `addresses`.
const LOCK: &str = "LOCK TABLE sources, probes IN ACCESS SHARE MODE; SET LOCAL jit = off";

impl Reader {
    /// Opens the database that `url` names.
    ///
    /// # Errors
    /// The database is away for [`TIMEOUT`], refuses the connection, or has no schema that this
    /// program can read.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let mut client = connect_within(url, TIMEOUT)?;
        schema::check(&mut client)?;
        let set = client.batch_execute("SET default_transaction_read_only = on");
        set.map_err(|error| StoreError::of_statement(&error, client.is_closed()))?;
        Ok(Self { client })
    }

    /// Reads the overview.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn overview(&mut self) -> Result<Overview, StoreError> {
        self.read(|t| {
            let passes = passes(t)?;
            let last = passes.iter().find_map(|pass| pass.finished_at);
            let groups = groups(t)?;
            let species = species(t, &groups)?;
            let up = species.iter().map(|line| line.up).sum();
            let trb = species.iter().find(|line| line.species == "TRB").map_or(0, |line| line.up);
            let kept = "SELECT * FROM nodes n WHERE n.species = 'TRB' OR n.name IS NOT NULL
                ORDER BY n.species <> 'TRB', n.status <> 'up', n.name, n.host, n.port LIMIT $1";
            Ok(Overview {
                at: now(t)?,
                passes,
                species,
                is_running: is_running(t)?,
                database: database(t)?,
                kept: t
                    .query(kept, &[&MAX_KEPT])?
                    .iter()
                    .map(node_facts)
                    .collect::<Result<_, _>>()?,
                events: events(t)?,
                notes: notes(t)?,
                releases: shares(&groups, Kind::Release),
                countries: shares(&groups, Kind::Country),
                networks: shares(&groups, Kind::Network),
                place_sources: places::sources(t)?,
                trb_days: days(t, "species", "TRB", last, trb)?,
                up_days: days(t, "status", "up", last, up)?,
            })
        })
    }

    /// Reads everything about the wanted addresses, and the moment of the snapshot.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn addresses(
        &mut self,
        wanted: &Wanted,
    ) -> Result<(Moment, Vec<AddressFacts>), StoreError> {
        self.read(|t| {
            let newest = passes(t)?.into_iter().next();
            let unfinished = newest.filter(|pass| pass.finished_at.is_none());
            let moment = Moment {
                at: now(t)?,
                is_running: is_running(t)?,
                unfinished_since: unfinished.map(|pass| pass.started_at),
            };
            let rows = matching(t, wanted)?;
            let found: Result<_, _> = rows.iter().map(|row| address_facts(t, row)).collect();
            Ok((moment, found?))
        })
    }

    /// Reads nodes, `page` at a time: `each` gets the time of the snapshot and returns whether to
    /// go on.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn nodes(
        &mut self,
        filter: &NodeFilter,
        page: usize,
        each: &mut dyn FnMut(Timestamp, &[NodeFacts]) -> bool,
    ) -> Result<(), StoreError> {
        let page = i32::try_from(page).unwrap_or(i32::MAX);
        let sql = format!(
            "SELECT * FROM nodes WHERE ($1::text[] IS NULL OR status = ANY($1))
                AND ($2::text[] IS NULL OR lower(species) = ANY($2))
                AND ($3::text[] IS NULL OR lower(release) = ANY($3))
                AND ($4::text IS NULL OR strpos(lower(user_agent), lower($4)) > 0)
                AND ($5::text[] IS NULL OR lower(country) = ANY($5)) AND ($6::bigint IS NULL OR asn = $6)
                AND ($7::integer IS NULL OR port = $7)
                AND ($8::float8 IS NULL OR first_seen >= now() - make_interval(secs => $8))
            ORDER BY {} LIMIT $9",
            filter.order
        );
        self.read(|t| {
            let at = now(t)?;
            let NodeFilter { status, species, release, agent, country, asn, port, .. } = filter;
            let statement = t.prepare(&sql)?;
            let portal = t.bind(
                &statement,
                &[
                    status,
                    species,
                    release,
                    agent,
                    country,
                    asn,
                    port,
                    &filter.since,
                    &filter.limit,
                ],
            )?;
            loop {
                let rows = t.query_portal(&portal, page)?;
                let nodes: Vec<_> = rows.iter().map(node_facts).collect::<Result<_, _>>()?;
                if nodes.is_empty() || !each(at, &nodes) {
                    return Ok(());
                }
            }
        })
    }

    pub(super) fn read<T>(
        &mut self,
        body: impl FnOnce(&mut Transaction) -> Result<T, Error>,
    ) -> Result<T, StoreError> {
        let transaction =
            self.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start();
        let result = transaction.and_then(|mut transaction| {
            transaction.batch_execute(LOCK)?;
            body(&mut transaction)
        });
        result.map_err(|error| StoreError::of_statement(&error, self.client.is_closed()))
    }
}

pub(super) fn now(t: &mut Transaction) -> Result<Timestamp, Error> {
    t.query_one("SELECT now()", &[])?.try_get(0)
}

pub(super) fn passes(t: &mut Transaction) -> Result<Vec<PassLine>, Error> {
    let line = |row: &Row| {
        Ok(PassLine {
            pass: row.try_get("pass")?,
            started_at: row.try_get("started_at")?,
            finished_at: row.try_get("finished_at")?,
            probed: row.try_get("probed")?,
            responded: row.try_get("responded")?,
            failed: row.try_get("failed")?,
            new_nodes: row.try_get("new_nodes")?,
            new_addresses: row.try_get("new_addresses")?,
            due: row.try_get("due")?,
            candidates: row.try_get("candidates")?,
            uplink_was_down: row.try_get("uplink_was_down")?,
        })
    };
    let newest = "SELECT * FROM passes ORDER BY pass DESC LIMIT $1";
    t.query(newest, &[&LINES])?.iter().map(line).collect()
}

/// Number of nodes with a value of a column.
struct Group {
    kind: Kind,
    value: String,
    up: i64,
    full: i64,
    down: i64,
}

/// The column, as the bits of SQL's `grouping()`.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Species = 0b0111,
    Release = 0b1011,
    Country = 0b1101,
    Network = 0b1110,
}

/// All species, TRB first, and the most common values of the other columns, in one scan.
fn groups(t: &mut Transaction) -> Result<Vec<Group>, Error> {
    let sql = "WITH n AS (SELECT species, release, country, coalesce(as_name, 'AS' || asn) AS network, status FROM nodes),
        counted AS (
            SELECT grouping(species, release, country, network) AS kind, coalesce(species, release, country, network) AS value,
                count(*) FILTER (WHERE status = 'up') AS up, count(*) FILTER (WHERE status = 'full') AS \"full\",
                count(*) FILTER (WHERE status = 'down') AS down
            FROM n GROUP BY GROUPING SETS (species, release, country, network)
        ), ranked AS (
            SELECT *, row_number() OVER (PARTITION BY kind ORDER BY up DESC, value) AS place FROM counted WHERE value IS NOT NULL
        )
        SELECT kind, value, up, \"full\", down FROM ranked WHERE kind = $2 OR place <= $1 AND up > 0
        ORDER BY kind, kind = $2 AND value <> 'TRB', place";
    let group = |row: &Row| {
        let kind: i32 = row.try_get(0)?;
        let kinds = [Kind::Species, Kind::Release, Kind::Country, Kind::Network];
        Ok(Group {
            kind: kinds.into_iter().find(|known| *known as i32 == kind).expect("one is grouped"),
            value: row.try_get(1)?,
            up: row.try_get(2)?,
            full: row.try_get(3)?,
            down: row.try_get(4)?,
        })
    };
    t.query(sql, &[&LINES, &(Kind::Species as i32)])?.iter().map(group).collect()
}

fn species(t: &mut Transaction, groups: &[Group]) -> Result<Vec<SpeciesLine>, Error> {
    let yesterday = up_before(t, 86_400)?;
    let last_week = up_before(t, 7 * 86_400)?;
    let then = |counts: &Option<HashMap<String, i64>>, species: &String| {
        counts.as_ref().map(|counts| counts.get(species).copied().unwrap_or(0))
    };
    let line = |group: &Group| SpeciesLine {
        up: group.up,
        full: group.full,
        down: group.down,
        up_yesterday: then(&yesterday, &group.value),
        up_last_week: then(&last_week, &group.value),
        species: group.value.clone(),
    };
    Ok(groups.iter().filter(|group| group.kind == Kind::Species).map(line).collect())
}

fn shares(groups: &[Group], kind: Kind) -> Vec<ShareLine> {
    let of_kind = groups.iter().filter(|group| group.kind == kind);
    of_kind.map(|group| ShareLine { value: group.value.clone(), up: group.up }).collect()
}

/// The nodes up by species at the last pass that ended this long ago, or up to twice as long;
/// `None` if there was none.
fn up_before(t: &mut Transaction, seconds: i32) -> Result<Option<HashMap<String, i64>>, Error> {
    let sql = "SELECT pass FROM passes WHERE finished_at <= now() - make_interval(secs => $1)
            AND finished_at > now() - 2 * make_interval(secs => $1)
        ORDER BY pass DESC LIMIT 1";
    let Some(row) = t.query_opt(sql, &[&f64::from(seconds)])? else { return Ok(None) };
    let pass: i64 = row.try_get(0)?;
    let sql = "SELECT value, nodes::bigint FROM history WHERE pass = $1 AND dimension = 'species'";
    let rows = t.query(sql, &[&pass])?;
    rows.iter()
        .map(|row| Ok((row.try_get(0)?, row.try_get(1)?)))
        .collect::<Result<_, _>>()
        .map(Some)
}

fn events(t: &mut Transaction) -> Result<Vec<EventLine>, Error> {
    let line = |row: &Row| {
        Ok(EventLine {
            at: row.try_get("at")?,
            pass: row.try_get("pass")?,
            kind: row.try_get("kind")?,
            host: row.try_get::<_, Option<IpAddr>>("host")?.map(ip),
            port: row.try_get("port")?,
            name: row.try_get("name")?,
            before: row.try_get("before")?,
            after: row.try_get("after")?,
        })
    };
    let newest = "SELECT * FROM events ORDER BY id DESC LIMIT $1";
    t.query(newest, &[&LINES])?.iter().map(line).collect()
}

/// The newest notes of the history, the newest first.
fn notes(t: &mut Transaction) -> Result<Vec<NoteLine>, Error> {
    let line = |row: &Row| Ok(NoteLine { at: row.try_get(0)?, text: row.try_get(1)? });
    let newest = "SELECT at, text FROM history_notes ORDER BY at DESC, text LIMIT $1";
    t.query(newest, &[&LINES])?.iter().map(line).collect()
}

/// A curve of 30 days. A day that is not closed yet has the number of `now`, the number after the
/// pass that ended at `last`.
fn days(
    t: &mut Transaction,
    dimension: &str,
    value: &str,
    last: Option<Timestamp>,
    now: i64,
) -> Result<Vec<DayLine>, Error> {
    let sql = "WITH day AS (SELECT at, nodes FROM days_of($1, $2, now() - interval '30 days'))
        SELECT at, nodes FROM day
        UNION ALL SELECT $3::timestamptz, $4::bigint::real
        WHERE date_trunc('day', $3, 'UTC') > coalesce((SELECT max(at) FROM day), now() - interval '30 days')
        ORDER BY 1";
    let line = |row: &Row| Ok(DayLine { at: row.try_get(0)?, nodes: row.try_get(1)? });
    t.query(sql, &[&dimension, &value, &last, &now])?.iter().map(line).collect()
}

fn is_running(t: &mut Transaction) -> Result<bool, Error> {
    t.query_one("SELECT is_crawling()", &[])?.try_get(0)
}

fn database(t: &mut Transaction) -> Result<DatabaseFacts, Error> {
    let sql = "SELECT current_database()::text, pg_database_size(current_database())";
    let row = t.query_one(sql, &[])?;
    Ok(DatabaseFacts { name: row.try_get(0)?, bytes: row.try_get(1)? })
}

fn matching(t: &mut Transaction, wanted: &Wanted) -> Result<Vec<Row>, Error> {
    match wanted {
        Wanted::Host(host) => {
            let sql = "SELECT * FROM address($1) LIMIT $2";
            t.query(sql, &[&IpAddr::V4(*host), &MAX_ADDRESSES])
        }
        Wanted::Address(host, port) => {
            let sql = "SELECT * FROM address($1) WHERE port = $2";
            t.query(sql, &[&IpAddr::V4(*host), &i32::from(*port)])
        }
        Wanted::Name(name) => {
            let sql = "SELECT a.* FROM nodes n CROSS JOIN LATERAL address(n.host) a
                WHERE lower(n.name) = lower($1) AND a.port = n.port ORDER BY a.host, a.port LIMIT $2";
            t.query(sql, &[name, &MAX_ADDRESSES])
        }
    }
}

fn address_facts(t: &mut Transaction, row: &Row) -> Result<AddressFacts, Error> {
    let (host, port): (IpAddr, i32) = (row.try_get("host")?, row.try_get("port")?);
    let node = t.query_opt("SELECT * FROM nodes WHERE host = $1 AND port = $2", &[&host, &port])?;
    let (mut probes, mut uptime, mut up_since, mut strip) =
        (Vec::new(), Vec::new(), None, String::new());
    if node.is_some() {
        let sql = "SELECT * FROM probes WHERE host = $1 AND port = $2 ORDER BY pass DESC";
        probes = t.query(sql, &[&host, &port])?;
        let sql = "SELECT * FROM uptime($1, $2)";
        uptime = t.query(sql, &[&host, &port])?;
        up_since = t.query_one("SELECT up_since($1, $2)", &[&host, &port])?.try_get(0)?;
        strip = t.query_one(STRIP, &[&host, &port, &STRIP_PASSES])?.try_get(0)?;
    }
    Ok(AddressFacts {
        host: ip(host),
        port,
        first_heard: row.try_get("first_heard")?,
        last_heard: row.try_get("last_heard")?,
        failures: row.try_get("failures")?,
        last_probed: row.try_get("last_probed")?,
        last_outcome: row.try_get("last_outcome")?,
        next_probe: row.try_get("next_probe")?,
        node: node.as_ref().map(node_facts).transpose()?,
        probes: probes.iter().map(probe_line).collect::<Result<_, _>>()?,
        uptime: uptime.iter().map(uptime_line).collect::<Result<_, _>>()?,
        up_since,
        strip,
    })
}

pub(super) fn node_facts(row: &Row) -> Result<NodeFacts, Error> {
    Ok(NodeFacts {
        host: ip(row.try_get("host")?),
        port: row.try_get("port")?,
        name: row.try_get("name")?,
        status: row.try_get("status")?,
        species: row.try_get("species")?,
        release: row.try_get("release")?,
        protocol_version: row.try_get("protocol_version")?,
        user_agent: row.try_get("user_agent")?,
        services: row.try_get("services")?,
        start_height: row.try_get("start_height")?,
        relay: row.try_get("relay")?,
        connect_ms: row.try_get("connect_ms")?,
        version_ms: row.try_get("version_ms")?,
        country: row.try_get("country")?,
        asn: row.try_get("asn")?,
        as_name: row.try_get("as_name")?,
        first_seen: row.try_get("first_seen")?,
        last_seen: row.try_get("last_seen")?,
        last_probed: row.try_get("last_probed")?,
        last_outcome: row.try_get("last_outcome")?,
        failures: row.try_get("failures")?,
        next_probe: row.try_get("next_probe")?,
        peers_asked_at: row.try_get("peers_asked_at")?,
        peers_sent: row.try_get("peers_sent")?,
    })
}

fn uptime_line(row: &Row) -> Result<UptimeLine, Error> {
    Ok(UptimeLine {
        period: row.try_get("period")?,
        passes: row.try_get("passes")?,
        answered: row.try_get("answered")?,
    })
}

pub(super) fn probe_line(row: &Row) -> Result<ProbeLine, Error> {
    Ok(ProbeLine {
        pass: row.try_get("pass")?,
        probed_at: row.try_get("probed_at")?,
        outcome: row.try_get("outcome")?,
        protocol_version: row.try_get("protocol_version")?,
        user_agent: row.try_get("user_agent")?,
        services: row.try_get("services")?,
        start_height: row.try_get("start_height")?,
        connect_ms: row.try_get("connect_ms")?,
        version_ms: row.try_get("version_ms")?,
        peers_sent: row.try_get("peers_sent")?,
    })
}

/// The constraints of the tables admit only IPv4.
pub(super) fn ip(host: IpAddr) -> Ipv4Addr {
    match host {
        IpAddr::V4(ip) => ip,
        IpAddr::V6(_) => Ipv4Addr::UNSPECIFIED,
    }
}
