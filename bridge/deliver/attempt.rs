//! One attempt at a batch: each record decoded, routed, filtered, asked for consent and mapped, then handed to the sink.
//! Nothing of it is kept: the next attempt at the same records starts anew, with today's registry and sink.

use std::collections::HashMap;
use std::fmt;
use std::ops::Range;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use uuid::Uuid;

use super::consent;
use super::flow::{Halted, Report, Settled};
use super::registrar::Registrar;
use super::route::{Route, Routes};
use super::settle::{DeadReason, Fate, Receipt};
use crate::calendar::parse_rfc3339;
use crate::causes::chain;
use crate::clock;
use crate::config::Purpose;
use crate::event::{Identity, header};
use crate::kafka::{Record, TopicPartition};
use crate::outcome::{Outcome, Settlement, SkipReason};
use crate::schema::{Decoder, WriterSchema, decode, registry};
use crate::sinks::{Claim, Content, Delivery, Halt, Item, Shape, Sink};

/// A compiled `where`: the event as JSON in, whether it is true out, or why it could not be said.
pub type Filter = Arc<dyn Fn(&[u8]) -> Result<bool, String> + Send + Sync>;

/// A compiled `map`: the event as JSON in, JSON out, or why there is none.
pub type Map = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync>;

/// Shapes kept, one for each schema id: a sink meets a handful; past this many they are made again.
const MAX_SHAPES: usize = 1_000;

/// An event as JSON is mostly not more than so many times as long as its Avro: so much is set aside for it at once.
const JSON_OF_AVRO: usize = 3;

/// Which events go to a sink, and as what.
#[derive(Clone)]
pub struct Policy {
    pub routes: Routes,
    pub purpose: Purpose,
    pub filter: Option<Filter>,
    pub map: Option<Map>,
}

impl fmt::Debug for Policy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Policy").field("routes", &self.routes).field("purpose", &self.purpose).finish_non_exhaustive()
    }
}

/// What all attempts of a worker share.
pub(super) struct Context {
    preparation: Preparation,
    sink: Sink,
    registrar: Option<Registrar>,
}

/// What comes before the sink: from a record to what is sent.
pub(super) struct Preparation {
    decoder: Arc<Decoder>,
    policy: Policy,
    gives_values: bool,
    shapes: Mutex<HashMap<u32, Arc<Shape>>>,
}

/// A record on its way to the sink, or not.
pub(super) enum Prepared {
    Send(Box<Delivery>),
    Skip(SkipReason),
}

/// What of a record is sent, or why nothing is.
enum Fitted {
    Content { schema_id: u32, content: Content },
    Skip(SkipReason),
}

/// A record that cannot be handed to the sink.
pub(super) struct Unfit {
    event_id: Option<String>,
    pub(super) outcome: Outcome,
}

/// What becomes of a record once the offset has passed it.
enum Course {
    Sent {
        delivery_id: Uuid,
        event_id: String,
        received_at_ms: Option<i64>,
        /// The sink had it already.
        again: bool,
    },
    Skipped(SkipReason),
    /// With what the sink, or what comes before it, says.
    Dead {
        detail: String,
        attempts: u32,
    },
}

/// The leading records of a batch that the offset can pass, each with its item and its course.
#[derive(Default)]
struct Batch {
    items: Vec<Item>,
    courses: Vec<Course>,
}

impl Batch {
    fn push(&mut self, item: Item, course: Course) {
        self.items.push(item);
        self.courses.push(course);
    }

    /// The sink refuses a record for good. `false`: it is none that was sent.
    fn bury(&mut self, at: usize, detail: String) -> bool {
        let (Some(item), Some(course @ Course::Sent { .. })) = (self.items.get_mut(at), self.courses.get_mut(at))
        else {
            return false;
        };
        *item = Item::Pass { offset: item.offset() };
        *course = Course::Dead { detail, attempts: 1 };
        true
    }

    /// The sink had these already: offsets of records that were sent, in order.
    fn repeated(&mut self, duplicates: &[i64]) {
        for offset in duplicates {
            let Ok(at) = self.items.binary_search_by_key(offset, Item::offset) else { continue };
            if let Course::Sent { again, .. } = &mut self.courses[at] {
                *again = true;
            }
        }
    }

    fn halted(&self, at: usize, halt: Halt) -> Option<Halted> {
        let event_id = match self.courses.get(at)? {
            Course::Sent { event_id, .. } => Some(event_id.clone()),
            Course::Skipped(_) | Course::Dead { .. } => None,
        };
        Some(Halted { offset: self.items.get(at)?.offset(), event_id, halt })
    }

    fn settled(&self, until: usize) -> Vec<Settled> {
        let settle = |(item, course): (&Item, &Course)| {
            let (settlement, received_at_ms) = match course {
                Course::Sent { again: true, .. } => (Settlement::Skipped(SkipReason::Duplicate), None),
                Course::Sent { received_at_ms, .. } => (Settlement::Delivered, *received_at_ms),
                Course::Skipped(reason) => (Settlement::Skipped(*reason), None),
                Course::Dead { .. } => (Settlement::Dead, None),
            };
            Settled { offset: item.offset(), settlement, received_at_ms }
        };
        self.items.iter().zip(&self.courses).take(until).map(settle).collect()
    }
}

impl Context {
    /// Without a registrar an event that is refused for good is not buried: it holds its partition.
    pub(super) fn new(decoder: Arc<Decoder>, policy: Policy, sink: Sink, registrar: Option<Registrar>) -> Self {
        let preparation = if sink.takes_values() { Preparation::of_values } else { Preparation::new };
        Self { preparation: preparation(decoder, policy), sink, registrar }
    }

    pub(super) fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Waits, for a while, for receipts on their way.
    pub(super) async fn flush(&self) {
        if let Some(registrar) = &self.registrar {
            registrar.flush().await;
        }
    }

    /// Attempts a batch of consecutive records; gives what became of it, and its class for the metrics.
    ///
    /// What is left out and what is dead is written down before the sink moves its offset past it, and what was delivered
    /// behind that.
    pub(super) async fn attempt(
        &self,
        sink: &str,
        claim: &mut Claim,
        at: &TopicPartition,
        records: &[Arc<Record>],
    ) -> (Report, &'static str) {
        let (mut batch, unfit) = self.prepare(sink, records).await;
        let whole = batch.items.len();
        let mut settled = 0;
        let mut halt = self.write_down(sink, records, &batch, 0..whole).await.err();
        while halt.is_none() && settled < whole {
            let progress = self.sink.deliver(claim, at, &batch.items[settled..]).await;
            batch.repeated(&progress.duplicates);
            self.mention(sink, records, &batch, settled..settled + progress.settled).await;
            settled += progress.settled;
            halt = match progress.halt {
                None => break,
                Some(Halt::Answer(Outcome::Rejected { reason })) if self.registrar.is_some() => {
                    if batch.bury(settled, reason.clone()) {
                        self.write_down(sink, records, &batch, settled..settled + 1).await.err()
                    } else {
                        Some(Halt::Answer(Outcome::Rejected { reason }))
                    }
                }
                halt => halt,
            };
        }
        let halt = halt.and_then(|halt| batch.halted(settled, halt)).or(unfit);
        let class = match halt.as_ref().map(|halted| &halted.halt) {
            None => Outcome::Delivered.class(),
            Some(Halt::Answer(outcome)) => outcome.class(),
            Some(Halt::Fenced) => "fenced",
        };
        tell_of_dead(sink, at, &batch, settled);
        (Report { settled: batch.settled(settled), halt }, class)
    }

    /// The records that the offset can pass, and the one that it cannot: what stands before that is sent all the same.
    async fn prepare(&self, sink: &str, records: &[Arc<Record>]) -> (Batch, Option<Halted>) {
        let mut batch = Batch::default();
        for record in records {
            let offset = record.offset;
            match self.preparation.prepare(sink, record, None).await {
                Ok(Prepared::Send(delivery)) => {
                    let course = Course::Sent {
                        delivery_id: delivery.delivery_id,
                        event_id: delivery.identity.id.clone(),
                        received_at_ms: delivery.received_at_ms,
                        again: false,
                    };
                    batch.push(Item::Send(delivery), course);
                }
                Ok(Prepared::Skip(reason)) => batch.push(Item::Pass { offset }, Course::Skipped(reason)),
                Err(Unfit { outcome: Outcome::Rejected { reason }, .. }) if self.registrar.is_some() => {
                    batch.push(Item::Pass { offset }, Course::Dead { detail: reason, attempts: 0 });
                }
                Err(Unfit { event_id, outcome }) => {
                    return (batch, Some(Halted { offset, event_id, halt: Halt::Answer(outcome) }));
                }
            }
        }
        (batch, None)
    }

    /// Has Kafka acknowledge what the sink will not have.
    async fn write_down(
        &self,
        sink: &str,
        records: &[Arc<Record>],
        batch: &Batch,
        range: Range<usize>,
    ) -> Result<(), Halt> {
        let Some(registrar) = &self.registrar else { return Ok(()) };
        let receipts = self.receipts(sink, records, batch, range, |course| !matches!(course, Course::Sent { .. }));
        registrar.ensure(&receipts).await.map_err(Halt::Answer)
    }

    /// Tells Kafka what the sink has.
    async fn mention(&self, sink: &str, records: &[Arc<Record>], batch: &Batch, range: Range<usize>) {
        let Some(registrar) = &self.registrar else { return };
        let receipts = self.receipts(sink, records, batch, range, |course| matches!(course, Course::Sent { .. }));
        registrar.mention(&receipts).await;
    }

    fn receipts(
        &self,
        sink: &str,
        records: &[Arc<Record>],
        batch: &Batch,
        range: Range<usize>,
        wanted: impl Fn(&Course) -> bool,
    ) -> Vec<Receipt> {
        let settled_at = Duration::from_millis(u64::try_from(clock::now_ms()).unwrap_or_default());
        let within = records.iter().zip(&batch.courses).skip(range.start).take(range.len());
        let receipt = |(record, course): (&Arc<Record>, &Course)| {
            let by_place = || self.preparation.policy.routes.delivery_id(sink, record);
            let (delivery_id, fate, detail, attempts) = match course {
                Course::Sent { delivery_id, again, .. } => {
                    let fate = if *again { Fate::Skipped(SkipReason::Duplicate) } else { Fate::Delivered };
                    (*delivery_id, fate, String::new(), 1)
                }
                Course::Skipped(reason) => (by_place(), Fate::Skipped(*reason), String::new(), 0),
                Course::Dead { detail, attempts } => {
                    (by_place(), Fate::Dead(DeadReason::Rejected), detail.clone(), *attempts)
                }
            };
            Receipt {
                at: record.at.clone(),
                offset: record.offset,
                delivery_id,
                fate,
                detail,
                attempts,
                // Nothing here waits or promises: a batch is one transaction.
                age: Duration::ZERO,
                unsure_since: None,
                writer: 0,
                settled_at,
                record: Arc::clone(record),
                bare: false,
                output: None,
            }
        };
        within.filter(|(_, course)| wanted(course)).map(receipt).collect()
    }
}

/// One line a batch, however many of it died.
fn tell_of_dead(sink: &str, at: &TopicPartition, batch: &Batch, settled: usize) {
    let mut dead = batch.items.iter().zip(&batch.courses).take(settled).filter_map(|(item, course)| match course {
        Course::Dead { detail, .. } => Some((item.offset(), detail)),
        _ => None,
    });
    if let Some((offset, reason)) = dead.next() {
        let more = dead.count();
        tracing::error!(sink, %at, offset, reason, more, "an event will never pass, and is a dead letter");
    }
}

/// A registry that refuses us, or a cache that cannot be used, says nothing of the event.
fn unreadable(error: &decode::Error) -> Outcome {
    let reason = chain(error);
    match error {
        decode::Error::Registry(registry::Error::UnknownId { .. } | registry::Error::Unreadable { .. })
        | decode::Error::Frame(_)
        | decode::Error::Datum { .. } => Outcome::Rejected { reason },
        error if error.is_transient() => Outcome::Transient { reason },
        decode::Error::Registry(_) => Outcome::Misconfigured { reason },
    }
}

impl Preparation {
    /// For a sink that takes JSON.
    pub(super) fn new(decoder: Arc<Decoder>, policy: Policy) -> Self {
        Self { decoder, policy, gives_values: false, shapes: Mutex::default() }
    }

    /// For one that takes [`Content::Value`]; such a sink has no `map`.
    fn of_values(decoder: Arc<Decoder>, policy: Policy) -> Self {
        Self { gives_values: true, ..Self::new(decoder, policy) }
    }

    /// `delivery_id`: the one that it goes out with, where that is known already.
    pub(super) async fn prepare(
        &self,
        sink: &str,
        record: &Record,
        delivery_id: Option<Uuid>,
    ) -> Result<Prepared, Unfit> {
        let identity = match self.policy.routes.route(record) {
            Route::Here(identity) => identity,
            Route::Elsewhere => return Ok(Prepared::Skip(SkipReason::NotSubscribed)),
            Route::Unknown { ce_type } => {
                let reason = format!("ce_type {ce_type:?} names none of the event types of this topic");
                return Err(Unfit { event_id: None, outcome: Outcome::Rejected { reason } });
            }
        };
        match self.fit(record).await {
            Ok(Fitted::Content { schema_id, content }) => Ok(Prepared::Send(Box::new(Delivery {
                delivery_id: delivery_id.unwrap_or_else(|| delivery_id_of(&identity, sink)),
                identity,
                offset: record.offset,
                received_at_ms: record.header(header::RECEIVED_AT).and_then(parse_rfc3339).or(record.timestamp_ms),
                occurred_at: record.header(header::CE_TIME).map(str::to_owned),
                schema_id,
                content,
            }))),
            Ok(Fitted::Skip(reason)) => Ok(Prepared::Skip(reason)),
            Err(outcome) => Err(Unfit { event_id: Some(identity.id), outcome }),
        }
    }

    /// What is sent of a record, whoever it is of.
    async fn fit(&self, record: &Record) -> Result<Fitted, Outcome> {
        let rejected = |reason: String| Outcome::Rejected { reason };
        let value = record.value.as_deref().ok_or_else(|| rejected("a tombstone is no event".into()))?;
        let opened = self.decoder.open(value).await.map_err(|error| unreadable(&error))?;

        let Policy { purpose, filter, map, .. } = &self.policy;
        let (mut json, mut asked) = (Vec::new(), None);
        if !self.gives_values || filter.is_some() || consent::is_needed(purpose) {
            json.reserve(value.len() * JSON_OF_AVRO);
            asked = opened.json(consent::FIELD, &mut json).map_err(|error| unreadable(&error))?;
        }
        if let Some(filter) = filter
            && !filter(&json).map_err(|reason| rejected(format!("where: {reason}")))?
        {
            return Ok(Fitted::Skip(SkipReason::Filtered));
        }
        if !consent::is_given(purpose, asked.map(|place| &json[place])) {
            return Ok(Fitted::Skip(SkipReason::NoConsent));
        }
        let content = if self.gives_values {
            let value = opened.value().map_err(|error| unreadable(&error))?;
            Content::Value { shape: self.shape_of(&opened.writer), value }
        } else if let Some(map) = map {
            Content::Mapped(map(&json).map_err(|reason| rejected(format!("map: {reason}")))?)
        } else {
            Content::Json(json)
        };
        Ok(Fitted::Content { schema_id: opened.writer.id, content })
    }

    fn shape_of(&self, writer: &WriterSchema) -> Arc<Shape> {
        let mut shapes = self.shapes.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(shape) = shapes.get(&writer.id) {
            return Arc::clone(shape);
        }
        if shapes.len() >= MAX_SHAPES {
            shapes.clear();
        }
        let shape = Arc::new(Shape::new(&writer.schema));
        shapes.insert(writer.id, Arc::clone(&shape));
        shape
    }
}

fn delivery_id_of(identity: &Identity, sink: &str) -> Uuid {
    #[cfg(feature = "seeded-bugs")]
    if crate::seeded::has(crate::seeded::Bug::NewDeliveryIds) {
        return Uuid::new_v4();
    }
    identity.delivery_id(sink)
}
