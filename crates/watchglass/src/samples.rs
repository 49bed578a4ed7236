//! Golden bytes for the tests, each with its source.

/// Bitcoin wiki, "Protocol documentation", `version`: the whole frame of a version 60002 client
/// (Dec 2012).
pub(super) const WIKI_VERSION_60002: &str = "
    f9beb4d9 76657273696f6e0000000000 64000000 3b648d5a
    62ea0000 0100000000000000 11b2d05000000000
    0100000000000000 00000000000000000000ffff00000000 0000
    0100000000000000 00000000000000000000ffff00000000 0000
    3b2eb35d8ce61765 0f2f5361746f7368693a302e372e322f c03e0300";

/// Bitcoin wiki, same page, `version`: payload of version 0.3.19 (Dec 2010). Its frame of that time
/// had no checksum.
pub(super) const WIKI_VERSION_31900: &str = "
    9c7c0000 0100000000000000 e615104d00000000
    0100000000000000 00000000000000000000ffff0a000001 208d
    0100000000000000 00000000000000000000ffff0a000002 208d
    dd9d202c3ab45713 00 55810100";

/// Bitcoin wiki, same page, `verack`: the whole frame.
pub(super) const WIKI_VERACK: &str = "f9beb4d9 76657261636b000000000000 00000000 5df6e0e2";

/// Bitcoin wiki, same page, `addr`: the whole frame (Dec 2010).
pub(super) const WIKI_ADDR: &str = "
    f9beb4d9 616464720000000000000000 1f000000 ed52399b
    01 e215104d 0100000000000000 00000000000000000000ffff0a000001 208d";

/// developer.bitcoin.org, "P2P Network", `version`: payload of `/Satoshi:0.9.3/` (Nov 2014), with
/// relay byte. The frame's checksum 5f1a69d2 is quoted with this payload in several public test
/// suites.
pub(super) const DEVELOPER_VERSION_70002: &str = "
    72110100 0100000000000000 bc8f5e5400000000
    0100000000000000 00000000000000000000ffffc61b6409 208d
    0100000000000000 00000000000000000000ffffcb0071c0 208d
    128035cbc97953f8 0f2f5361746f7368693a302e392e332f cf050500 01";

/// developer.bitcoin.org, "P2P Network", `ping`: the nonce; header with checksum from public test
/// suites.
pub(super) const DEVELOPER_PING: &str =
    "f9beb4d9 70696e670000000000000000 08000000 88ea8176 0094102111e2af4d";

/// Captured on the wire in February 2017, from the test vectors of libbitcoin-network: a TRB node.
/// No relay byte; it gives its own address as 111.111.111.111.
pub(super) const CAPTURED_TRB: &str = "
    9f860100 0100000000000000 2336a15800000000
    0100000000000000 00000000000000000000ffff1813e52e bb81
    0100000000000000 00000000000000000000ffff6f6f6f6f 208d
    b1f33b262e6acb33 1e2f7468657265616c626974636f696e2e6f72673a302e392e39392e39392f b9e80600";

/// From the same vectors: version 70014 without relay byte.
pub(super) const CAPTURED_FALCON: &str = "
    7e110100 0100000000000000 5f429c5800000000
    0100000000000000 00000000000000000000ffff00000000 0000
    0100000000000000 00000000000000000000ffff22c06db5 208d
    6241eabdf2d6753c 1e2f436f726e656c6c2d46616c636f6e2d4e6574776f726b3a302e312e302f 97e60600";

/// From the same vectors: both addresses are IPv6.
pub(super) const CAPTURED_IPV6: &str = "
    76110100 0100000000000000 ae1b9c5800000000
    0100000000000000 260106009000d69ee9a999156d2e27fe d77d
    0100000000000000 2a0104f8016014460000000000000002 2b2a
    af9b8ea1eb14614b 0f2f5361746f7368693a312e312e312f 64450200";

/// Composed in the layout of Core 0.8.6 as measured (70001, services 1, no relay byte).
pub(super) const COMPOSED_CORE_0_8_6: &str = "
    71110100 0100000000000000 0065cd5200000000
    0100000000000000 00000000000000000000ffff7f000001 208d
    0100000000000000 00000000000000000000ffff00000000 208d
    0102030405060708 0f2f5361746f7368693a302e382e362f 00000000";

/// Decodes hex digits with whitespace.
pub(super) fn bytes(hex: &str) -> Vec<u8> {
    let digits: Vec<u8> = hex.bytes().filter(|byte| !byte.is_ascii_whitespace()).collect();
    assert!(digits.len().is_multiple_of(2), "odd number of hex digits");
    digits
        .chunks(2)
        .map(|pair| u8::from_str_radix(std::str::from_utf8(pair).unwrap(), 16).unwrap())
        .collect()
}

/// The payload of a message.
pub(super) fn payload(frame: &str) -> Vec<u8> {
    bytes(frame)[24..].to_vec()
}
