//! Going back: the order that a partition has carried out, and what the receipts from before that still say. Pure.
//!
//! Each commit of an offset bears these as words of its metadata, beside [`Bookmark`](super::restore::Bookmark)'s, so that
//! whoever owns the partition next carries out no order twice and gives each record the same id:
//!
//! ```text
//!   rewind=3  back=10-100@41  again=3:10-100@41
//!          │       │     │           └ the number by which delivery ids of these records differ from the first ones
//!          │       │     └ the first receipt that was written after it: those before it count only where they are firm
//!          │       └ the events that are read again, the second offset left out
//!          └ the number of the last order that was carried out
//! ```

use std::fmt;

use uuid::Uuid;

use super::settle::{DeadReason, Fate};
use crate::event;
use crate::kafka::NextOffset;
use crate::outcome::SkipReason;

/// An order to read a partition again.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rewind {
    /// Among the orders for its sink, from 1 on: a partition carries out each once, and of several the last.
    pub number: u64,
    pub to: NextOffset,
    /// No receipt of an event from there on stands before this one.
    pub receipts_from: i64,
    /// Everything once more, delivered or not, under ids of its own.
    pub again: bool,
}

/// Events that are read again, and which of their receipts are from before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Stretch {
    from: i64,
    /// After the last one.
    until: i64,
    /// The first receipt that was written after the order was carried out.
    at: i64,
}

impl Stretch {
    fn has(self, origin: i64, position: i64) -> bool {
        self.holds(origin) && position < self.at
    }

    fn holds(self, origin: i64) -> bool {
        (self.from..self.until).contains(&origin)
    }

    /// To the end of an earlier one, which is not over.
    fn with(self, before: Option<Self>) -> Self {
        Self { until: before.map_or(self.until, |before| self.until.max(before.until)), ..self }
    }

    fn unless_over(self, next: NextOffset) -> Option<Self> {
        (next.get() < self.until).then_some(self)
    }
}

impl fmt::Display for Stretch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}@{}", self.from, self.until, self.at)
    }
}

/// What a receipt still says of its event.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Says {
    Everything,
    /// It is from before a rewind, which leaves alone what was delivered.
    WhatIsFirm,
    /// It is from before a rewind that repeats everything.
    Nothing,
}

/// The rewinds of a partition, as far as they still matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rewound {
    /// Of the last order that was carried out; 0: none was.
    pub number: u64,
    back: Option<Stretch>,
    again: Option<(u64, Stretch)>,
}

impl Rewound {
    /// None but the last one is known, and that it is over.
    #[must_use]
    pub fn over(number: u64) -> Self {
        Self { number, ..Self::default() }
    }

    /// After `order` too. `settled_to`: after the last event that was settled; `at`: the next receipt.
    pub(super) fn by(self, order: &Rewind, settled_to: i64, at: i64) -> Self {
        let stretch = Stretch { from: order.to.get(), until: settled_to, at };
        let mut rewound = Self { number: order.number, ..self };
        if order.again {
            // What an earlier one has left to do is done by this one.
            rewound.again = Some((order.number, stretch.with(self.again.map(|(_, before)| before))));
        } else {
            rewound.back = Some(stretch.with(self.back));
        }
        rewound
    }

    /// Once everything before `next` is settled: what is left of it.
    pub(super) fn at(self, next: NextOffset) -> Self {
        Self {
            number: self.number,
            back: self.back.and_then(|stretch| stretch.unless_over(next)),
            again: self.again.filter(|(_, stretch)| stretch.unless_over(next).is_some()),
        }
    }

    /// The delivery id of the event at `origin`; `id` is the first one.
    pub(super) fn id_of(&self, origin: i64, id: Uuid) -> Uuid {
        match self.again {
            Some((number, stretch)) if stretch.holds(origin) => event::delivered_again(id, number),
            _ => id,
        }
    }

    /// What the receipt at `position` says of the event at `origin`.
    pub(super) fn says(&self, origin: i64, position: i64) -> Says {
        if self.again.is_some_and(|(_, stretch)| stretch.has(origin, position)) {
            Says::Nothing
        } else if self.back.is_some_and(|stretch| stretch.has(origin, position)) {
            Says::WhatIsFirm
        } else {
            Says::Everything
        }
    }

    /// From a commit's metadata. What cannot be read is taken for nothing.
    #[must_use]
    pub fn read(metadata: &str) -> Self {
        let word = |name: &str| metadata.split_whitespace().find_map(|word| word.strip_prefix(name));
        Self {
            number: word("rewind=").and_then(|number| number.parse().ok()).unwrap_or_default(),
            back: word("back=").and_then(stretch),
            again: word("again=").and_then(|word| {
                let (number, rest) = word.split_once(':')?;
                Some((number.parse().ok()?, stretch(rest)?))
            }),
        }
    }
}

/// The words, each after a blank; none where nothing was ever rewound.
impl fmt::Display for Rewound {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.number > 0 {
            write!(f, " rewind={}", self.number)?;
        }
        if let Some(stretch) = self.back {
            write!(f, " back={stretch}")?;
        }
        if let Some((number, stretch)) = self.again {
            write!(f, " again={number}:{stretch}")?;
        }
        Ok(())
    }
}

fn stretch(word: &str) -> Option<Stretch> {
    let (offsets, at) = word.split_once('@')?;
    let (from, until) = offsets.split_once('-')?;
    Some(Stretch { from: from.parse().ok()?, until: until.parse().ok()?, at: at.parse().ok()? })
}

/// Whether a rewind without `--again` leaves alone what this is said of: it was delivered, or may have been, so that only a
/// person may send it once more.
pub(super) fn is_firm(fate: Fate) -> bool {
    matches!(
        fate,
        Fate::Delivered
            | Fate::Skipped(SkipReason::Duplicate)
            | Fate::Dead(DeadReason::NoAnswer | DeadReason::PastWindow)
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(number: u64, to: i64, again: bool) -> Rewind {
        Rewind { number, to: NextOffset::stored(to), receipts_from: 0, again }
    }

    #[test]
    fn the_words_are_read_as_they_were_written() {
        let back = Rewound::default().by(&order(2, 10, false), 100, 41);
        let both = back.by(&order(3, 20, true), 110, 57);
        assert_eq!(both.to_string(), " rewind=3 back=10-100@41 again=3:20-110@57");
        for one in [Rewound::default(), back, both, Rewound::over(7)] {
            assert_eq!(Rewound::read(&one.to_string()), one);
        }
        assert_eq!(Rewound::default().to_string(), "");
        assert_eq!(Rewound::read("receipts_from=17 back=1-x@4 again=3 rewind=2"), Rewound::over(2));
    }

    #[test]
    fn a_rewind_leaves_alone_what_was_delivered_and_what_came_of_it_since() {
        let back = Rewound::default().by(&order(1, 10, false), 100, 41);
        assert_eq!(back.says(10, 40), Says::WhatIsFirm);
        assert_eq!(back.says(10, 41), Says::Everything, "it was written since");
        assert_eq!([back.says(9, 40), back.says(100, 40)], [Says::Everything; 2], "it is not read again");
        assert!(is_firm(Fate::Delivered) && !is_firm(Fate::Dead(DeadReason::Rejected)));
        assert!(is_firm(Fate::Dead(DeadReason::NoAnswer)), "a person decides whether it may be sent twice");
        assert_eq!(back.id_of(10, Uuid::from_u128(1)), Uuid::from_u128(1));
    }

    #[test]
    fn again_gives_what_was_settled_an_id_of_its_own_and_nothing_else() {
        let again = Rewound::default().by(&order(4, 10, true), 100, 41);
        let id = Uuid::from_u128(1);
        assert_eq!(again.says(10, 40), Says::Nothing);
        assert_eq!([again.id_of(9, id), again.id_of(100, id)], [id; 2]);
        assert_ne!(again.id_of(10, id), id);
        let later = again.by(&order(5, 20, true), 100, 90);
        assert_ne!(later.id_of(20, id), again.id_of(20, id));
        let sooner = again.by(&order(5, 20, true), 60, 90);
        assert_eq!(sooner.id_of(99, id), later.id_of(20, id), "what was left to do is done by the later one");
    }

    #[test]
    fn what_is_settled_is_over_and_its_number_stays() {
        let both = Rewound::default().by(&order(1, 10, false), 50, 41).by(&order(2, 10, true), 100, 41);
        assert_eq!(both.at(NextOffset::stored(49)), both);
        assert!(both.at(NextOffset::stored(50)).back.is_none() && both.at(NextOffset::stored(50)).again.is_some());
        assert_eq!(both.at(NextOffset::stored(100)), Rewound::over(2));
    }
}
