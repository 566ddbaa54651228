//! What is sent: a sample of the catalogue, a file, or a body made up from a schema, with a person's changes.

use std::path::Path;

use http::header::CONTENT_TYPE;
use http::{HeaderMap, HeaderName, HeaderValue};
use serde_json::Value;

use super::{Args, Refusal};
use crate::app::compile::{Compiled, compile};
use crate::catalog::{self, Locator, Occasion, Sample};
use crate::cli::read_input;
use crate::clock;
use crate::config::{Config, EventRules, Source};
use crate::expr;
use crate::ingest::map::Mapping;
use crate::schema::example::{self, Filling};
use crate::sender::Unsigned;

/// `--data PATH=VALUE`.
#[derive(Debug, Clone)]
pub(super) struct Change {
    path: String,
    value: Value,
}

/// `--header NAME:VALUE`.
#[derive(Debug, Clone)]
pub(super) struct Header {
    name: HeaderName,
    value: HeaderValue,
}

pub(super) fn change(text: &str) -> Result<Change, String> {
    let (path, value) = text.split_once('=').ok_or("a place in the body, `=`, and a value: `data.total=12`")?;
    let path = if path.starts_with('.') { path.to_owned() } else { format!(".{path}") };
    let value = serde_json::from_str(value).unwrap_or_else(|_| Value::from(value));
    if expr::assign(b"{}", &path, "=", &value).is_none() {
        return Err(format!("`{path}` is no plain path such as `data.object.amount`"));
    }
    Ok(Change { path, value })
}

pub(super) fn header(text: &str) -> Result<Header, String> {
    let (name, value) = text.split_once(':').ok_or("a name, `:`, and a value: `x-shop: acme`")?;
    let name = HeaderName::try_from(name.trim()).map_err(|error| error.to_string())?;
    let value = HeaderValue::try_from(value.trim()).map_err(|error| error.to_string())?;
    Ok(Header { name, value })
}

/// One request, not yet signed.
pub(super) struct Message {
    id: String,
    headers: HeaderMap,
    body: Vec<u8>,
}

impl Message {
    pub(super) fn unsigned<'a>(&'a self, now_ms: i64, url: &'a str) -> Unsigned<'a> {
        Unsigned { id: &self.id, now_ms, method: "POST", url, headers: &self.headers, body: &self.body }
    }
}

/// Makes the requests of one command, each with an id of its own.
pub(super) struct Maker {
    content: Content,
    id: Option<String>,
    headers: Vec<Header>,
    changes: Vec<Change>,
    /// Where a body of our own making gets the event's id.
    id_path: Option<String>,
}

enum Content {
    File(Vec<u8>),
    Sample(Box<Sample>),
    /// Made up: an event of the configuration, where its name and its data go.
    Event {
        name: String,
        schema: String,
        type_path: String,
        payload_path: String,
    },
    /// Nothing but what `--data` says.
    Empty,
}

impl Maker {
    pub(super) fn new(config: &Config, file: &Path, source: &Source, args: &Args) -> Result<Self, Refusal> {
        let content = Self::content(config, file, source, args)?;
        let made_up = matches!(content, Content::Empty);
        let plain = |text: &String| match Locator::parse(text) {
            Ok(Locator::Jq(path)) if made_up => expr::assign(b"{}", &path, "=", &Value::Null).map(|_| path),
            _ => None,
        };
        Ok(Self {
            content,
            id: args.id.clone(),
            headers: args.headers.clone(),
            changes: args.data.clone(),
            id_path: source.scheme.event_id.iter().find_map(plain),
        })
    }

    fn content(config: &Config, file: &Path, source: &Source, args: &Args) -> Result<Content, Refusal> {
        if let Some(path) = &args.file {
            return read_input(Some(path)).map(Content::File).map_err(|error| {
                Refusal::usage(format!("`{}` cannot be read: {error}", path.display()), "`-` is standard input")
            });
        }
        let samples = source.preset.as_deref().and_then(|preset| catalog::samples(preset).ok()).unwrap_or_default();
        // Without its schemas a source can still be sent to.
        let compiled = compile(config.clone(), file).ok();
        if let Some(event) = &args.event {
            let sample = samples.iter().find(|sample| sample.event == *event);
            let sample = sample.map(|sample| Content::Sample(Box::new(sample.clone())));
            let made_up = || compiled.as_ref().and_then(|compiled| made_up(compiled, source, event));
            return sample.or_else(made_up).ok_or_else(|| no_such_event(config, source, &samples, event));
        }
        let compiled_source = compiled
            .as_ref()
            .and_then(|compiled| compiled.sources.iter().find(|compiled| compiled.config.name == source.name));
        let is_taken = |sample: &&Sample| {
            let body = sample.body(&Occasion { id: "test", serial: 1, now_ms: clock::now_ms() });
            let headers = headers(&sample.headers(&Occasion { id: "test", serial: 1, now_ms: 0 }));
            let mapper = compiled_source.map(|source| &source.mapper);
            mapper.is_some_and(|mapper| match mapper.map(&headers, &body) {
                Mapping::Events(events) => events.iter().all(|event| config.events.contains_key(&*event.event_type)),
                _ => false,
            })
        };
        if let Some(taken) = samples.iter().find(is_taken) {
            return Ok(Content::Sample(Box::new(taken.clone())));
        }
        let first_event = config.events.keys().next();
        let made_up = first_event.zip(compiled.as_ref()).and_then(|(event, compiled)| made_up(compiled, source, event));
        match (made_up, samples.into_iter().next()) {
            (Some(made_up), _) => Ok(made_up),
            (None, Some(sample)) => Ok(Content::Sample(Box::new(sample))),
            (None, None) if !args.data.is_empty() => Ok(Content::Empty),
            (None, None) => Err(Refusal::usage(
                format!("source `{}` describes a scheme of your own, of which there is no sample", source.name),
                "say what is in the body with `--data name=value`, or give one with `--file FILE`",
            )),
        }
    }

    pub(super) fn make(&self, number: u32, now_ms: i64) -> Result<Message, Refusal> {
        let id = self.id.clone().unwrap_or_else(|| format!("test-{now_ms}-{number}"));
        // A thousand a millisecond are more than one process sends.
        let serial = now_ms.unsigned_abs().saturating_mul(1_000).saturating_add(u64::from(number % 1_000));
        let occasion = Occasion { id: &id, serial, now_ms };
        let (mut all, mut body) = match &self.content {
            Content::File(body) => (HeaderMap::new(), body.clone()),
            Content::Sample(sample) => (headers(&sample.headers(&occasion)), sample.body(&occasion)),
            Content::Event { name, schema, type_path, payload_path } => {
                let event = example::example(schema, &Filling { text: &id, now_ms });
                let event = event.ok_or_else(|| {
                    Refusal::usage(
                        format!("no event can be made up from the schema of `{name}`"),
                        "give a body with `--file FILE`",
                    )
                })?;
                let body = expr::assign(b"{}", payload_path, "=", &event);
                let body = body.and_then(|body| expr::assign(&body, type_path, "=", &Value::from(name.as_str())));
                (HeaderMap::new(), body.unwrap_or_default())
            }
            Content::Empty => (HeaderMap::new(), b"{}".to_vec()),
        };
        if let Some(path) = &self.id_path {
            body = expr::assign(&body, path, "=", &Value::from(id.as_str())).unwrap_or(body);
        }
        for change in &self.changes {
            body = expr::assign(&body, &change.path, "=", &change.value).ok_or_else(|| {
                Refusal::usage(
                    format!("the body has no place `{}`", change.path),
                    "the parts before the last have to be objects; `[0]` is a place in a list",
                )
            })?;
        }
        all.entry(CONTENT_TYPE).or_insert(HeaderValue::from_static("application/json"));
        for header in &self.headers {
            all.insert(header.name.clone(), header.value.clone());
        }
        Ok(Message { id, headers: all, body })
    }
}

/// An event of the configuration, for a source whose body says which one it is.
fn made_up(compiled: &Compiled, source: &Source, event: &str) -> Option<Content> {
    let EventRules::Direct { event_type, payload } = &source.events else { return None };
    let schema = compiled.events.get(event)?.schema.inlined.clone();
    let payload_path = payload.as_ref().map_or_else(|| ".".to_owned(), |payload| payload.text.trim().to_owned());
    let type_path = event_type.text.trim().to_owned();
    // Only where both are plain paths can a body be made the other way round.
    expr::assign(b"{}", &type_path, "=", &Value::Null)?;
    expr::assign(b"{}", &payload_path, "=", &Value::Object(serde_json::Map::default()))?;
    Some(Content::Event { name: event.to_owned(), schema, type_path, payload_path })
}

fn no_such_event(config: &Config, source: &Source, samples: &[Sample], event: &str) -> Refusal {
    let mut known: Vec<&str> = samples.iter().map(|sample| sample.event.as_str()).collect();
    if matches!(source.events, EventRules::Direct { .. }) {
        let of_config = config.events.keys().map(String::as_str);
        let more: Vec<&str> = of_config.filter(|event| !known.contains(event)).collect();
        known.extend(more);
    }
    let hint = if known.is_empty() {
        "say what is in the body with `--data name=value`, or give one with `--file FILE`".to_owned()
    } else {
        format!("there are {}; any other body can be given with `--file FILE`", known.join(", "))
    };
    Refusal::usage(format!("there is no sample `{event}` for source `{}`", source.name), hint)
}

fn headers(list: &[(&str, String)]) -> HeaderMap {
    let parsed = list
        .iter()
        .filter_map(|(name, value)| Some((HeaderName::try_from(*name).ok()?, HeaderValue::try_from(value).ok()?)));
    parsed.collect()
}
