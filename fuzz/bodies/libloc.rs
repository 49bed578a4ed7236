//! Any bytes as a database of libloc: it is refused, or every address is looked up in it, and what
//! it says is safe for the database and a terminal.
//!
//! Input: the file.

use bitdash::places::libloc::Libloc;

pub fn run(bytes: &[u8]) {
    let Ok(file) = Libloc::open(bytes) else { return };
    let is_safe = |text: &str| !text.chars().any(char::is_control) && text.chars().count() <= 100;
    for ip in [[0; 4], [127, 1, 2, 3], [127, 1, 200, 0], [127, 3, 0, 1], [128, 0, 0, 0], [255; 4]] {
        let place = file.look_up(ip.into());
        let is_code =
            |code: &String| code.len() == 2 && code.bytes().all(|b| b.is_ascii_uppercase());
        assert!(place.country.as_ref().is_none_or(is_code), "{place:?}");
        assert!(place.asn != Some(0) && place.as_name.as_deref().is_none_or(is_safe), "{place:?}");
        assert!(place.as_name.is_none() || place.asn.is_some(), "{place:?}");
    }
    let source = file.source();
    assert!(is_safe(&source.name) && source.licence.as_deref().is_none_or(is_safe), "{source:?}");
    assert!(source.built_at.as_secs() >= 0);
}
