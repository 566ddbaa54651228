//! A typed reading of the tree: every getter notes what is wrong and goes on, so that one pass finds everything.
//!
//! A [`Field`] is one place of the file, written or not; a [`Map`] hands out the fields of a map and remembers which
//! keys were asked for: the others are unknown. Messages quote what the file says, never what a variable holds.

use std::cell::RefCell;
use std::collections::BTreeSet;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use super::interpolate::{has_reference, interpolate};
use super::problem::nearest;
use super::units::{parse_duration, parse_size, plain_digits, show_duration, show_size};
use super::yaml::{Entry, Fault, Mark, Node, Value};
use super::{Environment, Expr, Location, Problem, Secret, Severity, not_built};

/// Characters of a value that a message repeats: enough to find it again.
const MAX_QUOTED: usize = 60;

/// What is noted while a file is read.
pub(super) struct Reader<'a> {
    file: &'a Path,
    folder: &'a Path,
    env: &'a dyn Environment,
    notes: RefCell<Notes>,
}

#[derive(Default)]
struct Notes {
    problems: Vec<Problem>,
    not_built: Vec<Problem>,
    unknown: Vec<Unknown>,
    /// Every key that was asked for, as a shape: `sources.<name>.events[].when`.
    known: BTreeSet<String>,
}

struct Unknown {
    at: Mark,
    path: String,
    key: String,
    siblings: Vec<&'static str>,
}

/// What was noted, once a file has been read.
pub(super) struct Findings {
    pub problems: Vec<Problem>,
    pub not_built: Vec<Problem>,
    #[cfg_attr(not(test), expect(dead_code, reason = "the reference in docs/ is held against it"))]
    pub known: BTreeSet<String>,
}

impl<'a> Reader<'a> {
    pub(super) fn new(file: &'a Path, env: &'a dyn Environment) -> Self {
        let folder = file.parent().unwrap_or_else(|| Path::new(""));
        Self { file, folder, env, notes: RefCell::default() }
    }

    /// The whole file as a field.
    pub(super) fn root(&'a self, node: &'a Node) -> Field<'a> {
        Field { reader: self, node: Some(node), key_at: node.at, path: String::new(), shape: String::new() }
    }

    pub(super) fn fault(&self, fault: Fault) {
        let at = Location { line: fault.at.line, column: fault.at.column, path: String::new() };
        let mut problem = Problem::error(self.file, at, fault.message);
        problem.hint = fault.hint.map(str::to_owned);
        self.note(problem);
    }

    fn note(&self, problem: Problem) {
        self.notes.borrow_mut().problems.push(problem);
    }

    /// Ends the reading. Unknown keys are judged only now, when it is known where they would have been right.
    pub(super) fn finish(self) -> Findings {
        let Notes { mut problems, not_built, unknown, known } = self.notes.into_inner();
        for Unknown { at, path, key, siblings } in unknown {
            let hint = unknown_key_hint(&key, &siblings, &known);
            let at = Location { line: at.line, column: at.column, path };
            problems.push(Problem::error(self.file, at, format!("unknown key `{key}`")).with_hint(hint));
        }
        Findings { problems, not_built, known }
    }
}

/// A near sibling; else the sections where the key would be right; else what could be written here.
fn unknown_key_hint(key: &str, siblings: &[&'static str], known: &BTreeSet<String>) -> String {
    if let Some(near) = nearest(key, siblings.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    let homes: Vec<&str> =
        known.iter().filter_map(|shape| shape.strip_suffix(key)?.strip_suffix('.')).take(4).collect();
    match homes.as_slice() {
        [] | [_, _, _, _, ..] => format!("known here: {}", siblings.join(", ")),
        homes => format!("`{key}` belongs to {}", quoted_list(homes)),
    }
}

pub(super) fn quoted_list<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
}

/// One place of the file.
#[derive(Clone)]
pub(super) struct Field<'r> {
    reader: &'r Reader<'r>,
    /// `None`: not written.
    node: Option<&'r Node>,
    /// Where its key stands; where it is not written, or has none, the place that should hold it.
    key_at: Mark,
    path: String,
    /// The path without the names that the user chose.
    shape: String,
}

// === What is noted about a field ===

impl<'r> Field<'r> {
    /// Where its value stands, or would stand.
    pub(super) fn location(&self) -> Location {
        let at = match self.node {
            // A block map starts at its first key, a line below the key that holds it; a person looks at the latter.
            Some(Node { at, value: Value::Text { .. } | Value::List(_) | Value::Refused }) => *at,
            Some(Node { value: Value::Map(_) | Value::Null, .. }) | None => self.key_at,
        };
        Location { line: at.line, column: at.column, path: self.path.clone() }
    }

    pub(super) fn error(&self, message: impl Into<String>) {
        self.reader.note(Problem::error(self.reader.file, self.location(), message));
    }

    pub(super) fn error_with_hint(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.reader.note(Problem::error(self.reader.file, self.location(), message).with_hint(hint));
    }

    /// As [`Field::error`], of the key itself and not of its value.
    pub(super) fn error_at_key(&self, message: impl Into<String>, hint: Option<String>) {
        let at = Location { line: self.key_at.line, column: self.key_at.column, path: self.path.clone() };
        let mut problem = Problem::error(self.reader.file, at, message);
        problem.hint = hint;
        self.reader.note(problem);
    }

    pub(super) fn warning(&self, message: impl Into<String>, hint: impl Into<String>) {
        self.reader.note(Problem::warning(self.reader.file, self.location(), message).with_hint(hint));
    }

    /// As [`Field::warning`], at a place within the value.
    pub(super) fn warning_at(&self, at: Location, message: impl Into<String>, hint: impl Into<String>) {
        self.reader.note(Problem::warning(self.reader.file, at, message).with_hint(hint));
    }

    /// Notes that `run` refuses this, where it is not built yet; `name` is what the user wrote.
    pub(super) fn needs(&self, feature: not_built::Feature, name: &str) {
        if let Some(message) = not_built::message(feature, name) {
            self.not_built(message, None);
        }
    }

    pub(super) fn not_built(&self, message: String, hint: Option<String>) {
        let mut problem = Problem::warning(self.reader.file, self.location(), message);
        problem.hint = hint;
        self.reader.notes.borrow_mut().not_built.push(problem);
    }

    /// What the file says here, for a message. Never the value that a reference was filled in with.
    pub(super) fn quoted(&self) -> String {
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
    pub(super) fn is_written(&self) -> bool {
        !matches!(self.node, None | Some(Node { value: Value::Null, .. }))
    }

    pub(super) fn is_list(&self) -> bool {
        matches!(self.node, Some(Node { value: Value::List(_), .. }))
    }

    pub(super) fn path(&self) -> &str {
        &self.path
    }

    pub(super) fn node(&self) -> Option<&'r Node> {
        self.node
    }

    /// The text as it was written, references and all.
    pub(super) fn written_text(&self) -> Option<&'r str> {
        match &self.node?.value {
            Value::Text { text, .. } => Some(text),
            _ => None,
        }
    }

    /// The text with its references filled in; it may be empty.
    pub(super) fn text_or_empty(&self) -> Option<String> {
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
    pub(super) fn text(&self) -> Option<String> {
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

    pub(super) fn secret(&self) -> Option<Secret> {
        self.text().map(Secret::new)
    }

    /// A path, relative to the file's folder.
    pub(super) fn path_or(&self, default: &str) -> PathBuf {
        self.reader.folder.join(self.text().as_deref().unwrap_or(default))
    }

    /// jq text. Nothing is filled in, because `$` is jq's own.
    pub(super) fn expr(&self) -> Option<Expr> {
        let Some(text) = self.written_text() else {
            self.wrong_kind("a jq expression");
            return None;
        };
        if text.trim().is_empty() {
            self.error("is empty");
            return None;
        }
        Some(Expr { text: text.to_owned(), at: self.location() })
    }

    /// Whatever `parse` makes of the text; its error is a clause that does not repeat the text.
    pub(super) fn parsed<T>(&self, parse: impl FnOnce(&str) -> Result<T, String>) -> Option<T> {
        let text = self.text()?;
        parse(&text).map_err(|clause| self.error(format!("{} {clause}", self.quoted()))).ok()
    }

    pub(super) fn parsed_or<T>(&self, default: T, parse: impl FnOnce(&str) -> Result<T, String>) -> T {
        self.parsed(parse).unwrap_or(default)
    }

    pub(super) fn flag_or(&self, default: bool) -> bool {
        let parse = |text: &str| match text {
            "true" => Ok(true),
            "false" => Ok(false),
            _ => Err("is neither `true` nor `false`".to_owned()),
        };
        self.parsed(parse).unwrap_or(default)
    }

    pub(super) fn number<T>(&self, range: &RangeInclusive<T>) -> Option<T>
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        self.parsed(|text| {
            let number = plain_digits(text).parse().map_err(|_| "is not a whole number".to_owned())?;
            within(number, range, T::to_string)
        })
    }

    pub(super) fn number_or<T>(&self, default: T, range: &RangeInclusive<T>) -> T
    where
        T: FromStr + PartialOrd + Display + Copy,
    {
        self.number(range).unwrap_or(default)
    }

    pub(super) fn duration(&self, range: &RangeInclusive<Duration>) -> Option<Duration> {
        self.parsed(|text| within(parse_duration(text)?, range, |duration| show_duration(*duration)))
    }

    pub(super) fn duration_or(&self, default: Duration, range: &RangeInclusive<Duration>) -> Duration {
        self.duration(range).unwrap_or(default)
    }

    pub(super) fn size_or(&self, default: usize, range: &RangeInclusive<usize>) -> usize {
        self.parsed(|text| within(parse_size(text)?, range, |size| show_size(*size))).unwrap_or(default)
    }

    /// One of a few words.
    pub(super) fn choice<T: Copy>(&self, of: &[(&'static str, T)]) -> Option<T> {
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

    pub(super) fn choice_or<T: Copy>(&self, default: T, of: &[(&'static str, T)]) -> T {
        self.choice(of).unwrap_or(default)
    }

    /// The items of a list; none where it is not written.
    pub(super) fn items(&self) -> Vec<Field<'r>> {
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
    pub(super) fn named(&self) -> Vec<(&'r str, Field<'r>)> {
        let Some(Node { value: Value::Map(entries), .. }) = self.node else {
            self.wrong_kind("a map");
            return Vec::new();
        };
        entries.iter().map(|entry| (entry.key.as_str(), self.child(&entry.key, "<name>", Some(entry)))).collect()
    }

    /// Reads a map; one that is not written has no keys.
    pub(super) fn map<T>(&self, read: impl FnOnce(&mut Map<'r>) -> T) -> T {
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
    pub(super) fn optional_map<T>(&self, read: impl FnOnce(&mut Map<'r>) -> T) -> Option<T> {
        self.is_written().then(|| self.map(read))
    }

    fn child(&self, key: &str, shape: &str, entry: Option<&'r Entry>) -> Field<'r> {
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

/// A map whose keys are ours.
pub(super) struct Map<'r> {
    holder: Field<'r>,
    entries: &'r [Entry],
    /// False where something else than a map stands here: then nothing is said about what it lacks.
    sound: bool,
    asked: Vec<&'static str>,
}

impl<'r> Map<'r> {
    pub(super) fn field(&mut self, key: &'static str) -> Field<'r> {
        if !self.asked.contains(&key) {
            self.asked.push(key);
        }
        let field = self.holder.child(key, key, self.entries.iter().find(|entry| entry.key == key));
        self.holder.reader.notes.borrow_mut().known.insert(field.shape.clone());
        field
    }

    /// A field that must be there.
    pub(super) fn required(&mut self, key: &'static str) -> Field<'r> {
        let field = self.field(key);
        if self.sound && !field.is_written() {
            field.error("is missing");
        }
        field
    }

    /// The map itself, to note something about it as a whole.
    pub(super) fn holder(&self) -> &Field<'r> {
        &self.holder
    }

    /// Says nothing of unknown keys: what is known here could not be told.
    pub(super) fn accept_anything(&mut self) {
        self.entries = &[];
    }

    fn finish(self) {
        let mut notes = self.holder.reader.notes.borrow_mut();
        for entry in self.entries.iter().filter(|entry| !self.asked.contains(&entry.key.as_str())) {
            // The same map may be read twice, by its description and by its keys.
            if notes.unknown.iter().any(|unknown| unknown.at == entry.key_at) {
                continue;
            }
            let Field { path, .. } = self.holder.child(&entry.key, &entry.key, Some(entry));
            notes.unknown.push(Unknown {
                at: entry.key_at,
                path,
                key: entry.key.clone(),
                siblings: self.asked.clone(),
            });
        }
    }
}

impl Findings {
    pub(super) fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}
