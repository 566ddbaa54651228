//! What each row does to a running system, and for how long.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::Cluster;
use crate::deployment::{Bridge, Place};
use crate::harness::maven::Cache;
use crate::harness::proxy::{
    ADD_OFFSETS_TO_TXN, ADD_PARTITIONS_TO_TXN, Armed, END_TXN, Fault, PRODUCE, TXN_OFFSET_COMMIT,
};
use crate::harness::{Random, eventually};
use crate::ledger::{Hits, Ledger};
use crate::receiver::{Mood, Receiver};
use crate::rows::Row;

/// A bridge that is asked to stop drains and leaves its group.
pub(crate) const STOPS_WITHIN: Duration = Duration::from_secs(30);

/// A bridge under load commits twenty times a second, once it has partitions.
const COMMITS_WITHIN: Duration = Duration::from_secs(15);

/// Of a broker to a request that was let go late.
const ANSWERS_WITHIN: Duration = Duration::from_secs(30);

/// The steps of a transaction as the brokers see them.
const STEPS: [(i16, &str); 5] = [
    (ADD_PARTITIONS_TO_TXN, "AddPartitionsToTxn"),
    (PRODUCE, "Produce"),
    (ADD_OFFSETS_TO_TXN, "AddOffsetsToTxn"),
    (TXN_OFFSET_COMMIT, "TxnOffsetCommit"),
    (END_TXN, "EndTxn"),
];

/// What the nemesis may break.
pub(crate) struct Victims<'a> {
    pub(crate) row: Row,
    pub(crate) cache: &'a Cache,
    pub(crate) cluster: &'a mut Cluster,
    pub(crate) bridges: &'a mut Vec<Bridge>,
    pub(crate) place: &'a Place,
    pub(crate) database: tokio_postgres::Client,
    pub(crate) ledger: Arc<Ledger>,
    pub(crate) random: Random,
    pub(crate) until: Instant,
    pub(crate) vendor: Option<Receiver>,
    /// What must not be, and was seen while breaking things.
    pub(crate) seen: Vec<String>,
    /// Partitions of transactions that Kafka had left open for ever.
    pub(crate) hanging: usize,
}

impl Victims<'_> {
    /// Breaks what the row breaks until the time is over, and leaves everything running.
    pub(crate) async fn torment(&mut self) -> Result<(), String> {
        let row = self.row;
        if let Some(vendor) = self.vendor.as_ref().filter(|_| row == Row::F18) {
            vendor.is(Mood::Picky);
        }
        match row {
            Row::F0 | Row::F28 => sleep_until(self.until).await,
            Row::F37 => {
                while self.has(Duration::from_secs(5)) {
                    self.wait(1_000, 4_000).await;
                    let kinds = [Row::F1, Row::F6, Row::F7, Row::F24, Row::F26];
                    let kind = kinds[self.choose(kinds.len())];
                    self.once(kind, true).await?;
                }
            }
            row => {
                while self.has(Duration::from_secs(3)) {
                    let (least, most) = Self::pause(row);
                    self.wait(least, most).await;
                    self.once(row, false).await?;
                }
            }
        }
        Ok(())
    }

    /// Milliseconds between two faults.
    fn pause(row: Row) -> (u64, u64) {
        match row {
            Row::F1 => (3_000, 10_000),
            Row::F26 => (200, 2_000),
            Row::F23 => (1_900, 2_100),
            _ => (1_000, 4_000),
        }
    }

    /// One fault and its mending. `also`: a bridge is killed in the middle of it.
    async fn once(&mut self, row: Row, also: bool) -> Result<(), String> {
        match row {
            Row::F1 => self.crash_a_bridge(),
            Row::F6 | Row::Twenty => self.kill_a_leader(also).await?,
            Row::F7 => self.freeze_a_leader(also).await,
            Row::F8 => self.kill_all_brokers().await?,
            Row::F23 => self.join_and_leave().await,
            Row::F24 => self.freeze_a_bridge(also).await,
            Row::F26 => self.end_sessions().await,
            Row::F36 => self.stop_a_bridge(),
            Row::F3 => self.crash_after_an_answer().await,
            Row::F4 => self.crash_within_a_transaction().await,
            Row::F5 => self.delay_a_transaction().await,
            Row::F16 | Row::F18 => self.change_the_vendors_mood(row).await,
            Row::F0 | Row::F28 | Row::F37 => {}
        }
        Ok(())
    }

    fn choose(&mut self, from: usize) -> usize {
        usize::try_from(self.random.below(from as u64)).expect("small")
    }

    async fn wait(&mut self, least_ms: u64, most_ms: u64) {
        let pause = Duration::from_millis(least_ms + self.random.below(most_ms - least_ms));
        sleep_until((Instant::now() + pause).min(self.until)).await;
    }

    /// Whether so much time is left.
    fn has(&self, time: Duration) -> bool {
        Instant::now() + time < self.until
    }

    fn crash_a_bridge(&mut self) {
        let victim = self.choose(self.bridges.len());
        let bridge = &mut self.bridges[victim];
        self.ledger.fault("kill -9 of a bridge", Hits::Bridge(bridge.name.clone()));
        bridge.crash_and_restart();
    }

    async fn kill_a_leader(&mut self, also: bool) -> Result<(), String> {
        let topic = self.place.topic();
        let sinks = self.place.sinks();
        let transactional = self.place.transactional_sinks();
        let (node, hits) = match self.random.below(6) {
            0 if !transactional.is_empty() => {
                let bridge = self.choose(self.bridges.len());
                let sink = transactional[self.choose(transactional.len())];
                let id = self.place.transactional_id(sink, &self.bridges[bridge].name);
                (self.cluster.transaction_coordinator(&id).await, Hits::Sink)
            }
            0 | 1 => {
                let group = self.place.group(sinks[self.choose(sinks.len())]);
                (self.cluster.coordinator(&group).await, Hits::Sink)
            }
            _ => {
                let number = i32::try_from(self.random.below(12)).expect("small");
                (self.cluster.leader(&topic, number).await, Hits::Partition(number))
            }
        };
        self.ledger.fault(format!("kill -9 of broker {}", node + 1), hits);
        self.cluster.kill9(node);
        if also {
            self.crash_a_bridge();
        }
        self.wait(3_000, 8_000).await;
        self.cluster.restart(node)?;
        // Two of three out of sync would be another row.
        self.cluster.wait_in_sync(&topic).await;
        Ok(())
    }

    async fn freeze_a_leader(&mut self, also: bool) {
        let topic = self.place.topic();
        let number = i32::try_from(self.random.below(12)).expect("small");
        let node = self.cluster.leader(&topic, number).await;
        let long = self.random.below(2) == 0 && self.has(Duration::from_secs(20));
        self.ledger.fault(format!("SIGSTOP of broker {}", node + 1), Hits::Partition(number));
        self.cluster.freeze(node);
        if also {
            self.crash_a_bridge();
        }
        sleep(Duration::from_secs(if long { 20 } else { 5 })).await;
        self.cluster.thaw(node);
        self.cluster.wait_in_sync(&topic).await;
    }

    async fn kill_all_brokers(&mut self) -> Result<(), String> {
        let topic = self.place.topic();
        for node in 0..self.cluster.len() {
            self.cluster.kill9(node);
        }
        self.wait(10_000, 30_000).await;
        self.ledger.fault("all brokers are started again", Hits::Sink);
        for node in 0..self.cluster.len() {
            self.cluster.restart(node)?;
        }
        // A JVM's start is not what is tried here.
        self.cluster.wait_writable(&topic).await;
        self.ledger.fault("every partition has a leader and its replicas in sync", Hits::Everything);
        self.cluster.wait_in_sync(&topic).await;
        // Kafka 4.3.1 takes a partition that has no leader for one that was deleted, and does without its marker
        // (KAFKA-20734): the transaction then hangs until a person ends it.
        let prefix = &self.place.prefix;
        let ended = tokio::task::block_in_place(|| self.cluster.end_hanging_transactions(self.cache, prefix))?;
        self.hanging += ended.len();
        for transaction in ended {
            self.ledger.fault(format!("a transaction that hangs is ended: {transaction}"), Hits::Sink);
        }
        Ok(())
    }

    /// A third member comes, works for two seconds, and goes.
    async fn join_and_leave(&mut self) {
        let mut third = Bridge::start("c", self.place);
        self.ledger.fault("a third bridge joins", Hits::Sink);
        third.wait_ready().await;
        self.wait(1_500, 2_500).await;
        if self.random.below(2) == 0 {
            third.kill9();
        } else {
            self.end_in_good_order(&mut third);
        }
    }

    fn end_in_good_order(&mut self, bridge: &mut Bridge) {
        match bridge.stop(STOPS_WITHIN) {
            Ok(Some(0)) => {}
            Ok(code) => self.seen.push(format!("bridge {} ended with {code:?} after SIGTERM", bridge.name)),
            Err(error) => self.seen.push(format!("bridge {} does not stop: {error}", bridge.name)),
        }
    }

    async fn freeze_a_bridge(&mut self, also: bool) {
        // At its first step nothing of a transaction is open yet, so that nobody waits for it: when the process wakes, and
        // goes on with it, its generation is all that fences it.
        let held = if self.row.wants_a_proxy() && self.random.below(2) == 0 {
            self.hold(ADD_PARTITIONS_TO_TXN, Fault::Hold)
        } else {
            None
        };
        let victim = match &held {
            Some((victim, ..)) => *victim,
            None => self.choose(self.bridges.len()),
        };
        let name = self.bridges[victim].name.clone();
        let at = held.as_ref().map_or(String::new(), |(_, sink, _)| format!(" at AddPartitionsToTxn of {sink}"));
        self.ledger.fault(format!("SIGSTOP of a bridge{at}"), Hits::Sink);
        self.bridges[victim].freeze();
        if also {
            let node = self.choose(self.cluster.len());
            self.cluster.freeze(node);
            sleep(self.place.session / 2).await;
            self.cluster.thaw(node);
        }
        let longer = if held.is_some() { 2_000 + self.random.below(2_000) } else { 1_000 + self.random.below(4_000) };
        sleep(self.place.session + Duration::from_millis(longer)).await;
        self.ledger.fault("SIGCONT of a bridge", Hits::Bridge(name));
        self.bridges[victim].thaw();
    }

    async fn end_sessions(&mut self) {
        self.ledger.fault("the sink's sessions are ended", Hits::Sink);
        let all = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity \
                   WHERE datname = current_database() AND pid <> pg_backend_pid()";
        self.database.batch_execute(all).await.expect("the nemesis' own session");
    }

    fn stop_a_bridge(&mut self) {
        let victim = self.choose(self.bridges.len());
        let mut bridge = self.bridges.remove(victim);
        self.ledger.fault("SIGTERM of a bridge", Hits::Bridge(bridge.name.clone()));
        self.end_in_good_order(&mut bridge);
        bridge.crash_and_restart();
        self.bridges.insert(victim, bridge);
    }

    /// The call has its effect, and nobody may have written that down.
    async fn crash_after_an_answer(&mut self) {
        if let Some(vendor) = self.vendor.clone() {
            vendor.next_call(self.place.session).await;
        }
        self.crash_a_bridge();
    }

    /// Chooses a bridge and one of its transactional sinks, and waits until that sink's producer sends such a request,
    /// which is held. `None`: it does not, having no partitions.
    fn hold(&mut self, request: i16, fault: Fault) -> Option<(usize, &'static str, Armed)> {
        let victim = self.choose(self.bridges.len());
        let sinks = self.place.transactional_sinks();
        let sink = sinks[self.choose(sinks.len())];
        let id = self.place.transactional_id(sink, &self.bridges[victim].name);
        let armed = self.cluster.arm(&id, request, fault);
        tokio::task::block_in_place(|| armed.is_met_within(COMMITS_WITHIN)).then_some((victim, sink, armed))
    }

    /// The request that a transaction was at is held while its process is killed: then it reaches the broker not at all,
    /// at once, or when the next process of that slot is at work.
    async fn crash_within_a_transaction(&mut self) {
        let (request, step) = STEPS[self.choose(STEPS.len())];
        let Some((victim, sink, armed)) = self.hold(request, Fault::Hold) else { return };
        let when = ["never", "at once", "late"][self.choose(3)];
        let bridge = &mut self.bridges[victim];
        let what = format!("kill -9 of a bridge at {step} of {sink}, which arrives {when}");
        self.ledger.fault(what, Hits::Bridge(bridge.name.clone()));
        bridge.kill9();
        match when {
            "never" => armed.drop_it(),
            "at once" => drop(armed),
            _ => {
                bridge.crash_and_restart();
                bridge.wait_ready().await;
                self.wait(0, 4_000).await;
                return;
            }
        }
        bridge.crash_and_restart();
    }

    /// Kafka has no fence against a request of the same producer that comes late: whoever sends it has to see to it.
    async fn delay_a_transaction(&mut self) {
        let (request, step) = STEPS[2 + self.choose(3)];
        let fault = [Fault::Hold, Fault::ResetAndHold][self.choose(2)];
        let Some((_, sink, armed)) = self.hold(request, fault) else { return };
        self.ledger.fault(format!("{step} of {sink} is held ({fault:?})"), Hits::Sink);
        self.wait(200, 14_000).await;
        self.ledger.fault(format!("{step} of {sink} is let go"), Hits::Sink);
        if !tokio::task::block_in_place(|| armed.let_go_within(ANSWERS_WITHIN)) {
            self.seen.push(format!("a late {step} of {sink} is not answered"));
        }
    }

    async fn change_the_vendors_mood(&mut self, row: Row) {
        let Some(vendor) = self.vendor.clone() else { return };
        let bad = match row {
            Row::F18 => &[Mood::Locked][..],
            _ => &[Mood::Down, Mood::Busy, Mood::Slow],
        };
        let mood = bad[self.choose(bad.len())];
        self.ledger.fault(format!("the vendor is {mood:?}"), Hits::Sink);
        vendor.is(mood);
        self.wait(2_000, 6_000).await;
        vendor.is(if row == Row::F18 { Mood::Picky } else { Mood::Fine });
    }

    /// Everything runs again, and says so.
    pub(crate) async fn heal(&mut self) {
        for node in 0..self.cluster.len() {
            self.cluster.thaw(node);
        }
        for bridge in &*self.bridges {
            bridge.thaw();
            bridge.wait_ready().await;
        }
        self.cluster.wait_in_sync(&self.place.topic()).await;
    }

    /// Waits until nothing is on its way to Kafka.
    pub(crate) async fn settle(&mut self, bound: Duration) {
        for bridge in &*self.bridges {
            eventually("a bridge to have nothing in flight", bound, async || {
                (bridge.metrics().await?.sum("hookbridge_in_flight_records", &[]) < 0.5).then_some(())
            })
            .await;
        }
    }
}
