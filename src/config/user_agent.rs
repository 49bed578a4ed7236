//! The user agent as sent: `network.user_agent` with `network.contact` as a BIP-0014 comment.

/// Maximum length of a user agent in bytes (`MAX_SUBVERSION_LENGTH` of Bitcoin Core).
pub const MAX_LENGTH: usize = 256;

/// Placeholder for the crate's version in `network.user_agent`.
const VERSION_WORD: &str = "VERSION";

/// Replaces the word `VERSION` by the crate's version.
pub fn with_version(agent: &str) -> String {
    agent.replace(VERSION_WORD, env!("CARGO_PKG_VERSION"))
}

/// Adds a contact as a comment of the last part of the user agent:
/// `/bitdash:0.1.0(name@example.org)/`.
///
/// Joins an existing comment with a semicolon, the separator of BIP-0014.
pub fn with_contact(agent: &str, contact: &str) -> String {
    let comment = comment(contact);
    if comment.is_empty() {
        return agent.to_owned();
    }
    let (parts, end) = match agent.strip_suffix('/') {
        Some(parts) => (parts, "/"),
        None => (agent, ""),
    };
    match parts.strip_suffix(')') {
        Some(open) => format!("{open}; {comment}){end}"),
        None => format!("{parts}({comment}){end}"),
    }
}

/// The contact, reduced to the characters that a comment may contain.
///
/// BIP-0014 reserves `/`, `:`, `(` and `)` for the structure of the user agent, and Bitcoin Core's
/// own comments contain only letters, digits, spaces and ` .,;-_?@`. So a URL loses its scheme, and
/// every run of other characters becomes one space: `https://example.org/crawler/` is sent as
/// `example.org crawler`, still readable. Mail addresses stay as they are.
pub fn comment(contact: &str) -> String {
    let contact = contact.trim();
    let bare = SCHEMES
        .iter()
        .find_map(|scheme| {
            let head = contact.get(..scheme.len())?;
            head.eq_ignore_ascii_case(scheme).then(|| &contact[scheme.len()..])
        })
        .unwrap_or(contact);
    let allowed = |c: char| c.is_ascii_alphanumeric() || ".,;-_?@".contains(c);
    let words: Vec<&str> = bare.split(|c| !allowed(c)).filter(|word| !word.is_empty()).collect();
    words.join(" ")
}

const SCHEMES: [&str; 3] = ["https://", "http://", "mailto:"];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn contacts_become_comments_without_reserved_characters() {
        let table = [
            ("", "/bitdash:1/"),
            ("operator@example.org", "/bitdash:1(operator@example.org)/"),
            ("mailto:operator@example.org", "/bitdash:1(operator@example.org)/"),
            ("https://example.org", "/bitdash:1(example.org)/"),
            ("HTTPS://example.org/a/b_c.html", "/bitdash:1(example.org a b_c.html)/"),
            ("http://example.org:8080/(x)?y=1", "/bitdash:1(example.org 8080 x ?y 1)/"),
            ("://()", "/bitdash:1/"),
        ];
        for (contact, agent) in table {
            assert_eq!(with_contact("/bitdash:1/", contact), agent);
        }
    }

    #[test]
    fn the_contact_joins_existing_comments_and_agents_of_any_form() {
        assert_eq!(with_contact("/a:1/b:2(x)/", "me@x.y"), "/a:1/b:2(x; me@x.y)/");
        assert_eq!(with_contact("/a:1", "me@x.y"), "/a:1(me@x.y)");
        assert_eq!(with_contact("", "me@x.y"), "(me@x.y)");
    }

    #[test]
    fn the_word_version_is_replaced_by_the_crates_version() {
        assert_eq!(
            with_version("/bitdash:VERSION/"),
            concat!("/bitdash:", env!("CARGO_PKG_VERSION"), "/")
        );
    }
}
