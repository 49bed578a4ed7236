//! The website: static files, written from the database. Any web server hands them out.
//!
//! Three kinds of pages: those of each pass, the heavy ones of `site.interval`, and the history,
//! which is written once a day. Templates are in `templates/site`, assets in `assets`.
//!
//! Text of nodes is hostile: templates escape it, charts and JSON escape it themselves
//! (`text::escaped`, `text::json`), and the content security policy admits no script but ours.

mod data;
mod events;
mod frame;
mod history;
mod home;
mod nodes;
mod shards;
mod shares;
pub mod svg;
mod table;
pub mod text;
pub mod writer;

use std::fmt;
use std::path::Path;

use crate::commands::Failure;
use crate::config::{Config, Publish};
use crate::db::StoreError;
use crate::db::reader::Reader;
use crate::db::site::{Curves, SiteFacts};
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;

use self::frame::Context;
use self::shares::Lists;
use self::writer::{Directory, WriteError, WriteReport};

/// Why the website was not written.
#[derive(Debug)]
pub enum SiteError {
    /// The database.
    Store(StoreError),
    /// The directory.
    Write(WriteError),
    /// An export.
    Export(Failure),
}

impl fmt::Display for SiteError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Store(error) => error.fmt(f),
            Self::Write(error) => error.fmt(f),
            Self::Export(error) => error.fmt(f),
        }
    }
}

impl std::error::Error for SiteError {}

impl From<StoreError> for SiteError {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<WriteError> for SiteError {
    fn from(error: WriteError) -> Self {
        Self::Write(error)
    }
}

/// Which pages to write.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// All of them.
    All,
    /// Those that are due after a pass.
    Due,
}

/// The parts of the website that are due.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Due {
    heavy: bool,
    history: bool,
}

impl Due {
    /// What is due by the state that the last run left.
    fn of(directory: &Directory, scope: Scope, config: &Config, facts: &SiteFacts) -> Self {
        let same = |key: &str, value: &str| directory.state(key) == Some(value);
        // Another version, other keys or other excluded nodes: no old file stays.
        if scope == Scope::All || !same("made_by", &made_by(config, facts)) {
            return Self { heavy: true, history: true };
        }
        let at = facts.at.0.as_secs();
        let last = directory.state("heavy_at").and_then(|text| text.parse::<i64>().ok());
        let interval = i64::try_from(config.site.interval.as_secs()).unwrap_or(i64::MAX);
        // A clock that was set back: it was written in the future.
        let heavy = last.is_none_or(|last| at.saturating_sub(last) >= interval || at < last);
        Self { heavy, history: !same("history_day", &text::iso_day(at)) }
    }
}

/// What decides whether files of an earlier run may stay.
fn made_by(config: &Config, facts: &SiteFacts) -> String {
    let site = &config.site;
    let parts = [
        env!("BITDASH_VERSION"),
        site.publish.as_str(),
        &site.url,
        &site.title,
        &config.network.contact,
        &facts.hidden.to_string(),
    ];
    frame::hash(parts.join("\n").as_bytes())
}

/// Writes the website into a directory.
///
/// # Errors
/// The database cannot be read, or a file cannot be written: then the former files stay.
pub fn write(
    reader: &mut Reader,
    config: &Config,
    filter: &Filter,
    out: &Path,
    scope: Scope,
) -> Result<WriteReport, SiteError> {
    let mut directory = Directory::open(out)?;
    let is_published = |host, port| {
        let port = u16::try_from(port).unwrap_or(0);
        filter.admits_named(Address::new(host, port))
    };
    let facts = reader.site(&is_published)?;
    let due = Due::of(&directory, scope, config, &facts);
    let context = Context::new(config, &facts);
    frame::write_assets(&mut directory)?;
    let species = reader.curves("species")?;
    let status = reader.curves("status")?;
    write_light(reader, &context, (&species, &status), &mut directory)?;
    if due.heavy {
        write_heavy(reader, &context, filter, &mut directory)?;
        directory.set_state("heavy_at", facts.at.0.as_secs().to_string());
    } else {
        directory.keep(is_heavy);
    }
    write_dimensions(reader, &context, due, &mut directory)?;
    if due.history {
        directory.set_state("history_day", text::iso_day(facts.at.0.as_secs()));
    } else {
        directory.keep(|path| path.starts_with("data/history-"));
    }
    if due.heavy || due.history {
        data::write_page(&context, &mut directory)?;
    }
    directory.set_state("made_by", made_by(config, &facts));
    Ok(directory.finish()?)
}

/// The pages of each pass.
fn write_light(
    reader: &mut Reader,
    context: &Context,
    (species, status): (&Curves, &Curves),
    directory: &mut Directory,
) -> Result<(), SiteError> {
    directory.put("index.html", home::page(context, species, status).as_bytes())?;
    directory.put("history/index.html", history::page(context, species, status).as_bytes())?;
    directory.put("about/index.html", frame::about(context).as_bytes())?;
    directory.put("robots.txt", ROBOTS.as_bytes())?;
    if context.config.site.publish != Publish::Counts {
        directory.put("nodes/index.html", nodes::index(context).as_bytes())?;
        directory.put("data/nodes.dat", &table::packed(context))?;
        nodes::write_pages(reader, context, directory)?;
        events::write(context, directory)?;
    }
    Ok(())
}

/// The pages of `site.interval`.
fn write_heavy(
    reader: &mut Reader,
    context: &Context,
    filter: &Filter,
    directory: &mut Directory,
) -> Result<(), SiteError> {
    if context.config.site.publish == Publish::All {
        nodes::write_species(context, directory)?;
        shards::write(reader, context, directory)?;
        data::write_exports(reader, context, filter, directory)?;
    }
    Ok(())
}

/// The lists and downloads of each dimension, whose history is read once for both.
fn write_dimensions(
    reader: &mut Reader,
    context: &Context,
    due: Due,
    directory: &mut Directory,
) -> Result<(), SiteError> {
    let mut lists = Lists::default();
    for (dimension, _) in history::DIMENSIONS {
        let is_listed = due.heavy && Lists::has(context, dimension);
        if !is_listed && !due.history {
            continue;
        }
        let curves = reader.curves(dimension)?;
        if is_listed {
            lists.add(context, dimension, &curves);
        }
        if due.history {
            data::write_history(context, dimension, &curves, directory)?;
        }
    }
    if due.heavy {
        lists.write(context, directory)?;
    }
    Ok(())
}

fn is_heavy(path: &str) -> bool {
    const HEAVY: &[&str] = &["nodes/species/", "data/node/", "software/", "places/"];
    HEAVY.iter().any(|start| path.starts_with(start))
        || path == "node/index.html"
        || (path.starts_with("data/")
            && path != "data/nodes.dat"
            && !path.starts_with("data/history-"))
}

const ROBOTS: &str = "User-agent: *\nDisallow: /node/\nDisallow: /data/\n";
