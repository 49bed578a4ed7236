//! `Address`: an IPv4 address and a port in 48 bits, the identity of a node.
//!
//! Sans-I/O: plain data. Invariant: 1. the upper 16 bits of the inner integer are zero.

use std::fmt;
use std::net::{Ipv4Addr, SocketAddr, SocketAddrV4};
use std::str::FromStr;

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
}
