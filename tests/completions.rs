//! `bitdash completions bash`, as bash calls it.

mod support;

use std::process::Command;

use support::tools::Directory;

/// What the completion of the last word offers, in a directory with a file `my nodes.txt`.
fn offered(words: &[&str]) -> Vec<String> {
    let directory = Directory::new();
    directory.write("my nodes.txt", "");
    let script = directory.run(&["completions", "bash"]);
    assert_eq!((script.status, script.err.as_str()), (0, ""));
    let path = directory.write("completions.bash", &script.out);
    let call = "script=$1; shift; . \"$script\"; COMP_WORDS=(bitdash \"$@\"); COMP_CWORD=$#; \
                _bitdash bitdash \"${COMP_WORDS[$#]}\" \"${COMP_WORDS[$# - 1]}\"; printf '%s\\n' \"${COMPREPLY[@]}\"";
    let mut bash = Command::new("bash");
    bash.current_dir(path.parent().unwrap()).args(["-c", call, "bash"]).arg(&path).args(words);
    let out = bash.output().unwrap();
    String::from_utf8(out.stdout).unwrap().lines().map(str::to_owned).collect()
}

#[test]
fn commands_options_and_values_are_completed() {
    assert_eq!(offered(&["sta"]), ["status"]);
    assert_eq!(offered(&["nodes", "--sp"]), ["--species"]);
    assert_eq!(offered(&["nodes", "--status", ""]), ["up", "full", "down"]);
    assert_eq!(offered(&["nodes", "--sort", "la"]), ["latency", "last-seen"]);
    assert_eq!(offered(&["--color", ""]), ["auto", "always", "never"]);
    let shells = offered(&["completions", ""]);
    assert!(["bash", "zsh", "fish"].iter().all(|shell| shells.contains(&(*shell).to_owned())));
    let formats = offered(&["export", ""]);
    assert!(["json", "csv", "seeds"].iter().all(|format| formats.contains(&(*format).to_owned())));
}

#[test]
fn fish_knows_the_values_of_arguments() {
    let script = Directory::new().run(&["completions", "fish"]).out;
    for line in
        ["subcommand completions\" -f -a \"bash zsh fish\"\n", "subcommand export\" -f -a \"json "]
    {
        assert!(script.contains(line), "no {line:?} in\n{script}");
    }
}

#[test]
fn files_are_completed_where_a_file_is_expected() {
    for words in [["-c", "my"], ["--config", "my"]] {
        assert_eq!(offered(&words), ["my nodes.txt"], "{words:?}");
    }
    assert_eq!(offered(&["export", "--out", "my"]), ["my nodes.txt"]);
    // Nothing of its own: bash completes the file.
    assert_eq!(offered(&["poll", "my"]), [""]);
    assert_eq!(offered(&["nodes", "--limit", "my"]), ["my"]);
}
