//! Escapes user agents, so that terminals, logs and web pages can show them safely.
//!
//! Invariants:
//! 1. [`from_bytes`] returns printable ASCII for any input.
//! 2. It is lossless: [`to_bytes`] restores the bytes, and different bytes have different texts.

/// Escapes bytes; the text is at most four times as long.
///
/// ```
/// use watchglass::text;
///
/// assert_eq!(text::from_bytes(b"/Satoshi:28.1.0/"), "/Satoshi:28.1.0/");
/// assert_eq!(text::from_bytes(b"\x1b[31m\\"), r"\x1b[31m\\");
/// assert_eq!(text::to_bytes(r"\x1b[31m\\").as_deref(), Some(&b"\x1b[31m\\"[..]));
/// ```
///
/// Bytes 0x20 to 0x7e stay, except the backslash, which becomes `\\`; every other byte becomes
/// `\xNN` (lower case).
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

/// The inverse of [`from_bytes`]; `None` if no bytes have this text.
///
/// Unnecessary escapes (`\x41`) and upper-case digits are rejected as well.
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
    fn other_texts_are_rejected() {
        for bad in [
            r"\", r"\x", r"\x0", r"\x0g", r"\x+1", r"\n", r"\x41", r"\x5c", r"\xFF", "\n", "é",
            "\u{7f}",
        ] {
            assert_eq!(to_bytes(bad), None, "{bad:?}");
        }
    }

    #[test]
    fn every_byte_round_trips() {
        let all: Vec<u8> = (0..=255).collect();
        let text = from_bytes(&all);
        assert!(text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)));
        assert_eq!(to_bytes(&text), Some(all));
    }
}
