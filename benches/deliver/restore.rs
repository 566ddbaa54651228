//! A start on a partition with a million receipts: all of them are read before the first call. How long that takes, and
//! what it takes in memory.

use std::time::{Duration, Instant};

use hookbridge::clock;
use hookbridge::deliver::receipt::{self, Receipt, ReceiptOutcome};
use hookbridge::event::Identity;
use rdkafka::consumer::{BaseConsumer, CommitMode, Consumer};
use rdkafka::topic_partition_list::{Offset, TopicPartitionList};

use super::events::{EVENT_TYPE, Topic};
use super::world::World;
use crate::shared::{pause, process};

const MAX: Duration = Duration::from_secs(10);
const MAX_MIB: f64 = 200.0;
/// Everything is in this one, which the world has no other than.
const PARTITION: i32 = 0;
/// For a call that should not come.
const QUIET: Duration = Duration::from_secs(1);

/// What a start took.
struct Start {
    /// From the process to the first call.
    until_call: Duration,
    peak_mib: f64,
}

/// Measures, prints, and answers the exit code. The world has one partition, and one event in it.
pub(crate) fn run(world: &World, receipts: u64) -> i32 {
    let sink = world.new_name("crm");
    // A first start, which finds no receipts: what any start takes. It leaves its group and its receipts topic behind.
    let calm = start(world, &sink);
    let (repeated, new) = preload(world, &sink, receipts);
    commit(world, &sink, receipts);
    let full = start(world, &sink);
    let seen = world.receiver.seen();
    let expected = [delivery_id(&sink, &new)];
    assert!(
        seen.ids.iter().map(Vec::as_slice).eq(expected.iter().map(String::as_bytes)),
        "not what was sent: {repeated}"
    );
    let print = |what: &str, start: &Start| {
        let (seconds, mib) = (start.until_call.as_secs_f64(), start.peak_mib);
        println!("{what:<32}  the first call after {seconds:>5.2} s   peak memory {mib:>4.0} MiB");
    };
    print("without receipts", &calm);
    print(&format!("{receipts} receipts in a partition"), &full);
    let good = full.until_call < MAX && full.peak_mib < MAX_MIB;
    println!("{}: < {} s, < {MAX_MIB} MiB", if good { "holds" } else { "FAILS" }, MAX.as_secs());
    i32::from(!good)
}

/// Starts the product, waits for its first call, and lets it end in good order, so that its group is empty.
fn start(world: &World, sink: &str) -> Start {
    world.receiver.begin(Duration::ZERO);
    let begun = Instant::now();
    let mut candidate = world.http_unready(sink, "");
    while world.receiver.seen().calls == 0 {
        candidate.assert_alive();
        pause(Duration::from_millis(5));
    }
    let until_call = begun.elapsed();
    pause(QUIET);
    let peak_mib = process::peak_memory_mib(candidate.pid());
    candidate.stop();
    Start { until_call, peak_mib }
}

/// Puts as many records before the next one as there are receipts, and after them one that its receipt says was
/// delivered, and a new one. Answers the ids of the last two.
fn preload(world: &World, sink: &str, receipts: u64) -> (String, String) {
    let (events, now) = (world.topic(), clock::now_ms());
    let (repeated, new) = (world.next_event(), world.next_event());
    let to = Topic::open(&world.kafka, &events);
    for _ in 0..receipts {
        // Never read: the group is committed to the record behind them.
        to.append_raw(PARTITION, "", b"");
    }
    to.append(&repeated);
    to.append(&new);
    to.close();
    let topic = receipt::topic(world.prefix(), sink, &events);
    let schema_id = world.registered(receipt::SUBJECT);
    let to = Topic::open(&world.kafka, &topic);
    let mut value = Vec::new();
    for number in 0..receipts {
        let id = if number + 1 == receipts { repeated.id.clone() } else { format!("before.{number}") };
        value.clear();
        let receipt = Receipt {
            delivery_id: identity(&id).delivery_id(sink),
            origin_topic: &events,
            origin_partition: PARTITION,
            origin_offset: number.cast_signed(),
            outcome: ReceiptOutcome::Delivered,
            reason: "",
            message: "",
            attempts: 1,
            vendor_reference: None,
            received_at: Some(now),
            settled_at: now,
            failing_ms: 0,
            unsure_since: None,
            writer: 1,
            original: None,
        };
        receipt.encode(schema_id, &mut value);
        to.append_raw(PARTITION, &format!("cus_{:05}", number % 5_000), &value);
    }
    to.close();
    (repeated.id, new.id)
}

/// Moves the sink's group, which has no member, to the record behind those that its receipts are of.
fn commit(world: &World, sink: &str, receipts: u64) {
    let group = format!("{}hookbridge.{sink}", world.prefix());
    let consumer: BaseConsumer = world.kafka.config().set("group.id", group).create().expect("a consumer");
    let mut list = TopicPartitionList::new();
    let next = Offset::Offset(receipts.cast_signed() + 1);
    list.add_partition_offset(&world.topic(), PARTITION, next).expect("a partition");
    consumer.commit(&list, CommitMode::Sync).expect("a group without members");
}

fn identity(id: &str) -> Identity {
    Identity { source: "storefront".to_owned(), id: id.to_owned(), event_type: EVENT_TYPE.to_owned() }
}

fn delivery_id(sink: &str, id: &str) -> String {
    identity(id).delivery_id(sink).to_string()
}
