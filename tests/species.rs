//! Rules of species: the operator's file in a crawl, and `bitdash migrate --species`.

mod support;

use std::fs;

use bitdash::db::writer::Store;
use bitdash_core::lookup::species::{BUILTIN, Rules};
use bitdash_core::vocabulary::rows::{Batch, NodeRow, PassRow, Seen};
use bitdash_core::vocabulary::target::VersionInfo;
use support::crawl::{Crawl, Simnet, check_map};
use support::rows::{address, at, ready, up, version};
use support::tools::{Directory, Ran};
use support::{Cluster, Database};

/// The built-in rules, and before them some for these agents.
fn own_rules(rules: &[(&str, &str)]) -> String {
    let own: String = rules
        .iter()
        .map(|(species, name)| format!("[[rule]]\nspecies = \"{species}\"\nname = \"{name}\"\n"))
        .collect();
    let words = "[species]\njoke = { meaning = \"a joke\", versions = true }\n";
    let text = BUILTIN.replacen("[species]\n", words, 1);
    text.replacen("[[rule]]\n", &format!("{own}[[rule]]\n"), 1)
}

/// A node that the built-in rules classified.
fn node(user_agent: &str, protocol_version: i32, services: u64) -> NodeRow {
    let user_agent = Some(user_agent.to_owned());
    let row = up(0, VersionInfo { user_agent, protocol_version, services, ..version() });
    let agent = row.seen.as_ref().and_then(|seen| seen.version.user_agent.clone());
    let lineage = Rules::builtin().classify(agent.as_deref(), protocol_version, services);
    NodeRow { seen: row.seen.map(|seen| Seen { lineage, ..seen }), ..row }
}

/// Ends a pass.
fn end_pass(store: &mut Store, pass: u64, mut batch: Batch) {
    let from = 100 * pass as i64;
    let row =
        PassRow { started_at: at(from), finished_at: Some(at(from + 50)), ..PassRow::default() };
    batch.passes.insert(pass, row);
    store.write(&batch, 25).unwrap();
}

/// Four nodes after a pass: Core, TRB and two that are unknown, one of them named.
fn filled() -> (Database, Store) {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = Batch::default();
    batch.nodes.insert(address(1), node("/Satoshi:27.0.0/", 70016, 3081));
    batch.nodes.insert(address(2), node("/therealbitcoin.org:0.9.99.99/", 99999, 1));
    batch.nodes.insert(address(3), node("/jester:7.1/", 70016, 1));
    batch.nodes.insert(address(4), node("/almost:0.5/", 70016, 1));
    batch.names = Some([(address(3), "jester".to_owned())].into());
    end_pass(&mut store, 1, batch);
    (database, store)
}

fn migrate(directory: &Directory, database: &Database) -> Ran {
    let mut command = directory.command(&["migrate", "--species"]);
    Ran::of(&command.env("BITDASH_DATABASE_URL", &database.url).output().unwrap())
}

fn nodes(database: &Database) -> Vec<String> {
    database.rows("SELECT species, release FROM nodes ORDER BY host")
}

fn history(database: &Database, pass: u64) -> Vec<String> {
    let sql = "SELECT value, nodes FROM history WHERE dimension = 'species' AND pass =";
    database.rows(&format!("{sql} {pass} ORDER BY value"))
}

const BEFORE: [&str; 4] = ["Core|Core 27", "TRB|TRB 0.9", "unknown|-", "unknown|-"];

#[test]
fn migrate_applies_changed_rules_to_all_nodes_and_notes_it() {
    let (database, mut store) = filled();
    let directory = Directory::new();
    let ran = migrate(&directory, &database);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    let same = "species rules: all of 4 nodes are up to date (by the built-in rules)\n";
    assert!(ran.out.ends_with(same), "{}", ran.out);
    assert_eq!(nodes(&database), BEFORE);

    directory.write("species.toml", &own_rules(&[("joke", "jester"), ("TRB", "almost")]));
    let ran = migrate(&directory, &database);
    let note = "species rules changed: 2 of 4 nodes got another species (unknown to TRB 1, unknown to joke 1)";
    let line = ran.out.lines().last().unwrap();
    assert_eq!(line, format!("{note} (by species.toml)"));
    let after = ["Core|Core 27", "TRB|TRB 0.9", "joke|joke 7", "TRB|TRB 0.5"];
    assert_eq!(nodes(&database), after);
    assert_eq!(database.rows("SELECT text FROM history_notes"), [note]);
    let comment = "SELECT col_description('nodes'::regclass, attnum) LIKE '%. joke: a joke. TRB: %' FROM pg_attribute
        WHERE attrelid = 'nodes'::regclass AND attname = 'species'";
    assert_eq!(database.value(comment), "t");
    // A second time nothing changes.
    let ran = migrate(&directory, &database);
    assert!(ran.out.ends_with("all of 4 nodes are up to date (by species.toml)\n"), "{}", ran.out);
    assert_eq!(database.value("SELECT count(*) FROM history_notes"), "1");

    // The history keeps what was written, and nothing happened to the nodes.
    end_pass(&mut store, 2, Batch::default());
    assert_eq!(history(&database, 1), ["Core|1", "TRB|1", "unknown|2"]);
    assert_eq!(history(&database, 2), ["Core|1", "TRB|2", "joke|1"]);
    assert_eq!(database.rows("SELECT kind FROM events WHERE pass = 2"), [""; 0]);
    // What happens to them from now on is an event.
    let mut batch = Batch::default();
    let mut other = node("/Satoshi:27.0.0/", 70016, 3081);
    other.last_probed = at(300);
    batch.nodes.insert(address(4), other);
    end_pass(&mut store, 3, batch);
    let events = "SELECT kind, before, after FROM events WHERE pass = 3 ORDER BY id";
    assert_eq!(database.rows(events), ["species|TRB|Core", "agent|/almost:0.5/|/Satoshi:27.0.0/"]);
}

#[test]
fn a_wrong_file_of_rules_changes_nothing_and_names_the_lines() {
    let (database, _store) = filled();
    let directory = Directory::new();
    directory.write("species.toml", &own_rules(&[("joke", "jester"), ("jok", "almost")]));
    let ran = migrate(&directory, &database);
    let problem = "species = \"jok\": must be one of those in the section [species]";
    let line = own_rules(&[("joke", "jester"), ("jok", "almost")]);
    let line = line.lines().position(|line| line == "species = \"jok\"").unwrap() + 1;
    let error = format!("bitdash: species.toml:{line}: {problem}\n");
    assert_eq!((ran.status, &ran.err, ran.out.as_str()), (2, &error, ""));
    assert_eq!(nodes(&database), BEFORE);
    directory.write("nodes.txt", "127.0.0.1 1\n");
    for command in [&["config"][..], &["probe", "127.0.0.1:1"], &["poll"], &["crawl"]] {
        let ran = directory.run(command);
        assert_eq!((ran.status, ran.err), (2, error.clone()), "{command:?}");
    }
}

#[test]
fn a_pending_event_of_the_running_pass_survives_changed_rules() {
    let (database, mut store) = filled();
    let directory = Directory::new();
    // TRB, as it was at the end of the last pass, and something else since.
    let mut batch = Batch::default();
    let mut changed = node("/jester:8/", 70016, 1);
    changed.last_probed = at(200);
    batch.nodes.insert(address(2), changed);
    // New in the pass that runs.
    let mut new = node("/almost:0.6/", 70016, 1);
    new.last_probed = at(210);
    new.seen = new.seen.map(|seen| Seen { at: at(210), ..seen });
    batch.nodes.insert(address(5), new);
    batch.passes.insert(2, PassRow { started_at: at(190), ..PassRow::default() });
    store.write(&batch, 25).unwrap();
    directory.write("species.toml", &own_rules(&[("joke", "jester"), ("TRB", "almost")]));
    let ran = migrate(&directory, &database);
    assert_eq!((ran.status, ran.err.as_str()), (0, ""));
    end_pass(&mut store, 2, Batch::default());
    let events =
        "SELECT host(host), kind, before, after FROM events WHERE pass = 2 ORDER BY host, kind";
    assert_eq!(
        database.rows(events),
        [
            "127.0.0.2|agent|/therealbitcoin.org:0.9.99.99/|/jester:8/",
            "127.0.0.2|species|TRB|joke",
            "127.0.0.5|new|-|/almost:0.6/"
        ]
    );
}

#[test]
fn a_crawl_reloads_the_rules_and_a_wrong_file_changes_nothing() {
    let simnet = Simnet::start(&["--nodes", "100", "--dead", "0", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let slow = ["crawl.connects_per_second = 10"];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &slow);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| line.contains(" pass=1 state=started"));
    let file = crawl.dir.path().join("species.toml");

    fs::write(&file, own_rules(&[("joke", "Satoshi"), ("jok", "x")])).unwrap();
    crawl.signal("-HUP");
    let line = crawl.wait_for_log(|line| line.contains("reload error="));
    assert!(line.contains("species.toml:") && line.ends_with(" state=unchanged"), "{line}");

    fs::write(&file, own_rules(&[("joke", "Satoshi")])).unwrap();
    crawl.signal("-HUP");
    let builtin = Rules::builtin().count();
    let reloaded = format!(" reload species_rules={builtin}->{}", builtin + 1);
    crawl.wait_for_log(|line| line.ends_with(&reloaded));
    assert!(!crawl.log().contains("state=finished"), "{}", crawl.log());
    assert!(crawl.wait().success());
    // Nodes that responded since then; all of them by the command.
    let of = |species: &str| {
        let sql = format!("SELECT count(*) FROM nodes WHERE species = '{species}'");
        database.value(&sql).parse::<u32>().unwrap()
    };
    assert!(of("joke") > 0, "{}", crawl.log());
    let done = crawl.command(&["migrate", "--species"]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(of("Core"), 0);
    fs::remove_file(&file).unwrap();
    let done = crawl.command(&["migrate", "--species"]).output().unwrap();
    assert!(done.status.success(), "{done:?}");
    assert_eq!(of("joke"), 0);
    check_map(&database, &simnet);
}
