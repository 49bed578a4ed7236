//! PostgreSQL's COPY text format: rows out of our values, and values out of its rows.
//!
//! Layer 3, pure: strings in, strings out. Invariants: 1. whatever a value holds, it stays one field of one
//! row; 2. a time is written and read to the microsecond; 3. no input makes the reading side panic.

use std::fmt::Write;

use crate::crawl::address::Address;
use crate::crawl::time::UnixTime;

/// Rows in COPY's text format, in the making.
#[derive(Default)]
pub(super) struct Rows {
    text: String,
    is_row_open: bool,
}

impl Rows {
    /// The rows so far.
    pub(super) fn as_bytes(&self) -> &[u8] {
        self.text.as_bytes()
    }

    /// Forgets the rows and keeps the memory.
    pub(super) fn clear(&mut self) {
        self.text.clear();
        self.is_row_open = false;
    }

    /// Ends the row.
    pub(super) fn end(&mut self) {
        self.text.push('\n');
        self.is_row_open = false;
    }

    /// An address as the one number that is its key.
    pub(super) fn key(&mut self, address: Address) -> &mut Self {
        self.plain(address.to_bits())
    }

    /// A field that is a number.
    pub(super) fn int(&mut self, value: impl Into<i64>) -> &mut Self {
        self.plain(value.into())
    }

    /// A field that is a number which never gets near the column's limit, and is cut to it if it does.
    pub(super) fn count(&mut self, value: u64) -> &mut Self {
        self.plain(i64::try_from(value).unwrap_or(i64::MAX))
    }

    /// A count, or null.
    pub(super) fn opt_count(&mut self, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.count(value),
            None => self.null(),
        }
    }

    /// A number for a column of 32 bits, cut to it if it is larger.
    pub(super) fn small(&mut self, value: u32) -> &mut Self {
        self.plain(i32::try_from(value).unwrap_or(i32::MAX))
    }

    /// A number of 32 bits, or null.
    pub(super) fn opt_small(&mut self, value: Option<u32>) -> &mut Self {
        match value {
            Some(value) => self.small(value),
            None => self.null(),
        }
    }

    /// A number, or null.
    pub(super) fn opt_int(&mut self, value: Option<impl Into<i64>>) -> &mut Self {
        match value {
            Some(value) => self.int(value),
            None => self.null(),
        }
    }

    /// The 64 service bits in two's complement, or null.
    pub(super) fn opt_bits(&mut self, value: Option<u64>) -> &mut Self {
        match value {
            Some(value) => self.plain(value.cast_signed()),
            None => self.null(),
        }
    }

    /// A truth value, or null.
    pub(super) fn opt_bool(&mut self, value: Option<bool>) -> &mut Self {
        match value {
            Some(value) => self.plain(if value { 't' } else { 'f' }),
            None => self.null(),
        }
    }

    /// A time.
    pub(super) fn time(&mut self, value: UnixTime) -> &mut Self {
        self.field();
        write_time(&mut self.text, value);
        self
    }

    /// A time, or null.
    pub(super) fn opt_time(&mut self, value: Option<UnixTime>) -> &mut Self {
        match value {
            Some(value) => self.time(value),
            None => self.null(),
        }
    }

    /// Text, escaped.
    pub(super) fn text(&mut self, value: &str) -> &mut Self {
        self.field();
        for c in value.chars() {
            match c {
                '\\' => self.text.push_str("\\\\"),
                '\n' => self.text.push_str("\\n"),
                '\r' => self.text.push_str("\\r"),
                '\t' => self.text.push_str("\\t"),
                '\0' => {} // PostgreSQL's text cannot hold it
                c => self.text.push(c),
            }
        }
        self
    }

    /// Text, or null.
    pub(super) fn opt_text(&mut self, value: Option<&str>) -> &mut Self {
        match value {
            Some(value) => self.text(value),
            None => self.null(),
        }
    }

    fn null(&mut self) -> &mut Self {
        self.plain("\\N")
    }

    /// A value whose text needs no escaping.
    fn plain(&mut self, value: impl std::fmt::Display) -> &mut Self {
        self.field();
        // Writing into a String cannot fail.
        let _ = write!(self.text, "{value}");
        self
    }

    fn field(&mut self) {
        if self.is_row_open {
            self.text.push('\t');
        }
        self.is_row_open = true;
    }
}

/// The fields of one row of COPY's text format, taken one after the other.
///
/// Every method gives `None` where the field is missing or is not what it should be. Escapes are not undone:
/// the columns that are read back hold none.
pub(super) struct Fields<'a>(std::str::Split<'a, char>);

impl<'a> Fields<'a> {
    /// The fields of `line`, which may still end with its newline.
    pub(super) fn of(line: &'a [u8]) -> Option<Self> {
        let line = std::str::from_utf8(line.strip_suffix(b"\n").unwrap_or(line)).ok()?;
        Some(Self(line.split('\t')))
    }

    /// A field that is not null.
    pub(super) fn value(&mut self) -> Option<&'a str> {
        self.0.next().filter(|field| *field != "\\N")
    }

    /// A field that may be null: `Some(None)`.
    pub(super) fn opt<T>(&mut self, parse: impl FnOnce(&str) -> Option<T>) -> Option<Option<T>> {
        match self.0.next()? {
            "\\N" => Some(None),
            field => parse(field).map(Some),
        }
    }

    /// A number that is not negative.
    pub(super) fn small(&mut self) -> Option<u32> {
        self.value()?.parse().ok()
    }

    /// A time.
    pub(super) fn time(&mut self) -> Option<UnixTime> {
        read_time(self.value()?)
    }
}

const MICROS_PER_DAY: i64 = 86_400_000_000;

/// Writes a time as PostgreSQL reads it; what lies outside the years 1 to 9999 is cut to them.
fn write_time(out: &mut String, time: UnixTime) {
    const FIRST: i64 = -719_162 * MICROS_PER_DAY; // 0001-01-01
    const LAST: i64 = 2_932_897 * MICROS_PER_DAY - 1; // 9999-12-31 23:59:59.999999
    let micros = time.as_micros().clamp(FIRST, LAST);
    let (days, rest) = (micros.div_euclid(MICROS_PER_DAY), micros.rem_euclid(MICROS_PER_DAY));
    let (year, month, day) = civil_from_days(days);
    let (seconds, fraction) = (rest / 1_000_000, rest % 1_000_000);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    let _ = write!(
        out,
        "{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}.{fraction:06}+00"
    );
}

/// Reads a time as PostgreSQL prints it with DateStyle ISO and TimeZone UTC.
pub(super) fn read_time(text: &str) -> Option<UnixTime> {
    let text = text.strip_suffix("+00")?;
    let (date, clock) = text.split_once(' ')?;
    let mut parts = date.split('-').map(|part| number(part, 4));
    let (year, month, day) = (parts.next()??, parts.next()??, parts.next()??);
    let (clock, fraction) = clock.split_once('.').unwrap_or((clock, "0"));
    let mut parts = clock.split(':').map(|part| number(part, 2));
    let (hour, minute, second) = (parts.next()??, parts.next()??, parts.next()??);
    let is_date =
        (1..=9999).contains(&year) && (1..=12).contains(&month) && (1..=31).contains(&day);
    if !is_date || hour > 24 || minute > 59 || second > 60 {
        return None;
    }
    let mut micros = number(fraction, 6)?;
    for _ in fraction.len()..6 {
        micros *= 10;
    }
    let seconds = days_from_civil(year, month, day) * 86_400 + hour * 3600 + minute * 60 + second;
    Some(UnixTime::from_micros(seconds * 1_000_000 + micros))
}

/// A number of at most `digits` digits and nothing else: small enough for every sum above.
fn number(text: &str, digits: usize) -> Option<i64> {
    let is_number = (1..=digits).contains(&text.len()) && text.bytes().all(|b| b.is_ascii_digit());
    is_number.then(|| text.parse().ok()).flatten()
}

/// The proleptic Gregorian date of a day counted from 1970-01-01 (Howard Hinnant's algorithm).
fn civil_from_days(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153; // 0 is March
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 { shifted_month + 3 } else { shifted_month - 9 };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil_from_days`].
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let shifted_month = if month > 2 { month - 3 } else { month + 9 };
    let day_of_year = (153 * shifted_month + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn text_of(fill: impl FnOnce(&mut Rows)) -> String {
        let mut rows = Rows::default();
        fill(&mut rows);
        String::from_utf8(rows.as_bytes().to_vec()).unwrap()
    }

    #[test]
    fn a_hostile_text_stays_one_field() {
        let line = text_of(|rows| {
            rows.int(1).text("a\\b\tc\nd\re\0f\\N").opt_text(None).opt_text(Some(""));
            rows.end();
        });
        assert_eq!(line, "1\ta\\\\b\\tc\\nd\\ref\\\\N\t\\N\t\n");
    }

    #[test]
    fn service_bits_are_written_in_twos_complement() {
        assert_eq!(
            text_of(|rows| {
                rows.opt_bits(Some(u64::MAX)).opt_bits(Some(1 << 63)).opt_bits(Some(9));
            }),
            "-1\t-9223372036854775808\t9"
        );
    }

    #[test]
    fn numbers_above_a_column_are_cut_to_it() {
        assert_eq!(
            text_of(|rows| {
                rows.small(u32::MAX).count(u64::MAX).opt_small(None);
            }),
            "2147483647\t9223372036854775807\t\\N"
        );
    }

    #[test]
    fn times_are_written_as_the_calendar_says() {
        for (micros, text) in [
            (0, "1970-01-01 00:00:00.000000+00"),
            (-1, "1969-12-31 23:59:59.999999+00"),
            (1_709_209_845_000_007, "2024-02-29 12:30:45.000007+00"),
            (i64::MIN, "0001-01-01 00:00:00.000000+00"),
            (i64::MAX, "9999-12-31 23:59:59.999999+00"),
        ] {
            let written = text_of(|rows| {
                rows.time(UnixTime::from_micros(micros));
            });
            assert_eq!(written, text);
        }
    }

    #[test]
    fn a_time_with_fewer_digits_is_read() {
        assert_eq!(read_time("1970-01-01 00:00:01+00"), Some(UnixTime::from_secs(1)));
        assert_eq!(read_time("1970-01-01 00:00:01.5+00"), Some(UnixTime::from_micros(1_500_000)));
    }

    #[test]
    fn what_is_no_time_is_refused() {
        for text in [
            "",
            "infinity",
            "-infinity",
            "2024-02-29",
            "2024-02-29 12:30:45",
            "0044-03-15 12:00:00+00 BC",
            "20240-02-29 12:30:45+00",
            "2024-13-01 00:00:00+00",
            "2024-00-01 00:00:00+00",
            "2024-02-29 12:30:45.1234567+00",
            "2024-02-29 12:30+00",
            "2024-02-29 1é:30:00+00",
        ] {
            assert_eq!(read_time(text), None, "{text}");
        }
    }

    #[test]
    fn fields_are_refused_where_they_are_not_what_they_should_be() {
        let fields = |line: &'static str| Fields::of(line.as_bytes()).unwrap();
        assert_eq!(fields("7\n").small(), Some(7));
        for line in ["", "-7", "7.0", "4294967296", "\\N"] {
            assert_eq!(fields(line).small(), None, "{line}");
        }
        assert_eq!(fields("\\N").opt(read_time), Some(None));
        assert_eq!(fields("x").opt(read_time), None);
        assert!(Fields::of(b"\xff").is_none());
    }

    proptest! {
        #[test]
        fn a_written_time_is_read_back(
            micros in -719_162 * MICROS_PER_DAY..2_932_897 * MICROS_PER_DAY
        ) {
            let time = UnixTime::from_micros(micros);
            let mut text = String::new();
            write_time(&mut text, time);
            prop_assert_eq!(read_time(&text), Some(time));
        }

        #[test]
        fn reading_any_text_never_panics(text in ".*") {
            let _ = read_time(&text);
            if let Some(mut fields) = Fields::of(text.as_bytes()) {
                let _ = (fields.value(), fields.small(), fields.time());
            }
        }
    }
}
