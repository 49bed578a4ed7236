//! A rule: conditions on what a node claims.
//!
//! Sans-I/O: data and pure functions. The time of a match is linear in the length of the user agent
//! and in the number of texts, whatever they are.

use super::agent::{Agent, CoreVersions, Release, number};

/// A condition; of several texts or numbers, one must match. In patterns `#` stands for one or more
/// digits.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) enum Condition {
    /// The whole user agent.
    Agent(Vec<String>),
    AgentBegins(Vec<String>),
    /// Pattern of the name of the first part.
    First(Vec<String>),
    /// Pattern of the name of a part.
    Name(Vec<String>),
    /// Pattern of the beginning of the name of a part.
    Begins(Vec<String>),
    /// In the name of a part; in lower case.
    Contains(Vec<String>),
    /// Version of the first part.
    Version(Vec<String>),
    VersionBegins(Vec<String>),
    /// In the version of a part; in lower case.
    VersionContains(Vec<String>),
    /// Pattern of the beginning of the comment of a part.
    CommentBegins(Vec<String>),
    Protocol(Vec<i32>),
    /// One of these bits is set.
    Offers(u64),
    /// The dotted version is the protocol version.
    Dotted,
    Core(CoreClaim),
}

/// Whether a claim to be Core is possible.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum CoreClaim {
    /// Core had this version, and it offered these services.
    Possible,
    Impossible,
}

/// The first rule of which all conditions hold decides.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(super) struct Rule {
    /// Index of its species.
    pub(super) species: usize,
    pub(super) conditions: Vec<Condition>,
}

/// What a node claims.
pub(super) struct Claims<'a> {
    pub(super) text: &'a str,
    pub(super) agent: &'a Agent<'a>,
    /// The user agent in lower case.
    pub(super) lower: &'a Agent<'a>,
    pub(super) protocol_version: i32,
    pub(super) services: u64,
    /// Whether its claim to be Core is possible; `None` if it claims to be something else.
    pub(super) core: Option<CoreClaim>,
    pub(super) is_dotted: bool,
}

impl<'a> Claims<'a> {
    pub(super) fn new(
        text: &'a str,
        (agent, lower): (&'a Agent<'a>, &'a Agent<'a>),
        protocol_version: i32,
        services: u64,
        versions: &CoreVersions,
    ) -> Self {
        Self {
            text,
            agent,
            lower,
            protocol_version,
            services,
            core: core_claim(agent, services, versions),
            is_dotted: has_dotted_version(agent, protocol_version),
        }
    }
}

impl Rule {
    pub(super) fn matches(&self, claims: &Claims<'_>) -> bool {
        self.conditions.iter().all(|condition| condition.holds(claims))
    }
}

impl Condition {
    fn holds(&self, claims: &Claims<'_>) -> bool {
        let agent = claims.agent;
        let (parts, lower) = (&agent.parts, &claims.lower.parts);
        match self {
            Self::Agent(texts) => texts.iter().any(|text| text == claims.text),
            Self::AgentBegins(texts) => begins(texts, claims.text),
            Self::First(patterns) => is_any(patterns, agent.first().name),
            Self::Name(patterns) => parts.iter().any(|part| is_any(patterns, part.name)),
            Self::Begins(patterns) => parts.iter().any(|part| begins_any(patterns, part.name)),
            Self::Contains(texts) => lower.iter().any(|part| contains(texts, part.name)),
            Self::Version(texts) => texts.iter().any(|text| text == agent.first().version),
            Self::VersionBegins(texts) => begins(texts, agent.first().version),
            Self::VersionContains(texts) => lower.iter().any(|part| contains(texts, part.version)),
            Self::CommentBegins(patterns) => {
                parts.iter().any(|part| begins_any(patterns, part.comment))
            }
            Self::Protocol(numbers) => numbers.contains(&claims.protocol_version),
            Self::Offers(bits) => claims.services & bits != 0,
            Self::Dotted => claims.is_dotted,
            Self::Core(claim) => claims.core == Some(*claim),
        }
    }
}

fn begins(texts: &[String], of: &str) -> bool {
    texts.iter().any(|text| of.starts_with(text))
}

fn contains(texts: &[String], of: &str) -> bool {
    texts.iter().any(|text| of.contains(text))
}

fn is_any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| behind(pattern, text) == Some(""))
}

fn begins_any(patterns: &[String], text: &str) -> bool {
    patterns.iter().any(|pattern| behind(pattern, text).is_some())
}

/// What follows the pattern in a text that begins with it.
fn behind<'t>(pattern: &str, text: &'t str) -> Option<&'t str> {
    let mut pieces = pattern.split('#');
    let mut rest = text.strip_prefix(pieces.next()?)?;
    for piece in pieces {
        let behind = rest.trim_start_matches(|c: char| c.is_ascii_digit());
        if behind.len() == rest.len() {
            return None;
        }
        rest = behind.strip_prefix(piece)?;
    }
    Some(rest)
}

fn core_claim(agent: &Agent<'_>, services: u64, versions: &CoreVersions) -> Option<CoreClaim> {
    let first = agent.first();
    if !versions.names.iter().any(|name| name == first.name) {
        return None;
    }
    Some(match Release::read(first.version, versions) {
        Some(release) if release.may_offer(services, versions) => CoreClaim::Possible,
        _ => CoreClaim::Impossible,
    })
}

/// Whether the agent has one part, without a comment, whose version is the protocol version as TRB
/// writes it. Core 0.6.0 is the only Core whose version equals its number, 60000.
fn has_dotted_version(agent: &Agent<'_>, protocol_version: i32) -> bool {
    let [part] = agent.parts.as_slice() else { return false };
    agent.is_enclosed
        && part.comment.is_empty()
        && !part.name.is_empty()
        && is_dotted(protocol_version, part.version)
        && !(part.name == "Satoshi" && protocol_version == 60000)
}

/// Whether `text` is `number` as TRB and the first Bitcoin write it: two digits a part, without a
/// trailing part of 0.
fn is_dotted(number: i32, text: &str) -> bool {
    if number <= 0 {
        return false;
    }
    let (a, b, c, d) =
        (number / 1_000_000, number / 10_000 % 100, number / 100 % 100, number % 100);
    match d {
        0 => text == format!("{a}.{b}.{c}"),
        _ => text == format!("{a}.{b}.{c}.{d}"),
    }
}

/// Major version of a release: "28", or "0.21".
pub(super) fn major_version(version: &str) -> Option<String> {
    let version = version.strip_prefix('v').unwrap_or(version);
    let mut numbers = version.split('.').map(number);
    match numbers.next()?? {
        0 => Some(format!("0.{}", numbers.next()??)),
        major => Some(major.to_string()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_in_a_pattern_stands_for_digits() {
        let table = [
            ("EB#", "EB32.0)", Some(".0)")),
            ("EB#", "EBay", None),
            ("EB#", "EB", None),
            ("Satoshi#", "Satoshi2", Some("")),
            ("Satoshi#X", "Satoshi12X", Some("")),
            ("Satoshi#X", "Satoshi12Y", None),
            ("#", "7", Some("")),
            ("a#b#", "a1b2c", Some("c")),
            ("plain", "plainer", Some("er")),
            ("plain", "plai", None),
        ];
        for (pattern, text, rest) in table {
            assert_eq!(behind(pattern, text), rest, "{pattern} {text}");
        }
    }
}
