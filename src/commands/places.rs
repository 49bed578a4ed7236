//! `bitdash places`: looks the nodes' countries and networks up. `crawl` runs it in a process of
//! its own after each pass: the files would take more memory than the crawl itself.

use bitdash_core::vocabulary::time::UnixTime;

use crate::commands::table::grouped;
use crate::commands::{Failure, note, print};
use crate::config::{Config, ConfigSource};
use crate::db::connect::connect_within;
use crate::db::places::{Filled, PlaceSource};
use crate::db::reader::TIMEOUT;
use crate::db::{StoreError, places, schema};
use crate::places::{self as files, Lookup};
use crate::sys::clock::Clock;

/// What was done.
pub struct Report {
    /// The nodes.
    pub filled: Filled,
    /// Where the places come from.
    pub sources: Vec<PlaceSource>,
    /// What an operator should know, a line each.
    pub warnings: Vec<String>,
    /// Whether no file could be used, although one is configured.
    pub is_without_files: bool,
}

/// Runs the command.
///
/// # Errors
/// The configuration is invalid, the database cannot be written, or no file can be used.
pub fn run(source: &ConfigSource) -> Result<(), Failure> {
    let config = source.load()?;
    let report = fill(&config, Clock::new().now().wall)
        .map_err(|error| Failure::of_store(&error, source, &config))?;
    if report.is_without_files {
        return Err(Failure::Failed(report.warnings.join("\nbitdash: ")));
    }
    report.warnings.iter().for_each(|warning| note(warning));
    print(&text(&report))
}

/// Fills the places of nodes from the files of the configuration, at the time `now`.
///
/// # Errors
/// The database is away, has no schema of this program, or cannot be written.
pub fn fill(config: &Config, now: UnixTime) -> Result<Report, StoreError> {
    let files = files::open(&config.geo, now);
    let mut client = connect_within(config.database.url.expose(), TIMEOUT)?;
    schema::check(&mut client)?;
    let filled = places::fill(&mut client, &files)?;
    let sources = places::sources(&mut client);
    let sources = sources.map_err(|error| StoreError::of_statement(&error, client.is_closed()))?;
    let mut warnings = files.warnings;
    warnings.extend(filled.error.clone());
    let is_unusable = |lookup: &Lookup| matches!(lookup, Lookup::Unusable);
    let is_file = |lookup: &Lookup| matches!(lookup, Lookup::File(_));
    let lookups = [&files.country, &files.network];
    Ok(Report {
        filled,
        sources,
        warnings,
        is_without_files: lookups.into_iter().any(is_unusable) && !lookups.into_iter().any(is_file),
    })
}

fn text(report: &Report) -> String {
    let Filled { looked_up, changed, deferred, .. } = report.filled;
    let mut text = format!("{} nodes looked up, {} changed", grouped(looked_up), grouped(changed));
    if deferred > 0 {
        text += &format!(", {} left for the next time", grouped(deferred));
    }
    text.push('\n');
    if report.sources.is_empty() {
        text += "no file: install libloc-database, or set geo.country_db and geo.asn_db\n";
    }
    for source in &report.sources {
        let what = if source.kind == "country" { "countries" } else { "networks" };
        let licence = source.licence.as_ref().map_or(String::new(), |text| format!(", {text}"));
        text += &format!("{what}: {} of {}{licence}\n", source.name, source.built_at.to_date());
    }
    text
}
