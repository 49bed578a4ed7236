//! Which address is dialled next, and when a pass starts and ends.

pub mod crawler;
pub mod limiter;
pub mod patience;
pub mod queue;
pub mod stats;
pub mod timers;
pub mod uplink;
