//! `ConfigError`: an invalid configuration, as one line that an operator can act on.

use std::fmt;

/// An invalid configuration. Its text is one line and never contains a password.
#[derive(Clone, PartialEq, Eq, Debug)]
#[non_exhaustive]
pub enum ConfigError {
    /// A file cannot be read, is too large or is not text.
    File {
        /// The file as the operator named it.
        file: String,
        /// The problem, such as "is larger than 1 MB".
        problem: String,
    },
    /// The file is not TOML.
    Syntax {
        /// The file.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// The character in the line, counted from 1.
        column: usize,
        /// The parser's message.
        message: String,
    },
    /// A key or section that does not exist.
    UnknownKey {
        /// The file.
        file: String,
        /// The key as written, with its section.
        key: String,
        /// The most similar existing key.
        suggestion: Option<String>,
    },
    /// An invalid value of a key.
    Value {
        /// The file, or the environment variable.
        file: String,
        /// The key with its section; empty for an environment variable.
        key: String,
        /// The value as TOML, shortened.
        value: String,
        /// The allowed values.
        allowed: String,
    },
    /// An error in a line of species.toml.
    Line {
        /// The file.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// The problem, such as "species.x: must have a meaning".
        problem: String,
    },
    /// More than one of the others.
    Several(Vec<ConfigError>),
    /// A line of an exclude file that is neither an address nor a CIDR.
    ListLine {
        /// The exclude file.
        file: String,
        /// The line, counted from 1.
        line: usize,
        /// The text of the line, quoted and shortened.
        text: String,
    },
}

impl ConfigError {
    /// All of several errors, if there are any.
    ///
    /// # Errors
    /// The errors.
    pub(super) fn all(mut errors: Vec<Self>) -> Result<(), Self> {
        match errors.len() {
            0 => Ok(()),
            1 => Err(errors.remove(0)),
            _ => Err(Self::Several(errors)),
        }
    }

    /// The line in the file, if the error has one.
    pub(super) fn line(&self) -> Option<usize> {
        match self {
            Self::UnknownKey { file, .. } | Self::Value { file, .. } => {
                file.rsplit_once(':').and_then(|(_, line)| line.parse().ok())
            }
            _ => None,
        }
    }

    /// The errors, one a line.
    pub fn lines(&self) -> Vec<String> {
        match self {
            Self::Several(errors) => errors.iter().flat_map(Self::lines).collect(),
            error => vec![error.to_string()],
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Several(_) => f.write_str(&self.lines().join("; ")),
            Self::File { file, problem } => write!(f, "{file}: {problem}"),
            Self::Line { file, line, problem } => write!(f, "{file}:{line}: {problem}"),
            Self::Syntax { file, line, column, message } => {
                write!(f, "{file}:{line}:{column}: {message}")
            }
            Self::UnknownKey { file, key, suggestion: Some(suggestion) } => {
                write!(f, "{file}: {key}: no such key, did you mean {suggestion}?")
            }
            Self::UnknownKey { file, key, suggestion: None } => {
                write!(f, "{file}: {key}: no such key, `bitdash config` prints all keys")
            }
            Self::Value { file, key, value, allowed } if key.is_empty() => {
                write!(f, "{file} = {value}: must be {allowed}")
            }
            Self::Value { file, key, value, allowed } => {
                write!(f, "{file}: {key} = {value}: must be {allowed}")
            }
            Self::ListLine { file, line, text } => {
                write!(f, "{file}:{line}: {text}: must be an IPv4 address or CIDR")
            }
        }
    }
}

impl std::error::Error for ConfigError {}
