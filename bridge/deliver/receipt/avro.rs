//! Avro's binary encoding, as far as a receipt goes, and the way into a value that the Avro library has read.

use apache_avro::types::Value;
use uuid::Uuid;

use super::{Error, Original};

/// Writes a datum, field by field.
pub(super) struct Writer<'a>(pub(super) &'a mut Vec<u8>);

impl Writer<'_> {
    /// Zigzag, seven bits a byte, the lowest first.
    pub(super) fn long(&mut self, value: i64) {
        let mut left = ((value << 1) ^ (value >> 63)).cast_unsigned();
        while left >= 0x80 {
            // The lowest seven bits, and that more follow.
            self.0.push((left & 0x7f) as u8 | 0x80);
            left >>= 7;
        }
        self.0.push((left & 0x7f) as u8);
    }

    /// A length, a count, or a place in a list; none is near the limit of an `i64`.
    pub(super) fn index(&mut self, value: usize) {
        self.long(i64::try_from(value).unwrap_or(i64::MAX));
    }

    pub(super) fn bytes(&mut self, value: &[u8]) {
        self.index(value.len());
        self.0.extend_from_slice(value);
    }

    pub(super) fn uuid(&mut self, value: &Uuid) {
        let mut text = Uuid::encode_buffer();
        self.bytes(value.hyphenated().encode_lower(&mut text).as_bytes());
    }

    /// A union of null and something.
    pub(super) fn option<T>(&mut self, value: Option<T>, write: impl FnOnce(&mut Self, T)) {
        self.index(usize::from(value.is_some()));
        if let Some(value) = value {
            write(self, value);
        }
    }
}

/// What is left of a datum.
pub(super) struct Reader<'a>(pub(super) &'a [u8]);

impl<'a> Reader<'a> {
    pub(super) fn long(&mut self, field: &'static str) -> Result<i64, Error> {
        let (mut value, mut shift) = (0_u64, 0);
        loop {
            let (&byte, rest) = self.0.split_first().ok_or(Error::Truncated { field })?;
            self.0 = rest;
            // The tenth byte holds the 64th bit and nothing else.
            if shift == 63 && byte > 1 {
                return Err(Error::Malformed { field, expected: "number" });
            }
            value |= u64::from(byte & 0x7f) << shift;
            if byte < 0x80 {
                return Ok((value >> 1).cast_signed() ^ -((value & 1).cast_signed()));
            }
            shift += 7;
        }
    }

    pub(super) fn int(&mut self, field: &'static str) -> Result<i32, Error> {
        i32::try_from(self.long(field)?).map_err(|_| Error::Malformed { field, expected: "32-bit number" })
    }

    pub(super) fn bytes(&mut self, field: &'static str) -> Result<&'a [u8], Error> {
        let length = self.long(field)?;
        let length = usize::try_from(length).map_err(|_| Error::Malformed { field, expected: "length" })?;
        let (value, rest) = self.0.split_at_checked(length).ok_or(Error::Truncated { field })?;
        self.0 = rest;
        Ok(value)
    }

    pub(super) fn text(&mut self, field: &'static str) -> Result<&'a str, Error> {
        std::str::from_utf8(self.bytes(field)?).map_err(|_| Error::Malformed { field, expected: "text" })
    }

    pub(super) fn uuid(&mut self, field: &'static str) -> Result<Uuid, Error> {
        Uuid::try_parse_ascii(self.bytes(field)?).map_err(|_| Error::Malformed { field, expected: "uuid" })
    }

    /// A union of null and something.
    pub(super) fn option<T>(
        &mut self,
        field: &'static str,
        read: impl FnOnce(&mut Self, &'static str) -> Result<T, Error>,
    ) -> Result<Option<T>, Error> {
        match self.long(field)? {
            0 => Ok(None),
            1 => read(self, field).map(Some),
            _ => Err(Error::Malformed { field, expected: "branch of its union" }),
        }
    }

    /// Blocks of items; a negative count is followed by the block's bytes. An item has a byte at least, so the datum
    /// bounds what a count can ask for.
    pub(super) fn array<T>(
        &mut self,
        field: &'static str,
        mut read: impl FnMut(&mut Self) -> Result<T, Error>,
    ) -> Result<Vec<T>, Error> {
        let mut items = Vec::new();
        loop {
            let count = self.long(field)?;
            if count == 0 {
                return Ok(items);
            }
            if count < 0 {
                self.long(field)?;
            }
            for _ in 0..count.unsigned_abs() {
                items.push(read(self)?);
            }
        }
    }
}

/// A field of a record, out of its union; a null is none.
pub(super) fn field<'a>(record: &'a Value, name: &str) -> Option<&'a Value> {
    let Value::Record(fields) = record else { return None };
    match &fields.iter().find(|(field, _)| field == name)?.1 {
        Value::Union(_, inner) => (**inner != Value::Null).then_some(&**inner),
        Value::Null => None,
        other => Some(other),
    }
}

pub(super) fn long(value: &Value) -> Option<i64> {
    match value {
        Value::Int(number) => Some(i64::from(*number)),
        Value::Long(number) | Value::TimestampMillis(number) => Some(*number),
        _ => None,
    }
}

pub(super) fn text(value: &Value) -> Option<&str> {
    if let Value::String(text) | Value::Enum(_, text) = value { Some(text) } else { None }
}

pub(super) fn uuid(value: &Value) -> Option<Uuid> {
    match value {
        Value::Uuid(id) => Some(*id),
        Value::String(text) => Uuid::try_parse(text).ok(),
        _ => None,
    }
}

fn bytes(value: &Value) -> Option<&[u8]> {
    if let Value::Bytes(bytes) = value { Some(bytes) } else { None }
}

pub(super) fn original(value: &Value) -> Original<'_> {
    let headers = field(value, "headers")
        .map_or(&[][..], |value| if let Value::Array(headers) = value { headers.as_slice() } else { &[] });
    let header = |one| Some((field(one, "name").and_then(text)?, field(one, "value").and_then(bytes)?));
    Original {
        key: field(value, "key").and_then(bytes),
        value: field(value, "value").and_then(bytes),
        headers: headers.iter().filter_map(header).collect(),
        timestamp: field(value, "timestamp").and_then(long),
    }
}
