//! An invented past for the database of a crawled simulated network, so that a newcomer sees charts
//! and not one point.
//!
//! Days are added before the first pass: counts of every value that the newest pass has, and what
//! each node answered. A row of `history_notes` that begins with [`MARK`] says so; the website
//! shows it on every page.

use std::error::Error;
use std::f64::consts::TAU;
use std::time::{Duration, SystemTime};

use fastrand::Rng;
use postgres::{Client, NoTls, Transaction};

/// How the note about an invented past begins.
pub const MARK: &str = "Invented: ";

const DAY: Duration = Duration::from_secs(86_400);
/// Passes of a day at the default interval.
const PASSES: i32 = 48;
/// Share of a day in the rolls: all passes, and a node that was not known.
const WHOLE: u8 = 250;
const UNKNOWN: u8 = 255;
/// Days before the first pass in which a node that is up always answered.
const RECENT: u32 = 30;
/// Days before the first pass during which the invented crawler did not run.
const GAP: std::ops::Range<u32> = 230..251;

/// What was invented.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Invented {
    /// Number of days.
    pub days: u32,
    /// Number of nodes with a past.
    pub nodes: usize,
}

/// Counts of a dimension at the newest pass.
struct Dimension {
    name: String,
    values: Vec<Value>,
}

struct Value {
    id: i32,
    nodes: f64,
    /// Of its slow wave.
    phase: f64,
    /// Share of its nodes that it gained over the whole past.
    growth: f64,
}

impl Value {
    /// The invented number of nodes; `age` is 1 at the beginning and 0 at the end.
    fn at(&self, age: f64, rng: &mut Rng) -> f64 {
        let slow = 1.0 + 0.12 * ((age * 3.0).mul_add(TAU, self.phase).sin() - self.phase.sin());
        let noise = 1.0 + (rng.f64() - 0.5) * 0.05;
        (self.nodes * slow * (1.0 - self.growth * age) * noise).max(0.0)
    }
}

/// Adds an invented past of this many years to a crawled database.
///
/// # Errors
/// It is not the database of a simulated network, has no pass or has a past, or PostgreSQL fails.
pub fn invent(url: &str, years: u32, seed: u64) -> Result<Invented, Box<dyn Error>> {
    let mut client = Client::connect(url, NoTls)?;
    client.batch_execute("SET search_path = public, bitdash_internal; SET TimeZone = 'UTC'")?;
    let first = check(&mut client)?;
    let mut rng = Rng::with_seed(seed);
    let days = years * 365;
    let mut t = client.transaction()?;
    write_days(&mut t, first, days, &mut rng)?;
    let nodes = write_rolls(&mut t, first, days, &mut rng)?;
    let text = format!("{MARK}everything before this day comes from bitdash-simnet history.");
    t.execute("INSERT INTO history_notes (at, text) VALUES ($1, $2)", &[&first, &text])?;
    t.commit()?;
    Ok(Invented { days, nodes })
}

/// The beginning of the day of the first pass.
fn check(client: &mut Client) -> Result<SystemTime, Box<dyn Error>> {
    let real = "SELECT count(*) FROM nodes WHERE NOT host <<= '127.0.0.0/8'";
    if client.query_one(real, &[])?.try_get::<_, i64>(0)? > 0 {
        return Err("this is not the database of a simulated network: it has real nodes".into());
    }
    let sql = "SELECT date_trunc('day', min(at)),
        EXISTS (SELECT FROM history_steps) OR EXISTS (SELECT FROM roll_days)
        FROM history_passes";
    let row = client.query_one(sql, &[])?;
    if row.try_get(1)? {
        return Err("the database has days in its history already".into());
    }
    let first: Option<SystemTime> = row.try_get(0)?;
    first.ok_or_else(|| "no pass has finished: crawl the network first".into())
}

fn newest(t: &mut Transaction, rng: &mut Rng) -> Result<Vec<Dimension>, postgres::Error> {
    let sql = "SELECT dimension, ids, nodes FROM history_passes
        WHERE pass = (SELECT max(pass) FROM history_passes) ORDER BY dimension";
    let mut dimensions = Vec::new();
    for row in t.query(sql, &[])? {
        let (ids, nodes): (Vec<i32>, Vec<i32>) = (row.try_get(1)?, row.try_get(2)?);
        let mut value = |(id, nodes)| Value {
            id,
            nodes: f64::from(nodes),
            phase: rng.f64() * TAU,
            growth: rng.f64().powi(2),
        };
        let values = ids.into_iter().zip(nodes).map(&mut value).collect();
        dimensions.push(Dimension { name: row.try_get(0)?, values });
    }
    Ok(dimensions)
}

fn write_days(
    t: &mut Transaction,
    first: SystemTime,
    days: u32,
    rng: &mut Rng,
) -> Result<(), postgres::Error> {
    let insert = t.prepare(
        "INSERT INTO history_steps (dimension, step, at, passes, last_pass, ids, sums, lows, highs)
            VALUES ($1, 'd', $2, $3, 0, $4, $5, $6, $7)",
    )?;
    for dimension in newest(t, rng)? {
        let ids: Vec<i32> = dimension.values.iter().map(|value| value.id).collect();
        t.execute("UPDATE history_values SET in_days = true WHERE id = ANY($1)", &[&ids])?;
        for age in (1..=days).rev().filter(|age| !GAP.contains(age)) {
            let (mut sums, mut lows, mut highs) = (Vec::new(), Vec::new(), Vec::new());
            for value in &dimension.values {
                let mean = value.at(f64::from(age) / f64::from(days), rng);
                let spread = mean.sqrt() * (0.1 + rng.f64() * 0.3);
                sums.push((mean * f64::from(PASSES)).round() as i32);
                lows.push((mean - spread).floor().max(0.0) as i32);
                highs.push((mean + spread).ceil() as i32);
            }
            let at = first - DAY * age;
            t.execute(&insert, &[&dimension.name, &at, &PASSES, &ids, &sums, &lows, &highs])?;
        }
    }
    Ok(())
}

/// The invented habits of a node.
struct Habits {
    /// Days before the first pass since which it is known.
    known: u32,
    /// How likely it answers throughout a day.
    reliability: f64,
    is_down: bool,
}

impl Habits {
    /// What the real passes show is true of the days just before them.
    fn reliability(&self, age: u32) -> f64 {
        if age <= RECENT && !self.is_down { 1.0 } else { self.reliability }
    }
}

/// What every node answered, and since when it is known.
fn write_rolls(
    t: &mut Transaction,
    first: SystemTime,
    days: u32,
    rng: &mut Rng,
) -> Result<usize, postgres::Error> {
    let sql = "SELECT o.ordinal, n.status = 'down' FROM node_ordinals o
        JOIN nodes n ON n.host = o.host AND n.port = o.port ORDER BY 1";
    let mut nodes: Vec<Option<Habits>> = Vec::new();
    for row in t.query(sql, &[])? {
        let ordinal: i32 = row.try_get(0)?;
        let is_down: bool = row.try_get(1)?;
        nodes.resize_with(ordinal.unsigned_abs() as usize, || None);
        let known = (f64::from(days) * rng.f64().powi(2)) as u32;
        let reliability = if is_down { rng.f64() * 0.6 } else { 1.0 - rng.f64().powi(3) * 0.5 };
        nodes.push(Some(Habits { known, reliability, is_down }));
    }
    let (mut answered, mut passes) = (vec![0_i32; nodes.len()], vec![0_i32; nodes.len()]);
    let insert = t.prepare("INSERT INTO roll_days (day, passes, share) VALUES ($1, $2, $3)")?;
    for age in (1..=days).rev().filter(|age| !GAP.contains(age)) {
        let mut shares = vec![UNKNOWN; nodes.len()];
        for (ordinal, habits) in nodes.iter().enumerate() {
            let Some(habits) = habits.as_ref().filter(|habits| habits.known >= age) else {
                continue;
            };
            let reliability = habits.reliability(age);
            let count = match rng.f64() {
                luck if luck < reliability => PASSES,
                luck if luck < reliability + 0.1 => rng.i32(1..PASSES),
                _ => 0,
            };
            shares[ordinal] = (count * i32::from(WHOLE) / PASSES) as u8;
            answered[ordinal] += count;
            passes[ordinal] += PASSES;
        }
        t.execute(&insert, &[&(first - DAY * age), &PASSES, &shares])?;
    }
    t.execute("DELETE FROM roll_totals", &[])?;
    let totals = "INSERT INTO roll_totals (answered, passes) VALUES ($1, $2)";
    t.execute(totals, &[&answered, &passes])?;
    let seen = t.prepare(
        "UPDATE nodes n SET first_seen = $2 FROM node_ordinals o
            WHERE o.ordinal = $1 AND o.host = n.host AND o.port = n.port",
    )?;
    for (ordinal, habits) in nodes.iter().enumerate() {
        if let Some(habits) = habits.as_ref().filter(|habits| habits.known > 0) {
            let ordinal = i32::try_from(ordinal).unwrap_or(i32::MAX);
            t.execute(&seen, &[&ordinal, &(first - DAY * habits.known)])?;
        }
    }
    Ok(nodes.iter().flatten().count())
}
