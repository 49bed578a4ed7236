//! The shipped files: `bitdash.toml` and `docs/configuration.md` are generated from the table of
//! keys, and `nodes.txt` is valid.

use std::fmt::Write;
use std::fs;
use std::path::Path;

use bitdash::config::{Config, KEYS, Key, Reload, SPECIES_FILE};
use bitdash::net::nodes_file::{Host, NodesFile};
use bitdash_core::lookup::species::{Rules, Species};

const PREAMBLE: &str = r#"# bitdash.toml: the configuration of the crawler, for Bitcoin's main network.
#
# All keys are listed with their defaults, so this file changes nothing until you edit it; an empty
# file works too. An unknown key is an error. `bitdash config` checks the file and prints the
# effective configuration.
#
# Durations are strings with a unit: "500ms", "3s", "10m", "24h", "14d".
# Relative paths are resolved against the directory of this file.
#
# A file species.toml in the same directory replaces the built-in rules of species.
#
# On SIGHUP (`kill -HUP`, `systemctl reload`) a running crawl reloads this file, the nodes file,
# species.toml and the exclude files. If one of them is invalid, nothing changes and one line
# reports why. All keys are reloaded except [network] and database.url, which need a restart.
"#;

/// A key and those after it that share its documentation.
fn groups(section: &[Key]) -> impl Iterator<Item = &[Key]> {
    section.chunk_by(|_, next| next.text.is_empty())
}

fn sections() -> impl Iterator<Item = &'static [Key]> {
    KEYS.chunk_by(|a, b| a.section == b.section)
}

fn shipped_configuration() -> String {
    let mut out = PREAMBLE.to_owned();
    for section in sections() {
        write!(out, "\n\n[{}]", section[0].section).unwrap();
        for (index, group) in groups(section).enumerate() {
            out.push_str(if index == 0 { "\n" } else { "\n\n" });
            group[0].text.iter().for_each(|line| writeln!(out, "#{line}").unwrap());
            let keys = group.iter().map(|key| format!("{} = {}", key.field, key.default));
            out.push_str(&keys.collect::<Vec<_>>().join("\n"));
        }
        out.push('\n');
    }
    out
}

fn reference_page() -> String {
    let mut out =
        "# Configuration\n\nThe keys of `bitdash.toml`. This page and `bitdash.toml` are \
        generated from `src/config/keys.rs`.\n"
            .to_owned();
    for section in sections() {
        let name = section[0].section;
        write!(out, "\n## [{name}]\n\n| key | default | allowed | SIGHUP |\n").unwrap();
        out.push_str("| --- | --- | --- | --- |\n");
        for Key { field, default, reload, allowed, .. } in section {
            let reload = match reload {
                Reload::Live => "takes effect",
                Reload::AtStart => "needs a restart",
            };
            writeln!(out, "| `{field}` | `{default}` | {} | {reload} |", allowed()).unwrap();
        }
        for group in groups(section) {
            let fields: Vec<String> =
                group.iter().map(|key| format!("**`{}`**", key.field)).collect();
            write!(out, "\n{}:\n", fields.join(", ")).unwrap();
            group[0].text.iter().for_each(|line| writeln!(out, "{}", line.trim()).unwrap());
        }
    }
    out
}

/// Compares a committed file with what is generated; with `REGENERATE` in the environment, writes
/// it.
fn check(name: &str, generated: &str) {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
    if std::env::var_os("REGENERATE").is_some() {
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(&path, generated).unwrap();
    }
    let committed = fs::read_to_string(&path).unwrap_or_default();
    let differs = committed.lines().zip(generated.lines()).find(|(old, new)| old != new);
    assert!(
        committed == generated,
        "{name} is out of date ({differs:?}): run REGENERATE=1 cargo test --test shipped_files"
    );
}

#[test]
fn the_shipped_configuration_is_generated_from_the_keys() {
    check("bitdash.toml", &shipped_configuration());
}

#[test]
fn the_reference_page_is_generated_from_the_keys() {
    check("docs/configuration.md", &reference_page());
}

#[test]
fn the_shipped_configuration_contains_the_defaults() {
    let text = shipped_configuration();
    let config = Config::parse(&text, "bitdash.toml", Path::new("")).unwrap();
    assert_eq!(config, Config::default());
}

#[test]
fn every_key_is_documented_in_lines_of_at_most_100_columns() {
    for section in sections() {
        assert!(!section[0].text.is_empty(), "{} is not documented", section[0].name);
    }
    for line in shipped_configuration().lines() {
        assert!(line.chars().count() <= 100, "{line}");
    }
}

#[test]
fn the_preamble_names_the_keys_that_need_a_restart() {
    let at_start = |key: &&Key| key.reload == Reload::AtStart;
    let fixed: Vec<&str> = KEYS.iter().filter(at_start).map(|key| key.name).collect();
    let (url, network) = fixed.split_last().unwrap();
    assert_eq!(*url, "database.url");
    let all_of_network: Vec<&str> =
        KEYS.iter().filter(|key| key.section == "network").map(|key| key.name).collect();
    assert_eq!(network, all_of_network);
}

#[test]
fn the_shipped_rules_of_species_are_the_built_in_ones() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let manifest = fs::read_to_string(root.join("Cargo.toml")).unwrap();
    let place = "\"usr/share/bitdash/\"";
    let asset = manifest.lines().find(|line| line.contains(place)).expect("it is in the package");
    let shipped = root.join(asset.split('"').nth(1).unwrap());
    assert_eq!(shipped.file_name().unwrap(), SPECIES_FILE);
    let text = fs::read_to_string(shipped).unwrap();
    assert_eq!(Rules::parse(&text).unwrap(), *Rules::builtin());
    assert!(text.lines().all(|line| line.chars().count() <= 100));
}

#[test]
fn the_page_of_species_explains_every_word() {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/species.md");
    let page = fs::read_to_string(page).unwrap();
    let rows: Vec<&str> = page.lines().filter(|line| line.starts_with("| `")).collect();
    let rules = Rules::builtin();
    let row = |species: &Species| format!("| `{}` | {} |", species.word, species.meaning);
    assert_eq!(rows, rules.species().iter().map(row).collect::<Vec<_>>());
}

#[test]
fn the_shipped_nodes_file_has_named_nodes_dns_seeds_and_fixed_seeds() {
    let nodes = NodesFile::parse("nodes.txt", include_bytes!("../nodes.txt"), 8333);
    assert_eq!(nodes.complaints, [""; 0]);
    let named = nodes.lines.iter().filter(|line| line.name.is_some()).count();
    let names = nodes.lines.iter().filter(|line| matches!(line.host, Host::Name(_))).count();
    assert_eq!((named, names, nodes.lines.len()), (4, 8, 4 + 8 + 64));
}
