//! `Faults`: the faults of a simulated crawl and their rates. Sans-I/O.
//!
//! Each kind has its own rate. Since some faults hide others, each seed switches some kinds off
//! (swarm testing).
//!
//! Invariant: 1. The same seed and the same calls give the same results.

use std::time::Duration;

use bitdash_core::vocabulary::outcome::Fault;

/// A kind of fault.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The peer refuses.
    Refuse,
    /// The connection attempt gets no answer.
    Swallow,
    /// A router reports that the host is unreachable.
    Unreachable,
    /// Connecting fails before the call returns.
    Instant,
    /// The peer accepts late, perhaps too late.
    SlowAccept,
    /// The peer accepts and resets.
    ResetAtOnce,
    /// Bytes arrive late, in pieces, and several messages at once.
    Jerky,
    /// Reading fails after some bytes.
    ReadBreaks,
    /// Writing fails after some bytes.
    WriteBreaks,
    /// No file descriptor is left.
    Descriptors,
    /// No local port is left.
    Ports,
    /// The kernel has no route to an address.
    NoWay,
    /// A firewall rule of our host forbids an address.
    Forbidden,
    /// The event loop wakes too early.
    Early,
    /// The event loop wakes late: the machine is busy or was suspended.
    Late,
    /// The writer thread stalls.
    Stall,
    /// The writer's answers are delayed.
    LateAnswers,
    /// A transaction is slow.
    SlowWrite,
    /// The database is unreachable for a while.
    Down,
    /// One transaction fails.
    WriteFails,
    /// A transaction is committed, and the connection breaks before the reply.
    ReplyLost,
    /// The lookup of names is slow or fails.
    NoNames,
    /// SIGHUP.
    Reload,
    /// The process dies.
    Crash,
    /// SIGTERM.
    Stop,
    /// The wall clock jumps by about an hour.
    HourJump,
    /// The wall clock jumps by ten years.
    DecadeJump,
    /// Our uplink loses all packets for a while.
    UplinkSilent,
    /// Our uplink is down for a while, and the kernel knows.
    UplinkDown,
}

impl Kind {
    /// All kinds with their maximum rates, in a million per call of [`Faults::hits`].
    pub const ALL: [(Self, u32); 29] = [
        (Self::Refuse, 300_000),
        (Self::Swallow, 300_000),
        (Self::Unreachable, 200_000),
        (Self::Instant, 100_000),
        (Self::SlowAccept, 300_000),
        (Self::ResetAtOnce, 200_000),
        (Self::Jerky, 1_000_000),
        (Self::ReadBreaks, 300_000),
        (Self::WriteBreaks, 200_000),
        (Self::Descriptors, 100_000),
        (Self::Ports, 100_000),
        (Self::NoWay, 100_000),
        (Self::Forbidden, 50_000),
        (Self::Early, 300_000),
        (Self::Late, 50_000),
        (Self::Stall, 5_000),
        (Self::LateAnswers, 500_000),
        (Self::SlowWrite, 500_000),
        (Self::Down, 300_000),
        (Self::WriteFails, 300_000),
        (Self::ReplyLost, 300_000),
        (Self::NoNames, 300_000),
        (Self::Reload, 5_000),
        (Self::Crash, 2_000),
        (Self::Stop, 1_000),
        (Self::HourJump, 2_000),
        (Self::DecadeJump, 1_000),
        (Self::UplinkSilent, 1_000),
        (Self::UplinkDown, 1_000),
    ];
}

/// Draws faults.
#[derive(Clone, Debug)]
pub struct Faults {
    rates: [u32; Kind::ALL.len()],
    hits: [u64; Kind::ALL.len()],
    rng: fastrand::Rng,
}

/// What replaces the network's answer to a connection attempt.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Connect {
    Silence,
    /// Fails after this delay with this error number.
    Fails(Duration, i32),
    /// Is accepted later by this delay.
    Later(Duration),
}

/// How a transaction goes.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Write {
    /// Its duration.
    pub(super) takes: Duration,
    /// Whether the writer thread blocks meanwhile.
    pub(super) blocks: bool,
    /// Whether it is committed.
    pub(super) commits: bool,
    /// Whether it is committed at the beginning of its duration.
    pub(super) commits_early: bool,
    /// Whether the reply arrives.
    pub(super) replies: bool,
    /// How long the database is unreachable afterwards.
    pub(super) away: Duration,
}

impl Write {
    /// A transaction without a fault.
    pub(super) const FINE: Self = Self {
        takes: Duration::ZERO,
        blocks: false,
        commits: true,
        commits_early: false,
        replies: true,
        away: Duration::ZERO,
    };
}

impl Faults {
    /// Draws the rate of each kind; about half of them are zero.
    pub fn draw(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let rates = Kind::ALL.map(|(_, max)| if rng.bool() { rng.u32(..=max) } else { 0 });
        Self { rates, hits: [0; Kind::ALL.len()], rng }
    }

    /// Only one kind, at its maximum rate.
    pub fn only(kind: Kind, seed: u64) -> Self {
        let mut faults = Self::draw(seed);
        faults.rates = [0; Kind::ALL.len()];
        faults.with(kind, true)
    }

    /// Number of faults of each kind so far.
    pub fn counts(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().zip(self.hits).map(|((kind, _), hits)| (kind, hits))
    }

    /// Sets one kind to its maximum rate or to zero.
    pub fn with(mut self, kind: Kind, happens: bool) -> Self {
        if let (Some(rate), Some((_, max))) =
            (self.rates.get_mut(kind as usize), Kind::ALL.get(kind as usize))
        {
            *rate = if happens { *max } else { 0 };
        }
        self
    }

    /// The kinds with a rate above zero.
    pub fn kinds(&self) -> Vec<Kind> {
        let kinds = Kind::ALL.iter().zip(self.rates).filter(|(_, rate)| *rate > 0);
        kinds.map(|((kind, _), _)| *kind).collect()
    }

    /// Whether a fault of this kind happens now.
    pub fn hits(&mut self, kind: Kind) -> bool {
        let rate = self.rates.get(kind as usize).copied().unwrap_or(0);
        // Kinds with rate zero use no random number.
        let happens = rate > 0 && self.rng.u32(..1_000_000) < rate;
        if let Some(hits) = self.hits.get_mut(kind as usize) {
            *hits += u64::from(happens);
        }
        happens
    }

    /// The generator of random numbers.
    pub fn rng(&mut self) -> &mut fastrand::Rng {
        &mut self.rng
    }

    /// A random time up to `max`, skewed to short times.
    pub fn time(&mut self, max: Duration) -> Duration {
        let share = self.rng.f64();
        max.mul_f64(share * share * share)
    }

    /// A fault of our own host that prevents a dial.
    pub(super) fn own_fault(&mut self) -> Option<Fault> {
        let faults = [
            (Kind::Descriptors, Fault::Descriptors),
            (Kind::Ports, Fault::Ports),
            (Kind::NoWay, Fault::Uplink),
            (Kind::Forbidden, Fault::Forbidden),
        ];
        faults.into_iter().find(|(kind, _)| self.hits(*kind)).map(|(_, fault)| fault)
    }

    pub(super) fn connect(&mut self) -> Option<Connect> {
        let second = Duration::from_secs(1);
        if self.hits(Kind::Instant) {
            let errors = [ECONNREFUSED, EHOSTUNREACH, ECONNRESET];
            let error = errors[self.rng.usize(..errors.len())];
            return Some(Connect::Fails(Duration::ZERO, error));
        }
        if self.hits(Kind::Swallow) {
            return Some(Connect::Silence);
        }
        if self.hits(Kind::Refuse) {
            return Some(Connect::Fails(self.time(second), ECONNREFUSED));
        }
        if self.hits(Kind::Unreachable) {
            // Some of these errors are faults of our own host if a call of ours returns them.
            let errors = [EHOSTUNREACH, ENETUNREACH, ETIMEDOUT, EPROTO];
            let error = errors[self.rng.usize(..errors.len())];
            return Some(Connect::Fails(self.time(3 * second), error));
        }
        self.hits(Kind::SlowAccept).then(|| Connect::Later(self.time(12 * second)))
    }

    pub(super) fn write(&mut self) -> Write {
        let mut write = Write::FINE;
        if self.hits(Kind::SlowWrite) {
            write.takes = self.time(Duration::from_secs(8));
            write.commits_early = self.rng.bool();
            write.blocks = self.rng.bool();
        }
        if self.hits(Kind::WriteFails) {
            (write.commits, write.replies) = (false, false);
        }
        if self.hits(Kind::ReplyLost) {
            (write.commits, write.replies) = (true, false);
        }
        if self.hits(Kind::Down) {
            (write.commits, write.replies) = (self.rng.bool(), false);
            write.away = self.time(Duration::from_secs(1_200));
        }
        write
    }
}

// Error numbers of Linux.
const EPROTO: i32 = 71;
const ENETUNREACH: i32 = 101;
/// The connection was reset.
pub(super) const ECONNRESET: i32 = 104;
const ETIMEDOUT: i32 = 110;
/// The connection was refused.
pub(super) const ECONNREFUSED: i32 = 111;
const EHOSTUNREACH: i32 = 113;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_kind_occurs_under_some_seeds_only() {
        for (place, (kind, _)) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(place, kind as usize, "in the order of the variants");
            let with = (0..100).filter(|seed| Faults::draw(*seed).kinds().contains(&kind)).count();
            assert!((25..75).contains(&with), "{kind:?} under {with} of 100 seeds");
        }
    }

    #[test]
    fn rates_hold_and_kinds_can_be_forced_or_excluded() {
        let mut faults = Faults::draw(1).with(Kind::Jerky, true).with(Kind::Crash, false);
        assert!((0..1_000).all(|_| faults.hits(Kind::Jerky)));
        let mut faults = faults.with(Kind::Swallow, true);
        assert!((0..10_000).all(|_| !faults.hits(Kind::Crash)));
        let hits = (0..10_000).filter(|_| faults.hits(Kind::Swallow)).count();
        assert!((2_700..3_300).contains(&hits), "{hits} of 10,000, expected 3,000");
    }
}
