//! The line of a log record: as text, as JSON, or for systemd's journal.
//!
//! Invariant: a record is one line of at most [`MAX_LINE`] bytes, whatever text it contains.

use std::fs;
use std::io::IsTerminal;
use std::os::unix::fs::MetadataExt;

use bitdash_core::vocabulary::time::UnixTime;
use log::Level;
use serde_json::{Map, Number, Value};

use crate::commands::screen::{Paint, Screen, is_colored};
use crate::config::LogFormat;
use crate::db::timestamp::Timestamp;

/// Maximum length of a message in bytes. Only the text of a foreign error can be longer.
pub const MAX_MESSAGE: usize = 15 * 1024;
/// Maximum length of a line in bytes.
pub const MAX_LINE: usize = 3 * MAX_MESSAGE;

/// How a line is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Style {
    /// Time, level and message.
    Text {
        /// Whether the level is coloured.
        is_colored: bool,
    },
    /// One object; the `key=value` pairs of the message are its members.
    Json,
    /// A priority (sd-daemon(3)) and the message: the journal adds the time.
    Journal,
}

impl Style {
    /// The style for a file, or for stderr.
    pub fn of(format: LogFormat, is_file: bool) -> Self {
        match format {
            LogFormat::Json => Self::Json,
            LogFormat::Text if is_file => Self::Text { is_colored: false },
            LogFormat::Text if is_stderr_the_journal() => Self::Journal,
            LogFormat::Text => {
                Self::Text { is_colored: is_colored(std::io::stderr().is_terminal()) }
            }
        }
    }

    /// The line, with its newline.
    pub fn line(self, time: UnixTime, level: Level, message: &str) -> Vec<u8> {
        let message = on_one_line(message);
        let mut line = match self {
            Self::Text { is_colored } => {
                let screen = Screen { is_colored, ..Screen::PLAIN };
                let level = screen.paint(paint(level), level.as_str());
                format!("{} {level} {message}", Timestamp(time).to_text_with_millis())
            }
            Self::Json => json(time, level, &message),
            Self::Journal => format!("<{}>{message}", priority(level)),
        };
        line.push('\n');
        line.into_bytes()
    }
}

fn paint(level: Level) -> Paint {
    match level {
        Level::Error => Paint::Bad,
        Level::Warn => Paint::Fair,
        _ => Paint::Plain,
    }
}

/// The priorities of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
}

/// systemd sets `JOURNAL_STREAM` to the device and inode of the stream that it connected.
fn is_stderr_the_journal() -> bool {
    let Ok(stream) = std::env::var("JOURNAL_STREAM") else { return false };
    fs::metadata("/proc/self/fd/2")
        .is_ok_and(|file| stream == format!("{}:{}", file.dev(), file.ino()))
}

/// Escapes newlines, since messages of PostgreSQL may have several lines, and cuts the end off.
fn on_one_line(message: &str) -> String {
    let mut end = message.len().min(MAX_MESSAGE);
    while !message.is_char_boundary(end) {
        end -= 1;
    }
    message[..end].replace('\n', "\\n")
}

/// `time`, `level`, `event` (the first word), the pairs, and `message` where it has no pairs only.
fn json(time: UnixTime, level: Level, message: &str) -> String {
    let mut object = Map::new();
    let mut put = |key: &str, value: Value| drop(object.insert(key.to_owned(), value));
    put("time", Timestamp(time).to_text_with_millis().into());
    put("level", level.as_str().to_ascii_lowercase().into());
    match pairs(message) {
        Some((event, pairs)) => {
            put("event", event.into());
            for (key, value) in pairs {
                put(key, scalar(value));
            }
        }
        None => put("message", message.into()),
    }
    Value::Object(object).to_string()
}

/// The event and its pairs: `event key=value key="a text"`; `None` for a free text.
fn pairs(message: &str) -> Option<(&str, Vec<(&str, &str)>)> {
    let (event, mut rest) = message.split_once(' ').unwrap_or((message, ""));
    let mut pairs = Vec::new();
    while !rest.is_empty() {
        let (key, after) = rest.split_once('=')?;
        if key.is_empty() || !key.bytes().all(is_of_key) {
            return None;
        }
        let value = match after.strip_prefix('"') {
            Some(text) => &text[..end_of_text(text)?],
            None => after.split(' ').next().unwrap_or(after),
        };
        let length = value.len() + if after.starts_with('"') { 2 } else { 0 };
        rest = after[length..].trim_start();
        pairs.push((key, value));
    }
    event.bytes().all(is_of_key).then_some((event, pairs))
}

fn is_of_key(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || b"._".contains(&byte)
}

/// The quote that ends a text: the first one after which the line ends or another pair begins.
fn end_of_text(text: &str) -> Option<usize> {
    text.match_indices('"').map(|(at, _)| at).find(|at| {
        let rest = &text[at + 1..];
        let next = rest.strip_prefix(' ').and_then(|rest| rest.split_once('='));
        rest.is_empty()
            || next.is_some_and(|(key, _)| !key.is_empty() && key.bytes().all(is_of_key))
    })
}

/// A number where its text is that of the number, else a string.
fn scalar(text: &str) -> Value {
    let number = text.parse::<Number>().ok().filter(|number| number.to_string() == text);
    number.map_or_else(|| text.into(), Value::Number)
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIME: UnixTime = UnixTime::from_micros(1_000_000_000_007_000);

    fn line(style: Style, message: &str) -> String {
        String::from_utf8(style.line(TIME, Level::Warn, message)).unwrap()
    }

    #[test]
    fn a_line_of_text_has_a_time_of_fixed_width() {
        let text = Style::Text { is_colored: false };
        assert_eq!(line(text, "pass pass=1"), "2001-09-09T01:46:40.007Z WARN pass pass=1\n");
        assert!(line(text, "a\nb\n").ends_with(" WARN a\\nb\\n\n"));
        assert!(line(text, &"ü".repeat(20_000)).len() <= MAX_LINE);
        let colored = line(Style::Text { is_colored: true }, "x");
        assert!(colored.ends_with(" \u{1b}[33mWARN\u{1b}[0m x\n"), "{colored:?}");
    }

    #[test]
    fn the_journal_gets_a_priority() {
        assert_eq!(line(Style::Journal, "pass pass=1"), "<4>pass pass=1\n");
    }

    #[test]
    fn json_has_the_pairs_of_the_message_as_members() {
        let json = |message: &str| {
            let line = line(Style::Json, message);
            assert!(line.ends_with("}\n") && line.matches('\n').count() == 1, "{line}");
            serde_json::from_str::<Value>(&line).unwrap()
        };
        let stats = json("stats pass=12 rate=331.5 db=up limit=sockets version=1.2.3");
        assert_eq!((&stats["event"], &stats["pass"]), (&"stats".into(), &12.into()));
        assert_eq!((&stats["rate"], &stats["db"]), (&331.5.into(), &"up".into()));
        assert_eq!((&stats["level"], &stats["version"]), (&"warn".into(), &"1.2.3".into()));
        assert_eq!(stats["time"], "2001-09-09T01:46:40.007Z");
        let down = json("database state=down error=\"no \"x\" = y, z\" pending_rows=7");
        assert_eq!((&down["error"], &down["pending_rows"]), (&"no \"x\" = y, z".into(), &7.into()));
        let hostile = json("probe agent=\"\u{1b}\"}{\" ok=1");
        assert_eq!((&hostile["agent"], &hostile["ok"]), (&"\u{1b}\"}{".into(), &1.into()));
        assert_eq!(json("A free text: with words")["message"], "A free text: with words");
        assert_eq!(json("x broken=\"no end")["message"], "x broken=\"no end");
    }
}
