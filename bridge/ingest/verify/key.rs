//! Secrets become keys, and keys verify: the one place that knows the algorithms.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use openssl::pkey::{Id, PKey, Public};
use sha2::{Sha256, Sha512};

use super::entry::Candidate;
use super::template::Template;
use super::{Rejection, Request};
use crate::catalog::{self, Algorithm, KeyEncoding, Signature};
use crate::config::Secret;

/// What is wrong with a secret. Never the secret itself.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum KeyProblem {
    #[error("is empty, and everybody knows that")]
    Empty,
    #[error("is not {expected}")]
    Encoding { expected: &'static str },
    #[error("has {actual} bytes where the algorithm takes {expected}")]
    Length { actual: usize, expected: usize },
    #[error("begins with none of the prefixes that the scheme's keys have: {expected}")]
    Kind { expected: String },
    #[error("is a private signing key (`{prefix}`): a receiver holds the public one (`{instead}`)")]
    Private { prefix: String, instead: String },
    #[error("is refused by the algorithm")]
    Refused,
}

/// A key with its precomputed state.
pub(super) enum Key {
    HmacSha256(Hmac<Sha256>),
    HmacSha512(Hmac<Sha512>),
    Ed25519(PKey<Public>),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

impl Key {
    /// Makes the key that verifies under this signature's algorithm.
    pub(super) fn compile(signature: &Signature, secret: &Secret) -> Result<Self, KeyProblem> {
        let bytes = decode(&signature.key, &signature.key.prefix, secret)?;
        match signature.algorithm {
            Algorithm::HmacSha256 => hmac(&bytes).map(Self::HmacSha256),
            Algorithm::HmacSha512 => hmac(&bytes).map(Self::HmacSha512),
            Algorithm::Ed25519 if bytes.len() != 32 => Err(KeyProblem::Length { actual: bytes.len(), expected: 32 }),
            Algorithm::Ed25519 => {
                PKey::public_key_from_raw_bytes(&bytes, Id::ED25519).map(Self::Ed25519).map_err(|_| KeyProblem::Refused)
            }
        }
    }

    /// Whether one of the candidates is this key's signature of what the template says.
    pub(super) fn verifies(
        &self,
        template: &Template,
        request: &Request<'_>,
        timestamp: &[u8],
        mut candidates: impl Iterator<Item = Candidate>,
    ) -> Result<bool, Rejection> {
        match self {
            Self::HmacSha256(state) => {
                let expected = digest(state, template, request, timestamp)?;
                Ok(candidates.any(|candidate| candidate.equals(&expected)))
            }
            Self::HmacSha512(state) => {
                let expected = digest(state, template, request, timestamp)?;
                Ok(candidates.any(|candidate| candidate.equals(&expected)))
            }
            Self::Ed25519(public) => {
                let mut message = Vec::with_capacity(request.body.len() + 128);
                template.stream(request, timestamp, |bytes| message.extend_from_slice(bytes))?;
                Ok(candidates.any(|candidate| ed25519_verifies(public, candidate.bytes(), &message)))
            }
        }
    }
}

/// The keyed state: hashing the key's two blocks is done once, not for each request.
pub(super) fn hmac<M: KeyInit>(key: &[u8]) -> Result<M, KeyProblem> {
    M::new_from_slice(key).map_err(|_| KeyProblem::Refused)
}

/// The digest of what the template says.
pub(super) fn digest<M: Mac + Clone>(
    state: &M,
    template: &Template,
    request: &Request<'_>,
    timestamp: &[u8],
) -> Result<hmac::digest::Output<M>, Rejection> {
    let mut mac = state.clone();
    template.stream(request, timestamp, |bytes| mac.update(bytes))?;
    Ok(mac.finalize().into_bytes())
}

/// An error of the library is no signature either.
fn ed25519_verifies(public: &PKey<Public>, signature: &[u8], message: &[u8]) -> bool {
    openssl::sign::Verifier::new_without_digest(public)
        .and_then(|mut verifier| verifier.verify_oneshot(signature, message))
        .unwrap_or(false)
}

/// Which kinds of key a secret can be. One that carries a kind's prefix is of that kind only: read as another, a public
/// key would become an HMAC key that everybody knows.
pub(super) fn fitting<'a>(signatures: &'a [Signature], secret: &Secret) -> Result<Vec<&'a catalog::Key>, KeyProblem> {
    let text = secret.expose();
    if text.trim().is_empty() {
        return Err(KeyProblem::Empty);
    }
    let kinds = || signatures.iter().map(|signature| &signature.key);
    let carries = |prefix: &str| !prefix.is_empty() && text.starts_with(prefix);
    let named: Vec<_> = kinds().filter(|kind| carries(&kind.prefix)).collect();
    if !named.is_empty() {
        return Ok(named);
    }
    if let Some(kind) = kinds().find(|kind| carries(&kind.signing_prefix)) {
        return Err(KeyProblem::Private { prefix: kind.signing_prefix.clone(), instead: kind.prefix.clone() });
    }
    let unnamed: Vec<_> = kinds().filter(|kind| kind.prefix.is_empty() || kind.prefix_optional).collect();
    if unnamed.is_empty() {
        let prefixes: BTreeSet<_> = kinds().map(|kind| kind.prefix.as_str()).collect();
        return Err(KeyProblem::Kind { expected: prefixes.into_iter().collect::<Vec<_>>().join(", ") });
    }
    Ok(unnamed)
}

/// The key's bytes, without the prefix.
pub(super) fn decode(kind: &catalog::Key, prefix: &str, secret: &Secret) -> Result<Vec<u8>, KeyProblem> {
    // As secrets are copied by hand, some come without their padding; the vendors' own libraries forgive that.
    const FORGIVING: GeneralPurpose = GeneralPurpose::new(
        &alphabet::STANDARD,
        GeneralPurposeConfig::new()
            .with_decode_padding_mode(DecodePaddingMode::Indifferent)
            .with_decode_allow_trailing_bits(true),
    );
    let text = secret.expose();
    let text = text.strip_prefix(prefix).unwrap_or(text);
    let bytes = match kind.encoding {
        KeyEncoding::Utf8 => text.as_bytes().to_vec(),
        KeyEncoding::Base64 => FORGIVING.decode(text).map_err(|_| KeyProblem::Encoding { expected: "base64" })?,
        KeyEncoding::Hex => hex::decode(text).map_err(|_| KeyProblem::Encoding { expected: "hex" })?,
    };
    if bytes.is_empty() { Err(KeyProblem::Empty) } else { Ok(bytes) }
}
