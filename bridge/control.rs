//! What operators want of sinks: records in the topic `control`, which every process follows.
//!
//! ```text
//!  hookbridge sink pause | resume | rewind ──▶ control (compacted, key = sink) ──▶ Board ──▶ the sink's worker
//! ```
//!
//! The last record of a sink is the whole of what is wanted of it, so that whoever reads late, or twice, wants the same.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::{Mutex, MutexGuard, PoisonError};

use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::config::UnknownFields;
use crate::deliver::Rewind;
use crate::kafka::read::Event;
use crate::kafka::{self, Client, Glimpse, NextOffset, Reader, Then, TopicPartition};
use crate::schema::plan::{Plan, Scratch};
use crate::schema::registry::{self, Registry};
use crate::schema::{Decoder, Opened, decode, wire};

/// The schema, as it is registered under its record name.
pub const SCHEMA: &str = include_str!("../schemas/hookbridge/control/1.avsc");

/// The topic. `prefix`: of all topics.
#[must_use]
pub fn topic(prefix: &str) -> String {
    format!("{prefix}control")
}

/// Why orders cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("the topic of orders cannot be read")]
    Kafka(#[from] kafka::Error),
    #[error("the schema registry cannot be asked about orders")]
    Registry(#[from] registry::Error),
    #[error("an order for {sink} is none: {reason}")]
    Malformed { sink: String, reason: String },
}

/// What is wanted of a sink.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Control {
    pub sink: String,
    pub paused: bool,
    /// How often its offsets were put back.
    pub rewinds: i64,
    /// Of a sink with receipts: what is wanted of each of its partitions, the last order of each.
    pub places: Vec<Place>,
    /// Why, for people.
    pub reason: String,
    pub changed_by: String,
    /// Milliseconds since the epoch.
    pub changed_at: i64,
}

/// Where a partition is to be read again from. Whether that was done says the offset that its owner has committed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Place {
    pub topic: String,
    pub partition: i32,
    /// What `rewinds` was when it was ordered.
    pub number: i64,
    pub offset: i64,
    /// No receipt of an event from there on stands before this one.
    pub receipts_from: i64,
    /// Everything once more, delivered or not.
    #[serde(default)]
    pub again: bool,
}

impl Place {
    fn order(&self) -> (TopicPartition, Rewind) {
        let at = TopicPartition { topic: self.topic.as_str().into(), partition: self.partition };
        let rewind = Rewind {
            number: u64::try_from(self.number).unwrap_or_default(),
            to: NextOffset::stored(self.offset),
            receipts_from: self.receipts_from,
            again: self.again,
        };
        (at, rewind)
    }
}

impl Control {
    /// A sink of which nobody has wanted anything.
    #[must_use]
    pub fn of(sink: &str) -> Self {
        Self { sink: sink.to_owned(), ..Self::default() }
    }

    /// In the Confluent wire format, under the id that [`SCHEMA`] is registered with.
    ///
    /// # Errors
    /// [`Error::Malformed`], for an instant that is none.
    pub fn encode(&self, schema_id: u32) -> Result<Vec<u8>, Error> {
        let malformed = |reason: String| Error::Malformed { sink: self.sink.clone(), reason };
        let plan = Plan::compile(SCHEMA, UnknownFields::Reject).map_err(|error| malformed(error.to_string()))?;
        let json = serde_json::to_vec(self).map_err(|error| malformed(error.to_string()))?;
        let mut value = Vec::new();
        wire::frame(schema_id, &mut value);
        let encoded = plan.encode(&json, &mut Scratch::default(), &mut value);
        encoded.map_err(|refused| malformed(format!("{refused:?}")))?;
        Ok(value)
    }

    /// What a record's value says of a sink, by its own version of the schema.
    ///
    /// # Errors
    /// Why it is no order.
    pub fn told(sink: &str, opened: &Opened<'_>) -> Result<Self, String> {
        let mut json = Vec::new();
        opened.json("", &mut json).map_err(|error| error.to_string())?;
        // Instants come as text, which `--json` prints: the number is in the value.
        let told: Told = serde_json::from_slice(&json).map_err(|error| error.to_string())?;
        Ok(told.of(sink))
    }

    /// What a record says. A registry that cannot be asked is an error; a record that is no order is left out, with a word
    /// in the log: the one before it counts.
    async fn read(decoder: &Decoder, raw: &Raw) -> Result<Option<Self>, Error> {
        let Raw { sink, value: Some(value) } = raw else { return Ok(Some(Self::of(&raw.sink))) };
        let read = match decoder.open(value).await {
            Ok(opened) => Self::told(sink, &opened),
            Err(decode::Error::Registry(error)) if error.is_transient() => return Err(error.into()),
            Err(error) => Err(error.to_string()),
        };
        match read {
            Ok(order) => Ok(Some(order)),
            Err(reason) => {
                tracing::error!(sink, reason, "an order in the control topic cannot be read, and is left out");
                Ok(None)
            }
        }
    }
}

/// An order as JSON. What a newer version says besides is left out, what an older one leaves out has its default.
#[derive(Deserialize)]
#[serde(default)]
struct Told {
    paused: bool,
    rewinds: i64,
    places: Vec<Place>,
    reason: String,
    changed_by: String,
    changed_at: String,
}

impl Default for Told {
    fn default() -> Self {
        let none = String::new;
        Self { paused: false, rewinds: 0, places: Vec::new(), reason: none(), changed_by: none(), changed_at: none() }
    }
}

impl Told {
    fn of(self, sink: &str) -> Control {
        Control {
            sink: sink.to_owned(),
            paused: self.paused,
            rewinds: self.rewinds,
            places: self.places,
            reason: self.reason,
            changed_by: self.changed_by,
            changed_at: crate::calendar::parse_rfc3339(&self.changed_at).unwrap_or_default(),
        }
    }
}

/// A record of the topic, not yet understood.
#[derive(Debug)]
pub struct Raw {
    sink: String,
    value: Option<Vec<u8>>,
}

impl Raw {
    fn look(record: &Glimpse<'_>) -> Option<Self> {
        let sink = std::str::from_utf8(record.key()?).ok()?.to_owned();
        Some(Self { sink, value: record.value().map(<[u8]>::to_vec) })
    }
}

/// Reads the orders of a cluster.
#[derive(Debug, Clone)]
pub struct Orders {
    pub client: Client,
    pub registry: Registry,
    /// librdkafka wants the name of a group; nobody joins it.
    pub group: String,
    pub topic: String,
}

impl Orders {
    /// Reads every order and hands each to `take`, in their order; then stops, or can be read on. A topic that does not
    /// exist has none.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn read(&self, then: Then, mut take: impl FnMut(Control)) -> Result<Reader<Raw>, Error> {
        let extents = self.client.extents(&self.group, vec![self.topic.clone()], 0).await?;
        let mut reader = Reader::start(&self.client, &self.group, extents, then, Raw::look)?;
        let decoder = Decoder::new(self.registry.clone());
        while let Some(event) = reader.next().await {
            match event {
                Event::Batch(batch) => self.hand_over(&decoder, batch, &mut take).await?,
                Event::CaughtUp => return Ok(reader),
                Event::Trouble(code) => tracing::warn!(%code, "reading the control topic is in trouble"),
                Event::Ended(Some(error)) => return Err(error.into()),
                Event::Ended(None) => break,
            }
        }
        Err(kafka::Error::Stopped { role: "reader" }.into())
    }

    /// Hands over what comes, until the reader ends.
    ///
    /// # Errors
    /// [`Error`]: read from the start then.
    pub async fn follow(&self, mut reader: Reader<Raw>, mut take: impl FnMut(Control)) -> Result<(), Error> {
        let decoder = Decoder::new(self.registry.clone());
        while let Some(event) = reader.next().await {
            match event {
                Event::Batch(batch) => self.hand_over(&decoder, batch, &mut take).await?,
                Event::Trouble(code) => tracing::warn!(%code, "reading the control topic is in trouble"),
                Event::Ended(Some(error)) => return Err(error.into()),
                Event::Ended(None) => break,
                Event::CaughtUp => {}
            }
        }
        Err(kafka::Error::Stopped { role: "reader" }.into())
    }

    async fn hand_over(&self, decoder: &Decoder, batch: Vec<Raw>, take: &mut impl FnMut(Control)) -> Result<(), Error> {
        for raw in batch {
            if let Some(control) = Control::read(decoder, &raw).await? {
                take(control);
            }
        }
        Ok(())
    }

    /// What is wanted of each sink now.
    ///
    /// # Errors
    /// [`Error`].
    pub async fn all(&self) -> Result<BTreeMap<String, Control>, Error> {
        let mut all = BTreeMap::new();
        let reader = self.read(Then::Stop, |control| _ = all.insert(control.sink.clone(), control)).await?;
        drop(reader);
        Ok(all)
    }
}

/// What is wanted of each sink of this process, for its workers to hear, one after the other.
#[derive(Default)]
pub struct Board(Mutex<BTreeMap<String, Wires>>);

/// The ends that the board holds.
struct Wires {
    paused: watch::Sender<bool>,
    rewinds: watch::Sender<i64>,
    orders: watch::Sender<Rewinds>,
}

type Rewinds = BTreeMap<TopicPartition, Rewind>;

impl Default for Wires {
    fn default() -> Self {
        let orders = watch::Sender::new(Rewinds::new());
        Self { paused: watch::Sender::new(false), rewinds: watch::Sender::new(0), orders }
    }
}

impl fmt::Debug for Board {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Board").field("sinks", &self.wires().len()).finish()
    }
}

impl Board {
    /// Whether an operator holds a sink.
    pub fn paused(&self, sink: &str) -> watch::Receiver<bool> {
        self.wires().entry(sink.to_owned()).or_default().paused.subscribe()
    }

    /// How often a sink's offsets were put back: a change means that its partitions may stand elsewhere.
    pub fn rewinds(&self, sink: &str) -> watch::Receiver<i64> {
        self.wires().entry(sink.to_owned()).or_default().rewinds.subscribe()
    }

    /// What is to be read again of a sink that has receipts: of each partition the last order.
    pub fn orders(&self, sink: &str) -> watch::Receiver<Rewinds> {
        self.wires().entry(sink.to_owned()).or_default().orders.subscribe()
    }

    /// Takes an order. What is wanted already changes nothing.
    pub fn put(&self, control: &Control) {
        let Control { sink, paused, rewinds, reason, changed_by, .. } = control;
        let mut wires = self.wires();
        let wires = wires.entry(sink.clone()).or_default();
        let was = wires.paused.send_replace(*paused);
        if was != *paused {
            let what = if *paused { "paused" } else { "resumed" };
            tracing::info!(sink, reason, changed_by, "a sink is {what} by an operator");
        }
        wires.rewinds.send_if_modified(|known| std::mem::replace(known, *rewinds) != *rewinds);
        let orders: Rewinds = control.places.iter().map(Place::order).collect();
        wires.orders.send_if_modified(|known| {
            let is_new = *known != orders;
            *known = orders;
            is_new
        });
    }

    fn wires(&self) -> MutexGuard<'_, BTreeMap<String, Wires>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::schema::WriterSchema;

    fn order() -> Control {
        Control {
            sink: "crm".to_owned(),
            paused: true,
            rewinds: 3,
            places: vec![Place {
                topic: "events.order_placed".to_owned(),
                partition: 2,
                number: 3,
                offset: 41,
                receipts_from: 17,
                again: true,
            }],
            reason: "the vendor moves house".to_owned(),
            changed_by: "ana@laptop".to_owned(),
            changed_at: 1_767_225_600_125,
        }
    }

    #[test]
    fn an_order_is_read_as_it_was_written() {
        let value = order().encode(7).unwrap();
        let (id, datum) = wire::unframe(&value).unwrap();
        assert_eq!(id, 7);
        let writer = Arc::new(WriterSchema::new(7, SCHEMA.to_owned()).unwrap());
        assert_eq!(Control::told("crm", &Opened::new(writer, datum)), Ok(order()));
    }

    #[test]
    fn the_board_tells_each_change_once() {
        let board = Board::default();
        let (mut paused, mut rewinds) = (board.paused("crm"), board.rewinds("crm"));
        let mut orders = board.orders("crm");
        let other = board.paused("other");
        board.put(&order());
        board.put(&Control { rewinds: 3, ..order() });
        assert!(paused.has_changed().unwrap() && *paused.borrow_and_update());
        assert!(rewinds.has_changed().unwrap() && *rewinds.borrow_and_update() == 3);
        board.put(&order());
        assert!(!rewinds.has_changed().unwrap());
        let wanted = orders.borrow_and_update().clone();
        let [(at, order)] = wanted.into_iter().collect::<Vec<_>>().try_into().unwrap();
        assert_eq!((at.to_string().as_str(), order.number, order.to.get()), ("events.order_placed/2", 3, 41));
        board.put(&Control { paused: false, ..self::order() });
        assert!(!orders.has_changed().unwrap());
        assert!(!*other.borrow());
        // A worker that starts later hears what is wanted.
        assert!(!*board.paused("crm").borrow() && board.orders("crm").borrow().len() == 1);
    }
}
