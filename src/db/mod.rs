//! PostgreSQL: connections, errors, the schema, reading and writing.

pub mod compare;
pub mod connect;
mod copy;
pub mod error;
pub mod export;
mod password_file;
pub mod places;
pub mod reader;
pub mod schema;
pub mod site;
pub mod species;
pub mod timestamp;
pub mod writer;

pub use error::StoreError;
