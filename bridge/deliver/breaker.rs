//! Is it the event, or is it the sink? Several keys that fail in a row are the sink: then it is held, and nothing is a
//! dead letter. A held sink is probed, one call at a time, until it answers.

use std::collections::BTreeMap;
use std::time::Duration;

use super::keys::KeyId;
use super::retry;
use crate::outcome::Outcome;

/// Keys that began to fail since the last delivery: one bad event is one key, two may be chance. A key that fails on while
/// others pass says nothing of the sink, however often it is tried.
const SEVERAL: usize = 3;

/// The same for 401 and 403, which are of an account far more often than of an event.
const SEVERAL_DENIED: usize = 2;

/// Keys whose first failure is remembered. Past it, starting anew only delays a dead letter or holds the sink for a probe.
const MAX_FAILING: usize = 1_000;

/// What a failure says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// Try this key again later.
    Wait,
    /// Other keys pass: it is this event.
    EventsFault,
    /// It is the sink, which is held from now on.
    Opened,
}

/// Whether a call may go out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Gate {
    Free,
    /// One, to see whether the sink answers.
    Probe,
    Shut,
}

#[derive(Debug, Default)]
pub(super) struct Breaker {
    open: Option<Open>,
    /// Keys that fail, with how often the sink had shown itself well when they began to.
    failing: BTreeMap<KeyId, u64>,
    well: u64,
    /// Keys that were denied, with the number of deliveries by then.
    denied: BTreeMap<KeyId, u64>,
    deliveries: u64,
}

#[derive(Debug)]
struct Open {
    probe_at: Duration,
    probing: bool,
    failures: u32,
}

impl Breaker {
    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn gate(&self, now: Duration) -> Gate {
        match &self.open {
            None => Gate::Free,
            Some(open) if !open.probing && open.probe_at <= now => Gate::Probe,
            Some(_) => Gate::Shut,
        }
    }

    pub(super) fn due(&self) -> Option<Duration> {
        self.open.as_ref().filter(|open| !open.probing).map(|open| open.probe_at)
    }

    /// A probe is on its way.
    pub(super) fn probing(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = true;
        }
    }

    /// The probe came to nothing: its partition went away, or the event was not for the sink at all.
    pub(super) fn probe_again(&mut self) {
        if let Some(open) = &mut self.open {
            open.probing = false;
        }
    }

    /// There is nothing to probe with until then.
    pub(super) fn postpone(&mut self, until: Duration) {
        if let Some(open) = &mut self.open {
            open.probe_at = open.probe_at.max(until);
        }
    }

    /// The sink took an event.
    pub(super) fn delivered(&mut self, key: KeyId) {
        self.deliveries += 1;
        self.well += 1;
        self.forget(key);
    }

    /// The key's record has come to its end.
    pub(super) fn forget(&mut self, key: KeyId) {
        self.denied.remove(&key);
        self.failing.remove(&key);
    }

    /// The sink answers, whatever it says of this event. `true`: it was held until now.
    pub(super) fn answered(&mut self) -> bool {
        let was_held = self.open.take().is_some();
        self.well += u64::from(was_held);
        was_held
    }

    /// A call failed in a way that may be the sink's. `probe`: it was sent to find out.
    pub(super) fn failed(&mut self, key: KeyId, outcome: &Outcome, probe: bool, now: Duration, random: f64) -> Verdict {
        if let Some(open) = &mut self.open {
            if probe {
                open.failures = open.failures.saturating_add(1);
                open.probing = false;
                open.probe_at = now + retry::pause(outcome, open.failures, random);
            }
            return Verdict::Wait;
        }
        // How many keys began to since then.
        let began = |keys: &mut BTreeMap<KeyId, u64>, since: u64| {
            if keys.len() >= MAX_FAILING {
                keys.clear();
            }
            keys.entry(key).or_insert(since);
            keys.values().filter(|then| **then == since).count()
        };
        let failing = began(&mut self.failing, self.well);
        let opens = match outcome {
            Outcome::Misconfigured { .. } => true,
            Outcome::Denied { .. } => {
                if self.denied.get(&key).is_some_and(|then| *then < self.deliveries) {
                    self.denied.remove(&key);
                    return Verdict::EventsFault;
                }
                began(&mut self.denied, self.deliveries) >= SEVERAL_DENIED
            }
            _ => failing >= SEVERAL,
        };
        if !opens {
            return Verdict::Wait;
        }
        self.open = Some(Open { probe_at: now + retry::pause(outcome, 1, random), probing: false, failures: 1 });
        Verdict::Opened
    }
}

/// Time as it counts for an event's age: it stands still while the sink is held or paused, for then nobody tries.
#[derive(Debug, Default)]
pub(super) struct ActiveClock {
    stood: Duration,
    since: Option<Duration>,
}

impl ActiveClock {
    pub(super) fn stand(&mut self, still: bool, now: Duration) {
        match (still, self.since) {
            (true, None) => self.since = Some(now),
            (false, Some(since)) => {
                self.stood += now.saturating_sub(since);
                self.since = None;
            }
            _ => {}
        }
    }

    pub(super) fn read(&self, now: Duration) -> Duration {
        self.since.unwrap_or(now).saturating_sub(self.stood)
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn key(number: u128) -> KeyId {
        KeyId::of(None, Uuid::from_u128(number))
    }

    fn transient() -> Outcome {
        Outcome::Transient { reason: String::new() }
    }

    fn denied() -> Outcome {
        Outcome::Denied { reason: String::new() }
    }

    fn fail(breaker: &mut Breaker, number: u128, outcome: &Outcome) -> Verdict {
        breaker.failed(key(number), outcome, false, Duration::ZERO, 1.0)
    }

    #[test]
    fn one_failing_key_never_holds_the_sink() {
        let mut breaker = Breaker::default();
        for _ in 0..100 {
            assert_eq!(fail(&mut breaker, 1, &transient()), Verdict::Wait);
            assert_eq!(fail(&mut breaker, 2, &transient()), Verdict::Wait);
        }
    }

    #[test]
    fn several_keys_in_a_row_do_and_a_delivery_between_them_prevents_it() {
        let mut breaker = Breaker::default();
        fail(&mut breaker, 1, &transient());
        fail(&mut breaker, 2, &transient());
        breaker.delivered(key(9));
        assert_eq!(fail(&mut breaker, 3, &transient()), Verdict::Wait);
        fail(&mut breaker, 4, &transient());
        assert_eq!(fail(&mut breaker, 5, &transient()), Verdict::Opened);
    }

    #[test]
    fn keys_that_fail_while_others_pass_never_hold_the_sink() {
        let mut breaker = Breaker::default();
        for number in 1..=10 {
            assert_eq!(fail(&mut breaker, number, &transient()), Verdict::Wait);
            breaker.delivered(key(99));
        }
        for number in 1..=10 {
            assert_eq!(fail(&mut breaker, number, &transient()), Verdict::Wait);
        }
    }

    #[test]
    fn a_denial_is_the_events_fault_only_once_others_passed_after_it() {
        let mut breaker = Breaker::default();
        breaker.delivered(key(9));
        assert_eq!(fail(&mut breaker, 1, &denied()), Verdict::Wait);
        assert_eq!(fail(&mut breaker, 1, &denied()), Verdict::Wait);
        breaker.delivered(key(9));
        assert_eq!(fail(&mut breaker, 1, &denied()), Verdict::EventsFault);
    }

    #[test]
    fn two_keys_denied_hold_the_sink_and_so_does_one_failure_of_names_or_certificates() {
        let mut breaker = Breaker::default();
        assert_eq!(fail(&mut breaker, 1, &denied()), Verdict::Wait);
        assert_eq!(fail(&mut breaker, 2, &denied()), Verdict::Opened);
        let mut breaker = Breaker::default();
        assert_eq!(fail(&mut breaker, 1, &Outcome::Misconfigured { reason: String::new() }), Verdict::Opened);
    }

    #[test]
    fn a_held_sink_is_probed_by_one_call_and_ever_more_rarely() {
        let mut breaker = Breaker::default();
        fail(&mut breaker, 1, &Outcome::Misconfigured { reason: String::new() });
        let mut waits = vec![];
        let mut now = Duration::ZERO;
        for _ in 0..4 {
            let due = breaker.due().unwrap();
            waits.push(due.saturating_sub(now).as_secs());
            now = due;
            assert_eq!(breaker.gate(now), Gate::Probe);
            breaker.probing();
            assert_eq!(breaker.gate(now), Gate::Shut);
            breaker.failed(key(1), &Outcome::Misconfigured { reason: String::new() }, true, now, 1.0);
        }
        assert_eq!(waits, [1, 2, 4, 8]);
        assert!(breaker.answered() && !breaker.answered());
        assert_eq!(breaker.gate(now), Gate::Free);
    }

    #[test]
    fn the_clock_of_age_stands_still_while_the_sink_is_held() {
        let mut clock = ActiveClock::default();
        let at = Duration::from_secs;
        assert_eq!(clock.read(at(10)), at(10));
        clock.stand(true, at(10));
        clock.stand(true, at(15));
        assert_eq!(clock.read(at(100)), at(10));
        clock.stand(false, at(100));
        assert_eq!(clock.read(at(105)), at(15));
    }
}
