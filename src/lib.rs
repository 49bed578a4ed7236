//! bitdash: a Bitcoin network crawler, and the wire protocol that it speaks.
//!
//! The crate is layered; a module uses only what stands above it here:
//!
//! - [`watchglass`]: the protocol. No I/O, clock, randomness, logger or configuration. The only part without features.
//! - `crawl` and `lookup`: everything that decides, free of sockets, threads, clocks and logs. The feature `machines`;
//!   all that follows is the feature `crawler`.
//! - `simnet`: a simulated Bitcoin network for tests, benches and the quick start.
//! - `io`: the outside world: sockets, the database, files, signals.
//! - `commands`: what the command line offers.

pub mod watchglass;

#[cfg(feature = "crawler")]
pub mod commands;
#[cfg(feature = "machines")]
pub mod crawl;
#[cfg(feature = "crawler")]
pub mod io;
#[cfg(feature = "machines")]
pub mod lookup;
#[cfg(feature = "crawler")]
pub mod simnet;
