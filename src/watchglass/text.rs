//! User agents as text that can be trusted: shown in a terminal, a log and a web page without harm.
//!
//! Layer 0. Owns: the escaping of a stranger's bytes.
//!
//! Invariants:
//! 1. [`from_bytes`] gives nothing but printable ASCII, whatever came.
//! 2. It loses nothing: [`to_bytes`] gives the same bytes back, and two different byte strings
//!    never have the same text.

/// The text of these bytes, at most four times as long.
///
/// ```
/// use bitdash::watchglass::text;
///
/// assert_eq!(text::from_bytes(b"/Satoshi:28.1.0/"), "/Satoshi:28.1.0/");
/// assert_eq!(text::from_bytes(b"\x1b[31m\\"), r"\x1b[31m\\");
/// assert_eq!(text::to_bytes(r"\x1b[31m\\").as_deref(), Some(&b"\x1b[31m\\"[..]));
/// ```
///
/// Bytes 0x20 to 0x7e as they are but the backslash as `\\`; every other byte as `\xNN` (lower
/// case).
pub fn from_bytes(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for byte in bytes {
        match byte {
            b'\\' => text.push_str("\\\\"),
            0x20..=0x7e => text.push(char::from(*byte)),
            _ => {
                text.push_str("\\x");
                for nibble in [byte >> 4, byte & 0x0f] {
                    text.extend(char::from_digit(u32::from(nibble), 16));
                }
            }
        }
    }
    text
}

/// The bytes that this is the text of; `None` if no bytes have this text.
///
/// What is escaped though it need not be (`\x41`) and upper-case digits are no text of ours either.
pub fn to_bytes(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.bytes();
    while let Some(byte) = rest.next() {
        bytes.push(match byte {
            b'\\' => match rest.next()? {
                b'\\' => b'\\',
                b'x' => {
                    let high = digit(rest.next()?)?;
                    let byte = high << 4 | digit(rest.next()?)?;
                    if matches!(byte, 0x20..=0x7e) {
                        return None;
                    }
                    byte
                }
                _ => return None,
            },
            0x20..=0x7e => byte,
            _ => return None,
        });
    }
    Some(bytes)
}

fn digit(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte.wrapping_sub(b'0')),
        b'a'..=b'f' => Some(byte.wrapping_sub(b'a').wrapping_add(10)),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_backslashes_and_unprintable_bytes_are_escaped() {
        let table: [(&[u8], &str); 7] = [
            (b"", ""),
            (b"/Satoshi:29.3.0(a b~)/", "/Satoshi:29.3.0(a b~)/"),
            (br"a\b", r"a\\b"),
            (br"\x41", r"\\x41"),
            (b"\0\x1f\x7f\x80\xff", r"\x00\x1f\x7f\x80\xff"),
            ("/Bitcoïn/".as_bytes(), r"/Bitco\xc3\xafn/"),
            (b"<script>\r\n", r"<script>\x0d\x0a"),
        ];
        for (bytes, text) in table {
            assert_eq!(from_bytes(bytes), text);
            assert_eq!(to_bytes(text).as_deref(), Some(bytes));
        }
    }

    #[test]
    fn text_that_no_bytes_have_is_refused() {
        for bad in [
            r"\", r"\x", r"\x0", r"\x0g", r"\x+1", r"\n", r"\x41", r"\x5c", r"\xFF", "\n", "é",
            "\u{7f}",
        ] {
            assert_eq!(to_bytes(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_byte_comes_back() {
        let all: Vec<u8> = (0..=255).collect();
        let text = from_bytes(&all);
        assert!(text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)));
        assert_eq!(to_bytes(&text), Some(all));
    }
}
