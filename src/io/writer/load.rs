//! What is read at start: addresses, sources, the newest pass.
//!
//! Layer 3. Invariants: 1. rows are streamed: memory does not grow with their number; 2. no value of a row,
//! whatever it holds, makes reading fail: such a row is skipped and counted; 3. an address comes once.

use std::io::BufRead;

use postgres::{Client, IsolationLevel, Transaction};

use super::copy::{Fields, read_time};
use super::journal::whole_time;
use super::store::{Failure, ROOM};
use crate::crawl::address::Address;
use crate::crawl::batch::{Known, KnownNode, LastPass, PassRow, SourceRow};
use crate::crawl::outcome::Outcome;
use crate::crawl::time::UnixTime;

/// Every address, with what the crawler remembers of it: first as a candidate, then as a node.
const ADDRESSES: &str = "COPY (
    SELECT coalesce(a.key, n.key), a.last_heard, a.failures, a.last_probed, a.outcome, a.next_probe, a.source,
        n.first_seen, n.failures, n.last_probed, n.outcome, n.next_probe, n.last_seen, n.peers_asked_at,
        n.peers_sent, n.species = 'TRB'
    FROM address_state(0, 281474976710655) a FULL JOIN node_state(0, 281474976710655) n ON n.key = a.key
    ) TO STDOUT";

const SOURCES: &str = "COPY (SELECT source, tried, answered FROM source_state) TO STDOUT";

const LAST_PASS: &str = "
    SELECT pass, started_at::text, finished_at::text, probed, responded, failed, new_nodes, new_addresses
    FROM passes ORDER BY pass DESC LIMIT 1";

pub(super) fn addresses(
    client: &mut Client,
    each: &mut dyn FnMut(Known),
) -> Result<LastPass, Failure> {
    let mut transaction = client
        .build_transaction()
        .isolation_level(IsolationLevel::RepeatableRead)
        .read_only(true)
        .start()?;
    transaction.batch_execute("SET LOCAL statement_timeout = 0")?;
    transaction.batch_execute(ROOM)?;
    let last = last_pass(&mut transaction)?;
    stream(&mut transaction, ADDRESSES, |line| known_of(line).map(&mut *each))?;
    transaction.commit()?;
    Ok(last)
}

pub(super) fn sources(
    client: &mut Client,
    each: &mut dyn FnMut(u16, SourceRow),
) -> Result<(), Failure> {
    let mut transaction = client.transaction()?;
    stream(&mut transaction, SOURCES, |line| {
        source_of(line).map(|(source, row)| each(source, row))
    })?;
    transaction.commit()?;
    Ok(())
}

/// Hands every row to `take` and counts those that it cannot read.
fn stream(
    transaction: &mut Transaction,
    statement: &str,
    mut take: impl FnMut(&[u8]) -> Option<()>,
) -> Result<(), Failure> {
    let mut reader = transaction.copy_out(statement)?;
    let (mut line, mut skipped) = (Vec::new(), 0_u64);
    while reader.read_until(b'\n', &mut line)? > 0 {
        skipped += u64::from(take(&line).is_none());
        line.clear();
    }
    if skipped > 0 {
        log::warn!("load skipped_rows={skipped} error=\"rows of the database that make no sense\"");
    }
    Ok(())
}

fn last_pass(transaction: &mut Transaction) -> Result<LastPass, Failure> {
    let Some(row) = transaction.query_opt(LAST_PASS, &[])? else {
        return Ok(LastPass::default());
    };
    let time = |index| -> Result<_, postgres::Error> {
        Ok(row.try_get::<_, Option<&str>>(index)?.and_then(read_time))
    };
    let count = |index| -> Result<u64, postgres::Error> {
        Ok(u64::try_from(row.try_get::<_, i64>(index)?).unwrap_or(0))
    };
    Ok(LastPass {
        pass: count(0)?,
        row: PassRow {
            started_at: time(1)?.unwrap_or_default(),
            finished_at: time(2)?,
            probed: count(3)?,
            responded: count(4)?,
            failed: count(5)?,
            new_nodes: count(6)?,
            new_addresses: count(7)?,
        },
    })
}

/// One row of [`ADDRESSES`]; `None` where a value makes no sense.
fn known_of(line: &[u8]) -> Option<Known> {
    let mut fields = Fields::of(line)?;
    let address = fields.key()?;
    let last_heard = fields.opt(read_seconds)?;
    let failures = fields.opt(read_number)?;
    let last_probed = fields.opt(read_seconds)?;
    let last_outcome = fields.opt(read_outcome)?;
    let next_probe = fields.opt(read_seconds)?;
    let source = fields.opt(|text| text.parse().ok().map(i16::cast_unsigned))?.unwrap_or(0);
    let Some(first_seen) = fields.opt(read_time)? else {
        return Some(Known {
            address,
            last_heard: last_heard?,
            failures: failures?,
            last_probed,
            last_outcome,
            next_probe: next_probe?,
            source,
            node: None,
        });
    };
    Some(Known {
        address,
        // Only a node that a person named may never have been heard of.
        last_heard: last_heard.unwrap_or(first_seen),
        failures: fields.small()?,
        last_probed: Some(fields.time()?),
        last_outcome: Some(read_outcome(fields.value()?)?),
        next_probe: fields.time()?,
        source: 0,
        node: Some(KnownNode {
            last_seen: fields.time()?,
            peers_asked_at: fields.opt(read_time)?,
            peers_sent: fields.opt(read_number)?,
            is_trb: fields.value()? == "t",
        }),
    })
}

fn source_of(line: &[u8]) -> Option<(u16, SourceRow)> {
    let mut fields = Fields::of(line)?;
    let source: i16 = fields.value()?.parse().ok()?;
    Some((source.cast_unsigned(), SourceRow { tried: fields.small()?, answered: fields.small()? }))
}

fn read_seconds(text: &str) -> Option<UnixTime> {
    text.parse().ok().map(whole_time)
}

fn read_number(text: &str) -> Option<u32> {
    text.parse().ok()
}

fn read_outcome(text: &str) -> Option<Outcome> {
    Outcome::from_code(text.parse().ok()?)
}

impl Fields<'_> {
    /// An address as the one number that is its key.
    fn key(&mut self) -> Option<Address> {
        let key: u64 = self.value()?.parse().ok()?;
        let address = Address::from_bits(key);
        (address.to_bits() == key && address.port() != 0).then_some(address)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_that_makes_no_sense_is_refused() {
        let key = Address::new([127, 0, 0, 1].into(), 8333).to_bits();
        let candidate = format!("{key}\t5\t2\t7\t3\t9\t-1{}\n", "\t\\N".repeat(9));
        let known = known_of(candidate.as_bytes()).unwrap();
        assert_eq!((known.failures, known.source), (2, 65535));
        assert_eq!(known.last_outcome, Some(Outcome::ConnectTimeout));
        assert_eq!(known.next_probe, whole_time(9));
        for (old, new) in
            [("\t5\t", "\t\\N\t"), ("\t2\t", "\t-2\t"), ("\t3\t", "\t8\t"), ("\t9\t", "\t\\N\t")]
        {
            assert_eq!(known_of(candidate.replacen(old, new, 1).as_bytes()), None, "{new}");
        }
        for key in ["\\N", "-1", "65536", "281474976710656", "x"] {
            assert!(Fields::of(key.as_bytes()).unwrap().key().is_none(), "{key}");
        }
    }
}
