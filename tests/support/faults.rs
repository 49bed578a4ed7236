//! Fault injection: frozen and killed servers, full disks, seeded random faults.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Cluster, Database};

/// The number in an environment variable, for long runs, or the default.
pub fn count_from_env(variable: &str, default: u32) -> u32 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text}")),
        Err(_) => default,
    }
}

/// A generator whose seed is printed; `BITDASH_SEED` replays a run.
pub fn seeded_rng(what: &str) -> fastrand::Rng {
    let seed = std::env::var("BITDASH_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    print_note(&format!("{what}: BITDASH_SEED={seed}"));
    fastrand::Rng::with_seed(seed)
}

/// Prints a line that the test harness does not capture.
pub fn print_note(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

pub fn random_millis(rng: &mut fastrand::Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.u64(from..to))
}

/// Waits until the condition holds, and returns how long that took.
pub fn wait_until(what: &str, timeout: Duration, mut holds: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !holds() {
        assert!(begin.elapsed() < timeout, "{what}: not within {timeout:?}");
        sleep(Duration::from_millis(50));
    }
    begin.elapsed()
}

impl Cluster {
    /// Restarts the server; it then listens on these loopback addresses, too.
    pub fn listen_on(&self, addresses: &str) {
        let mut admin = self.admin();
        admin.batch_execute(&format!("ALTER SYSTEM SET listen_addresses = '{addresses}'")).unwrap();
        let rules = admin.query_one("SHOW hba_file", &[]).unwrap().get::<_, String>(0);
        let mut rules = fs::File::options().append(true).open(rules).unwrap();
        rules.write_all(b"host all all 127.0.0.0/8 trust\n").unwrap();
        drop(admin);
        self.stop_server();
        self.start_server();
    }

    /// Freezes or thaws every process of the server: no connection breaks, none is served.
    pub fn freeze_all(&self, is_frozen: bool) {
        let signal = if is_frozen { "-STOP" } else { "-CONT" };
        for pid in self.processes() {
            // A backend may have exited meanwhile.
            let _ = Command::new("kill").args([signal, &pid]).stderr(Stdio::null()).status();
        }
    }

    /// Kills every process of the server at once, frozen or not.
    pub fn kill_all(&self) {
        let processes = self.processes();
        for pid in &processes {
            let _ = Command::new("kill").args(["-KILL", pid]).stderr(Stdio::null()).status();
        }
        let is_gone = |pid: &String| !Path::new("/proc").join(pid).join("exe").exists();
        wait_until("the server dies", Duration::from_secs(20), || processes.iter().all(is_gone));
    }

    /// The postmaster, then its children.
    fn processes(&self) -> Vec<String> {
        let postmaster = self.postmaster();
        let path = format!("/proc/{postmaster}/task/{postmaster}/children");
        let children = fs::read_to_string(path).unwrap_or_default();
        let children: Vec<String> = children.split_whitespace().map(str::to_owned).collect();
        [vec![postmaster], children].concat()
    }

    /// Runs a shell script with PostgreSQL's programs in PATH, and returns what it printed.
    pub fn shell(&self, script: &str) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .env("PATH", format!("{}:{path}", self.programs.display()))
            .env("PGHOST", &self.directory)
            .env("PGUSER", "postgres")
            .env_remove("BITDASH_DATABASE_URL")
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {}", super::text(&output));
        super::text(&output)
    }

    pub fn directory(&self) -> &Path {
        &self.directory
    }
}

/// The counters of the only pass agree with the rows: every result was written exactly once.
pub fn check_nothing_lost_or_doubled(database: &Database) {
    let pass = "SELECT count(*), min(pass), bool_and(finished_at IS NOT NULL),
        sum(probed) = (SELECT count(*) FROM nodes) + (SELECT count(*) FROM candidates WHERE last_probed IS NOT NULL),
        sum(responded) = (SELECT count(*) FROM probes), sum(responded) = (SELECT count(*) FROM nodes),
        sum(new_addresses) = (SELECT count(*) FROM addresses) FROM passes";
    assert_eq!(database.rows(pass), ["1|1|t|t|t|t|t"]);
    assert_eq!(database.value("SELECT count(*) FROM candidates WHERE failures > 1"), "0");
}

/// Runs the calling test again in its own namespaces, with a tmpfs of `size`. Inside, returns the
/// directory of that disk; outside, returns `None` after the inner run.
///
/// # Panics
/// If the inner run fails, or if root may not mount a tmpfs.
pub fn on_a_small_disk(test: &str, size: &str) -> Option<PathBuf> {
    if let Some(directory) = std::env::var_os("BITDASH_SMALL_DISK") {
        return Some(directory.into());
    }
    let directory = tempfile::Builder::new().prefix("bitdash-disk-").tempdir_in("/tmp").unwrap();
    // A separate loopback, too: another test may use the same ports.
    let mount =
        format!("ip link set lo up && mount -t tmpfs -o size={size},mode=1777 tmpfs \"$0\"");
    let (is_root, script) = match super::id("-u", None) {
        0 => (true, format!("{mount} && exec \"$@\"")),
        // The second namespace restores the user id: PostgreSQL refuses to run as root.
        uid => {
            let gid = super::id("-g", None);
            let back = format!("unshare -U --map-user={uid} --map-group={gid}");
            (false, format!("{mount} && exec {back} \"$@\""))
        }
    };
    let options = if is_root { "-mn" } else { "-rmn" };
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command
            .args([options, "--propagation", "private", "sh", "-c", script])
            .arg(directory.path());
        command
    };
    if !unshared(&mount).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        assert!(!is_root, "{test}: root may not mount a tmpfs here");
        print_note(&format!(
            "{test}: NOT TESTED: this system denies unprivileged mount namespaces"
        ));
        return None;
    }
    let status = unshared(&script)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("BITDASH_SMALL_DISK", directory.path())
        .status()
        .unwrap();
    assert!(status.success(), "{test} failed in its namespace: see above");
    None
}

/// Fills a disk to the last byte; removing the returned file frees it.
pub fn fill_disk(directory: &Path) -> PathBuf {
    let path = directory.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    let mut piece = vec![0_u8; 1 << 20];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
    path
}
