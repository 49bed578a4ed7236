//! What the crawler reads at start: addresses, sources, the newest pass.
//!
//! Invariants:
//! 1. Rows are streamed: memory does not grow with their number.
//! 2. A row with a value that makes no sense is skipped and counted.
//! 3. No address is read twice.

use std::str::FromStr;

use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::rows::{Known, KnownNode, LastPass, PassRow, SourceRow};
use bitdash_core::vocabulary::time::UnixTime;
use postgres::binary_copy::BinaryCopyOutRow;
use postgres::types::FromSql;
use postgres::{Client, Error, GenericClient, IsolationLevel, Transaction};

use super::journal::whole_time;
use super::store::PLANNING;
use crate::db::copy::copy_out;
use crate::db::timestamp::Timestamp;

/// Every address: first its state as a candidate, then that as a node.
const ADDRESSES: &str = "
    SELECT coalesce(a.key, n.key), a.last_heard, a.failures, a.last_probed, a.outcome, a.next_probe, a.source,
        n.first_seen, n.failures, n.last_probed, n.last_outcome, n.next_probe, n.last_seen, n.peers_asked_at,
        n.peers_sent, n.species = 'TRB'
    FROM address_state(0, 281474976710655) a
    FULL JOIN (SELECT bitdash_internal.key(host, port) AS key, * FROM nodes) n ON n.key = a.key";

const SOURCES: &str = "SELECT source, tried, answered FROM source_state";

pub(super) fn addresses(
    client: &mut Client,
    each: &mut dyn FnMut(Known),
) -> Result<LastPass, Error> {
    let mut transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()?;
    transaction.batch_execute("SET LOCAL statement_timeout = 0")?;
    transaction.batch_execute(PLANNING)?;
    let last = last_pass(&mut transaction)?;
    stream(&mut transaction, ADDRESSES, |row| known_of(row).map(&mut *each))?;
    transaction.commit()?;
    Ok(last)
}

pub(super) fn sources(
    client: &mut Client,
    each: &mut dyn FnMut(u16, SourceRow),
) -> Result<(), Error> {
    let mut transaction = client.transaction()?;
    stream(&mut transaction, SOURCES, |row| {
        let (tried, answered) = (count(get(row, 1)?)?, count(get(row, 2)?)?);
        each(get::<i16>(row, 0)?.cast_unsigned(), SourceRow { tried, answered });
        Some(())
    })?;
    transaction.commit()
}

pub(super) fn names(
    client: &mut Client,
    each: &mut dyn FnMut(Address, String),
) -> Result<(), Error> {
    for row in client.query("SELECT bitdash_internal.key(host, port), name FROM node_names", &[])? {
        if let Some(address) = address_of(row.try_get(0)?) {
            each(address, row.try_get(1)?);
        }
    }
    Ok(())
}

pub(super) fn forgets_from(client: &mut impl GenericClient) -> Result<Option<UnixTime>, Error> {
    let row = client.query_one("SELECT forgets_from FROM store_state", &[])?;
    Ok(row.try_get::<_, Option<Timestamp>>(0)?.and_then(Timestamp::finite))
}

/// An array with nulls or of another shape counts as none.
pub(super) fn learned(client: &mut Client) -> Result<Option<Vec<i32>>, Error> {
    let row = client.query_one("SELECT learned FROM store_state", &[])?;
    Ok(row.try_get(0).unwrap_or_default())
}

/// Calls `take` for every row and counts those that it refuses.
fn stream(
    transaction: &mut Transaction,
    query: &str,
    mut take: impl FnMut(&BinaryCopyOutRow) -> Option<()>,
) -> Result<(), Error> {
    let mut skipped = 0_u64;
    copy_out(transaction, query, |row| skipped += u64::from(take(row).is_none()))?;
    if skipped > 0 {
        log::warn!("load skipped_rows={skipped} error=\"rows of the database make no sense\"");
    }
    Ok(())
}

/// The newest pass. Where results are newer than `passes`, whose rows were deleted or left behind
/// when the database was moved, it is a finished one: numbers continue after theirs, since the
/// results of each node are ordered by them.
fn last_pass(transaction: &mut Transaction) -> Result<LastPass, Error> {
    let newest = "SELECT greatest((SELECT max(pass) FROM probe_journal), (SELECT max(pass) FROM probe_rows_a),
        (SELECT max(pass) FROM probe_rows_b), (SELECT max(pass) FROM history_passes), last_closed_pass(), 0)";
    let newest: i64 = transaction.query_one(newest, &[])?.try_get(0)?;
    let row = "SELECT * FROM passes WHERE pass >= $1 ORDER BY pass DESC LIMIT 1";
    let Some(row) = transaction.query_opt(row, &[&newest])? else {
        let row = PassRow { finished_at: Some(UnixTime::default()), ..PassRow::default() };
        let pass = u64::try_from(newest).unwrap_or(0);
        return Ok(if pass > 0 { LastPass { pass, row } } else { LastPass::default() });
    };
    let count = |name| -> Result<u64, Error> {
        let count = row.try_get::<_, Option<i64>>(name)?;
        Ok(count.and_then(|count| u64::try_from(count).ok()).unwrap_or(0))
    };
    let started_at: Timestamp = row.try_get("started_at")?;
    let finished_at: Option<Timestamp> = row.try_get("finished_at")?;
    Ok(LastPass {
        pass: count("pass")?,
        row: PassRow {
            started_at: started_at.finite().unwrap_or_default(),
            finished_at: finished_at.and_then(Timestamp::finite),
            probed: count("probed")?,
            responded: count("responded")?,
            failed: count("failed")?,
            new_nodes: count("new_nodes")?,
            new_addresses: count("new_addresses")?,
            due: count("due")?,
            candidates: count("candidates")?,
            uplink_was_down: row.try_get("uplink_was_down")?,
        },
    })
}

/// One row of [`ADDRESSES`]; `None` if a value makes no sense.
fn known_of(row: &BinaryCopyOutRow) -> Option<Known> {
    let address = address_of(get(row, 0)?)?;
    let last_heard = get::<Option<i32>>(row, 1)?.map(whole_time);
    let Some(first_seen) = get::<Option<Timestamp>>(row, 7)? else {
        let outcome = |code| Outcome::from_code(u8::try_from(code).ok()?);
        let last_outcome = match get::<Option<i16>>(row, 4)? {
            Some(code) => Some(outcome(code)?),
            None => None,
        };
        return Some(Known {
            address,
            last_heard: last_heard?,
            failures: count(get::<i16>(row, 2)?.into())?,
            last_probed: get::<Option<i32>>(row, 3)?.map(whole_time),
            last_outcome,
            next_probe: whole_time(get(row, 5)?),
            source: get::<Option<i16>>(row, 6)?.unwrap_or(0).cast_unsigned(),
            node: None,
        });
    };
    let peers_asked_at = get::<Option<Timestamp>>(row, 13)?;
    Some(Known {
        address,
        // A node from the nodes file may never have been heard of.
        last_heard: last_heard.or(first_seen.finite())?,
        failures: count(get(row, 8)?)?,
        last_probed: Some(time(row, 9)?),
        last_outcome: Some(Outcome::from_str(get(row, 10)?).ok()?),
        next_probe: time(row, 11)?,
        source: 0,
        node: Some(KnownNode {
            last_seen: time(row, 12)?,
            peers_asked_at: peers_asked_at.and_then(Timestamp::finite),
            peers_sent: get::<Option<i32>>(row, 14)?.and_then(count),
            is_trb: get(row, 15)?,
        }),
    })
}

/// The value of a column; `None` if its type is another one.
fn get<'a, T: FromSql<'a>>(row: &'a BinaryCopyOutRow, column: usize) -> Option<T> {
    row.try_get(column).ok()
}

fn time(row: &BinaryCopyOutRow, column: usize) -> Option<UnixTime> {
    get::<Timestamp>(row, column)?.finite()
}

fn count(number: i32) -> Option<u32> {
    u32::try_from(number).ok()
}

fn address_of(key: i64) -> Option<Address> {
    let address = Address::from_bits(key.cast_unsigned());
    (super::key(address) == key && address.port() != 0).then_some(address)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_key_of_an_address_with_a_port_is_one() {
        let key = super::super::key(Address::new([127, 0, 0, 1].into(), 8333));
        assert_eq!(address_of(key).map(|address| address.port()), Some(8333));
        for key in [-1, 0, 65_536, 1 << 48 | 1, i64::MIN, i64::MAX] {
            assert_eq!(address_of(key), None, "{key}");
        }
    }
}
