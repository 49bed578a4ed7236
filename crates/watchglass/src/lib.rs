//! The part of the Bitcoin wire protocol that a crawler speaks.
//!
//! Headers, `version`, `verack`, `getaddr`, `addr`, `ping` and `pong`, and the text form of user
//! agents. Sans-I/O: no sockets, clocks, randomness, loggers or configuration; its only
//! dependencies are `byteorder` and `sha2`.
//!
//! Invariants:
//! 1. Invalid bytes from the network cause a descriptive error, never a panic.
//! 2. A [`Decoder`] allocates no memory for announced or unwanted bytes.
//! 3. Encoded values decode to the same value; a stream decodes to the same messages however it is
//!    split.
//!
//! # A whole handshake
//!
//! ```
//! use watchglass::{
//!     Addr, AddrEntry, Command, DecodeError, Decoder, Magic, Message, NetworkAddress, Version,
//!     encode_message, text,
//! };
//!
//! # fn main() -> Result<(), DecodeError> {
//! // Our own version: no services, no transactions, no address.
//! let ours = Version {
//!     version: 70015,
//!     services: 0,
//!     timestamp: 1_700_000_000,
//!     addr_recv: NetworkAddress::from_ipv4(0, [127, 0, 0, 1].into(), 8333),
//!     addr_from: Some(NetworkAddress::UNSPECIFIED),
//!     nonce: Some(0x1234_5678_9abc_def0),
//!     user_agent: Some(b"/bitdash:0.1.0/".to_vec()),
//!     user_agent_length: 15,
//!     start_height: Some(0),
//!     relay: Some(false),
//!     trailing: 0,
//! };
//! let mut payload = Vec::new();
//! ours.encode(&mut payload);
//! let mut sent = Vec::new();
//! encode_message(Magic::MAIN, Command::VERSION, &payload, &mut sent);
//!
//! // The peer receives it in pieces of 10 bytes.
//! let mut node = Decoder::new(Magic::MAIN);
//! let mut received = Vec::new();
//! for mut piece in sent.chunks(10) {
//!     while let Some(message) = node.decode(&mut piece)? {
//!         received.push(message);
//!     }
//! }
//! assert_eq!(received, [Message::Version(ours.clone())]);
//!
//! // It answers with its version (TRB: no relay byte), verack, and an unwanted message.
//! let theirs = Version {
//!     version: 99999,
//!     services: 1,
//!     user_agent: Some(b"/therealbitcoin.org:0.9.99.99/".to_vec()),
//!     user_agent_length: 30,
//!     nonce: Some(1),
//!     relay: None,
//!     ..ours
//! };
//! let mut answer = Vec::new();
//! let mut payload = Vec::new();
//! theirs.encode(&mut payload);
//! encode_message(Magic::MAIN, Command::VERSION, &payload, &mut answer);
//! encode_message(Magic::MAIN, Command::VERACK, &[], &mut answer);
//! let inv = Command::new("inv").expect("a short name");
//! encode_message(Magic::MAIN, inv, &[0; 37], &mut answer);
//!
//! let mut crawler = Decoder::new(Magic::MAIN);
//! let mut input = &answer[..];
//! let Some(Message::Version(version)) = crawler.decode(&mut input)? else { panic!() };
//! assert_eq!((version.version, version.relay), (99999, None));
//! let user_agent = version.user_agent.unwrap_or_default();
//! assert_eq!(text::from_bytes(&user_agent), "/therealbitcoin.org:0.9.99.99/");
//! assert_eq!(crawler.decode(&mut input)?, Some(Message::Verack));
//! assert_eq!(crawler.decode(&mut input)?, Some(Message::Other { command: inv, length: 37 }));
//!
//! // We send verack and getaddr in one write, and receive addresses.
//! let mut sent = Vec::new();
//! encode_message(Magic::MAIN, Command::VERACK, &[], &mut sent);
//! encode_message(Magic::MAIN, Command::GETADDR, &[], &mut sent);
//! let mut input = &sent[..];
//! assert_eq!(node.decode(&mut input)?, Some(Message::Verack));
//! assert_eq!(node.decode(&mut input)?, Some(Message::Getaddr));
//!
//! let known =
//!     AddrEntry { time: Some(1_699_999_000), services: 1, ip: [192, 0, 2, 1].into(), port: 8333 };
//! let mut payload = Vec::new();
//! Addr::encode(&[known], &mut payload);
//! let mut answer = Vec::new();
//! encode_message(Magic::MAIN, Command::ADDR, &payload, &mut answer);
//! let Some(Message::Addr(addr)) = crawler.decode(&mut &answer[..])? else { panic!() };
//! assert_eq!(addr.entries, [known]);
//!
//! // The first byte reveals a web server on that port.
//! let web = b"HTTP/1.1 400 Bad Request";
//! let error = Decoder::new(Magic::MAIN).decode(&mut &web[..]).unwrap_err();
//! assert!(error.is_foreign());
//! # Ok(())
//! # }
//! ```
//!
//! `examples/prober.rs` is a prober in some thirty lines of `std::net`.
//!
//! # Limits
//!
//! | what | limit | source | beyond it |
//! |---|---|---|---|
//! | payload | [`MAX_PROTOCOL_MESSAGE_LENGTH`], 4,000,000 bytes | Bitcoin Core net.h | error, the stream ends |
//! | user agent | [`MAX_SUBVERSION_LENGTH`], 256 bytes | Bitcoin Core net.h | its first 256 bytes are kept, its length is reported |
//! | entries of an `addr` | [`MAX_ADDR_TO_SEND`], 1000 | Bitcoin Core net_processing.cpp | the first 1000 are read, the count is reported |
//! | bytes after the last known field of `version`, `ping`, `pong` | none | BIP 37 and others append fields | counted or ignored |
//! | memory of a decoder's payload | 30,000 bytes | 1000 entries of 30 | only a full `addr` reaches it; a `version` needs at most 350 |
//! | memory between messages | 512 bytes | | the buffer is freed |
//! | payload of any other command | | | neither stored nor checked |
//!
//! # Breaking changes
//!
//! Releases follow Cargo's semantic versioning. These are breaking changes:
//!
//! - a public item, field or variant is removed, or its name, type or unit changes;
//! - bytes decode to another [`Message`], or to an error instead of a message or vice versa; giving
//!   a command that is [`Message::Other`] today its own variant is such a change;
//! - a value is encoded to other bytes;
//! - a limit in the table above is lowered, or memory beyond it is used;
//! - a field is added to [`Version`], [`Addr`], [`AddrEntry`] or [`NetworkAddress`], or a variant
//!   to [`Message`]: users construct and match all of them;
//! - a text form ([`text`], [`Magic`], [`Command`]) changes: users store them;
//! - a dependency is added, or `rust-version` is raised.
//!
//! These are not: a new variant of [`DecodeError`] (it is `non_exhaustive`), the wording of its
//! text, a new item, a higher limit, and earlier detection of an error in an invalid stream.
//!
//! # Sources
//!
//! - Bitcoin Core: protocol.h (headers, addresses), net.h (limits), net_processing.cpp (how
//!   `version` and `addr` are read), serialize.h (`CompactSize` and its shortest form).
//! - BIP 14 (form of the user agent), BIP 31 (`pong`, and the nonce of `ping`), BIP 37 (relay
//!   byte), BIP 60 (fixed `version`, never adopted), BIP 155 (`addrv2`, not implemented: a peer
//!   that does not request it gets `addr`).
//! - Bitcoin wiki, "Protocol documentation"; developer.bitcoin.org, "P2P Network".
//! - TRB 0.5.4 net.h and main.cpp: `version` without relay byte, entries without time for versions
//!   below 31402.
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
mod message;
mod payload;
#[cfg(test)]
mod samples;
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
