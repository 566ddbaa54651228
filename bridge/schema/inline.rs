//! Makes a schema self-contained: the types that it names are put where they are first used.
//!
//! A registry keeps shared types apart ("schema references"); whoever reads or writes a value needs them in one piece.

use std::collections::{HashMap, HashSet};

use serde_json::{Map, Value};

/// Types within types. A real schema has about ten levels; past this it is a mistake, and recursion must end somewhere.
const MAX_DEPTH: usize = 64;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Error {
    #[error("the type `{name}` is defined nowhere")]
    UnknownType { name: String },
    #[error("types are nested more than {MAX_DEPTH} deep")]
    TooDeep,
    #[error("a type is a name, an object with a `type`, or a list of types, not `{found}`")]
    NotAType { found: String },
}

/// A schema in one piece, and what it took from elsewhere.
#[derive(Debug)]
pub(super) struct Inlined {
    pub(super) schema: Value,
    /// Full names of the types that the schema itself names, in the order of first use;
    /// those that only its types name are theirs.
    pub(super) direct: Vec<String>,
}

/// Puts every type of `shared` (by full name) that `schema` needs where it is first used.
pub(super) fn inline(schema: &Value, shared: &HashMap<String, Value>) -> Result<Inlined, Error> {
    let mut walk = Walk { shared, defined: HashSet::new(), direct: Vec::new(), inside: 0 };
    let schema = walk.walk(schema, None, 0)?;
    Ok(Inlined { schema, direct: walk.direct })
}

/// JSON without the white space between tokens, keys in the order in which they were written.
///
/// Registries compare text: the same schema must be the same bytes however its file is laid out.
pub(super) fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut in_string, mut escaped) = (false, false);
    for c in json.chars() {
        if in_string {
            in_string = escaped || c != '"';
            escaped = !escaped && c == '\\';
        } else if c.is_ascii_whitespace() {
            continue;
        } else {
            in_string = c == '"';
        }
        out.push(c);
    }
    out
}

/// The full name of a named type's definition, where it has one.
pub(super) fn full_name(definition: &Map<String, Value>, namespace: Option<&str>) -> Option<String> {
    let name = definition.get("name")?.as_str()?;
    let own = definition.get("namespace").and_then(Value::as_str);
    Some(qualify(name, own.or(namespace)))
}

/// Avro 1.12, "Names": a name with a dot is full, another one belongs to the enclosing namespace.
fn qualify(name: &str, namespace: Option<&str>) -> String {
    match namespace {
        Some(namespace) if !namespace.is_empty() && !name.contains('.') => format!("{namespace}.{name}"),
        _ => name.to_owned(),
    }
}

fn namespace_of(full_name: &str) -> Option<&str> {
    full_name.rsplit_once('.').map(|(namespace, _)| namespace)
}

fn is_primitive(name: &str) -> bool {
    matches!(name, "null" | "boolean" | "int" | "long" | "float" | "double" | "bytes" | "string")
}

struct Walk<'a> {
    shared: &'a HashMap<String, Value>,
    defined: HashSet<String>,
    direct: Vec<String>,
    /// How many shared definitions we are inside of.
    inside: usize,
}

impl Walk<'_> {
    /// `node` in the place of a type, with what it needs put in.
    fn walk(&mut self, node: &Value, namespace: Option<&str>, depth: usize) -> Result<Value, Error> {
        if depth > MAX_DEPTH {
            return Err(Error::TooDeep);
        }
        match node {
            Value::String(name) if is_primitive(name) => Ok(node.clone()),
            Value::String(name) => self.named(name, namespace, depth),
            Value::Array(branches) => {
                branches.iter().map(|branch| self.walk(branch, namespace, depth + 1)).collect::<Result<_, _>>()
            }
            Value::Object(definition) => self.object(definition, namespace, depth),
            other => Err(Error::NotAType { found: other.to_string() }),
        }
    }

    fn named(&mut self, name: &str, namespace: Option<&str>, depth: usize) -> Result<Value, Error> {
        let name = qualify(name, namespace);
        if self.inside == 0 && self.shared.contains_key(&name) && !self.direct.contains(&name) {
            self.direct.push(name.clone());
        }
        if self.defined.contains(&name) {
            return Ok(Value::String(name));
        }
        let shared = self.shared;
        let Some(definition) = shared.get(&name) else { return Err(Error::UnknownType { name }) };
        self.inside += 1;
        let definition = self.walk(definition, None, depth + 1)?;
        self.inside -= 1;
        Ok(definition)
    }

    fn object(
        &mut self,
        definition: &Map<String, Value>,
        namespace: Option<&str>,
        depth: usize,
    ) -> Result<Value, Error> {
        let kind = definition.get("type").unwrap_or(&Value::Null);
        let mut out = definition.clone();
        match kind.as_str() {
            Some("record" | "error") => {
                let name = full_name(definition, namespace).unwrap_or_default();
                let inner = namespace_of(&name).map(str::to_owned);
                self.defined.insert(name);
                for field in out.get_mut("fields").and_then(Value::as_array_mut).into_iter().flatten() {
                    if let Some(of) = field.get_mut("type") {
                        *of = self.walk(of, inner.as_deref(), depth + 1)?;
                    }
                }
            }
            Some("enum" | "fixed") => {
                self.defined.extend(full_name(definition, namespace));
            }
            Some("array") => self.put(&mut out, "items", namespace, depth)?,
            Some("map") => self.put(&mut out, "values", namespace, depth)?,
            _ => self.put(&mut out, "type", namespace, depth)?,
        }
        Ok(Value::Object(out))
    }

    fn put(
        &mut self,
        definition: &mut Map<String, Value>,
        key: &str,
        namespace: Option<&str>,
        depth: usize,
    ) -> Result<(), Error> {
        let of = definition.get(key).unwrap_or(&Value::Null);
        let of = self.walk(of, namespace, depth + 1)?;
        definition.insert(key.to_owned(), of);
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn shared(types: &[Value]) -> HashMap<String, Value> {
        types.iter().map(|of| (full_name(of.as_object().unwrap(), None).unwrap(), of.clone())).collect()
    }

    fn place() -> Value {
        json!({"type": "record", "name": "Place", "namespace": "common",
               "fields": [{"name": "country", "type": "string"}]})
    }

    #[test]
    fn a_shared_type_stands_where_it_is_first_used_and_is_named_after_that() {
        let order = json!({"type": "record", "name": "Order", "namespace": "events", "fields": [
            {"name": "from", "type": ["null", "common.Place"]},
            {"name": "to", "type": {"type": "array", "items": "common.Place"}}]});
        let got = inline(&order, &shared(&[place()])).unwrap();
        assert_eq!(got.schema["fields"][0]["type"][1], place());
        assert_eq!(got.schema["fields"][1]["type"]["items"], "common.Place");
        assert_eq!(got.direct, ["common.Place"]);
        apache_avro::Schema::parse_str(&got.schema.to_string()).unwrap();
    }

    #[test]
    fn what_a_shared_type_needs_comes_with_it_and_is_not_a_reference_of_the_event() {
        let trip = json!({"type": "record", "name": "Trip", "namespace": "common",
                          "fields": [{"name": "to", "type": "Place"}]});
        let event = json!({"type": "record", "name": "E", "fields": [{"name": "trip", "type": "common.Trip"}]});
        let got = inline(&event, &shared(&[place(), trip])).unwrap();
        assert_eq!(got.direct, ["common.Trip"]);
        assert_eq!(got.schema["fields"][0]["type"]["fields"][0]["type"], place());
    }

    #[test]
    fn a_type_used_within_another_first_is_still_a_reference_of_the_event_that_names_it() {
        let trip = json!({"type": "record", "name": "Trip", "namespace": "common",
                          "fields": [{"name": "to", "type": "Place"}]});
        let event = json!({"type": "record", "name": "E", "fields": [
            {"name": "trip", "type": "common.Trip"}, {"name": "home", "type": "common.Place"}]});
        let got = inline(&event, &shared(&[place(), trip])).unwrap();
        assert_eq!(got.direct, ["common.Trip", "common.Place"]);
    }

    #[test]
    fn a_name_without_a_namespace_keeps_none_wherever_it_is_put() {
        let bare = json!({"type": "enum", "name": "Colour", "symbols": ["red"]});
        let event = json!({"type": "record", "name": "E", "namespace": "events", "fields": [
            {"name": "colour", "type": {"type": "Colour"}}]});
        let got = inline(&event, &shared(&[bare]));
        // Within `events`, a bare name means `events.Colour`, which there is not.
        assert_eq!(got.unwrap_err(), Error::UnknownType { name: "events.Colour".into() });
    }

    #[test]
    fn a_type_that_names_itself_is_left_to_the_check_for_recursion() {
        let node = json!({"type": "record", "name": "Node", "fields": [{"name": "next", "type": ["null", "Node"]}]});
        assert_eq!(inline(&node, &HashMap::new()).unwrap().schema, node);
    }

    #[test]
    fn nesting_has_an_end() {
        let mut deep = json!("int");
        for _ in 0..MAX_DEPTH + 2 {
            deep = json!({"type": "array", "items": deep});
        }
        assert_eq!(inline(&deep, &HashMap::new()).unwrap_err(), Error::TooDeep);
    }

    #[test]
    fn white_space_goes_except_within_text() {
        let pretty = "{\n  \"doc\": \"a \\\" b \\\\\",\n  \"z\": 1,\t\"a\": [ 2 ]\r\n}\n";
        let tight = compact(pretty);
        assert_eq!(tight, r#"{"doc":"a \" b \\","z":1,"a":[2]}"#);
        let (left, right): (Value, Value) =
            (serde_json::from_str(pretty).unwrap(), serde_json::from_str(&tight).unwrap());
        assert_eq!(left, right);
    }
}
