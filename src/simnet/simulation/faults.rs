//! `Faults`: what goes wrong in a simulated crawl, and how often.
//!
//! Layer 2: pure. Every kind has a rate of its own; a swarm of seeds tests more than one mixture would, since some
//! faults hide others: so each seed switches some kinds off.
//! Invariant: 1. the same seed and the same questions give the same answers.

use std::time::Duration;

use crate::crawl::outcome::Fault;

/// What can go wrong.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The far end refuses.
    Refuse,
    /// The attempt to connect is swallowed.
    Swallow,
    /// A router says that nobody is there.
    Unreachable,
    /// Connecting fails before the call returns.
    Instant,
    /// The far end accepts late, perhaps too late.
    SlowAccept,
    /// The far end accepts and resets.
    ResetAtOnce,
    /// Bytes come in pieces, late, and several messages at once.
    Jerky,
    /// Reading fails after some bytes.
    ReadBreaks,
    /// Writing fails after some bytes.
    WriteBreaks,
    /// No descriptor is left.
    Descriptors,
    /// No port is left.
    Ports,
    /// The kernel knows no way to one address.
    NoWay,
    /// A rule of our own host forbids one address.
    Forbidden,
    /// The loop wakes for nothing.
    Early,
    /// The loop is late: the machine is busy, or was asleep.
    Late,
    /// The writer's thread does nothing for a while.
    Stall,
    /// The writer's answers are late.
    LateAnswers,
    /// A transaction takes long.
    SlowWrite,
    /// The database goes away for a while.
    Down,
    /// One transaction fails.
    WriteFails,
    /// A transaction is committed, and the connection breaks before the reply.
    ReplyLost,
    /// Looking up names takes long, or gives nothing.
    NoNames,
    /// SIGHUP.
    Reload,
    /// The process dies.
    Crash,
    /// SIGTERM.
    Stop,
    /// The calendar jumps by an hour or so.
    HourJump,
    /// The calendar jumps by ten years.
    DecadeJump,
    /// Our own line is silent for a while.
    LineSilent,
    /// Our own line is down for a while, and the kernel knows.
    LineDown,
}

impl Kind {
    /// All of them, with the highest of their rates: in a million, for each time that it is asked about.
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
        (Self::LineSilent, 1_000),
        (Self::LineDown, 1_000),
    ];
}

/// The dice.
#[derive(Clone, Debug)]
pub struct Faults {
    rates: [u32; Kind::ALL.len()],
    hits: [u64; Kind::ALL.len()],
    rng: fastrand::Rng,
}

/// What becomes of an attempt to connect instead of what the network says.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Connect {
    Silence,
    /// The error with this number, after so long.
    Fails(Duration, i32),
    /// It is accepted so much later.
    Later(Duration),
}

/// What becomes of a transaction.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub(super) struct Write {
    /// So long it takes.
    pub(super) takes: Duration,
    /// during which nothing else is done.
    pub(super) blocks: bool,
    /// Whether it is committed,
    pub(super) commits: bool,
    /// at its beginning, as seen from here: the reply takes long,
    pub(super) commits_early: bool,
    /// and whether we hear that it was.
    pub(super) replies: bool,
    /// The database is away for so long afterwards.
    pub(super) away: Duration,
}

impl Write {
    /// Without any fault.
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
    /// Draws how often which kind happens; about half of them never.
    pub fn draw(seed: u64) -> Self {
        let mut rng = fastrand::Rng::with_seed(seed);
        let rates = Kind::ALL.map(|(_, most)| if rng.bool() { rng.u32(..=most) } else { 0 });
        Self { rates, hits: [0; Kind::ALL.len()], rng }
    }

    /// Draws with one kind alone, at its highest rate.
    pub fn only(kind: Kind, seed: u64) -> Self {
        let mut faults = Self::draw(seed);
        faults.rates = [0; Kind::ALL.len()];
        faults.with(kind, true)
    }

    /// How often each kind has happened.
    pub fn counts(&self) -> impl Iterator<Item = (Kind, u64)> {
        Kind::ALL.into_iter().zip(self.hits).map(|((kind, _), hits)| (kind, hits))
    }

    /// The same without one kind, or with it at its highest rate.
    pub fn with(mut self, kind: Kind, happens: bool) -> Self {
        if let (Some(rate), Some((_, most))) =
            (self.rates.get_mut(kind as usize), Kind::ALL.get(kind as usize))
        {
            *rate = if happens { *most } else { 0 };
        }
        self
    }

    /// The kinds that happen at all.
    pub fn kinds(&self) -> Vec<Kind> {
        let kinds = Kind::ALL.iter().zip(self.rates).filter(|(_, rate)| *rate > 0);
        kinds.map(|((kind, _), _)| *kind).collect()
    }

    /// Whether it happens now.
    pub fn hits(&mut self, kind: Kind) -> bool {
        let rate = self.rates.get(kind as usize).copied().unwrap_or(0);
        // Kinds that never happen cost no draw.
        let happens = rate > 0 && self.rng.u32(..1_000_000) < rate;
        if let Some(hits) = self.hits.get_mut(kind as usize) {
            *hits += u64::from(happens);
        }
        happens
    }

    /// The dice themselves.
    pub fn rng(&mut self) -> &mut fastrand::Rng {
        &mut self.rng
    }

    /// A time up to `longest`; short ones are as likely as long ones.
    pub fn time(&mut self, longest: Duration) -> Duration {
        let share = self.rng.f64();
        longest.mul_f64(share * share * share)
    }

    /// A fault of our own side that keeps a target from being dialled.
    pub(super) fn own_fault(&mut self) -> Option<Fault> {
        let faults = [
            (Kind::Descriptors, Fault::Descriptors),
            (Kind::Ports, Fault::Ports),
            (Kind::NoWay, Fault::Line),
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
            // Sometimes it is an error that, from a call of our own, would be a fault of our own side.
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

// Linux' numbers.
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
    fn every_kind_happens_under_some_seeds_and_never_under_others() {
        for (place, (kind, _)) in Kind::ALL.into_iter().enumerate() {
            assert_eq!(place, kind as usize, "in the order of the words");
            let with = (0..100).filter(|seed| Faults::draw(*seed).kinds().contains(&kind)).count();
            assert!((25..75).contains(&with), "{kind:?} under {with} of 100 seeds");
        }
    }

    #[test]
    fn rates_are_kept_and_a_kind_can_be_forced_or_forbidden() {
        let mut faults = Faults::draw(1).with(Kind::Jerky, true).with(Kind::Crash, false);
        assert!((0..1_000).all(|_| faults.hits(Kind::Jerky)));
        let mut faults = faults.with(Kind::Swallow, true);
        assert!((0..10_000).all(|_| !faults.hits(Kind::Crash)));
        let hits = (0..10_000).filter(|_| faults.hits(Kind::Swallow)).count();
        assert!((2_700..3_300).contains(&hits), "{hits} of 10,000 where 3,000 are due");
    }
}
