//! The description of a source: where the signature is, what is signed, how an event is identified.
//! A preset is this description in a YAML file; a private source writes the same keys in its own section.

use std::time::Duration;

use serde::Deserialize;

use crate::config::units;

/// What a source's requests look like.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceScheme {
    /// The ways a request may be signed. Those whose header is present are tried; any of them may match.
    #[serde(default, deserialize_with = "one_or_many")]
    pub signature: Vec<Signature>,
    /// Where the source's own id of an event is: jq on the body (`.id`) or `header:<name>`; the first that is there.
    #[serde(default, deserialize_with = "one_or_many")]
    pub event_id: Vec<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub event_type: Vec<String>,
    #[serde(default, deserialize_with = "one_or_many")]
    pub event_time: Vec<String>,
    /// How long the provider waits for an answer before it counts the delivery as failed.
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
    /// Text before the signature (`sha256=`), within an entry.
    #[serde(default)]
    pub prefix: String,
    /// Between several entries in one header (`,` or a space); one entry where left out.
    #[serde(default)]
    pub separator: Option<String>,
    pub encoding: Encoding,
    #[serde(default)]
    pub key: Key,
    /// What is signed: literals and `{body}`, `{timestamp}`, `{header:x}`, `{method}`, `{url}`.
    pub signed: String,
    #[serde(default)]
    pub timestamp: Option<Timestamp>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Algorithm {
    #[serde(rename = "hmac-sha256")]
    HmacSha256,
    Ed25519,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Encoding {
    Hex,
    Base64,
}

/// How the configured secret becomes key bytes.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Key {
    /// A prefix that names the key's kind (`whsec_`) and is taken off.
    #[serde(default)]
    pub prefix: String,
    /// Whether a secret without the prefix is taken too.
    #[serde(default)]
    pub prefix_optional: bool,
    #[serde(default)]
    pub encoding: KeyEncoding,
}

#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum KeyEncoding {
    /// The text's own bytes.
    #[default]
    Utf8,
    Base64,
    Hex,
}

/// Where the signed timestamp is, and how old or early it may be.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timestamp {
    /// The header that holds it, which may be the signature's own.
    pub header: String,
    /// Within a list header: the entry's prefix (`t=`).
    #[serde(default)]
    pub prefix: String,
    #[serde(default)]
    pub separator: Option<String>,
    pub unit: TimestampUnit,
    #[serde(deserialize_with = "units::duration")]
    pub tolerance: Duration,
    /// How far in the future it may be; the tolerance where left out.
    #[serde(default, deserialize_with = "units::optional_duration")]
    pub tolerance_future: Option<Duration>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum TimestampUnit {
    S,
    Ms,
    Rfc3339,
}

fn one_or_many<'de, D, T>(deserializer: D) -> Result<Vec<T>, D::Error>
where
    D: serde::Deserializer<'de>,
    T: serde::de::DeserializeOwned,
{
    let value = serde_json::Value::deserialize(deserializer)?;
    let items = match value {
        serde_json::Value::Array(items) => items,
        one => vec![one],
    };
    items.into_iter().map(|item| serde_json::from_value(item).map_err(serde::de::Error::custom)).collect()
}
