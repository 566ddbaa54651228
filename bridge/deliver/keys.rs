//! The queues of a partition's keys: one call at a time for a key, in order, and a failing key waits alone.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::hash::{DefaultHasher, Hash, Hasher};
use std::time::Duration;

use uuid::Uuid;

/// A record's key, as far as order is concerned: a hash of its bytes. Two keys that share one merely wait for each other.
/// A record without a key has no order to keep, except with its own repetitions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct KeyId(u64);

impl KeyId {
    #[must_use]
    pub fn of(key: Option<&[u8]>, delivery_id: Uuid) -> Self {
        let mut hasher = DefaultHasher::new();
        match key {
            Some(key) => key.hash(&mut hasher),
            None => delivery_id.hash(&mut hasher),
        }
        Self(hasher.finish())
    }
}

/// By what is a hash already, of a key or of an identity, or an offset that Kafka gave: it need not be hashed by one of the
/// strong kind, only by a seeded one, so that nobody can tell from outside which of them meet.
pub(super) type ById<K, V> = HashMap<K, V, foldhash::fast::RandomState>;

/// The same, for what is only there or not.
pub(super) type Ids = HashSet<Uuid, foldhash::fast::RandomState>;

/// Where a record waits to be settled.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Place {
    /// In the window, by its offset.
    Window(i64),
    /// Parked or requeued, by its origin: that offset was settled already, and the receipts hold the record.
    Open(i64),
}

/// What a key is doing.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Stand {
    Ready,
    Waiting(Duration),
    /// Its first record is being read, promised or sent.
    Calling,
    /// What became of its first record has to be committed before the next one may go.
    Settling,
}

#[derive(Debug)]
pub(super) struct Queue {
    /// Parked and requeued records, in order: all before `window`.
    open: VecDeque<(i64, Uuid)>,
    window: VecDeque<(i64, Uuid)>,
    /// Records on their way from `window` to `open`.
    parking: usize,
    pub(super) stand: Stand,
    /// Of the first record, in a row.
    pub(super) failures: u32,
    /// On the sink's own clock, which stands still while it is held.
    pub(super) failing_since: Option<Duration>,
}

impl Queue {
    fn new() -> Self {
        Self {
            open: VecDeque::new(),
            window: VecDeque::new(),
            parking: 0,
            stand: Stand::Settling,
            failures: 0,
            failing_since: None,
        }
    }

    pub(super) fn head(&self) -> Option<(Place, Uuid)> {
        if let Some((origin, id)) = self.open.front() {
            return Some((Place::Open(*origin), *id));
        }
        let (offset, id) = self.window.front().filter(|_| self.parking == 0)?;
        Some((Place::Window(*offset), *id))
    }

    /// Records that wait in the window.
    pub(super) fn waiting(&self) -> usize {
        self.window.len()
    }

    /// What comes for this key is to be parked as well. Not where its last parked record is about to be settled: what
    /// waits for that may go in place.
    pub(super) fn is_parked(&self) -> bool {
        self.parking > 0 || self.open.len() > 1 || (self.open.len() == 1 && self.stand != Stand::Settling)
    }

    fn is_empty(&self) -> bool {
        self.open.is_empty() && self.window.is_empty() && self.parking == 0
    }

    fn forgive(&mut self) {
        self.failures = 0;
        self.failing_since = None;
    }
}

/// All keys of a partition that have something to do.
#[derive(Debug, Default)]
pub(super) struct Keys {
    queues: ById<KeyId, Queue>,
    /// In the order in which they became ready; keys that are not ready any more are passed over.
    ready: VecDeque<KeyId>,
    waiting: BTreeSet<(Duration, KeyId)>,
    /// Keys that were tried while the sink was held, so that each gets its turn.
    probed: BTreeSet<KeyId>,
}

impl Keys {
    /// A record of the window waits for its turn.
    pub(super) fn arrive(&mut self, key: KeyId, offset: i64, id: Uuid) {
        let idle = !self.queues.contains_key(&key);
        self.queues.entry(key).or_insert_with(Queue::new).window.push_back((offset, id));
        if idle {
            self.stand(key, Stand::Ready);
        }
    }

    /// A parked or requeued record takes its turn, behind those that wait likewise; `due`, if it is the first.
    pub(super) fn open(&mut self, key: KeyId, origin: i64, id: Uuid, due: Duration) {
        let idle = !self.queues.contains_key(&key);
        self.queues.entry(key).or_insert_with(Queue::new).open.push_back((origin, id));
        if idle {
            self.stand(key, Stand::Waiting(due));
        }
    }

    /// A record that was on its way to be parked is parked.
    pub(super) fn parked(&mut self, key: KeyId, origin: i64, id: Uuid) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.parking = queue.parking.saturating_sub(1);
            queue.open.push_back((origin, id));
            if queue.open.len() == 1 && queue.stand == Stand::Settling {
                queue.forgive();
            }
        }
    }

    /// A record goes to be parked without having waited: its key is parked.
    pub(super) fn park_one(&mut self, key: KeyId) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.parking += 1;
        }
    }

    /// A record that was to be parked is a repetition after all.
    pub(super) fn unpark_one(&mut self, key: KeyId) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.parking = queue.parking.saturating_sub(1);
        }
    }

    /// Records of the key that wait in the window, in order, are on their way to be parked: those before the first that
    /// `stays`.
    pub(super) fn park(&mut self, key: KeyId, stays: impl Fn(i64, Uuid) -> bool) -> Vec<(i64, Uuid)> {
        let Some(queue) = self.queues.get_mut(&key) else { return vec![] };
        let staying = queue.window.iter().position(|(offset, id)| stays(*offset, *id));
        let parked: Vec<_> = queue.window.drain(..staying.unwrap_or(queue.window.len())).collect();
        if !parked.is_empty() {
            queue.parking += parked.len();
            self.stand(key, Stand::Settling);
        }
        parked
    }

    /// The first record is settled as far as its key is concerned: the next one may go.
    pub(super) fn advance(&mut self, key: KeyId, place: Place) {
        self.leave(key, place);
        self.go_on(key);
    }

    /// The first record's end is known, and the next one waits until it is committed.
    pub(super) fn settle(&mut self, key: KeyId, place: Place) {
        // A parked one stays, since its key stays parked until then.
        if matches!(place, Place::Window(_)) {
            self.leave(key, place);
        }
        self.stand(key, Stand::Settling);
    }

    fn leave(&mut self, key: KeyId, place: Place) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        match place {
            Place::Window(offset) if queue.window.front().is_some_and(|(first, _)| *first == offset) => {
                queue.window.pop_front();
            }
            Place::Open(origin) if queue.open.front().is_some_and(|(first, _)| *first == origin) => {
                queue.open.pop_front();
            }
            _ => return,
        }
        queue.forgive();
    }

    /// Whatever the key waited for has come.
    pub(super) fn go_on(&mut self, key: KeyId) {
        let Some(queue) = self.queues.get(&key) else { return };
        if queue.is_empty() {
            if let Some(Queue { stand: Stand::Waiting(until), .. }) = self.queues.remove(&key) {
                self.waiting.remove(&(until, key));
            }
        } else if queue.head().is_some() {
            self.stand(key, Stand::Ready);
        }
    }

    /// Where all that was to be parked were repetitions, there is no commit to wait for.
    pub(super) fn go_on_if_idle(&mut self, key: KeyId) {
        if self.queues.get(&key).is_some_and(Queue::is_empty) {
            self.go_on(key);
        }
    }

    pub(super) fn stand(&mut self, key: KeyId, stand: Stand) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        if let Stand::Waiting(until) = queue.stand {
            self.waiting.remove(&(until, key));
        }
        match stand {
            Stand::Ready if queue.stand != Stand::Ready => self.ready.push_back(key),
            Stand::Waiting(until) => _ = self.waiting.insert((until, key)),
            _ => {}
        }
        queue.stand = stand;
    }

    /// Makes ready what has waited long enough.
    pub(super) fn wake(&mut self, now: Duration) {
        while let Some(&(until, key)) = self.waiting.first().filter(|(until, _)| *until <= now) {
            self.waiting.remove(&(until, key));
            self.stand(key, Stand::Ready);
        }
    }

    /// The next key that may send.
    pub(super) fn next_ready(&mut self) -> Option<KeyId> {
        while let Some(key) = self.ready.pop_front() {
            if let Some(queue) = self.queues.get_mut(&key).filter(|queue| queue.stand == Stand::Ready) {
                queue.stand = Stand::Calling;
                return Some(key);
            }
        }
        None
    }

    /// A waiting key to see with whether the sink answers: each in its turn, for one of them may be what is wrong.
    pub(super) fn next_probe(&mut self) -> Option<KeyId> {
        let fresh = self.waiting.iter().map(|(_, key)| *key).find(|key| !self.probed.contains(key));
        let key = fresh.or_else(|| {
            self.probed.clear();
            self.waiting.first().map(|(_, key)| *key)
        })?;
        self.probed.insert(key);
        self.stand(key, Stand::Calling);
        Some(key)
    }

    /// Whether [`Keys::next_ready`] is worth a try: without a look at any key.
    pub(super) fn may_be_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    pub(super) fn has_ready(&self) -> bool {
        self.ready.iter().any(|key| self.queues.get(key).is_some_and(|queue| queue.stand == Stand::Ready))
    }

    /// Keys of which nothing is under way, in an order that does not hang on a map's.
    pub(super) fn idle(&self) -> BTreeSet<KeyId> {
        let idle = self.queues.iter().filter(|(_, queue)| matches!(queue.stand, Stand::Ready | Stand::Waiting(_)));
        idle.map(|(key, _)| *key).collect()
    }

    pub(super) fn get(&self, key: KeyId) -> Option<&Queue> {
        self.queues.get(&key)
    }

    pub(super) fn get_mut(&mut self, key: KeyId) -> Option<&mut Queue> {
        self.queues.get_mut(&key)
    }

    pub(super) fn parked_count(&self) -> usize {
        self.queues.values().filter(|queue| queue.is_parked()).count()
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.waiting.first().map(|(until, _)| *until)
    }
}
