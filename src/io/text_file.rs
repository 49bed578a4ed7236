//! Reading a whole file that a person wrote, with a bound on its size.
//!
//! Layer 3. Whatever stands in such a file, reading it takes bounded memory and gives one clear
//! line.

use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Reads a file of at most `limit` bytes.
///
/// # Errors
/// One line without the file's name: it cannot be read, or is larger.
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

/// Strips the byte order mark that some editors put in front.
pub fn without_bom(bytes: &[u8]) -> &[u8] {
    bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes)
}

/// A stranger's or a person's text for a message: quoted, on one line, without control characters,
/// bounded.
pub fn quoted(text: &str) -> String {
    let mut out = String::from("\"");
    for (index, c) in text.chars().enumerate() {
        if index == QUOTED_CHARS {
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

/// What an operating system error says, in lower case as all messages are.
pub fn cause(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "no such file or folder".to_owned(),
        io::ErrorKind::PermissionDenied => "permission denied".to_owned(),
        io::ErrorKind::IsADirectory => "it is a folder".to_owned(),
        _ => error.to_string().to_lowercase(),
    }
}

/// Linux' number for files that are never waited for: a named pipe without a writer is empty, and one without a
/// reader is refused.
pub const O_NONBLOCK: i32 = 0o4000;

const QUOTED_CHARS: usize = 60;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_at_the_limit_is_read_and_one_byte_more_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("list");
        std::fs::write(&path, vec![b'x'; 1_000_000]).unwrap();
        assert_eq!(read(&path, 1_000_000).unwrap().len(), 1_000_000);
        std::fs::write(&path, vec![b'x'; 1_000_001]).unwrap();
        assert_eq!(read(&path, 1_000_000).unwrap_err(), "is larger than 1 MB");
    }

    #[test]
    fn unreadable_files_say_why() {
        let folder = tempfile::tempdir().unwrap();
        let missing = read(&folder.path().join("none"), 10).unwrap_err();
        assert_eq!(missing, "cannot be read: no such file or folder");
        assert_eq!(read(folder.path(), 10).unwrap_err(), "cannot be read: it is a folder");
    }

    #[test]
    fn quoted_text_is_one_bounded_line() {
        assert_eq!(quoted("a\"b\\c\n\u{7}"), "\"a\\\"b\\\\c\\n\\u{7}\"");
        assert_eq!(quoted(&"x".repeat(1000)).len(), QUOTED_CHARS + 5);
    }
}
