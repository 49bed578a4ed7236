//! The log: lines with a UTC time and a level, to standard error or to a file that SIGHUP reopens.
//!
//! Layer 3. Invariants:
//! 1. a record is one line, whatever text is in it;
//! 2. a line that cannot be written (a full disk) stops nothing; it is counted, and the next line that can be
//!    written says how many were lost;
//! 3. nobody waits for the log: a thread of its own writes, and where it hangs (a terminal that is held, a pipe that
//!    nobody reads, a disk that is busy) lines are lost as in 2.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::{LevelFilter, Log, Metadata, Record};
use simplelog::{ConfigBuilder, WriteLogger};

use crate::io::clock::Clock;
use crate::io::{terminal, text_file};

/// The running log: swaps its file and says how many lines were lost.
#[derive(Clone)]
pub struct LogHandle(Arc<Mutex<Desk>>);

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
    let handle = LogHandle::to(open(file)?).map_err(|cause| LogError::of(file, cause))?;
    log::set_boxed_logger(handle.logger()).expect("a process starts its log once");
    log::set_max_level(level);
    Ok(handle)
}

impl LogHandle {
    fn to(output: Output) -> io::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(Desk { line: Vec::new(), pen: Pen::start(output, 0)? }))))
    }

    fn logger(&self) -> Box<dyn Log> {
        let config = ConfigBuilder::new()
            .set_time_format_rfc3339()
            .set_thread_level(LevelFilter::Off)
            .set_target_level(LevelFilter::Off)
            .set_location_level(LevelFilter::Off)
            .build();
        // The level of simplelog is fixed for ever: all pass it, and `log::set_max_level` decides.
        let writer = WriteLogger::new(LevelFilter::Trace, config, Pieces(self.clone()));
        Box::new(Filtered { writer, handle: self.clone(), turn: Mutex::new(()) })
    }

    /// Opens the log file (again) and sets the level: for SIGHUP, after a new configuration or
    /// logrotate. A file that was moved away is made anew.
    ///
    /// # Errors
    /// The file cannot be opened; the log then goes on where it was.
    pub fn reopen(&self, file: Option<&Path>, level: LevelFilter) -> Result<(), LogError> {
        self.swap(open(file)?).map_err(|cause| LogError::of(file, cause))?;
        log::set_max_level(level);
        Ok(())
    }

    /// How many lines could not be written and are not yet owned up to in the log.
    pub fn lost_lines(&self) -> u64 {
        self.desk().pen.lost.load(Ordering::Acquire)
    }

    /// Another thread takes over: the one before may hang, and ends by itself once its lines are written.
    fn swap(&self, output: Output) -> io::Result<()> {
        self.wait(SWAP_PATIENCE);
        let mut desk = self.desk();
        desk.pen = Pen::start(output, desk.pen.lost.load(Ordering::Acquire))?;
        Ok(())
    }

    /// Waits until everything is written that was said so far, at most for `patience`.
    fn wait(&self, patience: Duration) {
        let (done, is_done) = mpsc::sync_channel(1);
        let sender = self.desk().pen.sender.clone();
        let mut order = Order::Tell(done);
        let clock = Clock::new();
        // For room, and then for the rest: both together.
        let left = || patience.saturating_sub(clock.now().mono);
        while !left().is_zero() {
            match sender.try_send(order) {
                Ok(()) => {
                    let _ = is_done.recv_timeout(left());
                    return;
                }
                Err(TrySendError::Full(back)) => order = back,
                Err(TrySendError::Disconnected(_)) => return,
            }
            thread::park_timeout(WAIT_STEP);
        }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(file: Option<&Path>) -> Result<Output, LogError> {
    let Some(path) = file else {
        return Ok(Output { writer: Box::new(terminal::Stderr), path: None });
    };
    // Without it a named pipe that nobody reads would hold us for ever.
    let opened: io::Result<File> =
        OpenOptions::new().append(true).create(true).custom_flags(text_file::O_NONBLOCK).open(path);
    match opened {
        Ok(file) => Ok(Output { writer: Box::new(file), path: Some(path.to_owned()) }),
        Err(cause) => Err(LogError { path: path.to_owned(), cause }),
    }
}

/// Where lines end up, and the file's path if it is one.
struct Output {
    writer: Box<dyn Write + Send>,
    path: Option<PathBuf>,
}

/// Where a record is put together; simplelog writes it in pieces.
struct Desk {
    line: Vec<u8>,
    pen: Pen,
}

/// The thread that writes, seen from outside.
struct Pen {
    sender: SyncSender<Order>,
    lost: Arc<AtomicU64>,
}

enum Order {
    Write(Vec<u8>),
    /// Everything before this is written.
    Tell(SyncSender<()>),
}

impl Pen {
    fn start(output: Output, lost: u64) -> io::Result<Self> {
        let (sender, orders) = mpsc::sync_channel(WAITING_LINES);
        let lost = Arc::new(AtomicU64::new(lost));
        let mut sink =
            Sink { output, lost: Arc::clone(&lost), torn: false, is_told: false, good: 0 };
        thread::Builder::new().name("log".into()).spawn(move || sink.serve(&orders))?;
        Ok(Self { sender, lost })
    }

    fn write(&self, line: Vec<u8>) {
        if self.sender.try_send(Order::Write(line)).is_err() {
            self.lost.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// The thread that writes.
struct Sink {
    output: Output,
    /// Lines that could not be written since the last one that could.
    lost: Arc<AtomicU64>,
    /// Whether a part of a line stands at the end of the output.
    torn: bool,
    /// Whether standard error was told that the file cannot be written.
    is_told: bool,
    /// Lines written since the last one that could not be.
    good: u32,
}

impl Sink {
    fn serve(&mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Write(line) => self.write_line(line),
                // Nobody may wait for it any more.
                Order::Tell(done) => drop(done.try_send(())),
            }
        }
    }

    /// Writes the line in one go, so that lines of two processes do not mix. Never fails.
    fn write_line(&mut self, mut line: Vec<u8>) {
        let newlines_inside = line.iter().filter(|&&byte| byte == b'\n').count() > 1;
        if newlines_inside {
            line = on_one_line(&line);
        }
        let lost = self.lost.load(Ordering::Acquire);
        let mut whole = Vec::new();
        if self.torn {
            whole.push(b'\n');
        }
        if lost > 0 {
            // The time and level of the line that gets through.
            let head = line.iter().position(|&b| b == b' ').unwrap_or(0);
            whole.extend_from_slice(&line[..head]);
            whole.extend_from_slice(format!(" [WARN] log lost={lost}\n").as_bytes());
        }
        whole.append(&mut line);
        let (written, why) = write_some(&mut *self.output.writer, &whole);
        if written == whole.len() {
            self.lost.fetch_sub(lost, Ordering::AcqRel);
            self.torn = false;
            // On a disk that is nearly full every other line may pass: that is one fault, and told once.
            self.good = self.good.saturating_add(1);
            self.is_told &= self.good < WELL_AGAIN;
            return;
        }
        self.lost.fetch_add(1, Ordering::AcqRel);
        self.torn |= written > 0;
        self.good = 0;
        if let Some(path) = self.output.path.as_ref().filter(|_| !self.is_told) {
            self.is_told = true;
            let why = why.map_or_else(String::new, |error| text_file::cause(&error));
            let path = path.display();
            let text =
                format!("bitdash: log.file {path}: cannot be written: {why}; the crawl goes on\n");
            // Where even that fails, nobody is left to be told.
            let _ = terminal::Stderr.write_all(text.as_bytes());
        }
    }
}

/// Writes until done or until an error, and says how much was written.
fn write_some(output: &mut dyn Write, bytes: &[u8]) -> (usize, Option<io::Error>) {
    let mut written = 0;
    while let Some(rest) = bytes.get(written..).filter(|rest| !rest.is_empty()) {
        match output.write(rest) {
            Ok(0) => break,
            Ok(count) => written += count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return (written, Some(error)),
        }
    }
    (written, None)
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
struct Pieces(LogHandle);

impl Write for Pieces {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut desk = self.0.desk();
        // A record longer than this is cut: nothing that we log is, but an error's text may be.
        let room = MAX_LINE.saturating_sub(desk.line.len());
        desk.line.extend_from_slice(&bytes[..bytes.len().min(room)]);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let mut desk = self.0.desk();
        let mut line = std::mem::take(&mut desk.line);
        if !line.is_empty() {
            if line.last() != Some(&b'\n') {
                line.push(b'\n');
            }
            desk.pen.write(line);
        }
        Ok(())
    }
}

/// Lets our own records pass, and those of other crates from warn on; one record at a time.
struct Filtered<L> {
    writer: Box<L>,
    handle: LogHandle,
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

    /// For the end of the process: waits a second at most until everything is written.
    fn flush(&self) {
        self.handle.wait(FLUSH_PATIENCE);
    }
}

impl LogError {
    /// Whether the path may be right, and time or room would help: a full disk, one that was mounted read-only after
    /// an error. A service tries again after those, and does not after a wrong configuration.
    pub fn is_of_the_system(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        // Without a kind: EIO, ENFILE, EMFILE.
        matches!(self.cause.kind(), StorageFull | ReadOnlyFilesystem | QuotaExceeded)
            || matches!(self.cause.raw_os_error(), Some(5 | 23 | 24))
    }

    fn of(file: Option<&Path>, cause: io::Error) -> Self {
        Self { path: file.unwrap_or(Path::new("/dev/stderr")).to_owned(), cause }
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

/// After so many good lines a file that cannot be written is told of again.
const WELL_AGAIN: u32 = 1_000;

/// So many lines may wait for the thread that writes.
const WAITING_LINES: usize = 1_024;

/// The end of the process waits so long for the log, once, a change of files a little.
const FLUSH_PATIENCE: Duration = Duration::from_secs(1);
const SWAP_PATIENCE: Duration = Duration::from_millis(200);
const WAIT_STEP: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use log::Level;

    use super::*;

    fn say(logger: &dyn Log, level: Level, target: &str, text: &str) {
        let arguments = format_args!("{text}");
        logger.log(&Record::builder().level(level).target(target).args(arguments).build());
        logger.flush();
    }

    fn to(output: impl Write + Send + 'static) -> LogHandle {
        LogHandle::to(Output { writer: Box::new(output), path: None }).unwrap()
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
        let handle = LogHandle::to(open(Some(&path)).unwrap()).unwrap();
        let logger = handle.logger();
        say(&*logger, Level::Info, "bitdash", "one=1");
        std::fs::rename(&path, &moved).unwrap();
        say(&*logger, Level::Warn, "bitdash::io::driver", "two=2");
        handle.swap(open(Some(&path)).unwrap()).unwrap();
        say(&*logger, Level::Error, "bitdash", "three=3");
        let read = |path| without_times(&std::fs::read_to_string(path).unwrap());
        assert_eq!(read(&moved), ["[INFO] one=1", "[WARN] two=2"]);
        assert_eq!(read(&path), ["[ERROR] three=3"]);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_one_line_and_changes_nothing() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("b.log");
        let handle = LogHandle::to(open(Some(&path)).unwrap()).unwrap();
        let wrong = folder.path().join("none/b.log");
        let error = handle.reopen(Some(&wrong), LevelFilter::Info).unwrap_err().to_string();
        let expected =
            format!("log.file {}: cannot be opened: no such file or folder", wrong.display());
        assert_eq!(error, expected);
        say(&*handle.logger(), Level::Info, "bitdash", "still=here");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("[INFO] still=here\n"));
    }

    #[test]
    fn a_full_disk_is_no_wrong_configuration() {
        let is_of_the_system = |code| {
            let cause = io::Error::from_raw_os_error(code);
            LogError::of(None, cause).is_of_the_system()
        };
        // ENOSPC, EROFS, EDQUOT, EIO, EMFILE; ENOENT, EACCES, EISDIR.
        assert!([28, 30, 122, 5, 24].into_iter().all(is_of_the_system));
        assert!(![2, 13, 21].into_iter().any(is_of_the_system));
    }

    #[test]
    fn other_crates_are_heard_from_warn_on() {
        let output = Disk::default();
        let handle = to(output.clone());
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
        let output = Disk::default();
        let handle = to(output.clone());
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
        let output = Disk::default();
        let handle = to(output.clone());
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
    struct Disk(Arc<Mutex<(Vec<u8>, Option<usize>)>>);

    impl Disk {
        fn text(&self) -> String {
            String::from_utf8(self.0.lock().unwrap().0.clone()).unwrap()
        }

        fn leave_room(&self, room: Option<usize>) {
            self.0.lock().unwrap().1 = room;
        }
    }

    impl Write for Disk {
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
        let output = Disk::default();
        let handle = to(output.clone());
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

    /// An output that takes nothing and does not say so, but a line for each message. It tells when it begins one.
    struct Held(Receiver<()>, mpsc::Sender<()>);

    impl Write for Held {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.1.send(());
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn say_unheard(logger: &dyn Log, lines: usize) {
        for _ in 0..lines {
            logger.log(&Record::builder().target("bitdash").args(format_args!("x")).build());
        }
    }

    #[test]
    fn an_output_that_hangs_holds_nobody_up_and_another_one_takes_over() {
        let (hold, held) = mpsc::channel();
        let handle = to(Held(held, mpsc::channel().0));
        let logger = handle.logger();
        say_unheard(&*logger, WAITING_LINES + 10);
        let lost = handle.lost_lines();
        assert!(lost == 9 || lost == 10, "{lost}: the thread has one line in hand");
        let output = Disk::default();
        handle.swap(Output { writer: Box::new(output.clone()), path: None }).unwrap();
        say(&*logger, Level::Info, "bitdash", "on");
        let expected = [format!("[WARN] log lost={lost}"), "[INFO] on".to_owned()];
        assert_eq!(without_times(&output.text()), expected);
        drop(hold);
    }

    #[test]
    fn the_wait_for_room_and_the_one_for_what_was_before_are_bounded_together() {
        let ((hold, held), (begun, is_begun)) = (mpsc::channel(), mpsc::channel());
        let handle = to(Held(held, begun));
        let logger = handle.logger();
        say_unheard(&*logger, 1);
        is_begun.recv().unwrap();
        // The thread has that one in hand, and no more may wait than these.
        say_unheard(&*logger, WAITING_LINES);
        // One line is taken, late, so that there is room for whoever waits; and then nothing more.
        let late = thread::spawn(move || {
            thread::park_timeout(FLUSH_PATIENCE * 3 / 4);
            hold.send(()).unwrap();
            hold
        });
        let begin = Clock::new();
        logger.flush();
        let waited = begin.now().mono;
        assert!(waited < FLUSH_PATIENCE * 3 / 2, "{waited:?}");
        drop(late.join());
    }
}
