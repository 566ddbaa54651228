//! The three states of what may come once: unknown, in flight, acknowledged.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};

use super::ring::{Place, Print, Ring};

/// A part of the memory. `W`: whoever waits for a report; nobody by default.
#[derive(Debug)]
pub(super) struct Shard<W> {
    pub(super) acknowledged: Ring,
    /// As many as the publisher has in flight at most, and a claim of each thread.
    flying: HashMap<Print, Flying<W>, BuildHasherDefault<AsItIs>>,
}

/// Between being handed to Kafka and the report.
#[derive(Debug)]
struct Flying<W> {
    waiters: W,
    destination: u32,
    at: u32,
    /// What becomes acknowledged, or unknown, with it.
    rider: Option<Box<Print>>,
    /// Somebody else's record of the same event, found in its topic meanwhile.
    seen: Option<Place>,
}

/// What is known of something that has come.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Known<'a, W> {
    /// Not until now.
    Unknown,
    InFlight(&'a mut W),
    Acknowledged(Place),
}

/// The end of a flight.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Landed<W> {
    /// `None`: unknown again.
    pub(super) place: Option<Place>,
    pub(super) waiters: W,
    pub(super) rider: Option<Print>,
}

impl<W: Default> Shard<W> {
    pub(super) fn new(max: usize) -> Self {
        Self { acknowledged: Ring::new(max), flying: HashMap::default() }
    }

    pub(super) fn look(&mut self, print: Print) -> Known<'_, W> {
        if let Some(place) = self.acknowledged.get(print) {
            return Known::Acknowledged(place);
        }
        self.flying.get_mut(&print).map_or(Known::Unknown, |flying| Known::InFlight(&mut flying.waiters))
    }

    /// What is known of it; where that is nothing, it is in flight from now on.
    pub(super) fn enter(&mut self, print: Print, destination: u32, at: u32, rider: Option<Print>) -> Known<'_, W> {
        if let Some(place) = self.acknowledged.get(print) {
            return Known::Acknowledged(place);
        }
        match self.flying.entry(print) {
            std::collections::hash_map::Entry::Occupied(flying) => Known::InFlight(&mut flying.into_mut().waiters),
            std::collections::hash_map::Entry::Vacant(vacant) => {
                let rider = rider.map(Box::new);
                vacant.insert(Flying { waiters: W::default(), destination, at, rider, seen: None });
                Known::Unknown
            }
        }
    }

    /// The report has come, with a partition and an offset where Kafka took the record. `None` where nothing of that
    /// print is in flight.
    pub(super) fn land(&mut self, print: Print, report: Option<(i32, i64)>) -> Option<Landed<W>> {
        let Flying { waiters, destination, at, rider, seen } = self.flying.remove(&print)?;
        let place = report.map(|(partition, offset)| Place { offset, partition, destination }).or(seen);
        if let Some(place) = place {
            // What is in flight was not acknowledged when it took off, and cannot have become so since.
            self.acknowledged.push(print, place, at);
        }
        Some(Landed { place, waiters, rider: rider.map(|rider| *rider) })
    }

    /// It was found in its topic. In flight as well, it stays so until the report: that flight may be this very record.
    pub(super) fn remember(&mut self, print: Print, place: Place, at: u32) {
        match self.flying.get_mut(&print) {
            Some(flying) => flying.seen = flying.seen.or(Some(place)),
            None => self.acknowledged.insert(print, place, at),
        }
    }
}

/// A print is a hash already.
#[derive(Debug, Default)]
pub(super) struct AsItIs(u64);

impl Hasher for AsItIs {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(u64::from(*byte));
        }
    }

    /// Prints in one shard have their first word's highest bits in common, and the table reads those.
    fn write_u64(&mut self, word: u64) {
        self.0 = self.0.rotate_left(32) ^ word;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use proptest::prelude::*;

    use super::*;

    /// The waiters of a test are counted.
    type Waiters = u32;

    #[derive(Debug, Clone)]
    enum Step {
        Enter(u64),
        Land(u64, bool),
        Remember(u64),
    }

    /// Three states an id, as the design has them.
    #[derive(Default)]
    struct Naive {
        acknowledged: VecDeque<(u64, i64)>,
        flying: HashMap<u64, (u32, Option<i64>)>,
    }

    impl Naive {
        fn place(&self, id: u64) -> Option<i64> {
            self.acknowledged.iter().find(|(known, _)| *known == id).map(|(_, offset)| *offset)
        }

        fn acknowledge(&mut self, max: usize, id: u64, offset: i64) {
            if self.place(id).is_none() {
                self.acknowledged.push_back((id, offset));
                if self.acknowledged.len() > max {
                    self.acknowledged.pop_front();
                }
            }
        }
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            4 => (0_u64..12).prop_map(Step::Enter),
            3 => (0_u64..12, any::<bool>()).prop_map(|(id, taken)| Step::Land(id, taken)),
            1 => (0_u64..12).prop_map(Step::Remember),
        ]
    }

    proptest! {
        #[test]
        fn an_event_is_handed_over_once_until_its_report_fails(
            max in 1_usize..10,
            steps in prop::collection::vec(step(), 0..400),
        ) {
            let (mut shard, mut naive) = (Shard::<Waiters>::new(max), Naive::default());
            let at = |offset| Place { offset, partition: 0, destination: 7 };
            for (offset, step) in (0_i64..).zip(steps) {
                match step {
                    Step::Enter(id) => match shard.enter(Print(id, id), 7, 0, None) {
                        Known::Acknowledged(place) => {
                            prop_assert_eq!(Some(place.offset), naive.place(id));
                        }
                        Known::InFlight(waiters) => {
                            *waiters += 1;
                            let (known, _) = naive.flying.get_mut(&id).expect("in flight");
                            *known += 1;
                        }
                        Known::Unknown => {
                            prop_assert_eq!(naive.place(id), None);
                            prop_assert!(naive.flying.insert(id, (0, None)).is_none(), "twice in flight");
                        }
                    },
                    Step::Land(id, taken) => {
                        let landed = shard.land(Print(id, id), taken.then_some((0, offset)));
                        let flying = naive.flying.remove(&id);
                        prop_assert_eq!(landed.as_ref().map(|landed| landed.waiters), flying.map(|(waiters, _)| waiters));
                        if let Some((_, seen)) = flying {
                            let taken = taken.then_some(offset).or(seen);
                            prop_assert_eq!(landed.and_then(|landed| landed.place), taken.map(at));
                            if let Some(offset) = taken {
                                naive.acknowledge(max, id, offset);
                            }
                        }
                    }
                    Step::Remember(id) => {
                        shard.remember(Print(id, id), at(offset), 0);
                        match naive.flying.get_mut(&id) {
                            Some((_, seen)) => *seen = seen.or(Some(offset)),
                            None => naive.acknowledge(max, id, offset),
                        }
                    }
                }
            }
        }
    }

    #[test]
    fn what_rides_with_an_event_is_given_back_with_its_report() {
        let mut shard = Shard::<Waiters>::new(4);
        assert_eq!(shard.enter(Print(1, 1), 0, 9, Some(Print(2, 2))), Known::Unknown);
        let landed = shard.land(Print(1, 1), Some((3, 4))).expect("in flight");
        assert_eq!(landed.rider, Some(Print(2, 2)));
        assert_eq!(landed.place, Some(Place { offset: 4, partition: 3, destination: 0 }));
        assert_eq!(shard.land(Print(1, 1), None), None, "a flight lands once");
    }
}
