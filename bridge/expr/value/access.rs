//! Building a value, taking it apart, and assigning to its parts.

use jaq_core::box_iter::{BoxIter, box_once};
use jaq_core::path::Opt;
use jaq_core::val;
use jaq_json::{Map, Num, Rc, Val};

use super::operators::text_length;
use super::{CELL, Error, MAX_STRING, Result, TEXT, Value, appending, error};
use crate::expr::meter::{self, Limit};

/// Indices that an assignment may create: `.[1e9] = 1` would fill memory with nulls.
const MAX_ASSIGNED_INDEX: usize = 10_000;

type ResultX<'a> = val::ValX<'a, Value>;

/// A field name as a message may show it: the program's own words, not a sender's.
fn shown(index: &Value) -> String {
    match index.str() {
        Ok(name) if name.len() <= 64 && name.bytes().all(|b| b.is_ascii_alphanumeric() || b"_-".contains(&b)) => {
            format!("\"{name}\"")
        }
        _ => "such part".to_owned(),
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
        let _ = crate::expr::json::write(&self.val, &mut text, MAX_STRING).and_then(|()| meter::bytes(text.len()));
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
