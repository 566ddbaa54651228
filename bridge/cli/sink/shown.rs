//! A sink, for people and as JSON.

use std::io::{self, Write};

use serde_json::{Value, json};

use super::{Known, guarantee, kind, purpose, state};
use crate::calendar::Rfc3339;
use crate::cli::printable;
use crate::config::{Batch, Http, Purpose, SinkKind};
use crate::kafka::lag::Standing;

/// What has not come to its end, or needs a person: shown even where there is none of it.
const OPEN: [&str; 4] = ["parked", "requeued", "intent", "dead"];

impl Known<'_> {
    /// What the database holds for a partition, where it does.
    fn stand(&self, one: &Standing) -> Option<i64> {
        let stand =
            self.stands.iter().find(|stand| stand.topic == *one.at.topic && stand.partition == one.at.partition);
        stand.map(|stand| stand.next_offset)
    }

    pub(super) fn json(&self) -> String {
        let Self { sink, group, control, counts, dead, .. } = self;
        let lag: Vec<Value> = self
            .lag
            .iter()
            .map(|one| {
                json!({
                    "topic": &*one.at.topic, "partition": one.at.partition, "first": one.first.get(),
                    "end": one.end.get(), "committed": one.committed.map(crate::kafka::NextOffset::get),
                    "lag": one.lag(), "in_database": self.stand(one),
                })
            })
            .collect();
        let order = control.as_ref().map(|control| {
            json!({
                "paused": control.paused, "rewinds": control.rewinds, "reason": control.reason,
                "changed_by": control.changed_by, "changed_at": Rfc3339::from_ms(control.changed_at).to_string(),
            })
        });
        let value = json!({
            "sink": sink.name, "type": kind(sink), "guarantee": guarantee(sink), "purpose": purpose(sink),
            "events": sink.events, "where": sink.filter.as_ref().map(|expr| &expr.text),
            "map": sink.map.as_ref().map(|expr| &expr.text), "group": group, "wanted": state(control.as_ref()),
            "order": order, "lag": lag, "deliveries": counts, "counted_since_seconds": self.since.as_secs(),
            "dead_letter_offsets": dead,
        });
        printable(&value.to_string())
    }

    pub(super) fn print(&self, out: &mut dyn Write) -> io::Result<()> {
        let Self { sink, group, control, .. } = self;
        writeln!(out, "{} ({})", sink.name, kind(sink))?;
        let mut line = |name: &str, value: &str| writeln!(out, "  {name:<12} {}", printable(value));
        line("guarantee", guarantee(sink))?;
        match &sink.purpose {
            Purpose::None => line("purpose", "none: events are sent whatever their consent says")?,
            Purpose::Unset => line("purpose", "- (not a marketing action)")?,
            Purpose::Named(name) => {
                line("purpose", &format!("{name}: an event whose consent does not say so is skipped"))?;
            }
        }
        line("events", &sink.events.join(", "))?;
        for (name, expr) in [("where", &sink.filter), ("map", &sink.map)] {
            if let Some(expr) = expr {
                line(name, &expr.text)?;
            }
        }
        if let SinkKind::Http(Http { batch: Some(batch), .. }) = &sink.kind {
            let Batch { max_events, max_bytes, linger, .. } = batch;
            line(
                "batch",
                &format!("{max_events} events or {max_bytes} bytes in one call, after {linger:?} at the latest"),
            )?;
        }
        line("group", group)?;
        line("wanted", state(control.as_ref()))?;
        if let Some(control) = control {
            let by = if control.changed_by.is_empty() { "somebody" } else { &control.changed_by };
            let why = if control.reason.is_empty() { String::new() } else { format!(": {}", control.reason) };
            line("", &format!("by {by} at {}{why}", Rfc3339::from_ms(control.changed_at)))?;
        }
        self.print_counts(&mut line)?;
        let total: u64 = self.lag.iter().map(Standing::lag).sum();
        line("lag", &total.to_string())?;
        self.print_lag(out)
    }

    fn print_counts(&self, line: &mut impl FnMut(&str, &str) -> io::Result<()>) -> io::Result<()> {
        let Self { counts, since, dead, .. } = self;
        if !counts.is_empty() {
            let days = since.as_secs() / 86_400;
            let span = if days > 0 { format!("{days}d") } else { format!("{}s", since.as_secs()) };
            let settled = counts.iter().filter(|(name, _)| !OPEN.contains(*name));
            let settled = settled.map(|(name, count)| format!("{count} {name}"));
            let open = OPEN.iter().map(|name| format!("{} {name}", counts.get(name).copied().unwrap_or_default()));
            let all: Vec<String> = settled.chain(open).collect();
            line("deliveries", &format!("{} (in {span})", all.join(", ")))?;
        }
        let hint = if *dead > 0 { format!(": `hookbridge dead list {}`", self.sink.name) } else { String::new() };
        line("dead letters", &format!("{dead} offset(s) of its topic{hint}"))
    }

    fn print_lag(&self, out: &mut dyn Write) -> io::Result<()> {
        let number = |number: Option<i64>| number.map_or_else(|| "-".to_owned(), |number| number.to_string());
        let row = |one: &Standing| {
            [
                one.at.topic.to_string(),
                one.at.partition.to_string(),
                number(one.committed.map(crate::kafka::NextOffset::get)),
                number(self.stand(one)),
                one.end.get().to_string(),
                one.lag().to_string(),
            ]
        };
        writeln!(out)?;
        crate::cli::table(
            out,
            ["TOPIC", "PARTITION", "COMMITTED", "IN DATABASE", "END", "LAG"],
            self.lag.iter().map(row),
        )
    }
}
