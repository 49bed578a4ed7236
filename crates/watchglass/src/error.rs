//! Decoding errors: what was expected, what was received, and at which offset.
//!
//! Invariant: an error is plain data, so that it can be compared, stored and counted.

use std::fmt;

use super::header::{Command, MAX_PROTOCOL_MESSAGE_LENGTH, Magic};

/// A violation of the protocol in bytes from the network.
///
/// ```
/// use watchglass::{Decoder, Magic};
///
/// let error = Decoder::new(Magic::MAIN).decode(&mut &b"SSH-2.0"[..]).unwrap_err();
/// assert!(error.is_foreign());
/// assert_eq!(error.to_string(), "expected magic f9beb4d9, got byte 53 at offset 0");
/// ```
///
/// [`WrongMagic`](Self::WrongMagic) and [`TooLong`](Self::TooLong) end a stream, since the start of
/// the next message is unknown. All others affect one message, and the stream continues after it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// A frame does not start with the network's magic.
    WrongMagic {
        /// The magic of our network.
        expected: Magic,
        /// The first byte that differs.
        came: u8,
        /// The position of that byte in the stream.
        offset: u64,
    },
    /// A header announces more than [`MAX_PROTOCOL_MESSAGE_LENGTH`] bytes of payload.
    TooLong {
        /// The command of that header.
        command: Command,
        /// The length that it announces.
        length: u32,
        /// The position of the length in the stream.
        offset: u64,
    },
    /// The payload's checksum is not that of the header.
    WrongChecksum {
        /// The checksum in the header.
        expected: [u8; 4],
        /// The checksum of the payload.
        came: [u8; 4],
    },
    /// The payload ends within a field, or before a mandatory one.
    Truncated {
        /// The field.
        field: &'static str,
        /// The length of the field in bytes.
        expected: u64,
        /// Number of bytes left.
        came: u64,
        /// The position of the field in the payload.
        offset: u64,
    },
    /// A `CompactSize` is not in its shortest form; Bitcoin Core refuses it as well.
    NonCanonical {
        /// The field.
        field: &'static str,
        /// The number that it encodes.
        value: u64,
        /// The position of the field in the payload.
        offset: u64,
    },
    /// The length of an `addr` payload fits neither `count` entries of 30 bytes nor of 26.
    AddrLength {
        /// Number of entries announced.
        count: u64,
        /// Number of bytes after the count.
        came: u64,
    },
}

impl DecodeError {
    /// Whether the first bytes of the stream are not this network's: the peer speaks another
    /// protocol.
    ///
    /// All other errors are faults of a peer that speaks this one, a wrong magic after a valid
    /// message included.
    pub fn is_foreign(&self) -> bool {
        matches!(self, Self::WrongMagic { offset: 0..4, .. })
    }
}

impl fmt::Display for DecodeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::WrongMagic { expected, came, offset } => {
                write!(f, "expected magic {expected}, got byte {came:02x} at offset {offset}")
            }
            Self::TooLong { command, length, offset } => write!(
                f,
                "expected at most {MAX_PROTOCOL_MESSAGE_LENGTH} bytes of payload, \
                 got {length} of {command} at offset {offset}"
            ),
            Self::WrongChecksum { expected, came } => write!(
                f,
                "expected checksum {:08x}, got {:08x}",
                u32::from_be_bytes(*expected),
                u32::from_be_bytes(*came)
            ),
            Self::Truncated { field, expected, came, offset } => {
                write!(f, "expected {expected} bytes of {field}, got {came} at offset {offset}")
            }
            Self::NonCanonical { field, value, offset } => {
                write!(
                    f,
                    "expected the shortest form of {field}, got {value} in a longer one \
                 at offset {offset}"
                )
            }
            Self::AddrLength { count, came } => {
                write!(f, "expected {count} addr entries of 30 or 26 bytes, got {came} bytes")
            }
        }
    }
}

impl std::error::Error for DecodeError {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_first_bytes_can_be_foreign() {
        let wrong = |offset| DecodeError::WrongMagic { expected: Magic::MAIN, came: b'H', offset };
        assert!(wrong(0).is_foreign());
        assert!(wrong(3).is_foreign());
        assert!(!wrong(24).is_foreign());
        let long = DecodeError::TooLong { command: Command::VERSION, length: u32::MAX, offset: 16 };
        assert!(!long.is_foreign());
    }

    #[test]
    fn errors_show_what_was_expected_and_received() {
        let table = [
            (
                DecodeError::WrongMagic { expected: Magic::MAIN, came: b'H', offset: 0 },
                "expected magic f9beb4d9, got byte 48 at offset 0",
            ),
            (
                DecodeError::TooLong { command: Command::ADDR, length: 4_000_001, offset: 16 },
                "expected at most 4000000 bytes of payload, got 4000001 of addr at offset 16",
            ),
            (
                DecodeError::WrongChecksum { expected: [0, 1, 2, 3], came: [0xff; 4] },
                "expected checksum 00010203, got ffffffff",
            ),
            (
                DecodeError::Truncated { field: "nonce", expected: 8, came: 3, offset: 72 },
                "expected 8 bytes of nonce, got 3 at offset 72",
            ),
            (
                DecodeError::NonCanonical { field: "addr count", value: 5, offset: 0 },
                "expected the shortest form of addr count, got 5 in a longer one at offset 0",
            ),
            (
                DecodeError::AddrLength { count: 2, came: 59 },
                "expected 2 addr entries of 30 or 26 bytes, got 59 bytes",
            ),
        ];
        for (error, text) in table {
            assert_eq!(error.to_string(), text);
        }
    }
}
