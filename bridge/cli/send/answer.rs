//! The answer of a bridge, in words.

use std::collections::BTreeMap;
use std::io::{self, Write};

use http::StatusCode;

use super::Exit;
use crate::config::Source;
use crate::sender::{Answer, Receipt};

/// Violations that are told; the answer has the first hundred.
const TOLD: usize = 10;

/// What an answer means.
#[derive(Debug)]
pub(super) struct Outcome {
    /// One word or two, for counting.
    kind: String,
    pub(super) headline: String,
    pub(super) details: Vec<String>,
    pub(super) hint: Option<String>,
    pub(super) exit: Exit,
}

impl Outcome {
    pub(super) fn of(answer: &Answer, source: &Source) -> Self {
        match answer.receipts() {
            Some(receipts) if !receipts.events.is_empty() => Self::of_receipts(&receipts.events, source),
            _ if answer.status.is_success() => Self {
                kind: "answered".to_owned(),
                headline: format!("{}: answered, and no event", answer.status),
                details: text(answer).into_iter().collect(),
                hint: None,
                exit: Exit::Fine,
            },
            _ => Self::refused(answer, source),
        }
    }

    fn of_receipts(events: &[Receipt], source: &Source) -> Self {
        let worst = events.iter().max_by_key(|event| rank(&event.status));
        let status = worst.map_or("answered", |event| event.status.as_str());
        let headline = match events {
            [event] => in_a_line(event),
            events => format!("{status}: {} events", events.len()),
        };
        let mut details: Vec<String> = Vec::new();
        for event in events {
            if events.len() > 1 {
                details.push(in_a_line(event));
            }
            details.extend(event_details(event));
        }
        Self {
            kind: status.to_owned(),
            headline,
            details,
            hint: worst.and_then(|event| hint(event, source)),
            exit: if status == "quarantined" { Exit::Problems } else { Exit::Fine },
        }
    }

    fn refused(answer: &Answer, source: &Source) -> Self {
        let problem: serde_json::Value = serde_json::from_slice(&answer.body).unwrap_or_default();
        let said = |key: &str| problem.get(key).and_then(serde_json::Value::as_str).map(str::to_owned);
        let what = said("title").or_else(|| text(answer)).unwrap_or_else(|| "refused".to_owned());
        let mut details: Vec<String> = said("detail").into_iter().collect();
        if let Ok(event) = serde_json::from_value::<Violations>(problem) {
            details.extend(violations(&event.violations, event.violations_total));
        }
        let name = &source.name;
        let hint = match answer.status {
            StatusCode::UNAUTHORIZED => Some(format!(
                "the bridge says no more, to anybody. Has it a source `{name}`? Has it this very secret, first in \
                 `secrets`? Are the clocks of both machines right? Its metric hookbridge_signatures_rejected_total \
                 names the reason"
            )),
            StatusCode::BAD_REQUEST | StatusCode::UNPROCESSABLE_ENTITY => Some(format!(
                "source `{name}` refuses what does not fit its schema (`on_invalid: reject`): mend the body, or the \
                 source's `map`"
            )),
            StatusCode::NOT_FOUND | StatusCode::METHOD_NOT_ALLOWED => {
                Some("is this a bridge's address? It ends in `/hooks/<source>`".to_owned())
            }
            StatusCode::PAYLOAD_TOO_LARGE => Some("`ingest.max_body` is the limit".to_owned()),
            StatusCode::SERVICE_UNAVAILABLE => Some(
                "nothing is lost: a provider would send it again. `/readyz` of the admin port says what is amiss"
                    .to_owned(),
            ),
            _ => None,
        };
        let exit = if answer.status == StatusCode::SERVICE_UNAVAILABLE { Exit::Unavailable } else { Exit::Problems };
        let headline = format!("refused, {}: {what}", answer.status);
        Self { kind: format!("refused ({})", answer.status.as_u16()), headline, details, hint, exit }
    }
}

#[derive(serde::Deserialize)]
struct Violations {
    #[serde(default)]
    violations: Vec<crate::sender::Violation>,
    #[serde(default)]
    violations_total: usize,
}

/// What a person has to look at first.
fn rank(status: &str) -> u8 {
    match status {
        "accepted" => 0,
        "duplicate" => 1,
        "ignored" => 2,
        _ => 3,
    }
}

fn in_a_line(event: &Receipt) -> String {
    let place = place(event).map(|place| format!(" in {place}")).unwrap_or_default();
    let event_type = event.event_type.as_deref().unwrap_or_default();
    let id = event.event_id.as_deref().unwrap_or_default();
    let named = [event_type, id].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    match event.status.as_str() {
        "accepted" => format!("accepted: {named} is{place}"),
        "duplicate" => format!("duplicate: {named} is{place} already"),
        "ignored" => "ignored: no rule of this source takes it".to_owned(),
        "quarantined" => {
            format!("quarantined ({}): it is kept{place}", event.reason.as_deref().unwrap_or("no reason given"))
        }
        other => format!("{other}: {named}{place}"),
    }
}

fn place(event: &Receipt) -> Option<String> {
    let (topic, partition, offset) = (event.topic.as_ref()?, event.partition?, event.offset?);
    Some(format!("{topic}, partition {partition}, offset {offset}"))
}

fn event_details(event: &Receipt) -> Vec<String> {
    let schema = event.schema.as_ref();
    let written =
        schema.map(|schema| format!("written with {} version {} (id {})", schema.subject, schema.version, schema.id));
    written
        .into_iter()
        .chain(violations(&event.violations, event.violations_total.unwrap_or(event.violations.len())))
        .collect()
}

fn violations(all: &[crate::sender::Violation], total: usize) -> Vec<String> {
    let told = all.iter().take(TOLD).map(|one| match one.pointer.as_str() {
        "" => one.message.clone(),
        pointer => format!("{pointer}: {}", one.message),
    });
    let left = total.max(all.len()).saturating_sub(TOLD);
    told.chain((left > 0).then(|| format!("and {left} more"))).collect()
}

fn hint(event: &Receipt, source: &Source) -> Option<String> {
    let name = &source.name;
    match (event.status.as_str(), event.reason.as_deref()) {
        ("ignored", _) => Some(format!(
            "`on_unmapped: ignore` is set. `hookbridge source show {name}` lists the rules and the samples to try"
        )),
        ("quarantined", Some("unmapped")) => {
            Some(format!("no rule under `sources.{name}.events` is true for it: add one, or set `on_unmapped: ignore`"))
        }
        ("quarantined", Some("unknown_event_type" | "null_event_type")) => {
            Some("the body has to name one of the configuration's `events`".to_owned())
        }
        ("quarantined", Some("null_id" | "invalid_id")) => {
            Some("the event's `id`, or the source's `event_id`, has to find one".to_owned())
        }
        ("quarantined", Some("null_key" | "invalid_key")) => {
            Some("the event's `key` has to find one in what the rule makes".to_owned())
        }
        ("quarantined", Some("expression_failed" | "expression_stopped")) => {
            Some("try the rule on this body with `hookbridge eval`".to_owned())
        }
        ("quarantined", _) => Some(format!(
            "`hookbridge tail quarantine.{name} --last 1` shows it as it came; mend the sender, the source's `map` or the \
             schema"
        )),
        _ => None,
    }
}

/// The beginning of an answer that is no bridge's.
fn text(answer: &Answer) -> Option<String> {
    let text = String::from_utf8_lossy(&answer.body);
    let line: String = text.trim().chars().take(200).map(|c| if c.is_control() { ' ' } else { c }).collect();
    (!line.is_empty()).then_some(line)
}

/// How many answers of each kind there were.
#[derive(Debug, Default)]
pub(super) struct Tally(BTreeMap<String, u32>);

impl Tally {
    pub(super) fn count(&mut self, outcome: &Outcome) {
        *self.0.entry(outcome.kind.clone()).or_default() += 1;
    }

    pub(super) fn tell(&self, many: bool, err: &mut dyn Write) -> io::Result<()> {
        if !many || self.0.is_empty() {
            return Ok(());
        }
        let sent: u32 = self.0.values().sum();
        let parts: Vec<_> = self.0.iter().map(|(kind, count)| format!("{count} {kind}")).collect();
        writeln!(err, "{sent} sent: {}", parts.join(", "))
    }
}
