//! Properties of the wire protocol: values round-trip, splits do not matter, no input panics.

use std::net::Ipv4Addr;

use proptest::collection::vec;
use proptest::option;
use proptest::prelude::*;
use watchglass::wire::{Reader, Writer};
use watchglass::{
    Addr, AddrEntry, Command, DecodeError, Decoder, MAX_ADDR_TO_SEND, MAX_SUBVERSION_LENGTH, Magic,
    Message, NetworkAddress, Version, encode_message, text,
};

/// Maximum memory of a payload.
const MAX_BUFFERED_BYTES: usize = 30_003;

fn network_address() -> impl Strategy<Value = NetworkAddress> {
    (any::<u64>(), any::<[u8; 16]>(), any::<u16>())
        .prop_map(|(services, ip, port)| NetworkAddress { services, ip, port })
}

/// Every layout: the payload ends at any optional field.
fn version() -> impl Strategy<Value = Version> {
    let head = (any::<i32>(), any::<u64>(), any::<i64>(), network_address());
    let tail =
        (network_address(), any::<u64>(), vec(any::<u8>(), 0..300), any::<i32>(), any::<bool>());
    (head, tail, 0..6_u8).prop_map(|(head, tail, fields)| {
        let there = |field: u8| fields >= field;
        Version {
            version: head.0,
            services: head.1,
            timestamp: head.2,
            addr_recv: head.3,
            addr_from: there(1).then_some(tail.0),
            nonce: there(2).then_some(tail.1),
            user_agent_length: if there(3) { tail.2.len() as u64 } else { 0 },
            user_agent: there(3).then_some(tail.2),
            start_height: there(4).then_some(tail.3),
            relay: there(5).then_some(tail.4),
            trailing: 0,
        }
    })
}

/// All with times or all without.
fn entries(most: usize) -> impl Strategy<Value = Vec<AddrEntry>> {
    let entry = (any::<u32>(), any::<u64>(), any::<[u8; 4]>(), any::<u16>());
    (any::<bool>(), vec(entry, 0..=most)).prop_map(|(timed, entries)| {
        let entry = |(time, services, ip, port)| AddrEntry {
            time: timed.then_some(time),
            services,
            ip: Ipv4Addr::from_octets(ip),
            port,
        };
        entries.into_iter().map(entry).collect()
    })
}

/// A command that the decoder knows, or does not.
fn command() -> impl Strategy<Value = Command> {
    let known = prop::sample::select(vec![
        Command::VERSION,
        Command::VERACK,
        Command::GETADDR,
        Command::ADDR,
        Command::PING,
        Command::PONG,
    ]);
    prop_oneof![3 => known, 1 => any::<[u8; 12]>().prop_map(Command)]
}

/// A message with a valid payload, an arbitrary one, or a wrong checksum.
fn frame() -> impl Strategy<Value = Vec<u8>> {
    let payload = prop_oneof![
        version().prop_map(|version| (Command::VERSION, encoded(&version))),
        entries(40).prop_map(|entries| (Command::ADDR, encoded_addr(&entries))),
        (command(), vec(any::<u8>(), 0..200)),
    ];
    (payload, prop::bool::weighted(0.1)).prop_map(|((command, payload), spoil)| {
        let mut out = Vec::new();
        encode_message(Magic::MAIN, command, &payload, &mut out);
        if spoil {
            out[20] ^= 0x80;
        }
        out
    })
}

fn encoded(version: &Version) -> Vec<u8> {
    let mut out = Vec::new();
    version.encode(&mut out);
    out
}

fn encoded_addr(entries: &[AddrEntry]) -> Vec<u8> {
    let mut out = Vec::new();
    Addr::encode(entries, &mut out);
    out
}

/// Decodes these pieces: the messages, and the error that ended the stream.
fn decode(pieces: &[&[u8]]) -> (Vec<Message>, Option<DecodeError>) {
    let mut decoder = Decoder::new(Magic::MAIN);
    let mut messages = Vec::new();
    for piece in pieces {
        let mut input = *piece;
        loop {
            let before = input.len();
            let result = decoder.decode(&mut input);
            assert!(decoder.buffered_bytes() <= MAX_BUFFERED_BYTES);
            match result {
                Ok(Some(message)) => messages.push(message),
                Ok(None) => break assert!(input.is_empty()),
                Err(error) => {
                    let left = input.len();
                    assert!(left < before);
                    assert_eq!(decoder.decode(&mut input), Err(error.clone()));
                    assert_eq!(input.len(), left);
                    return (messages, Some(error));
                }
            }
        }
    }
    (messages, None)
}

/// Splits bytes at these places.
fn split<'a>(bytes: &'a [u8], places: &[prop::sample::Index]) -> Vec<&'a [u8]> {
    let mut places: Vec<usize> = places.iter().map(|place| place.index(bytes.len() + 1)).collect();
    places.extend([0, bytes.len()]);
    places.sort_unstable();
    places.windows(2).map(|pair| &bytes[pair[0]..pair[1]]).collect()
}

/// This many cases, without a file of failures beside the source.
fn cases(cases: u32) -> ProptestConfig {
    ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() }
}

proptest! {
    #![proptest_config(cases(256))]

    #[test]
    fn version_round_trips_up_to_its_limits(sent in version(), trailing in 0..20_usize) {
        let mut payload = encoded(&sent);
        let mut expected = sent.clone();
        if let Some(user_agent) = &mut expected.user_agent {
            user_agent.truncate(MAX_SUBVERSION_LENGTH);
        }
        if sent.relay.is_some() {
            payload.resize(payload.len() + trailing, 0xee);
            expected.trailing = trailing as u64;
        }
        prop_assert_eq!(Version::decode(&payload), Ok(expected));
    }

    #[test]
    fn addr_round_trips(sent in entries(300)) {
        let addr = Addr { count: sent.len() as u64, entries: sent.clone(), skipped: 0 };
        prop_assert_eq!(Addr::decode(&encoded_addr(&sent)), Ok(addr));
    }

    #[test]
    fn splitting_a_stream_does_not_change_its_messages(
        frames in vec(frame(), 0..8),
        garbage in option::of(vec(any::<u8>(), 0..60)),
        places in vec(any::<prop::sample::Index>(), 0..40),
    ) {
        let mut stream = frames.concat();
        stream.extend(garbage.clone().unwrap_or_default());
        let whole = decode(&[&stream]);
        prop_assert!(whole.0.len() >= frames.len());
        prop_assert_eq!(&decode(&split(&stream, &places)), &whole);
        let single: Vec<&[u8]> = stream.chunks(1).collect();
        prop_assert_eq!(&decode(&single), &whole);
    }

    #[test]
    fn message_and_bare_payload_decode_alike(
        command in prop::sample::select(vec![Command::VERSION, Command::ADDR]),
        payload in prop_oneof![
            vec(any::<u8>(), 0..400),
            version().prop_map(|version| encoded(&version)),
            entries(10).prop_map(|entries| encoded_addr(&entries)),
        ],
    ) {
        let mut out = Vec::new();
        encode_message(Magic::MAIN, command, &payload, &mut out);
        let expected = if command == Command::VERSION {
            Version::decode(&payload).map(Message::Version)
        } else {
            Addr::decode(&payload).map(Message::Addr)
        };
        let expected = expected.unwrap_or_else(|error| Message::Broken { command, error });
        prop_assert_eq!(decode(&[&out]), (vec![expected], None));
    }

    #[test]
    fn addr_of_any_bytes_counts_its_entries(
        payload in vec(any::<u8>(), 0..2000),
        count in 0..60_u8,
        timed: bool,
    ) {
        // Half of the payloads fit their count.
        let mut payload = payload;
        if payload.len().is_multiple_of(2) {
            payload.resize(1 + usize::from(count) * if timed { 30 } else { 26 }, 0xff);
            payload[0] = count;
        }
        if let Ok(addr) = Addr::decode(&payload) {
            let read = MAX_ADDR_TO_SEND.min(addr.count as usize);
            prop_assert_eq!(addr.entries.len() + addr.skipped, read);
        }
    }
}

proptest! {
    #![proptest_config(cases(2000))]

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in vec(any::<u8>(), 0..300),
        command in command(),
        honest: bool,
    ) {
        let _ = Version::decode(&bytes);
        let _ = Addr::decode(&bytes);
        let _ = decode(&[&bytes]);
        // After the correct magic, with a valid or an invalid header.
        let mut stream = Vec::new();
        if honest {
            encode_message(Magic::MAIN, command, &bytes, &mut stream);
        } else {
            stream.extend(Magic::MAIN.0);
            stream.extend(command.0);
            stream.extend(&bytes);
        }
        let (messages, error) = decode(&[&stream]);
        prop_assert!(!error.is_some_and(|error| error.is_foreign()));
        prop_assert!(!honest || messages.len() == 1);
    }

    #[test]
    fn text_of_any_bytes_is_printable_and_round_trips(bytes in vec(any::<u8>(), 0..300)) {
        let text = text::from_bytes(&bytes);
        prop_assert!(text.bytes().all(|byte| matches!(byte, 0x20..=0x7e)));
        prop_assert_eq!(text::to_bytes(&text), Some(bytes));
    }

    #[test]
    fn accepted_text_is_the_text_of_its_bytes(
        text in r"[ -~]{0,8}(\\\\|\\x[0-9a-f]{2}|[ -~]){0,8}",
    ) {
        if let Some(bytes) = text::to_bytes(&text) {
            prop_assert_eq!(text::from_bytes(&bytes), text);
        }
    }

    #[test]
    fn compact_size_round_trips(shift in 0..64_u32, value: u64) {
        let value = value >> shift;
        let mut out = Vec::new();
        Writer::new(&mut out).compact_size(value);
        let mut reader = Reader::new(&out);
        prop_assert_eq!(reader.compact_size_length(), out.len());
        prop_assert_eq!(reader.compact_size("n"), Ok(value));
        prop_assert!(reader.is_empty());
    }

    #[test]
    fn text_of_magic_and_command_round_trips(
        magic: [u8; 4],
        name in "[!-\\[\\]-~]{1,12}",
    ) {
        prop_assert_eq!(Magic(magic).to_string().parse(), Ok(Magic(magic)));
        prop_assert_eq!(Command::new(&name).map(|command| command.to_string()), Some(name));
    }
}
