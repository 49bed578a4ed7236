//! The Bitcoin wire protocol, as much of it as a crawler speaks.
//!
//! Layer 0. Owns: frames, `version`, `verack`, `getaddr`, `addr`, `ping` and `pong`, and the text
//! form of user agents. Must not touch: sockets, clocks, randomness, loggers, configuration, or
//! anything else of this crate. All of these are parameters, and this folder compiles alone with
//! the crates `byteorder` and `sha2`.
//!
//! Invariants:
//! 1. Bytes from the network cause an error that says what was wrong, never a panic.
//! 2. A [`Decoder`] takes no memory for what a header merely announces, nor for what nobody wants.
//! 3. What is encoded here decodes to the same value; the same stream gives the same messages
//!    however it is cut.
//!
//! # A whole handshake
//!
//! ```
//! use bitdash::watchglass::{
//!     Addr, AddrEntry, Command, DecodeError, Decoder, Magic, Message, NetworkAddress, Version,
//!     encode_message, text,
//! };
//!
//! # fn main() -> Result<(), DecodeError> {
//! // What we say of ourselves: no services, no transactions please, and not where we are.
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
//! // The far end takes it as it comes, here in pieces of 10 bytes.
//! let mut node = Decoder::new(Magic::MAIN);
//! let mut received = Vec::new();
//! for mut piece in sent.chunks(10) {
//!     while let Some(message) = node.decode(&mut piece)? {
//!         received.push(message);
//!     }
//! }
//! assert_eq!(received, [Message::Version(ours.clone())]);
//!
//! // It answers with its version (TRB: no relay byte), verack, and something that nobody wants.
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
//! // Now verack and getaddr go out in one piece, and the addresses come.
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
//! // A web server on that port is known by its first byte.
//! let web = b"HTTP/1.1 400 Bad Request";
//! let error = Decoder::new(Magic::MAIN).decode(&mut &web[..]).unwrap_err();
//! assert!(error.is_foreign());
//! # Ok(())
//! # }
//! ```
//!
//! A prober of some thirty lines of `std::net` is in `examples/prober.rs`.
//!
//! # Limits
//!
//! | what | limit | from | beyond it |
//! |---|---|---|---|
//! | payload | [`MAX_PROTOCOL_MESSAGE_LENGTH`], 4,000,000 bytes | Bitcoin Core net.h | error, the stream ends |
//! | user agent | [`MAX_SUBVERSION_LENGTH`], 256 bytes | Bitcoin Core net.h | its first 256 bytes are kept, its length is told |
//! | entries of an `addr` | [`MAX_ADDR_TO_SEND`], 1000 | Bitcoin Core net_processing.cpp | the first 1000 are read, the count is told |
//! | bytes behind the last known field of `version`, `ping`, `pong` | none | BIP 37 and others append fields | counted or passed over |
//! | memory of a decoder's payload | 30,000 bytes | 1000 entries of 30 | never reached by anything but a full `addr`; a `version` holds at most 350 |
//! | memory between messages | 512 bytes | | the buffer is given back |
//! | payload of any other command | | | passes unread: neither stored nor checked |
//!
//! # Breaking changes
//!
//! A new version breaks nothing within the same first number that is not 0 (`0.2.x`, `1.x`), as Cargo
//! understands it. These are breaking changes, and come with a new such number only:
//!
//! - a public item, field or variant goes, or gets another name, type or unit;
//! - bytes that gave one [`Message`] give another one, or an error, or the other way round; a payload that is
//!   [`Message::Other`] today and gets a variant of its own is one of these;
//! - the same value is encoded to other bytes;
//! - a limit of the table above gets smaller, or memory beyond it is used;
//! - a field is added to [`Version`], [`Addr`], [`AddrEntry`] or [`NetworkAddress`], or a variant to
//!   [`Message`]: all of them are made and matched by users;
//! - a text form ([`text`], [`Magic`], [`Command`]) changes: they are stored;
//! - another dependency, or a higher `rust-version`.
//!
//! These are not: a variant of [`DecodeError`] (it is `non_exhaustive`), the wording of its text, a new
//! item, a larger limit, and that a fault is found sooner in a stream that is at fault.
//!
//! # Sources
//!
//! - Bitcoin Core: protocol.h (headers, addresses), net.h (limits), net_processing.cpp (how
//!   `version` and `addr` are read), serialize.h (`CompactSize` and its shortest form).
//! - BIP 14 (form of the user agent), BIP 31 (`pong`, and the nonce of `ping`), BIP 37 (relay
//!   byte), BIP 60 (fixed `version`, never adopted), BIP 155 (`addrv2`, not spoken here: whoever
//!   does not ask for it is sent `addr`).
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
mod keep;
mod message;
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
