//! `version`: introduces the sender, encoded and decoded.
//!
//! The payload has grown over the years; each field was appended:
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
//! 1. The length of the payload determines which fields are present, never the version number: TRB
//!    sends 99999 and no relay byte.
//! 2. A payload ends at the boundary of a field; a truncated field is an error.
//! 3. At most [`MAX_SUBVERSION_LENGTH`] bytes of a user agent are kept.

use std::net::Ipv4Addr;

use super::error::DecodeError;
use super::payload::PayloadBuffer;
use super::wire::{Reader, Writer, widen};

/// Services, IP and port without a time, as in `version`: 26 bytes.
///
/// ```
/// use watchglass::NetworkAddress;
///
/// let address = NetworkAddress::from_ipv4(1, [192, 0, 2, 1].into(), 8333);
/// assert_eq!(address.ip[10..], [0xff, 0xff, 192, 0, 2, 1]);
/// assert_eq!(address.ipv4(), Some([192, 0, 2, 1].into()));
/// assert_eq!(NetworkAddress::UNSPECIFIED.ipv4(), None);
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct NetworkAddress {
    /// The services of the address, as claimed.
    pub services: u64,
    /// An IPv6 address, or an IPv4 one mapped into it.
    pub ip: [u8; 16],
    /// The port; the only big-endian number on the wire.
    pub port: u16,
}

/// The first message of each side (Bitcoin wiki, "Protocol documentation", version; BIP 14, 37,
/// 60).
///
/// A payload with fewer fields is that of an older node and is decoded as such:
///
/// ```
/// use watchglass::{NetworkAddress, Version};
///
/// let first_of_all = Version {
///     version: 101,
///     services: 1,
///     timestamp: 1_231_731_025,
///     addr_recv: NetworkAddress::UNSPECIFIED,
///     addr_from: None,
///     nonce: None,
///     user_agent: None,
///     user_agent_length: 0,
///     start_height: None,
///     relay: None,
///     trailing: 0,
/// };
/// let mut payload = Vec::new();
/// first_of_all.encode(&mut payload);
/// assert_eq!(payload.len(), 46);
/// assert_eq!(Version::decode(&payload)?, first_of_all);
/// assert!(Version::decode(&payload[..45]).is_err());
/// # Ok::<(), watchglass::DecodeError>(())
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Version {
    /// The protocol version as sent. (A few clients of 2010 sent 10300 for 300.)
    pub version: i32,
    /// The services of the sender: a set of 64 bits.
    pub services: u64,
    /// The sender's clock in seconds since 1970.
    pub timestamp: i64,
    /// The receiver's address, as the sender sees it.
    pub addr_recv: NetworkAddress,
    /// The sender's own address; often all zeros.
    pub addr_from: Option<NetworkAddress>,
    /// A random number by which a node detects a connection to itself.
    pub nonce: Option<u64>,
    /// The name of the software, at most its first [`MAX_SUBVERSION_LENGTH`] bytes. Any bytes: see
    /// [`text`](super::text).
    pub user_agent: Option<Vec<u8>>,
    /// The length of the user agent in bytes, as sent; 0 without one.
    pub user_agent_length: u64,
    /// The height of the sender's chain, as claimed; it may be negative.
    pub start_height: Option<i32>,
    /// Whether to relay transactions at once. Absent means yes (BIP 37).
    pub relay: Option<bool>,
    /// Number of bytes after the last known field.
    pub trailing: u64,
}

/// Maximum length of a user agent that is kept; Bitcoin Core refuses longer ones (net.h).
pub const MAX_SUBVERSION_LENGTH: usize = 256;

/// Number of bytes before the user agent's length: 4 + 8 + 8 + 26 + 26 + 8.
pub(super) const BEFORE_USER_AGENT: usize = 80;
/// Number of bytes after the user agent: height and relay.
pub(super) const BEHIND_USER_AGENT: usize = 5;

impl NetworkAddress {
    /// All zeros: unknown.
    pub const UNSPECIFIED: Self = Self { services: 0, ip: [0; 16], port: 0 };

    /// An IPv4 address, mapped as `::ffff:a.b.c.d`.
    pub fn from_ipv4(services: u64, ip: Ipv4Addr, port: u16) -> Self {
        Self { services, ip: ip.to_ipv6_mapped().octets(), port }
    }

    /// The IPv4 address of `::ffff:a.b.c.d`; `None` for any other (`::1` and `::a.b.c.d` included).
    pub fn ipv4(&self) -> Option<Ipv4Addr> {
        std::net::Ipv6Addr::from(self.ip).to_ipv4_mapped()
    }

    /// Appends the 26 bytes.
    pub(super) fn encode(&self, writer: &mut Writer<'_>) {
        writer.u64(self.services);
        writer.bytes(&self.ip);
        writer.u16_be(self.port);
    }

    /// Reads 26 bytes, or none on error.
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
    /// Appends the payload up to the first field that is `None`. Ignores `user_agent_length` and
    /// `trailing`.
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

    /// Decodes a whole payload.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if it ends before or within `addr_recv`, or within a later field;
    /// [`DecodeError::NonCanonical`] for the user agent's length.
    pub fn decode(payload: &[u8]) -> Result<Self, DecodeError> {
        let mut buffer = PayloadBuffer::for_version(widen(payload.len()));
        buffer.take(payload);
        Self::from_kept(buffer.kept(), widen(payload.len()))
    }

    /// Decodes what a [`PayloadBuffer`] kept of a payload of this length: all but the user agent
    /// beyond [`MAX_SUBVERSION_LENGTH`] and the bytes after the relay byte.
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

    /// Reads the fields after `addr_recv` up to the end of the payload.
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

/// Reads a user agent of which at most [`MAX_SUBVERSION_LENGTH`] bytes are buffered.
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

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    fn full() -> Version {
        Version {
            version: 70016,
            services: 3081,
            timestamp: 1_700_000_000,
            addr_recv: NetworkAddress::from_ipv4(0, Ipv4Addr::new(127, 0, 0, 1), 8333),
            addr_from: Some(NetworkAddress::UNSPECIFIED),
            nonce: Some(42),
            user_agent: Some(b"/Satoshi:31.0.0/".to_vec()),
            user_agent_length: 16,
            start_height: Some(900_000),
            relay: Some(true),
            trailing: 0,
        }
    }

    fn encoded(version: &Version) -> Vec<u8> {
        let mut out = Vec::new();
        version.encode(&mut out);
        out
    }

    fn truncated(field: &'static str, expected: u64, came: u64, offset: u64) -> DecodeError {
        DecodeError::Truncated { field, expected, came, offset }
    }

    #[test]
    fn wire_captures_decode_field_by_field() {
        let trb = Version::decode(&samples::bytes(samples::CAPTURED_TRB)).unwrap();
        let expected = Version {
            version: 99999,
            services: 1,
            timestamp: 1_486_960_163,
            addr_recv: NetworkAddress::from_ipv4(1, Ipv4Addr::new(24, 19, 229, 46), 48001),
            addr_from: Some(NetworkAddress::from_ipv4(1, Ipv4Addr::new(111, 111, 111, 111), 8333)),
            nonce: Some(0x33cb_6a2e_263b_f3b1),
            user_agent: Some(b"/therealbitcoin.org:0.9.99.99/".to_vec()),
            user_agent_length: 30,
            start_height: Some(452_793),
            relay: None,
            trailing: 0,
        };
        assert_eq!(trb, expected);

        let wiki = Version::decode(&samples::payload(samples::WIKI_VERSION_60002)).unwrap();
        assert_eq!((wiki.version, wiki.timestamp), (60002, 1_355_854_353));
        assert_eq!(wiki.nonce, Some(0x6517_e68c_5db3_2e3b));
        assert_eq!(wiki.user_agent.as_deref(), Some(&b"/Satoshi:0.7.2/"[..]));
        assert_eq!((wiki.start_height, wiki.relay), (Some(212_672), None));

        let old = Version::decode(&samples::bytes(samples::WIKI_VERSION_31900)).unwrap();
        assert_eq!(
            old.addr_from,
            Some(NetworkAddress::from_ipv4(1, Ipv4Addr::new(10, 0, 0, 2), 8333))
        );
        assert_eq!(
            (old.user_agent, old.start_height, old.relay),
            (Some(Vec::new()), Some(98_645), None)
        );

        let developer = Version::decode(&samples::bytes(samples::DEVELOPER_VERSION_70002)).unwrap();
        assert_eq!((developer.start_height, developer.relay), (Some(329_167), Some(true)));

        let v6 = Version::decode(&samples::bytes(samples::CAPTURED_IPV6)).unwrap();
        assert_eq!((v6.addr_recv.ipv4(), v6.addr_recv.port), (None, 55165));
        assert_eq!(v6.user_agent.as_deref(), Some(&b"/Satoshi:1.1.1/"[..]));

        let falcon = Version::decode(&samples::bytes(samples::CAPTURED_FALCON)).unwrap();
        assert_eq!((falcon.version, falcon.relay), (70014, None));

        let core = Version::decode(&samples::bytes(samples::COMPOSED_CORE_0_8_6)).unwrap();
        assert_eq!((core.version, core.start_height, core.relay), (70001, Some(0), None));
    }

    #[test]
    fn golden_payloads_encode_to_the_same_bytes() {
        let payloads = [
            samples::payload(samples::WIKI_VERSION_60002),
            samples::bytes(samples::WIKI_VERSION_31900),
            samples::bytes(samples::DEVELOPER_VERSION_70002),
            samples::bytes(samples::CAPTURED_TRB),
            samples::bytes(samples::CAPTURED_FALCON),
            samples::bytes(samples::CAPTURED_IPV6),
            samples::bytes(samples::COMPOSED_CORE_0_8_6),
        ];
        for payload in payloads {
            assert_eq!(encoded(&Version::decode(&payload).unwrap()), payload);
        }
    }

    #[test]
    fn trb_payload_of_115_bytes_without_relay_byte_is_accepted() {
        let payload = samples::bytes(samples::CAPTURED_TRB);
        // 4 + 8 + 8 + 26 + 26 + 8, 1 + 30, 4: the 85 bytes around a user agent of 30.
        assert_eq!(payload.len(), 115);
        assert_eq!(Version::decode(&payload).unwrap().relay, None);
    }

    #[test]
    fn payload_may_end_at_each_field_after_addr_recv() {
        let whole = encoded(&full());
        let boundaries = [46, 72, 80, 97, 101, 102];
        for end in 0..=whole.len() {
            let decoded = Version::decode(&whole[..end]);
            assert_eq!(decoded.is_ok(), boundaries.contains(&end), "{end} bytes: {decoded:?}");
        }
        let at = |end: usize| Version::decode(&whole[..end]).unwrap();
        let no_relay = Version { relay: None, ..full() };
        assert_eq!(at(101), no_relay);
        let no_height = Version { start_height: None, ..no_relay };
        assert_eq!(at(97), no_height);
        let no_agent = Version { user_agent: None, user_agent_length: 0, ..no_height };
        assert_eq!(at(80), no_agent);
        let no_nonce = Version { nonce: None, ..no_agent };
        assert_eq!(at(72), no_nonce);
        let shortest = Version { addr_from: None, ..no_nonce };
        assert_eq!(at(46), shortest);
        for version in [full(), no_relay_of(&full()), shortest] {
            assert_eq!(Version::decode(&encoded(&version)), Ok(version));
        }
    }

    fn no_relay_of(version: &Version) -> Version {
        Version { relay: None, ..version.clone() }
    }

    #[test]
    fn truncated_field_is_named() {
        let whole = encoded(&full());
        let table = [
            (0, truncated("version", 4, 0, 0)),
            (3, truncated("version", 4, 3, 0)),
            (11, truncated("services", 8, 7, 4)),
            (12, truncated("timestamp", 8, 0, 12)),
            (20, truncated("addr_recv", 26, 0, 20)),
            (45, truncated("addr_recv", 26, 25, 20)),
            (47, truncated("addr_from", 26, 1, 46)),
            (71, truncated("addr_from", 26, 25, 46)),
            (79, truncated("nonce", 8, 7, 72)),
            (81, truncated("user_agent", 16, 0, 81)),
            (96, truncated("user_agent", 16, 15, 81)),
            (100, truncated("start_height", 4, 3, 97)),
        ];
        for (end, error) in table {
            assert_eq!(Version::decode(&whole[..end]), Err(error), "{end} bytes");
        }
    }

    #[test]
    fn nonzero_relay_byte_means_yes_and_trailing_bytes_are_counted() {
        let mut payload = encoded(&full());
        for (byte, relay) in [(0, false), (1, true), (2, true), (0xff, true)] {
            *payload.last_mut().unwrap() = byte;
            assert_eq!(Version::decode(&payload).unwrap().relay, Some(relay));
        }
        payload.extend([1; 70_000]);
        let version = Version::decode(&payload).unwrap();
        assert_eq!((version.relay, version.trailing), (Some(true), 70_000));
    }

    #[test]
    fn layout_does_not_depend_on_the_version_number() {
        for number in
            [i32::MIN, -1, 0, 105, 106, 209, 300, 10300, 31800, 70001, 70016, 99999, i32::MAX]
        {
            let version = Version { version: number, ..full() };
            assert_eq!(Version::decode(&encoded(&version)), Ok(version.clone()));
            let bare = no_relay_of(&version);
            assert_eq!(Version::decode(&encoded(&bare)), Ok(bare));
        }
    }

    #[test]
    fn long_user_agent_is_truncated_and_later_fields_are_read() {
        for length in [0_usize, 1, 252, 253, 255, 256, 257, 65_535, 65_536, 1_000_000] {
            let agent: Vec<u8> = (0..=255).cycle().take(length).collect();
            let sent = Version {
                user_agent: Some(agent.clone()),
                user_agent_length: widen(length),
                ..full()
            };
            let mut payload = encoded(&sent);
            payload.extend(b"xyz");
            let kept = agent[..length.min(MAX_SUBVERSION_LENGTH)].to_vec();
            let expected = Version { user_agent: Some(kept), trailing: 3, ..sent };
            assert_eq!(Version::decode(&payload), Ok(expected), "{length}");
        }
    }

    #[test]
    fn user_agent_longer_than_the_payload_is_refused() {
        let mut payload = encoded(&full())[..80].to_vec();
        payload.extend([0xff; 9]);
        payload.extend([b'a'; 1000]);
        assert_eq!(Version::decode(&payload), Err(truncated("user_agent", u64::MAX, 1000, 89)));
        let mut payload = encoded(&full())[..80].to_vec();
        payload.extend([0xfd, 0xe9, 0x03]);
        payload.extend([b'a'; 1000]);
        assert_eq!(Version::decode(&payload), Err(truncated("user_agent", 1001, 1000, 83)));
    }

    #[test]
    fn user_agent_length_in_a_longer_form_is_refused() {
        let mut payload = encoded(&full())[..80].to_vec();
        payload.extend([0xfd, 3, 0]);
        payload.extend(b"/a/");
        let error = DecodeError::NonCanonical { field: "user_agent length", value: 3, offset: 80 };
        assert_eq!(Version::decode(&payload), Err(error));
    }

    #[test]
    fn only_mapped_addresses_are_ipv4() {
        let ip = Ipv4Addr::new(1, 2, 3, 4);
        assert_eq!(NetworkAddress::from_ipv4(0, ip, 1).ipv4(), Some(ip));
        assert_eq!(NetworkAddress::UNSPECIFIED.ipv4(), None);
        for other in ["::1", "::1.2.3.4", "2001:db8::1", "64:ff9b::1.2.3.4", "::fffe:1.2.3.4"] {
            let ip = other.parse::<std::net::Ipv6Addr>().unwrap().octets();
            assert_eq!(NetworkAddress { services: 0, ip, port: 1 }.ipv4(), None, "{other}");
        }
    }
}
