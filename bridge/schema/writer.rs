//! The schema that a value was written with, ready to read it.

use std::fmt;
use std::io;
use std::ops::Range;

use apache_avro::types::Value;
use apache_avro::util::max_allocation_bytes;
use apache_avro::{GenericSingleObjectReader, Schema};

use super::reader::{self, Reader};
use super::shape;

/// Bytes that apache-avro may allocate for one text or one collection; its own default is 512 MiB.
/// A record of the largest body that is taken by default (1 MiB) with nothing but one-byte items needs about 60 MiB.
const MAX_ALLOCATION: usize = 64 << 20;

/// Why a schema cannot be read with.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    #[error("is not an Avro schema")]
    Avro(#[source] Box<apache_avro::Error>),
    #[error("{0}")]
    Shape(shape::Error),
}

/// Why a datum cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    #[error("the datum does not fit its schema")]
    Datum(#[source] Box<apache_avro::Error>),
    #[error("{left} bytes are left behind the datum")]
    Trailing { left: usize },
    #[error("the datum does not fit its schema")]
    Json(#[source] reader::Error),
}

/// A schema by its registry id, self-contained.
pub struct WriterSchema {
    pub id: u32,
    pub schema: Schema,
    /// The schema's text, references inlined.
    pub text: String,
    /// Names resolved once: apache-avro's plain functions do it for every datum, most of their time.
    /// It is the one reader of theirs that owns its schema; its header is set to nothing, for `wire` has read ours.
    reader: GenericSingleObjectReader,
    json: Reader,
}

impl WriterSchema {
    /// # Errors
    /// [`SchemaError`]: values of it cannot be read.
    pub fn new(id: u32, text: String) -> Result<Self, SchemaError> {
        // The first caller in the process decides, and nothing here is read before a schema was made.
        max_allocation_bytes(MAX_ALLOCATION);
        let avro = |error| SchemaError::Avro(Box::new(error));
        let schema = Schema::parse_str(&text).map_err(avro)?;
        shape::check(&schema).map_err(SchemaError::Shape)?;
        let reader =
            GenericSingleObjectReader::builder().schema(schema.clone()).header(Vec::new()).build().map_err(avro)?;
        let json = Reader::compile(&schema).map_err(SchemaError::Shape)?;
        Ok(Self { id, schema, text, reader, json })
    }

    /// The value of a datum (without frame) that was written with this schema.
    pub fn read(&self, datum: &[u8]) -> Result<Value, ReadError> {
        let mut rest = Datum(datum);
        let value = self.reader.read_value(&mut rest).map_err(|error| ReadError::Datum(Box::new(error)))?;
        match rest.0.len() {
            0 => Ok(value),
            left => Err(ReadError::Trailing { left }),
        }
    }

    /// Appends the same value as JSON to `out`; see [`Reader::write_noting`]. What every event passes through.
    pub fn write_json(&self, datum: &[u8], noted: &str, out: &mut Vec<u8>) -> Result<Option<Range<usize>>, ReadError> {
        self.json.write_noting(datum, noted, out).map_err(ReadError::Json)
    }
}

impl fmt::Debug for WriterSchema {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WriterSchema").field("id", &self.id).field("text", &self.text).finish_non_exhaustive()
    }
}

/// The bytes of one datum. At its end it fails otherwise than with `UnexpectedEof`, which apache-avro 0.22 takes for
/// a null where a text, a boolean or a number was cut short.
struct Datum<'a>(&'a [u8]);

impl Datum<'_> {
    fn ended() -> io::Error {
        io::Error::new(io::ErrorKind::InvalidData, "it ends within a value")
    }
}

impl io::Read for Datum<'_> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.is_empty() && !buf.is_empty() {
            return Err(Self::ended());
        }
        self.0.read(buf)
    }

    fn read_exact(&mut self, buf: &mut [u8]) -> io::Result<()> {
        let (head, tail) = self.0.split_at_checked(buf.len()).ok_or_else(Self::ended)?;
        buf.copy_from_slice(head);
        self.0 = tail;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use apache_avro::writer::datum::GenericDatumWriter;

    use super::*;

    const TEXT: &str = r#"{"type": "record", "name": "E", "fields": [
        {"name": "n", "type": "long"}, {"name": "list", "type": {"type": "array", "items": "string"}},
        {"name": "ok", "type": "boolean"}, {"name": "name", "type": "string"}]}"#;

    fn event() -> Value {
        Value::Record(vec![
            ("n".into(), Value::Long(300)),
            ("list".into(), Value::Array(vec![Value::String("a".into()), Value::String("b".into())])),
            ("ok".into(), Value::Boolean(true)),
            ("name".into(), Value::String("Ana".into())),
        ])
    }

    #[test]
    fn a_datum_is_read_whole_or_not_at_all() {
        let writer = WriterSchema::new(7, TEXT.into()).unwrap();
        let to_write = GenericDatumWriter::builder(&writer.schema).build().unwrap();
        let datum = to_write.write_value_to_vec(event()).unwrap();
        assert_eq!(writer.read(&datum).unwrap(), event());
        for cut in 0..datum.len() {
            assert!(matches!(writer.read(&datum[..cut]), Err(ReadError::Datum(_))), "cut at {cut}");
        }
        let longer = [datum.as_slice(), &[0, 0]].concat();
        assert!(matches!(writer.read(&longer), Err(ReadError::Trailing { left: 2 })));
    }

    #[test]
    fn a_count_that_no_datum_can_hold_is_refused_before_it_is_allocated() {
        let writer = WriterSchema::new(7, r#"{"type": "array", "items": "string"}"#.into()).unwrap();
        // Zigzag of 2^40, as a block's count.
        let claimed = [0x80, 0x80, 0x80, 0x80, 0x80, 0x40];
        assert!(matches!(writer.read(&claimed), Err(ReadError::Datum(_))));
    }

    #[test]
    fn a_recursive_schema_is_never_read_with() {
        let text = r#"{"type": "record", "name": "N", "fields": [{"name": "next", "type": ["null", "N"]}]}"#;
        assert!(matches!(WriterSchema::new(1, text.into()), Err(SchemaError::Shape(shape::Error::Recursive { .. }))));
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_are_a_value_or_an_error(datum: Vec<u8>) {
            let writer = WriterSchema::new(7, TEXT.into()).unwrap();
            let _ = writer.read(&datum);
        }
    }
}
