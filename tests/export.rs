//! The output of `export` with a real PostgreSQL, read again by parsers of its own, and the figures
//! computed again by SQL.

mod support;

use std::collections::BTreeMap;
use std::net::Ipv4Addr;

use bitdash::commands::export::{Format, Layout, Options, export};
use bitdash::db::reader::Reader;
use bitdash::db::timestamp::Timestamp;
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::rows::{Batch, PassRow};
use bitdash_core::vocabulary::target::VersionInfo;
use support::rows::{T0, address, at, down, ready, up, version};
use support::{Cluster, Database};

const DAY: i64 = 86_400;
const NODES: u8 = 24;
const HOSTILE: &str = "=HYPERLINK(\"http://x\"), \"two\" words # /Satoshi:27.0.0/";

fn exported(database: &Database, format: Format, layout: Layout) -> String {
    exported_at(database, format, layout, None).unwrap()
}

fn exported_at(
    database: &Database,
    format: Format,
    layout: Layout,
    at: Option<Timestamp>,
) -> Result<String, String> {
    let mut text = String::new();
    let mut reader = Reader::open(&database.url).unwrap();
    let options = Options { format, out: "-".into(), layout, at };
    let write = &mut |page: &str| {
        text.push_str(page);
        Ok(true)
    };
    export(&mut reader, &options, 8333, &Filter::new(&[], &[]), write)
        .map_err(|failure| format!("{failure:?}"))?;
    Ok(text)
}

/// Whether a node answers in a pass; nodes come by and by, some never fail.
fn answers(node: u8, pass: i64) -> bool {
    match node {
        1..=4 => true,
        5 => pass % 2 == 1,
        6 => pass < 70,
        7 => pass > 50,
        _ => (pass * 7 + i64::from(node) * 3) % 5 != 0,
    }
}

/// 40 days with two passes a day, and nodes that answer in some of them.
fn forty_days() -> Database {
    let database = Cluster::shared().database();
    let mut store = ready(&database);
    for pass in 1..=80_i64 {
        let seconds = pass * DAY / 2;
        let mut batch = Batch::default();
        for node in 1..=NODES.min(u8::try_from(pass).unwrap() + 2) {
            let user_agent = match node {
                2 => None,
                3 => Some(HOSTILE.to_owned()),
                4 => Some(String::new()),
                _ => version().user_agent,
            };
            let height = Some(if node == 9 { 850_000 } else { 860_000 });
            let info = VersionInfo { user_agent, start_height: height, ..version() };
            let is_new = node == 1 || pass == i64::from(node) - 2 || pass == 1;
            let row = if answers(node, pass) || is_new {
                up(seconds - 9, info)
            } else {
                down(seconds - 9, 1)
            };
            batch.nodes.insert(address(node), row);
        }
        let started = PassRow { started_at: at(seconds - 60), ..PassRow::default() };
        batch.passes.insert(
            u64::try_from(pass).unwrap(),
            PassRow { finished_at: Some(at(seconds)), ..started },
        );
        if pass == 80 {
            batch.names = Some([(address(1), "+Pizarro".to_owned())].into());
        }
        store.write(&batch, 25).unwrap();
        while store.close_day().unwrap().is_some() {}
    }
    let places = "UPDATE nodes SET country = 'DE', asn = 24940, as_name = 'Hetzner \"Ü\"'
        WHERE host = '127.0.0.1'";
    database.client().batch_execute(places).unwrap();
    database
}

/// The cells of RFC 4180.
fn csv_records(text: &str) -> Vec<Vec<String>> {
    let (mut records, mut record, mut cell) = (Vec::new(), Vec::new(), String::new());
    let mut is_quoted = false;
    let mut chars = text.chars().peekable();
    while let Some(c) = chars.next() {
        match (c, is_quoted) {
            ('"', true) if chars.peek() == Some(&'"') => cell.push(chars.next().unwrap()),
            ('"', _) => is_quoted = !is_quoted,
            (',', false) => record.push(std::mem::take(&mut cell)),
            ('\r', false) => {
                assert_eq!(chars.next(), Some('\n'));
                record.push(std::mem::take(&mut cell));
                records.push(std::mem::take(&mut record));
            }
            ('\n', false) => panic!("a bare line feed: {text}"),
            _ => cell.push(c),
        }
    }
    assert!(cell.is_empty() && record.is_empty(), "no line end: {text}");
    records
}

fn csv_rows(database: &Database) -> Vec<BTreeMap<String, String>> {
    let mut records = csv_records(&exported(database, Format::Csv, Layout::Map)).into_iter();
    let heading = records.next().unwrap();
    assert_eq!(heading.join(","), CSV_HEADING);
    let row = |record: Vec<String>| {
        assert_eq!(record.len(), heading.len());
        heading.iter().cloned().zip(record).collect()
    };
    records.map(row).collect()
}

const CSV_HEADING: &str = "address,host,port,name,status,species,release,protocol_version,user_agent,services,\
    service_names,start_height,relay,connect_ms,version_ms,country,asn,as_name,first_seen,last_seen,\
    last_probed,last_outcome,failures,up_day,up_week,up_month,up_all";

#[test]
fn csv_has_every_node_with_the_uptime_that_sql_computes() {
    let database = forty_days();
    let rows = csv_rows(&database);
    assert_eq!(rows.len(), usize::from(NODES));
    for (index, row) in rows.iter().enumerate() {
        let host = format!("127.0.0.{}", index + 1);
        assert_eq!((&row["host"], &row["address"]), (&host, &format!("{host}:8333")));
        let sql = format!("SELECT round(share::numeric, 4)::text FROM uptime('{host}', 8333)");
        let uptime = database.rows(&sql);
        let exported = ["up_day", "up_week", "up_month", "up_all"].map(|key| row[key].clone());
        assert_eq!(exported.to_vec(), uptime, "{host}");
        let sql = format!(
            "SELECT to_char(first_seen AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM nodes
                WHERE host = '{host}'"
        );
        assert_eq!(row["first_seen"], database.rows(&sql)[0]);
    }
    assert_eq!(rows[0]["name"], "'+Pizarro");
    assert_eq!(rows[0]["as_name"], "Hetzner \"Ü\"");
    assert_eq!(rows[0]["services"], (1_u64 << 63 | 0x409).to_string());
    assert_eq!(rows[0]["service_names"], "NETWORK WITNESS NETWORK_LIMITED BIT_63");
    assert_eq!((rows[0]["relay"].as_str(), rows[0]["country"].as_str()), ("true", "DE"));
    assert_eq!(rows[1]["user_agent"], "");
    assert_eq!(rows[2]["user_agent"], format!("'{HOSTILE}"));
    assert_eq!((rows[4]["status"].as_str(), rows[4]["failures"].as_str()), ("down", "1"));
}

#[test]
fn an_empty_map_is_a_heading_without_rows() {
    let database = Cluster::shared().database();
    drop(ready(&database));
    assert_eq!(csv_rows(&database), []);
    for layout in [Layout::Map, Layout::Rows] {
        let json = exported(&database, Format::Json, layout);
        let json: serde_json::Value = serde_json::from_str(&json).unwrap();
        let nodes = if layout == Layout::Map { &json["nodes"] } else { &json };
        assert!(
            nodes.as_object().is_some_and(serde_json::Map::is_empty)
                || *nodes == serde_json::json!([])
        );
    }
    assert_eq!(exported(&database, Format::Uainfo, Layout::Map), "{\n}\n");
    assert_eq!(exported(&database, Format::Seeds, Layout::Map).lines().count(), 1);
}

#[test]
fn json_has_the_layouts_of_bitnodes() {
    let database = forty_days();
    let text = exported(&database, Format::Json, Layout::Map);
    let map: serde_json::Value = serde_json::from_str(&text).unwrap();
    let up = database.rows("SELECT host(host) FROM nodes n WHERE status = 'up' ORDER BY n.host");
    assert_eq!(map["timestamp"], T0 + 40 * DAY);
    assert_eq!((&map["total_nodes"], &map["latest_height"]), (&up.len().into(), &860_000.into()));
    let nodes = map["nodes"].as_object().unwrap();
    assert_eq!(nodes.len(), up.len());
    let places: Vec<usize> =
        up.iter().map(|host| text.find(&format!("\"{host}:8333\"")).unwrap()).collect();
    assert!(places.is_sorted(), "{text}");
    let rows = exported(&database, Format::Json, Layout::Rows);
    let rows: Vec<Vec<serde_json::Value>> = serde_json::from_str(&rows).unwrap();
    for (row, host) in rows.iter().zip(&up) {
        let values = nodes[&format!("{host}:8333")].as_array().unwrap();
        assert_eq!((values.len(), row.len()), (13, 15));
        assert_eq!((&row[0], &row[1]), (&host.as_str().into(), &8333.into()));
        assert_eq!(row[2..], values[..]);
        let sql = format!("SELECT floor(extract(epoch FROM up_since('{host}', 8333)))::text");
        assert_eq!(values[2].to_string(), database.rows(&sql)[0], "{host}");
    }
    assert_eq!(rows.len(), up.len());
    let first = serde_json::json!([
        70016,
        "/Satoshi:27.0.0/\\\\ \\x09",
        T0 + DAY / 2 - 9,
        1_u64 << 63 | 0x409,
        860_000,
        null,
        null,
        "DE",
        0.0,
        0.0,
        null,
        "AS24940",
        "Hetzner \"Ü\""
    ]);
    // The run of a node that never failed is older than the rolls.
    assert_eq!(nodes["127.0.0.1:8333"], first);
    assert_eq!(nodes["127.0.0.2:8333"][1], serde_json::Value::Null);
    assert_eq!(nodes["127.0.0.3:8333"][1], HOSTILE);
}

#[test]
fn a_past_pass_is_exported_from_its_roll() {
    let database = forty_days();
    let export = |seconds: i64| {
        exported_at(&database, Format::Json, Layout::Map, Some(Timestamp(at(seconds))))
    };
    for pass in [30, 69, 70, 79, 80] {
        // The next pass has not ended yet.
        let text = export(pass * DAY / 2 + DAY / 2 - 1).unwrap();
        let json: serde_json::Value = serde_json::from_str(&text).unwrap();
        assert_eq!(
            (&json["timestamp"], &json["approximate"]),
            (&(T0 + pass * DAY / 2).into(), &true.into())
        );
        let is_known = |node: u8, pass: i64| i64::from(node) - 2 <= pass;
        let is_new = |node: u8, pass: i64| pass == i64::from(node) - 2 || pass == 1;
        let was_up =
            |node: u8, pass| is_known(node, pass) && (answers(node, pass) || is_new(node, pass));
        let mut expected: Vec<u8> = (1..=NODES).filter(|node| was_up(*node, pass)).collect();
        assert_eq!(json["total_nodes"], expected.len());
        let nodes = json["nodes"].as_object().unwrap();
        for node in &expected {
            let mut first = pass;
            while first > 0 && was_up(*node, first - 1) {
                first -= 1;
            }
            // Older runs begin with a day, or with the first response.
            if first > 22 {
                let since = &nodes[&format!("127.0.0.{node}:8333")][2];
                assert_eq!(*since, T0 + first * DAY / 2, "{node} at pass {pass}");
            }
        }
        let mut found: Vec<u8> = nodes.keys().map(|key| last_byte(key)).collect();
        found.sort_unstable();
        expected.sort_unstable();
        assert_eq!(found, expected, "pass {pass}");
    }
    let oldest = database.value("SELECT min(at) FROM rolls");
    let error = export(5 * DAY).unwrap_err();
    assert!(error.contains("30 days") && error.contains(&oldest[..10]), "{error} {oldest}");
    assert!(!exported(&database, Format::Json, Layout::Map).contains("approximate"));
    let empty = Cluster::shared().database();
    drop(ready(&empty));
    let now = Some(Timestamp(at(DAY)));
    let error = exported_at(&empty, Format::Json, Layout::Map, now).unwrap_err();
    assert!(error.contains("no pass has ended yet"), "{error}");
}

fn last_byte(address: &str) -> u8 {
    address.split(':').next().unwrap().parse::<Ipv4Addr>().unwrap().octets()[3]
}

/// A line of a dump as Bitcoin Core's makeseeds.py reads it.
#[derive(Debug)]
struct SeedLine {
    ip: Ipv4Addr,
    good: i64,
    last_success: i64,
    month: f64,
    blocks: i64,
    services: u64,
    version: i64,
    agent: String,
}

/// makeseeds.py, `parseline`: it needs 12 words, though it checks for 11. A user agent may have
/// spaces: of those it takes the first word.
fn seed_line(line: &str) -> Option<SeedLine> {
    if line.starts_with('#') {
        return None;
    }
    let words: Vec<&str> = line.split_whitespace().collect();
    assert!(words.len() >= 12, "{line}");
    let (ip, port) = words[0].split_once(':').unwrap();
    assert_ne!(port.parse::<u16>().unwrap(), 0);
    for share in &words[3..8] {
        let (whole, decimals) = share.strip_suffix('%').unwrap().split_once('.').unwrap();
        let is_number = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit());
        assert!(is_number(whole) && is_number(decimals) && decimals.len() == 2, "{line}");
        assert!(whole.parse::<u8>().unwrap() <= 100, "{line}");
    }
    assert!(words[11].starts_with('"') && line.ends_with('"'), "{line}");
    assert!(!line.contains(|c: char| c.is_control()), "{line}");
    Some(SeedLine {
        ip: ip.parse().unwrap(),
        good: words[1].parse().unwrap(),
        last_success: words[2].parse().unwrap(),
        month: words[7].strip_suffix('%').unwrap().parse().unwrap(),
        blocks: words[8].parse().unwrap(),
        services: u64::from_str_radix(words[9], 16).unwrap(),
        version: words[10].parse().unwrap(),
        agent: line.split_once('"').unwrap().1.strip_suffix('"').unwrap().to_owned(),
    })
}

#[test]
fn seeds_are_the_dump_that_makeseeds_reads() {
    let database = forty_days();
    let text = exported(&database, Format::Seeds, Layout::Map);
    let (heading, rest) = text.split_once('\n').unwrap();
    assert!(heading.starts_with("# address         ") && heading.ends_with("svcs  version"));
    let lines: Vec<SeedLine> = rest.lines().map(|line| seed_line(line).unwrap()).collect();
    assert_eq!(lines.len(), usize::from(NODES));
    assert!(lines.is_sorted_by(|a, b| a.month >= b.month), "{text}");
    for (line, text) in lines.iter().zip(rest.lines()) {
        let columns = heading.find("blocks").unwrap() + "blocks".len();
        assert!(text[..columns].ends_with(&format!(" {}", line.blocks)), "{text}");
        let share = |period: &str| {
            let sql = format!(
                "SELECT round(100.0 * count(*) FILTER (WHERE status <> 'down') / count(*), 2)::text
                    FROM roll_of('{0}', 8333) WHERE at > (SELECT max(at) FROM rolls) - interval '{period}'",
                line.ip
            );
            database.rows(&sql)[0].parse::<f64>().unwrap()
        };
        assert_eq!(line.month, share("30 days"), "{text}");
        let is_good = answers(line.ip.octets()[3], 80) && line.blocks >= 860_000 - 144;
        assert_eq!(line.good == 1, is_good, "{text}");
        let sql = format!(
            "SELECT floor(extract(epoch FROM last_seen))::text FROM nodes WHERE host = '{}'",
            line.ip
        );
        assert_eq!(line.last_success.to_string(), database.rows(&sql)[0]);
        assert_eq!((line.services, line.version), (1 << 63 | 0x409, 70016));
    }
    let agent = |last: u8| &lines.iter().find(|line| line.ip.octets()[3] == last).unwrap().agent;
    assert_eq!((agent(2).as_str(), agent(3).as_str()), ("", HOSTILE));
}

#[test]
fn uainfo_counts_the_nodes_up_by_user_agent() {
    let database = forty_days();
    let text = exported(&database, Format::Uainfo, Layout::Map);
    let json: BTreeMap<String, BTreeMap<String, i64>> = serde_json::from_str(&text).unwrap();
    let sql = "SELECT coalesce(user_agent, ''), count(*) FROM nodes WHERE status = 'up' GROUP BY 1";
    let mut client = database.client();
    let counts: BTreeMap<String, BTreeMap<String, i64>> = client
        .query(sql, &[])
        .unwrap()
        .iter()
        .map(|row| (row.get(0), BTreeMap::from([("listening".to_owned(), row.get(1))])))
        .collect();
    assert_eq!(json, counts);
    assert!(json.contains_key(HOSTILE) && json[""]["listening"] == 2);
}

#[test]
fn an_export_of_many_pages_is_whole_and_stops_where_its_reader_stops() {
    let database = forty_days();
    let sql = "INSERT INTO nodes SELECT '127.1.0.0'::inet + n, 8333, NULL, 'up', 'Core', 'Core 27', 70016,
        '/x' || n || '/', 9, 1, true, 1, 1, NULL, NULL, NULL, now(), now(), now(), 'responded', 0, now(), NULL,
        NULL FROM generate_series(1, 2500) n";
    database.client().batch_execute(sql).unwrap();
    let up = database.rows("SELECT host(host) FROM nodes WHERE status = 'up'").len();
    let rows = csv_rows(&database);
    assert_eq!(rows.len(), 2_500 + usize::from(NODES));
    // No pass has ended since they are known.
    assert_eq!((rows[2_000]["up_day"].as_str(), rows[2_000]["up_all"].as_str()), ("", ""));
    let json = exported(&database, Format::Json, Layout::Rows);
    assert_eq!(serde_json::from_str::<Vec<serde_json::Value>>(&json).unwrap().len(), up);
    let json = exported(&database, Format::Json, Layout::Map);
    let map: serde_json::Value = serde_json::from_str(&json).unwrap();
    assert_eq!(map["nodes"].as_object().unwrap().len(), up);
    let seeds = exported(&database, Format::Seeds, Layout::Map);
    assert_eq!(seeds.lines().count(), 2_501 + usize::from(NODES));
    let uainfo = exported(&database, Format::Uainfo, Layout::Map);
    assert!(serde_json::from_str::<serde_json::Value>(&uainfo).unwrap()["/x2500/"].is_object());
    for format in [Format::Csv, Format::Json, Format::Seeds, Format::Uainfo] {
        let mut pages = 0;
        let mut reader = Reader::open(&database.url).unwrap();
        let options = Options { format, out: "-".into(), layout: Layout::Map, at: None };
        export(&mut reader, &options, 8333, &Filter::new(&[], &[]), &mut |_| {
            pages += 1;
            Ok(pages < 2)
        })
        .unwrap();
        assert_eq!(pages, 2, "{format:?}");
    }
}
