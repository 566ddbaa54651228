//! One candidate delivers all there is, and what that takes. Nothing counts unless each event came once.

use std::time::{Duration, Instant};

use super::world::{Candidate, World};
use crate::shared::{pause, process};

/// Without a step forward for so long, a candidate is stuck.
const STUCK: Duration = Duration::from_secs(60);
/// After the last event: for what would come twice, and for what is still to be committed.
const QUIET: Duration = Duration::from_secs(1);

/// What one candidate did.
#[derive(Debug, Clone)]
pub(crate) struct Measured {
    /// Records a second, from the first call to the last.
    pub(crate) rate: f64,
    /// CPU seconds of the candidate's, as the next two, for a million records.
    pub(crate) cpu: f64,
    /// Of what it delivers to.
    pub(crate) target: f64,
    pub(crate) broker: f64,
    /// TCP connections that were used; 0 where they are not counted.
    pub(crate) connections: u64,
    pub(crate) peak_mib: f64,
    /// Cores that nobody of ours used.
    pub(crate) foreign: f64,
}

/// Over HTTP, to a receiver that answers after `latency`. `ordered`: whether it keeps the order of each key.
pub(crate) fn http<'w>(
    world: &'w World,
    start: &impl Fn() -> Candidate<'w>,
    latency: Duration,
    ordered: bool,
) -> Measured {
    let receiver = &world.receiver;
    receiver.begin(latency);
    let mut candidate = start();
    advance(&mut candidate, 1, Duration::from_millis(2), || receiver.seen().calls);
    let before = Costs::so_far(world, &candidate);
    advance(&mut candidate, world.count, Duration::from_millis(10), || receiver.seen().ids.len() as u64);
    pause(QUIET);
    let after = Costs::so_far(world, &candidate);
    let seen = receiver.seen();
    let name = candidate.name();
    assert_eq!(seen.unreadable, 0, "{name}: calls without an id, or with an event that nobody wrote");
    assert_eq!((seen.calls, seen.ids.len() as u64), (world.count, world.count), "{name}: calls, and distinct ids");
    assert!(!ordered || seen.out_of_order == 0, "{name}: {} events before their turn", seen.out_of_order);
    let took = seen.first.zip(seen.last).map_or(f64::NAN, |(first, last)| (last - first).as_secs_f64());
    let target = after.receiver - before.receiver;
    let run = Run { records: world.count, rate: world.count as f64 / took, target, connections: seen.connections };
    after.since(&before, &candidate, &run)
}

/// Into a table of the candidate's name; its offsets say how far it is.
pub(crate) fn postgres<'w>(world: &'w World, start: &impl Fn() -> Candidate<'w>, offsets: &str) -> Measured {
    let mut candidate = start();
    let name = candidate.name().to_owned();
    let query =
        format!("SELECT coalesce(sum(greatest(next_offset, 0)), 0)::bigint FROM {offsets} WHERE sink = '{name}'");
    let progress = || world.number(&query).unwrap_or(0);
    let interval = Duration::from_millis(20);
    let (first, some) = advance(&mut candidate, 1, interval, progress);
    let before = Costs::so_far(world, &candidate);
    let (last, all) = advance(&mut candidate, world.count, interval, progress);
    pause(QUIET);
    let after = Costs::so_far(world, &candidate);
    let rows = |what: &str| world.number(&format!("SELECT count({what}) FROM {name}"));
    let found = (rows("*"), rows("DISTINCT hb_delivery_id"));
    assert_eq!(found, (Some(world.count), Some(world.count)), "{name}: rows, and distinct delivery ids");
    world.execute(&format!("DROP TABLE {name}"));
    // The rows of the first look are not counted, nor is what they took.
    let records = all - some;
    let rate = records as f64 / (last - first).as_secs_f64();
    after.since(&before, &candidate, &Run { records, rate, target: after.postgres - before.postgres, connections: 0 })
}

/// Returns when `progress` has reached `goal`: when, and how far it was.
fn advance(candidate: &mut Candidate<'_>, goal: u64, interval: Duration, progress: impl Fn() -> u64) -> (Instant, u64) {
    let (mut reached, mut since) = (0, Instant::now());
    loop {
        let now = progress();
        if now >= goal {
            return (Instant::now(), now);
        }
        if now > reached {
            (reached, since) = (now, Instant::now());
        }
        candidate.assert_alive();
        assert!(since.elapsed() < STUCK, "{} is stuck at {reached} of {goal}", candidate.name());
        pause(interval);
    }
}

/// What was seen of a run from outside.
struct Run {
    /// Between the two looks at what it costs.
    records: u64,
    rate: f64,
    /// CPU seconds of what was delivered to.
    target: f64,
    connections: u64,
}

/// CPU seconds so far.
struct Costs {
    at: Instant,
    idle: f64,
    family: f64,
    candidate: f64,
    receiver: f64,
    postgres: f64,
    broker: f64,
}

impl Costs {
    fn so_far(world: &World, candidate: &Candidate<'_>) -> Self {
        Self {
            at: Instant::now(),
            idle: process::idle_seconds(),
            family: process::family_cpu_seconds(world.broker),
            candidate: process::cpu_seconds(candidate.pid()),
            receiver: world.receiver.cpu_seconds(),
            postgres: world.postgres.map_or(f64::NAN, process::tree_cpu_seconds),
            broker: world.broker.map_or(f64::NAN, process::cpu_seconds),
        }
    }

    fn since(&self, before: &Self, candidate: &Candidate<'_>, run: &Run) -> Measured {
        let wall = (self.at - before.at).as_secs_f64();
        let cores = std::thread::available_parallelism().map_or(1.0, |n| n.get() as f64);
        let per_million = |seconds: f64| seconds / run.records as f64 * 1e6;
        let foreign = wall * cores - (self.idle - before.idle) - (self.family - before.family);
        Measured {
            rate: run.rate,
            cpu: per_million(self.candidate - before.candidate),
            target: per_million(run.target),
            broker: per_million(self.broker - before.broker),
            connections: run.connections,
            peak_mib: process::peak_memory_mib(candidate.pid()),
            foreign: (foreign / wall).max(0.0),
        }
    }
}
