//! Comparing and reckoning: what jaq says, once it is paid for.

use std::cmp::Ordering;
use std::ops::{Add, Div, Mul, Neg, Rem, Sub};

use jaq_json::{Map, Num, Rc, Val};

use super::{CELL, MAX_STRING, Result, TEXT, Value, appending, error};
use crate::expr::meter::{self, Limit};

/// Bits of an integer that a program reckons with: multiplying doubles them.
const MAX_INTEGER_BITS: u64 = 8_192;

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

pub(in crate::expr) fn same(left: &Val, right: &Val) -> bool {
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

pub(in crate::expr) fn text_length(val: &Val) -> usize {
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
