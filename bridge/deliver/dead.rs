//! Dead letters: the record as it came, and beside its own headers those by which Kafka Connect says what went wrong
//! (KIP-298), so that tools which read Connect's dead letter topics read these.
//!
//! Pure. A header of ours that the record has already, being a dead letter's dead letter, is replaced.

use uuid::Uuid;

use super::settle::DeadReason;
use crate::event::header;
use crate::kafka::Record;

const TOPIC: &str = "__connect.errors.topic";
const PARTITION: &str = "__connect.errors.partition";
const OFFSET: &str = "__connect.errors.offset";
const CONNECTOR: &str = "__connect.errors.connector.name";
const TASK: &str = "__connect.errors.task.id";
const STAGE: &str = "__connect.errors.stage";
const CLASS: &str = "__connect.errors.exception.class.name";
const MESSAGE: &str = "__connect.errors.exception.message";
/// By which readers know a dead letter that was written twice.
const DELIVERY_ID: &str = header::DELIVERY_ID;
/// Calls that were made for it.
const ATTEMPTS: &str = "hookbridge-attempts";

/// The size of a body that was too large for the topic of dead letters: it still stands where the record was read.
const LEFT_OUT: &str = "hookbridge-body-left-out";

const OURS: [&str; 11] =
    [TOPIC, PARTITION, OFFSET, CONNECTOR, TASK, STAGE, CLASS, MESSAGE, DELIVERY_ID, ATTEMPTS, LEFT_OUT];

/// [`DeadReason::name`] stands after it in the class of the exception, since Connect has no header for a reason.
const CLASS_PREFIX: &str = "hookbridge.";

/// A message may quote a sink's answer; the topics' size limits allow headers of 256 KiB, and a person reads a line.
const MAX_MESSAGE: usize = 4 * 1024;

/// The topic of a sink's dead letters. `prefix`: of all topics.
#[must_use]
pub fn topic(prefix: &str, sink: &str) -> String {
    format!("{prefix}dead.{sink}")
}

/// What is known of a dead letter besides the record.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Grave {
    pub sink: String,
    pub delivery_id: Uuid,
    /// Where the record was read.
    pub origin_topic: String,
    pub origin_partition: i32,
    pub origin_offset: i64,
    /// A bounded name.
    pub reason: String,
    /// What the sink said, for people.
    pub message: String,
    pub attempts: u32,
    /// The size of the event's body, in bytes, where it was left out.
    pub left_out: Option<usize>,
}

impl Grave {
    /// `instance` tells apart the processes that serve one sink, as Connect's task ids do.
    #[must_use]
    pub fn headers(&self, record: &Record, instance: &str) -> Vec<(String, Vec<u8>)> {
        let mut message = self.message.clone();
        message.truncate(message.floor_char_boundary(MAX_MESSAGE));
        let told: [(&str, String); 10] = [
            (TOPIC, self.origin_topic.clone()),
            (PARTITION, self.origin_partition.to_string()),
            (OFFSET, self.origin_offset.to_string()),
            (CONNECTOR, self.sink.clone()),
            (TASK, instance.to_owned()),
            (STAGE, "TASK_PUT".to_owned()),
            (CLASS, format!("{CLASS_PREFIX}{}", self.reason)),
            (MESSAGE, message),
            (DELIVERY_ID, self.delivery_id.to_string()),
            (ATTEMPTS, self.attempts.to_string()),
        ];
        let own = original(record).map(|(name, value)| (name.to_owned(), value.to_vec()));
        let left_out = self.left_out.map(|bytes| (LEFT_OUT, bytes.to_string()));
        let told = told.into_iter().chain(left_out);
        own.chain(told.map(|(name, value)| (name.to_owned(), value.into_bytes()))).collect()
    }

    /// Reads a dead letter's headers. `None`: it is none of ours.
    #[must_use]
    pub fn read(record: &Record) -> Option<Self> {
        let text = |name| record.header(name);
        Some(Self {
            sink: text(CONNECTOR)?.to_owned(),
            delivery_id: text(DELIVERY_ID)?.parse().ok()?,
            origin_topic: text(TOPIC)?.to_owned(),
            origin_partition: text(PARTITION)?.parse().ok()?,
            origin_offset: text(OFFSET)?.parse().ok()?,
            reason: text(CLASS)?.strip_prefix(CLASS_PREFIX)?.to_owned(),
            message: text(MESSAGE).unwrap_or_default().to_owned(),
            attempts: text(ATTEMPTS).and_then(|attempts| attempts.parse().ok()).unwrap_or_default(),
            left_out: text(LEFT_OUT).and_then(|bytes| bytes.parse().ok()),
        })
    }
}

/// The headers that a record had before it died.
pub fn original(record: &Record) -> impl Iterator<Item = (&str, &[u8])> {
    record.headers.iter().filter(|(name, _)| !OURS.contains(name))
}

impl DeadReason {
    /// The bounded name.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Rejected => "rejected",
            Self::TooOld => "too_old",
            Self::NoAnswer => "no_answer",
            Self::PastWindow => "past_window",
            Self::Expired => "expired",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::{Headers, TopicPartition};

    fn grave() -> Grave {
        Grave {
            sink: "crm".to_owned(),
            delivery_id: Uuid::from_u128(7),
            origin_topic: "events.purchase_completed".to_owned(),
            origin_partition: 3,
            origin_offset: 41,
            reason: DeadReason::Rejected.name().to_owned(),
            message: "the receiver answered 422".to_owned(),
            attempts: 2,
            left_out: None,
        }
    }

    fn record(headers: Vec<(String, Vec<u8>)>) -> Record {
        let at = TopicPartition { topic: "dead.crm".into(), partition: 0 };
        Record { at, offset: 0, timestamp_ms: None, key: None, value: None, headers: headers.into() }
    }

    #[test]
    fn a_dead_letter_is_read_as_it_was_written_and_its_own_headers_are_told_apart() {
        let own = vec![("ce_id".to_owned(), b"evt_1".to_vec()), ("x".to_owned(), vec![0xff])];
        let dead = record(grave().headers(&record(own.clone()), "0"));
        assert_eq!(Grave::read(&dead), Some(grave()));
        let left: Vec<_> = original(&dead).map(|(name, value)| (name.to_owned(), value.to_vec())).collect();
        assert_eq!(left, own);
        assert_eq!(Headers::from(grave().headers(&dead, "0")), dead.headers, "it died twice, and says so once");
        assert_eq!(Grave::read(&record(own)), None);
    }

    #[test]
    fn a_long_message_is_cut_between_characters() {
        let long = Grave { message: "ü".repeat(MAX_MESSAGE), ..grave() };
        let read = Grave::read(&record(long.headers(&record(vec![]), "0"))).unwrap();
        assert_eq!(read.message.len(), MAX_MESSAGE);
        assert!(read.message.chars().all(|letter| letter == 'ü'));
    }
}
