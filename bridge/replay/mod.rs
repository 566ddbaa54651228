//! The way back: what was set aside is looked at, chosen, and sent once more.
//!
//! ```text
//!  dead.<sink>          ─▶ dead letters ─▶ receipts: is it delivered, is it waiting? ─▶ a `requeued` receipt, for its owner
//!  quarantine.<source>  ─▶ requests, marks ─▶ map ▸ encode once more (ingest) ─▶ events + mark, one transaction
//! ```
//!
//! What is read is bounded, and so is what is kept of it. Nothing here is a state of its own: receipts and marks say what
//! was sent back, so that whoever asks twice sends once.

pub mod dead;
pub mod quarantine;
pub mod receipts;

/// Bytes of records that one command holds. Past it, it says so and asks to be asked for less.
pub const MAX_HELD: usize = 256 << 20;

/// Records that one command holds: a few hundred bytes each, besides what they hold.
pub const MAX_RECORDS: usize = 100_000;

/// More than a command may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there are more than {records} of them, or more than {} MiB", .bytes >> 20)]
pub struct TooMany {
    pub records: usize,
    pub bytes: usize,
}

/// How much room is left.
#[derive(Debug, Clone, Copy)]
struct Room {
    records: usize,
    bytes: usize,
}

impl Default for Room {
    fn default() -> Self {
        Self { records: MAX_RECORDS, bytes: MAX_HELD }
    }
}

impl Room {
    fn take(&mut self, bytes: usize) -> Result<(), TooMany> {
        let left = self.records.checked_sub(1).zip(self.bytes.checked_sub(bytes));
        let (records, bytes) = left.ok_or(TooMany { records: MAX_RECORDS, bytes: MAX_HELD })?;
        *self = Self { records, bytes };
        Ok(())
    }

    fn give_back(&mut self, bytes: usize) {
        self.records += 1;
        self.bytes += bytes;
    }
}
