//! Names of the service bits in `version` and `addr`. All bits are claims of the sender.
//!
//! Sans-I/O: data and pure functions.
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

/// The bit with this name.
pub fn bit(name: &str) -> Option<u64> {
    let named = NAMES.iter().find(|(_, known)| *known == name).map(|(place, _)| *place);
    let place = named.or_else(|| {
        let place = name.strip_prefix("BIT_")?.parse().ok()?;
        names(1_u64.checked_shl(place)?).contains(&name.to_owned()).then_some(place)
    })?;
    Some(1 << place)
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

    #[test]
    fn every_name_is_that_of_its_bit() {
        for place in 0..u64::BITS {
            assert_eq!(bit(&names(1 << place)[0]), Some(1 << place));
        }
        for name in ["", "network", "BIT_", "BIT_0", "BIT_07", "BIT_+7", "BIT_64", "BIT_4294967303"]
        {
            assert_eq!(bit(name), None, "{name}");
        }
    }
}
