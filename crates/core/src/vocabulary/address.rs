//! `Address`: an IPv4 address and a port in 48 bits, the identity of a node.
//!
//! Sans-I/O: plain data. Invariant: 1. the upper 16 bits of the inner integer are zero.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;

/// Ports of other services, which browsers and Bitcoin Core avoid: a gossiped address with one of
/// them serves to point crawlers at that service. Source: `IsBadPort` in Bitcoin Core's
/// src/netbase.cpp, and its doc/p2p-bad-ports.md.
const AVOIDED_PORTS: [u16; 85] = [
    1, 7, 9, 11, 13, 15, 17, 19, 20, 21, 22, 23, 25, 37, 42, 43, 53, 69, 77, 79, 87, 95, 101, 102,
    103, 104, 109, 110, 111, 113, 115, 117, 119, 123, 135, 137, 139, 143, 161, 179, 389, 427, 465,
    512, 513, 514, 515, 526, 530, 531, 532, 540, 548, 554, 556, 563, 587, 601, 636, 989, 990, 993,
    995, 1719, 1720, 1723, 2049, 3306, 3389, 3659, 4045, 5060, 5061, 5432, 5900, 6000, 6566, 6665,
    6666, 6667, 6668, 6669, 6697, 10080, 27017,
];

/// An IPv4 address and a port. Services and names are not part of a node's identity.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Address(u64);

impl Address {
    /// Creates an address from its two parts.
    pub fn new(ip: Ipv4Addr, port: u16) -> Self {
        Self(u64::from(u32::from(ip)) << 16 | u64::from(port))
    }

    /// The address in the lower 48 bits: IP, then port.
    pub fn to_bits(self) -> u64 {
        self.0
    }

    /// The inverse of [`Address::to_bits`]; ignores higher bits.
    pub fn from_bits(bits: u64) -> Self {
        Self(bits & 0xffff_ffff_ffff)
    }

    /// The IPv4 address.
    pub fn ip(self) -> Ipv4Addr {
        Ipv4Addr::from((self.0 >> 16) as u32)
    }

    /// The TCP port.
    pub fn port(self) -> u16 {
        self.0 as u16
    }

    /// Whether the port belongs to another service.
    pub fn has_avoided_port(self) -> bool {
        AVOIDED_PORTS.binary_search(&self.port()).is_ok()
    }

    /// Its /16: the network group in Bitcoin Core's sense.
    pub fn group(self) -> u16 {
        (self.0 >> 32) as u16
    }

    /// The address as the standard library's type.
    pub fn to_socket_addr(self) -> SocketAddr {
        SocketAddr::V4(SocketAddrV4::new(self.ip(), self.port()))
    }
}

impl fmt::Display for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.ip(), self.port())
    }
}

impl fmt::Debug for Address {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

impl From<SocketAddrV4> for Address {
    fn from(address: SocketAddrV4) -> Self {
        Self::new(*address.ip(), address.port())
    }
}

impl FromStr for Address {
    type Err = std::net::AddrParseError;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        text.parse::<SocketAddrV4>().map(Self::from)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packing_preserves_ip_and_port() {
        for text in ["0.0.0.0:0", "127.1.2.3:8333", "255.255.255.255:65535", "1.0.0.1:1"] {
            let address: Address = text.parse().unwrap();
            assert_eq!(address.to_string(), text);
            assert_eq!(Address::from_bits(address.to_bits()), address);
        }
        assert_eq!("127.1.2.3:8333".parse::<Address>().unwrap().group(), 0x7f01);
        assert!("127.1.2.3".parse::<Address>().is_err());
        assert!("[::1]:8333".parse::<Address>().is_err());
    }

    #[test]
    fn ports_of_other_services_are_sorted_and_known() {
        assert!(AVOIDED_PORTS.is_sorted());
        let is_avoided = |port| Address::new(Ipv4Addr::LOCALHOST, port).has_avoided_port();
        assert!([1, 22, 25, 53, 6667, 10080, 27017].into_iter().all(is_avoided));
        assert!(![0, 80, 443, 8332, 8333, 18333, 39388, 65535].into_iter().any(is_avoided));
    }
}
