//! Lists of nodes from elsewhere: snapshots of Bitnodes, CSV, dumps of bitcoin-seeder, plain lists.
//!
//! The content tells the format, compressed or not. A list is streamed, and anything may be in it.
//!
//! Invariants:
//! 1. Memory does not grow with the list: lines, values and the depth of JSON are bounded.
//! 2. No more than [`MAX_BYTES`] are read, and no more than [`MAX_RATIO`] times a compressed list.
//! 3. Every entry is handed over or counted in [`LeftOut`].

mod input;
mod json;
mod text;

use std::fmt;
use std::io::{self, BufRead, Cursor, Read};
use std::net::{Ipv4Addr, Ipv6Addr};

use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::time::UnixTime;

use crate::sys::text_file::{cause, quoted};

/// Maximum number of bytes of a list, once it is decompressed.
pub const MAX_BYTES: u64 = 1 << 30;
/// Maximum ratio of the decompressed to the compressed bytes, beyond [`FREE_BYTES`].
pub const MAX_RATIO: u64 = 100;
/// Decompressed bytes for which the ratio is not checked.
pub const FREE_BYTES: u64 = 16 << 20;
/// Maximum length of a line or of a value in JSON.
pub const MAX_LINE_BYTES: usize = 8_192;
/// Maximum depth of JSON.
const MAX_DEPTH: u32 = 16;
/// Maximum number of unreadable entries that are told with their lines.
const MAX_FAULTS: usize = 5;

/// The format of a list.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Format {
    /// JSON of Bitnodes, the addresses as keys or in rows.
    Bitnodes,
    /// A row per line, separated by commas.
    Csv,
    /// A dump of bitcoin-seeder.
    Seeds,
    /// `HOST [PORT]` or `HOST:PORT` per line.
    Plain,
}

impl Format {
    /// Its name.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Bitnodes => "bitnodes",
            Self::Csv => "csv",
            Self::Seeds => "seeds",
            Self::Plain => "list",
        }
    }
}

/// An IPv4 address with a port, and what the list says of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Entry<'a> {
    /// The address; its port is not 0.
    pub address: Address,
    /// The user agent, as the list has it.
    pub agent: Option<&'a str>,
    /// The height of its chain.
    pub height: Option<i32>,
}

/// Entries that are not handed over, by kind.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct LeftOut {
    /// IPv6 addresses.
    pub ipv6: u64,
    /// Tor addresses.
    pub onion: u64,
    /// I2P addresses.
    pub i2p: u64,
    /// Host names, which are not resolved.
    pub names: u64,
    /// IPv4 addresses with port 0.
    pub port_zero: u64,
    /// Anything else.
    pub unreadable: u64,
}

/// An unreadable entry.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Fault {
    /// Its line.
    pub line: u64,
    /// The reason, in one line.
    pub reason: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "line {}: {}", self.line, self.reason)
    }
}

/// What was in a list.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Summary {
    /// Its format.
    pub format: Format,
    /// When it was made, or the newest time in it.
    pub at: Option<UnixTime>,
    /// Number of its entries.
    pub entries: u64,
    /// Those that were not handed over.
    pub left_out: LeftOut,
    /// The first unreadable entries.
    pub faults: Vec<Fault>,
}

/// Reads a list and hands its IPv4 addresses to `each`. An address without a port has
/// `default_port`.
///
/// # Errors
/// It cannot be read, exceeds a bound, or is JSON of another kind: what was handed over is only a
/// part of it.
pub fn read(
    input: impl Read,
    default_port: u16,
    each: &mut dyn FnMut(Entry<'_>),
) -> Result<Summary, Fault> {
    let mut collector = Collector::new(default_port, each);
    let mut line = 1;
    match read_into(input, &mut line, &mut collector) {
        Ok(()) => Ok(collector.summary),
        Err(error) => Err(Fault { line, reason: cause(&error) }),
    }
}

fn read_into(input: impl Read, line: &mut u64, collector: &mut Collector<'_>) -> io::Result<()> {
    let mut input = input::open(input)?;
    let Some(first) = first_byte(&mut input, line)? else {
        return Err(io::Error::other("there is nothing in it"));
    };
    let mut head: &'static [u8] = &[];
    let mut is_json = first == b'{';
    if first == b'[' {
        // An array, or an IPv6 address in brackets.
        input.consume(1);
        head = b"[";
        is_json = matches!(first_byte(&mut input, line)?, Some(b'[' | b']'));
    }
    let input = Cursor::new(head).chain(input);
    if is_json { json::read(input, line, collector) } else { text::read(input, line, collector) }
}

/// Skips a byte order mark and white space; returns the byte that follows without consuming it.
fn first_byte(input: &mut impl BufRead, line: &mut u64) -> io::Result<Option<u8>> {
    loop {
        let Some(byte) = input.fill_buf()?.first().copied() else { return Ok(None) };
        if !byte.is_ascii_whitespace() && !matches!(byte, 0xef | 0xbb | 0xbf) {
            return Ok(Some(byte));
        }
        *line += u64::from(byte == b'\n');
        input.consume(1);
    }
}

/// Sorts entries into those that are handed over and those that are counted.
struct Collector<'e> {
    summary: Summary,
    default_port: u16,
    each: &'e mut dyn FnMut(Entry<'_>),
}

impl<'e> Collector<'e> {
    fn new(default_port: u16, each: &'e mut dyn FnMut(Entry<'_>)) -> Self {
        let summary = Summary {
            format: Format::Plain,
            at: None,
            entries: 0,
            left_out: LeftOut::default(),
            faults: Vec::new(),
        };
        Self { summary, default_port, each }
    }

    /// Takes an entry. Without `port`, the port may be a part of `host`.
    fn take(
        &mut self,
        line: u64,
        host: &str,
        port: Option<&str>,
        agent: Option<&str>,
        height: Option<i64>,
    ) {
        let (host, own_port) = split(host);
        let left_out = &mut self.summary.left_out;
        let port = match port.or(own_port) {
            None => Some(self.default_port),
            Some(text) => number(text),
        };
        let counter = match (kind(host), port) {
            (Kind::Unreadable, _) => {
                return self.refuse(line, format!("{} is not an address", quoted(host)));
            }
            (_, None) => {
                return self.refuse(line, format!("{} has no port up to 65535", quoted(host)));
            }
            (Kind::Ipv4(_), Some(0)) => &mut left_out.port_zero,
            (Kind::Ipv4(ip), Some(port)) => {
                self.summary.entries += 1;
                let height = height.and_then(|height| i32::try_from(height).ok());
                return (self.each)(Entry { address: Address::new(ip, port), agent, height });
            }
            (Kind::Ipv6, _) => &mut left_out.ipv6,
            (Kind::Onion, _) => &mut left_out.onion,
            (Kind::I2p, _) => &mut left_out.i2p,
            (Kind::Name, _) => &mut left_out.names,
        };
        *counter += 1;
        self.summary.entries += 1;
    }

    /// Counts an unreadable entry.
    fn refuse(&mut self, line: u64, reason: String) {
        self.summary.entries += 1;
        self.summary.left_out.unreadable += 1;
        if self.summary.faults.len() < MAX_FAULTS {
            self.summary.faults.push(Fault { line, reason });
        }
    }

    /// Notes a time, in seconds since 1970, at which the list was still being made.
    fn see(&mut self, seconds: i64) {
        // A list may claim anything; 253,402,300,800 is the year 10,000.
        if (1..253_402_300_800).contains(&seconds) {
            self.summary.at = self.summary.at.max(Some(UnixTime::from_secs(seconds)));
        }
    }
}

enum Kind {
    Ipv4(Ipv4Addr),
    Ipv6,
    Onion,
    I2p,
    Name,
    Unreadable,
}

fn kind(host: &str) -> Kind {
    if let Ok(ip) = host.parse() {
        return Kind::Ipv4(ip);
    }
    if let Ok(ip) = host.parse::<Ipv6Addr>() {
        return ip.to_ipv4_mapped().map_or(Kind::Ipv6, Kind::Ipv4);
    }
    let lower = host.to_ascii_lowercase();
    let is_word = |c: u8| c.is_ascii_alphanumeric() || matches!(c, b'.' | b'-' | b'_');
    let has_letter = lower.bytes().any(|c| c.is_ascii_alphabetic());
    match lower.rsplit('.').next() {
        _ if !lower.bytes().all(is_word) || !has_letter => Kind::Unreadable,
        Some("onion") => Kind::Onion,
        Some("i2p") => Kind::I2p,
        _ => Kind::Name,
    }
}

/// Splits `HOST:PORT`, `[HOST]:PORT`, `[HOST]` and `HOST`.
fn split(text: &str) -> (&str, Option<&str>) {
    if let Some((host, rest)) = text.strip_prefix('[').and_then(|text| text.split_once(']')) {
        let port = rest.strip_prefix(':');
        return if port.is_some() || rest.is_empty() { (host, port) } else { (text, None) };
    }
    match text.split_once(':') {
        Some((host, port)) if !port.contains(':') => (host, Some(port)),
        _ => (text, None),
    }
}

fn number(text: &str) -> Option<u16> {
    let is_number = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    text.parse().ok().filter(|_| is_number)
}

#[cfg(test)]
mod tests;
