//! `StoreError`: why the database did not do what it was asked, and whether waiting helps.
//!
//! Layer 3. Invariants: 1. the text is one line, without control characters; 2. it never holds a password;
//! 3. an error of a dead connection is transient, whatever it says of itself.

use std::error::Error;
use std::{fmt, io};

/// Why the database did not do what it was asked.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreError {
    /// The database is away or busy: the same attempt may succeed later.
    Transient(String),
    /// A person has to act; the text says how.
    Permanent(String),
    /// The database is not the one that was loaded, or was emptied by hand: nothing was written.
    Emptied,
}

impl StoreError {
    /// Whether the same attempt may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_))
    }

    pub(crate) fn transient(text: &str) -> Self {
        Self::Transient(one_line(text))
    }

    pub(crate) fn permanent(text: &str) -> Self {
        Self::Permanent(one_line(text))
    }

    /// What an error of a statement means; `is_closed` tells whether the connection is gone.
    pub(crate) fn of_statement(error: &postgres::Error, is_closed: bool) -> Self {
        if is_closed {
            return Self::transient(&format!(
                "the connection to the database broke: {}",
                chain(error)
            ));
        }
        match error.code() {
            Some(code) => of_code(code.code(), &chain(error)),
            None if is_mismatch(error) => Self::permanent(&format!(
                "the database's tables are not bitdash's: {}",
                chain(error)
            )),
            None => Self::transient(&chain(error)),
        }
    }

    /// What an error of connecting means; `place` says where to, without a password.
    pub(crate) fn of_connect(error: &postgres::Error, place: &str) -> Self {
        let text = chain(error);
        if let Some(code) = error.code() {
            return of_code(code.code(), &text);
        }
        if let Some(cause) = io_cause(error) {
            let text = format!("cannot reach the database at {place}: {cause}");
            return match cause.kind() {
                io::ErrorKind::PermissionDenied => Self::permanent(&text),
                _ => Self::transient(&text),
            };
        }
        if text.contains("password missing") {
            return Self::permanent(
                "the database asks for a password: put it into database.url or BITDASH_DATABASE_URL",
            );
        }
        let is_ours = ["invalid configuration", "authentication error", "error performing TLS"];
        if is_ours.iter().any(|start| text.starts_with(start)) {
            return Self::permanent(&format!("cannot log in to the database at {place}: {text}"));
        }
        Self::transient(&format!("cannot reach the database at {place}: {text}"))
    }

    /// What an error of a COPY stream means: the crate wraps the database's error into one of I/O.
    pub(crate) fn of_stream(error: &io::Error, is_closed: bool) -> Self {
        match error.get_ref().and_then(|inner| inner.downcast_ref::<postgres::Error>()) {
            Some(inner) => Self::of_statement(inner, is_closed),
            None => Self::transient(&format!("the connection to the database broke: {error}")),
        }
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transient(text) | Self::Permanent(text) => f.write_str(text),
            Self::Emptied => f.write_str("the database was emptied, or is another one"),
        }
    }
}

impl Error for StoreError {}

/// What an SQLSTATE means. Codes that nobody listed are transient: a crawler that waits loses nothing.
fn of_code(code: &str, text: &str) -> StoreError {
    let advice = match code {
        "3D000" => "create it (createdb NAME), or name another one in database.url",
        "28000" => {
            "create the role (createuser NAME), or name another one in database.url (postgresql://ROLE@HOST/DATABASE)"
        }
        "28P01" => "check the password in database.url or BITDASH_DATABASE_URL",
        "42501" => {
            "make bitdash's role the owner of the database (ALTER DATABASE NAME OWNER TO ROLE), or grant it what is missing"
        }
        "42P01" | "42703" => {
            "the schema is not whole: run \"bitdash migrate\" on an empty database"
        }
        "42P07" | "42P16" => "a relation of that name is not bitdash's: use a database of its own",
        _ if matches!(code.get(..2), Some("22" | "23" | "42" | "54" | "0A")) => {
            "this is a fault of bitdash or of a hand that changed its tables"
        }
        _ => return StoreError::transient(text),
    };
    StoreError::permanent(&format!("{text}: {advice}"))
}

/// Whether the answer's shape is not what was asked for: waiting would never help.
fn is_mismatch(error: &postgres::Error) -> bool {
    let text = error.to_string();
    ["error serializing", "error deserializing", "invalid column", "query returned", "expected"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// The error in words: the server's own where there are any, with its SQLSTATE.
fn chain(error: &postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

fn io_cause(error: &postgres::Error) -> Option<&io::Error> {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(found) = cause.downcast_ref::<io::Error>() {
            return Some(found);
        }
        source = cause.source();
    }
    None
}

/// Invariant 1: what a server says may hold anything.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_a_person_must_act_on_are_permanent_and_say_what_to_do() {
        for (code, advice) in [
            ("3D000", "createdb"),
            ("28000", "createuser"),
            ("28P01", "password"),
            ("42501", "owner"),
            ("42P01", "bitdash migrate"),
            ("23514", "fault"),
        ] {
            let error = of_code(code, "the server's words");
            assert!(!error.is_transient(), "{code}");
            assert!(error.to_string().starts_with("the server's words: "));
            assert!(error.to_string().contains(advice), "{code}: {error}");
        }
    }

    #[test]
    fn codes_that_pass_by_themselves_are_transient() {
        for code in [
            "57P03", "57P01", "57P02", "53300", "53100", "57014", "40001", "08006", "25006",
            "XX000", "",
        ] {
            assert!(of_code(code, "x").is_transient(), "{code}");
        }
    }

    #[test]
    fn a_text_is_one_line() {
        let error = StoreError::transient("a\nb\u{1b}[31m\tc");
        assert_eq!(error.to_string(), "a b [31m c");
    }
}
