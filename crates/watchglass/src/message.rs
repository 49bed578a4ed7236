//! Decoded messages, and the encoder of whole messages.

use super::addr::Addr;
use super::error::DecodeError;
use super::header::{Command, Header, Magic};
use super::version::Version;

/// A message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Introduces the sender: the first message of each side.
    Version(Version),
    /// Accepts our `version`. A payload has no meaning and is ignored.
    Verack,
    /// Requests addresses. A payload has no meaning and is ignored.
    Getaddr,
    /// Relays addresses.
    Addr(Addr),
    /// A keep-alive, with a nonce since version 60001 (BIP 31).
    Ping(Option<u64>),
    /// The answer to a ping.
    Pong(Option<u64>),
    /// Any other message; its payload was neither stored nor checked.
    Other {
        /// Its command.
        command: Command,
        /// The length of its payload in bytes.
        length: u32,
    },
    /// A complete message with a wrong checksum or payload; the stream continues after it.
    Broken {
        /// Its command.
        command: Command,
        /// What was wrong.
        error: DecodeError,
    },
}

impl Message {
    /// Its command.
    pub fn command(&self) -> Command {
        match self {
            Self::Version(_) => Command::VERSION,
            Self::Verack => Command::VERACK,
            Self::Getaddr => Command::GETADDR,
            Self::Addr(_) => Command::ADDR,
            Self::Ping(_) => Command::PING,
            Self::Pong(_) => Command::PONG,
            Self::Other { command, .. } | Self::Broken { command, .. } => *command,
        }
    }
}

/// Appends header and payload to `out`.
///
/// ```
/// use watchglass::{Command, Magic, encode_message};
///
/// // The reply to a `version`, in one write.
/// let mut out = Vec::new();
/// encode_message(Magic::MAIN, Command::VERACK, &[], &mut out);
/// encode_message(Magic::MAIN, Command::GETADDR, &[], &mut out);
/// assert_eq!(out.len(), 48);
/// ```
///
/// The payload must not be longer than
/// [`MAX_PROTOCOL_MESSAGE_LENGTH`](super::MAX_PROTOCOL_MESSAGE_LENGTH).
pub fn encode_message(magic: Magic, command: Command, payload: &[u8], out: &mut Vec<u8>) {
    Header::of(magic, command, payload).encode(out);
    out.extend_from_slice(payload);
}
