//! What differs between two configurations, by the names of what they define.

use std::collections::BTreeMap;
use std::fmt;

/// Names, each kind in order.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Changes {
    pub(super) added: Vec<String>,
    pub(super) changed: Vec<String>,
    pub(super) removed: Vec<String>,
}

impl Changes {
    pub(super) fn between<T: PartialEq>(before: &BTreeMap<String, T>, after: &BTreeMap<String, T>) -> Self {
        let mut changes = Self::default();
        for (name, definition) in after {
            match before.get(name) {
                None => changes.added.push(name.clone()),
                Some(known) if known != definition => changes.changed.push(name.clone()),
                Some(_) => {}
            }
        }
        changes.removed = before.keys().filter(|name| !after.contains_key(*name)).cloned().collect();
        changes
    }

    /// Whether something of that name is new or another than before.
    pub(super) fn concerns(&self, name: &str) -> bool {
        self.added.iter().chain(&self.changed).any(|concerned| concerned == name)
    }
}

impl fmt::Display for Changes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let kinds = [("added", &self.added), ("changed", &self.changed), ("removed", &self.removed)];
        let mut said = kinds.iter().filter(|(_, names)| !names.is_empty());
        let Some((kind, names)) = said.next() else { return f.write_str("unchanged") };
        write!(f, "{kind} {}", names.join(", "))?;
        said.try_for_each(|(kind, names)| write!(f, "; {kind} {}", names.join(", ")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn defined(definitions: &[(&str, u32)]) -> BTreeMap<String, u32> {
        definitions.iter().map(|&(name, definition)| (name.to_owned(), definition)).collect()
    }

    #[test]
    fn what_was_added_changed_and_removed_is_told_by_name() {
        let before = defined(&[("a", 1), ("b", 1), ("c", 1)]);
        let changes = Changes::between(&before, &defined(&[("b", 1), ("c", 2), ("d", 1), ("e", 1)]));
        assert_eq!(changes.to_string(), "added d, e; changed c; removed a");
        assert_eq!(["a", "b", "c", "d"].map(|name| changes.concerns(name)), [false, false, true, true]);
        assert_eq!(Changes::between(&before, &before).to_string(), "unchanged");
    }
}
