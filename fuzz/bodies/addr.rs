//! Any payload of an `addr`: a decoded value round-trips.
//!
//! Input: the payload; or, after the bytes 0xff 0x47, a count of entries in units of five, their
//! layout, and bytes to repeat up to that length (a fuzzer cannot guess that of 1,001 entries).

use watchglass::{Addr, MAX_ADDR_TO_SEND};

pub fn run(data: &[u8]) {
    match data {
        [0xff, 0x47, count, layout, rest @ ..] => decode(&grown(*count, *layout, rest)),
        _ => decode(data),
    }
}

fn decode(payload: &[u8]) {
    let Ok(addr) = Addr::decode(payload) else { return };
    let read = addr.entries.len() + addr.skipped;
    assert_eq!(read as u64, addr.count.min(MAX_ADDR_TO_SEND as u64));
    assert!(addr.entries.capacity() <= MAX_ADDR_TO_SEND);
    assert!(read * 26 < payload.len() || read == 0);
    let is_timed = addr.entries.iter().any(|entry| entry.time.is_some());
    assert!(addr.entries.iter().all(|entry| entry.time.is_some() == is_timed), "one layout");
    let mut encoded = Vec::new();
    Addr::encode(&addr.entries, &mut encoded);
    let again = Addr::decode(&encoded).expect("encoded values decode");
    assert_eq!(again.entries, addr.entries);
    assert_eq!((again.count, again.skipped), (addr.entries.len() as u64, 0));
    if addr.skipped == 0 && addr.count <= MAX_ADDR_TO_SEND as u64 && !addr.entries.is_empty() {
        assert_eq!(encoded, payload);
    }
}

/// A payload of up to 1,275 entries that repeat `rest`.
fn grown(count: u8, layout: u8, rest: &[u8]) -> Vec<u8> {
    let count = usize::from(count) * 5;
    let entry = if layout.is_multiple_of(2) { 30 } else { 26 };
    let mut payload = match count {
        0..0xfd => vec![count as u8],
        _ => vec![0xfd, (count & 0xff) as u8, (count >> 8) as u8],
    };
    let end = payload.len() + count * entry;
    while !rest.is_empty() && payload.len() < end {
        payload.extend_from_slice(&rest[..rest.len().min(end - payload.len())]);
    }
    payload
}
