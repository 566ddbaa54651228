//! `alerts`: read and checked; alerting itself is not built yet.

use std::collections::BTreeMap;
use std::num::NonZeroU32;
use std::time::Duration;

use super::edges::http_url;
use super::names;
use crate::config::not_built::Feature;
use crate::config::reader::{Field, Map};
use crate::config::units::{Rate, parse_rate};
use crate::config::{Alerts, DeadLetterAlert, DriftAlert, Receiver, Secret};

type MakeReceiver = fn(Secret) -> Receiver;

const RECEIVERS: [(&str, MakeReceiver); 3] =
    [("slack", Receiver::Slack), ("webhook", Receiver::Webhook), ("alertmanager", Receiver::Alertmanager)];

/// The first dead letter within an hour.
const DEAD_LETTERS: Rate = Rate { count: NonZeroU32::MIN, per: Duration::from_secs(60 * 60) };
/// Once or twice is a sender's slip; five times is a change.
const DRIFT_MIN_COUNT: u32 = 5;

pub(super) fn alerts(field: &Field<'_>) -> Option<Alerts> {
    if field.is_written() {
        field.needs(Feature::Alerts, "`alerts`");
    }
    field.optional_map(|alerts| {
        let receivers = receivers(&alerts.field("receivers"));
        Alerts {
            drift: alerts.field("drift").optional_map(|drift| DriftAlert {
                to: to(drift, &receivers),
                min_count: drift.field("min_count").number_or(DRIFT_MIN_COUNT, &(1..=1_000_000)),
            }),
            dead_letters: alerts.field("dead_letters").optional_map(|dead| DeadLetterAlert {
                to: to(dead, &receivers),
                over: dead.field("over").parsed_or(DEAD_LETTERS, parse_rate),
            }),
            receivers,
            at: field.location(),
        }
    })
}

fn to(alert: &mut Map<'_>, receivers: &BTreeMap<String, Receiver>) -> Vec<String> {
    let known: Vec<&str> = receivers.keys().map(String::as_str).collect();
    names::references(&alert.required("to"), "receiver", "alerts.receivers", &known)
}

fn receivers(field: &Field<'_>) -> BTreeMap<String, Receiver> {
    let mut receivers = BTreeMap::new();
    for (name, field) in field.named() {
        names::check(&field, name);
        // A broken one still counts as defined, so that what refers to it is not reported as well.
        let receiver = field.map(receiver).unwrap_or_else(|| Receiver::Webhook(Secret::default()));
        receivers.insert(name.to_owned(), receiver);
    }
    receivers
}

fn receiver(map: &mut Map<'_>) -> Option<Receiver> {
    let fields = RECEIVERS.map(|(key, make)| (map.field(key), make));
    let written: Vec<_> = fields.iter().filter(|(field, _)| field.is_written()).collect();
    let [(field, make)] = written.as_slice() else {
        map.holder().error_with_hint("needs one address", "write one of `slack`, `webhook`, `alertmanager`");
        return None;
    };
    field.parsed_unseen(http_url).map(|url| make(Secret::new(url)))
}
