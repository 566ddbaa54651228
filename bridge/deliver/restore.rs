//! What a sink remembers of the events that it has seen, read again from its receipts when it gets a partition.
//!
//! The follower keeps four things of a receipt (delivery id, key, outcome, place); bodies of parked records are read
//! again when they are due.

use uuid::Uuid;

use super::receipt::{self, Receipt, ReceiptOutcome};
use crate::kafka::restore::{Committed, From, Raw, Restore, Source};
use crate::kafka::{self, Client};

/// What each commit of an offset carries in its metadata: where a restore has to begin in the receipts. Text, so that
/// Kafka's own tools show it: `receipts_from=17`. Other words in it are left for versions to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bookmark {
    /// The oldest receipt that is still needed: of a record that is parked, requeued and open, or at or beyond the
    /// committed offset; else the position up to which receipts were followed.
    pub receipts_from: i64,
}

const RECEIPTS_FROM: &str = "receipts_from=";

impl Bookmark {
    #[must_use]
    pub fn write(self) -> String {
        format!("{RECEIPTS_FROM}{}", self.receipts_from)
    }

    /// `None`: there is none that can be read, so nothing is known.
    #[must_use]
    pub fn read(metadata: &str) -> Option<Self> {
        let number = metadata.split_whitespace().find_map(|word| word.strip_prefix(RECEIPTS_FROM))?;
        let receipts_from = number.parse().ok().filter(|from| *from >= 0)?;
        Some(Self { receipts_from })
    }
}

/// Where a restore begins: at the bookmark or at the window's start, whichever is older. A commit without a bookmark
/// was not ours (an operator has moved the offset with Kafka's tools), and everything is read.
#[must_use]
pub fn begin(committed: &Committed, window_start_ms: i64) -> From {
    let bookmark = Bookmark::read(&committed.metadata);
    bookmark.map_or(From::default(), |bookmark| From {
        offset: Some(bookmark.receipts_from),
        time_ms: Some(window_start_ms),
    })
}

/// One receipt, as far as it is remembered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    pub partition: i32,
    /// Of the receipt.
    pub offset: i64,
    /// The event's key, which its receipt has, too.
    pub key: Option<Box<[u8]>>,
    /// `Err`: its value is no receipt, or one of another version, to be read by its own schema.
    pub seen: Result<Seen, receipt::Error>,
}

/// What a receipt says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Seen {
    pub delivery_id: Uuid,
    pub origin_offset: i64,
    pub outcome: ReceiptOutcome,
    /// Milliseconds since the epoch.
    pub settled_at: i64,
}

impl Entry {
    fn read(schema_id: u32, raw: Raw<'_>) -> Self {
        let seen = Receipt::decode(schema_id, raw.value.unwrap_or_default()).map(|receipt| Seen {
            delivery_id: receipt.delivery_id,
            origin_offset: receipt.origin_offset,
            outcome: receipt.outcome,
            settled_at: receipt.settled_at,
        });
        let key = raw.key.map(Box::from);
        Self { partition: raw.partition, offset: raw.offset, key, seen }
    }
}

/// Begins to restore, and to follow, the receipts of these partitions. `window_start_ms` is now less `dedupe.window`,
/// `schema_id` the id of [`receipt::SCHEMA`].
///
/// # Errors
/// As [`Restore::start`].
pub fn restore(
    client: &Client,
    source: Source,
    schema_id: u32,
    window_start_ms: i64,
) -> Result<Restore<Entry>, kafka::Error> {
    let from = move |_, committed: &Committed| begin(committed, window_start_ms);
    Restore::start(client, source, from, move |raw| Some(Entry::read(schema_id, raw)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::NextOffset;

    #[test]
    fn a_bookmark_is_read_as_it_was_written_and_beside_other_words() {
        let bookmark = Bookmark { receipts_from: 17 };
        assert_eq!(Bookmark::read(&bookmark.write()), Some(bookmark));
        assert_eq!(Bookmark::read("v=2 receipts_from=17 more"), Some(bookmark));
        for other in ["", "17", "receipts_from=", "receipts_from=-1", "receipts_from=x"] {
            assert_eq!(Bookmark::read(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_restore_begins_at_the_older_of_bookmark_and_window_and_without_a_bookmark_at_the_first_receipt() {
        let next = Some(NextOffset::stored(5));
        let marked = Committed { next, metadata: Bookmark { receipts_from: 3 }.write() };
        assert_eq!(begin(&marked, 1_000), From { offset: Some(3), time_ms: Some(1_000) });
        assert_eq!(begin(&Committed { next, metadata: String::new() }, 1_000), From::default());
        assert_eq!(begin(&Committed::default(), 1_000), From::default());
    }
}
