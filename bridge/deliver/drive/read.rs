//! Receipts in: one reader for the partitions that came together, which restores them and then follows what is written.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::task::AbortHandle;

use super::Names;
use crate::deliver::machine::Input;
use crate::deliver::restore::{Bookmark, Entry, restore};
use crate::kafka::consume::AssignmentEpoch;
use crate::kafka::restore::{Committed, Restore, Source, Step, Wait};
use crate::kafka::{self, Client, TopicPartition};
use crate::schema::Decoder;

/// What readers tell may wait: each is up to two thousand receipts, of some hundred bytes in memory.
const TOLD: usize = 4;

/// A partition to restore, as the machine asked for it.
pub(super) struct Wanted {
    pub(super) at: TopicPartition,
    pub(super) epoch: AssignmentEpoch,
    pub(super) restore: u64,
    pub(super) since: Duration,
}

/// What a reader tells.
pub(super) enum Told {
    Inputs(Vec<Input>),
    Waiting { topic: Arc<str>, wait: Wait },
    Failed(kafka::Error),
}

/// Everything that a reader is made of.
pub(super) struct Readings {
    client: Client,
    group: String,
    decoder: Arc<Decoder>,
    schema_id: u32,
    names: Arc<Names>,
    at_work: Vec<Reading>,
    tell: mpsc::Sender<Told>,
}

struct Reading {
    topic: Arc<str>,
    /// Partitions that nobody has asked for again since.
    partitions: BTreeSet<i32>,
    task: AbortHandle,
}

impl Drop for Reading {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Readings {
    pub(super) fn new(
        client: Client,
        group: String,
        decoder: Arc<Decoder>,
        schema_id: u32,
        names: Arc<Names>,
    ) -> (Self, mpsc::Receiver<Told>) {
        let (tell, told) = mpsc::channel(TOLD);
        (Self { client, group, decoder, schema_id, names, at_work: Vec::new(), tell }, told)
    }

    /// A partition is gone, or is about to be read anew.
    pub(super) fn forget<'a>(&mut self, partitions: impl IntoIterator<Item = &'a TopicPartition>) {
        for at in partitions {
            for reading in self.at_work.iter_mut().filter(|reading| reading.topic == at.topic) {
                reading.partitions.remove(&at.partition);
            }
        }
        self.at_work.retain(|reading| !reading.partitions.is_empty());
    }

    /// Begins to read for partitions that were asked for together: one reader for each topic among them.
    pub(super) fn start(&mut self, wanted: Vec<Wanted>) -> Result<(), kafka::Error> {
        self.forget(wanted.iter().map(|one| &one.at));
        let mut topics: BTreeMap<Arc<str>, Vec<Wanted>> = BTreeMap::new();
        for one in wanted {
            topics.entry(Arc::clone(&one.at.topic)).or_default().push(one);
        }
        for (topic, wanted) in topics {
            let since = wanted.iter().map(|one| one.since).min().unwrap_or_default();
            let partitions: BTreeSet<i32> = wanted.iter().map(|one| one.at.partition).collect();
            let source = Source {
                group: self.group.clone(),
                events: Arc::clone(&topic),
                receipts: self.names.receipts(&topic),
                partitions: partitions.iter().copied().collect(),
            };
            let since_ms = i64::try_from(since.as_millis()).unwrap_or(i64::MAX);
            let reader = restore(&self.client, source, self.schema_id, since_ms)?;
            let follow = Follow {
                topic: Arc::clone(&topic),
                wanted: wanted.into_iter().map(|one| (one.at.partition, one)).collect(),
                decoder: Arc::clone(&self.decoder),
            };
            let task = tokio::spawn(follow.run(reader, self.tell.clone())).abort_handle();
            self.at_work.push(Reading { topic, partitions, task });
        }
        Ok(())
    }
}

/// Turns what one reader tells into inputs.
struct Follow {
    topic: Arc<str>,
    wanted: BTreeMap<i32, Wanted>,
    decoder: Arc<Decoder>,
}

impl Follow {
    async fn run(self, mut reader: Restore<Entry>, tell: mpsc::Sender<Told>) {
        while let Some(step) = reader.next().await {
            let told = match step {
                Step::Waiting(wait) => Told::Waiting { topic: Arc::clone(&self.topic), wait },
                Step::Committed(found) => Told::Inputs(self.found(found)),
                Step::Records { records, read_to } => Told::Inputs(self.followed(records, &read_to).await),
                Step::CaughtUp { partition, next } => Told::Inputs(self.caught_up(partition, next)),
                Step::Failed(error) => Told::Failed(error),
            };
            if tell.send(told).await.is_err() {
                return;
            }
        }
    }

    fn found(&self, found: Vec<(i32, Committed)>) -> Vec<Input> {
        let inputs = found.into_iter().filter_map(|(partition, committed)| {
            let Wanted { at, epoch, restore, .. } = self.wanted.get(&partition)?;
            let rewound = Bookmark::read(&committed.metadata).map(|bookmark| bookmark.rewound);
            Some(Input::Found { at: at.clone(), epoch: *epoch, restore: *restore, next: committed.next, rewound })
        });
        inputs.collect()
    }

    async fn followed(&self, entries: Vec<Entry>, read_to: &BTreeMap<i32, i64>) -> Vec<Input> {
        let mut receipts: BTreeMap<i32, Vec<_>> = BTreeMap::new();
        for entry in entries {
            let partition = entry.partition;
            receipts.entry(partition).or_default().extend(entry.resolve(&self.decoder).await);
        }
        let inputs = read_to.iter().filter_map(|(partition, position)| {
            let Wanted { at, epoch, restore, .. } = self.wanted.get(partition)?;
            let receipts = receipts.remove(partition).unwrap_or_default();
            Some(Input::Followed { at: at.clone(), epoch: *epoch, restore: *restore, receipts, position: *position })
        });
        inputs.collect()
    }

    fn caught_up(&self, partition: i32, position: i64) -> Vec<Input> {
        let Some(Wanted { at, epoch, restore, .. }) = self.wanted.get(&partition) else { return vec![] };
        let (epoch, restore) = (*epoch, *restore);
        vec![
            Input::Followed { at: at.clone(), epoch, restore, receipts: vec![], position },
            Input::Restored { at: at.clone(), epoch, restore },
        ]
    }
}
