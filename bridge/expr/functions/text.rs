//! Text: trimming and the like, which read a sender's string from end to end and therefore pay for its length, and
//! regular expressions, which were compiled with the program.

use jaq_core::native::{bome, unary, v};
use jaq_json::{Map, Val};
use regex_bites::bytes::{Captures, Regex};

use super::Native;
use crate::expr::engine::Cv;
use crate::expr::meter;
use crate::expr::value::{Result, TEXT, Value, error};

/// Matches that one call gives at most.
const MAX_MATCHES: usize = 10_000;

pub(super) fn natives() -> Vec<Native> {
    vec![
        ("startswith", v(1), |cv| unary(cv, |text, part| Ok(paid(&text)?.starts_with(part.str()?).into()))),
        ("endswith", v(1), |cv| unary(cv, |text, part| Ok(paid(&text)?.ends_with(part.str()?).into()))),
        ("ltrimstr", v(1), |cv| unary(cv, |text, part| cut(&text, |it| it.strip_prefix(part.str().ok()?)))),
        ("rtrimstr", v(1), |cv| unary(cv, |text, part| cut(&text, |it| it.strip_suffix(part.str().ok()?)))),
        ("trim", v(0), |cv| bome(trimmed(&cv.1, str::trim))),
        ("ltrim", v(0), |cv| bome(trimmed(&cv.1, str::trim_start))),
        ("rtrim", v(0), |cv| bome(trimmed(&cv.1, str::trim_end))),
        ("re_matches", v(2), |mut cv| {
            let first_only = cv.0.pop_var();
            let place = cv.0.pop_var();
            bome(matches(&cv, &place, first_only == Value::from(true)))
        }),
        ("re_parts", v(1), |mut cv| {
            let place = cv.0.pop_var();
            bome(parts(&cv, &place))
        }),
    ]
}

/// The text, paid for.
fn paid(value: &Value) -> Result<&str> {
    let text = value.str()?;
    meter::steps(1 + text.len() / TEXT)?;
    Ok(text)
}

/// The text within this text; as jq, what is no text is left as it is.
fn cut(value: &Value, f: impl for<'t> Fn(&'t str) -> Option<&'t str>) -> Result {
    if !matches!(value.val, Val::TStr(_)) {
        return Ok(value.clone());
    }
    Ok(f(paid(value)?).map_or_else(|| value.clone(), |text| slice(value, text.as_bytes())))
}

fn trimmed(value: &Value, f: fn(&str) -> &str) -> Result {
    Ok(slice(value, f(paid(value)?).as_bytes()))
}

/// A part of this string, in the same memory.
fn slice(value: &Value, part: &[u8]) -> Value {
    match &value.val {
        Val::TStr(text) => Value::text(text.slice_ref(part)),
        _ => Value::text(part.to_vec()),
    }
}

/// The place of `part` in `text`.
pub(super) fn find(text: &[u8], part: &[u8]) -> Option<usize> {
    let (text, part) = (std::str::from_utf8(text).ok()?, std::str::from_utf8(part).ok()?);
    text.find(part)
}

/// A literal of the program, compiled with it.
#[derive(Debug)]
pub(in crate::expr) struct Pattern {
    regex: Regex,
    /// Flag `g`, or a function that takes every match.
    all: bool,
    /// Flag `n`.
    skip_empty: bool,
}

impl Pattern {
    /// Compiles a literal with jq's flags; what is wrong with it otherwise.
    pub(in crate::expr) fn compile(literal: &str, flags: &str, all: bool) -> std::result::Result<Self, String> {
        /// Of the compiled program, in bytes: enough for any pattern that a person writes.
        const MAX_SIZE: usize = 256 << 10;
        let mut builder = regex_bites::bytes::RegexBuilder::new(literal);
        builder.size_limit(MAX_SIZE);
        let mut pattern = (all, false);
        for flag in flags.chars() {
            match flag {
                'g' => pattern.0 = true,
                'n' => pattern.1 = true,
                'i' => drop(builder.case_insensitive(true)),
                'x' => drop(builder.ignore_whitespace(true)),
                's' => drop(builder.dot_matches_new_line(true)),
                'l' => drop(builder.swap_greed(true)),
                'p' => drop(builder.dot_matches_new_line(true).multi_line(true)),
                other => return Err(format!("a regular expression has no flag `{other}`; there are g n i x s l p")),
            }
        }
        let regex = builder.build().map_err(|reason| format!("the regular expression is broken: {reason}"))?;
        Ok(Self { regex, all: pattern.0, skip_empty: pattern.1 })
    }

    /// The matches in `text`. Each search may read to the end before it knows, and pays for that: a pattern that looks
    /// far ahead at every place takes the square of the text's length.
    fn captures<'t>(&self, text: &'t [u8], first_only: bool) -> Result<Vec<Captures<'t>>> {
        let mut found = Vec::new();
        let mut searches = self.regex.captures_iter(text);
        let mut at = 0;
        loop {
            meter::steps(4)?;
            meter::bytes(2 * (text.len() - at))?;
            let Some(captures) = searches.next() else { return Ok(found) };
            let Some(whole) = captures.get(0) else { return Ok(found) };
            at = whole.end();
            if self.skip_empty && whole.is_empty() {
                continue;
            }
            found.push(captures);
            if first_only || !self.all {
                return Ok(found);
            }
            if found.len() == MAX_MATCHES {
                return Err(error(format!("the regular expression matches more than {MAX_MATCHES} times")));
            }
        }
    }
}

/// The pattern whose place the checker wrote, and the input as text.
fn subject<'a>(cv: &'a Cv<'_>, place: &Value) -> Result<(&'a Pattern, &'a str)> {
    let place = jaq_std::ValT::as_isize(place).and_then(|place| usize::try_from(place).ok());
    let pattern = place.and_then(|place| cv.0.data().pattern(place));
    Ok((pattern.ok_or_else(|| error("a regular expression that is not a literal"))?, cv.1.str()?))
}

/// For each match an array of its groups, the whole first.
fn matches(cv: &Cv<'_>, place: &Value, first_only: bool) -> Result {
    let (pattern, text) = subject(cv, place)?;
    let mut places = Places::new(text);
    let found = pattern.captures(text.as_bytes(), first_only)?;
    found.iter().map(|captures| groups(pattern, captures, &cv.1, &mut places)).collect()
}

/// The text between matches, and the groups of each match, in turn.
fn parts(cv: &Cv<'_>, place: &Value) -> Result {
    let (pattern, text) = subject(cv, place)?;
    let mut places = Places::new(text);
    let mut parts = Vec::new();
    let mut at = 0;
    for captures in pattern.captures(text.as_bytes(), false)? {
        if let Some(whole) = captures.get(0) {
            parts.push(slice(&cv.1, &text.as_bytes()[at..whole.start()]));
            parts.push(groups(pattern, &captures, &cv.1, &mut places)?);
            at = whole.end();
        }
    }
    parts.push(slice(&cv.1, &text.as_bytes()[at..]));
    Ok(parts.into_iter().collect())
}

fn groups(pattern: &Pattern, captures: &Captures<'_>, text: &Value, places: &mut Places<'_>) -> Result {
    let name = |name: &'static str| Val::utf8_str(name);
    let mut groups = Vec::new();
    for (group, named) in captures.iter().zip(pattern.regex.capture_names()) {
        meter::steps(1)?;
        meter::bytes(256)?;
        let mut fields = Map::default();
        let (offset, length, string) = match group {
            Some(group) => {
                let (start, end) = (places.of(group.start()), places.of(group.end()));
                (Val::from(start), Val::from(end.saturating_sub(start)), slice(text, group.as_bytes()).val)
            }
            // As jq says that a group took no part.
            None => (Val::from(-1_isize), Val::from(0_usize), Val::Null),
        };
        fields.insert(name("offset"), offset);
        fields.insert(name("length"), length);
        fields.insert(name("string"), string);
        fields.insert(name("name"), named.map_or(Val::Null, |named| Val::utf8_str(named.to_owned())));
        groups.push(Value::flat_object(fields));
    }
    Ok(groups.into_iter().collect())
}

/// Places in characters, as jq counts them, of places in bytes. Groups come almost in order, so that it counts on from
/// the one before.
struct Places<'t> {
    text: &'t str,
    byte: usize,
    character: usize,
}

impl<'t> Places<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, byte: 0, character: 0 }
    }

    fn of(&mut self, byte: usize) -> usize {
        let (from, to) = (self.byte.min(byte), self.byte.max(byte));
        let between = self.text.as_bytes()[from..to].iter().filter(|byte| **byte & 0xc0 != 0x80).count();
        self.character = if byte >= self.byte { self.character + between } else { self.character - between };
        self.byte = byte;
        self.character
    }
}
