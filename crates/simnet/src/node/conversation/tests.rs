//! Each profile in virtual time: which messages it sends, in which order, and when.

use std::sync::LazyLock;

use super::*;
use crate::network::world::WorldParams;
use crate::zoo::Claimed;
use bitdash_core::vocabulary::address::Address;
use watchglass::{AddrEntry, encode_message};

/// A world in real time without round-trip times.
static WORLD: LazyLock<Arc<World>> = LazyLock::new(|| {
    let params = WorldParams { latency: 0.0, ..WorldParams::default() };
    Arc::new(World::generate(&params).unwrap())
});

fn ms(ms: u64) -> Duration {
    Duration::from_millis(ms)
}

fn node(test: impl Fn(&NodeSpec) -> bool) -> usize {
    WORLD.nodes().iter().position(test).expect("the default world has one of every kind")
}

fn sender(profile: Profile) -> usize {
    node(|node| node.profile == profile && node.sends_peers)
}

/// A client of a node, and what it received.
struct Client {
    conversation: Conversation,
    decoder: Decoder,
    now: Duration,
    /// Received messages with their times; an `addr` with its number of entries.
    received: Vec<(Duration, String)>,
    entries: Vec<AddrEntry>,
    version: Option<Version>,
}

impl Client {
    fn with(node: usize) -> Self {
        Self::again(node, false, 7)
    }

    fn again(node: usize, banned: bool, seed: u64) -> Self {
        let rng = fastrand::Rng::with_seed(seed);
        let conversation = Conversation::new(WORLD.clone(), node, banned, Duration::ZERO, rng);
        let mut this = Self {
            conversation,
            decoder: Decoder::new(Magic::MAIN),
            now: Duration::ZERO,
            received: Vec::new(),
            entries: Vec::new(),
            version: None,
        };
        this.listen();
        this
    }

    fn send(mut self, bytes: &[u8]) -> Self {
        self.conversation.handle_bytes(bytes, self.now);
        self.listen();
        self
    }

    fn handshake(self) -> Self {
        self.send(&[version(70_015), message("verack", &[]), message("getaddr", &[])].concat())
    }

    /// Advances the time, event by event.
    fn wait(mut self, time: Duration) -> Self {
        let end = self.now + time;
        while let Some(due) = self.conversation.poll_timeout().filter(|due| *due <= end) {
            assert!(due >= self.now, "deadlines do not lie in the past");
            self.now = due;
            self.listen();
            if self.conversation.wants_close().is_some() {
                break;
            }
        }
        self.now = end;
        self
    }

    fn listen(&mut self) {
        self.conversation.handle_timeout(self.now);
        while let Some(bytes) = self.conversation.poll_transmit(self.now) {
            let mut input = bytes.as_slice();
            while let Some(message) = self.decoder.decode(&mut input).unwrap() {
                let mut name = message.command().to_string();
                match message {
                    Message::Addr(addr) => {
                        name = format!("addr({})", addr.count);
                        self.entries.extend(addr.entries);
                    }
                    Message::Version(version) => self.version = Some(version),
                    Message::Broken { .. } => panic!("{name} is broken"),
                    _ => {}
                }
                self.received.push((self.now, name));
            }
        }
    }

    fn words(&self) -> String {
        let words: Vec<&str> = self.received.iter().map(|(_, word)| word.as_str()).collect();
        words.join(" ")
    }

    /// When the last message arrived.
    fn last(&self) -> Duration {
        self.received.last().unwrap().0
    }

    fn faults(&self) -> &[Fault] {
        &self.conversation.observations().faults
    }

    fn closed(&self) -> Option<Close> {
        self.conversation.wants_close()
    }
}

fn address(entry: &AddrEntry) -> Address {
    Address::new(entry.ip, entry.port)
}

fn message(command: &str, payload: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    encode_message(Magic::MAIN, Command::new(command).unwrap(), payload, &mut out);
    out
}

fn version(protocol_version: i32) -> Vec<u8> {
    Claimed { protocol_version, services: 0, ..Claimed::plain() }.message()
}

#[test]
fn newest_core_announces_itself_and_replies_at_once() {
    let at = node(|node| node.announces == Announces::BeforeReply && node.sends_peers);
    let client = Client::with(at).handshake().wait(ms(10));
    let n = WORLD.reply_length(at);
    assert_eq!(
        client.words(),
        format!("version verack sendcmpct ping feefilter addr(1) addr({n})")
    );
    assert_eq!(address(&client.entries[0]), WORLD.nodes()[at].address);
    assert!(client.last() <= ms(2));
}

#[test]
fn core_28_announces_itself_in_the_reply() {
    let at = node(|node| node.user_agent == b"/Satoshi:28.1.0/" && node.sends_peers);
    let client = Client::with(at).handshake().wait(ms(10));
    let n = WORLD.reply_length(at);
    assert_eq!(client.words(), format!("version verack sendcmpct ping feefilter addr({n})"));
    let own = WORLD.nodes()[at].address;
    assert!(client.entries.iter().any(|entry| address(entry) == own));
}

#[test]
fn features_are_sent_to_peers_that_support_them() {
    let at = sender(Profile::NewCore);
    let words = |number: i32| {
        Client::with(at).send(&version(number)).send(&message("verack", &[])).wait(ms(1)).words()
    };
    assert_eq!(words(70_016), "version wtxidrelay sendaddrv2 verack sendcmpct ping feefilter");
    assert_eq!(words(70_015), "version verack sendcmpct ping feefilter");
    assert_eq!(words(70_012), "version verack alert ping");
}

#[test]
fn old_core_announces_itself_and_replies_half_a_minute_later() {
    let at = node(|node| {
        let announces = node.announces == Announces::AtHandshake;
        node.profile == Profile::OldCore && node.sends_peers && announces
    });
    let n = WORLD.reply_length(at);
    let mut waits: Vec<f64> = Vec::new();
    for seed in 0..400 {
        let client = Client::again(at, false, seed).handshake().wait(ms(1_000_000));
        let handshake = "version verack sendheaders sendcmpct sendcmpct ping addr(1) feefilter";
        assert_eq!(client.words(), format!("{handshake} addr({n})"));
        assert_eq!(client.received[7].0, Duration::ZERO, "the handshake is not delayed");
        waits.push(client.last().as_secs_f64());
    }
    waits.sort_by(f64::total_cmp);
    let mean = waits.iter().sum::<f64>() / 400.0;
    assert!((26.0..34.0).contains(&mean), "mean {mean} s");
    assert!((17.0..25.0).contains(&waits[200]), "median {} s", waits[200]);
    assert!((56.0..85.0).contains(&waits[360]), "90 of 100 within {} s", waits[360]);
}

#[test]
fn ancient_core_replies_on_its_trickle_turn_in_several_messages() {
    let at = node(|node| {
        node.profile == Profile::AncientCore && node.sends_peers && node.table * 23 / 100 > 1100
    });
    let client = Client::with(at).handshake().wait(ms(100_000));
    let n = WORLD.reply_length(at);
    assert!(n > 1000);
    assert_eq!(client.words(), format!("version verack addr(1000) addr({})", n - 1000));
    assert!(client.received[0].0 >= ms(20) && client.received[0].0 <= ms(150));
}

#[test]
fn core_0_8_has_no_relay_byte() {
    let at = node(|node| node.user_agent == b"/Satoshi:0.8.6/");
    let client = Client::with(at).handshake().wait(ms(150));
    let version = client.version.unwrap();
    assert_eq!(version.relay, None);
    assert_eq!((version.version, version.services), (70_001, 1));
}

#[test]
fn version_messages_match_the_world() {
    for at in 0..200 {
        let client = Client::with(at).handshake().wait(ms(200));
        let (version, node) = (client.version.unwrap(), &WORLD.nodes()[at]);
        assert_eq!(version.user_agent.as_deref(), Some(node.user_agent.as_slice()));
        assert_eq!(version.version, node.protocol_version);
        assert_eq!(version.services, node.services);
        assert_eq!(version.start_height, Some(node.start_height));
        assert_eq!(version.relay, node.relay);
        let wrong = version.timestamp - i64::from(WORLD.params().wall);
        assert_eq!(wrong, i64::from(node.clock_offset));
        assert_eq!(version.trailing, 0);
    }
}

#[test]
fn trb_replies_seconds_later_in_chunks() {
    let at = node(|node| node.profile == Profile::Trb && node.table > 4200);
    let client = Client::with(at).handshake().wait(ms(200_000));
    assert_eq!(client.words(), "version verack addr(1000) addr(1000) addr(500)");
    assert!(client.received[0].0 >= ms(20) && client.received[0].0 <= ms(150));
    assert_eq!(client.received[2].0, client.received[4].0, "the chunks leave back to back");
    let hours: Vec<u32> = client
        .entries
        .iter()
        .filter_map(|entry| WORLD.params().wall.checked_sub(entry.time?))
        .collect();
    let fresh = hours.iter().filter(|age| **age <= 3 * 3600 + 200).count();
    assert!(fresh * 100 > client.entries.len() * 95, "its addresses are of the last three hours");
    let of_all: Vec<f64> = WORLD
        .nodes()
        .iter()
        .enumerate()
        .filter(|(_, node)| node.profile == Profile::Trb)
        .flat_map(|(at, _)| {
            (0..20).map(move |seed| {
                Client::again(at, false, seed).handshake().wait(ms(400_000)).last().as_secs_f64()
            })
        })
        .collect();
    let mean = of_all.iter().sum::<f64>() / of_all.len() as f64;
    assert!((3.5..6.5).contains(&mean), "mean {mean} s");
}

#[test]
fn trb_bans_for_unknown_commands() {
    for unknown in ["pong", "wtxidrelay", "sendaddrv2", "sendheaders", "nonsense"] {
        let at = sender(Profile::Trb);
        let client = Client::with(at).handshake().send(&message(unknown, &[0; 8]));
        assert_eq!(client.closed(), Some(Close::Fin), "{unknown}");
        assert!(client.conversation.observations().banned);
        assert_eq!(client.faults(), [Fault::UnknownCommand]);
        assert_eq!(client.wait(ms(100_000)).words(), "", "it sends nothing after a ban");
        let again = Client::again(at, true, 1);
        assert_eq!(again.closed(), Some(Close::Fin));
        assert_eq!(again.handshake().wait(ms(100_000)).words(), "");
    }
    for known in ["inv", "ping", "getdata", "getheaders", "tx"] {
        let client = Client::with(sender(Profile::Trb)).handshake().send(&message(known, &[0; 8]));
        assert_eq!(client.closed(), None, "{known}");
        assert_eq!(client.faults(), []);
        assert!(!client.wait(ms(1000)).words().contains("pong"), "TRB knows no pong");
    }
}

#[test]
fn trb_replies_without_verack_and_every_time() {
    let at = sender(Profile::Trb);
    let getaddr = message("getaddr", &[]);
    let client = Client::with(at).send(&version(70_015)).send(&getaddr).send(&getaddr);
    let client = client.wait(ms(500_000));
    assert_eq!(client.conversation.observations().asked, 2);
    assert_eq!(client.conversation.observations().replies, 2);
    assert_eq!(client.entries.len() + missing(&client), 2 * WORLD.reply_length(at));
    assert_eq!(client.faults(), []);
}

/// Entries of other networks, which the decoder skips.
fn missing(client: &Client) -> usize {
    let counts = client.received.iter().filter_map(|(_, word)| {
        word.strip_prefix("addr(")?.strip_suffix(')')?.parse::<usize>().ok()
    });
    counts.sum::<usize>() - client.entries.len()
}

#[test]
fn getblocks_goes_to_peers_that_claim_blocks() {
    let mut claims = version(70_015);
    let payload = 24;
    claims[payload + 4] = 1;
    let claims = message("version", &claims[payload..]);
    let client = Client::with(sender(Profile::Trb)).send(&claims).wait(ms(200));
    assert_eq!(client.words(), "version verack getblocks");
}

#[test]
fn bcoin_sends_version_first_and_its_whole_table() {
    let at = sender(Profile::Bcoin);
    let client = Client::with(at);
    assert_eq!(client.words(), "version");
    let client = client.handshake().wait(ms(100));
    let mut words: Vec<&str> = client.received.iter().map(|(_, word)| word.as_str()).collect();
    words.sort_unstable();
    let n = WORLD.reply_length(at);
    let all = format!("addr({n})");
    assert_eq!(words, ["addr(1)", &all, "getaddr", "sendcmpct", "verack", "version"]);
    assert!(n > 990);
}

#[test]
fn gocoin_sends_nodes_that_it_has_seen_alive() {
    let at = sender(Profile::Gocoin);
    let client = Client::with(at).handshake().wait(ms(100));
    assert_eq!(client.words(), "version verack sendheaders feefilter sendcmpct addr(500)");
    let alive = |entry: &&AddrEntry| WORLD.find(address(entry)).is_some();
    assert!(client.entries.iter().filter(alive).count() > 480);
    assert_eq!(client.version.unwrap().relay, None);
}

#[test]
fn core_ignores_getaddr_before_verack() {
    for profile in [Profile::NewCore, Profile::OldCore] {
        let getaddr = message("getaddr", &[]);
        let early = [version(70_015), getaddr.clone(), message("verack", &[])].concat();
        let at = sender(profile);
        let client = Client::with(at).send(&early).wait(ms(300_000));
        let all = format!("addr({})", WORLD.reply_length(at));
        assert!(!client.words().contains(&all), "{profile}: {}", client.words());
        assert_eq!(client.faults(), [Fault::GetaddrBeforeVerack]);
        assert!(
            client.send(&getaddr).wait(ms(300_000)).words().contains(&all),
            "a second one works"
        );
    }
}

#[test]
fn core_replies_once() {
    let at = sender(Profile::NewCore);
    let client =
        Client::with(at).handshake().wait(ms(10)).send(&message("getaddr", &[])).wait(ms(300_000));
    assert_eq!(client.words().matches(&format!("addr({})", WORLD.reply_length(at))).count(), 1);
    assert_eq!(client.faults(), [Fault::RepeatedGetaddr]);
}

#[test]
fn nodes_without_peers_send_none() {
    for profile in [Profile::NewCore, Profile::OldCore] {
        let at = node(|node| {
            let mute = !node.sends_peers && node.announces == Announces::Never;
            node.profile == profile && mute
        });
        let client = Client::with(at).handshake().wait(ms(1_000_000));
        assert!(!client.words().contains("addr"), "{}", client.words());
        assert_eq!(client.conversation.observations().asked, 1);
    }
}

#[test]
fn a_second_version_is_ignored_and_counted() {
    for profile in [Profile::NewCore, Profile::OldCore, Profile::AncientCore, Profile::Trb] {
        let client = Client::with(sender(profile)).handshake().send(&version(70_015)).wait(ms(200));
        assert_eq!(client.words().matches("version").count(), 1);
        assert_eq!(client.faults(), [Fault::SecondVersion]);
        assert_eq!(client.closed(), None);
    }
    let client = Client::with(sender(Profile::Bcoin)).handshake().send(&version(70_015));
    assert_eq!(client.closed(), Some(Close::Fin));
}

#[test]
fn silent_clients_are_disconnected() {
    for (profile, deadline) in [
        (Profile::NewCore, 60),
        (Profile::OldCore, 60),
        (Profile::Trb, 60),
        (Profile::Bcoin, 10),
        (Profile::Gocoin, 20),
    ] {
        let client = Client::with(sender(profile)).wait(ms(deadline * 1000 - 1));
        assert_eq!(client.closed(), None, "{profile}");
        let expected = if profile == Profile::Bcoin { "version" } else { "" };
        assert_eq!(client.words(), expected);
        assert_eq!(client.wait(ms(1)).closed(), Some(Close::Fin), "{profile}");
    }
    // Without `verack` Core disconnects and TRB does not; after it neither does.
    let version = version(70_015);
    let closed =
        |profile, bytes: &[u8]| Client::with(sender(profile)).send(bytes).wait(ms(61_000)).closed();
    assert_eq!(closed(Profile::NewCore, &version), Some(Close::Fin));
    assert_eq!(closed(Profile::Trb, &version), None);
    let has_verack = [version, message("verack", &[])].concat();
    assert_eq!(closed(Profile::NewCore, &has_verack), None);
}

#[test]
fn an_old_protocol_version_gets_no_answer() {
    for (profile, number) in [
        (Profile::NewCore, 31_402),
        (Profile::OldCore, 209),
        (Profile::AncientCore, 106),
        (Profile::Trb, 0),
        (Profile::Gocoin, -1),
    ] {
        let client = Client::with(sender(profile)).send(&version(number)).wait(ms(100));
        assert_eq!((client.words().as_str(), client.closed()), ("", Some(Close::Fin)), "{profile}");
        assert_eq!(client.faults(), [Fault::OldVersion]);
    }
}

#[test]
fn entries_have_no_time_for_old_protocol_versions() {
    let at = sender(Profile::Trb);
    let client = Client::with(at).send(&version(31_401)).send(&message("getaddr", &[]));
    let client = client.wait(ms(500_000));
    assert!(client.entries.len() > 100);
    assert!(client.entries.iter().all(|entry| entry.time.is_none()));
}

#[test]
fn most_nodes_disconnect_on_garbage_and_trb_resynchronizes() {
    let magic = |profile, bytes: &[u8]| Client::with(sender(profile)).send(bytes);
    for profile in [Profile::NewCore, Profile::OldCore, Profile::AncientCore] {
        let client = magic(profile, b"GET / HTTP/1.0\r\n\r\n");
        assert_eq!(client.closed(), Some(Close::Fin));
        assert_eq!(client.faults(), [Fault::WrongMagic]);
    }
    assert_eq!(magic(Profile::Gocoin, b"GET /").closed(), Some(Close::Reset));
    let late = [b"garbage".as_slice(), &version(70_015), &message("getaddr", &[])].concat();
    let client = magic(Profile::Trb, &late).wait(ms(500_000));
    assert!(client.words().starts_with("version verack addr("), "{}", client.words());
    let mut long = message("tx", &[]);
    long[16..20].copy_from_slice(&4_000_001_u32.to_le_bytes());
    let client = magic(Profile::NewCore, &[version(70_015), long].concat());
    assert_eq!((client.closed(), client.faults()), (Some(Close::Fin), [Fault::TooLong].as_slice()));
}

#[test]
fn broken_messages_are_ignored() {
    let mut broken = version(70_015);
    broken[20] ^= 1;
    let client = Client::with(sender(Profile::NewCore)).send(&broken).wait(ms(100));
    assert_eq!((client.words().as_str(), client.closed()), ("", None));
}

#[test]
fn delays_and_latency_are_scaled() {
    let params = WorldParams { time_scale: 0.1, ..WorldParams::default() };
    let world = Arc::new(World::generate(&params).unwrap());
    let at = node(|node| node.profile == Profile::NewCore && node.rtt > ms(100));
    let rng = fastrand::Rng::with_seed(1);
    let mut conversation = Conversation::new(world.clone(), at, false, Duration::ZERO, rng);
    conversation.handle_bytes(&version(70_015), ms(5));
    let due = ms(5) + world.nodes()[at].rtt.mul_f64(0.1);
    assert_eq!(conversation.poll_timeout(), Some(due));
    assert_eq!(conversation.poll_transmit(due - Duration::from_nanos(1)), None);
    assert!(conversation.poll_transmit(due).is_some());
}

#[test]
fn arbitrary_bytes_cause_no_panic_and_bounded_memory() {
    let mut rng = fastrand::Rng::with_seed(3);
    let good = [version(70_015), message("verack", &[]), message("getaddr", &[])].concat();
    for seed in 0..300 {
        let mut client = Client::again(seed as usize, false, seed);
        for _ in 0..20 {
            let mut bytes = good.repeat(rng.usize(1..4));
            for _ in 0..rng.usize(0..4) {
                let at = rng.usize(0..bytes.len());
                bytes[at] = rng.u8(..);
            }
            bytes.truncate(rng.usize(0..=bytes.len()));
            client.conversation.handle_bytes(&bytes, client.now);
            client.now += ms(rng.u64(0..100));
            client.conversation.handle_timeout(client.now);
        }
        let seen = client.conversation.observations();
        assert!(seen.faults.len() <= MAX_KEPT && seen.commands.len() <= MAX_KEPT);
        assert!(client.conversation.planned.len() <= MAX_PLANNED + 16);
    }
}
