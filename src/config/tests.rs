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

fn with(name: &str, value: &str) -> String {
    let (section, field) = name.split_once('.').unwrap();
    format!("[{section}]\n{field} = {value}\n")
}

#[test]
fn every_key_reads_valid_values_and_prints_them_back() {
    for key in KEYS {
        let mut differs = false;
        for value in (key.samples)().valid {
            let config = parse(&with(key.name, &value)).unwrap_or_else(|error| panic!("{error}"));
            differs |= config != Config::default();
            assert_eq!(parse(&config.to_toml()).unwrap(), config, "{} = {value}", key.name);
        }
        assert!(differs, "no value of {} changes anything", key.name);
    }
}

#[test]
fn an_invalid_value_is_reported_with_its_key_and_the_allowed_values() {
    for key in KEYS {
        for value in (key.samples)().invalid {
            let line = error(&with(key.name, &value));
            assert!(line.starts_with(&format!("bitdash.toml:2: {} = ", key.name)), "{line}");
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
        assert_eq!(error(&with(name, value)), format!("bitdash.toml:2: {name} = {end}"));
    }
}

#[test]
fn unknown_keys_and_sections_are_errors_with_a_suggestion() {
    let table = [
        (
            "[crawl]\nmax_socket = 5",
            "2: crawl.max_socket: no such key, did you mean crawl.max_sockets?",
        ),
        ("max_sockets = 5", "1: max_sockets: no such key, did you mean crawl.max_sockets?"),
        ("[crwal]\nmax_sockets = 5", "1: crwal: no such key, did you mean crawl?"),
        ("[elsewhere]", "1: elsewhere: no such key, `bitdash config` prints all keys"),
        (
            "[crawl]\n\"a\\nb\" = 1",
            "2: \"crawl.a\\nb\": no such key, `bitdash config` prints all keys",
        ),
        ("crawl = 5", "1: crawl = 5: must be a section, written as [crawl]"),
        ("[[crawl]]\nmax_sockets = 5", "1: crawl = [...]: must be a section, written as [crawl]"),
    ];
    for (text, end) in table {
        assert_eq!(error(text), format!("bitdash.toml:{end}"));
    }
}

#[test]
fn every_error_is_reported_with_its_line() {
    let text = "[log]\nlevel = \"loud\"\n\n[crawl]\n# a comment\nmax_sockets = 0\nspeed = 7\n";
    let error = parse(text).unwrap_err();
    let lines = error.lines();
    let places = [
        "bitdash.toml:2: log.level",
        "bitdash.toml:6: crawl.max_sockets",
        "bitdash.toml:7: crawl.speed",
    ];
    assert_eq!(lines.len(), 3, "{error}");
    for (line, place) in lines.iter().zip(places) {
        assert!(line.starts_with(place), "{place}: {error}");
    }
    assert!(!error.to_string().contains('\n'));
}

#[test]
fn syntax_errors_name_line_and_column() {
    let line = error("[crawl]\nmax_sockets = = 5\n");
    assert!(line.starts_with("bitdash.toml:2:15: "), "{line}");
    let line = error("[crawl]\nmax_sockets = 5\nmax_sockets = 6\n");
    assert!(line.starts_with("bitdash.toml:3:1: "), "{line}");
    let line = error("[crawl\n");
    assert!(line.starts_with("bitdash.toml:1:7: "), "{line}");
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
            "bitdash.toml:3: network.contact = \"a@example.org\": must be 3 characters shorter"
        ),
        "{line}"
    );
}

#[test]
fn passwords_appear_in_no_output() {
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
        // A value instead of a section, and a URL under the wrong key.
        "database = \"postgresql://u:s3cret@h/db\"",
        "database = \"host=h password=s3cret\"",
        "[database]\nflush_interval = \"postgresql://u:s3cret@h/db\"",
        "[database]\nbatch_rows = \"s3cret\"",
        // The URL as a key or as a section.
        "[database]\n\"postgresql://u:s3cret@h/db\" = 1",
        "\"host=h password=s3cret\" = 1",
        "[\"postgresql://u:s3cret@h/db\"]",
        // Invalid TOML.
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
fn a_reload_reports_changes_and_what_needs_a_restart() {
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
fn the_filter_is_built_from_lists_and_files() {
    let directory = tempfile::tempdir().unwrap();
    std::fs::write(directory.path().join("drop.txt"), "8.8.8.0/24 ; SBL1\n").unwrap();
    let text = "[filter]\nexclude = [\"9.9.9.9\"]\nexclude_files = [\"drop.txt\"]\n";
    let config = Config::parse(text, "b.toml", directory.path()).unwrap();
    let filter = config.load_filter().unwrap();
    for (address, admitted) in [("8.8.8.8:1", false), ("9.9.9.9:1", false), ("8.8.4.4:1", true)] {
        assert_eq!(filter.admits(address.parse().unwrap()), admitted, "{address}");
    }
    // firehol/blocklist-ipsets#329: a broken list covered most of the Internet.
    std::fs::write(directory.path().join("drop.txt"), "0.0.0.0/1\n").unwrap();
    let line = config.load_filter().unwrap_err().to_string();
    assert!(line.contains("drop.txt: excludes more than a quarter of all IPv4"), "{line}");
    std::fs::write(directory.path().join("drop.txt"), "64.0.0.0/3\n96.0.0.0/4\n").unwrap();
    assert!(config.load_filter().is_ok(), "less than a quarter");
    std::fs::write(directory.path().join("drop.txt"), "0.0.0.0/0\n").unwrap();
    let only = Config::parse(&format!("{text}only = [\"10.0.0.0/8\"]"), "b.toml", directory.path());
    assert!(only.unwrap().load_filter().is_ok());
    std::fs::write(directory.path().join("drop.txt"), "oops\n").unwrap();
    let line = config.load_filter().unwrap_err().to_string();
    assert!(line.ends_with("drop.txt:1: \"oops\": must be an IPv4 address or CIDR"), "{line}");
    let line = parse("[filter]\nexclude = [\"0.0.0.0/1\"]\n").unwrap().load_filter().unwrap_err();
    assert!(line.to_string().starts_with("filter.exclude: excludes more than a quarter"), "{line}");
}

proptest::proptest! {
    #[test]
    fn arbitrary_text_never_panics(text in "\\PC{0,200}", value in "[-+.\\w\"\\[\\]{} ]{0,40}", key in 0usize..KEYS.len()) {
        let _ = parse(&text);
        let _ = parse(&with(KEYS[key].name, &value)).map(|config| parse(&config.to_toml()).unwrap());
    }
}
