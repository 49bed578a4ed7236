//! `ConfigSource`: loads the configuration, at start and at every SIGHUP.

use std::cell::Cell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError, DatabaseUrl};
use crate::sys::text_file;

/// The file and the environment variable that the configuration is read from.
#[derive(Debug)]
pub struct ConfigSource {
    /// The file named with `-c`, if any.
    named: Option<PathBuf>,
    /// The value of [`URL_VARIABLE`] unless empty; masked by `Debug`.
    url: Option<Secret>,
    /// Whether the file has existed at any load.
    found: Cell<bool>,
}

/// The environment variable that overrides `database.url`.
pub const URL_VARIABLE: &str = "BITDASH_DATABASE_URL";

/// The configuration file without `-c`.
pub const DEFAULT_FILE: &str = "bitdash.toml";

/// Maximum size of a configuration file in bytes.
const MAX_BYTES: u64 = 1_000_000;

struct Secret(OsString);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl ConfigSource {
    /// A source of the file named with `-c`, or [`DEFAULT_FILE`] in the current directory, and of
    /// the process's environment.
    pub fn new(named: Option<PathBuf>) -> Self {
        Self::with_environment(named, std::env::var_os(URL_VARIABLE))
    }

    /// A source with the given value of [`URL_VARIABLE`].
    pub fn with_environment(named: Option<PathBuf>, url: Option<OsString>) -> Self {
        let url = url.filter(|url| !url.is_empty()).map(Secret);
        Self { named, url, found: Cell::new(false) }
    }

    /// Reads and checks the configuration.
    ///
    /// A file named with `-c` must exist. A missing [`DEFAULT_FILE`] counts as empty, which
    /// [`ConfigSource::notice`] reports; once it has been read, it must stay.
    ///
    /// # Errors
    /// The first error in the file or in [`URL_VARIABLE`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        let path = self.path();
        let file = path.display().to_string();
        let may_be_missing = self.named.is_none() && !self.found.get();
        let mut config = if may_be_missing && !path.exists() {
            Config::default()
        } else {
            let wrong = |problem| ConfigError::File { file: file.clone(), problem };
            let bytes = text_file::read(path, MAX_BYTES).map_err(wrong)?;
            let text = std::str::from_utf8(text_file::without_bom(&bytes))
                .map_err(|_| wrong("is not UTF-8 text".to_owned()))?;
            self.found.set(true);
            Config::parse(text, &file, path.parent().unwrap_or(Path::new("")))?
        };
        if let Some(Secret(url)) = &self.url {
            let parsed = url.to_str().and_then(|url| url.parse().ok());
            config.database.url = parsed.ok_or_else(|| ConfigError::Value {
                file: URL_VARIABLE.to_owned(),
                key: String::new(),
                value: "\"***\"".to_owned(),
                allowed: DatabaseUrl::ALLOWED.to_owned(),
            })?;
        }
        Ok(config)
    }

    /// Path of the configuration file.
    pub fn path(&self) -> &Path {
        self.named.as_deref().unwrap_or(Path::new(DEFAULT_FILE))
    }

    /// A note for the operator if the last [`ConfigSource::load`] did not find the default file.
    pub fn notice(&self) -> Option<String> {
        let missing = self.named.is_none() && !self.found.get();
        missing.then(|| {
            format!("{DEFAULT_FILE}: no such file in this directory, every key has its default")
        })
    }

    /// Whether the environment overrides `database.url`.
    pub fn url_from_environment(&self) -> bool {
        self.url.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn source(path: &Path, url: Option<&str>) -> ConfigSource {
        ConfigSource::with_environment(Some(path.to_owned()), url.map(OsString::from))
    }

    #[test]
    fn the_environment_overrides_the_file_unless_the_variable_is_empty() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b.toml");
        std::fs::write(&path, "[database]\nurl = \"postgresql://h/file\"").unwrap();
        let url = |env| source(&path, env).load().unwrap().database.url.expose().to_owned();
        assert_eq!(url(Some("postgresql://h/env")), "postgresql://h/env");
        assert_eq!(url(None), "postgresql://h/file");
        assert_eq!(url(Some("")), "postgresql://h/file");
    }

    #[test]
    fn an_invalid_environment_variable_is_named_but_never_shown() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b.toml");
        std::fs::write(&path, "").unwrap();
        let source = source(&path, Some("no url but a s3cret"));
        let error = source.load().unwrap_err().to_string();
        assert!(
            error.starts_with("BITDASH_DATABASE_URL = \"***\": must be a PostgreSQL URL"),
            "{error}"
        );
        assert!(!error.contains("s3cret") && !format!("{source:?}").contains("s3cret"));
    }

    #[test]
    fn a_named_file_must_exist_and_be_text_of_at_most_1_mb() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b.toml");
        let error = |path: &Path| source(path, None).load().unwrap_err().to_string();
        let name = path.display().to_string();
        assert_eq!(error(&path), format!("{name}: cannot be read: no such file or directory"));
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert_eq!(error(&path), format!("{name}: is not UTF-8 text"));
        std::fs::write(&path, vec![b'#'; 1_000_001]).unwrap();
        assert_eq!(error(&path), format!("{name}: is larger than 1 MB"));
        std::fs::write(&path, "\u{feff}[crawl]\r\nmax_sockets = 7\r\n").unwrap();
        assert_eq!(source(&path, None).load().unwrap().crawl.max_sockets, 7);
    }

    #[test]
    fn relative_paths_are_resolved_against_the_files_directory() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b.toml");
        std::fs::write(
            &path,
            "[filter]\nexclude_files = [\"drop.txt\", \"/etc/drop\"]\n[log]\nfile = \"a/b.log\"\n",
        )
        .unwrap();
        let config = source(&path, None).load().unwrap();
        assert_eq!(config.crawl.nodes_file, directory.path().join("nodes.txt"));
        let lists = [directory.path().join("drop.txt"), PathBuf::from("/etc/drop")];
        assert_eq!(config.filter.exclude_files, lists);
        assert_eq!(config.log.file, Some(directory.path().join("a/b.log")));
    }
}
