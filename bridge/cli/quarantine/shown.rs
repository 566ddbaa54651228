//! A quarantined request, for people and as JSON.

use std::collections::BTreeMap;
use std::io::{self, Write};

use serde::Serialize;
use serde_json::value::RawValue;

use crate::calendar::Rfc3339;
use crate::cli::desk::cut;
use crate::cli::{printable, printable_json};
use crate::replay::quarantine::{Mark, Request, Standing};

pub(super) const HEAD: [&str; 7] = ["PLACE", "RECEIVED", "STATE", "REASON", "EVENTS", "KEY", "WHAT IS WRONG"];

/// Characters of a cell; `show` has all of it.
const WIDE: usize = 70;
const NARROW: usize = 40;

/// What `--json` prints, and `--where` sees.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    place: String,
    source: String,
    state: &'static str,
    reason: String,
    received_at: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    kept_at: Option<String>,
    /// How many the request had, and which of them it is kept for; neither where that could not be told.
    events: Option<usize>,
    failed: Option<Vec<usize>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    violations: Option<Box<RawValue>>,
    headers: BTreeMap<String, String>,
    body: Body,
    replayed: Vec<Mark>,
}

#[derive(Debug, Serialize)]
#[serde(untagged)]
enum Body {
    Json(Box<RawValue>),
    Text(String),
}

impl Shown {
    pub(super) fn new(request: &Request, standing: Standing, marks: &[Mark]) -> Self {
        let Request { place: (partition, offset), .. } = request;
        let text = String::from_utf8_lossy(&request.body);
        let body = match serde_json::from_str::<&RawValue>(&text) {
            Ok(json) => Body::Json(json.to_owned()),
            Err(_) => Body::Text(text.into_owned()),
        };
        let violations = request.violations.clone().and_then(|text| RawValue::from_string(text).ok());
        Self {
            place: format!("{partition}@{offset}"),
            source: request.source.clone(),
            state: standing.name(),
            reason: request.reason.clone(),
            received_at: Rfc3339::from_ms(request.received_ms).to_string(),
            kept_at: request.kept_at.map(|ms| Rfc3339::from_ms(ms).to_string()),
            events: request.events,
            failed: request.failed.as_ref().map(|failed| failed.iter().copied().collect()),
            key: request.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned()),
            violations,
            headers: request
                .headers
                .iter()
                .map(|(name, value)| (name.clone(), String::from_utf8_lossy(value).into_owned()))
                .collect(),
            body,
            replayed: marks.to_vec(),
        }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    pub(super) fn json(&self) -> String {
        // Text and numbers always serialize; a body is on as many lines as its sender liked.
        printable_json(&serde_json::to_string(self).unwrap_or_default())
    }

    pub(super) fn row(&self, request: &Request) -> [String; 7] {
        let events = match (request.events, &request.failed) {
            (Some(events), Some(failed)) => format!("{} of {events}", failed.len()),
            _ => "all of it".to_owned(),
        };
        let first = wrongs(request).into_iter().next().unwrap_or_default();
        [
            self.place.clone(),
            self.received_at.clone(),
            self.state.to_owned(),
            cut(&self.reason, NARROW),
            events,
            self.key.as_deref().map_or_else(|| "-".to_owned(), |key| cut(key, NARROW)),
            cut(&first, WIDE),
        ]
    }

    pub(super) fn print(&self, request: &Request, marks: &[Mark], out: &mut dyn Write) -> io::Result<()> {
        writeln!(out, "{} {} ({})", self.source, self.place, self.state)?;
        let mut line = |name: &str, value: &str| writeln!(out, "  {name:<12} {}", printable(value));
        line("reason", &self.reason)?;
        line("received", &self.received_at)?;
        match (request.events, &request.failed) {
            (Some(events), Some(failed)) => line("events", &format!("{failed:?} of {events}, counted from 0"))?,
            _ => line("events", "not known: all of it is kept")?,
        }
        for wrong in wrongs(request) {
            line("wrong", &wrong)?;
        }
        for mark in marks {
            let published: Vec<String> =
                mark.published.iter().map(|one| format!("{} {}", one.event_type, one.event_id)).collect();
            line("replayed", &format!("{} {:?}: {}", mark.replayed_at, mark.indices, published.join(", ")))?;
        }
        for (name, value) in &self.headers {
            line("header", &format!("{name}: {value}"))?;
        }
        match &self.body {
            Body::Json(json) => line("body", &printable_json(json.get())),
            Body::Text(text) => line("body", text),
        }
    }
}

/// What is wrong, one for each violation that was noted.
fn wrongs(request: &Request) -> Vec<String> {
    #[derive(serde::Deserialize)]
    struct Noted {
        violations: Vec<Violation>,
    }
    #[derive(serde::Deserialize)]
    struct Violation {
        index: Option<usize>,
        pointer: String,
        message: String,
    }
    let noted = request.violations.as_deref().and_then(|text| serde_json::from_str::<Noted>(text).ok());
    let wrong = |violation: Violation| {
        let index = violation.index.map(|index| format!("[{index}] ")).unwrap_or_default();
        let pointer = if violation.pointer.is_empty() { String::new() } else { format!("{}: ", violation.pointer) };
        format!("{index}{pointer}{}", violation.message)
    };
    noted.map(|noted| noted.violations.into_iter().map(wrong).collect()).unwrap_or_default()
}
