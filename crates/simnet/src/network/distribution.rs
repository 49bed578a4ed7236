//! Weighted draws from published counts of the real network. Sans-I/O.
//!
//! The tables in `data/` are compiled in; each names its source.
//!
//! Invariant: 1. A draw depends on nothing but the generator.

use std::collections::HashMap;

/// The tables, parsed.
#[derive(Debug)]
pub struct Distributions {
    /// User agent and services, jointly.
    pub agents: Weighted<(&'static str, u64)>,
    /// TCP ports.
    pub ports: Weighted<u16>,
    /// Number of blocks behind the tip, as buckets with inclusive bounds.
    pub lags: Weighted<(i32, i32)>,
    protocol_versions: HashMap<&'static str, i32>,
}

impl Distributions {
    /// Parses the compiled-in tables.
    pub fn load() -> Self {
        Self {
            agents: rows(AGENTS)
                .filter_map(|row| Some((row.number(0)?, (row.text(2)?, row.number(1)?))))
                .collect(),
            ports: rows(PORTS)
                .filter_map(|row| Some((row.number(1)?, u16::try_from(row.number(0)?).ok()?)))
                .collect(),
            lags: lag_buckets(),
            protocol_versions: rows(PROTOCOL_VERSIONS)
                .filter_map(|row| Some((row.text(2)?, i32::try_from(row.number(1)?).ok()?)))
                .filter(|(_, version)| *version != 0)
                .collect(),
        }
    }

    /// The protocol version of a user agent; that of current Bitcoin Core if it is not known.
    pub fn protocol_version(&self, agent: &str) -> i32 {
        self.protocol_versions.get(agent).copied().unwrap_or(DEFAULT_PROTOCOL_VERSION)
    }
}

/// Items that are drawn in proportion to their weights.
#[derive(Debug)]
pub struct Weighted<T> {
    items: Vec<T>,
    /// The sum of the weights up to and including each item.
    cumulative: Vec<u64>,
}

impl<T> Weighted<T> {
    /// Draws an item; `None` if there is none.
    pub fn draw(&self, rng: &mut fastrand::Rng) -> Option<&T> {
        let total = *self.cumulative.last()?;
        let at = rng.u64(0..total);
        self.items.get(self.cumulative.partition_point(|sum| *sum <= at))
    }

    /// All items with their weights.
    pub fn iter(&self) -> impl Iterator<Item = (&T, u64)> {
        let before = std::iter::once(0).chain(self.cumulative.iter().copied());
        self.items.iter().zip(self.cumulative.iter().zip(before).map(|(sum, before)| sum - before))
    }
}

impl<T> FromIterator<(u64, T)> for Weighted<T> {
    fn from_iter<I: IntoIterator<Item = (u64, T)>>(rows: I) -> Self {
        let mut total = 0;
        let (cumulative, items) = rows
            .into_iter()
            .filter(|(weight, _)| *weight > 0)
            .map(|(weight, item)| {
                total += weight;
                (total, item)
            })
            .unzip();
        Self { items, cumulative }
    }
}

/// The buckets of `snapshot_heights.tsv`: `<=N` ends one, `>N` is the last, open one.
fn lag_buckets() -> Weighted<(i32, i32)> {
    let mut low = 0;
    let mut buckets = Vec::new();
    for row in rows(LAGS) {
        let (Some(name), Some(count)) = (row.text(0), row.number(1)) else { continue };
        if let Some(high) = name.strip_prefix("<=").and_then(|text| text.parse::<i32>().ok()) {
            buckets.push((count, (low, high)));
            low = high + 1;
        } else if name.starts_with('>') {
            buckets.push((count, (low, i32::MAX)));
        }
    }
    buckets.into_iter().collect()
}

#[derive(Clone, Copy)]
struct Row(&'static str);

impl Row {
    fn text(self, column: usize) -> Option<&'static str> {
        self.0.split('\t').nth(column)
    }

    fn number(self, column: usize) -> Option<u64> {
        self.text(column)?.parse().ok()
    }
}

fn rows(table: &'static str) -> impl Iterator<Item = Row> {
    table.lines().filter(|line| !line.starts_with('#') && !line.is_empty()).map(Row)
}

const AGENTS: &str = include_str!("../data/snapshot_agent_services_2026.tsv");
const PROTOCOL_VERSIONS: &str = include_str!("../data/user_agents.tsv");
const PORTS: &str = include_str!("../data/snapshot_ports.tsv");
const LAGS: &str = include_str!("../data/snapshot_heights.tsv");
const DEFAULT_PROTOCOL_VERSION: i32 = 70_016;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_row_of_the_tables_is_parsed() {
        let all = Distributions::load();
        assert_eq!(all.agents.iter().count(), rows(AGENTS).count());
        assert_eq!(all.agents.iter().map(|(_, weight)| weight).sum::<u64>(), 7162);
        assert_eq!(all.lags.iter().map(|(_, weight)| weight).sum::<u64>(), 7162);
        let used = rows(PORTS).filter(|row| row.number(1) != Some(0)).count();
        assert_eq!(all.ports.iter().count(), used);
        assert_eq!(all.protocol_version("/Satoshi:0.20.1/"), 70_015);
        assert_eq!(all.protocol_version("/GhostCore:1.0.0/"), 70_016);
    }

    #[test]
    fn draws_follow_the_weights() {
        let coins: Weighted<char> = [(3, 'a'), (0, 'b'), (1, 'c')].into_iter().collect();
        let mut rng = fastrand::Rng::with_seed(7);
        let drawn: Vec<char> = (0..4000).filter_map(|_| coins.draw(&mut rng).copied()).collect();
        let of_a = drawn.iter().filter(|item| **item == 'a').count();
        assert!((2800..3200).contains(&of_a), "{of_a}");
        assert!(!drawn.contains(&'b'));
        assert_eq!([].into_iter().collect::<Weighted<char>>().draw(&mut rng), None);
    }
}
