//! The store with a database that is absent, too new, foreign, disconnected or busy.

#![allow(clippy::disallowed_methods)] // a test waits for a server

mod support;

use std::io::Write;
use std::net::Ipv4Addr;
use std::thread;
use std::time::{Duration, Instant};

use bitdash::db::StoreError;
use bitdash::db::connect::connect;
use bitdash::db::schema::{MIGRATIONS, known_version};
use bitdash::db::writer::Store;
use bitdash::db::writer::store::BackendId;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::rows::Batch;
use support::rows::*;
use support::{Cluster, Database};

#[test]
fn concurrent_migrations_apply_each_file_once() {
    let database = Cluster::shared().database();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| Store::connect(&database.url).unwrap().migrate().unwrap());
        }
    });
    let mut store = Store::connect(&database.url).unwrap();
    let migrated = store.migrate().unwrap();
    let newest = known_version();
    assert_eq!((migrated.from, migrated.to), (newest, newest));
    let applied =
        database.rows("SELECT version, name FROM bitdash_internal.schema_migrations ORDER BY 1");
    let files = MIGRATIONS.iter().map(|file| format!("{}|{}", file.version, file.name));
    assert_eq!(applied, files.collect::<Vec<_>>());
}

#[test]
fn a_schema_newer_than_the_program_is_permanent_and_left_alone() {
    let database = Cluster::shared().database();
    ready(&database);
    let newer =
        "INSERT INTO bitdash_internal.schema_migrations (version, name) VALUES (99, '099_future')";
    database.client().batch_execute(newer).unwrap();
    let mut store = Store::connect(&database.url).unwrap();
    let error = store.migrate().unwrap_err();
    assert!(!error.is_transient());
    let words =
        format!("the database's schema is version 99, this bitdash knows {}: ", known_version());
    assert!(error.to_string().starts_with(&words), "{error}");
}

#[test]
fn a_foreign_table_is_not_touched() {
    let database = Cluster::shared().database();
    database.client().batch_execute("CREATE TABLE nodes (id integer)").unwrap();
    let error = Store::connect(&database.url).unwrap().migrate().unwrap_err();
    assert!(!error.is_transient() && error.to_string().contains("\"nodes\""), "{error}");
    assert_eq!(database.value("SELECT to_regclass('candidates') IS NULL"), "t");
}

#[test]
fn a_second_crawler_is_refused_until_the_first_is_gone() {
    let database = Cluster::shared().database();
    let (mut first, mut second) = (ready(&database), ready(&database));
    assert!(first.lock_crawler(&[]).unwrap());
    assert!(first.lock_crawler(&[]).unwrap());
    let error = second.lock_crawler(&[]).unwrap_err();
    assert_eq!(error, StoreError::Locked);
    assert!(!error.is_transient() && error.to_string().starts_with("another bitdash"), "{error}");
    // A backend with the same number and another start time is another one: numbers are reused.
    let reborn = BackendId { pid: first.backend_id().pid, ..second.backend_id().clone() };
    assert_eq!(second.lock_crawler(&[reborn]), Err(StoreError::Locked));
    // A former session of another crawler does not release the lock.
    let own = second.backend_id().clone();
    assert_eq!(second.lock_crawler(&[own]), Err(StoreError::Locked));
    assert!(!first.is_closed());
    // Another database of the same server has its own crawler.
    let other = Cluster::shared().database();
    assert!(ready(&other).lock_crawler(&[]).unwrap());
    drop(first);
    assert!(second.lock_crawler(&[]).unwrap());
}

#[test]
fn of_crawlers_that_start_at_once_one_gets_the_lock() {
    for _ in 0..3 {
        let database = Cluster::shared().database();
        let results: Vec<_> = thread::scope(|scope| {
            let start = || {
                let mut store = Store::connect(&database.url).unwrap();
                // As the program does: before and after the schema is created.
                store.lock_crawler(&[]).and_then(|_| store.migrate())?;
                store.lock_crawler(&[]).map(|is_locked| (store, is_locked))
            };
            let threads: Vec<_> = (0..6).map(|_| scope.spawn(start)).collect();
            threads.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert_eq!(results.iter().filter(|result| matches!(result, Ok((_, true)))).count(), 1);
        let refused = |result: &&Result<_, _>| result.as_ref().err() == Some(&StoreError::Locked);
        let errors: Vec<_> = results.iter().filter_map(|result| result.as_ref().err()).collect();
        assert_eq!(results.iter().filter(refused).count(), 5, "{errors:?}");
    }
}

#[test]
fn the_lock_of_a_killed_crawler_is_free_at_once() {
    let database = Cluster::shared().database();
    let mut admin = Cluster::shared().admin();
    for role in ["bitdash", "postgres"] {
        let url = Cluster::shared().url(role, &database.name);
        let mut first = Store::connect(&url).unwrap();
        first.migrate().unwrap();
        assert!(first.lock_crawler(&[]).unwrap());
        let mut second = ready(&database);
        assert_eq!(second.lock_crawler(&[]), Err(StoreError::Locked), "{role}");
        let end = "SELECT pg_terminate_backend($1)";
        admin.execute(end, &[&first.backend_id().pid]).unwrap();
        let start = Instant::now();
        assert!(second.lock_crawler(&[]).unwrap());
        assert!(start.elapsed() < Duration::from_secs(2), "{:?}", start.elapsed());
        drop(second);
        // Its process number was given to a session of another role.
        let reused = format!(
            "UPDATE bitdash_internal.store_state SET crawler_pid = {}, crawler_role = 1",
            admin.query_one("SELECT pg_backend_pid()", &[]).unwrap().get::<_, i32>(0)
        );
        database.client().batch_execute(&reused).unwrap();
        assert!(ready(&database).lock_crawler(&[]).unwrap(), "{role}");
    }
}

#[test]
fn a_read_only_role_can_neither_hold_nor_hide_the_lock() {
    let database = Cluster::shared().database();
    let mut admin = Cluster::shared().admin();
    admin.batch_execute("CREATE ROLE looker LOGIN").unwrap();
    let url = Cluster::shared().url("looker", &database.name);
    let mut looker = postgres::Client::connect(&url, postgres::NoTls).unwrap();
    // Every advisory lock that bitdash ever used.
    for key in [0x6269_7464_6173_6801_i64, 0x6269_7464_6173_6802] {
        looker.execute("SELECT pg_advisory_lock($1)", &[&key]).unwrap();
    }
    let mut first = ready(&database);
    let grant = "GRANT USAGE ON SCHEMA public TO looker; GRANT SELECT ON ALL TABLES IN SCHEMA public TO looker";
    database.client().batch_execute(grant).unwrap();
    for mode in ["ACCESS SHARE", "ROW EXCLUSIVE", "SHARE", "EXCLUSIVE", "ACCESS EXCLUSIVE"] {
        for table in ["store_state", "schema_migrations"] {
            let sql = format!("BEGIN; LOCK TABLE bitdash_internal.{table} IN {mode} MODE");
            let is_locked = looker.batch_execute(&sql).is_ok();
            assert_eq!(is_locked, (table, mode) == ("schema_migrations", "ACCESS SHARE"), "{sql}");
            looker.batch_execute("ROLLBACK").unwrap();
        }
    }
    looker.batch_execute("BEGIN; SELECT * FROM bitdash_internal.schema_migrations").unwrap();
    assert!(first.lock_crawler(&[]).unwrap());
    first.write(&rich_batch(), 25).unwrap();
    let mut second = ready(&database);
    assert_eq!(second.lock_crawler(&[]), Err(StoreError::Locked));
    for sql in [
        "UPDATE bitdash_internal.store_state SET crawler_pid = 1",
        "SELECT * FROM bitdash_internal.store_state",
    ] {
        let mut looker = postgres::Client::connect(&url, postgres::NoTls).unwrap();
        assert_eq!(looker.batch_execute(sql).unwrap_err().code().unwrap().code(), "42501");
    }
    drop(first);
    assert!(second.lock_crawler(&[]).unwrap());
}

#[test]
fn a_crawler_that_reconnects_takes_the_lock_from_its_own_former_session() {
    let database = Cluster::shared().database();
    let mut former = ready(&database);
    assert!(former.lock_crawler(&[]).unwrap());
    let mut store = ready(&database);
    let sessions = [store.backend_id().clone(), former.backend_id().clone()];
    assert!(store.lock_crawler(&sessions).unwrap());
    assert!(former.check().unwrap_err().is_transient(), "its connection is closed");
    assert!(former.is_closed());
    assert!(store.lock_crawler(&sessions).unwrap());
}

#[test]
fn a_server_that_ends_idle_sessions_spares_ours() {
    let database = Cluster::shared().database();
    let mut admin = Cluster::shared().admin();
    let version: String = admin.query_one("SHOW server_version_num", &[]).unwrap().get(0);
    for (setting, since) in [("idle_session_timeout", "140000"), ("transaction_timeout", "170000")]
    {
        if version.as_str() >= since {
            let set = format!("ALTER DATABASE {} SET {setting} = '500ms'", database.name);
            admin.batch_execute(&set).unwrap();
        }
    }
    let (mut store, mut other) = (ready(&database), database.client());
    assert!(store.lock_crawler(&[]).unwrap());
    thread::sleep(Duration::from_secs(2));
    store.write(&rich_batch(), 25).unwrap();
    // Control: a session without these settings ends.
    assert!(version.as_str() < "140000" || other.batch_execute("SELECT 1").is_err());
}

#[test]
fn a_missing_database_or_role_is_permanent_and_says_what_to_do() {
    let cluster = Cluster::shared();
    for (url, words) in [
        (cluster.url("bitdash", "nowhere"), ["\"nowhere\" does not exist", "createdb"]),
        (cluster.url("nobody:hush", "postgres"), ["\"nobody\" does not exist", "createuser"]),
    ] {
        let error = Store::connect(&url).err().unwrap();
        assert!(!error.is_transient(), "{error}");
        for word in words {
            assert!(error.to_string().contains(word), "{error}");
        }
        assert!(!error.to_string().contains("hush"));
    }
}

#[test]
fn missing_rights_are_permanent_and_say_what_to_do() {
    let database = Cluster::shared().database();
    Cluster::shared()
        .admin()
        .batch_execute(&format!("ALTER DATABASE {} OWNER TO postgres", database.name))
        .unwrap();
    let mut store = Store::connect(&database.url).unwrap();
    match store.migrate() {
        Err(error) => {
            assert!(!error.is_transient() && error.to_string().contains("OWNER"), "{error}")
        }
        // Before version 15 every role may create tables.
        Ok(_) => {
            let number: u32 = database.value("SHOW server_version_num").parse().unwrap();
            assert!(number < 150_000);
        }
    }
}

#[test]
fn an_unreachable_server_is_transient() {
    let error = Store::connect("postgresql://bitdash@/x?host=%2Fnonexistent").err().unwrap();
    assert!(
        error.is_transient() && error.to_string().contains("/nonexistent/.s.PGSQL.5432"),
        "{error}"
    );
    // A loopback port on which nothing listens.
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    drop(listener);
    let url = format!("postgresql://bitdash:hush@127.0.0.1:{port}/x");
    let error = Store::connect(&url).err().unwrap();
    assert!(error.is_transient() && error.to_string().contains("refused"), "{error}");
    assert!(!error.to_string().contains("hush"));
}

#[test]
fn too_many_connections_are_transient() {
    let database = Cluster::shared().database();
    let limit = format!(
        "ALTER ROLE crowded CONNECTION LIMIT 1; ALTER DATABASE {} OWNER TO crowded",
        database.name
    );
    let mut admin = Cluster::shared().admin();
    admin.batch_execute("CREATE ROLE crowded LOGIN").unwrap();
    admin.batch_execute(&limit).unwrap();
    let url = Cluster::shared().url("crowded", &database.name);
    let first = Store::connect(&url).unwrap();
    assert!(Store::connect(&url).err().unwrap().is_transient());
    drop(first);
}

/// Writes, and reconnects as the writer does.
fn write_at_last(store: &mut Store, database: &Database, batch: &Batch) {
    let start = Instant::now();
    while let Err(error) = store.write(batch, 25) {
        assert!(error.is_transient(), "{error}");
        assert!(start.elapsed() < Duration::from_secs(30), "{error}");
        thread::sleep(Duration::from_millis(50));
        match Store::connect(&database.url) {
            Ok(fresh) => *store = fresh,
            Err(error) => assert!(error.is_transient(), "{error}"),
        }
    }
}

#[test]
fn a_server_stopped_between_batches_loses_nothing() {
    let cluster = Cluster::start();
    let database = cluster.database();
    let mut store = ready(&database);
    let mut first = Batch::default();
    first.heard.insert(address(1), heard(0));
    store.write(&first, 25).unwrap();
    cluster.stop_server();
    let error = store.write(&rich_batch(), 25).unwrap_err();
    assert!(error.is_transient() && store.is_closed(), "{error}");
    let error = Store::connect(&database.url).err().unwrap();
    assert!(error.is_transient(), "{error}");
    thread::scope(|scope| {
        scope.spawn(|| {
            thread::sleep(Duration::from_millis(300));
            cluster.start_server();
        });
        write_at_last(&mut store, &database, &rich_batch());
    });
    assert_eq!(database.value("SELECT count(*) FROM addresses"), "6");

    cluster.kill_server();
    assert!(store.write(&rich_batch(), 25).unwrap_err().is_transient());
    cluster.start_server();
    write_at_last(&mut store, &database, &rich_batch());
    assert_eq!(database.value("SELECT count(*) FROM addresses"), "6");
}

#[test]
fn a_session_terminated_within_a_batch_writes_all_or_nothing() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let mut batch = Batch::default();
    for index in 0..20_000_u32 {
        let ip = Ipv4Addr::from(0x7f00_0000 + index);
        batch.heard.insert(Address::new(ip, 8333), heard(0));
    }
    let (mut broken, mut admin) = (0, Cluster::shared().admin());
    for wait_ms in [0, 5, 10, 20, 40, 60, 80, 120, 160] {
        let pid = store.backend_id().pid;
        let result = thread::scope(|scope| {
            let writing = scope.spawn(|| store.write(&batch, 25));
            thread::sleep(Duration::from_millis(wait_ms));
            admin.execute("SELECT pg_terminate_backend($1)", &[&pid]).unwrap();
            writing.join().unwrap()
        });
        let count = database.value("SELECT count(*) FROM candidates");
        match result {
            Ok(()) => assert_eq!(count, "20000"),
            Err(error) => {
                assert!(error.is_transient(), "{error}");
                assert!(count == "0" || count == "20000", "{count} of 20000 rows");
                broken += 1;
            }
        }
        database.client().batch_execute("TRUNCATE bitdash_internal.address_journal").unwrap();
        store = Store::connect(&database.url).unwrap();
    }
    assert!(broken > 0, "no session was terminated in time: the test shows nothing");
    store.write(&batch, 25).unwrap();
    assert_eq!(database.value("SELECT count(*) FROM candidates"), "20000");
}

#[test]
fn a_dropped_copy_leaves_nothing_and_the_session_survives() {
    // The store relies on it if a batch fails half-way: the crate aborts an unfinished COPY.
    let database = Cluster::shared().database();
    ready(&database);
    let mut client = database.client();
    let mut transaction = client.transaction().unwrap();
    let mut copy = transaction.copy_in("COPY bitdash_internal.address_journal FROM STDIN").unwrap();
    let row = "140737471586445\t1\t5\t\\N\t6\t0\t\\N\t\\N\n";
    copy.write_all(row.repeat(1000).as_bytes()).unwrap();
    drop(copy);
    assert!(transaction.execute("SELECT 1", &[]).is_err(), "the transaction is aborted");
    drop(transaction);
    assert!(client.execute("SELECT 1", &[]).is_ok());
    assert_eq!(database.value("SELECT count(*) FROM candidates"), "0");
}

#[test]
fn a_lock_timeout_is_transient_and_the_session_survives() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    store.set_statement_timeout(Duration::from_millis(300)).unwrap();
    let mut other = database.client();
    let mut transaction = other.transaction().unwrap();
    transaction
        .batch_execute("LOCK TABLE bitdash_internal.address_journal IN ACCESS EXCLUSIVE MODE")
        .unwrap();
    let error = store.write(&rich_batch(), 25).unwrap_err();
    assert!(error.is_transient() && !store.is_closed(), "{error}");
    transaction.rollback().unwrap();
    store.write(&rich_batch(), 25).unwrap();
    assert_eq!(database.value("SELECT count(*) FROM addresses"), "6");
}

/// A snapshot taken before a compaction commits would find the truncated tables empty.
#[test]
fn readers_wait_for_a_compaction_before_they_take_their_snapshot() {
    let database = Cluster::shared().database();
    ready(&database).write(&rich_batch(), 25).unwrap();
    let mut compacting = database.client();
    let waiting = "SELECT 1 FROM pg_locks WHERE relation = 'nodes'::regclass AND NOT granted";
    let mut while_truncated = |read: &(dyn Fn() -> usize + Sync)| {
        let mut transaction = compacting.transaction().unwrap();
        let truncate = "CREATE TEMPORARY TABLE kept ON COMMIT DROP AS SELECT * FROM nodes;
            TRUNCATE nodes; INSERT INTO nodes SELECT * FROM kept";
        transaction.batch_execute(truncate).unwrap();
        thread::scope(|scope| {
            let reading = scope.spawn(read);
            support::faults::wait_until("it waits", Duration::from_secs(20), || {
                database.rows(waiting).len() == 1
            });
            transaction.commit().unwrap();
            reading.join().unwrap()
        })
    };
    let map = while_truncated(&|| {
        let map = bitdash_simnet::verify::map::Map::read(&database.url).unwrap();
        [2, 3].iter().filter(|last| map.get(address(**last)).unwrap().fields.is_some()).count()
    });
    assert_eq!(map, 2, "the check of a simulated network");
    let reader = while_truncated(&|| {
        let mut reader = bitdash::db::reader::Reader::open(&database.url).unwrap();
        reader.overview().unwrap().species.iter().map(|line| line.up).sum::<i64>() as usize
    });
    assert_eq!(reader, 2, "what people read");
}

#[test]
fn a_deadlock_is_transient_and_the_session_survives() {
    let database = Cluster::shared().database();
    // The session whose deadlock_timeout ends first loses: ours.
    let patience = format!("ALTER DATABASE {} SET deadlock_timeout = '3s'", database.name);
    Cluster::shared().admin().batch_execute(&patience).unwrap();
    let mut store = ready(&database);
    let batch = rich_batch();
    let admin = Cluster::shared().url("postgres", &database.name);
    let mut other = postgres::Client::connect(&admin, postgres::NoTls).unwrap();
    let mut transaction = other.transaction().unwrap();
    transaction.batch_execute("SET LOCAL deadlock_timeout = '5min'; LOCK TABLE passes").unwrap();
    let error = thread::scope(|scope| {
        let writing = scope.spawn(|| store.write(&batch, 25).unwrap_err());
        let waiting = "SELECT 1 FROM pg_locks WHERE relation = 'passes'::regclass AND NOT granted";
        support::faults::wait_until("it waits", Duration::from_secs(20), || {
            database.rows(waiting).len() == 1
        });
        transaction.batch_execute("LOCK TABLE bitdash_internal.address_journal").unwrap();
        writing.join().unwrap()
    });
    assert!(error.to_string().contains("40P01"), "{error}");
    assert!(error.is_transient() && !store.is_closed(), "{error}");
    transaction.rollback().unwrap();
    assert_eq!(database.value("SELECT count(*) FROM addresses"), "0");
    store.write(&batch, 25).unwrap();
    assert_eq!(database.value("SELECT count(*) FROM addresses"), "6");
}

#[test]
fn the_server_notices_a_vanished_client() {
    let cluster = Cluster::start();
    // Over TCP: a Unix socket has no keep-alives.
    cluster.listen_on("127.0.0.2");
    let database = cluster.database();
    let url = format!("postgresql://bitdash@127.0.0.2/{}", database.name);
    let mut client = connect(&url).unwrap();
    let mut shown =
        |name: &str| -> String { client.query_one(&format!("SHOW {name}"), &[]).unwrap().get(0) };
    let expected = [
        ("statement_timeout", "2min"),
        ("idle_in_transaction_session_timeout", "2min"),
        ("tcp_keepalives_idle", "30"),
        ("tcp_keepalives_interval", "10"),
        ("tcp_keepalives_count", "3"),
        ("TimeZone", "UTC"),
    ];
    for (name, value) in expected {
        assert_eq!(shown(name), value, "{name}");
    }
    // PostgreSQL 13 has no such setting.
    if shown("server_version_num").as_str() >= "140000" {
        assert_eq!(shown("client_connection_check_interval"), "2s");
    }
}

#[test]
fn a_read_only_server_is_transient() {
    let database = Cluster::shared().database();
    drop(ready(&database));
    let set = |value| {
        let sql =
            format!("ALTER DATABASE {} SET default_transaction_read_only = {value}", database.name);
        Cluster::shared().admin().batch_execute(&sql).unwrap();
    };
    set("on");
    assert!(Store::connect(&database.url).err().unwrap().is_transient());
    set("off");
    let mut store = Store::connect(&database.url).unwrap();
    store.write(&rich_batch(), 25).unwrap();
}

#[test]
fn a_million_addresses_are_loaded_within_seconds() {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    let sql = "INSERT INTO bitdash_internal.address_journal (key, batch, heard_at, probed_at, next_probe, source, failures, outcome)
        SELECT bitdash_internal.key('1.0.0.0'::inet + i, 8333), 0, 800000000, 800000000, 800000000, 1, 3, 1
        FROM generate_series(0, 999999) i";
    database.client().batch_execute(sql).unwrap();
    let start = Instant::now();
    assert_eq!(compact(&mut store)[0].rows, 1_000_000);
    println!("a million rows compacted in {:?}", start.elapsed());
    let start = Instant::now();
    let mut count = 0_u32;
    store.load(&mut |known| count += u32::from(known.failures == 3)).unwrap();
    assert_eq!(count, 1_000_000);
    let elapsed = start.elapsed();
    println!("a million rows loaded in {elapsed:?}");
    assert!(elapsed < Duration::from_secs(30), "{elapsed:?}");

    let mut batch = Batch::default();
    for index in 0..5000_u32 {
        let known = Address::new(Ipv4Addr::from(0x0100_0000 + index * 199), 8333);
        batch.failed.insert(known, failed(4, 0));
        batch.heard.insert(Address::new(known.ip(), 1000), heard(0));
    }
    let start = Instant::now();
    store.write(&batch, 25).unwrap();
    println!("a batch of 10000 rows into them in {:?}", start.elapsed());
    let changed = "SELECT count(*) FILTER (WHERE failures = 4), count(*) FROM candidates";
    assert_eq!(database.rows(changed), ["5000|1005000"]);
}
