//! What the judge is shown: the topic by Kafka's Java client, the table by SQL, the counters as they were scraped.

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use tokio_postgres::Client;

use crate::deployment::{Bridge, Place};
use crate::harness::avro::Decoder;
use crate::harness::eventually;
use crate::harness::maven::Cache;
use crate::harness::reader::{Isolation, Record, read};
use crate::judge::{Committed, Copies, Counted, GroupOffset, Row, Written};
use crate::ledger::fingerprint;

/// The first assignment comes soon after the start.
const OFFSETS_WITHIN: Duration = Duration::from_secs(60);

/// The number is taken under the row's lock, so that of one partition the changes are in their order.
const WATCH: &str = "
CREATE TABLE seen_offsets (number bigserial PRIMARY KEY, partition int, next_offset bigint, epoch bigint);
CREATE FUNCTION see_offset() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  INSERT INTO seen_offsets (partition, next_offset, epoch) VALUES (NEW.partition, NEW.next_offset, NEW.epoch);
  RETURN NULL;
END $$;
CREATE TRIGGER see_offset AFTER INSERT OR UPDATE ON hookbridge_offsets FOR EACH ROW EXECUTE FUNCTION see_offset();";

/// The topic as a reader of committed records sees it.
pub(crate) async fn committed(cache: &Cache, place: &Place) -> Vec<Written> {
    events(cache, place, &place.topic()).await
}

async fn events(cache: &Cache, place: &Place, topic: &str) -> Vec<Written> {
    let mut decoder = Decoder::new(&place.registry);
    let records = tokio::task::block_in_place(|| read(cache, &place.bootstrap, Isolation::Committed, &[topic]));
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
    let mut counted = Counted { uncertain: 0, accepted: 0, deduplicated: 0, settled: 0 };
    for bridge in bridges {
        let metrics = bridge.metrics().await?;
        #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "counts of what a run can hold")]
        let sum = |name: &str, labels: &[(&str, &str)]| metrics.sum(name, labels).round() as u64;
        counted.uncertain += sum("hookbridge_dedupe_uncertain_total", &[]);
        counted.accepted += sum("hookbridge_events_accepted_total", &[]);
        counted.deduplicated += sum("hookbridge_events_deduplicated_total", &[]);
        for settled in [("outcome", "delivered"), ("reason", "duplicate")] {
            counted.settled += sum("hookbridge_settlements_total", &[("sink", "warehouse"), settled]);
        }
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

/// Has the database write down every change of an offset row that is committed, in its order.
pub(crate) async fn watch_offsets(database: &Client) {
    eventually("the sink's offsets table", OFFSETS_WITHIN, async || {
        let there = database.query_one("SELECT to_regclass('hookbridge_offsets') IS NOT NULL", &[]).await.ok()?;
        there.get::<_, bool>(0).then_some(())
    })
    .await;
    database.batch_execute(WATCH).await.expect("a trigger on the sink's table");
}

/// What was written down since [`watch_offsets`].
pub(crate) async fn offsets(database: &Client) -> Vec<Committed> {
    let all = "SELECT partition, next_offset, epoch FROM seen_offsets ORDER BY number";
    let rows = database.query(all, &[]).await.expect("our own table");
    rows.iter().map(|row| Committed { partition: row.get(0), next: row.get(1), epoch: row.get(2) }).collect()
}

/// Whether the sink has settled everything that the topic holds.
pub(crate) async fn has_caught_up(database: &Client, topic: &str, ends: &HashMap<i32, i64>) -> bool {
    let now: HashMap<i32, i64> = look(database, topic).await.iter().map(|look| (look.partition, look.next)).collect();
    ends.iter().all(|(partition, end)| now.get(partition).is_some_and(|next| next >= end))
}

/// What a Kafka sink wrote, and what its receipts say.
pub(crate) async fn copies(cache: &Cache, place: &Place) -> Copies {
    let topic = place.copies_topic();
    let written = events(cache, place, &topic).await;
    let all = tokio::task::block_in_place(|| read(cache, &place.bootstrap, Isolation::Uncommitted, &[&topic]));
    let aborted = all.len().saturating_sub(written.len());
    let receipts = format!("{}receipts.copies.events.order_placed", place.prefix);
    let receipts = tokio::task::block_in_place(|| read(cache, &place.bootstrap, Isolation::Committed, &[&receipts]));
    let mut decoder = Decoder::new(&place.registry);
    let mut delivered = Vec::new();
    for record in receipts {
        let receipt = decoder.decode(record.value.as_deref().expect("a receipt")).await;
        if receipt["outcome"] == "delivered" {
            delivered.push((record.partition, receipt["origin_offset"].as_i64().unwrap_or_default()));
        }
    }
    Copies { written, aborted, delivered }
}

/// Waits until each event of the topic has a copy. A look costs a JVM, so that it looks seldom.
pub(crate) async fn copies_have_all(cache: &Cache, place: &Place, events: &[Written], bound: Duration) -> bool {
    let deadline = Instant::now() + bound;
    let topic = place.copies_topic();
    let wanted: HashSet<&str> = events.iter().map(|record| record.event.as_str()).collect();
    let mut ticks = tokio::time::interval(Duration::from_secs(1));
    loop {
        ticks.tick().await;
        let copies = tokio::task::block_in_place(|| read(cache, &place.bootstrap, Isolation::Committed, &[&topic]));
        let landed: HashSet<&str> = copies.iter().filter_map(|record| record.header("ce_id")).collect();
        if wanted.is_subset(&landed) {
            return true;
        }
        if Instant::now() > deadline {
            return false;
        }
    }
}

/// Every offset that the groups of transactional sinks have committed, in the order of the coordinators' log.
pub(crate) fn group_offsets(cache: &Cache, place: &Place) -> Vec<GroupOffset> {
    let sinks = place.transactional_sinks();
    if sinks.is_empty() {
        return Vec::new();
    }
    let records =
        tokio::task::block_in_place(|| read(cache, &place.bootstrap, Isolation::Committed, &["__consumer_offsets"]));
    let groups: Vec<String> = sinks.into_iter().map(|sink| place.group(sink)).collect();
    let offset = |record: &Record| {
        let (group, partition) = offset_key(record.key.as_deref()?)?;
        // An int16 of the version, and the offset.
        let next = record.value.as_deref()?.get(2..)?.first_chunk::<8>().copied().map(i64::from_be_bytes)?;
        groups.contains(&group).then_some(GroupOffset { group, partition, next })
    };
    records.iter().filter_map(offset).collect()
}

/// Group and partition of an offset's key, as the coordinator writes it: an int16 of the version (0 or 1), group and topic
/// (each an int16 of the length and the text), and an int32 of the partition.
fn offset_key(key: &[u8]) -> Option<(String, i32)> {
    let version = i16::from_be_bytes(key.first_chunk::<2>().copied()?);
    let text = |from: usize| {
        let length = usize::try_from(i16::from_be_bytes(key.get(from..)?.first_chunk::<2>().copied()?)).ok()?;
        Some((String::from_utf8(key.get(from + 2..from + 2 + length)?.to_vec()).ok()?, from + 2 + length))
    };
    let (group, after) = text(2).filter(|_| version <= 1)?;
    let (_, after) = text(after)?;
    Some((group, i32::from_be_bytes(key.get(after..)?.first_chunk::<4>().copied()?)))
}
