//! `Step`: one step of a misbehaviour, and constructors of steps and messages.
//!
//! Long streams are described, not stored: a head followed by zeros.

use std::time::Duration;

use crate::network::gossip::Entry;
use crate::node::conversation::Close;
use crate::node::messages;
use crate::zoo::Claimed;
use watchglass::{Command, Header, Magic, checksum};

/// One step of a misbehaviour.
#[derive(Clone, Debug)]
pub enum Step {
    /// Waits for this message.
    Expect(Command),
    /// Waits for this time.
    Wait(Duration),
    /// Sends these bytes.
    Send(Flow),
    /// Sends a `version` with the crawler's own nonce.
    SendTheirNonce,
    /// Sends back all received bytes, forever.
    Echo,
    /// Closes the connection, or its sending half.
    Close(Close),
}

/// Bytes to send: a head and zeros, in pieces, once or forever.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The bytes before the zeros.
    pub head: Vec<u8>,
    /// Number of zeros.
    pub zeros: u64,
    /// Maximum number of bytes per piece.
    pub piece: usize,
    /// Minimum time between two pieces.
    pub interval: Duration,
    /// Whether it starts over at its end.
    pub repeats: bool,
}

impl Flow {
    /// Bytes that are sent once, at most 64 KiB every 5 ms.
    pub fn new(head: Vec<u8>) -> Self {
        Self { head, zeros: 0, piece: PIECE, interval: PIECE_INTERVAL, repeats: false }
    }

    /// Whether all bytes were sent.
    pub fn is_over(&self, sent: u64) -> bool {
        !self.repeats && sent >= self.unit()
    }

    fn unit(&self) -> u64 {
        self.head.len() as u64 + self.zeros
    }

    /// The next piece after `sent` bytes; empty at the end.
    pub fn piece_at(&self, sent: u64) -> Vec<u8> {
        let unit = self.unit();
        let mut out = Vec::new();
        let mut at = sent;
        while out.len() < self.piece && unit > 0 && (self.repeats || at < unit) {
            let within = at % unit;
            let room = (self.piece - out.len()) as u64;
            let taken = match self.head.get(within as usize..) {
                Some(rest @ [_, ..]) => {
                    let taken = rest.len().min(room as usize);
                    out.extend_from_slice(&rest[..taken]);
                    taken as u64
                }
                _ => {
                    let taken = (unit - within).min(room);
                    out.resize(out.len() + taken as usize, 0);
                    taken
                }
            };
            at += taken;
        }
        out
    }
}

/// Sends these bytes.
pub(super) fn send(bytes: Vec<u8>) -> Step {
    Step::Send(Flow::new(bytes))
}

/// Sends these bytes in pieces with pauses.
pub(super) fn send_slowly(head: Vec<u8>, piece: usize, interval: Duration) -> Step {
    Step::Send(Flow { piece, interval, ..Flow::new(head) })
}

/// Sends these bytes again and again, as fast as the crawler reads them.
pub(super) fn send_forever(head: Vec<u8>) -> Step {
    Step::Send(Flow { repeats: true, ..Flow::new(head) })
}

/// Sends these bytes again and again, once per interval.
pub(super) fn send_periodically(head: Vec<u8>, interval: Duration) -> Step {
    Step::Send(Flow { piece: head.len(), interval, repeats: true, ..Flow::new(head) })
}

/// Sends a header with this length, followed by `zeros` zeros.
pub(super) fn header_and_zeros(command: &str, length: u32, zeros: u64) -> Step {
    Step::Send(Flow { zeros, ..Flow::new(header(command, length)) })
}

pub(super) fn wait_ms(ms: u64) -> Step {
    Step::Wait(Duration::from_millis(ms))
}

pub(super) fn expect_version() -> Step {
    Step::Expect(Command::VERSION)
}

/// Waits for `version` and sends these bytes.
pub(super) fn answer<const N: usize>(parts: [Vec<u8>; N]) -> Vec<Step> {
    vec![expect_version(), send(parts.concat())]
}

/// Answers `version` with this `version` and `verack`.
pub(super) fn handshake(version: Vec<u8>) -> Vec<Step> {
    answer([version, verack()])
}

/// A handshake with this `version`, then an `addr` in reply to `getaddr`.
pub(super) fn answer_all(version: Vec<u8>) -> Vec<Step> {
    [handshake(version), vec![Step::Expect(Command::GETADDR), send(unreachable_addr())]].concat()
}

/// A plain handshake, then these steps.
pub(super) fn after_handshake(steps: Vec<Step>) -> Vec<Step> {
    [handshake(plain()), steps].concat()
}

pub(super) fn message(command: &str, payload: &[u8]) -> Vec<u8> {
    messages::message(command, payload)
}

pub(super) fn verack() -> Vec<u8> {
    message("verack", &[])
}

pub(super) fn ping() -> Vec<u8> {
    message("ping", &7_u64.to_le_bytes())
}

/// A header without its payload; the checksum is that of an empty one.
pub(super) fn header(command: &str, length: u32) -> Vec<u8> {
    let empty = message(command, &[]);
    [&empty[..16], &length.to_le_bytes(), &empty[20..]].concat()
}

/// A message of the network with this magic.
pub(super) fn frame(magic: [u8; 4], command: Command, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut out = Vec::new();
    Header { magic: Magic(magic), command, length, checksum: checksum(payload) }.encode(&mut out);
    out.extend_from_slice(payload);
    out
}

/// The plain `version` message.
pub(super) fn plain() -> Vec<u8> {
    version(&Claimed::plain())
}

/// The `version` message with these fields.
pub(super) fn version(claimed: &Claimed) -> Vec<u8> {
    message("version", &payload(claimed))
}

/// The payload of the `version` with these fields; it ends before the first that is `None`.
pub(super) fn payload(claimed: &Claimed) -> Vec<u8> {
    let mut payload = Vec::new();
    claimed.version().encode(&mut payload);
    payload
}

/// An `addr` message of three entries that cannot be dialled.
pub(super) fn unreachable_addr() -> Vec<u8> {
    addr(&(0..3).map(unreachable_entry).collect::<Vec<_>>())
}

/// The `addr` messages for these entries.
pub(super) fn addr(entries: &[Entry]) -> Vec<u8> {
    messages::addrs(entries, true)
}

/// An entry that cannot be dialled: private, or IPv6 for documentation (RFC 3849).
pub(super) fn unreachable_entry(number: u16) -> Entry {
    let [high, low] = number.to_be_bytes();
    let mut ip = [0; 16];
    if number.is_multiple_of(3) {
        ip[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        ip[14..].copy_from_slice(&[high, low]);
    } else {
        ip[10..].copy_from_slice(&[0xff, 0xff, 10, 66, high, low]);
    }
    Entry { time: Claimed::TIMESTAMP as u32, services: 1033, ip, port: 8333 }
}

/// Maximum number of bytes per piece.
const PIECE: usize = 64 * 1024;
/// Minimum time between two pieces: at most 13 MB/s per connection, so no flood starves honest
/// nodes.
const PIECE_INTERVAL: Duration = Duration::from_millis(5);
