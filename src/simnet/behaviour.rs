//! `Conversation`: a simulated node's side of one connection, as a state machine without sockets.
//!
//! Layer 2: pure. The shell tells what happened (`handle_*`, with the time since the network's start) and
//! then asks, in this order: `poll_transmit` until it gives nothing, `wants_close`, `poll_timeout`.
//!
//! ```text
//! waiting ──their version──▶ greeted ──their verack──▶ shaken ──getaddr──▶ (reply planned, reply sent)
//!    └────────── fault, ban, deadline: closing; nothing is sent and nothing heard any more ──────────┘
//! ```
//!
//! The manners follow the behaviour measured on real nodes. Their delays are multiplied with
//! `time_scale`; what a node does to a connection that says nothing (60 s) is a limit, not a delay, and
//! is not. Simplified: no `addrv2`, no second transport, TRB forgives all but unknown commands.
//!
//! Invariants:
//! 1. Messages leave in the order of their due times, and of equal ones in the order of planning.
//! 2. Bytes from the other side never cause a panic, and what is remembered of them is bounded.
//! 3. A reply is put together only when it is due.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::sync::Arc;
use std::time::Duration;

use crate::simnet::knowledge::Entry;
use crate::simnet::manner::{Announces, Manner};
use crate::simnet::messages;
use crate::simnet::network::Home;
use crate::simnet::world::{NodeSpec, World};
use crate::watchglass::{Command, DecodeError, Decoder, Magic, Message, Version};

/// A node's side of one connection.
#[derive(Debug)]
pub struct Conversation<H: Home = World> {
    home: Arc<H>,
    node: usize,
    rng: fastrand::Rng,
    decoder: Decoder,
    /// The other side's protocol version and services, once it has said them.
    greeted: Option<(i32, u64)>,
    shaken: bool,
    /// The next message that is not a reply is not due before this.
    in_order_after: Duration,
    planned: BinaryHeap<Reverse<Planned>>,
    plans: u64,
    /// When the connection ends unless the other side goes on with the handshake.
    patience: Option<Duration>,
    closing_at: Option<(Duration, Close)>,
    closing: Option<Close>,
    observations: Observations,
}

/// How a node ends a connection.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Close {
    /// Orderly.
    Fin,
    /// By a reset.
    Reset,
    /// Not at all, but nothing more is sent: the other side may go on.
    Half,
}

/// What the other side did wrong.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub enum Fault {
    /// Something before `version`.
    MessageBeforeVersion,
    /// A second `version`.
    SecondVersion,
    /// A protocol version that the node does not speak with.
    OldVersion,
    /// A nonce of zero.
    ZeroNonce,
    /// `getaddr` before `verack`, where it is lost.
    GetaddrBeforeVerack,
    /// A second `getaddr`, where it is ignored.
    RepeatedGetaddr,
    /// `wtxidrelay` or `sendaddrv2` after `verack`.
    LateFeature,
    /// A command that TRB bans for.
    HeathenCommand,
    /// An `addr` of more than 1000 entries.
    TooManyAddresses,
    /// A wrong checksum or payload.
    Broken,
    /// Not the network's magic.
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
            Self::HeathenCommand => "heathen_command",
            Self::TooManyAddresses => "too_many_addresses",
            Self::Broken => "broken",
            Self::WrongMagic => "wrong_magic",
            Self::TooLong => "too_long",
        }
    }
}

/// What a node saw of the other side.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Observations {
    /// The commands received, with how often; the first 64 different ones.
    pub commands: Vec<(Command, u64)>,
    /// What went wrong, the first 64 things.
    pub faults: Vec<Fault>,
    /// Whether this node banned the other side.
    pub banned: bool,
    /// How many `getaddr` were accepted.
    pub asked: u64,
    /// How many replies of two or more entries were handed to `poll_transmit`'s caller.
    pub replies: u64,
    /// And how many entries they held.
    pub entries: u64,
}

/// A message that will leave.
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

impl<H: Home> Conversation<H> {
    /// A connection that a node has just accepted; `banned`: from someone that it has banned.
    pub fn new(home: Arc<H>, node: usize, banned: bool, now: Duration, rng: fastrand::Rng) -> Self {
        let mut this = Self {
            home,
            node,
            rng,
            decoder: Decoder::new(Magic::MAIN),
            greeted: None,
            shaken: false,
            in_order_after: now,
            planned: BinaryHeap::new(),
            plans: 0,
            patience: None,
            closing_at: None,
            closing: banned.then_some(Close::Fin),
            observations: Observations::default(),
        };
        let patience = match this.spec().manner {
            Manner::Bcoin => 10,
            Manner::Gocoin => 20,
            _ => 60,
        };
        this.patience = now.checked_add(Duration::from_secs(patience));
        if this.spec().manner == Manner::Bcoin && !banned {
            this.say_version(now);
        }
        this
    }

    /// Bytes came in.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Duration) {
        let mut rest = bytes;
        while self.closing.is_none() && self.closing_at.is_none() {
            match self.decoder.decode(&mut rest) {
                Ok(Some(message)) => self.handle_message(message, now),
                Ok(None) => return,
                Err(error) => self.handle_garbage(&error, &mut rest, now),
            }
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        if let Some((at, close)) = self.closing_at
            && at <= now
        {
            self.closing = Some(close);
        }
        if self.patience.is_some_and(|at| at <= now) {
            self.closing = Some(Close::Fin);
        }
    }

    /// The next message that is due, encoded. A reply comes with all its `addr` messages.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.closing.is_some() || self.planned.peek()?.0.due > now {
            return None;
        }
        let with_time = self.greeted.is_none_or(|(version, _)| version >= ADDR_TIME_VERSION);
        Some(match self.planned.pop()?.0.what {
            Outgoing::Bytes(bytes) => bytes,
            Outgoing::Own => {
                let node = self.spec();
                let time = self.home.wall(now);
                messages::addrs(&[Entry::ipv4(node.address, node.services, time)], with_time)
            }
            Outgoing::Reply { round } => {
                let entries = self.home.reply(self.node, round, self.home.wall(now));
                self.observations.replies += 1;
                self.observations.entries += entries.len() as u64;
                messages::addrs(&entries, with_time)
            }
        })
    }

    /// When `poll_transmit` or `handle_timeout` has to be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.closing.is_some() {
            return None;
        }
        let due = self.planned.peek().map(|planned| planned.0.due);
        let closing = self.closing_at.map(|(at, _)| at);
        [due, closing, self.patience].into_iter().flatten().min()
    }

    /// Whether the node ends the connection now, and how.
    pub fn wants_close(&self) -> Option<Close> {
        self.closing
    }

    /// What the node saw so far.
    pub fn observations(&self) -> &Observations {
        &self.observations
    }

    /// Which node it is, by its number at its home.
    pub fn node(&self) -> usize {
        self.node
    }

    fn handle_message(&mut self, message: Message, now: Duration) {
        let command = message.command();
        self.observations.count(command);
        let manner = self.spec().manner;
        if manner == Manner::Trb && !TRB_COMMANDS.iter().any(|known| is(command, known)) {
            self.observations.fault(Fault::HeathenCommand);
            self.observations.banned = true;
            self.closing = Some(Close::Fin);
            return;
        }
        let early = self.greeted.is_none() && command != Command::VERSION;
        if early {
            self.observations.fault(Fault::MessageBeforeVersion);
            // Only bcoin answers before it knows whom.
            if manner != Manner::Bcoin {
                return;
            }
        }
        match message {
            Message::Version(version) => self.handle_version(&version, now),
            Message::Verack => self.handle_verack(now),
            Message::Getaddr => self.handle_getaddr(now),
            Message::Ping(Some(nonce)) if manner != Manner::Trb => {
                self.say("pong", &nonce.to_le_bytes(), now);
            }
            Message::Addr(addr) if addr.count > 1000 => {
                self.observations.fault(Fault::TooManyAddresses);
                if manner.is_core() {
                    self.close_after(Duration::ZERO, Close::Fin, now);
                }
            }
            Message::Other { command, .. } if self.shaken && is_late_feature(command) => {
                self.observations.fault(Fault::LateFeature);
                if matches!(manner, Manner::NewCore | Manner::OldCore) {
                    self.close_after(Duration::ZERO, Close::Fin, now);
                }
            }
            Message::Broken { .. } => self.observations.fault(Fault::Broken),
            _ => {}
        }
    }

    fn handle_version(&mut self, version: &Version, now: Duration) {
        let manner = self.spec().manner;
        if self.greeted.is_some() {
            self.observations.fault(Fault::SecondVersion);
            if manner == Manner::Bcoin {
                self.close_after(Duration::ZERO, Close::Fin, now);
            }
            return;
        }
        self.greeted = Some((version.version, version.services));
        if version.nonce == Some(0) {
            self.observations.fault(Fault::ZeroNonce);
        }
        let least = match manner {
            Manner::NewCore | Manner::OldCore => 31_800,
            Manner::Bcoin => 70_001,
            Manner::AncientCore | Manner::Trb | Manner::Gocoin => 209,
            Manner::Other => i32::MIN,
        };
        if version.version < least {
            self.observations.fault(Fault::OldVersion);
            self.close_after(Duration::from_millis(50), Close::Fin, now);
            return;
        }
        // Core and bcoin insist on a verack, the others do not.
        let insists = matches!(manner, Manner::NewCore | Manner::OldCore | Manner::Bcoin);
        self.patience = self.patience.filter(|_| insists && !self.shaken);
        self.answer_version(version.version, version.services, now);
    }

    /// The messages with which a node meets a `version`.
    fn answer_version(&mut self, version: i32, services: u64, now: Duration) {
        let (manner, own) = (self.spec().manner, self.spec().protocol_version);
        match manner {
            Manner::Bcoin => {}
            // Poll loops of 100 ms.
            Manner::Trb | Manner::AncientCore => {
                let turn = Duration::from_millis(self.rng.u64(20..=150));
                let wait = self.scaled(turn);
                self.say_version(now + wait);
            }
            _ => self.say_version(now),
        }
        let common = version.min(own);
        if matches!(manner, Manner::NewCore | Manner::OldCore) {
            if common >= 70_016 {
                self.say("wtxidrelay", &[], now);
                self.say("sendaddrv2", &[], now);
            }
            self.say("verack", &[], now);
            if version <= 70_012 {
                self.say("alert", &FINAL_ALERT, now);
            }
            return;
        }
        self.say("verack", &[], now);
        match manner {
            Manner::Trb if services & 1 != 0 => {
                self.plan_in_order(messages::block_request("getblocks", own), now);
            }
            Manner::Bcoin => {
                // Its self-announcement sometimes comes after the reply, so it is not kept in order.
                let wait = Duration::from_millis(self.rng.u64(0..40));
                let wait = self.scaled(wait);
                let due = self.in_order_after.max(now + self.lag()) + wait;
                if self.spec().announces == Announces::AtHandshake {
                    self.plan(due, Outgoing::Own);
                }
                self.say("sendcmpct", &compact(1), now);
                self.say("getaddr", &[], now);
            }
            Manner::Gocoin => {
                self.say("sendheaders", &[], now);
                self.say("feefilter", &FEE, now);
                self.say("sendcmpct", &compact(2), now);
            }
            _ => {}
        }
    }

    fn handle_verack(&mut self, now: Duration) {
        if self.shaken {
            return;
        }
        self.shaken = true;
        self.patience = None;
        let Some((version, services)) = self.greeted else { return };
        let manner = self.spec().manner;
        if !matches!(manner, Manner::NewCore | Manner::OldCore) {
            return;
        }
        let common = version.min(self.spec().protocol_version);
        let old = manner == Manner::OldCore;
        if old && common >= 70_012 {
            self.say("sendheaders", &[], now);
        }
        if common >= 70_014 {
            self.say("sendcmpct", &compact(2), now);
            if old {
                self.say("sendcmpct", &compact(1), now);
            }
        }
        let nonce = self.rng.u64(..).to_le_bytes();
        self.say("ping", &nonce, now);
        if self.spec().announces == Announces::AtHandshake {
            let due = self.next_in_order(now);
            self.plan(due, Outgoing::Own);
        }
        if common >= 70_013 {
            self.say("feefilter", &FEE, now);
        }
        if services & 1 != 0 {
            self.plan_in_order(messages::block_request("getheaders", common), now);
        }
    }

    fn handle_getaddr(&mut self, now: Duration) {
        let manner = self.spec().manner;
        if matches!(manner, Manner::NewCore | Manner::OldCore) && !self.shaken {
            self.observations.fault(Fault::GetaddrBeforeVerack);
            return;
        }
        if self.observations.asked > 0 && !matches!(manner, Manner::Trb | Manner::AncientCore) {
            self.observations.fault(Fault::RepeatedGetaddr);
            return;
        }
        let round = self.observations.asked;
        self.observations.asked += 1;
        let delay = match manner {
            Manner::OldCore => self.exponential(OLD_CORE_DELAY),
            Manner::Trb | Manner::AncientCore => {
                self.exponential(TRICKLE_TURN * u32::from(self.spec().trickle_peers))
            }
            Manner::Bcoin | Manner::Gocoin => Duration::from_millis(self.rng.u64(1..=20)),
            Manner::NewCore | Manner::Other => Duration::from_millis(self.rng.u64(0..=2)),
        };
        let due = self.next_in_order(now) + self.scaled(delay);
        let (announces, sends_peers) = (self.spec().announces, self.spec().sends_peers);
        if announces == Announces::BeforeReply || announces == Announces::InReply && !sends_peers {
            self.plan(due, Outgoing::Own);
        }
        if sends_peers {
            // gocoin and the like draw another sample on every connection.
            let round = if round == 0 { self.rng.u64(..) } else { round };
            self.plan(due, Outgoing::Reply { round });
        }
    }

    /// Bytes that are no message: most hang up, TRB and bcoin look for the next magic.
    fn handle_garbage(&mut self, error: &DecodeError, rest: &mut &[u8], now: Duration) {
        self.observations.fault(match error {
            DecodeError::TooLong { .. } => Fault::TooLong,
            _ => Fault::WrongMagic,
        });
        match self.spec().manner {
            Manner::Trb | Manner::Bcoin | Manner::Other => {
                let magic = Magic::MAIN.0;
                let found = rest.windows(magic.len()).position(|window| window == magic);
                *rest = found.map_or(&[], |at| &rest[at..]);
                self.decoder = Decoder::new(Magic::MAIN);
            }
            Manner::Gocoin => self.close_after(Duration::ZERO, Close::Reset, now),
            _ => self.close_after(Duration::ZERO, Close::Fin, now),
        }
    }

    fn spec(&self) -> &NodeSpec {
        self.home.spec(self.node)
    }

    fn say_version(&mut self, now: Duration) {
        let nonce = self.rng.u64(1..);
        let bytes = messages::version(self.spec(), nonce, self.home.wall(now));
        self.plan_in_order(bytes, now);
    }

    fn say(&mut self, command: &str, payload: &[u8], now: Duration) {
        self.plan_in_order(messages::message(command, payload), now);
    }

    fn plan_in_order(&mut self, bytes: Vec<u8>, now: Duration) {
        let due = self.next_in_order(now);
        self.plan(due, Outgoing::Bytes(bytes));
    }

    fn plan(&mut self, due: Duration, what: Outgoing) {
        self.plans += 1;
        self.planned.push(Reverse(Planned { due, plan: self.plans, what }));
        // Whoever asks again and again without reading gets no more.
        if self.planned.len() > MOST_PLANNED {
            self.closing = Some(Close::Fin);
        }
    }

    fn next_in_order(&mut self, now: Duration) -> Duration {
        self.in_order_after = self.in_order_after.max(now + self.lag());
        self.in_order_after
    }

    fn close_after(&mut self, delay: Duration, close: Close, now: Duration) {
        let due = self.next_in_order(now) + self.scaled(delay);
        self.closing_at = Some((due, close));
        if due <= now {
            self.closing = Some(close);
        }
    }

    /// The way there and back.
    fn lag(&self) -> Duration {
        self.scaled(self.spec().rtt).mul_f64(self.home.latency())
    }

    fn scaled(&self, delay: Duration) -> Duration {
        delay.mul_f64(self.home.time_scale())
    }

    fn exponential(&mut self, mean: Duration) -> Duration {
        mean.mul_f64(-(1.0 - self.rng.f64()).ln())
    }
}

impl Observations {
    pub(super) fn count(&mut self, command: Command) {
        if let Some((_, times)) = self.commands.iter_mut().find(|(known, _)| *known == command) {
            *times += 1;
        } else if self.commands.len() < MOST_KEPT {
            self.commands.push((command, 1));
        }
    }

    pub(super) fn fault(&mut self, fault: Fault) {
        if self.faults.len() < MOST_KEPT {
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
/// The mean delay of an old Core's reply (`AVG_ADDRESS_BROADCAST_INTERVAL`).
const OLD_CORE_DELAY: Duration = Duration::from_secs(30);
/// One random peer has its trickle turn in each of these.
const TRICKLE_TURN: Duration = Duration::from_millis(100);
/// Below this version an `addr` entry has no time.
const ADDR_TIME_VERSION: i32 = 31_402;
const FEE: [u8; 8] = 1000_u64.to_le_bytes();
/// As long as the alert that ended all alerts; its words matter to nobody.
const FINAL_ALERT: [u8; 168] = [0; 168];
const MOST_KEPT: usize = 64;
const MOST_PLANNED: usize = 256;

#[cfg(test)]
mod tests;
