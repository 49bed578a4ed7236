//! Plain data: addresses, outcomes, times, targets, rows.

pub mod address;
pub mod clock_jump;
pub mod filter;
pub mod outcome;
pub mod rows;
pub mod running_time;
pub mod target;
pub mod time;
