//! The home page.

use std::collections::HashMap;

use askama::Template;

use crate::config::Publish;
use crate::db::site::Curves;
use crate::site::events::{Event, shown};
use crate::site::frame::{Context, Frame, rendered};
use crate::site::history::{Figure, Step, changes, figure, span, sparkline, whole};
use crate::site::nodes::{WatchedRow, watched_row};
use crate::site::shares::{Section, by_agent, by_country, by_network, by_release, map};
use crate::site::svg::Window;
use crate::site::text::{count, day_and_month, grouped, hour, length, percent, signed};
use bitdash_core::lookup::species::TRB;

const DAY: i64 = 86_400;
/// Maximum number of rows of lists on the home page.
const MAX_ROWS: usize = 10;
const MAX_SPECIES: usize = 11;
const MAX_WATCHED_ROWS: usize = 100;
const MAX_EVENTS: usize = 8;
const MAX_PASSES: usize = 6;
/// A height is at the tip if it differs by at most this.
const TIP_BLOCKS: u32 = 2;

struct Key {
    name: &'static str,
    value: String,
    note: String,
}

struct Range {
    id: &'static str,
    name: &'static str,
    trb: Figure,
    all: Figure,
}

struct Watched {
    title: &'static str,
    rows: Vec<WatchedRow>,
    more: usize,
}

struct SpeciesRow {
    name: String,
    link: String,
    up: String,
    day: String,
    year: String,
    spark: String,
}

struct PassRow {
    pass: String,
    at: String,
    took: String,
    probed: String,
    responded: String,
    new_nodes: String,
    new_addresses: String,
}

#[derive(Template)]
#[template(path = "site/home.html")]
struct Home<'a> {
    f: Frame<'a>,
    up: String,
    trb_up: String,
    has_lookup: bool,
    figures: Vec<Key>,
    ranges: Vec<Range>,
    watched: Option<Watched>,
    events: Option<Vec<Event>>,
    species: Vec<SpeciesRow>,
    span: String,
    shares: Vec<Section>,
    map: String,
    passes: Vec<PassRow>,
}

/// The home page.
pub fn page(context: &Context, species: &Curves, status: &Curves) -> String {
    let up = context.up().count();
    let trb_up = context.up().filter(|node| node.facts.species == TRB).count();
    let has_addresses = context.config.site.publish != Publish::Counts;
    let mut shares = vec![by_release(context)];
    if context.site.has_places {
        shares.extend([by_country(context), by_network(context)]);
    } else {
        shares.push(by_agent(context));
    }
    shares.iter_mut().for_each(|section| section.rows.truncate(MAX_ROWS));
    let events = context.facts.events.iter().take(MAX_EVENTS);
    rendered(&Home {
        f: context.frame("", "Home"),
        up: count(up),
        trb_up: count(trb_up),
        has_lookup: context.config.site.publish == Publish::All,
        figures: figures(context, species, status),
        ranges: ranges(context, species, status),
        watched: has_addresses.then(|| watched(context)),
        events: has_addresses.then(|| events.map(|event| shown(context, event)).collect()),
        species: species_rows(context, species),
        span: span(species),
        shares,
        map: if context.site.has_places { map(context) } else { String::new() },
        passes: passes(context),
    })
}

fn figures(context: &Context, species: &Curves, status: &Curves) -> Vec<Key> {
    let up = context.up().count();
    let number = |count: usize| i64::try_from(count).unwrap_or(i64::MAX);
    let change = |curves: &Curves, value, now: usize, name| {
        let since = |seconds| {
            let then = curves.passes_ago(value, seconds)?;
            Some(signed(number(now) - then.round() as i64))
        };
        let week = since(7 * DAY).map(|week| format!("in a day, {week} in a week"));
        match since(DAY) {
            Some(value) => Key { name, value, note: week.unwrap_or_else(|| "in a day".to_owned()) },
            None => Key { name, value: "–".to_owned(), note: "no pass a day ago".to_owned() },
        }
    };
    let trb = context.up().filter(|node| node.facts.species == TRB).count();
    let sends = context.up().filter(|node| node.facts.peers_sent > Some(0)).count();
    let full = context.facts.nodes.iter().filter(|node| node.facts.status == "full").count();
    let at_tip = |height: i32| context.tip.is_some_and(|tip| tip.abs_diff(height) <= TIP_BLOCKS);
    let current = context.up().filter(|node| node.facts.start_height.is_some_and(at_tip)).count();
    let tip = context.tip.map_or("–".to_owned(), |tip| grouped(tip.into()));
    let key = |name, value, note| Key { name, value, note };
    vec![
        change(status, "up", up, "All nodes, change"),
        change(species, TRB, trb, "TRB, change"),
        key("Return peers", count(sends), percent(sends, up)),
        key("At their limit", count(full), "full, not down".to_owned()),
        newcomers(context),
        key("At the tip", percent(current, up), format!("within 2 of {tip}")),
        diversity(context),
        median(context),
    ]
}

/// Nodes that answered for the first time in the last day, and those lost in it.
fn newcomers(context: &Context) -> Key {
    let since = context.at() - DAY;
    let new = context.up().filter(|node| node.facts.first_seen.0.as_secs() > since).count();
    let note = context.facts.yesterday.as_ref().map_or("no pass a day ago".to_owned(), |before| {
        let nodes = context.facts.nodes.iter();
        let lost = nodes.filter(|node| node.facts.status == "down" && before.has(node.ordinal));
        format!("lost {}", count(lost.count()))
    });
    Key { name: "New since yesterday", value: count(new), note }
}

fn diversity(context: &Context) -> Key {
    let distinct = |key: fn(&crate::db::reader::NodeFacts) -> Option<String>| {
        let values: std::collections::HashSet<String> =
            context.up().filter_map(|node| key(&node.facts)).collect();
        count(values.len())
    };
    if context.site.has_places {
        let countries = distinct(|node| node.country.clone());
        let networks = distinct(|node| node.asn.map(|asn| asn.to_string()));
        let value = format!("{countries}, {networks}");
        return Key { name: "Countries, networks", value, note: String::new() };
    }
    let releases = distinct(|node| node.release.clone());
    let agents = distinct(|node| node.user_agent.clone());
    let value = format!("{releases}, {agents}");
    Key { name: "Versions, user agents", value, note: String::new() }
}

fn median(context: &Context) -> Key {
    let mut times: Vec<i32> = context.up().filter_map(|node| node.facts.version_ms).collect();
    times.sort_unstable();
    let value = times.get(times.len() / 2).map_or("–".to_owned(), |ms| format!("{ms} ms"));
    Key { name: "Version after, median", value, note: "of connecting".to_owned() }
}

/// The ranges of time that show more than the one before.
fn ranges(context: &Context, species: &Curves, status: &Curves) -> Vec<Range> {
    let Some(newest) = species.passes.last().copied() else { return Vec::new() };
    let oldest = [species.days.first(), species.passes.first()].into_iter().flatten().min();
    let age = newest - oldest.copied().unwrap_or(newest);
    let last_day = species.days.last().copied().unwrap_or(newest);
    // Passes are kept for 30 days; where there are fewer, days show more.
    let passes = |days: i64| {
        let from = newest - days * DAY;
        let is_half = species.passes.first().is_some_and(|first| *first <= from + days * DAY / 2);
        let (step, to) = if is_half { (Step::Passes, newest) } else { (Step::Days, last_day) };
        (step, Window { from: to - days * DAY, to })
    };
    // A young crawl: its curve fills the chart.
    let whole_day = || (Step::Passes, Window { from: newest - age.min(DAY), to: newest });
    let mut shown = vec![("day", "Day", whole_day())];
    if age > DAY {
        shown.push(("week", "Week", passes(7)));
    }
    if age > 7 * DAY {
        shown.push(("month", "Month", passes(30)));
    }
    if age > 30 * DAY {
        let window = Window { from: last_day - 365 * DAY, to: last_day };
        shown.push(("year", "Year", (Step::Days, window)));
    }
    if age > 366 * DAY {
        shown.push(("all", "All", whole(species)));
    }
    let range = |(id, name, part)| Range {
        id,
        name,
        trb: figure(context, species, (TRB, "TRB nodes"), part, 186),
        all: figure(context, status, ("up", "All nodes"), part, 186),
    };
    shown.into_iter().map(range).collect()
}

fn watched(context: &Context) -> Watched {
    let rows = context.watched.iter().take(MAX_WATCHED_ROWS);
    let has_others = context.watched.iter().any(|node| node.facts.species != TRB);
    Watched {
        title: if has_others { "TRB and named nodes" } else { "TRB nodes" },
        rows: rows.map(|node| watched_row(context, node)).collect(),
        more: context.watched.len().saturating_sub(MAX_WATCHED_ROWS),
    }
}

fn species_rows(context: &Context, curves: &Curves) -> Vec<SpeciesRow> {
    let mut counts: HashMap<&str, usize> = HashMap::new();
    for node in context.up() {
        *counts.entry(&node.facts.species).or_default() += 1;
    }
    counts.entry(TRB).or_default();
    let mut counts: Vec<(&str, usize)> = counts.into_iter().collect();
    counts.sort_by_key(|(name, up)| (*name != TRB, std::cmp::Reverse(*up), *name));
    let has_list = context.config.site.publish == Publish::All;
    let row = |(name, up): (&str, usize)| {
        let [day, year] = changes(curves, name, i64::try_from(up).unwrap_or(i64::MAX));
        let link = if has_list { format!("nodes/?species={name}") } else { String::new() };
        SpeciesRow {
            name: name.to_owned(),
            link,
            up: count(up),
            day,
            year,
            spark: sparkline(curves, name),
        }
    };
    counts.into_iter().take(MAX_SPECIES).map(row).collect()
}

fn passes(context: &Context) -> Vec<PassRow> {
    let passes = context.facts.passes.iter().take(MAX_PASSES);
    let row = |pass: &crate::db::reader::PassLine| {
        let end = pass.finished_at.unwrap_or(pass.started_at).0.as_secs();
        PassRow {
            pass: grouped(pass.pass),
            at: format!("{} {}", day_and_month(end), hour(end)),
            took: length(end - pass.started_at.0.as_secs()),
            probed: grouped(pass.probed),
            responded: grouped(pass.responded),
            new_nodes: grouped(pass.new_nodes),
            new_addresses: grouped(pass.new_addresses),
        }
    };
    passes.map(row).collect()
}
