//! Orders to go back, for the owners of a sink's partitions.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write;

use super::{RewindArgs, Step, propose, steps};
use crate::cli::desk::{CLOCKS, Desk, Ended, ago_ms};
use crate::cli::sink::{exists, order};
use crate::cli::{Common, Exit};
use crate::config::Sink;
use crate::control::{self, Control, Place};
use crate::deliver::{self, Rewound, receipt};
use crate::kafka::TopicPartition;
use crate::kafka::lag::Standing;

pub(super) fn rewind(
    common: &Common,
    desk: &Desk,
    sink: &Sink,
    args: &RewindArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Ended> {
    exists(desk, &control::topic(desk.prefix()), err)?;
    let group = deliver::group(desk.prefix(), &sink.name);
    let topics = desk.client.existing(&desk.event_topics(sink))?;
    let standings = desk.runtime.block_on(desk.client.standings(&group, topics))?;
    let committed = standings.iter().filter_map(|one| Some((one.at.clone(), one.committed?.get())));
    let stands: Vec<_> = committed.collect();
    let steps = steps(desk, sink, args, &stands, err)?;
    if let Some(exit) = propose(common, sink, args, &steps, out, err)? {
        return Ok(exit);
    }
    let before = order::before(desk, sink)?;
    let from = receipts_from(desk, sink, args, &steps)?;
    let control = ordered(args.with_reason(before), args.again, &standings, &steps, &from);
    order::give(desk, control)?;
    writeln!(err, "{} partition(s) go back, each as soon as its owner hears of it", steps.len())?;
    Ok(Exit::Fine)
}

/// Where the receipts begin that may be of these events: none is older than its event, by whichever clock.
fn receipts_from(
    desk: &Desk,
    sink: &Sink,
    args: &RewindArgs,
    steps: &[Step],
) -> Result<BTreeMap<TopicPartition, i64>, Ended> {
    let clocks = i64::try_from(CLOCKS.as_millis()).unwrap_or_default();
    // Of an offset the time is not known, and all receipts that are kept are read.
    let since_ms = args.since.map_or(0, |since| ago_ms(since).saturating_sub(clocks).max(0));
    let of = |step: &Step| receipt::topic(desk.prefix(), &sink.name, &step.at.topic);
    // Of several partitions it is one topic.
    let topics: BTreeSet<String> = steps.iter().map(of).collect();
    let topics = desk.client.existing(&topics.into_iter().collect::<Vec<_>>())?;
    let extents = desk.runtime.block_on(desk.client.extents(&desk.reader_group(), topics, since_ms))?;
    let found = steps.iter().filter_map(|step| {
        let topic = of(step);
        let extent = extents.iter().find(|one| *one.at.topic == topic && one.at.partition == step.at.partition)?;
        Some((step.at.clone(), extent.start.get()))
    });
    Ok(found.collect())
}

/// What is wanted from now on. An order that is not carried out yet is not forgotten over this one.
fn ordered(
    mut before: Control,
    again: bool,
    standings: &[Standing],
    steps: &[Step],
    receipts_from: &BTreeMap<TopicPartition, i64>,
) -> Control {
    let carried_out = |at: &TopicPartition| {
        let standing = standings.iter().find(|one| one.at == *at);
        standing.map_or(0, |one| i64::try_from(Rewound::read(&one.metadata).number).unwrap_or(i64::MAX))
    };
    let last = standings.iter().map(|one| carried_out(&one.at)).max().unwrap_or_default();
    let number = before.rewinds.max(last) + 1;
    let mut places: BTreeMap<TopicPartition, Place> = std::mem::take(&mut before.places)
        .into_iter()
        .map(|place| (TopicPartition { topic: place.topic.as_str().into(), partition: place.partition }, place))
        .collect();
    for Step { at, to, .. } in steps {
        let mut place = Place {
            topic: at.topic.to_string(),
            partition: at.partition,
            number,
            offset: *to,
            receipts_from: receipts_from.get(at).copied().unwrap_or_default(),
            again,
        };
        if let Some(waiting) = places.get(at).filter(|waiting| waiting.number > carried_out(at)) {
            place.offset = place.offset.min(waiting.offset);
            place.receipts_from = place.receipts_from.min(waiting.receipts_from);
            place.again |= waiting.again;
        }
        places.insert(at.clone(), place);
    }
    Control { rewinds: number, places: places.into_values().collect(), ..before }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::kafka::NextOffset;

    fn at(partition: i32) -> TopicPartition {
        TopicPartition { topic: "events.order_placed".into(), partition }
    }

    fn standing(partition: i32, metadata: &str) -> Standing {
        let (first, end) = (NextOffset::stored(0), NextOffset::stored(100));
        Standing { at: at(partition), first, end, committed: Some(end), metadata: metadata.to_owned() }
    }

    fn ordered_to(before: Control, to: i64, again: bool, metadata: &str) -> Control {
        let steps = [Step { at: at(0), from: 100, to }];
        ordered(before, again, &[standing(0, metadata)], &steps, &BTreeMap::from([(at(0), to + 1)]))
    }

    #[test]
    fn an_order_that_waits_is_not_forgotten_over_the_next_one() {
        let first = ordered_to(Control { paused: true, ..Control::of("crm") }, 10, true, "receipts_from=7");
        assert_eq!((first.rewinds, first.paused, first.places.len()), (1, true, 1));
        let waiting = ordered_to(first.clone(), 50, false, "receipts_from=7");
        let [place] = waiting.places.as_slice() else { panic!("{waiting:?}") };
        assert_eq!((place.number, place.offset, place.receipts_from, place.again), (2, 10, 11, true));
        let done = ordered_to(first, 50, false, "receipts_from=7 rewind=1");
        let [place] = done.places.as_slice() else { panic!("{done:?}") };
        assert_eq!((place.number, place.offset, place.again), (2, 50, false));
    }

    #[test]
    fn numbers_go_on_from_what_was_carried_out_even_where_the_orders_are_lost() {
        assert_eq!(ordered_to(Control::of("crm"), 10, false, "rewind=6").rewinds, 7);
    }
}
