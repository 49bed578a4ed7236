//! `bitdash export`: the nodes in formats of other programs.
//!
//! Rows are streamed: memory grows by a few bytes per node. A file appears whole or not at all.

use std::fmt::Write as _;
use std::io::Write as _;
use std::path::{Path, PathBuf};

use clap::{ValueEnum, ValueHint};
use serde_json::{Value, json};

use crate::commands::table::{csv_text, safe_json};
use crate::commands::{Failure, print_on};
use crate::config::ConfigSource;
use crate::db::export::{AgentCount, ExportQuery, ExportRow, ExportTotals, Exported, Period};
use crate::db::reader::Reader;
use crate::db::timestamp::Timestamp;
use crate::sys::atomic_file::AtomicFile;
use bitdash_core::lookup::services;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::Filter;

/// The arguments.
#[derive(Clone, PartialEq, Eq, Debug, clap::Args)]
pub struct Options {
    /// The format
    #[arg(value_name = "FORMAT", value_enum)]
    pub format: Format,
    /// The file to write, which is replaced as a whole; - is standard output
    #[arg(short, long, value_name = "FILE", default_value = "-", value_hint = ValueHint::FilePath)]
    pub out: PathBuf,
    /// Nodes that were up at this time, within the last 30 days; only of json with the layout map.
    /// User agents, heights and places are today's
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub at: Option<Timestamp>,
    /// The layout of json
    #[arg(long, value_name = "LAYOUT", value_enum, default_value_t)]
    pub layout: Layout,
}

/// What is written.
#[derive(Clone, Copy, PartialEq, Eq, Debug, ValueEnum)]
pub enum Format {
    /// Nodes up, as in a snapshot of Bitnodes
    Json,
    /// All nodes with their uptime, a line each
    Csv,
    /// All nodes, as in a dump of bitcoin-seeder
    Seeds,
    /// User agents with the number of nodes up
    Uainfo,
}

/// The layout of json.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default, ValueEnum)]
pub enum Layout {
    /// An object with the address as key
    #[default]
    Map,
    /// An array of rows
    Rows,
}

/// Exports the nodes.
///
/// # Errors
/// The configuration is invalid, the database cannot be read, or the file cannot be written.
pub fn run(source: &ConfigSource, options: &Options) -> Result<(), Failure> {
    if options.layout == Layout::Rows && options.format != Format::Json {
        return Err(Failure::Usage("--layout is for json; see bitdash export --help".to_owned()));
    }
    if options.at.is_some() && (options.format, options.layout) != (Format::Json, Layout::Map) {
        let why = "--at is for json with the layout map, which alone can say that user agents and \
                   heights are today's; see bitdash export --help";
        return Err(Failure::Usage(why.to_owned()));
    }
    let config = source.load()?;
    let filter = config.load_filter()?;
    let reader = Reader::open(config.database.url.expose());
    let mut reader = reader.map_err(|error| Failure::of_store(&error, source, &config))?;
    if options.out == Path::new("-") {
        return export(&mut reader, options, config.network.port, &filter, &mut print_on);
    }
    let failure = |error: std::io::Error| {
        Failure::Failed(format!("{}: cannot be written: {error}", options.out.display()))
    };
    let mut file = AtomicFile::create(&options.out).map_err(failure)?;
    export(&mut reader, options, config.network.port, &filter, &mut |text| {
        file.write_all(text.as_bytes()).map(|()| true).map_err(failure)
    })?;
    file.finish().map_err(failure)
}

/// Exports the nodes of a network with this port that the filter admits; `write` returns whether to
/// go on.
///
/// # Errors
/// The database cannot be read, or the output cannot be written.
pub fn export(
    reader: &mut Reader,
    options: &Options,
    network_port: u16,
    filter: &Filter,
    write: &mut dyn FnMut(&str) -> Result<bool, Failure>,
) -> Result<(), Failure> {
    let mut failure = None;
    let mut put = |text: &str| {
        write(text).unwrap_or_else(|error| {
            failure = Some(error);
            false
        })
    };
    let query = ExportQuery { at: options.at, ..query(options.format) };
    let is_published = |row: &&ExportRow| {
        let port = u16::try_from(row.node.port).unwrap_or(0);
        filter.admits_named(Address::new(row.node.host, port))
    };
    let mut count = 0;
    let result = match options.format {
        Format::Uainfo => uainfo(reader, &mut put).map(|()| Exported::Done),
        format => reader.export(&query, &mut |totals, page| {
            let rows: Vec<ExportRow> = page.iter().filter(is_published).cloned().collect();
            // Only an empty page ends the file.
            if rows.is_empty() && !page.is_empty() {
                return true;
            }
            let rows = rows.as_slice();
            let text = match (format, options.layout) {
                (Format::Csv, _) => csv_page(rows, count == 0),
                (Format::Seeds, _) => seeds_page(totals, rows, count == 0, network_port),
                (_, Layout::Map) => map_page(totals, rows, count == 0),
                (_, Layout::Rows) => rows_page(rows, count == 0),
            };
            count += rows.len();
            put(&text)
        }),
    };
    failure.map_or(Ok(()), Err)?;
    match result.map_err(|error| Failure::failed(&error))? {
        Exported::Done => Ok(()),
        Exported::TooOld(oldest) => Err(too_old(oldest)),
    }
}

fn too_old(oldest: Option<Timestamp>) -> Failure {
    Failure::Failed(match oldest {
        Some(oldest) => format!(
            "--at: which nodes were up is kept for 30 days; the oldest pass ended at {}",
            oldest.to_text()
        ),
        None => "--at: no pass has ended yet".to_owned(),
    })
}

/// A day, a minute or a second, in UTC unless it has an offset.
fn time(text: &str) -> Result<Timestamp, String> {
    let text = text.trim().replacen(' ', "T", 1);
    let whole = match text.len() {
        10 => format!("{text}T00:00:00Z"),
        16 => format!("{text}:00Z"),
        19 => format!("{text}Z"),
        _ => text,
    };
    Timestamp::from_text(&whole).ok_or_else(|| {
        "must be a time such as 2026-11-28, 2026-11-28T12:53 or 2026-11-28T12:53:00Z".to_owned()
    })
}

fn query(format: Format) -> ExportQuery<'static> {
    use Period::{All, Hours};
    let nodes = ExportQuery {
        is_up_only: format == Format::Json,
        is_by_uptime: format == Format::Seeds,
        has_up_since: format == Format::Json,
        periods: &[],
        at: None,
    };
    match format {
        Format::Csv => {
            ExportQuery { periods: &[Hours(24), Hours(7 * 24), Hours(30 * 24), All], ..nodes }
        }
        Format::Seeds => ExportQuery {
            periods: &[Hours(2), Hours(8), Hours(24), Hours(7 * 24), Hours(30 * 24)],
            ..nodes
        },
        Format::Json | Format::Uainfo => nodes,
    }
}

const CSV_COLUMNS: &[&str] = &[
    "address",
    "host",
    "port",
    "name",
    "status",
    "species",
    "release",
    "protocol_version",
    "user_agent",
    "services",
    "service_names",
    "start_height",
    "relay",
    "connect_ms",
    "version_ms",
    "country",
    "asn",
    "as_name",
    "first_seen",
    "last_seen",
    "last_probed",
    "last_outcome",
    "failures",
    "up_day",
    "up_week",
    "up_month",
    "up_all",
];

/// RFC 4180. The heading comes with the first page, also with an empty one.
fn csv_page(rows: &[ExportRow], has_heading: bool) -> String {
    let mut writer =
        csv::WriterBuilder::new().terminator(csv::Terminator::CRLF).from_writer(Vec::new());
    if has_heading {
        writer.write_record(CSV_COLUMNS).expect("a Vec takes every row");
    }
    for row in rows {
        writer.write_record(csv_cells(row)).expect("a Vec takes every row");
    }
    let bytes = writer.into_inner().expect("a Vec takes every row");
    String::from_utf8(bytes).expect("csv writes what it got")
}

fn csv_cells(row: &ExportRow) -> Vec<String> {
    let node = &row.node;
    let services = node.services.cast_unsigned();
    let mut cells = vec![
        format!("{}:{}", node.host, node.port),
        node.host.to_string(),
        node.port.to_string(),
        text_cell(node.name.as_ref()),
        node.status.clone(),
        text_cell(Some(&node.species)),
        text_cell(node.release.as_ref()),
        node.protocol_version.to_string(),
        text_cell(node.user_agent.as_ref()),
        services.to_string(),
        services::names(services).join(" "),
        cell(node.start_height),
        cell(node.relay),
        cell(node.connect_ms),
        cell(node.version_ms),
        text_cell(node.country.as_ref()),
        cell(node.asn),
        text_cell(node.as_name.as_ref()),
        node.first_seen.to_text(),
        node.last_seen.to_text(),
        node.last_probed.to_text(),
        node.last_outcome.clone(),
        node.failures.to_string(),
    ];
    let share = |share: &Option<u16>| cell(share.map(|share| decimal(share, 4)));
    cells.extend(row.shares.iter().map(share));
    cells
}

fn cell(value: Option<impl ToString>) -> String {
    value.map_or_else(String::new, |value| value.to_string())
}

fn text_cell(text: Option<&String>) -> String {
    text.map_or_else(String::new, |text| csv_text(text))
}

/// 1/10,000 with this many decimals: 4 for a fraction, 2 for percent.
fn decimal(share: u16, decimals: usize) -> String {
    let unit = 10_u16.pow(u32::try_from(decimals).unwrap_or(0));
    format!("{}.{:0decimals$}", share / unit, share % unit)
}

/// bitcoin-seeder's db.cpp and main.cpp.
const SEEDS_HEADING: &str = "# address                                        good  lastSuccess    \
    %(2h)   %(8h)   %(1d)   %(7d)  %(30d)  blocks      svcs  version\n";

fn seeds_page(
    totals: &ExportTotals,
    rows: &[ExportRow],
    has_heading: bool,
    network_port: u16,
) -> String {
    let mut out = if has_heading { SEEDS_HEADING.to_owned() } else { String::new() };
    for row in rows {
        let node = &row.node;
        let _ = write!(
            out,
            "{:<47}  {:4}  {:11}",
            format!("{}:{}", node.host, node.port),
            u8::from(is_good(totals, row, network_port)),
            node.last_seen.0.as_secs()
        );
        for (index, share) in row.shares.iter().enumerate() {
            let gap = if index == 0 { "  " } else { " " };
            let _ = write!(out, "{gap}{:>6}%", decimal(share.unwrap_or(0), 2));
        }
        let _ = writeln!(
            out,
            "  {:6}  {:08x}  {:5} \"{}\"",
            node.start_height.unwrap_or(0),
            node.services.cast_unsigned(),
            node.protocol_version,
            node.user_agent.as_deref().unwrap_or("")
        );
    }
    out
}

const NODE_NETWORK: i64 = 1;
const MIN_SEED_VERSION: i32 = 70_001;
const MAX_BLOCKS_BEHIND: i32 = 144;
/// In 1/10,000, for 2 and 8 hours, 1, 7 and 30 days; one of them is enough.
const GOOD_SHARES: [u16; 5] = [8_500, 7_000, 5_500, 4_500, 3_500];

/// What bitcoin-seeder's `CAddrInfo::IsGood` decides by.
fn is_good(totals: &ExportTotals, row: &ExportRow, network_port: u16) -> bool {
    let node = &row.node;
    let is_at_tip = node.start_height.zip(totals.tip).is_some_and(|(height, tip)| {
        i64::from(height) >= i64::from(tip) - i64::from(MAX_BLOCKS_BEHIND)
    });
    let mut shares = row.shares.iter().zip(GOOD_SHARES);
    node.status == "up"
        && node.port == i32::from(network_port)
        && node.services & NODE_NETWORK != 0
        && node.protocol_version >= MIN_SEED_VERSION
        && is_at_tip
        && shares.any(|(share, good)| share.is_some_and(|share| share > good))
}

/// The 13 values of a node in a snapshot of Bitnodes.
fn bitnodes_values(row: &ExportRow) -> Vec<Value> {
    let node = &row.node;
    vec![
        json!(node.protocol_version),
        json!(node.user_agent),
        json!(row.up_since.map(|at| at.0.as_secs())),
        json!(node.services.cast_unsigned()),
        json!(node.start_height),
        Value::Null,
        Value::Null,
        json!(node.country),
        json!(0.0),
        json!(0.0),
        Value::Null,
        json!(node.asn.map(|asn| format!("AS{asn}"))),
        json!(node.as_name),
    ]
}

/// A page of the layout of Bitnodes' API; an empty one ends it.
fn map_page(totals: &ExportTotals, rows: &[ExportRow], is_first: bool) -> String {
    let mut out = String::new();
    if is_first {
        let mark = if totals.is_approximate { "\"approximate\": true, " } else { "" };
        let _ = write!(
            out,
            "{{\"timestamp\": {}, \"total_nodes\": {}, \"latest_height\": {}, {mark}\"nodes\": {{",
            totals.at.0.as_secs(),
            totals.up,
            json!(totals.tip)
        );
    }
    for (index, row) in rows.iter().enumerate() {
        let comma = if is_first && index == 0 { "" } else { "," };
        let values = Value::from(bitnodes_values(row)).to_string();
        let address = format!("{}:{}", row.node.host, row.node.port);
        let _ = write!(out, "{comma}\n\"{address}\": {}", safe_json(&values));
    }
    if rows.is_empty() {
        out.push_str("\n}}\n");
    }
    out
}

/// A page of the layout of Bitnodes' export.py; an empty one ends it.
fn rows_page(rows: &[ExportRow], is_first: bool) -> String {
    let mut out = String::from(if is_first { "[" } else { "" });
    for (index, row) in rows.iter().enumerate() {
        let comma = if is_first && index == 0 { "" } else { "," };
        let mut values = vec![json!(row.node.host.to_string()), json!(row.node.port)];
        values.extend(bitnodes_values(row));
        let _ = write!(out, "{comma}\n{}", safe_json(&Value::from(values).to_string()));
    }
    if rows.is_empty() {
        out.push_str("\n]\n");
    }
    out
}

fn uainfo(
    reader: &mut Reader,
    put: &mut dyn FnMut(&str) -> bool,
) -> Result<(), crate::db::StoreError> {
    let mut comma = "";
    let mut goes_on = put("{");
    reader.agents(&mut |agents| {
        let mut out = String::new();
        for AgentCount { agent, up } in agents {
            let agent = safe_json(&json!(agent).to_string());
            let _ = write!(out, "{comma}\n{agent}: {{\"listening\": {up}}}");
            comma = ",";
        }
        goes_on = goes_on && put(&out);
        goes_on
    })?;
    if goes_on {
        put("\n}\n");
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_is_a_day_a_minute_or_a_second() {
        let seconds = |text| time(text).unwrap().0.as_secs();
        for text in ["2026-11-28T12:53:00Z", "2026-11-28 12:53", "2026-11-28T12:53:00"] {
            assert_eq!(seconds(text), 1_795_870_380, "{text}");
        }
        assert_eq!(seconds("2026-11-28T13:53:00+01:00"), 1_795_870_380);
        assert_eq!(seconds("2026-11-28"), 1_795_824_000);
        for text in ["", "yesterday", "2026-13-01", "2026-11-28T25:00", "2026-11-28T12:53:00Zé"] {
            assert!(time(text).unwrap_err().starts_with("must be a time such as"), "{text}");
        }
    }

    #[test]
    fn a_share_is_a_fraction_or_percent() {
        assert_eq!(
            [0, 7, 9_792, 10_000].map(|share| decimal(share, 4)),
            ["0.0000", "0.0007", "0.9792", "1.0000"]
        );
        assert_eq!(
            [0, 7, 9_792, 10_000].map(|share| decimal(share, 2)),
            ["0.00", "0.07", "97.92", "100.00"]
        );
    }
}
