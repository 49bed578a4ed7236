//! `bitdash config`: the effective configuration, checked and printed.

use std::fs::OpenOptions;
use std::path::Path;

use super::{Failure, note, print};
use crate::config::{ConfigSource, DEFAULT_FILES, FILE_VARIABLE, URL_VARIABLE};
use crate::net::nodes_file::NodesFile;
use crate::sys::text_file::cause;

/// Checks the configuration, its exclude files and the rules of species, and prints it. Invalid
/// lines of the nodes file are only noted.
///
/// # Errors
/// The first error in the configuration.
pub fn run(source: &ConfigSource) -> Result<(), Failure> {
    let config = source.load()?;
    config.load_filter()?;
    let species = source.load_species()?;
    let origin = match source.notice() {
        Some(notice) => {
            note(&notice);
            "the defaults".to_owned()
        }
        None => {
            let path = source.path().map(|path| path.display().to_string());
            one_line(&path.unwrap_or_default())
        }
    };
    if let Some(problem) = config.log.file.as_deref().and_then(log_problem) {
        note(&problem);
    }
    match NodesFile::read(&config.crawl.nodes_file, config.network.port) {
        Ok(nodes) => {
            nodes.complaints.iter().chain(&nodes.repetitions).for_each(|message| note(message));
        }
        Err(error) => return Err(Failure::of_nodes_file(&error, source, &config)),
    }
    let mut text = format!(
        "# The effective configuration, from {origin}.\n# Tried: -c FILE, ${FILE_VARIABLE}, {}.\n",
        DEFAULT_FILES.join(", ")
    );
    if source.url_from_environment() {
        text.push_str(&format!(
            "# database.url is from the environment variable {URL_VARIABLE}.\n"
        ));
    }
    let rules = match &species.file {
        Some(file) => one_line(&file.display().to_string()),
        None => format!("built in, no {}", one_line(&source.species_file().display().to_string())),
    };
    text.push_str(&format!("# The rules of species, {}: {rules}\n", species.rules.count()));
    text.push_str(&format!("# The user agent as sent: {}\n\n", config.sent_user_agent()));
    text.push_str(&config.to_toml());
    print(&text)
}

/// Why the log could not be written to this file by this user.
fn log_problem(file: &Path) -> Option<String> {
    let opened = if file.exists() {
        OpenOptions::new().append(true).open(file).map(drop)
    } else {
        let directory = file.parent().filter(|directory| *directory != Path::new(""));
        std::fs::read_dir(directory.unwrap_or(Path::new("."))).map(drop)
    };
    let error = opened.err()?;
    Some(format!("warning: log.file {} cannot be written: {}", file.display(), cause(&error)))
}

/// A file name for a comment: without newlines, which would end the comment.
fn one_line(name: &str) -> String {
    name.chars().map(|c| if c.is_control() { '?' } else { c }).collect()
}
