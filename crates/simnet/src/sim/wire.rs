//! `Wire`: carries bytes between the ends of a simulated connection. Sans-I/O.
//!
//! TCP keeps the order of the bytes and guarantees nothing else: they arrive late, in pieces,
//! several messages at once, or up to a certain byte only.
//!
//! Invariants:
//! 1. What arrives is a prefix of what was sent.
//! 2. After `pop` has returned `None`, `poll_timeout` is in the future.

use std::collections::VecDeque;
use std::time::Duration;

/// How bytes arrive.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Style {
    /// At once, all that was sent.
    #[default]
    Whole,
    /// At once, in pieces of random length.
    Pieces,
    /// In pieces of random length with pauses.
    Jerky,
}

/// Maximum number of bytes in flight before the sender must wait.
const MAX_IN_FLIGHT: usize = 256 * 1024;

/// Both directions of a connection.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// From the peer.
    pub(super) inbound: Pipe,
    /// To the peer.
    pub(super) outbound: Pipe,
}

impl Wire {
    pub(super) fn new(style: Style, mut rng: fastrand::Rng) -> Self {
        let inbound = Pipe { style, rng: rng.fork(), ..Pipe::default() };
        Self { inbound, outbound: Pipe { style, rng, ..Pipe::default() } }
    }

    /// When bytes may arrive next.
    pub(super) fn poll_timeout(&self) -> Option<Duration> {
        [self.inbound.poll_timeout(), self.outbound.poll_timeout()].into_iter().flatten().min()
    }
}

/// One direction.
#[derive(Debug, Default)]
pub(super) struct Pipe {
    bytes: VecDeque<u8>,
    style: Style,
    rng: fastrand::Rng,
    /// Nothing arrives before this.
    at: Duration,
    /// Number of bytes until it breaks.
    left: Option<usize>,
}

impl Pipe {
    /// Makes it break after this many bytes.
    pub(super) fn break_after(&mut self, bytes: usize) {
        self.left = Some(bytes);
    }

    /// Whether it is broken.
    pub(super) fn is_broken(&self) -> bool {
        self.left == Some(0)
    }

    /// Whether all that was sent has arrived.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether more may be sent, as with a socket's buffer.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() < MAX_IN_FLIGHT
    }

    /// Sends bytes.
    pub(super) fn push(&mut self, bytes: &[u8], now: Duration) {
        if self.is_broken() {
            return;
        }
        if self.style == Style::Jerky && self.bytes.is_empty() && self.rng.bool() {
            self.pause(now);
        }
        self.bytes.extend(bytes);
    }

    /// Returns the bytes that arrive next.
    pub(super) fn pop(&mut self, now: Duration) -> Option<Vec<u8>> {
        if self.bytes.is_empty() || now < self.at {
            return None;
        }
        let all = self.bytes.len();
        let length = match self.style {
            Style::Whole => all,
            Style::Pieces => self.rng.usize(1..=all.min(1_500)),
            Style::Jerky => match self.rng.u8(..4) {
                0 => self.rng.usize(1..=all.min(3)),
                1 => all,
                _ => self.rng.usize(1..=all),
            },
        };
        let length = self.left.map_or(length, |left| left.min(length));
        let piece = self.bytes.drain(..length).collect();
        if let Some(left) = &mut self.left {
            *left -= length;
            if *left == 0 {
                self.bytes.clear();
            }
        }
        if self.style == Style::Jerky {
            self.pause(now);
        }
        Some(piece)
    }

    fn pause(&mut self, now: Duration) {
        let max = if self.rng.u8(..20) == 0 { 4_000 } else { 150 };
        self.at = now + Duration::from_millis(self.rng.u64(..max));
    }

    fn poll_timeout(&self) -> Option<Duration> {
        (!self.bytes.is_empty()).then_some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bytes_arrive_as_sent_up_to_the_break() {
        for style in [Style::Whole, Style::Pieces, Style::Jerky] {
            for (seed, limit) in (0..40).flat_map(|seed| [(seed, None), (seed, Some(700))]) {
                let mut pipe = Wire::new(style, fastrand::Rng::with_seed(seed)).inbound;
                if let Some(limit) = limit {
                    pipe.break_after(limit);
                }
                let (mut sent, mut arrived, mut now) = (Vec::new(), Vec::new(), Duration::ZERO);
                for turn in 0..60_u8 {
                    let message = vec![turn; usize::from(turn) * 3];
                    pipe.push(&message, now);
                    sent.extend_from_slice(&message);
                    while let Some(piece) = pipe.pop(now) {
                        assert!(!piece.is_empty());
                        arrived.extend(piece);
                    }
                    assert!(pipe.poll_timeout().is_none_or(|at| at > now));
                    now += Duration::from_millis(40);
                }
                let end = now + Duration::from_secs(3_600);
                while let Some(at) = pipe.poll_timeout().filter(|at| *at < end) {
                    arrived.extend(pipe.pop(at).into_iter().flatten());
                }
                let length = limit.unwrap_or(sent.len());
                assert_eq!(arrived, sent[..length], "{style:?} {seed}");
                assert_eq!(pipe.is_broken(), limit.is_some());
            }
        }
    }
}
