//! One transactional producer, from its `init_transactions` to its end, and one transaction of it at a time.
//!
//! Every call here blocks. What is called, and in which order, follows librdkafka's "Transactional producer"
//! (INTRODUCTION.md) and KIP-447.

use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rdkafka::client::ClientContext;
use rdkafka::config::RDKafkaLogLevel;
use rdkafka::error::{KafkaError, KafkaResult};
use rdkafka::message::{DeliveryResult, Header, Message, OwnedHeaders};
use rdkafka::producer::{BaseProducer, BaseRecord, Producer, ProducerContext};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};
use rdkafka::types::RDKafkaErrorCode;

use super::batch::{Batch, Oversized, Write};
use super::doubt::{Course, Reason, Tally, Verdict, compare, judge};
use super::{Abort, Doubt};
use crate::kafka::client::{Client, TRANSACTION_TIMEOUT, log_error, log_line};
use crate::kafka::consume::Membership;
use crate::kafka::{Code, Error, TopicPartition, code_of};

/// The bound on each call: below every timeout of librdkafka's, so that a request that was lost is seen by us first.
const CALL: Duration = Duration::from_secs(8);

/// The bound on a transaction as a whole, with room below the transaction timeout to end it.
const WITHIN: Duration = Duration::from_secs(12);

/// Up to this age a transaction was not ended by its timeout: who fences us is another producer of our id.
const SURELY_OPEN: Duration = Duration::from_secs(14);

/// How long a new producer may take: the open transaction of the last one is aborted meanwhile, and a coordinator that
/// has moved is found again.
const OPEN_WITHIN: Duration = Duration::from_secs(30);

/// How long statistics may keep us waiting: they come ten times a second.
const LOOK_WITHIN: Duration = Duration::from_secs(1);

/// Between two looks for reports. rdkafka's own wait uses its time up whatever comes, and spends the last millisecond of it
/// asking the clock; brokers need a few milliseconds for a batch.
const LOOK_AGAIN: Duration = Duration::from_micros(500);

/// How long reports are waited for once one of them is a failure: librdkafka sends nothing more of the transaction, and
/// what is under way is answered, or will not matter.
const AFTER_FAILURE: Duration = Duration::from_millis(200);

/// Stands for the offset of a record that has no report yet: a transaction with one of them is never committed.
const UNREPORTED: i64 = -1;

/// How a transaction ended.
#[derive(Debug)]
pub(super) enum End {
    /// With the offsets of its records, as their delivery reports gave them.
    Committed(Vec<i64>),
    Aborted(Abort),
    Unknown(Doubt),
    Fenced,
}

pub(super) struct Instance {
    producer: BaseProducer<Notes>,
    /// Each record is a batch of its own, so that a topic refuses the very record that is too large for it.
    singly: bool,
    /// The connections' counters before the last transaction.
    before: Option<Tally>,
}

impl Instance {
    /// Opens a producer and fences every other of its id, whose open transaction is aborted. `give_up` is asked in
    /// between.
    pub(super) fn open(client: &Client, id: &str, singly: bool, give_up: impl Fn() -> bool) -> Result<Self, Error> {
        let mut config = client.transactional_config(id);
        if singly {
            config.set("batch.num.messages", "1");
        }
        let producer: BaseProducer<Notes> = config
            .create_with_context(Notes::default())
            .map_err(|cause| client.start_error("transactional producer", cause))?;
        let mut instance = Self { producer, singly, before: None };
        let begun = Instant::now();
        loop {
            // Past its time it goes on by itself, and the next call picks it up.
            let Err(error) = instance.producer.init_transactions(CALL) else { break };
            instance.serve();
            let code = code_of(&error);
            if is_fenced(code) {
                return Err(Error::Fenced { transactional_id: id.to_owned() });
            }
            let again = matches!(&error, KafkaError::Transaction(cause) if cause.is_retriable() && !cause.is_fatal());
            if !again || begun.elapsed() >= OPEN_WITHIN || give_up() {
                let (transactional_id, waited) = (id.to_owned(), begun.elapsed());
                return Err(Error::Transactions { transactional_id, waited, source: code });
            }
        }
        instance.before = instance.next_tally();
        Ok(instance)
    }

    /// Handles all that waits: librdkafka's log, errors, statistics, reports.
    pub(super) fn serve(&self) {
        while self.serve_one() {}
    }

    /// Handles the next thing that waits; whether there was one.
    fn serve_one(&self) -> bool {
        let served = &self.notes().served;
        let before = served.load(Ordering::Relaxed);
        self.producer.poll(Duration::ZERO);
        served.load(Ordering::Relaxed) != before
    }

    /// Handles what waits, or waits a moment.
    #[allow(clippy::disallowed_methods, reason = "librdkafka's queue has no event that rdkafka would let us await")]
    fn wait(&self) {
        if !self.serve_one() {
            thread::sleep(LOOK_AGAIN);
        }
    }

    fn notes(&self) -> &Notes {
        self.producer.context()
    }

    /// Statistics that are newer than this call.
    fn next_tally(&self) -> Option<Tally> {
        self.serve();
        let seen = self.notes().tallies.load(Ordering::Relaxed);
        let begun = Instant::now();
        while begun.elapsed() < LOOK_WITHIN {
            self.wait();
            if self.notes().tallies.load(Ordering::Relaxed) != seen {
                return self.notes().tally();
            }
        }
        None
    }

    /// What the connections' counters say of the last transaction.
    pub(super) fn look(&self) -> Verdict {
        compare(self.before.as_ref(), self.next_tally().as_ref())
    }

    /// One transaction, whole. What ends without a clean commit or abort leaves the producer to be replaced, whose
    /// successor aborts what is still open.
    pub(super) fn run(&mut self, batch: &Batch, membership: Option<&Membership>) -> (End, Verdict) {
        self.serve();
        self.before = self.notes().tally().or_else(|| self.before.take());
        self.notes().begin(batch.records());
        let mut clock = Clock::start();
        let end = match self.fill(batch, membership, &mut clock) {
            Ok(()) => match clock.call(|within| self.producer.commit_transaction(within)) {
                Ok(()) => End::Committed(self.notes().take_offsets()),
                Err(error) => self.not_committed(&error, &clock),
            },
            Err(abort) => self.abort(abort, &mut clock),
        };
        // Errors of the connections were queued before the answers that followed them.
        self.serve();
        let clean = matches!(end, End::Committed(_) | End::Aborted(Abort::Generation { .. }));
        let verdict =
            if clean { judge(clock.course(self.notes().is_troubled())) } else { Verdict::Replace(Reason::Failed) };
        (end, verdict)
    }

    /// All but the commit; after an error nothing of it can be committed.
    fn fill(&self, batch: &Batch, membership: Option<&Membership>, clock: &mut Clock) -> Result<(), Abort> {
        let refused = |error: &KafkaError| Abort::Refused { source: code_of(error) };
        self.producer.begin_transaction().map_err(|error| refused(&error))?;
        let writes: Vec<_> = batch.writes().collect();
        let not_written = |(at, write): (&TopicPartition, &Write), source| Abort::NotWritten {
            origin: at.clone(),
            topic: write.topic.to_string(),
            source,
        };
        let oversized = |indices: Vec<usize>| {
            let one = |index: usize| {
                let (_, write) = writes.get(index)?;
                Some(Oversized { index, topic: Arc::clone(&write.topic), bytes: write.bytes() })
            };
            Abort::TooLarge { records: indices.into_iter().filter_map(one).collect() }
        };
        let mut too_large = Vec::new();
        for (index, one) in writes.iter().enumerate() {
            match self.enqueue(index, one.1, clock).map_err(|error| code_of(&error)) {
                Ok(()) => {}
                Err(code) if code.is_too_large() => too_large.push(index),
                Err(code) => return Err(not_written(*one, Some(code))),
            }
        }
        if !too_large.is_empty() {
            return Err(oversized(too_large));
        }
        let Failures { first, too_large } = self.reports(clock)?;
        // Of several that were refused together one may be at fault, or only that they are so many.
        if !too_large.is_empty() && (self.singly || too_large.len() == 1) {
            return Err(oversized(too_large));
        }
        if let Some((index, source)) = first
            && let Some(one) = writes.get(index)
        {
            return Err(not_written(*one, source));
        }
        let Some(membership) = membership else { return Ok(()) };
        let offsets = offsets(batch).map_err(|error| refused(&error))?;
        let sent =
            clock.call(|within| self.producer.send_offsets_to_transaction(&offsets, membership.metadata(), within));
        sent.map_err(|error| match code_of(&error) {
            source if is_of_generation(source) => Abort::Generation { source },
            source => Abort::Refused { source },
        })
    }

    fn enqueue(&self, index: usize, write: &Write, clock: &Clock) -> KafkaResult<()> {
        loop {
            let sent = self.producer.send(BaseRecord {
                topic: &write.topic,
                partition: write.partition,
                payload: write.value.as_deref(),
                key: write.key.as_deref(),
                timestamp: write.timestamp_ms,
                headers: headers(&write.headers),
                delivery_opaque: index,
            });
            match sent {
                Ok(()) => return Ok(()),
                // A batch above librdkafka's queue passes through it all the same.
                Err((error, _)) if code_of(&error).0 == RDKafkaErrorCode::QueueFull && clock.left() > LOOK_AGAIN => {
                    self.wait();
                }
                Err((error, _)) => return Err(error),
            }
        }
    }

    /// Waits for all delivery reports; gives the failures among them.
    fn reports(&self, clock: &mut Clock) -> Result<Failures, Abort> {
        let notes = self.notes();
        clock.call(|within| {
            let begun = Instant::now();
            let mut failed_at = None;
            while notes.left.load(Ordering::Acquire) > 0 {
                if failed_at.is_none() && notes.failures().first.is_some() {
                    failed_at = Some(Instant::now());
                }
                if failed_at.is_some_and(|at: Instant| at.elapsed() >= AFTER_FAILURE) {
                    break;
                }
                if begun.elapsed() >= within {
                    return Err(Abort::TimedOut { waited: within });
                }
                self.wait();
            }
            Ok(std::mem::take(&mut *notes.failures()))
        })
    }

    fn abort(&self, abort: Abort, clock: &mut Clock) -> End {
        let code = match &abort {
            Abort::Refused { source } | Abort::NotWritten { source: Some(source), .. } => Some(*source),
            _ => None,
        };
        if self.is_by_another(code, clock) {
            return End::Fenced;
        }
        if let Abort::Generation { source } = abort {
            // Every report is in, so this only sends EndTxn. Where it fails, the successor aborts.
            return match clock.call(|within| self.producer.abort_transaction(within)) {
                Ok(()) => End::Aborted(abort),
                Err(error) if self.is_by_another(Some(code_of(&error)), clock) => End::Fenced,
                Err(_) => End::Aborted(Abort::Refused { source }),
            };
        }
        End::Aborted(abort)
    }

    /// An EndTxn is out, or was: whatever the error says, librdkafka may have sent it more than once.
    fn not_committed(&self, error: &KafkaError, clock: &Clock) -> End {
        let source = code_of(error);
        if self.is_by_another(Some(source), clock) { End::Fenced } else { End::Unknown(Doubt::Commit { source }) }
    }

    /// The coordinator fences a producer for two reasons: another one of the same id was opened, or the transaction was
    /// open for longer than its timeout (a process that was stopped and went on). Time tells them apart.
    fn is_by_another(&self, code: Option<Code>, clock: &Clock) -> bool {
        let fatal = self.producer.client().fatal_error().map(|(code, _)| Code::from(code));
        let fenced = code.is_some_and(is_fenced) || fatal.is_some_and(is_fenced);
        fenced && clock.begun.elapsed() < SURELY_OPEN
    }
}

fn is_fenced(code: Code) -> bool {
    use RDKafkaErrorCode as C;
    matches!(code.0, C::Fenced | C::ProducerFenced | C::InvalidProducerEpoch)
}

/// The group has gone on without the member that the snapshot is of.
fn is_of_generation(code: Code) -> bool {
    use RDKafkaErrorCode as C;
    matches!(code.0, C::IllegalGeneration | C::UnknownMemberId | C::FencedInstanceId | C::RebalanceInProgress)
}

fn offsets(batch: &Batch) -> KafkaResult<TopicPartitionList> {
    let mut list = TopicPartitionList::new();
    for (at, part) in batch.parts() {
        let mut one = list.add_partition(&at.topic, at.partition);
        one.set_offset(Offset::Offset(part.next.get()))?;
        if !part.metadata.is_empty() {
            one.set_metadata(&part.metadata);
        }
    }
    Ok(list)
}

fn headers(headers: &[(String, Vec<u8>)]) -> Option<OwnedHeaders> {
    if headers.is_empty() {
        return None;
    }
    let empty = OwnedHeaders::new_with_capacity(headers.len());
    Some(headers.iter().fold(empty, |all, (key, value)| all.insert(Header { key, value: Some(value) })))
}

/// The bounds of one transaction, and how long its calls took.
struct Clock {
    begun: Instant,
    longest: Duration,
}

impl Clock {
    fn start() -> Self {
        Self { begun: Instant::now(), longest: Duration::ZERO }
    }

    fn left(&self) -> Duration {
        CALL.min(WITHIN.saturating_sub(self.begun.elapsed()))
    }

    fn call<T>(&mut self, call: impl FnOnce(Duration) -> T) -> T {
        let begun = Instant::now();
        // Never nothing: that would be "at once" to some calls and "for ever" to none.
        let done = call(self.left().max(LOOK_AGAIN));
        self.longest = self.longest.max(begun.elapsed());
        done
    }

    fn course(&self, troubled: bool) -> Course {
        Course { took: self.begun.elapsed(), longest: self.longest, bound: CALL, troubled }
    }
}

/// What librdkafka's callbacks have said.
#[derive(Default)]
pub(super) struct Notes {
    /// Callbacks so far: a poll that adds none found an empty queue.
    served: AtomicU64,
    /// Reports that the transaction still waits for.
    left: AtomicUsize,
    failures: Mutex<Failures>,
    /// Of the records, in the order in which they were handed over.
    offsets: Mutex<Vec<i64>>,
    troubled: AtomicBool,
    tally: Mutex<Option<Tally>>,
    tallies: AtomicU64,
}

/// Records that were not written, by their places in the batch.
#[derive(Default)]
struct Failures {
    first: Option<(usize, Option<Code>)>,
    too_large: Vec<usize>,
}

impl Notes {
    fn begin(&self, records: usize) {
        self.left.store(records, Ordering::Release);
        self.troubled.store(false, Ordering::Relaxed);
        *self.failures() = Failures::default();
        *self.offsets() = vec![UNREPORTED; records];
    }

    fn failures(&self) -> MutexGuard<'_, Failures> {
        self.failures.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn offsets(&self) -> MutexGuard<'_, Vec<i64>> {
        self.offsets.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn take_offsets(&self) -> Vec<i64> {
        std::mem::take(&mut self.offsets())
    }

    fn is_troubled(&self) -> bool {
        self.troubled.load(Ordering::Relaxed)
    }

    fn tally(&self) -> Option<Tally> {
        self.tally.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn serve(&self) {
        self.served.fetch_add(1, Ordering::Relaxed);
    }
}

impl ClientContext for Notes {
    fn log(&self, level: RDKafkaLogLevel, facility: &str, message: &str) {
        self.serve();
        log_line(level, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        self.serve();
        self.troubled.store(true, Ordering::Relaxed);
        log_error(&error, reason);
    }

    fn stats_raw(&self, statistics: &[u8]) {
        self.serve();
        if let Some(tally) = Tally::read(statistics) {
            *self.tally.lock().unwrap_or_else(PoisonError::into_inner) = Some(tally);
            self.tallies.fetch_add(1, Ordering::Relaxed);
        }
    }
}

impl ProducerContext for Notes {
    type DeliveryOpaque = usize;

    fn delivery(&self, result: &DeliveryResult<'_>, index: usize) {
        self.serve();
        let failure = match result {
            // A report without an offset is none: librdkafka infers it, and the record may be missing.
            Ok(message) if message.offset() >= 0 => {
                if let Some(place) = self.offsets().get_mut(index) {
                    *place = message.offset();
                }
                None
            }
            Ok(_) => Some(None),
            Err((error, _)) => Some(Some(code_of(error))),
        };
        if let Some(source) = failure {
            let mut failures = self.failures();
            failures.first.get_or_insert((index, source));
            if source.is_some_and(Code::is_too_large) {
                failures.too_large.push(index);
            }
        }
        // What an earlier transaction left behind is reported to nobody.
        let _ = self.left.fetch_update(Ordering::AcqRel, Ordering::Acquire, |left| left.checked_sub(1));
    }
}

const _: () = assert!(
    CALL.as_millis() < WITHIN.as_millis()
        && WITHIN.as_millis() < SURELY_OPEN.as_millis()
        && SURELY_OPEN.as_millis() < TRANSACTION_TIMEOUT.as_millis(),
    "each bound lies below the next"
);
