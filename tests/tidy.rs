//! Rules that no compiler checks: banned words, lengths of comments, functions and test names.

use std::fs;
use std::path::Path;

/// Words that are banned from the sources of the library.
const BANNED: &[&str] = &["TODO", "FIXME", "dbg!", "println!", "eprintln!"];

/// Words and formulas that are not the field's English, each with its replacement.
const DIALECT: &[(&str, &str)] = &[
    ("so many", "the maximum number of"),
    ("so long after", "the minimum interval between"),
    ("goes by", "settings of"),
    ("anew", "again, from scratch"),
    ("for ever", "forever"),
    ("nobody waits", "nothing waits, no thread waits"),
    ("that nobody", "that nothing"),
    ("who answers", "which answers"),
    ("everybody", "every peer"),
    ("calendar", "wall clock"),
    ("folder", "directory"),
    ("keeper", "operator"),
    ("by hand of", "manually by"),
    ("gone on with", "resumed"),
    ("in hand", "pending"),
    ("looked up again", "resolved again"),
    ("beforehand", "before"),
    ("turned over", "rotated"),
    ("told apart", "distinguished"),
    ("let go", "drop, evict"),
    ("hurried", "the shutdown state"),
    ("at the most", "at most"),
    ("is foretold", "is estimated"),
    ("to be had", "available"),
    ("what is wrong with", "the errors of"),
    ("layer 1", "sans-I/O, or shell"),
    ("layer 2", "sans-I/O, or shell"),
    ("layer 3", "sans-I/O, or shell"),
    ("layer 4", "sans-I/O, or shell"),
    ("MOST_", "MAX_"),
    ("LEAST_", "MIN_"),
    ("LONGEST_", "MAX_"),
    ("_EVERY", "_INTERVAL"),
    ("match true", "if"),
];

const MAX_LINE_COLUMNS: usize = 100;
const MAX_FUNCTION_LINES: usize = 70;
const MAX_TEST_NAME_LENGTH: usize = 70;

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// All files below a directory whose names end in `.extension`, with their paths from the project's
/// root.
fn files(directory: &str, extension: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut directories = vec![root().join(directory)];
    while let Some(directory) = directories.pop() {
        let Ok(entries) = fs::read_dir(&directory) else { continue };
        for path in entries.map(|entry| entry.unwrap().path()) {
            if path.is_dir() && !path.ends_with("node_modules") {
                directories.push(path);
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
    let mut sources = files("src", "rs");
    sources.extend(files("crates", "rs"));
    assert!(sources.len() > 20, "only {} sources: is this the project?", sources.len());
    sources
}

#[test]
fn banned_words_stand_nowhere() {
    let mut faults = Vec::new();
    for (path, text) in sources() {
        // The commands and the binaries print: that is what they are for.
        let prints = path.starts_with("src/commands/")
            || ["/examples/", "/tests/", "/main.rs"].iter().any(|part| path.contains(part));
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
fn every_module_says_what_it_is() {
    for (path, text) in sources() {
        assert!(text.starts_with("//! "), "{path}: does not begin with `//! `");
    }
}

#[test]
fn unsafe_code_is_forbidden_everywhere() {
    let manifest = fs::read_to_string(root().join("Cargo.toml")).unwrap();
    let lints = manifest.split("[workspace.lints.rust]").nth(1).expect("Cargo.toml has lints");
    assert!(lints.split("\n[").next().unwrap().contains("\nunsafe_code = \"forbid\"\n"));
}

/// Every text that people read but data and fixtures.
fn texts() -> Vec<(String, String)> {
    let mut texts = sources();
    for (directory, extension) in
        [("tests", "rs"), ("benches", "rs"), ("fuzz", "rs"), ("sql", "sql"), ("docs", "md")]
    {
        texts.extend(files(directory, extension));
    }
    for name in ["README.md", "ARCHITECTURE.md", "CONTRIBUTING.md", "bitdash.toml", "Cargo.toml"] {
        texts.push((name.to_owned(), fs::read_to_string(root().join(name)).unwrap()));
    }
    for entry in fs::read_dir(root().join("scripts")).unwrap().map(Result::unwrap) {
        let path = entry.path();
        texts.push((
            format!("scripts/{}", entry.file_name().display()),
            fs::read_to_string(path).unwrap(),
        ));
    }
    texts.retain(|(path, _)| path != "tests/tidy.rs" && !path.starts_with("fuzz/target"));
    texts
}

/// Whether `text` has `word` with no letter right before and after it.
fn has_word(text: &str, word: &str) -> bool {
    text.match_indices(word).any(|(at, _)| {
        let before = text[..at].chars().next_back();
        let after = text[at + word.len()..].chars().next();
        let is_part = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
        (word.starts_with('_') || !is_part(before)) && (word.ends_with('_') || !is_part(after))
    })
}

#[test]
fn texts_use_the_words_of_the_field() {
    let mut faults = Vec::new();
    for (path, text) in texts() {
        for (index, line) in text.lines().enumerate() {
            let lower = line.to_lowercase();
            for (word, better) in DIALECT {
                let is_constant = word.chars().any(char::is_uppercase);
                if has_word(if is_constant { line } else { &lower }, word) {
                    faults.push(format!("{path}:{}: {word:?}: {better}", index + 1));
                }
            }
        }
    }
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}

#[test]
fn comments_end_at_column_100() {
    let mut faults = Vec::new();
    for (path, text) in texts() {
        let mark = match path.rsplit('.').next() {
            Some("rs") => "//",
            Some("sql") => "--",
            Some("md") => continue,
            _ => "#",
        };
        for (index, line) in text.lines().enumerate() {
            let is_long = line.chars().count() > MAX_LINE_COLUMNS;
            // A row of a table in a doc comment cannot be broken.
            let is_table = line.trim_start().starts_with("//! |");
            if is_long && line.trim_start().starts_with(mark) && !is_table {
                faults.push(format!("{path}:{}", index + 1));
            }
        }
    }
    assert!(faults.is_empty(), "{} comments are too long:\n{}", faults.len(), faults.join("\n"));
}

/// The functions of a file: name, number of the first line, number of lines, whether it is a test.
fn functions(text: &str) -> Vec<(String, usize, usize, bool)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (start, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let Some(at) = code.find("fn ") else { continue };
        let is_item = code[..at].split_whitespace().all(|word| {
            word.starts_with("pub")
                || ["const", "async", "unsafe", "extern"].contains(&word)
                || word.ends_with(')')
        });
        if !is_item {
            continue;
        }
        let indent = &line[..line.len() - code.len()];
        let name: String =
            code[at + 3..].chars().take_while(|c| *c == '_' || c.is_alphanumeric()).collect();
        let end = lines[start..].iter().position(|line| *line == format!("{indent}}}"));
        let is_one_line = line.ends_with('}') || line.ends_with(';');
        let is_test = lines[..start].iter().rev().take(3).any(|line| line.trim() == "#[test]");
        let length = if is_one_line { 1 } else { end.map_or(1, |end| end + 1) };
        found.push((name, start + 1, length, is_test));
    }
    found
}

#[test]
fn functions_have_at_most_70_lines_and_test_names_70_letters() {
    let mut faults = Vec::new();
    let mut count = 0;
    for (path, text) in texts().into_iter().filter(|(path, _)| path.ends_with(".rs")) {
        for (name, line, length, is_test) in functions(&text) {
            count += 1;
            if length > MAX_FUNCTION_LINES {
                faults.push(format!("{path}:{line}: {name} has {length} lines"));
            }
            if is_test && name.len() > MAX_TEST_NAME_LENGTH {
                faults.push(format!("{path}:{line}: the name {name} has {} letters", name.len()));
            }
        }
    }
    assert!(count > 1_000, "only {count} functions: are these the sources?");
    assert!(faults.is_empty(), "{} faults:\n{}", faults.len(), faults.join("\n"));
}
