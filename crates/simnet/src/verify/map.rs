//! `Map`: what the crawler recorded, read from the database or from the batches of a simulation.

use std::collections::BTreeMap;

use super::truth::NodeFields;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::rows::{Batch, NodeRow};
use postgres::{Client, IsolationLevel, NoTls};

/// What the crawler recorded.
#[derive(Clone, Default, Debug)]
pub struct Map {
    pub(super) entries: BTreeMap<Address, Entry>,
}

/// What the crawler recorded of one address.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Entry {
    /// The fields of a node; `None` for a candidate.
    pub fields: Option<NodeFields>,
    /// How the last probe ended; `None` if there was none.
    pub outcome: Option<Outcome>,
    /// Failures in a row.
    pub failures: u32,
}

impl Map {
    /// Reads the public relations of a crawler's database.
    ///
    /// # Errors
    ///
    /// Those of PostgreSQL.
    pub fn read(url: &str) -> Result<Self, postgres::Error> {
        let mut client = Client::connect(url, NoTls)?;
        let transaction = client.build_transaction();
        let transaction = transaction.isolation_level(IsolationLevel::RepeatableRead);
        let mut transaction = transaction.read_only(true).start()?;
        transaction.batch_execute(LOCK)?;
        let mut map = Self::default();
        for row in transaction.query(NODES, &[])? {
            let fields = NodeFields {
                protocol_version: row.try_get("protocol_version")?,
                user_agent: row.try_get("user_agent")?,
                services: row.try_get("services")?,
                start_height: row.try_get("start_height")?,
                relay: row.try_get("relay")?,
                species: row.try_get("species")?,
                release: row.try_get("release")?,
            };
            map.insert(&row, Some(fields))?;
        }
        for row in transaction.query(CANDIDATES, &[])? {
            map.insert(&row, None)?;
        }
        Ok(map)
    }

    fn insert(
        &mut self,
        row: &postgres::Row,
        fields: Option<NodeFields>,
    ) -> Result<(), postgres::Error> {
        let (host, port): (&str, i32) = (row.try_get("host")?, row.try_get("port")?);
        let outcome: Option<&str> = row.try_get("last_outcome")?;
        let failures: i32 = row.try_get("failures")?;
        let address = format!("{host}:{port}").parse().expect("the database holds addresses");
        let outcome = outcome.map(|word| word.parse().expect("the database holds outcomes"));
        self.entries.insert(address, Entry { fields, outcome, failures: failures as u32 });
        Ok(())
    }

    /// What a database holds after these batches.
    pub fn of_batches<'a>(batches: impl IntoIterator<Item = &'a Batch>) -> Self {
        let mut map = Self::default();
        for batch in batches {
            for (address, row) in &batch.failed {
                map.record_failure(*address, row.last_outcome, row.failures);
            }
            for (address, row) in &batch.nodes {
                map.record_node(*address, row);
            }
        }
        map
    }

    /// Records a node; without a `version` in the row its fields stay as they were.
    pub(crate) fn record_node(&mut self, address: Address, row: &NodeRow) {
        let old = self.entries.remove(&address).and_then(|entry| entry.fields);
        let fields = row.seen.as_ref().map(NodeFields::of_seen).or(old);
        let (outcome, failures) = (Some(row.last_outcome), row.failures);
        self.entries.insert(address, Entry { fields, outcome, failures });
    }

    /// Records a candidate that failed.
    pub(crate) fn record_failure(&mut self, address: Address, outcome: Outcome, failures: u32) {
        let entry = Entry { fields: None, outcome: Some(outcome), failures };
        self.entries.insert(address, entry);
    }

    /// What was recorded of an address.
    pub fn get(&self, address: Address) -> Option<&Entry> {
        self.entries.get(&address)
    }
}

/// Compaction truncates tables for older snapshots too: lock before the snapshot is taken.
const LOCK: &str = "LOCK TABLE nodes, candidates IN ACCESS SHARE MODE";
const NODES: &str = "SELECT host(host) AS host, port::integer, protocol_version::integer, user_agent, \
    services::bigint, start_height::integer, relay, species, release, last_outcome, failures::integer FROM nodes";
const CANDIDATES: &str =
    "SELECT host(host) AS host, port::integer, last_outcome, failures::integer FROM candidates";
