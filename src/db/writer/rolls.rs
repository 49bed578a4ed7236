//! Rolls: which nodes answered, one bit per node and pass; one byte per node and closed day.
//!
//! Invariants:
//! 1. A bit is set for a node that was up, or full, at the end of the pass.
//! 2. A pass during which the uplink was down has no roll: it counts for no node.
//! 3. The totals hold exactly the passes of closed days.

use postgres::{Error, Transaction};

use crate::db::timestamp::Timestamp;

/// Nodes that are new get the next ordinals.
const ORDINALS: &str = "INSERT INTO node_ordinals
    SELECT n.host, n.port, (SELECT coalesce(max(ordinal), -1) FROM node_ordinals)
        + row_number() OVER (ORDER BY n.first_seen, n.host, n.port)
    FROM nodes n WHERE NOT EXISTS (
        SELECT FROM node_ordinals o WHERE o.host = n.host AND o.port = n.port)";

/// A node that is overdue by a week was excluded since, as in the history.
const ANSWERED: &str = "SELECT o.ordinal, n.status = 'up'
    FROM nodes n JOIN node_ordinals o ON o.host = n.host AND o.port = n.port
        JOIN passes s ON s.pass = $1
    WHERE n.status IN ('up', 'full') AND n.next_probe > s.started_at - interval '7 days'";

/// Writes the roll of a pass.
pub(super) fn write(t: &mut Transaction, pass: i64) -> Result<(), Error> {
    t.execute(ORDINALS, &[])?;
    let count = "SELECT coalesce(max(ordinal), -1) + 1 FROM node_ordinals";
    let nodes: i32 = t.query_one(count, &[])?.try_get(0)?;
    let bytes = usize::try_from(nodes).unwrap_or(0).div_ceil(8);
    let (mut up, mut full) = (vec![0_u8; bytes], vec![0_u8; bytes]);
    for row in t.query(ANSWERED, &[&pass])? {
        let ordinal = usize::try_from(row.try_get::<_, i32>(0)?).unwrap_or(usize::MAX);
        let bits = if row.try_get(1)? { &mut up } else { &mut full };
        if let Some(byte) = bits.get_mut(ordinal / 8) {
            *byte |= 1 << (ordinal % 8);
        }
    }
    t.execute(
        "INSERT INTO rolls (pass, at, nodes, up, \"full\")
            SELECT pass, finished_at, $2, $3, $4 FROM passes WHERE pass = $1
        ON CONFLICT (pass) DO UPDATE SET at = excluded.at, nodes = excluded.nodes, up = excluded.up,
            \"full\" = excluded.\"full\"",
        &[&pass, &nodes, &up, &full],
    )?;
    Ok(())
}

/// Passes of a node: those in which it answered or was full, and all since it is known.
#[derive(Clone, Copy, Default, PartialEq, Eq, Debug)]
struct Answered {
    answered: i32,
    passes: i32,
}

/// The share of a day for a node that was none.
const UNKNOWN: u8 = 255;
/// The share of a day for a node that answered in every pass.
const WHOLE: i32 = 250;

impl Answered {
    fn share(self) -> u8 {
        if self.passes == 0 {
            return UNKNOWN;
        }
        // Rounded down: only a node that answered in every pass has the whole.
        let share = i64::from(self.answered) * i64::from(WHOLE) / i64::from(self.passes);
        u8::try_from(share).unwrap_or(UNKNOWN)
    }

    /// A day that is closed a second time, since the clock was set, has kept shares only.
    fn with_share(self, share: u8, passes: i32) -> Self {
        if share == UNKNOWN {
            return self;
        }
        let answered = i32::from(share).saturating_mul(passes) / WHOLE;
        Self { answered: self.answered + answered, passes: self.passes + passes }
    }
}

/// Adds the rolls of the passes of a closed day to the day and to the totals, and removes old ones.
pub(super) fn close(
    t: &mut Transaction,
    day: Timestamp,
    first: i64,
    last: i64,
) -> Result<(), Error> {
    let rolls = "SELECT nodes, up, \"full\" FROM rolls WHERE pass BETWEEN $1 AND $2";
    let (mut counts, mut passes) = (Vec::new(), 0);
    for row in t.query(rolls, &[&first, &last])? {
        count(&mut counts, row.try_get(0)?, row.try_get(1)?, row.try_get(2)?);
        passes += 1;
    }
    if passes > 0 {
        add_to_totals(t, &counts)?;
        add_to_day(t, day, passes, counts)?;
    }
    let old = "DELETE FROM rolls WHERE pass <= $1
        AND at < (SELECT history_passes_from FROM store_state)";
    t.execute(old, &[&last])?;
    Ok(())
}

fn count(counts: &mut Vec<Answered>, nodes: i32, up: &[u8], full: &[u8]) {
    let nodes = usize::try_from(nodes).unwrap_or(0);
    if counts.len() < nodes {
        counts.resize(nodes, Answered::default());
    }
    let bit =
        |bits: &[u8], at: usize| bits.get(at / 8).is_some_and(|byte| byte >> (at % 8) & 1 == 1);
    for (ordinal, node) in counts.iter_mut().enumerate().take(nodes) {
        node.passes += 1;
        node.answered += i32::from(bit(up, ordinal) || bit(full, ordinal));
    }
}

fn add_to_totals(t: &mut Transaction, counts: &[Answered]) -> Result<(), Error> {
    let (mut answered, mut passes): (Vec<i32>, Vec<i32>) = (Vec::new(), Vec::new());
    if let Some(row) = t.query_opt("SELECT answered, passes FROM roll_totals", &[])? {
        (answered, passes) = (row.try_get(0)?, row.try_get(1)?);
    }
    let nodes = counts.len().max(answered.len());
    answered.resize(nodes, 0);
    passes.resize(nodes, 0);
    for (ordinal, node) in counts.iter().enumerate() {
        answered[ordinal] = answered[ordinal].saturating_add(node.answered);
        passes[ordinal] = passes[ordinal].saturating_add(node.passes);
    }
    t.execute(
        "INSERT INTO roll_totals (answered, passes) VALUES ($1, $2)
        ON CONFLICT (only_row) DO UPDATE SET answered = excluded.answered, passes = excluded.passes",
        &[&answered, &passes],
    )?;
    Ok(())
}

fn add_to_day(
    t: &mut Transaction,
    day: Timestamp,
    passes: i32,
    mut counts: Vec<Answered>,
) -> Result<(), Error> {
    let before = "SELECT passes, share FROM roll_days WHERE day = $1";
    let mut all = passes;
    if let Some(row) = t.query_opt(before, &[&day])? {
        let (passes, shares): (i32, &[u8]) = (row.try_get(0)?, row.try_get(1)?);
        all += passes;
        if counts.len() < shares.len() {
            counts.resize(shares.len(), Answered::default());
        }
        for (node, share) in counts.iter_mut().zip(shares) {
            *node = node.with_share(*share, passes);
        }
    }
    let shares: Vec<u8> = counts.iter().map(|node| node.share()).collect();
    t.execute(
        "INSERT INTO roll_days (day, passes, share) VALUES ($1, $2, $3)
        ON CONFLICT (day) DO UPDATE SET passes = excluded.passes, share = excluded.share",
        &[&day, &all, &shares],
    )?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bit_counts_for_the_nodes_that_were_known() {
        let mut counts = Vec::new();
        count(&mut counts, 3, &[0b001], &[0b100]);
        count(&mut counts, 10, &[0b0000_0001, 0b10], &[0, 0]);
        let of = |answered, passes| Answered { answered, passes };
        assert_eq!(counts[..4], [of(2, 2), of(0, 2), of(1, 2), of(0, 1)]);
        assert_eq!((counts.len(), counts[9]), (10, of(1, 1)));
    }

    #[test]
    fn only_a_node_that_answered_always_has_the_whole_share() {
        let share = |answered, passes| Answered { answered, passes }.share();
        assert_eq!([share(0, 0), share(0, 9), share(144, 144)], [255, 0, 250]);
        assert_eq!(share(143, 144), 248);
        assert_eq!(share(9_999_999, 10_000_000), 249);
    }
}
