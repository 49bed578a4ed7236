//! Fills the places of nodes: country, autonomous system and its operator.
//!
//! A crawler may write the same nodes meanwhile. Invariants:
//! 1. Nothing here waits for the lock of a row, so a deadlock is impossible; a row that the writer
//!    holds is left for the next time.
//! 2. A statement covers at most `PAGE` nodes: the writer never waits long.
//! 3. A file is recorded once all nodes were looked up in it; until then the next call repeats it.

use std::net::{IpAddr, Ipv4Addr};

use bitdash_core::vocabulary::time::UnixTime;
use postgres::{Client, Error, GenericClient};
use serde::Serialize;

use super::StoreError;
use super::reader::ip;
use super::timestamp::Timestamp;
use crate::places::{Kind, Lookup, Place, PlaceFile, Places};

/// Maximum number of nodes per statement.
const PAGE: i64 = 5_000;
/// Maximum time to wait for a compaction, which locks the table.
const LOCK_TIMEOUT: &str = "SET lock_timeout = '10s'; SET jit = off";
/// When a new file moves at least this share of the nodes, in percent, the history notes it.
const NOTED_PERCENT: i64 = 1;

/// What was done.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Filled {
    /// Number of nodes looked up.
    pub looked_up: i64,
    /// Number of nodes whose place changed.
    pub changed: i64,
    /// Number of nodes that the crawler was writing: they are left for the next time.
    pub deferred: i64,
    /// The first error of a file that is broken inside.
    pub error: Option<String>,
}

/// A row of `place_sources`.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PlaceSource {
    /// `country` or `network`.
    pub kind: String,
    /// Name of the source, as its licence asks for.
    pub name: String,
    /// Where it is from.
    pub url: Option<String>,
    /// Licence of the data.
    pub licence: Option<String>,
    /// When the data were made.
    pub built_at: Timestamp,
}

/// Where the places of the nodes come from: what a page that shows them must say.
///
/// # Errors
/// Those of the connection.
pub fn sources(client: &mut impl GenericClient) -> Result<Vec<PlaceSource>, Error> {
    let sql = "SELECT kind, name, url, licence, built_at FROM place_sources ORDER BY kind";
    let rows = client.query(sql, &[])?;
    let source = |row: &postgres::Row| {
        Ok(PlaceSource {
            kind: row.try_get(0)?,
            name: row.try_get(1)?,
            url: row.try_get(2)?,
            licence: row.try_get(3)?,
            built_at: row.try_get(4)?,
        })
    };
    rows.iter().map(source).collect()
}

/// Fills the places of nodes without one, or of all nodes if a file is not the one of before.
///
/// # Errors
/// Those of the connection. What is filled by then stays.
pub fn fill(client: &mut Client, places: &Places) -> Result<Filled, StoreError> {
    let filled = fill_all(client, places);
    filled.map_err(|error| StoreError::of_statement(&error, client.is_closed()))
}

fn fill_all(client: &mut Client, places: &Places) -> Result<Filled, Error> {
    client.batch_execute(LOCK_TIMEOUT)?;
    let [country, network] = [
        State::read(client, Kind::Country, &places.country)?,
        State::read(client, Kind::Network, &places.network)?,
    ];
    let states = [&country, &network];
    let known = "SELECT count(*) FROM nodes WHERE country IS NOT NULL OR asn IS NOT NULL";
    let known: i64 = client.query_one(known, &[])?.try_get(0)?;
    let mut filled = Filled::default();
    let mut moved = 0;
    let mut last = (IpAddr::V4(Ipv4Addr::UNSPECIFIED), 0_i32);
    loop {
        let page = page(client, last, states)?;
        let Some(end) = page.last() else { break };
        last = *end;
        let rows = Rows::look_up(&page, states, &mut filled);
        let (differing, changed, replaced) = rows.write(client, states)?;
        filled.looked_up += i64::try_from(page.len()).unwrap_or(i64::MAX);
        filled.changed += changed;
        filled.deferred += differing - changed;
        moved += replaced;
    }
    if filled.deferred == 0 && filled.error.is_none() {
        let is_noted = moved > 0 && moved * 100 >= known * NOTED_PERCENT;
        record(client, states, is_noted)?;
    }
    Ok(filled)
}

/// The state of a kind.
struct State<'p> {
    kind: Kind,
    lookup: &'p Lookup,
    /// Whether the file is not the one that all nodes were looked up in.
    has_changed: bool,
}

impl<'p> State<'p> {
    fn read(client: &mut Client, kind: Kind, lookup: &'p Lookup) -> Result<Self, Error> {
        let sql = "SELECT file FROM place_files WHERE kind = $1";
        let row = client.query_opt(sql, &[&word(kind)])?;
        let before: Option<String> = row.map(|row| row.try_get(0)).transpose()?;
        let has_changed = match lookup {
            Lookup::File(file) => before.as_deref() != Some(file.version()),
            Lookup::Nothing => before.is_some(),
            Lookup::Unusable => false,
        };
        Ok(Self { kind, lookup, has_changed })
    }

    fn file(&self) -> Option<&PlaceFile> {
        match self.lookup {
            Lookup::File(file) => Some(file),
            Lookup::Nothing | Lookup::Unusable => None,
        }
    }

    /// Whether the columns are written: they are not where the file is unusable.
    fn is_written(&self) -> bool {
        !matches!(self.lookup, Lookup::Unusable)
    }
}

fn word(kind: Kind) -> &'static str {
    match kind {
        Kind::Country => "country",
        Kind::Network => "network",
    }
}

/// The next nodes to look up.
fn page(
    client: &mut Client,
    (host, port): (IpAddr, i32),
    [country, network]: [&State; 2],
) -> Result<Vec<(IpAddr, i32)>, Error> {
    let sql = "SELECT host, port FROM nodes WHERE (host, port) > ($1, $2)
            AND ($3 OR ($4 AND country IS NULL) OR ($5 AND asn IS NULL))
        ORDER BY host, port LIMIT $6";
    let all = country.has_changed || network.has_changed;
    let (countries, networks) = (country.file().is_some(), network.file().is_some());
    let rows = client.query(sql, &[&host, &port, &all, &countries, &networks, &PAGE])?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

/// Nodes with their places, as columns.
#[derive(Default)]
struct Rows {
    hosts: Vec<IpAddr>,
    ports: Vec<i32>,
    countries: Vec<Option<String>>,
    asns: Vec<Option<i64>>,
    as_names: Vec<Option<String>>,
}

impl Rows {
    fn look_up(nodes: &[(IpAddr, i32)], states: [&State; 2], filled: &mut Filled) -> Self {
        let mut rows = Self::default();
        for (host, port) in nodes {
            let mut place = |state: &State| {
                let found = state.file().map(|file| file.look_up(ip(*host)));
                found.transpose().unwrap_or_else(|error| {
                    filled.error.get_or_insert(error);
                    None
                })
            };
            let [country, network] = states.map(|state| place(state).unwrap_or_default());
            let Place { asn, as_name, .. } = network;
            rows.hosts.push(*host);
            rows.ports.push(*port);
            rows.countries.push(country.country);
            rows.asns.push(asn.map(i64::from));
            rows.as_names.push(as_name);
        }
        rows
    }

    /// Returns how many places differ, how many were written, and how many of those replaced
    /// another place.
    fn write(
        &self,
        client: &mut Client,
        [country, network]: [&State; 2],
    ) -> Result<(i64, i64, i64), Error> {
        let sql = "WITH place AS (
                SELECT n.host, n.port,
                    CASE WHEN $6 THEN p.country ELSE n.country END AS country,
                    CASE WHEN $7 THEN p.asn ELSE n.asn END AS asn,
                    CASE WHEN $7 THEN p.as_name ELSE n.as_name END AS as_name,
                    n.country <> p.country AND $6 OR n.asn <> p.asn AND $7 AS is_moved
                FROM unnest($1::inet[], $2::integer[], $3::text[], $4::bigint[], $5::text[])
                    p (host, port, country, asn, as_name)
                JOIN nodes n ON n.host = p.host AND n.port = p.port
                WHERE $6 AND n.country IS DISTINCT FROM p.country
                    OR $7 AND (n.asn, n.as_name) IS DISTINCT FROM (p.asn, p.as_name)
            ), free AS MATERIALIZED (
                SELECT n.host, n.port FROM nodes n
                WHERE (n.host, n.port) IN (SELECT host, port FROM place)
                FOR NO KEY UPDATE SKIP LOCKED
            ), written AS (
                UPDATE nodes n SET country = p.country, asn = p.asn, as_name = p.as_name
                FROM place p JOIN free f ON f.host = p.host AND f.port = p.port
                WHERE n.host = p.host AND n.port = p.port
                RETURNING p.is_moved
            )
            SELECT (SELECT count(*) FROM place), count(*), count(*) FILTER (WHERE is_moved) FROM written";
        let row = client.query_one(
            sql,
            &[
                &self.hosts,
                &self.ports,
                &self.countries,
                &self.asns,
                &self.as_names,
                &country.is_written(),
                &network.is_written(),
            ],
        )?;
        Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
    }
}

/// Records the files that all nodes were looked up in.
fn record(client: &mut Client, states: [&State; 2], is_noted: bool) -> Result<(), Error> {
    let mut t = client.transaction()?;
    let mut notes = Vec::new();
    for state in states.into_iter().filter(|state| state.has_changed) {
        let word = word(state.kind);
        let Some(file) = state.file() else {
            t.execute("DELETE FROM place_files WHERE kind = $1", &[&word])?;
            continue;
        };
        let source = file.source();
        let built_at = Timestamp(source.built_at);
        t.execute(
            "INSERT INTO place_files (kind, file, name, url, licence, built_at)
                VALUES ($1, $2, $3, $4, $5, $6)
            ON CONFLICT (kind) DO UPDATE SET file = excluded.file, name = excluded.name,
                url = excluded.url, licence = excluded.licence, built_at = excluded.built_at",
            &[&word, &file.version(), &source.name, &source.url, &source.licence, &built_at],
        )?;
        notes.push(note(state.kind, &source.name, source.built_at));
    }
    if is_noted && !notes.is_empty() {
        t.execute("INSERT INTO history_notes (text) VALUES ($1)", &[&notes.join("; ")])?;
    }
    t.commit()
}

fn note(kind: Kind, name: &str, built_at: UnixTime) -> String {
    let what = match kind {
        Kind::Country => "countries",
        Kind::Network => "networks",
    };
    format!("{what} from {name} of {}", Timestamp(built_at).to_date())
}
