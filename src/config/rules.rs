//! The rules of values: how each kind of value is read, written and described.

use std::fmt::Display;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;
use log::LevelFilter;
use toml::Value;

use super::database_url::DatabaseUrl;
use super::user_agent;
use crate::sys::text_file::quoted;

/// An invalid value.
#[derive(Debug)]
pub struct Refusal {
    /// The value, or the invalid part of it, as TOML.
    pub value: String,
    /// The allowed values.
    pub allowed: String,
}

/// Reads and writes values of one kind.
pub trait Rule {
    /// The type of such a value.
    type Kind;
    /// Reads a value; relative paths are resolved against `directory`. The error is the invalid
    /// item of a list, or `None` for the whole value.
    fn read(&self, value: &Value, directory: &Path) -> Result<Self::Kind, Option<String>>;
    /// Writes it as TOML.
    fn show(&self, value: &Self::Kind) -> String;
    /// The allowed values, as the end of the sentence "must be ...".
    fn allowed(&self) -> String;
    /// Values for tests.
    #[cfg(test)]
    fn samples(&self) -> Samples;
}

/// Values for tests, as TOML.
#[cfg(test)]
pub struct Samples {
    /// Values that the rule allows.
    pub valid: Vec<String>,
    /// Values that it does not.
    pub invalid: Vec<String>,
}

#[cfg(test)]
impl Samples {
    fn of(valid: &[&str], invalid: &[&str]) -> Self {
        let owned = |texts: &[&str]| texts.iter().map(|&text| text.to_owned()).collect();
        Self { valid: owned(valid), invalid: owned(invalid) }
    }
}

/// Reads a value by a rule.
pub fn read<R: Rule>(rule: &R, value: &Value, directory: &Path) -> Result<R::Kind, Refusal> {
    rule.read(value, directory).map_err(|part| Refusal {
        value: part.unwrap_or_else(|| show_value(value)),
        allowed: rule.allowed(),
    })
}

/// A whole number in a range.
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

    #[cfg(test)]
    fn samples(&self) -> Samples {
        let (min, max) = (self.0.to_string(), self.1.to_string());
        let step = |end: &str, by: i128| (end.parse::<i128>().unwrap() + by).to_string();
        // TOML itself rejects integers beyond 64 bits.
        let outside = [step(&min, -1), step(&max, 1)].into_iter();
        let outside = outside.filter(|number| number.parse::<i64>().is_ok());
        let invalid = outside.chain(["1.0", "\"many\"", "true"].map(str::to_owned)).collect();
        Samples { valid: vec![min, max], invalid }
    }
}

/// A number in a range.
pub struct Decimal(pub f64, pub f64);

impl Rule for Decimal {
    type Kind = f64;

    fn read(&self, value: &Value, _: &Path) -> Result<f64, Option<String>> {
        let number = match *value {
            Value::Integer(number) => number as f64,
            Value::Float(number) => number,
            _ => return Err(None),
        };
        // NaN is in no range.
        Some(number).filter(|number| (self.0..=self.1).contains(number)).ok_or(None)
    }

    fn show(&self, value: &f64) -> String {
        value.to_string()
    }

    fn allowed(&self) -> String {
        format!("a number from {} to {}", self.0, self.1)
    }

    #[cfg(test)]
    fn samples(&self) -> Samples {
        let middle = f64::midpoint(self.0, self.1);
        let outside = [self.0 - 0.1, self.1 + 0.1, f64::NAN, f64::INFINITY];
        let invalid = outside.iter().map(f64::to_string).chain(["\"0.3\"".to_owned()]);
        Samples {
            valid: [self.0, self.1, middle].iter().map(f64::to_string).collect(),
            invalid: invalid.map(|text| text.replace("NaN", "nan")).collect(),
        }
    }
}

/// A duration in a range.
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

    #[cfg(test)]
    fn samples(&self) -> Samples {
        let ms = Duration::from_millis(1);
        let show = |duration: Duration| toml_string(&duration_text(duration));
        let below = self.0.checked_sub(ms).map_or("\"-1s\"".to_owned(), show);
        let invalid = [below, show(self.1 + ms), "5".to_owned(), "\"1M\"".to_owned()];
        Samples { valid: vec![show(self.0), show(self.1)], invalid: invalid.to_vec() }
    }
}

/// Parses a duration with the units ms, s, m, h and d. Rejects months and years, whose lengths
/// vary, fractions of a millisecond, and numbers without a unit.
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

/// A duration in the largest unit that divides it, such as "90s", "2h", "14d".
pub fn duration_text(duration: Duration) -> String {
    let ms = duration.as_millis();
    let units = [(86_400_000, "d"), (3_600_000, "h"), (60_000, "m"), (1_000, "s")];
    match units.into_iter().find(|(length, _)| ms != 0 && ms.is_multiple_of(*length)) {
        Some((length, unit)) => format!("{}{unit}", ms / length),
        None if ms == 0 => "0s".to_owned(),
        None => format!("{ms}ms"),
    }
}

/// A path that must not be empty.
pub struct PathRule;

impl Rule for PathRule {
    type Kind = PathBuf;

    fn read(&self, value: &Value, directory: &Path) -> Result<PathBuf, Option<String>> {
        value.as_str().and_then(|text| path_in(directory, text)).ok_or(None)
    }

    fn show(&self, value: &PathBuf) -> String {
        toml_string(&value.to_string_lossy())
    }

    fn allowed(&self) -> String {
        "a path in quotes".to_owned()
    }

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(&["\"/etc/n\""], &["\"\"", "5", "[]"])
    }
}

/// A path, or an empty string for none.
pub struct OptionalPathRule;

impl Rule for OptionalPathRule {
    type Kind = Option<PathBuf>;

    fn read(&self, value: &Value, directory: &Path) -> Result<Self::Kind, Option<String>> {
        match value.as_str() {
            Some("") => Ok(None),
            Some(text) => path_in(directory, text).map(Some).ok_or(None),
            None => Err(None),
        }
    }

    fn show(&self, value: &Self::Kind) -> String {
        toml_string(&value.as_deref().map(Path::to_string_lossy).unwrap_or_default())
    }

    fn allowed(&self) -> String {
        "a path in quotes, or \"\" for none".to_owned()
    }

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(&["\"c.mmdb\""], &["5", "[]", "false", "1979-05-27"])
    }
}

/// A file of countries or networks.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum GeoFile {
    /// The newest of those that are installed in the usual places.
    Auto,
    /// None.
    Nothing,
    /// This one.
    Path(PathBuf),
}

/// A [`GeoFile`]: its path, "auto", or an empty string for none.
pub struct GeoFileRule;

impl Rule for GeoFileRule {
    type Kind = GeoFile;

    fn read(&self, value: &Value, directory: &Path) -> Result<GeoFile, Option<String>> {
        match value.as_str() {
            Some("auto") => Ok(GeoFile::Auto),
            Some("") => Ok(GeoFile::Nothing),
            Some(text) => path_in(directory, text).map(GeoFile::Path).ok_or(None),
            None => Err(None),
        }
    }

    fn show(&self, value: &GeoFile) -> String {
        match value {
            GeoFile::Auto => toml_string("auto"),
            GeoFile::Nothing => toml_string(""),
            GeoFile::Path(path) => toml_string(&path.to_string_lossy()),
        }
    }

    fn allowed(&self) -> String {
        "a path in quotes, \"auto\", or \"\" for none".to_owned()
    }

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(&["\"auto\"", "\"\"", "\"c.mmdb\""], &["5", "[]", "false", "\"a\\u0000\""])
    }
}

/// The path of a file that node_exporter reads, or an empty string for none.
pub struct PromPathRule;

impl Rule for PromPathRule {
    type Kind = Option<PathBuf>;

    fn read(&self, value: &Value, directory: &Path) -> Result<Self::Kind, Option<String>> {
        let path = OptionalPathRule.read(value, directory)?;
        let is_read = |path: &PathBuf| path.extension().is_some_and(|ending| ending == "prom");
        if path.as_ref().is_none_or(is_read) { Ok(path) } else { Err(None) }
    }

    fn show(&self, value: &Self::Kind) -> String {
        OptionalPathRule.show(value)
    }

    fn allowed(&self) -> String {
        "a path in quotes that ends in .prom, or \"\" for none".to_owned()
    }

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(
            &["\"bitdash.prom\"", "\"\""],
            &["\"bitdash.txt\"", "\"bitdash.prom.tmp\"", "\".prom\"", "5", "[]"],
        )
    }
}

/// A list of paths.
pub struct PathsRule;

impl Rule for PathsRule {
    type Kind = Vec<PathBuf>;

    fn read(&self, value: &Value, directory: &Path) -> Result<Self::Kind, Option<String>> {
        read_list(value, |item| item.as_str().and_then(|text| path_in(directory, text)))
    }

    fn show(&self, value: &Self::Kind) -> String {
        show_list(value, |path| path.to_string_lossy().into_owned())
    }

    fn allowed(&self) -> String {
        "a list of paths in quotes".to_owned()
    }

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(&["[\"drop.txt\"]"], &["\"drop.txt\"", "[\"\"]", "[1]"])
    }
}

/// Resolves a relative path against the directory of the configuration file.
fn path_in(directory: &Path, text: &str) -> Option<PathBuf> {
    (!text.is_empty() && !text.contains('\0')).then(|| directory.join(text))
}

/// A list of CIDRs and addresses.
pub struct NetsRule;

impl Rule for NetsRule {
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

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(
            &["[\"192.0.2.0/24\", \"198.51.100.7\"]", "[\"127.0.0.0/8\"]"],
            &["[\"::/0\"]", "[5]", "\"10.0.0.0/8\"", "[\"127.0.0.0/40\"]", "[[]]"],
        )
    }
}

/// Parses `192.0.2.0/24`, or a single address as a /32. Host bits are cleared.
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

/// The four bytes before every message of a network.
pub struct MagicRule;

impl Rule for MagicRule {
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

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(
            &["\"0b110907\"", "\"FABFB5DA\""],
            &["\"f9beb4\"", "\"+f9beb4d\"", "\"f9beb4dg\"", "5"],
        )
    }
}

/// The user agent without the contact.
pub struct UserAgentRule;

impl Rule for UserAgentRule {
    type Kind = String;

    fn read(&self, value: &Value, _: &Path) -> Result<String, Option<String>> {
        let agent = value.as_str().ok_or(None)?;
        let fits = user_agent::with_version(agent).len() <= user_agent::MAX_LENGTH;
        (fits && is_printable_ascii(agent)).then(|| agent.to_owned()).ok_or(None)
    }

    fn show(&self, value: &String) -> String {
        toml_string(value)
    }

    fn allowed(&self) -> String {
        format!("at most {} printable ASCII characters", user_agent::MAX_LENGTH)
    }

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(&["\"\"", "\"/x:VERSION/\""], &["\"a\\nb\"", "\"é\"", "5"])
    }
}

/// A URL or mail address for the user agent.
pub struct ContactRule;

impl Rule for ContactRule {
    type Kind = String;

    fn read(&self, value: &Value, _: &Path) -> Result<String, Option<String>> {
        let contact = value.as_str().ok_or(None)?.trim();
        let is_usable = contact.is_empty() || !user_agent::comment(contact).is_empty();
        let fits = contact.len() <= MAX_CONTACT && is_printable_ascii(contact) && is_usable;
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

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(&["\"https://example.org/x\"", "\"a@example.org\""], &["\"://\"", "\"é\"", "1"])
    }
}

fn is_printable_ascii(text: &str) -> bool {
    text.bytes().all(|byte| (0x20..=0x7e).contains(&byte))
}

/// The connection string of the database.
pub struct UrlRule;

impl Rule for UrlRule {
    type Kind = DatabaseUrl;

    fn read(&self, value: &Value, _: &Path) -> Result<DatabaseUrl, Option<String>> {
        // An invalid connection string may still contain a password: never repeat it.
        let text = value.as_str().ok_or_else(|| Some("***".to_owned()))?;
        text.parse().map_err(|()| Some("\"***\"".to_owned()))
    }

    fn show(&self, value: &DatabaseUrl) -> String {
        toml_string(&value.masked())
    }

    fn allowed(&self) -> String {
        DatabaseUrl::ALLOWED.to_owned()
    }

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(&["\"host=/run/postgresql dbname=x\""], &["\"\"", "\"x\"", "5"])
    }
}

/// A log level.
pub struct LevelRule;

impl Rule for LevelRule {
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

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(&["\"error\"", "\"off\"", "\"trace\""], &["\"INFO\"", "\"verbose\"", "3"])
    }
}

/// The form of log lines.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum LogFormat {
    /// Time, level and message.
    Text,
    /// One JSON object a line.
    Json,
}

/// A [`LogFormat`] by name.
pub struct FormatRule;

impl Rule for FormatRule {
    type Kind = LogFormat;

    fn read(&self, value: &Value, _: &Path) -> Result<LogFormat, Option<String>> {
        match value.as_str() {
            Some("text") => Ok(LogFormat::Text),
            Some("json") => Ok(LogFormat::Json),
            _ => Err(None),
        }
    }

    fn show(&self, value: &LogFormat) -> String {
        toml_string(match value {
            LogFormat::Text => "text",
            LogFormat::Json => "json",
        })
    }

    fn allowed(&self) -> String {
        "\"text\" or \"json\"".to_owned()
    }

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(&["\"json\"", "\"text\""], &["\"JSON\"", "\"\"", "3"])
    }
}

/// What the website publishes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Publish {
    /// Every node.
    All,
    /// Addresses of TRB and named nodes only.
    Trb,
    /// No address.
    Counts,
}

impl Publish {
    const ALL: [Self; 3] = [Self::All, Self::Trb, Self::Counts];

    /// Its word in `bitdash.toml`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Trb => "trb",
            Self::Counts => "counts",
        }
    }
}

/// What the website publishes.
pub struct PublishRule;

impl Rule for PublishRule {
    type Kind = Publish;

    fn read(&self, value: &Value, _: &Path) -> Result<Publish, Option<String>> {
        let word = value.as_str().ok_or(None)?;
        Publish::ALL.into_iter().find(|publish| publish.as_str() == word).ok_or(None)
    }

    fn show(&self, value: &Publish) -> String {
        toml_string(value.as_str())
    }

    fn allowed(&self) -> String {
        "\"all\", \"trb\" or \"counts\"".to_owned()
    }

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(&["\"all\"", "\"trb\"", "\"counts\""], &["\"TRB\"", "\"\"", "3"])
    }
}

/// The address of a website, or an empty string for none.
pub struct WebUrlRule;

impl Rule for WebUrlRule {
    type Kind = String;

    fn read(&self, value: &Value, _: &Path) -> Result<String, Option<String>> {
        let text = value.as_str().ok_or(None)?;
        let rest = text.strip_prefix("https://").or_else(|| text.strip_prefix("http://"));
        let is_plain = |c: char| c.is_ascii_alphanumeric() || "-._~:/[]@%".contains(c);
        let is_url = rest.is_some_and(|rest| {
            rest.starts_with(|c: char| c.is_ascii_alphanumeric() || c == '[')
                && rest.chars().all(is_plain)
        });
        if text.is_empty() || (is_url && text.len() <= MAX_CONTACT) {
            return Ok(text.to_owned());
        }
        Err(None)
    }

    fn show(&self, value: &String) -> String {
        toml_string(value)
    }

    fn allowed(&self) -> String {
        "a URL such as \"https://example.org/nodes/\", or \"\" for none".to_owned()
    }

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(
            &["\"\"", "\"https://example.org\"", "\"http://127.0.0.1:8080/nodes/\""],
            &["\"example.org\"", "\"https://\"", "\"ftp://example.org\"", "\"https://a b\"", "5"],
        )
    }
}

/// A title: one line of text.
pub struct TitleRule;

impl Rule for TitleRule {
    type Kind = String;

    fn read(&self, value: &Value, _: &Path) -> Result<String, Option<String>> {
        let text = value.as_str().ok_or(None)?;
        let length = text.chars().count();
        let is_title = (1..=MAX_TITLE).contains(&length) && !text.contains(char::is_control);
        if is_title { Ok(text.to_owned()) } else { Err(None) }
    }

    fn show(&self, value: &String) -> String {
        toml_string(value)
    }

    fn allowed(&self) -> String {
        format!("1 to {MAX_TITLE} characters in quotes")
    }

    #[cfg(test)]
    fn samples(&self) -> Samples {
        Samples::of(&["\"bitdash\"", "\"Nodes & co\""], &["\"\"", "\"a\\nb\"", "5"])
    }
}

fn level_word(level: LevelFilter) -> String {
    level.as_str().to_ascii_lowercase()
}

/// A string as a TOML basic string.
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

/// A value as TOML, shortened, for a message.
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
const MAX_TITLE: usize = 40;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_and_printed_in_the_largest_unit() {
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
    fn other_durations_are_rejected() {
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
    fn strings_round_trip_through_toml() {
        for text in ["", "a\"b\\c", "tab\tline\nbell\u{7}", "ü €"] {
            let table: toml::Table = format!("x = {}", toml_string(text)).parse().unwrap();
            assert_eq!(table["x"].as_str(), Some(text));
        }
    }
}
