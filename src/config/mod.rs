//! The configuration: `bitdash.toml` and the environment, checked completely before use.
//!
//! `config/keys.rs` declares all keys. Invariants:
//! 1. every value of a [`Config`] is in its range;
//! 2. parsing the output of [`Config::to_toml`] returns the same configuration, except for a masked
//!    password;
//! 3. no message, `Debug` output or printed configuration contains the password of the database.

mod database_url;
mod error;
mod keys;
mod lists;
mod rules;
mod source;
mod species;
mod user_agent;

use std::path::Path;

use ipnet::Ipv4Net;
use toml::de::DeTable;
use toml::{Spanned, Value};

pub use self::database_url::DatabaseUrl;
pub use self::error::ConfigError;
pub use self::keys::{
    Config, CrawlConfig, DatabaseConfig, FilterConfig, GeoConfig, KEYS, Key, LogConfig,
    NetworkConfig, Reload, SiteConfig,
};
pub use self::lists::read_exclude_file;
pub use self::rules::{GeoFile, LogFormat, Publish, duration_text};
pub use self::source::{ConfigSource, DEFAULT_FILES, FILE_VARIABLE, URL_VARIABLE};
pub use self::species::{SPECIES_FILE, SpeciesRules};
use crate::sys::text_file::quoted;
use bitdash_core::vocabulary::filter::Filter;

/// Maximum number of addresses that the exclude lists may cover without `filter.only`: a quarter.
/// All bogons are a seventh.
const MAX_EXCLUDED: u64 = 1 << 30;

/// The effect of a new configuration on a running crawl.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReloadReport {
    /// Changes that take effect, such as `max_sockets=50->800`: without spaces, names outside
    /// `crawl` with their section.
    pub changed: Vec<String>,
    /// Changes of keys that are only read at start.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// Parses a configuration file. `file` is its name in messages; relative paths are resolved
    /// against `directory`.
    ///
    /// # Errors
    /// Every error in the file, each with its line.
    pub fn parse(text: &str, file: &str, directory: &Path) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error| syntax_error(file, text, &error))?;
        let mut config = Self::defaults_in(directory);
        let lines = Lines::of(text);
        let mut errors = Vec::new();
        for (section, value) in &table {
            let place = |field: Option<&str>| lines.place(file, section, field);
            config.read_section(&place, directory, section, value, &mut errors);
        }
        errors.sort_by_key(ConfigError::line);
        ConfigError::all(errors)?;
        config.check_user_agent(file, &lines)?;
        Ok(config)
    }

    fn check_user_agent(&self, file: &str, lines: &Lines) -> Result<(), ConfigError> {
        let excess = self.sent_user_agent().len().saturating_sub(user_agent::MAX_LENGTH);
        if excess == 0 {
            return Ok(());
        }
        Err(ConfigError::Value {
            file: lines.place(file, "network", Some("contact")),
            key: "network.contact".to_owned(),
            value: quoted(&self.network.contact),
            allowed: format!(
                "{excess} characters shorter: with it the user agent has more than {}",
                user_agent::MAX_LENGTH
            ),
        })
    }

    /// Reads a section; its errors are appended to `errors`. `place` is the file and line of a key.
    fn read_section(
        &mut self,
        place: &dyn Fn(Option<&str>) -> String,
        directory: &Path,
        section: &str,
        value: &Value,
        errors: &mut Vec<ConfigError>,
    ) {
        let unknown = |file: String, key: &str| ConfigError::UnknownKey {
            file,
            key: one_word(key),
            suggestion: keys::suggestion(key).map(str::to_owned),
        };
        let wrong = |file: String, key: &str, refusal: rules::Refusal| ConfigError::Value {
            file,
            key: key.to_owned(),
            value: shown(section, refusal.value),
            allowed: refusal.allowed,
        };
        if !KEYS.iter().any(|key| key.section == section) {
            return errors.push(unknown(place(None), section));
        }
        let Some(fields) = value.as_table() else {
            let value = rules::show_value(value);
            let allowed = format!("a section, written as [{section}]");
            return errors.push(wrong(place(None), section, rules::Refusal { value, allowed }));
        };
        for (field, value) in fields {
            let name = format!("{section}.{field}");
            let place = place(Some(field));
            let Some(key) = KEYS.iter().find(|key| key.name == name) else {
                errors.push(unknown(place, &name));
                continue;
            };
            if let Err(refusal) = (key.read)(self, value, directory) {
                errors.push(wrong(place, key.name, refusal));
            }
        }
    }

    /// The user agent as sent, with the contact.
    pub fn sent_user_agent(&self) -> String {
        let agent = user_agent::with_version(&self.network.user_agent);
        user_agent::with_contact(&agent, &self.network.contact)
    }

    /// Reads the exclude files and builds the filter.
    ///
    /// # Errors
    /// A file cannot be read or contains an invalid line; without `filter.only`, the lists exclude
    /// most likely too much.
    pub fn load_filter(&self) -> Result<Filter, ConfigError> {
        let mut exclude = self.filter.exclude.clone();
        let check = |exclude: &[Ipv4Net], list: String| {
            let (_, addresses) = Filter::new(exclude, &[]).excluded();
            if self.filter.only.is_empty() && addresses > MAX_EXCLUDED {
                let problem = "excludes more than a quarter of all IPv4 addresses; if that is meant, \
                               set filter.only";
                return Err(ConfigError::File { file: list, problem: problem.to_owned() });
            }
            Ok(())
        };
        check(&exclude, "filter.exclude".to_owned())?;
        for path in &self.filter.exclude_files {
            exclude.extend(read_exclude_file(path)?);
            check(&exclude, path.display().to_string())?;
        }
        Ok(Filter::new(&exclude, &self.filter.only))
    }

    /// The effective configuration as TOML that can be parsed again, with the password masked and
    /// differences from the defaults marked.
    pub fn to_toml(&self) -> String {
        let (mut text, defaults) = (String::new(), Self::default());
        for section in KEYS.chunk_by(|a, b| a.section == b.section) {
            let separator = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{separator}[{}]\n", section[0].section));
            for key in section {
                let (value, default) = ((key.show)(self), (key.show)(&defaults));
                let mark =
                    if value == default { String::new() } else { format!(" # default: {default}") };
                text.push_str(&format!("{} = {value}{mark}\n", key.field));
            }
        }
        text
    }

    /// Compares a new configuration with this one, which a crawl is running with.
    pub fn reload_differences(&self, new: &Self) -> ReloadReport {
        let mut report = ReloadReport::default();
        for key in KEYS.iter().filter(|key| !(key.same)(self, new)) {
            let name = if key.section == "crawl" { key.field } else { key.name };
            let (before, after) = (log_text(&(key.show)(self)), log_text(&(key.show)(new)));
            // Two masked passwords or two shortened lists may look alike.
            let line = if before == after {
                format!("{name}=changed")
            } else {
                format!("{name}={before}->{after}")
            };
            match key.reload {
                Reload::Live => report.changed.push(line),
                Reload::AtStart => report.needs_restart.push(line),
            }
        }
        report
    }

    /// This configuration with the live keys of `new`: the one that a crawl runs with after SIGHUP.
    pub fn reloaded_with(&self, new: &Self) -> Self {
        let mut config = self.clone();
        for key in KEYS.iter().filter(|key| key.reload == Reload::Live) {
            (key.take)(&mut config, new);
        }
        config
    }
}

impl Default for Config {
    fn default() -> Self {
        Self::defaults_in(Path::new(""))
    }
}

/// The lines of the keys of a configuration file.
struct Lines<'t> {
    text: &'t str,
    table: Option<DeTable<'t>>,
}

impl<'t> Lines<'t> {
    fn of(text: &'t str) -> Self {
        Self { text, table: DeTable::parse(text).ok().map(Spanned::into_inner) }
    }

    /// The file and, if it is known, the line of a section or key.
    fn place(&self, file: &str, section: &str, field: Option<&str>) -> String {
        match self.line(section, field) {
            Some(line) => format!("{file}:{line}"),
            None => file.to_owned(),
        }
    }

    fn line(&self, section: &str, field: Option<&str>) -> Option<usize> {
        let (key, value) = self.table.as_ref()?.get_key_value(section)?;
        let start = match field {
            None => key.span().start,
            Some(field) => value.get_ref().as_table()?.get_key_value(field)?.0.span().start,
        };
        Some(self.text.get(..start)?.matches('\n').count() + 1)
    }
}

fn syntax_error(file: &str, text: &str, error: &toml::de::Error) -> ConfigError {
    let start = error.span().map_or(0, |span| span.start);
    let before = text.get(..start).unwrap_or(text);
    let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
    let message: Vec<&str> = error.message().lines().map(str::trim).collect();
    ConfigError::Syntax {
        file: file.to_owned(),
        line: before.matches('\n').count() + 1,
        column: before[line_start..].chars().count() + 1,
        message: message.join(", "),
    }
}

/// An invalid value for a message. Any value of the section `database` is masked: a misplaced URL
/// or password may stand under any of its keys.
fn shown(section: &str, value: String) -> String {
    if section == "database" { "***".to_owned() } else { value }
}

/// A key's name for a message, quoted if unusual; masked if it may be a URL or `key=value` pairs
/// with a password.
fn one_word(name: &str) -> String {
    let is_plain = name.chars().all(|c| c.is_ascii_alphanumeric() || "._-".contains(c));
    if is_plain && name.len() <= 60 {
        name.to_owned()
    } else if name.contains([':', '@', '=']) {
        "***".to_owned()
    } else {
        quoted(name)
    }
}

/// A TOML value as a value of a log line: without quotes and spaces, shortened.
fn log_text(value: &str) -> String {
    if value == "\"\"" {
        return "none".to_owned();
    }
    let mut text = String::new();
    for c in value.replace(", ", ",").chars().filter(|&c| c != '"') {
        if text.len() >= 60 {
            text.push_str("...");
            break;
        }
        match c {
            c if c.is_whitespace() => text.extend(c.escape_unicode()),
            c => text.push(c),
        }
    }
    text
}

#[cfg(test)]
mod tests;
