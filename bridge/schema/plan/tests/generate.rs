//! Random schemas, and documents for them with the value that apache-avro should read.

use apache_avro::types::Value;
use proptest::prelude::*;
use serde_json::json;

use super::document::{Dice, Doc, Entry, quote};

#[derive(Debug, Clone)]
pub(in crate::schema) enum Type {
    Boolean,
    Int,
    Long,
    Float,
    Double,
    Bytes,
    String,
    Fixed(usize),
    Enum(usize),
    Array(Box<Type>),
    Map(Box<Type>),
    /// A field, and whether it has a default (where the type has one to give).
    Record(Vec<(Type, bool)>),
    Nullable(Box<Type>),
    /// Null, string, long, boolean, an array, and one record or map.
    Union(Box<Type>, Box<Type>),
    Decimal {
        precision: u32,
        scale: u32,
        fixed: bool,
    },
    Uuid {
        fixed: bool,
    },
    Date,
    TimeMillis,
    TimeMicros,
    /// Millis, micros or nanos, and whether it is local.
    Timestamp(usize, bool),
}

pub(in crate::schema) fn any_type() -> impl Strategy<Value = Type> {
    let leaf = prop_oneof![
        Just(Type::Boolean),
        Just(Type::Int),
        Just(Type::Long),
        Just(Type::Float),
        Just(Type::Double),
        Just(Type::Bytes),
        Just(Type::String),
        (0_usize..20).prop_map(Type::Fixed),
        (1_usize..6).prop_map(Type::Enum),
        (1_u32..45, 0_u32..45, any::<bool>()).prop_map(|(precision, scale, fixed)| Type::Decimal {
            precision,
            scale: scale.min(precision),
            fixed
        }),
        any::<bool>().prop_map(|fixed| Type::Uuid { fixed }),
        Just(Type::Date),
        Just(Type::TimeMillis),
        Just(Type::TimeMicros),
        (0_usize..3, any::<bool>()).prop_map(|(unit, local)| Type::Timestamp(unit, local)),
    ];
    leaf.prop_recursive(5, 40, 6, |inner| {
        let record = prop::collection::vec((inner.clone(), any::<bool>()), 0..7).prop_map(Type::Record);
        let map = inner.clone().prop_map(|values| Type::Map(Box::new(values)));
        prop_oneof![
            3 => record.clone(),
            1 => map.clone(),
            1 => inner.clone().prop_map(|items| Type::Array(Box::new(items))),
            1 => inner.clone().prop_map(|inner| match inner {
                already @ (Type::Nullable(_) | Type::Union(..)) => already,
                other => Type::Nullable(Box::new(other)),
            }),
            1 => (inner, prop_oneof![record, map]).prop_map(|(items, object)| Type::Union(Box::new(items), Box::new(object))),
        ]
    })
}

const UNITS: [&str; 3] = ["millis", "micros", "nanos"];

impl Type {
    pub(in crate::schema) fn schema(&self) -> String {
        self.json(&mut 0).to_string()
    }

    fn json(&self, names: &mut usize) -> serde_json::Value {
        let mut name = || {
            *names += 1;
            format!("t.N{names}")
        };
        match self {
            Self::Boolean => json!("boolean"),
            Self::Int => json!("int"),
            Self::Long => json!("long"),
            Self::Float => json!("float"),
            Self::Double => json!("double"),
            Self::Bytes => json!("bytes"),
            Self::String => json!("string"),
            Self::Fixed(size) => json!({"type": "fixed", "name": name(), "size": size}),
            Self::Enum(count) => {
                let symbols: Vec<_> = (0..*count).map(symbol).collect();
                json!({"type": "enum", "name": name(), "symbols": symbols})
            }
            Self::Array(items) => json!({"type": "array", "items": items.json(names)}),
            Self::Map(values) => json!({"type": "map", "values": values.json(names)}),
            Self::Record(fields) => {
                let name = name();
                let fields = fields.iter().enumerate().map(|(at, (kind, with_default))| {
                    let mut field = json!({"name": field_name(at), "type": kind.json(names)});
                    if let Some((default, _)) = kind.default().filter(|_| *with_default) {
                        field["default"] = default;
                    }
                    field
                });
                json!({"type": "record", "name": name, "fields": fields.collect::<Vec<_>>()})
            }
            Self::Nullable(inner) => json!(["null", inner.json(names)]),
            Self::Union(items, object) => {
                let array = json!({"type": "array", "items": items.json(names)});
                json!(["null", "string", "long", "boolean", array, object.json(names)])
            }
            Self::Decimal { precision, scale, fixed: false } => {
                json!({"type": "bytes", "logicalType": "decimal", "precision": precision, "scale": scale})
            }
            Self::Decimal { precision, scale, fixed: true } => json!({"type": "fixed", "name": name(), "size": 20,
                "logicalType": "decimal", "precision": precision, "scale": scale}),
            Self::Uuid { fixed: false } => json!({"type": "string", "logicalType": "uuid"}),
            Self::Uuid { fixed: true } => {
                json!({"type": "fixed", "name": name(), "size": 16, "logicalType": "uuid"})
            }
            Self::Date => json!({"type": "int", "logicalType": "date"}),
            Self::TimeMillis => json!({"type": "int", "logicalType": "time-millis"}),
            Self::TimeMicros => json!({"type": "long", "logicalType": "time-micros"}),
            Self::Timestamp(unit, local) => {
                let local = if *local { "local-" } else { "" };
                json!({"type": "long", "logicalType": format!("{local}timestamp-{}", UNITS[*unit])})
            }
        }
    }

    /// The schema's default, and the value that it stands for.
    fn default(&self) -> Option<(serde_json::Value, Value)> {
        match self {
            Self::Int => Some((json!(-7), Value::Int(-7))),
            Self::String => Some((json!("d\u{e9}faut"), Value::String("d\u{e9}faut".into()))),
            Self::Map(_) => Some((json!({}), Value::Map([].into()))),
            Self::Timestamp(0, false) => Some((json!(0), Value::TimestampMillis(0))),
            Self::Nullable(_) | Self::Union(..) => Some((json!(null), Value::Union(0, Box::new(Value::Null)))),
            _ => None,
        }
    }

    /// A valid document, and what is to be read from its datum.
    pub(in crate::schema) fn sample(&self, dice: &mut Dice) -> (Doc, Value) {
        match self {
            Self::Array(items) => {
                let length = if dice.one_in(20) { 70 } else { dice.below(4) };
                let (docs, values) = (0..length).map(|_| items.sample(dice)).unzip();
                (Doc::Array(docs), Value::Array(values))
            }
            Self::Map(of) => {
                let (mut entries, mut values) = (Vec::new(), Vec::new());
                for at in 0..dice.below(4) {
                    let key = format!("{}{at}", ["k", "a/b", "m~n", "\u{1F980}", "\"\\"][dice.below(5)]);
                    let (doc, value) = of.sample(dice);
                    entries.push(Entry { key: key.clone(), required: false, doc });
                    values.push((key, value));
                }
                (Doc::Object { entries, record: false }, Value::Map(values.into_iter().collect()))
            }
            Self::Record(fields) => {
                let (mut entries, mut values) = (Vec::new(), Vec::new());
                for (at, (kind, with_default)) in fields.iter().enumerate() {
                    let default = kind.default().filter(|_| *with_default);
                    let required = default.is_none();
                    match default {
                        Some((_, value)) if dice.one_in(3) => values.push((field_name(at), value)),
                        _ => {
                            let (doc, value) = kind.sample(dice);
                            entries.push(Entry { key: field_name(at), required, doc });
                            values.push((field_name(at), value));
                        }
                    }
                }
                (Doc::Object { entries, record: true }, Value::Record(values))
            }
            Self::Nullable(_) | Self::Union(..) if dice.one_in(4) => {
                (Doc::sound("null"), Value::Union(0, Box::new(Value::Null)))
            }
            Self::Nullable(inner) => {
                let (doc, value) = inner.sample(dice);
                let tag = inner.tag().filter(|_| dice.one_in(3));
                (doc.tagged(tag), Value::Union(1, Box::new(value)))
            }
            Self::Union(items, object) => {
                let array = Self::Array(items.clone());
                let branches = [&Self::String, &Self::Long, &Self::Boolean, &array, object];
                let at = dice.below(branches.len());
                let (mut doc, value) = branches[at].sample(dice);
                if let Doc::Leaf { wrong, .. } = &mut doc {
                    // Another branch might take it.
                    *wrong = None;
                }
                let tag = branches[at].tag().filter(|_| dice.one_in(3) && !matches!(**object, Self::Map(_)));
                (doc.tagged(tag), Value::Union(u32::try_from(at + 1).unwrap(), Box::new(value)))
            }
            scalar => scalar.scalar(dice),
        }
    }

    /// Named types' tags depend on the order of names, so unnamed ones stand for all.
    fn tag(&self) -> Option<&'static str> {
        match self {
            Self::Boolean => Some("boolean"),
            Self::Int | Self::Date | Self::TimeMillis => Some("int"),
            Self::Long | Self::TimeMicros | Self::Timestamp(..) => Some("long"),
            Self::Float => Some("float"),
            Self::Double => Some("double"),
            Self::Bytes | Self::Decimal { fixed: false, .. } => Some("bytes"),
            Self::String | Self::Uuid { fixed: false } => Some("string"),
            Self::Array(_) => Some("array"),
            _ => None,
        }
    }

    fn scalar(&self, dice: &mut Dice) -> (Doc, Value) {
        match self {
            Self::Boolean => {
                let value = dice.one_in(2);
                (Doc::leaf(&value, "\"true\"", "datatype_mismatch"), Value::Boolean(value))
            }
            Self::Int => {
                let value = i32::try_from(dice.among(i32::MIN.into(), i32::MAX.into())).unwrap() >> dice.below(32);
                (Doc::leaf(&value, "2147483648", "out_of_range"), Value::Int(value))
            }
            Self::Long => {
                let value = dice.next().cast_signed() >> dice.below(64);
                (Doc::leaf(&value, "-9223372036854775809", "out_of_range"), Value::Long(value))
            }
            Self::Float => {
                let bits = u32::try_from(dice.next() >> 32).unwrap();
                let value = Some(f32::from_bits(bits)).filter(|value| value.is_finite()).unwrap_or(0.5);
                (Doc::leaf(&format!("{value:?}"), "3.5e38", "out_of_range"), Value::Float(value))
            }
            Self::Double => {
                let value = Some(f64::from_bits(dice.next())).filter(|value| value.is_finite()).unwrap_or(0.5);
                (Doc::leaf(&format!("{value:?}"), "9007199254740993", "out_of_range"), Value::Double(value))
            }
            Self::Bytes => {
                let length = dice.below(9);
                let bytes = bytes(length, dice);
                (Doc::leaf(&latin1(&bytes), "\"\\u0100\"", "bad_format"), Value::Bytes(bytes))
            }
            Self::Fixed(size) => {
                let bytes = bytes(*size, dice);
                let wrong = format!("\"{}\"", "x".repeat(size + 1));
                (Doc::leaf(&latin1(&bytes), &wrong, "bad_format"), Value::Fixed(*size, bytes))
            }
            Self::String => {
                let text: String =
                    (0..dice.below(12)).map(|_| ['a', '"', '\\', '\n', '\u{e9}', '\u{1F980}'][dice.below(6)]).collect();
                let wrong = ["5", "{\"a\": [\"}\"]}", "[[]]", "1.5"][dice.below(4)];
                (Doc::leaf(&quote(&text), wrong, "datatype_mismatch"), Value::String(text))
            }
            Self::Enum(count) => {
                let at = dice.below(*count);
                let value = Value::Enum(u32::try_from(at).unwrap(), symbol(at));
                (Doc::leaf(&quote(&symbol(at)), "\"NONE\"", "unknown_symbol"), value)
            }
            Self::Uuid { .. } => {
                let id = uuid::Uuid::from_u64_pair(dice.next(), dice.next());
                (Doc::leaf(&quote(&id.to_string()), "\"urn\"", "bad_format"), Value::Uuid(id))
            }
            Self::Decimal { precision, scale, .. } => decimal(*precision, *scale, dice),
            _ => self.time(dice),
        }
    }

    fn time(&self, dice: &mut Dice) -> (Doc, Value) {
        match self {
            Self::Date => {
                let days = i32::try_from(dice.among(-1_000_000, 1_000_000)).unwrap();
                (Doc::leaf(&days, "\"2023-02-29\"", "bad_format"), Value::Date(days))
            }
            Self::TimeMillis => {
                let millis = i32::try_from(dice.among(0, 86_400_000)).unwrap();
                let text = if dice.one_in(2) { millis.to_string() } else { quote(&clock(i64::from(millis), 3)) };
                (Doc::leaf(&text, "86400000", "out_of_range"), Value::TimeMillis(millis))
            }
            Self::TimeMicros => {
                let micros = dice.among(0, 86_400_000_000);
                let text = if dice.one_in(2) { micros.to_string() } else { quote(&clock(micros, 6)) };
                (Doc::leaf(&text, "\"25:00:00\"", "bad_format"), Value::TimeMicros(micros))
            }
            Self::Timestamp(unit, local) => {
                let places = 3 * (unit + 1);
                let per_second = 10_i64.pow(u32::try_from(places).unwrap());
                let count = dice.among(946_684_800 * per_second, 4_102_444_800 * per_second);
                let text = if dice.one_in(2) {
                    count.to_string()
                } else {
                    // Any day of that century whose date is plain to write: the first of January 2001.
                    let zone = if *local { "" } else { "Z" };
                    quote(&format!("2001-01-01T{}{zone}", clock(count % (86_400 * per_second), places)))
                };
                let count = if text.starts_with('"') {
                    978_307_200 * per_second + count % (86_400 * per_second)
                } else {
                    count
                };
                let value = match (unit, local) {
                    (0, false) => Value::TimestampMillis(count),
                    (1, false) => Value::TimestampMicros(count),
                    (_, false) => Value::TimestampNanos(count),
                    (0, true) => Value::LocalTimestampMillis(count),
                    (1, true) => Value::LocalTimestampMicros(count),
                    (_, true) => Value::LocalTimestampNanos(count),
                };
                // Seconds, where something finer was meant.
                (Doc::leaf(&text, &(count / per_second).to_string(), "out_of_range"), value)
            }
            other => panic!("{other:?} is no time"),
        }
    }
}

/// `HH:MM:SS.fraction` of a count since midnight in tenths to the power of `places`.
fn clock(count: i64, places: usize) -> String {
    let per_second = 10_i64.pow(u32::try_from(places).unwrap());
    let (seconds, fraction) = (count / per_second, count % per_second);
    format!("{:02}:{:02}:{:02}.{fraction:0places$}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

fn decimal(precision: u32, scale: u32, dice: &mut Dice) -> (Doc, Value) {
    let digits = 1 + dice.below(precision.min(38) as usize);
    let magnitude: String = (0..digits).map(|_| char::from(b'0' + u8::try_from(dice.below(10)).unwrap())).collect();
    let magnitude: i128 = magnitude.parse().unwrap();
    let unscaled = if dice.one_in(2) { -magnitude } else { magnitude };
    let sign = if unscaled < 0 { "-" } else { "" };
    let scale = scale as usize;
    let text = if dice.one_in(3) {
        format!("{unscaled}e-{scale}")
    } else {
        let padded = format!("{magnitude:0>width$}", width = scale + 1);
        let (whole, fraction) = padded.split_at(padded.len() - scale);
        let zeros = "0".repeat(dice.below(3));
        format!("{sign}{whole}.{fraction}0{zeros}")
    };
    let text = if dice.one_in(2) { quote(&text) } else { text };
    let wrong = format!("0.{}1", "0".repeat(scale));
    (Doc::leaf(&text, &wrong, "too_many_digits"), Value::Decimal(unscaled.to_be_bytes().into()))
}

fn bytes(length: usize, dice: &mut Dice) -> Vec<u8> {
    (0..length).map(|_| dice.next().to_le_bytes()[0]).collect()
}

fn latin1(bytes: &[u8]) -> String {
    quote(&bytes.iter().copied().map(char::from).collect::<String>())
}

fn symbol(at: usize) -> String {
    format!("SYMBOL_{at}")
}

fn field_name(at: usize) -> String {
    format!("field_{at}")
}
