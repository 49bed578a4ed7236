//! Resolves the host names of the nodes file on its own threads, never on the event loop.
//!
//! The system's resolver blocks, for many seconds if the uplink is down, and cannot be cancelled.
//! So a few threads share the names, another one collects their answers until a deadline, and then
//! calls the caller's function with all results.

use std::collections::VecDeque;
use std::io;
use std::net::{Ipv4Addr, SocketAddr, ToSocketAddrs};
use std::path::Path;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use crate::net::nodes_file::{Host, Line};
use crate::sys::clock::{Clock, LoopClock};
use crate::sys::text_file;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::{Asked, Filter};

/// A line of the nodes file with its addresses.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Resolved {
    /// The line.
    pub line: Line,
    /// Its IPv4 addresses (all A records of a host name), or one line that says why there are none.
    pub addresses: Result<Vec<Address>, String>,
}

/// Timeout of [`resolve`]; the system's resolver gives up after 10 to 30 seconds.
pub const RESOLVE_TIMEOUT: Duration = Duration::from_secs(30);

/// Resolves all names in `lines` and calls `done` once with all lines in order, after `timeout` at
/// the latest; names without an answer by then fail.
///
/// If there are no names, or no thread can be started, `done` is called before this returns,
/// otherwise on another thread.
pub fn resolve(
    lines: Vec<Line>,
    timeout: Duration,
    done: impl FnOnce(Vec<Resolved>) + Send + 'static,
) {
    resolve_with(lines, timeout, system_lookup, done);
}

type Lookup = fn(&str, u16) -> io::Result<Vec<SocketAddr>>;
type Answer = (usize, Result<Vec<Address>, String>);

fn system_lookup(name: &str, port: u16) -> io::Result<Vec<SocketAddr>> {
    if is_localhost(name) {
        return Ok(vec![SocketAddr::from((Ipv4Addr::LOCALHOST, port))]);
    }
    let hosts = text_file::read(Path::new("/etc/hosts"), MAX_HOSTS_BYTES).unwrap_or_default();
    let found = in_hosts(&String::from_utf8_lossy(&hosts), name);
    if !found.is_empty() {
        return Ok(found.into_iter().map(|ip| SocketAddr::from((ip, port))).collect());
    }
    Ok((absolute(name).as_str(), port).to_socket_addrs()?.collect())
}

/// Whether this machine itself is meant (RFC 6761): no name server is asked.
fn is_localhost(name: &str) -> bool {
    name == "localhost" || name.ends_with(".localhost")
}

/// A name of two or more labels with its dot, so that the system's resolver does not try its search
/// domains, where a catch-all would answer. A single label, such as `mynode`, may be searched for.
// bitcoin#23193: a DNS seed that was away became a host of the search domain.
fn absolute(name: &str) -> String {
    if name.contains('.') { format!("{name}.") } else { name.to_owned() }
}

/// The IPv4 addresses of a name in the text of a hosts file, in which no name ends with a dot.
fn in_hosts(text: &str, name: &str) -> Vec<Ipv4Addr> {
    let address = |line: &str| {
        let mut words = line.split('#').next().unwrap_or_default().split_whitespace();
        let ip = words.next()?.parse().ok()?;
        words.any(|word| word.eq_ignore_ascii_case(name)).then_some(ip)
    };
    text.lines().filter_map(address).collect()
}

/// Removes the addresses of a line that `filter` does not admit. `is_vouched_for`: the operator
/// gave the host a name, or typed it.
///
/// # Errors
/// There is no address, or none is left: one line that says why.
pub fn admitted(
    line: &Line,
    addresses: Result<Vec<Address>, String>,
    is_vouched_for: bool,
    filter: &Filter,
) -> Result<Vec<Address>, String> {
    let check = |address| match &line.host {
        Host::Ip(_) => filter.check_named(address),
        Host::Name(name) if is_localhost(name) => filter.check_answer(address, Asked::Localhost),
        Host::Name(_) if is_vouched_for => filter.check_answer(address, Asked::Named),
        Host::Name(_) => filter.check_answer(address, Asked::Unnamed),
    };
    let mut refused = None;
    let mut admitted = addresses?;
    admitted.retain(|address| {
        let checked = check(*address);
        refused = refused.or(checked.err().map(|why| (*address, why)));
        checked.is_ok()
    });
    match refused {
        Some((_, why)) if line.address().is_some() => Err(format!("not dialled: {why}")),
        Some((address, why)) if admitted.is_empty() => {
            Err(format!("{}: {} is {why}", line.host, address.ip()))
        }
        _ => Ok(admitted),
    }
}

fn resolve_with(
    lines: Vec<Line>,
    timeout: Duration,
    lookup: Lookup,
    done: impl FnOnce(Vec<Resolved>) + Send + 'static,
) {
    let mut resolved: Vec<Resolved> = lines
        .into_iter()
        .map(|line| {
            let addresses = line.address().map(|address| vec![address]);
            let addresses = addresses
                .ok_or_else(|| format!("{}: no answer within {} s", line.host, timeout.as_secs()));
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
    let shared = Arc::clone(&done);
    let unresolved = resolved.clone();
    let wait = move || {
        collect(&mut resolved, &answers, expected, timeout);
        call(&shared, resolved);
    };
    if thread::Builder::new().name("resolve".to_owned()).spawn(wait).is_err() {
        call(&done, unresolved);
    }
}

fn call<F: FnOnce(Vec<Resolved>)>(done: &Mutex<Option<F>>, resolved: Vec<Resolved>) {
    let function = done.lock().unwrap_or_else(PoisonError::into_inner).take();
    if let Some(function) = function {
        function(resolved);
    }
}

/// Starts the resolver threads and returns their number. Each exits after the last name, or when
/// the receiver of its answers is gone.
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

/// Stores answers until all have arrived, the workers are gone or the timeout expires.
fn collect(
    resolved: &mut [Resolved],
    answers: &Receiver<Answer>,
    expected: usize,
    timeout: Duration,
) {
    // Time during which the process did not run counts against no name server either.
    let clock = LoopClock::new(Clock::new());
    let mut missing = expected;
    while missing > 0 {
        let left = timeout.saturating_sub(clock.now().mono);
        let wait = left.min(MAX_WAIT);
        clock.announce(wait);
        match answers.recv_timeout(wait) {
            Ok((index, addresses)) => {
                resolved[index].addresses = addresses;
                missing -= 1;
            }
            Err(RecvTimeoutError::Timeout) if !left.is_zero() => {}
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

/// Maximum duration of one wait, so that no stall of the process hides in it.
const MAX_WAIT: Duration = Duration::from_secs(1);
const MAX_THREADS: usize = 4;
/// Maximum size of `/etc/hosts`; some people keep block lists there.
const MAX_HOSTS_BYTES: u64 = 16_000_000;

/// Maximum number of addresses per name; a DNS seed returns about 40.
const MAX_ADDRESSES: usize = 256;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::nodes_file::NodesFile;

    /// Answers without a network.
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

    fn run(text: &str, timeout: Duration, lookup: Lookup) -> Vec<String> {
        let lines = NodesFile::parse("n", text.as_bytes(), 8333).lines;
        let (sender, receiver) = channel();
        resolve_with(lines, timeout, lookup, move |resolved| sender.send(resolved).unwrap());
        let resolved = receiver.recv_timeout(Duration::from_secs(50)).unwrap();
        let show = |one: Resolved| format!("{} {:?}", one.line.number, one.addresses);
        resolved.into_iter().map(show).collect()
    }

    #[test]
    fn names_resolve_to_all_ipv4_addresses_or_one_line_of_error() {
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
    fn a_name_without_an_answer_fails_at_the_timeout() {
        let expected = [
            "1 Err(\"stuck.example: no answer within 1 s\")",
            "2 Ok([10.0.0.1:8333, 10.0.0.2:8333])",
        ];
        assert_eq!(run("stuck.example\ntwo.example\n", Duration::from_secs(1), fake), expected);
    }

    #[test]
    fn addresses_without_names_need_no_thread() {
        fn never(_: &str, _: u16) -> io::Result<Vec<SocketAddr>> {
            panic!("nothing to resolve")
        }
        let lines = NodesFile::parse("n", b"10.0.0.1\n10.0.0.2\n", 8333).lines;
        let caller = thread::current().id();
        let (sender, receiver) = channel();
        resolve_with(lines, RESOLVE_TIMEOUT, never, move |resolved| {
            sender.send((resolved.len(), thread::current().id())).unwrap();
        });
        assert_eq!(receiver.try_recv(), Ok((2, caller)));
    }

    #[test]
    fn names_of_two_or_more_labels_are_absolute() {
        for (name, asked) in [
            ("a.seed.example", "a.seed.example."),
            ("seed.example", "seed.example."),
            ("mynode", "mynode"),
        ] {
            assert_eq!(absolute(name), asked);
        }
    }

    #[test]
    fn the_hosts_file_is_read_first() {
        let text = "# own\n127.0.0.1 localhost\n10.0.0.1\tnode.example  Alias.example # x.example\n\
                    ::1 node.example\n10.0.0.2 node.example\noops node.example\n";
        let found = |name| in_hosts(text, name);
        let (one, two) = (Ipv4Addr::new(10, 0, 0, 1), Ipv4Addr::new(10, 0, 0, 2));
        assert_eq!(found("node.example"), [one, two]);
        assert_eq!(found("alias.example"), [one]);
        assert_eq!(
            (found("x.example"), found("10.0.0.1"), found("none")),
            (vec![], vec![], vec![])
        );
    }

    #[test]
    fn answers_that_the_filter_refuses_are_dropped_and_none_left_is_a_failure() {
        let exclude = ["9.9.9.0/24".parse().unwrap()];
        let filter = Filter::new(&exclude, &[]);
        let check = |line: &str, ips: &[[u8; 4]], is_vouched_for| {
            let line = NodesFile::parse("n", line.as_bytes(), 8333).lines.remove(0);
            let addresses = ips.iter().map(|ip| Address::new((*ip).into(), 8333)).collect();
            admitted(&line, Ok(addresses), is_vouched_for, &filter).map(|left| left.len())
        };
        let mixed = [[8, 8, 8, 8], [127, 0, 0, 1], [9, 9, 9, 9], [0, 0, 0, 0]];
        assert_eq!(check("seed.example", &mixed, false), Ok(1));
        let private = |is_vouched_for| check("my.example", &[[192, 168, 7, 7]], is_vouched_for);
        assert_eq!(private(true), Ok(1));
        let why = "my.example: 192.168.7.7 is not the address of a public node";
        assert_eq!(private(false), Err(why.to_owned()));
        assert_eq!(check("a.localhost", &[[127, 0, 0, 1]], false), Ok(1));
        let why = "friend.example: 0.0.0.0 is not the address of a public node";
        assert_eq!(check("friend.example 8333 Friend", &[[0; 4]], true), Err(why.to_owned()));
        let why = "not dialled: excluded by filter.exclude";
        assert_eq!(check("9.9.9.9 8333 Friend", &[[9; 4]], true), Err(why.to_owned()));
        assert_eq!(check("192.168.7.7", &[[192, 168, 7, 7]], false), Ok(1), "a literal");
    }

    #[test]
    fn localhost_is_known_without_a_question() {
        let found = system_lookup("localhost", 8333).unwrap();
        assert!(found.contains(&"127.0.0.1:8333".parse().unwrap()), "{found:?}");
    }
}
