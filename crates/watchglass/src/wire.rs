//! Integers and byte strings of the wire, read from a slice and appended to a vector.
//!
//! Invariants:
//! 1. A [`Reader`] never reads past its slice; a missing field is a typed error with its offset.
//! 2. A [`Reader`] reads back what a [`Writer`] wrote.

use byteorder::{BigEndian, ByteOrder, LittleEndian};

use super::error::DecodeError;

/// Reads fields from the front of a slice. `field` is the field's name in errors.
///
/// ```
/// use watchglass::wire::{Reader, Writer};
///
/// let mut bytes = Vec::new();
/// let mut writer = Writer::new(&mut bytes);
/// writer.compact_size(1000);
/// writer.u16_be(8333);
/// assert_eq!(bytes, [0xfd, 0xe8, 0x03, 0x20, 0x8d]);
///
/// let mut reader = Reader::new(&bytes);
/// assert_eq!(reader.compact_size("count")?, 1000);
/// assert_eq!(reader.u16_be("port")?, 8333);
/// assert!(reader.is_empty());
/// let error = reader.u8("relay").unwrap_err();
/// assert_eq!(error.to_string(), "expected 1 bytes of relay, got 0 at offset 5");
/// # Ok::<(), watchglass::DecodeError>(())
/// ```
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

    /// Number of bytes read or skipped.
    pub fn offset(&self) -> u64 {
        self.offset
    }

    /// Whether nothing is left.
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// Advances the offset past bytes of the payload that the slice omits.
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

    /// Reads a big-endian `u16`: a port.
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

    /// Reads a `CompactSize`: one byte below 0xfd, or 0xfd, 0xfe, 0xff and 2, 4, 8 bytes.
    ///
    /// # Errors
    /// Also [`DecodeError::NonCanonical`] if a shorter form exists (Bitcoin Core serialize.h
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
        // A truncation is reported from the start of the field.
        let value = value.map_err(|_| start.truncated(field, start.compact_size_length()))?;
        if value < least {
            return Err(DecodeError::NonCanonical { field, value, offset: start.offset });
        }
        Ok(value)
    }

    /// Length of the `CompactSize` at the front, by its first byte; 1 at the end of the slice.
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

/// Appends fields to a vector.
#[derive(Debug)]
pub struct Writer<'a> {
    out: &'a mut Vec<u8>,
}

impl<'a> Writer<'a> {
    /// Creates a writer that appends to `out`.
    pub fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out }
    }

    /// Writes raw bytes.
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

/// A length as `u64`: `usize` has at most 64 bits on every platform of std.
pub(super) fn widen(length: usize) -> u64 {
    u64::try_from(length).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(bytes: &[u8]) -> Result<u64, DecodeError> {
        Reader::new(bytes).compact_size("n")
    }

    #[test]
    fn compact_size_uses_the_shortest_form() {
        let table: [(u64, &[u8]); 9] = [
            (0, &[0]),
            (0xfc, &[0xfc]),
            (0xfd, &[0xfd, 0xfd, 0]),
            (1000, &[0xfd, 0xe8, 0x03]),
            (0xffff, &[0xfd, 0xff, 0xff]),
            (0x1_0000, &[0xfe, 0, 0, 1, 0]),
            (0xffff_ffff, &[0xfe, 0xff, 0xff, 0xff, 0xff]),
            (0x1_0000_0000, &[0xff, 0, 0, 0, 0, 1, 0, 0, 0]),
            (u64::MAX, &[0xff; 9]),
        ];
        for (value, bytes) in table {
            let mut out = Vec::new();
            Writer::new(&mut out).compact_size(value);
            assert_eq!(out, bytes, "{value}");
            assert_eq!(read(bytes), Ok(value));
            assert_eq!(Reader::new(bytes).compact_size_length(), bytes.len());
        }
    }

    #[test]
    fn compact_size_in_a_longer_form_is_refused() {
        let table: [(u64, &[u8]); 6] = [
            (0, &[0xfd, 0, 0]),
            (0xfc, &[0xfd, 0xfc, 0]),
            (0xfd, &[0xfe, 0xfd, 0, 0, 0]),
            (0xffff, &[0xfe, 0xff, 0xff, 0, 0]),
            (1, &[0xff, 1, 0, 0, 0, 0, 0, 0, 0]),
            (0xffff_ffff, &[0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]),
        ];
        for (value, bytes) in table {
            assert_eq!(
                read(bytes),
                Err(DecodeError::NonCanonical { field: "n", value, offset: 0 })
            );
        }
    }

    #[test]
    fn truncated_compact_size_reports_its_start_and_length() {
        let table: [(&[u8], u64); 6] = [
            (&[], 1),
            (&[0xfd], 3),
            (&[0xfd, 1], 3),
            (&[0xfe, 1, 2, 3], 5),
            (&[0xff], 9),
            (&[0xff; 8], 9),
        ];
        for (bytes, expected) in table {
            let came = widen(bytes.len());
            assert_eq!(
                read(bytes),
                Err(DecodeError::Truncated { field: "n", expected, came, offset: 0 })
            );
        }
        let mut reader = Reader::new(&[7, 0xfd]);
        assert_eq!(reader.u8("first"), Ok(7));
        let cut = DecodeError::Truncated { field: "n", expected: 3, came: 1, offset: 1 };
        assert_eq!(reader.compact_size("n"), Err(cut));
    }

    #[test]
    fn integers_have_the_byte_order_of_the_wire() {
        let mut out = Vec::new();
        let mut writer = Writer::new(&mut out);
        writer.u8(1);
        writer.u16_be(8333);
        writer.u32(0x0102_0304);
        writer.i32(-2);
        writer.u64(0x0102_0304_0506_0708);
        writer.i64(-1);
        writer.bytes(b"ab");
        let expected = [
            1, 0x20, 0x8d, 4, 3, 2, 1, 0xfe, 0xff, 0xff, 0xff, 8, 7, 6, 5, 4, 3, 2, 1, 0xff, 0xff,
            0xff, 0xff, 0xff, 0xff, 0xff, 0xff, b'a', b'b',
        ];
        assert_eq!(out, expected);

        let mut reader = Reader::new(&out);
        assert_eq!(reader.u8("u8"), Ok(1));
        assert_eq!(reader.u16_be("port"), Ok(8333));
        assert_eq!(reader.u32("u32"), Ok(0x0102_0304));
        assert_eq!(reader.i32("i32"), Ok(-2));
        assert_eq!(reader.u64("u64"), Ok(0x0102_0304_0506_0708));
        assert_eq!(reader.i64("i64"), Ok(-1));
        assert_eq!(reader.bytes(2, "rest"), Ok(&b"ab"[..]));
        assert!(reader.is_empty());
        assert_eq!(reader.offset(), 29);
    }

    #[test]
    fn failed_read_consumes_nothing() {
        let mut reader = Reader::new(&[1, 2, 3]);
        let cut = DecodeError::Truncated { field: "f", expected: 4, came: 3, offset: 0 };
        assert_eq!(reader.u32("f"), Err(cut.clone()));
        assert_eq!(reader.bytes(4, "f"), Err(cut));
        assert_eq!(reader.offset(), 0);
        assert_eq!(reader.bytes(3, "f"), Ok(&[1, 2, 3][..]));
    }
}
