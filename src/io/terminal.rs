//! Standard error as a terminal: one live line below everything else that is written there.
//!
//! Layer 3. A process has one standard error, so that the live line is the process's own, too. Invariants:
//! 1. where standard error is no terminal nothing of this is ever written; 2. what goes through [`Stderr`]
//!    comes out above the live line, which is drawn again below it; 3. the live line never wraps; 4. who shows it never
//!    waits for the terminal, which a person may hold (Ctrl-S): a thread of its own draws, of the texts that come
//!    meanwhile the newest.

use std::io::{self, IsTerminal, Write};
use std::sync::mpsc::{self, Receiver, SyncSender};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Duration;

use rustix::termios::tcgetwinsize;

/// The live line as it stands on the terminal; empty if there is none. Whoever has it writes to the terminal, and may
/// have it for long.
static LIVE: Mutex<String> = Mutex::new(String::new());

/// Where the terminal is held the end waits no longer than this for the live line to go.
const CLEAR_PATIENCE: Duration = Duration::from_millis(200);

fn live() -> MutexGuard<'static, String> {
    locked(&LIVE)
}

fn locked(text: &Mutex<String>) -> MutexGuard<'_, String> {
    text.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The live line; it goes when this is dropped.
#[derive(Debug)]
pub struct LiveLine {
    /// What is to be drawn; held for a moment only.
    newest: Arc<Mutex<String>>,
    /// Tells that there is something; `None` once the line is to go.
    bell: Option<SyncSender<()>>,
    /// Breaks when it is gone.
    is_gone: Receiver<()>,
}

impl LiveLine {
    /// Gives the live line if standard error is a terminal that can show one. A process uses one at a time.
    pub fn open() -> Option<Self> {
        let is_dumb = std::env::var_os("TERM").is_none_or(|term| term.is_empty() || term == "dumb");
        if is_dumb || !io::stderr().is_terminal() {
            return None;
        }
        Self::drawn_by(draw, clear)
    }

    fn drawn_by(draw: fn(&str), clear: fn()) -> Option<Self> {
        let (bell, rings) = mpsc::sync_channel(1);
        let (gone, is_gone) = mpsc::channel();
        let newest = Arc::new(Mutex::new(String::new()));
        let text = Arc::clone(&newest);
        let serve = move || {
            let _gone: mpsc::Sender<()> = gone;
            for () in rings {
                let text = locked(&text).clone();
                draw(&text);
            }
            clear();
        };
        // Without a thread there is no line: the log has all of it.
        thread::Builder::new().name("live line".into()).spawn(serve).ok()?;
        Some(Self { newest, bell: Some(bell), is_gone })
    }

    /// Shows this text, cut to the terminal's width; printable ASCII only.
    pub fn show(&mut self, text: &str) {
        text.clone_into(&mut locked(&self.newest));
        if let Some(bell) = &self.bell {
            // One that has rung already is heard yet.
            let _ = bell.try_send(());
        }
    }
}

impl Drop for LiveLine {
    fn drop(&mut self) {
        self.bell = None;
        let _ = self.is_gone.recv_timeout(CLEAR_PATIENCE);
    }
}

fn draw(text: &str) {
    let line = fitted(text, columns());
    let mut live = live();
    if *live != line {
        // Where it cannot be shown there is nobody to be told.
        let _ = io::stderr().write_all(redrawn(b"", &line).as_slice());
        *live = line;
    }
}

fn clear() {
    let mut live = live();
    if !std::mem::take(&mut *live).is_empty() {
        let _ = io::stderr().write_all(CLEAR.as_bytes());
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
    fn whoever_shows_it_never_waits_for_the_terminal() {
        let (done, is_done) = mpsc::channel();
        thread::spawn(move || {
            let mut held = LiveLine::drawn_by(|_| thread::park(), thread::park).unwrap();
            // More than one that is drawn and one that waits; and the end.
            (0..10).for_each(|number| held.show(&number.to_string()));
            drop(held);
            done.send(()).unwrap();
        });
        is_done.recv_timeout(Duration::from_secs(20)).expect("it waits");
    }

    #[test]
    fn the_newest_text_is_drawn_however_slow_the_terminal_is() {
        const DRAWING: Duration = Duration::from_millis(20);
        static DRAWN: Mutex<String> = Mutex::new(String::new());
        let draw = |text: &str| {
            thread::park_timeout(DRAWING);
            text.clone_into(&mut locked(&DRAWN));
        };
        let mut held = LiveLine::drawn_by(draw, || ()).unwrap();
        (0..100).for_each(|number| held.show(&number.to_string()));
        let is_drawn = || *locked(&DRAWN) == "99";
        assert!((0..1_000).any(|_| is_drawn() || {
            thread::park_timeout(DRAWING);
            false
        }));
    }

    #[test]
    fn the_live_line_never_wraps_nor_controls_the_terminal() {
        assert_eq!(fitted("0123456789", 8), "0123456");
        assert_eq!(fitted("a\u{1b}[2J\nb\u{202e}", 80), "a?[2J?b?");
        assert_eq!(fitted("abc", 0), "");
    }
}
