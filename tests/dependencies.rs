//! Dependencies, as `cargo metadata` lists them: permissive licences, and no crate in two versions.

use std::collections::{BTreeMap, BTreeSet};
use std::process::Command;

use serde_json::Value;

/// Permissive licences.
const LICENCES: &[&str] = &[
    "0BSD",
    "Apache-2.0",
    "BSD-2-Clause",
    "BSD-3-Clause",
    "BSL-1.0",
    "CC0-1.0",
    "ISC",
    "MIT",
    "MIT-0",
    "MITNFA",
    "Unicode-3.0",
    "Unlicense",
    "Zlib",
];

/// Crates that the program may contain in two versions, and why.
const DUPLICATES: &[&str] = &[];

/// The targets of the packages.
const TARGETS: &[&str] = &["aarch64-unknown-linux-gnu", "x86_64-unknown-linux-gnu"];

struct Crate {
    name: String,
    version: String,
    licence: String,
}

/// All crates for a target, and those of them that the program contains or is built with.
fn crates(target: &str) -> (Vec<Crate>, BTreeSet<String>) {
    let output = Command::new(env!("CARGO"))
        .args(["metadata", "--locked", "--offline", "--format-version", "1"])
        .args(["--filter-platform", target, "--manifest-path"])
        .arg(concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml"))
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let metadata: Value = serde_json::from_slice(&output.stdout).unwrap();
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let mut nodes = BTreeMap::new();
    for node in metadata["resolve"]["nodes"].as_array().unwrap() {
        let used = node["deps"].as_array().unwrap().iter().filter(|dependency| {
            dependency["dep_kinds"].as_array().unwrap().iter().any(|kind| kind["kind"] != "dev")
        });
        nodes.insert(text(&node["id"]), used.map(|used| text(&used["pkg"])).collect::<Vec<_>>());
    }
    let mut shipped = BTreeSet::new();
    let mut open = vec![text(&metadata["resolve"]["root"])];
    while let Some(id) = open.pop() {
        if shipped.insert(id.clone()) {
            open.extend(nodes[&id].iter().cloned());
        }
    }
    let packages = metadata["packages"].as_array().unwrap().iter();
    let packages: Vec<&Value> =
        packages.filter(|package| nodes.contains_key(&text(&package["id"]))).collect();
    let name =
        |package: &Value| format!("{} {}", text(&package["name"]), text(&package["version"]));
    let shipped = packages
        .iter()
        .filter(|package| shipped.contains(&text(&package["id"])))
        .copied()
        .map(name);
    let shipped = shipped.collect();
    let crates = packages.iter().map(|package| Crate {
        name: text(&package["name"]),
        version: text(&package["version"]),
        licence: text(&package["license"]),
    });
    (crates.collect(), shipped)
}

/// Whether the listed licences satisfy an SPDX expression. The `/` of old crates means OR, and an
/// exception only adds rights.
fn is_permissive(expression: &str) -> bool {
    let expression = expression.replace('/', " OR ").replace(['(', ')'], " ");
    let (or, and) = (expression.contains(" OR "), expression.contains(" AND "));
    let fine = |term: &str| {
        let term = term.split(" WITH ").next().unwrap_or_default();
        LICENCES.contains(&term.trim())
    };
    match (or, and) {
        // Mixed, stricter than SPDX: each side of each AND needs a term of the list.
        (true, true) => expression.split(" AND ").all(|side| side.split(" OR ").any(fine)),
        (true, false) => expression.split(" OR ").any(fine),
        _ => expression.split(" AND ").all(fine),
    }
}

#[test]
fn every_licence_is_permissive() {
    for target in TARGETS {
        let (crates, _) = crates(target);
        assert!(crates.len() > 50, "only {} crates: is this the project?", crates.len());
        let faults: Vec<String> = crates
            .iter()
            .filter(|one| !is_permissive(&one.licence))
            .map(|one| format!("{} {}: \"{}\"", one.name, one.version, one.licence))
            .collect();
        assert_eq!(faults, [""; 0], "{target}");
    }
}

#[test]
fn the_program_contains_no_crate_in_two_versions() {
    for target in TARGETS {
        let (_, shipped) = crates(target);
        assert!(shipped.len() > 30, "only {} crates: is this the project?", shipped.len());
        let mut versions: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for (name, version) in shipped.iter().filter_map(|one| one.split_once(' ')) {
            versions.entry(name).or_default().push(version);
        }
        versions.retain(|name, versions| versions.len() > 1 && !DUPLICATES.contains(name));
        assert_eq!(versions, BTreeMap::new(), "{target}");
    }
}

#[test]
fn licence_expressions_are_evaluated() {
    for fine in [
        "MIT",
        "MIT/Apache-2.0",
        "MIT OR GPL-3.0-only",
        "Apache-2.0 WITH LLVM-exception OR GPL-2.0",
        "(MIT OR Apache-2.0) AND Unicode-3.0",
        "(GPL-3.0 OR MIT) AND ISC",
    ] {
        assert!(is_permissive(fine), "{fine}");
    }
    for not in
        ["", "GPL-3.0-only", "MIT AND GPL-3.0-only", "(MIT OR ISC) AND MPL-2.0", "AGPL-3.0/MPL-2.0"]
    {
        assert!(!is_permissive(not), "{not}");
    }
}
