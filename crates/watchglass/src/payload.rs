//! The payload buffer of a decoder, and which bytes of a payload it keeps.
//!
//! Invariants:
//! 1. Memory is allocated for bytes that were received, never for bytes that a header announces.
//! 2. At most the entries of a full `addr` are buffered (30,000 bytes), between messages at most
//!    [`MAX_IDLE_BYTES`].

use super::addr::{Addr, Layout};
use super::error::DecodeError;
use super::header::Command;
use super::message::Message;
use super::version::{BEFORE_USER_AGENT, BEHIND_USER_AGENT, MAX_SUBVERSION_LENGTH, Version};
use super::wire::{Reader, widen};

/// Maximum size of a buffer that is kept for the next message.
pub(super) const MAX_IDLE_BYTES: usize = 512;

/// Buffers the wanted bytes of each payload in turn.
#[derive(Debug)]
pub(super) struct PayloadBuffer {
    plan: Plan,
    /// Length of the payload.
    length: u64,
    /// Number of its bytes that were dropped.
    dropped: u64,
    kept: Vec<u8>,
}

/// Which bytes of the current payload are wanted.
#[derive(Clone, Debug)]
enum Plan {
    Version,
    AddrCount,
    AddrEntries(Layout),
    Nonce { is_ping: bool },
    Empty(Command),
    Unwanted(Command),
    Wrong(Command, DecodeError),
}

/// What to do with the next bytes; the count is never 0.
enum Step {
    Keep(usize),
    Drop(u64),
}

impl PayloadBuffer {
    pub(super) fn new() -> Self {
        Self { plan: Plan::Unwanted(Command([0; 12])), length: 0, dropped: 0, kept: Vec::new() }
    }

    pub(super) fn for_version(length: u64) -> Self {
        Self { plan: Plan::Version, length, ..Self::new() }
    }

    pub(super) fn for_addr(length: u64) -> Self {
        Self { plan: Plan::AddrCount, length, ..Self::new() }
    }

    /// Starts the payload of a message.
    pub(super) fn start(&mut self, command: Command, length: u32) {
        self.length = u64::from(length);
        self.dropped = 0;
        self.kept.clear();
        self.plan = match command {
            Command::VERSION => Plan::Version,
            Command::ADDR => Plan::AddrCount,
            Command::PING => Plan::Nonce { is_ping: true },
            Command::PONG => Plan::Nonce { is_ping: false },
            Command::VERACK | Command::GETADDR => Plan::Empty(command),
            other => Plan::Unwanted(other),
        };
    }

    /// Whether the payload's checksum matters.
    pub(super) fn is_wanted(&self) -> bool {
        !matches!(self.plan, Plan::Unwanted(_))
    }

    /// Consumes the next bytes of the payload.
    pub(super) fn take(&mut self, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let taken = match self.step() {
                Step::Keep(count) => {
                    let (head, _) = bytes.split_at_checked(count).unwrap_or((bytes, &[]));
                    self.keep(head, count);
                    head.len()
                }
                Step::Drop(count) => {
                    let taken = usize::try_from(count).unwrap_or(usize::MAX).min(bytes.len());
                    self.dropped = self.dropped.saturating_add(widen(taken));
                    taken
                }
            };
            bytes = bytes.get(taken..).unwrap_or(&[]);
        }
    }

    /// The message, now that its payload is complete.
    pub(super) fn finish(&mut self) -> Message {
        let message = match &self.plan {
            Plan::Version => Version::from_kept(&self.kept, self.length)
                .map(Message::Version)
                .map_err(|error| (Command::VERSION, error)),
            Plan::AddrCount | Plan::AddrEntries(_) => {
                self.addr().map(Message::Addr).map_err(|error| (Command::ADDR, error))
            }
            Plan::Nonce { is_ping: true } => {
                self.nonce().map(Message::Ping).map_err(|error| (Command::PING, error))
            }
            Plan::Nonce { is_ping: false } => {
                self.nonce().map(Message::Pong).map_err(|error| (Command::PONG, error))
            }
            Plan::Empty(Command::VERACK) => Ok(Message::Verack),
            Plan::Empty(_) => Ok(Message::Getaddr),
            Plan::Unwanted(command) => {
                let length = u32::try_from(self.length).unwrap_or(u32::MAX);
                Ok(Message::Other { command: *command, length })
            }
            Plan::Wrong(command, error) => Err((*command, error.clone())),
        };
        self.release();
        message.unwrap_or_else(|(command, error)| Message::Broken { command, error })
    }

    /// Discards the payload, and frees a large buffer.
    pub(super) fn release(&mut self) {
        self.kept.clear();
        if self.kept.capacity() > MAX_IDLE_BYTES {
            self.kept = Vec::new();
        }
    }

    /// The buffered bytes.
    pub(super) fn kept(&self) -> &[u8] {
        &self.kept
    }

    /// Memory of the buffer.
    pub(super) fn buffered_bytes(&self) -> usize {
        self.kept.capacity()
    }

    /// The buffered `addr`.
    pub(super) fn addr(&self) -> Result<Addr, DecodeError> {
        match &self.plan {
            Plan::AddrEntries(layout) => Addr::from_kept(&self.kept, *layout),
            Plan::Wrong(_, error) => Err(error.clone()),
            // The payload ended within its count, or right after it.
            _ => Layout::read_front(&self.kept, self.length)
                .and_then(|layout| Addr::from_kept(&[], layout)),
        }
    }

    fn nonce(&self) -> Result<Option<u64>, DecodeError> {
        let mut reader = Reader::new(&self.kept);
        if reader.is_empty() { Ok(None) } else { reader.u64("nonce").map(Some) }
    }

    fn step(&mut self) -> Step {
        if matches!(self.plan, Plan::AddrCount) {
            let missing =
                Reader::new(&self.kept).compact_size_length().saturating_sub(self.kept.len());
            if missing > 0 {
                return Step::Keep(missing);
            }
            self.plan = match Layout::read_front(&self.kept, self.length) {
                Ok(layout) => Plan::AddrEntries(layout),
                Err(error) => Plan::Wrong(Command::ADDR, error),
            };
            self.kept.clear();
        }
        let wanted = match &self.plan {
            Plan::Version => return self.step_version(),
            Plan::AddrEntries(layout) => layout.kept(),
            Plan::Nonce { .. } => 8,
            Plan::AddrCount | Plan::Empty(_) | Plan::Unwanted(_) | Plan::Wrong(..) => 0,
        };
        keep_up_to(wanted, self.kept.len()).unwrap_or(Step::Drop(u64::MAX))
    }

    /// Keeps everything up to the user agent's length, the start of the user agent, and the fields
    /// after it.
    fn step_version(&self) -> Step {
        let held = self.kept.len();
        let Some(from_length) = self.kept.get(BEFORE_USER_AGENT..).filter(|rest| !rest.is_empty())
        else {
            return Step::Keep(BEFORE_USER_AGENT.saturating_add(1).saturating_sub(held));
        };
        let mut reader = Reader::new(from_length);
        let mut wanted = BEFORE_USER_AGENT.saturating_add(reader.compact_size_length());
        if let Some(step) = keep_up_to(wanted, held) {
            return step;
        }
        let Ok(claimed) = reader.compact_size("user_agent length") else {
            return Step::Drop(u64::MAX);
        };
        let agent = usize::try_from(claimed).unwrap_or(usize::MAX).min(MAX_SUBVERSION_LENGTH);
        wanted = wanted.saturating_add(agent);
        if let Some(step) = keep_up_to(wanted, held) {
            return step;
        }
        let beyond = claimed.saturating_sub(widen(agent)).saturating_sub(self.dropped);
        if beyond > 0 {
            return Step::Drop(beyond);
        }
        keep_up_to(wanted.saturating_add(BEHIND_USER_AGENT), held).unwrap_or(Step::Drop(u64::MAX))
    }

    /// Keeps bytes of a step of this length. The buffer doubles as they arrive, but never past the
    /// end of the step.
    fn keep(&mut self, bytes: &[u8], step: usize) {
        let needed = self.kept.len().saturating_add(bytes.len());
        if needed > self.kept.capacity() {
            let end = self.kept.len().saturating_add(step);
            let room = self.kept.capacity().saturating_mul(2).clamp(needed, end.max(needed));
            self.kept.reserve_exact(room.saturating_sub(self.kept.len()));
        }
        self.kept.extend_from_slice(bytes);
    }
}

fn keep_up_to(wanted: usize, held: usize) -> Option<Step> {
    let missing = wanted.saturating_sub(held);
    (missing > 0).then_some(Step::Keep(missing))
}
