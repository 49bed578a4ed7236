//! `Filter`: which addresses may be connected to and stored.
//!
//! Sans-I/O: pure functions over sorted ranges. A list may contain a hundred thousand CIDRs (bogon
//! lists, Spamhaus DROP), and every entry of every `addr` message is checked, so a check is one
//! binary search.
//!
//! Invariants of a set of ranges:
//! 1. Ranges are sorted by their first address.
//! 2. Adjacent ranges are merged: at least one address lies between two ranges.

use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::vocabulary::address::Address;

/// Decides which addresses may be connected to and stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    rule: Rule,
}

#[derive(Clone, PartialEq, Eq, Debug)]
enum Rule {
    /// Everything except the built-in ranges and the operator's.
    AllBut(Ranges),
    /// Only these ranges.
    Only(Ranges),
}

impl Filter {
    /// Creates a filter from the CIDRs of `filter.exclude` (with its files) and `filter.only`.
    ///
    /// If `only` is not empty, nothing else passes, and neither `exclude` nor the built-in
    /// special-purpose ranges apply.
    pub fn new(exclude: &[Ipv4Net], only: &[Ipv4Net]) -> Self {
        if !only.is_empty() {
            return Self { rule: Rule::Only(Ranges::new(only.iter().map(range_of))) };
        }
        let built_in = SPECIAL_PURPOSE.iter().map(|special| special.range());
        Self { rule: Rule::AllBut(Ranges::new(built_in.chain(exclude.iter().map(range_of)))) }
    }

    /// Whether an address from an `addr` message may be connected to and stored. Port 0 never is.
    pub fn admits(&self, address: Address) -> bool {
        let ip = u32::from(address.ip());
        address.port() != 0
            && match &self.rule {
                Rule::AllBut(ranges) => !ranges.contains(ip),
                Rule::Only(ranges) => ranges.contains(ip),
            }
    }

    /// Whether an address that the operator names may be connected to: only `filter.only` applies.
    pub fn admits_named(&self, address: Address) -> bool {
        match &self.rule {
            Rule::AllBut(_) => address.port() != 0,
            Rule::Only(_) => self.admits(address),
        }
    }
}

/// A set of addresses as inclusive ranges.
#[derive(Clone, PartialEq, Eq, Debug)]
struct Ranges(Vec<(u32, u32)>);

impl Ranges {
    fn new(ranges: impl Iterator<Item = (u32, u32)>) -> Self {
        let mut sorted: Vec<(u32, u32)> = ranges.collect();
        sorted.sort_unstable();
        let mut merged: Vec<(u32, u32)> = Vec::with_capacity(sorted.len());
        for (first, last) in sorted {
            match merged.last_mut() {
                Some(open) if first <= open.1.saturating_add(1) => open.1 = open.1.max(last),
                _ => merged.push((first, last)),
            }
        }
        merged.shrink_to_fit();
        Self(merged)
    }

    fn contains(&self, ip: u32) -> bool {
        let behind = self.0.partition_point(|&(first, _)| first <= ip);
        behind.checked_sub(1).and_then(|index| self.0.get(index)).is_some_and(|range| ip <= range.1)
    }
}

fn range_of(net: &Ipv4Net) -> (u32, u32) {
    (u32::from(net.network()), u32::from(net.broadcast()))
}

/// A block of addresses that no public node can have.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SpecialPurpose {
    /// Its first address.
    pub first: Ipv4Addr,
    /// The length of its prefix, at most 32.
    pub prefix: u8,
    /// Its name in the registry.
    pub name: &'static str,
    /// The documents that reserve it.
    pub rfc: &'static str,
}

impl SpecialPurpose {
    fn range(&self) -> (u32, u32) {
        let first = u32::from(self.first);
        let host_bits = u32::MAX.checked_shr(u32::from(self.prefix)).unwrap_or(0);
        (first, first | host_bits)
    }
}

const fn block(
    [a, b, c, d]: [u8; 4],
    prefix: u8,
    name: &'static str,
    rfc: &'static str,
) -> SpecialPurpose {
    SpecialPurpose { first: Ipv4Addr::new(a, b, c, d), prefix, name, rfc }
}

/// The built-in ranges.
///
/// Source: the IANA IPv4 Special-Purpose Address Registry as of 2026-11, every row that is not
/// "globally reachable" or for which that is not applicable, and the multicast space (its own IANA
/// registry). `addr` messages do contain such addresses: Bitcoin Core and TRB relay several of them
/// (neither drops 192.0.0.0/24, 192.88.99.0/24, 224.0.0.0/4 or 240.0.0.0/4).
pub const SPECIAL_PURPOSE: &[SpecialPurpose] = &[
    block([0, 0, 0, 0], 8, "This network", "RFC791 RFC1122"),
    block([10, 0, 0, 0], 8, "Private-Use", "RFC1918"),
    block([100, 64, 0, 0], 10, "Shared Address Space (CGNAT)", "RFC6598"),
    block([127, 0, 0, 0], 8, "Loopback", "RFC1122"),
    block([169, 254, 0, 0], 16, "Link Local", "RFC3927"),
    block([172, 16, 0, 0], 12, "Private-Use", "RFC1918"),
    block([192, 0, 0, 0], 24, "IETF Protocol Assignments", "RFC6890"),
    block([192, 0, 0, 0], 29, "IPv4 Service Continuity Prefix", "RFC7335"),
    block([192, 0, 0, 8], 32, "IPv4 dummy address", "RFC7600"),
    block([192, 0, 0, 170], 31, "NAT64/DNS64 Discovery", "RFC8880 RFC7050"),
    block([192, 0, 2, 0], 24, "Documentation (TEST-NET-1)", "RFC5737"),
    block([192, 88, 99, 0], 24, "Deprecated (6to4 Relay Anycast)", "RFC7526 RFC3068"),
    block([192, 168, 0, 0], 16, "Private-Use", "RFC1918"),
    block([198, 18, 0, 0], 15, "Benchmarking", "RFC2544"),
    block([198, 51, 100, 0], 24, "Documentation (TEST-NET-2)", "RFC5737"),
    block([203, 0, 113, 0], 24, "Documentation (TEST-NET-3)", "RFC5737"),
    block([224, 0, 0, 0], 4, "Multicast", "RFC5771"),
    block([240, 0, 0, 0], 4, "Reserved", "RFC1112"),
    block([255, 255, 255, 255], 32, "Limited Broadcast", "RFC8190 RFC919"),
];

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn nets(texts: &[&str]) -> Vec<Ipv4Net> {
        texts.iter().map(|text| text.parse().unwrap()).collect()
    }

    fn at(text: &str) -> Address {
        text.parse().unwrap()
    }

    #[test]
    fn special_purpose_ranges_are_exact() {
        let filter = Filter::new(&[], &[]);
        let table = [
            ("0.255.255.255", "1.0.0.0"),
            ("10.0.0.0", "9.255.255.255"),
            ("10.255.255.255", "11.0.0.0"),
            ("100.64.0.0", "100.63.255.255"),
            ("100.127.255.255", "100.128.0.0"),
            ("127.0.0.1", "126.255.255.255"),
            ("127.255.255.255", "128.0.0.0"),
            ("169.254.0.0", "169.253.255.255"),
            ("172.16.0.0", "172.15.255.255"),
            ("172.31.255.255", "172.32.0.0"),
            ("192.0.0.9", "192.0.1.0"), // inside 192.0.0.0/24, which is not reachable
            ("192.0.2.255", "192.0.3.0"),
            ("192.88.99.1", "192.88.98.255"),
            ("192.168.255.255", "192.169.0.0"),
            ("198.18.0.0", "198.17.255.255"),
            ("198.19.255.255", "198.20.0.0"),
            ("198.51.100.7", "198.51.101.0"),
            ("203.0.113.7", "203.0.114.0"),
            ("224.0.0.0", "223.255.255.255"),
            ("255.255.255.255", "8.8.8.8"),
        ];
        for (refused, admitted) in table {
            assert!(!filter.admits(at(&format!("{refused}:8333"))), "{refused}");
            assert!(filter.admits(at(&format!("{admitted}:8333"))), "{admitted}");
            assert!(filter.admits_named(at(&format!("{refused}:8333"))), "{refused} by name");
        }
    }

    #[test]
    fn port_zero_never_passes() {
        for filter in [Filter::new(&[], &[]), Filter::new(&[], &nets(&["127.0.0.0/8"]))] {
            assert!(!filter.admits(at("127.0.0.1:0")) && !filter.admits(at("8.8.8.8:0")));
            assert!(
                !filter.admits_named(at("127.0.0.1:0")) && !filter.admits_named(at("8.8.8.8:0"))
            );
        }
    }

    #[test]
    fn excluded_addresses_pass_only_if_the_operator_names_them() {
        let filter = Filter::new(&nets(&["8.8.8.0/24", "9.9.9.9/32"]), &[]);
        for refused in ["8.8.8.0:1", "8.8.8.255:8333", "9.9.9.9:8333"] {
            assert!(!filter.admits(at(refused)) && filter.admits_named(at(refused)), "{refused}");
        }
        for admitted in ["8.8.7.255:1", "8.8.9.0:1", "9.9.9.8:1", "9.9.9.10:65535"] {
            assert!(filter.admits(at(admitted)) && filter.admits_named(at(admitted)), "{admitted}");
        }
    }

    #[test]
    fn filter_only_overrides_exclude_and_applies_to_named_addresses() {
        let filter = Filter::new(&nets(&["127.0.0.0/8"]), &nets(&["127.0.0.0/8", "10.1.0.0/16"]));
        for admitted in ["127.0.0.1:8333", "127.255.255.255:1", "10.1.255.255:8333"] {
            assert!(filter.admits(at(admitted)) && filter.admits_named(at(admitted)), "{admitted}");
        }
        for refused in ["10.2.0.0:8333", "8.8.8.8:8333", "128.0.0.0:8333"] {
            assert!(!filter.admits(at(refused)) && !filter.admits_named(at(refused)), "{refused}");
        }
    }

    #[test]
    fn everything_may_be_excluded_or_allowed() {
        assert!(!Filter::new(&nets(&["0.0.0.0/0"]), &[]).admits(at("8.8.8.8:1")));
        let all = Filter::new(&[], &nets(&["0.0.0.0/0"]));
        assert!(all.admits(at("0.0.0.0:1")) && all.admits(at("255.255.255.255:1")));
    }

    #[test]
    fn adjacent_ranges_are_merged() {
        let ranges = Ranges::new(
            nets(&["10.1.0.0/16", "10.0.0.0/16", "10.0.3.0/24", "255.255.255.0/24"])
                .iter()
                .map(range_of),
        );
        assert_eq!(ranges.0, [(0x0a00_0000, 0x0a01_ffff), (0xffff_ff00, 0xffff_ffff)]);
    }

    /// Compares the leading bits one by one.
    fn matches_bit_by_bit(net: Ipv4Addr, prefix: u8, ip: Ipv4Addr) -> bool {
        (0..prefix).all(|bit| {
            let mask = 1u32 << (31 - bit);
            u32::from(net) & mask == u32::from(ip) & mask
        })
    }

    proptest! {
        #[test]
        fn filter_agrees_with_a_bitwise_comparison(
            exclude in prop::collection::vec((any::<u32>(), 0u8..=32), 0..12),
            only in prop::collection::vec((any::<u32>(), 0u8..=32), 0..4),
            free in any::<u32>(), port in 0u16..3,
            pick in any::<prop::sample::Index>(), offset in -2i64..=2,
        ) {
            let to_nets = |list: &[(u32, u8)]| -> Vec<Ipv4Net> {
                list.iter().map(|&(ip, len)| Ipv4Net::new(ip.into(), len).unwrap()).collect()
            };
            let (exclude, only) = (to_nets(&exclude), to_nets(&only));
            // Addresses at the edges of the ranges find most bugs.
            let edges: Vec<u32> = SPECIAL_PURPOSE.iter().map(|special| special.range())
                .chain(exclude.iter().chain(&only).map(range_of))
                .flat_map(|(first, last)| [first, last]).chain([free]).collect();
            let ip = Ipv4Addr::from((i64::from(*pick.get(&edges)) + offset) as u32);
            let contains = |net: &Ipv4Net| matches_bit_by_bit(net.addr(), net.prefix_len(), ip);
            let among = |list: &[Ipv4Net]| list.iter().any(contains);
            let special = SPECIAL_PURPOSE.iter().any(|s| matches_bit_by_bit(s.first, s.prefix, ip));
            let (heard, named) = if only.is_empty() {
                (!special && !among(&exclude), true)
            } else {
                (among(&only), among(&only))
            };
            let filter = Filter::new(&exclude, &only);
            let address = Address::new(ip, port);
            prop_assert_eq!(filter.admits(address), port != 0 && heard);
            prop_assert_eq!(filter.admits_named(address), port != 0 && named);
        }
    }
}
