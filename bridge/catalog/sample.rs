//! Samples: what a provider would send, one JSON file a preset, in `samples/`. For `send` and `dev`.
//!
//! A file is a list of `{event, headers, body}`. In its texts, `$id` stands for an id that no other sample has, `$now`
//! for RFC 3339 text, `$now_s` and `$now_ms` for seconds and milliseconds since the Unix epoch, `$serial` for a whole
//! number that no other sample has. A text that is one of the last three and nothing else becomes a number.

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use super::Error;
use crate::calendar::Rfc3339;

/// The samples of each preset, in the order of their names: name, JSON.
const SAMPLES: &[(&str, &str)] = &[
    ("github", include_str!("samples/github.json")),
    ("hubspot", include_str!("samples/hubspot.json")),
    ("mailgun", include_str!("samples/mailgun.json")),
    ("meta", include_str!("samples/meta.json")),
    ("paddle", include_str!("samples/paddle.json")),
    ("segment", include_str!("samples/segment.json")),
    ("sendgrid", include_str!("samples/sendgrid.json")),
    ("shopify", include_str!("samples/shopify.json")),
    ("slack", include_str!("samples/slack.json")),
    ("square", include_str!("samples/square.json")),
    ("standard-webhooks", include_str!("samples/standard-webhooks.json")),
    ("stripe", include_str!("samples/stripe.json")),
    ("typeform", include_str!("samples/typeform.json")),
    ("zendesk", include_str!("samples/zendesk.json")),
];

/// What a provider would send of one event, before it is filled in.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Sample {
    /// The provider's name of the event's type.
    pub event: String,
    /// Headers beside those of the signature.
    #[serde(default)]
    headers: BTreeMap<String, String>,
    body: Box<RawValue>,
}

/// What makes one sending of a sample different from the next.
#[derive(Debug, Clone, Copy)]
pub struct Occasion<'a> {
    /// Letters, digits, `-` and `_`: it is put into JSON and into headers as it is.
    pub id: &'a str,
    pub serial: u64,
    /// Milliseconds since the Unix epoch.
    pub now_ms: i64,
}

impl Sample {
    /// Headers of the request, names in lower case.
    #[must_use]
    pub fn headers(&self, occasion: &Occasion<'_>) -> Vec<(&str, String)> {
        self.headers.iter().map(|(name, value)| (name.as_str(), filled(value, occasion))).collect()
    }

    /// The body, as compact JSON; a body that is a text is that text, for what is no JSON.
    #[must_use]
    pub fn body(&self, occasion: &Occasion<'_>) -> Vec<u8> {
        let text: Cow<'_, str> = match serde_json::from_str::<String>(self.body.get()) {
            Ok(text) => Cow::Owned(text),
            Err(_) => Cow::Owned(compact(self.body.get())),
        };
        let numbers = [("\"$now_ms\"", occasion.now_ms.to_string()), ("\"$now_s\"", seconds(occasion))];
        let text = numbers.iter().fold(text.into_owned(), |text, (name, number)| text.replace(name, number));
        filled(&text.replace("\"$serial\"", &occasion.serial.to_string()), occasion).into_bytes()
    }
}

/// The samples of a preset, the first of which is the one to begin with.
///
/// # Errors
/// [`Error::UnknownPreset`].
pub fn samples(preset: &str) -> Result<Vec<Sample>, Error> {
    let Some(&(name, text)) = SAMPLES.iter().find(|(known, _)| *known == preset) else {
        return Err(Error::UnknownPreset { name: preset.to_owned() });
    };
    serde_json::from_str(text).map_err(|source| Error::NoSamples { name, source })
}

fn seconds(occasion: &Occasion<'_>) -> String {
    occasion.now_ms.div_euclid(1_000).to_string()
}

/// The longer names first, for one of them begins another.
fn filled(text: &str, occasion: &Occasion<'_>) -> String {
    text.replace("$now_ms", &occasion.now_ms.to_string())
        .replace("$now_s", &seconds(occasion))
        .replace("$now", Rfc3339::from_ms(occasion.now_ms).as_str())
        .replace("$serial", &occasion.serial.to_string())
        .replace("$id", occasion.id)
}

/// JSON without the blanks between its parts; numbers keep their digits and fields their order.
fn compact(json: &str) -> String {
    let mut out = String::with_capacity(json.len());
    let (mut quoted, mut escaped) = (false, false);
    for c in json.chars() {
        if !quoted && c.is_ascii_whitespace() {
            continue;
        }
        match c {
            '"' if !escaped => quoted = !quoted,
            _ => {}
        }
        escaped = quoted && c == '\\' && !escaped;
        out.push(c);
    }
    out
}

#[cfg(test)]
mod tests {
    use http::{HeaderMap, HeaderName, HeaderValue};
    use serde_json::{Value, json};

    use super::*;
    use crate::catalog::{Locator, preset, preset_names};
    use crate::expr::{Json, Program};

    const OCCASION: Occasion<'_> = Occasion { id: "test-1", serial: 7, now_ms: 1_767_225_600_250 };

    #[test]
    fn every_preset_has_samples_and_every_file_of_samples_a_preset() {
        let listed: Vec<&str> = SAMPLES.iter().map(|(name, _)| *name).collect();
        assert_eq!(listed, preset_names().collect::<Vec<_>>());
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("bridge/catalog/samples");
        assert_eq!(std::fs::read_dir(folder).unwrap().count(), listed.len());
        for name in preset_names() {
            let samples = samples(name).unwrap();
            assert!(!samples.is_empty(), "{name}");
            for sample in samples {
                let body = sample.body(&OCCASION);
                let text = String::from_utf8(body).unwrap();
                assert!(!text.contains('$'), "{name} {}: {text}", sample.event);
                assert!(text.len() < 2_048, "{name} {}: a sample is small", sample.event);
            }
        }
    }

    #[test]
    fn a_sample_says_the_id_and_the_type_that_its_preset_looks_for() {
        for name in preset_names() {
            let scheme = preset(name).unwrap();
            for sample in samples(name).unwrap() {
                let body = sample.body(&OCCASION);
                let value: Value = serde_json::from_slice(&body).unwrap();
                let mut headers = HeaderMap::new();
                for (name, value) in sample.headers(&OCCASION) {
                    headers.insert(HeaderName::try_from(name).unwrap(), HeaderValue::try_from(value).unwrap());
                }
                // The signer writes the id into a header that it signs.
                headers.insert("webhook-id", HeaderValue::from_static("test-1"));
                // As far as a single event stands in a list of one.
                let first = match name {
                    "meta" => value["entry"][0]["changes"][0].clone(),
                    _ => value.get(0).cloned().unwrap_or(value),
                };
                let first = first.to_string();
                let event = Json::new(first.as_bytes()).unwrap();
                let says = |texts: &[String]| {
                    texts.iter().find_map(|text| match Locator::parse(text).unwrap() {
                        Locator::Header(name) => headers.get(name).map(|value| value.to_str().unwrap().to_owned()),
                        Locator::Jq(text) => Program::compile(&text).unwrap().scalar(&event).unwrap(),
                    })
                };
                assert_eq!(says(&scheme.event_type).as_deref(), Some(sample.event.as_str()), "{name}");
                assert!(says(&scheme.event_id).is_some(), "{name} {}: no id", sample.event);
            }
        }
    }

    #[test]
    fn what_stands_for_something_is_filled_in() {
        let text = r#"{"event": "e", "headers": {"x-id": "d-$id"},
            "body": { "at": "$now_s", "ms": "$now_ms", "n": "$serial", "ts": "$now_s.1", "time": "$now", "a": "x \" $id" }}"#;
        let sample: Sample = serde_json::from_str(text).unwrap();
        assert_eq!(sample.headers(&OCCASION), [("x-id", "d-test-1".to_owned())]);
        let body: Value = serde_json::from_slice(&sample.body(&OCCASION)).unwrap();
        let (at, time) = (1_767_225_600, "2026-01-01T00:00:00.250Z");
        let expected =
            json!({"at": at, "ms": OCCASION.now_ms, "n": 7, "ts": "1767225600.1", "time": time, "a": "x \" test-1"});
        assert_eq!(body, expected);
        let form: Sample = serde_json::from_str(r#"{"event": "e", "body": "a=$id&b=1"}"#).unwrap();
        assert_eq!(form.body(&OCCASION), b"a=test-1&b=1");
    }

    #[test]
    fn json_is_made_compact_and_nothing_else() {
        assert_eq!(
            compact(" { \"a b\" : [ 1.90 , \"\\\" \\\\\" ] , \"\" : \" \" } "),
            r#"{"a b":[1.90,"\" \\"],"":" "}"#
        );
    }
}
