//! Deduplication: an event that comes again is answered with the place of the first, and not written a second time.
//!
//! ```text
//!             enter                    its report: taken
//!  unknown ──────────▶ in flight ─────────────────────────▶ acknowledged ──▶ forgotten, the oldest first
//!     ▲                    │ its report: failed, or nobody knows
//!     └────────────────────┘
//! ```
//!
//! An event is its source, the source's id for it, its type, and its ordinal, which the id carries (`event::Identity`).
//! Whoever comes while it is in flight waits for the same report. The report itself settles it, on the thread on which
//! reports come, whether or not anybody still waits. A failure that may have persisted makes it unknown as well, and is
//! counted: a possible double is better than an event that can never land.
//!
//! Nothing in quarantine is remembered: once the schema or the mapping is mended, the provider's own repeat lands.
//!
//! **Prints.** What is remembered is a 128-bit keyed hash. Two of two million events share one with a probability of
//! 2,000,000² / 2¹²⁹, about 6 in 10²⁷; the later would be taken for a repeat. The key is random for each process, since
//! senders choose ids and must not be able to choose such two. The end of the topics is hashed anew at each start, so
//! that no two processes need to agree.

mod ring;
mod shard;
mod tail;

use std::fmt;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock};

use tokio::sync::watch;

use self::ring::{Place, Print};
use self::shard::{Known, Landed, Shard};
pub use self::tail::{Finder, Found, shares};
use crate::kafka::{Error, Landing, Position, Ticket};
use crate::metrics::Counter;

/// Parts with a lock each: with so many, two of a few dozen threads seldom meet in one.
const MAX_SHARDS: usize = 64;
/// Entries that a part has at least, so that chance fills all of them alike: with a thousand, the fullest is a tenth
/// ahead of the others.
const ENTRIES_PER_SHARD: usize = 1024;

/// What identifies an event. `id` is what stands in `ce_id`: with the ordinal, where there is one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Identity<'a> {
    pub source: &'a str,
    pub id: &'a str,
    pub event_type: &'a str,
}

/// What may come once only beside the event that it brings, since the sender signs it and not the event: a source's
/// `replay_key`. It is remembered in the same memory, under names of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Token<'a> {
    pub source: &'a str,
    /// The key, or its digest: it stands in a header of the record.
    pub key: &'a str,
    /// Which of its request's events it brings.
    pub nth: usize,
}

impl Token<'_> {
    /// As a record carries it, under `event::header::REPLAY_KEY`, so that it is known after a restart.
    #[must_use]
    pub fn header(self) -> String {
        format!("{}:{}", self.nth, self.key)
    }
}

/// Where records of one kind go, and the schema that they are written with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    pub topic: String,
    pub subject: String,
    /// `None`: an older one, found in the topic by its id.
    pub version: Option<u32>,
    pub schema_id: u32,
}

/// A destination's number in the memory that gave it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DestinationId(u32);

/// What was made of an event, when it came.
#[derive(Debug)]
pub enum Entry<'a> {
    /// Unknown until now: hand it to Kafka.
    New(Claim<'a>),
    InFlight(Waiter),
    Duplicate(Duplicate),
    /// Its token brought another event before: it is not authentic.
    Replayed,
}

/// Where the first record of an event stands.
#[derive(Debug, Clone)]
pub struct Duplicate {
    pub destination: Arc<Destination>,
    pub position: Position,
}

/// The memory of what was published: bounded, and shared by all requests.
pub struct Memory {
    key: RandomState,
    shards: Box<[Mutex<Shard<Waiters>>]>,
    destinations: RwLock<Vec<Arc<Destination>>>,
    /// Of what came up to this time, not all was read at the start: seconds since the Unix epoch.
    unread: AtomicU32,
    uncertain: Counter,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").field("reach", &self.reach()).finish_non_exhaustive()
    }
}

/// The sender's end, made once a second request waits for a report.
type Waiters = Option<watch::Sender<Report>>;

/// What waiters are told.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Report {
    Awaited,
    Failed,
    Taken(Place),
}

/// How much is remembered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Reach {
    pub entries: usize,
    /// Everything acknowledged after this time is remembered: seconds since the Unix epoch. `None`: nothing has come.
    pub since: Option<u32>,
    /// Bytes that acknowledged entries take.
    pub bytes: usize,
}

impl Memory {
    /// `uncertain` counts the reports that leave an event unknown although its record may be in the topic.
    #[must_use]
    pub fn new(max_entries: usize, uncertain: Counter) -> Self {
        let shards = (max_entries / ENTRIES_PER_SHARD).clamp(1, MAX_SHARDS);
        // A power of two, so that some bits of the print choose.
        let shards = 1 << shards.ilog2();
        Self {
            key: RandomState::new(),
            shards: (0..shards).map(|_| Mutex::new(Shard::new(max_entries / shards))).collect(),
            destinations: RwLock::default(),
            unread: AtomicU32::new(0),
            uncertain,
        }
    }

    /// The number of a destination; the same for the same. They are never forgotten: the callers bound them, by what is
    /// configured and by what they take from topics.
    pub fn destination(&self, destination: &Destination) -> DestinationId {
        let mut all = self.destinations.write().unwrap_or_else(PoisonError::into_inner);
        let index = all.iter().position(|known| **known == *destination).unwrap_or(all.len());
        if index == all.len() {
            all.push(Arc::new(destination.clone()));
        }
        DestinationId(u32::try_from(index).unwrap_or(u32::MAX))
    }

    /// An event has come, at `now_ms` since the Unix epoch, bound for `destination` should it be new.
    pub fn enter(
        &self,
        identity: Identity<'_>,
        token: Option<Token<'_>>,
        destination: DestinationId,
        now_ms: i64,
    ) -> Entry<'_> {
        let (event, at) = (self.event(identity), seconds(now_ms));
        let Some(token) = token else { return self.claim(event, destination, at, None) };
        let token = self.token(token);
        // One part is held at a time: an event and its token may be in the same.
        let waiter = match self.with(token, |shard| State::of(shard.enter(token, destination.0, at, None))) {
            State::Unknown => {
                let entry = self.claim(event, destination, at, Some(token));
                if !matches!(entry, Entry::New(_)) {
                    self.land(token, None);
                }
                return entry;
            }
            State::InFlight(waiter) => Some(waiter),
            State::Acknowledged(_) => None,
        };
        // An event is acknowledged before its token is, so that what is unknown here was brought by no other request.
        match self.with(event, |shard| State::of(shard.look(event))) {
            State::Acknowledged(place) => Entry::Duplicate(self.first(place)),
            State::InFlight(waiter) => Entry::InFlight(waiter),
            State::Unknown => waiter.map_or(Entry::Replayed, Entry::InFlight),
        }
    }

    fn claim(&self, event: Print, destination: DestinationId, at: u32, rider: Option<Print>) -> Entry<'_> {
        match self.with(event, |shard| State::of(shard.enter(event, destination.0, at, rider))) {
            State::Unknown => Entry::New(Claim { memory: self, event, open: true }),
            State::InFlight(waiter) => Entry::InFlight(waiter),
            State::Acknowledged(place) => Entry::Duplicate(self.first(place)),
        }
    }

    fn first(&self, place: Place) -> Duplicate {
        let all = self.destinations.read().unwrap_or_else(PoisonError::into_inner);
        let destination = all.get(place.destination as usize).map(Arc::clone);
        drop(all);
        // Every place has a number that this memory gave.
        let destination = destination.unwrap_or_else(|| Arc::new(Destination::nowhere()));
        let position = Position { partition: place.partition, offset: place.offset };
        Duplicate { destination, position }
    }

    /// Whether a token has brought an event.
    pub fn is_spent(&self, token: Token<'_>) -> bool {
        let token = self.token(token);
        self.with(token, |shard| matches!(shard.look(token), Known::Acknowledged(_)))
    }

    /// Waits for the report on a record that another request handed over. `None`: it failed, so that the event may be
    /// entered again. May be dropped and asked again.
    pub async fn report(&self, waiter: &mut Waiter) -> Option<Duplicate> {
        // A sender that is gone has said nothing, and the event is unknown again.
        let report =
            waiter.0.wait_for(|report| *report != Report::Awaited).await.map_or(Report::Failed, |report| *report);
        match report {
            Report::Taken(place) => Some(self.first(place)),
            Report::Failed | Report::Awaited => None,
        }
    }

    /// A record was found in its topic. Known already, its first place stays.
    pub fn remember(&self, found: Found) {
        for print in std::iter::once(found.event).chain(found.token) {
            self.with(print, |shard| shard.remember(print, found.place, found.at));
        }
    }

    /// Looks at every part, one after the other: for a scrape, not for a request.
    #[must_use]
    pub fn reach(&self) -> Reach {
        let mut reach = Reach { entries: 0, since: None, bytes: 0 };
        let mut forgot = None;
        for shard in &self.shards {
            let shard = shard.lock().unwrap_or_else(PoisonError::into_inner);
            reach.entries += shard.acknowledged.len();
            reach.bytes += shard.acknowledged.bytes();
            if let Some(since) = shard.acknowledged.since() {
                // Where nothing was forgotten, the memory reaches back to its oldest entry.
                if shard.acknowledged.has_forgotten() {
                    forgot = forgot.max(Some(since));
                } else {
                    reach.since = Some(reach.since.map_or(since, |oldest| oldest.min(since)));
                }
            }
        }
        let unread = self.unread.load(Ordering::Relaxed);
        reach.since = forgot.or(reach.since).map(|since| since.max(unread));
        reach
    }

    /// Settles what is in flight, and tells those who wait. Says whether it is acknowledged.
    fn land(&self, print: Print, report: Option<(i32, i64)>) -> bool {
        let landed = self.with(print, |shard| shard.land(print, report));
        let Some(Landed { place, waiters, rider }) = landed else { return false };
        if let Some(waiters) = waiters {
            waiters.send_replace(place.map_or(Report::Failed, Report::Taken));
        }
        if let Some(token) = rider {
            // Nothing rides with a token.
            self.land(token, place.map(|place| (place.partition, place.offset)));
        }
        place.is_some()
    }

    #[allow(clippy::cast_possible_truncation, reason = "any bits of the print will do")]
    fn with<T>(&self, print: Print, act: impl FnOnce(&mut Shard<Waiters>) -> T) -> T {
        let shard = print.0 as usize & (self.shards.len() - 1);
        act(&mut self.shards[shard].lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn event(&self, identity: Identity<'_>) -> Print {
        #[cfg(feature = "seeded-bugs")]
        if crate::seeded::has(crate::seeded::Bug::NoIngestDedupe) {
            let (high, low) = uuid::Uuid::new_v4().as_u64_pair();
            return Print(high, low);
        }
        self.print(0, [identity.source, identity.id, identity.event_type].map(str::as_bytes))
    }

    fn token(&self, token: Token<'_>) -> Print {
        self.print(1, [token.source.as_bytes(), token.key.as_bytes(), &token.nth.to_le_bytes()])
    }

    /// Two words of a keyed hash whose inputs differ in their last byte: as good as two hashes, for one pass.
    fn print(&self, namespace: u8, parts: [&[u8]; 3]) -> Print {
        let mut hasher = self.key.build_hasher();
        for part in parts {
            // The length first, so that no two lists of parts run into each other.
            hasher.write_usize(part.len());
            hasher.write(part);
        }
        let mut second = hasher.clone();
        hasher.write_u8(namespace);
        second.write_u8(namespace | 0x80);
        Print(hasher.finish(), second.finish())
    }
}

impl Landing for Memory {
    fn landed(&self, ticket: Ticket, report: Result<Position, &Error>) {
        let Ticket(first, second) = ticket;
        let position = report.as_ref().ok().map(|position| (position.partition, position.offset));
        let acknowledged = self.land(Print(first, second), position);
        if !acknowledged && report.is_err_and(Error::may_have_persisted) {
            self.uncertain.inc_by(1);
        }
    }
}

impl Destination {
    fn nowhere() -> Self {
        Self { topic: String::new(), subject: String::new(), version: None, schema_id: 0 }
    }
}

/// The right to publish an event. Dropped without having been handed over, the event is unknown again.
#[derive(Debug)]
#[must_use = "an event is in flight for as long as this is held"]
pub struct Claim<'a> {
    memory: &'a Memory,
    event: Print,
    open: bool,
}

impl Claim<'_> {
    /// What the record is published with, so that its report settles the event.
    #[must_use]
    pub fn ticket(&self) -> Ticket {
        Ticket(self.event.0, self.event.1)
    }

    /// Kafka has the record: from here on its report decides, and it may have come already.
    pub fn handed_over(mut self) {
        self.open = false;
    }
}

impl Drop for Claim<'_> {
    fn drop(&mut self) {
        if self.open {
            self.memory.land(self.event, None);
        }
    }
}

/// Waits for the report on somebody else's record, with [`Memory::report`].
#[derive(Debug)]
pub struct Waiter(watch::Receiver<Report>);

/// What a part knows of a print, to be kept once the part is free again.
enum State {
    Unknown,
    InFlight(Waiter),
    Acknowledged(Place),
}

impl State {
    fn of(known: Known<'_, Waiters>) -> Self {
        match known {
            Known::Unknown => Self::Unknown,
            Known::InFlight(waiters) => {
                let waiters = waiters.get_or_insert_with(|| watch::channel(Report::Awaited).0);
                Self::InFlight(Waiter(waiters.subscribe()))
            }
            Known::Acknowledged(place) => Self::Acknowledged(place),
        }
    }
}

/// Seconds since the Unix epoch, as entries keep them.
fn seconds(ms: i64) -> u32 {
    u32::try_from(ms / 1_000).unwrap_or(0)
}

#[cfg(test)]
mod tests;
