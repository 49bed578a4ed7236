//! Tables and values for a terminal.
//!
//! Invariant: no output contains a control character or anything else that a terminal interprets.

use std::fmt::Write;
use std::time::Duration;

/// Rows of cells, printed in columns.
pub struct Table {
    is_right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// A table with these headings; `>` marks a right-aligned column of numbers.
    pub fn new(headings: &[&str]) -> Self {
        let is_right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let head = headings.iter().map(|heading| heading.trim_start_matches('>').to_owned());
        Self { is_right, rows: vec![head.collect()] }
    }

    /// Adds a row; every cell is escaped.
    pub fn row<I: IntoIterator<Item = S>, S: AsRef<str>>(&mut self, cells: I) {
        self.rows.push(cells.into_iter().map(|cell| safe(cell.as_ref())).collect());
    }

    /// Whether it has no row besides the headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The lines of the table, without trailing spaces.
    pub fn to_text(&self) -> String {
        let width = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            cells.map(|cell| cell.chars().count()).max().unwrap_or(0)
        };
        let widths: Vec<usize> = (0..self.is_right.len()).map(width).collect();
        let mut text = String::new();
        for row in &self.rows {
            let mut line = String::new();
            for ((cell, width), is_right) in row.iter().zip(&widths).zip(&self.is_right) {
                // Writing to a String cannot fail.
                let _ = if *is_right {
                    write!(line, "{cell:>width$}  ")
                } else {
                    write!(line, "{cell:<width$}  ")
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// Escapes untrusted text for a terminal: keeps letters, digits and printable ASCII, and writes
/// everything else (controls, bidirectional marks, zero-width spaces) as `\u{..}`.
pub fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, ' '..='~') || (!c.is_ascii() && c.is_alphanumeric()) {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out
}

/// Escapes JSON for a terminal: writes everything but printable ASCII as the equivalent `\uXXXX`.
pub fn safe_json(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    for c in json.chars() {
        if matches!(c, ' '..='~' | '\n') {
            out.push(c);
        } else {
            for unit in c.encode_utf16(&mut [0; 2]) {
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
    }
    out
}

/// Truncates a text to `width` characters.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(3)).chain("...".chars()).collect()
}

/// A number with thousands separators.
pub fn grouped(number: i64) -> String {
    let digits = number.unsigned_abs().to_string();
    let mut out = String::from(if number < 0 { "-" } else { "" });
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            out.push(',');
        }
        out.push(digit);
    }
    out
}

/// A duration in its one or two largest units: `45s`, `3m 20s`, `5h 10m`, `12d 3h`.
pub fn span(duration: Duration) -> String {
    let s = duration.as_secs();
    match s {
        0..60 => format!("{s}s"),
        60..3600 => format!("{}m {}s", s / 60, s % 60),
        3600..86_400 => format!("{}h {}m", s / 3600, s / 60 % 60),
        _ => format!("{}d {}h", s / 86_400, s / 3600 % 24),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_aligned_without_trailing_spaces() {
        let mut table = Table::new(&["name", ">count", "note"]);
        table.row(["a", "1", ""]);
        table.row(["long name", "12345", "x"]);
        assert_eq!(
            table.to_text(),
            "name       count  note\na              1\nlong name  12345  x\n"
        );
    }

    #[test]
    fn untrusted_text_is_escaped() {
        assert_eq!(safe("\u{1b}[31m\n"), "\\u{1b}[31m\\u{a}");
        assert_eq!(safe("Zürich \u{202e}abc\u{200b}\u{9b}"), "Zürich \\u{202e}abc\\u{200b}\\u{9b}");
        let mut table = Table::new(&["a"]);
        table.row(["\u{7}\r"]);
        assert_eq!(table.to_text(), "a\n\\u{7}\\u{d}\n");
    }

    #[test]
    fn escaped_json_has_the_same_value() {
        let value = "\u{1b}\u{9b}é\u{1f600}\u{202e}\u{7f}";
        let json = safe_json(&serde_json::to_string(value).unwrap());
        assert!(json.is_ascii());
        assert!(!json.contains('\u{7f}'));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), value);
    }

    #[test]
    fn numbers_and_durations_are_formatted() {
        for (number, text) in
            [(0, "0"), (999, "999"), (1000, "1,000"), (1_234_567, "1,234,567"), (-1000, "-1,000")]
        {
            assert_eq!(grouped(number), text);
        }
        for (seconds, text) in
            [(0, "0s"), (59, "59s"), (60, "1m 0s"), (3661, "1h 1m"), (90_000, "1d 1h")]
        {
            assert_eq!(span(Duration::from_secs(seconds)), text);
        }
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abc...");
    }
}
