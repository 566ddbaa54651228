//! An Avro value as text: a column of Postgres, or the JSON of a nested one in its `jsonb`.
//!
//! The forms are those of [`schema::reader`](crate::schema::reader), which writes what goes out as JSON from the datum
//! itself, but for bytes: here they are base64 (RFC 4648, section 4), since a `jsonb` holds no U+0000.

use std::collections::HashMap;

use apache_avro::Schema;
use apache_avro::types::Value;
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use crate::calendar::{self, Unit};
use crate::schema::reader::text;

/// Deeper nesting than any event of ours has; the recursion below must end even for a foreign producer's.
const MAX_DEPTH: usize = 64;

/// Why a value cannot be written.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum Error {
    #[error("a value does not have the shape of its schema: {expected} expected")]
    Mismatch { expected: &'static str },
    #[error("nested deeper than {MAX_DEPTH} levels")]
    TooDeep,
}

/// A writer schema with its named types looked up once: an Avro decimal cannot be written without its scale,
/// which only the schema knows.
#[derive(Debug, Clone)]
pub struct Shape {
    root: Schema,
    names: HashMap<String, Schema>,
}

impl Shape {
    #[must_use]
    pub fn new(schema: &Schema) -> Self {
        let mut names = HashMap::new();
        collect(schema, &mut names, 0);
        Self { root: schema.clone(), names }
    }

    /// The schema of the whole value, references followed.
    pub(crate) fn root(&self) -> &Schema {
        self.resolve(&self.root)
    }

    /// What a reference stands for; the schema itself where it is none, or names something that is not there.
    pub(crate) fn resolve<'a>(&'a self, schema: &'a Schema) -> &'a Schema {
        match schema {
            Schema::Ref { name } => self.names.get(&name.fullname(None)).unwrap_or(schema),
            _ => schema,
        }
    }

    /// The whole value as JSON.
    #[cfg(test)]
    pub(crate) fn to_json(&self, value: &Value) -> Result<Vec<u8>, Error> {
        let mut out = Vec::with_capacity(512);
        self.write(&self.root, value, 0, &mut out)?;
        Ok(out)
    }

    /// One value under its own schema.
    pub(crate) fn write(&self, schema: &Schema, value: &Value, depth: usize, out: &mut Vec<u8>) -> Result<(), Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        let schema = self.resolve(schema);
        match value {
            Value::Union(branch, inner) => self.write(branch_of(schema, *branch)?, inner, depth + 1, out)?,
            Value::Record(fields) => self.write_record(schema, fields, depth, out)?,
            Value::Map(entries) => self.write_map(schema, entries, depth, out)?,
            Value::Array(items) => {
                let Schema::Array(array) = schema else { return Err(Error::Mismatch { expected: "an array" }) };
                out.push(b'[');
                for (at, item) in items.iter().enumerate() {
                    if at > 0 {
                        out.push(b',');
                    }
                    self.write(&array.items, item, depth + 1, out)?;
                }
                out.push(b']');
            }
            Value::Null => out.extend_from_slice(b"null"),
            scalar => {
                let text = scalar_text(schema, scalar)?;
                match scalar {
                    Value::Bytes(bytes) | Value::Fixed(_, bytes) => text::string(&STANDARD.encode(bytes), out),
                    _ if is_bare(scalar, &text) => out.extend_from_slice(text.as_bytes()),
                    _ => text::string(&text, out),
                }
            }
        }
        Ok(())
    }

    fn write_record(
        &self,
        schema: &Schema,
        fields: &[(String, Value)],
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let Schema::Record(record) = schema else { return Err(Error::Mismatch { expected: "a record" }) };
        if record.fields.len() != fields.len() {
            return Err(Error::Mismatch { expected: "every field of the record" });
        }
        out.push(b'{');
        for (at, (field, (name, value))) in record.fields.iter().zip(fields).enumerate() {
            if at > 0 {
                out.push(b',');
            }
            text::string(name, out);
            out.push(b':');
            self.write(&field.schema, value, depth + 1, out)?;
        }
        out.push(b'}');
        Ok(())
    }

    fn write_map(
        &self,
        schema: &Schema,
        entries: &HashMap<String, Value>,
        depth: usize,
        out: &mut Vec<u8>,
    ) -> Result<(), Error> {
        let Schema::Map(map) = schema else { return Err(Error::Mismatch { expected: "a map" }) };
        let mut sorted: Vec<_> = entries.iter().collect();
        sorted.sort_unstable_by_key(|(name, _)| name.as_str());
        out.push(b'{');
        for (at, (name, value)) in sorted.into_iter().enumerate() {
            if at > 0 {
                out.push(b',');
            }
            text::string(name, out);
            out.push(b':');
            self.write(&map.types, value, depth + 1, out)?;
        }
        out.push(b'}');
        Ok(())
    }
}

/// The schema of a union's branch.
pub(crate) fn branch_of(schema: &Schema, branch: u32) -> Result<&Schema, Error> {
    let Schema::Union(union) = schema else { return Err(Error::Mismatch { expected: "a union" }) };
    let branch = usize::try_from(branch).unwrap_or(usize::MAX);
    union.variants().get(branch).ok_or(Error::Mismatch { expected: "a branch of the union" })
}

/// The text of a scalar, as PostgreSQL and a JSON number or string both take it. Bytes give nothing here: the two
/// write them differently.
pub(crate) fn scalar_text(schema: &Schema, value: &Value) -> Result<String, Error> {
    Ok(match value {
        Value::Boolean(value) => value.to_string(),
        Value::Int(value) => value.to_string(),
        Value::Long(value) => value.to_string(),
        Value::Float(value) => float_text(f64::from(*value), &format!("{value:?}"), FLOAT_INTEGERS),
        Value::Double(value) => float_text(*value, &format!("{value:?}"), f64::INFINITY),
        Value::String(value) | Value::Enum(_, value) => value.clone(),
        Value::Date(days) => calendar::date(i64::from(*days)),
        Value::TimeMillis(count) => calendar::time(i64::from(*count), Unit::Millis),
        Value::TimeMicros(count) => calendar::time(*count, Unit::Micros),
        Value::TimestampMillis(count) => calendar::timestamp(*count, Unit::Millis),
        Value::TimestampMicros(count) => calendar::timestamp(*count, Unit::Micros),
        Value::TimestampNanos(count) => calendar::timestamp(*count, Unit::Nanos),
        Value::LocalTimestampMillis(count) => calendar::local_timestamp(*count, Unit::Millis),
        Value::LocalTimestampMicros(count) => calendar::local_timestamp(*count, Unit::Micros),
        Value::LocalTimestampNanos(count) => calendar::local_timestamp(*count, Unit::Nanos),
        Value::Uuid(uuid) => uuid.to_string(),
        // Its `Display` turns to an exponent in time; the plain form of a foreign `1E+999999999` would not fit in memory.
        Value::BigDecimal(number) => number.to_string(),
        Value::Decimal(decimal) => {
            let Schema::Decimal(described) = schema else { return Err(Error::Mismatch { expected: "a decimal" }) };
            let bytes = Vec::try_from(decimal).map_err(|_| Error::Mismatch { expected: "a decimal's bytes" })?;
            if bytes.len() > text::MAX_DECIMAL_BYTES {
                return Err(Error::Mismatch { expected: "a decimal of at most 1024 bytes" });
            }
            text::long_decimal(&bytes, described.scale)
        }
        Value::Duration(duration) => {
            let (months, days) = (u32::from(duration.months()), u32::from(duration.days()));
            let millis = u32::from(duration.millis());
            format!("P{months}M{days}DT{}.{:03}S", millis / 1_000, millis % 1_000)
        }
        Value::Bytes(_) | Value::Fixed(..) => String::new(),
        Value::Null | Value::Union(..) | Value::Array(_) | Value::Map(_) | Value::Record(_) => {
            return Err(Error::Mismatch { expected: "a scalar" });
        }
    })
}

/// Below it a float's shortest text is the integer itself. Above, `11175179000` would say more than the float holds, and
/// whoever reads integers exactly, as `schema/plan` does, would refuse it.
const FLOAT_INTEGERS: f64 = 16_777_216.0;

/// `bare_below`: whole numbers below it stand without a point. (Rust writes doubles that are longer with an exponent.)
fn float_text(value: f64, shortest: &str, bare_below: f64) -> String {
    // PostgreSQL and XML Schema share these names; JSON has none of its own.
    if value.is_nan() {
        "NaN".into()
    } else if value.is_infinite() {
        if value > 0.0 { "Infinity".into() } else { "-Infinity".into() }
    } else {
        shortest.strip_suffix(".0").filter(|_| value.abs() < bare_below).unwrap_or(shortest).into()
    }
}

/// Whether the text stands in JSON without quotes.
fn is_bare(value: &Value, text: &str) -> bool {
    match value {
        Value::Boolean(_) | Value::Int(_) | Value::Long(_) | Value::Decimal(_) | Value::BigDecimal(_) => true,
        Value::Float(_) | Value::Double(_) => !text.ends_with(['N', 'y']),
        _ => false,
    }
}

fn collect(schema: &Schema, names: &mut HashMap<String, Schema>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    let own = match schema {
        Schema::Record(record) => {
            for field in &record.fields {
                collect(&field.schema, names, depth + 1);
            }
            Some(&record.name)
        }
        Schema::Enum(symbols) => Some(&symbols.name),
        Schema::Fixed(fixed) | Schema::Duration(fixed) => Some(&fixed.name),
        Schema::Decimal(decimal) => match &decimal.inner {
            apache_avro::schema::InnerDecimalSchema::Fixed(fixed) => Some(&fixed.name),
            apache_avro::schema::InnerDecimalSchema::Bytes => None,
        },
        Schema::Array(array) => {
            collect(&array.items, names, depth + 1);
            None
        }
        Schema::Map(map) => {
            collect(&map.types, names, depth + 1);
            None
        }
        Schema::Union(union) => {
            for variant in union.variants() {
                collect(variant, names, depth + 1);
            }
            None
        }
        _ => None,
    };
    if let Some(name) = own {
        names.insert(name.fullname(None), schema.clone());
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn json(schema: &str, value: &Value) -> String {
        let schema = Schema::parse_str(schema).unwrap();
        String::from_utf8(Shape::new(&schema).to_json(value).unwrap()).unwrap()
    }

    #[test]
    fn scalars_keep_every_digit() {
        for (schema, value, expected) in [
            (r#""long""#, Value::Long(i64::MAX), "9223372036854775807"),
            (r#""double""#, Value::Double(0.1), "0.1"),
            (r#""float""#, Value::Float(0.1), "0.1"),
            (r#""float""#, Value::Float(2.0), "2"),
            (r#""float""#, Value::Float(11_175_179_000.0), "11175179000.0"),
            (r#""double""#, Value::Double(f64::NAN), r#""NaN""#),
            (r#""double""#, Value::Double(f64::NEG_INFINITY), r#""-Infinity""#),
            (r#""bytes""#, Value::Bytes(vec![0, 255]), r#""AP8=""#),
            (r#""string""#, Value::String("a\"\u{0}é\n".into()), "\"a\\\"\\u0000é\\n\""),
            (
                r#"{"type":"bytes","logicalType":"decimal","precision":38,"scale":2}"#,
                Value::Decimal(vec![0x07, 0xC6].into()),
                "19.90",
            ),
            (
                r#"{"type":"long","logicalType":"timestamp-millis"}"#,
                Value::TimestampMillis(1_767_225_600_001),
                r#""2026-01-01T00:00:00.001Z""#,
            ),
        ] {
            assert_eq!(json(schema, &value), expected);
        }
    }

    #[test]
    fn decimals_of_any_length_are_exact() {
        for (bytes, scale, expected) in [
            (vec![0], 2, "0.00"),
            (vec![0x01], 2, "0.01"),
            (vec![0xFF], 2, "-0.01"),
            (vec![0x80], 0, "-128"),
            (vec![], 0, "0"),
            (vec![0x7F; 20], 0, "727885129180488904360266563744972327436484050815"),
        ] {
            assert_eq!(text::long_decimal(&bytes, scale), expected);
        }
    }

    #[test]
    fn records_unions_maps_and_named_types_nest() {
        let schema = r#"{"type":"record","name":"a.Order","fields":[
            {"name":"total","type":["null",{"type":"fixed","name":"Money","size":2,"logicalType":"decimal","precision":4,"scale":2}]},
            {"name":"paid","type":["null","a.Money"]},
            {"name":"tags","type":{"type":"map","values":"boolean"}}]}"#;
        let value = Value::Record(vec![
            ("total".into(), Value::Union(1, Box::new(Value::Decimal(vec![0x07, 0xC6].into())))),
            ("paid".into(), Value::Union(1, Box::new(Value::Decimal(vec![0x00, 0x05].into())))),
            (
                "tags".into(),
                Value::Map([("b".into(), Value::Boolean(true)), ("a".into(), Value::Boolean(false))].into()),
            ),
        ]);
        assert_eq!(json(schema, &value), r#"{"total":19.90,"paid":0.05,"tags":{"a":false,"b":true}}"#);
    }

    #[test]
    fn a_value_without_the_shape_of_its_schema_is_refused() {
        let shape = Shape::new(&Schema::parse_str(r#""string""#).unwrap());
        assert!(shape.to_json(&Value::Record(vec![])).is_err());
        assert!(shape.to_json(&Value::Union(0, Box::new(Value::Null))).is_err());
    }

    proptest! {
        #[test]
        fn a_decimal_is_the_integer_with_a_point(number in any::<i128>(), scale in 0_usize..40) {
            let text = text::long_decimal(&number.to_be_bytes(), scale);
            let digits = text.trim_start_matches('-').replace('.', "");
            prop_assert_eq!(digits.parse::<u128>().unwrap(), number.unsigned_abs());
            prop_assert_eq!(text.starts_with('-'), number < 0);
            prop_assert_eq!(text.split_once('.').map_or(0, |(_, after)| after.len()), scale);
        }

        #[test]
        fn strings_read_back_as_they_were(text in any::<String>()) {
            let mut out = Vec::new();
            text::string(&text, &mut out);
            prop_assert_eq!(serde_json::from_slice::<String>(&out).unwrap(), text);
        }

        #[test]
        fn doubles_read_back_as_they_were(number in any::<f64>().prop_filter("finite", |number| number.is_finite())) {
            let text = json(r#""double""#, &Value::Double(number));
            prop_assert_eq!(text.parse::<f64>().unwrap().to_bits(), number.to_bits());
        }
    }
}
