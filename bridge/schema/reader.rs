//! A datum as JSON, in one pass: a writer schema is compiled once into a [`Reader`], which walks the bytes and appends
//! their text. No tree of values is built on the way, and nothing is allocated but the text.
//!
//! ```text
//!  writer schema ──compile──▶ Node (fields' names quoted, symbols quoted, scales and sizes settled)
//!  datum ──walk──▶ text       strings, numbers, times      ──▶ JSON, or what is wrong with the bytes
//! ```
//!
//! Nothing is rounded on the way. The forms are those that [`plan`](super::plan) reads, so that an event that came in as
//! JSON goes out as the same JSON:
//!
//! | Avro | JSON |
//! |---|---|
//! | int, long, decimal | a number with all its digits (`19.90`) |
//! | float, double | the shortest number that reads back the same; `"NaN"`, `"Infinity"`, `"-Infinity"` as text |
//! | bytes, fixed | a text with a code point up to U+00FF for each byte, as in Avro's JSON encoding |
//! | uuid | its text, in lower case |
//! | timestamp | RFC 3339 text in UTC, with the digits of its unit |
//! | local timestamp, date, time | the same, without a zone |
//! | duration | ISO 8601 text (`P1M2DT3.004S`) |
//! | union | the plain value, without its branch's name |
//! | map | an object, its keys sorted: the same event is always the same bytes. Of a key that comes twice the last counts |
//!
//! A big-decimal is left to apache-avro, whose own type it is.

mod compile;
#[cfg(test)]
mod tests;
pub(crate) mod text;
mod walk;

use std::ops::Range;

use apache_avro::Schema;

use super::shape;

/// Deeper nesting than any event of ours has; the recursion must end even for a foreign producer's.
const MAX_DEPTH: usize = 64;

/// Bytes of text that one datum may become. The largest body that is taken by default is 1 MiB; beyond this are data that
/// are little themselves and repeat the long names of a schema.
const MAX_TEXT: usize = 64 << 20;

/// A compiled writer schema. Shared freely: nothing in it changes.
#[derive(Debug)]
pub struct Reader {
    root: compile::Node,
    /// Bytes of what every datum repeats: the names of the fields, those of a record counted once.
    names: usize,
}

/// Why a datum is no value of the schema. `behind`: the bytes before the place, of the whole.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("it ends within a value")]
    Ended,
    #[error("{left} bytes are left behind it")]
    Trailing { left: usize },
    #[error("{expected} expected, {left} bytes before its end")]
    Value { expected: &'static str, left: usize },
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
    #[error("more than {MAX_TEXT} bytes of JSON")]
    TooLarge,
}

impl Reader {
    /// Compiles a schema that [`shape::check`] has passed: nothing in it contains itself, and no items are without bytes.
    ///
    /// # Errors
    /// [`shape::Error::Undefined`]: a name of which the schema does not say what it is.
    pub fn compile(schema: &Schema) -> Result<Self, shape::Error> {
        let (root, names) = compile::compile(schema)?;
        Ok(Self { root, names })
    }

    /// Appends the JSON of a whole datum (without a frame) to `out`. Where it is refused, `out` is as before.
    pub fn write(&self, datum: &[u8], out: &mut Vec<u8>) -> Result<(), Error> {
        self.write_noting(datum, "", out).map(|_| ())
    }

    /// The same; gives besides where in `out` the value of the event's field `noted` came to stand, where it has one.
    pub fn write_noting(&self, datum: &[u8], noted: &str, out: &mut Vec<u8>) -> Result<Option<Range<usize>>, Error> {
        let start = out.len();
        // Texts are as long as they were, with quotes; numbers become longer, and what takes no byte becomes a null.
        out.reserve(self.names + datum.len() + datum.len() / 4);
        let written = walk::Walk::new(datum, out).whole(&self.root, noted);
        if written.is_err() {
            out.truncate(start);
        }
        written
    }
}
