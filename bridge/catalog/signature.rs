//! The ways of signing: where a signature stands, how it is written, what it covers and with which key.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::config::units;

/// One way in which a request may be signed.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    /// The provider's name of this way, for `min_version`.
    #[serde(default)]
    pub version: Option<String>,
    pub algorithm: Algorithm,
    /// The header that holds the signature; or `body` says where it is.
    #[serde(default)]
    pub header: Option<String>,
    /// A plain path to the signature in the body.
    #[serde(default)]
    pub body: Option<String>,
    /// Headers, and the value that each must have for this way to be meant.
    #[serde(default)]
    pub when: BTreeMap<String, String>,
    /// Text before the signature within an entry (`sha256=`, `v1,`). Entries without it are skipped.
    #[serde(default)]
    pub prefix: String,
    /// The ASCII character between several entries in one place; one entry where left out.
    /// Nothing is trimmed around it, for no vendor's library does.
    #[serde(default)]
    pub separator: Option<char>,
    /// How the signature is written; left out for tokens, which are compared as they are.
    #[serde(default)]
    pub encoding: Option<Encoding>,
    #[serde(default)]
    pub key: Key,
    /// What is signed: literals and `{body}`, `{body:<path>}`, `{timestamp}`, `{header:x}`, `{method}`, `{url}`,
    /// `{url:hubspot}`, `{secret}`; `{{` is a brace. Empty for tokens.
    #[serde(default)]
    pub signed: String,
    #[serde(default)]
    pub covers: Covers,
    #[serde(default)]
    pub timestamp: Option<Timestamp>,
}

impl Signature {
    /// Whether both stand in one place: in the same header, or both in the body.
    pub fn stands_beside(&self, other: &Self) -> bool {
        match (&self.header, &other.header) {
            (Some(own), Some(other)) => own.eq_ignore_ascii_case(other),
            (None, None) => true,
            _ => false,
        }
    }
}

/// What of a request is authentic once its signature is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Covers {
    /// All of the body.
    #[default]
    Body,
    /// The parts of the body that `signed` names; the rest is as trustworthy as the connection.
    Parts,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// RFC 2104 with SHA-1: for providers that have nothing better. HMAC does not need collision resistance.
    #[serde(rename = "hmac-sha1")]
    HmacSha1,
    /// RFC 2104 with SHA-256.
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// RFC 2104 with SHA-512.
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
    /// SHA-256 over a text that holds the secret. Whoever has seen a request can append to it (length extension), which
    /// leaves no JSON behind.
    #[serde(rename = "sha256")]
    Sha256,
    /// RFC 8032, over the message itself.
    #[serde(rename = "ed25519")]
    Ed25519,
    /// ECDSA on P-256 with SHA-256, the signature in DER (RFC 3279, section 2.2.3).
    #[serde(rename = "ecdsa-p256")]
    EcdsaP256,
    /// RSASSA-PKCS1-v1_5 with SHA-256 (RFC 8017).
    #[serde(rename = "rsa-sha256")]
    RsaSha256,
    /// Nothing is signed: the value is the secret.
    #[serde(rename = "equals")]
    Equals,
    /// RFC 7617: `Basic` and the secret, `user:password`, in base64.
    #[serde(rename = "basic")]
    Basic,
    /// RFC 6750: `Bearer` and the secret.
    #[serde(rename = "bearer")]
    Bearer,
}

impl Algorithm {
    /// Whether a private key signs and the source's secret is the public half.
    pub fn has_key_pair(self) -> bool {
        matches!(self, Self::Ed25519 | Self::EcdsaP256 | Self::RsaSha256)
    }

    /// Whether the secret itself is sent, and nothing is signed.
    pub fn is_token(self) -> bool {
        matches!(self, Self::Equals | Self::Basic | Self::Bearer)
    }
}

/// How the signature's bytes are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    /// RFC 4648 section 8, in either case.
    Hex,
    /// In lower case only: for vendors whose own libraries compare the text.
    HexLower,
    /// RFC 4648 section 4, with its padding.
    Base64,
}

/// How the configured secret becomes key bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// A prefix that names the key's kind (`whsec_`) and is taken off. A secret that carries one way's prefix is
    /// used by that way only: a public key never becomes an HMAC key.
    #[serde(default)]
    pub prefix: String,
    /// Whether a secret without the prefix is taken too.
    #[serde(default)]
    pub prefix_optional: bool,
    /// The prefix of the private half, where there are two (`whsk_`): it signs and is refused for verifying.
    #[serde(default)]
    pub signing_prefix: String,
    #[serde(default)]
    pub encoding: KeyEncoding,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyEncoding {
    /// The text's own bytes.
    #[default]
    Utf8,
    /// RFC 4648 section 4; the padding may be missing, as it is in secrets copied by hand.
    /// Of ECDSA and RSA, a public key in DER (SubjectPublicKeyInfo, RFC 5280).
    Base64,
    Hex,
    /// A public key as it stands in a PEM file (`-----BEGIN PUBLIC KEY-----`).
    Pem,
}

/// Where the signed timestamp is, and how old or early it may be.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timestamp {
    /// The header that holds it, which may be the signature's own; or `body` says where it is.
    #[serde(default)]
    pub header: Option<String>,
    /// A plain path to it in the body.
    #[serde(default)]
    pub body: Option<String>,
    /// Within a list header: the entry's prefix (`t=`). The first such entry counts.
    #[serde(default)]
    pub prefix: String,
    /// The signature's where left out and the header is the signature's own.
    #[serde(default)]
    pub separator: Option<char>,
    pub unit: TimestampUnit,
    /// How old it may be, the limit included.
    #[serde(deserialize_with = "units::duration")]
    pub tolerance: Duration,
    /// How far in the future it may be, the limit included; as `tolerance` where left out.
    #[serde(default)]
    pub tolerance_future: Option<FutureTolerance>,
}

impl Timestamp {
    /// Takes another tolerance, on both sides where the future was limited.
    pub fn tolerate(&mut self, tolerance: Duration) {
        self.tolerance = tolerance;
        self.tolerance_future = self.tolerance_future.filter(|future| *future == FutureTolerance::Unlimited);
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TimestampUnit {
    /// Seconds since the Unix epoch.
    S,
    /// Milliseconds since the Unix epoch.
    Ms,
    /// RFC 3339 text with an offset; the text itself is what is signed.
    Rfc3339,
}

/// How far in the future a timestamp may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FutureTolerance {
    Within(Duration),
    /// `unlimited`: the vendor's own libraries do not look.
    Unlimited,
}

impl<'de> Deserialize<'de> for FutureTolerance {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "unlimited" {
            return Ok(Self::Unlimited);
        }
        units::parse_duration(&text)
            .map(Self::Within)
            .map_err(|reason| serde::de::Error::custom(format!("{reason}, or `unlimited`")))
    }
}
