//! Transactions against a real broker, judged by Kafka's own Java client, with a proxy that makes requests late.

use std::collections::BTreeMap;
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use hookbridge::config;
use hookbridge::kafka::restore::{Committed, From, Restore, Source, Step, Wait};
use hookbridge::kafka::{
    Abort, AssignmentEpoch, Batch, Cleanup, Client, Consumer, Control, Error, Event, Finish, Membership, NextOffset,
    StartAt, TopicPartition, TopicPlan, TransactionalId, Transactor, Write,
};

use crate::harness::kafka::Kafka;
use crate::harness::proxy::{ADD_OFFSETS_TO_TXN, Armed, END_TXN, Fault, Proxy};
use crate::harness::reader::Isolation;
use crate::harness::{own_kafka, random_name, services};

/// What no wait here should ever need; a transaction that a crash left open is waited for in less.
const PATIENCE: Duration = Duration::from_secs(60);

/// One broker with a proxy before it for the tests that need one: a fault is for one client only.
static PROXIED: LazyLock<(Kafka, Proxy)> = LazyLock::new(|| {
    let kafka = own_kafka();
    let proxy = kafka.proxied();
    (kafka, proxy)
});

/// A topic of events and one of receipts, and a group that reads the one and writes the other.
#[derive(Clone)]
struct World {
    /// Where the Java reader looks.
    bootstrap: String,
    client: Client,
    /// Also the `client.id`.
    name: String,
    events: Arc<str>,
    receipts: Arc<str>,
}

impl World {
    async fn new(bootstrap: &str, direct: &str, partitions: i32) -> Self {
        let name = random_name();
        let client = client(bootstrap, &name);
        let (events, receipts) = (format!("{name}.events"), format!("{name}.receipts"));
        let plans = [plan(&events, partitions), plan(&receipts, partitions)];
        client.admin().unwrap().ensure_topics(&plans).await.unwrap();
        let (events, receipts) = (Arc::from(events), Arc::from(receipts));
        Self { bootstrap: direct.to_owned(), client, name, events, receipts }
    }

    async fn plain(partitions: i32) -> Self {
        let bootstrap = &services().bootstrap;
        Self::new(bootstrap, bootstrap, partitions).await
    }

    async fn proxied() -> Self {
        let (kafka, proxy) = &*PROXIED;
        Self::new(&proxy.bootstrap(), &kafka.bootstrap(), 1).await
    }

    fn id(&self) -> TransactionalId {
        TransactionalId::new(&self.name, "crm", "0")
    }

    async fn transactor(&self) -> Transactor {
        Transactor::open(&self.client, &self.id()).await.unwrap()
    }

    fn at(&self, partition: i32) -> TopicPartition {
        TopicPartition { topic: Arc::clone(&self.events), partition }
    }

    /// The receipt of a record, in the partition of its origin.
    fn receipt(&self, partition: i32, value: &str) -> Write {
        Write {
            topic: Arc::clone(&self.receipts),
            partition: Some(partition),
            key: Some(b"key".to_vec()),
            value: Some(value.as_bytes().to_vec()),
            headers: vec![("ce_id".to_owned(), value.as_bytes().to_vec())],
            // Retention goes by it: one of long ago is gone after a minute.
            timestamp_ms: None,
        }
    }

    /// A batch of one partition with one receipt, whose head is then at `next`.
    fn batch(&self, member: &Member, next: i64, value: &str) -> Batch {
        let mut batch = Batch::default();
        self.add(&mut batch, member, 0, next, value);
        batch
    }

    fn add(&self, batch: &mut Batch, member: &Member, partition: i32, next: i64, value: &str) {
        let (at, next) = (self.at(partition), NextOffset::stored(next));
        let metadata = format!("after {value}");
        assert!(batch.hold(&at, member.epochs[&at], next, metadata, [self.receipt(partition, value)]));
    }

    /// The receipts, by partition and in order.
    fn read(&self, isolation: Isolation) -> Vec<(i32, String)> {
        let found = services().read_from(&self.bootstrap, isolation, &[&self.receipts]);
        let mut found: Vec<_> =
            found.iter().map(|one| (one.partition, one.offset, text(one.value.as_deref()))).collect();
        found.sort();
        found.into_iter().map(|(partition, _, value)| (partition, value)).collect()
    }

    fn committed_receipts(&self) -> Vec<String> {
        self.read(Isolation::Committed).into_iter().map(|(_, value)| value).collect()
    }

    fn restore(&self, partitions: i32) -> Restore<(i32, i64, String)> {
        let source = Source {
            group: self.name.clone(),
            events: Arc::clone(&self.events),
            receipts: Arc::clone(&self.receipts),
            partitions: (0..partitions).collect(),
        };
        let read = |raw: hookbridge::kafka::restore::Raw<'_>| Some((raw.partition, raw.offset, text(raw.value)));
        Restore::start(&self.client, source, |_, _| From::default(), read).unwrap()
    }

    /// What the group has committed for partition 0, once it is stable.
    async fn committed(&self) -> Committed {
        let (_, committed, _) = restored(self.restore(1), 1).await;
        committed[&0].clone()
    }
}

fn text(value: Option<&[u8]>) -> String {
    String::from_utf8(value.unwrap_or_default().to_vec()).unwrap()
}

fn client(bootstrap: &str, id: &str) -> Client {
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
        librdkafka: BTreeMap::from([("session.timeout.ms", "6000"), ("heartbeat.interval.ms", "500")])
            .into_iter()
            .map(|(name, value)| (name.to_owned(), config::Secret::new(value)))
            .collect(),
    };
    Client::new(&kafka, id).unwrap()
}

fn plan(name: &str, partitions: i32) -> TopicPlan {
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

/// A member of the group, and what it has been assigned.
struct Member {
    consumer: Consumer,
    control: Control,
    epochs: BTreeMap<TopicPartition, AssignmentEpoch>,
}

impl Member {
    /// Joins, and waits until it holds that many partitions.
    async fn join(world: &World, partitions: usize) -> Self {
        let topics = [world.events.to_string()];
        let consumer = Consumer::subscribe(&world.client, &world.name, &topics).unwrap();
        let mut member = Self { control: consumer.control(), consumer, epochs: BTreeMap::new() };
        while member.epochs.len() < partitions {
            member.step().await;
        }
        member
    }

    /// Takes one event; what is taken away is given back at once.
    async fn step(&mut self) {
        match tokio::time::timeout(PATIENCE, self.consumer.next()).await.expect("an event in time").expect("no end") {
            Event::Assigned { epoch, partitions } => {
                for (at, _) in partitions {
                    self.control.start(epoch, at.clone(), StartAt::CommittedOrEarliest);
                    self.epochs.insert(at, epoch);
                }
            }
            Event::Revoked { partitions, .. } => self.epochs.retain(|at, _| !partitions.contains(at)),
            Event::Trouble(trouble) => panic!("{trouble}"),
            Event::Records(_) | Event::Ended(_) => {}
        }
    }

    fn membership(&self) -> Membership {
        self.control.membership().borrow().clone().expect("a member that holds partitions")
    }
}

type Restored = (Vec<Wait>, BTreeMap<i32, Committed>, Vec<(i32, i64, String)>);

/// Reads on until every partition has caught up.
async fn restored(mut restore: Restore<(i32, i64, String)>, partitions: usize) -> Restored {
    let (mut waits, mut committed, mut records, mut caught_up) = (Vec::new(), BTreeMap::new(), Vec::new(), 0);
    while caught_up < partitions {
        match tokio::time::timeout(PATIENCE, restore.next()).await.expect("a step in time").expect("no end") {
            Step::Waiting(wait) => waits.push(wait),
            Step::Committed(found) => committed = found.into_iter().collect(),
            Step::Records { records: found, .. } => records.extend(found),
            Step::CaughtUp { .. } => caught_up += 1,
            Step::Failed(error) => panic!("{error}"),
        }
    }
    (waits, committed, records)
}

fn block_on<T>(future: impl Future<Output = T>) -> T {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap().block_on(future)
}

fn assert_committed(finish: &Finish) {
    assert!(matches!(finish, Finish::Committed { .. }), "{finish:?}");
}

fn next(offset: i64) -> NextOffset {
    NextOffset::stored(offset)
}

#[test]
fn receipts_and_offsets_of_a_batch_are_committed_together() {
    block_on(async {
        let world = World::plain(2).await;
        let member = Member::join(&world, 2).await;
        let mut transactor = world.transactor().await;
        let mut batch = Batch::default();
        world.add(&mut batch, &member, 0, 7, "a");
        world.add(&mut batch, &member, 0, 9, "b");
        // A head that has not moved is sent, too: it is the fence.
        world.add(&mut batch, &member, 1, 0, "c");
        let finish = transactor.commit(batch, &member.membership()).await;
        assert_committed(&finish);
        let expected = [(0, "a".to_owned()), (0, "b".to_owned()), (1, "c".to_owned())];
        assert_eq!(world.read(Isolation::Committed), expected);

        let (waits, committed, records) = restored(world.restore(2), 2).await;
        assert_eq!(waits, []);
        assert_eq!(committed[&0], Committed { next: Some(next(9)), metadata: "after b".to_owned() });
        assert_eq!(committed[&1], Committed { next: Some(next(0)), metadata: "after c".to_owned() });
        let records: Vec<_> = records.into_iter().map(|(partition, _, value)| (partition, value)).collect();
        assert_eq!(records.iter().filter(|(partition, _)| *partition == 0).count(), 2, "{records:?}");
        let counts = transactor.counts();
        assert_eq!((counts.committed, counts.records, counts.unknown), (1, 3, 0), "{counts:?}");
    });
}

#[test]
fn transactions_follow_each_other_with_one_producer() {
    block_on(async {
        let world = World::plain(1).await;
        let member = Member::join(&world, 1).await;
        let mut transactor = world.transactor().await;
        let began = Instant::now();
        let mut expected = Vec::new();
        for n in 1..=20 {
            let value = format!("{n:02}");
            let finish = transactor.commit(world.batch(&member, n, &value), &member.membership()).await;
            assert_committed(&finish);
            expected.push(value);
        }
        println!("20 transactions in {:?}: {:?}", began.elapsed(), transactor.counts());
        assert_eq!(world.committed_receipts(), expected);
        assert_eq!(transactor.counts().replaced, BTreeMap::new(), "nothing went wrong, so nothing is replaced");
    });
}

#[test]
fn an_overtaken_member_commits_nothing_and_gets_its_outcomes_back() {
    block_on(async {
        let world = World::plain(2).await;
        let mut first = Member::join(&world, 2).await;
        let mut transactor = world.transactor().await;
        let old = first.membership();
        // The group moves on: a second member takes one of the two partitions.
        let second = tokio::select! {
            second = Member::join(&world, 1) => second,
            () = async { loop { first.step().await } } => unreachable!("steps do not end"),
        };
        let kept = (0..2).find(|partition| !second.epochs.contains_key(&world.at(*partition))).expect("one is kept");
        let mut batch = Batch::default();
        world.add(&mut batch, &first, kept, 5, "zombie");
        let finish = transactor.commit(batch, &old).await;
        let Finish::Aborted { reason: Abort::Generation { .. }, batch } = finish else { panic!("{finish:?}") };
        assert_eq!((batch.records(), batch.next(&world.at(kept))), (1, Some(next(5))));
        assert_eq!(world.committed_receipts(), Vec::<String>::new());

        // What is still held goes into the next transaction as it is.
        let mut memberships = first.control.membership();
        let current = memberships
            .wait_for(|now| now.as_ref().is_some_and(|now| now.holds(&world.at(kept), first.epochs[&world.at(kept)])));
        let current = current.await.unwrap().clone().expect("just seen");
        let finish = transactor.commit(batch, &current).await;
        assert_committed(&finish);
        assert_eq!(world.committed_receipts(), ["zombie"]);
    });
}

#[test]
fn what_is_settled_while_a_partition_is_taken_away_is_committed_before_it_goes() {
    block_on(async {
        let world = World::plain(2).await;
        let mut first = Member::join(&world, 2).await;
        let mut transactor = world.transactor().await;
        let second = tokio::spawn({
            let world = world.clone();
            async move { Member::join(&world, 1).await }
        });
        let (revoked, drained) = loop {
            let event = tokio::time::timeout(PATIENCE, first.consumer.next()).await.expect("in time").expect("no end");
            if let Event::Revoked { partitions, lost: false, drained } = event {
                break (partitions[0].partition, drained);
            }
        };
        let mut batch = Batch::default();
        world.add(&mut batch, &first, revoked, 5, "last");
        let finish = transactor.commit(batch, &first.membership()).await;
        assert_committed(&finish);
        drained.send(()).unwrap();
        let second = second.await.unwrap();
        assert!(second.epochs.contains_key(&world.at(revoked)));
        let (_, committed, _) = restored(world.restore(2), 2).await;
        assert_eq!(committed[&revoked].next, Some(next(5)));
        let mut late = Batch::default();
        world.add(&mut late, &first, revoked, 6, "late");
        let finish = transactor.commit(late, &first.membership()).await;
        assert!(matches!(finish, Finish::Aborted { reason: Abort::Stale, .. }), "{finish:?}");
    });
}

#[test]
fn outcomes_of_an_assignment_that_has_passed_are_dropped() {
    block_on(async {
        let world = World::plain(1).await;
        let member = Member::join(&world, 1).await;
        let mut transactor = world.transactor().await;
        let mut batch = Batch::default();
        let stale = AssignmentEpoch(member.epochs[&world.at(0)].0 + 1);
        batch.hold(&world.at(0), stale, NextOffset::stored(3), String::new(), [world.receipt(0, "stale")]);
        let finish = transactor.commit(batch, &member.membership()).await;
        assert!(matches!(finish, Finish::Aborted { reason: Abort::Stale, .. }), "{finish:?}");
        assert_eq!(world.committed().await, Committed::default());
        assert_eq!(world.read(Isolation::Uncommitted), [], "it was not even begun");
    });
}

#[test]
fn a_record_that_is_too_large_takes_the_whole_batch_back_and_is_named() {
    block_on(async {
        let world = World::plain(1).await;
        let member = Member::join(&world, 1).await;
        let mut transactor = world.transactor().await;
        let mut batch = world.batch(&member, 4, "fits");
        let large = "x".repeat(2 << 20);
        world.add(&mut batch, &member, 0, 5, &large);
        let finish = transactor.commit(batch, &member.membership()).await;
        let Finish::Aborted { reason: Abort::TooLarge { records }, batch } = finish else { panic!("{finish:?}") };
        let named: Vec<_> = records.iter().map(|record| (record.index, record.bytes > large.len())).collect();
        assert_eq!((named, batch.records()), (vec![(1, true)], 2), "the second, and by its size");
        transactor.ready().await.unwrap();
        assert_eq!(world.committed_receipts(), Vec::<String>::new());
        let finish = transactor.commit(world.batch(&member, 4, "fits"), &member.membership()).await;
        assert_committed(&finish);
        assert_eq!(world.committed_receipts(), ["fits"]);
    });
}

#[test]
fn a_second_process_of_one_slot_fences_the_first() {
    block_on(async {
        let world = World::plain(1).await;
        let member = Member::join(&world, 1).await;
        let mut first = world.transactor().await;
        let mut second = world.transactor().await;
        let finish = first.commit(world.batch(&member, 1, "first"), &member.membership()).await;
        assert!(matches!(finish, Finish::Fenced), "{finish:?}");
        assert!(matches!(first.ready().await, Err(Error::Fenced { .. })), "and it does not fence the second in turn");
        let finish = second.commit(world.batch(&member, 1, "second"), &member.membership()).await;
        assert_committed(&finish);
        assert_eq!(world.committed_receipts(), ["second"]);
    });
}

#[test]
fn a_commit_that_comes_late_ends_no_later_transaction() {
    block_on(async {
        let world = World::proxied().await;
        let member = Member::join(&world, 1).await;
        let mut transactor = world.transactor().await;
        let late = PROXIED.1.arm(&world.name, END_TXN, Fault::ResetAndHold);
        // librdkafka sends it again by itself, and says Ok.
        let finish = transactor.commit(world.batch(&member, 1, "a"), &member.membership()).await;
        assert_committed(&finish);
        assert!(late.is_met());
        // The next transaction stands open, its offsets sent, when the first one's commit comes; its own never does.
        let open = PROXIED.1.arm(&world.name, END_TXN, Fault::Hold);
        let membership = member.membership();
        let second = transactor.commit(world.batch(&member, 2, "b"), &membership);
        let meets = tokio::task::spawn_blocking(move || {
            open.wait_met(PATIENCE);
            late.let_go(PATIENCE);
            open
        });
        let (finish, open) = tokio::join!(second, meets);
        assert!(matches!(finish, Finish::Unknown(_)), "{finish:?}");
        transactor.ready().await.unwrap();
        assert_eq!(world.committed_receipts(), ["a"], "the late commit has ended what is not its own");
        assert_eq!(world.committed().await.next, Some(next(1)));
        tokio::task::spawn_blocking(move || open.unwrap().let_go(PATIENCE)).await.unwrap();
        let finish = transactor.commit(world.batch(&member, 2, "again"), &membership).await;
        assert_committed(&finish);
        assert_eq!(world.committed_receipts(), ["a", "again"]);
        assert_eq!(world.committed().await.next, Some(next(2)));
        assert_eq!(transactor.counts().replaced.values().sum::<u64>(), 2, "{:?}", transactor.counts());
    });
}

#[test]
fn a_commit_without_an_answer_is_unknown_until_the_producer_was_replaced() {
    block_on(async {
        let world = World::proxied().await;
        let member = Member::join(&world, 1).await;
        let mut transactor = world.transactor().await;
        let held = PROXIED.1.arm(&world.name, END_TXN, Fault::Hold);
        let finish = transactor.commit(world.batch(&member, 1, "a"), &member.membership()).await;
        assert!(matches!(finish, Finish::Unknown(_)), "{finish:?}");
        transactor.ready().await.unwrap();
        // From here on it is decided: it did not commit, and what was held cannot do it any more.
        assert_eq!(world.committed().await, Committed::default());
        tokio::task::spawn_blocking(move || held.let_go(PATIENCE)).await.unwrap();
        assert_eq!(world.committed().await, Committed::default());
        assert_eq!(world.committed_receipts(), Vec::<String>::new());
        let finish = transactor.commit(world.batch(&member, 1, "again"), &member.membership()).await;
        assert_committed(&finish);
        assert_eq!(
            (world.committed_receipts(), world.committed().await.next),
            (vec!["again".to_owned()], Some(next(1)))
        );
    });
}

#[test]
fn a_connection_that_breaks_at_the_commit_leaves_one_truth() {
    block_on(async {
        for fault in [Fault::ResetAndDrop, Fault::ResetAfter] {
            let world = World::proxied().await;
            let member = Member::join(&world, 1).await;
            let mut transactor = world.transactor().await;
            let broken = PROXIED.1.arm(&world.name, END_TXN, fault);
            let finish = transactor.commit(world.batch(&member, 1, "a"), &member.membership()).await;
            assert!(broken.is_met());
            transactor.ready().await.unwrap();
            assert_eq!(transactor.counts().replaced.values().sum::<u64>(), 1, "{fault:?}: {:?}", transactor.counts());
            let (receipts, committed) = (world.committed_receipts(), world.committed().await.next);
            match finish {
                Finish::Committed { .. } => assert_eq!((receipts, committed), (vec!["a".to_owned()], Some(next(1)))),
                Finish::Unknown(_) => assert_eq!(receipts.len(), usize::from(committed == Some(next(1))), "{fault:?}"),
                other => panic!("{fault:?}: {other:?}"),
            }
        }
    });
}

/// A process that was killed between the offsets and the commit of its second transaction.
async fn killed_while_committing(world: &World, member: &Member) -> Armed {
    let mut transactor = world.transactor().await;
    let membership = member.membership();
    let finish = transactor.commit(world.batch(member, 1, "a"), &membership).await;
    assert_committed(&finish);
    let held = PROXIED.1.arm(&world.name, END_TXN, Fault::Hold);
    let batch = world.batch(member, 2, "b");
    let commit = tokio::spawn(async move { transactor.commit(batch, &membership).await });
    let held = tokio::task::spawn_blocking(move || {
        held.wait_met(PATIENCE);
        held
    });
    let held = held.await.unwrap();
    commit.abort();
    held
}

#[test]
fn a_restore_waits_for_a_transaction_that_a_crash_left_open() {
    block_on(async {
        let world = World::proxied().await;
        let member = Member::join(&world, 1).await;
        let _held = killed_while_committing(&world, &member).await;
        let began = Instant::now();
        let (waits, committed, records) = restored(world.restore(1), 1).await;
        println!("restored after {:?}, having waited for {waits:?}", began.elapsed());
        assert!(!waits.is_empty(), "it says that it waits");
        assert!(began.elapsed() > Duration::from_secs(5), "the transaction's timeout decides it");
        assert_eq!(committed[&0].next, Some(next(1)));
        assert_eq!(records, [(0, 0, "a".to_owned())]);
    });
}

#[test]
fn a_restart_in_the_same_slot_ends_what_was_left_open_at_once() {
    block_on(async {
        let world = World::proxied().await;
        let member = Member::join(&world, 1).await;
        let held = killed_while_committing(&world, &member).await;
        let began = Instant::now();
        let mut transactor = world.transactor().await;
        let (_, committed, records) = restored(world.restore(1), 1).await;
        println!("restored after {:?}", began.elapsed());
        assert!(began.elapsed() < Duration::from_secs(12), "and not after the transaction's timeout");
        assert_eq!((committed[&0].next, records.len()), (Some(next(1)), 1));
        tokio::task::spawn_blocking(move || held.let_go(PATIENCE)).await.unwrap();
        let finish = transactor.commit(world.batch(&member, 2, "again"), &member.membership()).await;
        assert_committed(&finish);
        assert_eq!(world.committed_receipts(), ["a", "again"]);
    });
}

#[test]
fn offsets_that_cannot_be_added_are_not_committed() {
    block_on(async {
        let world = World::proxied().await;
        let member = Member::join(&world, 1).await;
        let mut transactor = world.transactor().await;
        let held = PROXIED.1.arm(&world.name, ADD_OFFSETS_TO_TXN, Fault::Hold);
        let finish = transactor.commit(world.batch(&member, 1, "a"), &member.membership()).await;
        let Finish::Aborted { batch, .. } = finish else { panic!("{finish:?}") };
        transactor.ready().await.unwrap();
        tokio::task::spawn_blocking(move || held.let_go(PATIENCE)).await.unwrap();
        assert_eq!((world.committed_receipts(), world.committed().await), (vec![], Committed::default()));
        let finish = transactor.commit(batch, &member.membership()).await;
        assert_committed(&finish);
        assert_eq!((world.committed_receipts(), world.committed().await.next), (vec!["a".to_owned()], Some(next(1))));
    });
}
