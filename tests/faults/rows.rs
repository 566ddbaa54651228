//! The rows of the fault matrix: what each does to a running system, and for how long.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};

use crate::cluster::Cluster;
use crate::deployment::{Bridge, Place};
use crate::harness::{Random, eventually};
use crate::ledger::{Hits, Ledger};
use crate::receiver::{Mood, Receiver};

/// The session time-out of the sinks' consumers is six seconds: a process that is frozen for this long has lost its
/// partitions when it wakes.
const PAST_SESSION: Duration = Duration::from_secs(10);

/// A bridge that is asked to stop drains and leaves its group.
pub(crate) const STOPS_WITHIN: Duration = Duration::from_secs(30);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Row {
    F0,
    F1,
    F6,
    F7,
    F8,
    F23,
    F24,
    F26,
    F28,
    F36,
    Twenty,
    F3,
    F16,
    F18,
    F37,
}

impl Row {
    pub(crate) const ALL: [Self; 15] = [
        Self::F0,
        Self::F1,
        Self::F6,
        Self::F7,
        Self::F8,
        Self::F23,
        Self::F24,
        Self::F26,
        Self::F28,
        Self::F36,
        Self::Twenty,
        Self::F3,
        Self::F16,
        Self::F18,
        Self::F37,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::F0 => "F0",
            Self::F1 => "F1",
            Self::F6 => "F6",
            Self::F7 => "F7",
            Self::F8 => "F8",
            Self::F23 => "F23",
            Self::F24 => "F24",
            Self::F26 => "F26",
            Self::F28 => "F28",
            Self::F36 => "F36",
            Self::Twenty => "twenty",
            Self::F3 => "F3",
            Self::F16 => "F16",
            Self::F18 => "F18",
            Self::F37 => "F37",
        }
    }

    pub(crate) fn of(name: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|row| row.name().eq_ignore_ascii_case(name))
    }

    /// For the published table.
    pub(crate) fn what(self) -> &'static str {
        match self {
            Self::F0 => "nothing (control)",
            Self::F1 => "`kill -9` of a bridge every 3 to 10 s, started again at once",
            Self::F6 => "`kill -9` of the leader of a partition, or of the group's coordinator; back after 3 to 8 s",
            Self::F7 => "SIGSTOP of a partition's leader for 5 or 20 s, then SIGCONT",
            Self::F8 => "`kill -9` of all three brokers; back after 10 to 30 s",
            Self::F23 => "a third bridge joins and leaves every 2 s, by SIGTERM or `kill -9`",
            Self::F24 => "SIGSTOP of a bridge for 10 s, past its session; its work is taken over; SIGCONT",
            Self::F26 => "Postgres ends every session of the sink, every 0.2 to 2 s",
            Self::F28 => "each event comes 2 to 20 times at once, to both bridges",
            Self::F36 => "SIGTERM of a bridge under load, started again when it has ended",
            Self::Twenty => "each event comes 2 to 20 times at once, to both bridges, while leaders are killed",
            Self::F3 => "`kill -9` of a bridge right after a vendor has answered 2xx, before that is settled",
            Self::F16 => "a vendor answers 503, or 429 with `Retry-After`, or takes the call and answers too late",
            Self::F18 => "a vendor answers 400 to one event in twenty, and at times 401 to all",
            Self::F37 => "any two of F1, F6, F7, F24 and F26 at once",
        }
    }

    /// Requests that bring each event at once, at most.
    pub(crate) fn copies(self) -> u64 {
        if matches!(self, Self::F28 | Self::Twenty) { 20 } else { 1 }
    }

    /// Whether a bridge's counters survive it.
    pub(crate) fn spares_the_bridges(self) -> bool {
        !matches!(self, Self::F1 | Self::F3 | Self::F23 | Self::F36 | Self::F37)
    }

    /// Whether it is about an HTTP sink.
    pub(crate) fn wants_a_vendor(self) -> bool {
        matches!(self, Self::F3 | Self::F16 | Self::F18)
    }
}

/// What the nemesis may break.
pub(crate) struct Victims<'a> {
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
}

impl Victims<'_> {
    /// Breaks what the row breaks until the time is over, and leaves everything running.
    pub(crate) async fn torment(&mut self, row: Row) -> Result<(), String> {
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
        let (node, hits) = if self.random.below(3) == 0 {
            (self.cluster.coordinator(&self.place.group()).await, Hits::Sink)
        } else {
            let number = i32::try_from(self.random.below(12)).expect("small");
            (self.cluster.leader(&topic, number).await, Hits::Partition(number))
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
        self.ledger.fault("all brokers are started again", Hits::Everything);
        for node in 0..self.cluster.len() {
            self.cluster.restart(node)?;
        }
        self.cluster.wait_in_sync(&topic).await;
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
        let victim = self.choose(self.bridges.len());
        let name = self.bridges[victim].name.clone();
        self.ledger.fault("SIGSTOP of a bridge", Hits::Sink);
        self.bridges[victim].freeze();
        if also {
            let node = self.choose(self.cluster.len());
            self.cluster.freeze(node);
            sleep(PAST_SESSION / 2).await;
            self.cluster.thaw(node);
        }
        sleep(PAST_SESSION).await;
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
            vendor.next_call(PAST_SESSION).await;
        }
        self.crash_a_bridge();
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
