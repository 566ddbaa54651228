//! Offsets, with the one place where one is added.

/// The offset of the next record to read: what is committed. A record's own offset is an `i64`; the two never mix.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct NextOffset(i64);

impl NextOffset {
    /// After the record at `offset` has been settled.
    #[must_use]
    pub fn after(offset: i64) -> Self {
        Self(offset + 1)
    }

    /// An offset that already means "next", as Kafka and the offsets table hold it.
    #[must_use]
    pub fn stored(next: i64) -> Self {
        Self(next)
    }

    #[must_use]
    pub fn get(self) -> i64 {
        self.0
    }
}
