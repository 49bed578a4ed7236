//! Names of the service bits in `version` and `addr`. All bits are claims of the sender.
//!
//! Sans-I/O: data and a pure function.
//!
//! Sources: Bitcoin Core protocol.h; BIP 64 (`GETUTXO`), 111 (`BLOOM`), 144 (`WITNESS`), 157
//! (`COMPACT_FILTERS`), 159 (`NETWORK_LIMITED`), 324 (`P2P_V2`); Bitcoin Unlimited and Bitcoin Cash
//! Node protocol.h (`XTHIN`, `BITCOIN_CASH`); utreexod (`UTREEXO`); Bitcoin Knots protocol.h
//! (`REPLACE_BY_FEE`, `REDUCED_DATA`).

/// Bit number and name. Of two projects that name a bit differently, the one with more nodes wins.
const NAMES: &[(u32, &str)] = &[
    (0, "NETWORK"),
    (1, "GETUTXO"),
    (2, "BLOOM"),
    (3, "WITNESS"),
    (4, "XTHIN"),
    (5, "BITCOIN_CASH"),
    (6, "COMPACT_FILTERS"),
    (10, "NETWORK_LIMITED"),
    (11, "P2P_V2"),
    (12, "UTREEXO"),
    (26, "REPLACE_BY_FEE"),
    (27, "REDUCED_DATA"),
];

/// The names of the bits that are set, lowest first; an unnamed bit is `BIT_n`.
pub fn names(services: u64) -> Vec<String> {
    let set = (0..u64::BITS).filter(|bit| services >> bit & 1 == 1);
    set.map(|bit| match NAMES.iter().find(|(place, _)| *place == bit) {
        Some((_, name)) => (*name).to_owned(),
        None => format!("BIT_{bit}"),
    })
    .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_set_bit_is_named() {
        assert!(names(0).is_empty());
        assert_eq!(names(1), ["NETWORK"]);
        // Core 28 as measured.
        assert_eq!(names(3081), ["NETWORK", "WITNESS", "NETWORK_LIMITED", "P2P_V2"]);
        assert_eq!(names(1033), ["NETWORK", "WITNESS", "NETWORK_LIMITED"]);
        assert_eq!(names(1 << 63 | 1 << 7), ["BIT_7", "BIT_63"]);
        assert_eq!(names(u64::MAX).len(), 64);
    }
}
