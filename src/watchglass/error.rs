//! What was wrong with bytes from the network: expected, came, and at which offset.
//!
//! Layer 0. Owns: [`DecodeError`]. Must not touch: anything outside this folder.
//!
//! Invariant: an error is plain data, so that it can be compared, kept and counted.

use std::fmt;

use super::header::{Command, MAX_PROTOCOL_MESSAGE_LENGTH, Magic};

/// Says what was wrong with bytes from the network.
///
/// ```
/// use bitdash::watchglass::{Decoder, Magic};
///
/// let error = Decoder::new(Magic::MAIN).decode(&mut &b"SSH-2.0"[..]).unwrap_err();
/// assert!(error.is_foreign());
/// assert_eq!(error.to_string(), "expected magic f9beb4d9, got byte 53 at offset 0");
/// ```
///
/// [`WrongMagic`](Self::WrongMagic) and [`TooLong`](Self::TooLong) end a stream: where the next
/// message begins is not known any more. All others concern one message, and the stream goes on
/// behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum DecodeError {
    /// A frame does not begin with the network's magic.
    WrongMagic {
        /// The magic of our network.
        expected: Magic,
        /// The first byte that differs.
        came: u8,
        /// Where that byte stands, counted from the start of the stream.
        offset: u64,
    },
    /// A header announces more than [`MAX_PROTOCOL_MESSAGE_LENGTH`] bytes of payload.
    TooLong {
        /// The command of that header.
        command: Command,
        /// The length that it announces.
        length: u32,
        /// Where the length stands, counted from the start of the stream.
        offset: u64,
    },
    /// The payload's double SHA-256 does not begin with the header's checksum.
    WrongChecksum {
        /// What the header says.
        expected: [u8; 4],
        /// What the payload gives.
        came: [u8; 4],
    },
    /// The payload ends within a field, or before one that must be there.
    Truncated {
        /// The field.
        field: &'static str,
        /// How many bytes it takes.
        expected: u64,
        /// How many were left.
        came: u64,
        /// Where the field begins in the payload.
        offset: u64,
    },
    /// A `CompactSize` is written longer than it need be, which Bitcoin Core refuses, too.
    NonCanonical {
        /// The field.
        field: &'static str,
        /// The number as written.
        value: u64,
        /// Where the field begins in the payload.
        offset: u64,
    },
    /// An `addr` payload is neither `count` entries of 30 bytes long nor of 26.
    AddrLength {
        /// How many entries the payload announces.
        count: u64,
        /// How many bytes come after that number.
        came: u64,
    },
}

impl DecodeError {
    /// Whether the very first bytes of the stream are not this network's: the far end speaks
    /// something else.
    ///
    /// All other errors are faults of somebody who does speak it. A wrong magic behind a good
    /// message is one of these.
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
    fn only_foreign_first_bytes_are_another_network() {
        let wrong = |offset| DecodeError::WrongMagic { expected: Magic::MAIN, came: b'H', offset };
        assert!(wrong(0).is_foreign());
        assert!(wrong(3).is_foreign());
        assert!(!wrong(24).is_foreign());
        let long = DecodeError::TooLong { command: Command::VERSION, length: u32::MAX, offset: 16 };
        assert!(!long.is_foreign());
    }

    #[test]
    fn errors_say_what_was_expected_and_what_came() {
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
