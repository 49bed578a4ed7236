//! A simulated node's side of a connection. Sans-I/O.

pub mod conversation;
pub(crate) mod messages;
pub mod peer;
pub mod profile;
