//! Makes databases of IPFire's libloc.

use std::net::Ipv4Addr;

/// A network: its CIDR, country and autonomous system.
pub type Network<'n> = (&'n str, &'n str, u32);

/// A file made at this second, with networks and the names of systems, which are sorted by number.
pub fn libloc(built_at: i64, networks: &[Network], names: &[(u32, &str)]) -> Vec<u8> {
    let mut tree = vec![[0, 0, u32::MAX]];
    let mut table = Vec::new();
    for (index, (cidr, country, asn)) in networks.iter().enumerate() {
        insert(&mut tree, cidr, u32::try_from(index).unwrap());
        let code: [u8; 2] = country.as_bytes().try_into().unwrap_or_default();
        table.extend([&code[..], &[0; 2], &asn.to_be_bytes(), &[0; 4]].concat());
    }
    let mut pool = Vec::new();
    let mut put = |text: &str| {
        let at = u32::try_from(pool.len()).unwrap();
        pool.extend([text.as_bytes(), &[0]].concat());
        at.to_be_bytes()
    };
    let texts = ["IPFire Project", "A database for tests.", "CC BY-SA 4.0"].map(&mut put);
    let mut systems = Vec::new();
    for (asn, name) in names {
        systems.extend([asn.to_be_bytes(), put(name)].concat());
    }
    let tree: Vec<u8> = tree.concat().into_iter().flat_map(u32::to_be_bytes).collect();
    let mut file = [b"LOCDBXX\x01", &built_at.to_be_bytes(), &texts.concat()[..]].concat();
    let mut start = 68;
    // Systems, networks, tree, countries and pool.
    for section in [&systems, &table, &tree, &Vec::new(), &pool] {
        file.extend(u32::try_from(start).unwrap().to_be_bytes());
        file.extend(u32::try_from(section.len()).unwrap().to_be_bytes());
        start += section.len();
    }
    [file, systems, table, tree, pool].concat()
}

/// Gives a network its path from the root: 96 bits of ::ffff:0:0, and those of the CIDR.
fn insert(tree: &mut Vec<[u32; 3]>, cidr: &str, network: u32) {
    let (ip, length) = cidr.split_once('/').unwrap();
    let ip = u128::from(u32::from(ip.parse::<Ipv4Addr>().unwrap()));
    let bits = 0xffff_0000_0000 | ip;
    let mut node = 0;
    for bit in 0..96 + length.parse::<u32>().unwrap() {
        let side = usize::from(bits >> (127 - bit) & 1 == 1);
        if tree[node][side] == 0 {
            tree[node][side] = u32::try_from(tree.len()).unwrap();
            tree.push([0, 0, u32::MAX]);
        }
        node = tree[node][side] as usize;
    }
    tree[node][2] = network;
}
