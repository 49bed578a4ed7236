//! The committed corpora of `fuzz/`, replayed without a fuzzer: what was found once stays mended, and every target
//! is a test of its own on any compiler.

use std::fs;
use std::path::Path;

#[path = "../fuzz/bodies/addr.rs"]
mod addr;
#[path = "../fuzz/bodies/config.rs"]
mod config;
#[path = "../fuzz/bodies/crawler.rs"]
mod crawler;
#[path = "../fuzz/bodies/decoder.rs"]
mod decoder;
#[path = "../fuzz/bodies/nodes_file.rs"]
mod nodes_file;
#[path = "../fuzz/bodies/probe.rs"]
mod probe;
#[path = "../fuzz/bodies/version.rs"]
mod version;

/// Runs a target over its corpus, and over every file cut short in two places.
fn replay(target: &str, run: fn(&[u8])) {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = Vec::new();
    for file in fs::read_dir(&folder).unwrap() {
        let path = file.unwrap().path();
        inputs.push((path.display().to_string(), fs::read(path).unwrap()));
    }
    inputs.sort();
    assert!(inputs.len() > 5, "{}: the corpus is missing", folder.display());
    for (name, input) in &inputs {
        for end in [input.len(), input.len() / 2, input.len().saturating_sub(1)] {
            // The name of the input that fails stands last in the output of the test.
            println!("{name}, {end} bytes");
            run(&input[..end]);
        }
    }
}

#[test]
fn the_decoder_gives_the_same_messages_however_they_are_cut() {
    replay("decoder", decoder::run);
}

#[test]
fn a_version_that_decodes_encodes_to_the_same() {
    replay("version", version::run);
}

#[test]
fn an_addr_that_decodes_encodes_to_the_same() {
    replay("addr", addr::run);
}

#[test]
fn a_probe_keeps_its_invariants_whatever_happens() {
    replay("probe", probe::run);
}

#[test]
fn the_crawler_keeps_its_invariants_in_any_order_of_events() {
    replay("crawler", crawler::run);
}

#[test]
fn a_nodes_file_is_read_or_complained_of() {
    replay("nodes_file", nodes_file::run);
}

#[test]
fn a_configuration_is_read_or_refused() {
    replay("config", config::run);
}

/// A corpus without a target, or a target without one, would be dead weight that nobody notices.
#[test]
fn every_target_has_a_corpus_and_a_place_in_the_scripts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |folder: &str| {
        let mut names: Vec<String> = fs::read_dir(root.join(folder))
            .unwrap()
            .map(|entry| {
                let path = entry.unwrap().path();
                path.file_stem().unwrap().to_str().unwrap().to_owned()
            })
            .collect();
        names.sort();
        names
    };
    let targets = names("fuzz/fuzz_targets");
    assert_eq!(names("fuzz/corpus"), targets);
    assert_eq!(names("fuzz/bodies"), targets);
    let script = fs::read_to_string(root.join("scripts/lib.sh")).unwrap();
    let mut listed: Vec<&str> = script
        .lines()
        .filter_map(|line| line.strip_prefix("fuzz_")?.split_once("targets=\""))
        .flat_map(|(_, list)| list.trim_end_matches('"').split(' '))
        .collect();
    listed.sort();
    assert_eq!(listed, targets);
}
