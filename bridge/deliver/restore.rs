//! What a sink remembers of the events that it has seen, read again from its receipts when it gets a partition.
//!
//! The follower keeps four things of a receipt (delivery id, key, outcome, place); bodies of parked records are read
//! again when they are due.

use std::time::Duration;

use super::receipt::{self, Receipt, ReceiptOutcome};
use super::rewound::Rewound;
use super::settle::Followed;
use crate::causes::chain;
use crate::kafka::restore::{Committed, From, Raw, Restore, Source};
use crate::kafka::{self, Client};
use crate::patience::patiently;
use crate::schema::{Decoder, decode};

/// Between two questions to a registry that does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(1);

/// What each commit of an offset carries in its metadata: where a restore has to begin in the receipts. Text, so that
/// Kafka's own tools show it: `receipts_from=17`, and the words of [`Rewound`]. Others are left for versions to come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bookmark {
    /// The oldest receipt that is still needed: of a record that is parked, requeued and open, or at or beyond the
    /// committed offset; else the position up to which receipts were followed.
    pub receipts_from: i64,
    /// What the partition's rewinds have come to.
    pub rewound: Rewound,
}

const RECEIPTS_FROM: &str = "receipts_from=";

impl Bookmark {
    #[must_use]
    pub fn write(self) -> String {
        format!("{RECEIPTS_FROM}{}{}", self.receipts_from, self.rewound)
    }

    /// `None`: there is none that can be read, so nothing is known.
    #[must_use]
    pub fn read(metadata: &str) -> Option<Self> {
        let number = metadata.split_whitespace().find_map(|word| word.strip_prefix(RECEIPTS_FROM))?;
        let receipts_from = number.parse().ok().filter(|from| *from >= 0)?;
        Some(Self { receipts_from, rewound: Rewound::read(metadata) })
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
    pub read: Result<Followed, Unread>,
}

/// A receipt that says nothing yet, or never will.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Unread {
    /// Of another version: to be read by its own schema.
    Other { key: Option<Box<[u8]>>, value: Box<[u8]> },
    /// It is none, or says what only a newer version understands.
    Nothing(Option<receipt::Error>),
}

impl Entry {
    fn read(schema_id: u32, raw: Raw<'_>) -> Self {
        let value = raw.value.unwrap_or_default();
        let read = match Receipt::decode(schema_id, value) {
            Ok(receipt) => receipt::followed(&receipt, raw.offset, raw.key).ok_or(Unread::Nothing(None)),
            Err(receipt::Error::OtherSchema { .. }) => {
                Err(Unread::Other { key: raw.key.map(Box::from), value: Box::from(value) })
            }
            Err(error) => Err(Unread::Nothing(Some(error))),
        };
        Self { partition: raw.partition, offset: raw.offset, read }
    }

    /// What it says, asking the registry where it is of another version. A registry that is down is waited for, since
    /// what is not known of a delivery may be sent twice.
    pub async fn resolve(self, decoder: &Decoder) -> Option<Followed> {
        let (key, value) = match self.read {
            Ok(followed) => return Some(followed),
            Err(Unread::Other { key, value }) => (key, value),
            Err(Unread::Nothing(error)) => {
                let (partition, offset) = (self.partition, self.offset);
                tracing::warn!(partition, offset, ?error, "a record among the receipts says nothing and is left out");
                return None;
            }
        };
        let tell = |_: &_, error: &str| tracing::warn!(error, "the schema of a receipt is not known yet");
        match patiently(|| decoder.decode(&value), decode::Error::is_transient, ASK_AGAIN, tell).await {
            Ok(read) => {
                let receipt = Receipt::from_value(&read.value);
                receipt.ok().and_then(|receipt| receipt::followed(&receipt, self.offset, key.as_deref()))
            }
            Err(error) => {
                let (partition, offset) = (self.partition, self.offset);
                tracing::warn!(partition, offset, error = chain(&error), "a receipt cannot be read and is left out");
                None
            }
        }
    }
}

/// Begins to restore, and to follow, the receipts of these partitions; of those that come once all was read only those that
/// the partition's owner does not know. `window_start_ms` is now less `dedupe.window`,
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
    Restore::start(client, source, from, move |raw| {
        // Once all is restored only what was sent again is news: the rest its owner has written, and knows.
        let outcome = if raw.is_new { Receipt::outcome_of(schema_id, raw.value.unwrap_or_default()) } else { None };
        let is_news = outcome.is_none_or(|outcome| outcome == ReceiptOutcome::Requeued);
        is_news.then(|| Entry::read(schema_id, raw))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::NextOffset;

    #[test]
    fn a_bookmark_is_read_as_it_was_written_and_beside_other_words() {
        let bookmark = Bookmark { receipts_from: 17, rewound: Rewound::over(3) };
        assert_eq!(Bookmark::read(&bookmark.write()), Some(bookmark));
        assert_eq!(Bookmark::read("v=2 receipts_from=17 more rewind=3"), Some(bookmark));
        for other in ["", "17", "receipts_from=", "receipts_from=-1", "receipts_from=x"] {
            assert_eq!(Bookmark::read(other), None, "{other:?}");
        }
    }

    #[test]
    fn a_restore_begins_at_the_older_of_bookmark_and_window_and_without_a_bookmark_at_the_first_receipt() {
        let next = Some(NextOffset::stored(5));
        let marked = Committed { next, metadata: Bookmark { receipts_from: 3, rewound: Rewound::default() }.write() };
        assert_eq!(begin(&marked, 1_000), From { offset: Some(3), time_ms: Some(1_000) });
        assert_eq!(begin(&Committed { next, metadata: String::new() }, 1_000), From::default());
        assert_eq!(begin(&Committed::default(), 1_000), From::default());
    }
}
