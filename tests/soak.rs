//! Thirty days of crawling in virtual time: the memory of the process must stay flat.
//!
//! The network is one hundredth of the real one's size: nodes are born, die, flap and return, dead addresses come
//! and go in gossip, and a tenth of the nodes invents a thousand addresses for each reply. What may honestly grow is
//! the address book, up to `crawl.max_addresses`; here that bound is met within the first days, so that the second
//! half of the run is a steady state. What is held for the database is taken out as the writer does it.
//!
//! `BITDASH_SOAK_DAYS=n` makes it longer. This file holds one test alone: the memory is that of the whole process.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitdash::commands::crawl::params::Params;
use bitdash::crawl::filter::Filter;
use bitdash::io::config::Config;
use bitdash::io::process::resident_bytes;
use bitdash::simnet::churn::{Churn, ChurnParams};
use bitdash::simnet::simulation::{Simulation, SimulationParams};

const DAY: Duration = Duration::from_secs(86_400);
/// What the second half may add.
const MOST_GROWTH: f64 = 0.05;
const MAX_ADDRESSES: usize = 40_000;

#[test]
fn a_month_of_crawling_takes_no_more_memory_than_half_a_month() {
    let days = std::env::var("BITDASH_SOAK_DAYS").ok().and_then(|days| days.parse().ok());
    let days: u32 = days.unwrap_or(30);
    let mut simulation = simulation(f64::from(days));
    let mut memory = Vec::new();
    let mut rows = 0;
    for day in 1..=days {
        let (mut sum, mut samples) = (0, 0);
        for hour in 1..=24 {
            let end = DAY * (day - 1) + DAY / 24 * hour;
            while simulation.now().mono < end {
                simulation.step();
            }
            rows += simulation.drain_batches().iter().map(|batch| batch.rows()).sum::<usize>();
            simulation.drain_events();
            sum += resident_bytes().unwrap();
            samples += 1;
        }
        memory.push(sum / samples);
        let totals = simulation.crawler().totals();
        println!(
            "day {day}: {:.2} MB, {} nodes, {} addresses, {} dials, {rows} rows",
            megabytes(sum / samples),
            totals.nodes,
            totals.nodes + totals.candidates,
            simulation.dials,
        );
    }
    // The run is what it says: the bound was met before the half, and everybody was busy.
    let totals = simulation.crawler().totals();
    let known = (totals.nodes + totals.candidates) as usize;
    assert!((MAX_ADDRESSES * 9 / 10..=MAX_ADDRESSES).contains(&known), "{known} addresses");
    assert!(simulation.dials > 10_000 * u64::from(days), "{} dials", simulation.dials);
    simulation.tally().check().unwrap();
    let half = memory[memory.len() / 2 - 1];
    let end = memory[memory.len() - 1];
    let growth = end as f64 / half as f64 - 1.0;
    println!("growth over the second half: {:.2} %", growth * 100.0);
    assert!(
        growth < MOST_GROWTH,
        "{:.2} MB at the half, {:.2} MB at the end",
        megabytes(half),
        megabytes(end)
    );
}

fn simulation(days: f64) -> Simulation<Churn> {
    let churn = ChurnParams { days: days + 0.5, flood_share: 0.1, ..ChurnParams::default() };
    let churn = Arc::new(Churn::generate(&churn.scaled(0.01)));
    let text = format!("[crawl]\npass_interval = \"1h\"\nmax_addresses = {MAX_ADDRESSES}\n");
    let config = Config::parse(&text, "soak", Path::new(".")).unwrap();
    let batch_rows = config.database.batch_rows as usize;
    // Its addresses are public ones, and no socket is ever opened for them.
    let params = Params::new(&config, Filter::new(&[], &[]), 50);
    let Params { crawler, recorder, probe, writer } = params;
    let flush_interval = writer.flush_interval;
    let params =
        SimulationParams { seed: 1, crawler, recorder, probe, flush_interval, splits_bytes: false };
    Simulation::new(churn, params).with_writer(Duration::from_millis(20), batch_rows)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
