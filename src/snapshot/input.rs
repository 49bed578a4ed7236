//! The bytes of a list, decompressed and bounded.

use std::cell::Cell;
use std::io::{self, BufReader, Cursor, Read};
use std::rc::Rc;

use flate2::read::MultiGzDecoder;

use super::{FREE_BYTES, MAX_BYTES, MAX_DEPTH, MAX_LINE_BYTES, MAX_RATIO};

const BUFFER_BYTES: usize = 64 << 10;
const GZIP: [u8; 2] = [0x1f, 0x8b];

/// Decompresses the input if it is gzip, and bounds it.
pub(super) fn open<'i>(mut input: impl Read + 'i) -> io::Result<BufReader<Box<dyn Read + 'i>>> {
    let mut head = Vec::new();
    input.by_ref().take(GZIP.len() as u64).read_to_end(&mut head)?;
    let is_packed = head == GZIP;
    let input = Cursor::new(head).chain(input);
    let input: Box<dyn Read> = if is_packed {
        let packed = Rc::new(Cell::new(0));
        let input = Counted { input, bytes: Rc::clone(&packed) };
        Box::new(Bounded { input: MultiGzDecoder::new(input), bytes: 0, packed: Some(packed) })
    } else {
        Box::new(Bounded { input, bytes: 0, packed: None })
    };
    Ok(BufReader::with_capacity(BUFFER_BYTES, input))
}

struct Counted<R> {
    input: R,
    bytes: Rc<Cell<u64>>,
}

impl<R: Read> Read for Counted<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.bytes.set(self.bytes.get() + count as u64);
        Ok(count)
    }
}

struct Bounded<R> {
    input: R,
    bytes: u64,
    /// Number of compressed bytes read.
    packed: Option<Rc<Cell<u64>>>,
}

impl<R: Read> Read for Bounded<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        self.bytes += count as u64;
        if self.bytes > MAX_BYTES {
            return Err(io::Error::other(format!("it is larger than {} MB", MAX_BYTES >> 20)));
        }
        let packed = self.packed.as_ref().map_or(u64::MAX / MAX_RATIO, |packed| packed.get());
        if self.bytes > FREE_BYTES && self.bytes > MAX_RATIO * packed {
            let what = format!("it expands more than {MAX_RATIO}-fold: no list of nodes does");
            return Err(io::Error::other(what));
        }
        Ok(count)
    }
}

/// Bounds the values and the depth of JSON, which its parser does not, and counts lines.
pub(super) struct JsonGuard<R> {
    pub(super) input: R,
    pub(super) line: Rc<Cell<u64>>,
    pub(super) state: JsonState,
}

#[derive(Default)]
pub(super) struct JsonState {
    is_string: bool,
    is_escaped: bool,
    length: usize,
    depth: u32,
}

impl JsonState {
    fn next(&mut self, byte: u8) {
        let is_escaped = std::mem::take(&mut self.is_escaped);
        self.length += 1;
        if self.is_string {
            self.is_escaped = byte == b'\\' && !is_escaped;
            self.is_string = byte != b'"' || is_escaped;
            return;
        }
        match byte {
            b'"' => self.is_string = true,
            b'[' | b'{' => self.depth += 1,
            b']' | b'}' => self.depth = self.depth.saturating_sub(1),
            b',' | b':' | b' ' | b'\t' | b'\r' | b'\n' => {}
            _ => return,
        }
        self.length = 0;
    }
}

impl<R: Read> Read for JsonGuard<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.input.read(buffer)?;
        for byte in &buffer[..count] {
            self.state.next(*byte);
            if *byte == b'\n' {
                self.line.set(self.line.get() + 1);
            }
            if self.state.length > MAX_LINE_BYTES {
                let what = format!("a value is longer than {MAX_LINE_BYTES} bytes");
                return Err(io::Error::other(what));
            }
            if self.state.depth > MAX_DEPTH {
                return Err(io::Error::other(format!("it is nested deeper than {MAX_DEPTH}")));
            }
        }
        Ok(count)
    }
}
