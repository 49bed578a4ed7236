//! `Filter`: which addresses may be connected to and stored.
//!
//! Sans-I/O: pure functions over sorted ranges. A list may contain a hundred thousand CIDRs (bogon
//! lists, Spamhaus DROP), and every entry of every `addr` message is checked, so a check is one
//! binary search.
//!
//! Invariants of a set of ranges:
//! 1. Ranges are sorted by their first address.
//! 2. Adjacent ranges are merged: at least one address lies between two ranges.

use std::fmt;
use std::net::Ipv4Addr;

use ipnet::Ipv4Net;

use crate::vocabulary::address::Address;

/// Decides which addresses may be connected to and stored.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Filter {
    /// The operator's ranges, which bind everything.
    exclude: Ranges,
    /// The ranges of `filter.only`, which replace the built-in ones.
    only: Option<Ranges>,
    /// The built-in ranges, for addresses that no operator wrote down.
    special: Ranges,
}

/// The name of which an address is an answer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Asked {
    /// `localhost` or a name below it: this machine answers.
    Localhost,
    /// A line with a NAME, or a host on the command line.
    Named,
    /// A line without a NAME, such as a DNS seed.
    Unnamed,
}

/// Why an address of a line may not be connected to.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Refused {
    /// It lies in `filter.exclude` or an exclude file.
    Excluded,
    /// `filter.only` does not contain it.
    NotInOnly,
    /// No public node can have it.
    Special,
}

impl Filter {
    /// Creates a filter from the CIDRs of `filter.exclude` (with its files) and `filter.only`.
    ///
    /// If `only` is not empty, nothing else passes, and the built-in special-purpose ranges do not
    /// apply. `exclude` always does.
    pub fn new(exclude: &[Ipv4Net], only: &[Ipv4Net]) -> Self {
        let ranges = |nets: &[Ipv4Net]| Ranges::new(nets.iter().map(range_of));
        Self {
            exclude: ranges(exclude),
            only: (!only.is_empty()).then(|| ranges(only)),
            special: Ranges::new(SPECIAL_PURPOSE.iter().map(SpecialPurpose::range)),
        }
    }

    /// Number of separate ranges that the operator excludes, and of the addresses in them.
    pub fn excluded(&self) -> (usize, u64) {
        let size = |(first, last): &(u32, u32)| u64::from(last - first) + 1;
        (self.exclude.0.len(), self.exclude.0.iter().map(size).sum())
    }

    /// The first and the last address of the operator's range that excludes this one.
    pub fn excluding_range(&self, ip: Ipv4Addr) -> Option<(Ipv4Addr, Ipv4Addr)> {
        let range = self.exclude.range(u32::from(ip))?;
        Some((range.0.into(), range.1.into()))
    }

    /// Whether both exclude the same addresses.
    pub fn excludes_like(&self, other: &Self) -> bool {
        self.exclude == other.exclude
    }

    /// Whether an address from an `addr` message may be connected to and stored. Port 0 never is.
    pub fn admits(&self, address: Address) -> bool {
        let is_public = || !self.special.contains(u32::from(address.ip()));
        self.admits_named(address) && (self.only.is_some() || is_public())
    }

    /// Whether an address that the operator wrote down may be connected to: only `filter.exclude`
    /// and `filter.only` apply.
    pub fn admits_named(&self, address: Address) -> bool {
        address.port() != 0 && self.check_named(address).is_ok()
    }

    /// Checks an address that the operator wrote down.
    ///
    /// # Errors
    /// The configuration excludes it.
    pub fn check_named(&self, address: Address) -> Result<(), Refused> {
        let ip = u32::from(address.ip());
        if self.exclude.contains(ip) {
            return Err(Refused::Excluded);
        }
        match &self.only {
            Some(only) if !only.contains(ip) => Err(Refused::NotInOnly),
            _ => Ok(()),
        }
    }

    /// Checks an address that a name server answered: it is not trusted like the operator's words.
    ///
    /// # Errors
    /// The configuration excludes it, or it cannot be the address of the node that was asked for.
    pub fn check_answer(&self, address: Address, asked: Asked) -> Result<(), Refused> {
        self.check_named(address)?;
        if self.only.is_some() {
            return Ok(());
        }
        let ip = address.ip();
        let is_never = ip.octets()[0] == 0 || ip.octets()[0] >= 224;
        // bitcoin#6808, pi-hole#2337: blocking name servers answer 0.0.0.0 or 127.0.0.1.
        let is_special = match asked {
            Asked::Localhost => is_never,
            Asked::Named => is_never || ip.is_loopback(),
            Asked::Unnamed => self.special.contains(u32::from(ip)),
        };
        if is_special { Err(Refused::Special) } else { Ok(()) }
    }
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Excluded => "excluded by filter.exclude",
            Self::NotInOnly => "not in filter.only",
            Self::Special => "not the address of a public node",
        })
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
        self.range(ip).is_some()
    }

    fn range(&self, ip: u32) -> Option<(u32, u32)> {
        let behind = self.0.partition_point(|&(first, _)| first <= ip);
        let range = behind.checked_sub(1).and_then(|index| self.0.get(index)).copied();
        range.filter(|range| ip <= range.1)
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
    fn excluded_addresses_never_pass_not_even_by_name() {
        let filter = Filter::new(&nets(&["8.8.8.0/24", "9.9.9.9/32"]), &[]);
        for refused in ["8.8.8.0:1", "8.8.8.255:8333", "9.9.9.9:8333"] {
            assert!(!filter.admits(at(refused)) && !filter.admits_named(at(refused)), "{refused}");
            let answer = filter.check_answer(at(refused), Asked::Named);
            assert_eq!(answer, Err(Refused::Excluded), "{refused}");
        }
        for admitted in ["8.8.7.255:1", "8.8.9.0:1", "9.9.9.8:1", "9.9.9.10:65535"] {
            assert!(filter.admits(at(admitted)) && filter.admits_named(at(admitted)), "{admitted}");
        }
    }

    #[test]
    fn filter_only_replaces_the_built_in_ranges_but_not_exclude() {
        let filter = Filter::new(&nets(&["127.21.0.0/16"]), &nets(&["127.0.0.0/8", "10.1.0.0/16"]));
        for admitted in ["127.0.0.1:8333", "127.255.255.255:1", "10.1.255.255:8333"] {
            assert!(filter.admits(at(admitted)) && filter.admits_named(at(admitted)), "{admitted}");
            assert_eq!(filter.check_answer(at(admitted), Asked::Unnamed), Ok(()), "{admitted}");
        }
        for refused in ["10.2.0.0:8333", "8.8.8.8:8333", "128.0.0.0:8333", "127.21.0.1:8333"] {
            assert!(!filter.admits(at(refused)) && !filter.admits_named(at(refused)), "{refused}");
            assert!(filter.check_answer(at(refused), Asked::Localhost).is_err(), "{refused}");
        }
    }

    #[test]
    fn answers_of_a_name_server_are_not_trusted_like_an_operator() {
        let filter = Filter::new(&[], &[]);
        let passes = |ip: &str, asked| {
            filter.check_answer(Address::new(ip.parse().unwrap(), 8333), asked).is_ok()
        };
        // The address, and whether it passes for localhost, with a NAME and without.
        let table = [
            ("8.8.8.8", [true, true, true]),
            ("192.168.7.7", [true, true, false]),
            ("10.0.0.1", [true, true, false]),
            ("100.64.0.1", [true, true, false]),
            ("127.0.0.1", [true, false, false]),
            ("127.255.255.254", [true, false, false]),
            ("0.0.0.0", [false, false, false]),
            ("0.255.255.255", [false, false, false]),
            ("224.0.0.1", [false, false, false]),
            ("240.0.0.1", [false, false, false]),
            ("255.255.255.255", [false, false, false]),
        ];
        for (ip, expected) in table {
            let asked = [Asked::Localhost, Asked::Named, Asked::Unnamed];
            assert_eq!(asked.map(|asked| passes(ip, asked)), expected, "{ip}");
        }
    }

    #[test]
    fn excluded_addresses_are_counted_once() {
        let filter =
            Filter::new(&nets(&["8.8.8.0/24", "8.8.9.0/24", "8.8.8.8/32", "9.9.9.9/32"]), &[]);
        assert_eq!(filter.excluded(), (2, 513));
        let range = |ip: &str| filter.excluding_range(ip.parse().unwrap());
        assert_eq!(range("8.8.9.7"), Some(([8, 8, 8, 0].into(), [8, 8, 9, 255].into())));
        assert_eq!((range("8.8.10.0"), range("8.8.7.255")), (None, None));
        assert_eq!(Filter::new(&nets(&["0.0.0.0/0"]), &[]).excluded(), (1, 1 << 32));
        assert_eq!(Filter::new(&[], &[]).excluded(), (0, 0));
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
            let named = !among(&exclude) && (only.is_empty() || among(&only));
            let heard = named && (!special || !only.is_empty());
            let filter = Filter::new(&exclude, &only);
            let address = Address::new(ip, port);
            prop_assert_eq!(filter.admits(address), port != 0 && heard);
            prop_assert_eq!(filter.admits_named(address), port != 0 && named);
        }
    }
}
