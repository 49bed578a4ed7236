//! The bytes of what simulated nodes say.
//!
//! Layer 2: pure. Only here, messages are put together that the crawler itself never sends.

use crate::simnet::knowledge::Entry;
use crate::simnet::world::NodeSpec;
use crate::watchglass::{
    Command, MAX_ADDR_TO_SEND, Magic, NetworkAddress, Version, encode_message,
};

/// A message with this command, of at most twelve bytes, in the main network's frame.
pub(super) fn message(command: &str, payload: &[u8]) -> Vec<u8> {
    let mut name = [0; 12];
    for (to, from) in name.iter_mut().zip(command.bytes()) {
        *to = from;
    }
    let mut out = Vec::new();
    encode_message(Magic::MAIN, Command(name), payload, &mut out);
    out
}

/// A node's `version`, at calendar time `wall`.
pub(super) fn version(node: &NodeSpec, nonce: u64, wall: u32) -> Vec<u8> {
    let mut payload = Vec::new();
    Version {
        version: node.protocol_version,
        services: node.services,
        timestamp: i64::from(wall) + i64::from(node.clock_offset),
        addr_recv: NetworkAddress::UNSPECIFIED,
        addr_from: Some(NetworkAddress { services: node.services, ip: [0; 16], port: 0 }),
        nonce: Some(nonce),
        user_agent: Some(node.user_agent.clone()),
        user_agent_length: node.user_agent.len() as u64,
        start_height: Some(node.start_height),
        relay: node.relay,
        trailing: 0,
    }
    .encode(&mut payload);
    message("version", &payload)
}

/// As many `addr` messages as the entries need, back to back.
pub(super) fn addrs(entries: &[Entry], with_time: bool) -> Vec<u8> {
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

/// `getblocks` or `getheaders` from the genesis block on: nobody answers them here.
pub(super) fn block_request(command: &str, protocol_version: i32) -> Vec<u8> {
    let mut payload = protocol_version.to_le_bytes().to_vec();
    payload.push(1);
    payload.extend_from_slice(&[0; 64]);
    message(command, &payload)
}
