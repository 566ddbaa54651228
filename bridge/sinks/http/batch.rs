//! Several events in one call, and what its answer means for each of them.
//!
//! An element is what a call of its own would carry, with the event's delivery id before it:
//! `{"id", "type", "timestamp", "data"}`. `webhook-id` is derived from the ids in the call, the same for the same set, so
//! that a receiver which remembers ids goes by each element's.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;

use http::HeaderValue;
use serde_json::Value;
use uuid::Uuid;

use super::{Http, body_of};
use crate::outcome::{Answers, Outcome};
use crate::sinks::Delivery;

/// Bytes of an answer that are read where it may name events: a few hundred for each of the largest batch.
const MAX_ANSWER: usize = 1 << 20;

/// Bytes of what a receiver says of one event: it stands in a receipt and a header of the dead letter.
const MAX_REASON: usize = 500;

/// Makes the body out of the elements, an array of JSON.
pub type Wrap = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync>;

/// Reads out of an answer, JSON, which events have failed: documents, each an entry or an array of entries.
pub type Failed = Arc<dyn Fn(&[u8]) -> Result<Vec<String>, String> + Send + Sync>;

/// What the elements are put into.
#[derive(Clone)]
pub enum Body {
    Array,
    /// A line each (`application/x-ndjson`).
    Lines,
    Made(Wrap),
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Array => "Array",
            Self::Lines => "Lines",
            Self::Made(_) => "Made",
        })
    }
}

/// How a sink sends events together.
#[derive(Clone)]
pub struct Batch {
    /// Of the request's body.
    pub max_bytes: usize,
    pub body: Body,
    /// `None`: the status decides, for all of them.
    pub failed: Option<Failed>,
}

impl fmt::Debug for Batch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Batch").field("max_bytes", &self.max_bytes).field("body", &self.body).finish_non_exhaustive()
    }
}

impl Http {
    /// Sends events together, or each in a call of its own.
    #[must_use]
    pub fn together(self, batch: Option<Batch>) -> Self {
        Self { batch, ..self }
    }

    /// One attempt at several events, and whether the receiver has seen it.
    ///
    /// What cannot be put into one body is [`Outcome::Rejected`] without having been sent: fewer of them may pass.
    pub async fn send_together(&self, deliveries: &[&Delivery]) -> (Answers, bool) {
        let Some(batch) = &self.batch else {
            let reason = "this sink takes one event at a time".into();
            return (Answers::All(Outcome::Misconfigured { reason }), false);
        };
        let body = match batch.body_of(deliveries) {
            Ok(body) => body,
            Err(reason) => return (Answers::All(Outcome::Rejected { reason }), false),
        };
        let ids: Vec<Uuid> = deliveries.iter().map(|delivery| delivery.delivery_id).collect();
        let answers = match self.post(id_of(&ids), batch.content_type(), body).await {
            Err(outcome) => Answers::All(outcome),
            Ok((outcome, rest)) => {
                let answer = rest.read(MAX_ANSWER).await;
                batch.judge(outcome, answer.as_deref(), &ids)
            }
        };
        (answers, true)
    }
}

impl Batch {
    fn content_type(&self) -> HeaderValue {
        let lines = matches!(self.body, Body::Lines);
        HeaderValue::from_static(if lines { "application/x-ndjson" } else { "application/json" })
    }

    fn body_of(&self, deliveries: &[&Delivery]) -> Result<Vec<u8>, String> {
        let (open, between, close) = match self.body {
            Body::Array | Body::Made(_) => (&b"["[..], b',', &b"]"[..]),
            Body::Lines => (&b""[..], b'\n', &b"\n"[..]),
        };
        let mut body = open.to_vec();
        for (at, delivery) in deliveries.iter().enumerate() {
            if at > 0 {
                body.push(between);
            }
            let event = body_of(delivery).map_err(|error| error.to_string())?;
            body.extend_from_slice(format!(r#"{{"id":"{}","#, delivery.delivery_id).as_bytes());
            body.extend_from_slice(&event[1..]);
        }
        body.extend_from_slice(close);
        if let Body::Made(wrap) = &self.body {
            body = wrap(&body).map_err(|reason| format!("batch.body: {reason}"))?;
        }
        if body.len() > self.max_bytes {
            return Err(format!("a body of {} bytes is larger than batch.max_bytes", body.len()));
        }
        Ok(body)
    }

    /// `answer`: what was read of it; `None`: it was too long, or broke off.
    fn judge(&self, outcome: Outcome, answer: Option<&[u8]>, ids: &[Uuid]) -> Answers {
        let taken = outcome == Outcome::Delivered;
        let Some(failed) = self.failed.as_ref().filter(|_| taken || matches!(outcome, Outcome::Rejected { .. })) else {
            return Answers::All(outcome);
        };
        match answer.ok_or_else(|| "it is too long, or broke off".to_owned()).and_then(|it| named(failed, it, ids)) {
            Ok(named) if named.is_empty() => Answers::All(outcome),
            Ok(mut named) => {
                Answers::Each((0..ids.len()).map(|at| named.remove(&at).unwrap_or(Outcome::Delivered)).collect())
            }
            // Which of them have passed cannot be told, so that none is taken for delivered.
            Err(reason) if taken => Answers::All(Outcome::Unknown {
                reason: format!("the answer cannot be read by batch.failed: {reason}"),
            }),
            Err(_) => Answers::All(outcome),
        }
    }
}

/// The failed ones, by their places in the call.
fn named(failed: &Failed, answer: &[u8], ids: &[Uuid]) -> Result<HashMap<usize, Outcome>, String> {
    let answer = if answer.trim_ascii().is_empty() { b"null" } else { answer };
    let mut named = HashMap::new();
    for result in failed(answer)? {
        match serde_json::from_str(&result).map_err(|error| error.to_string())? {
            Value::Null => {}
            Value::Array(entries) => {
                for entry in &entries {
                    let (at, outcome) = read_entry(entry, ids)?;
                    named.insert(at, outcome);
                }
            }
            entry => {
                let (at, outcome) = read_entry(&entry, ids)?;
                named.insert(at, outcome);
            }
        }
    }
    Ok(named)
}

/// A place, a delivery id, or an object with one of both, perhaps a reason, and whether it may pass later.
fn read_entry(entry: &Value, ids: &[Uuid]) -> Result<(usize, Outcome), String> {
    let which = match entry {
        Value::Object(entry) => entry.get("index").or(entry.get("id")).unwrap_or(&Value::Null),
        plain => plain,
    };
    let at = match which {
        Value::Number(number) => number.as_u64().and_then(|at| usize::try_from(at).ok()).filter(|at| *at < ids.len()),
        Value::String(id) => Uuid::parse_str(id).ok().and_then(|id| ids.iter().position(|known| *known == id)),
        _ => None,
    };
    let at = at.ok_or("it names something else than the events that were sent")?;
    let reason = match entry.get("reason") {
        Some(Value::String(reason)) => reason.chars().take(MAX_REASON).collect(),
        _ => "the receiver refused it, and took others of its batch".to_owned(),
    };
    let may_pass = entry.get("retry") == Some(&Value::Bool(true));
    Ok((at, if may_pass { Outcome::Transient { reason } } else { Outcome::Rejected { reason } }))
}

/// The same for the same set, in whatever order.
fn id_of(ids: &[Uuid]) -> Uuid {
    let mut sorted: Vec<&Uuid> = ids.iter().collect();
    sorted.sort();
    let name: Vec<u8> = sorted.into_iter().flat_map(Uuid::as_bytes).copied().collect();
    // A name of ours, as a delivery id is, and none of a sink's: its ids are.
    Uuid::new_v5(&Uuid::new_v5(&Uuid::NAMESPACE_OID, b"hookbridge batch"), &name)
}

#[cfg(test)]
mod tests;
