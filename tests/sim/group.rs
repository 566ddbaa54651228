//! Processes that come and go, and the group's coordinator, which learns of it late.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::time::Duration;

use hookbridge::deliver::machine::{Input, Machine};
use hookbridge::kafka::TopicPartition;
use hookbridge::kafka::consume::AssignmentEpoch;

use crate::chance::Chance;
use crate::kafka::Life;
use crate::world::{Consumer, Event, Process, SESSION, TXN_TIMEOUT, World, at};

impl World {
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
            told: BTreeMap::new(),
            begun: HashMap::new(),
            commits: HashMap::new(),
            calls: BTreeMap::new(),
            suspects: BTreeMap::new(),
            not_before: Duration::ZERO,
            wake_at: None,
            held: false,
            polls: false,
        };
        self.processes.insert(life, process);
        self.input(life, Input::Rewinds(self.rewinds.clone()));
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

    pub(crate) fn thaw(&mut self, life: Life) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        process.frozen = false;
        for event in std::mem::take(&mut process.held_back) {
            self.after(Duration::ZERO, event);
        }
    }

    pub(crate) fn rejoin(&mut self, life: Life) {
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
        self.after(late, Event::Lost(life, ticket, partitions));
    }

    /// The member learns that it is out, and is in again before it has told its machine.
    pub(crate) fn lost(&mut self, life: Life, ticket: u64, partitions: Vec<TopicPartition>) {
        let Some(process) = self.processes.get_mut(&life) else { return };
        for partition in &partitions {
            process.consumers.remove(&usize::try_from(partition.partition).unwrap());
        }
        self.tell(life, Input::Revoked { ticket, partitions, lost: true });
        self.rejoin(life);
    }

    pub(crate) fn tell(&mut self, life: Life, input: Input) {
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

    pub(crate) fn kick_quietly(&mut self, life: Life) {
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
        self.after(late, Event::Lost(life, ticket, partitions));
    }

    pub(crate) fn assign(&mut self, life: Life, partitions: Vec<usize>) {
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
                delivered: HashMap::new(),
            };
            process.consumers.insert(*partition, consumer);
        }
        self.tell(life, Input::Assigned { epoch, partitions: partitions.into_iter().map(at).collect() });
    }

    pub(crate) fn release(&mut self, life: Life, ticket: u64) {
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
}
