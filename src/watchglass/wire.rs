//! The integers and strings of the wire: read from a slice, written into a vector.
//!
//! Layer 0. Owns: byte order and `CompactSize`. Must not touch: what the fields mean.
//!
//! Invariants:
//! 1. A [`Reader`] never reads past its slice; what is missing is a typed error with its offset.
//! 2. What a [`Writer`] wrote, a [`Reader`] reads back as it was.

use byteorder::{BigEndian, ByteOrder, LittleEndian};

use super::error::DecodeError;

/// Reads fields off the front of a slice.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
    offset: u64,
}

impl<'a> Reader<'a> {
    /// Reads from the start of `bytes`.
    pub fn new(bytes: &'a [u8]) -> Self {
        Self { rest: bytes, offset: 0 }
    }

    /// How many bytes were read or skipped.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Moves the offset past bytes of the payload that the slice does not hold.
    pub fn skip_absent(&mut self, count: u64) {
        self.offset = self.offset.saturating_add(count);
    }

    /// Reads `N` bytes.
    ///
    /// # Errors
    /// [`DecodeError::Truncated`] if fewer are left, as with all the readings below.
    pub fn array<const N: usize>(&mut self, field: &'static str) -> Result<[u8; N], DecodeError> {
        let Some((head, rest)) = self.rest.split_first_chunk::<N>() else {
            return Err(self.truncated(field, N));
        };
        self.rest = rest;
        self.skip_absent(widen(N));
        Ok(*head)
    }

    /// Reads `count` bytes.
    pub fn bytes(&mut self, count: usize, field: &'static str) -> Result<&'a [u8], DecodeError> {
        let Some((head, rest)) = self.rest.split_at_checked(count) else {
            return Err(self.truncated(field, count));
        };
        self.rest = rest;
        self.skip_absent(widen(count));
        Ok(head)
    }

    /// Reads one byte.
    pub fn u8(&mut self, field: &'static str) -> Result<u8, DecodeError> {
        let [byte] = self.array(field)?;
        Ok(byte)
    }

    /// Reads a big-endian `u16`: ports, and only these, are big-endian.
    pub fn u16_be(&mut self, field: &'static str) -> Result<u16, DecodeError> {
        Ok(BigEndian::read_u16(&self.array::<2>(field)?))
    }

    /// Reads a little-endian `u32`.
    pub fn u32(&mut self, field: &'static str) -> Result<u32, DecodeError> {
        Ok(LittleEndian::read_u32(&self.array::<4>(field)?))
    }

    /// Reads a little-endian `i32`.
    pub fn i32(&mut self, field: &'static str) -> Result<i32, DecodeError> {
        Ok(LittleEndian::read_i32(&self.array::<4>(field)?))
    }

    /// Reads a little-endian `u64`.
    pub fn u64(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        Ok(LittleEndian::read_u64(&self.array::<8>(field)?))
    }

    /// Reads a little-endian `i64`.
    pub fn i64(&mut self, field: &'static str) -> Result<i64, DecodeError> {
        Ok(LittleEndian::read_i64(&self.array::<8>(field)?))
    }

    /// Reads a `CompactSize`: one byte below 0xfd, or 0xfd, 0xfe, 0xff and two, four, eight bytes.
    ///
    /// # Errors
    /// Also [`DecodeError::NonCanonical`] if a shorter form would have done (Bitcoin Core serialize.h
    /// `ReadCompactSize`).
    pub fn compact_size(&mut self, field: &'static str) -> Result<u64, DecodeError> {
        let start = self.clone();
        let (value, least) = match self.u8(field)? {
            0xfd => (
                self.array(field)
                    .map(|bytes| u64::from(LittleEndian::read_u16(&bytes as &[u8; 2]))),
                0xfd,
            ),
            0xfe => (self.u32(field).map(u64::from), 0x1_0000),
            0xff => (self.u64(field), 0x1_0000_0000),
            byte => (Ok(u64::from(byte)), 0),
        };
        // A cut in the middle is told from the field's start.
        let value = value.map_err(|_| start.truncated(field, start.compact_size_length()))?;
        if value < least {
            return Err(DecodeError::NonCanonical { field, value, offset: start.offset });
        }
        Ok(value)
    }

    /// How many bytes the `CompactSize` at the front takes, by its first byte; 1 if nothing is there.
    pub fn compact_size_length(&self) -> usize {
        match self.rest.first() {
            Some(0xfd) => 3,
            Some(0xfe) => 5,
            Some(0xff) => 9,
            _ => 1,
        }
    }

    fn truncated(&self, field: &'static str, expected: usize) -> DecodeError {
        DecodeError::Truncated {
            field,
            expected: widen(expected),
            came: widen(self.rest.len()),
            offset: self.offset,
        }
    }
}

/// Writes fields behind what a vector already holds.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes bytes as they are.
    pub fn bytes(&mut self, bytes: &[u8]) {
        self.out.extend_from_slice(bytes);
    }

    /// Writes one byte.
    pub fn u8(&mut self, value: u8) {
        self.out.push(value);
    }

    /// Writes a big-endian `u16`.
    pub fn u16_be(&mut self, value: u16) {
        let mut bytes = [0; 2];
        BigEndian::write_u16(&mut bytes, value);
        self.bytes(&bytes);
    }

    /// Writes a little-endian `u32`.
    pub fn u32(&mut self, value: u32) {
        let mut bytes = [0; 4];
        LittleEndian::write_u32(&mut bytes, value);
        self.bytes(&bytes);
    }

    /// Writes a little-endian `i32`.
    pub fn i32(&mut self, value: i32) {
        let mut bytes = [0; 4];
        LittleEndian::write_i32(&mut bytes, value);
        self.bytes(&bytes);
    }

    /// Writes a little-endian `u64`.
    pub fn u64(&mut self, value: u64) {
        let mut bytes = [0; 8];
        LittleEndian::write_u64(&mut bytes, value);
        self.bytes(&bytes);
    }

    /// Writes a little-endian `i64`.
    pub fn i64(&mut self, value: i64) {
        let mut bytes = [0; 8];
        LittleEndian::write_i64(&mut bytes, value);
        self.bytes(&bytes);
    }

    /// Writes a `CompactSize` in its shortest form.
    pub fn compact_size(&mut self, value: u64) {
        if let Ok(value) = u8::try_from(value)
            && value < 0xfd
        {
            self.u8(value);
        } else if let Ok(value) = u16::try_from(value) {
            let mut bytes = [0; 2];
            LittleEndian::write_u16(&mut bytes, value);
            self.u8(0xfd);
            self.bytes(&bytes);
        } else if let Ok(value) = u32::try_from(value) {
            self.u8(0xfe);
            self.u32(value);
        } else {
            self.u8(0xff);
            self.u64(value);
        }
    }
}

/// A length as the wire counts it; `usize` is at most 64 bits wide wherever std runs.
pub(super) fn widen(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}
