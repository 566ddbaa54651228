//! A default's datum, from its JSON in the schema (Avro 1.12, "Complex Types", the table of field defaults): by the base
//! type, so that a timestamp's default is a number and a decimal's is its bytes as text.

use apache_avro::Schema;
use apache_avro::schema::{InnerDecimalSchema, Name, RecordSchema, UuidSchema};
use serde_json::Value;

use super::writer::{put_bytes, put_long};

/// Finds a named type that was defined before.
pub(super) type Resolve<'r, 's> = &'r dyn Fn(&Name) -> Option<&'s Schema>;

/// Appends the default's datum. The error says what does not fit.
pub(super) fn write(schema: &Schema, value: &Value, named: Resolve<'_, '_>, out: &mut Vec<u8>) -> Result<(), String> {
    match schema {
        Schema::Null => value.as_null().ok_or_else(|| unfit("null", value))?,
        Schema::Boolean => out.push(u8::from(value.as_bool().ok_or_else(|| unfit("boolean", value))?)),
        Schema::Int | Schema::Date | Schema::TimeMillis => {
            let int = value.as_i64().filter(|int| i32::try_from(*int).is_ok());
            put_long(int.ok_or_else(|| unfit("int", value))?, out);
        }
        Schema::Long
        | Schema::TimeMicros
        | Schema::TimestampMillis
        | Schema::TimestampMicros
        | Schema::TimestampNanos
        | Schema::LocalTimestampMillis
        | Schema::LocalTimestampMicros
        | Schema::LocalTimestampNanos => put_long(value.as_i64().ok_or_else(|| unfit("long", value))?, out),
        Schema::Float => {
            // By text, for a cast of the double would round twice.
            let float = value.as_number().and_then(|number| number.to_string().parse::<f32>().ok());
            let float = float.filter(|float| float.is_finite());
            out.extend_from_slice(&float.ok_or_else(|| unfit("float", value))?.to_le_bytes());
        }
        Schema::Double => {
            out.extend_from_slice(&value.as_f64().ok_or_else(|| unfit("double", value))?.to_le_bytes());
        }
        Schema::String | Schema::Uuid(UuidSchema::String) => {
            put_bytes(value.as_str().ok_or_else(|| unfit("string", value))?.as_bytes(), out);
        }
        Schema::Bytes | Schema::BigDecimal | Schema::Uuid(UuidSchema::Bytes) => put_bytes(&latin1(value)?, out),
        Schema::Fixed(fixed) | Schema::Duration(fixed) | Schema::Uuid(UuidSchema::Fixed(fixed)) => {
            put_fixed(fixed.size, value, out)?;
        }
        Schema::Decimal(decimal) => match &decimal.inner {
            InnerDecimalSchema::Bytes => put_bytes(&latin1(value)?, out),
            InnerDecimalSchema::Fixed(fixed) => put_fixed(fixed.size, value, out)?,
        },
        Schema::Enum(symbols) => {
            let at = value.as_str().and_then(|text| symbols.symbols.iter().position(|symbol| symbol == text));
            put_length(at.ok_or_else(|| unfit("one of the symbols", value))?, out);
        }
        Schema::Array(array) => {
            let items = value.as_array().ok_or_else(|| unfit("array", value))?;
            put_block(items.iter(), out, |item, out| write(&array.items, item, named, out))?;
        }
        Schema::Map(map) => {
            let entries = value.as_object().ok_or_else(|| unfit("map", value))?;
            put_block(entries.iter(), out, |(key, value), out| {
                put_bytes(key.as_bytes(), out);
                write(&map.types, value, named, out)
            })?;
        }
        Schema::Record(record) => put_record(record, value, named, out)?,
        Schema::Union(union) => {
            // The first branch by the specification's letter; any that fits, for schemas that were written otherwise.
            let start = out.len();
            for (index, branch) in union.variants().iter().enumerate() {
                put_length(index, out);
                if write(branch, value, named, out).is_ok() {
                    return Ok(());
                }
                out.truncate(start);
            }
            return Err(unfit("one of the union's branches", value));
        }
        Schema::Ref { name } => {
            let schema = named(name).ok_or_else(|| format!("{name} is not defined yet"))?;
            write(schema, value, named, out)?;
        }
    }
    Ok(())
}

fn put_record(record: &RecordSchema, value: &Value, named: Resolve<'_, '_>, out: &mut Vec<u8>) -> Result<(), String> {
    let given = value.as_object().ok_or_else(|| unfit("record", value))?;
    for field in &record.fields {
        let value = given.get(&field.name).or(field.default.as_ref());
        let value = value.ok_or_else(|| format!("its field {} has no value", field.name))?;
        write(&field.schema, value, named, out)?;
    }
    Ok(())
}

fn put_block<T>(
    items: impl ExactSizeIterator<Item = T>,
    out: &mut Vec<u8>,
    mut put: impl FnMut(T, &mut Vec<u8>) -> Result<(), String>,
) -> Result<(), String> {
    if items.len() > 0 {
        put_length(items.len(), out);
        for item in items {
            put(item, out)?;
        }
    }
    out.push(0);
    Ok(())
}

fn put_length(length: usize, out: &mut Vec<u8>) {
    put_long(length.try_into().unwrap_or(i64::MAX), out);
}

fn put_fixed(size: usize, value: &Value, out: &mut Vec<u8>) -> Result<(), String> {
    let bytes = latin1(value)?;
    if bytes.len() != size {
        return Err(format!("expected {size} bytes, found {}", bytes.len()));
    }
    out.extend_from_slice(&bytes);
    Ok(())
}

/// A code point up to U+00FF for each byte.
fn latin1(value: &Value) -> Result<Vec<u8>, String> {
    let text = value.as_str().ok_or_else(|| unfit("bytes as a string", value))?;
    let bytes = text.chars().map(|character| u8::try_from(character).ok());
    bytes.collect::<Option<_>>().ok_or_else(|| "bytes are code points up to U+00FF".to_owned())
}

fn unfit(expected: &str, value: &Value) -> String {
    format!("expected {expected}, found {value}")
}
