//! `ScriptedPeer`: runs the steps of a misbehaviour on one connection. Sans-I/O.
//!
//! Invariants:
//! 1. `poll_transmit` returns at most one piece, and the next piece is not due before its time:
//!    work per turn is bounded, however fast the crawler reads. Missed pieces are not made up for.
//! 2. Received bytes are stored only to be echoed, at most 64 KiB of them.
//! 3. Every connection ends after ten minutes.

use std::sync::Arc;
use std::time::Duration;

use crate::network::PeerDirectory;
use crate::network::world::World;
use crate::node::conversation::{Close, Fault, Observations};
use crate::node::peer::Peer;
use crate::zoo::step::{self, Step};
use crate::zoo::{Claimed, Misbehaviour};
use watchglass::{Command, Decoder, Magic, Message, Version};

/// A misbehaving peer's side of one connection.
#[derive(Debug)]
pub struct ScriptedPeer<H: PeerDirectory = World> {
    directory: Arc<H>,
    place: usize,
    decoder: Decoder,
    observations: Observations,
    /// The nonce of the crawler's `version`.
    nonce: Option<u64>,
    /// Bytes to echo.
    echo: Vec<u8>,
    /// The current step, when it began, and when its next piece is due.
    step: usize,
    began: Duration,
    due: Duration,
    /// Bytes of the current step that were sent.
    sent: u64,
    deadline: Duration,
    closing: Option<Close>,
}

impl<H: PeerDirectory> ScriptedPeer<H> {
    /// Accepts a connection at this place.
    pub fn new(directory: Arc<H>, place: usize, now: Duration) -> Self {
        Self {
            directory,
            place,
            decoder: Decoder::new(Magic::MAIN),
            observations: Observations::default(),
            nonce: None,
            echo: Vec::new(),
            step: 0,
            began: now,
            due: now,
            sent: 0,
            deadline: now + MAX_CONNECTION_TIME,
            closing: None,
        }
    }
}

impl<H: PeerDirectory> Peer for ScriptedPeer<H> {
    fn handle_bytes(&mut self, bytes: &[u8], _: Duration) {
        let directory = Arc::clone(&self.directory);
        if directory.misbehaviour(self.place).is_some_and(Misbehaviour::echoes) {
            let room = MAX_ECHO.saturating_sub(self.echo.len());
            self.echo.extend(bytes.iter().take(room));
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
                // The crawler sent something else than messages.
                Err(_) => {
                    self.observations.fault(Fault::WrongMagic);
                    self.decoder = Decoder::new(Magic::MAIN);
                    return;
                }
            }
        }
    }

    fn handle_timeout(&mut self, now: Duration) {
        if self.deadline <= now {
            self.closing = Some(Close::Fin);
        }
    }

    fn poll_transmit(&mut self, now: Duration) -> Option<Vec<u8>> {
        let directory = Arc::clone(&self.directory);
        let steps = &directory.misbehaviour(self.place)?.steps;
        while self.closing.is_none() {
            match steps.get(self.step)? {
                Step::Expect(command) if !self.has_received(*command) => return None,
                Step::Wait(time) if now < self.began + *time => return None,
                Step::Expect(_) | Step::Wait(_) => self.advance(now),
                Step::Send(_) if now < self.due => return None,
                Step::Send(flow) => {
                    let bytes = flow.piece_at(self.sent);
                    self.sent += bytes.len() as u64;
                    self.due = now + flow.interval;
                    if flow.is_over(self.sent) {
                        self.advance(now);
                    }
                    return Some(bytes);
                }
                Step::SendTheirNonce => {
                    let nonce = self.nonce;
                    self.advance(now);
                    let version = Version { nonce, ..Claimed::plain().version() };
                    let mut payload = Vec::new();
                    version.encode(&mut payload);
                    return Some(step::message("version", &payload));
                }
                Step::Echo => {
                    return (!self.echo.is_empty()).then(|| std::mem::take(&mut self.echo));
                }
                Step::Close(close) => self.closing = Some(*close),
            }
        }
        None
    }

    fn poll_timeout(&self) -> Option<Duration> {
        if self.closing.is_some_and(|close| close != Close::Half) {
            return None;
        }
        let step = self
            .directory
            .misbehaviour(self.place)
            .and_then(|misbehaviour| misbehaviour.steps.get(self.step));
        let due = match step.filter(|_| self.closing.is_none()) {
            Some(Step::Wait(time)) => self.began + *time,
            Some(Step::Send(_)) => self.due,
            _ => self.deadline,
        };
        Some(due.min(self.deadline))
    }

    fn wants_close(&self) -> Option<Close> {
        self.closing
    }

    fn observations(&self) -> &Observations {
        &self.observations
    }

    fn place(&self) -> usize {
        self.place
    }
}

impl<H: PeerDirectory> ScriptedPeer<H> {
    fn advance(&mut self, now: Duration) {
        self.step += 1;
        self.began = now;
        self.due = now;
        self.sent = 0;
    }

    fn has_received(&self, command: Command) -> bool {
        self.observations.commands.iter().any(|(echo, _)| *echo == command)
    }
}

impl Misbehaviour {
    fn echoes(&self) -> bool {
        self.steps.iter().any(|step| matches!(step, Step::Echo))
    }
}

const MAX_CONNECTION_TIME: Duration = Duration::from_secs(600);
const MAX_ECHO: usize = 64 * 1024;
