//! `Conversation`: a simulated node's side of one connection. Sans-I/O, driven by `serve` and
//! `sim`.
//!
//! ```text
//! connected ──version──▶ their_version ──verack──▶ has_verack ──getaddr──▶ reply planned, sent
//!     └───── fault, ban, deadline: closing; nothing is sent or received from then on ─────┘
//! ```
//!
//! Profiles follow the measured behaviour of real nodes. Delays are multiplied by `time_scale`; the
//! handshake deadline (60 s) is a limit and is not. Simplified: no `addrv2`, no encrypted
//! transport, TRB tolerates everything but unknown commands.
//!
//! Invariants:
//! 1. Messages leave in the order of their due times, then in the order of planning.
//! 2. Received bytes never cause a panic, and what is stored of them is bounded.
//! 3. A reply is drawn only when it is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use crate::network::PeerDirectory;
use crate::network::gossip::Entry;
use crate::network::world::{NodeSpec, World};
use crate::node::messages;
use crate::node::peer::Peer;
use crate::node::profile::{Announces, Profile};
use watchglass::{Command, DecodeError, Decoder, Magic, Message, Version};

/// A node's side of one connection.
#[derive(Debug)]
pub struct Conversation<H: PeerDirectory = World> {
    directory: Arc<H>,
    node: usize,
    rng: fastrand::Rng,
    decoder: Decoder,
    /// The crawler's protocol version and services, once received.
    their_version: Option<(i32, u64)>,
    has_verack: bool,
    /// The next message that is not a reply leaves no earlier than this.
    earliest: Duration,
    planned: BinaryHeap<Reverse<Planned>>,
    plans: u64,
    /// When the connection is closed unless the handshake proceeds.
    deadline: Option<Duration>,
    closing_at: Option<(Duration, Close)>,
    closing: Option<Close>,
    observations: Observations,
}

/// How a peer closes a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Close {
    /// With FIN.
    Fin,
    /// With RST.
    Reset,
    /// Only its sending half; it still receives.
    Half,
}

/// A protocol fault of the crawler.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// A message before `version`.
    MessageBeforeVersion,
    /// A second `version`.
    SecondVersion,
    /// A protocol version that the node does not accept.
    OldVersion,
    /// A nonce of zero.
    ZeroNonce,
    /// `getaddr` before `verack`, where the node ignores it.
    GetaddrBeforeVerack,
    /// A second `getaddr`, where the node ignores it.
    RepeatedGetaddr,
    /// `wtxidrelay` or `sendaddrv2` after `verack`.
    LateFeature,
    /// A command that TRB does not know and bans for.
    UnknownCommand,
    /// An `addr` with more than 1000 entries.
    TooManyAddresses,
    /// A wrong checksum or payload.
    Broken,
    /// Another network's magic.
    WrongMagic,
    /// A length above the limit.
    TooLong,
}

impl Fault {
    /// The name in `report.tsv`.
    pub fn name(self) -> &'static str {
        match self {
            Self::MessageBeforeVersion => "message_before_version",
            Self::SecondVersion => "second_version",
            Self::OldVersion => "old_version",
            Self::ZeroNonce => "zero_nonce",
            Self::GetaddrBeforeVerack => "getaddr_before_verack",
            Self::RepeatedGetaddr => "repeated_getaddr",
            Self::LateFeature => "late_feature",
            Self::UnknownCommand => "unknown_command",
            Self::TooManyAddresses => "too_many_addresses",
            Self::Broken => "broken",
            Self::WrongMagic => "wrong_magic",
            Self::TooLong => "too_long",
        }
    }
}

/// What a peer saw of the crawler.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observations {
    /// Number of messages by command, for the first 64 distinct commands.
    pub commands: Vec<(Command, u64)>,
    /// The first 64 faults.
    pub faults: Vec<Fault>,
    /// Whether the peer banned the crawler.
    pub banned: bool,
    /// Number of accepted `getaddr` messages.
    pub asked: u64,
    /// Number of replies with two or more entries that `poll_transmit` returned.
    pub replies: u64,
    /// Number of entries in these replies.
    pub entries: u64,
}

/// A message to send.
#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Planned {
    due: Duration,
    plan: u64,
    what: Outgoing,
}

#[derive(Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Outgoing {
    Bytes(Vec<u8>),
    Own,
    Reply { round: u64 },
}

impl<H: PeerDirectory> Conversation<H> {
    /// Accepts a connection; `banned`: from an address that the node has banned.
    pub fn new(
        directory: Arc<H>,
        node: usize,
        banned: bool,
        now: Duration,
        rng: fastrand::Rng,
    ) -> Self {
        let mut this = Self {
            directory,
            node,
            rng,
            decoder: Decoder::new(Magic::MAIN),
            their_version: None,
            has_verack: false,
            earliest: now,
            planned: BinaryHeap::new(),
            plans: 0,
            deadline: None,
            closing_at: None,
            closing: banned.then_some(Close::Fin),
            observations: Observations::default(),
        };
        let deadline = match this.spec().profile {
            Profile::Bcoin => 10,
            Profile::Gocoin => 20,
            _ => 60,
        };
        this.deadline = now.checked_add(Duration::from_secs(deadline));
        if this.spec().profile == Profile::Bcoin && !banned {
            this.send_version(now);
        }
        this
    }
}

impl<H: PeerDirectory> Peer for Conversation<H> {
    fn handle_bytes(&mut self, bytes: &[u8], now: Duration) {
        let mut rest = bytes;
        while self.closing.is_none() && self.closing_at.is_none() {
            match self.decoder.decode(&mut rest) {
                Ok(Some(message)) => self.handle_message(message, now),
                Ok(None) => return,
                Err(error) => self.handle_garbage(&error, &mut rest, now),
            }
        }
    }

    fn handle_timeout(&mut self, now: Duration) {
        if let Some((at, close)) = self.closing_at
            && at <= now
        {
            self.closing = Some(close);
        }
        if self.deadline.is_some_and(|at| at <= now) {
            self.closing = Some(Close::Fin);
        }
    }

    fn poll_transmit(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.closing.is_some() || self.planned.peek()?.0.due > now {
            return None;
        }
        let with_time = self.their_version.is_none_or(|(version, _)| version >= ADDR_TIME_VERSION);
        Some(match self.planned.pop()?.0.what {
            Outgoing::Bytes(bytes) => bytes,
            Outgoing::Own => {
                let node = self.spec();
                let time = self.directory.wall(now);
                messages::addrs(&[Entry::ipv4(node.address, node.services, time)], with_time)
            }
            Outgoing::Reply { round } => {
                let entries = self.directory.reply(self.node, round, self.directory.wall(now));
                self.observations.replies += 1;
                self.observations.entries += entries.len() as u64;
                messages::addrs(&entries, with_time)
            }
        })
    }

    fn poll_timeout(&self) -> Option<Duration> {
        if self.closing.is_some() {
            return None;
        }
        let due = self.planned.peek().map(|planned| planned.0.due);
        let closing = self.closing_at.map(|(at, _)| at);
        [due, closing, self.deadline].into_iter().flatten().min()
    }

    fn wants_close(&self) -> Option<Close> {
        self.closing
    }

    fn observations(&self) -> &Observations {
        &self.observations
    }

    fn place(&self) -> usize {
        self.node
    }
}

impl<H: PeerDirectory> Conversation<H> {
    fn handle_message(&mut self, message: Message, now: Duration) {
        let command = message.command();
        self.observations.count(command);
        let profile = self.spec().profile;
        if profile == Profile::Trb && !TRB_COMMANDS.iter().any(|known| is(command, known)) {
            self.observations.fault(Fault::UnknownCommand);
            self.observations.banned = true;
            self.closing = Some(Close::Fin);
            return;
        }
        let early = self.their_version.is_none() && command != Command::VERSION;
        if early {
            self.observations.fault(Fault::MessageBeforeVersion);
            // Only bcoin handles messages before `version`.
            if profile != Profile::Bcoin {
                return;
            }
        }
        match message {
            Message::Version(version) => self.handle_version(&version, now),
            Message::Verack => self.handle_verack(now),
            Message::Getaddr => self.handle_getaddr(now),
            Message::Ping(Some(nonce)) if profile != Profile::Trb => {
                self.send("pong", &nonce.to_le_bytes(), now);
            }
            Message::Addr(addr) if addr.count > 1000 => {
                self.observations.fault(Fault::TooManyAddresses);
                if profile.is_core() {
                    self.close_after(Duration::ZERO, Close::Fin, now);
                }
            }
            Message::Other { command, .. } if self.has_verack && is_late_feature(command) => {
                self.observations.fault(Fault::LateFeature);
                if matches!(profile, Profile::NewCore | Profile::OldCore) {
                    self.close_after(Duration::ZERO, Close::Fin, now);
                }
            }
            Message::Broken { .. } => self.observations.fault(Fault::Broken),
            _ => {}
        }
    }

    fn handle_version(&mut self, version: &Version, now: Duration) {
        let profile = self.spec().profile;
        if self.their_version.is_some() {
            self.observations.fault(Fault::SecondVersion);
            if profile == Profile::Bcoin {
                self.close_after(Duration::ZERO, Close::Fin, now);
            }
            return;
        }
        self.their_version = Some((version.version, version.services));
        if version.nonce == Some(0) {
            self.observations.fault(Fault::ZeroNonce);
        }
        let min = match profile {
            Profile::NewCore | Profile::OldCore => 31_800,
            Profile::Bcoin => 70_001,
            Profile::AncientCore | Profile::Trb | Profile::Gocoin => 209,
            Profile::Other => i32::MIN,
        };
        if version.version < min {
            self.observations.fault(Fault::OldVersion);
            self.close_after(Duration::from_millis(50), Close::Fin, now);
            return;
        }
        // Core and bcoin require a verack, the others do not.
        let requires_verack =
            matches!(profile, Profile::NewCore | Profile::OldCore | Profile::Bcoin);
        self.deadline = self.deadline.filter(|_| requires_verack && !self.has_verack);
        self.answer_version(version.version, version.services, now);
    }

    /// Plans the messages that follow a `version`.
    fn answer_version(&mut self, version: i32, services: u64, now: Duration) {
        let (profile, own) = (self.spec().profile, self.spec().protocol_version);
        match profile {
            Profile::Bcoin => {}
            // Their poll loops take 100 ms.
            Profile::Trb | Profile::AncientCore => {
                let turn = Duration::from_millis(self.rng.u64(20..=150));
                let wait = self.scaled(turn);
                self.send_version(now + wait);
            }
            _ => self.send_version(now),
        }
        let common = version.min(own);
        if matches!(profile, Profile::NewCore | Profile::OldCore) {
            if common >= 70_016 {
                self.send("wtxidrelay", &[], now);
                self.send("sendaddrv2", &[], now);
            }
            self.send("verack", &[], now);
            if version <= 70_012 {
                self.send("alert", &FINAL_ALERT, now);
            }
            return;
        }
        self.send("verack", &[], now);
        match profile {
            Profile::Trb if services & 1 != 0 => {
                self.plan_in_order(messages::block_request("getblocks", own), now);
            }
            Profile::Bcoin => {
                // Its self-announcement may come after the reply, so it is not kept in order.
                let wait = Duration::from_millis(self.rng.u64(0..40));
                let wait = self.scaled(wait);
                let due = self.earliest.max(now + self.lag()) + wait;
                if self.spec().announces == Announces::AtHandshake {
                    self.plan(due, Outgoing::Own);
                }
                self.send("sendcmpct", &compact(1), now);
                self.send("getaddr", &[], now);
            }
            Profile::Gocoin => {
                self.send("sendheaders", &[], now);
                self.send("feefilter", &FEE, now);
                self.send("sendcmpct", &compact(2), now);
            }
            _ => {}
        }
    }

    fn handle_verack(&mut self, now: Duration) {
        if self.has_verack {
            return;
        }
        self.has_verack = true;
        self.deadline = None;
        let Some((version, services)) = self.their_version else { return };
        let profile = self.spec().profile;
        if !matches!(profile, Profile::NewCore | Profile::OldCore) {
            return;
        }
        let common = version.min(self.spec().protocol_version);
        let old = profile == Profile::OldCore;
        if old && common >= 70_012 {
            self.send("sendheaders", &[], now);
        }
        if common >= 70_014 {
            self.send("sendcmpct", &compact(2), now);
            if old {
                self.send("sendcmpct", &compact(1), now);
            }
        }
        let nonce = self.rng.u64(..).to_le_bytes();
        self.send("ping", &nonce, now);
        if self.spec().announces == Announces::AtHandshake {
            let due = self.next_in_order(now);
            self.plan(due, Outgoing::Own);
        }
        if common >= 70_013 {
            self.send("feefilter", &FEE, now);
        }
        if services & 1 != 0 {
            self.plan_in_order(messages::block_request("getheaders", common), now);
        }
    }

    fn handle_getaddr(&mut self, now: Duration) {
        let profile = self.spec().profile;
        if matches!(profile, Profile::NewCore | Profile::OldCore) && !self.has_verack {
            self.observations.fault(Fault::GetaddrBeforeVerack);
            return;
        }
        if self.observations.asked > 0 && !matches!(profile, Profile::Trb | Profile::AncientCore) {
            self.observations.fault(Fault::RepeatedGetaddr);
            return;
        }
        let round = self.observations.asked;
        self.observations.asked += 1;
        let delay = match profile {
            Profile::OldCore => self.exponential(OLD_CORE_DELAY),
            Profile::Trb | Profile::AncientCore => {
                self.exponential(TRICKLE_TURN * u32::from(self.spec().trickle_peers))
            }
            Profile::Bcoin | Profile::Gocoin => Duration::from_millis(self.rng.u64(1..=20)),
            Profile::NewCore | Profile::Other => Duration::from_millis(self.rng.u64(0..=2)),
        };
        let due = self.next_in_order(now) + self.scaled(delay);
        let (announces, sends_peers) = (self.spec().announces, self.spec().sends_peers);
        if announces == Announces::BeforeReply || announces == Announces::InReply && !sends_peers {
            self.plan(due, Outgoing::Own);
        }
        if sends_peers {
            // gocoin and others draw a new sample for every connection.
            let round = if round == 0 { self.rng.u64(..) } else { round };
            self.plan(due, Outgoing::Reply { round });
        }
    }

    /// Handles bytes that are not a message: most nodes disconnect, TRB and bcoin search for the
    /// next magic.
    fn handle_garbage(&mut self, error: &DecodeError, rest: &mut &[u8], now: Duration) {
        self.observations.fault(match error {
            DecodeError::TooLong { .. } => Fault::TooLong,
            _ => Fault::WrongMagic,
        });
        match self.spec().profile {
            Profile::Trb | Profile::Bcoin | Profile::Other => {
                let magic = Magic::MAIN.0;
                let found = rest.windows(magic.len()).position(|window| window == magic);
                *rest = found.map_or(&[], |at| &rest[at..]);
                self.decoder = Decoder::new(Magic::MAIN);
            }
            Profile::Gocoin => self.close_after(Duration::ZERO, Close::Reset, now),
            _ => self.close_after(Duration::ZERO, Close::Fin, now),
        }
    }

    fn spec(&self) -> &NodeSpec {
        self.directory.spec(self.node)
    }

    fn send_version(&mut self, now: Duration) {
        let nonce = self.rng.u64(1..);
        let bytes = messages::version(self.spec(), nonce, self.directory.wall(now));
        self.plan_in_order(bytes, now);
    }

    fn send(&mut self, command: &str, payload: &[u8], now: Duration) {
        self.plan_in_order(messages::message(command, payload), now);
    }

    fn plan_in_order(&mut self, bytes: Vec<u8>, now: Duration) {
        let due = self.next_in_order(now);
        self.plan(due, Outgoing::Bytes(bytes));
    }

    fn plan(&mut self, due: Duration, what: Outgoing) {
        self.plans += 1;
        self.planned.push(Reverse(Planned { due, plan: self.plans, what }));
        // The crawler asks again and again without reading.
        if self.planned.len() > MAX_PLANNED {
            self.closing = Some(Close::Fin);
        }
    }

    fn next_in_order(&mut self, now: Duration) -> Duration {
        self.earliest = self.earliest.max(now + self.lag());
        self.earliest
    }

    fn close_after(&mut self, delay: Duration, close: Close, now: Duration) {
        let due = self.next_in_order(now) + self.scaled(delay);
        self.closing_at = Some((due, close));
        if due <= now {
            self.closing = Some(close);
        }
    }

    /// The round-trip time.
    fn lag(&self) -> Duration {
        self.scaled(self.spec().rtt).mul_f64(self.directory.latency())
    }

    fn scaled(&self, delay: Duration) -> Duration {
        delay.mul_f64(self.directory.time_scale())
    }

    fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.rng.f64()).ln())
    }
}

impl Observations {
    pub(crate) fn count(&mut self, command: Command) {
        if let Some((_, times)) = self.commands.iter_mut().find(|(known, _)| *known == command) {
            *times += 1;
        } else if self.commands.len() < MAX_KEPT {
            self.commands.push((command, 1));
        }
    }

    pub(crate) fn fault(&mut self, fault: Fault) {
        if self.faults.len() < MAX_KEPT {
            self.faults.push(fault);
        }
    }
}

fn is(command: Command, name: &str) -> bool {
    Command::new(name) == Some(command)
}

fn is_late_feature(command: Command) -> bool {
    is(command, "wtxidrelay") || is(command, "sendaddrv2")
}

fn compact(version: u8) -> [u8; 9] {
    [0, version, 0, 0, 0, 0, 0, 0, 0]
}

const TRB_COMMANDS: [&str; 13] = [
    "version",
    "verack",
    "addr",
    "inv",
    "getdata",
    "getblocks",
    "getheaders",
    "tx",
    "block",
    "getaddr",
    "checkorder",
    "reply",
    "ping",
];
/// Mean delay of an old Core's reply (`AVG_ADDRESS_BROADCAST_INTERVAL`).
const OLD_CORE_DELAY: Duration = Duration::from_secs(30);
/// One random peer has its trickle turn in each interval.
const TRICKLE_TURN: Duration = Duration::from_millis(100);
/// Entries have a time from this version on.
const ADDR_TIME_VERSION: i32 = 31_402;
const FEE: [u8; 8] = 1000_u64.to_le_bytes();
/// As long as Core's final alert; its content does not matter.
const FINAL_ALERT: [u8; 168] = [0; 168];
const MAX_KEPT: usize = 64;
const MAX_PLANNED: usize = 256;

#[cfg(test)]
mod tests;
