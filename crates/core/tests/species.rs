//! Species of the user agents of the real network: five lists with pinned totals.
//!
//! Each list names its source at its top.

use std::collections::{BTreeMap, BTreeSet};

use bitdash_core::lookup::species::{GetaddrTiming, Rules, UNKNOWN, getaddr_timing};

const AGENTS_2026: &str = include_str!("../../simnet/src/data/user_agents.tsv");
const AGENTS_2022: &str = include_str!("data/user_agents_2022.tsv");
const OTHER_NETS_2022: &str = include_str!("data/user_agents_2022_other_nets.tsv");
const AGENT_SERVICES_2026: &str =
    include_str!("../../simnet/src/data/snapshot_agent_services_2026.tsv");
const RARE: &str = include_str!("data/user_agents_rare.tsv");

/// NETWORK: the only service of every family and year.
const SERVICES: u64 = 1;

fn species(user_agent: &str, protocol_version: i32, services: u64) -> String {
    let lineage = Rules::builtin().classify(Some(user_agent), protocol_version, services);
    lineage.species.to_string()
}

/// The fields of every line except comments.
fn lines<const FIELDS: usize>(file: &'static str) -> Vec<[&'static str; FIELDS]> {
    let lines = file.lines().filter(|line| !line.starts_with('#'));
    let fields = |line: &'static str| line.split('\t').collect::<Vec<_>>().try_into().unwrap();
    lines.map(fields).collect()
}

/// Number of nodes per species.
fn species_totals(file: &'static str) -> BTreeMap<String, u32> {
    let mut totals = BTreeMap::new();
    for [count, protocol_version, user_agent] in lines(file) {
        let word = species(user_agent, protocol_version.parse().unwrap(), SERVICES);
        *totals.entry(word).or_default() += count.parse::<u32>().unwrap();
    }
    totals
}

fn totals(list: &[(&str, u32)]) -> BTreeMap<String, u32> {
    list.iter().map(|(word, count)| ((*word).to_owned(), *count)).collect()
}

/// Number of nodes per timing.
fn timing_totals(file: &'static str) -> [(GetaddrTiming, u32); 4] {
    use GetaddrTiming::{AnswersAtOnce, Delayed, Trickles, Unknown};
    let mut totals = [(AnswersAtOnce, 0), (Trickles, 0), (Delayed, 0), (Unknown, 0)];
    for [count, protocol_version, user_agent] in lines(file) {
        let timing = getaddr_timing(Some(user_agent), protocol_version.parse().unwrap());
        let total = totals.iter_mut().find(|(of, _)| *of == timing).unwrap();
        total.1 += count.parse::<u32>().unwrap();
    }
    totals
}

/// Verified by grep: of 7162 nodes, 1080 have `Knots` or `knots` in a part of their agent, and 6050
/// others begin with `/Satoshi:` or `/Statoshi:`.
#[test]
fn network_of_2026_is_classified() {
    let expected = [
        ("Classic", 1),
        ("Core", 6050),
        ("Knots", 1080),
        ("TRB", 1),
        ("Unlimited", 1),
        ("bcoin", 3),
        ("btcd", 10),
        ("other_coin", 5),
        ("unknown", 9),
        ("utreexo", 2),
    ];
    assert_eq!(species_totals(AGENTS_2026), totals(&expected));
    assert_eq!(expected.iter().map(|(_, count)| count).sum::<u32>(), 7162);
}

#[test]
fn network_of_2022_is_classified() {
    let expected = [
        ("BCH", 3),
        ("Classic", 1),
        ("Core", 5767),
        ("Gocoin", 10),
        ("Knots", 30),
        ("SegWit2x", 1),
        ("TRB", 1),
        ("Unlimited", 3),
        ("bcoin", 20),
        ("btcd", 17),
        ("crawler", 8),
        ("disguised", 7),
        ("other_coin", 9),
        ("unknown", 3),
    ];
    assert_eq!(species_totals(AGENTS_2022), totals(&expected));
    assert_eq!(expected.iter().map(|(_, count)| count).sum::<u32>(), 5880);
}

/// Each list names its source at its top. The last one has no numbers of nodes: each of its agents
/// counts once.
#[test]
fn less_than_2_percent_of_the_nodes_are_unknown() {
    let count = |file| {
        let totals = species_totals(file);
        (totals.get(UNKNOWN).copied().unwrap_or(0), totals.values().sum::<u32>())
    };
    let rare = lines(RARE).into_iter().map(|[_, version, agent, _]: [&str; 4]| {
        species(agent, version.parse().unwrap(), SERVICES) == UNKNOWN
    });
    let rare: Vec<bool> = rare.collect();
    let rare = (rare.iter().filter(|is_unknown| **is_unknown).count() as u32, rare.len() as u32);
    let counts = [count(AGENTS_2026), count(AGENTS_2022), count(OTHER_NETS_2022), rare];
    assert_eq!(counts, [(9, 7162), (3, 5880), (0, 316), (4, 80)]);
    let sum = |figure: fn(&(u32, u32)) -> u32| counts.iter().map(figure).sum::<u32>();
    let (unknown, all) = (sum(|count| count.0), sum(|count| count.1));
    let percent = f64::from(unknown) * 100.0 / f64::from(all);
    println!("{unknown} of {all} nodes are unknown: {percent:.2} %");
    assert!(percent < 2.0, "{unknown} of {all}");
}

#[test]
fn few_nodes_are_unknown_or_disguised() {
    let agents = |file| -> BTreeSet<&str> {
        let is_unnamed = |[_, protocol_version, user_agent]: &[&str; 3]| {
            let protocol_version = protocol_version.parse().unwrap();
            let word = species(user_agent, protocol_version, SERVICES);
            ["unknown", "disguised"].contains(&word.as_str())
        };
        let unnamed = lines(file).into_iter().filter(is_unnamed);
        unnamed.map(|[_, _, user_agent]| user_agent).collect()
    };
    let of_2026 = [
        "/GhostCore:1.0.0/",
        "/Natasha:0.2.0/",
        "/Prometheus:30.0.4/",
        "/Satoshi-Noderunners:30.2.0/",
        "/Satushi:22.69.0/",
        "/cooltexture:29.1.0/",
    ];
    assert_eq!(agents(AGENTS_2026), BTreeSet::from(of_2026));
    let of_2022 = [
        "/FBI:22.1.2/",
        "/QRSnap:23.0.0(PortlandHODL)/",
        "/Satoshi:0.42.0/",
        "/Satoshi:0.43.0/",
        "/Satoshi:1.0.0/",
        "/Satoshi:23/",
        "pbtc",
    ];
    assert_eq!(agents(AGENTS_2022), BTreeSet::from(of_2022));
}

/// The rule that a version may not be older than its services must not affect honest nodes.
#[test]
fn no_real_node_is_disguised_by_its_services() {
    let mut nodes = 0;
    for [count, services, user_agent] in lines(AGENT_SERVICES_2026) {
        let services: u64 = services.parse().unwrap();
        let word = species(user_agent, 70016, services);
        assert_ne!(word, "disguised", "{user_agent} {services}");
        let by_name = species(user_agent, 70016, SERVICES);
        assert_eq!(word, by_name, "{user_agent} {services}");
        nodes += count.parse::<u32>().unwrap();
    }
    assert!(nodes > 6000, "{nodes}");
}

#[test]
fn rare_agents_have_the_species_of_their_list() {
    // Agents whose species differs from that of their lineage in the list.
    let odd = [
        ("/Satoshi:0.14.1(UASF-SegWit-BIP148)/Knots:20170420/", "Knots"),
        ("/Satoshi:10.0.1/", "disguised"),
        ("/ckp2p:2.0/", "unknown"),
        ("/btcwire:0.5.0/hemi-soak:1.0/", "unknown"),
        ("", "unknown"),
    ];
    let of_lineage = [
        ("TRB", "TRB"),
        ("relay-network", "unknown"),
        ("other-chain", "other_coin"),
        ("Bitcoin Unlimited", "Unlimited"),
        ("Bitcoin ABC", "BCH"),
        ("Classic", "Classic"),
        ("Bitcoin XT", "XT"),
        ("SegWit2x (btc1)", "SegWit2x"),
        ("Core with comment", "Core"),
        ("btcd", "btcd"),
        ("libbitcoin", "libbitcoin"),
        ("bcoin", "bcoin"),
        ("Gocoin", "Gocoin"),
        ("BCH", "BCH"),
        ("BSV", "BSV"),
        ("light client", "light"),
        ("indexer", "indexer"),
        ("utreexo", "utreexo"),
        ("crawler", "crawler"),
        ("disguised / unknown", "disguised"),
        ("Knots", "Knots"),
    ];
    let (odd, of_lineage) = (BTreeMap::from(odd), BTreeMap::from(of_lineage));
    let mut seen = BTreeSet::new();
    for [lineage, protocol_version, user_agent, _] in lines(RARE) {
        let word = species(user_agent, protocol_version.parse().unwrap(), SERVICES);
        let expected = odd.get(user_agent).unwrap_or_else(|| &of_lineage[lineage]);
        assert_eq!(word, *expected, "{lineage}: {user_agent}");
        seen.insert(word);
    }
    let rules = Rules::builtin();
    let all = rules.species().iter().map(|species| species.word.to_string());
    assert_eq!(seen, all.collect(), "every species has a real agent");
}

#[test]
fn getaddr_timing_of_the_network_is_known() {
    use GetaddrTiming::{AnswersAtOnce, Delayed, Trickles, Unknown};
    let of_2026 = [(AnswersAtOnce, 6730), (Trickles, 5), (Delayed, 408), (Unknown, 19)];
    assert_eq!(timing_totals(AGENTS_2026), of_2026);
    let of_2022 = [(AnswersAtOnce, 1499), (Trickles, 8), (Delayed, 4338), (Unknown, 35)];
    assert_eq!(timing_totals(AGENTS_2022), of_2022);
}
