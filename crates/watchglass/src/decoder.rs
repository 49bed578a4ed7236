//! A streaming decoder of messages.
//!
//! Sans-I/O: the caller feeds it the bytes of a connection.
//!
//! ```text
//!            24 bytes, magic and length valid          length bytes
//! [header] ------------------------------------> [payload] --------> Message, back to [header]
//!     | wrong magic, length > 4,000,000
//!     v
//! [failed]  consumes nothing more
//! ```
//!
//! Invariants:
//! 1. The same bytes decode to the same messages, however they are split.
//! 2. Memory is bounded, and allocated only for bytes that were received and are wanted.
//! 3. After an error no byte is consumed.

use sha2::{Digest, Sha256};

use super::error::DecodeError;
use super::header::{
    Command, HEADER_LENGTH, Header, MAX_PROTOCOL_MESSAGE_LENGTH, Magic, finish_checksum,
};
use super::message::Message;
use super::payload::PayloadBuffer;
use super::wire::widen;

/// Decodes the bytes of one connection into messages.
///
/// ```
/// use watchglass::{Command, Decoder, Magic, Message, encode_message};
///
/// let mut stream = Vec::new();
/// encode_message(Magic::MAIN, Command::PING, &7u64.to_le_bytes(), &mut stream);
/// encode_message(Magic::MAIN, Command::GETADDR, &[], &mut stream);
///
/// let mut decoder = Decoder::new(Magic::MAIN);
/// let (front, mut back) = stream.split_at(30);
/// let mut front = front;
/// assert_eq!(decoder.decode(&mut front)?, None); // incomplete
/// assert!(front.is_empty());
/// assert_eq!(decoder.decode(&mut back)?, Some(Message::Ping(Some(7))));
/// assert_eq!(decoder.decode(&mut back)?, Some(Message::Getaddr));
/// assert_eq!(decoder.decode(&mut back)?, None);
/// # Ok::<(), watchglass::DecodeError>(())
/// ```
#[derive(Debug)]
pub struct Decoder {
    magic: Magic,
    /// The header, as far as received.
    header: [u8; HEADER_LENGTH],
    header_filled: usize,
    /// The payload in progress, once its header is complete.
    frame: Option<Frame>,
    buffer: PayloadBuffer,
    /// Number of bytes consumed.
    taken: u64,
    failed: Option<DecodeError>,
}

/// A payload in progress.
#[derive(Debug)]
struct Frame {
    command: Command,
    checksum: [u8; 4],
    /// Number of bytes missing.
    left: u32,
    /// Present if the payload is wanted.
    hasher: Option<Sha256>,
}

/// Position of the length in a header.
const LENGTH_BEGIN: usize = 16;
const LENGTH_END: usize = 20;

impl Decoder {
    /// Creates a decoder for the network with this magic.
    pub fn new(magic: Magic) -> Self {
        Self {
            magic,
            header: [0; HEADER_LENGTH],
            header_filled: 0,
            frame: None,
            buffer: PayloadBuffer::new(),
            taken: 0,
            failed: None,
        }
    }

    /// Consumes bytes from the front of `input` until a message is complete (`Some`) or `input` is
    /// empty (`None`).
    ///
    /// # Errors
    /// [`DecodeError::WrongMagic`] at the first wrong byte, and [`DecodeError::TooLong`] at the end
    /// of the length. Both are final: later calls return the same error and consume nothing.
    pub fn decode(&mut self, input: &mut &[u8]) -> Result<Option<Message>, DecodeError> {
        if let Some(error) = &self.failed {
            return Err(error.clone());
        }
        if self.frame.is_none() {
            match self.read_header(input) {
                Ok(Some(header)) => self.start(header),
                Ok(None) => return Ok(None),
                Err(error) => {
                    self.failed = Some(error.clone());
                    self.buffer = PayloadBuffer::new();
                    return Err(error);
                }
            }
        }
        Ok(self.read_payload(input))
    }

    /// Memory of the payload in progress in bytes, at most 30,000. Between messages a buffer of up
    /// to 512 bytes may be kept for the next one.
    pub fn buffered_bytes(&self) -> usize {
        self.buffer.buffered_bytes()
    }

    /// Whether some bytes of the next message have arrived, but not all.
    pub fn is_in_message(&self) -> bool {
        self.header_filled > 0 || self.frame.is_some()
    }

    /// Fills the header, and validates each part of it as soon as it is complete.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, DecodeError> {
        while self.header_filled < self.magic.0.len() {
            let Some((byte, rest)) = input.split_first() else { return Ok(None) };
            *input = rest;
            if self.magic.0.get(self.header_filled) != Some(byte) {
                return Err(DecodeError::WrongMagic {
                    expected: self.magic,
                    came: *byte,
                    offset: self.taken,
                });
            }
            self.fill_header(&[*byte]);
        }
        if !self.fill_header_to(LENGTH_END, input) {
            return Ok(None);
        }
        let header = Header::decode(&self.header)?;
        if header.length > MAX_PROTOCOL_MESSAGE_LENGTH {
            let to_length = widen(self.header_filled).saturating_sub(widen(LENGTH_BEGIN));
            let offset = self.taken.saturating_sub(to_length);
            return Err(DecodeError::TooLong {
                command: header.command,
                length: header.length,
                offset,
            });
        }
        if !self.fill_header_to(HEADER_LENGTH, input) {
            return Ok(None);
        }
        Header::decode(&self.header).map(Some)
    }

    /// Fills the header up to `end`; returns whether that succeeded.
    fn fill_header_to(&mut self, end: usize, input: &mut &[u8]) -> bool {
        let wanted = end.saturating_sub(self.header_filled);
        let (head, rest) = input.split_at_checked(wanted).unwrap_or((*input, &[]));
        self.fill_header(head);
        *input = rest;
        self.header_filled >= end
    }

    fn fill_header(&mut self, bytes: &[u8]) {
        let end = self.header_filled.saturating_add(bytes.len());
        if let Some(place) = self.header.get_mut(self.header_filled..end) {
            place.copy_from_slice(bytes);
            self.header_filled = end;
            self.taken = self.taken.saturating_add(widen(bytes.len()));
        }
    }

    fn start(&mut self, header: Header) {
        self.header_filled = 0;
        self.buffer.start(header.command, header.length);
        self.frame = Some(Frame {
            command: header.command,
            checksum: header.checksum,
            left: header.length,
            hasher: self.buffer.is_wanted().then(Sha256::new),
        });
    }

    /// Consumes payload; returns the message once it is complete.
    fn read_payload(&mut self, input: &mut &[u8]) -> Option<Message> {
        let frame = self.frame.as_mut()?;
        let left = usize::try_from(frame.left).unwrap_or(usize::MAX);
        let (head, rest) = input.split_at_checked(left).unwrap_or((*input, &[]));
        *input = rest;
        self.taken = self.taken.saturating_add(widen(head.len()));
        // At most `left` bytes were consumed, so this cannot saturate.
        frame.left = frame.left.saturating_sub(u32::try_from(head.len()).unwrap_or(u32::MAX));
        if let Some(hasher) = &mut frame.hasher {
            hasher.update(head);
            self.buffer.take(head);
        }
        if frame.left > 0 {
            return None;
        }
        let frame = self.frame.take()?;
        if let Some(hasher) = frame.hasher {
            let came = finish_checksum(hasher);
            if came != frame.checksum {
                self.buffer.release();
                let error = DecodeError::WrongChecksum { expected: frame.checksum, came };
                return Some(Message::Broken { command: frame.command, error });
            }
        }
        Some(self.buffer.finish())
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::super::addr::{Addr, AddrEntry};
    use super::super::message::encode_message;
    use super::super::payload::MAX_IDLE_BYTES;
    use super::super::samples;
    use super::super::version::{NetworkAddress, Version};
    use super::*;

    fn frame(command: Command, payload: &[u8]) -> Vec<u8> {
        let mut out = Vec::new();
        encode_message(Magic::MAIN, command, payload, &mut out);
        out
    }

    fn header(command: Command, length: u32) -> Vec<u8> {
        let mut out = Vec::new();
        Header { magic: Magic::MAIN, command, length, checksum: [0; 4] }.encode(&mut out);
        out
    }

    fn version(user_agent: &[u8]) -> Version {
        Version {
            version: 70015,
            services: 9,
            timestamp: 1_700_000_000,
            addr_recv: NetworkAddress::UNSPECIFIED,
            addr_from: Some(NetworkAddress::UNSPECIFIED),
            nonce: Some(1),
            user_agent: Some(user_agent.to_vec()),
            user_agent_length: widen(user_agent.len()),
            start_height: Some(5),
            relay: Some(false),
            trailing: 0,
        }
    }

    fn version_frame(user_agent: &[u8], trailing: usize) -> Vec<u8> {
        let mut payload = Vec::new();
        version(user_agent).encode(&mut payload);
        payload.resize(payload.len() + trailing, 7);
        frame(Command::VERSION, &payload)
    }

    fn addr_frame(count: usize) -> Vec<u8> {
        let ip = Ipv4Addr::new(1, 2, 3, 4);
        let mut payload = Vec::new();
        Addr::encode(
            &vec![AddrEntry { time: Some(1), services: 1, ip, port: 8333 }; count],
            &mut payload,
        );
        frame(Command::ADDR, &payload)
    }

    /// All messages of these bytes, fed in pieces of this size, and the peak memory.
    fn decode_all(bytes: &[u8], piece: usize) -> (Vec<Message>, usize) {
        let mut decoder = Decoder::new(Magic::MAIN);
        let mut messages = Vec::new();
        let mut most = 0;
        for mut input in bytes.chunks(piece) {
            while let Some(message) = decoder.decode(&mut input).unwrap() {
                assert!(decoder.buffered_bytes() <= MAX_IDLE_BYTES, "between messages");
                messages.push(message);
            }
            assert!(input.is_empty());
            most = most.max(decoder.buffered_bytes());
        }
        (messages, most)
    }

    #[test]
    fn golden_frames_decode() {
        let frames = [
            samples::WIKI_VERSION_60002,
            samples::WIKI_VERACK,
            samples::WIKI_ADDR,
            samples::DEVELOPER_PING,
        ];
        let stream: Vec<u8> = frames.iter().flat_map(|frame| samples::bytes(frame)).collect();
        let (messages, _) = decode_all(&stream, stream.len());
        let expected = [
            Message::Version(
                Version::decode(&samples::payload(samples::WIKI_VERSION_60002)).unwrap(),
            ),
            Message::Verack,
            Message::Addr(Addr::decode(&samples::payload(samples::WIKI_ADDR)).unwrap()),
            Message::Ping(Some(0x4daf_e211_2110_9400)),
        ];
        assert_eq!(messages, expected);
    }

    #[test]
    fn every_piece_size_gives_the_same_messages() {
        let mut stream = version_frame(&[b'a'; 300], 9);
        stream.extend(frame(Command::VERACK, b""));
        stream.extend(frame(Command::new("inv").unwrap(), &[1; 100]));
        stream.extend(addr_frame(3));
        stream.extend(frame(Command::PING, &[]));
        stream.extend(frame(Command::PONG, &[1, 0, 0, 0, 0, 0, 0, 0]));
        stream.extend(frame(Command::GETADDR, b""));
        let (whole, _) = decode_all(&stream, stream.len());
        assert_eq!(whole.len(), 7);
        for piece in 1..stream.len() {
            assert_eq!(decode_all(&stream, piece).0, whole, "pieces of {piece}");
        }
    }

    #[test]
    fn ping_and_pong_may_lack_a_nonce() {
        let table = [
            (Command::PING, &b""[..], Message::Ping(None)),
            (Command::PING, &[1, 0, 0, 0, 0, 0, 0, 0], Message::Ping(Some(1))),
            (Command::PONG, &[1, 0, 0, 0, 0, 0, 0, 0, 9, 9], Message::Pong(Some(1))),
            (Command::PONG, &[], Message::Pong(None)),
        ];
        for (command, payload, expected) in table {
            let (messages, _) = decode_all(&frame(command, payload), 5);
            assert_eq!(messages, [expected]);
        }
        let error = DecodeError::Truncated { field: "nonce", expected: 8, came: 7, offset: 0 };
        let broken = Message::Broken { command: Command::PING, error };
        assert_eq!(decode_all(&frame(Command::PING, &[0; 7]), 100).0, [broken]);
    }

    #[test]
    fn wrong_checksum_affects_one_message() {
        let kinds = [
            version_frame(b"/a/", 0),
            addr_frame(2),
            frame(Command::PING, &[0; 8]),
            frame(Command::VERACK, b""),
        ];
        for good in kinds {
            let mut bad = good.clone();
            bad[20] ^= 1;
            let mut stream = bad.clone();
            stream.extend(&good);
            let (messages, _) = decode_all(&stream, 11);
            let command = messages[1].command();
            let expected = [bad[20], bad[21], bad[22], bad[23]];
            let came = [good[20], good[21], good[22], good[23]];
            let error = DecodeError::WrongChecksum { expected, came };
            assert_eq!(messages[0], Message::Broken { command, error });
            assert!(!matches!(messages[1], Message::Broken { .. } | Message::Other { .. }));
        }
    }

    #[test]
    fn checksum_covers_dropped_bytes() {
        // A bit of the user agent beyond byte 256, one after the relay byte, one in entry 1001.
        let mut long_agent = version_frame(&[b'a'; 5000], 0);
        long_agent[24 + 83 + 4000] ^= 1;
        let mut trailing = version_frame(b"/a/", 100);
        *trailing.last_mut().unwrap() ^= 1;
        let mut addr = addr_frame(1001);
        *addr.last_mut().unwrap() ^= 1;
        for bad in [long_agent, trailing, addr] {
            let (messages, _) = decode_all(&bad, 1460);
            let error = matches!(
                &messages[..],
                [Message::Broken { error: DecodeError::WrongChecksum { .. }, .. }]
            );
            assert!(error, "{messages:?}");
        }
    }

    #[test]
    fn unwanted_messages_are_neither_checked_nor_stored() {
        let command = Command::new("block").unwrap();
        let mut stream = header(command, 4_000_000);
        stream.resize(24 + 4_000_000, 0xab);
        let (messages, most) = decode_all(&stream, 65_536);
        assert_eq!(messages, [Message::Other { command, length: 4_000_000 }]);
        assert_eq!(most, 0);
        // A command that only starts like a known one.
        let odd = Command(*b"version\0x\0\0\0");
        assert_eq!(decode_all(&header(odd, 0), 24).0, [Message::Other { command: odd, length: 0 }]);
    }

    #[test]
    fn announced_bytes_take_no_memory_before_they_arrive() {
        for command in
            [Command::VERSION, Command::ADDR, Command::PING, Command::VERACK, Command([0; 12])]
        {
            let mut decoder = Decoder::new(Magic::MAIN);
            let bytes = header(command, 4_000_000);
            assert_eq!(decoder.decode(&mut &bytes[..]), Ok(None));
            assert_eq!(decoder.buffered_bytes(), 0, "{command}");
            assert_eq!(decoder.decode(&mut &[0; 10][..]), Ok(None));
            assert!(decoder.buffered_bytes() <= 16, "{command}: {}", decoder.buffered_bytes());
        }
    }

    #[test]
    fn largest_payloads_stay_within_the_memory_limit() {
        let most = |stream: &[u8]| {
            [1, 1460, 65_536, 8_000_000].map(|piece| decode_all(stream, piece).1).into_iter().max()
        };
        assert!(most(&version_frame(&vec![b'a'; 3_900_000], 90_000)) <= Some(MAX_IDLE_BYTES));
        assert!(most(&version_frame(b"/a/", 3_900_000)) <= Some(MAX_IDLE_BYTES));
        assert_eq!(most(&addr_frame(130_000)), Some(30_000));
        // Fits neither layout: nothing is buffered.
        let mut stray = header(Command::ADDR, 4_000_000);
        stray.resize(24 + 4_000_000, 1);
        assert!(most(&stray) <= Some(16));
    }

    #[test]
    fn version_of_4_million_bytes_is_decoded() {
        let (messages, _) = decode_all(&version_frame(&vec![b'a'; 3_999_000], 3), 65_536);
        let expected = Version {
            user_agent: Some(vec![b'a'; 256]),
            user_agent_length: 3_999_000,
            trailing: 3,
            ..version(b"")
        };
        assert_eq!(messages, [Message::Version(expected)]);
    }

    #[test]
    fn wrong_magic_is_detected_at_its_first_byte_and_is_final() {
        let table: [(&[u8], u8, u64); 6] = [
            (b"HTTP/1.1 400 Bad Request", b'H', 0),
            (b"SSH-2.0-OpenSSH_9.2p1", b'S', 0),
            (b"\x15\x03\x01\x00\x02\x02", 0x15, 0),
            // Bitcoin Cash: e3e1f3e8.
            (&[0xe3, 0xe1, 0xf3, 0xe8], 0xe3, 0),
            (&[0xf9, 0xbe, 0xb4, 0xd8], 0xd8, 3),
            (&[0xf9, 0xf9], 0xf9, 1),
        ];
        for (bytes, came, offset) in table {
            let error = DecodeError::WrongMagic { expected: Magic::MAIN, came, offset };
            let mut decoder = Decoder::new(Magic::MAIN);
            let at = usize::try_from(offset).unwrap();
            assert_eq!(decoder.decode(&mut &bytes[..at]), Ok(None));
            let mut input = &bytes[at..at + 1];
            assert_eq!(decoder.decode(&mut input), Err(error.clone()));
            assert!(error.is_foreign());
            let good = frame(Command::VERACK, b"");
            let mut input = &good[..];
            assert_eq!(decoder.decode(&mut input), Err(error));
            assert_eq!(input.len(), good.len(), "nothing is consumed after an error");
        }
    }

    #[test]
    fn wrong_magic_after_a_valid_message_is_not_foreign() {
        let mut stream = frame(Command::VERACK, b"");
        stream.push(0);
        let mut decoder = Decoder::new(Magic::MAIN);
        let mut input = &stream[..];
        assert_eq!(decoder.decode(&mut input), Ok(Some(Message::Verack)));
        let error = decoder.decode(&mut input).unwrap_err();
        assert_eq!(error, DecodeError::WrongMagic { expected: Magic::MAIN, came: 0, offset: 24 });
        assert!(!error.is_foreign());
    }

    #[test]
    fn length_above_4_million_is_refused_before_the_checksum() {
        for length in [4_000_001, 0x1000_0000, u32::MAX] {
            let bytes = header(Command::VERSION, length);
            let mut decoder = Decoder::new(Magic::MAIN);
            assert_eq!(decoder.decode(&mut &bytes[..19]), Ok(None));
            let error = DecodeError::TooLong { command: Command::VERSION, length, offset: 16 };
            assert_eq!(decoder.decode(&mut &bytes[19..20]), Err(error.clone()));
            assert_eq!(decoder.decode(&mut &bytes[20..]), Err(error.clone()));
            assert!(!error.is_foreign());
        }
        let most = header(Command::VERSION, MAX_PROTOCOL_MESSAGE_LENGTH);
        assert_eq!(Decoder::new(Magic::MAIN).decode(&mut &most[..]), Ok(None));
        // The offset counts from the start of the stream, however the header is split.
        let stream = [frame(Command::PING, &[0; 8]), header(Command::ADDR, u32::MAX)].concat();
        for piece in [1, 7, 100] {
            let mut decoder = Decoder::new(Magic::MAIN);
            let mut last = Ok(None);
            for mut input in stream.chunks(piece) {
                while !input.is_empty() && last.is_ok() {
                    last = decoder.decode(&mut input);
                }
            }
            let error =
                DecodeError::TooLong { command: Command::ADDR, length: u32::MAX, offset: 48 };
            assert_eq!(last, Err(error));
        }
    }

    #[test]
    fn other_networks_have_their_own_magic() {
        let magic = Magic([0x0b, 0x11, 0x09, 0x07]);
        let mut stream = Vec::new();
        encode_message(magic, Command::VERACK, b"", &mut stream);
        assert_eq!(Decoder::new(magic).decode(&mut &stream[..]), Ok(Some(Message::Verack)));
        assert!(Decoder::new(Magic::MAIN).decode(&mut &stream[..]).is_err());
    }

    #[test]
    fn verack_with_a_payload_is_still_a_verack() {
        let (messages, most) = decode_all(&frame(Command::VERACK, &[1; 5000]), 100);
        assert_eq!((messages, most), (vec![Message::Verack], 0));
    }
}
