//! The status line: one line on stderr, redrawn below everything else that is written there.
//!
//! Invariants:
//! 1. if stderr is not a terminal, no status line is written;
//! 2. output through [`Stderr`] appears above the status line, which is redrawn below it;
//! 3. the status line never wraps;
//! 4. [`StatusLine::show`] never blocks, even while the terminal is paused (Ctrl-S): a thread draws
//!    the newest text.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::termios::tcgetwinsize;

/// The text on the terminal; empty if none. Locked while writing to the terminal, which may block.
static DRAWN: Mutex<String> = Mutex::new(String::new());

/// Timeout for clearing the status line at the end, in case the terminal is paused.
const CLEAR_TIMEOUT: Duration = Duration::from_millis(200);

fn drawn() -> MutexGuard<'static, String> {
    locked(&DRAWN)
}

fn locked(text: &Mutex<String>) -> MutexGuard<'_, String> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The status line; cleared on drop.
#[derive(Debug)]
pub struct StatusLine {
    /// The text to draw; locked only briefly.
    newest: Arc<Mutex<String>>,
    /// Wakes the drawing thread; `None` once it should clear the line.
    wake: Option<SyncSender<()>>,
    /// Disconnects when the line is cleared.
    cleared: Receiver<()>,
}

impl StatusLine {
    /// Opens the status line if stderr is a capable terminal. A process uses one at a time.
    pub fn open() -> Option<Self> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if is_dumb || !io::stderr().is_terminal() {
            return None;
        }
        Self::drawn_by(draw, clear)
    }

    fn drawn_by(draw: fn(&str), clear: fn()) -> Option<Self> {
        let (wake, wakes) = mpsc::sync_channel(1);
        let (on_clear, cleared) = mpsc::channel();
        let newest = Arc::new(Mutex::new(String::new()));
        let text = Arc::clone(&newest);
        let serve = move || {
            let _on_clear: mpsc::Sender<()> = on_clear;
            for () in wakes {
                let text = locked(&text).clone();
                draw(&text);
            }
            clear();
        };
        // Without a thread there is no status line; the log has the same information.
        thread::Builder::new().name("status line".into()).spawn(serve).ok()?;
        Some(Self { newest, wake: Some(wake), cleared })
    }

    /// Shows a text, truncated to the terminal's width; printable ASCII only.
    pub fn show(&mut self, text: &str) {
        text.clone_into(&mut locked(&self.newest));
        if let Some(wake) = &self.wake {
            // A pending wake-up suffices.
            let _ = wake.try_send(());
        }
    }
}

impl Drop for StatusLine {
    fn drop(&mut self) {
        self.wake = None;
        let _ = self.cleared.recv_timeout(CLEAR_TIMEOUT);
    }
}

fn draw(text: &str) {
    let columns = columns();
    let line = fitted(text, columns);
    let mut drawn = drawn();
    if *drawn != line {
        // An error on stderr cannot be reported.
        let unwrapped = unwrapped(drawn.len(), columns);
        let _ = io::stderr().write_all(&[unwrapped.into_bytes(), redrawn(b"", &line)].concat());
        *drawn = line;
    }
}

fn clear() {
    let mut drawn = drawn();
    if !std::mem::take(&mut *drawn).is_empty() {
        let _ = io::stderr().write_all(CLEAR.as_bytes());
    }
}

/// stderr for whole lines, which appear above the status line.
#[derive(Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let drawn = drawn();
        if drawn.is_empty() {
            return io::stderr().write(lines);
        }
        io::stderr().write_all(redrawn(lines, &drawn).as_slice())?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The bytes that replace the status line by `lines` and redraw it below them.
fn redrawn(lines: &[u8], status: &str) -> Vec<u8> {
    [CLEAR.as_bytes(), lines, status.as_bytes()].concat()
}

/// Truncates a text to one line, between words; leaves the last column free, since some terminals
/// wrap there.
fn fitted(text: &str, columns: usize) -> String {
    let show = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    let room = columns.saturating_sub(1);
    let line: String = text.chars().take(room).map(show).collect();
    let is_whole = text.chars().nth(room).is_none_or(|next| next == ' ');
    match line.rfind(' ') {
        Some(end) if !is_whole => line[..end].trim_end().to_owned(),
        _ => line,
    }
}

/// The bytes that go back to the first row of a line that a narrower window has wrapped.
fn unwrapped(length: usize, columns: usize) -> String {
    match length.saturating_sub(1) / columns.max(1) {
        0 => String::new(),
        rows => format!("\x1b[{rows}A\r\x1b[J"),
    }
}

fn columns() -> usize {
    match tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 80,
    }
}

/// Returns to the first column and clears the line.
const CLEAR: &str = "\r\x1b[K";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_appear_above_the_status_line() {
        assert_eq!(redrawn(b"a\n", "live"), b"\r\x1b[Ka\nlive");
        assert_eq!(redrawn(b"", "live"), b"\r\x1b[Klive");
    }

    #[test]
    fn showing_a_text_never_waits_for_the_terminal() {
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let mut line = StatusLine::drawn_by(|_| thread::park(), thread::park).unwrap();
            // More than the one being drawn and the one pending; then the drop.
            (0..10).for_each(|number| line.show(&number.to_string()));
            drop(line);
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(20)).expect("it blocks");
    }

    #[test]
    fn a_slow_terminal_still_gets_the_newest_text() {
        const DRAWING: Duration = Duration::from_millis(20);
        static DRAWN: Mutex<String> = Mutex::new(String::new());
        let draw = |text: &str| {
            thread::park_timeout(DRAWING);
            text.clone_into(&mut locked(&DRAWN));
        };
        let mut line = StatusLine::drawn_by(draw, || ()).unwrap();
        (0..100).for_each(|number| line.show(&number.to_string()));
        let is_drawn = || *locked(&DRAWN) == "99";
        assert!((0..1_000).any(|_| is_drawn() || {
            thread::park_timeout(DRAWING);
            false
        }));
    }

    #[test]
    fn the_status_line_never_wraps_nor_contains_escape_sequences() {
        assert_eq!(fitted("0123456789", 8), "0123456");
        assert_eq!(fitted("0123 5678  1234", 13), "0123 5678");
        assert_eq!(fitted("0123 567 901", 9), "0123 567");
        assert_eq!(
            (unwrapped(79, 80), unwrapped(79, 40)),
            (String::new(), "\x1b[1A\r\x1b[J".into())
        );
        assert_eq!(fitted("a\u{1b}[2J\nb\u{202e}", 80), "a?[2J?b?");
        assert_eq!(fitted("abc", 0), "");
    }
}
