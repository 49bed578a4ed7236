//! How a probe ended, and which error of the operating system means which outcome.
//!
//! Sans-I/O: plain data and pure functions. A fault of our own side is never an outcome. Everything
//! that is known of a single outcome is in [`Outcome`]'s methods.

use std::fmt;
use std::io;
use std::str::FromStr;
use std::time::Duration;

/// How a probe ended. The code of an outcome is stored: it never changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Outcome {
    /// A valid `version` arrived, whatever happened afterwards.
    Responded = 0,
    /// The connection was refused: nothing listens on the port.
    Refused = 1,
    /// An ICMP message: the address cannot be reached.
    Unreachable = 2,
    /// Not connected before the deadline.
    ConnectTimeout = 3,
    /// Connected, but no `version` before the deadline.
    HandshakeTimeout = 4,
    /// Accepted, then closed or reset before `version`: most likely the node is full or bans us.
    Closed = 5,
    /// Bytes that are not a message of this network, or our own nonce.
    NotBitcoin = 6,
    /// This network's magic, but a broken header or `version`, or a length above 4,000,000.
    Malformed = 7,
}

/// A fault of our own side. It reveals nothing about the address, which is queued again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fault {
    /// Out of file descriptors (EMFILE, ENFILE).
    Descriptors,
    /// Out of local ports or buffer memory (EADDRNOTAVAIL, ENOBUFS, ENOMEM, EAGAIN on connect).
    Ports,
    /// Our uplink is down (ENETUNREACH, ENETDOWN).
    Uplink,
    /// A local firewall or route forbids the connection (EPERM, EACCES, EINVAL).
    Forbidden,
}

impl Outcome {
    /// Every outcome, ordered by code.
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

    /// Its name in the database, in logs and in output.
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

    /// Explains it to the operator in one line. `waited` is the duration of the probe.
    pub fn explanation(self, waited: Duration) -> String {
        let secs = (waited.as_secs_f64() * 10.0).round() / 10.0;
        match self {
            Self::Responded => "it sent a valid version".into(),
            Self::Refused => "nothing listens on this port".into(),
            Self::Unreachable => "the network reports that this address cannot be reached".into(),
            Self::ConnectTimeout => format!(
                "no answer within {secs} s: the host is down, or a firewall drops our packets"
            ),
            Self::HandshakeTimeout => format!("it accepted, but sent no version within {secs} s"),
            Self::Closed => "it disconnected before its version: most likely it is full or bans \
                             this address; retry in a few minutes"
                .into(),
            Self::NotBitcoin => "it speaks another protocol or uses another network's magic".into(),
            Self::Malformed => "this network's magic, but a broken message".into(),
        }
    }

    /// How far the attempt was from a response: 0 is a response, the highest is the worst.
    pub fn severity(self) -> u8 {
        match self {
            Self::Responded => 0,
            Self::Closed => 1,
            Self::HandshakeTimeout => 2,
            Self::Malformed => 3,
            Self::NotBitcoin => 4,
            Self::Refused => 5,
            Self::ConnectTimeout => 6,
            Self::Unreachable => 7,
        }
    }

    /// Whether a dead uplink ends probes this way.
    pub fn is_silence(self) -> bool {
        matches!(self, Self::ConnectTimeout | Self::Unreachable | Self::HandshakeTimeout)
    }

    /// Whether the outcome may only show that our process did not run: the peer may have
    /// disconnected for lack of an answer, or was not heard.
    pub fn may_be_our_stall(self) -> bool {
        self.is_silence() || self == Self::Closed
    }

    /// The outcome with this code.
    pub fn from_code(code: u8) -> Option<Self> {
        Self::ALL.get(usize::from(code)).copied()
    }
}

/// Number of bits in which the address table and the database pack an outcome's code.
pub const OUTCOME_BITS: u32 = 4;

const _: () = assert!(Outcome::ALL.len() <= 1 << OUTCOME_BITS, "an outcome's code does not fit");

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

/// Classifies an error of `connect`, or of a socket that is not connected yet.
///
/// # Errors
/// A [`Fault`] if the cause is on our own side.
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
        Kind::NetworkUnreachable | Kind::NetworkDown => Err(Fault::Uplink),
        Kind::PermissionDenied => Err(Fault::Forbidden),
        // EHOSTUNREACH, EPROTO and all other errors that an ICMP message causes.
        _ => Ok(Outcome::Unreachable),
    }
}

// Linux error numbers, the same on every supported architecture.
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
    fn names_and_codes_identify_each_outcome() {
        for (code, outcome) in Outcome::ALL.into_iter().enumerate() {
            assert_eq!(outcome.as_str().parse(), Ok(outcome));
            assert_eq!(Outcome::from_code(code as u8), Some(outcome));
            assert_eq!(outcome as usize, code);
        }
        assert_eq!("up".parse::<Outcome>(), Err(()));
        assert_eq!(Outcome::from_code(Outcome::ALL.len() as u8), None);
    }

    #[test]
    fn explanations_of_timeouts_show_the_wait() {
        let waited = Duration::from_millis(5_012);
        let text = Outcome::ConnectTimeout.explanation(waited);
        assert!(text.starts_with("no answer within 5 s: "), "{text}");
        let text = Outcome::HandshakeTimeout.explanation(Duration::from_millis(449));
        assert!(text.ends_with("no version within 0.4 s"), "{text}");
    }

    #[test]
    fn no_two_outcomes_are_equally_severe() {
        let mut by_severity = Outcome::ALL;
        by_severity.sort_by_key(|outcome| outcome.severity());
        assert_eq!(by_severity[0], Outcome::Responded);
        for (rank, outcome) in by_severity.into_iter().enumerate() {
            assert_eq!(usize::from(outcome.severity()), rank, "{outcome}");
        }
    }

    #[test]
    fn connect_errors_are_classified_as_outcomes_or_faults() {
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
            (101, Err(Fault::Uplink)),          // ENETUNREACH
            (100, Err(Fault::Uplink)),          // ENETDOWN
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
