//! The log: lines with a UTC time and a level, to standard error or to a file that SIGHUP reopens.
//!
//! Layer 3. Invariants:
//! 1. a record is one line, whatever text is in it;
//! 2. a line that cannot be written (a full disk) stops nothing; it is counted, and the next line
//!    that can
//!    be written says how many were lost.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::{LevelFilter, Log, Metadata, Record};
use simplelog::{ConfigBuilder, WriteLogger};

use crate::io::{terminal, text_file};

/// The running log: swaps its file and says how many lines were lost.
#[derive(Clone)]
pub struct LogHandle(Arc<Mutex<Sink>>);

/// A log file that cannot be opened.
#[derive(Debug)]
pub struct LogError {
    path: PathBuf,
    cause: io::Error,
}

/// Starts the log of this process: to `file`, or to standard error without one.
///
/// Lines of other crates (postgres, mio) are kept from level warn on.
///
/// # Errors
/// The file cannot be opened.
///
/// # Panics
/// If the process has a logger already.
pub fn start(file: Option<&Path>, level: LevelFilter) -> Result<LogHandle, LogError> {
    let handle = LogHandle::to(open(file)?);
    log::set_boxed_logger(handle.logger()).expect("a process starts its log once");
    log::set_max_level(level);
    Ok(handle)
}

impl LogHandle {
    fn to(output: Box<dyn Write + Send>) -> Self {
        Self(Arc::new(Mutex::new(Sink { output, line: Vec::new(), lost: 0, torn: false })))
    }

    fn logger(&self) -> Box<dyn Log> {
        let config = ConfigBuilder::new()
            .set_time_format_rfc3339()
            .set_thread_level(LevelFilter::Off)
            .set_target_level(LevelFilter::Off)
            .set_location_level(LevelFilter::Off)
            .build();
        // The level of simplelog is fixed for ever: all pass it, and `log::set_max_level` decides.
        let writer = WriteLogger::new(LevelFilter::Trace, config, SharedSink(Arc::clone(&self.0)));
        Box::new(Filtered { writer, turn: Mutex::new(()) })
    }

    /// Opens the log file (again) and sets the level: for SIGHUP, after a new configuration or
    /// logrotate. A file that was moved away is made anew.
    ///
    /// # Errors
    /// The file cannot be opened; the log then goes on where it was.
    pub fn reopen(&self, file: Option<&Path>, level: LevelFilter) -> Result<(), LogError> {
        let output = open(file)?;
        self.sink().output = output;
        log::set_max_level(level);
        Ok(())
    }

    /// How many lines could not be written and are not yet owned up to in the log.
    pub fn lost_lines(&self) -> u64 {
        self.sink().lost
    }

    fn sink(&self) -> MutexGuard<'_, Sink> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(file: Option<&Path>) -> Result<Box<dyn Write + Send>, LogError> {
    let Some(path) = file else { return Ok(Box::new(terminal::Stderr)) };
    let opened: io::Result<File> = OpenOptions::new().append(true).create(true).open(path);
    match opened {
        Ok(file) => Ok(Box::new(file)),
        Err(cause) => Err(LogError { path: path.to_owned(), cause }),
    }
}

/// Where lines end up.
struct Sink {
    output: Box<dyn Write + Send>,
    /// The line that is being put together; simplelog writes it in pieces.
    line: Vec<u8>,
    /// Lines that could not be written since the last one that could.
    lost: u64,
    /// Whether a part of a line stands at the end of the output.
    torn: bool,
}

impl Sink {
    /// Writes the line in one go, so that lines of two processes do not mix. Never fails.
    fn write_line(&mut self) {
        let newlines_inside = self.line.iter().filter(|&&byte| byte == b'\n').count() > 1;
        if newlines_inside {
            self.line = on_one_line(&self.line);
        }
        let mut whole = Vec::new();
        if self.torn {
            whole.push(b'\n');
        }
        if self.lost > 0 {
            // The time and level of the line that gets through.
            let head = self.line.iter().position(|&b| b == b' ').unwrap_or(0);
            whole.extend_from_slice(&self.line[..head]);
            whole.extend_from_slice(format!(" [WARN] log lost={}\n", self.lost).as_bytes());
        }
        whole.append(&mut self.line);
        match write_some(&mut *self.output, &whole) {
            written if written == whole.len() => (self.lost, self.torn) = (0, false),
            0 => self.lost = self.lost.saturating_add(1),
            _ => (self.lost, self.torn) = (self.lost.saturating_add(1), true),
        }
        if whole.capacity() <= KEPT_CAPACITY {
            whole.clear();
            self.line = whole;
        }
    }
}

/// Writes until done or until an error, and says how much was written.
fn write_some(output: &mut dyn Write, bytes: &[u8]) -> usize {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match output.write(rest) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(_) => break,
        }
    }
    written
}

/// Replaces every newline but the last by its escape: messages of PostgreSQL may have several
/// lines.
fn on_one_line(line: &[u8]) -> Vec<u8> {
    let body = line.strip_suffix(b"\n").unwrap_or(line);
    let mut out = Vec::with_capacity(line.len() + 16);
    for &byte in body {
        match byte {
            b'\n' => out.extend_from_slice(b"\\n"),
            byte => out.push(byte),
        }
    }
    out.push(b'\n');
    out
}

/// What simplelog writes to. A record ends where [`Filtered`] says so, by a flush.
struct SharedSink(Arc<Mutex<Sink>>);

impl Write for SharedSink {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        // A record longer than this is cut: nothing that we log is, but an error's text may be.
        let room = MAX_LINE.saturating_sub(sink.line.len());
        sink.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut sink = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if !sink.line.is_empty() {
            if sink.line.last() != Some(&b'\n') {
                sink.line.push(b'\n');
            }
            sink.write_line();
        }
        Ok(())
    }
}

/// Lets our own records pass, and those of other crates from warn on; one record at a time.
struct Filtered<L> {
    writer: Box<L>,
    /// Held from a record's first byte to its flush, so that lines of two threads stay two.
    turn: Mutex<()>,
}

impl<L: Log> Log for Filtered<L> {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let ours = target == OUR_TARGET
            || target.strip_prefix(OUR_TARGET).is_some_and(|rest| rest.starts_with("::"));
        (ours || metadata.level() <= log::Level::Warn) && self.writer.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let _turn = self.turn.lock().unwrap_or_else(PoisonError::into_inner);
            self.writer.log(record);
            self.writer.flush();
        }
    }

    fn flush(&self) {
        self.writer.flush();
    }
}

impl std::fmt::Display for LogError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let cause = text_file::cause(&self.cause);
        write!(f, "log.file {}: cannot be opened: {cause}", self.path.display())
    }
}

impl std::error::Error for LogError {}

/// The target of all records of this crate, its binaries included.
const OUR_TARGET: &str = "bitdash";

/// The longest line, in bytes.
const MAX_LINE: usize = 16 * 1024;

/// A line buffer larger than this is not kept.
const KEPT_CAPACITY: usize = 4 * 1024;

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    fn say(logger: &dyn Log, level: Level, target: &str, text: &str) {
        let arguments = format_args!("{text}");
        logger.log(&Record::builder().level(level).target(target).args(arguments).build());
    }

    /// The lines without their times, which are checked to be such.
    fn without_times(text: &str) -> Vec<String> {
        let cut = |line: &str| {
            let (time, rest) = line.split_once(' ').unwrap_or((line, ""));
            assert!(time.len() >= 20 && time.ends_with('Z') && &time[10..11] == "T", "{line}");
            rest.to_owned()
        };
        text.lines().map(cut).collect()
    }

    #[test]
    fn a_moved_file_is_made_anew_on_reopen() {
        let folder = tempfile::tempdir().unwrap();
        let (path, moved) = (folder.path().join("b.log"), folder.path().join("b.log.1"));
        let handle = LogHandle::to(open(Some(&path)).unwrap());
        let logger = handle.logger();
        say(&*logger, Level::Info, "bitdash", "one=1");
        std::fs::rename(&path, &moved).unwrap();
        say(&*logger, Level::Warn, "bitdash::io::driver", "two=2");
        handle.sink().output = open(Some(&path)).unwrap();
        say(&*logger, Level::Error, "bitdash", "three=3");
        let read = |path| without_times(&std::fs::read_to_string(path).unwrap());
        assert_eq!(read(&moved), ["[INFO] one=1", "[WARN] two=2"]);
        assert_eq!(read(&path), ["[ERROR] three=3"]);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_one_line_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.log");
        let handle = LogHandle::to(open(Some(&path)).unwrap());
        let wrong = folder.path().join("none/b.log");
        let error = handle.reopen(Some(&wrong), LevelFilter::Info).unwrap_err().to_string();
        let expected =
            format!("log.file {}: cannot be opened: no such file or folder", wrong.display());
        assert_eq!(error, expected);
        say(&*handle.logger(), Level::Info, "bitdash", "still=here");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("[INFO] still=here\n"));
    }

    #[test]
    fn other_crates_are_heard_from_warn_on() {
        let output = Output::default();
        let handle = LogHandle::to(Box::new(output.clone()));
        let logger = handle.logger();
        for target in ["bitdash", "bitdash::x", "bitdashboard", "tokio_postgres::connection", "mio"]
        {
            for level in [Level::Trace, Level::Info, Level::Warn] {
                say(&*logger, level, target, target);
            }
        }
        let expected = [
            "[TRACE] bitdash",
            "[INFO] bitdash",
            "[WARN] bitdash",
            "[TRACE] bitdash::x",
            "[INFO] bitdash::x",
            "[WARN] bitdash::x",
            "[WARN] bitdashboard",
            "[WARN] tokio_postgres::connection",
            "[WARN] mio",
        ];
        assert_eq!(without_times(&output.text()), expected);
    }

    #[test]
    fn a_record_is_one_line_of_bounded_length() {
        let output = Output::default();
        let handle = LogHandle::to(Box::new(output.clone()));
        let logger = handle.logger();
        say(&*logger, Level::Warn, "bitdash", "error=\"a\nb\n\"\n");
        say(&*logger, Level::Warn, "bitdash", &"x".repeat(100_000));
        say(&*logger, Level::Info, "bitdash", "next");
        let text = output.text();
        let lines = without_times(&text);
        assert_eq!(
            (lines[0].as_str(), lines[2].as_str()),
            ("[WARN] error=\"a\\nb\\n\"\\n", "[INFO] next")
        );
        assert_eq!((lines.len(), lines[1].len() < MAX_LINE), (3, true));
    }

    #[test]
    fn lines_of_several_threads_stay_apart() {
        let output = Output::default();
        let handle = LogHandle::to(Box::new(output.clone()));
        let logger = handle.logger();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| (0..500).for_each(|_| say(&*logger, Level::Info, "bitdash", "a b")));
            }
        });
        let lines = without_times(&output.text());
        assert_eq!((lines.len(), lines.iter().all(|line| line == "[INFO] a b")), (2000, true));
    }

    /// An output with so much room left, as a disk that fills up.
    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<(Vec<u8>, Option<usize>)>>);

    impl Output {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }

        fn leave_room(&self, room: Option<usize>) {
            self.0.lock().unwrap().1 = room;
        }
    }

    impl Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut inner = self.0.lock().unwrap();
            let count = inner.1.map_or(bytes.len(), |room| room.min(bytes.len()));
            if count == 0 {
                return Err(io::ErrorKind::StorageFull.into());
            }
            inner.1 = inner.1.map(|room| room - count);
            inner.0.extend_from_slice(&bytes[..count]);
            Ok(count)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_full_disk_loses_lines_and_the_next_one_says_how_many() {
        let output = Output::default();
        let handle = LogHandle::to(Box::new(output.clone()));
        let logger = handle.logger();
        say(&*logger, Level::Info, "bitdash", "first");
        output.leave_room(Some(5));
        for _ in 0..3 {
            say(&*logger, Level::Info, "bitdash", "lost");
        }
        assert_eq!(handle.lost_lines(), 3);
        output.leave_room(None);
        say(&*logger, Level::Info, "bitdash", "again");
        say(&*logger, Level::Info, "bitdash", "last");
        assert_eq!(handle.lost_lines(), 0);
        let text = output.text();
        let mut lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.remove(1).len(), 5, "the torn line ends where the disk did: {text}");
        let expected = ["[INFO] first", "[WARN] log lost=3", "[INFO] again", "[INFO] last"];
        assert_eq!(without_times(&lines.join("\n")), expected);
    }
}
