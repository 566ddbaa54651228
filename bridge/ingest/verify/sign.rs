//! Signs a request as the provider would: for `send`, `dev` and tests.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use hmac::Hmac;
use http::{HeaderMap, HeaderName, HeaderValue};
use openssl::pkey::{Id, PKey};
use sha2::{Sha256, Sha512};

use super::key::{self, KeyProblem};
use super::template::Template;
use super::timestamp::unit_ms;
use super::{Rejection, Request, TemplateProblem};
use crate::catalog::{Algorithm, Encoding, Locator, Signature, SourceScheme};
use crate::config::Secret;

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
    #[error("the scheme signs a header that the message lacks, or has twice ({})", .0.name())]
    Headers(Rejection),
    #[error("the key is refused by the algorithm")]
    Refused,
}

/// The headers to add to the message so that the source's [`super::Verifier`] takes it, by the first way that the
/// secret fits. For Ed25519 the secret is the private key (`whsk_`), as its 32 bytes or with the public half behind.
///
/// # Errors
/// If the description or the secret cannot be used, or the scheme signs a header that the message lacks.
pub fn sign(scheme: &SourceScheme, secret: &Secret, message: &Message<'_>) -> Result<HeaderMap, SignError> {
    let signature = way_of(scheme, secret)?;
    let template = Template::compile(&signature.signed, signature.timestamp.as_ref())
        .map_err(|problem| SignError::Template { signed: signature.signed.clone(), problem })?;
    let mut added = HeaderMap::new();
    for locator in scheme.event_id.iter().filter_map(|text| Locator::parse(text).ok()) {
        if let Locator::Header(name) = locator
            && template.headers().any(|signed| *signed == name)
        {
            insert(&mut added, name, message.id)?;
        }
    }
    let timestamp = signature.timestamp.as_ref().map(|timestamp| {
        let text = message.now_ms.div_euclid(unit_ms(timestamp.unit)).to_string();
        (timestamp, text)
    });
    let shared = timestamp.as_ref().filter(|(at, _)| at.header.eq_ignore_ascii_case(&signature.header));
    let mut value = String::new();
    if let Some((at, text)) = shared {
        value = format!("{}{text}{}", at.prefix, signature.separator.map(String::from).unwrap_or_default());
    } else if let Some((at, text)) = &timestamp {
        insert(&mut added, name(&at.header)?, &format!("{}{text}", at.prefix))?;
    }
    let mut headers = message.headers.clone();
    headers.extend(added.iter().map(|(name, value)| (name.clone(), value.clone())));
    let request = Request { method: message.method, url: message.url, headers: &headers, body: message.body };
    let text = timestamp.as_ref().map(|(_, text)| text.as_bytes()).unwrap_or_default();
    let bytes = made_with(signature, secret, &template, &request, text)?;
    value.push_str(&signature.prefix);
    value.push_str(&match signature.encoding {
        Encoding::Hex | Encoding::HexLower => hex::encode(bytes),
        Encoding::Base64 => STANDARD.encode(bytes),
    });
    insert(&mut added, name(&signature.header)?, &value)?;
    Ok(added)
}

/// The first way that the secret can sign by.
fn way_of<'a>(scheme: &'a SourceScheme, secret: &Secret) -> Result<&'a Signature, SignError> {
    let private = |prefix: &str| !prefix.is_empty() && secret.expose().starts_with(prefix);
    if let Some(signature) = scheme.signature.iter().find(|signature| private(&signature.key.signing_prefix)) {
        return Ok(signature);
    }
    let fitting = key::fitting(&scheme.signature, secret).map_err(SignError::Key)?;
    scheme.signature.iter().find(|signature| fitting.contains(&&signature.key)).ok_or(SignError::NoSignature)
}

fn made_with(
    signature: &Signature,
    secret: &Secret,
    template: &Template,
    request: &Request<'_>,
    timestamp: &[u8],
) -> Result<Vec<u8>, SignError> {
    let kind = &signature.key;
    match signature.algorithm {
        Algorithm::HmacSha256 => {
            let bytes = key::decode(kind, &kind.prefix, secret).map_err(SignError::Key)?;
            let state: Hmac<Sha256> = key::hmac(&bytes).map_err(SignError::Key)?;
            key::digest(&state, template, request, timestamp).map(|digest| digest.to_vec()).map_err(SignError::Headers)
        }
        Algorithm::HmacSha512 => {
            let bytes = key::decode(kind, &kind.prefix, secret).map_err(SignError::Key)?;
            let state: Hmac<Sha512> = key::hmac(&bytes).map_err(SignError::Key)?;
            key::digest(&state, template, request, timestamp).map(|digest| digest.to_vec()).map_err(SignError::Headers)
        }
        Algorithm::Ed25519 => {
            let bytes = key::decode(kind, &kind.signing_prefix, secret).map_err(SignError::Key)?;
            let seed = match bytes.len() {
                32 | 64 => bytes.get(..32).unwrap_or_default(),
                actual => return Err(SignError::Key(KeyProblem::Length { actual, expected: 32 })),
            };
            let mut signed = Vec::new();
            template.stream(request, timestamp, |bytes| signed.extend_from_slice(bytes)).map_err(SignError::Headers)?;
            let private = PKey::private_key_from_raw_bytes(seed, Id::ED25519).map_err(|_| SignError::Refused)?;
            openssl::sign::Signer::new_without_digest(&private)
                .and_then(|mut signer| signer.sign_oneshot_to_vec(&signed))
                .map_err(|_| SignError::Refused)
        }
    }
}

fn name(text: &str) -> Result<HeaderName, SignError> {
    HeaderName::from_bytes(text.as_bytes()).map_err(|_| SignError::HeaderName { name: text.to_owned() })
}

fn insert(headers: &mut HeaderMap, name: HeaderName, value: &str) -> Result<(), SignError> {
    let value = HeaderValue::from_str(value).map_err(|_| SignError::HeaderValue { name: name.clone() })?;
    headers.insert(name, value);
    Ok(())
}
