//! A trace, for people and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};
use uuid::Uuid;

use super::found::{Event, Kept};
use crate::cli::dead::{stage_json, stage_line};
use crate::cli::printable;
use crate::config::Sink;
use crate::deliver::receipt::ReceiptOutcome;
use crate::replay::receipts::Stage;
use crate::sinks::postgres::Seen;

/// What a sink made of an event.
#[derive(Debug)]
pub(super) struct AtSink {
    sink: String,
    /// Of the event.
    place: (String, i32, i64),
    pub(super) delivery_id: Uuid,
    stages: Vec<Stage>,
    /// A rewind with `--again` gave it another id.
    again: bool,
    /// In the sink's database.
    pub(super) rows: Vec<Seen>,
    /// The database could not be asked.
    pub(super) unavailable: bool,
}

impl AtSink {
    pub(super) fn new(sink: &Sink, event: &Event, delivery_id: Uuid, stages: Vec<Stage>) -> Self {
        let place = (event.topic.clone(), event.partition, event.offset);
        Self { sink: sink.name.clone(), place, delivery_id, stages, again: false, rows: Vec::new(), unavailable: false }
    }

    /// It is of the same event, under another delivery id.
    pub(super) fn once_more(self) -> Self {
        Self { again: true, ..self }
    }

    /// By the database, else by its last receipt.
    fn state(&self) -> &'static str {
        if !self.rows.is_empty() {
            return "in the database";
        }
        match self.stages.last().map(|stage| stage.outcome) {
            None if self.unavailable => "not known",
            None => "waiting",
            Some(outcome) => outcome.name(),
        }
    }

    fn is_dead(&self) -> bool {
        self.rows.is_empty() && self.stages.last().is_some_and(|stage| stage.outcome == ReceiptOutcome::Dead)
    }
}

pub(super) struct Trace<'t> {
    pub(super) events: &'t [Event],
    pub(super) quarantined: &'t [Kept],
    pub(super) sinks: &'t [AtSink],
}

impl Trace<'_> {
    /// Nothing of it waits for a person.
    pub(super) fn is_fine(&self) -> bool {
        let kept = self.quarantined.iter().any(|kept| !kept.is_mark);
        let released = self.quarantined.iter().any(|kept| kept.is_mark) || !self.events.is_empty();
        !self.sinks.iter().any(AtSink::is_dead) && (!kept || released)
    }

    pub(super) fn json(&self) -> String {
        let event = |event: &Event| {
            json!({
                "event_id": event.id, "event_type": event.kind, "source": event.source, "key": event.key,
                "received_at": event.received_at, "topic": event.topic, "partition": event.partition,
                "offset": event.offset, "replayed_from": event.replayed_from,
            })
        };
        let kept = |kept: &Kept| {
            json!({
                "topic": kept.topic, "partition": kept.partition, "offset": kept.offset, "reason": kept.reason,
                "received_at": kept.received_at, "mark": kept.is_mark,
            })
        };
        let sink = |one: &AtSink| {
            let (topic, partition, offset) = &one.place;
            let rows = one.rows.iter().map(|row| {
                json!({ "table": row.table, "hb_topic": row.topic, "hb_partition": row.partition, "hb_offset": row.offset })
            });
            json!({
                "sink": one.sink, "state": one.state(), "delivery_id": one.delivery_id.to_string(),
                "again": one.again, "origin": { "topic": topic, "partition": partition, "offset": offset },
                "receipts": one.stages.iter().map(stage_json).collect::<Vec<Value>>(), "rows": rows.collect::<Vec<_>>(),
            })
        };
        let value = json!({
            "events": self.events.iter().map(event).collect::<Vec<_>>(),
            "quarantined": self.quarantined.iter().map(kept).collect::<Vec<_>>(),
            "sinks": self.sinks.iter().map(sink).collect::<Vec<_>>(),
        });
        printable(&value.to_string())
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        for kept in self.quarantined {
            let what = if kept.is_mark { "published from it" } else { "in quarantine" };
            let reason = if kept.reason.is_empty() { String::new() } else { format!(" ({})", kept.reason) };
            let place = format!("{} {}@{}", kept.topic, kept.partition, kept.offset);
            let received = kept.received_at.as_deref().map(|at| format!(", received {at}")).unwrap_or_default();
            writeln!(out, "{}", printable(&format!("{what}{reason}: {place}{received}")))?;
        }
        for event in self.events {
            let head = format!("{} {} from {}", event.kind, event.id, event.source);
            writeln!(out, "{}", printable(&head))?;
            let mut line = |name: &str, value: &str| writeln!(out, "  {name:<12} {}", printable(value));
            line("received", event.received_at.as_deref().unwrap_or("-"))?;
            line("in Kafka", &format!("{} {}@{}, key {}", event.topic, event.partition, event.offset, event.key))?;
            if let Some(from) = &event.replayed_from {
                line("replayed", &format!("from {from}"))?;
            }
            let place = (event.topic.clone(), event.partition, event.offset);
            for sink in self.sinks.iter().filter(|sink| sink.place == place) {
                let again = if sink.again { ", again" } else { "" };
                line(&sink.sink, &format!("{}{again}", sink.state()))?;
                for stage in &sink.stages {
                    line("", &stage_line(stage))?;
                }
                for row in &sink.rows {
                    let at = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
                    let topic = row.topic.as_deref().unwrap_or("-");
                    let place = format!("{topic} {}@{}", at(row.partition.map(i64::from)), at(row.offset));
                    line("", &format!("a row in {}, of {place}", row.table))?;
                }
            }
        }
        Ok(())
    }
}
