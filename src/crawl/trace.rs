//! `Trace`: a conversation step by step, for a person who wants to see it.
//!
//! Layer 1: plain data. Only a probe that was asked for it keeps one ([`Probe::traced`]); the crawl's never
//! are. Invariant: 1. it holds no more messages than a probe takes, so that its size is bounded by the bytes
//! that a probe reads.
//!
//! [`Probe::traced`]: crate::crawl::probe::Probe::traced

use std::time::Duration;

use crate::watchglass::{DecodeError, Message, Version};

/// The steps of one conversation in their order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The steps.
    pub steps: Vec<Step>,
}

/// Something that happened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// When, counted from dialling.
    pub at: Duration,
    /// What.
    pub event: TraceEvent,
}

/// What happens in a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceEvent {
    /// The connection stands.
    Connected,
    /// A message of ours was handed to the socket.
    Sent(Message),
    /// A message of theirs was whole; an `addr` is kept without its entries.
    Received(Message),
    /// Bytes came with which the stream ends: where the next message begins is not known any more.
    Garbage(DecodeError),
    /// The other side closed the connection.
    Closed,
    /// The connection failed or broke, in the operating system's words.
    Failed(String),
    /// The patience for this was at its end.
    TimeUp(WaitedFor),
}

/// What a probe waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitedFor {
    /// The connection.
    Connection,
    /// Their `version`.
    Version,
    /// The first `addr` of two or more entries.
    Reply,
    /// A further `addr` behind such a one: there is none, so the reply is whole.
    MoreOfReply,
}

impl Trace {
    /// The `version` that came, the first if there are several.
    pub fn version(&self) -> Option<&Version> {
        self.steps.iter().find_map(|step| match &step.event {
            TraceEvent::Received(Message::Version(version)) => Some(version),
            _ => None,
        })
    }
}
