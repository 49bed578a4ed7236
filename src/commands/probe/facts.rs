//! Probe results as JSON: one object per address.
//!
//! Keys are named like the columns of the database; a field that the node did not send is null.
//! Numbers above 2^53, which JavaScript would round, are strings or accompanied by names.

use std::net::{Ipv4Addr, Ipv6Addr};

use serde::Serialize;

use super::Options;
use crate::commands::table::safe_json;
use crate::commands::visit::{Found, Row};
use crate::db::timestamp::Timestamp;
use bitdash_core::lookup::services;
use bitdash_core::vocabulary::target::{Peer, VersionInfo};
use bitdash_core::vocabulary::time::UnixTime;
use watchglass::{NetworkAddress, Version};

/// The facts about one address.
#[derive(Debug, Serialize)]
pub struct Facts {
    host: String,
    port: u16,
    name: Option<String>,
    outcome: Option<&'static str>,
    /// Why nothing was dialled.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
    probed_at: Option<Timestamp>,
    connect_ms: Option<u32>,
    version_ms: Option<u32>,
    species: Option<String>,
    release: Option<String>,
    #[serde(flatten)]
    version: VersionFacts,
    peers_sent: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    peers: Option<Vec<PeerFacts>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    trace: Option<Vec<StepFacts>>,
}

/// Largest number up to which a double holds every integer.
const MAX_EXACT: i64 = 1 << 53;

#[derive(Debug, Default, Serialize)]
struct VersionFacts {
    protocol_version: Option<i32>,
    /// Decimal: a double cannot hold 64 bits.
    services: Option<String>,
    service_names: Option<Vec<String>>,
    /// The node's clock in seconds since 1970: any 64 bits.
    time: Option<String>,
    /// Its lead over ours in seconds.
    time_offset_s: Option<i64>,
    addr_recv: Option<EndpointFacts>,
    addr_from: Option<EndpointFacts>,
    /// 16 hex digits.
    nonce: Option<String>,
    user_agent: Option<String>,
    /// In bytes, as sent.
    user_agent_length: Option<u64>,
    start_height: Option<i32>,
    relay: Option<bool>,
    trailing_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct EndpointFacts {
    host: String,
    port: u16,
    services: String,
}

#[derive(Debug, Serialize)]
struct PeerFacts {
    host: Ipv4Addr,
    port: u16,
    services: String,
    service_names: Vec<String>,
    /// Claimed time of its last contact, in seconds since 1970.
    time: Option<u32>,
    age_s: Option<i64>,
}

#[derive(Debug, Serialize)]
struct StepFacts {
    ms: f64,
    step: String,
}

impl Facts {
    /// The facts of a row; `options` select peers and trace.
    pub fn of(row: &Row, options: &Options) -> Self {
        let found = row.found.as_ref();
        let result = found.ok().map(|found| &found.result);
        let lineage = found.ok().and_then(|found| found.lineage.as_ref());
        let host = row.address.map_or_else(|| row.host.to_string(), |at| at.ip().to_string());
        Self {
            host,
            port: row.port,
            name: row.label(),
            outcome: row.outcome().map(|outcome| outcome.as_str()),
            error: found.err().cloned(),
            probed_at: result.map(|result| Timestamp(result.probed_at)),
            connect_ms: result.and_then(|result| result.connect_ms),
            version_ms: result.and_then(|result| result.version_ms),
            species: lineage.map(|lineage| lineage.species.to_string()),
            release: lineage.and_then(|lineage| lineage.release.clone()),
            version: found.ok().map_or_else(VersionFacts::default, VersionFacts::of),
            peers_sent: result.and_then(|result| result.peers_sent),
            peers: result.filter(|_| options.peers).map(|result| {
                result.peers.iter().map(|peer| PeerFacts::of(peer, result.probed_at)).collect()
            }),
            trace: found.ok().filter(|_| options.trace).map(StepFacts::of),
        }
    }

    /// One line of JSON, escaped for a terminal.
    pub fn to_line(&self) -> String {
        let json = serde_json::to_string(self).expect("all keys are strings");
        safe_json(&json) + "\n"
    }
}

impl VersionFacts {
    fn of(found: &Found) -> Self {
        let Some(info) = &found.result.version else { return Self::default() };
        let full = found.trace.version();
        let place = |address: Option<NetworkAddress>| address.map(EndpointFacts::of);
        Self {
            protocol_version: Some(info.protocol_version),
            services: Some(info.services.to_string()),
            service_names: Some(services::names(info.services)),
            time: Some(info.timestamp.to_string()),
            time_offset_s: Some(offset(info, found.result.probed_at).clamp(-MAX_EXACT, MAX_EXACT)),
            addr_recv: place(full.map(|version| version.addr_recv)),
            addr_from: place(full.and_then(|version| version.addr_from)),
            nonce: full.and_then(|version| version.nonce).map(|nonce| format!("{nonce:016x}")),
            user_agent: info.user_agent.clone(),
            user_agent_length: full.filter(has_agent).map(|version| version.user_agent_length),
            start_height: info.start_height,
            relay: info.relay,
            trailing_bytes: full.map(|version| version.trailing),
        }
    }
}

impl EndpointFacts {
    fn of(address: NetworkAddress) -> Self {
        Self {
            host: host_text(&address),
            port: address.port,
            services: address.services.to_string(),
        }
    }
}

impl PeerFacts {
    fn of(peer: &Peer, at: UnixTime) -> Self {
        Self {
            host: peer.address.ip(),
            port: peer.address.port(),
            services: peer.services.to_string(),
            service_names: services::names(peer.services),
            time: (peer.time != 0).then_some(peer.time),
            age_s: age(peer, at),
        }
    }
}

impl StepFacts {
    fn of(found: &Found) -> Vec<Self> {
        let steps = found.trace.steps.iter();
        steps
            .map(|step| Self {
                ms: step.at.as_micros() as f64 / 1_000.0,
                step: super::steps::text(&step.event),
            })
            .collect()
    }
}

/// Lead of the node's clock over ours in seconds.
pub fn offset(info: &VersionInfo, at: UnixTime) -> i64 {
    info.timestamp.saturating_sub(at.as_secs())
}

/// Claimed age of a peer in seconds; negative if in the future.
pub fn age(peer: &Peer, at: UnixTime) -> Option<i64> {
    (peer.time != 0).then(|| at.as_secs().saturating_sub(i64::from(peer.time)))
}

/// The IP address, as IPv4 if possible.
pub fn host_text(address: &NetworkAddress) -> String {
    match address.ipv4() {
        Some(ip) => ip.to_string(),
        None => Ipv6Addr::from(address.ip).to_string(),
    }
}

fn has_agent(version: &&Version) -> bool {
    version.user_agent.is_some()
}
