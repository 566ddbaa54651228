//! A dead letter, for people and as JSON.

use std::io::{self, Write};

use serde::Serialize;
use serde_json::value::RawValue;
use serde_json::{Value, json};

use crate::calendar::Rfc3339;
use crate::cli::desk::cut;
use crate::cli::printable;
use crate::event::header;
use crate::replay::dead::{Letter, Standing};
use crate::replay::receipts::Stage;

pub(super) const HEAD: [&str; 8] =
    ["PLACE", "DEAD SINCE", "STATE", "REASON", "EVENT TYPE", "EVENT ID", "KEY", "MESSAGE"];

/// Characters of a cell: what a sink says may be long, and `show` has all of it.
const WIDE: usize = 60;
const NARROW: usize = 40;

/// What `--json` prints, and `--where` sees.
#[derive(Debug, Serialize)]
pub(super) struct Shown {
    place: String,
    state: &'static str,
    reason: String,
    message: String,
    attempts: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    dead_at: Option<String>,
    delivery_id: String,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    event_type: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    source: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    received_at: Option<String>,
    origin: Origin,
    /// How often this delivery died before.
    earlier: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    schema_id: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    data: Option<Box<RawValue>>,
    /// Why the event cannot be shown.
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<String>,
}

#[derive(Debug, Serialize)]
struct Origin {
    topic: String,
    partition: i32,
    offset: i64,
}

impl Shown {
    pub(super) fn new(letter: &Letter, standing: Standing, data: Result<(u32, String), String>) -> Self {
        let Letter { grave, record, earlier } = letter;
        let text = |name| record.header(name).map(str::to_owned);
        let (schema_id, data, error) = match data {
            Ok((id, text)) => (Some(id), RawValue::from_string(text).ok(), None),
            Err(reason) => (None, None, Some(reason)),
        };
        Self {
            place: format!("{}@{}", record.at.partition, record.offset),
            state: standing.name(),
            reason: grave.reason.clone(),
            message: grave.message.clone(),
            attempts: grave.attempts,
            dead_at: record.timestamp_ms.map(|ms| Rfc3339::from_ms(ms).to_string()),
            delivery_id: grave.delivery_id.to_string(),
            event_id: text(header::CE_ID),
            event_type: text(header::CE_TYPE),
            source: text(header::CE_SOURCE),
            key: record.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned()),
            received_at: text(header::RECEIVED_AT),
            origin: Origin {
                topic: grave.origin_topic.clone(),
                partition: grave.origin_partition,
                offset: grave.origin_offset,
            },
            earlier: *earlier,
            schema_id,
            data,
            error,
        }
    }

    pub(super) fn place(&self) -> &str {
        &self.place
    }

    /// What a person calls it.
    pub(super) fn name(&self) -> String {
        let event_type = self.event_type.as_deref().unwrap_or("event");
        printable(&format!("{event_type} {}", self.event_id.as_deref().unwrap_or(&self.delivery_id)))
    }

    pub(super) fn json(&self) -> String {
        // Text and numbers always serialize. Control characters stand in texts only, where their escape means the same.
        printable(&serde_json::to_string(self).unwrap_or_default())
    }

    /// With its headers and its receipts.
    pub(super) fn json_with(&self, letter: &Letter, stages: &[Stage]) -> String {
        let mut value: Value = serde_json::to_value(self).unwrap_or_default();
        let headers: Vec<Value> =
            letter.record.headers.iter().map(|(name, value)| json!([name, String::from_utf8_lossy(value)])).collect();
        value["headers"] = headers.into();
        value["receipts"] = stages.iter().map(stage_json).collect();
        printable(&value.to_string())
    }

    pub(super) fn result(&self, result: &str, why: Option<&str>) -> String {
        let Self { place, delivery_id, event_id, event_type, .. } = self;
        let value = json!({
            "place": place, "delivery_id": delivery_id, "event_id": event_id, "event_type": event_type,
            "result": result, "why": why,
        });
        printable(&value.to_string())
    }

    pub(super) fn row(&self) -> [String; 8] {
        let or_none =
            |text: &Option<String>, most| text.as_deref().map_or_else(|| "-".to_owned(), |text| cut(text, most));
        [
            self.place.clone(),
            or_none(&self.dead_at, NARROW),
            self.state.to_owned(),
            cut(&self.reason, NARROW),
            or_none(&self.event_type, NARROW),
            or_none(&self.event_id, NARROW),
            or_none(&self.key, NARROW),
            cut(&self.message, WIDE),
        ]
    }

    pub(super) fn print(&self, letter: &Letter, stages: &[Stage], out: &mut dyn Write) -> io::Result<()> {
        let Self { place, state, reason, message, attempts, delivery_id, origin, .. } = self;
        writeln!(out, "{} {place}", self.name())?;
        let mut line = |name: &str, value: &str| writeln!(out, "  {name:<12} {}", printable(value));
        line("state", state)?;
        line("why", &format!("{reason}: {message}"))?;
        line("attempts", &attempts.to_string())?;
        line("dead since", self.dead_at.as_deref().unwrap_or("-"))?;
        line("received", self.received_at.as_deref().unwrap_or("-"))?;
        line("source", self.source.as_deref().unwrap_or("-"))?;
        line("key", self.key.as_deref().unwrap_or("-"))?;
        line("origin", &format!("{} {}@{}", origin.topic, origin.partition, origin.offset))?;
        line("delivery id", delivery_id)?;
        match (&self.data, &self.error) {
            (Some(data), _) => line("event", data.get())?,
            (None, error) => line("event", &format!("(not readable: {})", error.as_deref().unwrap_or("-")))?,
        }
        for (name, value) in letter.record.headers.iter() {
            line("header", &format!("{name}: {}", String::from_utf8_lossy(value)))?;
        }
        for stage in stages {
            line("receipt", &stage_line(stage))?;
        }
        Ok(())
    }
}

/// A receipt, in one line.
pub(in crate::cli) fn stage_line(stage: &Stage) -> String {
    let mut line = format!("{} {}", Rfc3339::from_ms(stage.settled_at), stage.outcome.name());
    if !stage.reason.is_empty() {
        line = format!("{line} ({})", stage.reason);
    }
    if stage.attempts > 0 {
        line = format!("{line}, {} attempt(s)", stage.attempts);
    }
    if let Some(reference) = &stage.vendor_reference {
        line = format!("{line}, the sink calls it {reference}");
    }
    if !stage.message.is_empty() {
        line = format!("{line}: {}", stage.message);
    }
    line
}

pub(in crate::cli) fn stage_json(stage: &Stage) -> Value {
    json!({
        "outcome": stage.outcome.name(),
        "reason": stage.reason,
        "message": stage.message,
        "attempts": stage.attempts,
        "vendor_reference": stage.vendor_reference,
        "settled_at": Rfc3339::from_ms(stage.settled_at).to_string(),
        "receipt_offset": stage.offset,
    })
}
