//! What the poll thread knows of its partitions: pure, so that its rules can be tried without a broker.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::{AssignmentEpoch, Lag, NextOffset, StartAt, TopicPartition};

/// Seeks that find no fetcher before it is taken for stopped: at 5 ms each, a second, when an assignment needs a few ms.
const NOT_COMING_UP: u32 = 200;

/// The assigned partitions and the state of each.
#[derive(Debug, Default)]
pub(super) struct Assignment {
    topics: Vec<(Arc<str>, BTreeMap<i32, Partition>)>,
    epoch: u64,
}

#[derive(Debug)]
struct Partition {
    epoch: AssignmentEpoch,
    /// Whether the loop was told of it.
    announced: bool,
    start: Start,
    /// Paused by the loop.
    held: bool,
    revoking: bool,
    /// Not paused in librdkafka.
    flowing: bool,
    /// How often in a row librdkafka had no fetcher to seek with.
    not_up: u32,
    /// The first offset that the loop has not been given.
    next: Option<i64>,
    committed: Option<NextOffset>,
    end: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Start {
    /// The loop has not said where.
    Unsaid,
    /// To be carried out; `None`: at the earliest record.
    Seek(Option<NextOffset>),
    Done,
}

/// What to do with a polled record.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Taken {
    /// Give it to the loop.
    Yes(TopicPartition),
    /// It is not wanted now. Whatever has to be read again will be.
    No,
}

impl Assignment {
    /// Adds partitions under a new epoch, paused.
    pub(super) fn assign(&mut self, partitions: &[TopicPartition]) -> AssignmentEpoch {
        self.epoch += 1;
        let epoch = AssignmentEpoch(self.epoch);
        for at in partitions {
            let state = Partition {
                epoch,
                announced: false,
                start: Start::Unsaid,
                held: false,
                revoking: false,
                flowing: false,
                not_up: 0,
                next: None,
                committed: None,
                end: None,
            };
            match self.topics.iter_mut().find(|(topic, _)| *topic == at.topic) {
                Some((_, all)) => _ = all.insert(at.partition, state),
                None => self.topics.push((Arc::clone(&at.topic), BTreeMap::from([(at.partition, state)]))),
            }
        }
        epoch
    }

    pub(super) fn remove(&mut self, partitions: &[TopicPartition]) {
        for at in partitions {
            if let Some((_, all)) = self.topics.iter_mut().find(|(topic, _)| *topic == at.topic) {
                all.remove(&at.partition);
            }
        }
        self.topics.retain(|(_, all)| !all.is_empty());
    }

    pub(super) fn is_empty(&self) -> bool {
        self.topics.is_empty()
    }

    fn get(&self, at: &TopicPartition) -> Option<&Partition> {
        self.topics.iter().find(|(topic, _)| *topic == at.topic)?.1.get(&at.partition)
    }

    fn get_mut(&mut self, topic: &str, partition: i32) -> Option<(&Arc<str>, &mut Partition)> {
        let (name, all) = self.topics.iter_mut().find(|(name, _)| **name == *topic)?;
        Some((name, all.get_mut(&partition)?))
    }

    fn iter(&self) -> impl Iterator<Item = (TopicPartition, &Partition)> {
        self.topics.iter().flat_map(|(topic, all)| {
            all.iter().map(|(&partition, state)| (TopicPartition { topic: Arc::clone(topic), partition }, state))
        })
    }

    pub(super) fn all(&self) -> Vec<TopicPartition> {
        self.iter().map(|(at, _)| at).collect()
    }

    /// Under which epoch each partition is held.
    pub(super) fn epochs(&self) -> BTreeMap<TopicPartition, AssignmentEpoch> {
        self.iter().map(|(at, state)| (at, state.epoch)).collect()
    }

    /// Of partitions that were looked up, those that are still to be announced under that epoch; they count as
    /// announced from now on.
    pub(super) fn announce(
        &mut self,
        epoch: AssignmentEpoch,
        found: Vec<(TopicPartition, Option<NextOffset>)>,
    ) -> Vec<(TopicPartition, Option<NextOffset>)> {
        let mut fresh = found;
        fresh.retain(|(at, committed)| match self.get_mut(&at.topic, at.partition) {
            Some((_, state)) if state.epoch == epoch && !state.revoking => {
                state.announced = true;
                state.committed = *committed;
                true
            }
            _ => false,
        });
        fresh
    }

    pub(super) fn announced(&self, at: &TopicPartition) -> bool {
        self.get(at).is_some_and(|state| state.announced)
    }

    /// Takes note of where to start. An epoch that has passed is ignored.
    pub(super) fn start(&mut self, epoch: AssignmentEpoch, at: &TopicPartition, start: StartAt) {
        if let Some((_, state)) = self.get_mut(&at.topic, at.partition)
            && state.epoch == epoch
            && state.announced
            && !state.revoking
        {
            let to = match start {
                StartAt::CommittedOrEarliest => state.committed,
                StartAt::Offset(offset) => Some(offset),
            };
            state.committed = state.committed.or(to);
            state.start = Start::Seek(to);
        }
    }

    /// Partitions whose start is to be carried out; `None`: at the earliest record.
    pub(super) fn seeks(&self) -> Vec<(TopicPartition, Option<NextOffset>)> {
        let wanted = self.iter().filter(|(_, state)| !state.revoking);
        wanted.filter_map(|(at, state)| if let Start::Seek(to) = state.start { Some((at, to)) } else { None }).collect()
    }

    pub(super) fn sought(&mut self, topic: &str, partition: i32) {
        if let Some((_, state)) = self.get_mut(topic, partition)
            && let Start::Seek(to) = state.start
        {
            state.next = to.map(NextOffset::get);
            state.start = Start::Done;
            state.not_up = 0;
        }
    }

    pub(super) fn not_up(&mut self, topic: &str, partition: i32) {
        if let Some((_, state)) = self.get_mut(topic, partition) {
            state.not_up += 1;
        }
    }

    /// Of the partitions to be started, those whose fetcher has stopped for good. Each is named once.
    pub(super) fn stopped(&mut self) -> Vec<TopicPartition> {
        let mut stopped = Vec::new();
        for (topic, all) in &mut self.topics {
            for (&partition, state) in all {
                if state.not_up >= NOT_COMING_UP && matches!(state.start, Start::Seek(_)) && !state.revoking {
                    state.not_up = 0;
                    stopped.push(TopicPartition { topic: Arc::clone(topic), partition });
                }
            }
        }
        stopped
    }

    /// The partition stands where it cannot go on, its fetcher stopped: it waits to be started again.
    pub(super) fn stuck(&mut self, at: &TopicPartition) {
        if let Some((_, state)) = self.get_mut(&at.topic, at.partition) {
            state.start = Start::Unsaid;
            state.not_up = NOT_COMING_UP;
        }
    }

    /// Started partitions, and the offset that each reads next where it is known.
    pub(super) fn reading(&self) -> Vec<(TopicPartition, Option<NextOffset>)> {
        let started = self.iter().filter(|(_, state)| state.start == Start::Done && !state.revoking);
        started.map(|(at, state)| (at, state.next.map(NextOffset::stored))).collect()
    }

    /// Starts a partition once more where the loop's next record is.
    pub(super) fn again(&mut self, at: &TopicPartition) {
        if let Some((_, state)) = self.get_mut(&at.topic, at.partition)
            && state.start == Start::Done
        {
            state.start = Start::Seek(state.next.map(NextOffset::stored));
        }
    }

    pub(super) fn hold(&mut self, at: &TopicPartition, held: bool) {
        if let Some((_, state)) = self.get_mut(&at.topic, at.partition) {
            state.held = held;
        }
    }

    pub(super) fn revoke(&mut self, partitions: &[TopicPartition]) {
        for at in partitions {
            if let Some((_, state)) = self.get_mut(&at.topic, at.partition) {
                state.revoking = true;
            }
        }
    }

    /// Which partitions to pause and which to resume. `full`: the channel has no room.
    pub(super) fn flow(&mut self, full: bool) -> (Vec<TopicPartition>, Vec<TopicPartition>) {
        let (mut pause, mut resume) = (Vec::new(), Vec::new());
        for (topic, all) in &mut self.topics {
            for (&partition, state) in all {
                // Revoked ones are librdkafka's to stop.
                let wanted = state.start == Start::Done && !state.held && !full && !state.revoking;
                if wanted != state.flowing {
                    state.flowing = wanted;
                    let list = if wanted { &mut resume } else { &mut pause };
                    list.push(TopicPartition { topic: Arc::clone(topic), partition });
                }
            }
        }
        (pause, resume)
    }

    /// Decides on a polled record.
    pub(super) fn take(&mut self, topic: &str, partition: i32, offset: i64) -> Taken {
        let Some((name, state)) = self.get_mut(topic, partition) else { return Taken::No };
        if state.start != Start::Done || state.revoking {
            // Read before it was told where to start: the start seeks.
            return Taken::No;
        }
        if state.next.is_some_and(|next| offset < next) {
            return Taken::No;
        }
        if !state.flowing {
            // It slipped in behind a pause. Left out it would be skipped, so the partition goes back to it.
            let back = state.next.unwrap_or(offset);
            state.start = Start::Seek(Some(NextOffset::stored(back)));
            return Taken::No;
        }
        state.next = Some(offset + 1);
        Taken::Yes(TopicPartition { topic: Arc::clone(name), partition })
    }

    /// Whether the loop may commit for it: assigned, and started by the loop under the current epoch.
    pub(super) fn may_commit(&self, at: &TopicPartition, lost: bool) -> bool {
        self.get(at).is_some_and(|state| state.announced && state.start != Start::Unsaid && !(state.revoking && lost))
    }

    pub(super) fn committed(&mut self, at: &TopicPartition, offset: NextOffset) {
        if let Some((_, state)) = self.get_mut(&at.topic, at.partition) {
            state.committed = Some(offset);
        }
    }

    pub(super) fn end(&mut self, at: &TopicPartition, end: i64) {
        if let Some((_, state)) = self.get_mut(&at.topic, at.partition) {
            state.end = Some(end);
        }
    }

    pub(super) fn lags(&self) -> Vec<Lag> {
        self.iter()
            .map(|(at, state)| Lag { at, end: state.end.map(NextOffset::stored), committed: state.committed })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition { topic: Arc::from("orders"), partition }
    }

    fn started(start: StartAt) -> (Assignment, AssignmentEpoch) {
        let mut all = Assignment::default();
        let epoch = all.assign(&[at(0)]);
        all.announce(epoch, vec![(at(0), Some(NextOffset::stored(7)))]);
        all.start(epoch, &at(0), start);
        (all, epoch)
    }

    #[test]
    fn a_partition_flows_only_after_it_was_announced_started_and_sought() {
        let mut all = Assignment::default();
        let epoch = all.assign(&[at(0)]);
        all.start(epoch, &at(0), StartAt::CommittedOrEarliest);
        assert!(all.seeks().is_empty(), "nobody can have been told of it");
        all.announce(epoch, vec![(at(0), None)]);
        assert_eq!(all.flow(false), (vec![], vec![]));
        all.start(epoch, &at(0), StartAt::CommittedOrEarliest);
        assert_eq!(all.seeks(), [(at(0), None)]);
        assert_eq!(all.flow(false), (vec![], vec![]));
        all.sought("orders", 0);
        assert_eq!(all.flow(false), (vec![], vec![at(0)]));
    }

    #[test]
    fn a_start_under_an_epoch_that_has_passed_is_ignored() {
        let (mut all, old) = started(StartAt::CommittedOrEarliest);
        all.remove(&[at(0)]);
        let new = all.assign(&[at(0)]);
        all.announce(new, vec![(at(0), None)]);
        all.start(old, &at(0), StartAt::CommittedOrEarliest);
        assert!(all.seeks().is_empty());
        assert!(!all.may_commit(&at(0), false), "the loop does not know of the new assignment yet");
        all.start(new, &at(0), StartAt::CommittedOrEarliest);
        assert!(all.may_commit(&at(0), false));
    }

    #[test]
    fn a_full_channel_pauses_what_flows_and_resumes_only_that() {
        let mut all = Assignment::default();
        let epoch = all.assign(&[at(0), at(1), at(2)]);
        all.announce(epoch, (0..3).map(|p| (at(p), None)).collect());
        for p in 0..2 {
            all.start(epoch, &at(p), StartAt::CommittedOrEarliest);
            all.sought("orders", p);
        }
        assert_eq!(all.flow(false).1, [at(0), at(1)]);
        all.hold(&at(1), true);
        assert_eq!(all.flow(true), (vec![at(0), at(1)], vec![]));
        // 1 is held by the loop and 2 was never started.
        assert_eq!(all.flow(false), (vec![], vec![at(0)]));
    }

    #[test]
    fn a_record_behind_a_pause_is_read_again_and_never_skipped() {
        let (mut all, _) = started(StartAt::CommittedOrEarliest);
        all.sought("orders", 0);
        all.flow(false);
        assert_eq!(all.take("orders", 0, 7), Taken::Yes(at(0)));
        all.flow(true);
        assert_eq!(all.take("orders", 0, 8), Taken::No);
        assert_eq!(all.seeks(), [(at(0), Some(NextOffset::stored(8)))]);
        all.sought("orders", 0);
        all.flow(false);
        assert_eq!(all.take("orders", 0, 7), Taken::No, "it was given to the loop already");
        assert_eq!(all.take("orders", 0, 8), Taken::Yes(at(0)));
    }

    #[test]
    fn a_lost_partition_takes_no_commit_and_a_revoked_one_does_until_it_is_gone() {
        let (mut all, _) = started(StartAt::Offset(NextOffset::stored(3)));
        assert_eq!(all.seeks(), [(at(0), Some(NextOffset::stored(3)))]);
        all.revoke(&[at(0)]);
        assert!(all.may_commit(&at(0), false));
        assert!(!all.may_commit(&at(0), true));
        all.remove(&[at(0)]);
        assert!(!all.may_commit(&at(0), false));
        assert!(all.is_empty());
    }

    #[test]
    fn a_stopped_fetcher_is_noticed_once_and_only_where_a_start_waits_for_it() {
        let (mut all, epoch) = started(StartAt::CommittedOrEarliest);
        all.sought("orders", 0);
        all.stuck(&at(0));
        assert!(all.stopped().is_empty(), "nobody wants it started");
        all.start(epoch, &at(0), StartAt::Offset(NextOffset::stored(0)));
        assert_eq!(all.stopped(), [at(0)]);
        assert!(all.stopped().is_empty());
        for _ in 0..NOT_COMING_UP {
            all.not_up("orders", 0);
        }
        assert_eq!(all.stopped(), [at(0)]);
    }

    #[test]
    fn lag_is_known_once_both_ends_are() {
        let (mut all, _) = started(StartAt::CommittedOrEarliest);
        assert_eq!(all.lags()[0].records(), None);
        all.end(&at(0), 10);
        assert_eq!(all.lags()[0].records(), Some(3));
        all.committed(&at(0), NextOffset::stored(12));
        assert_eq!(all.lags()[0].records(), Some(0), "the end is asked for less often than offsets are committed");
    }
}
