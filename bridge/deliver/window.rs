//! A partition's window: records in, settlements in any order, and a head that moves over settled records only.

use std::collections::VecDeque;
use std::sync::Arc;

use crate::kafka::{NextOffset, Record};

/// How much a window holds before its partition is paused. Both are checked after a record was taken, so what was on
/// the way already is taken too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub records: usize,
    pub bytes: usize,
}

/// The records of one partition between Kafka and their settlement.
#[derive(Debug)]
pub(super) struct Window {
    limits: Limits,
    entries: VecDeque<Entry>,
    bytes: usize,
    settled: usize,
    /// After the last record that was settled with all before it.
    head: Option<NextOffset>,
    /// The highest offset that was taken.
    highest: Option<i64>,
    /// The partition was sent back: what comes until the first record before this offset was on the way before that.
    rewinding: Option<i64>,
}

#[derive(Debug)]
struct Entry {
    offset: i64,
    record: Arc<Record>,
    settled: bool,
}

impl Window {
    pub(super) fn new(limits: Limits) -> Self {
        Self { limits, entries: VecDeque::new(), bytes: 0, settled: 0, head: None, highest: None, rewinding: None }
    }

    /// Takes a record, unless it is settled already or was on the way before the partition was sent back: then `false`.
    pub(super) fn take(&mut self, record: Record) -> bool {
        let offset = record.offset;
        if let Some(before) = self.rewinding {
            if offset >= before {
                return false;
            }
            self.rewinding = None;
            self.highest = None;
        }
        if self.head.is_some_and(|head| offset < head.get()) || self.highest.is_some_and(|highest| offset <= highest) {
            return false;
        }
        self.highest = Some(offset);
        self.bytes += weight(&record);
        self.entries.push_back(Entry { offset, record: Arc::new(record), settled: false });
        true
    }

    /// Settles the record at `offset`; the head moves as far as everything before it is settled. `false`: the window
    /// does not hold it.
    pub(super) fn settle(&mut self, offset: i64) -> bool {
        let Some(at) = self.find(offset) else { return false };
        self.settled += usize::from(!self.entries[at].settled);
        self.entries[at].settled = true;
        while self.entries.front().is_some_and(|entry| entry.settled) {
            self.pop();
        }
        true
    }

    /// Where the record at `offset` is. Offsets rise by one at least, and mostly by one: it is as many entries behind the
    /// first one as there are offsets between them, or fewer.
    fn find(&self, offset: i64) -> Option<usize> {
        let most = usize::try_from(offset.checked_sub(self.entries.front()?.offset)?).ok()?;
        if self.entries.get(most).is_some_and(|entry| entry.offset == offset) {
            return Some(most);
        }
        self.entries.binary_search_by_key(&offset, |entry| entry.offset).ok()
    }

    /// The sink has moved on to `next`: records before it are settled, whether the window has seen them or not.
    pub(super) fn skip_to(&mut self, next: NextOffset) {
        while self.entries.front().is_some_and(|entry| entry.offset < next.get()) {
            self.pop();
        }
        self.head = self.head.max(Some(next));
    }

    /// The sink was moved back to `next`: the partition is read again from there.
    pub(super) fn rewind(&mut self, next: NextOffset) {
        self.restart(Some(next));
    }

    /// The partition is read again from `next`, or from its beginning.
    pub(super) fn restart(&mut self, next: Option<NextOffset>) {
        self.entries.clear();
        self.bytes = 0;
        self.settled = 0;
        let is_before = |offset: &i64| next.is_none_or(|next| next.get() < *offset);
        let start = self.head.map(NextOffset::get);
        self.rewinding = match self.rewinding {
            // Nothing has come yet from where it was sent back to, which may be on the way too.
            Some(before) => start.filter(is_before).or(Some(before).filter(is_before)),
            None => self.highest.map(|highest| highest + 1).max(start).filter(is_before),
        };
        self.head = next;
    }

    /// A record came that nobody wants, because the partition is about to be read again. `false`: it was on the way before
    /// the partition was sent back.
    pub(super) fn pass(&mut self, offset: i64) -> bool {
        if let Some(before) = self.rewinding {
            if offset >= before {
                return false;
            }
            // The first one from where it was sent back to. What follows it is on the way when it is sent back anew.
            (self.rewinding, self.highest) = (None, None);
        }
        self.highest = self.highest.max(Some(offset));
        true
    }

    fn pop(&mut self) {
        if let Some(entry) = self.entries.pop_front() {
            self.bytes -= weight(&entry.record);
            self.settled -= usize::from(entry.settled);
            self.head = Some(NextOffset::after(entry.offset));
        }
    }

    /// What may be committed: everything before it is settled. `None`: nothing was settled yet.
    pub(super) fn head(&self) -> Option<NextOffset> {
        self.head
    }

    /// Where the first record stands that is not settled.
    pub(super) fn first(&self) -> Option<NextOffset> {
        self.entries.front().map(|entry| NextOffset::stored(entry.offset))
    }

    /// What may be committed once the records at `also`, in order, are settled too.
    pub(super) fn head_with(&self, also: impl IntoIterator<Item = i64>) -> Option<NextOffset> {
        #[cfg(feature = "seeded-bugs")]
        if crate::seeded::has(crate::seeded::Bug::HighestWatermark) {
            return also.into_iter().last().map(NextOffset::after).or(self.head);
        }
        let mut also = also.into_iter().peekable();
        let mut settled = |entry: &Entry| {
            while also.next_if(|offset| *offset < entry.offset).is_some() {}
            entry.settled || also.peek() == Some(&entry.offset)
        };
        let contiguous = self.entries.iter().take_while(|entry| settled(entry));
        contiguous.last().map(|entry| NextOffset::after(entry.offset)).or(self.head)
    }

    /// The record at `offset`.
    pub(super) fn get(&self, offset: i64) -> Option<&Arc<Record>> {
        self.entries.get(self.find(offset)?).map(|entry| &entry.record)
    }

    /// Records that are settled and wait for an earlier one.
    pub(super) fn settled(&self) -> usize {
        self.settled
    }

    /// How many of the window's records are too many for one key.
    pub(super) fn quarter(&self) -> usize {
        (self.limits.records / 4).max(1)
    }

    /// The next records to send, from the head on.
    pub(super) fn batch(&self, most: usize) -> Vec<Arc<Record>> {
        let waiting = self.entries.iter().take_while(|entry| !entry.settled).take(most);
        waiting.map(|entry| Arc::clone(&entry.record)).collect()
    }

    pub(super) fn len(&self) -> usize {
        self.entries.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }

    /// Time to pause the partition.
    pub(super) fn is_full(&self) -> bool {
        self.entries.len() >= self.limits.records || self.bytes >= self.limits.bytes
    }

    /// Time to resume it: at half, so that a partition is not paused and resumed for every record.
    pub(super) fn has_room(&self) -> bool {
        self.entries.len() * 2 <= self.limits.records && self.bytes * 2 <= self.limits.bytes
    }
}

/// What a record costs in memory, roughly: its bytes, and what holds them.
fn weight(record: &Record) -> usize {
    const OVERHEAD: usize = 200;
    OVERHEAD + record.bytes()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;
    use crate::kafka::{Headers, TopicPartition};

    const LIMITS: Limits = Limits { records: 10, bytes: 100_000 };

    fn record(offset: i64) -> Record {
        let at = TopicPartition { topic: Arc::from("orders"), partition: 0 };
        Record { at, offset, timestamp_ms: None, key: None, value: None, headers: Headers::default() }
    }

    fn window(offsets: impl IntoIterator<Item = i64>) -> Window {
        let mut window = Window::new(LIMITS);
        offsets.into_iter().for_each(|offset| _ = window.take(record(offset)));
        window
    }

    fn offsets(window: &Window) -> Vec<i64> {
        window.batch(usize::MAX).iter().map(|record| record.offset).collect()
    }

    proptest! {
        #[test]
        fn the_head_moves_over_contiguous_settled_records_only(
            // Offsets have gaps: transaction markers, compaction.
            gaps in proptest::collection::vec(1_i64..5, 1..40),
            order in any::<prop::sample::Index>(),
            shuffle in proptest::collection::vec(any::<prop::sample::Index>(), 40),
        ) {
            let all: Vec<i64> = gaps.iter().scan(0, |at, gap| { *at += gap; Some(*at) }).collect();
            let mut window = window(all.iter().copied());
            let mut left = all.clone();
            let mut settled = BTreeSet::new();
            let stop_after = order.index(all.len()) + 1;
            for pick in shuffle.iter().cycle().take(stop_after) {
                let offset = left.remove(pick.index(left.len()));
                settled.insert(offset);
                let contiguous = all.iter().take_while(|offset| settled.contains(offset)).last();
                let expected = contiguous.map(|last| NextOffset::after(*last));
                prop_assert_eq!(window.head_with(settled.iter().copied()), expected);
                prop_assert_eq!(window.get(offset).map(|record| record.offset), Some(offset));
                prop_assert!(window.settle(offset));
                prop_assert_eq!(window.head(), expected);
            }
        }
    }

    #[test]
    fn a_record_that_is_not_there_is_not_settled() {
        let mut window = window([5, 7]);
        assert!(!window.settle(6));
        assert!(window.settle(5));
        assert!(!window.settle(5));
        assert_eq!(window.head(), Some(NextOffset::stored(6)));
    }

    #[test]
    fn a_batch_is_taken_from_the_head_on() {
        let window = window(1..=5);
        assert_eq!(window.batch(2).iter().map(|record| record.offset).collect::<Vec<_>>(), [1, 2]);
        assert_eq!(window.first(), Some(NextOffset::stored(1)));
    }

    #[test]
    fn a_window_is_full_by_records_or_bytes_and_has_room_at_half() {
        let mut window = window(0..10);
        assert!(window.is_full() && !window.has_room());
        (0..5).for_each(|offset| _ = window.settle(offset));
        assert!(window.has_room());
        window.take(Record { value: Some(vec![0; 100_000]), ..record(20) });
        assert!(window.is_full());
        window.skip_to(NextOffset::stored(21));
        assert!(window.is_empty() && window.has_room());
        assert_eq!(window.bytes, 0);
    }

    #[test]
    fn what_the_sink_has_already_is_passed_over() {
        let mut window = window(1..=5);
        window.skip_to(NextOffset::stored(4));
        assert_eq!(offsets(&window), [4, 5]);
        window.skip_to(NextOffset::stored(9));
        window.take(record(8));
        window.take(record(9));
        assert_eq!(offsets(&window), [9]);
        assert_eq!(window.head(), Some(NextOffset::stored(9)));
    }

    #[test]
    fn after_a_rewind_nothing_that_was_on_the_way_is_taken_for_the_new_start() {
        let mut window = window(50..=60);
        window.rewind(NextOffset::stored(20));
        for late in [61, 62] {
            window.take(record(late));
        }
        assert!(window.is_empty());
        for again in [20, 22, 61] {
            window.take(record(again));
        }
        assert_eq!(offsets(&window), [20, 22, 61]);
        assert_eq!(window.head(), Some(NextOffset::stored(20)));
    }

    #[test]
    fn a_rewind_before_the_first_record_came_takes_none_of_those_that_were_on_the_way() {
        let mut window = Window::new(LIMITS);
        window.restart(Some(NextOffset::stored(26)));
        window.restart(Some(NextOffset::stored(3)));
        window.restart(Some(NextOffset::stored(2)));
        for offset in [26, 27, 3, 5, 2, 3, 26] {
            window.take(record(offset));
        }
        assert_eq!(offsets(&window), [2, 3, 26]);
        window.restart(Some(NextOffset::stored(2)));
        window.restart(Some(NextOffset::stored(2)));
        for offset in [27, 2, 3, 2, 3, 26, 27] {
            window.take(record(offset));
        }
        assert_eq!(offsets(&window), [2, 3, 26, 27]);
    }

    #[test]
    fn of_what_passed_before_a_second_restart_the_rest_is_on_the_way() {
        let mut window = window(20..=35);
        window.restart(Some(NextOffset::stored(22)));
        for passed in [36, 22, 27] {
            window.pass(passed);
        }
        window.restart(Some(NextOffset::stored(22)));
        for offset in [28, 29, 22, 27, 28] {
            window.take(record(offset));
        }
        assert_eq!(offsets(&window), [22, 27, 28]);
    }

    #[test]
    fn a_record_that_comes_twice_is_taken_once() {
        let window = window([1, 2, 2, 1, 3]);
        assert_eq!(offsets(&window), [1, 2, 3]);
    }
}
