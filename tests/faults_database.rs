//! The real crawler while its real database is stopped, killed, frozen, taken away and emptied.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use support::crawl::{Crawl, Simnet, check_manners, check_map, is_stats, value};
use support::faults::{check_nothing_lost_or_doubled, count, millis, rng, say, wait_until};
use support::namespace;
use support::{Cluster, Database};

/// The crawl goes on so soon after the database is back.
const SOON: Duration = Duration::from_secs(10);

/// How many results are committed.
fn committed(database: &Database) -> u64 {
    database.value("SELECT coalesce(max(probed), 0) FROM passes").parse().unwrap()
}

fn probed(line: &str) -> u64 {
    value(line, "probed").parse().unwrap()
}

fn last_stats(crawl: &Crawl) -> String {
    let log = crawl.log();
    log.lines().rfind(|line| is_stats(line)).expect("there is a stats line").to_owned()
}

#[test]
fn whatever_befalls_the_database_nothing_is_lost_and_nothing_doubled() {
    let faults = count("BITDASH_FAULTS", 3);
    let mut rng = rng("faults of the database");
    // Enough to do for all of them at this pace: 6 s each, and 13 s for one that is to be noticed.
    let dead = (1_000 + 500 * faults).to_string();
    let simnet = Simnet::start(&["--nodes", "300", "--dead", &dead, "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    let database = cluster.database();
    let pace = ["crawl.connects_per_second = 60", "database.flush_interval = \"500ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &pace);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    let first = rng.u32(..);
    for number in 0..faults {
        sleep(millis(&mut rng, 200, 1_500));
        let away = millis(&mut rng, 200, 3_000);
        let kind = match first.wrapping_add(number) % 5 {
            0 => {
                cluster.stop_server();
                sleep(away);
                cluster.start_server();
                "stopped and started"
            }
            1 => {
                cluster.kill_all();
                sleep(away);
                cluster.start_server();
                "killed and started"
            }
            2 => {
                // Long enough to be noticed.
                cluster.freeze_all(true);
                sleep(away + Duration::from_secs(9));
                cluster.freeze_all(false);
                "frozen and thawed"
            }
            3 => {
                cluster.freeze_all(true);
                sleep(away);
                cluster.kill_all();
                cluster.start_server();
                "frozen, killed and started"
            }
            _ => {
                let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bitdash'";
                cluster.admin().execute(all, &[]).unwrap();
                "cut off"
            }
        };
        let before = committed(&database);
        let took = wait_until("the crawl goes on", SOON, || committed(&database) > before);
        say(&format!(
            "fault {}: {kind}, away for {away:?} and more: went on after {took:?}",
            number + 1
        ));
        let ended = crawl.child.as_mut().unwrap().try_wait().unwrap();
        assert!(ended.is_none(), "the crawl ended before the faults did: {}", crawl.log());
    }
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    check_nothing_lost_or_doubled(&database);
    check_manners(&simnet.stop(), 1, 200);
}

#[test]
fn a_frozen_database_holds_up_neither_the_crawl_nor_its_end() {
    let simnet = Simnet::start(&["--nodes", "150", "--dead", "1800", "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    let database = cluster.database();
    let slow = ["crawl.connects_per_second = 100"];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &slow);
    crawl.start(&[]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    cluster.freeze_all(true);
    let at_first = probed(&last_stats(&crawl));
    let down = crawl.wait_for_log(|line| line.contains("database state=down"));
    assert!(down.contains("has not answered for 10 s"), "{down}");
    sleep(Duration::from_secs(2));
    let later = probed(&last_stats(&crawl));
    assert!(later > at_first + 300, "it crawls on: {at_first} {later}");
    crawl.signal("-TERM");
    let begin = Instant::now();
    assert_eq!(crawl.wait().code(), Some(1));
    assert!(begin.elapsed() < SOON, "{:?}", begin.elapsed());
    let log = crawl.log();
    let lost = log.lines().find(|line| line.contains("stop lost=")).unwrap();
    assert!(lost.contains("[WARN]") && value(lost, "lost") != "0", "{lost}");

    // A start while it is frozen waits; that, too, can be ended, and has nothing to lose.
    crawl.start(&[]);
    let downs = || crawl.log().matches("database state=down").count();
    wait_until("the second start sees it", Duration::from_secs(30), || downs() == 2);
    crawl.signal("-TERM");
    let begin = Instant::now();
    assert!(crawl.wait().success());
    assert!(begin.elapsed() < Duration::from_secs(5));

    // And once it thaws, the map is completed.
    crawl.reconfigure(&database, &simnet.seeds(), &[]);
    crawl.start(&["--passes", "1"]);
    sleep(Duration::from_secs(1));
    cluster.freeze_all(false);
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
}

/// Between the crawler and the server: connections that it forgets stay open, and nothing passes any more.
fn middleman(cluster: &Cluster, forgets: &Arc<AtomicBool>) -> u16 {
    let socket = cluster.folder().join(".s.PGSQL.5432");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let forgets = Arc::clone(forgets);
    thread::spawn(move || {
        for client in listener.incoming().map(Result::unwrap) {
            let server = UnixStream::connect(&socket).unwrap();
            let (from_client, to_client) = (client.try_clone().unwrap(), client);
            let (from_server, to_server) = (server.try_clone().unwrap(), server);
            // Who comes while it forgets is served: only what it had before is gone.
            let is_forgotten = Arc::new(AtomicBool::new(false));
            pass_on(from_client, to_server, &forgets, &is_forgotten);
            pass_on(from_server, to_client, &forgets, &is_forgotten);
        }
    });
    port
}

fn pass_on(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    forgets: &Arc<AtomicBool>,
    is_forgotten: &Arc<AtomicBool>,
) {
    let (forgets, is_forgotten) = (Arc::clone(forgets), Arc::clone(is_forgotten));
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            // The next one that speaks is the one that is forgotten.
            if forgets.swap(false, Ordering::AcqRel) {
                is_forgotten.store(true, Ordering::Release);
            }
            if !is_forgotten.load(Ordering::Acquire) && to.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
        if is_forgotten.load(Ordering::Acquire) {
            // It never tells anybody.
            sleep(Duration::from_secs(3_600));
        }
    });
}

#[test]
#[ignore = "takes three minutes, as long as a batch may: scripts/test runs it beside the others"]
fn a_link_that_was_forgotten_on_the_way_is_left_for_a_new_one() {
    let simnet = Simnet::start(&["--nodes", "100", "--dead", "1500", "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    let database = cluster.database();
    let forgets = Arc::new(AtomicBool::new(false));
    let port = middleman(&cluster, &forgets);
    let url = format!("database.url = \"postgresql://bitdash@127.0.0.1:{port}/{}\"", database.name);
    let pace = "crawl.connects_per_second = 60";
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[pace, &url]);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    forgets.store(true, Ordering::Release);
    let begin = Instant::now();
    wait_until("it says so", Duration::from_secs(60), || crawl.log().contains("state=down"));
    wait_until("it is left", Duration::from_secs(200), || crawl.log().contains("state=up"));
    say(&format!("a forgotten link was left after {:?}", begin.elapsed()));
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    check_nothing_lost_or_doubled(&database);
}

#[test]
fn a_link_that_swallows_everything_is_given_up_by_the_kernel() {
    let name = "a_link_that_swallows_everything_is_given_up_by_the_kernel";
    let Some(switch) = namespace::inside(name) else { return };
    let simnet = Simnet::start(&["--nodes", "100", "--dead", "1800", "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    cluster.listen("127.0.0.2,127.0.0.3");
    let database = cluster.database();
    // Two ways to one server.
    let url =
        format!("database.url = \"postgresql://bitdash@127.0.0.2,127.0.0.3/{}\"", database.name);
    let pace = ["crawl.connects_per_second = 60", "database.flush_interval = \"500ms\"", &url];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &pace);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    switch.run("ip route add blackhole 127.0.0.2/32 table local");
    wait_until("it says so", Duration::from_secs(15), || crawl.log().contains("state=down"));
    // Long before the desk's patience ends: it would wait for two minutes and a half.
    let took = wait_until("the other way is taken", Duration::from_secs(45), || {
        crawl.log().contains("state=up")
    });
    say(&format!("a dead link was left {took:?} after it was noticed"));
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    check_nothing_lost_or_doubled(&database);
}

/// A crawl of a small network, pass after pass, with a database of its own.
struct Small {
    simnet: Simnet,
    database: Database,
    crawl: Crawl,
}

fn small(cluster: &Cluster, lines: &[&str]) -> Small {
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "60", "--time-scale", "0.05"]);
    let database = cluster.database();
    let lines = [&["crawl.pass_interval = \"2s\"", "database.flush_interval = \"200ms\""], lines];
    let crawl = Crawl::configure(&database, &simnet.seeds(), &lines.concat());
    Small { simnet, database, crawl }
}

/// As a person would: who loses a deadlock against the crawler's batch tries again.
fn by_hand(database: &Database, sql: &str) {
    let mut lost = 0;
    while let Err(error) = database.client().batch_execute(sql) {
        lost += 1;
        let is_deadlock = error.code() == Some(&postgres::error::SqlState::T_R_DEADLOCK_DETECTED);
        assert!(is_deadlock && lost < 10, "{sql}: {error:?}");
    }
}

#[test]
fn a_database_emptied_or_made_anew_by_hand_is_begun_anew() {
    let cluster = Cluster::start();
    let Small { simnet, database, mut crawl } = small(&cluster, &[]);
    let all = "DO $$ DECLARE t record; BEGIN FOR t IN SELECT tablename FROM pg_tables WHERE schemaname = 'public'
        LOOP EXECUTE format('TRUNCATE %I', t.tablename); END LOOP; END $$";
    let schema = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
    let drop = format!("DROP DATABASE {} WITH (FORCE)", database.name);
    let create = format!("CREATE DATABASE {} OWNER bitdash TEMPLATE template0", database.name);
    let passes = "DELETE FROM passes";
    let nodes = "TRUNCATE result_journal, node_rows_a, node_rows_b";
    crawl.start(&[]);
    let count = |crawl: &Crawl, words: &str| crawl.log().matches(words).count();
    let (begins, done) = ("pass pass=1 state=started", "pass pass=1 state=finished");
    for (number, hand) in [all, schema, &drop, passes, nodes].into_iter().enumerate() {
        let (begun, finished) = (count(&crawl, begins), count(&crawl, done));
        wait_until("the first pass", Duration::from_secs(60), || {
            count(&crawl, done) + count(&crawl, "pass=2 state=finished") > finished
                && database.rows("SELECT 1 FROM history LIMIT 1").len() == 1
        });
        if hand == drop {
            cluster.admin().batch_execute(&drop).unwrap();
            cluster.admin().batch_execute(&create).unwrap();
        } else {
            by_hand(&database, hand);
        }
        wait_until(hand, Duration::from_secs(30), || count(&crawl, "state=emptied") > number);
        let line =
            crawl.log().lines().rfind(|line| line.contains("state=emptied")).unwrap().to_owned();
        assert!(line.contains("[WARN] database state=emptied dropped="), "{line}");
        // It says so before it reads what is left.
        wait_until("it begins anew", Duration::from_secs(60), || count(&crawl, begins) > begun);
        if hand != passes {
            wait_until("it is crawled anew", Duration::from_secs(60), || {
                let sql = "SELECT count(*) FROM nodes";
                let mut client = match postgres::Client::connect(&database.url, postgres::NoTls) {
                    Ok(client) => client,
                    Err(_) => return false,
                };
                client.simple_query(sql).is_ok() && database.value(sql) == "60"
            });
            check_map(&database, &simnet);
        }
    }
    crawl.signal("-TERM");
    assert!(crawl.wait().success(), "{}", crawl.log());
    assert_eq!(count(&crawl, "state=emptied"), 5, "once each: {}", crawl.log());
    assert_eq!(database.value("SELECT count(*) FROM store_state"), "1");
    assert_eq!(database.value("SELECT count(*) FROM probes WHERE pass = 0"), "0");
    let newest = database.value("SELECT max(version) FROM schema_migrations");
    assert_eq!(newest, bitdash::io::writer::schema::known_version().to_string());
}

#[test]
fn a_database_emptied_in_the_middle_of_a_pass_is_begun_anew_at_once() {
    let simnet = Simnet::start(&["--nodes", "150", "--dead", "500", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let slow = ["crawl.connects_per_second = 80", "database.flush_interval = \"300ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &slow);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    by_hand(&database, "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    crawl.wait_for_log(|line| line.contains("state=emptied"));
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    assert_eq!(database.rows("SELECT pass, finished_at IS NOT NULL FROM passes"), ["1|t"]);
}

#[test]
fn who_was_away_while_another_crawler_came_ends_and_writes_nothing() {
    let cluster = Cluster::start();
    let Small { simnet, database, crawl: mut first } = small(&cluster, &[]);
    first.start(&[]);
    first.wait_for_log(|line| line.contains("pass=1 state=finished"));
    // Its role, and its role alone, is kept away from the server.
    let away = "ALTER ROLE bitdash CONNECTION LIMIT 0;
        SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bitdash'";
    cluster.admin().batch_execute(away).unwrap();
    first.wait_for_log(|line| line.contains("database state=down"));
    let url = format!("database.url = {:?}", cluster.url("postgres", &database.name));
    let slow = "crawl.connects_per_second = 5";
    let mut second = Crawl::configure(&database, &simnet.seeds(), &[&url, slow]);
    second.start(&[]);
    second.wait_for_log(|line| line.contains("state=started") || line.contains("wait next_pass_s"));
    let pass = || {
        let sql =
            "SELECT pass, probed, started_at, finished_at FROM passes ORDER BY pass DESC LIMIT 1";
        support::rows(
            &mut postgres::Client::connect(
                &cluster.url("postgres", &database.name),
                postgres::NoTls,
            )
            .unwrap(),
            sql,
        )
    };
    second.signal("-STOP");
    let before = pass();
    cluster.admin().batch_execute("ALTER ROLE bitdash CONNECTION LIMIT -1").unwrap();
    let ended = first.wait();
    assert_eq!(ended.code(), Some(1), "{}", first.log());
    let log = first.log();
    let last = log.lines().last().unwrap();
    assert!(
        last.starts_with("bitdash: another bitdash crawls into this database already"),
        "{last}"
    );
    assert_eq!(pass(), before, "the first one wrote after the second had come");
    second.signal("-CONT");
    second.signal("-TERM");
    assert!(second.wait().success(), "{}", second.log());
}
