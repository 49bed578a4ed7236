//! Encodes the messages of simulated peers, including those that the crawler itself never sends.

use crate::network::gossip::Entry;
use crate::network::world::NodeSpec;
use watchglass::{Command, MAX_ADDR_TO_SEND, Magic, NetworkAddress, Version, encode_message};

/// A message of the main network; its command has at most 12 bytes.
pub(crate) fn message(command: &str, payload: &[u8]) -> Vec<u8> {
    let mut name = [0; 12];
    for (to, from) in name.iter_mut().zip(command.bytes()) {
        *to = from;
    }
    let mut out = Vec::new();
    encode_message(Magic::MAIN, Command(name), payload, &mut out);
    out
}

/// The `version` message of a node at wall clock time `wall`.
pub(crate) fn version(node: &NodeSpec, nonce: u64, wall: u32) -> Vec<u8> {
    let services = node.services;
    let mut payload = Vec::new();
    Version {
        timestamp: i64::from(wall) + i64::from(node.clock_offset),
        addr_from: Some(NetworkAddress { services, ip: [0; 16], port: 0 }),
        nonce: Some(nonce),
        ..node.claimed().version()
    }
    .encode(&mut payload);
    message("version", &payload)
}

/// The `addr` messages for these entries, concatenated.
pub(crate) fn addrs(entries: &[Entry], with_time: bool) -> Vec<u8> {
    let mut out = Vec::with_capacity(entries.len() * 30 + 64);
    for chunk in entries.chunks(MAX_ADDR_TO_SEND) {
        let mut payload = Vec::with_capacity(chunk.len() * 30 + 3);
        match u8::try_from(chunk.len()) {
            Ok(count @ 0..0xfd) => payload.push(count),
            _ => {
                payload.push(0xfd);
                payload.extend_from_slice(&(chunk.len() as u16).to_le_bytes());
            }
        }
        for entry in chunk {
            entry.encode(with_time, &mut payload);
        }
        out.extend_from_slice(&message("addr", &payload));
    }
    out
}

/// `getblocks` or `getheaders` from the genesis block on; the crawler does not answer them.
pub(crate) fn block_request(command: &str, protocol_version: i32) -> Vec<u8> {
    let mut payload = protocol_version.to_le_bytes().to_vec();
    payload.push(1);
    payload.extend_from_slice(&[0; 64]);
    message(command, &payload)
}
