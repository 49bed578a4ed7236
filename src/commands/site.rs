//! `bitdash site`: writes the website. The crawler runs it after each pass.

use std::path::PathBuf;

use crate::commands::{Failure, print};
use crate::config::ConfigSource;
use crate::db::reader::Reader;
use crate::site::{Scope, SiteError, text, write};

/// The arguments.
#[derive(Clone, PartialEq, Eq, Debug, clap::Args)]
pub struct Options {
    /// The directory, which is created if it is missing [default: site.dir]
    #[arg(short, long, value_name = "DIR")]
    pub out: Option<PathBuf>,
    /// Write only what is due after a pass: how the crawler runs it
    #[arg(long, hide = true)]
    pub due: bool,
}

/// Writes the website.
///
/// # Errors
/// There is no directory, the configuration is invalid, the database cannot be read, or a file
/// cannot be written.
pub fn run(source: &ConfigSource, options: &Options) -> Result<(), Failure> {
    let config = source.load()?;
    let Some(out) = options.out.as_ref().or(config.site.dir.as_ref()) else {
        let text = "no directory: set site.dir, or name one with --out DIR";
        return Err(Failure::Usage(text.to_owned()));
    };
    let filter = config.load_filter()?;
    let reader = Reader::open(config.database.url.expose());
    let mut reader = reader.map_err(|error| Failure::of_store(&error, source, &config))?;
    let scope = if options.due { Scope::Due } else { Scope::All };
    let written = write(&mut reader, &config, &filter, out, scope);
    let report = written.map_err(|error| match error {
        SiteError::Store(error) => Failure::of_store(&error, source, &config),
        SiteError::Write(error) => Failure::Failed(error.to_string()),
        SiteError::Export(failure) => failure,
    })?;
    print(&format!(
        "{}: {} files, {} written ({}), {} removed\n",
        out.display(),
        report.files,
        report.written,
        text::size(report.bytes),
        report.removed
    ))
}
