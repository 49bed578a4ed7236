//! Any text as species.toml: one-line errors, or rules that classify any user agent.
//!
//! Input: the user agent up to the first line feed, then the file.

use bitdash_core::lookup::species::Rules;

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let (agent, file) = text.split_once('\n').unwrap_or((text, ""));
    match Rules::parse(file) {
        Ok(rules) => {
            for (protocol_version, services) in [(99_999, 1), (70_016, 3_081), (i32::MIN, !0)] {
                let lineage = rules.classify(Some(agent), protocol_version, services);
                let known = rules.species().iter().find(|known| known.word == lineage.species);
                assert!(known.is_some(), "{lineage:?}");
                let again = rules.release(&lineage.species, Some(agent));
                assert_eq!(again, lineage.release);
            }
        }
        Err(errors) => {
            assert!((1..=20).contains(&errors.len()));
            for error in errors {
                assert!(error.line <= file.lines().count() + 1, "{error}");
                let error = error.to_string();
                assert!(!error.chars().any(char::is_control), "{error:?}");
                assert!(error.len() < 500, "{error}");
            }
        }
    }
}
