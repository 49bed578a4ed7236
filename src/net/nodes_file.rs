//! The nodes file: seeds and named nodes, one `HOST [PORT] [NAME]` or `HOST:PORT [NAME]` per line.
//!
//! An invalid line is reported with its number; the others are used. Host names are only parsed
//! here and resolved in `resolve`.

use std::collections::HashMap;
use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr};
use std::path::Path;

use crate::sys::text_file::{self, quoted};
use bitdash_core::vocabulary::address::Address;

/// A parsed nodes file.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct NodesFile {
    /// The valid lines in the file's order, each host and port once.
    pub lines: Vec<Line>,
    /// One message per invalid line, such as `nodes.txt:12: ...`, for the first `MAX_COMPLAINTS`.
    pub complaints: Vec<String>,
    /// One message per line that repeats an earlier one, for the first `MAX_COMPLAINTS`.
    pub repetitions: Vec<String>,
}

/// A line of a nodes file.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Line {
    /// Its number, counted from 1.
    pub number: usize,
    /// The host.
    pub host: Host,
    /// The port, never 0.
    pub port: u16,
    /// The name; a line with a name is a named node.
    pub name: Option<String>,
}

/// A host in a nodes file or on the command line.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub enum Host {
    /// An IPv4 address.
    Ip(Ipv4Addr),
    /// A host name, in lower case.
    Name(String),
}

/// Why a text is not a host, as the end of the sentence "... is".
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct NoHost(&'static str);

impl NodesFile {
    /// Reads a nodes file of at most 16 MB. `default_port` applies to lines without a port.
    ///
    /// # Errors
    /// The file cannot be read or is too large.
    pub fn read(path: &Path, default_port: u16) -> Result<Self, NodesFileError> {
        let file = path.display().to_string();
        match text_file::read(path, MAX_BYTES) {
            Ok(bytes) => Ok(Self::parse(&file, &bytes, default_port)),
            Err(problem) => Err(NodesFileError { file, problem }),
        }
    }

    /// Reads standard input like [`NodesFile::read`].
    ///
    /// # Errors
    /// It cannot be read or is too large.
    pub fn read_stdin(default_port: u16) -> Result<Self, NodesFileError> {
        let file = "standard input".to_owned();
        match text_file::read_stdin(MAX_BYTES) {
            Ok(bytes) => Ok(Self::parse(&file, &bytes, default_port)),
            Err(problem) => Err(NodesFileError { file, problem }),
        }
    }

    /// Parses a nodes file; `file` is its name in the complaints.
    pub fn parse(file: &str, bytes: &[u8], default_port: u16) -> Self {
        let mut nodes = Self::default();
        let mut seen: HashMap<(Host, u16), usize> = HashMap::new();
        let mut wrong: usize = 0;
        for (index, bytes) in text_file::without_bom(bytes).split(|&b| b == b'\n').enumerate() {
            let number = index + 1;
            match parse_line(number, bytes, default_port) {
                Ok(None) => {}
                Ok(Some(line)) => nodes.add(file, line, &mut seen),
                Err(complaint) => {
                    wrong += 1;
                    if wrong <= MAX_COMPLAINTS {
                        nodes.complaints.push(format!("{file}:{number}: {complaint}"));
                    }
                }
            }
        }
        if wrong > MAX_COMPLAINTS {
            nodes.complaints.push(format!("{file}: {} more invalid lines", wrong - MAX_COMPLAINTS));
        }
        nodes
    }

    /// Adds a line; a duplicate only supplies a missing name.
    fn add(&mut self, file: &str, line: Line, seen: &mut HashMap<(Host, u16), usize>) {
        match seen.get(&(line.host.clone(), line.port)) {
            Some(&index) => {
                let first = &mut self.lines[index];
                if self.repetitions.len() < MAX_COMPLAINTS {
                    self.repetitions.push(format!(
                        "{file}:{}: {} {} is on line {} already",
                        line.number, line.host, line.port, first.number
                    ));
                }
                first.name = first.name.take().or(line.name);
            }
            None => {
                seen.insert((line.host.clone(), line.port), self.lines.len());
                self.lines.push(line);
            }
        }
    }
}

impl Line {
    /// The address, unless the host is a name.
    pub fn address(&self) -> Option<Address> {
        match self.host {
            Host::Ip(ip) => Some(Address::new(ip, self.port)),
            Host::Name(_) => None,
        }
    }
}

impl std::str::FromStr for Host {
    type Err = NoHost;

    fn from_str(text: &str) -> Result<Self, NoHost> {
        if let Ok(ip) = text.parse() {
            return Ok(Self::Ip(ip));
        }
        if text.trim_matches(['[', ']']).parse::<Ipv6Addr>().is_ok() {
            return Err(NoHost("an IPv6 address, and only IPv4 is crawled"));
        }
        let name = text.strip_suffix('.').unwrap_or(text);
        let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let label = |label: &str| (1..=63).contains(&label.len()) && label.chars().all(allowed);
        if name.len() > 253 || !name.split('.').all(label) {
            return Err(NoHost("neither an IPv4 address nor a host name"));
        }
        // The system's resolver would take "1.2.3" or "0x7f.1" for addresses.
        let last = name.rsplit('.').next().unwrap_or_default();
        let digits = last.strip_prefix("0x").or(last.strip_prefix("0X")).unwrap_or(last);
        if last.starts_with(|c: char| c.is_ascii_digit())
            && digits.chars().all(|c| c.is_ascii_hexdigit())
        {
            return Err(NoHost("neither an IPv4 address nor a host name"));
        }
        let name = name.to_ascii_lowercase();
        // curl#543, RFC 7686: no name server is asked for names that are not the DNS'.
        if let Some((_, last)) = name.rsplit_once('.')
            && let Some((_, why)) = NOT_IN_DNS.iter().find(|(domains, _)| domains.contains(&last))
        {
            return Err(NoHost(why));
        }
        Ok(Self::Name(name))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ip(ip) => ip.fmt(f),
            Self::Name(name) => name.fmt(f),
        }
    }
}

impl fmt::Display for NoHost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl std::error::Error for NoHost {}

/// A nodes file that cannot be read.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct NodesFileError {
    file: String,
    problem: String,
}

impl fmt::Display for NodesFileError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.problem)
    }
}

impl std::error::Error for NodesFileError {}

/// Parses one line: `None` if it is empty or a comment, a complaint if it is invalid.
fn parse_line(number: usize, bytes: &[u8], default_port: u16) -> Result<Option<Line>, String> {
    let content = bytes.split(|&byte| byte == b'#').next().unwrap_or_default();
    let text = std::str::from_utf8(content).map_err(|_| "is not UTF-8 text".to_owned())?;
    let mut words = text.split_whitespace().peekable();
    let Some(first) = words.next() else { return Ok(None) };
    let (host, joined_port) = match first.rsplit_once(':') {
        Some((host, port)) if !host.contains(':') && is_number(port) => (host, Some(port)),
        _ => (first, None),
    };
    let host = host.parse::<Host>().map_err(|problem| format!("{} is {problem}", quoted(first)))?;
    let mut port = default_port;
    if let Some(word) = joined_port.or_else(|| words.next_if(|word| is_number(word))) {
        port = word.parse().ok().filter(|&port| port != 0).ok_or_else(|| {
            format!("the port {} must be a whole number from 1 to 65535", quoted(word))
        })?;
    }
    let name = words.collect::<Vec<_>>().join(" ");
    if name.chars().count() > MAX_NAME_CHARS || name.chars().any(char::is_control) {
        return Err(format!(
            "the name {} must be at most {MAX_NAME_CHARS} printable characters",
            quoted(&name)
        ));
    }
    let name = Some(name).filter(|name| !name.is_empty() && name != NO_NAME);
    Ok(Some(Line { number, host, port, name }))
}

fn is_number(word: &str) -> bool {
    !word.is_empty() && word.bytes().all(|byte| byte.is_ascii_digit())
}

/// Top-level domains outside the DNS, and what their names are.
const NOT_IN_DNS: &[(&[&str], &str)] = &[
    (&["onion", "i2p"], "an address of an anonymity network, and only IPv4 is crawled"),
    // RFC 6761, RFC 6762, RFC 9476 and ICANN's reservation of 2024.
    (
        &["local", "internal", "invalid", "test", "alt"],
        "a name outside the DNS, and no name server is asked for it",
    ),
];

const MAX_BYTES: u64 = 16_000_000;
const MAX_COMPLAINTS: usize = 20;
const MAX_NAME_CHARS: usize = 64;

/// The name of a node with an unknown operator in old lists.
const NO_NAME: &str = "unknown";

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &str) -> NodesFile {
        NodesFile::parse("nodes.txt", text.as_bytes(), 8333)
    }

    /// The lines as `number host port name`.
    fn lines(nodes: &NodesFile) -> Vec<String> {
        let show = |line: &Line| {
            let name = line.name.as_deref().unwrap_or("-");
            format!("{} {} {} {name}", line.number, line.host, line.port)
        };
        nodes.lines.iter().map(show).collect()
    }

    #[test]
    fn hosts_ports_and_names_are_parsed() {
        let nodes = parse(
            "# seeds\n188.121.168.69 8333 unknown\n205.134.172.28 8333 jwrd.net # of 2026\r\n\n  10.0.0.1\n\
             Seed.Example.ORG.\n10.0.0.2 18333\n10.0.0.3 asciilifeform\nlocalhost 1 two  words\t8\n\
             10.0.0.4:18333 joined\nnode.example:1\n10.0.0.5:2 3 x\n",
        );
        assert_eq!(nodes.complaints, [""; 0]);
        let expected = [
            "2 188.121.168.69 8333 -",
            "3 205.134.172.28 8333 jwrd.net",
            "5 10.0.0.1 8333 -",
            "6 seed.example.org 8333 -",
            "7 10.0.0.2 18333 -",
            "8 10.0.0.3 8333 asciilifeform",
            "9 localhost 1 two words 8",
            "10 10.0.0.4 18333 joined",
            "11 node.example 1 -",
            "12 10.0.0.5 2 3 x",
        ];
        assert_eq!(lines(&nodes), expected);
    }

    #[test]
    fn invalid_lines_are_reported_and_the_others_used() {
        let nodes = parse(
            "10.0.0.1\n10.0.0.256\n10.0.0.2 0\n10.0.0.2 65536 x\n10.0.0.2:0 x\n2001:db8::1 8333\n\
             a/b\n1.2.3\n0x7f.0x1\n10.0.0.3 1 a\u{7}b\n10.0.0.4\n10.0.0.5:\u{1b}[2J\n",
        );
        assert_eq!(lines(&nodes), ["1 10.0.0.1 8333 -", "11 10.0.0.4 8333 -"]);
        let expected = [
            "nodes.txt:2: \"10.0.0.256\" is neither an IPv4 address nor a host name",
            "nodes.txt:3: the port \"0\" must be a whole number from 1 to 65535",
            "nodes.txt:4: the port \"65536\" must be a whole number from 1 to 65535",
            "nodes.txt:5: the port \"0\" must be a whole number from 1 to 65535",
            "nodes.txt:6: \"2001:db8::1\" is an IPv6 address, and only IPv4 is crawled",
            "nodes.txt:7: \"a/b\" is neither an IPv4 address nor a host name",
            "nodes.txt:8: \"1.2.3\" is neither an IPv4 address nor a host name",
            "nodes.txt:9: \"0x7f.0x1\" is neither an IPv4 address nor a host name",
            "nodes.txt:10: the name \"a\\u{7}b\" must be at most 64 printable characters",
            // Invalid text is escaped.
            "nodes.txt:12: \"10.0.0.5:\\u{1b}[2J\" is neither an IPv4 address nor a host name",
        ];
        assert_eq!(nodes.complaints, expected);
    }

    #[test]
    fn a_host_name_must_not_look_like_an_address() {
        for name in
            ["localhost", "a.b-c_d.example", "dead.beef", "1.2.3.com", "x9.seed.example.org"]
        {
            assert_eq!(name.parse(), Ok(Host::Name(name.to_owned())));
        }
        for wrong in ["", ".", "a..b", &"a".repeat(64), &"a.".repeat(128), "-é", "999", "1.2.3.4.5"]
        {
            assert!(wrong.parse::<Host>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn names_outside_the_dns_are_reported_like_ipv6_addresses() {
        let nodes =
            parse("abc.onion 8333 hidden\nx.B32.I2P.\nnode.local\n10.0.0.1\na.test\nb.alt\n");
        assert_eq!(lines(&nodes), ["4 10.0.0.1 8333 -"]);
        let hidden = "is an address of an anonymity network, and only IPv4 is crawled";
        let outside = "is a name outside the DNS, and no name server is asked for it";
        let expected = [
            format!("nodes.txt:1: \"abc.onion\" {hidden}"),
            format!("nodes.txt:2: \"x.B32.I2P.\" {hidden}"),
            format!("nodes.txt:3: \"node.local\" {outside}"),
            format!("nodes.txt:5: \"a.test\" {outside}"),
            format!("nodes.txt:6: \"b.alt\" {outside}"),
        ];
        assert_eq!(nodes.complaints, expected);
        for name in ["a.internal", "b.invalid"] {
            assert!(name.parse::<Host>().is_err(), "{name}");
        }
        for name in ["local", "onion.example", "test.example", "notonion"] {
            assert!(name.parse::<Host>().is_ok(), "{name}");
        }
    }

    #[test]
    fn duplicates_are_dropped_but_their_names_kept() {
        let nodes = parse(
            "10.0.0.1\n10.0.0.1 8333 named\n10.0.0.1 8334\nA.example\na.example. 8333 x\na.example 8333 y\n",
        );
        assert_eq!(
            lines(&nodes),
            ["1 10.0.0.1 8333 named", "3 10.0.0.1 8334 -", "4 a.example 8333 x"]
        );
        let repeated = "nodes.txt:2: 10.0.0.1 8333 is on line 1 already";
        assert_eq!((nodes.repetitions.len(), nodes.repetitions[0].as_str()), (3, repeated));
    }

    #[test]
    fn the_number_of_complaints_is_bounded() {
        let nodes = parse(&"oops/\n".repeat(1000));
        assert_eq!(nodes.complaints.len(), MAX_COMPLAINTS + 1);
        assert_eq!(nodes.complaints[MAX_COMPLAINTS], "nodes.txt: 980 more invalid lines");
    }

    #[test]
    fn lines_must_be_utf_8_but_comments_may_be_anything() {
        let nodes = NodesFile::parse("n", b"\xef\xbb\xbf10.0.0.1\n\xff\n10.0.0.2 # \xff\n", 1);
        assert_eq!(lines(&nodes), ["1 10.0.0.1 1 -", "3 10.0.0.2 1 -"]);
        assert_eq!(nodes.complaints, ["n:2: is not UTF-8 text"]);
    }

    #[test]
    fn an_unreadable_file_is_reported_in_one_line() {
        let error = NodesFile::read(Path::new("no/nodes.txt"), 8333).unwrap_err();
        assert_eq!(error.to_string(), "no/nodes.txt: cannot be read: No such file or directory");
    }

    proptest! {
        #[test]
        fn arbitrary_bytes_never_panic_and_every_line_is_usable(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for line in NodesFile::parse("n", &bytes, 8333).lines {
                prop_assert!(line.port != 0);
                prop_assert!(line.name.is_none_or(|name| (1..=64).contains(&name.chars().count())));
            }
        }
    }
}
