//! The rows of a batch on their way into the journals: plain COPY, without staging tables and merges.
//!
//! Layer 3. Invariants: 1. rows hold absolute values and the number of their batch, so that a batch which is
//! written twice says nothing new the second time; 2. a batch has at most one row of a node's state and one
//! of an address per key and number; 3. times of candidates are whole seconds, rounded down.

use std::collections::BTreeSet;
use std::io::Write;

use postgres::Transaction;

use super::copy::Rows;
use super::store::Failure;
use crate::crawl::address::Address;
use crate::crawl::batch::{Batch, FailedRow, HeardRow, NodeRow, ProbeRow, Seen};
use crate::crawl::outcome::Outcome;
use crate::crawl::target::VersionInfo;
use crate::crawl::time::UnixTime;

const ADDRESSES: &str =
    "COPY address_journal (key, batch, heard_at, probed_at, next_probe, source, failures, outcome)
    FROM STDIN";
const SOURCES: &str = "COPY source_journal (source, batch, tried, answered) FROM STDIN";
const RESULTS: &str = "COPY result_journal (key, batch, pass, at, outcome, protocol_version, user_agent, services,
    start_height, relay, connect_ms, version_ms, peers_sent, status, failures, next_probe, species, seen_at,
    peers_asked_at) FROM STDIN";

/// The two numbers of a batch in the journals.
#[derive(Clone, Copy)]
pub(super) struct Numbers {
    /// For all that it says,
    pub(super) batch: i64,
    /// but what it forgets: that comes last.
    pub(super) forgotten: i64,
}

/// Copies the batch's addresses, sources and results into the journals.
pub(super) fn append(
    t: &mut Transaction,
    rows: &mut Rows,
    batch: &Batch,
    numbers: Numbers,
) -> Result<(), Failure> {
    copy(t, rows, ADDRESSES, address_rows(batch), |rows, row| row.write(rows, numbers))?;
    copy(t, rows, SOURCES, &batch.sources, |rows, (source, row)| {
        rows.int(source.cast_signed()).int(numbers.batch);
        rows.small(row.tried).small(row.answered.min(row.tried));
    })?;
    copy(t, rows, RESULTS, result_rows(batch), |rows, row| row.write(rows, numbers.batch))
}

/// A row of `address_journal`; one that says neither forgets the address.
struct AddressRow<'a> {
    address: Address,
    heard: Option<&'a HeardRow>,
    failed: Option<&'a FailedRow>,
}

fn address_rows(batch: &Batch) -> impl Iterator<Item = AddressRow<'_>> {
    let heard = batch.heard.iter().map(|(address, heard)| AddressRow {
        address: *address,
        heard: Some(heard),
        failed: batch.failed.get(address),
    });
    let failed = batch.failed.iter().filter(|(address, _)| !batch.heard.contains_key(address));
    let failed = failed.map(|(address, failed)| AddressRow {
        address: *address,
        heard: None,
        failed: Some(failed),
    });
    let forgotten = batch.forgotten.iter();
    let forgotten =
        forgotten.map(|address| AddressRow { address: *address, heard: None, failed: None });
    heard.chain(failed).chain(forgotten)
}

impl AddressRow<'_> {
    fn write(&self, rows: &mut Rows, numbers: Numbers) {
        let says = self.heard.is_some() || self.failed.is_some();
        rows.key(self.address).int(if says { numbers.batch } else { numbers.forgotten });
        // A probe's word on when it is due counts more than that of the hearing before it.
        let next_probe = self.failed.map(|row| row.next_probe);
        rows.opt_int(self.heard.map(|row| seconds(row.at)));
        rows.opt_int(self.failed.map(|row| seconds(row.last_probed)));
        rows.opt_int(next_probe.or(self.heard.map(|row| row.next_probe)).map(seconds));
        rows.opt_int(self.heard.map(|row| row.source.cast_signed()));
        rows.opt_int(self.failed.map(|row| i16::try_from(row.failures).unwrap_or(i16::MAX)));
        rows.opt_int(self.failed.map(|row| code(row.last_outcome)));
    }
}

/// Whole seconds since 2000-01-01, within what an address can hold: until 2068.
fn seconds(time: UnixTime) -> i32 {
    let since = time.as_secs().saturating_sub(EPOCH).clamp(0, i64::from(i32::MAX));
    i32::try_from(since).unwrap_or(i32::MAX)
}

/// The inverse of [`seconds`].
pub(super) fn whole_time(seconds: i64) -> UnixTime {
    UnixTime::from_secs(seconds.saturating_add(EPOCH))
}

/// 2000-01-01.
const EPOCH: i64 = 946_684_800;

fn code(outcome: Outcome) -> i16 {
    outcome as i16
}

/// A row of `result_journal`: a result, a node's state, or both where they say the same.
struct ResultRow<'a> {
    address: Address,
    probe: Option<&'a ProbeRow>,
    node: Option<&'a NodeRow>,
}

fn result_rows(batch: &Batch) -> impl Iterator<Item = ResultRow<'_>> {
    let mut joined = BTreeSet::new();
    let mut found: Vec<ResultRow<'_>> = Vec::with_capacity(batch.probes.len());
    for probe in &batch.probes {
        let address = probe.address;
        let node = batch.nodes.get(&address).filter(|node| says_the_same(node, probe));
        let node = node.filter(|_| joined.insert(address));
        found.push(ResultRow { address, probe: Some(probe), node });
    }
    let alone = batch.nodes.iter().filter(move |(address, _)| !joined.contains(address));
    let alone =
        alone.map(|(address, node)| ResultRow { address: *address, probe: None, node: Some(node) });
    found.into_iter().chain(alone)
}

/// Whether the node's state holds what this result says and no more.
fn says_the_same(node: &NodeRow, probe: &ProbeRow) -> bool {
    let version = match (&node.seen, &probe.version) {
        (None, None) => true,
        (Some(seen), Some(version)) => {
            let times = (seen.connect_ms, seen.version_ms) == (probe.connect_ms, probe.version_ms);
            seen.at == probe.probed_at && seen.version == *version && times
        }
        _ => false,
    };
    let peers = node.peers == probe.peers_sent.map(|sent| (probe.probed_at, sent));
    let is_one = node.last_probed == probe.probed_at && node.last_outcome == probe.outcome;
    is_one && version && peers
}

impl ResultRow<'_> {
    fn write(&self, rows: &mut Rows, batch: i64) {
        let seen = self.node.and_then(|node| node.seen.as_ref());
        let probe = self.probe;
        rows.key(self.address).int(batch).opt_count(probe.map(|probe| probe.pass));
        let (at, outcome) = match (probe, self.node) {
            (Some(probe), _) => (probe.probed_at, probe.outcome),
            (None, Some(node)) => (node.last_probed, node.last_outcome),
            (None, None) => return,
        };
        rows.time(at).int(code(outcome));
        version_fields(rows, version_of(probe, seen));
        let (connect_ms, version_ms, peers_sent) = match probe {
            Some(probe) => (probe.connect_ms, probe.version_ms, probe.peers_sent),
            None => (
                seen.and_then(|seen| seen.connect_ms),
                seen.and_then(|seen| seen.version_ms),
                self.node.and_then(|node| node.peers).map(|(_, sent)| sent),
            ),
        };
        rows.opt_small(connect_ms).opt_small(version_ms).opt_small(peers_sent);
        rows.opt_text(self.node.map(|node| node.status.as_str()));
        rows.opt_small(self.node.map(|node| node.failures));
        rows.opt_time(self.node.map(|node| node.next_probe));
        rows.opt_text(seen.map(|seen| seen.species));
        rows.opt_time(seen.map(|seen| seen.at).filter(|seen_at| *seen_at != at));
        let asked_at = self.node.and_then(|node| node.peers).map(|(asked_at, _)| asked_at);
        rows.opt_time(asked_at.filter(|asked_at| *asked_at != at));
    }
}

fn version_of<'a>(probe: Option<&'a ProbeRow>, seen: Option<&'a Seen>) -> Option<&'a VersionInfo> {
    match probe {
        Some(probe) => probe.version.as_ref(),
        None => seen.map(|seen| &seen.version),
    }
}

fn version_fields(rows: &mut Rows, version: Option<&VersionInfo>) {
    rows.opt_int(version.map(|version| version.protocol_version));
    rows.opt_text(version.and_then(|version| version.user_agent.as_deref()));
    rows.opt_bits(version.map(|version| version.services));
    rows.opt_int(version.and_then(|version| version.start_height));
    rows.opt_bool(version.and_then(|version| version.relay));
}

/// Copies `items`; sends nothing where there are none.
fn copy<T>(
    transaction: &mut Transaction,
    rows: &mut Rows,
    statement: &str,
    items: impl IntoIterator<Item = T>,
    mut fill: impl FnMut(&mut Rows, T),
) -> Result<(), Failure> {
    const CHUNK: usize = 64 * 1024;
    let mut items = items.into_iter().peekable();
    if items.peek().is_none() {
        return Ok(());
    }
    let mut writer = transaction.copy_in(statement)?;
    rows.clear();
    for item in items {
        fill(rows, item);
        rows.end();
        if rows.as_bytes().len() >= CHUNK {
            writer.write_all(rows.as_bytes())?;
            rows.clear();
        }
    }
    writer.write_all(rows.as_bytes())?;
    writer.finish()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_down_and_cut_to_what_fits() {
        let time = |micros| UnixTime::from_micros(micros);
        for (micros, stored) in [
            (946_684_800_999_999, 0),
            (946_684_801_000_000, 1),
            (1_790_000_000_123_457, 843_315_200),
            (0, 0),
            (i64::MIN, 0),
            (i64::MAX, i32::MAX),
        ] {
            assert_eq!(seconds(time(micros)), stored, "{micros}");
        }
        assert_eq!(whole_time(843_315_200), UnixTime::from_secs(1_790_000_000));
    }

    #[test]
    fn outcome_codes_are_those_of_the_schema() {
        let words: Vec<&str> = Outcome::ALL.iter().map(|outcome| outcome.as_str()).collect();
        let schema = include_str!("../../../sql/001_schema.sql");
        assert!(schema.contains(&format!("'{{{}}}'", words.join(","))));
        for (index, outcome) in Outcome::ALL.iter().enumerate() {
            assert_eq!(usize::try_from(code(*outcome)).unwrap(), index);
        }
    }
}
