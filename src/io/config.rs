//! The configuration: `bitdash.toml` and the environment, checked whole before anything uses it.
//!
//! Layer 3. Owns the names, defaults and ranges of all keys (`config/keys.rs`) and what SIGHUP may
//! change; never connects to anything. Invariants:
//! 1. a [`Config`] that exists is valid: every value lies in its range;
//! 2. what [`Config::to_toml`] prints is read back as the same configuration, but for a masked
//!    password;
//! 3. no message, `Debug` or printed configuration holds the password of the database.

mod database_url;
mod error;
mod keys;
mod lists;
mod rules;
mod source;
mod user_agent;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;
use log::LevelFilter;
use toml::Value;

pub use self::database_url::DatabaseUrl;
pub use self::error::ConfigError;
pub use self::keys::{KEYS, Key};
pub use self::lists::read_exclude_file;
pub use self::rules::duration_text;
pub use self::source::{ConfigSource, DEFAULT_FILE, URL_VARIABLE};
use crate::crawl::backoff::BackoffParams;
use crate::crawl::filter::Filter;
use crate::io::text_file::quoted;

/// The effective configuration. Fields are named as the keys of `bitdash.toml`.
#[derive(Clone, PartialEq, Debug)]
pub struct Config {
    /// The keys `crawl.*`.
    pub crawl: CrawlConfig,
    /// The keys `backoff.*`.
    pub backoff: BackoffParams,
    /// The keys `network.*`.
    pub network: NetworkConfig,
    /// The keys `filter.*`.
    pub filter: FilterConfig,
    /// The keys `database.*`.
    pub database: DatabaseConfig,
    /// The keys `geo.*`.
    pub geo: GeoConfig,
    /// The keys `log.*`.
    pub log: LogConfig,
    /// The keys `site.*`.
    pub site: SiteConfig,
}

/// The keys `crawl.*`.
#[derive(Clone, PartialEq, Debug)]
pub struct CrawlConfig {
    /// Sockets open at once.
    pub max_sockets: u32,
    /// The most new connections started in a second; 0: no limit.
    pub connects_per_second: u32,
    /// The nodes file.
    pub nodes_file: PathBuf,
    /// The least time from one pass's start to the next one's.
    pub pass_interval: Duration,
    /// How long a node has to accept the connection.
    pub connect_timeout: Duration,
    /// How long a candidate has to accept the connection.
    pub candidate_connect_timeout: Duration,
    /// From connected to `version`.
    pub handshake_timeout: Duration,
    /// From `getaddr` to the end of the replies, at most.
    pub addr_timeout: Duration,
    /// So long after an `addr` without another one, the reply is whole.
    pub addr_quiet: Duration,
    /// A node asked less than this ago is only greeted; zero: every probe asks.
    pub getaddr_interval: Duration,
    /// The share of a pass's time for addresses over their source's quota, 0 to 1.
    pub spam_share: f64,
    /// Results kept per node.
    pub results_per_node: u32,
    /// The most addresses remembered.
    pub max_addresses: u32,
}

/// The keys `network.*`.
#[derive(Clone, PartialEq, Debug)]
pub struct NetworkConfig {
    /// The magic, in the order on the wire.
    pub magic: [u8; 4],
    /// The port where a line of the nodes file has none.
    pub port: u16,
    /// The protocol version that the crawler says it speaks.
    pub protocol_version: i32,
    /// The user agent without the contact; [`Config::sent_user_agent`] has it.
    pub user_agent: String,
    /// The service bits that the crawler claims.
    pub services: u64,
    /// A URL or mail address for operators who wonder who calls; empty for none.
    pub contact: String,
}

/// The keys `filter.*`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct FilterConfig {
    /// CIDRs never connected to and never stored.
    pub exclude: Vec<Ipv4Net>,
    /// Files of such CIDRs.
    pub exclude_files: Vec<PathBuf>,
    /// If not empty, nothing else is connected to or stored.
    pub only: Vec<Ipv4Net>,
}

/// The keys `database.*`.
#[derive(Clone, PartialEq, Debug)]
pub struct DatabaseConfig {
    /// Where the database is.
    pub url: DatabaseUrl,
    /// So many rows make a batch.
    pub batch_rows: u32,
    /// So much time makes a batch.
    pub flush_interval: Duration,
}

/// The keys `geo.*`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct GeoConfig {
    /// The .mmdb file of countries.
    pub country_db: Option<PathBuf>,
    /// The .mmdb file of autonomous systems.
    pub asn_db: Option<PathBuf>,
}

/// The keys `log.*`.
#[derive(Clone, PartialEq, Debug)]
pub struct LogConfig {
    /// The log file; standard error if there is none.
    pub file: Option<PathBuf>,
    /// How much is logged.
    pub level: LevelFilter,
    /// The time between two stats lines.
    pub stats_interval: Duration,
}

/// The keys `site.*`.
#[derive(Clone, PartialEq, Debug, Default)]
pub struct SiteConfig {
    /// Where the website is written after each pass; nowhere if `None`.
    pub dir: Option<PathBuf>,
}

/// What a newly read configuration means for a running crawl.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct ReloadReport {
    /// What changes, as `max_sockets=50->800`: no spaces inside, names outside `crawl` with their
    /// section.
    pub changed: Vec<String>,
    /// What differs too, but is only read at start.
    pub needs_restart: Vec<String>,
}

impl Config {
    /// Reads and checks the text of a configuration file. `file` is its name for messages, `folder`
    /// what relative paths in it are relative to.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn parse(text: &str, file: &str, folder: &Path) -> Result<Self, ConfigError> {
        let table: toml::Table = text.parse().map_err(|error| syntax_error(file, text, &error))?;
        let mut config = Self::default();
        config.crawl.nodes_file = folder.join(&config.crawl.nodes_file);
        for (section, value) in &table {
            config.read_section(file, folder, section, value)?;
        }
        let network = &config.network;
        let length = config.sent_user_agent().len();
        if length > user_agent::MAX_LENGTH {
            return Err(ConfigError::Value {
                file: file.to_owned(),
                key: "network.contact".to_owned(),
                value: quoted(&network.contact),
                allowed: format!(
                    "{} characters shorter: with it the user agent has more than {}",
                    length - user_agent::MAX_LENGTH,
                    user_agent::MAX_LENGTH
                ),
            });
        }
        Ok(config)
    }

    fn read_section(
        &mut self,
        file: &str,
        folder: &Path,
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
            (key.read)(self, value, folder).map_err(|refusal| wrong(key.name, refusal))?;
        }
        Ok(())
    }

    /// The user agent as sent, with the contact in it.
    pub fn sent_user_agent(&self) -> String {
        user_agent::with_contact(&self.network.user_agent, &self.network.contact)
    }

    /// Reads the exclude files and makes the filter.
    ///
    /// # Errors
    /// A file that cannot be read or holds a wrong line.
    pub fn load_filter(&self) -> Result<Filter, ConfigError> {
        let mut exclude = self.filter.exclude.clone();
        for path in &self.filter.exclude_files {
            exclude.extend(read_exclude_file(path)?);
        }
        Ok(Filter::new(&exclude, &self.filter.only))
    }

    /// The effective configuration as TOML that can be read again, with the password masked.
    pub fn to_toml(&self) -> String {
        let mut sections: BTreeMap<usize, String> = BTreeMap::new();
        for key in KEYS {
            let first = KEYS.iter().position(|other| other.section == key.section).unwrap_or(0);
            let body = sections.entry(first).or_insert_with(|| format!("[{}]\n", key.section));
            body.push_str(&format!("{} = {}\n", key.field, (key.show)(self)));
        }
        let bodies: Vec<String> = sections.into_values().collect();
        bodies.join("\n")
    }

    /// Says what a newly read configuration changes in a crawl that runs with this one.
    pub fn reload_differences(&self, new: &Self) -> ReloadReport {
        let mut report = ReloadReport::default();
        for key in KEYS.iter().filter(|key| !(key.same)(self, new)) {
            let name = if key.section == "crawl" { key.field } else { key.name };
            let (before, after) = (log_text(&(key.show)(self)), log_text(&(key.show)(new)));
            // Two passwords, or two long lists, may look alike.
            let line = match before == after {
                true => format!("{name}=changed"),
                false => format!("{name}={before}->{after}"),
            };
            if key.reloaded { &mut report.changed } else { &mut report.needs_restart }.push(line);
        }
        report
    }

    /// This configuration with everything of `new` that SIGHUP changes: what a crawl runs with
    /// after it.
    pub fn reloaded_with(&self, new: &Self) -> Self {
        let mut config = self.clone();
        for key in KEYS.iter().filter(|key| key.reloaded) {
            (key.take)(&mut config, new);
        }
        config
    }
}

impl Default for Config {
    fn default() -> Self {
        Self {
            crawl: CrawlConfig::default(),
            backoff: BackoffParams {
                base: Duration::from_secs(3_600),
                factor: 2.0,
                max: Duration::from_secs(14 * 86_400),
                node_base: Duration::from_secs(10 * 60),
                node_max: Duration::from_secs(3_600),
                lost_max: Duration::from_secs(86_400),
            },
            network: NetworkConfig::default(),
            filter: FilterConfig::default(),
            database: DatabaseConfig::default(),
            geo: GeoConfig::default(),
            log: LogConfig::default(),
            site: SiteConfig::default(),
        }
    }
}

impl Default for CrawlConfig {
    fn default() -> Self {
        Self {
            max_sockets: 50,
            connects_per_second: 400,
            nodes_file: PathBuf::from("nodes.txt"),
            pass_interval: Duration::from_secs(30 * 60),
            connect_timeout: Duration::from_secs(5),
            candidate_connect_timeout: Duration::from_secs(3),
            handshake_timeout: Duration::from_secs(10),
            addr_timeout: Duration::from_secs(75),
            addr_quiet: Duration::from_secs(2),
            getaddr_interval: Duration::from_secs(24 * 3_600),
            spam_share: 0.3,
            results_per_node: 25,
            max_addresses: 4_000_000,
        }
    }
}

impl Default for NetworkConfig {
    fn default() -> Self {
        Self {
            magic: [0xf9, 0xbe, 0xb4, 0xd9],
            port: 8333,
            protocol_version: 70_015,
            user_agent: user_agent::with_version("/bitdash:VERSION/"),
            services: 0,
            contact: String::new(),
        }
    }
}

impl Default for DatabaseConfig {
    fn default() -> Self {
        Self {
            url: "postgresql:///bitdash".parse().expect("the default is a connection string"),
            batch_rows: 5_000,
            flush_interval: Duration::from_secs(10),
        }
    }
}

impl Default for LogConfig {
    fn default() -> Self {
        Self { file: None, level: LevelFilter::Info, stats_interval: Duration::from_secs(30) }
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

/// A wrong value for a message. Whoever mistakes the place of `database.url` writes the URL, or the password alone,
/// as any other value of the section: none of them is repeated.
fn shown(section: &str, value: String) -> String {
    if section == "database" { "***".to_owned() } else { value }
}

/// A key's name for a message: as it is, or quoted where it is an odd one; and not at all where it may be a URL or
/// pairs with a password.
fn one_word(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "._-".contains(c);
    match name.chars().all(plain) {
        true if name.len() <= 60 => name.to_owned(),
        _ if name.contains([':', '@', '=']) => "***".to_owned(),
        _ => quoted(name),
    }
}

/// A value of TOML as a value of a log line: without quotes and spaces, shortened.
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
