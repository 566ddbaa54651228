//! The machine for HTTP and Kafka sinks, run through thousands of seeded worlds in which everything that can go wrong does:
//! crashes, zombies, rebalances, lost and late commits, vendors that refuse, stall and break down.
//!
//! `HOOKBRIDGE_SIM_SEEDS=20000 cargo test --test sim` runs more, with `HOOKBRIDGE_SIM_FIRST=20000` others;
//! `HOOKBRIDGE_SIM_SEED=17 cargo test --test sim` runs one again and prints everything that happened in it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that cannot go on has to say so and end")]
#![allow(clippy::print_stdout, reason = "a replayed seed is told step by step")]

mod chance;
mod chaos;
mod check;
mod group;
mod kafka;
mod logs;
mod together;
mod vendor;
mod world;

use std::collections::BTreeMap;
use std::ops::Range;
use std::time::Duration;

use crate::vendor::Mood;
use crate::world::{Event, World};

/// Seeds of an ordinary run.
const SEEDS: u64 = 2_000;

/// Steps of a machine before things may be healed.
const LEAST_STEPS: u64 = 300;

/// For everything to come to rest afterwards: a parked key is tried six times an hour, and gives up after one; those that
/// wait behind it follow one by one.
const REST: Duration = Duration::from_secs(12 * 3_600);

/// When a person looks at what still stands. A sink that fails nothing but what is left is held, and rightly: nobody can
/// tell that from an outage.
const PERSON: Duration = Duration::from_secs(6 * 3_600);

/// Of a thousand worlds, those that may need one.
const PERSONS: u64 = 20;

/// Things that have to happen somewhere in an ordinary run, or it proves nothing.
const WANTED: &[&str] = &[
    "a rewind overtook another",
    "answers at once",
    "batch delivered",
    "batch denied",
    "batch refused",
    "batch throttled",
    "batch transient",
    "batch unknown",
    "breaker closed",
    "breaker opened",
    "crash in a transaction",
    "crash with calls out",
    "dead: no answer",
    "dead: past window",
    "dead: rejected",
    "dead: too old",
    "delivered",
    "delivered once more",
    "delivered, having been dead",
    "duplicate",
    "found by halves",
    "frozen",
    "generation refused",
    "key parked",
    "late EndTxn applied",
    "late EndTxn fenced",
    "long outage",
    "let go",
    "parked",
    "partial answer",
    "paused by hand",
    "read again",
    "read in parts",
    "rebalance with calls out",
    "requeued",
    "restore waited for an open transaction",
    "revocation drained",
    "rewound",
    "rewound, all again",
    "skipped",
    "stopped because fenced",
    "stopped in order",
    "throttled",
    "transaction aborted",
    "transaction expired",
    "unknown and committed",
    "unknown and not committed",
    "window full",
    "zombie with calls out",
];

/// Runs one world to its end.
fn run(seed: u64, trace: bool) -> World {
    let mut world = World::new(seed, trace);
    for slot in 0..world.slots() {
        world.start(slot);
    }
    world.after(Duration::ZERO, Event::Load);
    world.after(Duration::from_secs(2), Event::Chaos);
    let stormy = world.now + Duration::from_secs(60 + world.chance.below(400));
    while world.now < stormy || world.steps < LEAST_STEPS || !world.coverage.contains_key("crash") {
        if world.now >= stormy && !world.coverage.contains_key("crash") {
            chaos::crash(&mut world);
        }
        let Some(event) = world.next() else { break };
        world.handle(event);
        if !world.wrong.is_empty() {
            return world;
        }
    }
    if world.chance.percent(15) {
        endure(&mut world);
    }
    heal(&mut world);
    let (person, rest) = (world.now + PERSON, world.now + REST);
    let mut looked = world.now;
    while let Some(event) = world.next() {
        world.handle(event);
        if world.now > person && !std::mem::replace(&mut world.vendor.mended, true) {
            world.count("mended by a person");
        }
        let tired = world.now > rest;
        if !world.wrong.is_empty() || tired {
            break;
        }
        if world.now > looked + Duration::from_secs(30) {
            looked = world.now;
            if (0..world.partitions()).all(|partition| world.kafka.is_done(partition) && world.has_gone_back(partition))
            {
                break;
            }
        }
    }
    if world.wrong.is_empty() {
        check::end(&mut world);
    }
    world
}

/// Nothing but an outage that is longer than anything is tried for.
fn endure(world: &mut World) {
    let ends = world.now + world.settings.max_age * 2;
    world.outage = Some((world.now, ends));
    world.healed = true;
    while world.now < ends && world.wrong.is_empty() {
        world.vendor.mood = Mood::Misconfigured;
        let Some(event) = world.next() else { break };
        world.handle(event);
    }
    world.count("long outage");
}

fn heal(world: &mut World) {
    world.healed = true;
    world.vendor.mood = Mood::Well;
    if world.processes.values().all(|process| process.frozen) {
        world.after(Duration::from_secs(1), Event::Start(0));
    }
}

fn variable(name: &str) -> Option<u64> {
    std::env::var(name).ok().map(|text| text.parse().expect("a number of seeds, or a seed"))
}

/// What happened in many worlds, and what broke a promise.
#[derive(Default)]
struct Tally {
    coverage: BTreeMap<&'static str, u64>,
    broken: Vec<(u64, String)>,
}

/// Runs seeds on all cores.
fn run_all(seeds: Range<u64>) -> Tally {
    let threads = std::thread::available_parallelism().map_or(2, usize::from) as u64;
    let share = |thread: u64, seeds: Range<u64>| {
        let mut tally = Tally::default();
        for seed in (seeds.start + thread..seeds.end).step_by(usize::try_from(threads).unwrap()) {
            let world = run(seed, false);
            if let Some(wrong) = world.wrong.first() {
                tally.broken.push((seed, format!("{:?}: {wrong}", world.settings.guarantee)));
            }
            for (what, times) in world.coverage {
                *tally.coverage.entry(what).or_default() += times;
            }
        }
        tally
    };
    let mut all = Tally::default();
    std::thread::scope(|scope| {
        let running: Vec<_> = (0..threads)
            .map(|thread| {
                let seeds = seeds.clone();
                scope.spawn(move || share(thread, seeds))
            })
            .collect();
        for thread in running {
            let tally = thread.join().expect("a world that panicked is told above");
            all.broken.extend(tally.broken);
            for (what, times) in tally.coverage {
                *all.coverage.entry(what).or_default() += times;
            }
        }
    });
    all.broken.sort();
    all
}

#[test]
fn every_promise_holds_in_every_world() {
    if let Some(seed) = variable("HOOKBRIDGE_SIM_SEED") {
        let world = run(seed, true);
        assert!(world.wrong.is_empty(), "seed {seed}: {:#?}", world.wrong);
        return;
    }
    let seeds = variable("HOOKBRIDGE_SIM_SEEDS").unwrap_or(SEEDS);
    let first = variable("HOOKBRIDGE_SIM_FIRST").unwrap_or_default();
    let Tally { coverage, broken } = run_all(first..first + seeds);
    println!("{seeds} seeds from {first} on: {coverage:#?}");
    let few = &broken[..broken.len().min(20)];
    assert!(
        broken.is_empty(),
        "{} of {seeds} seeds broke a promise: {few:#?}\nto see one: HOOKBRIDGE_SIM_SEED={} cargo test --test sim",
        broken.len(),
        broken[0].0
    );
    let persons = coverage.get("mended by a person").copied().unwrap_or_default();
    assert!(persons * 1_000 <= seeds.max(1_000) * PERSONS, "{persons} of {seeds} worlds needed a person");
    let missing: Vec<_> = WANTED.iter().filter(|wanted| !coverage.contains_key(*wanted)).collect();
    assert!(seeds < SEEDS || missing.is_empty(), "never happened: {missing:?}");
}

#[test]
fn a_seed_is_the_same_world_every_time() {
    for seed in 0..40 {
        let (first, second) = (run(seed, false), run(seed, false));
        assert_eq!((first.now, first.steps, first.coverage), (second.now, second.steps, second.coverage), "{seed}");
    }
}
