//! A network namespace for one test, with nothing in it but a loopback that the test controls.

use std::fs::File;
use std::io::Write;
use std::path::PathBuf;
use std::process::Command;

/// Set inside the namespace: the path of the pipe that takes commands.
const VARIABLE: &str = "BITDASH_NAMESPACE_PIPE";

/// Runs the test, and meanwhile every command that arrives in the pipe.
const INSIDE: &str = r#"
ip link set lo up
echo 0 >/proc/sys/net/ipv4/ip_unprivileged_port_start
if [ -n "$BITDASH_RESOLV_CONF" ]; then mount --bind "$BITDASH_RESOLV_CONF" /etc/resolv.conf; fi
(while :; do read -r command <"$BITDASH_NAMESPACE_PIPE" && $command; done) &
runner=$!
"$@"
status=$?
kill "$runner"
exit $status
"#;

/// Runs commands as root of the namespace.
pub struct Namespace(PathBuf);

impl Namespace {
    /// Queues one command, for instance of `ip`; it takes effect a moment later.
    pub fn run(&self, command: &str) {
        let mut pipe = File::options().write(true).open(&self.0).unwrap();
        pipe.write_all(format!("{command}\n").as_bytes()).unwrap();
    }
}

/// Runs the test `name` again in a namespace of its own. Inside, returns the namespace; outside,
/// returns `None` after the inner run.
///
/// # Panics
/// If the inner run fails.
pub fn enter(name: &str) -> Option<Namespace> {
    enter_with_resolv_conf(name, "")
}

/// Like [`enter`], with these contents of `/etc/resolv.conf` unless empty.
pub fn enter_with_resolv_conf(name: &str, resolv_conf: &str) -> Option<Namespace> {
    if let Some(pipe) = std::env::var_os(VARIABLE) {
        return Some(Namespace(pipe.into()));
    }
    let dir = tempfile::tempdir().unwrap();
    let pipe = dir.path().join("commands");
    assert!(Command::new("mkfifo").arg(&pipe).status().unwrap().success());
    let mut command = Command::new("unshare");
    command.env(VARIABLE, &pipe);
    if !resolv_conf.is_empty() {
        let file = dir.path().join("resolv.conf");
        std::fs::write(&file, resolv_conf).unwrap();
        command.env("BITDASH_RESOLV_CONF", file);
    }
    match (super::id("-u", None), super::id("-g", None)) {
        (0, _) => command.args(["-nm", "sh", "-c", INSIDE, "sh"]),
        // The second namespace restores the user id: PostgreSQL refuses to run as root.
        (user, group) => command
            .args(["-rnm", "sh", "-c", INSIDE, "sh", "unshare", "-U"])
            .arg(format!("--map-user={user}"))
            .arg(format!("--map-group={group}")),
    };
    let test = std::env::current_exe().unwrap();
    let status = command.arg(test).args(["--exact", name, "--nocapture"]).status().unwrap();
    assert!(status.success(), "{name} failed in its namespace: {status}");
    None
}
