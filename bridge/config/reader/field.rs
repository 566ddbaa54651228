//! One place of the file: what is noted about it, and how it is read as this or that.

use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use super::{Map, Reader, quoted_list};
use crate::config::interpolate::{has_reference, interpolate};
use crate::config::problem::nearest;
use crate::config::units::{parse_duration, parse_size, plain_digits, show_duration, show_size};
use crate::config::yaml::{Entry, Mark, Node, Value};
use crate::config::{Expr, Location, Problem, Secret, not_built};

/// Characters of a value that a message repeats: enough to find it again.
const MAX_QUOTED: usize = 60;

/// One place of the file.
#[derive(Clone)]
pub(in crate::config) struct Field<'r> {
    pub(super) reader: &'r Reader<'r>,
    /// `None`: not written.
    pub(super) node: Option<&'r Node>,
    /// Where its key stands; where it is not written, or has none, the place that should hold it.
    pub(super) key_at: Mark,
    pub(super) path: String,
    /// The path without the names that the user chose.
    pub(super) shape: String,
}

// === What is noted about a field ===

impl Field<'_> {
    /// Where its value stands, or would stand.
    pub(in crate::config) fn location(&self) -> Location {
        let at = match self.node {
            // A block map starts at its first key, a line below the key that holds it; a person looks at the latter.
            Some(Node { at, value: Value::Text { .. } | Value::List(_) | Value::Refused }) => *at,
            Some(Node { value: Value::Map(_) | Value::Null, .. }) | None => self.key_at,
        };
        Location { line: at.line, column: at.column, path: self.path.clone() }
    }

    pub(in crate::config) fn error(&self, message: impl Into<String>) {
        self.reader.note(Problem::error(self.reader.file, self.location(), message));
    }

    pub(in crate::config) fn error_with_hint(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.reader.note(Problem::error(self.reader.file, self.location(), message).with_hint(hint));
    }

    /// As [`Field::error`], of the key itself and not of its value.
    pub(in crate::config) fn error_at_key(&self, message: impl Into<String>, hint: Option<String>) {
        let at = Location { line: self.key_at.line, column: self.key_at.column, path: self.path.clone() };
        let mut problem = Problem::error(self.reader.file, at, message);
        problem.hint = hint;
        self.reader.note(problem);
    }

    pub(in crate::config) fn warning(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.reader.note(Problem::warning(self.reader.file, self.location(), message).with_hint(hint));
    }

    /// As [`Field::warning`], at a place within the value.
    pub(in crate::config) fn warning_at(&self, at: Location, message: impl Into<String>, hint: impl Into<String>) {
        self.reader.note(Problem::warning(self.reader.file, at, message).with_hint(hint));
    }

    /// Notes that `run` refuses this, where it is not built yet; `name` is what the user wrote.
    pub(in crate::config) fn needs(&self, feature: not_built::Feature, name: &str) {
        if let Some(message) = not_built::message(feature, name) {
            self.not_built(message, None);
        }
    }

    pub(in crate::config) fn not_built(&self, message: String, hint: Option<String>) {
        let mut problem = Problem::warning(self.reader.file, self.location(), message);
        problem.hint = hint;
        self.reader.notes.borrow_mut().not_built.push(problem);
    }

    /// What the file says here, for a message. Never the value that a reference was filled in with.
    pub(in crate::config) fn quoted(&self) -> String {
        let text = self.written_text().unwrap_or_default();
        let mut shown: String = text.chars().take(MAX_QUOTED).collect();
        if shown.len() < text.len() {
            shown.push_str("...");
        }
        format!("`{}`", shown.replace('\n', " "))
    }

    fn wrong_kind(&self, expected: &str) {
        let found = match self.node.map(|node| &node.value) {
            Some(Value::Text { .. }) => "a text",
            Some(Value::List(_)) => "a list",
            Some(Value::Map(_)) => "a map",
            // Its fault has been noted by the parser.
            Some(Value::Null | Value::Refused) | None => return,
        };
        self.error(format!("must be {expected}, not {found}"));
    }
}

// === Reading a field ===
//
// A getter answers `None` (or the default) where nothing is written, without a word, and after noting what is wrong.

impl<'r> Field<'r> {
    pub(in crate::config) fn is_written(&self) -> bool {
        !matches!(self.node, None | Some(Node { value: Value::Null, .. }))
    }

    pub(in crate::config) fn is_list(&self) -> bool {
        matches!(self.node, Some(Node { value: Value::List(_), .. }))
    }

    pub(in crate::config) fn is_map(&self) -> bool {
        matches!(self.node, Some(Node { value: Value::Map(_), .. }))
    }

    pub(in crate::config) fn path(&self) -> &str {
        &self.path
    }

    pub(in crate::config) fn node(&self) -> Option<&'r Node> {
        self.node
    }

    /// The text as it was written, references and all.
    pub(in crate::config) fn written_text(&self) -> Option<&'r str> {
        match &self.node?.value {
            Value::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The text with its references filled in; it may be empty.
    pub(in crate::config) fn text_or_empty(&self) -> Option<String> {
        let Some(written) = self.written_text() else {
            self.wrong_kind("a text");
            return None;
        };
        if !has_reference(written) {
            return Some(written.to_owned());
        }
        match interpolate(written, self.reader.folder, self.reader.env) {
            Ok(text) => Some(text),
            Err(complaints) => {
                for complaint in complaints {
                    let mut problem = Problem::error(self.reader.file, self.location(), complaint.message);
                    problem.hint = complaint.hint;
                    self.reader.note(problem);
                }
                None
            }
        }
    }

    /// The text with its references filled in; an empty one is a problem.
    pub(in crate::config) fn text(&self) -> Option<String> {
        let text = self.text_or_empty()?;
        if text.trim().is_empty() {
            let filled_in = self.written_text().is_some_and(has_reference);
            let message =
                if filled_in { format!("{} comes to an empty text", self.quoted()) } else { "is empty".into() };
            self.error(message);
            return None;
        }
        Some(text)
    }

    pub(in crate::config) fn secret(&self) -> Option<Secret> {
        self.text().map(Secret::new)
    }

    /// A path, relative to the file's folder.
    pub(in crate::config) fn path_or(&self, default: &str) -> PathBuf {
        self.reader.folder.join(self.text().as_deref().unwrap_or(default))
    }

    /// jq text. Nothing is filled in, because `$` is jq's own.
    pub(in crate::config) fn expr(&self) -> Option<Expr> {
        let Some(text) = self.written_text() else {
            self.wrong_kind("a jq expression");
            return None;
        };
        if text.trim().is_empty() {
            self.error("is empty");
            return None;
        }
        let expr = Expr { text: text.to_owned(), at: self.location() };
        self.reader.notes.borrow_mut().expressions.push(expr.clone());
        Some(expr)
    }

    /// Whatever `parse` makes of the text; its error is a clause that does not repeat the text.
    pub(in crate::config) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text()?;
        parse(&text).map_err(|clause| self.error(format!("{} {clause}", self.quoted()))).ok()
    }

    /// As [`Field::parsed`], of a text that is a secret or may hold one: no message repeats it.
    pub(in crate::config) fn parsed_unseen<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text()?;
        parse(&text).map_err(|clause| self.error(clause)).ok()
    }

    pub(in crate::config) fn parsed_or<T>(&self, default: T, parse: impl FnOnce(&str) -> Result<T, String>) -> T {
        self.parsed(parse).unwrap_or(default)
    }

    pub(in crate::config) fn flag_or(&self, default: bool) -> bool {
        let parse = |text: &str| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("is neither `true` nor `false`".to_owned()),
        };
        self.parsed(parse).unwrap_or(default)
    }

    pub(in crate::config) fn number<T>(&self, range: &RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        self.parsed(|text| {
            let number = plain_digits(text).parse().map_err(|_| "is not a whole number".to_owned())?;
            within(number, range, T::to_string)
        })
    }

    pub(in crate::config) fn number_or<T>(&self, default: T, range: &RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        self.number(range).unwrap_or(default)
    }

    pub(in crate::config) fn duration(&self, range: &RangeInclusive<Duration>) -> Option<Duration> {
        self.parsed(|text| within(parse_duration(text)?, range, |duration| show_duration(*duration)))
    }

    pub(in crate::config) fn duration_or(&self, default: Duration, range: &RangeInclusive<Duration>) -> Duration {
        self.duration(range).unwrap_or(default)
    }

    pub(in crate::config) fn size_or(&self, default: usize, range: &RangeInclusive<usize>) -> usize {
        self.parsed(|text| within(parse_size(text)?, range, |size| show_size(*size))).unwrap_or(default)
    }

    /// One of a few words.
    pub(in crate::config) fn choice<T: Copy>(&self, of: &[(&'static str, T)]) -> Option<T> {
        let text = self.text()?;
        if let Some((_, value)) = of.iter().find(|(name, _)| *name == text) {
            return Some(*value);
        }
        let names: Vec<&str> = of.iter().map(|(name, _)| *name).collect();
        let hint = match nearest(&text, names.iter().copied()) {
            Some(near) => format!("did you mean `{near}`?"),
            None => format!("write one of {}", quoted_list(&names)),
        };
        self.error_with_hint(format!("{} is not known here", self.quoted()), hint);
        None
    }

    pub(in crate::config) fn choice_or<T: Copy>(&self, default: T, of: &[(&'static str, T)]) -> T {
        self.choice(of).unwrap_or(default)
    }

    /// The items of a list; none where it is not written.
    pub(in crate::config) fn items(&self) -> Vec<Field<'r>> {
        let Some(Node { value: Value::List(items), .. }) = self.node else {
            self.wrong_kind("a list");
            return Vec::new();
        };
        let item = |(at, node): (usize, &'r Node)| Field {
            reader: self.reader,
            node: Some(node),
            key_at: node.at,
            path: format!("{}[{at}]", self.path),
            shape: format!("{}[]", self.shape),
        };
        let mut items: Vec<_> = items.iter().enumerate().map(item).collect();
        items.retain(|item| {
            if !item.is_written() {
                item.error("is empty");
            }
            item.is_written()
        });
        items
    }

    /// The fields of a map whose keys are names that the user chooses.
    pub(in crate::config) fn named(&self) -> Vec<(&'r str, Field<'r>)> {
        let Some(Node { value: Value::Map(entries), .. }) = self.node else {
            self.wrong_kind("a map");
            return Vec::new();
        };
        entries.iter().map(|entry| (entry.key.as_str(), self.child(&entry.key, "<name>", Some(entry)))).collect()
    }

    /// Reads a map; one that is not written has no keys.
    pub(in crate::config) fn map<T>(&self, read: impl FnOnce(&mut Map<'r>) -> T) -> T {
        let (entries, sound): (&'r [Entry], bool) = match self.node {
            Some(Node { value: Value::Map(entries), .. }) => (entries, true),
            Some(Node { value: Value::Null, .. }) | None => (&[], true),
            Some(_) => {
                self.wrong_kind("a map");
                (&[], false)
            }
        };
        let mut map = Map { holder: self.clone(), entries, sound, asked: Vec::new() };
        let read = read(&mut map);
        map.finish();
        read
    }

    /// Reads a map, if it is written.
    pub(in crate::config) fn optional_map<T>(&self, read: impl FnOnce(&mut Map<'r>) -> T) -> Option<T> {
        self.is_written().then(|| self.map(read))
    }

    pub(super) fn child(&self, key: &str, shape: &str, entry: Option<&'r Entry>) -> Field<'r> {
        let join = |prefix: &str, key: &str| {
            if prefix.is_empty() { key.to_owned() } else { format!("{prefix}.{key}") }
        };
        Field {
            reader: self.reader,
            node: entry.map(|entry| &entry.node),
            key_at: entry.map_or(self.key_at, |entry| entry.key_at),
            path: join(&self.path, key),
            shape: join(&self.shape, shape),
        }
    }
}

fn within<T: PartialOrd>(value: T, range: &RangeInclusive<T>, show: impl Fn(&T) -> String) -> Result<T, String> {
    if range.contains(&value) {
        Ok(value)
    } else {
        Err(format!("is not within {} to {}", show(range.start()), show(range.end())))
    }
}
