//! `addr`: addresses that a node relays, encoded and decoded in both layouts.
//!
//! The payload is a `CompactSize` and that many entries, with a time (30 bytes) or, to and from
//! versions below 31402, without (26 bytes).
//!
//! Invariants:
//! 1. The length is checked before the first entry is read; it alone determines the layout.
//! 2. At most [`MAX_ADDR_TO_SEND`] entries of a payload are read, however many it announces.
//! 3. `entries.len() + skipped` is the number of entries read.

use std::net::Ipv4Addr;

use super::error::DecodeError;
use super::payload::PayloadBuffer;
use super::version::NetworkAddress;
use super::wire::{Reader, Writer, widen};

/// An address that a node relays.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddrEntry {
    /// When it was last seen, as claimed, in seconds since 1970; `None` in the layout without
    /// times.
    pub time: Option<u32>,
    /// The services that it offers, as claimed: a set of 64 bits.
    pub services: u64,
    /// The IPv4 address.
    pub ip: Ipv4Addr,
    /// The port, as sent: it may be 0.
    pub port: u16,
}

/// The addresses of one `addr` message (Bitcoin wiki, "Protocol documentation", addr).
///
/// ```
/// use watchglass::{Addr, AddrEntry};
///
/// let entry =
///     AddrEntry { time: Some(1_700_000_000), services: 1, ip: [192, 0, 2, 1].into(), port: 8333 };
/// let mut payload = Vec::new();
/// Addr::encode(&[entry], &mut payload);
/// assert_eq!(payload.len(), 1 + 30);
/// let addr = Addr::decode(&payload)?;
/// assert_eq!((addr.count, addr.skipped), (1, 0));
/// assert_eq!(addr.entries, [entry]);
/// # Ok::<(), watchglass::DecodeError>(())
/// ```
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addr {
    /// Number of entries announced.
    pub count: u64,
    /// The IPv4 entries of its first [`MAX_ADDR_TO_SEND`].
    pub entries: Vec<AddrEntry>,
    /// Number of entries read that are not IPv4.
    pub skipped: usize,
}

/// Maximum number of entries that a node sends in an `addr` (Bitcoin Core net_processing.cpp).
pub const MAX_ADDR_TO_SEND: usize = 1000;

/// The layout of a payload, derived from its count and length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) count: u64,
    timed: bool,
}

impl Addr {
    /// Decodes a whole payload.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] or [`DecodeError::NonCanonical`] for the count,
    /// [`DecodeError::AddrLength`] if the length fits neither layout.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut buffer = PayloadBuffer::for_addr(widen(payload.len()));
        buffer.take(payload);
        buffer.addr()
    }

    /// Appends a payload of these entries, with times if any has one; the time of the others is 0.
    ///
    /// More than [`MAX_ADDR_TO_SEND`] entries are encoded as well; receivers reject them.
    pub fn encode(entries: &[AddrEntry], out: &mut Vec<u8>) {
        let timed = entries.iter().any(|entry| entry.time.is_some());
        let mut writer = Writer::new(out);
        writer.compact_size(widen(entries.len()));
        for entry in entries {
            if timed {
                writer.u32(entry.time.unwrap_or(0));
            }
            NetworkAddress::from_ipv4(entry.services, entry.ip, entry.port).encode(&mut writer);
        }
    }

    /// Decodes the buffered entries of a payload.
    pub(super) fn from_kept(kept: &[u8], layout: Layout) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(kept);
        let mut addr = Self { count: layout.count, ..Self::default() };
        addr.entries.reserve_exact(layout.read());
        for _ in 0..layout.read() {
            let time = if layout.timed { Some(reader.u32("addr time")?) } else { None };
            let address = NetworkAddress::decode(&mut reader, "addr entry")?;
            match address.ipv4() {
                Some(ip) => {
                    addr.entries.push(AddrEntry {
                        time,
                        services: address.services,
                        ip,
                        port: address.port,
                    });
                }
                None => addr.skipped = addr.skipped.saturating_add(1),
            }
        }
        Ok(addr)
    }
}

impl Layout {
    /// Reads the count at the front of a payload of this length.
    pub(super) fn read_front(front: &[u8], length: u64) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(front);
        let count = reader.compact_size("addr count")?;
        let left = length.saturating_sub(reader.offset());
        if count.checked_mul(30) == Some(left) {
            Ok(Self { count, timed: true })
        } else if count.checked_mul(26) == Some(left) {
            Ok(Self { count, timed: false })
        } else {
            Err(DecodeError::AddrLength { count, came: left })
        }
    }

    /// Number of entries to read.
    fn read(self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX).min(MAX_ADDR_TO_SEND)
    }

    /// Number of bytes of entries to buffer.
    pub(super) fn kept(self) -> usize {
        self.read().saturating_mul(if self.timed { 30 } else { 26 })
    }
}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn entry(number: usize, time: Option<u32>) -> AddrEntry {
        let ip = Ipv4Addr::from(0x0100_0000 + u32::try_from(number).unwrap());
        AddrEntry { time, services: 1, ip, port: 8333 }
    }

    fn entries(count: usize, timed: bool) -> Vec<AddrEntry> {
        (0..count).map(|number| entry(number, timed.then_some(1_700_000_000))).collect()
    }

    fn encoded(entries: &[AddrEntry]) -> Vec<u8> {
        let mut out = Vec::new();
        Addr::encode(entries, &mut out);
        out
    }

    #[test]
    fn golden_addr_decodes_and_encodes_to_the_same_bytes() {
        let payload = samples::payload(samples::WIKI_ADDR);
        let ip = Ipv4Addr::new(10, 0, 0, 1);
        let entries = vec![AddrEntry { time: Some(0x4d10_15e2), services: 1, ip, port: 8333 }];
        assert_eq!(encoded(&entries), payload);
        assert_eq!(Addr::decode(&payload), Ok(Addr { count: 1, entries, skipped: 0 }));
    }

    #[test]
    fn length_determines_the_layout() {
        for timed in [true, false] {
            // 13 x 30 = 15 x 26: only the count differs.
            for count in [1, 2, 13, 15, 252, 253, 999, 1000] {
                let entries = entries(count, timed);
                let payload = encoded(&entries);
                let entry_length = if timed { 30 } else { 26 };
                assert_eq!(payload.len(), count * entry_length + if count < 253 { 1 } else { 3 });
                let addr = Addr { count: widen(count), entries, skipped: 0 };
                assert_eq!(Addr::decode(&payload), Ok(addr));
            }
        }
    }

    #[test]
    fn full_addr_is_30003_bytes() {
        assert_eq!(encoded(&entries(MAX_ADDR_TO_SEND, true)).len(), 30_003);
    }

    #[test]
    fn addr_of_no_entries_is_accepted() {
        assert_eq!(encoded(&[]), [0]);
        assert_eq!(Addr::decode(&[0]), Ok(Addr::default()));
    }

    #[test]
    fn only_the_first_1000_entries_are_read() {
        for count in [1001, 2500, 65_536] {
            let all = entries(count, true);
            let addr = Addr::decode(&encoded(&all)).unwrap();
            assert_eq!(addr.count, widen(count));
            assert_eq!(addr.entries, all[..1000]);
        }
    }

    #[test]
    fn entries_that_are_not_ipv4_are_counted_and_skipped() {
        let mut payload = encoded(&entries(4, true));
        // ::ffff:1.0.0.1 becomes ::1, and ::ffff:1.0.0.3 an address of 2001:db8::/32.
        payload[1 + 30 + 12..][..16].copy_from_slice(&std::net::Ipv6Addr::LOCALHOST.octets());
        payload[1 + 90 + 12..][..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        let addr = Addr::decode(&payload).unwrap();
        assert_eq!((addr.count, addr.skipped), (4, 2));
        assert_eq!(addr.entries, [entry(0, Some(1_700_000_000)), entry(2, Some(1_700_000_000))]);
    }

    #[test]
    fn length_that_fits_neither_layout_is_refused() {
        let good = encoded(&entries(2, true));
        let table: [(&[u8], u64, u64); 5] = [
            (&good[..60], 2, 59),
            (&good[..1], 2, 0),
            (&[0, 1], 0, 1),
            (&[1, 2, 3], 1, 2),
            (&good[..31], 2, 30),
        ];
        for (payload, count, came) in table {
            assert_eq!(Addr::decode(payload), Err(DecodeError::AddrLength { count, came }));
        }
        // A product that overflows 64 bits must not wrap around to the length.
        let huge = [&[0xff][..], &(u64::MAX / 30 + 1).to_le_bytes(), &[0; 14]].concat();
        let error = DecodeError::AddrLength { count: u64::MAX / 30 + 1, came: 14 };
        assert_eq!(Addr::decode(&huge), Err(error));
    }

    #[test]
    fn truncated_or_non_canonical_count_is_refused() {
        let cut = |expected, came| DecodeError::Truncated {
            field: "addr count",
            expected,
            came,
            offset: 0,
        };
        assert_eq!(Addr::decode(&[]), Err(cut(1, 0)));
        assert_eq!(Addr::decode(&[0xfd, 1]), Err(cut(3, 2)));
        let long = [&[0xfd, 1, 0][..], &[0; 30]].concat();
        let error = DecodeError::NonCanonical { field: "addr count", value: 1, offset: 0 };
        assert_eq!(Addr::decode(&long), Err(error));
    }

    #[test]
    fn mixed_entries_are_written_with_times() {
        let mixed = [entry(0, None), entry(1, Some(5))];
        let addr = Addr::decode(&encoded(&mixed)).unwrap();
        assert_eq!(addr.entries, [entry(0, Some(0)), entry(1, Some(5))]);
    }
}
