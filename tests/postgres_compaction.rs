//! Compaction against a real PostgreSQL: readers see no difference, even after a crash.

#![allow(clippy::disallowed_methods)] // a test waits for a server

mod support;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use bitdash::db::writer::{CompactionParams, Store};
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::rows::{Batch, HeardRow, NodeRow, ProbeRow, SourceRow, Status};
use bitdash_core::vocabulary::target::VersionInfo;
use support::rows::*;
use support::{Cluster, Database};

/// first_heard, last_heard, source, failures, last_probed, outcome, next_probe
type ModelAddress = (i64, i64, u16, u32, Option<i64>, Option<Outcome>, i64);

/// What the contract's relations should show, kept the naive way.
#[derive(Default)]
struct Model {
    addresses: BTreeMap<Address, ModelAddress>,
    nodes: BTreeMap<Address, ModelNode>,
    probes: BTreeMap<(Address, u64), ProbeRow>,
    sources: BTreeMap<u16, SourceRow>,
    names: BTreeMap<Address, String>,
}

#[derive(Clone)]
struct ModelNode {
    first_seen: i64,
    row: NodeRow,
}

impl Model {
    fn write(&mut self, batch: &Batch) {
        for (address, row) in &batch.heard {
            let (at, next) = (row.at.as_secs(), row.next_probe.as_secs());
            let entry = (at, at, row.source, 0, None, None, next);
            let known = self.addresses.entry(*address).or_insert(entry);
            (known.1, known.2) = (known.1.max(at), row.source);
        }
        for (address, row) in &batch.failed {
            if let Some(known) = self.addresses.get_mut(address) {
                known.3 = row.failures;
                known.4 = Some(row.last_probed.as_secs());
                known.5 = Some(row.last_outcome);
                known.6 = row.next_probe.as_secs();
            }
        }
        for (address, row) in &batch.nodes {
            let old = self.nodes.remove(address);
            let Some(first_seen) = old
                .as_ref()
                .map(|old| old.first_seen)
                .or(row.seen.as_ref().map(|s| s.at.as_micros()))
            else {
                continue;
            };
            let (seen, peers) = old.map_or((None, None), |old| (old.row.seen, old.row.peers));
            let row = row.clone();
            let row = NodeRow { seen: row.seen.or(seen), peers: row.peers.or(peers), ..row };
            self.nodes.insert(*address, ModelNode { first_seen, row });
        }
        for probe in &batch.probes {
            self.probes.entry((probe.address, probe.pass)).or_insert_with(|| probe.clone());
        }
        self.sources.extend(batch.sources.clone());
        if let Some(names) = &batch.names {
            self.names = names.clone();
        }
        for address in &batch.forgotten {
            self.addresses.remove(address);
        }
    }

    fn addresses(&self) -> Vec<String> {
        let mut keys: Vec<Address> = self.addresses.keys().copied().collect();
        keys.extend(self.nodes.keys().filter(|key| !self.addresses.contains_key(key)));
        keys.sort();
        let line = |address: Address| {
            let node = self.nodes.get(&address);
            let seen = node.map(|node| node.first_seen.div_euclid(1_000_000));
            let known = self.addresses.get(&address);
            let (first, last) = known.map_or((seen, seen), |k| (Some(k.0), Some(k.1)));
            let state = match (node, known) {
                (Some(node), _) => (
                    node.row.failures,
                    Some(node.row.last_probed.as_secs()),
                    Some(node.row.last_outcome),
                    node.row.next_probe.as_secs(),
                ),
                (None, Some(k)) => (k.3, k.4, k.5, k.6),
                (None, None) => unreachable!(),
            };
            let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            format!(
                "{address}|{}|{}|{}|{}|{}|{}",
                text(first.map(|v| v.to_string())),
                text(last.map(|v| v.to_string())),
                state.0,
                text(state.1.map(|v| v.to_string())),
                text(state.2.map(|v| v.to_string())),
                state.3
            )
        };
        keys.into_iter().map(line).collect()
    }

    fn nodes(&self) -> Vec<String> {
        let line = |(address, node): (&Address, &ModelNode)| {
            let seen = node.row.seen.as_ref().unwrap();
            let text = |value: Option<String>| value.unwrap_or_else(|| "-".to_owned());
            format!(
                "{address}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}|{}",
                text(self.names.get(address).cloned()),
                node.row.status.as_str(),
                node.first_seen,
                seen.at.as_micros(),
                seen.lineage.species,
                seen.version.protocol_version,
                text(seen.version.user_agent.clone()),
                text(seen.version.start_height.map(|v| v.to_string())),
                text(seen.connect_ms.map(|v| v.to_string())),
                text(node.row.peers.map(|(at, _)| at.as_micros().to_string())),
                text(node.row.peers.map(|(_, sent)| sent.to_string())),
            )
        };
        self.nodes.iter().map(line).collect()
    }

    fn probes(&self, kept: usize) -> Vec<String> {
        let mut by_node: BTreeMap<Address, Vec<&ProbeRow>> = BTreeMap::new();
        for ((address, _), probe) in self.probes.iter().rev() {
            by_node.entry(*address).or_default().push(probe);
        }
        let newest = by_node.values().flat_map(|probes| probes.iter().take(kept));
        newest
            .map(|p| {
                let height = p.version.as_ref().and_then(|v| v.start_height);
                let height = height.map_or("-".to_owned(), |v| v.to_string());
                format!(
                    "{}|{}|{}|{}|{height}",
                    p.address,
                    p.pass,
                    p.probed_at.as_micros(),
                    p.outcome
                )
            })
            .collect()
    }
}

const ADDRESSES: &str = "SELECT host(host) || ':' || port, floor(extract(epoch FROM first_heard))::bigint,
    floor(extract(epoch FROM last_heard))::bigint, failures, floor(extract(epoch FROM last_probed))::bigint,
    last_outcome, floor(extract(epoch FROM next_probe))::bigint FROM addresses ORDER BY host, port";
const NODES: &str = "SELECT host(host) || ':' || port, name, status,
    round(extract(epoch FROM first_seen)::numeric * 1000000), round(extract(epoch FROM last_seen)::numeric * 1000000),
    species, protocol_version, user_agent, start_height, connect_ms,
    round(extract(epoch FROM peers_asked_at)::numeric * 1000000), peers_sent FROM nodes ORDER BY host, port";
const PROBES: &str = "SELECT host(host) || ':' || port, pass, round(extract(epoch FROM probed_at)::numeric * 1000000),
    outcome, start_height FROM probes ORDER BY host, port, pass DESC";

fn random_address(rng: &mut fastrand::Rng) -> Address {
    Address::new(Ipv4Addr::new(rng.u8(120..135), 0, rng.u8(0..3), rng.u8(..)), rng.u16(1..4))
}

fn random_probe(rng: &mut fastrand::Rng, address: Address, pass: u64, second: i64) -> ProbeRow {
    let responded = rng.bool();
    ProbeRow {
        address,
        pass,
        probed_at: at(second),
        outcome: if responded {
            Outcome::Responded
        } else {
            rng.choice(&Outcome::ALL[1..]).copied().unwrap()
        },
        version: responded.then(|| VersionInfo {
            protocol_version: rng.i32(..),
            user_agent: rng.bool().then(|| format!("/x:{}/", rng.u8(..))),
            start_height: rng.bool().then(|| rng.i32(..)),
            relay: [None, Some(false), Some(true)][rng.usize(0..3)],
            services: rng.u64(..),
            timestamp: 0,
        }),
        connect_ms: rng.bool().then(|| rng.u32(..9999)),
        version_ms: (responded && rng.bool()).then(|| rng.u32(..9999)),
        peers_sent: (responded && rng.bool()).then(|| rng.u32(..9999)),
    }
}

/// A batch like the recorder's: failures of known candidates, results of nodes, several of one
/// node.
fn random_batch(rng: &mut fastrand::Rng, model: &Model, pass: &mut u64, second: i64) -> Batch {
    let mut batch = Batch::default();
    for _ in 0..rng.usize(0..60) {
        let row = HeardRow { source: rng.u16(..), ..heard(second + rng.i64(-30..30)) };
        batch.heard.insert(random_address(rng), row);
    }
    let is_candidate = |address: &Address| !model.nodes.contains_key(address);
    let candidates: Vec<Address> =
        model.addresses.keys().chain(batch.heard.keys()).copied().filter(is_candidate).collect();
    for _ in 0..rng.usize(0..40) {
        let Some(address) = rng.choice(&candidates) else { break };
        batch.failed.insert(*address, failed(rng.u32(1..9), second + rng.i64(-30..30)));
    }
    for _ in 0..rng.usize(0..30) {
        let known: Vec<Address> = model.nodes.keys().copied().collect();
        let address = match rng.choice(&known) {
            Some(address) if rng.u8(..) < 200 => *address,
            _ => random_address(rng),
        };
        push_results(rng, model, &mut batch, address, pass, second);
    }
    for _ in 0..rng.usize(0..5) {
        let Some(address) = rng.choice(&candidates) else { break };
        let is_free = !batch.heard.contains_key(address) && !batch.failed.contains_key(address);
        if is_free && !batch.nodes.contains_key(address) {
            batch.forgotten.insert(*address);
        }
    }
    for _ in 0..rng.usize(0..5) {
        batch.sources.insert(
            rng.u16(..8) * 8191,
            SourceRow { tried: rng.u32(10..20), answered: rng.u32(..10) },
        );
    }
    if rng.u8(..) < 60 {
        let nodes = model.nodes.keys().filter(|_| rng.u8(..) < 20);
        batch.names = Some(nodes.map(|address| (*address, format!("n{address}"))).collect());
    }
    batch
}

/// One or two results of a node, and its state after them.
fn push_results(
    rng: &mut fastrand::Rng,
    model: &Model,
    batch: &mut Batch,
    address: Address,
    pass: &mut u64,
    second: i64,
) {
    let mut node = batch.nodes.get(&address).cloned();
    for _ in 0..rng.usize(1..3) {
        *pass += 1;
        let second = second + rng.i64(-30..30);
        let probe = random_probe(rng, address, *pass, second);
        let is_known = model.nodes.contains_key(&address) || node.is_some();
        if !is_known && probe.version.is_none() {
            continue;
        }
        let is_up = probe.version.is_some();
        let full = probe.outcome == Outcome::Closed && rng.bool();
        let mut row = match &probe.version {
            Some(version) => up(0, version.clone()),
            None => down(0, rng.u32(1..9)),
        };
        (row.last_probed, row.last_outcome) = (probe.probed_at, probe.outcome);
        row.status = if is_up {
            Status::Up
        } else if full {
            Status::Full
        } else {
            Status::Down
        };
        row.peers = probe.peers_sent.map(|sent| (probe.probed_at, sent));
        if let Some(seen) = &mut row.seen {
            (seen.at, seen.connect_ms, seen.version_ms) =
                (probe.probed_at, probe.connect_ms, probe.version_ms);
        }
        let (seen, peers) = node.take().map_or((None, None), |old| (old.seen, old.peers));
        node = Some(NodeRow { seen: row.seen.or(seen), peers: row.peers.or(peers), ..row });
        batch.probes.push(probe);
    }
    batch.failed.remove(&address);
    batch.nodes.extend(node.map(|node| (address, node)));
}

fn check(database: &Database, store: &mut Store, model: &Model, kept: usize, what: &str) {
    assert_eq!(database.rows(ADDRESSES), model.addresses(), "addresses {what}");
    assert_eq!(database.rows(NODES), model.nodes(), "nodes {what}");
    assert_eq!(database.rows(PROBES), model.probes(kept), "probes {what}");
    let mut sources = BTreeMap::new();
    store.load_sources(&mut |source, row| assert!(sources.insert(source, row).is_none())).unwrap();
    assert_eq!(sources, model.sources, "sources {what}");

    let (known, _) = load(store);
    let seconds = "SELECT host(host) || ':' || port, floor(extract(epoch FROM last_heard))::bigint, failures,
        last_outcome, floor(extract(epoch FROM next_probe))::bigint FROM addresses ORDER BY host, port";
    let loaded: Vec<String> = known
        .values()
        .map(|k| {
            let outcome = k.last_outcome.map_or("-".to_owned(), |outcome| outcome.to_string());
            let (heard, next) = (k.last_heard.as_secs(), k.next_probe.as_secs());
            format!("{}|{heard}|{}|{outcome}|{next}", k.address, k.failures)
        })
        .collect();
    assert_eq!(loaded, database.rows(seconds), "loaded {what}");
    for (address, known) in known {
        let node = model.nodes.get(&address);
        assert_eq!(
            known.node.map(|node| node.last_seen),
            node.map(|n| n.row.seen.as_ref().unwrap().at)
        );
        if node.is_none() {
            assert_eq!(known.source, model.addresses[&address].2);
        }
    }
}

#[test]
fn journal_and_base_are_what_a_naive_model_holds() {
    let seed = std::env::var("BITDASH_SEED").ok().and_then(|text| text.parse().ok()).unwrap_or(7);
    let mut rng = fastrand::Rng::with_seed(seed);
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let (mut model, mut pass) = (Model::default(), 0);
    for step in 0..80 {
        let batch = random_batch(&mut rng, &model, &mut pass, step * 100);
        store.write(&batch, 5).unwrap();
        model.write(&batch);
        if rng.u8(..) < 40 {
            store.write(&batch, 5).unwrap(); // the reply to COMMIT was lost
        }
        let compacts = rng.u8(..) < 60;
        if compacts {
            compact(&mut store);
        }
        if compacts || step % 8 == 0 {
            check(
                &database,
                &mut store,
                &model,
                5,
                &format!("seed={seed} step={step} compacts={compacts}"),
            );
        }
    }
    assert!(model.nodes.len() > 50 && model.addresses.len() > 500);
}

#[test]
fn a_compaction_changes_nothing_that_readers_see() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    assert_eq!(compact(&mut store), [], "there is something to compact");
    store.write(&rich_batch(), 25).unwrap();
    let before = snapshot(&database);
    let reports: Vec<String> = compact(&mut store).iter().map(ToString::to_string).collect();
    assert_eq!(reports, ["relation=addresses rows=6", "relation=probes rows=2"]);
    assert_eq!(snapshot(&database), before);
    for journal in ["address_journal", "probe_journal", "source_journal"] {
        assert_eq!(
            database.value(&format!("SELECT count(*) FROM bitdash_internal.{journal}")),
            "0"
        );
    }
    assert_eq!(compact(&mut store), [], "nothing came since");
    store.write(&rich_batch(), 25).unwrap();
    assert_eq!(snapshot(&database), before, "the same batch once more");
    assert_ne!(compact(&mut store), []);
    assert_eq!(snapshot(&database), before);
}

#[test]
fn a_compaction_is_due_after_a_day_or_when_the_clock_went_back() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut compacted_at = |seconds: i64| {
        store.write(&rich_batch(), 25).unwrap();
        let next = || store.compact_if_due(at(seconds), &CompactionParams::default()).unwrap();
        std::iter::from_fn(next).count()
    };
    const DAY: i64 = 86_400;
    assert_eq!(compacted_at(0), 2, "the first one");
    assert_eq!(compacted_at(DAY / 2), 0);
    assert_eq!(compacted_at(DAY), 1, "addresses");
    assert_eq!(compacted_at(DAY + 1800), 0);
    assert_eq!(compacted_at(2 * DAY), 2, "addresses and probes");
    assert_eq!(compacted_at(-900 * DAY), 2, "a clock without a battery");
    assert_eq!(compacted_at(0), 2);
}

#[test]
fn a_large_base_is_not_rewritten_for_a_small_journal() {
    let database = Cluster::shared().database();
    let mut store = filled(&database);
    compact(&mut store);
    store.write(&Batch { probes: Vec::new(), ..rich_batch() }, 25).unwrap();
    let mut compact_at = |percent| {
        let params = CompactionParams { min_percent: percent, ..CompactionParams::default() };
        store.compact_if_due(at(2 * 86_400), &params).unwrap().map(|report| report.relation)
    };
    // A base of 2 MB; the journals hold a page each.
    assert_eq!(compact_at(75), None);
    assert_eq!(compact_at(1), Some("addresses"));
}

#[test]
fn a_candidate_not_heard_of_for_thirty_days_expires_a_node_never() {
    const DAY: i64 = 86_400;
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = rich_batch();
    batch.nodes.insert(address(6), up(0, version()));
    store.write(&batch, 25).unwrap();
    let hosts =
        "SELECT string_agg(split_part(host(host), '.', 4), ' ' ORDER BY host) FROM addresses";
    let mut compact_at = |heard_of: Option<(u8, i64)>, now: i64| {
        let mut batch = Batch::default();
        batch.failed.insert(address(1), failed(2, now));
        if let Some((last, second)) = heard_of {
            batch.heard.insert(address(last), heard(second));
        }
        store.write(&batch, 25).unwrap();
        store.compact_if_due(at(now), &CompactionParams::default()).unwrap().unwrap();
        database.value(hosts)
    };
    assert_eq!(compact_at(Some((4, 29 * DAY)), 29 * DAY), "1 2 3 4 5 6");
    assert_eq!(compact_at(None, 400 * DAY), "1 2 3 4 5 6", "no gossip was received");
    assert_eq!(compact_at(Some((5, 10 * DAY)), 4000 * DAY), "1 2 3 4 5 6", "the clock jumped");
    assert_eq!(compact_at(Some((5, 5000 * DAY)), 31 * DAY), "2 3 4 5 6", "a time in the future");
    let node = "SELECT first_heard < now() FROM addresses WHERE host = '127.0.0.6'";
    assert_eq!(database.value(node), "t");
}

#[test]
fn a_compaction_expires_nothing_for_a_day_after_the_clock_was_set() {
    const DAY: i64 = 86_400;
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    store.write(&rich_batch(), 25).unwrap();
    let hosts =
        "SELECT string_agg(split_part(host(host), '.', 4), ' ' ORDER BY host) FROM addresses";
    let mut compact_at = |forgets_from: Option<i64>, now: i64, heard_of: &[(u8, i64)]| {
        let mut batch = Batch { forgets_from: forgets_from.map(at), ..Batch::default() };
        batch.heard.extend(heard_of.iter().map(|&(last, second)| (address(last), heard(second))));
        batch.heard.insert(address(4), heard(now));
        store.write(&batch, 25).unwrap();
        store.compact_if_due(at(now), &EAGER).unwrap().unwrap();
        database.value(hosts)
    };
    assert_eq!(compact_at(Some(101 * DAY), 100 * DAY, &[]), "1 2 3 4 5 6", "it was set just now");
    assert_eq!(compact_at(None, 101 * DAY - 1, &[]), "1 2 3 4 5 6", "a day less a second later");
    assert_eq!(compact_at(None, 101 * DAY, &[]), "2 3 4", "a day later");
    // A time more than a day ahead was stored by a clock that ran ahead: void.
    assert_eq!(compact_at(Some(5_000 * DAY), 102 * DAY, &[(5, 60 * DAY)]), "2 3 4");
}

/// A database with enough addresses for a slow compaction.
fn filled(database: &Database) -> Store {
    let mut store = ready(database);
    let mut batch = Batch::default();
    for index in 0..60_000_u32 {
        let address = Address::new(Ipv4Addr::from(0x0100_0000 + index * 7), 8333);
        batch.heard.insert(address, heard(i64::from(index)));
        if index % 10 == 0 {
            batch.nodes.insert(address, up(5, version()));
            batch.probes.push(ProbeRow { address, ..probe(1, 1) });
        }
    }
    store.write(&batch, 25).unwrap();
    store
}

/// Whatever the clock says.
const EAGER: CompactionParams = CompactionParams {
    interval: Duration::ZERO,
    min_percent: 0,
    forget_after: Duration::from_secs(30 * 86_400),
};

/// A short text that changes with every row of the relations.
fn digest(database: &Database) -> String {
    let relations = ["addresses", "nodes", "probes"].map(|name| {
        format!("(SELECT count(*) || ' ' || sum(hashtext(t::text)::bigint) FROM {name} t)")
    });
    database.value(&format!("SELECT {}", relations.join(" || ' ' || ")))
}

#[test]
fn a_compaction_interrupted_at_any_moment_is_atomic() {
    let database = Cluster::shared().database();
    let mut store = filled(&database);
    let before = digest(&database);
    let (mut broken, mut admin) = (0, Cluster::shared().admin());
    for wait_ms in [1, 5, 20, 50, 100, 200, 400, 800] {
        let pid = store.backend_id().pid;
        let params = EAGER;
        let result = thread::scope(|scope| {
            let compaction = scope.spawn(|| store.compact_if_due(at(0), &params));
            thread::sleep(Duration::from_millis(wait_ms));
            admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
            compaction.join().unwrap()
        });
        if let Err(error) = result {
            assert!(error.is_transient(), "{error}");
            broken += 1;
        }
        assert_eq!(digest(&database), before, "after {wait_ms} ms");
        store = Store::connect(&database.url).unwrap();
        // Makes the next compaction necessary.
        let mut batch = Batch::default();
        batch.sources.insert(1, SourceRow::default());
        store.write(&batch, 25).unwrap();
    }
    assert!(broken > 0, "no compaction was interrupted");
    compact(&mut store);
    assert_eq!(digest(&database), before);
}

#[test]
fn a_server_killed_during_a_compaction_loses_nothing() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut store = filled(&database);
    let before = digest(&database);
    // Committed data survives without fsync because the machine keeps running.
    for wait_ms in [30, 300] {
        let params = EAGER;
        thread::scope(|scope| {
            let compaction = scope.spawn(|| store.compact_if_due(at(0), &params));
            thread::sleep(Duration::from_millis(wait_ms));
            cluster.kill_server();
            // Either outcome of the race is fine.
            let _ = compaction.join().unwrap();
        });
        cluster.start_server();
        assert_eq!(digest(&database), before, "after {wait_ms} ms");
        store = Store::connect(&database.url).unwrap();
    }
    compact(&mut store);
    assert_eq!(digest(&database), before);
}

#[test]
fn a_long_reader_delays_a_compaction_and_a_stop_cancels_it() {
    let database = Cluster::shared().database();
    let mut store = filled(&database);
    let before = digest(&database);
    let mut reader = database.client();
    let mut transaction = reader.transaction().unwrap();
    transaction.execute("SELECT FROM addresses LIMIT 1", &[]).unwrap();
    let params = EAGER;
    let error = store.compact_if_due(at(0), &params).unwrap_err();
    assert!(error.is_transient() && !store.is_closed(), "{error}");
    let mut batch = Batch::default();
    batch.heard.insert(address(1), heard(1));
    store.write(&batch, 25).unwrap(); // it does not stop the crawl
    batch.heard.clear();
    batch.forgotten.insert(address(1));
    store.write(&batch, 25).unwrap();
    transaction.rollback().unwrap();

    let token = store.cancel_token();
    let start = Instant::now();
    let result = thread::scope(|scope| {
        let compaction = scope.spawn(|| store.compact_if_due(at(0), &params));
        thread::sleep(Duration::from_millis(30));
        token.cancel_query(postgres::NoTls).unwrap();
        compaction.join().unwrap()
    });
    if let Err(error) = result {
        assert!(error.is_transient() && !store.is_closed(), "{error}");
        assert!(start.elapsed() < Duration::from_secs(2));
    }
    assert_eq!(digest(&database), before);
    assert_ne!(compact(&mut store), []);
    assert_eq!(digest(&database), before);
}
