//! Charts of the history, and the page about it.

use askama::Template;

use crate::db::site::{Curves, StepCount};
use crate::db::timestamp::Timestamp;
use crate::site::frame::{Context, Frame, rendered};
use crate::site::svg::{Chart, Curve, Pieces, Window, pieces, spark};
use crate::site::text::{day, grouped, iso_day};
use bitdash_core::lookup::services;
use bitdash_core::lookup::species::TRB;

const DAY: i64 = 86_400;
/// Number of days from which on curves are drawn by days.
const MIN_DAYS: usize = 8;
/// Maximum number of points of a curve.
const MAX_POINTS: usize = 200;
/// Maximum number of points of a curve of the height of a line.
const SPARK_POINTS: usize = 60;

/// Dimensions whose values can be chosen, with their names.
pub const DIMENSIONS: &[(&str, &str)] = &[
    ("species", "species"),
    ("release", "versions"),
    ("user_agent", "user agents"),
    ("country", "countries"),
    ("asn", "networks (AS number)"),
    ("port", "ports"),
    ("services", "services"),
    ("protocol_version", "protocol versions"),
    ("status", "status"),
    ("peers", "return peers"),
];

/// A chart with what stands above it.
#[derive(Default)]
pub struct Figure {
    pub svg: String,
    pub caption: String,
}

/// Whether curves are drawn by days or by passes.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Step {
    Passes,
    Days,
}

impl Step {
    fn of(self, curves: &Curves) -> &[i64] {
        match self {
            Self::Passes => &curves.passes,
            Self::Days => &curves.days,
        }
    }

    fn counts<'c>(self, curves: &'c Curves, value: &str) -> &'c [StepCount] {
        let curve = curves.values.get(value);
        match self {
            Self::Passes => curve.map_or(&[], |curve| &curve.passes),
            Self::Days => curve.map_or(&[], |curve| &curve.days),
        }
    }
}

/// The curve of a value in a window.
pub fn curve(curves: &Curves, value: &str, step: Step, window: Window, points: usize) -> Pieces {
    pieces(step.of(curves), step.counts(curves, value), window, points)
}

/// All of the history: by days, or by passes while it is short.
pub fn whole(curves: &Curves) -> (Step, Window) {
    let step = if curves.days.len() < MIN_DAYS { Step::Passes } else { Step::Days };
    let steps = step.of(curves);
    let (from, to) = (steps.first().copied().unwrap_or(0), steps.last().copied().unwrap_or(0));
    (step, Window { from, to })
}

/// The length of the history in words.
pub fn span(curves: &Curves) -> String {
    let (_, window) = whole(curves);
    match (window.to - window.from) / DAY {
        0..=1 => "Last day".to_owned(),
        days @ 2..=60 => format!("{days} days"),
        days @ 61..=729 => format!("{} months", days / 30),
        days => format!("{} years", (days + 182) / 365),
    }
}

/// A value over the whole history, of the height of a line.
pub fn sparkline(curves: &Curves, value: &str) -> String {
    let (step, window) = whole(curves);
    let class = if value == TRB { "trb" } else { "" };
    spark(class, &curve(curves, value, step, window, SPARK_POINTS))
}

/// The change of a number since a day and since a year ago.
pub fn changes(curves: &Curves, value: &str, now: i64) -> [String; 2] {
    let change = |then: Option<f32>| match then {
        Some(then) => crate::site::text::signed(now - then.round() as i64),
        None => "–".to_owned(),
    };
    [change(curves.passes_ago(value, DAY)), change(curves.days_ago(value, 365))]
}

/// A chart of one value.
pub fn figure(
    context: &Context,
    curves: &Curves,
    (value, name): (&str, &str),
    (step, window): (Step, Window),
    height: i32,
) -> Figure {
    let pieces = curve(curves, value, step, window, MAX_POINTS);
    let caption = caption(curves, value, (step, window));
    let notes = context.facts.notes.iter();
    let ticks = notes
        .map(|(at, text)| (at.0.as_secs(), text.clone()))
        .filter(|(at, _)| (window.from..=window.to).contains(at));
    let label = format!("{name} from {} to {}: {caption}", day(window.from), day(window.to));
    let class = if value == TRB { "trb" } else { "" };
    let chart = Chart {
        label,
        curves: vec![Curve { class, name: name.to_owned(), pieces }],
        window,
        height,
        ticks: ticks.collect(),
    };
    Figure { svg: chart.to_svg(), caption }
}

fn caption(curves: &Curves, value: &str, (step, window): (Step, Window)) -> String {
    let pieces = curve(curves, value, step, window, usize::MAX);
    let points = || pieces.iter().flatten();
    let Some(last) = points().last() else { return "none".to_owned() };
    let low = points().map(|point| point.low()).fold(f32::MAX, f32::min);
    let high = points().map(|point| point.high()).fold(0.0, f32::max);
    let now = grouped(last.mean().round() as i64);
    if low.round() == high.round() {
        return now;
    }
    let when = match step {
        Step::Passes => "in the last pass",
        Step::Days => "on the last day (mean)",
    };
    let (low, high) = (grouped(low.round() as i64), grouped(high.round() as i64));
    format!("{now} {when}, {low} to {high} in this time")
}

struct SpeciesChart {
    name: String,
    is_trb: bool,
    caption: String,
    svg: String,
}

#[derive(Template)]
#[template(path = "site/history.html")]
struct Page<'a> {
    f: Frame<'a>,
    trb: Figure,
    all: Figure,
    species: Vec<SpeciesChart>,
    dimensions: Vec<(&'a str, &'a str)>,
    /// Names of the service bits, bit 0 first.
    services: String,
    /// ISO date, date and text.
    notes: Vec<(String, String, String)>,
}

/// The page of the history: charts of TRB, of all nodes and of each species without a script.
pub fn page(context: &Context, species: &Curves, status: &Curves) -> String {
    let (step, window) = whole(species);
    let chart = |curves: &Curves, value: &str, name: &str, height| {
        figure(context, curves, (value, name), (step, window), height)
    };
    let has_history = !species.passes.is_empty();
    let (trb, all) = match has_history {
        true => (chart(species, TRB, "TRB nodes", 200), chart(status, "up", "All nodes", 200)),
        false => (Figure::default(), Figure::default()),
    };
    let mut names: Vec<(&String, f32)> = species
        .values
        .iter()
        .map(|(name, curve)| (name, curve.passes.last().map_or(0.0, |count| count.nodes)))
        .filter(|(name, _)| *name != TRB)
        .collect();
    names.sort_by(|a, b| b.1.total_cmp(&a.1).then_with(|| a.0.cmp(b.0)));
    let charts = names.into_iter().map(|(name, _)| {
        let Figure { svg, caption } = chart(species, name, name, 110);
        SpeciesChart { name: name.clone(), is_trb: false, caption, svg }
    });
    let has_places = context.site.has_places;
    let note = |(at, text): &(Timestamp, String)| {
        let secs = at.0.as_secs();
        (iso_day(secs), day(secs), text.clone())
    };
    rendered(&Page {
        f: context.frame("../", "History"),
        trb,
        all,
        species: charts.collect(),
        dimensions: DIMENSIONS
            .iter()
            .filter(|(key, _)| has_places || !["country", "asn"].contains(key))
            .copied()
            .collect(),
        services: services::names(u64::MAX).join(" "),
        notes: context.facts.notes.iter().map(note).collect(),
    })
}
