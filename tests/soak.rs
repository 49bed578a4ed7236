//! Thirty days of crawling in virtual time: the memory of the process must stay flat.
//!
//! The network has one hundredth of the real size: nodes are born, die, flap and return, dead
//! addresses come and go in gossip, and a tenth of the nodes invent a thousand addresses for each
//! reply. Only the address book may grow, up to `crawl.max_addresses`; it reaches that limit within
//! the first days, so the second half of the run is a steady state.
//!
//! `BITDASH_SOAK_DAYS=n` sets the number of days. This file has one test only, since the memory is
//! that of the whole process.

mod support;

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bitdash::config::Config;
use bitdash::sys::process::resident_bytes;
use bitdash_simnet::network::churn::{Churn, ChurnParams};
use bitdash_simnet::sim::Simulation;
use support::simulation::params;

const DAY: Duration = Duration::from_secs(86_400);
/// Maximum growth over the second half.
const MAX_GROWTH: f64 = 0.05;
const MAX_ADDRESSES: usize = 40_000;

#[test]
fn memory_stays_flat_over_a_month_of_crawling() {
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
    // The address book is full, and the crawl was busy.
    let totals = simulation.crawler().totals();
    let known = (totals.nodes + totals.candidates) as usize;
    assert!((MAX_ADDRESSES * 9 / 10..=MAX_ADDRESSES).contains(&known), "{known} addresses");
    assert!(simulation.dials > 10_000 * u64::from(days), "{} dials", simulation.dials);
    simulation.conservation().check().unwrap();
    let half = memory[memory.len() / 2 - 1];
    let end = memory[memory.len() - 1];
    let growth = end as f64 / half as f64 - 1.0;
    println!("growth over the second half: {:.2} %", growth * 100.0);
    assert!(
        growth < MAX_GROWTH,
        "{:.2} MB after half of the run, {:.2} MB at the end",
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
    // Its addresses are public, and no socket is ever opened for them.
    let params = params(1, &config, "", 50);
    Simulation::new(churn, params).with_writer(Duration::from_millis(20), batch_rows)
}

fn megabytes(bytes: u64) -> f64 {
    bytes as f64 / 1e6
}
