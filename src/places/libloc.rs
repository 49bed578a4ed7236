//! A reader of IPFire's location database (libloc, version 1).
//!
//! The file is a header, a binary tree over the bits of an IPv6 address, and tables: networks,
//! which the tree refers to, autonomous systems by number, and a pool of texts. Integers are
//! big-endian. IPv4 addresses are below ::ffff:0:0/96.

use std::net::Ipv4Addr;
use std::ops::Range;

use bitdash_core::vocabulary::time::UnixTime;

use super::{MAX_SECONDS, Place, Source, country, name};

/// The first bytes of a file.
pub const MAGIC: &[u8] = b"LOCDBXX";

const VERSION: u8 = 1;
/// Sizes of the entries of the tables.
const NODE_BYTES: usize = 12;
const NETWORK_BYTES: usize = 12;
const AS_BYTES: usize = 8;
/// A node without a network.
const NO_NETWORK: u32 = u32::MAX;
/// Maximum length of a text in bytes.
const MAX_TEXT_BYTES: usize = 500;

/// An open file: the bytes `B`.
pub struct Libloc<B = Vec<u8>> {
    bytes: B,
    systems: Range<usize>,
    networks: Range<usize>,
    tree: Range<usize>,
    pool: Range<usize>,
    /// The node of ::ffff:0:0/96, and the network that the path to it ended with.
    ipv4: Option<(u32, u32)>,
}

impl<B: AsRef<[u8]>> Libloc<B> {
    /// Opens a file by its bytes. Its signature is not verified: whoever installs it does that.
    ///
    /// # Errors
    /// It is of another format or version, or cut short: the end of a sentence about the file.
    pub fn open(bytes: B) -> Result<Self, &'static str> {
        let file = bytes.as_ref();
        if !file.starts_with(MAGIC) {
            return Err("is no libloc database");
        }
        if file.get(MAGIC.len()) != Some(&VERSION) {
            return Err("is of a newer version of libloc");
        }
        let section = |at| {
            let (start, length) = (u32_at(file, at)? as usize, u32_at(file, at + 4)? as usize);
            let end = start.checked_add(length)?;
            (end <= file.len()).then_some(start..end)
        };
        let sections = || Some([section(28)?, section(36)?, section(44)?, section(60)?]);
        let [systems, networks, tree, pool] = sections().ok_or("is cut short")?;
        let mut database = Self { bytes, systems, networks, tree, pool, ipv4: None };
        let bits = (0..96).map(|bit| bit >= 80);
        database.ipv4 = database.descend((0, NO_NETWORK), bits).1;
        Ok(database)
    }

    /// Looks an address up: the smallest network that it is in.
    pub fn look_up(&self, ip: Ipv4Addr) -> Place {
        let Some(start) = self.ipv4 else { return Place::default() };
        let bits = (0..32).rev().map(|bit| u32::from(ip) >> bit & 1 == 1);
        let network = self.descend(start, bits).0;
        self.network(network).unwrap_or_default()
    }

    /// Where the file comes from.
    pub fn source(&self) -> Source {
        let file = self.bytes.as_ref();
        let text = |at| u32_at(file, at).and_then(|offset| self.text(offset));
        let [high, low] = [8, 12].map(|at| u64::from(u32_at(file, at).unwrap_or(0)));
        let seconds = high << 32 | low;
        let vendor = text(16).unwrap_or_else(|| "libloc".to_owned());
        let is_ipfire = vendor == "IPFire Project";
        Source {
            name: if is_ipfire { "IPFire Location Database".to_owned() } else { vendor },
            url: is_ipfire.then(|| "https://location.ipfire.org".to_owned()),
            licence: text(24),
            built_at: UnixTime::from_secs(seconds.min(MAX_SECONDS).cast_signed()),
        }
    }

    /// Follows the bits from a node. Returns the last network on the path, and, if it does not end
    /// before, the node at its end with that network.
    fn descend(
        &self,
        (mut node, mut network): (u32, u32),
        bits: impl Iterator<Item = bool>,
    ) -> (u32, Option<(u32, u32)>) {
        let tree = self.section(&self.tree);
        let field = |node: u32, field| entry_field(tree, node, NODE_BYTES, field);
        for bit in bits {
            network = field(node, 8).filter(|own| *own != NO_NETWORK).unwrap_or(network);
            // The root is no node's child.
            match field(node, if bit { 4 } else { 0 }) {
                None | Some(0) => return (network, None),
                Some(child) => node = child,
            }
        }
        network = field(node, 8).filter(|own| *own != NO_NETWORK).unwrap_or(network);
        (network, Some((node, network)))
    }

    fn network(&self, index: u32) -> Option<Place> {
        let networks = self.section(&self.networks);
        let asn = entry_field(networks, index, NETWORK_BYTES, 4)?;
        let start = index as usize * NETWORK_BYTES;
        let asn = (asn != 0).then_some(asn);
        Some(Place {
            country: country(&networks[start..start + 2]),
            asn,
            as_name: asn.and_then(|asn| self.as_name(asn)),
        })
    }

    /// Systems are sorted by number.
    fn as_name(&self, asn: u32) -> Option<String> {
        let systems = self.section(&self.systems);
        let (mut low, mut high) = (0, u32::try_from(systems.len() / AS_BYTES).ok()?);
        while low < high {
            let middle = low + (high - low) / 2;
            if entry_field(systems, middle, AS_BYTES, 0)? < asn {
                low = middle + 1;
            } else {
                high = middle;
            }
        }
        let is_found = entry_field(systems, low, AS_BYTES, 0)? == asn;
        is_found.then_some(entry_field(systems, low, AS_BYTES, 4)?).and_then(|at| self.text(at))
    }

    fn section(&self, range: &Range<usize>) -> &[u8] {
        &self.bytes.as_ref()[range.clone()]
    }

    /// The text at an offset of the pool. A zero byte ends it.
    fn text(&self, offset: u32) -> Option<String> {
        let rest = self.section(&self.pool).get(offset as usize..)?;
        let rest = &rest[..rest.len().min(MAX_TEXT_BYTES)];
        let text = rest.split(|byte| *byte == 0).next()?;
        name(&String::from_utf8_lossy(text))
    }
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    bytes.get(at..)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}

/// A field of an entry of a table; `None` unless the whole entry is in it.
fn entry_field(table: &[u8], index: u32, size: usize, field: usize) -> Option<u32> {
    let start = (index as usize).checked_mul(size)?;
    u32_at(table.get(start..start.checked_add(size)?)?, field)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Made by `tests/support/libloc.rs`.
    const SMALL: &[u8] = include_bytes!("../../fuzz/corpus/libloc/small");

    #[test]
    fn networks_countries_and_names_are_read() {
        let file = Libloc::open(SMALL).unwrap();
        let place = |ip: [u8; 4]| {
            let Place { country, asn, as_name } = file.look_up(ip.into());
            (country.unwrap_or_default(), asn.unwrap_or(0), as_name.unwrap_or_default())
        };
        let of = |country: &str, asn, name: &str| (country.to_owned(), asn, name.to_owned());
        assert_eq!(place([127, 1, 2, 3]), of("DE", 24_940, "Hetzner Online GmbH"));
        assert_eq!(place([127, 1, 200, 0]), of("FR", 16_276, "OVH SAS"), "the smallest counts");
        assert_eq!(place([127, 2, 0, 1]), of("US", 0, ""));
        assert_eq!(place([127, 3, 0, 1]), of("", 4_294_967_295, ""), "a system without a name");
        assert_eq!(place([127, 9, 9, 9]), of("", 0, ""));
        let source = file.source();
        assert_eq!(source.name, "IPFire Location Database");
        assert_eq!(source.url.as_deref(), Some("https://location.ipfire.org"));
        assert_eq!(source.licence.as_deref(), Some("CC BY-SA 4.0"));
        assert_eq!(source.built_at.as_secs(), 1_790_000_000);
    }

    #[test]
    fn other_formats_versions_and_cut_files_are_refused() {
        let error = |bytes: &[u8]| Libloc::open(bytes).err();
        assert_eq!(error(b"LOCDB"), Some("is no libloc database"));
        assert_eq!(error(b"LOCDBXX\x02"), Some("is of a newer version of libloc"));
        for end in 8..SMALL.len() {
            assert_eq!(error(&SMALL[..end]), Some("is cut short"), "{end}");
        }
    }

    #[test]
    fn flipped_bits_never_panic() {
        let mut bytes = SMALL.to_vec();
        for bit in 0..bytes.len() * 8 {
            bytes[bit / 8] ^= 1 << (bit % 8);
            if let Ok(file) = Libloc::open(&bytes) {
                for ip in [[127, 1, 2, 3], [127, 1, 200, 0], [0, 0, 0, 0], [255; 4]] {
                    file.look_up(ip.into());
                }
                file.source();
            }
            bytes[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
