//! Whether a producer may be used again: not while a request of its last transaction may still be under way. Pure.
//!
//! librdkafka knows no transactions v2 (KIP-890) and sends EndTxn again by itself where an answer does not come. What
//! was sent first may then end the next transaction of the same producer epoch. Only a new producer, whose
//! `init_transactions` raises the epoch, keeps it out.

use std::borrow::Cow;
use std::collections::{BTreeMap, HashMap};
use std::time::Duration;

use serde::Deserialize;

/// librdkafka sends nothing again before its retry backoff less a fifth (its jitter), 80 ms of the 100 that we set. A
/// transaction that took less was answered at the first attempt, each of its requests.
pub(super) const QUICK: Duration = Duration::from_millis(80);

/// How one transaction went, for the question whether anything of it may come late.
#[derive(Debug, Clone, Copy)]
pub(super) struct Course {
    pub(super) took: Duration,
    /// The longest of its calls, and the bound that each has.
    pub(super) longest: Duration,
    pub(super) bound: Duration,
    /// librdkafka has reported a lost connection or a time-out meanwhile.
    pub(super) troubled: bool,
}

/// What to do with the producer before it begins another transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    Keep,
    /// Only the connections' counters can say; they have to be newer than the transaction.
    Look,
    Replace(Reason),
}

/// Why a producer is replaced.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reason {
    /// A call took as long as its bound, or longer.
    Slow,
    /// A connection was lost, or a request got no answer.
    Unanswered,
    /// The connections' counters did not come.
    Unseen,
    /// A transaction failed, and what of it was sent is not known.
    Failed,
}

impl Reason {
    /// A bounded name, for metrics and logs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Slow => "slow",
            Self::Unanswered => "unanswered",
            Self::Unseen => "unseen",
            Self::Failed => "failed",
        }
    }
}

pub(super) fn judge(course: Course) -> Verdict {
    if course.longest >= course.bound {
        Verdict::Replace(Reason::Slow)
    } else if course.troubled {
        Verdict::Replace(Reason::Unanswered)
    } else if course.took < QUICK {
        Verdict::Keep
    } else {
        Verdict::Look
    }
}

/// After a look: `after` is newer than the transaction, `before` older; `None` where there is none.
pub(super) fn compare(before: Option<&Tally>, after: Option<&Tally>) -> Verdict {
    match (before, after) {
        (Some(before), Some(after)) if after.is_worse_than(before) => Verdict::Replace(Reason::Unanswered),
        (Some(_), Some(_)) => Verdict::Keep,
        _ => Verdict::Replace(Reason::Unseen),
    }
}

/// Of each connection, how often a request may have been left without an answer: time-outs, failed sends and receives,
/// disconnects, answers to nothing (STATISTICS.md, "brokers"). `txretries` is left out on purpose: a request is also
/// sent again after an answer (CONCURRENT_TRANSACTIONS between two transactions is one), and one that had none is in
/// the others.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Tally(BTreeMap<String, i64>);

#[derive(Deserialize)]
struct Statistics<'a> {
    #[serde(borrow)]
    brokers: HashMap<Cow<'a, str>, Broker>,
}

#[derive(Deserialize)]
struct Broker {
    txerrs: i64,
    rxerrs: i64,
    rxcorriderrs: i64,
    req_timeouts: i64,
    disconnects: i64,
}

impl Tally {
    /// From librdkafka's statistics; `None` where they cannot be read.
    pub(super) fn read(json: &[u8]) -> Option<Self> {
        let statistics: Statistics<'_> = serde_json::from_slice(json).ok()?;
        let sum = |one: &Broker| one.txerrs + one.rxerrs + one.rxcorriderrs + one.req_timeouts + one.disconnects;
        Some(Self(statistics.brokers.iter().map(|(name, one)| (name.as_ref().to_owned(), sum(one))).collect()))
    }

    /// A connection that is new counts from nothing; one that is gone is seen by the others' failures.
    fn is_worse_than(&self, before: &Self) -> bool {
        self.0.iter().any(|(name, count)| *count > before.0.get(name).copied().unwrap_or(0))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BOUND: Duration = Duration::from_secs(8);

    fn course(took_ms: u64, longest_ms: u64, troubled: bool) -> Course {
        let (took, longest) = (Duration::from_millis(took_ms), Duration::from_millis(longest_ms));
        Course { took, longest, bound: BOUND, troubled }
    }

    fn tally(counts: &[(&str, i64)]) -> Tally {
        Tally(counts.iter().map(|(name, count)| ((*name).to_owned(), *count)).collect())
    }

    #[test]
    fn a_quick_transaction_left_nothing_behind() {
        assert_eq!(judge(course(79, 60, false)), Verdict::Keep);
        assert_eq!(judge(course(80, 60, false)), Verdict::Look, "there was time for a second attempt");
    }

    #[test]
    fn a_trouble_or_a_call_past_its_bound_ends_the_producer() {
        assert_eq!(judge(course(20, 10, true)), Verdict::Replace(Reason::Unanswered));
        assert_eq!(judge(course(8_100, 8_000, false)), Verdict::Replace(Reason::Slow));
    }

    #[test]
    fn counters_that_rose_end_it_and_so_do_counters_that_nobody_saw() {
        let before = tally(&[("a", 1), ("b", 0)]);
        assert_eq!(compare(Some(&before), Some(&tally(&[("a", 1), ("b", 0)]))), Verdict::Keep);
        assert_eq!(compare(Some(&before), Some(&tally(&[("a", 1)]))), Verdict::Keep, "a broker was taken off the list");
        assert_eq!(compare(Some(&before), Some(&tally(&[("a", 2)]))), Verdict::Replace(Reason::Unanswered));
        assert_eq!(compare(Some(&before), Some(&tally(&[("c", 1)]))), Verdict::Replace(Reason::Unanswered));
        assert_eq!(compare(None, Some(&before)), Verdict::Replace(Reason::Unseen));
        assert_eq!(compare(Some(&before), None), Verdict::Replace(Reason::Unseen));
    }

    #[test]
    fn the_counters_are_read_out_of_librdkafkas_statistics() {
        let json = br#"{"name":"x","brokers":{"127.0.0.1:9092/1":{"name":"127.0.0.1:9092/1","txerrs":1,"txretries":9,
            "req_timeouts":2,"rxerrs":4,"rxcorriderrs":8,"disconnects":16,"req":{"EndTxn":1}}},"topics":{}}"#;
        assert_eq!(Tally::read(json), Some(tally(&[("127.0.0.1:9092/1", 31)])));
        assert_eq!(Tally::read(b"{}"), None);
    }
}
