//! `sinks`: where events go.

mod headers;
pub(crate) mod postgres_url;

use std::collections::BTreeMap;
use std::ops::RangeInclusive;
use std::time::Duration;

use super::edges::http_url;
use super::names;
use crate::config::not_built::Feature;
use crate::config::reader::{Field, Map, quoted_list};
use crate::config::units::{Rate, parse_rate};
use crate::config::{
    Batch, BatchBody, Ddl, EventDef, Expr, Guarantee, Http, Pacing, Postgres, PresetSink, Purpose, Secret, Sink,
    SinkKind,
};

const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// PostgreSQL cuts longer names off without an error (NAMEDATALEN - 1), and two tables could become one.
const MAX_IDENTIFIER: usize = 63;
/// One commit for so many rows: beyond it the time per row hardly falls, and a failed batch costs more.
const MAX_BATCH: usize = 500;
/// Events of one call: most vendors take so many, and a wrapper of its own is small beside them.
const BATCH_EVENTS: usize = 100;
/// The largest that any vendor we know of takes is 2,500; what one refuses is halved a dozen times at most.
const BATCH_EVENTS_WITHIN: RangeInclusive<usize> = 1..=5_000;
/// What Segment and Customer.io take, the least of those we know of.
const BATCH_BYTES: usize = 500 << 10;
/// An expression gives 4 MiB at most.
const BATCH_BYTES_WITHIN: RangeInclusive<usize> = 1 << 10..=4 << 20;
/// A person does not see it, and a sink that takes 2,000 events a second fills a batch in it.
const LINGER: Duration = Duration::from_millis(50);
/// Longer, and an event would be better sent alone.
const LINGERS: RangeInclusive<Duration> = Duration::ZERO..=Duration::from_secs(60);
/// Calls at once: 32 calls of 100 ms each are 320 a second.
const CONCURRENCY: usize = 32;
/// Each call holds a connection and a body.
const CONCURRENCIES: RangeInclusive<usize> = 1..=1024;
/// Vendors answer within a second; ten are for their bad days.
const TIMEOUT: Duration = Duration::from_secs(10);
const TIMEOUTS: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(5 * 60);
/// A receipt must outlive what it remembers.
const WINDOWS: RangeInclusive<Duration> = Duration::from_secs(60)..=Duration::from_secs(30 * 24 * 60 * 60);

const GUARANTEES: &[(&str, Guarantee)] = &[
    ("exactly_once", Guarantee::ExactlyOnce),
    ("effectively_once", Guarantee::EffectivelyOnce),
    ("at_least_once", Guarantee::AtLeastOnce),
    ("at_most_once", Guarantee::AtMostOnce),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Postgres,
    Kafka,
    Http,
    Preset,
}

impl Kind {
    const TYPES: &[(&str, Self)] = &[("postgres", Self::Postgres), ("kafka", Self::Kafka), ("http", Self::Http)];

    /// What a sink of this kind can give, the default first. A preset's are in its catalogue entry.
    fn guarantees(self) -> &'static [Guarantee] {
        match self {
            Self::Postgres | Self::Kafka => &[Guarantee::ExactlyOnce],
            Self::Http => &[Guarantee::EffectivelyOnce, Guarantee::AtLeastOnce, Guarantee::AtMostOnce],
            Self::Preset => &[],
        }
    }
}

pub(super) fn sinks(field: &Field<'_>, events: &BTreeMap<String, EventDef>) -> BTreeMap<String, Sink> {
    let known: Vec<&str> = events.keys().map(String::as_str).collect();
    let mut sinks = BTreeMap::new();
    for (name, field) in field.named() {
        names::check(&field, name);
        if let Some(sink) = field.map(|map| sink(name, map, events, &known)) {
            sinks.insert(name.to_owned(), sink);
        }
    }
    sinks
}

/// `None` where its kind is not known, and so neither are its keys.
fn sink(name: &str, map: &mut Map<'_>, events: &BTreeMap<String, EventDef>, known: &[&str]) -> Option<Sink> {
    let kind = kind(map);
    let taken = names::references(&map.required("events"), "event", "events", known);
    let filter = map.field("where").expr();
    let mapping = map.field("map").expr();
    if kind == Some(Kind::Postgres) && mapping.is_some() {
        map.field("map").error_with_hint(
            "is not for a Postgres sink: its rows are the schema's columns",
            "shape the event at its source, or select in a view",
        );
    }
    let purpose = purpose(map, kind);
    let guarantee = guarantee(map, kind);
    let kind = match kind {
        Some(Kind::Postgres) => SinkKind::Postgres(postgres(map, &taken)),
        Some(Kind::Kafka) => SinkKind::Kafka { topic: kafka_topic(map, events, &taken) },
        Some(Kind::Http) => SinkKind::Http(http(map, guarantee)),
        Some(Kind::Preset) => SinkKind::Preset(preset(map)),
        None => {
            map.accept_anything();
            return None;
        }
    };
    Some(Sink {
        name: name.to_owned(),
        events: taken,
        filter,
        map: mapping,
        purpose,
        guarantee,
        kind,
        at: map.holder().location(),
    })
}

fn kind(map: &mut Map<'_>) -> Option<Kind> {
    let kind = map.field("type");
    let preset = map.field("preset");
    match (kind.is_written(), preset.is_written()) {
        (true, true) => preset.error_with_hint("stands beside `type`", "a sink has one of both"),
        (false, false) => map.holder().error_with_hint(
            "nothing says what kind of sink this is",
            "write `type: postgres`, `type: kafka`, `type: http`, or a `preset`",
        ),
        (true, false) => {
            return kind.choice(Kind::TYPES);
        }
        (false, true) => {
            preset.needs(Feature::SinkPreset, &format!("the preset {}", preset.quoted()));
            return Some(Kind::Preset);
        }
    }
    None
}

/// The consent that the sink needs. To call somebody's address with a person's data is a marketing action until the
/// file says otherwise; a copy in one's own database or topic is not; a preset knows its own.
fn purpose(map: &mut Map<'_>, kind: Option<Kind>) -> Purpose {
    let field = map.field("purpose");
    if !field.is_written() {
        if kind == Some(Kind::Http) {
            field.error_with_hint(
                "is missing: no event may be sent before it is clear which consent that takes",
                "write `purpose: <consent>`, for example `email_marketing`, or `purpose: none`",
            );
        }
        return Purpose::Unset;
    }
    let name = |text: &str| {
        if names::is_name(text, "._-", names::MAX_NAME) {
            Ok(text.to_owned())
        } else {
            Err("cannot be the name of a consent".to_owned())
        }
    };
    match field.parsed(name) {
        Some(name) if name == "none" => {
            field.warning(
                "events go to this sink whatever a person has consented to",
                "write the consent that it needs, if there is one",
            );
            Purpose::None
        }
        Some(name) => Purpose::Named(name),
        None => Purpose::Unset,
    }
}

fn guarantee(map: &mut Map<'_>, kind: Option<Kind>) -> Option<Guarantee> {
    let field = map.field("guarantee");
    let given = kind.map(Kind::guarantees).unwrap_or_default();
    let Some(asked) = field.choice(GUARANTEES) else { return given.first().copied() };
    if !given.is_empty() && !given.contains(&asked) {
        let names: Vec<&str> = given.iter().map(|guarantee| guarantee.name()).collect();
        field.error_with_hint(
            format!("this kind of sink cannot give `{}`", asked.name()),
            format!("it can give {}", quoted_list(&names)),
        );
    }
    Some(asked)
}

// === Postgres ===

fn postgres(map: &mut Map<'_>, events: &[String]) -> Postgres {
    Postgres {
        url: map.required("url").parsed_unseen(postgres_url).unwrap_or_default(),
        table: map.field("table").parsed_or("{event_type}".to_owned(), |text| table(text, events)),
        schema: map.field("schema").parsed_or("public".to_owned(), identifier),
        ddl: map
            .field("ddl")
            .choice_or(Ddl::Evolve, &[("create", Ddl::Create), ("evolve", Ddl::Evolve), ("manual", Ddl::Manual)]),
        max_batch: map.field("max_batch").number_or(MAX_BATCH, &(1..=10_000)),
    }
}

/// The reason is left out: it may repeat a part of the text, and the password is one.
fn postgres_url(text: &str) -> Result<Secret, String> {
    match postgres_url::read(text) {
        Ok((config, _)) if !config.get_hosts().is_empty() => Ok(Secret::new(text)),
        Ok(_) => Err("names no host".to_owned()),
        Err(error @ postgres_url::Error::SslMode) => Err(format!("cannot be used: {error}")),
        Err(_) => Err("is no address of a database such as `postgres://user:password@host:5432/database`".to_owned()),
    }
}

fn table(text: &str, events: &[String]) -> Result<String, String> {
    let literal = text.replace("{event_type}", "");
    if literal.contains(['{', '}']) {
        return Err("holds another `{...}` than `{event_type}`".to_owned());
    }
    let is_long = |event: &&String| text.replace("{event_type}", event).len() > MAX_IDENTIFIER;
    match events.iter().find(is_long) {
        Some(event) => {
            Err(format!("is too long with `{event}`: PostgreSQL cuts names off after {MAX_IDENTIFIER} bytes"))
        }
        None => identifier(text).map(|_| text.to_owned()),
    }
}

fn identifier(text: &str) -> Result<String, String> {
    if text.contains('\0') {
        return Err("holds a zero byte".to_owned());
    }
    // `{event_type}` is measured when it is filled in.
    if text.replace("{event_type}", "").len() > MAX_IDENTIFIER {
        return Err(format!("is longer than {MAX_IDENTIFIER} bytes, where PostgreSQL cuts names off"));
    }
    Ok(text.to_owned())
}

// === Kafka ===

fn kafka_topic(map: &mut Map<'_>, events: &BTreeMap<String, EventDef>, taken: &[String]) -> String {
    let field = map.required("topic");
    let filled =
        |text: &str| -> Vec<String> { taken.iter().map(|event| text.replace("{event_type}", event)).collect() };
    let readable = |text: &str| match filled(text).iter().find_map(|name| names::topic(name).err()) {
        Some(error) if text.replace("{event_type}", "").contains(['{', '}']) => {
            Err(format!("holds another `{{...}}` than `{{event_type}}`, and {error}"))
        }
        Some(error) => Err(error),
        None => Ok(text.to_owned()),
    };
    let topic = field.parsed(readable).unwrap_or_default();
    let filled = filled(&topic);
    if let Some((event, _)) = events.iter().find(|(_, event)| filled.contains(&event.topic)) {
        field.error(format!("{} is the topic of the event `{event}`: the sink would feed itself", field.quoted()));
    }
    if taken.len() > 1 && !topic.is_empty() && !topic.contains("{event_type}") {
        field.warning(
            "takes several event types, whose schemas a registry refuses under one subject unless they are compatible",
            "write `{event_type}` into the topic, or set the subject's compatibility to NONE",
        );
    }
    topic
}

// === HTTP, and what a catalogue entry calls over it ===

fn http(map: &mut Map<'_>, guarantee: Option<Guarantee>) -> Http {
    Http {
        batch: map.field("batch").optional_map(|batch| self::batch(batch, guarantee)),
        url: map.required("url").parsed_unseen(http_url).unwrap_or_default(),
        headers: headers::headers(&map.field("headers")),
        standard_webhooks: map.field("sign").map(|sign| sign.field("standard_webhooks").secret()),
        concurrency: map.field("concurrency").number_or(CONCURRENCY, &CONCURRENCIES),
        timeout: map.field("timeout").duration_or(TIMEOUT, &TIMEOUTS),
        pacing: pacing(map),
    }
}

fn batch(map: &mut Map<'_>, guarantee: Option<Guarantee>) -> Batch {
    Batch {
        max_events: map.field("max_events").number_or(BATCH_EVENTS, &BATCH_EVENTS_WITHIN),
        max_bytes: map.field("max_bytes").size_or(BATCH_BYTES, &BATCH_BYTES_WITHIN),
        linger: map.field("linger").duration_or(LINGER, &LINGERS),
        body: batch_body(&map.field("body"), guarantee),
        failed: map.field("failed").expr(),
    }
}

fn batch_body(field: &Field<'_>, guarantee: Option<Guarantee>) -> BatchBody {
    match field.written_text().map(str::trim) {
        Some("array") => return BatchBody::Array,
        Some("lines") => return BatchBody::Lines,
        _ => {}
    }
    let Some(Expr { text, at }) = field.expr() else { return BatchBody::Array };
    if guarantee == Some(Guarantee::EffectivelyOnce) && !may_keep_ids(&text) {
        field.warning(
            "leaves out each event's `.id`, by which the receiver would know it again",
            "put it where the receiver looks for it, for example `map(.data + {messageId: .id})`, or write \
             `guarantee: at_least_once`",
        );
    }
    BatchBody::Expr(Expr { text, at })
}

/// Whether an expression on the elements names their `id`, or passes them on whole.
fn may_keep_ids(text: &str) -> bool {
    let is_part = |character: char| character.is_alphanumeric() || character == '_';
    let mut after_dots = text.split('.').skip(1).map(|rest| rest.chars().next());
    text.split(|character| !is_part(character)).any(|word| word == "id")
        || after_dots.any(|next| next.is_none_or(|next| !is_part(next) && next != '"'))
}

fn preset(map: &mut Map<'_>) -> PresetSink {
    PresetSink {
        preset: map.field("preset").text().unwrap_or_default(),
        api_key: map.field("api_key").secret(),
        base_url: map.field("base_url").parsed_unseen(http_url),
        concurrency: map.field("concurrency").number_or(CONCURRENCY, &CONCURRENCIES),
        timeout: map.field("timeout").duration_or(TIMEOUT, &TIMEOUTS),
        pacing: pacing(map),
    }
}

fn pacing(map: &mut Map<'_>) -> Pacing {
    let default = Pacing::default();
    let rate_limit: Option<Rate> = map.field("rate_limit").parsed(parse_rate);
    let retry = map.field("retry");
    let (in_place, max_age) = retry.map(|retry| {
        let in_place = retry.field("in_place").duration_or(default.in_place, &(Duration::ZERO..=DAY));
        let max_age = retry.field("max_age").duration_or(default.max_age, &(Duration::from_secs(1)..=DAY * 30));
        if in_place > max_age {
            let shown = |duration: Duration| format!("{}s", duration.as_secs_f64());
            retry.field("in_place").error_with_hint(
                format!("is {}, longer than `max_age`, which is {}", shown(in_place), shown(max_age)),
                "what fails for `in_place` steps aside, and is given up after `max_age`",
            );
        }
        (in_place, max_age)
    });
    let dedupe_window =
        map.field("dedupe").map(|dedupe| dedupe.field("window").duration_or(default.dedupe_window, &WINDOWS));
    Pacing { rate_limit, in_place, max_age, dedupe_window }
}
