//! The password file of PostgreSQL's own programs: `PGPASSFILE`, or `~/.pgpass`.
//!
//! Source: PostgreSQL documentation, "The Password File"; libpq `passwordFromFile`.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use postgres::Config;
use postgres::config::Host;

use crate::sys::text_file;

/// Maximum size of the file in bytes.
const MAX_BYTES: u64 = 1_000_000;
/// Bits of a mode that give group and others any right.
const SHARED: u32 = 0o077;

/// The password for a connection, if the file has one.
pub(super) fn find(config: &Config) -> Option<String> {
    let variable = |name: &str| std::env::var_os(name).filter(|value| !value.is_empty());
    let file = match variable("PGPASSFILE") {
        Some(file) => PathBuf::from(file),
        None => PathBuf::from(variable("HOME")?).join(".pgpass"),
    };
    let text = read(&file)?;
    let host = match config.get_hosts().first() {
        Some(Host::Tcp(name)) => name.clone(),
        // libpq: a socket directory counts as localhost.
        Some(Host::Unix(_)) => "localhost".to_owned(),
        None => config.get_hostaddrs().first()?.to_string(),
    };
    let port = config.get_ports().first().copied().unwrap_or(5432).to_string();
    let user = config.get_user().map(str::to_owned).or_else(|| std::env::var("USER").ok())?;
    let database = config.get_dbname().unwrap_or(&user).to_owned();
    password_in(&text, [&host, &port, &database, &user])
}

/// The text of the file; as libpq does, one that others may read is ignored.
fn read(file: &Path) -> Option<String> {
    let metadata = fs::metadata(file).ok().filter(fs::Metadata::is_file)?;
    if metadata.permissions().mode() & SHARED != 0 {
        log::warn!(
            "password_file file={} error=\"others may read it, so it is ignored: chmod 600\"",
            file.display()
        );
        return None;
    }
    text_file::read(file, MAX_BYTES).ok().and_then(|bytes| String::from_utf8(bytes).ok())
}

/// The password of the first line whose host, port, database and user match.
fn password_in(text: &str, wanted: [&str; 4]) -> Option<String> {
    text.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let fields = fields(line);
        let (names, password) = (fields.get(..4)?, fields.get(4)?);
        let matches = names.iter().zip(wanted).all(|(name, wanted)| name == "*" || name == wanted);
        matches.then(|| password.clone())
    })
}

/// Colons separate fields; a backslash escapes a colon or a backslash.
fn fields(line: &str) -> Vec<String> {
    let mut fields = vec![String::new()];
    let mut chars = line.chars();
    while let Some(c) = chars.next() {
        if c == ':' && fields.len() < 5 {
            fields.push(String::new());
            continue;
        }
        let literal = if c == '\\' { chars.next() } else { Some(c) };
        fields.last_mut().expect("never empty").extend(literal);
    }
    fields
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_line_that_matches_has_the_password() {
        let text = "# a comment\nbroken\nother:5432:*:bob:no\n\
                    localhost:*:bit\\:dash:bob:a\\\\b:c\n*:*:*:*:last\n";
        let password = |wanted| password_in(text, wanted);
        assert_eq!(password(["localhost", "5432", "bit:dash", "bob"]).as_deref(), Some("a\\b:c"));
        assert_eq!(password(["h", "1", "d", "u"]).as_deref(), Some("last"));
        assert_eq!(password_in("h:1:d:u", ["h", "1", "d", "u"]), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("pgpass");
        std::fs::write(&file, "*:*:*:*:x").unwrap();
        for (mode, is_read) in [(0o600, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(read(&file).is_some(), is_read, "{mode:o}");
        }
        assert_eq!(read(directory.path()), None);
    }
}
