//! `Probe`: one attempt on one address, as a state machine without sockets.
//!
//! Layer 2: no socket, clock, thread or logger. The shell tells what happened (`handle_*`, each with the
//! monotonic time) and afterwards asks, in this order: `poll_transmit` for bytes to send, `poll_timeout` for
//! the deadline, `finished` for the result.
//!
//! ```text
//! Connecting ──connected──▶ AwaitingVersion ──version──▶ AwaitingAddr ──reply whole──▶ Done(responded)
//!     │ error, deadline           │ close, garbage, deadline      │ close, error, deadline  ▲
//!     ▼                           ▼                               └─────────────────────────┘
//! Done(refused, ...)          Done(closed, not_bitcoin, malformed, handshake_timeout)
//! ```
//!
//! Invariants: 1. it sends `version`, then `verack` and, when due, one `getaddr`, and nothing else, ever: TRB
//! bans for more. 2. Once `version` arrived the outcome is `responded`, whatever happens afterwards. 3. Traffic
//! moves no deadline, but for an `addr` of two or more entries, which ends the wait sooner. 4. Exactly one
//! result comes out; afterwards everything is accepted and nothing sent. 5. Bytes, messages and entries taken
//! from one peer are bounded.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::crawl::address::Address;
use crate::crawl::outcome::{Outcome, of_connect_error};
use crate::crawl::target::{Peer, ProbeResult, Target, VersionInfo};
use crate::crawl::time::{Now, UnixTime};
use crate::crawl::trace::{Step, Trace, TraceEvent, WaitedFor};
use crate::lookup::species::{Manner, manner};
use crate::watchglass::{
    Addr, Command, DecodeError, Decoder, Magic, Message, NetworkAddress, Version, encode_message,
    text,
};

/// What a probe says of itself and how long it waits. A running probe keeps what it started with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeParams {
    /// The network.
    pub magic: Magic,
    /// Our protocol version.
    pub protocol_version: i32,
    /// Our service bits.
    pub services: u64,
    /// Our user agent.
    pub user_agent: Vec<u8>,
    /// From dialling to connected, for nodes.
    pub connect_timeout: Duration,
    /// From dialling to connected, for candidates.
    pub candidate_connect_timeout: Duration,
    /// From connected to `version`.
    pub handshake_timeout: Duration,
    /// From `getaddr` to the end of the replies, at most.
    pub addr_timeout: Duration,
    /// After an `addr` of two or more entries: so long without another one, and the reply is whole.
    pub addr_quiet: Duration,
}

/// Software that answers `getaddr` at once gets so long to do it: a slow line is no other software.
const PROMPT_ADDR_TIMEOUT: Duration = Duration::from_secs(15);
/// Software that answers in turn, one random peer each 100 ms: 125 peers need 37 s in 95 of 100 cases.
const TRICKLE_ADDR_TIMEOUT: Duration = Duration::from_secs(60);
/// The most bytes read from one peer: twice the largest message of the protocol.
pub const MAX_PROBE_BYTES: u64 = 8_000_000;
/// The most messages read from one peer.
pub const MAX_PROBE_MESSAGES: u32 = 5_000;
/// The most entries of `addr` messages taken from one peer: Core before 0.9.5 and TRB send up to 2,500.
pub const MAX_PROBE_PEERS: usize = 5_000;

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    Connecting {
        deadline: Duration,
    },
    AwaitingVersion {
        deadline: Duration,
    },
    /// `bound` is where the patience ends whatever comes, `deadline` where it ends as things stand.
    AwaitingAddr {
        bound: Duration,
        deadline: Duration,
    },
    Done,
}

/// One attempt on one target.
#[derive(Debug)]
pub struct Probe {
    params: Arc<ProbeParams>,
    target: Target,
    nonce: u64,
    state: State,
    decoder: Decoder,
    outbox: Vec<u8>,
    dialled_at: Duration,
    connected_at: Duration,
    received_bytes: u64,
    received_messages: u32,
    result: ProbeResult,
    /// Entries of `addr` messages of two or more, which are the reply; a single one is the node's own.
    reply_entries: u32,
    finished: bool,
    /// What happened, for a person who asked; a crawl's probes keep none.
    trace: Option<Box<Trace>>,
}

impl Probe {
    /// Begins an attempt: the shell has just started to connect. `nonce` must be random and not 0.
    pub fn new(target: Target, params: Arc<ProbeParams>, nonce: u64, now: Now) -> Self {
        let patience = match target.is_node() {
            true => params.connect_timeout,
            false => params.candidate_connect_timeout,
        };
        Self {
            decoder: Decoder::new(params.magic),
            target,
            nonce,
            state: State::Connecting { deadline: now.mono + patience },
            outbox: Vec::new(),
            dialled_at: now.mono,
            connected_at: now.mono,
            received_bytes: 0,
            received_messages: 0,
            result: ProbeResult {
                target,
                outcome: Outcome::ConnectTimeout,
                probed_at: now.wall,
                dialled_at: now.mono,
                heard_at: None,
                connect_ms: None,
                version_ms: None,
                version: None,
                peers_sent: None,
                peers: Vec::new(),
            },
            reply_entries: 0,
            finished: false,
            trace: None,
            params,
        }
    }

    /// The same probe, which keeps a record of its conversation for [`Probe::take_trace`].
    pub fn traced(self) -> Self {
        Self { trace: Some(Box::default()), ..self }
    }

    /// The connection stands.
    pub fn handle_connected(&mut self, now: Now) {
        if !matches!(self.state, State::Connecting { .. }) {
            return;
        }
        self.connected_at = now.mono;
        self.result.heard_at = Some(now.mono);
        self.result.connect_ms = Some(millis(now.mono.saturating_sub(self.dialled_at)));
        self.state = State::AwaitingVersion { deadline: now.mono + self.params.handshake_timeout };
        let version = self.own_version(now.wall);
        let mut payload = Vec::with_capacity(128);
        version.encode(&mut payload);
        encode_message(self.params.magic, Command::VERSION, &payload, &mut self.outbox);
        self.note(now, || TraceEvent::Connected);
        self.note(now, || TraceEvent::Sent(Message::Version(version)));
    }

    /// Bytes arrived.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], now: Now) {
        if !self.is_done() && !bytes.is_empty() {
            self.result.heard_at = Some(now.mono);
        }
        self.received_bytes = self.received_bytes.saturating_add(bytes.len() as u64);
        while !matches!(self.state, State::Done | State::Connecting { .. }) {
            match self.decoder.decode(&mut bytes) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    self.note(now, || TraceEvent::Received(in_short(&message)));
                    self.handle_message(message, now);
                }
                Err(error) => {
                    self.note(now, || TraceEvent::Garbage(error.clone()));
                    return self.end(broken(&error), now.wall);
                }
            }
            self.received_messages = self.received_messages.saturating_add(1);
            if self.received_messages >= MAX_PROBE_MESSAGES {
                self.end(Outcome::Malformed, now.wall);
            }
        }
        if self.received_bytes >= MAX_PROBE_BYTES {
            self.end(Outcome::Malformed, now.wall);
        }
    }

    /// The other side closed or reset the connection, or it broke.
    pub fn handle_closed(&mut self, now: Now) {
        self.note(now, || TraceEvent::Closed);
        self.hear_the_end(Outcome::Closed, now);
    }

    /// Connecting failed, or the connection broke.
    pub fn handle_error(&mut self, error: &io::Error, now: Now) {
        self.note(now, || TraceEvent::Failed(error.to_string()));
        let is_connecting = matches!(self.state, State::Connecting { .. });
        // What looks like a fault of our own side here is an ICMP message from far away.
        match of_connect_error(error).unwrap_or(Outcome::Unreachable) {
            outcome @ (Outcome::ConnectTimeout | Outcome::Unreachable) if is_connecting => {
                self.end(outcome, now.wall);
            }
            // The kernel gave up on a connection that stood: nobody has closed it.
            Outcome::ConnectTimeout | Outcome::Unreachable => {
                self.end(Outcome::HandshakeTimeout, now.wall);
            }
            outcome if is_connecting => self.hear_the_end(outcome, now),
            _ => self.hear_the_end(Outcome::Closed, now),
        }
    }

    /// The deadline that `poll_timeout` named may have passed.
    pub fn handle_timeout(&mut self, now: Now) {
        if self.trace.is_some() && self.poll_timeout().is_some_and(|deadline| now.mono >= deadline)
        {
            let waited_for = self.waited_for();
            self.note(now, || TraceEvent::TimeUp(waited_for));
        }
        match self.state {
            State::Connecting { deadline } if now.mono >= deadline => {
                self.end(Outcome::ConnectTimeout, now.wall);
            }
            State::AwaitingVersion { deadline } if now.mono >= deadline => {
                self.end(Outcome::HandshakeTimeout, now.wall);
            }
            State::AwaitingAddr { deadline, .. } if now.mono >= deadline => self.end_reply(),
            _ => {}
        }
    }

    /// The crawl stops: a node that responded gives its result now, everything else none at all.
    pub fn handle_stop(&mut self) {
        if let State::AwaitingAddr { .. } = self.state {
            // Its reply was cut short by us: it counts as not asked.
            self.result.peers_sent = None;
            self.finished = true;
        }
        self.state = State::Done;
    }

    /// Bytes to send now.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        if self.outbox.is_empty() { None } else { Some(std::mem::take(&mut self.outbox)) }
    }

    /// The next deadline, on the monotonic clock.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.state {
            State::Connecting { deadline }
            | State::AwaitingVersion { deadline }
            | State::AwaitingAddr { deadline, .. } => Some(deadline),
            State::Done => None,
        }
    }

    /// The result, once.
    pub fn finished(&mut self) -> Option<ProbeResult> {
        if !self.finished {
            return None;
        }
        self.finished = false;
        let empty = ProbeResult { peers: Vec::new(), version: None, ..self.result };
        Some(std::mem::replace(&mut self.result, empty))
    }

    /// The record of the conversation, once; `None` from a probe that keeps none.
    pub fn take_trace(&mut self) -> Option<Box<Trace>> {
        self.trace.take()
    }

    /// Whether the conversation is over.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// What is probed.
    pub fn target(&self) -> Target {
        self.target
    }

    /// The bytes of payload that it holds in memory.
    pub fn held(&self) -> usize {
        self.decoder.held()
    }

    fn note(&mut self, now: Now, event: impl FnOnce() -> TraceEvent) {
        if let Some(trace) = &mut self.trace
            && self.state != State::Done
        {
            let at = now.mono.saturating_sub(self.dialled_at);
            trace.steps.push(Step { at, event: event() });
        }
    }

    fn waited_for(&self) -> WaitedFor {
        match self.state {
            State::Connecting { .. } => WaitedFor::Connection,
            State::AwaitingVersion { .. } => WaitedFor::Version,
            State::AwaitingAddr { .. } if self.reply_entries > 0 => WaitedFor::MoreOfReply,
            State::AwaitingAddr { .. } | State::Done => WaitedFor::Reply,
        }
    }

    fn own_version(&self, wall: UnixTime) -> Version {
        let address = self.target.address();
        Version {
            version: self.params.protocol_version,
            services: self.params.services,
            timestamp: wall.as_secs(),
            addr_recv: NetworkAddress::from_ipv4(0, address.ip(), address.port()),
            addr_from: Some(NetworkAddress::UNSPECIFIED),
            nonce: Some(self.nonce),
            user_agent: Some(self.params.user_agent.clone()),
            user_agent_length: self.params.user_agent.len() as u64,
            start_height: Some(0),
            relay: Some(false),
            trailing: 0,
        }
    }

    fn handle_message(&mut self, message: Message, now: Now) {
        match (self.state, message) {
            (State::AwaitingVersion { .. }, Message::Version(version)) => {
                self.handle_version(version, now);
            }
            (State::AwaitingVersion { .. }, Message::Broken { command, .. })
                if command == Command::VERSION =>
            {
                self.end(Outcome::Malformed, now.wall);
            }
            // An `addr` before `version` is nobody's reply, and what it says is not kept.
            (State::AwaitingAddr { .. }, Message::Addr(addr)) => self.handle_addr(&addr, now),
            // Pings, second versions, inventories, broken frames: nothing is ever answered.
            _ => {}
        }
    }

    fn handle_version(&mut self, version: Version, now: Now) {
        if version.nonce == Some(self.nonce) {
            return self.end(Outcome::NotBitcoin, now.wall);
        }
        let waited = now.mono.saturating_sub(self.connected_at);
        let info = VersionInfo {
            protocol_version: version.version,
            services: version.services,
            timestamp: version.timestamp,
            user_agent: version.user_agent.as_deref().map(text::from_bytes),
            start_height: version.start_height,
            relay: version.relay,
        };
        let patience = self.addr_patience(&info);
        self.result.outcome = Outcome::Responded;
        self.result.probed_at = now.wall;
        self.result.version_ms = Some(millis(waited));
        self.result.version = Some(info);
        encode_message(self.params.magic, Command::VERACK, &[], &mut self.outbox);
        self.note(now, || TraceEvent::Sent(Message::Verack));
        if self.target.wants_peers() {
            encode_message(self.params.magic, Command::GETADDR, &[], &mut self.outbox);
            self.note(now, || TraceEvent::Sent(Message::Getaddr));
            let bound = now.mono + patience;
            self.state = State::AwaitingAddr { bound, deadline: bound };
        } else {
            self.state = State::Done;
            self.finished = true;
        }
    }

    fn addr_patience(&self, info: &VersionInfo) -> Duration {
        let bound = match manner(info.user_agent.as_deref(), info.protocol_version) {
            Manner::AnswersAtOnce => PROMPT_ADDR_TIMEOUT,
            Manner::Trickles => TRICKLE_ADDR_TIMEOUT,
            Manner::Delayed | Manner::Unknown => Duration::MAX,
        };
        self.params.addr_timeout.min(bound)
    }

    fn handle_addr(&mut self, addr: &Addr, now: Now) {
        let room = MAX_PROBE_PEERS.saturating_sub(self.result.peers.len());
        self.result.peers.extend(addr.entries.iter().take(room).map(|entry| Peer {
            address: Address::new(entry.ip, entry.port),
            services: entry.services,
            time: entry.time.unwrap_or(0),
        }));
        let entries = addr.entries.len().saturating_add(addr.skipped);
        if entries < 2 {
            return;
        }
        let entries = u32::try_from(entries).unwrap_or(u32::MAX);
        self.reply_entries = self.reply_entries.saturating_add(entries);
        if self.reply_entries as usize >= MAX_PROBE_PEERS {
            return self.end_reply();
        }
        if let State::AwaitingAddr { bound, deadline } = &mut self.state {
            *deadline = (*bound).min(now.mono + self.params.addr_quiet);
        }
    }

    /// The other side ended it: proof that it, and our own line, are there.
    fn hear_the_end(&mut self, outcome: Outcome, now: Now) {
        if !self.is_done() {
            self.result.heard_at = Some(now.mono);
        }
        self.end(outcome, now.wall);
    }

    /// Ends a probe whose node responded.
    fn end_reply(&mut self) {
        self.result.peers_sent = Some(self.reply_entries);
        self.state = State::Done;
        self.finished = true;
    }

    /// Ends the probe: with `outcome`, unless the node has responded already.
    fn end(&mut self, outcome: Outcome, wall: UnixTime) {
        match self.state {
            State::Done => {}
            State::AwaitingAddr { .. } => self.end_reply(),
            State::Connecting { .. } | State::AwaitingVersion { .. } => {
                self.result.outcome = outcome;
                self.result.probed_at = wall;
                self.state = State::Done;
                self.finished = true;
                self.outbox.clear();
            }
        }
    }
}

/// A message as a trace keeps it: an `addr` without its entries, of which a flood has hundreds of thousands.
fn in_short(message: &Message) -> Message {
    match message {
        Message::Addr(Addr { count, skipped, .. }) => {
            Message::Addr(Addr { count: *count, entries: Vec::new(), skipped: *skipped })
        }
        other => other.clone(),
    }
}

fn broken(error: &DecodeError) -> Outcome {
    if error.is_foreign() { Outcome::NotBitcoin } else { Outcome::Malformed }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
