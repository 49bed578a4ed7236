//! Sockets, DNS and the nodes file.

pub mod driver;
pub mod nodes_file;
pub mod resolve;
