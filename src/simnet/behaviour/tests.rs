//! Every manner in virtual time: which messages, in which order, when.

use std::sync::LazyLock;

use super::*;
use crate::crawl::address::Address;
use crate::simnet::world::WorldParams;
use crate::watchglass::{AddrEntry, NetworkAddress, encode_message};

/// A world as fast as life but without the way there and back.
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

fn sender(manner: Manner) -> usize {
    node(|node| node.manner == manner && node.sends_peers)
}

/// The other end: what it has sent and met.
struct Talk {
    conversation: Conversation,
    decoder: Decoder,
    now: Duration,
    /// When which message came; an `addr` with its number of entries.
    heard: Vec<(Duration, String)>,
    entries: Vec<AddrEntry>,
    version: Option<Version>,
}

impl Talk {
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
            heard: Vec::new(),
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

    fn greet(self) -> Self {
        self.send(&[version(70_015), message("verack", &[]), message("getaddr", &[])].concat())
    }

    /// Lets time pass, event by event.
    fn wait(mut self, time: Duration) -> Self {
        let end = self.now + time;
        while let Some(due) = self.conversation.poll_timeout().filter(|due| *due <= end) {
            assert!(due >= self.now, "time runs backwards");
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
                self.heard.push((self.now, name));
            }
        }
    }

    fn words(&self) -> String {
        let words: Vec<&str> = self.heard.iter().map(|(_, word)| word.as_str()).collect();
        words.join(" ")
    }

    /// When the last message came.
    fn last(&self) -> Duration {
        self.heard.last().unwrap().0
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

fn version(version: i32) -> Vec<u8> {
    let mut payload = Vec::new();
    Version {
        version,
        services: 0,
        timestamp: 1,
        addr_recv: NetworkAddress::UNSPECIFIED,
        addr_from: Some(NetworkAddress::UNSPECIFIED),
        nonce: Some(99),
        user_agent: Some(b"/test/".to_vec()),
        user_agent_length: 6,
        start_height: Some(0),
        relay: Some(false),
        trailing: 0,
    }
    .encode(&mut payload);
    message("version", &payload)
}

#[test]
fn the_newest_core_announces_itself_and_answers_at_once() {
    let at = node(|node| node.announces == Announces::BeforeReply && node.sends_peers);
    let talk = Talk::with(at).greet().wait(ms(10));
    let n = WORLD.reply_length(at);
    assert_eq!(talk.words(), format!("version verack sendcmpct ping feefilter addr(1) addr({n})"));
    assert_eq!(address(&talk.entries[0]), WORLD.nodes()[at].address);
    assert!(talk.last() <= ms(2));
}

#[test]
fn core_28_merges_its_announcement_into_the_reply() {
    let at = node(|node| node.user_agent == b"/Satoshi:28.1.0/" && node.sends_peers);
    let talk = Talk::with(at).greet().wait(ms(10));
    let n = WORLD.reply_length(at);
    assert_eq!(talk.words(), format!("version verack sendcmpct ping feefilter addr({n})"));
    let own = WORLD.nodes()[at].address;
    assert!(talk.entries.iter().any(|entry| address(entry) == own));
}

#[test]
fn features_are_told_to_those_who_know_them() {
    let at = sender(Manner::NewCore);
    let words = |number: i32| {
        Talk::with(at).send(&version(number)).send(&message("verack", &[])).wait(ms(1)).words()
    };
    assert_eq!(words(70_016), "version wtxidrelay sendaddrv2 verack sendcmpct ping feefilter");
    assert_eq!(words(70_015), "version verack sendcmpct ping feefilter");
    assert_eq!(words(70_012), "version verack alert ping");
}

#[test]
fn old_core_announces_itself_and_answers_half_a_minute_later() {
    let at = node(|node| {
        let announces = node.announces == Announces::AtHandshake;
        node.manner == Manner::OldCore && node.sends_peers && announces
    });
    let n = WORLD.reply_length(at);
    let mut waits: Vec<f64> = Vec::new();
    for seed in 0..400 {
        let talk = Talk::again(at, false, seed).greet().wait(ms(1_000_000));
        let handshake = "version verack sendheaders sendcmpct sendcmpct ping addr(1) feefilter";
        assert_eq!(talk.words(), format!("{handshake} addr({n})"));
        assert_eq!(talk.heard[7].0, Duration::ZERO, "the handshake is not delayed");
        waits.push(talk.last().as_secs_f64());
    }
    waits.sort_by(f64::total_cmp);
    let mean = waits.iter().sum::<f64>() / 400.0;
    assert!((26.0..34.0).contains(&mean), "mean {mean} s");
    assert!((17.0..25.0).contains(&waits[200]), "median {} s", waits[200]);
    assert!((56.0..85.0).contains(&waits[360]), "90 of 100 within {} s", waits[360]);
}

#[test]
fn ancient_core_answers_on_its_trickle_turn_in_several_messages() {
    let at = node(|node| {
        node.manner == Manner::AncientCore && node.sends_peers && node.table * 23 / 100 > 1100
    });
    let talk = Talk::with(at).greet().wait(ms(100_000));
    let n = WORLD.reply_length(at);
    assert!(n > 1000);
    assert_eq!(talk.words(), format!("version verack addr(1000) addr({})", n - 1000));
    assert!(talk.heard[0].0 >= ms(20) && talk.heard[0].0 <= ms(150));
}

#[test]
fn core_0_8_has_no_relay_byte() {
    let at = node(|node| node.user_agent == b"/Satoshi:0.8.6/");
    let talk = Talk::with(at).greet().wait(ms(150));
    let version = talk.version.unwrap();
    assert_eq!(version.relay, None);
    assert_eq!((version.version, version.services), (70_001, 1));
}

#[test]
fn a_version_is_as_the_world_says() {
    for at in 0..200 {
        let talk = Talk::with(at).greet().wait(ms(200));
        let (version, node) = (talk.version.unwrap(), &WORLD.nodes()[at]);
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
fn trb_answers_seconds_later_in_chunks() {
    let at = node(|node| node.manner == Manner::Trb && node.table > 4200);
    let talk = Talk::with(at).greet().wait(ms(200_000));
    assert_eq!(talk.words(), "version verack addr(1000) addr(1000) addr(500)");
    assert!(talk.heard[0].0 >= ms(20) && talk.heard[0].0 <= ms(150));
    assert_eq!(talk.heard[2].0, talk.heard[4].0, "the chunks leave back to back");
    let hours: Vec<u32> = talk
        .entries
        .iter()
        .filter_map(|entry| WORLD.params().wall.checked_sub(entry.time?))
        .collect();
    let fresh = hours.iter().filter(|age| **age <= 3 * 3600 + 200).count();
    assert!(fresh * 100 > talk.entries.len() * 95, "its addresses are of the last three hours");
    let of_all: Vec<f64> = WORLD
        .nodes()
        .iter()
        .enumerate()
        .filter(|(_, node)| node.manner == Manner::Trb)
        .flat_map(|(at, _)| {
            (0..20).map(move |seed| {
                Talk::again(at, false, seed).greet().wait(ms(400_000)).last().as_secs_f64()
            })
        })
        .collect();
    let mean = of_all.iter().sum::<f64>() / of_all.len() as f64;
    assert!((3.5..6.5).contains(&mean), "mean {mean} s");
}

#[test]
fn trb_bans_for_what_it_does_not_know() {
    for heathen in ["pong", "wtxidrelay", "sendaddrv2", "sendheaders", "nonsense"] {
        let at = sender(Manner::Trb);
        let talk = Talk::with(at).greet().send(&message(heathen, &[0; 8]));
        assert_eq!(talk.closed(), Some(Close::Fin), "{heathen}");
        assert!(talk.conversation.observations().banned);
        assert_eq!(talk.faults(), [Fault::HeathenCommand]);
        assert_eq!(talk.wait(ms(100_000)).words(), "", "it says nothing any more");
        let again = Talk::again(at, true, 1);
        assert_eq!(again.closed(), Some(Close::Fin));
        assert_eq!(again.greet().wait(ms(100_000)).words(), "");
    }
    for known in ["inv", "ping", "getdata", "getheaders", "tx"] {
        let talk = Talk::with(sender(Manner::Trb)).greet().send(&message(known, &[0; 8]));
        assert_eq!(talk.closed(), None, "{known}");
        assert_eq!(talk.faults(), []);
        assert!(!talk.wait(ms(1000)).words().contains("pong"), "TRB knows no pong");
    }
}

#[test]
fn trb_answers_without_verack_and_every_time() {
    let at = sender(Manner::Trb);
    let getaddr = message("getaddr", &[]);
    let talk = Talk::with(at).send(&version(70_015)).send(&getaddr).send(&getaddr);
    let talk = talk.wait(ms(500_000));
    assert_eq!(talk.conversation.observations().asked, 2);
    assert_eq!(talk.conversation.observations().replies, 2);
    assert_eq!(talk.entries.len() + missing(&talk), 2 * WORLD.reply_length(at));
    assert_eq!(talk.faults(), []);
}

/// Entries that the decoder does not hand out: those of other networks.
fn missing(talk: &Talk) -> usize {
    let counts = talk.heard.iter().filter_map(|(_, word)| {
        word.strip_prefix("addr(")?.strip_suffix(')')?.parse::<usize>().ok()
    });
    counts.sum::<usize>() - talk.entries.len()
}

#[test]
fn getblocks_is_asked_of_those_who_claim_blocks() {
    let mut claims = version(70_015);
    let payload = 24;
    claims[payload + 4] = 1;
    let claims = message("version", &claims[payload..]);
    let talk = Talk::with(sender(Manner::Trb)).send(&claims).wait(ms(200));
    assert_eq!(talk.words(), "version verack getblocks");
}

#[test]
fn bcoin_speaks_first_and_sends_its_whole_table() {
    let at = sender(Manner::Bcoin);
    let talk = Talk::with(at);
    assert_eq!(talk.words(), "version");
    let talk = talk.greet().wait(ms(100));
    let mut words: Vec<&str> = talk.heard.iter().map(|(_, word)| word.as_str()).collect();
    words.sort_unstable();
    let n = WORLD.reply_length(at);
    let all = format!("addr({n})");
    assert_eq!(words, ["addr(1)", &all, "getaddr", "sendcmpct", "verack", "version"]);
    assert!(n > 990);
}

#[test]
fn gocoin_sends_what_it_has_seen_alive() {
    let at = sender(Manner::Gocoin);
    let talk = Talk::with(at).greet().wait(ms(100));
    assert_eq!(talk.words(), "version verack sendheaders feefilter sendcmpct addr(500)");
    let alive = |entry: &&AddrEntry| WORLD.find(address(entry)).is_some();
    assert!(talk.entries.iter().filter(alive).count() > 480);
    assert_eq!(talk.version.unwrap().relay, None);
}

#[test]
fn core_loses_a_getaddr_before_verack_for_good() {
    for manner in [Manner::NewCore, Manner::OldCore] {
        let getaddr = message("getaddr", &[]);
        let early = [version(70_015), getaddr.clone(), message("verack", &[])].concat();
        let at = sender(manner);
        let talk = Talk::with(at).send(&early).wait(ms(300_000));
        let all = format!("addr({})", WORLD.reply_length(at));
        assert!(!talk.words().contains(&all), "{manner}: {}", talk.words());
        assert_eq!(talk.faults(), [Fault::GetaddrBeforeVerack]);
        assert!(talk.send(&getaddr).wait(ms(300_000)).words().contains(&all), "a second one works");
    }
}

#[test]
fn core_answers_once() {
    let at = sender(Manner::NewCore);
    let talk = Talk::with(at).greet().wait(ms(10)).send(&message("getaddr", &[])).wait(ms(300_000));
    assert_eq!(talk.words().matches(&format!("addr({})", WORLD.reply_length(at))).count(), 1);
    assert_eq!(talk.faults(), [Fault::RepeatedGetaddr]);
}

#[test]
fn a_node_without_peers_sends_none() {
    for manner in [Manner::NewCore, Manner::OldCore] {
        let at = node(|node| {
            let mute = !node.sends_peers && node.announces == Announces::Never;
            node.manner == manner && mute
        });
        let talk = Talk::with(at).greet().wait(ms(1_000_000));
        assert!(!talk.words().contains("addr"), "{}", talk.words());
        assert_eq!(talk.conversation.observations().asked, 1);
    }
}

#[test]
fn a_second_version_is_ignored_and_counted() {
    for manner in [Manner::NewCore, Manner::OldCore, Manner::AncientCore, Manner::Trb] {
        let talk = Talk::with(sender(manner)).greet().send(&version(70_015)).wait(ms(200));
        assert_eq!(talk.words().matches("version").count(), 1);
        assert_eq!(talk.faults(), [Fault::SecondVersion]);
        assert_eq!(talk.closed(), None);
    }
    let talk = Talk::with(sender(Manner::Bcoin)).greet().send(&version(70_015));
    assert_eq!(talk.closed(), Some(Close::Fin));
}

#[test]
fn who_says_nothing_is_hung_up_on() {
    for (manner, patience) in [
        (Manner::NewCore, 60),
        (Manner::OldCore, 60),
        (Manner::Trb, 60),
        (Manner::Bcoin, 10),
        (Manner::Gocoin, 20),
    ] {
        let talk = Talk::with(sender(manner)).wait(ms(patience * 1000 - 1));
        assert_eq!(talk.closed(), None, "{manner}");
        let expected = if manner == Manner::Bcoin { "version" } else { "" };
        assert_eq!(talk.words(), expected);
        assert_eq!(talk.wait(ms(1)).closed(), Some(Close::Fin), "{manner}");
    }
    // Without verack Core hangs up, TRB does not; after it nobody does.
    let version = version(70_015);
    let closed =
        |manner, bytes: &[u8]| Talk::with(sender(manner)).send(bytes).wait(ms(61_000)).closed();
    assert_eq!(closed(Manner::NewCore, &version), Some(Close::Fin));
    assert_eq!(closed(Manner::Trb, &version), None);
    let shaken = [version, message("verack", &[])].concat();
    assert_eq!(closed(Manner::NewCore, &shaken), None);
}

#[test]
fn too_old_a_version_gets_no_answer() {
    for (manner, number) in [
        (Manner::NewCore, 31_402),
        (Manner::OldCore, 209),
        (Manner::AncientCore, 106),
        (Manner::Trb, 0),
        (Manner::Gocoin, -1),
    ] {
        let talk = Talk::with(sender(manner)).send(&version(number)).wait(ms(100));
        assert_eq!((talk.words().as_str(), talk.closed()), ("", Some(Close::Fin)), "{manner}");
        assert_eq!(talk.faults(), [Fault::OldVersion]);
    }
}

#[test]
fn entries_have_no_time_for_those_who_do_not_know_it() {
    let at = sender(Manner::Trb);
    let talk = Talk::with(at).send(&version(31_401)).send(&message("getaddr", &[]));
    let talk = talk.wait(ms(500_000));
    assert!(talk.entries.len() > 100);
    assert!(talk.entries.iter().all(|entry| entry.time.is_none()));
}

#[test]
fn garbage_ends_most_conversations_and_trb_looks_on() {
    let magic = |manner, bytes: &[u8]| Talk::with(sender(manner)).send(bytes);
    for manner in [Manner::NewCore, Manner::OldCore, Manner::AncientCore] {
        let talk = magic(manner, b"GET / HTTP/1.0\r\n\r\n");
        assert_eq!(talk.closed(), Some(Close::Fin));
        assert_eq!(talk.faults(), [Fault::WrongMagic]);
    }
    assert_eq!(magic(Manner::Gocoin, b"GET /").closed(), Some(Close::Reset));
    let late = [b"garbage".as_slice(), &version(70_015), &message("getaddr", &[])].concat();
    let talk = magic(Manner::Trb, &late).wait(ms(500_000));
    assert!(talk.words().starts_with("version verack addr("), "{}", talk.words());
    let mut long = message("tx", &[]);
    long[16..20].copy_from_slice(&4_000_001_u32.to_le_bytes());
    let talk = magic(Manner::NewCore, &[version(70_015), long].concat());
    assert_eq!((talk.closed(), talk.faults()), (Some(Close::Fin), [Fault::TooLong].as_slice()));
}

#[test]
fn what_is_broken_is_passed_over() {
    let mut broken = version(70_015);
    broken[20] ^= 1;
    let talk = Talk::with(sender(Manner::NewCore)).send(&broken).wait(ms(100));
    assert_eq!((talk.words().as_str(), talk.closed()), ("", None));
}

#[test]
fn delays_and_latency_are_scaled() {
    let params = WorldParams { time_scale: 0.1, ..WorldParams::default() };
    let world = Arc::new(World::generate(&params).unwrap());
    let at = node(|node| node.manner == Manner::NewCore && node.rtt > ms(100));
    let rng = fastrand::Rng::with_seed(1);
    let mut conversation = Conversation::new(world.clone(), at, false, Duration::ZERO, rng);
    conversation.handle_bytes(&version(70_015), ms(5));
    let due = ms(5) + world.nodes()[at].rtt.mul_f64(0.1);
    assert_eq!(conversation.poll_timeout(), Some(due));
    assert_eq!(conversation.poll_transmit(due - Duration::from_nanos(1)), None);
    assert!(conversation.poll_transmit(due).is_some());
}

#[test]
fn arbitrary_bytes_never_panic_and_are_bounded() {
    let mut rng = fastrand::Rng::with_seed(3);
    let good = [version(70_015), message("verack", &[]), message("getaddr", &[])].concat();
    for seed in 0..300 {
        let mut talk = Talk::again(seed as usize, false, seed);
        for _ in 0..20 {
            let mut bytes = good.repeat(rng.usize(1..4));
            for _ in 0..rng.usize(0..4) {
                let at = rng.usize(0..bytes.len());
                bytes[at] = rng.u8(..);
            }
            bytes.truncate(rng.usize(0..=bytes.len()));
            talk.conversation.handle_bytes(&bytes, talk.now);
            talk.now += ms(rng.u64(0..100));
            talk.conversation.handle_timeout(talk.now);
        }
        let seen = talk.conversation.observations();
        assert!(seen.faults.len() <= MOST_KEPT && seen.commands.len() <= MOST_KEPT);
        assert!(talk.conversation.planned.len() <= MOST_PLANNED + 16);
    }
}
