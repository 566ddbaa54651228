//! Settled records at or beyond a partition's committed offset: after a rewind, or a crash, they come again and are passed
//! over. Pure.
//!
//! A window leaves few of them, a rewind of what was delivered a whole stretch. So there is a limit, and what does not fit is
//! left out from the other end: the partition is read up to there, and its receipts once more for the rest.
//!
//! ```text
//!   committed                          horizon
//!   ──────┼─ known: passed over, or sent ──┼─ left out: only where it begins and ends, and its oldest receipt ──▶
//! ```

use std::collections::BTreeMap;

use super::rewound::{Rewound, Says};
use crate::kafka::NextOffset;

/// What the receipts say of a record.
#[derive(Debug, Clone, Copy)]
struct Mark {
    /// Of its last receipt.
    position: i64,
    /// Of its last one that a rewind leaves alone.
    firm: Option<i64>,
}

impl Mark {
    fn is_left_alone(&self, origin: i64, rewound: &Rewound) -> bool {
        rewound.says(origin, self.position) == Says::Everything
            || self.firm.is_some_and(|position| rewound.says(origin, position) != Says::Nothing)
    }

    /// The oldest receipt that has to be read to know it.
    fn oldest(&self) -> i64 {
        self.firm.unwrap_or(self.position)
    }
}

/// Settled records that did not fit.
#[derive(Debug, Clone, Copy)]
struct LeftOut {
    from: i64,
    /// After the last one.
    to: i64,
    oldest: i64,
}

/// One partition's settled records from its committed offset on.
#[derive(Debug)]
pub(super) struct Beyond {
    most: usize,
    /// While the receipts are being read: from where on records will come, and what of them is to be sent again.
    restoring: Option<(i64, Rewound)>,
    marks: BTreeMap<i64, Mark>,
    left_out: Option<LeftOut>,
}

impl Beyond {
    /// Keeps no more than `most` of what a restore finds. What a window settles later is bounded by that.
    pub(super) fn new(most: usize) -> Self {
        Self { most: most.max(1), restoring: None, marks: BTreeMap::new(), left_out: None }
    }

    /// The receipts are about to be read, from `next` on being what is committed.
    pub(super) fn begin(&mut self, next: Option<NextOffset>, rewound: Rewound) {
        self.restoring = Some((next.map_or(0, NextOffset::get), rewound));
    }

    /// The receipts were read.
    pub(super) fn restored(&mut self) {
        self.restoring = None;
    }

    /// The record at `origin` was settled by the receipt at `position`; `firm`: so that a rewind leaves it alone.
    pub(super) fn settle(&mut self, origin: i64, position: i64, firm: bool) {
        let before = self.marks.get(&origin).and_then(|mark| mark.firm);
        let mark = Mark { position, firm: if firm { Some(position) } else { before } };
        let Some((next, rewound)) = &self.restoring else {
            self.marks.insert(origin, mark);
            return;
        };
        if origin < *next {
            return;
        }
        if !mark.is_left_alone(origin, rewound) {
            self.marks.remove(&origin);
        } else if self.is_left_out(origin) {
            self.leave_out(origin, mark);
        } else {
            self.marks.insert(origin, mark);
            if self.marks.len() > self.most
                && let Some((last, mark)) = self.marks.pop_last()
            {
                self.leave_out(last, mark);
            }
        }
    }

    fn leave_out(&mut self, origin: i64, mark: Mark) {
        let before = self.left_out.unwrap_or(LeftOut { from: origin, to: origin + 1, oldest: mark.oldest() });
        self.left_out = Some(LeftOut {
            from: before.from.min(origin),
            to: before.to.max(origin + 1),
            oldest: before.oldest.min(mark.oldest()),
        });
    }

    /// The committed offset is `next`.
    pub(super) fn committed(&mut self, next: NextOffset) {
        self.marks = self.marks.split_off(&next.get());
    }

    pub(super) fn has(&self, origin: i64) -> bool {
        self.marks.contains_key(&origin)
    }

    /// Whether it was settled is not known: the receipts have to be read again once everything before it is.
    pub(super) fn is_left_out(&self, origin: i64) -> bool {
        self.left_out.is_some_and(|left_out| origin >= left_out.from)
    }

    /// Where the first record is that was left out.
    pub(super) fn horizon(&self) -> Option<NextOffset> {
        self.left_out.map(|left_out| NextOffset::stored(left_out.from))
    }

    /// After the last record that was settled.
    pub(super) fn end(&self) -> Option<i64> {
        let known = self.marks.last_key_value().map(|(origin, _)| origin + 1);
        known.max(self.left_out.map(|left_out| left_out.to))
    }

    /// The oldest receipt of these records that a restore has to read once `next` is committed.
    pub(super) fn oldest(&self, next: NextOffset) -> Option<i64> {
        let known = self.marks.range(next.get()..).map(|(_, mark)| mark.oldest()).min();
        known.into_iter().chain(self.left_out.map(|left_out| left_out.oldest)).min()
    }

    pub(super) fn len(&self) -> usize {
        self.marks.len()
    }
}

#[cfg(test)]
mod tests {
    use super::super::rewound::Rewind;
    use super::*;

    fn restoring(most: usize, next: i64, rewound: Rewound) -> Beyond {
        let mut beyond = Beyond::new(most);
        beyond.begin(Some(NextOffset::stored(next)), rewound);
        beyond
    }

    #[test]
    fn what_does_not_fit_is_left_out_from_its_far_end_and_its_oldest_receipt_is_still_wanted() {
        let mut beyond = restoring(3, 10, Rewound::default());
        for (position, origin) in [13, 12, 20, 9, 11, 10, 14].into_iter().enumerate() {
            beyond.settle(origin, i64::try_from(position).unwrap(), true);
        }
        beyond.restored();
        assert_eq!(beyond.len(), 3);
        assert!((10..=12).all(|origin| beyond.has(origin)));
        assert_eq!(beyond.horizon(), Some(NextOffset::stored(13)));
        assert!(beyond.is_left_out(13) && !beyond.is_left_out(12));
        assert_eq!(beyond.end(), Some(21));
        assert_eq!(beyond.oldest(NextOffset::stored(13)), Some(0), "of 13 itself");
    }

    #[test]
    fn what_will_be_sent_again_takes_no_room() {
        let order = Rewind { number: 1, to: NextOffset::stored(10), receipts_from: 0, again: false };
        let mut beyond = restoring(2, 10, Rewound::default().by(&order, 100, 50));
        beyond.settle(10, 1, false);
        beyond.settle(11, 2, true);
        beyond.settle(12, 3, false);
        beyond.settle(12, 51, false);
        beyond.settle(9, 4, true);
        assert_eq!([9, 10, 11, 12].map(|origin| beyond.has(origin)), [false, false, true, true]);
        assert_eq!((beyond.len(), beyond.horizon()), (2, None));
    }
}
