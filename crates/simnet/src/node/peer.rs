//! `Peer`: the remote end of a connection, an honest node or one that misbehaves. Sans-I/O.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use crate::network::PeerDirectory;
use crate::node::conversation::{Close, Conversation, Observations};
use crate::zoo::ScriptedPeer;

/// The remote end of one connection.
///
/// The driver calls `handle_*` with the time since the start of the network, and then
/// `poll_transmit` until it returns `None`, `wants_close` and `poll_timeout`, in this order.
pub trait Peer: fmt::Debug {
    /// Handles received bytes.
    fn handle_bytes(&mut self, bytes: &[u8], now: Duration);

    /// Handles the passage of time.
    fn handle_timeout(&mut self, now: Duration);

    /// The next bytes to send.
    fn poll_transmit(&mut self, now: Duration) -> Option<Vec<u8>>;

    /// When `poll_transmit` or `handle_timeout` must be called next.
    fn poll_timeout(&self) -> Option<Duration>;

    /// Whether and how the peer closes the connection now.
    fn wants_close(&self) -> Option<Close>;

    /// What the peer saw of the crawler so far.
    fn observations(&self) -> &Observations;

    /// Its place in the network.
    fn place(&self) -> usize;
}

/// Accepts a connection at this place; `banned`: from an address that the peer has banned.
pub fn accept<H: PeerDirectory>(
    directory: Arc<H>,
    place: usize,
    banned: bool,
    now: Duration,
    rng: fastrand::Rng,
) -> Box<dyn Peer> {
    if directory.misbehaviour(place).is_some() {
        return Box::new(ScriptedPeer::new(directory, place, now));
    }
    Box::new(Conversation::new(directory, place, banned, now, rng))
}
