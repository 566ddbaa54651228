//! The machine at work: what happens around it goes in, one step at a time, and what it asks for is done.
//!
//! ```text
//!   consumer ─Event─▶ ┌─────────┐ ─Call──────▶ crew (decode ▸ filter ▸ consent ▸ map ▸ send) ─Done─┐
//!                     │         │ ─Together──▶ carriers (the same of several, and one call) ─Done──┤
//!   readings ─Told──▶ │ machine │ ─Restore───▶ readings (receipts, restored and followed)          │
//!   bodies ─record──▶ │  (pure) │ ─Fetch─────▶ bodies (parked records, read again)                 │
//!   timer, stop,      │         │ ─Commit────▶ transactor (receipts ▸ dead letters ▸ offsets)      │
//!   paused ─────────▶ └─────────┘ ◀────────────────────────────────────────────────────────────────┘
//! ```
//!
//! Nothing is decided here. One task carries inputs and actions, so that they have one order; calls, readers and the
//! transaction run beside it, each bounded by what the machine has asked for.

mod call;
mod commit;
mod fetch;
mod hear;
mod read;
mod target;
mod tell;
mod together;

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::fmt;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::{JoinError, JoinHandle};
use tokio::time::{Instant, Interval, MissedTickBehavior, Sleep, interval, sleep_until};
use uuid::Uuid;

use self::call::{Crew, Desk, Done, Order};
pub(super) use self::commit::writes_of;
use self::commit::{Filled, commit};
use self::fetch::{Bodies, Wanted as WantedBody};
use self::read::{Readings, Told, Wanted};
pub use self::target::Target;
use self::together::Carriers;
use super::attempt::Preparation;
use super::machine::{Action, Input, Machine, Settings, TxnId};
use super::rewound::Rewind;
use super::settle::{Transaction, TxnAnswer};
use super::{Error, LAG_EVERY, Observer, Policy, Routes, State, leave};
use crate::clock;
use crate::kafka::consume::{Consumer, Control, StartAt};
use crate::kafka::transact::Counts;
use crate::kafka::{self, Client, Fetcher, Membership, TopicPartition, TransactionalId, Transactor};
use crate::patience::patiently;
use crate::schema::{Decoder, Registry, registry};

/// Ended calls that are taken in one turn of the loop: enough to make its cost small, few enough for a timer to be heard.
const DONE_AT_ONCE: usize = 64;

/// Between two questions to a registry that does not answer.
const ASK_AGAIN: Duration = Duration::from_secs(2);

/// For a member that waits for bytes of fetched records to be free: nobody says when the last one is dropped.
const LOOK_AGAIN: Duration = Duration::from_millis(50);

/// The topics of a sink, and who writes to them.
#[derive(Debug)]
pub struct Names {
    sink: Arc<str>,
    instance: String,
    dead: Arc<str>,
    /// By event topic.
    receipts: HashMap<Arc<str>, Arc<str>>,
}

impl Names {
    /// `prefix`: of all topics; `events`: the topics that the sink reads, each with the prefix.
    pub fn new<'a>(prefix: &str, sink: &str, instance: &str, events: impl IntoIterator<Item = &'a str>) -> Self {
        let receipts = |topic: &'a str| (Arc::from(topic), super::receipt::topic(prefix, sink, topic).into());
        Self {
            sink: sink.into(),
            instance: instance.to_owned(),
            dead: super::dead::topic(prefix, sink).into(),
            receipts: events.into_iter().map(receipts).collect(),
        }
    }

    pub(super) fn sink(&self) -> &str {
        &self.sink
    }

    /// A topic that the sink does not read has none.
    fn receipts(&self, events: &str) -> Arc<str> {
        self.receipts.get(events).map_or_else(|| Arc::from(""), Arc::clone)
    }
}

/// Everything that a sink's worker needs.
pub struct Worker {
    pub names: Names,
    pub client: Client,
    pub group: String,
    /// A member of the group, subscribed to the topics of [`Policy::routes`].
    pub consumer: Consumer,
    pub transactional_id: TransactionalId,
    pub registry: Registry,
    pub policy: Policy,
    pub target: Target,
    pub settings: Settings,
    /// The largest record that a topic takes.
    pub largest: usize,
    pub observer: Arc<dyn Observer>,
    /// By an operator.
    pub paused: watch::Receiver<bool>,
    /// What operators want read again: of each partition the last order.
    pub rewinds: watch::Receiver<BTreeMap<TopicPartition, Rewind>>,
}

impl fmt::Debug for Worker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Worker").field("names", &self.names).field("target", &self.target).finish_non_exhaustive()
    }
}

/// Delivers until `stop` says true (or its sender is gone), then ends what is under way, commits, and leaves the group.
///
/// # Errors
/// [`Error`]; the caller decides whether to start the worker anew. Nothing is lost by it: what was not settled is read
/// again. After [`Error::Fenced`] the process has to end.
pub async fn run(mut worker: Worker, mut stop: watch::Receiver<bool>) -> Result<(), Error> {
    let opened = tokio::select! {
        _ = stop.wait_for(|stop| *stop) => None,
        opened = open(&worker) => Some(opened?),
    };
    let Some(opened) = opened else {
        leave(&worker.names.sink, &mut worker.consumer, Vec::new()).await;
        return Ok(());
    };
    let (mut driver, mut ears) = Driver::new(worker, opened)?;
    driver.observer.state(&driver.names.sink, driver.state);
    let ended = driver.drive(&mut ears, &mut stop).await?;
    leave(&driver.names.sink, &mut ears.consumer, Vec::new()).await;
    if ended.fenced { Err(driver.fenced()) } else { Ok(()) }
}

/// What has to be there before the first partition is looked at.
struct Opened {
    schema_id: u32,
    transactor: Transactor,
}

async fn open(worker: &Worker) -> Result<Opened, Error> {
    let sink = &worker.names.sink;
    let tell = |_: &_, error: &str| tracing::warn!(sink = &**sink, error, "the schema of receipts is waited for");
    let ask = || worker.registry.own_id(super::receipt::SCHEMA);
    let schema_id = patiently(ask, registry::Error::is_transient, ASK_AGAIN, tell).await;
    let schema_id = schema_id.map_err(|source| Error::Registry { sink: Arc::clone(sink), source })?;
    let transactor = Transactor::open(&worker.client, &worker.transactional_id).await;
    let transactor = transactor.map_err(|source| match source {
        kafka::Error::Fenced { transactional_id } => Error::Fenced { sink: Arc::clone(sink), transactional_id },
        source => Error::Transactor { sink: Arc::clone(sink), source },
    })?;
    Ok(Opened { schema_id, transactor })
}

/// What the loop listens to.
struct Ears {
    consumer: Consumer,
    done: mpsc::Receiver<Done>,
    told: mpsc::Receiver<Told>,
    paused: watch::Receiver<bool>,
    rewinds: watch::Receiver<BTreeMap<TopicPartition, Rewind>>,
    /// The machine's next moment.
    alarm: Pin<Box<Sleep>>,
    lag: Interval,
}

struct Ended {
    fenced: bool,
}

type Committing = JoinHandle<(Transactor, TxnId, TxnAnswer)>;

/// The machine, and who carries its actions out.
struct Driver {
    machine: Machine,
    names: Arc<Names>,
    routes: Routes,
    schema_id: u32,
    transactional_id: TransactionalId,
    control: Control,
    membership: watch::Receiver<Option<Membership>>,
    /// Taken when the transaction began.
    member: Option<Membership>,
    /// Not while a transaction is out.
    transactor: Option<Transactor>,
    committing: Option<Committing>,
    /// Waits until every event that came before it is handled.
    begin: Option<TxnId>,
    crew: Crew,
    carriers: Carriers,
    readings: Readings,
    bodies: Bodies,
    observer: Arc<dyn Observer>,
    tickets: HashMap<u64, oneshot::Sender<()>>,
    ticket: u64,
    stand_still: BTreeSet<TopicPartition>,
    /// Actions that came to something at once.
    at_once: VecDeque<Input>,
    counts: Counts,
    state: State,
    /// By an operator.
    paused: bool,
    /// What the machine calls the time is since the epoch, and never goes back.
    started: (Instant, Duration),
    ended: Option<Ended>,
}

impl Driver {
    fn new(worker: Worker, opened: Opened) -> Result<(Self, Ears), Error> {
        let Worker { names, client, group, consumer, transactional_id, registry, .. } = worker;
        let Worker { policy, target, settings, largest, observer, paused, rewinds, .. } = worker;
        let Opened { schema_id, transactor } = opened;
        let names = Arc::new(names);
        let decoder = Arc::new(Decoder::new(registry));
        let sink = Arc::clone(&names.sink);
        let fetcher = Fetcher::start(&client, &group);
        let fetcher = fetcher.map_err(|source| Error::Reader { sink: Arc::clone(&sink), source })?;
        let bodies = Bodies::new(fetcher, Arc::clone(&decoder), schema_id, largest);
        let (readings, told) = Readings::new(client, group, Arc::clone(&decoder), schema_id, Arc::clone(&names));
        let routes = policy.routes.clone();
        let desk = Desk { sink, preparation: Preparation::new(decoder, policy), target };
        let (crew, done) = Crew::new(desk, settings.concurrency);
        let control = consumer.control();
        let mut lag = interval(LAG_EVERY);
        lag.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let now = Instant::now();
        let (number, _) = Uuid::new_v4().as_u64_pair();
        let driver = Self {
            machine: Machine::new(settings, number),
            names,
            routes,
            schema_id,
            transactional_id,
            membership: control.membership(),
            control,
            member: None,
            transactor: Some(transactor),
            committing: None,
            begin: None,
            carriers: Carriers::new(Arc::clone(crew.desk())),
            crew,
            readings,
            bodies,
            observer,
            tickets: HashMap::new(),
            ticket: 0,
            stand_still: BTreeSet::new(),
            at_once: VecDeque::new(),
            counts: Counts::default(),
            state: State::Running,
            paused: false,
            started: (now, Duration::from_millis(u64::try_from(clock::now_ms()).unwrap_or_default())),
            ended: None,
        };
        let alarm = Box::pin(sleep_until(now));
        Ok((driver, Ears { consumer, done, told, paused, rewinds, alarm, lag }))
    }

    fn fenced(&self) -> Error {
        Error::Fenced { sink: Arc::clone(&self.names.sink), transactional_id: self.transactional_id.to_string() }
    }

    fn now(&self) -> Duration {
        let (begun, epoch) = self.started;
        epoch + begun.elapsed()
    }

    async fn drive(&mut self, ears: &mut Ears, stop: &mut watch::Receiver<bool>) -> Result<Ended, Error> {
        let mut done = Vec::with_capacity(DONE_AT_ONCE);
        let (mut stopping, mut unheard) = (false, false);
        if *ears.paused.borrow_and_update() {
            self.pause(true)?;
        }
        let rewinds = ears.rewinds.borrow_and_update().clone();
        self.step(Input::Rewinds(rewinds))?;
        loop {
            if let Some(ended) = self.ended.take() {
                return Ok(ended);
            }
            if let Some(txn) = self.begin.take() {
                self.take_membership(txn, &mut ears.consumer)?;
                continue;
            }
            self.bodies.proceed();
            let due = self.due();
            if let Some(due) = due
                && ears.alarm.deadline() != due
            {
                ears.alarm.as_mut().reset(due);
            }
            tokio::select! {
                _ = stop.wait_for(|stop| *stop), if !stopping => {
                    stopping = true;
                    self.step(Input::Stop)?;
                }
                count = ears.done.recv_many(&mut done, DONE_AT_ONCE) => {
                    debug_assert!(count > 0, "the crew holds a sender");
                    self.done(&mut done)?;
                }
                together = self.carriers.next(), if !self.carriers.is_idle() => {
                    let together = together.map_err(|source| self.failed(source))?;
                    self.together(together)?;
                }
                event = ears.consumer.next() => self.event(event)?,
                Some(told) = ears.told.recv() => self.told(told)?,
                ended = ended(&mut self.committing) => self.committed(ended)?,
                fetched = self.bodies.next() => {
                    let fetched = fetched.map_err(|source| self.failed(source))?;
                    self.step(fetched)?;
                }
                () = ears.alarm.as_mut(), if due.is_some() => self.step(Input::Tick)?,
                () = tokio::time::sleep(LOOK_AGAIN), if self.bodies.is_waiting() => {}
                changed = ears.paused.changed(), if !unheard => match changed {
                    Ok(()) => {
                        let paused = *ears.paused.borrow_and_update();
                        self.pause(paused)?;
                    }
                    // Nobody is left to pause it.
                    Err(_) => unheard = true,
                },
                // Where nobody is left to order, nothing changes any more.
                Ok(()) = ears.rewinds.changed() => {
                    let rewinds = ears.rewinds.borrow_and_update().clone();
                    self.step(Input::Rewinds(rewinds))?;
                }
                _ = ears.lag.tick() => self.report(),
                source = self.crew.failed() => return Err(self.failed(source)),
            }
            self.report_state();
        }
    }

    fn failed(&self, source: JoinError) -> Error {
        Error::Task { sink: Arc::clone(&self.names.sink), source }
    }

    fn due(&self) -> Option<Instant> {
        let (begun, epoch) = self.started;
        // Rounded up: a timer that is early by the resolution of its clock would only turn the loop.
        self.machine.due().map(|due| begun + due.saturating_sub(epoch))
    }

    // --- what is asked for

    fn act(&mut self, action: Action, wanted: &mut Vec<Wanted>) {
        match action {
            Action::Call { call, delivery_id, record, .. } => self.crew.call(Order { call, delivery_id, record }),
            Action::CallTogether { batch, events } => self.carriers.call(batch, events),
            Action::Restore { at, epoch, restore, since } => wanted.push(Wanted { at, epoch, restore, since }),
            Action::Start { at, epoch, next } => {
                self.stand_still.remove(&at);
                let start = next.map_or(StartAt::CommittedOrEarliest, StartAt::Offset);
                self.control.start(epoch, at.clone(), start);
                // It may have been held before it was read again.
                self.control.resume(vec![at]);
            }
            Action::Pause(at) => self.control.pause(vec![at]),
            Action::Resume(at) => self.control.resume(vec![at]),
            Action::Fetch { call, at, position, origin } => {
                let receipts = TopicPartition { topic: self.names.receipts(&at.topic), partition: at.partition };
                self.bodies.want(WantedBody { call, receipts, position, at, origin });
            }
            Action::Begin { txn } => self.begin = Some(txn),
            Action::Commit { txn, transaction } => self.commit(txn, transaction),
            Action::Abort { txn } => self.at_once.push_back(Input::TxnEnded { txn, answer: TxnAnswer::Aborted }),
            Action::Released { ticket } => {
                if let Some(drained) = self.tickets.remove(&ticket) {
                    // The poll thread may have stopped waiting; then there is nobody to tell.
                    let _ = drained.send(());
                }
            }
            Action::Settled(receipts) => tell::settled(&*self.observer, &self.names.sink, &receipts),
            Action::Tell(notice) => tell::notice(&self.names.sink, &notice),
            Action::Finish { fenced } => self.ended = Some(Ended { fenced }),
        }
    }

    fn commit(&mut self, txn: TxnId, transaction: Transaction) {
        let holds = |member: &Membership| transaction.progress.iter().all(|one| member.holds(&one.at, one.epoch));
        let member = self.member.take().filter(holds);
        // Taken only where it is used: without it nothing would ever be committed again.
        let with = member.and_then(|member| Some((member, self.transactor.take()?)));
        let Some((member, transactor)) = with else {
            // A partition was lost, which is about to be heard: nothing was sent.
            self.at_once.push_back(Input::TxnEnded { txn, answer: TxnAnswer::Aborted });
            return;
        };
        let heads = transaction.progress.iter().map(|one| (one.at.clone(), one.next)).collect();
        let (names, control, schema_id) = (Arc::clone(&self.names), self.control.clone(), self.schema_id);
        self.committing = Some(tokio::spawn(async move {
            // Thousands of receipts: here it holds nobody's call up.
            let filled = Filled::new(&transaction, &names, schema_id);
            drop(transaction);
            let (transactor, answer) = commit(&names.sink, transactor, filled, &member).await;
            if matches!(answer, TxnAnswer::Committed { .. }) {
                control.committed(heads);
            }
            (transactor, txn, answer)
        }));
    }
}

/// The transaction under way, once it has ended; waits for ever where there is none. Cancelling it loses nothing.
async fn ended<T>(task: &mut Option<JoinHandle<T>>) -> Result<T, JoinError> {
    match task {
        Some(task) => task.await,
        None => std::future::pending().await,
    }
}
