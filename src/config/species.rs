//! The rules of species: `species.toml` beside the configuration file, else the built-in ones.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::source::MAX_BYTES;
use super::{ConfigError, ConfigSource};
use crate::sys::text_file;
use bitdash_core::lookup::species::Rules;

/// Name of the operator's file.
pub const SPECIES_FILE: &str = "species.toml";

/// The rules in effect.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct SpeciesRules {
    /// The rules.
    pub rules: Arc<Rules>,
    /// The operator's file that they are from; `None` for the built-in rules.
    pub file: Option<PathBuf>,
}

impl ConfigSource {
    /// Where the operator's rules are, if there are any.
    pub fn species_file(&self) -> PathBuf {
        let directory = self.path().and_then(Path::parent).unwrap_or(Path::new(""));
        directory.join(SPECIES_FILE)
    }

    /// Reads the rules of species. Call it after [`ConfigSource::load`], which finds the directory.
    ///
    /// # Errors
    /// The file is there and cannot be read, or the errors in it.
    pub fn load_species(&self) -> Result<SpeciesRules, ConfigError> {
        let path = self.species_file();
        let is_missing = |error: &io::Error| error.kind() == io::ErrorKind::NotFound;
        if path.symlink_metadata().is_err_and(|error| is_missing(&error)) {
            return Ok(SpeciesRules { rules: Rules::builtin(), file: None });
        }
        let file = path.display().to_string();
        let wrong = |problem| ConfigError::File { file: file.clone(), problem };
        let bytes = text_file::read(&path, MAX_BYTES).map_err(wrong)?;
        let text = std::str::from_utf8(text_file::without_bom(&bytes))
            .map_err(|_| wrong("is not UTF-8 text".to_owned()))?;
        let rules = Rules::parse(text).or_else(|errors| {
            let error = |error: bitdash_core::lookup::species::RuleError| ConfigError::Line {
                file: file.clone(),
                line: error.line,
                problem: error.problem,
            };
            ConfigError::all(errors.into_iter().map(error).collect()).map(|()| Rules::default())
        })?;
        Ok(SpeciesRules { rules: Arc::new(rules), file: Some(path) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const RULES: &str =
        "[species]\nmine = { meaning = \"x\" }\n[[rule]]\nspecies = \"mine\"\nname = \"a\"\n";

    #[test]
    fn the_file_beside_the_configuration_replaces_the_built_in_rules() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b.toml");
        std::fs::write(&path, "").unwrap();
        let source = ConfigSource::with_environment(Some(path), None);
        source.load().unwrap();
        let builtin = source.load_species().unwrap();
        assert_eq!(builtin, SpeciesRules { rules: Rules::builtin(), file: None });
        let file = directory.path().join("species.toml");
        std::fs::write(&file, format!("\u{feff}{RULES}")).unwrap();
        let own = source.load_species().unwrap();
        assert_eq!(own.file.as_ref(), Some(&file));
        assert_eq!(&*own.rules.classify(Some("/a:1/"), 1, 1).species, "mine");
        assert_eq!(&*own.rules.classify(Some("/Satoshi:28.0.0/"), 1, 1).species, "unknown");
        std::fs::remove_file(&file).unwrap();
        assert_eq!(source.load_species().unwrap(), builtin);
    }

    #[test]
    fn a_wrong_file_is_reported_with_its_lines_and_never_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("b.toml");
        std::fs::write(&path, "").unwrap();
        let source = ConfigSource::with_environment(Some(path), None);
        source.load().unwrap();
        let file = directory.path().join("species.toml");
        let name = file.display();
        let error = || source.load_species().unwrap_err();
        std::fs::write(&file, RULES.replace("name", "nmae").replace("mine =", "1/2 =")).unwrap();
        assert!(error().to_string().starts_with(&format!("{name}:2:")), "{}", error());
        std::fs::write(&file, format!("{RULES}nmae = 7\nprotocol = \"x\"\n")).unwrap();
        let lines = error().lines();
        assert!(lines[0].starts_with(&format!("{name}:6: \"nmae\": no such key;")), "{lines:?}");
        assert_eq!(lines[1], format!("{name}:7: protocol: must be 32-bit numbers"));
        assert_eq!(lines.len(), 2);
        assert!(!error().to_string().contains('\n'), "one line in the log");
        std::fs::write(&file, b"\xff").unwrap();
        assert_eq!(error().to_string(), format!("{name}: is not UTF-8 text"));
        std::fs::write(&file, vec![b'#'; 1_000_001]).unwrap();
        assert_eq!(error().to_string(), format!("{name}: is larger than 1 MB"));
        std::fs::remove_file(&file).unwrap();
        std::os::unix::fs::symlink("nowhere", &file).unwrap();
        let missing = format!("{name}: cannot be read: No such file or directory");
        assert_eq!(error().to_string(), missing, "a link to nothing");
    }
}
