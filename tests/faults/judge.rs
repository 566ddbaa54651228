//! The verdict on a run, from what was sent, what stands in the topic and what stands in the database.
//!
//! Pure, and without a line of the bridge's: what it is given was read by Kafka's Java client and by SQL. The words are
//! those of `jepsen.tests.kafka`, where it has one.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use serde::{Deserialize, Serialize};

use crate::ledger::{Answer, Hits, Line};

#[path = "judge_sinks.rs"]
mod sinks;

/// A record of the event topic.
#[derive(Debug, Clone)]
pub(crate) struct Written {
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) event: String,
    /// Of the request that brought it.
    pub(crate) trace: String,
    pub(crate) key: String,
    pub(crate) sequence: i64,
    /// Recomputed from the record's value.
    pub(crate) body: String,
}

/// A row of the sink's table.
#[derive(Debug, Clone)]
pub(crate) struct Row {
    pub(crate) event: String,
    pub(crate) partition: i32,
    pub(crate) offset: i64,
    pub(crate) key: String,
    pub(crate) sequence: i64,
    pub(crate) body: String,
}

/// A change of one partition's offset row, in the order in which changes were committed.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Committed {
    pub(crate) partition: i32,
    pub(crate) next: i64,
    pub(crate) epoch: i64,
}

/// An offset that a group has committed for a partition of the event topic, in the order in which that was done.
#[derive(Debug, Clone)]
pub(crate) struct GroupOffset {
    pub(crate) group: String,
    pub(crate) partition: i32,
    pub(crate) next: i64,
}

/// A Kafka sink's side, for a reader of committed records.
#[derive(Debug, Clone, Default)]
pub(crate) struct Copies {
    pub(crate) written: Vec<Written>,
    /// Records that only a reader sees which does not ask whether they are committed.
    pub(crate) aborted: usize,
    /// Partition and offset of each event of which a receipt says that it was delivered.
    pub(crate) delivered: Vec<(i32, i64)>,
}

/// Everything that the judge may look at.
#[derive(Debug, Clone, Default)]
pub(crate) struct Evidence {
    pub(crate) ledger: Vec<Line>,
    /// As a reader of committed records sees the topic.
    pub(crate) committed: Vec<Written>,
    /// Events in the topic for a reader that does not ask whether they are committed.
    pub(crate) uncommitted: HashSet<String>,
    pub(crate) rows: Vec<Row>,
    pub(crate) offsets: Vec<Committed>,
    /// Dead letters of the HTTP sink, by event; none where there is no such sink.
    pub(crate) dead: Option<Vec<String>>,
    /// Where there is a Kafka sink.
    pub(crate) copies: Option<Copies>,
    /// Of the groups whose offsets are committed with Kafka's transactions.
    pub(crate) group: Vec<GroupOffset>,
    /// Whether a vendor must not be called again for what it has answered 2xx.
    pub(crate) repeats_no_call: bool,
    /// What the bridges counted; none where one of them was killed, and its counters with it.
    pub(crate) counted: Option<Counted>,
    /// What did not come to rest: told by the rig.
    pub(crate) stuck: Vec<String>,
}

/// Sums of the bridges' counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Counted {
    /// Reports that made an event unknown again although its record may be in the topic.
    pub(crate) uncertain: u64,
    pub(crate) accepted: u64,
    pub(crate) deduplicated: u64,
    /// Delivered, or removed by the sink's unique key.
    pub(crate) settled: u64,
}

/// One thing that must not be, by its name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Finding {
    pub(crate) kind: String,
    pub(crate) what: String,
}

/// Duplicates in the topic, by what made them. Readers remove them; they are counted, and are no failure by themselves.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Doubles {
    /// One request, two records: librdkafka's own (#4953).
    pub(crate) library: usize,
    /// Two bridges took the same event at the same time.
    pub(crate) two_bridges: usize,
    /// One bridge took it twice: its first report was uncertain, or it was killed in between.
    pub(crate) same_bridge: usize,
}

/// The figures of a run.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Figures {
    pub(crate) events: usize,
    pub(crate) requests: usize,
    /// Answered 2xx.
    pub(crate) accepted: usize,
    /// Requests of which the sender does not know what became of them.
    pub(crate) unknown: usize,
    pub(crate) records: usize,
    pub(crate) doubles: Doubles,
    pub(crate) rows: usize,
    pub(crate) lost: usize,
    pub(crate) doubled: usize,
    /// From an event's first request to its 2xx, the longest, in milliseconds.
    pub(crate) longest_wait_ms: u64,
    /// The longest time from a fault, or its mending, to the next 2xx where it hit, in milliseconds.
    pub(crate) recovery_ms: u64,
    /// Half of the events were answered within, and 99 of 100, in microseconds of the request that was answered.
    pub(crate) ack_p50_us: u64,
    pub(crate) ack_p99_us: u64,
    pub(crate) faults: usize,
    /// Of the vendor, and how many of them it had answered 2xx before.
    #[serde(default)]
    pub(crate) calls: usize,
    #[serde(default)]
    pub(crate) repeated_calls: usize,
    /// Events that are dead letters.
    #[serde(default)]
    pub(crate) dead: usize,
    /// Of a Kafka sink, and how many of its records are of transactions that were aborted.
    #[serde(default)]
    pub(crate) copies: usize,
    #[serde(default)]
    pub(crate) aborted_copies: usize,
}

/// Figures and findings: a run is good where there are none of the latter.
#[derive(Debug, Clone, Default)]
pub(crate) struct Verdict {
    pub(crate) figures: Figures,
    pub(crate) findings: Vec<Finding>,
}

/// What the ledger says of one event.
struct Sent<'a> {
    key: &'a str,
    sequence: i64,
    body: &'a str,
    first_at: u64,
    taken_at: Option<u64>,
    places: BTreeSet<(i32, i64)>,
}

struct Ask<'a> {
    event: &'a str,
    to: &'a str,
    at: u64,
}

pub(crate) fn judge(evidence: &Evidence) -> Verdict {
    let mut case = Case::open(evidence);
    case.nothing_is_lost();
    case.nothing_is_doubled();
    case.nothing_is_made_up();
    case.receipts_are_true();
    case.order_is_kept();
    case.offsets_only_grow();
    case.doubles_are_explained();
    case.counters_agree();
    case.the_vendor_has_each_once();
    case.each_has_one_copy();
    case.copies_have_their_receipts();
    case.groups_go_on();
    for what in &evidence.stuck {
        case.find("stuck", what.clone());
    }
    Verdict { figures: case.figures, findings: case.findings }
}

struct Case<'a> {
    evidence: &'a Evidence,
    sent: BTreeMap<&'a str, Sent<'a>>,
    asks: HashMap<&'a str, Ask<'a>>,
    figures: Figures,
    findings: Vec<Finding>,
}

impl<'a> Case<'a> {
    fn open(evidence: &'a Evidence) -> Self {
        let mut sent: BTreeMap<&str, Sent<'_>> = BTreeMap::new();
        let mut asks: HashMap<&str, Ask<'_>> = HashMap::new();
        let mut figures = Figures::default();
        let mut latencies = Vec::new();
        for line in &evidence.ledger {
            match line {
                Line::Intent { at, trace, event, key, sequence, body, to } => {
                    figures.requests += 1;
                    asks.insert(trace, Ask { event, to, at: *at });
                    let (key, body, places) = (key.as_str(), body.as_str(), BTreeSet::new());
                    sent.entry(event).or_insert(Sent {
                        key,
                        sequence: *sequence,
                        body,
                        first_at: *at,
                        taken_at: None,
                        places,
                    });
                }
                Line::Outcome { at, trace, answer } => {
                    let ask = &asks[trace.as_str()];
                    match answer {
                        Answer::Accepted { partition, offset, .. } => {
                            let event = sent.get_mut(ask.event).expect("asked before");
                            event.taken_at.get_or_insert(*at);
                            event.places.insert((*partition, *offset));
                            latencies.push(at - ask.at);
                        }
                        Answer::Status(503) | Answer::Timeout | Answer::Cut => figures.unknown += 1,
                        Answer::Status(_) | Answer::Refused => {}
                    }
                }
                Line::Call { .. } => figures.calls += 1,
                Line::Fault { .. } => figures.faults += 1,
            }
        }
        latencies.sort_unstable();
        let part = |hundredths: usize| latencies.get(latencies.len() * hundredths / 100).copied().unwrap_or_default();
        figures.events = sent.len();
        figures.accepted = sent.values().filter(|event| event.taken_at.is_some()).count();
        figures.records = evidence.committed.len();
        figures.rows = evidence.rows.len();
        (figures.ack_p50_us, figures.ack_p99_us) = (part(50), part(99));
        let waits = sent.values().filter_map(|event| Some(event.taken_at? - event.first_at));
        figures.longest_wait_ms = waits.max().unwrap_or_default() / 1000;
        figures.recovery_ms = recovery(&evidence.ledger, &asks) / 1000;
        Self { evidence, sent, asks, figures, findings: Vec::new() }
    }

    /// Whether the sender knows what became of each request. Where it does not although nothing was broken, the machine stood
    /// still for longer than sessions and calls may take.
    fn all_was_prompt(&self) -> bool {
        self.figures.unknown == 0
    }

    fn find(&mut self, kind: &str, what: String) {
        self.findings.push(Finding { kind: kind.to_owned(), what });
    }

    fn find_all(&mut self, found: impl IntoIterator<Item = (&'static str, String)>) {
        for (kind, what) in found {
            self.find(kind, what);
        }
    }

    /// I1: what was answered 2xx is in the topic and in the database; and I7: every event was answered 2xx in the end.
    fn nothing_is_lost(&mut self) {
        let topic: HashSet<&str> = self.evidence.committed.iter().map(|record| record.event.as_str()).collect();
        let table: HashSet<&str> = self.evidence.rows.iter().map(|row| row.event.as_str()).collect();
        let mut found = Vec::new();
        for (event, sent) in &self.sent {
            match sent.taken_at {
                None => found.push(("stuck", format!("{event} was never answered 2xx"))),
                Some(_) if !topic.contains(event) => {
                    found.push(("lost-write", format!("{event} was taken, and is not in the topic")));
                }
                Some(_) if !table.contains(event) => {
                    found.push(("lost-write", format!("{event} was taken, and is not in the table")));
                }
                Some(_) => {}
            }
        }
        for event in
            topic.difference(&table).filter(|event| self.sent.get(*event).is_some_and(|sent| sent.taken_at.is_none()))
        {
            found.push(("unseen", format!("{event} is in the topic, and not in the table")));
        }
        self.figures.lost = found.iter().filter(|(kind, _)| *kind == "lost-write").count();
        self.find_all(found);
    }

    /// I2: an event has one row.
    fn nothing_is_doubled(&mut self) {
        let mut rows: BTreeMap<&str, usize> = BTreeMap::new();
        for row in &self.evidence.rows {
            *rows.entry(&row.event).or_default() += 1;
        }
        for (event, count) in rows.into_iter().filter(|(_, count)| *count > 1) {
            self.figures.doubled += 1;
            self.find("duplicate", format!("{event} has {count} rows"));
        }
    }

    /// I3 and I6: nothing that was not sent, nothing else than what was sent, nothing that was aborted.
    fn nothing_is_made_up(&mut self) {
        let committed: HashSet<&str> = self.evidence.committed.iter().map(|record| record.event.as_str()).collect();
        let records = self
            .evidence
            .committed
            .iter()
            .map(|record| ("the topic", &record.event, &record.key, record.sequence, &record.body));
        let rows = self.evidence.rows.iter().map(|row| ("the table", &row.event, &row.key, row.sequence, &row.body));
        let mut found = Vec::new();
        for (place, event, key, sequence, body) in records.chain(rows) {
            match self.sent.get(event.as_str()) {
                None => found.push(("phantom", format!("{event} is in {place}, and was never sent"))),
                Some(sent) if (sent.key, sent.sequence, sent.body) != (key, sequence, body) => {
                    found.push(("corrupt", format!("{event} is in {place} with another content than was sent")));
                }
                Some(_) => {}
            }
        }
        for row in &self.evidence.rows {
            if !committed.contains(row.event.as_str()) && self.evidence.uncommitted.contains(&row.event) {
                found.push(("aborted-read", format!("{} has a row, and its record was aborted", row.event)));
            }
        }
        self.find_all(found);
    }

    /// Where a 2xx says that an event stands, it stands.
    fn receipts_are_true(&mut self) {
        let topic: HashMap<(i32, i64), &str> = self
            .evidence
            .committed
            .iter()
            .map(|record| ((record.partition, record.offset), record.event.as_str()))
            .collect();
        let mut found = Vec::new();
        for (event, sent) in &self.sent {
            for place in &sent.places {
                let stands = topic.get(place);
                if stands != Some(event) {
                    found.push(format!("{event} was said to be at {place:?}, where {stands:?} is"));
                }
            }
        }
        self.find_all(found.into_iter().map(|what| ("inconsistent-offsets", what)));
    }

    /// I4: of one key, the first record of each event, and the rows, stand in the order in which they were sent.
    fn order_is_kept(&mut self) {
        let mut seen = HashSet::new();
        let mut records: Vec<_> = self.evidence.committed.iter().collect();
        records.sort_by_key(|record| (record.partition, record.offset));
        let firsts = records.into_iter().filter(|record| seen.insert(&record.event));
        let firsts =
            firsts.map(|record| (record.key.as_str(), record.partition, record.offset, record.sequence)).collect();
        let rows =
            self.evidence.rows.iter().map(|row| (row.key.as_str(), row.partition, row.offset, row.sequence)).collect();
        let found = [("the topic", firsts), ("the table", rows)].map(|(place, places)| disorder(place, places));
        self.find_all(found.into_iter().flatten().map(|what| ("nonmonotonic", what)));
    }

    /// I5: a partition's offset never goes back, nor its epoch.
    fn offsets_only_grow(&mut self) {
        let mut last: HashMap<i32, Committed> = HashMap::new();
        let mut found = Vec::new();
        for look in &self.evidence.offsets {
            if let Some(before) = last.insert(look.partition, *look)
                && (look.next < before.next || look.epoch < before.epoch)
            {
                found.push(format!("partition {} went from {before:?} to {look:?}", look.partition));
            }
        }
        self.find_all(found.into_iter().map(|what| ("rewound-offset", what)));
    }

    /// A bridge that was not killed writes an event a second time only after a report that it counts as uncertain.
    fn doubles_are_explained(&mut self) {
        let mut records: BTreeMap<&str, Vec<&str>> = BTreeMap::new();
        for record in &self.evidence.committed {
            records.entry(&record.event).or_default().push(&record.trace);
        }
        let mut doubles = Doubles::default();
        for traces in records.values().filter(|traces| traces.len() > 1) {
            let requests: BTreeSet<&str> = traces.iter().copied().collect();
            let bridges: BTreeSet<&str> = requests.iter().filter_map(|trace| Some(self.asks.get(trace)?.to)).collect();
            doubles.library += traces.len() - requests.len();
            doubles.two_bridges += bridges.len().saturating_sub(1);
            doubles.same_bridge += requests.len().saturating_sub(bridges.len().max(1));
        }
        self.figures.doubles = doubles;
        if let Some(counted) = self.evidence.counted
            && doubles.same_bridge as u64 > counted.uncertain
        {
            let Counted { uncertain, .. } = counted;
            let again = doubles.same_bridge;
            self.find(
                "duplicate",
                format!("{again} events were written twice by one bridge, which knows of {uncertain}"),
            );
        }
    }

    /// I8: without a fault, the bridges' own counters say what the judge found.
    fn counters_agree(&mut self) {
        let Some(counted) = self.evidence.counted else { return };
        let most = counted.accepted + counted.uncertain + self.figures.doubles.library as u64;
        if !(counted.accepted..=most).contains(&(self.figures.records as u64)) {
            let records = self.figures.records;
            self.find("miscounted", format!("{records} records, where {counted:?}"));
        }
        if self.figures.faults > 0 || !self.all_was_prompt() {
            return;
        }
        let found = [
            ("accepted events", counted.accepted, self.figures.records as u64),
            ("settled records", counted.settled, self.figures.records as u64),
        ];
        for (what, counted, is) in found.into_iter().filter(|(_, counted, is)| counted != is) {
            self.find("miscounted", format!("{counted} {what} are counted, and there are {is}"));
        }
    }
}

/// Where keys are not in the order in which they were sent, each as (key, partition, offset, sequence).
fn disorder(place: &str, mut places: Vec<(&str, i32, i64, i64)>) -> Vec<String> {
    places.sort_unstable();
    let mut found = Vec::new();
    for pair in places.windows(2) {
        let ((key, partition, _, sequence), (next_key, next_partition, offset, next)) = (pair[0], pair[1]);
        if key != next_key {
            continue;
        }
        if partition != next_partition {
            found.push(format!("{key} is in partitions {partition} and {next_partition} of {place}"));
        } else if next <= sequence {
            found.push(format!("{key} in {place}: {next} at {partition}@{offset} stands after {sequence}"));
        }
    }
    found
}

/// The longest time from a fault to the next 2xx where it hit, in microseconds.
fn recovery(ledger: &[Line], asks: &HashMap<&str, Ask<'_>>) -> u64 {
    let mut longest = 0;
    for (at, line) in ledger.iter().enumerate() {
        let Line::Fault { at: broken, hits, .. } = line else { continue };
        let next = ledger[at..].iter().find_map(|line| match line {
            Line::Outcome { at, trace, answer: Answer::Accepted { partition, .. } } => {
                let ask = &asks[trace.as_str()];
                let here = match hits {
                    Hits::Bridge(name) => ask.to == name,
                    Hits::Partition(number) => partition == number,
                    Hits::Everything => true,
                    Hits::Sink => false,
                };
                // One that was sent before may have been answered from before.
                (here && ask.at >= *broken).then_some(*at)
            }
            _ => None,
        });
        longest = longest.max(next.map_or(0, |next| next - broken));
    }
    longest
}
