//! Tests of the configuration as a whole.

use super::*;

fn parse(text: &str) -> Result<Config, ConfigError> {
    Config::parse(text, "bitdash.toml", Path::new(""))
}

fn error(text: &str) -> String {
    let line = parse(text).unwrap_err().to_string();
    assert!(!line.contains('\n') && line.len() < 400, "{line}");
    line
}

#[test]
fn an_empty_file_gives_the_contracts_defaults() {
    let config = parse("").unwrap();
    assert_eq!(config, Config::default());
    let table = [
        ("crawl.max_sockets", "50"),
        ("crawl.connects_per_second", "400"),
        ("crawl.nodes_file", "\"nodes.txt\""),
        ("crawl.pass_interval", "\"30m\""),
        ("crawl.connect_timeout", "\"5s\""),
        ("crawl.candidate_connect_timeout", "\"3s\""),
        ("crawl.handshake_timeout", "\"10s\""),
        ("crawl.addr_timeout", "\"75s\""),
        ("crawl.addr_quiet", "\"2s\""),
        ("crawl.getaddr_interval", "\"1d\""),
        ("crawl.spam_share", "0.3"),
        ("crawl.results_per_node", "25"),
        ("crawl.max_addresses", "4000000"),
        ("backoff.base", "\"1h\""),
        ("backoff.factor", "2"),
        ("backoff.max", "\"14d\""),
        ("backoff.node_base", "\"10m\""),
        ("backoff.node_max", "\"1h\""),
        ("backoff.lost_max", "\"1d\""),
        ("network.magic", "\"f9beb4d9\""),
        ("network.port", "8333"),
        ("network.protocol_version", "70015"),
        ("network.user_agent", concat!("\"/bitdash:", env!("CARGO_PKG_VERSION"), "/\"")),
        ("network.services", "0"),
        ("network.contact", "\"\""),
        ("filter.exclude", "[]"),
        ("filter.exclude_files", "[]"),
        ("filter.only", "[]"),
        ("database.url", "\"postgresql:///bitdash\""),
        ("database.batch_rows", "5000"),
        ("database.flush_interval", "\"10s\""),
        ("geo.country_db", "\"\""),
        ("geo.asn_db", "\"\""),
        ("log.file", "\"\""),
        ("log.level", "\"info\""),
        ("log.stats_interval", "\"30s\""),
        ("site.dir", "\"\""),
    ];
    let shown: Vec<(&str, String)> =
        KEYS.iter().map(|key| (key.name, (key.show)(&config))).collect();
    let expected: Vec<(&str, String)> =
        table.iter().map(|&(name, value)| (name, value.to_owned())).collect();
    assert_eq!(shown, expected);
}

/// For every key: values that it takes (other than its default), and values that it refuses.
const VALUES: &[(&str, &[&str], &[&str])] = &[
    ("crawl.max_sockets", &["1", "20000"], &["0", "20001", "-1", "1.0", "\"many\"", "true"]),
    ("crawl.connects_per_second", &["0", "100000"], &["100001", "-1"]),
    ("crawl.nodes_file", &["\"/etc/n\""], &["\"\"", "5", "[]"]),
    ("crawl.pass_interval", &["\"0s\"", "\"30d\""], &["\"31d\"", "30", "\"1M\""]),
    ("crawl.connect_timeout", &["\"10ms\"", "\"10m\""], &["\"9ms\"", "\"11m\"", "\"0s\"", "5"]),
    ("crawl.candidate_connect_timeout", &["\"10ms\"", "\"10m\""], &["\"9ms\"", "\"601s\""]),
    ("crawl.handshake_timeout", &["\"10ms\"", "\"10m\""], &["\"9ms\"", "\"601s\""]),
    ("crawl.addr_timeout", &["\"10ms\"", "\"30m\""], &["\"9ms\"", "\"31m\""]),
    ("crawl.addr_quiet", &["\"10ms\"", "\"10m\""], &["\"9ms\"", "\"11m\""]),
    ("crawl.getaddr_interval", &["\"0s\"", "\"30d\""], &["\"31d\"", "0"]),
    ("crawl.spam_share", &["0", "1", "0.5", "1.0"], &["1.1", "-0.1", "nan", "inf", "\"0.3\""]),
    ("crawl.results_per_node", &["1", "10000"], &["0", "10001"]),
    ("crawl.max_addresses", &["1000", "50000000"], &["999", "50000001"]),
    ("backoff.base", &["\"10ms\"", "\"365d\""], &["\"0s\"", "\"366d\""]),
    ("backoff.factor", &["1", "16", "1.5"], &["0.9", "17", "nan"]),
    ("backoff.max", &["\"10ms\"", "\"365d\""], &["\"0s\"", "\"366d\""]),
    ("backoff.node_base", &["\"10ms\"", "\"365d\""], &["\"0s\"", "\"366d\""]),
    ("backoff.node_max", &["\"10ms\"", "\"365d\""], &["\"0s\"", "\"366d\""]),
    ("backoff.lost_max", &["\"10ms\"", "\"365d\""], &["\"0s\"", "\"366d\""]),
    (
        "network.magic",
        &["\"0b110907\"", "\"FABFB5DA\""],
        &["\"f9beb4\"", "\"+f9beb4d\"", "\"f9beb4dg\"", "5"],
    ),
    ("network.port", &["1", "65535"], &["0", "65536", "-1"]),
    ("network.protocol_version", &["31800", "70016", "2147483647"], &["31799", "2147483648"]),
    ("network.user_agent", &["\"\"", "\"/x:VERSION/\""], &["\"a\\nb\"", "\"é\"", "5"]),
    ("network.services", &["9", "9223372036854775807"], &["-1", "\"9\""]),
    (
        "network.contact",
        &["\"https://example.org/x\"", "\"a@example.org\""],
        &["\"://\"", "\"é\"", "1"],
    ),
    (
        "filter.exclude",
        &["[\"192.0.2.0/24\", \"198.51.100.7\"]"],
        &["[\"::/0\"]", "[5]", "\"10.0.0.0/8\""],
    ),
    ("filter.exclude_files", &["[\"drop.txt\"]"], &["\"drop.txt\"", "[\"\"]", "[1]"]),
    ("filter.only", &["[\"127.0.0.0/8\"]"], &["[\"127.0.0.0/40\"]", "[[]]"]),
    ("database.url", &["\"host=/run/postgresql dbname=x\""], &["\"\"", "\"x\"", "5"]),
    ("database.batch_rows", &["1", "1000000"], &["0", "1000001"]),
    ("database.flush_interval", &["\"10ms\"", "\"10m\""], &["\"9ms\"", "\"11m\""]),
    ("geo.country_db", &["\"c.mmdb\""], &["5", "[]"]),
    ("geo.asn_db", &["\"a.mmdb\""], &["false"]),
    ("log.file", &["\"b.log\""], &["7"]),
    ("log.level", &["\"error\"", "\"off\"", "\"trace\""], &["\"INFO\"", "\"verbose\"", "3"]),
    ("log.stats_interval", &["\"100ms\"", "\"1d\""], &["\"99ms\"", "\"25h\""]),
    ("site.dir", &["\"site\""], &["1979-05-27"]),
];

fn with(name: &str, value: &str) -> String {
    let (section, field) = name.split_once('.').unwrap();
    format!("[{section}]\n{field} = {value}\n")
}

#[test]
fn every_key_takes_what_it_may_and_prints_it_back() {
    assert_eq!(VALUES.len(), KEYS.len());
    for (name, good, _) in VALUES {
        for value in *good {
            let config = parse(&with(name, value)).unwrap_or_else(|error| panic!("{error}"));
            assert_ne!(config, Config::default(), "{name} = {value} changes nothing");
            assert_eq!(parse(&config.to_toml()).unwrap(), config, "{name} = {value}");
        }
    }
}

#[test]
fn every_key_refuses_other_values_naming_key_value_and_what_is_allowed() {
    for (name, _, bad) in VALUES {
        for value in *bad {
            let line = error(&with(name, value));
            assert!(line.starts_with(&format!("bitdash.toml: {name} = ")), "{line}");
            assert!(line.contains(": must be "), "{line}");
        }
    }
    let expected = [
        ("crawl.max_sockets", "\"many\"", "\"many\": must be a whole number from 1 to 20000"),
        ("network.port", "70000", "70000: must be a whole number from 1 to 65535"),
        (
            "filter.exclude",
            "[\"8.8.8.8\", \"10.0.0.0/33\"]",
            "\"10.0.0.0/33\": must be a list of IPv4 CIDRs such as [\"192.0.2.0/24\"]",
        ),
        (
            "crawl.connect_timeout",
            "5",
            "5: must be a duration from \"10ms\" to \"10m\", in quotes, with the unit ms, s, m, h or d",
        ),
        (
            "log.level",
            "\"loud\"",
            "\"loud\": must be one of \"off\", \"error\", \"warn\", \"info\", \"debug\", \"trace\"",
        ),
        ("crawl.spam_share", "2.0", "2.0: must be a number from 0 to 1"),
    ];
    for (name, value, end) in expected {
        assert_eq!(error(&with(name, value)), format!("bitdash.toml: {name} = {end}"));
    }
}

#[test]
fn unknown_keys_and_sections_are_errors_with_a_suggestion() {
    let table = [
        (
            "[crawl]\nmax_socket = 5",
            "crawl.max_socket: no such key, did you mean crawl.max_sockets?",
        ),
        ("max_sockets = 5", "max_sockets: no such key, did you mean crawl.max_sockets?"),
        ("[crwal]\nmax_sockets = 5", "crwal: no such key, did you mean crawl?"),
        ("[elsewhere]", "elsewhere: no such key, `bitdash config` prints all that there are"),
        (
            "[crawl]\n\"a\\nb\" = 1",
            "\"crawl.a\\nb\": no such key, `bitdash config` prints all that there are",
        ),
        ("crawl = 5", "crawl = 5: must be a section, written as [crawl]"),
        ("[[crawl]]\nmax_sockets = 5", "crawl = [...]: must be a section, written as [crawl]"),
    ];
    for (text, end) in table {
        assert_eq!(error(text), format!("bitdash.toml: {end}"));
    }
}

#[test]
fn syntax_errors_name_line_and_column() {
    let line = error("[crawl]\nmax_sockets = = 5\n");
    assert!(line.starts_with("bitdash.toml: line 2, column 15: "), "{line}");
    let line = error("[crawl]\nmax_sockets = 5\nmax_sockets = 6\n");
    assert!(line.starts_with("bitdash.toml: line 3, column 1: "), "{line}");
    let line = error("[crawl\n");
    assert!(line.starts_with("bitdash.toml: line 1, column 7: "), "{line}");
}

#[test]
fn a_contact_that_makes_the_user_agent_too_long_is_refused() {
    let text = |length| {
        format!(
            "[network]\nuser_agent = \"/{}/\"\ncontact = \"a@example.org\"\n",
            "x".repeat(length)
        )
    };
    let longest = 256 - "//".len() - "(a@example.org)".len();
    assert_eq!(parse(&text(longest)).unwrap().sent_user_agent().len(), 256);
    let line = error(&text(longest + 3));
    assert!(
        line.starts_with(
            "bitdash.toml: network.contact = \"a@example.org\": must be 3 characters shorter"
        ),
        "{line}"
    );
}

#[test]
fn passwords_reach_no_output() {
    for url in [
        "postgresql://u:s3cret@h/db",
        "host=h user=u password=s3cret",
        "postgresql://h/db?password=s3cret",
    ] {
        let config = parse(&with("database.url", &format!("\"{url}\""))).unwrap();
        assert!(config.database.url.expose().contains("s3cret"));
        let report = format!("{:?}", Config::default().reload_differences(&config));
        for output in [config.to_toml(), format!("{config:?}"), report] {
            assert!(!output.contains("s3cret"), "{output}");
        }
    }
    for broken in [
        "[database]\nurl = \"postgresql://u:s3cret@h:port/db\"",
        "[database]\nurl = \"postgresql://u:pa@s3cret@h/db\"",
        "[database]\nurl = [\"postgresql://u:s3cret@h/db\"]",
        "[database.url]\n\"postgresql://u:s3cret@h/db\" = 1",
        // A value in place of a section, and the right value of the wrong key.
        "database = \"postgresql://u:s3cret@h/db\"",
        "database = \"host=h password=s3cret\"",
        "[database]\nflush_interval = \"postgresql://u:s3cret@h/db\"",
        "[database]\nbatch_rows = \"s3cret\"",
        // The URL as a key, or as a section.
        "[database]\n\"postgresql://u:s3cret@h/db\" = 1",
        "\"host=h password=s3cret\" = 1",
        "[\"postgresql://u:s3cret@h/db\"]",
        // No TOML at all.
        "[database]\nurl = postgresql://u:s3cret@h/db",
        "[database]\npostgresql://u:s3cret@h/db",
        "[database]\nurl = \"postgresql://u:s3cret@h/db",
        "[database]\n\"u:s3cret@h\" = 1\n\"u:s3cret@h\" = 2",
        "database = \"u:s3cret@h\"\n[database.\"u:s3cret@h\"]",
    ] {
        let line = error(broken);
        assert!(!line.contains("s3cret"), "{line}");
    }
    let line = error("[database]\nurl = \"postgresql://u:pa@ss@h/db\"");
    assert!(line.contains("written %40"), "{line}");
}

#[test]
fn a_reload_says_what_changes_and_what_needs_a_restart() {
    let before = parse("").unwrap();
    let after = parse(
        "[crawl]\nmax_sockets = 800\npass_interval = \"1h\"\n[filter]\nonly = [\"127.0.0.0/8\", \"10.0.0.0/8\"]\n\
         [log]\nfile = \"a b.log\"\n[network]\nport = 18333\n[database]\nurl = \"postgresql://u:a@h/db\"\n",
    )
    .unwrap();
    let report = before.reload_differences(&after);
    let changed = [
        "max_sockets=50->800",
        "pass_interval=30m->1h",
        "filter.only=[]->[127.0.0.0/8,10.0.0.0/8]",
        "log.file=none->a\\u{20}b.log",
    ];
    assert_eq!(report.changed, changed);
    let restart =
        ["network.port=8333->18333", "database.url=postgresql:///bitdash->postgresql://u:***@h/db"];
    assert_eq!(report.needs_restart, restart);

    let running = before.reloaded_with(&after);
    assert_eq!((running.crawl.max_sockets, running.network.port), (800, 8333));
    assert_eq!(running.reload_differences(&after).changed, [""; 0]);
    let other_password = Config {
        database: DatabaseConfig {
            url: "postgresql://u:b@h/db".parse().unwrap(),
            ..after.database.clone()
        },
        ..after.clone()
    };
    assert_eq!(after.reload_differences(&other_password).needs_restart, ["database.url=changed"]);
}

#[test]
fn the_filter_is_made_of_lists_and_files() {
    let folder = tempfile::tempdir().unwrap();
    std::fs::write(folder.path().join("drop.txt"), "8.8.8.0/24 ; SBL1\n").unwrap();
    let text = "[filter]\nexclude = [\"9.9.9.9\"]\nexclude_files = [\"drop.txt\"]\n";
    let config = Config::parse(text, "b.toml", folder.path()).unwrap();
    let filter = config.load_filter().unwrap();
    for (address, admitted) in [("8.8.8.8:1", false), ("9.9.9.9:1", false), ("8.8.4.4:1", true)] {
        assert_eq!(filter.admits(address.parse().unwrap()), admitted, "{address}");
    }
    std::fs::write(folder.path().join("drop.txt"), "oops\n").unwrap();
    let line = config.load_filter().unwrap_err().to_string();
    assert!(line.ends_with("drop.txt:1: \"oops\": must be an IPv4 address or CIDR"), "{line}");
}

proptest::proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}", value in "[-+.\\w\"\\[\\]{} ]{0,40}", key in 0usize..KEYS.len()) {
        let _ = parse(&text);
        let _ = parse(&with(KEYS[key].name, &value)).map(|config| parse(&config.to_toml()).unwrap());
    }
}
