//! The header of every message: magic, command, length, checksum.
//!
//! Source: Bitcoin Core protocol.h `CMessageHeader`. Since 2012-02-20 every header has a checksum,
//! that of `version` included.

use std::fmt;
use std::str::FromStr;

use sha2::{Digest, Sha256};

use super::error::DecodeError;
use super::wire::{Reader, Writer};

/// The first four bytes of every message of a network, in wire order.
///
/// Its text form is 8 hex digits in that order (Bitcoin Core kernel/chainparams.cpp
/// `pchMessageStart`).
///
/// ```
/// use watchglass::Magic;
///
/// let test_network: Magic = "0b110907".parse()?;
/// assert_eq!(test_network, Magic([0x0b, 0x11, 0x09, 0x07]));
/// assert_eq!(Magic::MAIN.to_string(), "f9beb4d9");
/// # Ok::<(), watchglass::ParseMagicError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Magic(pub [u8; 4]);

/// The type of a message: up to twelve ASCII characters, padded with zero bytes (Bitcoin Core
/// protocol.h `CMessageHeader::COMMAND_SIZE`).
///
/// A peer may send any bytes; `Display` escapes them.
///
/// ```
/// use watchglass::Command;
///
/// assert_eq!(Command::new("ping"), Some(Command::PING));
/// assert_eq!(Command::new("much too long a name"), None);
/// assert_eq!(Command(*b"\x1b[2J\0\0\0\0\0\0\0\0").to_string(), r"\x1b[2J");
/// ```
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Command(pub [u8; 12]);

/// The header: 24 bytes before every payload (Bitcoin wiki, "Protocol documentation", Message
/// structure). Users of [`Decoder`](super::Decoder) and [`encode_message`](super::encode_message)
/// do not need it.
///
/// ```
/// use watchglass::{Command, HEADER_LENGTH, Header, Magic};
///
/// let header = Header::of(Magic::MAIN, Command::VERACK, &[]);
/// let mut bytes = Vec::new();
/// header.encode(&mut bytes);
/// assert_eq!(bytes.len(), HEADER_LENGTH);
/// assert_eq!(bytes[20..], [0x5d, 0xf6, 0xe0, 0xe2]);
/// assert_eq!(Header::decode(&bytes)?, header);
/// # Ok::<(), watchglass::DecodeError>(())
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Header {
    /// The network.
    pub magic: Magic,
    /// The type of the payload.
    pub command: Command,
    /// The length of the payload in bytes; little-endian on the wire.
    pub length: u32,
    /// The first four bytes of the payload's double SHA-256.
    pub checksum: [u8; 4],
}

/// The error of parsing a [`Magic`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParseMagicError;

/// The length of a header in bytes.
pub const HEADER_LENGTH: usize = 24;

/// Maximum length of a payload in bytes (Bitcoin Core net.h). A header that announces more ends the
/// stream with [`DecodeError::TooLong`].
pub const MAX_PROTOCOL_MESSAGE_LENGTH: u32 = 4_000_000;

impl Magic {
    /// The main network (Bitcoin Core kernel/chainparams.cpp).
    pub const MAIN: Self = Self([0xf9, 0xbe, 0xb4, 0xd9]);
}

impl Command {
    /// `version`: see [`Version`](super::Version).
    pub const VERSION: Self = Self(*b"version\0\0\0\0\0");
    /// `verack`: accepts a `version`; no payload.
    pub const VERACK: Self = Self(*b"verack\0\0\0\0\0\0");
    /// `getaddr`: requests addresses; no payload.
    pub const GETADDR: Self = Self(*b"getaddr\0\0\0\0\0");
    /// `addr`: see [`Addr`](super::Addr).
    pub const ADDR: Self = Self(*b"addr\0\0\0\0\0\0\0\0");
    /// `ping`: a keep-alive; with a nonce of 8 bytes since version 60001 (BIP 31).
    pub const PING: Self = Self(*b"ping\0\0\0\0\0\0\0\0");
    /// `pong`: the answer to `ping`, with the same nonce (BIP 31). TRB bans for it.
    pub const PONG: Self = Self(*b"pong\0\0\0\0\0\0\0\0");

    /// The command with this name; `None` if it is empty, longer than 12 bytes or not printable
    /// ASCII.
    pub fn new(name: &str) -> Option<Self> {
        if name.is_empty() || !name.bytes().all(|byte| matches!(byte, 0x20..=0x7e)) {
            return None;
        }
        let mut bytes = [0; 12];
        bytes.get_mut(..name.len())?.copy_from_slice(name.as_bytes());
        Some(Self(bytes))
    }
}

impl Header {
    /// The header of this payload, which must not be longer than [`MAX_PROTOCOL_MESSAGE_LENGTH`].
    pub fn of(magic: Magic, command: Command, payload: &[u8]) -> Self {
        let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
        Self { magic, command, length, checksum: checksum(payload) }
    }

    /// Appends the 24 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let mut writer = Writer::new(out);
        writer.bytes(&self.magic.0);
        writer.bytes(&self.command.0);
        writer.u32(self.length);
        writer.bytes(&self.checksum);
    }

    /// Decodes 24 bytes without validating them.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if there are fewer.
    pub fn decode(bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut reader = Reader::new(bytes);
        Ok(Self {
            magic: Magic(reader.array("magic")?),
            command: Command(reader.array("command")?),
            length: reader.u32("length")?,
            checksum: reader.array("checksum")?,
        })
    }
}

/// The first four bytes of the payload's double SHA-256.
///
/// ```
/// // Bitcoin wiki, "Protocol documentation", Hashes.
/// assert_eq!(watchglass::checksum(b"hello"), [0x95, 0x95, 0xc9, 0xdf]);
/// ```
pub fn checksum(payload: &[u8]) -> [u8; 4] {
    let mut hasher = Sha256::new();
    hasher.update(payload);
    finish_checksum(hasher)
}

/// The checksum of the hasher's input.
pub(super) fn finish_checksum(hasher: Sha256) -> [u8; 4] {
    let digest: [u8; 32] = Sha256::digest(hasher.finalize()).into();
    let [a, b, c, d, ..] = digest;
    [a, b, c, d]
}

impl FromStr for Magic {
    type Err = ParseMagicError;

    fn from_str(text: &str) -> Result<Self, ParseMagicError> {
        // `from_str_radix` would accept a sign.
        if text.len() != 8 || !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(ParseMagicError);
        }
        u32::from_str_radix(text, 16)
            .map(|number| Self(number.to_be_bytes()))
            .map_err(|_| ParseMagicError)
    }
}

impl fmt::Display for Magic {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:08x}", u32::from_be_bytes(self.0))
    }
}

/// Omits trailing zero bytes; escapes the backslash and bytes that are not printable ASCII as
/// `\xNN`.
impl fmt::Display for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let end =
            self.0.iter().rposition(|byte| *byte != 0).map_or(0, |last| last.saturating_add(1));
        for byte in self.0.iter().take(end) {
            match byte {
                0x21..=0x7e if *byte != b'\\' => write!(f, "{}", char::from(*byte))?,
                _ => write!(f, "\\x{byte:02x}")?,
            }
        }
        Ok(())
    }
}

impl fmt::Debug for Command {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Command({self})")
    }
}

impl fmt::Display for ParseMagicError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("expected 8 hex digits")
    }
}

impl std::error::Error for ParseMagicError {}

#[cfg(test)]
mod tests {
    use super::super::samples;
    use super::*;

    #[test]
    fn golden_headers_decode_and_encode_to_the_same_bytes() {
        let table = [
            (samples::WIKI_VERSION_60002, Command::VERSION),
            (samples::WIKI_VERACK, Command::VERACK),
            (samples::WIKI_ADDR, Command::ADDR),
            (samples::DEVELOPER_PING, Command::PING),
        ];
        for (frame, command) in table {
            let frame = samples::bytes(frame);
            let (head, payload) = frame.split_at(HEADER_LENGTH);
            let header = Header::decode(head).unwrap();
            assert_eq!(header, Header::of(Magic::MAIN, command, payload));
            let mut out = Vec::new();
            header.encode(&mut out);
            assert_eq!(out, head);
        }
    }

    #[test]
    fn checksum_is_the_start_of_the_double_sha_256() {
        // Bitcoin wiki, "Protocol documentation", Hashes: hello.
        assert_eq!(checksum(b"hello"), [0x95, 0x95, 0xc9, 0xdf]);
        assert_eq!(checksum(b""), [0x5d, 0xf6, 0xe0, 0xe2]);
        let developer = samples::bytes(samples::DEVELOPER_VERSION_70002);
        assert_eq!(checksum(&developer), [0x5f, 0x1a, 0x69, 0xd2]);
    }

    #[test]
    fn short_header_is_truncated() {
        let cut = DecodeError::Truncated { field: "checksum", expected: 4, came: 3, offset: 20 };
        assert_eq!(Header::decode(&[0; 23]), Err(cut));
    }

    #[test]
    fn magic_is_eight_hex_digits() {
        assert_eq!("f9beb4d9".parse(), Ok(Magic::MAIN));
        assert_eq!("F9BEB4D9".parse(), Ok(Magic::MAIN));
        assert_eq!("00000001".parse(), Ok(Magic([0, 0, 0, 1])));
        assert_eq!(Magic([0, 0, 0, 1]).to_string(), "00000001");
        for bad in
            ["", "f9beb4d", "f9beb4d90", "0xf9beb4", "+f9beb4d", "f9beb4dg", "f9 beb4d", "é9beb4d"]
        {
            assert_eq!(bad.parse::<Magic>(), Err(ParseMagicError), "{bad}");
        }
    }

    #[test]
    fn command_names_are_one_to_twelve_printable_characters() {
        assert_eq!(Command::new("version"), Some(Command::VERSION));
        assert_eq!(Command::new("twelve chars"), Some(Command(*b"twelve chars")));
        for bad in ["", "thirteenchars", "a\0b", "a\nb", "é"] {
            assert_eq!(Command::new(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn odd_commands_are_shown_escaped() {
        let table: [(&[u8; 12], &str); 5] = [
            (b"sendaddrv2\0\0", "sendaddrv2"),
            (b"\0\0\0\0\0\0\0\0\0\0\0\0", ""),
            (b"a\0b\0\0\0\0\0\0\0\0\0", r"a\x00b"),
            (b"\x1b[2J\n \\\xff\0\0\0\0", r"\x1b[2J\x0a\x20\x5c\xff"),
            (b"abcdefghijkl", "abcdefghijkl"),
        ];
        for (bytes, shown) in table {
            assert_eq!(Command(*bytes).to_string(), shown);
        }
    }
}
