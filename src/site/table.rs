//! `nodes.dat`: all nodes for the table, as columns of small numbers that point into lists of
//! words. Compressed here, so that it is small whatever the web server is set to.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::hash::Hash;
use std::io::Write as _;

use flate2::Compression;
use flate2::write::GzEncoder;

use crate::db::site::SiteNode;
use crate::site::frame::Context;
use crate::site::nodes::{has_page, share};
use crate::site::shares::country;
use crate::site::text::json;
use bitdash_core::lookup::services;

/// Bytes as gzip, without a name or time: the same bytes give the same file.
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::new(6));
    encoder.write_all(bytes).expect("a Vec takes every byte");
    encoder.finish().expect("a Vec takes every byte")
}

/// The distinct values, the most frequent first, and the index of each node's.
fn words<T: Clone + Eq + Hash + Ord>(values: Vec<T>) -> (Vec<T>, Vec<usize>) {
    let mut counts: HashMap<&T, usize> = HashMap::new();
    for value in &values {
        *counts.entry(value).or_default() += 1;
    }
    let mut words: Vec<(&T, usize)> = counts.into_iter().collect();
    words.sort_by(|a, b| b.1.cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let places: HashMap<&T, usize> =
        words.iter().enumerate().map(|(place, (word, _))| (*word, place)).collect();
    let column = values.iter().map(|value| places[value]).collect();
    (words.into_iter().map(|(word, _)| word.clone()).collect(), column)
}

/// The file as it grows.
struct Columns {
    words: String,
    columns: String,
}

impl Columns {
    /// A column of words, each shown as JSON.
    fn words<T: Clone + Eq + Hash + Ord>(
        &mut self,
        name: &str,
        values: Vec<T>,
        shown: impl Fn(&T) -> String,
    ) {
        let (words, column) = words(values);
        let words: Vec<String> = words.iter().map(shown).collect();
        let _ = write!(self.words, ",\"{name}\":[{}]", words.join(","));
        self.numbers(name, column.into_iter().map(|place| i64::try_from(place).unwrap_or(0)));
    }

    fn numbers(&mut self, name: &str, values: impl Iterator<Item = i64>) {
        let comma = if self.columns.is_empty() { "" } else { "," };
        let _ = write!(self.columns, "{comma}\"{name}\":[");
        for (index, value) in values.enumerate() {
            let comma = if index == 0 { "" } else { "," };
            let _ = write!(self.columns, "{comma}{value}");
        }
        self.columns.push(']');
    }
}

const STATUS: [&str; 3] = ["up", "full", "down"];

/// The file.
pub fn packed(context: &Context) -> Vec<u8> {
    let nodes = context.listed();
    let all = |value: fn(&SiteNode) -> String| nodes.iter().map(|node| value(node)).collect();
    let text = |word: &String| json(word);
    let number = |value: Option<i32>| i64::from(value.unwrap_or(-1));
    let mut columns = Columns { words: String::new(), columns: String::new() };
    let status = |node: &&SiteNode| {
        STATUS.iter().position(|word| *word == node.facts.status).unwrap_or(2) as i64
    };
    columns.numbers("status", nodes.iter().map(status));
    columns.words("species", all(|node| node.facts.species.clone()), text);
    columns.words("release", all(|node| node.facts.release.clone().unwrap_or_default()), text);
    columns.words("agent", all(|node| node.facts.user_agent.clone().unwrap_or_default()), text);
    columns.words("name", all(|node| node.facts.name.clone().unwrap_or_default()), text);
    columns.words("country", all(|node| node.facts.country.clone().unwrap_or_default()), |code| {
        format!("[{},{}]", json(code), json(&country(code)))
    });
    let networks = nodes
        .iter()
        .map(|node| (node.facts.asn.unwrap_or(0), node.facts.as_name.clone().unwrap_or_default()));
    columns.words("network", networks.collect(), |(asn, name)| format!("[{asn},{}]", json(name)));
    columns.words("port", nodes.iter().map(|node| node.facts.port).collect(), i32::to_string);
    let bits = nodes.iter().map(|node| node.facts.services.cast_unsigned());
    columns.words("services", bits.collect(), |bits| {
        // A double cannot hold them.
        format!("[\"{bits}\",{}]", json(&services::names(*bits).join(" ")))
    });
    columns.numbers("height", nodes.iter().map(|node| number(node.facts.start_height)));
    columns.numbers("latency", nodes.iter().map(|node| number(node.facts.connect_ms)));
    let up = |node: &&SiteNode| share(context, node, 2).map_or(-1, i64::from);
    columns.numbers("up", nodes.iter().map(up));
    // Relative to the pass: without a new one the file stays the same.
    let at = context.at();
    let seen = |node: &&SiteNode| ((at - node.facts.last_seen.0.as_secs()) / 60).max(0);
    columns.numbers("seen", nodes.iter().map(seen));
    columns.numbers("page", nodes.iter().map(|node| i64::from(has_page(context, node))));
    let mut last = 0;
    let mut hosts = String::new();
    for (index, node) in nodes.iter().enumerate() {
        let host = u32::from(node.facts.host);
        let comma = if index == 0 { "" } else { "," };
        let _ = write!(hosts, "{comma}{}", host - last);
        last = host;
    }
    let status = STATUS.map(json).join(",");
    let file = format!(
        "{{\"format\":\"bitdash-nodes-1\",\"at\":{at},\"licence\":\"CC0-1.0\",\"count\":{},\"words\":\
         {{\"status\":[{status}]{}}},\"hosts\":[{hosts}],\"columns\":{{{}}}}}",
        nodes.len(),
        columns.words,
        columns.columns
    );
    gzip(file.as_bytes())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_frequent_word_has_the_smallest_number() {
        let values = ["b", "a", "b", "c", "a", "b"].to_vec();
        assert_eq!(words(values), (vec!["b", "a", "c"], vec![0, 1, 0, 2, 1, 0]));
    }

    #[test]
    fn gzip_depends_on_the_bytes_only() {
        use std::io::Read as _;
        let packed = gzip(b"nodes");
        assert_eq!(packed, gzip(b"nodes"));
        let mut text = String::new();
        flate2::read::GzDecoder::new(&packed[..]).read_to_string(&mut text).unwrap();
        assert_eq!(text, "nodes");
    }
}
