//! `Driver`: the sockets of all probes behind one mio poll.
//!
//! Layer 3. It owns every socket of the crawler and knows nothing of crawling: targets go in, results come out.
//! Invariants: 1. a session leaves the slab only in `reap`, so an event later in the same batch never meets a
//! reused key; 2. every dial ends in exactly one `Ended` or in a fault given back at once; 3. readiness is judged
//! before deadlines: what has arrived in time counts.
//!
//! The five steps of a connect on mio: connect, register, writable event, `take_error`, `peer_addr`. mio is
//! edge-triggered: a session that was not read dry is put on a list and read again in the next turn.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use crate::crawl::outcome::{Fault, of_connect_error};
use crate::crawl::probe::{Probe, ProbeParams};
use crate::crawl::target::{ProbeResult, Target};
use crate::crawl::time::Now;
use crate::crawl::timer::Timers;
use crate::crawl::trace::Trace;
use crate::io::clock::Clock;

/// The token of the writer's waker; sessions' tokens are slab keys.
pub const WAKER: Token = Token(usize::MAX - 1);
/// The token of the signals' pipe.
pub const SIGNALS: Token = Token(usize::MAX - 2);

/// At most so much is read from one session in one turn: nobody starves the others.
const READ_BUFFER: usize = 64 * 1024;
/// All payloads held together, at most: what a session holds is bounded, this bounds their sum.
pub const MAX_HELD: usize = 32 * 1024 * 1024;

struct Session {
    stream: TcpStream,
    probe: Probe,
    /// Bytes that the socket did not take yet.
    unsent: Vec<u8>,
    is_connected: bool,
    is_ended: bool,
}

/// How a dial ended: with a result, or, cut off by a stop, without.
pub struct Ended {
    /// What was probed.
    pub target: Target,
    /// What came of it.
    pub result: Option<ProbeResult>,
    /// The conversation, where the probe kept a record of it.
    pub trace: Option<Box<Trace>>,
}

/// What one turn saw beside the sessions' own events.
#[derive(Clone, Copy, Debug, Default)]
pub struct Turn {
    /// A signal arrived.
    pub is_signalled: bool,
}

/// The sockets and the poll.
pub struct Driver {
    poll: Poll,
    events: Events,
    sessions: Slab<Session>,
    timers: Timers,
    buffer: Box<[u8]>,
    again: Vec<usize>,
    ended: Vec<usize>,
    held: usize,
}

impl Driver {
    /// Opens the poll.
    ///
    /// # Errors
    /// Where the system has no descriptor for it.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(1_024),
            sessions: Slab::new(),
            timers: Timers::new(),
            buffer: vec![0; READ_BUFFER].into_boxed_slice(),
            again: Vec::new(),
            ended: Vec::new(),
            held: 0,
        })
    }

    /// The one waker of the poll: other threads end a turn with it.
    ///
    /// # Errors
    /// Where the system has no descriptor for it.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), WAKER)
    }

    /// The registry, for the signals' pipe.
    pub fn registry(&self) -> &mio::Registry {
        self.poll.registry()
    }

    /// How many sessions are open.
    pub fn open(&self) -> usize {
        self.sessions.len()
    }

    /// The bytes of payload that all sessions hold in memory, at most [`MAX_HELD`] between turns.
    pub fn held(&self) -> usize {
        self.held
    }

    /// Begins a probe.
    ///
    /// # Errors
    /// A fault of our own side: the target was not dialled.
    pub fn dial(
        &mut self,
        target: Target,
        params: &Arc<ProbeParams>,
        nonce: u64,
        now: Now,
    ) -> Result<Option<Ended>, Fault> {
        self.begin(Probe::new(target, Arc::clone(params), nonce, now), now)
    }

    /// Begins a probe that was made just now.
    ///
    /// # Errors
    /// A fault of our own side: the target was not dialled.
    pub fn begin(&mut self, mut probe: Probe, now: Now) -> Result<Option<Ended>, Fault> {
        let target = probe.target();
        let mut stream = match TcpStream::connect(target.address().to_socket_addr()) {
            Ok(stream) => stream,
            Err(error) => {
                of_connect_error(&error)?;
                probe.handle_error(&error, now);
                let (result, trace) = (probe.finished(), probe.take_trace());
                return Ok(Some(Ended { target, result, trace }));
            }
        };
        let entry = self.sessions.vacant_entry();
        let key = entry.key();
        let interest = Interest::READABLE | Interest::WRITABLE;
        if self.poll.registry().register(&mut stream, Token(key), interest).is_err() {
            return Err(Fault::Descriptors);
        }
        self.timers.set(key, probe.poll_timeout());
        let unsent = Vec::new();
        entry.insert(Session { stream, probe, unsent, is_connected: false, is_ended: false });
        Ok(None)
    }

    /// Waits for something to happen, at most for `timeout`, lets it happen, and hands out what ended.
    ///
    /// # Errors
    /// Where polling itself fails; a signal is no error.
    pub fn turn(
        &mut self,
        timeout: Option<Duration>,
        clock: &Clock,
        ended: &mut Vec<Ended>,
    ) -> io::Result<Turn> {
        let mut wait = timeout;
        if let Some(deadline) = self.timers.earliest() {
            // Rounded up to the poll's resolution: a turn a moment too soon would only spin.
            let left = deadline.saturating_sub(clock.now().mono) + Duration::from_micros(999);
            wait = Some(wait.map_or(left, |wait| wait.min(left)));
        }
        if !self.again.is_empty() {
            wait = Some(Duration::ZERO);
        }
        let mut turn = Turn::default();
        match self.poll.poll(&mut self.events, wait) {
            Ok(()) => {}
            // A signal's handler ran; its pipe tells which. There are no events to look at.
            Err(error) if error.kind() == ErrorKind::Interrupted => self.events.clear(),
            Err(error) => return Err(error),
        }
        let now = clock.now();
        for key in std::mem::take(&mut self.again) {
            self.read(key, true, now);
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                SIGNALS => turn.is_signalled = true,
                WAKER => {}
                Token(key) => self.ready(key, event, now),
            }
        }
        self.events = events;
        while let Some(key) = self.timers.pop_due(now.mono) {
            if let Some(session) = self.sessions.get_mut(key) {
                session.probe.handle_timeout(now);
                self.after(key);
            }
        }
        self.reap(ended);
        Ok(turn)
    }

    /// Ends all sessions: nodes that responded give their result, the others none.
    pub fn stop(&mut self, ended: &mut Vec<Ended>) {
        let keys: Vec<usize> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(session) = self.sessions.get_mut(key) {
                session.probe.handle_stop();
            }
            self.after(key);
        }
        self.reap(ended);
    }

    fn ready(&mut self, key: usize, event: &mio::event::Event, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.is_ended {
            return;
        }
        if !session.is_connected {
            match connected(session) {
                Ok(false) => return,
                Ok(true) => {
                    session.is_connected = true;
                    session.probe.handle_connected(now);
                }
                // It stood and was reset since: a `version` may still wait to be read.
                Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                    session.is_connected = true;
                    session.probe.handle_connected(now);
                }
                Err(error) => session.probe.handle_error(&error, now),
            }
        }
        if event.is_readable() || event.is_read_closed() || event.is_error() {
            self.read(key, event.is_read_closed() || event.is_error(), now);
        } else {
            self.after(key);
        }
    }

    /// Reads what is there, up to one buffer. A read that does not fill the buffer has emptied the socket, and
    /// what comes later is a new edge; only with `to_the_end` an end of file may still wait behind it.
    fn read(&mut self, key: usize, to_the_end: bool, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        let before = session.probe.held();
        let mut room = self.buffer.len();
        while !session.probe.is_done() && session.is_connected {
            match session.stream.read(&mut self.buffer) {
                Ok(0) => session.probe.handle_closed(now),
                Ok(length) => {
                    let bytes = self.buffer.get(..length).unwrap_or_default();
                    session.probe.handle_bytes(bytes, now);
                    room = room.saturating_sub(length);
                    if room == 0 {
                        self.again.push(key);
                        break;
                    }
                    if length < self.buffer.len() && !to_the_end {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => session.probe.handle_error(&error, now),
            }
        }
        self.held = self.held.saturating_sub(before) + session.probe.held();
        if self.held > MAX_HELD {
            // The one who brought the sum over the bound goes; an honest peer never holds much for long.
            session.probe.handle_closed(now);
        }
        self.after(key);
    }

    /// After anything that happened to a session: send, set its deadline, or mark it as ended.
    fn after(&mut self, key: usize) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.is_ended {
            return;
        }
        if let Some(bytes) = session.probe.poll_transmit() {
            session.unsent.extend_from_slice(&bytes);
        }
        send(session);
        if session.probe.is_done() {
            session.is_ended = true;
            self.timers.set(key, None);
            self.ended.push(key);
        } else {
            self.timers.set(key, session.probe.poll_timeout());
        }
    }

    fn reap(&mut self, ended: &mut Vec<Ended>) {
        for key in self.ended.drain(..) {
            if let Some(mut session) = self.sessions.try_remove(key) {
                self.held = self.held.saturating_sub(session.probe.held());
                let (target, result) = (session.probe.target(), session.probe.finished());
                let trace = session.probe.take_trace();
                // Closing the descriptor takes it out of the poll: no call of its own for that.
                ended.push(Ended { target, result, trace });
            }
        }
    }
}

/// Whether a session that was connecting is connected now.
fn connected(session: &Session) -> io::Result<bool> {
    if let Some(error) = session.stream.take_error()? {
        return Err(error);
    }
    match session.stream.peer_addr() {
        Ok(_) => Ok(true),
        // A spurious event: still connecting.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends what the socket takes. A failure shows itself when the session is read.
fn send(session: &mut Session) {
    while session.is_connected && !session.unsent.is_empty() {
        match session.stream.write(&session.unsent) {
            Ok(length) => drop(session.unsent.drain(..length.min(session.unsent.len()))),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::WouldBlock => return,
            Err(_) => return session.unsent.clear(),
        }
    }
}

/// Linux' number for a connect that is under way.
const EINPROGRESS: i32 = 115;
