//! The description of a source: how its requests are told from anybody else's, how an event is identified, which of its
//! requests are no events. A preset is this description in a YAML file; a private source writes the same keys in its own
//! section.

use std::collections::BTreeMap;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use super::Signature;
use crate::config::units;

/// What a source's requests look like.
#[derive(Debug, Clone, Default, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SourceScheme {
    /// The ways in which a request may be signed, the preferred first. Those of the first place that the request
    /// carries a signature in are tried, and any of them may match; a later place is then not looked at (no downgrade).
    #[serde(default, deserialize_with = "one_or_many")]
    pub signature: Vec<Signature>,
    /// The oldest `version` of a signature that is still taken: ways listed after it are none.
    #[serde(default)]
    pub min_version: Option<String>,
    /// How old and how early a signed timestamp may be, in place of what its description says.
    #[serde(default, deserialize_with = "units::optional_duration")]
    pub tolerance: Option<Duration>,
    /// Whether a request without a body is refused whatever its signature: for providers that never send one.
    #[serde(default)]
    pub body_required: bool,
    /// What may come once only, where the provider signs a token in place of the event: a place as in `event_id`.
    #[serde(default)]
    pub replay_key: Option<String>,
    /// Requests that are answered and are no events.
    #[serde(default, deserialize_with = "one_or_many")]
    pub handshake: Vec<Handshake>,
    /// Where a request's events stand, if it may carry several.
    #[serde(default)]
    pub split: Option<Split>,
    /// Where the source's own id of an event is, each as [`super::Locator`] reads it; the first that is there.
    /// Of a request that is split, within each event.
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

impl SourceScheme {
    /// The ways that `min_version` leaves, with this source's tolerance, the preferred first; `None`: it names no way.
    pub fn ways(&self) -> Option<Vec<Signature>> {
        let last = match &self.min_version {
            None => self.signature.len(),
            Some(oldest) => self.signature.iter().rposition(|way| way.version.as_ref() == Some(oldest))? + 1,
        };
        let mut ways: Vec<_> = self.signature.iter().take(last).cloned().collect();
        if let Some(tolerance) = self.tolerance {
            ways.iter_mut().filter_map(|way| way.timestamp.as_mut()).for_each(|stamp| stamp.tolerate(tolerance));
        }
        Some(ways)
    }
}

/// How one request becomes several events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Split {
    /// The arrays that hold events, in jq's writing: `.[]`, `.entry[].changes[]`. What has no such array is one event.
    #[serde(deserialize_with = "one_or_many")]
    pub each: Vec<String>,
    /// The field under which an event gets the object around it, without the arrays that are split, in place of one of
    /// its own; that object has its own parent there. Without a name an event is what stands in the array alone.
    #[serde(default)]
    pub parent_as: Option<String>,
    /// The field of a form (`application/x-www-form-urlencoded`) that holds the JSON; without one it is the body.
    #[serde(default)]
    pub form: Option<String>,
}

/// A request that asks whether somebody is there: it is answered, and nothing is published.
///
/// Places are written `method`, `header:<name>`, `query:<name>` or as a plain path into the body (`.type`).
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Handshake {
    /// What the request is known by: places, and the text that stands there.
    pub when: BTreeMap<String, String>,
    /// Whether the provider signs it. What it does not sign is answered before any signature is looked at.
    #[serde(default = "yes")]
    pub signed: bool,
    /// What must stand there as well; else the answer is a 403.
    #[serde(default)]
    pub require: BTreeMap<String, String>,
    /// The place of the source's `verify_token`; another one, or none, is a 403.
    #[serde(default)]
    pub verify_token: Option<String>,
    /// The body as text: literals and `{<place>}`, or `{hmac-sha256:<place>}`, in hexadecimal, keyed by the secret that
    /// has verified the request. `{{` is a brace.
    #[serde(default)]
    pub text: Option<String>,
    /// The body as a JSON object, of such texts.
    #[serde(default)]
    pub json: BTreeMap<String, String>,
}

fn yes() -> bool {
    true
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
