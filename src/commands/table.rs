//! Tables and values for a terminal.
//!
//! Invariant: no output contains a control character or anything else that a terminal interprets.

use std::fmt::Write;
use std::time::Duration;

use unicode_width::UnicodeWidthStr;

use crate::commands::screen::{Paint, Screen};

/// Space between two columns.
const GAP: usize = 2;
/// A column that is cut keeps at least this width while others can still be dropped.
const MIN_CUT: usize = 12;

/// Rows of cells, printed in columns that fit the screen.
pub struct Table {
    titles: Vec<String>,
    is_right: Vec<bool>,
    rows: Vec<Vec<String>>,
    cut: Vec<&'static str>,
    dropped: Vec<&'static str>,
}

impl Table {
    /// A table with these headings; `>` marks a right-aligned column of numbers.
    pub fn new(headings: &[&str]) -> Self {
        let is_right = headings.iter().map(|heading| heading.starts_with('>')).collect();
        let titles = headings.iter().map(|heading| heading.trim_start_matches('>').to_owned());
        let (rows, cut, dropped) = (Vec::new(), Vec::new(), Vec::new());
        Self { titles: titles.collect(), is_right, rows, cut, dropped }
    }

    /// On a narrow screen, first the columns `cut` are cut, then those in `dropped` are left out,
    /// one after the other. If that does not suffice, the last column is cut.
    #[must_use]
    pub fn fitted_by(mut self, cut: &[&'static str], dropped: &[&'static str]) -> Self {
        (self.cut, self.dropped) = (cut.to_vec(), dropped.to_vec());
        self
    }

    /// Adds a row; every cell is escaped.
    pub fn row<I: IntoIterator<Item = S>, S: AsRef<str>>(&mut self, cells: I) {
        self.rows.push(cells.into_iter().map(|cell| safe(cell.as_ref())).collect());
    }

    /// Whether it has no row besides the headings.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The lines of the table, each indented by `indent` and without trailing spaces.
    pub fn to_text(&self, screen: &Screen, indent: usize) -> String {
        let widths = self.fitted(screen.width.map(|width| width.saturating_sub(indent)));
        let mut text = String::new();
        for (number, row) in std::iter::once(&self.titles).chain(&self.rows).enumerate() {
            let (mut line, mut pending) = (String::new(), indent);
            for (column, cell) in row.iter().enumerate() {
                let Some(width) = widths.get(column).copied().flatten() else { continue };
                let cell = cut(cell, width, screen);
                let padding = width - cell.width();
                let before = if self.is_right[column] { padding } else { 0 };
                if !cell.is_empty() {
                    line.extend(std::iter::repeat_n(' ', pending + before));
                    let paint = self.paint(number, column, &cell);
                    line.push_str(&screen.paint(paint, &cell));
                    pending = 0;
                } else {
                    pending += before;
                }
                pending += padding - before + GAP;
            }
            text.push_str(&line);
            text.push('\n');
        }
        text
    }

    /// Like [`Table::to_text`], for a table whose rows are a name and a value each.
    pub fn without_headings(&self, screen: &Screen, indent: usize) -> String {
        let names = self.rows.iter().filter_map(|row| row.first());
        let start = indent + names.map(|name| name.width()).max().unwrap_or(0) + GAP;
        let width = screen.width.map(|width| width.saturating_sub(start).max(MIN_CUT));
        let mut text = String::new();
        for row in &self.rows {
            let name = format!("{}{}", " ".repeat(indent), row[0]);
            let lines = wrapped(row.get(1).map_or("", String::as_str), width);
            for (number, line) in lines.iter().enumerate() {
                let head = if number == 0 { name.as_str() } else { "" };
                let gap = " ".repeat(start.saturating_sub(head.width()));
                text.push_str(format!("{head}{gap}{line}").trim_end());
                text.push('\n');
            }
        }
        text
    }

    fn paint(&self, row: usize, column: usize, cell: &str) -> Paint {
        match (row, self.titles[column].as_str()) {
            (0, _) => Paint::Heading,
            (_, "status" | "outcome") => Paint::of_word(cell),
            _ => Paint::Plain,
        }
    }

    /// The width of each column; `None` for one that is left out.
    fn fitted(&self, screen: Option<usize>) -> Vec<Option<usize>> {
        let natural = |column: usize| {
            let cells = self.rows.iter().filter_map(|row| row.get(column));
            let title = std::iter::once(&self.titles[column]);
            cells.chain(title).map(|cell| cell.width()).max()
        };
        let mut widths: Vec<Option<usize>> = (0..self.titles.len()).map(natural).collect();
        let Some(screen) = screen else { return widths };
        let excess = |widths: &[Option<usize>]| {
            let shown = widths.iter().flatten();
            let gaps = shown.clone().count().saturating_sub(1) * GAP;
            (shown.sum::<usize>() + gaps).saturating_sub(screen)
        };
        if excess(&widths) > 0 {
            // First what tells nothing.
            for title in &self.dropped {
                let column = self.titles.iter().position(|known| known == title);
                let is_void = |row: &Vec<String>| column.is_some_and(|column| row[column] == "-");
                if let Some(column) = column.filter(|_| self.rows.iter().all(is_void)) {
                    widths[column] = None;
                }
            }
        }
        let place = |title: &str| self.titles.iter().position(|known| known == title);
        let mut dropped = self.dropped.iter().filter_map(|title| place(title));
        let full = widths.clone();
        loop {
            for column in self.cut.iter().filter_map(|title| place(title)) {
                let least = MIN_CUT.max(self.titles[column].width());
                if let Some(width) = widths[column].filter(|width| *width > least) {
                    widths[column] = Some((width - excess(&widths).min(width - least)).max(least));
                }
            }
            if excess(&widths) == 0 {
                return widths;
            }
            let Some(column) = dropped.next() else { break };
            // What was cut may take the room again.
            for (width, full) in widths.iter_mut().zip(&full) {
                *width = width.and(*full);
            }
            widths[column] = None;
        }
        let excess = excess(&widths);
        if let Some(last) = widths.iter_mut().rev().find(|width| width.is_some()) {
            *last = last.map(|width| width.saturating_sub(excess).max(1));
        }
        widths
    }
}

/// Escapes untrusted text for a terminal: keeps letters, digits, printable ASCII, the ellipsis and
/// the blocks of a sparkline, and writes everything else (controls, bidirectional marks, zero-width
/// spaces) as `\u{..}`.
pub fn safe(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for c in text.chars() {
        if matches!(c, ' '..='~' | '▁'..='█' | '…') || (!c.is_ascii() && c.is_alphanumeric())
        {
            out.push(c);
        } else {
            out.extend(c.escape_unicode());
        }
    }
    out
}

/// A cell of CSV: what controls a terminal is escaped, and what a spreadsheet would take for a
/// formula is marked.
pub fn csv_text(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    if text.starts_with(['=', '+', '-', '@', '\t', '\r']) {
        out.push('\'');
    }
    for c in text.chars() {
        // Marks and overrides of direction, invisible spaces, separators of lines.
        let is_hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}');
        if c.is_control() || is_hidden {
            out.extend(c.escape_unicode());
        } else {
            out.push(c);
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

/// Breaks a text between words, or within one that is longer than a line.
pub fn wrapped(text: &str, width: Option<usize>) -> Vec<String> {
    let Some(width) = width.filter(|width| text.width() > *width) else {
        return vec![text.to_owned()];
    };
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let room = lines.last().map_or(0, |line| width.saturating_sub(line.width() + 1));
        let line = lines.last_mut().expect("never empty");
        if line.is_empty() {
            line.push_str(word);
        } else if word.width() <= room {
            line.push(' ');
            line.push_str(word);
        } else {
            lines.push(word.to_owned());
        }
        while let Some(long) = lines.pop_if(|line| line.width() > width) {
            let fits = |end: &usize| long[..*end].width() <= width;
            let ends = long.char_indices().map(|(at, _)| at).skip(1);
            let end = ends.take_while(fits).last().unwrap_or(long.len());
            lines.push(long[..end].to_owned());
            if end < long.len() {
                lines.push(long[end..].to_owned());
            } else {
                break;
            }
        }
    }
    lines
}

/// A character per value, from the lowest to the highest; a space for none.
pub fn spark_line(values: &[Option<f32>], screen: &Screen) -> String {
    let levels: &[char] = if screen.is_unicode {
        &['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█']
    } else {
        &['_', '.', ':', '-', '=', '+', '*', '#']
    };
    let known = || values.iter().flatten().copied();
    let (lowest, highest) = (known().fold(f32::MAX, f32::min), known().fold(f32::MIN, f32::max));
    let level = |value: f32| match highest - lowest {
        // Without a change, in the middle.
        width if width <= 0.0 => 3,
        width => ((value - lowest) / width * 7.0).round().clamp(0.0, 7.0) as usize,
    };
    values.iter().map(|value| value.map_or(' ', |value| levels[level(value)])).collect()
}

/// Breaks lines that are wider than `width` and indents what follows the first break of each.
pub fn hanging(lines: &str, width: Option<usize>) -> String {
    const INDENT: &str = "  ";
    let mut text = String::new();
    for line in lines.lines() {
        if width.is_none_or(|width| line.width() <= width) {
            text.push_str(line);
            text.push('\n');
            continue;
        }
        let narrower = width.map(|width| width.saturating_sub(INDENT.len()).max(MIN_CUT));
        for (number, part) in wrapped(line, narrower).iter().enumerate() {
            let indent = if number == 0 { "" } else { INDENT };
            text.push_str(&format!("{indent}{part}\n"));
        }
    }
    text
}

/// Truncates a text to `width` columns of a terminal.
pub fn cut(text: &str, width: usize, screen: &Screen) -> String {
    if text.width() <= width {
        return text.to_owned();
    }
    let mut out = String::new();
    for c in text.chars() {
        let mut longer = out.clone();
        longer.push(c);
        if longer.width() >= width {
            break;
        }
        out = longer;
    }
    if width > 0 {
        out.push(if screen.is_unicode { '…' } else { '~' });
    }
    out
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

    const UNICODE: Screen = Screen { is_unicode: true, ..Screen::PLAIN };

    #[test]
    fn columns_are_aligned_without_trailing_spaces() {
        let mut table = Table::new(&["name", ">count", "note"]);
        table.row(["a", "1", ""]);
        table.row(["long name", "12345", "x"]);
        assert_eq!(
            table.to_text(&Screen::PLAIN, 0),
            "name       count  note\na              1\nlong name  12345  x\n"
        );
    }

    #[test]
    fn untrusted_text_is_escaped() {
        assert_eq!(safe("\u{1b}[31m\n"), "\\u{1b}[31m\\u{a}");
        assert_eq!(safe("Zürich \u{202e}abc\u{200b}\u{9b}"), "Zürich \\u{202e}abc\\u{200b}\\u{9b}");
        let mut table = Table::new(&["a"]);
        table.row(["\u{7}\r"]);
        assert_eq!(table.to_text(&Screen::PLAIN, 0), "a\n\\u{7}\\u{d}\n");
    }

    #[test]
    fn a_cell_of_csv_is_no_formula_and_controls_nothing() {
        for text in ["=1+1", "+1", "-1", "@x"] {
            assert_eq!(csv_text(text), format!("'{text}"));
        }
        assert_eq!(csv_text("\tx"), "'\\u{9}x");
        assert_eq!(csv_text("/Satoshi:27.0.0/=1 – Zürich"), "/Satoshi:27.0.0/=1 – Zürich");
        assert_eq!(csv_text("a\u{1b}[2J\n\u{202e}"), "a\\u{1b}[2J\\u{a}\\u{202e}");
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
        let cut = |text: &str, width| cut(text, width, &UNICODE);
        assert_eq!(cut("abcdef", 6), "abcdef");
        assert_eq!(cut("abcdefg", 6), "abcde…");
        assert_eq!((cut("節点節点", 5).as_str(), cut("ab", 0).as_str()), ("節点…", ""));
        assert_eq!(super::cut("abcdefg", 6, &Screen::PLAIN), "abcde~");
    }

    #[test]
    fn a_sparkline_spans_from_the_lowest_to_the_highest() {
        let values = [Some(10.0), None, Some(24.0), Some(17.0)];
        assert_eq!(spark_line(&values, &UNICODE), "▁ █▅");
        assert_eq!(spark_line(&values, &Screen::PLAIN), "_ #=");
        assert_eq!(spark_line(&[Some(3.0), Some(3.0)], &UNICODE), "▄▄");
        assert_eq!(spark_line(&[], &UNICODE), "");
    }

    #[test]
    fn prose_is_wrapped_on_a_terminal_only() {
        let text = "bitdash: one two three four\nfive\n";
        assert_eq!(hanging(text, None), text);
        assert_eq!(hanging(text, Some(16)), "bitdash: one\n  two three four\nfive\n");
        for line in hanging(&"long ".repeat(99), Some(40)).lines() {
            assert!(line.width() <= 40, "{line}");
        }
    }

    #[test]
    fn on_a_narrow_screen_columns_are_cut_then_dropped() {
        let mut table = Table::new(&["address", "name", ">height", "user agent"])
            .fitted_by(&["user agent", "name"], &["height"]);
        table.row([
            "10.0.0.1:8333",
            "節点節点節点節点",
            "860000",
            "/Satoshi:27.0.0(with a comment)/",
        ]);
        let text = |width| table.to_text(&Screen { width: Some(width), ..UNICODE }, 0);
        for width in 1..120 {
            let text = text(width);
            let widest = text.lines().map(UnicodeWidthStr::width).max();
            assert!(widest <= Some(width.max(37)), "{width}: {text}");
        }
        assert!(text(60).contains("860000") && text(60).contains("/Satoshi:27.0.0(wi…"));
        assert!(!text(45).contains("860000") && text(45).contains("…"), "{}", text(45));
    }
}
