//! History, rolls and events against naive models: what the test derives itself from the nodes.

#![allow(clippy::disallowed_methods)] // tests sleep

mod support;

use std::collections::{BTreeMap, BTreeSet};
use std::thread::{self, sleep};
use std::time::Duration;

use bitdash::db::StoreError;
use bitdash::db::writer::Store;
use bitdash_core::vocabulary::outcome::Outcome;
use bitdash_core::vocabulary::rows::{Batch, NodeRow, PassRow, Seen, Status};
use bitdash_core::vocabulary::target::VersionInfo;
use bitdash_core::vocabulary::time::UnixTime;
use support::faults::seeded_rng;
use support::rows::{self, load, ready};
use support::{Cluster, Database};

const HOUR: i64 = 3_600;
const DAY: i64 = 86_400;
/// A midnight.
const T0: i64 = 20_000 * DAY;

/// Dimension and value.
type Key = (String, String);
type Counts = BTreeMap<Key, i64>;

/// Ends a pass at a time, and counts the nodes that it leaves.
fn end_pass(database: &Database, store: &mut Store, pass: u64, at: i64) -> Counts {
    store.write(&pass_batch(pass, at), 25).unwrap();
    counts(database)
}

fn pass_batch(pass: u64, at: i64) -> Batch {
    let row = PassRow {
        started_at: UnixTime::from_secs(at - 60),
        finished_at: Some(UnixTime::from_secs(at)),
        ..PassRow::default()
    };
    Batch { passes: BTreeMap::from([(pass, row)]), ..Batch::default() }
}

fn close(store: &mut Store) -> usize {
    std::iter::from_fn(|| store.close_day().unwrap()).count()
}

/// Nodes by dimension and value, without bounds.
fn counts(database: &Database) -> Counts {
    let sql = "SELECT status, species, release, user_agent, protocol_version::text, country, asn::text, port::text,
        services::text, peers_sent FROM nodes";
    let names = [
        "status",
        "species",
        "release",
        "user_agent",
        "protocol_version",
        "country",
        "asn",
        "port",
        "services",
    ];
    let mut counts = Counts::new();
    for row in database.client().query(sql, &[]).unwrap() {
        let is_up = row.get::<_, &str>(0) == "up";
        let mut count = |dimension: &str, value: String| {
            if is_up || dimension == "status" {
                *counts.entry((dimension.to_owned(), value)).or_default() += 1;
            }
        };
        for (column, name) in names.iter().enumerate() {
            if let Some(value) = row.get::<_, Option<String>>(column) {
                count(name, value);
            }
        }
        if row.get::<_, Option<i32>>(9).is_some_and(|sent| sent > 0) {
            count("peers", "sent".to_owned());
        }
    }
    counts
}

/// Values that a TRB node has.
fn values_of_trb(database: &Database) -> BTreeSet<Key> {
    let sql = "SELECT v.dimension, v.value FROM nodes n CROSS JOIN LATERAL (VALUES ('user_agent', n.user_agent),
        ('protocol_version', n.protocol_version::text), ('asn', n.asn::text), ('port', n.port::text),
        ('services', n.services::text), ('peers', 'sent'), ('release', n.release)) v (dimension, value)
        WHERE n.species = 'TRB' AND n.status = 'up' AND v.value IS NOT NULL";
    let rows = database.client().query(sql, &[]).unwrap();
    rows.iter().map(|row| (row.get(0), row.get(1))).collect()
}

/// What the history shows of a pass, or with a step other than `pass` from a time on.
fn shown(database: &Database, condition: &str) -> Counts {
    let sql = format!("SELECT dimension, value, nodes::bigint FROM history WHERE {condition}");
    let rows = database.client().query(&sql, &[]).unwrap();
    let counts: Counts = rows.iter().map(|row| ((row.get(0), row.get(1)), row.get(2))).collect();
    assert_eq!(counts.len(), rows.len(), "a value stands twice");
    counts
}

/// Applies the bounds of a pass: 3 nodes, 200 places, 200 new values; what a TRB node has is
/// counted on its own.
fn bounded(counts: &Counts, trb: &BTreeSet<Key>, known: &mut BTreeSet<Key>) -> Counts {
    let mut ranked: Vec<(&Key, &i64)> = counts.iter().collect();
    ranked.sort_by_key(|(key, count)| (-**count, (*key).clone()));
    let (mut places, mut newcomers) = (BTreeMap::new(), BTreeMap::new());
    let mut result = Counts::new();
    for (key, count) in ranked {
        let is_trb = trb.contains(key);
        let class = (&key.0, is_trb);
        let place: &mut i32 = places.entry(class).or_default();
        let newcomer: &mut i32 = newcomers.entry(class).or_default();
        *place += 1;
        *newcomer += i32::from(!known.contains(key));
        let is_whole = ["status", "species", "country", "peers"].contains(&key.0.as_str());
        let is_kept = is_whole
            || (*place <= 200
                && (is_trb || *count >= 3)
                && (known.contains(key) || *newcomer <= 200));
        let value = if is_kept { key.1.clone() } else { "(other)".to_owned() };
        *result.entry((key.0.clone(), value)).or_default() += count;
    }
    known.extend(result.keys().cloned());
    result
}

/// Replaces all nodes: `agents` user agents that `each` nodes have, and one TRB node of its own
/// kind.
fn fill(database: &Database, agents: i32, each: i32, seed: i32) {
    let sql = format!(
        "TRUNCATE nodes; INSERT INTO nodes
        SELECT '10.0.0.0'::inet + n, 1 + (n * 7 + {seed}) % 400, NULL,
            CASE WHEN n % 11 = {seed} % 11 THEN 'down' WHEN n % 13 = 5 THEN 'full' ELSE 'up' END,
            CASE WHEN n % 97 = 3 THEN 'BCH' ELSE 'Core' END, CASE WHEN n % 5 > 0 THEN 'Core ' || n % 9 END,
            70000 + n % 20, '/agent:' || ({seed} * 1000 + n / {each}) || '/', n % 300, 1, true, 1, 1,
            CASE WHEN n % 3 > 0 THEN chr(65 + n % 26) || chr(65 + n % 7) END, CASE WHEN n % 4 > 0 THEN n % 250 END, 'x',
            now(), now(), now(), CASE WHEN n % 11 = {seed} % 11 THEN 'refused' WHEN n % 13 = 5 THEN 'closed' ELSE 'responded' END,
            CASE WHEN n % 11 = {seed} % 11 OR n % 13 = 5 THEN 1 ELSE 0 END, 'infinity', now(), n % 6
        FROM generate_series(0, {agents} * {each} - 1) n;
        INSERT INTO nodes VALUES ('11.0.0.1', 7777, NULL, 'up', 'TRB', NULL, 99999, '/therealbitcoin.org:{seed}/', 1, 1, true,
            1, 1, 'FR', 64999, 'x', now(), now(), now(), 'responded', 0, 'infinity', NULL, NULL)"
    );
    database.client().batch_execute(&sql).unwrap();
}

#[test]
fn every_dimension_of_a_pass_is_counted_within_the_bounds() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut known = BTreeSet::new();
    let sizes = [(300, 4, 1), (300, 4, 1), (700, 2, 2), (450, 5, 3), (3, 60, 4), (300, 4, 1)];
    for (index, (agents, each, seed)) in sizes.into_iter().enumerate() {
        fill(&database, agents, each, seed);
        let pass = index as u64 + 1;
        let counted = end_pass(&database, &mut store, pass, T0 + pass as i64 * 600);
        let expected = bounded(&counted, &values_of_trb(&database), &mut known);
        let found = shown(&database, &format!("pass = {pass}"));
        assert_eq!(found, expected, "pass {pass}");
        let trb = ("user_agent".to_owned(), format!("/therealbitcoin.org:{seed}/"));
        assert_eq!(found[&trb], 1, "the value of a TRB node is never folded");
        for dimension in ["user_agent", "port", "services", "asn"] {
            let sum = |counts: &Counts| {
                counts.iter().filter(|(key, _)| key.0 == dimension).map(|(_, n)| n).sum::<i64>()
            };
            assert_eq!(sum(&found), sum(&counted), "{dimension}: sums stay whole");
        }
    }
}

#[test]
fn a_day_has_at_most_1000_new_values_of_a_dimension() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    for pass in 1..=8 {
        fill(&database, 220, 4, pass);
        end_pass(&database, &mut store, pass as u64, T0 + i64::from(pass) * 600);
    }
    let agents = "SELECT count(*) FROM bitdash_internal.history_values WHERE dimension = 'user_agent' AND NOT is_trb";
    assert_eq!(database.value(agents), "1000");
    // TRB nodes keep theirs, and the next day has its own bound.
    let trb = "SELECT count(*) FROM bitdash_internal.history_values WHERE dimension = 'user_agent' AND is_trb";
    assert_eq!(database.value(trb), "8");
    fill(&database, 220, 4, 9);
    end_pass(&database, &mut store, 9, T0 + DAY);
    assert_eq!(database.value(agents), "1200");
}

/// The sums, lowest and highest of the passes of each step; zeros where a value is absent.
fn steps(passes: &[(i64, Counts)], length: i64) -> BTreeMap<(i64, Key), (i64, i64, i64, i64)> {
    let mut groups: BTreeMap<i64, Vec<&Counts>> = BTreeMap::new();
    for (at, counts) in passes {
        groups.entry(at.div_euclid(length) * length).or_default().push(counts);
    }
    let mut all = BTreeMap::new();
    for (at, group) in groups {
        let keys: BTreeSet<&Key> = group.iter().flat_map(|counts| counts.keys()).collect();
        for key in keys {
            let each = || group.iter().map(|counts| counts.get(key).copied().unwrap_or(0));
            let passes = group.len() as i64;
            let (low, high) = (each().min().unwrap(), each().max().unwrap());
            all.insert((at, key.clone()), (each().sum(), passes, low, high));
        }
    }
    all
}

/// The steps as the curves show them.
fn curves(
    database: &Database,
    step: &str,
    keys: &BTreeSet<Key>,
) -> BTreeMap<(i64, Key), (i64, i64, i64, i64)> {
    let sql =
        "SELECT extract(epoch FROM at)::bigint, round(nodes * passes)::bigint, passes::bigint,
        coalesce(lowest, -1)::bigint, coalesce(highest, -1)::bigint FROM history_of($1, $2, $3)";
    let mut client = database.client();
    let mut all = BTreeMap::new();
    for key in keys {
        for row in client.query(sql, &[&key.0, &key.1, &step]).unwrap() {
            let value = (row.get(1), row.get(2), row.get(3), row.get(4));
            if value.0 > 0 {
                all.insert((row.get(0), key.clone()), value);
            }
        }
    }
    all
}

/// Times of passes in hours. Whatever the clock does, each pass is in one day once.
fn check_times(hours: &[i64]) {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut passes = Vec::new();
    for (index, hour) in hours.iter().enumerate() {
        fill(&database, 12, 7 + index as i32 % 5, 1 + index as i32 % 3);
        let at = T0 + hour * HOUR + 17;
        let counts = end_pass(&database, &mut store, index as u64 + 1, at);
        let counts = bounded(&counts, &values_of_trb(&database), &mut BTreeSet::new());
        passes.push((at, counts));
        // A crawler that was killed here closes the day after a later pass.
        if index % 4 != 1 {
            close(&mut store);
            assert_eq!(close(&mut store), 0, "closing is idempotent");
        }
    }
    // The end: a pass of another day closes all others.
    end_pass(&database, &mut store, 999, T0 + 9_000 * DAY);
    close(&mut store);
    let keys: BTreeSet<Key> =
        passes.iter().flat_map(|(_, counts)| counts.keys().cloned()).collect();
    assert_eq!(curves(&database, "day", &keys), steps(&passes, DAY));
    let hours =
        steps(&passes, HOUR).into_iter().map(|(key, value)| (key, (value.0, value.1, -1, -1)));
    assert_eq!(curves(&database, "hour", &keys), hours.collect());
}

#[test]
fn hours_and_days_are_the_sums_of_their_passes() {
    check_times(&[1, 1, 2, 13, 23, 24, 25, 40, 40, 48, 49, 80, 96]);
}

#[test]
fn a_clock_that_jumps_loses_no_day_and_doubles_none() {
    let year = 24 * 365;
    check_times(&[1, 2, year, year + 1, 3, 4, 25, -9 * year, 26, 27, 5, 50, year, 51, 75]);
}

/// Ends the sessions of the crawler after this long: by a signal, or by killing the whole server.
fn break_session(cluster: &Cluster, delay: Duration, is_kill: bool) {
    sleep(delay);
    if is_kill {
        cluster.kill_server();
        cluster.start_server();
    } else {
        let end =
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bitdash'";
        cluster.admin().execute(end, &[]).unwrap();
    }
}

/// Calls `work` until it succeeds, as the writer does, with a new connection after each failure; a
/// fault comes at a random moment of the first attempt. Returns the number of attempts.
fn in_spite_of_a_fault(
    cluster: &Cluster,
    database: &Database,
    rng: &mut fastrand::Rng,
    is_kill: bool,
    work: impl Fn(&mut Store) -> Result<(), StoreError>,
) -> u32 {
    let delay = Duration::from_micros(rng.u64(0..40_000));
    thread::scope(|scope| {
        let mut store = Store::connect(&database.url).unwrap();
        scope.spawn(move || break_session(cluster, delay, is_kill));
        let mut attempts = 1;
        while let Err(error) = work(&mut store) {
            assert!(error.is_transient(), "{error}");
            attempts += 1;
            store = loop {
                match Store::connect(&database.url) {
                    Ok(store) => break store,
                    Err(error) => assert!(error.is_transient(), "{error}"),
                }
                sleep(Duration::from_millis(20));
            };
        }
        attempts
    })
}

#[test]
fn faults_at_the_end_of_passes_lose_no_day_and_double_none() {
    let cluster = Cluster::start();
    let database = cluster.database();
    drop(ready(&database));
    let mut rng = seeded_rng("faults at the ends of passes");
    let (mut passes, mut repeated) = (Vec::new(), 0);
    for index in 0..40 {
        fill(&database, 12, 7 + index as i32 % 5, 1 + index as i32 % 3);
        let at = T0 + index * 7 * HOUR + 17;
        let counts = bounded(&counts(&database), &values_of_trb(&database), &mut BTreeSet::new());
        passes.push((at, counts));
        let batch = pass_batch(index as u64 + 1, at);
        let is_kill = index % 10 == 9;
        let write = |store: &mut Store| store.write(&batch, 25);
        repeated += in_spite_of_a_fault(&cluster, &database, &mut rng, is_kill, write) - 1;
        let close = |store: &mut Store| {
            while store.close_day()?.is_some() {}
            Ok(())
        };
        repeated += in_spite_of_a_fault(&cluster, &database, &mut rng, is_kill, close) - 1;
    }
    assert!(repeated > 5, "only {repeated} of 80 faults hit a transaction");
    let mut store = Store::connect(&database.url).unwrap();
    end_pass(&database, &mut store, 41, T0 + 9_000 * DAY);
    close(&mut store);
    let keys: BTreeSet<Key> =
        passes.iter().flat_map(|(_, counts)| counts.keys().cloned()).collect();
    assert_eq!(curves(&database, "day", &keys), steps(&passes, DAY));
    let hours =
        steps(&passes, HOUR).into_iter().map(|(key, value)| (key, (value.0, value.1, -1, -1)));
    assert_eq!(curves(&database, "hour", &keys), hours.collect());
    // The rolls: the TRB node answered in every pass.
    let sql = "SELECT passes, answered FROM uptime('11.0.0.1', 7777) WHERE period = 'all'";
    assert_eq!(database.rows(sql), ["41|41"]);
    let days = "SELECT count(*), sum(passes) FROM daily_rolls";
    assert_eq!(database.rows(days), [format!("{}|40", (39 * 7) / 24 + 1)]);
}

#[test]
fn passes_give_way_to_hours_and_hours_to_days() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    // 150 agents in the first pass: the days and hours have room for 100 of them.
    fill(&database, 150, 5, 1);
    end_pass(&database, &mut store, 1, T0 + HOUR);
    fill(&database, 6, 5, 2);
    let mut expected = 1;
    let steps =
        || database.rows("SELECT step, count(DISTINCT at) FROM history GROUP BY 1 ORDER BY 1");
    let passes = || {
        database
            .value("SELECT sum(passes) FROM history WHERE dimension = 'species' AND value = 'TRB'")
    };
    let agents = || {
        let sql = "SELECT count(*) FROM bitdash_internal.history_values WHERE dimension = 'user_agent' AND value LIKE '/agent:1%'";
        database.value(sql)
    };
    for day in 0..375 {
        for part in 0..2 {
            expected += 1;
            end_pass(&database, &mut store, expected, T0 + day * DAY + (part * 12 + 2) * HOUR);
            close(&mut store);
        }
        assert_eq!(passes(), expected.to_string(), "day {day}: each pass is shown once");
        match day {
            29 => assert_eq!((steps(), agents()), (vec!["pass|61".to_owned()], "150".to_owned())),
            32 => assert_eq!(steps(), ["hour|5", "pass|62"]),
            33 => assert_eq!(agents(), "100", "values that no row refers to are removed"),
            _ => {}
        }
    }
    assert_eq!(steps(), ["day|8", "hour|672", "pass|62"]);
    let whole = "SELECT count(*), sum(passes) FROM history_of('species', 'TRB', 'day')";
    assert_eq!(database.rows(whole), ["374|749"]);
    let sum = "SELECT DISTINCT sum(nodes) FROM history WHERE dimension = 'user_agent' GROUP BY at, pass ORDER BY 1";
    let species = "SELECT DISTINCT sum(nodes) FROM history WHERE dimension = 'species' GROUP BY at, pass ORDER BY 1";
    assert_eq!(database.rows(sum), database.rows(species));
}

/// The status of each node at the end of a pass.
type Roll = BTreeMap<i32, &'static str>;

/// Writes the statuses of the nodes 127.0.0.1, 127.0.0.2, ... and ends a pass.
fn call_roll(
    store: &mut Store,
    pass: u64,
    at: i64,
    statuses: &[&'static str],
    uplink: bool,
) -> Roll {
    let mut batch = Batch::default();
    for (last, status) in (1..).zip(statuses) {
        let row = match *status {
            "up" => support::rows::up(0, support::rows::version()),
            "full" => NodeRow {
                status: Status::Full,
                last_outcome: Outcome::Closed,
                ..support::rows::down(0, 1)
            },
            _ => support::rows::down(0, 1),
        };
        let at = UnixTime::from_secs(at);
        let seen = row.seen.map(|seen| Seen { at, ..seen });
        let row = NodeRow { next_probe: at, last_probed: at, seen, ..row };
        batch.nodes.insert(support::rows::address(last), row);
    }
    let row = PassRow {
        started_at: UnixTime::from_secs(at - 60),
        finished_at: Some(UnixTime::from_secs(at)),
        uplink_was_down: !uplink,
        ..PassRow::default()
    };
    batch.passes.insert(pass, row);
    store.write(&batch, 25).unwrap();
    (1..).zip(statuses.iter().copied()).collect()
}

/// What `uptime` and `up_since` should say of a node.
fn expected_uptime(rolls: &[(i64, Roll)], node: i32) -> (Vec<String>, String) {
    let known: Vec<(i64, bool)> =
        rolls.iter().filter_map(|(at, roll)| Some((*at, *roll.get(&node)? != "down"))).collect();
    let newest = rolls.last().unwrap().0;
    let of = |period: &str, length: i64| {
        let within = || known.iter().filter(|(at, _)| *at > newest - length && *at <= newest);
        format!("{period}|{}|{}", within().count(), within().filter(|(_, up)| *up).count())
    };
    let periods = [("day", DAY), ("week", 7 * DAY), ("month", 30 * DAY), ("all", i64::MAX / 2)];
    let run = known.iter().rev().take_while(|(_, up)| *up).last();
    let since = run.map_or_else(|| "-".to_owned(), |(at, _)| at.to_string());
    (periods.iter().map(|(period, length)| of(period, *length)).collect(), since)
}

fn check_uptime(database: &Database, rolls: &[(i64, Roll)], nodes: i32) {
    for node in 1..=nodes {
        let sql = format!("SELECT period, passes, answered FROM uptime('127.0.0.{node}', 8333)");
        let (expected, since) = expected_uptime(rolls, node);
        assert_eq!(database.rows(&sql), expected, "node {node}");
        let sql = format!("SELECT extract(epoch FROM up_since('127.0.0.{node}', 8333))::bigint");
        assert_eq!(database.value(&sql), since, "node {node}");
    }
}

#[test]
fn uptime_is_the_share_of_the_passes_since_a_node_is_known() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut rng = fastrand::Rng::with_seed(7);
    let (mut rolls, mut nodes) = (Vec::new(), 3);
    for pass in 1..=150_u64 {
        let at = T0 + pass as i64 * 6 * HOUR + rng.i64(0..HOUR);
        nodes += usize::from(pass % 20 == 0);
        // Node 1 always answers, node 2 never again; the others come and go.
        let status = |node: usize| match node {
            0 => "up",
            1 => {
                if pass == 1 {
                    "up"
                } else {
                    "down"
                }
            }
            2 => ["full", "up"][pass as usize % 2],
            // A new node has responded.
            _ if pass % 20 == 0 && node == nodes - 1 => "up",
            _ => ["up", "up", "up", "up", "full", "down"][(pass as usize * 7 + node * 5) / 3 % 6],
        };
        let statuses: Vec<_> = (0..nodes).map(status).collect();
        let uplink = pass % 17 != 3;
        let roll = call_roll(&mut store, pass, at, &statuses, uplink);
        if uplink {
            rolls.push((at, roll));
        }
        if pass % 3 > 0 {
            close(&mut store);
        }
        if pass % 30 == 0 {
            check_uptime(&database, &rolls, nodes as i32);
        }
    }
    assert!(database.rows("SELECT * FROM uptime('127.0.0.200', 8333)").is_empty());
    let days = database.value("SELECT count(*) FROM bitdash_internal.roll_days");
    assert!(days.parse::<u32>().unwrap() >= 36, "{days}");
    let kept = database.value("SELECT count(*) FROM rolls");
    assert!((115..130).contains(&kept.parse::<u32>().unwrap()), "{kept}");
}

#[test]
fn a_roll_shows_each_status_and_nothing_before_a_node_was_known() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    call_roll(&mut store, 1, T0, &["up"], true);
    call_roll(&mut store, 2, T0 + HOUR, &["full", "up"], true);
    call_roll(&mut store, 3, T0 + 2 * HOUR, &["up", "up"], false);
    call_roll(&mut store, 4, T0 + 3 * HOUR, &["down", "up"], true);
    let roll =
        |node| database.rows(&format!("SELECT pass, status FROM roll_of('127.0.0.{node}', 8333)"));
    assert_eq!(roll(1), ["1|up", "2|full", "4|down"]);
    assert_eq!(roll(2), ["2|up", "4|up"]);
    assert!(roll(3).is_empty());
}

#[test]
fn uptime_survives_a_clock_that_jumps() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let year = 24 * 365;
    let hours = [1, 2, 30, year, year + 1, 31, 3, 55, -year, 56, 57, 80, 100];
    let mut passes = (0, 0);
    for (index, hour) in hours.into_iter().enumerate() {
        let status = ["up", "up", "down"][index % 3];
        let statuses = if index == 0 { ["up"] } else { [status] };
        call_roll(&mut store, index as u64 + 1, T0 + hour * HOUR, &statuses, true);
        passes = (passes.0 + 1, passes.1 + i32::from(statuses[0] == "up"));
        if index % 2 == 0 {
            close(&mut store);
        }
        let all = database
            .rows("SELECT passes, answered FROM uptime('127.0.0.1', 8333) WHERE period = 'all'");
        assert_eq!(all, [format!("{}|{}", passes.0, passes.1)], "no pass is lost or doubled");
    }
}

/// A node of a pass: the last byte of its address, its status, its species and its user agent.
type Seen4 = (u8, &'static str, &'static str, &'static str);

/// Ends a pass after these nodes were probed.
fn watch(store: &mut Store, pass: u64, nodes: &[Seen4], names: &[(u8, &str)], uplink: bool) {
    let at = T0 + pass as i64 * 1_800;
    let now = UnixTime::from_secs(at);
    let mut batch = Batch::default();
    for (last, status, species, agent) in nodes {
        let version = VersionInfo { user_agent: Some((*agent).to_owned()), ..rows::version() };
        let up = rows::up(0, version);
        let row = match *status {
            "up" => NodeRow {
                seen: up.seen.clone().map(|seen| Seen {
                    at: now,
                    lineage: rows::lineage(species, Some(agent)),
                    ..seen
                }),
                ..up
            },
            "full" => {
                NodeRow { status: Status::Full, last_outcome: Outcome::Closed, ..rows::down(0, 1) }
            }
            _ => rows::down(0, 1),
        };
        let row = NodeRow { last_probed: now, next_probe: now, ..row };
        batch.nodes.insert(rows::address(*last), row);
    }
    let names = names.iter().map(|(last, name)| (rows::address(*last), (*name).to_owned()));
    batch.names = Some(names.collect());
    let row = PassRow {
        started_at: UnixTime::from_secs(at - 60),
        finished_at: Some(UnixTime::from_secs(at + 60)),
        uplink_was_down: !uplink,
        ..PassRow::default()
    };
    batch.passes.insert(pass, row);
    store.write(&batch, 25).unwrap();
    // The reply to COMMIT was lost: the batch is written again.
    store.write(&batch, 25).unwrap();
}

fn events(database: &Database) -> Vec<String> {
    let sql = format!(
        "SELECT pass, (extract(epoch FROM at)::bigint - {T0}) / 1800, kind, coalesce(split_part(host(host), '.', 4), '-')
            || coalesce(' ' || name, ''), coalesce(before, '') || '>' || coalesce(after, '') FROM events ORDER BY id"
    );
    database.rows(&sql)
}

#[test]
fn events_tell_what_happened_to_trb_and_named_nodes() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let (trb, core) = (("TRB", "/trb:1/"), ("Core", "/Core:1/"));
    let names = [(2, "two")];
    let mut all = Vec::new();
    let mut check = |pass: u64, nodes: &[Seen4], uplink: bool, expected: &[&str]| {
        watch(&mut store, pass, nodes, &names, uplink);
        all.extend(expected.iter().map(|text| (*text).to_owned()));
        assert_eq!(events(&database), all, "pass {pass}");
    };
    let n = |last, status, (species, agent)| (last, status, species, agent);
    let others = n(9, "up", core);
    check(
        1,
        &[n(1, "up", trb), n(2, "up", core), others],
        true,
        &["1|1|new|2 two|>/Core:1/", "1|1|new|1|>/trb:1/"],
    );
    check(
        2,
        &[n(1, "down", trb), n(2, "full", core), n(9, "down", core)],
        true,
        &["2|2|full|2 two|up>full"],
    );
    // Not probed in this pass: a failure is not two of them.
    check(3, &[n(2, "up", core)], true, &["3|3|back|2 two|full>up"]);
    check(4, &[n(1, "down", trb), n(2, "down", core)], true, &["2|2|lost|1|up>down"]);
    // Our own uplink was down: no failure counts.
    check(5, &[n(1, "down", trb), n(2, "down", core)], false, &[]);
    check(6, &[n(1, "up", trb), n(2, "up", core)], true, &["6|6|back|1|down>up"]);
    check(7, &[n(2, "down", core)], true, &[]);
    check(8, &[n(2, "down", core)], true, &["7|7|lost|2 two|up>down"]);
    check(9, &[n(2, "down", core)], true, &[]);
    // Named nodes come first.
    check(
        10,
        &[n(2, "full", core), n(1, "up", ("TRB", "/trb:2/"))],
        true,
        &["10|10|full|2 two|down>full", "10|10|agent|1|/trb:1/>/trb:2/"],
    );
    check(
        11,
        &[n(1, "up", ("Core", "/Core:2/")), n(9, "up", trb)],
        true,
        &["11|11|species|1|TRB>Core", "11|11|agent|1|/trb:2/>/Core:2/", "11|11|species|9|>TRB"],
    );
    // It is no TRB node any more.
    check(12, &[n(1, "up", ("Core", "/Core:3/"))], true, &[]);
    check(
        13,
        &[n(2, "up", core), n(7, "up", trb)],
        false,
        &["13|13|back|2 two|full>up", "13|13|new|7|>/trb:1/"],
    );
}

#[test]
fn a_flood_of_events_ends_in_one_row() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let flood = |agent: &str| {
        let sql = format!(
            "DELETE FROM nodes WHERE user_agent LIKE '/flood%'; INSERT INTO nodes
            SELECT '10.0.0.0'::inet + n, 8333, CASE n WHEN 777 THEN 'mine' END, 'up', 'TRB', NULL, 99999, '/flood:{agent}/',
                1, 1, true, 1, 1, NULL, NULL, NULL, to_timestamp({T0} + 1800), now(), now(), 'responded', 0, 'infinity',
                NULL, NULL FROM generate_series(1, 1000) n"
        );
        database.client().batch_execute(&sql).unwrap();
    };
    for (pass, agent) in (1..).zip(["a", "b", "c"]) {
        flood(agent);
        let batch = Batch {
            passes: BTreeMap::from([(
                pass,
                PassRow {
                    started_at: UnixTime::from_secs(T0 + pass as i64 * 1_800),
                    finished_at: Some(UnixTime::from_secs(T0 + pass as i64 * 1_800 + 60)),
                    ..PassRow::default()
                },
            )]),
            ..Batch::default()
        };
        store.write(&batch, 25).unwrap();
    }
    let kinds = database.rows(
        "SELECT pass, kind, count(*), max(after) FROM events WHERE pass > 1 OR kind = 'many'
        GROUP BY 1, 2 ORDER BY 1, 2",
    );
    assert_eq!(
        kinds,
        [
            "1|many|1|800",
            "2|agent|200|/flood:b/",
            "2|many|1|800",
            "3|agent|200|/flood:c/",
            "3|many|1|800"
        ]
    );
    let mine = database.rows("SELECT pass FROM events WHERE name = 'mine' ORDER BY 1");
    assert_eq!(mine, ["1", "2", "3"], "a named node is not crowded out");
}

#[test]
fn each_event_is_handed_out_once_across_connections() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    load(&mut store);
    let node = |agent| (1, "up", "TRB", agent);
    watch(&mut store, 1, &[node("/a/")], &[], true);
    let kinds = |store: &mut Store| -> Vec<String> {
        let events = store.new_events().unwrap();
        events
            .iter()
            .map(|e| [&*e.kind, &e.address, &e.name, &e.before, &e.after].join("|"))
            .collect()
    };
    assert_eq!(kinds(&mut store), ["new|127.0.0.1:8333|||/a/"]);
    assert!(kinds(&mut store).is_empty());
    let fingerprint = store.fingerprint().cloned().unwrap();
    watch(&mut store, 2, &[node("/b/")], &[], true);
    // The connection broke before anybody heard of it; the next one knows what was handed out.
    let terminate = format!("SELECT pg_terminate_backend({})", store.backend_id().pid);
    database.client().batch_execute(&terminate).unwrap();
    let mut store = Store::connect(&database.url).unwrap();
    assert!(store.expect(&fingerprint).unwrap());
    assert_eq!(kinds(&mut store), ["agent|127.0.0.1:8333||/a/|/b/"]);
    assert!(kinds(&mut store).is_empty());
    // A restart does not run the program for what happened before.
    let mut store = Store::connect(&database.url).unwrap();
    load(&mut store);
    assert!(kinds(&mut store).is_empty());
}
