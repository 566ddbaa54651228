//! YAML into JSON values, so that serde reads the catalogue as it reads any other data.

use saphyr::{LoadableYamlNode, Scalar, Yaml};
use serde_json::{Map, Number, Value};

/// Reads one YAML document.
///
/// # Errors
/// A sentence that says what JSON has no word for, or where the text stops being YAML.
pub(super) fn to_json(text: &str) -> Result<Value, String> {
    let documents = Yaml::load_from_str(text).map_err(|error| error.to_string())?;
    match documents.as_slice() {
        [document] => convert(document),
        other => Err(format!("expected one document, found {}", other.len())),
    }
}

fn convert(node: &Yaml<'_>) -> Result<Value, String> {
    match node {
        Yaml::Value(scalar) => convert_scalar(scalar),
        Yaml::Sequence(items) => items.iter().map(convert).collect::<Result<_, _>>().map(Value::Array),
        Yaml::Mapping(entries) => {
            let mut object = Map::new();
            for (key, value) in entries {
                let key = key.as_str().ok_or_else(|| format!("the key {key:?} is not text"))?;
                object.insert(key.to_owned(), convert(value)?);
            }
            Ok(Value::Object(object))
        }
        other => Err(format!("tags and aliases have no meaning here: {other:?}")),
    }
}

fn convert_scalar(scalar: &Scalar<'_>) -> Result<Value, String> {
    Ok(match scalar {
        Scalar::Null => Value::Null,
        Scalar::Boolean(value) => Value::Bool(*value),
        Scalar::Integer(value) => Value::from(*value),
        Scalar::FloatingPoint(value) => {
            Number::from_f64(value.into_inner()).map(Value::Number).ok_or_else(|| format!("{value} is not a number"))?
        }
        Scalar::String(value) => Value::String(value.clone().into_owned()),
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn yaml_becomes_the_json_that_it_looks_like() {
        let text = "a: [1, 2.5, true, null, 'x']\nb: { c: \"1\" }\n";
        assert_eq!(to_json(text), Ok(json!({"a": [1, 2.5, true, null, "x"], "b": {"c": "1"}})));
    }

    #[test]
    fn what_json_cannot_say_is_refused() {
        for text in ["1: a", "a: !tag b", "a: .nan", "a: [", "", "--- a\n--- b\n"] {
            assert!(to_json(text).is_err(), "{text}");
        }
    }
}
