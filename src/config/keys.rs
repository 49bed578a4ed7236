//! The table of all keys of `bitdash.toml`: the only place for type, default, range, reload
//! behaviour and documentation of a key.
//!
//! `bitdash.toml` and `docs/configuration.md` are generated from it: after a change run
//! `REGENERATE=1 cargo test --test shipped_files`.

use std::path::{Path, PathBuf};
use std::time::Duration;

use ipnet::Ipv4Net;
use log::LevelFilter;
use toml::Value;

use super::DatabaseUrl;
use super::rules::{
    ContactRule, Decimal, FormatRule, GeoFile, GeoFileRule, LevelRule, LogFormat, MagicRule,
    NetsRule, OptionalPathRule, PathRule, PathsRule, PromPathRule, Publish, PublishRule, Refusal,
    Rule, Span, TitleRule, UrlRule, UserAgentRule, WebUrlRule, Whole, read,
};
use bitdash_core::book::backoff::BackoffParams;

/// A key of `bitdash.toml`.
pub struct Key {
    /// Its section.
    pub section: &'static str,
    /// Its name in the section.
    pub field: &'static str,
    /// Section and name, such as `crawl.max_sockets`.
    pub name: &'static str,
    /// Its default as TOML.
    pub default: &'static str,
    /// When a changed value takes effect.
    pub reload: Reload,
    /// The lines of its documentation; a key without any shares those of the key before it.
    pub text: &'static [&'static str],
    /// The allowed values, as the end of the sentence "must be ...".
    pub allowed: fn() -> String,
    /// Reads its value into a configuration.
    pub(super) read: fn(&mut Config, &Value, &Path) -> Result<(), Refusal>,
    /// Writes its value as TOML.
    pub(super) show: fn(&Config) -> String,
    /// Whether it has the same value in both.
    pub(super) same: fn(&Config, &Config) -> bool,
    /// Copies its value from the second to the first.
    pub(super) take: fn(&mut Config, &Config),
    /// Values for tests of its rule.
    #[cfg(test)]
    pub(super) samples: fn() -> super::rules::Samples,
}

/// When a changed value takes effect in a running crawl.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Reload {
    /// At SIGHUP.
    Live,
    /// At the next start.
    AtStart,
}

/// Declares the configuration: a struct for each section (`use` takes an existing one), [`Config`]
/// and [`KEYS`]. A key is `/// documentation`, `name: type = default, reload, rule;`.
macro_rules! keys {
    ($([$section:ident] $how:tt $config:ident {
        $($(#[doc = $text:literal])*
        $field:ident: $kind:ty = $default:tt, $reload:ident, $rule:expr;)*
    })*) => {
        $(section! { $how $config $section { $($(#[doc = $text])* $field: $kind,)* } })*

        /// The effective configuration. Fields are named like the keys of `bitdash.toml`.
        #[derive(Clone, PartialEq, Debug)]
        pub struct Config {
            $(#[doc = concat!("The keys `", stringify!($section), ".*`.")]
            pub $section: $config,)*
        }

        impl Config {
            /// All defaults; relative paths are resolved against `directory`.
            pub(super) fn defaults_in(directory: &Path) -> Self {
                Self {
                    $($section: $config {
                        $($field: default(&$rule, stringify!($default), directory),)*
                    },)*
                }
            }
        }

        /// Every key, section by section.
        pub const KEYS: &[Key] = &[$($(Key {
            section: stringify!($section),
            field: stringify!($field),
            name: concat!(stringify!($section), ".", stringify!($field)),
            default: stringify!($default),
            reload: Reload::$reload,
            text: &[$($text),*],
            allowed: || $rule.allowed(),
            read: |config, value, directory| {
                config.$section.$field = read(&$rule, value, directory)?;
                Ok(())
            },
            show: |config| $rule.show(&config.$section.$field),
            same: |a, b| a.$section.$field == b.$section.$field,
            take: |to, from| to.$section.$field.clone_from(&from.$section.$field),
            #[cfg(test)]
            samples: || $rule.samples(),
        },)*)*];
    };
}

macro_rules! section {
    (use $config:ident $section:ident $fields:tt) => {};
    (struct $config:ident $section:ident {
        $($(#[doc = $text:literal])* $field:ident: $kind:ty,)*
    }) => {
        #[doc = concat!("The keys `", stringify!($section), ".*`.")]
        #[derive(Clone, PartialEq, Debug)]
        pub struct $config {
            $(#[doc = concat!("`", stringify!($section), ".", stringify!($field), "`.")]
            $(#[doc = $text])*
            pub $field: $kind,)*
        }
    };
}

fn default<R: Rule>(rule: &R, text: &str, directory: &Path) -> R::Kind {
    let value = text.parse().expect("every default is TOML");
    rule.read(&value, directory).expect("every default is allowed")
}

keys! {
    [crawl] struct CrawlConfig {
        /// Maximum number of open sockets. Keep it low during the first pass, so as not to flood
        /// the few seeds; raise it to some hundreds later, without a restart. Most of a pass is
        /// waiting for dead addresses: it lasts about dead addresses x timeout / sockets.
        /// The limit of open files of the process (`ulimit -n`) must be higher.
        max_sockets: u32 = 50, Live, Whole(1u32, 20_000);

        /// Maximum number of new connections per second; 0: no limit. A NAT router keeps a table
        /// entry for each attempt for about 120 seconds, so it needs room for 120 times this
        /// number. 100 suits a cheap router.
        connects_per_second: u32 = 400, Live, Whole(0u32, 100_000);

        /// The nodes file: seeds, used when no node is known or up, and named nodes, which are
        /// probed in every pass.
        nodes_file: PathBuf = "nodes.txt", Live, PathRule;

        /// Minimum time between the starts of two passes.
        pass_interval: Duration = "30m", Live, Span(Duration::ZERO, days(30));

        /// Timeouts of connection attempts: to nodes, which have responded before, and to
        /// candidates, which never have. Most candidates never answer, so the second timeout
        /// determines the length of a pass. Linux sends SYNs after 0, 1 and 3 seconds.
        connect_timeout: Duration = "5s", Live, Span(MIN, minutes(10));
        candidate_connect_timeout: Duration = "3s", Live, Span(MIN, minutes(10));

        /// Timeout from the connection to the peer's `version`.
        handshake_timeout: Duration = "10s", Live, Span(MIN, minutes(10));

        /// Timeout from `getaddr` to the end of the replies. Bitcoin Core 0.12 to 22 answers after
        /// a random delay, half a minute on average: 75 s catch nine of ten replies. Software that
        /// is known to answer at once gets a shorter timeout.
        addr_timeout: Duration = "75s", Live, Span(MIN, minutes(30));

        /// A reply is complete when no further `addr` follows one of two or more entries for this
        /// long. Five times this, but not above 10 s, where more must follow: in the middle of a
        /// message, and after an `addr` of 1,000 entries from software that sends several.
        addr_quiet: Duration = "2s", Live, Span(MIN, minutes(10));

        /// Time between two `getaddr` to the same node; in between, probes end after the handshake.
        /// Bitcoin Core repeats the same answer for 21 to 27 hours: up to 27 h, a node whose answer
        /// shows its age is asked when a new one is due, an eighth of this after the last time at
        /// least. TRB and Core before 0.21, which repeat nothing, are asked after 3 h, nodes that
        /// sent nothing after 6 h. "0s": ask at every probe.
        getaddr_interval: Duration = "24h", Live, Span(Duration::ZERO, days(30));

        /// While likely candidates wait, one socket in this many may await the peers of any node,
        /// and one more those of a node that replies at once; other nodes are asked a minute later
        /// in the same pass. 0: every node is asked at once, and nodes are found later.
        ask_share: u32 = 8, Live, Whole(0u32, 1_000);

        /// Share of a pass's time, 0 to 1, for addresses above the quota of their source: nodes
        /// that send thousands of invented addresses cannot take more of a pass than this.
        spam_share: f64 = 0.3, Live, Decimal(0.0, 1.0);

        /// Number of probe results kept per node; older ones are deleted.
        results_per_node: u32 = 25, Live, Whole(1u32, 10_000);

        /// Maximum number of addresses remembered, about 24 bytes of memory each. Beyond it the
        /// worst candidates are evicted.
        max_addresses: u32 = 4000000, Live, Whole(1_000u32, 50_000_000);
    }

    [backoff] use BackoffParams {
        /// Candidates: the delay after the k-th consecutive failure is base x factor^(k-1), at most
        /// max; plus or minus 25 %.
        base: Duration = "1h", Live, Span(MIN, days(365));
        factor: f64 = 2, Live, Decimal(1.0, 16.0);
        max: Duration = "14d", Live, Span(MIN, days(365));

        /// The same for nodes that stopped responding; lost_max is the maximum once a node has been
        /// silent for 7 days.
        node_base: Duration = "10m", Live, Span(MIN, days(365));
        node_max: Duration = "1h", Live, Span(MIN, days(365));
        lost_max: Duration = "24h", Live, Span(MIN, days(365));
    }

    [network] struct NetworkConfig {
        /// The four bytes before every message, in the order on the wire, and the default port of
        /// the nodes file.
        /// Main network f9beb4d9 8333; testnet3 0b110907 18333; testnet4 1c163f28 48333;
        /// signet 0a03cf40 38333; regtest fabfb5da 18444.
        magic: [u8; 4] = "f9beb4d9", AtStart, MagicRule;
        port: u16 = 8333, AtStart, Whole(1u16, u16::MAX);

        /// Contents of the crawler's `version`. Bitcoin Core disconnects peers below 31800; from
        /// 70016 on it first sends two more messages, which the crawler does not need. VERSION
        /// stands for the version of bitdash. Services are what a node offers: a crawler offers
        /// none. gocoin answers only those who offer 9 (NETWORK and WITNESS), and bans others for
        /// 7 days: they find it `closed`. 9 finds it, at the price of a claim that the crawler does
        /// not keep: nodes then ask it for headers and blocks, without an answer.
        protocol_version: i32 = 70015, AtStart, Whole(31_800i32, i32::MAX);
        user_agent: String = "/bitdash:VERSION/", AtStart, UserAgentRule;
        // TOML integers end at 2^63 - 1; bit 63 has no meaning yet.
        services: u64 = 0, AtStart, Whole(0u64, i64::MAX as u64);

        /// A URL or mail address for node operators who wonder what is connecting. Please set it.
        /// It becomes a comment of the user agent, where / : ( ) are not allowed:
        /// `https://example.org/crawler` is sent as (example.org crawler).
        contact: String = "", AtStart, ContactRule;
    }

    [filter] struct FilterConfig {
        /// CIDRs that are never connected to and never stored, not even if a line of the nodes
        /// file or a name server says so, in addition to the built-in special-purpose ranges
        /// (private networks, documentation, multicast, ...). Add every operator that asks to be
        /// left alone: `["192.0.2.0/24", "198.51.100.7"]`.
        exclude: Vec<Ipv4Net> = [], Live, NetsRule;

        /// Files of such CIDRs, one per line; # and ; start a comment. Spamhaus DROP, as text or
        /// JSON, and bogon lists can be used as they are. Together with exclude they may cover a
        /// quarter of the IPv4 addresses, unless only is set.
        exclude_files: Vec<PathBuf> = [], Live, PathsRule;

        /// If not empty, nothing else is ever connected to or stored, and the built-in ranges do
        /// not apply; exclude does. Test networks set `["127.0.0.0/8"]`, so that no invented
        /// address leads outside.
        only: Vec<Ipv4Net> = [], Live, NetsRule;
    }

    [database] struct DatabaseConfig {
        /// The PostgreSQL database: postgresql://USER:PASSWORD@HOST:PORT/NAME; without a host, the
        /// local socket. The environment variable BITDASH_DATABASE_URL takes precedence, so that
        /// the password need not be in this file.
        url: DatabaseUrl = "postgresql:///bitdash", AtStart, UrlRule;

        /// A batch is written when either limit is reached.
        batch_rows: u32 = 5000, Live, Whole(1u32, 1_000_000);
        flush_interval: Duration = "10s", Live, Span(MIN, minutes(10));
    }

    [geo] struct GeoConfig {
        /// Files of countries and autonomous systems, in which nodes are looked up after each pass:
        /// of IPFire's libloc (Debian's package libloc-database), or .mmdb (DB-IP, GeoLite2).
        /// auto: the newest of /var/lib/location/database.db, /usr/share/GeoIP/*.mmdb and
        /// /usr/share/libloc-location/location.db; "": none.
        country_db: GeoFile = "auto", Live, GeoFileRule;
        asn_db: GeoFile = "auto", Live, GeoFileRule;
    }

    [log] struct LogConfig {
        /// The log file; "" is standard error. SIGHUP reopens it, so that logrotate works.
        file: Option<PathBuf> = "", Live, OptionalPathRule;

        /// off, error, warn, info, debug (a line per probe) or trace (a line per message).
        level: LevelFilter = "info", Live, LevelRule;

        /// text, or json: one object a line, for collectors.
        format: LogFormat = "text", Live, FormatRule;

        /// Time between two stats lines.
        stats_interval: Duration = "30s", Live, Span(Duration::from_millis(100), days(1));

        /// A file of metrics for the textfile collector of Prometheus' node_exporter, which reads
        /// only names that end in .prom. It is replaced at each stats interval and stays when the
        /// crawler exits, so that an alert on the age of the last pass fires; see
        /// docs/operations.md.
        metrics_file: Option<PathBuf> = "", Live, PromPathRule;
    }

    [site] struct SiteConfig {
        /// If set, the website is written into this directory after each pass, by a process of low
        /// priority. "/run/bitdash/site" keeps it in memory and spares the flash; it is written
        /// again after a boot. `bitdash site` writes it now.
        dir: Option<PathBuf> = "", Live, OptionalPathRule;

        /// The address of the website, such as `https://example.org/nodes/`. The feed of events is
        /// written only if it is set.
        url: String = "", Live, WebUrlRule;

        /// The title of the website.
        title: String = "bitdash", Live, TitleRule;

        /// Minimum time between two renewals of the heavy pages: lists by species, downloads, every
        /// node's results. Pages of TRB and named nodes, the table and the home page are renewed
        /// after each pass. On flash use "6h".
        interval: Duration = "1h", Live, Span(Duration::ZERO, days(30));

        /// What is published: "all", "trb" (only TRB and named nodes by address) or "counts" (no
        /// address). Addresses that filter.exclude covers are never published.
        publish: Publish = "all", Live, PublishRule;
    }

    [events] struct EventsConfig {
        /// A program that is run for each event of a TRB or named node, with five arguments: kind
        /// (new, lost, back, full, agent, species, many), HOST:PORT, name, before, after; empty
        /// where there is none. One runs at a time; it is killed after 30 s. At its end a crawl
        /// waits for those that are left: 60 s after the last of `--passes`, 8 s after a signal.
        exec: Option<PathBuf> = "", Live, OptionalPathRule;
    }
}

/// The key or section that an unknown one most likely stands for.
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
        .filter(|(distance, name)| *distance <= max_distance(name.len().min(unknown.len())))
        .min_by_key(|(distance, _)| *distance)
        .map(|(_, name)| name)
}

/// Maximum edit distance of a suggestion for a name of this length. Two swapped letters count as
/// two edits.
fn max_distance(length: usize) -> usize {
    match length {
        0..=3 => length / 3,
        _ => (length / 3).max(2),
    }
}

/// Levenshtein distance of the first [`MAX_COMPARED`] characters.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().take(MAX_COMPARED).collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, a) in a.chars().take(MAX_COMPARED).enumerate() {
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

const MIN: Duration = Duration::from_millis(10);
const MAX_COMPARED: usize = 64;

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
    fn the_most_similar_key_or_section_is_suggested() {
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
    fn the_distance_counts_single_edits() {
        for (a, b, expected) in [("", "", 0), ("a", "", 1), ("", "ab", 2), ("kitten", "sitting", 3)]
        {
            assert_eq!(distance(a, b), expected, "{a} {b}");
        }
    }
}
