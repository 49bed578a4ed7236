//! `StoreError`: why a database operation failed, and whether a retry may succeed.
//!
//! Invariants:
//! 1. The text is one line without control characters.
//! 2. It never contains a password.
//! 3. An error of a closed connection is transient, whatever its code.

use std::error::Error;
use std::{fmt, io};

/// Why a database operation failed.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum StoreError {
    /// The database is away or busy: the same attempt may succeed later.
    Transient(String),
    /// No server listens there: the same attempt may succeed later.
    Absent(String),
    /// An operator has to act; the text says how.
    Permanent(String),
    /// The database was emptied or replaced since it was loaded: nothing was written.
    Emptied,
    /// Another crawler uses the database.
    Locked,
}

impl StoreError {
    /// Whether the same attempt may succeed later.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_) | Self::Absent(_))
    }

    pub(crate) fn transient(text: &str) -> Self {
        Self::Transient(one_line(text))
    }

    pub(crate) fn permanent(text: &str) -> Self {
        Self::Permanent(one_line(text))
    }

    /// Classifies an error of a statement; `is_closed` tells whether the connection is closed.
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
                "the tables of the database are not those of bitdash: {}",
                chain(error)
            )),
            None => Self::transient(&chain(error)),
        }
    }

    /// Classifies an error of connecting; `place` is the server's address, without a password.
    pub(crate) fn of_connect(error: &postgres::Error, place: &str) -> Self {
        let text = chain(error);
        if let Some(code) = error.code() {
            return of_code(code.code(), &text);
        }
        if let Some(cause) = io_cause(error) {
            let text = format!(
                "cannot connect to the database at {place}: {}",
                crate::sys::text_file::cause(cause)
            );
            return match cause.kind() {
                io::ErrorKind::PermissionDenied => Self::permanent(&text),
                io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused => {
                    Self::Absent(one_line(&format!(
                        "{text}: is PostgreSQL running there? Start it (systemctl start postgresql), or set database.url"
                    )))
                }
                _ => Self::transient(&text),
            };
        }
        if text.contains("password missing") {
            return Self::permanent(
                "the database asks for a password: put it into ~/.pgpass, database.url or BITDASH_DATABASE_URL",
            );
        }
        // The crate does not expose the kind of its errors.
        let permanent = ["invalid configuration", "authentication error", "error performing TLS"];
        if permanent.iter().any(|start| text.starts_with(start)) {
            let text = if text.starts_with("error performing TLS") {
                "it accepts only TLS, which bitdash cannot do: connect through a tunnel (ssh -L), or allow connections without TLS from this host in pg_hba.conf".to_owned()
            } else {
                text
            };
            return Self::permanent(&format!("cannot log in to the database at {place}: {text}"));
        }
        Self::transient(&format!("cannot connect to the database at {place}: {text}"))
    }
}

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Transient(text) | Self::Absent(text) | Self::Permanent(text) => f.write_str(text),
            Self::Emptied => f.write_str("the database was emptied or replaced"),
            Self::Locked => f.write_str(
                "another bitdash crawls into this database already: stop it, or use another database",
            ),
        }
    }
}

impl Error for StoreError {}

/// Classifies an SQLSTATE. Unknown codes are transient: waiting loses nothing.
fn of_code(code: &str, text: &str) -> StoreError {
    let advice = match code {
        "3D000" => {
            "create it (createdb -T template0 -E UTF8 -l C NAME), or name another one in database.url"
        }
        "28000" => {
            "create the role (createuser NAME), or name another one in database.url (postgresql://ROLE@HOST/DATABASE)"
        }
        "28P01" => "check the password in database.url or BITDASH_DATABASE_URL",
        "42501" => {
            "the role that crawls must own the database (ALTER DATABASE NAME OWNER TO ROLE); to read it, join the group bitdash (adduser USER bitdash, then /usr/lib/bitdash/setup-database)"
        }
        "25006" => {
            "it is a standby, or the role may only read: name the primary server in database.url, or a role that owns the database"
        }
        "42P01" | "42703" => {
            "the schema is incomplete: run \"bitdash migrate\" on an empty database"
        }
        "42P07" | "42P16" => "this relation is not one of bitdash: give bitdash its own database",
        _ if matches!(code.get(..2), Some("22" | "23" | "42" | "54" | "0A")) => {
            "this is a bug in bitdash, or its tables were changed by hand"
        }
        _ => return StoreError::transient(text),
    };
    StoreError::permanent(&format!("{text}: {advice}"))
}

/// Whether the columns of the answer are not the expected ones.
fn is_mismatch(error: &postgres::Error) -> bool {
    let text = error.to_string();
    ["error serializing", "error deserializing", "invalid column", "query returned", "expected"]
        .iter()
        .any(|start| text.starts_with(start))
}

/// The text of the error: that of the server with its SQLSTATE, if there is one.
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

/// Ensures invariant 1: a server may send anything.
fn one_line(text: &str) -> String {
    text.chars().map(|c| if c.is_control() { ' ' } else { c }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_that_need_an_operator_are_permanent_and_say_what_to_do() {
        for (code, advice) in [
            ("3D000", "createdb"),
            ("28000", "createuser"),
            ("28P01", "password"),
            ("42501", "must own the database"),
            ("25006", "primary"),
            ("42P01", "bitdash migrate"),
            ("23514", "bug in bitdash"),
        ] {
            let error = of_code(code, "a server error");
            assert!(!error.is_transient(), "{code}");
            assert!(error.to_string().starts_with("a server error: "));
            assert!(error.to_string().contains(advice), "{code}: {error}");
        }
    }

    #[test]
    fn other_codes_are_transient() {
        for code in
            ["57P03", "57P01", "57P02", "53300", "53100", "57014", "40001", "08006", "XX000", ""]
        {
            assert!(of_code(code, "x").is_transient(), "{code}");
        }
    }

    #[test]
    fn a_text_is_one_line() {
        let error = StoreError::transient("a\nb\u{1b}[31m\tc");
        assert_eq!(error.to_string(), "a b [31m c");
    }
}
