//! `Server`: a world behind real sockets on loopback; one thread, one mio loop.
//!
//! Layer 3: the sockets and the clock. What is said stands in `behaviour`.
//!
//! Invariants:
//! 1. Nothing is said to, and nothing kept of, a connection with an end outside 127.0.0.0/8.
//! 2. A connection counts as open only if it lasts 2 ms, and only after the ends of all connections that
//!    ended before it was made have been seen (the kernel may hand them over late, but not so late): so
//!    `most_at_once` is never more than what the crawler had open.
//! 3. Everything that a connection holds is bounded by the conversation's own bounds, and so is what is sent
//!    in one turn: a beast that floods starves nobody.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashSet, VecDeque};
use std::fmt;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::{Duration, Instant};

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Registry, Token};
use slab::Slab;

use crate::crawl::address::Address;
use crate::simnet::behaviour::Close;
use crate::simnet::knowledge::mix;
use crate::simnet::report::Report;
use crate::simnet::sockets;
use crate::simnet::talk::Talk;
use crate::simnet::world::{DeadKind, World};

/// Whatever is registered under this token ends [`Server::run`] when it has an event.
pub const STOP: Token = Token(usize::MAX - 1);

/// A simulated network at work.
#[derive(Debug)]
pub struct Server {
    world: Arc<World>,
    poll: Poll,
    listeners: Vec<Listener>,
    /// Never looked at; they are there as long as they are open.
    _silent: Vec<OwnedFd>,
    connections: Slab<Connection>,
    /// When accepted, key and serial of those that do not count as open yet: invariant 2.
    fresh: VecDeque<(Duration, usize, u64)>,
    timers: BinaryHeap<Reverse<(Duration, usize, u64)>>,
    bans: HashSet<(usize, Ipv4Addr)>,
    report: Report,
    started: Instant,
    accepted: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    /// Whether somebody may be waiting.
    ready: bool,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    from: Ipv4Addr,
    talk: Talk,
    /// Whether its sending half was ended.
    is_half: bool,
    output: Vec<u8>,
    sent: usize,
    /// Replies that the kernel has taken to the last byte, and when it took the last one.
    flushed: u64,
    flushed_at: Duration,
    /// Whether it counts as open.
    counted: bool,
    /// Tells this connection from others that had its key; goes with its timers.
    serial: u64,
    timer: Option<Duration>,
}

/// Why a network cannot be opened.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// A port is in use.
    PortTaken(Address),
    /// An address that should refuse does not.
    Answered(Address),
    /// The limit on open files is too low.
    TooManyFiles {
        /// How many are needed.
        needed: u64,
        /// How many are allowed.
        limit: u64,
    },
    /// The system failed.
    Io {
        /// At what.
        what: String,
        /// With what.
        source: io::Error,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken(address) => {
                write!(f, "{address} is in use: try another port offset")
            }
            Self::Answered(address) => write!(
                f,
                "port {} is in use by another program: try another port offset",
                address.port()
            ),
            Self::TooManyFiles { needed, limit } => write!(
                f,
                "this network needs {needed} open files and the limit is {limit}: \
                 ask for fewer dead addresses, or raise it (ulimit -n)"
            ),
            Self::Io { what, .. } => write!(f, "cannot {what}"),
        }
    }
}

impl std::error::Error for ServeError {
    fn source(&self) -> Option<&(dyn std::error::Error + 'static)> {
        match self {
            Self::Io { source, .. } => Some(source),
            _ => None,
        }
    }
}

impl Server {
    /// Opens all listeners. From here on nodes can be connected to; they answer in [`Server::run`].
    ///
    /// # Errors
    ///
    /// If ports are taken, files too few, or sockets fail.
    pub fn open(world: Arc<World>) -> Result<Self, ServeError> {
        let nodes = world.nodes().iter().map(|node| node.address);
        let answering: Vec<Address> =
            nodes.chain(world.dens().iter().map(|den| den.address)).collect();
        let shared_ports: HashSet<u16> = {
            let used: HashSet<u16> = answering.iter().map(|address| address.port()).collect();
            world.shared_ports().iter().copied().filter(|port| used.contains(port)).collect()
        };
        let alone = answering.into_iter().filter(|at| !shared_ports.contains(&at.port()));
        let alone: Vec<Address> = alone.collect();
        let silent: Vec<Address> = dead(&world, DeadKind::Silent).collect();
        let needed = (shared_ports.len() + alone.len() + silent.len()) as u64 + SPARE_FILES;
        let limit = sockets::raise_open_files();
        if needed > limit {
            return Err(ServeError::TooManyFiles { needed, limit });
        }
        let poll = Poll::new().map_err(failed("poll"))?;
        let mut listeners = Vec::new();
        let mut ports: Vec<u16> = shared_ports.iter().copied().collect();
        ports.sort_unstable();
        for port in ports {
            let address = Address::new(Ipv4Addr::UNSPECIFIED, port);
            listeners.push(sockets::shared(port).map_err(|error| taken(address, error))?);
        }
        for address in alone {
            listeners.push(sockets::own(address).map_err(|error| taken(address, error))?);
        }
        let silent = silent.into_iter().map(|address| {
            sockets::silent(address, shared_ports.contains(&address.port()))
                .map_err(|error| taken(address, error))
        });
        let silent = silent.collect::<Result<Vec<_>, _>>()?;
        check_refusing(&world)?;
        let listeners = listeners.into_iter().enumerate().map(|(at, mut socket)| {
            poll.registry().register(
                &mut socket,
                Token(FIRST_LISTENER + at),
                Interest::READABLE,
            )?;
            Ok(Listener { socket, ready: false })
        });
        Ok(Self {
            listeners: listeners.collect::<io::Result<_>>().map_err(failed("poll a listener"))?,
            _silent: silent,
            connections: Slab::new(),
            fresh: VecDeque::new(),
            timers: BinaryHeap::new(),
            bans: HashSet::new(),
            report: Report::new(&world),
            started: start(),
            accepted: 0,
            buffer: vec![0; 64 * 1024],
            poll,
            world,
        })
    }

    /// Where a signal source or a waker can be registered under [`STOP`].
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Serves until there is an event with the token [`STOP`], and gives the account of it all.
    ///
    /// # Errors
    ///
    /// If the poll fails.
    pub fn run(mut self) -> io::Result<Report> {
        let mut events = Events::with_capacity(EVENTS);
        let mut stopping = false;
        while !stopping {
            let timeout = self.timeout();
            stopping = self.turn(&mut events, timeout)?;
        }
        // What happened before the end counts, also where it was not looked at yet.
        let end = self.started.elapsed() + LAST_LOOK;
        loop {
            for listener in &mut self.listeners {
                listener.ready = true;
            }
            let before = self.accepted;
            self.turn(&mut events, Some(Duration::ZERO))?;
            let quiet = events.is_empty() && self.accepted == before;
            if quiet || self.started.elapsed() > end {
                return Ok(self.finish());
            }
        }
    }

    /// One round of events, timers and new connections; whether it is time to stop.
    fn turn(&mut self, events: &mut Events, timeout: Option<Duration>) -> io::Result<bool> {
        match self.poll.poll(events, timeout) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(false),
            other => other?,
        }
        let now = self.started.elapsed();
        let mut seen = 0;
        let mut stop = false;
        for event in &*events {
            seen += 1;
            match event.token() {
                STOP => stop = true,
                Token(at) if at >= FIRST_LISTENER => {
                    if let Some(listener) = self.listeners.get_mut(at - FIRST_LISTENER) {
                        listener.ready = true;
                    }
                }
                Token(key) => self.handle_ready(key, now),
            }
        }
        self.handle_timers(now);
        // A full batch may hide ends that came before the new connections.
        if seen < EVENTS {
            self.count_fresh(now);
        }
        self.accept();
        Ok(stop)
    }

    fn timeout(&self) -> Option<Duration> {
        let timer = self.timers.peek().map(|Reverse((due, ..))| *due);
        let fresh = self.fresh.front().map(|(at, ..)| *at + COUNTS_AFTER);
        let next = [timer, fresh].into_iter().flatten().min();
        let next = next.map(|due| due.saturating_sub(self.started.elapsed()));
        let waiting = self.listeners.iter().any(|listener| listener.ready);
        if waiting { Some(next.unwrap_or(RETRY).min(RETRY)) } else { next }
    }

    /// Takes all who wait at the listeners.
    fn accept(&mut self) {
        for at in 0..self.listeners.len() {
            while let Some(listener) = self.listeners.get_mut(at)
                && listener.ready
            {
                match listener.socket.accept() {
                    Ok((stream, from)) => self.greet(stream, from),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        listener.ready = false;
                    }
                    Err(error) if is_out_of_files(&error) => {
                        self.report.out_of_files += 1;
                        break;
                    }
                    // That one is gone already.
                    Err(_) => {}
                }
            }
        }
    }

    /// Finds out whom a new connection is for, and begins the conversation.
    fn greet(&mut self, mut stream: TcpStream, from: SocketAddr) {
        let (SocketAddr::V4(from), Ok(SocketAddr::V4(to))) = (from, stream.local_addr()) else {
            self.report.foreign += 1;
            return;
        };
        let from = *from.ip();
        if !from.is_loopback() || !to.ip().is_loopback() {
            self.report.foreign += 1;
            return;
        }
        let to = Address::from(to);
        let Some(node) = self.world.find(to).or_else(|| self.world.find_den(to)) else {
            self.report.stray += 1;
            sockets::reset(&stream);
            return;
        };
        let now = self.started.elapsed();
        self.report.connected(node);
        self.accepted += 1;
        let banned = self.bans.contains(&(node, from));
        self.report.turned_away += u64::from(banned);
        let seed = mix(self.world.params().seed, node as u64, self.accepted);
        let rng = fastrand::Rng::with_seed(seed);
        let talk = Talk::new(self.world.clone(), node, banned, now, rng);
        if talk.is_beast() {
            // Each of its pieces is a segment. Where it fails, some of them are merged.
            let _ = stream.set_nodelay(true);
        }
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let watched = self.poll.registry().register(&mut stream, Token(key), interest).is_ok();
        entry.insert(Connection {
            stream,
            from,
            talk,
            is_half: false,
            output: Vec::new(),
            sent: 0,
            flushed: 0,
            flushed_at: now,
            counted: false,
            serial: self.accepted,
            timer: None,
        });
        if watched {
            self.fresh.push_back((now, key, self.accepted));
            self.drive(key, now);
        } else {
            // A connection that cannot be watched cannot be answered: as if the node had hung up.
            self.end(key, 0);
        }
    }

    /// Counts those as open that have lasted.
    fn count_fresh(&mut self, now: Duration) {
        while let Some((at, key, serial)) = self.fresh.front().copied()
            && at + COUNTS_AFTER <= now
        {
            self.fresh.pop_front();
            if let Some(connection) = self.connections.get_mut(key)
                && connection.serial == serial
            {
                connection.counted = true;
                self.report.opened();
            }
        }
    }

    fn handle_ready(&mut self, key: usize, now: Duration) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        loop {
            match connection.stream.read(&mut self.buffer) {
                Ok(0) => return self.end(key, self.connections[key].flushed),
                Ok(read) => connection.talk.handle_bytes(&self.buffer[..read], now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // A reset right behind the last byte means that it was not read.
                    let unread = now.saturating_sub(connection.flushed_at) < READ_WITHIN;
                    let whole = connection.flushed.saturating_sub(u64::from(unread));
                    return self.end(key, whole);
                }
            }
        }
        self.drive(key, now);
    }

    fn handle_timers(&mut self, now: Duration) {
        while let Some(Reverse((due, key, serial))) = self.timers.peek().copied()
            && due <= now
        {
            self.timers.pop();
            let connection = self.connections.get_mut(key);
            if let Some(connection) = connection.filter(|connection| connection.serial == serial) {
                if connection.timer == Some(due) {
                    connection.timer = None;
                }
                self.drive(key, now);
            }
        }
    }

    /// Sends what is due, ends what is over, sets the timer.
    fn drive(&mut self, key: usize, now: Duration) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.talk.handle_timeout(now);
        if connection.send(now).is_err() {
            let whole = connection.flushed;
            return self.end(key, whole);
        }
        match connection.talk.wants_close() {
            None => {}
            Some(Close::Half) if connection.output.is_empty() && !connection.is_half => {
                connection.is_half = true;
                // Where it fails, the other side is gone, which shows when it is read.
                let _ = connection.stream.shutdown(Shutdown::Write);
            }
            Some(Close::Half) => {}
            Some(close) => {
                if connection.talk.observations().banned
                    && self.bans.insert((connection.talk.place(), connection.from))
                {
                    self.report.bans += 1;
                }
                if close == Close::Reset {
                    sockets::reset(&connection.stream);
                }
                let whole = connection.flushed;
                return self.end(key, whole);
            }
        }
        let next = connection.talk.poll_timeout();
        // While output is stuck, writable events drive it.
        let next = next.filter(|_| connection.output.is_empty());
        if let Some(due) = next
            && connection.timer.is_none_or(|timer| due < timer)
        {
            connection.timer = Some(due);
            self.timers.push(Reverse((due, key, connection.serial)));
        }
    }

    fn end(&mut self, key: usize, whole_replies: u64) {
        if let Some(connection) = self.connections.try_remove(key) {
            let (node, seen) = (connection.talk.place(), connection.talk.observations());
            self.report.ended(&self.world, node, seen, whole_replies);
            if connection.counted {
                self.report.closed();
            }
        }
    }

    fn finish(mut self) -> Report {
        for connection in self.connections.drain() {
            let (node, seen) = (connection.talk.place(), connection.talk.observations());
            self.report.ended(&self.world, node, seen, connection.flushed);
        }
        self.report
    }
}

impl Connection {
    /// Writes until nothing is due or the other side does not take more.
    fn send(&mut self, now: Duration) -> io::Result<()> {
        loop {
            while self.sent < self.output.len() {
                match self.stream.write(&self.output[self.sent..]) {
                    Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
                    Ok(sent) => self.sent += sent,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                    Err(error) => return Err(error),
                }
            }
            let replies = self.talk.observations().replies;
            if self.flushed < replies {
                self.flushed = replies;
                self.flushed_at = now;
            }
            self.output.clear();
            self.sent = 0;
            match self.talk.poll_transmit(now) {
                Some(bytes) => self.output = bytes,
                None => return Ok(()),
            }
            // Handshakes are many small messages: they leave in one packet.
            while self.output.len() < TOGETHER
                && let Some(bytes) = self.talk.poll_transmit(now)
            {
                self.output.extend_from_slice(&bytes);
            }
        }
    }
}

/// One address on each port of refusing ones must indeed refuse: another program may have the port.
fn check_refusing(world: &World) -> Result<(), ServeError> {
    let mut checked = HashSet::new();
    for address in dead(world, DeadKind::Refusing) {
        if checked.insert(address.port()) {
            match sockets::refuses(address) {
                Ok(true) => {}
                Ok(false) => return Err(ServeError::Answered(address)),
                Err(source) => return Err(failed("connect on loopback")(source)),
            }
        }
    }
    Ok(())
}

/// The network's time begins now.
#[allow(clippy::disallowed_methods)] // The one reading of this layer; `io::clock` is not below it.
fn start() -> Instant {
    Instant::now()
}

fn dead(world: &World, kind: DeadKind) -> impl Iterator<Item = Address> {
    world.dead().iter().filter(move |dead| dead.kind == kind).map(|dead| dead.address)
}

fn taken(address: Address, source: io::Error) -> ServeError {
    if source.kind() == io::ErrorKind::AddrInUse {
        return ServeError::PortTaken(address);
    }
    ServeError::Io { what: format!("listen on {address}"), source }
}

fn failed(what: &'static str) -> impl Fn(io::Error) -> ServeError {
    move |source| ServeError::Io { what: what.to_owned(), source }
}

fn is_out_of_files(error: &io::Error) -> bool {
    let code = error.raw_os_error().map(rustix::io::Errno::from_raw_os_error);
    matches!(
        code,
        Some(rustix::io::Errno::MFILE | rustix::io::Errno::NFILE | rustix::io::Errno::NOMEM)
    )
}

const FIRST_LISTENER: usize = usize::MAX / 2;
const EVENTS: usize = 8192;
/// Open files that must be left for connections and the rest.
const SPARE_FILES: u64 = 1100;
/// How soon to try again when files ran out.
const RETRY: Duration = Duration::from_millis(10);
/// A client that resets sooner after the last byte of a reply has not read it.
const READ_WITHIN: Duration = Duration::from_millis(20);
/// How long a connection must last to count as open.
const COUNTS_AFTER: Duration = Duration::from_millis(2);
const TOGETHER: usize = 4096;
/// How long to look, at the end, for what has happened already.
const LAST_LOOK: Duration = Duration::from_secs(1);
