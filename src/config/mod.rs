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
mod user_agent;

use std::path::Path;

use toml::Value;

pub use self::database_url::DatabaseUrl;
pub use self::error::ConfigError;
pub use self::keys::{
    Config, CrawlConfig, DatabaseConfig, FilterConfig, GeoConfig, KEYS, Key, LogConfig,
    NetworkConfig, Reload, SiteConfig,
};
pub use self::lists::read_exclude_file;
pub use self::rules::duration_text;
pub use self::source::{ConfigSource, DEFAULT_FILE, URL_VARIABLE};
use crate::sys::text_file::quoted;
use bitdash_core::vocabulary::filter::Filter;

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
    /// The first error in the file.
    pub fn parse(text: &str, file: &str, directory: &Path) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error| syntax_error(file, text, &error))?;
        let mut config = Self::defaults_in(directory);
        for (section, value) in &table {
            config.read_section(file, directory, section, value)?;
        }
        let excess = config.sent_user_agent().len().saturating_sub(user_agent::MAX_LENGTH);
        if excess > 0 {
            return Err(ConfigError::Value {
                file: file.to_owned(),
                key: "network.contact".to_owned(),
                value: quoted(&config.network.contact),
                allowed: format!(
                    "{excess} characters shorter: with it the user agent has more than {}",
                    user_agent::MAX_LENGTH
                ),
            });
        }
        Ok(config)
    }

    fn read_section(
        &mut self,
        file: &str,
        directory: &Path,
        section: &str,
        value: &Value,
    ) -> Result<(), ConfigError> {
        let unknown = |key: &str| ConfigError::UnknownKey {
            file: file.to_owned(),
            key: one_word(key),
            suggestion: keys::suggestion(key).map(str::to_owned),
        };
        let wrong = |key: &str, refusal: rules::Refusal| ConfigError::Value {
            file: file.to_owned(),
            key: key.to_owned(),
            value: shown(section, refusal.value),
            allowed: refusal.allowed,
        };
        if !KEYS.iter().any(|key| key.section == section) {
            return Err(unknown(section));
        }
        let Some(fields) = value.as_table() else {
            let value = rules::show_value(value);
            let allowed = format!("a section, written as [{section}]");
            return Err(wrong(section, rules::Refusal { value, allowed }));
        };
        for (field, value) in fields {
            let name = format!("{section}.{field}");
            let key = KEYS.iter().find(|key| key.name == name).ok_or_else(|| unknown(&name))?;
            (key.read)(self, value, directory).map_err(|refusal| wrong(key.name, refusal))?;
        }
        Ok(())
    }

    /// The user agent as sent, with the contact.
    pub fn sent_user_agent(&self) -> String {
        user_agent::with_contact(&self.network.user_agent, &self.network.contact)
    }

    /// Reads the exclude files and builds the filter.
    ///
    /// # Errors
    /// A file cannot be read or contains an invalid line.
    pub fn load_filter(&self) -> Result<Filter, ConfigError> {
        let mut exclude = self.filter.exclude.clone();
        for path in &self.filter.exclude_files {
            exclude.extend(read_exclude_file(path)?);
        }
        Ok(Filter::new(&exclude, &self.filter.only))
    }

    /// The effective configuration as TOML that can be parsed again, with the password masked.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for section in KEYS.chunk_by(|a, b| a.section == b.section) {
            let separator = if text.is_empty() { "" } else { "\n" };
            text.push_str(&format!("{separator}[{}]\n", section[0].section));
            for key in section {
                text.push_str(&format!("{} = {}\n", key.field, (key.show)(self)));
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
