//! `Directory`: the files of the website, each replaced as a whole.
//!
//! Invariants:
//! 1. A file appears whole or not at all: it is written beside its place and renamed.
//! 2. A file with the same bytes is left alone.
//! 3. Only files that an earlier run wrote are removed, after everything else was written.
//! 4. One process at a time writes into a directory.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File, TryLockError};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

/// The list of the files, which says that the directory is ours.
const MANIFEST: &str = ".bitdash-site";
const HEADING: &str = "bitdash-site 1";
/// What a fresh file system has in its root.
const IGNORED: &[&str] = &["lost+found"];

/// Why the website cannot be written.
#[derive(Debug)]
pub enum WriteError {
    /// A file or directory cannot be written.
    File(PathBuf, io::Error),
    /// The directory contains files that bitdash did not write.
    Foreign(PathBuf),
    /// Another process is writing into it.
    Busy(PathBuf),
}

impl std::fmt::Display for WriteError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::File(path, error) => write!(f, "{}: cannot be written: {error}", path.display()),
            Self::Foreign(path) => write!(
                f,
                "{}: contains files that bitdash did not write: name an empty directory",
                path.display()
            ),
            Self::Busy(path) => {
                write!(f, "{}: another bitdash is writing the website there", path.display())
            }
        }
    }
}

impl std::error::Error for WriteError {}

/// What was done.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct WriteReport {
    /// Number of files of the website.
    pub files: usize,
    /// Number of files that were written.
    pub written: usize,
    /// Their size.
    pub bytes: usize,
    /// Number of files that were removed.
    pub removed: usize,
}

/// The directory of the website.
#[derive(Debug)]
pub struct Directory {
    root: PathBuf,
    /// Holds the lock.
    _lock: File,
    /// New files are noted before they are written, so that a killed run leaves nothing unknown.
    journal: File,
    /// The files of earlier runs.
    old: BTreeSet<String>,
    /// The files of this run.
    files: BTreeSet<String>,
    state: BTreeMap<String, String>,
    report: WriteReport,
}

impl Directory {
    /// Opens the directory, and creates it if it is missing.
    ///
    /// # Errors
    /// It cannot be written, is not ours, or another process is writing it.
    pub fn open(root: &Path) -> Result<Self, WriteError> {
        let wrong = |path: &Path, error| WriteError::File(path.to_owned(), error);
        fs::create_dir_all(root).map_err(|error| wrong(root, error))?;
        let lock = File::open(root).map_err(|error| wrong(root, error))?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(WriteError::Busy(root.to_owned())),
            // A file system without locks.
            Err(TryLockError::Error(_)) => {}
        }
        let manifest = root.join(MANIFEST);
        let text = match fs::read_to_string(&manifest) {
            Ok(text) if text.starts_with(HEADING) => text,
            _ => {
                check_empty(root)?;
                String::new()
            }
        };
        let (mut old, mut state) = (BTreeSet::new(), BTreeMap::new());
        for line in text.lines().skip(1) {
            match line.split_once(' ') {
                Some(("file", path)) if is_safe(path) => drop(old.insert(path.to_owned())),
                Some((key, value)) => drop(state.insert(key.to_owned(), value.to_owned())),
                None => {}
            }
        }
        let journal = File::options().create(true).append(true).open(&manifest);
        let mut journal = journal.map_err(|error| wrong(&manifest, error))?;
        if text.is_empty() {
            let heading = format!("{HEADING}\n");
            journal.write_all(heading.as_bytes()).map_err(|error| wrong(&manifest, error))?;
        }
        Ok(Self {
            root: root.to_owned(),
            _lock: lock,
            journal,
            old,
            files: BTreeSet::new(),
            state,
            report: WriteReport::default(),
        })
    }

    /// A value that an earlier run left.
    pub fn state(&self, key: &str) -> Option<&str> {
        self.state.get(key).map(String::as_str)
    }

    /// Leaves a value, one word, to later runs.
    pub fn set_state(&mut self, key: &str, value: String) {
        self.state.insert(key.to_owned(), value);
    }

    /// Writes a file. Its path consists of letters, digits and `.-_/`.
    ///
    /// # Errors
    /// It cannot be written: the former one is unchanged.
    pub fn put(&mut self, path: &str, bytes: &[u8]) -> Result<(), WriteError> {
        debug_assert!(is_safe(path), "{path}");
        let target = self.root.join(path);
        let is_new = self.files.insert(path.to_owned()) && !self.old.contains(path);
        if is_same(&target, bytes) {
            return Ok(());
        }
        let temporary = temporary_of(&target);
        let write = || -> io::Result<()> {
            if is_new {
                (&self.journal).write_all(format!("file {path}\n").as_bytes())?;
            }
            if let Some(directory) = target.parent() {
                fs::create_dir_all(directory)?;
            }
            fs::write(&temporary, bytes)?;
            fs::rename(&temporary, &target)
        };
        if let Err(error) = write() {
            let _ = fs::remove_file(&temporary);
            return Err(WriteError::File(target, error));
        }
        self.report.written += 1;
        self.report.bytes += bytes.len();
        Ok(())
    }

    /// Whether a file is part of the website by now.
    pub fn has(&self, path: &str) -> bool {
        self.files.contains(path)
    }

    /// Where a file is.
    pub fn path_of(&self, path: &str) -> PathBuf {
        self.root.join(path)
    }

    /// Keeps files of earlier runs that this run does not write.
    pub fn keep(&mut self, is_kept: impl Fn(&str) -> bool) {
        let kept = self.old.iter().filter(|path| is_kept(path)).cloned();
        self.files.extend(kept);
    }

    /// Removes the files that are no longer part of the website.
    ///
    /// # Errors
    /// A file cannot be removed, or the list of files cannot be written.
    pub fn finish(mut self) -> Result<WriteReport, WriteError> {
        for path in self.old.difference(&self.files) {
            let target = self.root.join(path);
            let _ = fs::remove_file(temporary_of(&target));
            match fs::remove_file(&target) {
                Ok(()) => self.report.removed += 1,
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(WriteError::File(target, error)),
            }
            // Directories go with their last file.
            for parent in target.ancestors().skip(1).take_while(|parent| *parent != self.root) {
                if fs::remove_dir(parent).is_err() {
                    break;
                }
            }
        }
        // A killed run may have left one beside a file that has not changed since.
        for path in &self.files {
            let _ = fs::remove_file(temporary_of(&self.path_of(path)));
        }
        let mut text = format!("{HEADING}\n");
        self.state.iter().for_each(|(key, value)| text += &format!("{key} {value}\n"));
        self.files.iter().for_each(|path| text += &format!("file {path}\n"));
        let manifest = self.root.join(MANIFEST);
        let temporary = temporary_of(&manifest);
        let written = fs::write(&temporary, text).and_then(|()| fs::rename(&temporary, &manifest));
        if let Err(error) = written {
            let _ = fs::remove_file(&temporary);
            return Err(WriteError::File(manifest, error));
        }
        self.report.files = self.files.len();
        Ok(self.report)
    }
}

fn temporary_of(target: &Path) -> PathBuf {
    let mut name = target.as_os_str().to_owned();
    name.push(".tmp");
    PathBuf::from(name)
}

fn is_same(path: &Path, bytes: &[u8]) -> bool {
    let length = fs::metadata(path).map(|metadata| metadata.len());
    length.is_ok_and(|length| length == bytes.len() as u64)
        && fs::read(path).is_ok_and(|old| old == bytes)
}

/// Whether a path of the list stays in the directory.
fn is_safe(path: &str) -> bool {
    let is_plain = |c: char| c.is_ascii_alphanumeric() || ".-_/".contains(c);
    let is_part = |part: &str| !part.is_empty() && !part.starts_with('.');
    path.chars().all(is_plain) && path.split('/').all(is_part)
}

fn check_empty(root: &Path) -> Result<(), WriteError> {
    let entries = fs::read_dir(root);
    let entries = entries.map_err(|error| WriteError::File(root.to_owned(), error))?;
    let is_foreign = |name: &str| !IGNORED.contains(&name) && !name.starts_with(MANIFEST);
    let mut names = entries.flatten().map(|entry| entry.file_name());
    if names.any(|name| is_foreign(&name.to_string_lossy())) {
        return Err(WriteError::Foreign(root.to_owned()));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(root: &Path) -> Vec<String> {
        let mut names: Vec<String> = fs::read_dir(root)
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn files_are_replaced_left_alone_or_removed() {
        let root = tempfile::tempdir().unwrap();
        let mut first = Directory::open(root.path()).unwrap();
        first.put("a.html", b"one").unwrap();
        first.put("node/x.html", b"x").unwrap();
        first.set_state("full_at", "7".to_owned());
        let report = first.finish().unwrap();
        assert_eq!((report.files, report.written, report.removed), (2, 2, 0));
        let mut second = Directory::open(root.path()).unwrap();
        assert_eq!(second.state("full_at"), Some("7"));
        second.put("a.html", b"one").unwrap();
        let report = second.finish().unwrap();
        assert_eq!((report.files, report.written, report.removed), (1, 0, 1));
        assert_eq!(names(root.path()), [".bitdash-site", "a.html"]);
    }

    #[test]
    fn a_run_that_was_killed_leaves_nothing_that_a_later_one_does_not_know() {
        let root = tempfile::tempdir().unwrap();
        let mut killed = Directory::open(root.path()).unwrap();
        killed.put("node/x.html", b"x").unwrap();
        fs::write(root.path().join("node/x.html.tmp"), "ha").unwrap();
        drop(killed);
        let mut next = Directory::open(root.path()).unwrap();
        next.put("a.html", b"one").unwrap();
        next.finish().unwrap();
        assert_eq!(names(root.path()), [".bitdash-site", "a.html"]);
        fs::write(root.path().join("a.html.tmp"), "on").unwrap();
        let mut last = Directory::open(root.path()).unwrap();
        last.put("a.html", b"one").unwrap();
        last.finish().unwrap();
        assert_eq!(names(root.path()), [".bitdash-site", "a.html"]);
    }

    #[test]
    fn files_of_others_are_never_touched() {
        let root = tempfile::tempdir().unwrap();
        fs::write(root.path().join("index.html"), "mine").unwrap();
        assert!(matches!(Directory::open(root.path()), Err(WriteError::Foreign(_))));
        let ours = tempfile::tempdir().unwrap();
        Directory::open(ours.path()).unwrap().finish().unwrap();
        fs::write(ours.path().join("mine.txt"), "mine").unwrap();
        let manifest = ours.path().join(MANIFEST);
        let text = fs::read_to_string(&manifest).unwrap();
        fs::write(&manifest, text + "file ../mine.txt\nfile .hidden\nfile /etc/x\n").unwrap();
        Directory::open(ours.path()).unwrap().finish().unwrap();
        assert_eq!(names(ours.path()), [".bitdash-site", "mine.txt"]);
    }

    #[test]
    fn a_second_writer_is_refused() {
        let root = tempfile::tempdir().unwrap();
        let first = Directory::open(root.path()).unwrap();
        assert!(matches!(Directory::open(root.path()), Err(WriteError::Busy(_))));
        drop(first);
        Directory::open(root.path()).unwrap();
    }

    #[test]
    fn a_file_that_cannot_be_written_is_named_and_the_old_one_stays() {
        let root = tempfile::tempdir().unwrap();
        let mut site = Directory::open(root.path()).unwrap();
        site.put("a", b"file").unwrap();
        let error = site.put("a/b.html", b"x").unwrap_err().to_string();
        assert!(error.contains("a/b.html: cannot be written: "), "{error}");
        assert_eq!(fs::read(root.path().join("a")).unwrap(), b"file");
    }
}
