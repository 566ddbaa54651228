//! A model of what a sink calls: it takes, refuses, asks for a pause, breaks down, or says nothing, and remembers what it
//! did under which idempotency key.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use hookbridge::deliver::machine::Ended;
use hookbridge::kafka::consume::AssignmentEpoch;
use hookbridge::outcome::{Outcome, SkipReason};
use uuid::Uuid;

use crate::chance::Chance;
use crate::kafka::Life;

/// How it fares.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mood {
    Well,
    /// Some calls fail, time out with or without their effect, or are asked to wait.
    Flaky,
    /// 5xx for all.
    Down,
    /// Its certificate has expired.
    Misconfigured,
    /// Our account is locked.
    Locked,
}

/// What an event is, whoever sends it, and whenever.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Nature {
    Plain,
    /// 400, for ever.
    Refused,
    /// 403, for ever, while others pass.
    Forbidden,
    /// 500, for ever.
    Poison,
    /// Its person did not consent: it is never sent.
    Unwanted,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Effect {
    pub(crate) at: Duration,
    pub(crate) by: (Life, AssignmentEpoch),
}

/// A call, as it came in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// The process, and under which assignment it sent this.
    pub(crate) by: (Life, AssignmentEpoch),
    pub(crate) number: u64,
    pub(crate) delivery_id: Uuid,
    pub(crate) at: Duration,
}

#[derive(Debug)]
pub(crate) struct Vendor {
    pub(crate) mood: Mood,
    seed: u64,
    /// It answers event by event to a batch; else a batch passes whole or not at all.
    pub(crate) partial: bool,
    /// How long it remembers a key; `None`: it does not.
    pub(crate) dedupes_for: Option<Duration>,
    pub(crate) effects: HashMap<Uuid, Vec<Effect>>,
    pub(crate) requests: Vec<Request>,
    /// Events and delivery ids in the order of their first effects.
    pub(crate) order: Vec<(u64, Uuid)>,
    /// A person has made it say what it means: what it failed at for ever, it refuses.
    pub(crate) mended: bool,
    /// Deliveries that it has refused by themselves.
    pub(crate) refused: HashSet<Uuid>,
    /// Requests that were answered with silence, or whose answer nobody can have got.
    pub(crate) silent: HashMap<Uuid, Vec<Duration>>,
}

impl Vendor {
    pub(crate) fn new(seed: u64, dedupes_for: Option<Duration>, partial: bool) -> Self {
        Self {
            mood: Mood::Well,
            seed,
            partial,
            dedupes_for,
            effects: HashMap::new(),
            requests: vec![],
            order: vec![],
            mended: false,
            refused: HashSet::new(),
            silent: HashMap::new(),
        }
    }

    pub(crate) fn nature(&self, number: u64) -> Nature {
        if number >= 1_000_000 {
            return Nature::Plain;
        }
        match Chance::new(self.seed ^ number.wrapping_mul(0x2545_f491_4f6c_dd1d)).below(100) {
            0..4 => Nature::Refused,
            4..7 => Nature::Forbidden,
            7..9 => Nature::Poison,
            9..13 => Nature::Unwanted,
            _ => Nature::Plain,
        }
    }

    /// What comes back, and whether the vendor has seen the call at all.
    pub(crate) fn take(&mut self, request: Request, chance: &mut Chance) -> (Ended, bool) {
        let (ended, sent) = self.answer(request, chance);
        if matches!(ended, Ended::Failed(Outcome::Rejected { .. } | Outcome::Denied { .. })) {
            self.refused.insert(request.delivery_id);
        }
        (ended, sent)
    }

    fn answer(&mut self, request: Request, chance: &mut Chance) -> (Ended, bool) {
        let nature = self.nature(request.number);
        if nature == Nature::Unwanted {
            return (Ended::Skipped(SkipReason::NoConsent), false);
        }
        self.requests.push(request);
        let reason = || String::from("because");
        let failed = |outcome| (Ended::Failed(outcome), true);
        match self.mood {
            Mood::Down => return failed(Outcome::Transient { reason: reason() }),
            Mood::Misconfigured => return failed(Outcome::Misconfigured { reason: reason() }),
            Mood::Locked => return failed(Outcome::Denied { reason: reason() }),
            Mood::Flaky => match chance.below(12) {
                0 | 1 => return failed(Outcome::Transient { reason: reason() }),
                2 => {
                    let after = chance.percent(70).then(|| chance.millis(5_000));
                    return failed(Outcome::Throttled { after });
                }
                3 => {
                    self.silent.entry(request.delivery_id).or_default().push(request.at);
                    return failed(Outcome::Unknown { reason: reason() });
                }
                4 if nature == Nature::Plain => {
                    self.silent.entry(request.delivery_id).or_default().push(request.at);
                    self.act(request);
                    return failed(Outcome::Unknown { reason: reason() });
                }
                _ => {}
            },
            Mood::Well => {}
        }
        match nature {
            Nature::Poison | Nature::Forbidden if self.mended => failed(Outcome::Rejected { reason: reason() }),
            Nature::Refused => failed(Outcome::Rejected { reason: reason() }),
            Nature::Forbidden => failed(Outcome::Denied { reason: reason() }),
            Nature::Poison => failed(Outcome::Transient { reason: reason() }),
            Nature::Plain | Nature::Unwanted => {
                self.act(request);
                (Ended::Delivered, true)
            }
        }
    }

    pub(crate) fn act(&mut self, request: Request) {
        let effects = self.effects.entry(request.delivery_id).or_default();
        let known = effects.last().zip(self.dedupes_for).is_some_and(|(last, window)| request.at < last.at + window);
        if effects.is_empty() {
            self.order.push((request.number, request.delivery_id));
        }
        if !known {
            effects.push(Effect { at: request.at, by: request.by });
        }
    }
}
