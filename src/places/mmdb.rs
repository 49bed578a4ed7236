//! MaxMind's format, as DB-IP, GeoLite2 and others use it. The crate maxminddb reads it.

use std::net::{IpAddr, Ipv4Addr};

use bitdash_core::vocabulary::time::UnixTime;
use serde::Deserialize;

use super::file::Kind;
use super::{MAX_SECONDS, Place, Source, country, name};

/// An open file: the bytes `B`.
pub struct Mmdb<B: AsRef<[u8]> = Vec<u8>> {
    reader: maxminddb::Reader<B>,
    /// Its name and the type that it states, in lower case: they tell what it is.
    words: String,
}

/// A record. Some files nest the country's code, in others it is flat.
#[derive(Deserialize)]
struct Record<'r> {
    #[serde(borrow, default)]
    country: Option<Country<'r>>,
    #[serde(borrow, default)]
    country_code: Option<&'r str>,
    #[serde(default)]
    autonomous_system_number: Option<u32>,
    #[serde(borrow, default)]
    autonomous_system_organization: Option<&'r str>,
}

#[derive(Deserialize)]
struct Country<'r> {
    #[serde(borrow, default)]
    iso_code: Option<&'r str>,
}

impl<B: AsRef<[u8]>> Mmdb<B> {
    /// Opens a file by its name and bytes.
    ///
    /// # Errors
    /// They are of another format, or broken: the end of a sentence about the file.
    pub fn open(file: &str, bytes: B) -> Result<Self, String> {
        let reader = maxminddb::Reader::from_source(bytes).map_err(|error| broken(&error))?;
        let words = format!("{} {file}", reader.metadata().database_type).to_lowercase();
        Ok(Self { reader, words })
    }

    /// Looks an address up.
    ///
    /// # Errors
    /// The file is broken there.
    pub fn look_up(&self, ip: Ipv4Addr) -> Result<Place, String> {
        let found = self.reader.lookup(IpAddr::V4(ip)).and_then(|found| found.decode::<Record>());
        let Some(record) = found.map_err(|error| broken(&error))? else {
            return Ok(Place::default());
        };
        let code = record.country.and_then(|country| country.iso_code).or(record.country_code);
        Ok(Place {
            country: code.and_then(|code| country(code.as_bytes())),
            asn: record.autonomous_system_number.filter(|asn| *asn != 0),
            as_name: record.autonomous_system_organization.and_then(name),
        })
    }

    /// Whether it may have countries, or networks: what its words do not deny.
    pub(super) fn has(&self, kind: Kind) -> bool {
        let says = |words: &[&str]| words.iter().any(|word| self.words.contains(word));
        let (countries, networks) = (says(&["country", "city"]), says(&["asn", "isp"]));
        countries == networks || countries == (kind == Kind::Country)
    }

    pub(super) fn is_of_maxmind(&self) -> bool {
        self.words.contains("geolite2") || self.words.contains("geoip2")
    }

    /// Where the file comes from.
    pub fn source(&self) -> Source {
        let metadata = self.reader.metadata();
        let is_of_db_ip = ["dbip", "db-ip"].iter().any(|word| self.words.contains(word));
        let (title, url, licence) = if is_of_db_ip {
            ("IP Geolocation by DB-IP", "https://db-ip.com", "CC BY 4.0")
        } else if self.is_of_maxmind() {
            (
                "GeoLite2 data created by MaxMind",
                "https://www.maxmind.com",
                "GeoLite2 End User License Agreement",
            )
        } else {
            ("", "", "")
        };
        let some = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        Source {
            name: some(title)
                .or_else(|| name(&metadata.database_type))
                .unwrap_or_else(|| "a file without a name".to_owned()),
            url: some(url),
            licence: some(licence),
            built_at: UnixTime::from_secs(metadata.build_epoch.min(MAX_SECONDS).cast_signed()),
        }
    }
}

/// The end of a sentence about the file. The crate's texts may quote it.
fn broken(error: &maxminddb::MaxMindDbError) -> String {
    let text = error.to_string();
    format!("is broken or of an unknown format: {}", name(&text).unwrap_or_default())
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Control bytes of the format: a type in the upper three bits, and a size.
    fn text(text: &str) -> Vec<u8> {
        let length = u8::try_from(text.len()).unwrap();
        // From 29 on the rest of the length is a byte of its own.
        let size = if length < 29 { vec![0x40 | length] } else { vec![0x40 | 29, length - 29] };
        [&size, text.as_bytes()].concat()
    }

    fn map(pairs: &[(&str, Vec<u8>)]) -> Vec<u8> {
        let mut bytes = vec![0xe0 | u8::try_from(pairs.len()).unwrap()];
        for (key, value) in pairs {
            bytes.extend(text(key));
            bytes.extend(value);
        }
        bytes
    }

    fn number(number: u32) -> Vec<u8> {
        [&[0xc4][..], &number.to_be_bytes()].concat()
    }

    /// A file with one record for addresses below 128.0.0.0, and one for the others.
    fn file(kind: &str, low: &[u8], high: &[u8]) -> Vec<u8> {
        let record = |offset: usize| u32::try_from(1 + 16 + offset).unwrap().to_be_bytes();
        let tree = [&record(0)[1..], &record(low.len())[1..]].concat();
        let metadata = map(&[
            ("binary_format_major_version", vec![0xa1, 2]),
            ("binary_format_minor_version", vec![0xa0]),
            ("build_epoch", [&[8, 2][..], &1_790_000_000_u64.to_be_bytes()].concat()),
            ("database_type", text(kind)),
            ("description", vec![0xe0]),
            ("ip_version", vec![0xa1, 4]),
            ("languages", vec![0x00, 0x04]),
            ("node_count", number(1)),
            ("record_size", vec![0xa1, 24]),
        ]);
        let marker = b"\xab\xcd\xefMaxMind.com";
        [&tree[..], &[0; 16], low, high, marker, &metadata].concat()
    }

    /// A file in which every address is in one country.
    pub fn countries_of(kind: &str, code: &str) -> Vec<u8> {
        let record = map(&[("country", map(&[("iso_code", text(code))]))]);
        file(kind, &record, &record)
    }

    fn place(country: Option<&str>, asn: Option<u32>, as_name: Option<&str>) -> Place {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Place { country: text(country), asn, as_name: text(as_name) }
    }

    const LOW: Ipv4Addr = Ipv4Addr::new(1, 2, 3, 4);
    const HIGH: Ipv4Addr = Ipv4Addr::new(200, 2, 3, 4);

    #[test]
    fn both_shapes_of_a_country_and_a_network_are_read() {
        let nested = map(&[("country", map(&[("iso_code", text("DE"))]))]);
        let flat = map(&[("country_code", text("FR")), ("x", number(1))]);
        let countries = Mmdb::open("c.mmdb", file("DBIP-Country-Lite", &nested, &flat)).unwrap();
        assert_eq!(countries.look_up(LOW), Ok(place(Some("DE"), None, None)));
        assert_eq!(countries.look_up(HIGH), Ok(place(Some("FR"), None, None)));
        assert!(countries.has(Kind::Country) && !countries.has(Kind::Network));
        let source = countries.source();
        assert_eq!(source.name, "IP Geolocation by DB-IP");
        assert_eq!(source.licence.as_deref(), Some("CC BY 4.0"));
        assert_eq!(source.built_at.as_secs(), 1_790_000_000);

        let system = map(&[
            ("autonomous_system_number", number(24_940)),
            ("autonomous_system_organization", text("Hetzner\nOnline")),
        ]);
        let networks = Mmdb::open("GeoLite2-ASN.mmdb", file("x", &system, &map(&[]))).unwrap();
        let expected = place(None, Some(24_940), Some("Hetzner Online"));
        assert_eq!(networks.look_up(LOW), Ok(expected));
        assert_eq!(networks.look_up(HIGH), Ok(Place::default()));
        assert!(networks.has(Kind::Network) && !networks.has(Kind::Country));
        assert!(networks.is_of_maxmind());
    }

    #[test]
    fn a_file_that_names_neither_kind_may_have_both() {
        let both = Mmdb::open("places.mmdb", file("y", &map(&[]), &map(&[]))).unwrap();
        assert!(both.has(Kind::Network) && both.has(Kind::Country));
        let source = both.source();
        assert_eq!((source.name.as_str(), source.licence), ("y", None));
    }

    #[test]
    fn broken_files_and_records_are_errors_in_one_line() {
        let odd = map(&[("country", number(7))]);
        let whole = file("t", &odd, &map(&[("country_code", text("de"))]));
        let mmdb = Mmdb::open("", whole.clone()).unwrap();
        let error = mmdb.look_up(LOW).unwrap_err();
        assert!(error.starts_with("is broken or of an unknown format: "), "{error}");
        assert_eq!(mmdb.look_up(HIGH), Ok(Place::default()), "a code is in capitals");
        for end in 0..whole.len() {
            let Ok(mmdb) = Mmdb::open("", whole[..end].to_vec()) else { continue };
            let _ = (mmdb.look_up(LOW), mmdb.look_up(HIGH));
        }
        for at in 0..whole.len() {
            for flip in [0x01, 0x80, 0xff] {
                let mut bytes = whole.clone();
                bytes[at] ^= flip;
                let Ok(mmdb) = Mmdb::open("", bytes) else { continue };
                let _ = (mmdb.look_up(LOW), mmdb.look_up(HIGH), mmdb.source());
            }
        }
    }
}
