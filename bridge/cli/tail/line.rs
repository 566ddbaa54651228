//! One record, in one line: for people, or as JSON.

use std::borrow::Cow;
use std::fmt::Write as _;

use serde::Serialize;
use serde_json::value::RawValue;

use crate::calendar::Rfc3339;
use crate::cli::printable;
use crate::cli::values::Values;
use crate::event::header;
use crate::expr::{Json, Program};
use crate::kafka::Record;
use crate::replay::quarantine::is_mark;
use crate::schema::registry::Registry;

/// Characters of a request in quarantine that are shown to people; `--json` has all of it.
const MAX_BODY: usize = 2_000;

pub(super) enum Kind {
    Event,
    Quarantined,
    /// Beside the requests in quarantine: what was done with one of them.
    Mark,
}

/// What a person does not miss. Numbers keep their digits.
const WITHOUT_NULLS: &str = r#"walk(if type == "object" then with_entries(select(.value != null)) else . end)"#;

/// Makes lines of records.
pub(super) struct Lines {
    values: Values,
    without_nulls: Option<Program>,
    json: bool,
    source: Option<String>,
    /// How the names of topics in quarantine begin.
    quarantine: String,
}

/// A record, as `--json` prints it.
#[derive(Serialize)]
struct Line<'a> {
    topic: &'a str,
    partition: i32,
    offset: i64,
    #[serde(skip_serializing_if = "Option::is_none")]
    time: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_at: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<&'a RawValue>,
    /// Why the value cannot be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    /// Of a request in quarantine.
    #[serde(skip_serializing_if = "Option::is_none")]
    reason: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    violations: Option<&'a RawValue>,
    #[serde(skip_serializing_if = "Option::is_none")]
    body: Option<String>,
}

impl Lines {
    pub(super) fn new(registry: Registry, json: bool, source: Option<String>, quarantine: String) -> Self {
        let without_nulls = Program::compile(WITHOUT_NULLS).ok();
        Self { values: Values::new(registry), without_nulls, json, source, quarantine }
    }

    /// Whether it is of the source that was asked for.
    pub(super) fn is_wanted(&self, record: &Record) -> bool {
        self.source.as_ref().is_none_or(|wanted| source(record) == Some(wanted.as_str()))
    }

    pub(super) fn kind(&self, record: &Record) -> Kind {
        match record.at.topic.starts_with(&self.quarantine) {
            true if is_mark(record) => Kind::Mark,
            true => Kind::Quarantined,
            false => Kind::Event,
        }
    }

    pub(super) async fn event(&mut self, record: &Record) -> String {
        let (schema_id, data) = match self.values.json(record.value.as_deref()).await {
            Ok((id, text)) => (Some(id), Ok(text)),
            Err(reason) => (None, Err(reason)),
        };
        if self.json {
            let raw = data.as_ref().ok().and_then(|text| serde_json::from_str::<&RawValue>(text).ok());
            let error = data.as_ref().err().map(String::as_str);
            return as_json(&Line { schema_id, data: raw, error, ..line(record) });
        }
        let shown = match &data {
            Ok(text) => printable(&self.shortened(text)),
            Err(reason) => format!("(not readable: {})", printable(reason)),
        };
        for_people(record, record.header(header::CE_TYPE).unwrap_or("(no type)"), &shown)
    }

    /// The event without its nulls; as it is where it is larger than a program may handle.
    fn shortened<'a>(&self, event: &'a str) -> Cow<'a, str> {
        let made = self.without_nulls.as_ref().zip(Json::new(event.as_bytes()).ok());
        let made = made.and_then(|(program, event)| program.eval(&event).ok()?.into_iter().next());
        made.map_or(Cow::Borrowed(event), |json| Cow::Owned(json.into_text().into_owned()))
    }

    pub(super) fn quarantined(&self, record: &Record) -> String {
        let value = record.value.as_deref().unwrap_or_default();
        let body = String::from_utf8_lossy(value);
        let reason = record.header(header::REASON);
        if self.json {
            let violations = record.header(header::VIOLATIONS).and_then(|text| serde_json::from_str(text).ok());
            return as_json(&Line { reason, violations, body: Some(body.into_owned()), ..line(record) });
        }
        let mut shown: String = body.chars().take(MAX_BODY).collect();
        if shown.len() < body.len() {
            let _ = write!(shown, "… ({} bytes)", value.len());
        }
        for_people(record, &format!("quarantined({})", reason.unwrap_or("no reason")), &printable(&shown))
    }

    /// A mark is JSON already.
    pub(super) fn mark(&self, record: &Record) -> String {
        let value = String::from_utf8_lossy(record.value.as_deref().unwrap_or_default());
        if self.json {
            let data = serde_json::from_str::<&RawValue>(&value).ok();
            return as_json(&Line { data, ..line(record) });
        }
        for_people(record, "replayed", &printable(&value))
    }
}

fn source(record: &Record) -> Option<&str> {
    record.header(header::CE_SOURCE).or_else(|| record.header(header::SOURCE))
}

fn line(record: &Record) -> Line<'_> {
    Line {
        topic: &record.at.topic,
        partition: record.at.partition,
        offset: record.offset,
        time: record.header(header::CE_TIME),
        received_at: record.header(header::RECEIVED_AT),
        source: source(record),
        event_type: record.header(header::CE_TYPE),
        event_id: record.header(header::CE_ID),
        key: record.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned()),
        schema_id: None,
        data: None,
        error: None,
        reason: None,
        violations: None,
        body: None,
    }
}

fn as_json(line: &Line<'_>) -> String {
    // Text and numbers always serialize.
    printable(&serde_json::to_string(line).unwrap_or_default())
}

fn for_people(record: &Record, what: &str, data: &str) -> String {
    let written = record.timestamp_ms.map(Rfc3339::from_ms);
    let time = record.header(header::RECEIVED_AT).or(written.as_ref().map(Rfc3339::as_str)).unwrap_or("-");
    let id = record.header(header::CE_ID).unwrap_or("-");
    let key = record.key.as_deref().map_or_else(|| "-".into(), String::from_utf8_lossy);
    let head = format!("{time} {what} id={id} key={key} {} {}@{}", record.at.topic, record.at.partition, record.offset);
    format!("{} {data}", printable(&head))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::TopicPartition;

    #[test]
    fn nulls_are_left_out_and_digits_are_not() {
        let program = Program::compile(WITHOUT_NULLS).unwrap();
        let event = Json::new(br#"{"b": 1.9000, "a": null, "c": {"x": null, "l": [{"q": null}, null]}}"#).unwrap();
        let made = program.eval(&event).unwrap().remove(0).into_text().into_owned();
        assert_eq!(made, r#"{"b":1.9000,"c":{"l":[{},null]}}"#);
    }

    #[test]
    fn a_line_is_one_line_whatever_a_sender_wrote() {
        let record = Record {
            at: TopicPartition { topic: "events.x".into(), partition: 3 },
            offset: 41,
            timestamp_ms: Some(0),
            key: Some(b"a\nb\x1b[2J".to_vec()),
            value: None,
            headers: [(header::CE_ID, "e\u{9b}1")].into_iter().collect(),
        };
        assert_eq!(
            for_people(&record, "x", &printable("{\"a\":\"\u{9b}\"}")),
            "1970-01-01T00:00:00.000Z x id=e\\u009b1 key=a\\u000ab\\u001b[2J events.x 3@41 {\"a\":\"\\u009b\"}"
        );
    }
}
