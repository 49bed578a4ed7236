//! Any payload of a `version`: what decodes encodes to bytes that decode to the same, and its text is clean.
//!
//! Input: the payload.

use bitdash::lookup::species::{ALL, manner, species};
use bitdash::watchglass::{Version, text};

/// Up to the end of `addr_recv`, without which there is no `version`.
const SHORTEST: usize = 46;

pub fn run(payload: &[u8]) {
    let Ok(version) = Version::decode(payload) else { return };
    assert!(payload.len() >= SHORTEST);
    let is_whole = version.trailing == 0 && version.user_agent_length <= 256;
    let mut encoded = Vec::new();
    version.encode(&mut encoded);
    if is_whole {
        assert_eq!(encoded.len(), payload.len());
        // All bytes come back, but for those of a relay byte that is neither 0 nor 1.
        let same = encoded.len() - usize::from(version.relay.is_some());
        assert_eq!(encoded[..same], payload[..same]);
    }
    let again = Version::decode(&encoded).expect("what was encoded decodes");
    let kept = version.user_agent.as_ref().map_or(0, Vec::len) as u64;
    assert_eq!(kept, version.user_agent_length.min(256));
    assert_eq!(again, Version { trailing: 0, user_agent_length: kept, ..version.clone() });
    let known = [
        version.addr_from.is_some(),
        version.nonce.is_some(),
        version.user_agent.is_some(),
        version.start_height.is_some(),
        version.relay.is_some(),
    ];
    assert!(known.is_sorted_by(|earlier, later| earlier >= later), "a field after one that is not");
    assert!(version.trailing == 0 || version.relay.is_some());
    // A payload that stops anywhere is an older one or a broken one, never a panic.
    for end in (SHORTEST..payload.len().min(400)).rev().step_by(13) {
        if let Ok(shorter) = Version::decode(&payload[..end]) {
            assert_eq!((shorter.version, shorter.services), (version.version, version.services));
        }
    }
    let agent = version.user_agent.as_deref().map(text::from_bytes);
    if let Some(agent) = &agent {
        assert!(agent.bytes().all(|byte| matches!(byte, 0x20..=0x7e)), "{agent:?}");
        assert!(agent.len() <= 4 * 256);
        assert_eq!(text::to_bytes(agent).as_deref(), version.user_agent.as_deref());
    }
    let word = species(agent.as_deref(), version.version, version.services);
    assert!(ALL.contains(&word), "{word}");
    let _ = manner(agent.as_deref(), version.version);
}
