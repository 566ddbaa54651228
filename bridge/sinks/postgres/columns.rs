//! Avro types as PostgreSQL types, and Avro values as the text that PostgreSQL reads them from.
//!
//! | Avro | PostgreSQL |
//! |---|---|
//! | string, enum | `text` |
//! | int, long | `integer`, `bigint` |
//! | float, double | `real`, `double precision` |
//! | boolean | `boolean` |
//! | bytes, fixed | `bytea` |
//! | decimal(p, s), big-decimal | `numeric(p,s)`, `numeric` |
//! | timestamp, local timestamp | `timestamptz`, `timestamp` (nanoseconds are rounded to microseconds) |
//! | date, time, uuid, duration | `date`, `time`, `uuid`, `interval` |
//! | record, array, map, a union of several types | `jsonb` |
//! | a union of null and one type | that type |
//!
//! Every column may be null whatever the schema says: schemas evolve, and rows of older versions lack newer fields.

use std::fmt;

use apache_avro::Schema;
use apache_avro::types::Value;
use sha2::{Digest, Sha256};

use super::super::json::{self, Shape, branch_of, scalar_text};

/// PostgreSQL cuts longer names off without a word (NAMEDATALEN), so that two of them may become one.
const MAX_IDENTIFIER: usize = 63;

/// The columns that every table has besides the schema's, in the order in which rows are written.
pub(super) const OWN: [(&str, ColumnType); 7] = [
    ("hb_delivery_id", ColumnType::Uuid),
    ("hb_event_id", ColumnType::Text),
    ("hb_source", ColumnType::Text),
    ("hb_topic", ColumnType::Text),
    ("hb_partition", ColumnType::Integer),
    ("hb_offset", ColumnType::BigInt),
    ("hb_received_at", ColumnType::TimestampTz),
];

/// Names that PostgreSQL keeps for itself in every table.
const SYSTEM_COLUMNS: [&str; 6] = ["tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ColumnType {
    Text,
    Integer,
    BigInt,
    Real,
    Double,
    Boolean,
    Bytea,
    /// Precision and scale; `None`: any.
    Numeric(Option<(usize, usize)>),
    TimestampTz,
    Timestamp,
    Date,
    Time,
    Uuid,
    Interval,
    Jsonb,
}

impl fmt::Display for ColumnType {
    /// As `format_type` says it, so that a column's type can be compared with it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Numeric(Some((precision, scale))) => write!(f, "numeric({precision},{scale})"),
            Self::Numeric(None) => f.write_str("numeric"),
            Self::Text => f.write_str("text"),
            Self::Integer => f.write_str("integer"),
            Self::BigInt => f.write_str("bigint"),
            Self::Real => f.write_str("real"),
            Self::Double => f.write_str("double precision"),
            Self::Boolean => f.write_str("boolean"),
            Self::Bytea => f.write_str("bytea"),
            Self::TimestampTz => f.write_str("timestamp with time zone"),
            Self::Timestamp => f.write_str("timestamp without time zone"),
            Self::Date => f.write_str("date"),
            Self::Time => f.write_str("time without time zone"),
            Self::Uuid => f.write_str("uuid"),
            Self::Interval => f.write_str("interval"),
            Self::Jsonb => f.write_str("jsonb"),
        }
    }
}

/// How a type fits into a column that is there already.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fit {
    /// Every value goes in as it is.
    Fits,
    /// The column can be made wider without losing any value that it holds.
    Widen,
    Conflict,
}

impl ColumnType {
    pub(super) fn of(shape: &Shape, schema: &Schema) -> Self {
        match shape.resolve(schema) {
            Schema::String | Schema::Enum(_) => Self::Text,
            Schema::Int => Self::Integer,
            Schema::Long => Self::BigInt,
            Schema::Float => Self::Real,
            Schema::Double => Self::Double,
            Schema::Boolean => Self::Boolean,
            Schema::Bytes | Schema::Fixed(_) => Self::Bytea,
            Schema::Decimal(decimal) => Self::Numeric(Some((decimal.precision, decimal.scale))),
            Schema::BigDecimal => Self::Numeric(None),
            Schema::TimestampMillis | Schema::TimestampMicros | Schema::TimestampNanos => Self::TimestampTz,
            Schema::LocalTimestampMillis | Schema::LocalTimestampMicros | Schema::LocalTimestampNanos => {
                Self::Timestamp
            }
            Schema::Date => Self::Date,
            Schema::TimeMillis | Schema::TimeMicros => Self::Time,
            Schema::Uuid(_) => Self::Uuid,
            Schema::Duration(_) => Self::Interval,
            Schema::Union(union) => {
                let mut types = union
                    .variants()
                    .iter()
                    .filter(|variant| !matches!(variant, Schema::Null))
                    .map(|variant| Self::of(shape, variant));
                let Some(first) = types.next() else { return Self::Jsonb };
                types.fold(first, |all, next| if all == next { all } else { Self::Jsonb })
            }
            Schema::Null | Schema::Record(_) | Schema::Array(_) | Schema::Map(_) | Schema::Ref { .. } => Self::Jsonb,
        }
    }

    /// Whether values of this type may go into a column of `existing`, a type's name as `format_type` gives it.
    pub(super) fn fit_into(self, existing: &str) -> Fit {
        if existing == self.to_string() || existing == "text" {
            return Fit::Fits;
        }
        // Longer text than the column takes is an error there, not a cut: assignment, unlike a cast, does not truncate.
        let varying = existing.starts_with("character varying");
        match (self, existing) {
            (Self::Text, _) if varying => Fit::Fits,
            (Self::Integer, "bigint" | "double precision" | "numeric")
            | (Self::BigInt | Self::Numeric(_), "numeric")
            | (Self::Real, "double precision")
            | (Self::Jsonb, "json") => Fit::Fits,
            (Self::Integer, "smallint")
            | (Self::BigInt, "smallint" | "integer")
            | (Self::Double, "real" | "smallint" | "integer")
            | (Self::Numeric(None), "smallint" | "integer" | "bigint") => Fit::Widen,
            (Self::Numeric(wanted), _) => match (wanted, numeric_of(existing)) {
                (None, Some(_)) => Fit::Widen,
                (Some((precision, scale)), Some((has_precision, has_scale))) => {
                    let (whole, has_whole) = (precision.saturating_sub(scale), has_precision.saturating_sub(has_scale));
                    if has_whole >= whole && has_scale >= scale {
                        Fit::Fits
                    } else if whole >= has_whole && scale >= has_scale {
                        Fit::Widen
                    } else {
                        Fit::Conflict
                    }
                }
                _ => Fit::Conflict,
            },
            _ => Fit::Conflict,
        }
    }
}

/// Precision and scale of `numeric(p,s)`.
fn numeric_of(text: &str) -> Option<(usize, usize)> {
    let (precision, scale) = text.strip_prefix("numeric(")?.strip_suffix(')')?.split_once(',')?;
    Some((precision.parse().ok()?, scale.parse().ok()?))
}

/// A schema's field as a column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Column {
    pub(super) name: String,
    pub(super) kind: ColumnType,
}

/// The columns of a writer schema, in the order of its fields; or everything that keeps it out of a table.
pub(super) fn columns_of(shape: &Shape) -> Result<Vec<Column>, Vec<String>> {
    let Schema::Record(record) = shape.root() else {
        return Err(vec!["the event's schema is no record, so it has no columns".into()]);
    };
    let mut columns: Vec<Column> = Vec::with_capacity(record.fields.len());
    let mut problems = Vec::new();
    for field in &record.fields {
        let name = identifier(&field.name);
        if name.starts_with("hb_") {
            problems.push(format!("field {:?}: names that start with hb_ are hookbridge's own columns", field.name));
        }
        if SYSTEM_COLUMNS.contains(&name.as_str()) {
            problems.push(format!("field {:?}: PostgreSQL has a system column of that name", field.name));
        }
        columns.push(Column { name, kind: ColumnType::of(shape, &field.schema) });
    }
    if problems.is_empty() { Ok(columns) } else { Err(problems) }
}

/// A row's values for the schema's columns, each as text; `None`: null.
pub(super) fn row_of(shape: &Shape, columns: &[Column], value: &Value) -> Result<Vec<Option<String>>, json::Error> {
    let (Schema::Record(record), Value::Record(fields)) = (shape.root(), value) else {
        return Err(json::Error::Mismatch { expected: "a record" });
    };
    if fields.len() != columns.len() || record.fields.len() != columns.len() {
        return Err(json::Error::Mismatch { expected: "every field of the record" });
    }
    let described = record.fields.iter().zip(columns);
    described
        .zip(fields)
        .map(|((field, column), (_, value))| text_of(shape, &field.schema, column.kind, value))
        .collect()
}

fn text_of(shape: &Shape, schema: &Schema, kind: ColumnType, value: &Value) -> Result<Option<String>, json::Error> {
    let schema = shape.resolve(schema);
    match value {
        Value::Null => Ok(None),
        Value::Union(branch, inner) => text_of(shape, branch_of(schema, *branch)?, kind, inner),
        value if kind == ColumnType::Jsonb => {
            let mut out = Vec::new();
            shape.write(schema, value, 0, &mut out)?;
            let text = String::from_utf8(out).map_err(|_| json::Error::Mismatch { expected: "UTF-8 text" })?;
            Ok(Some(text))
        }
        Value::Bytes(bytes) | Value::Fixed(_, bytes) => Ok(Some(format!("\\x{}", hex::encode(bytes)))),
        scalar => scalar_text(schema, scalar).map(Some),
    }
}

/// A name that PostgreSQL keeps whole: one that is too long ends in a hash of all of it.
pub(super) fn identifier(name: &str) -> String {
    if name.len() <= MAX_IDENTIFIER {
        return name.to_owned();
    }
    let hash = hex::encode(&Sha256::digest(name.as_bytes())[..4]);
    let end = name.floor_char_boundary(MAX_IDENTIFIER - hash.len() - 1);
    format!("{}_{hash}", &name[..end])
}

/// A quoted identifier (PostgreSQL documentation, 4.1.1): case is kept, and nothing in it is read as SQL.
pub(super) fn quote(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shape(fields: &str) -> Shape {
        let text = format!(r#"{{"type":"record","name":"E","fields":[{fields}]}}"#);
        Shape::new(&Schema::parse_str(&text).unwrap())
    }

    fn kind(schema: &str) -> String {
        let shape = shape(&format!(r#"{{"name":"f","type":{schema}}}"#));
        columns_of(&shape).unwrap()[0].kind.to_string()
    }

    #[test]
    fn avro_types_have_their_columns() {
        for (schema, expected) in [
            (r#""string""#, "text"),
            (r#""int""#, "integer"),
            (r#""long""#, "bigint"),
            (r#""float""#, "real"),
            (r#""double""#, "double precision"),
            (r#""boolean""#, "boolean"),
            (r#""bytes""#, "bytea"),
            (r#"{"type":"fixed","name":"F","size":4}"#, "bytea"),
            (r#"{"type":"enum","name":"N","symbols":["A"]}"#, "text"),
            (r#"{"type":"bytes","logicalType":"decimal","precision":12,"scale":2}"#, "numeric(12,2)"),
            (r#"{"type":"long","logicalType":"timestamp-millis"}"#, "timestamp with time zone"),
            (r#"{"type":"long","logicalType":"timestamp-micros"}"#, "timestamp with time zone"),
            (r#"{"type":"long","logicalType":"local-timestamp-micros"}"#, "timestamp without time zone"),
            (r#"{"type":"int","logicalType":"date"}"#, "date"),
            (r#"{"type":"int","logicalType":"time-millis"}"#, "time without time zone"),
            (r#"{"type":"string","logicalType":"uuid"}"#, "uuid"),
            (r#"{"type":"array","items":"string"}"#, "jsonb"),
            (r#"{"type":"map","values":"boolean"}"#, "jsonb"),
            (r#"{"type":"record","name":"R","fields":[]}"#, "jsonb"),
            (r#"["null","string"]"#, "text"),
            (r#"["null",{"type":"long","logicalType":"timestamp-millis"}]"#, "timestamp with time zone"),
            (r#"["null","string","long"]"#, "jsonb"),
            (r#""null""#, "jsonb"),
        ] {
            assert_eq!(kind(schema), expected, "{schema}");
        }
    }

    #[test]
    fn a_column_fits_widens_or_conflicts() {
        for (wanted, existing, expected) in [
            (ColumnType::Integer, "integer", Fit::Fits),
            (ColumnType::Integer, "bigint", Fit::Fits),
            (ColumnType::BigInt, "integer", Fit::Widen),
            (ColumnType::BigInt, "double precision", Fit::Conflict),
            (ColumnType::Double, "real", Fit::Widen),
            (ColumnType::Double, "integer", Fit::Widen),
            (ColumnType::Double, "bigint", Fit::Conflict),
            (ColumnType::Text, "character varying(20)", Fit::Fits),
            (ColumnType::Uuid, "text", Fit::Fits),
            (ColumnType::Text, "uuid", Fit::Conflict),
            (ColumnType::Numeric(Some((12, 2))), "numeric(12,2)", Fit::Fits),
            (ColumnType::Numeric(Some((12, 2))), "numeric(14,4)", Fit::Fits),
            (ColumnType::Numeric(Some((14, 4))), "numeric(12,2)", Fit::Widen),
            (ColumnType::Numeric(Some((12, 4))), "numeric(12,2)", Fit::Conflict),
            (ColumnType::Numeric(Some((12, 2))), "numeric", Fit::Fits),
            (ColumnType::Numeric(None), "numeric(12,2)", Fit::Widen),
            (ColumnType::TimestampTz, "timestamp without time zone", Fit::Conflict),
            (ColumnType::Jsonb, "json", Fit::Fits),
        ] {
            assert_eq!(wanted.fit_into(existing), expected, "{wanted} into {existing}");
        }
    }

    #[test]
    fn values_become_the_text_of_their_columns() {
        let shape = shape(
            r#"{"name":"id","type":"string"},
               {"name":"raw","type":["null","bytes"]},
               {"name":"total","type":["null",{"type":"bytes","logicalType":"decimal","precision":10,"scale":2}]},
               {"name":"tags","type":{"type":"array","items":"string"}},
               {"name":"either","type":["null","string","long"]}"#,
        );
        let value = Value::Record(vec![
            ("id".into(), Value::String("o'1".into())),
            ("raw".into(), Value::Union(1, Box::new(Value::Bytes(vec![0xDE, 0xAD])))),
            ("total".into(), Value::Union(0, Box::new(Value::Null))),
            ("tags".into(), Value::Array(vec![Value::String("a\"b".into())])),
            ("either".into(), Value::Union(1, Box::new(Value::String("x".into())))),
        ]);
        let columns = columns_of(&shape).unwrap();
        let expected = [Some("o'1"), Some("\\xdead"), None, Some(r#"["a\"b"]"#), Some(r#""x""#)];
        assert_eq!(row_of(&shape, &columns, &value).unwrap(), expected.map(|text| text.map(str::to_owned)));
        assert!(row_of(&shape, &columns, &Value::Null).is_err());
        assert!(row_of(&shape, &columns, &Value::Record(vec![])).is_err());
    }

    #[test]
    fn all_names_that_cannot_be_columns_are_reported() {
        let shape =
            shape(r#"{"name":"hb_offset","type":"long"},{"name":"ctid","type":"long"},{"name":"ok","type":"long"}"#);
        assert_eq!(columns_of(&shape).unwrap_err().len(), 2);
        let scalar = Shape::new(&Schema::String);
        assert_eq!(columns_of(&scalar).unwrap_err().len(), 1);
    }

    #[test]
    fn identifiers_are_bounded_and_quoted() {
        let long = "a".repeat(64);
        assert_eq!(identifier(&"a".repeat(63)), "a".repeat(63));
        assert_eq!(identifier(&long).len(), 63);
        assert_ne!(identifier(&long), identifier(&"a".repeat(65)));
        assert!(identifier(&"é".repeat(40)).len() <= 63);
        assert_eq!(quote(r#"x"; DROP TABLE y; --"#), r#""x""; DROP TABLE y; --""#);
    }
}
