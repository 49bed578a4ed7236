//! The commands, one module each, and what they share: the only part of the library that writes to
//! stdout.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::commands::screen::width_of;
use crate::commands::table::hanging;
use crate::config::{Config, ConfigError, ConfigSource};
use crate::db::StoreError;
use crate::net::nodes_file::{Host, NodesFileError};

pub mod compare;
pub mod config;
pub mod crawl;
pub mod explain;
pub mod export;
pub mod import;
pub mod migrate;
pub mod nodes;
pub mod places;
pub mod poll;
pub mod probe;
pub mod screen;
pub mod site;
pub mod status;
pub mod table;
pub mod visit;

/// Why a command failed. Its text is one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Invalid usage or configuration: exit status 2.
    Usage(String),
    /// A failure while running: exit status 1.
    Failed(String),
}

impl Failure {
    /// A failure while running, with the chain of its causes on one line.
    pub fn failed(error: &dyn std::error::Error) -> Self {
        Self::Failed(chain(error))
    }

    /// A failure of the database; says what `database.url` comes from.
    pub fn of_store(error: &StoreError, source: &ConfigSource, config: &Config) -> Self {
        Self::Failed(format!("{error} (database.url is from {})", source.origin_of_url(config)))
    }

    /// The configured nodes file cannot be read; says what `crawl.nodes_file` comes from.
    pub fn of_nodes_file(error: &dyn fmt::Display, source: &ConfigSource, config: &Config) -> Self {
        let origin = source.origin_of_nodes_file(config);
        Self::Usage(format!("{error} (crawl.nodes_file is from {origin})"))
    }

    /// The exit status of the process.
    pub fn exit_status(&self) -> u8 {
        match self {
            Self::Usage(_) => 2,
            Self::Failed(_) => 1,
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (Self::Usage(text) | Self::Failed(text)) = self;
        f.write_str(text)
    }
}

impl std::error::Error for Failure {}

impl From<ConfigError> for Failure {
    fn from(error: ConfigError) -> Self {
        Self::Usage(error.lines().join("\nbitdash: "))
    }
}

impl From<NodesFileError> for Failure {
    fn from(error: NodesFileError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// An error and its causes on one line, separated by colons. A cause that the preceding text
/// already contains is omitted.
pub fn chain(error: &dyn std::error::Error) -> String {
    let mut line = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        let text = error.to_string();
        if !line.contains(&text) {
            line.push_str(": ");
            line.push_str(&text);
        }
        cause = error.source();
    }
    line.lines().map(str::trim).filter(|line| !line.is_empty()).collect::<Vec<_>>().join("; ")
}

/// Species and release on one line.
pub fn species_text(species: &str, release: Option<&str>) -> String {
    match release {
        Some(release) => format!("{species}, release {release}"),
        None => species.to_owned(),
    }
}

/// Prints to stdout. A closed pipe (`| head`) is not a failure.
///
/// # Errors
/// Writing fails, for example on a full disk.
pub fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// Like [`print()`], for endless output: returns `false` once the pipe is closed.
///
/// # Errors
/// Writing fails, for example on a full disk.
pub fn print_on(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Failed(format!("standard output cannot be written: {error}"))),
    }
}

/// Prints a message to stderr; gives up after `NOTE_TIMEOUT` if stderr blocks. On a terminal it is
/// wrapped; elsewhere it stays one line.
pub fn note(text: &str) {
    to_stderr(hanging(&format!("bitdash: {text}\n"), width_of(io::stderr())));
}

/// Writes lines to stderr; gives up after `NOTE_TIMEOUT` if it blocks.
pub fn to_stderr(lines: String) {
    let write = |lines: &str| drop(io::stderr().write_all(lines.as_bytes()));
    let (done, is_done) = mpsc::sync_channel(1);
    let text = lines.clone();
    let spawned = thread::Builder::new().spawn(move || {
        write(&text);
        let _ = done.send(());
    });
    match spawned {
        Ok(_) => drop(is_done.recv_timeout(NOTE_TIMEOUT)),
        // No thread available: the message matters more than the bound.
        Err(_) => write(&lines),
    }
}

/// Counts against the ten seconds within which a stop is promised.
const NOTE_TIMEOUT: Duration = Duration::from_millis(500);

/// `HOST[:PORT]` or the name of a node on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct HostPort {
    /// The host; a name may be that of a node, which may have spaces.
    pub host: Host,
    /// The port, never 0; `None` if omitted.
    pub port: Option<u16>,
}

impl HostPort {
    /// Whether it can only be the name of a node: no name server is asked for it.
    pub fn is_no_host(&self) -> bool {
        matches!(&self.host, Host::Name(name) if name.parse::<Host>().is_err())
    }
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.host {
            Host::Ip(ip) => write!(f, "{ip}")?,
            Host::Name(name) => f.write_str(name)?,
        }
        self.port.map_or(Ok(()), |port| write!(f, ":{port}"))
    }
}

impl FromStr for HostPort {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_ipv6 = text.parse::<std::net::Ipv6Addr>().is_ok();
        let (host, port) = match text.rsplit_once(':').filter(|_| !is_ipv6) {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let may_be_node = host.contains(char::is_whitespace) || !host.is_ascii();
        let host = match host.parse() {
            Ok(host) => host,
            Err(_) if may_be_node => Host::Name(host.to_lowercase()),
            Err(problem) => return Err(format!("it is {problem}")),
        };
        let read = |text: &str| {
            let digits = text.bytes().all(|byte| byte.is_ascii_digit());
            let port = text.parse().ok().filter(|&port: &u16| digits && port != 0);
            port.ok_or_else(|| "its port must be a whole number from 1 to 65535".to_owned())
        };
        Ok(Self { host, port: port.map(read).transpose()? })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_may_have_a_port() {
        let place = |text: &str| text.parse::<HostPort>();
        let ip = Host::Ip([10, 0, 0, 1].into());
        assert_eq!(place("10.0.0.1"), Ok(HostPort { host: ip.clone(), port: None }));
        assert_eq!(place("10.0.0.1:18333"), Ok(HostPort { host: ip, port: Some(18_333) }));
        let name = Host::Name("node.example".to_owned());
        assert_eq!(place("node.example:1"), Ok(HostPort { host: name, port: Some(1) }));
        for port in ["", "0", "65536", "+1", "x", "-1"] {
            let error = place(&format!("10.0.0.1:{port}")).unwrap_err();
            assert_eq!(error, "its port must be a whole number from 1 to 65535");
        }
        let six = "it is an IPv6 address, and only IPv4 is crawled";
        assert_eq!(place("::1"), Err(six.to_owned()));
        assert_eq!(place("[::1]:8333"), Err(six.to_owned()));
        for (text, is_no_host) in [("Two Words", true), ("Zürich", true), ("pizarro", false)] {
            assert_eq!(place(text).unwrap().is_no_host(), is_no_host, "{text}");
        }
        assert_eq!(place("a/b"), Err("it is neither an IPv4 address nor a host name".to_owned()));
    }

    #[test]
    fn causes_are_on_one_line_and_none_is_repeated() {
        #[derive(Debug)]
        struct Link(&'static str, Option<Box<Link>>);
        impl fmt::Display for Link {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.0)
            }
        }
        impl std::error::Error for Link {
            fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
                self.1.as_deref().map(|link| link as _)
            }
        }
        let last = Link("refused\n  by the server", None);
        let error = Link("no database", Some(Box::new(Link("database", Some(Box::new(last))))));
        assert_eq!(chain(&error), "no database: refused; by the server");
        assert_eq!(Failure::failed(&error).exit_status(), 1);
    }
}
