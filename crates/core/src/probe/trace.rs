//! `Trace`: a conversation step by step, for the operator.
//!
//! Sans-I/O: plain data. Only a traced probe ([`Probe::traced`]) records one; the crawl's do not.
//! Invariant: 1. it has no more messages than a probe accepts, so the bytes that a probe reads
//! bound its size.
//!
//! [`Probe::traced`]: crate::probe::Probe::traced

use std::time::Duration;

use watchglass::{DecodeError, Message, Version};

/// The steps of a conversation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Trace {
    /// The steps, in order.
    pub steps: Vec<Step>,
}

/// A step of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Step {
    /// Time since dialling.
    pub at: Duration,
    /// What happened.
    pub event: TraceEvent,
}

/// An event of a conversation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TraceEvent {
    /// The connection was established.
    Connected,
    /// We sent a message.
    Sent(Message),
    /// The peer sent a message; `addr` is recorded without its entries.
    Received(Message),
    /// Bytes that end the stream: the start of the next message is unknown.
    Garbage(DecodeError),
    /// The peer closed the connection.
    Closed,
    /// The connection failed or broke, with the operating system's message.
    Failed(String),
    /// The timeout for this expired.
    TimeUp(WaitedFor),
}

/// What a probe waits for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum WaitedFor {
    /// The connection.
    Connection,
    /// The peer's `version`.
    Version,
    /// The first `addr` of two or more entries.
    Reply,
    /// A further `addr` after that: without one, the reply is complete.
    MoreOfReply,
}

impl Trace {
    /// The first `version` received.
    pub fn version(&self) -> Option<&Version> {
        self.steps.iter().find_map(|step| match &step.event {
            TraceEvent::Received(Message::Version(version)) => Some(version),
            _ => None,
        })
    }
}
