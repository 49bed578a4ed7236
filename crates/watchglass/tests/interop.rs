//! Interoperability with the crate `bitcoin`: thousands of random messages in both directions, and
//! the intended differences.
//!
//! The crate `bitcoin` is strict: it serves nodes that follow today's rules. A crawler must
//! understand every node, so watchglass is lenient but bounded.

use std::net::Ipv4Addr;

use bitcoin::consensus::encode::{self, deserialize_partial, serialize};
use bitcoin::p2p::ServiceFlags;
use bitcoin::p2p::address::Address;
use bitcoin::p2p::message::{CommandString, NetworkMessage, RawNetworkMessage};
use bitcoin::p2p::message_network::VersionMessage;
use watchglass::{
    Addr, AddrEntry, Command, DecodeError, Decoder, Magic, Message, NetworkAddress, Version,
    encode_message,
};

const SEED: u64 = 0x1117_2026;
const ROUNDS: usize = 4_000;

fn magic(magic: Magic) -> bitcoin::p2p::Magic {
    bitcoin::p2p::Magic::from_bytes(magic.0)
}

/// A message encoded by watchglass.
fn ours(command: Command, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_message(Magic::MAIN, command, payload, &mut out);
    out
}

/// A message encoded by `bitcoin`.
fn theirs(message: NetworkMessage) -> Vec<u8> {
    serialize(&RawNetworkMessage::new(magic(Magic::MAIN), message))
}

/// Decodes exactly one message with `bitcoin`.
fn they_read(frame: &[u8]) -> Result<NetworkMessage, encode::Error> {
    let (message, used) = deserialize_partial::<RawNetworkMessage>(frame)?;
    assert_eq!((used, *message.magic()), (frame.len(), magic(Magic::MAIN)));
    Ok(message.into_payload())
}

/// Decodes exactly one message with watchglass, split at random.
fn we_read(frame: &[u8], rng: &mut fastrand::Rng) -> Message {
    let mut decoder = Decoder::new(Magic::MAIN);
    let mut rest = frame;
    loop {
        let (mut piece, behind) = rest.split_at(rng.usize(1..=rest.len().min(5_000)));
        let message = decoder.decode(&mut piece).unwrap();
        rest = behind;
        if let Some(message) = message {
            assert!(piece.is_empty() && rest.is_empty(), "{message:?} ended early");
            return message;
        }
    }
}

/// A user agent of at most 256 bytes in UTF-8, which `bitcoin` requires.
fn agent(rng: &mut fastrand::Rng) -> String {
    let length = rng.usize(0..=256);
    let mut text = String::new();
    loop {
        let c = if rng.bool() { rng.char(' '..='~') } else { rng.char(..) };
        if text.len() + c.len_utf8() > length {
            return text;
        }
        text.push(c);
    }
}

/// A number with a random number of bits.
fn bits(rng: &mut fastrand::Rng) -> u64 {
    rng.u64(..) >> rng.u32(0..64)
}

fn random_address(rng: &mut fastrand::Rng) -> NetworkAddress {
    let (services, port) = (bits(rng), rng.u16(..));
    match rng.u8(0..3) {
        0 => NetworkAddress::UNSPECIFIED,
        1 => NetworkAddress::from_ipv4(services, rng.u32(..).into(), port),
        _ => NetworkAddress { services, ip: rng.u128(..).to_be_bytes(), port },
    }
}

/// A `version` with all fields, which `bitcoin` requires.
fn random_version(rng: &mut fastrand::Rng) -> Version {
    let agent = agent(rng).into_bytes();
    Version {
        version: rng.i32(..),
        services: bits(rng),
        timestamp: rng.i64(..),
        addr_recv: random_address(rng),
        addr_from: Some(random_address(rng)),
        nonce: Some(rng.u64(..)),
        user_agent_length: agent.len() as u64,
        user_agent: Some(agent),
        start_height: Some(rng.i32(..)),
        relay: Some(rng.bool()),
        trailing: 0,
    }
}

fn their_address(address: &NetworkAddress) -> Address {
    let (pairs, _) = address.ip.as_chunks::<2>();
    let mut words = [0; 8];
    words.iter_mut().zip(pairs).for_each(|(word, pair)| *word = u16::from_be_bytes(*pair));
    Address { services: ServiceFlags::from(address.services), address: words, port: address.port }
}

/// The same `version` for `bitcoin`.
fn their_version(version: &Version) -> VersionMessage {
    VersionMessage {
        version: version.version as u32,
        services: ServiceFlags::from(version.services),
        timestamp: version.timestamp,
        receiver: their_address(&version.addr_recv),
        sender: their_address(&version.addr_from.unwrap()),
        nonce: version.nonce.unwrap(),
        user_agent: String::from_utf8(version.user_agent.clone().unwrap()).unwrap(),
        start_height: version.start_height.unwrap(),
        relay: version.relay.unwrap(),
    }
}

fn payload(version: &Version) -> Vec<u8> {
    let mut out = Vec::new();
    version.encode(&mut out);
    out
}

fn random_entries(rng: &mut fastrand::Rng) -> Vec<AddrEntry> {
    let count = if rng.u8(0..8) == 0 { rng.usize(0..=1000) } else { rng.usize(0..5) };
    let entry = |_| AddrEntry {
        time: Some(rng.u32(..)),
        services: bits(rng),
        ip: rng.u32(..).into(),
        port: rng.u16(..),
    };
    (0..count).map(entry).collect()
}

fn their_entry(entry: &AddrEntry) -> (u32, Address) {
    let address = NetworkAddress::from_ipv4(entry.services, entry.ip, entry.port);
    (entry.time.unwrap(), their_address(&address))
}

#[test]
fn versions_agree_in_meaning_and_bytes() {
    let mut rng = fastrand::Rng::with_seed(SEED);
    for _ in 0..ROUNDS {
        let version = random_version(&mut rng);
        let frame = ours(Command::VERSION, &payload(&version));
        let their = NetworkMessage::Version(their_version(&version));
        assert_eq!(they_read(&frame).unwrap(), their);
        assert_eq!(theirs(their), frame);
        assert_eq!(we_read(&frame, &mut rng), Message::Version(version));
    }
}

#[test]
fn addrs_agree_in_meaning_and_bytes() {
    let mut rng = fastrand::Rng::with_seed(SEED + 1);
    for _ in 0..ROUNDS {
        let entries = random_entries(&mut rng);
        let mut payload = Vec::new();
        Addr::encode(&entries, &mut payload);
        let frame = ours(Command::ADDR, &payload);
        let their = NetworkMessage::Addr(entries.iter().map(their_entry).collect());
        assert_eq!(they_read(&frame).unwrap(), their);
        assert_eq!(theirs(their), frame);
        let addr = Addr { count: entries.len() as u64, entries, skipped: 0 };
        assert_eq!(we_read(&frame, &mut rng), Message::Addr(addr));
    }
}

#[test]
fn ipv4_entries_of_mixed_addrs_are_read() {
    let mut rng = fastrand::Rng::with_seed(SEED + 2);
    for _ in 0..ROUNDS {
        let list: Vec<(u32, NetworkAddress)> =
            (0..rng.usize(0..20)).map(|_| (rng.u32(..), random_address(&mut rng))).collect();
        let their = list.iter().map(|(time, address)| (*time, their_address(address))).collect();
        let frame = theirs(NetworkMessage::Addr(their));
        let ipv4 = |(time, address): &(u32, NetworkAddress)| {
            let ip = address.ipv4()?;
            Some(AddrEntry {
                time: Some(*time),
                services: address.services,
                ip,
                port: address.port,
            })
        };
        let entries: Vec<AddrEntry> = list.iter().filter_map(ipv4).collect();
        let skipped = list.len() - entries.len();
        let addr = Addr { count: list.len() as u64, entries, skipped };
        assert_eq!(we_read(&frame, &mut rng), Message::Addr(addr));
    }
}

#[test]
fn small_messages_agree() {
    let mut rng = fastrand::Rng::with_seed(SEED + 3);
    for _ in 0..ROUNDS {
        let nonce = bits(&mut rng);
        let table = [
            (Command::VERACK, vec![], NetworkMessage::Verack, Message::Verack),
            (Command::GETADDR, vec![], NetworkMessage::GetAddr, Message::Getaddr),
            (
                Command::PING,
                nonce.to_le_bytes().to_vec(),
                NetworkMessage::Ping(nonce),
                Message::Ping(Some(nonce)),
            ),
            (
                Command::PONG,
                nonce.to_le_bytes().to_vec(),
                NetworkMessage::Pong(nonce),
                Message::Pong(Some(nonce)),
            ),
        ];
        for (command, payload, their, our) in table {
            let frame = ours(command, &payload);
            assert_eq!(they_read(&frame).unwrap(), their);
            assert_eq!(theirs(their), frame);
            assert_eq!(we_read(&frame, &mut rng), our);
        }
    }
}

#[test]
fn unwanted_messages_are_skipped() {
    let mut rng = fastrand::Rng::with_seed(SEED + 4);
    for _ in 0..ROUNDS {
        let length = rng.usize(0..3_000);
        let bytes: Vec<u8> = std::iter::repeat_with(|| rng.u8(..)).take(length).collect();
        let name: String = (0..rng.usize(1..=12)).map(|_| rng.lowercase()).collect();
        let command = CommandString::try_from(name.clone()).unwrap();
        let messages = [
            (NetworkMessage::SendHeaders, "sendheaders", 0),
            (NetworkMessage::WtxidRelay, "wtxidrelay", 0),
            (NetworkMessage::SendAddrV2, "sendaddrv2", 0),
            (NetworkMessage::FeeFilter(1_000), "feefilter", 8),
            (NetworkMessage::Inv(vec![]), "inv", 1),
            (NetworkMessage::Unknown { command, payload: bytes }, name.as_str(), length as u32),
        ];
        for (message, name, length) in messages {
            let command = Command::new(name).unwrap();
            let expected = Message::Other { command, length };
            assert_eq!(we_read(&theirs(message), &mut rng), expected);
        }
    }
}

#[test]
fn a_conversation_decodes_to_the_same_messages() {
    let mut rng = fastrand::Rng::with_seed(SEED + 5);
    for _ in 0..500 {
        let version = random_version(&mut rng);
        let entries = random_entries(&mut rng);
        let mut stream = theirs(NetworkMessage::Version(their_version(&version)));
        stream.extend(theirs(NetworkMessage::WtxidRelay));
        stream.extend(theirs(NetworkMessage::Verack));
        stream.extend(theirs(NetworkMessage::Addr(entries.iter().map(their_entry).collect())));
        let mut decoder = Decoder::new(Magic::MAIN);
        let (mut got, mut rest) = (Vec::new(), &stream[..]);
        while !rest.is_empty() {
            let (mut piece, behind) = rest.split_at(rng.usize(1..=rest.len()));
            while let Some(message) = decoder.decode(&mut piece).unwrap() {
                got.push(message);
            }
            rest = behind;
        }
        let wtxidrelay = Command::new("wtxidrelay").unwrap();
        let addr = Addr { count: entries.len() as u64, entries, skipped: 0 };
        let expected = [
            Message::Version(version),
            Message::Other { command: wtxidrelay, length: 0 },
            Message::Verack,
            Message::Addr(addr),
        ];
        assert_eq!(got, expected);
    }
}

// The differences. A crawler needs each of them, because of nodes in the network.

/// Sent by TRB, Core 0.8 and Gocoin; shorter ones by nodes of the first years.
#[test]
fn only_watchglass_reads_a_short_version() {
    let mut rng = fastrand::Rng::with_seed(SEED + 6);
    let full = random_version(&mut rng);
    let without_relay = Version { relay: None, ..full.clone() };
    let without_height = Version { start_height: None, ..without_relay.clone() };
    let without_agent =
        Version { user_agent: None, user_agent_length: 0, ..without_height.clone() };
    let without_nonce = Version { nonce: None, ..without_agent.clone() };
    let without_sender = Version { addr_from: None, ..without_nonce.clone() };
    for version in [without_relay, without_height, without_agent, without_sender] {
        let frame = ours(Command::VERSION, &payload(&version));
        assert!(they_read(&frame).is_err(), "{version:?}");
        assert_eq!(we_read(&frame, &mut rng), Message::Version(version));
    }
}

/// A later BIP may append fields.
#[test]
fn only_watchglass_reads_a_version_with_trailing_bytes() {
    let mut rng = fastrand::Rng::with_seed(SEED + 7);
    let version = Version { trailing: 3, ..random_version(&mut rng) };
    let frame = ours(Command::VERSION, &[payload(&version), vec![1, 2, 3]].concat());
    assert!(they_read(&frame).is_err());
    assert_eq!(we_read(&frame, &mut rng), Message::Version(version));
}

/// Latin-1, control characters, noise.
#[test]
fn only_watchglass_reads_a_user_agent_that_is_not_utf_8() {
    let mut rng = fastrand::Rng::with_seed(SEED + 8);
    let version = Version {
        user_agent: Some(b"/Bitco\xefn:1/".to_vec()),
        user_agent_length: 11,
        ..random_version(&mut rng)
    };
    let frame = ours(Command::VERSION, &payload(&version));
    assert!(they_read(&frame).is_err());
    assert_eq!(we_read(&frame, &mut rng), Message::Version(version));
}

/// `bitcoin` keeps all of it; watchglass keeps 256 bytes and reports the length.
#[test]
fn watchglass_truncates_a_long_user_agent() {
    let mut rng = fastrand::Rng::with_seed(SEED + 9);
    let long = Version { user_agent: Some(vec![b'x'; 100_000]), ..random_version(&mut rng) };
    let frame = ours(Command::VERSION, &payload(&long));
    let NetworkMessage::Version(their) = they_read(&frame).unwrap() else { panic!() };
    assert_eq!(their.user_agent.len(), 100_000);
    let Message::Version(version) = we_read(&frame, &mut rng) else { panic!() };
    assert_eq!(version.user_agent_length, 100_000);
    assert_eq!(version.user_agent.as_deref(), Some(&[b'x'; 256][..]));
    assert_eq!(version.start_height, long.start_height);
}

/// The layout to and from versions below 31402.
#[test]
fn only_watchglass_reads_addr_entries_without_a_time() {
    let mut rng = fastrand::Rng::with_seed(SEED + 10);
    let entry = AddrEntry { time: None, services: 1, ip: Ipv4Addr::new(10, 0, 0, 1), port: 8333 };
    let mut payload = Vec::new();
    Addr::encode(&[entry, entry], &mut payload);
    let frame = ours(Command::ADDR, &payload);
    assert!(they_read(&frame).is_err());
    let addr = Addr { count: 2, entries: vec![entry, entry], skipped: 0 };
    assert_eq!(we_read(&frame, &mut rng), Message::Addr(addr));
}

/// Core bans for more than 1000; `bitcoin` returns all.
#[test]
fn watchglass_reads_at_most_1000_addr_entries() {
    let mut rng = fastrand::Rng::with_seed(SEED + 11);
    let number = |n: u32| AddrEntry { time: Some(n), services: 1, ip: n.into(), port: 8333 };
    let entries: Vec<AddrEntry> = (0..2_500).map(number).collect();
    let frame = theirs(NetworkMessage::Addr(entries.iter().map(their_entry).collect()));
    let NetworkMessage::Addr(all) = they_read(&frame).unwrap() else { panic!() };
    assert_eq!(all.len(), 2_500);
    let Message::Addr(addr) = we_read(&frame, &mut rng) else { panic!() };
    assert_eq!((addr.count, &addr.entries[..]), (2_500, &entries[..1_000]));
}

/// TRB's keep-alive: the ping from before BIP 31.
#[test]
fn only_watchglass_reads_a_ping_without_a_nonce() {
    let mut rng = fastrand::Rng::with_seed(SEED + 12);
    let frame = ours(Command::PING, &[]);
    assert!(they_read(&frame).is_err());
    assert_eq!(we_read(&frame, &mut rng), Message::Ping(None));
}

/// The payload has no meaning and is ignored.
#[test]
fn only_watchglass_reads_verack_and_getaddr_with_a_payload() {
    let mut rng = fastrand::Rng::with_seed(SEED + 16);
    for (command, message) in
        [(Command::VERACK, Message::Verack), (Command::GETADDR, Message::Getaddr)]
    {
        let frame = ours(command, &[1, 2, 3]);
        assert!(they_read(&frame).is_err());
        assert_eq!(we_read(&frame, &mut rng), message);
    }
}

/// watchglass reports the message and continues, like Core; `bitcoin` ends the stream.
#[test]
fn a_wrong_checksum_costs_watchglass_one_message() {
    let mut rng = fastrand::Rng::with_seed(SEED + 13);
    let mut frame = ours(Command::PING, &[1; 8]);
    frame[20] ^= 1;
    assert!(matches!(they_read(&frame), Err(encode::Error::InvalidChecksum { .. })));
    let Message::Broken { command, error } = we_read(&frame, &mut rng) else { panic!() };
    assert_eq!(command, Command::PING);
    assert!(matches!(error, DecodeError::WrongChecksum { .. }), "{error}");
}

/// Unwanted payloads are not read, so their checksum is not verified.
#[test]
fn watchglass_ignores_the_checksum_of_unwanted_messages() {
    let mut rng = fastrand::Rng::with_seed(SEED + 14);
    let command = Command::new("inv").unwrap();
    let mut frame = ours(command, &[0; 1]);
    frame[20] ^= 1;
    assert!(matches!(they_read(&frame), Err(encode::Error::InvalidChecksum { .. })));
    assert_eq!(we_read(&frame, &mut rng), Message::Other { command, length: 1 });
}

/// `bitcoin` leaves the check to its caller; watchglass fails at the first byte.
#[test]
fn only_watchglass_refuses_another_networks_magic() {
    let testnet = bitcoin::p2p::Magic::TESTNET3;
    let frame = serialize(&RawNetworkMessage::new(testnet, NetworkMessage::Verack));
    let (message, _) = deserialize_partial::<RawNetworkMessage>(&frame).unwrap();
    assert_eq!((message.magic(), message.payload()), (&testnet, &NetworkMessage::Verack));
    let error = Decoder::new(Magic::MAIN).decode(&mut &frame[..]).unwrap_err();
    assert!(error.is_foreign());
    assert_eq!(
        Decoder::new(Magic(testnet.to_bytes())).decode(&mut &frame[..]),
        Ok(Some(Message::Verack))
    );
}

/// watchglass applies Core's limit to the header; `bitcoin` needs the payload.
#[test]
fn a_header_above_4_000_000_bytes_ends_the_stream_at_once() {
    let mut frame = ours(Command::ADDR, &[]);
    frame[16..20].copy_from_slice(&4_000_001u32.to_le_bytes());
    let error = Decoder::new(Magic::MAIN).decode(&mut &frame[..20]).unwrap_err();
    assert!(matches!(error, DecodeError::TooLong { length: 4_000_001, .. }), "{error}");
    assert!(they_read(&frame).is_err());
}

/// Both refuse them, like Core.
#[test]
fn both_refuse_numbers_in_a_longer_form() {
    let mut rng = fastrand::Rng::with_seed(SEED + 15);
    let frame = ours(Command::ADDR, &[&[0xfd, 1, 0][..], &[0; 30]].concat());
    assert!(matches!(they_read(&frame), Err(encode::Error::NonMinimalVarInt)));
    let Message::Broken { error, .. } = we_read(&frame, &mut rng) else { panic!() };
    assert!(matches!(error, DecodeError::NonCanonical { .. }), "{error}");
}
