//! `Server`: serves a world on loopback. Shell of `node::peer`: one thread, one mio event loop.
//!
//! Invariants:
//! 1. A connection with an end outside 127.0.0.0/8 is dropped without a byte.
//! 2. A connection counts as open only after it has lasted 2 ms and every connection that ended
//!    before it began has been seen to end (the kernel may report that late, but not that late). So
//!    `most_at_once` never exceeds the number that the crawler had open.
//! 3. The memory of a connection and the bytes sent per turn are bounded by the peer's own limits,
//!    so a flood does not starve other connections.

pub mod report;
mod sockets;

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

use crate::network::PeerDirectory;
use crate::network::gossip::mix;
use crate::network::world::{DeadKind, World};
use crate::node::conversation::Close;
use crate::node::peer::{self, Peer};
use crate::serve::report::Report;
use bitdash_core::vocabulary::address::Address;

/// An event with this token ends [`Server::run`].
pub const STOP: Token = Token(usize::MAX - 1);

/// A simulated network on loopback.
#[derive(Debug)]
pub struct Server {
    world: Arc<World>,
    poll: Poll,
    listeners: Vec<Listener>,
    /// Kept open, never accepted from.
    _silent: Vec<OwnedFd>,
    connections: Slab<Connection>,
    /// Accept time, key and serial of connections that do not count as open yet: invariant 2.
    fresh: VecDeque<(Duration, usize, u64)>,
    timers: BinaryHeap<Reverse<(Duration, usize, u64)>>,
    bans: HashSet<(usize, Ipv4Addr)>,
    report: Report,
    started: Instant,
    accepted: u64,
    progress: Option<Progress>,
    exposed: Option<io::Error>,
    buffer: Vec<u8>,
}

#[derive(Debug)]
struct Listener {
    socket: TcpListener,
    /// Whether a connection may be pending.
    ready: bool,
}

/// What is shown once a second.
#[derive(Debug)]
struct Progress {
    show: fn(usize, u64),
    due: Duration,
}

#[derive(Debug)]
struct Connection {
    stream: TcpStream,
    from: Ipv4Addr,
    peer: Box<dyn Peer>,
    /// Whether the sending half was closed.
    is_half: bool,
    output: Vec<u8>,
    sent: usize,
    /// Number of replies that the kernel has taken completely, and when it took the last one.
    flushed: u64,
    flushed_at: Duration,
    /// Whether it counts as open: invariant 2.
    counted: bool,
    /// Distinguishes this connection from earlier ones with the same key.
    serial: u64,
    timer: Option<Duration>,
}

/// Why a network cannot be served.
#[derive(Debug)]
#[non_exhaustive]
pub enum ServeError {
    /// A port is in use.
    PortTaken(Address),
    /// An address that should refuse answers.
    Answered(Address),
    /// The limit on open files is too low.
    TooManyFiles {
        /// Number of files needed.
        needed: u64,
        /// The limit.
        limit: u64,
    },
    /// A system call failed.
    Io {
        /// What was attempted.
        what: String,
        /// The error.
        source: io::Error,
    },
}

impl fmt::Display for ServeError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::PortTaken(address) => {
                write!(f, "{address} is in use: try another --port-offset")
            }
            Self::Answered(address) => write!(
                f,
                "port {} is in use by another program: try another --port-offset",
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
    /// Opens all listeners. Nodes accept connections from then on and answer in [`Server::run`].
    ///
    /// # Errors
    ///
    /// If a port is in use, the limit on open files is too low, or a system call fails.
    pub fn open(world: Arc<World>) -> Result<Self, ServeError> {
        let nodes = world.nodes().iter().map(|node| node.address);
        let answering: Vec<Address> =
            nodes.chain(world.placements().iter().map(|placement| placement.address)).collect();
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
        let mut exposed = None;
        let mut ports: Vec<u16> = shared_ports.iter().copied().collect();
        ports.sort_unstable();
        for port in ports {
            let address = Address::new(Ipv4Addr::UNSPECIFIED, port);
            let (listener, refused) =
                sockets::shared(port).map_err(|error| taken(address, error))?;
            listeners.push(listener);
            exposed = exposed.or(refused);
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
            progress: None,
            exposed,
            buffer: vec![0; 64 * 1024],
            poll,
            world,
        })
    }

    /// Why listeners are open on all interfaces; `None` if they are on loopback only. In any case
    /// connections from elsewhere are dropped.
    pub fn exposed(&self) -> Option<&io::Error> {
        self.exposed.as_ref()
    }

    /// Calls `show` once a second with the number of open connections and of all so far.
    pub fn show_progress(&mut self, show: fn(usize, u64)) {
        self.progress = Some(Progress { show, due: PROGRESS_INTERVAL });
    }

    fn draw_progress(&mut self) {
        let now = self.started.elapsed();
        if let Some(progress) = self.progress.as_mut().filter(|progress| progress.due <= now) {
            (progress.show)(self.connections.len(), self.accepted);
            progress.due = now + PROGRESS_INTERVAL;
        }
    }

    /// Registry for a signal source or a waker with the token [`STOP`].
    pub fn registry(&self) -> &Registry {
        self.poll.registry()
    }

    /// Serves until an event with the token [`STOP`] and returns what it saw of the crawler.
    ///
    /// # Errors
    ///
    /// If the poll fails.
    pub fn run(mut self) -> io::Result<Report> {
        let mut events = Events::with_capacity(MAX_EVENTS);
        let mut stopping = false;
        while !stopping {
            self.draw_progress();
            let timeout = match &self.progress {
                Some(_) => Some(self.timeout().unwrap_or(PROGRESS_INTERVAL).min(PROGRESS_INTERVAL)),
                None => self.timeout(),
            };
            stopping = self.turn(&mut events, timeout)?;
        }
        // What happened before the end counts, even if it was not handled yet.
        let end = self.started.elapsed() + DRAIN_TIMEOUT;
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

    /// Handles events, timers and new connections; returns whether to stop.
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
        // A full batch may hide closes that came before the new connections.
        if seen < MAX_EVENTS {
            self.count_fresh(now);
        }
        self.accept();
        Ok(stop)
    }

    fn timeout(&self) -> Option<Duration> {
        let timer = self.timers.peek().map(|Reverse((due, ..))| *due);
        let fresh = self.fresh.front().map(|(at, ..)| *at + MIN_OPEN_TIME);
        let next = [timer, fresh].into_iter().flatten().min();
        let next = next.map(|due| due.saturating_sub(self.started.elapsed()));
        let waiting = self.listeners.iter().any(|listener| listener.ready);
        if waiting { Some(next.unwrap_or(RETRY_INTERVAL).min(RETRY_INTERVAL)) } else { next }
    }

    /// Accepts all pending connections.
    fn accept(&mut self) {
        for at in 0..self.listeners.len() {
            while let Some(listener) = self.listeners.get_mut(at)
                && listener.ready
            {
                match listener.socket.accept() {
                    Ok((stream, from)) => self.open_connection(stream, from),
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        listener.ready = false;
                    }
                    Err(error) if is_out_of_files(&error) => {
                        self.report.out_of_files += 1;
                        break;
                    }
                    // The connection is gone already.
                    Err(_) => {}
                }
            }
        }
    }

    /// Starts the conversation of a new connection.
    fn open_connection(&mut self, mut stream: TcpStream, from: SocketAddr) {
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
        let Some(node) = self.world.find(to).or_else(|| self.world.find_placement(to)) else {
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
        let peer = peer::accept(self.world.clone(), node, banned, now, rng);
        if self.world.misbehaviour(node).is_some() {
            // Each piece is a segment; if this fails, some are merged.
            let _ = stream.set_nodelay(true);
        }
        let entry = self.connections.vacant_entry();
        let key = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        let watched = self.poll.registry().register(&mut stream, Token(key), interest).is_ok();
        entry.insert(Connection {
            stream,
            from,
            peer,
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
            // Without events it cannot be answered: close it.
            self.end(key, 0);
        }
    }

    /// Counts connections as open: invariant 2.
    fn count_fresh(&mut self, now: Duration) {
        while let Some((at, key, serial)) = self.fresh.front().copied()
            && at + MIN_OPEN_TIME <= now
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
                Ok(read) => connection.peer.handle_bytes(&self.buffer[..read], now),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(_) => {
                    // A reset right after the last byte means that it was not read.
                    let unread = now.saturating_sub(connection.flushed_at) < MIN_READ_TIME;
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

    /// Sends what is due, closes the connection if the peer wants that, sets the timer.
    fn drive(&mut self, key: usize, now: Duration) {
        let Some(connection) = self.connections.get_mut(key) else { return };
        connection.peer.handle_timeout(now);
        if connection.send(now).is_err() {
            let whole = connection.flushed;
            return self.end(key, whole);
        }
        match connection.peer.wants_close() {
            None => {}
            Some(Close::Half) if connection.output.is_empty() && !connection.is_half => {
                connection.is_half = true;
                // If this fails, the crawler is gone; the next read notices.
                let _ = connection.stream.shutdown(Shutdown::Write);
            }
            Some(Close::Half) => {}
            Some(close) => {
                if connection.peer.observations().banned
                    && self.bans.insert((connection.peer.place(), connection.from))
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
        let next = connection.peer.poll_timeout();
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
            let (node, seen) = (connection.peer.place(), connection.peer.observations());
            self.report.ended(&self.world, node, seen, whole_replies);
            if connection.counted {
                self.report.closed();
            }
        }
    }

    fn finish(mut self) -> Report {
        for connection in self.connections.drain() {
            let (node, seen) = (connection.peer.place(), connection.peer.observations());
            self.report.ended(&self.world, node, seen, connection.flushed);
        }
        self.report
    }
}

impl Connection {
    /// Writes until nothing is due or the socket's buffer is full.
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
            let replies = self.peer.observations().replies;
            if self.flushed < replies {
                self.flushed = replies;
                self.flushed_at = now;
            }
            self.output.clear();
            self.sent = 0;
            match self.peer.poll_transmit(now) {
                Some(bytes) => self.output = bytes,
                None => return Ok(()),
            }
            // Handshakes are many small messages; they leave in one packet.
            while self.output.len() < MAX_COALESCED
                && let Some(bytes) = self.peer.poll_transmit(now)
            {
                self.output.extend_from_slice(&bytes);
            }
        }
    }
}

/// Checks one refusing address per port: another program may use the port.
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

/// Time zero of the network.
#[allow(clippy::disallowed_methods)] // the only reading of the monotonic clock
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

const PROGRESS_INTERVAL: Duration = Duration::from_secs(1);
const FIRST_LISTENER: usize = usize::MAX / 2;
const MAX_EVENTS: usize = 8192;
/// Number of files to leave for connections and the rest.
const SPARE_FILES: u64 = 1100;
/// Delay before accepting again when no file descriptor was free.
const RETRY_INTERVAL: Duration = Duration::from_millis(10);
/// A client that resets sooner than this after the last byte of a reply has not read it.
const MIN_READ_TIME: Duration = Duration::from_millis(20);
/// Time until a connection counts as open.
const MIN_OPEN_TIME: Duration = Duration::from_millis(2);
const MAX_COALESCED: usize = 4096;
/// Maximum time at the end to handle what has happened already.
const DRAIN_TIMEOUT: Duration = Duration::from_secs(1);
