//! `bitdash crawl`: crawls, pass after pass.

use super::Failure;
use crate::io::config::ConfigSource;

/// Crawls until stopped, or until `passes` passes are finished.
///
/// # Errors
/// Always: it is not built yet.
pub fn run(source: &ConfigSource, _passes: Option<u64>) -> Result<(), Failure> {
    source.load()?;
    Err(Failure::Failed("crawl is not built yet".to_owned()))
}
