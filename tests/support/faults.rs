//! Faults of the real world, made to order: servers that freeze and die, small disks, how many of them and which.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use super::{Cluster, Database};

/// How many of something: an environment variable, for long runs, or what suits `scripts/test`.
pub fn count(variable: &str, default: u32) -> u32 {
    match std::env::var(variable) {
        Ok(text) => text.parse().unwrap_or_else(|_| panic!("{variable} is {text}")),
        Err(_) => default,
    }
}

/// The seed of this run, printed: `BITDASH_SEED` repeats one.
pub fn rng(what: &str) -> fastrand::Rng {
    let seed = std::env::var("BITDASH_SEED").ok().and_then(|text| text.parse().ok());
    let seed = seed.unwrap_or_else(|| fastrand::u64(..));
    say(&format!("{what}: BITDASH_SEED={seed}"));
    fastrand::Rng::with_seed(seed)
}

/// Says something that the test harness does not swallow where a test passes.
pub fn say(text: &str) {
    let _ = writeln!(std::io::stderr(), "{text}");
}

pub fn millis(rng: &mut fastrand::Rng, from: u64, to: u64) -> Duration {
    Duration::from_millis(rng.u64(from..to))
}

/// Waits for something, and gives how long it took.
pub fn wait_until(what: &str, patience: Duration, mut is_so: impl FnMut() -> bool) -> Duration {
    let begin = Instant::now();
    while !is_so() {
        assert!(begin.elapsed() < patience, "{what}: not within {patience:?}");
        sleep(Duration::from_millis(50));
    }
    begin.elapsed()
}

impl Cluster {
    /// Starts the server anew, to be reached at these addresses of loopback, too.
    pub fn listen(&self, addresses: &str) {
        let mut admin = self.admin();
        admin.batch_execute(&format!("ALTER SYSTEM SET listen_addresses = '{addresses}'")).unwrap();
        let rules = admin.query_one("SHOW hba_file", &[]).unwrap().get::<_, String>(0);
        let mut rules = fs::File::options().append(true).open(rules).unwrap();
        rules.write_all(b"host all all 127.0.0.0/8 trust\n").unwrap();
        drop(admin);
        self.stop_server();
        self.start_server();
    }

    /// Stops every process of the server where it stands, or lets it go on: no connection breaks, nobody answers.
    pub fn freeze_all(&self, is_frozen: bool) {
        let signal = if is_frozen { "-STOP" } else { "-CONT" };
        for pid in self.processes() {
            // A session that has ended meanwhile is none.
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

    /// Runs one of PostgreSQL's programs in the shell, with `bin` before the path, and gives what it printed.
    pub fn shell(&self, script: &str) -> String {
        let path = std::env::var("PATH").unwrap_or_default();
        let output = Command::new("bash")
            .args(["-euo", "pipefail", "-c", script])
            .env("PATH", format!("{}:{path}", self.programs.display()))
            .env("PGHOST", &self.folder)
            .env("PGUSER", "postgres")
            .env_remove("BITDASH_DATABASE_URL")
            .output()
            .unwrap();
        assert!(output.status.success(), "{script}: {}", super::text(&output));
        super::text(&output)
    }

    /// The folder of the server.
    pub fn folder(&self) -> &Path {
        &self.folder
    }
}

/// Every result was written once: what the pass counted is what there is.
pub fn check_nothing_lost_or_doubled(database: &Database) {
    let pass = "SELECT count(*), min(pass), bool_and(finished_at IS NOT NULL),
        sum(probed) = (SELECT count(*) FROM nodes) + (SELECT count(*) FROM candidates WHERE last_probed IS NOT NULL),
        sum(responded) = (SELECT count(*) FROM probes), sum(responded) = (SELECT count(*) FROM nodes),
        sum(new_addresses) = (SELECT count(*) FROM addresses) FROM passes";
    assert_eq!(database.rows(pass), ["1|1|t|t|t|t|t"]);
    assert_eq!(database.value("SELECT count(*) FROM candidates WHERE failures > 1"), "0");
}

/// A folder on a disk of `size` that belongs to this test alone. The test that asks for it is run again, by itself,
/// in namespaces of its own; there it gets the folder, and here, once that run is over, `None`.
///
/// # Panics
/// Where that run fails; and where this system allows no such disk though we are root.
pub fn on_a_small_disk(test: &str, size: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os("BITDASH_SMALL_DISK") {
        return Some(folder.into());
    }
    let folder = tempfile::Builder::new().prefix("bitdash-disk-").tempdir_in("/tmp").unwrap();
    // With a loopback of its own, too: another test's network may have the same ports.
    let mount =
        format!("ip link set lo up && mount -t tmpfs -o size={size},mode=1777 tmpfs \"$0\"");
    let (is_root, script) = match super::id("-u", None) {
        0 => (true, format!("{mount} && exec \"$@\"")),
        // The second namespace gives the user its own number back: PostgreSQL refuses root.
        uid => {
            let gid = super::id("-g", None);
            let back = format!("unshare -U --map-user={uid} --map-group={gid}");
            (false, format!("{mount} && exec {back} \"$@\""))
        }
    };
    let options = if is_root { "-mn" } else { "-rmn" };
    let unshared = |script: &str| {
        let mut command = Command::new("unshare");
        command.args([options, "--propagation", "private", "sh", "-c", script]).arg(folder.path());
        command
    };
    if !unshared(&mount).stderr(Stdio::null()).status().is_ok_and(|status| status.success()) {
        assert!(!is_root, "{test}: root may not mount a small disk here: the test cannot be made");
        say(&format!("{test}: NOT TESTED: this system allows a user no mount namespace"));
        return None;
    }
    let status = unshared(&script)
        .arg(std::env::current_exe().unwrap())
        .args(["--exact", test, "--nocapture"])
        .env("BITDASH_SMALL_DISK", folder.path())
        .status()
        .unwrap();
    assert!(status.success(), "{test}: it failed on its small disk: see above");
    None
}

/// Fills a disk to the last byte; what was taken is given back by removing the file.
pub fn fill(folder: &Path) -> PathBuf {
    let path = folder.join("filler");
    let mut file = fs::File::create(&path).unwrap();
    let mut piece = vec![0_u8; 1 << 20];
    while !piece.is_empty() {
        if file.write_all(&piece).is_err() {
            piece.truncate(piece.len() / 2);
        }
    }
    path
}
