//! The description of a source: where the signature is, what is signed, how an event is identified.
//! A preset is this description in a YAML file; a private source writes the same keys in its own section.

use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::config::units;

/// What a source's requests look like.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceScheme {
    /// The ways in which a request may be signed, the preferred first. Those of the first signature header that the
    /// request carries are tried, and any of them may match; a later header is then not looked at (no downgrade).
    #[serde(default, deserialize_with = "one_or_many")]
    pub signature: Vec<Signature>,
    /// Where the source's own id of an event is, each as [`super::Locator`] reads it; the first that is there.
    #[serde(default, deserialize_with = "one_or_many")]
    pub event_id: Vec<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub event_type: Vec<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub event_time: Vec<String>,
    /// How long the provider waits for an answer before it counts the delivery as failed; left out where it says none.
    #[serde(default, deserialize_with = "units::optional_duration")]
    pub ack_limit: Option<Duration>,
    /// For people: the page that the description follows.
    #[serde(default)]
    pub docs: Option<String>,
}

/// One way in which a request may be signed.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Signature {
    pub algorithm: Algorithm,
    /// The header that holds the signature.
    pub header: String,
    /// Text before the signature within an entry (`sha256=`, `v1,`). Entries without it are skipped.
    #[serde(default)]
    pub prefix: String,
    /// The ASCII character between several entries in one header; one entry where left out.
    /// Nothing is trimmed around it, for no vendor's library does.
    #[serde(default)]
    pub separator: Option<char>,
    pub encoding: Encoding,
    #[serde(default)]
    pub key: Key,
    /// What is signed: literals and `{body}`, `{timestamp}`, `{header:x}`, `{method}`, `{url}`; `{{` is a brace.
    pub signed: String,
    #[serde(default)]
    pub timestamp: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
pub enum Algorithm {
    /// RFC 2104 with SHA-256.
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    /// RFC 2104 with SHA-512.
    #[serde(rename = "hmac-sha512")]
    HmacSha512,
    /// RFC 8032, over the message itself.
    #[serde(rename = "ed25519")]
    Ed25519,
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
    Base64,
    Hex,
}

/// Where the signed timestamp is, and how old or early it may be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timestamp {
    /// The header that holds it, which may be the signature's own.
    pub header: String,
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimestampUnit {
    /// Seconds since the Unix epoch.
    S,
    /// Milliseconds since the Unix epoch.
    Ms,
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

fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    let items = match value {
        serde_json::Value::Array(items) => items,
        one => vec![one],
    };
    items.into_iter().map(|item| serde_json::from_value(item).map_err(serde::de::Error::custom)).collect()
}
