//! What goes wrong, and what comes in.

use std::time::Duration;

use hookbridge::deliver::machine::Input;
use hookbridge::deliver::{Fate, Receipt, Rewind};
use hookbridge::kafka::NextOffset;
use uuid::Uuid;

use crate::chance::Chance;
use crate::kafka::Life;
use crate::vendor::Mood;
use crate::world::{Event, World, at};

/// Events of one run.
const EVENTS: u64 = 90;

pub(crate) fn load(world: &mut World) {
    let burst = 1 + world.chance.below(6);
    for _ in 0..burst {
        if world.events >= EVENTS {
            break;
        }
        append(world);
    }
    world.poll_all();
    if world.healed {
        // Life goes on: what passes shows that the vendor is well, and what does not.
        let number = 1_000_000 + world.now.as_secs();
        let partition = world.chance.index(world.partitions());
        let key = Some(format!("later {number}").into_bytes());
        world.kafka.append(partition, number, Uuid::from_u128(u128::from(number)), key, 0, world.now);
        world.poll_all();
        world.after(Duration::from_secs(120), Event::Load);
        return;
    }
    let delay = world.chance.millis(15_000);
    world.after(delay, Event::Load);
}

fn append(world: &mut World) {
    let partitions = world.partitions();
    let gap = i64::from(world.chance.percent(10));
    if world.events > 10 && world.chance.percent(6) {
        // A sender repeats itself.
        let partition = world.chance.index(partitions);
        let Some(again) = world.kafka.events[partition].last().cloned() else { return };
        let mut key = again.key;
        if key.is_some() && world.chance.percent(20) {
            world.moved.insert(again.number);
            key = Some(b"another".to_vec());
        }
        world.kafka.append(partition, again.number, again.delivery_id, key, gap, world.now);
        return;
    }
    world.events += 1;
    let number = world.events;
    let id = Uuid::from_u128(u128::from(number));
    let (partition, key) = if world.chance.percent(10) {
        (world.chance.index(partitions), None)
    } else {
        let key = world.chance.index(8);
        (key % partitions, Some(format!("key {key}").into_bytes()))
    };
    world.kafka.append(partition, number, id, key, gap, world.now);
}

fn someone(world: &mut World) -> Option<Life> {
    let lives: Vec<_> =
        world.processes.values().filter(|process| !process.frozen).map(|process| process.life).collect();
    if lives.is_empty() { None } else { Some(lives[world.chance.index(lives.len())]) }
}

pub(crate) fn strike(world: &mut World) {
    if world.healed {
        return;
    }
    let delay = world.chance.millis(12_000);
    world.after(delay, Event::Chaos);
    match world.chance.below(15) {
        0 | 1 => crash(world),
        2 => freeze(world),
        3 => {
            // Cut off, and it does not know yet.
            if let Some(life) = someone(world) {
                world.kick(life);
            }
        }
        4 => world.rebalance(),
        5 => {
            if let Some(life) = someone(world) {
                world.input(life, Input::Stop);
            }
        }
        6 => replay(world),
        7 => {
            if let Some(life) = someone(world) {
                world.input(life, Input::Paused);
                world.count("paused by hand");
                let pause = world.chance.millis(20_000);
                world.after(pause, Event::Input(life, Input::Resumed));
            }
        }
        8 => {
            let slot = world.chance.index(world.slots());
            // Two processes in one slot: the later one fences the earlier.
            if world.chance.percent(30) {
                world.start(slot);
            }
        }
        9 => rewind(world),
        _ => {
            world.vendor.mood = match world.chance.below(10) {
                0..4 => Mood::Well,
                4..7 => Mood::Flaky,
                7 => Mood::Down,
                8 => Mood::Misconfigured,
                _ => Mood::Locked,
            };
        }
    }
}

pub(crate) fn crash(world: &mut World) {
    let Some(life) = someone(world) else { return };
    world.crash(life);
    let pause = world.chance.millis(20_000);
    world.after(pause, Event::Start(life.slot));
}

fn freeze(world: &mut World) {
    let Some(life) = someone(world) else { return };
    let Some(process) = world.processes.get_mut(&life) else { return };
    process.frozen = true;
    world.count("frozen");
    let pause = world.chance.millis(30_000);
    world.after(pause, Event::Thaw(life));
    if pause > crate::world::SESSION {
        world.after(crate::world::SESSION, Event::Kick(life));
    }
}

/// A person sends a dead letter again.
fn replay(world: &mut World) {
    let partition = world.chance.index(world.partitions());
    let dead: Vec<_> = world
        .kafka
        .history(partition)
        .into_iter()
        .filter(|(_, receipt)| matches!(receipt.fate, Fate::Dead(_)))
        .collect();
    if dead.is_empty() {
        return;
    }
    let mut chance = Chance::new(world.chance.next());
    let (_, receipt) = &dead[chance.index(dead.len())];
    let again = Receipt {
        fate: Fate::Requeued,
        attempts: 0,
        age: Duration::ZERO,
        unsure_since: None,
        writer: 0,
        settled_at: world.now,
        ..receipt.clone()
    };
    *world.requeued.entry(receipt.delivery_id).or_default() += 1;
    world.kafka.write_plain(partition, again);
    world.count("requeued");
}

/// A person wants a partition read again.
fn rewind(world: &mut World) {
    let partition = world.chance.index(world.partitions());
    let Some(committed) = world.kafka.committed[partition] else { return };
    let settled: Vec<_> =
        world.kafka.events[partition].iter().filter(|event| event.offset < committed.next).cloned().collect();
    if settled.is_empty() {
        return;
    }
    let first = &settled[world.chance.index(settled.len())];
    let history = world.kafka.history(partition);
    // By time, as whoever gives the order looks it up.
    let receipts_from = history.iter().find(|(_, receipt)| receipt.settled_at >= first.at).map_or(0, |(at, _)| *at);
    let number = world.orders.last_key_value().map_or(1, |(number, _)| number + 1);
    let (to, again) = (NextOffset::stored(first.offset), world.chance.percent(40));
    let mut order = Rewind { number, to, receipts_from, again };
    if let Some(before) = world.rewinds.get(&at(partition)).filter(|before| before.number > committed.rewound.number) {
        order.to = order.to.min(before.to);
        order.receipts_from = order.receipts_from.min(before.receipts_from);
        order.again |= before.again;
        world.count("a rewind overtook another");
    }
    world.rewinds.insert(at(partition), order);
    world.orders.insert(number, (partition, order));
    for life in world.processes.keys().copied().collect::<Vec<_>>() {
        world.soon(3_000, Event::Orders(life));
    }
}
