//! How a probe ended: the contract's words, and which error of the operating system means which of them.
//!
//! Layer 1: plain data and pure functions. A fault of our own side is never an outcome.

use std::fmt;
use std::io;
use std::str::FromStr;

/// How a probe ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    /// A valid `version` arrived, whatever happened afterwards.
    Responded = 0,
    /// The connection was refused.
    Refused = 1,
    /// The network said that the address cannot be reached.
    Unreachable = 2,
    /// No connection in time.
    ConnectTimeout = 3,
    /// Connected, but no `version` in time.
    HandshakeTimeout = 4,
    /// Accepted, then closed or reset before `version`: most likely full, or it bans us.
    Closed = 5,
    /// Bytes that are no message of this network, or our own nonce back.
    NotBitcoin = 6,
    /// This network's magic, but a broken `version` or header, or a length above 4,000,000.
    Malformed = 7,
}

/// A fault of our own side: says nothing about the address, which is put back.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// No file descriptor left (EMFILE, ENFILE).
    Descriptors,
    /// No local port or buffer memory left (EADDRNOTAVAIL, ENOBUFS, ENOMEM, EAGAIN on connect).
    Ports,
    /// Our own line to the world is down (ENETUNREACH, ENETDOWN).
    Line,
    /// Our own rules forbid the connection (EPERM, EACCES, EINVAL: a local firewall or route).
    Forbidden,
}

impl Outcome {
    /// Every outcome, in the order of their codes.
    pub const ALL: [Self; 8] = [
        Self::Responded,
        Self::Refused,
        Self::Unreachable,
        Self::ConnectTimeout,
        Self::HandshakeTimeout,
        Self::Closed,
        Self::NotBitcoin,
        Self::Malformed,
    ];

    /// The contract's word.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Responded => "responded",
            Self::Refused => "refused",
            Self::Unreachable => "unreachable",
            Self::ConnectTimeout => "connect_timeout",
            Self::HandshakeTimeout => "handshake_timeout",
            Self::Closed => "closed",
            Self::NotBitcoin => "not_bitcoin",
            Self::Malformed => "malformed",
        }
    }

    /// The outcome with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

impl fmt::Display for Outcome {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Outcome {
    type Err = ();

    fn from_str(word: &str) -> Result<Self, Self::Err> {
        Self::ALL.into_iter().find(|outcome| outcome.as_str() == word).ok_or(())
    }
}

/// What an error of `connect`, or of a socket that is not connected yet, means.
///
/// # Errors
/// A [`Fault`] where the error is of our own side.
pub fn of_connect_error(error: &io::Error) -> Result<Outcome, Fault> {
    use io::ErrorKind as Kind;
    match error.raw_os_error() {
        Some(EMFILE | ENFILE) => return Err(Fault::Descriptors),
        Some(ENOBUFS | ENOMEM | EAGAIN) => return Err(Fault::Ports),
        Some(EINVAL) => return Err(Fault::Forbidden),
        _ => {}
    }
    match error.kind() {
        Kind::ConnectionRefused => Ok(Outcome::Refused),
        Kind::ConnectionReset
        | Kind::ConnectionAborted
        | Kind::BrokenPipe
        | Kind::NotConnected
        | Kind::UnexpectedEof => Ok(Outcome::Closed),
        Kind::TimedOut => Ok(Outcome::ConnectTimeout),
        Kind::AddrNotAvailable | Kind::AddrInUse => Err(Fault::Ports),
        Kind::NetworkUnreachable | Kind::NetworkDown => Err(Fault::Line),
        Kind::PermissionDenied => Err(Fault::Forbidden),
        // EHOSTUNREACH, EPROTO and whatever else an ICMP message turns into.
        _ => Ok(Outcome::Unreachable),
    }
}

// Linux' numbers, the same on every architecture that the crawler is built for.
const EAGAIN: i32 = 11;
const ENOMEM: i32 = 12;
const EINVAL: i32 = 22;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ENOBUFS: i32 = 105;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_and_codes_are_inverse() {
        for (code, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.as_str().parse(), Ok(outcome));
            assert_eq!(Outcome::from_code(code as u8), Some(outcome));
            assert_eq!(outcome as usize, code);
        }
        assert_eq!("up".parse::<Outcome>(), Err(()));
        assert_eq!(Outcome::from_code(8), None);
    }

    #[test]
    fn every_connect_error_is_an_outcome_or_our_own_fault() {
        let table: &[(i32, Result<Outcome, Fault>)] = &[
            (111, Ok(Outcome::Refused)),        // ECONNREFUSED
            (113, Ok(Outcome::Unreachable)),    // EHOSTUNREACH
            (110, Ok(Outcome::ConnectTimeout)), // ETIMEDOUT
            (104, Ok(Outcome::Closed)),         // ECONNRESET
            (32, Ok(Outcome::Closed)),          // EPIPE
            (71, Ok(Outcome::Unreachable)),     // EPROTO
            (24, Err(Fault::Descriptors)),      // EMFILE
            (23, Err(Fault::Descriptors)),      // ENFILE
            (99, Err(Fault::Ports)),            // EADDRNOTAVAIL
            (105, Err(Fault::Ports)),           // ENOBUFS
            (12, Err(Fault::Ports)),            // ENOMEM
            (11, Err(Fault::Ports)),            // EAGAIN
            (101, Err(Fault::Line)),            // ENETUNREACH
            (100, Err(Fault::Line)),            // ENETDOWN
            (1, Err(Fault::Forbidden)),         // EPERM
            (13, Err(Fault::Forbidden)),        // EACCES
            (22, Err(Fault::Forbidden)),        // EINVAL
        ];
        for &(code, expected) in table {
            assert_eq!(
                of_connect_error(&io::Error::from_raw_os_error(code)),
                expected,
                "errno {code}"
            );
        }
    }
}
