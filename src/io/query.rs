//! The read side of the database: rows for the commands that show and export.
//!
//! Layer 3. Invariants: 1. nothing is ever written: the session is read-only; 2. the rows of one answer are
//! all of one instant; 3. a database that is away is given up after [`PATIENCE`].

use std::net::Ipv4Addr;
use std::time::Duration;

use postgres::types::{FromSql, Type};
use postgres::{Client, IsolationLevel, Row, Transaction};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use crate::crawl::address::Address;
use crate::crawl::time::UnixTime;
use crate::io::writer::connect::connect_within;
use crate::io::writer::{StoreError, schema};

/// How long a person waits for a database that is away.
pub const PATIENCE: Duration = Duration::from_secs(5);

/// A time out of the database; as JSON it is text in the form of RFC 3339.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Time(pub UnixTime);

/// A pass.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PassLine {
    /// Its number.
    pub pass: i64,
    /// When it began.
    pub started_at: Time,
    /// When it ended, if it did.
    pub finished_at: Option<Time>,
    /// Probes ended.
    pub probed: i64,
    /// Those that responded.
    pub responded: i64,
    /// Those that failed.
    pub failed: i64,
    /// Addresses that answered for the first time.
    pub new_nodes: i64,
    /// Addresses heard of for the first time.
    pub new_addresses: i64,
}

/// How many nodes of one species there are.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct SpeciesLine {
    /// The species.
    pub species: String,
    /// Nodes whose last probe responded.
    pub up: i64,
    /// Nodes that are most likely at their connection limit.
    pub full: i64,
    /// The other nodes.
    pub down: i64,
}

/// What is known of the addresses that never answered.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Serialize)]
pub struct CandidateCount {
    /// All of them.
    pub all: i64,
    /// Those that were never probed yet.
    pub never_probed: i64,
    /// Those that a pass which starts now would probe.
    pub due: i64,
}

/// A node, as much of it as fits a line.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NodeLine {
    /// Its address.
    pub host: Ipv4Addr,
    /// Its port.
    pub port: i32,
    /// Its name, if a person named it.
    pub name: Option<String>,
    /// up, full or down.
    pub status: String,
    /// The lineage of its software.
    pub species: String,
    /// The protocol version that it speaks.
    pub protocol_version: i32,
    /// The user agent.
    pub user_agent: Option<String>,
    /// The height of its chain.
    pub start_height: Option<i32>,
    /// When it responded first.
    pub first_seen: Time,
    /// When it responded last.
    pub last_seen: Time,
}

/// The state of the map.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Overview {
    /// The instant that all of it is of.
    pub at: Time,
    /// The newest passes, the newest first.
    pub passes: Vec<PassLine>,
    /// All nodes by species: TRB first, then by how many are up.
    pub species: Vec<SpeciesLine>,
    /// The candidates.
    pub candidates: CandidateCount,
    /// The nodes that a keeper cares for most: TRB and the named ones.
    pub kept: Vec<NodeLine>,
    /// The nodes that answered first of late, the newest first.
    pub newest: Vec<NodeLine>,
}

/// A result of a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct ProbeLine {
    /// The pass.
    pub pass: i64,
    /// When the outcome was known.
    pub probed_at: Time,
    /// How it ended.
    pub outcome: String,
    /// The protocol version, where it responded.
    pub protocol_version: Option<i32>,
    /// The user agent, where it sent one.
    pub user_agent: Option<String>,
    /// The service bits in two's complement.
    pub services: Option<i64>,
    /// The height of its chain.
    pub start_height: Option<i32>,
    /// From dialling to connected.
    pub connect_ms: Option<i32>,
    /// From connected to `version`.
    pub version_ms: Option<i32>,
    /// Entries sent in reply to `getaddr`.
    pub peers_sent: Option<i32>,
}

/// What makes an address a node.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct NodeFacts {
    /// The figures of a line.
    #[serde(flatten)]
    pub line: NodeLine,
    /// The service bits in two's complement.
    pub services: i64,
    /// The relay byte.
    pub relay: Option<bool>,
    /// From dialling to connected.
    pub connect_ms: Option<i32>,
    /// From connected to `version`.
    pub version_ms: Option<i32>,
    /// The country.
    pub country: Option<String>,
    /// The autonomous system.
    pub asn: Option<i64>,
    /// Who runs it.
    pub as_name: Option<String>,
    /// When it was last asked for its peers.
    pub peers_asked_at: Option<Time>,
    /// How many entries it sent then.
    pub peers_sent: Option<i32>,
}

/// Everything known of an address.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct AddressFacts {
    /// The address.
    pub host: Ipv4Addr,
    /// The port.
    pub port: i32,
    /// When it was first heard of.
    pub first_heard: Time,
    /// When it was last heard of.
    pub last_heard: Time,
    /// Failures in a row.
    pub failures: i32,
    /// When it was probed last.
    pub last_probed: Option<Time>,
    /// How that ended.
    pub last_outcome: Option<String>,
    /// When it is due.
    pub next_probe: Time,
    /// Present if it ever answered.
    pub node: Option<NodeFacts>,
    /// Its last results, the newest first; of nodes only.
    pub probes: Vec<ProbeLine>,
}

/// Which addresses a person asks for.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Wanted {
    /// Every port of a host.
    Host(Ipv4Addr),
    /// One address.
    Address(Ipv4Addr, u16),
    /// Nodes with this name, whatever the case of its letters.
    Name(String),
}

/// A read-only session.
pub struct Reader {
    client: Client,
}

/// So many passes and nodes are listed in an overview.
const LINES: i64 = 10;
/// A host may be known with thousands of made-up ports.
const MAX_ADDRESSES: i64 = 100;

const LOCK: &str =
    "LOCK TABLE address_journal, address_blocks_a, address_blocks_b, result_journal, node_rows_a,
    node_rows_b, probe_rows_a, probe_rows_b IN ACCESS SHARE MODE;
    SET LOCAL work_mem = '32MB'; SET LOCAL jit = off";

const NODE_COLUMNS: &str = "n.host::text, n.port, n.name, n.status, n.species, n.protocol_version, \
     n.user_agent, n.start_height, n.first_seen, n.last_seen";

impl Reader {
    /// Opens the database that `url` names.
    ///
    /// # Errors
    /// Where it is away for [`PATIENCE`], refuses us, or holds no schema that this program can read.
    pub fn open(url: &str) -> Result<Self, StoreError> {
        let mut client = connect_within(url, PATIENCE)?;
        schema::check(&mut client)?;
        let set = client.batch_execute("SET default_transaction_read_only = on");
        set.map_err(|error| StoreError::of_statement(&error, client.is_closed()))?;
        Ok(Self { client })
    }

    /// Reads the state of the map.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn overview(&mut self) -> Result<Overview, StoreError> {
        self.read(|t| {
            let kept = format!(
                "SELECT {NODE_COLUMNS} FROM nodes n WHERE n.species = 'TRB' OR n.name IS NOT NULL
                ORDER BY n.species <> 'TRB', n.status <> 'up', n.name, n.host, n.port LIMIT 100"
            );
            let newest = format!(
                "SELECT {NODE_COLUMNS} FROM nodes n ORDER BY n.first_seen DESC, n.host, n.port LIMIT $1"
            );
            Ok(Overview {
                at: t.query_one("SELECT now()", &[])?.try_get(0)?,
                passes: passes(t)?,
                species: species(t)?,
                candidates: candidates(t)?,
                kept: t.query(&kept, &[])?.iter().map(node_line).collect::<Result<_, _>>()?,
                newest: t.query(&newest, &[&LINES])?.iter().map(node_line).collect::<Result<_, _>>()?,
            })
        })
    }

    /// Reads everything known of the addresses that a person asks for, and the instant that it is of.
    ///
    /// # Errors
    /// Those of the connection.
    pub fn addresses(&mut self, wanted: &Wanted) -> Result<(Time, Vec<AddressFacts>), StoreError> {
        self.read(|t| {
            let at = t.query_one("SELECT now()", &[])?.try_get(0)?;
            let mut found = Vec::new();
            for row in matching(t, wanted)? {
                found.push(address_facts(t, &row)?);
            }
            Ok((at, found))
        })
    }

    fn read<T>(
        &mut self,
        body: impl FnOnce(&mut Transaction) -> Result<T, postgres::Error>,
    ) -> Result<T, StoreError> {
        let transaction =
            self.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead).start();
        let result = transaction.and_then(|mut transaction| {
            // Locked before the instant is taken: a fold empties tables for older instants, too.
            transaction.batch_execute(LOCK)?;
            body(&mut transaction)
        });
        result.map_err(|error| StoreError::of_statement(&error, self.client.is_closed()))
    }
}

fn passes(t: &mut Transaction) -> Result<Vec<PassLine>, postgres::Error> {
    let sql =
        "SELECT pass, started_at, finished_at, probed, responded, failed, new_nodes, new_addresses
        FROM passes ORDER BY pass DESC LIMIT $1";
    let line = |row: &Row| {
        Ok(PassLine {
            pass: row.try_get(0)?,
            started_at: row.try_get(1)?,
            finished_at: row.try_get(2)?,
            probed: row.try_get(3)?,
            responded: row.try_get(4)?,
            failed: row.try_get(5)?,
            new_nodes: row.try_get(6)?,
            new_addresses: row.try_get(7)?,
        })
    };
    t.query(sql, &[&LINES])?.iter().map(line).collect()
}

fn species(t: &mut Transaction) -> Result<Vec<SpeciesLine>, postgres::Error> {
    let sql = "SELECT species, count(*) FILTER (WHERE status = 'up') AS up,
            count(*) FILTER (WHERE status = 'full'), count(*) FILTER (WHERE status = 'down')
        FROM nodes GROUP BY species ORDER BY species <> 'TRB', up DESC, species";
    let line = |row: &Row| {
        Ok(SpeciesLine {
            species: row.try_get(0)?,
            up: row.try_get(1)?,
            full: row.try_get(2)?,
            down: row.try_get(3)?,
        })
    };
    t.query(sql, &[])?.iter().map(line).collect()
}

fn candidates(t: &mut Transaction) -> Result<CandidateCount, postgres::Error> {
    let sql = "SELECT count(*), count(*) FILTER (WHERE last_probed IS NULL),
        count(*) FILTER (WHERE next_probe <= now()) FROM candidates";
    let row = t.query_one(sql, &[])?;
    Ok(CandidateCount { all: row.try_get(0)?, never_probed: row.try_get(1)?, due: row.try_get(2)? })
}

fn matching(t: &mut Transaction, wanted: &Wanted) -> Result<Vec<Row>, postgres::Error> {
    let columns = "a.host::text, a.port, a.first_heard, a.last_heard, a.failures, a.last_probed,
        a.last_outcome, a.next_probe";
    let end = format!("ORDER BY a.host, a.port LIMIT {MAX_ADDRESSES}");
    let between = |low: Address, high: Address| -> [i64; 2] {
        [low.to_bits().cast_signed(), high.to_bits().cast_signed()]
    };
    let [low, high] = match wanted {
        Wanted::Host(host) => between(Address::new(*host, 0), Address::new(*host, u16::MAX)),
        Wanted::Address(host, port) => {
            between(Address::new(*host, *port), Address::new(*host, *port))
        }
        Wanted::Name(name) => {
            let sql = format!(
                "SELECT {columns} FROM node_names m CROSS JOIN LATERAL addresses_between(m.key, m.key) a
                WHERE lower(m.name) = lower($1) AND a.is_node {end}"
            );
            return t.query(&sql, &[name]);
        }
    };
    t.query(&format!("SELECT {columns} FROM addresses_between($1, $2) a {end}"), &[&low, &high])
}

fn address_facts(t: &mut Transaction, row: &Row) -> Result<AddressFacts, postgres::Error> {
    let (host, port): (&str, i32) = (row.try_get(0)?, row.try_get(1)?);
    let key = Address::new(ip(host), u16::try_from(port).unwrap_or(0)).to_bits().cast_signed();
    let node = format!(
        "SELECT {NODE_COLUMNS}, n.services, n.relay, n.connect_ms, n.version_ms, n.country, n.asn, n.as_name,
        n.peers_asked_at, n.peers_sent FROM nodes_between($1, $1) n"
    );
    let probes =
        "SELECT pass, probed_at, outcome, protocol_version, user_agent, services, start_height,
        connect_ms, version_ms, peers_sent FROM probes_between($1, $1) ORDER BY pass DESC";
    Ok(AddressFacts {
        host: ip(host),
        port,
        first_heard: row.try_get(2)?,
        last_heard: row.try_get(3)?,
        failures: row.try_get(4)?,
        last_probed: row.try_get(5)?,
        last_outcome: row.try_get(6)?,
        next_probe: row.try_get(7)?,
        node: t.query_opt(&node, &[&key])?.as_ref().map(node_facts).transpose()?,
        probes: t.query(probes, &[&key])?.iter().map(probe_line).collect::<Result<_, _>>()?,
    })
}

fn node_line(row: &Row) -> Result<NodeLine, postgres::Error> {
    Ok(NodeLine {
        host: ip(row.try_get(0)?),
        port: row.try_get(1)?,
        name: row.try_get(2)?,
        status: row.try_get(3)?,
        species: row.try_get(4)?,
        protocol_version: row.try_get(5)?,
        user_agent: row.try_get(6)?,
        start_height: row.try_get(7)?,
        first_seen: row.try_get(8)?,
        last_seen: row.try_get(9)?,
    })
}

fn node_facts(row: &Row) -> Result<NodeFacts, postgres::Error> {
    Ok(NodeFacts {
        line: node_line(row)?,
        services: row.try_get(10)?,
        relay: row.try_get(11)?,
        connect_ms: row.try_get(12)?,
        version_ms: row.try_get(13)?,
        country: row.try_get(14)?,
        asn: row.try_get(15)?,
        as_name: row.try_get(16)?,
        peers_asked_at: row.try_get(17)?,
        peers_sent: row.try_get(18)?,
    })
}

fn probe_line(row: &Row) -> Result<ProbeLine, postgres::Error> {
    Ok(ProbeLine {
        pass: row.try_get(0)?,
        probed_at: row.try_get(1)?,
        outcome: row.try_get(2)?,
        protocol_version: row.try_get(3)?,
        user_agent: row.try_get(4)?,
        services: row.try_get(5)?,
        start_height: row.try_get(6)?,
        connect_ms: row.try_get(7)?,
        version_ms: row.try_get(8)?,
        peers_sent: row.try_get(9)?,
    })
}

/// The tables' own checks see to it that a host is one IPv4 address; its text may end with `/32`.
fn ip(text: &str) -> Ipv4Addr {
    text.trim_end_matches("/32").parse().unwrap_or(Ipv4Addr::UNSPECIFIED)
}

impl<'a> FromSql<'a> for Time {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, Box<dyn std::error::Error + Sync + Send>> {
        /// PostgreSQL counts from 2000-01-01.
        const EPOCH: i64 = 946_684_800_000_000;
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self(UnixTime::from_micros(micros.saturating_add(EPOCH))))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }
}

impl Time {
    /// The time in the form of RFC 3339, in UTC, to the second.
    pub fn to_text(self) -> String {
        let whole = OffsetDateTime::from_unix_timestamp(self.0.as_secs());
        let text = whole.ok().and_then(|time| time.format(&Rfc3339).ok());
        text.unwrap_or_else(|| "out of range".to_owned())
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_counts_from_the_year_2000_in_the_database() {
        let read = |micros: i64| Time::from_sql(&Type::TIMESTAMPTZ, &micros.to_be_bytes()).unwrap();
        assert_eq!(read(0).to_text(), "2000-01-01T00:00:00Z");
        assert_eq!(read(-946_684_800_000_000).0, UnixTime::from_secs(0));
        assert_eq!(read(i64::MAX).to_text(), "out of range", "infinity");
        assert!(Time::from_sql(&Type::TIMESTAMPTZ, b"short").is_err());
    }

    #[test]
    fn a_host_is_read_with_and_without_its_mask() {
        assert_eq!(ip("127.0.0.1/32"), Ipv4Addr::LOCALHOST);
        assert_eq!(ip("127.0.0.1"), Ipv4Addr::LOCALHOST);
    }
}
