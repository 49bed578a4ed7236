//! The upgrade from schema version 2 keeps every row.
//!
//! `tests/data/schema_2.sql.gz` is a dump of a database that the last program with schema 2 filled
//! from a simulated network: it was killed in its first pass, resumed it after a compaction, and
//! was killed again in its second pass while a part of the nodes was down.

mod support;

use std::fs;
use std::path::Path;

use bitdash::db::writer::Store;
use bitdash_core::lookup::services;
use bitdash_core::lookup::species::Rules;
use bitdash_core::vocabulary::rows::Batch;
use support::rows::*;
use support::{Cluster, Database};

fn schema_2() -> Database {
    let cluster = Cluster::shared();
    let database = cluster.database();
    let dump = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/schema_2.sql.gz");
    let restore = "psql -X -q -v ON_ERROR_STOP=1 -U bitdash";
    cluster.shell(&format!("gzip -dc {dump} | {restore} {} >/dev/null", database.name));
    database
}

/// Every row that people can read and every candidate with all its times, in the form of schema 2.
fn contents(database: &Database, source: &str, internal: &str, key: &str) -> Vec<String> {
    let queries = [
        "SELECT 'node', host, port, name, status, CASE species WHEN 'other' THEN 'unknown' ELSE species END,
            protocol_version, user_agent, services, start_height, relay, connect_ms, version_ms, country, asn, as_name, first_seen, last_seen, last_probed, last_outcome,
            failures, next_probe, peers_asked_at, peers_sent FROM nodes ORDER BY host, port"
            .to_owned(),
        "SELECT 'probe', p.* FROM probes p ORDER BY host, port, pass".to_owned(),
        "SELECT 'address', a.* FROM addresses a ORDER BY host, port".to_owned(),
        "SELECT 'candidate', c.* FROM candidates c ORDER BY host, port".to_owned(),
        format!("SELECT 'source', {source} AS source, tried, answered FROM sources ORDER BY 2"),
        "SELECT 'pass', pass, started_at, finished_at, probed, responded, failed, new_nodes, new_addresses FROM passes
            ORDER BY pass".to_owned(),
        "SELECT 'history', pass, at, dimension, value, nodes FROM history ORDER BY pass, dimension, value".to_owned(),
        format!("SELECT 'state', s.* FROM {internal}.address_state(0, 281474976710655) s ORDER BY key"),
        format!("SELECT 'name', {key}, name FROM {internal}.node_names ORDER BY 2"),
        format!("SELECT 'identity', identity, results_per_node FROM {internal}.store_state"),
    ];
    queries.iter().flat_map(|sql| database.rows(sql)).collect()
}

/// The contents as schema 3 stores them.
fn new_contents(database: &Database) -> Vec<String> {
    let source = "(host(source)::inet - '0.0.0.0'::inet) >> 16";
    contents(database, source, "bitdash_internal", "bitdash_internal.key(host, port)")
}

fn count(contents: &[String], kind: &str) -> usize {
    contents.iter().filter(|row| row.starts_with(&format!("{kind}|"))).count()
}

#[test]
fn an_upgrade_from_schema_2_keeps_every_row() {
    let database = schema_2();
    let before = contents(&database, "source", "public", "key");
    for (kind, expected) in [
        ("node", 237),
        ("probe", 474),
        ("candidate", 982),
        ("address", 1219),
        ("source", 29),
        ("pass", 2),
        ("history", 156),
        ("name", 5),
    ] {
        assert_eq!(count(&before, kind), expected, "{kind}: the fixture is another one");
    }
    assert_eq!(count(&before, "state"), 1219, "{before:?}");
    let mut store = support::rows::ready(&database);
    assert_eq!(new_contents(&database), before);

    // The upgraded tables work as those of a new database do.
    let (known, last) = load(&mut store);
    assert_eq!((known.len(), last.pass, last.row.finished_at), (1219, 2, None));
    assert_eq!(compact(&mut store).len(), 2);
    assert_eq!(new_contents(&database), before);
    assert_eq!(load(&mut store), (known, last));
    store.write(&rich_batch(), 25).unwrap();
    assert_eq!(database.value("SELECT count(*) FROM nodes"), "239");
    assert_eq!(database.value("SELECT name FROM nodes WHERE name IS NOT NULL"), "Pizarro");
}

#[test]
fn an_upgrade_leaves_the_same_schema_as_a_fresh_start() {
    let (upgraded, fresh) = (schema_2(), Cluster::shared().database());
    let [upgraded, fresh] = [&upgraded, &fresh].map(|database| {
        support::rows::ready(database);
        let columns =
            "SELECT table_schema::text, table_name::text, ordinal_position, column_name::text, data_type::text, is_nullable
            FROM information_schema.columns WHERE table_schema IN ('public', 'bitdash_internal')
            UNION ALL SELECT n.nspname, c.conname, NULL, translate(pg_get_constraintdef(c.oid), '()', '')::text, NULL, NULL
            FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace
            WHERE n.nspname IN ('public', 'bitdash_internal') ORDER BY 1, 2, 3, 4";
        database.rows(columns)
    });
    let differs = |from: &[String], to: &[String]| {
        from.iter().filter(|row| !to.contains(row)).cloned().collect::<Vec<_>>()
    };
    assert_eq!(differs(&upgraded, &fresh), differs(&fresh, &upgraded));
    assert_eq!(upgraded.len(), fresh.len());
}

#[test]
fn the_upgrade_computes_releases_as_the_crawler_does() {
    let database = schema_2();
    let mut releases = 0;
    // And of agents that the simulated network does not have.
    database
        .client()
        .batch_execute(
            "UPDATE node_rows_b SET user_agent = a.agent, species = a.species FROM (
                SELECT key, row_number() OVER (ORDER BY key) AS number FROM node_rows_b
                WHERE key NOT IN (SELECT key FROM result_journal WHERE protocol_version IS NOT NULL)) r
            JOIN (VALUES (1, 'Core', '/Satoshi:0.21.1/'), (2, 'btcd', '/btcwire:0.5.0/btcd:0.24.2/'),
                (3, 'bcoin', '/bcoin:v1.0.2/'), (4, 'Knots', '/Knots:20250903/'), (5, 'TRB', ''), (6, 'Core', '/Satoshi:0/'),
                (7, 'BCH', '/Bitcoin Cash Node:27.1.0(EB32.0)/'), (8, 'Core', '/Satoshi:0.042.1/')) a (number, species, agent)
            ON a.number = r.number WHERE r.key = node_rows_b.key",
        )
        .unwrap();
    support::rows::ready(&database);
    let mut client = database.client();
    let sql = "SELECT species, user_agent, release FROM nodes";
    for row in client.query(sql, &[]).unwrap() {
        let (word, agent): (&str, Option<&str>) = (row.get(0), row.get(1));
        let release: Option<String> = row.get(2);
        assert_eq!(release, Rules::builtin().release(word, agent), "{word} {agent:?}");
        releases += usize::from(release.is_some());
    }
    assert!(releases > 100, "{releases}");
}

#[test]
fn an_upgrade_calls_the_species_other_unknown_and_notes_it() {
    let database = schema_2();
    let count = |sql: &str| database.value(&format!("SELECT count(*) FROM {sql}"));
    let before = count("nodes WHERE species = 'other'");
    assert_ne!(before, "0", "the fixture is another one");
    let history = count("history WHERE dimension = 'species' AND value = 'other'");
    assert_ne!(history, "0", "the fixture is another one");
    support::rows::ready(&database);
    assert_eq!(count("nodes WHERE species = 'other'"), "0");
    assert_eq!(count("nodes WHERE species = 'unknown'"), before);
    let kept = count("history WHERE dimension = 'species' AND value = 'other'");
    assert_eq!(kept, history, "the history keeps its words");
    assert_eq!(count("history_notes WHERE text LIKE '%\"unknown\"%'"), "1");
    let fresh = Cluster::shared().database();
    support::rows::ready(&fresh);
    assert_eq!(fresh.value("SELECT count(*) FROM history_notes"), "0");
}

#[test]
fn service_names_are_those_of_the_crawler() {
    let database = Cluster::shared().database();
    support::rows::ready(&database);
    let mut client = database.client();
    let bits = (0..64).map(|bit| 1_u64 << bit);
    for services in bits.chain([0, 3081, u64::MAX]) {
        let row = client.query_one("SELECT service_names($1)", &[&services.cast_signed()]).unwrap();
        assert_eq!(row.get::<_, Vec<String>>(0), services::names(services));
    }
}

#[test]
fn the_schema_public_shows_only_what_people_read() {
    let database = Cluster::shared().database();
    support::rows::ready(&database);
    let relations = "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace
        AND relkind IN ('r', 'v', 'm', 'S', 'f', 'p') ORDER BY 1";
    assert_eq!(
        database.rows(relations),
        [
            "addresses",
            "candidates",
            "closed_rolls",
            "daily_rolls",
            "events",
            "history",
            "history_notes",
            "nodes",
            "passes",
            "place_sources",
            "probes",
            "roll_nodes",
            "rolls",
            "sources"
        ]
    );
    let functions =
        "SELECT proname FROM pg_proc WHERE pronamespace = 'public'::regnamespace ORDER BY 1";
    assert_eq!(
        database.rows(functions),
        [
            "address",
            "days_of",
            "history_of",
            "is_crawling",
            "roll_of",
            "service_names",
            "up_since",
            "uptime"
        ]
    );
}

#[test]
fn address_returns_every_port_of_a_host_and_sources_are_networks() {
    let database = schema_2();
    support::rows::ready(&database);
    let hosts =
        "SELECT DISTINCT host FROM (SELECT * FROM addresses ORDER BY port, host LIMIT 30) a";
    for host in database.rows(hosts) {
        let of = |relation: &str, condition: &str| {
            database.rows(&format!("SELECT * FROM {relation} {condition} ORDER BY port"))
        };
        let found = of(&format!("address('{host}')"), "");
        assert!(!found.is_empty());
        assert_eq!(found, of("addresses", &format!("WHERE host = '{host}'")));
    }
    assert!(database.rows("SELECT * FROM address('127.255.255.254')").is_empty());
    let networks =
        "SELECT count(*) FROM sources WHERE masklen(source) = 16 AND source << '127.0.0.0/8'";
    assert_eq!(database.value(networks), "29");
}

/// What a server does not convert, or cannot convert from UTF8.
#[test]
fn an_encoding_other_than_utf8_is_refused_with_advice() {
    let cluster = Cluster::shared();
    for encoding in ["SQL_ASCII", "LATIN1", "WIN1252", "EUC_JP"] {
        let name = format!("in_{}", encoding.to_lowercase());
        let create = format!(
            "CREATE DATABASE {name} OWNER bitdash TEMPLATE template0 ENCODING '{encoding}' LOCALE 'C'"
        );
        cluster.admin().batch_execute(&create).unwrap();
        let error = Store::connect(&cluster.url("bitdash", &name)).err().unwrap();
        assert!(!error.is_transient());
        assert_eq!(
            error.to_string(),
            format!(
                "the encoding of the database is {encoding}, not UTF8: create one with \
                 \"createdb -T template0 -E UTF8 -l C NAME\""
            )
        );
    }
}

/// The lines of a file that contain the words.
fn lines_with(file: &str, words: &str) -> Vec<String> {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(file)).unwrap();
    let lines = text.lines().filter(|line| line.contains(words)).map(|line| line.trim().to_owned());
    lines.collect()
}

// mattermost/docs#3943: the cluster's default is LATIN1.
#[test]
fn every_way_to_create_a_database_makes_utf8_of_it() {
    let cluster = Cluster::start_with(&std::env::temp_dir(), "LATIN1");
    cluster.admin().batch_execute("CREATE DATABASE plain OWNER bitdash").unwrap();
    let error = Store::connect(&cluster.url("bitdash", "plain")).err().unwrap().to_string();
    let root = env!("CARGO_MANIFEST_DIR");
    let advice = error.split('"').nth(1).unwrap().replace("NAME", "advised");
    let mut commands = vec![
        format!("{advice} -O bitdash"),
        format!(
            "psql -q -v database=roles -v crawler=bitdash -v web=web -f {root}/scripts/roles.sql postgres"
        ),
        format!(
            ". {root}/scripts/lib.sh; pg_bin=$(dirname \"$(command -v psql)\"); pg_socket=$PGHOST; make_database scripted"
        ),
    ];
    let begin = "as_postgres() { \"$@\"; }; sudo() { shift 2; \"$@\"; }; dropdb() { :; }; ";
    let mut names = vec!["advised".to_owned(), "roles".to_owned(), "scripted".to_owned()];
    let documents = ["debian/setup-database", "docs/operations.md", "README.md"];
    for (index, file) in documents.into_iter().enumerate() {
        let lines = lines_with(file, "createdb -");
        for (number, line) in lines.iter().enumerate() {
            let name = format!("db_{index}_{number}");
            let line = line.split('`').find(|part| part.contains("createdb -")).unwrap();
            assert!(line.contains(" bitdash"), "{file}: {line}");
            let line = line.trim_end_matches(" bitdash");
            commands.push(format!(
                "{begin}{line} {name}; psql -q -c 'ALTER DATABASE {name} OWNER TO bitdash' postgres"
            ));
            names.push(name);
        }
        assert!(!lines.is_empty(), "{file}");
    }
    for command in &commands {
        cluster.shell(command);
    }
    for name in &names {
        let mut store = Store::connect(&cluster.url("bitdash", name)).unwrap();
        store.migrate().unwrap();
        let names = [(address(1), "\u{6bd4}\u{7279}\u{5e01}".to_owned())].into();
        store.write(&Batch { names: Some(names), ..Batch::default() }, 25).unwrap();
    }
    assert!(names.len() >= 8, "{names:?}");
}
