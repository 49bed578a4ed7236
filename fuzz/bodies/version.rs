//! Any payload of a `version`: a decoded value round-trips, and its text form is printable.
//!
//! Input: the payload.

use bitdash_core::lookup::species::{Rules, getaddr_timing};
use watchglass::{Version, text};

/// The end of `addr_recv`, the last mandatory field.
const MIN_LENGTH: usize = 46;

pub fn run(payload: &[u8]) {
    let Ok(version) = Version::decode(payload) else { return };
    assert!(payload.len() >= MIN_LENGTH);
    let is_whole = version.trailing == 0 && version.user_agent_length <= 256;
    let mut encoded = Vec::new();
    version.encode(&mut encoded);
    if is_whole {
        assert_eq!(encoded.len(), payload.len());
        // All bytes round-trip, except a relay byte that is neither 0 nor 1.
        let same = encoded.len() - usize::from(version.relay.is_some());
        assert_eq!(encoded[..same], payload[..same]);
    }
    let again = Version::decode(&encoded).expect("encoded values decode");
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
    assert!(known.is_sorted_by(|earlier, later| earlier >= later), "a field after an absent one");
    assert!(version.trailing == 0 || version.relay.is_some());
    // A truncated payload is that of an older node or an error, never a panic.
    for end in (MIN_LENGTH..payload.len().min(400)).rev().step_by(13) {
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
    let rules = Rules::builtin();
    let lineage = rules.classify(agent.as_deref(), version.version, version.services);
    let word = lineage.species;
    assert!(rules.species().iter().any(|species| species.word == word), "{word}");
    assert!(lineage.release.is_none_or(|release| release.starts_with(&*word)));
    let _ = getaddr_timing(agent.as_deref(), version.version);
}
