//! `Probe`: one conversation with one address.
//!
//! Sans-I/O, driven by the socket driver. After each `handle_*` call the driver polls, in this
//! order: `poll_transmit` for bytes to send, `poll_timeout` for the deadline, `finished` for the
//! result.
//!
//! ```text
//! Connecting ──connected──▶ AwaitingVersion ──version──▶ AwaitingAddr ──reply──▶ Done(responded)
//!     │ error, deadline           │ close, garbage, deadline   │ close, error, deadline ▲
//!     ▼                           ▼                            └────────────────────────┘
//! Done(refused, ...)          Done(closed, not_bitcoin, malformed, handshake_timeout)
//! ```
//!
//! Invariants:
//! 1. It sends `version`, then `verack` and, if due, one `getaddr`, and nothing else: TRB bans for
//!    more.
//! 2. Once `version` has arrived the outcome is `responded`, whatever follows.
//! 3. Traffic moves no deadline, except that an `addr` of two or more entries brings it forward,
//!    and bytes of an unfinished message put it off; neither beyond the bound of the reply.
//! 4. It returns exactly one result; afterwards all input is ignored and nothing is sent.
//! 5. The bytes, messages and entries accepted from a peer are bounded.

pub mod trace;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use crate::lookup::species::{GetaddrTiming, getaddr_timing};
use crate::probe::trace::{Step, Trace, TraceEvent, WaitedFor};
use crate::vocabulary::address::Address;
use crate::vocabulary::outcome::{Outcome, of_connect_error};
use crate::vocabulary::target::{Peer, ProbeResult, Target, VersionInfo};
use crate::vocabulary::time::{Now, UnixTime};
use watchglass::{
    Addr, Command, DecodeError, Decoder, Magic, Message, NetworkAddress, Version, encode_message,
    text,
};

/// Our `version` and the timeouts. A running probe keeps the parameters it started with.
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
    /// Maximum time from dialling to connected, for nodes.
    pub connect_timeout: Duration,
    /// Maximum time from dialling to connected, for candidates.
    pub candidate_connect_timeout: Duration,
    /// Maximum time from connected to `version`.
    pub handshake_timeout: Duration,
    /// Maximum time from `getaddr` to the end of the reply.
    pub addr_timeout: Duration,
    /// The reply is complete after this long without a further `addr` of two or more entries.
    pub addr_quiet: Duration,
}

/// Timeout for software that answers `getaddr` at once, with a margin for slow connections.
const PROMPT_ADDR_TIMEOUT: Duration = Duration::from_secs(15);
/// Timeout for software that serves one random peer each 100 ms: 95 % of 125 peers wait < 37 s.
const TRICKLE_ADDR_TIMEOUT: Duration = Duration::from_secs(60);
/// Number of entries of a full `addr`: more may follow in another one.
const FULL_ADDR_ENTRIES: usize = 1_000;
/// Silence that ends a reply of which more is to come, in units of `addr_quiet`, and its maximum: a
/// segment that was lost twice arrives seconds late.
const MORE_QUIET_FACTOR: u32 = 5;
const MAX_MORE_QUIET: Duration = Duration::from_secs(10);
/// Maximum number of bytes read from a peer: twice the largest message.
pub const MAX_PROBE_BYTES: u64 = 8_000_000;
/// Maximum number of messages read from a peer.
pub const MAX_PROBE_MESSAGES: u32 = 5_000;
/// Maximum number of `addr` entries read from a peer: Core before 0.9.5 and TRB send up to 2,500.
pub const MAX_PROBE_PEERS: usize = 5_000;

/// Which nodes may be asked for their peers.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub enum AskRoom {
    /// All.
    Any,
    /// Those whose software replies at once.
    Prompt,
    /// None but named ones and follow-ups.
    None,
}

/// Maximum number of probes that may await peers.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
pub struct AskBounds {
    /// Of any software.
    pub any: usize,
    /// If one more is of software that replies at once.
    pub prompt: usize,
}

impl AskBounds {
    /// No bounds.
    pub const NONE: Self = Self { any: usize::MAX, prompt: usize::MAX };

    /// The room that is left while this many probes await peers.
    pub fn room(self, asking: usize) -> AskRoom {
        match asking {
            _ if asking < self.any => AskRoom::Any,
            _ if asking < self.prompt => AskRoom::Prompt,
            _ => AskRoom::None,
        }
    }
}

#[derive(Debug, PartialEq, Eq, Clone, Copy)]
enum State {
    Connecting {
        deadline: Duration,
    },
    AwaitingVersion {
        deadline: Duration,
    },
    /// `bound` is the latest end of the wait, `deadline` its current end; an unfinished message
    /// puts it off until `unfinished`.
    AwaitingAddr {
        bound: Duration,
        deadline: Duration,
        unfinished: Duration,
        has_one_addr: bool,
    },
    Done,
}

/// A conversation with one target; see the module.
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
    /// Entries of `addr` messages of two or more: a single entry is the node's own address.
    reply_entries: u32,
    /// Which nodes there is room to ask for their peers.
    ask_room: AskRoom,
    finished: bool,
    /// Present in probes for the operator; the crawl's have none.
    trace: Option<Box<Trace>>,
}

impl Probe {
    /// Starts a probe whose connection was just initiated. `nonce` must be random and not 0.
    pub fn new(target: Target, params: Arc<ProbeParams>, nonce: u64, now: Now) -> Self {
        let timeout = if target.is_node() {
            params.connect_timeout
        } else {
            params.candidate_connect_timeout
        };
        let timeout = target.patience().map_or(timeout, |patience| patience.min(timeout));
        Self {
            decoder: Decoder::new(params.magic),
            target,
            nonce,
            state: State::Connecting { deadline: now.mono + timeout },
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
            ask_room: AskRoom::Any,
            finished: false,
            trace: None,
            params,
        }
    }

    /// The same probe, which records its conversation for [`Probe::take_trace`].
    pub fn traced(self) -> Self {
        Self { trace: Some(Box::default()), ..self }
    }

    /// The same probe from its start, for a new connection.
    pub fn repeated(&self, is_traced: bool, now: Now) -> Self {
        let again = Self::new(self.target, Arc::clone(&self.params), self.nonce, now);
        if is_traced { again.traced() } else { again }
    }

    /// Handles that the connection was established.
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

    /// Handles received bytes.
    pub fn handle_bytes(&mut self, mut bytes: &[u8], now: Now) {
        if !self.is_done() && !bytes.is_empty() {
            self.result.heard_at = Some(now.mono);
        }
        self.received_bytes = self.received_bytes.saturating_add(bytes.len() as u64);
        while !matches!(self.state, State::Done | State::Connecting { .. }) {
            match self.decoder.decode(&mut bytes) {
                Ok(None) => break,
                Ok(Some(message)) => {
                    self.note(now, || TraceEvent::Received(without_entries(&message)));
                    self.handle_message(message, now);
                }
                Err(error) => {
                    self.note(now, || TraceEvent::Garbage(error.clone()));
                    return self.end(outcome_of(&error), now.wall);
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
        let more_quiet = self.more_quiet();
        if let State::AwaitingAddr { bound, unfinished, .. } = &mut self.state {
            let is_in_message = self.decoder.is_in_message();
            *unfinished =
                if is_in_message { (now.mono + more_quiet).min(*bound) } else { Duration::ZERO };
        }
    }

    /// Handles that the peer closed or reset the connection, or that it broke.
    pub fn handle_closed(&mut self, now: Now) {
        self.note(now, || TraceEvent::Closed);
        self.end_by_peer(Outcome::Closed, now);
    }

    /// Handles that connecting failed or that the connection broke.
    pub fn handle_error(&mut self, error: &io::Error, now: Now) {
        self.note(now, || TraceEvent::Failed(error.to_string()));
        let is_connecting = matches!(self.state, State::Connecting { .. });
        // What looks like a fault of our own side is an ICMP message from a router here.
        match of_connect_error(error).unwrap_or(Outcome::Unreachable) {
            outcome @ (Outcome::ConnectTimeout | Outcome::Unreachable) if is_connecting => {
                self.end(outcome, now.wall);
            }
            // The kernel gave up on an established connection: the peer has not closed it.
            Outcome::ConnectTimeout | Outcome::Unreachable => {
                self.end(Outcome::HandshakeTimeout, now.wall);
            }
            outcome if is_connecting => self.end_by_peer(outcome, now),
            _ => self.end_by_peer(Outcome::Closed, now),
        }
    }

    /// Handles that time has passed.
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
            State::AwaitingAddr { deadline, unfinished, .. }
                if now.mono >= deadline.max(unfinished) =>
            {
                self.end_reply();
            }
            _ => {}
        }
    }

    /// Handles the stop of the crawl: only a node that has responded still returns a result.
    pub fn handle_stop(&mut self) {
        if let State::AwaitingAddr { .. } = self.state {
            self.end_responded();
        }
        self.state = State::Done;
    }

    /// The bytes to send now, if any.
    pub fn poll_transmit(&mut self) -> Option<Vec<u8>> {
        if self.outbox.is_empty() { None } else { Some(std::mem::take(&mut self.outbox)) }
    }

    /// The next deadline, on the monotonic clock.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self.state {
            State::Connecting { deadline } | State::AwaitingVersion { deadline } => Some(deadline),
            State::AwaitingAddr { deadline, unfinished, .. } => Some(deadline.max(unfinished)),
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

    /// The record of the conversation, once; `None` from an untraced probe.
    pub fn take_trace(&mut self) -> Option<Box<Trace>> {
        self.trace.take()
    }

    /// Whether the conversation is over.
    pub fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Sets whether it may send `getaddr` when its turn comes: the shell counts those that do.
    pub fn set_ask_room(&mut self, ask_room: AskRoom) {
        self.ask_room = ask_room;
    }

    /// Whether it awaits peers.
    pub fn is_asking(&self) -> bool {
        matches!(self.state, State::AwaitingAddr { .. })
    }

    /// The target of this probe.
    pub fn target(&self) -> Target {
        self.target
    }

    /// Memory of what was received, in bytes: the payload in progress, and the peers.
    pub fn buffered_bytes(&self) -> usize {
        self.decoder.buffered_bytes() + self.result.peers.capacity() * size_of::<Peer>()
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
            // An `addr` before `version` is not a reply: it is ignored.
            (State::AwaitingAddr { .. }, Message::Addr(addr)) => self.handle_addr(&addr, now),
            // Pings, second versions, inventories, broken frames: nothing gets an answer.
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
        let timing = getaddr_timing(info.user_agent.as_deref(), info.protocol_version);
        self.result.outcome = Outcome::Responded;
        self.result.probed_at = now.wall;
        self.result.version_ms = Some(millis(waited));
        self.result.version = Some(info);
        encode_message(self.params.magic, Command::VERACK, &[], &mut self.outbox);
        self.note(now, || TraceEvent::Sent(Message::Verack));
        let has_room = match self.ask_room {
            AskRoom::Any => true,
            AskRoom::Prompt => timing == GetaddrTiming::AnswersAtOnce,
            AskRoom::None => false,
        };
        let has_room = has_room || self.target.is_named() || self.target.is_follow_up();
        if self.target.wants_peers() && has_room {
            encode_message(self.params.magic, Command::GETADDR, &[], &mut self.outbox);
            self.note(now, || TraceEvent::Sent(Message::Getaddr));
            let bound = now.mono + self.addr_timeout(timing);
            // Core since 0.12 and its kin put the whole reply into one message.
            let has_one_addr =
                matches!(timing, GetaddrTiming::AnswersAtOnce | GetaddrTiming::Delayed);
            let unfinished = Duration::ZERO;
            self.state = State::AwaitingAddr { bound, deadline: bound, unfinished, has_one_addr };
        } else {
            if self.target.wants_peers() {
                self.result.target = self.target.unasked();
            }
            self.end_responded();
        }
    }

    /// The silence that ends a reply of which more is to come.
    fn more_quiet(&self) -> Duration {
        let quiet = self.params.addr_quiet;
        (quiet * MORE_QUIET_FACTOR).min(MAX_MORE_QUIET).max(quiet)
    }

    fn addr_timeout(&self, timing: GetaddrTiming) -> Duration {
        let bound = match timing {
            GetaddrTiming::AnswersAtOnce => PROMPT_ADDR_TIMEOUT,
            GetaddrTiming::Trickles => TRICKLE_ADDR_TIMEOUT,
            GetaddrTiming::Delayed | GetaddrTiming::Unknown => Duration::MAX,
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
        let (quiet, more_quiet) = (self.params.addr_quiet, self.more_quiet());
        if let State::AwaitingAddr { bound, deadline, has_one_addr, .. } = &mut self.state {
            let is_more_to_come =
                addr.entries.len() + addr.skipped == FULL_ADDR_ENTRIES && !*has_one_addr;
            *deadline = (*bound).min(now.mono + if is_more_to_come { more_quiet } else { quiet });
        }
    }

    /// The peer ended it, which proves that the peer and our uplink are alive.
    fn end_by_peer(&mut self, outcome: Outcome, now: Now) {
        if !self.is_done() {
            self.result.heard_at = Some(now.mono);
        }
        self.end(outcome, now.wall);
    }

    /// Ends the wait for a reply: it is complete, or nothing came within the whole time.
    fn end_reply(&mut self) {
        self.result.peers_sent = Some(self.reply_entries);
        self.end_responded();
    }

    /// Ends the probe of a node that has responded. Unless its reply was complete, `getaddr` counts
    /// as not sent.
    fn end_responded(&mut self) {
        self.state = State::Done;
        self.finished = true;
    }

    /// Ends the probe with `outcome`, unless the node has responded already.
    fn end(&mut self, outcome: Outcome, wall: UnixTime) {
        match self.state {
            State::Done => {}
            // It was cut off, after a whole reply or before.
            State::AwaitingAddr { .. }
                if self.reply_entries > 0 && !self.decoder.is_in_message() =>
            {
                self.end_reply();
            }
            State::AwaitingAddr { .. } => self.end_responded(),
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

/// The message as a trace records it: `addr` without its entries, which a flood has millions of.
fn without_entries(message: &Message) -> Message {
    match message {
        Message::Addr(Addr { count, skipped, .. }) => {
            Message::Addr(Addr { count: *count, entries: Vec::new(), skipped: *skipped })
        }
        other => other.clone(),
    }
}

fn outcome_of(error: &DecodeError) -> Outcome {
    if error.is_foreign() { Outcome::NotBitcoin } else { Outcome::Malformed }
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

#[cfg(test)]
mod tests;
