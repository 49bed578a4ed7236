//! Places: the country and the network of an address, from a file of IPFire's libloc or an .mmdb
//! file (DB-IP, GeoLite2).
//!
//! Invariants:
//! 1. A file is read, never mapped: one that is replaced or cut meanwhile does no harm.
//! 2. A file may hold any bytes: reading it takes bounded time and memory and never panics.
//! 3. What it says is safe for the database: a country is two capital letters, a name is short and
//!    without control characters.

mod file;
pub mod libloc;
pub mod mmdb;

use std::net::Ipv4Addr;

use bitdash_core::vocabulary::time::UnixTime;

pub use self::file::{Kind, Lookup, PlaceFile, Places, open};
use self::libloc::Libloc;
use self::mmdb::Mmdb;

/// What is known of an address.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Place {
    /// Code of the country, such as DE.
    pub country: Option<String>,
    /// Number of the autonomous system.
    pub asn: Option<u32>,
    /// Operator of the autonomous system.
    pub as_name: Option<String>,
}

/// Where a file comes from: its licence may ask that this is shown beside the places.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Source {
    /// Its name, as its licence asks for.
    pub name: String,
    /// Where it is from.
    pub url: Option<String>,
    /// The licence.
    pub licence: Option<String>,
    /// When it was made.
    pub built_at: UnixTime,
}

/// An open file.
pub enum Database {
    /// Of libloc: countries and networks.
    Libloc(Libloc),
    /// Of MaxMind's format: countries or networks.
    Mmdb(Mmdb),
}

impl Database {
    /// Opens a file by its name and bytes.
    ///
    /// # Errors
    /// They are in no known format, or broken: the end of a sentence about the file.
    pub fn open(file: &str, bytes: Vec<u8>) -> Result<Self, String> {
        if bytes.starts_with(libloc::MAGIC) {
            Libloc::open(bytes).map(Self::Libloc).map_err(str::to_owned)
        } else {
            Mmdb::open(file, bytes).map(Self::Mmdb)
        }
    }

    /// Looks an address up.
    ///
    /// # Errors
    /// The file is broken there.
    pub fn look_up(&self, ip: Ipv4Addr) -> Result<Place, String> {
        match self {
            Self::Libloc(libloc) => Ok(libloc.look_up(ip)),
            Self::Mmdb(mmdb) => mmdb.look_up(ip),
        }
    }

    /// Where it comes from.
    pub fn source(&self) -> Source {
        match self {
            Self::Libloc(libloc) => libloc.source(),
            Self::Mmdb(mmdb) => mmdb.source(),
        }
    }

    fn has(&self, kind: Kind) -> bool {
        match self {
            Self::Libloc(_) => true,
            Self::Mmdb(mmdb) => mmdb.has(kind),
        }
    }

    fn max_age_days(&self) -> i64 {
        match self {
            Self::Libloc(_) => MAX_AGE_DAYS,
            Self::Mmdb(mmdb) if mmdb.is_of_maxmind() => MAX_AGE_DAYS_MAXMIND,
            Self::Mmdb(_) => MAX_AGE_DAYS,
        }
    }
}

/// Age from which a file is reported. MaxMind's licence asks for a shorter one.
const MAX_AGE_DAYS: i64 = 400;
const MAX_AGE_DAYS_MAXMIND: i64 = 30;
/// The last second of the year 9999: later times cannot be shown.
const MAX_SECONDS: u64 = 253_402_300_799;
/// Maximum length of a name in characters.
const MAX_NAME_CHARS: usize = 100;

/// A country's code, unless it is none.
fn country(code: &[u8]) -> Option<String> {
    let is_code = code.len() == 2 && code.iter().all(u8::is_ascii_uppercase);
    is_code.then(|| String::from_utf8_lossy(code).into_owned())
}

/// A name without control characters and of bounded length; `None` if nothing is left.
fn name(text: &str) -> Option<String> {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    let text: String = printable.take(MAX_NAME_CHARS).collect();
    Some(text.trim().to_owned()).filter(|text| !text.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_two_capitals_and_names_are_short_and_printable() {
        assert_eq!(country(b"DE").as_deref(), Some("DE"));
        for code in [&b"de"[..], b"A1", b"\0\0", b"D", b"DEU", b""] {
            assert_eq!(country(code), None, "{code:?}");
        }
        assert_eq!(name(" a\u{1b}[2J\0b\n").as_deref(), Some("a [2J b"));
        assert_eq!(name(&"ü".repeat(1_000)).unwrap().chars().count(), MAX_NAME_CHARS);
        assert_eq!((name(""), name("\0\n ")), (None, None));
    }
}
