//! Replays the committed corpora of `fuzz/` without a fuzzer, on any compiler: a fault that fuzzing
//! found once stays fixed.

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
#[path = "../fuzz/bodies/libloc.rs"]
mod libloc;
#[path = "../fuzz/bodies/nodes_file.rs"]
mod nodes_file;
#[path = "../fuzz/bodies/probe.rs"]
mod probe;
#[path = "../fuzz/bodies/snapshot.rs"]
mod snapshot;
#[path = "../fuzz/bodies/species.rs"]
mod species;
#[path = "../fuzz/bodies/version.rs"]
mod version;

/// Runs a target over its corpus, and over two prefixes of every file.
fn replay(target: &str, run: fn(&[u8])) {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(target);
    let mut inputs = Vec::new();
    for file in fs::read_dir(&directory).unwrap() {
        let path = file.unwrap().path();
        inputs.push((path.display().to_string(), fs::read(path).unwrap()));
    }
    inputs.sort();
    assert!(inputs.len() > 5, "{}: the corpus is missing", directory.display());
    for (name, input) in &inputs {
        for end in [input.len(), input.len() / 2, input.len().saturating_sub(1)] {
            // The last line of the output names the input that fails.
            println!("{name}, {end} bytes");
            run(&input[..end]);
        }
    }
}

#[test]
fn the_decoder_does_not_depend_on_how_its_input_is_split() {
    replay("decoder", decoder::run);
}

#[test]
fn a_decoded_version_encodes_to_the_same_bytes() {
    replay("version", version::run);
}

#[test]
fn a_decoded_addr_encodes_to_the_same_bytes() {
    replay("addr", addr::run);
}

#[test]
fn a_probe_keeps_its_invariants_in_any_order_of_events() {
    replay("probe", probe::run);
}

#[test]
fn the_crawler_keeps_its_invariants_in_any_order_of_events() {
    replay("crawler", crawler::run);
}

#[test]
fn a_nodes_file_is_read_or_its_errors_are_reported() {
    replay("nodes_file", nodes_file::run);
}

#[test]
fn rules_of_species_are_read_and_classify_or_are_rejected() {
    replay("species", species::run);
}

#[test]
fn a_configuration_is_read_or_rejected() {
    replay("config", config::run);
}

#[test]
fn a_database_of_libloc_is_read_or_refused() {
    replay("libloc", libloc::run);
}

#[test]
fn a_list_of_nodes_is_read_or_refused() {
    replay("snapshot", snapshot::run);
}

#[test]
fn every_target_has_a_corpus_and_is_run_by_the_scripts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let names = |directory: &str| {
        let mut names: Vec<String> = fs::read_dir(root.join(directory))
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
