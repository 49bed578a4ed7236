//! Finds and opens the files that `geo.country_db` and `geo.asn_db` name.

use std::fs::{self, OpenOptions};
use std::io::Read;
use std::net::Ipv4Addr;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::rc::Rc;

use bitdash_core::vocabulary::time::UnixTime;

use super::{Database, Place, Source};
use crate::config::{GeoConfig, GeoFile};
use crate::db::timestamp::Timestamp;
use crate::sys::text_file::{O_NONBLOCK, cause};

/// What is looked up.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Kind {
    /// The country: `geo.country_db`.
    Country,
    /// The autonomous system: `geo.asn_db`.
    Network,
}

/// Files that `"auto"` chooses from, and the directory whose .mmdb files it takes as well.
const AUTO_FILES: [&str; 2] =
    ["/var/lib/location/database.db", "/usr/share/libloc-location/location.db"];
const AUTO_DIRECTORY: &str = "/usr/share/GeoIP";
/// Maximum number of files in that directory that are looked at.
const MAX_AUTO_FILES: usize = 100;
/// Maximum size of a file in bytes.
const MAX_BYTES: u64 = 256_000_000;

/// A file that was read.
pub struct PlaceFile {
    path: PathBuf,
    version: String,
    database: Database,
}

impl PlaceFile {
    fn read(path: &Path) -> Result<Self, String> {
        let unreadable = |error| format!("cannot be read: {}", cause(&error));
        // A named pipe must not block.
        let mut options = OpenOptions::new();
        let file = options.read(true).custom_flags(O_NONBLOCK).open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err("is no regular file".to_owned());
        }
        if metadata.len() > MAX_BYTES {
            return Err(format!("is larger than {} MB", MAX_BYTES / 1_000_000));
        }
        let mut bytes = Vec::with_capacity(usize::try_from(metadata.len()).unwrap_or(0));
        file.take(metadata.len()).read_to_end(&mut bytes).map_err(unreadable)?;
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        Ok(Self {
            path: path.to_owned(),
            version: format!(
                "{} {} {}.{:09} {}",
                path.display(),
                metadata.len(),
                metadata.mtime(),
                metadata.mtime_nsec(),
                metadata.ino()
            ),
            database: Database::open(&name, bytes)?,
        })
    }

    /// Its path, size, time and inode.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// Where it comes from.
    pub fn source(&self) -> Source {
        self.database.source()
    }

    /// Looks an address up.
    ///
    /// # Errors
    /// The file is broken there: a line that names it.
    pub fn look_up(&self, ip: Ipv4Addr) -> Result<Place, String> {
        self.database.look_up(ip).map_err(|error| format!("{} {error}", self.path.display()))
    }

    /// A line if it is too old.
    fn age_warning(&self, now: UnixTime) -> Option<String> {
        let built_at = self.source().built_at;
        let days = i64::try_from(now.since(built_at).as_secs() / 86_400).unwrap_or(i64::MAX);
        (days > self.database.max_age_days()).then(|| {
            let date = Timestamp(built_at).to_date();
            format!("{} is of {date}, {days} days old", self.path.display())
        })
    }
}

/// What a kind is looked up in.
#[derive(Clone)]
pub enum Lookup {
    /// A file.
    File(Rc<PlaceFile>),
    /// Nothing, as configured: places of before are removed.
    Nothing,
    /// A file is missing or broken: places of before are kept.
    Unusable,
}

/// The files of both kinds.
pub struct Places {
    /// Where countries are looked up.
    pub country: Lookup,
    /// Where networks are looked up.
    pub network: Lookup,
    /// What an operator should know, a line each.
    pub warnings: Vec<String>,
}

/// Opens the files that the configuration names.
pub fn open(geo: &GeoConfig, now: UnixTime) -> Places {
    open_with(geo, now, &auto_files())
}

fn open_with(geo: &GeoConfig, now: UnixTime, auto: &[PathBuf]) -> Places {
    let mut opener = Opener { now, auto, used: Vec::new(), warnings: Vec::new() };
    let country = opener.open(Kind::Country, &geo.country_db);
    let network = opener.open(Kind::Network, &geo.asn_db);
    Places { country, network, warnings: opener.warnings }
}

struct Opener<'o> {
    now: UnixTime,
    /// The newest first.
    auto: &'o [PathBuf],
    /// A file may have both kinds.
    used: Vec<Rc<PlaceFile>>,
    warnings: Vec<String>,
}

impl Opener<'_> {
    fn open(&mut self, kind: Kind, file: &GeoFile) -> Lookup {
        let found = match file {
            GeoFile::Nothing => return Lookup::Nothing,
            GeoFile::Auto => self.newest(kind),
            GeoFile::Path(path) => self.read(path),
        };
        let Some(file) = found else { return Lookup::Unusable };
        if !file.database.has(kind) {
            let what = match kind {
                Kind::Country => "geo.country_db: {} has no countries",
                Kind::Network => "geo.asn_db: {} has no networks",
            };
            self.warn(what.replace("{}", &file.path.display().to_string()));
            return Lookup::Unusable;
        }
        if let Some(warning) = file.age_warning(self.now) {
            self.warn(warning);
        }
        if !self.used.iter().any(|used| Rc::ptr_eq(used, &file)) {
            self.used.push(Rc::clone(&file));
        }
        Lookup::File(file)
    }

    /// The newest file that has this kind.
    fn newest(&mut self, kind: Kind) -> Option<Rc<PlaceFile>> {
        let files = self.auto;
        let found =
            files.iter().find_map(|path| self.read(path).filter(|file| file.database.has(kind)));
        if found.is_none() && self.warnings.is_empty() {
            let none = "no file of countries and networks is installed: \
                        the package libloc-database has one";
            self.warn(none.to_owned());
        }
        found
    }

    fn read(&mut self, path: &Path) -> Option<Rc<PlaceFile>> {
        if let Some(file) = self.used.iter().find(|file| file.path == *path) {
            return Some(Rc::clone(file));
        }
        match PlaceFile::read(path) {
            Ok(file) => Some(Rc::new(file)),
            Err(error) => {
                self.warn(format!("{} {error}", path.display()));
                None
            }
        }
    }

    fn warn(&mut self, warning: String) {
        if !self.warnings.contains(&warning) {
            self.warnings.push(warning);
        }
    }
}

/// The files for `"auto"`, the newest first.
fn auto_files() -> Vec<PathBuf> {
    let entries = fs::read_dir(AUTO_DIRECTORY).into_iter().flatten().flatten();
    let mmdb = entries.map(|entry| entry.path()).take(MAX_AUTO_FILES);
    let mmdb = mmdb.filter(|path| path.extension().is_some_and(|ending| ending == "mmdb"));
    newest_first(AUTO_FILES.map(PathBuf::from).into_iter().chain(mmdb))
}

fn newest_first(files: impl Iterator<Item = PathBuf>) -> Vec<PathBuf> {
    let dated = files.filter_map(|path| {
        let metadata = fs::metadata(&path).ok()?;
        Some(((metadata.mtime(), metadata.mtime_nsec()), path))
    });
    let mut dated: Vec<_> = dated.collect();
    dated.sort_by(|a, b| b.cmp(a));
    dated.into_iter().map(|(_, path)| path).collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::mmdb::tests::countries_of;
    use super::*;

    /// A database of libloc, made on the day [`BUILT_AT`].
    const SMALL: &[u8] = include_bytes!("../../fuzz/corpus/libloc/small");
    const BUILT_AT: UnixTime = UnixTime::from_secs(1_790_000_000);
    const DAY: Duration = Duration::from_secs(86_400);

    fn path(lookup: &Lookup) -> &Path {
        match lookup {
            Lookup::File(file) => &file.path,
            Lookup::Nothing => Path::new("nothing"),
            Lookup::Unusable => Path::new("unusable"),
        }
    }

    /// Files of a directory, each a day newer than the one before.
    fn write(directory: &Path, files: &[(&str, &[u8])]) -> Vec<PathBuf> {
        let files = files.iter().enumerate().map(|(day, (name, bytes))| {
            let path = directory.join(name);
            fs::write(&path, bytes).unwrap();
            let time = std::time::UNIX_EPOCH + DAY * u32::try_from(20_000 + day).unwrap();
            fs::File::options().write(true).open(&path).unwrap().set_modified(time).unwrap();
            path
        });
        files.collect()
    }

    const AUTO: GeoConfig = GeoConfig { country_db: GeoFile::Auto, asn_db: GeoFile::Auto };

    #[test]
    fn auto_takes_the_newest_file_that_has_the_kind() {
        let directory = tempfile::tempdir().unwrap();
        let mmdb = countries_of("DBIP-Country-Lite", "DE");
        let files = write(
            directory.path(),
            &[("old.db", SMALL), ("new.db", SMALL), ("c.mmdb", &mmdb), ("broken.mmdb", b"")],
        );
        let missing = directory.path().join("missing.db");
        let auto = newest_first(files.iter().cloned().chain([missing]));
        assert_eq!(auto.len(), 4);
        let places = open_with(&AUTO, BUILT_AT, &auto);
        assert_eq!((path(&places.country), path(&places.network)), (&*files[2], &*files[1]));
        let [warning] = &places.warnings[..] else { panic!("{:?}", places.warnings) };
        assert!(warning.contains("broken.mmdb is broken"), "{warning}");

        let none = open_with(&AUTO, BUILT_AT, &[]);
        assert_eq!((path(&none.country), none.warnings.len()), (Path::new("unusable"), 1));
    }

    #[test]
    fn one_file_is_read_once_and_an_old_one_is_reported_once() {
        let directory = tempfile::tempdir().unwrap();
        let mmdb = countries_of("GeoLite2-Country", "DE");
        let files = write(directory.path(), &[("a.db", SMALL), ("b.mmdb", &mmdb)]);
        let at = |geo: &GeoConfig, days| open_with(geo, BUILT_AT.plus(DAY * days), &files[..1]);
        let fresh = at(&AUTO, 400);
        assert_eq!(fresh.warnings, [""; 0]);
        let (Lookup::File(one), Lookup::File(other)) = (&fresh.country, &fresh.network) else {
            panic!("both are there")
        };
        assert!(Rc::ptr_eq(one, other));
        let old = format!("{} is of 2026-09-21, 401 days old", files[0].display());
        assert_eq!(at(&AUTO, 401).warnings, [old]);

        let maxmind = GeoFile::Path(files[1].clone());
        let maxmind = GeoConfig { country_db: maxmind, asn_db: GeoFile::Nothing };
        assert_eq!(at(&maxmind, 30).warnings, [""; 0]);
        assert_eq!(at(&maxmind, 31).warnings.len(), 1);
    }

    #[test]
    fn a_file_without_the_kind_and_a_pipe_are_refused() {
        let directory = tempfile::tempdir().unwrap();
        let mmdb = countries_of("DBIP-Country-Lite", "DE");
        let files = write(directory.path(), &[("a.mmdb", &mmdb)]);
        let geo = |file: &Path| GeoConfig {
            country_db: GeoFile::Nothing,
            asn_db: GeoFile::Path(file.to_owned()),
        };
        let places = open_with(&geo(&files[0]), BUILT_AT, &[]);
        assert_eq!(path(&places.network), Path::new("unusable"));
        let expected = format!("geo.asn_db: {} has no networks", files[0].display());
        assert_eq!(places.warnings, [expected]);
        let pipe = directory.path().join("pipe");
        let made = std::process::Command::new("mkfifo").arg(&pipe).status().unwrap();
        assert!(made.success());
        let places = open_with(&geo(&pipe), BUILT_AT, &[]);
        assert_eq!(places.warnings, [format!("{} is no regular file", pipe.display())]);
    }
}
