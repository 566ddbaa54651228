//! What people ask a sink's database, from outside the loop: is an event there, where do partitions stand, and back with
//! them.

use tokio_postgres::Client;
use tokio_postgres::types::Type;
use uuid::Uuid;

use super::{Failure, Postgres, TRANSACTION_DEADLINE, tables, within};
use crate::kafka::TopicPartition;
use crate::outcome::Outcome;

/// Rows that are shown of one event: one, unless somebody else writes to the table.
const MAX_ROWS: i64 = 10;

/// A row of an event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Seen {
    /// As PostgreSQL writes it.
    pub table: String,
    pub topic: Option<String>,
    pub partition: Option<i32>,
    pub offset: Option<i64>,
}

/// Where a partition stands in the offsets table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stand {
    pub topic: String,
    pub partition: i32,
    pub next_offset: i64,
    pub epoch: i64,
}

/// What became of putting one partition's offset back.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rewound {
    /// It stood at `from`.
    Back { from: i64 },
    /// It stands there or before it: nothing is skipped by a rewind.
    NotBeyond { at: i64 },
    /// The sink has never settled anything of it.
    Unknown,
}

impl Postgres {
    /// The rows of a delivery, in the table of its event type; none where there is no such table.
    ///
    /// # Errors
    /// The database's answer.
    pub async fn seen(&self, event_type: &str, delivery_id: Uuid) -> Result<Vec<Seen>, Outcome> {
        let table = tables::qualified(&self.schema, &self.table.replace("{event_type}", event_type));
        self.asking(async |client| {
            if !exists(client, &table).await? {
                return Ok(Vec::new());
            }
            let look = format!(
                "SELECT hb_topic, hb_partition, hb_offset FROM {table} WHERE hb_delivery_id = $1::text::uuid LIMIT $2"
            );
            let id = delivery_id.to_string();
            let rows = client.query_typed(&look, &[(&id, Type::TEXT), (&MAX_ROWS, Type::INT8)]).await;
            let rows = rows.map_err(|error| Failure::of_session(&error))?;
            let seen = rows.iter().map(|row| {
                let read = |error: tokio_postgres::Error| Failure::of_session(&error);
                Ok(Seen {
                    table: table.clone(),
                    topic: row.try_get(0).map_err(read)?,
                    partition: row.try_get(1).map_err(read)?,
                    offset: row.try_get(2).map_err(read)?,
                })
            });
            seen.collect()
        })
        .await
    }

    /// Where the sink's partitions stand; none where it has never run.
    ///
    /// # Errors
    /// The database's answer.
    pub async fn stands(&self) -> Result<Vec<Stand>, Outcome> {
        self.asking(async |client| {
            if !exists(client, &self.offsets).await? {
                return Ok(Vec::new());
            }
            let look = format!(
                "SELECT topic, partition, next_offset, epoch FROM {} WHERE sink = $1 ORDER BY topic, partition",
                self.offsets
            );
            let rows = client.query_typed(&look, &[(&self.sink, Type::TEXT)]).await;
            let rows = rows.map_err(|error| Failure::of_session(&error))?;
            let stands = rows.iter().map(|row| {
                let read = |error: tokio_postgres::Error| Failure::of_session(&error);
                Ok(Stand {
                    topic: row.try_get(0).map_err(read)?,
                    partition: row.try_get(1).map_err(read)?,
                    next_offset: row.try_get(2).map_err(read)?,
                    epoch: row.try_get(3).map_err(read)?,
                })
            });
            stands.collect()
        })
        .await
    }

    /// Puts a partition's offset back to `to`, by one compare-and-swap that raises its epoch: its owner's next transaction
    /// finds another epoch, rolls back, and reads the row again, as it does after any fence. Never forward.
    ///
    /// # Errors
    /// The database's answer.
    pub async fn rewind(&self, at: &TopicPartition, to: i64) -> Result<Rewound, Outcome> {
        let key = self.key_of(at);
        self.asking(async |client| {
            let swap = format!(
                "WITH before AS (SELECT next_offset FROM {0} WHERE sink = $1 AND topic = $2 AND partition = $3 FOR UPDATE), \
                 swapped AS (UPDATE {0} AS o SET next_offset = $4, epoch = o.epoch + 1 FROM before \
                 WHERE o.sink = $1 AND o.topic = $2 AND o.partition = $3 AND before.next_offset > $4 RETURNING 1) \
                 SELECT before.next_offset, EXISTS (SELECT 1 FROM swapped) FROM before",
                self.offsets
            );
            let mut params = key.params();
            params.push((&to, Type::INT8));
            let rows = client.query_typed(&swap, &params).await.map_err(|error| Failure::of_session(&error))?;
            let Some(row) = rows.first() else { return Ok(Rewound::Unknown) };
            let from: i64 = row.try_get(0).map_err(|error| Failure::of_session(&error))?;
            let swapped: bool = row.try_get(1).map_err(|error| Failure::of_session(&error))?;
            Ok(if swapped { Rewound::Back { from } } else { Rewound::NotBeyond { at: from } })
        })
        .await
    }

    async fn asking<T>(&self, ask: impl AsyncFnOnce(&Client) -> Result<T, Failure>) -> Result<T, Outcome> {
        let asked = async {
            let session = self.sessions.open().await?;
            let answer = within(TRANSACTION_DEADLINE, ask(session.client())).await?;
            session.keep();
            Ok::<_, Failure>(answer)
        };
        asked.await.map_err(Failure::outcome)
    }
}

async fn exists(client: &Client, table: &str) -> Result<bool, Failure> {
    let rows = client.query_typed("SELECT to_regclass($1) IS NOT NULL", &[(&table, Type::TEXT)]).await;
    let rows = rows.map_err(|error| Failure::of_session(&error))?;
    rows.first().map_or(Ok(false), |row| row.try_get(0).map_err(|error| Failure::of_session(&error)))
}
