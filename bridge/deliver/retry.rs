//! How long to wait before the next attempt: exponential, jittered, bounded. The random number is an argument.

use std::time::Duration;

use crate::outcome::Outcome;

/// The first pause, and the longest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Bounds {
    first: Duration,
    longest: Duration,
}

/// A restart or a failover takes seconds; after half a minute of trying, a probe twice a minute finds the end of an
/// outage soon enough and costs the sink nothing.
const OUTAGE: Bounds = Bounds { first: Duration::from_millis(200), longest: Duration::from_secs(30) };

/// Only a person mends it: the first repeats catch what mends itself all the same, later ones only have to find the
/// mending within a minute.
const PERSON: Bounds = Bounds { first: Duration::from_secs(1), longest: Duration::from_secs(60) };

/// A parked key waits for as long as it has been failing, within these: twice a minute at first, and in the end six times an
/// hour, which finds the end of anything that a person has to mend. Each attempt costs a receipt.
const PARKED: Bounds = Bounds { first: Duration::from_secs(30), longest: Duration::from_secs(600) };

/// A sink that asks for longer is asked again after an hour: its `Retry-After` may be a mistake, and must not stop us
/// until somebody notices.
const LONGEST_ASKED: Duration = Duration::from_secs(3_600);

/// How long to wait after the `failures`-th failure in a row (1 is the first). `random` is in 0..1.
///
/// Half of the pause is certain and half is drawn, so that partitions that failed together do not come back together.
pub(super) fn pause(outcome: &Outcome, failures: u32, random: f64) -> Duration {
    let bounds = match outcome {
        Outcome::Rejected { .. } | Outcome::Misconfigured { .. } | Outcome::Denied { .. } => PERSON,
        Outcome::Delivered | Outcome::Throttled { .. } | Outcome::Transient { .. } | Outcome::Unknown { .. } => OUTAGE,
    };
    let jittered = bounds.jittered(failures, random);
    match outcome {
        // Never sooner than asked.
        Outcome::Throttled { after: Some(asked) } => jittered.max((*asked).min(LONGEST_ASKED)),
        _ => jittered,
    }
}

/// How long a parked record waits that has been failing for `age`, and not at all where no attempt was made yet.
pub(super) fn parked_pause(attempts: u32, age: Duration, random: f64) -> Duration {
    if attempts == 0 { Duration::ZERO } else { jittered(age.clamp(PARKED.first, PARKED.longest), random) }
}

fn jittered(pause: Duration, random: f64) -> Duration {
    pause.mul_f64(0.5 + random.clamp(0.0, 1.0) / 2.0)
}

impl Bounds {
    fn jittered(self, failures: u32, random: f64) -> Duration {
        // Beyond 2^16 every bound is passed; the shift must not overflow.
        let doubled = self.first.saturating_mul(1 << failures.saturating_sub(1).min(16)).min(self.longest);
        jittered(doubled, random)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn transient() -> Outcome {
        Outcome::Transient { reason: String::new() }
    }

    #[test]
    fn pauses_double_up_to_their_bound() {
        for (failures, expected) in [(1, 200), (2, 400), (3, 800), (8, 25_600), (9, 30_000), (1_000, 30_000)] {
            assert_eq!(pause(&transient(), failures, 1.0), Duration::from_millis(expected), "{failures}");
        }
        let held = Outcome::Rejected { reason: String::new() };
        assert_eq!(pause(&held, 100, 1.0), Duration::from_secs(60));
    }

    #[test]
    fn a_parked_record_waits_as_long_as_it_has_been_failing_within_bounds() {
        let seconds = Duration::from_secs;
        for (age, expected) in [(1, 30), (30, 30), (100, 100), (86_400, 600)] {
            assert_eq!(parked_pause(8, seconds(age), 1.0), seconds(expected));
            assert_eq!(parked_pause(8, seconds(age), 0.0), seconds(expected) / 2);
        }
        assert_eq!(parked_pause(0, seconds(100), 1.0), Duration::ZERO, "it was never tried");
    }

    #[test]
    fn the_sink_is_never_asked_sooner_than_it_said() {
        let asked = |seconds| Outcome::Throttled { after: Some(Duration::from_secs(seconds)) };
        assert_eq!(pause(&asked(20), 1, 0.0), Duration::from_secs(20));
        assert_eq!(pause(&asked(0), 3, 0.0), Duration::from_millis(400));
        assert_eq!(pause(&asked(u64::MAX), 1, 0.0), LONGEST_ASKED);
    }

    proptest! {
        #[test]
        fn a_pause_lies_between_half_and_all_of_its_bound(failures in any::<u32>(), random in 0.0_f64..1.0) {
            let longest = pause(&transient(), failures, 1.0);
            let drawn = pause(&transient(), failures, random);
            prop_assert!(drawn <= longest && drawn * 2 >= longest);
            prop_assert!(longest <= OUTAGE.longest && drawn > Duration::ZERO);
        }
    }
}
