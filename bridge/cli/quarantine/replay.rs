//! Publishes what has become valid: events and their mark in one transaction, as much at once as that may hold.

use std::collections::BTreeSet;
use std::io::Write;
use std::sync::Arc;

use serde_json::json;
use tokio::runtime::Runtime;

use super::shown::Shown;
use super::{Desk, Ended, ReplayArgs, chosen, nothing, read};
use crate::app::start::quarantine_topic;
use crate::app::way_back;
use crate::calendar::Rfc3339;
use crate::cli::{Common, Exit, printable};
use crate::clock;
use crate::ingest::again::{Again, Kept, Outcome, Ready, Refused, again};
use crate::ingest::line::{Line, Source};
use crate::kafka::{self, Abort, Batch, Client, Finish, TopicPartition, TransactionalId, Transactor};
use crate::replay::quarantine::{Done, Mark, Place, Published, Quarantine, Request};

/// Looks at the marks: once, and again after each transaction of which nobody knows how it ended.
const MAX_ROUNDS: usize = 5;

/// Requests in one transaction: a fraction of a second, and what has to be done again where it fails.
const MAX_REQUESTS: usize = 500;

/// What came of the requests that were chosen.
#[derive(Debug, Default)]
struct Tally {
    /// Events.
    published: usize,
    ignored: usize,
    refused: usize,
    /// Requests that are left alone, for they split into another number than when they came.
    other_number: usize,
    /// Requests of which nothing is left to do.
    done: usize,
}

/// What is certain, and was said.
#[derive(Debug, Default)]
struct Told {
    tally: Tally,
    requests: BTreeSet<Place>,
}

/// What a request comes to: records for one transaction, and what there is to say.
struct Made {
    writes: Vec<kafka::Write>,
    said: Vec<String>,
    tally: Tally,
}

pub(super) fn replay(
    common: &Common,
    desk: Desk,
    args: &ReplayArgs,
    out: &mut dyn Write,
    err: &mut dyn Write,
) -> Result<Exit, Ended> {
    if args.which.is_empty() && args.choice.filter.is_none() && !args.every {
        writeln!(err, "error: which ones?\n\nhint: name them, choose them by `--where`, or say `--every`")?;
        return Ok(Exit::Usage);
    }
    args.choice.program(err)?;
    let Desk { compiled, client, registry, runtime } = desk;
    let ids = runtime.block_on(way_back::schema_ids(&compiled, &registry))?;
    let topic = quarantine_topic(&compiled.config, &args.source);
    let prefix = format!("{}hookbridge", compiled.config.kafka.topic_prefix);
    let id = TransactionalId::new(&prefix, "replay", &args.source);
    let line = way_back::line(compiled, &ids, &client)?;
    let Some(source) = line.sources.get(&args.source).cloned() else { return Ok(Exit::Config) };
    let work = Work { common, args, line: &line, source: &source, topic, client: &client, runtime: &runtime };
    if args.dry_run {
        return work.rehearse(out, err);
    }
    // Whoever replays this source at the same time is ended by it, and what that one had open is aborted: only now do the
    // marks say all.
    let transactor = runtime.block_on(Transactor::open(&client, &id))?;
    work.run(transactor, out, err)
}

struct Work<'w> {
    common: &'w Common,
    args: &'w ReplayArgs,
    line: &'w Line,
    source: &'w Source,
    topic: String,
    client: &'w Client,
    runtime: &'w Runtime,
}

/// How a transaction ended, as far as the command goes on from it.
enum Round {
    Committed,
    /// Nobody knows: the marks do.
    Again,
}

impl Work<'_> {
    fn rehearse(&self, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Ended> {
        let quarantine = read(self.client, &self.topic, self.args.choice.begin(), err)?;
        let chosen = chosen(&quarantine, &self.args.choice, &self.args.which, err)?;
        if chosen.is_empty() {
            return nothing(&self.args.source, err);
        }
        let mut tally = Tally::default();
        for (request, shown) in &chosen {
            let made = self.make(&quarantine, request, shown);
            for line in &made.said {
                writeln!(out, "{line}")?;
            }
            tally.add(&made.tally);
        }
        self.end(&tally, err)
    }

    fn run(&self, mut transactor: Transactor, out: &mut dyn Write, err: &mut dyn Write) -> Result<Exit, Ended> {
        let mut told = Told::default();
        for _ in 0..MAX_ROUNDS {
            let quarantine = read(self.client, &self.topic, self.args.choice.begin(), err)?;
            let chosen = chosen(&quarantine, &self.args.choice, &self.args.which, err)?;
            if chosen.is_empty() {
                return nothing(&self.args.source, err);
            }
            match self.round(&quarantine, &chosen, &mut transactor, &mut told, out, err)? {
                Round::Committed => return self.end(&told.tally, err),
                Round::Again => {
                    writeln!(err, "it is not known whether a transaction was committed: the marks are read again")?;
                }
            }
        }
        writeln!(
            err,
            "error: kafka did not confirm {MAX_ROUNDS} times\n\nhint: run it again: what was published is marked"
        )?;
        Ok(Exit::Unavailable)
    }

    #[allow(clippy::too_many_arguments, reason = "the state of one command, and where it speaks")]
    fn round(
        &self,
        quarantine: &Quarantine,
        chosen: &[(&Request, Shown)],
        transactor: &mut Transactor,
        told: &mut Told,
        out: &mut dyn Write,
        err: &mut dyn Write,
    ) -> Result<Round, Ended> {
        let topic: Arc<str> = self.topic.as_str().into();
        let mut waiting = chosen.iter().peekable();
        while waiting.peek().is_some() {
            let (mut batch, mut said, mut made) = (Batch::default(), Vec::new(), Tally::default());
            let mut places = Vec::new();
            for _ in 0..MAX_REQUESTS {
                let Some((request, shown)) = waiting.next() else { break };
                if told.requests.contains(&request.place) {
                    continue;
                }
                places.push(request.place);
                let one = self.make(quarantine, request, shown);
                said.extend(one.said);
                made.add(&one.tally);
                if !one.writes.is_empty() {
                    let at = TopicPartition { topic: Arc::clone(&topic), partition: request.place.0 };
                    batch.add(&at, one.writes);
                }
                if batch.is_full() {
                    break;
                }
            }
            if !batch.is_empty()
                && let Round::Again = self.commit(transactor, batch, err)?
            {
                return Ok(Round::Again);
            }
            told.tally.add(&made);
            told.requests.extend(places);
            for line in said {
                writeln!(out, "{line}")?;
            }
        }
        Ok(Round::Committed)
    }

    fn commit(&self, transactor: &mut Transactor, batch: Batch, err: &mut dyn Write) -> Result<Round, Ended> {
        match self.runtime.block_on(transactor.commit_records(batch)) {
            Finish::Committed { .. } => Ok(Round::Committed),
            Finish::Fenced => {
                writeln!(
                    err,
                    "error: another replay of {} has begun, and this one is over: what it published is marked\n\n\
                     hint: wait for the other one",
                    self.args.source
                )?;
                Err(Ended::Said(Exit::Problems))
            }
            Finish::Unknown(_) => {
                self.runtime.block_on(transactor.ready())?;
                Ok(Round::Again)
            }
            Finish::Aborted { reason: Abort::NoProducer { source }, .. } => Err(source.into()),
            Finish::Aborted { reason, .. } => {
                let name = reason.name();
                writeln!(
                    err,
                    "error: a transaction was aborted ({name}): {reason:?}\n\nhint: run it again: what was published is marked"
                )?;
                Err(Ended::Said(Exit::Unavailable))
            }
        }
    }

    /// What one request comes to today.
    fn make(&self, quarantine: &Quarantine, request: &Request, shown: &Shown) -> Made {
        let (partition, offset) = request.place;
        let place = format!("{}/{partition}@{offset}", self.topic);
        let kept = Kept {
            headers: &request.headers,
            body: &request.body,
            received_ms: request.received_ms,
            replay_key: request.replay_key.as_deref(),
            place: &place,
        };
        // Where the number differs, none is wanted, and the request is left alone.
        let wanted = |events| quarantine.wanted(request, events, self.args.all).unwrap_or_default();
        let mut made = Made { writes: Vec::new(), said: Vec::new(), tally: Tally::default() };
        match again(self.line, self.source, &kept, &wanted) {
            Again::Unreadable(refused) => {
                made.tally.refused += 1;
                made.said.push(self.say(shown, None, "still_wrong", &refused.reason_with_wrongs(), None));
            }
            Again::Events { events, .. } if quarantine.wanted(request, events, self.args.all).is_none() => {
                made.tally.other_number += 1;
                let why = format!("it has {events} event(s) now, and had another number; `--all` publishes all of it");
                made.said.push(self.say(shown, None, "left_alone", &why, None));
            }
            Again::Events { outcomes, .. } if outcomes.is_empty() => {
                made.tally.done += 1;
                made.said.push(self.say(shown, None, "left_alone", "it was replayed", None));
            }
            Again::Events { events, outcomes } => self.fill(&mut made, request, shown, events, outcomes),
        }
        made
    }

    fn fill(&self, made: &mut Made, request: &Request, shown: &Shown, events: usize, outcomes: Vec<(usize, Outcome)>) {
        let mut published = Vec::new();
        let (mut done, mut result) = (BTreeSet::new(), Done::Published);
        for (index, outcome) in outcomes {
            match outcome {
                Outcome::Ready(all) => {
                    made.tally.published += all.len();
                    done.insert(index);
                    for ready in all {
                        made.said.push(self.say(shown, Some(index), "published", "", Some(&ready)));
                        published.push(Published {
                            index,
                            event_type: ready.event_type.clone(),
                            event_id: ready.event_id.clone(),
                            topic: ready.topic.clone(),
                        });
                        made.writes.push(written(ready));
                    }
                }
                Outcome::Ignored => {
                    made.tally.ignored += 1;
                    done.insert(index);
                    result = Done::Ignored;
                    made.said.push(self.say(shown, Some(index), "ignored", "no rule takes it", None));
                }
                Outcome::Refused(refused) => {
                    made.tally.refused += 1;
                    made.said.push(self.say(shown, Some(index), "still_wrong", &refused.reason_with_wrongs(), None));
                }
            }
        }
        if done.is_empty() {
            return;
        }
        let (partition, offset) = request.place;
        let replayed_at = Rfc3339::from_ms(clock::now_ms()).to_string();
        let mark = Mark { partition, offset, events, indices: done, result, published, replayed_at };
        made.writes.push(kafka::Write {
            topic: self.topic.as_str().into(),
            partition: Some(partition),
            key: request.key.clone(),
            value: Some(mark.value()),
            headers: Mark::headers(&self.source.name),
            timestamp_ms: None,
        });
    }

    /// One line about one event of a request, or about all of it.
    fn say(&self, shown: &Shown, index: Option<usize>, result: &str, why: &str, ready: Option<&Ready>) -> String {
        if self.common.json {
            let value = json!({
                "place": shown.place(), "index": index, "result": result, "why": why, "dry_run": self.args.dry_run,
                "event_id": ready.map(|ready| &ready.event_id), "event_type": ready.map(|ready| &ready.event_type),
                "topic": ready.map(|ready| &ready.topic),
            });
            return printable(&value.to_string());
        }
        let index = index.map(|index| format!("#{index}")).unwrap_or_default();
        let result = match (result, self.args.dry_run) {
            ("published", true) => "would be published".to_owned(),
            ("ignored", true) => "would be ignored".to_owned(),
            (result, _) => result.replace('_', " "),
        };
        let event = ready.map(|ready| format!(": {} {} to {}", ready.event_type, ready.event_id, ready.topic));
        let why = if why.is_empty() { String::new() } else { format!(": {why}") };
        printable(&format!("{}{index} {result}{}{why}", shown.place(), event.unwrap_or_default()))
    }

    fn end(&self, tally: &Tally, err: &mut dyn Write) -> Result<Exit, Ended> {
        let Tally { published, ignored, refused, other_number, done } = tally;
        let verb = if self.args.dry_run { "would be published" } else { "published" };
        let mut parts = vec![format!("{published} event(s) {verb}")];
        for (count, what) in [
            (ignored, "ignored"),
            (refused, "still wrong"),
            (other_number, "request(s) of another number of events left alone"),
            (done, "request(s) were replayed before"),
        ] {
            if *count > 0 {
                parts.push(format!("{count} {what}"));
            }
        }
        writeln!(err, "{}", parts.join(", "))?;
        Ok(if refused + other_number == 0 { Exit::Fine } else { Exit::Problems })
    }
}

fn written(ready: Ready) -> kafka::Write {
    kafka::Write {
        topic: ready.topic.into(),
        partition: None,
        key: Some(ready.key),
        value: Some(ready.value),
        headers: ready.headers,
        timestamp_ms: None,
    }
}

impl Refused {
    fn reason_with_wrongs(&self) -> String {
        format!("{} ({})", self.reason, self.wrongs.join("; "))
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        let Self { published, ignored, refused, other_number, done } = other;
        self.published += published;
        self.ignored += ignored;
        self.refused += refused;
        self.other_number += other_number;
        self.done += done;
    }
}
