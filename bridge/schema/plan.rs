//! Validation is encoding: a schema is compiled once into a [`Plan`], which writes Avro binary straight from JSON text
//! and finds every violation on the way.
//!
//! ```text
//!  schema text ──▶ apache-avro parses ──▶ compile ──▶ shape (names, indices, defaults as bytes)
//!                                                       │
//!  JSON text ──▶ walk (serde, no Value in between) ──▶ writer ──▶ datum, or violations with pointers
//!                                                       └ record: fields that came in another order are stitched
//! ```
//!
//! # What is taken for what
//!
//! | schema | JSON |
//! |---|---|
//! | int, long | an integer in range. `1.0` and `1e3` are `datatype_mismatch`, what is beyond the range is `out_of_range` |
//! | float, double | any number in range, correctly rounded; an integer only if it is held exactly |
//! | bytes, fixed | a string with a code point up to U+00FF for each byte, as in Avro's JSON encoding |
//! | decimal | a number, read by its own text, or a string that holds one. More digits after the point than the scale are `too_many_digits` (trailing zeros are none), more than the precision `out_of_range` |
//! | uuid | RFC 9562's text; kept as sent where the base type is a string |
//! | date | `YYYY-MM-DD`, or days since 1970 |
//! | time-millis, time-micros | `HH:MM:SS[.fraction]`, or a count since midnight |
//! | timestamp-* | RFC 3339 text with an offset, or a count in the type's own unit since 1970; a count outside the years 2000 to 2100 is `out_of_range`, so that seconds taken for milliseconds are seen |
//! | local-timestamp-* | the same without an offset |
//! | map, record | an object; a key that comes twice is `duplicate_field`, since two readers could see two values |
//!
//! Times finer than the type's unit are cut to it. Other logical types are ignored, as the specification has it, save
//! `big-decimal`, which [`Plan::compile`] refuses.
//!
//! **Unions** take plain JSON: the first branch in the schema's order that takes the value. Avro's tagged form
//! (`{"string": "x"}`, `{"com.acme.Foo": {…}}`) is taken where it can be nothing else: an object that is a record or a
//! map in its own right is that. Of several records, the first wins that fits without unknown fields, then a tag, then
//! the first that fits at all. `datatype_mismatch`: no branch is of the value's kind; `no_branch`: several are, and
//! none takes it.
//!
//! **Fields** are matched by name and by the schema's aliases, a name before an alias. A field that is missing takes its
//! default; only a default fills, so a nullable one without it is `missing_field`. Unknown fields go by the event's
//! `unknown_fields`; with `capture` they go into the record's map of string that says `"hookbridge.capture": true`, on
//! the field or its type: strings as themselves, anything else as its compact JSON text. A capture map that is left out
//! is empty. Records within that have none drop them with a warning; at the root it must be there. (An event in the
//! schema's order is written in one go; a capture map costs least as the last field.)
//!
//! What serde_json itself refuses is `not_json`, to which belongs a number that no double holds (`1e999`) where no
//! number is expected.

// What a schema becomes.
mod compile;
mod default;
mod shape;

// The walk over the text.
mod branch;
mod record;
mod walk;

// What is written, and what is said.
mod decimal;
mod number;
mod pointer;
mod writer;

#[cfg(test)]
pub(super) mod tests;

use serde::Serialize;
use serde::de::DeserializeSeed;

use crate::config::UnknownFields;
pub use record::Scratch;

/// A compiled schema. Shared freely: nothing in it changes.
#[derive(Debug)]
pub struct Plan {
    root: shape::Node,
    unknown: UnknownFields,
}

/// Why a schema cannot be compiled. `path` is the field's: `items[].price`.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the schema is not valid Avro")]
    Schema(#[source] Box<apache_avro::Error>),
    /// Readers of apache-avro 0.22 can be driven to overflow their stack by data of such a schema.
    #[error("{path}: {name} contains itself, and recursive schemas are not supported")]
    Recursive { path: String, name: String },
    #[error("{path}: {what}")]
    Unsupported { path: String, what: String },
    #[error("{path}: the default does not fit: {what}")]
    Default { path: String, what: String },
    #[error("{path}: {what}")]
    CaptureField { path: String, what: String },
    #[error(
        "unknown_fields is `capture`, and {record} has no field to capture into: \
         add a map of string with `\"hookbridge.capture\": true`"
    )]
    NoCaptureField { record: String },
}

impl Plan {
    /// Compiles a schema: Avro's JSON text, self-contained, any type at its root.
    pub fn compile(schema: &str, unknown: UnknownFields) -> Result<Self, Error> {
        let schema = apache_avro::Schema::parse_str(schema).map_err(|error| Error::Schema(Box::new(error)))?;
        Ok(Self { root: compile::compile(&schema, unknown)?, unknown })
    }

    /// Appends the datum of the JSON text to `out`, without a frame. Where it is refused, `out` is as before.
    pub fn encode(&self, json: &[u8], scratch: &mut Scratch, out: &mut Vec<u8>) -> Result<Warnings, Refused> {
        let start = out.len();
        // Once for the whole is cheaper than for each string.
        let text = str::from_utf8(json).map_err(|error| {
            let (line, column) = writer::position(json, error.valid_up_to());
            Refused::NotJson { line, column: column + 1, message: "invalid UTF-8".to_owned() }
        })?;
        let mut writer = writer::Writer::new(text, self.unknown, scratch, out);
        let mut deserializer = serde_json::Deserializer::from_str(text);
        let cursor = walk::Cursor { node: &self.root, at: &pointer::Path::ROOT, writer: &mut writer };
        let read = cursor.deserialize(&mut deserializer).and_then(|()| deserializer.end());
        let finished = writer.finish(read);
        if finished.is_err() {
            out.truncate(start);
        }
        finished
    }
}

/// Unknown fields that were passed over, where someone wants to hear of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Warnings {
    /// JSON pointers of the first hundred.
    pub first: Vec<String>,
    pub total: usize,
}

impl Warnings {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.total == 0
    }
}

/// Why a text became no datum.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Refused {
    /// `line` and `column` count from one, the column in bytes.
    NotJson { line: usize, column: usize, message: String },
    /// More containers within containers than `limit`.
    TooDeep { limit: usize },
    /// JSON, but not of the schema.
    Invalid(Violations),
}

impl Refused {
    /// All of it as violations: what concerns the whole text has the empty pointer.
    #[must_use]
    pub fn into_violations(self) -> Violations {
        let (reason, message) = match self {
            Self::Invalid(violations) => return violations,
            Self::NotJson { line, column, message } => {
                (Reason::NotJson, format!("{message}, at line {line}, column {column}"))
            }
            Self::TooDeep { limit } => (Reason::TooDeep, format!("more than {limit} arrays and objects in each other")),
        };
        Violations { first: vec![Violation { pointer: String::new(), reason, message }], total: 1 }
    }
}

/// What is wrong with an event.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Violations {
    /// The first hundred; those of a record's missing fields come when it ends.
    pub first: Vec<Violation>,
    pub total: usize,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Violation {
    /// RFC 6901, from the event's root; a missing field's is its own. One of more than 512 bytes is cut, with an
    /// ellipsis.
    pub pointer: String,
    pub reason: Reason,
    /// For people. It does not repeat the value.
    pub message: String,
}

/// A bounded set, good for a metric's label; serialized by its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Reason {
    NotJson,
    TooDeep,
    MissingField,
    UnknownField,
    DuplicateField,
    /// A value of another kind: text for a number, a fraction for an integer.
    DatatypeMismatch,
    /// The right kind, and beyond what the type or the precision holds, or not credible as an instant.
    OutOfRange,
    UnknownSymbol,
    /// Text that is no date, decimal, UUID or row of bytes; a fixed of another size.
    BadFormat,
    /// More digits after the point than this scale.
    TooManyDigits(u32),
    /// Several branches of a union are of the value's kind, and none takes it.
    NoBranch,
}

impl Reason {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::NotJson => "not_json",
            Self::TooDeep => "too_deep",
            Self::MissingField => "missing_field",
            Self::UnknownField => "unknown_field",
            Self::DuplicateField => "duplicate_field",
            Self::DatatypeMismatch => "datatype_mismatch",
            Self::OutOfRange => "out_of_range",
            Self::UnknownSymbol => "unknown_symbol",
            Self::BadFormat => "bad_format",
            Self::TooManyDigits(_) => "too_many_digits",
            Self::NoBranch => "no_branch",
        }
    }
}

impl Serialize for Reason {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}
