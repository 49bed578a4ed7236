//! What the tests in virtual time share: parameters, seeds, and the comparison with the network.

use std::sync::Arc;

use bitdash::commands::crawl::params::Params;
use bitdash::config::Config;
use bitdash_core::lookup::species::Rules;
use bitdash_core::vocabulary::filter::Filter;
use bitdash_core::vocabulary::rows::Batch;
use bitdash_simnet::network::world::{World, WorldParams};
use bitdash_simnet::sim::SimulationParams;
use bitdash_simnet::verify::map::Map;
use bitdash_simnet::verify::{compare, truth};

/// The parameters of a crawl that dials nothing outside `only`; everything if it is empty.
pub fn params(seed: u64, config: &Config, only: &str, max_sockets: usize) -> SimulationParams {
    let only: Vec<_> = only.split_terminator(' ').map(|net| net.parse().unwrap()).collect();
    let filter = Filter::new(&[], &only);
    let Params { crawler, probe, writer } =
        Params::new(config, filter, Rules::builtin(), max_sockets);
    SimulationParams { seed, crawler, writer, probe, splits_bytes: false }
}

/// The same with the default configuration and loopback alone.
pub fn loopback_params(seed: u64, max_sockets: usize) -> SimulationParams {
    params(seed, &Config::default(), "127.0.0.0/8", max_sockets)
}

pub fn world(params: WorldParams) -> Arc<World> {
    Arc::new(World::generate(&params).unwrap())
}

/// Parses a number, `0x` for hexadecimal.
pub fn number(text: &str) -> u64 {
    let number = match text.strip_prefix("0x") {
        Some(hex) => u64::from_str_radix(hex, 16),
        None => text.parse(),
    };
    number.unwrap_or_else(|_| panic!("{text} is not a number"))
}

/// The seed of `BITDASH_SEED`, else 1 to `BITDASH_SEEDS`.
pub fn seeds(default: u64) -> Vec<u64> {
    let variable = |name| std::env::var(name).ok().map(|text| number(&text));
    match variable("BITDASH_SEED") {
        Some(seed) => vec![seed],
        None => (1..=variable("BITDASH_SEEDS").unwrap_or(default)).collect(),
    }
}

/// Panics unless the rows of these batches are the map of the world.
pub fn check_rows(world: &World, batches: &[Batch], seed: u64) {
    let comparison = compare(&truth::of_world(world), &Map::of_batches(batches));
    assert!(comparison.differences.is_empty(), "seed {seed:#x}: {comparison}");
}
