//! Parser of species.toml.
//!
//! Sans-I/O: a pure function. Its bounds keep the time of a match short, whatever the file says.

use std::ops::Range;
use std::sync::Arc;

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::agent::CoreVersions;
use super::rule::{Condition, CoreClaim, Rule};
use super::{RuleError, Rules, Species, UNKNOWN, Versions};
use crate::lookup::services;

const MAX_SPECIES: usize = 100;
const MAX_RULES: usize = 1_000;
/// Maximum number of texts in all rules.
const MAX_TEXTS: usize = 2_000;
/// Maximum length of a text, and of a meaning.
const MAX_LENGTH: usize = 256;
const MAX_MEANING_LENGTH: usize = 80;
/// Maximum length of the name of a species.
const MAX_WORD_LENGTH: usize = 24;
/// Maximum number of errors reported.
const MAX_ERRORS: usize = 20;
/// The newest version of Core that two digits can express.
const MAX_VERSION: i64 = 99;

type Value<'t> = Spanned<DeValue<'t>>;

/// Reads the rules, or returns the errors in the order of their lines.
pub(super) fn parse(text: &str) -> Result<Rules, Vec<RuleError>> {
    let mut reader = Reader { text, errors: Vec::new(), texts: 0 };
    let rules = match DeTable::parse(text) {
        Ok(table) => reader.rules(table.get_ref()),
        Err(error) => {
            let message: Vec<&str> = error.message().lines().map(str::trim).collect();
            reader.fault(error.span().unwrap_or_default(), message.join(", "));
            Rules::default()
        }
    };
    let mut errors = reader.errors;
    errors.sort_by_key(|error| error.line);
    errors.truncate(MAX_ERRORS);
    if errors.is_empty() { Ok(rules) } else { Err(errors) }
}

struct Reader<'t> {
    text: &'t str,
    errors: Vec<RuleError>,
    /// Number of texts so far.
    texts: usize,
}

impl<'t> Reader<'t> {
    fn rules(&mut self, file: &DeTable<'t>) -> Rules {
        let mut rules = Rules::default();
        for key in file.keys().filter(|key| !SECTIONS.contains(&key.get_ref().as_ref())) {
            self.fault(key.span(), format!("{}: must be {SECTIONS_TEXT}", quoted(key.get_ref())));
        }
        match file.get("species") {
            None => self.fault(0..0, "must have a section [species]".to_owned()),
            Some(value) => rules.species = self.species(value),
        }
        if let Some(value) = file.get("core") {
            rules.core = self.core(value);
        }
        if let Some(value) = file.get("rule") {
            rules.rules = self.all_rules(value, &rules.species, file.contains_key("core"));
        }
        let meaning = "no rule matches what it says".to_owned();
        let word = Arc::from(UNKNOWN);
        rules.species.push(Species { word, meaning, versions: Versions::None });
        rules
    }

    fn species(&mut self, value: &Value<'t>) -> Vec<Species> {
        let Some(table) = self.table(value, "species") else { return Vec::new() };
        let mut entries: Vec<_> = table.iter().collect();
        // In the order of the file.
        entries.sort_by_key(|(word, _)| word.span().start);
        if entries.len() > MAX_SPECIES {
            self.fault(value.span(), format!("species: must be at most {MAX_SPECIES}"));
            return Vec::new();
        }
        let mut all = Vec::new();
        for (key, value) in entries {
            let word = key.get_ref().as_ref();
            let is_word = |byte: u8| byte.is_ascii_alphanumeric() || b"-_".contains(&byte);
            if word == UNKNOWN {
                self.fault(key.span(), format!("{word}: stands for nodes that no rule matches"));
            } else if !word.bytes().all(is_word) || !(1..=MAX_WORD_LENGTH).contains(&word.len()) {
                let allowed = format!("1 to {MAX_WORD_LENGTH} letters, digits, - and _");
                self.fault(key.span(), format!("{}: must be {allowed}", quoted(word)));
            }
            all.push(self.one_species(word, value));
        }
        all
    }

    fn one_species(&mut self, word: &str, value: &Value<'t>) -> Species {
        let mut species =
            Species { word: word.into(), meaning: String::new(), versions: Versions::None };
        let place = format!("species.{}", shortened(word));
        let Some(table) = self.table(value, &place) else { return species };
        for (key, value) in table {
            match (key.get_ref().as_ref(), value.get_ref()) {
                ("meaning", DeValue::String(text)) if is_meaning(text) => {
                    species.meaning = text.clone().into_owned();
                }
                ("meaning", _) => {
                    let allowed = format!("1 to {MAX_MEANING_LENGTH} printable ASCII characters");
                    self.fault(value.span(), format!("{place}.meaning: must be {allowed}"));
                }
                ("versions", DeValue::Boolean(true)) => species.versions = Versions::First,
                ("versions", DeValue::Boolean(false)) => {}
                ("versions", DeValue::String(name)) => {
                    species.versions = Versions::Of(name.clone().into_owned());
                }
                ("versions", _) => {
                    let problem = format!("{place}.versions: must be true, false or a name");
                    self.fault(value.span(), problem);
                }
                (other, _) => self.unknown_key(key.span(), other, "meaning, versions"),
            }
        }
        if !table.contains_key("meaning") {
            self.fault(value.span(), format!("{place}: must have a meaning"));
        }
        species
    }

    fn core(&mut self, value: &Value<'t>) -> CoreVersions {
        let mut core = CoreVersions::default();
        let Some(table) = self.table(value, "core") else { return core };
        for (key, value) in table {
            match key.get_ref().as_ref() {
                "names" => core.names = self.texts(value, "core.names"),
                "newest" => core.newest = self.version(value, "core.newest"),
                "offers_since" => core.offers_since = self.version(value, "core.offers_since"),
                "first_offered" => {
                    let offered = self.table(value, "core.first_offered");
                    for (service, line) in offered.into_iter().flatten() {
                        let bit = self.bit(service.span(), service.get_ref());
                        core.first_offered.push((bit, self.version(line, "core.first_offered")));
                    }
                }
                other => {
                    self.unknown_key(
                        key.span(),
                        other,
                        "names, newest, first_offered, offers_since",
                    );
                }
            }
        }
        if core.names.is_empty() || core.newest == 0 {
            self.fault(value.span(), "core: must have names and newest".to_owned());
        }
        core
    }

    fn all_rules(&mut self, value: &Value<'t>, species: &[Species], has_core: bool) -> Vec<Rule> {
        let DeValue::Array(array) = value.get_ref() else {
            self.fault(value.span(), "rule: must be written as [[rule]]".to_owned());
            return Vec::new();
        };
        if array.len() > MAX_RULES {
            self.fault(value.span(), format!("rule: must be at most {MAX_RULES}"));
            return Vec::new();
        }
        array.iter().map(|value| self.rule(value, species, has_core)).collect()
    }

    fn rule(&mut self, value: &Value<'t>, all: &[Species], has_core: bool) -> Rule {
        let mut rule = Rule { species: 0, conditions: Vec::new() };
        let Some(table) = self.table(value, "rule") else { return rule };
        for (key, value) in table {
            let name = key.get_ref().as_ref();
            if name == "species" {
                let word = value.get_ref().as_str();
                match all.iter().position(|species| word == Some(&*species.word)) {
                    Some(index) => rule.species = index,
                    None => {
                        let word = quoted(word.unwrap_or("?"));
                        self.fault(value.span(), format!("species = {word}: {NO_SUCH_SPECIES}"));
                    }
                }
            } else if name == "core" && !has_core {
                self.fault(key.span(), "core: needs a section [core]".to_owned());
            } else if let Some(condition) = self.condition(key, value) {
                rule.conditions.push(condition);
            }
        }
        if !table.contains_key("species") {
            self.fault(value.span(), "rule: must have a species".to_owned());
        }
        if table.len() < 1 + usize::from(table.contains_key("species")) {
            self.fault(value.span(), "rule: must have a condition".to_owned());
        }
        rule
    }

    fn condition(
        &mut self,
        key: &Spanned<std::borrow::Cow<'t, str>>,
        value: &Value<'t>,
    ) -> Option<Condition> {
        let name = key.get_ref().as_ref();
        let (is_true, text) = (value.get_ref().as_bool() == Some(true), value.get_ref().as_str());
        let mut refuse = |allowed: &str| {
            self.fault(value.span(), format!("{name}: must be {allowed}"));
            None
        };
        Some(match name {
            "agent" => Condition::Agent(self.texts(value, name)),
            "agent_begins" => Condition::AgentBegins(self.texts(value, name)),
            "first" => Condition::First(self.texts(value, name)),
            "name" => Condition::Name(self.texts(value, name)),
            "begins" => Condition::Begins(self.texts(value, name)),
            "contains" => Condition::Contains(lower(self.texts(value, name))),
            "version" => Condition::Version(self.texts(value, name)),
            "version_begins" => Condition::VersionBegins(self.texts(value, name)),
            "version_contains" => Condition::VersionContains(lower(self.texts(value, name))),
            "comment_begins" => Condition::CommentBegins(self.texts(value, name)),
            "protocol" => Condition::Protocol(self.numbers(value)),
            "offers" => {
                let names = self.texts(value, name);
                let bits = names.iter().map(|name| self.bit(value.span(), name));
                Condition::Offers(bits.fold(0, |all, bit| all | bit))
            }
            "dotted" if is_true => Condition::Dotted,
            "dotted" => return refuse("true"),
            "core" if text == Some("possible") => Condition::Core(CoreClaim::Possible),
            "core" if text == Some("impossible") => Condition::Core(CoreClaim::Impossible),
            "core" => return refuse("\"possible\" or \"impossible\""),
            other => {
                self.unknown_key(key.span(), other, CONDITIONS);
                return None;
            }
        })
    }

    /// A text, or a list of texts.
    fn texts(&mut self, value: &Value<'t>, key: &str) -> Vec<String> {
        let one = std::slice::from_ref(value);
        let values = match value.get_ref() {
            DeValue::Array(array) => array.iter().as_slice(),
            _ => one,
        };
        self.texts += values.len();
        if self.texts > MAX_TEXTS {
            self.fault(value.span(), format!("{key}: the file has more than {MAX_TEXTS} texts"));
            return Vec::new();
        }
        let mut texts = Vec::new();
        for value in values {
            let text = value.get_ref().as_str();
            // Only a user agent may be empty.
            let min = usize::from(key != "agent");
            match text.filter(|text| (min..=MAX_LENGTH).contains(&text.len())) {
                Some(text) => texts.push(text.to_owned()),
                None => self.fault(
                    value.span(),
                    format!("{key}: must be texts of {min} to {MAX_LENGTH} characters"),
                ),
            }
        }
        texts
    }

    /// A number, or a list of numbers.
    fn numbers(&mut self, value: &Value<'t>) -> Vec<i32> {
        let one = std::slice::from_ref(value);
        let values = match value.get_ref() {
            DeValue::Array(array) => array.iter().as_slice(),
            _ => one,
        };
        self.texts += values.len();
        if self.texts > MAX_TEXTS {
            self.fault(value.span(), format!("protocol: the file has more than {MAX_TEXTS} texts"));
            return Vec::new();
        }
        let mut numbers = Vec::new();
        for value in values {
            match integer(value).and_then(|number| i32::try_from(number).ok()) {
                Some(number) => numbers.push(number),
                None => self.fault(value.span(), "protocol: must be 32-bit numbers".to_owned()),
            }
        }
        numbers
    }

    /// A version of Core: 13 for 0.13, 22 for 22.
    fn version(&mut self, value: &Value<'t>, key: &str) -> u32 {
        let number = integer(value).filter(|number| (1..=MAX_VERSION).contains(number));
        match number.and_then(|number| u32::try_from(number).ok()) {
            Some(number) => number,
            None => {
                let problem = format!("{key}: must be a whole number from 1 to {MAX_VERSION}");
                self.fault(value.span(), problem);
                0
            }
        }
    }

    fn bit(&mut self, span: Range<usize>, name: &str) -> u64 {
        services::bit(name).unwrap_or_else(|| {
            let problem = format!("{}: must be the name of a service, or BIT_7", quoted(name));
            self.fault(span, problem);
            0
        })
    }

    fn table<'v>(&mut self, value: &'v Value<'t>, name: &str) -> Option<&'v DeTable<'t>> {
        match value.get_ref() {
            DeValue::Table(table) => Some(table),
            _ => {
                self.fault(value.span(), format!("{name}: must be a table"));
                None
            }
        }
    }

    fn unknown_key(&mut self, span: Range<usize>, key: &str, allowed: &str) {
        self.fault(span, format!("{}: no such key; there are {allowed}", quoted(key)));
    }

    fn fault(&mut self, span: Range<usize>, problem: String) {
        // The rest are not reported, and counting their lines would take long.
        if self.errors.len() <= MAX_ERRORS {
            let before = self.text.get(..span.start).unwrap_or(self.text);
            let line = before.bytes().filter(|byte| *byte == b'\n').count() + 1;
            self.errors.push(RuleError { line, problem });
        }
    }
}

const SECTIONS: [&str; 3] = ["species", "core", "rule"];
const SECTIONS_TEXT: &str = "one of the sections [species], [core] and [[rule]]";
const NO_SUCH_SPECIES: &str = "must be one of those in the section [species]";
const CONDITIONS: &str = "species, agent, agent_begins, first, name, begins, contains, version, version_begins, \
                          version_contains, comment_begins, protocol, offers, dotted, core";

fn is_meaning(text: &str) -> bool {
    (1..=MAX_MEANING_LENGTH).contains(&text.len())
        && text.bytes().all(|byte| matches!(byte, b' '..=b'~'))
}

fn integer(value: &Value<'_>) -> Option<i64> {
    let DeValue::Integer(integer) = value.get_ref() else { return None };
    i64::from_str_radix(integer.as_str(), integer.radix()).ok()
}

fn lower(texts: Vec<String>) -> Vec<String> {
    texts.into_iter().map(|text| text.to_ascii_lowercase()).collect()
}

/// Text of the file for a message: in quotes, escaped, of bounded length.
fn quoted(text: &str) -> String {
    format!("{:?}", shortened(text))
}

fn shortened(text: &str) -> String {
    text.chars().take(40).filter(|c| !c.is_control()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const SPECIES: &str = "[species]\na = { meaning = \"x\" }\n";

    fn errors(text: &str) -> Vec<String> {
        let errors = parse(text).expect_err(text);
        errors.iter().map(ToString::to_string).collect()
    }

    #[test]
    fn every_error_is_reported_with_its_line() {
        let text = "
[species]
a = { meaning = \"x\", versions = 7 }
unknown = { meaning = \"x\" }
\"b c\" = { meaning = \"x\" }
d = { }
e = 7
f = { meaning = \"\" }
g = { meaning = \"x\", mening = \"x\" }
[[rule]]
species = \"z\"
name = \"x\"
[[rule]]
species = \"a\"
[[rule]]
name = [\"x\", 7, \"\"]
protocol = 3000000000
[[rule]]
species = \"a\"
core = \"possible\"
dotted = false
offers = [\"NETWORK\", \"NETWROK\"]
nmae = \"x\"
[more]
";
        let expected = [
            "3: species.a.versions: must be true, false or a name",
            "4: unknown: stands for nodes that no rule matches",
            "5: \"b c\": must be 1 to 24 letters, digits, - and _",
            "6: species.d: must have a meaning",
            "7: species.e: must be a table",
            "8: species.f.meaning: must be 1 to 80 printable ASCII characters",
            "9: \"mening\": no such key; there are meaning, versions",
            "11: species = \"z\": must be one of those in the section [species]",
            "13: rule: must have a condition",
            "15: rule: must have a species",
            "16: name: must be texts of 1 to 256 characters",
            "16: name: must be texts of 1 to 256 characters",
            "17: protocol: must be 32-bit numbers",
            "20: core: needs a section [core]",
            "21: dotted: must be true",
            "22: \"NETWROK\": must be the name of a service, or BIT_7",
        ];
        let found = errors(text);
        assert_eq!(found[..16], expected, "{found:#?}");
        assert!(found[16].starts_with("23: \"nmae\": no such key; there are species, agent,"));
        assert_eq!(
            found[17],
            "24: \"more\": must be one of the sections [species], [core] and [[rule]]"
        );
        assert_eq!(found.len(), 18);
    }

    #[test]
    fn files_of_another_form_are_refused() {
        let core = |text: &str| format!("{SPECIES}[core]\n{text}\n");
        let table = [
            (String::new(), "1: must have a section [species]"),
            ("species = 7".to_owned(), "1: species: must be a table"),
            (format!("{SPECIES}[rule]\n"), "3: rule: must be written as [[rule]]"),
            (core(""), "3: core: must have names and newest"),
            (core("names = []\nnewest = 1"), "3: core: must have names and newest"),
            (
                core("names = [\"x\"]\nnewest = 100"),
                "5: core.newest: must be a whole number from 1 to 99",
            ),
            (
                core("names = [\"x\"]\nnewest = 9\nfirst_offered = { NETWORK = -1 }"),
                "6: core.first_offered: must be a whole number from 1 to 99",
            ),
            (
                format!(
                    "{SPECIES}[core]\nnames = \"x\"\nnewest = 9\n[[rule]]\nspecies = \"a\"\ncore = 1"
                ),
                "8: core: must be \"possible\" or \"impossible\"",
            ),
        ];
        for (text, expected) in table {
            let found = errors(&text);
            assert!(found.iter().any(|error| error == expected), "{text}: {found:?}");
        }
        assert!(errors(&format!("{SPECIES}\n= 7"))[0].starts_with("4: "));
    }

    #[test]
    fn hostile_files_are_bounded() {
        let rules = |count| {
            format!("{SPECIES}{}", "[[rule]]\nspecies = \"a\"\ndotted = true\n".repeat(count))
        };
        assert!(parse(&rules(MAX_RULES)).is_ok());
        assert_eq!(errors(&rules(MAX_RULES + 1)), ["3: rule: must be at most 1000"]);
        let texts = |count: usize| {
            let list = "\"x\",".repeat(count / 2);
            format!("{SPECIES}[[rule]]\nspecies = \"a\"\nname = [{list}]\nbegins = [{list}]\n")
        };
        assert!(parse(&texts(MAX_TEXTS)).is_ok());
        let error = errors(&texts(MAX_TEXTS + 2));
        assert_eq!(error, ["5: name: the file has more than 2000 texts"]);
        let species: String = (0..=MAX_SPECIES)
            .map(|number| format!("s{number} = {{ meaning = \"x\" }}\n"))
            .collect();
        assert_eq!(errors(&format!("[species]\n{species}")), ["1: species: must be at most 100"]);
        let long = "x".repeat(MAX_LENGTH + 1);
        let error = errors(&format!("{SPECIES}[[rule]]\nspecies = \"a\"\nname = \"{long}\"\n"));
        assert_eq!(error, ["5: name: must be texts of 1 to 256 characters"]);
        let faults = "[[rule]]\nspecies = \"b\"\ndotted = true\n".repeat(500);
        assert_eq!(errors(&format!("{SPECIES}{faults}")).len(), MAX_ERRORS);
        for text in ["[".repeat(100_000), "a = ".to_owned() + &"[".repeat(100_000), "{".repeat(9)] {
            assert!(errors(&text).iter().all(|error| error.len() < 300), "{text:.9}");
        }
        let error = errors(&format!("[species]\n\"\\u0007{}\" = 7\n", "y".repeat(9_000)));
        assert!(
            error.iter().all(|error| error.len() < 200 && !error.contains('\u{7}')),
            "{error:?}"
        );
    }
}
