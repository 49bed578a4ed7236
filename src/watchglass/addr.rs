//! `addr`: the addresses that a node tells of.
//!
//! Layer 0. Owns: [`Addr`], packed and unpacked, in both layouts. Must not touch: which addresses are worth a visit.
//!
//! The payload is a `CompactSize` and that many entries, with a time (30 bytes) or, to and from versions below 31402, without (26 bytes).
//!
//! Invariants:
//! 1. Lengths are checked before the first entry is read: which layout it is follows from the length alone.
//! 2. No more than [`MAX_ADDR_TO_SEND`] entries are read of a payload, however many it announces.
//! 3. `entries.len() + skipped` is the number of entries read.

use std::net::Ipv4Addr;

use super::error::DecodeError;
use super::keep::Keeper;
use super::version::NetworkAddress;
use super::wire::{Reader, Writer, widen};

/// One address that a node tells of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct AddrEntry {
    /// When somebody last saw it alive, seconds since 1970, as claimed; `None` in the layout without times.
    pub time: Option<u32>,
    /// The services that it is said to offer.
    pub services: u64,
    /// The IPv4 address.
    pub ip: Ipv4Addr,
    /// The port.
    pub port: u16,
}

/// The addresses of one `addr` message.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Addr {
    /// How many entries the message holds, as sent.
    pub count: u64,
    /// The IPv4 entries of its first [`MAX_ADDR_TO_SEND`].
    pub entries: Vec<AddrEntry>,
    /// How many of those read are not IPv4.
    pub skipped: usize,
}

/// The most entries that a node sends in one `addr` message (Bitcoin Core net_processing.cpp).
pub const MAX_ADDR_TO_SEND: usize = 1000;

/// What the front of a payload and its length tell of the rest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Layout {
    pub(super) count: u64,
    timed: bool,
}

impl Addr {
    /// Takes a whole payload apart.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] or [`DecodeError::NonCanonical`] for the count, [`DecodeError::AddrLength`] if the rest
    /// is neither that many entries with times nor without.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut keeper = Keeper::for_addr(widen(payload.len()));
        keeper.take(payload);
        keeper.addr()
    }

    /// Appends a payload of these entries: with times if any of them has one (those without one then say 0).
    ///
    /// More than [`MAX_ADDR_TO_SEND`] are not refused here, but by whoever receives them.
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

    /// Takes apart the entries that were kept of a payload.
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
    /// Reads the count off the front of a payload of this length.
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

    /// How many entries are read.
    fn read(self) -> usize {
        usize::try_from(self.count).unwrap_or(usize::MAX).min(MAX_ADDR_TO_SEND)
    }

    /// How many bytes of entries are kept.
    pub(super) fn kept(self) -> usize {
        self.read().saturating_mul(if self.timed { 30 } else { 26 })
    }
}
