//! Two producers, one that lingers and one that does not, and which of them a record takes.
//!
//! librdkafka's linger is one number for a producer's whole life, and both ends of it are wrong: a lone record waits for
//! company that does not come, or a crowd is written in requests of a few records each. So there is a producer for each
//! end, and how much was in flight lately decides between them, record by record. What keeps the order of a key: its records
//! change producers only while none of them is in flight. What keeps the order of a partition that is named: its records
//! never change.

use std::hash::{BuildHasher, BuildHasherDefault, DefaultHasher};
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};

/// Records in flight, lately, up to which nobody lingers. At a thousand a second one or two are; with 64 senders that wait for
/// their answers, some forty.
const CALM: usize = 8;
/// A crowd's records land together and leave a moment's calm, in which the next ones would be written one by one. So the
/// most that was in flight counts, and loses a 64th with each record: 256 senders are a crowd for 200 records more,
/// some ten milliseconds of what they send.
const MEMORY: usize = 64;
/// Keys are told apart by so many buckets: two keys in one only follow each other to the same producer. Four times as
/// many as records in flight at 256 senders.
const BUCKETS: usize = 1024;
/// The bit of a bucket that says which lane it is on; the others count its records in flight, of which
/// `Limits::max_in_flight_records` allows far fewer than fit.
const LANE: u32 = 1 << 31;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Lane {
    /// Each record at once.
    Calm,
    /// Records wait a moment for others.
    Busy,
}

impl Lane {
    pub(super) const ALL: [Self; 2] = [Self::Calm, Self::Busy];

    pub(super) fn index(self) -> usize {
        match self {
            Self::Calm => 0,
            Self::Busy => 1,
        }
    }
}

/// Which lane each key's records are on.
pub(super) struct Lanes {
    buckets: [AtomicU32; BUCKETS],
    /// The most that was in flight lately, times [`MEMORY`].
    crowd: AtomicUsize,
}

/// A record's place on a lane, to be given back once it has landed.
#[derive(Debug, Clone, Copy)]
pub(super) struct Place {
    pub(super) lane: Lane,
    /// None for a record without a key, which has no order to keep, and for one whose partition is named.
    bucket: Option<u16>,
}

impl Place {
    /// The one for records whose partition is named: they keep the order of the partition, whatever their keys are, and so
    /// never change producers.
    pub(super) const OF_A_PARTITION: Self = Self { lane: Lane::Busy, bucket: None };
}

impl Lanes {
    pub(super) fn new() -> Self {
        Self { buckets: [const { AtomicU32::new(0) }; BUCKETS], crowd: AtomicUsize::new(0) }
    }

    /// The lane for a record of that key while so many records are in flight, this one among them.
    pub(super) fn enter(&self, key: Option<&[u8]>, in_flight: usize) -> Place {
        let wanted = if self.lately(in_flight) > CALM { Lane::Busy } else { Lane::Calm };
        let Some(key) = key else { return Place { lane: wanted, bucket: None } };
        let hash = BuildHasherDefault::<DefaultHasher>::default().hash_one(key);
        let bucket = u16::try_from(hash % BUCKETS as u64).unwrap_or(0);
        let Some(state) = self.buckets.get(usize::from(bucket)) else { return Place { lane: wanted, bucket: None } };
        let fresh = 1 | if wanted == Lane::Busy { LANE } else { 0 };
        let mut before = state.load(Ordering::Acquire);
        loop {
            let after = if before & !LANE == 0 { fresh } else { before + 1 };
            match state.compare_exchange_weak(before, after, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) => {
                    let lane = if after & LANE == 0 { Lane::Calm } else { Lane::Busy };
                    return Place { lane, bucket: Some(bucket) };
                }
                Err(now) => before = now,
            }
        }
    }

    /// The most that was in flight lately. Two threads at once may lose one's word, which the next record says again.
    fn lately(&self, in_flight: usize) -> usize {
        let crowd = self.crowd.load(Ordering::Relaxed);
        let crowd = (crowd - crowd.div_ceil(MEMORY)).max(in_flight.saturating_mul(MEMORY));
        self.crowd.store(crowd, Ordering::Relaxed);
        crowd / MEMORY
    }

    pub(super) fn leave(&self, place: Place) {
        if let Some(state) = place.bucket.and_then(|bucket| self.buckets.get(usize::from(bucket))) {
            state.fetch_sub(1, Ordering::AcqRel);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// As many records without a key as make it calm again, nothing else being in flight.
    fn calm_down(lanes: &Lanes) -> usize {
        (0..1_000).take_while(|_| lanes.enter(None, 1).lane == Lane::Busy).count()
    }

    #[test]
    fn a_key_changes_lanes_only_while_nothing_of_it_is_in_flight() {
        let lanes = Lanes::new();
        let first = lanes.enter(Some(b"a"), 1);
        assert_eq!(first.lane, Lane::Calm);
        let second = lanes.enter(Some(b"a"), CALM + 1);
        assert_eq!(second.lane, Lane::Calm, "the first is still in flight");
        lanes.leave(first);
        assert_eq!(lanes.enter(Some(b"a"), 100).lane, Lane::Calm, "the second is");
        lanes.leave(second);
        lanes.leave(second);
        let third = lanes.enter(Some(b"a"), CALM + 1);
        assert_eq!(third.lane, Lane::Busy);
        calm_down(&lanes);
        assert_eq!(lanes.enter(Some(b"a"), 1).lane, Lane::Busy);
        lanes.leave(third);
        lanes.leave(third);
        assert_eq!(lanes.enter(Some(b"a"), 1).lane, Lane::Calm);
    }

    #[test]
    fn a_crowd_is_one_for_a_while_after_its_records_have_landed_and_no_longer() {
        let lanes = Lanes::new();
        assert_eq!(lanes.enter(None, CALM).lane, Lane::Calm);
        assert_eq!(lanes.enter(None, 256).lane, Lane::Busy);
        let after = calm_down(&lanes);
        assert!((150..300).contains(&after), "{after} records");
        assert_eq!(lanes.enter(None, 1).lane, Lane::Calm);
    }
}
