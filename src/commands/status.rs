//! `bitdash status`: what the database knows.

use super::{Failure, Place};
use crate::io::config::ConfigSource;

/// Prints the state of the crawl, or everything known of one address.
///
/// # Errors
/// Always: it is not built yet.
pub fn run(source: &ConfigSource, _place: Option<&Place>, _json: bool) -> Result<(), Failure> {
    source.load()?;
    Err(Failure::Failed("status is not built yet".to_owned()))
}
