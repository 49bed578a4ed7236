//! Lists of every format, and hostile ones.

use std::io::{Read, Write, repeat};

use flate2::Compression;
use flate2::write::GzEncoder;

use super::*;

type Row = (String, Option<String>, Option<i32>);

fn list(bytes: &[u8]) -> (Result<Summary, Fault>, Vec<Row>) {
    let mut rows = Vec::new();
    let summary = read(bytes, 8333, &mut |entry| {
        rows.push((entry.address.to_string(), entry.agent.map(str::to_owned), entry.height));
    });
    (summary, rows)
}

fn good(text: &str) -> (Summary, Vec<Row>) {
    let (summary, rows) = list(text.as_bytes());
    (summary.unwrap_or_else(|fault| panic!("{fault}: {text}")), rows)
}

fn fault(text: &str) -> String {
    list(text.as_bytes()).0.unwrap_err().to_string()
}

fn row(address: &str, agent: Option<&str>, height: Option<i32>) -> Row {
    (address.to_owned(), agent.map(str::to_owned), height)
}

fn packed(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).unwrap();
    encoder.finish().unwrap()
}

const MAP: &str = r#"{"timestamp": 1777339673, "total_nodes": 4, "latest_height": 946712, "nodes": {
"192.0.2.1:8333": [70016, "/Satoshi:28.0.0/", 1777000000, 3081, 946712, null, "Bonn", "DE", 50.7, 7.1, null, "AS24940", "H"],
"192.0.2.2:18333": [70015, "", 1777000000, 1, 946711],
"[2001:db8::1]:8333": [70016, "/x/", 1777000000, 1, 946711],
"abcdefgh.onion:8333": [70016, "/x/", 1777000000, 1, 946711]
}}"#;

const ROWS: &str = r#"[["192.0.2.1", 8333, 70016, "/Satoshi:28.0.0/", 1777000000, 3081, 946712, null, null, null, 0.0, 0.0, null, null, null],
["192.0.2.2", 18333, 70015, "", 1777000000, 1, 946711], ["2001:db8::1", 8333, 70016, "/x/", 1, 1, 1],
["abcdefgh.onion", 8333, 70016, "/x/", 1, 1, 1]]"#;

const CSV: &str = "address,host,port,user_agent,start_height,last_probed\r\n\
    192.0.2.1:8333,192.0.2.1,8333,/Satoshi:28.0.0/,946712,2026-04-28T01:27:53Z\r\n\
    192.0.2.2:18333,192.0.2.2,18333,,946711,2026-04-28T01:27:52Z\r\n\
    [2001:db8::1]:8333,2001:db8::1,8333,/x/,1,\r\nabcdefgh.onion:8333,abcdefgh.onion,8333,/x/,1,\r\n";

const SEEDS: &str = "# address     good  lastSuccess  %(2h) %(8h) %(1d) %(7d) %(30d) blocks svcs version\n\
    192.0.2.1:8333   1  1777339673  100.00% 100.00% 100.00% 100.00%  99.10%  946712  00000c09  70016 \"/Satoshi:28.0.0/\"\n\
    192.0.2.2:18333  0  1777000000  0.00% 0.00% 0.00% 0.00%  9.10%  946711  00000001  70015 \"\"\n\
    [2001:db8::1]:8333  0  0  0.00% 0.00% 0.00% 0.00%  0.00%  0  00000000  0 \"\"\n\
    abcdefgh.onion:8333  0  0  0.00% 0.00% 0.00% 0.00%  0.00%  0  00000000  0 \"\"\n";

#[test]
fn every_format_is_told_by_its_content_compressed_or_not() {
    for (text, format) in [
        (MAP, Format::Bitnodes),
        (ROWS, Format::Bitnodes),
        (CSV, Format::Csv),
        (SEEDS, Format::Seeds),
    ] {
        let (summary, rows) = good(text);
        assert_eq!((summary.format, summary.entries), (format, 4), "{text}");
        assert_eq!(rows.len(), 2, "{text}");
        assert_eq!(rows[0], row("192.0.2.1:8333", Some("/Satoshi:28.0.0/"), Some(946_712)));
        assert_eq!((rows[1].0.as_str(), rows[1].2), ("192.0.2.2:18333", Some(946_711)), "{text}");
        assert_eq!(rows[1].1.as_deref().unwrap_or(""), "", "{text}");
        assert_eq!(summary.left_out, LeftOut { ipv6: 1, onion: 1, ..LeftOut::default() }, "{text}");
        let at = (text != ROWS).then_some(UnixTime::from_secs(1_777_339_673));
        assert_eq!(summary.at, at, "{text}");
        for variant in [packed(text.as_bytes()), [b"\xef\xbb\xbf\n  ", text.as_bytes()].concat()] {
            let (again, rows_again) = list(&variant);
            assert_eq!((again, rows_again), (Ok(summary.clone()), rows.clone()), "{text}");
        }
        let members = [packed(&text.as_bytes()[..40]), packed(&text.as_bytes()[40..])].concat();
        assert_eq!(list(&members), (Ok(summary), rows), "gzip of two members");
    }
}

#[test]
fn a_plain_list_has_hosts_ports_names_and_comments() {
    let text = "# nodes\n192.0.2.1\n192.0.2.2:18333 # the second\n192.0.2.3 8334 Pizarro\n  192.0.2.4\tname\r\n\
        192.0.2.5:1 2\n::ffff:192.0.2.6\n\n[2001:db8::1]:8333\n2001:db8::2\nx.b32.i2p:0\nseed.example.org 8333\n\
        192.0.2.7:0\n192.0.2.8 0\n";
    let (summary, rows) = good(text);
    let addresses: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
    let expected = [
        "192.0.2.1:8333",
        "192.0.2.2:18333",
        "192.0.2.3:8334",
        "192.0.2.4:8333",
        "192.0.2.5:1",
        "192.0.2.6:8333",
    ];
    assert_eq!(addresses, expected);
    let left_out = LeftOut { ipv6: 2, i2p: 1, names: 1, port_zero: 2, ..LeftOut::default() };
    assert_eq!((summary.format, summary.left_out), (Format::Plain, left_out));
    assert_eq!((summary.entries, summary.faults), (12, vec![]));
}

#[test]
fn csv_needs_no_heading_and_its_cells_may_be_quoted() {
    let (summary, rows) =
        good("192.0.2.1,8333\n\"192.0.2.2\",\"1\",\"a,\"\"b\"\n192.0.2.3:9,5\n192.0.2.4,\n");
    assert_eq!(summary.format, Format::Csv);
    let addresses: Vec<&str> = rows.iter().map(|row| row.0.as_str()).collect();
    let expected = ["192.0.2.1:8333", "192.0.2.2:1", "192.0.2.3:9", "192.0.2.4:8333"];
    assert_eq!(addresses, expected);
    let (_, rows) =
        good("Port,IP,User_Agent\n5,192.0.2.1,\"'=1+1, \"\"x\"\"\"\n6,192.0.2.2,'quoted'\n");
    assert_eq!(rows[0], row("192.0.2.1:5", Some("=1+1, \"x\""), None));
    assert_eq!(rows[1], row("192.0.2.2:6", Some("'quoted'"), None));
}

#[test]
fn the_agent_of_a_dump_may_contain_anything() {
    let line = "192.0.2.1:8333 1 1777339673 1.00% 1.00% 1.00% 1.00% 1.00% 946712 0000c09 70016";
    let (_, rows) = good(&format!("{line} \"/a b # \"c\", d/\"\n"));
    assert_eq!(rows, [row("192.0.2.1:8333", Some("/a b # \"c\", d/"), Some(946_712))]);
}

#[test]
fn unreadable_entries_are_counted_and_the_first_are_told() {
    let mut text =
        "192.0.2.1\nmy host!\n192.0.2.300\n192.0.2.2:65536\n192.0.2.3:x\n\u{1b}[2J\n".to_owned();
    text += &format!("{}\n192.0.2.9\n300 300\n", "9".repeat(20_000));
    let (summary, rows) = good(&text);
    assert_eq!((rows.len(), summary.entries), (2, 9));
    assert_eq!((summary.left_out.names, summary.left_out.unreadable), (1, 6));
    let faults: Vec<String> = summary.faults.iter().map(ToString::to_string).collect();
    let expected = [
        "line 3: \"192.0.2.300\" is not an address",
        "line 4: \"192.0.2.2\" has no port up to 65535",
        "line 5: \"192.0.2.3\" has no port up to 65535",
        "line 6: \"\\u{1b}[2J\" is not an address",
        "line 7: it is longer than 8192 bytes",
    ];
    assert_eq!(faults, expected);
    let (summary, _) = good("host,port\n\"192.0.2.1,8333\n");
    assert_eq!(summary.faults[0].to_string(), "line 2: a quoted cell does not end in the line");
    let (summary, rows) = good("[[\"192.0.2.1\", -1],\n[\"192.0.2.2\", 70000], [null], []]");
    assert_eq!((rows.len(), summary.left_out.unreadable), (0, 4));
}

#[test]
fn json_of_another_kind_is_refused_with_its_line() {
    let cases = [
        ("", "line 1: there is nothing in it"),
        (" \n\n", "line 3: there is nothing in it"),
        ("{}", "line 1: it has no \"nodes\": not a snapshot of Bitnodes"),
        (
            "{\"count\": 3,\n\"results\": [1, 2]}",
            "line 2: it has no \"nodes\": not a snapshot of Bitnodes",
        ),
        (
            "\n{\"nodes\": {\n\"192.0.2.1:8333\": 7}}",
            "line 3: invalid type: integer `7`, expected an array of values for each node",
        ),
        (
            "{\"nodes\": [1]}",
            "line 1: invalid type: sequence, expected an object with addresses as keys",
        ),
        ("{\"nodes\": {\"192.0.2.1:8333\": [1, \"/x/\",\n", "line 2: EOF while parsing a value"),
        ("[[\"192.0.2.1\", 8333],\n[\"192.0.2.2\" 8333]]", "line 2: expected `,` or `]`"),
        ("[[\"192.0.2.1\", 8333]]\n]", "line 2: trailing characters"),
    ];
    for (text, expected) in cases {
        assert_eq!(fault(text), expected, "{text}");
    }
}

#[test]
fn a_text_with_half_a_surrogate_does_not_spoil_a_snapshot() {
    let text =
        "{\"nodes\": {\"192.0.2.1:8333\": [1, \"a\\ud800b\", \"\\udc00\", 1, 5, \"\\ud800\"]}}";
    let (summary, rows) = good(text);
    assert_eq!((summary.entries, rows[0].2), (1, Some(5)));
    assert!(rows[0].1.as_deref().is_some_and(|agent| agent.starts_with('a')));
}

#[test]
fn long_values_and_deep_nesting_are_refused() {
    let long = "x".repeat(MAX_LINE_BYTES + 1);
    let expected = "line 1: a value is longer than 8192 bytes";
    assert_eq!(fault(&format!("{{\"{long}\": 1}}")), expected);
    assert_eq!(fault(&format!("{{\"a\": {}}}", "1".repeat(MAX_LINE_BYTES + 1))), expected);
    assert_eq!(fault(&format!("[[\"{}\"]]", "\\\"".repeat(MAX_LINE_BYTES))), expected);
    let (_, rows) =
        good(&format!("{{\"x\": \"{}\", \"nodes\": {{\"192.0.2.1:1\": []}}}}", "y".repeat(8_000)));
    assert_eq!(rows.len(), 1);
    let deep = format!("{{\"a\": {}", "[".repeat(1_000_000));
    assert_eq!(fault(&deep), "line 1: it is nested deeper than 16");
}

#[test]
fn a_compressed_bomb_is_given_up_early() {
    let bomb = packed(&vec![b'\n'; 64 << 20]);
    assert!(bomb.len() < 1 << 20, "{}", bomb.len());
    let (summary, rows) = list(&bomb);
    let fault = summary.unwrap_err();
    assert_eq!(fault.reason, "it expands more than 100-fold: no list of nodes does");
    assert!(fault.line <= FREE_BYTES + (1 << 17), "{}", fault.line);
    assert_eq!(rows, []);
    // A list that compresses well is none.
    let lines: String =
        (0..100_000).map(|n| format!("10.{}.{}.{}\n", n >> 16, n >> 8 & 255, n & 255)).collect();
    assert_eq!(list(&packed(lines.as_bytes())).1.len(), 100_000);
    let cut = packed(lines.as_bytes());
    let (summary, _) = list(&cut[..cut.len() / 2]);
    assert!(summary.unwrap_err().line > 1_000, "a compressed list that was cut");
}

#[test]
fn an_endless_input_ends() {
    for (endless, reason) in [
        (&b"9"[..], "it is larger than 1024 MB"),
        (&b"{\"a\": "[..], "a value is longer than 8192 bytes"),
    ] {
        let summary = read(endless.chain(repeat(b'9')), 8333, &mut |_| panic!("an entry"));
        assert_eq!(summary.unwrap_err().reason, reason);
    }
}
