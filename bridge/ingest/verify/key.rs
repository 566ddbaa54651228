//! Secrets become keys, and keys verify: the one place that knows the algorithms.

use std::collections::BTreeSet;
use std::fmt;

use base64::Engine as _;
use base64::alphabet;
use base64::engine::general_purpose::STANDARD;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use hmac::{Hmac, KeyInit, Mac};
use openssl::hash::MessageDigest;
use openssl::nid::Nid;
use openssl::pkey::{Id, PKey, Public};
use sha1::Sha1;
use sha2::{Digest, Sha256, Sha512};

use super::Rejection;
use super::entry::Candidate;
use super::place::Seen;
use super::template::Template;
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
    #[error("is not {expected}")]
    Public { expected: &'static str },
    #[error("has no colon between user and password")]
    NoColon,
    #[error("is refused by the algorithm")]
    Refused,
}

/// A key with its precomputed state.
pub(super) enum Key {
    HmacSha1(Hmac<Sha1>),
    HmacSha256(Hmac<Sha256>),
    HmacSha512(Hmac<Sha512>),
    /// The secret itself, which is part of what is hashed.
    Sha256(Vec<u8>),
    Ed25519(PKey<Public>),
    /// ECDSA or RSA, with SHA-256.
    Sha256With(PKey<Public>),
    /// The digest of a token, so that a comparison takes as long whatever the token's length.
    Token([u8; 32]),
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("[redacted]")
    }
}

/// What a signature is a signature of.
#[derive(Debug, Clone, Copy)]
pub(super) struct Said<'a> {
    pub(super) template: &'a Template,
    pub(super) seen: &'a Seen<'a>,
    pub(super) timestamp: &'a [u8],
}

impl Said<'_> {
    pub(super) fn stream(&self, sink: impl FnMut(&[u8])) -> Result<(), Rejection> {
        self.template.stream(self.seen, self.timestamp, &[], sink)
    }
}

impl Key {
    /// Makes the key that verifies under this signature's algorithm.
    pub(super) fn compile(signature: &Signature, secret: &Secret) -> Result<Self, KeyProblem> {
        let kind = &signature.key;
        let bytes = || decode(kind, &kind.prefix, secret);
        match signature.algorithm {
            Algorithm::HmacSha1 => hmac(&bytes()?).map(Self::HmacSha1),
            Algorithm::HmacSha256 => hmac(&bytes()?).map(Self::HmacSha256),
            Algorithm::HmacSha512 => hmac(&bytes()?).map(Self::HmacSha512),
            Algorithm::Sha256 => bytes().map(Self::Sha256),
            Algorithm::Ed25519 if kind.encoding == KeyEncoding::Pem => public(&bytes()?, kind)
                .filter(|key| key.id() == Id::ED25519)
                .map(Self::Ed25519)
                .ok_or(KeyProblem::Public { expected: "an Ed25519 public key in PEM" }),
            Algorithm::Ed25519 => {
                let bytes = bytes()?;
                if bytes.len() != 32 {
                    return Err(KeyProblem::Length { actual: bytes.len(), expected: 32 });
                }
                PKey::public_key_from_raw_bytes(&bytes, Id::ED25519).map(Self::Ed25519).map_err(|_| KeyProblem::Refused)
            }
            Algorithm::EcdsaP256 => public(&bytes()?, kind)
                .filter(|key| key.ec_key().is_ok_and(|key| key.group().curve_name() == Some(Nid::X9_62_PRIME256V1)))
                .map(Self::Sha256With)
                .ok_or(KeyProblem::Public { expected: "a public key on P-256 (SubjectPublicKeyInfo)" }),
            // Shorter ones can be broken (NIST SP 800-131A); longer ones cost more than a request is worth.
            Algorithm::RsaSha256 => public(&bytes()?, kind)
                .filter(|key| key.id() == Id::RSA && (2_048..=4_096).contains(&key.bits()))
                .map(Self::Sha256With)
                .ok_or(KeyProblem::Public {
                    expected: "an RSA public key of 2048 to 4096 bits (SubjectPublicKeyInfo)",
                }),
            Algorithm::Equals | Algorithm::Basic | Algorithm::Bearer => {
                token(signature.algorithm, &bytes()?).map(|token| Self::Token(Sha256::digest(token).into()))
            }
        }
    }

    /// Whether one of the candidates is this key's signature of what was said.
    pub(super) fn verifies(
        &self,
        said: &Said<'_>,
        mut candidates: impl Iterator<Item = Candidate>,
    ) -> Result<bool, Rejection> {
        match self {
            Self::HmacSha1(state) => {
                let expected = digest(state, said)?;
                Ok(candidates.any(|candidate| candidate.equals(&expected)))
            }
            Self::HmacSha256(state) => {
                let expected = digest(state, said)?;
                Ok(candidates.any(|candidate| candidate.equals(&expected)))
            }
            Self::HmacSha512(state) => {
                let expected = digest(state, said)?;
                Ok(candidates.any(|candidate| candidate.equals(&expected)))
            }
            Self::Sha256(secret) => {
                let expected = sha256(secret, said)?;
                Ok(candidates.any(|candidate| candidate.equals(&expected)))
            }
            Self::Ed25519(public) => {
                let mut message = Vec::with_capacity(said.seen.request.body.len() + 128);
                said.stream(|bytes| message.extend_from_slice(bytes))?;
                Ok(candidates.any(|candidate| ed25519_verifies(public, candidate.bytes(), &message)))
            }
            Self::Sha256With(public) => {
                for candidate in candidates {
                    if sha256_with_verifies(public, candidate.bytes(), said)? {
                        return Ok(true);
                    }
                }
                Ok(false)
            }
            Self::Token(_) => Ok(false),
        }
    }

    /// Whether this is the token, in time that depends on what was presented only.
    pub(super) fn is_token(&self, presented: &[u8]) -> bool {
        matches!(self, Self::Token(expected) if openssl::memcmp::eq(&Sha256::digest(presented), expected))
    }
}

/// A token as it is sent, after the name of its scheme.
pub(super) fn token(algorithm: Algorithm, secret: &[u8]) -> Result<Vec<u8>, KeyProblem> {
    match algorithm {
        Algorithm::Basic if !secret.contains(&b':') => Err(KeyProblem::NoColon),
        Algorithm::Basic => Ok(STANDARD.encode(secret).into_bytes()),
        _ => Ok(secret.to_vec()),
    }
}

/// The token that a value presents; `None` where it is of another scheme.
pub(super) fn presented(algorithm: Algorithm, value: &[u8]) -> Option<&[u8]> {
    let scheme: &[u8] = match algorithm {
        Algorithm::Basic => b"basic",
        Algorithm::Bearer => b"bearer",
        _ => return Some(value),
    };
    // RFC 9110, section 11.1: the scheme's name in any case, then one space.
    let (name, rest) = value.split_at_checked(scheme.len())?;
    name.eq_ignore_ascii_case(scheme).then_some(rest)?.strip_prefix(b" ")
}

fn public(bytes: &[u8], kind: &catalog::Key) -> Option<PKey<Public>> {
    match kind.encoding {
        KeyEncoding::Pem => PKey::public_key_from_pem(bytes).ok(),
        _ => PKey::public_key_from_der(bytes).ok(),
    }
}

/// The keyed state: hashing the key's two blocks is done once, not for each request.
pub(super) fn hmac<M: KeyInit>(key: &[u8]) -> Result<M, KeyProblem> {
    M::new_from_slice(key).map_err(|_| KeyProblem::Refused)
}

/// The digest of what was said.
pub(super) fn digest<M: Mac + Clone>(state: &M, said: &Said<'_>) -> Result<hmac::digest::Output<M>, Rejection> {
    let mut mac = state.clone();
    said.stream(|bytes| mac.update(bytes))?;
    Ok(mac.finalize().into_bytes())
}

/// The digest of what was said, the secret being part of it.
pub(super) fn sha256(secret: &[u8], said: &Said<'_>) -> Result<[u8; 32], Rejection> {
    let mut hash = Sha256::new();
    said.template.stream(said.seen, said.timestamp, secret, |bytes| hash.update(bytes))?;
    Ok(hash.finalize().into())
}

/// An error of the library is no signature either.
fn ed25519_verifies(public: &PKey<Public>, signature: &[u8], message: &[u8]) -> bool {
    openssl::sign::Verifier::new_without_digest(public)
        .and_then(|mut verifier| verifier.verify_oneshot(signature, message))
        .unwrap_or(false)
}

/// As above, of algorithms that hash the message as it comes.
fn sha256_with_verifies(public: &PKey<Public>, signature: &[u8], said: &Said<'_>) -> Result<bool, Rejection> {
    let Ok(mut verifier) = openssl::sign::Verifier::new(MessageDigest::sha256(), public) else { return Ok(false) };
    let mut whole = true;
    said.stream(|bytes| whole &= verifier.update(bytes).is_ok())?;
    Ok(whole && verifier.verify(signature).unwrap_or(false))
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
        KeyEncoding::Utf8 | KeyEncoding::Pem => text.as_bytes().to_vec(),
        KeyEncoding::Base64 => FORGIVING.decode(text).map_err(|_| KeyProblem::Encoding { expected: "base64" })?,
        KeyEncoding::Hex => hex::decode(text).map_err(|_| KeyProblem::Encoding { expected: "hex" })?,
    };
    if bytes.is_empty() { Err(KeyProblem::Empty) } else { Ok(bytes) }
}
