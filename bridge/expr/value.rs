//! The value that programs see: jaq's JSON value behind the meter. Every operation pays for itself before it is done;
//! arithmetic, comparison and order are jaq's, and assignments build what is missing, as jq's do.

use std::cmp::Ordering;
use std::fmt;
use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

use bytes::Bytes;
use jaq_core::box_iter::{BoxIter, box_once};
use jaq_core::path::Opt;
use jaq_core::val;
use jaq_json::{Map, Num, Rc, Val};

use super::meter::{self, Limit};

/// The longest string that one operation may build: more than any request's body.
const MAX_STRING: usize = 4 << 20;
/// Indices that an assignment may create: `.[1e9] = 1` would fill memory with nulls.
const MAX_ASSIGNED_INDEX: usize = 10_000;
/// Bits of an integer that a program reckons with: multiplying doubles them.
const MAX_INTEGER_BITS: u64 = 8_192;
/// What a value in an array or an object takes, in bytes, and a little for its place.
const CELL: usize = 32;
/// Bytes of text that are compared, hashed or skipped in the time of one step.
pub(super) const TEXT: usize = 256;

pub(super) type Error = jaq_core::Error<Value>;
pub(super) type Result<T = Value> = std::result::Result<T, Error>;
type ResultX<'a> = val::ValX<'a, Value>;

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
        // The reader's bound on nesting; the real one would cost a walk.
        Self { val, nesting: 128 }
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

/// A field name as a message may show it: the program's own words, not a sender's.
fn shown(index: &Value) -> String {
    match index.str() {
        Ok(name) if name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) => {
            format!("\"{name}\"")
        }
        _ => "such part".to_owned(),
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

/// Metered, and therefore not a derived order: after the budget is spent everything is equal. Nothing is sorted by it
/// (`functions::sort` orders the values inside), for a sort may panic on an order that changes its mind.
impl Ord for Value {
    fn cmp(&self, other: &Self) -> Ordering {
        compare(&self.val, &other.val)
    }
}

impl PartialOrd for Value {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Value {
    fn eq(&self, other: &Self) -> bool {
        same(&self.val, &other.val)
    }
}

impl Eq for Value {}

pub(super) fn same(left: &Val, right: &Val) -> bool {
    if meter::steps(1).is_err() {
        return true;
    }
    match (left, right) {
        (Val::Arr(l), Val::Arr(r)) => {
            Rc::ptr_eq(l, r) || l.len() == r.len() && l.iter().zip(r.iter()).all(|(l, r)| same(l, r))
        }
        (Val::Obj(l), Val::Obj(r)) => {
            Rc::ptr_eq(l, r) || l.len() == r.len() && l.iter().all(|(name, l)| r.get(name).is_some_and(|r| same(l, r)))
        }
        (Val::TStr(l), Val::TStr(r)) => l.len() == r.len() && meter::steps(l.len() / TEXT).is_ok() && l == r,
        (l, r) => l == r,
    }
}

fn compare(left: &Val, right: &Val) -> Ordering {
    if meter::steps(1).is_err() {
        return Ordering::Equal;
    }
    match (left, right) {
        (Val::Arr(l), Val::Arr(r)) => {
            let mut pairs = l.iter().zip(r.iter()).map(|(l, r)| compare(l, r));
            pairs.find(|order| order.is_ne()).unwrap_or_else(|| l.len().cmp(&r.len()))
        }
        // As jq: first the sorted names, then the values in that order.
        (Val::Obj(l), Val::Obj(r)) => {
            let sorted = |fields: &Map| {
                let mut names: Vec<_> = fields.keys().cloned().collect();
                let _ = meter::steps(names.len());
                names.sort();
                names
            };
            let (names, others) = (sorted(l), sorted(r));
            names.cmp(&others).then_with(|| {
                let mut fields = names.iter().filter_map(|name| Some(compare(l.get(name)?, r.get(name)?)));
                fields.find(|order| order.is_ne()).unwrap_or(Ordering::Equal)
            })
        }
        (l, r) => {
            let _ = meter::steps(text_length(l).min(text_length(r)) / TEXT);
            l.cmp(r)
        }
    }
}

pub(super) fn text_length(val: &Val) -> usize {
    if let Val::TStr(text) = val { text.len() } else { 0 }
}

fn bits(number: &Num) -> u64 {
    match number {
        Num::BigInt(big) => big.bits(),
        _ => 64,
    }
}

/// jaq's own operator on what is inside; its message, with what the sides are and not what they hold.
fn reckon(left: Value, sign: &str, right: Value, op: fn(Val, Val) -> jaq_json::ValR) -> Result {
    let sides = (left.kind(), right.kind());
    let nesting = left.nesting.max(right.nesting);
    match op(left.val, right.val) {
        Ok(val) => Ok(Value { val, nesting }),
        Err(_) => Err(error(format!("{} {sign} {} cannot be calculated", sides.0, sides.1))),
    }
}

/// Appending to a value that nobody else holds is cheap; else it is copied first.
fn appending(shared: bool, own: usize, more: usize) -> std::result::Result<(), Limit> {
    meter::steps(1)?;
    meter::bytes(more + if shared { own } else { 0 })
}

impl Add for Value {
    type Output = Result;
    fn add(self, other: Self) -> Result {
        match (&self.val, &other.val) {
            (Val::TStr(l), Val::TStr(r)) => {
                if l.len() + r.len() > MAX_STRING {
                    return Err(meter::stop(Limit::Bytes).into());
                }
                appending(!l.is_unique(), l.len(), r.len())?;
            }
            (Val::Arr(l), Val::Arr(r)) => {
                appending(Rc::strong_count(l) > 1, CELL * l.len(), CELL * r.len())?;
            }
            (Val::Obj(l), Val::Obj(r)) => {
                appending(Rc::strong_count(l) > 1, 2 * CELL * l.len(), 2 * CELL * r.len())?;
            }
            _ => meter::steps(1)?,
        }
        reckon(self, "+", other, Add::add)
    }
}

impl Sub for Value {
    type Output = Result;
    fn sub(self, other: Self) -> Result {
        meter::steps(1)?;
        if let (Val::Arr(l), Val::Arr(_)) = (&self.val, &other.val) {
            meter::bytes(CELL * l.len())?;
            self.weigh()?;
            // Looked up in a sorted set.
            meter::steps(8 * other.weigh()?)?;
        }
        reckon(self, "-", other, Sub::sub)
    }
}

impl Mul for Value {
    type Output = Result;
    fn mul(self, other: Self) -> Result {
        meter::steps(1)?;
        match (&self.val, &other.val) {
            (Val::TStr(text), Val::Num(times)) | (Val::Num(times), Val::TStr(text)) => {
                let times = times.as_isize().map_or(usize::MAX, |times| usize::try_from(times).unwrap_or(0));
                let length = text.len().saturating_mul(times);
                if length > MAX_STRING {
                    return Err(meter::stop(Limit::Bytes).into());
                }
                meter::bytes(length)?;
            }
            (Val::Num(l), Val::Num(r)) if bits(l) + bits(r) > MAX_INTEGER_BITS => {
                return Err(error("the product is an integer of more than 2,400 digits"));
            }
            (Val::Obj(l), Val::Obj(_)) => {
                meter::bytes(2 * CELL * l.len())?;
                let merged = other.weigh()?;
                meter::bytes(2 * CELL * merged)?;
            }
            _ => {}
        }
        reckon(self, "*", other, Mul::mul)
    }
}

impl Div for Value {
    type Output = Result;
    fn div(self, other: Self) -> Result {
        meter::steps(1)?;
        if let (Val::TStr(text), Val::TStr(separator)) = (&self.val, &other.val) {
            let pieces = match separator.len() {
                0 => text.len(),
                width => text.windows(width).filter(|window| *window == &separator[..]).count(),
            };
            meter::steps(pieces + text.len() / TEXT)?;
            meter::bytes(2 * CELL * pieces)?;
        }
        let nested = matches!(self.val, Val::TStr(_));
        let quotient = reckon(self, "/", other, Div::div)?;
        Ok(Self { nesting: u16::from(nested), ..quotient })
    }
}

impl Rem for Value {
    type Output = Result;
    fn rem(self, other: Self) -> Result {
        meter::steps(1)?;
        reckon(self, "%", other, Rem::rem)
    }
}

impl Neg for Value {
    type Output = Result;
    fn neg(self) -> Result {
        meter::steps(1)?;
        match self.val {
            Val::Num(number) => Ok(Self::scalar(Val::Num(-number))),
            _ => Err(error(format!("{self} has no negative"))),
        }
    }
}

/// Items or fields as jaq iterates them, each paid for when it is taken.
fn each<T: 'static>(items: impl Iterator<Item = T> + 'static) -> BoxIter<'static, Result<T>> {
    Box::new(items.map(|item| {
        meter::steps(1)?;
        Ok(item)
    }))
}

/// Taking the items of a shared array or object copies it.
fn own<T: Clone>(shared: Rc<T>, cells: usize) -> std::result::Result<T, Limit> {
    if Rc::strong_count(&shared) > 1 {
        meter::bytes(CELL * cells)?;
    }
    Ok(Rc::try_unwrap(shared).unwrap_or_else(|shared| (*shared).clone()))
}

impl val::ValT for Value {
    fn from_num(n: &str) -> Result {
        meter::steps(1)?;
        Val::from_num(n).map(Self::scalar).map_err(|_| error("a number that cannot be read"))
    }

    fn from_map<I: IntoIterator<Item = (Self, Self)>>(fields: I) -> Result {
        let mut map = Map::default();
        let mut inner = 0;
        for (name, value) in fields {
            meter::steps(1 + text_length(&name.val) / TEXT)?;
            meter::bytes(2 * CELL)?;
            if !matches!(name.val, Val::TStr(_)) {
                return Err(error(format!("{name} as the name of a field")));
            }
            inner = inner.max(value.nesting);
            map.insert(name.val, value.val);
        }
        Self::scalar(Val::obj(map)).around(inner)
    }

    fn key_values(self) -> BoxIter<'static, Result<(Self, Self)>> {
        let nesting = self.nesting.saturating_sub(1);
        let part = move |val| Self { val, nesting };
        match self.val {
            Val::Arr(items) => {
                let cells = items.len();
                match own(items, cells) {
                    Ok(items) => each(items.into_iter().enumerate().map(move |(at, item)| (at.into(), part(item)))),
                    Err(limit) => box_once(Err(limit.into())),
                }
            }
            Val::Obj(fields) => {
                let cells = 2 * fields.len();
                match own(fields, cells) {
                    Ok(fields) => each(fields.into_iter().map(move |(name, item)| (Self::scalar(name), part(item)))),
                    Err(limit) => box_once(Err(limit.into())),
                }
            }
            _ => box_once(Err(error(format!("{self} cannot be iterated")))),
        }
    }

    fn values(self) -> Box<dyn Iterator<Item = Result>> {
        Box::new(self.key_values().map(|pair| pair.map(|(_, value)| value)))
    }

    fn index(self, index: &Self) -> Result {
        meter::steps(1 + text_length(&index.val) / TEXT)?;
        match (&self.val, &index.val) {
            (Val::Null, Val::Null | Val::TStr(_) | Val::Num(_) | Val::Obj(_)) => Ok(Self::default()),
            (Val::Obj(fields), Val::TStr(_)) => {
                Ok(fields.get(&index.val).map_or_else(Self::default, |field| self.part(field.clone())))
            }
            (Val::Arr(items), Val::Num(number)) => {
                // As jq, the place of 1.7 is 1.
                #[allow(clippy::cast_possible_truncation, reason = "saturates, and no array is that long")]
                let at = number.as_isize().or_else(|| index_float(number).map(|float| float.floor() as isize));
                let at =
                    at.and_then(|at| usize::try_from(at).ok().or_else(|| items.len().checked_sub(at.unsigned_abs())));
                Ok(at.and_then(|at| items.get(at)).map_or_else(Self::default, |item| self.part(item.clone())))
            }
            (Val::Arr(_) | Val::TStr(_), Val::Obj(range)) => {
                let end = |name: &'static [u8]| range.get(&Val::utf8_str(name)).cloned().map(Self::scalar);
                let (start, end) = (end(b"start"), end(b"end"));
                self.range(start.as_ref()..end.as_ref())
            }
            _ => Err(error(format!("{self} has no {}", shown(index)))),
        }
    }

    fn range(self, range: val::Range<&Self>) -> Result {
        let size = match &self.val {
            Val::Arr(items) => CELL * items.len(),
            Val::TStr(text) => text.len(),
            Val::Null => return Ok(Self::default()),
            _ => return Err(error(format!("{self} cannot be sliced"))),
        };
        meter::steps(1)?;
        meter::bytes(size)?;
        let nesting = self.nesting;
        let ends = range.start.map(|it| &it.val)..range.end.map(|it| &it.val);
        let slice = self.val.range(ends).map_err(|_| error("a slice whose ends are not integers"))?;
        Ok(Self { val: slice, nesting })
    }

    fn map_values<'a, I: Iterator<Item = ResultX<'a>>>(self, opt: Opt, f: impl Fn(Self) -> I) -> ResultX<'a> {
        let nesting = self.nesting.saturating_sub(1);
        let mut inner = 0;
        let mut paid = |value: Self| -> Result<Val> {
            meter::steps(1)?;
            inner = inner.max(value.nesting);
            Ok(value.val)
        };
        let val = match self.val {
            Val::Arr(items) => {
                let cells = items.len();
                let mut mapped = Vec::with_capacity(cells);
                for val in own(items, cells).map_err(Error::from)? {
                    for value in f(Self { val, nesting }) {
                        mapped.push(paid(value?)?);
                    }
                }
                Val::Arr(Rc::new(mapped))
            }
            Val::Obj(fields) => {
                let cells = 2 * fields.len();
                let mut mapped = Map::default();
                for (name, val) in own(fields, cells).map_err(Error::from)? {
                    meter::steps(1).map_err(Error::from)?;
                    if let Some(value) = f(Self { val, nesting }).next() {
                        mapped.insert(name, paid(value?)?);
                    }
                }
                Val::obj(mapped)
            }
            _ => return opt.fail(self, |it| error(format!("{it} cannot be iterated")).into()),
        };
        Ok(Self::scalar(val).around(inner)?)
    }

    fn map_index<'a, I: Iterator<Item = ResultX<'a>>>(
        self,
        index: &Self,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ResultX<'a> {
        meter::steps(1 + text_length(&index.val) / TEXT).map_err(Error::from)?;
        if let (Val::Arr(_), Val::Obj(range)) = (&self.val, &index.val) {
            let end = |name: &'static [u8]| range.get(&Val::utf8_str(name)).cloned().map(Self::scalar);
            let (start, end) = (end(b"start"), end(b"end"));
            return self.map_range(start.as_ref()..end.as_ref(), opt, f);
        }
        let part = self.nesting.saturating_sub(1);
        let found = |val: Option<&mut Val>| Self { val: val.map(std::mem::take).unwrap_or_default(), nesting: part };
        match (self.val, &index.val) {
            // As jq, an assignment makes the objects and arrays on its way.
            (val @ (Val::Obj(_) | Val::Null), Val::TStr(_)) => {
                let mut fields = if let Val::Obj(fields) = val { fields } else { Rc::default() };
                if Rc::strong_count(&fields) > 1 {
                    meter::bytes(2 * CELL * fields.len()).map_err(Error::from)?;
                }
                let map = Rc::make_mut(&mut fields);
                let new = f(found(map.get_mut(&index.val))).next().transpose()?;
                let inner = new.as_ref().map_or(0, |new| new.nesting);
                match new {
                    Some(new) => {
                        map.insert(index.val.clone(), new.val);
                    }
                    None => {
                        map.shift_remove(&index.val);
                    }
                }
                Ok(Self { val: Val::Obj(fields), nesting: self.nesting }.around(inner)?)
            }
            (val @ (Val::Arr(_) | Val::Null), Val::Num(number)) => {
                let mut items = if let Val::Arr(items) = val { items } else { Rc::default() };
                let at = number
                    .as_isize()
                    .and_then(|at| usize::try_from(at).ok().or_else(|| items.len().checked_sub(at.unsigned_abs())));
                let Some(at) = at.filter(|at| *at <= MAX_ASSIGNED_INDEX.max(items.len())) else {
                    let value = Self { val: Val::Arr(items), nesting: self.nesting };
                    return opt.fail(value, |_| {
                        error(format!("an index outside the array, or above {MAX_ASSIGNED_INDEX}")).into()
                    });
                };
                let grown = (at + 1).saturating_sub(items.len());
                appending(Rc::strong_count(&items) > 1, CELL * items.len(), CELL * grown).map_err(Error::from)?;
                let array = Rc::make_mut(&mut items);
                let new = f(found(array.get_mut(at))).next().transpose()?;
                let inner = new.as_ref().map_or(0, |new| new.nesting);
                match new {
                    Some(new) => {
                        array.resize(array.len().max(at + 1), Val::Null);
                        array[at] = new.val;
                    }
                    None if at < array.len() => {
                        array.remove(at);
                    }
                    None => {}
                }
                Ok(Self { val: Val::Arr(items), nesting: self.nesting }.around(inner)?)
            }
            (val, _) => opt
                .fail(Self { val, nesting: self.nesting }, |it| error(format!("{it} has no {}", shown(index))).into()),
        }
    }

    fn map_range<'a, I: Iterator<Item = ResultX<'a>>>(
        self,
        range: val::Range<&Self>,
        opt: Opt,
        f: impl Fn(Self) -> I,
    ) -> ResultX<'a> {
        if !matches!(self.val, Val::Arr(_)) {
            return opt.fail(self, |it| error(format!("{it} has no slice that could be changed")).into());
        }
        let rest = |from: Option<&Self>, to: Option<&Self>| self.clone().range(from..to);
        let zero = Self::from(0_usize);
        let middle = self.clone().range(range.start..range.end)?;
        // Where the middle begins and ends, in plain indices, whatever was negative, missing or out of bounds.
        let tail = rest(range.start, None)?;
        let (all, from) = (length(&self), length(&self) - length(&tail));
        let to = from + length(&middle);
        let before = rest(Some(&zero), Some(&from.into()))?;
        let after = rest(Some(&to.into()), Some(&all.into()))?;
        let new = f(middle).next().transpose()?.unwrap_or_else(|| Vec::new().into_iter().collect());
        if !matches!(new.val, Val::Arr(_)) {
            return Err(error(format!("{new} in place of a slice of an array")).into());
        }
        Ok(((before + new)? + after)?)
    }

    fn as_bool(&self) -> bool {
        self.val.as_bool()
    }

    fn into_string(self) -> Self {
        if let Val::TStr(_) = self.val {
            return self;
        }
        let mut text = Vec::new();
        // No way to fail here either: a text that grew too long has ended the run.
        let _ = super::json::write(&self.val, &mut text, MAX_STRING).and_then(|()| meter::bytes(text.len()));
        Self::text(text)
    }
}

fn length(value: &Value) -> usize {
    if let Val::Arr(items) = &value.val { items.len() } else { 0 }
}

fn index_float(number: &Num) -> Option<f64> {
    match number {
        Num::Float(float) => Some(*float),
        Num::Dec(text) => text.parse().ok(),
        _ => None,
    }
    .filter(|float| float.is_finite())
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
