//! Memory, processor time and open files of the process, from `/proc/self`, and the limit of open
//! files.

use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// The resident memory in bytes; `None` where `/proc` is not there.
pub fn resident_bytes() -> Option<u64> {
    resident_of(&std::fs::read_to_string("/proc/self/status").ok()?)
}

/// The processor time used by all threads so far; `None` where `/proc` is not there.
pub fn cpu_time() -> Option<Duration> {
    cpu_of(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// Raises the soft limit of open files to the hard one, and returns what holds then; `None` is no
/// limit.
///
/// # Errors
/// The operating system refuses; the soft limit that holds is in [`open_files`].
pub fn raise_open_files() -> std::io::Result<Option<u64>> {
    let limit = getrlimit(Resource::Nofile);
    if limit.current != limit.maximum {
        setrlimit(Resource::Nofile, Rlimit { current: limit.maximum, ..limit })?;
    }
    Ok(open_files())
}

/// The soft limit of open files; `None` is no limit.
pub fn open_files() -> Option<u64> {
    getrlimit(Resource::Nofile).current
}

/// Number of descriptors inherited from the parent. Call it before many files are open: the first
/// call counts them.
pub fn inherited_files() -> u64 {
    static INHERITED: OnceLock<u64> = OnceLock::new();
    *INHERITED.get_or_init(|| {
        let taken = std::fs::read_dir("/proc/self/fd").map_or(0, |files| files.count() as u64);
        taken.saturating_sub(OWN_FILES)
    })
}

/// Number of descriptors that the crawler itself has open at its start.
const OWN_FILES: u64 = 16;

/// `/proc/self/status` gives kB, whatever the size of a page is; on ARM boards it may be 4, 16 or
/// 64 kB.
fn resident_of(status: &str) -> Option<u64> {
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kilobytes: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kilobytes.checked_mul(1024)
}

/// Fields 14 and 15 of `/proc/self/stat`, user and system time in ticks. They are counted behind
/// the last parenthesis, since the second field, the program's name, may hold spaces and
/// parentheses.
fn cpu_of(stat: &str) -> Option<Duration> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_ascii_whitespace().skip(11);
    let user: u64 = fields.next()?.parse().ok()?;
    let system: u64 = fields.next()?.parse().ok()?;
    Some(Duration::from_millis(user.checked_add(system)?.checked_mul(1_000 / TICKS_PER_SECOND)?))
}

/// `USER_HZ`: what Linux shows to programs, on every architecture that the crawler is built for.
const TICKS_PER_SECOND: u64 = 100;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_where_the_kernel_writes_them() {
        let status = "Name:\tbitdash\nVmHWM:\t   99999 kB\nVmRSS:\t   42188 kB\nThreads:\t2\n";
        assert_eq!(resident_of(status), Some(42_188 * 1024));
        assert_eq!(resident_of("Name:\tkthread\n"), None);
        let stat =
            "4242 (odd ) name (x) S 1 4242 4242 0 -1 4194560 900 0 0 0 123 45 7 8 20 0 2 0 99 1 2";
        assert_eq!(cpu_of(stat), Some(Duration::from_millis(1_680)));
        assert_eq!(cpu_of("4242 (x) S 1"), None);
    }

    #[test]
    fn a_busy_process_uses_memory_and_time() {
        let before = cpu_time().unwrap();
        let mut block = vec![0u8; 32 << 20];
        let mut sum = 0u64;
        for round in 0..20 {
            for byte in block.iter_mut() {
                *byte = byte.wrapping_mul(31).wrapping_add(round);
                sum = sum.wrapping_add(u64::from(*byte));
            }
        }
        assert!(std::hint::black_box(sum) > 0);
        // Other tests of this process allocate meanwhile: only the block itself is certain.
        assert!(resident_bytes().unwrap() >= block.len() as u64);
        assert!(cpu_time().unwrap() > before);
    }

    #[test]
    fn the_soft_limit_rises_to_the_hard_one() {
        let hard = getrlimit(Resource::Nofile).maximum;
        // One less harms no other test of this process while it holds.
        let lower = hard.map_or(u64::from(u32::MAX), |hard| hard.saturating_sub(1));
        setrlimit(Resource::Nofile, Rlimit { current: Some(lower), maximum: hard }).unwrap();
        assert_eq!(open_files(), Some(lower));
        assert_eq!(raise_open_files().unwrap(), hard);
        assert_eq!(open_files(), hard);
    }
}
