//! Consent, fail-closed: an event goes to a sink that has a purpose only if the event itself says true for it.

use apache_avro::types::Value;

use crate::config::Purpose;

/// The field of an event that holds its consent: a map, or a record, of purposes to booleans.
const FIELD: &str = "consent";

/// Whether the event may go to a sink of that purpose.
///
/// Only the boolean true is consent. A missing field, a missing or null purpose, a text that says "true": none is.
pub(super) fn is_given(purpose: &Purpose, event: &Value) -> bool {
    let Purpose::Named(purpose) = purpose else { return true };
    let consent = member(event, FIELD);
    let given = consent.and_then(|consent| member(consent, purpose));
    matches!(given.map(plain), Some(Value::Boolean(true)))
}

/// A value without the unions around it.
fn plain(mut value: &Value) -> &Value {
    while let Value::Union(_, inner) = value {
        value = inner;
    }
    value
}

fn member<'a>(value: &'a Value, name: &str) -> Option<&'a Value> {
    match plain(value) {
        Value::Map(entries) => entries.get(name),
        Value::Record(fields) => fields.iter().find(|(field, _)| field == name).map(|(_, value)| value),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn some(value: Value) -> Value {
        Value::Union(1, Box::new(value))
    }

    fn none() -> Value {
        Value::Union(0, Box::new(Value::Null))
    }

    fn event(consent: Value) -> Value {
        Value::Record(vec![("id".into(), Value::Int(1)), ("consent".into(), consent)])
    }

    fn map(value: Value) -> Value {
        Value::Map([("email_marketing".to_owned(), value), ("ads".to_owned(), Value::Boolean(true))].into())
    }

    #[test]
    fn only_the_boolean_true_is_consent() {
        let purpose = Purpose::Named("email_marketing".into());
        for (consent, expected) in [
            (map(Value::Boolean(true)), true),
            (map(some(Value::Boolean(true))), true),
            (some(map(Value::Boolean(true))), true),
            (Value::Record(vec![("email_marketing".into(), Value::Boolean(true))]), true),
            (map(Value::Boolean(false)), false),
            (map(none()), false),
            (map(Value::String("true".into())), false),
            (map(Value::Int(1)), false),
            (map(map(Value::Boolean(true))), false),
            (Value::Map([("ads".to_owned(), Value::Boolean(true))].into()), false),
            (Value::Map([("EMAIL_MARKETING".to_owned(), Value::Boolean(true))].into()), false),
            (Value::Map([].into()), false),
            (Value::Boolean(true), false),
            (none(), false),
        ] {
            assert_eq!(is_given(&purpose, &event(consent.clone())), expected, "{consent:?}");
        }
    }

    #[test]
    fn an_event_without_a_consent_field_has_none() {
        let purpose = Purpose::Named("email_marketing".into());
        assert!(!is_given(&purpose, &Value::Record(vec![])));
        assert!(!is_given(&purpose, &Value::String("consent".into())));
        assert!(!is_given(&purpose, &Value::Null));
    }

    #[test]
    fn a_sink_without_a_purpose_asks_for_none() {
        for purpose in [Purpose::None, Purpose::Unset] {
            assert!(is_given(&purpose, &event(Value::Map([].into()))));
        }
    }
}
