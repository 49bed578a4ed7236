//! (being built)
pub mod migrate;
pub mod status;
pub mod table;
