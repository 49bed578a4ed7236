//! What is known of a node beyond what it says: which family its software belongs to.
//!
//! Layer 1: data and pure functions. Owns: the rules of species. Must not touch: sockets, the
//! database, clocks, logs.

pub mod services;
pub mod species;
