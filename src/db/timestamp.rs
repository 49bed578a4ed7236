//! `Timestamp`: a time as PostgreSQL stores it, as JSON shows it and as people read it.

use bitdash_core::vocabulary::time::UnixTime;
use bytes::BytesMut;
use postgres::types::{FromSql, IsNull, ToSql, Type, to_sql_checked};
use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

/// A `timestamptz`.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Timestamp(pub UnixTime);

type BoxedError = Box<dyn std::error::Error + Sync + Send>;

/// PostgreSQL counts from 2000-01-01.
const EPOCH_MICROS: i64 = 946_684_800_000_000;
/// 0001-01-01 and the end of 9999-12-31: what people, JSON and PostgreSQL can all express.
const MIN: UnixTime = UnixTime::from_secs(-62_135_596_800);
const MAX: UnixTime = UnixTime::from_micros(253_402_300_799_999_999);

impl Timestamp {
    /// The time in the form of RFC 3339, in UTC, to the second.
    pub fn to_text(self) -> String {
        let whole = OffsetDateTime::from_unix_timestamp(self.0.as_secs());
        let text = whole.ok().and_then(|time| time.format(&Rfc3339).ok());
        text.unwrap_or_else(|| "out of range".to_owned())
    }

    /// The day in UTC, such as 2026-11-29.
    pub fn to_date(self) -> String {
        let text = self.to_text();
        text.split('T').next().unwrap_or_default().to_owned()
    }

    /// Parses the form of RFC 3339.
    pub fn from_text(text: &str) -> Option<Self> {
        let time = OffsetDateTime::parse(text, &Rfc3339).ok()?;
        let micros = i64::try_from(time.unix_timestamp_nanos() / 1_000).ok()?;
        Some(Self(UnixTime::from_micros(micros)))
    }

    /// The time in the same form to the millisecond, always 24 characters long.
    pub fn to_text_with_millis(self) -> String {
        let micros = self.0.clamp(MIN, MAX).as_micros();
        let whole = Self(UnixTime::from_micros(micros)).to_text();
        format!("{}.{:03}Z", whole.trim_end_matches('Z'), micros.rem_euclid(1_000_000) / 1_000)
    }

    /// The time, unless it is infinite or before the year 1.
    pub(super) fn finite(self) -> Option<UnixTime> {
        (MIN..=MAX).contains(&self.0).then_some(self.0)
    }
}

impl From<UnixTime> for Timestamp {
    fn from(time: UnixTime) -> Self {
        Self(time)
    }
}

impl<'a> FromSql<'a> for Timestamp {
    fn from_sql(_: &Type, raw: &'a [u8]) -> Result<Self, BoxedError> {
        let micros = i64::from_be_bytes(raw.try_into()?);
        Ok(Self(UnixTime::from_micros(micros.saturating_add(EPOCH_MICROS))))
    }

    fn accepts(kind: &Type) -> bool {
        *kind == Type::TIMESTAMPTZ
    }
}

impl ToSql for Timestamp {
    fn to_sql(&self, _: &Type, out: &mut BytesMut) -> Result<IsNull, BoxedError> {
        let micros = self.0.clamp(MIN, MAX).as_micros() - EPOCH_MICROS;
        micros.to_sql(&Type::INT8, out)
    }

    fn accepts(kind: &Type) -> bool {
        <Self as FromSql>::accepts(kind)
    }

    to_sql_checked!();
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&self.to_text())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(micros: i64) -> Timestamp {
        Timestamp::from_sql(&Type::TIMESTAMPTZ, &micros.to_be_bytes()).unwrap()
    }

    fn written(time: UnixTime) -> Timestamp {
        let mut raw = BytesMut::new();
        Timestamp(time).to_sql(&Type::TIMESTAMPTZ, &mut raw).unwrap();
        Timestamp::from_sql(&Type::TIMESTAMPTZ, &raw).unwrap()
    }

    #[test]
    fn the_database_counts_from_the_year_2000() {
        assert_eq!(read(0).to_text(), "2000-01-01T00:00:00Z");
        assert_eq!(read(-946_684_800_000_000).0, UnixTime::from_secs(0));
        assert!(Timestamp::from_sql(&Type::TIMESTAMPTZ, b"short").is_err());
    }

    #[test]
    fn a_written_time_is_read_back_to_the_microsecond() {
        for micros in [0, -1, 1_709_209_845_000_007, MIN.as_micros(), MAX.as_micros()] {
            let time = UnixTime::from_micros(micros);
            assert_eq!(written(time).finite(), Some(time));
        }
    }

    #[test]
    fn times_outside_the_years_1_to_9999_are_clamped_and_not_finite() {
        assert_eq!(written(UnixTime::from_micros(i64::MIN)).to_text(), "0001-01-01T00:00:00Z");
        assert_eq!(written(UnixTime::from_micros(i64::MAX)).to_text(), "9999-12-31T23:59:59Z");
        for infinite in [read(i64::MAX), read(i64::MIN)] {
            assert_eq!((infinite.finite(), infinite.to_text().as_str()), (None, "out of range"));
        }
    }
}
