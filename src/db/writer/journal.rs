//! The rows of a batch that are appended to the journals: addresses, sources, results.
//!
//! Invariants:
//! 1. Rows hold absolute values: a batch that is written twice changes nothing the second time.
//! 2. A batch has at most one row of an address per batch number.
//! 3. Times of candidates are whole seconds, rounded down.

use bitdash_core::vocabulary::rows::{Batch, FailedRow, HeardRow, ProbeRow};
use bitdash_core::vocabulary::time::UnixTime;
use postgres::binary_copy::BinaryCopyInWriter;
use postgres::{Error, Transaction};

use super::{integer, key};
use crate::db::copy::copy_in;
use crate::db::timestamp::Timestamp;

/// The number of the first batch of a session: newer than everything in the journals.
// pglogical#136: a sequence restarts where a database was moved by replication.
pub(super) fn next_batch(t: &mut Transaction) -> Result<i32, Error> {
    let newest = "SELECT greatest((SELECT max(batch) FROM address_journal),
        (SELECT max(batch) FROM source_journal), 0)";
    Ok(t.query_one(newest, &[])?.try_get::<_, i32>(0)?.saturating_add(1))
}

/// Appends the addresses, sources and results of a batch to the journals. The batch has two
/// numbers, since an address that it forgets may have been heard of in it.
pub(super) fn append(t: &mut Transaction, batch: &Batch, number: i32) -> Result<(), Error> {
    let told = batch
        .heard
        .iter()
        .map(|(address, heard)| (address, number, Some(heard), batch.failed.get(address)));
    let failed = batch.failed.iter().filter(|(address, _)| !batch.heard.contains_key(address));
    let failed = failed.map(|(address, failed)| (address, number, None, Some(failed)));
    let forgotten =
        batch.forgotten.iter().map(|address| (address, number.saturating_add(1), None, None));
    copy_in(t, "address_journal", told.chain(failed).chain(forgotten), |writer, row| {
        let (address, number, heard, failed): (_, _, Option<&HeardRow>, Option<&FailedRow>) = row;
        // The time after a probe takes precedence over that of a new address.
        let next_probe = failed.map(|row| row.next_probe).or(heard.map(|row| row.next_probe));
        writer.write(&[
            &key(*address),
            &number,
            &heard.map(|row| seconds(row.at)),
            &failed.map(|row| seconds(row.last_probed)),
            &next_probe.map(seconds),
            &heard.map(|row| row.source.cast_signed()),
            &failed.map(|row| i16::try_from(row.failures).unwrap_or(i16::MAX)),
            &failed.map(|row| row.last_outcome as i16),
        ])
    })?;
    copy_in(t, "source_journal", &batch.sources, |writer, (source, row)| {
        let answered = row.answered.min(row.tried);
        writer.write(&[&number, &integer(row.tried), &integer(answered), &source.cast_signed()])
    })?;
    copy_in(t, "probe_journal", &batch.probes, write_probe)
}

fn write_probe(writer: &mut BinaryCopyInWriter, row: &ProbeRow) -> Result<(), Error> {
    let version = row.version.as_ref();
    writer.write(&[
        &key(row.address),
        &i64::try_from(row.pass).unwrap_or(i64::MAX),
        &Timestamp(row.probed_at),
        &version.map(|version| version.services.cast_signed()),
        &version.map(|version| version.protocol_version),
        &version.and_then(|version| version.start_height),
        &row.connect_ms.map(integer),
        &row.version_ms.map(integer),
        &row.peers_sent.map(integer),
        &(row.outcome as i16),
        &version.and_then(|version| version.user_agent.as_deref()),
    ])
}

/// 2000-01-01.
pub(super) const EPOCH_SECS: i64 = 946_684_800;

/// Whole seconds since 2000-01-01, clamped to what fits: until 2068.
fn seconds(time: UnixTime) -> i32 {
    let since = time.as_secs().saturating_sub(EPOCH_SECS).clamp(0, i64::from(i32::MAX));
    i32::try_from(since).expect("it is clamped")
}

/// The inverse of [`seconds`].
pub(super) fn whole_time(seconds: i32) -> UnixTime {
    UnixTime::from_secs(i64::from(seconds) + EPOCH_SECS)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_are_rounded_down_and_clamped() {
        for (micros, stored) in [
            (946_684_800_999_999, 0),
            (946_684_801_000_000, 1),
            (1_790_000_000_123_457, 843_315_200),
            (0, 0),
            (i64::MIN, 0),
            (i64::MAX, i32::MAX),
        ] {
            assert_eq!(seconds(UnixTime::from_micros(micros)), stored, "{micros}");
        }
        assert_eq!(whole_time(843_315_200), UnixTime::from_secs(1_790_000_000));
    }
}
