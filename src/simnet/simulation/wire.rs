//! `Wire`: how bytes get from one end of a simulated connection to the other.
//!
//! Layer 2: pure. TCP keeps the order of the bytes and promises nothing else: they come in pieces, late, several
//! messages at once, or up to a certain byte and no further.
//! Invariants: 1. what arrives is a prefix of what was sent; 2. `poll_timeout` names no time that has passed
//! once `pop` gave nothing.

use std::collections::VecDeque;
use std::time::Duration;

/// How bytes travel.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) enum Style {
    /// All that was sent, at once.
    #[default]
    Whole,
    /// At once, in pieces of random length.
    Pieces,
    /// In pieces of random length with pauses between them; what is sent meanwhile comes together.
    Jerky,
}

/// So many bytes are on their way at most, but for one message.
const MOST_ON_THE_WAY: usize = 256 * 1024;

/// Both directions of a connection.
#[derive(Debug, Default)]
pub(super) struct Wire {
    /// From the far end.
    pub(super) inbound: Pipe,
    /// To the far end.
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
    /// After so many bytes more it breaks.
    left: Option<usize>,
}

impl Pipe {
    /// Lets it break after so many bytes.
    pub(super) fn break_after(&mut self, bytes: usize) {
        self.left = Some(bytes);
    }

    /// Whether it carries nothing more, ever.
    pub(super) fn is_broken(&self) -> bool {
        self.left == Some(0)
    }

    /// Whether all that was sent has arrived.
    pub(super) fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether more may be sent: as with a socket's buffers, not everything that anybody could ever say.
    pub(super) fn has_room(&self) -> bool {
        self.bytes.len() < MOST_ON_THE_WAY
    }

    /// Somebody sends something.
    pub(super) fn push(&mut self, bytes: &[u8], now: Duration) {
        if self.is_broken() {
            return;
        }
        if self.style == Style::Jerky && self.bytes.is_empty() && self.rng.bool() {
            self.pause(now);
        }
        self.bytes.extend(bytes);
    }

    /// What arrives next.
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
        let longest = if self.rng.u8(..20) == 0 { 4_000 } else { 150 };
        self.at = now + Duration::from_millis(self.rng.u64(..longest));
    }

    fn poll_timeout(&self) -> Option<Duration> {
        (!self.bytes.is_empty()).then_some(self.at)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_arrives_is_what_was_sent_up_to_the_break_in_every_style() {
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
                let wanted = limit.unwrap_or(sent.len());
                assert_eq!(arrived, sent[..wanted], "{style:?} {seed}");
                assert_eq!(pipe.is_broken(), limit.is_some());
            }
        }
    }
}
