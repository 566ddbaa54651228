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
mod tests;
