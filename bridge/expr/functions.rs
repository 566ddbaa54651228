//! The functions that a program may call: jaq's, from an allow-list, with our own in place of those that could be
//! driven without bound, and the added ones (`identity`, `money`).

mod allowed;
mod identity;
mod money;
mod text;

use jaq_core::box_iter::box_once;
use jaq_core::load::parse::Def;
use jaq_core::native::{Fun, bome, run, unary, v};
use jaq_core::{Bind, Exn, RunPtr, ValXs};
use jaq_json::{Rc, Val};
use jaq_std::ValT as _;

use super::engine::{Cv, ENTER, Engine, Entry};
use super::meter;
use super::value::{Error, Result, Value, error, same};

pub(super) use allowed::{is_callable, refusal};
pub(super) use text::Pattern;

/// Values that `range` gives at most: its bound may be a sender's number.
const MAX_RANGE: usize = 10_000;

type Native = (&'static str, Box<[Bind]>, RunPtr<Engine>);

/// Definitions in jq itself: what of jaq's is allowed, then ours, which may shadow them.
pub(super) fn definitions() -> impl Iterator<Item = Def<&'static str>> {
    let jaq = jaq_core::defs().chain(jaq_std::defs()).chain(jaq_json::defs());
    let ours = parse_definitions(include_str!("functions/definitions.jq"));
    jaq.filter(|def| allowed::is_kept(def.name, def.args.len())).chain(ours)
}

fn parse_definitions(text: &'static str) -> Vec<Def<&'static str>> {
    jaq_core::load::parse(text, |parser| parser.defs()).unwrap_or_default()
}

/// Functions in Rust.
pub(super) fn natives() -> impl Iterator<Item = Fun<Engine>> {
    let jaq = jaq_core::funs().chain(jaq_std::funs());
    let jaq = jaq.filter_map(|(name, args, fun)| Some((allowed::native(name, args.len())?, args, fun)));
    let ours = basic().into_iter().chain(text::natives()).chain(identity::natives()).chain(money::natives());
    jaq.chain(ours.map(|native| run::<Engine>(native))).chain([tick(), run::<Engine>(enter())])
}

/// `.` that pays a step. The checker puts it after every comma, the one way for a program to branch without an
/// operation on a value.
fn tick() -> Fun<Engine> {
    let native = jaq_core::Native::new(|cv: Cv<'_>| once(pay(cv.1)))
        .with_paths(|cv| box_once(meter::steps(1).map(|()| cv.1).map_err(|limit| Error::from(limit).into())))
        .with_update(|cv, f| match meter::steps(1) {
            Ok(()) => f(cv.1),
            Err(limit) => box_once(Err(Error::from(limit).into())),
        });
    (super::check::TICK, v(0), native)
}

/// Runs the form of the program that is asked for, of the three that it is given.
fn enter() -> Native {
    let forms: Box<[Bind]> = [Bind::Fun(()), Bind::Fun(()), Bind::Fun(())].into();
    (ENTER, forms, |mut cv| {
        let entry = cv.0.data().entry();
        let (fields, lifted, whole) = (cv.0.pop_fun(), cv.0.pop_fun(), cv.0.pop_fun());
        let (form, ctx) = match entry {
            Entry::Whole => whole,
            Entry::Lifted => lifted,
            Entry::Fields => fields,
        };
        form.run((ctx, cv.1))
    })
}

fn pay(value: Value) -> Result {
    meter::steps(1)?;
    Ok(value)
}

fn once<'a>(result: Result) -> ValXs<'a, Value> {
    bome(result)
}

fn basic() -> Vec<Native> {
    let closure = || -> Box<[Bind]> { [Bind::Fun(())].into() };
    vec![
        ("range", v(3), |mut cv| {
            let (by, to, from) = (cv.0.pop_var(), cv.0.pop_var(), cv.0.pop_var());
            range(from, to, by)
        }),
        ("length", v(0), |cv| once(length(cv.1))),
        ("tojson", v(0), |cv| once(to_json(&cv.1))),
        ("fromjson", v(0), |cv| once(from_json(&cv.1))),
        ("has", v(1), |cv| unary(cv, |value, key| has(&value, &key))),
        ("contains", v(1), |cv| unary(cv, |value, other| contains(&value.val, &other.val).map(Value::from))),
        ("indices", v(1), |cv| unary(cv, |value, wanted| indices(&value, &wanted))),
        ("sort", v(0), |cv| once(sort(cv.1))),
        ("sort_by", closure(), |mut cv| {
            let (f, ctx) = cv.0.pop_fun();
            box_once(
                keyed(cv.1, |value| f.run((ctx.clone(), value)))
                    .map(|(keyed, whole)| whole.part_of(keyed.into_iter().map(|(_, val)| val).collect())),
            )
        }),
        ("group_by", closure(), |mut cv| {
            let (f, ctx) = cv.0.pop_fun();
            box_once(keyed(cv.1, |value| f.run((ctx.clone(), value))).map(|(keyed, whole)| group(keyed, &whole)))
        }),
        ("in_calendar", v(0), |cv| once(in_calendar(cv.1))),
    ]
}

/// As jq's, but never more than [`MAX_RANGE`] values.
fn range<'a>(from: Value, to: Value, by: Value) -> ValXs<'a, Value> {
    let zero = Value::from(0_usize);
    let up = by > zero;
    let down = by < zero;
    let mut next = Some(Ok(from));
    let mut count = 0;
    Box::new(std::iter::from_fn(move || {
        let at: Value = match next.take()? {
            Ok(at) => at,
            Err(error) => return Some(Err(Exn::from(error))),
        };
        let inside = if up { at < to } else { down && at > to };
        if !inside {
            return None;
        }
        count += 1;
        if count > MAX_RANGE {
            return Some(Err(error(format!("range gives at most {MAX_RANGE} values")).into()));
        }
        next = Some(at.clone() + by.clone());
        Some(Ok(at))
    }))
}

fn length(value: Value) -> Result {
    meter::steps(1)?;
    Ok(match &value.val {
        Val::Null => 0_usize.into(),
        Val::TStr(text) | Val::BStr(text) => {
            meter::steps(text.len() / super::value::TEXT)?;
            String::from_utf8_lossy(text).chars().count().into()
        }
        Val::Arr(items) => items.len().into(),
        Val::Obj(fields) => fields.len().into(),
        Val::Num(_) if value < Value::from(0_usize) => return -value,
        Val::Num(_) => value,
        Val::Bool(_) => return Err(error("a boolean has no length")),
    })
}

fn to_json(value: &Value) -> Result {
    let mut text = Vec::new();
    super::json::write(&value.val, &mut text, super::MAX_RESULT_BYTES)?;
    meter::bytes(text.len())?;
    Ok(Value::text(text))
}

fn from_json(value: &Value) -> Result {
    let Val::TStr(text) = &value.val else {
        return Err(error(format!("{value} is not JSON text")));
    };
    // A value in memory takes many times its text: `[1,1,1,…`
    meter::bytes(16 * text.len())?;
    super::json::parse(text).map(Value::input).map_err(|reason| error(format!("the text is not JSON: {reason}")))
}

fn has(value: &Value, key: &Value) -> Result {
    meter::steps(1 + super::value::text_length(&key.val) / super::value::TEXT)?;
    Ok(match (&value.val, &key.val) {
        (Val::Obj(fields), Val::TStr(_)) => fields.contains_key(&key.val).into(),
        (Val::Arr(items), Val::Num(_)) => key.as_f64().is_some_and(|at| at >= 0.0 && at < count(items.len())).into(),
        _ => return Err(error(format!("{value} cannot be asked whether it has {key}"))),
    })
}

#[allow(clippy::cast_precision_loss, reason = "no array is that long")]
fn count(length: usize) -> f64 {
    length as f64
}

fn contains(whole: &Val, part: &Val) -> Result<bool> {
    meter::steps(1)?;
    Ok(match (whole, part) {
        (Val::TStr(whole), Val::TStr(part)) => {
            meter::bytes(whole.len())?;
            part.is_empty() || text::find(whole, part).is_some()
        }
        (Val::Arr(whole), Val::Arr(parts)) => {
            for part in parts.iter() {
                let mut found = false;
                for item in whole.iter() {
                    if contains_or_differs(item, part)? {
                        found = true;
                        break;
                    }
                }
                if !found {
                    return Ok(false);
                }
            }
            true
        }
        (Val::Obj(whole), Val::Obj(parts)) => {
            for (name, part) in parts.iter() {
                match whole.get(name) {
                    Some(item) if contains_or_differs(item, part)? => {}
                    _ => return Ok(false),
                }
            }
            true
        }
        (Val::Null, Val::Null) => true,
        (Val::Bool(l), Val::Bool(r)) => l == r,
        (Val::Num(l), Val::Num(r)) => l == r,
        _ => {
            let (whole, part) = (Value::scalar(whole.clone()), Value::scalar(part.clone()));
            return Err(error(format!("{whole} cannot be asked whether it contains {part}")));
        }
    })
}

/// Within an array or object, a value of another type is simply not contained.
fn contains_or_differs(whole: &Val, part: &Val) -> Result<bool> {
    match (whole, part) {
        (Val::TStr(_), Val::TStr(_)) | (Val::Arr(_), Val::Arr(_)) | (Val::Obj(_), Val::Obj(_)) => contains(whole, part),
        _ => Ok(same(whole, part)),
    }
}

fn indices(value: &Value, wanted: &Value) -> Result {
    meter::steps(1)?;
    let places: Vec<usize> = match (&value.val, &wanted.val) {
        (Val::Null, _) => return Ok(Value::default()),
        (Val::TStr(text), Val::TStr(part)) => {
            // Places are characters, as in jq.
            meter::bytes(text.len())?;
            let (text, part) = (String::from_utf8_lossy(text), String::from_utf8_lossy(part));
            let starts = |(_, rest): &(usize, &str)| !part.is_empty() && rest.starts_with(&*part);
            text.char_indices().map(|(at, _)| &text[at..]).enumerate().filter(starts).map(|(at, _)| at).collect()
        }
        (Val::Arr(items), Val::Arr(part)) if part.is_empty() || part.len() > items.len() => Vec::new(),
        (Val::Arr(items), Val::Arr(part)) => {
            let matching = |window: &[Val]| window.iter().zip(part.iter()).all(|(l, r)| same(l, r));
            items.windows(part.len()).enumerate().filter(|(_, window)| matching(window)).map(|(at, _)| at).collect()
        }
        (Val::Arr(items), one) => {
            items.iter().enumerate().filter(|(_, item)| same(item, one)).map(|(at, _)| at).collect()
        }
        _ => return Err(error(format!("{value} has no places of {wanted}"))),
    };
    Ok(places.into_iter().map(Value::from).collect())
}

/// Pays for a sort of this weight before it begins; the order itself is jaq's own, unmetered and therefore whole.
fn pay_for_sorting(value: &Value) -> Result<()> {
    let weight = value.weigh()?;
    // Each value is compared about log2 n times.
    meter::steps(weight.saturating_mul(weight.max(2).ilog2() as usize))?;
    meter::bytes(32 * weight)?;
    Ok(())
}

fn sort(value: Value) -> Result {
    pay_for_sorting(&value)?;
    let whole = value.clone();
    let mut items = value.array()?;
    Rc::make_mut(&mut items).sort();
    Ok(whole.part_of(Rc::unwrap_or_clone(items)))
}

type Keyed = Vec<(Vec<Val>, Val)>;

/// The items of an array with what `f` says of each, in that order.
fn keyed<'a>(
    value: Value,
    f: impl Fn(Value) -> ValXs<'a, Value>,
) -> std::result::Result<(Keyed, Value), Exn<'a, Value>> {
    let whole = value.clone();
    let items = value.array()?;
    let mut keyed = Vec::new();
    let mut weight = 0_usize;
    for item in items.iter() {
        let mut keys = Vec::new();
        for key in f(whole.part(item.clone())) {
            let key = key?;
            weight += key.weigh().map_err(Error::from)?;
            keys.push(key.val);
        }
        meter::steps(1).and_then(|()| meter::bytes(64)).map_err(Error::from)?;
        keyed.push((keys, item.clone()));
    }
    meter::steps(weight.saturating_mul(weight.max(2).ilog2() as usize)).map_err(Error::from)?;
    keyed.sort_by(|(l, _), (r, _)| l.cmp(r));
    Ok((keyed, whole))
}

fn group(keyed: Keyed, whole: &Value) -> Value {
    let mut groups: Vec<(Vec<Val>, Vec<Value>)> = Vec::new();
    for (keys, val) in keyed {
        let item = whole.part(val);
        match groups.last_mut() {
            Some((last, group)) if *last == keys => group.push(item),
            _ => groups.push((keys, vec![item])),
        }
    }
    groups.into_iter().map(|(_, group)| group.into_iter().collect()).collect()
}

/// The argument of a date function, where the calendar has it: years 0 to 9999. Further out jaq's arithmetic wraps
/// around to a wrong date in silence.
fn in_calendar(value: Value) -> Result {
    const SECONDS: std::ops::RangeInclusive<f64> = -62_167_219_200.0..=253_402_300_799.0;
    meter::steps(1)?;
    let sound = match &value.val {
        Val::Num(_) => value.as_f64().is_some_and(|seconds| SECONDS.contains(&seconds)),
        Val::Arr(parts) => {
            let part = |at: usize| parts.get(at).cloned().map(Value::scalar).and_then(|part| part.as_f64());
            let within = |at, max| part(at).is_some_and(|part| (0.0..=max).contains(&part));
            within(0, 9999.0) && within(1, 11.0) && (2..6).all(|at| within(at, 61.0))
        }
        _ => return Err(error(format!("{value} is not a time"))),
    };
    if sound { Ok(value) } else { Err(error("a time outside the years 0 to 9999: seconds are meant")) }
}
