//! What a sink that is called over HTTP, or writes to Kafka, does next. Pure: one closed set of inputs in, actions out,
//! time and chance being arguments, so that `tests/sim` can drive it through any order of answers, rebalances, crashes
//! and lost commits. `drive` is who carries it out; Postgres has a flow of its own.
//!
//! ```text
//!   Assigned ─▶ Restore ─▶ Found Followed… Restored ─▶ Start ─▶ Records ─▶ window ─▶ keys ─▶ Call ─▶ CallEnded ─┐
//!                  ▲                                                   ▲         ▲                        ▼
//!                  │                                          the head moves   retry, park          outcomes wait
//!                  │                                                   │         │                        │
//!                  └─── unknown ──── TxnEnded ◀── Commit ◀── Begun ◀── Begin ◀───┴────────────────────────┘
//!                                        └─ committed: settled for good; aborted: they go into the next one
//! ```
//!
//! - Calls go out in parallel across keys and in order within a key. What became of them waits for one transaction, which
//!   holds receipts, dead letters and the offsets of every partition that it touches.
//! - An outcome survives an aborted transaction, and a restore after an unknown one: nothing that the sink has answered is
//!   sent again by the same process.
//! - `at_most_once` commits a promise before each first call. A promise without an answer is a dead letter for a person.
//! - Where the sink takes batches, records that may go out gather first, and one call carries them (`batch`).

mod answers;
mod back;
mod batch;
mod calls;
mod leave;
mod outcomes;
mod partition;
mod step;
mod transact;

use std::collections::BTreeMap;
use std::time::Duration;

use self::calls::Line;
use self::leave::Revocation;
use self::partition::Partition;
pub use self::step::{Action, Arrived, BatchId, Batching, Bundled, CallId, Ended, Input, Notice, Settings, TxnId};
use self::transact::Commits;
use super::breaker::Gate;
use super::rewound::{Rewind, Rewound};
use crate::kafka::TopicPartition;
use crate::kafka::consume::AssignmentEpoch;

/// Chance, in 0..1.
pub type Random<'a> = &'a mut dyn FnMut() -> f64;

/// One step: its time, its chance, and what comes of it.
struct Turn<'a> {
    now: Duration,
    random: Random<'a>,
    actions: Vec<Action>,
}

impl Turn<'_> {
    fn chance(&mut self) -> f64 {
        (self.random)()
    }

    fn act(&mut self, action: Action) {
        self.actions.push(action);
    }
}

/// A sink's state. Times are since the epoch, from a clock that does not go back while the process lives.
#[derive(Debug)]
pub struct Machine {
    line: Line,
    partitions: BTreeMap<TopicPartition, Partition>,
    commits: Commits,
    revocations: Vec<Revocation>,
    /// What operators want read again.
    rewinds: BTreeMap<TopicPartition, Rewind>,
    /// Some of it may not be carried out yet.
    look_back: bool,
    /// Numbers of restores, so that what belongs to an earlier one is told apart.
    restores: u64,
    stop_by: Option<Duration>,
    finished: bool,
    now: Duration,
}

impl Machine {
    /// `number` is drawn at random: no two machines of a sink share it.
    #[must_use]
    pub fn new(settings: Settings, number: u64) -> Self {
        Self {
            line: Line::new(settings, number),
            partitions: BTreeMap::new(),
            commits: Commits::default(),
            revocations: Vec::new(),
            rewinds: BTreeMap::new(),
            look_back: false,
            restores: 0,
            stop_by: None,
            finished: false,
            now: Duration::ZERO,
        }
    }

    /// Takes what happened and says what to do.
    pub fn step(&mut self, input: Input, now: Duration, random: Random<'_>) -> Vec<Action> {
        self.step_all([input], now, random)
    }

    /// The same for what happened at once. Looking at all that may be possible now costs more than most inputs do by
    /// themselves, and is done once.
    pub fn step_all(
        &mut self,
        inputs: impl IntoIterator<Item = Input>,
        now: Duration,
        random: Random<'_>,
    ) -> Vec<Action> {
        let mut turn = Turn { now, random, actions: Vec::new() };
        self.now = now;
        for input in inputs {
            self.take(input, &mut turn);
        }
        self.proceed(&mut turn);
        turn.actions
    }

    fn take(&mut self, input: Input, turn: &mut Turn<'_>) {
        let now = turn.now;
        match input {
            Input::Assigned { epoch, partitions } => self.assigned(epoch, partitions, turn),
            Input::Followed { at, epoch, restore, receipts, position } => {
                let active = self.line.clock.read(now);
                if let Some(partition) = self.current(&at, epoch, restore) {
                    partition.follow(&receipts, position, now, active);
                }
            }
            Input::Found { at, epoch, restore, next, rewound } => {
                // Nothing is settled, or a person has moved the offset by other means: there is nothing to go back from.
                let over = Rewound::over(self.rewinds.get(&at).map_or(0, |order| order.number));
                let rewound = rewound.filter(|_| next.is_some()).unwrap_or(over);
                if let Some(partition) = self.current(&at, epoch, restore).filter(|partition| !partition.restored) {
                    partition.found(next, rewound);
                }
            }
            Input::Restored { at, epoch, restore } => {
                self.look_back = true;
                if let Some(partition) = self.current(&at, epoch, restore).filter(|partition| !partition.restored) {
                    let next = partition.restored(now);
                    turn.act(Action::Start { at, epoch, next });
                }
            }
            Input::Records(records) => {
                for arrived in records {
                    // A partition that was let go: its next owner reads the record.
                    if let Some(partition) = self.partitions.get_mut(&arrived.record.at) {
                        partition.arrive(arrived, &self.line.settings);
                    }
                }
            }
            Input::Fetched { call, record } => {
                self.line.fetched(&mut self.partitions, call, record, turn);
            }
            Input::Gone { call } => self.line.gone(&mut self.partitions, call, turn),
            Input::CallEnded { call, ended, sent } => {
                self.line.ended(&mut self.partitions, call, ended, sent, turn);
            }
            Input::BatchEnded { batch, aside, answers, sent } => {
                self.line.batch_ended(&mut self.partitions, batch, aside, answers, sent, turn);
            }
            Input::Begun { txn, begun } => self.begun(txn, begun, turn),
            Input::TxnEnded { txn, answer } => self.txn_ended(txn, answer, turn),
            Input::Revoked { ticket, partitions, lost } => self.revoked(ticket, partitions, lost, turn),
            Input::Rewinds(rewinds) => (self.rewinds, self.look_back) = (rewinds, true),
            Input::Paused => self.line.paused = true,
            Input::Resumed => self.line.paused = false,
            Input::Tick => {}
            Input::Stop => self.stop(now),
        }
    }

    /// When [`Input::Tick`] is wanted next.
    #[must_use]
    pub fn due(&self) -> Option<Duration> {
        if self.finished {
            return None;
        }
        let deadlines = self.revocations.iter().map(|revocation| revocation.deadline).chain(self.stop_by);
        let commit = self.next_commit();
        let (calls, batch) = if self.line.paused || self.stop_by.is_some() {
            (None, None)
        } else {
            (self.next_call(), self.line.batch_due(self.now))
        };
        deadlines.chain(commit).chain(calls).chain(batch).min()
    }

    /// Records in the fullest window, for the gauge of that name.
    #[must_use]
    pub fn deepest(&self) -> usize {
        self.partitions.values().map(|partition| partition.window.len()).max().unwrap_or_default()
    }

    /// Keys that wait outside the window.
    #[must_use]
    pub fn parked_keys(&self) -> usize {
        self.partitions.values().map(|partition| partition.keys.parked_count()).sum()
    }

    /// Settled records that may come again, of the partition that remembers most of them.
    #[must_use]
    pub fn most_remembered(&self) -> usize {
        self.partitions.values().map(|partition| partition.seen.beyond()).max().unwrap_or_default()
    }

    /// Partitions whose receipts are being read: nothing is sent for them.
    #[must_use]
    pub fn restoring(&self) -> usize {
        self.partitions.values().filter(|partition| !partition.restored).count()
    }

    /// Nothing passes: the sink is probed, and nothing is a dead letter.
    #[must_use]
    pub fn is_held(&self) -> bool {
        self.line.breaker.is_open()
    }

    /// Some key waits for its next attempt.
    #[must_use]
    pub fn is_retrying(&self) -> bool {
        self.partitions.values().any(|partition| partition.keys.due().is_some())
    }

    /// When a call may go out by the mere passing of time.
    fn next_call(&self) -> Option<Duration> {
        let mut sending = self.partitions.values().filter(|partition| partition.may_send());
        let paced = self.line.start_due(self.now);
        if self.line.breaker.is_open() {
            let waits = sending.any(|partition| partition.keys.has_ready() || partition.keys.due().is_some());
            return self.line.breaker.due().zip(paced).filter(|_| waits).map(|(probe, paced)| probe.max(paced));
        }
        let mut due: Option<Duration> = None;
        let mut ready = false;
        for partition in sending {
            ready = ready || (paced.is_some() && partition.keys.has_ready());
            due = due.into_iter().chain(partition.keys.due()).min();
        }
        due.into_iter().chain(paced.filter(|_| ready)).min()
    }

    fn assigned(&mut self, epoch: AssignmentEpoch, partitions: Vec<TopicPartition>, turn: &mut Turn<'_>) {
        if self.stop_by.is_some() {
            // Whoever is next in the group gets them in a moment.
            return;
        }
        for at in partitions {
            self.restores += 1;
            let restore = self.restores;
            if let Some(mut before) = self.partitions.remove(&at) {
                self.line.forget(&at, &mut before);
            }
            self.partitions.insert(at.clone(), Partition::new(epoch, restore, &self.line.settings));
            let since = self.now.saturating_sub(self.line.settings.dedupe_window);
            turn.act(Action::Restore { at, epoch, restore, since });
        }
    }

    fn current(&mut self, at: &TopicPartition, epoch: AssignmentEpoch, restore: u64) -> Option<&mut Partition> {
        self.partitions.get_mut(at).filter(|partition| partition.epoch == epoch && partition.restore == restore)
    }

    /// Whatever has become possible or due.
    fn proceed(&mut self, turn: &mut Turn<'_>) {
        if self.finished {
            return;
        }
        self.look_back(turn);
        self.read_on(turn);
        if self.stop_by.is_none() && !self.line.paused {
            self.send(turn);
            // Room for more, where a batch went.
            while self.line.depart(&mut self.partitions, turn) {
                self.send(turn);
            }
        }
        self.line.clock.stand(self.line.paused || self.line.breaker.is_open(), turn.now);
        self.hold_records(turn);
        self.begin(turn);
        self.finish_revocations(turn);
        self.finish(turn);
    }

    /// Sends what may be sent, each partition in its turn.
    fn send(&mut self, turn: &mut Turn<'_>) {
        let Self { line, partitions, .. } = self;
        let waiting = |partition: &Partition| partition.may_send() && partition.keys.due().is_some();
        for (at, partition) in partitions.iter_mut().filter(|(_, partition)| waiting(partition)) {
            partition.keys.wake(turn.now);
            line.unblock(at, partition, turn);
        }
        // Mostly all calls are out: then there is nothing to look for.
        let gate = line.breaker.gate(turn.now);
        if gate == Gate::Shut || line.start_due(turn.now).is_none() {
            return;
        }
        let mut sending: Vec<_> = partitions
            .iter_mut()
            .filter(|(_, partition)| partition.may_send() && (partition.keys.may_be_ready() || gate == Gate::Probe))
            .collect();
        if sending.is_empty() {
            return;
        }
        line.turn = line.turn.wrapping_add(1);
        let first = line.turn % sending.len();
        sending.rotate_left(first);
        let mut progress = true;
        while progress {
            progress = false;
            for (at, partition) in &mut sending {
                progress |= line.send_one(at, partition, turn);
            }
        }
    }

    /// Pauses partitions whose window is full, and resumes those with room. Of one that is closing, or has read as far as it
    /// knows what was settled, all that comes is read again: by its next owner, or once its receipts were.
    fn hold_records(&mut self, turn: &mut Turn<'_>) {
        for (at, partition) in self.partitions.iter_mut().filter(|(_, partition)| partition.restored) {
            let held = self.line.paused || partition.is_closing() || partition.at_horizon;
            let full = held || partition.window.is_full();
            let room = !held && partition.window.has_room();
            if full && !partition.paused {
                partition.paused = true;
                turn.act(Action::Pause(at.clone()));
            } else if room && partition.paused {
                partition.paused = false;
                turn.act(Action::Resume(at.clone()));
            }
        }
    }
}

#[cfg(test)]
mod tests;
