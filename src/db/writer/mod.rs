//! The writer: writes batches, and loads the addresses at start.

pub mod compact;
mod connection;
pub mod events;
pub mod import;
mod journal;
mod load;
mod nodes;
mod rolls;
pub mod store;
pub mod thread;

use bitdash_core::vocabulary::address::Address;
pub use compact::{CompactionParams, CompactionReport};
pub use store::Store;

/// An address as the database's key.
fn key(address: Address) -> i64 {
    address.to_bits().cast_signed()
}

/// A count for an `integer` column, clamped to its maximum.
fn integer(count: u32) -> i32 {
    i32::try_from(count).unwrap_or(i32::MAX)
}
