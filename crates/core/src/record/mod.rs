//! Between the event loop and the database writer: messages, rows in memory and batches.

pub mod messages;
pub mod recorder;
pub mod writer_machine;
