//! The events that are delivered: purchases as the incoming half writes them, framed Avro with all its headers, each of
//! whose ids says which of its customer's events it is.

use std::path::{Path, PathBuf};
use std::time::Duration;

use hookbridge::calendar::Rfc3339;
use hookbridge::clock;
use hookbridge::config::UnknownFields;
use hookbridge::dev::samples::Samples;
use hookbridge::event::header;
use hookbridge::schema::plan::{Plan, Scratch};
use hookbridge::schema::reader::Reader;
use hookbridge::schema::{files, wire};
use rdkafka::message::{Header, OwnedHeaders, ToBytes};
use rdkafka::producer::{BaseRecord, DefaultProducerContext, Producer, ThreadedProducer};

use crate::shared::kafka::Kafka;
use crate::shared::pause;

pub(crate) const EVENT_TYPE: &str = "purchase_completed";
pub(crate) const CUSTOMERS: usize = 5_000;
/// Of so many events one is decoded again, to know how long the body is that it goes out as.
const SAMPLED: usize = 100;
/// What a shop that knows its customers sends besides: with it, a value is as long as events are said to be, 600 bytes.
const KNOWN: &str = r#""anonymous_id":"7f6d1b0e-6a52-4c0f-9a2d-3f3b0d5c8e41","phone_sha256":"3c9909afec25354d551dae21590bb26e38d53f2173b8d3dc3eee4c047e7ab1c1","checkout_id":"chk_01J9ZC4V7QK3M8N2","order_number":"2026-0090017","store":"online-eu","shipping_address":{"country":"DE","city":"Berlin","postal_code":"10115"},"#;

/// An event's place among those of its customer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) customer: usize,
    pub(crate) sequence: u32,
}

impl Place {
    /// The event id that says it.
    fn id(self) -> String {
        format!("bench.{}.{}", self.customer, self.sequence)
    }

    /// Reads what [`Place::id`] wrote.
    pub(crate) fn of(id: &[u8]) -> Option<Self> {
        let mut parts = std::str::from_utf8(id).ok()?.strip_prefix("bench.")?.split('.');
        let customer = parts.next()?.parse().ok().filter(|customer| *customer < CUSTOMERS)?;
        Some(Self { customer, sequence: parts.next()?.parse().ok()? })
    }
}

/// What was put into the topic.
#[derive(Debug, Default)]
pub(crate) struct Preloaded {
    /// Bytes of a record's value, on average.
    pub(crate) value_bytes: usize,
    /// Bytes of what a plain HTTP sink makes of it, on average over some of them.
    pub(crate) body_bytes: usize,
}

/// One record of the topic.
pub(crate) struct Event {
    pub(crate) id: String,
    key: String,
    value: Vec<u8>,
    at_ms: i64,
}

/// Purchases without end, as the incoming half writes them.
pub(crate) struct Purchases {
    schema: files::Parsed,
    /// That they are framed with.
    pub(crate) schema_id: u32,
    plan: Plan,
    samples: Samples,
    scratch: Scratch,
    /// By customer: the next event's.
    sequences: Vec<u32>,
}

impl Purchases {
    pub(crate) fn new() -> Self {
        let schema = schema();
        Self {
            plan: Plan::compile(&schema.inlined, UnknownFields::Reject).expect("the schema compiles"),
            schema,
            schema_id: 0,
            samples: Samples::new(42, "bench"),
            scratch: Scratch::default(),
            sequences: vec![0; CUSTOMERS],
        }
    }

    pub(crate) fn next(&mut self) -> Event {
        let at_ms = clock::now_ms();
        let sample = self.samples.purchase(at_ms, CUSTOMERS as u64);
        let body = String::from_utf8(sample.body).expect("JSON");
        let customer: usize = between(&body, r#""customer_id":"cus_"#).parse().expect("a customer's number");
        let id = Place { customer, sequence: self.sequences[customer] }.id();
        self.sequences[customer] += 1;
        let body = body.replace(&sample.id, &id);
        let (_, data) = body.split_once(r#""data":{"#).expect("the event in its envelope");
        let data = format!("{{{KNOWN}{}", data.strip_suffix('}').expect("the end of the envelope"));
        let mut value = Vec::with_capacity(1024);
        wire::frame(self.schema_id, &mut value);
        let encoded = self.plan.encode(data.as_bytes(), &mut self.scratch, &mut value);
        encoded.expect("a valid event");
        Event { id, key: format!("cus_{customer:05}"), value, at_ms }
    }

    /// Bytes of the JSON that an event goes out as, in the envelope of a plain HTTP sink.
    fn sent_bytes(&self, event: &Event) -> usize {
        const ENVELOPE: &str = r#"{"type":"purchase_completed","timestamp":"2026-03-14T09:26:53.589Z","data":}"#;
        let mut data = Vec::new();
        let reader = Reader::compile(&self.schema.schema).expect("a reader");
        reader.write(&event.value[wire::HEADER_LEN..], &mut data).expect("what was just written");
        data.len() + ENVELOPE.len()
    }
}

/// Fills the topic, and sees that it holds as many records as it was given.
pub(crate) fn preload(
    kafka: &Kafka,
    topic: &str,
    partitions: i32,
    purchases: &mut Purchases,
    count: usize,
) -> Preloaded {
    let to = Topic::open(kafka, topic);
    let (mut value_bytes, mut body_bytes) = (0, 0);
    for number in 0..count {
        let event = purchases.next();
        value_bytes += event.value.len();
        if number % SAMPLED == 0 {
            body_bytes += purchases.sent_bytes(&event);
        }
        to.append(&event);
    }
    to.close();
    assert_eq!(kafka.records(topic, partitions), count as u64, "records in the topic, and records sent");
    Preloaded { value_bytes: value_bytes / count, body_bytes: body_bytes / count.div_ceil(SAMPLED) }
}

/// A topic that is written to, with the durability of the incoming half: in order, once.
pub(crate) struct Topic<'a> {
    name: &'a str,
    producer: ThreadedProducer<DefaultProducerContext>,
}

impl<'a> Topic<'a> {
    pub(crate) fn open(kafka: &Kafka, name: &'a str) -> Self {
        let producer = kafka
            .config()
            .set("acks", "all")
            .set("enable.idempotence", "true")
            .set("compression.type", "lz4")
            .set("linger.ms", "20")
            .set("partitioner", "murmur2_random")
            .create()
            .expect("a producer");
        Self { name, producer }
    }

    pub(crate) fn append(&self, event: &Event) {
        let headers = headers(&event.id, &event.key, &Rfc3339::from_ms(event.at_ms));
        self.send(BaseRecord::to(self.name).key(&event.key).payload(&event.value).headers(headers));
    }

    pub(crate) fn append_raw(&self, partition: i32, key: &str, value: &[u8]) {
        self.send(BaseRecord::to(self.name).partition(partition).key(key).payload(value));
    }

    /// Waits where the producer's queue is full.
    fn send<V: ToBytes + ?Sized>(&self, mut record: BaseRecord<'_, impl ToBytes + ?Sized, V>) {
        while let Err((_, refused)) = self.producer.send(record) {
            record = refused;
            pause(Duration::from_millis(5));
        }
    }

    /// Returns when the broker has everything.
    pub(crate) fn close(self) {
        self.producer.flush(Duration::from_secs(60)).expect("the broker takes them");
    }
}

/// Those of an accepted event, in the order in which they are written.
fn headers(id: &str, key: &str, at: &Rfc3339) -> OwnedHeaders {
    let all = [
        (header::CE_SPECVERSION, "1.0"),
        (header::CE_ID, id),
        (header::CE_SOURCE, "storefront"),
        (header::CE_TYPE, EVENT_TYPE),
        (header::CE_TIME, at.as_str()),
        (header::CE_SUBJECT, key),
        (header::CE_DATASCHEMA, "http://127.0.0.1:8081/subjects/events.purchase_completed-value/versions/1"),
        (header::CONTENT_TYPE, "application/avro"),
        (header::RECEIVED_AT, at.as_str()),
        (header::TRACEPARENT, "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"),
    ];
    all.iter().fold(OwnedHeaders::new_with_capacity(all.len()), |headers, (key, value)| {
        headers.insert(Header { key, value: Some(*value) })
    })
}

/// The file's schema with its shared types in place.
fn schema() -> files::Parsed {
    let (shared, problems) = files::SharedTypes::load(&folder());
    assert!(problems.is_empty(), "shared types that cannot be read");
    let file = folder().join("commerce").join(EVENT_TYPE).join("1.avsc");
    files::parse(&files::read(&file).expect("the schema's file"), &shared).expect("the schema")
}

pub(crate) fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("schemas")
}

fn between<'a>(text: &'a str, before: &str) -> &'a str {
    let (_, rest) = text.split_once(before).expect("the field");
    rest.split('"').next().unwrap_or(rest)
}
