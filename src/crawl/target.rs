//! `Target`: one address to be probed, and what came back of it: plain data.
//!
//! Layer 1: no I/O. A target is packed into 64 bits, since a pass queues a million of them.

use std::time::Duration;

use crate::crawl::address::Address;
use crate::crawl::outcome::Outcome;
use crate::crawl::time::UnixTime;

/// An address to probe, with what the probe needs to know of it.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target(u64);

impl Target {
    /// How many values [`Target::tier`] has.
    pub const TIERS: usize = 6;
    /// The tier of nodes.
    pub const NODES_TIER: usize = 1;
    /// The first of the tiers of candidates.
    pub const FIRST_CANDIDATES: usize = 2;
    /// The last tier.
    pub const OVER_QUOTA_TIER: usize = 5;
    const NODE: u64 = 1 << 48;
    const WANT_PEERS: u64 = 1 << 49;
    const NAMED: u64 = 1 << 50;
    const CONFIRMED: u64 = 1 << 51;
    const OVER_QUOTA: u64 = 1 << 52;
    const FAILED: u64 = 1 << 53;
    const UP: u64 = 1 << 54;
    const WITNESS: u64 = 1 << 55;
    /// How often it was tried again: two bits.
    const RETRY: u64 = 1 << 56;

    /// A candidate: an address that has never answered. It is asked for its peers if it does.
    pub fn candidate(address: Address) -> Self {
        Self(address.to_bits() | Self::WANT_PEERS)
    }

    /// A node: an address that has answered before.
    pub fn node(address: Address, want_peers: bool) -> Self {
        Self(address.to_bits() | Self::NODE | if want_peers { Self::WANT_PEERS } else { 0 })
    }

    /// The same target with the mark of a named node: it goes first.
    pub fn named(self) -> Self {
        Self(self.0 | Self::NAMED)
    }

    /// The same target with the mark that several unrelated sources named it.
    pub fn confirmed(self) -> Self {
        Self(self.0 | Self::CONFIRMED)
    }

    /// The same target with the mark that it failed before: of the candidates the least likely to answer, and so
    /// what fills the time while the last new nodes send their peers.
    pub fn failed(self) -> Self {
        Self(self.0 | Self::FAILED)
    }

    /// The same target with the mark that its source has named more than its quota: it goes last.
    pub fn over_quota(self) -> Self {
        Self(self.0 | Self::OVER_QUOTA)
    }

    /// The same node with the mark that it responded when it was probed last.
    pub fn up(self) -> Self {
        Self(self.0 | Self::UP)
    }

    /// The same target, to be tried again because its result was doubtful: at most three times.
    pub fn retried(self) -> Option<Self> {
        (self.0 / Self::RETRY < 3).then(|| Self(self.0 + Self::RETRY))
    }

    /// A node that is greeted only to learn whether our own line works: its result is not recorded.
    pub fn witness(address: Address) -> Self {
        Self(address.to_bits() | Self::NODE | Self::WITNESS)
    }

    /// The address.
    pub fn address(self) -> Address {
        Address::from_bits(self.0)
    }

    /// Whether the address has answered before.
    pub fn is_node(self) -> bool {
        self.0 & Self::NODE != 0
    }

    /// Whether `getaddr` is due.
    pub fn wants_peers(self) -> bool {
        self.0 & Self::WANT_PEERS != 0
    }

    /// How soon it goes within a pass; 0 is first.
    pub fn tier(self) -> usize {
        let has = |mark| self.0 & mark != 0;
        match () {
            () if has(Self::NAMED) => 0,
            () if has(Self::NODE) => 1,
            () if has(Self::OVER_QUOTA) => 5,
            () if has(Self::FAILED) => 4,
            () if has(Self::CONFIRMED) => 2,
            () => 3,
        }
    }

    /// Whether it is a node that responded when it was probed last.
    pub fn is_up(self) -> bool {
        self.0 & Self::UP != 0
    }

    /// Whether it is greeted only to learn whether our own line works.
    pub fn is_witness(self) -> bool {
        self.0 & Self::WITNESS != 0
    }

    /// Whether a person named the address in the nodes file.
    pub fn is_named(self) -> bool {
        self.0 & Self::NAMED != 0
    }
}

/// One entry of an `addr` message that names an IPv4 address.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The address.
    pub address: Address,
    /// The service bits that the sender claims for it.
    pub services: u64,
    /// When the sender claims to have seen it, in seconds since 1970; 0 where the entry has no time.
    pub time: u32,
}

/// What a node said of itself in its `version`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VersionInfo {
    /// The protocol version, as sent.
    pub protocol_version: i32,
    /// The service bits.
    pub services: u64,
    /// The node's clock, in seconds since 1970, as sent.
    pub timestamp: i64,
    /// The user agent as trusted text (`watchglass::text`); `None` where the message ends before it.
    pub user_agent: Option<String>,
    /// The height of the node's chain; `None` where the message ends before it.
    pub start_height: Option<i32>,
    /// The relay byte; `None` where the message ends before it.
    pub relay: Option<bool>,
}

/// All that a probe found out. Exactly one comes of every probe that ended.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeResult {
    /// What was probed.
    pub target: Target,
    /// How it ended.
    pub outcome: Outcome,
    /// When the outcome was known.
    pub probed_at: UnixTime,
    /// When the connection was begun, on the monotonic clock.
    pub dialled_at: Duration,
    /// When anything came from the other side last, a refusal or a mere connection included, on the monotonic
    /// clock; `None` if nothing ever did.
    pub heard_at: Option<Duration>,
    /// From dialling to connected.
    pub connect_ms: Option<u32>,
    /// From connected to `version`.
    pub version_ms: Option<u32>,
    /// What the node said; present exactly where the outcome is `responded`.
    pub version: Option<VersionInfo>,
    /// How many entries came in reply to `getaddr`, those that are not IPv4 included; `None` if it was
    /// not asked, or if we hung up before the reply was due.
    pub peers_sent: Option<u32>,
    /// The IPv4 addresses among all entries received, self-announcements included.
    pub peers: Vec<Peer>,
}
