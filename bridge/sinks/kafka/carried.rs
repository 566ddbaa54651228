//! What comes back out of an event's JSON as it went in.
//!
//! A map is jq over JSON, which knows fewer types than Avro. A schema of which a value could come back as another one is
//! not written from a map at all, so that no copy is wrong in silence.

use apache_avro::Schema;

use super::super::json::Shape;

/// Deeper than any schema that is read with; they do not recurse ([`crate::schema::shape`]).
const MAX_DEPTH: usize = 64;

/// What stands in JSON for a type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Form {
    Null,
    Boolean,
    Number,
    Text,
    Array,
    Object,
}

/// Every place of the schema whose values JSON does not carry.
pub(super) fn check(schema: &Schema) -> Result<(), Vec<String>> {
    let shape = Shape::new(schema);
    let mut lost = Vec::new();
    walk(&shape, shape.root(), "", 0, &mut lost);
    if lost.is_empty() { Ok(()) } else { Err(lost) }
}

fn walk(shape: &Shape, schema: &Schema, path: &str, depth: usize, lost: &mut Vec<String>) {
    if depth > MAX_DEPTH {
        return;
    }
    let name = |path: &str| if path.is_empty() { "the whole".to_owned() } else { format!("`{path}`") };
    match shape.resolve(schema) {
        Schema::Duration(_) => lost.push(format!("{} (a duration)", name(path))),
        Schema::BigDecimal => lost.push(format!("{} (a big-decimal)", name(path))),
        Schema::Array(array) => walk(shape, &array.items, &format!("{path}[]"), depth + 1, lost),
        Schema::Map(map) => walk(shape, &map.types, &format!("{path}{{}}"), depth + 1, lost),
        Schema::Record(record) => {
            for field in &record.fields {
                let dot = if path.is_empty() { "" } else { "." };
                walk(shape, &field.schema, &format!("{path}{dot}{}", field.name), depth + 1, lost);
            }
        }
        Schema::Union(union) => {
            let mut seen: Vec<Form> = Vec::new();
            let mut alike = false;
            for branch in union.variants() {
                walk(shape, branch, path, depth + 1, lost);
                let forms = forms_of(shape.resolve(branch));
                alike |= forms.iter().any(|form| seen.contains(form));
                seen.extend(forms);
            }
            if alike {
                lost.push(format!("{} (a union of types that look alike)", name(path)));
            }
        }
        _ => {}
    }
}

/// A float's NaN and infinities are texts.
fn forms_of(schema: &Schema) -> &'static [Form] {
    match schema {
        Schema::Null => &[Form::Null],
        Schema::Boolean => &[Form::Boolean],
        Schema::Int | Schema::Long | Schema::Decimal(_) | Schema::BigDecimal => &[Form::Number],
        Schema::Float | Schema::Double => &[Form::Number, Form::Text],
        Schema::Array(_) => &[Form::Array],
        Schema::Map(_) | Schema::Record(_) => &[Form::Object],
        // A reference was followed, and a union stands in no union.
        _ => &[Form::Text],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn lost(schema: &str) -> Vec<String> {
        check(&Schema::parse_str(schema).unwrap()).err().unwrap_or_default()
    }

    #[test]
    fn a_union_is_carried_where_its_branches_look_different() {
        for (schema, carried) in [
            (r#"["null", "string"]"#, true),
            (r#"["null", "string", "long", "boolean", {"type": "array", "items": "string"}]"#, true),
            (r#"["null", {"type": "map", "values": "string"}, "string"]"#, true),
            (r#"["int", "long"]"#, false),
            (r#"["string", {"type": "long", "logicalType": "timestamp-millis"}]"#, false),
            (r#"["double", "string"]"#, false),
            (r#"[{"type": "map", "values": "int"}, {"type": "record", "name": "R", "fields": []}]"#, false),
        ] {
            assert_eq!(lost(schema).is_empty(), carried, "{schema}");
        }
    }

    #[test]
    fn all_that_is_lost_is_named_where_it_stands() {
        let schema = r#"{"type": "record", "name": "E", "fields": [
            {"name": "id", "type": "string"},
            {"name": "total", "type": {"type": "bytes", "logicalType": "decimal", "precision": 9, "scale": 2}},
            {"name": "raw", "type": ["null", "bytes"]},
            {"name": "wait", "type": ["null", {"type": "fixed", "name": "D", "size": 12, "logicalType": "duration"}]},
            {"name": "items", "type": {"type": "array", "items": {"type": "record", "name": "I", "fields": [
                {"name": "hash", "type": {"type": "fixed", "name": "H", "size": 4}}, {"name": "key", "type": ["bytes", "string"]}]}}},
            {"name": "again", "type": {"type": "map", "values": "I"}}]}"#;
        let alike = |path: &str| format!("`{path}` (a union of types that look alike)");
        assert_eq!(lost(schema), ["`wait` (a duration)".to_owned(), alike("items[].key"), alike("again{}.key")]);
        let big = r#"{"type": "bytes", "logicalType": "big-decimal"}"#;
        assert_eq!(lost(big), ["the whole (a big-decimal)"]);
    }
}
