//! (being built)
pub mod writer;
