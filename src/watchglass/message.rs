//! A message as the decoder hands it out, and a message on its way out.
//!
//! Layer 0. Owns: [`Message`], [`encode_message`].

use super::addr::Addr;
use super::error::DecodeError;
use super::header::{Command, Header, Magic};
use super::version::Version;

/// One whole message of a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Message {
    /// Who the far end says it is: the first message of each side.
    Version(Version),
    /// It accepts our `version`. A payload, which has no meaning, is passed over.
    Verack,
    /// It asks for addresses. A payload, which has no meaning, is passed over.
    Getaddr,
    /// Addresses that it tells of.
    Addr(Addr),
    /// Asks whether we are there; with a nonce since version 60001 (BIP 31).
    Ping(Option<u64>),
    /// Answers a ping.
    Pong(Option<u64>),
    /// Anything else: its payload went past and was neither stored nor checked.
    Other {
        /// What it was.
        command: Command,
        /// How long its payload was, in bytes.
        length: u32,
    },
    /// The frame was whole but its checksum or its payload is wrong; the stream goes on behind it.
    Broken {
        /// What it was.
        command: Command,
        /// What was wrong.
        error: DecodeError,
    },
}

impl Message {
    /// The command that it came under.
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
/// use bitdash::watchglass::{Command, Magic, encode_message};
///
/// // What follows a `version`: both in one piece.
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
