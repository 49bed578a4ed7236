//! Reads whole text files with a bound on their size, and quotes untrusted text.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// The file cannot be read or is larger: one line, without the name of the file.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let read_all = || -> io::Result<Vec<u8>> {
        let mut bytes = Vec::new();
        let file = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path)?;
        file.take(limit + 1).read_to_end(&mut bytes)?;
        Ok(bytes)
    };
    let bytes = read_all().map_err(|error| format!("cannot be read: {}", cause(&error)))?;
    if bytes.len() as u64 > limit {
        return Err(format!("is larger than {} MB", limit / 1_000_000));
    }
    Ok(bytes)
}

/// Strips a leading byte order mark.
pub fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// Untrusted text for a message: quoted, escaped, on one line and of bounded length.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for (index, c) in text.chars().enumerate() {
        if index == MAX_QUOTED_CHARS {
            out.push_str("...");
            break;
        }
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.extend(c.escape_default()),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// The text of an operating system error, as other programs print it.
pub fn cause(error: &io::Error) -> String {
    let text = error.to_string();
    text.split(" (os error").next().unwrap_or(&text).to_owned()
}

/// Linux's flag for opening without blocking: a named pipe without a writer reads as empty, and one
/// without a reader fails.
pub const O_NONBLOCK: i32 = 0o4000;

const MAX_QUOTED_CHARS: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_above_the_limit_is_rejected() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("list");
        std::fs::write(&path, vec![b'x'; 1_000_000]).unwrap();
        assert_eq!(read(&path, 1_000_000).unwrap().len(), 1_000_000);
        std::fs::write(&path, vec![b'x'; 1_000_001]).unwrap();
        assert_eq!(read(&path, 1_000_000).unwrap_err(), "is larger than 1 MB");
    }

    #[test]
    fn the_error_of_an_unreadable_file_says_why() {
        let directory = tempfile::tempdir().unwrap();
        let missing = read(&directory.path().join("none"), 10).unwrap_err();
        assert_eq!(missing, "cannot be read: No such file or directory");
        assert_eq!(read(directory.path(), 10).unwrap_err(), "cannot be read: Is a directory");
    }

    #[test]
    fn quoted_text_is_one_bounded_line() {
        assert_eq!(quoted("a\"b\\c\n\u{7}"), "\"a\\\"b\\\\c\\n\\u{7}\"");
        assert_eq!(quoted(&"x".repeat(1000)).len(), MAX_QUOTED_CHARS + 5);
    }
}
