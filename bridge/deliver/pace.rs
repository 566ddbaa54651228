//! How fast a sink may be called: calls out at once, a token bucket, and the pause that the sink has asked for.

use std::time::Duration;

use crate::config::units::Rate;

/// A sink that asks for longer is asked again after an hour: its `Retry-After` may be a mistake, and must not stop us
/// until somebody notices.
const LONGEST_ASKED: Duration = Duration::from_secs(3_600);

/// What may be sent at once is a tenth of a period's calls: a full bucket would let twice the limit through in the first
/// period, and a bucket of one token would wake us up for every call.
const BURST: f64 = 0.1;

/// The sink's pace, over all partitions of this process.
#[derive(Debug)]
pub(super) struct Pace {
    concurrency: usize,
    out: usize,
    bucket: Option<Bucket>,
    /// Before this no call goes out: what `Retry-After` asked for.
    not_before: Duration,
}

#[derive(Debug)]
struct Bucket {
    tokens: f64,
    capacity: f64,
    per_second: f64,
    filled_at: Duration,
}

impl Pace {
    pub(super) fn new(concurrency: usize, rate: Option<Rate>) -> Self {
        let bucket = rate.map(|rate| {
            let capacity = (f64::from(rate.count.get()) * BURST).max(1.0);
            let per_second = f64::from(rate.count.get()) / rate.per.as_secs_f64().max(0.001);
            Bucket { tokens: capacity, capacity, per_second, filled_at: Duration::ZERO }
        });
        Self { concurrency: concurrency.max(1), out: 0, bucket, not_before: Duration::ZERO }
    }

    /// Takes the right to one call, if there is one now.
    pub(super) fn take(&mut self, now: Duration) -> bool {
        if self.out >= self.concurrency || now < self.not_before {
            return false;
        }
        if let Some(bucket) = &mut self.bucket {
            bucket.fill(now);
            if bucket.tokens < 1.0 {
                return false;
            }
            bucket.tokens -= 1.0;
        }
        self.out += 1;
        true
    }

    /// A call has ended. `sent`: the sink has seen it; what was filtered out costs the sink nothing.
    pub(super) fn give_back(&mut self, sent: bool) {
        self.out = self.out.saturating_sub(1);
        if let Some(bucket) = self.bucket.as_mut().filter(|_| !sent) {
            bucket.tokens = (bucket.tokens + 1.0).min(bucket.capacity);
        }
    }

    /// The sink asked for a pause. It is never asked sooner.
    pub(super) fn hold(&mut self, now: Duration, after: Duration) {
        self.not_before = self.not_before.max(now + after.min(LONGEST_ASKED));
    }

    /// When the sink's own pause is over.
    pub(super) fn not_before(&self) -> Duration {
        self.not_before
    }

    /// When a call may go out by the mere passing of time; `None`: one has to end first.
    pub(super) fn due(&self, now: Duration) -> Option<Duration> {
        if self.out >= self.concurrency {
            return None;
        }
        let token = self.bucket.as_ref().map_or(now, |bucket| bucket.due(now));
        Some(token.max(self.not_before))
    }
}

impl Bucket {
    fn fill(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.filled_at).as_secs_f64();
        self.tokens = (self.tokens + passed * self.per_second).min(self.capacity);
        self.filled_at = now;
    }

    fn due(&self, now: Duration) -> Duration {
        // A microsecond more than computed, so that rounding does not wake us up for nothing.
        let missing = (1.0 - self.tokens).max(0.0) / self.per_second;
        now.max(self.filled_at + Duration::from_secs_f64(missing) + Duration::from_micros(1))
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    fn rate(count: u32, seconds: u64) -> Rate {
        Rate { count: NonZeroU32::new(count).unwrap(), per: Duration::from_secs(seconds) }
    }

    #[test]
    fn no_more_calls_are_out_than_the_sink_takes_at_once() {
        let mut pace = Pace::new(2, None);
        assert!(pace.take(Duration::ZERO) && pace.take(Duration::ZERO) && !pace.take(Duration::ZERO));
        assert_eq!(pace.due(Duration::ZERO), None);
        pace.give_back(true);
        assert!(pace.take(Duration::ZERO));
    }

    #[test]
    fn over_any_stretch_of_time_the_rate_holds_but_for_the_burst() {
        let mut pace = Pace::new(1_000, Some(rate(200, 1)));
        let mut sent = 0;
        for millisecond in 0..10_000 {
            while pace.take(Duration::from_millis(millisecond)) {
                sent += 1;
                pace.give_back(true);
            }
        }
        assert!((2_000..=2_021).contains(&sent), "{sent}");
    }

    #[test]
    fn the_next_token_is_waited_for_and_then_there() {
        let mut pace = Pace::new(10, Some(rate(10, 300)));
        assert!(pace.take(Duration::ZERO) && !pace.take(Duration::ZERO));
        let due = pace.due(Duration::ZERO).unwrap();
        assert!(due > Duration::from_secs(29) && due < Duration::from_secs(31), "{due:?}");
        assert!(pace.take(due));
    }

    #[test]
    fn what_was_not_sent_costs_no_token() {
        let mut pace = Pace::new(10, Some(rate(10, 300)));
        for _ in 0..5 {
            assert!(pace.take(Duration::ZERO));
            pace.give_back(false);
        }
    }

    #[test]
    fn the_sink_is_never_asked_sooner_than_it_said_nor_forgotten() {
        let mut pace = Pace::new(10, None);
        pace.hold(Duration::ZERO, Duration::from_secs(20));
        pace.hold(Duration::ZERO, Duration::from_secs(5));
        assert!(!pace.take(Duration::from_secs(19)) && pace.take(Duration::from_secs(20)));
        pace.hold(Duration::ZERO, Duration::MAX);
        assert!(pace.take(LONGEST_ASKED));
    }
}
