//! What the memory of deduplication costs, as the kernel counts it: in a process of its own, where nothing else grows.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::print_stdout,
    reason = "a test that cannot go on has to say so and end"
)]

use std::fs;

use hookbridge::ingest::dedupe::{Destination, Entry, Identity, Memory};
use hookbridge::kafka::{Landing, Position};
use hookbridge::metrics::Metrics;

/// Bytes that an entry may cost, everything told.
const LIMIT: usize = 64;
const ENTRIES: usize = 200_000;

/// Bytes of this process that are in memory.
fn resident() -> usize {
    let status = fs::read_to_string("/proc/self/status").expect("Linux");
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).expect("a line on what is resident");
    line.split_whitespace().nth(1).unwrap().parse::<usize>().unwrap() * 1024
}

/// Publishes events `from..to`, each acknowledged at once.
fn publish(memory: &Memory, from: usize, to: usize) {
    let orders = memory.destination(&Destination {
        topic: "events.order_placed".to_owned(),
        subject: "events.order_placed-value".to_owned(),
        version: Some(1),
        schema_id: 1,
    });
    for number in from..to {
        let id = format!("evt_{number}");
        let identity = Identity { source: "shop", id: &id, event_type: "order_placed" };
        let Entry::New(claim) = memory.enter(identity, None, orders, 1_800_000_000_000) else { panic!("{id} is new") };
        let ticket = claim.ticket();
        claim.handed_over();
        memory.landed(ticket, Ok(Position { partition: 1, offset: i64::try_from(number).unwrap() }));
    }
}

#[test]
fn a_full_memory_costs_at_most_sixty_four_bytes_an_entry_and_an_empty_one_nothing() {
    let metrics = Metrics::new().unwrap();
    // What a process needs once: the allocator's arenas, the first pages of the stack.
    publish(&Memory::new(5_000, metrics.dedupe_uncertain.clone().into()), 0, 10_000);

    let before = resident();
    let memory = Memory::new(ENTRIES, metrics.dedupe_uncertain.into());
    let empty = resident() - before;
    publish(&memory, 0, ENTRIES / 10);
    let tenth = resident() - before;
    // Twice over, so that every entry has been evicted once.
    publish(&memory, ENTRIES / 10, 2 * ENTRIES);
    let full = resident() - before;

    let reach = memory.reach();
    println!("empty {empty}, a tenth {tenth}, full {full} bytes resident; {} counted", reach.bytes);
    assert!(reach.entries > ENTRIES - 64 && reach.entries <= ENTRIES, "{} entries", reach.entries);
    assert!(empty < 1 << 20, "{empty} bytes before anything came");
    assert!(tenth < full / 4, "it grows with what comes: {tenth} of {full} bytes");
    assert!(full <= LIMIT * reach.entries, "{} bytes an entry", full / reach.entries);
    assert!(reach.bytes <= full, "what it counts itself is there");
}
