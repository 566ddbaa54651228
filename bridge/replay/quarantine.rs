//! Requests in quarantine, and the marks beside them that say which of their events were published since. Pure.
//!
//! A mark is a record of the same topic and partition: its first header is `hookbridge-mark`, its value JSON. It is
//! written in the transaction that publishes the events, so that there is never one without the other.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use super::{Room, TooMany};
use crate::calendar::parse_rfc3339;
use crate::event::header;
use crate::kafka::Record;

/// Where a request is kept: its partition and offset.
pub type Place = (i32, i64);

/// What the bridge noted of a request when it set it aside.
const NOTED: [&str; 7] = [
    header::REASON,
    header::VIOLATIONS,
    header::SOURCE,
    header::RECEIVED_AT,
    header::EVENTS,
    header::FAILED,
    header::REPLAY_KEY,
];

/// More events than any request has, by far (`ingest/split` makes 10,000 of one at most): a number above it, which anybody
/// may write into a header, is none.
const MAX_EVENTS: usize = 100_000;

/// A request as it was kept.
#[derive(Debug, Clone)]
pub struct Request {
    pub place: Place,
    /// When it was set aside, milliseconds since the epoch.
    pub kept_at: Option<i64>,
    pub key: Option<Vec<u8>>,
    pub body: Vec<u8>,
    pub reason: String,
    /// As JSON.
    pub violations: Option<String>,
    pub source: String,
    /// When its first byte was read.
    pub received_ms: i64,
    /// How many events it had; `None`: it could not be told.
    pub events: Option<usize>,
    /// Which of them are kept for their own sake; `None`: all of it.
    pub failed: Option<BTreeSet<usize>>,
    /// The digest of what the source allows to come once only.
    pub replay_key: Option<String>,
    /// The request's own.
    pub headers: Vec<(String, Vec<u8>)>,
}

/// What was done with a request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Of the request.
    pub partition: i32,
    pub offset: i64,
    /// How many events it had then.
    pub events: usize,
    /// Those that are done with, from 0.
    pub indices: BTreeSet<usize>,
    pub result: Done,
    /// What was published of them.
    pub published: Vec<Published>,
    /// RFC 3339.
    pub replayed_at: String,
}

/// How the events of a mark are done with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Done {
    Published,
    /// By the rules of that day some of them were nobody's events, and the source ignores such.
    Ignored,
}

/// An event that was published.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Published {
    pub index: usize,
    pub event_type: String,
    pub event_id: String,
    pub topic: String,
}

impl Mark {
    /// The first header, by which a record is known for a mark, and the source.
    #[must_use]
    pub fn headers(source: &str) -> Vec<(String, Vec<u8>)> {
        let text = |name: &str, value: &str| (name.to_owned(), value.as_bytes().to_vec());
        vec![
            text(header::MARK, "replayed"),
            text(header::SOURCE, source),
            text(header::CONTENT_TYPE, "application/json"),
        ]
    }

    #[must_use]
    pub fn value(&self) -> Vec<u8> {
        // Text and numbers always serialize.
        serde_json::to_vec(self).unwrap_or_default()
    }
}

/// Whether a record of a quarantine topic is a mark. A sender's own header of that name comes behind ours.
#[must_use]
pub fn is_mark(record: &Record) -> bool {
    record.headers.iter().next().is_some_and(|(name, _)| name == header::MARK)
}

/// What a record of a quarantine topic is.
enum Kept {
    Request(Box<Request>),
    Mark(Mark),
    Foreign,
}

impl Kept {
    fn read(record: Record) -> Self {
        if is_mark(&record) {
            let mark = record.value.as_deref().and_then(|value| serde_json::from_slice::<Mark>(value).ok());
            return mark.filter(|mark| mark.events <= MAX_EVENTS).map_or(Self::Foreign, Self::Mark);
        }
        // The first of each name is ours: the request's own headers come behind, and may have any name.
        let mut noted: [Option<String>; NOTED.len()] = Default::default();
        let mut own = Vec::new();
        for (name, value) in record.headers.iter() {
            match NOTED.iter().position(|ours| *ours == name) {
                Some(at) if noted[at].is_none() => noted[at] = String::from_utf8(value.to_vec()).ok(),
                _ => own.push((name.to_owned(), value.to_vec())),
            }
        }
        let [reason, violations, source, received, events, failed, replay_key] = noted;
        let (Some(reason), Some(source), Some(body)) = (reason, source, record.value) else { return Self::Foreign };
        Self::Request(Box::new(Request {
            place: (record.at.partition, record.offset),
            kept_at: record.timestamp_ms,
            key: record.key,
            body,
            reason,
            violations: violations.filter(|text| serde_json::from_str::<&RawValue>(text).is_ok()),
            source,
            received_ms: received.as_deref().and_then(parse_rfc3339).or(record.timestamp_ms).unwrap_or_default(),
            events: events.and_then(|events| events.parse().ok()).filter(|events| *events <= MAX_EVENTS),
            failed: failed.and_then(|failed| serde_json::from_str(&failed).ok()),
            replay_key,
            headers: own,
        }))
    }
}

impl Request {
    fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.body.len() + headers + self.violations.as_ref().map_or(0, String::len)
    }
}

/// A source's quarantine.
#[derive(Debug, Default)]
pub struct Quarantine {
    requests: BTreeMap<Place, Request>,
    marks: BTreeMap<Place, Vec<Mark>>,
    /// Records that are neither requests nor marks.
    pub foreign: u64,
    room: Room,
}

impl Quarantine {
    /// Takes a record of the source's topic.
    ///
    /// # Errors
    /// [`TooMany`].
    pub fn take(&mut self, record: Record) -> Result<(), TooMany> {
        match Kept::read(record) {
            Kept::Request(request) => {
                self.room.take(request.bytes())?;
                self.requests.insert(request.place, *request);
            }
            Kept::Mark(mark) => {
                self.room.take(0)?;
                self.marks.entry((mark.partition, mark.offset)).or_default().push(mark);
            }
            Kept::Foreign => self.foreign += 1,
        }
        Ok(())
    }

    /// In the order in which the requests came: partitions have orders of their own, and keys are spread over them.
    pub fn in_order(&self) -> Vec<&Request> {
        let mut requests: Vec<&Request> = self.requests.values().collect();
        requests.sort_by_key(|request| (request.received_ms, request.place));
        requests
    }

    /// What was done with a request, oldest first.
    #[must_use]
    pub fn marks(&self, request: &Request) -> &[Mark] {
        self.marks.get(&request.place).map_or(&[], Vec::as_slice)
    }

    /// Where a request stands.
    #[must_use]
    pub fn standing(&self, request: &Request) -> Standing {
        let marks = self.marks(request);
        let Some(last) = marks.last() else { return Standing::Kept };
        let left = self.wanted(request, last.events, false).unwrap_or_default();
        if left.is_empty() { Standing::Replayed } else { Standing::Partly }
    }

    /// Which events of a request are to be published, where it now has `events`: those that it is kept for, less those
    /// that are done with. `None`: it was split into another number, so that indices mean nothing any more; with `all`
    /// they are all of it.
    #[must_use]
    pub fn wanted(&self, request: &Request, events: usize, all: bool) -> Option<BTreeSet<usize>> {
        let every = || (0..events).collect::<BTreeSet<usize>>();
        let marks = self.marks(request);
        let told = request.events.into_iter().chain(marks.iter().map(|mark| mark.events));
        if told.into_iter().any(|told| told != events) {
            return all.then(every);
        }
        let kept_for = request.failed.clone().unwrap_or_else(every);
        let done: BTreeSet<usize> = marks.iter().flat_map(|mark| mark.indices.iter().copied()).collect();
        Some(kept_for.difference(&done).copied().filter(|index| *index < events).collect())
    }
}

/// Where a quarantined request stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Standing {
    /// Nothing was done with it.
    Kept,
    /// Some of the events that it is kept for are published.
    Partly,
    Replayed,
}

impl Standing {
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Kept => "kept",
            Self::Partly => "partly",
            Self::Replayed => "replayed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::TopicPartition;

    fn record(offset: i64, headers: &[(&str, &str)], value: &[u8]) -> Record {
        Record {
            at: TopicPartition { topic: "quarantine.shop".into(), partition: 1 },
            offset,
            timestamp_ms: Some(1_000 + offset),
            key: Some(b"evt".to_vec()),
            value: Some(value.to_vec()),
            headers: headers.iter().copied().collect(),
        }
    }

    fn request(offset: i64, events: Option<(&str, &str)>) -> Record {
        let mut headers = vec![
            (header::REASON, "invalid"),
            (header::VIOLATIONS, "{\"total\":1}"),
            (header::SOURCE, "shop"),
            (header::RECEIVED_AT, "2026-01-01T00:00:00.000Z"),
        ];
        if let Some((events, failed)) = events {
            headers.extend([(header::EVENTS, events), (header::FAILED, failed)]);
        }
        // A sender's own, which must not be taken for ours.
        headers.extend([("webhook-id", "m_1"), (header::REASON, "forged"), (header::MARK, "replayed")]);
        record(offset, &headers, b"{}")
    }

    fn mark(offset: i64, events: usize, indices: &[usize]) -> Record {
        let mark = Mark {
            partition: 1,
            offset,
            events,
            indices: indices.iter().copied().collect(),
            result: Done::Published,
            published: Vec::new(),
            replayed_at: "2026-01-02T00:00:00.000Z".to_owned(),
        };
        Record { headers: Mark::headers("shop").into(), ..record(99, &[], &mark.value()) }
    }

    fn quarantine(records: impl IntoIterator<Item = Record>) -> Quarantine {
        let mut quarantine = Quarantine::default();
        records.into_iter().for_each(|record| quarantine.take(record).unwrap());
        quarantine
    }

    #[test]
    fn a_request_is_read_as_it_was_noted_whatever_its_sender_wrote() {
        let all = quarantine([request(4, Some(("3", "[0,2]"))), record(5, &[], b"x")]);
        assert_eq!(all.foreign, 1);
        let requests = all.in_order();
        let [request] = requests.as_slice() else { panic!("{requests:?}") };
        assert_eq!((request.reason.as_str(), request.place, request.events), ("invalid", (1, 4), Some(3)));
        assert_eq!(request.received_ms, 1_767_225_600_000);
        let own: Vec<&str> = request.headers.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(own, ["webhook-id", header::REASON, header::MARK]);
        assert_eq!(all.standing(request), Standing::Kept);
        assert_eq!(all.wanted(request, 3, false), Some([0, 2].into()));
    }

    #[test]
    fn marks_take_what_is_done_from_what_is_wanted() {
        let all = quarantine([mark(4, 3, &[2]), request(4, Some(("3", "[0,2]")))]);
        let one = all.in_order()[0];
        assert_eq!((all.standing(one), all.wanted(one, 3, false)), (Standing::Partly, Some([0].into())));
        let all = quarantine([request(4, Some(("3", "[0,2]"))), mark(4, 3, &[2]), mark(4, 3, &[0])]);
        let one = all.in_order()[0];
        assert_eq!((all.standing(one), all.wanted(one, 3, false)), (Standing::Replayed, Some([].into())));
    }

    #[test]
    fn a_request_that_splits_into_another_number_is_refused_unless_all_of_it_is_wanted() {
        let all = quarantine([request(4, Some(("3", "[0,2]")))]);
        let one = all.in_order()[0];
        assert_eq!(all.wanted(one, 2, false), None);
        assert_eq!(all.wanted(one, 2, true), Some([0, 1].into()));
        assert_eq!(all.wanted(one, 3, true), Some([0, 2].into()), "it is as it was");
    }

    #[test]
    fn of_a_request_that_could_not_be_read_all_is_wanted_and_the_marks_hold_its_number() {
        let all = quarantine([request(4, None)]);
        let one = all.in_order()[0];
        assert_eq!(all.wanted(one, 2, false), Some([0, 1].into()));
        let all = quarantine([request(4, None), mark(4, 2, &[1])]);
        let one = all.in_order()[0];
        assert_eq!(all.standing(one), Standing::Partly);
        assert_eq!((all.wanted(one, 2, false), all.wanted(one, 3, false)), (Some([0].into()), None));
    }
}
