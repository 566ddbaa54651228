//! The promises, judged from outside: by what the vendor saw and what Kafka holds.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use hookbridge::config::Guarantee;
use hookbridge::deliver::machine::BatchId;
use hookbridge::deliver::{DeadReason, Fate, Receipt};
use hookbridge::kafka::Record;
use hookbridge::outcome::SkipReason;
use uuid::Uuid;

use crate::kafka::Life;
use crate::vendor::{Effect, Nature};
use crate::world::{Out, POLL, World};

/// A window holds no more than its limit and what was on the way when it was full.
pub(crate) fn window(world: &mut World, life: Life) {
    let (deepest, limit) = (world.deepest(life), world.settings.window.records + 8 * POLL);
    if deepest > limit {
        world.wrong.push(format!("{life:?} holds {deepest} records, {limit} at most"));
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

/// Everything is at rest: what came of each record?
pub(crate) fn end(world: &mut World) {
    let mut wrong = vec![];
    let mut dead: HashMap<Uuid, DeadReason> = HashMap::new();
    for partition in 0..world.partitions() {
        let mut by_origin: BTreeMap<i64, Vec<Fate>> = BTreeMap::new();
        for (_, receipt) in world.kafka.history(partition) {
            by_origin.entry(receipt.offset).or_default().push(receipt.fate);
            if let Fate::Dead(reason) = receipt.fate {
                dead.insert(receipt.delivery_id, reason);
            }
            if receipt.fate == Fate::Dead(DeadReason::TooOld) {
                let number = u64::from_be_bytes(receipt.record.value.clone().unwrap().try_into().unwrap());
                excuse_age(world, number, receipt.record.key.as_deref(), &mut wrong);
                tried_for_long_enough(world, partition, &receipt, &mut wrong);
            }
        }
        for event in &world.kafka.events[partition] {
            let fates = by_origin.remove(&event.offset).unwrap_or_default();
            if let Err(reason) = settled_once(&fates) {
                wrong.push(format!("event {} at {partition}/{}: {reason}: {fates:?}", event.number, event.offset));
            }
            effects(world, event.number, event.delivery_id, &fates, &mut wrong);
        }
        if !by_origin.is_empty() {
            wrong.push(format!("partition {partition} has receipts of nothing: {by_origin:?}"));
        }
        let last = world.kafka.last_event(partition);
        let committed = world.kafka.committed[partition].map(|(next, _)| next - 1);
        if last > committed {
            wrong.push(format!("partition {partition} is committed up to {committed:?} of {last:?}"));
        }
    }
    order(world, &dead, &mut wrong);
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

/// Promises and parkings, then one end; after a person's replay, the same again.
fn settled_once(fates: &[Fate]) -> Result<(), &'static str> {
    let (mut ended, mut delivered, mut requeued) = (false, false, false);
    for fate in fates {
        if *fate == Fate::Requeued {
            // One that was delivered meanwhile is not sent again, as long as that is remembered.
            requeued = true;
        } else if ended && !requeued {
            return Err("settled again");
        } else {
            ended = fate.is_final();
            delivered |= *fate == Fate::Delivered;
            requeued = false;
        }
    }
    if !ended || (requeued && !delivered) { Err("never settled") } else { Ok(()) }
}

fn effects(world: &World, number: u64, id: Uuid, fates: &[Fate], wrong: &mut Vec<String>) {
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
            let twice = effects.windows(2).any(|pair| pair[0].by == pair[1].by);
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
            key_of.entry(event.number).or_insert_with(|| (key.clone(), event.delivery_id));
        }
    }
    let mut last: HashMap<Vec<u8>, u64> = HashMap::new();
    for number in &world.vendor.order {
        let Some((key, id)) = key_of.get(number) else { continue };
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
