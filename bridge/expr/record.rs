//! Mappings that are one object, as most are: each field on its own, straight into the text of the event.
//!
//! jaq makes an object by adding up objects of one field. Here a field that is a path is copied, a constant stands
//! ready, and jaq is asked for the others only, all in one run: `{a: .x, b: (.y | todate), c: {}}` runs `[$1 | todate]`.
//! The arrays tell how many results each has. Where any has not exactly one, the mapping gives not exactly one event,
//! and the program itself is run.

use std::collections::HashSet;

use jaq_core::load::parse::{BinaryOp, Term};
use jaq_json::Val;

use super::check::literal_text;
use super::lift::NAMES;
use super::meter::Limit;
use super::path::Found;
use super::value::Value;
use super::{Findings, MAX_RESULT_BYTES, json};

/// An object, by its fields.
#[derive(Debug)]
pub(super) struct Record {
    fields: Vec<Field>,
    /// Results that the run gives: one a computed field.
    computed: usize,
}

#[derive(Debug)]
struct Field {
    /// What stands before the value: `{"name":` or `,"name":`.
    before: String,
    source: Source,
}

#[derive(Debug)]
enum Source {
    Variable(usize),
    Constant(String),
    /// The next result of the run.
    Computed,
}

impl Record {
    /// The record that a lifted program makes, and the program of its computed fields; `None` where it makes something
    /// else.
    pub(super) fn split<'t>(term: &Term<&'t str>) -> Option<(Self, Term<&'t str>)> {
        match term {
            Term::BinOp(value, BinaryOp::Pipe(Some(binding)), rest) => {
                let (record, rest) = Self::split(rest)?;
                let op = BinaryOp::Pipe(Some(binding.clone()));
                Some((record, Term::BinOp(value.clone(), op, Box::new(rest))))
            }
            Term::Obj(fields) if !fields.is_empty() => {
                let mut names = HashSet::new();
                let mut computed = Vec::new();
                let mut record = Vec::with_capacity(fields.len());
                for (name, value) in fields {
                    let (name, value) = (literal_text(name)?, value.as_ref()?);
                    let mut before = String::from(if record.is_empty() { "{" } else { "," });
                    before.push_str(&serde_json::to_string(&name).ok()?);
                    before.push(':');
                    if !names.insert(name) {
                        return None;
                    }
                    let source = Source::of(value);
                    if let Source::Computed = source {
                        computed.push(Term::Arr(Some(Box::new(value.clone()))));
                    }
                    record.push(Field { before, source });
                }
                if computed.is_empty() {
                    // Bindings before the object may still give no result, or several.
                    computed.push(Term::Arr(None));
                }
                let record = Self { fields: record, computed: computed.len() };
                let comma = |rest, first| Term::BinOp(Box::new(first), BinaryOp::Comma, Box::new(rest));
                Some((record, computed.into_iter().rev().reduce(comma)?))
            }
            _ => None,
        }
    }

    pub(super) fn computed(&self) -> usize {
        self.computed
    }

    /// The object's text, of what its paths and its run have given; `None` where that is not one object.
    pub(super) fn write(&self, findings: Findings<'_>, results: &[Value]) -> Result<Option<String>, Limit> {
        let mut out = Vec::with_capacity(256);
        let mut results = results.iter();
        for field in &self.fields {
            out.extend_from_slice(field.before.as_bytes());
            match &field.source {
                Source::Constant(text) => out.extend_from_slice(text.as_bytes()),
                Source::Variable(place) => match findings.get(*place) {
                    Found::Nothing => out.extend_from_slice(b"null"),
                    Found::Value(text) if json::is_compact(text) => out.extend_from_slice(text.as_bytes()),
                    Found::Value(text) => match json::part(text) {
                        Ok(val) => json::write(&val, &mut out, MAX_RESULT_BYTES)?,
                        Err(_) => return Ok(None),
                    },
                    Found::Mismatch(_) => return Ok(None),
                },
                Source::Computed => match results.next().map(|result| &result.val) {
                    Some(Val::Arr(one)) if one.len() == 1 => json::write(&one[0], &mut out, MAX_RESULT_BYTES)?,
                    _ => return Ok(None),
                },
            }
            if out.len() > MAX_RESULT_BYTES {
                return Err(Limit::ResultBytes);
            }
        }
        out.push(b'}');
        // Texts of a text, and what `json::write` writes.
        Ok(String::from_utf8(out).ok())
    }
}

impl Source {
    fn of(value: &Term<&str>) -> Self {
        let constant = match value {
            Term::Var(name) => match NAMES.iter().position(|known| known == name) {
                Some(place) => return Self::Variable(place),
                None => None,
            },
            Term::Obj(fields) if fields.is_empty() => Some("{}".to_owned()),
            Term::Arr(None) => Some("[]".to_owned()),
            Term::Call(word @ ("null" | "true" | "false"), _) => Some((*word).to_owned()),
            Term::Num(digits) => digits.parse::<isize>().ok().map(|integer| integer.to_string()),
            text => literal_text(text).and_then(|text| serde_json::to_string(&text).ok()),
        };
        constant.map_or(Self::Computed, Self::Constant)
    }
}
