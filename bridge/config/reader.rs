//! A typed reading of the tree: every getter notes what is wrong and goes on, so that one pass finds everything.
//!
//! A [`Field`] is one place of the file, written or not; a [`Map`] hands out the fields of a map and remembers which
//! keys were asked for: the others are unknown. Messages quote what the file says, never what a variable holds.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use super::problem::nearest;
use super::yaml::{Entry, Fault, Mark, Node};
use super::{Environment, Expr, Location, MAX_PROBLEMS, Problem, Severity};

mod field;

pub(super) use field::Field;

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
    expressions: Vec<Expr>,
    unknown: BTreeMap<Mark, Unknown>,
    /// Every key that was asked for, as a shape: `sources.<name>.events[].when`.
    known: BTreeSet<String>,
}

struct Unknown {
    path: String,
    key: String,
    /// The shape of the map that holds it.
    holder: String,
    siblings: Vec<&'static str>,
}

/// What was noted, once a file has been read.
pub(super) struct Findings {
    pub problems: Vec<Problem>,
    pub not_built: Vec<Problem>,
    /// As they are written; nobody has compiled them yet.
    pub expressions: Vec<Expr>,
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
        let Notes { mut problems, not_built, expressions, unknown, known } = self.notes.into_inner();
        for (at, Unknown { path, key, holder, siblings }) in unknown.into_iter().take(MAX_PROBLEMS) {
            let hint = unknown_key_hint(&key, &holder, &siblings, &known);
            let at = Location { line: at.line, column: at.column, path };
            problems.push(Problem::error(self.file, at, format!("unknown key `{key}`")).with_hint(hint));
        }
        Findings { problems, not_built, expressions, known }
    }
}

/// A near sibling; else the sections where the key would be right; else what could be written here.
fn unknown_key_hint(key: &str, holder: &str, siblings: &[&'static str], known: &BTreeSet<String>) -> String {
    if let Some(near) = nearest(key, siblings.iter().copied()) {
        return format!("did you mean `{near}`?");
    }
    let homes: Vec<&str> = known
        .iter()
        .filter_map(|shape| shape.strip_suffix(key)?.strip_suffix('.'))
        .filter(|home| *home != holder)
        .take(4)
        .collect();
    match homes.as_slice() {
        [] | [_, _, _, _, ..] => format!("known here: {}", siblings.join(", ")),
        homes => format!("`{key}` belongs to {}", quoted_list(homes)),
    }
}

pub(super) fn quoted_list<S: AsRef<str>>(names: &[S]) -> String {
    names.iter().map(|name| format!("`{}`", name.as_ref())).collect::<Vec<_>>().join(", ")
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
            let Field { path, .. } = self.holder.child(&entry.key, &entry.key, Some(entry));
            let unknown = Unknown {
                path,
                key: entry.key.clone(),
                holder: self.holder.shape.clone(),
                siblings: self.asked.clone(),
            };
            // By its place, for a description is read again after each of its problems.
            notes.unknown.insert(entry.key_at, unknown);
        }
    }
}

impl Findings {
    pub(super) fn has_errors(&self) -> bool {
        self.problems.iter().any(|problem| problem.severity == Severity::Error)
    }
}
