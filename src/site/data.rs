//! Downloads, and the page that lists them with size, columns, licence and checksum.

use std::fmt::Write as _;
use std::fs;
use std::time::Duration;

use askama::Template;
use sha2::{Digest, Sha256};

use crate::commands::export::{Format, Layout, Options, export};
use crate::commands::table::csv_text;
use crate::db::reader::Reader;
use crate::db::site::{Curves, StepCount};
use crate::site::SiteError;
use crate::site::frame::{Context, Frame, hex, rendered};
use crate::site::history::DIMENSIONS;
use crate::site::table::gzip;
use crate::site::text::{interval, iso_day, size};
use crate::site::writer::{Directory, WriteError};
use bitdash_core::vocabulary::filter::Filter;

/// A download.
struct Download {
    path: &'static str,
    text: &'static str,
}

const EXPORTS: &[(Download, Format)] = &[
    (
        Download {
            path: "nodes.csv.gz",
            text: "Every node that is known, with its latest claims and results: address, host, port, name, status, species, \
                release, protocol_version, user_agent, services, service_names, start_height, relay, \
                connect_ms, version_ms, country, asn, as_name, first_seen, last_seen, last_probed, \
                last_outcome, failures, and up_day, up_week, up_month, up_all: the share of the passes \
                in which it answered or was full, from 0 to 1. Times are UTC. In user agents control \
                characters are \\xNN and a backslash is doubled.",
        },
        Format::Csv,
    ),
    (
        Download {
            path: "snapshot.json.gz",
            text: "Nodes up, in the layout of a Bitnodes snapshot: by address an array of protocol \
                version, user agent, time since which it is up, services, height, host name, city, \
                country, latitude, longitude, time zone, AS number and network. Times are Unix \
                seconds. What is not known is null, or 0.0 for coordinates.",
        },
        Format::Json,
    ),
    (
        Download {
            path: "seeds.dump.gz",
            text: "Every node, in the columns of bitcoin-seeder's dump, which Bitcoin Core's \
                makeseeds.py reads: address, whether it is good, last success in Unix seconds, \
                share of the passes of 2 hours, 8 hours, 1, 7 and 30 days, height, services in \
                hexadecimal, protocol version and user agent.",
        },
        Format::Seeds,
    ),
    (
        Download {
            path: "uainfo.json",
            text: "User agents with the number of nodes up, as an object: {\"/Satoshi:28.1.0/\": \
                {\"listening\": 190}}.",
        },
        Format::Uainfo,
    ),
];

/// Writes the exports of all nodes.
pub fn write_exports(
    reader: &mut Reader,
    context: &Context,
    filter: &Filter,
    directory: &mut Directory,
) -> Result<(), SiteError> {
    for (download, format) in EXPORTS {
        let options = Options { format: *format, out: "-".into(), layout: Layout::Map, at: None };
        let mut bytes = Vec::new();
        let write = &mut |text: &str| {
            bytes.extend_from_slice(text.as_bytes());
            Ok(true)
        };
        let port = context.config.network.port;
        export(reader, &options, port, filter, write).map_err(SiteError::Export)?;
        let is_packed = download.path.ends_with(".gz");
        let bytes = if is_packed { gzip(&bytes) } else { bytes };
        directory.put(&format!("data/{}", download.path), &bytes)?;
    }
    Ok(())
}

/// Writes the history of a dimension by days.
pub fn write_history(
    context: &Context,
    dimension: &str,
    curves: &Curves,
    directory: &mut Directory,
) -> Result<(), WriteError> {
    if curves.values.is_empty() && !context.site.has_places {
        return Ok(());
    }
    let csv = history_csv(curves);
    directory.put(&format!("data/{}", history_file(dimension)), &gzip(csv.as_bytes()))
}

fn history_file(dimension: &str) -> String {
    format!("history-{dimension}.csv.gz")
}

/// By value, and then by day: that compresses best. A day on which a value has no node is left out,
/// so the rows `(days)` without a number list all days with a pass. A node that says `(days)` has
/// numbers.
fn history_csv(curves: &Curves) -> String {
    let mut csv = String::from("value,day,nodes,lowest,highest\r\n");
    let dates: Vec<String> = curves.days.iter().map(|at| iso_day(*at)).collect();
    for date in &dates {
        let _ = write!(csv, "(days),{date},,,\r\n");
    }
    for (value, curve) in &curves.values {
        let value = cell(value);
        for StepCount { step, nodes, low, high } in &curve.days {
            let (low, high) = (*low as u32, *high as u32);
            let _ = write!(csv, "{value},{},", dates[*step]);
            write_mean(&mut csv, *nodes);
            let _ = write!(csv, ",{low},{high}\r\n");
        }
    }
    csv
}

/// With two decimals, without zeros at the end.
fn write_mean(csv: &mut String, mean: f32) {
    let hundredths = (f64::from(mean) * 100.0).round() as u32;
    let (whole, rest) = (hundredths / 100, hundredths % 100);
    let _ = match (rest, rest % 10) {
        (0, _) => write!(csv, "{whole}"),
        (_, 0) => write!(csv, "{whole}.{}", rest / 10),
        _ => write!(csv, "{whole}.{rest:02}"),
    };
}

/// A cell of RFC 4180.
fn cell(text: &str) -> String {
    let text = csv_text(text);
    if text.contains([',', '"', '\n', '\r']) {
        return format!("\"{}\"", text.replace('"', "\"\""));
    }
    text
}

struct FileRow {
    path: String,
    size: String,
    text: String,
    sum: String,
}

struct Group {
    id: &'static str,
    title: &'static str,
    files: Vec<FileRow>,
}

#[derive(Template)]
#[template(path = "site/data.html")]
struct Page<'a> {
    f: Frame<'a>,
    interval: String,
    groups: Vec<Group>,
}

/// Writes the page of the downloads, from the files as they are.
pub fn write_page(context: &Context, directory: &mut Directory) -> Result<(), WriteError> {
    let row = |path: String, text: String| {
        let bytes = fs::read(directory.path_of(&format!("data/{path}"))).ok()?;
        let sum = hex(&Sha256::digest(&bytes));
        Some(FileRow { path, size: size(bytes.len()), text, sum })
    };
    let exports = EXPORTS.iter().filter_map(|(download, _)| {
        let is_there = directory.has(&format!("data/{}", download.path));
        is_there.then(|| row(download.path.to_owned(), download.text.to_owned()))?
    });
    let history = DIMENSIONS.iter().filter_map(|(dimension, name)| {
        let file = history_file(dimension);
        let text = format!(
            "Nodes up by {name} and day (UTC): value, day, nodes (the mean of the day's passes), \
             lowest, highest. The rows (days) without a number list the days with a pass; a day \
             without a row of a value has none of its nodes. Values of few nodes are summed as \
             (other).{}",
            match *dimension {
                "country" | "asn" => " Empty until a pass has had places.",
                _ => "",
            }
        );
        directory.has(&format!("data/{file}")).then(|| row(file, text))?
    });
    let groups = [
        Group { id: "nodes", title: "Nodes", files: exports.collect() },
        Group { id: "history", title: "History", files: history.collect() },
    ];
    let page = Page {
        f: context.frame("../", "Data"),
        interval: match context.config.site.interval {
            Duration::ZERO => "pass".to_owned(),
            length => interval(length),
        },
        groups: groups.into_iter().filter(|group| !group.files.is_empty()).collect(),
    };
    directory.put("data/index.html", rendered(&page).as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::db::site::ValueCurve;

    #[test]
    fn the_history_is_csv_whatever_nodes_say() {
        let count = StepCount { step: 1, nodes: 2.5, low: 2.0, high: 3.0 };
        let curve = ValueCurve { days: vec![count], passes: Vec::new() };
        let curves = Curves {
            days: vec![0, 86_400],
            values: [("=1,\"x\"".to_owned(), curve)].into(),
            ..Curves::default()
        };
        let expected = "value,day,nodes,lowest,highest\r\n(days),1970-01-01,,,\r\n\
            (days),1970-01-02,,,\r\n\"'=1,\"\"x\"\"\",1970-01-02,2.5,2,3\r\n";
        assert_eq!(history_csv(&curves), expected);
    }
}
