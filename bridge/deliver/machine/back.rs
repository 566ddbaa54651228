//! Going back: an operator's order, carried out by the owner of each partition as one transaction that commits the lower
//! offset, and with it that the order is carried out. What was under way ends before it, and its receipts count.

use std::time::Duration;

use super::partition::{Back, Partition};
use super::step::{Action, Notice};
use super::{Machine, Turn};
use crate::deliver::rewound::{Rewind, Rewound};
use crate::deliver::settle::Transaction;
use crate::kafka::TopicPartition;
use crate::kafka::consume::AssignmentEpoch;

impl Machine {
    /// Closes partitions that are to go back.
    pub(super) fn look_back(&mut self, turn: &mut Turn<'_>) {
        if !self.look_back || self.stop_by.is_some() || self.commits.fenced {
            return;
        }
        self.look_back = false;
        let active = self.line.clock.read(turn.now);
        for (at, order) in &self.rewinds {
            let Some(partition) = self.partitions.get_mut(at).filter(|partition| partition.may_send()) else {
                continue;
            };
            if order.number <= partition.rewound.number {
                continue;
            }
            if partition.window.head().is_none() {
                // Nothing was settled since it began at its beginning.
                partition.rewound = Rewound::over(order.number);
                continue;
            }
            partition.back = Back::Awaited;
            self.line.withdraw(at, partition);
            partition.park_what_is_known(active);
        }
    }

    /// Some partition is at rest, and only its going back is left to be committed.
    pub(super) fn goes_back(&self) -> bool {
        let mut waiting = self.partitions.iter().filter(|(_, partition)| partition.may_go_back());
        waiting.any(|(at, partition)| !self.line.is_calling(at, partition.epoch))
    }

    /// Moves partitions that are at rest back, with the transaction.
    pub(super) fn go_back(&mut self, transaction: &mut Transaction) -> Vec<(TopicPartition, AssignmentEpoch, Rewind)> {
        let mut back = Vec::new();
        for (at, partition) in &mut self.partitions {
            let Some(order) = self.rewinds.get(at).filter(|_| partition.may_go_back()) else { continue };
            if !self.line.is_calling(at, partition.epoch)
                && let Some(progress) = partition.go_back(at, order)
            {
                transaction.progress.push(progress);
                back.push((at.clone(), partition.epoch, *order));
            }
        }
        back
    }

    /// They are read again from where they are now, by what their receipts say.
    pub(super) fn went_back(&mut self, back: &[(TopicPartition, AssignmentEpoch, Rewind)], turn: &mut Turn<'_>) {
        for (at, epoch, order) in back {
            let Some(partition) = self.partitions.get_mut(at).filter(|partition| partition.epoch == *epoch) else {
                continue;
            };
            let from = partition.window.head();
            self.read_partition_again(at, turn);
            turn.act(Action::Tell(Notice::WentBack { at: at.clone(), from, order: *order }));
        }
    }

    /// Reads on where more was settled than is remembered: by the receipts of what comes next.
    pub(super) fn read_on(&mut self, turn: &mut Turn<'_>) {
        let reads_on = |(at, partition): (&TopicPartition, &mut Partition)| Some((at.clone(), partition.reads_on()?));
        for (at, from) in self.partitions.iter_mut().filter_map(reads_on).collect::<Vec<_>>() {
            self.read_partition_again(&at, turn);
            turn.act(Action::Tell(Notice::ReadOn { at, from }));
        }
    }

    /// Forgets what is known of a partition, and reads its offset and its receipts.
    pub(super) fn read_partition_again(&mut self, at: &TopicPartition, turn: &mut Turn<'_>) {
        let since: Duration = self.now.saturating_sub(self.line.settings.dedupe_window);
        let Some(partition) = self.partitions.get_mut(at) else { return };
        self.restores += 1;
        self.line.start_over(at, partition);
        partition.start_over(self.restores, &self.line.settings);
        let (epoch, restore) = (partition.epoch, partition.restore);
        turn.act(Action::Restore { at: at.clone(), epoch, restore, since });
    }
}
