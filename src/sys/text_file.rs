//! Reads whole text files with bounds on their size and time, and quotes untrusted text.

use std::fs::{self, OpenOptions};
use std::io::{self, Read};
use std::os::fd::AsFd;
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt};
use std::path::Path;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec};

use crate::sys::clock::{Clock, LoopClock};

/// Maximum time for reading a pipe to its end.
pub const READ_TIMEOUT: Duration = Duration::from_secs(10);

/// Reads a file of at most `limit` bytes. A pipe is read to its end, within [`READ_TIMEOUT`].
///
/// # Errors
/// The file cannot be read, is larger or slower, or is an empty pipe: one line, without the name of
/// the file.
pub fn read(path: &Path, limit: u64) -> Result<Vec<u8>, String> {
    let unreadable = |error| format!("cannot be read: {}", cause(&error));
    let open = OpenOptions::new().read(true).custom_flags(O_NONBLOCK).open(path);
    let file = open.map_err(unreadable)?;
    let bytes = read_all(file, limit)?;
    // What was in a pipe is gone at its second reading.
    if bytes.is_empty() && is_pipe(path) {
        return Err("is a pipe without any content".to_owned());
    }
    Ok(bytes)
}

/// Reads standard input like a file.
///
/// # Errors
/// Those of [`read`].
pub fn read_stdin(limit: u64) -> Result<Vec<u8>, String> {
    read_all(io::stdin().lock(), limit)
}

/// Whether the file is a pipe, which can be read only once.
pub fn is_pipe(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.file_type().is_fifo())
}

// containerd/rust-extensions PR 356: a pipe that has no bytes yet is not at its end.
fn read_all(mut file: impl Read + AsFd, limit: u64) -> Result<Vec<u8>, String> {
    let clock = LoopClock::new(Clock::new());
    let mut bytes = Vec::new();
    while bytes.len() as u64 <= limit {
        let left = READ_TIMEOUT.saturating_sub(clock.now().mono);
        if left.is_zero() {
            return Err(format!("does not end within {} s", READ_TIMEOUT.as_secs()));
        }
        clock.announce(left);
        let wait = Timespec::try_from(left).ok();
        let mut ready = [PollFd::new(&file, PollFlags::IN)];
        // A failure surfaces in the read.
        if rustix::event::poll(&mut ready, wait.as_ref()) == Ok(0) {
            continue;
        }
        let mut piece = [0; 64 * 1024];
        let room = usize::try_from(limit + 1 - bytes.len() as u64).unwrap_or(usize::MAX);
        let room = room.min(piece.len());
        match file.read(&mut piece[..room]) {
            Ok(0) => return Ok(bytes),
            Ok(length) => bytes.extend_from_slice(&piece[..length]),
            Err(error) if is_transient(&error) => {}
            Err(error) => return Err(format!("cannot be read: {}", cause(&error))),
        }
    }
    Err(format!("is larger than {} MB", limit / 1_000_000))
}

fn is_transient(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock)
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

/// Linux's flag for opening without blocking: a named pipe opens without a writer, and fails
/// without a reader.
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

    /// A named pipe and a thread that writes into it.
    fn pipe(write: impl FnOnce(fs::File) + Send + 'static) -> tempfile::TempDir {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        let status = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
        assert!(status.success());
        std::thread::spawn(move || {
            std::thread::park_timeout(Duration::from_millis(100));
            write(OpenOptions::new().write(true).open(path).unwrap());
        });
        directory
    }

    #[test]
    fn a_pipe_is_read_to_its_end_however_slowly_it_comes() {
        let directory = pipe(|mut pipe| {
            for _ in 0..4 {
                io::Write::write_all(&mut pipe, &[b'x'; 50_000]).unwrap();
                std::thread::park_timeout(Duration::from_millis(100));
            }
        });
        let bytes = read(&directory.path().join("pipe"), 1_000_000).unwrap();
        assert_eq!(bytes.len(), 200_000);
    }

    #[test]
    fn an_endless_or_empty_pipe_is_refused() {
        let directory =
            pipe(|mut pipe| while io::Write::write_all(&mut pipe, &[b'x'; 50_000]).is_ok() {});
        let error = read(&directory.path().join("pipe"), 1_000_000).unwrap_err();
        assert_eq!(error, "is larger than 1 MB");
        let directory = pipe(drop);
        let error = read(&directory.path().join("pipe"), 1_000_000).unwrap_err();
        assert_eq!(error, "is a pipe without any content");
    }

    #[test]
    fn a_pipe_that_does_not_end_is_given_up() {
        let directory = pipe(|pipe| {
            std::thread::park_timeout(2 * READ_TIMEOUT);
            drop(pipe);
        });
        let begin = Clock::new();
        let error = read(&directory.path().join("pipe"), 1_000_000).unwrap_err();
        assert_eq!(error, "does not end within 10 s");
        assert!(begin.now().mono < 2 * READ_TIMEOUT);
    }

    #[test]
    fn a_named_pipe_without_a_writer_is_given_up() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("pipe");
        assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
        let (sender, receiver) = std::sync::mpsc::channel();
        std::thread::spawn(move || sender.send(read(&path, 1_000_000)));
        let result = receiver.recv_timeout(2 * READ_TIMEOUT).expect("opening it does not block");
        assert_eq!(result.unwrap_err(), "does not end within 10 s");
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
