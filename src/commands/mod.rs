//! What the command line offers: one module per command, and what they share.
//!
//! Layer 4 of the house: the only part of the library that writes to standard output.

use std::fmt;
use std::io::{self, Write};
use std::str::FromStr;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use crate::io::config::ConfigError;
use crate::io::nodes_file::{Host, NodesFileError};

pub mod cli;
pub mod config;
pub mod crawl;
pub mod migrate;
pub mod poll;
pub mod probe;
pub mod status;
pub mod table;
pub mod visit;

/// Why a command did not do what it should. Its text is one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Failure {
    /// Wrong usage or a wrong configuration: exit status 2.
    Usage(String),
    /// It failed while running: exit status 1.
    Failed(String),
}

impl Failure {
    /// A failure while running, with the chain of its causes on one line.
    pub fn failed(error: &dyn std::error::Error) -> Self {
        Self::Failed(chain(error))
    }

    /// The exit status that the contract gives it.
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
        Self::Usage(error.to_string())
    }
}

impl From<NodesFileError> for Failure {
    fn from(error: NodesFileError) -> Self {
        Self::Usage(error.to_string())
    }
}

/// An error and its causes on one line, parted by colons. A cause that the text before it has
/// quoted already is left out.
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

/// Prints to standard output. A reader that has gone away (`| head`) is no failure.
///
/// # Errors
/// Standard output cannot be written: a full disk behind a redirection.
pub fn print(text: &str) -> Result<(), Failure> {
    print_on(text).map(|_| ())
}

/// The same, for output without an end: `false` where the reader has gone away.
///
/// # Errors
/// Standard output cannot be written: a full disk behind a redirection.
pub fn print_on(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::Failed(format!("standard output cannot be written: {error}"))),
    }
}

/// Says something beside the result, on standard error. Where even that fails, or nobody takes it for `NOTE_PATIENCE`
/// (a full pipe, a terminal that is held), nobody is left to be told.
pub fn note(text: &str) {
    let write = |line: &str| drop(io::stderr().write_all(line.as_bytes()));
    let line = format!("bitdash: {text}\n");
    let (done, is_done) = mpsc::sync_channel(1);
    let words = line.clone();
    let spawned = thread::Builder::new().spawn(move || {
        write(&words);
        let _ = done.send(());
    });
    match spawned {
        Ok(_) => drop(is_done.recv_timeout(NOTE_PATIENCE)),
        // Short of threads: to be told matters more than the bound.
        Err(_) => write(&line),
    }
}

/// A part of the ten seconds within which a stop is promised.
const NOTE_PATIENCE: Duration = Duration::from_millis(500);

/// `HOST[:PORT]` on the command line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Place {
    /// The host.
    pub host: Host,
    /// The port, never 0; `None` where it is left out.
    pub port: Option<u16>,
}

impl FromStr for Place {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let is_ipv6 = text.parse::<std::net::Ipv6Addr>().is_ok();
        let (host, port) = match text.rsplit_once(':').filter(|_| !is_ipv6) {
            Some((host, port)) => (host, Some(port)),
            None => (text, None),
        };
        let host = host.parse().map_err(|problem| format!("it is {problem}"))?;
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
    fn places_are_hosts_with_or_without_a_port() {
        let place = |text: &str| text.parse::<Place>();
        let ip = Host::Ip([10, 0, 0, 1].into());
        assert_eq!(place("10.0.0.1"), Ok(Place { host: ip.clone(), port: None }));
        assert_eq!(place("10.0.0.1:18333"), Ok(Place { host: ip, port: Some(18_333) }));
        let name = Host::Name("node.example".to_owned());
        assert_eq!(place("node.example:1"), Ok(Place { host: name, port: Some(1) }));
        for port in ["", "0", "65536", "+1", "x", "-1"] {
            let error = place(&format!("10.0.0.1:{port}")).unwrap_err();
            assert_eq!(error, "its port must be a whole number from 1 to 65535");
        }
        let six = "it is an IPv6 address, and only IPv4 is crawled";
        assert_eq!(place("::1"), Err(six.to_owned()));
        assert_eq!(place("[::1]:8333"), Err(six.to_owned()));
        assert_eq!(place("a/b"), Err("it is neither an IPv4 address nor a host name".to_owned()));
    }

    #[test]
    fn causes_stand_on_one_line_and_none_twice() {
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
