//! The border to Kafka against a real broker. Each test makes topics and groups of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use hookbridge::config;
use hookbridge::kafka::{
    Cleanup, Client, Consumer, Control, Error, Event, Limits, NextOffset, Outgoing, Position, Publisher, Record,
    StartAt, TopicPartition, TopicPlan, Trouble,
};
use tokio::sync::watch;
use uuid::Uuid;

use crate::harness::services;

/// What no wait here should ever need.
pub(crate) const PATIENCE: Duration = Duration::from_secs(30);

pub(crate) fn client(bootstrap: &str, properties: &[(&str, &str)]) -> Client {
    let kafka = config::Kafka {
        bootstrap_servers: bootstrap.to_owned(),
        create_topics: true,
        topic_prefix: String::new(),
        topic_defaults: config::TopicDefaults {
            partitions: 1,
            replication_factor: None,
            min_insync_replicas: None,
            retention: Duration::from_secs(3600),
        },
        librdkafka: properties.iter().map(|(k, v)| ((*k).to_owned(), config::Secret::new(*v))).collect(),
    };
    Client::new(&kafka, "kafka-edge").unwrap()
}

pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

pub(crate) fn plan(name: &str, partitions: i32) -> TopicPlan {
    TopicPlan {
        name: name.to_owned(),
        partitions,
        partitioned_as: None,
        replication: Some(1),
        min_isr: Some(1),
        retention: Some(Duration::from_secs(3600)),
        cleanup: Cleanup::Delete,
        max_message_bytes: Some(1_310_720),
    }
}

pub(crate) async fn fresh_topic(client: &Client, partitions: i32) -> String {
    let name = format!("edge.{}", Uuid::new_v4());
    client.admin().unwrap().ensure_topics(&[plan(&name, partitions)]).await.unwrap();
    name
}

fn outgoing<'a>(topic: &'a str, partition: Option<i32>, key: &'a str, value: &'a [u8]) -> Outgoing<'a> {
    Outgoing {
        topic,
        partition,
        key: Some(key.as_bytes()),
        value: Some(value),
        headers: &[("ce_id", b"evt_1"), ("ce_type", b"purchase_completed")],
        timestamp_ms: None,
    }
}

async fn fill(client: &Client, topic: &str, partition: i32, values: std::ops::Range<u32>) -> Vec<Position> {
    let publisher = Publisher::start(client, Limits::default()).unwrap();
    let mut pending = Vec::new();
    for value in values {
        let value = value.to_string();
        pending.push(publisher.publish(outgoing(topic, Some(partition), &value, value.as_bytes())).unwrap());
    }
    let mut positions = Vec::new();
    for one in pending {
        positions.push(one.await.unwrap());
    }
    positions
}

fn number(record: &Record) -> u32 {
    std::str::from_utf8(record.value.as_deref().unwrap()).unwrap().parse().unwrap()
}

async fn next(consumer: &mut Consumer) -> Event {
    tokio::time::timeout(PATIENCE, consumer.next()).await.expect("an event in time").expect("not ended")
}

/// Starts every partition that is assigned until there are `count`, and returns those with their committed offsets.
async fn assigned(consumer: &mut Consumer, count: usize) -> Vec<(TopicPartition, Option<NextOffset>)> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(consumer).await {
            Event::Assigned { epoch, partitions } => {
                for (at, _) in &partitions {
                    consumer.control().start(epoch, at.clone(), StartAt::CommittedOrEarliest);
                }
                all.extend(partitions);
            }
            Event::Trouble(trouble) => panic!("{trouble}"),
            Event::Revoked { .. } | Event::Records(_) | Event::Ended(_) => {}
        }
    }
    all
}

async fn records(consumer: &mut Consumer, count: usize) -> Vec<Record> {
    let mut all = Vec::new();
    while all.len() < count {
        match next(consumer).await {
            Event::Records(records) => all.extend(records),
            Event::Trouble(trouble) => panic!("{trouble}"),
            Event::Assigned { .. } | Event::Revoked { .. } | Event::Ended(_) => {}
        }
    }
    all
}

/// Reads until the consumer has ended, and says why it has.
async fn ended(mut consumer: Consumer) -> Option<Error> {
    loop {
        if let Event::Ended(cause) = next(&mut consumer).await {
            return cause;
        }
    }
}

#[test]
fn a_new_topic_takes_records_at_once_and_every_one_of_them_is_in_the_log() {
    let bootstrap = &services().bootstrap;
    block_on(async {
        let client = client(bootstrap, &[]);
        let publisher = Publisher::start(&client, Limits::default()).unwrap();
        for _ in 0..5 {
            let topic = fresh_topic(&client, 12).await;
            let mut pending = Vec::new();
            for n in 0..240 {
                let key = format!("key-{n}");
                pending.push((n, publisher.publish(outgoing(&topic, Some(n % 12), &key, key.as_bytes())).unwrap()));
            }
            let mut positions = BTreeSet::new();
            for (n, one) in pending {
                let position = one.await.unwrap();
                assert_eq!(position.partition, n % 12);
                positions.insert((position.partition, position.offset));
            }
            assert_eq!(positions.len(), 240);
            let mut consumer = Consumer::subscribe(&client, &format!("edge.{}", Uuid::new_v4()), &[topic]).unwrap();
            assigned(&mut consumer, 12).await;
            let read: BTreeSet<_> =
                records(&mut consumer, 240).await.iter().map(|one| (one.at.partition, one.offset)).collect();
            assert_eq!(read, positions);
        }
    });
}

#[test]
fn a_delivery_position_is_where_the_record_is_in_the_log() {
    let bootstrap = &services().bootstrap;
    block_on(async {
        let client = client(bootstrap, &[]);
        let topic = fresh_topic(&client, 4).await;
        let publisher = Publisher::start(&client, Limits::default()).unwrap();
        let mut told = BTreeMap::new();
        for n in 0..200 {
            let key = format!("customer-{}", n % 17);
            let value = n.to_string();
            let record =
                Outgoing { timestamp_ms: Some(1_700_000_000_000), ..outgoing(&topic, None, &key, value.as_bytes()) };
            let position = publisher.publish(record).unwrap().await.unwrap();
            told.insert((position.partition, position.offset), (key, value));
        }
        let mut consumer = Consumer::subscribe(&client, &format!("edge.{}", Uuid::new_v4()), &[topic]).unwrap();
        assigned(&mut consumer, 4).await;
        for record in records(&mut consumer, 200).await {
            let (key, value) = &told[&(record.at.partition, record.offset)];
            assert_eq!(record.key.as_deref(), Some(key.as_bytes()));
            assert_eq!(record.value.as_deref(), Some(value.as_bytes()));
            assert_eq!(record.timestamp_ms, Some(1_700_000_000_000));
            assert_eq!(record.header("ce_type"), Some("purchase_completed"));
        }
    });
}

#[test]
fn a_commit_is_what_the_next_member_starts_from() {
    let bootstrap = &services().bootstrap;
    block_on(async {
        let client = client(bootstrap, &[]);
        let (topic, group) = (fresh_topic(&client, 1).await, format!("edge.{}", Uuid::new_v4()));
        fill(&client, &topic, 0, 0..10).await;
        let mut first = Consumer::subscribe(&client, &group, std::slice::from_ref(&topic)).unwrap();
        let partitions = assigned(&mut first, 1).await;
        let (at, committed) = partitions[0].clone();
        assert_eq!(committed, None);
        assert_eq!(number(&records(&mut first, 10).await[0]), 0);
        let control = first.control();
        control.commit(vec![(at.clone(), NextOffset::after(5))]).await.unwrap();
        control.stop().await;
        assert!(ended(first).await.is_none());
        let refused = control.commit(vec![(at.clone(), NextOffset::after(9))]).await;
        assert!(matches!(refused, Err(Error::Stopped { .. })), "{refused:?}");

        let mut second = Consumer::subscribe(&client, &group, &[topic]).unwrap();
        let partitions = assigned(&mut second, 1).await;
        assert_eq!(partitions[0].1, Some(NextOffset::stored(6)));
        let read: Vec<u32> = records(&mut second, 4).await.iter().map(number).collect();
        assert_eq!(read, [6, 7, 8, 9]);
        let control = second.control();
        control.commit(vec![(at, NextOffset::after(7))]).await.unwrap();
        let lag = loop {
            if let Some(lag) =
                control.lag().first().and_then(hookbridge::kafka::consume::Lag::records).filter(|lag| *lag < 4)
            {
                break lag;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        };
        assert_eq!(lag, 2);
    });
}

#[test]
fn a_commit_for_a_partition_that_is_not_started_is_refused() {
    let bootstrap = &services().bootstrap;
    block_on(async {
        let client = client(bootstrap, &[]);
        let topic = fresh_topic(&client, 1).await;
        let mut consumer = Consumer::subscribe(&client, &format!("edge.{}", Uuid::new_v4()), &[topic]).unwrap();
        let (epoch, at) = loop {
            if let Event::Assigned { epoch, partitions } = next(&mut consumer).await {
                break (epoch, partitions[0].0.clone());
            }
        };
        let control = consumer.control();
        let refused = control.commit(vec![(at.clone(), NextOffset::stored(1))]).await;
        assert!(matches!(refused, Err(Error::NotAssigned { .. })), "{refused:?}");
        control.start(epoch, at.clone(), StartAt::CommittedOrEarliest);
        control.commit(vec![(at.clone(), NextOffset::stored(0))]).await.unwrap();
        let elsewhere = TopicPartition { partition: 7, ..at };
        let refused = control.commit(vec![(elsewhere, NextOffset::stored(1))]).await;
        assert!(matches!(refused, Err(Error::NotAssigned { .. })), "{refused:?}");
    });
}

#[test]
fn a_partition_starts_at_the_offset_it_is_told() {
    let bootstrap = &services().bootstrap;
    block_on(async {
        let client = client(bootstrap, &[]);
        let topic = fresh_topic(&client, 1).await;
        fill(&client, &topic, 0, 0..1000).await;
        let mut consumer = Consumer::subscribe(&client, &format!("edge.{}", Uuid::new_v4()), &[topic]).unwrap();
        let control = consumer.control();
        let (epoch, at) = loop {
            if let Event::Assigned { epoch, partitions } = next(&mut consumer).await {
                break (epoch, partitions[0].0.clone());
            }
        };
        control.start(epoch, at.clone(), StartAt::Offset(NextOffset::stored(990)));
        let read: Vec<u32> = records(&mut consumer, 10).await.iter().map(number).collect();
        assert_eq!(read, (990..1000).collect::<Vec<_>>());
        // Anew, elsewhere: a rewind.
        control.start(epoch, at, StartAt::Offset(NextOffset::stored(500)));
        let read: Vec<u32> = records(&mut consumer, 500).await.iter().map(number).collect();
        assert_eq!(read, (500..1000).collect::<Vec<_>>());
    });
}

#[test]
fn an_offset_outside_the_log_is_a_trouble_with_its_place_and_can_be_mended() {
    let bootstrap = &services().bootstrap;
    block_on(async {
        let client = client(bootstrap, &[]);
        let topic = fresh_topic(&client, 2).await;
        fill(&client, &topic, 0, 0..10).await;
        fill(&client, &topic, 1, 0..10).await;
        let mut consumer = Consumer::subscribe(&client, &format!("edge.{}", Uuid::new_v4()), &[topic]).unwrap();
        let control = consumer.control();
        let (epoch, partitions) = loop {
            if let Event::Assigned { epoch, partitions } = next(&mut consumer).await {
                break (epoch, partitions);
            }
        };
        let at = |partition| partitions.iter().find(|(at, _)| at.partition == partition).unwrap().0.clone();
        control.start(epoch, at(0), StartAt::Offset(NextOffset::stored(5_000)));
        control.start(epoch, at(1), StartAt::CommittedOrEarliest);
        let mut read = Vec::new();
        let trouble = loop {
            match next(&mut consumer).await {
                Event::Trouble(trouble) => break trouble,
                Event::Records(records) => read.extend(records),
                other => panic!("{other:?}"),
            }
        };
        let Trouble::OffsetOutOfRange { at: place, wanted, first, end } = trouble else { panic!("{trouble:?}") };
        assert_eq!((place, wanted.get(), first.get(), end.get()), (at(0), 5_000, 0, 10));
        control.start(epoch, at(0), StartAt::Offset(first));
        while read.len() < 20 {
            read.extend(records(&mut consumer, 1).await);
        }
        let both: BTreeSet<_> = read.iter().map(|one| (one.at.partition, one.offset)).collect();
        assert_eq!((both.len(), read.len()), (20, 20), "the other partition went on, and nothing came twice");
    });
}

#[test]
fn a_full_channel_pauses_and_goes_on_without_a_gap() {
    let bootstrap = &services().bootstrap;
    block_on(async {
        let client = client(bootstrap, &[]);
        let topic = fresh_topic(&client, 2).await;
        fill(&client, &topic, 0, 0..20_000).await;
        fill(&client, &topic, 1, 0..20_000).await;
        let mut consumer = Consumer::subscribe(&client, &format!("edge.{}", Uuid::new_v4()), &[topic]).unwrap();
        assigned(&mut consumer, 2).await;
        let mut read: BTreeMap<i32, Vec<i64>> = BTreeMap::new();
        let mut stalls = 0;
        while read.values().map(Vec::len).sum::<usize>() < 40_000 {
            if stalls < 5 {
                // Long enough for the channel to fill and for the pause behind it.
                tokio::time::sleep(Duration::from_millis(600)).await;
                stalls += 1;
            }
            for record in records(&mut consumer, 1).await {
                read.entry(record.at.partition).or_default().push(record.offset);
            }
        }
        for (partition, offsets) in read {
            assert!(offsets.iter().copied().eq(0..20_000), "partition {partition} has a gap or a repetition");
        }
    });
}

#[test]
fn a_paused_partition_says_nothing_until_it_is_resumed() {
    let bootstrap = &services().bootstrap;
    block_on(async {
        let client = client(bootstrap, &[]);
        let topic = fresh_topic(&client, 1).await;
        let mut consumer =
            Consumer::subscribe(&client, &format!("edge.{}", Uuid::new_v4()), std::slice::from_ref(&topic)).unwrap();
        let (at, _) = assigned(&mut consumer, 1).await.remove(0);
        let control = consumer.control();
        fill(&client, &topic, 0, 0..5).await;
        records(&mut consumer, 5).await;
        control.pause(vec![at.clone()]);
        // Answered by the same thread after the pause.
        control.commit(vec![(at.clone(), NextOffset::stored(5))]).await.unwrap();
        fill(&client, &topic, 0, 5..10).await;
        assert!(tokio::time::timeout(Duration::from_millis(700), consumer.next()).await.is_err());
        control.resume(vec![at]);
        let read: Vec<u32> = records(&mut consumer, 5).await.iter().map(number).collect();
        assert_eq!(read, [5, 6, 7, 8, 9]);
    });
}

/// A member that settles what it reads and commits when its partitions go.
struct Member {
    settled: watch::Receiver<Vec<(i32, i64)>>,
    control: Control,
    running: tokio::task::JoinHandle<()>,
}

impl Member {
    fn join(client: &Client, group: &str, topic: &str) -> Self {
        let consumer = Consumer::subscribe(client, group, &[topic.to_owned()]).unwrap();
        let control = consumer.control();
        let (sender, settled) = watch::channel(Vec::new());
        Self { settled, control, running: tokio::spawn(settle(consumer, sender)) }
    }

    async fn leave(self) -> Vec<(i32, i64)> {
        self.control.stop().await;
        self.running.await.unwrap();
        self.settled.borrow().clone()
    }
}

async fn settle(mut consumer: Consumer, settled: watch::Sender<Vec<(i32, i64)>>) {
    let control = consumer.control();
    let mut heads: BTreeMap<TopicPartition, NextOffset> = BTreeMap::new();
    loop {
        match consumer.next().await.expect("an end is said") {
            Event::Assigned { epoch, partitions } => {
                for (at, _) in partitions {
                    control.start(epoch, at, StartAt::CommittedOrEarliest);
                }
            }
            Event::Records(records) => settled.send_modify(|settled| {
                for record in records {
                    settled.push((record.at.partition, record.offset));
                    heads.insert(record.at, NextOffset::after(record.offset));
                }
            }),
            Event::Revoked { partitions, lost, drained } => {
                assert!(!lost);
                let mine = partitions.iter().filter_map(|at| Some((at.clone(), heads.remove(at)?))).collect();
                control.commit(mine).await.unwrap();
                drained.send(()).unwrap();
            }
            Event::Trouble(trouble) => panic!("{trouble}"),
            Event::Ended(cause) => {
                assert!(cause.is_none(), "{cause:?}");
                return;
            }
        }
    }
}

/// Publishes to every partition in turn until told to stop; says what is where.
async fn publish_on(client: Client, topic: String, stop: watch::Receiver<bool>) -> BTreeSet<(i32, i64)> {
    let publisher = Publisher::start(&client, Limits::default()).unwrap();
    let mut told = BTreeSet::new();
    let mut n: i32 = 0;
    while !*stop.borrow() {
        let position = publisher.publish(outgoing(&topic, Some(n % 8), "k", b"v")).unwrap().await.unwrap();
        told.insert((position.partition, position.offset));
        n += 1;
    }
    told
}

#[test]
fn a_rebalance_between_two_members_hands_over_without_loss_or_repetition() {
    let bootstrap = &services().bootstrap;
    block_on(async {
        let client = client(bootstrap, &[]);
        let (topic, group) = (fresh_topic(&client, 8).await, format!("edge.{}", Uuid::new_v4()));
        let (stop, stopped) = watch::channel(false);
        let publishing = tokio::spawn(publish_on(client.clone(), topic.clone(), stopped));
        let busy = |member: &Member| {
            let mut settled = member.settled.clone();
            async move {
                let begun = settled.borrow().len();
                let enough = settled.wait_for(|settled| settled.len() >= begun + 100);
                tokio::time::timeout(PATIENCE, enough).await.expect("progress").unwrap();
            }
        };
        let first = Member::join(&client, &group, &topic);
        busy(&first).await;
        let second = Member::join(&client, &group, &topic);
        busy(&second).await;
        busy(&first).await;
        let mut settled = second.leave().await;
        busy(&first).await;
        stop.send(true).unwrap();
        let told = publishing.await.unwrap();
        let left = told.len() - settled.len();
        let mut rest = first.settled.clone();
        let all = tokio::time::timeout(PATIENCE, rest.wait_for(|settled| settled.len() >= left)).await.is_ok();
        assert!(all, "the last records are read");
        settled.extend(first.leave().await);
        settled.sort_unstable();
        let distinct: BTreeSet<_> = settled.iter().copied().collect();
        let lost: Vec<_> = told.difference(&distinct).collect();
        let unheard: Vec<_> = distinct.difference(&told).collect();
        let twice: Vec<_> = settled.windows(2).filter(|two| two[0] == two[1]).map(|two| two[0]).collect();
        assert!(lost.is_empty() && unheard.is_empty(), "lost {lost:?}, unheard of {unheard:?}");
        assert!(twice.is_empty(), "settled twice: {twice:?}");
    });
}

#[test]
fn a_member_that_stops_is_drained_like_any_other_revocation() {
    let bootstrap = &services().bootstrap;
    block_on(async {
        let client = client(bootstrap, &[]);
        let (topic, group) = (fresh_topic(&client, 1).await, format!("edge.{}", Uuid::new_v4()));
        fill(&client, &topic, 0, 0..3).await;
        let mut consumer = Consumer::subscribe(&client, &group, std::slice::from_ref(&topic)).unwrap();
        assigned(&mut consumer, 1).await;
        records(&mut consumer, 3).await;
        let control = consumer.control();
        let stopping = tokio::spawn({
            let control = control.clone();
            async move { control.stop().await }
        });
        let Event::Revoked { partitions, lost, drained } = next(&mut consumer).await else { panic!("a revocation") };
        assert!(!lost);
        control.commit(vec![(partitions[0].clone(), NextOffset::stored(3))]).await.unwrap();
        drained.send(()).unwrap();
        assert!(ended(consumer).await.is_none());
        stopping.await.unwrap();
        let mut next_one = Consumer::subscribe(&client, &group, &[topic]).unwrap();
        assert_eq!(assigned(&mut next_one, 1).await[0].1, Some(NextOffset::stored(3)));
    });
}

#[test]
fn a_topic_that_is_missing_is_a_trouble_that_names_it() {
    let bootstrap = &services().bootstrap;
    block_on(async {
        let client = client(bootstrap, &[]);
        let topic = format!("edge.missing.{}", Uuid::new_v4());
        let mut consumer =
            Consumer::subscribe(&client, &format!("edge.{}", Uuid::new_v4()), std::slice::from_ref(&topic)).unwrap();
        let Event::Trouble(trouble) = next(&mut consumer).await else { panic!("a trouble") };
        assert!(trouble.to_string().contains(&topic), "{trouble}");
        let publisher = Publisher::start(&client, Limits::default()).unwrap();
        let health = publisher.health();
        assert_eq!((health.ok, health.restarts), (true, 0));
    });
}

#[test]
fn a_publisher_without_a_broker_gives_up_in_time_and_says_that_it_does_not_know() {
    block_on(async {
        // Reserved for nobody: nothing listens there.
        let client = client("127.0.0.1:9", &[("message.timeout.ms", "1500"), ("socket.timeout.ms", "1000")]);
        let publisher = Publisher::start(&client, Limits { max_in_flight_records: 2, ..Limits::default() }).unwrap();
        let begun = Instant::now();
        let one = publisher.publish(outgoing("orders", None, "k", b"1")).unwrap();
        let two = publisher.publish(outgoing("orders", None, "k", b"2")).unwrap();
        let refused = publisher.publish(outgoing("orders", None, "k", b"3"));
        assert!(matches!(refused, Err(Error::Full { .. })), "{refused:?}");
        for pending in [one, two] {
            let error = tokio::time::timeout(PATIENCE, pending).await.unwrap().unwrap_err();
            assert!(error.may_have_persisted(), "{error:?}");
        }
        assert!(begun.elapsed() < Duration::from_secs(5));
        assert!(client.ping(Duration::from_millis(300)).await.is_err());
        assert_eq!(publisher.health().in_flight_records, 0);
    });
}

#[test]
fn the_preflight_sees_what_breaks_the_promise() {
    let bootstrap = &services().bootstrap;
    block_on(async {
        let client = client(bootstrap, &[]);
        assert!(client.ping(PATIENCE).await.unwrap().brokers >= 1);
        let admin = client.admin().unwrap();
        let sound = plan(&format!("edge.{}", Uuid::new_v4()), 2);
        let compacted = TopicPlan { cleanup: Cleanup::Compact, ..plan(&format!("edge.{}", Uuid::new_v4()), 2) };
        let made = admin.ensure_topics(&[sound.clone(), compacted.clone()]).await.unwrap();
        assert!(made.iter().all(|one| !one.existed));
        let again = admin.ensure_topics(&[sound.clone(), compacted.clone()]).await.unwrap();
        assert!(again.iter().all(|one| one.existed && one.partitions == 2 && one.replication == 1));
        let names = [sound.name.clone(), compacted.name.clone()];
        admin.leaders_ready(&names, PATIENCE).await.unwrap();

        let report = admin.preflight(&[sound.clone(), compacted.clone()], 1_310_720).await.unwrap();
        assert!(report.problems.is_empty(), "{report:?}");
        let missing = plan(&format!("edge.{}", Uuid::new_v4()), 2);
        let wrong = TopicPlan { cleanup: Cleanup::Delete, ..compacted };
        let report = admin.preflight(&[wrong, missing], 1_310_720).await.unwrap();
        assert_eq!(report.problems.len(), 2, "{report:?}");
        let report = admin.preflight(&[sound], 5_000_000).await.unwrap();
        assert_eq!(report.problems.len(), 1, "{report:?}");
    });
}
