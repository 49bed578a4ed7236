//! `bitdash import`: addresses of a list become candidates.

use std::collections::BTreeSet;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::commands::screen::Screen;
use crate::commands::table::{cut, grouped, safe, wrapped};
use crate::commands::{Failure, print};
use crate::config::ConfigSource;
use crate::db::writer::import::{Imported, import};
use crate::snapshot::{self, LeftOut, Summary};
use crate::sys::text_file::cause;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;

/// Entries that are left out because of what they are, or are not compared.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct Skipped {
    /// Those of the list.
    pub list: LeftOut,
    /// Addresses that no public node can have.
    pub reserved: u64,
    /// Addresses that `filter.exclude` or `filter.only` refuses.
    pub excluded: u64,
    /// Addresses that were in the list before.
    pub doubles: u64,
    /// Addresses beyond `crawl.max_addresses`.
    pub surplus: u64,
}

impl Skipped {
    /// Their kinds and numbers, and the sum of these.
    pub fn kinds(&self) -> (Vec<(&'static str, u64)>, u64) {
        let list = &self.list;
        let all = [
            ("IPv6", list.ipv6),
            ("onion", list.onion),
            ("I2P", list.i2p),
            ("host names", list.names),
            ("reserved", self.reserved),
            ("port 0", list.port_zero),
            ("excluded by our filter", self.excluded),
            ("double", self.doubles),
            ("beyond crawl.max_addresses", self.surplus),
            ("unreadable", list.unreadable),
        ];
        let sum = all.iter().map(|(_, count)| count).sum();
        (all.into_iter().filter(|(_, count)| *count > 0).collect(), sum)
    }
}

/// Imports the addresses of a file; `-` is standard input.
///
/// # Errors
/// The configuration is invalid, the file or the database cannot be read, or a part of the file is
/// unreadable.
pub fn run(source: &ConfigSource, file: &Path, screen: &Screen) -> Result<(), Failure> {
    let config = source.load()?;
    let filter = config.load_filter()?;
    let name = name_of(file);
    let max = usize::try_from(config.crawl.max_addresses).unwrap_or(usize::MAX);
    let list = read(open(file)?, config.network.port, &filter, max);
    let (summary, addresses, skipped) = list.map_err(|fault| {
        Failure::Failed(format!("{name}: {}; nothing was imported", told(&fault)))
    })?;
    let imported = import(config.database.url.expose(), &addresses);
    let imported = imported.map_err(|error| Failure::of_store(&error, source, &config))?;
    print(&report(&name, &summary, &imported, &skipped, screen))?;
    check(&name, &summary)
}

type List = (Summary, BTreeSet<Address>, Skipped);

/// The addresses of a list, at most `max`.
///
/// # Errors
/// Those of [`snapshot::read`].
pub fn read(
    input: impl Read,
    default_port: u16,
    filter: &Filter,
    max: usize,
) -> Result<List, snapshot::Fault> {
    let mut addresses = BTreeSet::new();
    let mut skipped = Skipped::default();
    let summary = snapshot::read(input, default_port, &mut |entry| {
        let address = entry.address;
        if filter.check_named(address).is_err() {
            skipped.excluded += 1;
        } else if !filter.admits(address) {
            skipped.reserved += 1;
        } else if addresses.len() == max && !addresses.contains(&address) {
            skipped.surplus += 1;
        } else if !addresses.insert(address) {
            skipped.doubles += 1;
        }
    })?;
    skipped.list = summary.left_out;
    Ok((summary, addresses, skipped))
}

/// Opens a file that the operator named.
///
/// # Errors
/// It cannot be opened.
pub fn open(file: &Path) -> Result<Box<dyn Read>, Failure> {
    if file == Path::new("-") {
        return Ok(Box::new(io::stdin().lock()));
    }
    let opened = File::open(file);
    let unreadable = |error| format!("{}: cannot be read: {}", name_of(file), cause(&error));
    Ok(Box::new(opened.map_err(|error| Failure::Usage(unreadable(error)))?))
}

/// The name of a file for people.
pub fn name_of(file: &Path) -> String {
    if file == Path::new("-") {
        return "standard input".to_owned();
    }
    safe(&file.display().to_string())
}

/// A fault on one line of bounded length: it quotes the list.
pub fn told(fault: &snapshot::Fault) -> String {
    cut(&safe(&fault.to_string()), MAX_FAULT_COLUMNS, &Screen::PLAIN)
}

const MAX_FAULT_COLUMNS: usize = 200;

/// Reports unreadable entries.
///
/// # Errors
/// There are some.
pub fn check(name: &str, summary: &Summary) -> Result<(), Failure> {
    let count = summary.left_out.unreadable;
    if count == 0 {
        return Ok(());
    }
    let mut faults: Vec<String> = summary.faults.iter().map(told).collect();
    let others = count - faults.len() as u64;
    if others > 0 {
        faults.push(format!("and {} more", number(others)));
    }
    Err(Failure::Failed(format!("{name}: {}", faults.join("; "))))
}

fn report(
    name: &str,
    summary: &Summary,
    imported: &Imported,
    skipped: &Skipped,
    screen: &Screen,
) -> String {
    let line = |title, count, note: &str| figure(title, 24, count, note, screen);
    let mut text =
        line("read", summary.entries, &format!("of {name} ({})", summary.format.as_str()));
    let when = match imported.is_crawling {
        _ if imported.new == 0 => "",
        true => "new candidates: the running crawl takes them in within seconds",
        false => "new candidates: the next crawl takes them in",
    };
    text += &line("imported", imported.new, when);
    let known = imported.nodes + imported.candidates;
    if known > 0 {
        let (nodes, candidates) = (number(imported.nodes), number(imported.candidates));
        text += &line(
            "known",
            known,
            &format!("nodes {nodes}, candidates {candidates}: left as they are"),
        );
    }
    if imported.waiting > 0 {
        let note = "imported before; no crawl has taken them in yet";
        text += &line("waiting", imported.waiting, note);
    }
    let (kinds, sum) = skipped.kinds();
    if sum > 0 {
        text += &line("left out", sum, &counts(kinds));
    }
    text
}

/// A line with a title, a number that ends at this column, and a note.
pub fn figure(title: &str, column: usize, count: u64, note: &str, screen: &Screen) -> String {
    let count = number(count);
    let width = column.saturating_sub(title.len()).max(count.len() + 1);
    hanging(&format!("{title}{count:>width$}"), column + 3, note, screen)
}

/// A text after a head. Where the screen ends it is broken, and goes on below its start.
pub fn hanging(head: &str, start: usize, text: &str, screen: &Screen) -> String {
    let width = screen.width.map(|width| width.saturating_sub(start).max(MIN_TEXT_COLUMNS));
    let mut out = String::new();
    for (index, line) in wrapped(text, width).iter().enumerate() {
        let head = if index == 0 { head } else { "" };
        let start = start.max(head.len() + 1);
        out.push_str(format!("{head:<start$}{}", line.replace(GLUE, " ")).trim_end());
        out.push('\n');
    }
    out
}

/// A space at which no line is broken.
const GLUE: char = '\u{a0}';
/// On a narrower screen lines are longer than it.
const MIN_TEXT_COLUMNS: usize = 20;

/// `IPv6 1,105, onion 14,890`.
pub fn counts<T: AsRef<str>>(kinds: impl IntoIterator<Item = (T, u64)>) -> String {
    let kinds = kinds.into_iter();
    kinds
        .map(|(kind, count)| format!("{}{GLUE}{}", kind.as_ref(), number(count)))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A number with thousands separators.
pub fn number(count: u64) -> String {
    grouped(i64::try_from(count).unwrap_or(i64::MAX))
}
