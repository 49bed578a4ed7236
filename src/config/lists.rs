//! The files of `filter.exclude_files`: one CIDR or address per line.
//!
//! The formats of Spamhaus DROP (`192.0.2.0/24 ; SBL123`, or an object of JSON per line) and of the
//! bogon lists are supported.

use std::path::Path;

use ipnet::Ipv4Net;

use super::ConfigError;
use super::rules::parse_net;
use crate::sys::text_file::{self, quoted};

/// Maximum size of an exclude file in bytes: several million lines.
const MAX_BYTES: u64 = 64_000_000;

/// Reads one exclude file. `#` and `;` start a comment; IPv6 lines are skipped, since the crawler
/// never connects to IPv6.
///
/// # Errors
/// The file cannot be read, or its first invalid line.
pub fn read_exclude_file(path: &Path) -> Result<Vec<Ipv4Net>, ConfigError> {
    let file = path.display().to_string();
    let bytes = text_file::read(path, MAX_BYTES)
        .map_err(|problem| ConfigError::File { file: file.clone(), problem })?;
    parse(&file, text_file::without_bom(&bytes))
}

fn parse(file: &str, bytes: &[u8]) -> Result<Vec<Ipv4Net>, ConfigError> {
    let mut nets = Vec::new();
    for (index, line) in bytes.trim_ascii_end().split(|&byte| byte == b'\n').enumerate() {
        let invalid = |entry| {
            let text = quoted(&String::from_utf8_lossy(entry));
            ConfigError::ListLine { file: file.to_owned(), line: index + 1, text }
        };
        if line.starts_with(b"{") {
            match parse_json(line) {
                Some(net) => nets.extend(net),
                None => return Err(invalid(line)),
            }
            continue;
        }
        let entry = line.split(|byte| b"#;".contains(byte)).next().unwrap_or_default();
        // Comments of old lists may be in any encoding; the entries before them are ASCII.
        let entry = entry.trim_ascii();
        if entry.is_empty() {
            continue;
        }
        let text = std::str::from_utf8(entry).ok();
        match text.and_then(parse_net) {
            Some(net) => nets.push(net),
            None if text.is_some_and(is_ipv6) => {}
            None => return Err(invalid(entry)),
        }
    }
    Ok(nets)
}

/// The network of a line such as `{"cidr":"192.0.2.0/24","sblid":"SBL1"}`; none if it is an IPv6
/// network or the metadata at the end.
fn parse_json(line: &[u8]) -> Option<Option<Ipv4Net>> {
    let object: serde_json::Map<String, serde_json::Value> = serde_json::from_slice(line).ok()?;
    let text = |key| object.get(key).and_then(|value| value.as_str());
    match text("cidr") {
        Some(cidr) if is_ipv6(cidr) => Some(None),
        Some(cidr) => Some(Some(parse_net(cidr)?)),
        None => (text("type") == Some("metadata")).then_some(None),
    }
}

fn is_ipv6(text: &str) -> bool {
    text.parse::<ipnet::Ipv6Net>().is_ok() || text.parse::<std::net::Ipv6Addr>().is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn published_lists_are_parsed() {
        let text = b"; Spamhaus DROP List \xa9\n192.0.2.0/24 ; SBL123\n\n# own\r\n  198.51.100.7\r\n2001:db8::/32\n::1 # six\n203.0.113.0/25#x";
        let nets: Vec<String> =
            parse("drop", text).unwrap().iter().map(Ipv4Net::to_string).collect();
        assert_eq!(nets, ["192.0.2.0/24", "198.51.100.7/32", "203.0.113.0/25"]);
        assert_eq!(parse("drop", b"").unwrap(), []);
    }

    #[test]
    fn spamhaus_drop_in_json_is_parsed() {
        let list = concat!(
            r#"{"cidr":"192.0.2.0/24","sblid":"SBL1","rir":"apnic"}"#,
            "\r\n",
            r#"{"cidr":"2001:db8::/32","sblid":"SBL2","rir":"ripencc"}"#,
            "\n198.51.100.0/24\n",
            r#"{"type":"metadata","timestamp":1,"size":2,"copyright":"(c) # ; x"}"#,
            "\n",
        );
        let nets = parse("drop", list.as_bytes()).unwrap();
        let nets: Vec<String> = nets.iter().map(Ipv4Net::to_string).collect();
        assert_eq!(nets, ["192.0.2.0/24", "198.51.100.0/24"]);
        for wrong in ["{\"cidr\":\"x\"}", "{\"cidr\":7}", "{}", "{\"cidr\":\"192.0.2.0/24\"", "{"] {
            let error = parse("drop", format!("10.0.0.1\n{wrong}\n").as_bytes()).unwrap_err();
            assert!(error.to_string().starts_with("drop:2: "), "{wrong}");
        }
    }

    #[test]
    fn an_invalid_line_is_reported_with_file_and_number() {
        let error = |text: &[u8]| parse("drop.txt", text).unwrap_err().to_string();
        let expected = "drop.txt:2: \"192.0.2.0/33\": must be an IPv4 address or CIDR";
        assert_eq!(error(b"192.0.2.0/24\n192.0.2.0/33\n"), expected);
        assert_eq!(error(b"a b"), "drop.txt:1: \"a b\": must be an IPv4 address or CIDR");
        assert!(error(b"\xff\xff").starts_with("drop.txt:1: "));
        assert!(error(&[b'7'; 100_000]).len() < 200);
    }

    #[test]
    fn an_unreadable_list_is_reported_in_one_line() {
        let error = read_exclude_file(Path::new("no/such.txt")).unwrap_err();
        assert_eq!(error.to_string(), "no/such.txt: cannot be read: No such file or directory");
    }
}
