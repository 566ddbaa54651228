//! What happens around the machine, as its inputs: calls that end, records and rebalances, receipts, ends of transactions.

use std::sync::Arc;

use tokio::task::JoinError;

use super::call::Done;
use super::read::Told;
use super::together::Together;
use super::{Driver, tell};
use crate::deliver::machine::{Arrived, Input, TxnId};
use crate::deliver::settle::TxnAnswer;
use crate::deliver::{Error, random};
use crate::kafka::consume::{Consumer, Event, Trouble};
use crate::kafka::{Record, Transactor};

impl Driver {
    pub(super) fn pause(&mut self, paused: bool) -> Result<(), Error> {
        self.paused = paused;
        self.step(if paused { Input::Paused } else { Input::Resumed })
    }

    pub(super) fn step(&mut self, input: Input) -> Result<(), Error> {
        self.step_all([input])
    }

    fn step_all(&mut self, inputs: impl IntoIterator<Item = Input>) -> Result<(), Error> {
        self.take_all(inputs)?;
        while let Some(input) = self.at_once.pop_front() {
            self.take_all([input])?;
        }
        Ok(())
    }

    fn take_all(&mut self, inputs: impl IntoIterator<Item = Input>) -> Result<(), Error> {
        let now = self.now();
        let mut wanted = Vec::new();
        for action in self.machine.step_all(inputs, now, &mut random) {
            self.act(action, &mut wanted);
        }
        if !wanted.is_empty() {
            let started = self.readings.start(wanted);
            started.map_err(|source| Error::Reader { sink: Arc::clone(&self.names.sink), source })?;
        }
        Ok(())
    }

    pub(super) fn done(&mut self, done: &mut Vec<Done>) -> Result<(), Error> {
        let ended = done.iter().map(|Done { ended, sent, .. }| (ended, *sent));
        tell::attempts(&*self.observer, &self.names.sink, ended);
        for done in &*done {
            self.crew.rest(done);
        }
        self.step_all(done.drain(..).map(|Done { call, ended, sent, .. }| Input::CallEnded { call, ended, sent }))
    }

    pub(super) fn together(&mut self, together: Together) -> Result<(), Error> {
        let Together { batch, aside, answers, sent, events } = together;
        let classes = aside.iter().filter_map(|(_, ended)| tell::class(ended, false));
        classes.for_each(|class| self.observer.attempt(&self.names.sink, class));
        if let Some(answers) = &answers {
            self.observer.attempt(&self.names.sink, answers.class());
        }
        if sent {
            self.observer.batch(&self.names.sink, events);
        }
        self.step(Input::BatchEnded { batch, aside, answers, sent })
    }

    pub(super) fn event(&mut self, event: Option<Event>) -> Result<(), Error> {
        match event {
            Some(Event::Records(records)) => {
                let arrived = records.into_iter().map(|record| self.arrived(record)).collect();
                self.step(Input::Records(arrived))
            }
            Some(Event::Assigned { epoch, partitions }) => {
                // What the group had committed by then is looked up again, with the receipts.
                let partitions = partitions.into_iter().map(|(at, _)| at).collect();
                self.step(Input::Assigned { epoch, partitions })
            }
            Some(Event::Revoked { partitions, lost, drained }) => {
                self.ticket += 1;
                self.tickets.insert(self.ticket, drained);
                self.readings.forget(&partitions);
                for at in &partitions {
                    self.stand_still.remove(at);
                }
                self.step(Input::Revoked { ticket: self.ticket, partitions, lost })
            }
            Some(Event::Trouble(trouble)) => {
                if let Trouble::OffsetOutOfRange { at, .. } = &trouble {
                    tracing::error!(sink = &*self.names.sink, %trouble, "held: a partition stands still");
                    self.stand_still.insert(at.clone());
                } else {
                    tracing::warn!(sink = &*self.names.sink, %trouble, "the consumer met trouble");
                }
                Ok(())
            }
            Some(Event::Ended(source)) => Err(Error::Consumer { sink: Arc::clone(&self.names.sink), source }),
            None => Err(Error::Consumer { sink: Arc::clone(&self.names.sink), source: None }),
        }
    }

    fn arrived(&self, record: Record) -> Arrived {
        Arrived { delivery_id: self.routes.delivery_id(&self.names.sink, &record), record }
    }

    pub(super) fn told(&mut self, told: Told) -> Result<(), Error> {
        match told {
            Told::Inputs(inputs) => self.step_all(inputs),
            Told::Waiting { topic, wait } => {
                tracing::warn!(sink = &*self.names.sink, %topic, ?wait, "restoring: nothing is sent before this is over");
                Ok(())
            }
            Told::Failed(source) => Err(Error::Reader { sink: Arc::clone(&self.names.sink), source }),
        }
    }

    /// Takes the group's metadata for a transaction. What the poll thread has told before is heard first, so that nothing
    /// is committed for a partition whose end is known already.
    pub(super) fn take_membership(&mut self, txn: TxnId, consumer: &mut Consumer) -> Result<(), Error> {
        while let Some(event) = consumer.try_next() {
            self.event(Some(event))?;
        }
        self.member.clone_from(&self.membership.borrow_and_update());
        self.step(Input::Begun { txn, begun: self.member.is_some() })
    }

    pub(super) fn committed(&mut self, ended: Result<(Transactor, TxnId, TxnAnswer), JoinError>) -> Result<(), Error> {
        self.committing = None;
        let (transactor, txn, answer) = ended.map_err(|source| self.failed(source))?;
        self.transactor = Some(transactor);
        self.report_transactions();
        if answer == TxnAnswer::Fenced {
            tracing::error!(
                sink = &*self.names.sink,
                transactional_id = %self.transactional_id,
                "another process has this one's slot: two processes have the same `instance`"
            );
        }
        self.step(Input::TxnEnded { txn, answer })
    }
}
