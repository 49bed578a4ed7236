//! A stream of bytes cut into messages.
//!
//! Layer 0. Owns: [`Decoder`]. Must not touch: sockets; it is fed.
//!
//! ```text
//!            24 bytes, magic and length good           length bytes
//! [header] ------------------------------------> [payload] --------> Message, back to [header]
//!     | wrong magic, length > 4,000,000
//!     v
//! [failed]  takes nothing more
//! ```
//!
//! Invariants:
//! 1. The same bytes give the same messages, however they are cut.
//! 2. Memory is bounded, and taken only for bytes that came and are wanted.
//! 3. After an error no byte is taken.

use sha2::{Digest, Sha256};

use super::error::DecodeError;
use super::header::{
    Command, HEADER_LENGTH, Header, MAX_PROTOCOL_MESSAGE_LENGTH, Magic, finish_checksum,
};
use super::keep::Keeper;
use super::message::Message;
use super::wire::widen;

/// Cuts the bytes of one connection into messages.
#[derive(Debug)]
pub struct Decoder {
    magic: Magic,
    /// The header as far as it came.
    header: [u8; HEADER_LENGTH],
    header_filled: usize,
    /// The payload that is passing, once its header is whole.
    frame: Option<Frame>,
    keeper: Keeper,
    /// Bytes taken so far.
    taken: u64,
    failed: Option<DecodeError>,
}

/// A payload on its way.
#[derive(Debug)]
struct Frame {
    command: Command,
    checksum: [u8; 4],
    /// Bytes still to come.
    left: u32,
    /// Only for what is wanted.
    hasher: Option<Sha256>,
}

/// Where the length begins and ends in a header.
const LENGTH_BEGIN: usize = 16;
const LENGTH_END: usize = 20;

impl Decoder {
    /// Begins a stream of the network with this magic.
    pub fn new(magic: Magic) -> Self {
        Self {
            magic,
            header: [0; HEADER_LENGTH],
            header_filled: 0,
            frame: None,
            keeper: Keeper::new(),
            taken: 0,
            failed: None,
        }
    }

    /// Takes bytes off the front of `input` until a message is whole (`Some`) or `input` is used up (`None`).
    ///
    /// # Errors
    /// [`DecodeError::WrongMagic`] as early as the first wrong byte, and [`DecodeError::TooLong`] as soon as the length is
    /// there. Both are final: later calls give the same error and take nothing.
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
                    self.keeper = Keeper::new();
                    return Err(error);
                }
            }
        }
        Ok(self.read_payload(input))
    }

    /// How many bytes of memory the payload at hand takes now, at most 30,003. Between messages a buffer of up to 512 bytes
    /// may stay for the next one.
    pub fn held(&self) -> usize {
        self.keeper.held()
    }

    /// Fills the header, and judges each part of it as soon as it is there.
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

    /// Whether the header is now filled up to `end`.
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
        self.keeper.start(header.command, header.length);
        self.frame = Some(Frame {
            command: header.command,
            checksum: header.checksum,
            left: header.length,
            hasher: self.keeper.is_wanted().then(Sha256::new),
        });
    }

    /// Lets the payload pass; the message once it is whole.
    fn read_payload(&mut self, input: &mut &[u8]) -> Option<Message> {
        let frame = self.frame.as_mut()?;
        let left = usize::try_from(frame.left).unwrap_or(usize::MAX);
        let (head, rest) = input.split_at_checked(left).unwrap_or((*input, &[]));
        *input = rest;
        self.taken = self.taken.saturating_add(widen(head.len()));
        // No more than `left` were taken, so this cannot saturate.
        frame.left = frame.left.saturating_sub(u32::try_from(head.len()).unwrap_or(u32::MAX));
        if let Some(hasher) = &mut frame.hasher {
            hasher.update(head);
            self.keeper.take(head);
        }
        if frame.left > 0 {
            return None;
        }
        let frame = self.frame.take()?;
        if let Some(hasher) = frame.hasher {
            let came = finish_checksum(hasher);
            if came != frame.checksum {
                self.keeper.release();
                let error = DecodeError::WrongChecksum { expected: frame.checksum, came };
                return Some(Message::Broken { command: frame.command, error });
            }
        }
        Some(self.keeper.finish())
    }
}
