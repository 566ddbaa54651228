//! The world of one seed: Kafka, the vendor, processes that live, freeze and die, and everything that is on its way.

use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hookbridge::config::{Guarantee, units::Rate};
use hookbridge::deliver::machine::{Action, BatchId, CallId, Ended, Input, Machine, Notice, Settings, TxnId};
use hookbridge::deliver::receipt::{self, receipt_of};
use hookbridge::deliver::{DeadReason, Fate, Followed, Limits, Receipt, Rewind, Transaction, TxnAnswer};
use hookbridge::kafka::consume::AssignmentEpoch;
use hookbridge::kafka::{NextOffset, Record, TopicPartition};
use uuid::Uuid;

use crate::chance::Chance;
use crate::kafka::{Committed, Kafka, Life};
use crate::together::{Passenger, batching};
use crate::vendor::{Request, Vendor};

/// A member of the group that says nothing for so long is out.
pub(crate) const SESSION: Duration = Duration::from_secs(10);

/// A transaction that is open for longer is aborted by its coordinator, which looks every few seconds.
pub(crate) const TXN_TIMEOUT: Duration = Duration::from_secs(15);

/// Ten times what any world takes: past it somebody turns in circles.
const MAX_STEPS: u64 = 200_000;

/// Records that one poll brings at most, and by which a window may be too full.
pub(crate) const POLL: usize = 5;

/// What is on its way.
#[derive(Debug)]
pub(crate) enum Event {
    Input(Life, Input),
    /// The poll thread's channel is read.
    Channel(Life),
    Poll(Life),
    Follow(Life),
    Wake(Life),
    /// It hears what operators want.
    Orders(Life),
    Begin(Life, TxnId),
    Step(Life, TxnId, Stage),
    Restore(Life, Restoring),
    Request(Life, AssignmentEpoch, CallId, Uuid, u64),
    Together(Life, BatchId, Vec<Passenger>),
    Lost(Life, u64, Vec<TopicPartition>),
    Kick(Life),
    Thaw(Life),
    Start(usize),
    Expire(usize, u64),
    /// EndTxn, long after its client has given it up.
    LateEnd(usize, u64),
    Chaos,
    Load,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Stage {
    Produce,
    Offsets,
    End,
    Renew,
}

/// What the coordinator said of a partition's offset.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Stable {
    Unasked,
    /// `None`: nothing was ever committed.
    Read(Option<Committed>),
}

#[derive(Debug)]
pub(crate) struct Restoring {
    pub(crate) partition: usize,
    pub(crate) epoch: AssignmentEpoch,
    pub(crate) restore: u64,
    pub(crate) since: Duration,
    /// The stable offset with its metadata, once it was read.
    pub(crate) committed: Stable,
    pub(crate) end: Option<usize>,
}

#[derive(Debug)]
pub(crate) struct Consumer {
    pub(crate) epoch: AssignmentEpoch,
    pub(crate) started: bool,
    pub(crate) paused: bool,
    pub(crate) position: i64,
    /// Receipts followed so far, once restored, and under which restore.
    pub(crate) follows: Option<(u64, usize)>,
    pub(crate) delivered: HashMap<Uuid, Duration>,
}

/// A call that is out.
#[derive(Debug)]
pub(crate) struct Out {
    pub(crate) id: Uuid,
    pub(crate) key: Vec<u8>,
    pub(crate) partition: usize,
    pub(crate) epoch: AssignmentEpoch,
    /// It went out while the sink was held.
    pub(crate) probe: bool,
    /// What it shares with others.
    pub(crate) batch: Option<BatchId>,
    /// Among those.
    pub(crate) place: usize,
}

#[derive(Debug)]
pub(crate) struct Commit {
    pub(crate) transaction: Transaction,
    pub(crate) positions: Vec<i64>,
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) life: Life,
    pub(crate) machine: Machine,
    pub(crate) chance: Chance,
    pub(crate) frozen: bool,
    pub(crate) held_back: Vec<Event>,
    pub(crate) channel: VecDeque<Input>,
    pub(crate) generation: u64,
    pub(crate) epochs: u64,
    pub(crate) producer_epoch: u64,
    pub(crate) consumers: BTreeMap<usize, Consumer>,
    /// The assignment of each partition that the machine has been told of: the consumer may be further on.
    pub(crate) told: BTreeMap<i32, AssignmentEpoch>,
    pub(crate) begun: HashMap<TxnId, u64>,
    pub(crate) commits: HashMap<TxnId, Commit>,
    pub(crate) calls: BTreeMap<CallId, Out>,
    /// Calls that were refused together, with how many there were of them.
    pub(crate) suspects: BTreeMap<CallId, usize>,
    pub(crate) not_before: Duration,
    pub(crate) wake_at: Option<Duration>,
    pub(crate) held: bool,
    /// A poll is on its way.
    pub(crate) polls: bool,
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) chance: Chance,
    pub(crate) kafka: Kafka,
    pub(crate) vendor: Vendor,
    pub(crate) settings: Settings,
    pub(crate) processes: BTreeMap<Life, Process>,
    pub(crate) lives: Vec<u64>,
    pub(crate) queue: BTreeMap<(Duration, u64), Event>,
    pub(crate) numbers: u64,
    pub(crate) tickets: u64,
    pub(crate) events: u64,
    pub(crate) requeued: HashMap<Uuid, usize>,
    /// What operators want read again, and every order that they ever gave, by its number.
    pub(crate) rewinds: BTreeMap<TopicPartition, Rewind>,
    pub(crate) orders: BTreeMap<u64, (usize, Rewind)>,
    /// Deliveries that came under two keys.
    pub(crate) moved: BTreeSet<u64>,
    pub(crate) steps: u64,
    pub(crate) coverage: BTreeMap<&'static str, u64>,
    pub(crate) wrong: Vec<String>,
    pub(crate) trace: bool,
    /// A long one, at the end of the storm.
    pub(crate) outage: Option<(Duration, Duration)>,
    /// Nothing goes wrong any more.
    pub(crate) healed: bool,
}

/// A third of the worlds remember little of what a rewind reads again.
fn beyond(seed: u64) -> usize {
    let mut chance = Chance::new(seed.rotate_left(32));
    if chance.percent(33) { 1 + chance.index(12) } else { 10_000 }
}

impl World {
    pub(crate) fn new(seed: u64, trace: bool) -> Self {
        let mut chance = Chance::new(seed);
        let partitions = 2 + chance.index(2);
        let guarantee = match chance.below(3) {
            0 => Guarantee::AtLeastOnce,
            1 => Guarantee::EffectivelyOnce,
            _ => Guarantee::AtMostOnce,
        };
        let short = chance.percent(30);
        let vendor_window = Duration::from_secs(if short { 600 } else { 86_400 });
        let rate = chance.percent(30).then(|| Rate { count: 20.try_into().unwrap(), per: Duration::from_secs(1) });
        let settings = Settings {
            guarantee,
            window: Limits { records: 8 + chance.index(24), bytes: 4 << 20 },
            concurrency: 1 + chance.index(6),
            rate,
            in_place: Duration::from_secs(5 + chance.below(30)),
            max_age: Duration::from_secs(3_600),
            dedupe_window: Duration::from_secs(if chance.percent(20) { 20 } else { 86_400 }),
            vendor_window: Some(vendor_window),
            max_seen: 10_000,
            max_beyond: beyond(seed),
            max_open: if chance.percent(10) { 4 } else { 1_000 },
            max_transaction: if chance.percent(20) { 3 } else { 500 },
            batch: batching(seed),
        };
        // The vendor keeps its word with a margin, as the catalogue's numbers do.
        let dedupes = (guarantee == Guarantee::EffectivelyOnce).then_some(vendor_window + Duration::from_secs(60));
        let slots = 2 + chance.index(2);
        Self {
            now: Duration::from_secs(1_000_000),
            kafka: Kafka::new(partitions, slots),
            vendor: Vendor::new(chance.next(), dedupes, seed % 4 == 1),
            settings,
            processes: BTreeMap::new(),
            lives: vec![0; slots],
            queue: BTreeMap::new(),
            numbers: 0,
            tickets: 0,
            events: 0,
            requeued: HashMap::new(),
            rewinds: BTreeMap::new(),
            orders: BTreeMap::new(),
            moved: BTreeSet::new(),
            steps: 0,
            coverage: BTreeMap::new(),
            wrong: vec![],
            trace,
            outage: None,
            healed: false,
            chance,
        }
    }

    pub(crate) fn slots(&self) -> usize {
        self.lives.len()
    }

    pub(crate) fn partitions(&self) -> usize {
        self.kafka.events.len()
    }

    pub(crate) fn count(&mut self, what: &'static str) {
        *self.coverage.entry(what).or_default() += 1;
    }

    pub(crate) fn after(&mut self, delay: Duration, event: Event) {
        self.numbers += 1;
        self.queue.insert((self.now + delay, self.numbers), event);
    }

    pub(crate) fn soon(&mut self, most: u64, event: Event) {
        let delay = self.chance.millis(most);
        self.after(delay, event);
    }

    /// Takes the next thing that happens. `None`: nothing is on its way.
    pub(crate) fn next(&mut self) -> Option<Event> {
        let ((at, _), event) = self.queue.pop_first()?;
        self.now = self.now.max(at);
        Some(event)
    }

    pub(crate) fn handle(&mut self, event: Event) {
        let life = match &event {
            Event::Input(life, _)
            | Event::Channel(life)
            | Event::Poll(life)
            | Event::Follow(life)
            | Event::Wake(life)
            | Event::Orders(life)
            | Event::Begin(life, _)
            | Event::Step(life, ..)
            | Event::Restore(life, _)
            | Event::Lost(life, ..) => Some(*life),
            _ => None,
        };
        if let Some(life) = life {
            let Some(process) = self.processes.get_mut(&life) else { return };
            if process.frozen {
                process.held_back.push(event);
                return;
            }
        }
        match event {
            Event::Input(life, input @ Input::CallEnded { .. }) => {
                let inputs = self.with_those_behind(life, input);
                self.inputs(life, inputs);
            }
            Event::Input(life, input) => self.input(life, input),
            Event::Channel(life) => {
                while let Some(input) = self.processes.get_mut(&life).and_then(|process| process.channel.pop_front()) {
                    self.input(life, input);
                }
            }
            Event::Poll(life) => self.poll(life),
            Event::Follow(life) => self.follow(life),
            Event::Wake(life) => {
                let now = self.now;
                let due = self.processes.get_mut(&life).and_then(|process| process.wake_at.take_if(|at| *at <= now));
                if due.is_some() {
                    self.input(life, Input::Tick);
                }
            }
            Event::Orders(life) => self.input(life, Input::Rewinds(self.rewinds.clone())),
            Event::Begin(life, txn) => self.begin(life, txn),
            Event::Step(life, txn, stage) => self.transact(life, txn, stage),
            Event::Restore(life, restoring) => self.restore(life, restoring),
            Event::Request(life, epoch, call, id, number) => self.request((life, epoch), call, id, number),
            Event::Together(life, batch, passengers) => self.together(life, batch, &passengers),
            Event::Lost(life, ticket, partitions) => self.lost(life, ticket, partitions),
            Event::Kick(life) => self.kick(life),
            Event::Thaw(life) => self.thaw(life),
            Event::Start(slot) => self.start(slot),
            Event::Expire(slot, epoch) => {
                let producer = &mut self.kafka.producers[slot];
                if producer.epoch == epoch
                    && producer.ongoing.as_ref().is_some_and(|open| open.began + TXN_TIMEOUT <= self.now)
                {
                    // The coordinator bumps the epoch as well, so that the client finds out.
                    producer.epoch += 1;
                    self.kafka.end(slot, false);
                    self.count("transaction expired");
                }
            }
            Event::LateEnd(slot, epoch) => {
                if self.kafka.producers[slot].epoch == epoch {
                    self.end_transaction(slot);
                    self.count("late EndTxn applied");
                } else {
                    self.count("late EndTxn fenced");
                }
            }
            Event::Chaos => crate::chaos::strike(self),
            Event::Load => crate::chaos::load(self),
        }
    }

    pub(crate) fn end_transaction(&mut self, slot: usize) {
        let back = self.kafka.end(slot, true);
        self.wrong.extend(back);
    }

    pub(crate) fn request(&mut self, by: (Life, AssignmentEpoch), call: CallId, delivery_id: Uuid, number: u64) {
        let request = Request { by, number, delivery_id, at: self.now };
        let (ended, sent) = self.vendor.take(request, &mut self.chance);
        if let Ended::Failed(outcome) = &ended {
            self.count(outcome.class());
        }
        let most = if self.chance.percent(5) { 9_000 } else { 300 };
        self.soon(most, Event::Input(by.0, Input::CallEnded { call, ended, sent }));
    }

    /// A process that was busy hears of several answers at once.
    fn with_those_behind(&mut self, life: Life, first: Input) -> Vec<Input> {
        let mut inputs = vec![first];
        let until = self.now + Duration::from_millis(if self.chance.percent(30) { 20 } else { 0 });
        while let Some(entry) = self.queue.first_entry() {
            let behind = matches!(entry.get(), Event::Input(other, Input::CallEnded { .. }) if *other == life);
            if !behind || entry.key().0 > until {
                break;
            }
            if let Event::Input(_, input) = entry.remove() {
                inputs.push(input);
            }
        }
        if inputs.len() > 1 {
            self.count("answers at once");
        }
        inputs
    }

    pub(crate) fn input(&mut self, life: Life, input: Input) {
        self.inputs(life, vec![input]);
    }

    fn inputs(&mut self, life: Life, inputs: Vec<Input>) {
        for input in &inputs {
            self.note(life, input);
        }
        let now = self.now;
        let Some(process) = self.processes.get_mut(&life) else { return };
        let chance = &mut process.chance;
        let actions = process.machine.step_all(inputs, now, &mut || chance.unit());
        for action in actions {
            if self.trace {
                println!("{:?} {life:?} -> {action:?}", self.now);
            }
            self.act(life, action);
        }
        let Some(process) = self.processes.get_mut(&life) else { return };
        let due = process.machine.due();
        if process.wake_at != due {
            process.wake_at = due;
            if let Some(due) = due {
                let delay = due.saturating_sub(now);
                self.after(delay, Event::Wake(life));
            }
        }
        crate::check::window(self, life);
    }

    /// What the checks have to know of an input.
    fn note(&mut self, life: Life, input: &Input) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&life) else { return };
        if self.trace {
            println!("{:?} {life:?} <- {input:?}", self.now);
        }
        self.steps += 1;
        if self.steps == MAX_STEPS {
            self.wrong.push(format!("{life:?} does not come to rest: {input:?}"));
        }
        match input {
            Input::Assigned { epoch, partitions } => {
                process.told.extend(partitions.iter().map(|at| (at.partition, *epoch)));
            }
            Input::CallEnded { call, ended, .. } => process.has_answer(*call, ended, now),
            Input::BatchEnded { batch, aside, answers, .. } => {
                process.have_answers(*batch, aside, answers.as_ref(), now);
            }
            _ => {}
        }
    }

    pub(crate) fn deepest(&self, life: Life) -> usize {
        self.processes.get(&life).map_or(0, |process| process.machine.deepest())
    }

    pub(crate) fn most_remembered(&self, life: Life) -> usize {
        self.processes.get(&life).map_or(0, |process| process.machine.most_remembered())
    }

    pub(crate) fn act(&mut self, life: Life, action: Action) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        let consumer = |process: &mut Process, at: &TopicPartition, change: &dyn Fn(&mut Consumer)| {
            if let Some(consumer) = process.consumers.get_mut(&usize::try_from(at.partition).unwrap()) {
                change(consumer);
            }
        };
        match action {
            Action::Restore { at, epoch, restore, since } => {
                let partition = usize::try_from(at.partition).unwrap();
                consumer(process, &at, &|consumer| consumer.follows = None);
                let restoring = Restoring { partition, epoch, restore, since, committed: Stable::Unasked, end: None };
                self.soon(100, Event::Restore(life, restoring));
            }
            Action::Start { at, epoch, next } => {
                consumer(process, &at, &|consumer| {
                    if consumer.epoch == epoch {
                        consumer.started = true;
                        consumer.paused = false;
                        consumer.position = next.map_or(0, NextOffset::get);
                    }
                });
                self.poll_soon(life);
            }
            Action::Pause(at) => {
                consumer(process, &at, &|consumer| consumer.paused = true);
                self.count("window full");
            }
            Action::Resume(at) => {
                consumer(process, &at, &|consumer| consumer.paused = false);
                self.poll_soon(life);
            }
            Action::Fetch { call, at, position, .. } => {
                let (partition, position) =
                    (usize::try_from(at.partition).unwrap(), usize::try_from(position).unwrap());
                let written = &self.kafka.receipts[partition][position];
                let readable = written.visible == crate::kafka::Visible::Committed && self.chance.percent(95);
                let receipt = written
                    .receipt
                    .as_ref()
                    .filter(|receipt| readable && matches!(receipt.fate, Fate::Parked | Fate::Requeued));
                let record = receipt.map(|receipt| Arc::clone(&receipt.record));
                self.soon(50, Event::Input(life, Input::Fetched { call, record }));
            }
            Action::Call { call, delivery_id, record, .. } => self.call(life, call, delivery_id, &record),
            Action::CallTogether { batch, events } => self.call_together(life, batch, &events),
            Action::Begin { txn } => self.soon(10, Event::Begin(life, txn)),
            Action::Commit { txn, transaction } => {
                process.commits.insert(txn, Commit { transaction, positions: vec![] });
                self.soon(20, Event::Step(life, txn, Stage::Produce));
            }
            Action::Abort { txn } => self.answer(life, txn, TxnAnswer::Aborted),
            Action::Released { ticket } => self.release(life, ticket),
            Action::Settled(receipts) => receipts.iter().for_each(|receipt| self.settled(receipt)),
            Action::Tell(notice) => self.notice(life, &notice),
            Action::Finish { fenced } => {
                self.count(if fenced { "stopped because fenced" } else { "stopped in order" });
                self.processes.remove(&life);
                self.kick(life);
                if self.processes.keys().all(|other| other.slot != life.slot) {
                    self.soon(5_000, Event::Start(life.slot));
                }
            }
        }
    }

    pub(crate) fn notice(&mut self, life: Life, notice: &Notice) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        match notice {
            Notice::Held { .. } => {
                process.held = true;
                self.count("breaker opened");
            }
            Notice::Recovered => {
                process.held = false;
                // A probe that is still out has lost its meaning.
                process.calls.values_mut().for_each(|out| out.probe = false);
                self.count("breaker closed");
            }
            Notice::Throttled { .. } => self.count("throttled"),
            Notice::Parked { .. } => self.count("key parked"),
            Notice::Unsure { .. } => self.count("read again"),
            Notice::WentBack { order, .. } => self.count(if order.again { "rewound, all again" } else { "rewound" }),
            Notice::ReadOn { .. } => self.count("read in parts"),
            Notice::LetGo { .. } => self.count("let go"),
            Notice::TooLarge { .. } => self.count("too large"),
        }
    }

    pub(crate) fn settled(&mut self, receipt: &Receipt) {
        self.count(match receipt.fate {
            Fate::Delivered => "delivered",
            Fate::Skipped(hookbridge::outcome::SkipReason::Duplicate) => "duplicate",
            Fate::Skipped(_) => "skipped",
            Fate::Dead(DeadReason::Rejected) => "dead: rejected",
            Fate::Dead(DeadReason::TooOld) => "dead: too old",
            Fate::Dead(DeadReason::NoAnswer) => "dead: no answer",
            Fate::Dead(DeadReason::PastWindow) => "dead: past window",
            Fate::Dead(DeadReason::Expired) => "dead: expired",
            Fate::Parked => "parked",
            Fate::Requeued | Fate::Intent => "never",
        });
    }

    pub(crate) fn call(&mut self, life: Life, call: CallId, delivery_id: Uuid, record: &Arc<Record>) {
        let number = u64::from_be_bytes(record.value.clone().unwrap().try_into().unwrap());
        crate::check::call(self, life, delivery_id, number, record, None);
        let Some(process) = self.processes.get_mut(&life) else { return };
        let key = record.key.clone().unwrap_or_else(|| delivery_id.as_bytes().to_vec());
        let partition = usize::try_from(record.at.partition).unwrap();
        let epoch = process.told.get(&record.at.partition).copied().unwrap_or(AssignmentEpoch(0));
        let probe = process.held;
        process.calls.insert(call, Out { id: delivery_id, key, partition, epoch, probe, batch: None, place: 0 });
        self.soon(100, Event::Request(life, epoch, call, delivery_id, number));
    }

    /// Whether the process has had this delivery's answer under its present assignment, and still has to remember it.
    pub(crate) fn has_delivered(&self, life: Life, record: &Record, id: Uuid) -> bool {
        let consumer = self.processes[&life].consumers.get(&usize::try_from(record.at.partition).unwrap());
        // What was answered under an assignment that it has not heard of yet, it cannot know.
        let consumer = consumer.filter(|consumer| Some(consumer.epoch) == self.epoch(life, record));
        let at = consumer.and_then(|consumer| consumer.delivered.get(&id));
        // At the very edge of its memory a process may send once more.
        let reach = self.settings.dedupe_window.saturating_sub(Duration::from_secs(20));
        at.is_some_and(|at| self.now < *at + reach)
    }

    pub(crate) fn epoch(&self, life: Life, record: &Record) -> Option<AssignmentEpoch> {
        self.processes[&life].told.get(&record.at.partition).copied()
    }

    pub(crate) fn not_before(&self, life: Life) -> Duration {
        self.processes[&life].not_before
    }

    pub(crate) fn is_held(&self, life: Life) -> bool {
        self.processes[&life].held
    }
}

impl World {
    /// Every order for the partition was carried out.
    pub(crate) fn has_gone_back(&self, partition: usize) -> bool {
        let Some(committed) = self.kafka.committed[partition] else { return true };
        self.rewinds.get(&at(partition)).is_none_or(|order| order.number <= committed.rewound.number)
    }
}

pub(crate) fn at(partition: usize) -> TopicPartition {
    TopicPartition { topic: "events".into(), partition: i32::try_from(partition).unwrap() }
}

/// As they are read back from where they were written.
pub(crate) fn followed(receipts: Vec<(i64, Receipt)>) -> Vec<Followed> {
    let follow = |(position, written): (i64, Receipt)| {
        receipt::followed(&receipt_of(&written), position, written.record.key.as_deref()).unwrap()
    };
    receipts.into_iter().map(follow).collect()
}
