//! One attempt at a batch: each record decoded, routed, filtered, asked for consent and mapped, then handed to the sink.
//! Nothing of it is kept: the next attempt at the same records starts anew, with today's registry and sink.

use std::collections::HashMap;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

use super::consent;
use super::flow::{Halted, Report, Settled};
use super::route::{Route, Routes};
use crate::calendar::parse_rfc3339;
use crate::causes::chain;
use crate::config::Purpose;
use crate::event::{Identity, header};
use crate::kafka::{Record, TopicPartition};
use crate::outcome::{Outcome, Settlement, SkipReason};
use crate::schema::{Decoder, WriterSchema};
use crate::sinks::{Claim, Delivery, Halt, Item, Shape, Sink};

/// A compiled `where`: the event as JSON in, whether it is true out, or why it could not be said.
pub type Filter = Arc<dyn Fn(&[u8]) -> Result<bool, String> + Send + Sync>;

/// A compiled `map`: the event as JSON in, JSON out, or why there is none.
pub type Map = Arc<dyn Fn(&[u8]) -> Result<Vec<u8>, String> + Send + Sync>;

/// Shapes kept, one for each schema id: a sink meets a handful; past this many they are made again.
const MAX_SHAPES: usize = 1_000;

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
}

/// What comes before the sink: from a record to what is sent.
pub(super) struct Preparation {
    decoder: Arc<Decoder>,
    policy: Policy,
    shapes: Mutex<HashMap<u32, Arc<Shape>>>,
}

/// A record that cannot be handed to the sink.
pub(super) struct Unfit {
    event_id: Option<String>,
    pub(super) outcome: Outcome,
}

impl Context {
    pub(super) fn new(decoder: Arc<Decoder>, policy: Policy, sink: Sink) -> Self {
        Self { preparation: Preparation::new(decoder, policy), sink }
    }

    pub(super) fn sink(&self) -> &Sink {
        &self.sink
    }

    /// Attempts a batch of consecutive records; gives what became of it, and its class for the metrics.
    pub(super) async fn attempt(
        &self,
        sink: &str,
        claim: &mut Claim,
        at: &TopicPartition,
        records: &[Arc<Record>],
    ) -> (Report, &'static str) {
        let mut items = Vec::with_capacity(records.len());
        let mut unfit = None;
        for record in records {
            match self.preparation.prepare(sink, record).await {
                Ok(item) => items.push(item),
                Err(found) => {
                    // What stands before it is sent all the same.
                    unfit = Some(Halted {
                        offset: record.offset,
                        event_id: found.event_id,
                        halt: Halt::Answer(found.outcome),
                    });
                    break;
                }
            }
        }
        let (mut settled, mut halt) = (0, None);
        if !items.is_empty() {
            let progress = self.sink.deliver(claim, at, &items).await;
            settled = progress.settled;
            halt = progress.halt.zip(items.get(settled)).map(|(halt, item)| {
                let event_id = match item {
                    Item::Send(delivery) => Some(delivery.identity.id.clone()),
                    Item::Skip { .. } => None,
                };
                Halted { offset: item.offset(), event_id, halt }
            });
        }
        let settled = items.into_iter().take(settled).map(settle).collect();
        let halt = halt.or(unfit);
        let class = match halt.as_ref().map(|halted| &halted.halt) {
            None => Outcome::Delivered.class(),
            Some(Halt::Answer(outcome)) => outcome.class(),
            Some(Halt::Fenced) => "fenced",
        };
        (Report { settled, halt }, class)
    }
}

impl Preparation {
    pub(super) fn new(decoder: Arc<Decoder>, policy: Policy) -> Self {
        Self { decoder, policy, shapes: Mutex::default() }
    }

    pub(super) async fn prepare(&self, sink: &str, record: &Record) -> Result<Item, Unfit> {
        let identity = match self.policy.routes.route(record) {
            Route::Here(identity) => identity,
            Route::Elsewhere => return Ok(skip(record, SkipReason::NotSubscribed)),
            Route::Unknown { ce_type } => {
                let reason = format!("ce_type {ce_type:?} names none of the event types of this topic");
                return Err(Unfit { event_id: None, outcome: Outcome::Rejected { reason } });
            }
        };
        let event_id = identity.id.clone();
        self.fit(sink, record, identity).await.map_err(|outcome| Unfit { event_id: Some(event_id), outcome })
    }

    async fn fit(&self, sink: &str, record: &Record, identity: Identity) -> Result<Item, Outcome> {
        let rejected = |reason: String| Outcome::Rejected { reason };
        let value = record.value.as_deref().ok_or_else(|| rejected("a tombstone is no event".into()))?;
        let decoded = self.decoder.decode(value).await.map_err(|error| {
            let reason = chain(&error);
            if error.is_transient() { Outcome::Transient { reason } } else { Outcome::Rejected { reason } }
        })?;
        let shape = self.shape_of(&decoded.writer);

        let Policy { purpose, filter, map, .. } = &self.policy;
        let mut json = None;
        if filter.is_some() || map.is_some() {
            json = Some(shape.to_json(&decoded.value).map_err(|error| rejected(error.to_string()))?);
        }
        if let (Some(filter), Some(json)) = (filter, &json)
            && !filter(json).map_err(|reason| rejected(format!("where: {reason}")))?
        {
            return Ok(skip(record, SkipReason::Filtered));
        }
        if !consent::is_given(purpose, &decoded.value) {
            return Ok(skip(record, SkipReason::NoConsent));
        }
        let mapped = match (map, &json) {
            (Some(map), Some(json)) => Some(map(json).map_err(|reason| rejected(format!("map: {reason}")))?),
            _ => None,
        };
        Ok(Item::Send(Box::new(Delivery {
            #[cfg(not(feature = "seeded-bugs"))]
            delivery_id: identity.delivery_id(sink),
            #[cfg(feature = "seeded-bugs")]
            delivery_id: delivery_id_where_seeded(&identity, sink),
            identity,
            offset: record.offset,
            received_at_ms: record.header(header::RECEIVED_AT).and_then(parse_rfc3339).or(record.timestamp_ms),
            occurred_at: record.header(header::CE_TIME).map(str::to_owned),
            schema_id: decoded.writer.id,
            shape,
            value: decoded.value,
            mapped,
        })))
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

#[cfg(feature = "seeded-bugs")]
fn delivery_id_where_seeded(identity: &crate::event::Identity, sink: &str) -> uuid::Uuid {
    if crate::seeded::has(crate::seeded::Bug::NewDeliveryIds) {
        return uuid::Uuid::new_v4();
    }
    identity.delivery_id(sink)
}

fn skip(record: &Record, reason: SkipReason) -> Item {
    Item::Skip { offset: record.offset, reason }
}

fn settle(item: Item) -> Settled {
    match item {
        Item::Send(delivery) => Settled {
            offset: delivery.offset,
            settlement: Settlement::Delivered,
            received_at_ms: delivery.received_at_ms,
        },
        Item::Skip { offset, reason } => {
            Settled { offset, settlement: Settlement::Skipped(reason), received_at_ms: None }
        }
    }
}
