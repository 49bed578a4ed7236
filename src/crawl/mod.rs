//! Everything that decides: which address is probed next, what a conversation means, what is remembered.
//!
//! Layer 1 and 2 of the house: plain data first, then the machines. No socket, thread, file, clock or
//! logger in here. Time and randomness come in as arguments, so that a whole crawl of the real network's
//! size runs in a test, in virtual time, under one seed.

pub mod address;
pub mod backoff;
pub mod batch;
pub mod book;
pub mod clock_watch;
pub mod crawler;
pub mod exchange;
pub mod filter;
pub mod limiter;
pub mod line;
pub mod outcome;
pub mod probe;
pub mod queue;
pub mod recorder;
pub mod stats;
pub mod target;
pub mod time;
pub mod timer;
pub mod trace;
