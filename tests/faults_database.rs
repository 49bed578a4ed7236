//! The real crawler while its database is stopped, killed, frozen, unreachable or emptied.

#![allow(clippy::disallowed_methods)] // tests watch real programs and wait for them

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, sleep};
use std::time::{Duration, Instant};

use support::crawl::{Crawl, Simnet, check_conduct, check_map, is_stats, value};
use support::faults::{
    check_nothing_lost_or_doubled, count_from_env, print_note, random_millis, seeded_rng,
    wait_until,
};
use support::namespace;
use support::{Cluster, Database};

/// Maximum time to resume after the database is back, and to stop without it.
const RECOVERY_TIMEOUT: Duration = Duration::from_secs(10);

/// Number of committed results.
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

/// Injects one of five faults and undoes it; returns its name.
fn inject_fault(cluster: &Cluster, kind: u32, outage: Duration) -> &'static str {
    match kind {
        0 => {
            cluster.stop_server();
            sleep(outage);
            cluster.start_server();
            "stopped and started"
        }
        1 => {
            cluster.kill_all();
            sleep(outage);
            cluster.start_server();
            "killed and started"
        }
        2 => {
            // Long enough to be noticed.
            cluster.freeze_all(true);
            sleep(outage + Duration::from_secs(9));
            cluster.freeze_all(false);
            "frozen and thawed"
        }
        3 => {
            cluster.freeze_all(true);
            sleep(outage);
            cluster.kill_all();
            cluster.start_server();
            "frozen, killed and started"
        }
        _ => {
            let all =
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'bitdash'";
            cluster.admin().execute(all, &[]).unwrap();
            "disconnected"
        }
    }
}

#[test]
fn random_faults_of_the_database_lose_and_double_nothing() {
    let faults = count_from_env("BITDASH_FAULTS", 3);
    let mut rng = seeded_rng("faults of the database");
    // Enough work for all faults at this pace: 6 s each, and 13 s for a freeze.
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
        sleep(random_millis(&mut rng, 200, 1_500));
        let outage = random_millis(&mut rng, 200, 3_000);
        let kind = inject_fault(&cluster, first.wrapping_add(number) % 5, outage);
        let before = committed(&database);
        let took =
            wait_until("the next commit", RECOVERY_TIMEOUT, || committed(&database) > before);
        print_note(&format!("fault {}: {kind}: recovered within {took:?}", number + 1));
        let ended = crawl.child.as_mut().unwrap().try_wait().unwrap();
        assert!(ended.is_none(), "the crawl ended before the faults did: {}", crawl.log());
    }
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    check_nothing_lost_or_doubled(&database);
    check_conduct(&simnet.stop(), 1, 200);
}

#[test]
fn a_database_away_at_the_end_of_a_pass_gets_its_history_once() {
    let simnet = Simnet::start(&["--nodes", "100", "--dead", "100", "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    let database = cluster.database();
    let pace = ["crawl.pass_interval = \"2s\"", "crawl.addr_timeout = \"1s\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &pace);
    crawl.start(&[]);
    for pass in 1..=4 {
        crawl.wait_for_log(|line| line.contains(&format!("pass pass={pass} state=started")));
        if pass % 2 == 0 {
            cluster.kill_all();
        } else {
            cluster.stop_server();
        }
        // The crawler ends the pass and begins no further one that the database does not know of.
        let ended = format!("pass pass={pass} state=finished");
        crawl.wait_for_log(|line| line.contains(&ended));
        sleep(Duration::from_millis(500));
        cluster.start_server();
    }
    crawl.wait_for_log(|line| line.contains("pass pass=5 state=finished"));
    crawl.signal("-TERM");
    assert!(crawl.wait().success(), "{}", crawl.log());
    let finished = database.value("SELECT count(*) FROM passes WHERE finished_at IS NOT NULL");
    let history = "SELECT count(*) FROM history WHERE dimension = 'species' AND value = 'TRB'";
    assert_eq!(database.value(history), finished);
    assert_eq!(database.value("SELECT count(*) FROM rolls"), finished);
    let sums = "SELECT count(*) FROM passes p JOIN (SELECT pass, sum(nodes) AS up FROM history
        WHERE dimension = 'status' GROUP BY 1) h USING (pass) WHERE h.up = 100";
    assert_eq!(database.value(sums), finished);
    let new = "SELECT count(*), count(DISTINCT (host, port)) FROM events WHERE kind = 'new'";
    let trb = database.value("SELECT count(*) FROM nodes WHERE species = 'TRB'");
    assert_eq!(database.rows(new), [format!("{trb}|{trb}")]);
}

#[test]
fn a_frozen_database_blocks_neither_the_crawl_nor_its_stop() {
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
    assert!(later > at_first + 300, "the crawl stalled: {at_first} {later}");
    crawl.signal("-TERM");
    let begin = Instant::now();
    assert_eq!(crawl.wait().code(), Some(1));
    assert!(begin.elapsed() < RECOVERY_TIMEOUT, "{:?}", begin.elapsed());
    let log = crawl.log();
    let lost = log.lines().find(|line| line.contains("stop lost=")).unwrap();
    assert!(lost.contains("WARN") && value(lost, "lost") != "0", "{lost}");

    // A start waits for the frozen database, can be stopped, and has nothing to lose.
    crawl.start(&[]);
    let downs = || crawl.log().matches("database state=down").count();
    wait_until("the second start notices it", Duration::from_secs(30), || downs() == 2);
    crawl.signal("-TERM");
    let begin = Instant::now();
    assert!(crawl.wait().success());
    assert!(begin.elapsed() < Duration::from_secs(5));

    // After the thaw the map is completed.
    crawl.reconfigure(&database, &simnet.seeds(), &[]);
    crawl.start(&["--passes", "1"]);
    sleep(Duration::from_secs(1));
    cluster.freeze_all(false);
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
}

/// Starts a proxy in front of the server. After `drop_next` is set, the connection that carries the
/// next bytes stays open, but is no longer forwarded.
fn start_proxy(cluster: &Cluster, drop_next: &Arc<AtomicBool>) -> u16 {
    let socket = cluster.directory().join(".s.PGSQL.5432");
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let port = listener.local_addr().unwrap().port();
    let drop_next = Arc::clone(drop_next);
    thread::spawn(move || {
        for client in listener.incoming().map(Result::unwrap) {
            let server = UnixStream::connect(&socket).unwrap();
            let (from_client, to_client) = (client.try_clone().unwrap(), client);
            let (from_server, to_server) = (server.try_clone().unwrap(), server);
            // Who comes while it drop_next is served: only what it had before is gone.
            let is_dropped = Arc::new(AtomicBool::new(false));
            forward(from_client, to_server, &drop_next, &is_dropped);
            forward(from_server, to_client, &drop_next, &is_dropped);
        }
    });
    port
}

fn forward(
    mut from: impl Read + Send + 'static,
    mut to: impl Write + Send + 'static,
    drop_next: &Arc<AtomicBool>,
    is_dropped: &Arc<AtomicBool>,
) {
    let (drop_next, is_dropped) = (Arc::clone(drop_next), Arc::clone(is_dropped));
    thread::spawn(move || {
        let mut buffer = [0; 65_536];
        while let Ok(length @ 1..) = from.read(&mut buffer) {
            if drop_next.swap(false, Ordering::AcqRel) {
                is_dropped.store(true, Ordering::Release);
            }
            if !is_dropped.load(Ordering::Acquire) && to.write_all(&buffer[..length]).is_err() {
                return;
            }
        }
        if is_dropped.load(Ordering::Acquire) {
            // Keep both sockets open.
            sleep(Duration::from_secs(3_600));
        }
    });
}

#[test]
#[ignore = "takes three minutes, the timeout of a batch: scripts/test runs it beside the others"]
fn a_silently_dropped_connection_is_replaced() {
    let simnet = Simnet::start(&["--nodes", "100", "--dead", "1500", "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    let database = cluster.database();
    let drop_next = Arc::new(AtomicBool::new(false));
    let port = start_proxy(&cluster, &drop_next);
    let url = format!("database.url = \"postgresql://bitdash@127.0.0.1:{port}/{}\"", database.name);
    let pace = "crawl.connects_per_second = 60";
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[pace, &url]);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    drop_next.store(true, Ordering::Release);
    let begin = Instant::now();
    wait_until("the outage is logged", Duration::from_secs(60), || {
        crawl.log().contains("state=down")
    });
    wait_until("the connection is replaced", Duration::from_secs(200), || {
        crawl.log().contains("state=up")
    });
    print_note(&format!("a dropped connection was replaced after {:?}", begin.elapsed()));
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    check_nothing_lost_or_doubled(&database);
}

#[test]
fn the_kernel_gives_up_a_blackholed_database_connection() {
    let name = "the_kernel_gives_up_a_blackholed_database_connection";
    let Some(namespace) = namespace::enter(name) else { return };
    let simnet = Simnet::start(&["--nodes", "100", "--dead", "1800", "--time-scale", "0.05"]);
    let cluster = Cluster::start();
    cluster.listen_on("127.0.0.2,127.0.0.3");
    let database = cluster.database();
    // Two addresses of one server.
    let url =
        format!("database.url = \"postgresql://bitdash@127.0.0.2,127.0.0.3/{}\"", database.name);
    let pace = ["crawl.connects_per_second = 60", "database.flush_interval = \"500ms\"", &url];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &pace);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    namespace.run("ip route add blackhole 127.0.0.2/32 table local");
    wait_until("the outage is logged", Duration::from_secs(15), || {
        crawl.log().contains("state=down")
    });
    // Long before the timeout of a batch, which is two and a half minutes.
    let took = wait_until("the other address is used", Duration::from_secs(45), || {
        crawl.log().contains("state=up")
    });
    print_note(&format!("a dead connection was replaced {took:?} after it was noticed"));
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    check_nothing_lost_or_doubled(&database);
}

/// A crawl of a small network with short passes and its own database.
struct SmallCrawl {
    simnet: Simnet,
    database: Database,
    crawl: Crawl,
}

fn small_crawl(cluster: &Cluster) -> SmallCrawl {
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "60", "--time-scale", "0.05"]);
    let database = cluster.database();
    let lines = ["crawl.pass_interval = \"2s\"", "database.flush_interval = \"200ms\""];
    let crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    SmallCrawl { simnet, database, crawl }
}

/// Changes the database as an operator does; retries after a deadlock with the crawler's batch.
fn execute_as_operator(database: &Database, sql: &str) {
    let mut lost = 0;
    while let Err(error) = database.client().batch_execute(sql) {
        lost += 1;
        let is_deadlock = error.code() == Some(&postgres::error::SqlState::T_R_DEADLOCK_DETECTED);
        assert!(is_deadlock && lost < 10, "{sql}: {error:?}");
    }
}

#[test]
fn an_emptied_or_recreated_database_restarts_the_crawl() {
    let cluster = Cluster::start();
    let SmallCrawl { simnet, database, mut crawl } = small_crawl(&cluster);
    let all = "DO $$ DECLARE t record; BEGIN FOR t IN SELECT schemaname, tablename FROM pg_tables
        WHERE schemaname IN ('public', 'bitdash_internal')
        LOOP EXECUTE format('TRUNCATE %I.%I', t.schemaname, t.tablename); END LOOP; END $$";
    let schema = "DROP SCHEMA public CASCADE; CREATE SCHEMA public";
    let drop = format!("DROP DATABASE {} WITH (FORCE)", database.name);
    let create = format!("CREATE DATABASE {} OWNER bitdash TEMPLATE template0", database.name);
    let passes = "DELETE FROM passes";
    let nodes = "TRUNCATE nodes";
    crawl.start(&[]);
    let count = |crawl: &Crawl, words: &str| crawl.log().matches(words).count();
    for (number, change) in [all, schema, &drop, passes, nodes].into_iter().enumerate() {
        // Numbers continue after those of the results that are left.
        let is_whole = change != passes && change != nodes;
        let begins = if is_whole { "pass pass=1 state=started" } else { " state=started" };
        let done = " state=finished";
        let (begun, finished) = (count(&crawl, begins), count(&crawl, done));
        wait_until("the first pass", Duration::from_secs(60), || {
            count(&crawl, done) > finished
                && database.rows("SELECT 1 FROM history LIMIT 1").len() == 1
        });
        if change == drop {
            cluster.admin().batch_execute(&drop).unwrap();
            cluster.admin().batch_execute(&create).unwrap();
        } else {
            execute_as_operator(&database, change);
        }
        wait_until(change, Duration::from_secs(30), || count(&crawl, "state=emptied") > number);
        let line =
            crawl.log().lines().rfind(|line| line.contains("state=emptied")).unwrap().to_owned();
        assert!(line.contains("WARN database state=emptied dropped="), "{line}");
        let begun = if is_whole { begun } else { count(&crawl, begins) };
        // It logs this before it reads the remaining rows.
        wait_until("the crawl restarts", Duration::from_secs(60), || count(&crawl, begins) > begun);
        if change != passes {
            wait_until("the map is complete again", Duration::from_secs(60), || {
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
    assert_eq!(database.value("SELECT count(*) FROM bitdash_internal.store_state"), "1");
    assert_eq!(database.value("SELECT count(*) FROM probes WHERE pass = 0"), "0");
    let newest = database.value("SELECT max(version) FROM bitdash_internal.schema_migrations");
    assert_eq!(newest, bitdash::db::schema::known_version().to_string());
}

#[test]
fn a_database_emptied_during_a_pass_restarts_the_crawl_at_once() {
    let simnet = Simnet::start(&["--nodes", "150", "--dead", "500", "--time-scale", "0.05"]);
    let database = Cluster::shared().database();
    let slow = ["crawl.connects_per_second = 80", "database.flush_interval = \"300ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &slow);
    crawl.start(&["--passes", "1"]);
    crawl.wait_for_log(|line| is_stats(line) && value(line, "responded") != "0");
    execute_as_operator(&database, "DROP SCHEMA public CASCADE; CREATE SCHEMA public");
    crawl.wait_for_log(|line| line.contains("state=emptied"));
    assert!(crawl.wait().success(), "{}", crawl.log());
    check_map(&database, &simnet);
    assert_eq!(database.rows("SELECT pass, finished_at IS NOT NULL FROM passes"), ["1|t"]);
}

#[test]
fn a_session_lost_between_passes_is_regained_before_the_next_one() {
    let cluster = Cluster::start();
    let simnet = Simnet::start(&["--nodes", "60", "--dead", "60", "--time-scale", "0.05"]);
    let database = cluster.database();
    let lines = ["crawl.pass_interval = \"40s\"", "database.flush_interval = \"200ms\""];
    let mut crawl = Crawl::configure(&database, &simnet.seeds(), &lines);
    crawl.start(&["--passes", "2"]);
    crawl.wait_for_log(|line| line.contains("pass=1 state=finished"));
    let session = "SELECT pid FROM pg_stat_activity WHERE usename = 'bitdash' AND state = 'idle'
        AND application_name = 'bitdash'";
    wait_until("it is idle", Duration::from_secs(10), || database.rows(session).len() == 1);
    sleep(Duration::from_secs(5));
    let former = database.value(session);
    database.rows(&format!("SELECT pg_terminate_backend({former})"));
    wait_until("it has a session again", Duration::from_secs(15), || {
        let session = database.value(session);
        !session.is_empty() && session != former
    });
    // A second one is refused long before the next pass.
    let second = Crawl::configure(&database, &simnet.seeds(), &lines);
    let output = second.command(&["crawl"]).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    assert!(!crawl.log().contains("pass=2 state=started"), "{}", crawl.log());
    assert!(crawl.wait().success(), "{}", crawl.log());
    let log = crawl.log();
    assert!(log.contains("database session=lost") && !log.contains("WARN database"), "{log}");
    check_map(&database, &simnet);
}

#[test]
fn a_disconnected_crawler_that_was_replaced_exits_and_writes_nothing() {
    let cluster = Cluster::start();
    let SmallCrawl { simnet, database, crawl: mut first } = small_crawl(&cluster);
    first.start(&[]);
    first.wait_for_log(|line| line.contains("pass=1 state=finished"));
    // Keep only the role of the first crawler from connecting.
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
        let url = cluster.url("postgres", &database.name);
        support::rows(&mut postgres::Client::connect(&url, postgres::NoTls).unwrap(), sql)
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
    assert_eq!(pass(), before, "the first crawler wrote after the second had started");
    second.signal("-CONT");
    second.signal("-TERM");
    assert!(second.wait().success(), "{}", second.log());
}
