//! The database's side of the crawl: the schema, the connection, batches in and what is known out.
//!
//! Layer 3. Nothing in here decides what is crawled.

pub mod connect;
mod copy;
mod desk;
pub mod error;
pub mod fold;
mod journal;
mod load;
pub mod schema;
pub mod store;
pub mod thread;

pub use error::StoreError;
pub use fold::{FoldParams, FoldReport};
pub use store::Store;
