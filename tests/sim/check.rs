//! The promises, judged from outside: by what the vendor saw and what Kafka holds.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::Duration;

use hookbridge::config::Guarantee;
use hookbridge::deliver::machine::BatchId;
use hookbridge::deliver::{DeadReason, Fate, Receipt};
use hookbridge::event::delivered_again;
use hookbridge::kafka::Record;
use hookbridge::outcome::SkipReason;
use uuid::Uuid;

use crate::kafka::{Back, Life};
use crate::vendor::{Effect, Nature};
use crate::world::{Out, POLL, World};

/// A window holds no more than its limit and what was on the way when it was full.
pub(crate) fn window(world: &mut World, life: Life) {
    let (deepest, limit) = (world.deepest(life), world.settings.window.records + 8 * POLL);
    if deepest > limit {
        world.wrong.push(format!("{life:?} holds {deepest} records, {limit} at most"));
    }
    // What a window comes to is remembered besides what a restore has found.
    let (remembered, limit) = (world.most_remembered(life), world.settings.max_beyond + limit);
    if remembered > limit {
        world.wrong.push(format!("{life:?} remembers {remembered} settled records, {limit} at most"));
    }
}

/// A call goes out.
pub(crate) fn call(world: &mut World, life: Life, id: Uuid, number: u64, record: &Record, batch: Option<BatchId>) {
    let process = &world.processes[&life];
    let mut wrong = vec![];
    let others = process.calls.iter().filter(|(_, out)| batch.is_none() || out.batch != batch);
    let others: BTreeSet<_> = others.map(|(call, out)| (out.batch, out.batch.is_none().then_some(*call))).collect();
    if others.len() >= world.settings.concurrency {
        wrong.push(format!("{life:?} has more than {} calls out", world.settings.concurrency));
    }
    let key = record.key.clone().unwrap_or_else(|| id.as_bytes().to_vec());
    let epoch = world.epoch(life, record);
    let partition = usize::try_from(record.at.partition).unwrap();
    let same = |out: &Out| out.key == key && out.partition == partition && Some(out.epoch) == epoch;
    if process.calls.values().any(same) {
        wrong.push(format!("{life:?} calls twice at once for one key ({number})"));
    }
    if world.now < world.not_before(life) {
        wrong.push(format!("{life:?} calls sooner than the vendor asked"));
    }
    if world.has_delivered(life, record, id) && !world.requeued.contains_key(&id) {
        wrong.push(format!("{life:?} sends {number} again, which was answered"));
    }
    if is_delivered_at(world, life, partition, id, record.offset) && !world.requeued.contains_key(&id) {
        wrong.push(format!("{life:?} sends {number} again, whose receipt says delivered"));
    }
    if world.is_held(life) && process.calls.values().any(|out| out.probe && (batch.is_none() || out.batch != batch)) {
        wrong.push(format!("{life:?} calls a held sink, with a probe out"));
    }
    if world.settings.guarantee == Guarantee::AtMostOnce {
        let silent = world.vendor.silent.get(&id).map_or(&[][..], Vec::as_slice);
        // What a sender repeats after the memory has run out is a new event.
        let soon = silent.iter().filter(|at| world.now <= **at + world.settings.dedupe_window).count();
        if soon > world.requeued.get(&id).copied().unwrap_or_default() {
            wrong.push(format!("{life:?} sends {number} again after silence"));
        }
    }
    world.wrong.append(&mut wrong);
}

/// Whether a receipt says that the record was delivered under this id, and the process, having the partition now, has read
/// or written it.
fn is_delivered_at(world: &World, life: Life, partition: usize, id: Uuid, offset: i64) -> bool {
    let process = &world.processes[&life];
    let consumer = process.consumers.get(&partition).filter(|consumer| consumer.follows.is_some());
    let told = process.told.get(&i32::try_from(partition).unwrap());
    if world.kafka.group.owners[partition] != Some(life) || consumer.map(|consumer| &consumer.epoch) != told {
        return false;
    }
    let history = world.kafka.history(partition);
    let mut of_record = history.iter().filter(|(_, receipt)| receipt.delivery_id == id && receipt.offset == offset);
    of_record.any(|(_, receipt)| receipt.fate == Fate::Delivered)
}

/// What happened to a record, in its order.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Happened {
    Settled(Fate, Uuid),
    /// Its partition went back to it, or before it.
    Back {
        again: bool,
    },
}

/// What happened to each record of a partition.
fn happened(world: &World, partition: usize) -> BTreeMap<i64, Vec<Happened>> {
    let mut by_origin: BTreeMap<i64, Vec<Happened>> = BTreeMap::new();
    let mut backs = world.kafka.back[partition].iter().peekable();
    for (position, receipt) in world.kafka.history(partition) {
        while let Some(back) = backs.next_if(|back| back.position <= position) {
            go_back(world, back, &mut by_origin);
        }
        let what = Happened::Settled(receipt.fate, receipt.delivery_id);
        by_origin.entry(receipt.offset).or_default().push(what);
    }
    backs.for_each(|back| go_back(world, back, &mut by_origin));
    by_origin
}

fn go_back(world: &World, back: &Back, by_origin: &mut BTreeMap<i64, Vec<Happened>>) {
    let (_, order) = world.orders[&back.number];
    by_origin.range_mut(back.to..).for_each(|(_, all)| all.push(Happened::Back { again: order.again }));
}

/// Everything is at rest: what came of each record?
pub(crate) fn end(world: &mut World) {
    let mut wrong = vec![];
    let mut dead: HashMap<Uuid, DeadReason> = HashMap::new();
    let mut seen = vec![];
    for partition in 0..world.partitions() {
        let mut by_origin = happened(world, partition);
        for (_, receipt) in world.kafka.history(partition) {
            if let Fate::Dead(reason) = receipt.fate {
                dead.insert(receipt.delivery_id, reason);
            }
            if receipt.fate == Fate::Dead(DeadReason::Rejected) && !world.vendor.refused.contains(&receipt.delivery_id)
            {
                wrong.push(format!("the event at {partition}/{} died of what others did", receipt.offset));
            }
            if receipt.fate == Fate::Dead(DeadReason::TooOld) {
                let number = u64::from_be_bytes(receipt.record.value.clone().unwrap().try_into().unwrap());
                excuse_age(world, number, receipt.record.key.as_deref(), &mut wrong);
                tried_for_long_enough(world, partition, &receipt, &mut wrong);
            }
        }
        for event in &world.kafka.events[partition] {
            let all = by_origin.remove(&event.offset).unwrap_or_default();
            match settled_once(&all) {
                Err(reason) => {
                    wrong.push(format!("event {} at {partition}/{}: {reason}: {all:?}", event.number, event.offset));
                }
                Ok(more) => seen.extend(more),
            }
            effects(world, event.number, event.delivery_id, &all, &mut wrong);
        }
        if !by_origin.is_empty() {
            wrong.push(format!("partition {partition} has receipts of nothing: {by_origin:?}"));
        }
        let last = world.kafka.last_event(partition);
        if !world.has_gone_back(partition) {
            wrong.push(format!("partition {partition} has not gone back: {:?}", world.kafka.committed[partition]));
        }
        let committed = world.kafka.committed[partition].map(|committed| committed.next - 1);
        if last > committed {
            wrong.push(format!("partition {partition} is committed up to {committed:?} of {last:?}"));
        }
    }
    order(world, &dead, &mut wrong);
    for what in seen {
        world.count(what);
    }
    world.wrong.append(&mut wrong);
}

/// An event that others of its key hold up, or that never passes, may grow too old; an outage is no reason.
fn excuse_age(world: &World, number: u64, key: Option<&[u8]>, wrong: &mut Vec<String>) {
    let poisoned = world.kafka.events.iter().flatten().any(|event| {
        let same = event.number == number || (key.is_some() && event.key.as_deref() == key);
        same && matches!(world.vendor.nature(event.number), Nature::Poison | Nature::Forbidden)
    });
    if !poisoned {
        wrong.push(format!("event {number} died of age, and nothing was wrong with it"));
    }
}

/// An outage that holds the sink makes nobody older.
fn tried_for_long_enough(world: &World, partition: usize, receipt: &Receipt, wrong: &mut Vec<String>) {
    let came = world.kafka.events[partition].iter().find(|event| event.offset == receipt.offset).map(|event| event.at);
    let (Some(came), Some((began, ended))) = (came, world.outage) else { return };
    let held = receipt.settled_at.min(ended).saturating_sub(came.max(began));
    let tried = receipt.settled_at.saturating_sub(came).saturating_sub(held);
    // The sink is held from its first call in the outage on, and a parked key is tried six times an hour.
    if tried + Duration::from_secs(700) < world.settings.max_age {
        wrong.push(format!("the event at {partition}/{} died after {tried:?} without the outage", receipt.offset));
    }
}

/// Promises and parkings, then one end; after a person's replay, the same again. After a rewind the same again for what was
/// not delivered; and for all of it, under another id, where everything was wanted again. Gives what is worth counting.
fn settled_once(all: &[Happened]) -> Result<Vec<&'static str>, &'static str> {
    let (mut ended, mut delivered) = (false, false);
    // A rewind leaves it alone; and so does one that comes before the last one with `again` has come to its end.
    let (mut firm, mut firm_since) = (false, false);
    // A person sent it again, under these ids, and it was not settled since.
    let mut requeued = HashSet::new();
    // The same, though it was settled under another id meanwhile, which a rewind had given it.
    let mut may_be_requeued = HashSet::new();
    // A rewind came after that. Whoever carried it out may not have read the requeue yet: the record goes by either, once.
    let mut overtaken = false;
    // It may be settled again, and it has to be.
    let (mut open_again, mut wanted) = (false, false);
    let mut ids = HashSet::new();
    let mut worth = vec![];
    for what in all {
        match *what {
            // One that was delivered meanwhile is not sent again, as long as that is remembered.
            Happened::Settled(Fate::Requeued, id) if ids.contains(&id) => _ = may_be_requeued.insert(id),
            Happened::Settled(Fate::Requeued, id) => _ = requeued.insert(id),
            // What is open goes its way.
            Happened::Back { .. } if !ended => {}
            Happened::Back { again } => {
                open_again |= again || !firm_since;
                firm_since &= !again;
                if requeued.is_empty() {
                    wanted |= again || !firm;
                } else {
                    overtaken = true;
                }
            }
            Happened::Settled(_, id)
                if ended && !requeued.contains(&id) && !may_be_requeued.contains(&id) && !open_again =>
            {
                return Err("settled again");
            }
            Happened::Settled(fate, id) => {
                if fate == Fate::Delivered {
                    if !ids.insert(id) && open_again {
                        return Err("delivered again under one id");
                    }
                    if open_again {
                        worth.push(if delivered { "delivered once more" } else { "delivered, having been dead" });
                    }
                }
                ended = fate.is_final();
                delivered |= fate == Fate::Delivered;
                let is_firm = matches!(
                    fate,
                    Fate::Delivered
                        | Fate::Skipped(SkipReason::Duplicate)
                        | Fate::Dead(DeadReason::NoAnswer | DeadReason::PastWindow)
                );
                (firm, firm_since) = (firm || is_firm, firm_since || is_firm);
                if ended && std::mem::take(&mut overtaken) {
                    requeued.clear();
                }
                if ended {
                    may_be_requeued.extend(requeued.drain());
                    may_be_requeued.remove(&id);
                }
                wanted &= !ended;
                open_again &= !ended;
            }
        }
    }
    if !ended || wanted || (!requeued.is_empty() && !delivered) { Err("never settled") } else { Ok(worth) }
}

/// Under each id that the event was sent with.
fn effects(world: &World, number: u64, first: Uuid, all: &[Happened], wrong: &mut Vec<String>) {
    let ids = std::iter::once(first).chain(world.orders.keys().map(|number| delivered_again(first, *number)));
    for id in ids {
        let settled = all.iter().filter_map(|what| match what {
            Happened::Settled(fate, of) if *of == id => Some(*fate),
            _ => None,
        });
        let fates: Vec<_> = settled.collect();
        // A promise under an id that a rewind has replaced is nobody's any more.
        if fates.iter().any(|fate| fate.is_final()) {
            effects_of(world, number, id, &fates, wrong);
        }
    }
}

fn effects_of(world: &World, number: u64, id: Uuid, fates: &[Fate], wrong: &mut Vec<String>) {
    let effects = world.vendor.effects.get(&id).map_or(&[][..], Vec::as_slice);
    let again = world.requeued.get(&id).copied().unwrap_or_default();
    let nature = world.vendor.nature(number);
    if fates.contains(&Fate::Delivered) && effects.is_empty() {
        wrong.push(format!("event {number} is said to be delivered, and was not"));
    }
    if matches!(nature, Nature::Refused | Nature::Poison | Nature::Unwanted) && !effects.is_empty() {
        wrong.push(format!("event {number} had an effect, being {nature:?}"));
    }
    if nature == Nature::Unwanted && !fates.contains(&Fate::Skipped(SkipReason::NoConsent)) {
        let repetition = fates.contains(&Fate::Skipped(SkipReason::Duplicate));
        if !repetition && !fates.iter().any(|fate| matches!(fate, Fate::Dead(DeadReason::NoAnswer))) {
            wrong.push(format!("event {number} had no consent, and became {fates:?}"));
        }
    }
    match world.settings.guarantee {
        Guarantee::AtMostOnce => {
            // What a sender repeats after the memory has run out is a new event.
            let soon = |pair: &&[Effect]| pair[1].at <= pair[0].at + world.settings.dedupe_window;
            if effects.windows(2).filter(soon).count() > again {
                wrong.push(format!("event {number} had {} effects, at most once", effects.len()));
            }
        }
        Guarantee::EffectivelyOnce => {
            // Who died, or lost the partition, may have taken its knowledge of an unanswered call with it.
            // What a sender repeats after the memory has run out is a new event.
            let soon = |pair: &&[Effect]| pair[1].at <= pair[0].at + world.settings.dedupe_window;
            let twice = effects.windows(2).filter(soon).any(|pair| pair[0].by == pair[1].by);
            let whole = world.settings.vendor_window.is_some_and(|window| window.as_secs() > 3_600);
            if (twice && again == 0) || (whole && effects.len() > 1) {
                wrong.push(format!("event {number} had {} effects within the window", effects.len()));
            }
        }
        _ => {}
    }
}

/// First effects of a key come in the order of its events. Dead letters and what a person sent again come when they come.
fn order(world: &World, dead: &HashMap<Uuid, DeadReason>, wrong: &mut Vec<String>) {
    let mut key_of = HashMap::new();
    for event in world.kafka.events.iter().flatten() {
        if let Some(key) = &event.key {
            // What is sent once more on purpose has an order of its own.
            for order in std::iter::once(0).chain(world.orders.keys().copied()) {
                let id = if order == 0 { event.delivery_id } else { delivered_again(event.delivery_id, order) };
                key_of.entry(id).or_insert_with(|| (key.clone(), order));
            }
        }
    }
    let mut last: HashMap<(Vec<u8>, u64), u64> = HashMap::new();
    for (number, id) in &world.vendor.order {
        let Some(key) = key_of.get(id) else { continue };
        if world.moved.contains(number) || dead.contains_key(id) || world.requeued.contains_key(id) {
            continue;
        }
        let before = last.entry(key.clone()).or_default();
        if *before > *number {
            wrong.push(format!("event {number} had its effect after {before}, of the same key"));
        }
        *before = (*before).max(*number);
    }
}
