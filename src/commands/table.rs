//! Tables and values for a person's terminal.
//!
//! Layer 4, pure. Invariant: whatever a value holds, no control character and nothing that a terminal would
//! act on leaves this module.

use std::fmt::Write;
use std::time::Duration;

/// Rows of cells that come out in columns.
pub struct Table {
    is_right: Vec<bool>,
    rows: Vec<Vec<String>>,
}

impl Table {
    /// Starts a table with these headings; one that begins with `>` heads a column of numbers.
    pub fn new(headings: &[&str]) -> Self {
        let is_right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let head = headings.iter().map(|heading| heading.trim_start_matches('>').to_owned());
        Self { is_right, rows: vec![head.collect()] }
    }

    /// Adds a row; every cell is made safe.
    pub fn row<I: IntoIterator<Item = S>, S: AsRef<str>>(&mut self, cells: I) {
        self.rows.push(cells.into_iter().map(|cell| safe(cell.as_ref())).collect());
    }

    /// Whether it holds no row beside its headings.
    pub fn is_empty(&self) -> bool {
        self.rows.len() == 1
    }

    /// The table as lines, each ended by a newline, without blanks at their ends.
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
                // Writing into a String cannot fail.
                let _ = match is_right {
                    true => write!(line, "{cell:>width$}  "),
                    false => write!(line, "{cell:<width$}  "),
                };
            }
            text.push_str(line.trim_end());
            text.push('\n');
        }
        text
    }
}

/// A stranger's text without anything that a terminal would act on: letters, digits and ASCII stay, the
/// rest (controls, marks that turn the direction, blanks without width) is written as `\u{..}`.
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

/// JSON text whose strings a terminal can show: what is not printable ASCII is written as `\uXXXX`, which
/// says the same.
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

/// At most `width` characters of a text.
pub fn cut(text: &str, width: usize) -> String {
    if text.chars().count() <= width {
        return text.to_owned();
    }
    text.chars().take(width.saturating_sub(3)).chain("...".chars()).collect()
}

/// A number with its thousands parted.
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
    fn columns_are_aligned_and_lines_end_clean() {
        let mut table = Table::new(&["name", ">count", "note"]);
        table.row(["a", "1", ""]);
        table.row(["long name", "12345", "x"]);
        assert_eq!(
            table.to_text(),
            "name       count  note\na              1\nlong name  12345  x\n"
        );
    }

    #[test]
    fn a_hostile_text_reaches_no_terminal() {
        assert_eq!(safe("\u{1b}[31m\n"), "\\u{1b}[31m\\u{a}");
        assert_eq!(safe("Zürich \u{202e}abc\u{200b}\u{9b}"), "Zürich \\u{202e}abc\\u{200b}\\u{9b}");
        let mut table = Table::new(&["a"]);
        table.row(["\u{7}\r"]);
        assert_eq!(table.to_text(), "a\n\\u{7}\\u{d}\n");
    }

    #[test]
    fn json_says_the_same_after_it_was_made_safe() {
        let value = "\u{1b}\u{9b}é\u{1f600}\u{202e}\u{7f}";
        let json = safe_json(&serde_json::to_string(value).unwrap());
        assert!(json.is_ascii());
        assert!(!json.contains('\u{7f}'));
        assert_eq!(serde_json::from_str::<String>(&json).unwrap(), value);
    }

    #[test]
    fn numbers_and_spans_read_well() {
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
