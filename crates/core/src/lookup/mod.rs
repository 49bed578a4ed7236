//! What the claims of a `version` imply: species of the software and names of the services.
//!
//! Sans-I/O: data and pure functions.

pub mod services;
pub mod species;
