//! A user agent taken apart, and the version that a Core claims in it.
//!
//! Layer 1: pure functions. Owns: the grammar of BIP 14, as far as strangers keep to it, and which
//! versions and services a Core can have had.

/// A user agent taken apart (BIP 14): `/name:version(comment)/name:version(comment)/`.
pub(super) struct Agent<'a> {
    pub(super) parts: Vec<Part<'a>>,
    pub(super) is_empty: bool,
    /// Whether it begins and ends with a slash, as it should.
    pub(super) is_enclosed: bool,
}

/// One part of it; what is missing is empty.
#[derive(Clone, Copy, Default)]
pub(super) struct Part<'a> {
    pub(super) name: &'a str,
    pub(super) version: &'a str,
    /// Without its first parenthesis, up to the part's end.
    pub(super) comment: &'a str,
}

impl<'a> Agent<'a> {
    pub(super) fn read(text: &'a str) -> Self {
        let mut parts = Vec::new();
        let mut depth = 0_u32;
        // A slash within a comment ends nothing.
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

    /// `(EB32.0)`: the largest block that a big-block node takes.
    pub(super) fn has_excessive_block_mark(&self) -> bool {
        let is_mark = |part: &Part<'_>| {
            let size = part.comment.strip_prefix("EB").and_then(|rest| rest.bytes().next());
            size.is_some_and(|byte| byte.is_ascii_digit())
        };
        self.parts.iter().any(is_mark)
    }
}

/// A version that a Core could have had.
#[derive(Clone, Copy)]
pub(super) struct Release {
    /// 21 for 0.21 and for 21.99 (its development version), 22 for 22: the 0 was given up then.
    pub(super) line: u32,
    /// 99 for a development version, which has already what the next line brings.
    pub(super) minor: u32,
}

impl Release {
    /// Reads `0.6.0` to `0.21.2`, with a fourth number or without, and from `21.99.0` on.
    pub(super) fn read(text: &str) -> Option<Self> {
        let numbers = text.split('.').map(number).collect::<Option<Vec<u32>>>()?;
        let (line, minor) = match *numbers.as_slice() {
            [0, line @ 6..=21, minor] | [0, line @ 6..=21, minor, _] => (line, minor),
            [line @ 21..=NEWEST_LINE, minor, _] => (line, minor),
            _ => return None,
        };
        matches!(minor, 0..=19 | 99).then_some(Self { line, minor })
    }

    /// Whether these services are possible: none newer than the claim, and not none at all.
    pub(super) fn may_offer(self, services: u64) -> bool {
        let newest = if self.minor == 99 { self.line + 1 } else { self.line };
        let is_too_old = |(bit, line): &(u64, u32)| services & bit != 0 && newest < *line;
        !FIRST_OFFERED.iter().any(is_too_old) && (services != 0 || self.line < ALWAYS_OFFERS)
    }
}

/// One or two digits without a leading zero.
fn number(text: &str) -> Option<u32> {
    let is_plain = matches!(text.as_bytes(), [b'0'..=b'9'] | [b'1'..=b'9', b'0'..=b'9']);
    if is_plain { text.parse().ok() } else { None }
}

/// Names of Knots over the years, where they are a part's whole name.
const KNOTS_NAMES: [&str; 3] = ["ljr", "next", "eligius"];

/// The newest line that a Core may claim. Two lines appear a year; 31 is of 2026.
const NEWEST_LINE: u32 = 49;

/// Service bits, and the line of Core that was the first to offer each.
const FIRST_OFFERED: [(u64, u32); 4] = [
    (1 << 3, 13),  // WITNESS
    (1 << 6, 21),  // COMPACT_FILTERS
    (1 << 10, 16), // NETWORK_LIMITED
    (1 << 11, 26), // P2P_V2
];

/// From this line on Core always offers something: NETWORK_LIMITED if nothing else. A pruned 0.11
/// offered nothing.
const ALWAYS_OFFERS: u32 = 16;
