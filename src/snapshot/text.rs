//! Lists with an entry per line: CSV, dumps of bitcoin-seeder, plain lists.

use std::io::{self, BufRead, Read};

use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;

use super::{Collector, Format, MAX_LINE_BYTES};

pub(super) fn read(
    mut input: impl BufRead,
    line: &mut u64,
    collector: &mut Collector<'_>,
) -> io::Result<()> {
    let mut bytes = Vec::new();
    let mut columns = None;
    let mut is_first = true;
    while let Some(is_whole) = next_line(&mut input, &mut bytes)? {
        let text = String::from_utf8_lossy(&bytes);
        let text = text.trim();
        if !is_whole {
            collector.refuse(*line, format!("it is longer than {MAX_LINE_BYTES} bytes"));
        } else if !text.is_empty() && !text.starts_with('#') {
            if is_first && text.contains(',') && dump_words(text).is_none() {
                collector.summary.format = Format::Csv;
                columns = Some(Columns::default());
            }
            match &mut columns {
                Some(columns) => columns.row(text, is_first, *line, collector),
                None => words(text, *line, collector),
            }
            is_first = false;
        }
        *line += 1;
    }
    Ok(())
}

/// Reads a line. Of a longer one than [`MAX_LINE_BYTES`] the rest is skipped, and `false` returned;
/// `None` at the end.
fn next_line(input: &mut impl BufRead, bytes: &mut Vec<u8>) -> io::Result<Option<bool>> {
    bytes.clear();
    let limit = MAX_LINE_BYTES as u64 + 1;
    if input.by_ref().take(limit).read_until(b'\n', bytes)? == 0 {
        return Ok(None);
    }
    if bytes.last() == Some(&b'\n') || bytes.len() <= MAX_LINE_BYTES {
        return Ok(Some(true));
    }
    loop {
        let buffer = input.fill_buf()?;
        let end = buffer.iter().position(|byte| *byte == b'\n');
        let length = end.map_or(buffer.len(), |end| end + 1);
        input.consume(length);
        if end.is_some() || length == 0 {
            return Ok(Some(false));
        }
    }
}

/// Places in a line of a dump of bitcoin-seeder.
const LAST_SUCCESS: usize = 2;
const MONTH: usize = 7;
const BLOCKS: usize = 8;
const SEED_WORDS: usize = 11;

/// The words of a line of a dump before the user agent.
fn dump_words(text: &str) -> Option<Vec<&str>> {
    let words: Vec<&str> = text.split_whitespace().take(SEED_WORDS).collect();
    (words.len() == SEED_WORDS && words[MONTH].ends_with('%')).then_some(words)
}

/// A line of a dump or of a plain list.
fn words(text: &str, line: u64, collector: &mut Collector<'_>) {
    if let Some(words) = dump_words(text) {
        collector.summary.format = Format::Seeds;
        if let Ok(seconds) = words[LAST_SUCCESS].parse() {
            collector.see(seconds);
        }
        let agent = text.split_once('"').map(|(_, agent)| agent.strip_suffix('"').unwrap_or(agent));
        // A node that sent no height has 0 there.
        let height = words[BLOCKS].parse().ok().filter(|height| *height != 0);
        return collector.take(line, words[0], None, agent, height);
    }
    let mut words = text.split('#').next().unwrap_or("").split_whitespace();
    let host = words.next().unwrap_or("");
    // A word that is no number is a name, as in the nodes file.
    let is_port = |word: &&str| word.bytes().all(|byte| byte.is_ascii_digit());
    let port = words.next().filter(is_port).filter(|_| super::split(host).1.is_none());
    collector.take(line, host, port, None, None);
}

/// Where the columns of CSV are: without a heading host and port come first.
struct Columns {
    host: usize,
    port: Option<usize>,
    agent: Option<usize>,
    height: Option<usize>,
    probed: Option<usize>,
}

impl Default for Columns {
    fn default() -> Self {
        Self { host: 0, port: Some(1), agent: None, height: None, probed: None }
    }
}

impl Columns {
    /// The columns of a heading; `None` if the line is none.
    fn of_heading(cells: &[String]) -> Option<Self> {
        let place = |names: &[&str]| {
            let is_named =
                |cell: &String| names.contains(&cell.trim().to_ascii_lowercase().as_str());
            cells.iter().position(is_named)
        };
        Some(Self {
            host: place(&["host", "ip"]).or_else(|| place(&["address", "addr", "node"]))?,
            port: place(&["port"]),
            agent: place(&["user_agent", "agent"]),
            height: place(&["start_height", "height"]),
            probed: place(&["last_probed"]),
        })
    }

    fn row(&mut self, text: &str, is_first: bool, line: u64, collector: &mut Collector<'_>) {
        let Some(cells) = cells(text) else {
            return collector.refuse(line, "a quoted cell does not end in the line".to_owned());
        };
        if is_first && let Some(columns) = Self::of_heading(&cells) {
            *self = columns;
            return;
        }
        let cell = |column: Option<usize>| column.and_then(|column| cells.get(column));
        let cell =
            |column| cell(column).map(|cell| unmarked(cell.trim())).filter(|c| !c.is_empty());
        let host = cell(Some(self.host)).unwrap_or("");
        // `HOST:PORT` in the first column needs no other.
        let port = cell(self.port).filter(|_| super::split(host).1.is_none());
        let probed = cell(self.probed).and_then(|text| OffsetDateTime::parse(text, &Rfc3339).ok());
        if let Some(probed) = probed {
            collector.see(probed.unix_timestamp());
        }
        let height = cell(self.height).and_then(|text| text.parse().ok());
        collector.take(line, host, port, cell(self.agent), height);
    }
}

/// A cell without the mark that keeps a spreadsheet from taking it for a formula.
fn unmarked(cell: &str) -> &str {
    let marked = cell.strip_prefix('\'');
    marked.filter(|rest| rest.starts_with(['=', '+', '-', '@', '\\'])).unwrap_or(cell)
}

/// The cells of a line; `None` if a quote is not closed.
fn cells(text: &str) -> Option<Vec<String>> {
    let mut cells = vec![String::new()];
    let mut is_quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        let cell = cells.last_mut().expect("never empty");
        match c {
            '"' if is_quoted && chars.peek() == Some(&'"') => cell.extend(chars.next()),
            '"' => is_quoted = !is_quoted,
            ',' if !is_quoted => cells.push(String::new()),
            c => cell.push(c),
        }
    }
    (!is_quoted).then_some(cells)
}
