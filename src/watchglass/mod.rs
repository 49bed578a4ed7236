//! The Bitcoin wire protocol, as much of it as a crawler speaks.
#![cfg_attr(
    not(test),
    deny(
        clippy::unwrap_used,
        clippy::expect_used,
        clippy::panic,
        clippy::indexing_slicing,
        clippy::arithmetic_side_effects,
        clippy::cast_possible_truncation
    )
)]

mod addr;
mod decoder;
mod error;
mod header;
mod keep;
mod message;
pub mod text;
mod version;
pub mod wire;

pub use addr::{Addr, AddrEntry, MAX_ADDR_TO_SEND};
pub use decoder::Decoder;
pub use error::DecodeError;
pub use header::{
    Command, HEADER_LENGTH, Header, MAX_PROTOCOL_MESSAGE_LENGTH, Magic, ParseMagicError, checksum,
};
pub use message::{Message, encode_message};
pub use version::{MAX_SUBVERSION_LENGTH, NetworkAddress, Version};
