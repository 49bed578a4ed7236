//! `Screen`: what standard output is: its width and whether it gets colours.
//!
//! A pipe or a file gets neither. `--color`, `NO_COLOR` and `TERM=dumb` decide about colours as
//! they do elsewhere.

use std::borrow::Cow;
use std::ffi::OsString;
use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::sync::OnceLock;

use clap::ValueEnum;
use rustix::termios::tcgetwinsize;

/// The value of `--color`.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Color {
    /// On a terminal, unless `NO_COLOR` is set or `TERM` is `dumb`.
    #[default]
    Auto,
    /// Also in a pipe.
    Always,
    /// Never.
    Never,
}

/// What standard output is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Screen {
    /// Columns of the terminal; `None` for a pipe or file, whose lines have any length.
    pub width: Option<usize>,
    /// Whether to colour.
    pub is_colored: bool,
    /// Whether it is a terminal that shows more than ASCII, as the locale says.
    pub is_unicode: bool,
}

/// The role of a text, which decides about its colour.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Paint {
    /// No colour.
    Plain,
    /// The heading of a table or section.
    Heading,
    /// A node that is up; success.
    Good,
    /// Something to look at.
    Fair,
    /// A node that is down; an error.
    Bad,
}

impl Paint {
    /// The colour of a status or outcome.
    pub fn of_word(word: &str) -> Self {
        match word {
            "up" | "responded" => Self::Good,
            "full" | "closed" => Self::Fair,
            "-" => Self::Plain,
            _ => Self::Bad,
        }
    }

    /// Parameter of "select graphic rendition" (ECMA-48).
    fn sgr(self) -> Option<&'static str> {
        match self {
            Self::Plain => None,
            Self::Heading => Some("1"),
            Self::Good => Some("32"),
            Self::Fair => Some("33"),
            Self::Bad => Some("31"),
        }
    }
}

impl Screen {
    /// Neither width nor colours, ASCII only.
    pub const PLAIN: Self = Self { width: None, is_colored: false, is_unicode: false };

    /// The screen of standard output.
    pub fn of_stdout() -> Self {
        let width = width_of(std::io::stdout());
        let is_terminal = width.is_some();
        Self {
            width,
            is_colored: is_colored(is_terminal),
            is_unicode: is_terminal && is_utf8_locale(),
        }
    }

    /// The text in the colour of its role.
    pub fn paint<'t>(&self, paint: Paint, text: &'t str) -> Cow<'t, str> {
        match paint.sgr().filter(|_| self.is_colored) {
            Some(sgr) => format!("\x1b[{sgr}m{text}\x1b[0m").into(),
            None => text.into(),
        }
    }
}

/// Columns of a terminal; `None` for a pipe or file.
pub fn width_of(stream: impl AsFd + IsTerminal) -> Option<usize> {
    stream.is_terminal().then(|| {
        let size = tcgetwinsize(&stream).ok().map(|size| usize::from(size.ws_col));
        // A serial console does not know its size.
        size.filter(|columns| *columns > 0).unwrap_or(80)
    })
}

/// A variable of the environment; an empty one counts as not set.
fn variable(name: &str) -> Option<OsString> {
    std::env::var_os(name).filter(|value| !value.is_empty())
}

/// Whether the locale of characters is UTF-8, as `locale(7)` chooses it.
fn is_utf8_locale() -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"].into_iter().find_map(variable);
    let name = locale.unwrap_or_default().to_string_lossy().to_lowercase();
    name.ends_with("utf-8") || name.ends_with("utf8")
}

/// The value of `--color`, which holds for the whole process.
static COLOR: OnceLock<Color> = OnceLock::new();

/// Sets the value of `--color`; the first one counts.
pub fn set_color(color: Color) {
    COLOR.get_or_init(|| color);
}

/// Whether a stream gets colours.
pub fn is_colored(is_terminal: bool) -> bool {
    match COLOR.get().copied().unwrap_or_default() {
        Color::Always => true,
        Color::Never => false,
        Color::Auto => {
            let is_dumb = variable("TERM").is_none_or(|term| term == "dumb");
            is_terminal && !is_dumb && variable("NO_COLOR").is_none()
        }
    }
}
