//! What is written, and what is wrong: the datum as it grows, the violations, and how a scalar becomes bytes.

use super::super::shape::UuidForm;
use super::number::{double, float, ranged};
use super::pointer::{MAX_DEPTH, Path, nesting};
use super::record::Scratch;
use super::shape::{Node, Union, Unit};
use super::{Reason, Refused, Violation, Violations, Warnings, decimal};
use crate::calendar;
use crate::config::UnknownFields;

/// Violations and warnings that are kept; the rest is counted. A quarantined record's header holds them.
const MAX_KEPT: usize = 100;

/// 2000-01-01 and 2100-01-01, in seconds. An integer outside was most likely counted in another unit.
const CREDIBLE_SECONDS: (i64, i64) = (946_684_800, 4_102_444_800);

/// Why a scalar does not fit. Cheap to make, since a union tries its branches in turn.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// The JSON value is of another kind than the schema asks for.
    Kind,
    Range(&'static str),
    Format(&'static str),
    /// More digits after the point than this scale.
    Digits(u32),
    Symbol,
    Size(usize),
    /// Several branches take a value of this kind, and none takes this one.
    Branch,
}

/// One event's encoding.
#[derive(Debug)]
pub(super) struct Writer<'s> {
    pub(super) out: &'s mut Vec<u8>,
    pub(super) scratch: &'s mut Scratch,
    pub(super) unknown: UnknownFields,
    json: &'s str,
    pub(super) violations: Violations,
    pub(super) warnings: Warnings,
    /// Unknown fields so far, whatever became of them: a union's branch that leaves none over fits best.
    pub(super) strays: usize,
    /// Set before an error is given to serde, which can only carry text.
    stopped: Option<Refused>,
}

/// Where a branch was tried from.
#[derive(Debug)]
pub(super) struct Mark {
    out: usize,
    violations: (usize, usize),
    warnings: (usize, usize),
    strays: usize,
}

/// How a branch fared.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    Exact,
    /// Valid, with unknown fields left over.
    Loose,
    Not,
}

impl<'s> Writer<'s> {
    pub(super) fn new(json: &'s str, unknown: UnknownFields, scratch: &'s mut Scratch, out: &'s mut Vec<u8>) -> Self {
        scratch.clear();
        Self {
            out,
            scratch,
            unknown,
            json,
            violations: Violations::default(),
            warnings: Warnings::default(),
            strays: 0,
            stopped: None,
        }
    }

    /// What the whole came to.
    pub(super) fn finish(self, read: Result<(), serde_json::Error>) -> Result<Warnings, Refused> {
        match (self.stopped, read) {
            (Some(refused), _) => Err(refused),
            (None, Err(error)) => Err(not_json(&error, error.line(), error.column())),
            (None, Ok(())) if self.violations.total > 0 => Err(Refused::Invalid(self.violations)),
            (None, Ok(())) => Ok(self.warnings),
        }
    }

    /// Before a container at `at` is entered.
    #[inline]
    pub(super) fn enter<E: serde::de::Error>(&mut self, at: &Path<'_>) -> Result<(), E> {
        if at.depth < MAX_DEPTH { Ok(()) } else { Err(self.too_deep()) }
    }

    /// Before a value that is not walked is passed over: serde_json skips without a limit.
    pub(super) fn enter_raw<E: serde::de::Error>(&mut self, at: &Path<'_>, raw: &str) -> Result<(), E> {
        if raw.starts_with(['{', '[']) && at.depth + nesting(raw) > MAX_DEPTH { Err(self.too_deep()) } else { Ok(()) }
    }

    #[cold]
    fn too_deep<E: serde::de::Error>(&mut self) -> E {
        self.stopped.get_or_insert(Refused::TooDeep { limit: MAX_DEPTH });
        E::custom("too deep")
    }

    /// A part of the text was read on its own and is not JSON after all (half of a surrogate pair, a number that no
    /// f64 holds): the position is that in the whole.
    #[cold]
    pub(super) fn broken_part<E: serde::de::Error>(&mut self, raw: &str, error: &serde_json::Error) -> E {
        // `raw` is a part of `json`; only the addresses are compared.
        let offset = raw.as_ptr().addr().saturating_sub(self.json.as_ptr().addr());
        let (line, column) = position(self.json.as_bytes(), offset);
        let (line, column) = match error.line() {
            0 | 1 => (line, column + error.column()),
            lines => (line + lines - 1, error.column()),
        };
        self.stopped.get_or_insert_with(|| not_json(error, line, column));
        E::custom("not JSON")
    }

    #[cold]
    pub(super) fn violation(&mut self, at: &Path<'_>, reason: Reason, message: impl FnOnce() -> String) {
        self.violations.total += 1;
        if self.violations.first.len() < MAX_KEPT {
            self.violations.first.push(Violation { pointer: at.pointer(), reason, message: message() });
        }
    }

    #[cold]
    pub(super) fn warn(&mut self, at: &Path<'_>) {
        self.warnings.total += 1;
        if self.warnings.first.len() < MAX_KEPT {
            self.warnings.first.push(at.pointer());
        }
    }

    /// `found` is the kind of the JSON value. The value itself is not repeated: messages end up in logs.
    #[cold]
    pub(super) fn fault(&mut self, at: &Path<'_>, node: &Node, fault: Fault, found: &str) {
        let (reason, message) = match fault {
            Fault::Kind => (Reason::DatatypeMismatch, format!("expected {}, found {found}", node.describe())),
            Fault::Range(limit) => (Reason::OutOfRange, format!("{limit}, where {} is expected", node.describe())),
            Fault::Format(format) => (Reason::BadFormat, format!("expected {format} for {}", node.describe())),
            Fault::Digits(scale) => (
                Reason::TooManyDigits(scale),
                format!("more than {scale} digits after the point in {}", node.describe()),
            ),
            Fault::Symbol => (Reason::UnknownSymbol, symbols(node)),
            Fault::Size(size) => (Reason::BadFormat, format!("expected {}, found {size} bytes", node.describe())),
            Fault::Branch => (Reason::NoBranch, format!("no branch of {} takes this {found}", node.describe())),
        };
        self.violation(at, reason, || message);
    }

    pub(super) fn mark(&self) -> Mark {
        Mark {
            out: self.out.len(),
            violations: (self.violations.first.len(), self.violations.total),
            warnings: (self.warnings.first.len(), self.warnings.total),
            strays: self.strays,
        }
    }

    pub(super) fn fit(&self, mark: &Mark) -> Fit {
        match (self.violations.total == mark.violations.1, self.strays == mark.strays) {
            (true, true) => Fit::Exact,
            (true, false) => Fit::Loose,
            (false, _) => Fit::Not,
        }
    }

    pub(super) fn back_to(&mut self, mark: &Mark) {
        self.out.truncate(mark.out);
        self.violations.first.truncate(mark.violations.0);
        self.violations.total = mark.violations.1;
        self.warnings.first.truncate(mark.warnings.0);
        self.warnings.total = mark.warnings.1;
        self.strays = mark.strays;
    }

    pub(super) fn null(&mut self, node: &Node) -> Result<(), Fault> {
        match node {
            Node::Null => Ok(()),
            Node::Union(union) => {
                self.branch(union.null.ok_or(Fault::Kind)?);
                Ok(())
            }
            _ => Err(Fault::Kind),
        }
    }

    pub(super) fn boolean(&mut self, node: &Node, value: bool) -> Result<(), Fault> {
        match node {
            Node::Boolean => {
                self.out.push(u8::from(value));
                Ok(())
            }
            Node::Union(union) => self.first_branch(union, |writer, node| writer.boolean(node, value)),
            _ => Err(Fault::Kind),
        }
    }

    /// A JSON string.
    #[inline]
    pub(super) fn text(&mut self, node: &Node, text: &str) -> Result<(), Fault> {
        match node {
            Node::String => {
                put_bytes(text.as_bytes(), self.out);
                Ok(())
            }
            Node::Union(union) => self.first_branch(union, |writer, node| writer.text(node, text)),
            _ => self.other_text(node, text),
        }
    }

    fn other_text(&mut self, node: &Node, text: &str) -> Result<(), Fault> {
        match node {
            Node::Enum(symbols) => self.long(symbols.find(text).ok_or(Fault::Symbol)?.try_into().unwrap_or(i64::MAX)),
            Node::Bytes => {
                put_long(text.chars().count().try_into().unwrap_or(i64::MAX), self.out);
                return self.latin1(text);
            }
            Node::Fixed(size) => {
                let found = text.chars().count();
                return if found == *size { self.latin1(text) } else { Err(Fault::Size(found)) };
            }
            Node::Decimal(decimal) => return decimal::write(text, *decimal, self.out),
            Node::Uuid(form) => return self.uuid(*form, text),
            Node::Date => {
                self.long(calendar::parse_date(text).ok_or(Fault::Format("an ISO 8601 date (YYYY-MM-DD)"))?.into());
            }
            Node::TimeMillis | Node::TimeMicros => {
                let (seconds, nanos) =
                    calendar::parse_time(text).ok_or(Fault::Format("an ISO 8601 time (HH:MM:SS)"))?;
                let unit = if matches!(node, Node::TimeMillis) { Unit::Millis } else { Unit::Micros };
                self.long(in_unit(seconds, nanos, unit)?);
            }
            Node::Timestamp(unit) => {
                let parsed = calendar::parse_date_time(text, true);
                let (seconds, nanos) = parsed.ok_or(Fault::Format("an RFC 3339 date-time with an offset"))?;
                self.long(in_unit(seconds, nanos, *unit)?);
            }
            Node::LocalTimestamp(unit) => {
                let parsed = calendar::parse_date_time(text, false);
                let (seconds, nanos) = parsed.ok_or(Fault::Format("an ISO 8601 date-time without an offset"))?;
                self.long(in_unit(seconds, nanos, *unit)?);
            }
            _ => return Err(Fault::Kind),
        }
        Ok(())
    }

    /// A JSON number, by its own text.
    pub(super) fn number(&mut self, node: &Node, text: &str) -> Result<(), Fault> {
        match node {
            Node::Int | Node::Date => self.long(ranged(text, i32::MIN.into(), i32::MAX.into())?),
            Node::Long => self.long(ranged(text, i64::MIN, i64::MAX)?),
            Node::Float => self.out.extend_from_slice(&float(text)?.to_le_bytes()),
            Node::Double => self.out.extend_from_slice(&double(text)?.to_le_bytes()),
            Node::Decimal(decimal) => return decimal::write(text, *decimal, self.out),
            Node::TimeMillis => self.long(ranged(text, 0, 86_400_000 - 1)?),
            Node::TimeMicros => self.long(ranged(text, 0, 86_400_000_000 - 1)?),
            Node::Timestamp(unit) | Node::LocalTimestamp(unit) => {
                let instant = ranged(text, i64::MIN, i64::MAX)?;
                let (from, to) = CREDIBLE_SECONDS;
                if !(from * unit.per_second()..to * unit.per_second()).contains(&instant) {
                    return Err(Fault::Range("an instant outside the years 2000 to 2100"));
                }
                self.long(instant);
            }
            Node::Union(union) => return self.first_branch(union, |writer, node| writer.number(node, text)),
            _ => return Err(Fault::Kind),
        }
        Ok(())
    }

    /// The first branch, in the schema's order, that takes the value.
    #[inline]
    fn first_branch(
        &mut self,
        union: &Union,
        write: impl Fn(&mut Self, &Node) -> Result<(), Fault>,
    ) -> Result<(), Fault> {
        if let Some(only) = union.only {
            self.branch(only);
            return write(self, &union.branches[only].node);
        }
        let start = self.out.len();
        let mut told = None;
        for (index, branch) in union.branches.iter().enumerate() {
            self.branch(index);
            match write(self, &branch.node) {
                Ok(()) => return Ok(()),
                Err(Fault::Kind) => {}
                // Where one branch alone is of the value's kind, what it says is what is wrong.
                Err(fault) => told = Some(if told.is_none() { fault } else { Fault::Branch }),
            }
            self.out.truncate(start);
        }
        Err(told.unwrap_or(Fault::Kind))
    }

    #[inline]
    pub(super) fn branch(&mut self, index: usize) {
        self.long(index.try_into().unwrap_or(i64::MAX));
    }

    #[inline]
    pub(super) fn long(&mut self, value: i64) {
        put_long(value, self.out);
    }

    /// Bytes as Avro's JSON encoding has them: a code point each.
    fn latin1(&mut self, text: &str) -> Result<(), Fault> {
        for character in text.chars() {
            self.out.push(u8::try_from(character).map_err(|_| Fault::Format("code points up to U+00FF"))?);
        }
        Ok(())
    }

    /// RFC 9562's text form, in either case. Text is kept as it was sent.
    fn uuid(&mut self, form: UuidForm, text: &str) -> Result<(), Fault> {
        let parsed = if text.len() == 36 { uuid::Uuid::try_parse(text).ok() } else { None };
        let uuid = parsed.ok_or(Fault::Format("eight-four-four-four-twelve hexadecimal digits"))?;
        match form {
            UuidForm::Text => put_bytes(text.as_bytes(), self.out),
            UuidForm::Fixed => self.out.extend_from_slice(uuid.as_bytes()),
            UuidForm::Bytes => put_bytes(uuid.as_bytes(), self.out),
        }
        Ok(())
    }
}

/// Zigzag, then seven bits a byte, lowest first (Avro 1.12, "Binary Encoding").
#[inline]
pub(super) fn put_long(value: i64, out: &mut Vec<u8>) {
    let mut rest = ((value << 1) ^ (value >> 63)).cast_unsigned();
    while rest > 0x7F {
        out.push(rest.to_le_bytes()[0] | 0x80);
        rest >>= 7;
    }
    out.push(rest.to_le_bytes()[0]);
}

#[inline]
pub(super) fn put_bytes(bytes: &[u8], out: &mut Vec<u8>) {
    put_long(bytes.len().try_into().unwrap_or(i64::MAX), out);
    out.extend_from_slice(bytes);
}

/// What is finer than the unit is cut: it is the schema that chose the unit, and providers send nanoseconds.
fn in_unit(seconds: i64, nanos: i64, unit: Unit) -> Result<i64, Fault> {
    let per_second = unit.per_second();
    let count = i128::from(seconds) * i128::from(per_second) + i128::from(nanos / (1_000_000_000 / per_second));
    i64::try_from(count).map_err(|_| Fault::Range("an instant beyond the range"))
}

fn symbols(node: &Node) -> String {
    /// Enough to see what is meant; an enum may have hundreds.
    const SHOWN: usize = 20;
    let symbols = match node {
        Node::Enum(symbols) => symbols.list(),
        Node::Union(union) => {
            let enums = union.branches.iter().filter_map(|branch| match &branch.node {
                Node::Enum(symbols) => Some(symbols.list()),
                _ => None,
            });
            enums.flatten().collect()
        }
        _ => Vec::new(),
    };
    let more = if symbols.len() > SHOWN { ", \u{2026}" } else { "" };
    format!("expected one of {}{more}", symbols[..symbols.len().min(SHOWN)].join(", "))
}

fn not_json(error: &serde_json::Error, line: usize, column: usize) -> Refused {
    let whole = error.to_string();
    // serde_json appends the position, which we have.
    let message = whole.split(" at line ").next().unwrap_or_default().to_owned();
    Refused::NotJson { line, column, message }
}

/// The line of `offset`, from one, and how many bytes of that line come before it.
pub(super) fn position(text: &[u8], offset: usize) -> (usize, usize) {
    let before = &text[..offset.min(text.len())];
    let line_start = before.iter().rposition(|byte| *byte == b'\n').map_or(0, |at| at + 1);
    (before.split(|byte| *byte == b'\n').count(), before.len() - line_start)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn longs_are_zigzag_varints() {
        for (value, bytes) in [
            (0, &[0][..]),
            (-1, &[1]),
            (1, &[2]),
            (63, &[0x7E]),
            (64, &[0x80, 0x01]),
            (-65, &[0x81, 0x01]),
            (i64::MAX, &[0xFE, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]),
            (i64::MIN, &[0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0xFF, 0x01]),
        ] {
            let mut out = Vec::new();
            put_long(value, &mut out);
            assert_eq!(out, bytes, "{value}");
        }
    }
}
