//! What one transaction holds: for each partition that was read from, its records and its offset, never one alone.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::kafka::{AssignmentEpoch, NextOffset, TopicPartition};

/// Records in a batch before [`Batch::is_full`]: a second's work of one sink, acknowledged in a fraction of one.
const MAX_RECORDS: usize = 10_000;

/// Bytes in a batch before [`Batch::is_full`]: it is held twice, here and in librdkafka's queue, until it is committed.
const MAX_BYTES: usize = 16 << 20;

/// A record to write: a receipt, a dead letter, an output.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Write {
    pub topic: Arc<str>,
    /// `None`: by the key's hash (murmur2). Receipts name the partition of their origin.
    pub partition: Option<i32>,
    pub key: Option<Vec<u8>>,
    /// `None`: a tombstone.
    pub value: Option<Vec<u8>>,
    pub headers: Vec<(String, Vec<u8>)>,
    /// Milliseconds since the epoch, by which retention goes; `None`: now, by the producer's clock.
    pub timestamp_ms: Option<i64>,
}

/// A record that its topic does not take.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Oversized {
    /// In the order of the batch: partition after partition, and as they were held.
    pub index: usize,
    pub topic: Arc<str>,
    /// Key, value and headers.
    pub bytes: usize,
}

impl Write {
    pub(super) fn bytes(&self) -> usize {
        let headers: usize = self.headers.iter().map(|(name, value)| name.len() + value.len()).sum();
        self.key.as_ref().map_or(0, Vec::len) + self.value.as_ref().map_or(0, Vec::len) + headers
    }
}

/// The outcomes that one transaction commits. Handed back whole where the transaction was aborted, to go into the next.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Batch {
    parts: BTreeMap<TopicPartition, Part>,
    records: usize,
    bytes: usize,
}

/// What the outcomes of one partition come to.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Part {
    pub(super) epoch: AssignmentEpoch,
    pub(super) next: NextOffset,
    pub(super) metadata: String,
    pub(super) writes: Vec<Write>,
}

impl Part {
    fn bytes(&self) -> usize {
        self.writes.iter().map(Write::bytes).sum()
    }
}

impl Batch {
    /// Adds outcomes of a partition: `next` is its settled head, the unmoved one where no head has settled, and
    /// `metadata` what a restore needs to know (a broker takes 4,096 bytes by default).
    ///
    /// Says whether they were taken: outcomes of an older assignment than those in the batch are not, and those of a
    /// newer one take the place of what is there.
    pub fn hold(
        &mut self,
        at: &TopicPartition,
        epoch: AssignmentEpoch,
        next: NextOffset,
        metadata: String,
        writes: impl IntoIterator<Item = Write>,
    ) -> bool {
        match self.parts.get(at).map(|part| part.epoch) {
            Some(found) if found > epoch => return false,
            Some(found) if found < epoch => self.forget(at),
            Some(_) | None => {}
        }
        let part = self.parts.entry(at.clone()).or_insert_with(|| Part {
            epoch,
            next,
            metadata: String::new(),
            writes: Vec::new(),
        });
        // Heads only move forward; an outcome behind the head brings the head that was.
        if next >= part.next {
            part.next = next;
            part.metadata = metadata;
        }
        for write in writes {
            self.records += 1;
            self.bytes += write.bytes();
            part.writes.push(write);
        }
        true
    }

    /// Adds records that no offset goes with, for [`Transactor::commit_records`](super::Transactor::commit_records). `at`
    /// is where they come from.
    pub fn add(&mut self, at: &TopicPartition, writes: impl IntoIterator<Item = Write>) {
        self.hold(at, AssignmentEpoch(0), NextOffset::stored(0), String::new(), writes);
    }

    fn forget(&mut self, at: &TopicPartition) {
        if let Some(part) = self.parts.remove(at) {
            self.records -= part.writes.len();
            self.bytes -= part.bytes();
        }
    }

    /// Drops what is not held under the assignment that it was settled under; says for how many partitions.
    pub(super) fn keep(&mut self, mut held: impl FnMut(&TopicPartition, AssignmentEpoch) -> bool) -> usize {
        let stale: Vec<_> =
            self.parts.iter().filter(|(at, part)| !held(at, part.epoch)).map(|(at, _)| at.clone()).collect();
        for at in &stale {
            self.forget(at);
        }
        stale.len()
    }

    pub(super) fn parts(&self) -> impl Iterator<Item = (&TopicPartition, &Part)> {
        self.parts.iter()
    }

    /// Every record, beside the partition whose outcome it belongs to.
    pub(super) fn writes(&self) -> impl Iterator<Item = (&TopicPartition, &Write)> {
        self.parts.iter().flat_map(|(at, part)| part.writes.iter().map(move |write| (at, write)))
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.parts.is_empty()
    }

    /// Time to commit: more would only wait.
    #[must_use]
    pub fn is_full(&self) -> bool {
        self.records >= MAX_RECORDS || self.bytes >= MAX_BYTES
    }

    #[must_use]
    pub fn records(&self) -> usize {
        self.records
    }

    #[must_use]
    pub fn bytes(&self) -> usize {
        self.bytes
    }

    /// The offset that it commits for a partition.
    #[must_use]
    pub fn next(&self, at: &TopicPartition) -> Option<NextOffset> {
        self.parts.get(at).map(|part| part.next)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition { topic: Arc::from("events"), partition }
    }

    fn write(value: &str) -> Write {
        Write {
            topic: Arc::from("receipts"),
            partition: Some(0),
            key: None,
            value: Some(value.as_bytes().to_vec()),
            headers: Vec::new(),
            timestamp_ms: None,
        }
    }

    fn hold(batch: &mut Batch, partition: i32, epoch: u64, next: i64, value: &str) -> bool {
        let next = NextOffset::stored(next);
        batch.hold(&at(partition), AssignmentEpoch(epoch), next, format!("at {}", next.get()), [write(value)])
    }

    #[test]
    fn outcomes_add_up_and_the_head_moves_only_forward() {
        let mut batch = Batch::default();
        assert!(hold(&mut batch, 0, 1, 5, "a"));
        assert!(hold(&mut batch, 0, 1, 9, "bb"));
        assert!(hold(&mut batch, 0, 1, 7, "c"));
        assert_eq!((batch.records(), batch.bytes()), (3, 4));
        let (_, part) = batch.parts().next().unwrap();
        assert_eq!((part.next.get(), part.metadata.as_str()), (9, "at 9"));
        assert_eq!(part.writes, [write("a"), write("bb"), write("c")]);
    }

    #[test]
    fn a_newer_assignment_takes_the_place_of_an_older_one_and_never_the_other_way() {
        let mut batch = Batch::default();
        hold(&mut batch, 0, 1, 5, "old");
        assert!(hold(&mut batch, 0, 2, 3, "new"));
        assert!(!hold(&mut batch, 0, 1, 6, "old"));
        assert_eq!((batch.next(&at(0)), batch.records(), batch.bytes()), (Some(NextOffset::stored(3)), 1, 3));
    }

    #[test]
    fn what_is_held_no_longer_goes_with_its_offset() {
        let mut batch = Batch::default();
        hold(&mut batch, 0, 1, 5, "gone");
        hold(&mut batch, 1, 1, 8, "kept");
        assert_eq!(batch.keep(|at, _| at.partition == 1), 1);
        assert_eq!((batch.next(&at(0)), batch.next(&at(1))), (None, Some(NextOffset::stored(8))));
        assert_eq!((batch.records(), batch.bytes()), (1, 4));
        assert_eq!(batch.keep(|_, _| false), 1);
        assert!(batch.is_empty());
    }

    #[test]
    fn a_batch_is_full_in_records_or_in_bytes() {
        let mut many = Batch::default();
        many.hold(
            &at(0),
            AssignmentEpoch(1),
            NextOffset::stored(1),
            String::new(),
            (0..MAX_RECORDS).map(|_| write("")),
        );
        assert!(many.is_full());
        let mut large = Batch::default();
        hold(&mut large, 0, 1, 1, &"x".repeat(MAX_BYTES));
        assert!(large.is_full());
        assert!(!Batch::default().is_full());
    }
}
