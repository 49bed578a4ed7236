//! Looking up the host names of the nodes file, on threads of its own: never on the loop's.
//!
//! Layer 3. The system's look-up blocks, for many seconds where the line is down, and cannot be
//! broken off. So a few threads share the names, a further one waits for them until a deadline, and
//! the caller's function gets everything at once: nothing else of the program ever waits.

use std::collections::VecDeque;
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::crawl::address::Address;
use crate::io::clock::Clock;
use crate::io::nodes_file::{Host, Line};

/// A line of the nodes file with its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// The line.
    pub line: Line,
    /// Its IPv4 addresses (one where it names an address itself, all A records of a name), or one
    /// line of text that says why there are none.
    pub addresses: Result<Vec<Address>, String>,
}

/// How long [`resolve`] should wait at most; the system's own look-up gives up after 10 to 30
/// seconds.
pub const PATIENCE: Duration = Duration::from_secs(30);

/// Looks up all names among `lines` and calls `done` once, with every line in its order, after
/// `patience` at the latest; names without an answer by then fail.
///
/// If no line holds a name, or no thread can be had, `done` is called before this returns;
/// otherwise from another thread.
pub fn resolve(
    lines: Vec<Line>,
    patience: Duration,
    done: impl FnOnce(Vec<Resolved>) + Send + 'static,
) {
    resolve_with(lines, patience, system_lookup, done);
}

type Lookup = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;
type Answer = (usize, Result<Vec<Address>, String>);

fn system_lookup(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    Ok((name, port).to_socket_addrs()?.collect())
}

fn resolve_with(
    lines: Vec<Line>,
    patience: Duration,
    lookup: Lookup,
    done: impl FnOnce(Vec<Resolved>) + Send + 'static,
) {
    let mut resolved: Vec<Resolved> = lines
        .into_iter()
        .map(|line| {
            let addresses = line.address().map(|address| vec![address]);
            let addresses = addresses
                .ok_or_else(|| format!("{}: no answer within {} s", line.host, patience.as_secs()));
            Resolved { line, addresses }
        })
        .collect();
    let names: VecDeque<(usize, String, u16)> = resolved
        .iter()
        .enumerate()
        .filter_map(|(index, resolved)| match &resolved.line.host {
            Host::Name(name) => Some((index, name.clone(), resolved.line.port)),
            Host::Ip(_) => None,
        })
        .collect();
    let (sender, answers) = channel();
    let expected = names.len();
    if expected == 0 || start_workers(names, lookup, &sender) == 0 {
        return done(resolved);
    }
    drop(sender);
    let done = Arc::new(Mutex::new(Some(done)));
    let handed = Arc::clone(&done);
    let spare = resolved.clone();
    let waiting = move || {
        collect(&mut resolved, &answers, expected, patience);
        call(&handed, resolved);
    };
    if thread::Builder::new().name("resolve".to_owned()).spawn(waiting).is_err() {
        call(&done, spare);
    }
}

fn call<F: FnOnce(Vec<Resolved>)>(done: &Mutex<Option<F>>, resolved: Vec<Resolved>) {
    let function = done.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(function) = function {
        function(resolved);
    }
}

/// Starts the threads that look names up, and says how many there are. Each ends with the last
/// name, or when nobody waits for its answer any more.
fn start_workers(
    names: VecDeque<(usize, String, u16)>,
    lookup: Lookup,
    answers: &Sender<Answer>,
) -> usize {
    let count = names.len().min(MAX_THREADS);
    let names = Arc::new(Mutex::new(names));
    let start = |_: &usize| {
        let (names, answers) = (Arc::clone(&names), answers.clone());
        let work = move || {
            loop {
                let next = names.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
                let Some((index, name, port)) = next else { return };
                if answers.send((index, addresses_of(&name, lookup(&name, port)))).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name("lookup".to_owned()).spawn(work).is_ok()
    };
    (0..count).filter(start).count()
}

/// Puts answers in their places until all are there, the workers are gone or the time is over.
fn collect(
    resolved: &mut [Resolved],
    answers: &Receiver<Answer>,
    expected: usize,
    patience: Duration,
) {
    let clock = Clock::new();
    for _ in 0..expected {
        let left = patience.saturating_sub(clock.now().mono);
        match answers.recv_timeout(left) {
            Ok((index, addresses)) => resolved[index].addresses = addresses,
            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => return,
        }
    }
}

fn addresses_of(name: &str, answer: io::Result<Vec<SocketAddr>>) -> Result<Vec<Address>, String> {
    let answer = answer.map_err(|error| {
        let text = error.to_string().to_lowercase();
        let cause = text.rsplit(": ").next().unwrap_or(&text).replace('\n', " ");
        format!("{name}: host name does not resolve: {cause}")
    })?;
    let mut addresses: Vec<Address> = Vec::new();
    for address in answer {
        if let SocketAddr::V4(address) = address
            && addresses.len() < MAX_ADDRESSES
            && !addresses.contains(&Address::from(address))
        {
            addresses.push(Address::from(address));
        }
    }
    if addresses.is_empty() {
        return Err(format!("{name}: host name has no IPv4 address"));
    }
    Ok(addresses)
}

const MAX_THREADS: usize = 4;

/// The most addresses taken of one name; a seed gives some 40.
const MAX_ADDRESSES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::io::nodes_file::NodesFile;

    /// Answers without asking anybody.
    fn fake(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
        let at = |ip: &str| SocketAddr::new(ip.parse().unwrap(), port);
        match name {
            "two.example" => {
                Ok(vec![at("10.0.0.1"), at("2001:db8::1"), at("10.0.0.2"), at("10.0.0.1")])
            }
            "six.example" => Ok(vec![at("2001:db8::1")]),
            "stuck.example" => {
                thread::park_timeout(Duration::from_secs(60));
                Ok(vec![at("10.0.0.9")])
            }
            _ => Err(io::Error::other(
                "failed to lookup address information: Name or service not known",
            )),
        }
    }

    fn run(text: &str, patience: Duration, lookup: Lookup) -> Vec<String> {
        let lines = NodesFile::parse("n", text.as_bytes(), 8333).lines;
        let (sender, receiver) = channel();
        resolve_with(lines, patience, lookup, move |resolved| sender.send(resolved).unwrap());
        let resolved = receiver.recv_timeout(Duration::from_secs(50)).unwrap();
        let show = |one: Resolved| format!("{} {:?}", one.line.number, one.addresses);
        resolved.into_iter().map(show).collect()
    }

    #[test]
    fn names_give_all_their_ipv4_addresses_and_failures_one_line_each() {
        let text = "two.example\n10.0.0.7 1\nnone.example\nsix.example 2\ntwo.example 3\n";
        let expected = [
            "1 Ok([10.0.0.1:8333, 10.0.0.2:8333])",
            "2 Ok([10.0.0.7:1])",
            "3 Err(\"none.example: host name does not resolve: name or service not known\")",
            "4 Err(\"six.example: host name has no IPv4 address\")",
            "5 Ok([10.0.0.1:3, 10.0.0.2:3])",
        ];
        assert_eq!(run(text, Duration::from_secs(40), fake), expected);
    }

    #[test]
    fn a_name_that_hangs_holds_up_nothing_beyond_the_deadline() {
        let expected = [
            "1 Err(\"stuck.example: no answer within 1 s\")",
            "2 Ok([10.0.0.1:8333, 10.0.0.2:8333])",
        ];
        assert_eq!(run("stuck.example\ntwo.example\n", Duration::from_secs(1), fake), expected);
    }

    #[test]
    fn addresses_alone_need_no_thread() {
        fn never(_: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
            panic!("nothing to look up")
        }
        let lines = NodesFile::parse("n", b"10.0.0.1\n10.0.0.2\n", 8333).lines;
        let caller = thread::current().id();
        let (sender, receiver) = channel();
        resolve_with(lines, PATIENCE, never, move |resolved| {
            sender.send((resolved.len(), thread::current().id())).unwrap();
        });
        assert_eq!(receiver.try_recv(), Ok((2, caller)));
    }

    #[test]
    fn the_systems_look_up_finds_localhost() {
        // `/etc/hosts` answers: no packet is sent.
        let found = system_lookup("localhost", 8333).unwrap();
        assert!(found.contains(&"127.0.0.1:8333".parse().unwrap()), "{found:?}");
    }
}
