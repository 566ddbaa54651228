//! What was acknowledged: the newest of it, found by its print, in a fixed number of bytes an entry.
//!
//! A ring of entries in the order in which they came, and a table of chains through them: 40 bytes for an entry and 4 to
//! 8 for its place in the table. A map beside a queue would hold every print twice, and twice the room besides.

/// A 128-bit keyed hash of what is remembered. As two words, which want eight bytes' alignment and no padding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Print(pub(super) u64, pub(super) u64);

/// Where a record stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Place {
    pub(super) offset: i64,
    pub(super) partition: i32,
    /// Topic and schema, by their number.
    pub(super) destination: u32,
}

#[derive(Debug, Clone, Copy)]
struct Entry {
    print: Print,
    place: Place,
    /// Seconds since the Unix epoch, until 2106.
    at: u32,
    /// The next entry of the chain, or [`END`].
    next: u32,
}

/// Of a chain. No ring is that long: see [`Ring::new`].
const END: u32 = u32::MAX;
/// Entries that are allocated together, in 10 KiB: as it grows, nothing is copied and no room is left behind.
const CHUNK: usize = 256;
/// Chains that a ring begins with.
const FIRST: usize = 64;

/// At most `max` entries; past it the oldest makes room.
#[derive(Debug)]
pub(super) struct Ring {
    /// All of [`CHUNK`] entries but the last.
    chunks: Vec<Vec<Entry>>,
    len: usize,
    /// The first entry of each chain. A power of two, so that a part of the print chooses.
    heads: Vec<u32>,
    max: usize,
    /// Once it is full, the place of the oldest.
    oldest: usize,
    /// The time of the oldest entry while nothing was forgotten; afterwards of the newest that was.
    since: Option<u32>,
    forgot: bool,
}

impl Ring {
    pub(super) fn new(max: usize) -> Self {
        let max = max.clamp(1, END as usize);
        Self { chunks: Vec::new(), len: 0, heads: Vec::new(), max, oldest: 0, since: None, forgot: false }
    }

    pub(super) fn len(&self) -> usize {
        self.len
    }

    /// Bytes that it holds on to.
    pub(super) fn bytes(&self) -> usize {
        let entries: usize = self.chunks.iter().map(Vec::capacity).sum();
        entries * size_of::<Entry>()
            + self.chunks.capacity() * size_of::<Vec<Entry>>()
            + self.heads.capacity() * size_of::<u32>()
    }

    /// What came after this time, in seconds, is remembered. `None` while nothing has come.
    pub(super) fn since(&self) -> Option<u32> {
        self.since
    }

    /// Whether anything was.
    pub(super) fn has_forgotten(&self) -> bool {
        self.forgot
    }

    pub(super) fn get(&self, print: Print) -> Option<Place> {
        let mut at = *self.heads.get(self.chain(print))?;
        while at != END {
            let entry = self.entry(at as usize);
            if entry.print == print {
                return Some(entry.place);
            }
            at = entry.next;
        }
        None
    }

    /// Remembers it, unless it is known already: of several places the first counts.
    pub(super) fn insert(&mut self, print: Print, place: Place, at: u32) {
        if self.get(print).is_none() {
            self.push(print, place, at);
        }
    }

    /// Remembers what is known not to be there, without a look.
    pub(super) fn push(&mut self, print: Print, place: Place, at: u32) {
        let index = if self.len < self.max {
            self.since = Some(self.since.map_or(at, |since| since.min(at)));
            self.grow();
            self.chunks[self.len / CHUNK].push(Entry { print, place, at, next: END });
            self.len += 1;
            self.len - 1
        } else {
            let index = self.oldest;
            self.forget(index);
            *self.entry_mut(index) = Entry { print, place, at, next: END };
            self.oldest = (index + 1) % self.max;
            index
        };
        self.link(index);
    }

    /// Takes an entry out of its chain.
    fn forget(&mut self, index: usize) {
        let Entry { print, at, next, .. } = *self.entry(index);
        // Times need not be in order: the end of a topic is read beside that of another.
        self.since = if self.forgot { self.since.max(Some(at)) } else { Some(at) };
        self.forgot = true;
        let chain = self.chain(print);
        if self.heads[chain] as usize == index {
            self.heads[chain] = next;
            return;
        }
        let mut before = self.heads[chain] as usize;
        while before != END as usize {
            let entry = self.entry_mut(before);
            if entry.next as usize == index {
                entry.next = next;
                return;
            }
            before = entry.next as usize;
        }
    }

    #[allow(clippy::cast_possible_truncation, reason = "`max` is at most END")]
    fn link(&mut self, index: usize) {
        let chain = self.chain(self.entry(index).print);
        self.entry_mut(index).next = self.heads[chain];
        self.heads[chain] = index as u32;
    }

    #[allow(clippy::cast_possible_truncation, reason = "any bits of the print will do")]
    fn chain(&self, print: Print) -> usize {
        print.1 as usize & self.heads.len().wrapping_sub(1)
    }

    fn entry(&self, index: usize) -> &Entry {
        &self.chunks[index / CHUNK][index % CHUNK]
    }

    fn entry_mut(&mut self, index: usize) -> &mut Entry {
        &mut self.chunks[index / CHUNK][index % CHUNK]
    }

    /// Room for one more.
    fn grow(&mut self) {
        let len = self.len;
        if len == self.chunks.len() * CHUNK {
            self.chunks.push(Vec::with_capacity(CHUNK.min(self.max - len)));
        }
        if len == self.heads.len() {
            let chains = (len * 2).max(FIRST);
            self.heads.clear();
            self.heads.reserve_exact(chains);
            self.heads.resize(chains, END);
            (0..len).for_each(|index| self.link(index));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::collections::{HashMap, VecDeque};

    use proptest::prelude::*;

    use super::*;

    /// The same, as anybody would write it first.
    #[derive(Default)]
    struct Naive {
        places: HashMap<Print, Place>,
        order: VecDeque<(Print, u32)>,
        forgotten: Option<u32>,
    }

    impl Naive {
        fn insert(&mut self, max: usize, print: Print, place: Place, at: u32) {
            if self.places.contains_key(&print) {
                return;
            }
            if self.order.len() == max
                && let Some((print, at)) = self.order.pop_front()
            {
                self.places.remove(&print);
                self.forgotten = self.forgotten.max(Some(at));
            }
            self.places.insert(print, place);
            self.order.push_back((print, at));
        }

        fn since(&self) -> Option<u32> {
            self.forgotten.or_else(|| self.order.iter().map(|(_, at)| *at).min())
        }
    }

    fn place(offset: i64) -> Place {
        Place { offset, partition: 3, destination: 1 }
    }

    proptest! {
        /// Few prints, in few chains, so that they meet; a ring of one to forty entries, so that it goes round and grows.
        #[test]
        fn a_ring_remembers_what_a_map_beside_a_queue_remembers(
            max in 1_usize..40,
            steps in prop::collection::vec((0_u64..120, 0_u32..1_000), 0..600),
        ) {
            let (mut ring, mut naive) = (Ring::new(max), Naive::default());
            for (step, (print, at)) in (0_i64..).zip(steps) {
                // The low bits choose the chain: four of them are used.
                let print = Print(print, print % 4);
                ring.insert(print, place(step), at);
                naive.insert(max, print, place(step), at);
                prop_assert_eq!(ring.len(), naive.order.len());
                prop_assert_eq!(ring.since(), naive.since());
                for other in 0..120 {
                    let other = Print(other, other % 4);
                    prop_assert_eq!(ring.get(other), naive.places.get(&other).copied());
                }
            }
        }

        #[test]
        fn a_ring_grows_through_all_its_sizes_and_loses_nothing(count in 0_u64..3_000, spread in 1_u64..5_000) {
            let mut ring = Ring::new(10_000);
            for number in 0..count {
                ring.insert(Print(number, number % spread), place(number.cast_signed()), 5);
            }
            for number in 0..count {
                prop_assert_eq!(ring.get(Print(number, number % spread)), Some(place(number.cast_signed())));
            }
        }
    }

    #[test]
    fn an_empty_ring_holds_no_memory_and_a_full_one_less_than_fifty_bytes_an_entry() {
        let mut ring = Ring::new(31_250);
        assert_eq!((ring.bytes(), ring.get(Print(0, 0)), ring.since()), (0, None, None));
        for number in 0..100_000 {
            ring.insert(Print(number, number.wrapping_mul(0x9E37_79B9_7F4A_7C15)), place(0), 7);
        }
        assert_eq!(ring.len(), 31_250);
        assert!(ring.bytes() <= 50 * ring.len(), "{} bytes", ring.bytes());
    }
}
