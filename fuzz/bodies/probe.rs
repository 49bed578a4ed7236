//! A probe under any sequence of events, compared with a model that reads the same stream.
//!
//! Input: a byte for the target (bit 0: a node, bit 1: send `getaddr`), then operations of one byte
//! with arguments, see [`Run::operation`]. Messages get correct checksums: a fuzzer cannot guess
//! one.
//!
//! Checked after every operation:
//! 1. The probe sent `version`, `verack`, `getaddr`, in this order.
//! 2. Traffic moves no deadline, except that an `addr` brings it forward and bytes of an unfinished
//!    message put it off, never past its bound.
//! 3. At its deadline a probe ends.
//! 4. There is exactly one result, and none after a stop before `version`.
//! 5. After the end nothing is sent and no deadline is set.
//! 6. Memory, bytes and messages are bounded.
//! 7. Outcome and number of peers match the stream.

use std::io;
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bitdash_core::probe::{
    MAX_PROBE_BYTES, MAX_PROBE_MESSAGES, MAX_PROBE_PEERS, Probe, ProbeParams,
};
use bitdash_core::vocabulary::address::Address;
use bitdash_core::vocabulary::outcome::{Outcome, of_connect_error};
use bitdash_core::vocabulary::target::{Peer, ProbeResult, Target};
use bitdash_core::vocabulary::time::{Now, UnixTime};
use watchglass::{Command, Decoder, Magic, Message, encode_message};

const NONCE: u64 = 0x0807_0605_0403_0201;
/// A payload, and the peers in a vector that doubles.
const MAX_BUFFERED_BYTES: usize = 30_000 + 2 * MAX_PROBE_PEERS * size_of::<Peer>();
const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(10);
/// The timeouts of software that answers at once, in turn, and after a delay.
const ADDR_TIMEOUTS: [Duration; 3] =
    [Duration::from_secs(15), Duration::from_secs(60), Duration::from_secs(75)];
const ADDR_QUIET: Duration = Duration::from_secs(2);
/// The silence that ends a reply of which more is to come.
const MORE_QUIET: Duration = Duration::from_secs(10);
/// An unwanted payload.
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

pub fn run(data: &[u8]) {
    let mut input = Input { rest: data };
    let Some(kind) = input.byte() else { return };
    let address = Address::new([127, 1, 2, 3].into(), 8333);
    let target = if kind & 1 != 0 {
        Target::node(address, kind & 2 != 0)
    } else {
        Target::candidate(address)
    };
    let mut run = Run::new(target);
    while run.operation(&mut input).is_some() {
        run.check();
    }
    run.finish();
}

/// The unused input.
struct Input<'a> {
    rest: &'a [u8],
}

impl<'a> Input<'a> {
    fn byte(&mut self) -> Option<u8> {
        let (byte, rest) = self.rest.split_first()?;
        self.rest = rest;
        Some(*byte)
    }

    fn bytes(&mut self, count: usize) -> &'a [u8] {
        let (bytes, rest) = self.rest.split_at(count.min(self.rest.len()));
        self.rest = rest;
        bytes
    }
}

/// The model: what the stream implies so far.
#[derive(Default)]
struct Expected {
    /// The outcome, once the probe must have ended.
    outcome: Option<Outcome>,
    has_responded: bool,
    /// Time ended the wait for a reply.
    is_timed_out: bool,
    peers: usize,
    reply: usize,
    /// When silence ends the reply; two times where the software decides.
    quiets: Vec<Duration>,
    messages: u32,
    bytes: u64,
}

struct Run {
    probe: Probe,
    target: Target,
    now: Now,
    is_connected: bool,
    is_stopped: bool,
    deadline: Option<Duration>,
    /// Possible latest ends after `getaddr`: they depend on the software.
    bounds: Vec<Duration>,
    was_done: bool,
    sent: Vec<u8>,
    result: Option<ProbeResult>,
    reader: Decoder,
    expected: Expected,
}

impl Run {
    fn new(target: Target) -> Self {
        let params = ProbeParams {
            magic: Magic::MAIN,
            protocol_version: 70_015,
            services: 0,
            user_agent: b"/bitdash:0/".to_vec(),
            connect_timeout: Duration::from_secs(5),
            candidate_connect_timeout: Duration::from_secs(3),
            handshake_timeout: HANDSHAKE_TIMEOUT,
            addr_timeout: ADDR_TIMEOUTS[2],
            addr_quiet: ADDR_QUIET,
        };
        let now =
            Now { mono: Duration::from_secs(1_000), wall: UnixTime::from_secs(1_800_000_000) };
        let probe = Probe::new(target, Arc::new(params), NONCE, now);
        Self {
            deadline: probe.poll_timeout(),
            probe,
            target,
            now,
            is_connected: false,
            is_stopped: false,
            bounds: Vec::new(),
            was_done: false,
            sent: Vec::new(),
            result: None,
            reader: Decoder::new(Magic::MAIN),
            expected: Expected::default(),
        }
    }

    /// Runs one operation; `None` at the end of the input.
    fn operation(&mut self, input: &mut Input<'_>) -> Option<()> {
        let operation = input.byte()?;
        match operation % 16 {
            0 | 1 => self.connect(),
            // Raw bytes.
            2 => {
                let count = usize::from(input.byte()?);
                self.receive(input.bytes(count), 1);
            }
            // A message of a known command.
            3..=7 => {
                let command = COMMANDS[usize::from(operation / 16) % COMMANDS.len()];
                let count = usize::from(input.byte()?);
                self.receive(&frame(command, input.bytes(count)), 1);
            }
            // The same in two pieces.
            8 => {
                let (command, count) = (input.byte()?, usize::from(input.byte()?));
                let command = COMMANDS[usize::from(command) % COMMANDS.len()];
                let frame = frame(command, input.bytes(count));
                let (front, back) = frame.split_at(usize::from(operation / 16).min(frame.len()));
                self.receive(front, 1);
                self.check();
                self.receive(back, 1);
            }
            // A `version` with our own nonce or another, and a user agent from the input.
            9 => {
                let count = usize::from(input.byte()?);
                self.receive(&version(input.bytes(count), operation >= 0x80), 1);
            }
            // An `addr` of up to 15, 255 or 1,020 entries.
            10 => {
                let entries = usize::from(input.byte()?);
                let entries = match operation {
                    0xf0.. => entries * 4,
                    0xe0.. => entries,
                    _ => entries % 16,
                };
                self.receive(&addr(entries), 1 + usize::from(operation / 16 % 2));
            }
            // Many small messages.
            11 => {
                let times = usize::from(input.byte()? % 8);
                self.receive(&frame(Command::PING, &[7; 8]), times * 4);
            }
            // A large unwanted message.
            12 => {
                let mut header = frame(COMMANDS[7], &[]);
                header[16..20].copy_from_slice(&(ZEROS.len() as u32).to_le_bytes());
                self.receive(&header, 1);
                self.check();
                self.receive(&ZEROS, 1);
            }
            13 => self.fail(operation, input.byte()?),
            14 => self.pass_time(operation / 16, input.byte()?),
            _ if operation >= 0xf0 => self.stop(),
            _ => self.pass_time(15, input.byte()?),
        }
        Some(())
    }

    fn connect(&mut self) {
        if self.probe.is_done() || self.is_connected {
            return self.probe.handle_connected(self.now);
        }
        self.is_connected = true;
        self.probe.handle_connected(self.now);
        assert_eq!(self.probe.poll_timeout(), Some(self.now.mono + HANDSHAKE_TIMEOUT));
        self.deadline = self.probe.poll_timeout();
    }

    fn receive(&mut self, bytes: &[u8], times: usize) {
        // The system returns no bytes before the connection is established.
        if !self.is_connected || bytes.is_empty() {
            return;
        }
        for _ in 0..times {
            if !self.probe.is_done() {
                self.expect(bytes);
            }
            self.probe.handle_bytes(bytes, self.now);
            self.check_deadline();
            if self.probe.is_done() {
                break;
            }
        }
    }

    /// 2. How bytes may move the deadline.
    fn check_deadline(&mut self) {
        let (Some(before), Some(after)) = (self.deadline, self.probe.poll_timeout()) else {
            return;
        };
        if !self.expected.has_responded {
            return assert_eq!(after, before, "2. traffic moved a deadline");
        }
        assert!(self.target.wants_peers(), "it waits for an unrequested reply");
        if self.bounds.is_empty() {
            self.bounds = ADDR_TIMEOUTS.map(|patience| self.now.mono + patience).to_vec();
        }
        let is_in_message = self.reader.is_in_message();
        let more = if is_in_message { self.now.mono + MORE_QUIET } else { Duration::ZERO };
        let quiets = &self.expected.quiets;
        self.bounds.retain(|bound| match &quiets[..] {
            [] => after == *bound,
            quiets => quiets.iter().any(|quiet| after == more.max(*quiet).min(*bound)),
        });
        assert!(
            !self.bounds.is_empty(),
            "2. traffic moved a deadline from {before:?} to {after:?}"
        );
        self.deadline = Some(after);
    }

    fn fail(&mut self, operation: u8, code: u8) {
        let was_over = self.probe.is_done();
        let outcome = match operation / 16 % 4 {
            0 if self.is_connected => {
                self.probe.handle_closed(self.now);
                Outcome::Closed
            }
            _ => {
                let error = io::Error::from_raw_os_error(i32::from(code % 134));
                self.probe.handle_error(&error, self.now);
                match of_connect_error(&error).unwrap_or(Outcome::Unreachable) {
                    outcome if !self.is_connected => outcome,
                    // The kernel gave up; the peer has not closed it.
                    Outcome::ConnectTimeout | Outcome::Unreachable => Outcome::HandshakeTimeout,
                    _ => Outcome::Closed,
                }
            }
        };
        assert!(self.probe.is_done());
        if !was_over {
            self.end(outcome);
        }
    }

    /// Time passes, and the wall clock jumps arbitrarily.
    fn pass_time(&mut self, scale: u8, amount: u8) {
        let step = match scale {
            0..5 => Duration::from_millis(u64::from(amount)),
            5..10 => Duration::from_millis(u64::from(amount) * 20),
            10..13 => Duration::from_secs(u64::from(amount)),
            // To the deadline, or to 1 ns before.
            _ => match self.deadline {
                Some(deadline) => {
                    let before = Duration::from_nanos(u64::from(amount % 2));
                    deadline.saturating_sub(self.now.mono).saturating_sub(before)
                }
                None => Duration::ZERO,
            },
        };
        let jump = i64::from(amount) - 128;
        let wall = if scale.is_multiple_of(2) { jump.saturating_mul(1 << 40) } else { 1_000_000 };
        let wall = UnixTime::from_micros(self.now.wall.as_micros().saturating_add(wall));
        self.now = Now { mono: self.now.mono + step, wall };
        let is_late = self.deadline.is_some_and(|deadline| self.now.mono >= deadline);
        let was_over = self.probe.is_done();
        self.probe.handle_timeout(self.now);
        assert_eq!(self.probe.is_done(), was_over || is_late, "3. ends at its deadline");
        if is_late && !was_over {
            self.end_in_time();
        }
    }

    fn end_in_time(&mut self) {
        self.expected.is_timed_out |= self.expected.outcome.is_none();
        self.end(if self.is_connected {
            Outcome::HandshakeTimeout
        } else {
            Outcome::ConnectTimeout
        });
    }

    fn stop(&mut self) {
        if !self.probe.is_done() {
            self.is_stopped = true;
        }
        self.probe.handle_stop();
        assert!(self.probe.is_done());
    }

    /// Updates the model with bytes of the peer.
    fn expect(&mut self, mut bytes: &[u8]) {
        self.expected.bytes += bytes.len() as u64;
        while self.expected.outcome.is_none() {
            match self.reader.decode(&mut bytes) {
                Ok(None) => break,
                Ok(Some(message)) => self.expect_message(&message),
                Err(error) if error.is_foreign() => return self.end(Outcome::NotBitcoin),
                Err(_) => return self.end(Outcome::Malformed),
            }
            self.expected.messages += 1;
            if self.expected.messages >= MAX_PROBE_MESSAGES {
                self.end(Outcome::Malformed);
            }
        }
        if self.expected.bytes >= MAX_PROBE_BYTES {
            self.end(Outcome::Malformed);
        }
    }

    fn expect_message(&mut self, message: &Message) {
        let responded = self.expected.has_responded;
        match message {
            Message::Version(version) if !responded && version.nonce == Some(NONCE) => {
                self.end(Outcome::NotBitcoin);
            }
            Message::Version(_) if !responded => {
                self.expected.has_responded = true;
                if !self.target.wants_peers() {
                    self.end(Outcome::Responded);
                }
            }
            Message::Broken { command: Command::VERSION, .. } if !responded => {
                self.end(Outcome::Malformed);
            }
            Message::Addr(addr) if responded => {
                let entries = addr.entries.len();
                self.expected.peers = (self.expected.peers + entries).min(MAX_PROBE_PEERS);
                if entries + addr.skipped >= 2 {
                    self.expected.reply += entries + addr.skipped;
                    self.expected.quiets = vec![self.now.mono + ADDR_QUIET];
                    if entries + addr.skipped == 1_000 {
                        self.expected.quiets.push(self.now.mono + MORE_QUIET);
                    }
                }
                if self.expected.reply >= MAX_PROBE_PEERS {
                    self.end(Outcome::Responded);
                }
            }
            _ => {}
        }
    }

    fn end(&mut self, outcome: Outcome) {
        let outcome = if self.expected.has_responded { Outcome::Responded } else { outcome };
        self.expected.outcome.get_or_insert(outcome);
    }

    fn check(&mut self) {
        assert!(
            self.probe.buffered_bytes() <= MAX_BUFFERED_BYTES,
            "{} bytes are buffered",
            self.probe.buffered_bytes()
        );
        assert_eq!(self.probe.is_done(), self.expected.outcome.is_some() || self.is_stopped);
        let mut is_quiet = true;
        while let Some(bytes) = self.probe.poll_transmit() {
            assert!(!bytes.is_empty());
            is_quiet = false;
            self.sent.extend(bytes);
        }
        assert!(is_quiet || !self.was_done, "5. sent after the end");
        if self.probe.is_done() {
            assert_eq!(self.probe.poll_timeout(), None, "5. a deadline after the end");
            self.was_done = true;
        } else {
            assert_eq!(self.probe.poll_timeout(), self.deadline);
        }
        if let Some(result) = self.probe.finished() {
            assert!(self.result.replace(result).is_none(), "4. a second result");
        }
        assert!(self.probe.finished().is_none(), "4. the same result twice");
        if self.result.is_some() {
            assert!(self.probe.is_done(), "4. a result before the end");
        }
    }

    /// Lets time end the probe, and checks the result.
    fn finish(mut self) {
        while let Some(deadline) = self.probe.poll_timeout() {
            self.now.mono = self.now.mono.max(deadline);
            self.probe.handle_timeout(self.now);
            self.end_in_time();
            self.check();
        }
        self.check();
        self.check_sent();
        let Some(result) = self.result else {
            let is_stopped_early = self.is_stopped && !self.expected.has_responded;
            return assert!(is_stopped_early, "4. a probe ended without a result");
        };
        assert_eq!(result.target, self.target);
        assert_eq!(result.version.is_some(), result.outcome == Outcome::Responded);
        assert!(result.peers.len() <= MAX_PROBE_PEERS);
        let outcome = self.expected.outcome.unwrap_or(Outcome::Responded);
        assert_eq!(result.outcome, outcome, "7.");
        assert_eq!(result.peers.len(), self.expected.peers, "7.");
        let asked = self.expected.has_responded && self.target.wants_peers() && !self.is_stopped;
        let is_reply = self.expected.reply > 0 && !self.reader.is_in_message();
        let counts = asked && (is_reply || self.expected.is_timed_out);
        let peers_sent = counts.then_some(self.expected.reply as u32);
        assert_eq!(result.peers_sent, peers_sent, "7.");
        assert_eq!(result.connect_ms.is_some(), self.is_connected);
        if let Some(version) = &result.version {
            let agent = version.user_agent.as_deref().unwrap_or("");
            assert!(agent.bytes().all(|byte| matches!(byte, 0x20..=0x7e)), "{agent:?}");
        }
    }

    /// 1. The messages sent, in order.
    fn check_sent(&self) {
        let mut decoder = Decoder::new(Magic::MAIN);
        let mut sent = &self.sent[..];
        let mut commands = Vec::new();
        while let Some(message) = decoder.decode(&mut sent).expect("our messages are valid") {
            assert!(!matches!(message, Message::Broken { .. }), "our messages are valid");
            commands.push(message.command());
        }
        let wanted: &[Command] = match (self.is_connected, self.expected.has_responded) {
            (false, _) => &[],
            (true, false) => &[Command::VERSION],
            (true, true) if self.target.wants_peers() => {
                &[Command::VERSION, Command::VERACK, Command::GETADDR]
            }
            (true, true) => &[Command::VERSION, Command::VERACK],
        };
        assert_eq!(commands, wanted, "1.");
    }
}

const COMMANDS: [Command; 8] = [
    Command::VERSION,
    Command::VERACK,
    Command::ADDR,
    Command::PING,
    Command::PONG,
    Command::GETADDR,
    Command(*b"inv\0\0\0\0\0\0\0\0\0"),
    Command(*b"block\0\0\0\0\0\0\0"),
];

fn frame(command: Command, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(24 + payload.len());
    encode_message(Magic::MAIN, command, payload, &mut frame);
    frame
}

/// A `version` of 70016 with all fields.
fn version(agent: &[u8], is_own: bool) -> Vec<u8> {
    let mut payload = vec![0x80, 0x11, 1, 0];
    payload.resize(72, 0);
    let nonce = if is_own { NONCE } else { 9 };
    payload.extend(nonce.to_le_bytes());
    match agent.len() {
        length @ 0..0xfd => payload.push(length as u8),
        length => payload.extend([0xfd, length as u8, 0]),
    }
    payload.extend(agent);
    payload.extend([1, 0, 0, 0, 1]);
    frame(Command::VERSION, &payload)
}

fn addr(entries: usize) -> Vec<u8> {
    let mut payload = match entries {
        0..0xfd => vec![entries as u8],
        _ => vec![0xfd, (entries & 0xff) as u8, (entries >> 8) as u8],
    };
    // Identical entries, built once.
    static ENTRIES: OnceLock<Vec<u8>> = OnceLock::new();
    let all = ENTRIES.get_or_init(|| {
        let mut entry = [0; 30];
        entry[22..].copy_from_slice(&[0xff, 0xff, 10, 0, 0, 1, 0x20, 0x8d]);
        entry.repeat(4 * 255)
    });
    payload.extend_from_slice(&all[..entries * 30]);
    frame(Command::ADDR, &payload)
}
