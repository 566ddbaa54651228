//! The walk over a datum's bytes, along the compiled schema (Apache Avro 1.12 specification, "Binary Encoding").

use std::ops::Range;

use apache_avro::Schema;
use apache_avro::reader::datum::GenericDatumReader;
use apache_avro::types::Value;
use uuid::Uuid;

use super::super::shape::UuidForm;
use super::compile::{Node, Record};
use super::{Error, MAX_DEPTH, MAX_TEXT, text};
use crate::calendar::{self, Unit};

/// Bytes of a varint: ten times seven bits hold the 64.
const MAX_VARINT: usize = 10;

pub(super) struct Walk<'d, 'o> {
    rest: &'d [u8],
    out: &'o mut Vec<u8>,
    /// Where `out` may grow to.
    limit: usize,
    /// What is known of the maps that are open, the innermost last.
    entries: Vec<Entry<'d>>,
}

/// An entry of a map, as it was written: `"key":value`.
struct Entry<'d> {
    key: &'d str,
    text: Range<usize>,
}

impl<'d, 'o> Walk<'d, 'o> {
    pub(super) fn new(datum: &'d [u8], out: &'o mut Vec<u8>) -> Self {
        let limit = out.len().saturating_add(MAX_TEXT);
        Self { rest: datum, out, limit, entries: Vec::new() }
    }

    /// All of the datum; gives the place of the root's field of that name.
    pub(super) fn whole(mut self, root: &Node, noted: &str) -> Result<Option<Range<usize>>, Error> {
        let (mut node, mut depth) = (root, 0);
        while let Node::Union(branches) = node {
            node = self.branch(branches)?;
            depth += 1;
        }
        let mut place = None;
        match node {
            Node::Record(record) => {
                for field in &record.fields {
                    self.out.extend_from_slice(&field.lead);
                    let start = self.out.len();
                    self.value(&field.node, depth + 1)?;
                    if *field.name == *noted {
                        place = Some(start..self.out.len());
                    }
                }
                self.close(record);
            }
            other => self.value(other, depth)?,
        }
        match self.rest.len() {
            0 => Ok(place),
            left => Err(Error::Trailing { left }),
        }
    }

    fn value(&mut self, node: &Node, depth: usize) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        match node {
            Node::Null => self.out.extend_from_slice(b"null"),
            Node::Boolean => self.boolean()?,
            Node::Int => text::integer(i64::from(self.int()?), self.out),
            Node::Long => text::integer(self.long()?, self.out),
            Node::Float => text::float(f32::from_le_bytes(*self.array()?), self.out),
            Node::Double => text::double(f64::from_le_bytes(*self.array()?), self.out),
            Node::Bytes => text::latin1(self.prefixed()?, self.out),
            Node::String => text::string(self.string()?, self.out),
            Node::Fixed(size) => text::latin1(self.take(*size)?, self.out),
            Node::Enum(symbols) => {
                let symbol = usize::try_from(self.int()?).ok().and_then(|at| symbols.get(at));
                let symbol = symbol.ok_or_else(|| self.wrong("the number of a symbol"))?;
                self.out.extend_from_slice(symbol);
            }
            Node::Array(items) => self.array_of(items, depth)?,
            Node::Map(values) => self.map_of(values, depth)?,
            Node::Record(record) => self.record(record, depth)?,
            Node::Union(branches) => {
                let node = self.branch(branches)?;
                self.value(node, depth + 1)?;
            }
            Node::Decimal { scale, size } => {
                let bytes = if let Some(size) = size { self.take(*size)? } else { self.prefixed()? };
                if !text::decimal(bytes, *scale, self.out) {
                    return Err(self.wrong("a decimal of 1 to 1024 bytes"));
                }
            }
            Node::BigDecimal => self.big_decimal()?,
            Node::Uuid(form) => self.uuid(*form)?,
            Node::Date => {
                let days = self.int()?;
                self.quoted(|out| calendar::write_date(i64::from(days), out));
            }
            Node::TimeMillis => {
                let count = self.int()?;
                self.quoted(|out| calendar::write_time(i64::from(count), Unit::Millis, out));
            }
            Node::TimeMicros => {
                let count = self.long()?;
                self.quoted(|out| calendar::write_time(count, Unit::Micros, out));
            }
            Node::Timestamp(unit) => {
                let count = self.long()?;
                self.quoted(|out| {
                    calendar::write_local_timestamp(count, *unit, out);
                    out.push(b'Z');
                });
            }
            Node::LocalTimestamp(unit) => {
                let count = self.long()?;
                self.quoted(|out| calendar::write_local_timestamp(count, *unit, out));
            }
            Node::Duration(size) => self.duration(*size)?,
        }
        Ok(())
    }

    fn record(&mut self, record: &Record, depth: usize) -> Result<(), Error> {
        self.has_room()?;
        for field in &record.fields {
            self.out.extend_from_slice(&field.lead);
            self.value(&field.node, depth + 1)?;
        }
        self.close(record);
        Ok(())
    }

    /// The brace that opens a record stands before its first field, where it has one.
    fn close(&mut self, record: &Record) {
        self.out.extend_from_slice(if record.fields.is_empty() { b"{}" } else { b"}" });
    }

    fn array_of(&mut self, items: &Node, depth: usize) -> Result<(), Error> {
        self.out.push(b'[');
        let mut is_first = true;
        loop {
            let count = self.block()?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                if !is_first {
                    self.out.push(b',');
                }
                is_first = false;
                self.value(items, depth + 1)?;
                self.has_room()?;
            }
        }
        self.out.push(b']');
        Ok(())
    }

    fn map_of(&mut self, values: &Node, depth: usize) -> Result<(), Error> {
        self.out.push(b'{');
        let (start, first) = (self.out.len(), self.entries.len());
        let mut is_sorted = true;
        loop {
            let count = self.block()?;
            if count == 0 {
                break;
            }
            for _ in 0..count {
                let before = self.entries.get(first..).and_then(<[_]>::last).map(|entry| entry.key);
                let key = self.string()?;
                is_sorted &= before.is_none_or(|before| before < key);
                if before.is_some() {
                    self.out.push(b',');
                }
                let begun = self.out.len();
                text::string(key, self.out);
                self.out.push(b':');
                self.value(values, depth + 1)?;
                self.entries.push(Entry { key, text: begun..self.out.len() });
                self.has_room()?;
            }
        }
        if !is_sorted {
            self.sort(start, first);
        }
        self.entries.truncate(first);
        self.out.push(b'}');
        Ok(())
    }

    /// Puts the entries of the innermost map, which stand behind `start`, into the order of their keys.
    fn sort(&mut self, start: usize, first: usize) {
        let entries = &mut self.entries[first..];
        // Stable: of equal keys the last one stays the last, and counts.
        entries.sort_by_key(|entry| entry.key);
        let mut sorted = Vec::with_capacity(self.out.len() - start);
        for (at, entry) in entries.iter().enumerate() {
            if entries.get(at + 1).is_some_and(|next| next.key == entry.key) {
                continue;
            }
            if !sorted.is_empty() {
                sorted.push(b',');
            }
            sorted.extend_from_slice(&self.out[entry.text.clone()]);
        }
        self.out.truncate(start);
        self.out.append(&mut sorted);
    }

    /// How many items come next, of an array or a map; none: it ends here.
    fn block(&mut self) -> Result<usize, Error> {
        let mut count = self.long()?;
        if count < 0 {
            // The block's size, for whoever wants to skip it.
            self.long()?;
            count = count.checked_neg().ok_or_else(|| self.wrong("a number of items"))?;
        }
        // Items take a byte each at the least.
        usize::try_from(count).ok().filter(|count| *count <= self.rest.len()).ok_or(Error::Ended)
    }

    fn branch<'n>(&mut self, branches: &'n [Node]) -> Result<&'n Node, Error> {
        let branch = usize::try_from(self.long()?).ok().and_then(|at| branches.get(at));
        branch.ok_or_else(|| self.wrong("the number of a union's branch"))
    }

    fn boolean(&mut self) -> Result<(), Error> {
        let text: &[u8] = match self.array()? {
            [0] => b"false",
            [1] => b"true",
            _ => return Err(self.wrong("a boolean")),
        };
        self.out.extend_from_slice(text);
        Ok(())
    }

    fn uuid(&mut self, form: UuidForm) -> Result<(), Error> {
        let uuid = match form {
            UuidForm::Text => Uuid::try_parse(self.string()?),
            UuidForm::Bytes => Uuid::from_slice(self.prefixed()?),
            UuidForm::Fixed => Uuid::from_slice(self.take(size_of::<Uuid>())?),
        };
        let uuid = uuid.map_err(|_| self.wrong("a UUID"))?;
        let mut text = [0; uuid::fmt::Hyphenated::LENGTH];
        let text = uuid.hyphenated().encode_lower(&mut text).as_bytes();
        self.quoted(|out| out.extend_from_slice(text));
        Ok(())
    }

    fn duration(&mut self, size: usize) -> Result<(), Error> {
        let bytes = self.take(size)?;
        let ([months, days, millis], []) = bytes.as_chunks::<4>() else { return Err(self.wrong("a duration")) };
        let (months, days) = (u32::from_le_bytes(*months), u32::from_le_bytes(*days));
        let millis = u32::from_le_bytes(*millis);
        let text = format!("\"P{months}M{days}DT{}.{:03}S\"", millis / 1_000, millis % 1_000);
        self.out.extend_from_slice(text.as_bytes());
        Ok(())
    }

    fn big_decimal(&mut self) -> Result<(), Error> {
        let before = self.rest;
        let length = self.prefixed()?.len();
        let wrong = self.wrong("a big-decimal");
        // Turning it into digits is quadratic.
        if length > text::MAX_DECIMAL_BYTES {
            return Err(wrong);
        }
        let mut datum = &before[..before.len() - self.rest.len()];
        let reader = GenericDatumReader::builder(&Schema::BigDecimal).build();
        match reader.and_then(|reader| reader.read_value(&mut datum)) {
            // Its `Display` turns to an exponent in time; the plain form of a foreign `1E+999999999` would not fit in memory.
            Ok(Value::BigDecimal(number)) => self.out.extend_from_slice(number.to_string().as_bytes()),
            _ => return Err(wrong),
        }
        Ok(())
    }

    fn quoted(&mut self, write: impl FnOnce(&mut Vec<u8>)) {
        self.out.push(b'"');
        write(self.out);
        self.out.push(b'"');
    }

    fn string(&mut self) -> Result<&'d str, Error> {
        let bytes = self.prefixed()?;
        str::from_utf8(bytes).map_err(|_| self.wrong("a text in UTF-8"))
    }

    /// Bytes with their number before them.
    fn prefixed(&mut self) -> Result<&'d [u8], Error> {
        let length = self.long()?;
        let length = usize::try_from(length).map_err(|_| self.wrong("a length"))?;
        self.take(length)
    }

    fn take(&mut self, length: usize) -> Result<&'d [u8], Error> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(Error::Ended)?;
        self.rest = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<&'d [u8; N], Error> {
        let (taken, rest) = self.rest.split_first_chunk().ok_or(Error::Ended)?;
        self.rest = rest;
        Ok(taken)
    }

    fn int(&mut self) -> Result<i32, Error> {
        let number = self.long()?;
        i32::try_from(number).map_err(|_| self.wrong("a number of 32 bits"))
    }

    fn long(&mut self) -> Result<i64, Error> {
        let mut zigzag = 0_u64;
        for at in 0..MAX_VARINT {
            let [byte] = *self.array()?;
            zigzag |= u64::from(byte & 0x7F) << (at * 7);
            if byte < 0x80 {
                return Ok((zigzag >> 1).cast_signed() ^ -(zigzag & 1).cast_signed());
            }
        }
        Err(self.wrong("a number of 64 bits"))
    }

    fn has_room(&self) -> Result<(), Error> {
        if self.out.len() > self.limit { Err(Error::TooLarge) } else { Ok(()) }
    }

    #[cold]
    fn wrong(&self, expected: &'static str) -> Error {
        Error::Value { expected, left: self.rest.len() }
    }
}
