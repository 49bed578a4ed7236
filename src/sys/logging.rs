//! The log: lines with a UTC time and a level, to stderr or to a file that SIGHUP reopens.
//!
//! Invariants:
//! 1. a record is one line, whatever text it contains (see [`log_line`]);
//! 2. a line that cannot be written (a full disk) is counted, and the next line that can be written
//!    reports the number of lost lines;
//! 3. logging never blocks: a thread writes, and while it is blocked (a paused terminal, a full
//!    pipe, a busy disk) excess lines are lost as in 2.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use log::{Level, Log, Metadata, Record};

use crate::config::LogConfig;
use crate::sys::clock::Clock;
#[cfg(doc)]
use crate::sys::log_line;
use crate::sys::log_line::Style;
use crate::sys::{terminal, text_file};

/// The running log.
#[derive(Clone)]
pub struct LogHandle(Arc<Mutex<WriterHandle>>);

/// A log file that cannot be opened.
#[derive(Debug)]
pub struct LogError {
    path: PathBuf,
    cause: io::Error,
}

/// Starts the log of this process: to `log.file`, or to stderr without one.
///
/// Other crates (postgres, mio) are logged at level warn and above.
///
/// # Errors
/// The file cannot be opened.
///
/// # Panics
/// If the process already has a logger.
pub fn start(config: &LogConfig) -> Result<LogHandle, LogError> {
    let file = config.file.as_deref();
    let output = open(file, Style::of(config.format, file.is_some()))?;
    let handle = LogHandle::to(output).map_err(|cause| LogError::of(file, cause))?;
    log::set_boxed_logger(handle.logger()).expect("the log is started once");
    log::set_max_level(config.level);
    Ok(handle)
}

impl LogHandle {
    fn to(output: Output) -> io::Result<Self> {
        Ok(Self(Arc::new(Mutex::new(WriterHandle::start(output, 0)?))))
    }

    /// Writes whole lines in their turn, without time and level.
    pub fn write_plain(&self, lines: &str) {
        self.writer().write(lines.as_bytes().to_vec());
    }

    fn logger(&self) -> Box<dyn Log> {
        Box::new(Filtered { handle: self.clone(), clock: Clock::new() })
    }

    /// Opens the log file (again) and sets the level: for SIGHUP, after a configuration change or
    /// by logrotate. A file that was moved away is created again.
    ///
    /// # Errors
    /// The file cannot be opened; the log then continues with the previous one.
    pub fn reopen(&self, config: &LogConfig) -> Result<(), LogError> {
        let file = config.file.as_deref();
        let output = open(file, Style::of(config.format, file.is_some()))?;
        self.swap(output).map_err(|cause| LogError::of(file, cause))?;
        log::set_max_level(config.level);
        Ok(())
    }

    /// Number of lost lines that the log has not reported yet.
    pub fn lost_lines(&self) -> u64 {
        self.writer().lost.load(Ordering::Acquire)
    }

    /// Starts another writer thread: the previous one may be blocked, and exits once its lines are
    /// written.
    fn swap(&self, output: Output) -> io::Result<()> {
        self.wait(SWAP_TIMEOUT);
        let mut writer = self.writer();
        *writer = WriterHandle::start(output, writer.lost.load(Ordering::Acquire))?;
        Ok(())
    }

    /// Waits until everything logged so far is written, for at most `timeout`.
    fn wait(&self, timeout: Duration) {
        let (done, is_done) = mpsc::sync_channel(1);
        let sender = self.writer().sender.clone();
        let mut order = Order::Acknowledge(done);
        let clock = Clock::new();
        // One bound for both: waiting for room in the channel, and for the acknowledgement.
        let left = || timeout.saturating_sub(clock.now().mono);
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

    fn writer(&self) -> MutexGuard<'_, WriterHandle> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn open(file: Option<&Path>, style: Style) -> Result<Output, LogError> {
    let Some(path) = file else {
        return Ok(Output { writer: Box::new(terminal::Stderr), path: None, style });
    };
    // Without the flag, opening a named pipe without a reader would block forever.
    let opened: io::Result<File> =
        OpenOptions::new().append(true).create(true).custom_flags(text_file::O_NONBLOCK).open(path);
    match opened {
        Ok(file) => Ok(Output { writer: Box::new(file), path: Some(path.to_owned()), style }),
        Err(cause) => Err(LogError { path: path.to_owned(), cause }),
    }
}

/// The destination of lines, and its path if it is a file.
struct Output {
    writer: Box<dyn Write + Send>,
    path: Option<PathBuf>,
    style: Style,
}

/// The handle of the writer thread.
struct WriterHandle {
    sender: SyncSender<Order>,
    lost: Arc<AtomicU64>,
    style: Style,
}

enum Order {
    Write(Vec<u8>),
    /// Reports that everything before this is written.
    Acknowledge(SyncSender<()>),
}

impl WriterHandle {
    fn start(output: Output, lost: u64) -> io::Result<Self> {
        let (sender, orders) = mpsc::sync_channel(MAX_PENDING_LINES);
        let (lost, style) = (Arc::new(AtomicU64::new(lost)), output.style);
        let mut sink = Sink {
            output,
            clock: Clock::new(),
            lost: Arc::clone(&lost),
            ends_in_fragment: false,
            failure: Failure::Unreported,
        };
        thread::Builder::new().name("log".into()).spawn(move || sink.serve(&orders))?;
        Ok(Self { sender, lost, style })
    }

    fn write(&self, line: Vec<u8>) {
        if self.sender.try_send(Order::Write(line)).is_err() {
            self.lost.fetch_add(1, Ordering::AcqRel);
        }
    }
}

/// The writer thread.
struct Sink {
    output: Output,
    clock: Clock,
    /// Lines lost since the last one that was written.
    lost: Arc<AtomicU64>,
    /// Whether the output ends with a part of a line.
    ends_in_fragment: bool,
    failure: Failure,
}

/// Whether stderr has a message about failing writes to the file.
enum Failure {
    Unreported,
    /// Reported; the number of lines written since the last failure.
    Reported(u32),
}

impl Sink {
    fn serve(&mut self, orders: &Receiver<Order>) {
        while let Ok(order) = orders.recv() {
            match order {
                Order::Write(line) => self.write_line(line),
                // The receiver may have timed out.
                Order::Acknowledge(done) => drop(done.try_send(())),
            }
        }
    }

    /// Writes a line in one call, so that lines of two processes do not mix. Never fails.
    fn write_line(&mut self, mut line: Vec<u8>) {
        let lost = self.lost.load(Ordering::Acquire);
        let mut whole = Vec::new();
        if self.ends_in_fragment {
            whole.push(b'\n');
        }
        if lost > 0 {
            let (now, text) = (self.clock.now().wall, format!("log lost={lost}"));
            whole.append(&mut self.output.style.line(now, Level::Warn, &text));
        }
        whole.append(&mut line);
        let (written, why) = write_some(&mut *self.output.writer, &whole);
        if written == whole.len() {
            self.lost.fetch_sub(lost, Ordering::AcqRel);
            self.ends_in_fragment = false;
            // On a nearly full disk some lines still fit: do not report each failure.
            self.failure = match self.failure {
                Failure::Reported(written) if written + 1 < RECOVERY_LINES => {
                    Failure::Reported(written + 1)
                }
                _ => Failure::Unreported,
            };
            return;
        }
        self.lost.fetch_add(1, Ordering::AcqRel);
        self.ends_in_fragment |= written > 0;
        self.report_failure(why.as_ref());
    }

    /// Reports to stderr that the file cannot be written, unless that is known.
    fn report_failure(&mut self, error: Option<&io::Error>) {
        let known = matches!(self.failure, Failure::Reported(_));
        self.failure = Failure::Reported(0);
        if let Some(path) = self.output.path.as_ref().filter(|_| !known) {
            let why = error.map_or_else(String::new, text_file::cause);
            let path = path.display();
            let text = format!(
                "bitdash: log.file {path}: cannot be written: {why}; the crawl continues\n"
            );
            // An error on stderr cannot be reported.
            let _ = terminal::Stderr.write_all(text.as_bytes());
        }
    }
}

/// Writes until done or an error; returns the number of bytes written.
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

/// Passes our own records, and those of other crates at level warn and above.
struct Filtered {
    handle: LogHandle,
    clock: Clock,
}

impl Log for Filtered {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let target = metadata.target();
        let ours = target == OUR_TARGET
            || target.strip_prefix(OUR_TARGET).is_some_and(|rest| rest.starts_with("::"));
        ours || metadata.level() <= Level::Warn
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) {
            let (now, message) = (self.clock.now().wall, record.args().to_string());
            let writer = self.handle.writer();
            writer.write(writer.style.line(now, record.level(), &message));
        }
    }

    /// At the end of the process: waits for at most a second until everything is written.
    fn flush(&self) {
        self.handle.wait(FLUSH_TIMEOUT);
    }
}

impl LogError {
    /// Whether the cause may be temporary, such as a full disk or one that was remounted read-only.
    /// A service retries after those, but not after a configuration error.
    pub fn is_of_the_system(&self) -> bool {
        use io::ErrorKind::{QuotaExceeded, ReadOnlyFilesystem, StorageFull};
        // Errors without a kind: EIO, ENFILE, EMFILE.
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

/// The target of all records of this crate, including its binaries.
const OUR_TARGET: &str = "bitdash";

/// Number of lines that must succeed before another failure is reported.
const RECOVERY_LINES: u32 = 1_000;

/// Maximum number of lines waiting for the writer thread.
const MAX_PENDING_LINES: usize = 1_024;

/// Timeouts for pending lines at the end of the process and when the file changes.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(1);
const SWAP_TIMEOUT: Duration = Duration::from_millis(200);
const WAIT_STEP: Duration = Duration::from_millis(10);

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::sys::log_line::MAX_LINE;

    const TEXT: Style = Style::Text { is_colored: false };

    fn log_line(logger: &dyn Log, level: Level, target: &str, text: &str) {
        let arguments = format_args!("{text}");
        logger.log(&Record::builder().level(level).target(target).args(arguments).build());
        logger.flush();
    }

    fn to(output: impl Write + Send + 'static) -> LogHandle {
        LogHandle::to(Output { writer: Box::new(output), path: None, style: TEXT }).unwrap()
    }

    /// The lines without their times, which are checked.
    fn without_times(text: &str) -> Vec<String> {
        let cut = |line: &str| {
            let (time, rest) = line.split_once(' ').unwrap_or((line, ""));
            assert!(time.len() == 24 && time.ends_with('Z') && &time[10..11] == "T", "{line}");
            rest.to_owned()
        };
        text.lines().map(cut).collect()
    }

    #[test]
    fn a_moved_file_is_created_again_on_reopen() {
        let directory = tempfile::tempdir().unwrap();
        let (path, moved) = (directory.path().join("b.log"), directory.path().join("b.log.1"));
        let handle = LogHandle::to(open(Some(&path), TEXT).unwrap()).unwrap();
        let logger = handle.logger();
        log_line(&*logger, Level::Info, "bitdash", "one=1");
        std::fs::rename(&path, &moved).unwrap();
        log_line(&*logger, Level::Warn, "crate::net::driver", "two=2");
        handle.swap(open(Some(&path), TEXT).unwrap()).unwrap();
        log_line(&*logger, Level::Error, "bitdash", "three=3");
        let read = |path| without_times(&std::fs::read_to_string(path).unwrap());
        assert_eq!(read(&moved), ["INFO one=1", "WARN two=2"]);
        assert_eq!(read(&path), ["ERROR three=3"]);
    }

    #[test]
    fn an_unopenable_file_is_reported_and_the_log_continues() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b.log");
        let handle = LogHandle::to(open(Some(&path), TEXT).unwrap()).unwrap();
        let wrong = directory.path().join("none/b.log");
        let config = LogConfig { file: Some(wrong.clone()), ..Config::default().log };
        let error = handle.reopen(&config).unwrap_err().to_string();
        let expected =
            format!("log.file {}: cannot be opened: No such file or directory", wrong.display());
        assert_eq!(error, expected);
        log_line(&*handle.logger(), Level::Info, "bitdash", "still=here");
        assert!(std::fs::read_to_string(&path).unwrap().ends_with("INFO still=here\n"));
    }

    #[test]
    fn a_full_disk_is_not_a_configuration_error() {
        let is_of_the_system = |code| {
            let cause = io::Error::from_raw_os_error(code);
            LogError::of(None, cause).is_of_the_system()
        };
        // ENOSPC, EROFS, EDQUOT, EIO, EMFILE; ENOENT, EACCES, EISDIR.
        assert!([28, 30, 122, 5, 24].into_iter().all(is_of_the_system));
        assert!(![2, 13, 21].into_iter().any(is_of_the_system));
    }

    #[test]
    fn other_crates_are_logged_at_warn_and_above() {
        let output = Disk::default();
        let handle = to(output.clone());
        let logger = handle.logger();
        for target in ["bitdash", "bitdash::x", "bitdashboard", "tokio_postgres::connection", "mio"]
        {
            for level in [Level::Trace, Level::Info, Level::Warn] {
                log_line(&*logger, level, target, target);
            }
        }
        let expected = [
            "TRACE bitdash",
            "INFO bitdash",
            "WARN bitdash",
            "TRACE bitdash::x",
            "INFO bitdash::x",
            "WARN bitdash::x",
            "WARN bitdashboard",
            "WARN tokio_postgres::connection",
            "WARN mio",
        ];
        assert_eq!(without_times(&output.text()), expected);
    }

    #[test]
    fn a_record_is_one_line_of_bounded_length() {
        let output = Disk::default();
        let handle = to(output.clone());
        let logger = handle.logger();
        log_line(&*logger, Level::Warn, "bitdash", "error=\"a\nb\n\"\n");
        log_line(&*logger, Level::Warn, "bitdash", &"x".repeat(100_000));
        log_line(&*logger, Level::Info, "bitdash", "next");
        let text = output.text();
        let lines = without_times(&text);
        assert_eq!(
            (lines[0].as_str(), lines[2].as_str()),
            ("WARN error=\"a\\nb\\n\"\\n", "INFO next")
        );
        assert_eq!((lines.len(), lines[1].len() < MAX_LINE), (3, true));
    }

    #[test]
    fn lines_of_several_threads_do_not_mix() {
        let output = Disk::default();
        let handle = to(output.clone());
        let logger = handle.logger();
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    (0..500).for_each(|_| log_line(&*logger, Level::Info, "bitdash", "a b"))
                });
            }
        });
        let lines = without_times(&output.text());
        assert_eq!((lines.len(), lines.iter().all(|line| line == "INFO a b")), (2000, true));
    }

    /// An output with limited space, like a full disk.
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
    fn the_line_after_a_full_disk_reports_the_lost_lines() {
        let output = Disk::default();
        let handle = to(output.clone());
        let logger = handle.logger();
        log_line(&*logger, Level::Info, "bitdash", "first");
        output.leave_room(Some(5));
        for _ in 0..3 {
            log_line(&*logger, Level::Info, "bitdash", "lost");
        }
        assert_eq!(handle.lost_lines(), 3);
        output.leave_room(None);
        log_line(&*logger, Level::Info, "bitdash", "again");
        log_line(&*logger, Level::Info, "bitdash", "last");
        assert_eq!(handle.lost_lines(), 0);
        let text = output.text();
        let mut lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines.remove(1).len(), 5, "a fragment filled the disk: {text}");
        let expected = ["INFO first", "WARN log lost=3", "INFO again", "INFO last"];
        assert_eq!(without_times(&lines.join("\n")), expected);
    }

    /// An output that blocks: it reports the start of each write, and finishes one per message.
    struct Blocked(Receiver<()>, mpsc::Sender<()>);

    impl Write for Blocked {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.1.send(());
            let _ = self.0.recv();
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn log_without_flush(logger: &dyn Log, lines: usize) {
        for _ in 0..lines {
            logger.log(&Record::builder().target("bitdash").args(format_args!("x")).build());
        }
    }

    #[test]
    fn a_blocked_output_delays_nothing_and_can_be_replaced() {
        let (hold, held) = mpsc::channel();
        let handle = to(Blocked(held, mpsc::channel().0));
        let logger = handle.logger();
        log_without_flush(&*logger, MAX_PENDING_LINES + 10);
        let lost = handle.lost_lines();
        assert!(lost == 9 || lost == 10, "{lost}: the thread is writing one line");
        let output = Disk::default();
        handle.swap(Output { writer: Box::new(output.clone()), path: None, style: TEXT }).unwrap();
        log_line(&*logger, Level::Info, "bitdash", "on");
        let expected = [format!("WARN log lost={lost}"), "INFO on".to_owned()];
        assert_eq!(without_times(&output.text()), expected);
        drop(hold);
    }

    #[test]
    fn a_flush_of_a_blocked_output_is_bounded() {
        let ((hold, held), (begun, is_begun)) = (mpsc::channel(), mpsc::channel());
        let handle = to(Blocked(held, begun));
        let logger = handle.logger();
        log_without_flush(&*logger, 1);
        is_begun.recv().unwrap();
        // The thread is writing that line; these fill the channel.
        log_without_flush(&*logger, MAX_PENDING_LINES);
        // One write finishes late, which makes room in the channel; then the output blocks again.
        let late = thread::spawn(move || {
            thread::park_timeout(FLUSH_TIMEOUT * 3 / 4);
            hold.send(()).unwrap();
            hold
        });
        let begin = Clock::new();
        logger.flush();
        let waited = begin.now().mono;
        assert!(waited < FLUSH_TIMEOUT * 3 / 2, "{waited:?}");
        drop(late.join());
    }
}
