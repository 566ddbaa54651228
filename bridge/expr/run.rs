//! A program that jaq runs, by the shortest way that gives its answer.
//!
//! From the shortest: a condition is read off the text, a record is written field by field, a lifted program runs on
//! the few values that it reads. Each of them stands aside where it cannot be sure, and the last way, the program
//! itself on the whole document, says what the program says.

use std::borrow::Cow;

use jaq_core::ValT as _;

use super::check::Checked;
use super::condition::Condition;
use super::engine::{Compiled, Entries, Entry};
use super::lift::{self, Lifted};
use super::path::{Found, Path};
use super::record::Record;
use super::value::Value;
use super::{Error, Findings, Json, MAX_RESULT_BYTES, MAX_RESULTS, Problem, json, meter};

pub(super) struct Run {
    compiled: Compiled,
    lifted: Option<Ways>,
}

/// The ways of a program whose paths could be lifted.
struct Ways {
    /// The variables' first, then those that are passed only.
    paths: Vec<Path>,
    variables: usize,
    condition: Option<Condition>,
    record: Option<Record>,
}

impl Run {
    pub(super) fn compile(text: &str, checked: Checked<'_>) -> Result<Self, Vec<Problem>> {
        let Checked { term, patterns, .. } = checked;
        let Some(Lifted { term: lifted, variables, passed, lazy }) = lift::lift(&term) else {
            let compiled =
                Compiled::new(text, Entries { whole: term, lifted: None, fields: None, variables: 0 }, patterns)?;
            return Ok(Self { compiled, lifted: None });
        };
        let (record, fields) = Record::split(&lifted).unzip();
        let ways = Ways {
            variables: variables.len(),
            paths: variables.into_iter().chain(passed).collect(),
            condition: lazy.then(|| Condition::of(&lifted)).flatten(),
            record,
        };
        let entries = Entries { whole: term, lifted: Some(lifted), fields, variables: ways.variables };
        let compiled = Compiled::new(text, entries, patterns)?;
        Ok(Self { compiled, lifted: Some(ways) })
    }

    /// What a pass over the document has to look up.
    pub(super) fn paths(&self) -> &[Path] {
        self.lifted.as_ref().map_or(&[], |ways| &ways.paths)
    }

    /// Whether there are other ways than to read the whole document.
    pub(super) fn is_lifted(&self) -> bool {
        self.lifted.is_some()
    }

    /// Whether the first result is neither null nor false; no result is no.
    pub(super) fn is_true(&self, input: &Json<'_>, findings: Findings<'_>) -> Result<bool, Error> {
        let condition = self.lifted.as_ref().and_then(|ways| ways.condition.as_ref());
        if let Some(answer) = condition.and_then(|condition| condition.holds(findings)) {
            return Ok(answer);
        }
        let mut answer = false;
        self.run(input, findings, |value| {
            answer = value.as_bool();
            Ok(false)
        })?;
        Ok(answer)
    }

    /// Every result.
    pub(super) fn eval<'a>(&self, input: &Json<'_>, findings: Findings<'_>) -> Result<Vec<Json<'a>>, Error> {
        if let Some(record) = self.record(input, findings)? {
            return Ok(vec![Json::from(Cow::Owned(record))]);
        }
        let mut results = Vec::new();
        let mut bytes = 0;
        self.run(input, findings, |value| {
            if results.len() == MAX_RESULTS {
                return Err(meter::stop(meter::Limit::Results));
            }
            let mut text = Vec::new();
            json::write(&value.val, &mut text, MAX_RESULT_BYTES - bytes)?;
            bytes += text.len();
            // `json::write` writes UTF-8 only.
            let text = String::from_utf8(text).unwrap_or_default();
            results.push(Json::made(text, value));
            Ok(true)
        })?;
        Ok(results)
    }

    /// The lifted program where it may be run, the program itself else.
    fn run(
        &self,
        input: &Json<'_>,
        findings: Findings<'_>,
        take: impl FnMut(Value) -> Result<bool, meter::Limit>,
    ) -> Result<(), Error> {
        let size = input.text().len();
        match self.lifted.as_ref().and_then(|ways| ways.values(findings)) {
            Some(values) => self.compiled.run(Entry::Lifted, values, size, Value::default(), take),
            None => self.compiled.run(Entry::Whole, Vec::new(), size, input.value()?, take),
        }
    }

    fn record(&self, input: &Json<'_>, findings: Findings<'_>) -> Result<Option<String>, Error> {
        let Some((ways, record)) = self.lifted.as_ref().and_then(|ways| Some((ways, ways.record.as_ref()?))) else {
            return Ok(None);
        };
        let Some(values) = ways.values(findings) else { return Ok(None) };
        let mut results = Vec::with_capacity(record.computed());
        let ran = self.compiled.run(Entry::Fields, values, input.text().len(), Value::default(), |value| {
            results.push(value);
            Ok(results.len() <= record.computed())
        });
        match ran {
            Ok(()) if results.len() == record.computed() => record.write(findings, &results).map_err(Error::Limit),
            // A program's own error may be another one than that which comes first in this order.
            Ok(()) | Err(Error::Failed { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }
}

impl Ways {
    /// The variables' values; `None` where a path is an error, or its value is no JSON to jaq: then the program itself
    /// finds out what that means.
    fn values(&self, findings: Findings<'_>) -> Option<Vec<Value>> {
        let mut values = Vec::with_capacity(self.variables);
        for (at, path) in self.paths.iter().enumerate() {
            let val = match findings.get(at) {
                Found::Mismatch(_) => return None,
                Found::Value(text) if at < self.variables => json::part(text).ok()?,
                Found::Value(_) | Found::Nothing => jaq_json::Val::Null,
            };
            if at < self.variables {
                values.push(Value::input_at(val, path.depth()));
            }
        }
        Some(values)
    }
}
