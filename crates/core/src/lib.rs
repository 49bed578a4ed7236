//! Everything that decides: which address is probed next, what a conversation means, what is
//! remembered, what is written.
//!
//! Sans-I/O: no socket, thread, file, clock or logger. Time and randomness come in as arguments, so
//! a whole crawl of the real network's size runs in a test, in virtual time, under one seed. The
//! program `bitdash` drives these machines with real sockets and PostgreSQL; the simulation in
//! `bitdash-simnet` drives them in virtual time.
//!
//! - [`vocabulary`]: the plain data that all others speak in.
//! - [`lookup`]: what is derived from what a node says of itself.
//! - [`probe`]: the conversation with one peer.
//! - [`schedule`]: which address is dialled next, and when a pass begins and ends.
//! - [`book`]: every address heard of.
//! - [`record`]: between the event loop and the database writer.

pub mod book;
pub mod lookup;
pub mod probe;
pub mod record;
pub mod schedule;
pub mod vocabulary;
