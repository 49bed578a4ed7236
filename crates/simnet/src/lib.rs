//! A simulated Bitcoin network, on loopback and in virtual time.
//!
//! [`network`] draws the nodes, the dead addresses and which node gossips which address, all from
//! one seed. [`node`] is a peer's side of one conversation, and [`zoo`] is the collection of
//! misbehaviours; all three are sans-I/O. [`serve`] puts them behind real sockets on loopback,
//! [`sim`] drives the crawler's machines against them in virtual time, and [`verify`] compares a
//! map with the network.

pub mod network;
pub mod node;
pub mod past;
pub mod serve;
pub mod sim;
pub mod verify;
pub mod zoo;
