//! Species: the lineage of a node's software, derived from its `version` message.
//!
//! Sans-I/O: rules as data and pure functions. The rules are in species.toml, which an operator can
//! replace; the built-in file explains them.
//!
//! A species is a lineage, not a product: Knots with BIP 110 is Knots, Omni and Statoshi are Core.
//! User agent and services are claims. Where they contradict each other (a version that Core never
//! had, or one older than a service that it offers), the built-in rules say `disguised`.
//!
//! TRB is recognised by more than its name. It writes the number of its `version` field as its
//! dotted version, `99999` as `0.9.99.99`, and no other family does; so a custom name
//! (`/jwrd.net:0.9.99.99/`) does not hide it.
//!
//! Invariants:
//! 1. [`Rules::classify`] returns a word of [`Rules::species`] for any input.
//! 2. How a node answers `getaddr` does not depend on the operator's rules.

mod agent;
mod file;
mod rule;

use std::fmt;
use std::sync::{Arc, LazyLock};

use agent::{Agent, CoreVersions, Release};
use rule::{Claims, Rule, major_version};

/// "The Real Bitcoin" and its descendants: their nodes are asked for peers more often, and their
/// changes are events.
pub const TRB: &str = "TRB";
/// Nodes that no rule matches.
pub const UNKNOWN: &str = "unknown";

/// The built-in species.toml.
pub const BUILTIN: &str = include_str!("species/species.toml");

/// The lineage of a node.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Lineage {
    /// Its species.
    pub species: Arc<str>,
    /// Species and major version: "Core 28", "Core 0.21". `None` if the species is not one product,
    /// or if the user agent holds no version.
    pub release: Option<String>,
}

/// The rules of a species.toml.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rules {
    /// The last one is [`UNKNOWN`].
    species: Vec<Species>,
    core: CoreVersions,
    rules: Vec<Rule>,
}

/// A species.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Species {
    /// Its name: a single token, so that it fits tables and keys.
    pub word: Arc<str>,
    /// What the name stands for.
    pub meaning: String,
    versions: Versions,
}

/// Where the version of a release is.
#[derive(Clone, PartialEq, Eq, Debug)]
enum Versions {
    /// Nowhere: the species is not one product.
    None,
    /// In the first part of the user agent.
    First,
    /// In the part with this name.
    Of(String),
}

/// An error in a species.toml. Its text is one line.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct RuleError {
    /// The line, counted from 1.
    pub line: usize,
    /// What is wrong, and what is allowed.
    pub problem: String,
}

impl fmt::Display for RuleError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.line, self.problem)
    }
}

impl std::error::Error for RuleError {}

static BUILTIN_RULES: LazyLock<Arc<Rules>> =
    LazyLock::new(|| Arc::new(Rules::parse(BUILTIN).expect("a test parses the built-in rules")));

impl Rules {
    /// The built-in rules.
    pub fn builtin() -> Arc<Self> {
        Arc::clone(&BUILTIN_RULES)
    }

    /// Parses a species.toml.
    ///
    /// # Errors
    /// The first errors in the file, by line.
    pub fn parse(text: &str) -> Result<Self, Vec<RuleError>> {
        file::parse(text)
    }

    /// The species, in the order of the file; the last one is [`UNKNOWN`].
    pub fn species(&self) -> &[Species] {
        &self.species
    }

    /// Number of rules.
    pub fn count(&self) -> usize {
        self.rules.len()
    }

    /// The lineage of a node. The user agent is in its escaped text form.
    pub fn classify(
        &self,
        user_agent: Option<&str>,
        protocol_version: i32,
        services: u64,
    ) -> Lineage {
        let text = user_agent.unwrap_or("");
        let lower = text.to_ascii_lowercase();
        let (agent, lower) = (Agent::read(text), Agent::read(&lower));
        let claims = Claims::new(text, (&agent, &lower), protocol_version, services, &self.core);
        let rule = self.rules.iter().find(|rule| rule.matches(&claims));
        let species = match rule {
            Some(rule) => &self.species[rule.species],
            None => self.species.last().expect("the last species is unknown"),
        };
        Lineage { species: Arc::clone(&species.word), release: species.release_of(&agent) }
    }

    /// The release of a node of this species with this user agent.
    pub fn release(&self, species: &str, user_agent: Option<&str>) -> Option<String> {
        let species = self.species.iter().find(|known| *known.word == *species)?;
        species.release_of(&Agent::read(user_agent?))
    }
}

impl Species {
    fn release_of(&self, agent: &Agent<'_>) -> Option<String> {
        let part = match &self.versions {
            Versions::None => return None,
            Versions::First => agent.first(),
            Versions::Of(name) => *agent.parts.iter().find(|part| part.name == name)?,
        };
        Some(format!("{} {}", self.word, major_version(part.version)?))
    }
}

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

/// How a node with this user agent (in its escaped text form) answers `getaddr`.
pub fn getaddr_timing(user_agent: Option<&str>, protocol_version: i32) -> GetaddrTiming {
    // The only service of every family and year.
    const NETWORK: u64 = 1;
    let rules = &*BUILTIN_RULES;
    match &*rules.classify(user_agent, protocol_version, NETWORK).species {
        TRB => return GetaddrTiming::Trickles,
        "bcoin" | "btcd" | "Gocoin" | "utreexo" => return GetaddrTiming::AnswersAtOnce,
        "disguised" | "other_coin" => return GetaddrTiming::Unknown,
        _ => {}
    }
    let agent = Agent::read(user_agent.unwrap_or(""));
    if !rules.core.names.iter().any(|name| name == agent.first().name) {
        return GetaddrTiming::Unknown;
    }
    match Release::read(agent.first().version, &rules.core) {
        Some(release) if release.line >= 23 => GetaddrTiming::AnswersAtOnce,
        Some(release) if release.line >= 12 => GetaddrTiming::Delayed,
        Some(_) => GetaddrTiming::Trickles,
        None => GetaddrTiming::Unknown,
    }
}

/// Whether the software composes a new reply for each `getaddr`: Bitcoin Core has cached its reply
/// for about a day since 0.21 (bitcoin/bitcoin#18991).
pub fn caches_no_reply(user_agent: Option<&str>, protocol_version: i32) -> bool {
    const NETWORK: u64 = 1;
    let rules = &*BUILTIN_RULES;
    let species = rules.classify(user_agent, protocol_version, NETWORK).species;
    let agent = Agent::read(user_agent.unwrap_or(""));
    let is_core = rules.core.names.iter().any(|name| name == agent.first().name)
        && !matches!(&*species, TRB | "disguised" | "other_coin");
    let release = Release::read(agent.first().version, &rules.core);
    is_core && release.is_some_and(|release| release.line < 21)
}

#[cfg(test)]
mod tests {
    use super::*;

    const CORE: &str = "Core";
    const KNOTS: &str = "Knots";
    const BCH: &str = "BCH";
    const DISGUISED: &str = "disguised";

    fn species(user_agent: Option<&str>, protocol_version: i32, services: u64) -> Arc<str> {
        Rules::builtin().classify(user_agent, protocol_version, services).species
    }

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
            assert_eq!(&*species(Some(agent), protocol_version, 1), TRB, "{agent}");
            assert_eq!(
                getaddr_timing(Some(agent), protocol_version),
                GetaddrTiming::Trickles,
                "{agent}"
            );
        }
        assert_eq!(&*species(None, 99999, 1), TRB);
    }

    #[test]
    fn a_release_is_the_species_and_its_major_version() {
        let table = [
            (CORE, "/Satoshi:28.1.0(FutureBit)/", Some("Core 28")),
            (CORE, "/Satoshi:0.21.1/", Some("Core 0.21")),
            (KNOTS, "/Satoshi:29.1.0/Knots:20250903/", Some("Knots 29")),
            (TRB, "/therealbitcoin.org:0.9.99.99/", Some("TRB 0.9")),
            (BCH, "/Bitcoin Cash Node:27.1.0(EB32.0)/", Some("BCH 27")),
            ("btcd", "/btcwire:0.5.0/btcd:0.24.2/", Some("btcd 0.24")),
            ("bcoin", "/bcoin:v1.0.2/", Some("bcoin 1")),
            (KNOTS, "/Knots:20250903/", None),
            (TRB, "", None),
            (CORE, "/Satoshi:0/", None),
            ("light", "/bitcoinj:0.16.2/", None),
            (DISGUISED, "/Satoshi:99.0.0/", None),
            ("no such species", "/Satoshi:28.1.0/", None),
        ];
        let rules = Rules::builtin();
        for (species, agent, expected) in table {
            assert_eq!(rules.release(species, Some(agent)).as_deref(), expected, "{agent}");
        }
        assert_eq!(rules.release(TRB, None), None);
        let lineage = rules.classify(Some("/Satoshi:28.1.0/"), 70016, 3081);
        assert_eq!(lineage, Lineage { species: CORE.into(), release: Some("Core 28".into()) });
    }

    #[test]
    fn trb_by_name_needs_no_dotted_version() {
        assert_eq!(&*species(Some("/therealbitcoin.org:0.5.4/"), 70001, 1), TRB);
        assert_eq!(&*species(Some("/therealbitcoin.org:0.5.4(a comment)/"), 50000, 1), TRB);
    }

    #[test]
    fn other_dotted_versions_are_not_trb() {
        let table = [
            (70016, "/jwrd.net:0.9.99.99/", UNKNOWN),
            (99999, "/jwrd.net:0.9.99.99/other:1/", UNKNOWN),
            (99999, "/jwrd.net:0.9.99.9/", UNKNOWN),
            (99999, "jwrd.net:0.9.99.99", UNKNOWN),
            (50400, "/a:0.5.4.0/", UNKNOWN),
            (99999, "/:0.9.99.99/", UNKNOWN),
            (0, "/a:0.0.0/", UNKNOWN),
            (-1, "/a:0.0.0.-1/", UNKNOWN),
            (i32::MIN, "/a:-2147.-48.-36.-48/", UNKNOWN),
            // The first Core with a version in its agent: its number is its protocol version.
            (60000, "/Satoshi:0.6.0/", CORE),
            (70001, "/Satoshi:0.8.6/", CORE),
            (99998, "", UNKNOWN),
        ];
        for (protocol_version, agent, word) in table {
            assert_eq!(&*species(Some(agent), protocol_version, 1), word, "{agent}");
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
            assert_eq!(&*species(Some(&agent), 70016, 1), CORE, "{agent}");
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
            assert_eq!(&*species(Some(&agent), 70016, 1), DISGUISED, "{agent}");
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
            assert_eq!(&*species(Some(agent), 70016, services), word, "{agent} {services}");
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
            assert_eq!(&*species(Some(agent), 70016, 1), word, "{agent}");
        }
    }

    #[test]
    fn unknown_agent_with_bitcoin_cash_service_is_bch() {
        assert_eq!(&*species(Some("/New Node:1.0/"), 70015, 1061), BCH);
        assert_eq!(&*species(Some("/New Node:1.0(EB32.0)/"), 70015, 1), BCH);
        assert_eq!(&*species(Some("/New Node:1.0(EBay)/"), 70015, 1), UNKNOWN);
    }

    #[test]
    fn core_up_to_0_20_composes_a_new_reply_each_time() {
        let table = [
            ("/Satoshi:0.20.1/", true),
            ("/Satoshi:0.12.1/", true),
            ("/Satoshi:0.21.0/", false),
            ("/Satoshi:28.1.0/", false),
            ("/Satoshi:x/", false),
            ("Satoshi:0.20.1", false),
            ("/btcwire:0.5.0/btcd:0.20.0/", false),
        ];
        for (agent, expected) in table {
            assert_eq!(caches_no_reply(Some(agent), 70_015), expected, "{agent}");
        }
        assert!(!caches_no_reply(None, 70_015));
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
                    species(Some(agent), protocol_version, services);
                }
                getaddr_timing(Some(agent), protocol_version);
            }
        }
    }

    #[test]
    fn claims_that_contradict_each_other_are_disguised() {
        let table = [
            // TRB never had witnesses nor the encrypted transport.
            (99999, "/therealbitcoin.org:0.9.99.99/", USUAL),
            (99999, "/jwrd.net:0.9.99.99/", 9),
            (99999, "/therealbitcoin.org:0.9.99.99/", 1 << 11),
            (70015, "/bcoin:2.2.0/", USUAL),
            (70015, "/Bitcoin ABC:0.17.2/", USUAL),
            (70012, "/Classic:1.2.0(EB3.7)/", USUAL),
            (70016, "/Satoshi:25.0.0/", USUAL),
        ];
        for (protocol_version, agent, services) in table {
            let word = species(Some(agent), protocol_version, services);
            assert_eq!(&*word, DISGUISED, "{agent} {services}");
            let word = species(Some(agent), protocol_version, 1);
            assert_ne!(&*word, DISGUISED, "{agent}");
        }
    }

    #[test]
    fn the_first_rule_of_an_operators_file_decides() {
        let text = "
            [species]
            first = { meaning = \"x\", versions = true }
            second = { meaning = \"x\", versions = \"b\" }
            [[rule]]
            species = \"first\"
            name = [\"a\", \"c\"]
            offers = [\"WITNESS\", \"BIT_40\"]
            protocol = [1, 2]
            [[rule]]
            species = \"second\"
            contains = \"B\"
            [[rule]]
            species = \"first\"
            version_begins = \"9.\"
        ";
        let rules = Rules::parse(text).unwrap();
        assert_eq!(rules.count(), 3);
        let words: Vec<&str> = rules.species().iter().map(|species| &*species.word).collect();
        assert_eq!(words, ["first", "second", UNKNOWN]);
        let table = [
            ("/a:3/", 1, 8, "first", Some("first 3")),
            ("/a:3/", 2, 1 << 40, "first", Some("first 3")),
            ("/a:3/", 3, 8, UNKNOWN, None),
            ("/a:3/", 1, 1, UNKNOWN, None),
            ("/a:3/b:4/", 1, 8, "first", Some("first 3")),
            ("/a:3/b:4/", 3, 8, "second", Some("second 4")),
            ("/aBa:3/", 1, 8, "second", None),
            ("/z:9.1/", 1, 8, "first", Some("first 9")),
            ("/z:9/", 1, 8, UNKNOWN, None),
            ("", 1, 8, UNKNOWN, None),
        ];
        for (agent, protocol_version, services, word, release) in table {
            let found = rules.classify(Some(agent), protocol_version, services);
            assert_eq!((&*found.species, found.release.as_deref()), (word, release), "{agent}");
        }
    }

    #[test]
    fn the_built_in_file_has_every_word_once_and_uses_it() {
        let rules = Rules::parse(BUILTIN).unwrap_or_else(|errors| panic!("{errors:?}"));
        assert_eq!(rules, *Rules::builtin());
        let used = |index: usize| rules.rules.iter().any(|rule| rule.species == index);
        let (unknown, known) = rules.species().split_last().unwrap();
        assert_eq!(&*unknown.word, UNKNOWN);
        for (index, species) in known.iter().enumerate() {
            assert!(used(index), "{}: no rule", species.word);
        }
    }
}
