//! `Act`: one thing that a beast does, and the bytes that beasts are made of.
//!
//! Layer 2: plain data. Long streams are described, not held: a head, and zeros behind it.

use std::time::Duration;

use crate::simnet::behaviour::Close;
use crate::simnet::knowledge::Entry;
use crate::simnet::messages;
use crate::simnet::zoo::Said;
use crate::watchglass::{Command, Header, Magic, NetworkAddress, Version, checksum};

/// One thing that a beast does.
#[derive(Clone, Debug)]
pub enum Act {
    /// Waits until the other side has sent this.
    Hear(Command),
    /// Waits.
    Wait(Duration),
    /// Sends.
    Say(Flow),
    /// Sends a `version` with the other side's own nonce in it.
    Mirror,
    /// Sends back whatever comes, for ever.
    Echo,
    /// Ends the connection, or its own half of it.
    End(Close),
}

/// Bytes to send: a head and zeros behind it, in pieces, once or for ever.
#[derive(Clone, Debug)]
pub struct Flow {
    /// The bytes at the front.
    pub head: Vec<u8>,
    /// How many zeros follow.
    pub zeros: u64,
    /// The most bytes sent at once.
    pub piece: usize,
    /// The least time from one piece to the next.
    pub every: Duration,
    /// Whether it begins again at its end.
    pub is_endless: bool,
}

impl Flow {
    /// Bytes that are sent once, as fast as the other side takes them, but at most 64 KiB each 5 ms.
    pub fn once(head: Vec<u8>) -> Self {
        Self { head, zeros: 0, piece: PIECE, every: GAP, is_endless: false }
    }

    /// Whether that was all.
    pub fn is_over(&self, sent: u64) -> bool {
        !self.is_endless && sent >= self.unit()
    }

    fn unit(&self) -> u64 {
        self.head.len() as u64 + self.zeros
    }

    /// The bytes from the `sent`th on, at most a piece; empty at the end.
    pub fn piece_at(&self, sent: u64) -> Vec<u8> {
        let unit = self.unit();
        let mut out = Vec::new();
        let mut at = sent;
        while out.len() < self.piece && unit > 0 && (self.is_endless || at < unit) {
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
pub(super) fn say(bytes: Vec<u8>) -> Act {
    Act::Say(Flow::once(bytes))
}

/// Sends these bytes in pieces, a pause between them.
pub(super) fn drip(head: Vec<u8>, piece: usize, every: Duration) -> Act {
    Act::Say(Flow { piece, every, ..Flow::once(head) })
}

/// Sends these bytes again and again, as fast as the other side takes them.
pub(super) fn stream(head: Vec<u8>) -> Act {
    Act::Say(Flow { is_endless: true, ..Flow::once(head) })
}

/// Sends these bytes again and again, one such message at a time.
pub(super) fn pulse(head: Vec<u8>, every: Duration) -> Act {
    Act::Say(Flow { piece: head.len(), every, is_endless: true, ..Flow::once(head) })
}

/// Sends a header that announces this many bytes, and behind it as many zeros as there are in `zeros`.
pub(super) fn blank(command: &str, length: u32, zeros: u64) -> Act {
    Act::Say(Flow { zeros, ..Flow::once(header(command, length)) })
}

pub(super) fn wait_ms(ms: u64) -> Act {
    Act::Wait(Duration::from_millis(ms))
}

pub(super) fn hear_version() -> Act {
    Act::Hear(Command::VERSION)
}

/// Answers `version` with this, then `verack`.
pub(super) fn greet(version: Vec<u8>) -> Vec<Act> {
    vec![hear_version(), say([version, verack()].concat())]
}

/// A whole conversation around this `version`: greets, and answers `getaddr` with addresses of nobody.
pub(super) fn visit(version: Vec<u8>) -> Vec<Act> {
    [greet(version), vec![Act::Hear(Command::GETADDR), say(nowhere())]].concat()
}

/// A plain `version` and `verack` as an answer, and then this.
pub(super) fn greeted(acts: Vec<Act>) -> Vec<Act> {
    [greet(plain()), acts].concat()
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

/// A header without what it announces; its checksum is that of nothing.
pub(super) fn header(command: &str, length: u32) -> Vec<u8> {
    let empty = message(command, &[]);
    [&empty[..16], &length.to_le_bytes(), &empty[20..]].concat()
}

/// A frame with a payload and the header of it, in a network of this magic.
pub(super) fn frame(magic: [u8; 4], command: Command, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut out = Vec::new();
    Header { magic: Magic(magic), command, length, checksum: checksum(payload) }.encode(&mut out);
    out.extend_from_slice(payload);
    out
}

/// The `version` that is said when nothing is bad about it.
pub(super) fn plain() -> Vec<u8> {
    version(&Said::plain())
}

/// The `version` message that says this.
pub(super) fn version(said: &Said) -> Vec<u8> {
    message("version", &payload(said))
}

/// The payload of the `version` that says this, cut where the first field is not said.
pub(super) fn payload(said: &Said) -> Vec<u8> {
    let mut payload = Vec::new();
    layout(said).encode(&mut payload);
    payload
}

/// The whole `version` that says this.
pub(super) fn layout(said: &Said) -> Version {
    Version {
        version: said.protocol_version,
        services: said.services,
        timestamp: TIME,
        addr_recv: NetworkAddress::UNSPECIFIED,
        addr_from: Some(NetworkAddress::UNSPECIFIED),
        nonce: Some(NONCE),
        user_agent: said.user_agent.clone(),
        user_agent_length: said.user_agent.as_ref().map_or(0, |agent| agent.len() as u64),
        start_height: said.start_height,
        relay: said.relay,
        trailing: 0,
    }
}

/// An `addr` message of three entries, none of which leads anywhere.
pub(super) fn nowhere() -> Vec<u8> {
    addr(&(0..3).map(nobody).collect::<Vec<_>>())
}

/// An `addr` message; more than 1000 entries are several.
pub(super) fn addr(entries: &[Entry]) -> Vec<u8> {
    messages::addrs(entries, true)
}

/// One of the addresses at which nobody can answer: private ones, IPv6 ones for documentation (RFC 3849).
pub(super) fn nobody(number: u16) -> Entry {
    let [high, low] = number.to_be_bytes();
    let mut ip = [0; 16];
    if number.is_multiple_of(3) {
        ip[..4].copy_from_slice(&[0x20, 0x01, 0x0d, 0xb8]);
        ip[14..].copy_from_slice(&[high, low]);
    } else {
        ip[10..].copy_from_slice(&[0xff, 0xff, 10, 66, high, low]);
    }
    Entry { time: TIME as u32, services: 1033, ip, port: 8333 }
}

/// What a beast's clock shows.
pub(super) const TIME: i64 = 1_790_000_000;
/// The nonce of every beast's `version`.
const NONCE: u64 = 7;
/// The most bytes that a beast sends in one turn.
const PIECE: usize = 64 * 1024;
/// How long it then waits: 13 MB/s at the most for one connection, and no beast starves the honest.
const GAP: Duration = Duration::from_millis(5);
