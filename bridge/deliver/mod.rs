//! Delivery: record → settlement. One worker for each sink, with a consumer group of its own.
//!
//! ```text
//!   consumer ──Event──▶ flow (pure) ──Action──▶ claim · attempt · commit     each a task that ends in the next step
//!                         ▲                         │
//!                         └──────────Step───────────┘
//!
//!   attempt:  decode ▶ route ▶ where ▶ consent ▶ map ▶ sink
//! ```
//!
//! There are two ways. Where a sink keeps the offsets itself, in one transaction with its rows, the loop below carries
//! steps in and actions out, and every decision is in `flow`; an event that the sink refuses for good is a dead letter
//! (`registrar`), whatever else fails holds its partition. Every other sink gets `drive`, which does the same for `machine`: keys that wait and park alone,
//! receipts, dead letters, and the guarantee that was asked for. `dev` has no transactions, and drives HTTP by the first.

mod attempt;
mod beyond;
mod breaker;
mod consent;
pub mod dead;
pub mod drive;
mod flow;
mod keys;
pub mod machine;
mod pace;
pub mod receipt;
mod registrar;
mod rehearse;
pub mod restore;
mod retry;
mod rewound;
mod route;
mod seen;
mod settle;
mod window;

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{Semaphore, oneshot, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};
use uuid::Uuid;

use self::attempt::Context;
pub use self::attempt::{Filter, Map, Policy};
pub use self::flow::State;
use self::flow::{Action, Flow, Notice, Settled, Step};
pub use self::keys::KeyId;
pub use self::registrar::Registrar;
pub use self::rehearse::{Rehearsal, Verdict};
pub use self::rewound::{Rewind, Rewound};
pub use self::route::{Route, Routes};
pub use self::settle::{DeadReason, Fate, Followed, Progress, Receipt, Transaction, TxnAnswer};
pub use self::window::Limits;
use crate::causes::chain;
use crate::clock;
use crate::kafka::consume::{Consumer, Control, Event, Trouble};
use crate::kafka::{self, NextOffset, TopicPartition};
use crate::outcome::Outcome;
use crate::schema::decode::Decoder;
use crate::schema::registry;
use crate::sinks::Sink;

/// What a partition holds in memory before it is paused: two batches, one under way and one to follow at once.
const WINDOW_BATCHES: usize = 2;

/// At least this many records, however small a batch is: a consumer's fetch brings them by the hundred.
const WINDOW_LEAST: usize = 100;

/// Bytes that a partition holds before it is paused: with the default of 12 partitions, under 50 MiB for a sink.
const WINDOW_BYTES: usize = 4 << 20;

/// For the last commit before revoked partitions are given up: within what the poll thread waits, after the drain.
const LAST_COMMIT: Duration = Duration::from_millis(700);

/// For the last commit of a worker that stops: nobody waits for its partitions but the next owner.
const STOP_COMMIT: Duration = Duration::from_secs(5);

/// Gauges need no more.
const LAG_EVERY: Duration = Duration::from_secs(5);

/// Whoever counts: the metrics, or a test.
pub trait Observer: Send + Sync {
    /// A batch was attempted; `class` is [`Outcome::class`], or `fenced`.
    fn attempt(&self, sink: &str, class: &'static str);
    /// A call that may carry several events was made, with so many.
    fn batch(&self, _sink: &str, _events: usize) {}
    /// A record was settled. `event_to_action`: from ingest's first byte to here, in seconds, for what was delivered.
    fn settled(&self, sink: &str, outcome: &'static str, reason: &'static str, event_to_action: Option<f64>);
    /// So many calls of one class.
    fn attempts(&self, sink: &str, class: &'static str, more: u64) {
        (0..more).for_each(|_| self.attempt(sink, class));
    }
    /// So many records that were settled alike; `events_to_actions` of those that were delivered, where it is known.
    fn settled_alike(&self, sink: &str, alike: Alike, events_to_actions: &[f64]) {
        let Alike { outcome, reason, records } = alike;
        let mut latencies = events_to_actions.iter().copied();
        (0..records).for_each(|_| self.settled(sink, outcome, reason, latencies.next()));
    }
    /// How many records of a partition the group has not committed.
    fn lag(&self, sink: &str, at: &TopicPartition, records: u64);
    /// How the sink fares: at its start, and whenever that changes.
    fn state(&self, sink: &str, state: State);
    /// What waits in the sink's worker, now and then; of sinks that have receipts.
    fn depth(&self, _sink: &str, _depth: Depth) {}
    /// So many more transactions, by result (`committed`, `aborted`, `unknown`; `replaced`: a producer) and reason.
    fn transactions(&self, _sink: &str, _result: &'static str, _reason: &'static str, _more: u64) {}
}

/// What became of several records.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Alike {
    pub outcome: &'static str,
    pub reason: &'static str,
    pub records: u64,
}

/// What waits in a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Depth {
    /// Records in the fullest window.
    pub window: usize,
    /// Keys that wait outside the window.
    pub parked_keys: usize,
    /// Partitions whose receipts are being read.
    pub restoring: usize,
}

/// Why a worker ended other than by being stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("sink {sink}: the consumer has ended")]
    Consumer {
        sink: Arc<str>,
        #[source]
        source: Option<kafka::Error>,
    },
    #[error("sink {sink}: the schema of receipts has no id in the registry")]
    Registry {
        sink: Arc<str>,
        #[source]
        source: registry::Error,
    },
    #[error("sink {sink}: transactions cannot be begun")]
    Transactor {
        sink: Arc<str>,
        #[source]
        source: kafka::Error,
    },
    #[error("sink {sink}: receipts cannot be read")]
    Reader {
        sink: Arc<str>,
        #[source]
        source: kafka::Error,
    },
    /// For good: the process has to end, or the two would go on fencing each other.
    #[error("sink {sink}: another process has taken the slot of this one ({transactional_id})")]
    Fenced { sink: Arc<str>, transactional_id: String },
    #[error("sink {sink}: a task of the worker has failed")]
    Task {
        sink: Arc<str>,
        #[source]
        source: tokio::task::JoinError,
    },
}

/// Everything that a sink's worker needs.
pub struct Worker {
    /// The sink's name.
    pub sink: Arc<str>,
    /// A member of the sink's group, subscribed to the topics of [`Policy::routes`].
    pub consumer: Consumer,
    pub decoder: Arc<Decoder>,
    pub policy: Policy,
    pub target: Sink,
    /// Who writes dead letters and receipts; `None`, as in `dev`: an event that the sink refuses holds its partition.
    pub registrar: Option<Registrar>,
    pub observer: Arc<dyn Observer>,
    /// By an operator.
    pub paused: watch::Receiver<bool>,
    /// How often an operator put the sink's offsets back.
    pub rewinds: watch::Receiver<i64>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("sink", &self.sink).field("target", &self.target).finish_non_exhaustive()
    }
}

/// The consumer group of a sink; `prefix` is that of all topics.
#[must_use]
pub fn group(prefix: &str, sink: &str) -> String {
    format!("{prefix}hookbridge.{sink}")
}

/// Delivers until `stop` says true (or its sender is gone), then ends what is under way, commits, and leaves the group.
///
/// # Errors
/// [`Error`]; the caller decides whether to start the worker anew. Nothing is lost by it: what was not settled is read
/// again.
pub async fn run(worker: Worker, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
    let Worker { sink, mut consumer, decoder, policy, target, registrar, observer, mut paused, mut rewinds } = worker;
    let limits = Limits { records: (target.max_batch() * WINDOW_BATCHES).max(WINDOW_LEAST), bytes: WINDOW_BYTES };
    let mut flow = Flow::new(limits, target.max_batch());
    let permits = Arc::new(Semaphore::new(target.concurrency()));
    let context = Arc::new(Context::new(decoder, policy, target, registrar));
    let mut crew = Crew {
        sink: Arc::clone(&sink),
        control: consumer.control(),
        context,
        permits,
        observer,
        tasks: JoinSet::new(),
        tickets: HashMap::new(),
        state: State::Running,
    };
    crew.observer.state(&crew.sink, crew.state);
    let started = Instant::now();
    let mut tickets = 0;
    let mut lag = interval(LAG_EVERY);
    lag.set_missed_tick_behavior(MissedTickBehavior::Delay);

    // What is wanted at the start is heard like every change of it.
    paused.mark_changed();
    rewinds.borrow_and_update();
    loop {
        let due = flow.due();
        let next = tokio::select! {
            // Where nobody is left to say so, nothing changes any more.
            Ok(()) = paused.changed() => Step::Paused(*paused.borrow_and_update()),
            Ok(()) = rewinds.changed() => {
                rewinds.borrow_and_update();
                Step::LookAgain
            }
            _ = stop.wait_for(|stop| *stop), if !flow.is_stopping() => Step::Stop,
            Some(ended) = crew.tasks.join_next() => match ended {
                Ok(next) => next,
                Err(source) => return Err(Error::Task { sink, source }),
            },
            () = sleep_until(started + due.unwrap_or_default()), if due.is_some() => Step::Tick,
            _ = lag.tick() => {
                crew.report_lag();
                continue;
            }
            event = consumer.next() => match event {
                Some(Event::Assigned { epoch, partitions }) => Step::Assigned { epoch, partitions },
                Some(Event::Records(records)) => Step::Records(records),
                Some(Event::Revoked { partitions, lost, drained }) => {
                    tickets += 1;
                    crew.tickets.insert(tickets, drained);
                    Step::Revoked { ticket: tickets, partitions, lost }
                }
                Some(Event::Trouble(Trouble::OffsetOutOfRange { at, wanted, first, end })) => {
                    let trouble = Trouble::OffsetOutOfRange { at: at.clone(), wanted, first, end };
                    tracing::error!(sink = &*sink, %trouble, "held: a partition stands still");
                    Step::StandsStill { at }
                }
                Some(Event::Trouble(trouble)) => {
                    tracing::warn!(sink = &*sink, %trouble, "the consumer met trouble");
                    continue;
                }
                Some(Event::Ended(source)) => return Err(Error::Consumer { sink, source }),
                None => return Err(Error::Consumer { sink, source: None }),
            },
        };
        for action in flow.step(next, started.elapsed(), random()) {
            if let Action::Finish { commit } = action {
                crew.tasks.abort_all();
                leave(&sink, &mut consumer, commit).await;
                crew.context.flush().await;
                return Ok(());
            }
            crew.act(action);
        }
        crew.report_state(flow.state());
    }
}

/// How long to wait before a worker that has ended by itself `failures` times in a row is started anew.
#[must_use]
pub fn restart_pause(failures: u32) -> Duration {
    retry::pause(&Outcome::Transient { reason: String::new() }, failures, random())
}

/// Who carries actions out.
struct Crew {
    sink: Arc<str>,
    control: Control,
    context: Arc<Context>,
    /// Batches under way at once, over all partitions.
    permits: Arc<Semaphore>,
    observer: Arc<dyn Observer>,
    /// At most one for each partition, one commit, and one for each revocation.
    tasks: JoinSet<Step>,
    tickets: HashMap<u64, oneshot::Sender<()>>,
    state: State,
}

impl Crew {
    fn act(&mut self, action: Action) {
        match action {
            Action::Claim { at, epoch, committed } => {
                let (context, permits) = (Arc::clone(&self.context), Arc::clone(&self.permits));
                self.tasks.spawn(async move {
                    let _permit = permits.acquire().await;
                    let claimed = context.sink().claim(&at, committed).await;
                    Step::Claimed { at, epoch, claimed }
                });
            }
            Action::Attempt { at, epoch, mut claim, records } => {
                let (context, permits) = (Arc::clone(&self.context), Arc::clone(&self.permits));
                let (observer, sink) = (Arc::clone(&self.observer), Arc::clone(&self.sink));
                self.tasks.spawn(async move {
                    let _permit = permits.acquire().await;
                    let (report, class) = context.attempt(&sink, &mut claim, &at, &records).await;
                    observer.attempt(&sink, class);
                    Step::Attempted { at, epoch, claim, report }
                });
            }
            Action::Confirm { at, epoch, next } => {
                let (control, sink) = (self.control.clone(), Arc::clone(&self.sink));
                self.tasks.spawn(async move {
                    let answer = control.commit(vec![(at.clone(), next)]).await;
                    if let Err(error) = &answer {
                        tracing::warn!(sink = &*sink, %at, error = chain(error), "the group does not confirm a partition");
                    }
                    Step::Confirmed { at, epoch, accepted: answer.is_ok() }
                });
            }
            Action::Commit(offsets) => {
                let (control, sink) = (self.control.clone(), Arc::clone(&self.sink));
                self.tasks.spawn(async move {
                    let answer = control.commit(offsets.clone()).await;
                    if let Err(error) = &answer {
                        tracing::info!(
                            sink = &*sink,
                            error = chain(error),
                            "offsets were not committed, and will be again"
                        );
                    }
                    Step::Committed { offsets, accepted: answer.is_ok() }
                });
            }
            Action::Drained { ticket, commit } => {
                let Some(drained) = self.tickets.remove(&ticket) else { return };
                let (control, sink) = (self.control.clone(), Arc::clone(&self.sink));
                self.tasks.spawn(async move {
                    last_commit(&sink, &control, commit, LAST_COMMIT).await;
                    // The poll thread may have stopped waiting; then there is nobody to tell.
                    let _ = drained.send(());
                    Step::Tick
                });
            }
            Action::Start { at, epoch, start } => self.control.start(epoch, at, start),
            Action::Pause(at) => self.control.pause(vec![at]),
            Action::Resume(at) => self.control.resume(vec![at]),
            Action::Settled(settled) => self.report_settled(&settled),
            Action::Tell(notice) => tell(&self.sink, notice),
            // The loop ends with it.
            Action::Finish { .. } => {}
        }
    }

    fn report_settled(&self, settled: &[Settled]) {
        let now = clock::now_ms();
        for Settled { settlement, received_at_ms, .. } in settled {
            let outcome = settlement.outcome();
            let latency =
                received_at_ms.filter(|_| outcome == "delivered").map(|received| seconds_between(received, now));
            self.observer.settled(&self.sink, outcome, settlement.reason(), latency);
        }
    }

    fn report_lag(&self) {
        for lag in self.control.lag() {
            if let Some(records) = lag.records() {
                self.observer.lag(&self.sink, &lag.at, records);
            }
        }
    }

    fn report_state(&mut self, state: State) {
        if state != self.state {
            self.state = state;
            self.observer.state(&self.sink, state);
        }
    }
}

/// The last offsets, within the time that there is.
async fn last_commit(sink: &str, control: &Control, offsets: Vec<(TopicPartition, NextOffset)>, within: Duration) {
    if offsets.is_empty() {
        return;
    }
    match timeout(within, control.commit(offsets)).await {
        Ok(Ok(())) => {}
        Ok(Err(error)) => tracing::info!(sink, error = chain(&error), "the last offsets were not committed"),
        Err(_) => tracing::info!(sink, "the last offsets were not committed in time"),
    }
}

/// Leaves the group. Events are read on meanwhile, since the poll thread hands its partitions back through them.
async fn leave(sink: &str, consumer: &mut Consumer, commit: Vec<(TopicPartition, NextOffset)>) {
    let control = consumer.control();
    let leaving = async {
        last_commit(sink, &control, commit, STOP_COMMIT).await;
        control.stop().await;
    };
    tokio::pin!(leaving);
    loop {
        tokio::select! {
            () = &mut leaving => return,
            // Dropping a revocation's sender answers it: nothing is under way any more.
            event = consumer.next() => if event.is_none() {
                leaving.await;
                return;
            },
        }
    }
}

fn tell(sink: &str, notice: Notice) {
    match notice {
        Notice::Stuck { at, offset, event_id, outcome } => {
            let (class, reason) = (outcome.class(), outcome.reason());
            match outcome {
                Outcome::Rejected { .. } => tracing::error!(
                    sink, %at, offset, event_id, class, reason,
                    "held: the sink refuses an event; it is tried again and never skipped, and what follows it in its partition waits"
                ),
                Outcome::Misconfigured { .. } => tracing::error!(
                    sink, %at, offset, event_id, class, reason,
                    "held: the sink has to be mended; nothing is lost"
                ),
                _ => tracing::warn!(sink, %at, offset, event_id, class, reason, "retrying"),
            }
        }
        Notice::Recovered { at } => tracing::info!(sink, %at, "delivering again"),
        Notice::LetGo { at } => {
            tracing::warn!(sink, %at, "a partition was let go with an attempt under way; the next owner sees what became of it");
        }
    }
}

fn seconds_between(from_ms: i64, to_ms: i64) -> f64 {
    // A producer's clock may be ahead of ours.
    Duration::from_millis(u64::try_from(to_ms.saturating_sub(from_ms)).unwrap_or(0)).as_secs_f64()
}

/// In 0..1, from the one source of randomness that the bridge has already.
fn random() -> f64 {
    let (_, low) = Uuid::new_v4().as_u64_pair();
    f64::from(u32::try_from(low & u64::from(u32::MAX)).unwrap_or_default()) / (f64::from(u32::MAX) + 1.0)
}
