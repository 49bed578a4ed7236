//! Charts as SVG: text keeps its size, only curves stretch with the width of the page. No inline
//! style and no script, so the strictest content security policy admits them.

use std::fmt::Write;

use crate::db::site::StepCount;
use crate::site::text::{day_and_month, escaped, grouped, hour, month, year};

/// Units of the stretched layer.
const WIDTH: f32 = 1000.0;
/// Maximum number of tooltips of a chart; `style.css` has their width.
const MAX_HINTS: usize = 36;
/// Minimum height of a chart with all of its lines.
const MIN_LINED_HEIGHT: i32 = 150;
/// Minimum difference of the values of a chart that does not start at zero.
const MIN_RANGE: f32 = 4.0;
/// A label that begins at this part of a chart's width ends at its mark.
const END: f32 = 0.96;
/// Maximum width of a label, as a part of the width of a chart.
const LABEL_WIDTH: f32 = 0.14;
/// A gap is an interval this many times as long as the usual one.
const GAP_FACTOR: i64 = 3;
const DAY: i64 = 86_400;

/// A point of a curve: where in the window, from 0 to 1, with the mean, lowest and highest value.
#[derive(Clone, Copy, PartialEq, Debug)]
pub struct Point {
    x: f32,
    at: i64,
    mean: f32,
    low: f32,
    high: f32,
}

impl Point {
    /// The mean.
    pub fn mean(&self) -> f32 {
        self.mean
    }

    /// The lowest value.
    pub fn low(&self) -> f32 {
        self.low
    }

    /// The highest value.
    pub fn high(&self) -> f32 {
        self.high
    }
}

/// A curve in pieces: between them nothing was measured.
pub type Pieces = Vec<Vec<Point>>;

/// A part of time.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Window {
    /// Its beginning, in seconds since 1970.
    pub from: i64,
    /// Its end.
    pub to: i64,
}

impl Window {
    fn x(self, at: i64) -> f32 {
        if self.to <= self.from {
            return 1.0;
        }
        ((at - self.from) as f64 / (self.to - self.from) as f64) as f32
    }
}

/// The curve of a value in a window, of at most `max_points`. A step without a count has none of
/// its nodes.
pub fn pieces(steps: &[i64], counts: &[StepCount], window: Window, max_points: usize) -> Pieces {
    let first = steps.partition_point(|at| *at < window.from);
    let last = steps.partition_point(|at| *at <= window.to);
    let points: Vec<Point> = (first..last)
        .map(|step| {
            let found = counts.binary_search_by_key(&step, |count| count.step);
            let count = found.ok().map(|index| counts[index]);
            let (mean, low, high) =
                count.map_or((0.0, 0.0, 0.0), |count| (count.nodes, count.low, count.high));
            Point { x: window.x(steps[step]), at: steps[step], mean, low, high }
        })
        .collect();
    if points.len() > max_points { buckets(&points, window, max_points) } else { split(points) }
}

/// Splits a curve at its gaps.
fn split(points: Vec<Point>) -> Pieces {
    let mut intervals: Vec<i64> = points.windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    intervals.sort_unstable();
    let usual = intervals.get(intervals.len() / 2).copied().unwrap_or(0).max(1);
    let mut pieces: Pieces = Vec::new();
    let mut before = None;
    for point in points {
        match pieces.last_mut() {
            Some(piece) if before.is_some_and(|at| point.at - at <= GAP_FACTOR * usual) => {
                piece.push(point);
            }
            _ => pieces.push(vec![point]),
        }
        before = Some(point.at);
    }
    pieces
}

/// Joins points to `number` of equal length: the mean of their means, the lowest and the
/// highest.
fn buckets(points: &[Point], window: Window, number: usize) -> Pieces {
    let mut pieces: Pieces = Vec::new();
    let (mut index, mut is_new) = (0, true);
    for bucket in 0..number {
        let end = (bucket + 1) as f32 / number as f32;
        let start = index;
        while index < points.len() && (points[index].x <= end || bucket + 1 == number) {
            index += 1;
        }
        let part = &points[start..index];
        if part.is_empty() {
            is_new = true;
            continue;
        }
        let length = (window.to - window.from) as f64;
        let x = if bucket + 1 == number { 1.0 } else { bucket as f32 / number as f32 };
        let joined = Point {
            x,
            at: window.from + (f64::from(x) * length) as i64,
            mean: part.iter().map(|point| point.mean).sum::<f32>() / part.len() as f32,
            low: part.iter().map(|point| point.low).fold(f32::MAX, f32::min),
            high: part.iter().map(|point| point.high).fold(0.0, f32::max),
        };
        match pieces.last_mut() {
            Some(piece) if !is_new => piece.push(joined),
            _ => pieces.push(vec![joined]),
        }
        is_new = false;
    }
    pieces
}

/// A curve of a chart.
pub struct Curve {
    /// The class of its colour.
    pub class: &'static str,
    /// Its name in tooltips.
    pub name: String,
    /// Its points.
    pub pieces: Pieces,
}

/// A chart.
pub struct Chart {
    /// What it shows, for screen readers.
    pub label: String,
    /// Its curves.
    pub curves: Vec<Curve>,
    /// The time that it shows.
    pub window: Window,
    /// Height in pixels.
    pub height: i32,
    /// Times to mark, each with a text.
    pub ticks: Vec<(i64, String)>,
}

/// The lowest and highest value of a chart, and the number of lines between.
#[derive(Clone, Copy, PartialEq, Debug)]
struct Scale {
    bottom: f32,
    top: f32,
    lines: usize,
}

impl Scale {
    /// A scale that starts at zero, unless all values are far above it.
    fn of(curves: &[Curve], height: i32) -> Self {
        let Self { bottom, top, lines } = Self::of_values(curves);
        // A low chart has no room for the labels of many lines.
        let lines = match lines {
            _ if height >= MIN_LINED_HEIGHT || lines < 3 => lines,
            _ if lines.is_multiple_of(2) => 2,
            _ => 1,
        };
        Self { bottom, top, lines }
    }

    fn of_values(curves: &[Curve]) -> Self {
        let points = || curves.iter().flat_map(|curve| curve.pieces.iter().flatten());
        let max = points().map(|point| point.high).fold(1.0, f32::max);
        let min = points().map(|point| point.low).fold(f32::MAX, f32::min);
        if min >= max * 0.5 && max > 20.0 && max - min >= MIN_RANGE {
            let (step, _) = nice(((max - min) * 1.1 / 4.0).max(1.0));
            let bottom = (min / step).floor() * step;
            let lines = (((max - bottom) / step).ceil() as usize).max(1);
            return Self { bottom, top: bottom + step * lines as f32, lines };
        }
        let (top, lines) = nice(max);
        Self { bottom: 0.0, top, lines }
    }

    fn share(self, value: f32) -> f32 {
        (value - self.bottom) / (self.top - self.bottom)
    }
}

/// The next round number, and into how many round parts it divides.
fn nice(max: f32) -> (f32, usize) {
    const STEPS: [(f32, usize); 9] =
        [(1.0, 2), (1.5, 3), (2.0, 2), (3.0, 3), (4.0, 4), (5.0, 5), (6.0, 3), (8.0, 4), (10.0, 2)];
    let power = 10_f32.powf(max.max(1.0).log10().floor());
    // Counts are whole numbers, and so are their lines.
    let is_whole = |(factor, parts): &(f32, usize)| {
        power > 1.5 || (factor * power / *parts as f32).fract() == 0.0
    };
    if max <= 1.0 {
        return (1.0, 1);
    }
    let step = STEPS.iter().filter(|step| is_whole(step)).find(|(factor, _)| factor * power >= max);
    step.map_or((10.0 * power, 2), |(factor, parts)| (factor * power, *parts))
}

/// The line through one value of each point, and a dot for each piece of one point.
fn line(class: &str, pieces: &Pieces, y: impl Fn(&Point) -> i32) -> String {
    let (dots, lines): (Vec<_>, Vec<_>) = pieces.iter().partition(|piece| piece.len() == 1);
    let mut svg = format!("<path class=\"line {class}\" d=\"{}\"/>", path(&lines, &y));
    if !dots.is_empty() {
        let _ = write!(svg, "<path class=\"line dot {class}\" d=\"{}\"/>", path(&dots, &y));
    }
    svg
}

fn path(pieces: &[&Vec<Point>], y: impl Fn(&Point) -> i32) -> String {
    let mut d = String::new();
    for piece in pieces {
        draw(&mut d, piece.iter().map(|point| ((point.x * WIDTH) as i32, y(point))));
        if piece.len() == 1 {
            d.push_str("h0");
        }
    }
    d
}

/// The area between the lowest and the highest values.
fn band(pieces: &Pieces, y: impl Fn(f32) -> i32) -> String {
    let mut d = String::new();
    for piece in pieces.iter().filter(|piece| piece.len() > 1) {
        let upper = piece.iter().map(|point| (point.x, point.high));
        let lower = piece.iter().rev().map(|point| (point.x, point.low));
        draw(&mut d, upper.chain(lower).map(|(x, value)| ((x * WIDTH) as i32, y(value))));
        d.push('z');
    }
    d
}

/// Draws a line through points, in steps from each to the next.
fn draw(d: &mut String, points: impl Iterator<Item = (i32, i32)>) {
    let mut last: Option<(i32, i32)> = None;
    for (x, y) in points {
        let _ = match last {
            None => write!(d, "M{x} {y}"),
            Some((old_x, old_y)) if old_y == y => write!(d, "h{}", x - old_x),
            Some((old_x, old_y)) if old_x == x => write!(d, "v{}", y - old_y),
            Some((old_x, old_y)) => {
                let (dx, dy) = (x - old_x, y - old_y);
                write!(d, "l{dx}{}{dy}", if dy < 0 { "" } else { " " })
            }
        };
        last = Some((x, y));
    }
}

/// Marks of the axis of time: each with its place from 0 to 1.
fn axis(window: Window) -> Vec<(f32, String)> {
    let span = window.to - window.from;
    let (step, label): (i64, fn(i64) -> String) = match span {
        _ if span <= 12 * 3_600 => (2 * 3_600, hour),
        _ if span <= 2 * DAY => (3 * 3_600, hour),
        _ if span <= 10 * DAY => (DAY, day_and_month),
        _ if span <= 45 * DAY => (5 * DAY, day_and_month),
        _ if span <= 100 * DAY => (14 * DAY, day_and_month),
        _ if span <= 500 * DAY => return of_months(window, month),
        _ => return of_years(window),
    };
    let first = (window.from.div_euclid(step) + 1) * step;
    let marks = (0..16).map(|index| first + index * step).take_while(|at| *at <= window.to);
    with_room(marks.map(|at| (window.x(at), label(at))).collect())
}

/// A label at the end stands left of its mark, where the one before would be in its way.
fn with_room(mut marks: Vec<(f32, String)>) -> Vec<(f32, String)> {
    if let [.., (before, _), (last, _)] = marks.as_slice()
        && *last > END
        && *before > END - LABEL_WIDTH
    {
        marks.remove(marks.len() - 2);
    }
    marks
}

fn of_months(window: Window, label: fn(i64) -> String) -> Vec<(f32, String)> {
    let days = (0..=(window.to - window.from) / DAY)
        .map(|day| (window.from.div_euclid(DAY) + 1 + day) * DAY);
    let mut marks: Vec<(f32, String)> = Vec::new();
    for at in days.take_while(|at| *at <= window.to) {
        if crate::site::text::day_of_month(at) == 1 {
            marks.push((window.x(at), label(at)));
        }
    }
    marks
}

fn of_years(window: Window) -> Vec<(f32, String)> {
    let (mut marks, mut at) = (Vec::new(), (window.from.div_euclid(DAY) + 1) * DAY);
    let mut before = year(window.from);
    while at <= window.to {
        let name = year(at);
        if name != before {
            marks.push((window.x(at), name.clone()));
            before = name;
        }
        at += DAY;
    }
    marks
}

impl Chart {
    /// The chart as SVG.
    pub fn to_svg(&self) -> String {
        let scale = Scale::of(&self.curves, self.height);
        let (height, plot) = (self.height, self.height - 22);
        let y = |value: f32| (plot - 16) as f32 * (1.0 - scale.share(value)) + 16.0;
        let mut svg = format!(
            "<svg class=\"chart\" width=\"100%\" height=\"{height}\" role=\"img\" aria-label=\"{}\"><g class=\"grid\">",
            escaped(&self.label)
        );
        let mut labels = String::new();
        for line in 0..=scale.lines {
            let part = line as f32 / scale.lines as f32;
            let value = scale.bottom + (scale.top - scale.bottom) * part;
            let at = y(value);
            let _ = write!(svg, "<line x2=\"100%\" y1=\"{at:.0}\" y2=\"{at:.0}\"/>");
            let text = grouped(value.round() as i64);
            let _ =
                write!(labels, "<text class=\"y\" x=\"-8\" y=\"{:.0}\">{text}</text>", at + 4.0);
        }
        for (at, _) in &self.ticks {
            let x = self.window.x(*at) * 100.0;
            let _ = write!(
                svg,
                "<line class=\"tick\" x1=\"{x:.1}%\" x2=\"{x:.1}%\" y1=\"16\" y2=\"{plot}\"/>"
            );
        }
        for (index, (x, text)) in axis(self.window).iter().enumerate() {
            let odd = if index % 2 == 1 { " odd" } else { "" };
            let anchor = if *x > END { " end" } else { "" };
            let x = x * 100.0;
            let _ = write!(
                labels,
                "<text class=\"x{odd}{anchor}\" x=\"{x:.1}%\" y=\"{}\">{text}</text>",
                height - 4
            );
        }
        let _ = write!(
            svg,
            "</g><svg viewBox=\"0 0 {WIDTH} {}\" preserveAspectRatio=\"none\" width=\"100%\" height=\"{plot}\">",
            plot * 10
        );
        for curve in &self.curves {
            self.draw(curve, scale, &|value| (y(value) * 10.0) as i32, &mut svg);
        }
        let _ = write!(svg, "</svg><g class=\"labels\">{labels}</g>");
        self.hints(&mut svg);
        svg + "</svg>"
    }

    fn draw(&self, curve: &Curve, scale: Scale, y: &dyn Fn(f32) -> i32, svg: &mut String) {
        let is_wide = |point: &Point| scale.share(point.high) - scale.share(point.low) > 0.01;
        let class = curve.class;
        if curve.pieces.iter().flatten().any(is_wide) {
            let d = band(&curve.pieces, y);
            let _ = write!(svg, "<path class=\"band {class}\" d=\"{d}\"/>");
        }
        svg.push_str(&line(class, &curve.pieces, |point| y(point.mean)));
    }

    /// Invisible areas with tooltips, whose size is in `style.css`.
    fn hints(&self, svg: &mut String) {
        let mut hints = vec![String::new(); MAX_HINTS];
        let slot = |x: f32| ((x * MAX_HINTS as f32) as usize).min(MAX_HINTS - 1);
        let span = self.window.to - self.window.from;
        let time = |at: i64| match span {
            _ if span <= 2 * DAY => format!("{} {}", day_and_month(at), hour(at)),
            _ => format!("{} {}", day_and_month(at), year(at)),
        };
        for curve in &self.curves {
            let mut shown = [false; MAX_HINTS];
            for point in curve.pieces.iter().flatten() {
                let slot = slot(point.x);
                if std::mem::replace(&mut shown[slot], true) {
                    continue;
                }
                let text = &mut hints[slot];
                let start = if text.is_empty() { time(point.at) + ": " } else { ", ".to_owned() };
                let name =
                    if self.curves.len() > 1 { format!("{} ", curve.name) } else { String::new() };
                let _ = write!(text, "{start}{name}{}", mean(point.mean));
                if point.high - point.low >= 1.0 {
                    let (low, high) = (grouped(point.low as i64), grouped(point.high as i64));
                    let _ = write!(text, " ({low} to {high})");
                }
            }
        }
        for (at, text) in self.ticks.iter().filter(|(at, _)| self.window.x(*at) >= 0.0) {
            let hint = &mut hints[slot(self.window.x(*at))];
            let separator = if hint.is_empty() { "" } else { "; " };
            let _ = write!(hint, "{separator}{text}");
        }
        svg.push_str("<g class=\"hints even\">");
        for (index, text) in hints.iter().enumerate().filter(|(_, text)| !text.is_empty()) {
            let _ = write!(
                svg,
                "<rect x=\"{:.1}%\"><title>{}</title></rect>",
                index as f32 * 100.0 / MAX_HINTS as f32,
                escaped(text)
            );
        }
        svg.push_str("</g>");
    }
}

/// A mean: whole where it is large.
fn mean(value: f32) -> String {
    if value < 100.0 && (value - value.round()).abs() >= 0.05 {
        return format!("{value:.1}");
    }
    grouped(value.round() as i64)
}

/// A curve of the height of a line of text.
pub fn spark(class: &str, pieces: &Pieces) -> String {
    let max = pieces.iter().flatten().map(|point| point.mean).fold(0.001, f32::max);
    let line = line(class, pieces, |point| (200.0 * (1.0 - point.mean / max)) as i32);
    format!(
        "<svg class=\"spark {class}\" viewBox=\"0 -20 {WIDTH} 240\" preserveAspectRatio=\"none\" aria-hidden=\"true\">{line}</svg>"
    )
}

/// The level in a strip of a share in per cent, 3 for a whole day.
pub fn level(share: u8) -> u8 {
    match share {
        0 => 0,
        1..=49 => 1,
        50..=94 => 2,
        _ => 3,
    }
}

/// Days or weeks as a strip: `None` where nothing is known, else per cent of the passes. A day is a
/// dash of a line whose height and place, by its level, are in `style.css`.
pub fn strip(cells: &[Option<u8>], unit: &str) -> String {
    let mut levels = [const { String::new() }; 4];
    let mut start = 0;
    for run in cells.chunk_by(|a, b| a.map(level) == b.map(level)) {
        if let Some(share) = run[0] {
            let line = &mut levels[usize::from(level(share))];
            let _ = write!(line, "M{} 0h{}", start * 10 + 1, run.len() * 10 - 2);
        }
        start += run.len();
    }
    let known = cells.iter().flatten().count();
    let whole = cells.iter().flatten().filter(|share| level(**share) == 3).count();
    let mut svg = format!(
        "<svg class=\"strip\" viewBox=\"0 0 {} 10\" preserveAspectRatio=\"none\" role=\"img\" aria-label=\"answered throughout in {whole} of {known} {unit}\">",
        cells.len() * 10
    );
    for (level, d) in levels.iter().enumerate().filter(|(_, d)| !d.is_empty()) {
        let _ = write!(svg, "<path class=\"l{level}\" d=\"{d}\"/>");
    }
    svg + "</svg>"
}

/// The bar of a share of the largest, from 0 to 1.
pub fn bar(share: f32) -> String {
    let width = (share * 100.0).clamp(0.4, 100.0);
    format!(
        "<svg class=\"bar\" width=\"100%\" height=\"8\" aria-hidden=\"true\"><rect width=\"{width:.1}%\" height=\"8\"/></svg>"
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counts(values: &[f32]) -> Vec<StepCount> {
        let count = |(step, nodes): (usize, &f32)| StepCount {
            step,
            nodes: *nodes,
            low: *nodes,
            high: *nodes,
        };
        values.iter().enumerate().map(count).collect()
    }

    #[test]
    fn a_gap_is_a_gap_and_a_missing_count_is_zero() {
        let steps = [0, 10, 20, 90, 100];
        let curve = pieces(&steps, &counts(&[1.0, 2.0])[1..], Window { from: 0, to: 100 }, 200);
        let means: Vec<Vec<f32>> =
            curve.iter().map(|piece| piece.iter().map(|point| point.mean).collect()).collect();
        assert_eq!(means, [vec![0.0, 2.0, 0.0], vec![0.0, 0.0]]);
    }

    #[test]
    fn many_points_are_joined_and_gaps_stay() {
        let steps: Vec<i64> = (0..2_000).filter(|day| !(500..600).contains(day)).collect();
        let values: Vec<f32> = steps.iter().map(|day| (*day % 7) as f32).collect();
        let curve = pieces(&steps, &counts(&values), Window { from: 0, to: 1_999 }, 200);
        assert_eq!(curve.len(), 2);
        assert!(curve.iter().flatten().count() <= 200);
        assert!(curve.iter().flatten().all(|point| point.low == 0.0 && point.high == 6.0));
    }

    #[test]
    fn lines_of_counts_are_whole_numbers() {
        for max in 1..500_u32 {
            let (top, lines) = nice(max as f32);
            assert!(top >= max as f32, "{max}");
            let step = top / lines as f32;
            assert!((step - step.round()).abs() < 0.001, "{max}: {top} in {lines}");
        }
    }

    #[test]
    fn the_axis_of_a_constant_starts_at_zero() {
        let scale = |values: &[f32]| {
            let steps: Vec<i64> = (0..).take(values.len()).collect();
            let pieces = pieces(&steps, &counts(values), Window { from: 0, to: 9 }, 200);
            Scale::of_values(&[Curve { class: "", name: String::new(), pieces }])
        };
        assert_eq!(scale(&[21.0; 3]).bottom, 0.0);
        assert_eq!(scale(&[1_000.0, 1_400.0]).bottom, 900.0);
    }

    #[test]
    fn text_in_a_chart_is_escaped() {
        let chart = Chart {
            label: "</svg><script>".to_owned(),
            curves: vec![Curve {
                class: "",
                name: String::new(),
                pieces: pieces(&[5], &counts(&[3.0]), Window { from: 5, to: 5 }, 200),
            }],
            window: Window { from: 5, to: 5 },
            height: 100,
            ticks: vec![(5, "<b>".to_owned())],
        };
        let svg = chart.to_svg();
        assert!(!svg.contains("<script") && !svg.contains("<b>"), "{svg}");
        assert!(svg.contains("<path class=\"line dot \" d=\"M1000 "), "a single point: {svg}");
    }

    #[test]
    fn a_strip_says_in_words_what_it_shows() {
        let svg = strip(&[None, Some(100), Some(95), Some(0)], "days");
        assert!(svg.contains("answered throughout in 2 of 3 days"), "{svg}");
        let lines = "<path class=\"l0\" d=\"M31 0h8\"/><path class=\"l3\" d=\"M11 0h18\"/>";
        assert!(svg.contains(lines), "{svg}");
    }
}
