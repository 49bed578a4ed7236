//! What a value may be: for each kind of key how it is read, written back, and what is said to be
//! allowed.

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;
use log::LevelFilter;
use toml::Value;

use super::database_url::DatabaseUrl;
use super::user_agent;
use crate::io::text_file::quoted;

/// A value that a key does not allow.
pub struct Refusal {
    /// The value or the wrong part of it, as it would stand in the file.
    pub value: String,
    /// What is allowed.
    pub allowed: String,
}

/// How values of one kind are read and written.
pub trait Rule {
    /// What such a value is inside the program.
    type Kind;
    /// Reads a value; `folder` is what relative paths are relative to. The error is the wrong part
    /// of a list, or `None` if the value is wrong as a whole.
    fn read(&self, value: &Value, folder: &Path) -> Result<Self::Kind, Option<String>>;
    /// Writes it as TOML.
    fn show(&self, value: &Self::Kind) -> String;
    /// Says what is allowed, as the end of the sentence "must be ...".
    fn allowed(&self) -> String;
}

/// Reads a value by a rule.
pub fn read<R: Rule>(rule: &R, value: &Value, folder: &Path) -> Result<R::Kind, Refusal> {
    rule.read(value, folder).map_err(|part| Refusal {
        value: part.unwrap_or_else(|| show_value(value)),
        allowed: rule.allowed(),
    })
}

/// A whole number from the first to the second.
pub struct Whole<T>(pub T, pub T);

impl<T: Copy + PartialOrd + Display + TryFrom<i64>> Rule for Whole<T> {
    type Kind = T;

    fn read(&self, value: &Value, _: &Path) -> Result<T, Option<String>> {
        let number = value.as_integer().and_then(|number| T::try_from(number).ok());
        number.filter(|number| (self.0..=self.1).contains(number)).ok_or(None)
    }

    fn show(&self, value: &T) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        format!("a whole number from {} to {}", self.0, self.1)
    }
}

/// A number from the first to the second.
pub struct Decimal(pub f64, pub f64);

impl Rule for Decimal {
    type Kind = f64;

    fn read(&self, value: &Value, _: &Path) -> Result<f64, Option<String>> {
        let number = match *value {
            Value::Integer(number) => number as f64,
            Value::Float(number) => number,
            _ => return Err(None),
        };
        // "nan" is in no range.
        Some(number).filter(|number| (self.0..=self.1).contains(number)).ok_or(None)
    }

    fn show(&self, value: &f64) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        format!("a number from {} to {}", self.0, self.1)
    }
}

/// A duration from the first to the second.
pub struct Span(pub Duration, pub Duration);

impl Rule for Span {
    type Kind = Duration;

    fn read(&self, value: &Value, _: &Path) -> Result<Duration, Option<String>> {
        let duration = value.as_str().and_then(parse_duration);
        duration.filter(|duration| (self.0..=self.1).contains(duration)).ok_or(None)
    }

    fn show(&self, value: &Duration) -> String {
        toml_string(&duration_text(*value))
    }

    fn allowed(&self) -> String {
        format!(
            "a duration from \"{}\" to \"{}\", in quotes, with the unit ms, s, m, h or d",
            duration_text(self.0),
            duration_text(self.1)
        )
    }
}

/// Reads a duration in the contract's units. Months and years are refused (no two are of the same
/// length), so are fractions of a millisecond, and a number without a unit.
fn parse_duration(text: &str) -> Option<Duration> {
    let mut units =
        text.split(|c: char| !c.is_alphabetic()).filter(|unit| !unit.is_empty()).peekable();
    units.peek()?;
    if !units.all(|unit| ["ms", "s", "m", "h", "d"].contains(&unit)) {
        return None;
    }
    let duration = humantime::parse_duration(text).ok()?;
    (duration.subsec_nanos() % 1_000_000 == 0).then_some(duration)
}

/// A duration in the contract's units: the largest one that divides it, such as "90s", "2h", "14d".
pub fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.into_iter().find(|(length, _)| ms != 0 && ms.is_multiple_of(*length)) {
        Some((length, unit)) => format!("{}{unit}", ms / length),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

/// The path of a file or folder that there must be one of.
pub struct Place;

impl Rule for Place {
    type Kind = PathBuf;

    fn read(&self, value: &Value, folder: &Path) -> Result<PathBuf, Option<String>> {
        value.as_str().and_then(|text| path_in(folder, text)).ok_or(None)
    }

    fn show(&self, value: &PathBuf) -> String {
        toml_string(&value.to_string_lossy())
    }

    fn allowed(&self) -> String {
        "a path in quotes".to_owned()
    }
}

/// The path of a file or folder, or an empty text for none.
pub struct OptionalPlace;

impl Rule for OptionalPlace {
    type Kind = Option<PathBuf>;

    fn read(&self, value: &Value, folder: &Path) -> Result<Self::Kind, Option<String>> {
        match value.as_str() {
            Some("") => Ok(None),
            Some(text) => path_in(folder, text).map(Some).ok_or(None),
            None => Err(None),
        }
    }

    fn show(&self, value: &Self::Kind) -> String {
        toml_string(&value.as_deref().map(Path::to_string_lossy).unwrap_or_default())
    }

    fn allowed(&self) -> String {
        "a path in quotes, or \"\" for none".to_owned()
    }
}

/// A list of paths.
pub struct Places;

impl Rule for Places {
    type Kind = Vec<PathBuf>;

    fn read(&self, value: &Value, folder: &Path) -> Result<Self::Kind, Option<String>> {
        read_list(value, |item| item.as_str().and_then(|text| path_in(folder, text)))
    }

    fn show(&self, value: &Self::Kind) -> String {
        show_list(value, |path| path.to_string_lossy().into_owned())
    }

    fn allowed(&self) -> String {
        "a list of paths in quotes".to_owned()
    }
}

/// A relative path is relative to the folder of the configuration file, wherever the program is
/// started.
fn path_in(folder: &Path, text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| folder.join(text))
}

/// A list of CIDRs and addresses.
pub struct Nets;

impl Rule for Nets {
    type Kind = Vec<Ipv4Net>;

    fn read(&self, value: &Value, _: &Path) -> Result<Self::Kind, Option<String>> {
        read_list(value, |item| item.as_str().and_then(parse_net))
    }

    fn show(&self, value: &Self::Kind) -> String {
        show_list(value, Ipv4Net::to_string)
    }

    fn allowed(&self) -> String {
        "a list of IPv4 CIDRs such as [\"192.0.2.0/24\"]".to_owned()
    }
}

/// Reads `192.0.2.0/24`, or a single address as a /32. Bits behind the prefix are dropped.
pub fn parse_net(text: &str) -> Option<Ipv4Net> {
    match text.parse::<Ipv4Addr>() {
        Ok(address) => Some(Ipv4Net::from(address)),
        Err(_) => text.parse::<Ipv4Net>().ok().map(|net| net.trunc()),
    }
}

fn read_list<T>(
    value: &Value,
    read: impl Fn(&Value) -> Option<T>,
) -> Result<Vec<T>, Option<String>> {
    let items = value.as_array().ok_or(None)?;
    items.iter().map(|item| read(item).ok_or_else(|| Some(show_value(item)))).collect()
}

fn show_list<T>(list: &[T], show: impl Fn(&T) -> String) -> String {
    let items: Vec<String> = list.iter().map(|item| toml_string(&show(item))).collect();
    format!("[{}]", items.join(", "))
}

/// The four bytes in front of every message of a network.
pub struct MagicBytes;

impl Rule for MagicBytes {
    type Kind = [u8; 4];

    fn read(&self, value: &Value, _: &Path) -> Result<[u8; 4], Option<String>> {
        let text = value.as_str().filter(|text| text.len() == 8).ok_or(None)?;
        if !text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return Err(None);
        }
        u32::from_str_radix(text, 16).map(u32::to_be_bytes).map_err(|_| None)
    }

    fn show(&self, value: &[u8; 4]) -> String {
        format!("\"{:08x}\"", u32::from_be_bytes(*value))
    }

    fn allowed(&self) -> String {
        "8 hexadecimal digits in quotes, in the order on the wire (main network: \"f9beb4d9\")"
            .to_owned()
    }
}

/// The user agent without the contact.
pub struct Agent;

impl Rule for Agent {
    type Kind = String;

    fn read(&self, value: &Value, _: &Path) -> Result<String, Option<String>> {
        let agent = user_agent::with_version(value.as_str().ok_or(None)?);
        let fits = agent.len() <= user_agent::MAX_LENGTH && is_printable_ascii(&agent);
        fits.then_some(agent).ok_or(None)
    }

    fn show(&self, value: &String) -> String {
        toml_string(value)
    }

    fn allowed(&self) -> String {
        format!("at most {} printable ASCII characters", user_agent::MAX_LENGTH)
    }
}

/// A URL or mail address for the user agent.
pub struct Contact;

impl Rule for Contact {
    type Kind = String;

    fn read(&self, value: &Value, _: &Path) -> Result<String, Option<String>> {
        let contact = value.as_str().ok_or(None)?.trim();
        let says_something = contact.is_empty() || !user_agent::comment(contact).is_empty();
        let fits = contact.len() <= MAX_CONTACT && is_printable_ascii(contact) && says_something;
        fits.then(|| contact.to_owned()).ok_or(None)
    }

    fn show(&self, value: &String) -> String {
        toml_string(value)
    }

    fn allowed(&self) -> String {
        format!(
            "a URL or mail address of at most {MAX_CONTACT} printable ASCII characters, or \"\""
        )
    }
}

fn is_printable_ascii(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
}

/// The connection string of the database.
pub struct Database;

impl Rule for Database {
    type Kind = DatabaseUrl;

    fn read(&self, value: &Value, _: &Path) -> Result<DatabaseUrl, Option<String>> {
        // A text that is no connection string may still hold a password: it is not repeated.
        let text = value.as_str().ok_or_else(|| Some("***".to_owned()))?;
        text.parse().map_err(|()| Some("\"***\"".to_owned()))
    }

    fn show(&self, value: &DatabaseUrl) -> String {
        toml_string(&value.masked())
    }

    fn allowed(&self) -> String {
        DatabaseUrl::ALLOWED.to_owned()
    }
}

/// How much is logged.
pub struct Level;

impl Rule for Level {
    type Kind = LevelFilter;

    fn read(&self, value: &Value, _: &Path) -> Result<LevelFilter, Option<String>> {
        let word = value.as_str().ok_or(None)?;
        LevelFilter::iter().find(|level| level_word(*level) == word).ok_or(None)
    }

    fn show(&self, value: &LevelFilter) -> String {
        toml_string(&level_word(*value))
    }

    fn allowed(&self) -> String {
        let words: Vec<String> =
            LevelFilter::iter().map(|level| toml_string(&level_word(level))).collect();
        format!("one of {}", words.join(", "))
    }
}

fn level_word(level: LevelFilter) -> String {
    level.as_str().to_ascii_lowercase()
}

/// A text as a basic string of TOML.
pub fn toml_string(text: &str) -> String {
    let mut out = String::from("\"");
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A value as it would stand in the file, shortened, for a message.
pub fn show_value(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Integer(number) => number.to_string(),
        // Debug, not Display: 1.0 stays a float.
        Value::Float(number) => format!("{number:?}"),
        Value::Boolean(yes) => yes.to_string(),
        Value::Datetime(time) => time.to_string(),
        Value::Array(items) if items.is_empty() => "[]".to_owned(),
        Value::Array(_) => "[...]".to_owned(),
        Value::Table(_) => "{...}".to_owned(),
    }
}

const MAX_CONTACT: usize = 200;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_in_the_contracts_units_are_read_and_written_back_shortest() {
        let table = [
            ("500ms", 500, "500ms"),
            ("3s", 3_000, "3s"),
            ("10m", 600_000, "10m"),
            ("24h", 86_400_000, "1d"),
            ("36h", 129_600_000, "36h"),
            ("14d", 1_209_600_000, "14d"),
            ("0s", 0, "0s"),
            ("1m 30s", 90_000, "90s"),
            ("1.5s", 1_500, "1500ms"),
            ("1000ms", 1_000, "1s"),
        ];
        for (text, ms, shown) in table {
            let duration = parse_duration(text).unwrap_or_else(|| panic!("{text}"));
            assert_eq!((duration.as_millis(), duration_text(duration)), (ms, shown.to_owned()));
        }
    }

    #[test]
    fn other_durations_are_refused() {
        for text in [
            "", "0", "30", "3 ", "1M", "1month", "1y", "2years", "1w", "5us", "1.0005s", "-3s",
            "s", "3x", "1h3",
        ] {
            assert_eq!(parse_duration(text), None, "{text:?}");
        }
        let huge = "99999999999999999999d".repeat(9);
        assert_eq!(parse_duration(&huge), None);
    }

    #[test]
    fn nets_are_cidrs_or_single_addresses() {
        let net = |text| parse_net(text).map(|net| net.to_string());
        assert_eq!(net("192.0.2.0/24").as_deref(), Some("192.0.2.0/24"));
        assert_eq!(net("192.0.2.77/24").as_deref(), Some("192.0.2.0/24"));
        assert_eq!(net("192.0.2.77").as_deref(), Some("192.0.2.77/32"));
        for wrong in
            ["", "192.0.2.0/33", "192.0.2/24", "::1", "2001:db8::/32", "host", "192.0.2.0/"]
        {
            assert_eq!(net(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn strings_survive_toml() {
        for text in ["", "a\"b\\c", "tab\tline\nbell\u{7}", "ü €"] {
            let table: toml::Table = format!("x = {}", toml_string(text)).parse().unwrap();
            assert_eq!(table["x"].as_str(), Some(text));
        }
    }
}
