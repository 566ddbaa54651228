//! The world of one seed: Kafka, the vendor, processes that live, freeze and die, and everything that is on its way.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet, VecDeque};
use std::sync::Arc;
use std::time::Duration;

use hookbridge::config::{Guarantee, units::Rate};
use hookbridge::deliver::machine::{Action, Arrived, CallId, Ended, Input, Machine, Notice, Settings, TxnId};
use hookbridge::deliver::{DeadReason, Fate, Followed, KeyId, Limits, Receipt, Transaction, TxnAnswer};
use hookbridge::kafka::consume::AssignmentEpoch;
use hookbridge::kafka::{NextOffset, Record, TopicPartition};
use uuid::Uuid;

use crate::chance::Chance;
use crate::kafka::{Kafka, Life};
use crate::vendor::{Request, Vendor};

/// A member of the group that says nothing for so long is out.
pub(crate) const SESSION: Duration = Duration::from_secs(10);

/// A transaction that is open for longer is aborted by its coordinator, which looks every few seconds.
const TXN_TIMEOUT: Duration = Duration::from_secs(15);

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
    Begin(Life, TxnId),
    Step(Life, TxnId, Stage),
    Restore(Life, Restoring),
    Request(Life, CallId, Uuid, u64),
    Rejoin(Life),
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

#[derive(Debug)]
pub(crate) struct Restoring {
    partition: usize,
    epoch: AssignmentEpoch,
    restore: u64,
    since: Duration,
    /// The stable offset with its metadata, once it was read.
    committed: Option<Option<(i64, i64)>>,
    end: Option<usize>,
}

#[derive(Debug)]
struct Consumer {
    epoch: AssignmentEpoch,
    started: bool,
    paused: bool,
    position: i64,
    /// Receipts followed so far, once restored, and under which restore.
    follows: Option<(u64, usize)>,
    delivered: HashSet<Uuid>,
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
}

#[derive(Debug)]
struct Commit {
    transaction: Transaction,
    positions: Vec<i64>,
}

#[derive(Debug)]
pub(crate) struct Process {
    pub(crate) life: Life,
    machine: Machine,
    chance: Chance,
    pub(crate) frozen: bool,
    held_back: Vec<Event>,
    channel: VecDeque<Input>,
    generation: u64,
    epochs: u64,
    producer_epoch: u64,
    consumers: BTreeMap<usize, Consumer>,
    begun: HashMap<TxnId, u64>,
    commits: HashMap<TxnId, Commit>,
    pub(crate) calls: BTreeMap<CallId, Out>,
    not_before: Duration,
    wake_at: Option<Duration>,
    held: bool,
    /// A poll is on its way.
    polls: bool,
}

pub(crate) struct World {
    pub(crate) now: Duration,
    pub(crate) chance: Chance,
    pub(crate) kafka: Kafka,
    pub(crate) vendor: Vendor,
    pub(crate) settings: Settings,
    pub(crate) processes: BTreeMap<Life, Process>,
    lives: Vec<u64>,
    queue: BTreeMap<(Duration, u64), Event>,
    numbers: u64,
    tickets: u64,
    pub(crate) events: u64,
    pub(crate) requeued: HashMap<Uuid, usize>,
    /// Deliveries that came under two keys.
    pub(crate) moved: BTreeSet<u64>,
    pub(crate) steps: u64,
    pub(crate) coverage: BTreeMap<&'static str, u64>,
    pub(crate) wrong: Vec<String>,
    pub(crate) trace: bool,
    /// Nothing goes wrong any more.
    pub(crate) healed: bool,
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
            dedupe_window: Duration::from_secs(if chance.percent(20) { 300 } else { 86_400 }),
            vendor_window: Some(vendor_window),
            max_seen: 10_000,
            max_open: if chance.percent(10) { 4 } else { 1_000 },
            max_transaction: if chance.percent(20) { 3 } else { 500 },
        };
        // The vendor keeps its word with a margin, as the catalogue's numbers do.
        let dedupes = (guarantee == Guarantee::EffectivelyOnce).then_some(vendor_window + Duration::from_secs(60));
        let slots = 2 + chance.index(2);
        Self {
            now: Duration::from_secs(1_000_000),
            kafka: Kafka::new(partitions, slots),
            vendor: Vendor::new(chance.next(), dedupes),
            settings,
            processes: BTreeMap::new(),
            lives: vec![0; slots],
            queue: BTreeMap::new(),
            numbers: 0,
            tickets: 0,
            events: 0,
            requeued: HashMap::new(),
            moved: BTreeSet::new(),
            steps: 0,
            coverage: BTreeMap::new(),
            wrong: vec![],
            trace,
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

    fn soon(&mut self, most: u64, event: Event) {
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
            | Event::Begin(life, _)
            | Event::Step(life, ..)
            | Event::Restore(life, _) => Some(*life),
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
            Event::Begin(life, txn) => self.begin(life, txn),
            Event::Step(life, txn, stage) => self.transact(life, txn, stage),
            Event::Restore(life, restoring) => self.restore(life, restoring),
            Event::Request(life, call, id, number) => self.request(life, call, id, number),
            Event::Rejoin(life) => self.rejoin(life),
            Event::Kick(life) => self.kick(life),
            Event::Thaw(life) => self.thaw(life),
            Event::Start(slot) => self.start(slot),
            Event::Expire(slot, epoch) => {
                let producer = &mut self.kafka.producers[slot];
                if producer.epoch == epoch && producer.ongoing.as_ref().is_some_and(|open| open.began + TXN_TIMEOUT <= self.now) {
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

    // --- processes ---

    pub(crate) fn start(&mut self, slot: usize) {
        self.lives[slot] += 1;
        let life = Life { slot, number: self.lives[slot] };
        let (chance, number) = (Chance::new(self.chance.next()), self.chance.next());
        let producer_epoch = self.kafka.init_producer(life);
        let process = Process {
            life,
            machine: Machine::new(self.settings.clone(), number),
            chance,
            frozen: false,
            held_back: vec![],
            channel: VecDeque::new(),
            generation: 0,
            epochs: 0,
            producer_epoch,
            consumers: BTreeMap::new(),
            begun: HashMap::new(),
            commits: HashMap::new(),
            calls: BTreeMap::new(),
            not_before: Duration::ZERO,
            wake_at: None,
            held: false,
            polls: false,
        };
        self.processes.insert(life, process);
        self.soon(300, Event::Follow(life));
        self.rejoin(life);
    }

    /// `kill -9`: what it sent is on its way all the same.
    pub(crate) fn crash(&mut self, life: Life) {
        let Some(process) = self.processes.remove(&life) else { return };
        if !process.calls.is_empty() {
            self.count("crash with calls out");
        }
        if !process.commits.is_empty() {
            self.count("crash in a transaction");
        }
        self.count("crash");
        self.after(SESSION, Event::Kick(life));
        let epoch = self.kafka.producers[life.slot].epoch;
        self.after(TXN_TIMEOUT + Duration::from_secs(5), Event::Expire(life.slot, epoch));
    }

    fn thaw(&mut self, life: Life) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        process.frozen = false;
        for event in std::mem::take(&mut process.held_back) {
            self.after(Duration::ZERO, event);
        }
    }

    fn rejoin(&mut self, life: Life) {
        if self.processes.contains_key(&life) && !self.kafka.group.members.contains_key(&life) {
            self.kafka.group.members.insert(life, 0);
            self.rebalance();
        }
    }

    /// The coordinator takes a member out, which learns of it later.
    pub(crate) fn kick(&mut self, life: Life) {
        let group = &mut self.kafka.group;
        if group.members.remove(&life).is_none() {
            return;
        }
        group.draining.retain(|_, (of, _)| *of != life);
        group.owners.iter_mut().filter(|owner| **owner == Some(life)).for_each(|owner| *owner = None);
        self.rebalance();
        let Some(process) = self.processes.get_mut(&life) else { return };
        let had: Vec<_> = process.consumers.keys().copied().collect();
        if !process.calls.is_empty() {
            self.count("zombie with calls out");
        }
        self.tickets += 1;
        let (ticket, late) = (self.tickets, self.chance.millis(4_000));
        let partitions = had.iter().map(|partition| at(*partition)).collect();
        self.after(late, Event::Input(life, Input::Revoked { ticket, partitions, lost: true }));
        self.after(late + Duration::from_millis(1), Event::Rejoin(life));
    }

    fn tell(&mut self, life: Life, input: Input) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        process.channel.push_back(input);
        self.soon(20, Event::Channel(life));
    }

    pub(crate) fn rebalance(&mut self) {
        if !self.kafka.group.draining.is_empty() {
            self.kafka.group.wants_rebalance = true;
            return;
        }
        let frozen: Vec<_> =
            self.processes.values().filter(|process| process.frozen).map(|process| process.life).collect();
        self.kafka.group.wants_rebalance = false;
        for life in frozen {
            // Who does not join in time is out.
            self.kick_quietly(life);
        }
        let group = &mut self.kafka.group;
        group.generation += 1;
        let generation = group.generation;
        for (life, known) in &mut group.members {
            *known = generation;
            if let Some(process) = self.processes.get_mut(life) {
                process.generation = generation;
            }
        }
        let members: Vec<_> = group.members.keys().copied().filter(|life| self.processes.contains_key(life)).collect();
        if members.is_empty() {
            return;
        }
        let mut assigned: BTreeMap<Life, Vec<usize>> = BTreeMap::new();
        let mut revoked: BTreeMap<Life, Vec<usize>> = BTreeMap::new();
        for partition in 0..self.kafka.events.len() {
            let wanted = members[self.chance.index(members.len())];
            match self.kafka.group.owners[partition] {
                None => assigned.entry(wanted).or_default().push(partition),
                Some(owner) if owner != wanted && self.chance.percent(50) => {
                    revoked.entry(owner).or_default().push(partition);
                }
                Some(_) => {}
            }
        }
        for (life, partitions) in assigned {
            self.assign(life, partitions);
        }
        for (life, partitions) in revoked {
            let Some(process) = self.processes.get(&life) else { continue };
            if !process.calls.is_empty() {
                self.count("rebalance with calls out");
            }
            self.tickets += 1;
            let ticket = self.tickets;
            self.kafka.group.draining.insert(ticket, (life, partitions.clone()));
            let partitions = partitions.into_iter().map(at).collect();
            self.tell(life, Input::Revoked { ticket, partitions, lost: false });
        }
    }

    fn kick_quietly(&mut self, life: Life) {
        if self.kafka.group.members.remove(&life).is_none() {
            return;
        }
        self.kafka.group.owners.iter_mut().filter(|owner| **owner == Some(life)).for_each(|owner| *owner = None);
        self.tickets += 1;
        let (ticket, late) = (self.tickets, self.chance.millis(4_000));
        let Some(process) = self.processes.get(&life) else { return };
        if !process.calls.is_empty() {
            self.count("zombie with calls out");
        }
        let process = &self.processes[&life];
        let partitions = process.consumers.keys().map(|partition| at(*partition)).collect();
        self.after(late, Event::Input(life, Input::Revoked { ticket, partitions, lost: true }));
        // Its thaw may come later than that; then both wait for it.
        self.after(SESSION + late, Event::Rejoin(life));
    }

    fn assign(&mut self, life: Life, partitions: Vec<usize>) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        process.epochs += 1;
        let epoch = AssignmentEpoch(process.epochs);
        for partition in &partitions {
            self.kafka.group.owners[*partition] = Some(life);
            let consumer = Consumer {
                epoch,
                started: false,
                paused: false,
                position: 0,
                follows: None,
                delivered: HashSet::new(),
            };
            process.consumers.insert(*partition, consumer);
        }
        self.tell(life, Input::Assigned { epoch, partitions: partitions.into_iter().map(at).collect() });
    }

    fn release(&mut self, life: Life, ticket: u64) {
        let Some((_, partitions)) = self.kafka.group.draining.remove(&ticket) else { return };
        for partition in partitions {
            self.kafka.group.owners[partition] = None;
            if let Some(process) = self.processes.get_mut(&life) {
                process.consumers.remove(&partition);
            }
        }
        self.count("revocation drained");
        self.rebalance();
    }

    // --- reading ---

    fn poll(&mut self, life: Life) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        let mut records = vec![];
        for (partition, consumer) in process.consumers.iter_mut().filter(|(_, consumer)| consumer.started && !consumer.paused) {
            let from = consumer.position;
            let ahead = self.kafka.events[*partition].iter().filter(|event| event.offset >= from);
            for event in ahead.take(POLL) {
                consumer.position = event.offset + 1;
                let record = Record {
                    at: at(*partition),
                    offset: event.offset,
                    timestamp_ms: None,
                    key: event.key.clone(),
                    value: Some(event.number.to_be_bytes().to_vec()),
                    headers: vec![],
                };
                records.push(Arrived { delivery_id: event.delivery_id, record });
            }
        }
        process.polls = !records.is_empty();
        if process.polls {
            self.tell(life, Input::Records(records));
            self.soon(200, Event::Poll(life));
        }
    }

    /// There may be something to read.
    fn poll_soon(&mut self, life: Life) {
        let process = self.processes.get_mut(&life);
        if process.is_some_and(|process| !std::mem::replace(&mut process.polls, true)) {
            self.soon(200, Event::Poll(life));
        }
    }

    pub(crate) fn poll_all(&mut self) {
        for life in self.processes.keys().copied().collect::<Vec<_>>() {
            self.poll_soon(life);
        }
    }

    fn follow(&mut self, life: Life) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        let mut inputs = vec![];
        for (partition, consumer) in &mut process.consumers {
            let Some((restore, position)) = &mut consumer.follows else { continue };
            let end = self.kafka.last_stable(*partition);
            if end <= *position {
                continue;
            }
            let receipts = followed(self.kafka.read_receipts(*partition, *position, end));
            *position = end;
            let (epoch, restore, position) = (consumer.epoch, *restore, i64::try_from(end).unwrap());
            inputs.push(Input::Followed { at: at(*partition), epoch, restore, receipts, position });
        }
        inputs.into_iter().for_each(|input| self.input(life, input));
        self.soon(if self.healed { 60_000 } else { 1_000 }, Event::Follow(life));
    }

    fn restore(&mut self, life: Life, mut restoring: Restoring) {
        let partition = restoring.partition;
        if restoring.committed.is_none() {
            // A stable offset is one that no open transaction is about to change.
            if !self.kafka.has_pending_offsets(partition) {
                restoring.committed = Some(self.kafka.committed[partition]);
            }
        } else if restoring.end.is_none() {
            restoring.end = Some(self.kafka.receipts[partition].len());
        }
        let (Some(committed), Some(end)) = (restoring.committed, restoring.end) else {
            self.soon(100, Event::Restore(life, restoring));
            return;
        };
        if self.kafka.last_stable(partition) < end {
            self.count("restore waited for an open transaction");
            self.soon(500, Event::Restore(life, restoring));
            return;
        }
        let Restoring { epoch, restore, since, .. } = restoring;
        let from = committed.map_or(0, |(_, from)| usize::try_from(from).unwrap());
        let all = self.kafka.read_receipts(partition, 0, end);
        let young = all.iter().find(|(_, receipt)| receipt.settled_at >= since).map(|(position, _)| *position);
        let from = from.min(young.map_or(end, |position| usize::try_from(position).unwrap()));
        let receipts = followed(self.kafka.read_receipts(partition, from, end));
        let half = receipts.len() / 2;
        let position = i64::try_from(end).unwrap();
        let (first, second) = (receipts[..half].to_vec(), receipts[half..].to_vec());
        self.input(life, Input::Followed { at: at(partition), epoch, restore, receipts: first, position: 0 });
        self.input(life, Input::Followed { at: at(partition), epoch, restore, receipts: second, position });
        let next = committed.map(|(next, _)| NextOffset::stored(next));
        if let Some(consumer) = self.processes.get_mut(&life).and_then(|process| process.consumers.get_mut(&partition))
            && consumer.epoch == epoch
        {
            consumer.follows = Some((restore, end));
        }
        self.input(life, Input::Restored { at: at(partition), epoch, restore, next });
    }

    // --- transactions ---

    fn begin(&mut self, life: Life, txn: TxnId) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        let begun = process.generation > 0;
        process.begun.insert(txn, process.generation);
        // Through the same channel as the rebalances before it.
        self.tell(life, Input::Begun { txn, begun });
    }

    fn answer(&mut self, life: Life, txn: TxnId, answer: TxnAnswer) {
        match answer {
            TxnAnswer::Committed { .. } => self.count("transaction committed"),
            TxnAnswer::Aborted => self.count("transaction aborted"),
            TxnAnswer::Unknown => self.count("transaction unknown"),
            TxnAnswer::Fenced => self.count("transaction fenced"),
        }
        if let Some(process) = self.processes.get_mut(&life) {
            process.commits.remove(&txn);
        }
        self.soon(20, Event::Input(life, Input::TxnEnded { txn, answer }));
    }

    fn transact(&mut self, life: Life, txn: TxnId, stage: Stage) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        let epoch = process.producer_epoch;
        let generation = process.begun.get(&txn).copied().unwrap_or_default();
        let Some(commit) = process.commits.get_mut(&txn) else { return };
        let producer = &self.kafka.producers[life.slot];
        if stage == Stage::Renew {
            if producer.owner != Some(life) {
                return self.answer(life, txn, TxnAnswer::Fenced);
            }
            process.producer_epoch = self.kafka.init_producer(life);
            return self.answer(life, txn, TxnAnswer::Unknown);
        }
        if producer.epoch != epoch {
            return self.soon(100, Event::Step(life, txn, Stage::Renew));
        }
        match stage {
            Stage::Produce => {
                let receipts: Vec<_> = commit
                    .transaction
                    .receipts
                    .iter()
                    .map(|receipt| (usize::try_from(receipt.at.partition).unwrap(), receipt.clone()))
                    .collect();
                commit.positions = self.kafka.produce(life, epoch, &receipts, self.now).unwrap_or_default();
                self.after(TXN_TIMEOUT + Duration::from_secs(3), Event::Expire(life.slot, epoch));
                self.soon(20, Event::Step(life, txn, Stage::Offsets));
            }
            Stage::Offsets => {
                let progress = commit.transaction.progress.iter();
                let offsets = progress
                    .map(|progress| {
                        let partition = usize::try_from(progress.at.partition).unwrap();
                        (partition, progress.next.get(), progress.receipts_from)
                    })
                    .collect();
                let accepted = self.kafka.send_offsets(life, generation, offsets);
                let unlucky = !self.healed && self.chance.percent(3);
                if !accepted {
                    self.count("generation refused");
                }
                if accepted && !unlucky {
                    return self.soon(20, Event::Step(life, txn, Stage::End));
                }
                self.kafka.end(life.slot, false);
                self.answer(life, txn, TxnAnswer::Aborted);
            }
            Stage::End => {
                let positions = commit.positions.clone();
                match if self.healed { 99 } else { self.chance.below(100) } {
                    0..3 => {
                        // Done, and the answer is lost.
                        self.end_transaction(life.slot);
                        self.count("unknown and committed");
                        self.soon(8_000, Event::Step(life, txn, Stage::Renew));
                    }
                    3..5 => {
                        self.count("unknown and not committed");
                        self.soon(8_000, Event::Step(life, txn, Stage::Renew));
                    }
                    5..8 => {
                        let (late, renew) = (self.chance.millis(20_000), self.chance.millis(8_000));
                        self.after(late, Event::LateEnd(life.slot, epoch));
                        self.after(renew, Event::Step(life, txn, Stage::Renew));
                    }
                    _ => {
                        self.end_transaction(life.slot);
                        self.answer(life, txn, TxnAnswer::Committed { positions });
                    }
                }
            }
            Stage::Renew => {}
        }
    }

    // --- calls ---

    fn request(&mut self, life: Life, call: CallId, delivery_id: Uuid, number: u64) {
        let request = Request { life, number, delivery_id, at: self.now };
        let (ended, sent) = self.vendor.take(request, &mut self.chance);
        if let Ended::Failed(outcome) = &ended {
            self.count(outcome.class());
        }
        let most = if self.chance.percent(5) { 9_000 } else { 300 };
        self.soon(most, Event::Input(life, Input::CallEnded { call, ended, sent }));
    }

    // --- the machine ---

    pub(crate) fn input(&mut self, life: Life, input: Input) {
        let now = self.now;
        let Some(process) = self.processes.get_mut(&life) else { return };
        if self.trace {
            println!("{:?} {life:?} <- {input:?}", self.now);
        }
        self.steps += 1;
        match &input {
            Input::CallEnded { call, ended, .. } => {
                if let Some(out) = process.calls.remove(call)
                    && *ended == Ended::Delivered
                    && let Some(consumer) = process.consumers.get_mut(&out.partition)
                    && consumer.epoch == out.epoch
                {
                    consumer.delivered.insert(out.id);
                }
                if let Ended::Failed(hookbridge::outcome::Outcome::Throttled { after: Some(after) }) = ended {
                    process.not_before = process.not_before.max(now + *after);
                }
            }
            Input::Revoked { partitions, lost: true, .. } => {
                for partition in partitions {
                    process.consumers.remove(&usize::try_from(partition.partition).unwrap());
                }
            }
            _ => {}
        }
        let chance = &mut process.chance;
        let actions = process.machine.step(input, now, &mut || chance.unit());
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

    pub(crate) fn deepest(&self, life: Life) -> usize {
        self.processes.get(&life).map_or(0, |process| process.machine.deepest())
    }

    fn act(&mut self, life: Life, action: Action) {
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
                let restoring = Restoring { partition, epoch, restore, since, committed: None, end: None };
                self.soon(100, Event::Restore(life, restoring));
            }
            Action::Start { at, epoch, next } => {
                consumer(process, &at, &|consumer| {
                    if consumer.epoch == epoch {
                        consumer.started = true;
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
            Action::Fetch { call, at, position } => {
                let (partition, position) = (usize::try_from(at.partition).unwrap(), usize::try_from(position).unwrap());
                let written = &self.kafka.receipts[partition][position];
                let readable = written.visible == crate::kafka::Visible::Committed && self.chance.percent(95);
                let receipt = written.receipt.as_ref().filter(|receipt| {
                    readable && matches!(receipt.fate, Fate::Parked | Fate::Requeued)
                });
                let record = receipt.map(|receipt| Record::clone(&receipt.record));
                self.soon(50, Event::Input(life, Input::Fetched { call, record }));
            }
            Action::Call { call, delivery_id, record, .. } => self.call(life, call, delivery_id, &record),
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

    fn notice(&mut self, life: Life, notice: &Notice) {
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
            Notice::LetGo { .. } => self.count("let go"),
        }
    }

    fn settled(&mut self, receipt: &Receipt) {
        self.count(match receipt.fate {
            Fate::Delivered => "delivered",
            Fate::Skipped(hookbridge::outcome::SkipReason::Duplicate) => "duplicate",
            Fate::Skipped(_) => "skipped",
            Fate::Dead(DeadReason::Rejected) => "dead: rejected",
            Fate::Dead(DeadReason::TooOld) => "dead: too old",
            Fate::Dead(DeadReason::NoAnswer) => "dead: no answer",
            Fate::Dead(DeadReason::PastWindow) => "dead: past window",
            Fate::Parked => "parked",
            Fate::Requeued | Fate::Intent => "never",
        });
    }

    fn call(&mut self, life: Life, call: CallId, delivery_id: Uuid, record: &Arc<Record>) {
        let number = u64::from_be_bytes(record.value.clone().unwrap().try_into().unwrap());
        crate::check::call(self, life, delivery_id, number, record);
        let Some(process) = self.processes.get_mut(&life) else { return };
        let key = record.key.clone().unwrap_or_else(|| delivery_id.as_bytes().to_vec());
        let partition = usize::try_from(record.at.partition).unwrap();
        // Without a consumer it was lost in this very moment.
        let epoch = process.consumers.get(&partition).map_or(AssignmentEpoch(0), |consumer| consumer.epoch);
        let probe = process.held;
        process.calls.insert(call, Out { id: delivery_id, key, partition, epoch, probe });
        self.soon(100, Event::Request(life, call, delivery_id, number));
    }

    /// Whether the process has had this delivery's answer under its present assignment.
    pub(crate) fn has_delivered(&self, life: Life, record: &Record, id: Uuid) -> bool {
        let consumer = self.processes[&life].consumers.get(&usize::try_from(record.at.partition).unwrap());
        consumer.is_some_and(|consumer| consumer.delivered.contains(&id))
    }

    pub(crate) fn epoch(&self, life: Life, record: &Record) -> Option<AssignmentEpoch> {
        let consumer = self.processes[&life].consumers.get(&usize::try_from(record.at.partition).unwrap());
        consumer.map(|consumer| consumer.epoch)
    }

    pub(crate) fn not_before(&self, life: Life) -> Duration {
        self.processes[&life].not_before
    }

    pub(crate) fn is_held(&self, life: Life) -> bool {
        self.processes[&life].held
    }
}

pub(crate) fn at(partition: usize) -> TopicPartition {
    TopicPartition { topic: "events".into(), partition: i32::try_from(partition).unwrap() }
}

fn followed(receipts: Vec<(i64, Receipt)>) -> Vec<Followed> {
    let follow = |(position, receipt): (i64, Receipt)| Followed {
        position,
        delivery_id: receipt.delivery_id,
        key: KeyId::of(receipt.record.key.as_deref(), receipt.delivery_id),
        origin: receipt.offset,
        fate: receipt.fate,
        attempts: receipt.attempts,
        age: receipt.age,
        unsure_since: receipt.unsure_since,
        writer: receipt.writer,
        settled_at: receipt.settled_at,
    };
    receipts.into_iter().map(follow).collect()
}
