//! Consent, fail-closed: an event goes to a sink that has a purpose only if the event itself says true for it.

use std::fmt;

use serde::de::{DeserializeSeed, Deserializer, Error, IgnoredAny, MapAccess, Visitor};
use serde_json::value::RawValue;

use crate::config::Purpose;

/// The field of an event that holds its consent: a map, or a record, of purposes to booleans.
pub(super) const FIELD: &str = "consent";

/// Whether events are asked for consent at all.
pub(super) fn is_needed(purpose: &Purpose) -> bool {
    matches!(purpose, Purpose::Named(_))
}

/// Whether the event may go to a sink of that purpose. `consent`: the JSON of the event's [`FIELD`], where it has one.
///
/// Only the boolean true is consent. A missing field, a missing or null purpose, a text that says "true": none is.
pub(super) fn is_given(purpose: &Purpose, consent: Option<&[u8]>) -> bool {
    let Purpose::Named(purpose) = purpose else { return true };
    let mut json = serde_json::Deserializer::from_slice(consent.unwrap_or_default());
    json.deserialize_map(Given(purpose)).unwrap_or(false)
}

/// Whether an object says true for a name. What is no object says nothing.
struct Given<'p>(&'p str);

impl<'de> Visitor<'de> for Given<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("purposes and booleans")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut purposes: A) -> Result<bool, A::Error> {
        let mut is_given = false;
        while let Some(is_ours) = purposes.next_key_seed(Same(self.0))? {
            if is_ours {
                is_given = purposes.next_value::<&RawValue>()?.get() == "true";
            } else {
                purposes.next_value::<IgnoredAny>()?;
            }
        }
        Ok(is_given)
    }
}

/// Whether a key is that text.
struct Same<'p>(&'p str);

impl<'de> DeserializeSeed<'de> for Same<'_> {
    type Value = bool;

    fn deserialize<D: Deserializer<'de>>(self, key: D) -> Result<bool, D::Error> {
        key.deserialize_str(self)
    }
}

impl Visitor<'_> for Same<'_> {
    type Value = bool;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a purpose")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<bool, E> {
        Ok(key == self.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn given(purpose: &Purpose, consent: &str) -> bool {
        is_given(purpose, Some(consent.as_bytes()))
    }

    #[test]
    fn only_the_boolean_true_is_consent() {
        let purpose = Purpose::Named("email_marketing".into());
        for (consent, expected) in [
            (r#"{"email_marketing":true}"#, true),
            (r#"{"ads":false,"email_marketing":true,"sms":null}"#, true),
            (r#"{"email\u005fmarketing":true}"#, true),
            (r#"{"ads":true,"email_marketing":false}"#, false),
            (r#"{"ads":true,"email_marketing":null}"#, false),
            (r#"{"email_marketing":"true"}"#, false),
            (r#"{"email_marketing":1}"#, false),
            (r#"{"email_marketing":{"email_marketing":true}}"#, false),
            (r#"{"a":{"email_marketing":true}}"#, false),
            (r#"{"ads":true}"#, false),
            (r#"{"EMAIL_MARKETING":true}"#, false),
            (r#"["email_marketing",true]"#, false),
            (r#"{"email_marketing":true"#, false),
            ("{}", false),
            ("true", false),
            ("null", false),
            ("", false),
        ] {
            assert_eq!(given(&purpose, consent), expected, "{consent}");
        }
    }

    #[test]
    fn an_event_without_a_consent_field_has_none() {
        assert!(!is_given(&Purpose::Named("email_marketing".into()), None));
    }

    #[test]
    fn a_sink_without_a_purpose_asks_for_none() {
        for purpose in [Purpose::None, Purpose::Unset] {
            assert!(!is_needed(&purpose) && given(&purpose, "{}") && is_given(&purpose, None));
        }
    }
}
