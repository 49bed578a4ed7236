//! `version`: who the far end says it is.
//!
//! Layer 0. Owns: [`Version`] and [`NetworkAddress`], packed and unpacked. Must not touch: what the fields mean to a crawler.
//!
//! The payload has grown over the years, and each field was added at the end:
//!
//! | bytes | field | since |
//! |---|---|---|
//! | 4, 8, 8 | version, services, timestamp | 2009 |
//! | 26 | addr_recv | 2009 |
//! | 26, 8 | addr_from, nonce | version 106 |
//! | CompactSize + n | user_agent | version 106 (BIP 14 gave it its form) |
//! | 4 | start_height | version 209 |
//! | 1 | relay | version 70001 (BIP 37); absent at TRB, Gocoin, Core 0.8 and others of any number |
//!
//! Invariants:
//! 1. Which fields are there is told by what is left of the payload, never by the version number: TRB says 99999 and sends no relay byte.
//! 2. A payload ends at a field's boundary; a field cut in its middle is an error.
//! 3. Of a user agent of any length, at most [`MAX_SUBVERSION_LENGTH`] bytes are kept.

use std::net::Ipv4Addr;

use super::error::DecodeError;
use super::keep::Keeper;
use super::wire::{Reader, Writer, widen};

/// Services, IP and port as `version` carries them, without a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetworkAddress {
    /// The services that the address is said to offer.
    pub services: u64,
    /// An IPv6 address, or an IPv4 one mapped into it.
    pub ip: [u8; 16],
    /// The port.
    pub port: u16,
}

/// The message that opens a conversation, each side sending one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The protocol version as sent. (The number 10300 meant 300 in a few clients of 2010; it is kept as sent.)
    pub version: i32,
    /// What the sender offers: a set of 64 bits.
    pub services: u64,
    /// The sender's clock, seconds since 1970.
    pub timestamp: i64,
    /// The far end as the sender sees it.
    pub addr_recv: NetworkAddress,
    /// The sender as it sees itself; often all zeros.
    pub addr_from: Option<NetworkAddress>,
    /// A random number by which a node knows a connection to itself.
    pub nonce: Option<u64>,
    /// The software's name, at most its first [`MAX_SUBVERSION_LENGTH`] bytes: not text, see [`text`](super::text).
    pub user_agent: Option<Vec<u8>>,
    /// How long the user agent was as sent; 0 if none was.
    pub user_agent_length: u64,
    /// The height of the sender's chain.
    pub start_height: Option<i32>,
    /// Whether transactions shall be announced at once. Not sent means yes (BIP 37).
    pub relay: Option<bool>,
    /// How many bytes came behind the last field that is known.
    pub trailing: u64,
}

/// How much of a user agent is kept; Bitcoin Core sends and accepts no longer one (net.h).
pub const MAX_SUBVERSION_LENGTH: usize = 256;

/// The bytes before the user agent's length: 4 + 8 + 8 + 26 + 26 + 8.
pub(super) const BEFORE_USER_AGENT: usize = 80;
/// The bytes behind the user agent: height and relay.
pub(super) const BEHIND_USER_AGENT: usize = 5;

impl NetworkAddress {
    /// All zeros: the sender does not say.
    pub const UNSPECIFIED: Self = Self { services: 0, ip: [0; 16], port: 0 };

    /// An IPv4 address, mapped as `::ffff:a.b.c.d`.
    pub fn from_ipv4(services: u64, ip: Ipv4Addr, port: u16) -> Self {
        Self { services, ip: ip.to_ipv6_mapped().octets(), port }
    }

    /// The IPv4 address if it is one (`::ffff:a.b.c.d`; `::1` and `::a.b.c.d` are none).
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        std::net::Ipv6Addr::from(self.ip).to_ipv4_mapped()
    }

    /// Appends the 26 bytes.
    pub(super) fn encode(&self, writer: &mut Writer<'_>) {
        writer.u64(self.services);
        writer.bytes(&self.ip);
        writer.u16_be(self.port);
    }

    /// Reads 26 bytes, all of them or none.
    pub(super) fn decode(
        reader: &mut Reader<'_>,
        field: &'static str,
    ) -> Result<Self, DecodeError> {
        let mut inner = Reader::new(reader.bytes(26, field)?);
        Ok(Self {
            services: inner.u64(field)?,
            ip: inner.array(field)?,
            port: inner.u16_be(field)?,
        })
    }
}

impl Version {
    /// Appends the payload. It stops at the first field that is `None`; `user_agent_length` and `trailing` are not looked at.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.i32(self.version);
        writer.u64(self.services);
        writer.i64(self.timestamp);
        self.addr_recv.encode(&mut writer);
        let Some(addr_from) = self.addr_from else { return };
        addr_from.encode(&mut writer);
        let Some(nonce) = self.nonce else { return };
        writer.u64(nonce);
        let Some(user_agent) = &self.user_agent else { return };
        writer.compact_size(widen(user_agent.len()));
        writer.bytes(user_agent);
        let Some(start_height) = self.start_height else { return };
        writer.i32(start_height);
        let Some(relay) = self.relay else { return };
        writer.u8(u8::from(relay));
    }

    /// Takes a whole payload apart.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if it ends before or within `addr_recv`, or within a later field;
    /// [`DecodeError::NonCanonical`] for the user agent's length.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut keeper = Keeper::for_version(widen(payload.len()));
        keeper.take(payload);
        Self::from_kept(keeper.kept(), widen(payload.len()))
    }

    /// Takes apart what a [`Keeper`] left of a payload of this length: all but the user agent's bytes beyond
    /// [`MAX_SUBVERSION_LENGTH`] and those behind the relay byte.
    pub(super) fn from_kept(kept: &[u8], length: u64) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(kept);
        let mut version = Self {
            version: reader.i32("version")?,
            services: reader.u64("services")?,
            timestamp: reader.i64("timestamp")?,
            addr_recv: NetworkAddress::decode(&mut reader, "addr_recv")?,
            addr_from: None,
            nonce: None,
            user_agent: None,
            user_agent_length: 0,
            start_height: None,
            relay: None,
            trailing: 0,
        };
        version.read_tail(&mut reader, length)?;
        Ok(version)
    }

    /// Reads what came behind `addr_recv`, up to the boundary at which the payload ends.
    fn read_tail(&mut self, reader: &mut Reader<'_>, length: u64) -> Result<(), DecodeError> {
        if reader.is_empty() {
            return Ok(());
        }
        self.addr_from = Some(NetworkAddress::decode(reader, "addr_from")?);
        if reader.is_empty() {
            return Ok(());
        }
        self.nonce = Some(reader.u64("nonce")?);
        if reader.is_empty() {
            return Ok(());
        }
        self.user_agent_length = reader.compact_size("user_agent length")?;
        self.user_agent = Some(read_user_agent(reader, self.user_agent_length, length)?);
        if reader.is_empty() {
            return Ok(());
        }
        self.start_height = Some(reader.i32("start_height")?);
        if reader.is_empty() {
            return Ok(());
        }
        self.relay = Some(reader.u8("relay")? != 0);
        self.trailing = length.saturating_sub(reader.offset());
        Ok(())
    }
}

/// Reads a user agent of which no more than [`MAX_SUBVERSION_LENGTH`] bytes are at hand.
fn read_user_agent(
    reader: &mut Reader<'_>,
    claimed: u64,
    length: u64,
) -> Result<Vec<u8>, DecodeError> {
    let left = length.saturating_sub(reader.offset());
    if claimed > left {
        let offset = reader.offset();
        return Err(DecodeError::Truncated {
            field: "user_agent",
            expected: claimed,
            came: left,
            offset,
        });
    }
    let kept = usize::try_from(claimed).unwrap_or(usize::MAX).min(MAX_SUBVERSION_LENGTH);
    let user_agent = reader.bytes(kept, "user_agent")?.to_vec();
    reader.skip_absent(claimed.saturating_sub(widen(kept)));
    Ok(user_agent)
}
