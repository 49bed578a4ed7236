//! `compare` with the real program: its figures are derived from the truth of the simulated
//! network.

mod support;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::process::Output;
use std::time::Duration;

use bitdash_core::vocabulary::address::Address;
use bitdash_simnet::verify::truth::{Kind, Row};
use flate2::Compression;
use flate2::write::GzEncoder;
use serde_json::{Value, json};
use support::crawl::{Crawl, Simnet};
use support::rows::{ready, rich_batch};
use support::{Cluster, Database, terminal};

fn run(crawl: &Crawl, args: &[&str]) -> (i32, String, String) {
    let Output { status, stdout, stderr } =
        crawl.command(&[&["compare"], args].concat()).output().unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (status.code().unwrap(), text(stdout), text(stderr))
}

fn list(crawl: &Crawl, file: &str, category: &str) -> BTreeSet<Address> {
    let (status, out, err) = run(crawl, &[file, "--list", category]);
    assert_eq!((status, err.as_str()), (0, ""), "{category}");
    let lines: Vec<Address> = out.lines().map(|line| line.parse().unwrap()).collect();
    assert!(lines.is_sorted(), "{category}: {out}");
    lines.into_iter().collect()
}

fn addresses<'r>(rows: impl IntoIterator<Item = &'r Row>) -> BTreeSet<Address> {
    rows.into_iter().map(|row| row.address).collect()
}

/// A crawled network, and what is in a list of it.
struct World {
    crawl: Crawl,
    database: Database,
    nodes: Vec<Row>,
    dead: Vec<Row>,
    simnet: Simnet,
}

impl World {
    fn new() -> Self {
        let simnet = Simnet::start(&["--nodes", "400", "--dead", "300", "--time-scale", "0.05"]);
        let database = Cluster::shared().database();
        let exclude = "filter.exclude = [\"127.255.7.0/24\"]";
        let mut crawl = Crawl::configure(&database, &simnet.seeds(), &[exclude]);
        assert!(crawl.run(&["--passes", "1"]).success(), "{}", crawl.log());
        let (nodes, dead) = (simnet.truth(Kind::Node), simnet.truth(Kind::Dead));
        Self { crawl, database, nodes, dead, simnet }
    }

    /// Nodes whose place modulo `n` is `rest`.
    fn nth(&self, n: usize, rest: usize) -> impl Iterator<Item = &Row> {
        self.nodes.iter().skip(rest).step_by(n)
    }

    fn set(&self, rows: &BTreeSet<Address>, change: &str) {
        for address in rows {
            let sql = format!(
                "UPDATE nodes SET {change} WHERE host = '{}' AND port = {}",
                address.ip(),
                address.port()
            );
            assert_eq!(self.database.client().execute(&sql, &[]).unwrap(), 1);
        }
    }
}

fn values(row: &Row, agent: Option<&str>, higher: i32) -> Value {
    let fields = row.fields.as_ref().unwrap();
    let agent = agent.or(fields.user_agent.as_deref());
    let bytes = agent.map(|agent| watchglass::text::to_bytes(agent).unwrap());
    let agent = bytes.map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    let height = fields.start_height.map(|height| height.saturating_add(higher));
    json!([fields.protocol_version, agent, 1_777_000_000, 1, height])
}

/// A world that has changed since its list was made, and what the list says of it.
struct Case {
    world: World,
    network_port: u16,
    file: String,
    entries: usize,
    missing: BTreeSet<Address>,
    full: BTreeSet<Address>,
    refused: BTreeSet<Address>,
    silent: BTreeSet<Address>,
    both: BTreeSet<Address>,
    agents: BTreeSet<Address>,
    heights: BTreeSet<Address>,
}

/// Addresses of the list that no node has.
const OTHERS: [&str; 4] =
    ["127.255.7.1:8333", "127.255.7.2:8333", "8.8.8.8:8333", "127.255.8.1:8333"];
const LEFT_OUT: [&str; 4] =
    ["[2001:db8::1]:8333", "[2001:db8::2]:8333", "x.onion:8333", "127.9.9.9:0"];

impl Case {
    /// Every tenth node is missing in the list; others are full or down here.
    fn new(timestamp: u64) -> Self {
        let mut world = World::new();
        // Two of those that are missing are too old for other crawlers.
        for (index, species) in [(10, "TRB"), (20, "Core")] {
            let row = &mut world.nodes[index];
            let fields = row.fields.as_mut().unwrap();
            (fields.protocol_version, fields.species) = (60_002, species.to_owned());
            let change = format!("protocol_version = 60002, species = '{species}'");
            let address = row.address;
            world.set(&[address].into(), &change);
        }
        let missing = addresses(world.nth(10, 0));
        let full = addresses(world.nth(10, 1));
        let (refused, silent) = (addresses(world.nth(20, 2)), addresses(world.nth(20, 12)));
        let down = |outcome: &str, ago: &str| {
            let last_seen = format!("last_seen = now() - interval '{ago} 1 minute'");
            format!("status = 'down', failures = 2, last_outcome = '{outcome}', {last_seen}")
        };
        world.set(&full, "status = 'full', last_outcome = 'closed', failures = 1");
        world.set(&refused, &down("refused", "3 hours"));
        world.set(&silent, &down("connect_timeout", "6 days"));
        let changed = [&missing, &full, &refused, &silent];
        let is_unchanged = |address: &Address| !changed.iter().any(|set| set.contains(address));
        let both = addresses(&world.nodes).into_iter().filter(is_unchanged).collect();
        let mut case = Self {
            network_port: world.nodes[0].address.port(),
            file: String::new(),
            entries: 0,
            missing,
            full,
            refused,
            silent,
            both,
            agents: BTreeSet::new(),
            heights: BTreeSet::new(),
            world,
        };
        case.write_list(timestamp);
        case
    }

    /// An address with another port.
    fn other_port(&self) -> Address {
        Address::new(self.world.nodes[0].address.ip(), 9)
    }

    fn write_list(&mut self, timestamp: u64) {
        let other = || json!([70016, "/x/", 0, 1, 5, null, null, null, 0.0, 0.0, null, null, null]);
        let mut map = serde_json::Map::new();
        for (index, row) in self.world.nodes.iter().enumerate() {
            if self.missing.contains(&row.address) {
                continue;
            }
            let is_both = self.both.contains(&row.address);
            let agent = (index % 7 == 0).then_some("/Other:1.0/");
            let height = row.fields.as_ref().unwrap().start_height;
            let has_height = height.is_some_and(|height| (0..1 << 30).contains(&height));
            let higher = if has_height { [0, 2, 3][index % 3] } else { 0 };
            self.agents.extend(Some(row.address).filter(|_| is_both && agent.is_some()));
            self.heights.extend(Some(row.address).filter(|_| is_both && higher > 2));
            map.insert(row.address.to_string(), values(row, agent, higher));
        }
        let others = OTHERS.iter().chain(&LEFT_OUT).map(ToString::to_string);
        let dead = self.world.dead.iter().map(|row| row.address.to_string());
        for address in dead.chain(others).chain([self.other_port().to_string()]) {
            assert!(map.insert(address, other()).is_none());
        }
        self.entries = map.len();
        let snapshot = json!({ "timestamp": timestamp, "nodes": map, "total_nodes": 1 });
        let path = self.world.crawl.dir.path().join("list.json.gz");
        let mut encoder = GzEncoder::new(fs::File::create(&path).unwrap(), Compression::fast());
        encoder.write_all(snapshot.to_string().as_bytes()).unwrap();
        encoder.finish().unwrap();
        self.file = path.to_str().unwrap().to_owned();
    }

    fn run(&self, args: &[&str]) -> String {
        let (status, out, err) = run(&self.world.crawl, &[&[self.file.as_str()], args].concat());
        assert_eq!((status, err.as_str()), (0, ""), "{args:?}");
        out
    }

    /// Number of dead addresses with this outcome.
    fn dead(&self, outcome: &str) -> usize {
        self.world.dead.iter().filter(|row| row.outcome.as_str() == outcome).count()
    }

    /// Why nodes are not in the list; `rest` names those without another reason.
    fn why_ours(&self, rest: &str) -> String {
        let fields = |row: &Row| row.fields.clone().unwrap();
        let (old, new): (Vec<&Row>, Vec<&Row>) =
            self.world.nth(10, 0).partition(|row| fields(row).protocol_version < 70_001);
        let trb = old.iter().filter(|row| fields(row).species == "TRB").count();
        assert!(old.len() > trb && trb > 0, "both kinds of old nodes are missing");
        let ports = new.iter().filter(|row| row.address.port() != self.network_port).count();
        let reasons = [
            (old.len(), format!("version < 70001 {} (TRB {trb})", old.len())),
            (ports, format!("not {} {ports}", self.network_port)),
            (new.len() - ports, format!("{rest} {}", new.len() - ports)),
        ];
        assert!(new.len() > ports, "no missing node has the network's port");
        let reasons = reasons.into_iter().filter(|(count, _)| *count > 0).map(|(_, text)| text);
        format!("why: {}", reasons.collect::<Vec<_>>().join("; "))
    }

    fn check_text(&self) {
        let out = self.run(&[]);
        println!("{out}");
        let words = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = out.lines().map(words).collect();
        let (all, compared, both) = (self.entries, self.entries - LEFT_OUT.len(), self.both.len());
        let theirs = "theirs bitnodes list.json.gz, 2096-10-02 07:06 UTC";
        assert_eq!(lines[0], format!("{theirs}: {all} nodes, {compared} of them IPv4"));
        let (up, full) = (both + self.missing.len(), self.full.len());
        assert!(lines[1].starts_with("ours pass 1, 20"), "{out}");
        assert!(lines[1].contains(&format!("UTC: {up} up, {full} full. ")), "{out}");
        let apart = " days apart: the differences below are mostly time";
        assert!(lines[1].ends_with(apart), "{out}");
        let permille = 1_000 * both / compared;
        let (agents, heights) = (self.agents.len(), self.heights.len());
        let (refused, silent) = (self.refused.len(), self.silent.len());
        let dead = self.world.dead.len();
        let (dead_silent, dead_refused) = (self.dead("connect_timeout"), self.dead("refused"));
        assert!(dead_silent > dead_refused && dead_silent + dead_refused == dead);
        let expected = [
            format!(
                "both {both} {}.{} % of theirs agent differs {agents}, height differs by > 2: {heights}",
                permille / 10,
                permille % 10,
            ),
            format!("only theirs {} why:", compared - both),
            format!("full here {full} accepted and closed; answered within 7 days"),
            format!(
                "down here {} connect_timeout {silent}, refused {refused} (last answered 3 h to 6 d ago)",
                refused + silent,
            ),
            format!(
                "candidate, never answered {dead} connect_timeout {dead_silent}, refused {dead_refused}"
            ),
            "other port of a known host 1".to_owned(),
            "excluded by our filter 3 127.255.7.0/24, not in filter.only".to_owned(),
            "never heard of 1 none of our nodes named them".to_owned(),
            format!("only ours {} {}", self.missing.len(), self.why_ours("else")),
            "not compared 4 IPv6 2, onion 1, port 0 1".to_owned(),
        ];
        assert_eq!(lines[2..], expected);
    }

    fn check_lists(&self) {
        let others = OTHERS.map(|address| address.parse::<Address>().unwrap());
        let list = |category| list(&self.world.crawl, &self.file, category);
        for (category, expected) in [
            ("both", &self.both),
            ("agent", &self.agents),
            ("height", &self.heights),
            ("full", &self.full),
            ("down", &self.refused.union(&self.silent).copied().collect()),
            ("candidate", &addresses(&self.world.dead)),
            ("other-port", &[self.other_port()].into()),
            ("excluded", &others[..3].iter().copied().collect()),
            ("unheard", &others[3..].iter().copied().collect()),
            ("only-ours", &self.missing),
        ] {
            assert_eq!(&list(category), expected, "{category}");
        }
        let only_theirs = self.entries - LEFT_OUT.len() - self.both.len();
        assert_eq!(list("only-theirs").len(), only_theirs);
        let out = self.run(&["--list", "unheard", "--json"]);
        assert_eq!(out, "{\"host\":\"127.255.8.1\",\"port\":8333}\n");
    }

    fn check_json(&self) {
        let json: Value = serde_json::from_str(&self.run(&["--json"])).unwrap();
        assert_eq!(json["both"]["nodes"], self.both.len());
        assert_eq!(json["only_theirs"]["down"]["outcomes"]["refused"], self.refused.len());
        let outcomes = &json["only_theirs"]["candidate"]["outcomes"];
        assert_eq!(outcomes["refused"], self.dead("refused"));
        let kinds = json!({"nodes": 4, "kinds": {"ipv6": 2, "onion": 1, "port_0": 1}});
        assert_eq!(json["not_compared"], kinds);
        assert_eq!(json["only_ours"]["nodes"], self.missing.len());
    }
}

#[test]
fn every_difference_is_explained_as_the_network_is() {
    let mut case = Case::new(4_000_000_000);
    let port = format!("network.port = {}", case.network_port);
    let exclude = "filter.exclude = [\"127.255.7.0/24\"]";
    let seeds = case.world.simnet.seeds();
    case.world.crawl.reconfigure(&case.world.database, &seeds, &[exclude, &port]);
    case.check_text();
    case.check_lists();
    case.check_json();
    // With a list of the past every node answered after its time.
    case.write_list(1_000_000_000);
    let out = case.run(&[]);
    assert!(out.contains(&case.why_ours("first answered after their time")), "{out}");
}

#[test]
fn our_own_exports_differ_in_nothing() {
    let world = World::new();
    let count = world.nodes.len();
    for arguments in [&["json"][..], &["json", "--layout", "rows"], &["csv"], &["seeds"]] {
        let path = world.crawl.dir.path().join(arguments.join("_"));
        let file = path.to_str().unwrap();
        let export = [&["export"], arguments, &["--out", file]].concat();
        assert!(world.crawl.command(&export).output().unwrap().status.success());
        let (status, out, err) = run(&world.crawl, &[file, "--json"]);
        assert_eq!((status, err.as_str()), (0, ""), "{arguments:?}");
        let json: Value = serde_json::from_str(&out).unwrap();
        let both = json!({ "nodes": count, "agent_differs": 0, "height_differs": 0 });
        assert_eq!(json["both"], both, "{arguments:?}");
        assert_eq!(
            (&json["only_theirs"]["nodes"], &json["only_ours"]["nodes"]),
            (&json!(0), &json!(0))
        );
        if arguments != ["json", "--layout", "rows"] {
            assert!(json["seconds_apart"].as_u64().unwrap() < 120, "{arguments:?}: {out}");
        }
    }
}

#[test]
fn a_comparison_fits_a_terminal_of_80_columns() {
    let world = World::new();
    let down = "UPDATE nodes SET status = 'down', failures = 1, last_seen = now() - interval '2 days',
        last_outcome = (ARRAY['refused', 'unreachable', 'connect_timeout', 'handshake_timeout'])[1 + port % 4]
        WHERE host < '127.128.0.0'";
    world.database.client().batch_execute(down).unwrap();
    let path = world.crawl.dir.path().join("list.txt");
    let rows = world.nodes.iter().chain(&world.dead);
    let text: String = rows.map(|row| format!("{}\n", row.address)).collect();
    fs::write(&path, text + "?\n").unwrap();
    let arguments = "-c bitdash.toml compare list.txt";
    let out = terminal::run(world.crawl.dir.path(), 80, arguments, Duration::from_secs(20));
    println!("{out}");
    let last = world.nodes.len() + world.dead.len() + 1;
    assert!(
        out.contains(&format!("bitdash: list.txt: line {last}: \"?\" is not an address")),
        "{out}"
    );
    assert!(!out.contains("differs"), "a plain list has no user agents: {out}");
    assert!(out.contains(", time unknown: ") && out.contains("candidate, never answered"), "{out}");
    assert!(out.lines().all(|line| line.trim_end().chars().count() <= 80), "{out}");
}

#[test]
fn a_role_that_may_only_read_the_map_may_compare() {
    let cluster = Cluster::shared();
    let database = cluster.database();
    ready(&database).write(&rich_batch(), 25).unwrap();
    let role = format!("compare_reader_{}", database.name);
    cluster.admin().batch_execute(&format!("CREATE ROLE {role} LOGIN")).unwrap();
    let grant = format!("GRANT SELECT ON ALL TABLES IN SCHEMA public TO {role}");
    database.client().batch_execute(&grant).unwrap();
    let url = cluster.url(&role, &database.name);
    let reader = Database { url, name: database.name.clone() };
    let crawl = Crawl::configure(&reader, "none".as_ref(), &[]);
    let path = crawl.dir.path().join("list.csv");
    let list = "host,port\n127.0.0.1,8333\n127.0.0.2,8333\n127.0.0.3,1\n127.0.0.9,1\n";
    fs::write(&path, list).unwrap();
    let (status, out, err) = run(&crawl, &[path.to_str().unwrap(), "--json"]);
    assert_eq!((status, err.as_str()), (0, ""));
    let json: Value = serde_json::from_str(&out).unwrap();
    let theirs = &json["only_theirs"];
    assert_eq!((&json["both"]["nodes"], &theirs["unheard"]), (&json!(1), &json!(1)));
    assert_eq!((&theirs["candidate"]["nodes"], &theirs["other_port"]), (&json!(1), &json!(1)));
}

#[test]
fn a_million_addresses_are_compared_in_bounded_memory() {
    let database = Cluster::shared().database();
    drop(ready(&database));
    let fill = "INSERT INTO nodes SELECT '127.1.0.0'::inet + n, 8333, NULL, 'up', 'Core', 'Core 27', 70016,
        '/x' || n || '/', 9, 1, true, 1, 1, NULL, NULL, NULL, now(), now(), now(), 'responded', 0, now(), NULL,
        NULL FROM generate_series(0, 99999) n;
        INSERT INTO bitdash_internal.address_journal
        SELECT bitdash_internal.key('127.2.0.0'::inet + n, 8333), 1, 1, 1, 1, 0, 1, 3
        FROM generate_series(0, 299999) n";
    database.client().batch_execute(fill).unwrap();
    let crawl = Crawl::configure(&database, "none".as_ref(), &[]);
    let path = crawl.dir.path().join("list.txt");
    let host = |n: u32| format!("127.{}.{}.{} 8333\n", 1 + (n >> 16), n >> 8 & 255, n & 255);
    fs::write(&path, (0..1_000_000).map(host).collect::<String>()).unwrap();
    let limit = "ulimit -d 100000; exec \"$@\"";
    let mut command = std::process::Command::new("sh");
    command.args(["-c", limit, "sh", env!("CARGO_BIN_EXE_bitdash"), "-c"]).arg(crawl.config());
    let output = command.args(["compare", "--json"]).arg(&path).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let json: Value = serde_json::from_slice(&output.stdout).unwrap();
    // 127.1.0.0 to 127.2.134.159 are up, and 127.2.0.0 to 127.6.147.223 known as candidates.
    assert_eq!(json["both"]["nodes"], 100_000);
    let candidates = 300_000 - (100_000 - 65_536);
    assert_eq!(json["only_theirs"]["candidate"]["nodes"], candidates);
    assert_eq!(json["only_theirs"]["candidate"]["outcomes"]["connect_timeout"], candidates);
    assert_eq!(json["only_theirs"]["unheard"], 1_000_000 - 100_000 - candidates);
}
