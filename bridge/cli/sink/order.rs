//! Orders: a record in the control topic, which every process follows.

use std::io::Write;

use serde_json::json;

use super::{Desk, Ended, OrderArgs, exists, wanted};
use crate::cli::{Common, Exit};
use crate::clock;
use crate::config::Sink;
use crate::control::{self, Control, SCHEMA};
use crate::kafka::{Limits, Outgoing, Publisher};

pub(super) fn pause(
    common: &Common,
    desk: &Desk,
    args: &OrderArgs,
    paused: bool,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Ended> {
    let sink = desk.sink(&args.sink, err)?;
    exists(desk, &control::topic(desk.prefix()), err)?;
    let before = before(desk, sink)?;
    let was = before.paused;
    give(desk, Control { paused, reason: args.reason.clone(), ..before })?;
    let what = if paused { "paused" } else { "resumed" };
    if common.json {
        writeln!(
            out,
            "{}",
            json!({ "sink": sink.name, "wanted": if paused { "paused" } else { "running" }, "was_paused": was })
        )?;
    } else if was == paused {
        writeln!(out, "{} was {what} already", sink.name)?;
    } else {
        writeln!(out, "{} is {what}: every process that follows the control topic hears it within moments", sink.name)?;
    }
    Ok(Exit::Fine)
}

/// What is wanted of a sink so far.
pub(super) fn before(desk: &Desk, sink: &Sink) -> Result<Control, Ended> {
    Ok(wanted(desk)?.remove(&sink.name).unwrap_or_else(|| Control::of(&sink.name)))
}

/// Writes what is wanted of a sink from now on, and returns when Kafka has confirmed it.
pub(super) fn give(desk: &Desk, control: Control) -> Result<(), Ended> {
    let user = ["USER", "LOGNAME"].iter().find_map(|name| std::env::var(name).ok()).unwrap_or_default();
    let control = Control { changed_by: user, changed_at: clock::now_ms(), ..control };
    let schema_id = desk.runtime.block_on(desk.registry.own_id(SCHEMA))?;
    let value = control.encode(schema_id)?;
    let publisher = Publisher::start(&desk.client, Limits::default())?;
    let topic = control::topic(desk.prefix());
    let pending = publisher.publish(Outgoing {
        topic: &topic,
        partition: Some(0),
        key: Some(control.sink.as_bytes()),
        value: Some(&value),
        headers: &[],
        timestamp_ms: None,
    })?;
    desk.runtime.block_on(pending)?;
    Ok(())
}
