//! `bitdash config`: the effective configuration, checked and printed.

use super::{Failure, note, print};
use crate::config::{ConfigSource, URL_VARIABLE};
use crate::net::nodes_file::NodesFile;

/// Checks the configuration and its exclude files and prints it. A missing file and invalid lines
/// of the nodes file are only noted.
///
/// # Errors
/// The first error in the configuration.
pub fn run(source: &ConfigSource) -> Result<(), Failure> {
    let config = source.load()?;
    config.load_filter()?;
    let origin = match source.notice() {
        Some(notice) => {
            note(&notice);
            "the defaults".to_owned()
        }
        None => one_line(&source.path().display().to_string()),
    };
    match NodesFile::read(&config.crawl.nodes_file, config.network.port) {
        Ok(nodes) => nodes.complaints.iter().for_each(|complaint| note(complaint)),
        Err(error) => note(&error.to_string()),
    }
    let mut text = format!("# The effective configuration, from {origin}.\n");
    if source.url_from_environment() {
        text.push_str(&format!(
            "# database.url is from the environment variable {URL_VARIABLE}.\n"
        ));
    }
    text.push_str(&format!("# The user agent as sent: {}\n\n", config.sent_user_agent()));
    text.push_str(&config.to_toml());
    print(&text)
}

/// A file name for a comment: without newlines, which would end the comment.
fn one_line(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
