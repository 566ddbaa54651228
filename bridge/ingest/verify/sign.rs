//! Signs a request as the provider would: for `send`, `dev` and tests.

use std::borrow::Cow;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use http::{HeaderMap, HeaderName, HeaderValue};
use openssl::hash::MessageDigest;
use openssl::pkey::{Id, PKey, Private};
use sha1::Sha1;
use sha2::{Sha256, Sha512};

use super::key::{self, KeyProblem, Said};
use super::place::{Paths, Place, Seen};
use super::template::Template;
use super::timestamp::shares_place;
use super::{Rejection, Request, TemplateProblem};
use crate::catalog::{Algorithm, Encoding, Locator, Signature, SourceScheme, TimestampUnit};
use crate::config::Secret;
use crate::expr;
use crate::ingest::map::rfc3339;

/// What is to be sent.
#[derive(Debug, Clone, Copy)]
pub struct Message<'a> {
    /// Goes into the header that the scheme reads the event's id from, if it reads it from a header that is signed.
    pub id: &'a str,
    /// Milliseconds since the Unix epoch: the signed timestamp.
    pub now_ms: i64,
    pub method: &'a str,
    pub url: &'a str,
    /// What the request carries already; the scheme may sign some of it.
    pub headers: &'a HeaderMap,
    pub body: &'a [u8],
}

/// A message as it is to be sent.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Signed<'a> {
    /// To be added to those that the message carries.
    pub headers: HeaderMap,
    /// The message's own, unless the scheme writes its signature into the body.
    pub body: Cow<'a, [u8]>,
}

/// Why a request cannot be signed.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SignError {
    #[error("the source describes no signature")]
    NoSignature,
    #[error("the secret {0}")]
    Key(KeyProblem),
    #[error("`{name}` cannot be the name of a header")]
    HeaderName { name: String },
    #[error("the value of header `{name}` cannot be sent")]
    HeaderValue { name: HeaderName },
    #[error("`{signed}` {problem}")]
    Template { signed: String, problem: TemplateProblem },
    #[error("the signature says no `encoding`")]
    NoEncoding,
    #[error("the signature belongs at `{path}` in the body, which has no such place")]
    Body { path: String },
    #[error("the scheme signs something that the message lacks, or has twice ({})", .0.name())]
    Lacks(Rejection),
    #[error("the key is refused by the algorithm")]
    Refused,
}

/// What to send so that the source's [`super::Verifier`] takes it, by the first way that the secret fits. For Ed25519
/// the secret is the private key (`whsk_`), as its 32 bytes or with the public half behind; for ECDSA and RSA it is the
/// private key, in DER (PKCS#8) or PEM as the public one is.
///
/// # Errors
/// If the description or the secret cannot be used, or the scheme signs a header that the message lacks.
pub fn sign<'a>(scheme: &SourceScheme, secret: &Secret, message: &Message<'a>) -> Result<Signed<'a>, SignError> {
    let ways = scheme.ways().ok_or(SignError::NoSignature)?;
    let signature = way_of(&ways, secret)?;
    let mut signed = Signed { headers: HeaderMap::new(), body: Cow::Borrowed(message.body) };
    for (header, value) in &signature.when {
        insert(&mut signed.headers, name(header)?, value)?;
    }
    if signature.algorithm.is_token() {
        put(&mut signed, signature, &token(signature, secret)?)?;
        return Ok(signed);
    }
    let mut paths = Paths::default();
    let whole = signature.timestamp.as_ref().filter(|timestamp| timestamp.prefix.is_empty());
    let whole = match whole.map(|timestamp| (&timestamp.header, &timestamp.body)) {
        Some((Some(header), _)) => Some(Place::Header(name(header)?)),
        Some((None, Some(path))) => paths.add(path).map(Place::Body),
        _ => None,
    };
    let template = Template::compile(signature, whole.as_ref(), &mut paths)
        .map_err(|problem| SignError::Template { signed: signature.signed.clone(), problem })?;
    for locator in scheme.event_id.iter().filter_map(|text| Locator::parse(text).ok()) {
        if let Locator::Header(name) = locator
            && template.headers().any(|signed| *signed == name)
        {
            insert(&mut signed.headers, name, message.id)?;
        }
    }
    if signature.body.is_some() {
        for path in template.in_body().filter_map(|index| paths.texts().get(index)) {
            assign(&mut signed.body, path, "//=", message.id)?;
        }
    }
    let (text, beside) = put_timestamp(&mut signed, signature, message.now_ms)?;
    let mut headers = message.headers.clone();
    headers.extend(signed.headers.iter().map(|(name, value)| (name.clone(), value.clone())));
    let request = Request { method: message.method, url: message.url, headers: &headers, body: &signed.body };
    let seen = Seen::look(&request, &paths).map_err(SignError::Lacks)?;
    let bytes = made_with(signature, secret, &Said { template: &template, seen: &seen, timestamp: text.as_bytes() })?;
    let written = match signature.encoding.ok_or(SignError::NoEncoding)? {
        Encoding::Hex | Encoding::HexLower => hex::encode(bytes),
        Encoding::Base64 => STANDARD.encode(bytes),
    };
    drop(seen);
    put(&mut signed, signature, &format!("{beside}{}{written}", signature.prefix))?;
    Ok(signed)
}

/// Writes the timestamp where it belongs; its text, and the entry for it that stands before the signature's.
fn put_timestamp(signed: &mut Signed<'_>, signature: &Signature, now_ms: i64) -> Result<(String, String), SignError> {
    let Some(timestamp) = &signature.timestamp else { return Ok(Default::default()) };
    let text = match timestamp.unit {
        TimestampUnit::S => now_ms.div_euclid(1_000).to_string(),
        TimestampUnit::Ms => now_ms.to_string(),
        TimestampUnit::Rfc3339 => rfc3339(&now_ms.to_string()).unwrap_or_default(),
    };
    let entry = format!("{}{text}", timestamp.prefix);
    if shares_place(timestamp, signature) {
        let separator = signature.separator.map(String::from).unwrap_or_default();
        return Ok((text, format!("{entry}{separator}")));
    }
    match (&timestamp.header, &timestamp.body) {
        (Some(header), _) => insert(&mut signed.headers, name(header)?, &entry)?,
        (None, Some(path)) => assign(&mut signed.body, path, "=", &entry)?,
        (None, None) => {}
    }
    Ok((text, String::new()))
}

/// Writes the value into the signature's place.
fn put(signed: &mut Signed<'_>, signature: &Signature, value: &str) -> Result<(), SignError> {
    match (&signature.header, &signature.body) {
        (Some(header), _) => insert(&mut signed.headers, name(header)?, value),
        (None, Some(path)) => assign(&mut signed.body, path, "=", value),
        (None, None) => Err(SignError::NoSignature),
    }
}

/// Assigns a text at a place in the body, as jq does it.
fn assign(body: &mut Cow<'_, [u8]>, path: &str, operator: &'static str, value: &str) -> Result<(), SignError> {
    let changed = expr::assign(body, path, operator, &value.into());
    let changed = changed.ok_or_else(|| SignError::Body { path: path.to_owned() })?;
    *body = Cow::Owned(changed);
    Ok(())
}

/// Whether the way that the secret fits verifies by a public key, so that the secret of a receiver cannot sign.
///
/// # Errors
/// As [`sign`], as far as secret and scheme fit each other.
pub fn needs_private_key(scheme: &SourceScheme, secret: &Secret) -> Result<bool, SignError> {
    let ways = scheme.ways().ok_or(SignError::NoSignature)?;
    way_of(&ways, secret).map(|signature| signature.algorithm.has_key_pair())
}

/// The first way that the secret can sign by. A private key in PEM signs wherever keys come in pairs.
fn way_of<'a>(ways: &'a [Signature], secret: &Secret) -> Result<&'a Signature, SignError> {
    let private = |prefix: &str| !prefix.is_empty() && secret.expose().starts_with(prefix);
    let fits = |signature: &&Signature| {
        private(&signature.key.signing_prefix) || (signature.algorithm.has_key_pair() && is_pem(secret))
    };
    if let Some(signature) = ways.iter().find(fits) {
        return Ok(signature);
    }
    let fitting = key::fitting(ways, secret).map_err(SignError::Key)?;
    ways.iter().find(|signature| fitting.contains(&&signature.key)).ok_or(SignError::NoSignature)
}

fn token(signature: &Signature, secret: &Secret) -> Result<String, SignError> {
    let bytes = key::decode(&signature.key, &signature.key.prefix, secret).map_err(SignError::Key)?;
    let token = key::token(signature.algorithm, &bytes).map_err(SignError::Key)?;
    let token = String::from_utf8(token).map_err(|_| SignError::Refused)?;
    Ok(match signature.algorithm {
        Algorithm::Basic => format!("Basic {token}"),
        Algorithm::Bearer => format!("Bearer {token}"),
        _ => token,
    })
}

fn made_with(signature: &Signature, secret: &Secret, said: &Said<'_>) -> Result<Vec<u8>, SignError> {
    let kind = &signature.key;
    let bytes = key::decode(kind, &kind.prefix, secret);
    let bytes = || bytes.map_err(SignError::Key);
    let private = |encoded: fn(&[u8]) -> Result<PKey<Private>, SignError>| match secret {
        secret if is_pem(secret) => {
            PKey::private_key_from_pem(secret.expose().as_bytes()).map_err(|_| SignError::Refused)
        }
        _ => encoded(&key::decode(kind, &kind.signing_prefix, secret).map_err(SignError::Key)?),
    };
    match signature.algorithm {
        Algorithm::HmacSha1 => {
            let state: Hmac<Sha1> = key::hmac(&bytes()?).map_err(SignError::Key)?;
            key::digest(&state, said).map(|digest| digest.to_vec()).map_err(SignError::Lacks)
        }
        Algorithm::HmacSha256 => {
            let state: Hmac<Sha256> = key::hmac(&bytes()?).map_err(SignError::Key)?;
            key::digest(&state, said).map(|digest| digest.to_vec()).map_err(SignError::Lacks)
        }
        Algorithm::HmacSha512 => {
            let state: Hmac<Sha512> = key::hmac(&bytes()?).map_err(SignError::Key)?;
            key::digest(&state, said).map(|digest| digest.to_vec()).map_err(SignError::Lacks)
        }
        Algorithm::Sha256 => key::sha256(&bytes()?, said).map(|digest| digest.to_vec()).map_err(SignError::Lacks),
        Algorithm::Ed25519 => {
            let private = private(seed)?;
            let mut message = Vec::new();
            said.stream(|bytes| message.extend_from_slice(bytes)).map_err(SignError::Lacks)?;
            openssl::sign::Signer::new_without_digest(&private)
                .and_then(|mut signer| signer.sign_oneshot_to_vec(&message))
                .map_err(|_| SignError::Refused)
        }
        Algorithm::EcdsaP256 | Algorithm::RsaSha256 => {
            let private = private(|der| PKey::private_key_from_der(der).map_err(|_| SignError::Refused))?;
            let mut message = Vec::new();
            said.stream(|bytes| message.extend_from_slice(bytes)).map_err(SignError::Lacks)?;
            openssl::sign::Signer::new(MessageDigest::sha256(), &private)
                .and_then(|mut signer| signer.sign_oneshot_to_vec(&message))
                .map_err(|_| SignError::Refused)
        }
        Algorithm::Equals | Algorithm::Basic | Algorithm::Bearer => Err(SignError::NoSignature),
    }
}

/// Of an Ed25519 key: its 32 bytes, or these with the public half behind.
fn seed(bytes: &[u8]) -> Result<PKey<Private>, SignError> {
    let seed = match bytes.len() {
        32 | 64 => bytes.get(..32).unwrap_or_default(),
        actual => return Err(SignError::Key(KeyProblem::Length { actual, expected: 32 })),
    };
    PKey::private_key_from_raw_bytes(seed, Id::ED25519).map_err(|_| SignError::Refused)
}

fn is_pem(secret: &Secret) -> bool {
    secret.expose().starts_with("-----BEGIN")
}

fn name(text: &str) -> Result<HeaderName, SignError> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| SignError::HeaderName { name: text.to_owned() })
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<(), SignError> {
    let value = HeaderValue::from_str(value).map_err(|_| SignError::HeaderValue { name: name.clone() })?;
    headers.insert(name, value);
    Ok(())
}
