//! Any text as `bitdash.toml`: a one-line error, or a configuration that round-trips.
//!
//! Input: the file.

use std::path::Path;

use bitdash::config::Config;

pub fn run(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    match Config::parse(text, "bitdash.toml", Path::new("/somewhere")) {
        Ok(config) => {
            let written = config.to_toml();
            assert!(written.contains("\n[database]\n"));
            // If the password cannot be located, the whole URL is masked and does not round-trip.
            if config.database.url.to_string() == "***" {
                return;
            }
            let again = Config::parse(&written, "bitdash.toml", Path::new("/somewhere"));
            let again = again.unwrap_or_else(|error| panic!("{error}\n{written}"));
            assert_eq!(again.to_toml(), written);
            assert!(!config.sent_user_agent().is_empty());
        }
        Err(error) => {
            let error = error.to_string();
            assert!(!error.chars().any(char::is_control), "{error:?}");
            assert!(error.len() < 2_000, "{error}");
        }
    }
}
