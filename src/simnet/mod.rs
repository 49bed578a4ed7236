//! A simulated Bitcoin network on loopback, for tests, benches and the quick start.
//!
//! [`world`] draws the nodes, the dead addresses and who knows whom, from one seed (layer 2, pure);
//! [`behaviour`] is a node's side of one conversation, and [`zoo`] the ways to be bad at it, without sockets
//! (layer 2); `serve` puts all behind listeners (layer 3), and [`report`] is what the network saw of the crawler.

pub mod behaviour;
pub mod census;
pub mod churn;
pub mod distribution;
pub mod knowledge;
pub mod manner;
mod messages;
pub mod network;
pub mod report;
pub mod serve;
pub mod simulation;
mod sockets;
pub mod talk;
pub mod tally;
pub mod world;
pub mod zoo;
