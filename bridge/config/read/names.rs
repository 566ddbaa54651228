//! Names that become part of topics, paths and labels.

use crate::config::problem::nearest;
use crate::config::reader::{Field, quoted_list};

/// Characters of a source's, a sink's or an instance's name, of a category and of a topic prefix.
///
/// Kafka's topic names end at 249 (KAFKA-495): the longest of ours, `<prefix>receipts.<sink>.<event topic>`, stays
/// within it with a prefix of 32, a sink of 64 and a topic of 128.
pub(super) const MAX_NAME: usize = 64;
pub(super) const MAX_PREFIX: usize = 32;
pub(super) const MAX_TOPIC: usize = 128;

/// Notes where `name` is none: letters, digits, `_` and `-`, beginning with a letter or digit.
pub(super) fn check(field: &Field<'_>, name: &str) {
    if !is_name(name, "_-", MAX_NAME) {
        let hint = format!("at most {MAX_NAME} letters, digits, `_` and `-`, the first a letter or digit");
        field.error_with_hint(format!("`{name}` cannot be a name"), hint);
    }
}

/// Letters, digits and the characters of `others`, beginning with a letter or digit.
pub(super) fn is_name(text: &str, others: &str, longest: usize) -> bool {
    text.starts_with(|c: char| c.is_ascii_alphanumeric())
        && text.len() <= longest
        && text.chars().all(|c| c.is_ascii_alphanumeric() || others.contains(c))
}

/// For [`Field::parsed`]: the name of a topic, without the prefix.
pub(super) fn topic(text: &str) -> Result<String, String> {
    if is_name(text, "._-", MAX_TOPIC) {
        Ok(text.to_owned())
    } else {
        Err(format!(
            "is not a topic: at most {MAX_TOPIC} letters, digits, `.`, `_` and `-`, the first a letter or digit"
        ))
    }
}

/// Reads the name of something that is defined elsewhere in the file; notes where it is not.
pub(super) fn reference(field: &Field<'_>, what: &str, section: &str, known: &[&str]) -> Option<String> {
    let name = field.text()?;
    if known.contains(&name.as_str()) {
        return Some(name);
    }
    let hint = match nearest(&name, known.iter().copied()) {
        Some(near) => format!("did you mean `{near}`?"),
        None if known.is_empty() => format!("define it under `{section}`"),
        None => format!("define it under `{section}`, where there are {}", quoted_list(known)),
    };
    field.error_with_hint(format!("there is no {what} {}", field.quoted()), hint);
    None
}

/// Reads a list of such names; a repetition is noted.
pub(super) fn references(field: &Field<'_>, what: &str, section: &str, known: &[&str]) -> Vec<String> {
    let mut names: Vec<String> = Vec::new();
    let items = field.items();
    if field.is_list() && items.is_empty() {
        field.error("is an empty list");
    }
    for item in items {
        if let Some(name) = reference(&item, what, section, known) {
            if names.contains(&name) {
                item.error(format!("{} stands twice", item.quoted()));
            } else {
                names.push(name);
            }
        }
    }
    names
}
