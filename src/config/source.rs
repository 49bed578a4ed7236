//! `ConfigSource`: loads the configuration, at start and at every SIGHUP.

use std::cell::OnceCell;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

use super::{Config, ConfigError, DatabaseUrl};
use crate::sys::text_file;

/// Where the configuration is read from.
#[derive(Debug)]
pub struct ConfigSource {
    /// The file named with `-c` or [`FILE_VARIABLE`], if any: it must exist.
    named: Option<PathBuf>,
    /// The files that are tried without `-c`, the first one first.
    tried: Vec<PathBuf>,
    /// The value of [`URL_VARIABLE`] unless empty; masked by `Debug`.
    url: Option<Secret>,
    /// The file that was read, which from then on must stay.
    found: OnceCell<PathBuf>,
}

/// The environment variable that overrides `database.url`.
pub const URL_VARIABLE: &str = "BITDASH_DATABASE_URL";
/// The environment variable that names the configuration file.
pub const FILE_VARIABLE: &str = "BITDASH_CONFIG";

/// The configuration files without `-c` and [`FILE_VARIABLE`], the first one first.
pub const DEFAULT_FILES: [&str; 2] = ["bitdash.toml", "/etc/bitdash/bitdash.toml"];

/// Maximum size of a configuration file in bytes.
pub(super) const MAX_BYTES: u64 = 1_000_000;

struct Secret(OsString);

impl std::fmt::Debug for Secret {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("***")
    }
}

impl ConfigSource {
    /// A source of the file named with `-c`, else of [`FILE_VARIABLE`], else of the first of
    /// [`DEFAULT_FILES`] that exists, and of the process's environment.
    pub fn new(named: Option<PathBuf>) -> Self {
        let variable = || std::env::var_os(FILE_VARIABLE).filter(|file| !file.is_empty());
        let named = named.or_else(|| variable().map(PathBuf::from));
        Self::with_environment(named, std::env::var_os(URL_VARIABLE))
    }

    /// A source with the given value of [`URL_VARIABLE`].
    pub fn with_environment(named: Option<PathBuf>, url: Option<OsString>) -> Self {
        let url = url.filter(|url| !url.is_empty()).map(Secret);
        let tried = DEFAULT_FILES.map(PathBuf::from).to_vec();
        Self { named, tried, url, found: OnceCell::new() }
    }

    /// Reads and checks the configuration.
    ///
    /// Without any file every key has its default, which [`ConfigSource::notice`] reports.
    ///
    /// # Errors
    /// Every error in the file, or that in [`URL_VARIABLE`].
    pub fn load(&self) -> Result<Config, ConfigError> {
        let existing = || self.tried.iter().find(|file| file.exists());
        let path = self.found.get().or(self.named.as_ref()).or_else(existing);
        let mut config = match path {
            None => Config::default(),
            Some(path) => {
                let file = path.display().to_string();
                let wrong = |problem| ConfigError::File { file: file.clone(), problem };
                let bytes = text_file::read(path, MAX_BYTES).map_err(wrong)?;
                let text = std::str::from_utf8(text_file::without_bom(&bytes))
                    .map_err(|_| wrong("is not UTF-8 text".to_owned()))?;
                let path = self.found.get_or_init(|| path.clone());
                Config::parse(text, &file, path.parent().unwrap_or(Path::new("")))?
            }
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

    /// The configuration file in effect; `None` if the last [`ConfigSource::load`] found none.
    pub fn path(&self) -> Option<&Path> {
        self.found.get().map(PathBuf::as_path)
    }

    /// A note for the operator if the last [`ConfigSource::load`] found no file.
    pub fn notice(&self) -> Option<String> {
        let is_missing = self.path().is_none();
        is_missing
            .then(|| format!("no {}: every key has its default", DEFAULT_FILES.join(" and no ")))
    }

    /// What `database.url` comes from, for an error that may stem from it.
    pub fn origin_of_url(&self, config: &Config) -> String {
        match self.url {
            Some(_) => URL_VARIABLE.to_owned(),
            None => self.origin(config.database.url == Config::default().database.url),
        }
    }

    /// What `crawl.nodes_file` comes from.
    pub fn origin_of_nodes_file(&self, config: &Config) -> String {
        let directory = self.path().and_then(Path::parent).unwrap_or(Path::new(""));
        let default = Config::default().crawl.nodes_file;
        self.origin(config.crawl.nodes_file == directory.join(default))
    }

    fn origin(&self, is_default: bool) -> String {
        match self.path() {
            Some(path) if !is_default => path.display().to_string(),
            Some(path) => format!("the default, {} does not set it", path.display()),
            None => "the default, there is no configuration file".to_owned(),
        }
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
        assert_eq!(error(&path), format!("{name}: cannot be read: No such file or directory"));
        std::fs::write(&path, b"\xff\xfe").unwrap();
        assert_eq!(error(&path), format!("{name}: is not UTF-8 text"));
        std::fs::write(&path, vec![b'#'; 1_000_001]).unwrap();
        assert_eq!(error(&path), format!("{name}: is larger than 1 MB"));
        std::fs::write(&path, "\u{feff}[crawl]\r\nmax_sockets = 7\r\n").unwrap();
        assert_eq!(source(&path, None).load().unwrap().crawl.max_sockets, 7);
    }

    #[test]
    fn the_first_file_that_exists_is_read_and_must_stay() {
        let directory = tempfile::tempdir().unwrap();
        let files = ["here.toml", "etc.toml"].map(|file| directory.path().join(file));
        let source =
            || ConfigSource { tried: files.to_vec(), ..ConfigSource::with_environment(None, None) };
        let missing = source();
        assert_eq!(missing.load().unwrap(), Config::default());
        assert_eq!(
            missing.notice().unwrap(),
            "no bitdash.toml and no /etc/bitdash/bitdash.toml: every key has its default"
        );
        std::fs::write(&files[1], "[crawl]\nmax_sockets = 7\n").unwrap();
        let second = source();
        assert_eq!(second.load().unwrap().crawl.max_sockets, 7);
        assert_eq!((second.path(), second.notice()), (Some(files[1].as_path()), None));
        std::fs::write(&files[0], "[crawl]\nmax_sockets = 8\n").unwrap();
        assert_eq!(source().load().unwrap().crawl.max_sockets, 8);
        assert_eq!(second.load().unwrap().crawl.max_sockets, 7);
        std::fs::remove_file(&files[1]).unwrap();
        assert!(second.load().is_err());
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
