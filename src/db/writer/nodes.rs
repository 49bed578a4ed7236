//! Nodes, which are updated in place, and their names.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::rows::{Batch, NodeRow};
use postgres::binary_copy::BinaryCopyInWriter;
use postgres::{Error, Transaction};

use super::integer;
use crate::db::copy::copy_in;
use crate::db::timestamp::Timestamp;

/// The batch's rows, with the columns of `nodes`. A temporary table is not logged.
const STAGING: &str = "CREATE TEMPORARY TABLE IF NOT EXISTS node_batch ON COMMIT DELETE ROWS
    AS SELECT * FROM nodes WITH NO DATA";

/// Columns that change together: they keep their values if the first one of them is null in the
/// batch.
const CHANGES: [&[&str]; 3] = [
    &["status", "last_probed", "last_outcome", "failures", "next_probe"],
    &[
        "last_seen",
        "species",
        "release",
        "protocol_version",
        "user_agent",
        "services",
        "start_height",
        "relay",
        "connect_ms",
        "version_ms",
    ],
    &["peers_asked_at", "peers_sent"],
];

const INSERT: &str = "INSERT INTO nodes SELECT b.* FROM node_batch b
    WHERE b.last_seen IS NOT NULL AND NOT EXISTS (
        SELECT FROM nodes n WHERE n.host = b.host AND n.port = b.port)";

const UPDATE_NAMES: &str = "UPDATE nodes n SET name = m.name
    FROM nodes o LEFT JOIN node_names m ON m.host = o.host AND m.port = o.port
    WHERE n.host = o.host AND n.port = o.port AND n.name IS DISTINCT FROM m.name";

/// Updates the nodes of a batch, and inserts those that responded for the first time.
pub(super) fn write(t: &mut Transaction, batch: &Batch) -> Result<(), Error> {
    if batch.nodes.is_empty() {
        return Ok(());
    }
    t.batch_execute(STAGING)?;
    copy_in(t, "node_batch", &batch.nodes, |writer, (address, row)| {
        write_node(writer, *address, row)
    })?;
    t.batch_execute(&update())?;
    if t.execute(INSERT, &[])? > 0 {
        t.execute(UPDATE_NAMES, &[])?;
    }
    Ok(())
}

fn update() -> String {
    let change = |column: &str, first: &str| {
        format!("{column} = CASE WHEN b.{first} IS NULL THEN n.{column} ELSE b.{column} END")
    };
    let changes: Vec<String> = CHANGES
        .iter()
        .flat_map(|columns| columns.iter().map(|column| change(column, columns[0])))
        .collect();
    format!(
        "UPDATE nodes n SET {} FROM node_batch b WHERE n.host = b.host AND n.port = b.port",
        changes.join(", ")
    )
}

/// Writes the columns of `nodes` in their order.
fn write_node(
    writer: &mut BinaryCopyInWriter,
    address: Address,
    row: &NodeRow,
) -> Result<(), Error> {
    let seen = row.seen.as_ref();
    let version = seen.map(|seen| &seen.version);
    let user_agent = version.and_then(|version| version.user_agent.as_deref());
    let seen_at = seen.map(|seen| Timestamp(seen.at));
    writer.write(&[
        &IpAddr::V4(address.ip()),
        &i32::from(address.port()),
        &None::<String>, // name
        &row.status.as_str(),
        &seen.map(|seen| &*seen.lineage.species),
        &seen.and_then(|seen| seen.lineage.release.as_deref()),
        &version.map(|version| version.protocol_version),
        &user_agent,
        &version.map(|version| version.services.cast_signed()),
        &version.and_then(|version| version.start_height),
        &version.and_then(|version| version.relay),
        &seen.and_then(|seen| seen.connect_ms).map(integer),
        &seen.and_then(|seen| seen.version_ms).map(integer),
        &None::<String>, // country
        &None::<i64>,    // asn
        &None::<String>, // as_name
        &seen_at,
        &seen_at,
        &Timestamp(row.last_probed),
        &row.last_outcome.as_str(),
        &integer(row.failures),
        &Timestamp(row.next_probe),
        &row.peers.map(|(asked_at, _)| Timestamp(asked_at)),
        &row.peers.map(|(_, sent)| integer(sent)),
    ])
}

/// Replaces all names.
pub(super) fn write_names(
    t: &mut Transaction,
    names: &BTreeMap<Address, String>,
) -> Result<(), Error> {
    let hosts: Vec<IpAddr> = names.keys().map(|address| IpAddr::V4(address.ip())).collect();
    let ports: Vec<i32> = names.keys().map(|address| i32::from(address.port())).collect();
    // PostgreSQL's text cannot hold a zero byte.
    let names: Vec<String> = names.values().map(|name| name.replace('\0', "")).collect();
    t.execute(
        "DELETE FROM node_names WHERE (host, port) NOT IN
            (SELECT host, port FROM unnest($1::inet[], $2::integer[]) u (host, port))",
        &[&hosts, &ports],
    )?;
    t.execute(
        "INSERT INTO node_names AS m
            SELECT * FROM unnest($1::inet[], $2::integer[], $3::text[]) u (host, port, name)
        ON CONFLICT (host, port) DO UPDATE SET name = excluded.name WHERE m.name <> excluded.name",
        &[&hosts, &ports, &names],
    )?;
    t.execute(UPDATE_NAMES, &[])?;
    Ok(())
}
