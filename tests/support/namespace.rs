//! A network namespace for one test, with nothing in it but loopback, which the test may switch off and on.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// Tells the test that it is inside: the path of the pipe that takes commands.
const VARIABLE: &str = "BITDASH_LINE_SWITCH";

/// Takes commands for the namespace from a pipe, and becomes the test within it.
const INSIDE: &str = r#"
ip link set lo up
(while :; do read -r command <"$BITDASH_LINE_SWITCH" && $command; done) &
switch=$!
"$@"
status=$?
kill "$switch"
exit $status
"#;

/// Runs commands with all rights over the namespace.
pub struct Switch(PathBuf);

impl Switch {
    /// Hands over one command, for instance of `ip`; it takes effect a moment later.
    pub fn run(&self, command: &str) {
        let mut pipe = File::options().write(true).open(&self.0).unwrap();
        pipe.write_all(format!("{command}\n").as_bytes()).unwrap();
    }
}

/// The switch, inside a namespace of its own; outside of it runs the test `name` there and gives nothing.
///
/// # Panics
/// Where the test fails there.
pub fn inside(name: &str) -> Option<Switch> {
    if let Some(pipe) = std::env::var_os(VARIABLE) {
        return Some(Switch(pipe.into()));
    }
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("switch");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = Command::new("unshare");
    command.env(VARIABLE, &pipe);
    match (super::id("-u", None), super::id("-g", None)) {
        (0, _) => command.args(["-n", "sh", "-c", INSIDE, "sh"]),
        // The second namespace gives the user its own number back: PostgreSQL refuses root.
        (user, group) => command
            .args(["-rn", "sh", "-c", INSIDE, "sh", "unshare", "-U"])
            .arg(format!("--map-user={user}"))
            .arg(format!("--map-group={group}")),
    };
    let test = std::env::current_exe().unwrap();
    let status = command.arg(test).args(["--exact", name, "--nocapture"]).status().unwrap();
    assert!(status.success(), "in its namespace it failed: {status}");
    None
}
