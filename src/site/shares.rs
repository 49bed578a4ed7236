//! Software and places: how many nodes have each version, user agent, country and network.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::sync::OnceLock;

use askama::Template;

use crate::config::Publish;
use crate::db::reader::NodeFacts;
use crate::db::site::Curves;
use crate::site::frame::{Context, Frame, rendered};
use crate::site::history::{changes, span, sparkline};
use crate::site::svg::bar;
use crate::site::text::{count, escaped, percent};
use crate::site::writer::{Directory, WriteError};

/// Maximum number of rows of a list.
const MAX_ROWS: usize = 300;
/// Maximum length of a user agent in a list.
const MAX_NAME: usize = 80;
/// Maximum number of rows with a curve.
const MAX_SPARKS: usize = 100;
/// Radius of the largest circle of the map.
const MAX_RADIUS: f32 = 30.0;

/// A value and its share.
pub struct ShareRow {
    pub key: String,
    pub name: String,
    pub link: String,
    pub up: usize,
    pub bar: String,
    pub count: String,
    pub share: String,
    pub day: String,
    pub year: String,
    pub spark: String,
}

/// A list of values.
pub struct Section {
    pub id: &'static str,
    /// Its dimension in the history.
    pub dimension: &'static str,
    pub title: &'static str,
    pub head: &'static str,
    pub note: String,
    pub is_mono: bool,
    pub rows: Vec<ShareRow>,
    pub more: &'static str,
    pub more_text: &'static str,
}

impl Section {
    /// Whether any row has a curve.
    fn has_sparks(&self) -> bool {
        self.rows.iter().any(|row| !row.spark.is_empty())
    }
}

/// Counts the values of nodes up, the most frequent first.
fn section(
    context: &Context,
    filter: &str,
    key: impl Fn(&NodeFacts) -> Option<String>,
    name: impl Fn(&str) -> String,
    section: Section,
) -> Section {
    let mut counts: HashMap<String, usize> = HashMap::new();
    let mut up = 0;
    for node in context.up() {
        up += 1;
        if let Some(key) = key(&node.facts) {
            *counts.entry(key).or_default() += 1;
        }
    }
    let mut counts: Vec<(String, usize)> = counts.into_iter().collect();
    counts.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(&b.0)));
    let most = counts.first().map_or(1, |(_, count)| *count);
    let number = counts.len();
    let counted: usize = counts.iter().map(|(_, count)| count).sum();
    let has_table = context.config.site.publish == Publish::All;
    let row = |(key, up_here): (String, usize)| ShareRow {
        name: name(&key),
        link: match has_table {
            true => format!("nodes/?{filter}={}", encoded(&key)),
            false => String::new(),
        },
        up: up_here,
        bar: bar(up_here as f32 / most as f32),
        count: count(up_here),
        share: percent(up_here, up),
        day: String::new(),
        year: String::new(),
        spark: String::new(),
        key,
    };
    let rows: Vec<ShareRow> = counts.into_iter().take(MAX_ROWS).map(row).collect();
    let mut note = match number > MAX_ROWS {
        true => format!("the first {MAX_ROWS} of {}", count(number)),
        false => count(number),
    };
    if counted < up {
        let _ = write!(note, "; {} of {} nodes have none", count(up - counted), count(up));
    }
    Section { note, rows, ..section }
}

/// For the query of a link.
fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            out.push(char::from(byte));
        } else {
            let _ = write!(out, "%{byte:02X}");
        }
    }
    out
}

const EMPTY: Section = Section {
    id: "",
    dimension: "",
    title: "",
    head: "",
    note: String::new(),
    is_mono: false,
    rows: Vec::new(),
    more: "",
    more_text: "",
};

/// Versions of nodes up.
pub fn by_release(context: &Context) -> Section {
    let empty = Section {
        id: "release",
        dimension: "release",
        title: "Versions",
        head: "Version",
        more: "software/",
        more_text: "All versions and user agents",
        ..EMPTY
    };
    section(context, "release", |node| node.release.clone(), str::to_owned, empty)
}

/// User agents of nodes up.
pub fn by_agent(context: &Context) -> Section {
    let empty = Section {
        id: "agent",
        dimension: "user_agent",
        title: "User agents",
        head: "User agent",
        more: "software/#agent",
        more_text: "All user agents",
        is_mono: true,
        ..EMPTY
    };
    let name = |agent: &str| match agent.char_indices().nth(MAX_NAME) {
        _ if agent.is_empty() => "(empty)".to_owned(),
        _ if agent.trim().is_empty() => "(blank)".to_owned(),
        Some((end, _)) => format!("{}…", &agent[..end]),
        None => agent.to_owned(),
    };
    section(context, "agent", |node| node.user_agent.clone(), name, empty)
}

/// Countries of nodes up.
pub fn by_country(context: &Context) -> Section {
    let empty = Section {
        id: "country",
        dimension: "country",
        title: "Countries",
        head: "Country",
        more: "places/",
        more_text: "All countries",
        ..EMPTY
    };
    section(context, "country", |node| node.country.clone(), country, empty)
}

/// Networks of nodes up.
pub fn by_network(context: &Context) -> Section {
    let empty = Section {
        id: "network",
        dimension: "asn",
        title: "Networks",
        head: "Network",
        more: "places/#network",
        more_text: "All networks",
        ..EMPTY
    };
    let names: HashMap<String, &str> = context
        .up()
        .filter_map(|node| Some((node.facts.asn?.to_string(), node.facts.as_name.as_deref()?)))
        .collect();
    let name = |asn: &str| match names.get(asn) {
        Some(name) => format!("{name} (AS{asn})"),
        None => format!("AS{asn}"),
    };
    section(context, "network", |node| node.asn.map(|asn| asn.to_string()), name, empty)
}

#[derive(Template)]
#[template(path = "site/shares.html")]
struct Page<'a> {
    f: Frame<'a>,
    title: &'a str,
    lead: &'a str,
    map: String,
    span: String,
    sections: Vec<Section>,
}

/// The lists of the pages of software and places, each with the history of its dimension.
#[derive(Default)]
pub struct Lists {
    software: List,
    places: List,
}

#[derive(Default)]
struct List {
    span: String,
    sections: Vec<Section>,
}

impl Lists {
    /// Whether a dimension has a list.
    pub fn has(context: &Context, dimension: &str) -> bool {
        match dimension {
            "release" | "user_agent" => true,
            "country" | "asn" => context.site.has_places,
            _ => false,
        }
    }

    /// Adds the list of a dimension.
    pub fn add(&mut self, context: &Context, dimension: &str, curves: &Curves) {
        let (page, section) = match dimension {
            "release" => (&mut self.software, by_release(context)),
            "user_agent" => (&mut self.software, by_agent(context)),
            "country" => (&mut self.places, by_country(context)),
            _ => (&mut self.places, by_network(context)),
        };
        page.sections.push(with_history(section, curves));
        page.span = span(curves);
    }

    /// Writes the pages.
    pub fn write(self, context: &Context, directory: &mut Directory) -> Result<(), WriteError> {
        let page = Page {
            f: context.frame("../", "Software"),
            title: "Software",
            lead: "Versions and user agents of the nodes that are up. A user agent is what a node says: anyone can write anything there.",
            map: String::new(),
            span: self.software.span,
            sections: self.software.sections,
        };
        directory.put("software/index.html", rendered(&page).as_bytes())?;
        if !context.site.has_places {
            return Ok(());
        }
        let page = Page {
            f: context.frame("../", "Places"),
            title: "Places",
            lead: "Countries and networks of the nodes that are up, by their addresses. An address says where a machine is registered, not where its owner is.",
            map: map(context),
            span: self.places.span,
            sections: self.places.sections,
        };
        directory.put("places/index.html", rendered(&page).as_bytes())
    }
}

fn with_history(mut section: Section, curves: &Curves) -> Section {
    for (index, row) in section.rows.iter_mut().enumerate() {
        [row.day, row.year] = changes(curves, &row.key, i64::try_from(row.up).unwrap_or(i64::MAX));
        let is_counted = curves.values.contains_key(&row.key);
        if !is_counted {
            // Rare values count as (other).
            row.day = "–".to_owned();
            row.year = "–".to_owned();
        } else if index < MAX_SPARKS {
            row.spark = sparkline(curves, &row.key);
        }
    }
    section
}

/// The name of a country.
pub fn country(code: &str) -> String {
    static NAMES: OnceLock<HashMap<&str, &str>> = OnceLock::new();
    let names = NAMES.get_or_init(|| {
        include_str!("assets/names.tsv").lines().filter_map(|line| line.split_once('\t')).collect()
    });
    names.get(code).map_or_else(|| code.to_owned(), |name| (*name).to_owned())
}

/// The world with a circle for each country, whose area is the number of nodes up.
///
/// `land.path` is the land of Natural Earth (1:110m, public domain) in the projection of that name:
/// `scripts/land-path.js` makes it. `centroids.tsv` has the middle of each country's largest part,
/// projected likewise.
pub fn map(context: &Context) -> String {
    static PLACES: OnceLock<HashMap<&str, (f32, f32)>> = OnceLock::new();
    let places = PLACES.get_or_init(|| {
        let line = |line: &'static str| {
            let mut cells = line.split('\t');
            let code = cells.next()?;
            Some((code, (cells.next()?.parse().ok()?, cells.next()?.parse().ok()?)))
        };
        include_str!("assets/centroids.tsv").lines().filter_map(line).collect()
    });
    let section = by_country(context);
    let most = section.rows.first().map_or(1, |row| row.up) as f32;
    let mut svg = format!(
        "<svg class=\"map\" viewBox=\"30 10 660 300\" role=\"img\" aria-label=\"World map of nodes up by country; the table of countries has the same figures\"><path class=\"land\" d=\"{}\"/>",
        include_str!("assets/land.path").trim()
    );
    for row in &section.rows {
        let Some((x, y)) = places.get(row.key.as_str()) else { continue };
        let radius = (MAX_RADIUS * (row.up as f32 / most).sqrt()).max(1.2);
        let _ = write!(
            svg,
            "<circle cx=\"{x}\" cy=\"{y}\" r=\"{radius:.1}\"><title>{}: {}</title></circle>",
            escaped(&row.name),
            row.count
        );
    }
    svg + "</svg>"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_country_of_the_map_has_a_name() {
        for line in include_str!("assets/centroids.tsv").lines() {
            let code = line.split('\t').next().unwrap();
            assert_eq!(code.len(), 2, "{line}");
            assert_ne!(country(code), code, "{line}");
        }
    }

    #[test]
    fn a_link_holds_any_value() {
        assert_eq!(encoded("Core 28&x=\"<"), "Core%2028%26x%3D%22%3C");
    }
}
