//! The Postgres sink: rows and the partition's offset row in one transaction, so that each event has its effect once.
//!
//! ```text
//! claim    epoch + 1 in hookbridge_offsets, next_offset back          (at each assignment, then reading starts there)
//! deliver  BEGIN
//!          UPDATE hookbridge_offsets SET next_offset = <new>
//!            WHERE sink, topic, partition AND next_offset = <expected> AND epoch = <claimed>   0 rows: fenced, ROLLBACK
//!          INSERT ... ON CONFLICT (hb_delivery_id) DO NOTHING RETURNING hb_offset     missing: a duplicate
//!          COMMIT                                                     no answer: in doubt, and the offset row decides
//! ```
//!
//! A bridge that lost its partition without noticing (a zombie) finds another epoch in the row and writes nothing.
//! The swap comes before the rows: a zombie learns of its end before it has written anything that the owner's inserts
//! would have to wait for, and two that meet queue at one row instead of at many unique keys.

mod bisect;
mod columns;
mod failure;
mod outside;
mod rows;
mod session;
mod tables;

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio_postgres::Client;
use tokio_postgres::types::{ToSql, Type};

use self::bisect::Bisection;
use self::columns::columns_of;
use self::failure::Failure;
use self::rows::{Layout, Rows, value_of};
use self::session::{Session, Sessions};
use super::{Delivery, Halt, Item, Progress};
use crate::config::{self, Ddl};
use crate::kafka::{NextOffset, TopicPartition};
use crate::outcome::Outcome;

pub use self::outside::{Rewound, Seen, Stand};
pub use self::session::SESSIONS;

/// From BEGIN to the answer to COMMIT. Longer than `statement_timeout`, so that the server, which knows more, speaks
/// first; a connection that is silent for longer is given up.
const TRANSACTION_DEADLINE: Duration = Duration::from_secs(30);

/// Making or widening a table may take as long as the server allows it (`tables`), and a little for the way.
const DDL_DEADLINE: Duration = Duration::from_secs(310);

/// Layouts kept, one for each table and schema id. A sink meets a handful; past this many something invents schemas,
/// and they are looked up again.
const MAX_LAYOUTS: usize = 1_000;

/// `next_offset` of a partition of which nothing was ever settled, by us or by the group.
const FROM_EARLIEST: i64 = -1;

/// What is wrong with a Postgres sink's configuration.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("sink {sink}: its url is refused")]
    Url {
        sink: String,
        #[source]
        source: session::Error,
    },
}

/// A claim on a partition's offset row: what the row holds, as long as nobody else claims it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    next_offset: i64,
    epoch: i64,
    /// A COMMIT was sent and not answered.
    in_doubt: Option<Doubt>,
}

/// What is so if a transaction committed of which nobody knows.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Doubt {
    next_offset: i64,
    /// Offsets of the events that had a row before it; at most a batch's.
    duplicates: Vec<i64>,
}

impl Row {
    #[cfg(test)]
    pub(crate) fn standing_at(next_offset: i64) -> Self {
        Self { next_offset, epoch: 1, in_doubt: None }
    }

    /// Where to read on; `None`: at the earliest record.
    #[must_use]
    pub fn next(&self) -> Option<NextOffset> {
        (self.next_offset != FROM_EARLIEST).then(|| NextOffset::stored(self.next_offset))
    }

    #[must_use]
    pub fn epoch(&self) -> i64 {
        self.epoch
    }
}

/// A database that takes events as rows.
#[derive(Debug)]
pub struct Postgres {
    sink: String,
    schema: String,
    table: String,
    ddl: Ddl,
    max_batch: usize,
    /// The offsets table, quoted.
    offsets: String,
    offsets_ready: AtomicBool,
    sessions: Sessions,
    layouts: Mutex<HashMap<(String, u32), Arc<Layout>>>,
}

impl Postgres {
    /// Checks the configuration; connects to nothing.
    pub fn new(sink: &str, config: &config::Postgres) -> Result<Self, Error> {
        let sessions =
            Sessions::new(config.url.expose()).map_err(|source| Error::Url { sink: sink.to_owned(), source })?;
        Ok(Self {
            sink: sink.to_owned(),
            schema: config.schema.clone(),
            table: config.table.clone(),
            ddl: config.ddl,
            max_batch: config.max_batch.max(1),
            offsets: tables::qualified(&config.schema, "hookbridge_offsets"),
            offsets_ready: AtomicBool::new(false),
            sessions,
            layouts: Mutex::default(),
        })
    }

    pub(super) fn max_batch(&self) -> usize {
        self.max_batch
    }

    /// Takes a partition: whoever held it before can write no more. A partition that the table has never seen starts
    /// at `committed`, the group's offset, else at the earliest record.
    pub async fn claim(&self, at: &TopicPartition, committed: Option<NextOffset>) -> Result<Row, Outcome> {
        let claimed = async {
            let session = self.sessions.open().await?;
            let claimed = within(TRANSACTION_DEADLINE, self.claim_on(session.client(), at, committed)).await?;
            session.keep();
            Ok::<_, Failure>(claimed)
        };
        claimed.await.map_err(|failure| {
            self.forget_tables(&failure);
            failure.outcome()
        })
    }

    async fn claim_on(
        &self,
        client: &Client,
        at: &TopicPartition,
        committed: Option<NextOffset>,
    ) -> Result<Row, Failure> {
        if !self.offsets_ready.load(Ordering::Relaxed) {
            tables::ensure_offsets(client, self.ddl, &self.offsets).await?;
            self.offsets_ready.store(true, Ordering::Relaxed);
        }
        let claim = format!(
            "INSERT INTO {0} AS o (sink, topic, partition, next_offset, epoch) VALUES ($1, $2, $3, $4, 1) \
             ON CONFLICT (sink, topic, partition) DO UPDATE SET epoch = o.epoch + 1 RETURNING next_offset, epoch",
            self.offsets
        );
        let start = committed.map_or(FROM_EARLIEST, NextOffset::get);
        let key = self.key_of(at);
        let mut params = key.params();
        params.push((&start, Type::INT8));
        let rows = client.query_typed(&claim, &params).await.map_err(|error| Failure::of_session(&error))?;
        let (next_offset, epoch) = offset_row(&rows)?.ok_or_else(|| Failure::transient("the claim gave no row"))?;
        Ok(Row { next_offset, epoch, in_doubt: None })
    }

    /// Writes a batch of consecutive records of one partition, and says how far it got. `row` moves along.
    pub async fn deliver(&self, row: &mut Row, at: &TopicPartition, items: &[Item]) -> Progress {
        let mut duplicates = Vec::new();
        let (settled, failure) = match self.advance(row, at, items, &mut duplicates).await {
            Ok(()) => (items.len(), None),
            Err((settled, failure)) => (settled, Some(failure)),
        };
        let halt = failure.map(|failure| match failure {
            Failure::Fenced => Halt::Fenced,
            failure => Halt::Answer(failure.outcome()),
        });
        Progress { settled, duplicates, halt }
    }

    /// Adds to `duplicates`; a failure comes with how many items are settled in spite of it.
    async fn advance(
        &self,
        row: &mut Row,
        at: &TopicPartition,
        items: &[Item],
        duplicates: &mut Vec<i64>,
    ) -> Result<(), (usize, Failure)> {
        let mut settled = 0;
        if row.in_doubt.is_some() {
            duplicates.extend(self.resolve(row, at).await.map_err(|failure| (0, failure))?);
            settled = settled_below(row.next_offset, items);
        }
        let mut bisection = Bisection::new(settled, items.len());
        while let Some(range) = bisection.next() {
            match self.transact(row, at, &items[range]).await {
                Ok(found) => {
                    duplicates.extend(found);
                    bisection.passed();
                }
                Err(Failure::Refused { reason }) => {
                    if bisection.refused() {
                        return Err((bisection.done(), Failure::Refused { reason }));
                    }
                }
                Err(Failure::InDoubt) => {
                    // A moment later the database is often there again, and then nothing is in doubt.
                    let before = bisection.done();
                    duplicates.extend(self.resolve(row, at).await.map_err(|failure| (before, failure))?);
                    let landed = settled_below(row.next_offset, items);
                    if landed <= before {
                        let reason = "the connection broke at COMMIT, which did not happen";
                        return Err((before, Failure::transient(reason)));
                    }
                    bisection = Bisection::new(landed, items.len());
                }
                Err(failure) => {
                    self.forget_tables(&failure);
                    return Err((bisection.done(), failure));
                }
            }
        }
        Ok(())
    }

    /// One transaction: all of `items` and the offset after them, or nothing. Gives the offsets of duplicates.
    async fn transact(&self, row: &mut Row, at: &TopicPartition, items: &[Item]) -> Result<Vec<i64>, Failure> {
        let Some(last) = items.last() else { return Ok(vec![]) };
        let next = NextOffset::after(last.offset()).get();
        let session = self.sessions.open().await?;
        let rows = self.rows_of(session.client(), at, items).await?;
        let opened = within(TRANSACTION_DEADLINE, self.write(session.client(), row, next, at, &rows)).await;
        let duplicates = match opened {
            Ok(duplicates) => duplicates,
            Err(failure) => {
                give_back_after_rollback(session).await;
                return Err(failure);
            }
        };
        let commit = tokio::time::timeout(TRANSACTION_DEADLINE, session.client().batch_execute("COMMIT")).await;
        match commit {
            Ok(Ok(())) => {
                row.next_offset = next;
                session.keep();
                Ok(duplicates)
            }
            Ok(Err(error)) => {
                let failure = Failure::of_commit(&error);
                if failure == Failure::InDoubt {
                    row.in_doubt = Some(Doubt { next_offset: next, duplicates });
                }
                Err(failure)
            }
            Err(_elapsed) => {
                row.in_doubt = Some(Doubt { next_offset: next, duplicates });
                Err(Failure::InDoubt)
            }
        }
    }

    /// Everything of a transaction but its COMMIT. Gives the offsets of events that have a row already.
    async fn write(
        &self,
        client: &Client,
        row: &Row,
        next: i64,
        at: &TopicPartition,
        rows: &[Rows],
    ) -> Result<Vec<i64>, Failure> {
        client.batch_execute("BEGIN").await.map_err(|error| Failure::of_session(&error))?;
        let swap = format!(
            "UPDATE {} SET next_offset = $4 WHERE sink = $1 AND topic = $2 AND partition = $3 \
             AND next_offset = $5 AND epoch = $6",
            self.offsets
        );
        #[cfg(feature = "seeded-bugs")]
        let swap = unfenced_where_seeded(swap);
        let key = self.key_of(at);
        let mut params = key.params();
        params.extend([
            (&next as &(dyn ToSql + Sync), Type::INT8),
            (&row.next_offset, Type::INT8),
            (&row.epoch, Type::INT8),
        ]);
        let swapped = client.execute_typed(&swap, &params).await.map_err(|error| Failure::of_session(&error))?;
        if swapped == 0 {
            return Err(Failure::Fenced);
        }
        #[cfg(feature = "seeded-bugs")]
        if crate::seeded::has(crate::seeded::Bug::CommitBeforeDeliver) {
            client.batch_execute("COMMIT; BEGIN").await.map_err(|error| Failure::of_session(&error))?;
            // A moment in which a kill shows it.
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        let mut duplicates = Vec::new();
        for rows in rows {
            let (insert, params) = rows.insert();
            let inserted = client.query_typed(insert, &params).await.map_err(|error| Failure::of(&error))?;
            if inserted.len() < rows.offsets().len() {
                let inserted: Result<HashSet<i64>, _> = inserted.iter().map(|row| row.try_get(0)).collect();
                let inserted = inserted.map_err(|error| Failure::of_session(&error))?;
                duplicates.extend(rows.offsets().iter().filter(|offset| !inserted.contains(offset)));
            }
        }
        Ok(duplicates)
    }

    /// After a COMMIT without an answer the offset row says what became of it. Reading it takes its lock: as long as
    /// the transaction in doubt is alive it holds that lock, so that the answer is never read too early.
    /// Gives the transaction's duplicates, none where it did not commit.
    async fn resolve(&self, row: &mut Row, at: &TopicPartition) -> Result<Vec<i64>, Failure> {
        let Some(sent) = &row.in_doubt else { return Ok(vec![]) };
        let session = self.sessions.open().await?;
        let look = format!(
            "SELECT next_offset, epoch FROM {} WHERE sink = $1 AND topic = $2 AND partition = $3 FOR UPDATE",
            self.offsets
        );
        let key = self.key_of(at);
        let read = async {
            session.client().query_typed(&look, &key.params()).await.map_err(|error| Failure::of_session(&error))
        };
        let rows = within(TRANSACTION_DEADLINE, read).await?;
        session.keep();
        match offset_row(&rows)? {
            Some((next_offset, epoch)) if epoch == row.epoch && next_offset == sent.next_offset => {
                row.next_offset = next_offset;
                Ok(row.in_doubt.take().map(|sent| sent.duplicates).unwrap_or_default())
            }
            Some((next_offset, epoch)) if epoch == row.epoch && next_offset == row.next_offset => {
                row.in_doubt = None;
                Ok(vec![])
            }
            _ => Err(Failure::Fenced),
        }
    }

    /// The batch's rows, those of one table and schema together, after making sure that the tables can hold them.
    async fn rows_of(&self, client: &Client, at: &TopicPartition, items: &[Item]) -> Result<Vec<Rows>, Failure> {
        let mut all: Vec<Rows> = Vec::new();
        for item in items {
            let Item::Send(delivery) = item else { continue };
            let layout = self.layout_of(client, delivery).await?;
            let found = all.iter().position(|rows| rows.are_of(&layout));
            let found = found.unwrap_or_else(|| {
                all.push(Rows::new(layout, items.len()));
                all.len() - 1
            });
            all[found].push(delivery, at).map_err(|error| Failure::Refused { reason: error.to_string() })?;
        }
        Ok(all)
    }

    async fn layout_of(&self, client: &Client, delivery: &Delivery) -> Result<Arc<Layout>, Failure> {
        let table = self.table.replace("{event_type}", &delivery.identity.event_type);
        let key = (table, delivery.schema_id);
        if let Some(layout) = self.layouts().get(&key) {
            return Ok(Arc::clone(layout));
        }
        // The schema is the event's own; of a foreign producer's it may be one that no table can hold.
        let (shape, _) = value_of(delivery).map_err(|error| Failure::Refused { reason: error.to_string() })?;
        let columns = columns_of(shape)
            .map_err(|problems| Failure::Refused { reason: format!("schema {}: {}", key.1, problems.join("; ")) })?;
        let name = tables::qualified(&self.schema, &key.0);
        within(DDL_DEADLINE, tables::ensure(client, self.ddl, &name, &columns)).await?;
        let layout = Arc::new(Layout::new(&name, columns));
        let mut layouts = self.layouts();
        if layouts.len() >= MAX_LAYOUTS {
            layouts.clear();
        }
        layouts.insert(key, Arc::clone(&layout));
        Ok(layout)
    }

    /// A table that was right may have been dropped or changed by a person: what is misconfigured is looked at again
    /// before the next attempt.
    fn forget_tables(&self, failure: &Failure) {
        if matches!(failure, Failure::Answer(Outcome::Misconfigured { .. })) {
            self.layouts().clear();
            self.offsets_ready.store(false, Ordering::Relaxed);
        }
    }

    fn layouts(&self) -> MutexGuard<'_, HashMap<(String, u32), Arc<Layout>>> {
        self.layouts.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn key_of<'a>(&'a self, at: &'a TopicPartition) -> Key<'a> {
        Key { sink: &self.sink, topic: &at.topic, partition: at.partition }
    }
}

/// The offset row's primary key.
struct Key<'a> {
    sink: &'a str,
    topic: &'a str,
    partition: i32,
}

impl Key<'_> {
    fn params(&self) -> Vec<(&(dyn ToSql + Sync), Type)> {
        vec![(&self.sink, Type::TEXT), (&self.topic, Type::TEXT), (&self.partition, Type::INT4)]
    }
}

fn offset_row(rows: &[tokio_postgres::Row]) -> Result<Option<(i64, i64)>, Failure> {
    let Some(row) = rows.first() else { return Ok(None) };
    let read = |at| row.try_get(at).map_err(|error| Failure::of_session(&error));
    Ok(Some((read(0)?, read(1)?)))
}

/// How many leading items the offset row has passed.
fn settled_below(next_offset: i64, items: &[Item]) -> usize {
    items.partition_point(|item| item.offset() < next_offset)
}

#[cfg(feature = "seeded-bugs")]
fn unfenced_where_seeded(swap: String) -> String {
    if !crate::seeded::has(crate::seeded::Bug::NoFencing) {
        return swap;
    }
    swap.replace("AND next_offset = $5 AND epoch = $6", "AND $5::bigint = $5 AND $6::bigint = $6")
}

async fn within<T>(deadline: Duration, work: impl Future<Output = Result<T, Failure>>) -> Result<T, Failure> {
    tokio::time::timeout(deadline, work).await.map_err(|_| Failure::transient("the database did not answer in time"))?
}

/// A session is kept only once nothing is open on it.
async fn give_back_after_rollback(session: Session<'_>) {
    const ROLLBACK_DEADLINE: Duration = Duration::from_secs(5);
    let rolled_back = tokio::time::timeout(ROLLBACK_DEADLINE, session.client().batch_execute("ROLLBACK")).await;
    if matches!(rolled_back, Ok(Ok(()))) {
        session.keep();
    }
}
