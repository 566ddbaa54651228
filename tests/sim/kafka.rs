//! A model of Kafka, as far as a sink's machine can tell: logs with gaps, a group with generations, one transaction for
//! each `transactional.id`, the last stable offset, and offsets that are committed by transactions only.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use hookbridge::deliver::{Fate, Receipt, Rewound};
use uuid::Uuid;

/// A process: its slot, and how many lived in that slot before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Life {
    pub(crate) slot: usize,
    pub(crate) number: u64,
}

#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) offset: i64,
    pub(crate) number: u64,
    pub(crate) delivery_id: Uuid,
    pub(crate) key: Option<Vec<u8>>,
    pub(crate) at: Duration,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Visible {
    Pending,
    Committed,
    Aborted,
}

/// A record of the receipts topic; `None`: a transaction's marker.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) receipt: Option<Receipt>,
    pub(crate) visible: Visible,
}

/// A committed offset, with its metadata.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committed {
    pub(crate) next: i64,
    pub(crate) receipts_from: i64,
    pub(crate) rewound: Rewound,
}

/// An order that was carried out.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Back {
    /// Receipts before it were there already.
    pub(crate) position: i64,
    pub(crate) to: i64,
    pub(crate) number: u64,
}

/// A transaction between its first record and its end.
#[derive(Debug, Default)]
pub(crate) struct Ongoing {
    pub(crate) written: Vec<(usize, usize)>,
    pub(crate) offsets: Vec<(usize, Committed)>,
    pub(crate) began: Duration,
}

#[derive(Debug, Default)]
pub(crate) struct Producer {
    pub(crate) epoch: u64,
    pub(crate) owner: Option<Life>,
    pub(crate) ongoing: Option<Ongoing>,
}

#[derive(Debug)]
pub(crate) struct Group {
    pub(crate) generation: u64,
    /// With the generation that each of them knows.
    pub(crate) members: BTreeMap<Life, u64>,
    pub(crate) owners: Vec<Option<Life>>,
    /// Revocations that somebody has not answered yet.
    pub(crate) draining: BTreeMap<u64, (Life, Vec<usize>)>,
    pub(crate) wants_rebalance: bool,
}

#[derive(Debug)]
pub(crate) struct Kafka {
    pub(crate) events: Vec<Vec<Event>>,
    ends: Vec<i64>,
    pub(crate) receipts: Vec<Vec<Written>>,
    pub(crate) committed: Vec<Option<Committed>>,
    pub(crate) back: Vec<Vec<Back>>,
    pub(crate) producers: Vec<Producer>,
    pub(crate) group: Group,
}

impl Kafka {
    pub(crate) fn new(partitions: usize, slots: usize) -> Self {
        Self {
            events: vec![vec![]; partitions],
            ends: vec![0; partitions],
            receipts: vec![vec![]; partitions],
            committed: vec![None; partitions],
            back: vec![vec![]; partitions],
            producers: (0..slots).map(|_| Producer::default()).collect(),
            group: Group {
                generation: 0,
                members: BTreeMap::new(),
                owners: vec![None; partitions],
                draining: BTreeMap::new(),
                wants_rebalance: false,
            },
        }
    }

    /// Appends an event; `gap` offsets before it are taken by something that no reader sees.
    pub(crate) fn append(
        &mut self,
        partition: usize,
        number: u64,
        delivery_id: Uuid,
        key: Option<Vec<u8>>,
        gap: i64,
        at: Duration,
    ) -> i64 {
        let offset = self.ends[partition] + gap;
        self.ends[partition] = offset + 1;
        self.events[partition].push(Event { offset, number, delivery_id, key, at });
        offset
    }

    pub(crate) fn last_event(&self, partition: usize) -> Option<i64> {
        self.events[partition].last().map(|event| event.offset)
    }

    /// `init_transactions`: fences whoever had the id, and ends what it left open.
    pub(crate) fn init_producer(&mut self, life: Life) -> u64 {
        self.end(life.slot, false);
        let producer = &mut self.producers[life.slot];
        producer.epoch += 1;
        producer.owner = Some(life);
        producer.epoch
    }

    /// `false`: fenced.
    pub(crate) fn produce(
        &mut self,
        life: Life,
        epoch: u64,
        receipts: &[(usize, Receipt)],
        now: Duration,
    ) -> Option<Vec<i64>> {
        let producer = &mut self.producers[life.slot];
        if producer.epoch != epoch {
            return None;
        }
        let ongoing = producer.ongoing.get_or_insert_with(|| Ongoing { began: now, ..Ongoing::default() });
        let mut positions = vec![];
        for (partition, receipt) in receipts {
            let log = &mut self.receipts[*partition];
            positions.push(i64::try_from(log.len()).unwrap());
            ongoing.written.push((*partition, log.len()));
            log.push(Written { receipt: Some(receipt.clone()), visible: Visible::Pending });
        }
        Some(positions)
    }

    /// TxnOffsetCommit, fenced by member and generation; the broker does not ask who owns the partition.
    pub(crate) fn send_offsets(&mut self, life: Life, generation: u64, offsets: Vec<(usize, Committed)>) -> bool {
        if self.group.generation != generation || !self.group.members.contains_key(&life) {
            return false;
        }
        if let Some(ongoing) = &mut self.producers[life.slot].ongoing {
            ongoing.offsets.extend(offsets);
        }
        true
    }

    /// Ends whatever transaction the slot has open. Gives the offsets that went back, which is never to happen but by an
    /// order, and once for each.
    pub(crate) fn end(&mut self, slot: usize, commit: bool) -> Vec<String> {
        let Some(ongoing) = self.producers[slot].ongoing.take() else { return vec![] };
        let visible = if commit { Visible::Committed } else { Visible::Aborted };
        let mut touched = vec![];
        for (partition, at) in ongoing.written {
            self.receipts[partition][at].visible = visible;
            if !touched.contains(&partition) {
                touched.push(partition);
            }
        }
        for partition in touched {
            self.receipts[partition].push(Written { receipt: None, visible: Visible::Committed });
        }
        let mut back = vec![];
        if commit {
            for (partition, committed) in ongoing.offsets {
                if let Some(before) = self.committed[partition] {
                    let (was, is) = (before.rewound.number, committed.rewound.number);
                    if is > was {
                        let position = i64::try_from(self.receipts[partition].len()).unwrap();
                        self.back[partition].push(Back { position, to: committed.next, number: is });
                    } else if is < was || before.next > committed.next {
                        back.push(format!("partition {partition} went back from {before:?} to {committed:?}"));
                    }
                }
                self.committed[partition] = Some(committed);
            }
        }
        back
    }

    /// A record without a transaction: what a replay writes.
    pub(crate) fn write_plain(&mut self, partition: usize, receipt: Receipt) {
        self.receipts[partition].push(Written { receipt: Some(receipt), visible: Visible::Committed });
    }

    /// What a reader of committed records may read up to.
    pub(crate) fn last_stable(&self, partition: usize) -> usize {
        let log = &self.receipts[partition];
        log.iter().position(|written| written.visible == Visible::Pending).unwrap_or(log.len())
    }

    /// A transaction has sent offsets of the partition and has not ended.
    pub(crate) fn has_pending_offsets(&self, partition: usize) -> bool {
        let ongoing = self.producers.iter().filter_map(|producer| producer.ongoing.as_ref());
        ongoing.flat_map(|ongoing| &ongoing.offsets).any(|(at, _)| *at == partition)
    }

    /// Committed receipts of `from..to`, with their positions.
    pub(crate) fn read_receipts(&self, partition: usize, from: usize, to: usize) -> Vec<(i64, Receipt)> {
        let log = &self.receipts[partition];
        let read = log.iter().enumerate().take(to).skip(from);
        let committed = read.filter(|(_, written)| written.visible == Visible::Committed);
        committed.filter_map(|(at, written)| Some((i64::try_from(at).unwrap(), written.receipt.clone()?))).collect()
    }

    /// All committed receipts of a partition, in order.
    pub(crate) fn history(&self, partition: usize) -> Vec<(i64, Receipt)> {
        self.read_receipts(partition, 0, self.receipts[partition].len())
    }

    /// Every origin has its final receipt, and every offset is committed.
    pub(crate) fn is_done(&self, partition: usize) -> bool {
        let Some(last) = self.last_event(partition) else { return true };
        if self.committed[partition].is_none_or(|committed| committed.next <= last) {
            return false;
        }
        let (mut open, mut delivered) = (BTreeSet::new(), BTreeSet::new());
        let committed = self.receipts[partition].iter().filter(|written| written.visible == Visible::Committed);
        for receipt in committed.filter_map(|written| written.receipt.as_ref()) {
            let origin = receipt.offset;
            if receipt.fate == Fate::Delivered {
                delivered.insert(origin);
            }
            if receipt.fate.is_final() {
                open.remove(&origin);
            } else if receipt.fate != Fate::Requeued || !delivered.contains(&origin) {
                open.insert(origin);
            }
        }
        open.is_empty()
    }
}
