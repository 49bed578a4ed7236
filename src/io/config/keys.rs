//! The table of all keys of `bitdash.toml`: what each may be, and whether SIGHUP changes it.

use std::path::Path;
use std::time::Duration;

use toml::Value;

use super::Config;
use super::rules::{
    Agent, Contact, Database, Decimal, Level, MagicBytes, Nets, OptionalPlace, Place, Places,
    Refusal, Rule, Span, Whole, read,
};

/// A key of `bitdash.toml`.
pub struct Key {
    /// The section that it stands in.
    pub section: &'static str,
    /// Its name in the section.
    pub field: &'static str,
    /// Section and name, as `crawl.max_sockets`.
    pub name: &'static str,
    /// Whether SIGHUP changes it in a running crawl.
    pub reloaded: bool,
    /// Reads its value into a configuration.
    pub(super) read: fn(&mut Config, &Value, &Path) -> Result<(), Refusal>,
    /// Writes its value as TOML.
    pub(super) show: fn(&Config) -> String,
    /// Whether it has the same value in both.
    pub(super) same: fn(&Config, &Config) -> bool,
    /// Copies its value from the second to the first.
    pub(super) take: fn(&mut Config, &Config),
}

macro_rules! key {
    ($section:ident . $field:ident, $reloaded:expr, $rule:expr) => {
        Key {
            section: stringify!($section),
            field: stringify!($field),
            name: concat!(stringify!($section), ".", stringify!($field)),
            reloaded: $reloaded,
            read: |config, value, folder| {
                config.$section.$field = read(&$rule, value, folder)?;
                Ok(())
            },
            show: |config| $rule.show(&config.$section.$field),
            same: |a, b| a.$section.$field == b.$section.$field,
            take: |to, from| to.$section.$field.clone_from(&from.$section.$field),
        }
    };
}

/// Every key, section by section.
pub const KEYS: &[Key] = &[
    key!(crawl.max_sockets, LIVE, Whole(1u32, 20_000)),
    key!(crawl.connects_per_second, LIVE, Whole(0u32, 100_000)),
    key!(crawl.nodes_file, LIVE, Place),
    key!(crawl.pass_interval, LIVE, Span(Duration::ZERO, days(30))),
    key!(crawl.connect_timeout, LIVE, Span(SHORTEST, minutes(10))),
    key!(crawl.candidate_connect_timeout, LIVE, Span(SHORTEST, minutes(10))),
    key!(crawl.handshake_timeout, LIVE, Span(SHORTEST, minutes(10))),
    key!(crawl.addr_timeout, LIVE, Span(SHORTEST, minutes(30))),
    key!(crawl.addr_quiet, LIVE, Span(SHORTEST, minutes(10))),
    key!(crawl.getaddr_interval, LIVE, Span(Duration::ZERO, days(30))),
    key!(crawl.spam_share, LIVE, Decimal(0.0, 1.0)),
    key!(crawl.results_per_node, LIVE, Whole(1u32, 10_000)),
    key!(crawl.max_addresses, LIVE, Whole(1_000u32, 50_000_000)),
    key!(backoff.base, LIVE, Span(SHORTEST, days(365))),
    key!(backoff.factor, LIVE, Decimal(1.0, 16.0)),
    key!(backoff.max, LIVE, Span(SHORTEST, days(365))),
    key!(backoff.node_base, LIVE, Span(SHORTEST, days(365))),
    key!(backoff.node_max, LIVE, Span(SHORTEST, days(365))),
    key!(backoff.lost_max, LIVE, Span(SHORTEST, days(365))),
    key!(network.magic, AT_START, MagicBytes),
    key!(network.port, AT_START, Whole(1u16, u16::MAX)),
    // Bitcoin Core closes the connection below 31800 (`MIN_PEER_PROTO_VERSION`). 70016 and above
    // are allowed, but make Core send `wtxidrelay` and `sendaddrv2` first, which the crawler skips.
    key!(network.protocol_version, AT_START, Whole(31_800i32, i32::MAX)),
    key!(network.user_agent, AT_START, Agent),
    // An integer of TOML ends at 2^63 - 1; nobody has defined bit 63.
    key!(network.services, AT_START, Whole(0u64, i64::MAX as u64)),
    key!(network.contact, AT_START, Contact),
    key!(filter.exclude, LIVE, Nets),
    key!(filter.exclude_files, LIVE, Places),
    key!(filter.only, LIVE, Nets),
    key!(database.url, AT_START, Database),
    key!(database.batch_rows, LIVE, Whole(1u32, 1_000_000)),
    key!(database.flush_interval, LIVE, Span(SHORTEST, minutes(10))),
    key!(geo.country_db, LIVE, OptionalPlace),
    key!(geo.asn_db, LIVE, OptionalPlace),
    key!(log.file, LIVE, OptionalPlace),
    key!(log.level, LIVE, Level),
    key!(log.stats_interval, LIVE, Span(Duration::from_millis(100), days(1))),
    key!(site.dir, LIVE, OptionalPlace),
];

/// The existing key or section that an unknown one was perhaps meant to be.
pub(super) fn suggestion(unknown: &str) -> Option<&'static str> {
    let bare = unknown.rsplit('.').next().unwrap_or(unknown);
    // The right name in the wrong section, or in none.
    if let Some(key) = KEYS.iter().find(|key| key.field == bare) {
        return Some(key.name);
    }
    let names = KEYS.iter().map(|key| key.name);
    let sections = KEYS.iter().map(|key| key.section);
    names
        .chain(sections)
        .map(|name| (distance(unknown, name), name))
        .filter(|(distance, name)| *distance <= changes_allowed(name.len().min(unknown.len())))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// How many changes make a name of this length another one. Two letters swapped are two changes.
fn changes_allowed(length: usize) -> usize {
    match length {
        0..=3 => length / 3,
        _ => (length / 3).max(2),
    }
}

/// Levenshtein's distance, of the first characters only where a name is very long.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(LONGEST_NAME).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().take(LONGEST_NAME).enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, b) in b.iter().enumerate() {
            let replaced = diagonal + usize::from(a != *b);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

const LIVE: bool = true;
const AT_START: bool = false;
const SHORTEST: Duration = Duration::from_millis(10);
const LONGEST_NAME: usize = 64;

const fn minutes(count: u64) -> Duration {
    Duration::from_secs(count * 60)
}

const fn days(count: u64) -> Duration {
    Duration::from_secs(count * 86_400)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn likely_meanings_are_suggested() {
        let table = [
            ("crawl.max_socket", Some("crawl.max_sockets")),
            ("crawl.maxsockets", Some("crawl.max_sockets")),
            ("max_sockets", Some("crawl.max_sockets")),
            ("network.max_sockets", Some("crawl.max_sockets")),
            ("databse", Some("database")),
            ("databse.url", Some("database.url")),
            ("log.levle", Some("log.level")),
            ("entirely.different", None),
            ("x", None),
        ];
        for (unknown, meant) in table {
            assert_eq!(suggestion(unknown), meant, "{unknown}");
        }
        assert_eq!(suggestion(&"x".repeat(100_000)), None);
    }

    #[test]
    fn distance_counts_single_changes() {
        for (a, b, expected) in [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
