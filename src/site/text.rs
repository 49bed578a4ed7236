//! Numbers, times and escaping of the website.

use std::fmt::Write;
use std::time::Duration;

use time::OffsetDateTime;

use crate::db::timestamp::Timestamp;

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];

/// A number in groups of three digits, separated by narrow spaces.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::from(if number < 0 { "\u{2212}" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A number of things.
pub fn count(number: usize) -> String {
    grouped(i64::try_from(number).unwrap_or(i64::MAX))
}

/// A change, with its sign.
pub fn signed(change: i64) -> String {
    if change > 0 { format!("+{}", grouped(change)) } else { grouped(change) }
}

/// A part of a whole in per cent.
pub fn percent(part: usize, whole: usize) -> String {
    if whole == 0 {
        return "–".to_owned();
    }
    // A few of many are not none.
    if part > 0 && part * 2_000 < whole {
        return "< 0.1\u{202f}%".to_owned();
    }
    format!("{:.1}\u{202f}%", 100.0 * part as f64 / whole as f64)
}

/// Text for HTML and SVG, for what no template escapes.
pub fn escaped(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            // Not in XML, however it is written.
            c if c.is_control() && c != '\n' && c != '\t' => {
                let _ = write!(out, "\\u{{{:x}}}", u32::from(c));
            }
            c => out.push(c),
        }
    }
    out
}

/// A string as JSON that may also stand in HTML.
pub fn json(text: &str) -> String {
    let json = serde_json::to_string(text).expect("text is JSON");
    json.replace('<', "\\u003c").replace('\u{2028}', "\\u2028").replace('\u{2029}', "\\u2029")
}

fn time_of(secs: i64) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(secs).unwrap_or(OffsetDateTime::UNIX_EPOCH)
}

/// `28 Nov`
pub fn day_and_month(secs: i64) -> String {
    let time = time_of(secs);
    format!("{} {}", time.day(), month(secs))
}

/// `28 Nov 2026`
pub fn day(secs: i64) -> String {
    format!("{} {}", day_and_month(secs), year(secs))
}

/// `2026`
pub fn year(secs: i64) -> String {
    time_of(secs).year().to_string()
}

/// `Nov`
pub fn month(secs: i64) -> String {
    MONTHS[usize::from(u8::from(time_of(secs).month())) - 1].to_owned()
}

/// The day of the month, from 1.
pub fn day_of_month(secs: i64) -> u8 {
    time_of(secs).day()
}

/// `12:53`
pub fn hour(secs: i64) -> String {
    let time = time_of(secs);
    format!("{:02}:{:02}", time.hour(), time.minute())
}

/// `28 Nov 2026 12:53`
pub fn minute(at: Timestamp) -> String {
    let secs = at.0.as_secs();
    format!("{} {}", day(secs), hour(secs))
}

/// `2026-11-28`
pub fn iso_day(secs: i64) -> String {
    let time = time_of(secs);
    format!("{:04}-{:02}-{:02}", time.year(), u8::from(time.month()), time.day())
}

/// A length of time in minutes, hours or days.
pub fn length(secs: i64) -> String {
    match secs {
        ..60 => format!("{} s", secs.max(0)),
        60..3_600 => match secs % 60 {
            0 => format!("{} min", secs / 60),
            rest => format!("{} min {rest} s", secs / 60),
        },
        3_600..172_800 => format!("{} h {} min", secs / 3_600, secs / 60 % 60),
        _ => format!("{} d {} h", secs / 86_400, secs / 3_600 % 24),
    }
}

/// The words after "every": `hour`, `30 minutes`.
pub fn interval(length: Duration) -> String {
    let secs = length.as_secs().max(1);
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let unit = units.into_iter().find(|(unit, _)| secs >= *unit && secs.is_multiple_of(*unit));
    let (unit, name) = unit.unwrap_or((1, "second"));
    match secs / unit {
        1 => name.to_owned(),
        number => format!("{number} {name}s"),
    }
}

/// A size for people.
pub fn size(bytes: usize) -> String {
    match bytes {
        0..1_000 => format!("{bytes} bytes"),
        1_000..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        _ => format!("{:.1} MB", bytes as f64 / 1e6),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_and_times_read_alike_everywhere() {
        assert_eq!(grouped(-1_234_567), "\u{2212}1\u{202f}234\u{202f}567");
        assert_eq!(
            (signed(5), signed(0), signed(-5)),
            ("+5".into(), "0".into(), "\u{2212}5".into())
        );
        assert_eq!(percent(1, 3), "33.3\u{202f}%");
        assert_eq!(percent(0, 0), "–");
        assert_eq!(
            (percent(1, 2_001), percent(0, 9)),
            ("< 0.1\u{202f}%".into(), "0.0\u{202f}%".into())
        );
        let at = 1_795_870_380;
        assert_eq!(
            minute(Timestamp(bitdash_core::vocabulary::time::UnixTime::from_secs(at))),
            "28 Nov 2026 12:53"
        );
        assert_eq!((iso_day(at), month(at)), ("2026-11-28".into(), "Nov".into()));
        assert_eq!(length(131), "2 min 11 s");
        let words = [1, 90, 1_800, 3_600, 21_600].map(|secs| interval(Duration::from_secs(secs)));
        assert_eq!(words, ["second", "90 seconds", "30 minutes", "hour", "6 hours"]);
    }

    #[test]
    fn hostile_text_is_inert() {
        assert_eq!(escaped("<a b='c'>&\"\u{1b}"), "&lt;a b=&#39;c&#39;&gt;&amp;&quot;\\u{1b}");
        assert_eq!(json("</script>\"\u{2028}"), "\"\\u003c/script>\\\"\\u2028\"");
    }
}
