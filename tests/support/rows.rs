//! Rows as the crawler makes them, with times that reveal rounding.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::time::Duration;

use bitdash::db::writer::{CompactionParams, CompactionReport, Store};
use bitdash_core::lookup::species::{Lineage, Rules};
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::rows::{
    Batch, FailedRow, HeardRow, Known, LastPass, NodeRow, PassRow, ProbeRow, Seen, SourceRow,
    Status,
};
use bitdash_core::vocabulary::target::VersionInfo;
use bitdash_core::vocabulary::time::UnixTime;

use super::Database;

pub const T0: i64 = 1_790_000_000;

/// A time of the test: seconds after its start, and a fraction that reveals rounding.
pub fn at(seconds: i64) -> UnixTime {
    UnixTime::from_micros((T0 + seconds) * 1_000_000 + 123_457)
}

/// The same time as the database stores it for candidates: whole seconds.
pub fn whole(seconds: i64) -> UnixTime {
    UnixTime::from_secs(T0 + seconds)
}

pub fn address(last: u8) -> Address {
    Address::new(Ipv4Addr::new(127, 0, 0, last), 8333)
}

pub fn heard(seconds: i64) -> HeardRow {
    HeardRow { at: at(seconds), next_probe: at(seconds), source: 0 }
}

pub fn failed(failures: u32, seconds: i64) -> FailedRow {
    FailedRow {
        failures,
        last_probed: at(seconds),
        last_outcome: Outcome::ConnectTimeout,
        next_probe: at(seconds + 3600),
    }
}

pub fn version() -> VersionInfo {
    VersionInfo {
        protocol_version: 70016,
        services: 1 << 63 | 0x409,
        timestamp: T0,
        user_agent: Some("/Satoshi:27.0.0/\\\\ \\x09".to_owned()),
        start_height: Some(860_000),
        relay: Some(true),
    }
}

/// A species, with the release that the built-in rules read from the user agent.
pub fn lineage(species: &str, user_agent: Option<&str>) -> Lineage {
    let release = Rules::builtin().release(species, user_agent);
    Lineage { species: species.into(), release }
}

/// A node that responded.
pub fn up(seconds: i64, version: VersionInfo) -> NodeRow {
    NodeRow {
        status: Status::Up,
        last_probed: at(seconds),
        last_outcome: Outcome::Responded,
        failures: 0,
        next_probe: at(seconds + 60),
        seen: Some(Seen {
            at: at(seconds),
            lineage: lineage("Core", version.user_agent.as_deref()),
            version,
            connect_ms: Some(31),
            version_ms: Some(52),
        }),
        peers: Some((at(seconds), 1000)),
    }
}

/// A node that did not respond.
pub fn down(seconds: i64, failures: u32) -> NodeRow {
    NodeRow {
        status: Status::Down,
        last_probed: at(seconds),
        last_outcome: Outcome::Refused,
        failures,
        next_probe: at(seconds + 600),
        seen: None,
        peers: None,
    }
}

pub fn probe(last: u8, pass: u64) -> ProbeRow {
    ProbeRow {
        address: address(last),
        pass,
        probed_at: at(pass as i64),
        outcome: Outcome::Responded,
        version: Some(version()),
        connect_ms: Some(1),
        version_ms: None,
        peers_sent: Some(0),
    }
}

pub fn ready(database: &Database) -> Store {
    let mut store = Store::connect(&database.url).unwrap();
    store.migrate().unwrap();
    store
}

pub fn load(store: &mut Store) -> (BTreeMap<Address, Known>, LastPass) {
    let mut all = BTreeMap::new();
    let last = store
        .load(&mut |known| {
            assert!(all.insert(known.address, known).is_none(), "{} twice", known.address);
        })
        .unwrap();
    (all, last)
}

/// Everything that a batch can change, as text.
pub fn snapshot(database: &Database) -> Vec<String> {
    let mut all = Vec::new();
    for table in ["nodes", "candidates", "probes", "sources", "passes", "history"] {
        all.extend(database.rows(&format!("SELECT '{table}', t::text FROM {table} t ORDER BY 2")));
    }
    all
}

/// Compacts every relation that has a journal, at any time, and expires no candidate.
pub fn compact(store: &mut Store) -> Vec<CompactionReport> {
    let params = CompactionParams {
        interval: Duration::ZERO,
        min_percent: 0,
        ..CompactionParams::default()
    };
    std::iter::from_fn(|| store.compact_if_due(at(0), &params).unwrap()).collect()
}

/// A batch with rows of every kind.
pub fn rich_batch() -> Batch {
    let mut batch = Batch::default();
    for last in 1..=6 {
        batch.heard.insert(address(last), heard(1));
    }
    batch.failed.insert(address(1), failed(1, 5));
    batch.nodes.insert(address(2), up(6, version()));
    batch.nodes.insert(address(3), up(7, VersionInfo { user_agent: None, ..version() }));
    batch.probes = vec![probe(2, 1), probe(3, 1)];
    batch.passes.insert(
        1,
        PassRow { started_at: at(0), finished_at: Some(at(9)), probed: 3, ..PassRow::default() },
    );
    batch.names = Some([(address(3), "Pizarro".to_owned())].into());
    batch.sources.insert(0x7f00, SourceRow { tried: 3, answered: 2 });
    batch
}
