//! Species: the lineage of a node's software, derived from its `version` message.
//!
//! Sans-I/O: rules as data and pure functions.
//!
//! A species is a lineage, not a product: Knots with BIP 110 is Knots, Omni and Statoshi are Core.
//! User agent and services are claims. If a claim is impossible (a version that Core never had, or
//! one older than a service that it offers), the species is [`DISGUISED`].
//!
//! TRB is recognised by more than its name. It writes the number of its `version` field as its
//! dotted version, `99999` as `0.9.99.99`, and no other family does; so a custom name
//! (`/jwrd.net:0.9.99.99/`) does not hide it.
//!
//! Invariants:
//! 1. [`species`] returns a name of [`ALL`] for any input.
//! 2. Comments in parentheses never decide, except the marks of SegWit2x and of the big-block
//!    families: operators write anything there.
//! 3. The order of the rules is: TRB, forgeries, other coins, builds of Core, all others. Knots
//!    precedes Core, since its agent begins with Core's.
//!
//! Sources: the TRB tree (knobs.h, util.cpp); Bitnodes snapshots of 2022-09-13 and 2026-04-28; the
//! ban list of a BitCore DNS seeder (2018); Luke-Jr's charts; Bitcoin Core protocol.h.

mod agent;

use agent::{Agent, Release};

/// "The Real Bitcoin" and its descendants.
pub const TRB: &str = "TRB";
/// Bitcoin Core and builds of it that keep its user agent.
pub const CORE: &str = "Core";
/// Bitcoin Knots, with or without BIP 110.
pub const KNOTS: &str = "Knots";
/// Bitcoin Cash: BCHN, ABC, and others with an excessive-block mark.
pub const BCH: &str = "BCH";
/// Bitcoin SV.
pub const BSV: &str = "BSV";
/// Bitcoin XT.
pub const XT: &str = "XT";
/// Bitcoin Classic.
pub const CLASSIC: &str = "Classic";
/// Bitcoin Unlimited, on either chain.
pub const UNLIMITED: &str = "Unlimited";
/// btc1, the client of SegWit2x.
pub const SEGWIT2X: &str = "SegWit2x";
/// btcd.
pub const BTCD: &str = "btcd";
/// bcoin.
pub const BCOIN: &str = "bcoin";
/// Gocoin.
pub const GOCOIN: &str = "Gocoin";
/// libbitcoin.
pub const LIBBITCOIN: &str = "libbitcoin";
/// Nodes on a utreexo accumulator: utreexod, Floresta.
pub const UTREEXO: &str = "utreexo";
/// Wallets and other light clients.
pub const LIGHT: &str = "light";
/// Servers for wallets and block explorers.
pub const INDEXER: &str = "indexer";
/// Crawlers, seeders and monitors, bitdash included.
pub const CRAWLER: &str = "crawler";
/// Nodes of another chain that uses Bitcoin's magic.
pub const OTHER_COIN: &str = "other_coin";
/// An impossible claim to be Core.
pub const DISGUISED: &str = "disguised";
/// Everything else, including an empty user agent.
pub const OTHER: &str = "other";

/// Every species: single tokens, so that they fit tables and keys.
pub const ALL: &[&str] = &[
    TRB, CORE, KNOTS, BCH, BSV, XT, CLASSIC, UNLIMITED, SEGWIT2X, BTCD, BCOIN, GOCOIN, LIBBITCOIN,
    UTREEXO, LIGHT, INDEXER, CRAWLER, OTHER_COIN, DISGUISED, OTHER,
];

/// Species that are not one product: the versions of their members are unrelated.
const UNVERSIONED: &[&str] = &[UTREEXO, LIGHT, INDEXER, CRAWLER, OTHER_COIN, DISGUISED, OTHER];

/// How a family answers `getaddr`, which determines the timeout.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum GetaddrTiming {
    /// At once: Core from 23 on and builds of it, bcoin, btcd, Gocoin, utreexo nodes.
    AnswersAtOnce,
    /// One random peer each 100 ms, so after some 10 s on a node with many peers: TRB, Core up to
    /// 0.11.
    Trickles,
    /// When a timer with an exponential mean of 30 s fires: Core 0.12 to 22.
    Delayed,
    /// Unknown.
    Unknown,
}

/// The species of a node. The user agent is in its escaped text form.
pub fn species(user_agent: Option<&str>, protocol_version: i32, services: u64) -> &'static str {
    let text = user_agent.unwrap_or("");
    let agent = Agent::read(text);
    if is_trb(&agent, protocol_version) {
        return TRB;
    }
    if is_forged_name(text) {
        return DISGUISED;
    }
    if let Some(word) = find(OTHER_COINS, &agent) {
        return word;
    }
    if CORE_NAMES.contains(&agent.first().name) {
        return built_on_core(&agent, protocol_version, services);
    }
    if agent.is_knots() {
        return KNOTS;
    }
    if let Some(word) = find(FAMILIES, &agent) {
        return word;
    }
    if agent.has_excessive_block_mark() || services & NODE_BITCOIN_CASH != 0 {
        return BCH;
    }
    OTHER
}

/// Species and major version: "Core 28", "Core 0.21". `None` if the species is not one product, or
/// if the user agent (in its escaped text form) holds no version.
pub fn release(species: &str, user_agent: Option<&str>) -> Option<String> {
    if UNVERSIONED.contains(&species) {
        return None;
    }
    let agent = Agent::read(user_agent?);
    let part = match species {
        BTCD => *agent.parts.iter().find(|part| part.name == BTCD)?,
        _ => agent.first(),
    };
    let version = part.version.strip_prefix('v').unwrap_or(part.version);
    let mut numbers = version.split('.').map(agent::number);
    match numbers.next()?? {
        0 => Some(format!("{species} 0.{}", numbers.next()??)),
        major => Some(format!("{species} {major}")),
    }
}

/// How a node with this user agent (in its escaped text form) answers `getaddr`.
pub fn getaddr_timing(user_agent: Option<&str>, protocol_version: i32) -> GetaddrTiming {
    let text = user_agent.unwrap_or("");
    let agent = Agent::read(text);
    if is_trb(&agent, protocol_version) {
        return GetaddrTiming::Trickles;
    }
    if is_forged_name(text) {
        return GetaddrTiming::Unknown;
    }
    if CORE_NAMES.contains(&agent.first().name) {
        return match Release::read(agent.first().version) {
            Some(release) if release.line >= 23 => GetaddrTiming::AnswersAtOnce,
            Some(release) if release.line >= 12 => GetaddrTiming::Delayed,
            Some(_) => GetaddrTiming::Trickles,
            None => GetaddrTiming::Unknown,
        };
    }
    match find(FAMILIES, &agent) {
        Some(BCOIN | BTCD | GOCOIN | UTREEXO) => GetaddrTiming::AnswersAtOnce,
        _ => GetaddrTiming::Unknown,
    }
}

/// A condition on the parts of a user agent.
#[derive(Clone, Copy)]
enum Rule {
    /// A part has this name.
    Name(&'static str),
    /// The name of a part begins with this.
    Begins(&'static str),
    /// The name of a part contains this, in any case.
    Contains(&'static str),
}

use Rule::{Begins, Contains, Name};

/// Chains that kept Bitcoin's magic; checked first, since some of them use the names of others.
const OTHER_COINS: &[(Rule, &str)] = &[
    (Begins("CKCoin"), OTHER_COIN),
    (Begins("BitCore"), OTHER_COIN),
    (Name("Aurum"), OTHER_COIN),
    (Name("Ladybug"), OTHER_COIN),
    (Name("SuperBitcoin"), OTHER_COIN),
    (Name("SpuerBitcoin"), OTHER_COIN),
    (Name("WorldBitcoin"), OTHER_COIN),
    (Name("Bitcoin Gold"), OTHER_COIN),
    (Name("Bitcoin XBC"), OTHER_COIN),
    (Name("Bitcoin Core SQ"), OTHER_COIN),
    (Begins("iriumd"), OTHER_COIN),
    (Begins("vds_"), OTHER_COIN),
];

/// The first rule that matches decides.
const FAMILIES: &[(Rule, &str)] = &[
    (Begins("Bitcoin Cash"), BCH),
    (Name("Bitcoin ABC"), BCH),
    (Name("bchd"), BCH),
    (Name("Bitcoin SV"), BSV),
    (Name("Bitcoin XT"), XT),
    (Name("Classic"), CLASSIC),
    (Name("BitcoinUnlimited"), UNLIMITED),
    (Name("BUCash"), UNLIMITED),
    (Name("BCHUnlimited"), UNLIMITED),
    (Name("btcd"), BTCD),
    (Name("bcoin"), BCOIN),
    (Name("Gocoin"), GOCOIN),
    (Name("libbitcoin"), LIBBITCOIN),
    (Name("utreexod"), UTREEXO),
    (Name("Floresta"), UTREEXO),
    (Name("neutrino"), LIGHT),
    (Begins("bitcoinj"), LIGHT),
    (Name("Bitcoin Wallet"), LIGHT),
    (Begins("bread"), LIGHT),
    (Begins("Bither"), LIGHT),
    (Begins("MultiBit"), LIGHT),
    (Begins("bitsquare"), LIGHT),
    (Contains("bip-157"), LIGHT),
    (Contains("kyoto"), LIGHT),
    (Name("electrs"), INDEXER),
    (Contains("electrum"), INDEXER),
    (Name("esplora"), INDEXER),
    (Name("mempool"), INDEXER),
    (Begins("bitnodes"), CRAWLER),
    (Contains("-bitnodes"), CRAWLER),
    (Name("KIT-DSN"), CRAWLER),
    (Begins("dsn.tm.kit.edu"), CRAWLER),
    (Name("GlobalNodeMap"), CRAWLER),
    (Begins("nebula"), CRAWLER),
    (Begins("bitdash"), CRAWLER),
    (Begins("logosnaut"), CRAWLER),
    (Contains("crawl"), CRAWLER),
    (Contains("seeder"), CRAWLER),
    (Contains("census"), CRAWLER),
    (Contains("monitor"), CRAWLER),
    (Contains("observatory"), CRAWLER),
    (Contains("scan"), CRAWLER),
    (Contains("sonar"), CRAWLER),
    (Contains("scout"), CRAWLER),
];

/// The name of Core, and that of a build with statistics.
const CORE_NAMES: [&str; 2] = ["Satoshi", "Statoshi"];

const NODE_BITCOIN_CASH: u64 = 1 << 5;

/// The species of an agent that claims to be built on Core.
fn built_on_core(agent: &Agent<'_>, protocol_version: i32, services: u64) -> &'static str {
    let version = agent.first().version;
    if matches!(version.split_once('.'), Some(("1", _))) && agent.first().comment.starts_with("2x")
    {
        return SEGWIT2X;
    }
    // Anarchist Prime: its own genesis block, Bitcoin's magic.
    if version == "1.1.1" && protocol_version == 70006 {
        return OTHER_COIN;
    }
    match Release::read(version) {
        Some(release) if release.may_offer(services) => {}
        _ => return DISGUISED,
    }
    if agent.is_knots() {
        KNOTS
    } else if agent.has_excessive_block_mark() {
        BCH
    } else {
        CORE
    }
}

/// Whether the agent is TRB's, by its name or by its dotted version.
///
/// Core 0.6.0 is the only Core whose dotted version equals its number (60000). An empty agent is
/// TRB's only with TRB's own number.
fn is_trb(agent: &Agent<'_>, protocol_version: i32) -> bool {
    match agent.parts.as_slice() {
        [] => agent.is_empty && protocol_version == 99999,
        [part] if part.comment.is_empty() && !part.name.is_empty() => {
            part.name == "therealbitcoin.org"
                || (agent.is_enclosed
                    && is_dotted(protocol_version, part.version)
                    && !(part.name == "Satoshi" && protocol_version == 60000))
        }
        parts => parts.iter().any(|part| part.name == "therealbitcoin.org"),
    }
}

/// Whether `text` is `number` as TRB and the first Bitcoin write it: two digits a part, without a
/// trailing part of 0.
fn is_dotted(number: i32, text: &str) -> bool {
    if number <= 0 {
        return false;
    }
    let (a, b, c, d) =
        (number / 1_000_000, number / 10_000 % 100, number / 100 % 100, number % 100);
    match d {
        0 => text == format!("{a}.{b}.{c}"),
        _ => text == format!("{a}.{b}.{c}.{d}"),
    }
}

/// Names with which scanners impersonate Core: `/Sat0shi:`, `/Satoshi2:`, `/SatoshiX:`, `Satoshi:`
/// without a slash.
fn is_forged_name(text: &str) -> bool {
    let Some(behind) = text.strip_prefix('/') else {
        return text.starts_with("Satoshi:");
    };
    let name = behind.split(':').next().unwrap_or("");
    let added = name.strip_prefix("Satoshi").unwrap_or("");
    name == "Sat0shi"
        || !added.is_empty() && added.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'X'))
}

fn find(rules: &[(Rule, &'static str)], agent: &Agent<'_>) -> Option<&'static str> {
    let matches = |rule: &Rule| {
        agent.parts.iter().any(|part| match *rule {
            Name(name) => part.name == name,
            Begins(name) => part.name.starts_with(name),
            Contains(word) => part.name.to_ascii_lowercase().contains(word),
        })
    };
    rules.iter().find(|(rule, _)| matches(rule)).map(|(_, word)| *word)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// NETWORK, WITNESS, NETWORK_LIMITED and P2P_V2: what most nodes offer.
    const USUAL: u64 = 3081;

    #[test]
    fn trb_is_recognised_by_its_dotted_version() {
        let table = [
            (99999, "/therealbitcoin.org:0.9.99.99/"),
            (70001, "/therealbitcoin.org:0.7.0.1/"),
            (50302, "/therealbitcoin.org:0.5.3.2/"),
            (50400, "/therealbitcoin.org:0.5.4/"),
            (99999, "/jwrd.net:0.9.99.99/"),
            (50402, "/anything at all:0.5.4.2/"),
            (1_020_304, "/a:1.2.3.4/"),
            // Renamed to Core's name.
            (99999, "/Satoshi:0.9.99.99/"),
            (99999, ""),
        ];
        for (protocol_version, agent) in table {
            assert_eq!(species(Some(agent), protocol_version, 1), TRB, "{agent}");
            assert_eq!(
                getaddr_timing(Some(agent), protocol_version),
                GetaddrTiming::Trickles,
                "{agent}"
            );
        }
        assert_eq!(species(None, 99999, 1), TRB);
    }

    #[test]
    fn a_release_is_the_species_and_its_major_version() {
        let table = [
            (CORE, "/Satoshi:28.1.0(FutureBit)/", Some("Core 28")),
            (CORE, "/Satoshi:0.21.1/", Some("Core 0.21")),
            (KNOTS, "/Satoshi:29.1.0/Knots:20250903/", Some("Knots 29")),
            (TRB, "/therealbitcoin.org:0.9.99.99/", Some("TRB 0.9")),
            (BCH, "/Bitcoin Cash Node:27.1.0(EB32.0)/", Some("BCH 27")),
            (BTCD, "/btcwire:0.5.0/btcd:0.24.2/", Some("btcd 0.24")),
            (BCOIN, "/bcoin:v1.0.2/", Some("bcoin 1")),
            (KNOTS, "/Knots:20250903/", None),
            (TRB, "", None),
            (CORE, "/Satoshi:0/", None),
            (LIGHT, "/bitcoinj:0.16.2/", None),
            (DISGUISED, "/Satoshi:99.0.0/", None),
        ];
        for (species, agent, expected) in table {
            assert_eq!(release(species, Some(agent)).as_deref(), expected, "{agent}");
        }
        assert_eq!(release(TRB, None), None);
    }

    #[test]
    fn trb_by_name_needs_no_dotted_version() {
        assert_eq!(species(Some("/therealbitcoin.org:0.5.4/"), 70001, 1), TRB);
        assert_eq!(species(Some("/therealbitcoin.org:0.5.4(a comment)/"), 50000, 1), TRB);
    }

    #[test]
    fn other_dotted_versions_are_not_trb() {
        let table = [
            (70016, "/jwrd.net:0.9.99.99/", OTHER),
            (99999, "/jwrd.net:0.9.99.99/other:1/", OTHER),
            (99999, "/jwrd.net:0.9.99.9/", OTHER),
            (99999, "jwrd.net:0.9.99.99", OTHER),
            (50400, "/a:0.5.4.0/", OTHER),
            (99999, "/:0.9.99.99/", OTHER),
            (0, "/a:0.0.0/", OTHER),
            (-1, "/a:0.0.0.-1/", OTHER),
            (i32::MIN, "/a:-2147.-48.-36.-48/", OTHER),
            // The first Core with a version in its agent: its number is its protocol version.
            (60000, "/Satoshi:0.6.0/", CORE),
            (70001, "/Satoshi:0.8.6/", CORE),
            (99998, "", OTHER),
        ];
        for (protocol_version, agent, word) in table {
            assert_eq!(species(Some(agent), protocol_version, 1), word, "{agent}");
        }
    }

    #[test]
    fn only_possible_versions_are_core() {
        let good = [
            "0.6.0",
            "0.8.6",
            "0.14.1.6",
            "0.19.0.1",
            "0.20.99",
            "0.21.2",
            "21.99.0",
            "22.0.0",
            "27.99.21",
            "31.99.0",
            "32.0.0",
            "49.0.0",
            "30.2.0(needs-coffee)",
            "22.0.0()",
            "30.0.0(Wanton; Jezebel; ver. 3.0)",
            "29.1.0(a/b:1/c)",
            "30.2.0(SegWit2x-RIP)",
            "0.20.1(Omni:0.11.0)",
            "0.12.1(bitcore)",
            "30.0.0(BIP-110)",
            "30.0.0(my seeder)",
        ];
        for version in good {
            let agent = format!("/Satoshi:{version}/");
            assert_eq!(species(Some(&agent), 70016, 1), CORE, "{agent}");
        }
        let bad = [
            "",
            "23",
            "0.42.0",
            "0.5.4",
            "1.0.0",
            "1.1.1",
            "10.0.1",
            "20.0.0",
            "50.0.0",
            "22.69.0",
            "22.0",
            "22.0.0.0",
            "22.00.0",
            "022.0.0",
            "22.0.0-rc1",
            "22.0.x",
            "+22.0.0",
            "22..0",
            "4294967318.0.0",
            "0.21",
            "0.21.1.1.1",
        ];
        for version in bad {
            let agent = format!("/Satoshi:{version}/");
            assert_eq!(species(Some(&agent), 70016, 1), DISGUISED, "{agent}");
            assert_eq!(getaddr_timing(Some(&agent), 70016), GetaddrTiming::Unknown, "{agent}");
        }
    }

    #[test]
    fn versions_older_than_their_services_are_disguised() {
        let table = [
            ("/Satoshi:25.1.0/", 1033, CORE),
            ("/Satoshi:25.1.0/", USUAL, DISGUISED),
            ("/Satoshi:25.99.0/", USUAL, CORE),
            ("/Satoshi:26.0.0/", USUAL, CORE),
            ("/Satoshi:0.20.1/", 1097, DISGUISED),
            ("/Satoshi:0.20.99/", 1097, CORE),
            ("/Satoshi:0.21.0/", 1097, CORE),
            ("/Satoshi:0.15.1/", 1037, DISGUISED),
            ("/Satoshi:0.16.0/", 1037, CORE),
            ("/Satoshi:0.12.1/", 13, DISGUISED),
            ("/Satoshi:0.13.0/", 13, CORE),
            ("/Satoshi:31.0.0/", 0, DISGUISED),
            ("/Satoshi:29.3.0/Knots:20260210/", 0, DISGUISED),
            ("/Satoshi:0.11.2/", 0, CORE),
        ];
        for (agent, services, word) in table {
            assert_eq!(species(Some(agent), 70016, services), word, "{agent} {services}");
        }
    }

    #[test]
    fn knots_is_recognised_before_core() {
        let table = [
            ("/Satoshi:29.3.0/Knots:20260210/", KNOTS),
            ("/Satoshi:29.3.0/Knots:20260210+bip110-v0.4.1/UASF-BIP110:0.4/", KNOTS),
            ("/Satoshi:29.1.0(X)/Knots:20250903/https://pyblock.xyz:8443/", KNOTS),
            ("/GrayersDad:knots+bip110-v0.4.1(Mainnet Node-1)/", KNOTS),
            ("/Satoshi:0.9.3/ljr:20141127/", KNOTS),
            ("/Satoshi:28.1.0(knots)/", CORE),
            ("/Satoshi:29.2.0/Corea:20251101/", CORE),
        ];
        for (agent, word) in table {
            assert_eq!(species(Some(agent), 70016, 1), word, "{agent}");
        }
    }

    #[test]
    fn unknown_agent_with_bitcoin_cash_service_is_bch() {
        assert_eq!(species(Some("/New Node:1.0/"), 70015, 1061), BCH);
        assert_eq!(species(Some("/New Node:1.0(EB32.0)/"), 70015, 1), BCH);
        assert_eq!(species(Some("/New Node:1.0(EBay)/"), 70015, 1), OTHER);
    }

    #[test]
    fn getaddr_timing_follows_the_version_of_core() {
        let table = [
            ("/Satoshi:0.8.6/", GetaddrTiming::Trickles),
            ("/Satoshi:0.11.2/", GetaddrTiming::Trickles),
            ("/Satoshi:0.12.0/", GetaddrTiming::Delayed),
            ("/Satoshi:0.21.1/", GetaddrTiming::Delayed),
            ("/Satoshi:22.0.0/", GetaddrTiming::Delayed),
            ("/Satoshi:22.0.0/Knots:20211108/", GetaddrTiming::Delayed),
            ("/Satoshi:22.99.0/", GetaddrTiming::Delayed),
            ("/Satoshi:23.0.0/", GetaddrTiming::AnswersAtOnce),
            ("/Satoshi:31.1.0/", GetaddrTiming::AnswersAtOnce),
            ("/Satoshi:23.0.0/Knots:20220529/", GetaddrTiming::AnswersAtOnce),
            ("/bcoin:v1.0.2/", GetaddrTiming::AnswersAtOnce),
            ("/btcwire:0.5.0/btcd:0.24.2/", GetaddrTiming::AnswersAtOnce),
            ("/Gocoin:1.11.1pre/", GetaddrTiming::AnswersAtOnce),
            ("/btcwire:0.5.0/utreexod:0.5.1/", GetaddrTiming::AnswersAtOnce),
            ("/btcwire:0.5.0/neutrino:0.17.1/", GetaddrTiming::Unknown),
            ("/CKCoinD:29.3.0/", GetaddrTiming::Unknown),
            ("Satoshi:31.0.0", GetaddrTiming::Unknown),
            ("/Sat0shi:31.0.0/", GetaddrTiming::Unknown),
            ("", GetaddrTiming::Unknown),
        ];
        for (agent, expected) in table {
            assert_eq!(getaddr_timing(Some(agent), 70016), expected, "{agent}");
        }
        assert_eq!(getaddr_timing(None, 70016), GetaddrTiming::Unknown);
    }

    #[test]
    fn odd_agents_do_not_panic() {
        let long = "(".repeat(1024);
        let escaped = "\\x00\\xff".repeat(100);
        for agent in
            ["/", "//", ":", "/:", "(", ")/(", "/)Satoshi:1(/", "/Satoshi/", &long, &escaped]
        {
            for protocol_version in [i32::MIN, -1, 0, 70016, i32::MAX] {
                for services in [0, u64::MAX] {
                    assert!(ALL.contains(&species(Some(agent), protocol_version, services)));
                }
                getaddr_timing(Some(agent), protocol_version);
            }
        }
    }

    #[test]
    fn names_are_unique_single_tokens() {
        for (number, word) in ALL.iter().enumerate() {
            let is_token = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
            assert!(is_token, "{word}");
            assert!(!ALL[..number].contains(word), "{word}");
        }
        let rules = OTHER_COINS.iter().chain(FAMILIES);
        assert!(rules.into_iter().all(|(_, word)| ALL.contains(word)));
    }
}
