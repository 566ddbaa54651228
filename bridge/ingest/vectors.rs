//! Runs request vectors against the catalogue: the engine of `hookbridge source test FILE`.
//!
//! A vector is a request as it came, the secrets that are trusted, the receiver's clock, and whether it is authentic.
//! A file is a JSON list of them; docs/sources.md has the fields.

use std::collections::BTreeMap;
use std::io::{self, Write};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde::Deserialize;
use serde_json::Value;

use super::handshake::{Answer, Handshakes};
use super::verify::{Rejection, Request, Verifier};
use crate::catalog::{self, Algorithm, Covers, KeyEncoding, SourceScheme};
use crate::config::Secret;

/// The setting that holds a private source's description, with the keys that its section of the file would have.
const DESCRIPTION: &str = "description";

/// Why a file could not be run at all. What is wrong with one vector is a failed vector instead.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the file is not a JSON list of vectors")]
    NotAList(#[source] serde_json::Error),
    /// It would pass by testing nothing.
    #[error("the file has no vector")]
    Empty,
    #[error("the report could not be written")]
    Write(#[from] io::Error),
}

/// How many vectors came out as they expect.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Report {
    pub passed: usize,
    pub failed: usize,
}

/// Runs all vectors of the file's text, writes each mismatch, and at the end `N passed, N failed`.
/// The preset is the one that each vector's `provider` names (`_` and `-` being the same), or `provider` where given.
///
/// # Errors
/// If the text is not a list of vectors, or the report cannot be written.
pub fn run(text: &str, provider: Option<&str>, report: &mut dyn Write) -> Result<Report, Error> {
    let vectors: Vec<Value> = serde_json::from_str(text).map_err(Error::NotAList)?;
    if vectors.is_empty() {
        return Err(Error::Empty);
    }
    let mut count = Report::default();
    for (at, vector) in vectors.into_iter().enumerate() {
        let name = vector.get("name").and_then(Value::as_str).map_or_else(|| format!("#{at}"), str::to_owned);
        match check(vector, provider) {
            Ok(None) => count.passed += 1,
            Ok(Some(mismatch)) => {
                count.failed += 1;
                writeln!(report, "{name}: {mismatch}")?;
            }
            Err(problem) => {
                count.failed += 1;
                writeln!(report, "{name}: not run: {problem}")?;
            }
        }
    }
    writeln!(report, "{} passed, {} failed", count.passed, count.failed)?;
    Ok(count)
}

#[derive(Debug, Deserialize)]
struct Vector {
    provider: String,
    secrets: Vec<String>,
    #[serde(default = "post")]
    method: String,
    #[serde(default)]
    url: String,
    headers: BTreeMap<String, OneOrMany>,
    #[serde(default)]
    body_base64: String,
    /// Seconds since the Unix epoch; a fraction is kept to the millisecond.
    now_unix: serde_json::Number,
    #[serde(default)]
    config: BTreeMap<String, Value>,
    /// Whether it is a handshake: then it is to be answered, and nothing else.
    #[serde(default)]
    handshake: bool,
    #[serde(default)]
    expect_response: Option<ExpectedAnswer>,
    #[serde(default)]
    precondition: Precondition,
    expect: Expect,
    #[serde(default)]
    reason: String,
}

/// What the answer to a handshake is to be; what is left out may be anything.
#[derive(Debug, Deserialize)]
struct ExpectedAnswer {
    status: Option<u16>,
    body: Option<String>,
    body_any_of: Option<Vec<Value>>,
    json: Option<Value>,
}

#[derive(Debug, Default, Deserialize)]
struct Precondition {
    #[serde(default)]
    seen_replay_keys: Vec<String>,
}

fn post() -> String {
    "POST".to_owned()
}

/// A header's value, or its values where the request carries it more than once.
#[derive(Debug, Deserialize)]
#[serde(untagged)]
enum OneOrMany {
    One(String),
    Many(Vec<String>),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
enum Expect {
    Accept,
    Reject,
}

/// What came of a vector, and why.
struct Decision {
    accepted: bool,
    why: String,
    /// To a handshake.
    answer: Option<Answer>,
}

impl Decision {
    fn accept(why: impl Into<String>) -> Self {
        Self { accepted: true, why: why.into(), answer: None }
    }

    fn reject(why: impl Into<String>) -> Self {
        Self { accepted: false, why: why.into(), answer: None }
    }

    fn answered(answer: Answer) -> Self {
        let why = format!("a handshake, answered {}", answer.status.as_u16());
        Self { accepted: answer.status.is_success(), why, answer: Some(answer) }
    }
}

/// The mismatch in words, if there is one.
fn check(vector: Value, provider: Option<&str>) -> Result<Option<String>, String> {
    let vector: Vector = serde_json::from_value(vector).map_err(|error| error.to_string())?;
    let decision = decide(&vector, provider)?;
    if decision.accepted != (vector.expect == Expect::Accept) {
        let word = |accepted| if accepted { "accept" } else { "reject" };
        let (expected, got) = (word(!decision.accepted), word(decision.accepted));
        return Ok(Some(format!("expected {expected} ({}), got {got} ({})", vector.reason, decision.why)));
    }
    if vector.handshake && decision.accepted && decision.answer.is_none() {
        return Ok(Some(format!("expected a handshake ({}), got an event ({})", vector.reason, decision.why)));
    }
    let expected = vector.expect_response.as_ref();
    Ok(expected.and_then(|expected| expected.mismatch(decision.answer.as_ref(), decision.accepted)))
}

impl ExpectedAnswer {
    fn mismatch(&self, answer: Option<&Answer>, accepted: bool) -> Option<String> {
        // What is no handshake is answered by other stages: a refusal with 401, an event as it turns out.
        let status = answer.map_or(if accepted { 200 } else { 401 }, |answer| answer.status.as_u16());
        let body = answer.map_or("", |answer| answer.body.as_str());
        let json = || serde_json::from_str::<Value>(body).unwrap_or_default();
        let is = |expected: &Value| expected.as_str().is_some_and(|text| text == body) || *expected == json();
        if let Some(expected) = self.status.filter(|expected| *expected != status) {
            return Some(format!("expected the status {expected}, got {status}"));
        }
        if let Some(expected) = self.body.as_ref().filter(|expected| *expected != body) {
            return Some(format!("expected the answer {expected:?}, got {body:?}"));
        }
        if let Some(expected) = self.body_any_of.as_ref().filter(|expected| !expected.iter().any(is)) {
            return Some(format!("expected one of {expected:?} as the answer, got {body:?}"));
        }
        let expected = self.json.as_ref().filter(|expected| **expected != json())?;
        Some(format!("expected the answer {expected}, got {body:?}"))
    }
}

fn decide(vector: &Vector, provider: Option<&str>) -> Result<Decision, String> {
    let settings = Settings::apply(scheme(vector, provider)?, &vector.config)?;
    let body = STANDARD.decode(&vector.body_base64).map_err(|error| format!("body_base64: {error}"))?;
    // As the configuration does: an empty one is a rotation that has not begun.
    let secrets: Vec<Secret> = vector.secrets.iter().filter(|text| !text.is_empty()).map(Secret::new).collect();
    // A configuration that is refused takes no request at all.
    let verifier = match Verifier::compile(&settings.scheme, &secrets, settings.public_url.as_deref()) {
        Ok(verifier) => verifier,
        Err(error) => return Ok(Decision::reject(format!("the configuration is refused: {error}"))),
    };
    let handshakes = Handshakes::compile(&settings.scheme, &secrets, settings.verify_token.as_ref())
        .map_err(|error| error.to_string())?;
    let Some(headers) = headers(&vector.headers) else {
        return Ok(Decision::reject("no HTTP request can carry these headers"));
    };
    let request = Request { method: &vector.method, url: &vector.url, headers: &headers, body: &body };
    if let Some(answer) = handshakes.unsigned(&request) {
        return Ok(Decision::answered(answer));
    }
    let found = match verifier.verify(&request, millis(&vector.now_unix)?) {
        Ok(found) => found,
        Err(rejection) => return Ok(Decision::reject(Rejection::name(rejection))),
    };
    if verifier.replay_key(&request).is_some_and(|key| vector.precondition.seen_replay_keys.contains(&key)) {
        return Ok(Decision::reject("its replay key was seen before"));
    }
    Ok(match handshakes.signed(&request, &found) {
        Some(answer) => Decision::answered(answer),
        None => Decision::accept(format!("secret {} matched", found.secret_index)),
    })
}

/// What is tried: the preset, or the description that the vector brings for a source without one.
fn scheme(vector: &Vector, provider: Option<&str>) -> Result<SourceScheme, String> {
    if let (Some(written), None) = (vector.config.get(DESCRIPTION), provider) {
        return serde_json::from_value(written.clone()).map_err(|error| format!("config.{DESCRIPTION}: {error}"));
    }
    let preset = provider.unwrap_or(&vector.provider).replace('_', "-");
    catalog::preset(&preset).map_err(|error| error.to_string())
}

/// What a vector assumes of its source, laid over the preset.
struct Settings {
    scheme: SourceScheme,
    public_url: Option<String>,
    verify_token: Option<Secret>,
}

impl Settings {
    fn apply(scheme: SourceScheme, config: &BTreeMap<String, Value>) -> Result<Self, String> {
        let mut settings = Self { scheme, public_url: None, verify_token: None };
        for (key, value) in config.iter().filter(|(_, value)| !value.is_null()) {
            settings.set(key, value)?;
        }
        Ok(settings)
    }

    fn set(&mut self, key: &str, value: &Value) -> Result<(), String> {
        let text = || value.as_str().ok_or_else(|| format!("config.{key} is not text"));
        let scheme = &mut self.scheme;
        match key {
            "tolerance_secs" => {
                let seconds = value.as_u64().ok_or_else(|| format!("config.{key} is not a number of seconds"))?;
                scheme.tolerance = Some(std::time::Duration::from_secs(seconds));
            }
            "alg" => {
                let algorithm: Algorithm =
                    serde_json::from_value(value.clone()).map_err(|error| format!("config.{key}: {error}"))?;
                scheme.signature.retain(|signature| signature.algorithm == algorithm);
            }
            "header_prefix" => rename_headers(scheme, text()?),
            "notification_url" | "public_url" => self.public_url = Some(text()?.to_owned()),
            "signature_version" => scheme.min_version = Some(text()?.to_owned()),
            "verify_token" => self.verify_token = Some(Secret::new(text()?)),
            // It is the scheme already.
            DESCRIPTION => {}
            // What the secrets are; the scheme says the same, or there is nothing to test.
            "key_type" => {
                let is_that = scheme.signature.iter().all(|signature| {
                    signature.algorithm == Algorithm::EcdsaP256 && signature.key.encoding == KeyEncoding::Base64
                });
                if text()? != "ecdsa_p256_spki_base64" || !is_that {
                    return Err(format!("config.{key} is not the key type of this scheme"));
                }
            }
            "segment_batch_first_event_signature" => {
                let taken = value.as_bool().ok_or_else(|| format!("config.{key} is not true or false"))?;
                scheme.signature.retain(|signature| taken || signature.covers == Covers::Body);
            }
            _ => return Err(format!("config.{key} is no setting that this version knows")),
        }
        Ok(())
    }
}

/// Keeps the preferred header's ways, under the names of another brand: `webhook-id` becomes `svix-id`.
fn rename_headers(scheme: &mut SourceScheme, brand: &str) {
    let Some(preferred) = scheme.signature.first().cloned() else { return };
    let Some((own, _)) = preferred.header.as_deref().and_then(|header| header.split_once('-')) else { return };
    let own = format!("{own}-");
    let renamed = |name: &mut Option<String>| {
        if let Some(name) = name {
            *name = name.replacen(&own, brand, 1);
        }
    };
    scheme.signature.retain(|signature| signature.stands_beside(&preferred));
    for signature in &mut scheme.signature {
        renamed(&mut signature.header);
        signature.signed = signature.signed.replace(&format!("{{header:{own}"), &format!("{{header:{brand}"));
        if let Some(stamp) = &mut signature.timestamp {
            renamed(&mut stamp.header);
        }
    }
}

/// `None` if the names or values could not be sent over HTTP.
fn headers(written: &BTreeMap<String, OneOrMany>) -> Option<HeaderMap> {
    let mut headers = HeaderMap::new();
    for (name, values) in written {
        let name = HeaderName::from_bytes(name.as_bytes()).ok()?;
        let values = match values {
            OneOrMany::One(value) => std::slice::from_ref(value),
            OneOrMany::Many(values) => values.as_slice(),
        };
        for value in values {
            headers.append(name.clone(), HeaderValue::from_bytes(value.as_bytes()).ok()?);
        }
    }
    Some(headers)
}

fn millis(seconds: &serde_json::Number) -> Result<i64, String> {
    let whole = seconds.as_i64().and_then(|seconds| seconds.checked_mul(1_000));
    #[allow(clippy::cast_possible_truncation, reason = "a float's cast saturates, and no clock is that far out")]
    let fraction = || seconds.as_f64().map(|seconds| (seconds * 1_000.0).round() as i64);
    whole.or_else(fraction).ok_or_else(|| format!("now_unix: {seconds} is no time"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(vectors: &Value, provider: Option<&str>) -> (Report, String) {
        let mut text = Vec::new();
        let report = run(&vectors.to_string(), provider, &mut text).unwrap();
        (report, String::from_utf8(text).unwrap())
    }

    fn vendor_vector() -> Value {
        let text = include_str!("../../tests/vectors/standard_webhooks.json");
        serde_json::from_str::<Vec<Value>>(text).unwrap().remove(0)
    }

    #[test]
    fn every_vector_of_the_vendors_comes_out_as_it_expects() {
        let files = [
            (include_str!("../../tests/vectors/github.json"), 7),
            (include_str!("../../tests/vectors/hubspot.json"), 9),
            (include_str!("../../tests/vectors/mailgun.json"), 7),
            (include_str!("../../tests/vectors/meta.json"), 8),
            (include_str!("../../tests/vectors/paddle.json"), 7),
            (include_str!("../../tests/vectors/segment.json"), 6),
            (include_str!("../../tests/vectors/sendgrid.json"), 8),
            (include_str!("../../tests/vectors/shopify.json"), 6),
            (include_str!("../../tests/vectors/slack.json"), 8),
            (include_str!("../../tests/vectors/square.json"), 6),
            (include_str!("../../tests/vectors/standard_webhooks.json"), 16),
            (include_str!("../../tests/vectors/stripe.json"), 9),
            (include_str!("../../tests/vectors/typeform.json"), 5),
            (include_str!("../../tests/vectors/zendesk.json"), 7),
        ];
        for (text, count) in files {
            let mut out = Vec::new();
            let report = run(text, None, &mut out).unwrap();
            assert_eq!(String::from_utf8(out).unwrap(), format!("{count} passed, 0 failed\n"));
            assert_eq!(report, Report { passed: count, failed: 0 });
        }
    }

    #[test]
    fn every_vector_of_our_own_comes_out_as_it_expects() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/ours");
        let (mut providers, mut all) = (std::collections::BTreeSet::new(), Report::default());
        for file in std::fs::read_dir(folder).unwrap() {
            let path = file.unwrap().path();
            let Some(provider) = path.file_name().and_then(|name| name.to_str()?.strip_suffix(".json")) else {
                continue;
            };
            providers.insert(provider.replace('_', "-"));
            let mut out = Vec::new();
            let report = run(&std::fs::read_to_string(&path).unwrap(), None, &mut out).unwrap();
            assert_eq!(report.failed, 0, "{}", String::from_utf8_lossy(&out));
            all.passed += report.passed;
        }
        let expected = catalog::preset_names().chain(["private"]).map(str::to_owned);
        assert_eq!(providers, expected.collect(), "a file for each preset, and one for private schemes");
        assert!(all.passed >= 600, "{all:?}");
    }

    #[test]
    fn a_source_without_a_preset_is_tried_by_the_description_that_its_vector_brings() {
        let mut vector = vendor_vector();
        let mut description = json!({ "signature": {
            "algorithm": "hmac-sha256", "header": "webhook-signature", "prefix": "v1,", "encoding": "base64",
            "key": { "prefix": "whsec_", "encoding": "base64" },
            "signed": "{header:webhook-id}.{header:webhook-timestamp}.{body}",
        } });
        vector["provider"] = json!("of_my_own");
        vector["config"] = json!({ "description": description.clone() });
        let (count, text) = report(&json!([vector]), None);
        assert_eq!(count.passed, 1, "{text}");
        description["signature"]["headr"] = json!("x");
        vector["config"] = json!({ "description": description });
        let (_, text) = report(&json!([vector]), None);
        assert!(text.contains("not run: config.description: unknown field `headr`"), "{text}");
    }

    #[test]
    fn a_mismatch_says_what_was_expected_and_why_it_came_out_otherwise() {
        let mut vector = vendor_vector();
        vector["body_base64"] = json!("e30=");
        let (count, text) = report(&json!([vector]), None);
        assert_eq!(count, Report { passed: 0, failed: 1 });
        assert_eq!(
            text,
            "standard_webhooks/hmac_vendor_vector: expected accept (published v1 signature), got reject (no_match)\n\
             0 passed, 1 failed\n"
        );
    }

    #[test]
    fn what_a_vector_asks_for_and_is_not_known_fails_by_name() {
        let mut vector = vendor_vector();
        vector["provider"] = json!("no_such");
        let (_, text) = report(&json!([vector]), None);
        assert!(text.contains("not run: there is no preset `no-such`"), "{text}");
        assert_eq!(report(&json!([vector]), Some("standard_webhooks")).0.passed, 1);

        vector["config"] = json!({"moon_phase": "full"});
        let (count, text) = report(&json!([vector, {"name": "half"}]), Some("standard-webhooks"));
        assert_eq!(count.failed, 2);
        assert!(text.contains("config.moon_phase is no setting") && text.contains("half: not run:"), "{text}");
    }

    #[test]
    fn settings_of_a_vector_are_laid_over_the_preset() {
        let mut vector = vendor_vector();
        vector["now_unix"] = json!(1_614_265_330 + 60);
        vector["config"] = json!({"tolerance_secs": 60});
        assert_eq!(report(&json!([vector]), None).0.passed, 1);
        vector["config"] = json!({"tolerance_secs": 59});
        assert_eq!(report(&json!([vector]), None).0.failed, 1);

        vector["config"] = json!({"header_prefix": "acme-"});
        let headers = vector["headers"].as_object().unwrap().clone();
        vector["headers"] =
            headers.into_iter().map(|(name, value)| (name.replace("webhook-", "ACME-"), value)).collect();
        assert_eq!(report(&json!([vector]), None).0.passed, 1);
        vector["config"] = json!({"header_prefix": "acme-", "alg": "ed25519"});
        let (_, text) = report(&json!([vector]), None);
        assert!(text.contains("the configuration is refused: secret 0 begins with none"), "{text}");
    }

    /// The vector of that name.
    fn named(file: &str, name: &str) -> Value {
        let vectors: Vec<Value> = serde_json::from_str(file).unwrap();
        vectors.into_iter().find(|vector| vector["name"] == name).unwrap()
    }

    #[test]
    fn a_token_that_was_seen_before_is_rejected() {
        let mut vector = named(include_str!("../../tests/vectors/mailgun.json"), "mailgun/go_sdk_test_vector");
        vector["precondition"] = json!({"seen_replay_keys": ["another"]});
        assert_eq!(report(&json!([vector]), None).0.passed, 1);
        vector["precondition"] = json!({"seen_replay_keys": ["another", "token"]});
        let (_, text) = report(&json!([vector]), None);
        assert!(text.contains("got reject (its replay key was seen before)"), "{text}");
    }

    #[test]
    fn the_answer_to_a_handshake_is_compared_with_what_is_expected() {
        let good = named(include_str!("../../tests/vectors/meta.json"), "meta/get_challenge_ok");
        for (expected, told) in [
            (json!({"status": 200, "body_any_of": ["no", "1158201444"]}), None),
            (json!({"body_any_of": [{"a": 1}, 1_158_201_444]}), None),
            (json!({"json": 1_158_201_444}), None),
            (json!({"status": 204}), Some("expected the status 204, got 200")),
            (json!({"body": "1"}), Some("expected the answer \"1\", got \"1158201444\"")),
            (json!({"body_any_of": ["1"]}), Some("expected one of")),
            (json!({"json": {"challenge": "1"}}), Some("expected the answer {\"challenge\":\"1\"}")),
        ] {
            let mut vector = good.clone();
            vector["expect_response"] = expected.clone();
            let (count, text) = report(&json!([vector]), None);
            assert_eq!(count.failed, usize::from(told.is_some()), "{expected}: {text}");
            assert!(told.is_none_or(|told| text.contains(told)), "{expected}: {text}");
        }
        let mut event = named(include_str!("../../tests/vectors/meta.json"), "meta/valid_escaped_unicode");
        event["handshake"] = json!(true);
        let (_, text) = report(&json!([event]), None);
        assert!(text.contains("expected a handshake") && text.contains("got an event"), "{text}");
    }

    #[test]
    fn settings_that_a_provider_has_are_its_own() {
        let batch = named(include_str!("../../tests/vectors/segment.json"), "segment/batch_signs_first_event_only");
        let sendgrid = named(include_str!("../../tests/vectors/sendgrid.json"), "sendgrid/vendor_vector");
        let hubspot = named(include_str!("../../tests/vectors/hubspot.json"), "hubspot/v1_vendor_vector");
        for (vector, config, failed) in [
            (&batch, json!({}), 0),
            (&batch, json!({"segment_batch_first_event_signature": false}), 1),
            (&sendgrid, json!({"key_type": "rsa"}), 1),
            (&batch, json!({"key_type": "ecdsa_p256_spki_base64"}), 1),
            (&hubspot, json!({}), 0),
            (&hubspot, json!({"signature_version": "v2"}), 1),
            (&hubspot, json!({"signature_version": "v3"}), 1),
        ] {
            let mut vector = vector.clone();
            vector["config"] = config.clone();
            assert_eq!(report(&json!([vector]), None).0.failed, failed, "{config}");
        }
    }

    #[test]
    fn requests_that_no_configuration_or_no_wire_would_carry_are_rejected() {
        for (key, value) in [
            ("secrets", json!([])),
            ("secrets", json!([""])),
            ("secrets", json!(["whsec_"])),
            ("secrets", json!(["whsec_%%%%"])),
            ("headers", json!({"webhook-id": "a\u{0}b"})),
        ] {
            let mut vector = vendor_vector();
            vector[key] = value;
            vector["expect"] = json!("reject");
            let (count, text) = report(&json!([vector]), None);
            assert_eq!(count.passed, 1, "{key}: {text}");
        }
    }

    #[test]
    fn a_file_without_vectors_is_an_error() {
        assert!(matches!(run("[]", None, &mut Vec::new()), Err(Error::Empty)));
        assert!(matches!(run("{}", None, &mut Vec::new()), Err(Error::NotAList(_))));
    }
}
