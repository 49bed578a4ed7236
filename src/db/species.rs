//! Applies the rules of species to the nodes that are known.
//!
//! Invariants:
//! 1. It is all or nothing, also beside a crawl: one transaction, which locks `nodes` first, as the
//!    crawler does.
//! 2. The history keeps what was written; a note says from when on nodes are counted by other
//!    rules.
//! 3. Rules are no events: TRB and named nodes that only they call otherwise are not reported.

use std::collections::BTreeMap;
use std::net::IpAddr;

use bitdash_core::lookup::species::{Lineage, Rules};
use postgres::fallible_iterator::FallibleIterator;
use postgres::{Client, Error, Transaction};

use super::StoreError;

/// What [`apply`] did.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Applied {
    /// Number of nodes.
    pub nodes: u64,
    /// The note in the history, if anything changed.
    pub note: Option<String>,
}

/// A node that the rules call otherwise.
struct Change {
    host: IpAddr,
    port: i32,
    before: String,
    after: Lineage,
}

/// The crawler waits meanwhile; so do we for its transaction.
const LOCK: &str = "SET LOCAL statement_timeout = 0; SET LOCAL lock_timeout = '60s';
    LOCK TABLE nodes IN SHARE ROW EXCLUSIVE MODE";

const NODES: &str =
    "SELECT host, port, species, release, user_agent, protocol_version, services FROM nodes";

const UPDATE: &str = "UPDATE nodes n SET species = u.species, release = u.release
    FROM unnest($1::inet[], $2::integer[], $3::text[], $4::text[]) u (host, port, species, release)
    WHERE n.host = u.host AND n.port = u.port";

/// A change that the pass has not reported yet stays one.
const UPDATE_WATCHED: &str = "UPDATE watched_nodes w SET species = u.species
    FROM unnest($1::inet[], $2::integer[], $3::text[], $4::text[]) u (host, port, species, before)
    WHERE w.host = u.host AND w.port = u.port AND w.species = u.before";

/// A node that is new in the running pass is reported as new.
const INSERT_WATCHED: &str = "INSERT INTO watched_nodes (host, port, status, species, user_agent)
    SELECT n.host, n.port, n.status, n.species, n.user_agent FROM nodes n
    WHERE n.species = 'TRB' AND (n.host, n.port) IN (SELECT * FROM unnest($1::inet[], $2::integer[]))
        AND NOT EXISTS (SELECT FROM passes p WHERE p.finished_at IS NULL AND p.started_at <= n.first_seen)
    ON CONFLICT DO NOTHING";

/// Maximum number of rows of one statement.
const MAX_ROWS: usize = 10_000;
/// Maximum number of kinds of changes that a note lists.
const MAX_LISTED: usize = 6;

/// Gives every node the species and the release of the rules, and writes a note into the history if
/// that changes any.
///
/// # Errors
/// Those of the connection; then nothing has changed.
pub fn apply(client: &mut Client, rules: &Rules) -> Result<Applied, StoreError> {
    let applied = apply_in(client, rules);
    applied.map_err(|error| StoreError::of_statement(&error, client.is_closed()))
}

fn apply_in(client: &mut Client, rules: &Rules) -> Result<Applied, Error> {
    let mut t = client.transaction()?;
    t.batch_execute(LOCK)?;
    let (nodes, changes) = changes(&mut t, rules)?;
    for changes in changes.chunks(MAX_ROWS) {
        write(&mut t, changes)?;
    }
    t.batch_execute(&comment(rules))?;
    let note = (!changes.is_empty()).then(|| note(nodes, &changes));
    if let Some(note) = &note {
        t.execute("INSERT INTO history_notes VALUES (clock_timestamp(), $1)", &[note])?;
    }
    t.commit()?;
    Ok(Applied { nodes, note })
}

/// The number of nodes, and those that change.
fn changes(t: &mut Transaction, rules: &Rules) -> Result<(u64, Vec<Change>), Error> {
    let (mut nodes, mut changes) = (0, Vec::new());
    let mut rows = t.query_raw(NODES, std::iter::empty::<i32>())?;
    while let Some(row) = rows.next()? {
        nodes += 1;
        let (before, release): (&str, Option<&str>) = (row.try_get(2)?, row.try_get(3)?);
        let services: i64 = row.try_get(6)?;
        let after = rules.classify(row.try_get(4)?, row.try_get(5)?, services.cast_unsigned());
        if (before, release) != (&*after.species, after.release.as_deref()) {
            let (host, port) = (row.try_get(0)?, row.try_get(1)?);
            changes.push(Change { host, port, before: before.to_owned(), after });
        }
    }
    Ok((nodes, changes))
}

fn write(t: &mut Transaction, changes: &[Change]) -> Result<(), Error> {
    let hosts: Vec<IpAddr> = changes.iter().map(|change| change.host).collect();
    let ports: Vec<i32> = changes.iter().map(|change| change.port).collect();
    let species: Vec<&str> = changes.iter().map(|change| &*change.after.species).collect();
    let releases: Vec<Option<&str>> =
        changes.iter().map(|change| change.after.release.as_deref()).collect();
    let before: Vec<&str> = changes.iter().map(|change| &*change.before).collect();
    t.execute(UPDATE, &[&hosts, &ports, &species, &releases])?;
    t.execute(UPDATE_WATCHED, &[&hosts, &ports, &species, &before])?;
    t.execute(INSERT_WATCHED, &[&hosts, &ports])?;
    Ok(())
}

fn note(nodes: u64, changes: &[Change]) -> String {
    let mut kinds: BTreeMap<(&str, &str), u64> = BTreeMap::new();
    for change in changes.iter().filter(|change| *change.before != *change.after.species) {
        *kinds.entry((&change.before, &change.after.species)).or_default() += 1;
    }
    let changed: u64 = kinds.values().sum();
    let mut kinds: Vec<_> = kinds.into_iter().collect();
    kinds.sort_by_key(|(words, count)| (std::cmp::Reverse(*count), *words));
    let left_out = kinds.len().saturating_sub(MAX_LISTED);
    let listed = kinds.iter().take(MAX_LISTED);
    let mut listed: Vec<String> =
        listed.map(|((before, after), count)| format!("{before} to {after} {count}")).collect();
    if left_out > 0 {
        listed.push(format!("{left_out} more"));
    }
    let listed =
        if listed.is_empty() { String::new() } else { format!(" ({})", listed.join(", ")) };
    let releases = match changes.len() as u64 - changed {
        0 => String::new(),
        releases => format!(", {releases} another release"),
    };
    format!(
        "species rules changed: {changed} of {nodes} nodes got another species{listed}{releases}"
    )
}

/// The comment of the column explains the words.
fn comment(rules: &Rules) -> String {
    let text = column_comment(rules).replace('\'', "''");
    format!("COMMENT ON COLUMN nodes.species IS '{text}'")
}

/// The comment of `nodes.species` under these rules.
pub fn column_comment(rules: &Rules) -> String {
    let words = rules.species().iter().map(|known| format!("{}: {}.", known.word, known.meaning));
    let words: Vec<String> = words.collect();
    format!("The lineage of the software, by the rules of species.toml. {}", words.join(" "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::schema::MIGRATIONS;

    #[test]
    fn the_schema_explains_the_built_in_species() {
        let comment = comment(&Rules::builtin()).replace("nodes.species", "public.nodes.species");
        let newest = MIGRATIONS.iter().rev().find(|file| file.sql().contains(COMMENT)).unwrap();
        assert!(newest.sql().contains(&comment), "{}: missing: {comment}", newest.name);
    }

    const COMMENT: &str = "COMMENT ON COLUMN public.nodes.species IS";
}
