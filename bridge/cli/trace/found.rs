//! Where an event stands in its topics, and whether its request is in quarantine.

use super::{Args, is_meant, since_ms};
use crate::app::start::quarantine_topic;
use crate::cli::desk::{Desk, Ended, Progress};
use crate::event::header;
use crate::kafka::read::Event as Read;
use crate::kafka::{self, Glimpse, Reader, Then};

/// Records of one id that are kept: an event has one, its results have some.
const MAX_FOUND: usize = 1_000;

/// An event in its topic.
#[derive(Debug, Clone)]
pub(super) struct Event {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) written_ms: Option<i64>,
    pub(super) id: String,
    pub(super) kind: String,
    pub(super) source: String,
    pub(super) key: String,
    pub(super) received_at: Option<String>,
    pub(super) replayed_from: Option<String>,
}

/// A record in quarantine that is about it.
#[derive(Debug, Clone)]
pub(super) struct Kept {
    pub(super) topic: String,
    pub(super) partition: i32,
    pub(super) offset: i64,
    pub(super) reason: String,
    pub(super) received_at: Option<String>,
    /// It says that the event was published since.
    pub(super) is_mark: bool,
}

enum Found {
    Event(Event),
    Kept(Kept),
}

/// Reads the event topics and quarantine, each record looked at where it lies.
pub(super) async fn search(desk: &Desk, args: &Args) -> Result<(Vec<Event>, Vec<Kept>), Ended> {
    let config = &desk.compiled.config;
    let events = config.events.values().map(|event| format!("{}{}", desk.prefix(), event.topic));
    let is_meant = |name: &&String| args.source.as_ref().is_none_or(|source| source == *name);
    let quarantine = config.sources.keys().filter(is_meant).map(|source| quarantine_topic(config, source));
    let mut topics: Vec<String> = events.chain(quarantine).collect();
    topics.sort_unstable();
    topics.dedup();
    let extents = desk.client.extents(&desk.reader_group(), topics, since_ms(args)).await?;
    let quarantine = quarantine_topic(config, "");
    let (wanted, source) = (args.event_id.clone(), args.source.clone());
    let mut seen = 0_u64;
    let mut progress = Progress::of("events");
    let look = move |record: &Glimpse<'_>| {
        seen += 1;
        progress.tell(seen);
        if record.topic().starts_with(&quarantine) {
            return kept(record, &wanted).map(Found::Kept);
        }
        event(record, &wanted, source.as_deref()).map(Found::Event)
    };
    let mut reader = Reader::start(&desk.client, &desk.reader_group(), extents, Then::Stop, look)?;
    let (mut events, mut kept) = (Vec::new(), Vec::new());
    while let Some(event) = reader.next().await {
        match event {
            Read::Batch(batch) => {
                for found in batch {
                    match found {
                        Found::Event(event) if events.len() < MAX_FOUND => events.push(event),
                        Found::Kept(one) if kept.len() < MAX_FOUND => kept.push(one),
                        Found::Event(_) | Found::Kept(_) => {}
                    }
                }
            }
            Read::Trouble(code) => tracing::warn!(%code, "reading events is in trouble"),
            Read::CaughtUp => return Ok((events, kept)),
            Read::Ended(Some(error)) => return Err(error.into()),
            Read::Ended(None) => break,
        }
    }
    Err(kafka::Error::Stopped { role: "reader" }.into())
}

fn event(record: &Glimpse<'_>, wanted: &str, source: Option<&str>) -> Option<Event> {
    let [id, event_type, of, received_at, replayed_from] =
        record.headers([header::CE_ID, header::CE_TYPE, header::CE_SOURCE, header::RECEIVED_AT, header::REPLAYED_FROM]);
    let (id, event_type, of) = (id?, event_type?, of?);
    if !is_meant(id, wanted) || source.is_some_and(|source| source != of) {
        return None;
    }
    Some(Event {
        topic: record.topic().to_owned(),
        partition: record.partition(),
        offset: record.offset(),
        written_ms: record.timestamp_ms(),
        id: id.to_owned(),
        kind: event_type.to_owned(),
        source: of.to_owned(),
        key: record.key().map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default(),
        received_at: received_at.map(str::to_owned),
        replayed_from: replayed_from.map(str::to_owned),
    })
}

/// A request with one event has its id for a key; of a request with several, only a mark names them.
fn kept(record: &Glimpse<'_>, wanted: &str) -> Option<Kept> {
    let [mark, reason, received_at] = record.headers([header::MARK, header::REASON, header::RECEIVED_AT]);
    // A sender may have written a header of that name; a mark has no reason.
    let is_mark = mark.is_some() && reason.is_none();
    let names = |value: &[u8]| {
        let quoted = serde_json::Value::from(wanted).to_string();
        String::from_utf8_lossy(value).contains(&quoted)
    };
    let is_about =
        record.key().is_some_and(|key| key == wanted.as_bytes()) || (is_mark && record.value().is_some_and(names));
    is_about.then(|| Kept {
        topic: record.topic().to_owned(),
        partition: record.partition(),
        offset: record.offset(),
        reason: reason.unwrap_or_default().to_owned(),
        received_at: received_at.map(str::to_owned),
        is_mark,
    })
}
