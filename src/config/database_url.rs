//! `DatabaseUrl`: a connection string whose password no message shows by accident.

use std::fmt;
use std::str::FromStr;

use postgres::config::Host;

/// A PostgreSQL connection string, as a URL or as `key=value` pairs.
///
/// `Display` and `Debug` mask the password; only [`DatabaseUrl::expose`] returns it.
#[derive(Clone, PartialEq, Eq)]
pub struct DatabaseUrl(String);

impl DatabaseUrl {
    /// The allowed values, as the end of the sentence "must be ...".
    pub const ALLOWED: &str = "a PostgreSQL URL such as \"postgresql://user@host/name\" (an @ or ? \
        in its password is written %40, %3F) or key=value pairs";

    /// Whether a connection string, parsed as `config`, has an unescaped `@` in its password. The
    /// parser ends the password at the first one and takes the rest for the host, which would be
    /// looked up and logged.
    pub fn has_raw_at(text: &str, config: &postgres::Config) -> bool {
        let is_cut = |host: &Host| matches!(host, Host::Tcp(name) if name.contains('@'));
        // After a slash the rest of the password becomes the database's name; and an `@` in a
        // parameter, too, ends what the parser takes for user and password.
        let is_late = is_url(text) && text.split('@').next().is_some_and(|head| head.contains('?'));
        let has_another = location(text).contains('@');
        text.contains('@') && is_late || has_another || config.get_hosts().iter().any(is_cut)
    }

    /// The connection string with its password: for connecting, never for a message.
    pub fn expose(&self) -> &str {
        &self.0
    }

    /// The connection string with its password masked. It is still valid unless all of it had to be
    /// masked.
    pub fn masked(&self) -> String {
        let masked =
            if self.0.contains("://") { masked_url(&self.0) } else { masked_pairs(&self.0) };
        // The real parser finds passwords in spellings that the masking missed.
        match masked.parse::<postgres::Config>() {
            Ok(config) if matches!(config.get_password(), None | Some(b"***")) => masked,
            _ => MASK.to_owned(),
        }
    }
}

impl FromStr for DatabaseUrl {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        // Drop the parser's message: it may quote a part of the password.
        match text.parse::<postgres::Config>() {
            Ok(config) if !text.trim().is_empty() && !Self::has_raw_at(text, &config) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(()),
        }
    }
}

impl fmt::Display for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.masked())
    }
}

impl fmt::Debug for DatabaseUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "DatabaseUrl({:?})", self.masked())
    }
}

const MASK: &str = "***";

/// The part of a URL between the first `@` and the parameters: hosts, ports and database name.
fn location(text: &str) -> &str {
    let (_, rest) = text.split_once('@').filter(|_| is_url(text)).unwrap_or_default();
    rest.split('?').next().unwrap_or(rest)
}

fn is_url(text: &str) -> bool {
    text.starts_with("postgresql://") || text.starts_with("postgres://")
}

/// Masks from the user's colon to the very last `@`, so that a password with an unescaped `@`, `/`
/// or `?` is masked completely.
fn masked_url(url: &str) -> String {
    let (scheme, rest) = url.split_once("://").unwrap_or(("", url));
    let credentials_end = rest.find('@').unwrap_or(0);
    let masked = match rest.find(':') {
        Some(colon) if colon < credentials_end => {
            let end = rest.rfind('@').unwrap_or(credentials_end);
            format!("{}:{MASK}{}", &rest[..colon], &rest[end..])
        }
        _ => rest.to_owned(),
    };
    let Some((location, query)) = masked.split_once('?') else {
        return format!("{scheme}://{masked}");
    };
    let query: Vec<String> = query.split('&').map(masked_parameter).collect();
    format!("{scheme}://{location}?{}", query.join("&"))
}

fn masked_parameter(parameter: &str) -> String {
    match parameter.split_once('=') {
        Some((key, _)) if key.eq_ignore_ascii_case("password") => format!("{key}={MASK}"),
        _ => parameter.to_owned(),
    }
}

/// Masks the value of `password = value`, bare or in single quotes with backslash escapes.
fn masked_pairs(pairs: &str) -> String {
    let mut out = String::new();
    let mut rest = pairs;
    while let Some(equals) = rest.find('=') {
        let (key, value) = rest.split_at(equals + 1);
        let value_start = value.len() - value.trim_start().len();
        let end = value_start + value_length(&value[value_start..]);
        out.push_str(key);
        if key.trim_end_matches('=').trim().eq_ignore_ascii_case("password") {
            out.push_str(MASK);
        } else {
            out.push_str(&value[..end]);
        }
        rest = &value[end..];
    }
    out.push_str(rest);
    out
}

fn value_length(value: &str) -> usize {
    let quoted = value.starts_with('\'');
    let mut escaped = false;
    for (index, c) in value.char_indices().skip(usize::from(quoted)) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '\'' if quoted => return index + 1,
            c if !quoted && c.is_whitespace() => return index,
            _ => {}
        }
    }
    value.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passwords_are_masked_in_both_forms() {
        let table = [
            ("postgresql:///bitdash", "postgresql:///bitdash"),
            ("postgresql://user@host:5432/db", "postgresql://user@host:5432/db"),
            ("postgresql://user:secret@host:5432/db", "postgresql://user:***@host:5432/db"),
            (
                "postgres://user:se%20cret@host/db?connect_timeout=3",
                "postgres://user:***@host/db?connect_timeout=3",
            ),
            ("postgresql://u:se:cr/et@host/db", "postgresql://u:***@host/db"),
            (
                "postgresql://host/db?user=u&password=secret",
                "postgresql://host/db?user=u&password=***",
            ),
            (
                "host=/run/postgresql user=u password=secret dbname=db",
                "host=/run/postgresql user=u password=*** dbname=db",
            ),
            ("password = 'se cr\\'et' user = u", "password =*** user = u"),
            ("password=sec\\ ret user=u", "password=*** user=u"),
            ("user=u dbname=bitdash", "user=u dbname=bitdash"),
            // An escaped key, which the parser decodes: everything is masked.
            ("postgresql://host/db?p%61ssword=secret", "***"),
        ];
        for (url, masked) in table {
            let url: DatabaseUrl = url.parse().unwrap();
            assert_eq!(url.masked(), masked);
            assert_eq!(url.to_string(), masked);
            assert_eq!(format!("{url:?}"), format!("DatabaseUrl({masked:?})"));
        }
    }

    #[test]
    fn the_unmasked_string_is_kept_for_connecting() {
        let url: DatabaseUrl = "postgresql://user:secret@host/db".parse().unwrap();
        assert_eq!(url.expose(), "postgresql://user:secret@host/db");
    }

    #[test]
    fn invalid_connection_strings_are_rejected() {
        for text in ["", " ", "bitdash", "http//x", "postgresql://host:port/db", "nonsense=1"] {
            assert!(text.parse::<DatabaseUrl>().is_err(), "{text:?}");
        }
    }

    #[test]
    fn an_unescaped_at_in_a_password_is_rejected_an_escaped_one_kept() {
        for text in RAW_ATS {
            assert!(text.parse::<postgres::Config>().is_ok(), "{text:?}: the parser accepts it");
            assert!(text.parse::<DatabaseUrl>().is_err(), "{text:?}");
        }
        for text in [
            "postgresql://u:pa%40ss@host/db",
            "postgresql://host/db?user=u&password=pa%40ss",
            "postgresql://u@/db?host=/tmp/a@b",
            "host=/tmp/a@b user=u@v password=pa@ss",
            "host=h password=a://b@c@ss",
        ] {
            let url: DatabaseUrl = text.parse().unwrap_or_else(|()| panic!("{text:?}"));
            assert!(!url.masked().contains("ss@"), "{url}");
        }
    }

    /// Passwords of which the parser takes a part for the host.
    const RAW_ATS: [&str; 10] = [
        "postgresql://u:se:cr/et?@host/db",
        "postgresql://host/db?user=u&password=pa@ss",
        "postgresql://host:5432/db?user=u&password=pa@ss",
        "postgresql://u:pa@ss@host/db",
        "postgres://u:pa@ss@host:5432/db?connect_timeout=3",
        "postgresql://u:p@ss/word@host/db",
        "postgresql://u:p?w@ss/word@host/db",
        "postgresql://u:p@ss,word@host/db",
        "postgresql://u:pa@ss%40host/db",
        "host=ss@host user=u",
    ];
}
