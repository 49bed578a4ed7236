//! `Driver`: the sockets of all probes behind one mio poll.
//!
//! Shell of [`Probe`]. It owns every socket of the crawler and knows nothing of crawling: targets
//! go in, results come out. Invariants:
//!
//! 1. During a turn a session leaves the slab only in `reap`, so a later event of the same batch
//!    never meets a reused key.
//! 2. Every dial ends in exactly one [`Ended`] or in a fault that is returned at once, unless
//!    [`Driver::drop_sessions`] returns its target.
//! 3. Readiness is handled before deadlines, whatever interrupted the poll: bytes that arrived in
//!    time count.
//! 4. Time during which the process did not run counts against no peer: [`LoopClock`] stands still,
//!    and a probe that failed after such a stall is repeated once.
//!
//! The five steps of a connect on mio: connect, register, writable event, `take_error`,
//! `peer_addr`. mio is edge-triggered: a session that was not read until `WouldBlock` is read again
//! in the next turn.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::Duration;

use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token, Waker};
use slab::Slab;

use crate::sys::clock::LoopClock;
use bitdash_core::probe::trace::Trace;
use bitdash_core::probe::{AskBounds, Probe, ProbeParams};
use bitdash_core::schedule::timers::Timers;
use bitdash_core::vocabulary::outcome::{Fault, of_connect_error};
use bitdash_core::vocabulary::target::{ProbeResult, Target};
use bitdash_core::vocabulary::time::Now;

/// Token of the waker; the tokens of sessions are slab keys.
pub const WAKER: Token = Token(usize::MAX - 1);
/// Token of the signal pipe.
pub const SIGNALS: Token = Token(usize::MAX - 2);

/// Size of the read buffer. A session that sent this much waits for the next turn, so that it does
/// not starve the others.
const READ_BUFFER_BYTES: usize = 64 * 1024;
/// Maximum number of dials between two turns: a connection that is established meanwhile is
/// noticed, and its time taken, only in the next turn.
pub const MAX_DIALS_PER_TURN: usize = 32;
/// Number of events taken from the poll at once.
const EVENTS: usize = 1_024;
/// Maximum duration of a poll while sessions are open, so that no stall hides in a longer one.
const MAX_POLL: Duration = Duration::from_secs(1);
/// Maximum number of bytes buffered by all sessions together: payloads and peers.
pub const MAX_BUFFERED_BYTES: usize = 32 * 1024 * 1024;

struct Session {
    stream: TcpStream,
    probe: Probe,
    /// Bytes that the socket has not accepted yet.
    unsent: Vec<u8>,
    is_connected: bool,
    is_ended: bool,
    is_asking: bool,
    /// Total of the stalls before this session; `None` if it repeats a stalled one.
    stalled_before: Option<Duration>,
}

/// A probe that ended.
pub struct Ended {
    /// What was probed.
    pub target: Target,
    /// `None` if a stop aborted the probe.
    pub result: Option<ProbeResult>,
    /// The recorded conversation, if the probe was traced.
    pub trace: Option<Box<Trace>>,
}

/// What one turn observed besides events of sessions.
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
    /// Sessions that may have more to read.
    unread: Vec<usize>,
    ended: Vec<usize>,
    buffered_bytes: usize,
    /// Number of sessions that await peers, and its bounds.
    asking: usize,
    ask_bounds: AskBounds,
}

impl Driver {
    /// Opens the poll.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn new() -> io::Result<Self> {
        Ok(Self {
            poll: Poll::new()?,
            events: Events::with_capacity(EVENTS),
            sessions: Slab::new(),
            timers: Timers::new(),
            buffer: vec![0; READ_BUFFER_BYTES].into_boxed_slice(),
            unread: Vec::new(),
            ended: Vec::new(),
            buffered_bytes: 0,
            asking: 0,
            ask_bounds: AskBounds::NONE,
        })
    }

    /// Creates the waker with which other threads end a turn. Call it once: a poll has one waker.
    ///
    /// # Errors
    /// The system has no descriptor left.
    pub fn waker(&self) -> io::Result<Waker> {
        Waker::new(self.poll.registry(), WAKER)
    }

    /// Sets how many sessions may await peers; a node beyond them is not asked.
    pub fn set_ask_bounds(&mut self, ask_bounds: AskBounds) {
        self.ask_bounds = ask_bounds;
    }

    /// The poll's registry, for the signal pipe.
    pub fn registry(&self) -> &mio::Registry {
        self.poll.registry()
    }

    /// Number of open sessions.
    pub fn open(&self) -> usize {
        self.sessions.len()
    }

    /// Bytes buffered by all sessions, at most [`MAX_BUFFERED_BYTES`] between turns.
    pub fn buffered_bytes(&self) -> usize {
        self.buffered_bytes
    }

    /// Starts a probe of `target`.
    ///
    /// # Errors
    /// A local fault: the target was not dialled.
    pub fn dial(
        &mut self,
        target: Target,
        params: &Arc<ProbeParams>,
        nonce: u64,
        clock: &LoopClock,
    ) -> Result<Option<Ended>, Fault> {
        self.begin(Probe::new(target, Arc::clone(params), nonce, clock.now()), clock)
    }

    /// Starts `probe`, which was created just now.
    ///
    /// # Errors
    /// A local fault: the target was not dialled.
    pub fn begin(&mut self, probe: Probe, clock: &LoopClock) -> Result<Option<Ended>, Fault> {
        self.connect(probe, Some(clock.stalled()), clock.now())
    }

    fn connect(
        &mut self,
        mut probe: Probe,
        stalled_before: Option<Duration>,
        now: Now,
    ) -> Result<Option<Ended>, Fault> {
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
        entry.insert(Session {
            stream,
            probe,
            unsent: Vec::new(),
            is_connected: false,
            is_ended: false,
            is_asking: false,
            stalled_before,
        });
        Ok(None)
    }

    /// Waits for events for at most `timeout`, handles them, and appends the probes that ended to
    /// `ended`.
    ///
    /// # Errors
    /// Polling itself fails. An interruption by a signal is not an error.
    pub fn turn(
        &mut self,
        timeout: Option<Duration>,
        clock: &LoopClock,
        ended: &mut Vec<Ended>,
    ) -> io::Result<Turn> {
        let mut wait = timeout;
        if let Some(deadline) = self.timers.earliest() {
            // Rounded up to the poll's resolution: waking too early would only spin.
            let left = deadline.saturating_sub(clock.now().mono) + Duration::from_micros(999);
            wait = Some(wait.map_or(left, |wait| wait.min(left)));
        }
        if !self.unread.is_empty() {
            wait = Some(Duration::ZERO);
        }
        if !self.sessions.is_empty() {
            wait = Some(wait.map_or(MAX_POLL, |wait| wait.min(MAX_POLL)));
        }
        clock.announce(wait.unwrap_or(Duration::MAX));
        let mut turn = Turn::default();
        // More events than fit may be ready: deadlines come after all of them.
        for _ in 0..=self.sessions.len() / EVENTS {
            self.poll(wait)?;
            let is_full = self.events.iter().nth(EVENTS - 1).is_some();
            self.handle_events(&mut turn, clock.now());
            if !is_full {
                break;
            }
            wait = Some(Duration::ZERO);
        }
        let now = clock.now();
        while let Some(key) = self.timers.pop_due(now.mono) {
            if let Some(session) = self.sessions.get_mut(key) {
                session.probe.handle_timeout(now);
                self.update(key);
            }
        }
        self.reap(clock, ended);
        Ok(turn)
    }

    /// Polls for at most `wait`. A poll that a signal interrupts reports no event, although sockets
    /// may be ready: they are asked again, without waiting.
    fn poll(&mut self, wait: Option<Duration>) -> io::Result<()> {
        // keepalived#1883, mozim PR 10: after SIGSTOP and SIGCONT every answer lies in the sockets.
        match self.poll.poll(&mut self.events, wait) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {
                self.poll.poll(&mut self.events, Some(Duration::ZERO))
            }
            result => result,
        }
    }

    fn handle_events(&mut self, turn: &mut Turn, now: Now) {
        for key in std::mem::take(&mut self.unread) {
            self.read(key, true, now);
        }
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                SIGNALS => turn.is_signalled = true,
                WAKER => {}
                Token(key) => self.handle_ready(key, event, now),
            }
        }
        self.events = events;
    }

    /// Ends all sessions. Only nodes that have responded yield a result.
    pub fn stop(&mut self, clock: &LoopClock, ended: &mut Vec<Ended>) {
        let keys: Vec<usize> = self.sessions.iter().map(|(key, _)| key).collect();
        for key in keys {
            if let Some(session) = self.sessions.get_mut(key) {
                session.probe.handle_stop();
            }
            self.update(key);
        }
        self.reap(clock, ended);
    }

    /// Closes the sessions whose target `is_unwanted`, without a result, and returns the targets.
    pub fn drop_sessions(&mut self, is_unwanted: impl Fn(Target) -> bool) -> Vec<Target> {
        let mut dropped = Vec::new();
        for (key, session) in &mut self.sessions {
            if is_unwanted(session.probe.target()) {
                dropped.push((key, session.probe.target()));
            }
        }
        for (key, _) in &dropped {
            let session = self.sessions.remove(*key);
            self.buffered_bytes =
                self.buffered_bytes.saturating_sub(session.probe.buffered_bytes());
            self.asking -= usize::from(session.is_asking);
            self.timers.set(*key, None);
            self.unread.retain(|unread| unread != key);
        }
        dropped.into_iter().map(|(_, target)| target).collect()
    }

    fn handle_ready(&mut self, key: usize, event: &mio::event::Event, now: Now) {
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
                // Connected and reset since: a `version` may still be waiting to be read.
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
            self.update(key);
        }
    }

    /// Reads until the socket is empty or [`READ_BUFFER_BYTES`] have arrived. A read that does not
    /// fill the buffer has emptied the socket, and later bytes raise a new edge. An end of file may
    /// follow without an edge: `until_eof` reads on.
    fn read(&mut self, key: usize, until_eof: bool, now: Now) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        session.probe.set_ask_room(self.ask_bounds.room(self.asking));
        let before = session.probe.buffered_bytes();
        let mut room = self.buffer.len();
        while !session.probe.is_done() && session.is_connected {
            match session.stream.read(&mut self.buffer) {
                Ok(0) => session.probe.handle_closed(now),
                Ok(length) => {
                    let bytes = self.buffer.get(..length).unwrap_or_default();
                    session.probe.handle_bytes(bytes, now);
                    room = room.saturating_sub(length);
                    if room == 0 {
                        self.unread.push(key);
                        break;
                    }
                    if length < self.buffer.len() && !until_eof {
                        break;
                    }
                }
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => session.probe.handle_error(&error, now),
            }
        }
        self.buffered_bytes =
            self.buffered_bytes.saturating_sub(before) + session.probe.buffered_bytes();
        if self.buffered_bytes > MAX_BUFFERED_BYTES {
            // Drop the session that exceeded the limit; an honest peer never buffers much for long.
            session.probe.handle_closed(now);
        }
        self.update(key);
    }

    /// Sends pending bytes after any event of a session, then updates its deadline or marks it as
    /// ended.
    fn update(&mut self, key: usize) {
        let Some(session) = self.sessions.get_mut(key) else { return };
        if session.is_ended {
            return;
        }
        if let Some(bytes) = session.probe.poll_transmit() {
            session.unsent.extend_from_slice(&bytes);
        }
        send(session);
        let was_asking = std::mem::replace(&mut session.is_asking, session.probe.is_asking());
        self.asking = self.asking + usize::from(session.is_asking) - usize::from(was_asking);
        if session.probe.is_done() {
            session.is_ended = true;
            self.timers.set(key, None);
            self.ended.push(key);
        } else {
            self.timers.set(key, session.probe.poll_timeout());
        }
    }

    fn reap(&mut self, clock: &LoopClock, ended: &mut Vec<Ended>) {
        for key in std::mem::take(&mut self.ended) {
            // Dropping the session closes its descriptor, which also removes it from the poll.
            let Some(mut session) = self.sessions.try_remove(key) else { continue };
            let freed = session.probe.buffered_bytes();
            self.buffered_bytes = self.buffered_bytes.saturating_sub(freed);
            let target = session.probe.target();
            let (result, trace) = (session.probe.finished(), session.probe.take_trace());
            let has_stalled = session.stalled_before.is_some_and(|before| before < clock.stalled());
            let is_doubtful = |result: &ProbeResult| result.outcome.may_be_our_stall();
            if has_stalled && result.as_ref().is_some_and(is_doubtful) {
                let now = clock.now();
                let again = session.probe.repeated(trace.is_some(), now);
                match self.connect(again, None, now) {
                    Ok(None) => continue,
                    Ok(Some(immediate)) => {
                        ended.push(immediate);
                        continue;
                    }
                    Err(_) => {}
                }
            }
            ended.push(Ended { target, result, trace });
        }
    }
}

/// Whether a session that was connecting is connected by now.
fn connected(session: &Session) -> io::Result<bool> {
    if let Some(error) = session.stream.take_error()? {
        return Err(error);
    }
    match session.stream.peer_addr() {
        Ok(_) => Ok(true),
        // Spurious event: still connecting.
        Err(error) if error.kind() == ErrorKind::NotConnected => Ok(false),
        Err(error) if error.raw_os_error() == Some(EINPROGRESS) => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sends as much as the socket accepts. A failure surfaces when the session is read.
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

/// The error number of a connect in progress on Linux.
const EINPROGRESS: i32 = 115;

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};

    use bitdash_core::vocabulary::address::Address;

    use super::*;
    use crate::commands::crawl::params::probe_params;
    use crate::config::Config;
    use crate::sys::clock::Clock;

    #[test]
    fn a_connect_time_begins_at_its_own_dial() {
        const BETWEEN: Duration = Duration::from_millis(400);
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let port = listener.local_addr().unwrap().port();
        let target = Target::candidate(Address::new(Ipv4Addr::LOCALHOST, port));
        let (clock, params) =
            (LoopClock::new(Clock::new()), Arc::new(probe_params(&Config::default())));
        let (mut driver, mut ended) = (Driver::new().unwrap(), Vec::new());
        for number in 0..3 {
            if number > 0 {
                std::thread::park_timeout(BETWEEN);
            }
            assert!(driver.dial(target, &params, 42, &clock).unwrap().is_none());
        }
        drop([(); 3].map(|()| listener.accept().unwrap()));
        let begin = clock.now().mono;
        while driver.open() > 0 && clock.now().mono < begin + Duration::from_secs(10) {
            driver.turn(Some(Duration::from_millis(20)), &clock, &mut ended).unwrap();
        }
        let result = |ended: Ended| ended.result.expect("the peer closed it");
        let mut times: Vec<u32> =
            ended.into_iter().filter_map(|ended| result(ended).connect_ms).collect();
        times.sort_unstable();
        // All are seen to be connected in the one turn after the last dial.
        assert!(times.len() == 3 && times[0] < 300, "{times:?}");
        assert!((300..700).contains(&times[1]) && times[2] >= 700, "{times:?}");
    }
}
