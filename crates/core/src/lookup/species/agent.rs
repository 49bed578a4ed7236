//! Parser of user agents (BIP 14, leniently), and the versions and services that Core has had.
//!
//! Sans-I/O: pure functions.

/// A parsed user agent: `/name:version(comment)/name:version(comment)/`.
pub(super) struct Agent<'a> {
    pub(super) parts: Vec<Part<'a>>,
    pub(super) is_empty: bool,
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
        Self { parts, is_empty: text.is_empty(), is_enclosed }
    }

    pub(super) fn first(&self) -> Part<'a> {
        self.parts.first().copied().unwrap_or_default()
    }

    pub(super) fn is_knots(&self) -> bool {
        self.parts.iter().any(|part| {
            let marked = |text: &str| {
                let text = text.to_ascii_lowercase();
                text.contains("knots") || text.contains("bip110")
            };
            marked(part.name) || marked(part.version) || KNOTS_NAMES.contains(&part.name)
        })
    }

    /// `(EB32.0)`: the largest block that a big-block node accepts.
    pub(super) fn has_excessive_block_mark(&self) -> bool {
        let is_mark = |part: &Part<'_>| {
            let size = part.comment.strip_prefix("EB").and_then(|rest| rest.bytes().next());
            size.is_some_and(|byte| byte.is_ascii_digit())
        };
        self.parts.iter().any(is_mark)
    }
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
    pub(super) fn read(text: &str) -> Option<Self> {
        let numbers = text.split('.').map(number).collect::<Option<Vec<u32>>>()?;
        let (line, minor) = match *numbers.as_slice() {
            [0, line @ 6..=21, minor] | [0, line @ 6..=21, minor, _] => (line, minor),
            [line @ 21..=MAX_LINE, minor, _] => (line, minor),
            _ => return None,
        };
        matches!(minor, 0..=19 | 99).then_some(Self { line, minor })
    }

    /// Whether the release could offer these services: none is newer, and 0 only if old.
    pub(super) fn may_offer(self, services: u64) -> bool {
        let newest = if self.minor == 99 { self.line + 1 } else { self.line };
        let is_too_old = |(bit, line): &(u64, u32)| services & bit != 0 && newest < *line;
        !FIRST_OFFERED.iter().any(is_too_old)
            && (services != 0 || self.line < MIN_LINE_WITH_SERVICES)
    }
}

/// One or two digits without a leading zero.
pub(super) fn number(text: &str) -> Option<u32> {
    let is_plain = matches!(text.as_bytes(), [b'0'..=b'9'] | [b'1'..=b'9', b'0'..=b'9']);
    if is_plain { text.parse().ok() } else { None }
}

/// Past names of Knots, each the whole name of a part.
const KNOTS_NAMES: [&str; 3] = ["ljr", "next", "eligius"];

/// The newest line that Core may claim. Two lines appear per year; 31 is from 2026.
const MAX_LINE: u32 = 49;

/// Service bits, each with the first line of Core that offered it.
const FIRST_OFFERED: [(u64, u32); 4] = [
    (1 << 3, 13),  // WITNESS
    (1 << 6, 21),  // COMPACT_FILTERS
    (1 << 10, 16), // NETWORK_LIMITED
    (1 << 11, 26), // P2P_V2
];

/// From this line on Core offers at least NETWORK_LIMITED. A pruned 0.11 offered nothing.
const MIN_LINE_WITH_SERVICES: u32 = 16;
