//! JSON text to jaq's values and back, strictly by RFC 8259, with every digit of every number kept.
//! jaq's own reader takes a superset (comments, `NaN`, raw bytes) and nests without a limit.

use bytes::Bytes;
use jaq_json::{Map, Num, Rc, Val};

use super::meter::{self, Limit};

/// Nesting of input, the same as `serde_json`'s, so that what is read here is what the encoder reads.
const MAX_NESTING: usize = 128;
/// Digits of an integer that one can reckon with; longer ones are carried as text, since the time to read a big
/// integer grows with the square of its length.
const MAX_INTEGER_DIGITS: usize = 1_000;

/// Why text is not JSON, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{what} at byte {at}")]
pub struct NotJson {
    pub what: &'static str,
    pub at: usize,
}

/// Reads exactly one JSON value. Strings without escapes share `text`'s memory.
pub(super) fn parse(text: &Bytes) -> Result<Val, NotJson> {
    if let Err(error) = std::str::from_utf8(text) {
        return Err(NotJson { what: "a byte that is not UTF-8", at: error.valid_up_to() });
    }
    let mut reader = Reader { text, at: 0 };
    let value = reader.value(0)?;
    reader.space();
    if reader.at < text.len() {
        return Err(reader.fail("text after the end of the value"));
    }
    Ok(value)
}

/// Reads a value of which the look-up has found the text.
pub(super) fn part(text: &str) -> Result<Val, NotJson> {
    match (text, plain(text)) {
        (_, Some(plain)) => Ok(Val::utf8_str(Bytes::copy_from_slice(plain.as_bytes()))),
        ("null", _) => Ok(Val::Null),
        ("true", _) => Ok(Val::Bool(true)),
        ("false", _) => Ok(Val::Bool(false)),
        _ => parse(&Bytes::copy_from_slice(text.as_bytes())),
    }
}

/// What a string holds, where nothing in it is escaped.
pub(super) fn plain(text: &str) -> Option<&str> {
    let inside = text.strip_prefix('"')?.strip_suffix('"')?;
    (!inside.as_bytes().contains(&b'\\')).then_some(inside)
}

/// Whether a value's text is what [`write()`] would write, as far as that is seen at a glance.
pub(super) fn is_compact(text: &str) -> bool {
    match text.as_bytes().first() {
        Some(b'"') => plain(text).is_some(),
        Some(b'{' | b'[') => false,
        _ => text != "-0",
    }
}

struct Reader<'t> {
    text: &'t Bytes,
    at: usize,
}

impl Reader<'_> {
    fn fail(&self, what: &'static str) -> NotJson {
        NotJson { what, at: self.at }
    }

    fn peek(&self) -> Option<u8> {
        self.text.get(self.at).copied()
    }

    fn space(&mut self) {
        while matches!(self.peek(), Some(b' ' | b'\t' | b'\n' | b'\r')) {
            self.at += 1;
        }
    }

    /// After white space, takes `byte` where it is next.
    fn take(&mut self, byte: u8) -> bool {
        self.space();
        let there = self.peek() == Some(byte);
        self.at += usize::from(there);
        there
    }

    fn value(&mut self, nesting: usize) -> Result<Val, NotJson> {
        if nesting > MAX_NESTING {
            return Err(self.fail("a value nested more than 128 deep"));
        }
        self.space();
        match self.peek() {
            Some(b'{') => self.object(nesting),
            Some(b'[') => self.array(nesting),
            Some(b'"') => self.string(),
            Some(b'-' | b'0'..=b'9') => self.number(),
            Some(b't') => self.word(b"true", Val::Bool(true)),
            Some(b'f') => self.word(b"false", Val::Bool(false)),
            Some(b'n') => self.word(b"null", Val::Null),
            Some(_) => Err(self.fail("no value")),
            None => Err(self.fail("an early end")),
        }
    }

    fn word(&mut self, word: &[u8], value: Val) -> Result<Val, NotJson> {
        if !self.text[self.at..].starts_with(word) {
            return Err(self.fail("no value"));
        }
        self.at += word.len();
        Ok(value)
    }

    fn array(&mut self, nesting: usize) -> Result<Val, NotJson> {
        self.at += 1;
        let mut items = Vec::new();
        if !self.take(b']') {
            loop {
                items.push(self.value(nesting + 1)?);
                if self.take(b']') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.fail("no comma or bracket"));
                }
            }
        }
        Ok(Val::Arr(Rc::new(items)))
    }

    fn object(&mut self, nesting: usize) -> Result<Val, NotJson> {
        self.at += 1;
        let mut fields = Map::default();
        if !self.take(b'}') {
            loop {
                self.space();
                if self.peek() != Some(b'"') {
                    return Err(self.fail("no field name"));
                }
                let name = self.string()?;
                if !self.take(b':') {
                    return Err(self.fail("no colon"));
                }
                let value = self.value(nesting + 1)?;
                fields.insert(name, value);
                if self.take(b'}') {
                    break;
                }
                if !self.take(b',') {
                    return Err(self.fail("no comma or brace"));
                }
            }
        }
        Ok(Val::obj(fields))
    }

    fn string(&mut self) -> Result<Val, NotJson> {
        let start = self.at;
        let mut escaped = false;
        self.at += 1;
        loop {
            let rest = self.text.get(self.at..).unwrap_or_default();
            let plain = rest.iter().position(|byte| matches!(byte, b'"' | b'\\' | 0..=0x1f));
            self.at += plain.unwrap_or(rest.len());
            match self.peek() {
                Some(b'"') => break,
                Some(b'\\') => {
                    escaped = true;
                    self.at += 2;
                }
                Some(_) => return Err(self.fail("a control character in a string")),
                None => return Err(self.fail("an early end")),
            }
        }
        self.at += 1;
        if !escaped {
            return Ok(Val::utf8_str(self.text.slice(start + 1..self.at - 1)));
        }
        let unescaped: String = serde_json::from_slice(&self.text[start..self.at])
            .map_err(|_| NotJson { what: "a broken escape in the string", at: start })?;
        Ok(Val::utf8_str(unescaped))
    }

    fn digits(&mut self) -> Result<usize, NotJson> {
        let start = self.at;
        while matches!(self.peek(), Some(b'0'..=b'9')) {
            self.at += 1;
        }
        if self.at == start { Err(self.fail("no digit")) } else { Ok(self.at - start) }
    }

    fn number(&mut self) -> Result<Val, NotJson> {
        let start = self.at;
        self.at += usize::from(self.peek() == Some(b'-'));
        let first = self.peek();
        let whole = self.digits()?;
        if first == Some(b'0') && whole > 1 {
            return Err(self.fail("a number with a leading zero"));
        }
        let mut integer = whole <= MAX_INTEGER_DIGITS;
        if self.peek() == Some(b'.') {
            self.at += 1;
            self.digits()?;
            integer = false;
        }
        if matches!(self.peek(), Some(b'e' | b'E')) {
            self.at += 1;
            self.at += usize::from(matches!(self.peek(), Some(b'+' | b'-')));
            self.digits()?;
            integer = false;
        }
        let text = std::str::from_utf8(&self.text[start..self.at]).map_err(|_| self.fail("no digit"))?;
        let integer = integer.then(|| Num::from_str_radix(text, 10)).flatten();
        Ok(Val::Num(integer.unwrap_or_else(|| Num::Dec(Rc::new(text.to_owned())))))
    }
}

/// Writes a value as compact JSON, and stops at `max` bytes: values share parts, so a small one in memory may be
/// endless on paper. `NaN` becomes `null`, as jq writes it; bytes that are not UTF-8 become U+FFFD.
pub(super) fn write(value: &Val, out: &mut Vec<u8>, max: usize) -> Result<(), Limit> {
    if out.len() > max {
        return Err(meter::stop(Limit::ResultBytes));
    }
    match value {
        Val::Null => out.extend_from_slice(b"null"),
        Val::Bool(true) => out.extend_from_slice(b"true"),
        Val::Bool(false) => out.extend_from_slice(b"false"),
        Val::Num(number) => write_number(number, out),
        Val::TStr(text) | Val::BStr(text) => write_string(text, out),
        Val::Arr(items) => {
            out.push(b'[');
            for (at, item) in items.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(item, out, max)?;
            }
            out.push(b']');
        }
        Val::Obj(fields) => {
            out.push(b'{');
            for (at, (name, field)) in fields.iter().enumerate() {
                if at > 0 {
                    out.push(b',');
                }
                write(name, out, max)?;
                out.push(b':');
                write(field, out, max)?;
            }
            out.push(b'}');
        }
    }
    if out.len() > max { Err(meter::stop(Limit::ResultBytes)) } else { Ok(()) }
}

fn write_number(number: &Num, out: &mut Vec<u8>) {
    /// Beyond it a float has no place for a fraction, nor for every integer.
    const EXACT: f64 = 9_007_199_254_740_992.0;
    let text = match number {
        Num::Float(float) if float.is_nan() => "null".to_owned(),
        // As jq writes them: the largest number there is.
        Num::Float(float) if float.is_infinite() => format!("{:e}", f64::MAX.copysign(*float)),
        // A whole result of floating point is written without `.0`, so that it is an integer to the encoder.
        Num::Float(float) if float.fract() == 0.0 && float.abs() < EXACT => format!("{float:.0}"),
        exact => exact.to_string(),
    };
    // `-0` is no integer to some readers.
    out.extend_from_slice(if text == "-0" { b"0" } else { text.as_bytes() });
}

fn write_string(text: &[u8], out: &mut Vec<u8>) {
    // Writing a string to memory cannot fail.
    let _ = serde_json::to_writer(out, String::from_utf8_lossy(text).as_ref());
}
