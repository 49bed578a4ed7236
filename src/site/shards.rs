//! `/node/?IP:PORT`: what is known of any node, in 256 files of which the page reads one.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::net::Ipv4Addr;

use askama::Template;

use crate::db::reader::{NodeFacts, Reader};
use crate::db::site::{ShortResult, SiteNode};
use crate::site::SiteError;
use crate::site::frame::{Context, Frame, rendered};
use crate::site::nodes::{address, claims, days, newest_day, sentences, slug, uptime};
use crate::site::svg::level;
use crate::site::table::gzip;
use crate::site::text::json;
use crate::site::writer::Directory;
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::filter::SPECIAL_PURPOSE;
use bitdash_core::vocabulary::outcome::Outcome;

/// Maximum number of results shown.
const MAX_RESULTS: usize = 25;

/// FNV-1a of the host, folded to a byte; `node.js` computes the same. All ports of a host are in
/// one file.
fn shard_of(host: Ipv4Addr) -> u8 {
    let hash = host
        .to_string()
        .bytes()
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193));
    (hash ^ hash >> 8 ^ hash >> 16 ^ hash >> 24).to_le_bytes()[0]
}

#[derive(Template)]
#[template(path = "site/lookup.html")]
struct Lookup<'a> {
    f: Frame<'a>,
    /// The port of an address without one.
    port: u16,
    /// Ranges that are never probed, separated by spaces.
    reserved: String,
    /// Names of nodes with a page, and that page.
    named: Vec<(&'a str, String)>,
}

/// Writes the page and its data.
pub fn write(
    reader: &mut Reader,
    context: &Context,
    directory: &mut Directory,
) -> Result<(), SiteError> {
    let page = |node: &&'_ SiteNode| format!("{}.html", slug(&address(&node.facts)));
    let named = context.watched.iter().filter_map(|node| {
        let name = node.facts.name.as_deref()?;
        Some((name, page(node)))
    });
    let reserved = SPECIAL_PURPOSE.iter().map(|range| format!("{}/{}", range.first, range.prefix));
    let page = Lookup {
        f: context.frame("../", "Nodes"),
        port: context.config.network.port,
        reserved: reserved.collect::<Vec<_>>().join(" "),
        named: named.collect(),
    };
    directory.put("node/index.html", rendered(&page).as_bytes())?;
    let listed = context.listed();
    let mut results: HashMap<Address, Vec<ShortResult>> =
        listed.iter().map(|node| (key(&node.facts), Vec::new())).collect();
    reader.all_results(&mut |address, result| {
        let Some(results) = results.get_mut(&address) else { return };
        results.push(result);
        if results.len() >= 2 * MAX_RESULTS {
            keep_newest(results);
        }
    })?;
    let mut shards = vec![Vec::new(); 256];
    for node in listed {
        shards[usize::from(shard_of(node.facts.host))].push(node);
    }
    let day = newest_day(context);
    let outcomes = Outcome::ALL.map(|outcome| json(outcome.as_str())).join(",");
    for (number, nodes) in shards.iter().enumerate() {
        let mut text = format!("{{\"day\":{day},\"outcomes\":[{outcomes}],\"nodes\":{{");
        for (index, node) in nodes.iter().enumerate() {
            let facts = &node.facts;
            let comma = if index == 0 { "" } else { "," };
            let (why, advice) = sentences(context, facts);
            let place = address(facts);
            let has_page = crate::site::nodes::has_page(context, node);
            let page = if has_page { format!("{}.html", slug(&place)) } else { String::new() };
            let _ = write!(
                text,
                "{comma}\"{place}\":{{\"name\":{},\"page\":{},\"status\":{},\"why\":{},\"advice\":{},\
                 \"says\":{},\"uptime\":{},\"days\":\"{}\",\"results\":[{}]}}",
                json(facts.name.as_deref().unwrap_or("")),
                json(&page),
                json(&facts.status),
                json(&why),
                json(advice),
                pairs(&claims(facts)),
                pairs(&uptime(context, node)),
                levels(&days(context, node)),
                last_results(results.remove(&key(facts)).unwrap_or_default())
            );
        }
        text.push_str("}}");
        directory.put(&format!("data/node/{number:02x}.dat"), &gzip(text.as_bytes()))?;
    }
    Ok(())
}

fn pairs(rows: &[(&str, String)]) -> String {
    let rows: Vec<String> =
        rows.iter().map(|(key, value)| format!("[{},{}]", json(key), json(value))).collect();
    format!("[{}]", rows.join(","))
}

/// A digit for the level of each day, a dash where nothing is known.
fn levels(days: &[Option<u8>]) -> String {
    days.iter().map(|share| share.map_or('-', |share| char::from(b'0' + level(share)))).collect()
}

fn key(node: &NodeFacts) -> Address {
    Address::new(node.host, u16::try_from(node.port).unwrap_or(0))
}

/// Of two results of one pass the first counts, as in the view `probes`.
fn keep_newest(results: &mut Vec<ShortResult>) {
    results.sort_by_key(|result| (std::cmp::Reverse(result.pass), result.at));
    results.dedup_by_key(|result| result.pass);
    results.truncate(MAX_RESULTS);
}

/// The newest results as columns, which compress best: times and heights, each as the difference
/// to the one before, outcomes, the two latencies and peers; -1 for none.
fn last_results(mut results: Vec<ShortResult>) -> String {
    keep_newest(&mut results);
    let column = |value: &dyn Fn(&ShortResult) -> i64, is_difference: bool| {
        let (mut text, mut before) = (String::from("["), 0);
        for (index, result) in results.iter().enumerate() {
            let (comma, value) = (if index == 0 { "" } else { "," }, value(result));
            let _ = write!(text, "{comma}{}", if is_difference { value - before } else { value });
            before = value;
        }
        text + "]"
    };
    let number = |value: Option<i32>| value.map_or(-1, i64::from);
    [
        column(&|result| result.at, true),
        column(&|result| number(result.height), true),
        column(&|result| result.outcome.into(), false),
        column(&|result| number(result.connect_ms), false),
        column(&|result| number(result.version_ms), false),
        column(&|result| number(result.peers_sent), false),
    ]
    .join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_results_are_kept_and_one_of_each_pass() {
        let result = |pass, at| ShortResult {
            pass,
            at,
            outcome: 0,
            height: None,
            connect_ms: None,
            version_ms: None,
            peers_sent: None,
        };
        let mut results: Vec<ShortResult> = (1..=40).map(|pass| result(pass, pass)).collect();
        results.push(result(40, 7));
        keep_newest(&mut results);
        let passes: Vec<i64> = results.iter().map(|result| result.pass).collect();
        assert_eq!(passes, (16..=40).rev().collect::<Vec<_>>());
        assert_eq!(results[0].at, 7);
    }

    #[test]
    fn times_and_heights_are_differences() {
        let result = |pass, at, height| ShortResult {
            pass,
            at,
            outcome: 2,
            height,
            connect_ms: Some(30),
            version_ms: None,
            peers_sent: Some(7),
        };
        let results = vec![result(4, 400, Some(9)), result(5, 500, None), result(6, 650, Some(9))];
        let expected = "[650,-150,-100],[9,-10,10],[2,2,2],[30,30,30],[-1,-1,-1],[7,7,7]";
        assert_eq!(last_results(results), expected);
        assert_eq!(last_results(Vec::new()), "[],[],[],[],[],[]");
    }

    #[test]
    fn shards_are_of_similar_size() {
        let mut sizes = [0; 256];
        for number in 0..25_600_u32 {
            let host = Ipv4Addr::from(number.wrapping_mul(2_654_435_761));
            sizes[usize::from(shard_of(host))] += 1;
        }
        assert!(sizes.iter().all(|size| (50..160).contains(size)), "{sizes:?}");
    }
}
