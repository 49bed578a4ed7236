//! `Antics`: a beast's side of one connection, as a state machine without sockets.
//!
//! Layer 2: pure; the same interface as [`Conversation`](crate::simnet::behaviour::Conversation).
//!
//! Invariants:
//! 1. One call of `poll_transmit` gives at most a piece, and the next piece is not due before its time: work
//!    per turn is bounded, however fast the other side reads. What was missed is not caught up on.
//! 2. Of what the other side sends, no more is kept than what is to be echoed, and of that at most 64 KiB.
//! 3. A connection ends after ten minutes, whatever happens.

use std::sync::Arc;
use std::time::Duration;

use crate::simnet::behaviour::{Close, Fault, Observations};
use crate::simnet::network::Home;
use crate::simnet::world::World;
use crate::simnet::zoo::act::{self, Act};
use crate::simnet::zoo::{Beast, Said};
use crate::watchglass::{Command, Decoder, Magic, Message, Version};

/// A beast's side of one connection.
#[derive(Debug)]
pub struct Antics<H: Home = World> {
    home: Arc<H>,
    place: usize,
    decoder: Decoder,
    observations: Observations,
    /// The nonce of the other side's `version`.
    nonce: Option<u64>,
    /// What is to be echoed.
    heard: Vec<u8>,
    /// Which act it is at, since when, and when its next piece is due.
    act: usize,
    began: Duration,
    due: Duration,
    /// Bytes of this act that were handed out.
    sent: u64,
    patience: Duration,
    closing: Option<Close>,
}

impl<H: Home> Antics<H> {
    /// A connection that the beast at this place has just accepted.
    pub fn new(home: Arc<H>, place: usize, now: Duration) -> Self {
        Self {
            home,
            place,
            decoder: Decoder::new(Magic::MAIN),
            observations: Observations::default(),
            nonce: None,
            heard: Vec::new(),
            act: 0,
            began: now,
            due: now,
            sent: 0,
            patience: now + PATIENCE,
            closing: None,
        }
    }

    /// Bytes came in.
    pub fn handle_bytes(&mut self, bytes: &[u8], _: Duration) {
        let home = Arc::clone(&self.home);
        if home.beast(self.place).is_some_and(Beast::echoes) {
            let room = MOST_HEARD.saturating_sub(self.heard.len());
            self.heard.extend(bytes.iter().take(room));
        }
        let mut rest = bytes;
        loop {
            match self.decoder.decode(&mut rest) {
                Ok(None) => return,
                Ok(Some(message)) => {
                    self.observations.count(message.command());
                    if let Message::Version(version) = message {
                        self.nonce = version.nonce;
                    }
                }
                // The other side's fault; what the beast itself says is nobody's.
                Err(_) => {
                    self.observations.fault(Fault::WrongMagic);
                    self.decoder = Decoder::new(Magic::MAIN);
                    return;
                }
            }
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        if self.patience <= now {
            self.closing = Some(Close::Fin);
        }
    }

    /// The next bytes that are due.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Vec<u8>> {
        let home = Arc::clone(&self.home);
        let acts = &home.beast(self.place)?.acts;
        while self.closing.is_none() {
            match acts.get(self.act)? {
                Act::Hear(command) if !self.has_heard(*command) => return None,
                Act::Wait(time) if now < self.began + *time => return None,
                Act::Hear(_) | Act::Wait(_) => self.go_on(now),
                Act::Say(_) if now < self.due => return None,
                Act::Say(flow) => {
                    let bytes = flow.piece_at(self.sent);
                    self.sent += bytes.len() as u64;
                    self.due = now + flow.every;
                    if flow.is_over(self.sent) {
                        self.go_on(now);
                    }
                    return Some(bytes);
                }
                Act::Mirror => {
                    let nonce = self.nonce;
                    self.go_on(now);
                    let version = Version { nonce, ..act::layout(&Said::plain()) };
                    let mut payload = Vec::new();
                    version.encode(&mut payload);
                    return Some(act::message("version", &payload));
                }
                Act::Echo => {
                    return (!self.heard.is_empty()).then(|| std::mem::take(&mut self.heard));
                }
                Act::End(close) => self.closing = Some(*close),
            }
        }
        None
    }

    /// When `poll_transmit` or `handle_timeout` has to be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        if self.closing.is_some_and(|close| close != Close::Half) {
            return None;
        }
        let act = self.home.beast(self.place).and_then(|beast| beast.acts.get(self.act));
        let due = match act.filter(|_| self.closing.is_none()) {
            Some(Act::Wait(time)) => self.began + *time,
            Some(Act::Say(_)) => self.due,
            _ => self.patience,
        };
        Some(due.min(self.patience))
    }

    /// Whether the beast ends the connection now, and how.
    pub fn wants_close(&self) -> Option<Close> {
        self.closing
    }

    /// What the beast saw so far.
    pub fn observations(&self) -> &Observations {
        &self.observations
    }

    /// Which beast it is, by its number at its home.
    pub fn place(&self) -> usize {
        self.place
    }

    fn go_on(&mut self, now: Duration) {
        self.act += 1;
        self.began = now;
        self.due = now;
        self.sent = 0;
    }

    fn has_heard(&self, command: Command) -> bool {
        self.observations.commands.iter().any(|(heard, _)| *heard == command)
    }
}

impl Beast {
    fn echoes(&self) -> bool {
        self.acts.iter().any(|act| matches!(act, Act::Echo))
    }
}

const PATIENCE: Duration = Duration::from_secs(600);
const MOST_HEARD: usize = 64 * 1024;
