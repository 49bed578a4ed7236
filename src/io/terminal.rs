//! Standard error as a terminal: one live line below everything else that is written there.
//!
//! Layer 3. A process has one standard error, so that the live line is the process's own, too. Invariants:
//! 1. where standard error is no terminal nothing of this is ever written; 2. what goes through [`Stderr`]
//!    comes out above the live line, which is drawn again below it; 3. the live line never wraps.

use std::io::{self, IsTerminal, Write};
use std::sync::{Mutex, MutexGuard, PoisonError};

use rustix::termios::tcgetwinsize;

/// The live line as it stands on the terminal; empty if there is none.
static LIVE: Mutex<String> = Mutex::new(String::new());

fn live() -> MutexGuard<'static, String> {
    LIVE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The live line; it goes when this is dropped.
#[derive(Debug)]
pub struct LiveLine(());

impl LiveLine {
    /// Gives the live line if standard error is a terminal that can show one. A process uses one at a time.
    pub fn open() -> Option<Self> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        (!is_dumb && io::stderr().is_terminal()).then_some(Self(()))
    }

    /// Shows this text, cut to the terminal's width; printable ASCII only.
    pub fn show(&mut self, text: &str) {
        let line = fitted(text, columns());
        let mut live = live();
        if *live != line {
            // Where it cannot be shown there is nobody to be told.
            let _ = io::stderr().write_all(redrawn(b"", &line).as_slice());
            *live = line;
        }
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        let mut live = live();
        if !std::mem::take(&mut *live).is_empty() {
            let _ = io::stderr().write_all(CLEAR.as_bytes());
        }
    }
}

/// Standard error for whole lines, which come out above the live line.
#[derive(Debug)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, lines: &[u8]) -> io::Result<usize> {
        let live = live();
        if live.is_empty() {
            return io::stderr().write(lines);
        }
        io::stderr().write_all(redrawn(lines, &live).as_slice())?;
        Ok(lines.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// The bytes that put `lines` where the live line stands, and the live line below them.
fn redrawn(lines: &[u8], live: &str) -> Vec<u8> {
    [CLEAR.as_bytes(), lines, live.as_bytes()].concat()
}

/// As much of a text as fits one line, the last column left free: some terminals wrap when it is written.
fn fitted(text: &str, columns: usize) -> String {
    let show = |c: char| if matches!(c, ' '..='~') { c } else { '?' };
    text.chars().take(columns.saturating_sub(1)).map(show).collect()
}

fn columns() -> usize {
    match tcgetwinsize(io::stderr()) {
        Ok(size) if size.ws_col > 0 => usize::from(size.ws_col),
        _ => 80,
    }
}

/// To the line's first column, and everything behind it goes.
const CLEAR: &str = "\r\x1b[K";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_come_out_above_the_live_line() {
        assert_eq!(redrawn(b"a\n", "live"), b"\r\x1b[Ka\nlive");
        assert_eq!(redrawn(b"", "live"), b"\r\x1b[Klive");
    }

    #[test]
    fn the_live_line_never_wraps_nor_controls_the_terminal() {
        assert_eq!(fitted("0123456789", 8), "0123456");
        assert_eq!(fitted("a\u{1b}[2J\nb\u{202e}", 80), "a?[2J?b?");
        assert_eq!(fitted("abc", 0), "");
    }
}
