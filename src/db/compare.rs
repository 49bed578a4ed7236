//! What a comparison reads: every node, then the candidates on hosts that are not explained yet.

use std::net::IpAddr;

use bitdash_core::vocabulary::address::Address;
use postgres::{Error, Row, Transaction};

use crate::db::StoreError;
use crate::db::export::{PAGE, paged};
use crate::db::reader::{Reader, ip, now};
use crate::db::timestamp::Timestamp;

/// A node.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OurNode<'r> {
    /// Its address.
    pub address: Address,
    /// up, full or down.
    pub status: &'r str,
    /// The lineage of its software.
    pub species: &'r str,
    /// Protocol version that it claims.
    pub protocol_version: i32,
    /// User agent, as stored.
    pub user_agent: Option<&'r str>,
    /// Height of its chain.
    pub start_height: Option<i32>,
    /// When it first responded.
    pub first_seen: Timestamp,
    /// When it last responded.
    pub last_seen: Timestamp,
    /// How its last probe ended.
    pub last_outcome: &'r str,
}

/// The map that is compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct OurMap {
    /// The time of the snapshot.
    pub at: Timestamp,
    /// The newest finished pass and its end.
    pub pass: Option<(i64, Timestamp)>,
}

/// Takes what [`Reader::compare`] reads.
pub trait Comparison {
    /// The map, before everything else.
    fn map(&mut self, map: OurMap);
    /// Every node, sorted by address.
    fn node(&mut self, node: &OurNode);
    /// The hosts on which candidates are asked for, as numbers, after all nodes.
    fn hosts(&mut self) -> Vec<i64>;
    /// Every address on these hosts, nodes included, with the outcome of its last probe.
    fn address(&mut self, address: Address, last_outcome: Option<&str>);
}

const NODES: &str =
    "SELECT host, port, status, species, protocol_version, user_agent, start_height, first_seen,
    last_seen, last_outcome FROM nodes ORDER BY host, port";

impl Reader {
    /// Reads one snapshot of what a comparison needs.
    ///
    /// # Errors
    /// Those of the connection, possibly after calls of `comparison`.
    pub fn compare(&mut self, comparison: &mut dyn Comparison) -> Result<(), StoreError> {
        self.read(|t| {
            t.batch_execute("SET LOCAL statement_timeout = 0")?;
            comparison.map(map(t)?);
            paged(t, NODES, &[], PAGE, &mut |rows| {
                for row in rows {
                    comparison.node(&node(row)?);
                }
                Ok(true)
            })?;
            addresses(t, comparison)
        })
    }
}

fn map(t: &mut Transaction) -> Result<OurMap, Error> {
    let newest = "SELECT pass, finished_at FROM passes WHERE finished_at IS NOT NULL
        ORDER BY pass DESC LIMIT 1";
    let pass = t.query_opt(newest, &[])?;
    let pass = pass.map(|row| Ok::<_, Error>((row.try_get(0)?, row.try_get(1)?))).transpose()?;
    Ok(OurMap { at: now(t)?, pass })
}

fn node(row: &Row) -> Result<OurNode<'_>, Error> {
    let port: i32 = row.try_get(1)?;
    Ok(OurNode {
        address: Address::new(ip(row.try_get::<_, IpAddr>(0)?), u16::try_from(port).unwrap_or(0)),
        status: row.try_get(2)?,
        species: row.try_get(3)?,
        protocol_version: row.try_get(4)?,
        user_agent: row.try_get(5)?,
        start_height: row.try_get(6)?,
        first_seen: row.try_get(7)?,
        last_seen: row.try_get(8)?,
        last_outcome: row.try_get(9)?,
    })
}

fn addresses(t: &mut Transaction, comparison: &mut dyn Comparison) -> Result<(), Error> {
    let hosts = comparison.hosts();
    if hosts.is_empty() {
        return Ok(());
    }
    let sql = "SELECT key, last_outcome FROM bitdash_internal.addresses_of($1)";
    let statement = t.prepare(sql)?;
    let portal = t.bind(&statement, &[&hosts])?;
    drop(hosts);
    loop {
        let rows = t.query_portal(&portal, PAGE)?;
        if rows.is_empty() {
            return Ok(());
        }
        for row in &rows {
            let key: i64 = row.try_get(0)?;
            comparison.address(Address::from_bits(key.cast_unsigned()), row.try_get(1)?);
        }
    }
}
