//! `Talk`: the far end of a connection, be it an honest node or a beast of the zoo.
//!
//! Layer 2: pure. The interface is the one of [`Conversation`]: see there in which order to ask.

use std::sync::Arc;
use std::time::Duration;

use crate::simnet::behaviour::{Close, Conversation, Observations};
use crate::simnet::network::Home;
use crate::simnet::world::World;
use crate::simnet::zoo::Antics;

/// The far end of one connection.
#[derive(Debug)]
pub enum Talk<H: Home = World> {
    /// A node.
    Node(Box<Conversation<H>>),
    /// A beast.
    Beast(Box<Antics<H>>),
}

impl<H: Home> Talk<H> {
    /// A connection that whoever has this place has just accepted; `banned`: from someone that it has banned.
    pub fn new(
        home: Arc<H>,
        place: usize,
        banned: bool,
        now: Duration,
        rng: fastrand::Rng,
    ) -> Self {
        if home.beast(place).is_some() {
            return Self::Beast(Box::new(Antics::new(home, place, now)));
        }
        Self::Node(Box::new(Conversation::new(home, place, banned, now, rng)))
    }

    /// Bytes came in.
    pub fn handle_bytes(&mut self, bytes: &[u8], now: Duration) {
        match self {
            Self::Node(node) => node.handle_bytes(bytes, now),
            Self::Beast(beast) => beast.handle_bytes(bytes, now),
        }
    }

    /// Time has passed.
    pub fn handle_timeout(&mut self, now: Duration) {
        match self {
            Self::Node(node) => node.handle_timeout(now),
            Self::Beast(beast) => beast.handle_timeout(now),
        }
    }

    /// The next bytes that are due.
    pub fn poll_transmit(&mut self, now: Duration) -> Option<Vec<u8>> {
        match self {
            Self::Node(node) => node.poll_transmit(now),
            Self::Beast(beast) => beast.poll_transmit(now),
        }
    }

    /// When `poll_transmit` or `handle_timeout` has to be called next.
    pub fn poll_timeout(&self) -> Option<Duration> {
        match self {
            Self::Node(node) => node.poll_timeout(),
            Self::Beast(beast) => beast.poll_timeout(),
        }
    }

    /// Whether the connection is ended from here now, and how.
    pub fn wants_close(&self) -> Option<Close> {
        match self {
            Self::Node(node) => node.wants_close(),
            Self::Beast(beast) => beast.wants_close(),
        }
    }

    /// What was seen of the other side so far.
    pub fn observations(&self) -> &Observations {
        match self {
            Self::Node(node) => node.observations(),
            Self::Beast(beast) => beast.observations(),
        }
    }

    /// Who it is, by its number at its home.
    pub fn place(&self) -> usize {
        match self {
            Self::Node(node) => node.node(),
            Self::Beast(beast) => beast.place(),
        }
    }

    /// Whether it is a beast.
    pub fn is_beast(&self) -> bool {
        matches!(self, Self::Beast(_))
    }
}
