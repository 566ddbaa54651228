//! What is asked of the sinks whose commits are Kafka's transactions: one calls a vendor, one writes copies.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use super::{Case, disorder};
use crate::ledger::Line;

impl Case<'_> {
    /// I1, I2, I4 for the vendor, who takes the first of the calls that have one `webhook-id` and answers the others alike:
    /// each event has its effect or is a dead letter, once, in the order of its key.
    pub(super) fn the_vendor_has_each_once(&mut self) {
        let Some(dead) = &self.evidence.dead else { return };
        let by_place: HashMap<(&str, i64), &str> =
            self.sent.iter().map(|(event, sent)| ((sent.key, sent.sequence), *event)).collect();
        let mut ids: BTreeMap<&str, BTreeSet<&str>> = BTreeMap::new();
        let mut effects: HashSet<&str> = HashSet::new();
        let mut last: HashMap<&str, i64> = HashMap::new();
        let mut found = Vec::new();
        for line in &self.evidence.ledger {
            let Line::Call { id, key, sequence, body, status, .. } = line else { continue };
            let Some(event) = by_place.get(&(key.as_str(), *sequence)).copied() else {
                found.push(("phantom", format!("the vendor was called with {key} {sequence}, which was never sent")));
                continue;
            };
            if self.sent[event].body != body {
                found.push(("corrupt", format!("the vendor was called with another {event} than was sent")));
            }
            ids.entry(event).or_default().insert(id);
            if *status >= 300 {
                continue;
            }
            if !effects.insert(id) {
                self.figures.repeated_calls += 1;
                if self.evidence.repeats_no_call && self.all_was_prompt() {
                    found.push(("duplicate", format!("the vendor was called twice with {event}")));
                }
            } else if let Some(before) = last.insert(key, *sequence).filter(|before| before >= sequence) {
                found.push(("nonmonotonic", format!("the vendor took {key} {sequence} after {before}")));
            }
        }
        for (event, ids) in ids.iter().filter(|(_, ids)| ids.len() > 1) {
            self.figures.doubled += 1;
            found.push(("duplicate", format!("{event} was sent to the vendor as {ids:?}")));
        }
        let buried: HashSet<&str> = dead.iter().map(String::as_str).collect();
        self.figures.dead = buried.len();
        if dead.len() > buried.len() {
            found.push(("duplicate", format!("{} dead letters are there twice", dead.len() - buried.len())));
        }
        for (event, sent) in self.sent.iter().filter(|(_, sent)| sent.taken_at.is_some()) {
            let has_effect = ids.get(event).is_some_and(|ids| ids.iter().any(|id| effects.contains(id)));
            match (has_effect, buried.contains(event)) {
                (false, false) => {
                    self.figures.lost += 1;
                    found.push((
                        "lost-write",
                        format!("{event} ({} {}) reached the vendor never", sent.key, sent.sequence),
                    ));
                }
                (true, true) => found.push(("duplicate", format!("{event} reached the vendor, and is a dead letter"))),
                _ => {}
            }
        }
        self.find_all(found);
    }

    /// I1 to I4 for the copies: each event has one, of its content, in the order of its key.
    pub(super) fn each_has_one_copy(&mut self) {
        let Some(copies) = &self.evidence.copies else { return };
        (self.figures.copies, self.figures.aborted_copies) = (copies.written.len(), copies.aborted);
        let mut times: BTreeMap<&str, usize> = BTreeMap::new();
        let mut found = Vec::new();
        for copy in &copies.written {
            *times.entry(&copy.event).or_default() += 1;
            match self.sent.get(copy.event.as_str()) {
                None => found.push(("phantom", format!("there is a copy of {}, which was never sent", copy.event))),
                Some(sent) if (sent.key, sent.sequence, sent.body) != (&copy.key, copy.sequence, &copy.body) => {
                    found.push(("corrupt", format!("the copy of {} has another content than was sent", copy.event)));
                }
                Some(_) => {}
            }
        }
        for (event, times) in times.iter().filter(|(_, times)| **times > 1) {
            self.figures.doubled += 1;
            found.push(("duplicate", format!("{event} has {times} copies")));
        }
        for (event, sent) in self.sent.iter().filter(|(_, sent)| sent.taken_at.is_some()) {
            if !times.contains_key(event) {
                self.figures.lost += 1;
                found.push(("lost-write", format!("{event} ({} {}) has no copy", sent.key, sent.sequence)));
            }
        }
        let places = copies.written.iter().map(|copy| (copy.key.as_str(), copy.partition, copy.offset, copy.sequence));
        found.extend(disorder("the copies", places.collect()).into_iter().map(|what| ("nonmonotonic", what)));
        self.find_all(found);
    }

    /// I6: a copy and its receipt are there together.
    pub(super) fn copies_have_their_receipts(&mut self) {
        let Some(copies) = &self.evidence.copies else { return };
        let events: HashMap<(i32, i64), &str> = self
            .evidence
            .committed
            .iter()
            .map(|record| ((record.partition, record.offset), record.event.as_str()))
            .collect();
        let mut receipts: BTreeMap<&str, usize> = BTreeMap::new();
        for place in &copies.delivered {
            *receipts.entry(events.get(place).copied().unwrap_or("an event that is not there")).or_default() += 1;
        }
        let landed: BTreeSet<&str> = copies.written.iter().map(|copy| copy.event.as_str()).collect();
        let mut found: Vec<String> = Vec::new();
        found.extend(
            receipts.iter().filter(|(_, times)| **times > 1).map(|(event, _)| format!("{event} has two receipts")),
        );
        found.extend(
            receipts
                .keys()
                .filter(|event| !landed.contains(*event))
                .map(|event| format!("{event} has a receipt, and no copy")),
        );
        found.extend(
            landed
                .iter()
                .filter(|event| !receipts.contains_key(*event))
                .map(|event| format!("{event} has a copy, and no receipt")),
        );
        self.find_all(found.into_iter().map(|what| ("torn", what)));
    }

    /// I5: what a group has committed for a partition never goes back.
    pub(super) fn groups_go_on(&mut self) {
        let mut last: HashMap<(&str, i32), i64> = HashMap::new();
        let mut found = Vec::new();
        for offset in &self.evidence.group {
            if let Some(before) = last.insert((&offset.group, offset.partition), offset.next)
                && offset.next < before
            {
                let (group, partition, next) = (&offset.group, offset.partition, offset.next);
                found
                    .push(("rewound-offset", format!("{group} went from {before} to {next} in partition {partition}")));
            }
        }
        self.find_all(found);
    }
}
