//! What is wrong with a configuration file, said so that a person can mend it: where, what, and a hint.

use std::fmt;
use std::path::{Path, PathBuf};

use serde::ser::SerializeStruct;
use serde::{Serialize, Serializer};

use super::{Expr, Location};

/// How much a problem stops.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Severity {
    /// The file is refused.
    Error,
    /// The file is taken; a person should look.
    Warning,
}

impl Severity {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warning => "warning",
        }
    }
}

/// One thing that is wrong, and where. It never holds the value of a secret or of a variable.
///
/// `Display` is for people (`file:line:column: path: message`, then the hint on a line of its own);
/// `Serialize` is for `--json` (`file`, `line`, `column`, `path`, `message`, `hint`, `severity`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    pub file: PathBuf,
    /// Line 0 where the problem is the file itself.
    pub at: Location,
    pub message: String,
    pub hint: Option<String>,
    pub severity: Severity,
}

impl Problem {
    pub fn error(file: &Path, at: Location, message: impl Into<String>) -> Self {
        Self { file: file.to_owned(), at, message: message.into(), hint: None, severity: Severity::Error }
    }

    pub fn warning(file: &Path, at: Location, message: impl Into<String>) -> Self {
        Self { severity: Severity::Warning, ..Self::error(file, at, message) }
    }

    #[must_use]
    pub fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.file.display())?;
        if self.at.line > 0 {
            write!(f, ":{}:{}", self.at.line, self.at.column)?;
        }
        f.write_str(": ")?;
        if self.severity == Severity::Warning {
            f.write_str("warning: ")?;
        }
        if !self.at.path.is_empty() {
            write!(f, "{}: ", self.at.path)?;
        }
        f.write_str(&self.message)?;
        if let Some(hint) = &self.hint {
            write!(f, "\n  hint: {hint}")?;
        }
        Ok(())
    }
}

impl Serialize for Problem {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut out = serializer.serialize_struct("Problem", 7)?;
        out.serialize_field("file", &self.file.to_string_lossy())?;
        out.serialize_field("line", &self.at.line)?;
        out.serialize_field("column", &self.at.column)?;
        out.serialize_field("path", &self.at.path)?;
        out.serialize_field("message", &self.message)?;
        out.serialize_field("hint", &self.hint)?;
        out.serialize_field("severity", self.severity.name())?;
        out.end()
    }
}

/// Everything that is wrong with one file, at once, sorted by line. At least one of them is an error.
#[derive(Debug, Clone)]
pub struct Problems {
    pub file: PathBuf,
    pub all: Vec<Problem>,
    /// The file's expressions, which nobody has compiled: what is wrong with them can be told beside the rest.
    pub expressions: Vec<Expr>,
}

impl Problems {
    /// How many of them refuse the file.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.all.iter().filter(|problem| problem.severity == Severity::Error).count()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (at, problem) in self.all.iter().enumerate() {
            if at > 0 {
                f.write_str("\n")?;
            }
            write!(f, "{problem}")?;
        }
        Ok(())
    }
}

impl std::error::Error for Problems {}

/// The known name that was most likely meant by `written`, if one is near enough.
///
/// Near is two slips of the finger (an insertion, a removal, a change, two letters swapped), or a third of a short
/// name; a longer reach suggests names that nobody meant.
pub(super) fn nearest<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    let written = written.to_lowercase();
    let reach = (written.chars().count() / 3).clamp(1, 2);
    known
        .into_iter()
        .map(|name| (strsim::damerau_levenshtein(&written, &name.to_lowercase()), name))
        .filter(|&(distance, _)| distance <= reach)
        .min()
        .map(|(_, name)| name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_near_name_is_suggested_and_a_far_one_is_not() {
        let known = ["secrets", "signature", "events", "map"];
        assert_eq!(nearest("secret", known), Some("secrets"));
        assert_eq!(nearest("Secrets", known), Some("secrets"));
        assert_eq!(nearest("evnets", known), Some("events"));
        assert_eq!(nearest("mpa", known), Some("map"));
        assert_eq!(nearest("url", known), None);
        assert_eq!(nearest("", known), None);
    }

    #[test]
    fn a_problem_is_one_object_for_machines() {
        let at = Location { line: 3, column: 5, path: "a.b".into() };
        let problem = Problem::error(Path::new("h.yaml"), at, "is wrong").with_hint("mend it");
        assert_eq!(
            serde_json::to_value(&problem).unwrap(),
            serde_json::json!({
                "file": "h.yaml", "line": 3, "column": 5, "path": "a.b",
                "message": "is wrong", "hint": "mend it", "severity": "error",
            })
        );
        assert_eq!(problem.to_string(), "h.yaml:3:5: a.b: is wrong\n  hint: mend it");
    }
}
