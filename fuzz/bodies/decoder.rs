//! Any bytes, split anywhere: the same messages, bounded memory, nothing consumed after an error.
//!
//! Input: a byte whose low four bits are the number of splits that follow and whose bit 0x10
//! requests correct checksums (a fuzzer cannot guess one); the splits, each the length of a piece
//! (0 means 256), used cyclically; the stream.

use watchglass::{DecodeError, Decoder, Magic, Message, checksum};

/// Maximum memory between messages, and of a full `addr`.
const MAX_IDLE_BYTES: usize = 512;
const MAX_BUFFERED_BYTES: usize = 30_000;

pub fn run(data: &[u8]) {
    let Some((flags, rest)) = data.split_first() else { return };
    let (cuts, stream) = rest.split_at(rest.len().min(usize::from(flags & 0x0f)));
    let mut stream = stream.to_vec();
    if flags & 0x10 != 0 {
        correct_checksums(&mut stream);
    }
    let whole = decode(&stream, &[]);
    assert_eq!(decode(&stream, cuts), whole, "cut as {cuts:?}");
    if stream.len() <= 4_096 {
        assert_eq!(decode(&stream, &[1]), whole, "byte by byte");
    }
    let read: u64 = whole.0.iter().map(|message| 24 + min_length(message)).sum();
    assert!(read <= stream.len() as u64, "more was read than received");
}

/// The messages of a stream, and the error that ended it.
fn decode(stream: &[u8], cuts: &[u8]) -> (Vec<Message>, Option<DecodeError>) {
    let mut decoder = Decoder::new(Magic::MAIN);
    let mut messages = Vec::new();
    let mut cuts = cuts.iter().cycle().map(|cut| if *cut == 0 { 256 } else { usize::from(*cut) });
    let mut rest = stream;
    let mut taken = 0;
    while !rest.is_empty() {
        let length = cuts.next().unwrap_or(rest.len()).min(rest.len());
        let (mut piece, later) = rest.split_at(length);
        rest = later;
        loop {
            let before = piece.len();
            let decoded = decoder.decode(&mut piece);
            taken += before - piece.len();
            assert!(
                decoder.buffered_bytes() <= MAX_BUFFERED_BYTES,
                "{} bytes are buffered",
                decoder.buffered_bytes()
            );
            assert!(
                decoder.buffered_bytes() <= 2 * taken + MAX_IDLE_BYTES,
                "memory for bytes that never arrived"
            );
            match decoded {
                Ok(None) => break,
                Ok(Some(message)) => {
                    assert!(
                        decoder.buffered_bytes() <= MAX_IDLE_BYTES,
                        "{} bytes between messages",
                        decoder.buffered_bytes()
                    );
                    check(&message);
                    messages.push(message);
                }
                Err(error) => {
                    assert_eq!(error.is_foreign(), taken <= 4, "{error}");
                    let mut more = &b"\xf9\xbe\xb4\xd9more"[..];
                    assert_eq!(decoder.decode(&mut more), Err(error.clone()), "an error is final");
                    assert_eq!(more.len(), 8, "nothing is consumed after an error");
                    assert_eq!(decoder.buffered_bytes(), 0, "nothing is buffered after an error");
                    return (messages, Some(error));
                }
            }
        }
        assert!(piece.is_empty(), "an incomplete message consumes all input");
    }
    (messages, None)
}

fn check(message: &Message) {
    match message {
        Message::Version(version) => {
            let kept = version.user_agent.as_ref().map_or(0, Vec::len) as u64;
            assert_eq!(kept, version.user_agent_length.min(256));
        }
        Message::Addr(addr) => {
            let read = (addr.entries.len() + addr.skipped) as u64;
            assert_eq!(read, addr.count.min(1_000));
        }
        _ => {}
    }
}

/// Minimum length of the payload of a message.
fn min_length(message: &Message) -> u64 {
    match message {
        Message::Version(version) => 46 + version.user_agent_length + version.trailing,
        Message::Addr(addr) => 1 + addr.count.saturating_mul(26),
        Message::Ping(Some(_)) | Message::Pong(Some(_)) => 8,
        Message::Other { length, .. } => u64::from(*length),
        _ => 0,
    }
}

/// Corrects the checksum of every complete message of this network.
fn correct_checksums(stream: &mut [u8]) {
    let mut at = 0;
    while let Some(header) = stream.get(at..at + 24) {
        if header[..4] != Magic::MAIN.0 {
            return;
        }
        let length = u32::from_le_bytes([header[16], header[17], header[18], header[19]]) as usize;
        let Some(payload) = stream.get(at + 24..at + 24 + length) else { return };
        let correct = checksum(payload);
        stream[at + 20..at + 24].copy_from_slice(&correct);
        at += 24 + length;
    }
}
