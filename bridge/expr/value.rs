//! The value that programs see: jaq's JSON value behind the meter. Every operation pays for itself before it is done;
//! arithmetic, comparison and order are jaq's, and assignments build what is missing, as jq's do.

mod access;
mod operators;

use std::fmt;

use bytes::Bytes;
use jaq_core::val;
use jaq_json::{Map, Num, Rc, Val};

pub(super) use operators::{same, text_length};

use super::meter::{self, Limit};

/// The longest string that one operation may build: more than any request's body.
const MAX_STRING: usize = 4 << 20;
/// What a value in an array or an object takes, in bytes, and a little for its place.
const CELL: usize = 32;
/// Bytes of text that are compared, hashed or skipped in the time of one step.
pub(super) const TEXT: usize = 256;

/// The reader's bound on nesting; the real one would cost a walk.
const INPUT_NESTING: u16 = 128;

pub(super) type Error = jaq_core::Error<Value>;
pub(super) type Result<T = Value> = std::result::Result<T, Error>;

/// A JSON value, and no less than its nesting.
#[derive(Clone, Debug, Default)]
pub(super) struct Value {
    pub(super) val: Val,
    nesting: u16,
}

impl From<Limit> for Error {
    fn from(limit: Limit) -> Self {
        Error::new(Value::text(limit.to_string()))
    }
}

/// An error of ours, for the people who wrote the program.
pub(super) fn error(text: impl Into<String>) -> Error {
    Error::new(Value::text(text.into()))
}

impl Value {
    /// A value read from input.
    pub(super) fn input(val: Val) -> Self {
        Self::input_at(val, 0)
    }

    /// A value read from input, so many steps below the root.
    pub(super) fn input_at(val: Val, depth: usize) -> Self {
        Self { val, nesting: u16::try_from(depth).map_or(0, |depth| INPUT_NESTING.saturating_sub(depth)) }
    }

    pub(super) fn scalar(val: Val) -> Self {
        Self { val, nesting: 0 }
    }

    pub(super) fn text(text: impl Into<Bytes>) -> Self {
        Self::scalar(Val::utf8_str(text))
    }

    /// An object whose fields are scalars.
    pub(super) fn flat_object(fields: Map) -> Self {
        Self { val: Val::obj(fields), nesting: 1 }
    }

    /// An array of this array's own items.
    pub(super) fn part_of(self, items: Vec<Val>) -> Self {
        Self { val: Val::Arr(Rc::new(items)), ..self }
    }

    /// A part of this value.
    pub(super) fn part(&self, val: Val) -> Self {
        Self { val, nesting: self.nesting.saturating_sub(1) }
    }

    /// This value, with another inside.
    fn around(self, inner: u16) -> Result {
        let nesting = self.nesting.max(inner + 1);
        if nesting > meter::MAX_NESTING {
            return Err(meter::stop(Limit::Nesting).into());
        }
        Ok(Self { val: self.val, nesting })
    }

    /// jq's name of the type.
    pub(super) fn kind(&self) -> &'static str {
        match self.val {
            Val::Null => "null",
            Val::Bool(_) => "boolean",
            Val::Num(_) => "number",
            Val::TStr(_) | Val::BStr(_) => "string",
            Val::Arr(_) => "array",
            Val::Obj(_) => "object",
        }
    }

    pub(super) fn str(&self) -> Result<&str> {
        match &self.val {
            Val::TStr(bytes) | Val::BStr(bytes) => {
                std::str::from_utf8(bytes).map_err(|_| error("a string that is not UTF-8"))
            }
            _ => Err(error(format!("{self} where a string is wanted"))),
        }
    }

    pub(super) fn array(self) -> Result<Rc<Vec<Val>>> {
        match self.val {
            Val::Arr(items) => Ok(items),
            _ => Err(error(format!("{self} where an array is wanted"))),
        }
    }

    /// Values in this one, itself included, each paid for; `Err` where there are more than the budget has steps.
    /// Values share their parts, so a few steps can build one that has millions.
    pub(super) fn weigh(&self) -> std::result::Result<usize, Limit> {
        fn weigh(val: &Val) -> std::result::Result<usize, Limit> {
            meter::steps(1)?;
            let mut weight = 1;
            match val {
                Val::Arr(items) => items.iter().try_for_each(|item| weigh(item).map(|more| weight += more))?,
                Val::Obj(fields) => fields.values().try_for_each(|item| weigh(item).map(|more| weight += more))?,
                // Text is compared by the byte.
                Val::TStr(text) | Val::BStr(text) => weight += text.len() / TEXT,
                _ => {}
            }
            Ok(weight)
        }
        weigh(&self.val)
    }
}

/// For messages: what sort of value it is. What a customer's event holds is not for logs.
impl fmt::Display for Value {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self.val {
            Val::Null => "null",
            Val::Bool(_) => "a boolean",
            Val::Num(_) => "a number",
            Val::TStr(_) | Val::BStr(_) => "a string",
            Val::Arr(_) => "an array",
            Val::Obj(_) => "an object",
        })
    }
}

impl From<bool> for Value {
    fn from(it: bool) -> Self {
        Self::scalar(it.into())
    }
}

impl From<isize> for Value {
    fn from(it: isize) -> Self {
        Self::scalar(it.into())
    }
}

impl From<usize> for Value {
    fn from(it: usize) -> Self {
        Self::scalar(it.into())
    }
}

impl From<f64> for Value {
    fn from(it: f64) -> Self {
        Self::scalar(it.into())
    }
}

impl From<String> for Value {
    fn from(it: String) -> Self {
        // No way to fail here: the next operation that can will.
        let _ = meter::bytes(it.len());
        Self::text(it)
    }
}

impl From<val::Range<Value>> for Value {
    fn from(range: val::Range<Value>) -> Self {
        let ends = [("start", range.start), ("end", range.end)];
        let fields: Map = ends
            .into_iter()
            .filter_map(|(name, end)| end.map(|end| (Val::utf8_str(name.as_bytes().to_vec()), end.val)))
            .collect();
        Self::flat_object(fields)
    }
}

impl FromIterator<Value> for Value {
    fn from_iter<I: IntoIterator<Item = Value>>(items: I) -> Self {
        let mut array = Vec::new();
        let mut inner = 0;
        for item in items {
            // There is no way to fail here. A spent meter ends the run, so what is left out is never seen.
            if meter::steps(1).and_then(|()| meter::bytes(CELL)).is_err() {
                break;
            }
            inner = inner.max(item.nesting);
            array.push(item.val);
        }
        Self::scalar(Val::Arr(Rc::new(array))).around(inner).unwrap_or_default()
    }
}

/// Appending to a value that nobody else holds is cheap; else it is copied first.
fn appending(shared: bool, own: usize, more: usize) -> std::result::Result<(), Limit> {
    meter::steps(1)?;
    meter::bytes(more + if shared { own } else { 0 })
}

impl jaq_std::ValT for Value {
    fn into_seq<S: FromIterator<Self>>(self) -> std::result::Result<S, Self> {
        let nesting = self.nesting.saturating_sub(1);
        match self.val {
            Val::Arr(items) => {
                let _ = meter::steps(items.len() / 8);
                Ok(items.iter().map(|val| Self { val: val.clone(), nesting }).collect())
            }
            _ => Err(self),
        }
    }

    fn is_int(&self) -> bool {
        matches!(&self.val, Val::Num(Num::Int(_) | Num::BigInt(_)))
    }

    fn as_isize(&self) -> Option<isize> {
        jaq_std::ValT::as_isize(&self.val)
    }

    fn as_f64(&self) -> Option<f64> {
        jaq_std::ValT::as_f64(&self.val)
    }

    fn is_utf8_str(&self) -> bool {
        jaq_std::ValT::is_utf8_str(&self.val)
    }

    fn as_bytes(&self) -> Option<&[u8]> {
        jaq_std::ValT::as_bytes(&self.val)
    }

    fn as_sub_str(&self, sub: &[u8]) -> Self {
        Self::scalar(self.val.as_sub_str(sub))
    }

    fn from_utf8_bytes(bytes: impl AsRef<[u8]> + Send + 'static) -> Self {
        let _ = meter::bytes(bytes.as_ref().len());
        Self::text(Bytes::from_owner(bytes))
    }
}
