//! The smallest event that a schema takes: every field without a default, and no other. For test events.

use std::collections::HashMap;

use serde_json::{Map, Value, json};

use crate::calendar::Rfc3339;

/// Deeper than any event of ours; a schema that contains itself ends here.
const MAX_DEPTH: usize = 32;

/// What an example is filled with.
#[derive(Debug, Clone, Copy)]
pub struct Filling<'a> {
    /// The content of every text.
    pub text: &'a str,
    /// Milliseconds since the Unix epoch.
    pub now_ms: i64,
}

/// An event as JSON; `None` where the schema's text (references inlined) is none, or asks for what cannot be made up.
#[must_use]
pub fn example(schema: &str, filling: &Filling<'_>) -> Option<Value> {
    let schema: Value = serde_json::from_str(schema).ok()?;
    let mut named = HashMap::new();
    collect(&schema, &mut named, 0);
    value(&schema, &named, filling, 0)
}

/// The named types, under their names as they are written in references.
fn collect<'a>(schema: &'a Value, named: &mut HashMap<String, &'a Value>, depth: usize) {
    if depth > MAX_DEPTH {
        return;
    }
    match schema {
        Value::Array(branches) => branches.iter().for_each(|branch| collect(branch, named, depth + 1)),
        Value::Object(object) => {
            if let Some(name) = object.get("name").and_then(Value::as_str).filter(|_| object.contains_key("type")) {
                if let Some(space) = object.get("namespace").and_then(Value::as_str) {
                    named.insert(format!("{space}.{name}"), schema);
                }
                named.insert(name.to_owned(), schema);
            }
            object.values().for_each(|part| collect(part, named, depth + 1));
        }
        _ => {}
    }
}

fn value(schema: &Value, named: &HashMap<String, &Value>, filling: &Filling<'_>, depth: usize) -> Option<Value> {
    if depth > MAX_DEPTH {
        return None;
    }
    let object = match schema {
        Value::Array(branches) if branches.iter().any(|branch| branch == "null") => return Some(Value::Null),
        Value::Array(branches) => return value(branches.first()?, named, filling, depth + 1),
        Value::String(name) => {
            return plain(name, filling).or_else(|| value(named.get(name)?, named, filling, depth + 1));
        }
        Value::Object(object) => object,
        _ => return None,
    };
    if let Some(made) =
        object.get("logicalType").and_then(Value::as_str).and_then(|name| logical(name, object, filling))
    {
        return Some(made);
    }
    match object.get("type")? {
        Value::String(name) if name == "record" => {
            let mut made = Map::new();
            for field in object.get("fields")?.as_array()?.iter().filter(|field| field.get("default").is_none()) {
                let name = field.get("name")?.as_str()?;
                made.insert(name.to_owned(), value(field.get("type")?, named, filling, depth + 1)?);
            }
            Some(Value::Object(made))
        }
        Value::String(name) if name == "enum" => object.get("symbols")?.get(0).cloned(),
        Value::String(name) if name == "array" => Some(json!([])),
        Value::String(name) if name == "map" => Some(json!({})),
        other => value(other, named, filling, depth + 1),
    }
}

fn plain(name: &str, filling: &Filling<'_>) -> Option<Value> {
    Some(match name {
        "null" => Value::Null,
        "boolean" => json!(true),
        "int" | "long" => json!(1),
        "float" | "double" => json!(1.5),
        "string" => json!(filling.text),
        "bytes" => json!(""),
        _ => return None,
    })
}

fn logical(name: &str, schema: &Map<String, Value>, filling: &Filling<'_>) -> Option<Value> {
    let now = Rfc3339::from_ms(filling.now_ms);
    let (date, _) = now.as_str().split_once('T')?;
    Some(match name {
        "decimal" if schema.get("scale").and_then(Value::as_u64).unwrap_or(0) == 0 => json!("19"),
        "decimal" => json!("19.9"),
        "uuid" => json!("00000000-0000-4000-8000-000000000042"),
        "date" => json!(date),
        "time-millis" | "time-micros" => json!("12:00:00"),
        "timestamp-millis" | "timestamp-micros" | "timestamp-nanos" => json!(now.as_str()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_example_has_what_is_required_and_nothing_else() {
        let schema = r#"{"type": "record", "name": "E", "namespace": "a.b", "fields": [
            {"name": "id", "type": "string"},
            {"name": "at", "type": {"type": "long", "logicalType": "timestamp-millis"}},
            {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
            {"name": "note", "type": ["null", "string"]},
            {"name": "left_out", "type": "string", "default": ""},
            {"name": "item", "type": {"type": "record", "name": "Item", "fields": [{"name": "n", "type": "int"}]}},
            {"name": "other", "type": "a.b.Item"},
            {"name": "tier", "type": {"type": "enum", "name": "T", "symbols": ["free", "paid"]}},
            {"name": "tags", "type": {"type": "array", "items": "string"}}]}"#;
        let schema = schema.replace(r#""name": "Item""#, r#""name": "Item", "namespace": "a.b""#);
        let made = example(&schema, &Filling { text: "test-1", now_ms: 0 }).unwrap();
        let expected = json!({"id": "test-1", "at": "1970-01-01T00:00:00.000Z", "total": "19.9", "note": null,
            "item": {"n": 1}, "other": {"n": 1}, "tier": "free", "tags": []});
        assert_eq!(made, expected);
    }

    #[test]
    fn a_schema_that_contains_itself_has_no_example() {
        let schema = r#"{"type": "record", "name": "N", "fields": [{"name": "next", "type": "N"}]}"#;
        assert_eq!(example(schema, &Filling { text: "x", now_ms: 0 }), None);
        assert_eq!(example("{", &Filling { text: "x", now_ms: 0 }), None);
    }
}
