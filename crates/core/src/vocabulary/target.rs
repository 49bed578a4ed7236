//! `Target`: an address to probe, and `ProbeResult`: what the probe found.
//!
//! Sans-I/O: plain data. A target is packed into 64 bits, since a pass queues a million of them.

use std::time::Duration;

use crate::vocabulary::address::Address;
use crate::vocabulary::outcome::Outcome;
use crate::vocabulary::time::UnixTime;

/// An address to probe, with flags for the queue and the probe.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Target(u64);

impl Target {
    /// Number of tiers, see [`Target::tier`].
    pub const TIERS: usize = 5;
    /// The tier of nodes.
    pub const NODES_TIER: usize = 1;
    /// The tier of candidates.
    pub const CANDIDATES_TIER: usize = 2;
    /// The tier of candidates on ports of other services.
    pub const AVOIDED_TIER: usize = 3;
    /// The last tier: candidates over their source's quota.
    pub const OVER_QUOTA_TIER: usize = 4;
    const NODE: u64 = 1 << 48;
    const WANT_PEERS: u64 = 1 << 49;
    const NAMED: u64 = 1 << 50;
    const OVER_QUOTA: u64 = 1 << 51;
    const FAILED: u64 = 1 << 52;
    const UP: u64 = 1 << 53;
    const REFERENCE: u64 = 1 << 54;
    /// Number of retries: two bits.
    const RETRY: u64 = 1 << 55;
    const UNASKED: u64 = 1 << 57;
    const FOLLOW_UP: u64 = 1 << 58;
    /// How long to wait for the connection, in eighths of a second; 0: as configured. Five bits.
    const PATIENCE_SHIFT: u32 = 59;

    /// A candidate: an address that has never responded. If it does, it gets a `getaddr`.
    pub fn candidate(address: Address) -> Self {
        Self(address.to_bits() | Self::WANT_PEERS)
    }

    /// A node: an address that has responded before.
    pub fn node(address: Address, want_peers: bool) -> Self {
        Self(address.to_bits() | Self::NODE | if want_peers { Self::WANT_PEERS } else { 0 })
    }

    /// Marks it as named in the nodes file: it is dialled first.
    pub fn named(self) -> Self {
        Self(self.0 | Self::NAMED)
    }

    /// Marks it as failed before: its next probe has full patience.
    pub fn failed(self) -> Self {
        Self(self.0 | Self::FAILED)
    }

    /// Marks it as beyond its source's quota: it is dialled last.
    pub fn over_quota(self) -> Self {
        Self(self.0 | Self::OVER_QUOTA)
    }

    /// Marks it as a node whose last probe responded.
    pub fn up(self) -> Self {
        Self(self.0 | Self::UP)
    }

    /// The same target for a retry after a doubtful result; `None` after three retries.
    pub fn retried(self) -> Option<Self> {
        (self.0 / Self::RETRY % 4 < 3).then(|| Self(self.0 + Self::RETRY))
    }

    /// The same target, given up after this time without a connection; as configured if it exceeds
    /// 3.8 s.
    pub fn with_patience(self, patience: Duration) -> Self {
        let eighths = patience.as_millis().div_ceil(125) as u64;
        let eighths = if eighths < 32 { eighths } else { 0 };
        Self(self.0 & !(31 << Self::PATIENCE_SHIFT) | eighths << Self::PATIENCE_SHIFT)
    }

    /// How long to wait for the connection; `None`: as configured.
    pub fn patience(self) -> Option<Duration> {
        let eighths = self.0 >> Self::PATIENCE_SHIFT;
        (eighths > 0).then(|| Duration::from_millis(eighths * 125))
    }

    /// Marks it as not asked for its peers, for lack of room.
    pub fn unasked(self) -> Self {
        Self(self.0 | Self::UNASKED)
    }

    /// Whether it responded and was not asked for its peers, for lack of room.
    pub fn is_unasked(self) -> bool {
        self.has(Self::UNASKED)
    }

    /// A second probe in a pass, of a node that responded and was not asked for its peers.
    pub fn follow_up(address: Address) -> Self {
        Self::node(address, true).up().with(Self::FOLLOW_UP)
    }

    /// Whether it is the second probe in a pass, which asks for the peers.
    pub fn is_follow_up(self) -> bool {
        self.has(Self::FOLLOW_UP)
    }

    /// Whether it is a candidate that was never probed, as far as is known.
    pub fn is_first_probe(self) -> bool {
        self.0 & (Self::NODE | Self::FAILED | Self::NAMED) == 0
    }

    /// A reference node: a handshake-only probe of the uplink, whose result is not recorded.
    pub fn reference(address: Address) -> Self {
        Self(address.to_bits() | Self::NODE | Self::REFERENCE)
    }

    /// The address to probe.
    pub fn address(self) -> Address {
        Address::from_bits(self.0)
    }

    /// Whether the address has responded before.
    pub fn is_node(self) -> bool {
        self.has(Self::NODE)
    }

    /// Whether to send `getaddr`.
    pub fn wants_peers(self) -> bool {
        self.has(Self::WANT_PEERS)
    }

    /// Its place in the order of a pass; 0 is first.
    pub fn tier(self) -> usize {
        let tiers = [
            (self.has(Self::NAMED), 0),
            (self.has(Self::NODE), Self::NODES_TIER),
            (self.has(Self::OVER_QUOTA), Self::OVER_QUOTA_TIER),
            (self.address().has_avoided_port(), Self::AVOIDED_TIER),
        ];
        let tier = tiers.into_iter().find(|(applies, _)| *applies);
        tier.map_or(Self::CANDIDATES_TIER, |(_, tier)| tier)
    }

    /// Whether it is a node whose last probe responded.
    pub fn is_up(self) -> bool {
        self.has(Self::UP)
    }

    /// Whether it is a probe of a reference node.
    pub fn is_reference(self) -> bool {
        self.has(Self::REFERENCE)
    }

    /// Whether the nodes file names the address.
    pub fn is_named(self) -> bool {
        self.has(Self::NAMED)
    }

    fn with(self, flag: u64) -> Self {
        Self(self.0 | flag)
    }

    fn has(self, flag: u64) -> bool {
        self.0 & flag != 0
    }
}

/// An IPv4 entry of an `addr` message.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Peer {
    /// The address that it names.
    pub address: Address,
    /// Its service bits, as the sender claims.
    pub services: u64,
    /// When it was last seen, as the sender claims, in seconds since 1970; 0 without a time.
    pub time: u32,
}

/// What a node claims in its `version`.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct VersionInfo {
    /// The protocol version, as sent.
    pub protocol_version: i32,
    /// The service bits.
    pub services: u64,
    /// The node's clock, in seconds since 1970, as sent.
    pub timestamp: i64,
    /// The user agent as escaped text (`watchglass::text`); `None` if the message ends before it.
    pub user_agent: Option<String>,
    /// The height of the node's chain; `None` if the message ends before it.
    pub start_height: Option<i32>,
    /// The relay byte; `None` if the message ends before it.
    pub relay: Option<bool>,
}

/// What a probe found. Every probe that ends returns exactly one.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct ProbeResult {
    /// The target that was probed.
    pub target: Target,
    /// How it ended.
    pub outcome: Outcome,
    /// When the outcome was known.
    pub probed_at: UnixTime,
    /// When the connection was initiated, on the monotonic clock.
    pub dialled_at: Duration,
    /// When the peer last gave a sign of life, on the monotonic clock. A refusal or an established
    /// connection counts; `None` without any.
    pub heard_at: Option<Duration>,
    /// Time from dialling to connected.
    pub connect_ms: Option<u32>,
    /// Time from connected to `version`.
    pub version_ms: Option<u32>,
    /// What the node claims; present exactly if the outcome is `responded`.
    pub version: Option<VersionInfo>,
    /// Number of entries received in reply to `getaddr`, non-IPv4 entries included; 0 if nothing
    /// came within the whole wait; `None` if it was not sent, or was cut off by either side before
    /// the reply was complete.
    pub peers_sent: Option<u32>,
    /// The IPv4 entries received, self-announcements included.
    pub peers: Vec<Peer>,
}
