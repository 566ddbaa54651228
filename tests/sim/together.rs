//! Events that share a call: what goes out, what the vendor answers, and what the process makes of it.

use std::collections::BTreeMap;
use std::time::Duration;

use hookbridge::deliver::machine::{BatchId, Batching, Bundled, CallId, Ended, Input};
use hookbridge::kafka::consume::AssignmentEpoch;
use hookbridge::outcome::{Answers, Outcome, SkipReason};
use uuid::Uuid;

use crate::chance::Chance;
use crate::kafka::Life;
use crate::vendor::{Mood, Nature, Request, Vendor};
use crate::world::{Event, Out, Process, World};

/// Every other world sends its events together.
pub(crate) fn batching(seed: u64) -> Option<Batching> {
    let mut chance = Chance::new(!seed);
    (seed % 2 == 1).then(|| Batching {
        events: 2 + chance.index(15),
        bytes: if chance.percent(20) { 40 } else { 1 << 20 },
        linger: Duration::from_millis(chance.below(300)),
    })
}

/// One event of a call.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Passenger {
    pub(crate) call: CallId,
    pub(crate) epoch: AssignmentEpoch,
    pub(crate) id: Uuid,
    pub(crate) number: u64,
}

impl World {
    pub(crate) fn call_together(&mut self, life: Life, batch: BatchId, events: &[Bundled]) {
        let Some(batching) = self.settings.batch else {
            self.wrong.push(format!("{life:?} sends events together, unasked"));
            return;
        };
        if events.is_empty()
            || events.len() > batching.events
            || (events.len() > 1 && events.len() * 8 > batching.bytes)
        {
            self.wrong.push(format!("{life:?} sends {} events at once", events.len()));
        }
        if self.is_held(life) && events.len() > 1 {
            self.wrong.push(format!("{life:?} probes with {} events", events.len()));
        }
        let mut passengers = vec![];
        for Bundled { call, delivery_id: id, record, .. } in events {
            let number = u64::from_be_bytes(record.value.clone().unwrap().try_into().unwrap());
            crate::check::call(self, life, *id, number, record, Some(batch));
            let epoch = self.epoch(life, record).unwrap_or(AssignmentEpoch(0));
            let Some(process) = self.processes.get_mut(&life) else { return };
            let whole = process.suspects.get(call).copied();
            if whole.is_some_and(|whole| events.len() > whole.div_ceil(2)) {
                self.wrong.push(format!("{life:?} sends {number} in no half of what was refused"));
            }
            let key = record.key.clone().unwrap_or_else(|| id.as_bytes().to_vec());
            let partition = usize::try_from(record.at.partition).unwrap();
            let out = Out {
                id: *id,
                key,
                partition,
                epoch,
                probe: process.held,
                batch: Some(batch),
                place: passengers.len(),
            };
            process.calls.insert(*call, out);
            passengers.push(Passenger { call: *call, epoch, id: *id, number });
        }
        self.soon(100, Event::Together(life, batch, passengers));
    }

    pub(crate) fn together(&mut self, life: Life, batch: BatchId, passengers: &[Passenger]) {
        let unwanted = |passenger: &&Passenger| self.vendor.nature(passenger.number) == Nature::Unwanted;
        let (aside, sent): (Vec<&Passenger>, Vec<&Passenger>) = passengers.iter().partition(unwanted);
        let aside = aside.iter().map(|one| (one.call, Ended::Skipped(SkipReason::NoConsent))).collect();
        let request =
            |one: &&Passenger| Request { by: (life, one.epoch), number: one.number, delivery_id: one.id, at: self.now };
        let requests: Vec<_> = sent.iter().map(request).collect();
        // Now and then a body is too large to be sent.
        let is_sent = !requests.is_empty() && (requests.len() == 1 || !self.chance.percent(3));
        let answers = if is_sent {
            let answers = self.vendor.take_together(&requests, &mut self.chance);
            self.vendor.refuse_alone(&requests, &answers);
            Some(answers)
        } else {
            (!requests.is_empty()).then(|| Answers::All(Outcome::Rejected { reason: "too large".into() }))
        };
        self.tell_apart(answers.as_ref(), &sent, life);
        let most = if self.chance.percent(5) { 9_000 } else { 300 };
        self.soon(most, Event::Input(life, Input::BatchEnded { batch, aside, answers, sent: is_sent }));
    }

    /// For the coverage, and for whoever watches how what is to blame is found.
    fn tell_apart(&mut self, answers: Option<&Answers>, sent: &[&Passenger], life: Life) {
        let (Some(answers), Some(process)) = (answers, self.processes.get_mut(&life)) else { return };
        if let ([one], Answers::All(Outcome::Rejected { .. })) = (sent, answers)
            && process.suspects.contains_key(&one.call)
        {
            self.count("found by halves");
            return;
        }
        if sent.len() < 2 {
            return;
        }
        if matches!(answers, Answers::All(Outcome::Rejected { .. })) {
            process.suspects.extend(sent.iter().map(|one| (one.call, sent.len())));
        }
        self.count(match answers {
            Answers::Each(_) => "partial answer",
            Answers::All(outcome) => match outcome {
                Outcome::Delivered => "batch delivered",
                Outcome::Throttled { .. } => "batch throttled",
                Outcome::Transient { .. } => "batch transient",
                Outcome::Rejected { .. } => "batch refused",
                Outcome::Misconfigured { .. } => "batch misconfigured",
                Outcome::Denied { .. } => "batch denied",
                Outcome::Unknown { .. } => "batch unknown",
            },
        });
    }
}

impl Process {
    pub(crate) fn has_answer(&mut self, call: CallId, ended: &Ended, now: Duration) {
        if let Some(out) = self.calls.remove(&call)
            && *ended == Ended::Delivered
            && let Some(consumer) = self.consumers.get_mut(&out.partition)
            && consumer.epoch == out.epoch
        {
            consumer.delivered.insert(out.id, now);
        }
        if let Ended::Failed(Outcome::Throttled { after: Some(after) }) = ended {
            self.not_before = self.not_before.max(now + *after);
        }
    }

    pub(crate) fn have_answers(
        &mut self,
        batch: BatchId,
        aside: &[(CallId, Ended)],
        answers: Option<&Answers>,
        now: Duration,
    ) {
        for (call, ended) in aside {
            self.has_answer(*call, ended, now);
        }
        let calls = self.calls.iter().filter(|(_, out)| out.batch == Some(batch));
        let in_order: BTreeMap<usize, CallId> = calls.map(|(call, out)| (out.place, *call)).collect();
        for (at, call) in in_order.into_values().enumerate() {
            let outcome = match answers {
                Some(Answers::All(outcome)) => outcome.clone(),
                Some(Answers::Each(outcomes)) => outcomes[at].clone(),
                None => continue,
            };
            self.has_answer(call, &outcome.into(), now);
        }
    }
}

impl Vendor {
    /// What is refused in company may be another's fault.
    fn refuse_alone(&mut self, requests: &[Request], answers: &Answers) {
        let is_refused = |outcome: &Outcome| matches!(outcome, Outcome::Rejected { .. } | Outcome::Denied { .. });
        match (answers, requests) {
            (Answers::All(outcome), [one]) if is_refused(outcome) => _ = self.refused.insert(one.delivery_id),
            (Answers::All(_), _) => {}
            (Answers::Each(outcomes), _) => {
                let refused = requests.iter().zip(outcomes).filter(|(_, outcome)| is_refused(outcome));
                self.refused.extend(refused.map(|(request, _)| request.delivery_id));
            }
        }
    }

    /// What comes back to several events.
    fn take_together(&mut self, requests: &[Request], chance: &mut Chance) -> Answers {
        self.requests.extend_from_slice(requests);
        let reason = || String::from("because");
        let natures: Vec<_> = requests.iter().map(|request| self.nature(request.number)).collect();
        let is_any = |nature| natures.contains(&nature);
        let silence = |vendor: &mut Self| {
            for request in requests {
                vendor.silent.entry(request.delivery_id).or_default().push(request.at);
            }
            Answers::All(Outcome::Unknown { reason: reason() })
        };
        match self.mood {
            Mood::Down => return Answers::All(Outcome::Transient { reason: reason() }),
            Mood::Misconfigured => return Answers::All(Outcome::Misconfigured { reason: reason() }),
            Mood::Locked => return Answers::All(Outcome::Denied { reason: reason() }),
            Mood::Flaky => match chance.below(12) {
                0 | 1 => return Answers::All(Outcome::Transient { reason: reason() }),
                2 => {
                    let after = chance.percent(70).then(|| chance.millis(5_000));
                    return Answers::All(Outcome::Throttled { after });
                }
                3 => return silence(self),
                4 if natures.iter().all(|nature| *nature == Nature::Plain) => {
                    for request in requests {
                        self.act(*request);
                    }
                    return silence(self);
                }
                _ => {}
            },
            Mood::Well => {}
        }
        if self.partial {
            let each = requests.iter().zip(&natures).map(|(request, nature)| match nature {
                Nature::Poison if !self.mended => Outcome::Transient { reason: reason() },
                Nature::Refused | Nature::Forbidden | Nature::Poison => Outcome::Rejected { reason: reason() },
                Nature::Plain if self.mood == Mood::Flaky && chance.percent(10) => {
                    Outcome::Transient { reason: reason() }
                }
                Nature::Plain | Nature::Unwanted => {
                    self.act(*request);
                    Outcome::Delivered
                }
            });
            return Answers::Each(each.collect());
        }
        if is_any(Nature::Refused) || (self.mended && (is_any(Nature::Forbidden) || is_any(Nature::Poison))) {
            return Answers::All(Outcome::Rejected { reason: reason() });
        }
        if is_any(Nature::Forbidden) {
            return Answers::All(Outcome::Denied { reason: reason() });
        }
        if is_any(Nature::Poison) {
            return Answers::All(Outcome::Transient { reason: reason() });
        }
        for request in requests {
            self.act(*request);
        }
        Answers::All(Outcome::Delivered)
    }
}
