//! Parser of user agents (BIP 14, leniently), and the versions and services that Core has had.
//!
//! Sans-I/O: pure functions.

/// A parsed user agent: `/name:version(comment)/name:version(comment)/`.
pub(super) struct Agent<'a> {
    pub(super) parts: Vec<Part<'a>>,
    /// Whether it begins and ends with a slash, as BIP 14 requires.
    pub(super) is_enclosed: bool,
}

/// A part of a user agent; missing fields are empty.
#[derive(Clone, Copy, Default)]
pub(super) struct Part<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    /// From after the first parenthesis to the end of the part.
    pub(super) comment: &'a str,
}

impl<'a> Agent<'a> {
    pub(super) fn read(text: &'a str) -> Self {
        let mut parts = Vec::new();
        let mut depth = 0_u32;
        // A slash within a comment does not end a part.
        let segments = text.split(|character| {
            match character {
                '(' => depth += 1,
                ')' => depth = depth.saturating_sub(1),
                _ => {}
            }
            character == '/' && depth == 0
        });
        for segment in segments.filter(|segment| !segment.is_empty()) {
            let (bare, comment) = segment.split_once('(').unwrap_or((segment, ""));
            let (name, version) = bare.split_once(':').unwrap_or((bare, ""));
            parts.push(Part { name, version, comment });
        }
        let is_enclosed = text.len() > 1 && text.starts_with('/') && text.ends_with('/');
        Self { parts, is_enclosed }
    }

    pub(super) fn first(&self) -> Part<'a> {
        self.parts.first().copied().unwrap_or_default()
    }
}

/// The versions that Core has had. A line is 13 for 0.13 and 22 for 22.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct CoreVersions {
    /// Names of Core's own part of the user agent.
    pub(super) names: Vec<String>,
    /// The newest line that it may claim.
    pub(super) newest: u32,
    /// Service bits, each with the first line that offered it.
    pub(super) first_offered: Vec<(u64, u32)>,
    /// From this line on it offers at least one service.
    pub(super) offers_since: u32,
}

/// A version that Core could have had.
#[derive(Clone, Copy)]
pub(super) struct Release {
    /// 21 for 0.21 and 21.99 (development), 22 for 22: the leading 0 was dropped then.
    pub(super) line: u32,
    /// 99 for a development version, which may have the services of the next line.
    pub(super) minor: u32,
}

impl Release {
    /// Parses `0.6.0` to `0.21.2`, with an optional fourth number, and `21.99.0` and later.
    pub(super) fn read(text: &str, versions: &CoreVersions) -> Option<Self> {
        let numbers = text.split('.').map(number).collect::<Option<Vec<u32>>>()?;
        let (line, minor) = match *numbers.as_slice() {
            [0, line @ 6..=21, minor] | [0, line @ 6..=21, minor, _] => (line, minor),
            [line, minor, _] if (21..=versions.newest).contains(&line) => (line, minor),
            _ => return None,
        };
        matches!(minor, 0..=19 | 99).then_some(Self { line, minor })
    }

    /// Whether the release could offer these services: none is newer, and 0 only if old.
    pub(super) fn may_offer(self, services: u64, versions: &CoreVersions) -> bool {
        let newest = if self.minor == 99 { self.line + 1 } else { self.line };
        let is_too_old = |(bit, line): &(u64, u32)| services & bit != 0 && newest < *line;
        !versions.first_offered.iter().any(is_too_old)
            && (services != 0 || self.line < versions.offers_since)
    }
}

/// One or two digits without a leading zero.
pub(super) fn number(text: &str) -> Option<u32> {
    let is_plain = matches!(text.as_bytes(), [b'0'..=b'9'] | [b'1'..=b'9', b'0'..=b'9']);
    if is_plain { text.parse().ok() } else { None }
}
