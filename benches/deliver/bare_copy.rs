//! What delivery to Postgres is compared with: records read from Kafka, decoded not at all, and a COPY of as many rows
//! with the same columns, in one transaction with the offsets.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::pin::pin;
use std::time::Duration;

use bytes::Bytes;
use futures_util::SinkExt;
use rdkafka::ClientConfig;
use rdkafka::consumer::{Consumer, StreamConsumer};
use rdkafka::message::Message;
use tokio::time::{Instant, timeout_at};
use tokio_postgres::{Client, NoTls, SimpleQueryMessage};
use uuid::Uuid;

/// Rows of one COPY, and of one commit.
const BATCH: usize = 2_000;
/// What a COPY waits for more rows.
const LINGER: Duration = Duration::from_millis(50);

/// Where the loop writes how far it is, in the form of the other candidate's.
pub(crate) const OFFSETS: &str = "bare_offsets";

/// What it is told on its command line, in this order.
pub(crate) struct Task<'a> {
    pub(crate) bootstrap: &'a str,
    pub(crate) topic: &'a str,
    pub(crate) group: &'a str,
    pub(crate) database: &'a str,
    /// Its one row is what every row looks like.
    pub(crate) model: &'a str,
    pub(crate) table: &'a str,
}

/// Copies until the process is ended.
pub(crate) fn copy(task: &Task<'_>) {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().expect("a runtime");
    runtime.block_on(run(task));
}

async fn run(task: &Task<'_>) {
    let (mut client, connection) = tokio_postgres::connect(task.database, NoTls).await.expect("the database");
    tokio::spawn(connection);
    let model = Model::read(&client, task.model).await;
    let copy = format!("COPY {} ({}) FROM STDIN", task.table, model.columns);
    let consumer: StreamConsumer = ClientConfig::new()
        .set("bootstrap.servers", task.bootstrap)
        .set("group.id", task.group)
        .set("auto.offset.reset", "earliest")
        .set("enable.auto.commit", "false")
        .create()
        .expect("a consumer");
    consumer.subscribe(&[task.topic]).expect("the topic");
    loop {
        let (rows, next) = batch(&consumer, &model).await;
        let transaction = client.transaction().await.expect("a transaction");
        let mut sink = pin!(transaction.copy_in::<_, Bytes>(&copy).await.expect("a COPY"));
        sink.send(rows.into()).await.expect("rows that are taken");
        sink.finish().await.expect("rows that are taken");
        let (partitions, offsets): (Vec<i32>, Vec<i64>) = next.into_iter().unzip();
        let upsert = format!(
            "INSERT INTO {OFFSETS} (sink, topic, partition, next_offset) \
             SELECT $1, $2, p, o FROM unnest($3::int[], $4::bigint[]) AS n(p, o) \
             ON CONFLICT (sink, topic, partition) DO UPDATE SET next_offset = excluded.next_offset"
        );
        transaction.execute(&upsert, &[&task.group, &task.topic, &partitions, &offsets]).await.expect("the offsets");
        transaction.commit().await.expect("a commit");
    }
}

/// The next rows, and where each of their partitions goes on.
async fn batch(consumer: &StreamConsumer, model: &Model) -> (String, BTreeMap<i32, i64>) {
    let (mut rows, mut count, mut next) = (String::new(), 0, BTreeMap::new());
    let mut due = None;
    while count < BATCH {
        let received = match due {
            None => consumer.recv().await,
            Some(due) => match timeout_at(due, consumer.recv()).await {
                Ok(received) => received,
                Err(_) => break,
            },
        };
        let Ok(message) = received else { continue };
        due.get_or_insert_with(|| Instant::now() + LINGER);
        model.write(message.partition(), message.offset(), &mut rows);
        next.insert(message.partition(), message.offset() + 1);
        count += 1;
    }
    (rows, next)
}

/// A row of the other candidate's, as COPY's text format has it.
struct Model {
    columns: String,
    /// All but what tells rows apart.
    rest: String,
}

impl Model {
    const OWN: [&str; 3] = ["hb_delivery_id", "hb_partition", "hb_offset"];

    async fn read(client: &Client, table: &str) -> Self {
        let found = client.simple_query(&format!("SELECT * FROM {table} LIMIT 1")).await.expect("the model");
        let row = found.into_iter().find_map(|message| match message {
            SimpleQueryMessage::Row(row) => Some(row),
            _ => None,
        });
        let row = row.expect("a row to go by");
        let (mut columns, mut rest) = (Self::OWN.join(", "), String::new());
        for (at, column) in row.columns().iter().enumerate() {
            if !Self::OWN.contains(&column.name()) {
                let _ = write!(columns, ", \"{}\"", column.name());
                rest.push('\t');
                rest.push_str(&row.get(at).map_or_else(|| r"\N".to_owned(), escaped));
            }
        }
        rest.push('\n');
        Self { columns, rest }
    }

    /// Ids are as scattered as those that are hashes: the index that keeps them apart costs the same.
    fn write(&self, partition: i32, offset: i64, rows: &mut String) {
        let place = u128::from(partition.cast_unsigned()) << 64 | u128::from(offset.cast_unsigned());
        let scattered = place.wrapping_add(1).wrapping_mul(0x9E37_79B9_7F4A_7C15_F39C_C060_5CED_C835);
        let id = Uuid::from_u128(scattered ^ (scattered >> 64));
        let _ = write!(rows, "{id}\t{partition}\t{offset}{}", self.rest);
    }
}

/// PostgreSQL documentation, "COPY", "Text Format".
fn escaped(text: &str) -> String {
    text.replace('\\', r"\\").replace('\t', r"\t").replace('\n', r"\n").replace('\r', r"\r")
}
