//! The files at the top of the project that people start from: `bitdash.toml` and `nodes.txt`.

use std::path::Path;

use bitdash::io::config::{Config, KEYS};
use bitdash::io::nodes_file::{Host, NodesFile};

const CONFIG: &str = include_str!("../bitdash.toml");
const NODES: &[u8] = include_bytes!("../nodes.txt");

#[test]
fn the_shipped_configuration_is_every_key_with_its_default() {
    let config = Config::parse(CONFIG, "bitdash.toml", Path::new("")).unwrap();
    assert_eq!(config, Config::default());
    let mut section = "";
    let mut mentioned = Vec::new();
    for line in CONFIG.lines() {
        if let Some(name) = line.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')) {
            section = name;
        } else if let Some((field, _)) = line.split_once(" = ").filter(|_| !line.starts_with('#')) {
            mentioned.push(format!("{section}.{field}"));
        }
    }
    let keys: Vec<&str> = KEYS.iter().map(|key| key.name).collect();
    assert_eq!(mentioned, keys);
}

#[test]
fn the_shipped_configuration_says_truly_what_needs_a_restart() {
    let fixed: Vec<&str> = KEYS.iter().filter(|key| !key.reloaded).map(|key| key.name).collect();
    let (url, network) = fixed.split_last().unwrap();
    assert_eq!(*url, "database.url");
    let all_of_network: Vec<&str> =
        KEYS.iter().filter(|key| key.section == "network").map(|key| key.name).collect();
    assert_eq!(network, all_of_network);
}

#[test]
fn the_shipped_nodes_file_has_named_nodes_dns_seeds_and_fixed_seeds() {
    let nodes = NodesFile::parse("nodes.txt", NODES, 8333);
    assert_eq!(nodes.complaints, [""; 0]);
    let named = nodes.lines.iter().filter(|line| line.name.is_some()).count();
    let names = nodes.lines.iter().filter(|line| matches!(line.host, Host::Name(_))).count();
    assert_eq!((named, names, nodes.lines.len()), (4, 8, 4 + 8 + 64));
}
