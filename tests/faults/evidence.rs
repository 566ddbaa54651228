//! What the judge is shown: the topic by Kafka's Java client, the table by SQL, the counters as they were scraped.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Mutex, oneshot};
use tokio::task::JoinHandle;
use tokio::time::interval;
use tokio_postgres::Client;

use crate::deployment::{Bridge, Place};
use crate::harness::avro::Decoder;
use crate::harness::maven::Cache;
use crate::harness::reader::{Isolation, read};
use crate::judge::{Committed, Counted, Row, Written};
use crate::ledger::fingerprint;

/// How often the offset rows are looked at.
const LOOK_EVERY: Duration = Duration::from_millis(100);

/// The topic as a reader of committed records sees it.
pub(crate) async fn committed(cache: &Cache, place: &Place) -> Vec<Written> {
    let mut decoder = Decoder::new(&place.registry);
    let records =
        tokio::task::block_in_place(|| read(cache, &place.bootstrap, Isolation::Committed, &[&place.topic()]));
    let mut written = Vec::with_capacity(records.len());
    for record in records {
        let value = decoder.decode(record.value.as_deref().expect("no tombstones are written")).await;
        let text = |name: &str| value[name].as_str().unwrap_or_default().to_owned();
        let sequence = value["sequence"].as_i64().unwrap_or_default();
        let header = |name: &str| record.header(name).unwrap_or_default().to_owned();
        written.push(Written {
            partition: record.partition,
            offset: record.offset,
            event: header("ce_id"),
            trace: header("traceparent").get(3..35).unwrap_or_default().to_owned(),
            key: record.key.as_deref().map(|key| String::from_utf8_lossy(key).into_owned()).unwrap_or_default(),
            sequence,
            body: fingerprint(&text("customer_id"), sequence, &text("note")),
        });
    }
    written
}

/// The events that are in the topic for a reader that takes aborted ones for real.
pub(crate) fn uncommitted(cache: &Cache, place: &Place) -> HashSet<String> {
    let records =
        tokio::task::block_in_place(|| read(cache, &place.bootstrap, Isolation::Uncommitted, &[&place.topic()]));
    records.iter().filter_map(|record| record.header("ce_id").map(str::to_owned)).collect()
}

/// Dead letters of the HTTP sink, by event.
pub(crate) fn dead(cache: &Cache, place: &Place) -> Vec<String> {
    let topic = format!("{}dead.crm", place.prefix);
    let records = tokio::task::block_in_place(|| read(cache, &place.bootstrap, Isolation::Committed, &[&topic]));
    records.iter().filter_map(|record| record.header("ce_id").map(str::to_owned)).collect()
}

/// The sink's table.
pub(crate) async fn rows(database: &Client) -> Vec<Row> {
    let all = "SELECT hb_event_id, hb_partition::int, hb_offset::bigint, customer_id, sequence, note FROM order_placed";
    let rows = database.query(all, &[]).await.expect("the sink's table");
    let row = |row: tokio_postgres::Row| {
        let (key, sequence): (String, i64) = (row.get(3), row.get(4));
        let note: Option<String> = row.get(5);
        let body = fingerprint(&key, sequence, note.as_deref().unwrap_or_default());
        Row { event: row.get(0), partition: row.get(1), offset: row.get(2), key, sequence, body }
    };
    rows.into_iter().map(row).collect()
}

/// Sums of the bridges' counters; `None` where one does not answer.
pub(crate) async fn counters(bridges: &[Bridge]) -> Option<Counted> {
    let mut counted = Counted { uncertain: 0, accepted: 0, deduplicated: 0, delivered: 0 };
    for bridge in bridges {
        let metrics = bridge.metrics().await?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of what a run can hold")]
        let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels).round() as u64;
        counted.uncertain += sum("hookbridge_dedupe_uncertain_total", &[]);
        counted.accepted += sum("hookbridge_events_accepted_total", &[]);
        counted.deduplicated += sum("hookbridge_events_deduplicated_total", &[]);
        counted.delivered += sum("hookbridge_settlements_total", &[("sink", "warehouse"), ("outcome", "delivered")]);
    }
    Some(counted)
}

const OFFSETS: &str =
    "SELECT partition, next_offset, epoch FROM hookbridge_offsets WHERE topic = $1 ORDER BY partition";

async fn look(database: &Client, topic: &str) -> Vec<Committed> {
    // The table comes into being with the first assignment.
    let Ok(rows) = database.query(OFFSETS, &[&topic]).await else { return Vec::new() };
    rows.iter().map(|row| Committed { partition: row.get(0), next: row.get(1), epoch: row.get(2) }).collect()
}

/// Looks at the offset rows, again and again, from another session than any of the bridges'.
pub(crate) struct Watch {
    stop: oneshot::Sender<()>,
    watching: JoinHandle<()>,
    /// Only what differs from the look before.
    seen: Arc<Mutex<Vec<Committed>>>,
}

impl Watch {
    pub(crate) fn start(database: Client, topic: String) -> Self {
        let (stop, mut stopped) = oneshot::channel();
        let seen = Arc::<Mutex<Vec<Committed>>>::default();
        let to = Arc::clone(&seen);
        let watching = tokio::spawn(async move {
            let mut ticks = interval(LOOK_EVERY);
            let mut last = HashMap::new();
            loop {
                tokio::select! {
                    _ = ticks.tick() => {}
                    _ = &mut stopped => return,
                }
                for now in look(&database, &topic).await {
                    if last.insert(now.partition, (now.next, now.epoch)) != Some((now.next, now.epoch)) {
                        to.lock().await.push(now);
                    }
                }
            }
        });
        Self { stop, watching, seen }
    }

    pub(crate) async fn finish(self) -> Vec<Committed> {
        let _ = self.stop.send(());
        self.watching.await.expect("no panic");
        std::mem::take(&mut *self.seen.lock().await)
    }
}

/// Whether the sink has settled everything that the topic holds.
pub(crate) async fn has_caught_up(database: &Client, topic: &str, ends: &HashMap<i32, i64>) -> bool {
    let now: HashMap<i32, i64> = look(database, topic).await.iter().map(|look| (look.partition, look.next)).collect();
    ends.iter().all(|(partition, end)| now.get(partition).is_some_and(|next| next >= end))
}
