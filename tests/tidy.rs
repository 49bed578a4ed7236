//! Rules of the house that no compiler checks: layers, banned words, the length of files, keys and
//! SQL files that nobody speaks of.

use std::fs;
use std::path::{Path, PathBuf};

use bitdash::io::config::KEYS;

/// What each top module may use, itself aside: only what lies in lower layers.
const LAYERS: &[(&str, &[&str])] = &[
    ("watchglass", &[]),
    ("crawl", &["watchglass", "lookup"]),
    ("lookup", &["watchglass"]),
    ("simnet", &["watchglass", "crawl", "lookup"]),
    ("io", &["watchglass", "crawl", "lookup"]),
    ("commands", &["watchglass", "crawl", "lookup", "simnet", "io"]),
];

/// Words that have no place in the sources of the library.
const BANNED: &[&str] = &["TODO", "FIXME", "dbg!", "println!", "eprintln!"];

const MAX_LINES: usize = 600;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a folder whose names end in `.extension`, with their paths from the project's
/// root.
fn files(folder: &str, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut folders = vec![root().join(folder)];
    while let Some(folder) = folders.pop() {
        let Ok(entries) = fs::read_dir(&folder) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.ends_with("node_modules") {
                folders.push(path);
            } else if path.extension().is_some_and(|ending| ending == extension) {
                let text = fs::read_to_string(&path).unwrap();
                found.push((path.strip_prefix(root()).unwrap().display().to_string(), text));
            }
        }
    }
    found.sort();
    found
}

fn sources() -> Vec<(String, String)> {
    let sources = files("src", "rs");
    assert!(sources.len() > 20, "only {} sources: is this the project?", sources.len());
    sources
}

/// The top modules that a source names by `crate::`, the grouped form `crate::{a, b::c}` included.
fn modules_used(text: &str) -> Vec<&str> {
    let word = |text: &'_ str| text.find(|c: char| !c.is_ascii_alphanumeric() && c != '_');
    let mut used = Vec::new();
    for code in text.lines().map(|line| line.split("//").next().unwrap_or_default()) {
        for (at, path) in code.match_indices("crate::") {
            // `$crate::` and `some_crate::` are something else.
            if code[..at].ends_with(|c: char| c.is_ascii_alphanumeric() || c == '_' || c == '$') {
                continue;
            }
            let rest = &code[at + path.len()..];
            used.push(&rest[..word(rest).unwrap_or(rest.len())]);
        }
    }
    used
}

#[test]
fn no_module_uses_a_higher_layer() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        let module = path.trim_start_matches("src/").split(['/', '.']).next().unwrap();
        let Some((_, lower)) = LAYERS.iter().find(|(name, _)| *name == module) else {
            assert!(
                ["lib", "main", "bin"].contains(&module),
                "{path}: its layer is not in the table"
            );
            continue;
        };
        for used in modules_used(&text) {
            if used != module && !lower.contains(&used) {
                faults.push(format!("{path}: uses crate::{used}, which is not below {module}"));
            }
        }
    }
    assert_eq!(faults, [""; 0]);
}

#[test]
fn the_protocol_names_nothing_of_the_crate() {
    for (path, text) in sources().iter().filter(|(path, _)| path.starts_with("src/watchglass")) {
        for used in modules_used(text) {
            assert!(used == "watchglass", "{path}: uses crate::{used}");
        }
        for foreign in
            ["std::net::TcpStream", "std::fs", "std::thread", "log::", "Instant", "SystemTime"]
        {
            assert!(!text.contains(foreign), "{path}: uses {foreign}");
        }
    }
}

#[test]
fn imports_are_one_module_a_line() {
    // So that the check of the layers sees them all.
    for (path, text) in sources() {
        assert!(
            !text.contains("use crate::{"),
            "{path}: `use crate::{{...}}` hides modules from this check"
        );
    }
}

#[test]
fn used_modules_are_seen_in_paths_and_imports_but_not_in_comments() {
    let text = "use crate::io::config;\nlet x = crate::crawl::time::Now; // crate::commands\n//! [`crate::simnet`]\n\
        $crate::io; other_crate::io; (crate::lookup)";
    assert_eq!(modules_used(text), ["io", "crawl", "lookup"]);
}

#[test]
fn banned_words_stand_nowhere() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        // The commands and the binaries print: that is what they are for.
        let prints = path.starts_with("src/commands/") || path.starts_with("src/bin/");
        for (index, line) in text.lines().enumerate() {
            for word in BANNED {
                if line.contains(word) && !(prints && word.ends_with("println!")) {
                    faults.push(format!("{path}:{}: {word}", index + 1));
                }
            }
        }
    }
    assert_eq!(faults, [""; 0]);
}

#[test]
fn no_file_is_longer_than_a_reader_can_hold() {
    let mut faults = Vec::new();
    for (path, text) in sources().into_iter().chain(files("tests", "rs")) {
        let lines = text.lines().count();
        if lines > MAX_LINES {
            faults.push(format!("{path}: {lines} lines, at most {MAX_LINES} are allowed"));
        }
    }
    assert_eq!(faults, [""; 0]);
}

#[test]
fn every_module_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{path}: does not begin with `//! `");
    }
}

#[test]
fn unsafe_code_is_forbidden_everywhere() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let lints = manifest.split("[lints.rust]").nth(1).expect("Cargo.toml has [lints.rust]");
    assert!(lints.split("\n[").next().unwrap().contains("\nunsafe_code = \"forbid\"\n"));
}

#[test]
fn every_key_is_documented() {
    for name in ["bitdash.toml", "README.md"] {
        let Ok(text) = fs::read_to_string(root().join(name)) else {
            assert_eq!(name, "README.md", "{name} is missing");
            continue;
        };
        for key in KEYS {
            let in_toml = text.contains(&format!("\n{} = ", key.field));
            let found = if name == "README.md" { text.contains(key.name) } else { in_toml };
            assert!(found, "{name}: {} is missing", key.name);
        }
    }
}

#[test]
fn every_sql_file_is_part_of_the_binary() {
    let sources: String = sources().into_iter().map(|(_, text)| text).collect();
    for (path, _) in files("sql", "sql") {
        let name = PathBuf::from(&path);
        let name = name.file_name().unwrap().to_str().unwrap();
        let included = sources.match_indices("include_str!(").any(|(at, _)| {
            sources[at..].split(')').next().unwrap().contains(&format!("/{name}\""))
        });
        assert!(included, "{path}: no include_str! names it");
    }
}
